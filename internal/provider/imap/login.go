package imap

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider/wire"
)

// inline is how long an AUTHENTICATE line with its response may be. RFC 4959
// sets no bound; Dovecot stops at about 8 kB, Exchange was seen to stop at 10.
const inline = 8000

// login connects and logs in. A token that is refused gets one successor.
func (s *session) login(ctx context.Context) error {
	set := s.way.Settings
	if set.IMAPHost == "" {
		return mailgrant.Errorf(mailgrant.Misset, nil, "the provider of %s has no IMAP server set", s.way.Mailbox.Address).
			Fix("set imap_host on its registration, or read by the provider's API")
	}
	resource := set.Resources[mailgrant.CanIMAP]
	tok, err := s.way.Token(ctx, resource, false)
	if err != nil {
		return err
	}
	f, err := s.try(ctx, tok)
	if f == nil || !s.tokenDoubtful(*f) {
		return err
	}
	if fresh, ferr := s.way.Token(ctx, resource, true); ferr == nil && fresh.Value != tok.Value {
		_, err = s.try(ctx, fresh)
	}
	return err
}

// tokenDoubtful says whether a fresh token could help after a refused login. A
// limit or an outage is no doubt about the token, unless the server said itself
// that it is the token.
func (s *session) tokenDoubtful(f mailgrant.Finding) bool {
	if s.mech == "" || f.Cause == "imap-pop-disabled-mailbox" {
		return false
	}
	return f.Retry != mailgrant.RetryLater || blamesToken(s.challenge)
}

// blamesToken reads the reason that comes before the refusal: Google's form, and
// that of RFC 7628 section 3.2.2.
func blamesToken(challenge string) bool {
	var c struct {
		Status string `json:"status"`
	}
	return json.Unmarshal([]byte(challenge), &c) == nil && (c.Status == "401" || c.Status == "invalid_token")
}

// try makes one connection with one token. A finding comes back when it was the
// login that was refused.
func (s *session) try(ctx context.Context, tok mailgrant.Token) (*mailgrant.Finding, error) {
	s.hangUp()
	s.token, s.caps, s.bye = tok, caps{}, ""
	s.user, s.mech, s.challenge = "", "", ""
	err := s.connect(ctx)
	if err == nil {
		return nil, nil
	}
	s.hangUp()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	var no *refused
	if s.step == "imap-auth" && errors.As(err, &no) {
		f := s.explain(err)
		return &f, wire.Error(f, nil, "%s did not accept the login of %s", s.way.Settings.IMAPHost, s.way.Mailbox.Address)
	}
	return nil, s.notOpened(err)
}

// connect dials and goes up to the login. When ctx ends the connection does.
func (s *session) connect(ctx context.Context) error {
	if err := s.reach(ctx); err != nil {
		return err
	}
	defer s.link.closeWith(ctx)()
	return s.authenticate()
}

// reach dials and goes up to what the secured server offers.
func (s *session) reach(ctx context.Context) error {
	set := s.way.Settings
	s.step = "connect"
	dial, cancel := context.WithTimeout(ctx, s.c.limits.connect)
	defer cancel()
	conn, err := s.way.Dial(dial, "tcp", net.JoinHostPort(set.IMAPHost, strconv.Itoa(set.IMAPPort)))
	if err != nil {
		return err
	}
	s.link = &link{raw: conn, conn: conn, patience: s.c.limits.command}
	defer s.link.closeWith(ctx)()
	if set.IMAPSecurity != "starttls" {
		if err := s.secure(ctx); err != nil {
			return err
		}
	}
	if err := s.greet(); err != nil {
		return err
	}
	if set.IMAPSecurity == "starttls" {
		if err := s.startTLS(ctx); err != nil {
			return err
		}
	}
	if s.caps.known {
		return nil
	}
	return s.capability()
}

