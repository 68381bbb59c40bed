package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
	"github.com/mailgrant/mailgrant/internal/vault"
	"github.com/mailgrant/mailgrant/sim"
	"github.com/mailgrant/mailgrant/test/real"
)

const (
	clusterBoxes = 20

	// takenOver is what is promised from a node's death to another's first letter.
	takenOver = 15 * time.Second

	// handOver is how long two sessions of a mailbox may overlap: the goodbye to a
	// server is on its way. One that was frozen may take a heartbeat longer.
	handOver = time.Second
	thawed   = 5 * time.Second
)

// A pair is two nodes over one PostgreSQL that read the same mailboxes.
type pair struct {
	t       *testing.T
	sim     *sim.Sim
	app     *application
	nodes   [2]*world
	lives   [2]*process
	boxes   []string
	letters map[string][]byte
}

func newPair(t *testing.T) *pair {
	t.Helper()
	first := newWorld(t)
	c := &pair{t: t, sim: first.sim, app: newApplication(t), letters: map[string][]byte{}}
	for n := range clusterBoxes {
		c.boxes = append(c.boxes, fmt.Sprintf("case-%d@contoso.example", n))
	}
	first.must(first.sim.World().Update(func(s *sim.State) error {
		for _, a := range c.boxes {
			s.Tenants[0].Mailboxes = append(s.Tenants[0].Mailboxes, &sim.Mailbox{Address: a, Shared: true})
		}
		s.Tenants[0].Principals[0].FullAccess = append(s.Tenants[0].Principals[0].FullAccess, c.boxes...)
		return nil
	}))
	master := filepath.Join(t.TempDir(), "master.key")
	first.must(os.WriteFile(master, []byte(vault.NewMasterKey()), 0o600))
	first.cfg.Database, first.cfg.MasterKey.File = real.Postgres(t), master
	first.readsSim(c.app, mailgrant.Receive{Protocol: "imap", After: mailgrant.AfterDelete}, c.boxes...)
	second := &world{t: t, sim: first.sim, cfg: first.cfg, key: first.key}
	second.cfg.Dir = settings(t).Dir
	c.nodes = [2]*world{first, second}
	for n := range c.nodes {
		c.start(n)
	}
	return c
}

func (c *pair) start(n int) {
	c.t.Helper()
	p, err := c.nodes[n].start("")
	c.nodes[n].must(err)
	c.lives[n] = p
	c.t.Cleanup(p.kill)
}

// balanced waits until both nodes read some of the mailboxes, and all are read.
func (c *pair) balanced() {
	c.t.Helper()
	c.nodes[0].must(real.Await(func() error {
		var reads [2]int
		for n, w := range c.nodes {
			api := client.Local(w.cfg.Socket())
			for _, a := range c.boxes {
				s, err := api.Reader(c.t.Context(), a)
				if err != nil {
					return err
				}
				if s.State == mailgrant.ReaderWaiting {
					reads[n]++
				}
			}
		}
		if reads[0] == 0 || reads[1] == 0 || reads[0]+reads[1] != clusterBoxes {
			return fmt.Errorf("the nodes read %v of the mailboxes", reads)
		}
		return nil
	}))
}

// send brings a letter to each mailbox.
func (c *pair) send() {
	c.t.Helper()
	for _, a := range c.boxes {
		n := len(c.letters)
		c.letters[subject(n)] = letter(reader, a, n)
		_, err := c.sim.DeliverMail(sim.Delivery{To: a, Raw: c.letters[subject(n)], AsIs: true})
		c.nodes[0].must(err)
	}
}

// all waits until a node shows as many arrivals as there are letters.
func (c *pair) all(n int) []mailgrant.Arrival {
	c.t.Helper()
	api := client.New(c.lives[n].rest, c.nodes[n].key)
	var l []mailgrant.Arrival
	c.nodes[n].must(real.Await(func() (err error) {
		if l, err = arrivals(c.t.Context(), api); err == nil && len(l) < len(c.letters) {
			err = fmt.Errorf("%d of %d messages are in the mail table", len(l), len(c.letters))
		}
		return err
	}))
	return l
}

