package outbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/wire"
	"github.com/mailgrant/mailgrant/internal/rfc5322"
	"github.com/mailgrant/mailgrant/internal/store"
)

// sessions are one worker's open sessions, by transport.
type sessions struct {
	l    *lane
	open map[string]provider.Session
}

func (s *sessions) get(ctx context.Context, t provider.Transport, w provider.Way) (provider.Session, error) {
	if have := s.open[t.Name]; have != nil {
		return have, nil
	}
	s.l.o.Steps("send.connect")
	fresh, err := t.Open(ctx, w)
	if err != nil {
		return nil, err
	}
	if s.open == nil {
		s.open = map[string]provider.Session{}
	}
	s.open[t.Name] = fresh
	return fresh, nil
}

func (s *sessions) drop(name string) {
	if have := s.open[name]; have != nil {
		have.Close()
		delete(s.open, name)
	}
}

func (s *sessions) close() {
	for name := range s.open {
		s.drop(name)
	}
}

const (
	// sendWithin bounds one attempt. RFC 5321 section 4.5.3.2 gives ten minutes
	// for the answer to the final dot alone.
	sendWithin = 15 * time.Minute

	// poisonAfter is how often a message may break us before it is given up.
	poisonAfter = 3
)

// deliver makes one attempt and settles what it came to.
func (l *lane) deliver(s *sessions, it item) {
	defer l.o.kept.release(it.body)
	a := mailgrant.Attempt{Submission: it.sub.ID, Org: it.sub.Org, N: it.sub.Attempts + 1, Mailbox: l.id, StartedAt: l.o.now().UTC(), Node: l.o.Node}
	if _, mine := l.o.Owner.Fence(l.id); !mine {
		l.putBack(it)
		return
	}
	out, reached := l.attempt(s, it, &a)
	a.EndedAt, a.Fate, a.Reply, a.RemoteID, a.Finding, a.Recipients = l.o.now().UTC(), out.Fate, out.Reply, out.RemoteID, out.Finding, out.Recipients
	l.o.Steps("send.before-record")
	l.settle(it, a, out, reached)
}

// putBack keeps a message that must not be sent from here: not without the lane.
func (l *lane) putBack(it item) {
	it.body = nil // deliver releases it
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flying -= len(it.recipients())
	l.stray = append(l.stray, it)
	l.pauseUntil = later(l.pauseUntil, l.o.now().Add(time.Second))
	l.standDown()
}

// attempt tries once. Reached says whether the other side had to do with the
// message, so that a failure may be the message's.
func (l *lane) attempt(s *sessions, it item, a *mailgrant.Attempt) (out provider.Outcome, reached bool) {
	ctx, cancel := context.WithTimeout(l.o.run, sendWithin)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			l.o.Log.Error("a message broke its attempt", "submission", it.sub.ID, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			s.close()
			out, reached = l.poison(it), false
		}
	}()
	l.mu.Lock()
	way, wayErr, box := l.way, l.wayErr, l.box
	l.mu.Unlock()
	if wayErr != nil {
		return failed(wayErr), false
	}
	h, err := l.handover(ctx, it, way)
	if errors.Is(err, mailgrant.NotFound) {
		return bodyless(err), false
	}
	if err != nil {
		return failed(err), false
	}
	way.Mailbox = box
	t, why, err := l.o.Choose(way, h, l.o.Transports)
	if err != nil {
		return failed(err), false
	}
	a.Transport, a.Why = t.Name, why
	session, err := s.get(ctx, t, way)
	if err != nil {
		return failed(err), false
	}
	l.o.Steps("send.before-bytes")
	out = session.Send(ctx, h)
	l.o.Steps("send.after-answer")
	if out.Broken {
		s.drop(t.Name)
	}
	return out, true
}

// poison is what becomes of a message that breaks us: after a few tries it is
// given up, and the others are not kept waiting for it. RE-14.
func (l *lane) poison(it item) provider.Outcome {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.panics[it.sub.ID]++
	f := mailgrant.Finding{Cause: "message-invalid", Title: "Message that cannot be handled", Who: mailgrant.WhoOperator, Retry: mailgrant.RetryLater,
		Sentence: "This message makes mailgrant itself fail.", Remedy: "Report it with the trace from the log; send the message in another form."}
	if l.panics[it.sub.ID] < poisonAfter {
		return provider.Outcome{Fate: mailgrant.FateLater, Finding: &f}
	}
	delete(l.panics, it.sub.ID)
	f.Retry = mailgrant.RetryNever
	return provider.Outcome{Fate: mailgrant.FateRefused, Finding: &f}
}

