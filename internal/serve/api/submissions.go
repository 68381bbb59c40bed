package api

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
	"github.com/mailgrant/mailgrant/internal/outbox"
	"github.com/mailgrant/mailgrant/internal/rfc5322"
	"github.com/mailgrant/mailgrant/internal/store"
)

const messageType = "message/rfc822"

// createSubmission takes a message in fields, or as its bytes.
func (c *call) createSubmission() error {
	kind, err := c.contentType(jsonType, messageType)
	if err != nil {
		return err
	}
	key, err := c.idempotencyKey()
	if err != nil {
		return err
	}
	if kind == messageType {
		return c.acceptBytes(key)
	}
	return c.acceptFields(key)
}

// acceptFields reads a message in fields, writes it and hands it to the outbox.
func (c *call) acceptFields(key string) error {
	if len(c.q) > 0 {
		return mailgrant.Errorf(mailgrant.Invalid, nil, "a message in fields has its envelope in the fields").Fix("leave the query out, or send the message as message/rfc822")
	}
	var m message
	var digest []byte
	err := c.readHashed(c.jsonMax(), key != "", &digest, func(j *jsonReader) error { return j.message(&m, int(c.MessageBytes)) })
	if err != nil {
		return err
	}
	composed, err := rfc5322.Compose(m.Mail)
	if err != nil {
		return err
	}
	e := outbox.Envelope{From: composed.From, Recipients: composed.Recipients, UTF8: composed.UTF8, SendAt: m.sendAt, IdempotencyKey: key, Digest: digest}
	if err := c.envelope(&e, m.class, m.onBehalfOf, m.mailbox); err != nil {
		return err
	}
	d := c.Outbox.Draft(c.r.Context(), c.by.Org)
	defer d.Discard()
	w := writers.Get().(*bufio.Writer)
	defer func() { w.Reset(nil); writers.Put(w) }()
	w.Reset(d) // WriteTo uses it as it is, and flushes it
	if _, err := composed.WriteTo(w); err != nil {
		return err
	}
	return c.accept(e, d)
}

var writers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, 32<<10) }}

// envelope fills in what both forms of a message have in common.
func (c *call) envelope(e *outbox.Envelope, class, onBehalfOf, mailbox string) (err error) {
	if err := checkClass(class); err != nil {
		return err
	}
	e.Class, e.Trace = mailgrant.Class(class), c.trace
	if e.OnBehalfOf, err = checkPerson(onBehalfOf); err != nil {
		return err
	}
	if mailbox != "" {
		e.Named, err = c.namedMailbox(mailbox)
	}
	return err
}

// accept makes the submission durable and says so. R-RE2.
func (c *call) accept(e outbox.Envelope, d *outbox.Draft) error {
	sub, err := c.Outbox.Accept(c.r.Context(), c.by, e, d)
	if err != nil {
		return err
	}
	c.w.Header()["Location"] = []string{"/v1/submissions/" + string(sub.ID)}
	c.send(c.route.status, jsonType, append(appendSubmission(make([]byte, 0, 1024), &sub), '\n'))
	return nil
}

// acceptBytes takes a message as it is. It goes through to the outbox while it is
// read; of its header only a copy is kept, to find an envelope that the query
// does not name.
func (c *call) acceptBytes(key string) error {
	e := outbox.Envelope{SendAt: c.q.time("send_at"), IdempotencyKey: key}
	if err := c.envelope(&e, c.q.str("class"), c.q.str("on_behalf_of"), c.q.str("mailbox")); err != nil {
		return err
	}
	if err := givenEnvelope(&e, c.q.str("from"), c.q["to"]); err != nil {
		return err
	}
	b, err := c.open(2*c.MessageBytes+rfc5322.MaxHeader, false) // LF may become CRLF
	if err != nil {
		return err
	}
	defer b.Close()
	d := c.Outbox.Draft(c.r.Context(), c.by.Org)
	defer d.Discard()
	head := &header{w: d}
	lines := &rfc5322.Lines{W: head, Fix: true}
	w := windows.Get().(*[]byte)
	defer windows.Put(w)
	if _, err := io.CopyBuffer(lines, struct{ io.Reader }{b}, *w); err != nil {
		if b.failed != nil {
			return bodyError(b.failed)
		}
		return err
	}
	if err := lines.Close(); err != nil {
		return err
	}
	if lines.NUL {
		return mailgrant.Errorf(mailgrant.Invalid, nil, "the message has a NUL character, which mail cannot carry").Fix("encode that part in base64").At("body")
	}
	if err := headerEnvelope(&e, head.b.Bytes()); err != nil {
		return err
	}
	return c.accept(e, d)
}

