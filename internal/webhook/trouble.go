package webhook

import (
	"context"
	"fmt"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/store"
)

// A trouble is what went wrong since an endpoint took something the last time. When
// so much did that it seems to take nothing, it is down, and one event at a time is
// tried.
type trouble struct {
	streak  int          // failures in a row
	single  mailgrant.ID // the lane of all of them
	several bool         // or of more than one
	answers bool         // some of them were answers
	blocked bool         // one was refused by the egress rules, and it was said
	since   time.Time    // the first of them; of one that is failing, as it was told
	told    bool         // that it is failing

	down    bool      // takes nothing: one event at a time is tried
	seek    bool      // down: events of a mailbox that was not tried yet are looked for
	probes  int       // since it is down
	probeAt time.Time // the next
}

const (
	// life is how long an event is tried.
	life = 3 * 24 * time.Hour

	// downAfter failures in a row mean that the endpoint takes nothing: of several
	// lanes, or without any answer.
	downAfter = 4

	// An endpoint that takes nothing is tried after firstProbe, then after twice as
	// long, up to probeMax; for a mailbox that was not tried it is no later than
	// freshProbe.
	firstProbe = time.Second
	probeMax   = 5 * time.Minute
	freshProbe = 30 * time.Second
)

// count sees whether an endpoint takes nothing at all.
func (l *line) count(n *lane, d done, now time.Time) {
	if l.streak++; l.streak == 1 {
		l.single = n.mailbox
		if l.since.IsZero() {
			l.since = d.out.at
		}
	}
	l.several = l.several || l.single != n.mailbox
	l.answers = l.answers || d.out.status != 0
	if d.out.blocked && !l.blocked {
		l.blocked, l.out.urgent = true, true
		l.say("webhook.blocked", map[string]string{"host": hostOf(l.target.url)})
	}
	if !l.down && l.streak >= downAfter && (l.several || !l.answers) {
		l.down, l.probes = true, 0
	}
	if l.down {
		l.probes++
		l.probeAt = now.Add(max(backoff(firstProbe, probeMax, l.probes), d.out.after))
		l.seek = d.out.status != 0
	}
	if !l.told && (l.down || l.streak > downAfter) {
		l.told, l.out.urgent = true, true
		f := failing(l.hook, d.out.err, l.since)
		l.out.Turn = &store.Turn{State: mailgrant.WebhookFailing, Finding: &f, Since: l.since}
		l.say("webhook.failing", f)
	}
}

// nextProbe is when the next event is tried of an endpoint that takes nothing. Is
// there one of a mailbox that was not tried, and are tries answered, it is sooner:
// it may be that only the events of some mailboxes are not taken.
func (l *line) nextProbe() time.Time {
	if fresh := l.probedAt.Add(freshProbe); l.answers && len(l.ready) > 0 && fresh.Before(l.probeAt) {
		return fresh
	}
	return l.probeAt
}

// probe tries one event of an endpoint that takes nothing: of a lane that was not
// tried yet, or else of the one that waits longest.
func (l *line) probe(ctx context.Context, now time.Time) {
	l.probedAt = now
	for len(l.ready) > 0 {
		n := l.ready[0]
		l.ready = l.ready[1:]
		n.listed = false
		if l.send(ctx, n, now) {
			return
		}
	}
	var first *lane
	for _, n := range l.lanes {
		if !n.due.IsZero() && n.unsaved == 0 && (first == nil || n.due.Before(first.due)) {
			first = n
		}
	}
	if first != nil {
		l.blocks--
		first.due, l.back = time.Time{}, now
	}
	if first == nil || !l.send(ctx, first, now) {
		l.probeAt = now.Add(firstProbe)
	}
}

// works says that the endpoint takes events.
func (l *line) works(now time.Time) {
	if l.down {
		l.back = now
		l.unblock()
		l.more = true
	}
	if l.told {
		l.out.urgent = true
		l.out.Turn = &store.Turn{State: mailgrant.WebhookActive}
		l.say("webhook.recovered", nil)
	}
	l.trouble = trouble{}
}

// expires says whether the endpoint has taken nothing for as long as an event is
// tried.
func (l *line) expires(now time.Time) bool { return l.down && now.Sub(l.since) >= life }

// late says whether an event of the log is as old as one may get. It is given up with
// an endpoint that has taken nothing for as long.
func (it item) late(now time.Time) bool {
	return it.place != nil && !it.again && now.Sub(it.e.At) >= life
}

// expire gives up what is too old of an endpoint that has taken nothing for days:
// what is in memory, and what waits in the store.
func (l *line) expire(now time.Time) {
	l.out.Expire = now.Add(-life)
	for _, n := range l.lanes {
		if n.busy {
			continue
		}
		kept := n.queue[:0]
		for _, it := range n.queue {
			if !it.late(now) {
				kept = append(kept, it)
				continue
			}
			l.held--
			l.bury(it, l.untried(it, now), now)
		}
		n.queue = kept
	}
	l.more = true
	l.touch(now)
}

// bury gives an event up. It stays listed, and may be replayed.
func (l *line) bury(it item, last mailgrant.Delivery, now time.Time) {
	l.out.Wait = append(l.out.Wait, store.WaitingEvent{Event: it.e, Attempts: it.attempts, Since: it.since, Dead: true, Last: &last})
	if it.place != nil {
		it.place.done = true
	} else {
		l.gone[row{it.e.Mailbox, it.e.Seq}] = true
	}
	if l.out.dead++; l.out.dead == 1 {
		l.out.first = last.ID
	}
	l.touch(now)
}

// untried is the record of an event that is given up with the others.
func (l *line) untried(it item, now time.Time) mailgrant.Delivery {
	d := l.try(it, done{})
	d.State, d.Error, d.At = mailgrant.DeliveryDead, "nothing was taken for three days", now.UTC()
	return d
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
