package rfc5322

import (
	"bytes"
	"io"

	"github.com/mailgrant/mailgrant"
)

// bareLineEnd is where the first CR or LF stands that is not part of a CRLF; -1
// when there is none. A CR at the very end counts.
func bareLineEnd(b []byte) int {
	for at := 0; at < len(b); {
		i := bytes.IndexByte(b[at:], '\n')
		line := b[at:]
		if i >= 0 {
			line = b[at : at+i]
			if i == 0 || line[i-1] != '\r' {
				if j := bytes.IndexByte(line, '\r'); j >= 0 {
					return at + j
				}
				return at + i
			}
			line = line[:i-1]
		}
		if j := bytes.IndexByte(line, '\r'); j >= 0 {
			return at + j
		}
		if i < 0 {
			return -1
		}
		at += i + 1
	}
	return -1
}

// Lines passes a message on and sees to its lines. Without Fix a CR or LF of its
// own is an error, told with its place: another server could take it for the end
// of a line, and what follows for a message of its own. With Fix both become
// CRLF, and the last line is ended. SM-02.
type Lines struct {
	W   io.Writer
	Fix bool

	EightBit bool // an octet over 127 was seen
	NUL      bool // an octet 0 was seen

	n  int64 // bytes taken
	cr bool  // the last one was a CR, not passed on yet when Fix
	nl bool  // the last one ended a line
}

// Write takes any part of the message.
func (l *Lines) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	l.EightBit = l.EightBit || !ascii(p)
	l.NUL = l.NUL || bytes.IndexByte(p, 0) >= 0
	err := l.strict(p)
	if l.Fix {
		err = l.fix(p)
	}
	if err != nil {
		return 0, err
	}
	l.n += int64(len(p))
	return len(p), nil
}

func (l *Lines) strict(p []byte) error {
	if l.Fix {
		return nil
	}
	rest, at := p, int64(0)
	if l.cr {
		if p[0] != '\n' {
			return l.bare(-1)
		}
		rest, at = p[1:], 1
	}
	l.cr = len(rest) > 0 && rest[len(rest)-1] == '\r'
	if l.cr {
		rest = rest[:len(rest)-1]
	}
	if i := bareLineEnd(rest); i >= 0 {
		return l.bare(at + int64(i))
	}
	_, err := l.W.Write(p)
	return err
}

func (l *Lines) bare(at int64) error {
	return mailgrant.Errorf(mailgrant.Invalid, nil, "the message has a CR or LF of its own at byte %d", l.n+at).
		Fix("end every line with CR LF, and use neither of them alone").At("raw")
}

// fix passes p on with every line end made CRLF.
func (l *Lines) fix(p []byte) error {
	if !l.cr && p[len(p)-1] != '\r' && bareLineEnd(p) < 0 {
		return l.put(p)
	}
	for len(p) > 0 {
		if l.cr {
			l.cr = false
			if p[0] == '\n' {
				p = p[1:]
			}
			if err := l.put(crlf); err != nil {
				return err
			}
			continue
		}
		i := bytes.IndexAny(p, "\r\n")
		if i < 0 {
			return l.put(p)
		}
		if i > 0 {
			if err := l.put(p[:i]); err != nil {
				return err
			}
		}
		l.cr = p[i] == '\r'
		p = p[i+1:]
		if !l.cr {
			if err := l.put(crlf); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *Lines) put(p []byte) error {
	l.nl = p[len(p)-1] == '\n'
	_, err := l.W.Write(p)
	return err
}

// Close ends the message. It does not close W.
func (l *Lines) Close() error {
	if !l.Fix {
		if l.cr {
			return l.bare(-1)
		}
		return nil
	}
	if l.cr || !l.nl && l.n > 0 {
		l.cr = false
		return l.put(crlf)
	}
	return nil
}
