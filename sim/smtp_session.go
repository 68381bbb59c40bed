package sim

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/mail"
	"strconv"
	"strings"
	"time"
)

// A smtpSession is one connection to the submission service.
type smtpSession struct {
	x    *exchange
	conn net.Conn
	in   *bufio.Reader
	out  *bufio.Writer
	tls  *tls.ConnectionState
	ctx  context.Context
	stop context.CancelFunc

	hello    string
	who      *principal
	box      string // mailbox that was counted as open
	failures int    // of AUTH
	errors   int    // of protocol
	mute     bool   // replies are not sent
	ending   bool

	mailing bool // after MAIL
	from    string
	to      []string
	chunks  []byte // of BDAT
	chunked bool
	bigger  bool  // chunks were dropped
	drop    int64 // end the connection after so many bytes of data
	bad     int   // refused recipients of this message
}

func newSMTPSession(x *exchange, conn net.Conn, state *tls.ConnectionState) *smtpSession {
	c := &smtpSession{x: x, tls: state}
	c.ctx, c.stop = context.WithCancel(x.sim.ctx)
	c.use(conn)
	return c
}

func (c *smtpSession) use(conn net.Conn) {
	c.conn = conn
	c.in = bufio.NewReaderSize(conn, 32<<10)
	c.out = bufio.NewWriterSize(conn, 4<<10)
}

var (
	errLineLong = errors.New("line too long")
	errBareLF   = errors.New("bare line feed")
	errDropped  = errors.New("dropped on purpose")
)

const (
	maxLine     = 2048
	maxAuthLine = 12288
)

// run speaks until one side has enough.
func (c *smtpSession) run() {
	defer c.stop()
	defer func() { c.quit() }()
	c.at("smtp.greeting", func() { c.say(replyBanner) })
	for !c.ending {
		if c.in.Buffered() == 0 && c.out.Flush() != nil {
			return
		}
		line, err := c.line(maxAuthLine)
		switch {
		case errors.Is(err, errLineLong):
			c.mistake(replyLineLong)
			return
		case errors.Is(err, errBareLF):
			c.mistake("500 5.5.2 Syntax error: lines end in CR LF")
		case errors.As(err, new(net.Error)):
			c.say(replyIdle)
			return
		case err != nil:
			return
		default:
			c.command(line)
		}
	}
}

func (c *smtpSession) quit() {
	c.out.Flush()
	if c.box != "" {
		c.x.leave(c.box, c)
	}
	c.x.sim.counts.add("smtp.closed")
	// A hang-up of TLS tells the client that nothing is missing.
	c.conn.Close()
}

// line reads one command without its CRLF.
func (c *smtpSession) line(limit int) (string, error) {
	if idle := time.Duration(c.knobs().IdleTimeout); idle > 0 {
		c.conn.SetReadDeadline(time.Now().Add(idle))
	}
	raw, err := c.in.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull) || len(raw) > limit:
		return "", errLineLong
	case err != nil:
		return "", err
	case !bytes.HasSuffix(raw, []byte("\r\n")):
		return "", errBareLF
	}
	return string(raw[:len(raw)-2]), nil
}

func (c *smtpSession) knobs() Knobs { return c.x.sim.world.now.Load().Knobs }

// say sends a reply. One that begins with 421 is the last.
func (c *smtpSession) say(text string, args ...string) {
	text = c.x.reply(text, args...)
	if c.mute {
		return
	}
	c.out.WriteString(text + "\r\n")
	if strings.HasPrefix(text, "421") {
		c.ending = true
	}
}

// mistake answers a protocol error; too many end the connection.
func (c *smtpSession) mistake(text string, args ...string) {
	c.errors++
	if over(c.errors, c.knobs().ProtocolErrors) {
		text = replyTooManyBad
	}
	c.say(text, args...)
}

// command takes one line apart and does it, unless a fault is in the way.
func (c *smtpSession) command(line string) {
	verb, arg, _ := strings.Cut(line, " ")
	verb = strings.ToUpper(verb)
	if verb != "AUTH" && len(line) > maxLine {
		c.mistake(replyLineLong)
		return
	}
	do, known := smtpCommands[verb]
	if !known {
		c.mistake(replyUnknown, "{verb}", verb)
		return
	}
	point := verb
	if verb == "HELO" {
		point = "EHLO"
	}
	c.at("smtp."+point, func() { do(c, strings.TrimSpace(arg)) }, c.about(arg)...)
}

func (c *smtpSession) about(arg string) []string {
	list := []string{c.box, c.from}
	if i, j := strings.IndexByte(arg, '<'), strings.IndexByte(arg, '>'); i >= 0 && j > i {
		list = append(list, arg[i+1:j])
	}
	return list
}

var smtpCommands map[string]func(*smtpSession, string)

