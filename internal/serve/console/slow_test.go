package console

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// A pipeListener has one connection, and then none until it is closed.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (l pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l pipeListener) Close() error   { close(l.closed); return nil }
func (l pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// A request whose body never comes costs a connection for a moment only, whether
// the page reads bodies or not.
func TestBodiesThatNeverEnd(t *testing.T) {
	for _, head := range []string{
		"GET / HTTP/1.1\r\nContent-Length: 100\r\n",
		"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n",
		"POST /connect/x HTTP/1.1\r\nOrigin: https://elsewhere.example\r\nContent-Length: 100\r\n",
	} {
		synctest.Test(t, func(t *testing.T) {
			near, far := net.Pipe()
			l := pipeListener{make(chan net.Conn, 1), make(chan struct{})}
			l.conns <- far
			server := &http.Server{Handler: New(Config{PublicURL: "https://mail.contoso.example"})}
			ended := make(chan struct{})
			go func() { server.Serve(l); close(ended) }()
			began := time.Now()
			_, err := io.WriteString(near, head+"Host: mail.contoso.example\r\n\r\n")
			must(t, err)
			res, err := http.ReadResponse(bufio.NewReader(near), nil)
			must(t, err)
			io.Copy(io.Discard, res.Body)
			if d := time.Since(began); d > time.Minute || !res.Close {
				t.Errorf("%q: answered after %v, closed: %v", head, d, res.Close)
			}
			near.Close()
			server.Close()
			<-ended
		})
	}
}
