package inbox_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/inbox"
	"github.com/mailgrant/mailgrant/internal/store"
)

func TestMailIsNoticedAndKept(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		r.far.deliver(message("one"), message("two"), message("three"), message("four"))
		synctest.Wait()
		r.far.deliver(message("five"))
		synctest.Wait()
		if got := r.subjects(); got != "one two three four five" {
			t.Fatalf("arrivals: %s", got)
		}
		a := r.arrivals()[1]
		if a.From[0].Address != "kim@example.net" || a.From[0].Name != "Kim" || a.MessageID != "<two@example.net>" || a.Snippet != "Hello, this is two." ||
			a.State != mailgrant.ArrivalNew || a.Protocol != "imap" || a.RemoteID != "imap-2" || a.Folder != "INBOX" || a.Size != int64(len(message("two"))) {
			t.Errorf("%+v", a)
		}
		if got := r.body(a.ID); got != message("two") {
			t.Errorf("its bytes: %q", got)
		}
		l := r.events("arrival.new")
		if len(l) != 5 || l[1].Subject != a.ID || l[1].Mailbox != r.box.ID {
			t.Fatalf("events: %+v", l)
		}
		var s inbox.Summary
		must(t, json.Unmarshal(l[1].Data, &s))
		if s.Subject != "two" || s.ID != a.ID || s.From[0].Address != "kim@example.net" {
			t.Errorf("the event says %+v", s)
		}
		if st := r.in.Status(r.box); st.State != mailgrant.ReaderWaiting || !st.Push || st.LastMail == nil || st.LastRead == nil {
			t.Errorf("status %+v", st)
		}
		r.restart()
		synctest.Wait()
		if got := len(r.arrivals()); got != 5 {
			t.Errorf("%d arrivals after a restart", got)
		}
		if opens, closes := r.far.counts(); opens != closes+1 {
			t.Errorf("%d opened, %d closed", opens, closes)
		}
	})
}

func TestLargeMessageIsStreamed(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		large := message("large") + strings.Repeat("0123456789abcdef\r\n", 80_000)
		tooLarge := message("huge") + strings.Repeat("x", 11<<20)
		r.far.deliver(large, tooLarge, message("next"))
		synctest.Wait()
		l := r.arrivals()
		if len(l) != 3 {
			t.Fatalf("%d arrivals", len(l))
		}
		if r.body(l[0].ID) != large || l[0].Size != int64(len(large)) {
			t.Error("the large one came back otherwise")
		}
		if l[1].Unparsed == "" || l[1].Body || l[1].State != mailgrant.ArrivalNew {
			t.Errorf("the one over the limit: %+v", l[1])
		}
		_, err := r.in.Body(t.Context(), r.box.Org, l[1].ID)
		if !errors.Is(err, mailgrant.NotFound) {
			t.Errorf("its body: %v", err)
		}
	})
}

func TestHeadersOnly(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		r.far.deliver(message("one"), message("two")+strings.Repeat("0123456789abcdef\r\n", 80_000))
		synctest.Wait()
		for _, a := range r.arrivals() {
			if a.Body || a.Subject == "" {
				t.Errorf("%s: body %v", a.Subject, a.Body)
			}
			if _, err := r.store.Chunk(t.Context(), r.box.Org, a.ID, 1); !errors.Is(err, mailgrant.NotFound) {
				t.Errorf("%s: a chunk was kept: %v", a.Subject, err)
			}
		}
	}, func(r *rig) { r.box.Receive.Keep = new(mailgrant.Duration) })
}

// What came before reading began is left alone, unless it is asked for.
func TestCutOff(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		synctest.Wait()
		r.far.deliverAt(time.Now().Add(-time.Hour), message("old")) // moved in just now
		r.far.deliver(message("newer"))
		synctest.Wait()
		if got := r.subjects(); got != "newer" {
			t.Errorf("arrivals: %s", got)
		}
	}, func(r *rig) { r.box.Receive.Everything = false })
}

