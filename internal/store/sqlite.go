package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	sqlite "modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/mailgrant/mailgrant"
)

// sqliteEngine has one writer, which turns the writes that wait for it into one
// transaction, and several readers. What is committed is handed to the syncer,
// and answered once it is on the disk; the next transaction runs meanwhile.
//
//	ops ──writer: BEGIN … COMMIT──▶ committed ──syncer: fdatasync of the log──▶ answers
//	        └──every walSoft──▶ checkpointer: from the log into the database
type sqliteEngine struct {
	path  string
	log   *slog.Logger
	lock  *os.File
	write *sql.DB
	read  *sql.DB
	side  *sql.DB              // the checkpointer's
	stmts map[string]*sql.Stmt // of the writer's connection
	conn  *sql.Conn
	frame atomic.Int64 // bytes of a page in the log
	since int          // bytes written since the last checkpoint, roughly

	*intake
	committed chan []*op
	soft      chan struct{} // it is time for a checkpoint
	long      atomic.Int64  // bytes in the log, when it has become long: start it from its beginning
	broken    atomic.Bool   // a sync of the log failed
	disk      pulse
	stop      context.CancelFunc
	wg        sync.WaitGroup

	walMu sync.Mutex
	wal   *os.File                 // the log, for its sync; nil: to be opened
	mark  marker                   // how much of the log is synced
	force func(log *os.File) error // fdatasync; tests let it fail

	readMu    sync.RWMutex
	readStmts map[string]*sql.Stmt
}

const (
	// groupOps and groupBytes bound one transaction, so that its clients do not
	// wait for ever.
	groupOps   = 512
	groupBytes = 8 << 20

	// busyWait is how long a foreign lock on the file is waited for. With it an
	// accept answers within ten seconds. RE-06.
	busyWait = 4 * time.Second

	// walSoft is how much is written between two checkpoints. They run beside the
	// writes, so the log grows until, at walHard, the writer stops for what the
	// last checkpoint has left and starts the log from its beginning. walMax is
	// when it waits for readers to do so.
	walSoft = 16 << 20
	walHard = 64 << 20
	walMax  = 512 << 20

	// pageSize is that of a new database: a body of 10 KB takes two pages, and a
	// large one half as many reads and writes as with SQLite's own size.
	pageSize = 8192

	// stmtPages is what a statement writes into the log besides its arguments:
	// the pages of its table and indexes.
	stmtPages = 2 << 10
)

func sqliteDSN(path string, extra ...string) string {
	q := url.Values{}
	for _, p := range append([]string{
		"busy_timeout(" + fmt.Sprint(busyWait.Milliseconds()) + ")",
		"journal_mode(WAL)", "synchronous(NORMAL)", "foreign_keys(ON)", "temp_store(MEMORY)",
	}, extra...) {
		q.Add("_pragma", p)
	}
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + q.Encode()
}

func openSQLite(ctx context.Context, path string, log *slog.Logger) (*sqliteEngine, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, err
	}
	e := &sqliteEngine{path: path, log: log, lock: lock, mark: marker{path: path, log: log}, intake: newIntake(), committed: make(chan []*op), soft: make(chan struct{}, 1),
		readStmts: map[string]*sql.Stmt{}, force: func(log *os.File) error { return unix.Fdatasync(int(log.Fd())) }}
	if err := e.open(ctx); err != nil {
		e.letGo()
		return nil, err
	}
	run, stop := context.WithCancel(context.Background())
	e.stop = stop
	e.wg.Go(func() { e.writer(run); close(e.committed) })
	e.wg.Go(e.syncer)
	e.wg.Go(func() { e.checkpointer(run) })
	return e, nil
}

// lockFile keeps a second process away: it would count events twice.
func lockFile(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, mailgrant.Errorf(mailgrant.Misset, err, "the data directory cannot be written: %v", err).
			Fix("let mailgrant's user write there, or choose another directory (--dir)")
	}
	// A program that this process starts holds our lock between its fork and its
	// exec, and one that has just ended gives it up a moment later.
	for range lockTries {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
			return f, nil
		}
		unix.Nanosleep(&unix.Timespec{Nsec: int64(lockPause)}, nil)
	}
	f.Close()
	return nil, mailgrant.Errorf(mailgrant.Conflict, err, "another mailgrant uses this database").
		Fix("stop it first, or give this one a data directory of its own (--dir)")
}

