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
	t      store.Telling
	unsafe int
	saved  map[*lane]int
	wanted []arrival
	done   bool // with the replay
	tries  int
}

// An arrival is one whose webhook took it.
type arrival struct {
	id mailgrant.ID
	e  mailgrant.Event
}

const (
	// pruneEvery is how many tries are recorded before old ones are removed.
	pruneEvery = 200

	recordWithin = 20 * time.Second
)

// patience is how long what there is to record may wait for more.
func (l *line) patience() time.Duration {
	switch {
	case l.urgent, l.unsafe >= repeats/2, len(l.out.Wait) >= window/2:
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
	case l.dirty.IsZero() || l.dirty.Add(l.patience()).After(now):
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
	b := &batch{t: l.out, unsafe: l.unsafe, saved: l.saved, wanted: l.wanted}
	b.t.Org, b.t.Webhook = l.org, l.id
	b.unsafe -= l.pass(b, l.log)
	if l.replay != nil {
		b.unsafe -= l.pass(b, l.replay)
	}
	if at := l.log.position(); at > l.log.kept {
		b.t.Position = at
		l.log.kept = at
	}
	if r := l.replay; r != nil {
		if at := r.position(); at > r.kept || r.ended() {
			r.kept, b.done = at, r.ended()
			b.t.Replay, b.t.ReplayDone = &store.Replay{ID: r.ID, Position: at, Until: r.Until}, b.done
		}
	}
	if l.logged += len(b.t.Deliveries); l.logged >= pruneEvery {
		l.logged, b.t.Prune = 0, true
	}
	if l.dead > 0 {
		b.t.Events = append(b.t.Events, eventOf(l.org, l.id, "webhook.dead_letters", map[string]any{"count": l.dead, "first": l.first}))
	}
	l.out, l.saved, l.wanted = store.Telling{}, map[*lane]int{}, nil
	l.dirty, l.urgent, l.dead, l.first = time.Time{}, false, 0, ""
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
		b.t.Wait = append(b.t.Wait, store.WaitingEvent{Event: p.it.e, Since: now, Last: &d})
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
	b.t.Fence = fence
	told, others, err := l.part(ctx, b.wanted)
	if err != nil {
		return err
	}
	b.t.Arrivals = told
	l.t.Steps("webhook.before-commit")
	if err := l.t.Store.RecordTelling(ctx, b.t); err != nil {
		return err
	}
	l.t.Steps("webhook.after-commit")
	if len(others) > 0 { // another webhook may have taken them at the same moment
		if told, _, err = l.part(ctx, others); err == nil {
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
	for _, e := range b.t.Done {
		delete(l.gone, row{e.Mailbox, e.Seq})
	}
	for _, w := range b.t.Wait {
		if w.Dead {
			delete(l.gone, row{w.Event.Mailbox, w.Event.Seq})
		}
	}
	for n, rows := range b.saved {
		n.unsaved -= rows
		n.rows = true
		l.list(n)
	}
	if b.done {
		l.replay = nil
		l.changed.Store(true) // there may be another one
		select {
		case l.kick <- struct{}{}:
		default:
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
	for l.lost == nil && (l.sending != nil && l.sending.tries < 3 || l.sending == nil && !l.dirty.IsZero()) {
		l.urgent, l.retryAt = true, time.Time{}
		l.record(l.t.now())
		l.recorded(<-l.stored)
	}
	if l.sending != nil && l.lost == nil {
		l.t.Log.Warn("what a webhook took could not be kept: it is told again", "webhook", l.id)
	}
}

// part parts arrivals into those that all webhooks that want them have taken, this
// one included, and the others.
func (l *line) part(ctx context.Context, list []arrival) (told []mailgrant.ID, others []arrival, err error) {
	if len(list) == 0 {
		return nil, nil, nil
	}
	all, err := l.t.Store.Webhooks(ctx, l.org)
	if err != nil {
		return nil, nil, err
	}
	for _, a := range list {
		ok := true
		for _, w := range all {
			if w.ID == l.id || w.State == mailgrant.WebhookDisabled || !ok {
				continue
			}
			if ok, err = l.tookIt(ctx, w, a.e); err != nil {
				return nil, nil, err
			}
		}
		if ok {
			told = append(told, a.id)
		} else {
			others = append(others, a)
		}
	}
	return told, others, nil
}

// tookIt says whether another webhook has taken an event, or does not want it.
func (l *line) tookIt(ctx context.Context, w mailgrant.Webhook, e mailgrant.Event) (bool, error) {
	var boxes []mailgrant.ID
	if w.App != "" {
		a, err := l.t.Store.App(ctx, l.org, w.App)
		if err != nil && !errors.Is(err, mailgrant.NotFound) {
			return false, err
		}
		boxes = a.Mailboxes
	}
	if !w.Wants(e, boxes) {
		return true, nil
	}
	if w.Position < e.Seq {
		return false, nil
	}
	waits, err := l.t.Store.WaitingFor(ctx, l.org, e.Seq)
	for _, id := range waits {
		if id == w.ID {
			return false, err
		}
	}
	return err == nil, err
}

// recheck looks once more at the last arrivals before this place: a process that
// died between two webhooks may have left them new.
func (l *line) recheck(ctx context.Context) error {
	all, err := l.t.Store.Webhooks(ctx, l.org)
	if err != nil || len(all) < 2 {
		return err
	}
	events, err := l.t.Store.Events(ctx, l.org, store.EventFilter{After: max(l.hook.Position-recheckLast, 0), Kinds: []string{"arrival.new"}, Limit: recheckLast})
	if err != nil {
		return err
	}
	var list []arrival
	for _, e := range events {
		if e.Seq > l.hook.Position {
			break
		}
		if e.At.Before(l.hook.CreatedAt) { // nobody told it of that
			continue
		}
		if took, err := l.tookIt(ctx, l.hook, e); err != nil {
			return err
		} else if took && l.hook.Wants(e, l.boxes) {
			list = append(list, arrival{e.Subject, e})
		}
	}
	told, _, err := l.part(ctx, list)
	if err != nil {
		return err
	}
	return l.t.Store.ArrivalsTold(ctx, l.org, told)
}

const recheckLast = 500

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

func failing(w mailgrant.Webhook, why string, since time.Time) mailgrant.Finding {
	return mailgrant.Finding{Cause: "webhook-failing", Title: "Webhook takes nothing", Confidence: 1, Who: mailgrant.WhoOperator, Retry: mailgrant.RetryLater, Raw: why,
		Sentence: fmt.Sprintf("The webhook %s has taken nothing since %s: %s.", w.Name, since.UTC().Format(time.RFC3339), why),
		Remedy:   fmt.Sprintf("Mend what answers at %s. Look at the tries: mailgrant webhook deliveries %s; mailgrant goes on by itself.", hostOf(w.URL), w.ID)}
}

func goneFinding(w mailgrant.Webhook) mailgrant.Finding {
	return mailgrant.Finding{Cause: "webhook-gone", Title: "Webhook is gone", Confidence: 1, Who: mailgrant.WhoOperator, Retry: mailgrant.RetryFix, Raw: "410 Gone",
		Sentence: fmt.Sprintf("The webhook %s answered 410, which means that it is to be told no more, and was switched off.", w.Name),
		Remedy:   fmt.Sprintf("If it is to be told again: mailgrant webhook change %s --enable. What happened meanwhile is told then.", w.ID)}
}
