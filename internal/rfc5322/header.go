// Package rfc5322 reads and writes the form of messages: the header, its
// addresses, the lines.
//
// What comes in is foreign. It is read once, in order, within bounds; what two
// programs could read differently is refused where it decides who is sending,
// and noted where it does not. What goes out is what came in, byte for byte,
// save for the few lines this package is asked to add or to take away.
package rfc5322

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/mailgrant/mailgrant"
)

// The bounds of R-ME1.
const (
	MaxHeader    = 256 << 10 // bytes of a header
	MaxAddresses = 2000      // in one field
	maxFields    = 10000
	maxMalformed = 20
)

// A Header is what mailgrant needs to know of a message's header.
type Header struct {
	From, Sender, ResentFrom, ResentSender []Address // who it claims to be from; strictly read
	ReplyTo, To, Cc, Bcc, ResentBcc        []Address // what can be read of them

	Subject       string // decoded
	MessageID     string // with its < >
	Date          string
	AutoSubmitted string
	ContentType   string // "multipart/signed"; lower case, without parameters
	Encoding      string // Content-Transfer-Encoding, lower case
	Received      int    // hops so far
	Signed        bool   // a DKIM signature, or a signed or encrypted body

	UTF8      bool     // an address in it has letters outside ASCII: SMTPUTF8 is needed
	EightBit  bool     // it has octets over 127, as old programs write them
	Malformed []string // what could not be read: "field 7", "to"
	Len       int      // bytes of the header, with the empty line
}

// Block is the header of a message: up to and with the empty line, or all of b
// when there is none.
func Block(b []byte) []byte {
	if bytes.HasPrefix(b, crlf) {
		return b[:2]
	}
	if i := bytes.Index(b, blank); i >= 0 {
		return b[:i+4]
	}
	return b
}

var (
	crlf  = []byte("\r\n")
	blank = []byte("\r\n\r\n")
)

// ParseHeader reads a header whose lines end in CRLF. An error names the field.
// Two From fields, or a From that is not plainly one list of addresses, are
// errors: another program could show or check the other one.
func ParseHeader(block []byte) (Header, error) {
	h := Header{}
	if len(block) > MaxHeader {
		return h, mailgrant.Errorf(mailgrant.TooLarge, nil, "the header is larger than %d KiB", MaxHeader>>10).Fix("make it smaller").At("header")
	}
	if err := h.octets(block); err != nil {
		return h, err
	}
	p := parser{h: &h}
	s := string(block)
	for line := 1; len(s) > 0; line++ {
		if strings.HasPrefix(s, "\r\n") {
			h.Len = len(block) - len(s) + 2
			break
		}
		var field string
		field, s = cutField(s)
		if err := p.field(field, line); err != nil {
			return h, err
		}
		if line > maxFields {
			return h, mailgrant.Errorf(mailgrant.Invalid, nil, "the header has more than %d fields", maxFields).Fix("make it smaller").At("header")
		}
	}
	if h.Len == 0 {
		h.Len = len(block)
	}
	return h, nil
}

// octets looks at single octets: NUL, CR and LF apart from each other, and what
// is over 127.
func (h *Header) octets(block []byte) error {
	if bytes.IndexByte(block, 0) >= 0 {
		return mailgrant.Errorf(mailgrant.Invalid, nil, "the header has a NUL character").Fix("take it out").At("header")
	}
	if at := bareLineEnd(block); at >= 0 {
		return mailgrant.Errorf(mailgrant.Invalid, nil, "the header has a line that does not end in CRLF").
			Fix("end every line with CR LF, and use neither of them alone").At("header")
	}
	if len(block) > 0 && (block[0] == ' ' || block[0] == '\t') {
		return mailgrant.Errorf(mailgrant.Invalid, nil, "the header begins with a space").Fix("begin with a field name").At("header")
	}
	h.EightBit = !ascii(block)
	return nil
}

// cutField takes the first field with its continuation lines; field keeps inner
// line ends and loses the last one.
func cutField(s string) (field, rest string) {
	from := 0
	for {
		i := strings.Index(s[from:], "\r\n")
		if i < 0 {
			return s, ""
		}
		end := from + i
		if end+2 >= len(s) || s[end+2] != ' ' && s[end+2] != '\t' {
			return s[:end], s[end+2:]
		}
		from = end + 2
	}
}

type parser struct {
	h    *Header
	seen [fieldKinds]int
}

type fieldKind int

const (
	fOther fieldKind = iota
	fFrom
	fSender
	fReplyTo
	fTo
	fCc
	fBcc
	fResentFrom
	fResentSender
	fResentBcc
	fSubject
	fMessageID
	fDate
	fReceived
	fAutoSubmitted
	fContentType
	fEncoding
	fDKIM
	fieldKinds
)

var fieldNames = [fieldKinds]string{"", "From", "Sender", "Reply-To", "To", "Cc", "Bcc", "Resent-From", "Resent-Sender", "Resent-Bcc", "Subject", "Message-ID", "Date",
	"Received", "Auto-Submitted", "Content-Type", "Content-Transfer-Encoding", "DKIM-Signature"}

// kindOf knows a field by its name. Space before the colon is an old habit.
func kindOf(name string) fieldKind {
	if n := len(name); n < 2 || n > 25 {
		return fOther
	}
	for k := fFrom; k < fieldKinds; k++ {
		if len(fieldNames[k]) == len(name) && strings.EqualFold(fieldNames[k], name) {
			return k
		}
	}
	return fOther
}

func (p *parser) malformed(what string) {
	if len(p.h.Malformed) < maxMalformed {
		p.h.Malformed = append(p.h.Malformed, what)
	}
}

