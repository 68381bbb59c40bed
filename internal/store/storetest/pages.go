package storetest

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/store"
)

// pages gives every list by pages: nothing is left out, nothing comes twice, and
// nothing of another organization.
func pages(t *testing.T, f *fixture) {
	other := mailgrant.NewID(mailgrant.PrefixOrganization)
	f.must(t, f.CreateOrganization(f.ctx, mailgrant.Organization{ID: other, Name: "Fabrikam"}))
	sub := f.accept(t, f.box.ID)
	for i := range 5 {
		f.must(t, f.CreateRegistration(f.ctx, mailgrant.Registration{ID: mailgrant.NewID(mailgrant.PrefixRegistration), Org: f.org, Name: "more"}))
		f.must(t, f.CreateApp(f.ctx, mailgrant.App{ID: mailgrant.NewID(mailgrant.PrefixApp), Org: f.org, Name: fmt.Sprint("app", i)}))
		f.must(t, f.CreateKey(f.ctx, mailgrant.Key{ID: mailgrant.NewID(mailgrant.PrefixKey), Org: f.org, App: f.app.ID, Hash: []byte(fmt.Sprint("key", i))}))
		f.mailbox(t, fmt.Sprintf("m%d@contoso.example", i), f.grant(t).ID)
		_, err := f.BeginAttempt(f.ctx, store.Fence{}, []mailgrant.Submission{sub})
		f.must(t, err)
		f.must(t, f.record(t, store.Record{Attempt: attemptOf(sub, i+1, mailgrant.FateLater), State: mailgrant.SubmissionReady, Counts: true, DueAt: sub.DueAt}))
		theirs := mailgrant.Mailbox{ID: mailgrant.NewID(mailgrant.PrefixMailbox), Org: other, Address: fmt.Sprint(i, "@fabrikam.example"), State: mailgrant.MailboxActive}
		f.must(t, f.CreateMailbox(f.ctx, theirs))
		their := f.submission(theirs.ID)
		their.Org, their.App = other, ""
		_, err = f.AcceptSubmission(f.ctx, store.Acceptance{Submission: their, Body: []byte("sealed")})
		f.must(t, err)
	}
	g := f.grant(t)
	g.Sealed = []byte("sealed")
	f.must(t, f.CompleteConsent(f.ctx, g))
	if n, err := f.GrantStates(f.ctx, f.org); err != nil || len(n) != 2 || n[mailgrant.GrantPending] != 5 || n[mailgrant.GrantActive] != 1 {
		t.Errorf("grants by their state: %v, %v", n, err)
	}
	byPages(t, f, "registrations", f.Registrations, f.RegistrationsAfter, func(r mailgrant.Registration) mailgrant.ID { return r.ID })
	byPages(t, f, "grants", f.Grants, f.GrantsAfter, func(g mailgrant.Grant) mailgrant.ID { return g.ID })
	byPages(t, f, "mailboxes", f.Mailboxes, f.MailboxesAfter, func(m mailgrant.Mailbox) mailgrant.ID { return m.ID })
	byPages(t, f, "apps", f.Apps, f.AppsAfter, func(a mailgrant.App) mailgrant.ID { return a.ID })
	byPages(t, f, "keys",
		func(ctx context.Context, org mailgrant.ID) ([]mailgrant.Key, error) {
			return f.Keys(ctx, org, f.app.ID)
		},
		func(ctx context.Context, org, after mailgrant.ID, limit int) ([]mailgrant.Key, error) {
			return f.KeysAfter(ctx, org, f.app.ID, after, limit)
		}, func(k mailgrant.Key) mailgrant.ID { return k.ID })
	some, err := f.AttemptsAfter(f.ctx, f.org, sub.ID, 2, 2)
	if err != nil || len(some) != 2 || some[0].N != 3 || some[1].N != 4 {
		t.Errorf("attempts 3 and 4: %+v, %v", some, err)
	}
	first, err := f.OrganizationsAfter(f.ctx, "", 1)
	f.must(t, err)
	rest, err := f.OrganizationsAfter(f.ctx, first[0].ID, 0)
	if err != nil || len(first) != 1 || len(rest) != 1 || rest[0].ID == first[0].ID {
		t.Errorf("organizations: %+v, then %+v, %v", first, rest, err)
	}
}

