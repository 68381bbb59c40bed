package store

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
)

// backupTables is all that a backup holds, in the order in which references
// allow it to be put back. Left out is what must not live again: flows, links,
// tokens on their way, and who owns which lane.
var backupTables = []struct{ table, columns string }{
	{"keysets", "id, version, wrapped"},
	{"organizations", "id, doc"},
	{"registrations", "org, id, doc"},
	{"credentials", "org, id, registration, doc, sealed"},
	{"grants", "org, id, registration, state, doc, live, generation, sealed, sealed_prev, consented_at, last_refresh, next_refresh, last_use, token_expires, finding, updated_at"},
	{"admin_consents", "org, registration, doc"},
	{"mailboxes", "org, id, address, role, grant_id, state, doc, hold, last_success, receive"},
	{"apps", "org, id, name, doc"},
	{"keys", "org, id, app, hash, doc, revoked_at, last_use"},
	{"submissions", "org, id, app, mailbox, state, attempts, duplicate, size, accepted_at, due_at, expires_at, final_at, pending, finding, doc"},
	{"idempotency", "org, app, key, submission, digest, expires_at"},
	{"arrivals", "org, id, mailbox, state, noticed_at, body_until, after, remote, words, doc"},
	{"seen", "mailbox, remote, loose, exact"},
	{"readings", "org, mailbox, protocol, position, doc"},
	{"chunks", "org, owner, n, sealed"},
	{"attempts", "org, submission, n, doc"},
	{"handed", "mailbox, hour, recipients"},
	{"events", "org, seq, kind, at, subject, app, mailbox, data"},
	{"webhooks", "org, id, name, state, position, doc, sealed, sealed_prev, both_until, finding, failing_since, taken_at"},
	{"waiting", "org, webhook, mailbox, seq, dead, attempts, since, due_at, doc"},
	{"replays", "org, webhook, id, position, until"},
	{"deliveries", "org, webhook, at, id, doc"},
}

// backupHead is the first line of a backup.
type backupHead struct {
	Format  string    `json:"format"`
	Schema  int64     `json:"schema"`
	At      time.Time `json:"at"`
	Written string    `json:"written_by"` // engine

	// Salvaged: rows may be missing, and so may what others refer to.
	Salvaged bool `json:"salvaged,omitempty"`
}

const backupFormat = "mailgrant backup 1"

// A cell is one value of a row.
type cell struct {
	N *int64  `json:"n,omitempty"`
	T *string `json:"t,omitempty"`
	B []byte  `json:"b,omitzero"` // empty is not nothing
}

// backupRow is one line: a row, or the end with the number of rows before it.
type backupRow struct {
	Table string `json:"table,omitempty"`
	Row   []cell `json:"row,omitempty"`
	End   int64  `json:"end,omitempty"`
}

