package outbox_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/cluster"
	"github.com/mailgrant/mailgrant/internal/outbox"
	"github.com/mailgrant/mailgrant/internal/provider"
)

func TestAcceptedIsDeliveredAsItCame(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		sub := r.send("one")
		if sub.State != mailgrant.SubmissionReady || sub.Route.Mailbox != r.global.ID {
			t.Fatalf("accepted: %+v", sub)
		}
		synctest.Wait()
		r.wants(sub.ID, mailgrant.SubmissionDelivered)
		got := r.far.list()
		if len(got) != 1 || !strings.HasSuffix(got[0].body, message("office@contoso.example", "one")[len("From: "):]) {
			t.Fatalf("handed over: %+v", got)
		}
		a := r.attempts(sub.ID)
		if len(a) != 1 || a[0].N != 1 || a[0].Fate != mailgrant.FateDelivered || a[0].Transport != "smtp" || a[0].Why == "" || a[0].RemoteID != "1" {
			t.Errorf("attempts: %+v", a)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if m := r.box(r.global.ID); m.LastSuccess == nil {
			t.Error("the mailbox does not know of its success")
		}
		if l := r.events("submission.accepted", "submission.delivered"); len(l) != 2 {
			t.Errorf("events: %+v", l)
		}
	})
}

// Order holds where one connection at a time carries the lane, whatever way the
// messages came into it: at once, from the queue, from the store.
func TestLaneKeepsOrder(t *testing.T) {
	const n = 200
	inTime(t, func(t *testing.T, r *rig) {
		r.far.takes = 10 * time.Millisecond
		var want []string
		for i := range n {
			want = append(want, fmt.Sprintf("m%03d", i))
			r.send(want[i])
			if i%50 == 20 {
				time.Sleep(time.Second) // the queue runs empty
			}
			if i == 120 {
				r.again() // the rest is read from the store
			}
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := r.far.names(); got != strings.Join(want, " ") {
			t.Errorf("order: %s", got)
		}
	}, func(r *rig) { r.far.limits = mailgrant.Limits{Connections: 1} })
}

func TestRE12ConnectionsAtOnce(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		r.far.takes = time.Second
		for i := range 40 {
			r.send(fmt.Sprint(i))
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if got := r.far.list(); len(got) != 40 || r.far.most != 3 || r.far.opened != 3 {
			t.Errorf("%d handed over, %d at once over %d connections, want 40, 3, 3", len(got), r.far.most, r.far.opened)
		}
	}, func(r *rig) { r.far.limits = mailgrant.Limits{Connections: 3} })
}

func TestRE12NeverMoreThanThirtyInAnyMinute(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		for i := range 100 {
			r.send(fmt.Sprint(i))
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		got := r.far.list()
		if len(got) != 100 {
			t.Fatalf("%d handed over", len(got))
		}
		for i := 30; i < len(got); i++ {
			if d := got[i].at.Sub(got[i-30].at); d < time.Minute {
				t.Fatalf("31 messages within %v", d)
			}
		}
		if d := got[99].at.Sub(got[0].at); d > 4*time.Minute {
			t.Errorf("100 messages took %v: the limit is not used", d)
		}
		if n := strings.Count(r.log.String(), "level=WARN"); n > 0 {
			t.Errorf("%d warnings:\n%s", n, r.log)
		}
	}, func(r *rig) { r.far.limits = mailgrant.Limits{Connections: 3, PerMinute: 30} })
}

// What waits for the pace is not said to be begun: after a crash it would be
// taken for sent.
func TestOnlyWhatCanGoIsBegun(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		var ids []mailgrant.ID
		for i := range 20 {
			ids = append(ids, r.send(fmt.Sprint(i)).ID)
		}
		synctest.Wait()
		ready := 0
		for _, id := range ids {
			if r.sub(id).State == mailgrant.SubmissionReady {
				ready++
			}
		}
		if ready != 15 {
			t.Errorf("%d are ready, want 15", ready)
		}
	}, func(r *rig) { r.far.limits = mailgrant.Limits{PerMinute: 5} })
}

