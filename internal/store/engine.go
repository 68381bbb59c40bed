package store

import (
	"context"
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
