package pop

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/wire/wiretest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func config() Config {
	l := usual
	l.connect, l.greeting, l.command, l.listing = 20*time.Second, 20*time.Second, 20*time.Second, 20*time.Second
	return Config{limits: l, TLS: wiretest.ClientTLS}
}

// wayTo is a way through a server at addr.
func wayTo(addr, security string) provider.Way {
	w := wiretest.Way()
	w.Settings.POPHost, w.Settings.POPPort = wiretest.HostPort(addr)
	w.Settings.POPSecurity, w.Settings.POPTwoLine = security, true
	return w
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

// TestDialogues: besides what all dialogues have, {long} is a long line, {300} one
// of that length and {flood} a listing without end.
func TestDialogues(t *testing.T) {
	wiretest.Each(t, func(t *testing.T, d wiretest.Dialogue) {
		t.Parallel()
		play(t, d)
	})
}

func play(t *testing.T, d wiretest.Dialogue) {
	server := &wiretest.Server{Dialogue: d, Words: []string{"{long}", strings.Repeat("x", 2<<20), "{300}", strings.Repeat("u", 300), `\xff`, "\xff"},
		Own: func(conn net.Conn, line string, words *strings.Replacer) (bool, error) {
			switch {
			case strings.HasPrefix(line, "S: {flood}"):
				flood(conn)
			case strings.Contains(line, "{long}"): // nobody needs to read it all
				io.WriteString(conn, words.Replace(line[3:])+"\r\n")
			default:
				return false, nil
			}
			return true, nil
		},
		End: func(conn net.Conn, r *bufio.Reader) error {
			got, _ := r.ReadString('\n')
			if got == "QUIT\r\n" {
				io.WriteString(conn, "+OK\r\n")
			} else if got != "" {
				return fmt.Errorf("at the end: got %q", got)
			}
			return nil
		}}
	done := server.Listen(t)
	w := wayTo(server.Addr, d.Get("security"))
	d.Set(&w)
	if d.Get("kind") == "shared" { // somebody else signed in for it
		w.Mailbox.Kind, w.Grant.Subject = mailgrant.MailboxShared, mailgrant.Subject{UPN: "robin@contoso.example"}
	}
	w.Settings.POPTwoLine = d.Get("one-line") == ""
	got := read(t, d, w)
	if err := done(); err != nil {
		t.Error(err)
	}
	if want := d.Get("want"); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
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

// read is our part; it says in one line what came of it. "do" are the steps.
func read(t *testing.T, d wiretest.Dialogue, w provider.Way) string {
	led := newLedger(t)
	for _, k := range strings.Fields(d.Get("known")) {
		led.known[k] = true
	}
	r := led.reading()
	r.Poll = time.Nanosecond
	r.Max, _ = strconv.ParseInt(d.Get("max"), 10, 64)
	if s := d.Get("since"); s != "" {
		r.Since, _ = time.Parse("2006-01-02", s)
		led.since = r.Since
	}
	c := config()
	in, err := Reader(c).Open(t.Context(), w, r)
	if err != nil {
		return "not opened: " + problem(err)
	}
	defer in.Close()
	steps := strings.Fields(d.Get("do"))
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
	said := map[string]string{"CAPA": "+OK\r\nSASL XOAUTH2\r\nTOP\r\nUIDL\r\n.", "AUTH": "+ ", "STAT": "+OK 1 10", "UIDL": "+OK\r\n1 a\r\n.", "LIST": "+OK\r\n1 10\r\n.", "RETR": "+OK\r\nSubject: x\r\n\r\nhi\r\n."}
	return wiretest.Silent(t, "+OK ready", word, func(verb string) string { return cmp.Or(said[verb], "+OK") + "\r\n" })
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
		d := wiretest.Dialogue{Head: [][2]string{{"security", security}, {"want", "not opened: misset tls-failure"}}, Lines: []string{
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
