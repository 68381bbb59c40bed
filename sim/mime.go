package sim

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"net/textproto"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/html"
	"golang.org/x/text/encoding/htmlindex"
)

// A file is an attachment or an inline picture.
type file struct {
	Name, Type, ContentID string
	Inline                bool
	Data                  []byte
}

// A readable is a message in the parts that a person reads.
type readable struct {
	Header     mail.Header
	Text, HTML string
	Files      []file
}

// The depth and the number of parts to which a message is taken apart.
const (
	maxDepth = 64
	maxParts = 2000
)

// readMessage takes a message apart as far as it can be.
func readMessage(raw []byte) *readable {
	r := &readable{Header: headerOf(raw)}
	_, body := splitMessage(raw)
	body = bytes.TrimPrefix(bytes.TrimPrefix(body, []byte("\r")), []byte("\n"))
	parts := 0
	r.add(textproto.MIMEHeader(r.Header), bytes.NewReader(body), 0, &parts)
	return r
}

func (r *readable) add(h textproto.MIMEHeader, body io.Reader, depth int, parts *int) {
	if *parts++; *parts > maxParts || depth > maxDepth {
		return
	}
	kind, params, _ := mime.ParseMediaType(h.Get("Content-Type"))
	if kind == "" {
		kind = "text/plain"
	}
	if strings.HasPrefix(kind, "multipart/") && params["boundary"] != "" {
		mr := multipart.NewReader(body, params["boundary"])
		for {
			p, err := mr.NextRawPart()
			if err != nil {
				return
			}
			r.add(p.Header, p, depth+1, parts)
		}
	}
	data, _ := io.ReadAll(decoded(body, h.Get("Content-Transfer-Encoding")))
	disposition, dp, _ := mime.ParseMediaType(h.Get("Content-Disposition"))
	name := decodeWords(dp["filename"])
	if name == "" {
		name = decodeWords(params["name"])
	}
	cid := strings.Trim(h.Get("Content-Id"), "<> ")
	readableBody := disposition != "attachment" && name == "" && cid == ""
	switch {
	case readableBody && kind == "text/html" && r.HTML == "":
		r.HTML = inUTF8(data, params["charset"])
	case readableBody && kind == "text/plain" && r.Text == "":
		r.Text = inUTF8(data, params["charset"])
	default:
		if name == "" {
			name = unnamed(kind, len(r.Files)+1)
		}
		r.Files = append(r.Files, file{Name: name, Type: kind, ContentID: cid,
			Inline: disposition == "inline" || disposition == "" && cid != "", Data: data})
	}
}

func unnamed(kind string, n int) string {
	if kind == "message/rfc822" {
		return fmt.Sprintf("message-%d.eml", n)
	}
	if list, _ := mime.ExtensionsByType(kind); len(list) > 0 {
		return fmt.Sprintf("part-%d%s", n, list[0])
	}
	return fmt.Sprintf("part-%d.bin", n)
}

func decoded(r io.Reader, encoding string) io.Reader {
	switch strings.ToLower(strings.TrimSpace(encoding)) {
	case "base64":
		return base64.NewDecoder(base64.StdEncoding, r)
	case "quoted-printable":
		return quotedprintable.NewReader(r)
	}
	return r
}

func inUTF8(text []byte, charset string) string {
	if enc, err := htmlindex.Get(charset); err == nil {
		if t, err := enc.NewDecoder().Bytes(text); err == nil {
			text = t
		}
	}
	return strings.ToValidUTF8(string(text), "\ufffd")
}

func (r *readable) hasAttachments() bool {
	return slices.ContainsFunc(r.Files, func(f file) bool { return !f.Inline })
}

// addressList reads a header field of addresses, leaving out what is none.
func addressList(h mail.Header, field string) []*mail.Address {
	var all []*mail.Address
	for _, value := range h[field] {
		if list, err := mail.ParseAddressList(value); err == nil {
			all = append(all, list...)
		}
	}
	return all
}

// mime writes the message of a JSON without its files.
func (m *graphMessage) mime(box *Mailbox, now time.Time) []byte {
	var b bytes.Buffer
	field := func(name, value string) {
		if value = oneLine(value); value != "" {
			fmt.Fprintf(&b, "%s: %s\r\n", name, value)
		}
	}
	list := func(name string, all ...graphRecipient) {
		var texts []string
		for _, r := range all {
			texts = append(texts, r.address().String())
		}
		if len(texts) > 0 {
			fmt.Fprintf(&b, "%s: %s\r\n", name, strings.Join(texts, ",\r\n "))
		}
	}
	from := &mail.Address{Name: box.Name, Address: box.Address}
	if m.From != nil && m.From.EmailAddress.Address != "" {
		from = m.From.address()
	}
	field("From", from.String())
	if m.Sender != nil && m.Sender.EmailAddress.Address != "" && !strings.EqualFold(m.Sender.EmailAddress.Address, from.Address) {
		list("Sender", *m.Sender)
	}
	list("To", m.ToRecipients...)
	list("Cc", m.CcRecipients...)
	list("Bcc", m.BccRecipients...)
	list("Reply-To", m.ReplyTo...)
	if m.Subject != "" {
		fmt.Fprintf(&b, "Subject: %s\r\n", mime.QEncoding.Encode("utf-8", oneLine(m.Subject)))
	}
	id := oneLine(m.InternetMessageID)
	if id == "" {
		id = newMessageID()
	}
	field("Message-ID", id)
	field("Date", now.Format(time.RFC1123Z))
	for _, p := range m.SingleValueExtendedProperties {
		switch strings.ToLower(strings.TrimSpace(p.ID)) { // the MAPI properties behind these fields
		case "string 0x1042":
			field("In-Reply-To", p.Value)
		case "string 0x1039":
			field("References", p.Value)
		}
	}
	if v := strings.ToLower(m.Importance); v == "low" || v == "high" {
		field("Importance", v)
	}
	for _, h := range m.InternetMessageHeaders {
		field(h.Name, mime.QEncoding.Encode("utf-8", oneLine(h.Value)))
	}
	kind, content := "plain", ""
	if m.Body != nil {
		content = m.Body.Content
		if strings.EqualFold(m.Body.ContentType, "html") {
			kind = "html"
		}
	}
	fmt.Fprintf(&b, "MIME-Version: 1.0\r\nContent-Type: text/%s; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n", kind)
	q := quotedprintable.NewWriter(&b)
	io.WriteString(q, content)
	q.Close()
	return b.Bytes()
}