func TestRecipientsOfADay(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		for i := range 5 {
			_, err := r.accept(r.caller("smtp"), to("a@example.net", "b@example.net", "c@example.net", "d@example.net"), message("office@contoso.example", fmt.Sprint(i)))
			must(t, err)
		}
		time.Sleep(90 * time.Minute)
		synctest.Wait()
		if got := r.far.list(); len(got) != 2 {
			t.Fatalf("%d messages of 4 recipients under a limit of 10", len(got))
		}
		if l := r.events("mailbox.throttled"); len(l) == 0 {
			t.Error("nobody is told")
		}
		r.again() // the count is not forgotten
		time.Sleep(90 * time.Minute)
		synctest.Wait()
		if got := r.far.list(); len(got) != 2 {
			t.Fatalf("%d messages after a restart", len(got))
		}
		time.Sleep(48 * time.Hour)
		synctest.Wait()
		if got := r.far.list(); len(got) != 5 {
			t.Errorf("%d messages in the end", len(got))
		}
	}, func(r *rig) { r.far.limits = mailgrant.Limits{RecipientsPerDay: 10} })
}

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

func TestRE11TriesLaterThenGivesUp(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		r.far.answer = func(_ int, h handed) provider.Outcome {
			if strings.Contains(h.id, "greylisted") {
				return put("recipient-rejected", 0)
			}
			return provider.Outcome{}
		}
		sub := r.send("greylisted")
		other := r.send("other")
		synctest.Wait()
		r.wants(other.ID, mailgrant.SubmissionDelivered) // it is not kept waiting
		first := r.wants(sub.ID, mailgrant.SubmissionReady)
		if first.Attempts != 1 || first.Finding == nil {
			t.Errorf("after the first try: %+v", first)
		}
		time.Sleep(14 * time.Hour)
		synctest.Wait()
		last := r.wants(sub.ID, mailgrant.SubmissionFailed)
		if last.FinalAt.After(sub.AcceptedAt.Add(12*time.Hour)) || last.FinalAt.Before(sub.AcceptedAt.Add(10*time.Hour)) {
			t.Errorf("given up after %v", last.FinalAt.Sub(sub.AcceptedAt))
		}
		var tries []handed
		var bounces []handed
		for _, h := range r.far.list() {
			if strings.Contains(h.id, "greylisted") {
				tries = append(tries, h)
			}
			if strings.Contains(h.body, "multipart/report") {
				bounces = append(bounces, h)
			}
		}
		if d := tries[1].at.Sub(tries[0].at); d < 24*time.Second || d > 36*time.Second {
			t.Errorf("the second try came after %v", d)
		}
		for i := 10; i < len(tries); i++ {
			if d := tries[i].at.Sub(tries[i-1].at); d < 48*time.Minute || d > 72*time.Minute {
				t.Fatalf("try %d came after %v", i+1, d)
			}
		}
		if len(bounces) != 1 || bounces[0].to[0] != "office@contoso.example" {
			t.Errorf("bounces: %+v", bounces)
		}
	}, func(r *rig) { r.config = func(c *outbox.Config) { c.Life = 12 * time.Hour } })
}

func TestRE12RetryAfterIsKept(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		r.far.answer = func(n int, _ handed) provider.Outcome {
			switch n {
			case 1:
				return put("throttled", 90*time.Second)
			case 2:
				return put("throttled", 5*time.Hour) // an hour is the most that is believed
			}
			return provider.Outcome{}
		}
		for i := range 5 {
			r.send(fmt.Sprint(i))
		}
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		got := r.far.list()
		if names := r.far.names(); names != "0 0 0 1 2 3 4" {
			t.Fatalf("handed over: %s", names)
		}
		if a, b := got[1].at.Sub(got[0].at), got[2].at.Sub(got[1].at); a < 90*time.Second || a > 92*time.Second || b < time.Hour || b > time.Hour+2*time.Second {
			t.Errorf("waited %v and %v", a, b)
		}
		if l := r.events("mailbox.throttled"); len(l) != 2 {
			t.Errorf("%d events of throttling", len(l))
		}
	}, func(r *rig) { r.far.limits = mailgrant.Limits{Connections: 1} })
}

// A way that is down keeps the order and costs one try at each step of the
// backoff, not one for each message. RE-13.
func TestRE13WayThatIsDownKeepsOrder(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		tries := 0
		r.far.open = func(int) error {
			tries++
			return mailgrant.Errorf(mailgrant.Unavailable, nil, "the token endpoint does not answer").Fix("wait")
		}
		var want []string
		for i := range 300 {
			want = append(want, fmt.Sprintf("m%03d", i))
			r.send(want[i])
		}
		time.Sleep(15 * time.Minute)
		synctest.Wait()
		if tries > 15 {
			t.Errorf("%d tries in a quarter of an hour", tries)
		}
		r.far.set(func(f *far) { f.open = nil })
		time.Sleep(6 * time.Minute)
		synctest.Wait()
		if got := r.far.names(); got != strings.Join(want, " ") {
			t.Errorf("order: %s", got)
		}
	}, func(r *rig) { r.far.limits = mailgrant.Limits{Connections: 1} })
}

