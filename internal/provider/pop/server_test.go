package pop

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/wire"
	"github.com/mailgrant/mailgrant/internal/provider/wire/wiretest"
)

// maildrop is a POP server on pipes: one mailbox of n messages, number i with the
// unique id and the text that these functions say.
type maildrop struct {
	n        int
	uid      func(i int) string
	text     func(i int) string
	capa     string
	sessions int
	gone     map[int]bool
}

func (m *maildrop) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	m.sessions++
	go m.serve(server)
	return client, nil
}

func (m *maildrop) serve(pipe net.Conn) {
	c := tls.Server(pipe, wiretest.ServerTLS())
	defer pipe.Close()
	w := bufio.NewWriterSize(c, 32<<10)
	r := bufio.NewReader(c)
	var marked []int
	fmt.Fprint(w, "+OK ready\r\n")
	for {
		if w.Flush() != nil {
			return
		}
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		words := strings.Fields(line)
		n := 0
		if len(words) > 1 {
			n, _ = strconv.Atoi(words[1])
		}
		switch words[0] {
		case "CAPA":
			fmt.Fprintf(w, "+OK\r\nSASL XOAUTH2\r\nTOP\r\nUIDL\r\n%s.\r\n", m.capa)
		case "AUTH":
			fmt.Fprint(w, "+ \r\n")
			w.Flush()
			r.ReadString('\n')
			fmt.Fprint(w, "+OK\r\n")
		case "STAT":
			fmt.Fprintf(w, "+OK %d 0\r\n", m.n)
		case "UIDL", "LIST":
			fmt.Fprint(w, "+OK\r\n")
			for i := 1; i <= m.n; i++ {
				switch {
				case m.gone[i]:
				case words[0] == "UIDL":
					fmt.Fprintf(w, "%d %s\r\n", i, m.uid(i))
				default:
					fmt.Fprintf(w, "%d %d\r\n", i, len(m.text(i)))
				}
			}
			fmt.Fprint(w, ".\r\n")
		case "TOP":
			head, _, _ := strings.Cut(m.text(n), "\r\n\r\n")
			fmt.Fprintf(w, "+OK\r\n%s\r\n\r\n.\r\n", head)
		case "RETR":
			fmt.Fprintf(w, "+OK\r\n%s.\r\n", stuffed(m.text(n)))
		case "DELE":
			marked = append(marked, n)
			fmt.Fprint(w, "+OK\r\n")
		case "QUIT":
			for _, i := range marked {
				m.gone[i] = true
			}
			fmt.Fprint(w, "+OK bye\r\n")
			w.Flush()
			return
		default:
			fmt.Fprint(w, "-ERR what?\r\n")
		}
	}
}

// stuffed is a text as it goes over the line, without its final dot.
func stuffed(text string) string {
	if strings.HasPrefix(text, ".") {
		text = "." + text
	}
	text = strings.ReplaceAll(text, "\r\n.", "\r\n..")
	if text != "" && !strings.HasSuffix(text, "\r\n") {
		text += "\r\n"
	}
	return text
}

