package adopt

import (
	"strconv"
	"strings"
)

// The words of fetchmail's run control file: what its own scanner makes of it, with
// quotes, C's escapes, comments, and the commas, semicolons, colons and words such
// as "with" that say nothing.

// A word is one of them.
type word struct {
	text   string // as it is meant
	line   int
	quoted bool
	name   bool // stands where only a name can: it is no keyword
	ends   bool // =
}

// fill are the words that may stand anywhere.
var fill = map[string]bool{"with": true, "and": true, "has": true, "wants": true, "options": true}

// naming are the words after which the next one is taken as it is.
var naming = map[string]bool{"user": true, "username": true, "pass": true, "password": true, "is": true, "to": true, "=": true, "passwordfile": true}

// words scans a file.
func words(lines []string) (out []word, open int) {
	text := strings.Join(lines, "\n")
	line, name := 1, false
	for i := 0; i < len(text); {
		c := text[i]
		switch {
		case c == '\n':
			line++
			i++
		case c == ' ', c == '\t', c == ',', c == ';', c == ':', c == '\r', c == '\f':
			i++
		case c == '\\' && i+1 < len(text) && text[i+1] == '\n':
			i++ // a line that goes on
		case c == '#':
			for i < len(text) && text[i] != '\n' {
				i++
			}
		case c == '=':
			out = append(out, word{text: "=", line: line, ends: true})
			name = true
			i++
		case c == '"' || c == '\'':
			end := strings.IndexByte(text[i+1:], c)
			if end < 0 {
				return out, line
			}
			s := text[i+1 : i+1+end]
			out = append(out, word{text: unescape(s), line: line, quoted: true, name: name})
			line += strings.Count(s, "\n")
			i += end + 2
			name = false
		default:
			end := i
			for end < len(text) && !strings.ContainsRune("=;:, \t\r\n", rune(text[end])) {
				end++
			}
			w := word{text: text[i:end], line: line, name: name}
			i = end
			if w.name || !fill[w.text] {
				if w.name {
					w.text = unescape(w.text)
				}
				out = append(out, w)
			}
			name = !w.name && naming[w.text]
		}
	}
	return out, 0
}

// unescape reads \n, \t, \x41, \0101, \65 and a backslash before the end of a line.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		if i++; i == len(s) {
			break
		}
		base, from, most := 0, i, 3
		switch c := s[i]; {
		case c == 'x' || c == 'X':
			base, from, most = 16, i+1, 2
		case c == '0':
			base, most = 8, 3
		case c >= '1' && c <= '9':
			base = 10
		case c == '\n':
			continue
		default:
			b.WriteByte(plainEscape(c))
			continue
		}
		end := from
		for end < len(s) && end-from < most && isDigit(s[end], base) {
			end++
		}
		n, _ := strconv.ParseUint(s[from:end], base, 32)
		b.WriteByte(byte(n))
		i = end - 1
	}
	return b.String()
}

func plainEscape(c byte) byte {
	switch c {
	case 'n':
		return '\n'
	case 't':
		return '\t'
	case 'b':
		return '\b'
	case 'r':
		return '\r'
	}
	return c
}

func isDigit(c byte, base int) bool {
	switch {
	case base == 8:
		return c >= '0' && c <= '7'
	case c >= '0' && c <= '9':
		return true
	}
	return base == 16 && strings.IndexByte("abcdefABCDEF", c) >= 0
}
