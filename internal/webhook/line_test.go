package webhook_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/webhook"
)

// settle lets everything come to rest, and what was taken be recorded.
func settle(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// Events of a mailbox are told in order, those of several at once; nothing has a
// row while all is well.
func TestToldInOrder(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		r.far.takes = 10 * time.Millisecond
		w := r.hook("cases")
		for n := range 20 {
			for _, m := range []string{"mbx_a", "mbx_b", "mbx_c", "", "mbx_d", "mbx_e"} {
				r.say(m, n)
			}
		}
		settle(30 * time.Second)
		for _, m := range []string{"mbx_a", "mbx_b", "mbx_c", "", "mbx_d", "mbx_e"} {
			if got := r.far.taken("cases", m); got != upTo(20) {
				t.Errorf("%s: %s", m, got)
			}
		}
		if len(r.far.list()) != 120 || r.far.most != 4 {
			t.Errorf("%d requests, %d at once", len(r.far.list()), r.far.most)
		}
		last, err := r.store.LastEvent(t.Context(), r.org)
		must(t, err)
		waiting, dead := r.counts(w)
		if got := r.now(w); got.Position != last || got.State != mailgrant.WebhookActive || got.TakenAt == nil || waiting+dead != 0 {
			t.Errorf("%+v, the last is %d; %d wait, %d given up", got, last, waiting, dead)
		}
		log, _, err := r.store.Deliveries(t.Context(), r.org, w.ID, "", 500)
		must(t, err)
		if len(log) != 120 || log[0].State != mailgrant.DeliveryTaken || log[0].Status != 204 || log[0].Answer != "the answer[31m" || log[0].Took != 10*time.Millisecond {
			t.Errorf("%d tries on record: %+v", len(log), log[0])
		}
	})
}

// After a clean end nothing is told twice, and nothing is left out.
func TestToldOnceOverAStop(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		r.hook("cases")
		r.far.takes = 40 * time.Millisecond
		for round := range 3 {
			for n := range 10 {
				r.say("mbx_a", 10*round+n)
			}
			time.Sleep(100 * time.Millisecond)
			r.end()
			r.start()
		}
		settle(10 * time.Second)
		if got := r.far.taken("cases", "mbx_a"); got != upTo(30) {
			t.Errorf("taken: %s", got)
		}
	})
}

func TestOnlyWhatIsWanted(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		ctx := t.Context()
		box := mailgrant.Mailbox{ID: mailgrant.NewID(mailgrant.PrefixMailbox), Org: r.org, Address: "kim@contoso.example", State: mailgrant.MailboxActive}
		must(t, r.store.CreateMailbox(ctx, box))
		app := mailgrant.App{ID: mailgrant.NewID(mailgrant.PrefixApp), Org: r.org, Name: "cases", Mailboxes: []mailgrant.ID{box.ID}}
		must(t, r.store.CreateApp(ctx, app))
		r.hook("all", func(w *mailgrant.Webhook) { w.Kinds = []string{"submission.*", "reader.failing"} })
		r.hook("one", func(w *mailgrant.Webhook) { w.Mailboxes = []mailgrant.ID{box.ID} })
		r.hook("app", func(w *mailgrant.Webhook) { w.App = app.ID })
		r.hook("full", func(w *mailgrant.Webhook) { w.Kinds, w.Full = []string{"reader.*"}, true })
		for i, e := range []mailgrant.Event{
			{Kind: "submission.failed", Mailbox: "mbx_x"}, {Kind: "reader.held", Mailbox: box.ID}, {Kind: "reader.failing", App: app.ID}, {Kind: "reader.failing", App: "app_other", Mailbox: box.ID},
			{Kind: "other.b", Mailbox: box.ID, App: app.ID}, {Kind: "reader.resumed"}, {Kind: "reader.after_failed", Mailbox: "mbx_x"},
		} {
			e.Org, e.Subject, e.Data = r.org, mailgrant.ID(fmt.Sprint(i)), []byte(`{"n":1}`)
			must(t, r.store.AddEvent(ctx, e))
		}
		settle(time.Minute)
		got := map[string]string{}
		for _, g := range r.far.list() {
			got[g.host] += string(g.event.Subject)
			if (g.event.Data != nil) != (g.host == "full") {
				t.Errorf("%s is told %s", g.host, g.body)
			}
		}
		sorted := func(s string) string { // lanes go on beside each other
			l := strings.Split(s, "")
			for i := range l {
				for j := i; j > 0 && l[j] < l[j-1]; j-- {
					l[j], l[j-1] = l[j-1], l[j]
				}
			}
			return strings.Join(l, "")
		}
		for host, want := range map[string]string{"all": "023", "one": "13", "app": "12", "full": "12356"} {
			if sorted(got[host]) != want {
				t.Errorf("%s is told of %s, want %s", host, sorted(got[host]), want)
			}
		}
	})
}

