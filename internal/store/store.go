// Package store keeps everything: one set of promises over SQLite or PostgreSQL.
//
// It knows tables, not rules. A method is one promise and one transaction; once
// it returns nil, what it wrote survives a power cut. Writes that wait for each
// other are joined into one transaction, so that one sync answers many callers.
// Every row that belongs to an organization names it, and so does every query:
// somebody else's row is not found.
package store

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/mailgrant/mailgrant"
)

//go:embed migrations
var migrations embed.FS

// newest is the version of the newest migration.
const newest = 6

// A Store is an open database. It is safe for concurrent use.
type Store struct {
	eng engine
	log *slog.Logger
	seq atomic.Int64 // SQLite: the last event number

	horizon horizon // PostgreSQL: of the events

	clock func() time.Time // this node's; tests set it
	ahead atomic.Int64     // PostgreSQL: how far the database's clock is ahead of it

	watchMu sync.Mutex
	watch   map[chan struct{}]bool
	listen  context.CancelFunc // PostgreSQL: ends the listener
	tell    chan struct{}      // PostgreSQL: events were added that the other nodes do not know of
	lanes   atomic.Pointer[func(org, mailbox mailgrant.ID)]
	retries atomic.Pointer[func(org, mailbox mailgrant.ID)]
	readers atomic.Pointer[func(org, mailbox mailgrant.ID)]
	bells   atomic.Pointer[func(org, mailbox mailgrant.ID)]
	doubts  atomic.Pointer[func(org, mailbox mailgrant.ID)]
	wg      sync.WaitGroup
}

// Open opens the database at dsn, a postgres:// address or the path of a SQLite
// file, and migrates it to the newest schema.
func Open(ctx context.Context, dsn string, log *slog.Logger) (*Store, error) {
	s := &Store{log: log, clock: time.Now, watch: map[chan struct{}]bool{}}
	if strings.HasPrefix(dsn, "postgres://") || strings.HasPrefix(dsn, "postgresql://") {
		e, err := openPostgres(ctx, dsn, log)
		if err != nil {
			return nil, err
		}
		s.eng = e
		if err := migratePostgres(ctx, e); err != nil {
			e.close()
			return nil, err
		}
		s.listenEvents(e)
		return s, nil
	}
	e, err := openSQLite(ctx, strings.TrimPrefix(dsn, "sqlite://"), log)
	if err != nil {
		return nil, err
	}
	s.eng = reserve(e, log)
	if err := migrateSQLite(ctx, e); err != nil {
		e.close()
		return nil, err
	}
	last, err := one[int64](ctx, e, lastNumber)
	if err != nil {
		e.close()
		return nil, err
	}
	s.seq.Store(last + seqGap)
	if err := s.freeGrants(ctx); err != nil {
		log.Warn("leases of grants are not taken back, they end by themselves", "err", err)
	}
	return s, nil
}

// lastNumber is the last that an event had, as far as it is known: the log may be
// empty by now, and webhooks have been told.
const lastNumber = "SELECT COALESCE(MAX(n), 0) FROM (SELECT MAX(seq) AS n FROM events UNION ALL SELECT MAX(position) FROM webhooks) l"

// seqGap is left out of the numbers of events at each start: some may have been
// read by others whose transaction was not on the disk yet when the power went.
// Numbers that come twice would be overlooked by those readers.
const seqGap = 1 << 12

// Close waits for writes under way and lets go of the database.
func (s *Store) Close() error {
	if s.listen != nil {
		s.listen()
		s.wg.Wait()
	}
	return s.eng.close()
}

// Clustered says whether other nodes may share this database.
func (s *Store) Clustered() bool { return s.eng.name() == "postgres" }

// by names the index to go by. SQLite does not count its rows, and takes those of
// an organization for a few; PostgreSQL counts.
func (s *Store) by(index string) string {
	if s.Clustered() {
		return ""
	}
	return " INDEXED BY " + index
}

