package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/mailgrant/mailgrant"
)

// A reserved database keeps room on its disk for what must be written also when
// that is full: what an attempt came to, a refresh token that has just come, a
// deletion. The room is a file of its own, which is given up when such a write
// finds none. Until it is there again, whoever brings more is refused. RE-05.
type reserved struct {
	*sqliteEngine
	file  string
	short atomic.Bool // the room is given up

	mu    sync.Mutex
	room  int64     // bytes that were kept, before they were given up
	tried time.Time // when it was last tried to have them again
	kept  time.Time // when somebody who reads last kept the log from starting over
	wg    sync.WaitGroup
}

const (
	// reserveMax is enough to move the log into the database, and as much again. A
	// small disk keeps a part of what is free at the start.
	reserveMax   = 2 * walSoft
	reservePart  = 8
	reserveLeast = 128 << 10

	// reserveEvery is how often the room is tried to be had again, while somebody
	// brings more.
	reserveEvery = time.Second

	// tendWait is how long those who write wait for those who read, so that the log
	// can start over. A backup reads for minutes: the next try is reserveEvery later.
	tendWait = 100 * time.Millisecond
)

func reserve(e *sqliteEngine, log *slog.Logger) *reserved {
	r := &reserved{sqliteEngine: e, file: e.path + ".reserve"}
	if err := r.fill(); err != nil {
		r.short.Store(true)
		log.Warn("there is no room to keep for the results of what is sent: new mail is refused until there is", "err", err)
	}
	return r
}

type bringing struct{}

// brings marks a write that brings more than was there. The others go on when
// the disk is full.
func brings(ctx context.Context) context.Context { return context.WithValue(ctx, bringing{}, true) }

func (r *reserved) submit(ctx context.Context, o *op) error {
	if ctx.Value(bringing{}) != nil {
		if r.short.Load() && !r.refill() {
			return noSpace(errReserve)
		}
		return r.sqliteEngine.submit(ctx, o)
	}
	if after := o.after; after != nil {
		o.after = func(err error) { r.answered(o, after, err) }
		return r.sqliteEngine.submit(ctx, o)
	}
	err := r.sqliteEngine.submit(ctx, o)
	if !errors.Is(err, mailgrant.NoSpace) {
		r.tend()
		return err
	}
	r.spend()
	again := &op{stmts: o.stmts, fn: o.fn, order: o.order, bytes: o.bytes, done: make(chan struct{})}
	err = r.sqliteEngine.submit(ctx, again)
	o.affected = again.affected
	return err
}

// answered hears of an op whose caller does not wait: in the syncer, or in the writer
// when it failed, which must not wait for itself.
func (r *reserved) answered(o *op, after func(error), err error) {
	if !errors.Is(err, mailgrant.NoSpace) {
		after(err)
		if err == nil {
			r.tend()
		}
		return
	}
	r.wg.Go(func() {
		r.spend()
		again := &op{stmts: o.stmts, fn: o.fn, order: o.order, bytes: o.bytes}
		again.after = func(err error) {
			o.affected = again.affected
			after(err)
		}
		if err := r.sqliteEngine.submit(context.Background(), again); err != nil {
			after(err)
		}
	})
}

func (r *reserved) close() error {
	err := r.sqliteEngine.close()
	r.wg.Wait()
	return err
}

var errReserve = errors.New("what is left is kept for what is on its way")

// spend gives the room up, and makes what the log has taken usable again.
func (r *reserved) spend() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.short.Swap(true) {
		r.tried = time.Now()
		r.log.Error("the disk of the database is full: what is on its way ends in the room that was kept for it, new mail is refused")
		if err := os.Remove(r.file); err != nil {
			r.log.Error("give up the room that was kept", "err", err)
		}
	}
	if fi, err := os.Stat(r.path + "-wal"); err == nil && fi.Size() <= 2*r.room { // else what is to be moved may take more than there is
		r.startOver(busyWait)
	}
}

// tend keeps half of the room that was given up for the database itself: what the
// log holds may need new pages there, so it starts over before it has taken all.
func (r *reserved) tend() {
	if !r.short.Load() {
		return
	}
	r.walMu.Lock()
	m, known := r.mark.index()
	r.walMu.Unlock()
	if !known || !r.mu.TryLock() { // whoever has it sees to the log, or to the room
		return
	}
	defer r.mu.Unlock()
	if int64(m.frames)*r.frame.Load() > r.room/2 && time.Since(r.kept) >= reserveEvery && !r.startOver(tendWait) {
		r.kept = time.Now()
	}
}

// startOver moves the log into the database, so that it is written from its
// beginning and does not grow; false when others keep it from that for so long. Call
// with mu held.
func (r *reserved) startOver(wait time.Duration) bool {
	var busy, logged, moved int
	_, err := r.side.Exec(fmt.Sprintf("PRAGMA busy_timeout = %d", wait.Milliseconds()))
	if err == nil {
		err = r.side.QueryRow("PRAGMA wal_checkpoint(RESTART)").Scan(&busy, &logged, &moved)
	}
	if err != nil {
		r.log.Warn("checkpoint", "err", err)
		if sqliteCode(err)&0xff == sqlite3.SQLITE_IOERR {
			r.broken.Store(true)
		}
	}
	return err == nil && busy == 0
}

// refill says whether the room is there again.
func (r *reserved) refill() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.short.Load() {
		return true
	}
	if time.Since(r.tried) < reserveEvery {
		return false
	}
	r.tried = time.Now()
	if err := r.fill(); err != nil {
		return false
	}
	r.short.Store(false)
	r.log.Info("the disk of the database has room again")
	return true
}

// fill takes the room: a part of what is free, so that the other part is left for
// what is new.
func (r *reserved) fill() error {
	f, err := os.OpenFile(r.file, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		return err
	}
	has, err := f.Stat()
	if err != nil {
		return err
	}
	size := min(int64(fs.Bavail)*int64(fs.Bsize)/reservePart, reserveMax)
	if r.room = has.Size(); size <= r.room && r.room > 0 {
		return nil
	}
	if size < reserveLeast {
		return errors.Join(noSpace(nil), os.Remove(r.file))
	}
	err = unix.Fallocate(int(f.Fd()), 0, 0, size)
	if errors.Is(err, unix.EOPNOTSUPP) {
		_, err = f.WriteAt(make([]byte, size), 0)
	}
	if err != nil {
		return errors.Join(err, os.Remove(r.file))
	}
	r.room = size
	return nil
}
