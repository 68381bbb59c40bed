package submission_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/mailgrant/mailgrant/internal/serve/submission"
)

// forged is what a smuggler wants to be read as commands.
const forged = "MAIL FROM:<boss@example.com>\r\nRCPT TO:<b@example.org>\r\nDATA\r\nforged\r\n.\r\nQUIT\r\n"

// cuts gives s whole, in two pieces at each place, and octet by octet.
func cuts(s string, use func(pieces ...string)) {
	use(s)
	for i := 1; i < len(s); i++ {
		use(s[:i], s[i:])
	}
	use(strings.Split(s, "")...)
}

const bareAnswer = "554 5.5.2 a bare CR or LF: lines end in CRLF. Correct the program that wrote this\r\n"

func TestSM01_NoBareLineEndEndsAMessage(t *testing.T) {
	for _, end := range []string{"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r\n.\r", "\r.\r\n", "\n\n.\r\n", "\r\n\n.\r\n", "\r\r\n.\r\n", "\n.\r",
		"\r\n\r.\r\n", "\r\n.\r\r\n", "\r\n..\n", "\n", "\r", "\r\n.\n\r\n.\r\n", "\r\n.\r\x00\n", "\n\r.\n\r"} {
		t.Run(fmt.Sprintf("%q", end), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, nil)
				p := r.pipes(submission.Insecure)
				cuts("Subject: x\r\n\r\nHi"+end+forged, func(pieces ...string) {
					c := p.dial(t, "127.0.0.1")
					c.begin(t)
					if got := c.rest(pieces...); got != bareAnswer {
						t.Fatalf("%q: got %q", pieces, got)
					}
				})
				if got := r.outbox.messages(); len(got) != 0 {
					t.Errorf("accepted: %+v", got)
				}
			})
		})
	}
}

// begin goes from the greeting to the bytes of a message.
func (c *client) begin(t *testing.T) {
	t.Helper()
	c.login(t)
	c.says(t, "MAIL FROM:<a@example.com>", "250 ")
	c.says(t, "RCPT TO:<b@example.org>", "250 ")
	c.says(t, "DATA", "354 ")
}

// What looks like an end and is none stays text.
func TestSM01_TextStaysText(t *testing.T) {
	for _, s := range []struct{ said, kept string }{
		{"Hi\r\n\x00.\r\n", "Hi\r\n\x00.\r\n"},
		{"Hi\r\n.\x00\r\n", "Hi\r\n\x00\r\n"},
		{"Hi\r\n. \r\n", "Hi\r\n \r\n"},
		{"Hi\r\n .\r\n", "Hi\r\n .\r\n"},
		{"Hi\r\n..\r\n", "Hi\r\n.\r\n"},
		{"Hi\r\n...\r\n", "Hi\r\n..\r\n"},
		{"Hi\r\n\x0b.\x0c\r\n", "Hi\r\n\x0b.\x0c\r\n"},
		{"Hi\r\n\xc2\x85.\xe2\x80\xa8\r\n", "Hi\r\n\xc2\x85.\xe2\x80\xa8\r\n"}, // NEL and LINE SEPARATOR
		{"..\r\n", ".\r\n"},
		{"", ""},
	} {
		t.Run(fmt.Sprintf("%q", s.said), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, nil)
				p := r.pipes(submission.Insecure)
				n := 0
				cuts(s.said+".\r\nQUIT\r\n", func(pieces ...string) {
					c := p.dial(t, "127.0.0.1")
					c.begin(t)
					got := c.rest(pieces...)
					if got != "250 2.0.0 accepted as msg_00000000000000000000000000\r\n221 2.0.0 bye\r\n" {
						t.Fatalf("%q: got %q", pieces, got)
					}
					n++
				})
				all := r.outbox.messages()
				if len(all) != n {
					t.Fatalf("%d messages, want %d", len(all), n)
				}
				for _, m := range all {
					if m.body != s.kept {
						t.Fatalf("got %q, want %q", m.body, s.kept)
					}
				}
			})
		})
	}
}