func init() {
	smtpCommands = map[string]func(*smtpSession, string){
		"EHLO": (*smtpSession).ehlo, "HELO": (*smtpSession).helo, "STARTTLS": (*smtpSession).startTLS,
		"AUTH": (*smtpSession).auth, "MAIL": (*smtpSession).mailFrom, "RCPT": (*smtpSession).rcptTo,
		"DATA": (*smtpSession).data, "BDAT": (*smtpSession).bdat,
		"RSET": func(c *smtpSession, _ string) { c.reset(); c.say(replyReset) },
		"NOOP": func(c *smtpSession, _ string) { c.say(replyNoop) },
		"VRFY": func(c *smtpSession, _ string) { c.say(replyVerify) },
		"HELP": func(c *smtpSession, _ string) { c.say(replyHelp) },
		"QUIT": func(c *smtpSession, _ string) { c.say(replyBye); c.ending = true },
	}
}

// at does something at a point, with the fault that strikes there.
func (c *smtpSession) at(point string, do func(), about ...string) {
	c.suffer(c.x.sim.faults.take(point, about...), do)
}

func (c *smtpSession) suffer(f *Fault, do func()) {
	if f == nil {
		do()
		return
	}
	switch f.Do {
	case DoReply:
		c.say(f.Text)
	case DoSlow:
		c.out.Flush()
		if c.x.sim.clock.sleep(c.ctx, f.delay(c.knobs().SlowBy)) != nil {
			c.ending = true
			return
		}
		do()
	case DoHang:
		c.out.Flush()
		c.conn.SetReadDeadline(time.Time{})
		io.Copy(io.Discard, c.in)
		c.ending = true
	case DoLost, DoAnswer:
		c.mute = true
		do()
		c.mute = false
		if f.Do == DoAnswer {
			c.say(f.Text)
			return
		}
		c.hangUp()
	case DoDrop:
		c.drop = max(f.Bytes, 1)
		do()
	default:
		c.hangUp()
	}
}

// hangUp ends the connection without what was still to be said.
func (c *smtpSession) hangUp() {
	c.out.Reset(io.Discard)
	c.conn.Close()
	c.ending = true
}

func (c *smtpSession) ehlo(name string) {
	if !c.greet(name) {
		return
	}
	k := c.knobs()
	lines := []string{"{HOST} Hello [" + hostOf(c.conn.RemoteAddr()) + "]", "SIZE " + strconv.FormatInt(k.Size, 10),
		"PIPELINING", "DSN", "ENHANCEDSTATUSCODES"}
	if c.tls == nil {
		lines = append(lines, "STARTTLS")
	}
	if c.tls != nil || k.PlaintextAuth {
		auth := "AUTH LOGIN XOAUTH2"
		if k.OAuthBearer {
			auth += " OAUTHBEARER"
		}
		lines = append(lines, auth)
	}
	lines = append(lines, "8BITMIME", "BINARYMIME", "CHUNKING", "SMTPUTF8")
	for i, l := range lines {
		mark := "-"
		if i == len(lines)-1 {
			mark = " "
		}
		c.say("250" + mark + l)
	}
}

func hostOf(a net.Addr) string {
	host, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	return host
}

func (c *smtpSession) helo(name string) {
	if c.greet(name) {
		c.say("250 {HOST} Hello [" + hostOf(c.conn.RemoteAddr()) + "]")
	}
}

func (c *smtpSession) greet(name string) bool {
	if !validDomain(name) {
		c.mistake(replyBadName)
		return false
	}
	c.hello = name
	c.reset()
	return true
}

// validDomain takes host names and address literals.
func validDomain(name string) bool {
	if lit, ok := strings.CutPrefix(name, "["); ok {
		lit = strings.TrimPrefix(strings.TrimSuffix(lit, "]"), "IPv6:")
		return net.ParseIP(lit) != nil
	}
	if name == "" || len(name) > 255 || strings.Trim(name, ".-") != name {
		return false
	}
	for _, r := range name {
		if r != '.' && r != '-' && r != '_' && !(r >= '0' && r <= '9') && !(r|0x20 >= 'a' && r|0x20 <= 'z') && r < 0x80 {
			return false
		}
	}
	return true
}

// startTLS drops everything that came before it (RFC 3207 section 4.2).
func (c *smtpSession) startTLS(arg string) {
	if c.tls != nil || arg != "" || c.hello == "" {
		c.mistake(replySequence)
		return
	}
	if c.in.Buffered() > 0 {
		// Commands in the same packet are an attack; nothing of it counts.
		c.x.sim.counts.add("smtp.injected_before_tls")
		c.in.Discard(c.in.Buffered())
	}
	c.say(replyReadyTLS)
	if c.out.Flush() != nil {
		c.ending = true
		return
	}
	conn := tls.Server(c.conn, c.x.sim.tls)
	if err := conn.HandshakeContext(c.ctx); err != nil {
		c.x.sim.counts.add("smtp.tls_failures")
		c.ending = true
		return
	}
	state := conn.ConnectionState()
	c.tls, c.hello = &state, ""
	c.use(conn)
	c.reset()
}