const (
	lockTries = 40
	lockPause = 5 * time.Millisecond
)

// found gives a new file its page size. A pragma in its address cannot: those are
// run in the order of their names, and behind journal_mode it is too late.
func found(ctx context.Context, path string) error {
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath())
	if err != nil {
		return fmt.Errorf("make the database: %w", err)
	}
	db.SetMaxOpenConns(1)
	_, err = db.ExecContext(ctx, fmt.Sprintf("PRAGMA page_size = %d; PRAGMA journal_mode = WAL", pageSize))
	return errors.Join(err, db.Close())
}

func (e *sqliteEngine) open(ctx context.Context) error {
	f, err := os.OpenFile(e.path, os.O_CREATE|os.O_RDWR, 0o600) // else it is made readable for all
	if err != nil {
		return mailgrant.Errorf(mailgrant.Misset, err, "the database file cannot be opened: %v", err).
			Fix("let mailgrant's user read and write it, or choose another directory (--dir)")
	}
	info, err := f.Stat()
	f.Close() // before SQLite locks it: closing later would take its locks away
	if err == nil && info.Size() == 0 {
		err = found(ctx, e.path)
	}
	if err != nil {
		return sqliteError(err)
	}
	if err := lookAtLog(e.path); err != nil {
		return err
	}
	if err := e.mark.forget(); err != nil {
		return mailgrant.Errorf(mailgrant.Misset, err, "the data directory cannot be written: %v", err).
			Fix("let mailgrant's user write there, or choose another directory (--dir)")
	}
	if e.write, err = sql.Open("sqlite", sqliteDSN(e.path, "wal_autocheckpoint(0)", "cache_size(-4000)")); err != nil {
		return fmt.Errorf("open the database: %w", err)
	}
	e.write.SetMaxOpenConns(1)
	if err := e.connect(ctx); err != nil {
		return err
	}
	if e.read, err = sql.Open("sqlite", sqliteDSN(e.path, "wal_autocheckpoint(0)", "query_only(1)", "cache_size(-2000)")); err != nil {
		return fmt.Errorf("open the database: %w", err)
	}
	e.read.SetMaxOpenConns(4)
	e.read.SetMaxIdleConns(4)
	if e.side, err = sql.Open("sqlite", sqliteDSN(e.path, "wal_autocheckpoint(0)", "cache_size(-200)")); err != nil {
		return fmt.Errorf("open the database: %w", err)
	}
	e.side.SetMaxOpenConns(1)
	return sqliteError(lookAtPages(ctx, e))
}

// letGo closes what open has opened when it could not go on.
func (e *sqliteEngine) letGo() {
	for _, s := range e.readStmts {
		s.Close()
	}
	if e.conn != nil {
		e.conn.Close()
	}
	for _, db := range []*sql.DB{e.read, e.side, e.write} {
		if db != nil {
			db.Close()
		}
	}
	e.lock.Close()
}

// connect gives the writer a connection. Opening it reads the log and leaves
// out what a crash cut short.
func (e *sqliteEngine) connect(ctx context.Context) error {
	conn, err := e.write.Conn(ctx)
	if err != nil {
		return sqliteError(err)
	}
	var page int64 // of an older file it may be another
	if err := conn.QueryRowContext(ctx, "PRAGMA page_size").Scan(&page); err != nil {
		conn.Close()
		return sqliteError(err)
	}
	e.frame.Store(page + frameHeader)
	e.conn, e.stmts = conn, map[string]*sql.Stmt{}
	e.forgetLog() // it may be another file now
	return nil
}

func (e *sqliteEngine) name() string      { return "sqlite" }
func (e *sqliteEngine) forUpdate() string { return "" }

func (e *sqliteEngine) close() error {
	e.end()
	e.stop()
	e.wg.Wait()
	for _, s := range e.readStmts {
		s.Close()
	}
	for _, s := range e.stmts { // else the connection stays, and the log is not moved into the database
		s.Close()
	}
	e.forgetLog()
	err := errors.Join(e.mark.forget(), e.read.Close(), e.side.Close())
	if e.conn != nil {
		e.conn.Close()
	}
	err = errors.Join(err, e.write.Close())
	e.mark.close()
	return errors.Join(err, e.lock.Close())
}

