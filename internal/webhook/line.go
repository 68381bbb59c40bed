package webhook

import (
	"context"
	"errors"
	"math"
	"sync/atomic"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/store"
)

// A line tells one webhook. Its goroutine alone uses what is below the channels.
type line struct {
	t       *Teller
	org, id mailgrant.ID

	added   atomic.Bool // there may be new events
	changed atomic.Bool // its settings, or a replay
	ending  atomic.Bool
	closing atomic.Bool   // it looks at nothing any more
	kick    chan struct{} // one of these was set
	done    chan done
	stored  chan error
	before  <-chan struct{} // the line before it is over; nil: there is none
	over    chan struct{}   // closed at the end
	cut     context.CancelFunc

	hook   mailgrant.Webhook
	boxes  []mailgrant.ID // of its app
	target target

	log    *span
	replay *span // nil: none
	lanes  map[mailgrant.ID]*lane
	ready  []*lane
	blocks int       // lanes with a time in due
	due    time.Time // of the first of them, at the earliest; zero: none
	held   int       // events in memory
	fat    *lane     // that fills the window
	active int       // requests under way

	more    bool          // the log may have more
	hidden  time.Time     // when it is looked again for what is not shown yet
	patient time.Duration // how long after the look before
	unsafe  int           // taken, and not said to be in the store, or not passed by the place there
	gone    map[row]bool  // done with, and not yet away from the store

	trouble
	probedAt time.Time // when it was tried the last time while it was down
	back     time.Time // when it last took something again: what is put off from before is due
	pause    time.Time // it asked for one

	out     *batch    // to be recorded next
	sending *batch    // not in the store yet; nil: none
	flying  bool      // it is under way there
	retryAt time.Time // when the store is asked again
	logged  int       // tries recorded since old ones were removed
	lost    error     // another node's, or gone: nothing is recorded any more
}

const (
	// stopWithin is how long an end waits for requests under way.
	stopWithin = 5 * time.Second

	storeRetry = time.Second
	fenceRetry = time.Second
)

func newLine(t *Teller, org, id mailgrant.ID, before <-chan struct{}) *line {
	return &line{t: t, org: org, id: id, before: before, over: make(chan struct{}),
		kick: make(chan struct{}, 1), done: make(chan done, connectionsMax), stored: make(chan error, 1),
		lanes: map[mailgrant.ID]*lane{}, gone: map[row]bool{}, out: newBatch(), more: true}
}