// A header passes a message on and keeps the beginning that holds its header.
type header struct {
	w   io.Writer
	b   bytes.Buffer
	end bool
}

// Write implements io.Writer.
func (h *header) Write(p []byte) (int, error) {
	if !h.end {
		from := max(0, h.b.Len()-3)
		h.b.Write(p[:min(len(p), rfc5322.MaxHeader+4-h.b.Len())])
		h.end = h.b.Len() >= rfc5322.MaxHeader+4 || bytes.Contains(h.b.Bytes()[from:], []byte("\r\n\r\n")) || bytes.HasPrefix(h.b.Bytes(), []byte("\r\n"))
	}
	return h.w.Write(p)
}

// givenEnvelope takes the envelope that the query names.
func givenEnvelope(e *outbox.Envelope, from string, to []string) error {
	if from != "" {
		a, err := rfc5322.ParseAddress(from)
		if err != nil {
			return mailgrant.AsError(err).At("from")
		}
		e.From, e.UTF8 = a.String(), a.UTF8
	}
	for _, s := range to {
		a, err := rfc5322.ParseAddress(s)
		if err != nil {
			return mailgrant.AsError(err).At("to")
		}
		addRecipient(e, a)
	}
	return nil
}

func addRecipient(e *outbox.Envelope, a rfc5322.Address) {
	if s := a.String(); !slices.ContainsFunc(e.Recipients, func(have string) bool { return strings.EqualFold(have, s) }) {
		e.Recipients, e.UTF8 = append(e.Recipients, s), e.UTF8 || a.UTF8
	}
}

// headerEnvelope takes from the header what the query leaves open.
func headerEnvelope(e *outbox.Envelope, b []byte) error {
	if e.From != "" && len(e.Recipients) > 0 {
		return nil
	}
	h, err := rfc5322.ParseHeader(rfc5322.Block(b))
	if err != nil {
		return err
	}
	if e.From == "" {
		if len(h.From) == 0 {
			return mailgrant.Errorf(mailgrant.Invalid, nil, "the message has no From field").Fix("add one with the sender's address").At("from")
		}
		e.From, e.UTF8 = h.From[0].String(), e.UTF8 || h.From[0].UTF8
	}
	if len(e.Recipients) > 0 {
		return nil
	}
	for _, what := range h.Malformed {
		if what == "to" || what == "cc" || what == "bcc" {
			return mailgrant.Errorf(mailgrant.Invalid, nil, "the recipients of the message cannot all be read").Fix("correct the field %s, or name the recipients in the query: ?to=ADDRESS", what).At(what)
		}
	}
	for _, list := range [][]rfc5322.Address{h.To, h.Cc, h.Bcc} {
		for _, a := range list {
			addRecipient(e, a)
		}
	}
	return nil
}

// ownOnly says whether the caller sees no more than the submissions of its app.
func (c *call) ownOnly() bool { return !c.can(mailgrant.ScopeRead) }

// submission is the one that the path names. Another app's looks absent to who
// may see only its own.
func (c *call) submission() (mailgrant.Submission, error) {
	id := mailgrant.ID(c.args[0])
	sub, err := c.Store.Submission(c.r.Context(), c.by.Org, id)
	if err == nil && c.ownOnly() && sub.App != c.by.App.ID {
		return mailgrant.Submission{}, absent("submission", id)
	}
	return sub, err
}

