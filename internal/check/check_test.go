package check

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/auto"
	"github.com/mailgrant/mailgrant/internal/provider/microsoft"
	"github.com/mailgrant/mailgrant/internal/provider/smtp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var certificate = sync.OnceValues(func() (tls.Certificate, *x509.CertPool) {
	k, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "smtp.contoso.example"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &k.PublicKey, k)
	if err != nil {
		panic(err)
	}
	leaf, _ := x509.ParseCertificate(der)
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k}, roots
})

// server takes mail; answers replaces what it says to a command.
func server(t *testing.T, answers map[string]string) (addr string, got *strings.Builder) {
	cert, _ := certificate()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { l.Close(); wg.Wait() })
	got = &strings.Builder{}
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { converse(c, answers, got) })
		}
	})
	return l.Addr().String(), got
}

func converse(c net.Conn, answers map[string]string, got *strings.Builder) {
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(c, "220 ready\r\n")
	for r := bufio.NewReader(c); ; {
		l, err := r.ReadString('\n')
		if err != nil || strings.HasPrefix(l, "QUIT") {
			return
		}
		verb, _, _ := strings.Cut(strings.TrimSpace(l), " ")
		say := map[string]string{"EHLO": "250-x\r\n250 AUTH XOAUTH2", "AUTH": "235 ok", "DATA": "354 go"}[verb]
		if a := answers[verb]; a != "" {
			say = a
		}
		if say == "" {
			say = "250 ok"
		}
		io.WriteString(c, say+"\r\n")
		if verb == "DATA" && strings.HasPrefix(say, "354") {
			for l = ""; l != ".\r\n"; l, err = r.ReadString('\n') {
				if err != nil {
					return
				}
				got.WriteString(l)
			}
			io.WriteString(c, "250 2.0.0 queued as 1\r\n")
		}
	}
}

type keeper struct {
	way provider.Way
	err error
}

func (k keeper) Way(context.Context, mailgrant.Mailbox) (provider.Way, error) { return k.way, k.err }

// jwt is a token with those claims.
func jwt(claims string) mailgrant.Token {
	return mailgrant.Token{Value: mailgrant.NewSecret("e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2ln"), Expires: time.Now().Add(time.Hour)}
}

var box = mailgrant.Mailbox{ID: "mbx_1", Address: "alex@contoso.example", Kind: mailgrant.MailboxOwn, Grant: "gra_1", Transport: "auto", State: mailgrant.MailboxActive}

// setUp is a mailbox that works, by SMTP on addr.
func setUp(addr string) (Deps, *provider.Way) {
	host, port, _ := net.SplitHostPort(addr)
	n, _ := strconv.Atoi(port)
	_, roots := certificate()
	w := &provider.Way{Mailbox: box, HTTP: http.DefaultClient, Dial: new(net.Dialer).DialContext,
		Grant:    mailgrant.Grant{State: mailgrant.GrantActive, Flow: mailgrant.FlowCode, Capabilities: []mailgrant.Capability{mailgrant.CanSMTP}, Subject: mailgrant.Subject{UPN: "alex@contoso.example"}},
		Settings: provider.Settings{Template: "microsoft365", SMTPHost: host, SMTPPort: n, SMTPSecurity: "tls"},
		Token: func(context.Context, string, bool) (mailgrant.Token, error) {
			return jwt(`{"aud":"https://outlook.office.com","scp":"SMTP.Send","upn":"alex@contoso.example"}`), nil
		}}
	c := smtp.Config{TLS: func(name, _ string) *tls.Config {
		return &tls.Config{ServerName: name, RootCAs: roots, MinVersion: tls.VersionTLS12}
	}}
	return Deps{Choose: auto.Choose, SMTP: c, Transports: map[string]provider.Transport{"smtp": smtp.Transport(c), "graph": microsoft.Graph()}}, w
}

