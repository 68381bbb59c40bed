package imap

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/wire/wiretest"
)

func TestMain(m *testing.M) {
	if n, err := strconv.Atoi(os.Getenv(elsewhere)); err == nil {
		beServer(n)
		return
	}
	goleak.VerifyTestMain(m)
}

func config() Config { return Config{TLS: wiretest.ClientTLS} }

// wayTo is a way through a server at addr.
func wayTo(addr, security string) provider.Way {
	w := wiretest.Way()
	w.Settings.IMAPHost, w.Settings.IMAPPort = wiretest.HostPort(addr)
	w.Settings.IMAPSecurity, w.Settings.SASL = security, []string{"OAUTHBEARER", "XOAUTH2"}
	return w
}

// TestDialogues: besides what all dialogues have, RAW: is an answer without line
// end, and QUIET passes that much time. LOGIN and SELECT stand for what is always
// the same; {long} is a long line. Among the settings is what we do ("do") with
// what must come of it ("want").
func TestDialogues(t *testing.T) {
	wiretest.Each(t, func(t *testing.T, d wiretest.Dialogue) {
		synctest.Test(t, func(t *testing.T) { play(t, d) })
	})
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

func play(t *testing.T, d wiretest.Dialogue) {
	w := wayTo("imap.example:993", d.Get("security"))
	conns := connections(&w)
	d.Set(&w)
	if s := d.Get("sasl_ir"); s != "" {
		w.Settings.IMAPSASLIR = s
	}
	if d.Get("kind") == "shared" {
		w.Mailbox.Kind, w.Grant.Mailbox, w.Grant.Subject.UPN = mailgrant.MailboxShared, "kim@contoso.example", "kim@contoso.example"
	}
	if d.Get("kind") == "app" {
		w.Mailbox.Kind, w.Grant.Flow = mailgrant.MailboxApp, mailgrant.FlowApp
	}
	var lines []string
	for _, l := range d.Lines {
		lines = append(lines, macro(l)...)
	}
	d.Lines = lines
	server := &wiretest.Server{Dialogue: d, Addr: "imap.example:993", Words: []string{"{long}", strings.Repeat("x", 1<<19)}, Own: own, End: end,
		Accept: func() (net.Conn, error) { return <-conns, nil }}
	done := make(chan error, 1)
	go func() { done <- server.Play() }()
	p := &player{t: t, d: d, w: w, cursor: provider.Cursor(d.Get("cursor"))}
	for i, s := range d.Head {
		if s[0] != "do" {
			continue
		}
		want := ""
		if i+1 < len(d.Head) && d.Head[i+1][0] == "want" {
			want = d.Head[i+1][1]
		}
		if got := p.do(s[1]); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", s[1], got, want)
		}
	}
	if p.inbox != nil {
		p.inbox.Close()
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// own does the lines that no other protocol has.
func own(conn net.Conn, line string, words *strings.Replacer) (known bool, err error) {
	if raw, ok := strings.CutPrefix(line, "RAW: "); ok {
		_, err := io.WriteString(conn, words.Replace(raw))
		return true, err
	}
	if quiet, ok := strings.CutPrefix(line, "QUIET "); ok {
		span, err := time.ParseDuration(quiet)
		time.Sleep(span) // in a bubble
		return true, err
	}
	return false, nil
}

// A server that hangs up before TLS is one that is not there now; nobody has to do
// anything. By TCP: a pipe ends in its own way.
func TestHangsUpBeforeTLS(t *testing.T) {
	server := &wiretest.Server{End: end, Dialogue: wiretest.Dialogue{Head: [][2]string{{"security", "starttls"}},
		Lines: []string{"S: * OK ready", "C: A1 CAPABILITY", `S: * CAPABILITY IMAP4rev1 STARTTLS\nA1 OK`, "C: A2 STARTTLS", "S: A2 OK go", "DROP"}}}
	done := server.Listen(t)
	_, err := Reader(config()).Open(t.Context(), wayTo(server.Addr, "starttls"), provider.Reading{})
	if e := mailgrant.AsError(err); e.Code != mailgrant.Unavailable || e.Finding == nil || e.Finding.Cause != "network-unreachable" {
		t.Errorf("got %v, %+v", err, e.Finding)
	}
	if err := done(); err != nil {
		t.Error(err)
	}
}

// end hears the farewell.
func end(_ net.Conn, r *bufio.Reader) error {
	got, _ := io.ReadAll(r)
	if s := strings.TrimPrefix(string(got), "DONE\r\n"); s != "" && !strings.HasSuffix(s, " LOGOUT\r\n") || strings.Count(s, "\n") > 1 {
		return fmt.Errorf("at the end: got %q", got)
	}
	return nil
}

// A player does what a dialogue says, as the program would.
type player struct {
	t      *testing.T
	d      wiretest.Dialogue
	w      provider.Way
	inbox  provider.Inbox
	cursor provider.Cursor
}

func (p *player) reading() provider.Reading {
	var r provider.Reading
	for _, f := range strings.Split(p.d.Get("folders"), ",") {
		if f = strings.TrimSpace(f); f != "" {
			r.Folders = append(r.Folders, f)
		}
	}
	if s := p.d.Get("since"); s != "" {
		r.Since, _ = time.Parse(time.RFC3339, s)
	}
	r.Max, _ = strconv.ParseInt(p.d.Get("max"), 10, 64)
	r.Poll, _ = time.ParseDuration(p.d.Get("poll"))
	r.Known = func(_ context.Context, remotes []string) (map[string]bool, error) {
		m := map[string]bool{}
		for _, n := range remotes {
			m[n] = strings.Contains(" "+p.d.Get("known")+" ", " "+n+" ")
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
		if !in.ReceivedAt.IsZero() && p.d.Get("dates") != "" {
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