// greet reads the greeting. One that needs no login is no mailbox of ours: what
// we would read there, somebody on the way may have put. IM-05.
func (s *session) greet() error {
	s.step = "imap-greeting"
	s.link.left = floodMax
	s.link.conn.SetDeadline(time.Now().Add(s.c.limits.command))
	r, err := s.next()
	switch {
	case err != nil:
		return err
	case r.tag == "" && r.kind == "PREAUTH":
		return preauth(s.way.Settings.IMAPHost)
	case r.tag == "" && r.kind == "BYE":
		return &refused{r}
	case r.tag != "" || r.kind != "OK":
		return errGarbled
	}
	if r.code == "CAPABILITY" && s.way.Settings.IMAPSecurity != "starttls" {
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

// startTLS secures the connection, or fails: an answer without STARTTLS may be
// somebody on the way who took it out. What was said before counts for nothing
// after. RFC 8314, RFC 9051 section 11.1.
func (s *session) startTLS(ctx context.Context) error {
	s.step = "starttls"
	if err := s.capability(); err != nil {
		return err
	}
	if !s.caps.startTLS {
		return mailgrant.Errorf(mailgrant.Misset, nil, "%s does not offer STARTTLS, and nothing is said without TLS", s.way.Settings.IMAPHost).
			With(s.explain(errors.New("STARTTLS is not supported by the server")))
	}
	if _, err := s.run("STARTTLS", nil); err != nil {
		return err
	}
	if s.link.r < s.link.w {
		return fmt.Errorf("%w: it goes on in the clear after STARTTLS", errGarbled)
	}
	if err := s.secure(ctx); err != nil {
		return err
	}
	s.caps, s.bye = caps{}, ""
	return nil
}

func (s *session) secure(ctx context.Context) error {
	s.step = "tls"
	host := s.way.Settings.IMAPHost
	conn := tls.Client(s.link.conn, s.c.TLS(host, s.way.CAFile))
	s.link.conn.SetDeadline(time.Now().Add(s.c.limits.connect))
	if err := conn.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS with %s: %w", host, err)
	}
	s.link.conn = conn
	return nil
}

// authenticate proves who we are.
func (s *session) authenticate() error {
	s.step = "imap-auth"
	s.mech = s.mechanism()
	if s.mech == "" {
		return &refused{response{kind: "NO", text: "unsupported authentication mechanism: the server offers AUTH=" + strings.Join(s.caps.auth, " AUTH=") + " and not AUTH=XOAUTH2"}}
	}
	s.user = s.way.Mailbox.Address // R159: also of a shared one, and for the app itself
	resp := base64.StdEncoding.EncodeToString(s.response())
	line, waits := "AUTHENTICATE "+s.mech, true
	if s.caps.saslIR && s.way.Settings.IMAPSASLIR != "never" && len(line)+len(resp)+20 <= inline {
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
		s.challenge = decodeChallenge(r.text)
		answer := ""
		if s.mech == "OAUTHBEARER" {
			answer = "AQ=="
		}
		if err = s.link.write([]byte(answer + "\r\n")); err == nil {
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
	s.step = "imap-capability"
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

// mechanism is the first of the template's that the server offers.
func (s *session) mechanism() string {
	want := s.way.Settings.SASL
	if len(want) == 0 {
		want = []string{"XOAUTH2", "OAUTHBEARER"}
	}
	for _, m := range want {
		switch m = strings.ToUpper(m); {
		case m == "XOAUTH2" && s.caps.xoauth2, m == "OAUTHBEARER" && s.caps.oauthbearer:
			return m
		}
	}
	return ""
}

func (s *session) response() []byte {
	token := s.token.Value.Reveal()
	if s.mech == "OAUTHBEARER" { // RFC 7628 section 3.1
		set := s.way.Settings
		name := strings.NewReplacer("=", "=3D", ",", "=2C").Replace(s.user)
		return fmt.Appendf(nil, "n,a=%s,\x01host=%s\x01port=%d\x01auth=Bearer %s\x01\x01", name, set.IMAPHost, set.IMAPPort, token)
	}
	return []byte("user=" + s.user + "\x01auth=Bearer " + token + "\x01\x01")
}

// decodeChallenge is the JSON in a "+", as text.
func decodeChallenge(s string) string {
	b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(s))
	if err != nil {
		b = []byte(s)
	}
	return wire.Clean(string(bytes.TrimSpace(b)), wire.ReplyMax)
}
