package smtp

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	gosmtp "github.com/emersion/go-smtp"

	"github.com/emersion/go-sasl"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/wire/wiretest"
)

// foreign is a server that we did not write.
type foreign struct {
	mu  sync.Mutex
	got [][]byte
}

func (f *foreign) NewSession(*gosmtp.Conn) (gosmtp.Session, error) { return f, nil }
func (f *foreign) AuthMechanisms() []string                        { return []string{"XOAUTH2"} }
func (f *foreign) Auth(string) (sasl.Server, error)                { return xoauth2{}, nil }
func (f *foreign) Mail(string, *gosmtp.MailOptions) error          { return nil }
func (f *foreign) Rcpt(string, *gosmtp.RcptOptions) error          { return nil }
func (f *foreign) Reset()                                          {}
func (f *foreign) Logout() error                                   { return nil }
func (f *foreign) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	f.mu.Lock()
	f.got = append(f.got, b)
	f.mu.Unlock()
	return err
}

type xoauth2 struct{}

func (xoauth2) Next(resp []byte) ([]byte, bool, error) {
	if resp == nil {
		return []byte{}, false, nil
	}
	if string(resp) != "user=alex@contoso.example\x01auth=Bearer token\x01\x01" {
		return nil, true, &gosmtp.SMTPError{Code: 535, Message: "no"}
	}
	return nil, true, nil
}

