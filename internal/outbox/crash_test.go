package outbox_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/outbox"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/vault"
)

// What the process that is killed is told by its environment.
const (
	victimDir = "MAILGRANT_TEST_VICTIM_DIR"
	victimKey = "MAILGRANT_TEST_VICTIM_KEY"
	victimEnd = "MAILGRANT_TEST_VICTIM_END" // step and how often it is passed: "send.connect 1"
)

const victimMessages = 12

// A victim accepts and sends until it comes to its step, where it kills itself.
func victim(t *testing.T, dir string) {
	step, count, _ := strings.Cut(os.Getenv(victimEnd), " ")
	left, err := strconv.Atoi(count)
	must(t, err)
	var mu sync.Mutex
	handedOver, err := os.OpenFile(filepath.Join(dir, "handed"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(t, err)
	r := newRig(t, filepath.Join(dir, "mailgrant.db"), func(r *rig) {
		r.master = os.Getenv(victimKey)
		r.far.limits = mailgrant.Limits{Connections: 2}
		r.far.answer = func(_ int, h handed) provider.Outcome { // the other side has it from here on
			fmt.Fprintln(handedOver, h.id)
			return provider.Outcome{}
		}
		r.config = func(c *outbox.Config) {
			c.Steps = func(s string) {
				mu.Lock()
				defer mu.Unlock()
				if s != step {
					return
				}
				if left--; left == 0 {
					syscall.Kill(os.Getpid(), syscall.SIGKILL)
					select {}
				}
			}
		}
	})
	var wg sync.WaitGroup
	for door := range 3 {
		wg.Go(func() {
			for i := range victimMessages / 3 {
				name := fmt.Sprintf("m-%d-%d", door, i)
				msg := message("office@contoso.example", name)
				if i == 2 {
					msg += strings.Repeat("large\r\n", 60_000)
				}
				e := to("a@example.net")
				if i == 3 {
					e.IdempotencyKey = name
				}
				sub, err := r.accept(r.caller("rest"), e, msg)
				if err != nil {
					t.Errorf("accept: %v", err)
					return
				}
				fmt.Printf("accepted %s %s\n", sub.ID, sub.MessageID)
			}
		})
	}
	wg.Wait()
	for { // until it is killed, or the parent thinks it took too long
		r.out.Look("", "")
		if left, _ := r.store.BusyLanes(t.Context()); len(left) == 0 {
			return
		}
	}
}

func TestVictim(t *testing.T) {
	if dir := os.Getenv(victimDir); dir != "" {
		victim(t, dir)
	}
}

// A process that is killed at any step loses nothing that it accepted. What goes
// twice was past the dot, and is flagged; where Sent Items can be looked at,
// nothing goes twice.
func TestRE02KilledAtEachStep(t *testing.T) {
	for _, step := range []string{"accept.chunk", "accept.before-commit", "accept.after-commit", "send.before-begin", "send.after-begin",
		"send.connect", "send.before-bytes", "send.after-answer", "send.before-record", "send.after-record"} {
		for i, nth := range []int{1, 3} {
			if step == "send.connect" {
				nth = i + 1
			}
			t.Run(fmt.Sprintf("%s-%d", step, nth), func(t *testing.T) {
				t.Parallel()
				killedAt(t, step, nth, i == 0)
			})
		}
	}
}

func killedAt(t *testing.T, step string, nth int, looks bool) {
	dir, key := t.TempDir(), vault.NewMasterKey()
	c := exec.Command(os.Args[0], "-test.run=^TestVictim$", "-test.timeout=60s")
	c.Env = append(os.Environ(), victimDir+"="+dir, victimKey+"="+key, victimEnd+"="+step+" "+strconv.Itoa(nth))
	out, err := c.Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("it was not killed: %v\n%s", err, out)
	}
	accepted := map[mailgrant.ID]string{}
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		if f := strings.Fields(s.Text()); len(f) == 3 && f[0] == "accepted" {
			accepted[mailgrant.ID(f[1])] = f[2]
		}
	}
	before := map[string]int{}
	b, _ := os.ReadFile(filepath.Join(dir, "handed"))
	for _, id := range strings.Fields(string(b)) {
		before[id]++
	}
	now := time.Now().Add(time.Second)
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(now)) // a bubble begins in 2000
		r := newRig(t, filepath.Join(dir, "mailgrant.db"), func(r *rig) {
			r.master = key
			r.far.limits = mailgrant.Limits{Connections: 2}
			if looks {
				r.far.find = func(id string) (bool, error) { return before[id] > 0, nil }
			}
		})
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		total := map[string]int{}
		for id, n := range before {
			total[id] += n
		}
		for _, h := range r.far.list() {
			total[h.id]++
		}
		for id, messageID := range accepted {
			sub := r.wants(id, mailgrant.SubmissionDelivered)
			if total[messageID] == 0 {
				t.Errorf("%s was accepted and never sent", messageID)
			}
			if n := total[messageID]; n > 1 && !sub.Duplicate {
				t.Errorf("%s was sent %d times without the flag", messageID, n)
			}
			if a := r.attempts(id); len(a) == 0 || a[len(a)-1].Fate != mailgrant.FateDelivered {
				t.Errorf("%s: its delivery is not on record: %+v", id, a)
			}
		}
		for id, n := range total {
			if n > 2 || n > 1 && looks {
				t.Errorf("%s was sent %d times", id, n)
			}
		}
		if left, err := r.store.BusyLanes(t.Context()); err != nil || len(left) > 0 {
			t.Errorf("left over: %v, %v", left, err)
		}
	})
}
