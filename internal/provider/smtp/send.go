package smtp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/wire"
)

// A parcel is one message on its way through one session.
type parcel struct {
	h     *provider.Handover
	mail  string   // "MAIL FROM:<…> …"
	rcpts []string // as they go to the server, "" where it cannot take one
	ours  []*mailgrant.Finding
	all   reply   // to MAIL
	each  []reply // to RCPT
	data  reply
	body  io.ReadCloser
	first int // code of the first reply, 0 before it came
}

// Send hands one message over. A connection that the server gave up while it
// lay idle is replaced, as nothing had been sent over it.
func (s *session) Send(ctx context.Context, h *provider.Handover) provider.Outcome {
	if s.Conn != nil && s.r.Buffered() > 0 { // it said something unasked: good-bye, most likely
		s.HangUp()
	}
	if s.Conn == nil {
		if err := s.Open(ctx, s); err != nil {
			return s.broken(err)
		}
	}
	for {
		p, out := s.pack(h)
		if out != nil {
			return *out
		}
		body, err := wire.Read(h)
		if err != nil {
			return wire.Failed(err, s.failure())
		}
		p.body = body
		stop := s.Conn.CloseWith(ctx)
		result, stale := s.hand(p)
		stop()
		body.Close()
		if !stale || ctx.Err() != nil {
			if result.Broken {
				s.HangUp()
			}
			return result
		}
		s.HangUp()
		if err := s.Open(ctx, s); err != nil {
			return s.broken(err)
		}
	}
}

// Close takes leave. Nobody waits for the answer.
func (s *session) Close() error {
	if s.Conn == nil {
		return nil
	}
	s.Conn.SetDeadline(time.Now().Add(time.Second))
	s.Conn.Write([]byte("QUIT\r\n"))
	s.HangUp()
	return nil
}

func (s *session) broken(err error) provider.Outcome {
	out := wire.Failed(err, s.failure())
	out.Broken = true
	return out
}

// pack writes the envelope for what this server can do. An outcome comes back
// when it cannot take the message at all. SM-13.
func (s *session) pack(h *provider.Handover) (*parcel, *provider.Outcome) {
	if s.caps.sizeMax > 0 && h.Size > s.caps.sizeMax {
		return nil, refused("message-too-large", "Message too large",
			fmt.Sprintf("The message has %d bytes and %s takes %d.", h.Size, s.Host, s.caps.sizeMax), "Send it with smaller attachments.", "552 5.3.4 message size exceeds the server's limit")
	}
	if h.EightBit && !s.caps.eightBit {
		return nil, refused("message-invalid", "Message with 8-bit text",
			"The message has 8-bit text and "+s.Host+" takes 7-bit only.", "Send it with the encoding quoted-printable or base64.", "554 5.6.3 conversion required but not done")
	}
	utf8 := h.UTF8 && s.caps.utf8
	if h.UTF8 && !utf8 {
		if out := s.withoutUTF8(h); out != nil {
			return nil, out
		}
	}
	from, why := path(h.From, utf8)
	if why != "" && h.From != "" {
		return nil, refused("message-invalid", "Sender address that cannot be used", "The sender address cannot be given to the server: "+why+".", "Send from a plain address.", "553 5.6.7 "+why)
	}
	p := &parcel{h: h, rcpts: make([]string, len(h.Recipients)), each: make([]reply, len(h.Recipients))}
	var b strings.Builder
	b.WriteString("MAIL FROM:<" + from + ">")
	if s.caps.size && h.Size > 0 {
		b.WriteString(" SIZE=" + strconv.FormatInt(h.Size, 10))
	}
	if h.EightBit {
		b.WriteString(" BODY=8BITMIME")
	}
	if utf8 {
		b.WriteString(" SMTPUTF8")
	}
	p.mail = b.String()
	for i, r := range h.Recipients {
		if p.rcpts[i], why = path(r, utf8); why != "" {
			p.each[i] = reply{code: 553, lines: []string{"5.6.7 " + why}}
			if p.ours == nil {
				p.ours = make([]*mailgrant.Finding, len(h.Recipients))
			}
			p.ours[i] = refused("recipient-rejected", "Recipient that cannot be reached", "The recipient's address cannot be given to the server: "+why+".", "Correct the address.", "").Finding
		}
	}
	return p, nil
}

// refused is the end of a message that we ourselves find cannot go this way.
func refused(cause, title, sentence, remedy, raw string) *provider.Outcome {
	return &provider.Outcome{Fate: mailgrant.FateRefused, Reply: raw, Finding: &mailgrant.Finding{Cause: cause, Title: title, Sentence: sentence, Remedy: remedy,
		Who: mailgrant.WhoOperator, Retry: mailgrant.RetryNever, Confidence: 1, Link: "errors/" + cause, Raw: raw}}
}