func (p *parser) field(f string, n int) error {
	colon := strings.IndexByte(f, ':')
	if colon < 1 {
		if !(n == 1 && strings.HasPrefix(f, "From ")) {
			p.malformed(fmt.Sprintf("field %d", n))
		}
		return nil
	}
	name := strings.TrimRight(f[:colon], " \t\r\n")
	for i := 0; i < len(name); i++ {
		if c := name[i]; c < ' ' || c == 0x7f {
			return mailgrant.Errorf(mailgrant.Invalid, nil, "a field name in the header has a control character").Fix("correct field %d of the header", n).At("header")
		} else if c == ' ' || c >= utf8.RuneSelf {
			if n == 1 && strings.HasPrefix(f, "From ") {
				return nil // the envelope line of a mailbox file
			}
			p.malformed(fmt.Sprintf("field %d", n))
			return nil
		}
	}
	kind := kindOf(name)
	if kind == fOther {
		return nil
	}
	p.seen[kind]++
	if kind == fReceived {
		p.h.Received++
		return nil
	}
	if kind == fDKIM {
		p.h.Signed = true
		return nil
	}
	return p.known(kind, unfold(f[colon+1:]))
}

// unfold joins the lines of a field. RFC 5322 section 2.2.3.
func unfold(v string) string {
	if strings.IndexByte(v, '\r') >= 0 {
		v = strings.ReplaceAll(v, "\r\n", "")
	}
	return strings.Trim(v, " \t")
}

func (p *parser) known(k fieldKind, v string) error {
	h := p.h
	switch k {
	case fFrom:
		return p.senders(k, v, &h.From, true)
	case fSender:
		return p.senders(k, v, &h.Sender, true)
	case fResentFrom:
		return p.senders(k, v, &h.ResentFrom, false)
	case fResentSender:
		return p.senders(k, v, &h.ResentSender, false)
	case fReplyTo:
		return p.readers(k, v, &h.ReplyTo)
	case fTo:
		return p.readers(k, v, &h.To)
	case fCc:
		return p.readers(k, v, &h.Cc)
	case fBcc:
		return p.readers(k, v, &h.Bcc)
	case fResentBcc:
		return p.readers(k, v, &h.ResentBcc)
	}
	if p.seen[k] > 1 {
		p.malformed("a second " + strings.ToLower(fieldNames[k]))
		return nil
	}
	switch k {
	case fSubject:
		h.Subject = strings.Clone(decodeText(v))
	case fMessageID:
		h.MessageID = strings.Clone(v)
	case fDate:
		h.Date = strings.Clone(v)
	case fAutoSubmitted:
		h.AutoSubmitted, _, _ = strings.Cut(strings.ToLower(v), ";")
		h.AutoSubmitted = strings.TrimSpace(h.AutoSubmitted)
	case fContentType:
		t, _, _ := strings.Cut(v, ";")
		h.ContentType = strings.ToLower(strings.TrimSpace(t))
		switch h.ContentType {
		case "multipart/signed", "multipart/encrypted", "application/pkcs7-mime", "application/x-pkcs7-mime":
			h.Signed = true
		}
	case fEncoding:
		h.Encoding = strings.ToLower(v)
	}
	return nil
}

// senders reads a field that says who is sending. Anything doubtful is an error.
func (p *parser) senders(k fieldKind, v string, into *[]Address, once bool) error {
	field := strings.ToLower(fieldNames[k])
	bad := func(why string) error {
		return mailgrant.Errorf(mailgrant.Invalid, nil, "the %s field cannot be taken: %s", fieldNames[k], why).
			Fix("write one %s field with plain addresses, like Name <name@example.com>", fieldNames[k]).At(field)
	}
	if once && p.seen[k] > 1 {
		return bad("there are two of them")
	}
	if why := uncleanText(v); why != "" && (why != notUTF8 || !addressesAreASCII(v)) {
		return bad(why)
	}
	l := list{s: v, strict: true}
	for {
		a, more, why := l.next()
		if why != "" {
			return bad(why)
		}
		if !more {
			break
		}
		if len(*into) >= MaxAddresses {
			return bad(fmt.Sprintf("it has more than %d addresses", MaxAddresses))
		}
		p.h.UTF8 = p.h.UTF8 || l.utf8
		*into = append(*into, a)
	}
	if len(*into) == 0 {
		return bad("there is no address in it")
	}
	return nil
}

// addressesAreASCII lets a name in an old code page pass: the address after it
// is what counts, and parseSpec takes nothing that is not UTF-8.
func addressesAreASCII(v string) bool {
	i := strings.LastIndexByte(v, '<')
	return i >= 0 && ascii(v[i:]) && strings.Count(v, "<") == 1
}

// readers reads a field of recipients or the like. What cannot be read is noted.
func (p *parser) readers(k fieldKind, v string, into *[]Address) error {
	l := list{s: v}
	for {
		a, more, why := l.next()
		if !more {
			return nil
		}
		if why != "" {
			p.malformed(strings.ToLower(fieldNames[k]))
			if len(p.h.Malformed) == maxMalformed {
				return nil
			}
			continue
		}
		if len(*into) >= MaxAddresses {
			return mailgrant.Errorf(mailgrant.Invalid, nil, "the %s field has more than %d addresses", fieldNames[k], MaxAddresses).
				Fix("send it in several messages").At(strings.ToLower(fieldNames[k]))
		}
		p.h.UTF8 = p.h.UTF8 || l.utf8
		*into = append(*into, a)
	}
}
