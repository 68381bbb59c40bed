package submission_test

import (
	"bufio"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"

	"github.com/mailgrant/mailgrant/internal/serve/submission"
)

// A pipes is a listener without a network: a write is one segment, and time in a
// bubble of synctest passes by itself.
type pipes struct {
	conns  chan net.Conn
	fails  chan error
	closed chan struct{}
	once   sync.Once
	addr   net.Addr
}

func newPipes() *pipes {
	return &pipes{conns: make(chan net.Conn), fails: make(chan error), closed: make(chan struct{}), addr: tcp("127.0.0.1")}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case nc := <-p.conns:
		return nc, nil
	case err := <-p.fails:
		return nil, err
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return p.addr }

func tcp(ip string) net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(ip), 12345))
}

// from is a connection of a peer.
type from struct {
	net.Conn
	peer net.Addr
}

func (f from) RemoteAddr() net.Addr { return f.peer }

// pipes opens a door that is reached without a network.
func (r *rig) pipes(security submission.Security) *pipes {
	p := newPipes()
	r.serve(p, security)
	return p
}

// dial comes from an address.
func (p *pipes) dial(t *testing.T, ip string) *client {
	ours, theirs := net.Pipe()
	t.Cleanup(func() { ours.Close() })
	p.conns <- from{theirs, tcp(ip)}
	return &client{ours, bufio.NewReaderSize(ours, 64<<10)}
}

// rest hears all that is said until the door closes, while pieces are sent one
// by one.
func (c *client) rest(pieces ...string) string {
	heard := make(chan string)
	go func() {
		b, _ := io.ReadAll(c.rd)
		heard <- string(b)
	}()
	for _, p := range pieces {
		if _, err := io.WriteString(c.nc, p); err != nil {
			break // closed already; what was said is heard
		}
	}
	return <-heard
}
