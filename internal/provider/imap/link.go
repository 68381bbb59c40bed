package imap

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/mailgrant/mailgrant/internal/provider/wire"
)

// The bounds of what a server may send. IM-06.
const (
	lineMax    = 1 << 20  // one answer with its literals, but for the bytes of a message
	literalMax = 64 << 10 // a literal that is no message
	floodMax   = 8 << 20  // all answers to one command, messages not counted
	readAhead  = 16 << 10
)

var (
	errGarbled = errors.New("unexpected response: it is not IMAP")
	errFlood   = errors.New("unexpected response: it does not end")
)

// buffers are lent to connections that are being read. An idle one has none.
var buffers = sync.Pool{New: func() any { return new([readAhead]byte) }}

// A link reads and writes one connection. Between commands it holds no memory
// but the socket's and TLS's own.
type link struct {
	conn *wire.Conn
	buf  *[readAhead]byte // nil while nothing is unread
	r, w int              // what is unread of it
	line []byte           // the answer being read; its response points into it
	left int              // of floodMax
	body *literal         // what must be read before the next answer
	tags int

	bodies   bool          // messages have been asked for
	patience time.Duration // with a message, besides what its size takes
}

// idle gives back what is not needed until the next answer.
func (l *link) idle() {
	if l.buf != nil && l.r == l.w {
		buffers.Put(l.buf)
		l.buf = nil
	}
	l.line = nil
}

// fill reads what is there into the empty buffer.
func (l *link) fill() error {
	if l.buf == nil {
		l.buf = buffers.Get().(*[readAhead]byte)
	}
	n, err := l.receive(l.buf[:])
	l.r, l.w = 0, n
	if n > 0 {
		return nil
	}
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}

// receive reads from the connection. Within a message the server has its own time,
// and whoever takes the message another.
func (l *link) receive(p []byte) (int, error) {
	b := l.body
	if b == nil {
		return l.conn.Read(p)
	}
	began := time.Now()
	l.conn.SetReadDeadline(began.Add(max(b.wait, time.Millisecond)))
	n, err := l.conn.Read(p)
	b.wait -= time.Since(began)
	return n, err
}

// await waits for the first byte of an answer, without a buffer. It says whether
// one came before the deadline. Whoever ends ctx sets a deadline that has passed.
func (l *link) await(ctx context.Context, until time.Time) (bool, error) {
	if l.r < l.w {
		return true, nil
	}
	l.idle()
	l.conn.SetReadDeadline(until)
	if ctx.Err() != nil { // before our deadline, so that it is lost
		return false, nil
	}
	var first [1]byte
	n, err := l.conn.Read(first[:])
	if n == 1 {
		l.buf = buffers.Get().(*[readAhead]byte)
		l.buf[0], l.r, l.w = first[0], 0, 1
		return true, nil
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return false, nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return false, err
}

func (l *link) spend(n int) error {
	if l.left -= n; l.left < 0 || len(l.line)+n > lineMax {
		return errFlood
	}
	return nil
}

// readLine adds what comes up to the next line end, which it leaves out.
func (l *link) readLine() error {
	for from := len(l.line); ; {
		if l.r == l.w {
			if err := l.fill(); err != nil {
				return cut(err, len(l.line) > 0)
			}
		}
		part := l.buf[l.r:l.w]
		end := bytes.IndexByte(part, '\n')
		if end >= 0 {
			part = part[:end+1]
		}
		if err := l.spend(len(part)); err != nil {
			return err
		}
		l.line = append(l.line, part...)
		l.r += len(part)
		if end >= 0 {
			l.line = l.line[:len(l.line)-1]
			if n := len(l.line) - 1; n >= from && l.line[n] == '\r' {
				l.line = l.line[:n]
			}
			return nil
		}
	}
}

// readLiteral adds n bytes.
func (l *link) readLiteral(n int) error {
	if err := l.spend(n); err != nil {
		return err
	}
	for n > 0 {
		if l.r == l.w {
			if err := l.fill(); err != nil {
				return cut(err, true)
			}
		}
		part := l.buf[l.r:min(l.w, l.r+n)]
		l.line = append(l.line, part...)
		l.r += len(part)
		n -= len(part)
	}
	return nil
}

// cut is an end in the middle of something.
func cut(err error, inside bool) error {
	if err == io.EOF && inside {
		return io.ErrUnexpectedEOF
	}
	return err
}

// read gives the next answer. Its bytes are good until the next read. One that
// holds a message stops before its bytes: they are in body, and are to be read
// before anything else is.
func (l *link) read() (response, error) {
	if err := l.drain(); err != nil {
		return response{}, err
	}
	l.line = l.line[:0]
	if err := l.readLine(); err != nil {
		return response{}, err
	}
	r, err := parse(l.line)
	if err != nil || r.status() || r.tag == "+" {
		return r, err
	}
	if l.body, err = l.finish(r.kind == "FETCH"); err != nil {
		return response{}, err
	}
	return parse(l.line)
}

// finish reads the literals of an answer and what follows them, up to the end or
// to the bytes of a message.
func (l *link) finish(fetch bool) (*literal, error) {
	for from := 0; ; {
		head, n, ok, err := marker(l.line[from:])
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, nil
		}
		if fetch && l.bodies && endsInBody(head) {
			return &literal{l: l, n: n, left: n, wait: l.patience + time.Duration(n/slowest)*time.Second}, nil
		}
		if n > literalMax {
			return nil, errFlood
		}
		l.line = append(l.line, '\n') // the scanner takes it for the line end
		if err := l.readLiteral(int(n)); err != nil {
			return nil, err
		}
		from = len(l.line)
		if err := l.readLine(); err != nil {
			return nil, err
		}
	}
}