// One message at which the way seems to fail does not stop the others for ever.
func TestMessageThatLooksLikeAFaultOfTheWay(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		r.far.answer = func(_ int, h handed) provider.Outcome {
			if strings.Contains(h.id, "bad") {
				return put("unknown", 0)
			}
			return provider.Outcome{}
		}
		r.send("bad")
		good := r.send("good")
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		r.wants(good.ID, mailgrant.SubmissionDelivered)
	}, func(r *rig) { r.far.limits = mailgrant.Limits{Connections: 1} })
}

// Messages behind one that fails are given up when their life is over, though
// their own turn never came.
func TestLifeEndsForThoseBehindToo(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		r.far.open = func(int) error {
			return mailgrant.Errorf(mailgrant.Unavailable, nil, "the server does not answer").Fix("wait")
		}
		var ids []mailgrant.ID
		for i := range 300 {
			ids = append(ids, r.send(fmt.Sprint(i)).ID)
		}
		time.Sleep(4 * time.Hour)
		synctest.Wait()
		for _, id := range ids {
			r.wants(id, mailgrant.SubmissionFailed)
		}
	}, func(r *rig) { r.config = func(c *outbox.Config) { c.Life = 3 * time.Hour } })
}

func TestSM17RefusedMessageBouncesAtTheSMTPDoorOnly(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		r.far.answer = func(_ int, h handed) provider.Outcome {
			if strings.Contains(h.id, "refused") {
				return refused("550 5.1.1 no such user")
			}
			return provider.Outcome{}
		}
		smtp := r.send("refused")
		rest, err := r.accept(r.caller("rest"), to("a@example.net"), message("office@contoso.example", "refused rest"))
		must(t, err)
		null := to("a@example.net")
		null.From = ""
		_, err = r.accept(r.caller("smtp"), null, message("office@contoso.example", "refused null"))
		must(t, err)
		auto := "Auto-Submitted: auto-replied\r\n" + message("office@contoso.example", "refused auto")
		_, err = r.accept(r.caller("smtp"), to("a@example.net"), auto)
		must(t, err)
		synctest.Wait()
		for _, id := range []mailgrant.ID{smtp.ID, rest.ID} {
			if sub := r.wants(id, mailgrant.SubmissionFailed); sub.Finding == nil || sub.Finding.Cause != "recipient-rejected" {
				t.Errorf("finding: %+v", sub.Finding)
			}
		}
		if l := r.events("submission.failed"); len(l) != 4 {
			t.Errorf("%d events", len(l))
		}
		var bounces []handed
		for _, h := range r.far.list() {
			if strings.Contains(h.body, "report-type=delivery-status") {
				bounces = append(bounces, h)
			}
		}
		if len(bounces) != 1 {
			t.Fatalf("%d bounces, want that of the SMTP door\n%s", len(bounces), r.log)
		}
		b := bounces[0]
		if b.to[0] != "office@contoso.example" || !strings.Contains(b.body, "550 5.1.1 no such user") || !strings.Contains(b.body, "Subject: refused") ||
			!strings.Contains(b.body, "Final-Recipient: rfc822;a@example.net") && !strings.Contains(b.body, "Final-Recipient: rfc822; a@example.net") {
			t.Errorf("bounce to %v:\n%s", b.to, b.body)
		}
		if m := r.box(r.global.ID); m.State != mailgrant.MailboxActive {
			t.Errorf("the mailbox is %s for a message's fault", m.State)
		}
	})
}

