package submission_test

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/smtp"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-sasl"
	gosmtp "github.com/emersion/go-smtp"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/serve/submission"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		uri, addr string
		security  submission.Security
	}{
		{"submissions://:465", ":465", submission.ImplicitTLS},
		{"submissions://192.0.2.1", "192.0.2.1:465", submission.ImplicitTLS},
		{"submission://[2001:db8::1]:2587/", "[2001:db8::1]:2587", submission.StartTLS},
		{"submission://", ":587", submission.StartTLS},
		{"submission+insecure://127.0.0.1", "127.0.0.1:2525", submission.Insecure},
		{"submission+insecure://[::1]:25", "[::1]:25", submission.Insecure},
		{"submission+insecure://localhost:0", "localhost:0", submission.Insecure},
	} {
		addr, security, err := submission.Parse(c.uri)
		if addr != c.addr || security != c.security || err != nil {
			t.Errorf("%s: got %q, %v, %v", c.uri, addr, security, err)
		}
	}
	for uri, code := range map[string]mailgrant.Code{
		"smtp://:25": mailgrant.Invalid, "submissions:465": mailgrant.Invalid, "submissions://a@:465": mailgrant.Invalid,
		"submissions://:465/x": mailgrant.Invalid, "submissions://:465?x": mailgrant.Invalid, "submissions://:x": mailgrant.Invalid,
		"": mailgrant.Invalid, ":465": mailgrant.Invalid,
	} {
		if _, _, err := submission.Parse(uri); !errors.Is(err, code) || mailgrant.AsError(err).Remedy == "" {
			t.Errorf("%s: got %v", uri, err)
		}
	}
}

// SM-05: keys in clear text are for the loopback only, whoever opens the door.
func TestSM05_InsecureOnTheLoopbackOnly(t *testing.T) {
	for _, uri := range []string{"submission+insecure://:2525", "submission+insecure://0.0.0.0:2525", "submission+insecure://192.0.2.1", "submission+insecure://mail.example.com"} {
		if l, _, err := submission.Listen(uri); !errors.Is(err, mailgrant.Misset) {
			t.Errorf("%s: got %v, %v", uri, l, err)
		}
	}
	for _, ip := range []string{"0.0.0.0", "192.0.2.1", "::"} {
		r := newRig(t, nil)
		p := newPipes()
		p.addr = tcp(ip)
		if err := r.Serve(p, submission.Insecure); !errors.Is(err, mailgrant.Misset) {
			t.Errorf("%s: got %v", ip, err)
		}
		select {
		case <-p.closed:
		default:
			t.Errorf("%s: the listener is left open", ip)
		}
	}
}

func TestServeNeedsACertificate(t *testing.T) {
	for _, security := range []submission.Security{submission.ImplicitTLS, submission.StartTLS} {
		r := newRig(t, func(c *submission.Config) { c.TLS = nil })
		if err := r.Serve(newPipes(), security); !errors.Is(err, mailgrant.Misset) || mailgrant.AsError(err).Remedy == "" {
			t.Errorf("%v: got %v", security, err)
		}
	}
}

func TestListen(t *testing.T) {
	l, security, err := submission.Listen("submission+insecure://127.0.0.1:0")
	if err != nil || security != submission.Insecure {
		t.Fatal(security, err)
	}
	r := newRig(t, nil)
	r.serve(l, security)
	r.dial(t, l.Addr(), false).begin(t)
	if _, _, err := submission.Listen("submission+insecure://" + l.Addr().String()); !errors.Is(err, mailgrant.Misset) || mailgrant.AsError(err).Remedy == "" {
		t.Errorf("a port that is taken: got %v", err)
	}
}

// SM-18: old TLS and clear text on the TLS port end in nothing said, and the next
// client is served.
func TestSM18_TLS(t *testing.T) {
	r := newRig(t, nil)
	for security, before := range map[submission.Security]func(c *client){
		submission.ImplicitTLS: func(*client) {},
		submission.StartTLS:    func(c *client) { c.wants(t, "220 "); c.says(t, "STARTTLS", "220 ") },
	} {
		addr := r.listen(t, security)
		old := r.dial(t, addr, false)
		before(old)
		cfg := clientTLS()
		cfg.MinVersion, cfg.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
		if err := tls.Client(old.nc, cfg).Handshake(); err == nil {
			t.Errorf("%v: TLS 1.1 was taken", security)
		}
		clear := r.dial(t, addr, false)
		before(clear)
		clear.write(t, "EHLO pc\r\nAUTH PLAIN "+goodKey+"\r\n")
		if got, _ := io.ReadAll(clear.rd); bytes.ContainsAny(got, "2345") && bytes.Contains(got, []byte("\r\n")) {
			t.Errorf("%v: answered in clear: %q", security, got)
		}
	}
	if got := r.access.tried(); len(got) != 0 {
		t.Errorf("logins: %q", got)
	}
	r.dial(t, r.listen(t, submission.ImplicitTLS), true).begin(t)
}

