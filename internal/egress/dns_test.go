package egress

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/mailgrant/mailgrant"
)

// A server on one of this machine's addresses counts who comes.
func countedServer(t *testing.T, addr string) (came *atomic.Int32) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	came = new(atomic.Int32)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			came.Add(1)
			c.Close()
		}
	}()
	return came
}

// nameserver answers each question for an IPv4 address with what say gives; nil says
// nothing at all.
func nameserver(t *testing.T, say func() *dnsmessage.Message) (r *net.Resolver, asked *atomic.Int32) {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	asked = new(atomic.Int32)
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			var q dnsmessage.Message
			if q.Unpack(buf[:n]) != nil || len(q.Questions) != 1 {
				continue
			}
			ask := q.Questions[0]
			m := says(dnsmessage.RCodeSuccess)
			if ask.Type == dnsmessage.TypeA {
				asked.Add(1)
				m = say()
			}
			if m == nil {
				continue
			}
			m.ID, m.Response, m.Questions = q.ID, true, q.Questions
			for i := range m.Answers {
				m.Answers[i].Header.Name, m.Answers[i].Header.Class = ask.Name, ask.Class
			}
			if out, err := m.Pack(); err == nil {
				pc.WriteTo(out, from)
			}
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, "udp", pc.LocalAddr().String())
		if err == nil {
			t.Cleanup(func() { c.Close() }) // else a question that nobody waits for any more outlives the test
		}
		return c, err
	}}, asked
}

func says(code dnsmessage.RCode, addrs ...string) *dnsmessage.Message {
	m := &dnsmessage.Message{Header: dnsmessage.Header{RCode: code}}
	for _, a := range addrs {
		m.Answers = append(m.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{TTL: 86400}, Body: &dnsmessage.AResource{A: netip.MustParseAddr(a).As4()}})
	}
	return m
}

// What a resolver does wrong passes: the next try asks anew, whatever the answer
// before said and however long it was to be kept.
func TestRE24NamesAreAskedForEachTime(t *testing.T) {
	first := countedServer(t, "127.0.0.1:0")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	one, other := countedServer(t, "127.0.0.1:"+port), countedServer(t, "127.0.0.2:"+port)
	now := new(atomic.Pointer[func() *dnsmessage.Message])
	g := guard(t, Config{Allow: []string{"mail.example:" + port}})
	var asked *atomic.Int32
	g.resolver, asked = nameserver(t, func() *dnsmessage.Message { return (*now.Load())() })
	try := func(say func() *dnsmessage.Message) error {
		now.Store(&say)
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		conn, err := g.Dial(ctx, "tcp", "mail.example:"+port)
		if err == nil {
			conn.Close()
		}
		return err
	}
	good := func() *dnsmessage.Message { return says(dnsmessage.RCodeSuccess, "127.0.0.1") }
	for what, say := range map[string]func() *dnsmessage.Message{
		"no such name":    func() *dnsmessage.Message { return says(dnsmessage.RCodeNameError) },
		"nothing":         func() *dnsmessage.Message { return says(dnsmessage.RCodeSuccess) },
		"that it failed":  func() *dnsmessage.Message { return says(dnsmessage.RCodeServerFailure) },
		"that it may not": func() *dnsmessage.Message { return says(dnsmessage.RCodeRefused) },
		"not a word":      func() *dnsmessage.Message { return nil },
		"where nobody is": func() *dnsmessage.Message { return says(dnsmessage.RCodeSuccess, "127.0.0.3") },
		"too late":        func() *dnsmessage.Message { <-time.After(400 * time.Millisecond); return good() },
	} {
		before := asked.Load()
		err := try(say)
		if e := mailgrant.AsError(err); e == nil || !e.Code.Temporary() || e.Remedy == "" {
			t.Errorf("the resolver says %s: %v", what, err)
		}
		if asked.Load() == before {
			t.Errorf("the resolver says %s: it was not asked", what)
		}
		if what == "too late" {
			continue
		}
		came := one.Load()
		if err := try(good); err != nil {
			t.Errorf("after the resolver said %s: %v", what, err)
		}
		if eventuallyMore(one, came); first.Load() > 0 {
			t.Errorf("after the resolver said %s: another server was reached", what)
		}
	}
	came := other.Load()
	if err := try(func() *dnsmessage.Message { return says(dnsmessage.RCodeSuccess, "127.0.0.2") }); err != nil {
		t.Errorf("after a change: %v", err)
	}
	eventuallyMore(other, came) // hangs when it went to the address before
}

func eventuallyMore(n *atomic.Int32, than int32) {
	for n.Load() <= than {
		<-time.After(time.Millisecond)
	}
}

func TestRE24ResolverThatIsDead(t *testing.T) {
	g := guard(t, Config{})
	var asked atomic.Int32
	g.resolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		asked.Add(1)
		return nil, errors.New("connection refused")
	}}
	_, err := g.Dial(t.Context(), "tcp", "mail.example:443")
	if e := mailgrant.AsError(err); e == nil || e.Code != mailgrant.Unavailable || asked.Load() == 0 {
		t.Errorf("got %v after %d questions", err, asked.Load())
	}
	asked.Store(0)
	l := listen(t)
	g.allow[l.Addr().String()] = true
	for _, addr := range []string{l.Addr().String(), "10.0.0.1:443", "[::1]:443"} {
		if conn, err := g.Dial(t.Context(), "tcp", addr); err == nil {
			conn.Close()
		}
	}
	if n := asked.Load(); n > 0 {
		t.Errorf("a resolver was asked %d times for addresses", n)
	}
}