// withFiles puts files to a message: pictures in the text beside it, others
// behind it. A message without files stays as it is.
func withFiles(raw []byte, files []file) []byte {
	if len(files) == 0 {
		return raw
	}
	head, body := splitMessage(raw)
	var fields, content []byte
	for _, f := range fieldsOf(head) {
		switch name := strings.ToLower(string(f[:min(len(f), 8)])); {
		case name == "content-":
			content = append(content, f...)
		case name != "mime-ver":
			fields = append(fields, f...)
		}
	}
	entity := append(content, body...)
	for _, how := range []struct {
		kind   string
		inline bool
	}{{"related", true}, {"mixed", false}} {
		some := slices.DeleteFunc(slices.Clone(files), func(f file) bool { return f.Inline != how.inline })
		if len(some) > 0 {
			entity = multipartOf(how.kind, entity, some)
		}
	}
	return slices.Concat(fields, []byte("MIME-Version: 1.0\r\n"), entity)
}

// multipartOf wraps an entity, header and body, with files behind it.
func multipartOf(kind string, entity []byte, files []file) []byte {
	boundary := "_000_" + newSecretText()[:32] + "_"
	var b bytes.Buffer
	fmt.Fprintf(&b, "Content-Type: multipart/%s; boundary=\"%s\"\r\n\r\n--%s\r\n", kind, boundary, boundary)
	b.Write(entity)
	for _, f := range files {
		fmt.Fprintf(&b, "\r\n--%s\r\n", boundary)
		f.write(&b)
	}
	fmt.Fprintf(&b, "\r\n--%s--\r\n", boundary)
	return b.Bytes()
}

func (f *file) write(b *bytes.Buffer) {
	kind, params, err := mime.ParseMediaType(f.Type)
	if err != nil || strings.HasPrefix(kind, "multipart/") {
		kind, params = "application/octet-stream", nil
	}
	if params == nil {
		params = map[string]string{}
	}
	params["name"] = f.Name
	disposition := "attachment"
	if f.Inline {
		disposition = "inline"
	}
	fmt.Fprintf(b, "Content-Type: %s\r\n", mime.FormatMediaType(kind, params))
	fmt.Fprintf(b, "Content-Disposition: %s\r\n", mime.FormatMediaType(disposition, map[string]string{"filename": f.Name}))
	if cid := oneLine(f.ContentID); cid != "" {
		fmt.Fprintf(b, "Content-ID: <%s>\r\n", strings.Trim(cid, "<>"))
	}
	b.WriteString("Content-Transfer-Encoding: base64\r\n\r\n")
	text := base64.StdEncoding.EncodeToString(f.Data)
	for len(text) > 76 {
		b.WriteString(text[:76] + "\r\n")
		text = text[76:]
	}
	b.WriteString(text + "\r\n")
}

// preview is the beginning of the text in one line.
func preview(r *readable) string {
	text := r.Text
	if text == "" {
		text = withoutTags(r.HTML)
	}
	text = strings.Join(strings.Fields(text), " ")
	if runes := []rune(text); len(runes) > 255 {
		text = string(runes[:255])
	}
	return text
}

// withoutTags leaves the text of HTML that a person would see.
func withoutTags(text string) string {
	var b strings.Builder
	z := html.NewTokenizer(strings.NewReader(text))
	hidden := ""
	for {
		switch z.Next() {
		case html.ErrorToken:
			return b.String()
		case html.TextToken:
			if hidden == "" {
				b.Write(z.Text())
			}
		case html.StartTagToken:
			if name, _ := z.TagName(); hidden == "" && slices.Contains([]string{"script", "style", "title"}, string(name)) {
				hidden = string(name)
			}
			b.WriteByte(' ')
		case html.EndTagToken:
			if name, _ := z.TagName(); string(name) == hidden {
				hidden = ""
			}
			b.WriteByte(' ')
		}
	}
}

// oneLine keeps what is written into a header from beginning another field.
func oneLine(s string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r == '\r' || r == '\n' || r == 0 {
			return ' '
		}
		return r
	}, s))
}