// untold says what is known of arrivals that the application was not told of.
func (c *pair) untold(l []mailgrant.Arrival) {
	c.t.Helper()
	ids, _, _ := c.app.heard()
	for _, a := range l {
		if ids[a.ID] == nil {
			c.t.Logf("%s in %s, noticed at %s, was not told", a.Subject, a.Mailbox, a.NoticedAt.Format(time.TimeOnly))
		}
	}
	for n, w := range c.nodes {
		api := client.Local(w.cfg.Socket())
		h, err := api.Webhook(c.t.Context(), "cases")
		c.t.Logf("node %d: the webhook is %+v, %v", n, h, err)
		d, err := api.Deliveries(c.t.Context(), "cases", false, "", 20)
		c.t.Logf("node %d: the last tries were %+v, %v", n, d.Items, err)
	}
}

// A usher sees at the server how long mailboxes have more than one session.
type usher struct {
	since   map[string]time.Time
	longest time.Duration // since begin
	most    int           // sessions of one mailbox at once
	mu      sync.Mutex
}

// watch looks until ctx ends.
func (u *usher) watch(ctx context.Context, s *sim.Sim) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		u.look(s.Sessions(), time.Now())
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

func (u *usher) look(sessions map[string]int, now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for a, n := range sessions {
		u.most = max(u.most, n)
		if n < 2 {
			delete(u.since, a)
		} else if u.since[a].IsZero() {
			u.since[a] = now
		}
		if n > 1 {
			u.longest = max(u.longest, now.Sub(u.since[a]))
		}
	}
}

// begin counts anew, and says what was the longest until now, and the most.
func (u *usher) begin() (longest time.Duration, most int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	longest, most = u.longest, u.most
	u.since, u.longest, u.most = map[string]time.Time{}, 0, 0
	return longest, most
}

// TestChaosCluster kills and freezes one of two nodes that read mailboxes together.
// The other takes over in time; a mailbox never has two readers for longer than
// the hand-over takes, and the application sees each message exactly once.
func TestChaosCluster(t *testing.T) {
	t.Parallel()
	c := newPair(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 4))
	u := &usher{since: map[string]time.Time{}}
	ctx, stop := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	watching.Go(func() { u.watch(ctx, c.sim) })
	defer watching.Wait()
	defer stop()
	c.balanced()
	var took []string
	for i := range max(cycles()/8, 3) {
		victim := r.IntN(2)
		c.send()
		<-time.After(time.Duration(r.IntN(200)) * time.Millisecond) // somewhere in the middle of it
		began, p := time.Now(), c.lives[victim]
		freeze := i%3 == 1
		if freeze {
			p.cmd.Process.Signal(syscall.SIGSTOP)
		} else {
			p.kill()
		}
		c.send()
		c.all(1 - victim)
		d := time.Since(began)
		took = append(took, d.Round(100*time.Millisecond).String())
		if d > takenOver {
			t.Errorf("round %d: the other node had all letters after %v", i, d)
		}
		most := handOver
		if freeze {
			u.begin() // its sessions stand as long as it is frozen
			c.send()
			p.cmd.Process.Signal(syscall.SIGCONT)
			most = thawed
		} else {
			c.start(victim)
		}
		c.balanced()
		if d, n := u.begin(); d > most || n > 2 {
			t.Errorf("round %d: a mailbox had %d readers, and more than one for %v", i, n, d)
		}
	}
	c.send()
	l := c.all(0)
	w := c.nodes[0]
	if err := real.Await(func() error {
		if ids, _, _ := c.app.heard(); len(ids) < len(c.letters) {
			return fmt.Errorf("%d of %d messages were told", len(ids), len(c.letters))
		}
		return nil
	}); err != nil {
		c.untold(l)
		t.Fatal(err)
	}
	w.must(real.Await(func() error {
		for _, a := range c.boxes {
			if n := len(c.sim.Mail(a)); n > 0 {
				return fmt.Errorf("%d messages of %s are not deleted", n, a)
			}
		}
		return nil
	}))
	ids, twice, _ := c.app.heard()
	seen := seeOnce(t, client.New(c.lives[0].rest, w.key), l, c.letters, ids)
	t.Logf("%d messages: %d seen once, %d told more than once; taken over after %s", len(c.letters), seen, twice, strings.Join(took, ", "))
}
