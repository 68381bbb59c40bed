package outbox_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/outbox"
	"github.com/mailgrant/mailgrant/internal/provider"
)

func TestMailboxThatCannotIsHeldAndResumesByItself(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		r.far.answer = func(int, handed) provider.Outcome { return held() }
		var ids []mailgrant.ID
		for i := range 10 {
			ids = append(ids, r.send(fmt.Sprintf("m%d", i)).ID)
		}
		synctest.Wait()
		m := r.box(r.global.ID)
		if m.State != mailgrant.MailboxHeld || m.Hold == nil || m.Hold.Finding.Cause != "smtp-auth-disabled-mailbox" {
			t.Fatalf("mailbox: %+v", m)
		}
		tries := len(r.far.list())
		if tries > 3 {
			t.Errorf("%d tries before it was held", tries)
		}
		for _, id := range ids {
			if sub := r.wants(id, mailgrant.SubmissionReady); !sub.Held || sub.Attempts != 0 {
				t.Errorf("held: %v, attempts counted: %d", sub.Held, sub.Attempts)
			}
		}
		time.Sleep(12 * time.Hour) // longer than the life of a submission
		synctest.Wait()
		probes := len(r.far.list()) - tries
		if probes < 12*4-2 || probes > 12*4+10 {
			t.Errorf("%d probes in 12 hours, want one every quarter of an hour", probes)
		}
		r.far.set(func(f *far) { f.answer = nil })
		time.Sleep(16 * time.Minute)
		synctest.Wait()
		for _, id := range ids {
			r.wants(id, mailgrant.SubmissionDelivered)
		}
		names := strings.Fields(r.far.names())
		if got := strings.Join(names[len(names)-10:], " "); got != "m0 m1 m2 m3 m4 m5 m6 m7 m8 m9" {
			t.Errorf("order after the hold: %s", got)
		}
		if m := r.box(r.global.ID); m.State != mailgrant.MailboxActive || m.Hold != nil {
			t.Errorf("mailbox after: %+v", m)
		}
		if l := r.events("mailbox.held", "mailbox.resumed"); len(l) != 2 {
			t.Errorf("%d events, want one of each", len(l))
		}
		a := r.attempts(ids[0])
		if len(a) < 3 || a[len(a)-1].Fate != mailgrant.FateDelivered {
			t.Errorf("the delivery is not on record after %d attempts", len(a))
		}
	}, func(r *rig) {
		r.far.limits = mailgrant.Limits{Connections: 1}
		r.config = func(c *outbox.Config) { c.Life = 10 * time.Hour }
	})
}

func TestHeldMailboxIsTriedAtOnceAfterARepair(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		r.far.wayErr = mailgrant.Errorf(mailgrant.Lapsed, nil, "the consent no longer works").Fix("consent again")
		sub := r.send("one")
		synctest.Wait()
		if m := r.box(r.global.ID); m.State != mailgrant.MailboxHeld || m.Hold.Finding.Retry != mailgrant.RetryReauthorize {
			t.Fatalf("mailbox: %+v", m)
		}
		r.far.set(func(f *far) { f.wayErr = nil })
		r.out.Wake(r.org, r.global.ID)
		synctest.Wait()
		r.wants(sub.ID, mailgrant.SubmissionDelivered)
	})
}

// New mail of a held mailbox is no reason to try: the other side would see one
// failed login for each.
func TestHeldMailboxIsNotTriedForEachMessage(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		r.far.answer = func(int, handed) provider.Outcome { return held() }
		r.send("first")
		synctest.Wait()
		for i := range 20 {
			r.send(fmt.Sprint(i))
			r.out.Look(r.org, r.global.ID)
		}
		e := to("a@example.net")
		e.SendAt = time.Now().Add(time.Second)
		_, err := r.accept(r.caller("rest"), e, message("office@contoso.example", "dated"))
		must(t, err)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if n := len(r.far.list()); n != 1 {
			t.Errorf("%d tries within half a minute", n)
		}
	})
}

func TestRE18RestoredMailboxWaitsForAPerson(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		must(t, r.store.HoldMailbox(t.Context(), r.org, r.global.ID, mailgrant.Hold{Finding: *finding("restored", mailgrant.RetryFix),
			Since: time.Now(), ProbeAt: time.Now().AddDate(20, 0, 0)}))
		sub := r.send("one")
		r.out.Wake(r.org, r.global.ID) // a consent, a setting
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		r.wants(sub.ID, mailgrant.SubmissionReady)
		must(t, r.store.ResumeMailbox(t.Context(), r.org, r.global.ID))
		r.out.Wake(r.org, r.global.ID)
		synctest.Wait()
		r.wants(sub.ID, mailgrant.SubmissionDelivered)
	})
}

func TestSwitchedOffMailboxSendsNothing(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		r.far.takes = time.Second
		for i := range 6 {
			r.send(fmt.Sprint(i))
		}
		synctest.Wait()
		off := r.global
		off.State = mailgrant.MailboxDisabled
		r.set(off)
		synctest.Wait()
		time.Sleep(10 * time.Second)
		before := len(r.far.list()) // what was under way
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := len(r.far.list()); n != before || n == 6 {
			t.Fatalf("%d messages left, %d of them before", n, before)
		}
		off.State = mailgrant.MailboxActive
		r.set(off)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := len(r.far.list()); n != 6 {
			t.Errorf("%d messages after it was switched on", n)
		}
	}, func(r *rig) { r.far.limits = mailgrant.Limits{Connections: 1} })
}