// TestSM02ForeignServer: dots and line ends as another implementation reads them.
func TestSM02ForeignServer(t *testing.T) {
	f := &foreign{}
	s := gosmtp.NewServer(f)
	s.TLSConfig, s.Domain, s.EnableSMTPUTF8, s.MaxLineLength = wiretest.ServerTLS(), "mx.example", true, 4096
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	defer func() { s.Close(); <-served }()
	out, err := Transport(config()).Open(t.Context(), wayTo(l.Addr().String(), "starttls"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	bodies := []string{"Subject: x\r\n\r\n.\r\n..\r\n.a\r\n\r\n.", strings.Repeat("Subject: y\r\n.\r\n", 50_000), "x\r\n", strings.Repeat(strings.Repeat("a", 70)+"\r\n", 40_000) + ".\r\n"}
	for _, b := range bodies {
		if o := out.Send(t.Context(), handover(b, "b@example.net", "c@example.net")); o.Fate != mailgrant.FateDelivered {
			t.Fatalf("got %+v", o)
		}
	}
	for i, b := range bodies {
		if want := strings.TrimSuffix(b, "\r\n") + "\r\n"; i >= len(f.got) || string(f.got[i]) != want {
			t.Errorf("message %d is not what was sent", i)
		}
	}
}

// silent is a server that goes along until it hears word, and then says nothing.
func silent(t *testing.T, word string) (addr string, heard <-chan struct{}) {
	return wiretest.Silent(t, "220 ready", word, func(verb string) string {
		return map[string]string{"EHLO": "250-x\r\n250-PIPELINING\r\n250 AUTH XOAUTH2\r\n", "AUTH": "235 ok\r\n", "DATA": "354 go\r\n", "MAIL": "250 ok\r\n", "RCPT": "250 ok\r\n"}[verb]
	})
}

// A context that ends frees the sender at once, whatever the server does; after
// the dot the outcome is open.
func TestRE10CancelledContext(t *testing.T) {
	for _, c := range []struct {
		word string
		want mailgrant.Fate
	}{{"EHLO", ""}, {"AUTH", ""}, {"MAIL", mailgrant.FateLater}, {"DATA", mailgrant.FateLater}, {".", mailgrant.FateUncertain}} {
		t.Run(c.word, func(t *testing.T) {
			addr, heard := silent(t, c.word)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go func() { <-heard; cancel() }()
			conf := config()
			conf.limits = rfcTimeouts
			began := time.Now()
			s, err := Transport(conf).Open(ctx, wayTo(addr, "tls"))
			if c.want == "" {
				if err == nil || mailgrant.AsError(err).Finding == nil {
					t.Errorf("got %v, want an error with a finding", err)
				}
			} else {
				if err != nil {
					t.Fatal(err)
				}
				out := s.Send(ctx, handover("x\r\n", "b@example.net"))
				if out.Fate != c.want || !out.Broken {
					t.Errorf("got %+v, want %s", out, c.want)
				}
				s.Close()
			}
			if d := time.Since(began); d > 15*time.Second {
				t.Errorf("it took %v", d)
			}
		})
	}
}

// A message that cannot be read to its end is not ended with a dot.
func TestUnreadableMessageIsNotSent(t *testing.T) {
	addr, heard := silent(t, ".")
	s, err := Transport(config()).Open(t.Context(), wayTo(addr, "tls"))
	if err != nil {
		t.Fatal(err)
	}
	h := handover("", "b@example.net")
	h.Open = func() (io.ReadCloser, error) {
		return nil, mailgrant.Errorf(mailgrant.NotFound, nil, "there is no such message")
	}
	if out := s.Send(t.Context(), h); out.Fate != mailgrant.FateLater || out.Finding.NeedsPerson() {
		t.Errorf("one that cannot be opened: got %+v", out)
	}
	h.Open = func() (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(strings.NewReader("Subject: x\r\n"), iotest.ErrReader(errors.New("the disk is gone")))), nil
	}
	if out := s.Send(t.Context(), h); out.Fate != mailgrant.FateLater || !out.Broken || out.Finding.NeedsPerson() {
		t.Errorf("got %+v", out)
	}
	select {
	case <-heard:
		t.Error("the dot was sent")
	default:
	}
	s.Close()
}

func TestManyRecipients(t *testing.T) {
	s, err := Transport(config()).Open(t.Context(), wayTo(sinkServer(t), "tls"))
	if err != nil {
		t.Fatal(err)
	}
	to := make([]string, 2000)
	for i := range to {
		to[i] = strings.Repeat("a", i%40+1) + "@example.net"
	}
	if out := s.Send(t.Context(), handover("Subject: x\r\n\r\nx\r\n", to...)); out.Fate != mailgrant.FateDelivered {
		t.Errorf("got %+v", out)
	}
	s.Close()
}

// Who goes with the token. R159.
func TestR159User(t *testing.T) {
	for _, c := range []struct {
		kind     mailgrant.MailboxKind
		flow     mailgrant.Flow
		template string
		want     string
	}{
		{mailgrant.MailboxOwn, mailgrant.FlowCode, "microsoft365", "megan.upn@contoso.example"},
		{mailgrant.MailboxOwn, mailgrant.FlowCode, "google", "box@contoso.example"},
		{mailgrant.MailboxShared, mailgrant.FlowCode, "microsoft365", "megan.upn@contoso.example"},
		{mailgrant.MailboxShared, mailgrant.FlowApp, "microsoft365", "box@contoso.example"},
		{mailgrant.MailboxApp, mailgrant.FlowApp, "microsoft365", "box@contoso.example"},
	} {
		w := provider.Way{Mailbox: mailgrant.Mailbox{Address: "box@contoso.example", Kind: c.kind}, Settings: provider.Settings{Template: c.template},
			Grant: mailgrant.Grant{Flow: c.flow, Subject: mailgrant.Subject{UPN: "megan.upn@contoso.example", Address: "megan@contoso.example"}}}
		if got := User(w); got != c.want {
			t.Errorf("%s by %s at %s: got %s, want %s", c.kind, c.flow, c.template, got, c.want)
		}
	}
}

func TestEHLOName(t *testing.T) {
	for _, c := range []struct{ host, ip, want string }{{"mail.contoso.example", "10.0.0.1", "mail.contoso.example"}, {"my_host", "10.0.0.1", "[10.0.0.1]"},
		{"", "fd00::1", "[IPv6:fd00::1]"}, {"x\r\nMAIL", "", "localhost"}} {
		if got := ehloName(c.host, c.ip); got != c.want {
			t.Errorf("%q: got %q, want %q", c.host, got, c.want)
		}
	}
}

func TestSessionKeepsNoSecret(t *testing.T) {
	addr := sinkServer(t)
	w := wayTo(addr, "tls")
	w.Token = func(context.Context, string, bool) (mailgrant.Token, error) {
		return mailgrant.Token{Value: mailgrant.NewSecret("a-token-that-must-not-be-seen")}, nil
	}
	s := newSession(config(), w)
	s.Token = mailgrant.Token{Value: mailgrant.NewSecret("a-token-that-must-not-be-seen")}
	f := s.explain(reply{code: 535, lines: []string{"5.7.8 Bearer a-token-that-must-not-be-seen is bad"}}, "")
	if strings.Contains(f.Raw+f.Sentence, "must-not-be-seen") {
		t.Errorf("got %+v", f)
	}
}

func FuzzReadReply(f *testing.F) {
	f.Add([]byte("250-a\r\n250 b\r\n"))
	f.Add([]byte("999 x\r\n"))
	f.Add(bytes.Repeat([]byte("250-\r\n"), 200))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := readReply(bufio.NewReaderSize(bytes.NewReader(b), 64))
		if err != nil {
			return
		}
		if r.code < 200 || r.code > 559 || len(r.lines) > linesMax || len(r.text()) > 500 || strings.ContainsAny(r.text(), "\x00\x1b\r\n") {
			t.Fatalf("%q gave %d %q", b, r.code, r.text())
		}
		r.enhanced()
		remoteID(r)
	})
}