// Clients we did not write get their mail in.
func TestForeignClients(t *testing.T) {
	const body = "From: <a@example.com>\r\nSubject: x\r\n\r\n.dot\r\n..\r\nGr\u00fc\u00dfe\r\n"
	t.Run("net/smtp", func(t *testing.T) {
		r := newRig(t, nil)
		c, err := smtp.Dial(r.listen(t, submission.StartTLS).String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		err = errors.Join(c.StartTLS(clientTLS()), c.Auth(smtp.PlainAuth("", "app", "mg_good", "127.0.0.1")), c.Mail("a@example.com"), c.Rcpt("b@example.org"))
		if err != nil {
			t.Fatal(err)
		}
		w, err := c.Data()
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, body)
		if err := errors.Join(w.Close(), c.Quit()); err != nil {
			t.Error(err)
		}
		if m := r.outbox.messages(); len(m) != 1 || m[0].body != body {
			t.Errorf("got %+v", m)
		}
	})
	t.Run("go-smtp", func(t *testing.T) {
		r := newRig(t, nil)
		c, err := gosmtp.DialTLS(r.listen(t, submission.ImplicitTLS).String(), clientTLS())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.Auth(sasl.NewLoginClient("office@example.com", "mg_good")); err != nil {
			t.Fatal(err)
		}
		if err := c.SendMail("a@example.com", []string{"b@example.org", "c@example.org"}, strings.NewReader(body)); err != nil {
			t.Fatal(err)
		}
		if err := c.Quit(); err != nil {
			t.Error(err)
		}
		if m := r.outbox.messages(); len(m) != 1 || m[0].body != body || len(m[0].env.Recipients) != 2 {
			t.Errorf("got %+v", m)
		}
	})
}

// What a caller is, the outbox hears: door, source, the class of the app, a trace
// for each message.
func TestEnvelope(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var said []string
		note := func(format string, args ...any) {
			mu.Lock()
			defer mu.Unlock()
			said = append(said, fmt.Sprintf(format, args...))
		}
		r := newRig(t, func(c *submission.Config) {
			c.Hooks = submission.Hooks{
				Connected: func() { note("connected") },
				Closed:    func(open time.Duration) { note("closed %v", open.Round(time.Second)) },
				LoggedIn:  func(ok bool) { note("logged in %v", ok) },
				Accepted:  func(n int64, took time.Duration) { note("accepted %d", n) },
				Refused:   func(code mailgrant.Code) { note("refused %s", code) },
			}
		})
		r.access.caller.App.Classes = []mailgrant.Class{mailgrant.ClassSystem, mailgrant.ClassUser}
		c := r.pipes(submission.Insecure).dial(t, "2001:db8::1")
		c.wants(t, "220 ")
		c.says(t, "EHLO pc", "250 ")
		c.says(t, "AUTH PLAIN AGFwcABtZ19iYWQ=", "535 ")
		c.says(t, "AUTH PLAIN "+goodKey, "235 ")
		for _, body := range []string{"Hi\r\n.", "X-Full:\r\n.", "Hi again\r\n."} {
			c.says(t, "MAIL FROM:<a@example.com>", "250 ")
			c.says(t, "RCPT TO:<b@example.org>", "250 ")
			c.says(t, "DATA", "354 ")
			c.write(t, body+"\r\n")
			c.line(t)
		}
		time.Sleep(time.Minute)
		c.says(t, "QUIT", "221 ")
		c.nc.Close()
		r.stop(t)
		m := r.outbox.messages()
		if len(m) != 2 || m[0].caller.Door != submission.Door || m[0].caller.Source != "2001:db8::1" || m[0].env.Class != mailgrant.ClassSystem ||
			m[0].env.Trace == "" || m[0].env.Trace == m[1].env.Trace {
			t.Errorf("got %+v", m)
		}
		want := "connected, logged in false, logged in true, accepted 4, refused no_space, accepted 10, closed 1m0s"
		if got := strings.Join(said, ", "); got != want {
			t.Errorf("\ngot  %s\nwant %s", got, want)
		}
	})
}

