package pop

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
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
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
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Unix(0, 0), NotAfter: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC), // synctest has its own time

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
	l := usual
	l.connect, l.greeting, l.command, l.listing = 20*time.Second, 20*time.Second, 20*time.Second, 20*time.Second
	return Config{limits: l, TLS: func(name, _ string) *tls.Config {
		return &tls.Config{ServerName: name, RootCAs: roots, MinVersion: tls.VersionTLS12}
	}}
}

// wayTo is the way of alex@contoso.example through a server at addr.
func wayTo(addr, security string) provider.Way {
	host, port, _ := net.SplitHostPort(addr)
	n, _ := strconv.Atoi(port)
	return provider.Way{
		Mailbox:  mailgrant.Mailbox{Address: "alex@contoso.example", Kind: mailgrant.MailboxOwn},
		Grant:    mailgrant.Grant{Flow: mailgrant.FlowCode, Mailbox: "alex@contoso.example"},
		Settings: provider.Settings{Template: "generic", POPHost: host, POPPort: n, POPSecurity: security, SASL: []string{"XOAUTH2", "OAUTHBEARER"}, POPTwoLine: true},
		Dial:     new(net.Dialer).DialContext,
		Token: func(_ context.Context, _ string, fresh bool) (mailgrant.Token, error) {
			if fresh {
				return mailgrant.Token{Value: mailgrant.NewSecret("fresh")}, nil
			}
			return mailgrant.Token{Value: mailgrant.NewSecret("token")}, nil
		},
	}
}

// A ledger is what an inbox does with what it is given, in one line.
type ledger struct {
	t     *testing.T
	known map[string]bool
	since time.Time
	said  []string
	sum   func(in provider.Incoming, body []byte) string
}

func newLedger(t *testing.T) *ledger { return &ledger{t: t, known: map[string]bool{}} }

func (l *ledger) say(format string, args ...any) {
	l.said = append(l.said, fmt.Sprintf(format, args...))
}

func (l *ledger) reading() provider.Reading {
	return provider.Reading{
		Known: func(_ context.Context, remotes []string) (map[string]bool, error) {
			if len(remotes) > batch {
				l.t.Errorf("asked about %d at once", len(remotes))
			}
			m := map[string]bool{}
			for _, r := range remotes {
				m[r] = l.known[r]
			}
			return m, nil
		},
		Gone: func(_ context.Context, remotes []string) error {
			slices.Sort(remotes)
			l.say("gone %s", strings.Join(remotes, ","))
			for _, r := range remotes {
				delete(l.known, r)
			}
			return nil
		},
	}
}

// take reads a message and keeps it in mind.
func (l *ledger) take(in provider.Incoming) error {
	what := "large"
	if !in.ReceivedAt.IsZero() && in.ReceivedAt.Before(l.since) && in.Body == nil {
		what = "old"
	}
	switch {
	case in.Err != nil:
		e := mailgrant.AsError(in.Err)
		what = "refused " + e.Finding.Cause
		if strings.ContainsAny(e.Finding.Raw+e.Message, "\x1b\x00\n") {
			l.t.Errorf("not clean: %q, %q", e.Message, e.Finding.Raw)
		}
	case in.Body != nil:
		b, err := io.ReadAll(in.Body)
		if err != nil {
			return err
		}
		what = strconv.Itoa(len(b))
		if l.sum != nil {
			what = l.sum(in, b)
		} else if len(b) < 40 {
			what = strconv.Quote(string(b))
		}
	}
	if !in.ReceivedAt.IsZero() {
		what += "@" + in.ReceivedAt.UTC().Format("2006-01-02")
	}
	l.say("%s=%s", in.Remote, what)
	l.known[in.Remote] = true
	return nil
}

