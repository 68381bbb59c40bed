package smtp

import (
	"bufio"
	"fmt"
	"net"
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

	r        *bufio.Reader
	caps     caps
	greeting string

	used  bool // a message was sent over this connection
	dirty bool // a transaction may be open: RSET before the next
}

// caps are what the server offers.
type caps struct {
	pipelining, eightBit, utf8, starttls, size bool
	sizeMax                                    int64
	auth                                       []string
}

// newSession is one that will log in as User says.
func newSession(c Config, w provider.Way) *session {
	set := w.Settings
	return &session{c: c, Login: wire.Login{Way: w, User: User(w), TLS: c.TLS, Patience: c.limits.connect, Server: wire.Server{
		Protocol: "SMTP", Host: set.SMTPHost, Port: set.SMTPPort, Implicit: set.SMTPSecurity == "tls", Resource: set.Resources[mailgrant.CanSMTP],
		Instead: "send by the provider's API", Off: "smtp-auth-disabled-"}}}
}

// HangUp ends the connection. The next one begins anew.
func (s *session) HangUp() {
	s.Login.HangUp()
	s.r, s.used, s.dirty = nil, false, false
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
	greeting, err := readReply(s.r)
	if err != nil {
		return err
	}
	if greeting.code != 220 {
		return s.refusedBy(greeting)
	}
	s.greeting = greeting.text()
	if err := s.ehlo(); err != nil || s.Implicit {
		return err
	}
	return s.startTLS()
}

// startTLS secures the connection, or fails. RFC 3207 section 4.2.
func (s *session) startTLS() error {
	s.Step = "starttls"
	if !s.caps.starttls {
		return s.NoTLS("STARTTLS", s.explain(reply{}, "STARTTLS is not supported by the server"))
	}
	r, err := s.command("STARTTLS")
	if err != nil {
		return err
	}
	if r.code != 220 {
		return s.refusedBy(r)
	}
	if s.r.Buffered() > 0 {
		return fmt.Errorf("%w: it goes on in the clear after STARTTLS", errGarbled)
	}
	if err := s.Secure(); err != nil {
		return err
	}
	return s.ehlo()
}

func (s *session) ehlo() error {
	s.Step = "ehlo"
	ip := ""
	if a, ok := s.Conn.LocalAddr().(*net.TCPAddr); ok {
		ip = a.IP.String()
	}
	r, err := s.command("EHLO " + ehloName(s.c.Hostname, ip))
	if err != nil {
		return err
	}
	if r.code != 250 {
		return s.refusedBy(r)
	}
	s.caps = readCaps(r.lines)
	return nil
}

// readCaps reads the lines of an EHLO answer; what comes twice counts once.
func readCaps(lines []string) (c caps) {
	for _, l := range lines[1:] {
		name, arg, _ := strings.Cut(strings.ToUpper(strings.TrimSpace(l)), " ")
		switch name {
		case "PIPELINING":
			c.pipelining = true
		case "8BITMIME":
			c.eightBit = true
		case "SMTPUTF8":
			c.utf8 = true
		case "STARTTLS":
			c.starttls = true
		case "SIZE":
			c.size = true
			c.sizeMax, _ = strconv.ParseInt(strings.TrimSpace(arg), 10, 64)
		case "AUTH":
			c.auth = append(c.auth, strings.Fields(arg)...)
		default:
			if rest, ok := strings.CutPrefix(name, "AUTH="); ok { // an old spelling
				c.auth = append(append(c.auth, rest), strings.Fields(arg)...)
			}
		}
	}
	return c
}

// command sends one line and reads its reply.
func (s *session) command(line string) (reply, error) {
	s.Conn.SetDeadline(time.Now().Add(s.c.limits.command))
	if _, err := s.Conn.Write([]byte(line + "\r\n")); err != nil {
		return reply{}, err
	}
	return readReply(s.r)
}

// inline is how long an AUTH line with its response may be. RFC 4954 allows
// 12,288 octets, but many servers stop at the 512 of an ordinary command. Those
// of Microsoft and Google take more.
func inline(template string) int {
	if template == "google" || strings.HasPrefix(template, "microsoft") {
		return 12288
	}
	return 512
}

// LogIn proves who we are.
func (s *session) LogIn() (*mailgrant.Finding, error) {
	s.Step = "smtp-auth"
	if !s.Choose(func(m string) bool { return slices.Contains(s.caps.auth, m) }) {
		f := s.explain(reply{}, "504 5.7.4 Unrecognized authentication type: the server offers AUTH "+strings.Join(s.caps.auth, " ")+" and not XOAUTH2")
		return &f, nil
	}
	line, resp := "AUTH "+s.Mech, s.Response()
	waits := len(line)+1+len(resp)+2 > inline(s.Way.Settings.Template)
	if !waits {
		line += " " + resp
	}
	r, err := s.command(line)
	if err == nil && waits && r.code == 334 {
		r, err = s.command(resp)
	}
	if err == nil && r.code == 334 { // the reason, before the refusal
		r, err = s.command(s.Challenged(strings.Join(r.lines, "")))
	}
	if err != nil || r.code == 235 {
		return nil, err
	}
	f := s.explain(r, s.Challenge)
	return &f, nil
}

// User is the name that goes with the token: the signed-in user, or for a grant
// of the app itself the mailbox that sends. R159.
func User(w provider.Way) string {
	if w.Grant.Flow == mailgrant.FlowApp || w.Mailbox.Kind == mailgrant.MailboxApp {
		return w.Mailbox.Address
	}
	sub := w.Grant.Subject
	if w.Mailbox.Kind == mailgrant.MailboxShared {
		for _, name := range []string{sub.UPN, sub.Address, w.Grant.Mailbox} {
			if name != "" {
				return name
			}
		}
	}
	if sub.UPN != "" && strings.HasPrefix(w.Settings.Template, "microsoft") {
		return sub.UPN
	}
	return w.Mailbox.Address
}

// refusedBy makes an error of a reply on the way to a session.
func (s *session) refusedBy(r reply) error {
	return wire.Error(s.explain(r, ""), nil, "%s does not let us in: %s", s.Host, r.text())
}

// Explain says why there is no connection, or none any more.
func (s *session) Explain(err error) mailgrant.Finding { return s.Diagnose(diagnose.Failure{Err: err}) }

// explain asks diagnosis about a reply, or about what is known instead or more of it.
func (s *session) explain(r reply, more string) mailgrant.Finding {
	return s.Diagnose(diagnose.Failure{Protocol: "smtp", Text: strings.TrimSpace(more + " " + r.text()), SMTPCode: r.code, Enhanced: r.enhanced()})
}
