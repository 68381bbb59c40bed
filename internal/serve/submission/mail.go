package submission

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
)

// mail begins an envelope: MAIL FROM:<sender> with SIZE, BODY, SMTPUTF8, AUTH.
func (s *session) mail(arg []byte) error {
	if refuse := s.notReady(); refuse != "" {
		return s.wrong(refuse)
	}
	if s.open {
		return s.wrong("503 5.5.1 there is an envelope already, RSET it first\r\n")
	}
	s.spoiled, s.rcpts = true, 0 // until it is accepted
	path, params, ok := pathOf(arg, "FROM:")
	if !ok {
		return s.wrong("501 5.5.4 write it like MAIL FROM:<name@example.com>\r\n")
	}
	var env Envelope
	line, err := s.mailParams(params, &env)
	if err != nil {
		return s.spoil(err)
	} else if line != "" {
		return s.wrong(line)
	}
	from, fault := sender(path, env.UTF8)
	if fault != "" {
		return s.wrong(fault)
	}
	return s.begin(from, env)
}

// begin asks whether the caller still may, and may under this sender.
func (s *session) begin(from string, env Envelope) error {
	ctx, cancel := s.within()
	defer cancel()
	c, err := s.srv.Access.Confirm(ctx, s.caller)
	if err != nil {
		if code := mailgrant.AsError(err).Code; code == mailgrant.Unauthorized || code == mailgrant.Forbidden {
			s.loggedIn, s.caller = false, mailgrant.Caller{}
			return s.notIn(err)
		}
		return s.spoil(err)
	}
	s.caller = c
	env.From, env.Named, env.Class = from, c.Mailbox, mailgrant.ClassUser
	if len(c.App.Classes) > 0 {
		env.Class = c.App.Classes[0]
	}
	if err := s.srv.Outbox.CheckSender(ctx, c, from, env.Class); err != nil {
		return s.spoil(err)
	}
	s.env, s.open, s.spoiled = env, true, false
	s.say("250 2.1.0 ok\r\n")
	return nil
}

// spoil refuses an envelope that is no mistake in the protocol.
func (s *session) spoil(err error) error {
	s.answer(err)
	return s.idle("")
}

// notReady is the refusal of a command that needs a login.
func (s *session) notReady() string {
	switch {
	case !s.maySecret():
		return "530 5.7.0 STARTTLS first\r\n"
	case !s.greeted:
		return "503 5.5.1 EHLO first\r\n"
	case !s.loggedIn:
		return "530 5.7.0 log in first: AUTH PLAIN or LOGIN with a key\r\n"
	}
	return ""
}

// mailParams reads the parameters of MAIL: fault is a mistake in them, err a
// refusal of what they announce.
func (s *session) mailParams(params []byte, env *Envelope) (fault string, err error) {
	seen := 0
	for len(params) > 0 {
		var p []byte
		p, params = split2(params)
		if len(p) == 0 {
			continue
		}
		name, value, _ := strings.Cut(string(p), "=")
		bit := 0
		switch strings.ToUpper(name) {
		case "SIZE":
			bit = 1
			n, err := strconv.ParseUint(value, 10, 63)
			if err != nil || strings.HasPrefix(value, "+") {
				return "501 5.5.4 SIZE is a number of bytes\r\n", nil
			}
			if int64(n) > s.srv.Limits.Message {
				return "", s.tooLarge()
			}
		case "BODY":
			bit = 2
			switch strings.ToUpper(value) {
			case "7BIT", "8BITMIME": // heard; the outbox looks at the bytes themselves
			default:
				return "501 5.5.4 BODY is 7BIT or 8BITMIME\r\n", nil
			}
		case "SMTPUTF8":
			bit = 4
			if value != "" || len(p) != len(name) {
				return "501 5.5.4 SMTPUTF8 has no value\r\n", nil
			}
			env.UTF8 = true
		case "AUTH": // RFC 4954 section 5: heard, and not believed
			bit = 8
			if value == "" {
				return "501 5.5.4 AUTH= names a mailbox or <>\r\n", nil
			}
		default:
			return "555 5.5.4 MAIL has no such parameter here\r\n", nil
		}
		if seen&bit != 0 {
			return "501 5.5.4 a parameter stands there twice\r\n", nil
		}
		seen |= bit
	}
	return "", nil
}

// rcptFlood is how many RCPT commands, as a multiple of the recipients a message
// may have, end the session.
const rcptFlood = 4

