package submission

import (
	"net"
	"net/netip"
	"net/url"

	"github.com/mailgrant/mailgrant"
)

// Security is how a door is protected.
type Security int

const (
	ImplicitTLS Security = iota // submissions://, RFC 8314
	StartTLS                    // submission://, nothing but STARTTLS before TLS
	Insecure                    // submission+insecure://, loopback only
)

// Parse reads the URI of a door: submissions://:465, submission://:587, or
// submission+insecure://127.0.0.1:2525, which is refused elsewhere.
func Parse(uri string) (addr string, security Security, err error) {
	u, err := url.Parse(uri)
	if err != nil || u.Opaque != "" || u.Path != "" && u.Path != "/" || u.User != nil || u.RawQuery != "" {
		return "", 0, noDoor(uri, err)
	}
	port := u.Port()
	def := func(p string) string {
		if port == "" {
			return p
		}
		return port
	}
	switch u.Scheme {
	case "submissions":
		return net.JoinHostPort(u.Hostname(), def("465")), ImplicitTLS, nil
	case "submission":
		return net.JoinHostPort(u.Hostname(), def("587")), StartTLS, nil
	case "submission+insecure":
		host := u.Hostname()
		if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.IsLoopback()) {
			return "", 0, notLoopback(u.Host)
		}
		return net.JoinHostPort(host, def("2525")), Insecure, nil
	}
	return "", 0, noDoor(uri, nil)
}

// Listen opens the listener of a door by its URI, for Serve.
func Listen(uri string) (net.Listener, Security, error) {
	addr, security, err := Parse(uri)
	if err != nil {
		return nil, 0, err
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, 0, mailgrant.Errorf(mailgrant.Misset, err, "the door %s does not open: %v", uri, err).
			Fix("choose an address of this machine and a port nobody uses, or give the process the right to it")
	}
	if security == Insecure && !isLoopback(l.Addr()) {
		l.Close()
		return nil, 0, notLoopback(l.Addr().String())
	}
	return l, security, nil
}

func noDoor(uri string, cause error) error {
	return mailgrant.Errorf(mailgrant.Invalid, cause, "%q is not an SMTP door", uri).
		Fix("write it like submissions://:465 or submission://:587")
}

func notLoopback(addr string) error {
	return mailgrant.Errorf(mailgrant.Misset, nil, "the door on %s would take keys in clear text over the network", addr).
		Fix("use submissions:// or submission://; submission+insecure:// is for 127.0.0.1 and [::1] only")
}

func isLoopback(a net.Addr) bool {
	t, ok := a.(*net.TCPAddr)
	return ok && t.IP.IsLoopback()
}

// neighbourhood is what connections are counted by: an IPv4 address or an IPv6
// /64.
func neighbourhood(ip netip.Addr) netip.Addr {
	if ip.Is6() {
		p, _ := ip.Prefix(64)
		return p.Addr()
	}
	return ip
}

// sourceOf is the address of the peer.
func sourceOf(nc net.Conn) netip.Addr {
	if t, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		return t.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}
