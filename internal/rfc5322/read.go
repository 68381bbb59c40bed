package rfc5322

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"slices"
	"strings"
	"sync"

	"golang.org/x/text/unicode/norm"

	"github.com/mailgrant/mailgrant"
)

const (
	maxSubject   = 4000 // bytes
	maxName      = 500
	maxID        = 998
	maxIDs       = 100 // references
	maxResults   = 100 // of authentication
	maxRaw       = 4000
	maxNotes     = 10
	snippet      = 200  // letters
	looseLetters = 2000 // of the text, where a message has no id
	maxPlain     = 16 << 10
	maxHTML      = 48 << 10 // the text stands behind the styles
)

// Parsed is what a message says of itself: of the Arrival, Size and the fields
// from MessageID to Unparsed. All of it is only claimed. ME-06.
type Parsed struct {
	mailgrant.Arrival

	// Loose stays the same when the same mail is read in another way, by another
	// protocol: a server may fold and encode the header anew, and put the parts
	// together in another way. Two messages that a program made in the same second
	// with all the same words may have the same one when they have no Message-ID.
	Loose [16]byte
}

// Fill gives a what the message says. Its size is left to who counted it.
func (p *Parsed) Fill(a *mailgrant.Arrival) {
	q := &p.Arrival
	a.MessageID, a.InReplyTo, a.References, a.Date = q.MessageID, q.InReplyTo, q.References, q.Date
	a.From, a.Sender, a.ReplyTo, a.To, a.Cc = q.From, q.Sender, q.ReplyTo, q.To, q.Cc
	a.Subject, a.Snippet, a.Parts, a.AuthResult = q.Subject, q.Snippet, q.Parts, q.AuthResult
	a.Auto, a.Bounce, a.Unparsed = q.Auto, q.Bounce, q.Unparsed
}

// Read takes a message apart: its header, its parts, the first words of its
// text. It reads r to its end, once, and holds a window of it. What a message is
// never makes an error: what cannot be read is said in Unparsed, and the rest is
// there. The error is r's own.
func Read(r io.Reader) (Parsed, error) {
	p, _, err := read(r)
	return p, err
}

func read(r io.Reader) (Parsed, int64, error) {
	m := readers.Get().(*reader)
	m.reset()
	size, work, err := walk(r, m)
	m.p.Size = size
	if err == nil {
		m.finish()
	}
	p := m.p
	readers.Put(m)
	return p, work, err
}

var readers = sync.Pool{New: func() any { return &reader{} }}

// A reader makes a Parsed of what a walker meets.
type reader struct {
	sorter
	p       Parsed
	notes   []string
	raw     []rawField
	charset string

	auto    autoSigns
	date    string
	failed  string // X-Failed-Recipients
	bounce  bouncing
	into    *capture
	plain   capture
	html    capture
	fields  bool  // the part is the fields of a report
	came    bool  // the part is what came back
	binary  int64 // bytes of attachments that no server changes
	results bool  // Authentication-Results were met
}

type rawField struct {
	k fieldKind
	v []byte
}

// A capture holds the begin of a text.
type capture struct {
	b        []byte
	max      int
	charset  string
	met      bool
	preamble bool
}

func (c *capture) add(p []byte) bool {
	c.b = append(c.b, p[:min(len(p), c.max-len(c.b))]...)
	return len(c.b) < c.max
}

func (m *reader) reset() {
	if cap(m.raw) > 256 {
		m.raw = nil
	}
	*m = reader{notes: m.notes[:0], raw: m.raw[:0], plain: capture{b: m.plain.b[:0], max: maxPlain}, html: capture{b: m.html.b[:0], max: maxHTML},
		sorter: sorter{inner: m.inner[:0]}, bounce: bouncing{line: m.bounce.line[:0]}}
}

func (m *reader) note(why string) {
	if len(m.notes) < maxNotes && !slices.Contains(m.notes, why) {
		m.notes = append(m.notes, why)
	}
}

func (m *reader) done() bool { return false }

// field keeps a field until the whole header is read: its character set may be
// known only then.
func (m *reader) field(k fieldKind, v []byte) {
	switch {
	case k == fReceived:
	case len(m.raw) < maxRaw:
		m.raw = append(m.raw, rawField{k, v})
	default:
		m.note("the header has too many fields")
	}
}

func (m *reader) headed(e *entity) {
	m.charset = e.charset
	if e.kind == "multipart/report" {
		m.auto.report = true
	}
	for _, f := range m.raw {
		m.take(f.k, f.v)
	}
	m.raw = m.raw[:0]
}

