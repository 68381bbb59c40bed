package outbox_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailgrant/mailgrant"
)

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