func TestRecipientsWithFatesOfTheirOwn(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		r.far.answer = func(n int, h handed) provider.Outcome {
			switch {
			case n == 1:
				return provider.Outcome{Fate: mailgrant.FateDelivered, Recipients: []mailgrant.RecipientResult{
					{Address: "good@example.net", Fate: mailgrant.FateDelivered},
					{Address: "late@example.net", Fate: mailgrant.FateLater, Reply: "450 4.2.1"},
					{Address: "gone@example.net", Fate: mailgrant.FateRefused, Reply: "550 5.1.1 gone", Finding: finding("recipient-rejected", mailgrant.RetryNever)}}}
			case len(h.to) == 1 && h.to[0] == "late@example.net":
				return refused("550 5.7.1 not any more")
			}
			return provider.Outcome{}
		}
		sub, err := r.accept(r.caller("smtp"), to("good@example.net", "late@example.net", "gone@example.net"), message("office@contoso.example", "three"))
		must(t, err)
		synctest.Wait()
		half := r.wants(sub.ID, mailgrant.SubmissionReady)
		if len(half.Pending) != 1 || half.Pending[0] != "late@example.net" {
			t.Fatalf("pending: %v", half.Pending)
		}
		if n, _ := r.store.HandedSince(t.Context(), r.global.ID, time.Now().Add(-time.Hour)); n != 1 {
			t.Errorf("%d recipients are counted, want 1", n)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		r.wants(sub.ID, mailgrant.SubmissionFailed)
		var told []string
		for _, h := range r.far.list() {
			if strings.Contains(h.body, "report-type=delivery-status") {
				for _, a := range []string{"good@example.net", "late@example.net", "gone@example.net"} {
					if strings.Contains(strings.ToLower(h.body), "final-recipient: rfc822; "+a) || strings.Contains(strings.ToLower(h.body), "final-recipient: rfc822;"+a) {
						told = append(told, a)
					}
				}
			}
		}
		if got := strings.Join(told, " "); got != "gone@example.net late@example.net" {
			t.Errorf("the sender was told of: %s", got)
		}
		tries := 0
		for _, h := range r.far.list() {
			if strings.Contains(h.id, "three") {
				tries++
				if tries == 2 && len(h.to) != 1 {
					t.Errorf("the second try went to %v", h.to)
				}
			}
		}
	}, func(r *rig) { r.far.limits = mailgrant.Limits{RecipientsPerDay: 1000} })
}

func TestRE14PoisonMessageDoesNotStopTheLane(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		r.far.answer = func(_ int, h handed) provider.Outcome {
			if strings.Contains(h.id, "poison") {
				panic("it breaks")
			}
			return provider.Outcome{}
		}
		bad := r.send("poison")
		good := r.send("good")
		synctest.Wait()
		r.wants(good.ID, mailgrant.SubmissionDelivered)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		sub := r.wants(bad.ID, mailgrant.SubmissionFailed)
		if sub.Attempts != 3 || sub.Finding == nil || sub.Finding.Remedy == "" {
			t.Errorf("after %d attempts: %+v", sub.Attempts, sub.Finding)
		}
	}, func(r *rig) { r.far.limits = mailgrant.Limits{Connections: 1} })
}

func TestRE14MessageThatHangsIsCutOff(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		r.far.takes = 24 * time.Hour
		bad := r.send("hangs")
		synctest.Wait()
		r.far.set(func(f *far) { f.takes = 0 })
		good := r.send("good")
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		r.wants(good.ID, mailgrant.SubmissionDelivered)
		if sub := r.wants(bad.ID, mailgrant.SubmissionDelivered); !sub.Duplicate {
			t.Error("it may have been sent twice, and does not say so")
		}
	}, func(r *rig) { r.far.limits = mailgrant.Limits{Connections: 1} })
}

func TestRE10UncertainIsLookedFor(t *testing.T) {
	for _, c := range []struct {
		name   string
		find   func(string) (bool, error)
		policy string

		handed    int
		state     mailgrant.SubmissionState
		duplicate bool
	}{
		{"found", func(string) (bool, error) { return true, nil }, "", 1, mailgrant.SubmissionDelivered, false},
		{"not found", func(string) (bool, error) { return false, nil }, "", 2, mailgrant.SubmissionDelivered, false},
		{"not found, though held", func(string) (bool, error) { return false, nil }, "hold", 2, mailgrant.SubmissionDelivered, false},
		{"nobody can look", nil, "", 2, mailgrant.SubmissionDelivered, true},
		{"nobody can look, held", nil, "hold", 1, mailgrant.SubmissionUncertain, false},
		{"the look fails", func(string) (bool, error) { return false, errors.New("403") }, "", 2, mailgrant.SubmissionDelivered, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			inTime(t, func(t *testing.T, r *rig) {
				r.far.find = c.find
				r.far.answer = func(n int, _ handed) provider.Outcome {
					if n == 1 {
						return uncertain()
					}
					return provider.Outcome{}
				}
				r.global.Uncertain = c.policy
				r.set(r.global)
				sub := r.send("one")
				synctest.Wait()
				r.wants(sub.ID, mailgrant.SubmissionUncertain)
				time.Sleep(time.Minute)
				synctest.Wait()
				got := r.wants(sub.ID, c.state)
				if n := len(r.far.list()); n != c.handed || got.Duplicate != c.duplicate {
					t.Errorf("handed over %d times, possible duplicate %v; want %d, %v", n, got.Duplicate, c.handed, c.duplicate)
				}
				if l := r.far.list(); len(l) == 2 && l[0].id != l[1].id {
					t.Error("another Message-ID")
				}
				if l := r.events("submission.uncertain"); len(l) != 1 {
					t.Errorf("%d events", len(l))
				}
				if c.state != mailgrant.SubmissionUncertain {
					return
				}
				r.again() // a restart changes nothing about it
				time.Sleep(time.Hour)
				synctest.Wait()
				r.wants(sub.ID, mailgrant.SubmissionUncertain)
				must(t, r.out.Retry(t.Context(), r.org, sub.ID))
				synctest.Wait()
				if got := r.wants(sub.ID, mailgrant.SubmissionDelivered); !got.Duplicate {
					t.Error("sent again without the flag")
				}
			})
		})
	}
}

