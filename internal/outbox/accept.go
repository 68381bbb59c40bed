package outbox

import (
	"context"
	"strings"
	"sync/atomic"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/rfc5322"
	"github.com/mailgrant/mailgrant/internal/route"
	"github.com/mailgrant/mailgrant/internal/store"
)

// An Envelope is what a door knows of a message besides its bytes.
type Envelope struct {
	From           string // "" for a message that must not bounce
	Recipients     []string
	Class          mailgrant.Class
	OnBehalfOf     string
	Named          mailgrant.ID // a mailbox the caller named
	IdempotencyKey string
	Digest         []byte // of the request, where the same request makes other bytes each time; nil: of the bytes
	SendAt         time.Time
	UTF8           bool // an address needs SMTPUTF8
	Trace          mailgrant.ID
}

const (
	// keyLife is how long an idempotency key is remembered.
	keyLife = 7 * 24 * time.Hour

	// acceptWithin is how long a door waits for the database. RE-06.
	acceptWithin = 8 * time.Second

	// hopsMax ends a loop. RFC 5321 section 6.3.
	hopsMax = 100

	// sendAtMax is how far ahead a message may be dated.
	sendAtMax = 366 * 24 * time.Hour
)

// CheckSender says early, at MAIL FROM, whether this caller can send as from at
// all. Accept asks again with the whole header.
func (o *Outbox) CheckSender(ctx context.Context, c mailgrant.Caller, from string, class mailgrant.Class) error {
	if from == "" {
		return nil
	}
	_, m, err := o.Router.Choose(ctx, c, route.Request{Class: class, From: from})
	if err != nil {
		return err
	}
	return o.Sender.MaySend(ctx, c, m, []string{from})
}

// Accept takes responsibility for a message. Once it returns nil, the message
// will be sent, or its sender will hear why not, even if the power fails now.
// The same idempotency key twice is the same submission.
func (o *Outbox) Accept(ctx context.Context, c mailgrant.Caller, e Envelope, d *Draft) (mailgrant.Submission, error) {
	if d.err != nil {
		return mailgrant.Submission{}, d.err
	}
	if err := o.keepPace(c); err != nil {
		return mailgrant.Submission{}, err
	}
	h, err := rfc5322.ParseHeader(rfc5322.Block(d.First))
	if err != nil {
		return mailgrant.Submission{}, err
	}
	sub, m, err := o.submission(ctx, c, e, d, h)
	if err != nil {
		return mailgrant.Submission{}, err
	}
	return o.take(ctx, e, d, h, sub, m)
}

func (o *Outbox) keepPace(c mailgrant.Caller) error {
	if c.App.PerMinute <= 0 {
		return nil
	}
	now := o.now()
	o.mu.Lock()
	defer o.mu.Unlock()
	p := o.paces[c.App.ID].of(c.App.PerMinute)
	o.paces[c.App.ID] = p
	wait := p.wait(now)
	if wait == 0 {
		p.take(now)
		return nil
	}
	wait = (wait + time.Second - 1).Truncate(time.Second)
	return mailgrant.Errorf(mailgrant.Limited, nil, "the app %s may send %d messages a minute and has", c.App.Name, c.App.PerMinute).After(wait).
		Fix("try again in %s, or raise its limit: mailgrant app set %s --per-minute N", wait, c.App.Name)
}

