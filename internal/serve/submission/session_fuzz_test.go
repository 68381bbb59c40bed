package submission_test

import (
	"bytes"
	"io"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/serve/submission"
)

// A tape is a connection whose peer has said all it will say, piece by piece, and
// reads everything at once.
type tape struct {
	said   []byte
	pieces []byte // how long the next ones are
	heard  bytes.Buffer
	closed chan struct{}
}

func (t *tape) Read(p []byte) (int, error) {
	if len(t.said) == 0 {
		return 0, io.EOF
	}
	n := min(len(p), len(t.said))
	if len(t.pieces) > 0 {
		n = min(n, 1+int(t.pieces[0]))
		t.pieces = append(t.pieces[1:], t.pieces[0])
	}
	copy(p, t.said[:n])
	t.said = t.said[n:]
	return n, nil
}

func (t *tape) Write(p []byte) (int, error)      { return t.heard.Write(p) }
func (t *tape) Close() error                     { close(t.closed); return nil }
func (t *tape) LocalAddr() net.Addr              { return tcp("127.0.0.1") }
func (t *tape) RemoteAddr() net.Addr             { return tcp("127.0.0.1") }
func (t *tape) SetDeadline(time.Time) error      { return nil }
func (t *tape) SetReadDeadline(time.Time) error  { return nil }
func (t *tape) SetWriteDeadline(time.Time) error { return nil }

var answerLine = regexp.MustCompile(`^[2345]\d\d[ -][ -~]*$`)

// FuzzSession: whatever is said, in whatever pieces, the answers are lines of
// SMTP, nothing is accepted but by a 250 with its id, no accepted message has a
// bare CR or LF, nobody sends without a login, and no draft is left behind.
func FuzzSession(f *testing.F) {
	for _, s := range []string{
		"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n|Hi\r\n.\r\nQUIT\r\n",
		"MAIL FROM:<>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n|X-Full:\r\n.\r\nMAIL FROM:<a@evil.example>\r\nRSET\r\n",
		"MAIL FROM:<a@example.com> SIZE=1 BODY=8BITMIME\r\nRCPT TO:<b@example.org>\r\nDATA\r\n|Hi\r\n.\n",
		"AUTH PLAIN\r\n*\r\nAUTH LOGIN\r\nYXBw\r\nbWdfZ29vZA==\r\n", "STARTTLS\r\n", "BDAT 3 LAST\r\n", "GET / HTTP/1.1\r\n", "VRFY x\r\nNOOP\n", "HELO pc\r\nEHLO pc\r\n",
	} {
		f.Add([]byte(s), []byte{}, true)
		f.Add([]byte(s), []byte{0, 6}, false)
	}
	f.Fuzz(func(t *testing.T, said, pieces []byte, in bool) {
		r := newRig(t, func(c *submission.Config) {
			c.TLS = nil
			c.Limits.Message = 1 << 10
		})
		tp := &tape{pieces: bytes.Clone(pieces), closed: make(chan struct{})}
		if in {
			tp.said = []byte("EHLO pc\r\nAUTH PLAIN " + goodKey + "\r\n")
		}
		tp.said = append(tp.said, said...)
		p := r.pipes(submission.Insecure)
		p.conns <- &barred{tape: tp}
		<-tp.closed
		r.stop(t)
		heard := strings.SplitAfter(tp.heard.String(), "\r\n")
		if heard[len(heard)-1] != "" {
			t.Fatalf("half a line: %q", heard)
		}
		ids := 0
		for _, l := range heard[:len(heard)-1] {
			if len(l) > 512 || !answerLine.MatchString(strings.TrimSuffix(l, "\r\n")) {
				t.Fatalf("not a line of SMTP: %q", l)
			}
			if strings.HasPrefix(l, "250 2.0.0 accepted as msg_") {
				ids++
			}
		}
		all := r.outbox.messages()
		if ids != len(all) || len(all) > 0 && len(r.access.tried()) == 0 {
			t.Fatalf("%d messages, %d ids, %d logins", len(all), ids, len(r.access.tried()))
		}
		for _, m := range all {
			if strings.ContainsAny(strings.ReplaceAll(m.body, "\r\n", ""), "\r\n") || len(m.body) > 1<<10 || len(m.env.Recipients) == 0 || m.caller.Door != submission.Door ||
				mailgrant.ClassUser != m.env.Class {
				t.Fatalf("accepted %+v", m)
			}
		}
	})
}

// barred ends a read at each bar, which is not heard, so that a DATA may be the
// last of what there is.
type barred struct{ *tape }

func (b *barred) Read(p []byte) (int, error) {
	if i := bytes.IndexByte(b.said, '|'); i >= 0 && i < len(p) {
		if i == 0 {
			b.said = b.said[1:]
			return b.Read(p)
		}
		p = p[:i]
	}
	return b.tape.Read(p)
}
