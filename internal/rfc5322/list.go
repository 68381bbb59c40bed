package rfc5322

import "strings"

// A list reads the addresses of one field, each in turn. It never goes back and
// never calls itself, so its time grows with the field and nothing else.
//
// With strict, whatever two programs may understand differently is an error:
// these addresses decide who is sending. Without, comments and groups are
// handled; what cannot be read is one bad entry, and the next begins after its
// comma.
type list struct {
	s       string
	i       int
	strict  bool
	inGroup bool
	comment bool // one was met in the last entry
	utf8    bool // an address had letters outside ASCII, on either side of its @
}

// An entry is what stands between two commas, taken apart.
type entry struct {
	first, last int    // of the text that is neither space nor comment
	gap         bool   // something stands between first and last that should not
	angle       bool   // there was <…>
	spec        string // what stood in it
	phraseEnd   int    // where the name before it ended
	quoted      bool   // the name has quotes
}

// next gives the next address; more is false at the end of the field. An entry
// that is no address gives why.
func (l *list) next() (a Address, more bool, why string) {
	for {
		l.skip()
		if l.i >= len(l.s) {
			if l.inGroup && l.strict {
				return a, false, "a group is not closed"
			}
			return a, false, ""
		}
		e, group, why := l.entry()
		if why != "" {
			l.resync()
			return a, true, why
		}
		if group {
			if l.strict {
				l.resync()
				return a, true, "groups are not taken here"
			}
			continue
		}
		if e.first < 0 && !e.angle { // only comments, or an empty group
			if l.strict {
				return a, true, "there is an empty place in it"
			}
			continue
		}
		a, why = l.address(e)
		return a, true, why
	}
}

// skip passes what separates entries: commas, and space around them.
func (l *list) skip() {
	for l.i < len(l.s) {
		switch c := l.s[l.i]; {
		case c == ',' && !l.strict, c == ' ', c == '\t':
			l.i++
		case c == ';' && l.inGroup:
			l.inGroup = false
			l.i++
		default:
			return
		}
	}
}

// entry reads up to the end of the entry, and past its comma. group is true when
// what was read is the name of a group, with its colon.
func (l *list) entry() (e entry, group bool, why string) {
	e.first, l.comment = -1, false
	for l.i < len(l.s) {
		start := l.i
		switch c := l.s[l.i]; c {
		case ',':
			l.i++
			if l.strict && strings.TrimLeft(l.s[l.i:], " \t") == "" {
				return e, false, "it ends in a comma"
			}
			return e, false, ""
		case ';':
			if !l.inGroup {
				return e, false, "it has a stray semicolon"
			}
			return e, false, "" // skip closes the group
		case ':':
			if l.inGroup || e.angle || e.first < 0 {
				return e, false, "it has a stray colon"
			}
			l.inGroup = true
			l.i++
			return e, true, ""
		case ' ', '\t':
			l.i++
		case '(':
			if why := l.skipComment(); why != "" {
				return e, false, why
			}
		case '"':
			if !l.skipQuoted() {
				return e, false, "its quotes are not in order"
			}
			e.quoted = true
			if why := e.text(start, l.i); why != "" {
				return e, false, why
			}
		case '<':
			if e.angle {
				return e, false, "it has two addresses in < >"
			}
			if why := l.angle(&e); why != "" {
				return e, false, why
			}
		case '>', '[', ']', ')', '\\':
			return e, false, "it has a stray " + string(c)
		default:
			for l.i < len(l.s) && !separates[l.s[l.i]] {
				l.i++
			}
			if why := e.text(start, l.i); why != "" {
				return e, false, why
			}
		}
	}
	return e, false, ""
}

var separates = func() (t [256]bool) {
	for _, c := range ",;: \t(\"<>[])\\" {
		t[c] = true
	}
	return t
}()

// text notes a run of text from i to j.
func (e *entry) text(i, j int) string {
	if e.angle {
		return "something stands after the >"
	}
	if e.first < 0 {
		e.first = i
	} else if e.last != i {
		e.gap = true
	}
	e.last = j
	return ""
}

func (l *list) angle(e *entry) string {
	open := l.i
	l.i++
	if l.i < len(l.s) && l.s[l.i] == '"' && !l.skipQuoted() {
		return "its quotes are not in order"
	}
	end := strings.IndexByte(l.s[l.i:], '>')
	if end < 0 {
		return "the < is not closed"
	}
	l.i += end + 1
	e.angle, e.spec, e.phraseEnd = true, l.s[open+1:l.i-1], open
	return ""
}

func (l *list) skipQuoted() bool {
	for l.i++; l.i < len(l.s); l.i++ {
		switch l.s[l.i] {
		case '\\':
			l.i++
		case '"':
			l.i++
			return true
		}
	}
	l.i = len(l.s)
	return false
}

// maxDepth bounds comments within comments.
const maxDepth = 16

// skipComment passes a comment. A strict list takes only plain ones: a program
// that does not know comments must not find an address in them.
func (l *list) skipComment() string {
	l.comment = true
	depth, start := 0, l.i
	for ; l.i < len(l.s); l.i++ {
		switch l.s[l.i] {
		case '\\':
			l.i++
		case '(':
			if depth++; depth > maxDepth || l.strict && depth > 1 {
				return "it has comments in comments"
			}
		case ')':
			if depth--; depth == 0 {
				l.i++
				if l.strict && strings.ContainsAny(l.s[start:l.i], "@<>\",:;\\") {
					return "a comment in it looks like an address"
				}
				return ""
			}
		}
	}
	l.i = len(l.s)
	return "a comment is not closed"
}

// resync goes on behind the next comma.
func (l *list) resync() {
	if i := strings.IndexByte(l.s[min(l.i, len(l.s)):], ','); i >= 0 {
		l.i += i + 1
		return
	}
	l.i = len(l.s)
}

// address makes an Address of an entry.
func (l *list) address(e entry) (a Address, why string) {
	if !e.angle {
		if e.gap {
			return a, "it is not one word, and no address stands in < >"
		}
		l.utf8 = l.utf8 || !ascii(l.s[e.first:e.last])
		return parseSpec(l.s[e.first:e.last])
	}
	l.utf8 = l.utf8 || !ascii(e.spec)
	if a, why = parseSpec(e.spec); why != "" || e.first < 0 {
		return a, why
	}
	raw := strings.TrimSpace(l.s[e.first:e.phraseEnd])
	if l.strict && !e.quoted && strings.IndexByte(raw, '@') >= 0 {
		// Many programs repeat the address as its name; another one is a disguise.
		if b, why := parseSpec(raw); why != "" || b.Key() != a.Key() {
			return a, "its name looks like another address"
		}
	}
	a.Name = displayName(raw)
	return a, ""
}

// displayName is the name before an address, as a person reads it.
func displayName(raw string) string {
	if strings.IndexByte(raw, '"') >= 0 {
		var b strings.Builder
		for i := 0; i < len(raw); i++ {
			if raw[i] == '"' {
				continue
			}
			if raw[i] == '\\' && i+1 < len(raw) {
				i++
			}
			b.WriteByte(raw[i])
		}
		raw = b.String()
	}
	return decodeText(raw)
}

// decodeText reads encoded words and takes out what must not be shown.
func decodeText(s string) string {
	return strings.TrimSpace(strings.Map(shown, strings.ToValidUTF8(decodeWords(s), "\ufffd")))
}
