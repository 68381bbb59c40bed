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
	out := l.attempt(s, it, &a)
	a.EndedAt, a.Fate, a.Reply, a.RemoteID, a.Finding, a.Recipients = l.o.now().UTC(), out.Fate, out.Reply, out.RemoteID, out.Finding, out.Recipients
	l.o.Steps("send.before-record")
	l.settle(it, a, out)
}

func (l *lane) attempt(s *sessions, it item, a *mailgrant.Attempt) (out provider.Outcome) {
	ctx, cancel := context.WithTimeout(l.o.run, sendWithin)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			l.o.Log.Error("a message broke its attempt", "submission", it.sub.ID, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			s.close()
			out = l.poison(it)
		}
	}()
	l.mu.Lock()
	way, wayErr, box := l.way, l.wayErr, l.box
	l.mu.Unlock()
	if wayErr != nil {
		return failed(wayErr)
	}
	if _, mine := l.o.Owner.Fence(l.id); !mine {
		return provider.Outcome{Fate: mailgrant.FateLater, Finding: &mailgrant.Finding{Cause: "unknown", Sentence: "another node works this mailbox now", Who: mailgrant.WhoNobody, Retry: mailgrant.RetryLater}}
	}
	h, err := l.handover(ctx, it, way)
	if err != nil {
		return failed(err)
	}
	way.Mailbox = box
	t, why, err := l.o.Choose(way, h, l.o.Transports)
	if err != nil {
		return failed(err)
	}
	a.Transport, a.Why = t.Name, why
	session, err := s.get(ctx, t, way)
	if err != nil {
		return failed(err)
	}
	l.o.Steps("send.before-bytes")
	out = session.Send(ctx, h)
	l.o.Steps("send.after-answer")
	if out.Broken {
		s.drop(t.Name)
	}
	return out
}

