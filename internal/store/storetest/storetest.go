// Package storetest states the promises of the store once. Both databases are
// held to them.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/store"
)

// Run holds the stores that open makes to all promises. Each call of open is a
// database of its own.
func Run(t *testing.T, open func(t *testing.T) *store.Store) {
	for name, promise := range map[string]func(*testing.T, *fixture){
		"AcceptedIsThere":             acceptedIsThere,
		"AP07IdempotencyKey":          idempotency,
		"ForeignIsNotFound":           foreignIsNotFound,
		"LaneKeepsOrder":              laneKeepsOrder,
		"BeginAttemptOnce":            beginOnce,
		"RecordAttempt":               recordAttempt,
		"UnfinishedIsFound":           unfinished,
		"HoldStopsTheClock":           holdStopsTheClock,
		"ConsentResumesMailboxes":     consentResumes,
		"LeaseIsExclusive":            leaseIsExclusive,
		"NotesKeepEachOther":          notes,
		"RenewalIsFenced":             renewalIsFenced,
		"RevocationDestroysTokens":    revocation,
		"OA02FlowIsTakenOnce":         flowOnce,
		"OA06LinkIsUsedOnce":          linkOnce,
		"DeleteInUseIsRefused":        deleteInUse,
		"EventsAscend":                eventsAscend,
		"GroupsKeepFailuresApart":     groupsKeepFailuresApart,
		"BackupIsRestored":            backupIsRestored,
		"SweepKeepsWhatIsNeeded":      sweep,
		"BusyLanesNamesEachOnce":      busyLanes,
		"KeysAreFoundByHash":          keysByHash,
		"ListsByPages":                pages,
		"QueueCountsByMailbox":        queue,
		"CancelOnlyWhatIsNotUnderWay": cancel,
		"AP01ForeignIdsEverywhere":    walk,
		"BounceGoesWithItsFailure":    bounceGoesWith,
		"AttemptsAreNumbered":         attemptsAreNumbered,
		"RetryOfUncertainIsFlagged":   retryUncertain,
		"RE18RestoreWaitsForAPerson":  restoreWaits,
		"CollectTakesOnce":            collectOnce,
		"CollectIsAllOrNothing":       collectAll,
		"ArrivalsAreFound":            arrivalsFound,
		"ArrivalStates":               arrivalStates,
		"ReadMailboxesAreThoseToRead": readMailboxes,
		"KnownByOtherNames":           knowRemotes,
		"AfterReadingIsKept":          afterReading,
		"ArrivalsAreSwept":            arrivalsSwept,
		"WebhookLife":                 webhookLife,
		"TellingIsKept":               tellingKept,
		"ReaderIsToldOnce":            readerToldOnce,
		"NamedByWebhook":              namedByWebhook,
		"ExpiredIsGivenUp":            expiredGivenUp,
		"WhatWaitsIsReplayed":         waitingReplayed,
		"DeliveriesAreFew":            deliveriesFew,
		"UntoldEventsAreNotSwept":     untoldKept,
		"EventsAreFoundByTime":        eventsByTime,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			promise(t, newFixture(t, s, open))
		})
	}
}

type fixture struct {
	*store.Store
	ctx  context.Context
	org  mailgrant.ID
	reg  mailgrant.Registration
	box  mailgrant.Mailbox
	app  mailgrant.App
	open func(t *testing.T) *store.Store
}

func newFixture(t *testing.T, s *store.Store, open func(t *testing.T) *store.Store) *fixture {
	t.Helper()
	f := &fixture{Store: s, ctx: t.Context(), org: mailgrant.NewID(mailgrant.PrefixOrganization), open: open}
	f.must(t, s.CreateOrganization(f.ctx, mailgrant.Organization{ID: f.org, Name: "Contoso"}))
	f.reg = mailgrant.Registration{ID: mailgrant.NewID(mailgrant.PrefixRegistration), Org: f.org, Name: "M365", Template: "microsoft365", ClientID: "c"}
	f.must(t, s.CreateRegistration(f.ctx, f.reg))
	f.app = mailgrant.App{ID: mailgrant.NewID(mailgrant.PrefixApp), Org: f.org, Name: "Cases"}
	f.must(t, s.CreateApp(f.ctx, f.app))
	f.box = f.mailbox(t, "office@contoso.example", "")
	return f
}

func (f *fixture) must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) mailbox(t *testing.T, address string, grant mailgrant.ID) mailgrant.Mailbox {
	t.Helper()
	m := mailgrant.Mailbox{ID: mailgrant.NewID(mailgrant.PrefixMailbox), Org: f.org, Address: address, Role: mailgrant.RoleGlobal,
		Grant: grant, Transport: "auto", State: mailgrant.MailboxActive}
	f.must(t, f.CreateMailbox(f.ctx, m))
	return m
}