func TestUncertainCanBeLeft(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		r.global.Uncertain = "hold"
		r.set(r.global)
		r.far.answer = func(int, handed) provider.Outcome { return uncertain() }
		sub := r.send("one")
		time.Sleep(time.Minute)
		synctest.Wait()
		must(t, r.out.Cancel(t.Context(), r.org, sub.ID))
		r.wants(sub.ID, mailgrant.SubmissionCancelled)
	})
}

func TestAP07IdempotencyKeyAcrossRestart(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		e := to("a@example.net")
		e.IdempotencyKey = "order-1"
		first, err := r.accept(r.caller("rest"), e, message("office@contoso.example", "one"))
		must(t, err)
		again, err := r.accept(r.caller("rest"), e, message("office@contoso.example", "one"))
		must(t, err)
		r.again()
		after, err := r.accept(r.caller("rest"), e, message("office@contoso.example", "one"))
		must(t, err)
		if again.ID != first.ID || after.ID != first.ID {
			t.Errorf("ids %s, %s, %s", first.ID, again.ID, after.ID)
		}
		_, err = r.accept(r.caller("rest"), e, message("office@contoso.example", "another"))
		is(t, err, mailgrant.Conflict)
		e.Recipients = []string{"b@example.net"}
		_, err = r.accept(r.caller("rest"), e, message("office@contoso.example", "one"))
		is(t, err, mailgrant.Conflict)
		synctest.Wait()
		if n := len(r.far.list()); n != 1 {
			t.Errorf("%d messages were sent", n)
		}
		r.stop()
		time.Sleep(8 * 24 * time.Hour)
		r.again()
		fresh, err := r.accept(r.caller("rest"), e, message("office@contoso.example", "one"))
		must(t, err)
		if fresh.ID == first.ID {
			t.Error("a key is remembered for ever")
		}
	})
}

func TestSendAt(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		begin := time.Now()
		e := to("a@example.net")
		e.SendAt = begin.Add(3 * time.Hour)
		later, err := r.accept(r.caller("rest"), e, message("office@contoso.example", "later"))
		must(t, err)
		e.SendAt = begin.Add(2 * time.Hour)
		sooner, err := r.accept(r.caller("rest"), e, message("office@contoso.example", "sooner"))
		must(t, err)
		e.SendAt = begin.Add(400 * 24 * time.Hour)
		_, err = r.accept(r.caller("rest"), e, message("office@contoso.example", "never"))
		is(t, err, mailgrant.Invalid)
		now := r.send("now")
		synctest.Wait()
		r.wants(now.ID, mailgrant.SubmissionDelivered)
		r.again()
		time.Sleep(time.Hour)
		for range 20 { // other mail in between does not make it forgotten
			r.send("between")
		}
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		for _, want := range []struct {
			sub mailgrant.Submission
			at  time.Duration
		}{{sooner, 2 * time.Hour}, {later, 3 * time.Hour}} {
			r.wants(want.sub.ID, mailgrant.SubmissionDelivered)
			if d := r.attempts(want.sub.ID)[0].StartedAt.Sub(begin); d < want.at || d > want.at+time.Second {
				t.Errorf("%s left after %v, want %v", want.sub.Subject, d, want.at)
			}
		}
	})
}

