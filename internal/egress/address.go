package egress

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// special are the IPv4 networks that are not the public internet: the IANA
// special-purpose registry, multicast, the reserved rest, and the one public
// address behind which a cloud keeps its machines' configuration.
var special = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
	"192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
	"198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
	"168.63.129.16/32",
)

// global is the one block of IPv6 that is handed out; special6 are the parts of
// it that are not hosts, or that carry an IPv4 address inside (6to4, Teredo).
// All else, NAT64 and the mapped forms among it, lies outside of global.
var (
	global   = netip.MustParsePrefix("2000::/3")
	special6 = prefixes("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
)

func prefixes(l ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(l))
	for i, s := range l {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}

// Special says whether ip is anything but a public address of another machine.
func Special(ip netip.Addr) bool {
	if !ip.IsValid() || ip.Zone() != "" {
		return true
	}
	ip = ip.Unmap()
	if ip.Is4() {
		return in(special, ip)
	}
	return !global.Contains(ip) || in(special6, ip)
}

func in(l []netip.Prefix, ip netip.Addr) bool {
	for _, p := range l {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

// ownAddresses are the addresses of this machine's interfaces: a public one of
// ours still leads to our own doors.
type ownAddresses struct {
	mu   sync.Mutex
	at   time.Time
	list map[netip.Addr]bool
}

// ownFor is how long the list is believed.
const ownFor = time.Minute

func (o *ownAddresses) has(ip netip.Addr) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.list == nil || time.Since(o.at) > ownFor {
		o.list, o.at = map[netip.Addr]bool{}, time.Now()
		l, _ := net.InterfaceAddrs()
		for _, a := range l {
			if n, ok := a.(*net.IPNet); ok {
				if ip, ok := netip.AddrFromSlice(n.IP); ok {
					o.list[ip.Unmap()] = true
				}
			}
		}
	}
	return o.list[ip.Unmap()]
}
