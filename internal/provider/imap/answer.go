package imap

import (
	"bytes"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant/internal/provider/wire"
)

// depthMax is how deep lists may lie in each other. IM-06.
const depthMax = 64

// A response is one answer of the server, tagged or not. RFC 3501 section 7.
type response struct {
	tag  string // "" untagged, "+" to go on
	kind string // in capitals: "OK", "BYE", "LIST", "FETCH" …
	num  uint32 // before EXISTS, EXPUNGE and FETCH
	code string // in brackets, in capitals: "UIDVALIDITY"
	args string // behind the code
	text string // of a status or "+", fit to be kept
	rest []byte // of anything else; good until the next read
}

// status says whether it is one of those that a person may read.
func (r response) status() bool {
	switch r.kind {
	case "OK", "NO", "BAD", "BYE", "PREAUTH":
		return true
	}
	return false
}

// said is a status as the server put it: "NO [CANNOT] text".
func (r response) said() string {
	s := r.kind
	if r.code != "" {
		s += " [" + strings.TrimSpace(r.code+" "+r.args) + "]"
	}
	return wire.Clean(s+" "+r.text, wire.ReplyMax)
}

// parse reads an answer, or as much of it as its first words say.
func parse(line []byte) (response, error) {
	var r response
	if len(line) > 0 && line[0] == '+' {
		return response{tag: "+", text: string(bytes.TrimPrefix(line[1:], []byte(" ")))}, nil
	}
	tag, rest, _ := bytes.Cut(line, []byte(" "))
	if len(tag) == 0 || len(tag) > 20 {
		return r, errGarbled
	}
	if string(tag) != "*" {
		r.tag = string(tag)
	}
	word, rest := cutWord(rest)
	if len(word) > 0 && word[0] >= '0' && word[0] <= '9' {
		n, err := strconv.ParseUint(string(word), 10, 32)
		if err != nil {
			return r, errGarbled
		}
		r.num = uint32(n)
		word, rest = cutWord(rest)
	}
	if len(word) == 0 || len(word) > 20 {
		return r, errGarbled
	}
	r.kind = upper(word)
	if r.tag != "" && r.kind != "OK" && r.kind != "NO" && r.kind != "BAD" {
		return r, errGarbled
	}
	r.rest = rest
	if r.status() {
		r.readText()
	}
	return r, nil
}

// usualWords are those that need no memory of their own.
var usualWords = func() map[string]string {
	m := map[string]string{}
	for _, w := range []string{"OK", "NO", "BAD", "BYE", "FETCH", "EXISTS", "RECENT", "EXPUNGE", "SEARCH", "LIST", "UID", "FLAGS", "INTERNALDATE", "RFC822.SIZE", "BODY[]"} {
		m[w] = w
	}
	return m
}()

// upper is a word in capitals.
func upper(word []byte) string {
	if w, ok := usualWords[string(word)]; ok {
		return w
	}
	return strings.ToUpper(string(word))
}

func cutWord(b []byte) (word, rest []byte) {
	b = bytes.TrimLeft(b, " ")
	i := bytes.IndexAny(b, " (")
	if i < 0 {
		return b, nil
	}
	return b[:i], bytes.TrimLeft(b[i:], " ")
}

// readText takes the code out of a status's text.
func (r *response) readText() {
	text := r.rest
	r.rest = nil
	if len(text) > 0 && text[0] == '[' {
		if end := bytes.IndexByte(text, ']'); end > 0 {
			code, args, _ := strings.Cut(string(text[1:end]), " ")
			r.code, r.args = wire.Clean(strings.ToUpper(code), 100), wire.Clean(args, 64<<10)
			text = text[end+1:]
		}
	}
	r.text = wire.Clean(string(text[:min(len(text), 4<<10)]), 2<<10)
}

// number is a code's argument that is one of 32 bits.
func number(s string) (uint32, bool) {
	n, err := strconv.ParseUint(strings.TrimSpace(s), 10, 32)
	return uint32(n), err == nil
}

// A scanner reads the values of an answer. After the first mistake it gives
// nothing more.
type scanner struct {
	b   []byte
	err error
}

func (s *scanner) fail() { s.b, s.err = nil, errGarbled }

func (s *scanner) space() { s.b = bytes.TrimLeft(s.b, " ") }