// A kind that no event has is refused when it is set. A webhook that has one goes on,
// and is changed without giving it up.
func TestKindsThatAreNone(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		ctx := t.Context()
		w := r.hook("cases")
		for _, k := range []string{"arrival.nw", "arival.*", "", "none", "*.new"} {
			_, _, err := r.teller.Create(ctx, mailgrant.Webhook{Org: r.org, Name: "x", URL: w.URL, Kinds: []string{"arrival.new", k}})
			is(t, err, mailgrant.Invalid)
			changed := w
			changed.Kinds = []string{k}
			_, also := r.teller.Update(ctx, changed)
			is(t, also, mailgrant.Invalid)
			if e := mailgrant.AsError(err); e.Field != "kinds" || !strings.Contains(e.Remedy, "docs/webhooks.md") || also.Error() != err.Error() {
				t.Errorf("%q: at %q: %v; %s; when changed: %v", k, e.Field, err, e.Remedy, also)
			}
		}
		w.Kinds = []string{"elder.kind", "reader.*"}
		must(t, r.store.UpdateWebhook(ctx, w)) // as an earlier version took it
		r.teller.Look(r.org, w.ID)
		settle(time.Second)
		r.say("mbx_a", 1)
		must(t, r.store.AddEvent(ctx, mailgrant.Event{Org: r.org, Kind: "elder.kind", Subject: "thing"}))
		settle(time.Second)
		if l := r.far.list(); len(l) != 2 {
			t.Errorf("it is told of %d events", len(l))
		}
		w.Kinds = append(w.Kinds, "arrival.*")
		w, err := r.teller.Update(ctx, w)
		must(t, err)
		if len(w.Kinds) != 3 {
			t.Errorf("it wants %v", w.Kinds)
		}
	})
}

// An event that is not taken holds up its mailbox and no other.
func TestEG06OnlyItsMailboxWaits(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		w := r.hook("cases")
		bad := true
		r.far.answer = func(g told) (int, http.Header, error) {
			if bad && g.mailbox == "mbx_a" {
				return 500, nil, nil
			}
			return 200, nil, nil
		}
		for n := range 50 {
			r.say("mbx_a", n)
			r.say(fmt.Sprint("mbx_b", n%7), n/7)
			time.Sleep(time.Second)
			synctest.Wait()
			for _, g := range r.far.list() {
				if late := g.at.Sub(g.event.At); g.mailbox != "mbx_a" && late > 100*time.Millisecond {
					t.Fatalf("an event of %s comes %v late", g.mailbox, late)
				}
			}
		}
		if waiting, _ := r.counts(w); waiting != 50 {
			t.Errorf("%d wait, want those of its mailbox", waiting)
		}
		r.far.set(func(*far) { bad = false })
		settle(time.Hour)
		if got := r.far.taken("cases", "mbx_a"); got != upTo(50) {
			t.Errorf("taken: %s", got)
		}
		if waiting, dead := r.counts(w); waiting+dead != 0 {
			t.Errorf("%d wait, %d are given up", waiting, dead)
		}
		ids := map[int64]string{}
		for _, g := range r.far.list() {
			if was := ids[g.event.Seq]; was != "" && was != g.id || !mailgrant.ID(g.id).Is(mailgrant.PrefixDelivery) {
				t.Fatalf("event %d has the ids %s and %s", g.event.Seq, was, g.id)
			}
			ids[g.event.Seq] = g.id
		}
	})
}

