package rfc5322

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
)

// The bounds of R-ME1 inside a message. What is over them is kept as bytes and
// not looked into.
const (
	MaxDepth = 64
	MaxParts = 2000

	window      = 32 << 10 // bytes held of a message; only a larger header makes it grow
	maxBoundary = 256      // RFC 2046 allows 70
)

// A visitor is told of a message in the order of its bytes. The slices it is
// given are good during the call only.
type visitor interface {
	field(k fieldKind, v []byte) // of the message's own header, folded as it came
	headed(e *entity)            // the header is over
	begin(e *entity) bool        // the content of a part begins; false: it is not wanted
	data(p []byte) bool          // of it, decoded; false: no more is wanted
	end()                        // of the part
	done() bool                  // asked then: nothing more of the message is wanted
	note(why string)             // something could not be read
}

// A walker reads a message once, from its first byte to its last, and holds a
// window of it. It never calls itself, and looks at each byte a bounded number
// of times whatever the message is made of: work counts them. ME-01, ME-02.
type walker struct {
	r          io.Reader
	v          visitor
	buf        []byte
	start, end int // what is read and not yet passed on
	err        error
	size       int64 // bytes read
	work       int64 // bytes looked at

	levels  []level
	index   map[string]int // of the boundaries, when there are many
	indexed bool           // and it is true
	parts   int
	skip    bool // the content of this part is not wanted
	over    bool // no more of this message is parsed
	stop    bool // nor read
	dec     decoder
	charset string // of the message, for what does not say its own
}

// A level is an open multipart.
type level struct {
	boundary    []byte
	kind        string // "multipart/mixed"
	parts       int
	plain, html bool // a text of that kind was seen in it
}

var walkers = sync.Pool{New: func() any { return &walker{buf: make([]byte, window)} }}

// walk reads all of r for v. The error is r's own.
func walk(r io.Reader, v visitor) (size, work int64, err error) {
	w := walkers.Get().(*walker)
	*w = walker{r: r, v: v, buf: w.buf, levels: w.levels[:0], dec: decoder{to: v, carry: w.dec.carry[:0], out: w.dec.out[:0]}}
	err = w.message()
	size, work = w.size, w.work
	w.r, w.v, w.dec.to = nil, nil, nil
	if len(w.buf) > window {
		w.buf = make([]byte, window)
	}
	walkers.Put(w)
	return size, work, err
}

func (w *walker) message() error {
	w.leadIn()
	e := w.head(true)
	for !w.stop {
		leaf := w.open(&e)
		at, closing, met := w.content()
		if leaf {
			w.dec.close()
			w.v.end()
			w.stop = w.v.done()
		}
		if !met || w.stop {
			break
		}
		if e = w.next(at, closing); w.over {
			w.levels = w.levels[:0]
		}
	}
	if !w.stop && !w.over {
		w.unclosed()
	}
	if w.stop || errors.Is(w.err, io.EOF) {
		return nil
	}
	return w.err
}

// leadIn passes what stands before the header: a byte order mark, the envelope
// line of a mailbox file, empty lines before a field.
func (w *walker) leadIn() {
	for w.end-w.start < 512 && w.fill() {
	}
	w.drop("\xef\xbb\xbf")
	b := w.buf[w.start:w.end]
	if bytes.HasPrefix(b, []byte("From ")) || bytes.HasPrefix(b, []byte(">From ")) {
		w.start += lineLen(b)
	}
	rest := bytes.TrimLeft(w.buf[w.start:w.end], "\r\n \t")
	if name, _, ok := cutName(rest[:lineLen(rest)]); ok && known(name) {
		w.start = w.end - len(rest)
	}
}

func (w *walker) drop(prefix string) {
	if bytes.HasPrefix(w.buf[w.start:w.end], []byte(prefix)) {
		w.start += len(prefix)
	}
}

