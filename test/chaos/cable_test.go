package chaos

import (
	"io"
	"net"
	"sync"
	"testing"
)

// A cable lies between mailgrant and a server, and can be cut.
type cable struct {
	addr string
	to   string

	mu    sync.Mutex
	open  map[*net.TCPConn]bool
	armed bool
	left  int // armed: bytes until it is cut
	cuts  int
}

func newCable(t *testing.T, to string) *cable {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{addr: l.Addr().String(), to: to, open: map[*net.TCPConn]bool{}}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { c.carry(conn.(*net.TCPConn)) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		c.cut()
		all.Wait()
	})
	return c
}

func (c *cable) carry(near *net.TCPConn) {
	defer near.Close()
	conn, err := net.Dial("tcp", c.to)
	if err != nil {
		return // the server is down
	}
	far := conn.(*net.TCPConn)
	defer far.Close()
	c.mu.Lock()
	c.open[near], c.open[far] = true, true
	c.mu.Unlock()
	var back sync.WaitGroup
	back.Go(func() {
		io.Copy(near, counted{far, c})
		near.CloseWrite()
	})
	io.Copy(far, counted{near, c})
	far.CloseWrite()
	back.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, near)
	delete(c.open, far)
}

// counted is what comes from one end.
type counted struct {
	io.Reader
	c *cable
}

// Read implements io.Reader.
func (r counted) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	c := r.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left -= n; c.armed && c.left < 0 {
		c.armed = false
		c.cutNow()
		return 0, net.ErrClosed
	}
	return n, err
}

// cutAfter cuts once so many bytes have passed.
func (c *cable) cutAfter(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.armed, c.left = true, n
}

// calm takes back what cutAfter asked for.
func (c *cable) calm() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.armed = false
}

// cut ends all connections at once, with whatever is on its way.
func (c *cable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cutNow()
}

func (c *cable) cutNow() {
	for conn := range c.open {
		conn.SetLinger(0)
		conn.Close()
	}
	if len(c.open) > 0 {
		c.cuts++
	}
}