// Two mailboxes of which nothing is taken look like an endpoint that is down. The
// others go on all the same.
func TestEG06TwoMailboxesWait(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		w := r.hook("cases")
		bad := true
		r.far.answer = func(g told) (int, http.Header, error) {
			if bad && (g.mailbox == "mbx_a" || g.mailbox == "mbx_b") {
				return 500, nil, nil
			}
			return 200, nil, nil
		}
		for n := range 3 {
			r.say("mbx_a", n)
			r.say("mbx_b", n)
		}
		settle(time.Hour)
		for n := range 10 {
			r.say("mbx_c", n)
			settle(10 * time.Minute)
		}
		for _, g := range r.far.list() {
			if late := g.at.Sub(g.event.At); g.mailbox == "mbx_c" && late > 31*time.Second {
				t.Errorf("another mailbox waits %v", late)
			}
		}
		if got := r.far.taken("cases", "mbx_c"); got != upTo(10) {
			t.Errorf("taken: %s", got)
		}
		r.far.set(func(*far) { bad = false })
		settle(2 * time.Hour)
		for _, m := range []string{"mbx_a", "mbx_b"} {
			if got := r.far.taken("cases", m); got != upTo(3) {
				t.Errorf("%s: %s", m, got)
			}
		}
		if waiting, _ := r.counts(w); waiting != 0 {
			t.Errorf("%d rows are left", waiting)
		}
	})
}

// A receiver that is down for a day and comes back has everything in order, and
// nothing is lost. Meanwhile the place in the log stands.
func TestEG06DownForADay(t *testing.T) {
	for name, refused := range map[string]func(told) (int, http.Header, error){
		"refused": func(told) (int, http.Header, error) { return 0, nil, errors.New("connection refused") },
		"503":     func(told) (int, http.Header, error) { return 503, nil, nil },
	} {
		t.Run(name, func(t *testing.T) {
			inTime(t, func(t *testing.T, r *rig) {
				w := r.hook("cases")
				other := r.hook("other")
				down := true
				r.far.answer = func(g told) (int, http.Header, error) {
					if down && g.host == "cases" {
						return refused(g)
					}
					return 200, nil, nil
				}
				const each, boxes = 24, 5
				for n := range each {
					for m := range boxes {
						r.say(fmt.Sprint("mbx_", m), n)
					}
					settle(time.Hour)
					if n == each/2 {
						r.end() // a process that begins while it is down
						r.start()
					}
				}
				tries := len(r.far.list()) - each*boxes
				waiting, dead := r.counts(w)
				if tries > 800 || dead > 0 || name == "refused" && waiting > boxes*30 {
					t.Errorf("while it was down: %d tries, %d rows, %d given up", tries, waiting, dead)
				}
				if got := r.now(w); got.State != mailgrant.WebhookFailing || got.Finding == nil || got.FailingAt == nil {
					t.Errorf("it is %+v", got)
				}
				r.far.set(func(*far) { down = false })
				settle(10 * time.Minute)
				for m := range boxes {
					for _, host := range []string{"cases", "other"} {
						if got := r.far.taken(host, fmt.Sprint("mbx_", m)); got != upTo(each) {
							t.Errorf("%s, mailbox %d: %s", host, m, got)
						}
					}
				}
				for _, g := range r.far.list() {
					if late := g.at.Sub(g.event.At); g.host == "other" && late > 200*time.Millisecond {
						t.Fatalf("the good one is told %v late", late)
					}
				}
				if got := r.now(w); got.State != mailgrant.WebhookActive || got.Finding != nil {
					t.Errorf("it is %+v", got)
				}
				if r.now(other).State != mailgrant.WebhookActive || len(r.events("webhook.failing")) != 1 || len(r.events("webhook.recovered")) != 1 {
					t.Errorf("events %+v", r.events("webhook.failing", "webhook.recovered"))
				}
				if waiting, _ := r.counts(w); waiting != 0 {
					t.Errorf("%d rows are left", waiting)
				}
			})
		})
	}
}