// IM-07: the server names all messages anew.
func TestIM07NamesMadeAnew(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		r.far.deliver(message("one"), message("two"))
		synctest.Wait()
		r.far.mu.Lock()
		for _, m := range r.far.mail {
			m.n += 100
			m.remotes["imap"] = fmt.Sprintf("other-%d", m.n)
		}
		r.far.next += 100
		r.far.mu.Unlock()
		r.far.deliver(message("three"))
		synctest.Wait()
		if got := r.subjects(); got != "one two three" {
			t.Errorf("arrivals: %s", got)
		}
		if n := len(r.events("arrival.new")); n != 3 {
			t.Errorf("%d events", n)
		}
	})
}

// A message that imitates another's Message-ID is another message. ME-06.
func TestME06CopiedMessageID(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		r.far.deliver(message("one"), strings.Replace(message("one"), "Hello", "Pay at once", 1))
		synctest.Wait()
		if got := r.subjects(); got != "one one" {
			t.Errorf("arrivals: %s", got)
		}
	})
}

// A check's own message is kept, and applications do not hear of it.
func TestOwnMessageIsIgnored(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		r.far.deliver(message("mark"), message("one"))
		synctest.Wait()
		if got := r.subjects(); got != "mark one" && got != "one mark" {
			t.Errorf("arrivals: %s", got)
		}
		for _, a := range r.arrivals() {
			if want := map[string]mailgrant.ArrivalState{"mark": mailgrant.ArrivalIgnored, "one": mailgrant.ArrivalNew}[a.Subject]; a.State != want {
				t.Errorf("%s is %s", a.Subject, a.State)
			}
		}
		if l := r.events("arrival.new", "arrival.ignored"); len(l) != 1 || !strings.Contains(string(l[0].Data), "one") {
			t.Errorf("events: %+v", l)
		}
	}, func(r *rig) {
		r.config = func(c *inbox.Config) {
			c.Own = func(a mailgrant.Arrival) bool { return a.Mailbox == r.box.ID && a.Subject == "mark" }
		}
	})
}

// A message that never comes whole does not stop the others.
func TestBadMessageDoesNotStopTheMailbox(t *testing.T) {
	for name, fault := range map[string]error{
		"refused": mailgrant.Errorf(mailgrant.Unavailable, nil, "NO FETCH failed"),
		"midway":  errMidway,
	} {
		t.Run(name, func(t *testing.T) {
			inTime(t, func(t *testing.T, r *rig) {
				r.far.with(func() {
					r.far.fetch = func(m *mail) error {
						if m.n == 2 {
							return fault
						}
						return nil
					}
				})
				r.far.deliver(message("one"), message("two"), message("three"))
				time.Sleep(10 * time.Minute)
				synctest.Wait()
				l := r.arrivals()
				if len(l) != 3 || l[1].State != mailgrant.ArrivalQuarantined || l[1].Finding == nil || l[2].Subject != "three" {
					t.Fatalf("arrivals: %+v", l)
				}
				if n := len(r.events("arrival.quarantined")); n != 1 {
					t.Errorf("%d events", n)
				}
				r.far.with(func() { r.far.fetch = nil })
				must(t, r.in.ReadAgain(t.Context(), r.box.Org, l[1].ID))
				synctest.Wait()
				if got := r.subjects(); got != "one three two" {
					t.Errorf("read again: %s", got)
				}
			})
		})
	}
}

func TestAfterReading(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		r.far.deliver(message("one"), message("two"))
		synctest.Wait()
		if got, want := r.far.deeds(), []string{"move imap-1Done", "move imap-2Done"}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		r.far.mu.Lock()
		r.far.doing = func([]string) error {
			return mailgrant.Errorf(mailgrant.Misset, nil, "no such folder").Fix("make it")
		}
		r.far.mu.Unlock()
		r.far.deliver(message("three"))
		synctest.Wait()
		r.far.deliver(message("four"))
		synctest.Wait()
		if got := r.subjects(); got != "one two three four" { // reading goes on
			t.Errorf("arrivals: %s", got)
		}
		if n := len(r.events("reader.after_failed")); n != 1 {
			t.Errorf("told %d times", n)
		}
		if st := r.in.Status(r.box); st.Finding == nil || st.State != mailgrant.ReaderWaiting {
			t.Errorf("status %+v", st)
		}
		r.far.with(func() { r.far.doing = nil })
		time.Sleep(6 * time.Minute)
		r.far.deliver(message("five"))
		synctest.Wait()
		if got := r.far.deeds(); len(got) != 5 {
			t.Errorf("done in the end: %q", got)
		}
	}, func(r *rig) { r.box.Receive.After, r.box.Receive.MoveTo = mailgrant.AfterMove, "Done" })
}