// poke sets a flag and wakes the line.
func (l *line) poke(flag *atomic.Bool) {
	flag.Store(true)
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

func (l *line) stop() { l.poke(&l.ending) }

// run tells until the line is stopped, its webhook is switched off or another node
// has it.
func (l *line) run() {
	defer close(l.over)
	if l.before != nil {
		<-l.before
	}
	ctx, cut := context.WithCancel(context.Background())
	defer cut()
	l.cut = cut
	if !l.load(ctx) {
		return
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for !l.ending.Load() && l.lost == nil && l.hook.State != mailgrant.WebhookDisabled {
		if l.changed.Swap(false) {
			if l.reload(ctx); l.lost != nil || l.hook.State == mailgrant.WebhookDisabled {
				break
			}
		}
		if l.added.Swap(false) {
			l.more, l.seek = true, l.answers
		}
		now := l.t.now()
		if _, mine := l.t.Owner.Fence(l.id); mine {
			l.wakeLanes(now)
			l.fill(ctx, now)
			l.dispatch(ctx, now)
			l.record(now)
			if d, idle := l.next(now); idle {
				timer.Stop()
			} else {
				timer.Reset(d)
			}
		} else { // the node cannot reach the database; if it is another's, we are stopped
			timer.Reset(fenceRetry)
		}
		select {
		case <-l.kick:
		case <-timer.C:
		case d := <-l.done:
			l.ended(d)
		case err := <-l.stored:
			l.recorded(err)
		}
	}
	l.closing.Store(true)
	l.finish()
}

// next is when something is to be done by itself.
func (l *line) next(now time.Time) (wait time.Duration, idle bool) {
	var at time.Time
	soon := func(t time.Time) {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	soon(l.hidden)
	switch {
	case l.flying:
	case l.sending != nil:
		soon(l.retryAt)
	case !l.out.dirty.IsZero():
		soon(l.out.dirty.Add(l.patience()))
	}
	switch {
	case l.active > 0 && l.down, l.unsafe >= repeats:
	case l.pause.After(now):
		soon(l.pause)
	case l.down && len(l.lanes) > 0:
		soon(l.nextProbe())
	case l.down:
	case l.blocks > 0:
		soon(l.due)
	}
	if at.IsZero() {
		return 0, true
	}
	return max(at.Sub(now), 0), false
}

// load reads everything at the start, again and again until the store answers.
func (l *line) load(ctx context.Context) bool {
	for !l.ending.Load() {
		err := l.begin(ctx)
		if err == nil {
			return l.hook.State != mailgrant.WebhookDisabled
		}
		if errors.Is(err, mailgrant.NotFound) {
			return false
		}
		l.t.Log.Warn("begin to tell a webhook", "webhook", l.id, "err", err)
		select {
		case <-time.After(storeRetry):
		case <-l.kick:
		}
	}
	return false
}

func (l *line) begin(ctx context.Context) error {
	if err := l.settings(ctx); err != nil {
		return err
	}
	lanes, err := l.t.Store.WaitingLanes(ctx, l.org, l.id)
	if err != nil {
		return err
	}
	l.log = &span{Replay: store.Replay{Until: math.MaxInt64}, read: l.hook.Position, kept: l.hook.Position}
	for _, w := range lanes {
		n := l.lane(w.Mailbox)
		n.rows = true
		l.block(n, w.DueAt)
	}
	if err := l.nextReplay(ctx); err != nil {
		return err
	}
	if l.hook.State == mailgrant.WebhookFailing && l.hook.FailingAt != nil {
		l.down, l.told, l.several, l.answers, l.since = true, true, true, true, *l.hook.FailingAt
	}
	return l.recheck(ctx)
}

// settings reads what the webhook is.
func (l *line) settings(ctx context.Context) error {
	w, err := l.t.Store.Webhook(ctx, l.org, l.id)
	if err != nil {
		return err
	}
	to, err := l.t.target(ctx, w)
	if err != nil {
		return err
	}
	boxes, err := l.boxesOf(ctx, w)
	if err != nil {
		return err
	}
	l.hook, l.boxes, l.target = w, boxes, to
	return nil
}

// boxesOf are the mailboxes that the app of a webhook names; none without an app.
func (l *line) boxesOf(ctx context.Context, w mailgrant.Webhook) ([]mailgrant.ID, error) {
	if w.App == "" {
		return nil, nil
	}
	a, err := l.t.Store.App(ctx, l.org, w.App)
	if err != nil && !errors.Is(err, mailgrant.NotFound) {
		return nil, err
	}
	return a.Mailboxes, nil
}

// reload sees to it that somebody changed something: what is put off is tried now.
func (l *line) reload(ctx context.Context) {
	was := l.hook
	if err := l.settings(ctx); err != nil {
		if errors.Is(err, mailgrant.NotFound) {
			l.lost = err
			return
		}
		l.t.Log.Warn("look at a webhook", "webhook", l.id, "err", err)
		return
	}
	if l.hook.State != mailgrant.WebhookDisabled && !l.hook.UpdatedAt.Equal(was.UpdatedAt) {
		l.probes, l.probeAt, l.pause, l.back = 0, time.Time{}, time.Time{}, l.t.now()
		l.unblock()
	}
	lanes, err := l.t.Store.WaitingLanes(ctx, l.org, l.id) // dead letters may wait again
	if err != nil {
		l.t.Log.Warn("look at what waits for a webhook", "webhook", l.id, "err", err)
	}
	for _, w := range lanes {
		n := l.lane(w.Mailbox)
		n.rows = true
		if n.due.IsZero() {
			l.list(n)
		}
	}
	if l.replay == nil {
		if err := l.nextReplay(ctx); err != nil {
			l.t.Log.Warn("look at the replays of a webhook", "webhook", l.id, "err", err)
		}
	}
}

// finish lets requests under way end, and keeps what they came to.
func (l *line) finish() {
	l.ending.Store(true)
	grace := time.NewTimer(stopWithin)
	defer grace.Stop()
	for l.active > 0 || l.flying {
		select {
		case d := <-l.done:
			l.ended(d)
		case err := <-l.stored:
			l.recorded(err)
		case <-grace.C:
			l.cut()
		}
	}
	if l.unsafe > 0 { // the place may have to pass what was cut off
		l.touch(l.t.now())
	}
	for l.lost == nil && (l.sending != nil && l.sending.tries < 3 || l.sending == nil && !l.out.dirty.IsZero()) {
		l.out.urgent, l.retryAt = true, time.Time{}
		l.record(l.t.now())
		l.recorded(<-l.stored)
	}
	if l.sending != nil && l.lost == nil {
		l.t.Log.Warn("what a webhook took could not be kept: it is told again", "webhook", l.id)
	}
}
