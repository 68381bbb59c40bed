package sim

import (
	"bufio"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func piped(t *testing.T) (*wire, net.Conn) {
	here, there := net.Pipe()
	t.Cleanup(func() { here.Close(); there.Close() })
	return &wire{conn: here, in: bufio.NewReader(here)}, there
}

// A client that was silent for long is still told everything, however much that is.
func TestWireTellsAfterALongSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, client := piped(t)
		go func() {
			w.say("* OK")
			w.flush()
			time.Sleep(10 * clientPatience)
			for range 5 { // of which each takes most of a client's patience
				w.write(strings.Repeat("x", 20<<10))
			}
			w.flush()
			w.conn.Close()
		}()
		n := 0
		for b := make([]byte, 20<<10); ; {
			got, err := client.Read(b)
			n += got
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(clientPatience * 3 / 4)
		}
		if want := 5*20<<10 + len("* OK\r\n"); n != want {
			t.Errorf("got %d bytes, want %d", n, want)
		}
	})
}

// A time that is switched off ends the one before it.
func TestWireWaitsWithoutALimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, client := piped(t)
		w.idle(Duration(time.Second))
		w.idle(-1)
		go func() {
			time.Sleep(time.Hour)
			io.WriteString(client, "NOOP\r\n")
		}()
		if line, err := w.line(100); line != "NOOP" || err != nil {
			t.Errorf("got %q, %v", line, err)
		}
	})
}