func TestCancelAndRetry(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		e := to("a@example.net")
		e.SendAt = time.Now().Add(time.Hour)
		sub, err := r.accept(r.caller("rest"), e, message("office@contoso.example", "one"))
		must(t, err)
		must(t, r.out.Cancel(t.Context(), r.org, sub.ID))
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		r.wants(sub.ID, mailgrant.SubmissionCancelled)
		is(t, r.out.Cancel(t.Context(), r.org, sub.ID), mailgrant.Conflict)
		must(t, r.out.Retry(t.Context(), r.org, sub.ID))
		synctest.Wait()
		r.wants(sub.ID, mailgrant.SubmissionDelivered)
		is(t, r.out.Retry(t.Context(), r.org, sub.ID), mailgrant.Conflict)
		r.far.set(func(f *far) {
			f.answer = func(int, handed) provider.Outcome { return put("recipient-rejected", 0) }
		})
		late := r.send("late")
		synctest.Wait()
		r.far.set(func(f *far) { f.answer = nil })
		must(t, r.out.Retry(t.Context(), r.org, late.ID)) // due now, not in half a minute
		synctest.Wait()
		r.wants(late.ID, mailgrant.SubmissionDelivered)
	})
}

// What waits in the lane's memory can still be cancelled.
func TestCancelWhatIsQueued(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		r.far.takes = time.Second
		r.send("first")
		var ids []mailgrant.ID
		for i := range 40 {
			ids = append(ids, r.send(fmt.Sprint(i)).ID)
		}
		synctest.Wait()
		must(t, r.out.Cancel(t.Context(), r.org, ids[39]))
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		r.wants(ids[39], mailgrant.SubmissionCancelled)
		if n := len(r.far.list()); n != 40 {
			t.Errorf("%d were sent, want 40", n)
		}
	}, func(r *rig) { r.far.limits = mailgrant.Limits{Connections: 1} })
}

func TestR164HeldMailboxIsToldByAnother(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		r.far.answer = func(_ int, h handed) provider.Outcome {
			if h.from == "office@contoso.example" {
				return held()
			}
			return provider.Outcome{}
		}
		r.send("one")
		time.Sleep(12 * time.Hour)
		synctest.Wait()
		var told []handed
		for _, h := range r.far.list() {
			if h.to[0] == "it@contoso.example" {
				told = append(told, h)
			}
		}
		if len(told) != 1 || told[0].from != "noreply@contoso.example" {
			t.Fatalf("notices: %+v\n%s", told, r.log)
		}
		for _, want := range []string{"office@contoso.example", "It is smtp-auth-disabled-mailbox.", "Mend it.", "tenant-admin", "Auto-Submitted: auto-generated"} {
			if !strings.Contains(told[0].body, want) {
				t.Errorf("the notice lacks %q:\n%s", want, told[0].body)
			}
		}
	}, func(r *rig) { r.config = func(c *outbox.Config) { c.NoticeTo = "it@contoso.example" } })
}

func TestR164NoticeOfTheSystemMailboxGoesByGlobal(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		r.far.answer = func(_ int, h handed) provider.Outcome {
			if h.from == "noreply@contoso.example" {
				return held()
			}
			return provider.Outcome{}
		}
		_, err := r.accept(r.caller("rest"), outbox.Envelope{From: "noreply@contoso.example", Recipients: []string{"a@example.net"}, Class: mailgrant.ClassSystem},
			message("noreply@contoso.example", "reset"))
		must(t, err)
		synctest.Wait()
		for _, h := range r.far.list() {
			if h.to[0] == "it@contoso.example" && h.from == "office@contoso.example" {
				return
			}
		}
		t.Errorf("nobody was told\n%s", r.log)
	}, func(r *rig) { r.config = func(c *outbox.Config) { c.NoticeTo = "it@contoso.example" } })
}

func TestRE19StopLetsWorkFinish(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		r.far.takes = 10 * time.Second
		var ids []mailgrant.ID
		for i := range 30 {
			ids = append(ids, r.send(fmt.Sprint(i)).ID)
		}
		synctest.Wait()
		begin := time.Now()
		r.stop()
		if d := time.Since(begin); d > 11*time.Second {
			t.Errorf("the stop took %v", d)
		}
		done := 0
		for _, id := range ids {
			switch sub := r.sub(id); sub.State {
			case mailgrant.SubmissionDelivered:
				done++
			case mailgrant.SubmissionReady:
			default:
				t.Errorf("after a clean stop one is %s", sub.State)
			}
		}
		if done != 3 {
			t.Errorf("%d were finished, want the 3 under way", done)
		}
		r.again()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		for _, id := range ids {
			if sub := r.wants(id, mailgrant.SubmissionDelivered); sub.Duplicate {
				t.Error("a clean stop makes no possible duplicates")
			}
		}
		if n := len(r.far.list()); n != 30 {
			t.Errorf("%d handed over", n)
		}
	}, func(r *rig) { r.far.limits = mailgrant.Limits{Connections: 3} })
}