// hand goes through the transaction. stale is true when the server had given
// the connection up before it.
func (s *session) hand(p *parcel) (out provider.Outcome, stale bool) {
	if len(strings.Join(p.rcpts, "")) == 0 { // none that it could take
		return s.noneTaken(p), false
	}
	err := s.envelope(p)
	if gone := p.first == 421 || p.first == 0 && err != nil; gone && s.used {
		return out, true
	}
	s.used = true
	if err != nil {
		s.Step = "smtp-mail"
		return s.broken(err), false
	}
	if !p.all.good() {
		return s.answered(p.all, "smtp-mail"), s.abandon(p)
	}
	taken := 0
	for _, r := range p.each {
		if r.good() {
			taken++
		}
	}
	switch {
	case taken == 0:
		s.abandon(p)
		return s.noneTaken(p), false
	case p.data.code != 354: // the transaction stands: the next MAIL would be one too many
		s.dirty = true
		out = s.answered(p.data, "smtp-data")
	default:
		out = s.body(p)
	}
	s.perRecipient(p, &out)
	return out, false
}

// abandon ends a transaction that has no recipient. A server that wants the
// message all the same gets an empty one for nobody, RFC 2920 section 3.1.
func (s *session) abandon(p *parcel) bool {
	s.dirty = true
	if p.data.code == 354 {
		if _, err := s.command("."); err != nil {
			s.HangUp()
		}
	}
	return false
}

// envelope sends MAIL, RCPT and DATA, and reads what the server says to each.
// Without pipelining one by one, with it in as few pieces as its window allows.
func (s *session) envelope(p *parcel) error {
	b := bufPool.Get().(*[]byte)
	defer bufPool.Put(b)
	cmd, window := (*b)[:0], windowMax
	if !s.caps.pipelining {
		window = 0
	}
	var into []*reply
	var reset reply
	send := func(line string, r *reply) error {
		cmd = append(append(cmd, line...), '\r', '\n')
		into = append(into, r)
		if len(cmd) < window {
			return nil
		}
		err := s.exchange(p, cmd, into)
		cmd, into = cmd[:0], into[:0]
		return err
	}
	if s.dirty {
		if err := send("RSET", &reset); err != nil {
			return err
		}
	}
	if err := send(p.mail, &p.all); err != nil {
		return err
	}
	for i, to := range p.rcpts {
		if to == "" {
			continue
		}
		if window == 0 && !p.all.good() {
			return nil
		}
		if err := send("RCPT TO:<"+to+">", &p.each[i]); err != nil {
			return err
		}
	}
	if window == 0 && !any2xx(p.each) {
		return nil
	}
	if err := send("DATA", &p.data); err != nil || len(cmd) == 0 {
		return err
	}
	return s.exchange(p, cmd, into)
}

func any2xx(l []reply) bool {
	for _, r := range l {
		if r.good() {
			return true
		}
	}
	return false
}

// windowMax bounds what is under way without an answer, so that neither side
// waits for the other to read.
const windowMax = 16 << 10

var bufPool = sync.Pool{New: func() any { b := make([]byte, 0, windowMax+1024); return &b }}

// exchange sends commands and reads a reply to each.
func (s *session) exchange(p *parcel, cmd []byte, into []*reply) error {
	s.Conn.SetDeadline(time.Now().Add(s.c.limits.command))
	if _, err := s.Conn.Write(cmd); err != nil {
		return err
	}
	for _, r := range into {
		got, err := readReply(s.r)
		if err != nil {
			return err
		}
		if *r = got; p.first == 0 {
			p.first = got.code
		}
	}
	s.dirty = false
	return nil
}

// body sends the message and hears what became of it. From the moment the final
// dot may have left until the answer nobody knows. RE-10.
func (s *session) body(p *parcel) provider.Outcome {
	s.Step = "smtp-data"
	if s.r.Buffered() > 0 { // an answer to what it has not seen
		return s.broken(errGarbled)
	}
	d := newDots(blockWriter{s})
	defer d.free()
	err := copyBody(d, p.body)
	if err != nil {
		return s.unfinished(d, err)
	}
	dotted, err := d.end()
	if err != nil && !dotted {
		return s.unfinished(d, err)
	}
	if err != nil {
		return s.uncertain(err)
	}
	s.Conn.SetDeadline(time.Now().Add(s.c.limits.dot))
	r, err := readReply(s.r)
	if err != nil {
		return s.uncertain(err)
	}
	if r.good() {
		return provider.Outcome{Fate: mailgrant.FateDelivered, Reply: r.text(), RemoteID: remoteID(r)}
	}
	return s.answered(r, "smtp-data")
}

var copyPool = sync.Pool{New: func() any { b := make([]byte, bufSize); return &b }}

func copyBody(d *dots, r io.Reader) error {
	if w, ok := r.(io.WriterTo); ok { // from memory: no buffer between
		_, err := w.WriteTo(d)
		return err
	}
	b := copyPool.Get().(*[]byte)
	defer copyPool.Put(b)
	_, err := io.CopyBuffer(struct{ io.Writer }{d}, r, *b)
	return err
}

// blockWriter gives every block its own time.
type blockWriter struct{ s *session }

