package rfc5322

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"mime"
	"mime/quotedprintable"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mailgrant/mailgrant"
)

// Mail is a message in the fields of the API.
type Mail struct {
	From, Sender         string
	ReplyTo, To, Cc, Bcc []string
	Subject, Text, HTML  string
	MessageID, InReplyTo string // made when empty; "" none
	References           []string
	Date                 time.Time // zero: now
	Headers              map[string]string
	Attachments          []Attachment
}

// An Attachment is a file in its own bytes. There is no other way to name its
// content, so none that could make us read a file or ask another server. AP-11.
type Attachment struct {
	Name        string
	ContentType string // "" = by the name's ending
	ContentID   string // for cid: in HTML; makes it inline
	Content     []byte
}

// A Composed message is checked and ready to be written. The envelope is what
// was checked, and nothing else: AP-04.
type Composed struct {
	From       string
	Recipients []string // without doubles, in the order To, Cc, Bcc
	MessageID  string
	UTF8       bool // SMTPUTF8 is needed

	head  []string
	text  string
	html  string
	files []file
}

type file struct {
	kind, name, id string
	content        []byte
}

// Compose checks every field and refuses what could become another one. An
// error names the field at fault. AP-03.
//
// It writes MIME itself: libraries for it hold each attachment in memory once
// more in base64, this holds a line.
func Compose(m Mail) (*Composed, error) {
	c := &Composed{text: m.Text, html: m.HTML}
	for _, s := range []struct{ v, at string }{{m.Text, "text"}, {m.HTML, "html"}} {
		if why := unfitText(s.v); why != "" {
			return nil, bad(s.at, "the %s cannot be sent: %s", s.at, why)
		}
	}
	for _, step := range []func(Mail) error{c.people, c.about, c.extra, c.attach} {
		if err := step(m); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func bad(at, format string, args ...any) error {
	return mailgrant.Errorf(mailgrant.Invalid, nil, format, args...).Fix("correct %s", at).At(at)
}

// unfitText finds what a text must not have; its line ends may be of any kind.
func unfitText(s string) string {
	if strings.IndexByte(s, 0) >= 0 {
		return "it has a NUL character"
	}
	if !utf8.ValidString(s) {
		return notUTF8
	}
	return ""
}

// people writes the fields of addresses, and the envelope.
func (c *Composed) people(m Mail) error {
	if m.From == "" {
		return mailgrant.Errorf(mailgrant.Invalid, nil, "the message has no sender").Fix("name it in from").At("from")
	}
	seen := map[string]bool{}
	for _, f := range []struct {
		name, at string
		list     []string
		single   bool
	}{{"From", "from", []string{m.From}, true}, {"Sender", "sender", []string{m.Sender}, true}, {"Reply-To", "reply_to", m.ReplyTo, false},
		{"To", "to", m.To, false}, {"Cc", "cc", m.Cc, false}, {"Bcc", "bcc", m.Bcc, false}} {
		if f.single && f.list[0] == "" {
			continue
		}
		list, err := readList(f.list, f.at, f.single)
		if err != nil {
			return err
		}
		for _, a := range list {
			c.UTF8 = c.UTF8 || a.UTF8
			if to := f.at == "to" || f.at == "cc" || f.at == "bcc"; to && !seen[a.Key()] {
				seen[a.Key()] = true
				c.Recipients = append(c.Recipients, a.String())
			}
		}
		if f.at == "from" {
			c.From = list[0].String()
		}
		if len(list) > 0 && f.at != "bcc" { // those never stand in a header
			c.head = append(c.head, field(f.name, addresses(list)))
		}
	}
	if len(c.Recipients) == 0 {
		return mailgrant.Errorf(mailgrant.Invalid, nil, "the message has no recipient").Fix("name one in to, cc or bcc").At("to")
	}
	return nil
}

func readList(in []string, at string, single bool) ([]Address, error) {
	if len(in) > MaxAddresses {
		return nil, bad(at, "%s has more than %d addresses", at, MaxAddresses)
	}
	out := make([]Address, len(in))
	for i, s := range in {
		a, err := ParseAddress(s)
		if err != nil {
			where := at
			if !single {
				where = fmt.Sprintf("%s[%d]", at, i)
			}
			return nil, mailgrant.AsError(err).At(where)
		}
		out[i] = a
	}
	return out, nil
}

const maxText = 4000 // bytes of one field

// about writes subject, date and ids.
func (c *Composed) about(m Mail) error {
	if why := unfitField(m.Subject); why != "" {
		return bad("subject", "the subject cannot be sent: %s", why)
	}
	if m.Subject != "" {
		c.head = append(c.head, field("Subject", text(m.Subject)))
	}
	if m.Date.IsZero() {
		m.Date = time.Now()
	}
	if y := m.Date.Year(); y < 1970 || y > 9999 {
		return bad("date", "the date is out of range")
	}
	c.head = append(c.head, field("Date", m.Date.Format(time.RFC1123Z)))
	c.MessageID = m.MessageID
	if c.MessageID == "" {
		_, domain, _ := strings.Cut(c.From[strings.LastIndexByte(c.From, '@'):], "@")
		c.MessageID = "<" + string(mailgrant.NewID(mailgrant.PrefixSubmission)) + "@" + domain + ">"
	}
	for _, id := range []struct {
		name, at string
		v        []string
	}{{"Message-ID", "message_id", []string{c.MessageID}}, {"In-Reply-To", "in_reply_to", some(m.InReplyTo)}, {"References", "references", m.References}} {
		for i, v := range id.v {
			if !messageID(v) {
				at := id.at
				if id.at == "references" {
					at = fmt.Sprintf("references[%d]", i)
				}
				return bad(at, "%q is not a message id like <name@example.com>", clip(v))
			}
		}
		if len(id.v) > 100 {
			return bad(id.at, "there are more than 100 references")
		}
		if len(id.v) > 0 {
			c.head = append(c.head, field(id.name, strings.Join(id.v, " ")))
		}
	}
	return nil
}

func some(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// messageID says whether s is <left@right> of plain characters.
func messageID(s string) bool {
	if len(s) < 5 || len(s) > 250 || s[0] != '<' || s[len(s)-1] != '>' || strings.Count(s, "@") != 1 {
		return false
	}
	for i := 1; i < len(s)-1; i++ {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`<>()",;:\[]`, c) >= 0 {
			return false
		}
	}
	return true
}

// unfitField finds what a field must not have.
func unfitField(s string) string {
	if why := uncleanText(s); why != "" {
		return why
	}
	if len(s) > maxText {
		return fmt.Sprintf("it is longer than %d bytes", maxText)
	}
	for w := range strings.FieldsSeq(s) {
		if len(w) > 900 && ascii(w) {
			return "it has a word that is longer than a line may be"
		}
	}
	return ""
}

// allowed are the fields an application may set besides those of Mail, in lower
// case. Those that begin with x- or list- are allowed too, except ours.
var allowed = []string{"auto-submitted", "comments", "content-language", "expires", "feedback-id", "importance", "keywords", "organization", "precedence",
	"priority", "sensitivity", "thread-index", "thread-topic"}

// extra writes the fields of Headers.
func (c *Composed) extra(m Mail) error {
	if len(m.Headers) > 100 {
		return bad("headers", "there are more than 100 headers")
	}
	for _, name := range slices.Sorted(maps.Keys(m.Headers)) {
		at, low := "headers."+clip(name), strings.ToLower(name)
		if !fieldName(name) {
			return bad("headers", "%q is not the name of a header", clip(name))
		}
		if !slices.Contains(allowed, low) && !strings.HasPrefix(low, "x-") && !strings.HasPrefix(low, "list-") || strings.HasPrefix(low, "x-mailgrant-") {
			return mailgrant.Errorf(mailgrant.Invalid, nil, "the header %s cannot be set", name).
				Fix("use the field of the API for it; free are names that begin with X- or List-, and %s", strings.Join(allowed, ", ")).At(at)
		}
		if why := unfitField(m.Headers[name]); why != "" {
			return bad(at, "the header %s cannot be sent: %s", name, why)
		}
		c.head = append(c.head, field(name, text(m.Headers[name])))
	}
	return nil
}

func fieldName(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return s != "" && len(s) <= 70
}

// attach checks the files.
func (c *Composed) attach(m Mail) error {
	if len(m.Attachments) > 500 {
		return bad("attachments", "there are more than 500 attachments")
	}
	ids := map[string]bool{}
	for i, a := range m.Attachments {
		at := func(f string) string { return fmt.Sprintf("attachments[%d].%s", i, f) }
		if why := uncleanText(a.Name); why != "" || a.Name == "" || len(a.Name) > 255 || strings.ContainsAny(a.Name, `/\`+"\t") {
			return bad(at("name"), "%q is not the name of a file", clip(a.Name))
		}
		kind, err := contentType(a)
		if err != nil {
			return mailgrant.AsError(err).At(at("content_type"))
		}
		id := strings.TrimSuffix(strings.TrimPrefix(a.ContentID, "<"), ">")
		if id != "" && (!contentID(id) || ids[id]) {
			return bad(at("content_id"), "%q is not a content id, or it is there twice", clip(a.ContentID))
		}
		ids[id] = true
		c.files = append(c.files, file{kind: kind, name: a.Name, id: id, content: a.Content})
	}
	return nil
}

func contentType(a Attachment) (string, error) {
	if a.ContentType == "" {
		if i := strings.LastIndexByte(a.Name, '.'); i >= 0 {
			if t := mime.TypeByExtension(a.Name[i:]); t != "" {
				a.ContentType = t
			}
		}
		if a.ContentType == "" {
			a.ContentType = "application/octet-stream"
		}
	}
	t, params, err := mime.ParseMediaType(a.ContentType)
	if err != nil || strings.Count(t, "/") != 1 || uncleanText(a.ContentType) != "" || !ascii(a.ContentType) || len(a.ContentType) > 200 {
		return "", mailgrant.Errorf(mailgrant.Invalid, nil, "%q is not a content type", clip(a.ContentType)).Fix("write it like application/pdf")
	}
	if strings.HasPrefix(t, "multipart/") || strings.HasPrefix(t, "message/") {
		return "", mailgrant.Errorf(mailgrant.Invalid, nil, "an attachment cannot be of the type %s", t).Fix("attach it as application/octet-stream")
	}
	keep := map[string]string{}
	for _, p := range []string{"charset", "method", "format"} {
		if params[p] != "" {
			keep[p] = params[p]
		}
	}
	return mime.FormatMediaType(t, keep), nil
}

func contentID(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c >= 0x80 || !atextASCII[c] && c != '.' && c != '@' {
			return false
		}
	}
	return len(s) <= 200
}

// WriteTo writes the message, with CRLF at every line. It can be called again.
func (c *Composed) WriteTo(w io.Writer) (int64, error) {
	n := &counter{w: bufio.NewWriterSize(w, 32<<10)}
	for _, h := range c.head {
		n.say(h)
	}
	n.say("MIME-Version: 1.0\r\n")
	c.top(n)
	if n.err == nil {
		n.err = n.w.Flush()
	}
	return n.n, n.err
}

// top is the outermost part: the attachments beside the text, if there are any.
func (c *Composed) top(n *counter) {
	plain := slices.DeleteFunc(slices.Clone(c.files), func(f file) bool { return c.inline(f) })
	if len(plain) == 0 {
		c.body(n)
		return
	}
	b := n.open("mixed")
	n.next(b)
	c.body(n)
	for _, f := range plain {
		n.next(b)
		n.file(f, "attachment")
	}
	n.end(b)
}

func (c *Composed) inline(f file) bool { return f.id != "" && c.html != "" }

// body is the text, in one form or two.
func (c *Composed) body(n *counter) {
	switch {
	case c.html == "":
		n.part("text/plain", c.text)
	case c.text == "":
		c.page(n)
	default:
		b := n.open("alternative")
		n.next(b)
		n.part("text/plain", c.text)
		n.next(b)
		c.page(n)
		n.end(b)
	}
}

// page is the HTML with the pictures it shows.
func (c *Composed) page(n *counter) {
	shown := slices.DeleteFunc(slices.Clone(c.files), func(f file) bool { return !c.inline(f) })
	if len(shown) == 0 {
		n.part("text/html", c.html)
		return
	}
	b := n.open("related")
	n.next(b)
	n.part("text/html", c.html)
	for _, f := range shown {
		n.next(b)
		n.file(f, "inline")
	}
	n.end(b)
}

// A counter writes parts, and keeps the first error.
type counter struct {
	w   *bufio.Writer
	n   int64
	err error
}

func (n *counter) Write(p []byte) (int, error) {
	if n.err != nil {
		return 0, n.err
	}
	k, err := n.w.Write(p)
	n.n += int64(k)
	n.err = err
	return k, err
}

// WriteString is Write without a copy of s.
func (n *counter) WriteString(s string) (int, error) {
	if n.err != nil {
		return 0, n.err
	}
	k, err := n.w.WriteString(s)
	n.n += int64(k)
	n.err = err
	return k, err
}

func (n *counter) say(s string)  { n.WriteString(s) }
func (n *counter) next(b string) { n.say("--" + b + "\r\n") }
func (n *counter) end(b string)  { n.say("--" + b + "--\r\n") }
func (n *counter) open(kind string) string {
	b := boundary()
	n.say("Content-Type: multipart/" + kind + ";\r\n boundary=\"" + b + "\"\r\n\r\n")
	return b
}

func (n *counter) part(kind, s string) {
	if plain(s) {
		n.say("Content-Type: " + kind + "; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\n")
		for line := range strings.Lines(s) {
			n.say(strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r"))
			n.say("\r\n")
		}
		n.say("\r\n")
		return
	}
	n.say("Content-Type: " + kind + "; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n")
	q := quotedprintable.NewWriter(n)
	io.WriteString(q, s)
	q.Close()
	n.say("\r\n")
}

// plainLine is how long a line of plain text may be. RFC 5322 section 2.1.1.
const plainLine = 78

// plain says whether a text leaves best as it is: ASCII in short lines, and
// nothing that a server on the way is known to change.
func plain(s string) bool {
	for line := range strings.Lines(s) {
		body, ended := strings.CutSuffix(line, "\n")
		body = strings.TrimSuffix(body, "\r")
		if !ended || len(body) > plainLine || strings.HasPrefix(body, "From ") || strings.HasSuffix(body, " ") {
			return false
		}
		for i := range len(body) {
			if c := body[i]; c < ' ' || c >= 0x7f { // a tab too: some make it blanks
				return false
			}
		}
	}
	return true
}

func (n *counter) file(f file, how string) {
	n.say(field("Content-Type", f.kind))
	n.say("Content-Transfer-Encoding: base64\r\n")
	n.say(field("Content-Disposition", mime.FormatMediaType(how, map[string]string{"filename": f.name})))
	if f.id != "" {
		n.say("Content-ID: <" + f.id + ">\r\n")
	}
	n.say("\r\n")
	e := wrapped{w: n}
	e.Write(f.content)
	e.flush()
}
