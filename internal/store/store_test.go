package store_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/store"
	"github.com/mailgrant/mailgrant/internal/store/storetest"
	"github.com/mailgrant/mailgrant/test/real"
)

var quiet = slog.New(slog.DiscardHandler)

func open(t testing.TB, dsn string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), dsn, quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func onSQLite(t *testing.T) *store.Store {
	return open(t, filepath.Join(t.TempDir(), "mailgrant.db"))
}

func onPostgres(t *testing.T) *store.Store { return open(t, real.Postgres(t)) }

func TestSQLite(t *testing.T)   { storetest.Run(t, onSQLite) }
func TestPostgres(t *testing.T) { storetest.Run(t, onPostgres) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// is wants an error of a kind, with its remedy.
func is(t testing.TB, err error, code mailgrant.Code) {
	t.Helper()
	if !errors.Is(err, code) {
		t.Fatalf("got %v, want %s", err, code)
	}
	if mailgrant.AsError(err).Remedy == "" {
		t.Errorf("%v: no remedy", err)
	}
}

// A house is a store with an organization, a mailbox and an app.
type house struct {
	*store.Store
	org mailgrant.ID
	box mailgrant.ID
}

func found(t testing.TB, s *store.Store) house {
	t.Helper()
	h := house{s, mailgrant.NewID(mailgrant.PrefixOrganization), mailgrant.NewID(mailgrant.PrefixMailbox)}
	must(t, s.CreateOrganization(t.Context(), mailgrant.Organization{ID: h.org, Name: "Contoso"}))
	must(t, s.CreateMailbox(t.Context(), mailgrant.Mailbox{ID: h.box, Org: h.org, Address: "office@contoso.example", State: mailgrant.MailboxActive}))
	return h
}

// message is a submission that is due.
func (h house) message() mailgrant.Submission {
	now := time.Now().UTC().Truncate(time.Microsecond)
	return mailgrant.Submission{ID: mailgrant.NewID(mailgrant.PrefixSubmission), Org: h.org, Door: "rest", Class: mailgrant.ClassUser,
		Route: mailgrant.Route{Mailbox: h.box, Kind: "global"}, EnvelopeFrom: "office@contoso.example", Recipients: []string{"a@example.net"},
		MessageID: "<1@x>", Size: 5, State: mailgrant.SubmissionReady, AcceptedAt: now, DueAt: now, ExpiresAt: now.Add(time.Hour)}
}

func (h house) accept(ctx context.Context, body []byte) (mailgrant.Submission, error) {
	return h.AcceptSubmission(ctx, store.Acceptance{Submission: h.message(), Body: body})
}

// whole says whether each submission has its body and no body is without one.
func (h house) whole(t testing.TB, want int) {
	t.Helper()
	n, cursor := 0, ""
	for {
		l, next, err := h.Submissions(t.Context(), h.org, store.SubmissionFilter{Limit: 500, After: cursor})
		must(t, err)
		for _, sub := range l {
			if _, err := h.Chunk(t.Context(), h.org, sub.ID, 0); err != nil {
				t.Fatalf("%s has no body: %v", sub.ID, err)
			}
		}
		if n += len(l); next == "" {
			break
		}
		cursor = next
	}
	if n != want {
		t.Fatalf("%d submissions, want %d", n, want)
	}
}