// Ping says whether the database answers.
func (s *Store) Ping(ctx context.Context) error {
	_, err := one[int64](ctx, s.eng, "SELECT 1")
	return err
}

// Disk says how long a write to the disk takes these days, and whether new mail is
// refused for it. Of PostgreSQL's disk nothing is known.
func (s *Store) Disk() (takes time.Duration, refusing bool) {
	if e, ok := s.eng.(*reserved); ok {
		return e.disk.now(), e.disk.busy() > syncStalls
	}
	return 0, false
}

func migrateSQLite(ctx context.Context, e *sqliteEngine) error {
	v, err := one[int64](ctx, e, "SELECT COALESCE(MAX(version_id), 0) FROM goose_db_version WHERE is_applied = 1")
	if err == nil && v == newest {
		return nil // the usual start: no migration machinery
	}
	if err == nil && v > newest {
		return tooNew(v)
	}
	e.conn.Close() // the writer's only connection
	dir, _ := fs.Sub(migrations, "migrations/sqlite")
	p, err := goose.NewProvider(goose.DialectSQLite3, e.write, dir)
	if err != nil {
		return fmt.Errorf("read the migrations: %w", err)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate the database: %w", sqliteError(err))
	}
	return e.connect(ctx)
}

func migratePostgres(ctx context.Context, e *pgEngine) error {
	v, err := one[int64](ctx, e, "SELECT COALESCE(MAX(version_id), 0) FROM goose_db_version WHERE is_applied")
	if err == nil && v == newest {
		return nil
	}
	if err == nil && v > newest {
		return tooNew(v)
	}
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return fmt.Errorf("lock the migrations: %w", err)
	}
	dir, _ := fs.Sub(migrations, "migrations/postgres")
	db := stdlib.OpenDBFromPool(e.pool)
	defer db.Close()
	p, err := goose.NewProvider(goose.DialectPostgres, db, dir, goose.WithSessionLocker(locker))
	if err != nil {
		return fmt.Errorf("read the migrations: %w", err)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate the database: %w", pgError(err))
	}
	return nil
}

// RE-11: an old program must not write into a new schema.
func tooNew(v int64) error {
	return mailgrant.Errorf(mailgrant.Misset, nil, "this database was written by a newer mailgrant (schema %d, this one knows %d)", v, newest).
		Fix("start the newer version again; a schema is never taken back")
}

// do runs blind statements as one promise.
func (s *Store) do(ctx context.Context, stmts ...stmt) ([]int64, error) {
	o := newOp(stmts)
	err := s.eng.submit(ctx, o)
	return o.affected, err
}

func newOp(stmts []stmt) *op {
	o := &op{stmts: stmts, done: make(chan struct{})}
	for _, st := range stmts {
		for _, a := range st.args {
			switch v := a.(type) {
			case []byte:
				o.bytes += len(v)
			case string:
				o.bytes += len(v)
			}
		}
	}
	return o
}

// change runs statements, and adds the event when the last of them touched a row.
func (s *Store) change(ctx context.Context, e mailgrant.Event, stmts ...stmt) (affected []int64, err error) {
	err = s.tx(ctx, func(ctx context.Context, q querier) error {
		affected = affected[:0]
		for _, st := range stmts {
			n, err := q.exec(ctx, st.sql, st.args...)
			if err != nil {
				return err
			}
			affected = append(affected, n)
		}
		if affected[len(affected)-1] == 0 {
			return nil
		}
		return s.addEvent(ctx, q, e)
	})
	if err == nil && affected[len(affected)-1] > 0 {
		s.told()
	}
	return affected, err
}

// tx runs a promise that must read before it writes.
func (s *Store) tx(ctx context.Context, f func(context.Context, querier) error) error {
	return s.eng.submit(ctx, &op{fn: f, done: make(chan struct{})})
}

var errNone = errors.New("store: no row")

// one reads a single value.
func one[T any](ctx context.Context, q querier, text string, args ...any) (v T, err error) {
	err = scan(ctx, q, text, args, &v)
	return v, err
}