func (e *sqliteEngine) query(ctx context.Context, q string, args ...any) (rows, error) {
	s, err := e.prepareRead(ctx, q)
	if err != nil {
		return nil, sqliteError(err)
	}
	var r *sql.Rows
	if s != nil {
		r, err = s.QueryContext(ctx, args...)
	} else {
		r, err = e.read.QueryContext(ctx, q, args...)
	}
	if err != nil {
		return nil, sqliteError(err)
	}
	return sqlRows{r}, nil
}

// readStmtsMax bounds the reads that stay prepared: a list has a text for each way to
// filter it, and callers choose the filters.
const readStmtsMax = 512

// prepareRead gives no statement for a text that came when there were enough.
func (e *sqliteEngine) prepareRead(ctx context.Context, q string) (*sql.Stmt, error) {
	e.readMu.RLock()
	s, many := e.readStmts[q], len(e.readStmts) >= readStmtsMax
	e.readMu.RUnlock()
	if s != nil || many {
		return s, nil
	}
	s, err := e.read.PrepareContext(ctx, q)
	if err != nil {
		return nil, err
	}
	e.readMu.Lock()
	defer e.readMu.Unlock()
	if have := e.readStmts[q]; have != nil {
		s.Close()
		return have, nil
	}
	e.readStmts[q] = s
	return s, nil
}

func (e *sqliteEngine) exec(context.Context, string, ...any) (int64, error) {
	return 0, errors.New("store: a write outside of a transaction")
}

func (e *sqliteEngine) snapshot(ctx context.Context, f func(querier) error) error {
	tx, err := e.read.BeginTx(ctx, nil)
	if err != nil {
		return sqliteError(err)
	}
	defer tx.Rollback()
	return f(sqlView{tx})
}

type sqlView struct{ tx *sql.Tx }

func (v sqlView) query(ctx context.Context, q string, args ...any) (rows, error) {
	r, err := v.tx.QueryContext(ctx, q, args...)
	if err != nil {
		return nil, sqliteError(err)
	}
	return sqlRows{r}, nil
}

func (v sqlView) exec(context.Context, string, ...any) (int64, error) {
	return 0, errors.New("store: a write into a snapshot")
}

// sqlRows makes sql.Rows close without an answer, as pgx's do.
type sqlRows struct{ *sql.Rows }

func (r sqlRows) Close() { r.Rows.Close() }

func (e *sqliteEngine) submit(ctx context.Context, o *op) error {
	if ctx.Value(bringing{}) != nil {
		if d := e.disk.busy(); d > syncStalls {
			return slowDisk(d)
		}
	}
	return e.give(ctx, o)
}

// syncStalls is how long a sync may take before new mail is refused at once. What
// came before waits for it, as long as its door does: two slower syncs would be
// more than the ten seconds within which an answer is due. RE-22.
const syncStalls = 4 * time.Second

func slowDisk(d time.Duration) error {
	return mailgrant.Errorf(mailgrant.Unavailable, nil, "the disk of the database has not answered for %s", d.Round(time.Second)).After(10 * time.Second).
		Fix("look at the disk and what else writes to it; mailgrant goes on by itself")
}

// A pulse is how quickly a disk answers.
type pulse struct {
	mu    sync.Mutex
	began time.Time // of the sync under way; zero: none
	ended time.Time // of the last
	took  time.Duration
}

func (p *pulse) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.began = time.Now()
}

func (p *pulse) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = time.Now()
	p.took, p.began = p.ended.Sub(p.began), time.Time{}
}

// busy is how long the sync under way has taken.
func (p *pulse) busy() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.began.IsZero() {
		return 0
	}
	return time.Since(p.began)
}

// pulseFor is how long the last sync says something of the disk.
const pulseFor = time.Minute

// now is how slow the disk is: the sync under way, or the last one if that took
// longer and was not long ago.
func (p *pulse) now() time.Duration {
	busy := p.busy()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended.IsZero() || time.Since(p.ended) > pulseFor {
		return busy
	}
	return max(busy, p.took)
}