func problem(err error) string {
	e := mailgrant.AsError(err)
	if e.Finding == nil {
		return string(e.Code)
	}
	s := string(e.Code) + " " + e.Finding.Cause
	if e.Finding.RetryAfter > 0 {
		s += " after " + e.Finding.RetryAfter.String()
	}
	return s
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
			case strings.HasPrefix(line, "S: {flood}"):
				flood(conn)
			case strings.Contains(line, "{long}"): // nobody needs to read it all
				io.WriteString(conn, expand(line[3:], d.set["port"]))
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
		got, _ := r.ReadString('\n')
		if got == "QUIT\r\n" {
			io.WriteString(conn, "+OK\r\n")
		} else if got != "" {
			return fmt.Errorf("at the end: got %q", got)
		}
		return nil
	}()
}

// flood writes a listing until nobody reads it any more.
func flood(w io.Writer) {
	for n := 1; ; n += 1000 {
		var b strings.Builder
		for i := range 1000 {
			fmt.Fprintf(&b, "%d %032d\r\n", n+i, n+i)
		}
		if _, err := io.WriteString(w, b.String()); err != nil {
			return
		}
	}
}

// bearer is the response of RFC 7628 for a token.
func bearer(token, port string) string {
	return base64.StdEncoding.EncodeToString([]byte("n,a=alex@contoso.example,\x01host=127.0.0.1\x01port=" + port + "\x01auth=Bearer " + token + "\x01\x01"))
}

func expand(s, port string) string {
	return strings.NewReplacer("{token}", "dXNlcj1hbGV4QGNvbnRvc28uZXhhbXBsZQFhdXRoPUJlYXJlciB0b2tlbgEB", "{fresh}", "dXNlcj1hbGV4QGNvbnRvc28uZXhhbXBsZQFhdXRoPUJlYXJlciBmcmVzaAEB",
		"{long}", strings.Repeat("x", 2<<20), "{empty}", "", `\e`, "\x1b", `\0`, "\x00", `\n`, "\r\n", `\lf`, "\n", `\xff`, "\xff", "{300}", strings.Repeat("u", 300),
		"{bearer}", bearer("token", port), "{bearer-fresh}", bearer("fresh", port)).Replace(s) + "\r\n"
}

func TestDialogues(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no dialogues", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			play(t, readDialogue(t, file))
		})
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
	if d.set["kind"] == "shared" { // somebody else signed in for it
		w.Mailbox.Kind, w.Grant.Subject = mailgrant.MailboxShared, mailgrant.Subject{UPN: "robin@contoso.example"}
	}
	w.Settings.POPTwoLine = d.set["one-line"] == ""
	got := d.read(t, w)
	l.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if want := d.set["want"]; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// read is our part; it says in one line what came of it. "do" are the steps.
func (d dialogue) read(t *testing.T, w provider.Way) string {
	led := newLedger(t)
	for _, k := range strings.Fields(d.set["known"]) {
		led.known[k] = true
	}
	r := led.reading()
	r.Poll = time.Nanosecond
	r.Max, _ = strconv.ParseInt(d.set["max"], 10, 64)
	if s := d.set["since"]; s != "" {
		r.Since, _ = time.Parse("2006-01-02", s)
		led.since = r.Since
	}
	c := config()
	in, err := Reader(c).Open(t.Context(), w, r)
	if err != nil {
		return "not opened: " + problem(err)
	}
	defer in.Close()
	steps := strings.Fields(d.set["do"])
	if len(steps) == 0 {
		steps = []string{"next"}
	}
	var cursor provider.Cursor
	for _, step := range steps {
		var err error
		name, arg, _ := strings.Cut(step, ":")
		switch name {
		case "next":
			var more bool
			if cursor, more, err = in.Next(t.Context(), cursor, led.take); more {
				led.say("more")
			}
		case "wait":
			err = in.Wait(t.Context())
		case "delete":
			err = in.Done(t.Context(), strings.Split(arg, ","), mailgrant.AfterDelete, "")
			if err == nil {
				led.say("deleted")
			}
		case "mark", "move", "leave":
			err = in.Done(t.Context(), []string{arg}, mailgrant.AfterRead(name), "x")
		default:
			t.Fatalf("no step %q", step)
		}
		if err != nil {
			led.say("%s: %s", name, problem(err))
		}
	}
	return strings.Join(led.said, " | ")
}