func TestRE19LaneIsGivenAwayAfterItsRecords(t *testing.T) {
	var recording, on chan struct{}
	inTime(t, func(t *testing.T, r *rig) {
		sub := r.send("one")
		<-recording
		given := make(chan struct{})
		wait := r.out.Lost([]int64{cluster.Shard(r.global.ID)})
		go func() { wait(); close(given) }()
		synctest.Wait()
		select {
		case <-given:
			t.Error("the lane went while what it had sent was not on record: the next node would send it again")
		default:
		}
		close(on)
		<-given
		r.wants(sub.ID, mailgrant.SubmissionDelivered)
	}, func(r *rig) {
		recording, on = make(chan struct{}), make(chan struct{}) // of this bubble
		r.config = func(c *outbox.Config) {
			c.Steps = func(s string) {
				if s == "send.after-record" {
					close(recording)
					<-on
				}
			}
		}
	})
}

func TestRE19StopIsBounded(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		r.far.takes = 10 * time.Minute
		sub := r.send("slow")
		synctest.Wait()
		begin := time.Now()
		r.stop()
		if d := time.Since(begin); d > 30*time.Second {
			t.Errorf("the stop took %v", d)
		}
		r.wants(sub.ID, mailgrant.SubmissionUncertain)
		r.far.takes = 0
		r.again()
		time.Sleep(time.Minute)
		synctest.Wait()
		if sub := r.wants(sub.ID, mailgrant.SubmissionDelivered); !sub.Duplicate {
			t.Error("it may have been sent twice, and does not say so")
		}
	})
}

func TestAppsPace(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		c := r.caller("rest")
		c.App.PerMinute = 3
		for range 3 {
			_, err := r.accept(c, to("a@example.net"), message("office@contoso.example", "x"))
			must(t, err)
		}
		time.Sleep(20 * time.Second)
		_, err := r.accept(c, to("a@example.net"), message("office@contoso.example", "x"))
		is(t, err, mailgrant.Limited)
		wait := mailgrant.AsError(err).RetryAfter
		if wait > 40*time.Second || !strings.Contains(mailgrant.AsError(err).Remedy, "try again in "+wait.String()) {
			t.Errorf("told to wait for %v: %q", wait, mailgrant.AsError(err).Remedy)
		}
		if _, err := r.accept(r.caller("rest"), to("a@example.net"), message("office@contoso.example", "x")); err != nil {
			t.Errorf("an app without a limit: %v", err)
		}
		time.Sleep(wait - 2*time.Second)
		_, err = r.accept(c, to("a@example.net"), message("office@contoso.example", "x"))
		is(t, err, mailgrant.Limited)
		time.Sleep(2 * time.Second)
		_, err = r.accept(c, to("a@example.net"), message("office@contoso.example", "x"))
		must(t, err) // when it was told
	})
}

// A mailbox that is removed while a message for it comes in does not keep it for
// ever.
func TestMailOfARemovedMailboxFails(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		extra := r.mailbox("kim@contoso.example", mailgrant.RoleNone)
		e := to("a@example.net")
		e.From, e.Named = "kim@contoso.example", extra.ID
		_, err := r.accept(r.caller("rest"), outbox.Envelope{From: "kim@contoso.example", Recipients: []string{"a@example.net"}, Named: extra.ID}, message("kim@contoso.example", "warm"))
		must(t, err)
		synctest.Wait()
		must(t, r.store.DeleteMailbox(t.Context(), r.org, extra.ID)) // the router does not know yet
		sub, err := r.accept(r.caller("smtp"), e, message("kim@contoso.example", "late"))
		must(t, err)
		time.Sleep(time.Minute)
		synctest.Wait()
		if sub := r.sub(sub.ID); !sub.State.Final() {
			t.Errorf("it is %s", sub.State)
		}
	})
}

