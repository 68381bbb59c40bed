package wire

import (
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
)

// A Server is a provider's mail server, as its settings say.
type Server struct {
	Protocol string // as people write it: "SMTP"
	Host     string
	Port     int
	Implicit bool   // TLS comes first, and not by STARTTLS
	Resource string // whose token it takes
	Instead  string // what can be done where there is no such server: "send by the provider's API"
	Off      string // how causes begin that no other token helps against: a switch is off; "" none
}

// A Login is one to a mail server, as far as SMTP, IMAP and POP do the same: the
// way there, TLS, the token, SASL, and what a failure means. Their sessions are
// built on it.
type Login struct {
	Server
	Way      provider.Way
	User     string                                           // that goes with the token. R159
	TLS      func(serverName, extraCAFile string) *tls.Config // nil: the system's roots
	Patience time.Duration                                    // with dialling, and with TLS

	Conn      *Conn           // nil: none
	Token     mailgrant.Token // the one it logs in with
	Mech      string          // of SASL, "" before it is chosen
	Challenge string          // why the token is refused, as the server put it
	Step      string          // that is being done
}

// A Speaker does what each protocol does in its own words.
type Speaker interface {
	Greet() error                        // on a new connection: up to what the secured server offers
	LogIn() (*mailgrant.Finding, error)  // a finding: the server says no
	HangUp()                             // and forgets what belongs to the connection
	Explain(err error) mailgrant.Finding // why there is no session
}

// Open connects and logs in. A token that is refused gets one successor, over a
// connection of its own.
func (l *Login) Open(ctx context.Context, s Speaker) error {
	if l.Host == "" {
		return mailgrant.Errorf(mailgrant.Misset, nil, "the provider of %s has no %s server set", l.Way.Mailbox.Address, l.Protocol).
			Fix("set %s_host on its registration, or %s", strings.ToLower(l.Protocol), l.Instead)
	}
	tok, err := l.Way.Token(ctx, l.Resource, false)
	if err != nil {
		return err
	}
	f, err := l.try(ctx, s, tok)
	if f == nil || !l.tokenDoubtful(*f) {
		return err
	}
	if fresh, ferr := l.Way.Token(ctx, l.Resource, true); ferr == nil && fresh.Value != tok.Value {
		_, err = l.try(ctx, s, fresh)
	}
	return err
}

// tokenDoubtful says whether a fresh token could help after a refused login. A
// switch that is off stays off, and a limit or an outage is no doubt about the
// token, unless the server said itself that it is the token.
func (l *Login) tokenDoubtful(f mailgrant.Finding) bool {
	if l.Mech == "" || l.Off != "" && strings.HasPrefix(f.Cause, l.Off) {
		return false
	}
	return f.Retry != mailgrant.RetryLater || l.tokenBlamed()
}

// tokenBlamed reads the reason that comes before the refusal: Google's and
// Microsoft's form, and that of RFC 7628 section 3.2.2.
func (l *Login) tokenBlamed() bool {
	var c struct {
		Status string `json:"status"`
	}
	return json.Unmarshal([]byte(l.Challenge), &c) == nil && (c.Status == "401" || c.Status == "invalid_token")
}

// try makes one connection with one token. A finding comes back when it was the
// login that was refused.
func (l *Login) try(ctx context.Context, s Speaker, tok mailgrant.Token) (*mailgrant.Finding, error) {
	s.HangUp()
	l.Token, l.Mech, l.Challenge = tok, "", ""
	return l.connect(ctx, s, Speaker.LogIn)
}

// Look connects as far as the secured greeting, without a token. For a check.
func (l *Login) Look(ctx context.Context, s Speaker) error {
	_, err := l.connect(ctx, s, func(Speaker) (*mailgrant.Finding, error) { return nil, nil })
	return err
}

// connect dials, hears the greeting and goes on from there. When ctx ends the
// connection does.
func (l *Login) connect(ctx context.Context, s Speaker, on func(Speaker) (*mailgrant.Finding, error)) (f *mailgrant.Finding, err error) {
	if err = l.dial(ctx); err == nil {
		defer l.Conn.CloseWith(ctx)()
		err = s.Greet()
	}
	if err == nil {
		f, err = on(s)
	}
	if f == nil && err == nil {
		return nil, nil
	}
	s.HangUp()
	if ctx.Err() != nil && err != nil {
		err = context.Cause(ctx)
	}
	if f != nil {
		return f, Error(*f, nil, "%s did not accept the login of %s", l.Host, l.Way.Mailbox.Address)
	}
	var e *mailgrant.Error
	if errors.As(err, &e) && (e.Finding != nil || e.Code == mailgrant.Misset) {
		return nil, e
	}
	return nil, Error(s.Explain(err), err, "no %s session with %s could be opened", l.Protocol, l.Host)
}