func (w blockWriter) Write(p []byte) (int, error) {
	w.s.Conn.SetDeadline(time.Now().Add(w.s.c.limits.block))
	return w.s.Conn.Write(p)
}

// unfinished is a message that broke off before its end: the server cannot have
// taken it. It may have said why.
func (s *session) unfinished(d *dots, err error) provider.Outcome {
	if errors.Is(err, errBare) {
		out := refused("message-invalid", "Message with broken line ends", "The message has a CR or LF that is not part of a line's end.",
			"End every line with CR LF.", "554 5.6.11 bare CR or LF in the message")
		out.Broken = true
		return *out
	}
	if d.err != nil && d.out {
		s.Conn.SetReadDeadline(time.Now().Add(2 * time.Second))
		if r, rerr := readReply(s.r); rerr == nil && r.code >= 400 {
			out := s.answered(r, "smtp-data")
			out.Broken = true
			return out
		}
	}
	return s.broken(err)
}

func (s *session) uncertain(err error) provider.Outcome {
	f := s.Explain(err)
	f.Sentence = "The message was sent whole, but the answer of " + s.Host + " was lost: it may have been taken."
	return provider.Outcome{Fate: mailgrant.FateUncertain, Finding: &f, Reply: wire.Clean(err.Error(), wire.ReplyMax), Broken: true}
}

// answered makes an outcome of a reply that is no consent.
func (s *session) answered(r reply, step string) provider.Outcome {
	s.Step = step
	f := s.explain(r, "")
	return provider.Outcome{Fate: fate(r, f), Reply: r.text(), Finding: &f, RetryAfter: f.RetryAfter, Broken: r.code < 400 || r.code == 421 || f.Retry == mailgrant.RetryNow}
}

// fate weighs the code against the finding. A 4xx passes by itself, whatever its
// words; a 5xx that nobody knows is meant for the message.
func fate(r reply, f mailgrant.Finding) mailgrant.Fate {
	switch {
	case !r.permanent():
		return mailgrant.FateLater
	case f.Cause == "unknown", f.Retry == mailgrant.RetryNone:
		return mailgrant.FateRefused
	}
	return wire.Fate(f)
}

// noneTaken is the outcome when every recipient was refused: the mildest fate of
// all, so that none is given up too early.
func (s *session) noneTaken(p *parcel) provider.Outcome {
	worst := provider.Outcome{}
	rank := map[mailgrant.Fate]int{mailgrant.FateRefused: 1, mailgrant.FateLater: 2, mailgrant.FateHeld: 3}
	results := make([]mailgrant.RecipientResult, len(p.each))
	for i, r := range p.each {
		o := s.recipient(p, i, r)
		results[i] = mailgrant.RecipientResult{Address: p.h.Recipients[i], Fate: o.Fate, Reply: o.Reply, Finding: o.Finding}
		if rank[o.Fate] > rank[worst.Fate] {
			broken := worst.Broken
			worst = o
			worst.Broken = o.Broken || broken
		}
	}
	if len(results) > 1 {
		worst.Recipients = results
	}
	return worst
}

func (s *session) recipient(p *parcel, i int, r reply) provider.Outcome {
	if p.ours != nil && p.ours[i] != nil {
		return provider.Outcome{Fate: mailgrant.FateRefused, Reply: r.text(), Finding: p.ours[i]}
	}
	return s.answered(r, "smtp-rcpt")
}

// perRecipient adds what became of single recipients, when it is not the same
// for all. Whoever was refused stays refused, whatever became of the rest.
func (s *session) perRecipient(p *parcel, out *provider.Outcome) {
	differ := false
	for _, r := range p.each {
		differ = differ || !r.good()
	}
	if !differ || out.Fate == mailgrant.FateHeld {
		return
	}
	for i, r := range p.each {
		res := mailgrant.RecipientResult{Address: p.h.Recipients[i], Fate: out.Fate, Reply: out.Reply, Finding: out.Finding}
		if !r.good() {
			o := s.recipient(p, i, r)
			if o.Fate == mailgrant.FateHeld { // others were taken: it is not the mailbox
				o.Fate = mailgrant.FateLater
			}
			res.Fate, res.Reply, res.Finding = o.Fate, o.Reply, o.Finding
			if out.Finding == nil {
				out.Finding = o.Finding
			}
		}
		out.Recipients = append(out.Recipients, res)
	}
}

// remoteID is the other side's id of the message, where its answer has one.
func remoteID(r reply) string {
	if len(r.lines) == 0 {
		return ""
	}
	l := r.lines[len(r.lines)-1]
	for _, mark := range []string{"queued as ", "id="} {
		if _, id, ok := strings.Cut(l, mark); ok {
			id, _, _ = strings.Cut(id, " ")
			return wire.Clean(id, 200)
		}
	}
	if _, id, ok := strings.Cut(l, "<"); ok {
		if id, _, ok = strings.Cut(id, ">"); ok {
			return wire.Clean("<"+id+">", 200)
		}
	}
	return ""
}
