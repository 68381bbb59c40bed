package smtp

import (
	"bufio"
	"errors"
	"strings"

	"github.com/mailgrant/mailgrant/internal/provider/wire"
)

// The bounds of one reply. SM-16.
const (
	linesMax  = 100 // kept of a reply
	readAhead = 4 << 10
)

// A reply is what the server says to one command.
type reply struct {
	code  int
	lines []string // text without the codes
}

func (r reply) good() bool      { return r.code >= 200 && r.code < 300 }
func (r reply) permanent() bool { return r.code >= 500 }

// text is the whole reply in one line, codes in front, fit to be kept.
func (r reply) text() string {
	if r.code == 0 {
		return ""
	}
	return wire.Clean(string([]byte{'0' + byte(r.code/100), '0' + byte(r.code/10%10), '0' + byte(r.code%10)})+" "+strings.Join(r.lines, " "), wire.ReplyMax)
}

// enhanced is the status code that begins the text: "5.7.139". RFC 3463.
func (r reply) enhanced() string {
	if len(r.lines) == 0 {
		return ""
	}
	s, _, _ := strings.Cut(r.lines[0], " ")
	dots := 0
	for i := range len(s) {
		switch {
		case s[i] == '.':
			dots++
		case s[i] < '0' || s[i] > '9':
			return ""
		}
	}
	if dots != 2 || s[0] != '2' && s[0] != '4' && s[0] != '5' {
		return ""
	}
	return s
}

var errGarbled = errors.New("the server's answer is not SMTP")

// readReply reads one reply. The lines beyond the bounds are passed over, so
// that a talkative server is still understood; one without end is not.
func readReply(r *bufio.Reader) (reply, error) {
	var out reply
	for left := wire.AnswerMax; ; {
		line, n, err := wire.ReadLine(r)
		if err != nil {
			return out, err
		}
		if left -= n; left < 0 {
			return out, wire.ErrFlood
		}
		code, more, text, ok := parseLine(line)
		if !ok || out.code != 0 && code != out.code {
			return out, errGarbled
		}
		out.code = code
		if len(out.lines) < linesMax {
			out.lines = append(out.lines, text)
		}
		if !more {
			return out, nil
		}
	}
}

func parseLine(l string) (code int, more bool, text string, ok bool) {
	if len(l) < 3 {
		return 0, false, "", false
	}
	for i := range 3 {
		if l[i] < '0' || l[i] > '9' {
			return 0, false, "", false
		}
		code = code*10 + int(l[i]-'0')
	}
	if code < 200 || code > 559 {
		return 0, false, "", false
	}
	if len(l) == 3 {
		return code, false, "", true
	}
	if l[3] != ' ' && l[3] != '-' {
		return 0, false, "", false
	}
	return code, l[3] == '-', l[4:], true
}
