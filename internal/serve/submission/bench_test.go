package submission_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/serve/submission"
)

// BenchmarkDoor sends 10 KB messages over 32 kept connections to three servers
// in one process: a floor that only reads to the end of data and writes fixed
// answers, this door, and go-smtp. cpu-µs/msg is of the whole process, client
// too: what differs is the server.
func BenchmarkDoor(b *testing.B) {
	for _, server := range []struct {
		name  string
		start func(b *testing.B, l net.Listener) (stop func())
	}{{"floor", startFloor}, {"door", startDoor}, {"go-smtp", startGoSMTP}} {
		for _, pipelined := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/pipelined=%v", server.name, pipelined), func(b *testing.B) {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					b.Fatal(err)
				}
				stop := server.start(b, l)
				defer stop()
				load(b, l.Addr().String(), 32, pipelined)
			})
		}
	}
}

func load(b *testing.B, addr string, clients int, pipelined bool) {
	line := strings.Repeat("x", 76) + "\r\n"
	msg := []byte("From: <a@example.com>\r\nTo: <b@example.org>\r\nSubject: hello\r\n\r\n" + strings.Repeat(line, 10240/len(line)) + ".\r\n")
	var next atomic.Int64
	var wg sync.WaitGroup
	conns := make([]net.Conn, clients)
	rds := make([]*bufio.Reader, clients)
	for i := range conns {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		conns[i], rds[i] = nc, bufio.NewReader(nc)
		want(b, rds[i], "220")
		fmt.Fprintf(nc, "EHLO bench.example.com\r\n")
		want(b, rds[i], "250")
		fmt.Fprintf(nc, "AUTH PLAIN %s\r\n", base64.StdEncoding.EncodeToString([]byte("\x00app\x00mg_good")))
		want(b, rds[i], "235")
	}
	cpu := cpuTime()
	runtime.GC()
	b.ReportAllocs()
	b.ResetTimer()
	for i := range conns {
		wg.Go(func() {
			nc, rd := conns[i], rds[i]
			for next.Add(1) <= int64(b.N) {
				if pipelined {
					io.WriteString(nc, "MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n")
					want(b, rd, "250")
					want(b, rd, "250")
				} else {
					io.WriteString(nc, "MAIL FROM:<a@example.com>\r\n")
					want(b, rd, "250")
					io.WriteString(nc, "RCPT TO:<b@example.org>\r\n")
					want(b, rd, "250")
					io.WriteString(nc, "DATA\r\n")
				}
				want(b, rd, "354")
				nc.Write(msg)
				want(b, rd, "250")
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64((cpuTime()-cpu).Microseconds())/float64(b.N), "cpu-µs/msg")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	for _, nc := range conns {
		nc.Close()
	}
}

func want(tb testing.TB, rd *bufio.Reader, code string) {
	for {
		l, err := rd.ReadSlice('\n')
		if err != nil || !bytes.HasPrefix(l, []byte(code)) {
			tb.Errorf("got %q %v, want %s", l, err, code)
			return
		}
		if l[3] == ' ' {
			return
		}
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// nullOutbox takes everything and keeps nothing.
type nullOutbox struct{}

type nullDraft struct{}

func (nullDraft) Write(p []byte) (int, error) { return len(p), nil }
func (nullDraft) Discard()                    {}

func (nullOutbox) CheckSender(context.Context, mailgrant.Caller, string, mailgrant.Class) error {
	return nil
}
func (nullOutbox) Draft(context.Context, mailgrant.ID) submission.Draft { return nullDraft{} }
func (nullOutbox) Accept(context.Context, mailgrant.Caller, submission.Envelope, submission.Draft) (mailgrant.Submission, error) {
	return mailgrant.Submission{ID: "msg_00000000000000000000000000"}, nil
}

func startDoor(b *testing.B, l net.Listener) func() {
	s := submission.New(submission.Config{Access: newFakeAccess(), Outbox: nullOutbox{}, Host: "bench"})
	done := make(chan error)
	go func() { done <- s.Serve(l, submission.Insecure) }()
	return func() {
		s.Shutdown(context.Background())
		<-done
	}
}

// startFloor does the least that can be done.
func startFloor(b *testing.B, l net.Listener) func() {
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer nc.Close()
				buf := make([]byte, 64<<10)
				io.WriteString(nc, "220 floor\r\n")
				body := false
				for have := 0; ; {
					n, err := nc.Read(buf[have:])
					if err != nil {
						return
					}
					have += n
					if body {
						if bytes.HasSuffix(buf[:have], []byte("\r\n.\r\n")) {
							io.WriteString(nc, "250 2.0.0 accepted as msg_00000000000000000000000000\r\n")
							have, body = 0, false
						}
						continue
					}
					var out []byte
					for {
						i := bytes.IndexByte(buf[:have], '\n')
						if i < 0 {
							break
						}
						switch {
						case bytes.HasPrefix(buf[:i], []byte("DATA")):
							out, body = append(out, "354 go ahead\r\n"...), true
						case bytes.HasPrefix(buf[:i], []byte("AUTH")):
							out = append(out, "235 ok\r\n"...)
						default:
							out = append(out, "250 ok\r\n"...)
						}
						have = copy(buf, buf[i+1:have])
					}
					nc.Write(out)
				}
			})
		}
	})
	return func() { l.Close(); wg.Wait() }
}

type goSMTP struct{}

func (goSMTP) NewSession(*smtp.Conn) (smtp.Session, error) { return &goSession{}, nil }

type goSession struct{}

func (*goSession) AuthMechanisms() []string { return []string{"PLAIN"} }
func (*goSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, _, _ string) error { return nil }), nil
}
func (*goSession) Mail(string, *smtp.MailOptions) error { return nil }
func (*goSession) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (*goSession) Data(r io.Reader) error {
	_, err := io.Copy(nullDraft{}, r)
	return err
}
func (*goSession) Reset()        {}
func (*goSession) Logout() error { return nil }

func startGoSMTP(b *testing.B, l net.Listener) func() {
	s := smtp.NewServer(goSMTP{})
	s.Domain, s.AllowInsecureAuth, s.MaxMessageBytes, s.MaxRecipients = "bench", true, 35<<20, 500
	s.ReadTimeout, s.WriteTimeout = 5*time.Minute, time.Minute
	done := make(chan error)
	go func() { done <- s.Serve(l) }()
	return func() { s.Close(); <-done }
}
