package store

import (
	"compress/gzip"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	sqlite3 "modernc.org/sqlite/lib"

	"github.com/mailgrant/mailgrant"
)

// Salvaged says what was saved of a damaged database.
type Salvaged struct {
	Rows    int64    `json:"rows"`
	Damaged []string `json:"damaged"` // tables of which something could not be read
}

// Salvage writes a backup of what can still be read of the SQLite file at path,
// which it does not change. Restore takes it, but for rows whose owner is lost.
func Salvage(ctx context.Context, path string, w io.Writer) (out Salvaged, err error) {
	if _, err := os.Stat(path); err != nil {
		return out, mailgrant.Errorf(mailgrant.Misset, err, "the database file cannot be read: %v", err).Fix("name the data directory it is in (--dir)")
	}
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return out, err
	}
	defer lock.Close()
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?mode=ro&_pragma=temp_store(MEMORY)")
	if err != nil {
		return out, fmt.Errorf("open the database: %w", err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	z := gzip.NewWriter(w)
	s := &salvage{db: db, enc: json.NewEncoder(z), owners: map[string]bool{}}
	if err := s.enc.Encode(backupHead{Format: backupFormat, Schema: s.schema(ctx), At: time.Now().UTC(), Written: "sqlite", Salvaged: true}); err != nil {
		return out, fmt.Errorf("write the backup: %w", err)
	}
	for _, t := range backupTables {
		if err := s.table(ctx, t.table, t.columns); err != nil {
			return s.Salvaged, err
		}
		if t.table == "keysets" && s.Rows == 0 {
			return s.Salvaged, mailgrant.Errorf(mailgrant.Internal, s.last, "nothing can be saved: the keys that open the messages cannot be read").
				Fix("restore the newest backup: mailgrant restore FILE")
		}
	}
	if err := s.enc.Encode(backupRow{End: s.Rows}); err != nil {
		return s.Salvaged, fmt.Errorf("write the backup: %w", err)
	}
	return s.Salvaged, z.Close()
}

type salvage struct {
	Salvaged
	db     *sql.DB
	enc    *json.Encoder
	owners map[string]bool // what may have chunks
	last   error           // of reading
}

// schema is the newest where it cannot be read: then rows of an older one are
// found to be shorter.
func (s *salvage) schema(ctx context.Context) (v int64) {
	err := s.db.QueryRowContext(ctx, "SELECT MAX(version_id) FROM goose_db_version WHERE is_applied = 1").Scan(&v)
	if err != nil {
		s.last = err
		return newest
	}
	return v
}

// table saves what can be read of one: from its first row up to what is damaged,
// then from its last row down, and of bodies those in between one by one.
func (s *salvage) table(ctx context.Context, table, columns string) error {
	have, key, err := s.shape(ctx, table)
	if err != nil {
		return s.lost(ctx, table, err)
	}
	cols := strings.Split(columns, ", ")
	cols = cols[:min(len(cols), have)]
	if len(cols) == 0 {
		return nil // the schema is older than this table
	}
	from := "SELECT " + strings.Join(cols, ", ") + ", " + strings.Join(key, ", ") + " FROM " + table
	up, readErr, err := s.rows(ctx, table, cols, len(key), from+" ORDER BY "+strings.Join(key, ", "))
	if err != nil || readErr == nil {
		return err
	}
	if err := s.lost(ctx, table, readErr); err != nil {
		return err
	}
	tuple, places := "("+strings.Join(key, ", ")+")", marks(len(key))
	where, args := "", []any(nil)
	if up != nil {
		where, args = " WHERE "+tuple+" > "+places, up
	}
	down, _, err := s.rows(ctx, table, cols, len(key), from+where+" ORDER BY "+strings.Join(key, " DESC, ")+" DESC", args...)
	if err != nil || table != "chunks" {
		return err
	}
	for owner := range s.owners {
		between, args := " WHERE owner = ?", []any{owner}
		if up != nil {
			between, args = between+" AND "+tuple+" > "+places, append(args, up...)
		}
		if down != nil {
			between, args = between+" AND "+tuple+" < "+places, append(args, down...)
		}
		if _, _, err := s.rows(ctx, table, cols, len(key), from+between+" ORDER BY n", args...); err != nil {
			return err
		}
	}
	return nil
}

// shape is how many columns a table has, and what orders its rows.
func (s *salvage) shape(ctx context.Context, table string) (columns int, key []string, err error) {
	r, err := s.db.QueryContext(ctx, "SELECT name, pk FROM pragma_table_info(?) ORDER BY pk", table)
	if err != nil {
		return 0, nil, err
	}
	defer r.Close()
	for r.Next() {
		var name string
		var pk int
		if err := r.Scan(&name, &pk); err != nil {
			return 0, nil, err
		}
		columns++
		if pk > 0 {
			key = append(key, name)
		}
	}
	var text string
	if err := errors.Join(r.Err(), r.Close()); err != nil || columns == 0 {
		return 0, nil, err
	}
	if err := s.db.QueryRowContext(ctx, "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?", table).Scan(&text); err != nil {
		return 0, nil, err
	}
	if !strings.Contains(text, "WITHOUT ROWID") {
		key = []string{"rowid"}
	}
	return columns, key, nil
}

// rows saves what a query gives: last is the key of its last row, readErr what
// ended it.
func (s *salvage) rows(ctx context.Context, table string, columns []string, keys int, q string, args ...any) (last []any, readErr, err error) {
	r, err := s.db.QueryContext(ctx, q, args...)
	if err != nil {
		return nil, err, ctx.Err()
	}
	defer r.Close()
	for r.Next() {
		cells, values, err := readValues(sqlRows{r}, len(columns)+keys)
		if err != nil {
			return last, err, ctx.Err()
		}
		last = values[len(columns):]
		if !readable(columns, cells) {
			if err := s.lost(ctx, table, errors.New("a row that does not read")); err != nil {
				return last, nil, err
			}
			continue
		}
		if table == "submissions" || table == "arrivals" {
			s.owners[*cells[1].T] = true
		}
		if err := s.enc.Encode(backupRow{Table: table, Row: cells[:len(columns)]}); err != nil {
			return last, nil, fmt.Errorf("write the backup: %w", err)
		}
		s.Rows++
	}
	return last, r.Err(), ctx.Err()
}

// readable says whether a row is what mailgrant writes: one that is not would
// keep others from being read after a restore.
func readable(columns []string, cells []cell) bool {
	for i, c := range columns {
		if (c == "id" || c == "org") && cells[i].T == nil && cells[i].N == nil || c == "doc" && (cells[i].T == nil || !json.Valid([]byte(*cells[i].T))) {
			return false
		}
	}
	return true
}

// lost notes that something of a table cannot be read. What is no damage ends it
// all: a disk that does not answer now may do so later.
func (s *salvage) lost(ctx context.Context, table string, err error) error {
	switch code := sqliteCode(err) & 0xff; {
	case ctx.Err() != nil:
		return ctx.Err()
	case code == sqlite3.SQLITE_NOTADB:
		return mailgrant.Errorf(mailgrant.Internal, err, "nothing can be saved: the file is no database any more").Fix("restore the newest backup: mailgrant restore FILE")
	case code == sqlite3.SQLITE_IOERR, code == sqlite3.SQLITE_BUSY, code == sqlite3.SQLITE_CANTOPEN, code == sqlite3.SQLITE_NOMEM:
		return sqliteError(err)
	}
	s.last = err
	if !slices.Contains(s.Damaged, table) {
		s.Damaged = append(s.Damaged, table)
	}
	return nil
}
