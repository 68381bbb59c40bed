package pop

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/diagnose"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/wire"
)

// A session is one connection that is logged in.
type session struct {
	wire.Login
	c Config

	r      *bufio.Reader
	caps   caps
	noTop  bool      // TOP was refused
	begun  time.Time // when it was logged in
	listed *listing
	at     int  // how far the listing was looked through
	only   bool // logged in to see whether that works: the mailbox is not opened
}

// caps are what the server offers. RFC 2449.
type caps struct {
	known, stls, top, uidl bool
	sasl                   []string
	delay                  time.Duration // between two logins
	delayOfUser            bool          // it may differ once we are logged in
}

// newSession is one that will log in as the mailbox, whoever signed in for it. R159.
func newSession(c Config, w provider.Way) *session {
	set := w.Settings
	return &session{c: c, Login: wire.Login{Way: w, User: w.Mailbox.Address, TLS: c.TLS, Patience: c.limits.connect, Server: wire.Server{
		Protocol: "POP", Host: set.POPHost, Port: set.POPPort, Implicit: set.POPSecurity == "tls", Resource: set.Resources[mailgrant.CanPOP],
		Instead: "read the mailbox by IMAP or by the provider's API"}}}
}

// Greet comes as far as a secured connection with its capabilities known.
func (s *session) Greet() error {
	if s.Implicit {
		if err := s.Secure(); err != nil {
			return err
		}
	}
	s.r = bufio.NewReaderSize(s.Conn, readAhead)
	s.Conn.SetDeadline(time.Now().Add(s.c.limits.greeting))
	r, err := s.reply()
	if err != nil {
		return err
	}
	if !r.ok {
		return s.refusedBy(r)
	}
	if err := s.capa(); err != nil || s.Implicit {
		return err
	}
	return s.startTLS()
}

// startTLS secures the connection, or fails. RFC 2595 section 4. IM-05.
func (s *session) startTLS() error {
	s.Step = "starttls"
	if s.caps.known && !s.caps.stls {
		return s.NoTLS("STLS", s.explain("STARTTLS is not supported by the server"))
	}
	r, err := s.command("STLS")
	if err != nil {
		return err
	}
	if !r.ok {
		return s.refusedBy(r)
	}
	if s.r.Buffered() > 0 {
		return errors.New("the server's answer goes on in the clear after STARTTLS")
	}
	if err := s.Secure(); err != nil {
		return err
	}
	return s.capa()
}

// capa asks what the server offers. An old one does not know the question.
func (s *session) capa() error {
	s.Step, s.caps = "capa", caps{}
	r, err := s.command("CAPA")
	if err != nil || !r.ok {
		return err
	}
	s.caps.known = true
	lines := 0
	return readLines(s.r, func(line string) error {
		if lines++; lines > capasMax {
			return wire.ErrFlood
		}
		s.caps.read(line)
		return nil
	})
}

func (c *caps) read(line string) {
	words := strings.Fields(strings.ToUpper(line))
	if len(words) == 0 {
		return
	}
	switch words[0] {
	case "STLS":
		c.stls = true
	case "TOP":
		c.top = true
	case "UIDL":
		c.uidl = true
	case "SASL":
		c.sasl = append(c.sasl, words[1:]...)
	case "LOGIN-DELAY":
		if len(words) > 1 {
			n, _ := strconv.ParseUint(words[1], 10, 32)
			c.delay = min(time.Duration(n)*time.Second, delayMax)
		}
		c.delayOfUser = len(words) > 2 && words[2] == "USER"
	}
}

// delayMax is the most that is believed of a LOGIN-DELAY.
const delayMax = time.Hour

// command sends one line and reads the first of the answer.
func (s *session) command(line string) (reply, error) {
	s.Conn.SetDeadline(time.Now().Add(s.c.limits.command))
	if _, err := s.Conn.Write([]byte(line + "\r\n")); err != nil {
		return reply{}, err
	}
	return s.reply()
}

