package smtp

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/wire/wiretest"
)

// sink takes everything, as quickly as it can be taken.
func sink(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReaderSize(conn, 64<<10)
	io.WriteString(conn, "220 sink\r\n")
	out := make([]byte, 0, 512)
	for {
		l, err := r.ReadSlice('\n')
		if err != nil {
			return
		}
		switch string(l[:4]) {
		case "EHLO":
			out = append(out, "250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SIZE 0\r\n250 AUTH XOAUTH2\r\n"...)
		case "AUTH":
			out = append(out, "235 ok\r\n"...)
		case "DATA":
			conn.Write(append(out, "354 go\r\n"...))
			out = out[:0]
			for {
				l, err := r.ReadSlice('\n')
				if err != nil {
					return
				}
				if string(l) == ".\r\n" {
					break
				}
			}
			out = append(out, "250 2.0.0 OK <1@sink>\r\n"...)
		case "QUIT":
			return
		default:
			out = append(out, "250 ok\r\n"...)
		}
		if r.Buffered() == 0 {
			conn.Write(out)
			out = out[:0]
		}
	}
}

// sinkServer listens and gives its address.
func sinkServer(tb testing.TB) string {
	l, err := tls.Listen("tcp", "127.0.0.1:0", wiretest.ServerTLS())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go sink(c)
		}
	}()
	return l.Addr().String()
}

// BenchmarkSend is one 10 KB message over a kept TLS connection, the sink's own
// work included; cpu-µs is the processor time of both.
func BenchmarkSend(b *testing.B) {
	s, err := Transport(config()).Open(b.Context(), wayTo(sinkServer(b), "tls"))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	body := []byte("From: a@b.example\r\nSubject: x\r\n\r\n" + strings.Repeat("A line of seventy-six letters, as they stand in most of the mail of the world\r\n", 128))
	h := handover("", "b@example.net")
	h.Size = int64(len(body))
	h.Open = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
	defer cancel()
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	before := cpu()
	for b.Loop() {
		if o := s.Send(ctx, h); o.Fate != mailgrant.FateDelivered {
			b.Fatalf("%+v", o)
		}
	}
	b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "cpu-µs/op")
}

func cpu() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkOpen is a connection with its handshake and login.
func BenchmarkOpen(b *testing.B) {
	w, t := wayTo(sinkServer(b), "tls"), Transport(config())
	for b.Loop() {
		s, err := t.Open(b.Context(), w)
		if err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}

var _ provider.Session = (*session)(nil)
