package access

import (
	"hash/maphash"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Wrong keys are counted twice: by user name and by source. A count sinks by one
// every sinkEvery. Keys are 160 random bits, so this is not what keeps guessers
// out; it keeps them from costing us and others anything.
const (
	sinkEvery    = 10 * time.Second
	freeGuesses  = 3                      // answered at once
	firstDelay   = 100 * time.Millisecond // then this, doubled each time
	longestDelay = 5 * time.Second
	refuseAt     = 20 // counts of one source; beyond it nobody there is heard
	maxWaiting   = 8  // of one source at once
	maxCounts    = 1 << 16
)

type guesses struct {
	seed maphash.Seed

	mu     sync.Mutex
	counts map[uint64]*count
}

type count struct {
	n       float64
	at      time.Time
	waiting int
}

func newGuesses() *guesses {
	return &guesses{seed: maphash.MakeSeed(), counts: map[uint64]*count{}}
}

// refusal is how long a source must stay away, 0 when it is welcome.
func (g *guesses) refusal(source string, now time.Time) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := g.counts[g.source(source)]
	if c == nil {
		return 0
	}
	c.sink(now)
	return c.refusal()
}

// note counts one wrong key, and says how late its answer must be or that its
// source is to be turned away. After a delay, done must be called.
func (g *guesses) note(user, source string, now time.Time) (delay, refusal time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.add(g.source(source), now)
	n := s.n
	if user != "" {
		n = max(n, g.add(g.user(user), now).n)
	}
	if r := s.refusal(); r > 0 {
		return 0, r
	}
	delay = delayAfter(n)
	if delay == 0 {
		return 0, 0
	}
	if s.waiting >= maxWaiting {
		return 0, sinkEvery
	}
	s.waiting++
	return delay, 0
}

func (g *guesses) done(source string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c := g.counts[g.source(source)]; c != nil && c.waiting > 0 {
		c.waiting--
	}
}

func delayAfter(n float64) time.Duration {
	if n <= freeGuesses {
		return 0
	}
	d := firstDelay
	for range int(n) - freeGuesses - 1 {
		if d *= 2; d >= longestDelay {
			return longestDelay
		}
	}
	return d
}

func (c *count) sink(now time.Time) {
	if d := now.Sub(c.at); d > 0 {
		c.n = max(0, c.n-d.Seconds()/sinkEvery.Seconds())
	}
	c.at = now
}

func (c *count) refusal() time.Duration {
	if c.n <= refuseAt {
		return 0
	}
	return time.Duration((c.n - refuseAt) * float64(sinkEvery))
}

// add counts one more. Far beyond the point of refusal it stops counting, so
// that the way back is minutes, not days.
func (g *guesses) add(key uint64, now time.Time) *count {
	c := g.counts[key]
	if c == nil {
		if len(g.counts) >= maxCounts {
			g.evict(now)
		}
		c = &count{at: now}
		g.counts[key] = c
	}
	c.sink(now)
	c.n = min(c.n+1, refuseAt+30)
	return c
}

// evict forgets the lowest of a few counts; a map gives them in random order.
func (g *guesses) evict(now time.Time) {
	var low uint64
	var lowest *count
	n := 0
	for k, c := range g.counts {
		c.sink(now)
		if c.waiting == 0 && (lowest == nil || c.n < lowest.n) {
			low, lowest = k, c
		}
		if n++; n >= 16 && lowest != nil {
			break
		}
	}
	delete(g.counts, low)
}

// source names a network neighbour: an IPv4 address or an IPv6 /64.
func (g *guesses) source(s string) uint64 {
	if ip, err := netip.ParseAddr(s); err == nil {
		if ip = ip.Unmap(); ip.Is6() {
			p, _ := ip.WithZone("").Prefix(64)
			ip = p.Addr()
		}
		b := ip.As16()
		return maphash.Bytes(g.seed, b[:])
	}
	return maphash.String(g.seed, "source "+s)
}

func (g *guesses) user(s string) uint64 {
	s = strings.ToLower(strings.TrimSpace(s))
	if n, ok := Normal(s); ok {
		s = n
	}
	return maphash.String(g.seed, "user "+s)
}
