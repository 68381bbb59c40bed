package imap

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/wire"
)

// inline is how long an AUTHENTICATE line with its response may be. RFC 4959
// sets no bound; Dovecot stops at about 8 kB, Exchange was seen to stop at 10.
const inline = 8000

// newSession is one that will log in as the mailbox: also as a shared one, and for
// the app itself. R159.
func newSession(c Config, w provider.Way) *session {
	set := w.Settings
	return &session{c: c, Login: wire.Login{Way: w, User: w.Mailbox.Address, TLS: c.TLS, Patience: c.limits.connect, Server: wire.Server{
		Protocol: "IMAP", Host: set.IMAPHost, Port: set.IMAPPort, Implicit: set.IMAPSecurity != "starttls", Resource: set.Resources[mailgrant.CanIMAP],
		Instead: "read by the provider's API", Off: "imap-pop-disabled-"}}}
}

// Greet goes up to what the secured server offers.
func (s *session) Greet() error {
	s.caps, s.bye = caps{}, ""
	s.link = link{conn: s.Conn, patience: s.c.limits.command}
	if s.Implicit {
		if err := s.Secure(); err != nil {
			return err
		}
	}
	if err := s.greeting(); err != nil {
		return err
	}
	if !s.Implicit {
		if err := s.startTLS(); err != nil {
			return err
		}
	}
	if s.caps.known {
		return nil
	}
	return s.capability()
}

// greeting reads the greeting. One that needs no login is no mailbox of ours: what
// we would read there, somebody on the way may have put. IM-05.
func (s *session) greeting() error {
	s.Step = "imap-greeting"
	s.link.left = floodMax
	s.Conn.SetDeadline(time.Now().Add(s.c.limits.command))
	r, err := s.next()
	switch {
	case err != nil:
		return err
	case r.tag == "" && r.kind == "PREAUTH":
		return preauth(s.Host)
	case r.tag == "" && r.kind == "BYE":
		return &refused{r}
	case r.tag != "" || r.kind != "OK":
		return errGarbled
	}
	if r.code == "CAPABILITY" && s.Implicit {
		s.caps = readCaps(r.args)
	}
	return nil
}

func preauth(host string) error {
	return mailgrant.Errorf(mailgrant.Misset, nil, "%s says that we are logged in before we are: nothing is read there", host).With(mailgrant.Finding{
		Cause: "proxy-interference", Title: "A login that is none", Sentence: "The server greets us as somebody who is logged in already, which no provider does.",
		Remedy: "Correct the IMAP server of the registration, or ask your network team what stands between mailgrant and it.",
		Who:    mailgrant.WhoOperator, Retry: mailgrant.RetryFix, Confidence: 1, Link: "errors/proxy-interference", Raw: "* PREAUTH"})
}

// startTLS secures the connection, or fails. What was said before counts for
// nothing after. RFC 9051 section 11.1.
func (s *session) startTLS() error {
	s.Step = "starttls"
	if err := s.capability(); err != nil {
		return err
	}
	if !s.caps.startTLS {
		return s.NoTLS("STARTTLS", s.Explain(errors.New("STARTTLS is not supported by the server")))
	}
	if _, err := s.run("STARTTLS", nil); err != nil {
		return err
	}
	if s.link.r < s.link.w {
		return fmt.Errorf("%w: it goes on in the clear after STARTTLS", errGarbled)
	}
	if err := s.Secure(); err != nil {
		return err
	}
	s.caps, s.bye = caps{}, ""
	return nil
}

// LogIn proves who we are.
func (s *session) LogIn() (*mailgrant.Finding, error) {
	err := s.authenticate()
	if no := (*refused)(nil); s.Step == "imap-auth" && errors.As(err, &no) {
		f := s.Explain(err)
		return &f, nil
	}
	return nil, err
}

func (s *session) authenticate() error {
	s.Step = "imap-auth"
	if !s.Choose(s.caps.takes) {
		return &refused{response{kind: "NO", text: "unsupported authentication mechanism: the server offers AUTH=" + strings.Join(s.caps.auth, " AUTH=") + " and not AUTH=XOAUTH2"}}
	}
	resp := s.Response()
	line, waits := "AUTHENTICATE "+s.Mech, true
	if s.caps.saslIR && s.Way.Settings.IMAPSASLIR != "never" && len(line)+len(resp)+20 <= inline {
		line, waits = line+" "+resp, false
	}
	s.caps = caps{}
	tag, err := s.send(s.c.limits.login, line)
	if err != nil {
		return err
	}
	r, err := s.hearLogin(tag)
	if err == nil && waits && r.tag == "+" {
		if err = s.link.write([]byte(resp + "\r\n")); err == nil {
			r, err = s.hearLogin(tag)
		}
	}
	if err == nil && r.tag == "+" { // the reason, before the refusal
		if err = s.link.write([]byte(s.Challenged(r.text) + "\r\n")); err == nil {
			r, err = s.hearLogin(tag)
		}
	}
	if err != nil {
		return err
	}
	if r.tag == "+" {
		return errGarbled
	}
	if r.kind != "OK" {
		return &refused{r}
	}
	if s.caps = (caps{}); r.code == "CAPABILITY" {
		s.caps = readCaps(r.args)
		s.caps.auth = nil
		return nil
	}
	s.Step = "imap-capability"
	err = s.capability()
	s.caps.auth = nil
	return err
}

// hearLogin reads on to the end of the login, or to where the server wants more.
func (s *session) hearLogin(tag string) (response, error) {
	for {
		r, err := s.next()
		if err != nil || r.tag == tag || r.tag == "+" {
			return r, err
		}
		if r.tag != "" {
			return r, errGarbled
		}
	}
}
