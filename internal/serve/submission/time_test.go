package submission_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/serve/submission"
)

const (
	idleAnswer    = "421 4.4.2 nothing came for too long\r\n"
	oldAnswer     = "421 4.4.2 this session is old, connect again\r\n"
	closingAnswer = "421 4.3.2 shutting down, try again in a moment\r\n"
)

// about says whether a wait took what it should, and a deadline that was not
// moved or a farewell may differ by.
func about(t *testing.T, began time.Time, want time.Duration) {
	t.Helper()
	if got := time.Since(began); got < want-2*time.Second || got > want+2*time.Second {
		t.Errorf("it took %v, want %v", got, want)
	}
}

// drip says s octet by octet, with a pause before each, until nobody hears it.
func (c *client) drip(s string, pause time.Duration) {
	for i := range len(s) {
		time.Sleep(pause)
		if c.send(s[i:i+1]) != nil {
			return
		}
	}
}

func (c *client) send(s string) error {
	_, err := io.WriteString(c.nc, s)
	return err
}

func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newRig(t, nil).pipes(submission.Insecure).dial(t, "127.0.0.1")
		c.login(t)
		for range 3 { // each command is a new wait
			time.Sleep(4 * time.Minute)
			c.says(t, "NOOP", "250 ")
		}
		began := time.Now()
		if got := c.rest(); got != idleAnswer {
			t.Errorf("got %q", got)
		}
		about(t, began, 5*time.Minute)
	})
}

// Before the login commands buy no time.
func TestIdleBeforeLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		c := newRig(t, nil).pipes(submission.Insecure).dial(t, "127.0.0.1")
		c.wants(t, "220 ")
		for range 4 {
			time.Sleep(time.Minute)
			c.says(t, "NOOP", "250 ")
		}
		if got := c.rest(); got != idleAnswer {
			t.Errorf("got %q", got)
		}
		about(t, began, 5*time.Minute)
	})
}

func TestSessionIsNotForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		c := newRig(t, func(c *submission.Config) { c.Limits.Idle = 50 * time.Minute }).pipes(submission.Insecure).dial(t, "127.0.0.1")
		c.login(t)
		for range 2 {
			time.Sleep(14 * time.Minute)
			c.says(t, "NOOP", "250 ")
		}
		if got := c.rest(); got != idleAnswer {
			t.Errorf("got %q", got)
		}
		about(t, began, 30*time.Minute)
	})
}

// A session whose time ended during a message is told so after its answer.
func TestSessionEndsAfterItsMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *submission.Config) { c.Limits.Session = 8 * time.Minute })
		c := r.pipes(submission.Insecure).dial(t, "127.0.0.1")
		c.login(t)
		time.Sleep(4*time.Minute + 30*time.Second)
		c.says(t, "MAIL FROM:<a@example.com>", "250 ")
		c.says(t, "RCPT TO:<b@example.org>", "250 ")
		c.says(t, "DATA", "354 ")
		time.Sleep(4 * time.Minute)
		c.write(t, "Hi\r\n.\r\n")
		c.wants(t, "250 ")
		if got := c.rest(); got != oldAnswer || len(r.outbox.messages()) != 1 {
			t.Errorf("got %q", got)
		}
	})
}

// A body may take the idle time and a second for each KiB.
func TestBodyTime(t *testing.T) {
	t.Run("steady", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, nil)
			c := r.pipes(submission.Insecure).dial(t, "127.0.0.1")
			c.begin(t)
			line := strings.Repeat("x", 1022) + "\r\n"
			for range 15 { // 15 minutes, three times the idle time
				time.Sleep(time.Minute)
				c.write(t, strings.Repeat(line, 64))
			}
			c.says(t, ".", "250 ")
			if m := r.outbox.messages(); len(m) != 1 || len(m[0].body) != 15*64*1024 {
				t.Errorf("got %d messages", len(m))
			}
		})
	})
	t.Run("silent", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newRig(t, nil).pipes(submission.Insecure).dial(t, "127.0.0.1")
			c.begin(t)
			began := time.Now()
			if got := c.rest("Hi\r\n"); got != idleAnswer {
				t.Errorf("got %q", got)
			}
			about(t, began, 5*time.Minute)
		})
	})
	t.Run("no longer than a session", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newRig(t, nil).pipes(submission.Insecure).dial(t, "127.0.0.1")
			c.begin(t)
			began := time.Now()
			var wg sync.WaitGroup
			defer wg.Wait()
			wg.Go(func() {
				for c.send(strings.Repeat("x", 4096)) == nil {
					time.Sleep(4 * time.Second)
				}
			})
			if got := c.rest(); got != idleAnswer {
				t.Errorf("got %q", got)
			}
			about(t, began, 30*time.Minute)
		})
	})
}