// What is not taken for three days is given up, and told when somebody asks.
func TestEG06DeadLetters(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		w := r.hook("cases")
		down := true
		r.far.answer = func(told) (int, http.Header, error) {
			if down {
				return 500, http.Header{"Retry-After": {"3000"}}, nil
			}
			return 200, nil, nil
		}
		const each = 48
		for n := range each { // for four days
			r.say("mbx_a", n)
			r.say("mbx_b", n)
			settle(4 * 24 * time.Hour / each)
		}
		waiting, dead := r.counts(w)
		l, _, err := r.store.DeadLetters(t.Context(), r.org, w.ID, "", 500)
		must(t, err)
		if dead < 15 || dead > 30 || int(dead) != len(l) || l[0].State != mailgrant.DeliveryDead || l[0].ID == "" || l[0].Error == "" {
			t.Fatalf("%d given up, %d wait, %d listed: %+v", dead, waiting, len(l), l[:min(len(l), 1)])
		}
		if e := r.events("webhook.dead_letters"); len(e) == 0 {
			t.Error("nobody is told of what was given up")
		}
		r.far.set(func(*far) { down = false })
		settle(time.Hour)
		got := len(strings.Fields(r.far.taken("cases", "mbx_a"))) + len(strings.Fields(r.far.taken("cases", "mbx_b")))
		if got != 2*each-int(dead) {
			t.Errorf("%d of %d were taken, %d were given up", got, 2*each, dead)
		}
		n, err := r.teller.Replay(t.Context(), r.org, w.ID, webhook.Span{DeadLetters: true})
		must(t, err)
		settle(time.Minute)
		got = len(strings.Fields(r.far.taken("cases", "mbx_a"))) + len(strings.Fields(r.far.taken("cases", "mbx_b")))
		if waiting, left := r.counts(w); n.DeadLetters != dead || got != 2*each || waiting+left != 0 {
			t.Errorf("after the replay of %+v: %d taken, %d wait, %d given up", n, got, waiting, left)
		}
	})
}

func TestEG06GoneIsSwitchedOff(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		w := r.hook("cases")
		r.hook("other")
		gone := true
		r.far.answer = func(g told) (int, http.Header, error) {
			if gone && g.host == "cases" {
				return 410, nil, nil
			}
			return 200, nil, nil
		}
		for n := range 10 {
			r.say("mbx_a", n)
		}
		settle(time.Minute)
		got := r.now(w)
		if got.State != mailgrant.WebhookDisabled || got.Finding == nil || got.Finding.Cause != "webhook-gone" || len(r.events("webhook.disabled")) != 1 {
			t.Errorf("it is %+v", got)
		}
		before := len(r.far.list())
		settle(24 * time.Hour)
		if n := len(r.far.list()); n != before || before != 11 {
			t.Errorf("%d requests, %d before", n, before)
		}
		_, err := r.teller.Replay(t.Context(), r.org, w.ID, webhook.Span{DeadLetters: true})
		is(t, err, mailgrant.Conflict)
		r.far.set(func(*far) { gone = false })
		got.State = mailgrant.WebhookActive
		_, err = r.teller.Update(t.Context(), got)
		must(t, err)
		settle(time.Minute)
		if got := r.far.taken("cases", "mbx_a"); got != upTo(10) {
			t.Errorf("when it is switched on again: %s", got)
		}
	})
}

