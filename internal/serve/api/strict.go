package api

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/mailgrant/mailgrant"
)

// maxDepth is how deep JSON may nest.
const maxDepth = 64

// A jsonReader reads JSON (RFC 8259) once, from front to back, and is strict
// where encoding/json is kind: a key twice in one object, bytes that are not
// UTF-8, a lone surrogate and anything after the value are refused. It holds no
// more than its window and the string that is being read.
type jsonReader struct {
	r        io.Reader
	buf      []byte
	pos, end int
	read     int64        // bytes taken from r
	left     func() int64 // how many bytes may still come, -1 when unknown; nil too
	depth    int
	eof      bool
	ioErr    error // what r said, when it was not io.EOF
	scratch  []byte
	slab     []byte // decoded attachments, one behind the other
}

var errJSON = errors.New("api: not JSON")

func newJSONReader(r io.Reader, window []byte) *jsonReader {
	return &jsonReader{r: r, buf: window}
}

// checkJSON says whether b is one strict JSON value.
func checkJSON(b []byte) error {
	j := &jsonReader{r: bytes.NewReader(nil), buf: b, end: len(b), read: int64(len(b))}
	if err := j.skip(""); err != nil {
		return err
	}
	return j.finish()
}

func badJSON(at int64, format string, args ...any) *mailgrant.Error {
	return mailgrant.Errorf(mailgrant.Invalid, errJSON, format, args...).
		Fix("look at byte %d of the body", at)
}

func (j *jsonReader) offset() int64 { return j.read - int64(j.end-j.pos) }

// fill gets more bytes into an empty window.
func (j *jsonReader) fill() bool {
	if j.pos < j.end {
		return true
	}
	for !j.eof {
		n, err := j.r.Read(j.buf)
		j.pos, j.end = 0, n
		j.read += int64(n)
		if err != nil {
			j.eof = true
			if err != io.EOF {
				j.ioErr = err
			}
		}
		if n > 0 {
			return true
		}
	}
	j.pos, j.end = 0, 0
	return false
}

// peek is the next byte that is not white space, 0 at the end.
func (j *jsonReader) peek() byte {
	for j.fill() {
		for ; j.pos < j.end; j.pos++ {
			switch c := j.buf[j.pos]; c {
			case ' ', '\t', '\r', '\n':
			default:
				return c
			}
		}
	}
	return 0
}

// short is the error of a body that ends too early, or could not be read.
func (j *jsonReader) short() error {
	if j.ioErr != nil {
		return bodyError(j.ioErr)
	}
	if j.read == 0 {
		return mailgrant.Errorf(mailgrant.Invalid, errJSON, "the request has no body").Fix("send a JSON object: /v1/openapi.yaml says what it holds")
	}
	return badJSON(j.read, "the JSON body ends too early")
}

func (j *jsonReader) expect(c byte, what string) error {
	got := j.peek()
	if got == c {
		j.pos++
		return nil
	}
	if got == 0 && j.eof {
		return j.short()
	}
	return badJSON(j.offset(), "the JSON body has something else where %s should be", what)
}

// finish says whether nothing but white space is left.
func (j *jsonReader) finish() error {
	if j.peek() != 0 || j.pos < j.end { // a NUL is not the end
		return badJSON(j.offset(), "the JSON body goes on after its end")
	}
	if j.ioErr != nil {
		return bodyError(j.ioErr)
	}
	return nil
}

// object calls member for each key. member must read the value.
func (j *jsonReader) object(field string, member func(key string) error) error {
	if err := j.open('{', "an object", field); err != nil {
		return err
	}
	var seen keys
	for first := true; ; first = false {
		c := j.peek()
		if c == '}' && first {
			break
		}
		if !first {
			if c == '}' {
				break
			}
			if err := j.expect(',', "a comma"); err != nil {
				return err
			}
		}
		if j.peek() != '"' {
			return j.expect('"', "a key")
		}
		key, err := j.str(field, 1000)
		if err != nil {
			return err
		}
		if !seen.add(key) {
			return mailgrant.Errorf(mailgrant.Invalid, errJSON, "the same key stands twice in one object").
				Fix("send each key once").At(join(field, key))
		}
		if err := j.expect(':', "a colon"); err != nil {
			return err
		}
		if err := member(key); err != nil {
			return err
		}
	}
	j.pos++
	j.depth--
	return nil
}