func (l *lane) poison(it item) provider.Outcome {
	l.mu.Lock()
	l.panics[it.sub.ID]++
	n := l.panics[it.sub.ID]
	l.mu.Unlock()
	f := mailgrant.Finding{Cause: "message-invalid", Title: "Message that cannot be handled", Who: mailgrant.WhoOperator, Retry: mailgrant.RetryLater,
		Sentence: "This message makes mailgrant itself fail.", Remedy: "Report it with the trace from the log; send the message in another form."}
	if n < poisonAfter {
		return provider.Outcome{Fate: mailgrant.FateLater, Finding: &f}
	}
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
		first := l.o.chunks(ctx, sub)
		if err := first.fill(); err != nil {
			return nil, err
		}
		block = first.left
		whole := first.left
		h.Open = func() (io.ReadCloser, error) {
			return &chunkReader{o: l.o, ctx: ctx, sub: sub, n: 1, left: whole}, nil
		}
	}
	if w.Settings.GraphURL != "" || w.Settings.GmailURL != "" { // those read the recipients from the header
		head, err := rfc5322.ParseHeader(headerBlock(block))
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

// failed is the outcome of an attempt that did not come as far as the message.
func failed(err error) provider.Outcome {
	e := mailgrant.AsError(err)
	f := e.Finding
	if f == nil {
		f = &mailgrant.Finding{Cause: "unknown", Title: "Not sent", Sentence: e.Message + ".", Remedy: e.Remedy, Who: mailgrant.WhoOperator, Retry: mailgrant.RetryFix}
		if e.Code.Temporary() || e.Code == mailgrant.Internal {
			f.Retry, f.Who = mailgrant.RetryLater, mailgrant.WhoNobody
		}
		if e.Code == mailgrant.Lapsed {
			f.Retry, f.Who = mailgrant.RetryReauthorize, mailgrant.WhoMailboxOwner
		}
		if e.Code == mailgrant.Invalid || e.Code == mailgrant.TooLarge {
			f.Retry = mailgrant.RetryNever
		}
	}
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
func (l *lane) settle(it item, a mailgrant.Attempt, out provider.Outcome) {
	r := store.Record{Attempt: a, Counts: true}
	switch out.Fate {
	case mailgrant.FateDelivered:
		l.delivered(it, &r, out)
	case mailgrant.FateRefused:
		r.State = mailgrant.SubmissionFailed
		r.Events = append(r.Events, event(it.sub, "submission.failed", out.Finding))
		l.works()
		l.bounce(it.sub, r.Attempt, it.sub.Recipients)
	case mailgrant.FateLater:
		l.later(it, &r, out)
	case mailgrant.FateHeld:
		r.State, r.DueAt, r.Counts = mailgrant.SubmissionReady, it.sub.DueAt, false
		l.holdFor(*out.Finding)
	case mailgrant.FateUncertain:
		r.State = mailgrant.SubmissionUncertain
		r.Events = append(r.Events, event(it.sub, "submission.uncertain", out.Finding))
	}
	l.record(r, out.Fate == mailgrant.FateUncertain, it.sub)
}

func event(sub mailgrant.Submission, kind string, f *mailgrant.Finding) mailgrant.Event {
	e := mailgrant.Event{Org: sub.Org, Kind: kind, Subject: sub.ID, App: sub.App, Mailbox: sub.Route.Mailbox}
	if f != nil {
		e.Data = asJSON(map[string]any{"cause": f.Cause, "sentence": f.Sentence, "remedy": f.Remedy, "who": f.Who, "raw": f.Raw})
	}
	return e
}

// delivered also sorts out recipients that were not.
func (l *lane) delivered(it item, r *store.Record, out provider.Outcome) {
	r.State = mailgrant.SubmissionDelivered
	took := len(it.sub.Recipients)
	var refused, later []string
	for _, p := range out.Recipients {
		switch p.Fate {
		case mailgrant.FateRefused:
			refused = append(refused, p.Address)
		case mailgrant.FateLater:
			later = append(later, p.Address)
		}
	}
	took -= len(refused) + len(later)
	l.works()
	l.mu.Lock()
	if l.limits().RecipientsPerDay > 0 {
		r.Handed = took
		l.handed += took
	}
	l.mu.Unlock()
	l.o.succeeded(l.id, r.Attempt.EndedAt)
	if len(refused) > 0 {
		l.bounce(it.sub, r.Attempt, refused)
	}
	if len(later) > 0 && r.Attempt.EndedAt.Before(it.sub.ExpiresAt) {
		r.State, r.Pending, r.DueAt = mailgrant.SubmissionReady, later, l.o.now().Add(backoff(it.sub.Attempts+1, 0))
		r.Events = append(r.Events, event(it.sub, "submission.deferred", out.Finding))
		return
	}
	if len(later) > 0 {
		l.bounce(it.sub, r.Attempt, later)
	}
	r.Events = append(r.Events, event(it.sub, "submission.delivered", nil))
}

// later puts the message off, or gives it up when its life is over. When the way
// is at fault and not the message, the whole lane pauses.
func (l *lane) later(it item, r *store.Record, out provider.Outcome) {
	now := l.o.now()
	wait := backoff(it.sub.Attempts+1, out.RetryAfter)
	if ofTheWay(out.Finding) {
		wait = l.pause(out)
	}
	if now.Add(wait).After(it.sub.ExpiresAt) {
		r.State = mailgrant.SubmissionFailed
		r.Events = append(r.Events, event(it.sub, "submission.failed", out.Finding))
		l.bounce(it.sub, r.Attempt, it.sub.Recipients)
		return
	}
	r.State, r.DueAt, r.Pending = mailgrant.SubmissionReady, now.Add(wait), it.sub.Pending
	r.Events = append(r.Events, event(it.sub, "submission.deferred", out.Finding))
	l.mu.Lock()
	l.alarm(r.DueAt)
	l.mu.Unlock()
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
	l.alarm(l.pauseUntil)
	l.standDown()
	return d
}

// works notes that the mailbox does, and ends a hold.
func (l *lane) works() {
	l.mu.Lock()
	held := l.hold != nil
	l.failures = 0
	l.hold = nil
	l.mu.Unlock()
	if !held {
		return
	}
	if err := l.o.Store.ResumeMailbox(l.o.run, l.org, l.id); err != nil {
		l.o.Log.Warn("resume the mailbox", "mailbox", l.id, "err", err)
	}
	l.o.Router.Forget()
	l.mu.Lock()
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
	box := l.box
	l.standDown()
	l.alarm(h.ProbeAt)
	l.mu.Unlock()
	if err := l.o.Store.HoldMailbox(l.o.run, l.org, l.id, h); err != nil {
		l.o.Log.Error("hold the mailbox", "mailbox", l.id, "err", err)
	}
	l.o.Router.Forget()
	if first {
		l.o.Log.Warn("mailbox held", "mailbox", box.Address, "cause", f.Cause, "who", f.Who, "remedy", f.Remedy)
		l.o.notice(l.o.run, box, f)
	}
}

// standDown gives back what was begun and not sent: it waits in the store. Call
// with mu held.
func (l *lane) standDown() {
	l.more = true
	var begun []mailgrant.Submission
	for _, it := range l.ready {
		begun = append(begun, it.sub)
		l.o.kept.release(it.body)
	}
	for _, it := range l.queue {
		l.o.kept.release(it.body)
	}
	l.ready, l.queue = nil, nil
	if len(begun) == 0 {
		return
	}
	l.start(func() {
		fence, mine := l.o.Owner.Fence(l.id)
		if !mine {
			return
		}
		if err := l.o.Store.UndoAttempt(l.o.run, fence, begun); err != nil {
			l.o.Log.Error("give begun attempts back", "mailbox", l.id, "err", err)
		}
	})
}

func (l *lane) tellThrottled(why string, until time.Time) {
	e := mailgrant.Event{Org: l.org, Kind: "mailbox.throttled", Subject: l.id, Mailbox: l.id, Data: asJSON(map[string]any{"why": why, "until": until.UTC()})}
	if s, ok := l.o.Store.(interface {
		AddEvent(context.Context, mailgrant.Event) error
	}); ok {
		if err := s.AddEvent(l.o.run, e); err != nil {
			l.o.Log.Warn("tell of a throttled mailbox", "mailbox", l.id, "err", err)
		}
	}
}

// record keeps an attempt. What was sent must not be forgotten because the
// database is away for a while: it is tried until it is kept, or the process
// ends and the attempt counts as uncertain.
func (l *lane) record(r store.Record, uncertain bool, sub mailgrant.Submission) {
	fence, mine := l.o.Owner.Fence(l.id)
	if mine {
		r.Fence = fence
	}
	l.o.wg.Add(1)
	var once func(wait time.Duration)
	once = func(wait time.Duration) {
		l.o.Store.RecordAttempt(r, func(err error) {
			switch {
			case err == nil:
				l.o.Steps("send.after-record")
				if uncertain {
					l.mu.Lock()
					l.start(func() { l.lookUp(sub, r.Attempt.Transport) })
					l.mu.Unlock()
				}
			case errors.Is(err, mailgrant.Conflict):
				l.o.Log.Warn("a late result was refused", "submission", sub.ID, "fate", r.Attempt.Fate)
			default:
				l.o.Log.Error("record an attempt", "submission", sub.ID, "fate", r.Attempt.Fate, "err", err)
				time.AfterFunc(wait, func() {
					if l.o.run.Err() != nil {
						l.o.wg.Done()
						return
					}
					once(min(2*wait, 10*time.Second))
				})
				return
			}
			l.o.wg.Done()
		})
	}
	once(200 * time.Millisecond)
}