// Backup writes everything as it stands at one moment. What is sealed stays so;
// the caller seals the whole besides. It can be put into either database.
func (s *Store) Backup(ctx context.Context, w io.Writer) error {
	z := gzip.NewWriter(w)
	enc := json.NewEncoder(z)
	if err := enc.Encode(backupHead{Format: backupFormat, Schema: newest, At: time.Now().UTC(), Written: s.eng.name()}); err != nil {
		return fmt.Errorf("write the backup: %w", err)
	}
	var count int64
	err := s.eng.snapshot(ctx, func(q querier) error {
		for _, t := range backupTables {
			n := strings.Count(t.columns, ",") + 1
			r, err := q.query(ctx, "SELECT "+t.columns+" FROM "+t.table)
			if err != nil {
				return err
			}
			for r.Next() {
				row, err := readRow(r, n)
				if err == nil {
					err = enc.Encode(backupRow{Table: t.table, Row: row})
				}
				if err != nil {
					r.Close()
					return fmt.Errorf("write the backup: %w", err)
				}
				count++
			}
			r.Close()
			if err := r.Err(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := enc.Encode(backupRow{End: count}); err != nil {
		return fmt.Errorf("write the backup: %w", err)
	}
	return z.Close()
}

func readRow(r rows, n int) ([]cell, error) {
	row, _, err := readValues(r, n)
	return row, err
}

func readValues(r rows, n int) ([]cell, []any, error) {
	values := make([]any, n)
	dest := make([]any, n)
	for i := range values {
		dest[i] = &values[i]
	}
	if err := r.Scan(dest...); err != nil {
		return nil, nil, err
	}
	row := make([]cell, n)
	for i, v := range values {
		switch v := v.(type) {
		case nil:
		case int64:
			row[i].N = &v
		case string:
			row[i].T = &v
		case []byte:
			row[i].B = v
			if row[i].B == nil {
				row[i].B = []byte{}
			}
		default:
			return nil, nil, fmt.Errorf("a value of type %T", v)
		}
	}
	return row, values, nil
}

// Restore puts a backup into an empty database, all or nothing. Every mailbox is
// held afterwards, and every submission that was under way is marked as a
// possible duplicate; every webhook is off. What was sent and told since the backup
// must not be sent or told again before a person says so. R-RE12.
func (s *Store) Restore(ctx context.Context, r io.Reader, hold, off mailgrant.Finding) error {
	z, err := gzip.NewReader(r)
	if err != nil {
		return damaged(err)
	}
	dec := json.NewDecoder(bufio.NewReaderSize(z, 1<<20))
	var head backupHead
	if err := dec.Decode(&head); err != nil || head.Format != backupFormat {
		return damaged(err)
	}
	if head.Schema > newest {
		return tooNew(head.Schema)
	}
	return s.tx(ctx, func(ctx context.Context, q querier) error {
		n, err := one[int64](ctx, q, "SELECT COUNT(*) FROM keysets")
		if err != nil {
			return err
		}
		if n > 0 {
			return mailgrant.Errorf(mailgrant.Conflict, nil, "the database is not empty").
				Fix("restore into a fresh data directory or database")
		}
		if err := s.restoreRows(ctx, q, dec, head); err != nil {
			return err
		}
		return s.afterRestore(ctx, q, hold, off)
	})
}

// insertOf puts a row of n values into a table. Columns are only ever added at
// the end, so the rows of an older backup are shorter.
func insertOf(table string, n int) string {
	for _, t := range backupTables {
		if columns := strings.Split(t.columns, ", "); t.table == table && n > 0 && n <= len(columns) {
			return "INSERT INTO " + table + " (" + strings.Join(columns[:n], ", ") + ") VALUES " + marks(n)
		}
	}
	return ""
}

func (s *Store) restoreRows(ctx context.Context, q querier, dec *json.Decoder, head backupHead) error {
	inserts := map[string]string{}
	for _, t := range backupTables {
		inserts[t.table] = insertOf(t.table, len(strings.Split(t.columns, ", ")))
	}
	for count := int64(0); ; count++ {
		var row backupRow
		if err := dec.Decode(&row); err != nil {
			return damaged(err)
		}
		if row.Table == "" {
			if row.End != count {
				return damaged(fmt.Errorf("%d rows, %d promised", count, row.End))
			}
			// The checksum of the whole stands behind the last row.
			if err := dec.Decode(&row); err != io.EOF {
				return damaged(err)
			}
			return nil
		}
		insert := inserts[row.Table]
		if head.Schema < newest || head.Salvaged {
			insert = insertOf(row.Table, len(row.Row))
		}
		if insert == "" || len(row.Row) != strings.Count(insert, "?") {
			return damaged(fmt.Errorf("a row of %q", row.Table))
		}
		args := make([]any, len(row.Row))
		for i, c := range row.Row {
			switch {
			case c.N != nil:
				args[i] = *c.N
			case c.T != nil:
				args[i] = *c.T
			case c.B != nil:
				args[i] = c.B
			}
		}
		exec := q.exec
		if head.Salvaged {
			exec = func(ctx context.Context, text string, args ...any) (int64, error) {
				return execIfWhole(ctx, q, text, args...)
			}
		}
		if _, err := exec(ctx, insert, args...); err != nil {
			if known := engineError(err); mailgrant.AsError(known).Code.Temporary() {
				return known
			}
			return damaged(err) // a row that the database does not take is none that we wrote
		}
	}
}

// execIfWhole leaves out a row that the database does not take: what it refers to
// is lost, it is there twice in a damaged tree, or it is damaged itself.
func execIfWhole(ctx context.Context, q querier, text string, args ...any) (int64, error) {
	if _, err := q.exec(ctx, "SAVEPOINT salvaged"); err != nil {
		return 0, err
	}
	n, err := q.exec(ctx, text, args...)
	if err != nil && !mailgrant.AsError(engineError(err)).Code.Temporary() {
		n, err = 0, nil
		if _, err := q.exec(ctx, "ROLLBACK TO SAVEPOINT salvaged"); err != nil {
			return 0, err
		}
	}
	if err == nil {
		_, err = q.exec(ctx, "RELEASE SAVEPOINT salvaged")
	}
	return n, err
}

// engineError says in our words what either database says in its own.
func engineError(err error) error {
	if sqliteCode(err) != 0 {
		return sqliteError(err)
	}
	return pgError(err)
}

func (s *Store) afterRestore(ctx context.Context, q querier, hold, off mailgrant.Finding) error {
	now := time.Now()
	h := mailgrant.Hold{Finding: hold, Since: now, ProbeAt: now.Add(2 * neverProbes)}
	for _, st := range []stmt{
		{"UPDATE mailboxes SET hold = ?, state = CASE WHEN state = 'disabled' THEN state ELSE 'held' END", []any{toJSON(h)}},
		{"UPDATE submissions SET duplicate = 1, state = 0 WHERE state < 3", nil},
		{"UPDATE webhooks SET state = 'disabled', finding = ?, failing_since = 0 WHERE state <> 'disabled'", []any{toJSON(off)}},
	} {
		if _, err := q.exec(ctx, st.sql, st.args...); err != nil {
			return err
		}
	}
	if s.Clustered() {
		r, err := q.query(ctx, "SELECT setval('event_seq', ("+lastNumber+") + 1)")
		if err != nil {
			return err
		}
		r.Close()
		return nil
	}
	last, err := one[int64](ctx, q, lastNumber)
	s.seq.Store(last)
	return err
}

// neverProbes is beyond the date of any probe: a hold that is to be probed later
// than that is ended by a person only.
const neverProbes = 10 * 365 * 24 * time.Hour

func damaged(err error) error {
	return mailgrant.Errorf(mailgrant.Invalid, err, "the backup is damaged or not one of ours").
		Fix("take another one; nothing was changed")
}
