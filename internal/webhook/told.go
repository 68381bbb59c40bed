package webhook

import (
	"context"
	"slices"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/store"
)

// recheckLast is how many of the last arrivals are looked at once more at a start.
const recheckLast = 500

// A taker is a webhook that others ask whether it took an arrival, and the mailboxes
// of its app.
type taker struct {
	mailgrant.Webhook
	boxes []mailgrant.ID
}

// takers are the webhooks of the organization that are told.
func (l *line) takers(ctx context.Context) (list []taker, err error) {
	all, err := l.t.Store.Webhooks(ctx, l.org)
	if err != nil {
		return nil, err
	}
	for _, w := range all {
		if w.State == mailgrant.WebhookDisabled {
			continue
		}
		boxes, err := l.boxesOf(ctx, w)
		if err != nil {
			return nil, err
		}
		list = append(list, taker{w, boxes})
	}
	return list, nil
}

// part parts arrivals that this webhook took into those that all others that want
// them have taken too, and the rest.
func (l *line) part(ctx context.Context, list []mailgrant.Event) (told []mailgrant.ID, rest []mailgrant.Event, err error) {
	if len(list) == 0 {
		return nil, nil, nil
	}
	takers, err := l.takers(ctx)
	if err != nil {
		return nil, nil, err
	}
	takers = slices.DeleteFunc(takers, func(w taker) bool { return w.ID == l.id })
	return l.partAmong(ctx, takers, list)
}

// partAmong parts arrivals into those that all takers that want them have, and the
// rest.
func (l *line) partAmong(ctx context.Context, takers []taker, list []mailgrant.Event) (told []mailgrant.ID, rest []mailgrant.Event, err error) {
	var waits map[int64][]mailgrant.ID
	if len(takers) > 0 {
		seqs := make([]int64, len(list))
		for i, e := range list {
			seqs[i] = e.Seq
		}
		if waits, err = l.t.Store.WaitingFor(ctx, l.org, seqs); err != nil {
			return nil, nil, err
		}
	}
	for _, e := range list {
		lacks := func(w taker) bool {
			return w.Wants(e, w.boxes) && (w.Position < e.Seq || slices.Contains(waits[e.Seq], w.ID))
		}
		if slices.ContainsFunc(takers, lacks) {
			rest = append(rest, e)
		} else {
			told = append(told, e.Subject)
		}
	}
	return told, rest, nil
}

// recheck looks once more at the last arrivals before this place: a process that
// died between two webhooks may have left them new, and so may one that was waited
// for and is told no more.
func (l *line) recheck(ctx context.Context) error {
	takers, err := l.takers(ctx)
	if err != nil || len(takers) == 0 {
		return err
	}
	events, err := l.t.Store.Events(ctx, l.org, store.EventFilter{After: max(l.hook.Position-recheckLast, 0), Kinds: []string{"arrival.new"}, Limit: recheckLast})
	if err != nil {
		return err
	}
	events = slices.DeleteFunc(events, func(e mailgrant.Event) bool { // nobody told it of these
		return e.Seq > l.hook.Position || e.At.Before(l.hook.CreatedAt) || !l.hook.Wants(e, l.boxes)
	})
	told, _, err := l.partAmong(ctx, takers, events)
	if err != nil {
		return err
	}
	return l.t.Store.ArrivalsTold(ctx, l.org, told)
}