// silent is a server that goes along until it hears word, and then says nothing.
func silent(t *testing.T, word string) (addr string, heard <-chan struct{}) {
	l, err := tls.Listen("tcp", "127.0.0.1:0", serverTLS())
	if err != nil {
		t.Fatal(err)
	}
	ch, done := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		io.WriteString(c, "+OK ready\r\n")
		for r := bufio.NewReader(c); ; {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			verb := strings.Fields(line + " ?")[0]
			if verb == word {
				close(ch)
				io.Copy(io.Discard, r)
				return
			}
			answer, ok := map[string]string{"CAPA": "+OK\r\nSASL XOAUTH2\r\nTOP\r\nUIDL\r\n.", "AUTH": "+ ", "STAT": "+OK 1 10", "UIDL": "+OK\r\n1 a\r\n.", "LIST": "+OK\r\n1 10\r\n.", "RETR": "+OK\r\nSubject: x\r\n\r\nhi\r\n."}[verb]
			if !ok {
				answer = "+OK"
			}
			io.WriteString(c, answer+"\r\n")
		}
	}()
	return l.Addr().String(), ch
}

// A context that ends frees the reader at once, whatever the server does.
func TestIM11CancelledContext(t *testing.T) {
	for _, word := range []string{"CAPA", "AUTH", "STAT", "UIDL", "LIST", "RETR", "DELE", "QUIT"} {
		t.Run(word, func(t *testing.T) {
			t.Parallel()
			addr, heard := silent(t, word)
			ctx, cancel := context.WithCancelCause(t.Context())
			stop := errors.New("stop")
			defer cancel(stop)
			go func() { <-heard; cancel(stop) }()
			led := newLedger(t)
			in, err := Reader(config()).Open(ctx, wayTo(addr, "tls"), led.reading())
			if err == nil {
				_, _, err = in.Next(ctx, "", led.take)
				if err == nil {
					err = in.Done(ctx, []string{"a"}, mailgrant.AfterDelete, "")
				}
				in.Close()
			}
			if err == nil || ctx.Err() == nil {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestIM05NothingWithoutTLS(t *testing.T) {
	for _, security := range []string{"starttls", "", "none"} {
		d := dialogue{set: map[string]string{"security": security, "want": "not opened: misset tls-failure"}, lines: []string{
			"S: +OK ready", "C: CAPA", `S: +OK\nSASL XOAUTH2\nUSER\n.`}}
		play(t, d)
	}
}

func TestWhatPOPCannotDo(t *testing.T) {
	for _, r := range []mailgrant.Receive{{After: mailgrant.AfterMark}, {After: mailgrant.AfterMove, MoveTo: "x"}, {Folders: []string{"Archive"}}} {
		e := mailgrant.AsError(Check(r))
		if e == nil || e.Code != mailgrant.Misset || e.Remedy == "" || e.Field == "" {
			t.Errorf("%+v: got %+v", r, e)
		}
	}
	for _, r := range []mailgrant.Receive{{}, {After: mailgrant.AfterLeave}, {After: mailgrant.AfterDelete, Folders: []string{"INBOX"}}} {
		if err := Check(r); err != nil {
			t.Errorf("%+v: got %v", r, err)
		}
	}
	if _, err := Reader(config()).Open(t.Context(), provider.Way{}, provider.Reading{Folders: []string{"x"}}); !errors.Is(err, mailgrant.Misset) {
		t.Errorf("got %v", err)
	}
	if _, err := Reader(config()).Open(t.Context(), provider.Way{Token: wayTo("x:1", "tls").Token}, provider.Reading{}); !errors.Is(err, mailgrant.Misset) {
		t.Errorf("without a server: got %v", err)
	}
}