// However long and odd a reason is, it is one line, and its page is whole.
func TestReasonsAreOneLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *submission.Config) { c.PublicURL = "https://mail.contoso.example" })
		c := r.pipes(submission.Insecure).dial(t, "127.0.0.1")
		c.login(t)
		const page = ". https://mail.contoso.example/docs/errors/mailbox-full"
		finding := mailgrant.Finding{Cause: "mailbox-full", Link: "errors/mailbox-full"}
		for _, s := range []struct {
			err  error
			want string
		}{
			{mailgrant.Errorf(mailgrant.Forbidden, nil, "no\r\n250 2.0.0 ok\x1b[31m\x00").Fix("\u201cask\u201d \u2014 now\u2026 or later"), `550 5.7.1 no  250 2.0.0 ok [31m. "ask" - now... or later. https://mail.contoso.example/docs/errors/refused-right`},
			{mailgrant.Errorf(mailgrant.Forbidden, nil, "Gr\u00fc\u00dfe."), "550 5.7.1 Gr??e. https://mail.contoso.example/docs/errors/refused-right"},
			{mailgrant.Errorf(mailgrant.Misset, nil, "%s", strings.Repeat("long ", 1000)).With(finding),
				"550 5.3.5 " + strings.Repeat("long ", 1000)[:510-len("550 5.3.5 ...")-len(page)] + "..." + page},
			{fmt.Errorf("accept: %w", mailgrant.Errorf(mailgrant.Lapsed, nil, "the consent for x no longer works")), "550 5.7.0 the consent for x no longer works. https://mail.contoso.example/docs/errors/refused-consent"},
			{mailgrant.Errorf("new_code", nil, "odd"), "451 4.3.0 odd. https://mail.contoso.example/docs/errors/refused-internal"},
		} {
			r.outbox.mu.Lock()
			r.outbox.refuse = s.err
			r.outbox.mu.Unlock()
			c.says(t, "MAIL FROM:<a@example.com>", "250 ")
			c.says(t, "RCPT TO:<b@example.org>", "250 ")
			c.says(t, "DATA", "354 ")
			c.write(t, ".\r\n")
			if got := c.line(t); got != s.want {
				t.Errorf("\ngot  %s\nwant %s", got, s.want)
			}
		}
	})
}

// Every page the door names is there.
func TestPagesExist(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]bool{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`https://mail\.contoso\.example/docs/(\S+)`).FindAllSubmatch(b, -1) {
			named[string(m[1])] = true
		}
	}
	if len(named) < 3 {
		t.Errorf("only %v", named)
	}
	for page := range named {
		if _, err := os.Stat("../../../docs/" + page + ".md"); err != nil {
			t.Error(err)
		}
	}
}

// SE: no key is in the log, however a login goes wrong.
func TestLogHasNoKeys(t *testing.T) {
	var log bytes.Buffer
	secrets := []string{"marked", "mg_"}
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *submission.Config) {
			c.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		})
		p := r.pipes(submission.Insecure)
		for _, s := range []string{"AUTH PLAIN {\x00app\x00mg_bad_marked}", "AUTH LOGIN {app}\r\n{mg_bad_marked}", "AUTH PLAIN {marked\x00app\x00mg_bad_marked}",
			"AUTH PLAIN {\x00app\x00mg_panic}", "AUTH PLAIN marked", "mg_bad_marked", "AUTH marked {marked}", "AUTH PLAIN\r\nmarked" + strings.Repeat("x", 1<<20)} {
			c := p.dial(t, "127.0.0.1")
			c.wants(t, "220 ")
			c.says(t, "EHLO pc", "250 ")
			s = regexp.MustCompile(`\{[^}]*\}`).ReplaceAllStringFunc(s, func(m string) string {
				b := base64.StdEncoding.EncodeToString([]byte(m[1 : len(m)-1]))
				secrets = append(secrets, b)
				return b
			})
			if got := c.rest(s + "\r\nQUIT\r\n"); strings.Contains(got, "marked") {
				t.Errorf("%.60q: answered %q", s, got)
			}
		}
	})
	for _, secret := range secrets {
		if strings.Contains(log.String(), secret) {
			t.Errorf("%s is in the log:\n%s", secret, log.String())
		}
	}
	if !strings.Contains(log.String(), "login refused") || !strings.Contains(log.String(), "a session broke") {
		t.Errorf("the log says nothing:\n%s", log.String())
	}
}

// SM-09: floods end after their limit, logged in or not, and nothing is accepted.
func TestSM09_Floods(t *testing.T) {
	for line, last := range map[string]string{
		"NOOP": "421 4.7.0 too many commands without a message", "RSET": "421 4.7.0 too many commands without a message",
		"EHLO pc": "421 4.7.0 too many commands without a message", "VRFY x": "421 4.7.0 too many commands without a message",
		"MAIL FROM:<a@evil.example>": "421 4.7.0 too many commands without a message",
		"WIZ":                        "421 4.7.0 too many errors", "DATA": "421 4.7.0 too many errors", "RCPT TO:<b@example.org>": "421 4.7.0 too many errors",
		"AUTH PLAIN x": "421 4.7.0 too many errors", "STARTTLS": "421 4.7.0 too many errors", "\x00": "421 4.7.0 too many errors",
		"": "421 4.7.0 too many errors", "MAIL FROM:<@>": "421 4.7.0 too many errors",
		"MAIL FROM:<a@evil.example>\r\nRCPT TO:<b@example.org>": "421 4.7.0 too many commands without a message",
	} {
		t.Run(fmt.Sprintf("%q", line), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, nil)
				c := r.pipes(submission.Insecure).dial(t, "127.0.0.1")
				c.login(t)
				said := make([]string, 10000)
				for i := range said {
					said[i] = line + "\r\n"
				}
				got := strings.Split(strings.TrimSuffix(c.rest(said...), "\r\n"), "\r\n")
				if got[len(got)-1] != last || len(got) > 1000 {
					t.Errorf("%d lines, the last %q", len(got), got[len(got)-1])
				}
			})
		})
	}
}