func (c *smtpSession) reset() {
	c.mailing, c.from, c.to, c.chunks, c.chunked, c.bigger, c.bad = false, "", nil, nil, false, false, 0
}

func (c *smtpSession) mailFrom(arg string) {
	switch {
	case c.who == nil:
		c.mistake(replyNotAuthed)
		return
	case c.mailing || c.hello == "":
		c.mistake(replySequence)
		return
	}
	from, params, ok := path(arg, "FROM:")
	if !ok {
		c.mistake(replyBadAddress)
		return
	}
	for _, p := range params {
		name, value, _ := strings.Cut(p, "=")
		switch strings.ToUpper(name) {
		case "SIZE":
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil || n < 0 {
				c.mistake(replyArguments)
				return
			}
			if over(n, c.knobs().Size) {
				c.say(replyTooBig)
				return
			}
		case "BODY", "RET", "ENVID", "SMTPUTF8", "AUTH":
		default:
			c.mistake(replyArguments)
			return
		}
	}
	c.suffer(c.x.sim.faults.smtpTrigger("smtp.MAIL", from), func() {
		c.mailing, c.from = true, from
		c.say(replySenderOK)
	})
}

// path reads the <address> behind FROM: or TO: and the parameters behind it.
func path(arg, word string) (address string, params []string, ok bool) {
	if len(arg) < len(word) || !strings.EqualFold(arg[:len(word)], word) {
		return "", nil, false
	}
	arg = strings.TrimSpace(arg[len(word):])
	end := strings.IndexByte(arg, '>')
	if !strings.HasPrefix(arg, "<") || end < 0 {
		return "", nil, false
	}
	address, params = arg[1:end], strings.Fields(arg[end+1:])
	if address == "" {
		return "", params, word == "FROM:"
	}
	_, err := mail.ParseAddress("<" + address + ">")
	return address, params, err == nil && len(address) <= 320
}

func (c *smtpSession) rcptTo(arg string) {
	if c.who == nil || !c.mailing {
		c.mistake(replySequence)
		return
	}
	to, _, ok := path(arg, "TO:")
	if !ok {
		c.bad++
		c.mistake(replyBadRecipient)
		return
	}
	limit := c.who.mailbox.RecipientLimit
	if limit == 0 {
		limit = c.knobs().RecipientsPerMail
	}
	if over(len(c.to)+1, limit) {
		c.say(replyTooMany)
		return
	}
	f := c.x.sim.faults.smtpTrigger("smtp.RCPT", to)
	if f != nil {
		f.Text = strings.ReplaceAll(f.Text, "{to}", to)
	}
	c.suffer(f, func() {
		c.to = append(c.to, to)
		c.say(replyRecipientOK)
	})
}

func (c *smtpSession) data(arg string) {
	if !c.mailing || len(c.to) == 0 || c.chunked || arg != "" {
		c.mistake(replySequence)
		return
	}
	c.say(replyStartMail)
	if c.out.Flush() != nil {
		c.ending = true
		return
	}
	body, err := c.readData()
	if err != nil {
		c.hangUp()
		return
	}
	c.dot(body)
}

// bdat takes one chunk (RFC 3030).
func (c *smtpSession) bdat(arg string) {
	fields := strings.Fields(arg)
	var size int64 = -1
	if len(fields) > 0 {
		size, _ = strconv.ParseInt(fields[0], 10, 64)
		if fields[0] != fmt.Sprint(size) {
			size = -1
		}
	}
	last := len(fields) == 2 && strings.EqualFold(fields[1], "LAST")
	if size < 0 || size > 1<<31 || len(fields) > 2 || len(fields) == 2 && !last {
		c.mistake(replyArguments)
		c.ending = true // what follows cannot be told from commands
		return
	}
	if !c.mailing || len(c.to) == 0 {
		io.CopyN(io.Discard, c.in, size)
		c.mistake(replySequence)
		return
	}
	c.chunked = true
	c.bigger = c.bigger || over(int64(len(c.chunks))+size, c.knobs().Size)
	into := io.Writer(io.Discard)
	chunk := new(bytes.Buffer)
	if !c.bigger {
		into = chunk
	}
	if _, err := io.CopyN(into, c.in, size); err != nil {
		c.hangUp()
		return
	}
	c.chunks = append(c.chunks, chunk.Bytes()...)
	if !last {
		c.say("250 2.0.0 " + fields[0] + " octets received")
		return
	}
	c.dot(&dataRead{raw: c.chunks, tooBig: c.bigger})
}