// SM-11: octets one by one buy no time: not in a command, not in AUTH, not in a
// body, not in a handshake.
func TestSM11_Slowloris(t *testing.T) {
	for _, c := range []struct {
		name     string
		security submission.Security
		before   func(c *client, t *testing.T)
		want     string
		took     time.Duration
	}{
		{"greeting", submission.Insecure, func(c *client, t *testing.T) { c.wants(t, "220 ") }, idleAnswer, 5 * time.Minute},
		{"auth", submission.Insecure, func(c *client, t *testing.T) {
			c.wants(t, "220 ")
			c.says(t, "EHLO pc", "250 ")
			c.says(t, "AUTH PLAIN", "334 ")
		}, idleAnswer, 5 * time.Minute},
		{"command", submission.Insecure, (*client).login, idleAnswer, 5 * time.Minute},
		{"data", submission.Insecure, (*client).begin, idleAnswer, 5 * time.Minute},
		{"handshake", submission.ImplicitTLS, func(*client, *testing.T) {}, "", 30 * time.Second},
		{"starttls", submission.StartTLS, func(c *client, t *testing.T) {
			c.wants(t, "220 ")
			c.says(t, "STARTTLS", "220 ")
		}, "", 30 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, nil)
				cl := r.pipes(c.security).dial(t, "127.0.0.1")
				c.before(cl, t)
				began := time.Now()
				slow := "\x16\x03\x01\x02\x00" + strings.Repeat("x", 995)
				if c.security == submission.Insecure {
					slow = slow[5:]
				}
				var wg sync.WaitGroup
				defer wg.Wait()
				wg.Go(func() { cl.drip(slow, 10*time.Second) })
				if got := cl.rest(); got != c.want {
					t.Errorf("got %q, want %q", got, c.want)
				}
				about(t, began, c.took)
			})
		})
	}
}

// SM-11: many slow ones take the places of their own address only.
func TestSM11_SlowOnesDoNotKeepOthersOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *submission.Config) { c.Limits.BeforeLogin = 20 })
		p := r.pipes(submission.Insecure)
		var wg sync.WaitGroup
		defer wg.Wait()
		in := 0
		for range 100 {
			c := p.dial(t, "192.0.2.1")
			if strings.HasPrefix(c.line(t), "220 ") {
				in++
				wg.Go(func() { c.drip(strings.Repeat("x", 100), 10*time.Second) })
			}
		}
		if in != 20 {
			t.Errorf("%d were let in, want 20", in)
		}
		c := p.dial(t, "192.0.2.2")
		c.begin(t)
		c.says(t, "Hi\r\n.", "250 ")
		time.Sleep(7 * time.Minute) // the slow ones are gone: their time, and that of a last word nobody reads
		p.dial(t, "192.0.2.1").wants(t, "220 ")
	})
}

// Who never reads the answers is cut off when nothing leaves any more.
func TestAnswersNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		c := r.pipes(submission.Insecure).dial(t, "127.0.0.1")
		c.login(t)
		began := time.Now()
		for c.send("NOOP\r\n") == nil {
		}
		about(t, began, time.Minute)
	})
}

