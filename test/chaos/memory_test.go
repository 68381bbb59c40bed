package chaos

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/smtp"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/sim"
)

// TestSoakRE20Memory has large messages come in all at once, and then be read by
// many who take their time: what they weigh together must not be in memory. With
// MAILGRANT_SOAK they are as many and as large as the case says.
func TestSoakRE20Memory(t *testing.T) {
	senders, readers, size, limit := 16, 60, 25<<20, 400<<10
	if os.Getenv("MAILGRANT_SOAK") != "" {
		senders, readers, size, limit = 40, 200, 25<<20, 400<<10
	}
	w := newWorld(t)
	w.cfg.Limits.MessageBytes = int64(size) + 1<<20
	w.setUp()
	// The provider gives no tokens, so that all of it stays where it is.
	if err := w.sim.SetFault(sim.Fault{Name: "no-token", Point: "token", Do: sim.DoStatus, Status: 503, Probability: 1}); err != nil {
		t.Fatal(err)
	}
	p, err := w.start("")
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop(t)
	before, _ := held(t, p)
	ids := w.sendAtOnce(p, senders, size)
	accepted := peak(t, p)
	w.readAtOnce(p, ids, readers)
	read := peak(t, p)
	t.Logf("%d MiB at once from %d senders: %d MiB resident at most, %d before; %d slow readers: %d", senders*size>>20, senders, accepted>>10, before>>10, readers, read>>10)
	if read > limit {
		t.Errorf("%d MiB were resident, want at most %d", read>>10, limit>>10)
	}
}

// peak is the most that a process had resident, in KiB.
func peak(t *testing.T, p *process) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); f[0] == "VmHWM:" {
			kib, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			return kib
		}
	}
	t.Fatal("it has no peak")
	return 0
}

// sendAtOnce has every sender stop in the middle of its message until all are
// there.
func (w *world) sendAtOnce(p *process, senders, size int) []mailgrant.ID {
	w.t.Helper()
	ids := make([]mailgrant.ID, senders)
	var middle, done sync.WaitGroup
	middle.Add(senders)
	lines := bytes.Repeat([]byte(strings.Repeat("x", 998)+"\r\n"), 32)
	for i := range senders {
		done.Go(func() {
			arrive := sync.OnceFunc(middle.Done)
			defer arrive()
			id, err := func() (mailgrant.ID, error) {
				c, err := smtp.Dial(p.smtp)
				if err != nil {
					return "", err
				}
				defer c.Close()
				if err := c.Auth(smtp.PlainAuth("", "load", w.key, "127.0.0.1")); err != nil {
					return "", err
				}
				return submitBody(c, byGraph, fmt.Sprintf("large %d", i), func(d io.Writer) {
					for n := 0; n < size; n += len(lines) {
						if n >= size/2 {
							arrive()
							middle.Wait()
						}
						d.Write(lines)
					}
				})
			}()
			if err != nil {
				w.t.Errorf("sender %d: %v", i, err)
			}
			ids[i] = id
		})
	}
	done.Wait()
	return ids
}

// readAtOnce has readers ask for the bytes of a message and then take a little of
// them only, until all have done so.
func (w *world) readAtOnce(p *process, ids []mailgrant.ID, readers int) {
	w.t.Helper()
	var begun, done sync.WaitGroup
	begun.Add(readers)
	for i := range readers {
		done.Go(func() {
			arrive := sync.OnceFunc(begun.Done)
			defer arrive()
			conn, err := net.Dial("tcp", strings.TrimPrefix(p.rest, "http://"))
			if err != nil {
				w.t.Error(err)
				return
			}
			defer conn.Close()
			conn.(*net.TCPConn).SetReadBuffer(4 << 10)
			fmt.Fprintf(conn, "GET /v1/submissions/%s/raw HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", ids[i%len(ids)], w.key)
			r := bufio.NewReaderSize(conn, 4<<10)
			res, err := http.ReadResponse(r, nil)
			if err != nil || res.StatusCode != http.StatusOK {
				w.t.Errorf("reader %d: %v, %v", i, res, err)
				return
			}
			if _, err := io.ReadFull(res.Body, make([]byte, 64<<10)); err != nil {
				w.t.Errorf("reader %d: %v", i, err)
			}
			arrive()
			begun.Wait()
		})
	}
	done.Wait()
}
