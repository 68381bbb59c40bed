package sim

import (
	"encoding/base64"
	"errors"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode/utf16"
)

// How commands of IMAP are read: lines with literals between them (RFC 9051
// section 4).

// An imapInput is a command as it came: texts, and the literals between them.
// The knob Size bounds the literals together.
type imapInput struct {
	texts    []string
	literals [][]byte
}

var errNoLiteral = errors.New("a literal that is not taken")

const imapEarlyLiteral = 8 << 10 // before the login

// tag is the first word, also of a command that could not be read.
func (in *imapInput) tag() string {
	if in == nil || len(in.texts) == 0 {
		return "*"
	}
	tag, _, _ := strings.Cut(in.texts[0], " ")
	if tag == "" || len(tag) > 64 {
		return "*"
	}
	return tag
}

// read reads one command. In IDLE that is a line.
func (s *imapSession) read() (*imapInput, error) {
	k := s.knobs()
	in := new(imapInput)
	left := k.IMAPLine
	if left < 0 {
		left = math.MaxInt32
	}
	room := k.Size
	if s.who == nil {
		room = imapEarlyLiteral
	}
	for {
		line, err := s.line(left)
		if left -= len(line); err == nil && left < 0 {
			err = errLineLong // many short lines are a long one too
		}
		if err != nil {
			in.texts = append(in.texts, line)
			return in, err
		}
		text, n, mark := literalMark(line)
		in.texts = append(in.texts, text)
		switch {
		case mark == 0:
			return in, nil
		case n < 0 || over(n, room):
			if mark == '+' {
				s.ending = true // what follows cannot be told from commands
			}
			return in, errNoLiteral
		case mark == '+' && !s.can("LITERAL+"):
			return in, errNoLiteral
		}
		if mark == '{' {
			s.mu.Lock()
			s.say("+ Ready for additional command text.")
			err := s.flush()
			s.mu.Unlock()
			if err != nil {
				return in, err
			}
		}
		literal, err := io.ReadAll(io.LimitReader(s.in, n))
		if err != nil || int64(len(literal)) < n {
			return in, io.ErrUnexpectedEOF
		}
		in.literals = append(in.literals, literal)
		if room >= 0 {
			room -= n
		}
	}
}

