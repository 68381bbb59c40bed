// Package cluster says who works which mailbox.
//
// The mailboxes are dealt into shards, and a living node owns each shard. A node
// lives while it beats; when it has not for ten seconds by the database's clock,
// the others take its shards, each under a new generation. Every write of an
// owner names its generation, so that a node that was frozen or cut off cannot
// write for what it lost. One heartbeat per node is all that an idle million of
// mailboxes costs.
package cluster

import (
	"context"
	"hash/fnv"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/store"
)

// An Owner knows what this node works.
type Owner interface {
	// Fence is the right to work a mailbox, and whether this node has it.
	Fence(mailbox mailgrant.ID) (store.Fence, bool)
}

// Solo owns everything: one process over SQLite.
type Solo struct{}

// Fence implements Owner.
func (Solo) Fence(mailgrant.ID) (store.Fence, bool) { return store.Fence{}, true }

// The promise is fifteen seconds from a node's death to another's first send:
// ten to be thought dead, a beat to notice it.
const (
	beatEvery = 3 * time.Second

	// silentFor is when a node that cannot beat stops by itself, well before the
	// others think it dead.
	silentFor = 7 * time.Second
)

// A Store keeps nodes and shards.
type Store interface {
	Beat(ctx context.Context, node mailgrant.ID) (living int, err error)
	OwnShards(ctx context.Context, node mailgrant.ID) (map[int64]int64, error)
	ClaimShards(ctx context.Context, node mailgrant.ID, n int) error
	ReleaseShards(ctx context.Context, node mailgrant.ID, shards []int64) error
	Leave(ctx context.Context, node mailgrant.ID) error
}

// A Member is one node of a cluster.
type Member struct {
	store Store
	node  mailgrant.ID
	log   *slog.Logger

	// Gained is called with shards this node has now, Lost with shards it is
	// about to give away; Lost returns when nothing of them is under way. Set both
	// before Run.
	Gained func(shards []int64)
	Lost   func(shards []int64)

	mu   sync.RWMutex
	own  map[int64]int64 // shard to generation
	beat time.Time       // the last good one
}

// New makes a member; Run makes it live.
func New(s Store, node mailgrant.ID, log *slog.Logger) *Member {
	none := func([]int64) {}
	return &Member{store: s, node: node, log: log, Gained: none, Lost: none, own: map[int64]int64{}}
}

// Shard is the part that a mailbox falls in.
func Shard(mailbox mailgrant.ID) int64 {
	h := fnv.New32a()
	h.Write([]byte(mailbox))
	return int64(h.Sum32() % store.Shards)
}

// Fence implements Owner.
func (m *Member) Fence(mailbox mailgrant.ID) (store.Fence, bool) {
	n := Shard(mailbox)
	m.mu.RLock()
	defer m.mu.RUnlock()
	g, ok := m.own[n]
	if !ok || time.Since(m.beat) > silentFor {
		return store.Fence{}, false
	}
	return store.Fence{Shard: n, Node: m.node, Generation: g}, true
}

// Run beats until ctx ends, and then gives everything back.
func (m *Member) Run(ctx context.Context) error {
	t := time.NewTicker(beatEvery)
	defer t.Stop()
	for {
		if err := m.once(ctx); err != nil && ctx.Err() == nil {
			m.log.Warn("heartbeat", "err", err)
			m.dropIfSilent()
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return m.leave()
		}
	}
}

func (m *Member) once(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, silentFor)
	defer cancel()
	at := time.Now() // before it is sent: the database's clock is later
	living, err := m.store.Beat(ctx, m.node)
	if err != nil {
		return err
	}
	share := (store.Shards + max(living, 1) - 1) / max(living, 1)
	now, err := m.store.OwnShards(ctx, m.node)
	if err != nil {
		return err
	}
	if len(now) < share {
		if err := m.store.ClaimShards(ctx, m.node, share-len(now)); err != nil {
			return err
		}
		if now, err = m.store.OwnShards(ctx, m.node); err != nil {
			return err
		}
	}
	m.adopt(now, at)
	if len(now) > share {
		return m.giveAway(ctx, len(now)-share)
	}
	return nil
}

// adopt takes what the database says as the truth.
func (m *Member) adopt(now map[int64]int64, at time.Time) {
	m.mu.Lock()
	var gained, lost []int64
	for n, g := range now {
		if have, ok := m.own[n]; !ok || have != g {
			gained = append(gained, n)
		}
	}
	for n := range m.own {
		if _, ok := now[n]; !ok {
			lost = append(lost, n)
		}
	}
	m.own, m.beat = now, at
	m.mu.Unlock()
	if len(lost) > 0 {
		m.Lost(lost)
	}
	if len(gained) > 0 {
		slices.Sort(gained)
		m.Gained(gained)
	}
}

// giveAway lets newcomers have their share, after what is under way is done.
func (m *Member) giveAway(ctx context.Context, n int) error {
	m.mu.Lock()
	var out []int64
	for shard := range m.own {
		if len(out) == n {
			break
		}
		out = append(out, shard)
		delete(m.own, shard)
	}
	m.mu.Unlock()
	m.Lost(out)
	return m.store.ReleaseShards(ctx, m.node, out)
}

func (m *Member) dropIfSilent() {
	m.mu.Lock()
	if time.Since(m.beat) <= silentFor || len(m.own) == 0 {
		m.mu.Unlock()
		return
	}
	var lost []int64
	for n := range m.own {
		lost = append(lost, n)
	}
	m.own = map[int64]int64{}
	m.mu.Unlock()
	m.log.Error("this node cannot reach the database and stops working its mailboxes")
	m.Lost(lost)
}

func (m *Member) leave() error {
	m.mu.Lock()
	var all []int64
	for n := range m.own {
		all = append(all, n)
	}
	m.own = map[int64]int64{}
	m.mu.Unlock()
	m.Lost(all)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return m.store.Leave(ctx, m.node)
}
