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