// take reads one field.
func (m *reader) take(k fieldKind, raw []byte) {
	a := &m.p.Arrival
	v := headerText(raw, m.charset)
	switch k {
	case fFrom:
		if m.single(k, a.From != nil) {
			m.people(k, v, &a.From)
		}
	case fSender:
		if m.single(k, a.Sender != nil) {
			m.people(k, v, &a.Sender)
		}
	case fReplyTo:
		m.people(k, v, &a.ReplyTo)
	case fTo:
		m.people(k, v, &a.To)
	case fCc:
		m.people(k, v, &a.Cc)
	case fSubject:
		if m.single(k, a.Subject != "") {
			if a.Subject = decodeText(v); len(a.Subject) > maxSubject {
				a.Subject = cutText(a.Subject, maxSubject)
				m.note("the subject is cut")
			}
		}
	case fMessageID:
		if m.single(k, a.MessageID != "") {
			if a.MessageID = idIn(v); a.MessageID == "" && v != "" {
				m.note("the message id cannot be read")
			}
		}
	case fInReplyTo:
		a.InReplyTo = idsIn(a.InReplyTo, v)
	case fReferences:
		a.References = idsIn(a.References, v)
	case fDate:
		if m.single(k, m.date != "") {
			m.date = v
			if t, ok := parseDate(v); ok {
				a.Date = &t
			} else {
				m.note("the date cannot be read")
			}
		}
	case fAuthResults:
		if len(a.AuthResult) < maxResults {
			a.AuthResult = authResults(a.AuthResult, v, !m.results)
			m.results = true
		}
	case fFailedRecipients:
		m.failed = first(m.failed, v)
	default:
		m.auto.field(k, v)
	}
}

// single notes a second field where only one can be meant: another program could
// show the other one.
func (m *reader) single(k fieldKind, seen bool) bool {
	if seen {
		m.note("there is a second " + strings.ToLower(fieldNames[k]))
	}
	return !seen
}

// people reads a field of addresses. What is no address by the rules is taken as
// it is meant.
func (m *reader) people(k fieldKind, v string, into *[]mailgrant.Address) {
	l := list{s: v}
	for tried := len(*into); ; tried++ {
		l.skip()
		from := l.i
		a, more, why := l.next()
		if !more {
			return
		}
		if tried >= MaxAddresses {
			m.note("the " + strings.ToLower(fieldNames[k]) + " field has more than 2,000 addresses")
			return
		}
		if why == "" {
			*into = append(*into, mailgrant.Address{Name: clean(a.Name, maxName), Address: a.String()})
			continue
		}
		for piece := range strings.SplitSeq(v[from:l.i], ",") {
			if len(*into) < MaxAddresses {
				m.salvage(k, piece, into)
			}
		}
	}
}

// salvage finds an address in what is none: what stands in < >, or the word with
// an @. A name without one is kept, as in the From of many reports.
func (m *reader) salvage(k fieldKind, s string, into *[]mailgrant.Address) {
	var name, addr string
	if i := strings.LastIndexByte(s, '<'); i >= 0 {
		name = s[:i]
		addr, _, _ = strings.Cut(s[i+1:], ">")
		if strings.IndexByte(addr, '@') < 0 && strings.IndexByte(name, '@') >= 0 {
			name, addr = "", name
		}
		addr = strings.ReplaceAll(addr, " ", "")
	} else if i := strings.IndexByte(s, '@'); i >= 0 {
		from := strings.LastIndexAny(s[:i], " \t:;(\"'") + 1
		word, rest := cutAny(s[from:], " \t;)\"'")
		name, addr = s[:from]+rest, word
	} else {
		name = s
	}
	addr = clean(strings.Trim(addr, " \t\"'<>();:,"), maxPath+10)
	if a, why := parseSpec(addr); why == "" {
		addr = a.String()
	}
	name = clean(displayName(strings.Trim(name, " \t;:()'")), maxName)
	if addr == "" && name == "" {
		return
	}
	if addr != "" {
		m.note("the " + strings.ToLower(fieldNames[k]) + " field has an address that is none")
	}
	*into = append(*into, mailgrant.Address{Name: name, Address: addr})
}

// idIn is a message id with its brackets, which some programs forget.
func idIn(v string) string {
	if i := strings.IndexByte(v, '<'); i >= 0 {
		v = v[i+1:]
	}
	v, _, _ = strings.Cut(v, ">")
	if v = clean(v, maxID); strings.IndexByte(v, ' ') >= 0 {
		v = strings.Join(strings.Fields(v), "") // folded within
	}
	if v == "" {
		return ""
	}
	return "<" + v + ">"
}

// idsIn adds the ids of a field. Of too many the first and the last are kept, by
// which threads are made.
func idsIn(ids []string, v string) []string {
	add := func(id string) {
		if id == "" {
			return
		}
		if len(ids) == maxIDs {
			ids = slices.Delete(ids, 1, 2)
		}
		ids = append(ids, id)
	}
	if strings.IndexByte(v, '<') < 0 {
		for w := range strings.FieldsSeq(v) {
			if strings.IndexByte(w, '@') > 0 {
				add(idIn(w))
			}
		}
		return ids
	}
	for {
		_, after, ok := strings.Cut(v, "<")
		if !ok {
			return ids
		}
		id, rest, ok := strings.Cut(after, ">")
		if !ok {
			return ids
		}
		add(idIn(id))
		v = rest
	}
}