func TestHeldUntilMended(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		synctest.Wait()
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if n, _ := r.far.counts(); n < 8 || n > 20 {
			t.Errorf("%d logins in two hours", n)
		}
		if l := r.events("reader.held"); len(l) != 1 || !strings.Contains(string(l[0].Data), "imap-pop-disabled-mailbox") {
			t.Errorf("events %+v", l)
		}
		if st := r.in.Status(r.box); st.State != mailgrant.ReaderHeld || st.Finding.Cause != "imap-pop-disabled-mailbox" || st.RetryAt == nil {
			t.Errorf("status %+v", st)
		}
		r.far.with(func() { r.far.refuse = nil })
		r.far.deliver(message("one"))
		r.in.Look(r.box.Org, r.box.ID)
		synctest.Wait()
		if got := r.subjects(); got != "one" {
			t.Errorf("arrivals: %q", got)
		}
		if l := r.events("reader.resumed"); len(l) != 1 {
			t.Errorf("%d resumed", len(l))
		}
	}, func(r *rig) {
		r.far.refuse = func(string) error {
			return mailgrant.Errorf(mailgrant.Misset, nil, "IMAP is off").With(mailgrant.Finding{Cause: "imap-pop-disabled-mailbox", Retry: mailgrant.RetryFix, Who: mailgrant.WhoTenantAdmin, Remedy: "switch it on"})
		}
	})
}

// What was told of a mailbox is not told once more because mailgrant was started
// again, and what has changed meanwhile is.
func TestHeldIsToldOnce(t *testing.T) {
	off := func(cause string) func(string) error {
		return func(string) error {
			return mailgrant.Errorf(mailgrant.Misset, nil, "IMAP is off").With(mailgrant.Finding{Cause: cause, Retry: mailgrant.RetryFix, Who: mailgrant.WhoTenantAdmin, Remedy: "switch it on"})
		}
	}
	inTime(t, func(t *testing.T, r *rig) {
		told := func(want ...string) {
			t.Helper()
			for range 2 { // the second time after a start with nothing new
				time.Sleep(time.Hour)
				synctest.Wait()
				var got []string
				for _, e := range r.events("reader.*") {
					var d struct{ Finding struct{ Cause string } }
					if len(e.Data) > 0 {
						must(t, json.Unmarshal(e.Data, &d))
					}
					got = append(got, strings.TrimSpace(strings.TrimPrefix(e.Kind, "reader.")+" "+d.Finding.Cause))
				}
				if !slices.Equal(got, want) {
					t.Errorf("told %q, want %q", got, want)
				}
				r.restart()
			}
		}
		told("held imap-pop-disabled-mailbox")
		r.far.with(func() { r.far.refuse = off("mailbox-missing") })
		told("held imap-pop-disabled-mailbox", "held mailbox-missing")
		r.end()
		r.far.with(func() { r.far.refuse = nil })
		r.start()
		told("held imap-pop-disabled-mailbox", "held mailbox-missing", "resumed")
	}, func(r *rig) { r.far.refuse = off("imap-pop-disabled-mailbox") })
}

func TestThrottledWaitsAsAsked(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		time.Sleep(9 * time.Minute)
		synctest.Wait()
		if n, _ := r.far.counts(); n != 1 {
			t.Errorf("%d logins within the time that was asked for", n)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if n, _ := r.far.counts(); n != 2 {
			t.Errorf("%d logins after it", n)
		}
	}, func(r *rig) {
		r.far.refuse = func(string) error {
			return mailgrant.Errorf(mailgrant.Limited, nil, "throttled").With(mailgrant.Finding{Cause: "throttled-mailbox", Retry: mailgrant.RetryLater, RetryAfter: 10 * time.Minute})
		}
	})
}