func (s *session) reply() (reply, error) {
	line, _, err := wire.ReadLine(s.r)
	if err != nil {
		return reply{}, err
	}
	return parseReply(line)
}

// inline is how long a line may be, with its CRLF. RFC 5034 section 4 leaves it
// at RFC 2449's 255 octets: room for opaque tokens, not for a JWT.
const inline = 255

// LogIn proves who we are and opens the mailbox.
func (s *session) LogIn() (*mailgrant.Finding, error) {
	if f, err := s.prove(); f != nil || err != nil {
		return f, err
	}
	s.begun = time.Now()
	if s.only {
		return nil, nil
	}
	if s.caps.delayOfUser {
		if err := s.capa(); err != nil {
			return nil, err
		}
	}
	s.Step = "pop-open"
	r, err := s.command("STAT")
	if err != nil || r.ok {
		return nil, err
	}
	f := s.explain(r.text)
	return &f, nil
}

func (s *session) prove() (*mailgrant.Finding, error) {
	s.Step = "pop-auth"
	// A server that does not say what it offers is shown the first of the template's.
	if !s.Choose(func(m string) bool { return !s.caps.known || slices.Contains(s.caps.sasl, m) }) {
		f := s.explain("504 5.7.4 Unrecognized authentication type: the server offers SASL " + strings.Join(s.caps.sasl, " ") + " and not XOAUTH2")
		return &f, nil
	}
	line, resp := "AUTH "+s.Mech, s.Response()
	waits := s.Way.Settings.POPTwoLine || len(line)+1+len(resp)+2 > inline
	if !waits {
		line += " " + resp
	}
	r, err := s.command(line)
	if err == nil && waits && r.more {
		r, err = s.command(resp)
	} else if err == nil && waits && r.ok { // to what?
		err = errGarbled
	}
	if err == nil && r.more { // the reason, before the refusal
		r, err = s.command(s.Challenged(r.rest))
	}
	switch {
	case err != nil:
		return nil, err
	case r.more:
		return nil, errGarbled
	case r.ok:
		return nil, nil
	}
	f := s.explain(strings.TrimSpace(s.Challenge + " " + r.text))
	if r.code == "LOGIN-DELAY" {
		f.RetryAfter = max(f.RetryAfter, s.caps.delay)
	}
	return &f, nil
}

// refusedBy makes an error of a refusal.
func (s *session) refusedBy(r reply) error {
	return wire.Error(s.explain(r.text), nil, "%s refuses: %s", s.Host, s.Redact(r.text))
}

// broken makes an error of a session that ended too early or in nonsense.
func (s *session) broken(err error) error {
	return wire.Error(s.Explain(err), err, "the POP session of %s with %s broke off", s.Way.Mailbox.Address, s.Host)
}

// explain asks diagnosis about what the server said.
func (s *session) explain(text string) mailgrant.Finding {
	return s.Diagnose(diagnose.Failure{Protocol: "pop", Text: text})
}

// Explain says why there is no session, or none any more.
func (s *session) Explain(err error) mailgrant.Finding {
	if errors.Is(err, errGarbled) || errors.Is(err, wire.ErrFlood) {
		return mailgrant.Finding{Cause: diagnose.Unknown, Title: "Answer not understood", Sentence: fmt.Sprintf("What %s answered is not POP3.", s.Host),
			Remedy: "See whether the registration's pop_host and pop_port are those of a POP server, and whether something on the way changes what it says.",
			Who:    mailgrant.WhoOperator, Retry: mailgrant.RetryLater, Raw: err.Error()}
	}
	f := diagnose.Failure{Err: err}
	if s.Mech != "" { // past the greeting, servers have reasons of their own to close
		f.Protocol = "pop"
	}
	return s.Diagnose(f)
}

// end says goodbye. What was marked for deletion goes only when the server says
// yes to it.
func (s *session) end() (reply, error) {
	defer s.HangUp()
	return s.command("QUIT")
}

// leave says goodbye as is proper. What the server says to it changes nothing.
func (s *session) leave(ctx context.Context) {
	defer s.Conn.CloseWith(ctx)()
	s.end()
}
