// Package egress is the only way out: every connection that mailgrant opens to
// something an organization, a provider or a message can name goes through a
// Guard.
//
// A Guard asks about an address at the last moment, on the socket that is about
// to connect, so that a name which resolves to one thing for the check and to
// another for the connection gains nothing. Inner networks, this machine and
// everything of IANA's special-purpose registries are out of reach, unless the
// operator lists the host and port.
package egress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/mailgrant/mailgrant"
)

// Config rules a Guard. Only the operator writes it.
type Config struct {
	Allow  []string     // host:port entries that may lie on inner networks, or speak http
	CAFile string       // PEM, trusted besides the system's roots
	Proxy  string       // http://host:port, for HTTP requests only; "" none
	Log    *slog.Logger // told of every refusal; nil discards
}

const (
	connectWithin = 5 * time.Second
	totalWithin   = 20 * time.Second
)

// ports are those that mail and its providers live on. Others need an entry in
// Allow: a guard that reaches every port is a port scanner for hire.
var ports = map[string]bool{
	"25": true, "465": true, "587": true, "2525": true, // submission
	"143": true, "993": true, "110": true, "995": true, // receiving
	"443": true, "8443": true, // HTTP
}

// A Guard opens connections. It is safe for use by many goroutines.
type Guard struct {
	allow  map[string]bool // "host:port", lower case, no dot at the end
	caFile string
	proxy  *url.URL
	log    *slog.Logger
	own    ownAddresses

	resolver *net.Resolver // nil: the system's; tests set it
	sessions tls.ClientSessionCache

	mu      sync.Mutex
	roots   map[string]roots // by extra CA file
	clients map[string]*http.Client
}

// New makes a Guard. A CA file that cannot be read, a proxy that is no URL or an
// entry that is no host:port is an error: none of them may be half in force.
func New(c Config) (*Guard, error) {
	g := &Guard{allow: map[string]bool{}, caFile: c.CAFile, log: c.Log, roots: map[string]roots{}, clients: map[string]*http.Client{},
		sessions: tls.NewLRUClientSessionCache(1024)}
	if g.log == nil {
		g.log = slog.New(slog.DiscardHandler)
	}
	for _, entry := range c.Allow {
		host, port, err := net.SplitHostPort(entry)
		if err != nil || host == "" || port == "" {
			return nil, mailgrant.Errorf(mailgrant.Misset, err, "%q in egress.allow is not host:port", entry).
				Fix("write it like smtp.internal.example:587 or [fd00::1]:587")
		}
		g.allow[key(host, port)] = true
	}
	if c.Proxy != "" {
		u, err := url.Parse(c.Proxy)
		if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			return nil, mailgrant.Errorf(mailgrant.Misset, nil, "egress.proxy is not the URL of an HTTP proxy").Fix("write it like http://proxy.example:3128")
		}
		g.proxy = u
	}
	if _, err := g.pool(""); err != nil {
		return nil, err
	}
	return g, nil
}

// key is the form in which host and port are compared.
func key(host, port string) string {
	if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.Unmap().WithZone("").String()
	}
	return net.JoinHostPort(strings.ToLower(strings.TrimSuffix(host, ".")), port)
}

// Dial connects to addr, a host:port. Its errors say the same whatever was found
// at a refused address.
func (g *Guard) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, mailgrant.Errorf(mailgrant.Misset, err, "%q is not host:port", addr).Fix("correct the host and port of the provider's settings")
	}
	d := net.Dialer{Timeout: connectWithin, KeepAlive: 30 * time.Second, Resolver: g.resolver}
	if !g.allow[key(host, port)] {
		if !ports[port] {
			return nil, g.refuse(addr, "port")
		}
		d.ControlContext = func(_ context.Context, _, address string, _ syscall.RawConn) error { return g.check(addr, address) }
	}
	conn, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, failed(addr, err)
	}
	return conn, nil
}

// check looks at the resolved address of a socket that is about to connect.
func (g *Guard) check(asked, address string) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return g.refuse(asked, "address")
	}
	host, port, _ := net.SplitHostPort(address)
	if g.allow[key(host, port)] {
		return nil
	}
	if Special(ap.Addr()) || g.own.has(ap.Addr()) {
		return g.refuse(asked, "address")
	}
	return nil
}

func (g *Guard) refuse(asked, what string) error {
	g.log.Warn("a connection was refused by the egress rules", "to", asked, "for_its", what)
	return refused(asked)
}

// roots are the certificates of one CA file, as of its last change.
type roots struct {
	pool    *x509.CertPool
	changed time.Time
}

// pool is the system's roots with the configured and the extra file added. A
// file that has changed is read again.
func (g *Guard) pool(extra string) (*x509.CertPool, error) {
	changed := changedAt(g.caFile, extra)
	g.mu.Lock()
	defer g.mu.Unlock()
	if r, ok := g.roots[extra]; ok && r.changed.Equal(changed) {
		return r.pool, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	for _, file := range []string{g.caFile, extra} {
		if file == "" {
			continue
		}
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, mailgrant.Errorf(mailgrant.Misset, err, "the CA file %s cannot be read", file).Fix("correct the path, or let mailgrant's user read it")
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, mailgrant.Errorf(mailgrant.Misset, nil, "the CA file %s holds no PEM certificate", file).Fix("put the issuing CA's certificate there, in PEM")
		}
	}
	g.roots[extra] = roots{pool, changed}
	delete(g.clients, extra)
	return pool, nil
}

func changedAt(files ...string) (last time.Time) {
	for _, f := range files {
		if st, err := os.Stat(f); f != "" && err == nil && st.ModTime().After(last) {
			last = st.ModTime()
		}
	}
	return last
}

// TLS is how a mail server is spoken to: verified, TLS 1.2 or newer, sessions
// resumed. extraCAFile may be "". A file that cannot be read adds nothing, so
// that the handshake fails and says whose certificate it did not trust.
func (g *Guard) TLS(serverName, extraCAFile string) *tls.Config {
	pool, err := g.pool(extraCAFile)
	if err != nil {
		g.log.Error("the CA file of a provider is of no use", "file", extraCAFile, "err", err)
		if pool, err = g.pool(""); err != nil {
			pool = x509.NewCertPool()
		}
	}
	return &tls.Config{ServerName: strings.TrimSuffix(serverName, "."), RootCAs: pool, MinVersion: tls.VersionTLS12, ClientSessionCache: g.sessions}
}
