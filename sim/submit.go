package sim

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"net/mail"
	"strings"
	"time"
)

// A submission is a message that somebody wants to send, by SMTP or by Graph.
type submission struct {
	via     string
	who     *principal
	from    string // envelope
	to      []string
	raw     []byte
	wire    []byte // what recipients get, where it differs from raw
	noSent  bool
	subject string
	id      string
	draft   *Message // what it was in Drafts
}

// A principal is who sends: a mailbox, opened by a user or by an app.
type principal struct {
	tenant  *Tenant
	mailbox *Mailbox
	user    *User      // nil for an app
	app     string     // client id
	service *Principal // in Exchange, for an app that has one
	scoped  []RoleAssignment
	expires time.Time // of the token it came with, where that matters
}

// name is how Exchange calls the principal in its replies.
func (p *principal) name() string {
	if p.user != nil {
		return p.user.Address
	}
	return p.mailbox.Address
}

// mayUse says whether the principal may put address into From.
func (p *principal) mayUse(v *view, address string) bool {
	_, m := v.mailbox(address)
	if m == nil {
		return false
	}
	if m.goesBy(p.mailbox.Address) {
		return true
	}
	if p.user != nil {
		return p.user.owns(m) || listed(m.SendAs, p.user) || listed(m.SendOnBehalf, p.user)
	}
	return p.service != nil && containsFold(p.service.SendAs, m.Address) || inScope(p.scoped, m)
}

func (u *User) owns(m *Mailbox) bool {
	return !m.Shared && (u.goesBy(m.Address) || m.goesBy(u.Address))
}

func listed(list []string, u *User) bool {
	for _, a := range list {
		if u.goesBy(a) {
			return true
		}
	}
	return false
}

func inScope(assignments []RoleAssignment, m *Mailbox) bool {
	for _, a := range assignments {
		if len(a.Scope) == 0 || containsFold(a.Scope, m.Address) {
			return true
		}
	}
	return false
}

// A refusal is why a submission is not taken: the reply of SMTP, and what
// Graph says to the same.
type refusal struct {
	reply   string
	args    []string
	penalty int
	status  int
	code    string
	text    string
}

// check finds what stands in the way of a submission.
func (x *exchange) check(sub *submission) *refusal {
	v := x.sim.world.now.Load()
	head := headerOf(sub.raw)
	if r := x.checkSender(v, sub, head); r != nil {
		return r
	}
	m, k := sub.who.mailbox, v.Knobs
	size := int64(len(sub.raw))
	limit := m.MaxSendSize
	if limit == 0 {
		limit = k.MaxSendSize
	}
	switch {
	case over(size, limit):
		return &refusal{reply: replyOversize, args: []string{"{code}", k.OversizeReply},
			status: 400, code: "ErrorMessageSizeExceeded", text: graphSizeText}
	case m.Quota > 0 && m.Used+x.sim.mail.size(strings.ToLower(m.Address))+size > m.Quota:
		return &refusal{reply: replyMailboxFull, penalty: penaltyFull,
			status: 507, code: "ErrorQuotaExceeded", text: "The mailbox is over its quota."}
	}
	if reply := x.spend(sub.who.tenant, strings.ToLower(m.Address), sub.to); reply != "" {
		return &refusal{reply: reply, penalty: penaltyTooMany,
			status: 429, code: "ErrorSubmissionQuotaExceeded", text: graphQuotaText}
	}
	return nil
}

// checkSender compares the envelope and the header with what the principal may
// send as.
func (x *exchange) checkSender(v *view, sub *submission, head mail.Header) *refusal {
	from := addressesIn(head, "From")
	if len(from) == 0 {
		return &refusal{reply: replyNoFrom, status: 400, code: "ErrorInvalidSender", text: "The sender is not valid."}
	}
	used := append(from, addressesIn(head, "Sender")...)
	if sub.from != "" {
		used = append(used, sub.from)
	}
	for _, a := range used {
		if !sub.who.mayUse(v, a) {
			return &refusal{reply: replySendAs, args: []string{"{auth}", sub.who.name(), "{from}", a},
				penalty: penaltySendAs, status: 403, code: "ErrorSendAsDenied", text: graphSendAsText}
		}
	}
	return nil
}

// complete fills in what the message lacks and what is the server's to change.
func (s *submission) complete(x *exchange) {
	if s.id == "" {
		head := headerOf(s.raw)
		s.subject, s.id = decodeWords(head.Get("Subject")), strings.TrimSpace(head.Get("Message-Id"))
	}
	if s.id == "" {
		s.id = newMessageID()
		s.raw = append([]byte("Message-ID: "+s.id+"\r\n"), s.raw...)
		s.wire = nil
	}
	if !s.who.tenant.SendFromAlias {
		s.raw = rewriteAlias(s.raw, s.who.mailbox)
	}
	if s.wire == nil {
		s.wire = s.raw
	}
	k := x.sim.world.now.Load().Knobs
	if s.via == "graph" || k.StripBcc {
		s.wire = withoutField(s.wire, "Bcc")
	}
	if k.AddReceived {
		s.wire = append([]byte(x.reply("Received: from mail.example ({HOST}) by {HOST}\r\n with Microsoft SMTP Server; {date}\r\n")), s.wire...)
	}
}

// rewriteAlias puts the primary address in the place of an alias in From.
func rewriteAlias(raw []byte, m *Mailbox) []byte {
	head, body := splitMessage(raw)
	var out []byte
	for _, f := range fieldsOf(head) {
		if name, _, _ := bytes.Cut(f, []byte(":")); strings.EqualFold(string(name), "From") {
			for _, alias := range m.Aliases {
				f = replaceFold(f, alias, m.Address)
			}
		}
		out = append(out, f...)
	}
	return append(out, body...)
}

func replaceFold(f []byte, old, with string) []byte {
	i := strings.Index(strings.ToLower(string(f)), strings.ToLower(old))
	if i < 0 {
		return f
	}
	return append(append(bytes.Clone(f[:i]), with...), f[i+len(old):]...)
}

// externalLimit is the tenant external recipient rate limit of a day.
func externalLimit(t *Tenant) int {
	if t.Trial {
		return 5000
	}
	return int(math.Round(500*math.Pow(float64(max(t.Licences, 1)), 0.7))) + 9500
}

// take runs a submission through limits and pace and delivers it, or says why
// not. What SMTP shows of a refusal is in reply.
func (x *exchange) take(ctx context.Context, sub *submission) (reply string, bad *refusal, err error) {
	box := strings.ToLower(sub.who.mailbox.Address)
	if bad := x.check(sub); bad != nil {
		reply := x.reply(bad.reply, bad.args...)
		if bad.penalty != 0 {
			reply = x.punish(box, bad.penalty, reply)
		}
		return reply, bad, nil
	}
	if sub.via == "smtp" {
		if err := x.pace(ctx, box); err != nil {
			return "", nil, fmt.Errorf("wait for the pace of %s: %w", box, err)
		}
	}
	x.deliver(sub)
	return x.reply(replyQueued, "{id}", sub.id), nil, nil
}
