package real_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/smtp"
	"github.com/mailgrant/mailgrant/test/real"
)

// token is a person's access token.
func token(t *testing.T, p *real.OIDC, address string) string {
	t.Helper()
	tok, err := p.SignIn(t.Context(), real.Login{Address: address, Password: real.Password})
	if err != nil {
		t.Fatal(err)
	}
	return tok.AccessToken
}

// trusting trusts the authority of the tests.
func trusting(t *testing.T, name string) *tls.Config {
	t.Helper()
	pem, err := os.ReadFile(real.CAFile(t))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return &tls.Config{ServerName: name, RootCAs: pool, MinVersion: tls.VersionTLS12}
}

// A sender is a mailbox with its way through m.
type sender struct {
	m                        *real.MailServer
	address, security, token string
	sasl                     []string
	fresh                    func() string // what a renewal gives; nil: the same token
}

// open starts a session of the transport.
func (s sender) open(t *testing.T) (provider.Session, error) {
	port := s.m.SubmissionPort
	if s.security == "tls" {
		port = s.m.SubmissionsPort
	}
	c := smtp.Config{Hostname: "client.example", TLS: func(name, _ string) *tls.Config { return trusting(t, name) }}
	return smtp.Transport(c).Open(t.Context(), provider.Way{
		Mailbox: mailgrant.Mailbox{Address: s.address, Kind: mailgrant.MailboxOwn}, Grant: mailgrant.Grant{Flow: mailgrant.FlowCode, Mailbox: s.address},
		Settings: provider.Settings{Template: "generic", SMTPHost: s.m.Host, SMTPPort: port, SMTPSecurity: s.security, SASL: s.sasl},
		CAFile:   s.m.CAFile, Dial: new(net.Dialer).DialContext,
		Token: func(_ context.Context, _ string, fresh bool) (mailgrant.Token, error) {
			v := s.token
			if fresh && s.fresh != nil {
				v = s.fresh()
			}
			return mailgrant.Token{Value: mailgrant.NewSecret(v)}, nil
		},
	})
}

func handover(from string, body []byte, to ...string) *provider.Handover {
	h := &provider.Handover{From: from, Recipients: to, Size: int64(len(body)),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }}
	for _, c := range body {
		h.EightBit = h.EightBit || c > 127
	}
	return h
}