func (f *fixture) grant(t *testing.T) mailgrant.Grant {
	t.Helper()
	g := mailgrant.Grant{ID: mailgrant.NewID(mailgrant.PrefixGrant), Org: f.org, Registration: f.reg.ID, Mailbox: "office@contoso.example",
		Flow: mailgrant.FlowCode, State: mailgrant.GrantPending, Capabilities: []mailgrant.Capability{mailgrant.CanSMTP}}
	f.must(t, f.CreateGrant(f.ctx, g))
	return g
}

func (f *fixture) submission(box mailgrant.ID) mailgrant.Submission {
	now := time.Now().UTC().Truncate(time.Microsecond)
	return mailgrant.Submission{ID: mailgrant.NewID(mailgrant.PrefixSubmission), Org: f.org, App: f.app.ID, Door: "rest", Class: mailgrant.ClassUser,
		Route: mailgrant.Route{Mailbox: box, Kind: "global"}, EnvelopeFrom: "office@contoso.example", Recipients: []string{"a@example.net"},
		MessageID: "<1@x>", Size: 5, State: mailgrant.SubmissionReady, AcceptedAt: now, DueAt: now, ExpiresAt: now.Add(time.Hour)}
}

func (f *fixture) accept(t *testing.T, box mailgrant.ID) mailgrant.Submission {
	t.Helper()
	sub, err := f.AcceptSubmission(f.ctx, store.Acceptance{Submission: f.submission(box), Body: []byte("sealed")})
	f.must(t, err)
	return sub
}

func is(t *testing.T, err error, code mailgrant.Code) {
	t.Helper()
	if !errors.Is(err, code) {
		t.Errorf("got %v, want %v", err, code)
	}
}

func acceptedIsThere(t *testing.T, f *fixture) {
	sub := f.accept(t, f.box.ID)
	got, err := f.Submission(f.ctx, f.org, sub.ID)
	f.must(t, err)
	if got.State != mailgrant.SubmissionReady || got.EnvelopeFrom != sub.EnvelopeFrom || !got.DueAt.Equal(sub.DueAt) {
		t.Errorf("got %+v, want %+v", got, sub)
	}
	if b, err := f.Chunk(f.ctx, f.org, sub.ID, 0); err != nil || string(b) != "sealed" {
		t.Errorf("body %q, %v", b, err)
	}
	_, err = f.Chunk(f.ctx, f.org, sub.ID, 1)
	is(t, err, mailgrant.NotFound)
	l, next, err := f.Submissions(f.ctx, f.org, store.SubmissionFilter{App: f.app.ID})
	f.must(t, err)
	if len(l) != 1 || next != "" {
		t.Errorf("list: %d, next %q", len(l), next)
	}
}