// open opens the mailbox.
func (m *maildrop) open(t testing.TB, r provider.Reading) *inbox {
	t.Helper()
	if m.gone == nil {
		m.gone = map[int]bool{}
	}
	w := wayTo("127.0.0.1:995", "tls")
	w.Dial = m.dial
	c := config()
	c.limits = usual
	b, err := Reader(c).Open(t.Context(), w, r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b.(*inbox)
}

// readAll reads to the end and says how many pages that took.
func readAll(t testing.TB, b *inbox, take func(provider.Incoming) error) (pages int) {
	t.Helper()
	for more := true; more; pages++ {
		var err error
		if _, more, err = b.Next(t.Context(), "", take); err != nil {
			t.Fatal(err)
		}
	}
	return pages
}

func uidOf(i int) string { return fmt.Sprintf("%08x%032x", i, i*7919) }

func dated(i int) string {
	return "Received: by mx.example; Mon, 2 Nov 2026 10:00:00 +0000\r\nSubject: " + strconv.Itoa(i) + "\r\n\r\n.\r\n"
}

// TestFiveThousandMessages: all of them are taken once, in their order, and the
// next session asks for none of them.
func TestFiveThousandMessages(t *testing.T) {
	m := &maildrop{n: 5000, uid: uidOf, text: dated}
	led := newLedger(t)
	b := m.open(t, led.reading())
	var got []string
	take := func(in provider.Incoming) error {
		text, err := io.ReadAll(in.Body)
		if err != nil || string(text) != dated(len(got)+1) || in.ReceivedAt.Day() != 2 {
			t.Errorf("%s: %q, %v", in.Remote, text, err)
		}
		got = append(got, in.Remote)
		led.known[in.Remote] = true
		return err
	}
	if pages := readAll(t, b, take); pages != 5000/usual.page+1 && pages != 5000/usual.page || len(got) != 5000 || m.sessions != 1 {
		t.Errorf("%d messages in %d pages and %d sessions", len(got), pages, m.sessions)
	}
	m.n++
	readAll(t, b, take)
	if len(got) != 5001 || m.sessions != 2 || !slices.IsSorted(got) {
		t.Errorf("then %d messages in %d sessions", len(got), m.sessions)
	}
}

// Messages that are left alone are asked for their dates once, not at each poll.
func TestOldMessagesAreLookedAtOnce(t *testing.T) {
	m := &maildrop{n: 3000, uid: uidOf, text: func(i int) string {
		if i == 2000 {
			return "Date: Sat, 21 Nov 2026 10:00:00 +0000\r\n\r\nnew\r\n"
		}
		return dated(i)
	}}
	led := newLedger(t)
	r := led.reading()
	r.Since = time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)
	b := m.open(t, r)
	old, fresh := 0, 0
	take := func(in provider.Incoming) error {
		if in.Body == nil && in.ReceivedAt.Before(r.Since) {
			old++
		} else {
			fresh++
		}
		led.known[in.Remote] = true
		return nil
	}
	readAll(t, b, take)
	readAll(t, b, take)
	if old != 2999 || fresh != 1 {
		t.Errorf("%d old and %d new", old, fresh)
	}
}

// IM-06: 100,000 messages stay within 16 MiB, and beyond the limit it is said so.
func TestIM06HundredThousandMessages(t *testing.T) {
	m := &maildrop{n: 100_000, uid: uidOf, text: func(int) string { return "x\r\n" }}
	known := provider.Reading{Known: func(_ context.Context, l []string) (map[string]bool, error) {
		all := map[string]bool{}
		for _, k := range l {
			all[k] = k != uidOf(99_999)
		}
		return all, nil
	}, Gone: func(context.Context, []string) error { return nil }}
	b := m.open(t, known)
	before := heap()
	var got []string
	readAll(t, b, func(in provider.Incoming) error { got = append(got, in.Remote); return nil })
	grew := heap() - before
	if t.Logf("a session of 100,000 messages holds %d KiB", grew>>10); grew > 16<<20 {
		t.Error("that is more than 16 MiB")
	}
	if !slices.Equal(got, []string{uidOf(99_999)}) {
		t.Errorf("got %v", got)
	}
	b.Close()
	b.c.limits.entries, m.n = 10, 11
	_, _, err := b.Next(t.Context(), "", func(provider.Incoming) error { return nil })
	if e := mailgrant.AsError(err); e == nil || e.Code != mailgrant.Misset || e.Remedy == "" {
		t.Errorf("got %v", err)
	}
}

func heap() int64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}