// submission checks a message against the rules and makes the record of it.
func (o *Outbox) submission(ctx context.Context, c mailgrant.Caller, e Envelope, d *Draft, h rfc5322.Header) (sub mailgrant.Submission, m mailgrant.Mailbox, err error) {
	if len(e.Recipients) == 0 {
		return sub, m, mailgrant.Errorf(mailgrant.Invalid, nil, "the message has no recipient").Fix("name at least one").At("to")
	}
	if len(e.Recipients) > o.Recipients {
		return sub, m, mailgrant.Errorf(mailgrant.Invalid, nil, "%d recipients are more than the %d that one message may have", len(e.Recipients), o.Recipients).
			Fix("split it into several messages").At("to")
	}
	if h.Received >= hopsMax {
		return sub, m, mailgrant.Errorf(mailgrant.Invalid, nil, "the message has passed %d servers already: it goes round in a circle", h.Received).
			Fix("find the forwarding rule that sends it back")
	}
	if len(h.From) == 0 {
		return sub, m, mailgrant.Errorf(mailgrant.Invalid, nil, "the message has no From field").Fix("add one with the sender's address").At("from")
	}
	from := h.From[0].String()
	r, m, err := o.Router.Choose(ctx, c, route.Request{Class: e.Class, OnBehalfOf: e.OnBehalfOf, From: from, Named: e.Named})
	if err != nil {
		return sub, m, err
	}
	if err := o.Sender.MaySend(ctx, c, m, identities(e.From, h)); err != nil {
		return sub, m, err
	}
	now := o.now().UTC().Truncate(time.Microsecond)
	due := now
	if e.SendAt.After(now) {
		if e.SendAt.Sub(now) > sendAtMax {
			return sub, m, mailgrant.Errorf(mailgrant.Invalid, nil, "the time to send is more than a year ahead").Fix("choose an earlier one").At("send_at")
		}
		due = e.SendAt.UTC().Truncate(time.Microsecond)
	}
	life := time.Duration(m.Life)
	if life == 0 {
		life = o.Life
	}
	class := e.Class
	if class == "" {
		class = mailgrant.ClassUser
	}
	door := c.Door
	if door == "" {
		door = "inside"
	}
	return mailgrant.Submission{ID: d.id, Org: c.Org, App: c.App.ID, Door: door, Class: class, OnBehalfOf: e.OnBehalfOf, Route: r,
		EnvelopeFrom: e.From, Recipients: e.Recipients, From: from, Subject: cut(h.Subject, 200), MessageID: h.MessageID,
		Size: d.Size(), EightBit: d.eightBit, UTF8: e.UTF8 || h.UTF8, State: mailgrant.SubmissionReady, AcceptedAt: now, DueAt: due,
		ExpiresAt: due.Add(life), IdempotencyKey: e.IdempotencyKey, Trace: e.Trace}, m, nil
}

// identities are all the addresses that a message claims to come from. R-AP5.
func identities(envelope string, h rfc5322.Header) []string {
	out := make([]string, 0, 4)
	if envelope != "" {
		out = append(out, envelope)
	}
	for _, l := range [][]rfc5322.Address{h.From, h.Sender, h.ResentFrom, h.ResentSender} {
		for _, a := range l {
			out = append(out, a.String())
		}
	}
	return out
}

func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}

// take makes the submission durable and gives it to its lane.
func (o *Outbox) take(ctx context.Context, e Envelope, d *Draft, h rfc5322.Header, sub mailgrant.Submission, m mailgrant.Mailbox) (mailgrant.Submission, error) {
	ctx, cancel := context.WithTimeout(ctx, acceptWithin)
	defer cancel()
	if err := d.Settle(); err != nil {
		return sub, err
	}
	a, leaving, err := o.acceptance(e, d, h, &sub)
	if err != nil {
		return sub, err
	}
	fence, mine := o.Owner.Fence(m.ID)
	a.Fence, a.WakeOthers = fence, !mine
	var l *lane
	claimed := false
	if mine && !sub.DueAt.After(sub.AcceptedAt) {
		l = o.lane(sub.Org, m.ID)
		if claimed = e.IdempotencyKey == "" && l.claim(); claimed {
			a.Submission.State = mailgrant.SubmissionSending
		}
	}
	o.Steps("accept.before-commit")
	got, err := o.Store.AcceptSubmission(ctx, a)
	begun := got.State == mailgrant.SubmissionSending
	switch {
	case claimed && err != nil:
		l.doubt(item{sub: sub, fence: fence})
	case claimed && !begun:
		l.unclaim()
	}
	if err != nil {
		return sub, err
	}
	o.Steps("accept.after-commit")
	if got.ID != sub.ID { // the key was used before
		d.Discard()
		return got, nil
	}
	if d.Stored() {
		leaving = nil // the lane reads it from the store
	}
	d.done = true
	d.Release()
	switch {
	case mine && l == nil:
		o.dated(sub, m.ID)
	case mine:
		o.toLane(ctx, l, item{sub: sub, body: o.kept.keep(leaving), fence: fence, begun: begun}, claimed && !begun)
	}
	return sub, nil // as ready: nobody outside needs to know that it is being sent already
}

