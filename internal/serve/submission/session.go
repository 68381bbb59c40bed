package submission

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mailgrant/mailgrant"
)

// A session is one connection from greeting to end.
//
//	connected ──EHLO──▶ greeted ──AUTH──▶ ready ──MAIL──▶ envelope ──RCPT──▶ ┐
//	     ▲                                 ▲ ▲               │              │
//	     └──STARTTLS (everything forgotten)│ └──RSET, EHLO───┴──────────────┤
//	                                       └────────DATA, answered──────────┘
type session struct {
	wire
	srv       *Server
	conn      net.Conn // beneath TLS; the only one Shutdown touches
	ctx       context.Context
	cancel    context.CancelFunc
	neighbour netip.Addr // what it is counted by
	source    string
	security  Security
	known     bool // off the count of strangers; guarded by srv.mu
	opened    time.Time
	inBody    atomic.Bool // the bytes of a message are on their way

	overTLS  bool
	greeted  bool
	extended bool // by EHLO
	loggedIn bool
	caller   mailgrant.Caller

	open    bool // MAIL was accepted
	spoiled bool // MAIL was refused; what is pipelined behind it, up to DATA, is no mistake
	env     Envelope
	seen    map[string]struct{} // recipients there are
	rcpts   int                 // RCPT commands of this envelope
	draft   Draft               // while it is not handed over

	errors, chatter, wrongKeys int
}

// errEnd ends a session whose last words are said.
var errEnd = errors.New("submission: end of session")

func newSession(srv *Server, nc net.Conn, security Security) *session {
	ip := sourceOf(nc)
	s := &session{
		wire:      wire{nc: nc, buf: make([]byte, smallBuffer)},
		srv:       srv,
		conn:      nc,
		neighbour: neighbourhood(ip),
		security:  security,
		opened:    time.Now(),
	}
	if ip.IsValid() {
		s.source = ip.String()
	}
	if c, ok := nc.(syscall.Conn); ok {
		s.raw, _ = c.SyscallConn()
	}
	s.ctx, s.cancel = context.WithCancel(srv.ctx)
	return s
}

// run is the whole session. A panic ends it and no other.
func (s *session) run() {
	hook := s.srv.Hooks
	if hook.Connected != nil {
		hook.Connected()
	}
	defer func() {
		if v := recover(); v != nil {
			s.srv.Log.Error("submission: a session broke", "source", s.source, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
			s.out = s.out[:0]
			s.say(s.srv.about("421 4.3.0 something went wrong inside mailgrant, try again", pageInternal))
		}
		if s.draft != nil {
			s.draft.Discard()
		}
		s.cancel()
		s.linger()
		if hook.Closed != nil {
			hook.Closed(time.Since(s.opened))
		}
	}()
	if s.security == ImplicitTLS && s.handshake() != nil {
		s.out = s.out[:0]
		return
	}
	s.say("220 " + s.srv.Host + " ESMTP mailgrant\r\n")
	for {
		line, err := s.command()
		if err == nil {
			err = s.do(line)
		}
		if err != nil {
			s.lastWords(err)
			return
		}
	}
}

// lastWords says why the session ends.
func (s *session) lastWords(err error) {
	switch {
	case errors.Is(err, errEnd):
	case errors.Is(err, errBare):
		s.refused(mailgrant.Invalid)
		s.say(s.srv.about("554 5.5.2 a bare CR or LF: lines end in CRLF. Correct the program that wrote this", pageMessage))
	case errors.Is(err, errLong):
		s.refused(mailgrant.TooLarge)
		s.say(s.srv.fault("500 5.5.6 the line is too long"))
	case errors.Is(err, errIdle):
		s.say(s.srv.fault("421 4.4.2 nothing came for too long"))
	case errors.Is(err, errOld):
		s.say(s.srv.fault("421 4.4.2 this session is old, connect again"))
	case errors.Is(err, errClosing):
		s.say(s.srv.about("421 4.3.2 shutting down, try again in a moment", pageNotNow))
	default:
		if code := mailgrant.AsError(err).Code; code == mailgrant.TooLarge {
			s.answer(err)
		}
		if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			s.srv.Log.Debug("submission: connection lost", "source", s.source, "error", err)
		}
	}
}

// command waits for the next line. What was said leaves before it waits.
func (s *session) command() ([]byte, error) {
	return s.line(s.lineLimit)
}

