package console

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Links are too long to guess; who tries all the same is slowed down. OA-06.
const (
	wrongLinks   = 20 // at once from one place
	wrongEvery   = 3 * time.Second
	placesAtOnce = 4096
)

// A pace counts the links that did not work, by the place they were asked from.
type pace struct {
	mu     sync.Mutex
	places map[netip.Prefix]*rate.Limiter
}

func newPace() *pace { return &pace{places: map[netip.Prefix]*rate.Limiter{}} }

// rest is how long a place that has had enough must wait, 0 when it is welcome.
func (p *pace) rest(from netip.Prefix) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.places[from]
	if l == nil {
		return 0
	}
	return time.Duration(max(0, 1-l.Tokens()) * float64(wrongEvery))
}

// wrong counts a link that did not work.
func (p *pace) wrong(from netip.Prefix) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.places[from]
	if l == nil {
		if len(p.places) >= placesAtOnce {
			p.forget()
		}
		l = rate.NewLimiter(rate.Every(wrongEvery), wrongLinks)
		p.places[from] = l
	}
	l.Allow()
}

// forget drops the places that have rested; when all are busy, all of them, for
// memory is not theirs to take.
func (p *pace) forget() {
	for at, l := range p.places {
		if l.Tokens() >= wrongLinks {
			delete(p.places, at)
		}
	}
	if len(p.places) >= placesAtOnce {
		clear(p.places)
	}
}

// from is the place a request comes from: an IPv4 address or an IPv6 network.
// Only listed proxies are believed about it. R-WB5.
func (s *console) from(r *http.Request) netip.Prefix {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return netip.Prefix{}
	}
	at, _ := netip.ParseAddr(host)
	at = at.Unmap().WithZone("")
	said := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(said) - 1; i >= 0 && s.trusts(at); i-- {
		next, err := netip.ParseAddr(strings.TrimSpace(said[i]))
		if err != nil {
			break
		}
		at = next.Unmap().WithZone("")
	}
	bits := 32
	if at.Is6() {
		bits = 64
	}
	p, _ := at.Prefix(bits)
	return p
}

func (s *console) trusts(at netip.Addr) bool {
	for _, p := range s.TrustedProxies {
		if p.Contains(at) {
			return true
		}
	}
	return false
}