// Between two polls the mailbox is free, and two logins are as far apart as the
// server wants them to be.
func TestWaitPollsAndKeepsLoginDelay(t *testing.T) {
	for _, c := range []struct {
		capa string
		poll time.Duration
		want time.Duration
	}{{"", 0, time.Minute}, {"", 10 * time.Second, 10 * time.Second}, {"LOGIN-DELAY 300\r\n", 0, 5 * time.Minute}, {"LOGIN-DELAY 300\r\n", time.Hour, time.Hour},
		{"LOGIN-DELAY 99999999999\r\n", 0, time.Hour}, {"LOGIN-DELAY 4000000000\r\n", 0, time.Hour}, {"LOGIN-DELAY 20 USER\r\n", time.Second, 20 * time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			m := &maildrop{n: 1, uid: uidOf, text: dated, capa: c.capa}
			led := newLedger(t)
			r := led.reading()
			r.Poll = c.poll
			b := m.open(t, r)
			defer b.Close()
			readAll(t, b, led.take)
			began := time.Now()
			if err := b.Wait(t.Context()); err != nil || time.Since(began) != c.want || b.s != nil {
				t.Errorf("%q, %v: waited %v, %v", c.capa, c.poll, time.Since(began), err)
			}
		})
	}
}

// What is done after reading ends the session; the next one waits for its time.
func TestDeletingKeepsLoginDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &maildrop{n: 3, uid: uidOf, text: dated, capa: "LOGIN-DELAY 60\r\n"}
		led := newLedger(t)
		b := m.open(t, led.reading())
		defer b.Close()
		readAll(t, b, led.take)
		began := time.Now()
		if err := b.Done(t.Context(), []string{uidOf(1), uidOf(2)}, mailgrant.AfterDelete, ""); err != nil || time.Since(began) > 0 {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		if err := b.Done(t.Context(), []string{uidOf(3)}, mailgrant.AfterDelete, ""); err != nil || time.Since(began) != time.Minute {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, _, err := b.Next(ctx, "", led.take); !errors.Is(err, context.DeadlineExceeded) || m.sessions != 2 {
			t.Errorf("%v in session %d", err, m.sessions)
		}
		if len(m.gone) != 3 {
			t.Errorf("deleted are %v", m.gone)
		}
	})
}

// An error of take comes back as it is, and the session goes on where it can.
func TestErrorOfTakeComesBackAsItIs(t *testing.T) {
	m := &maildrop{n: 2, uid: uidOf, text: dated}
	led := newLedger(t)
	b := m.open(t, led.reading())
	full := errors.New("disk full")
	for _, read := range []int64{0, 5, 1 << 20} {
		_, _, err := b.Next(t.Context(), "", func(in provider.Incoming) error {
			io.CopyN(io.Discard, in.Body, read)
			return full
		})
		if err != full {
			t.Errorf("got %v", err)
		}
	}
	readAll(t, b, led.take)
	if len(led.said) != 2 || m.sessions != 1 {
		t.Errorf("then got %q in %d sessions", led.said, m.sessions)
	}
}

// What dots reads of anything is what was put in, in whatever pieces it comes.
func TestIM06DotsInAllPieces(t *testing.T) {
	for _, text := range []string{"", "\r\n", ".\r\n", "..\r\n.\r\n", "a\r\n.b\r\n", "a\n.\r\nb\r\n", "a\r.\r\n", "\r\r\n.\r\n", "no end\r\n", "\x00\xff\r\n", "\n.\n.\r\n"} {
		wire := stuffed(text) + ".\r\n+OK next\r\n"
		for size := 1; size < 20; size++ {
			r := bufio.NewReaderSize(&pieces{[]byte(wire), size}, 16)
			d := newDots(r, 1<<20)
			var got bytes.Buffer
			_, err := io.CopyBuffer(struct{ io.Writer }{&got}, struct{ io.Reader }{d}, make([]byte, size))
			rest, _ := io.ReadAll(r)
			if err != nil || got.String() != text || string(rest) != "+OK next\r\n" || !d.whole() {
				t.Errorf("%q by %d: got %q, %v, and then %q", text, size, got.String(), err, rest)
			}
		}
	}
	for _, wire := range []string{"", "a", "a\r\n", "a\r\n.", "a\r\n.\r", ".\n", "a\n.\n", "a\n.\r\n"} {
		d := newDots(bufio.NewReader(strings.NewReader(wire)), 1<<20)
		if got, err := io.ReadAll(d); err != io.ErrUnexpectedEOF || d.whole() {
			t.Errorf("%q ended as %q, %v", wire, got, err)
		}
	}
	d := newDots(bufio.NewReader(strings.NewReader("abc\r\n.\r\n")), 4)
	if _, err := io.ReadAll(d); !errors.Is(err, provider.ErrTooLarge) {
		t.Errorf("more than is taken: got %v", err)
	}
}

