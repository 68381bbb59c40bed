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

// What Postfix does not take, and what the transport makes of it.
func TestPostfixRefuses(t *testing.T) {
	p := real.NewOIDC(t, real.OIDCOptions{})
	m := real.NewMailServer(t, p)
	good := token(t, p, real.Alex)
	foreign := token(t, real.NewOIDC(t, real.OIDCOptions{}), real.Alex)
	narrow := token(t, p, real.Robin)
	short := token(t, real.NewOIDC(t, real.OIDCOptions{Port: 0, TokenSeconds: 1}), real.Alex)
	_ = short
	for _, c := range []struct{ name, address, token string }{
		{"of another provider", real.Alex, foreign},
		{"of another person", real.Alex, narrow},
		{"with a letter changed", real.Alex, good[:len(good)-20] + "A" + good[len(good)-19:]},
		{"that is none", real.Alex, "opaque"},
	} {
		for _, mech := range []string{"XOAUTH2", "OAUTHBEARER"} {
			_, err := sender{m: m, address: c.address, token: c.token, security: "tls", sasl: []string{mech}}.open(t)
			var e *mailgrant.Error
			if !errors.As(err, &e) || e.Finding == nil {
				t.Errorf("a token %s, %s: %v", c.name, mech, err)
				continue
			}
			t.Logf("a token %s, %s: %s %s %s", c.name, mech, e.Code, e.Finding.Cause, e.Finding.Raw)
			s, err := sender{m: m, address: c.address, token: c.token, security: "starttls", sasl: []string{mech}, fresh: func() string { return good }}.open(t)
			if err != nil {
				t.Errorf("a token %s is not renewed: %v", c.name, err)
				continue
			}
			s.Close()
		}
	}
	s, err := sender{m: m, address: real.Alex, token: good, security: "tls"}.open(t)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	body := []byte("From: " + real.Robin + "\r\nSubject: x\r\n\r\nHi\r\n")
	for _, c := range []struct {
		name, from string
		to         []string
	}{
		{"as somebody else", real.Robin, []string{real.Robin}},
		{"to nobody", real.Alex, []string{"nobody@real.example"}},
		{"to another machine", real.Alex, []string{"a@far.example"}},
		{"to some and nobody", real.Alex, []string{real.Robin, "nobody@real.example"}},
	} {
		out := s.Send(t.Context(), handover(c.from, body, c.to...))
		t.Logf("%s: %+v", c.name, out)
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
			fmt.Fprintf(conn, "%s\r\n", door.command)
			r.ReadString('\n') // the greeting
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

var _ = exec.Command