// array calls element for each one with its number. element must read it.
func (j *jsonReader) array(field string, element func(n int) error) error {
	if err := j.open('[', "a list", field); err != nil {
		return err
	}
	for n := 0; ; n++ {
		c := j.peek()
		if c == ']' {
			break
		}
		if n > 0 {
			if err := j.expect(',', "a comma"); err != nil {
				return err
			}
		}
		if err := element(n); err != nil {
			return err
		}
	}
	j.pos++
	j.depth--
	return nil
}

func (j *jsonReader) open(c byte, what, field string) error {
	if got := j.peek(); got != c {
		if got == 0 && j.eof {
			return j.short()
		}
		return mailgrant.Errorf(mailgrant.Invalid, errJSON, "%s must be %s", named(field), what).
			Fix("see the reference of this request: /v1/openapi.yaml").At(field)
	}
	j.pos++
	if j.depth++; j.depth > maxDepth {
		return badJSON(j.offset(), "the JSON body nests deeper than %d levels", maxDepth)
	}
	return nil
}

func named(field string) string {
	if field == "" {
		return "the body"
	}
	return field
}

// A keys remembers the keys of one object: few in a list, many in a map.
type keys struct {
	few  []string
	many map[string]bool
}

func (k *keys) add(key string) bool {
	if k.many != nil {
		if k.many[key] {
			return false
		}
		k.many[key] = true
		return true
	}
	for _, have := range k.few {
		if have == key {
			return false
		}
	}
	if k.few == nil {
		k.few = make([]string, 0, 16)
	}
	k.few = append(k.few, key)
	if len(k.few) > 32 {
		k.many = map[string]bool{}
		for _, have := range k.few {
			k.many[have] = true
		}
	}
	return true
}

// special marks the bytes that end a run inside a string.
var special = func() (t [256]bool) {
	for c := range 0x20 {
		t[c] = true
	}
	t['"'], t['\\'] = true, true
	return t
}()

// str reads a string of at most limit bytes.
func (j *jsonReader) str(field string, limit int) (string, error) {
	b, err := j.bytes(field, limit)
	return string(b), err
}

// bytes is str in a buffer that is good until the next call.
func (j *jsonReader) bytes(field string, limit int) ([]byte, error) {
	if c := j.peek(); c != '"' {
		if c == 0 && j.eof {
			return nil, j.short()
		}
		return nil, mailgrant.Errorf(mailgrant.Invalid, errJSON, "%s must be a text", named(field)).
			Fix("write it between quotation marks").At(field)
	}
	j.pos++
	out := j.scratch[:0]
	defer func() {
		if j.scratch = out; cap(out) > 1<<20 {
			j.scratch = nil
		}
	}()
	for done := false; !done; {
		run, stopped, err := j.run()
		if err != nil {
			return nil, err
		}
		out = append(out, run...)
		if len(out) > limit {
			return nil, mailgrant.Errorf(mailgrant.Invalid, errJSON, "%s is longer than %d bytes", named(field), limit).
				Fix("make it shorter").At(field)
		}
		switch {
		case !stopped:
		case j.buf[j.pos] == '"':
			j.pos++
			done = true
		default:
			if out, err = j.escape(out); err != nil {
				return nil, err
			}
		}
	}
	if !utf8.Valid(out) {
		return nil, mailgrant.Errorf(mailgrant.Invalid, errJSON, "%s is not UTF-8", named(field)).
			Fix("send the body in UTF-8").At(field)
	}
	return out, nil
}

// run is the next piece of a string: up to a quotation mark or an escape, which
// is then at pos (stopped), or to the end of the window.
func (j *jsonReader) run() (piece []byte, stopped bool, err error) {
	if !j.fill() {
		return nil, false, j.short()
	}
	window := j.buf[j.pos:j.end]
	n := 0
	for n < len(window) && !special[window[n]] {
		n++
	}
	j.pos += n
	if n == len(window) {
		return window, false, nil
	}
	if window[n] < 0x20 {
		return nil, false, badJSON(j.offset(), "the JSON body has a control character inside a text")
	}
	return window[:n], true, nil
}

func (j *jsonReader) escape(out []byte) ([]byte, error) {
	j.pos++ // the backslash
	if !j.fill() {
		return out, j.short()
	}
	c := j.buf[j.pos]
	j.pos++
	switch c {
	case '"', '\\', '/':
		return append(out, c), nil
	case 'b':
		return append(out, '\b'), nil
	case 'f':
		return append(out, '\f'), nil
	case 'n':
		return append(out, '\n'), nil
	case 'r':
		return append(out, '\r'), nil
	case 't':
		return append(out, '\t'), nil
	case 'u':
		r, err := j.unicode()
		return utf8.AppendRune(out, r), err
	}
	return out, badJSON(j.offset(), "the JSON body has an escape that there is not")
}

