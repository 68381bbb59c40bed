package smtp

import (
	"bytes"
	"errors"
	"io"
	"sync"
)

// errBare is a message with a CR or LF of its own. It never leaves: the next
// server could see the end of the message there. SM-02.
var errBare = errors.New("the message has a CR or LF of its own")

// A dots is a buffer that a message is written through: dots at the beginning of
// a line are doubled (RFC 5321 section 4.5.2), and the whole leaves in large
// pieces. The last piece holds the final dot, so that no server sees an end
// before all was sent.
type dots struct {
	w    io.Writer
	buf  []byte
	last byte // of what came in
	err  error
	out  bool // something has left
}

const bufSize = 64 << 10

var dotsPool = sync.Pool{New: func() any { return &dots{buf: make([]byte, 0, bufSize)} }}

func newDots(w io.Writer) *dots {
	d := dotsPool.Get().(*dots)
	d.w, d.buf, d.err, d.out = w, d.buf[:0], nil, false
	d.last = '\n' // as at the beginning of a line
	return d
}

func (d *dots) free() {
	d.w = nil
	dotsPool.Put(d)
}

// Write takes any part of the message.
func (d *dots) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 && d.err == nil {
		line := p
		i := bytes.IndexByte(p, '\n')
		if i >= 0 {
			line = p[:i+1]
		}
		d.check(line, i >= 0)
		if line[0] == '.' && d.last == '\n' {
			d.put(line[:1])
		}
		d.put(line)
		d.last = line[len(line)-1]
		p = p[len(line):]
	}
	if d.err != nil {
		return 0, d.err
	}
	return n, nil
}

// check sees that CR and LF stand together. line has no LF but at its end.
func (d *dots) check(line []byte, ended bool) {
	if d.last == '\r' && line[0] != '\n' {
		d.err = errBare
		return
	}
	text := line
	if ended {
		before := d.last
		if len(line) > 1 {
			before = line[len(line)-2]
		}
		if before != '\r' {
			d.err = errBare
			return
		}
		text = line[:max(0, len(line)-2)]
	} else if text[len(text)-1] == '\r' {
		text = text[:len(text)-1]
	}
	if bytes.IndexByte(text, '\r') >= 0 {
		d.err = errBare
	}
}

func (d *dots) put(p []byte) {
	for len(p) > 0 && d.err == nil {
		n := copy(d.buf[len(d.buf):cap(d.buf)], p)
		d.buf = d.buf[:len(d.buf)+n]
		p = p[n:]
		if len(p) > 0 {
			d.flush()
		}
	}
}

func (d *dots) flush() {
	d.out = true
	if _, err := d.w.Write(d.buf); err != nil && d.err == nil {
		d.err = err
	}
	d.buf = d.buf[:0]
}

// end completes the last line and sends the rest with the final dot. dotted says
// whether the dot may have left, whatever the error.
func (d *dots) end() (dotted bool, err error) {
	if d.err != nil {
		return false, d.err
	}
	if d.last == '\r' {
		return false, errBare
	}
	tail := "\r\n.\r\n"
	if d.last == '\n' {
		tail = ".\r\n"
	}
	if len(d.buf)+len(tail) > cap(d.buf) {
		if d.flush(); d.err != nil {
			return false, d.err
		}
	}
	d.buf = append(d.buf, tail...)
	d.flush()
	return true, d.err
}