func (l *Login) dial(ctx context.Context) error {
	l.Step = "connect"
	ctx, cancel := context.WithTimeout(ctx, l.Patience)
	defer cancel()
	conn, err := l.Way.Dial(ctx, "tcp", net.JoinHostPort(l.Host, strconv.Itoa(l.Port)))
	if err != nil {
		return err
	}
	l.Conn = NewConn(conn)
	return nil
}

// Secure puts TLS under what is said from now on. What was read before and not
// looked at is for the caller to refuse.
func (l *Login) Secure() error {
	l.Step = "tls"
	var cfg *tls.Config
	if l.TLS != nil {
		cfg = l.TLS(l.Host, l.Way.CAFile)
	} else {
		cfg = &tls.Config{ServerName: l.Host, MinVersion: tls.VersionTLS12}
	}
	cfg.DynamicRecordSizingDisabled = true // one record a message, not ten
	conn := tls.Client(l.Conn.raw, cfg)
	conn.SetDeadline(time.Now().Add(l.Patience))
	if err := conn.Handshake(); err != nil {
		return fmt.Errorf("TLS with %s: %w", l.Host, err)
	}
	l.Conn.Conn = conn
	return nil
}

// NoTLS is for a server that does not offer to be secured: somebody on the way
// may have taken the offer out. command is STARTTLS or what stands for it. RFC
// 8314.
func (l *Login) NoTLS(command string, f mailgrant.Finding) error {
	return mailgrant.Errorf(mailgrant.Misset, nil, "%s does not offer %s, and nothing is said without TLS", l.Host, command).With(f)
}

// HangUp ends the connection, if there is one.
func (l *Login) HangUp() {
	if l.Conn != nil {
		l.Conn.Close()
		l.Conn = nil
	}
}

// Choose takes the first mechanism of the template's that the server offers. It
// says false where there is none.
func (l *Login) Choose(offered func(mech string) bool) bool {
	want := l.Way.Settings.SASL
	if len(want) == 0 {
		want = []string{"XOAUTH2", "OAUTHBEARER"}
	}
	for _, m := range want {
		if m = strings.ToUpper(m); (m == "XOAUTH2" || m == "OAUTHBEARER") && offered(m) {
			l.Mech = m
			return true
		}
	}
	return false
}

// Response shows the token, in base64.
func (l *Login) Response() string {
	token := l.Token.Value.Reveal()
	resp := []byte("user=" + l.User + "\x01auth=Bearer " + token + "\x01\x01")
	if l.Mech == "OAUTHBEARER" { // RFC 7628 section 3.1
		name := strings.NewReplacer("=", "=3D", ",", "=2C").Replace(l.User)
		resp = fmt.Appendf(nil, "n,a=%s,\x01host=%s\x01port=%d\x01auth=Bearer %s\x01\x01", name, l.Host, l.Port, token)
	}
	return base64.StdEncoding.EncodeToString(resp)
}

// Challenged keeps the reason that a server gives before it refuses, JSON in
// base64, and says what it is answered with. RFC 7628 section 3.2.3.
func (l *Login) Challenged(reason string) (answer string) {
	if b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(reason)); err == nil {
		reason = string(b)
	}
	l.Challenge = Clean(reason, ReplyMax)
	if l.Mech == "OAUTHBEARER" {
		return "AQ=="
	}
	return ""
}

// Redact takes our own token out of what the server says: it may say it back.
func (l *Login) Redact(text string) string {
	if v := l.Token.Value.Reveal(); len(v) >= 16 {
		text = strings.ReplaceAll(text, v, "[secret]")
	}
	return text
}

// Diagnose asks what a failure means, with all that is known of this case. One of
// no protocol is the network's.
func (l *Login) Diagnose(f diagnose.Failure) mailgrant.Finding {
	step := l.Step
	if step == "tls" && (errors.Is(f.Err, io.EOF) || errors.Is(f.Err, syscall.ECONNRESET) || errors.Is(f.Err, syscall.EPIPE)) {
		step = "connect" // it hung up before a word: that passes, and says nothing of its TLS
	}
	f.Context = Facts(l.Way, l.Token, step)
	f.Context["host"], f.Context["port"] = l.Host, strconv.Itoa(l.Port)
	f.Context["tls"] = map[bool]string{true: "implicit", false: "starttls"}[l.Implicit]
	if l.Mech != "" {
		f.Context["auth_mech"], f.Context["xoauth2_user"] = strings.ToLower(l.Mech), l.User
	}
	f.Protocol = first(f.Protocol, "network")
	if f.Text == "" && f.Err != nil {
		f.Text = f.Err.Error()
	}
	f.Text = l.Redact(f.Text)
	return diagnose.Explain(f)
}