// acceptance seals a message and completes its record.
func (o *Outbox) acceptance(e Envelope, d *Draft, h rfc5322.Header, sub *mailgrant.Submission) (a store.Acceptance, leaving []byte, err error) {
	a.KeepKey = keyLife
	switch {
	case e.IdempotencyKey != "" && e.Digest != nil:
		a.Digest = e.Digest
	case e.IdempotencyKey != "":
		a.Digest = d.Digest(append([]string{e.From, string(e.Class), e.OnBehalfOf, string(e.Named)}, e.Recipients...)...)
	}
	leaving = rfc5322.Leaving(d.First, o.lead(sub, h)...)
	sub.Size += int64(len(leaving) - len(d.First))
	a.Submission = *sub
	a.Body, err = o.bodies().Seal(sub.Org, sub.ID, leaving)
	return a, leaving, err
}

// toLane gives an accepted message to its lane. Where that was closed meanwhile,
// or belongs to another node by now, what the store has is looked at by whoever
// has the lane.
func (o *Outbox) toLane(ctx context.Context, l *lane, it item, lost bool) {
	if !lost && l.push(it) {
		return
	}
	if lost {
		o.kept.release(it.body)
	}
	if it.begun {
		if err := o.Store.UndoAttempt(context.WithoutCancel(ctx), it.fence, []mailgrant.Submission{it.sub}); err != nil {
			o.Log.Warn("give a begun attempt back", "submission", it.sub.ID, "err", err) // it counts as uncertain
		}
	}
	o.lane(it.sub.Org, l.id).look()
	if err := o.Store.WakeLane(context.WithoutCancel(ctx), it.sub.Org, l.id); err != nil {
		o.Log.Warn("wake the lane at its node", "mailbox", l.id, "err", err) // it looks by itself within lookEvery
	}
}

// dated has the lane wake for a message that is to be sent later.
func (o *Outbox) dated(sub mailgrant.Submission, mailbox mailgrant.ID) {
	l := o.lane(sub.Org, mailbox)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dueAt(sub.DueAt)
}

// lead are the lines that go in front of the message: where it came in, and what
// a submission server may complete. RFC 6409 section 8, RFC 5321 section 4.4.
func (o *Outbox) lead(sub *mailgrant.Submission, h rfc5322.Header) []string {
	out := []string{rfc5322.Received(o.Hostname, protocolOf(sub.Door), string(sub.ID), sub.AcceptedAt)}
	if sub.MessageID == "" {
		sub.MessageID = "<" + string(sub.ID) + "@" + o.Hostname + ">"
		out = append(out, "Message-ID: "+sub.MessageID+"\r\n")
	}
	if h.Date == "" {
		out = append(out, "Date: "+sub.AcceptedAt.Format(time.RFC1123Z)+"\r\n")
	}
	return out
}

func protocolOf(door string) string {
	if door == "smtp" {
		return "ESMTPSA"
	}
	return "HTTPS"
}

// kept bounds the memory of bodies that wait in lanes. What does not fit is read
// from the store when its turn comes.
type kept struct{ bytes atomic.Int64 }

const keptMax = 16 << 20

func (k *kept) keep(b []byte) []byte {
	if b == nil {
		return nil
	}
	if k.bytes.Add(int64(len(b))) > keptMax {
		k.bytes.Add(-int64(len(b)))
		return nil
	}
	return b
}

func (k *kept) release(b []byte) {
	if b != nil {
		k.bytes.Add(-int64(len(b)))
	}
}
