package rfc5322

import (
	"bytes"
	"io"
	"strings"

	"github.com/mailgrant/mailgrant"
)

// A role is what a part is in its message.
type role int

const (
	roleFile     role = iota
	rolePlain         // its text
	roleHTML          // its text, for a browser
	rolePreamble      // taken for the text when the message has no part at all
)

// A sorter tells texts from attachments and numbers these. Read, Texts and Part
// go by it, so that a number means the same to all.
type sorter struct {
	n     int
	names namer

	at    role
	file  mailgrant.Part
	inner []byte // the begin of a message within the message, for its subject
	asks  bool   // for that
	whole bool   // its header is over
}

// maxInner is how much of a message in a message is looked at.
const maxInner = 64 << 10

// begin says what the part is.
func (s *sorter) begin(e *entity) role {
	s.asks, s.whole, s.inner = false, false, s.inner[:0]
	s.at = s.sort(e)
	if s.at != roleFile {
		return s.at
	}
	s.n++
	s.file = mailgrant.Part{N: s.n, Name: FileName(e.name), Type: e.kind, ContentID: e.id, Inline: !e.attached && (e.inline || e.id != "")}
	s.asks = e.kind == "message/rfc822" || e.kind == "message/global" || e.kind == "text/rfc822-headers" || e.kind == "message/global-headers" || e.kind == "message/rfc822-headers"
	return s.at
}

// sort tells texts by their type, unless they are said to be files. Of the forms
// in which one text comes, the first of each kind counts.
func (s *sorter) sort(e *entity) role {
	if e.preamble {
		return rolePreamble
	}
	plain, html := e.kind == "text/plain", e.kind == "text/html"
	if e.attached || !plain && !html {
		return roleFile
	}
	if e.up != nil {
		seen := plain && e.up.plain || html && e.up.html
		switch e.up.kind {
		case "multipart/alternative":
			if seen {
				return roleFile
			}
		case "multipart/related":
			if seen && e.name != "" {
				return roleFile
			}
		default:
			if e.name != "" {
				return roleFile
			}
		}
		e.up.plain, e.up.html = e.up.plain || plain, e.up.html || html
	}
	if html {
		return roleHTML
	}
	return rolePlain
}

// count takes content of a file.
func (s *sorter) count(p []byte) {
	s.file.Size += int64(len(p))
	if s.asks && !s.whole {
		seen := max(0, len(s.inner)-3)
		s.inner = append(s.inner, p[:min(len(p), maxInner-len(s.inner))]...)
		s.whole = len(s.inner) >= maxInner || bytes.Contains(s.inner[seen:], blank) || bytes.Contains(s.inner[seen:], []byte("\n\n"))
	}
}

// end gives the attachment: a message is named after its subject.
func (s *sorter) end() mailgrant.Part {
	if s.file.Name == "" && (s.file.Type == "message/rfc822" || s.file.Type == "message/global") {
		s.file.Name = FileName(first(FileName(subjectOf(s.inner)), "message") + ".eml")
	}
	s.file.Name = s.names.take(s.file.Name)
	return s.file
}