func TestRetryAfterIsHonoured(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		r.hook("cases")
		n := 0
		r.far.answer = func(g told) (int, http.Header, error) {
			if g.mailbox == "mbx_b" {
				return 200, nil, nil
			}
			n++
			switch n {
			case 1:
				return 429, http.Header{"Retry-After": {"600"}}, nil
			case 2:
				return 503, http.Header{"Retry-After": {time.Now().Add(20 * time.Minute).UTC().Format(http.TimeFormat)}}, nil
			case 3:
				return 503, http.Header{"Retry-After": {"999999"}}, nil
			}
			return 200, nil, nil
		}
		r.say("mbx_a", 0)
		settle(time.Second)
		r.say("mbx_b", 0) // too many: it is all of them
		settle(3 * time.Hour)
		at := map[string][]time.Time{}
		for _, g := range r.far.list() {
			at[g.mailbox] = append(at[g.mailbox], g.at)
		}
		a := at["mbx_a"]
		if len(a) != 4 || len(at["mbx_b"]) != 1 {
			t.Fatalf("tries: %v", at)
		}
		if d := a[1].Sub(a[0]); d < 10*time.Minute || d > 11*time.Minute {
			t.Errorf("after 429 it waits %v", d)
		}
		if d := at["mbx_b"][0].Sub(a[0]); d < 9*time.Minute {
			t.Errorf("the other mailbox waits %v", d)
		}
		if d := a[2].Sub(a[1]); d < 19*time.Minute || d > 21*time.Minute {
			t.Errorf("after a date it waits %v", d)
		}
		if d := a[3].Sub(a[2]); d < time.Hour || d > 61*time.Minute {
			t.Errorf("after too long a time it waits %v, want an hour", d)
		}
	})
}

// One mailbox that fills everything does not hold the others up.
func TestOneMailboxFillsEverything(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		w := r.hook("cases")
		r.far.takes = 20 * time.Millisecond
		for n := range 700 {
			r.say("mbx_a", n)
		}
		settle(time.Second)
		began := time.Now()
		r.say("mbx_b", 0)
		settle(5 * time.Second)
		for _, g := range r.far.list() {
			if g.mailbox == "mbx_b" && g.at.Sub(began) > time.Second {
				t.Errorf("the other waits %v", g.at.Sub(began))
			}
		}
		if r.far.taken("cases", "mbx_b") != "0" {
			t.Error("the other mailbox is not told of")
		}
		settle(10 * time.Minute)
		if got := r.far.taken("cases", "mbx_a"); got != upTo(700) {
			t.Errorf("taken: %s", got)
		}
		if waiting, _ := r.counts(w); waiting != 0 {
			t.Errorf("%d rows are left", waiting)
		}
	})
}

func TestReplay(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		ctx := t.Context()
		w := r.hook("cases")
		for n := range 300 {
			r.say(fmt.Sprint("mbx_", n%2), n/2)
			time.Sleep(time.Second)
		}
		settle(time.Minute)
		all := r.events("reader.failing")
		for name, c := range map[string]struct {
			span       webhook.Span
			first, end int
		}{
			"by number": {webhook.Span{From: &all[10].Seq, To: &all[249].Seq}, 10, 250},
			"to now":    {webhook.Span{From: &all[290].Seq}, 290, 300},
			"by time":   {webhook.Span{Since: &all[20].At, Until: &all[30].At}, 20, 30},
			"since":     {webhook.Span{Since: &all[295].At}, 295, 300},
			"one":       {webhook.Span{Delivery: webhook.DeliveryID(w.ID, all[77])}, 77, 78},
		} {
			before := len(r.far.list())
			_, err := r.teller.Replay(ctx, r.org, w.ID, c.span)
			must(t, err)
			settle(time.Minute)
			got := r.far.list()[before:]
			seen := map[int64]bool{}
			last := map[string]int64{}
			for _, g := range got {
				if g.event.Seq <= last[g.mailbox] {
					t.Errorf("%s: out of order", name)
				}
				last[g.mailbox], seen[g.event.Seq] = g.event.Seq, true
			}
			for i, e := range all {
				if want := i >= c.first && i < c.end; seen[e.Seq] != want {
					t.Errorf("%s: event %d of the log, told again: %v", name, i, seen[e.Seq])
				}
			}
			if l, _ := r.store.Replays(ctx, r.org, w.ID); len(l) > 0 {
				t.Errorf("%s: %+v is left", name, l)
			}
		}
		far := int64(1 << 40)
		_, err := r.teller.Replay(ctx, r.org, w.ID, webhook.Span{From: &far})
		is(t, err, mailgrant.Invalid)
		_, err = r.teller.Replay(ctx, r.org, w.ID, webhook.Span{})
		is(t, err, mailgrant.Invalid)
		_, err = r.teller.Replay(ctx, r.org, w.ID, webhook.Span{Delivery: mailgrant.NewID(mailgrant.PrefixDelivery)})
		is(t, err, mailgrant.NotFound)
	})
}
