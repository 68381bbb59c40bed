package smtp

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair is a certificate for 127.0.0.1 and the roots that trust it.
var pair = sync.OnceValues(func() (tls.Certificate, *x509.CertPool) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &k.PublicKey, k)
	if err != nil {
		panic(err)
	}
	leaf, _ := x509.ParseCertificate(der)
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k}, roots
})

func serverTLS() *tls.Config {
	cert, _ := pair()
	return &tls.Config{Certificates: []tls.Certificate{cert}}
}

func config() Config {
	_, roots := pair()
	cache := tls.NewLRUClientSessionCache(8)
	return Config{Hostname: "mail.contoso.example", limits: timeouts{20 * time.Second, 20 * time.Second, 20 * time.Second, 20 * time.Second, 20 * time.Second, 20 * time.Second},
		TLS: func(name, _ string) *tls.Config {
			return &tls.Config{ServerName: name, RootCAs: roots, MinVersion: tls.VersionTLS12, ClientSessionCache: cache}
		}}
}

// wayTo is the way of alex@contoso.example through a server at addr.
func wayTo(addr, security string) provider.Way {
	host, port, _ := net.SplitHostPort(addr)
	n, _ := strconv.Atoi(port)
	return provider.Way{
		Mailbox:  mailgrant.Mailbox{Address: "alex@contoso.example", Kind: mailgrant.MailboxOwn},
		Grant:    mailgrant.Grant{Flow: mailgrant.FlowCode, Mailbox: "alex@contoso.example"},
		Settings: provider.Settings{Template: "generic", SMTPHost: host, SMTPPort: n, SMTPSecurity: security, SASL: []string{"XOAUTH2", "OAUTHBEARER"}},
		Dial:     new(net.Dialer).DialContext,
		Token: func(_ context.Context, _ string, fresh bool) (mailgrant.Token, error) {
			if fresh {
				return mailgrant.Token{Value: mailgrant.NewSecret("fresh")}, nil
			}
			return mailgrant.Token{Value: mailgrant.NewSecret("token")}, nil
		},
	}
}

func handover(body string, to ...string) *provider.Handover {
	return &provider.Handover{From: "alex@contoso.example", Recipients: to, MessageID: "<1@contoso.example>", Size: int64(len(body)),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(body)), nil }}
}

// A dialogue is a file: settings, an empty line, and what is said. C: is
// expected of us, S: is the server's answer, TLS is a handshake, DROP ends the
// connection, NEXT waits for another one. {token} is the response for "token",
// {fresh} for "fresh"; {long} is a long line, {flood} very many.
type dialogue struct {
	set   map[string]string
	lines []string
}

func readDialogue(t *testing.T, file string) dialogue {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, _ := strings.Cut(string(b), "\n\n")
	d := dialogue{set: map[string]string{}}
	for _, l := range strings.Split(head, "\n") {
		k, v, _ := strings.Cut(l, ":")
		if !strings.HasPrefix(l, "#") {
			d.set[k] = strings.TrimSpace(v)
		}
	}
	for _, l := range strings.Split(rest, "\n") {
		if l != "" && !strings.HasPrefix(l, "#") {
			d.lines = append(d.lines, l)
		}
	}
	return d
}

// serve plays the server's part and says where we left the text.
func (d dialogue) serve(l net.Listener, done chan<- error) {
	done <- func() error {
		var conn net.Conn
		var r *bufio.Reader
		next := func() error {
			if conn != nil {
				conn.Close()
			}
			c, err := l.Accept()
			if err != nil {
				return err
			}
			c.SetDeadline(time.Now().Add(30 * time.Second))
			conn, r = c, bufio.NewReader(c)
			return nil
		}
		secure := func() error {
			c := tls.Server(conn, serverTLS())
			conn, r = c, bufio.NewReader(c)
			return c.Handshake()
		}
		if err := next(); err != nil {
			return err
		}
		defer func() { conn.Close() }()
		if d.set["security"] == "tls" {
			if err := secure(); err != nil {
				return err
			}
		}
		for i, line := range d.lines {
			var err error
			switch {
			case line == "TLS":
				err = secure()
			case line == "DROP":
				conn.Close()
			case line == "NEXT":
				err = next()
			case strings.HasPrefix(line, "S: "):
				_, err = io.WriteString(conn, expand(line[3:], d.set["port"]))
			case strings.HasPrefix(line, "C: "):
				var got string
				got, err = r.ReadString('\n')
				if want := expand(line[3:], d.set["port"]); err == nil && got != want {
					err = fmt.Errorf("got %q, want %q", got, want)
				}
			default:
				err = fmt.Errorf("a line that says nothing: %q", line)
			}
			if err != nil {
				return fmt.Errorf("at %d, %q: %w", i+1, line, err)
			}
		}
		// What comes now was not expected, but for the farewell.
		conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		if got, _ := io.ReadAll(r); len(got) > 0 && string(got) != "QUIT\r\n" {
			return fmt.Errorf("at the end: got %q", got)
		}
		return nil
	}()
}

// bearer is the response of RFC 7628 for a token.
func bearer(token, port string) string {
	return base64.StdEncoding.EncodeToString([]byte("n,a=alex@contoso.example,\x01host=127.0.0.1\x01port=" + port + "\x01auth=Bearer " + token + "\x01\x01"))
}

