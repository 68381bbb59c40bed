package pop

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/diagnose"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/wire"
)

// A session is one connection that is logged in.
type session struct {
	c     Config
	way   provider.Way
	token mailgrant.Token // the one it logged in with
	mech  string

	challenge string // why the last token was refused, as the server put it

	raw    net.Conn // below TLS: closed when a context ends
	conn   net.Conn
	r      *bufio.Reader
	caps   caps
	noTop  bool // TOP was refused
	step   string
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

// open connects and logs in. A token that is refused gets one successor.
func (s *session) open(ctx context.Context) error {
	set := s.way.Settings
	if set.POPHost == "" {
		return mailgrant.Errorf(mailgrant.Misset, nil, "the provider of %s has no POP server set", s.way.Mailbox.Address).
			Fix("set pop_host on its registration, or read the mailbox by IMAP or by the provider's API")
	}
	resource := set.Resources[mailgrant.CanPOP]
	tok, err := s.way.Token(ctx, resource, false)
	if err != nil {
		return err
	}
	f, err := s.try(ctx, tok)
	if f == nil {
		return err
	}
	if s.tokenDoubtful(*f) {
		if fresh, ferr := s.way.Token(ctx, resource, true); ferr == nil && fresh.Value != tok.Value {
			if f, err = s.try(ctx, fresh); f == nil {
				return err
			}
		}
	}
	return err
}

// tokenDoubtful says whether a fresh token could help after a refused login. A
// mailbox in use and a limit are no doubt about the token, unless the server said
// itself that it is the token.
func (s *session) tokenDoubtful(f mailgrant.Finding) bool {
	return s.mech != "" && (f.Retry != mailgrant.RetryLater || blamesToken(s.challenge))
}

// blamesToken reads the reason that comes before the refusal: Google's and
// Microsoft's form, and that of RFC 7628 section 3.2.2.
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
	s.token, s.mech, s.challenge = tok, "", ""
	f, err := s.connect(ctx)
	if ctx.Err() != nil && err != nil {
		err = context.Cause(ctx)
	}
	if err == nil && f == nil {
		return nil, nil
	}
	s.hangUp()
	if f != nil {
		return f, wire.Error(*f, nil, "%s did not accept the login of %s", s.way.Settings.POPHost, s.way.Mailbox.Address)
	}
	return nil, s.notOpened(err)
}

func (s *session) notOpened(err error) error {
	var e *mailgrant.Error
	if errors.As(err, &e) && (e.Finding != nil || e.Code == mailgrant.Misset) {
		return e
	}
	return wire.Error(s.explain("", err), err, "no POP session with %s could be opened", s.way.Settings.POPHost)
}

func (s *session) hangUp() {
	if s.conn != nil {
		s.conn.Close()
		s.conn, s.r = nil, nil
	}
}

