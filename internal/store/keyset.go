package store

import (
	"context"
	"errors"

	"github.com/mailgrant/mailgrant"
)

// LoadKeyset gives the wrapped keyset of the vault; version 0 when there is none.
func (s *Store) LoadKeyset(ctx context.Context) (wrapped []byte, version int64, err error) {
	err = scan(ctx, s.eng, "SELECT wrapped, version FROM keysets WHERE id = 1", nil, &wrapped, &version)
	if errors.Is(err, errNone) {
		return nil, 0, nil
	}
	return wrapped, version, err
}

// SaveKeyset replaces the keyset of version old.
func (s *Store) SaveKeyset(ctx context.Context, wrapped []byte, old int64) error {
	changed := mailgrant.Errorf(mailgrant.Conflict, nil, "the keyset was changed meanwhile").Fix("try again")
	if old == 0 {
		_, err := s.do(ctx, stmt{"INSERT INTO keysets (id, version, wrapped) VALUES (1, 1, ?)", []any{wrapped}})
		if errors.Is(err, errUnique) {
			return changed
		}
		return err
	}
	n, err := s.do(ctx, stmt{"UPDATE keysets SET version = version + 1, wrapped = ? WHERE id = 1 AND version = ?", []any{wrapped, old}})
	if err == nil && n[0] == 0 {
		return changed
	}
	return err
}

// sealedColumn names a column that holds seals and how its row is known.
type sealedColumn struct {
	table, column, key string // key: the column that Place.Row is
	n                  bool   // Place.N is the column n
}

// sealedColumns are all that a rotation must go through. What lives for minutes
// only (flows, handover) is left to end by itself.
var sealedColumns = []sealedColumn{
	{table: "credentials", column: "sealed", key: "id"},
	{table: "grants", column: "sealed", key: "id"},
	{table: "grants", column: "sealed_prev", key: "id"},
	{table: "flows", column: "sealed", key: "id"},
	{table: "chunks", column: "sealed", key: "owner", n: true},
	{table: "webhooks", column: "sealed", key: "id"},
	{table: "webhooks", column: "sealed_prev", key: "id"},
}

// A SealedRow is one seal and where it lives.
type SealedRow struct {
	Org    mailgrant.ID
	Table  string
	Column string // of the table
	Row    mailgrant.ID
	N      int64
	Sealed []byte
}

// SealedBy gives up to limit seals whose first bytes are prefix.
func (s *Store) SealedBy(ctx context.Context, prefix []byte, limit int) ([]SealedRow, error) {
	var out []SealedRow
	for _, c := range sealedColumns {
		n := "0"
		if c.n {
			n = "n"
		}
		q := "SELECT org, " + c.key + ", " + n + ", " + c.column + " FROM " + c.table +
			" WHERE " + c.column + " IS NOT NULL AND substr(" + c.column + ", 1, ?) = ? LIMIT ?"
		l, err := list(ctx, s.eng, q, []any{len(prefix), prefix, limit - len(out)}, func(r rows) (SealedRow, error) {
			row := SealedRow{Table: c.table, Column: c.column}
			var org, id string
			err := r.Scan(&org, &id, &row.N, &row.Sealed)
			row.Org, row.Row = mailgrant.ID(org), mailgrant.ID(id)
			return row, err
		})
		if err != nil {
			return nil, err
		}
		if out = append(out, l...); len(out) >= limit {
			break
		}
	}
	return out, nil
}

// Reseal puts fresh in the place of row.Sealed, unless it was changed meanwhile.
func (s *Store) Reseal(ctx context.Context, row SealedRow, fresh []byte) error {
	for _, c := range sealedColumns {
		if c.table != row.Table || c.column != row.Column {
			continue
		}
		q := "UPDATE " + c.table + " SET " + c.column + " = ? WHERE org = ? AND " + c.key + " = ? AND " + c.column + " = ?"
		args := []any{fresh, string(row.Org), string(row.Row), row.Sealed}
		if c.n {
			q += " AND n = ?"
			args = append(args, row.N)
		}
		_, err := s.do(ctx, stmt{q, args})
		return err
	}
	return errors.New("store: no such sealed column")
}