// states are the states of all steps, in one line.
func states(r Report) string {
	var out []string
	for _, s := range r.Steps {
		out = append(out, s.State)
		if (s.State == Failed) != (s.Finding != nil) || s.Text == "" {
			out = append(out, "(without a word)")
		}
	}
	return strings.Join(out, " ")
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		name    string
		answers map[string]string
		change  func(*Deps, *provider.Way, *mailgrant.Mailbox, *Options)
		want    string
	}{
		{"all well", nil, nil, "passed skipped passed passed passed passed passed passed passed"},
		{"no message", nil, func(_ *Deps, _ *provider.Way, _ *mailgrant.Mailbox, o *Options) { o.NoSend = true },
			"passed skipped passed passed passed passed passed passed skipped"},
		{"a name", nil, func(_ *Deps, w *provider.Way, _ *mailgrant.Mailbox, _ *Options) { w.Settings.SMTPHost = "localhost" },
			"passed passed passed passed passed passed passed passed passed"},
		{"no such name", nil, func(d *Deps, w *provider.Way, _ *mailgrant.Mailbox, _ *Options) {
			w.Settings.SMTPHost, d.Resolver = "smtp.contoso.example", nowhere{}
		}, "passed failed skipped skipped passed passed passed skipped skipped"},
		{"no grant", nil, func(_ *Deps, _ *provider.Way, b *mailgrant.Mailbox, _ *Options) { b.Grant = "" },
			"failed skipped skipped skipped skipped skipped skipped skipped skipped"},
		{"lapsed", nil, func(_ *Deps, w *provider.Way, _ *mailgrant.Mailbox, _ *Options) {
			w.Grant.State = mailgrant.GrantLapsed
		},
			"failed skipped skipped skipped skipped skipped skipped skipped skipped"},
		{"nobody listens", nil, func(_ *Deps, w *provider.Way, _ *mailgrant.Mailbox, _ *Options) {
			w.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("connection refused") }
		}, "passed skipped failed skipped passed passed passed skipped skipped"},
		{"foreign certificate", nil, func(d *Deps, _ *provider.Way, _ *mailgrant.Mailbox, _ *Options) { d.SMTP.TLS = nil },
			"passed skipped passed failed passed passed passed skipped skipped"},
		{"no token", nil, func(_ *Deps, w *provider.Way, _ *mailgrant.Mailbox, _ *Options) {
			w.Token = func(context.Context, string, bool) (mailgrant.Token, error) {
				return mailgrant.Token{}, mailgrant.Errorf(mailgrant.Lapsed, nil, "the consent no longer works").Fix("consent again")
			}
		}, "passed skipped passed passed failed skipped skipped skipped skipped"},
		{"token of another API", nil, func(_ *Deps, w *provider.Way, _ *mailgrant.Mailbox, _ *Options) {
			w.Token = func(context.Context, string, bool) (mailgrant.Token, error) {
				return jwt(`{"aud":"https://graph.microsoft.com","scp":"Mail.Send"}`), nil
			}
		}, "passed skipped passed passed passed failed passed passed passed"},
		{"somebody else", nil, func(_ *Deps, w *provider.Way, _ *mailgrant.Mailbox, _ *Options) {
			w.Grant.Subject.UPN = "megan@contoso.example"
		}, "passed skipped passed passed passed passed failed passed passed"},
		{"SMTP AUTH off", map[string]string{"AUTH": "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant."}, nil,
			"passed skipped passed passed passed passed passed failed skipped"},
		{"may not send", map[string]string{"DATA": "554 5.2.252 SendAsDenied; alex not allowed to send as alex"}, nil,
			"passed skipped passed passed passed passed passed passed failed"},
		{"our own mistake", nil, func(_ *Deps, w *provider.Way, _ *mailgrant.Mailbox, _ *Options) { w.Token = nil },
			"passed skipped passed passed failed skipped skipped skipped skipped"},
	} {
		t.Run(c.name, func(t *testing.T) {
			addr, got := server(t, c.answers)
			d, w := setUp(addr)
			b, o := box, Options{}
			if c.change != nil {
				c.change(&d, w, &b, &o)
			}
			d.Keeper = keeper{way: *w}
			var told []Step
			r := Run(t.Context(), d, b, o, func(s Step) { told = append(told, s) })
			if s := states(r); s != c.want {
				t.Errorf("got  %s\nwant %s\n%+v", s, c.want, r.Steps)
			}
			if r.OK != !strings.Contains(c.want, Failed) || len(told) != len(r.Steps) {
				t.Errorf("OK is %v, told of %d steps", r.OK, len(told))
			}
			if c.name == "all well" && !strings.Contains(got.String(), "Subject: [mailgrant check] alex@contoso.example") {
				t.Errorf("sent %q", got.String())
			}
		})
	}
}

// R93: the finding names what to switch on.
func TestR93SMTPAuthOff(t *testing.T) {
	addr, _ := server(t, map[string]string{"AUTH": "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant."})
	d, w := setUp(addr)
	d.Keeper = keeper{way: *w}
	r := Run(t.Context(), d, box, Options{}, nil)
	if f := r.Steps[7].Finding; f == nil || f.Cause != "smtp-auth-disabled-tenant" {
		t.Errorf("got %+v", r.Steps[7])
	}
}

type nowhere struct{}

func (nowhere) LookupHost(_ context.Context, host string) ([]string, error) {
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

func TestCheckOfAnAPI(t *testing.T) {
	var paths []string
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		paths = append(paths, r.Method+" "+r.URL.Path)
		if strings.HasSuffix(r.URL.Path, "/sendMail") {
			w.WriteHeader(202)
		}
	}))
	defer s.Close()
	d, w := setUp("127.0.0.1:1")
	w.Settings = provider.Settings{Template: "microsoft365", GraphURL: s.URL}
	w.HTTP = s.Client()
	w.Grant.Capabilities = []mailgrant.Capability{mailgrant.CanAPISend, mailgrant.CanAPIRead}
	w.Token = func(context.Context, string, bool) (mailgrant.Token, error) {
		return jwt(`{"aud":"https://graph.microsoft.com","scp":"Mail.Send Mail.Read"}`), nil
	}
	d.Keeper = keeper{way: *w}
	r := Run(t.Context(), d, box, Options{}, nil)
	if got := states(r); got != "passed skipped passed passed passed passed passed passed passed" {
		t.Errorf("got %s\n%+v", got, r.Steps)
	}
	if got := strings.Join(paths, ", "); got != "GET /, GET /v1.0/me/mailFolders/inbox, POST /v1.0/me/sendMail" {
		t.Errorf("asked %s", got)
	}
}