// scan reads a single row; errNone when there is none.
func scan(ctx context.Context, q querier, text string, args []any, dest ...any) error {
	r, err := q.query(ctx, text, args...)
	if err != nil {
		return err
	}
	defer r.Close()
	if !r.Next() {
		if err := r.Err(); err != nil {
			return err
		}
		return errNone
	}
	if err := r.Scan(dest...); err != nil {
		return fmt.Errorf("read a row: %w", err)
	}
	return nil
}

// list reads all rows, each by f.
func list[T any](ctx context.Context, q querier, text string, args []any, f func(rows) (T, error)) ([]T, error) {
	r, err := q.query(ctx, text, args...)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	out := []T{}
	for r.Next() {
		v, err := f(r)
		if err != nil {
			return nil, fmt.Errorf("read a row: %w", err)
		}
		out = append(out, v)
	}
	return out, r.Err()
}

// first is list's only row, or what says that there is none.
func first[T any](ctx context.Context, q querier, what string, id mailgrant.ID, text string, args []any, f func(rows) (T, error)) (T, error) {
	var zero T
	l, err := list(ctx, q, text, args, f)
	if err != nil {
		return zero, err
	}
	if len(l) == 0 {
		return zero, notFound(what, id)
	}
	return l[0], nil
}

func notFound(what string, id mailgrant.ID) error { return Absent(what, id) }

// lists are the commands that show what there is of a kind.
var lists = map[string]string{
	"organization": "mailgrant organization list",
	"registration": "mailgrant registration list",
	"credential":   "mailgrant registration credential list REGISTRATION",
	"grant":        "mailgrant grant list",
	"link":         "mailgrant grant link list",
	"mailbox":      "mailgrant mailbox list",
	"app":          "mailgrant app list",
	"key":          "mailgrant app key list APP",
	"submission":   "mailgrant queue list --all",
	"webhook":      "mailgrant webhook list",
	"delivery":     "mailgrant webhook deliveries WEBHOOK",
	"arrival":      "mailgrant arrival list",
}

// Absent says that there is no such thing, and where what there is can be seen.
func Absent(what string, id mailgrant.ID) error {
	e := mailgrant.Errorf(mailgrant.NotFound, nil, "there is no %s %s", what, id)
	if lists[what] == "" {
		return e.Fix("look whether the id is right; what is used or over is removed after a time")
	}
	return e.Fix("list what there is: %s", lists[what])
}

// doc reads rows of a single JSON column.
func doc[T any](r rows) (v T, err error) {
	var text string
	if err = r.Scan(&text); err != nil {
		return v, err
	}
	err = json.Unmarshal([]byte(text), &v)
	return v, err
}

func toJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("store: %T does not marshal: %v", v, err)) // our own types always do
	}
	return string(b)
}

// fromJSON reads an optional JSON column.
func fromJSON[T any](text string) *T {
	if text == "" {
		return nil
	}
	v := new(T)
	if json.Unmarshal([]byte(text), v) != nil {
		return nil
	}
	return v
}

func optional[T any](v *T) string {
	if v == nil {
		return ""
	}
	return toJSON(v)
}

// micros is how a time is kept; zero stays zero.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func microsOf(t *time.Time) int64 {
	if t == nil {
		return 0
	}
	return micros(*t)
}

func fromMicros(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMicro(n).UTC()
}

func timeOf(n int64) *time.Time {
	if n == 0 {
		return nil
	}
	t := fromMicros(n)
	return &t
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// written turns the outcome of a single-row change into an answer.
func written(affected []int64, err error, what string, id mailgrant.ID) error {
	switch {
	case errors.Is(err, errUnique):
		return exists(what)
	case err != nil:
		return err
	case affected[0] == 0:
		return notFound(what, id)
	}
	return nil
}

func exists(what string) error {
	return mailgrant.Errorf(mailgrant.Conflict, nil, "there is such a %s already", what).
		Fix("change the one that is there, or use another name")
}
