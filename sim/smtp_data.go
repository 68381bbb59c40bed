package sim

import (
	"bufio"
	"bytes"
	"errors"
	"strings"
	"time"
)

// A dataRead is a message as it came behind DATA, dots taken off.
type dataRead struct {
	raw    []byte
	bare   bool // held a line feed or carriage return of its own
	tooBig bool // more than was advertised; the rest was dropped
}

// readData reads to the end of data, which is CRLF . CRLF and nothing else
// (RFC 5321 section 4.1.1.4). A lax server takes other line ends too.
func (c *smtpSession) readData() (*dataRead, error) {
	d := new(dataRead)
	k := c.knobs()
	atStart, last := true, byte(0)
	for {
		if idle := time.Duration(k.IdleTimeout); idle > 0 {
			c.conn.SetReadDeadline(time.Now().Add(idle))
		}
		piece, err := c.in.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
		if c.drop > 0 {
			if c.drop -= int64(len(piece)); c.drop <= 0 {
				return nil, errDropped
			}
		}
		crlf := bytes.HasSuffix(piece, []byte("\r\n")) || last == '\r' && len(piece) == 1 && piece[0] == '\n'
		whole := crlf || k.AllowBareLF && err == nil
		if atStart && (string(piece) == ".\r\n" || k.AllowBareLF && string(piece) == ".\n") {
			return d, nil
		}
		d.bare = d.bare || hasBare(last, piece, err == nil)
		last = piece[len(piece)-1]
		if atStart && piece[0] == '.' {
			piece = piece[1:]
		}
		atStart = whole
		if d.tooBig = d.tooBig || over(int64(len(d.raw)+len(piece)), k.Size); !d.tooBig {
			d.raw = append(d.raw, piece...)
		}
	}
}

// hasBare says whether a piece holds a carriage return without a line feed or
// the other way round. Last is the byte before the piece.
func hasBare(last byte, piece []byte, ended bool) bool {
	if last == '\r' && piece[0] != '\n' {
		return true
	}
	text := piece
	if ended {
		text = piece[:len(piece)-1]
		prev := last
		if len(text) > 0 {
			prev = text[len(text)-1]
			if prev == '\r' {
				text = text[:len(text)-1]
			}
		}
		if prev != '\r' {
			return true
		}
	} else if text[len(text)-1] == '\r' {
		text = text[:len(text)-1] // its line feed may begin the next piece
	}
	return bytes.IndexByte(text, '\r') >= 0
}

// dot answers the end of data.
func (c *smtpSession) dot(d *dataRead) {
	from, to, who := c.from, c.to, c.who
	c.reset()
	about := append([]string{c.box, from}, to...)
	f := c.x.sim.faults.take("smtp.dot", about...)
	if f == nil {
		f = c.x.sim.faults.smtpTrigger("smtp.dot", about[1:]...)
	}
	if f != nil {
		f.Text = strings.NewReplacer("{auth}", who.name(), "{from}", from).Replace(f.Text)
	}
	c.suffer(f, func() { c.finish(who, from, to, d) })
}

func (c *smtpSession) finish(who *principal, from string, to []string, d *dataRead) {
	head, _ := splitMessage(d.raw)
	switch k := c.knobs(); {
	case d.tooBig:
		c.say(replyTooBig)
		return
	case d.bare && !k.AllowBareLF:
		c.say(replyBareLF)
		return
	case over(int64(len(head)), k.MaxHeaderSize):
		c.say(replyHeaderBig)
		return
	case c.x.crowded(c.box, c):
		c.x.sim.counts.add("smtp.432")
		c.say(reply432)
		return
	}
	// The switches and rights may have changed since the login.
	now := c.x.current(who)
	if now == nil {
		c.say(replyShutdown)
		return
	}
	sub := &submission{via: "smtp", who: now, from: from, to: to, raw: d.raw, noSent: now.mailbox.NoSentCopy}
	reply, _, err := c.x.take(c.ctx, sub)
	if err != nil {
		c.ending = true
		return
	}
	c.say(reply)
}

// current sees a principal in the world as it is now.
func (x *exchange) current(p *principal) *principal {
	v := x.sim.world.now.Load()
	now := *p
	if now.tenant, now.mailbox = v.mailbox(p.mailbox.Address); now.mailbox == nil {
		return nil
	}
	if p.user != nil {
		at, ok := v.users[strings.ToLower(p.user.ID)]
		if !ok {
			return nil
		}
		now.user = at.item
	} else {
		now.service, now.scoped = now.tenant.service(p.app), now.tenant.assignments(p.app, roleSendAsApp)
	}
	return &now
}
