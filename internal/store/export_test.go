package store

import (
	"context"
	"os"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
)

// Tables are the names of the columns of each table, in order.
func Tables(ctx context.Context, s *Store) (map[string]string, error) {
	if s.Clustered() {
		return s.columns(ctx, `SELECT table_name, string_agg(column_name, ' ' ORDER BY ordinal_position) FROM information_schema.columns
			WHERE table_schema = current_schema() GROUP BY table_name`)
	}
	return s.columns(ctx, `SELECT m.name, group_concat(c.name, ' ') FROM sqlite_master m JOIN pragma_table_info(m.name) c WHERE m.type = 'table' GROUP BY m.name`)
}

// Indexes are the names of the indexes that we made, with their columns.
func Indexes(ctx context.Context, s *Store) (map[string]string, error) {
	if s.Clustered() {
		return s.columns(ctx, `SELECT c.relname, string_agg(a.attname, ' ' ORDER BY a.attnum) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
			JOIN pg_attribute a ON a.attrelid = c.oid JOIN pg_namespace n ON n.oid = c.relnamespace
			WHERE n.nspname = current_schema() AND NOT EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = c.oid) GROUP BY c.relname`)
	}
	return s.columns(ctx, `SELECT m.name, group_concat(c.name, ' ') FROM sqlite_master m JOIN pragma_index_info(m.name) c
		WHERE m.type = 'index' AND m.sql IS NOT NULL GROUP BY m.name`)
}

func (s *Store) columns(ctx context.Context, q string) (map[string]string, error) {
	out := map[string]string{}
	_, err := list(ctx, s.eng, q, nil, func(r rows) (struct{}, error) {
		var name, columns string
		err := r.Scan(&name, &columns)
		if !strings.HasPrefix(name, "goose_") && !strings.HasPrefix(name, "sqlite_") {
			out[name] = columns
		}
		return struct{}{}, err
	})
	return out, err
}

// Pragma asks the writer's connection.
func Pragma(ctx context.Context, s *Store, name string) (v string, err error) {
	err = s.tx(ctx, func(ctx context.Context, q querier) error {
		v, err = one[string](ctx, q, "SELECT CAST(p.\""+name+"\" AS TEXT) FROM pragma_"+name+" p")
		return err
	})
	return v, err
}

// Version is the SQLite library's.
func Version(ctx context.Context, s *Store) (string, error) {
	return one[string](ctx, s.eng, "SELECT sqlite_version()")
}

// SetSchema claims another schema version.
func SetSchema(ctx context.Context, s *Store, v int64) error {
	_, err := s.do(ctx, stmt{"UPDATE goose_db_version SET version_id = ? WHERE version_id = ?", []any{v, int64(newest)}})
	return err
}

// OnSync has each sync of SQLite's log ask f before.
func OnSync(s *Store, f func() error) {
	e := s.eng.(*reserved).sqliteEngine
	e.walMu.Lock()
	defer e.walMu.Unlock()
	force := e.force
	e.force = func(log *os.File) error {
		if err := f(); err != nil {
			return err
		}
		return force(log)
	}
}

// GiveRoomUp has a full disk found, with so many bytes that were kept for it.
func GiveRoomUp(s *Store, room int64) {
	r := s.eng.(*reserved)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.room, r.tried = room, time.Now().Add(time.Hour)
	r.short.Store(true)
}

// InTransaction runs f in a transaction that is open already, with what adds an
// event in it.
func InTransaction(ctx context.Context, s *Store, f func(add func(mailgrant.Event) error) error) error {
	return s.tx(ctx, func(ctx context.Context, q querier) error {
		if _, err := q.exec(ctx, "SELECT pg_current_xact_id()"); err != nil {
			return err
		}
		return f(func(e mailgrant.Event) error { return s.addEvent(ctx, q, e) })
	})
}

// Plans are how PostgreSQL goes about what is written for one submission.
func Plans(ctx context.Context, s *Store, sub mailgrant.Submission, f Fence) (map[string]string, error) {
	out := map[string]string{}
	for what, st := range map[string]stmt{
		"begin":  beginOf(f, sub),
		"record": s.record(Record{Attempt: mailgrant.Attempt{Org: sub.Org, Submission: sub.ID}, State: mailgrant.SubmissionDelivered, Fence: f})[0],
		"undo":   undoOf(f, sub),
		"doubt":  doubtOf(f, sub),
	} {
		l, err := list(ctx, s.eng, "EXPLAIN "+st.sql, st.args, func(r rows) (line string, err error) { return line, r.Scan(&line) })
		if err != nil {
			return nil, err
		}
		out[what] = strings.Join(l, "\n")
	}
	return out, nil
}

// Prepared is how many reads of SQLite are kept prepared.
func Prepared(s *Store) int {
	e := s.eng.(*reserved).sqliteEngine
	e.readMu.RLock()
	defer e.readMu.RUnlock()
	return len(e.readStmts)
}

// SetClock gives a node another clock.
func SetClock(s *Store, f func() time.Time) { s.clock = f }

// Number is the last number that an event got over SQLite.
func Number(s *Store) int64 { return s.seq.Load() }

const Newest = newest
