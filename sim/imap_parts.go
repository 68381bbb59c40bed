package sim

import (
	"bytes"
	"fmt"
	"mime"
	"net/mail"
	"slices"
	"strconv"
	"strings"
)

// What IMAP tells of the inside of a message: its parts, in a simple form.

// A part is a message, or a part of one, with its header.
type part struct {
	head, body []byte
	header     mail.Header
	kind, sub  string
	params     map[string]string
	parts      []*part
	depth      int
}

// headOf is the header with the empty line behind it.
func headOf(raw []byte) []byte {
	head, body := splitMessage(raw)
	switch {
	case bytes.HasPrefix(body, []byte("\r\n")):
		return raw[:len(head)+2]
	case bytes.HasPrefix(body, []byte("\n")):
		return raw[:len(head)+1]
	}
	return head
}

func partOf(raw []byte) *part {
	n := 0
	return readPart(raw, 0, &n)
}

func readPart(raw []byte, depth int, n *int) *part {
	p := &part{head: headOf(raw), depth: depth, kind: "text", sub: "plain"}
	if bytes.HasPrefix(raw, []byte("\r\n")) { // no header at all
		p.head = raw[:2]
	}
	p.body, p.header = raw[len(p.head):], headerOf(p.head)
	if kind, params, err := mime.ParseMediaType(p.header.Get("Content-Type")); err == nil {
		p.kind, p.sub, _ = strings.Cut(kind, "/")
		p.params = params
	}
	*n++
	if depth >= maxDepth {
		return p
	}
	switch {
	case p.kind == "multipart" && p.params["boundary"] != "":
		for _, inner := range splitParts(p.body, p.params["boundary"]) {
			if *n >= maxParts {
				break
			}
			p.parts = append(p.parts, readPart(inner, depth+1, n))
		}
	case p.kind == "message" && p.sub == "rfc822":
		p.parts = []*part{readPart(p.body, depth+1, n)}
	}
	return p
}

// splitParts cuts a multipart at its boundary lines.
func splitParts(body []byte, boundary string) [][]byte {
	var parts [][]byte
	start, at := -1, 0
	for line := range bytes.Lines(body) {
		rest, is := bytes.CutPrefix(line, []byte("--"+boundary))
		end := bytes.HasPrefix(rest, []byte("--"))
		if is && (end || len(bytes.TrimSpace(rest)) == 0) {
			if start >= 0 {
				inner := body[start:max(at, start)]
				inner = bytes.TrimSuffix(bytes.TrimSuffix(inner, []byte("\n")), []byte("\r"))
				parts = append(parts, inner)
			}
			start = at + len(line)
			if end {
				return parts
			}
		}
		at += len(line)
	}
	if start >= 0 {
		parts = append(parts, body[start:])
	}
	return parts
}

// section is what stands in the brackets of BODY[…].
func (p *part) section(spec string) ([]byte, bool) {
	at := p
	whole := true
	for spec != "" {
		number, rest, _ := strings.Cut(spec, ".")
		n, err := strconv.Atoi(number)
		if err != nil {
			break
		}
		inner := at
		if at.kind == "message" && len(at.parts) == 1 && !whole {
			inner = at.parts[0]
		}
		switch {
		case inner.kind == "multipart" && n >= 1 && n <= len(inner.parts):
			at = inner.parts[n-1]
		case inner.kind != "multipart" && n == 1:
			at = inner
		default:
			return nil, false
		}
		whole, spec = false, rest
	}
	message := at
	if !whole && at.kind == "message" && len(at.parts) == 1 {
		message = at.parts[0]
	}
	names := func(prefix string) []string {
		return strings.Fields(strings.NewReplacer("(", " ", ")", " ", `"`, "").Replace(strings.TrimPrefix(spec, prefix)))
	}
	switch {
	case spec == "" && whole:
		return slices.Concat(at.head, at.body), true
	case spec == "":
		return at.body, true
	case spec == "MIME" && !whole:
		return at.head, true
	case spec == "HEADER":
		return message.head, true
	case spec == "TEXT":
		return message.body, true
	case strings.HasPrefix(spec, "HEADER.FIELDS.NOT"):
		return message.fields(names("HEADER.FIELDS.NOT"), false), true
	case strings.HasPrefix(spec, "HEADER.FIELDS"):
		return message.fields(names("HEADER.FIELDS"), true), true
	}
	return nil, false
}

