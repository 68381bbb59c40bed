package submission

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// Why a session ends on the wire.
var (
	errBare    = errors.New("submission: a bare CR or LF")
	errLong    = errors.New("submission: the line is too long")
	errIdle    = errors.New("submission: idle for too long")
	errOld     = errors.New("submission: the session is too long")
	errClosing = errors.New("submission: shutting down")
)

const (
	smallBuffer = 4 << 10  // of a session that waits for commands
	bodyBuffer  = 64 << 10 // while a message arrives
	writeTime   = time.Minute
	deadlineGap = time.Second // deadlines are moved when they are off by more
	lingerTime  = time.Second
	lingerBytes = 1 << 20
)

// A wire is the connection with what is read but not used, and what is said but
// not written.
type wire struct {
	nc  net.Conn
	raw syscall.RawConn // of the TCP connection beneath; nil where there is none

	buf  []byte
	r, w int // buf[r:w] is unused input
	out  []byte

	readBy, writeBy time.Time // deadlines as they are set
}

// say adds one or more whole lines to what leaves next.
func (w *wire) say(lines string) { w.out = append(w.out, lines...) }

// flush writes what was said.
func (w *wire) flush() error {
	if len(w.out) == 0 {
		return nil
	}
	if now := time.Now(); w.writeBy.Sub(now) < writeTime/2 {
		w.writeBy = now.Add(writeTime)
		w.nc.SetWriteDeadline(w.writeBy)
	}
	_, err := w.nc.Write(w.out)
	w.out = w.out[:0]
	return err
}

// deadline lets reads wait until t.
func (w *wire) deadline(t time.Time) {
	if d := t.Sub(w.readBy); d > deadlineGap || d < 0 {
		w.readBy = t
		w.nc.SetReadDeadline(t)
	}
}

// pending says whether there is input that nobody asked for yet.
func (w *wire) pending() bool { return w.r < w.w }

// drop forgets all unused input.
func (w *wire) drop() { w.r, w.w = 0, 0 }

// read waits for more input behind what is there; room is how much there may be
// in all.
func (w *wire) read(room int) error {
	if w.r == w.w {
		w.r, w.w = 0, 0
	}
	if w.w == len(w.buf) {
		if w.r > 0 {
			w.w = copy(w.buf, w.buf[w.r:w.w])
			w.r = 0
		} else if len(w.buf) < room {
			bigger := make([]byte, min(2*len(w.buf), room))
			w.w = copy(bigger, w.buf[:w.w])
			w.buf = bigger
		} else {
			return errLong
		}
	}
	n, err := w.nc.Read(w.buf[w.w:])
	w.w += n
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// cut takes one whole line out of the input. It gives nil while there is none,
// and scanned, the length it need not look at again.
func (w *wire) cut(limit, scanned int) (line []byte, _ int, err error) {
	have := w.buf[w.r:w.w]
	i := bytes.IndexByte(have[scanned:], '\n')
	if i < 0 {
		if cr := bytes.IndexByte(have, '\r'); cr >= 0 && cr != len(have)-1 {
			return nil, 0, errBare
		}
		if len(have) >= limit {
			return nil, 0, errLong
		}
		return nil, len(have), nil
	}
	line = have[:scanned+i]
	if cr := bytes.IndexByte(line, '\r'); cr < 0 || cr != len(line)-1 {
		return nil, 0, errBare
	}
	if len(line)+1 > limit {
		return nil, 0, errLong
	}
	w.r += len(line) + 1
	return line[: len(line)-1 : len(line)-1], 0, nil
}

// linger closes so that the last words arrive: a connection closed with input
// unread is reset, and the peer never sees why.
func (w *wire) linger() {
	defer w.nc.Close()
	if w.flush() != nil {
		return
	}
	type closeWriter interface{ CloseWrite() error }
	if c, ok := w.nc.(closeWriter); ok {
		c.CloseWrite()
	}
	w.nc.SetReadDeadline(time.Now().Add(lingerTime))
	for left := lingerBytes; left > 0; {
		n, err := w.nc.Read(w.buf)
		if left -= n; err != nil || n == 0 {
			return
		}
	}
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