func (m *reader) begin(e *entity) bool {
	m.into, m.fields, m.came = nil, false, false
	if m.plain.preamble && !e.preamble {
		m.plain = capture{b: m.plain.b[:0], max: maxPlain}
	}
	switch m.sorter.begin(e) {
	case rolePreamble:
		m.plain.preamble = true
		m.into = &m.plain
	case rolePlain:
		if !m.plain.met && (!m.html.met || e.up == nil || e.up.kind == "multipart/alternative") {
			m.into = &m.plain
		}
	case roleHTML:
		if !m.html.met && !m.plain.met {
			m.into = &m.html
		}
	case roleFile:
		if m.fields = reports(e); m.fields {
			m.bounce.begin()
		}
		m.came = returned(e)
		return true
	}
	if m.into != nil {
		m.into.met, m.into.charset = !e.preamble, e.charset
	}
	return m.into != nil
}

func (m *reader) data(p []byte) bool {
	if m.at != roleFile {
		return m.into.add(p)
	}
	m.count(p)
	if m.fields {
		m.bounce.add(p)
	}
	return true
}

func (m *reader) end() {
	if m.at != roleFile {
		return
	}
	if m.fields {
		m.bounce.end()
	}
	if m.came && m.bounce.b != nil {
		m.bounce.came(m.inner)
	}
	a := m.sorter.end()
	if !strings.HasPrefix(a.Type, "text/") && !strings.HasPrefix(a.Type, "message/") {
		m.binary += a.Size
	}
	m.p.Parts = append(m.p.Parts, a)
}

// finish says what can be said only at the end.
func (m *reader) finish() {
	a := &m.p.Arrival
	if m.plain.preamble && strings.TrimSpace(string(m.plain.b)) == "" {
		m.plain.b = m.plain.b[:0]
	}
	letters := snippet
	if a.MessageID == "" {
		letters = looseLetters
	}
	text := ""
	switch {
	case len(m.plain.b) > 0:
		m.inWords()
		text = words(m.plain.text(letters), letters)
	case len(m.html.b) > 0:
		text = wordsOfHTML(toText(m.html.charset, m.html.b), letters)
	}
	a.Snippet = cutLetters(text, snippet)
	a.Bounce = m.bounce.b
	m.auto.subject, m.auto.bounce = a.Subject, a.Bounce != nil
	a.Auto = m.auto.word()
	m.strange(&m.plain)
	m.strange(&m.html)
	a.Unparsed = strings.Join(m.notes, "; ")
	m.p.Loose = m.loose(text)
}

// strange notes a character set that is not known.
func (m *reader) strange(c *capture) {
	if _, ok := encodingNamed(c.charset); !ok && len(c.b) > 0 {
		m.note("the character set " + clean(c.charset, 30) + " is not known")
	}
}

// inWords looks for a report that is written for people only.
func (m *reader) inWords() {
	b := m.plain.b
	if m.bounce.b != nil || !m.daemon() {
		return
	}
	if bytes.HasPrefix(b, []byte(qmailBegins)) || m.failed != "" && bytes.HasPrefix(b, []byte(eximBegins)) {
		text := strings.ReplaceAll(toText(m.plain.charset, b), "\r\n", "\n")
		if !m.bounce.qmail(text) {
			m.bounce.exim(m.failed, text)
		}
	}
}

// daemon says whether the message claims to come from a mail system.
func (m *reader) daemon() bool {
	if m.auto.nobody || len(m.p.From) == 0 {
		return true
	}
	local, _, _ := strings.Cut(strings.ToLower(first(m.p.From[0].Address, m.p.From[0].Name)), "@")
	return local == "mailer-daemon" || local == "postmaster"
}

// text is enough of what was captured to find so many letters in.
func (c *capture) text(letters int) string {
	b := c.b
	if n := 8 * letters; len(b) > n {
		b = b[:n]
	}
	return strings.TrimRight(toText(c.charset, b), "\ufffd")
}

// loose hashes what the same mail keeps on every way. Names are left out, and
// all space: folding makes and takes it.
func (m *reader) loose(text string) (sum [16]byte) {
	a := &m.p.Arrival
	b := make([]byte, 0, 512)
	part := func(s string) {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	people := func(l []mailgrant.Address) {
		for _, p := range l {
			part(strings.ToLower(p.Address))
		}
		part("")
	}
	part(a.MessageID)
	if a.Date != nil {
		b = binary.AppendVarint(b, a.Date.Unix())
	} else {
		part(strings.Join(strings.Fields(m.date), ""))
	}
	people(a.From)
	people(a.To)
	part(squeeze(a.Subject))
	if a.MessageID == "" {
		part(squeeze(text))
		b = binary.AppendVarint(b, m.binary)
	}
	h := sha256.Sum256(b)
	copy(sum[:], h[:])
	return sum
}

func squeeze(s string) string {
	if !ascii(s) {
		s = norm.NFC.String(s)
	}
	return strings.Join(strings.Fields(s), "")
}