// connect dials and goes up to the opened mailbox. When ctx ends the connection
// does.
func (s *session) connect(ctx context.Context) (*mailgrant.Finding, error) {
	if err := s.dial(ctx); err != nil {
		return nil, err
	}
	raw := s.raw
	defer context.AfterFunc(ctx, func() { raw.Close() })()
	if err := s.greet(ctx); err != nil {
		return nil, err
	}
	if f, err := s.login(); f != nil || err != nil {
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
	s.step = "pop-open"
	r, err := s.command("STAT")
	if err != nil || r.ok {
		return nil, err
	}
	f := s.explain(r.text, nil)
	return &f, nil
}

func (s *session) dial(ctx context.Context) error {
	set := s.way.Settings
	s.step = "connect"
	ctx, cancel := context.WithTimeout(ctx, s.c.limits.connect)
	defer cancel()
	conn, err := s.way.Dial(ctx, "tcp", net.JoinHostPort(set.POPHost, strconv.Itoa(set.POPPort)))
	if err != nil {
		return err
	}
	s.raw, s.conn = conn, conn
	return nil
}

// greet comes as far as a secured connection with its capabilities known.
func (s *session) greet(ctx context.Context) error {
	implicit := s.way.Settings.POPSecurity == "tls"
	if implicit {
		if err := s.secure(ctx); err != nil {
			return err
		}
	}
	s.r = bufio.NewReaderSize(s.conn, readAhead)
	s.conn.SetDeadline(time.Now().Add(s.c.limits.greeting))
	r, err := s.reply()
	if err != nil {
		return err
	}
	if !r.ok {
		return s.refusedBy(r)
	}
	if err := s.capa(); err != nil || implicit {
		return err
	}
	return s.startTLS(ctx)
}

// startTLS secures the connection, or fails: an answer without STLS may be
// somebody on the way who took it out. RFC 8314, RFC 2595 section 4. IM-05.
func (s *session) startTLS(ctx context.Context) error {
	s.step = "starttls"
	if s.caps.known && !s.caps.stls {
		return mailgrant.Errorf(mailgrant.Misset, nil, "%s does not offer STLS, and nothing is said without TLS", s.way.Settings.POPHost).
			With(s.explain("STARTTLS is not supported by the server", nil))
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
	if err := s.secure(ctx); err != nil {
		return err
	}
	s.r.Reset(s.conn)
	return s.capa()
}

func (s *session) secure(ctx context.Context) error {
	s.step = "tls"
	conn := tls.Client(s.conn, s.c.TLS(s.way.Settings.POPHost, s.way.CAFile))
	s.conn.SetDeadline(time.Now().Add(s.c.limits.connect))
	if err := conn.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS with %s: %w", s.way.Settings.POPHost, err)
	}
	s.conn = conn
	return nil
}

// capa asks what the server offers. An old one does not know the question.
func (s *session) capa() error {
	s.step, s.caps = "capa", caps{}
	r, err := s.command("CAPA")
	if err != nil || !r.ok {
		return err
	}
	s.caps.known = true
	lines := 0
	return readLines(s.r, func(line string) error {
		if lines++; lines > capasMax {
			return errFlood
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
	s.conn.SetDeadline(time.Now().Add(s.c.limits.command))
	if _, err := s.conn.Write([]byte(line + "\r\n")); err != nil {
		return reply{}, err
	}
	return s.reply()
}

func (s *session) reply() (reply, error) {
	line, err := readLine(s.r)
	if err != nil {
		return reply{}, err
	}
	return parseReply(line)
}

// inline is how long a line may be, with its CRLF. RFC 5034 section 4 leaves it
// at RFC 2449's 255 octets: room for opaque tokens, not for a JWT.
const inline = 255

// login proves who we are. A finding comes back when the server says no.
func (s *session) login() (*mailgrant.Finding, error) {
	s.step = "pop-auth"
	s.mech = s.mechanism()
	if s.mech == "" {
		f := s.explain("504 5.7.4 Unrecognized authentication type: the server offers SASL "+strings.Join(s.caps.sasl, " ")+" and not XOAUTH2", nil)
		return &f, nil
	}
	resp := base64.StdEncoding.EncodeToString(s.response())
	line := "AUTH " + s.mech
	waits := s.way.Settings.POPTwoLine || len(line)+1+len(resp)+2 > inline
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
		s.challenge = decodeChallenge(r.rest)
		answer := ""
		if s.mech == "OAUTHBEARER" {
			answer = "AQ=="
		}
		r, err = s.command(answer)
	}
	switch {
	case err != nil:
		return nil, err
	case r.more:
		return nil, errGarbled
	case r.ok:
		return nil, nil
	}
	f := s.explain(strings.TrimSpace(s.challenge+" "+r.text), nil)
	if r.code == "LOGIN-DELAY" {
		f.RetryAfter = max(f.RetryAfter, s.caps.delay)
	}
	return &f, nil
}

// mechanism is the first of the template's that the server offers, or of one that
// does not say what it offers the first of all.
func (s *session) mechanism() string {
	want := s.way.Settings.SASL
	if len(want) == 0 {
		want = []string{"XOAUTH2", "OAUTHBEARER"}
	}
	for _, m := range want {
		m = strings.ToUpper(m)
		if m != "XOAUTH2" && m != "OAUTHBEARER" {
			continue
		}
		if !s.caps.known {
			return m
		}
		for _, have := range s.caps.sasl {
			if m == have {
				return m
			}
		}
	}
	return ""
}

// response names the mailbox, whoever signed in for it. R159.
func (s *session) response() []byte {
	token, user, set := s.token.Value.Reveal(), s.way.Mailbox.Address, s.way.Settings
	if s.mech == "OAUTHBEARER" { // RFC 7628 section 3.1
		name := strings.NewReplacer("=", "=3D", ",", "=2C").Replace(user)
		return fmt.Appendf(nil, "n,a=%s,\x01host=%s\x01port=%d\x01auth=Bearer %s\x01\x01", name, set.POPHost, set.POPPort, token)
	}
	return []byte("user=" + user + "\x01auth=Bearer " + token + "\x01\x01")
}

// decodeChallenge is the JSON behind a "+", as text.
func decodeChallenge(s string) string {
	b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(s))
	if err != nil {
		return wire.Clean(s, wire.ReplyMax)
	}
	return wire.Clean(string(b), wire.ReplyMax)
}

// refusedBy makes an error of a refusal.
func (s *session) refusedBy(r reply) error {
	return wire.Error(s.explain(r.text, nil), nil, "%s refuses: %s", s.way.Settings.POPHost, s.clean(r.text))
}

// broken makes an error of a session that ended too early or in nonsense.
func (s *session) broken(err error) error {
	return wire.Error(s.explain("", err), err, "the POP session of %s with %s broke off", s.way.Mailbox.Address, s.way.Settings.POPHost)
}

// clean takes our own token out of what the server says: it may say it back.
func (s *session) clean(text string) string {
	if v := s.token.Value.Reveal(); len(v) >= 16 {
		text = strings.ReplaceAll(text, v, "[secret]")
	}
	return text
}

// explain asks diagnosis, with all that is known of this case.
func (s *session) explain(text string, err error) mailgrant.Finding {
	set := s.way.Settings
	step := s.step
	if step == "tls" && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)) {
		step = "connect" // it hung up before a word: that passes, and says nothing of its TLS
	}
	facts := wire.Facts(s.way, s.token, step)
	facts["host"], facts["port"] = set.POPHost, strconv.Itoa(set.POPPort)
	facts["tls"] = map[bool]string{true: "implicit", false: "starttls"}[set.POPSecurity == "tls"]
	if s.mech != "" {
		facts["auth_mech"], facts["xoauth2_user"] = strings.ToLower(s.mech), s.way.Mailbox.Address
	}
	if errors.Is(err, errGarbled) || errors.Is(err, errFlood) {
		return mailgrant.Finding{Cause: diagnose.Unknown, Title: "Answer not understood", Sentence: fmt.Sprintf("What %s answered is not POP3.", set.POPHost),
			Remedy: "See whether the registration's pop_host and pop_port are those of a POP server, and whether something on the way changes what it says.",
			Who:    mailgrant.WhoOperator, Retry: mailgrant.RetryLater, Raw: err.Error()}
	}
	protocol := "pop"
	if text == "" && err != nil {
		text = err.Error()
		if s.mech == "" {
			protocol = "network"
		}
	}
	return diagnose.Explain(diagnose.Failure{Text: s.clean(text), Protocol: protocol, Context: facts, Err: err})
}

// end says goodbye. What was marked for deletion goes only when the server says
// yes to it.
func (s *session) end() (reply, error) {
	defer s.hangUp()
	return s.command("QUIT")
}
