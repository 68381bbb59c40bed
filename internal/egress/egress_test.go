package egress

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/mailgrant/mailgrant"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func guard(t *testing.T, c Config) *Guard {
	t.Helper()
	g, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, c := range g.clients {
			c.CloseIdleConnections()
		}
	})
	return g
}

// wantRefused checks that err is a refusal that names only what was asked for.
func wantRefused(t *testing.T, addr string, err error) {
	t.Helper()
	var e *mailgrant.Error
	if !errors.As(err, &e) || e.Code != mailgrant.Misset || e.Remedy == "" {
		t.Fatalf("dial %s: got %v, want a refusal with a remedy", addr, err)
	}
	if want := "mailgrant does not connect to " + addr; e.Message != want {
		t.Errorf("got %q, want %q", e.Message, want)
	}
}

func TestEG01InnerAddressesAreRefused(t *testing.T) {
	g := guard(t, Config{})
	for _, host := range []string{"127.0.0.1", "127.1.2.3", "localhost", "LOCALHOST", "0.0.0.0", "::1", "::", "169.254.169.254",
		"168.63.129.16", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "255.255.255.255",
		"::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::a00:1", "2002:7f00:1::", "2001:0:7f00:1::1",
		"fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1", "2001:db8::1", "3fff::1", "100::1", "5f00::1"} {
		addr := net.JoinHostPort(host, "443")
		conn, err := g.Dial(t.Context(), "tcp", addr)
		if conn != nil {
			conn.Close()
		}
		wantRefused(t, addr, err)
	}
}

// An inner address in a URL is refused before anything is looked up or connected to;
// so is an address of this machine's own. Names are let through to the socket.
func TestEG01InnerAddressesInURLs(t *testing.T) {
	g := guard(t, Config{Allow: []string{"10.0.0.7:443"}})
	g.own.list, g.own.at = map[netip.Addr]bool{netip.MustParseAddr("40.99.10.20"): true}, time.Now()
	for host, want := range map[string]bool{"127.0.0.1": false, "127.0.0.1.": false, "[::1]": false, "169.254.169.254": false, "10.0.0.1": false, "[::ffff:10.0.0.1]": false,
		"[fe80::1%25eth0]": false, "40.99.10.20": false, "10.0.0.7": true, "40.99.10.21": true, "localhost": true, "[2603:1036::1]": true} {
		u, err := url.Parse("https://" + host + "/hooks")
		if err != nil {
			t.Fatal(err)
		}
		if err := g.May(u); want && err != nil {
			t.Errorf("%s: got %v, want it let through", host, err)
		} else if !want {
			wantRefused(t, net.JoinHostPort(u.Hostname(), "443"), err)
		}
	}
}

// Spellings of numbers that some resolvers take for addresses must not connect
// either, whatever the resolver makes of them.
func TestEG01OddSpellings(t *testing.T) {
	l := listen(t)
	_, port, _ := net.SplitHostPort(l.Addr().String())
	g := guard(t, Config{})
	ports[port] = true
	defer delete(ports, port)
	for _, host := range []string{"2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0", "127.0.0.1.", "localhost.", "①②⑦.0.0.1"} {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		conn, err := g.Dial(ctx, "tcp", net.JoinHostPort(host, port))
		cancel()
		if err == nil {
			conn.Close()
			t.Errorf("%s was connected to", host)
		}
	}
}

func TestEG01OwnAndPublicAddresses(t *testing.T) {
	g := guard(t, Config{})
	g.own.list, g.own.at = map[netip.Addr]bool{netip.MustParseAddr("40.99.10.20"): true}, time.Now()
	wantRefused(t, "me.example:443", g.check("me.example:443", "40.99.10.20:443"))
	for _, ok := range []string{"40.99.10.21:587", "[2603:1036::1]:443", "8.8.8.8:993"} {
		if err := g.check("x", ok); err != nil {
			t.Errorf("%s: got %v, want it let through", ok, err)
		}
	}
}

