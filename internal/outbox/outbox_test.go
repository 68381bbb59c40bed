package outbox_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/cluster"
	"github.com/mailgrant/mailgrant/internal/outbox"
	"github.com/mailgrant/mailgrant/internal/provider"
)

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
