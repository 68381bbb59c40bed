package outbox_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
)

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
