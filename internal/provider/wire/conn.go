package wire

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
)

// A Conn is a connection to a mail server: in the clear at first, then secured.
type Conn struct {
	net.Conn          // what is spoken over
	raw      net.Conn // below TLS
}

// NewConn begins in the clear.
func NewConn(c net.Conn) *Conn { return &Conn{Conn: c, raw: c} }

// CloseWith ends the connection when ctx does, until stop is called.
func (c *Conn) CloseWith(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, c.Cut)
}

// Cut ends the connection without TLS's farewell, which a server that does not
// read would keep us waiting with.
func (c *Conn) Cut() { c.raw.Close() }

// TLS is what was agreed on with the server; nothing in the clear.
func (c *Conn) TLS() tls.ConnectionState {
	if t, ok := c.Conn.(*tls.Conn); ok {
		return t.ConnectionState()
	}
	return tls.ConnectionState{}
}

// The bounds of one line. SM-16, IM-06.
const (
	lineMax = 2 << 10 // kept of it

	// AnswerMax is what is read of an answer, kept or not.
	AnswerMax = 1 << 20
)

// ErrFlood is a server that talks on and on.
var ErrFlood = errors.New("the server's answer does not end")

// ReadLine reads a line, keeps its first part, and says how long it was.
func ReadLine(r *bufio.Reader) (line string, n int, err error) {
	part, err := r.ReadSlice('\n')
	n = len(part)
	line = string(part[:min(n, lineMax)])
	for errors.Is(err, bufio.ErrBufferFull) {
		if n > AnswerMax {
			return "", n, ErrFlood
		}
		part, err = r.ReadSlice('\n')
		n += len(part)
	}
	if err == io.EOF && n > 0 {
		err = io.ErrUnexpectedEOF
	}
	return strings.TrimRight(line, "\r\n"), n, err
}