// A mailbox that is read another way is not taken anew.
func TestReadAnotherWay(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		r.far.deliver(message("one"), message("two"))
		synctest.Wait()
		time.Sleep(time.Hour)
		m := r.box
		m.Receive = &mailgrant.Receive{Protocol: "graph", Everything: true}
		r.far.mu.Lock()
		r.far.mail[0].text = "X-Folded-Otherwise: yes\r\n" + r.far.mail[0].text // as Exchange writes it anew
		r.far.mu.Unlock()
		must(t, r.store.UpdateMailbox(t.Context(), m))
		r.in.Look(m.Org, m.ID)
		synctest.Wait()
		time.Sleep(5 * time.Minute) // what comes from now on is compared closely again
		r.far.deliver(message("three"), strings.Replace(message("one"), "Hello", "Forged", 1))
		synctest.Wait()
		if got := r.subjects(); got != "one two three one" {
			t.Errorf("arrivals: %s", got)
		}
		p, err := r.store.Position(t.Context(), r.box.Org, r.box.ID)
		must(t, err)
		if p.Protocol != "graph" || p.Cursor != "4" {
			t.Errorf("position %+v", p)
		}
	})
}

// A mailbox that is wanted again while its watcher ends is read again.
func TestWantedAgain(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		synctest.Wait()
		off := r.box
		off.Receive = nil
		for range 20 {
			must(t, r.store.UpdateMailbox(t.Context(), off))
			r.in.Look(off.Org, off.ID)
			must(t, r.store.UpdateMailbox(t.Context(), r.box))
			r.in.Look(off.Org, off.ID)
			synctest.Wait()
			if st := r.in.Status(r.box); st.State != mailgrant.ReaderWaiting {
				t.Fatalf("status %+v", st)
			}
		}
	})
}

func TestSwitchedOffIsNotRead(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		synctest.Wait()
		m := r.box
		m.Receive = nil
		must(t, r.store.UpdateMailbox(t.Context(), m))
		r.in.Look(m.Org, m.ID)
		synctest.Wait()
		r.far.deliver(message("one"))
		time.Sleep(time.Hour)
		synctest.Wait()
		opens, closes := r.far.counts()
		if got := r.subjects(); got != "" || opens != closes {
			t.Errorf("arrivals %q; opened %d, closed %d", got, opens, closes)
		}
		if st := r.in.Status(m); st.State != mailgrant.ReaderOff {
			t.Errorf("status %+v", st)
		}
	})
}

// What a bounce claims counts only where our record agrees. ME-06.
func TestME06BounceIsTiedToItsSubmission(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		now := time.Now().UTC()
		sub := mailgrant.Submission{ID: mailgrant.NewID(mailgrant.PrefixSubmission), Org: r.box.Org, Door: "rest", Class: mailgrant.ClassUser, App: "app_1",
			Route: mailgrant.Route{Mailbox: r.box.ID}, EnvelopeFrom: r.box.Address, Recipients: []string{"gone@example.net"}, MessageID: "<ours@contoso.example>",
			State: mailgrant.SubmissionReady, AcceptedAt: now, DueAt: now.Add(time.Hour), ExpiresAt: now.Add(time.Hour)}
		_, err := r.store.AcceptSubmission(t.Context(), store.Acceptance{Submission: sub, Body: []byte("x")})
		must(t, err)
		r.far.deliver(dsn(sub.ID, "<ours@contoso.example>"), dsn(sub.ID, "<forged@contoso.example>"))
		synctest.Wait()
		l := r.arrivals()
		if len(l) != 2 || l[0].Bounce == nil || l[0].Bounce.Submission != sub.ID || l[1].Bounce == nil || l[1].Bounce.Submission != "" {
			t.Fatalf("%+v", l)
		}
		if e := r.events("submission.bounced"); len(e) != 1 || e[0].Subject != sub.ID || e[0].App != "app_1" || !strings.Contains(string(e[0].Data), "5.1.1") {
			t.Errorf("events %+v", e)
		}
	})
}