func (p *part) fields(names []string, want bool) []byte {
	var out []byte
	head, _ := splitMessage(p.head)
	for _, f := range fieldsOf(head) {
		name, _, _ := bytes.Cut(f, []byte(":"))
		if containsFold(names, string(bytes.TrimSpace(name))) == want {
			out = append(out, f...)
		}
	}
	return append(out, "\r\n"...)
}

// envelope is ENVELOPE of a message.
func envelope(raw []byte) string {
	h := headerOf(raw)
	from := addressesText(h, "From")
	or := func(field string) string {
		if text := addressesText(h, field); text != "NIL" {
			return text
		}
		return from
	}
	return fmt.Sprintf("(%s %s %s %s %s %s %s %s %s %s)", quoteOrNil(h.Get("Date")), quoteOrNil(oneLine(h.Get("Subject"))), from,
		or("Sender"), or("Reply-To"), addressesText(h, "To"), addressesText(h, "Cc"), addressesText(h, "Bcc"),
		quoteOrNil(h.Get("In-Reply-To")), quoteOrNil(strings.TrimSpace(h.Get("Message-Id"))))
}

func addressesText(h mail.Header, field string) string {
	var all []string
	for _, a := range addressList(h, field) {
		local, domain, _ := strings.Cut(a.Address, "@")
		name := "NIL"
		if a.Name != "" {
			name = quote(mime.QEncoding.Encode("utf-8", a.Name))
		}
		all = append(all, fmt.Sprintf("(%s NIL %s %s)", name, quote(local), quote(domain)))
	}
	if all == nil {
		return "NIL"
	}
	return "(" + strings.Join(all, "") + ")"
}

// structure is BODYSTRUCTURE, or BODY without what came later.
func (p *part) structure(extended bool) string {
	if p.kind == "multipart" && len(p.parts) > 0 {
		var b strings.Builder
		for _, inner := range p.parts {
			b.WriteString(inner.structure(extended))
		}
		more := ""
		if extended {
			more = " " + paramsText(p.params) + " NIL NIL"
		}
		return "(" + b.String() + " " + quote(p.sub) + more + ")"
	}
	encoding := p.header.Get("Content-Transfer-Encoding")
	if encoding == "" {
		encoding = "7BIT"
	}
	text := fmt.Sprintf("%s %s %s %s %s %s %d", quote(p.kind), quote(p.sub), paramsText(p.params),
		quoteOrNil(p.header.Get("Content-Id")), quoteOrNil(oneLine(p.header.Get("Content-Description"))), quote(encoding), len(p.body))
	switch {
	case p.kind == "message" && p.sub == "rfc822" && len(p.parts) == 1:
		text += fmt.Sprintf(" %s %s %d", envelope(p.body), p.parts[0].structure(extended), bytes.Count(p.body, []byte("\n")))
	case p.kind == "text":
		text += fmt.Sprintf(" %d", bytes.Count(p.body, []byte("\n")))
	}
	if extended {
		disposition := "NIL"
		if kind, params, err := mime.ParseMediaType(p.header.Get("Content-Disposition")); err == nil {
			disposition = "(" + quote(kind) + " " + paramsText(params) + ")"
		}
		text += " NIL " + disposition + " NIL"
	}
	return "(" + text + ")"
}

func paramsText(params map[string]string) string {
	var all []string
	for name, value := range params {
		all = append(all, quote(name)+" "+quote(value))
	}
	if all == nil {
		return "NIL"
	}
	slices.Sort(all)
	return "(" + strings.Join(all, " ") + ")"
}