// unicode reads the rest of \uXXXX, and the second half of a surrogate pair.
func (j *jsonReader) unicode() (rune, error) {
	r, err := j.hex4()
	if err != nil || !utf16.IsSurrogate(r) {
		return r, err
	}
	for _, c := range [2]byte{'\\', 'u'} {
		if !j.fill() {
			return 0, j.short()
		}
		if j.buf[j.pos] != c {
			return 0, badJSON(j.offset(), "the JSON body has half of a surrogate pair")
		}
		j.pos++
	}
	second, err := j.hex4()
	if err != nil {
		return 0, err
	}
	if r = utf16.DecodeRune(r, second); r == utf8.RuneError {
		return 0, badJSON(j.offset(), "the JSON body has half of a surrogate pair")
	}
	return r, nil
}

func (j *jsonReader) hex4() (rune, error) {
	var four [4]byte
	for i := range four {
		if !j.fill() {
			return 0, j.short()
		}
		four[i] = j.buf[j.pos]
		j.pos++
	}
	n, err := strconv.ParseUint(string(four[:]), 16, 16)
	if err != nil || four[0] == '+' || four[0] == '_' {
		return 0, badJSON(j.offset(), "the JSON body has an escape that there is not")
	}
	return rune(n), nil
}

// null reads null if it is next.
func (j *jsonReader) null() (bool, error) {
	if j.peek() != 'n' {
		return false, nil
	}
	return true, j.word("null")
}

// boolean reads true or false.
func (j *jsonReader) boolean(field string) (bool, error) {
	switch j.peek() {
	case 't':
		return true, j.word("true")
	case 'f':
		return false, j.word("false")
	}
	return false, mailgrant.Errorf(mailgrant.Invalid, errJSON, "%s must be true or false", named(field)).
		Fix("write it without quotation marks").At(field)
}

func (j *jsonReader) word(w string) error {
	for i := range len(w) {
		if !j.fill() {
			return j.short()
		}
		if j.buf[j.pos] != w[i] {
			return badJSON(j.offset(), "the JSON body has a word that is not true, false or null")
		}
		j.pos++
	}
	return nil
}

// skip reads any value and forgets it.
func (j *jsonReader) skip(field string) error {
	switch c := j.peek(); {
	case c == '{':
		return j.object(field, func(key string) error { return j.skip(key) })
	case c == '[':
		return j.array(field, func(int) error { return j.skip(field) })
	case c == '"':
		_, err := j.bytes(field, 64<<20)
		return err
	case c == 't':
		return j.word("true")
	case c == 'f':
		return j.word("false")
	case c == 'n':
		return j.word("null")
	case c == '-' || '0' <= c && c <= '9':
		return j.number()
	case c == 0 && j.eof:
		return j.short()
	}
	return badJSON(j.offset(), "the JSON body has something that is no value")
}

func (j *jsonReader) number() error {
	_, err := j.numberText()
	return err
}

// numberText reads a number as it is written.
func (j *jsonReader) numberText() ([]byte, error) {
	var text []byte
	for j.fill() {
		c := j.buf[j.pos]
		if !('0' <= c && c <= '9' || c == '-' || c == '+' || c == '.' || c == 'e' || c == 'E') {
			break
		}
		if text = append(text, c); len(text) > 100 {
			return nil, badJSON(j.offset(), "the JSON body has a number that is too long")
		}
		j.pos++
	}
	if !isNumber(text) {
		return nil, badJSON(j.offset(), "the JSON body has a number that does not read")
	}
	return text, nil
}

// isNumber is the grammar of RFC 8259 section 6.
func isNumber(s []byte) bool {
	digits := func() bool {
		n := 0
		for n < len(s) && '0' <= s[n] && s[n] <= '9' {
			n++
		}
		s = s[n:]
		return n > 0
	}
	if len(s) > 0 && s[0] == '-' {
		s = s[1:]
	}
	if len(s) > 1 && s[0] == '0' && '0' <= s[1] && s[1] <= '9' || !digits() {
		return false
	}
	if len(s) > 0 && s[0] == '.' {
		if s = s[1:]; !digits() {
			return false
		}
	}
	if len(s) > 0 && (s[0] == 'e' || s[0] == 'E') {
		if s = s[1:]; len(s) > 0 && (s[0] == '-' || s[0] == '+') {
			s = s[1:]
		}
		if !digits() {
			return false
		}
	}
	return len(s) == 0
}

func join(field, key string) string {
	if field == "" {
		return key
	}
	return field + "." + key
}