// handover is the message as a transport takes it.
func (l *lane) handover(ctx context.Context, it item, w provider.Way) (*provider.Handover, error) {
	sub := it.sub
	h := &provider.Handover{From: sub.EnvelopeFrom, Recipients: sub.Recipients, MessageID: sub.MessageID, Size: sub.Size, EightBit: sub.EightBit, UTF8: sub.UTF8}
	if len(sub.Pending) > 0 {
		h.Recipients = sub.Pending
	}
	var block []byte
	if it.body != nil {
		h.Open = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(it.body)), nil }
		block = it.body
	} else {
		first, err := l.o.bodies().Open(ctx, sub.Org, sub.ID, sub.Size)
		if err != nil {
			return nil, err
		}
		block = first.First()
		h.Open = func() (io.ReadCloser, error) { return first.Again(block), nil }
	}
	if w.Settings.GraphURL != "" || w.Settings.GmailURL != "" { // those read the recipients from the header
		head, err := rfc5322.ParseHeader(rfc5322.Block(block))
		if err != nil {
			return nil, err
		}
		for _, list := range [][]rfc5322.Address{head.To, head.Cc} {
			for _, a := range list {
				h.HeaderRecipients = append(h.HeaderRecipients, a.String())
			}
		}
	}
	return h, nil
}

// bodyless is the outcome of a message whose body is not kept any more. It must not
// hold the mailbox: no setting brings the body back.
func bodyless(err error) provider.Outcome {
	return provider.Outcome{Fate: mailgrant.FateRefused, Reply: err.Error(), Finding: &mailgrant.Finding{Cause: "message-invalid", Title: "Message without a body",
		Sentence: "The body of this message is no longer kept.", Remedy: "Send the message again.", Who: mailgrant.WhoOperator, Retry: mailgrant.RetryNever}}
}

// failed is the outcome of an attempt that did not come as far as the message.
func failed(err error) provider.Outcome {
	f := wire.FindingOf(err)
	out := provider.Outcome{Fate: mailgrant.FateLater, Finding: f, RetryAfter: f.RetryAfter, Reply: f.Raw}
	switch {
	case f.NeedsPerson():
		out.Fate = mailgrant.FateHeld
	case f.Retry == mailgrant.RetryNever:
		out.Fate = mailgrant.FateRefused
	}
	return out
}

// settle turns an outcome into a record and into what the lane does next.
func (l *lane) settle(it item, a mailgrant.Attempt, out provider.Outcome, reached bool) {
	r := result{Record: store.Record{Attempt: a, Counts: true, Fence: it.fence, Pending: it.sub.Pending}, it: it}
	switch out.Fate {
	case mailgrant.FateDelivered:
		l.delivered(&r, out)
	case mailgrant.FateRefused:
		r.State = mailgrant.SubmissionFailed
		r.Events = append(r.Events, event(it.sub, "submission.failed", out.Finding))
		r.bounce = it.recipients()
		if reached {
			l.works()
		}
	case mailgrant.FateLater:
		l.later(&r, out, reached)
	case mailgrant.FateHeld:
		r.State, r.DueAt, r.Counts = mailgrant.SubmissionReady, it.sub.DueAt, false
		if out.Finding == nil {
			out.Finding = failed(errors.New("held for no reason")).Finding
		}
		l.holdFor(*out.Finding)
	case mailgrant.FateUncertain:
		r.State = mailgrant.SubmissionUncertain
		r.Events = append(r.Events, event(it.sub, "submission.uncertain", out.Finding))
	}
	l.record(r)
}

func event(sub mailgrant.Submission, kind string, f *mailgrant.Finding) mailgrant.Event {
	e := mailgrant.Event{Org: sub.Org, Kind: kind, Subject: sub.ID, App: sub.App, Mailbox: sub.Route.Mailbox}
	if f != nil {
		e.Data = asJSON(map[string]any{"cause": f.Cause, "sentence": f.Sentence, "remedy": f.Remedy, "who": f.Who, "raw": f.Raw})
	}
	return e
}

// delivered also sorts out recipients that were not.
func (l *lane) delivered(r *result, out provider.Outcome) {
	sub := r.it.sub
	r.State, r.Pending = mailgrant.SubmissionDelivered, nil
	var refused, put []string
	for _, p := range out.Recipients {
		switch p.Fate {
		case mailgrant.FateRefused:
			refused = append(refused, p.Address)
		case mailgrant.FateLater:
			put = append(put, p.Address)
		}
	}
	l.works()
	l.mu.Lock()
	if l.limits().RecipientsPerDay > 0 {
		r.Handed = len(r.it.recipients()) - len(refused) - len(put)
	}
	ends := l.ends(sub, r.Attempt.EndedAt)
	l.mu.Unlock()
	l.o.succeeded(store.Lane{Org: l.org, Mailbox: l.id}, r.Attempt.EndedAt)
	r.bounce = refused
	if len(put) > 0 && r.Attempt.EndedAt.Before(ends) {
		r.State, r.Pending, r.DueAt = mailgrant.SubmissionReady, put, l.o.now().Add(backoff(sub.Attempts+1, 0))
		r.Events = append(r.Events, event(sub, "submission.deferred", out.Finding))
		return
	}
	r.bounce = append(r.bounce, put...)
	r.Events = append(r.Events, event(sub, "submission.delivered", nil))
}

