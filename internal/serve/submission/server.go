// Package submission is the SMTP door: applications and scanners hand over mail
// here, with a key of their app.
//
// A session is one loop over a strict state machine (RFC 5321, 6409): it turns
// commands into CheckSender, Draft and Accept, and the answer back into a line.
// It decides nothing about mail. What it does decide is the wire: lines end in
// CRLF and in nothing else, a bare CR or LF anywhere ends the session, only
// CRLF.CRLF ends data however the bytes are cut into segments, every size, count
// and time has its limit before anything is buffered, and nobody gets a word in
// before TLS and a good key.
//
// Bodies stream into the draft in large slices. Replies to pipelined commands
// leave together, when the session is about to wait for more input.
package submission

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mailgrant/mailgrant"
)

// Door is the name of this door in a Caller and in the settings of an app.
const Door = "smtp"

// An Access says who shows a key. *access.Access is one.
type Access interface {
	Login(ctx context.Context, user, key, door, source string) (mailgrant.Caller, error)
	Confirm(ctx context.Context, c mailgrant.Caller) (mailgrant.Caller, error)
}

// An Envelope is what the door knows of a message besides its bytes. Its fields
// are among those of outbox.Envelope.
type Envelope struct {
	From           string
	Recipients     []string
	Class          mailgrant.Class
	OnBehalfOf     string
	Named          mailgrant.ID
	IdempotencyKey string
	SendAt         time.Time
	UTF8           bool // SMTPUTF8 was announced
	Trace          mailgrant.ID
}

// A Draft takes the bytes of a message: CRLF lines, dots unstuffed. Discard may
// be called after an Accept that failed.
type Draft interface {
	io.Writer
	Discard()
}

// An Outbox takes responsibility for messages.
type Outbox interface {
	CheckSender(ctx context.Context, c mailgrant.Caller, from string, class mailgrant.Class) error
	Draft(ctx context.Context, org mailgrant.ID) Draft
	Accept(ctx context.Context, c mailgrant.Caller, e Envelope, d Draft) (mailgrant.Submission, error)
}

// Limits are what a session may cost. Zero fields take the default.
type Limits struct {
	Line        int           // bytes of a command with its CRLF: 2 KiB
	AuthLine    int           // of an AUTH command or answer: 12 KiB
	Message     int64         // bytes of a message: 35 MiB
	Recipients  int           // of a message: 500
	Errors      int           // of one session, before it ends: 10
	Chatter     int           // commands that bring no message nearer: 100
	Logins      int           // wrong keys in one session: 5
	Idle        time.Duration // wait for a command, and for login: 5 min
	Session     time.Duration // a session, and the bytes of one message: 30 min
	Handshake   time.Duration // of TLS: 30 s
	Accept      time.Duration // for an answer of store and keys: 10 s
	BeforeLogin int           // connections of one source that have not logged in: 50
	Connections int           // in all: 10,000
}

func (l Limits) orDefault() Limits {
	set := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	wait := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	set(&l.Line, 2<<10)
	set(&l.AuthLine, 12<<10)
	set(&l.Recipients, 500)
	set(&l.Errors, 10)
	set(&l.Chatter, 100)
	set(&l.Logins, 5)
	set(&l.BeforeLogin, 50)
	set(&l.Connections, 10_000)
	wait(&l.Idle, 5*time.Minute)
	wait(&l.Session, 30*time.Minute)
	wait(&l.Handshake, 30*time.Second)
	wait(&l.Accept, 10*time.Second)
	if l.Message <= 0 {
		l.Message = 35 << 20
	}
	return l
}

// Hooks are told what happens, for the metrics. Each may be nil.
type Hooks struct {
	Connected func()
	Closed    func(open time.Duration)
	LoggedIn  func(ok bool)
	Accepted  func(bytes int64, took time.Duration) // from the last byte to the answer
	Refused   func(code mailgrant.Code)
}

// Config is what a Server needs. TLS may be nil for a door that has none; Log
// and Hooks may be empty.
type Config struct {
	Access    Access
	Outbox    Outbox
	TLS       *tls.Config // one for all, so that sessions are resumed
	Host      string      // how it greets
	PublicURL string      // where docs/errors/ is below
	Limits    Limits
	Hooks     Hooks
	Log       *slog.Logger
}