// next is the part that begins at the boundary of level at, or what follows the
// last one.
func (w *walker) next(at int, closing bool) entity {
	for i := at + 1; i < len(w.levels); i++ {
		w.childless(&w.levels[i])
	}
	w.levels, w.indexed = w.levels[:at+1], false
	if closing {
		w.childless(&w.levels[at])
		w.levels = w.levels[:at]
		return entity{aside: true}
	}
	if w.parts++; w.parts > MaxParts {
		w.v.note("it has more than 2,000 parts")
		w.over = true
		return entity{aside: true}
	}
	w.levels[at].parts++
	return w.head(false)
}

// unclosed notes what the end of the message leaves open.
func (w *walker) unclosed() {
	for i := range w.levels {
		if w.childless(&w.levels[i]); w.levels[i].parts > 0 {
			w.v.note("the message ends in the middle of a multipart")
		}
	}
}

func (w *walker) childless(l *level) {
	if l.parts == 0 {
		w.v.note("a multipart has no part")
	}
}

// open goes into a part. leaf says that its content was announced.
func (w *walker) open(e *entity) (leaf bool) {
	if strings.HasPrefix(e.kind, "multipart/") && !e.aside {
		switch {
		case len(w.levels) >= MaxDepth:
			w.v.note("its parts are nested deeper than 64")
			e.encoding = identity
		case !w.guess(e):
			w.v.note("a multipart has no boundary")
			e.kind, e.encoding = "text/plain", identity
		default:
			root := len(w.levels) == 0
			w.levels, w.indexed = append(w.levels, level{boundary: []byte(e.boundary), kind: e.kind}), false
			*e = entity{aside: true}
			if root {
				*e = entity{kind: "text/plain", charset: w.charset, preamble: true}
			}
		}
	}
	if e.aside {
		w.skip = true
		return false
	}
	if len(w.levels) > 0 {
		e.up, e.depth = &w.levels[len(w.levels)-1], len(w.levels)
	}
	w.dec.begin(e.encoding)
	w.skip = !w.v.begin(e)
	e.up = nil
	return true
}

// guess takes a line of dashes at the begin of the content for the boundary,
// where the header names none, or one that does not come.
func (w *walker) guess(e *entity) bool {
	for w.end-w.start < guessed && w.fill() {
	}
	b := w.buf[w.start:min(w.end, w.start+guessed)]
	if e.boundary != "" && bytes.Contains(b, []byte("--"+e.boundary)) {
		return true
	}
	w.work += int64(len(b))
	first := true
	for len(b) > 0 {
		line := bytes.TrimRight(b[:lineLen(b)], " \t\r\n")
		b = b[lineLen(b):]
		if len(line) > 4 && len(line) <= maxBoundary && line[0] == '-' && line[1] == '-' && !bytes.HasSuffix(line, dashes) {
			if w.isBoundary(line) || !first && !bytes.Contains(b, line) {
				return e.boundary != ""
			}
			e.boundary = string(line[2:])
			return true
		}
		first = first && len(line) == 0
	}
	return e.boundary != ""
}

const guessed = 4 << 10 // bytes in which a boundary is looked for

var dashes = []byte("--")

// fill reads more behind what is held; false at the end, or when there is no
// room.
func (w *walker) fill() bool {
	if w.err != nil {
		return false
	}
	if w.start == w.end {
		w.start, w.end = 0, 0
	}
	if w.start > 0 && len(w.buf)-w.end < window/4 {
		w.work += int64(w.end - w.start)
		w.end = copy(w.buf, w.buf[w.start:w.end])
		w.start = 0
	}
	if w.end == len(w.buf) {
		if len(w.buf) > MaxHeader {
			return false
		}
		w.buf = slices.Grow(w.buf, len(w.buf)*3)
		w.buf = w.buf[:min(cap(w.buf), MaxHeader+window)]
	}
	for range 100 {
		n, err := w.r.Read(w.buf[w.end:])
		w.end += n
		w.size += int64(n)
		w.err = err
		if n > 0 || err != nil {
			return n > 0
		}
	}
	w.err = io.ErrNoProgress
	return false
}