// placeKept is how many attempts a message keeps its place for, when the way
// seems to be at fault: then others go first, lest it stop them all.
const placeKept = 3

// later puts the message off, or gives it up when its life is over. When the way
// is at fault and not the message, the whole lane pauses and the order stays.
func (l *lane) later(r *result, out provider.Outcome, reached bool) {
	sub, now := r.it.sub, l.o.now()
	wait := backoff(sub.Attempts+1, out.RetryAfter)
	due := now.Add(wait)
	if ofTheWay(out.Finding) {
		wait = l.pause(out)
		if due = now.Add(wait); !reached || sub.Attempts < placeKept {
			due = sub.DueAt
		}
	}
	l.mu.Lock()
	ends := l.ends(sub, now)
	l.mu.Unlock()
	if now.Add(wait).After(ends) {
		r.expire()
		return
	}
	r.State, r.DueAt = mailgrant.SubmissionReady, due
	r.Events = append(r.Events, event(sub, "submission.deferred", out.Finding))
}

// expire ends a submission whose life is over.
func (r *result) expire() {
	r.State, r.bounce = mailgrant.SubmissionFailed, r.it.recipients()
	r.Events = append(r.Events, event(r.it.sub, "submission.failed", r.Attempt.Finding))
}

// giveUp ends a submission that outlived its life before its turn came.
func (l *lane) giveUp(it item) {
	fence, mine := l.o.Owner.Fence(l.id)
	if !mine {
		return
	}
	f := it.sub.Finding
	if f == nil {
		f = &mailgrant.Finding{Cause: "unknown", Title: "Not sent in time", Sentence: "The mailbox could not send for as long as this message was to be tried.",
			Remedy: "Look at what its other messages failed with, and send this one again.", Who: mailgrant.WhoOperator, Retry: mailgrant.RetryLater}
	}
	now := l.o.now().UTC()
	r := result{it: it, Record: store.Record{Fence: fence, Pending: it.sub.Pending, Attempt: mailgrant.Attempt{Submission: it.sub.ID, Org: it.sub.Org,
		N: it.sub.Attempts + 1, Mailbox: l.id, StartedAt: now, EndedAt: now, Fate: mailgrant.FateLater, Reply: "its life is over", Finding: f, Node: l.o.Node}}}
	r.expire()
	l.mu.Lock()
	l.flying += len(it.recipients())
	l.mu.Unlock()
	l.record(r)
}

const (
	backoffFirst = 30 * time.Second
	backoffMax   = time.Hour
)

// backoff is when a message is tried again, after its nth failure. What the
// other side asks for counts, up to an hour. R-RE7.
func backoff(n int, asked time.Duration) time.Duration {
	if asked > 0 {
		return min(asked, backoffMax)
	}
	d := backoffFirst << min(n-1, 10)
	d = min(d, backoffMax)
	return d*4/5 + rand.N(d*2/5)
}

// ofTheWay says whether a passing fault is the connection's or the mailbox's and
// so would meet the next message too.
func ofTheWay(f *mailgrant.Finding) bool {
	if f == nil {
		return false
	}
	switch f.Cause {
	case "recipient-rejected", "recipient-domain-unreachable", "message-invalid", "message-too-large", "mailbox-full":
		return false
	}
	return true
}

// pause stops the lane for as long as the other side asked, or a growing time.
func (l *lane) pause(out provider.Outcome) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failures++
	d := out.RetryAfter
	if d <= 0 {
		d = min(time.Second<<min(l.failures-1, 9), 5*time.Minute)
		d = d*4/5 + rand.N(d*2/5)
	}
	d = min(d, backoffMax)
	until := l.o.now().Add(d)
	if until.After(l.pauseUntil) {
		l.pauseUntil = until
		if out.RetryAfter > 0 && out.Finding != nil {
			sentence := out.Finding.Sentence
			l.start(func() { l.tellThrottled(sentence, until) })
		}
	}
	l.readAt = time.Time{}
	l.standDown()
	l.plan()
	return d
}

// works notes that the mailbox does, and ends a hold.
func (l *lane) works() {
	l.mu.Lock()
	held := l.hold != nil
	l.failures = 0
	if !held {
		l.mu.Unlock()
		return
	}
	l.hold = nil
	l.telling++
	l.mu.Unlock()
	if err := l.o.Store.ResumeMailbox(l.o.run, l.org, l.id); err != nil {
		l.o.Log.Warn("resume the mailbox", "mailbox", l.id, "err", err) // it is read again, and probed again
	}
	l.o.Router.Forget()
	l.mu.Lock()
	l.telling--
	l.readAt, l.more = time.Time{}, true
	l.mu.Unlock()
}