// literalMark takes {n} or {n+} from the end of a line. Mark is its last sign,
// '{' for the plain one, and 0 when there is none.
func literalMark(line string) (text string, n int64, mark byte) {
	open := strings.LastIndexByte(line, '{')
	if open < 0 || !strings.HasSuffix(line, "}") {
		return line, 0, 0
	}
	number, mark := line[open+1:len(line)-1], '{'
	if rest, ok := strings.CutSuffix(number, "+"); ok {
		number, mark = rest, '+'
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || strings.HasPrefix(number, "+") {
		n = -1
	}
	return line[:open], n, byte(mark)
}

// A lexer reads the words of a command.
type lexer struct {
	in   *imapInput
	text string // what is left of the text under way
	next int    // the literal behind it
	bad  bool
}

func (in *imapInput) lexer() *lexer { return &lexer{in: in, text: in.texts[0]} }

// The kinds of tokens.
const (
	tokenEnd    = 0
	tokenAtom   = 'a'
	tokenString = 's' // quoted, or a literal
)

// token reads the next token: an atom, a string, or a parenthesis.
func (l *lexer) token() (kind byte, value string) {
	l.text = strings.TrimLeft(l.text, " ")
	if l.text == "" {
		if l.next >= len(l.in.literals) {
			return tokenEnd, ""
		}
		value = string(l.in.literals[l.next])
		l.next++
		l.text = l.in.texts[l.next]
		return tokenString, value
	}
	switch c := l.text[0]; c {
	case '(', ')':
		l.text = l.text[1:]
		return c, string(c)
	case '"':
		return tokenString, l.quoted()
	}
	depth, i := 0, 0
	for ; i < len(l.text); i++ {
		c := l.text[i]
		switch {
		case c == '[':
			depth++
		case c == ']':
			depth--
		}
		if depth <= 0 && (c == ' ' || c == '(' || c == ')' || c == '"') {
			break
		}
	}
	value, l.text = l.text[:i], l.text[i:]
	return tokenAtom, value
}

func (l *lexer) quoted() string {
	var b strings.Builder
	for i := 1; i < len(l.text); i++ {
		switch c := l.text[i]; c {
		case '"':
			l.text = l.text[i+1:]
			return b.String()
		case '\\':
			if i++; i == len(l.text) {
				break
			}
			b.WriteByte(l.text[i])
		default:
			b.WriteByte(c)
		}
	}
	l.text, l.bad = "", true
	return b.String()
}

// word is the next atom or string; "" at the end.
func (l *lexer) word() string {
	kind, value := l.token()
	if kind == '(' || kind == ')' {
		l.bad = true
	}
	return value
}

// list reads a list in parentheses, or a single word.
func (l *lexer) list() []string {
	kind, value := l.token()
	if kind != '(' {
		if kind == tokenEnd || kind == ')' {
			l.bad = true
		}
		return []string{value}
	}
	var all []string
	for {
		switch kind, value = l.token(); kind {
		case ')':
			return all
		case tokenEnd, '(':
			l.bad = true
			return all
		}
		all = append(all, value)
	}
}

// peek says whether a list comes next.
func (l *lexer) atList() bool { return strings.HasPrefix(strings.TrimLeft(l.text, " "), "(") }

// end says whether all was read and understood.
func (l *lexer) end() bool {
	return !l.bad && strings.TrimSpace(l.text) == "" && l.next == len(l.in.literals)
}

// A numberSet is a sequence set: "1,3:5,9:*".
type numberSet [][2]uint32 // 0 is *

func parseSet(text string) (numberSet, bool) {
	if len(text) > maxLineRead { // out of a literal
		return nil, false
	}
	var set numberSet
	for part := range strings.SplitSeq(text, ",") {
		from, to, ranged := strings.Cut(part, ":")
		a, ok := setNumber(from)
		b := a
		if ranged && ok {
			b, ok = setNumber(to)
		}
		if !ok {
			return nil, false
		}
		set = append(set, [2]uint32{a, b})
	}
	return set, true
}

func setNumber(text string) (uint32, bool) {
	if text == "*" {
		return 0, true
	}
	n, err := strconv.ParseUint(text, 10, 32)
	return uint32(n), err == nil && n > 0
}

// has says whether n is in the set, where last is what * stands for.
func (set numberSet) has(n, last uint32) bool {
	for _, r := range set {
		a, b := r[0], r[1]
		if a == 0 {
			a = last
		}
		if b == 0 {
			b = last
		}
		if min(a, b) <= n && n <= max(a, b) {
			return true
		}
	}
	return false
}

// quote writes a string for IMAP.
func quote(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
		return "{" + strconv.Itoa(len(s)) + "}\r\n" + s
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// quoteOrNil is the same, where an empty string is not there.
func quoteOrNil(s string) string {
	if s == "" {
		return "NIL"
	}
	return quote(s)
}

// folderName writes the name of a folder: in modified UTF-7, quoted when it
// must be.
func folderName(name string) string {
	name = toUTF7(name)
	if name == "" || strings.ContainsAny(name, " (){%*\"\\]") {
		return quote(name)
	}
	return name
}

// modified is the base64 of mailbox names (RFC 3501 section 5.1.3).
var modified = base64.NewEncoding("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,").WithPadding(base64.NoPadding)

func toUTF7(name string) string {
	var b strings.Builder
	var wide []rune
	flush := func() {
		if len(wide) == 0 {
			return
		}
		var raw []byte
		for _, u := range utf16.Encode(wide) {
			raw = append(raw, byte(u>>8), byte(u))
		}
		b.WriteString("&" + modified.EncodeToString(raw) + "-")
		wide = nil
	}
	for _, r := range name {
		switch {
		case r == '&':
			flush()
			b.WriteString("&-")
		case r >= ' ' && r <= '~':
			flush()
			b.WriteRune(r)
		default:
			wide = append(wide, r)
		}
	}
	flush()
	return b.String()
}

// fromUTF7 reads a name. One that is wrong stays as it is.
func fromUTF7(name string) string {
	var b strings.Builder
	for rest := name; rest != ""; {
		plain, coded, ok := strings.Cut(rest, "&")
		b.WriteString(plain)
		if !ok {
			break
		}
		coded, rest, ok = strings.Cut(coded, "-")
		if !ok {
			return name
		}
		if coded == "" {
			b.WriteByte('&')
			continue
		}
		raw, err := modified.DecodeString(coded)
		if err != nil || len(raw)%2 != 0 {
			return name
		}
		var units []uint16
		for i := 0; i < len(raw); i += 2 {
			units = append(units, uint16(raw[i])<<8|uint16(raw[i+1]))
		}
		b.WriteString(string(utf16.Decode(units)))
	}
	return b.String()
}