func expand(s, port string) string {
	s = strings.NewReplacer("{token}", "dXNlcj1hbGV4QGNvbnRvc28uZXhhbXBsZQFhdXRoPUJlYXJlciB0b2tlbgEB", "{fresh}", "dXNlcj1hbGV4QGNvbnRvc28uZXhhbXBsZQFhdXRoPUJlYXJlciBmcmVzaAEB",
		"{long}", strings.Repeat("x", 1<<19), "{empty}", "", `\e`, "\x1b", `\n`, "\r\n", "{bearer}", bearer("token", port), "{bearer-fresh}", bearer("fresh", port)).Replace(s)
	if strings.Contains(s, "{flood}") {
		return strings.Repeat("250-more and more\r\n", 10000) + "250 end\r\n"
	}
	return s + "\r\n"
}

func TestDialogues(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no dialogues", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { play(t, readDialogue(t, file)) })
	}
}

func play(t *testing.T, d dialogue) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	d.set["port"] = port
	done := make(chan error, 1)
	go d.serve(l, done)
	w := wayTo(l.Addr().String(), d.set["security"])
	if s := d.set["sasl"]; s != "" {
		w.Settings.SASL = strings.Fields(s)
	}
	if s := d.set["template"]; s != "" {
		w.Settings.Template = s
	}
	got := d.send(t, w)
	l.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	want := d.set["want"]
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// send is our part; it says in one line what came of it.
func (d dialogue) send(t *testing.T, w provider.Way) string {
	s, err := Transport(config()).Open(t.Context(), w)
	if err != nil {
		e := mailgrant.AsError(err)
		if e.Finding == nil {
			return "not opened: " + string(e.Code)
		}
		if strings.ContainsAny(e.Finding.Raw+e.Message, "\x1b\x00\n") {
			t.Errorf("not clean: %q, %q", e.Message, e.Finding.Raw)
		}
		return "not opened: " + string(e.Code) + " " + e.Finding.Cause
	}
	defer s.Close()
	body := strings.ReplaceAll(d.set["body"], `\n`, "\r\n")
	body = strings.NewReplacer(`\cr`, "\r", `\lf`, "\n").Replace(body)
	if body == "" {
		body = "Subject: x\r\n\r\nHi\r\n"
	}
	to := []string{"b@example.net"}
	if r := d.set["to"]; r != "" {
		to = strings.Fields(r)
	}
	var all []string
	for range max(1, strings.Count(d.set["messages"], "x")) {
		h := handover(body, to...)
		h.EightBit, h.UTF8 = strings.Contains(d.set["flags"], "8bit"), strings.Contains(d.set["flags"], "utf8")
		if f, ok := d.set["from"]; ok {
			h.From = f
		}
		h.Size = 0
		if n := d.set["size"]; n != "" {
			h.Size, _ = strconv.ParseInt(n, 10, 64)
		}
		all = append(all, line(t, s.Send(t.Context(), h)))
	}
	return strings.Join(all, " | ")
}

func line(t *testing.T, o provider.Outcome) string {
	out := string(o.Fate)
	if o.Fate != mailgrant.FateDelivered && o.Finding == nil {
		t.Errorf("%s without a finding", o.Fate)
	}
	if o.Finding != nil && o.Fate != mailgrant.FateUncertain {
		out += " " + o.Finding.Cause
	}
	if o.RemoteID != "" {
		out += " id=" + o.RemoteID
	}
	if o.Broken {
		out += " broken"
	}
	for _, r := range o.Recipients {
		out += " " + r.Address + "=" + string(r.Fate)
	}
	if len(o.Reply) > 500 || strings.ContainsAny(o.Reply, "\x1b\x00\r\n") {
		t.Errorf("a reply that is not fit to be kept: %q", o.Reply)
	}
	return out
}

// SM-02: dots are doubled and lines end in CRLF, in whatever pieces the message
// comes; a bare CR or LF never leaves.
func TestSM02DotsInAllPieces(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{".\r\n..\r\na.\r\n", "..\r\n...\r\na.\r\n.\r\n"},
		{"no end", "no end\r\n.\r\n"},
		{"", ".\r\n"},
		{"\r\n.\r\n\r\n", "\r\n..\r\n\r\n.\r\n"},
		{"a\r\n.", "a\r\n..\r\n.\r\n"},
	} {
		for size := 1; size < len(c.in)+2; size++ {
			var out bytes.Buffer
			d := newDots(&out)
			for p := []byte(c.in); len(p) > 0; {
				n := min(size, len(p))
				d.Write(p[:n])
				p = p[n:]
			}
			if _, err := d.end(); err != nil || out.String() != c.want {
				t.Errorf("%q by %d: got %q, %v, want %q", c.in, size, out.String(), err, c.want)
			}
			d.free()
		}
	}
	for _, in := range []string{"a\nb\r\n", "a\rb\r\n", "\n.\r\n", "a\r\n.\n", "\r", "a\r\r\n", "a\r\n\r.\r\n", "\n"} {
		for size := 1; size < len(in)+2; size++ {
			var out bytes.Buffer
			d := newDots(&out)
			for p := []byte(in); len(p) > 0; {
				n := min(size, len(p))
				d.Write(p[:n])
				p = p[n:]
			}
			if dotted, err := d.end(); err == nil || dotted {
				t.Errorf("%q by %d left as %q", in, size, out.String())
			}
			d.free()
		}
	}
}