func TestTokensOpenPostfix(t *testing.T) {
	p := real.NewOIDC(t, real.OIDCOptions{})
	m := real.NewMailServer(t, p)
	good := token(t, p, real.Alex)
	n := 0
	for _, security := range []string{"starttls", "tls"} {
		for _, mech := range []string{"XOAUTH2", "OAUTHBEARER"} {
			s, err := sender{m: m, address: real.Alex, token: good, security: security, sasl: []string{mech}}.open(t)
			if err != nil {
				t.Fatalf("%s by %s: %v", mech, security, err)
			}
			body := []byte("From: " + real.Alex + "\r\nSubject: " + mech + " by " + security + "\r\n\r\nHi\r\n")
			for range 2 { // the second over the same connection
				if out := s.Send(t.Context(), handover(real.Alex, body, real.Robin)); out.Fate != mailgrant.FateDelivered || out.RemoteID == "" {
					t.Fatalf("%s by %s: %+v", mech, security, out)
				}
				n++
				if got := m.Await(t, real.Robin, n)[n-1]; !bytes.Equal(got.Sent, body) || !bytes.Contains(got.Trace, []byte("with ESMTPSA")) {
					t.Errorf("arrived as\n%s", got.Raw)
				}
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	app, err := p.AppToken(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s, err := sender{m: m, address: real.System, token: app.AccessToken, security: "tls"}.open(t)
	if err != nil {
		t.Fatalf("the app's own token: %v", err)
	}
	s.Close()
}

// A token that the server refuses is renewed once; when the new one is refused
// too, a person must look.
func TestPostfixRefusesTokens(t *testing.T) {
	p := real.NewOIDC(t, real.OIDCOptions{})
	m := real.NewMailServer(t, p)
	good := token(t, p, real.Alex)
	for _, c := range []struct{ mech, name, token string }{ // Dovecot takes half a second for each no
		{"XOAUTH2", "of another provider", token(t, real.NewOIDC(t, real.OIDCOptions{}), real.Alex)},
		{"OAUTHBEARER", "of another person", token(t, p, real.Robin)},
		{"XOAUTH2", "with a letter changed", changed(good)},
		{"OAUTHBEARER", "that is none", "opaque"},
	} {
		s := sender{m: m, address: real.Alex, token: c.token, security: "tls", sasl: []string{c.mech}}
		_, err := s.open(t)
		e := mailgrant.AsError(err)
		if e == nil || e.Finding == nil {
			t.Fatalf("a token %s: %v", c.name, err)
		}
		if !e.Finding.NeedsPerson() || !strings.Contains(e.Finding.Raw, "535 5.7.8") || strings.Contains(e.Finding.Raw, c.token) {
			t.Errorf("a token %s: %+v", c.name, e.Finding)
		}
		s.fresh = func() string { return good }
		session, err := s.open(t)
		if err != nil {
			t.Fatalf("a token %s is not renewed: %v", c.name, err)
		}
		session.Close()
	}
}

// changed is a token with another letter in its signature.
func changed(token string) string {
	at, letter := len(token)-20, "A"
	if token[at] == 'A' {
		letter = "B"
	}
	return token[:at] + letter + token[at+1:]
}

// A token is good until its time is over, and not a second longer.
func TestPostfixRefusesAnExpiredToken(t *testing.T) {
	p := real.NewOIDC(t, real.OIDCOptions{TokenSeconds: 2})
	m := real.NewMailServer(t, p)
	old := token(t, p, real.Alex)
	renewals := 0
	s := sender{m: m, address: real.Alex, token: old, security: "tls", fresh: func() string { renewals++; return token(t, p, real.Alex) }}
	for renewals == 0 { // logging in until it is refused
		session, err := s.open(t)
		if err != nil {
			t.Fatal(err)
		}
		session.Close()
	}
	if renewals != 1 || !strings.Contains(m.Log(), "Token has expired") {
		t.Errorf("%d renewals; the server said\n%s", renewals, m.Log())
	}
}

// What Postfix refuses of a message, and whom that concerns.
func TestPostfixRefusesMessages(t *testing.T) {
	p := real.NewOIDC(t, real.OIDCOptions{})
	m := real.NewMailServer(t, p)
	s, err := sender{m: m, address: real.Alex, token: token(t, p, real.Alex), security: "tls"}.open(t)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	body := []byte("From: " + real.Alex + "\r\nSubject: x\r\n\r\nHi\r\n")
	large := handover(real.Alex, body, real.Robin)
	large.Size = 1 << 40 // what the server announced is not asked for
	for _, c := range []struct {
		name  string
		h     *provider.Handover
		reply string
		cause string
	}{
		{"as somebody else", handover(real.Robin, body, real.Robin), "553 5.7.1", "send-as-denied"},
		{"to nobody", handover(real.Alex, body, "nobody@real.example"), "550 5.1.1", "recipient-rejected"},
		{"elsewhere", handover(real.Alex, body, "a@far.example"), "554 5.7.1", "recipient-rejected"},
		{"too large", large, "552 5.3.4", "message-too-large"},
	} {
		out := s.Send(t.Context(), c.h)
		if out.Fate != mailgrant.FateRefused || out.Broken || !strings.HasPrefix(out.Reply, c.reply) || out.Finding == nil || out.Finding.Cause != c.cause {
			t.Errorf("%s: %+v, %+v", c.name, out, out.Finding)
		}
	}
	out := s.Send(t.Context(), handover(real.Alex, body, real.Robin, "nobody@real.example"))
	if out.Fate != mailgrant.FateDelivered || len(out.Recipients) != 2 || out.Recipients[0].Fate != mailgrant.FateDelivered || out.Recipients[1].Fate != mailgrant.FateRefused {
		t.Errorf("to one and nobody: %+v", out)
	}
	if got := m.Await(t, real.Robin, 1); len(got) != 1 || !bytes.Equal(got[0].Sent, body) {
		t.Errorf("got %d messages", len(got))
	}
}

// What is given to the transport arrives byte for byte, whatever the server does
// to pass it on.
func TestSM02AwkwardMailArrivesAsItWas(t *testing.T) {
	p := real.NewOIDC(t, real.OIDCOptions{})
	m := real.NewMailServer(t, p)
	s, err := sender{m: m, address: real.Alex, token: token(t, p, real.Alex), security: "starttls"}.open(t)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	n := 0
	for name, body := range real.Awkward(t) {
		if out := s.Send(t.Context(), handover(real.Alex, body, real.Robin, real.Elsewhere)); out.Fate != mailgrant.FateDelivered {
			t.Errorf("%s: %+v, %+v", name, out, out.Finding)
			continue
		}
		n++
		for _, to := range []string{real.Robin, real.Elsewhere} { // the second is in no header
			if got := m.Await(t, to, n)[n-1]; !bytes.Equal(got.Sent, body) {
				t.Errorf("%s: sent %q, arrived %q", name, body, got.Sent)
			}
		}
	}
	for _, bad := range []string{"a\nb\r\n", "a\r\n.\n\r\nMAIL FROM:<>\r\n", "a\rb\r\n"} {
		h := handover(real.Alex, []byte("Subject: x\r\n\r\n"+bad), real.Robin)
		if out := s.Send(t.Context(), h); out.Fate != mailgrant.FateRefused {
			t.Errorf("%q: %+v", bad, out)
		}
	}
	if got := m.Messages(t, real.Robin); len(got) != n {
		t.Errorf("%d messages, want %d", len(got), n)
	}
}

// A mail server does not outlive a test process that is killed.
func TestAKilledTestLeavesNoMailServer(t *testing.T) {
	if os.Getenv("MAILGRANT_TEST_KILLED") != "" {
		m := real.NewMailServer(t, real.NewOIDC(t, real.OIDCOptions{}))
		fmt.Println("up at", m.Submissions(), m.IMAPS(), m.Folder())
		<-t.Context().Done() // it is killed before
		return
	}
	c := exec.Command(os.Args[0], "-test.run=^TestAKilledTestLeavesNoMailServer$")
	c.Env = append(os.Environ(), "MAILGRANT_TEST_KILLED=1")
	stdout, err := c.StdoutPipe()
	if err := errors.Join(err, c.Start()); err != nil {
		t.Fatal(err)
	}
	var smtp, imap, folder string
	_, err = fmt.Fscanf(bufio.NewReader(stdout), "up at %s %s %s", &smtp, &imap, &folder)
	c.Process.Kill()
	c.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if err := real.Await(func() error {
		for _, addr := range []string{smtp, imap} {
			if conn, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
				conn.Close()
				return fmt.Errorf("%s still answers", addr)
			}
		}
		if _, err := os.Stat(folder); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%s is still there: %w", folder, err)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

func lines(t *testing.T, addr string) (*tls.Conn, *bufio.Reader) {
	t.Helper()
	host, _, _ := net.SplitHostPort(addr)
	c, err := tls.Dial("tcp", addr, trusting(t, host))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, bufio.NewReader(c)
}

// The doors for reading take the same tokens.
func TestTokensOpenDovecot(t *testing.T) {
	p := real.NewOIDC(t, real.OIDCOptions{})
	m := real.NewMailServer(t, p)
	good := token(t, p, real.Alex)
	for _, c := range []struct{ mech, token, imap, pop string }{
		{"XOAUTH2", good, "a OK", "+OK"},
		{"OAUTHBEARER", good, "a OK", "+OK"},
		{"XOAUTH2", good + "x", "a NO", "-ERR"},
	} {
		resp := "user=" + real.Alex + "\x01auth=Bearer " + c.token + "\x01\x01"
		if c.mech == "OAUTHBEARER" {
			resp = "n,a=" + real.Alex + ",\x01auth=Bearer " + c.token + "\x01\x01"
		}
		resp = base64.StdEncoding.EncodeToString([]byte(resp))
		for _, door := range []struct{ addr, command, want string }{
			{m.IMAPS(), "a AUTHENTICATE " + c.mech + " " + resp, c.imap},
			{m.POP3S(), "AUTH " + c.mech + " " + resp, c.pop},
		} {
			conn, r := lines(t, door.addr)
			r.ReadString('\n') // the greeting: the server is not ready before it
			fmt.Fprintf(conn, "%s\r\n", door.command)
			got, err := r.ReadString('\n')
			if strings.HasPrefix(got, "+ ") { // why not; an answer is due
				io.WriteString(conn, "\r\n")
				got, err = r.ReadString('\n')
			}
			if strings.HasPrefix(got, "* CAPABILITY") {
				got, err = r.ReadString('\n')
			}
			if err != nil || !strings.HasPrefix(got, door.want) {
				t.Errorf("%s at %s: %q, %v; want %s", c.mech, door.addr, got, err, door.want)
			}
		}
	}
}
