package webhook_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/store"
	"github.com/mailgrant/mailgrant/internal/vault"
	"github.com/mailgrant/mailgrant/internal/webhook"
)

// counting counts what is read.
type counting struct {
	webhook.Store
	n atomic.Int64
}

func (c *counting) config(w *webhook.Config) { c.Store, w.Store = w.Store, c }

// Events implements webhook.Store.
func (c *counting) Events(ctx context.Context, org mailgrant.ID, f store.EventFilter) ([]mailgrant.Event, error) {
	c.n.Add(1)
	return c.Store.Events(ctx, org, f)
}

// LastEvents implements webhook.Store.
func (c *counting) LastEvents(ctx context.Context) (map[mailgrant.ID]int64, error) {
	c.n.Add(1)
	return c.Store.LastEvents(ctx)
}

// What the process that is killed is told by its environment.
const (
	victimDir = "MAILGRANT_TEST_TELLER_DIR"
	victimKey = "MAILGRANT_TEST_TELLER_KEY"
	victimURL = "MAILGRANT_TEST_TELLER_URL"
	victimEnd = "MAILGRANT_TEST_TELLER_END" // step and how often it is passed
)

const victimEvents = 400

// A victim tells of events until it comes to its step, where it kills itself.
func victim(t *testing.T, dir string) {
	step, count, _ := strings.Cut(os.Getenv(victimEnd), " ")
	n, err := strconv.Atoi(count)
	must(t, err)
	var left atomic.Int64
	left.Store(int64(n))
	r := newRig(t, filepath.Join(dir, "mailgrant.db"), func(r *rig) {
		r.master, r.client = os.Getenv(victimKey), &http.Client{}
		r.config = func(c *webhook.Config) {
			c.Steps = func(s string) {
				if s == step && left.Add(-1) == 0 {
					syscall.Kill(os.Getpid(), syscall.SIGKILL)
					select {}
				}
			}
		}
	})
	r.hook("cases", func(w *mailgrant.Webhook) { w.URL = os.Getenv(victimURL) })
	var wg sync.WaitGroup
	for door := range 8 { // they share the commits
		wg.Go(func() {
			for i := range victimEvents / 8 {
				r.say(fmt.Sprint("mbx_", door), i)
				fmt.Println("added", door)
			}
		})
	}
	wg.Wait()
	select {} // until it is killed, or the parent thinks it took too long
}

func TestVictim(t *testing.T) {
	if dir := os.Getenv(victimDir); dir != "" {
		victim(t, dir)
	}
}

// A process that is killed at any step has everything told after all, in order for
// each mailbox, and not more than repeats of it again, under the same webhook-id.
func TestRE02KilledAtEachStep(t *testing.T) {
	for _, step := range []string{"webhook.before-post", "webhook.after-answer", "webhook.before-commit", "webhook.after-commit"} {
		for _, nth := range []int{1, 3} {
			if strings.Contains(step, "-post") || strings.Contains(step, "-answer") {
				nth *= 60
			}
			t.Run(fmt.Sprintf("%s-%d", step, nth), func(t *testing.T) {
				t.Parallel()
				killedAt(t, step, nth, false)
			})
		}
	}
	t.Run("one-is-slow", func(t *testing.T) { // the place passes it
		t.Parallel()
		killedAt(t, "webhook.after-answer", 300, true)
	})
}

// A ledger is a real receiver that writes down what it takes.
type ledger struct {
	mu    sync.Mutex
	ids   map[string]int
	order map[mailgrant.ID][]int64 // by mailbox: the first time of each
	other int                      // bodies under an id that differ
	body  map[string]string
}

func (l *ledger) take(id string, body []byte) {
	var p struct{ Data mailgrant.Event }
	json.Unmarshal(body, &p)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ids[id]++; l.ids[id] == 1 {
		l.order[p.Data.Mailbox] = append(l.order[p.Data.Mailbox], p.Data.Seq)
		l.body[id] = string(body)
	} else if l.body[id] != string(body) {
		l.other++
	}
}

func killedAt(t *testing.T, step string, nth int, slow bool) {
	l := &ledger{ids: map[string]int{}, order: map[mailgrant.ID][]int64{}, body: map[string]string{}}
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if slow && parse(b).Mailbox == "mbx_0" {
			<-r.Context().Done()
			return
		}
		l.take(r.Header.Get("webhook-id"), b)
	}))
	defer receiver.Close()
	dir, key := t.TempDir(), vault.NewMasterKey()
	c := exec.Command(os.Args[0], "-test.run=^TestVictim$", "-test.timeout=90s")
	c.Env = append(os.Environ(), victimDir+"="+dir, victimKey+"="+key, victimURL+"="+receiver.URL, victimEnd+"="+step+" "+strconv.Itoa(nth))
	out, err := c.Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("it was not killed: %v\n%s", err, out)
	}
	added := strings.Count(string(out), "added")
	receiver.Close()
	now := time.Now().Add(time.Second)
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(now)) // a bubble begins in 2000
		r := newRig(t, filepath.Join(dir, "mailgrant.db"), func(r *rig) { r.master = key })
		settle(10 * time.Minute)
		for _, g := range r.far.list() {
			l.take(g.id, g.body)
		}
		events := r.events("reader.failing")
		if len(events) < added || added == 0 {
			t.Errorf("%d events of %d", len(events), added)
		}
		if len(l.ids) != len(events) || l.other > 0 {
			t.Errorf("%d of %d events were told, %d again with another body", len(l.ids), len(events), l.other)
		}
		again := 0
		for _, n := range l.ids {
			again += n - 1
		}
		if again > webhook.Repeats {
			t.Errorf("%d were told again, want %d at most", again, webhook.Repeats)
		}
		for mailbox, seqs := range l.order {
			if !slices.IsSorted(seqs) {
				t.Errorf("%s: out of order: %v", mailbox, seqs)
			}
		}
	})
}
