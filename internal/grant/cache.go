package grant

import (
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mailgrant/mailgrant"
)

const (
	// renewAhead outlasts a provider's bad quarter of an hour without doubling the
	// calls we make on a good day. A token that lives shorter is renewed in the
	// last quarter of its life.
	renewAhead = 20 * time.Minute

	// goodFor is how long a token that we give is good at least.
	goodFor = time.Minute
)

// A key names an access token. The organization is part of it, so that a foreign
// id finds nothing.
type key struct {
	org, grant mailgrant.ID
	resource   string
}

// cached is an access token in memory. Only what is atomic changes.
type cached struct {
	token        mailgrant.Token
	registration mailgrant.ID
	made         time.Time
	soft         time.Time // renewed in the background from here on
	hard         time.Time // not given from here on
	renewing     atomic.Bool
	again        atomic.Int64 // no try in the background before: seconds
	used         atomic.Int64 // minute of the last use
	told         atomic.Int64 // minute the store knows of
}

// stale says whether c is to be renewed in the background, and by the caller.
func (c *cached) stale(now time.Time) bool {
	return now.After(c.soft) && now.Unix() >= c.again.Load() && c.renewing.CompareAndSwap(false, true)
}

// newCached sets the times. Jitter keeps tokens that were made together from
// being renewed together.
func newCached(t mailgrant.Token, registration mailgrant.ID, now time.Time) *cached {
	life := t.Expires.Sub(now)
	ahead := min(renewAhead, life/4)
	ahead -= time.Duration(rand.Float64() * 0.2 * float64(ahead))
	return &cached{token: t, registration: registration, made: now, soft: now.Add(life - ahead), hard: now.Add(life - min(goodFor, life/4))}
}

// touch notes the use, to the minute.
func (c *cached) touch(now time.Time) {
	if m := now.Unix() / 60; c.used.Load() != m {
		c.used.Store(m)
	}
}

// shards keep the copying small: a change copies one shard, a look takes none.
const shards = 256

type cache struct{ shard [shards]shard }

type shard struct {
	mu sync.Mutex // of writers
	m  atomic.Pointer[map[key]*cached]
}

func (c *cache) init() {
	for i := range c.shard {
		c.shard[i].m.Store(&map[key]*cached{})
	}
}

// of picks the shard by the end of the grant's id, which is random.
func (c *cache) of(id key) *shard {
	n := len(id.grant)
	if n < 3 {
		return &c.shard[0]
	}
	return &c.shard[(uint(id.grant[n-2])*31+uint(id.grant[n-3]))%shards]
}

func (c *cache) get(id key) *cached { return (*c.of(id).m.Load())[id] }

// put keeps a token. Who asks without naming a resource gets the new one as well,
// if they had the one before.
func (c *cache) put(id key, v *cached) {
	first := key{id.org, id.grant, ""}
	c.of(id).change(func(m map[key]*cached) {
		if f := m[first]; f != nil && f.token.Resource == id.resource {
			m[first] = v
		}
		m[id] = v
	})
}

// dropGrant removes the tokens of one grant.
func (c *cache) dropGrant(grant mailgrant.ID, gone func(*cached) bool) {
	c.of(key{grant: grant}).drop(func(id key, v *cached) bool { return id.grant == grant && gone(v) })
}

func all(*cached) bool { return true }

// drop removes what the function says.
func (c *cache) drop(gone func(key, *cached) bool) {
	for i := range c.shard {
		c.shard[i].drop(gone)
	}
}

func (s *shard) drop(gone func(key, *cached) bool) {
	for id, v := range *s.m.Load() {
		if gone(id, v) {
			s.change(func(m map[key]*cached) { maps.DeleteFunc(m, gone) })
			return
		}
	}
}

// each shows all entries.
func (c *cache) each(f func(key, *cached)) {
	for i := range c.shard {
		for id, v := range *c.shard[i].m.Load() {
			f(id, v)
		}
	}
}

func (s *shard) change(f func(map[key]*cached)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := *s.m.Load()
	m := make(map[key]*cached, len(old)+1)
	maps.Copy(m, old)
	f(m)
	s.m.Store(&m)
}
