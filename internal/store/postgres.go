package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/mailgrant/mailgrant"
)

// pgEngine sends a group of writes as one pipeline, which PostgreSQL runs as one
// transaction. Two writers take turns: one group travels while the other is
// being synced.
type pgEngine struct {
	pool *pgxpool.Pool
	log  *slog.Logger
	*intake
	stop context.CancelFunc
	wg   sync.WaitGroup
}

const (
	pgWriters = 2

	// pgWait bounds one group. An accept answers within ten seconds. RE-05.
	pgWait = 8 * time.Second

	// pgIdle ends a transaction in which nothing is asked any more. What a node holds
	// that is frozen must be free before the others think it dead. RE-09.
	pgIdle = 5 * time.Second
)

func openPostgres(ctx context.Context, dsn string, log *slog.Logger) (*pgEngine, error) {
	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, mailgrant.Errorf(mailgrant.Misset, err, "the database address is not a PostgreSQL one").
			Fix("write it as postgres://user@host/database")
	}
	cfg.ConnConfig.ConnectTimeout = 5 * time.Second
	cfg.MaxConns = max(cfg.MaxConns, 8)
	cfg.AfterConnect = func(ctx context.Context, c *pgx.Conn) error { // not a startup parameter, which poolers refuse
		_, err := c.Exec(ctx, "SET idle_in_transaction_session_timeout = "+strconv.FormatInt(pgIdle.Milliseconds(), 10))
		return err
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, pgError(err)
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, pgOpenError(err)
	}
	run, stop := context.WithCancel(context.Background())
	e := &pgEngine{pool: pool, log: log, intake: newIntake(), stop: stop}
	for range pgWriters {
		e.wg.Go(func() { e.writer(run) })
	}
	return e, nil
}

func (e *pgEngine) name() string      { return "postgres" }
func (e *pgEngine) forUpdate() string { return " FOR UPDATE" }

func (e *pgEngine) close() error {
	e.end()
	e.stop()
	e.wg.Wait()
	e.pool.Close()
	return nil
}

func (e *pgEngine) query(ctx context.Context, q string, args ...any) (rows, error) {
	r, err := e.pool.Query(ctx, dollars(q), args...)
	return r, pgError(err)
}

func (e *pgEngine) exec(ctx context.Context, q string, args ...any) (int64, error) {
	t, err := e.pool.Exec(ctx, dollars(q), args...)
	return t.RowsAffected(), pgError(err)
}

func (e *pgEngine) submit(ctx context.Context, o *op) error {
	if o.fn != nil { // it reads in between: a transaction of its own
		err := e.alone(ctx, o)
		if o.after != nil {
			o.finish(err)
			return nil
		}
		return err
	}
	return e.give(ctx, o)
}

func (e *pgEngine) alone(ctx context.Context, o *op) error {
	return pgError(pgx.BeginFunc(ctx, e.pool, func(tx pgx.Tx) error { return o.fn(ctx, pgTx{tx}) }))
}

func (e *pgEngine) snapshot(ctx context.Context, f func(querier) error) error {
	return pgError(pgx.BeginTxFunc(ctx, e.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly},
		func(tx pgx.Tx) error {
			// It holds nothing, and whoever takes the rows may be slow.
			if _, err := tx.Exec(ctx, "SET LOCAL idle_in_transaction_session_timeout = 0"); err != nil {
				return err
			}
			return f(pgTx{tx})
		}))
}

type pgTx struct{ tx pgx.Tx }

func (t pgTx) query(ctx context.Context, q string, args ...any) (rows, error) {
	r, err := t.tx.Query(ctx, dollars(q), args...)
	return r, t.error(err)
}

func (t pgTx) exec(ctx context.Context, q string, args ...any) (int64, error) {
	n, err := t.tx.Exec(ctx, dollars(q), args...)
	return n.RowsAffected(), t.error(err)
}

// error is pgError where the server may not have been asked at all: pgx refuses a
// value that is not of its column's type, and the connection stays open. It stays so,
// too, when there was no time left to ask, which says nothing of the value.
func (t pgTx) error(err error) error {
	var pe *pgconn.PgError
	if err == nil || errors.As(err, &pe) || pgconn.SafeToRetry(err) || t.tx.Conn().IsClosed() {
		return pgError(err)
	}
	return unaskedError{err}
}