// A command is the same however it is cut, and a bare CR or LF in one ends all.
func TestSM01_CommandsInAllPieces(t *testing.T) {
	for _, c := range []struct{ said, want string }{
		{"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nRSET\r\nQUIT\r\n", "250 2.1.0 ok\r\n250 2.1.5 ok\r\n250 2.0.0 ok\r\n221 2.0.0 bye\r\n"},
		{"NOOP\nMAIL FROM:<a@example.com>\r\n", bareAnswer},
		{"NOOP\rQUIT\r\n", bareAnswer},
		{"NOOP\r\r\n", bareAnswer},
		{"NOOP\r\n\nNOOP\r\n", "250 2.0.0 ok\r\n" + bareAnswer},
		{"RSET\r\n\rNOOP\n", "250 2.0.0 ok\r\n" + bareAnswer},
	} {
		t.Run(fmt.Sprintf("%q", c.said), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, nil)
				p := r.pipes(submission.Insecure)
				cuts(c.said, func(pieces ...string) {
					cl := p.dial(t, "127.0.0.1")
					cl.login(t)
					if got := cl.rest(pieces...); got != c.want {
						t.Fatalf("%q: got %q, want %q", pieces, got, c.want)
					}
				})
			})
		})
	}
}

// What is in the same segment as STARTTLS never counts, wherever it is cut.
func TestSM04_NothingBeforeTLSCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		p := r.pipes(submission.StartTLS)
		inject := "EHLO evil\r\nAUTH PLAIN " + goodKey + "\r\nMAIL FROM:<a@example.com>\r\n"
		for i := range len(inject) + 1 {
			c := p.dial(t, "127.0.0.1")
			c.wants(t, "220 ")
			got := c.rest("STARTTLS\r\n"+inject[:i], inject[i:])
			if i == 0 && got != "220 2.0.0 go ahead\r\n" && !strings.HasPrefix(got, "220 2.0.0 go ahead\r\n\x15") ||
				i > 0 && got != "421 4.7.0 nothing may follow STARTTLS before the handshake\r\n" {
				t.Fatalf("at %d: got %q", i, got)
			}
		}
		if got := r.access.tried(); len(got) != 0 {
			t.Errorf("logins: %q", got)
		}
	})
}

func TestPipelinedAnswersLeaveTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		c := r.pipes(submission.Insecure).dial(t, "127.0.0.1")
		c.login(t)
		c.write(t, "MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nRCPT TO:<c@example.org>\r\nDATA\r\n")
		c.hears(t, "250 2.1.0 ok\r\n250 2.1.5 ok\r\n250 2.1.5 ok\r\n354 go ahead, end with CRLF.CRLF\r\n")
		c.write(t, "Hi\r\n.\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nQU")
		c.hears(t, "250 2.0.0 accepted as msg_00000000000000000000000000\r\n250 2.1.0 ok\r\n250 2.1.5 ok\r\n")
		c.write(t, "IT\r\n")
		c.hears(t, "221 2.0.0 bye\r\n")
	})
}

// More commands than a buffer holds are answered one by one, wherever the end of
// a buffer cuts them, and behind a message too.
func TestLongPipelines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		p := r.pipes(submission.Insecure)
		var said, want strings.Builder
		for i := range 20 {
			said.WriteString("MAIL FROM:<a@example.com>\r\n")
			want.WriteString("250 2.1.0 ok\r\n")
			for j := range 20 + i {
				fmt.Fprintf(&said, "RCPT TO:<recipient%d@example.org>\r\n", j)
				want.WriteString("250 2.1.5 ok\r\n")
			}
			said.WriteString("RSET\r\n")
			want.WriteString("250 2.0.0 ok\r\n")
		}
		said.WriteString("QUIT\r\n")
		want.WriteString("221 2.0.0 bye\r\n")
		c := p.dial(t, "127.0.0.1")
		c.login(t)
		if got := c.rest(said.String()); got != want.String() {
			t.Errorf("got %q", got)
		}
		c = p.dial(t, "127.0.0.1")
		c.begin(t)
		const accepted = "250 2.0.0 accepted as msg_00000000000000000000000000\r\n"
		if got := c.rest("Hi\r\n.\r\n" + said.String()); got != accepted+want.String() {
			t.Errorf("behind a message: got %q", got)
		}
	})
}

// hears wants exactly that in one write.
func (c *client) hears(t *testing.T, want string) {
	t.Helper()
	b := make([]byte, 64<<10)
	n, err := c.nc.Read(b)
	if got := string(b[:n]); got != want || err != nil {
		t.Fatalf("got %q, %v, want %q", got, err, want)
	}
}
