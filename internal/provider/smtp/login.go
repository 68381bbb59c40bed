package smtp

import (
	"bufio"
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
	user  string

	challenge string // why the last token was refused, as the server put it

	raw      net.Conn // below TLS: closed when a context ends
	conn     net.Conn
	r        *bufio.Reader
	caps     caps
	greeting string

	used  bool // a message was sent over this connection
	dirty bool // a transaction may be open: RSET before the next
	step  string
}

// caps are what the server offers.
type caps struct {
	pipelining, eightBit, utf8, starttls, size bool
	sizeMax                                    int64
	auth                                       []string
}

// open connects and logs in. A token that is refused gets one successor.
func (s *session) open(ctx context.Context) error {
	set := s.way.Settings
	if set.SMTPHost == "" {
		return mailgrant.Errorf(mailgrant.Misset, nil, "the provider of %s has no SMTP server set", s.way.Mailbox.Address).Fix("set smtp_host on its registration, or send by the provider's API")
	}
	resource := set.Resources[mailgrant.CanSMTP]
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
// switch that is off stays off, and a limit is no doubt about the token, unless
// the server said itself that it is the token.
func (s *session) tokenDoubtful(f mailgrant.Finding) bool {
	if s.mech == "" || strings.HasPrefix(f.Cause, "smtp-auth-disabled-") {
		return false
	}
	return f.Retry != mailgrant.RetryLater || blamesToken(s.challenge)
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
	s.token, s.used, s.dirty = tok, false, false
	s.user, s.mech, s.challenge = "", "", ""
	f, err := s.connect(ctx)
	if ctx.Err() != nil && err != nil {
		err = context.Cause(ctx)
	}
	if err == nil && f == nil {
		return nil, nil
	}
	s.hangUp()
	if f != nil {
		return f, wire.Error(*f, nil, "%s did not accept the login of %s", s.way.Settings.SMTPHost, s.way.Mailbox.Address)
	}
	return nil, s.notOpened(err)
}

// notOpened says why there is no connection.
func (s *session) notOpened(err error) error {
	var e *mailgrant.Error
	if errors.As(err, &e) && (e.Finding != nil || e.Code == mailgrant.Misset) {
		return e
	}
	f := s.explain(reply{}, "", err)
	return wire.Error(f, err, "no SMTP session with %s could be opened", s.way.Settings.SMTPHost)
}

func (s *session) hangUp() {
	if s.conn != nil {
		s.conn.Close()
		s.conn, s.r = nil, nil
	}
}

// connect dials and goes up to the login. When ctx ends the connection does.
func (s *session) connect(ctx context.Context) (*mailgrant.Finding, error) {
	if err := s.dial(ctx); err != nil {
		return nil, err
	}
	raw := s.raw
	defer context.AfterFunc(ctx, func() { raw.Close() })()
	if err := s.greet(ctx); err != nil {
		return nil, err
	}
	return s.login()
}

func (s *session) dial(ctx context.Context) error {
	set := s.way.Settings
	s.step = "connect"
	ctx, cancel := context.WithTimeout(ctx, s.c.limits.connect)
	defer cancel()
	conn, err := s.way.Dial(ctx, "tcp", net.JoinHostPort(set.SMTPHost, strconv.Itoa(set.SMTPPort)))
	if err != nil {
		return err
	}
	s.raw, s.conn = conn, conn
	return nil
}

// greet comes as far as a secured connection with its capabilities known.
func (s *session) greet(ctx context.Context) error {
	set, lim := s.way.Settings, s.c.limits
	if set.SMTPSecurity == "tls" {
		if err := s.secure(ctx); err != nil {
			return err
		}
	}
	s.r = bufio.NewReaderSize(s.conn, readAhead)
	s.conn.SetDeadline(time.Now().Add(lim.greeting))
	greeting, err := readReply(s.r)
	if err != nil {
		return err
	}
	if greeting.code != 220 {
		return s.refusedBy(greeting)
	}
	s.greeting = greeting.text()
	if err := s.ehlo(); err != nil {
		return err
	}
	if set.SMTPSecurity == "tls" {
		return nil
	}
	return s.startTLS(ctx)
}

// startTLS secures the connection, or fails: an answer without STARTTLS may be
// somebody on the way who took it out. RFC 8314, RFC 3207 section 4.2.
func (s *session) startTLS(ctx context.Context) error {
	s.step = "starttls"
	if !s.caps.starttls {
		return mailgrant.Errorf(mailgrant.Misset, nil, "%s does not offer STARTTLS, and nothing is sent without TLS", s.way.Settings.SMTPHost).
			With(s.explain(reply{}, "STARTTLS is not supported by the server", nil))
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
	if err := s.secure(ctx); err != nil {
		return err
	}
	s.r.Reset(s.conn)
	return s.ehlo()
}

func (s *session) secure(ctx context.Context) error {
	s.step = "tls"
	cfg := s.c.TLS(s.way.Settings.SMTPHost, s.way.CAFile)
	cfg.DynamicRecordSizingDisabled = true // one record a message, not ten
	conn := tls.Client(s.conn, cfg)
	s.conn.SetDeadline(time.Now().Add(s.c.limits.connect))
	if err := conn.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS with %s: %w", s.way.Settings.SMTPHost, err)
	}
	s.conn = conn
	return nil
}

func (s *session) ehlo() error {
	s.step = "ehlo"
	ip := ""
	if a, ok := s.conn.LocalAddr().(*net.TCPAddr); ok {
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
	s.conn.SetDeadline(time.Now().Add(s.c.limits.command))
	if _, err := s.conn.Write([]byte(line + "\r\n")); err != nil {
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

// login proves who we are. A finding comes back when the server says no.
func (s *session) login() (*mailgrant.Finding, error) {
	s.step = "smtp-auth"
	s.mech = s.mechanism()
	if s.mech == "" {
		f := s.explain(reply{}, "504 5.7.4 Unrecognized authentication type: the server offers AUTH "+strings.Join(s.caps.auth, " ")+" and not XOAUTH2", nil)
		return &f, nil
	}
	s.user = User(s.way)
	resp := base64.StdEncoding.EncodeToString(s.response())
	line := "AUTH " + s.mech
	waits := len(line)+1+len(resp)+2 > inline(s.way.Settings.Template)
	if !waits {
		line += " " + resp
	}
	r, err := s.command(line)
	if err != nil {
		return nil, err
	}
	if waits && r.code == 334 {
		if r, err = s.command(resp); err != nil {
			return nil, err
		}
	}
	if r.code == 334 { // the reason, before the refusal
		s.challenge = decodeChallenge(strings.Join(r.lines, ""))
		answer := ""
		if s.mech == "OAUTHBEARER" {
			answer = "AQ=="
		}
		if r, err = s.command(answer); err != nil {
			return nil, err
		}
	}
	if r.code == 235 {
		return nil, nil
	}
	f := s.explain(r, s.challenge, nil)
	return &f, nil
}

// mechanism is the first of the template's that the server offers.
func (s *session) mechanism() string {
	want := s.way.Settings.SASL
	if len(want) == 0 {
		want = []string{"XOAUTH2", "OAUTHBEARER"}
	}
	for _, m := range want {
		for _, have := range s.caps.auth {
			if m = strings.ToUpper(m); m == have && (m == "XOAUTH2" || m == "OAUTHBEARER") {
				return m
			}
		}
	}
	return ""
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

func (s *session) response() []byte {
	token := s.token.Value.Reveal()
	if s.mech == "OAUTHBEARER" { // RFC 7628 section 3.1
		set := s.way.Settings
		name := strings.NewReplacer("=", "=3D", ",", "=2C").Replace(s.user)
		return fmt.Appendf(nil, "n,a=%s,\x01host=%s\x01port=%d\x01auth=Bearer %s\x01\x01", name, set.SMTPHost, set.SMTPPort, token)
	}
	return []byte("user=" + s.user + "\x01auth=Bearer " + token + "\x01\x01")
}

// decodeChallenge is the JSON in a 334, as text.
func decodeChallenge(s string) string {
	b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(s))
	if err != nil {
		return wire.Clean(s, wire.ReplyMax)
	}
	return wire.Clean(string(b), wire.ReplyMax)
}

// refusedBy makes an error of a reply on the way to a session.
func (s *session) refusedBy(r reply) error {
	f := s.explain(r, "", nil)
	return wire.Error(f, nil, "%s does not let us in: %s", s.way.Settings.SMTPHost, r.text())
}

// explain asks diagnosis, with all that is known of this case.
func (s *session) explain(r reply, more string, err error) mailgrant.Finding {
	set := s.way.Settings
	facts := wire.Facts(s.way, s.token, s.step)
	facts["host"], facts["port"] = set.SMTPHost, strconv.Itoa(set.SMTPPort)
	facts["tls"] = map[bool]string{true: "implicit", false: "starttls"}[set.SMTPSecurity == "tls"]
	if s.mech != "" {
		facts["auth_mech"], facts["xoauth2_user"] = strings.ToLower(s.mech), s.user
	}
	text := r.text()
	if more != "" {
		text = strings.TrimSpace(more + " " + text)
	}
	if v := s.token.Value.Reveal(); len(v) >= 16 { // a server may say it back
		text = strings.ReplaceAll(text, v, "[secret]")
	}
	if text == "" && err != nil {
		text = err.Error()
	}
	protocol := "smtp"
	if r.code == 0 && more == "" {
		protocol = "network"
	}
	return diagnose.Explain(diagnose.Failure{Text: text, Protocol: protocol, Context: facts, SMTPCode: r.code, Enhanced: r.enhanced(), Err: err})
}
