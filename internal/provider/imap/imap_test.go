package imap

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
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
)

func TestMain(m *testing.M) {
	if n, err := strconv.Atoi(os.Getenv(elsewhere)); err == nil {
		beServer(n)
		return
	}
	goleak.VerifyTestMain(m)
}

// pair is a certificate for imap.example and 127.0.0.1, good in a bubble's year
// 2000 too, and the roots that trust it.
var pair = sync.OnceValues(func() (tls.Certificate, *x509.CertPool) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Unix(0, 0), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"imap.example"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
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
	return Config{TLS: func(name, _ string) *tls.Config {
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
		Settings: provider.Settings{Template: "generic", IMAPHost: host, IMAPPort: n, IMAPSecurity: security, SASL: []string{"OAUTHBEARER", "XOAUTH2"}},
		Dial:     new(net.Dialer).DialContext,
		Token: func(_ context.Context, _ string, fresh bool) (mailgrant.Token, error) {
			if fresh {
				return mailgrant.Token{Value: mailgrant.NewSecret("fresh")}, nil
			}
			return mailgrant.Token{Value: mailgrant.NewSecret("token")}, nil
		},
	}
}

// A dialogue is a file: settings, what we do with what must come of it, an empty
// line, and what is said. C: is expected of us, S: is the server's answer, RAW:
// one without line end, TLS a handshake, DROP ends the connection, NEXT waits
// for another one, QUIET passes that much time. LOGIN and SELECT stand for what
// is always the same. {token} is the response for "token", {fresh} for "fresh".
type dialogue struct {
	set   map[string]string
	steps [][2]string // do, want
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
		v = strings.TrimSpace(v)
		switch {
		case strings.HasPrefix(l, "#"):
		case k == "do":
			d.steps = append(d.steps, [2]string{v, ""})
		case k == "want":
			d.steps[len(d.steps)-1][1] = v
		default:
			d.set[k] = v
		}
	}
	for _, l := range strings.Split(rest, "\n") {
		if l != "" && !strings.HasPrefix(l, "#") {
			d.lines = append(d.lines, macro(l)...)
		}
	}
	return d
}

// macro writes out what every session begins with.
func macro(l string) []string {
	w := strings.Fields(l)
	switch w[0] {
	case "LOGIN": // and what the server can do after it
		return []string{"S: * OK ready", "C: A1 CAPABILITY", "S: * CAPABILITY IMAP4rev1 SASL-IR AUTH=XOAUTH2", "S: A1 OK", "C: A2 AUTHENTICATE XOAUTH2 {token}",
			"S: A2 OK [CAPABILITY IMAP4rev1 " + strings.Join(w[1:], " ") + "] welcome", `C: A3 LIST "" "*"`, `S: * LIST (\HasNoChildren) "/" INBOX`, "S: A3 OK"}
	case "SELECT": // tag, name, exists, uidvalidity, uidnext
		return []string{"C: " + w[1] + ` SELECT "` + w[2] + `"`, "S: * " + w[3] + " EXISTS", "S: * OK [UIDVALIDITY " + w[4] + "] x", "S: * OK [UIDNEXT " + w[5] + "] x", "S: " + w[1] + " OK [READ-WRITE] done"}
	}
	return []string{l}
}