func subjectOf(message []byte) (subject string) {
	eachField(headOf(message), func(name, v []byte) {
		if subject == "" && arriving(name) == fSubject {
			subject = clean(decodeText(headerText(v, "")), maxFileName)
		}
	})
	return strings.NewReplacer("/", "_", `\`, "_").Replace(subject)
}

// headOf is Block for lines that end in LF as well.
func headOf(b []byte) []byte {
	for at := 0; at < len(b); {
		n := lineLen(b[at:])
		if empty(b[at : at+n]) {
			return b[:at]
		}
		at += n
	}
	return b
}

// Texts gives the text of a message in its two forms, in UTF-8 with LF at each
// line, each up to max bytes; cut says that there was more. A text that comes in
// several parts is put together. What is wrong with the message is no error; the
// error is r's.
func Texts(r io.Reader, max int) (text, html string, cut bool, err error) {
	t := &texts{plain: collected{max: max}, html: collected{max: max}}
	if _, _, err := walk(r, t); err != nil {
		return "", "", false, err
	}
	return t.plain.String(), t.html.String(), t.plain.cut || t.html.cut, nil
}

type texts struct {
	sorter
	plain, html collected
	part        *collected // that the part belongs to
}

func (t *texts) field(fieldKind, []byte) {}
func (t *texts) headed(*entity)          {}
func (t *texts) note(string)             {}
func (t *texts) done() bool              { return false }

func (t *texts) begin(e *entity) bool {
	if t.plain.preamble && !e.preamble {
		t.plain = collected{max: t.plain.max}
	}
	t.part = nil
	switch t.sorter.begin(e) {
	case rolePreamble:
		t.plain.preamble = true
		t.part = &t.plain
	case rolePlain:
		t.part = &t.plain
	case roleHTML:
		t.part = &t.html
	}
	if t.part != nil {
		t.part.begin(e.charset)
	}
	return t.part != nil
}

func (t *texts) data(p []byte) bool { return t.part.add(p) }
func (t *texts) end() {
	if t.part != nil {
		t.part.end()
	}
}

// collected is the text of one part or several, up to max bytes.
type collected struct {
	max      int
	charset  string
	raw      []byte
	out      strings.Builder
	cut      bool
	preamble bool
}

func (c *collected) begin(charset string) { c.charset, c.raw = charset, c.raw[:0] }

func (c *collected) add(p []byte) bool {
	if n := c.max - c.out.Len() - len(c.raw); len(p) > n {
		p = p[:max(n, 0)]
		c.cut = true
	}
	c.raw = append(c.raw, p...)
	return !c.cut
}

// end makes UTF-8 of the part.
func (c *collected) end() {
	if len(c.raw) == 0 {
		return
	}
	s := toText(c.charset, c.raw)
	if c.cut {
		s = strings.TrimRight(s, "\ufffd") // half a letter
	}
	s = strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\x00", "")
	if c.out.Len() > 0 && !strings.HasSuffix(c.out.String(), "\n") && c.out.Len() < c.max {
		c.out.WriteByte('\n')
	}
	if n := c.max - c.out.Len(); len(s) > n {
		s, c.cut = cutText(s, max(n, 0)), true
	}
	c.out.WriteString(s)
	c.raw = c.raw[:0]
}

func (c *collected) String() string { return c.out.String() }

// Part writes the nth attachment to w, decoded, as it comes: no more than a
// window of it is held. NotFound says that there is no such attachment; other
// errors are r's and w's.
func Part(r io.Reader, n int, w io.Writer) (mailgrant.Part, error) {
	p := &onePart{want: n, w: w}
	if _, _, err := walk(r, p); err != nil {
		return mailgrant.Part{}, err
	}
	if p.err != nil {
		return mailgrant.Part{}, p.err
	}
	if !p.over {
		return mailgrant.Part{}, mailgrant.Errorf(mailgrant.NotFound, nil, "the message has no attachment %d", n)
	}
	return p.got, nil
}

type onePart struct {
	sorter
	want int
	w    io.Writer
	got  mailgrant.Part
	over bool
	err  error
}

func (p *onePart) field(fieldKind, []byte) {}
func (p *onePart) headed(*entity)          {}
func (p *onePart) note(string)             {}
func (p *onePart) done() bool              { return p.over || p.err != nil }

func (p *onePart) begin(e *entity) bool {
	return p.sorter.begin(e) == roleFile && (p.n == p.want || p.asks)
}

func (p *onePart) data(b []byte) bool {
	p.count(b)
	if p.n != p.want {
		return !p.whole
	}
	_, p.err = p.w.Write(b)
	return p.err == nil
}

func (p *onePart) end() {
	if p.at != roleFile {
		return
	}
	if a := p.sorter.end(); p.n == p.want {
		p.got, p.over = a, p.err == nil
	}
}
