package outbox

import (
	"context"
	"encoding/json"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/store"
)

// lookAfter is when Sent Items is looked at for a message whose answer was lost:
// the copy takes a moment.
var lookAfter = []time.Duration{2 * time.Second, 10 * time.Second}

// unfinished are the submissions whose attempt began in a process that is gone.
func (l *lane) unfinished() {
	fence, mine := l.o.Owner.Fence(l.id)
	if !mine {
		return
	}
	subs, err := l.o.Store.Unfinished(l.o.run, l.id)
	if err != nil {
		l.o.Log.Error("look for unfinished attempts", "mailbox", l.id, "err", err)
		return
	}
	for _, sub := range subs {
		if err := l.o.Store.MarkUncertain(l.o.run, fence, sub); err != nil {
			l.o.Log.Error("mark an unfinished attempt", "submission", sub.ID, "err", err)
			continue
		}
		l.lookUp(sub, "")
	}
}

// lookUp finds out what became of a message that may have been sent. Found in
// Sent Items, it is delivered; not found, it goes again; where nobody can look,
// the mailbox's policy decides.
func (l *lane) lookUp(sub mailgrant.Submission, transport string) {
	ctx := l.o.run
	if err := l.read(ctx); err != nil {
		l.o.Log.Warn("read the mailbox", "mailbox", l.id, "err", err)
	}
	l.mu.Lock()
	way, wayErr, policy := l.way, l.wayErr, l.box.Uncertain
	l.mu.Unlock()
	found, looked := false, false
	if wayErr == nil {
		found, looked = l.look(ctx, way, sub)
	}
	a := mailgrant.Attempt{Submission: sub.ID, Org: sub.Org, N: sub.Attempts + 2, Mailbox: l.id, Transport: transport, StartedAt: l.o.now().UTC(),
		EndedAt: l.o.now().UTC(), Node: l.o.Node}
	r := store.Record{Attempt: a, Counts: true}
	switch {
	case found:
		r.Attempt.Fate, r.Attempt.Reply = mailgrant.FateDelivered, "found in Sent Items by its Message-ID"
		r.State = mailgrant.SubmissionDelivered
		r.Events = append(r.Events, event(sub, "submission.delivered", nil))
	case looked:
		r.Attempt.Fate, r.Attempt.Reply = mailgrant.FateLater, "not in Sent Items: it is sent again"
		r.State, r.DueAt = mailgrant.SubmissionReady, l.o.now()
	case policy == "hold":
		return // it stays uncertain until a person retries or leaves it
	default:
		r.Attempt.Fate, r.Attempt.Reply = mailgrant.FateLater, "it may have been sent, and nobody can look: it is sent again"
		r.State, r.DueAt, r.Duplicate = mailgrant.SubmissionReady, l.o.now(), true
	}
	l.record(r, false, sub)
	l.mu.Lock()
	l.more = true
	l.alarm(l.o.now().Add(20 * time.Millisecond)) // after the record
	l.mu.Unlock()
}

func (l *lane) look(ctx context.Context, w provider.Way, sub mailgrant.Submission) (found, looked bool) {
	for _, t := range l.o.Transports {
		if t.Find == nil {
			continue
		}
		for _, wait := range lookAfter {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return false, false
			}
			ok, err := t.Find(ctx, w, sub.MessageID, sub.AcceptedAt)
			if err != nil {
				l.o.Log.Info("look in Sent Items", "submission", sub.ID, "transport", t.Name, "err", err)
				looked = false
				break
			}
			if ok {
				return true, true
			}
			looked = true
		}
		if looked {
			return false, true
		}
	}
	return false, false
}

func asJSON(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	return b
}
