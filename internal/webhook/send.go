package webhook

import (
	"context"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/store"
)

// A done is what became of an item.
type done struct {
	lane *lane
	it   item
	id   mailgrant.ID
	out  outcome
}

const (
	// connections is how many events a webhook is told of at once, where its
	// settings do not say.
	connections    = 4
	connectionsMax = 64

	// A lane whose first event was not taken tries again after firstRetry, then after
	// twice as long, up to retryMax.
	firstRetry = 5 * time.Second
	retryMax   = time.Hour
)

// dispatch starts requests.
func (l *line) dispatch(ctx context.Context, now time.Time) {
	if l.pause.After(now) {
		return
	}
	if l.down {
		if l.active == 0 && !l.nextProbe().After(now) && l.unsafe < repeats {
			l.probe(ctx, now)
		}
		return
	}
	for l.active < l.atOnce() && l.unsafe+l.active < repeats && len(l.ready) > 0 {
		n := l.ready[0]
		l.ready = l.ready[1:]
		n.listed = false
		l.send(ctx, n, now)
	}
}

// atOnce is how many requests may be under way.
func (l *line) atOnce() int {
	if l.hook.Connections > 0 {
		return min(l.hook.Connections, connectionsMax)
	}
	return connections
}

// send tells of the first event of a lane. It says whether there was one.
func (l *line) send(ctx context.Context, n *lane, now time.Time) bool {
	if len(n.queue) == 0 && n.rows && n.unsaved == 0 {
		l.loadRows(ctx, n, now)
	}
	if len(n.queue) == 0 || !n.due.IsZero() {
		l.rest(n)
		return false
	}
	n.busy = true
	l.active++
	it, to := n.queue[0], l.target
	go func() {
		id := DeliveryID(l.id, it.e)
		l.t.Steps("webhook.before-post")
		out := l.t.post(ctx, to, id, it.e)
		l.t.Steps("webhook.after-answer")
		l.done <- done{n, it, id, out}
	}()
	return true
}

// ended sees to what a request came to.
func (l *line) ended(d done) {
	now := l.t.now()
	n := d.lane
	n.busy = false
	l.active--
	d.it.attempts++
	if d.out.taken() {
		l.taken(n, d, now)
		return
	}
	if l.ending.Load() && l.cutOff(d) {
		return
	}
	l.refused(n, d, now)
}

// cutOff says whether it was us who broke a request off: it is tried again by whoever
// has the webhook next.
func (l *line) cutOff(d done) bool { return d.out.status == 0 && d.out.took < l.t.within }

func (l *line) taken(n *lane, d done, now time.Time) {
	if len(n.queue) > 0 {
		n.queue = n.queue[1:]
		l.held--
	}
	p := d.it.place
	if p != nil {
		p.done, p.taken = true, true
	}
	if p == nil || p.row || d.it.again {
		l.strike(n, d.it.e, now)
	}
	l.unsafe++
	r := l.try(d.it, d)
	r.State, l.out.TakenAt = mailgrant.DeliveryTaken, now
	l.out.Deliveries = append(l.out.Deliveries, r)
	if d.it.e.Kind == "arrival.new" {
		l.out.wanted = append(l.out.wanted, d.it.e)
	}
	l.touch(now)
	l.works(now)
	l.list(n)
	l.rest(n)
}

func (l *line) refused(n *lane, d done, now time.Time) {
	if d.out.status == http.StatusGone {
		l.goneFor(d, now)
		return
	}
	l.count(n, d, now)
	r := l.try(d.it, d)
	it := d.it
	if it.since.IsZero() {
		it.since = d.out.at
	}
	if now.Sub(it.since) >= life || l.expires(now) && it.late(now) {
		r.State = mailgrant.DeliveryDead
		l.out.Deliveries = append(l.out.Deliveries, r)
		n.queue = n.queue[1:]
		l.held--
		l.bury(it, r, now)
		l.list(n)
		l.rest(n)
	} else {
		l.putOff(n, it, r, d.out, now)
	}
	if l.expires(now) {
		l.expire(now)
	}
}

// putOff has a lane wait for its first event to be tried again.
func (l *line) putOff(n *lane, it item, r mailgrant.Delivery, out outcome, now time.Time) {
	due := now.Add(backoff(firstRetry, retryMax, it.attempts))
	if asked := now.Add(out.after); asked.After(due) {
		due = asked
	}
	r.RetryAt = &due
	l.out.Deliveries = append(l.out.Deliveries, r)
	l.keep(n, it, due, r, now)
	for _, behind := range n.queue[1:] {
		if behind.place != nil {
			l.wait(n, behind, now)
		}
	}
	l.held -= len(n.queue)
	n.queue, n.rows = nil, true
	l.block(n, due)
	if out.status == http.StatusTooManyRequests {
		l.pause = now.Add(max(out.after, firstProbe))
	}
}

// backoff doubles with each try, and keeps many from coming at the same moment.
func backoff(first, most time.Duration, n int) time.Duration {
	d := most
	if n < 20 {
		d = min(first<<max(n-1, 0), most)
	}
	return d - time.Duration(rand.Int64N(int64(d)/5+1))
}

// goneFor is for an endpoint that said that it is to be told no more.
func (l *line) goneFor(d done, now time.Time) {
	f := goneFinding(l.hook)
	r := l.try(d.it, d)
	l.out.Deliveries = append(l.out.Deliveries, r)
	l.out.Turn = &store.Turn{State: mailgrant.WebhookDisabled, Finding: &f}
	l.say("webhook.disabled", f)
	l.hook.State, l.out.urgent = mailgrant.WebhookDisabled, true
	l.touch(now)
}

// try is the record of what became of an item.
func (l *line) try(it item, d done) mailgrant.Delivery {
	r := mailgrant.Delivery{ID: d.id, Org: l.org, Webhook: l.id, Event: it.e.Seq, Kind: it.e.Kind, Mailbox: it.e.Mailbox, N: it.attempts,
		At: d.out.at, Took: d.out.took, State: mailgrant.DeliveryRefused, Status: d.out.status, Answer: d.out.answer, Error: d.out.err}
	if r.ID == "" {
		r.ID = DeliveryID(l.id, it.e)
	}
	return r
}
