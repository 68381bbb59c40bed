package sim

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// A wire is the connection of a program that reads mail, by IMAP or by POP:
// lines in, text out, and what goes wrong on purpose in between. There may be
// many thousands that say nothing, so it keeps no buffer to write from.
type wire struct {
	sim  *Sim
	kind string // "imap" or "pop"
	conn net.Conn
	in   *bufio.Reader
	out  *bufio.Writer // nil while nothing is said

	who     *principal
	name    string // the mailbox as it was asked for, with its plus
	counted bool   // among the connections of its mailbox

	failures  int  // of logins
	mistakes  int  // of the protocol
	mute      bool // what is said is not sent
	ending    bool
	cut       int64 // so many more bytes are sent, then the connection ends
	drip      time.Duration
	forgotten bool // the mailbox is out of reach
}

const (
	maxLineRead    = 1 << 20     // of a line that is too long
	clientPatience = time.Minute // in which a client shakes hands, and takes what is said
)

var writers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, 16<<10) }}

// A crowd serves the connections of one protocol.
type crowd struct {
	sim *Sim
	mu  sync.Mutex
	n   map[string]int // logged in, by mailbox
}

func newCrowd(s *Sim) *crowd { return &crowd{sim: s, n: map[string]int{}} }

// next is the next connection; false when there will be none. What keeps one from
// being taken, such as too many open files, passes.
func (s *Sim) next(l net.Listener, kind string) (net.Conn, bool) {
	for {
		conn, err := l.Accept()
		if err == nil {
			return conn, true
		}
		if errors.Is(err, net.ErrClosed) {
			return nil, false
		}
		s.log.Warn("no connection", "of", kind, "why", err)
		select {
		case <-s.ctx.Done():
			return nil, false
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// serve takes connections until the listener closes, then ends those that are
// open and waits for them.
func (c *crowd) serve(l net.Listener, kind string, session func(*wire)) {
	var open sync.WaitGroup
	defer open.Wait()
	for {
		conn, ok := c.sim.next(l, kind)
		if !ok {
			return
		}
		c.sim.counts.add(kind + ".connections")
		if f := c.sim.faults.take(kind + ".connect"); f != nil && f.Do == DoClose {
			if tcp, ok := conn.(*net.TCPConn); ok {
				tcp.SetLinger(0)
			}
			conn.Close()
			continue
		}
		secure := tls.Server(conn, c.sim.tls)
		open.Go(func() {
			conn.SetDeadline(time.Now().Add(clientPatience))
			if secure.HandshakeContext(c.sim.ctx) != nil {
				conn.Close()
				return
			}
			conn.SetDeadline(time.Time{})
			// A goroutine of its own: the handshake left this one a large stack.
			open.Go(func() { c.run(secure, kind, session) })
		})
	}
}

func (c *crowd) run(conn net.Conn, kind string, session func(*wire)) {
	stop := context.AfterFunc(c.sim.ctx, func() { conn.Close() })
	w := &wire{sim: c.sim, kind: kind, conn: conn, in: bufio.NewReaderSize(conn, 1<<10)}
	defer func() {
		stop()
		w.flush()
		c.leave(w)
		c.sim.counts.add(kind + ".closed")
		conn.Close()
	}()
	session(w)
}

// enter counts a connection of a mailbox, unless it is one too many.
func (c *crowd) enter(w *wire, limit int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	box := strings.ToLower(w.who.mailbox.Address)
	if over(c.n[box]+1, limit) {
		return false
	}
	c.n[box]++
	w.counted = true
	return true
}

func (c *crowd) leave(w *wire) {
	if !w.counted {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	box := strings.ToLower(w.who.mailbox.Address)
	if c.n[box]--; c.n[box] == 0 {
		delete(c.n, box)
	}
}

func (w *wire) knobs() Knobs { return w.sim.world.now.Load().Knobs }

// idle lets the connection end when the client says nothing for so long; with a
// negative time never.
func (w *wire) idle(d Duration) {
	var until time.Time
	if d > 0 {
		until = time.Now().Add(time.Duration(d))
	}
	w.conn.SetReadDeadline(until)
}

// line reads one line without its end. CRLF is one, and a lone LF too.
func (w *wire) line(limit int) (string, error) {
	part, err := w.in.ReadSlice('\n')
	if err == nil {
		return string(withoutEnd(part)), nil
	}
	var whole []byte
	read := 0
	for errors.Is(err, bufio.ErrBufferFull) && read < maxLineRead {
		if read += len(part); read <= limit {
			whole = append(whole, part...)
		}
		part, err = w.in.ReadSlice('\n')
	}
	switch {
	case err != nil && !errors.Is(err, bufio.ErrBufferFull):
		return "", err
	case read+len(part) > limit+2:
		return string(whole), errLineLong // read to its end, so that the client hears the answer
	}
	return string(withoutEnd(append(whole, part...))), nil
}

func withoutEnd(line []byte) []byte {
	return bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
}

// say sends a line.
func (w *wire) say(parts ...string) {
	for _, p := range parts {
		w.write(p)
	}
	w.write("\r\n")
}

func (w *wire) write(s string) {
	if !w.mute && w.open() {
		w.out.WriteString(s)
	}
}

func (w *wire) bytes(b []byte) {
	if !w.mute && w.open() {
		w.out.Write(b)
	}
}

func (w *wire) open() bool {
	if w.ending && w.out == nil {
		return false
	}
	if w.out == nil {
		w.out = writers.Get().(*bufio.Writer)
		w.out.Reset((*slowly)(w))
	}
	return true
}

// flush sends what was said, and gives the buffer back.
func (w *wire) flush() error {
	if w.out == nil {
		return nil
	}
	err := w.out.Flush()
	w.out.Reset(nil)
	writers.Put(w.out)
	w.out = nil
	return err
}

// slowly is the way out of a wire: whole, drop by drop, or up to a cut.
type slowly wire

func (s *slowly) Write(b []byte) (int, error) {
	w := (*wire)(s)
	w.conn.SetWriteDeadline(time.Now().Add(clientPatience))
	if w.cut > 0 && int64(len(b)) >= w.cut {
		w.conn.Write(b[:w.cut])
		w.hangUp()
		return 0, errDropped
	}
	if w.cut > 0 {
		w.cut -= int64(len(b))
	}
	if w.drip <= 0 {
		return w.conn.Write(b)
	}
	for i := range b {
		w.conn.SetWriteDeadline(time.Now().Add(clientPatience))
		if _, err := w.conn.Write(b[i : i+1]); err != nil {
			return i, err
		}
		if err := w.sim.clock.sleep(w.sim.ctx, w.drip); err != nil {
			return i, err
		}
	}
	return len(b), nil
}

// hangUp ends the connection as if the network had.
func (w *wire) hangUp() {
	w.ending = true
	if t, ok := w.conn.(*tls.Conn); ok {
		t.NetConn().Close()
		return
	}
	w.conn.Close()
}

// fault is what strikes now at a point: one that was set, or the word behind
// the plus of the mailbox.
func (w *wire) fault(point string) *Fault {
	about := []string{w.name}
	if w.who != nil {
		about = append(about, w.who.mailbox.Address, w.who.app)
	}
	if f := w.sim.faults.take(point, about...); f != nil {
		return f
	}
	if w.name == "" || !strings.Contains(w.name, "+") {
		return nil
	}
	return w.sim.faults.readTrigger(point, w.name)
}

// suffer does something with the fault that strikes. Say is how a reply of the
// fault is said.
func (w *wire) suffer(f *Fault, say func(string), do func()) {
	if f == nil {
		do()
		return
	}
	switch f.Do {
	case DoReply:
		say(f.Text)
	case DoSlow:
		w.flush()
		until := w.sim.Now().Add(f.delay(w.knobs().SlowBy))
		w.sim.counts.add(w.kind + ".slow") // a test that waits for it may move the clock now
		if w.sim.clock.wait(w.sim.ctx, until) != nil {
			w.ending = true
			return
		}
		do()
	case DoHang:
		w.flush()
		w.conn.SetReadDeadline(time.Time{})
		io.Copy(io.Discard, w.in)
		w.ending = true
	case DoLost, DoAnswer:
		w.mute = true
		do()
		w.mute = false
		if f.Do == DoAnswer {
			say(f.Text)
			return
		}
		w.hangUp()
	case DoCut:
		w.flush()
		w.cut = max(f.Bytes, 1)
		do()
	case DoDrip:
		w.flush()
		w.drip = f.delay(Duration(time.Second))
		do()
	case DoEndless:
		w.endless(f.Bytes)
	case DoUnreachable:
		w.forgotten = true
		do()
	default:
		w.hangUp()
	}
}

// endless says a line that does not end, of n bytes or for as long as anybody
// listens.
func (w *wire) endless(n int64) {
	w.write("* OK ")
	w.flush()
	chunk := bytes.Repeat([]byte("a"), 16<<10)
	for sent := int64(0); n == 0 || sent < n; sent += int64(len(chunk)) {
		w.conn.SetWriteDeadline(time.Now().Add(clientPatience))
		if _, err := w.conn.Write(chunk); err != nil {
			break
		}
	}
	w.hangUp()
}

// login opens the mailbox of a SASL answer. It says whether the token is good;
// a mailbox that cannot be reached with it shows only later.
func (w *wire) login(c *crowd, answer string, bearer bool, limit int) (ok bool) {
	user, token := readXOAUTH2(answer)
	if bearer {
		user, token = readOAuthBearer(answer)
	}
	w.sim.counts.add(w.kind + ".auth")
	w.name = user
	who, reached := w.sim.smtpd.toRead(user, token, strings.ToUpper(w.kind))
	if who == nil {
		w.sim.counts.add(w.kind + ".auth_failures")
		w.name = ""
		return false
	}
	w.who = who
	w.forgotten = !reached || !c.enter(w, limit)
	w.sim.counts.add(w.kind + ".authenticated")
	return true
}

// ask says a line and reads the answer.
func (w *wire) ask(line string) (string, bool) {
	w.say(line)
	if w.flush() != nil {
		w.ending = true
		return "", false
	}
	answer, err := w.line(maxAuthLine)
	if err != nil {
		w.ending = true
		return "", false
	}
	return answer, true
}

// challengeText is how Google and OAUTHBEARER explain a login that fails.
func challengeText(way string) string {
	why, err := json.Marshal(map[string]string{"status": "401", "schemes": "bearer", "scope": "https://outlook.office.com/" + way + ".AccessAsUser.All"})
	if err != nil {
		panic(err) // plain texts
	}
	return base64.StdEncoding.EncodeToString(why)
}

// userOf is the mailbox in a SASL answer of either kind.
func userOf(answer string) string {
	if user, _ := readXOAUTH2(answer); user != "" {
		return user
	}
	user, _ := readOAuthBearer(answer)
	return user
}

// reachable sees whether the mailbox can still be used.
func (w *wire) reachable() bool {
	if w.forgotten {
		return false
	}
	v := w.sim.world.now.Load()
	_, m := v.mailbox(w.who.mailbox.Address)
	return m != nil && !m.closedTo(w.kind)
}

func (m *Mailbox) closedTo(kind string) bool {
	return strings.EqualFold(kind, "imap") && m.IMAPDisabled || strings.EqualFold(kind, "pop") && m.POPDisabled
}

// toRead checks token and mailbox of a login that wants to read. A good token
// that does not open this mailbox is known, and gets no further.
func (x *exchange) toRead(user, raw, way string) (who *principal, reached bool) {
	v := x.sim.world.now.Load()
	tok, err := x.sim.keys.verify(raw)
	if err != nil {
		x.sim.log.Debug("login refused", "way", way, "user", user, "why", err)
		return nil, false
	}
	home := v.tenants[strings.ToLower(tok.TenantID)]
	if home == nil || findResource(tok.Audience, home.Cloud) != exchangeResource {
		return nil, false
	}
	t, m := v.mailbox(user)
	if m == nil || t != home {
		m = &Mailbox{Address: user}
		t = nil
	}
	p := &principal{tenant: home, mailbox: m, app: tok.AppID, expires: time.Unix(tok.Expiry, 0)}
	// An alias opens nothing; what is behind a plus is for the sim.
	primary := strings.EqualFold(user, m.Address) || strings.EqualFold(withoutPlus(user), m.Address)
	reached = t != nil && primary && !m.closedTo(way)
	if tok.IDType == "app" {
		p.service = home.service(tok.AppID)
		if p.service == nil || !strings.EqualFold(p.service.ObjectID, tok.ObjectID) || !containsFold(tok.Roles, way+".AccessAsApp") {
			return nil, false
		}
		return p, reached && containsFold(p.service.FullAccess, m.Address)
	}
	at, ok := v.userOf(tok)
	if !ok || at.item.Disabled || at.item.Deleted || !containsFold(strings.Fields(tok.Scopes), way+".AccessAsUser.All") {
		return nil, false
	}
	p.user = at.item
	return p, reached && (p.user.owns(m) || listed(m.FullAccess, p.user))
}