func TestAwkwardMessagesAreRefusedAtTheDoor(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		good := message("office@contoso.example", "x")
		many := make([]string, 101)
		for i := range many {
			many[i] = fmt.Sprintf("a%d@example.net", i)
		}
		for name, c := range map[string]struct {
			e    outbox.Envelope
			msg  string
			code mailgrant.Code
		}{
			"no recipient":           {to(), good, mailgrant.Invalid},
			"too many recipients":    {to(many...), good, mailgrant.Invalid},
			"no From":                {to("a@example.net"), "To: a@example.net\r\n\r\nx\r\n", mailgrant.Invalid},
			"too large":              {to("a@example.net"), good + strings.Repeat("x", 10<<20), mailgrant.TooLarge},
			"round in circles":       {to("a@example.net"), strings.Repeat("Received: from a\r\n", 100) + good, mailgrant.Invalid},
			"AP-02 From of another":  {to("a@example.net"), message("boss@contoso.example", "x"), mailgrant.NoRoute},
			"AP-02 forged envelope":  {outbox.Envelope{From: "boss@contoso.example", Recipients: []string{"a@example.net"}}, good, mailgrant.Forbidden},
			"AP-02 forged Sender":    {to("a@example.net"), "Sender: boss@contoso.example\r\n" + good, mailgrant.Forbidden},
			"AP-02 forged Resent":    {to("a@example.net"), "Resent-From: boss@contoso.example\r\n" + good, mailgrant.Forbidden},
			"AP-02 a foreign second": {to("a@example.net"), strings.Replace(good, "From: office@contoso.example", "Sender: office@contoso.example\r\nFrom: office@contoso.example, boss@contoso.example", 1), mailgrant.Forbidden},
		} {
			_, err := r.accept(r.caller("smtp"), c.e, c.msg)
			if !errors.Is(err, c.code) {
				t.Errorf("%s: got %v, want %s", name, err, c.code)
			} else if mailgrant.AsError(err).Remedy == "" {
				t.Errorf("%s: no remedy", name)
			}
		}
		synctest.Wait()
		if n := len(r.far.list()); n != 0 {
			t.Errorf("%d were sent", n)
		}
	})
}

// Large bodies go through the store in chunks and come out as they went in.
func TestLargeMessage(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		msg := message("office@contoso.example", "large") + strings.Repeat(strings.Repeat("0123456789", 7)+"\r\n", 40_000)
		sub, err := r.accept(r.caller("smtp"), to("a@example.net"), msg)
		must(t, err)
		synctest.Wait()
		got := r.wants(sub.ID, mailgrant.SubmissionDelivered)
		l := r.far.list()
		if len(l) != 1 || !strings.HasSuffix(l[0].body, msg) || int64(len(l[0].body)) != got.Size {
			t.Errorf("handed over %d bytes, kept %d, came %d", len(l[0].body), got.Size, len(msg))
		}
	})
}

// The mailbox that was connected hears of it by another one, else by itself.
func TestOA04ConnectedMailboxIsWrittenTo(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		must(t, r.store.CreateRegistration(t.Context(), mailgrant.Registration{ID: "reg_a", Org: r.org, Name: "M365"}))
		g := mailgrant.Grant{ID: "gra_a", Org: r.org, Registration: "reg_a", Mailbox: "kim@contoso.example", Subject: mailgrant.Subject{Address: "kim@contoso.example"}}
		must(t, r.store.CreateGrant(t.Context(), g))
		told := func() handed {
			t.Helper()
			before := len(r.far.list())
			r.out.Connected(t.Context(), g, "Contoso", []string{"send mail as this mailbox"})
			time.Sleep(time.Second)
			synctest.Wait()
			l := r.far.list()
			if len(l) == before {
				return handed{}
			}
			return l[len(l)-1]
		}
		h := told()
		for _, want := range []string{"To: <kim@contoso.example>\r\n", "Auto-Submitted: auto-generated\r\n", "for Contoso, by signing in as kim@contoso.example", "- send mail as this mailbox"} {
			if !strings.Contains(h.body, want) {
				t.Errorf("it does not say %q:\n%s", want, h.body)
			}
		}
		if h.from != r.system.Address || len(h.to) != 1 || h.to[0] != g.Mailbox {
			t.Errorf("from %s to %v", h.from, h.to)
		}
		r.system.State, r.global.State = mailgrant.MailboxDisabled, mailgrant.MailboxDisabled
		r.set(r.system)
		r.set(r.global)
		if h := told(); h.from != "" {
			t.Errorf("nobody can tell, yet %s did", h.from)
		}
		m := r.mailbox(g.Mailbox, mailgrant.RoleNone)
		m.Grant = g.ID
		r.set(m)
		if h := told(); h.from != g.Mailbox {
			t.Errorf("it does not write to itself: %q", h.from)
		}
	})
}