func dsn(id mailgrant.ID, messageID string) string {
	return strings.ReplaceAll(`From: postmaster@example.net
To: cases@contoso.example
Subject: Undeliverable
Message-ID: <dsn`+messageID[1:]+`
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary=b

--b
Content-Type: text/plain

It did not arrive.
--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.net

Final-Recipient: rfc822; gone@example.net
Action: failed
Status: 5.1.1
Diagnostic-Code: smtp; 550 5.1.1 no such user

--b
Content-Type: text/rfc822-headers

Received: by gate.contoso.example (mailgrant) with REST id `+string(id)+`; Tue, 24 Nov 2026 10:00:00 +0000
From: cases@contoso.example
To: gone@example.net
Message-ID: `+messageID+`

--b--
`, "\n", "\r\n")
}

// A mailbox moves from POP to IMAP and to Graph without one message being taken
// twice, and back. R26, R27.
func TestR26MoveFromPOP(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		const n = 500
		for i := range n {
			r.far.deliver(message(fmt.Sprint("m", i)))
		}
		synctest.Wait()
		box := func() mailgrant.Mailbox {
			m, err := r.store.Mailbox(t.Context(), r.box.Org, r.box.ID)
			must(t, err)
			return m
		}
		time.Sleep(time.Hour)
		r.far.with(func() { // as Exchange writes it anew
			for _, m := range r.far.mail {
				m.text = "X-Exchange: " + m.remotes["imap"] + "\r\n" + m.text
			}
		})
		dry, err := r.in.Move(t.Context(), box(), "imap", true)
		must(t, err)
		if want := (mailgrant.Move{Mailbox: r.box.ID, Address: r.box.Address, From: "pop", To: "imap", DryRun: true, Taken: n, There: n, Same: n}); dry != want {
			t.Errorf("dry run: %+v", dry)
		}
		if m := box(); m.Receive.Protocol != "pop" {
			t.Errorf("a dry run changed the mailbox: %+v", m.Receive)
		}
		for _, to := range []string{"imap", "graph"} {
			got, err := r.in.Move(t.Context(), box(), to, false)
			must(t, err)
			if !got.Moved || !got.Verified || got.BackUntil == nil || got.Same != got.There {
				t.Errorf("to %s: %+v", to, got)
			}
			r.far.deliver(message("by " + to))
			synctest.Wait()
			time.Sleep(time.Hour)
		}
		back, err := r.in.Back(t.Context(), box())
		must(t, err)
		if !back.Moved || back.To != "imap" {
			t.Errorf("back: %+v", back)
		}
		r.far.deliver(message("after"))
		synctest.Wait()
		if got := len(r.arrivals()); got != n+3 {
			t.Errorf("%d arrivals, want %d", got, n+3)
		}
		if got := r.in.Status(box()).Protocol; got != "imap" {
			t.Errorf("it is read by %s", got)
		}
		if _, err = r.in.Back(t.Context(), box()); !errors.Is(err, mailgrant.Conflict) {
			t.Errorf("back twice: %v", err)
		}
		got, err := r.in.Move(t.Context(), box(), "graph", false)
		must(t, err)
		time.Sleep(8 * 24 * time.Hour)
		if _, err = r.in.Back(t.Context(), box()); !errors.Is(err, mailgrant.Conflict) || !got.Moved {
			t.Errorf("back after eight days: %v", err)
		}
		r.far.with(func() { r.far.can = nil })
		if _, err = r.in.Move(t.Context(), box(), "imap", true); !errors.Is(err, mailgrant.Misset) || !strings.Contains(mailgrant.AsError(err).Remedy, "grant begin") {
			t.Errorf("without a consent for it: %v", err)
		}
	}, func(r *rig) { r.box.Receive.Protocol = "pop" })
}