// marker looks for the length of a literal at the end of a line. RFC 3501
// section 4.3, RFC 7888.
func marker(line []byte) (head []byte, n int64, ok bool, err error) {
	if len(line) == 0 || line[len(line)-1] != '}' {
		return nil, 0, false, nil
	}
	open := bytes.LastIndexByte(line, '{')
	if open < 0 {
		return nil, 0, false, nil
	}
	digits := bytes.TrimSuffix(line[open+1:len(line)-1], []byte("+"))
	n, err = strconv.ParseInt(string(digits), 10, 64)
	if err != nil || n < 0 || digits[0] == '+' || digits[0] == '-' {
		return nil, 0, false, errGarbled
	}
	return line[:open], n, true, nil
}

func endsInBody(head []byte) bool {
	head = bytes.TrimSuffix(head, []byte("~"))
	return len(head) >= 7 && bytes.EqualFold(head[len(head)-7:], []byte("BODY[] "))
}

// A literal is the bytes of a message, as they come in.
type literal struct {
	l    *link
	n    int64 // as announced
	left int64
	wait time.Duration // that we still have for the server; who reads may take any time
	err  error
	end  func() error // looks at what comes behind the last byte
}

// Read gives io.EOF only after the answer around the message was seen to end as
// it should: half a message is never taken for a whole one.
func (b *literal) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if b.left == 0 {
		b.err = io.EOF
		if err := b.tail(); err != nil {
			b.err = err
		}
		b.l.body = nil
		return 0, b.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	l := b.l
	n := 0
	if l.r == l.w && len(p) >= readAhead/2 { // past the buffer
		n, b.err = l.receive(p[:min(int64(len(p)), b.left)])
	} else {
		if l.r == l.w {
			b.err = l.fill()
		}
		if b.err == nil {
			n = copy(p, l.buf[l.r:min(l.w, l.r+int(min(b.left, readAhead)))])
			l.r += n
		}
	}
	b.left -= int64(n)
	if n > 0 {
		b.err = nil // it comes again
		return n, nil
	}
	b.err = cut(b.err, true)
	if b.err == nil {
		b.err = io.ErrNoProgress
	}
	return 0, b.err
}

// tail reads the answer on to its end.
func (b *literal) tail() error {
	l := b.l
	l.line = append(l.line[:0], "* 0 FETCH (X \"\""...) // what stood before has been read
	if err := l.readLine(); err != nil {
		return err
	}
	body, err := l.finish(false)
	if err != nil || body != nil {
		return errors.Join(errGarbled, err)
	}
	if b.end != nil {
		return b.end()
	}
	return nil
}

// drain reads past a message that nobody read to its end.
func (l *link) drain() error {
	if l.body == nil {
		return nil
	}
	b := l.body
	if b.err != nil && b.err != io.EOF {
		return b.err
	}
	b.end = nil
	_, err := io.Copy(io.Discard, b)
	return err
}

// write sends whole commands.
func (l *link) write(b []byte) error {
	_, err := l.conn.Write(b)
	return err
}

// tag makes the next tag.
func (l *link) tag() string {
	l.tags++
	return "A" + strconv.Itoa(l.tags)
}

// close ends the connection and gives back what it held.
func (l *link) close() {
	l.conn.Cut()
	l.r = l.w
	l.idle()
	l.body = nil
}