// lineLimit is what the line that begins in the buffer may have.
func (s *session) lineLimit() int {
	if have := s.buf[s.r:s.w]; len(have) > 5 && isVerb(have[:5], "AUTH ") && s.mayAuth() {
		return s.srv.Limits.AuthLine
	}
	return s.srv.Limits.Line
}

func (s *session) line(limit func() int) ([]byte, error) {
	by, scanned := time.Time{}, 0
	for {
		most := s.srv.Limits.Line
		if s.pending() {
			most = limit()
		}
		line, n, err := s.cut(most, scanned)
		if line != nil || err != nil {
			return line, err
		}
		scanned = n
		if err := s.flush(); err != nil {
			return nil, err
		}
		if by.IsZero() {
			if by, err = s.patience(); err != nil {
				return nil, err
			}
		}
		s.deadline(by)
		if s.srv.closing.Load() {
			return nil, errClosing
		}
		if err := s.read(most); isTimeout(err) {
			if s.srv.closing.Load() {
				return nil, errClosing
			}
			return nil, errIdle
		} else if err != nil {
			return nil, err
		}
	}
}

// patience is until when a command must have come. It does not grow by single
// bytes. Who has not logged in has it once.
func (s *session) patience() (time.Time, error) {
	l, now := s.srv.Limits, time.Now()
	if !s.loggedIn {
		return s.opened.Add(l.Idle), nil
	}
	end := s.opened.Add(l.Session)
	if now.After(end) {
		return end, errOld
	}
	if by := now.Add(l.Idle); by.Before(end) {
		return by, nil
	}
	return end, nil
}