func TestConnectionLimits(t *testing.T) {
	const full = "421 4.7.0 too many connections, try again in a moment\r\n"
	t.Run("before login", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, func(c *submission.Config) { c.Limits.BeforeLogin = 2 })
			p := r.pipes(submission.Insecure)
			for _, n := range [][3]string{{"192.0.2.1", "192.0.2.1", "::ffff:192.0.2.1"}, {"2001:db8::1", "2001:db8::2:1", "2001:db8:0:0:ffff::1"}} {
				first, second := p.dial(t, n[0]), p.dial(t, n[1])
				second.wants(t, "220 ")
				if got := p.dial(t, n[2]).rest(); got != full {
					t.Errorf("%s: got %q", n[2], got)
				}
				first.login(t) // gives its place free
				third := p.dial(t, n[2])
				third.wants(t, "220 ")
				if got := p.dial(t, n[0]).rest(); got != full {
					t.Errorf("%s: got %q", n[0], got)
				}
				third.says(t, "QUIT", "221 ") // and so does an end
				third.rest()
				third.nc.Close()
				synctest.Wait()
				p.dial(t, n[0]).wants(t, "220 ")
			}
			if got := r.refusedCodes(); len(got) != 4 || got[0] != string(mailgrant.Limited) {
				t.Errorf("refused: %q", got)
			}
		})
	})
	t.Run("in all", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, func(c *submission.Config) { c.Limits.Connections = 2 })
			p := r.pipes(submission.Insecure)
			p.dial(t, "192.0.2.1").login(t)
			p.dial(t, "192.0.2.2").login(t)
			if got := p.dial(t, "192.0.2.3").rest(); got != full {
				t.Errorf("got %q", got)
			}
			tlsDoor := r.pipes(submission.ImplicitTLS)
			if got := tlsDoor.dial(t, "192.0.2.3").rest(); got != "" { // no clear text on a TLS port
				t.Errorf("got %q", got)
			}
		})
	})
}

// SM-07: a session ends at the fifth wrong key, and one address has so many
// sessions at once.
func TestSM07_WrongKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		p := r.pipes(submission.Insecure)
		var open []*client
		for range 100 {
			if c := p.dial(t, "192.0.2.1"); strings.HasPrefix(c.line(t), "220 ") {
				open = append(open, c)
			}
		}
		for _, c := range open {
			c.says(t, "EHLO pc", "250 ")
			got := c.rest(strings.Repeat("AUTH PLAIN AGFwcABtZ19iYWQ=\r\n", 10))
			if strings.Count(got, "535 5.7.8 ") != 5 || !strings.HasSuffix(got, "\r\n421 4.7.0 too many wrong keys\r\n") {
				t.Fatalf("got %q", got)
			}
		}
		if len(open) != 50 || len(r.access.tried()) != 5*50 || len(r.outbox.messages()) != 0 {
			t.Errorf("%d sessions, %d logins", len(open), len(r.access.tried()))
		}
	})
}

// A key that cannot be confirmed now is not taken away.
func TestConfirmUnavailable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		c := r.pipes(submission.Insecure).dial(t, "127.0.0.1")
		c.login(t)
		set := func(err error) {
			r.access.mu.Lock()
			defer r.access.mu.Unlock()
			r.access.confirm = err
		}
		set(mailgrant.Errorf(mailgrant.Unavailable, nil, "the store does not answer").Fix("try again"))
		c.says(t, "MAIL FROM:<a@example.com>", "451 4.3.0 the store does not answer. try again")
		c.says(t, "RCPT TO:<b@example.org>", "503 5.5.1 MAIL was refused")
		set(nil)
		c.says(t, "MAIL FROM:<a@example.com>", "250 ")
	})
}

// A listener that fails for want of descriptors is asked again; one that somebody
// else closed ends the door, and says so.
func TestAcceptFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		p := newPipes()
		done := make(chan error, 1)
		go func() { done <- r.Serve(p, submission.Insecure) }()
		began := time.Now()
		for range 5 {
			p.fails <- errors.New("too many open files")
		}
		p.dial(t, "127.0.0.1").login(t)
		if took := time.Since(began); took != (5+10+20+40+80)*time.Millisecond {
			t.Errorf("it took %v", took)
		}
		p.Close()
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v", err)
		}
	})
}

func TestStoreThatDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.outbox.hold = make(chan struct{})
		c := r.pipes(submission.Insecure).dial(t, "127.0.0.1")
		c.wants(t, "220 ")
		c.says(t, "EHLO pc", "250 ")
		began := time.Now()
		c.says(t, "AUTH PLAIN AGFwcABtZ19zbG93", "454 4.7.0 the key could not be checked")
		about(t, began, 10*time.Second)
		c.says(t, "AUTH PLAIN "+goodKey, "235 ")
		c.says(t, "MAIL FROM:<a@example.com>", "250 ")
		c.says(t, "RCPT TO:<b@example.org>", "250 ")
		c.says(t, "DATA", "354 ")
		began = time.Now()
		c.says(t, "Hi\r\n.", "451 4.3.0 the store does not answer")
		about(t, began, 10*time.Second)
		close(r.outbox.hold)
		c.says(t, "MAIL FROM:<a@example.com>", "250 ") // the session goes on
	})
}

func TestShutdown(t *testing.T) {
	for _, security := range []submission.Security{submission.Insecure, submission.ImplicitTLS} {
		t.Run(fmt.Sprint(security), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, nil)
				p := r.pipes(security)
				dial := func() *client {
					c := p.dial(t, "127.0.0.1")
					if security == submission.ImplicitTLS {
						c.secure(t)
					}
					return c
				}
				waiting, envelope, body, accepting := dial(), dial(), dial(), dial()
				waiting.wants(t, "220 ")
				envelope.login(t)
				envelope.says(t, "MAIL FROM:<a@example.com>", "250 ")
				body.begin(t)
				body.write(t, "Hi\r\n")
				r.outbox.hold = make(chan struct{})
				accepting.begin(t)
				accepting.write(t, "Hi\r\n.\r\n")
				synctest.Wait()

				stopped := make(chan struct{})
				go func() { r.stop(t); close(stopped) }()
				for _, c := range []*client{waiting, envelope} {
					if got := c.rest(); got != closingAnswer {
						t.Errorf("got %q", got)
					}
					c.nc.Close()
				}
				time.Sleep(time.Second)
				body.write(t, "more\r\n")
				time.Sleep(time.Second)
				close(r.outbox.hold)
				const accepted = "250 2.0.0 accepted as msg_00000000000000000000000000\r\n"
				if got := accepting.rest(); got != accepted+closingAnswer {
					t.Errorf("got %q", got)
				}
				if got := body.rest(".\r\n"); got != accepted+closingAnswer {
					t.Errorf("got %q", got)
				}
				<-stopped
				if got := r.outbox.messages(); len(got) != 2 || got[1].body != "Hi\r\nmore\r\n" {
					t.Errorf("accepted: %+v", got)
				}
				if err := r.Serve(newPipes(), security); !errors.Is(err, net.ErrClosed) {
					t.Errorf("serve after shutdown: %v", err)
				}
			})
		})
	}
}

// A message whose DATA was on its way already is let in too: the wake-up of
// Shutdown does not cut its bytes.
func TestShutdownBetweenCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.outbox.hold = make(chan struct{})
		c := r.pipes(submission.Insecure).dial(t, "127.0.0.1")
		c.login(t)
		c.write(t, "MAIL FROM:<slow@example.com>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n")
		synctest.Wait()
		stopped := make(chan struct{})
		go func() { r.stop(t); close(stopped) }()
		synctest.Wait()
		close(r.outbox.hold)
		for _, want := range []string{"250 ", "250 ", "354 "} {
			c.wants(t, want)
		}
		time.Sleep(time.Minute / 10)
		if got := c.rest("Hi\r\n.\r\n"); !strings.HasPrefix(got, "250 ") || !strings.HasSuffix(got, closingAnswer) || len(r.outbox.messages()) != 1 {
			t.Errorf("got %q", got)
		}
		<-stopped
	})
}

// What is left when the patience of Shutdown ends is cut, and not accepted.
func TestShutdownCuts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		c := r.pipes(submission.Insecure).dial(t, "127.0.0.1")
		c.begin(t)
		c.write(t, "Hi\r\n")
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		began := time.Now()
		if err := r.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		about(t, began, 3*time.Second)
		if got := c.rest(); got != "" || len(r.outbox.messages()) != 0 || r.outbox.left() != 0 {
			t.Errorf("got %q", got)
		}
	})
}

// A handshake does not hold up the end.
func TestShutdownDuringHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		c := r.pipes(submission.ImplicitTLS).dial(t, "127.0.0.1")
		synctest.Wait()
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() { c.rest() })
		began := time.Now()
		r.stop(t)
		about(t, began, time.Second)
	})
}