func TestEG01OtherPortsAreRefused(t *testing.T) {
	g := guard(t, Config{})
	for _, addr := range []string{"login.example:22", "login.example:6379", "8.8.8.8:53"} {
		_, err := g.Dial(t.Context(), "tcp", addr)
		wantRefused(t, addr, err)
	}
}

func TestAllowedInnerServer(t *testing.T) {
	l := listen(t)
	addr := l.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	for _, allow := range []string{addr, "localhost:" + port} {
		g := guard(t, Config{Allow: []string{allow}})
		conn, err := g.Dial(t.Context(), "tcp", allow)
		if err != nil {
			t.Fatalf("%s: %v", allow, err)
		}
		conn.Close()
	}
	// An entry by address counts for names that resolve to it, on a port that
	// is in the list only by that entry.
	g := guard(t, Config{Allow: []string{addr}})
	ports[port] = true
	defer delete(ports, port)
	conn, err := g.Dial(t.Context(), "tcp4", "localhost:"+port)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// resolver answers every question with what next gives.
func resolver(t *testing.T, next func() []netip.Addr) *net.Resolver {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			if out := answer(buf[:n], next); out != nil {
				pc.WriteTo(out, from)
			}
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", pc.LocalAddr().String())
	}}
}

func answer(question []byte, next func() []netip.Addr) []byte {
	var m dnsmessage.Message
	if m.Unpack(question) != nil || len(m.Questions) == 0 {
		return nil
	}
	m.Response, m.Additionals = true, nil
	q := m.Questions[0]
	h := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 0}
	if q.Type == dnsmessage.TypeA {
		for _, a := range next() {
			if a.Is4() {
				m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: a.As4()}})
			}
		}
	}
	out, _ := m.Pack()
	return out
}

func TestEG02RebindingIsSeenOnTheSocket(t *testing.T) {
	l := listen(t)
	var reached atomic.Int32
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			reached.Add(1)
			c.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	ports[port] = true
	defer delete(ports, port)
	inner := netip.MustParseAddr("127.0.0.1")
	var asked atomic.Int32
	g := guard(t, Config{})
	g.resolver = resolver(t, func() []netip.Addr {
		if asked.Add(1) == 1 {
			return nil // the first look-up finds nothing, the next the inner address
		}
		return []netip.Addr{inner, netip.MustParseAddr("127.0.0.2")}
	})
	for range 3 {
		conn, err := g.Dial(t.Context(), "tcp", "rebind.example:"+port)
		if err == nil {
			conn.Close()
			t.Fatal("connected to an inner address")
		}
		if asked.Load() > 1 {
			wantRefused(t, "rebind.example:"+port, err)
		}
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("the inner server saw %d connections, want none", n)
	}
}

func TestOA15RedirectsAreNotFollowed(t *testing.T) {
	var second atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { second.Add(1) }))
	defer other.Close()
	first := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		code := map[string]int{"/301": 301, "/302": 302, "/303": 303, "/307": 307, "/308": 308}[r.URL.Path]
		http.Redirect(w, r, other.URL, code)
	}))
	defer first.Close()
	g := guard(t, Config{Allow: []string{first.Listener.Addr().String(), other.Listener.Addr().String()}})
	c, err := g.HTTP("")
	if err != nil {
		t.Fatal(err)
	}
	for _, code := range []string{"301", "302", "303", "307", "308"} {
		res, err := c.Post(first.URL+"/"+code, "application/x-www-form-urlencoded", strings.NewReader("client_secret=x"))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.Status[:3] != code {
			t.Errorf("got %s, want %s itself", res.Status, code)
		}
	}
	if n := second.Load(); n != 0 {
		t.Errorf("the second host saw %d requests, want none", n)
	}
}

func TestEG03RedirectToInnerHost(t *testing.T) {
	var hit atomic.Int32
	inner := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hit.Add(1) }))
	defer inner.Close()
	outer := httptest.NewServer(http.RedirectHandler(inner.URL, http.StatusTemporaryRedirect))
	defer outer.Close()
	g := guard(t, Config{Allow: []string{outer.Listener.Addr().String()}})
	c, _ := g.HTTP("")
	res, err := c.Post(outer.URL, "text/plain", strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if hit.Load() != 0 {
		t.Error("the inner host was reached")
	}
}

