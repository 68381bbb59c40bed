package sim

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// Config says where a Sim listens and what it starts with. The zero Config
// works.
type Config struct {
	World *World // nil: Contoso()

	// Listen addresses; "" is 127.0.0.1:0. HTTPS and HTTP serve the same pages:
	// sign-in, Graph, web mailbox and control. SMTP is submission with
	// STARTTLS. SMTPS has implicit TLS, which Exchange has not. IMAP and POP
	// have implicit TLS.
	HTTPS, HTTP, SMTP, SMTPS, IMAP, POP string

	// Dir is where ca.pem is written and, if it is there, read again.
	// "" is a folder that Close removes.
	Dir string

	// Trust are authorities beside the system's and the sim's own whose
	// certificates are good for the addresses that Graph notifies.
	Trust []*x509.Certificate

	Now func() time.Time // nil: time.Now
	Log *slog.Logger     // nil: nothing is logged
}

// A Sim is a running imitation of Microsoft 365.
type Sim struct {
	world  *World
	log    *slog.Logger
	clock  *clock
	dir    string
	ownDir bool
	ca     *authority
	tls    *tls.Config
	roots  *x509.CertPool // that the addresses of clients are checked against

	https, http, smtp, smtps, imap, pop net.Listener

	keys   *keyring
	entra  *entra
	mail   *post
	graph  *graph
	smtpd  *exchange
	imapd  *crowd
	popd   *crowd
	faults *faults
	counts *counter

	servers []*http.Server
	ctx     context.Context
	stop    context.CancelCauseFunc
	running sync.WaitGroup
	once    sync.Once
	closed  error
}

// errClosed is the cause with which everything ends that still runs at Close.
var errClosed = errors.New("the sim was closed")

// Start opens the listeners and serves until Close, or until ctx ends.
func Start(ctx context.Context, c Config) (*Sim, error) {
	s := &Sim{world: c.World, log: c.Log, dir: c.Dir, clock: newClock(c.Now)}
	if s.world == nil {
		s.world = Contoso()
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.ctx, s.stop = context.WithCancelCause(ctx)
	if err := s.open(c); err != nil {
		return nil, errors.Join(fmt.Errorf("start sim: %w", err), s.Close())
	}
	s.counts = newCounter()
	s.faults = newFaults(s)
	s.keys = newKeyring(s.clock)
	s.mail = newPost(s)
	s.entra = newEntra(s)
	s.graph = newGraph(s)
	s.smtpd = newExchange(s)
	s.imapd, s.popd = newCrowd(s), newCrowd(s)
	s.serve()
	return s, nil
}

// open makes the certificates and the listeners.
func (s *Sim) open(c Config) error {
	if err := s.openDir(); err != nil {
		return err
	}
	var err error
	if s.ca, err = openAuthority(s.dir); err != nil {
		return fmt.Errorf("certificate authority: %w", err)
	}
	cert, err := s.ca.serve()
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	s.tls = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	if s.roots, err = x509.SystemCertPool(); err != nil {
		return fmt.Errorf("the system's certificate authorities: %w", err)
	}
	for _, ca := range append([]*x509.Certificate{s.ca.cert}, c.Trust...) {
		s.roots.AddCert(ca)
	}
	for _, l := range []struct {
		at *net.Listener
		on string
	}{{&s.https, c.HTTPS}, {&s.http, c.HTTP}, {&s.smtp, c.SMTP}, {&s.smtps, c.SMTPS}, {&s.imap, c.IMAP}, {&s.pop, c.POP}} {
		if l.on == "" {
			l.on = "127.0.0.1:0"
		}
		if *l.at, err = net.Listen("tcp", l.on); err != nil {
			return err
		}
	}
	return nil
}

func (s *Sim) openDir() (err error) {
	if s.dir != "" {
		return os.MkdirAll(s.dir, 0o700)
	}
	s.dir, err = os.MkdirTemp("", "sim-")
	s.ownDir = err == nil
	return err
}

func (s *Sim) serve() {
	handler := s.handler()
	for _, l := range []net.Listener{tls.NewListener(s.https, s.httpTLS()), s.http} {
		server := &http.Server{
			Handler:           handler,
			ReadHeaderTimeout: time.Minute,
			ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
			BaseContext:       func(net.Listener) context.Context { return s.ctx },
		}
		s.servers = append(s.servers, server)
		s.running.Go(func() { server.Serve(l) })
	}
	s.running.Go(func() { s.smtpd.serve(s.smtp, false) })
	s.running.Go(func() { s.smtpd.serve(s.smtps, true) })
	s.running.Go(func() { s.imapd.serve(s.imap, "imap", s.imapd.imap) })
	s.running.Go(func() { s.popd.serve(s.pop, "pop", s.popd.pop) })
	s.running.Go(func() {
		<-s.ctx.Done()
		s.shut()
	})
}

func (s *Sim) httpTLS() *tls.Config {
	c := s.tls.Clone()
	c.NextProtos = []string{"http/1.1"}
	return c
}

// Close ends all connections and waits until nothing runs any more.
func (s *Sim) Close() error {
	s.stop(errClosed)
	s.shut()
	s.running.Wait()
	if s.graph != nil {
		s.graph.hooks.close()
	}
	return s.closed
}

func (s *Sim) shut() {
	s.once.Do(func() {
		for _, server := range s.servers {
			server.Close()
		}
		for _, l := range []net.Listener{s.https, s.http, s.smtp, s.smtps, s.imap, s.pop} {
			if l != nil {
				l.Close()
			}
		}
		if s.keys != nil {
			s.keys.close()
		}
		if s.ownDir {
			s.closed = os.RemoveAll(s.dir)
		}
	})
}

// World returns the state, to read and to change.
func (s *Sim) World() *World { return s.world }

// Now is the time of the imitated cloud.
func (s *Sim) Now() time.Time { return s.clock.now() }

// Advance moves the clock of the imitated cloud forward. What waits for a
// moment that has come goes on at once.
func (s *Sim) Advance(d time.Duration) { s.clock.advance(d) }

// CAFile is the path of the PEM file with the certificate authority that
// signed for localhost, 127.0.0.1 and Microsoft's host names.
func (s *Sim) CAFile() string { return s.ca.file }

// CertPool has that certificate authority and nothing else.
func (s *Sim) CertPool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(s.ca.cert)
	return pool
}

