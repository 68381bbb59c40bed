package smtp

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
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
	cache := tls.NewLRUClientSessionCache(8)
	return Config{Hostname: "mail.contoso.example", limits: timeouts{20 * time.Second, 20 * time.Second, 20 * time.Second, 20 * time.Second, 20 * time.Second, 20 * time.Second},
		TLS: func(name, ca string) *tls.Config {
			c := wiretest.ClientTLS(name, ca)
			c.ClientSessionCache = cache
			return c
		}}
}

// wayTo is a way through a server at addr.
func wayTo(addr, security string) provider.Way {
	w := wiretest.Way()
	w.Settings.SMTPHost, w.Settings.SMTPPort = wiretest.HostPort(addr)
	w.Settings.SMTPSecurity = security
	return w
}

func handover(body string, to ...string) *provider.Handover {
	return &provider.Handover{From: "alex@contoso.example", Recipients: to, MessageID: "<1@contoso.example>", Size: int64(len(body)),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(body)), nil }}
}

// TestDialogues: besides what all dialogues have, {long} is a long line and {flood}
// very many.
func TestDialogues(t *testing.T) { wiretest.Each(t, play) }

func play(t *testing.T, d wiretest.Dialogue) {
	server := &wiretest.Server{Dialogue: d, Words: []string{"{long}", strings.Repeat("x", 1<<19)},
		Own: func(conn net.Conn, line string, _ *strings.Replacer) (bool, error) {
			if !strings.Contains(line, "{flood}") {
				return false, nil
			}
			_, err := io.WriteString(conn, strings.Repeat("250-more and more\r\n", 10000)+"250 end\r\n")
			return true, err
		},
		End: func(conn net.Conn, r *bufio.Reader) error {
			conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
			if got, _ := io.ReadAll(r); len(got) > 0 && string(got) != "QUIT\r\n" {
				return fmt.Errorf("at the end: got %q", got)
			}
			return nil
		}}
	done := server.Listen(t)
	w := wayTo(server.Addr, d.Get("security"))
	d.Set(&w)
	got := send(t, d, w)
	if err := done(); err != nil {
		t.Error(err)
	}
	if want := d.Get("want"); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// send is our part; it says in one line what came of it.
func send(t *testing.T, d wiretest.Dialogue, w provider.Way) string {
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
	body := strings.ReplaceAll(d.Get("body"), `\n`, "\r\n")
	body = strings.NewReplacer(`\cr`, "\r", `\lf`, "\n").Replace(body)
	if body == "" {
		body = "Subject: x\r\n\r\nHi\r\n"
	}
	to := []string{"b@example.net"}
	if r := d.Get("to"); r != "" {
		to = strings.Fields(r)
	}
	var all []string
	for range max(1, strings.Count(d.Get("messages"), "x")) {
		h := handover(body, to...)
		h.EightBit, h.UTF8 = strings.Contains(d.Get("flags"), "8bit"), strings.Contains(d.Get("flags"), "utf8")
		if f, ok := d.Find("from"); ok {
			h.From = f
		}
		h.Size = 0
		if n := d.Get("size"); n != "" {
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
