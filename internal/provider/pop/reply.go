package pop

import (
	"bufio"
	"errors"
	"io"
	"strings"

	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/wire"
)

// The bounds of what is read as lines. IM-06.
const (
	capasMax  = 200 // lines of an answer to CAPA
	readAhead = 4 << 10
)

var errGarbled = errors.New("the server's answer is not POP3")

// A reply is the first line of what the server says to a command.
type reply struct {
	ok   bool
	more bool   // AUTH only: the server waits for us to go on
	code string // RFC 2449 section 8: "IN-USE", "SYS/TEMP"
	text string // the whole line, fit to be kept
	rest string // what stands behind +OK, -ERR or +
}

// parseReply reads the status of a line. RFC 1939 section 3, RFC 5034 section 4.
func parseReply(line string) (reply, error) {
	word, rest, _ := strings.Cut(line, " ")
	r := reply{text: wire.Clean(line, wire.ReplyMax), rest: rest}
	switch strings.ToUpper(word) {
	case "+OK":
		r.ok = true
	case "-ERR":
		if code, _, ok := strings.Cut(strings.TrimPrefix(rest, "["), "]"); ok && strings.HasPrefix(rest, "[") {
			r.code = strings.ToUpper(code)
		}
	case "+":
		r.more = true
	default:
		return reply{}, errGarbled
	}
	return r, nil
}

// readLines gives the lines of a listing to each, until its dot.
func readLines(r *bufio.Reader, each func(line string) error) error {
	for {
		line, _, err := wire.ReadLine(r)
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		if line == "." {
			return nil
		}
		if err := each(strings.TrimPrefix(line, ".")); err != nil {
			return err
		}
	}
}

// dots reads a message as it is behind its dots, up to the one that ends it. Only
// CRLF ends a line: who took a bare LF for one would let a sender end a message
// early and have the rest read as the server's words. RFC 1939 section 3.
type dots struct {
	r     *bufio.Reader
	left  int64 // how much more it may have
	state dotState
	err   error // io.EOF: read to the end
}

type dotState byte

const (
	lineBegin dotState = iota
	inLine
	afterCR
	afterDot   // the first of a line, not given yet
	afterDotCR // both not given yet
)

func newDots(r *bufio.Reader, max int64) *dots { return &dots{r: r, left: max} }

func (d *dots) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) && d.err == nil {
		in, err := d.r.Peek(max(1, d.r.Buffered()))
		if len(in) == 0 {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			d.err = err
			break
		}
		used, made := d.feed(in, p[n:])
		d.r.Discard(used)
		n += made
		if n > 0 && d.r.Buffered() == 0 {
			break
		}
	}
	if d.left -= int64(n); d.left < 0 {
		d.err = provider.ErrTooLarge
		return 0, d.err
	}
	if n > 0 {
		return n, nil
	}
	return 0, d.err
}

// feed takes octets of in and makes octets of out, until one of them ends or the
// message does.
func (d *dots) feed(in, out []byte) (used, made int) {
	for used < len(in) && made < len(out) {
		b := in[used]
		switch d.state {
		case lineBegin:
			if b == '.' {
				d.state = afterDot
				used++
				continue
			}
		case afterDot:
			if b == '\r' {
				d.state = afterDotCR
				used++
				continue
			}
		case afterDotCR:
			if b == '\n' {
				d.err = io.EOF
				return used + 1, made
			}
			out[made], d.state = '\r', afterCR // b is looked at again
			made++
			continue
		}
		switch {
		case b == '\r':
			d.state = afterCR
		case b == '\n' && d.state == afterCR:
			d.state = lineBegin
		default:
			d.state = inLine
		}
		out[made] = b
		used, made = used+1, made+1
	}
	return used, made
}

// whole says whether the message was read to its end.
func (d *dots) whole() bool { return d.err == io.EOF }

// drain reads what is left of the message.
func (d *dots) drain() error {
	if _, err := io.Copy(io.Discard, d); err != nil {
		return err
	}
	return nil
}