// A Server runs the sessions of all its listeners.
type Server struct {
	Config
	ctx     context.Context
	cancel  context.CancelFunc
	closing atomic.Bool

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	sessions  map[*session]struct{}
	strangers map[netip.Addr]int // connections that have not logged in, by source
	wg        sync.WaitGroup
}

// New makes a Server.
func New(c Config) *Server {
	c.Limits = c.Limits.orDefault()
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Host == "" {
		c.Host = "mailgrant"
	}
	c.PublicURL = strings.TrimSuffix(c.PublicURL, "/")
	s := &Server{
		Config:    c,
		listeners: map[net.Listener]struct{}{},
		sessions:  map[*session]struct{}{},
		strangers: map[netip.Addr]int{},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Serve takes connections until Shutdown, and then gives nil.
func (s *Server) Serve(l net.Listener, security Security) error {
	if err := s.open(l, security); err != nil {
		l.Close()
		return err
	}
	defer s.forget(l)
	pause := time.Duration(0)
	for {
		nc, err := l.Accept()
		if s.closing.Load() {
			if err == nil {
				nc.Close()
			}
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("submission: listener %s: %w", l.Addr(), err)
		}
		if err != nil { // out of descriptors, most likely: wait for sessions to end
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.Log.Warn("submission: a connection could not be taken", "error", err, "pause", pause)
			select {
			case <-time.After(pause):
			case <-s.ctx.Done():
			}
			continue
		}
		pause = 0
		if !s.begin(nc, security) {
			s.turnAway(nc, security)
		}
	}
}

// open checks that the listener may be served that way.
func (s *Server) open(l net.Listener, security Security) error {
	if security != Insecure && s.TLS == nil {
		return mailgrant.Errorf(mailgrant.Misset, nil, "the door %s has no certificate", l.Addr()).
			Fix("set certificate files, or let mailgrant make one for the local network")
	}
	if security == Insecure && !isLoopback(l.Addr()) {
		return notLoopback(l.Addr().String())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Load() {
		return net.ErrClosed
	}
	s.listeners[l] = struct{}{}
	return nil
}

func (s *Server) forget(l net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
	l.Close()
}

// begin starts a session, unless there are too many already.
func (s *Server) begin(nc net.Conn, security Security) bool {
	ss := newSession(s, nc, security)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Load() || len(s.sessions) >= s.Limits.Connections || s.strangers[ss.neighbour] >= s.Limits.BeforeLogin {
		ss.cancel()
		return false
	}
	s.sessions[ss] = struct{}{}
	s.strangers[ss.neighbour]++
	s.wg.Go(func() {
		defer s.end(ss)
		ss.run()
	})
	return true
}

// turnAway says why, where it can be said without a handshake. The line fits
// into the empty buffer of a new connection, so that nobody is kept waiting.
func (s *Server) turnAway(nc net.Conn, security Security) {
	defer nc.Close()
	if s.closing.Load() {
		return
	}
	if h := s.Hooks.Refused; h != nil {
		h(mailgrant.Limited)
	}
	if security != ImplicitTLS {
		nc.SetWriteDeadline(time.Now().Add(time.Second))
		io.WriteString(nc, s.about("421 4.7.0 too many connections, try again in a moment", pageTooMuch))
	}
}

// known takes a session off the count of strangers once it has logged in.
func (s *Server) known(ss *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ss.known {
		return
	}
	ss.known = true
	if s.strangers[ss.neighbour]--; s.strangers[ss.neighbour] <= 0 {
		delete(s.strangers, ss.neighbour)
	}
}

func (s *Server) end(ss *session) {
	s.known(ss)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, ss)
}

// Shutdown takes no more connections, says 421 to sessions that wait for a
// command, and lets the bytes of messages under way arrive and be answered.
// When ctx ends first, what is left is cut.
func (s *Server) Shutdown(ctx context.Context) error {
	s.closing.Store(true)
	s.mu.Lock()
	for l := range s.listeners {
		l.Close()
	}
	for ss := range s.sessions {
		ss.wake()
	}
	s.mu.Unlock()
	done := make(chan struct{})
	go func() { s.wg.Wait(); close(done) }()
	select {
	case <-done:
		s.cancel()
		return nil
	case <-ctx.Done():
	}
	s.cancel()
	s.mu.Lock()
	for ss := range s.sessions {
		ss.conn.Close()
	}
	s.mu.Unlock()
	<-done
	return ctx.Err()
}