// unaskedError is the reason why the server was not asked.
type unaskedError struct{ err error }

func (e unaskedError) Error() string { return e.err.Error() }
func (e unaskedError) Unwrap() error { return e.err }

func (e *pgEngine) writer(ctx context.Context) {
	for {
		var group []*op
		select {
		case o := <-e.ops:
			group = append(group, o)
		case <-ctx.Done():
			for {
				select {
				case o := <-e.ops:
					e.run([]*op{o})
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
		e.run(group)
	}
}

func (e *pgEngine) run(group []*op) {
	live := group[:0]
	for _, o := range group {
		if o.take() {
			live = append(live, o)
		}
	}
	if len(live) == 0 {
		return
	}
	slices.SortStableFunc(live, func(a, b *op) int { return strings.Compare(a.order, b.order) })
	err := e.pipeline(live)
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code[:2] == "40" { // it waited for another's rows, and was chosen to give way
		err = e.pipeline(live)
	}
	if err != nil && len(live) > 1 && errors.As(err, &refused) && !mailgrant.AsError(pgError(err)).Code.Temporary() {
		// One statement was refused, so the server kept nothing: each for itself.
		// After a lost connection nobody knows, and nothing may be sent twice; a
		// server that stops or is full would let each of them wait in turn.
		for _, o := range live {
			o.finish(pgError(e.pipeline([]*op{o})))
		}
		return
	}
	err = pgError(err)
	for _, o := range live {
		o.finish(err)
	}
}

// pipeline runs all statements in one implicit transaction.
func (e *pgEngine) pipeline(group []*op) error {
	ctx, cancel := context.WithTimeout(context.Background(), pgWait)
	defer cancel()
	var b pgx.Batch
	for _, o := range group {
		for _, s := range o.stmts {
			b.Queue(dollars(s.sql), s.args...)
		}
	}
	res := e.pool.SendBatch(ctx, &b)
	for _, o := range group {
		o.affected = o.affected[:0]
		for range o.stmts {
			t, err := res.Exec()
			if err != nil {
				res.Close()
				return err
			}
			o.affected = append(o.affected, t.RowsAffected())
		}
	}
	return res.Close()
}

// pgOpenError is pgError for a server that answers and does not let us in.
func pgOpenError(err error) error {
	var pe *pgconn.PgError
	if !errors.As(err, &pe) {
		return pgError(err)
	}
	switch {
	case pe.Code == "3D000":
		return mailgrant.Errorf(mailgrant.Misset, err, "PostgreSQL has no such database: %s", pe.Message).
			Fix("make it (createdb), or correct database in the settings").At("database")
	case pe.Code[:2] == "28":
		return mailgrant.Errorf(mailgrant.Misset, err, "PostgreSQL does not let mailgrant in: %s", pe.Message).
			Fix("correct user and password of database in the settings, or allow them in pg_hba.conf").At("database")
	}
	return pgError(err)
}

// pgError says in our words what PostgreSQL says in its own.
func pgError(err error) error {
	if err == nil {
		return nil
	}
	var known *mailgrant.Error
	var unasked unaskedError
	if errors.As(err, &known) || errors.As(err, &unasked) {
		return err
	}
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		switch {
		case pe.Code == "23505":
			return errUnique
		case pe.Code == "23503":
			return errReference
		case pe.Code == "53100":
			return noSpace(err)
		case pe.Code == "40001", pe.Code == "40P01", pe.Code[:2] == "53", pe.Code[:2] == "57", pe.Code[:2] == "08", pe.Code == "25006":
			return gone(err)
		}
		return err
	}
	var ne net.Error
	if errors.As(err, &ne) || errors.Is(err, context.DeadlineExceeded) || pgconn.Timeout(err) || pgconn.SafeToRetry(err) {
		return gone(err)
	}
	var ce *pgconn.ConnectError
	if errors.As(err, &ce) {
		return gone(err)
	}
	if errors.Is(err, pgx.ErrNoRows) || errors.Is(err, context.Canceled) {
		return err
	}
	return gone(fmt.Errorf("postgres: %w", err))
}

func gone(err error) error {
	return mailgrant.Errorf(mailgrant.Unavailable, err, "the PostgreSQL server does not answer").
		Fix("look at the server and the way to it; mailgrant goes on by itself when it is back")
}