func idempotency(t *testing.T, f *fixture) {
	var wg sync.WaitGroup
	ids := make([]mailgrant.ID, 20)
	for i := range ids {
		wg.Go(func() {
			sub := f.submission(f.box.ID)
			sub.IdempotencyKey = "k"
			got, err := f.AcceptSubmission(f.ctx, store.Acceptance{Submission: sub, Body: []byte("b"), Digest: []byte("d"), KeepKey: time.Hour})
			if err != nil {
				t.Error(err)
			}
			ids[i] = got.ID
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Fatalf("two submissions under one key: %v", ids)
		}
	}
	if l, _, _ := f.Submissions(f.ctx, f.org, store.SubmissionFilter{}); len(l) != 1 {
		t.Errorf("%d submissions", len(l))
	}
	other := f.submission(f.box.ID)
	other.IdempotencyKey = "k"
	_, err := f.AcceptSubmission(f.ctx, store.Acceptance{Submission: other, Body: []byte("b"), Digest: []byte("another"), KeepKey: time.Hour})
	is(t, err, mailgrant.Conflict)
}

func foreignIsNotFound(t *testing.T, f *fixture) {
	sub := f.accept(t, f.box.ID)
	g := f.grant(t)
	other := mailgrant.NewID(mailgrant.PrefixOrganization)
	f.must(t, f.CreateOrganization(f.ctx, mailgrant.Organization{ID: other, Name: "Fabrikam"}))
	for what, err := range map[string]error{
		"submission":   second(f.Submission(f.ctx, other, sub.ID)),
		"body":         second(f.Chunk(f.ctx, other, sub.ID, 0)),
		"grant":        second(f.Grant(f.ctx, other, g.ID)),
		"mailbox":      second(f.Mailbox(f.ctx, other, f.box.ID)),
		"address":      second(f.MailboxByAddress(f.ctx, other, f.box.Address)),
		"registration": second(f.Registration(f.ctx, other, f.reg.ID)),
		"app":          second(f.App(f.ctx, other, f.app.ID)),
		"cancel":       f.CancelSubmission(f.ctx, other, sub.ID),
		"retry":        f.RetrySubmission(f.ctx, other, sub.ID),
		"hold":         f.HoldMailbox(f.ctx, other, f.box.ID, mailgrant.Hold{}),
		"revoke":       f.RevokeGrant(f.ctx, other, g.ID),
		"delete app":   f.DeleteApp(f.ctx, other, f.app.ID),
		"delete grant": f.DeleteGrant(f.ctx, other, g.ID),
	} {
		if !errors.Is(err, mailgrant.NotFound) {
			t.Errorf("%s of another organization: %v", what, err)
		}
	}
	if l, _ := f.Attempts(f.ctx, other, sub.ID); len(l) > 0 {
		t.Error("attempts of another organization are shown")
	}
	if l, _ := f.Events(f.ctx, other, store.EventFilter{}); len(l) > 0 {
		t.Error("events of another organization are shown")
	}
}

// events waits until n of the kinds are shown: PostgreSQL shows an event when no
// transaction that began before it is open, in any database of the server.
func (f *fixture) events(t *testing.T, n int, kinds ...string) []mailgrant.Event {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		l, err := f.Events(f.ctx, f.org, store.EventFilter{Kinds: kinds, Limit: 500})
		f.must(t, err)
		if len(l) >= n {
			return l
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-deadline:
			t.Fatalf("%d events, want %d", len(l), n)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func laneKeepsOrder(t *testing.T, f *fixture) {
	var want []mailgrant.ID
	for range 20 {
		want = append(want, f.accept(t, f.box.ID).ID)
	}
	future := f.submission(f.box.ID)
	future.DueAt = time.Now().Add(time.Hour)
	_, err := f.AcceptSubmission(f.ctx, store.Acceptance{Submission: future, Body: []byte("b")})
	f.must(t, err)
	got, err := f.DueSubmissions(f.ctx, f.box.ID, time.Now(), 100)
	f.must(t, err)
	if len(got) != len(want) {
		t.Fatalf("%d due, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i].ID != want[i] {
			t.Fatalf("place %d: %s, want %s", i, got[i].ID, want[i])
		}
	}
	next, err := f.NextDue(f.ctx, f.box.ID, time.Now())
	f.must(t, err)
	if !next.Equal(future.DueAt.Truncate(time.Microsecond)) {
		t.Errorf("next due %v, want %v", next, future.DueAt)
	}
	if next, err = f.NextDue(f.ctx, f.box.ID, future.DueAt); err != nil || !next.IsZero() {
		t.Errorf("after the last: %v, %v", next, err)
	}
}

func beginOnce(t *testing.T, f *fixture) {
	a, b := f.accept(t, f.box.ID), f.accept(t, f.box.ID)
	f.must(t, f.CancelSubmission(f.ctx, f.org, b.ID))
	ok, err := f.BeginAttempt(f.ctx, store.Fence{}, []mailgrant.Submission{a, b})
	f.must(t, err)
	if !ok[0] || ok[1] {
		t.Errorf("begin: %v, want [true false]", ok)
	}
	ok, err = f.BeginAttempt(f.ctx, store.Fence{}, []mailgrant.Submission{a})
	f.must(t, err)
	if ok[0] {
		t.Error("an attempt began twice")
	}
}

func (f *fixture) record(t *testing.T, r store.Record) error {
	t.Helper()
	done := make(chan error, 1)
	f.RecordAttempt(r, func(err error) { done <- err })
	return <-done
}

func attemptOf(sub mailgrant.Submission, n int, fate mailgrant.Fate) mailgrant.Attempt {
	now := time.Now().UTC()
	return mailgrant.Attempt{Submission: sub.ID, Org: sub.Org, N: n, Mailbox: sub.Route.Mailbox, Transport: "smtp", StartedAt: now, EndedAt: now, Fate: fate}
}

func recordAttempt(t *testing.T, f *fixture) {
	sub := f.accept(t, f.box.ID)
	due := time.Now().Add(time.Minute).Truncate(time.Microsecond)
	finding := mailgrant.Finding{Cause: "provider-outage"}
	later := attemptOf(sub, 1, mailgrant.FateLater)
	later.Finding = &finding
	f.must(t, f.record(t, store.Record{Attempt: later, State: mailgrant.SubmissionReady, DueAt: due, Counts: true, Pending: []string{"b@example.net"}}))
	got, err := f.Submission(f.ctx, f.org, sub.ID)
	f.must(t, err)
	if got.Attempts != 1 || !got.DueAt.Equal(due) || got.Finding == nil || got.Finding.Cause != "provider-outage" || len(got.Pending) != 1 {
		t.Errorf("after a deferral: %+v", got)
	}
	f.must(t, f.record(t, store.Record{Attempt: attemptOf(sub, 2, mailgrant.FateDelivered), State: mailgrant.SubmissionDelivered, Counts: true, Handed: 3,
		Events: []mailgrant.Event{{Org: f.org, Kind: "submission.delivered", Subject: sub.ID}}}))
	got, err = f.Submission(f.ctx, f.org, sub.ID)
	f.must(t, err)
	if got.State != mailgrant.SubmissionDelivered || got.FinalAt == nil || got.Attempts != 2 {
		t.Errorf("after delivery: %+v", got)
	}
	if n, err := f.HandedSince(f.ctx, f.box.ID, time.Now().Add(-time.Hour)); err != nil || n != 3 {
		t.Errorf("handed %d, %v", n, err)
	}
	attempts, err := f.Attempts(f.ctx, f.org, sub.ID)
	f.must(t, err)
	if len(attempts) != 2 || attempts[1].Fate != mailgrant.FateDelivered {
		t.Errorf("attempts: %+v", attempts)
	}
	is(t, f.record(t, store.Record{Attempt: attemptOf(sub, 3, mailgrant.FateLater), State: mailgrant.SubmissionReady}), mailgrant.Conflict)
}

func unfinished(t *testing.T, f *fixture) {
	sub := f.accept(t, f.box.ID)
	_, err := f.BeginAttempt(f.ctx, store.Fence{}, []mailgrant.Submission{sub})
	f.must(t, err)
	l, err := f.Unfinished(f.ctx, f.box.ID)
	f.must(t, err)
	if len(l) != 1 || l[0].ID != sub.ID {
		t.Fatalf("unfinished: %+v", l)
	}
	f.must(t, f.MarkUncertain(f.ctx, store.Fence{}, sub))
	got, err := f.Submission(f.ctx, f.org, sub.ID)
	f.must(t, err)
	if got.State != mailgrant.SubmissionUncertain || got.Duplicate {
		t.Errorf("got %s, duplicate %v", got.State, got.Duplicate)
	}
}

func holdStopsTheClock(t *testing.T, f *fixture) {
	sub := f.accept(t, f.box.ID)
	before, _ := f.Submission(f.ctx, f.org, sub.ID)
	h := mailgrant.Hold{Finding: mailgrant.Finding{Cause: "grant-revoked"}, Since: time.Now().Add(-time.Hour), ProbeAt: time.Now()}
	f.must(t, f.HoldMailbox(f.ctx, f.org, f.box.ID, h))
	held, err := f.Submission(f.ctx, f.org, sub.ID)
	f.must(t, err)
	if !held.Held {
		t.Error("a submission of a held mailbox does not say so")
	}
	m, _ := f.Mailbox(f.ctx, f.org, f.box.ID)
	if m.State != mailgrant.MailboxHeld || m.Hold == nil || m.Hold.Finding.Cause != "grant-revoked" {
		t.Errorf("mailbox: %+v", m)
	}
	f.must(t, f.HoldMailbox(f.ctx, f.org, f.box.ID, h)) // a probe: no second event
	f.must(t, f.ResumeMailbox(f.ctx, f.org, f.box.ID))
	after, _ := f.Submission(f.ctx, f.org, sub.ID)
	if after.Held || after.ExpiresAt.Before(before.ExpiresAt) {
		t.Errorf("life before %v, after %v", before.ExpiresAt, after.ExpiresAt)
	}
	l := f.events(t, 2, "mailbox.held", "mailbox.resumed")
	if len(l) != 2 {
		t.Errorf("%d events, want 2", len(l))
	}
}

func consentResumes(t *testing.T, f *fixture) {
	g := f.grant(t)
	m := f.mailbox(t, "kim@contoso.example", g.ID)
	f.must(t, f.HoldMailbox(f.ctx, f.org, m.ID, mailgrant.Hold{Finding: mailgrant.Finding{Cause: "x"}, Since: time.Now()}))
	g.Sealed, g.Subject = []byte("sealed"), mailgrant.Subject{TenantID: "t", ObjectID: "o"}
	f.must(t, f.CompleteConsent(f.ctx, g))
	got, err := f.Grant(f.ctx, f.org, g.ID)
	f.must(t, err)
	if got.State != mailgrant.GrantActive || !got.Subject.Same(g.Subject) || string(got.Sealed) != "sealed" || got.Generation != 1 {
		t.Errorf("grant: %+v", got)
	}
	if m, _ = f.Mailbox(f.ctx, f.org, m.ID); m.State != mailgrant.MailboxActive {
		t.Errorf("mailbox is still %s", m.State)
	}
}

func leaseIsExclusive(t *testing.T, f *fixture) {
	g := f.grant(t)
	_, a, err := f.LeaseGrant(f.ctx, f.org, g.ID, "nod_a", time.Minute)
	f.must(t, err)
	_, b, err := f.LeaseGrant(f.ctx, f.org, g.ID, "nod_b", time.Minute)
	f.must(t, err)
	if !a || b {
		t.Errorf("lease: first %v, second %v", a, b)
	}
	f.must(t, f.ReleaseGrant(f.ctx, f.org, g.ID, "nod_a"))
	if _, b, _ = f.LeaseGrant(f.ctx, f.org, g.ID, "nod_b", -time.Second); !b {
		t.Error("a released lease was not given")
	}
	if _, a, _ = f.LeaseGrant(f.ctx, f.org, g.ID, "nod_a", time.Minute); !a {
		t.Error("an ended lease was not given")
	}
}

// notes: a last use does not take the finding away, nor the other way round; and a
// refresh that was put off is due later.
func notes(t *testing.T, f *fixture) {
	g, at := f.grant(t), time.Now().UTC().Truncate(time.Second)
	g.NextRefresh = &at
	f.must(t, f.CompleteConsent(f.ctx, g))
	f.must(t, f.NoteGrant(f.ctx, f.org, g.ID, &mailgrant.Finding{Cause: "provider-outage"}, nil))
	f.must(t, f.NoteGrant(f.ctx, f.org, g.ID, nil, &at))
	now, err := f.Grant(f.ctx, f.org, g.ID)
	f.must(t, err)
	if now.LastFinding == nil || now.LastFinding.Cause != "provider-outage" || now.LastUse == nil || !now.LastUse.Equal(at) {
		t.Errorf("got %+v at %v", now.LastFinding, now.LastUse)
	}
	due := func(at time.Time) int {
		l, err := f.GrantsDue(f.ctx, at, 10)
		f.must(t, err)
		return len(l)
	}
	before := due(at)
	f.must(t, f.PostponeGrant(f.ctx, f.org, g.ID, at.Add(time.Hour)))
	if before != 1 || due(at.Add(time.Minute)) != 0 || due(at.Add(2*time.Hour)) != 1 {
		t.Errorf("due %d, then %d and %d", before, due(at.Add(time.Minute)), due(at.Add(2*time.Hour)))
	}
}

func renewalIsFenced(t *testing.T, f *fixture) {
	g := f.grant(t)
	g.Sealed = []byte("one")
	f.must(t, f.CompleteConsent(f.ctx, g))
	g, _, err := f.LeaseGrant(f.ctx, f.org, g.ID, "nod_a", time.Minute)
	f.must(t, err)
	r := store.Renewal{Grant: g.ID, Org: f.org, Node: "nod_a", Generation: g.Generation, Sealed: []byte("two"), At: time.Now(), Next: time.Now().Add(time.Hour),
		Handover: []store.Handover{{Resource: "outlook", Sealed: []byte("t"), Expires: time.Now().Add(time.Hour)}}}
	f.must(t, f.RenewGrant(f.ctx, r))
	got, _ := f.Grant(f.ctx, f.org, g.ID)
	if string(got.Sealed) != "two" || string(got.SealedPrev) != "one" || got.Generation != g.Generation+1 {
		t.Errorf("after renewal: %+v", got)
	}
	is(t, f.RenewGrant(f.ctx, r), mailgrant.Conflict) // the lease is gone
	is(t, f.LapseGrant(f.ctx, f.org, g.ID, "nod_a", g.Generation, mailgrant.Finding{}), mailgrant.Conflict)
	f.must(t, f.LapseGrant(f.ctx, f.org, g.ID, "nod_a", got.Generation, mailgrant.Finding{Cause: "grant-revoked"}))
	got, _ = f.Grant(f.ctx, f.org, g.ID)
	if got.State != mailgrant.GrantLapsed || len(got.Sealed) == 0 {
		t.Errorf("lapsed: %s, token kept %v", got.State, len(got.Sealed) > 0)
	}
	b, _, err := f.FetchHandover(f.ctx, f.org, g.ID, "outlook")
	if f.Clustered() && (err != nil || string(b) != "t") {
		t.Errorf("handover: %q, %v", b, err)
	}
	if !f.Clustered() {
		is(t, err, mailgrant.NotFound)
	}
}

func revocation(t *testing.T, f *fixture) {
	g := f.grant(t)
	g.Sealed = []byte("one")
	f.must(t, f.CompleteConsent(f.ctx, g))
	f.must(t, f.RevokeGrant(f.ctx, f.org, g.ID))
	got, _ := f.Grant(f.ctx, f.org, g.ID)
	if got.State != mailgrant.GrantRevoked || got.Sealed != nil || got.SealedPrev != nil {
		t.Errorf("revoked: %+v", got)
	}
}

func flowOnce(t *testing.T, f *fixture) {
	fl := store.Flow{ID: mailgrant.NewID(mailgrant.PrefixFlow), Org: f.org, Kind: store.FlowConsent, StateHash: []byte("h"), Sealed: []byte("s"), ExpiresAt: time.Now().Add(time.Minute)}
	f.must(t, f.CreateFlow(f.ctx, fl))
	var wg sync.WaitGroup
	var mu sync.Mutex
	taken := 0
	for range 10 {
		wg.Go(func() {
			if got, err := f.TakeFlow(f.ctx, []byte("h")); err == nil {
				mu.Lock()
				taken++
				mu.Unlock()
				if got.ID != fl.ID || string(got.Sealed) != "s" {
					t.Errorf("another flow: %+v", got)
				}
			}
		})
	}
	wg.Wait()
	if taken != 1 {
		t.Errorf("taken %d times", taken)
	}
	fl.ID, fl.StateHash, fl.ExpiresAt = mailgrant.NewID(mailgrant.PrefixFlow), []byte("old"), time.Now().Add(-time.Second)
	f.must(t, f.CreateFlow(f.ctx, fl))
	is(t, second(f.TakeFlow(f.ctx, []byte("old"))), mailgrant.NotFound)
}

func linkOnce(t *testing.T, f *fixture) {
	l := store.ConsentLink{ID: "lnk_1", Org: f.org, Hash: []byte("h"), ExpiresAt: time.Now().Add(time.Minute)}
	f.must(t, f.CreateConsentLink(f.ctx, l))
	f.must(t, f.UseConsentLink(f.ctx, l.Hash))
	is(t, f.UseConsentLink(f.ctx, l.Hash), mailgrant.NotFound)
	is(t, f.UseConsentLink(f.ctx, []byte("guess")), mailgrant.NotFound)
	got, err := f.ConsentLinkByHash(f.ctx, l.Hash)
	f.must(t, err)
	if got.UsedAt == nil {
		t.Error("it does not say that it was used")
	}
	// Only what still works is listed, and can be taken back.
	works := store.ConsentLink{ID: "lnk_3", Org: f.org, Mailbox: "office@contoso.example", Hash: []byte("h3"), ExpiresAt: time.Now().Add(time.Minute)}
	f.must(t, f.CreateConsentLink(f.ctx, works))
	f.must(t, f.CreateConsentLink(f.ctx, store.ConsentLink{ID: "lnk_2", Org: f.org, Hash: []byte("h2"), ExpiresAt: time.Now().Add(-time.Minute)}))
	all, err := f.LinksAfter(f.ctx, f.org, "", 0)
	if err != nil || len(all) != 1 || all[0].ID != works.ID || all[0].Mailbox != works.Mailbox {
		t.Errorf("got %+v, %v", all, err)
	}
	f.must(t, f.DeleteConsentLink(f.ctx, f.org, works.ID))
	is(t, f.UseConsentLink(f.ctx, works.Hash), mailgrant.NotFound)
	is(t, f.DeleteConsentLink(f.ctx, f.org, works.ID), mailgrant.NotFound)
}

func deleteInUse(t *testing.T, f *fixture) {
	g := f.grant(t)
	m := f.mailbox(t, "kim@contoso.example", g.ID)
	is(t, f.DeleteRegistration(f.ctx, f.org, f.reg.ID), mailgrant.Conflict)
	is(t, f.DeleteGrant(f.ctx, f.org, g.ID), mailgrant.Conflict)
	f.accept(t, m.ID)
	is(t, f.DeleteMailbox(f.ctx, f.org, m.ID), mailgrant.Conflict)
	is(t, f.DeleteOrganization(f.ctx, f.org), mailgrant.Conflict)
	is(t, f.CreateMailbox(f.ctx, mailgrant.Mailbox{ID: "mbx_2", Org: f.org, Address: "KIM@contoso.example"}), mailgrant.Conflict)
}

func readerToldOnce(t *testing.T, f *fixture) {
	m, other := f.box, f.mailbox(t, "kim@contoso.example", "")
	for _, cause := range []string{"", "held", "held", "other", "", "", "held"} {
		f.must(t, f.TellReader(f.ctx, cause, mailgrant.Event{Org: f.org, Kind: "reader." + cause, Subject: m.ID, Mailbox: m.ID}))
		f.must(t, f.UpdateMailbox(f.ctx, m))
	}
	f.must(t, f.TellReader(f.ctx, "held", mailgrant.Event{Org: f.org, Kind: "reader.last", Subject: other.ID, Mailbox: other.ID}))
	var got []string
	f.events(t, 1, "reader.last")
	for _, e := range f.events(t, 5, "reader.*") {
		got = append(got, strings.TrimPrefix(e.Kind, "reader."))
	}
	if want := []string{"held", "other", "", "held", "last"}; !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
}

func eventsAscend(t *testing.T, f *fixture) {
	added, stop := f.WatchEvents()
	defer stop()
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			if err := f.AddEvent(f.ctx, mailgrant.Event{Org: f.org, Kind: "test", Subject: mailgrant.ID(fmt.Sprint(i))}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	<-added
	f.events(t, 50, "test")
	var after int64
	seen := map[mailgrant.ID]bool{}
	for {
		l, err := f.Events(f.ctx, f.org, store.EventFilter{After: after, Limit: 7, Kinds: []string{"test"}})
		f.must(t, err)
		if len(l) == 0 {
			break
		}
		for _, e := range l {
			if e.Seq <= after {
				t.Fatalf("event %d after %d", e.Seq, after)
			}
			after = e.Seq
			seen[e.Subject] = true
		}
	}
	if len(seen) != 50 {
		t.Errorf("%d events seen", len(seen))
	}
}

func groupsKeepFailuresApart(t *testing.T, f *fixture) {
	dup := f.submission(f.box.ID)
	_, err := f.AcceptSubmission(f.ctx, store.Acceptance{Submission: dup, Body: []byte("b")})
	f.must(t, err)
	var wg sync.WaitGroup
	var mu sync.Mutex
	failed := 0
	for i := range 64 {
		wg.Go(func() {
			sub := f.submission(f.box.ID)
			if i%8 == 0 {
				sub.ID = dup.ID // breaks the primary key
			}
			if _, err := f.AcceptSubmission(f.ctx, store.Acceptance{Submission: sub, Body: []byte("b")}); err != nil {
				mu.Lock()
				failed++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if failed != 8 {
		t.Errorf("%d failed, want 8", failed)
	}
	l, _, err := f.Submissions(f.ctx, f.org, store.SubmissionFilter{Limit: 500})
	f.must(t, err)
	if len(l) != 57 {
		t.Errorf("%d submissions, want 57", len(l))
	}
}

func backupIsRestored(t *testing.T, f *fixture) {
	sub := f.accept(t, f.box.ID)
	done := f.accept(t, f.box.ID)
	f.must(t, f.record(t, store.Record{Attempt: attemptOf(done, 1, mailgrant.FateDelivered), State: mailgrant.SubmissionDelivered, Counts: true}))
	g := f.grant(t)
	g.Sealed = []byte("sealed")
	f.must(t, f.CompleteConsent(f.ctx, g))
	f.must(t, f.SaveKeyset(f.ctx, []byte("keys"), 0))
	_, err := f.Collect(f.ctx, store.Page{Org: f.org, Mailbox: f.box.ID, To: store.Position{Protocol: "imap", Cursor: "1"}, Known: []string{"too old"}})
	f.must(t, err)
	var buf bytes.Buffer
	f.must(t, f.Backup(f.ctx, &buf))
	whole := buf.Bytes()

	to := f.open(t)
	is(t, to.Restore(f.ctx, bytes.NewReader(whole[:len(whole)/2]), mailgrant.Finding{}, mailgrant.Finding{}), mailgrant.Invalid)
	if orgs, _ := to.Organizations(f.ctx); len(orgs) != 0 {
		t.Fatal("half a backup was restored")
	}
	f.must(t, to.Restore(f.ctx, bytes.NewReader(whole), mailgrant.Finding{Cause: "restored"}, mailgrant.Finding{Cause: "restored"}))
	is(t, to.Restore(f.ctx, bytes.NewReader(whole), mailgrant.Finding{}, mailgrant.Finding{}), mailgrant.Conflict)
	got, err := to.Submission(f.ctx, f.org, sub.ID)
	f.must(t, err)
	if !got.Held || !got.Duplicate {
		t.Errorf("restored: held %v, possible duplicate %v", got.Held, got.Duplicate)
	}
	if got, _ = to.Submission(f.ctx, f.org, done.ID); got.Duplicate || got.State != mailgrant.SubmissionDelivered {
		t.Errorf("what was done is %s", got.State)
	}
	if rg, err := to.Grant(f.ctx, f.org, g.ID); err != nil || string(rg.Sealed) != "sealed" {
		t.Errorf("grant: %v", err)
	}
	if b, err := to.Chunk(f.ctx, f.org, sub.ID, 0); err != nil || string(b) != "sealed" {
		t.Errorf("body %q, %v", b, err)
	}
	if seen, err := to.SeenRemotes(f.ctx, f.org, f.box.ID, []string{"too old"}); err != nil || len(seen) != 1 {
		t.Errorf("left alone for its age: %v, %v", seen, err)
	}
	f.must(t, to.AddEvent(f.ctx, mailgrant.Event{Org: f.org, Kind: "after"}))
}

func sweep(t *testing.T, f *fixture) {
	waiting, done := f.accept(t, f.box.ID), f.accept(t, f.box.ID)
	f.must(t, f.record(t, store.Record{Attempt: attemptOf(done, 1, mailgrant.FateDelivered), State: mailgrant.SubmissionDelivered}))
	f.must(t, f.PutChunk(f.ctx, f.org, mailgrant.NewID(mailgrant.PrefixSubmission), 0, []byte("orphan")))
	in := time.Now().Add(48 * time.Hour)
	if _, err := f.Sweep(f.ctx, in, store.Keep{Bodies: 24 * time.Hour, Submissions: 72 * time.Hour, Events: 72 * time.Hour}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Chunk(f.ctx, f.org, waiting.ID, 0); err != nil {
		t.Errorf("the body of a waiting submission: %v", err)
	}
	is(t, second(f.Chunk(f.ctx, f.org, done.ID, 0)), mailgrant.NotFound)
	if _, err := f.Submission(f.ctx, f.org, done.ID); err != nil {
		t.Errorf("submission: %v", err)
	}
	if _, err := f.Sweep(f.ctx, in.Add(48*time.Hour), store.Keep{Submissions: 72 * time.Hour, Events: time.Hour}); err != nil {
		t.Fatal(err)
	}
	is(t, second(f.Submission(f.ctx, f.org, done.ID)), mailgrant.NotFound)
	if _, err := f.Submission(f.ctx, f.org, waiting.ID); err != nil {
		t.Errorf("a waiting submission: %v", err)
	}
	if l, _ := f.Events(f.ctx, f.org, store.EventFilter{}); len(l) != 0 {
		t.Errorf("%d events left", len(l))
	}
}

func busyLanes(t *testing.T, f *fixture) {
	want := map[mailgrant.ID]bool{}
	for i := range 5 {
		m := f.mailbox(t, fmt.Sprintf("m%d@contoso.example", i), "")
		for range 3 {
			f.accept(t, m.ID)
		}
		want[m.ID] = true
	}
	l, err := f.BusyLanes(f.ctx)
	f.must(t, err)
	if len(l) != len(want) {
		t.Fatalf("%d lanes, want %d", len(l), len(want))
	}
	for _, lane := range l {
		if !want[lane.Mailbox] || lane.Org != f.org {
			t.Errorf("lane %+v", lane)
		}
	}
}

func keysByHash(t *testing.T, f *fixture) {
	k := mailgrant.Key{ID: mailgrant.NewID(mailgrant.PrefixKey), Org: f.org, App: f.app.ID, Prefix: "mg_abcd", Hash: []byte("hash"), Scopes: []mailgrant.Scope{mailgrant.ScopeSend}}
	f.must(t, f.CreateKey(f.ctx, k))
	got, app, err := f.KeyByHash(f.ctx, []byte("hash"))
	f.must(t, err)
	if got.ID != k.ID || app.ID != f.app.ID {
		t.Errorf("key %+v of %+v", got, app)
	}
	f.must(t, f.RevokeKey(f.ctx, f.org, k.ID, time.Now()))
	if got, _, _ = f.KeyByHash(f.ctx, []byte("hash")); got.RevokedAt == nil {
		t.Error("it is not revoked")
	}
	f.must(t, f.TouchKeys(f.ctx, map[mailgrant.ID]time.Time{k.ID: time.Now()}))
	f.must(t, f.DeleteApp(f.ctx, f.org, f.app.ID))
	_, _, err = f.KeyByHash(f.ctx, []byte("hash"))
	is(t, err, mailgrant.NotFound)
}

func cancel(t *testing.T, f *fixture) {
	a, b := f.accept(t, f.box.ID), f.accept(t, f.box.ID)
	_, err := f.BeginAttempt(f.ctx, store.Fence{}, []mailgrant.Submission{a})
	f.must(t, err)
	is(t, f.CancelSubmission(f.ctx, f.org, a.ID), mailgrant.Conflict)
	f.must(t, f.CancelSubmission(f.ctx, f.org, b.ID))
	f.must(t, f.RetrySubmission(f.ctx, f.org, b.ID))
	got, _ := f.Submission(f.ctx, f.org, b.ID)
	if got.State != mailgrant.SubmissionReady || got.FinalAt != nil {
		t.Errorf("after retry: %+v", got)
	}
}