// wake makes a session look whether the server is shutting down.
func (s *session) wake() {
	if !s.inBody.Load() {
		s.conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// do obeys one command.
func (s *session) do(line []byte) error {
	for _, c := range line {
		if c < ' ' || c == 0x7f {
			return s.wrong("500 5.5.2 a command has no control characters\r\n")
		}
	}
	verb, arg := split(line)
	if len(verb) > 8 {
		return s.unknown(verb)
	}
	var b [8]byte
	for i, c := range verb {
		if 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		b[i] = c
	}
	switch string(b[:len(verb)]) {
	case "MAIL":
		return s.mail(arg)
	case "RCPT":
		return s.rcpt(arg)
	case "DATA":
		return s.data(arg)
	case "EHLO":
		return s.hello(arg, true)
	case "HELO":
		return s.hello(arg, false)
	case "AUTH":
		return s.auth(arg)
	case "STARTTLS":
		return s.startTLS(arg)
	case "RSET":
		s.reset()
		return s.idle("250 2.0.0 ok\r\n")
	case "NOOP":
		return s.idle("250 2.0.0 ok\r\n")
	case "QUIT":
		s.say("221 2.0.0 bye\r\n")
		return errEnd
	case "VRFY":
		return s.idle("252 2.1.5 send some mail, and it will be tried\r\n")
	case "EXPN", "HELP", "TURN", "ETRN", "SEND", "SOML", "SAML", "XCLIENT", "XFORWARD", "PROXY", "DEBUG", "LHLO":
		return s.wrong("502 5.5.1 this door has no such command\r\n")
	case "BDAT":
		// The chunk follows whatever we say, and must not be read as commands.
		s.say(s.srv.fault("503 5.5.1 CHUNKING is not offered, use DATA"))
		return errEnd
	}
	return s.unknown(verb)
}

// foreign are words that other protocols begin with. They are no slip of an SMTP
// client, so the session ends: somebody makes a browser speak to us.
var foreign = []string{"GET", "POST", "PUT", "HEAD", "OPTIONS", "CONNECT", "PATCH", "DELETE", "TRACE", "HOST:", "CONTENT-TYPE:", "USER-AGENT:"}

func (s *session) unknown(verb []byte) error {
	for _, f := range foreign {
		if isVerb(verb, f) {
			s.say(s.srv.fault("521 5.7.0 this is an SMTP server"))
			return errEnd
		}
	}
	return s.wrong("500 5.5.2 unknown command\r\n")
}

// wrong answers a mistake in the protocol. Too many end the session.
func (s *session) wrong(line string) error { return s.mistake(s.srv.fault(line)) }

// mistake is the same for a line that has its page already.
func (s *session) mistake(line string) error {
	s.say(line)
	if s.errors++; s.errors >= s.srv.Limits.Errors {
		s.say(s.srv.fault("421 4.7.0 too many errors"))
		return errEnd
	}
	return nil
}

// idle answers a command that brings no message nearer. They are not for ever.
func (s *session) idle(line string) error {
	s.say(line)
	if s.chatter++; s.chatter > s.srv.Limits.Chatter {
		s.say(s.srv.fault("421 4.7.0 too many commands without a message"))
		return errEnd
	}
	return nil
}

func (s *session) hello(arg []byte, extended bool) error {
	if len(arg) == 0 || len(arg) > 255 || !isASCII(arg) {
		return s.wrong("501 5.5.4 say who you are: EHLO host.example.com\r\n")
	}
	s.reset()
	s.greeted, s.extended = true, extended
	if !extended {
		return s.idle("250 " + s.srv.Host + "\r\n")
	}
	return s.idle(s.srv.capabilities(s.security != ImplicitTLS && !s.overTLS && s.srv.TLS != nil, s.maySecret()))
}

// capabilities is the answer to EHLO.
func (s *Server) capabilities(startTLS, auth bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "250-%s\r\n250-PIPELINING\r\n250-SIZE %d\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n", s.Host, s.Limits.Message)
	if startTLS {
		b.WriteString("250-STARTTLS\r\n")
	}
	if auth {
		b.WriteString("250-AUTH PLAIN LOGIN\r\n")
	}
	fmt.Fprintf(&b, "250-LIMITS RCPTMAX=%d\r\n250 ENHANCEDSTATUSCODES\r\n", s.Limits.Recipients)
	return b.String()
}

// maySecret says whether a key may be shown on this connection.
func (s *session) maySecret() bool { return s.overTLS || s.security == Insecure }

// reset forgets the envelope.
func (s *session) reset() {
	s.open, s.spoiled, s.rcpts = false, false, 0
	s.env = Envelope{}
	s.seen = nil
}

// startTLS begins again over TLS, with everything forgotten that was said before
// it. RFC 3207 section 4.2.
func (s *session) startTLS(arg []byte) error {
	switch {
	case len(arg) > 0:
		return s.wrong("501 5.5.4 STARTTLS stands alone\r\n")
	case s.security == ImplicitTLS || s.overTLS || s.loggedIn:
		return s.wrong("503 5.5.1 TLS is on already, or it is too late for it\r\n")
	case s.srv.TLS == nil:
		return s.wrong("502 5.5.1 this door has no TLS\r\n")
	case s.pending():
		s.drop()
		s.say(s.srv.fault("421 4.7.0 nothing may follow STARTTLS before the handshake"))
		return errEnd
	}
	s.say("220 2.0.0 go ahead\r\n")
	if err := s.flush(); err != nil {
		return err
	}
	if s.srv.closing.Load() {
		return errClosing
	}
	return s.handshake()
}

// handshake turns the connection into a TLS one.
func (s *session) handshake() error {
	s.reset()
	s.drop()
	s.greeted, s.extended = false, false
	by := time.Now().Add(s.srv.Limits.Handshake)
	s.nc.SetDeadline(by)
	s.readBy, s.writeBy = by, by
	t := tls.Server(s.nc, s.srv.TLS)
	if err := t.HandshakeContext(s.ctx); err != nil {
		s.srv.Log.Debug("submission: TLS handshake failed", "source", s.source, "error", err)
		return err
	}
	s.quickAck() // the client's last flight may have no answer of ours to ride on
	s.nc, s.overTLS = t, true
	s.readBy, s.writeBy = time.Time{}, time.Time{}
	return nil
}

// within is the context of one call that must be answered soon.
func (s *session) within() (context.Context, context.CancelFunc) {
	return context.WithTimeout(s.ctx, s.srv.Limits.Accept)
}

// split cuts a command into verb and argument.
func split(line []byte) (verb, arg []byte) {
	for len(line) > 0 && line[len(line)-1] == ' ' {
		line = line[:len(line)-1]
	}
	for i, c := range line {
		if c == ' ' {
			return line[:i], line[i+1:]
		}
	}
	return line, nil
}

// isVerb compares with a word in capital letters.
func isVerb(b []byte, word string) bool {
	return len(b) == len(word) && strings.EqualFold(string(b), word)
}

func isASCII(b []byte) bool {
	for _, c := range b {
		if c >= 0x80 {
			return false
		}
	}
	return true
}
