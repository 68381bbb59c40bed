package egress

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
)

// HTTP is the client for providers: https, verified, no redirects, five seconds
// to connect and twenty in all. Clients with the same extra CA file are the same
// one, so that connections are shared. Whoever reads a body limits it.
func (g *Guard) HTTP(extraCAFile string) (*http.Client, error) {
	pool, err := g.pool(extraCAFile)
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if c := g.clients[extraCAFile]; c != nil {
		return c, nil
	}
	t := &http.Transport{
		Proxy:       g.proxyFor,
		DialContext: g.dialHTTP,
		TLSClientConfig: &tls.Config{
			RootCAs: pool, MinVersion: tls.VersionTLS12, ClientSessionCache: tls.NewLRUClientSessionCache(256),
		},
		ForceAttemptHTTP2:      true,
		TLSHandshakeTimeout:    2 * connectWithin,
		MaxIdleConns:           512,
		MaxIdleConnsPerHost:    64,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		WriteBufferSize:        32 << 10,
		ReadBufferSize:         16 << 10,
		// A connection that a firewall forgot is found out before a request hangs on it.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 10 * time.Second},
	}
	c := &http.Client{
		Transport:     &door{g: g, t: t},
		Timeout:       totalWithin,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	g.clients[extraCAFile] = c
	return c, nil
}

// door lets only those requests through that the rules allow.
type door struct {
	g *Guard
	t *http.Transport
}

func (d *door) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := d.g.may(r.URL); err != nil {
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, err
	}
	return d.t.RoundTrip(r)
}

// CloseIdleConnections is found by http.Client's method of the same name.
func (d *door) CloseIdleConnections() { d.t.CloseIdleConnections() }

// May says whether the rules let a request to u begin. Where a name leads is seen
// only when it connects.
func (g *Guard) May(u *url.URL) error { return g.may(u) }

// may judges a URL. An address that is written in it is looked at here already:
// whoever sets it up hears at once, and behind a proxy nobody else looks.
func (g *Guard) may(u *url.URL) error {
	addr := hostPort(u)
	host, port, _ := net.SplitHostPort(addr)
	if g.allow[key(host, port)] {
		return nil
	}
	if u.Scheme != "https" {
		return mailgrant.Errorf(mailgrant.Misset, nil, "%s is not https, and nothing else is used for providers", u.Redacted()).
			Fix("correct the address; a server on your own network may speak http once %s is in egress.allow", addr)
	}
	if u.User != nil {
		return mailgrant.Errorf(mailgrant.Misset, nil, "the address of %s holds a user name", addr).Fix("take the user name and password out of it")
	}
	if ip, err := netip.ParseAddr(strings.TrimSuffix(host, ".")); err == nil && (Special(ip) || g.own.has(ip)) {
		return g.refuse(addr, "address")
	}
	if !ports[port] {
		return g.refuse(addr, "port")
	}
	return nil
}

func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// proxyFor is the operator's proxy, but not for the hosts that the operator says
// lie on inner networks.
func (g *Guard) proxyFor(r *http.Request) (*url.URL, error) {
	host, port, _ := net.SplitHostPort(hostPort(r.URL))
	if g.proxy == nil || g.allow[key(host, port)] {
		return nil, nil
	}
	return g.proxy, nil
}

// dialHTTP connects to a server, or to the proxy: that one the operator chose.
func (g *Guard) dialHTTP(ctx context.Context, network, addr string) (net.Conn, error) {
	if g.proxy != nil && addr == hostPort(g.proxy) {
		d := net.Dialer{Timeout: connectWithin, KeepAlive: 30 * time.Second, Resolver: g.resolver}
		conn, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, failed(addr, err)
		}
		return conn, nil
	}
	return g.Dial(ctx, network, addr)
}