func unavailable(err error) error {
	return mailgrant.Errorf(mailgrant.Unavailable, err, "the database did not answer in time").
		Fix("try again; if it stays so, look at the disk and the load of this machine")
}

// writer joins what waits into one transaction: one sync answers many clients.
// There is no timer: whoever is alone is served at once.
func (e *sqliteEngine) writer(ctx context.Context) {
	for {
		var group []*op // the syncer keeps it
		select {
		case o := <-e.ops:
			group = append(group, o)
		case <-ctx.Done():
			for { // those who came before the stop
				select {
				case o := <-e.ops:
					e.run(context.Background(), []*op{o})
				default:
					return
				}
			}
		}
		size := group[0].bytes
	more:
		for len(group) < groupOps && size < groupBytes {
			select {
			case o := <-e.ops:
				group = append(group, o)
				size += o.bytes
			default:
				break more
			}
		}
		for _, o := range group {
			e.since += o.bytes + stmtPages*max(1, len(o.stmts))
		}
		e.run(context.Background(), group)
		if e.since >= walSoft {
			e.since = 0
			select {
			case e.soft <- struct{}{}:
			default: // one is being made
			}
		}
		if n := e.long.Swap(0); n > 0 {
			e.restartLog(ctx, n)
		}
	}
}

func (e *sqliteEngine) run(ctx context.Context, group []*op) {
	live := group[:0]
	for _, o := range group {
		if o.take() {
			live = append(live, o)
		}
	}
	if len(live) == 0 {
		return
	}
	err := e.transaction(ctx, live, false)
	if err != nil && len(live) > 1 && ofOne(err) {
		err = e.transaction(ctx, live, true)
	}
	err = sqliteError(err)
	done := live[:0]
	for _, o := range live {
		switch {
		case err != nil:
			o.finish(err)
		case o.err != nil:
			o.finish(sqliteError(o.err))
		default:
			done = append(done, o)
		}
	}
	if len(done) > 0 {
		e.committed <- done
	}
}

// syncer answers for what is committed, once it is on the disk. One sync answers
// for all transactions that ended before it began.
func (e *sqliteEngine) syncer() {
	for group := range e.committed {
		batches := [][]*op{group}
	more:
		for {
			select {
			case next, ok := <-e.committed:
				if !ok {
					break more
				}
				batches = append(batches, next)
			default:
				break more
			}
		}
		err := e.syncLog()
		if err != nil {
			e.log.Error("the log of the database could not be synced", "err", err)
			err = sqliteError(fmt.Errorf("sync the log: %w", err))
		}
		for _, group := range batches {
			for _, o := range group {
				o.finish(err)
			}
		}
	}
}

// syncLog forces the log to the disk. The database needs it only before its
// pages move, and sees to that itself (synchronous=NORMAL).
func (e *sqliteEngine) syncLog() error {
	e.walMu.Lock()
	defer e.walMu.Unlock()
	if e.broken.Load() {
		return logError{errBroken}
	}
	m, known := e.mark.index()
	err := e.syncWAL()
	if err != nil {
		e.broken.Store(true)
		return logError{err}
	}
	if known {
		e.mark.put(m)
	}
	return nil
}

func (e *sqliteEngine) syncWAL() error {
	if e.wal == nil {
		f, err := os.OpenFile(e.path+"-wal", os.O_RDWR, 0)
		if err != nil {
			return err
		}
		e.wal = f
	}
	e.disk.begin()
	defer e.disk.end()
	return e.force(e.wal)
}

// errBroken refuses what was committed behind a sync that failed, and before the
// log was mended: the system tells of a failure once, and a sync that succeeds
// afterwards says nothing of what lies before.
var errBroken = errors.New("a sync before it failed")

// logError is a failure of the log, or of its mark, outside of SQLite.
type logError struct{ err error }

func (e logError) Error() string { return e.err.Error() }
func (e logError) Unwrap() error { return e.err }

// forgetLog closes the log. Nobody holds a lock by that file, so closing it takes
// none away.
func (e *sqliteEngine) forgetLog() {
	e.walMu.Lock()
	defer e.walMu.Unlock()
	if e.wal != nil {
		e.wal.Close()
		e.wal = nil
	}
	e.mark.again()
}

// forgetMark is for before the log is cut.
func (e *sqliteEngine) forgetMark() error {
	e.walMu.Lock()
	defer e.walMu.Unlock()
	return e.mark.forget()
}