// take says whether c comes next, and passes it.
func (s *scanner) take(c byte) bool {
	if len(s.b) == 0 || s.b[0] != c {
		return false
	}
	s.b = s.b[1:]
	return true
}

func (s *scanner) expect(c byte) {
	if s.err == nil && !s.take(c) {
		s.fail()
	}
}

// atom is a word up to a space or bracket.
func (s *scanner) atom() string { return string(s.word()) }

func (s *scanner) word() []byte {
	i := 0
	for i < len(s.b) && s.b[i] != ' ' && s.b[i] != '(' && s.b[i] != ')' && s.b[i] != '"' && s.b[i] != '\n' {
		i++
	}
	if i == 0 {
		s.fail()
		return nil
	}
	a := s.b[:i]
	s.b = s.b[i:]
	return a
}

// number is one of 32 bits; what is none, or a larger one, is a mistake.
func (s *scanner) number() uint32 {
	n, i := uint64(0), 0
	for ; i < len(s.b) && s.b[i] >= '0' && s.b[i] <= '9' && n <= math.MaxUint32; i++ {
		n = 10*n + uint64(s.b[i]-'0')
	}
	if i == 0 || n > math.MaxUint32 || i < len(s.b) && s.b[i] != ' ' && s.b[i] != ')' {
		s.fail()
		return 0
	}
	s.b = s.b[i:]
	return uint32(n)
}

// str is a string in any form; known is false for NIL.
func (s *scanner) str() (v string, known bool) {
	switch {
	case s.take('"'):
		return s.quoted(), s.err == nil
	case len(s.b) > 0 && (s.b[0] == '{' || s.b[0] == '~'):
		return s.literal(), s.err == nil
	}
	v = s.atom()
	return v, !strings.EqualFold(v, "NIL") && s.err == nil
}

func (s *scanner) quoted() string {
	var out []byte
	for i := 0; i < len(s.b); i++ {
		switch c := s.b[i]; {
		case c == '"':
			if out == nil {
				out = s.b[:i]
			}
			s.b = s.b[i+1:]
			return string(out)
		case c == '\\' && i+1 < len(s.b):
			if out == nil {
				out = append(make([]byte, 0, len(s.b)), s.b[:i]...)
			}
			i++
			out = append(out, s.b[i])
		case out != nil:
			out = append(out, c)
		}
	}
	s.fail()
	return ""
}

// literal is one that was read into the line: {3}, a line feed, three bytes.
func (s *scanner) literal() string {
	head, rest, ok := bytes.Cut(bytes.TrimPrefix(s.b, []byte("~")), []byte("}\n"))
	if !ok {
		s.fail()
		return ""
	}
	n, err := strconv.Atoi(strings.TrimSuffix(string(head[1:]), "+"))
	if err != nil || n < 0 || n > len(rest) {
		s.fail()
		return ""
	}
	s.b = rest[n:]
	return string(rest[:n])
}

// skip passes one value, however deep, without calling itself.
func (s *scanner) skip() {
	for depth := 0; s.err == nil; {
		s.space()
		switch {
		case s.take('('):
			if depth++; depth > depthMax {
				s.fail()
			}
		case s.take(')'):
			if depth--; depth < 0 {
				s.fail()
			}
		default:
			s.pass()
		}
		if depth == 0 {
			return
		}
	}
}

// pass passes a value that is no list.
func (s *scanner) pass() {
	switch {
	case s.take('"'):
		s.quoted()
	case len(s.b) > 1 && (s.b[0] == '{' || s.b[0] == '~' && s.b[1] == '{'):
		s.literal()
	default:
		s.word()
	}
}

// words are the atoms of a list in brackets.
func (s *scanner) words() []string {
	s.expect('(')
	var list []string
	for s.err == nil {
		s.space()
		if s.take(')') {
			break
		}
		list = append(list, s.atom())
	}
	return list
}

// A fetched is what a FETCH says of a message.
type fetched struct {
	uid   uint32
	size  int64
	at    time.Time
	body  string // its bytes, when they did not come as a literal
	whole bool   // body was given
	here  bool   // body follows as a literal
}

