package store_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/store"
	"github.com/mailgrant/mailgrant/test/real"
)

func TestSE02DatabaseIsForItsOwnerOnly(t *testing.T) {
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "mailgrant.db"))
	must(t, s.CreateOrganization(t.Context(), mailgrant.Organization{ID: mailgrant.NewID(mailgrant.PrefixOrganization)}))
	files, err := os.ReadDir(dir)
	must(t, err)
	for _, f := range files {
		info, err := f.Info()
		must(t, err)
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", f.Name(), info.Mode())
		}
	}
	if len(files) < 3 { // the database, its log, its lock
		t.Errorf("%d files", len(files))
	}
}

// A process that was killed in the middle of a refresh does not keep the next one
// from refreshing.
func TestRE01LeaseOfTheDead(t *testing.T) {
	name := filepath.Join(t.TempDir(), "mailgrant.db")
	first, err := store.Open(t.Context(), name, slog.New(slog.DiscardHandler))
	must(t, err)
	h := found(t, first)
	must(t, h.CreateRegistration(t.Context(), mailgrant.Registration{ID: "reg_a", Org: h.org, Name: "M365"}))
	must(t, h.CreateGrant(t.Context(), mailgrant.Grant{ID: "gra_a", Org: h.org, Registration: "reg_a", State: mailgrant.GrantActive}))
	_, held, err := first.LeaseGrant(t.Context(), h.org, "gra_a", "nod_a", time.Minute)
	must(t, err)
	must(t, first.Close())
	_, heldByNext, err := open(t, name).LeaseGrant(t.Context(), h.org, "gra_a", "nod_b", time.Minute)
	must(t, err)
	if !held || !heldByNext {
		t.Errorf("the lease is held: %v, by the next process: %v", held, heldByNext)
	}
}

func TestDatabaseThatIsNotThere(t *testing.T) {
	url := real.Postgres(t)
	base, _, _ := strings.Cut(url, "?")
	_, err := store.Open(t.Context(), base[:strings.LastIndexByte(base, '/')+1]+"nowhere", slog.New(slog.DiscardHandler))
	is(t, err, mailgrant.Misset)
}

// Callers choose the filters of a list, and so its text: what stays prepared is bounded.
func TestPreparedReadsAreBounded(t *testing.T) {
	h := found(t, onSQLite(t))
	_, err := h.accept(t.Context(), []byte("b"))
	must(t, err)
	for n := range 600 {
		f := store.SubmissionFilter{States: slices.Repeat([]mailgrant.SubmissionState{mailgrant.SubmissionReady}, n+1)}
		if l, _, err := h.Submissions(t.Context(), h.org, f); err != nil || len(l) != 1 {
			t.Fatalf("%d states: %d submissions, %v", n+1, len(l), err)
		}
	}
	if n := store.Prepared(h.Store); n > 512 {
		t.Errorf("%d reads are prepared", n)
	}
}