// mend makes the file whole after a sync of the log that failed: what the system's
// cache has of the log may never reach the disk, and what is written behind it
// would be lost with it. So all of it goes into the database, by another path,
// and the log begins anew. RE-04.
func (e *sqliteEngine) mend(ctx context.Context) error {
	if err := e.forgetMark(); err != nil {
		return logError{err}
	}
	if err := e.reconnect(ctx); err != nil {
		return err
	}
	var busy, logged, moved int
	if err := e.conn.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &logged, &moved); err != nil {
		return err
	}
	if busy != 0 {
		return unavailable(errors.New("readers keep the log from being mended"))
	}
	e.broken.Store(false)
	return nil
}

func (e *sqliteEngine) reconnect(ctx context.Context) error {
	if e.conn != nil {
		e.drop()
	}
	return e.connect(ctx)
}

// ofOne says whether a failure may be one op's own. A lock or a file that fails
// meets each of them: to ask again for each would make the last one wait for all.
func ofOne(err error) bool {
	switch sqliteCode(err) & 0xff {
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY,
		sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return false
	}
	return true
}

// transaction runs a group. Apart keeps what one of them spoils from the others,
// at the price of a savepoint each; its error is then in the op.
func (e *sqliteEngine) transaction(ctx context.Context, group []*op, apart bool) error {
	if e.conn == nil {
		if err := e.connect(ctx); err != nil {
			return err
		}
	}
	if e.broken.Load() {
		if err := e.mend(ctx); err != nil {
			return err
		}
	}
	w := sqliteTx{e}
	if _, err := w.exec(ctx, "BEGIN IMMEDIATE"); err != nil {
		e.distrust(err)
		return err
	}
	run := w.op
	if apart {
		run = w.apart
	}
	for _, o := range group {
		if err := run(ctx, o); err != nil {
			_, rb := w.exec(ctx, "ROLLBACK")
			e.distrust(errors.Join(err, rb))
			return err
		}
	}
	if _, err := w.exec(ctx, "COMMIT"); err != nil {
		_, _ = w.exec(ctx, "ROLLBACK") // it may have been rolled back already
		e.distrust(err)
		return err
	}
	return nil
}

// distrust gives the connection up after a failed read, write or sync: what the
// system's cache holds of the file is no longer known to be on the disk. The
// next transaction opens it anew and reads what is really there. RE-04.
func (e *sqliteEngine) distrust(err error) {
	code := sqliteCode(err) & 0xff
	if code != sqlite3.SQLITE_IOERR && code != sqlite3.SQLITE_CORRUPT && code != sqlite3.SQLITE_FULL {
		return
	}
	e.log.Error("the database file failed; opening it anew", "err", err)
	e.drop()
}

// drop lets go of the writer's connection.
func (e *sqliteEngine) drop() {
	for _, s := range e.stmts {
		s.Close()
	}
	_ = e.conn.Raw(func(any) error { return sql.ErrConnDone }) // takes it out of the pool
	e.conn.Close()
	e.conn, e.stmts = nil, nil
}

type sqliteTx struct{ e *sqliteEngine }

func (w sqliteTx) op(ctx context.Context, o *op) error {
	if o.fn != nil {
		return o.fn(ctx, w)
	}
	o.affected = o.affected[:0]
	for _, s := range o.stmts {
		n, err := w.exec(ctx, s.sql, s.args...)
		if err != nil {
			return err
		}
		o.affected = append(o.affected, n)
	}
	return nil
}

// apart runs o in a savepoint. What is o's own failure is kept in o.
func (w sqliteTx) apart(ctx context.Context, o *op) error {
	if _, err := w.exec(ctx, "SAVEPOINT one"); err != nil {
		return err
	}
	if o.err = w.op(ctx, o); o.err != nil {
		if !ofOne(o.err) {
			return o.err
		}
		if _, err := w.exec(ctx, "ROLLBACK TO one"); err != nil {
			return o.err // the whole transaction is rolled back already, as on a full disk
		}
	}
	_, err := w.exec(ctx, "RELEASE one")
	return err
}