// content passes the content of a part on, up to the line that is the boundary
// of an open multipart; it goes past that line. met is false at the end of the
// message. The line end before a boundary belongs to it. RFC 2046 section 5.1.1.
func (w *walker) content() (at int, closing, met bool) {
	scanned := -1 // bytes of what is held that have no boundary in them; -1: at the begin of a line
	for {
		b := w.buf[w.start:w.end]
		if len(w.levels) == 0 {
			w.start = w.end
			w.pass(b)
			if !w.fill() {
				return 0, false, false
			}
			continue
		}
		from, dash := 0, 0 // where the line end before the dashes begins, and they
		if scanned >= 0 {
			i := bytes.Index(b[scanned:], lineOfDashes)
			if i < 0 {
				w.work += int64(len(b) - scanned)
				keep := tail(b)
				w.pass(b[:len(b)-keep])
				w.start, scanned = w.end-keep, 0
				if !w.fill() {
					w.pass(b[len(b)-keep:])
					w.start = w.end
					return 0, false, false
				}
				continue
			}
			w.work += int64(i)
			from, dash = scanned+i, scanned+i+1
			if from > 0 && b[from-1] == '\r' {
				from--
			}
		}
		line := b[dash:]
		n := bytes.IndexByte(line[:min(len(line), maxBoundaryLine)], '\n') + 1
		if n == 0 && len(line) < maxBoundaryLine {
			w.pass(b[:from])
			w.start += from
			if scanned > 0 {
				scanned = 0
			}
			if w.fill() {
				continue // with the whole line
			}
			b, from, dash, n = b[from:], 0, dash-from, len(line)
		}
		w.work += int64(n)
		if at, closing, met = w.boundary(line[:n]); met {
			w.pass(b[:from])
			w.start += dash + n
			return at, closing, true
		}
		scanned = min(dash+2, len(b))
		if scanned > dash && b[dash] != '-' { // the content begins with another line
			scanned = 0
		}
	}
}

const maxBoundaryLine = maxBoundary + 16

var lineOfDashes = []byte("\n--")

// tail is how much of the end of b could be the begin of a line end with a
// boundary behind it.
func tail(b []byte) int {
	n := 0
	if n < len(b) && b[len(b)-1-n] == '-' {
		n++
	}
	if n < len(b) && b[len(b)-1-n] == '\n' {
		n++
		if n < len(b) && b[len(b)-1-n] == '\r' {
			n++
		}
		return n
	}
	if n == 0 && len(b) > 0 && b[len(b)-1] == '\r' {
		return 1
	}
	return 0
}

// boundary says whether a line is the boundary of an open multipart: the
// innermost counts.
func (w *walker) boundary(line []byte) (at int, closing, ok bool) {
	if len(line) < 3 || line[0] != '-' || line[1] != '-' || len(line) > maxBoundaryLine {
		return 0, false, false
	}
	for line = line[2:]; len(line) > 0 && space(line[len(line)-1]); {
		line = line[:len(line)-1]
	}
	at = w.level(line)
	if n := len(line) - 2; n > 0 && line[n] == '-' && line[n+1] == '-' {
		if i := w.level(line[:n]); i > at {
			return i, true, true
		}
	}
	return at, false, at >= 0
}

func space(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// level is the innermost with that boundary, -1 when there is none. Of many it
// does not try each: a line costs the same however deep it stands.
func (w *walker) level(boundary []byte) int {
	w.work += int64(len(boundary))
	if len(w.levels) <= 4 {
		for i := len(w.levels) - 1; i >= 0; i-- {
			if bytes.Equal(w.levels[i].boundary, boundary) {
				return i
			}
		}
		return -1
	}
	if !w.indexed {
		w.index, w.indexed = make(map[string]int, len(w.levels)), true
		for i := range w.levels {
			w.index[string(w.levels[i].boundary)] = i
			w.work += int64(len(w.levels[i].boundary))
		}
	}
	if i, ok := w.index[string(boundary)]; ok {
		return i
	}
	return -1
}

// pass gives content to whom it may concern.
func (w *walker) pass(p []byte) {
	if w.skip || len(p) == 0 {
		return
	}
	w.work += int64(len(p))
	w.dec.write(p)
	w.skip = w.dec.full
}