func byPages[T any](t *testing.T, f *fixture, what string, all func(context.Context, mailgrant.ID) ([]T, error),
	page func(ctx context.Context, org, after mailgrant.ID, limit int) ([]T, error), id func(T) mailgrant.ID) {
	t.Helper()
	want, err := all(f.ctx, f.org)
	f.must(t, err)
	var got []T
	for after := mailgrant.ID(""); ; after = id(got[len(got)-1]) {
		some, err := page(f.ctx, f.org, after, 2)
		f.must(t, err)
		if got = append(got, some...); len(some) < 2 {
			break
		}
	}
	if len(want) < 5 || !reflect.DeepEqual(got, want) {
		t.Errorf("%s by pages:\n%+v\nall of them:\n%+v", what, got, want)
	}
}

// queue counts what waits, by mailbox and page.
func queue(t *testing.T, f *fixture) {
	other := mailgrant.NewID(mailgrant.PrefixOrganization)
	f.must(t, f.CreateOrganization(f.ctx, mailgrant.Organization{ID: other, Name: "Fabrikam"}))
	var want []store.Counts
	for i := range 5 {
		m := f.mailbox(t, fmt.Sprintf("M%d@contoso.example", i), "")
		c := store.Counts{Mailbox: m.ID, Address: m.Address, Waiting: int64(i)}
		for n := range i {
			sub := f.submission(m.ID)
			sub.DueAt = sub.DueAt.Add(time.Duration(n) * time.Minute)
			_, err := f.AcceptSubmission(f.ctx, store.Acceptance{Submission: sub, Body: []byte("sealed")})
			f.must(t, err)
			if n == 0 {
				c.Oldest = sub.DueAt
			}
		}
		if i == 3 {
			h := mailgrant.Hold{Since: c.Oldest, Finding: mailgrant.Finding{Cause: "mailbox-full"}}
			f.must(t, f.HoldMailbox(f.ctx, f.org, m.ID, h))
			c.Hold = &h
		}
		if i > 0 {
			want = append(want, c)
		}
		theirs := mailgrant.Mailbox{ID: mailgrant.NewID(mailgrant.PrefixMailbox), Org: other, Address: fmt.Sprint(i, "@fabrikam.example"), State: mailgrant.MailboxActive}
		f.must(t, f.CreateMailbox(f.ctx, theirs))
		their := f.submission(theirs.ID)
		their.Org, their.App = other, ""
		_, err := f.AcceptSubmission(f.ctx, store.Acceptance{Submission: their, Body: []byte("sealed")})
		f.must(t, err)
	}
	done := f.mailbox(t, "done@contoso.example", "")
	sub := f.accept(t, done.ID)
	f.must(t, f.CancelSubmission(f.ctx, f.org, sub.ID))
	all, err := f.QueueAfter(f.ctx, f.org, "", 0)
	f.must(t, err)
	var got []store.Counts
	for after := mailgrant.ID(""); ; after = got[len(got)-1].Mailbox {
		some, err := f.QueueAfter(f.ctx, f.org, after, 3)
		f.must(t, err)
		if got = append(got, some...); len(some) < 3 {
			break
		}
	}
	same := func(a, b store.Counts) bool {
		return a.Mailbox == b.Mailbox && a.Address == b.Address && a.Waiting == b.Waiting && a.Oldest.Equal(b.Oldest) && (a.Hold == nil) == (b.Hold == nil)
	}
	if !slices.EqualFunc(got, want, same) || !slices.EqualFunc(all, want, same) {
		t.Errorf("got %+v by pages\nand %+v at once\nwant %+v", got, all, want)
	}
}
