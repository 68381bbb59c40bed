package node

import (
	"net"
	"sync"
	"time"
)

// A hearing is a listener whose connections end when the other side does not hear
// what it is told. The bound is on each write, not on an answer: a stream of events
// may last for days, and a check for minutes, as long as somebody listens.
type hearing struct{ net.Listener }

const (
	hearWithin  = 30 * time.Second
	hearSlowest = 8 << 10 // bytes a second that a long write may take besides
)

func (l hearing) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &heard{Conn: c}, nil
}

type heard struct {
	net.Conn
	mu    sync.Mutex
	until time.Time // as a handler has set it, zero: not at all
}

// Write implements io.Writer.
func (c *heard) Write(b []byte) (int, error) {
	if err := c.within(hearWithin + time.Duration(len(b)/hearSlowest)*time.Second); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

func (c *heard) within(d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := time.Now().Add(d)
	if !c.until.IsZero() && c.until.Before(at) {
		at = c.until
	}
	return c.Conn.SetWriteDeadline(at)
}

// SetWriteDeadline bounds the writes to come, which have their own bound too.
func (c *heard) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.until = t
	return c.Conn.SetWriteDeadline(t)
}

// SetDeadline bounds reads and writes.
func (c *heard) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// CloseWrite lets the server say that it is done before the other side is.
func (c *heard) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}