// rcpt adds a recipient. One that is there already is not added again.
func (s *session) rcpt(arg []byte) error {
	if refuse := s.notReady(); refuse != "" {
		return s.wrong(refuse)
	}
	if s.rcpts++; s.rcpts > rcptFlood*s.srv.Limits.Recipients {
		s.say(s.srv.about("421 4.7.0 too many recipients", pageRecipients))
		return errEnd
	}
	if !s.open {
		return s.noMail()
	}
	path, params, ok := pathOf(arg, "TO:")
	if !ok {
		return s.wrong("501 5.5.4 write it like RCPT TO:<name@example.com>\r\n")
	}
	if len(bytes.TrimSpace(params)) > 0 {
		return s.wrong("555 5.5.4 RCPT has no parameters here\r\n")
	}
	addr, fault := recipient(path, s.env.UTF8)
	if fault != "" {
		return s.wrong(fault)
	}
	key := foldDomain(addr)
	if _, there := s.seen[key]; there {
		s.say("250 2.1.5 ok, it is there already\r\n")
		return nil
	}
	if len(s.env.Recipients) >= s.srv.Limits.Recipients {
		s.say(s.srv.about("452 4.5.3 no more recipients in this message, send it again to the others", pageRecipients))
		return nil
	}
	if s.seen == nil {
		s.seen = make(map[string]struct{}, 1)
	}
	s.seen[key] = struct{}{}
	s.env.Recipients = append(s.env.Recipients, addr)
	s.say("250 2.1.5 ok\r\n")
	return nil
}

// noMail answers what needs an envelope.
func (s *session) noMail() error {
	if s.spoiled {
		s.say(s.srv.fault("503 5.5.1 MAIL was refused"))
		return nil
	}
	return s.wrong("503 5.5.1 MAIL first\r\n")
}

// data takes the message and gives the outbox responsibility for it.
func (s *session) data(arg []byte) error {
	refuse := s.notReady()
	switch {
	case refuse != "":
	case len(arg) > 0:
		refuse = "501 5.5.4 DATA stands alone\r\n"
	case s.open && len(s.env.Recipients) == 0:
		refuse = "554 5.5.1 no valid recipients\r\n"
	}
	if s.pending() { // whatever it is, it must not be read as commands
		s.drop()
		s.refused(mailgrant.Invalid)
		s.say(s.srv.fault("503 5.5.0 data came before it was asked for"))
		return errEnd
	}
	if refuse != "" {
		return s.wrong(refuse)
	}
	if !s.open {
		err := s.noMail()
		s.spoiled = false // DATA is the last of what can be pipelined
		return err
	}
	s.inBody.Store(true)
	defer s.inBody.Store(false)
	s.env.Trace = mailgrant.NewID(mailgrant.PrefixTrace)
	s.draft = s.srv.Outbox.Draft(s.ctx, s.caller.Org)
	s.say("354 go ahead, end with CRLF.CRLF\r\n")
	b, err, broken := s.receive(s.draft)
	if broken != nil {
		return broken
	}
	s.hand(b, err)
	s.reset()
	return nil
}

// hand gives the finished draft over, unless something was against it, and says
// what came of it.
func (s *session) hand(b body, refused error) {
	began := time.Now()
	var sub mailgrant.Submission
	err := refused
	if err == nil {
		ctx, cancel := s.within()
		defer cancel()
		sub, err = s.srv.Outbox.Accept(ctx, s.caller, s.env, s.draft)
	}
	if err != nil {
		s.draft.Discard()
		s.draft = nil
		s.answer(err)
		s.log(err)
		return
	}
	s.draft = nil
	s.errors, s.chatter = 0, 0
	s.out = append(s.out, "250 2.0.0 accepted as "...)
	s.out = append(s.out, sub.ID...)
	s.out = append(s.out, '\r', '\n')
	if h := s.srv.Hooks.Accepted; h != nil {
		h(b.size, time.Since(began))
	}
}

// log keeps what a refusal does not say: our own mistakes, and their cause.
func (s *session) log(err error) {
	e := mailgrant.AsError(err)
	if e.Code == mailgrant.Internal || e.Code.Temporary() {
		s.srv.Log.Error("submission: message not accepted", "trace", string(s.env.Trace), "app", string(s.caller.App.ID), "code", string(e.Code), "error", errors.Join(e, e.Cause))
	}
}

func foldDomain(addr string) string {
	at := strings.LastIndexByte(addr, '@')
	return addr[:at] + strings.ToLower(addr[at:])
}

// split2 cuts at the first space, wherever it is.
func split2(b []byte) (head, rest []byte) {
	if i := bytes.IndexByte(b, ' '); i >= 0 {
		return b[:i], b[i+1:]
	}
	return b, nil
}
