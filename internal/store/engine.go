package store

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
)

// An engine is one of the two databases. SQL is written once, with ? for
// parameters; an engine turns it into its own.
type engine interface {
	querier // reads, outside of any transaction

	// submit runs o in the next group of writes and returns when it is durable.
	submit(ctx context.Context, o *op) error

	// snapshot runs f over one unchanging view of everything.
	snapshot(ctx context.Context, f func(querier) error) error

	name() string
	forUpdate() string // what makes a SELECT lock its rows
	close() error
}

// A querier runs statements, on its own or inside a transaction.
type querier interface {
	query(ctx context.Context, q string, args ...any) (rows, error)
	exec(ctx context.Context, q string, args ...any) (affected int64, err error)
}

type rows interface {
	Next() bool
	Scan(dest ...any) error
	Err() error
	Close()
}

// A stmt is a statement that needs no answer but how many rows it touched.
type stmt struct {
	sql  string
	args []any
}

// An op is one caller's part of a group of writes: either statements that need
// no reading in between, which go to the database as they are, or a function
// that reads and writes in the transaction. It is all or nothing by itself,
// whatever happens to the others of its group.
type op struct {
	stmts    []stmt
	fn       func(context.Context, querier) error
	affected []int64 // by statement, when it succeeded

	order string // ops that lock the same rows go in this order, so that two groups do not wait for each other
	bytes int    // of its arguments, roughly
	err   error
	done  chan struct{} // closed when err is set
	after func(error)   // instead of done: called once, must be quick

	// leave lets a caller whose time is up go while it is being written; undo, when
	// there is one, is written next.
	leave bool
	undo  *op

	claim sync.Mutex // taken by the writer, or by a caller who gives up
	taken bool
	gone  bool
}

// take is the writer's: false when the caller gave up before.
func (o *op) take() bool {
	o.claim.Lock()
	defer o.claim.Unlock()
	o.taken = !o.gone
	return o.taken
}

// giveUp is the caller's: false when the writer has it already.
func (o *op) giveUp() bool {
	o.claim.Lock()
	defer o.claim.Unlock()
	o.gone = !o.taken
	return o.gone
}

func (o *op) finish(err error) {
	o.err = err
	if o.after != nil {
		o.after(err)
		return
	}
	close(o.done)
}

// An intake is where ops wait for the writers of an engine.
type intake struct {
	ops   chan *op
	ended chan struct{} // nothing new is taken; what is in ops is still run
	once  sync.Once
}

func newIntake() *intake { return &intake{ops: make(chan *op, 4*groupOps), ended: make(chan struct{})} }

// end refuses what comes from now on. Call it before the writers are stopped, who
// run what came before: each op gets one answer, and an end does not wait for
// those who write again and again.
func (i *intake) end() { i.once.Do(func() { close(i.ended) }) }

// give hands o to the writers and returns when it is answered.
func (i *intake) give(ctx context.Context, o *op) error {
	select {
	case i.ops <- o:
	case <-ctx.Done():
		return unavailable(ctx.Err())
	case <-i.ended:
		return unavailable(errClosed)
	}
	select {
	case <-i.ended: // the writers may be gone already
		if o.giveUp() {
			return unavailable(errClosed)
		}
	default:
	}
	if o.after != nil {
		return nil
	}
	select {
	case <-o.done:
		return o.err
	case <-ctx.Done():
		if o.giveUp() {
			return unavailable(ctx.Err())
		}
		if o.leave {
			return i.left(ctx, o)
		}
		<-o.done // it is being written: only its own answer is true
		return o.err
	}
}

// left is for a caller who goes although o is being written, as on a disk that has
// stopped answering. What is to undo o stands before all that comes later. RE-22.
func (i *intake) left(ctx context.Context, o *op) error {
	if o.undo != nil {
		select {
		case i.ops <- o.undo:
		case <-o.done:
			return o.err // the disk answers again
		}
	}
	return unavailable(ctx.Err())
}

var errClosed = errors.New("the store is closed")

// marks are the places of n values: (?, ?, …).
func marks(n int) string { return "(?" + strings.Repeat(", ?", n-1) + ")" }

// dollars turns ? into $1, $2, …; our texts have no ? elsewhere.
func dollars(q string) string {
	if v, ok := dollarCache.Load(q); ok {
		return v.(string)
	}
	var b strings.Builder
	n := 0
	for _, c := range q {
		if c == '?' {
			n++
			b.WriteByte('$')
			b.WriteString(strconv.Itoa(n))
			continue
		}
		b.WriteRune(c)
	}
	dollarCache.Store(q, b.String())
	return b.String()
}

var dollarCache sync.Map
