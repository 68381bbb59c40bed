package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/store"
)

// A batch is what a line has to say to the store at once.
type batch struct {
	store.Telling
	unsafe int               // of them the place passes, so many
	saved  map[*lane]int     // rows of lanes in Wait
	wanted []mailgrant.Event // arrivals that were taken
	dirty  time.Time         // since when there is something in it; zero: nothing
	urgent bool              // it does not wait for more
	dead   int               // how many were given up
	first  mailgrant.ID      // the delivery of the first of those
	tries  int
}

func newBatch() *batch { return &batch{saved: map[*lane]int{}} }

const (
	// repeats is how many events at most are told again after a crash: so many may
	// be under way, or taken and not yet said to be in the store. One that takes long
	// has its place kept in a row when aheadMax behind it were taken.
	repeats  = 64
	aheadMax = 32

	// recordEvery is how long what was taken may wait to be put into the store with
	// more; skipEvery the same for events that nobody wants.
	recordEvery = 100 * time.Millisecond
	skipEvery   = 10 * time.Second

	recordWithin = 20 * time.Second

	// pruneEvery is how many tries are recorded before old ones are removed.
	pruneEvery = 200
)

// touch says that there is something to record.
func (l *line) touch(now time.Time) {
	if l.out.dirty.IsZero() {
		l.out.dirty = now
	}
}

// say adds an event to the log.
func (l *line) say(kind string, data any) {
	l.out.Events = append(l.out.Events, eventOf(l.org, l.id, kind, data))
	l.touch(l.t.now())
}

func eventOf(org, id mailgrant.ID, kind string, data any) mailgrant.Event {
	e := mailgrant.Event{Org: org, Kind: kind, Subject: id}
	if data != nil {
		b, err := json.Marshal(data)
		if err != nil {
			panic(fmt.Sprintf("webhook: %T does not marshal: %v", data, err)) // our own types always do
		}
		e.Data = b
	}
	return e
}

// patience is how long what there is to record may wait for more.
func (l *line) patience() time.Duration {
	switch {
	case l.out.urgent, l.unsafe >= repeats/2, len(l.out.Wait) >= window/2:
		return 0
	case len(l.out.Wait)+len(l.out.Done)+len(l.out.Deliveries)+len(l.out.Events) == 0 && l.out.Expire.IsZero() && !(l.replay != nil && l.replay.ended()):
		return skipEvery
	}
	return recordEvery
}

// record sends what there is to the store, when it is time.
func (l *line) record(now time.Time) {
	switch {
	case l.flying:
		return
	case l.sending != nil:
		if l.retryAt.After(now) {
			return
		}
	case l.out.dirty.IsZero() || l.out.dirty.Add(l.patience()).After(now):
		return
	default:
		l.sending = l.gather()
	}
	l.flying = true
	b := l.sending
	go func() { l.stored <- l.put(b) }()
}

// gather makes a batch of all that there is.
func (l *line) gather() *batch {
	b := l.out
	l.out = newBatch()
	b.Org, b.Webhook = l.org, l.id
	b.unsafe = l.unsafe - l.pass(b, l.log)
	if l.replay != nil {
		b.unsafe -= l.pass(b, l.replay)
	}
	if at := l.log.position(); at > l.log.kept {
		b.Position = at
		l.log.kept = at
	}
	if r := l.replay; r != nil {
		if at := r.position(); at > r.kept || r.ended() {
			r.kept = at
			b.Replay, b.ReplayDone = &store.Replay{ID: r.ID, Position: at, Until: r.Until}, r.ended()
		}
	}
	if l.logged += len(b.Deliveries); l.logged >= pruneEvery {
		l.logged, b.Prune = 0, true
	}
	if b.dead > 0 {
		b.Events = append(b.Events, eventOf(l.org, l.id, "webhook.dead_letters", map[string]any{"count": b.dead, "first": b.first}))
	}
	return b
}

// pass lets the place of a span pass what takes long: it waits in a row from now on.
// It says how many were taken that the place does not pass.
func (l *line) pass(b *batch, s *span) int {
	s.position()
	taken, lags := s.ahead()
	if taken == 0 || taken < aheadMax && !l.closing.Load() {
		return taken
	}
	now := l.t.now()
	for _, p := range lags {
		d := l.try(p.it, done{})
		b.Wait = append(b.Wait, store.WaitingEvent{Event: p.it.e, Since: now, Last: &d})
		p.done, p.row = true, true
	}
	return 0
}

// put puts a batch into the store. It runs beside the line.
func (l *line) put(b *batch) error {
	ctx, cancel := context.WithTimeout(context.Background(), recordWithin)
	defer cancel()
	fence, mine := l.t.Owner.Fence(l.id)
	if !mine {
		return mailgrant.Errorf(mailgrant.Unavailable, nil, "it is not known whose the webhook is now").Fix("nothing: another node tells what is left")
	}
	b.Fence = fence
	told, rest, err := l.part(ctx, b.wanted)
	if err != nil {
		return err
	}
	b.Arrivals = told
	l.t.Steps("webhook.before-commit")
	if err := l.t.Store.RecordTelling(ctx, b.Telling); err != nil {
		return err
	}
	l.t.Steps("webhook.after-commit")
	if len(rest) > 0 { // another webhook may have taken them at the same moment
		if told, _, err = l.part(ctx, rest); err == nil {
			err = l.t.Store.ArrivalsTold(ctx, l.org, told)
		}
		if err != nil {
			l.t.Log.Warn("say that arrivals were told", "webhook", l.id, "err", err) // again at the next start
		}
	}
	return nil
}

// recorded sees to what became of the batch.
func (l *line) recorded(err error) {
	b := l.sending
	l.flying = false
	if err != nil {
		if errors.Is(err, mailgrant.Conflict) {
			l.lost = err
			return
		}
		b.tries++
		l.t.Log.Warn("keep what a webhook took", "webhook", l.id, "err", err)
		l.retryAt = l.t.now().Add(storeRetry)
		return
	}
	l.sending, l.retryAt = nil, time.Time{}
	l.unsafe -= b.unsafe
	for _, e := range b.Done {
		delete(l.gone, row{e.Mailbox, e.Seq})
	}
	for _, w := range b.Wait {
		if w.Dead {
			delete(l.gone, row{w.Event.Mailbox, w.Event.Seq})
		}
	}
	for n, rows := range b.saved {
		n.unsaved -= rows
		n.rows = true
		l.list(n)
	}
	if b.ReplayDone {
		l.replay = nil
		l.poke(&l.changed) // there may be another one
	}
}