func TestHTTPOnlyWhereAllowed(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	c, _ := guard(t, Config{}).HTTP("")
	for _, u := range []string{s.URL, "http://login.example/", "ftp://login.example/", "https://user:pw@login.example/"} {
		_, err := c.Get(u)
		var e *mailgrant.Error
		if !errors.As(err, &e) || e.Code != mailgrant.Misset {
			t.Errorf("%s: got %v, want a refusal", u, err)
		}
		if err != nil && strings.Contains(e.Error(), "pw@") {
			t.Error("the password is in the error")
		}
	}
}

// certificate makes one for the names, signed by itself.
func certificate(t *testing.T, notAfter time.Time, names ...string) (tls.Certificate, string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test"}, NotBefore: notAfter.Add(-24 * time.Hour),
		NotAfter: notAfter, DNSNames: names, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	if len(names) > 0 {
		tmpl.IPAddresses = nil
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k}, file
}

func TestOA16CertificatesAreAlwaysVerified(t *testing.T) {
	good, goodCA := certificate(t, time.Now().Add(time.Hour))
	expired, expiredCA := certificate(t, time.Now().Add(-time.Hour))
	foreign, foreignCA := certificate(t, time.Now().Add(time.Hour), "other.example")
	for _, c := range []struct {
		name string
		cert tls.Certificate
		max  uint16
		ca   string
		ok   bool
	}{
		{"trusted by the provider's CA file", good, 0, goodCA, true},
		{"self-signed", good, 0, "", false},
		{"expired", expired, 0, expiredCA, false},
		{"wrong host", foreign, 0, foreignCA, false},
		{"TLS 1.1", good, tls.VersionTLS11, goodCA, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") }))
			s.TLS = &tls.Config{Certificates: []tls.Certificate{c.cert}, MinVersion: tls.VersionTLS10, MaxVersion: c.max}
			s.Config.ErrorLog = log.New(io.Discard, "", 0)
			s.StartTLS()
			defer s.Close()
			g := guard(t, Config{Allow: []string{s.Listener.Addr().String()}})
			client, err := g.HTTP(c.ca)
			if err != nil {
				t.Fatal(err)
			}
			res, err := client.Get(s.URL)
			if res != nil {
				res.Body.Close()
			}
			if (err == nil) != c.ok {
				t.Errorf("got %v, want success %v", err, c.ok)
			}
			raw, err := g.Dial(t.Context(), "tcp", s.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer raw.Close()
			if err := tls.Client(raw, g.TLS("127.0.0.1", c.ca)).Handshake(); (err == nil) != c.ok {
				t.Errorf("mail: got %v, want success %v", err, c.ok)
			}
		})
	}
}

func TestProxy(t *testing.T) {
	var asked string
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.Method + " " + r.Host
		w.WriteHeader(http.StatusBadGateway)
	}))
	defer proxy.Close()
	g := guard(t, Config{Proxy: proxy.URL})
	c, _ := g.HTTP("")
	if _, err := c.Get("https://login.example/x"); err == nil {
		t.Error("a refusing proxy was got round")
	}
	if asked != "CONNECT login.example:443" {
		t.Errorf("the proxy was asked %q", asked)
	}
	asked = ""
	_, err := c.Get("https://169.254.169.254/x")
	var e *mailgrant.Error
	if !errors.As(err, &e) || e.Code != mailgrant.Misset || asked != "" {
		t.Errorf("got %v and %q, want a refusal before the proxy is asked", err, asked)
	}
}

func TestMissetEgress(t *testing.T) {
	for _, c := range []Config{{Allow: []string{"10.0.0.0/8"}}, {Allow: []string{"host"}}, {CAFile: "/does/not/exist"}, {Proxy: "proxy"}} {
		if _, err := New(c); !errors.Is(err, mailgrant.Misset) {
			t.Errorf("%+v: got %v, want misset", c, err)
		}
	}
}
