package webhook

import (
	"context"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/store"
)

// A Span says what is to be told once more: by number, by time, one delivery, or all
// that was given up.
type Span struct {
	From, To     *int64 // both included; no To is up to now
	Since, Until *time.Time
	Delivery     mailgrant.ID
	DeadLetters  bool
}

// A Replayed is what is told once more: events from one number to another, of which
// a webhook is told what it wants, or so many dead letters.
type Replayed struct{ From, To, DeadLetters int64 }

// Replay has a webhook told once more of events that it may have been told of.
func (t *Teller) Replay(ctx context.Context, org, id mailgrant.ID, s Span) (Replayed, error) {
	w, err := t.Store.Webhook(ctx, org, id)
	if err != nil {
		return Replayed{}, err
	}
	if w.State == mailgrant.WebhookDisabled {
		return Replayed{}, mailgrant.Errorf(mailgrant.Conflict, nil, "the webhook %s is switched off", w.Name).Fix("switch it on first: mailgrant webhook change %s --enable", id)
	}
	if s.DeadLetters {
		n, err := t.Store.ReplayDead(ctx, org, id)
		if err == nil {
			t.Look(org, id)
		}
		return Replayed{DeadLetters: n}, err
	}
	first, last, err := t.span(ctx, w, s)
	if err != nil {
		return Replayed{}, err
	}
	if last < first {
		return Replayed{}, mailgrant.Errorf(mailgrant.Invalid, nil, "there are no events in that span").Fix("look at the log: mailgrant events").At("from")
	}
	if err := t.Store.AddReplay(ctx, org, id, store.Replay{ID: mailgrant.NewID("rpl"), Position: first - 1, Until: last}); err != nil {
		return Replayed{}, err
	}
	t.Look(org, id)
	return Replayed{From: first, To: last}, nil
}

// span finds the numbers of what is asked for.
func (t *Teller) span(ctx context.Context, w mailgrant.Webhook, s Span) (first, last int64, err error) {
	if s.Delivery != "" {
		first, err = t.eventOf(ctx, w, s.Delivery)
		return first, first, err
	}
	newest, err := t.Store.LastEvent(ctx, w.Org)
	if err != nil {
		return 0, 0, err
	}
	first, last = 1, newest
	switch {
	case s.Since != nil:
		if first, err = t.Store.EventBefore(ctx, w.Org, *s.Since); err != nil {
			return 0, 0, err
		}
		first++
	case s.From != nil:
		first = max(*s.From, 1)
	default:
		return 0, 0, mailgrant.Errorf(mailgrant.Invalid, nil, "it is not said what is to be told once more").
			Fix("give a time or number to begin with, a delivery, or dead letters").At("from")
	}
	if s.To != nil {
		last = min(*s.To, newest)
	}
	if s.Until != nil {
		until, err := t.Store.EventBefore(ctx, w.Org, *s.Until)
		if err != nil {
			return 0, 0, err
		}
		last = min(last, until)
	}
	return first, last, nil
}

// idDrift is how far the time in the id of a delivery may be from where its event
// stands in the log.
const idDrift = 5 * time.Second

// eventOf finds the event of a delivery: by the log of tries, and when it is no
// more there, by the time in its id.
func (t *Teller) eventOf(ctx context.Context, w mailgrant.Webhook, id mailgrant.ID) (int64, error) {
	d, err := t.Store.Delivered(ctx, w.Org, w.ID, id)
	if err == nil && d.Event > 0 {
		return d.Event, nil
	}
	at := id.Time()
	if !id.Is(mailgrant.PrefixDelivery) || at.IsZero() {
		return 0, store.Absent("delivery", id)
	}
	after, err := t.Store.EventBefore(ctx, w.Org, at.Add(-idDrift))
	for err == nil {
		var l []mailgrant.Event
		l, err = t.Store.Events(ctx, w.Org, store.EventFilter{After: after, Limit: 500})
		for _, e := range l {
			if DeliveryID(w.ID, e) == id {
				return e.Seq, nil
			}
			after = e.Seq
		}
		if len(l) == 0 || l[len(l)-1].At.After(at.Add(idDrift)) {
			break
		}
	}
	if err != nil {
		return 0, err
	}
	return 0, store.Absent("delivery", id)
}
