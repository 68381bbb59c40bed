package outbox

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/store"
)

// lookAfter is how long to wait before each look into Sent Items for a message
// whose answer was lost: the copy takes a moment.
var lookAfter = []time.Duration{2 * time.Second, 8 * time.Second}

// recover looks after the submissions whose attempt began under an earlier owner
// of the lane. They may have been sent: what became of them is found out beside
// the lane's other work.
func (l *lane) recover(ctx context.Context) error {
	if l.recovered {
		return nil
	}
	fence, mine := l.o.Owner.Fence(l.id)
	if !mine {
		return errNotMine
	}
	subs, err := l.o.Store.Unfinished(ctx, l.id)
	if err != nil {
		return err
	}
	for _, sub := range subs {
		if err := l.o.Store.MarkUncertain(ctx, fence, sub); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.recovered = true
	for _, sub := range subs {
		l.start(func() { l.lookUp(sub, fence, "", true) })
	}
	return nil
}

// lookUp finds out what became of a message that may have been sent. Found in
// Sent Items, it is delivered; not found, it goes again; where nobody can look,
// the mailbox's policy decides. An attempt that nobody recorded is counted here.
func (l *lane) lookUp(sub mailgrant.Submission, fence store.Fence, transport string, uncounted bool) {
	ctx := l.o.run
	if err := l.read(ctx); err != nil {
		l.o.Log.Warn("read the mailbox", "mailbox", l.id, "err", err)
	}
	l.mu.Lock()
	way, wayErr, policy := l.way, l.wayErr, l.box.Uncertain
	l.mu.Unlock()
	at := l.o.now().UTC()
	found, looked := false, false
	if wayErr == nil {
		found, looked = l.find(ctx, way, sub)
	}
	if ctx.Err() != nil {
		return // it stays uncertain, and is looked for again at the next start
	}
	r := result{it: item{sub: sub}, Record: store.Record{Counts: uncounted, Fence: fence, Pending: sub.Pending, Attempt: mailgrant.Attempt{
		Submission: sub.ID, Org: sub.Org, N: sub.Attempts + 1, Mailbox: l.id, Transport: transport, StartedAt: at, EndedAt: l.o.now().UTC(), Node: l.o.Node}}}
	r.Attempt.Fate, r.State, r.DueAt = mailgrant.FateLater, mailgrant.SubmissionReady, sub.DueAt // in its old place
	switch {
	case found:
		r.Attempt.Fate, r.Attempt.Reply = mailgrant.FateDelivered, "found in Sent Items by its Message-ID"
		r.State, r.Pending = mailgrant.SubmissionDelivered, nil
		r.Events = append(r.Events, event(sub, "submission.delivered", nil))
	case looked:
		r.Attempt.Reply = "not in Sent Items: it is sent again"
	case policy == "hold":
		return // it stays uncertain until a person retries or leaves it
	default:
		r.Attempt.Reply, r.Duplicate = "it may have been sent, and nobody can look: it is sent again", true
	}
	l.mu.Lock()
	l.flying += len(r.it.recipients())
	l.mu.Unlock()
	l.record(r)
}

// find looks into Sent Items until the message is there or must be thought not to
// be; looked is false when nobody could tell. Where nobody may look, it does not
// go on waiting.
func (l *lane) find(ctx context.Context, w provider.Way, sub mailgrant.Submission) (found, looked bool) {
	for _, wait := range lookAfter {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return false, false
		}
		ok, err := l.lookOnce(ctx, w, sub)
		if ok {
			return true, true
		}
		if looked = err == nil; err != nil && !mailgrant.AsError(err).Code.Temporary() {
			return false, false
		}
	}
	return false, looked
}

// lookOnce looks by the first transport that can.
func (l *lane) lookOnce(ctx context.Context, w provider.Way, sub mailgrant.Submission) (found bool, err error) {
	l.looking <- struct{}{}
	defer func() { <-l.looking }()
	err = errNoLook
	for _, name := range slices.Sorted(maps.Keys(l.o.Transports)) {
		t := l.o.Transports[name]
		if t.Find == nil {
			continue
		}
		if found, err = t.Find(ctx, w, sub.MessageID, sub.AcceptedAt); err == nil {
			return found, nil
		}
		l.o.Log.Info("look in Sent Items", "submission", sub.ID, "transport", t.Name, "err", err)
	}
	return false, err
}

// errNoLook says that no transport of ours can look.
var errNoLook = mailgrant.Errorf(mailgrant.Misset, nil, "no way of sending shows what was sent").Fix("let the grant cover reading too")

func asJSON(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	return b
}