const (
	probeFirst = time.Minute
	probeMax   = 15 * time.Minute
)

// holdFor keeps the mailbox's submissions back until somebody mended the cause.
// A probe tries again by itself, ever more seldom.
func (l *lane) holdFor(f mailgrant.Finding) {
	now := l.o.now()
	l.mu.Lock()
	if l.hold != nil && now.Before(l.hold.ProbeAt) { // it was under way when another met the cause
		l.mu.Unlock()
		return
	}
	h := mailgrant.Hold{Finding: f, Since: now.UTC()}
	if l.hold != nil {
		h.Since, h.Probes = l.hold.Since, l.hold.Probes+1
		if h.Since.IsZero() {
			h.Since = now.UTC()
		}
	}
	wait := min(probeFirst<<min(h.Probes, 4), probeMax)
	h.ProbeAt = now.Add(wait).UTC()
	first := l.hold == nil
	l.hold = &h
	l.telling++
	box := l.box
	l.standDown()
	l.plan()
	l.mu.Unlock()
	if err := l.o.Store.HoldMailbox(l.o.run, l.org, l.id, h); err != nil {
		l.o.Log.Error("hold the mailbox", "mailbox", l.id, "err", err)
	}
	l.o.Router.Forget()
	l.mu.Lock()
	l.telling--
	l.mu.Unlock()
	if first {
		l.o.Log.Warn("mailbox held", "mailbox", box.Address, "cause", f.Cause, "who", f.Who, "remedy", f.Remedy)
		l.o.notice(l.o.run, box, f)
	}
}

func (l *lane) tellThrottled(why string, until time.Time) {
	e := mailgrant.Event{Org: l.org, Kind: "mailbox.throttled", Subject: l.id, Mailbox: l.id, Data: asJSON(map[string]any{"why": why, "until": until.UTC()})}
	if err := l.o.Store.AddEvent(l.o.run, e); err != nil {
		l.o.Log.Warn("tell of a throttled mailbox", "mailbox", l.id, "err", err)
	}
}

// A result is what an attempt came to, on its way to the store.
type result struct {
	store.Record
	it     item
	bounce []string // recipients that were given up
}

// record keeps an attempt. What was sent must not be forgotten because the
// database is away for a while: it is tried until it is kept, or the process
// ends and the attempt counts as uncertain. The lane is not given away before:
// the record of a lane that is another node's is refused, and it would send again.
func (l *lane) record(r result) {
	l.wg.Add(1)
	l.o.wg.Add(1)
	l.keep(r, 200*time.Millisecond)
}

func (l *lane) recordDone() {
	l.wg.Done()
	l.o.wg.Done()
}

func (l *lane) keep(r result, wait time.Duration) {
	again := func(err error) {
		l.o.Log.Error("record an attempt", "submission", r.it.sub.ID, "fate", r.Attempt.Fate, "err", err)
		time.AfterFunc(wait, func() {
			if l.o.run.Err() != nil {
				l.recordDone()
				return
			}
			l.keep(r, min(2*wait, 10*time.Second))
		})
	}
	if len(r.bounce) > 0 && r.Bounce == nil {
		b, err := l.bounce(r)
		if err != nil && mailgrant.AsError(err).Code.Temporary() {
			again(err)
			return
		}
		if err != nil {
			l.o.Log.Error("nobody is told of what was not sent", "submission", r.it.sub.ID, "err", err)
		}
		r.Bounce, r.bounce = b, nil
	}
	l.o.Store.RecordAttempt(r.Record, func(err error) {
		if err != nil && !errors.Is(err, mailgrant.Conflict) {
			again(err)
			return
		}
		l.recorded(r, err)
		l.recordDone()
	})
}

// recorded goes on after an attempt is durable.
func (l *lane) recorded(r result, err error) {
	if err != nil {
		l.o.Log.Warn("a late result was refused", "submission", r.it.sub.ID, "fate", r.Attempt.Fate)
	} else {
		l.o.Steps("send.after-record")
	}
	l.mu.Lock()
	l.flying -= len(r.it.recipients())
	l.handed += r.Handed
	switch {
	case err != nil:
	case r.State == mailgrant.SubmissionReady:
		l.dueAt(r.DueAt)
	case r.State == mailgrant.SubmissionUncertain:
		l.start(func() { l.lookUp(r.it.sub, r.Fence, r.Attempt.Transport, false) })
	}
	l.mu.Unlock()
	if err == nil && r.Bounce != nil {
		l.o.Look(r.Bounce.Submission.Org, r.Bounce.Submission.Route.Mailbox)
	}
}
