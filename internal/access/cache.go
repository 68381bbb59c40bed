package access

import (
	"crypto/rand"
	"crypto/sha256"
	"sync"
	"sync/atomic"
	"time"

	"net/netip"

	"github.com/mailgrant/mailgrant"
)

// What is remembered of a key is read again after softLife by one caller, and
// never used after hardLife: a key revoked on another node stops here by then.
const (
	softLife = 2 * time.Second
	hardLife = 3 * time.Second
)

// maxEntries bounds the memory; beyond it, keys that were not used for longest
// are forgotten first.
const maxEntries = 1 << 16

// An entry is a key that was good once. Its text is nowhere: quick is a hash
// under a random salt of this process, hash the one that the store knows.
type entry struct {
	quick   [32]byte
	hash    [32]byte
	turn    chan struct{} // held by who reads it again
	state   atomic.Pointer[loaded]
	touched atomic.Int64
}

func newEntry(quick, hash [32]byte) *entry {
	return &entry{quick: quick, hash: hash, turn: make(chan struct{}, 1)}
}

// loaded is what the store said of a key.
type loaded struct {
	key     mailgrant.Key
	app     mailgrant.App
	sources []netip.Prefix
	at      time.Time
	gen     uint64

	mu     sync.Mutex
	logins map[string]mailgrant.ID // mailboxes it logged in as meanwhile
}

const maxLogins = 64

func (l *loaded) login(user string) (mailgrant.ID, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	id, ok := l.logins[user]
	return id, ok
}

func (l *loaded) remember(user string, id mailgrant.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.logins == nil {
		l.logins = map[string]mailgrant.ID{}
	}
	if len(l.logins) < maxLogins {
		l.logins[user] = id
	}
}

type cache struct {
	salt [15]byte      // with a key's 40 letters it fills one block of SHA-256
	gen  atomic.Uint64 // counts changes made here; what was read before one is stale

	mu      sync.RWMutex
	byText  map[[32]byte]*entry
	byValue map[[32]byte]*entry
}

func newCache() *cache {
	c := &cache{byText: map[[32]byte]*entry{}, byValue: map[[32]byte]*entry{}}
	rand.Read(c.salt[:])
	return c
}

func (c *cache) quick(text string) [32]byte {
	var b [128]byte
	n := copy(b[:], c.salt[:])
	if n+len(text) > len(b) {
		return sha256.Sum256(append(c.salt[:len(c.salt):len(c.salt)], text...))
	}
	n += copy(b[n:], text)
	return sha256.Sum256(b[:n])
}

func (c *cache) byQuick(quick [32]byte) *entry {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.byText[quick]
}

func (c *cache) byHash(hash [32]byte) *entry {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.byValue[hash]
}

// keep adds an entry that the store knows. Of two made at once the later stays.
func (c *cache) keep(e *entry, now time.Time) {
	c.mu.RLock()
	known := c.byValue[e.hash] == e
	c.mu.RUnlock()
	if known {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.byValue[e.hash]; old != nil {
		if e.quick == ([32]byte{}) {
			return
		}
		delete(c.byText, old.quick)
	}
	if len(c.byValue) >= maxEntries {
		c.evict()
	}
	c.byValue[e.hash] = e
	if e.quick != ([32]byte{}) {
		c.byText[e.quick] = e
	}
}

// evict forgets the oldest of a few entries; a map gives them in random order.
func (c *cache) evict() {
	var oldest *entry
	n := 0
	for _, e := range c.byValue {
		if oldest == nil || e.state.Load().at.Before(oldest.state.Load().at) {
			oldest = e
		}
		if n++; n == 8 {
			break
		}
	}
	c.remove(oldest)
}

func (c *cache) drop(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byValue[e.hash] == e {
		c.remove(e)
	}
}

func (c *cache) remove(e *entry) {
	delete(c.byValue, e.hash)
	delete(c.byText, e.quick)
}

// changed makes everything remembered stale: something was changed here.
func (c *cache) changed() { c.gen.Add(1) }

func hashOf(b []byte) (h [32]byte, ok bool) {
	return h, copy(h[:], b) == len(h) && len(b) == len(h)
}