// pieces gives its bytes a few at a time.
type pieces struct {
	b    []byte
	size int
}

func (p *pieces) Read(to []byte) (int, error) {
	if len(p.b) == 0 {
		return 0, io.EOF
	}
	n := copy(to, p.b[:min(p.size, len(p.b))])
	p.b = p.b[n:]
	return n, nil
}

// FuzzDots: whatever a sender writes, the reader gets it as it was and ends where
// the server does.
func FuzzDots(f *testing.F) {
	for _, s := range []string{"a\r\n.\r\nb", "\n.\n", "..", "\r\n.\r", ".\r\n.\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		wire := stuffed(string(text))
		want := string(text)
		if want != "" && !strings.HasSuffix(want, "\r\n") {
			want += "\r\n"
		}
		r := bufio.NewReaderSize(strings.NewReader(wire+".\r\n+OK"), 16)
		d := newDots(r, 1<<20)
		got, err := io.ReadAll(d)
		rest, _ := io.ReadAll(r)
		if err != nil || string(got) != want || string(rest) != "+OK" {
			t.Errorf("got %q, %v, and then %q", got, err, rest)
		}
	})
}

// FuzzSession: a server may say what it wants; the reader ends, and takes nothing
// twice in a session.
func FuzzSession(f *testing.F) {
	f.Add([]byte("+OK ready\r\n+OK\r\nSASL XOAUTH2\r\nTOP\r\nUIDL\r\n.\r\n+ \r\n+OK\r\n+OK 2 2\r\n+OK\r\n1 a\r\n2 b\r\n.\r\n+OK\r\n1 1\r\n2 1\r\n.\r\n+OK\r\nDate: x\r\n\r\n.\r\n+OK\r\nx\r\n.\r\n+OK\r\ny\r\n.\r\n+OK\r\n+OK\r\n"))
	f.Add([]byte("+OK\r\n-ERR\r\n+ eyJ=\r\n-ERR [AUTH] no\r\n"))
	f.Add([]byte("+OK\r\n-ERR\r\n+\r\n+OK\r\n+OK\r\n-ERR\r\n+OK\r\n1 1\r\n1 1\r\n4294967295 9\r\n.\r\n-ERR\r\n+OK\r\n..\r\n.\r\n"))
	f.Fuzz(func(t *testing.T, script []byte) {
		b := &inbox{c: Config{}.ready(), way: wayTo("127.0.0.1:995", "tls")}
		b.way.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, io.EOF }
		client, server := net.Pipe()
		defer server.Close()
		go io.Copy(io.Discard, server)
		go func() {
			server.Write(script)
			server.Close()
		}()
		// As far as TLS: the rest is what a server can say to somebody.
		s := newSession(b.c, b.way)
		s.Conn, s.r = wire.NewConn(client), bufio.NewReader(client)
		seen := map[string]bool{}
		b.r = provider.Reading{Max: 1 << 10, Since: time.Unix(1, 0), Known: func(context.Context, []string) (map[string]bool, error) { return seen, nil },
			Gone: func(context.Context, []string) error { return nil }}
		defer client.Close()
		if _, err := s.reply(); err != nil || s.capa() != nil {
			return
		}
		if f, err := s.prove(); f != nil || err != nil {
			return
		}
		b.s = s
		for range 3 {
			_, _, err := b.Next(t.Context(), "", func(in provider.Incoming) error {
				if in.Remote == "" || seen[in.Remote] {
					t.Errorf("taken as %q", in.Remote)
				}
				if in.Body != nil {
					if n, err := io.Copy(io.Discard, in.Body); err != nil || n > 1<<10 {
						return err
					}
				}
				seen[in.Remote] = true
				return nil
			})
			if err != nil {
				return
			}
		}
		b.Done(t.Context(), []string{"a"}, mailgrant.AfterDelete, "")
	})
}