// LoginURL takes the place of https://login.microsoftonline.com.
func (s *Sim) LoginURL() string { return "https://" + localhost(s.https) }

// BrowserURL has the same pages on plain HTTP, so that a person's browser has
// no certificate to warn of.
func (s *Sim) BrowserURL() string { return "http://" + localhost(s.http) }

// GraphURL takes the place of https://graph.microsoft.com.
func (s *Sim) GraphURL() string { return s.LoginURL() + "/graph" }

// SMTPAddr takes the place of smtp.office365.com:587.
func (s *Sim) SMTPAddr() string { return localhost(s.smtp) }

// SMTPSAddr is the same with implicit TLS, as other providers have it.
func (s *Sim) SMTPSAddr() string { return localhost(s.smtps) }

// IMAPAddr takes the place of outlook.office365.com:993.
func (s *Sim) IMAPAddr() string { return localhost(s.imap) }

// POPAddr takes the place of outlook.office365.com:995.
func (s *Sim) POPAddr() string { return localhost(s.pop) }

// WebmailURL is the page of a mailbox in the small web mailbox.
func (s *Sim) WebmailURL(address string) string {
	return s.BrowserURL() + webmailPath(address)
}

// localhost is the address of a listener with the name that the certificate
// has. An address that is not this machine's own stays as it is.
func localhost(l net.Listener) string {
	addr := l.Addr().(*net.TCPAddr)
	if addr.IP.IsLoopback() || addr.IP.IsUnspecified() {
		return fmt.Sprintf("localhost:%d", addr.Port)
	}
	return addr.String()
}

// Sessions are how many connections are logged in now by IMAP and POP, by mailbox.
func (s *Sim) Sessions() map[string]int {
	all := map[string]int{}
	for _, c := range []*crowd{s.imapd, s.popd} {
		c.mu.Lock()
		for box, n := range c.n {
			all[box] += n
		}
		c.mu.Unlock()
	}
	return all
}

// Counts says how often things happened, by names such as
// "token.refresh_token", "smtp.messages" and "graph.sendMail".
func (s *Sim) Counts() map[string]int { return s.counts.all() }

// WaitCount returns as soon as the count of that name is at least n, or with
// the cause when ctx ends before.
func (s *Sim) WaitCount(ctx context.Context, name string, n int) error {
	for {
		have, changed := s.counts.watch(name)
		if have >= n {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.ctx.Done():
			return context.Cause(s.ctx)
		}
	}
}

type counter struct {
	mu      sync.Mutex
	n       map[string]int
	changed chan struct{} // closed by the next count; nil while nobody waits
}

func newCounter() *counter { return &counter{n: map[string]int{}} }

func (c *counter) add(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n[name]++
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
	return c.n[name]
}

func (c *counter) watch(name string) (int, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.changed == nil {
		c.changed = make(chan struct{})
	}
	return c.n[name], c.changed
}

func (c *counter) all() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.n)
}