// serve plays the server's part and says where we left the text.
func (d dialogue) serve(conns <-chan net.Conn) (err error) {
	var conn net.Conn
	var r *bufio.Reader
	next := func() error {
		if conn != nil {
			conn.Close()
		}
		c, ok := <-conns
		if !ok {
			return errors.New("no connection")
		}
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
	if d.set["security"] != "starttls" {
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
			if err = next(); err == nil && d.set["security"] != "starttls" {
				err = secure()
			}
		case strings.HasPrefix(line, "QUIET "):
			var span time.Duration
			span, err = time.ParseDuration(line[6:])
			time.Sleep(span)
		case strings.HasPrefix(line, "S: "):
			_, err = io.WriteString(conn, expand(line[3:])+"\r\n")
		case strings.HasPrefix(line, "RAW: "):
			_, err = io.WriteString(conn, expand(line[5:]))
		case strings.HasPrefix(line, "C: "):
			var got string
			got, err = r.ReadString('\n')
			if want := expand(line[3:]) + "\r\n"; err == nil && got != want {
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
	got, _ := io.ReadAll(r)
	if s := strings.TrimPrefix(string(got), "DONE\r\n"); s != "" && !strings.HasSuffix(s, " LOGOUT\r\n") || strings.Count(s, "\n") > 1 {
		return fmt.Errorf("at the end: got %q", got)
	}
	return nil
}

func expand(s string) string {
	bearer := func(token string) string {
		return base64.StdEncoding.EncodeToString([]byte("n,a=alex@contoso.example,\x01host=imap.example\x01port=993\x01auth=Bearer " + token + "\x01\x01"))
	}
	return strings.NewReplacer("{token}", "dXNlcj1hbGV4QGNvbnRvc28uZXhhbXBsZQFhdXRoPUJlYXJlciB0b2tlbgEB", "{fresh}", "dXNlcj1hbGV4QGNvbnRvc28uZXhhbXBsZQFhdXRoPUJlYXJlciBmcmVzaAEB",
		"{bearer}", bearer("token"), "{long}", strings.Repeat("x", 1<<19), "{empty}", "", `\e`, "\x1b", `\0`, "\x00", `\n`, "\r\n", `\lf`, "\n").Replace(s)
}

func TestDialogues(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no dialogues", err)
	}
	pair()
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			d := readDialogue(t, file)
			synctest.Test(t, d.play)
		})
	}
}

