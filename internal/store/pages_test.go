package store

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
)

// A recorder keeps what is asked.
type recorder struct {
	engine
	text string
	args []any
}

func (r *recorder) query(ctx context.Context, q string, args ...any) (rows, error) {
	r.text, r.args = q, args
	return r.engine.query(ctx, q, args...)
}

// A page costs what it shows: no query for one goes through a table.
func TestPagesDoNotScan(t *testing.T) {
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "m.db"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	rec := &recorder{engine: s.eng}
	s.eng = rec
	ctx := t.Context()
	for name, ask := range map[string]func() error{
		"organizations": func() error { _, err := s.OrganizationsAfter(ctx, "org", 10); return err },
		"registrations": func() error { _, err := s.RegistrationsAfter(ctx, "org", "reg", 10); return err },
		"grants":        func() error { _, err := s.GrantsAfter(ctx, "org", "gra", 10); return err },
		"mailboxes":     func() error { _, err := s.MailboxesAfter(ctx, "org", "mbx", 10); return err },
		"apps":          func() error { _, err := s.AppsAfter(ctx, "org", "app", 10); return err },
		"links":         func() error { _, err := s.LinksAfter(ctx, "org", "lnk", 10); return err },
		"keys":          func() error { _, err := s.KeysAfter(ctx, "org", "app", "key", 10); return err },
		"attempts":      func() error { _, err := s.AttemptsAfter(ctx, "org", "msg", 1, 10); return err },
		"queue":         func() error { _, err := s.QueueAfter(ctx, "org", "mbx", 10); return err },
	} {
		if err := ask(); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		plan, err := list(ctx, rec.engine, "EXPLAIN QUERY PLAN "+rec.text, rec.args, func(r rows) (string, error) {
			var id, parent, unused int64
			var detail string
			err := r.Scan(&id, &parent, &unused, &detail)
			return detail, err
		})
		if err != nil || len(plan) == 0 {
			t.Fatalf("%s: %v", name, err)
		}
		for _, step := range plan {
			// m is the list of mailboxes that the queue's query makes as it goes.
			if strings.HasPrefix(step, "SCAN") && step != "SCAN m" && step != "SCAN CONSTANT ROW" || strings.Contains(step, "TEMP B-TREE") && name != "keys" {
				t.Errorf("%s:\n%s", name, strings.Join(plan, "\n"))
				break
			}
		}
	}
}