// readFetch reads the items of a FETCH. RFC 3501 section 7.4.2.
func readFetch(b []byte) (f fetched, err error) {
	s := scanner{b: b}
	s.expect('(')
	for s.err == nil {
		s.space()
		if s.take(')') {
			return f, nil
		}
		name := s.item()
		s.space()
		switch name {
		case "UID":
			f.uid = s.number()
		case "RFC822.SIZE":
			f.size = s.size()
		case "INTERNALDATE":
			v, _ := s.str()
			f.at = internalDate(v)
		case "BODY[]":
			if f.here = literalAtEnd(s.b); f.here {
				return f, s.err
			}
			f.body, f.whole = s.str()
		default:
			s.skip()
		}
	}
	return f, s.err
}

// literalAtEnd says whether nothing but a marker is left: its bytes were not
// read into the line.
func literalAtEnd(b []byte) bool {
	return len(b) > 2 && (b[0] == '{' || b[0] == '~') && b[len(b)-1] == '}' && bytes.IndexByte(b, '\n') < 0
}

// item is the name of one, in capitals, with what stands in its brackets.
func (s *scanner) item() string {
	i := bytes.IndexAny(s.b, " ()[")
	if i > 0 && s.b[i] == '[' {
		end := bytes.IndexByte(s.b, ']')
		if end < 0 {
			s.fail()
			return ""
		}
		name := upper(s.b[:end+1])
		if s.b = s.b[end+1:]; s.take('<') { // a part from somewhere on
			s.atom()
			name += "<>"
		}
		return name
	}
	return upper(s.word())
}

// size is a number that may be larger than 32 bits. Servers have given -1; that
// is not known.
func (s *scanner) size() int64 {
	n, err := strconv.ParseInt(s.atom(), 10, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		s.fail()
	}
	return max(n, 0)
}

// internalDate is zero when it is none. RFC 3501 section 9, date-time.
func internalDate(v string) time.Time {
	t, err := time.Parse("_2-Jan-2006 15:04:05 -0700", v)
	if err != nil || t.Year() < 1970 {
		return time.Time{}
	}
	return t
}

// readSearch adds the numbers of a SEARCH.
func readSearch(list []uint32, b []byte) ([]uint32, error) {
	s := scanner{b: b}
	for {
		if s.space(); len(s.b) == 0 {
			return list, s.err
		}
		if s.b[0] == '(' { // (MODSEQ 917)
			s.skip()
			if s.err != nil {
				return list, s.err
			}
			continue
		}
		n := s.number()
		if s.err != nil || n == 0 {
			return list, errGarbled
		}
		if len(list) >= searchMax {
			return list, errFlood
		}
		list = append(list, n)
	}
}

// A listed is what a LIST says of a folder.
type listed struct {
	attrs []string // without the backslash, in small letters
	delim string
	wire  string
}

// readList reads a LIST. RFC 3501 section 7.2.2, RFC 5258.
func readList(b []byte) (listed, error) {
	s := scanner{b: b}
	var l listed
	for _, a := range s.words() {
		l.attrs = append(l.attrs, strings.ToLower(strings.TrimPrefix(a, `\`)))
	}
	s.space()
	if d, known := s.str(); known {
		l.delim = d
	}
	s.space()
	l.wire = s.mailbox()
	return l, s.err
}

// mailbox is a name, with all that some servers leave unquoted.
func (s *scanner) mailbox() string {
	if len(s.b) > 0 && s.b[0] != '"' && s.b[0] != '{' {
		name := string(s.b)
		s.b = nil
		return name
	}
	v, _ := s.str()
	return v
}

// A statused is what a STATUS says of a folder.
type statused struct {
	messages, uidnext, validity uint32
	hasNext                     bool
}

// readStatus reads a STATUS. RFC 3501 section 7.2.4.
func readStatus(b []byte) (st statused, err error) {
	open := bytes.LastIndexByte(b, '(') // the name may hold anything
	if open < 0 {
		return st, errGarbled
	}
	s := scanner{b: b[open:]}
	list := s.words()
	if s.err != nil || len(list)%2 != 0 {
		return st, errGarbled
	}
	for i := 0; i < len(list); i += 2 {
		n, ok := number(list[i+1])
		if !ok {
			continue // a value of another kind, or one not asked for
		}
		switch strings.ToUpper(list[i]) {
		case "MESSAGES":
			st.messages = n
		case "UIDNEXT":
			st.uidnext, st.hasNext = n, true
		case "UIDVALIDITY":
			st.validity = n
		}
	}
	return st, nil
}