// connections gives the server's ends of what is dialled.
func connections(w *provider.Way) <-chan net.Conn {
	conns := make(chan net.Conn, 1)
	w.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		select {
		case conns <- theirs:
			return ours, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return conns
}

func (d dialogue) play(t *testing.T) {
	w := wayTo("imap.example:993", d.set["security"])
	conns := connections(&w)
	if s := d.set["sasl"]; s != "" {
		w.Settings.SASL = strings.Fields(s)
	}
	if s := d.set["template"]; s != "" {
		w.Settings.Template = s
	}
	if s := d.set["sasl_ir"]; s != "" {
		w.Settings.IMAPSASLIR = s
	}
	if d.set["kind"] == "shared" {
		w.Mailbox.Kind, w.Grant.Mailbox, w.Grant.Subject.UPN = mailgrant.MailboxShared, "kim@contoso.example", "kim@contoso.example"
	}
	if d.set["kind"] == "app" {
		w.Mailbox.Kind, w.Grant.Flow = mailgrant.MailboxApp, mailgrant.FlowApp
	}
	done := make(chan error, 1)
	go func() { done <- d.serve(conns) }()
	p := &player{t: t, d: d, w: w, cursor: provider.Cursor(d.set["cursor"])}
	for _, s := range d.steps {
		if got := p.do(s[0]); got != s[1] {
			t.Errorf("%s\ngot  %s\nwant %s", s[0], got, s[1])
		}
	}
	if p.inbox != nil {
		p.inbox.Close()
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A player does what a dialogue says, as the program would.
type player struct {
	t      *testing.T
	d      dialogue
	w      provider.Way
	inbox  provider.Inbox
	cursor provider.Cursor
}

func (p *player) reading() provider.Reading {
	var r provider.Reading
	for _, f := range strings.Split(p.d.set["folders"], ",") {
		if f = strings.TrimSpace(f); f != "" {
			r.Folders = append(r.Folders, f)
		}
	}
	if s := p.d.set["since"]; s != "" {
		r.Since, _ = time.Parse(time.RFC3339, s)
	}
	r.Max, _ = strconv.ParseInt(p.d.set["max"], 10, 64)
	r.Poll, _ = time.ParseDuration(p.d.set["poll"])
	r.Known = func(_ context.Context, remotes []string) (map[string]bool, error) {
		m := map[string]bool{}
		for _, n := range remotes {
			m[n] = strings.Contains(" "+p.d.set["known"]+" ", " "+n+" ")
		}
		return m, nil
	}
	return r
}

func (p *player) do(step string) string {
	ctx := p.t.Context()
	w := strings.Fields(step)
	switch w[0] {
	case "open":
		var err error
		p.inbox, err = Reader(config()).Open(ctx, p.w, p.reading())
		if err == nil {
			return "open"
		}
		p.inbox = nil
		return p.failure(err)
	case "folders":
		list, err := Reader(config()).Folders(ctx, p.w)
		if err != nil {
			return p.failure(err)
		}
		return fmt.Sprint(list)
	case "next": // or "next stop 2": take fails at the second
		return p.next(ctx, w[1:])
	case "wait": // or "wait 5m": for so long
		began := time.Now()
		if len(w) > 1 {
			span, _ := time.ParseDuration(w[1])
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, span)
			defer cancel()
		}
		if err := p.inbox.Wait(ctx); err != nil {
			return p.failure(err)
		}
		return "woken after " + time.Since(began).String()
	case "done":
		to := ""
		if w[1] == "move" {
			to, w = strings.ReplaceAll(w[2], "_", " "), append(w[:2], w[3:]...)
		}
		if err := p.inbox.Done(ctx, w[2:], mailgrant.AfterRead(w[1]), to); err != nil {
			return p.failure(err)
		}
		return "done"
	case "close":
		p.inbox.Close()
		p.inbox = nil
		return "closed"
	}
	return "nobody knows how to " + step
}

var errTake = errors.New("the store says no")

func (p *player) next(ctx context.Context, args []string) string {
	var out []string
	n := 0
	to, more, err := p.inbox.Next(ctx, p.cursor, func(in provider.Incoming) error {
		n++
		if len(args) == 2 && args[0] == "stop" && args[1] == strconv.Itoa(n) {
			return errTake
		}
		s := in.Remote
		switch {
		case in.Err != nil:
			s += " !" + mailgrant.AsError(in.Err).Finding.Cause
		case in.Body == nil:
			s += fmt.Sprintf(" -%d", in.Size)
		default:
			b, err := io.ReadAll(in.Body)
			if err != nil {
				return err
			}
			s += fmt.Sprintf(" %q", b)
		}
		if !in.ReceivedAt.IsZero() && p.d.set["dates"] != "" {
			s += in.ReceivedAt.UTC().Format(" 2006-01-02T15:04")
		}
		out = append(out, s)
		return nil
	})
	p.cursor = to
	out = append(out, string(to))
	if more {
		out = append(out, "more")
	}
	if err != nil {
		out = append(out, p.failure(err))
	}
	return strings.Join(out, " | ")
}

// failure is an error in one line.
func (p *player) failure(err error) string {
	if errors.Is(err, errTake) {
		return "the store says no"
	}
	if errors.Is(err, context.DeadlineExceeded) && !errors.As(err, new(*mailgrant.Error)) {
		return "nothing came"
	}
	e := mailgrant.AsError(err)
	if e.Finding == nil {
		return "error " + string(e.Code) + ": " + e.Error()
	}
	if all := e.Finding.Raw + e.Finding.Sentence + e.Message; strings.ContainsAny(all, "\x1b\x00\n") || len(e.Finding.Raw) > 2000 {
		p.t.Errorf("not clean: %q, %q", e.Message, e.Finding.Raw)
	}
	s := "error " + string(e.Code) + " " + e.Finding.Cause
	if e.Finding.RetryAfter > 0 {
		s += " " + e.Finding.RetryAfter.String()
	}
	if strings.Contains(e.Message, "folder") {
		s += ": " + e.Message + "; " + e.Remedy
	}
	return s
}
