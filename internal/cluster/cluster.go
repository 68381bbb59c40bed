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
	"log/slog"
	"maps"
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
	now   func() time.Time

	// Gained is called with shards this node has now, Lost with shards it has no
	// more; wait returns when nothing of those is under way. Set both before Run.
	Gained func(shards []int64)
	Lost   func(shards []int64) (wait func())

	mu      sync.RWMutex
	own     map[int64]int64 // shard to generation
	leaving map[int64]bool  // given away as soon as nothing is under way
	beat    time.Time       // the last good one
	wg      sync.WaitGroup
}

// New makes a member; Run makes it live.
func New(s Store, node mailgrant.ID, log *slog.Logger) *Member {
	return &Member{store: s, node: node, log: log, now: time.Now, own: map[int64]int64{}, leaving: map[int64]bool{},
		Gained: func([]int64) {}, Lost: func([]int64) func() { return func() {} }}
}

// Shard is the part that a mailbox falls in.
func Shard(mailbox mailgrant.ID) int64 {
	h := uint32(2166136261) // FNV-1a, in place
	for i := range len(mailbox) {
		h = (h ^ uint32(mailbox[i])) * 16777619
	}
	return int64(h % store.Shards)
}

// Fence implements Owner.
func (m *Member) Fence(mailbox mailgrant.ID) (store.Fence, bool) {
	n := Shard(mailbox)
	m.mu.RLock()
	defer m.mu.RUnlock()
	g, ok := m.own[n]
	if !ok || m.now().Sub(m.beat) > silentFor {
		return store.Fence{}, false
	}
	return store.Fence{Shard: n, Node: m.node, Generation: g}, true
}

// Run beats until ctx ends, and then gives everything back.
func (m *Member) Run(ctx context.Context) error {
	t := time.NewTicker(beatEvery)
	defer t.Stop()
	for {
		if err := m.Beat(ctx); err != nil && ctx.Err() == nil {
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

// Beat says that the node lives, and takes or gives shards until it has its
// share. It never waits for mail that is under way: whoever waits is dead soon.
func (m *Member) Beat(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, silentFor)
	defer cancel()
	at := m.now() // before it is sent: the database's clock is later
	living, err := m.store.Beat(ctx, m.node)
	if err != nil {
		return err
	}
	share := (store.Shards + max(living, 1) - 1) / max(living, 1)
	has, err := m.shards(ctx)
	if err != nil {
		return err
	}
	if len(has) < share {
		if err := m.store.ClaimShards(ctx, m.node, share-len(has)); err != nil {
			return err
		}
		if has, err = m.shards(ctx); err != nil {
			return err
		}
	}
	m.adopt(has, at)
	if len(has) > share {
		m.giveAway(len(has) - share)
	}
	return nil
}

// shards are those of this node, without the ones that are leaving.
func (m *Member) shards(ctx context.Context) (map[int64]int64, error) {
	has, err := m.store.OwnShards(ctx, m.node)
	m.mu.RLock()
	defer m.mu.RUnlock()
	for n := range m.leaving {
		delete(has, n)
	}
	return has, err
}

// adopt takes what the database says as the truth. A shard of a new generation
// was another's in between: what was under way for it is void.
func (m *Member) adopt(has map[int64]int64, at time.Time) {
	m.mu.Lock()
	var gained, lost []int64
	for n, g := range has {
		if was, ok := m.own[n]; !ok || was != g {
			gained = append(gained, n)
		}
	}
	for n, g := range m.own {
		if is, ok := has[n]; !ok || is != g {
			lost = append(lost, n)
		}
	}
	m.own, m.beat = has, at
	m.mu.Unlock()
	if len(lost) > 0 {
		m.await(m.Lost(lost), nil)
	}
	if len(gained) > 0 {
		slices.Sort(gained)
		m.wg.Go(func() { m.Gained(gained) })
	}
}

// await lets wait end beside the beats, and then calls then.
func (m *Member) await(wait, then func()) {
	m.wg.Go(func() {
		wait()
		if then != nil {
			then()
		}
	})
}

// giveAway lets newcomers have their share, after what is under way is done.
func (m *Member) giveAway(n int) {
	m.mu.Lock()
	var out []int64
	for shard := range m.own {
		if len(out) == n {
			break
		}
		out = append(out, shard)
		delete(m.own, shard)
		m.leaving[shard] = true
	}
	m.mu.Unlock()
	m.await(m.Lost(out), func() { m.release(out) })
}

func (m *Member) release(shards []int64) {
	ctx, cancel := context.WithTimeout(context.Background(), silentFor)
	defer cancel()
	err := m.store.ReleaseShards(ctx, m.node, shards)
	if err != nil {
		m.log.Warn("give shards away", "err", err) // the next beat finds them here, and does it again
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range shards {
		delete(m.leaving, n)
	}
}

func (m *Member) dropIfSilent() {
	m.mu.Lock()
	if m.now().Sub(m.beat) <= silentFor || len(m.own) == 0 {
		m.mu.Unlock()
		return
	}
	lost := slices.Collect(maps.Keys(m.own))
	m.own = map[int64]int64{}
	m.mu.Unlock()
	m.log.Error("this node cannot reach the database and stops working its mailboxes")
	m.await(m.Lost(lost), nil)
}

// leaveWithin is how long an end waits for what is under way. What is cut off is
// uncertain, and the next owner sees that.
const leaveWithin = 25 * time.Second

func (m *Member) leave() error {
	m.mu.Lock()
	all := slices.Collect(maps.Keys(m.own))
	m.own = map[int64]int64{}
	m.mu.Unlock()
	m.await(m.Lost(all), nil)
	done := make(chan struct{})
	go func() { m.wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(leaveWithin):
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return m.store.Leave(ctx, m.node)
}
