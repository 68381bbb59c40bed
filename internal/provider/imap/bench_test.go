package imap

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/wire/wiretest"
)

// elsewhere says that the test process is the server of a benchmark.
const elsewhere = "MAILGRANT_IMAP_BENCH"

// standIn speaks as much as a reader asks. In its mailbox are n messages of 10 KB.
type standIn struct{ n int }

var tenKB = "Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("0123456789", 7)+"\r\n", 140)

func (s standIn) serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go s.session(c)
	}
}

func (s standIn) session(c net.Conn) {
	defer c.Close()
	io.WriteString(c, "* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=XOAUTH2] ready\r\n")
	var got []byte
	in := make([]byte, 512)
	for {
		n, err := c.Read(in)
		if err != nil {
			return
		}
		got = append(got, in[:n]...)
		for {
			line, rest, ok := strings.Cut(string(got), "\r\n")
			if !ok {
				break
			}
			got = append(got[:0], rest...)
			if _, err := io.WriteString(c, s.answer(line)); err != nil {
				return
			}
		}
	}
}

func (s standIn) answer(line string) string {
	var out strings.Builder
	tag, command, _ := strings.Cut(line, " ")
	word := strings.Fields(command + " ? ? ?")
	end := " OK done\r\n"
	switch {
	case word[0] == "AUTHENTICATE":
		end = " OK [CAPABILITY IMAP4rev1 IDLE UIDPLUS MOVE] in\r\n"
	case word[0] == "SELECT":
		fmt.Fprintf(&out, "* %d EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n* OK [UIDNEXT %d] x\r\n", s.n, s.n+1)
	case word[0] == "IDLE":
		return "+ idling\r\n"
	case line == "DONE":
		return "" // nobody waits for it here
	case word[1] == "SEARCH":
		from, _, _ := strings.Cut(word[3], ":")
		i, _ := strconv.Atoi(from)
		out.WriteString("* SEARCH")
		for ; i <= s.n; i++ {
			fmt.Fprintf(&out, " %d", i)
		}
		out.WriteString("\r\n")
	case word[1] == "FETCH":
		from, to, _ := strings.Cut(word[2], ":")
		i, _ := strconv.Atoi(from)
		last, _ := strconv.Atoi(to)
		for last = max(i, last); i <= last; i++ {
			if strings.Contains(command, "BODY") {
				fmt.Fprintf(&out, "* %d FETCH (UID %d BODY[] {%d}\r\n%s)\r\n", i, i, len(tenKB), tenKB)
			} else {
				fmt.Fprintf(&out, "* %d FETCH (UID %d INTERNALDATE \"17-Jul-2026 02:44:25 +0000\" RFC822.SIZE %d)\r\n", i, i, len(tenKB))
			}
		}
	}
	return out.String() + tag + end
}

// beServer is what TestMain does in the server's process: its memory is not ours.
func beServer(n int) {
	l, err := tls.Listen("tcp", "127.0.0.1:0", wiretest.ServerTLS())
	if err != nil {
		panic(err)
	}
	cert, _ := wiretest.Pair()
	fmt.Println(l.Addr())
	pem.Encode(os.Stdout, &pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})
	os.Stdout.Close()
	standIn{n}.serve(l)
}

// serverElsewhere starts one and gives the way to it.
func serverElsewhere(b *testing.B, n int) (provider.Way, Config) {
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), elsewhere+"="+strconv.Itoa(n))
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	said, _ := io.ReadAll(out)
	addr, cert, _ := strings.Cut(string(said), "\n")
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(cert))
	sessions := tls.NewLRUClientSessionCache(1024)
	return wayTo(addr, "tls"), Config{TLS: func(name, _ string) *tls.Config {
		return &tls.Config{ServerName: name, RootCAs: roots, MinVersion: tls.VersionTLS12, ClientSessionCache: sessions}
	}}
}

// resident is the memory that the system counts as ours.
func resident() int {
	b, _ := os.ReadFile("/proc/self/statm")
	n, _ := strconv.Atoi(strings.Fields(string(b) + " 0 0")[1])
	return n * os.Getpagesize()
}

// BenchmarkIdle is what a mailbox costs that has read and now waits: memory
// resident, its goroutine and TLS counted.
func BenchmarkIdle(b *testing.B) {
	const mailboxes = 2000
	w, c := serverElsewhere(b, 1)
	ctx, cancel := context.WithCancel(context.Background())
	debug.FreeOSMemory()
	before, goroutines := resident(), runtime.NumGoroutine()
	var done, up sync.WaitGroup
	gate := make(chan struct{}, 8)
	for range mailboxes {
		done.Add(1)
		up.Add(1)
		go func() {
			defer done.Done()
			gate <- struct{}{}
			box, err := Reader(c).Open(ctx, w, provider.Reading{})
			if err == nil {
				_, _, err = box.Next(ctx, "", func(in provider.Incoming) error { _, err := io.Copy(io.Discard, in.Body); return err })
			}
			<-gate
			up.Done()
			if err != nil {
				b.Error(err)
				return
			}
			box.Wait(ctx)
			box.Close()
		}()
	}
	up.Wait()
	for range 8 { // stacks shrink by half each time
		debug.FreeOSMemory()
	}
	b.ReportMetric(float64(resident()-before)/mailboxes/1024, "KB/mailbox")
	b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/mailboxes, "goroutines/mailbox")
	cancel()
	done.Wait()
}

// BenchmarkImport is the first reading of a large mailbox.
func BenchmarkImport(b *testing.B) {
	const messages = 50_000
	w, c := serverElsewhere(b, messages)
	for b.Loop() {
		box, err := Reader(c).Open(b.Context(), w, provider.Reading{Max: 1 << 20})
		if err != nil {
			b.Fatal(err)
		}
		n, at := 0, provider.Cursor("")
		for more := true; more && err == nil; {
			at, more, err = box.Next(b.Context(), at, func(in provider.Incoming) error { n++; _, err := io.Copy(io.Discard, in.Body); return err })
		}
		if err != nil || n != messages {
			b.Fatal(n, err)
		}
		box.Close()
	}
	b.ReportMetric(messages*float64(b.N)/b.Elapsed().Seconds(), "messages/s")
	b.ReportMetric(float64(resident())/(1<<20), "MiB")
}