func (c *call) getSubmission() error {
	sub, err := c.submission()
	if err != nil {
		return err
	}
	return c.reply(sub)
}

func (c *call) listSubmissions() error {
	limit, err := c.q.limit(100)
	if err != nil {
		return err
	}
	after, err := c.cursor()
	if err != nil {
		return err
	}
	f := store.SubmissionFilter{App: mailgrant.ID(c.q.str("app")), Since: c.q.time("since"), After: after, Limit: limit}
	if c.ownOnly() {
		if f.App != "" && f.App != c.by.App.ID {
			return c.lacks(mailgrant.ScopeRead)
		}
		f.App = c.by.App.ID
	}
	if f.App != "" && f.App != c.by.App.ID {
		if _, err := c.Store.App(c.r.Context(), c.by.Org, f.App); err != nil {
			return err
		}
	}
	if name := c.q.str("mailbox"); name != "" {
		m, err := c.mailbox(name)
		if err != nil {
			return err
		}
		f.Mailbox = m.ID
	}
	for _, s := range c.q["state"] {
		f.States = append(f.States, mailgrant.SubmissionState(s))
	}
	l, next, err := c.Store.Submissions(c.r.Context(), c.by.Org, f)
	if err != nil {
		return err
	}
	return c.reply(client.Page[mailgrant.Submission]{Items: l, Next: c.next(next)})
}

func (c *call) listAttempts() error {
	sub, err := c.submission()
	if err != nil {
		return err
	}
	return page(c, func(ctx context.Context, org, after mailgrant.ID, limit int) ([]mailgrant.Attempt, error) {
		n, _ := strconv.Atoi(string(after)) // of a cursor of ours; "" begins
		return c.Store.AttemptsAfter(ctx, org, sub.ID, n, limit)
	}, func(a mailgrant.Attempt) mailgrant.ID { return mailgrant.ID(strconv.Itoa(a.N)) })
}

// getRaw gives the bytes of a message as they leave.
func (c *call) getRaw() error {
	sub, err := c.submission()
	if err != nil {
		return err
	}
	r, err := c.Outbox.Body(c.r.Context(), c.by.Org, sub.ID)
	if err != nil {
		return err
	}
	defer r.Close()
	h := c.w.Header()
	h.Set("Content-Disposition", `attachment; filename="`+string(sub.ID)+`.eml"`)
	h.Set("Content-Security-Policy", "sandbox; default-src 'none'") // foreign bytes. R-ME3
	c.stream(messageType)
	_, err = io.Copy(c.slowly(c.w), r)
	return err
}

// change does something about a submission: an app about its own, who manages
// the organization about all.
func (c *call) change(f func(ctx context.Context, org, id mailgrant.ID) error) error {
	if err := c.nothing(); err != nil {
		return err
	}
	sub, err := c.submission()
	if err != nil {
		return err
	}
	if own := sub.App == c.by.App.ID && c.can(mailgrant.ScopeSend); !own && !c.can(mailgrant.ScopeManage) {
		return c.lacks(mailgrant.ScopeManage)
	}
	if err := f(c.r.Context(), c.by.Org, sub.ID); err != nil {
		return err
	}
	return c.getSubmission()
}

func (c *call) cancelSubmission() error { return c.change(c.Outbox.Cancel) }
func (c *call) retrySubmission() error  { return c.change(c.Outbox.Retry) }

func (c *call) getQueue() error {
	return page(c, func(ctx context.Context, org, after mailgrant.ID, limit int) ([]client.Waiting, error) {
		some, err := c.Store.QueueAfter(ctx, org, after, limit)
		list := make([]client.Waiting, len(some))
		for i, n := range some {
			list[i] = client.Waiting{Mailbox: n.Mailbox, Address: n.Address, Waiting: n.Waiting, Oldest: n.Oldest, Hold: n.Hold}
		}
		return list, err
	}, func(w client.Waiting) mailgrant.ID { return w.Mailbox })
}
