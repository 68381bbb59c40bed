package diagnose

import (
	"encoding/base64"
	"mime"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// plain undoes what libraries, logs and forms do to a text: backslash escapes,
// quoted-printable, percent signs, HTML. It says whether the text is a page.
func plain(s string) (string, bool) {
	s = unescape(s)
	if strings.Contains(s, "=?") {
		s = unword(s)
	}
	s = strings.ReplaceAll(s, "\r\n", "\n")
	if softEnds(s) {
		s = unquotePrintable(s)
	}
	if strings.Contains(s, "%") {
		s = unpercent(s)
	}
	page := false
	if strings.Contains(s, "<") {
		s, page = untag(s)
	}
	if strings.Contains(s, "&") {
		s = entities.Replace(s)
	}
	return challenge(s), page
}

var entities = strings.NewReplacer("&quot;", `"`, "&#39;", "'", "&#x27;", "'",
	"&lt;", "<", "&gt;", ">", "&nbsp;", " ", "&amp;", "&", "&#34;", `"`, "&apos;", "'")

// unescape resolves \r \n \t \" \\ \u00e9 and \xc3, also when escaped twice.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		for i+1 < len(s) && s[i+1] == '\\' {
			i++
		}
		if i+1 >= len(s) {
			break
		}
		i++
		switch s[i] {
		case 'r', 'n':
			b.WriteByte('\n')
		case 't':
			b.WriteByte(' ')
		case 'u', 'x':
			n := map[byte]int{'u': 4, 'x': 2}[s[i]]
			if i+n < len(s) {
				if v, err := strconv.ParseUint(s[i+1:i+1+n], 16, 32); err == nil {
					if n == 2 {
						b.WriteByte(byte(v))
					} else {
						b.WriteRune(rune(v))
					}
					i += n
					continue
				}
			}
			b.WriteByte(s[i])
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// unword resolves the encoded words of a header (RFC 2047). A character set that
// the standard library does not have leaves all as it was.
func unword(s string) string {
	if d, err := new(mime.WordDecoder).DecodeHeader(s); err == nil {
		return d
	}
	return s
}

// softEnds reports lines that end in "=" as quoted-printable does. Base64 ends
// so too, but in a long word.
func softEnds(s string) bool {
	for i := strings.Index(s, "=\n"); i >= 0; {
		word := s[strings.LastIndexAny(s[:i], " \n")+1 : i]
		if len(word) < 24 && !strings.HasSuffix(word, "=") {
			return true
		}
		next := strings.Index(s[i+1:], "=\n")
		if next < 0 {
			return false
		}
		i += 1 + next
	}
	return false
}

// unquotePrintable removes soft line ends and resolves =C3 pairs.
func unquotePrintable(s string) string {
	return unhex(strings.ReplaceAll(s, "=\n", ""), '=')
}

func unpercent(s string) string { return unhex(s, '%') }

// unhex resolves mark followed by two hexadecimal digits, where the result is
// printable or part of a longer character.
func unhex(s string, mark byte) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == mark && i+2 < len(s) {
			v, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
			if err == nil && (v >= 0x20 || v == '\n' || v == '\r') {
				b.WriteByte(byte(v))
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// tags are the elements worth removing; anything else in angle brackets may be
// an address or a message id.
var tags = map[string]bool{
	"a": true, "b": true, "body": true, "br": true, "center": true, "code": true,
	"div": true, "em": true, "font": true, "h1": true, "h2": true, "h3": true,
	"h4": true, "head": true, "hr": true, "html": true, "i": true, "li": true,
	"link": true, "meta": true, "p": true, "pre": true, "script": true,
	"span": true, "strong": true, "style": true, "table": true, "td": true,
	"th": true, "title": true, "tr": true, "u": true, "ul": true, "!doctype": true,
}

// untag removes HTML tags, and says whether the text was a page.
func untag(s string) (string, bool) {
	page := false
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '<')
		if i < 0 {
			b.WriteString(s)
			return b.String(), page
		}
		b.WriteString(s[:i])
		s = s[i:]
		name := tagName(s[1:])
		page = page || name == "html" || name == "!doctype" || name == "body" || name == "head"
		end := strings.IndexByte(s, '>')
		if !tags[name] || end < 0 {
			b.WriteByte('<')
			s = s[1:]
			continue
		}
		b.WriteByte(' ')
		s = s[end+1:]
	}
}

func tagName(s string) string {
	s = strings.TrimPrefix(s, "/")
	n := strings.IndexFunc(s, func(r rune) bool {
		return r != '!' && !unicode.IsLetter(r) && !unicode.IsDigit(r)
	})
	if n < 0 || n > 10 {
		return ""
	}
	return strings.ToLower(s[:n])
}

// challenge decodes base64 JSON such as the 334 answer to XOAUTH2 and puts the
// result behind the text. Parts of a JWT, which are followed by a dot, are not
// answers and stay closed.
func challenge(s string) string {
	from := 0
	for n := 0; n < 3; n++ {
		i := strings.Index(s[from:], "eyJ")
		if i < 0 {
			return s
		}
		i += from
		end := i
		for end < len(s) && isBase64(s[end]) {
			end++
		}
		from = end
		if end < len(s) && s[end] == '.' || i > 0 && s[i-1] == '.' {
			continue
		}
		if d := decode(s[i:end]); d != "" {
			s += "\n" + d
		}
	}
	return s
}

func isBase64(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
		c == '+' || c == '/' || c == '-' || c == '_'
}

func decode(s string) string {
	s = strings.NewReplacer("-", "+", "_", "/").Replace(s)
	if len(s)%4 == 1 {
		s = s[:len(s)-1]
	}
	d, err := base64.RawStdEncoding.DecodeString(s)
	if err != nil || !utf8.Valid(d) || len(d) < 8 {
		return ""
	}
	return string(d)
}

// where says how a byte of the squeezed text stood in the whole.
type where uint8

const (
	inAddr    where = 1 << iota // in a web address
	wordStart                   // first of a word
)

func (w where) is(x where) bool { return w&x != 0 }

// squeeze leaves only letters and digits in lower case, so that quoting, line
// breaks and punctuation no longer matter. Status codes go too: they are scanned
// apart, and stand in the middle of sentences that run over several lines. The
// second result marks the bytes that stood in an address and those that begin a
// word; a capital behind a small letter and a letter behind a digit begin one.
func squeeze(s string) (string, []where) {
	out := make([]byte, 0, len(s))
	marks := make([]where, 0, len(s))
	addr, start := where(0), wordStart
	for i := 0; i < len(s); {
		c := s[i]
		if n := statusAt(s, i); n > 0 {
			start = wordStart
			i += n
			continue
		}
		if c == ':' && strings.HasPrefix(s[i:], "://") {
			addr = inAddr
		}
		if addr != 0 && (c <= ' ' || c == '"' || c == '\'' || c == '<' || c == '>' || c == ')' || c == ',') {
			addr = 0
		}
		switch {
		case c >= 'a' && c <= 'z':
			if i > 0 && digit(s[i-1]) {
				start = wordStart
			}
			out, marks = append(out, c), append(marks, addr|start)
			start = 0
			i++
		case digit(c):
			out, marks = append(out, c), append(marks, addr|start)
			start = 0
			i++
		case c >= 'A' && c <= 'Z':
			if i > 0 && (s[i-1] >= 'a' && s[i-1] <= 'z' || digit(s[i-1])) {
				start = wordStart
			}
			out, marks = append(out, c+'a'-'A'), append(marks, addr|start)
			start = 0
			i++
		case contraction(s, i) > 0: // doesn't and does not are one
			if strings.HasSuffix(string(out[max(0, len(out)-3):]), "can") {
				out, marks = append(out, 'n'), append(marks, addr)
			}
			out, marks = append(out, 'o', 't'), append(marks, addr, addr)
			i += contraction(s, i)
		case c < utf8.RuneSelf:
			start = wordStart
			i++
		default:
			r, n := utf8.DecodeRuneInString(s[i:])
			i += n
			if !unicode.IsLetter(r) || r == utf8.RuneError {
				start = wordStart
				continue
			}
			was := len(out)
			out = utf8.AppendRune(out, unicode.ToLower(r))
			for range len(out) - was {
				marks = append(marks, addr|start)
			}
			start = 0
			if r >= 0x2e80 { // scripts that put no space between words
				start = wordStart
			}
		}
	}
	return string(out), marks
}

// contraction measures the "'t" that ends a word such as "doesn't".
func contraction(s string, i int) int {
	for _, mark := range []string{"'t", "’t", "`t", "'T", "’T"} {
		if strings.HasPrefix(s[i:], mark) && i > 0 && s[i-1]|0x20 == 'n' && (i+len(mark) == len(s) || !letter(s[i+len(mark)])) {
			return len(mark)
		}
	}
	return 0
}

// statusAt measures a status code at s[i]: "550-", "550 5.1.1", "550-5.1.1" or
// "5.1.1" alone, at the start of a word. 0 means there is none.
func statusAt(s string, i int) int {
	c := s[i]
	if c < '2' || c > '5' || i > 0 && wordByte(s[i-1]) {
		return 0
	}
	if n := enhancedAt(s, i); n > 0 {
		return n
	}
	if i+3 >= len(s) || !digit(s[i+1]) || !digit(s[i+2]) {
		return 0
	}
	next := s[i+3]
	if next != '-' && next != ' ' && next != '\n' {
		return 0
	}
	if n := enhancedAt(s, i+4); n > 0 {
		return 4 + n
	}
	if next == '-' && i+4 < len(s) && !digit(s[i+4]) {
		return 4
	}
	return 0
}

// enhancedAt measures "5.7.139" at s[i]. An IP address is not one.
func enhancedAt(s string, i int) int {
	if i+4 >= len(s) || s[i] != '2' && s[i] != '4' && s[i] != '5' || s[i+1] != '.' {
		return 0
	}
	j := i + 2
	for part := 0; part < 2; part++ {
		from := j
		for j < len(s) && digit(s[j]) {
			j++
		}
		if j == from || j-from > 3 {
			return 0
		}
		if part == 0 {
			if j >= len(s) || s[j] != '.' {
				return 0
			}
			j++
		}
	}
	if j < len(s) && (letter(s[j]) || s[j] == '.' && j+1 < len(s) && digit(s[j+1])) {
		return 0
	}
	return j - i
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

func letter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

func wordByte(c byte) bool { return digit(c) || letter(c) || c == '.' || c == '_' }