func (w sqliteTx) prepare(ctx context.Context, q string) (*sql.Stmt, error) {
	if s := w.e.stmts[q]; s != nil {
		return s, nil
	}
	s, err := w.e.conn.PrepareContext(ctx, q)
	if err == nil {
		w.e.stmts[q] = s
	}
	return s, err
}

func (w sqliteTx) exec(ctx context.Context, q string, args ...any) (int64, error) {
	s, err := w.prepare(ctx, q)
	if err != nil {
		return 0, err
	}
	r, err := s.ExecContext(ctx, settled(args)...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// A late argument gets its value when its statement runs.
type late func() any

// settled is args with the late ones known. They stay late in args: a statement
// may run again.
func settled(args []any) []any {
	for i, a := range args {
		f, ok := a.(late)
		if !ok {
			continue
		}
		args = slices.Clone(args)
		args[i] = f()
	}
	return args
}

func (w sqliteTx) query(ctx context.Context, q string, args ...any) (rows, error) {
	s, err := w.prepare(ctx, q)
	if err != nil {
		return nil, err
	}
	r, err := s.QueryContext(ctx, args...)
	if err != nil {
		return nil, err
	}
	return sqlRows{r}, nil
}

// checkpointer moves the log into the database beside readers and writer.
func (e *sqliteEngine) checkpointer(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.soft:
		}
		var busy, logged, moved int
		if err := e.side.QueryRowContext(ctx, "PRAGMA wal_checkpoint(PASSIVE)").Scan(&busy, &logged, &moved); err != nil && ctx.Err() == nil {
			e.log.Warn("checkpoint", "err", err)
			if sqliteCode(err)&0xff == sqlite3.SQLITE_IOERR {
				e.broken.Store(true) // it may have been told what the syncer is then not told
			}
		}
		if n := int64(logged) * e.frame.Load(); n > walHard {
			e.long.Store(n)
		}
	}
}

// restartLog moves what the last checkpoint has left, and starts the log from its
// beginning: its file is written over and does not grow. Readers are waited for
// only when it has become far too long.
func (e *sqliteEngine) restartLog(ctx context.Context, size int64) {
	if e.conn == nil {
		return
	}
	if size < walMax {
		e.pragma(ctx, "PRAGMA busy_timeout = 20")
		defer e.pragma(ctx, "PRAGMA busy_timeout = "+fmt.Sprint(busyWait.Milliseconds()))
	}
	e.pragma(ctx, "PRAGMA wal_checkpoint(RESTART)")
}

func (e *sqliteEngine) pragma(ctx context.Context, text string) {
	if _, err := e.conn.ExecContext(ctx, text); err != nil && ctx.Err() == nil {
		e.log.Warn("checkpoint", "statement", text, "err", err)
	}
}

func sqliteCode(err error) int {
	var se *sqlite.Error
	if errors.As(err, &se) {
		return se.Code()
	}
	return 0
}

// sqliteError says in our words what SQLite says in its own.
func sqliteError(err error) error {
	if err == nil {
		return nil
	}
	var known *mailgrant.Error
	if errors.As(err, &known) {
		return err
	}
	code := sqliteCode(err)
	var outside logError
	if errors.As(err, &outside) {
		code = sqlite3.SQLITE_IOERR
	}
	switch code & 0xff {
	case sqlite3.SQLITE_FULL:
		return noSpace(err)
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return mailgrant.Errorf(mailgrant.Unavailable, err, "another program locks the database").
			Fix("end the program that holds mailgrant.db open (a backup tool, a sqlite3 shell); mailgrant goes on by itself")
	case sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY:
		if errors.Is(err, unix.ENOSPC) {
			return noSpace(err)
		}
		return mailgrant.Errorf(mailgrant.Unavailable, err, "the database file cannot be written").
			Fix("look at the disk and the permissions of the data directory; mailgrant goes on by itself")
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return damagedFile(err)
	case sqlite3.SQLITE_CONSTRAINT:
		switch code {
		case sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY:
			return errUnique
		case sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
			return errReference
		}
	}
	return err
}

func noSpace(err error) error {
	return mailgrant.Errorf(mailgrant.NoSpace, err, "the disk of the database is full").
		Fix("make room on it; mailgrant goes on by itself")
}

var (
	errUnique    = errors.New("store: unique")
	errReference = errors.New("store: reference")
)