// FuzzDots: what a server reads up to the final dot is what was sent, or nothing
// was ended.
func FuzzDots(f *testing.F) {
	f.Add([]byte(".\r\n..\r\n"), 1)
	f.Add([]byte("a\nb"), 2)
	f.Fuzz(func(t *testing.T, b []byte, size int) {
		size = max(1, min(size, len(b)+1))
		var out bytes.Buffer
		d := newDots(&out)
		defer d.free()
		for p := b; len(p) > 0; {
			n := min(size, len(p))
			if _, err := d.Write(p[:n]); err != nil {
				break
			}
			p = p[n:]
		}
		if _, err := d.end(); err != nil {
			return
		}
		if bytes.Contains(bytes.ReplaceAll(out.Bytes(), []byte("\r\n"), nil), []byte("\r")) || bytes.Contains(bytes.ReplaceAll(out.Bytes(), []byte("\r\n"), nil), []byte("\n")) {
			t.Fatalf("%q left with a bare line end: %q", b, out.Bytes())
		}
		var got bytes.Buffer
		for r := bufio.NewReader(&out); ; {
			l, err := r.ReadString('\n')
			if err != nil {
				t.Fatalf("%q: no end", b)
			}
			if l == ".\r\n" {
				if rest, _ := io.ReadAll(r); len(rest) > 0 {
					t.Fatalf("%q: more after the end: %q", b, rest)
				}
				break
			}
			got.WriteString(strings.TrimPrefix(l, "."))
		}
		want := bytes.Clone(b)
		if len(want) > 0 && !bytes.HasSuffix(want, []byte("\r\n")) {
			want = append(want, "\r\n"...)
		}
		if !bytes.Equal(got.Bytes(), want) {
			t.Fatalf("%q arrived as %q", b, got.Bytes())
		}
	})
}

// A way that does not lead there passes by itself, and the record says where it
// ended.
func TestRE11NoWayThere(t *testing.T) {
	for _, c := range []struct {
		name  string
		err   error
		cause string
	}{
		{"no such name", &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "smtp.contoso.example", IsNotFound: true}}, "dns-failure"},
		{"no resolver", &net.OpError{Op: "dial", Err: &net.DNSError{Err: "server misbehaving", Name: "smtp.contoso.example", IsTemporary: true}}, "dns-failure"},
		{"nobody listens", &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}, "network-unreachable"},
		{"no answer", &net.OpError{Op: "dial", Err: context.DeadlineExceeded}, "network-unreachable"},
	} {
		w := wayTo("127.0.0.1:1", "tls")
		w.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, c.err }
		s := newSession(config().ready(), w)
		out := s.Send(t.Context(), handover("x\r\n", "b@example.net"))
		if out.Finding == nil || out.Finding.Cause != c.cause || out.Fate == mailgrant.FateRefused || out.Fate == mailgrant.FateUncertain || !out.Broken {
			t.Errorf("%s: got %+v, %+v", c.name, out, out.Finding)
		}
		if out.Fate == mailgrant.FateHeld && !out.Finding.NeedsPerson() {
			t.Errorf("%s: held for what passes by itself: %+v", c.name, out.Finding)
		}
	}
}
