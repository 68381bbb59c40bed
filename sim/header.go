package sim

import (
	"bytes"
	"crypto/rand"
	"mime"
	"net/mail"
	"slices"
	"strings"
)

// headerOf reads the header of a message as far as it can be read.
func headerOf(raw []byte) mail.Header {
	head, _ := splitMessage(raw)
	m, err := mail.ReadMessage(bytes.NewReader(append(slices.Clone(head), "\r\n"...)))
	if err != nil {
		return lenientHeader(head)
	}
	return m.Header
}

// lenientHeader takes the fields it understands and leaves out the others.
func lenientHeader(head []byte) mail.Header {
	h := mail.Header{}
	for _, f := range fieldsOf(head) {
		name, value, ok := strings.Cut(string(f), ":")
		if !ok || strings.ContainsAny(name, " \t") {
			continue
		}
		value = strings.NewReplacer("\r", "", "\n", "").Replace(value)
		key := strings.ToLower(name)
		for _, known := range []string{"From", "To", "Cc", "Bcc", "Reply-To", "Sender", "Subject", "Message-Id", "Date", "Importance",
			"Content-Type", "Content-Transfer-Encoding", "Content-Disposition"} {
			if strings.EqualFold(known, key) {
				h[known] = append(h[known], strings.TrimSpace(value))
			}
		}
	}
	return h
}

// splitMessage cuts raw behind the last field of its header. The empty line
// stays with the body.
func splitMessage(raw []byte) (head, body []byte) {
	if i := bytes.Index(raw, []byte("\r\n\r\n")); i >= 0 {
		return raw[:i+2], raw[i+2:]
	}
	if i := bytes.Index(raw, []byte("\n\n")); i >= 0 {
		return raw[:i+1], raw[i+1:]
	}
	return raw, nil
}

// fieldsOf cuts a header into its fields with their line ends.
func fieldsOf(head []byte) [][]byte {
	var fields [][]byte
	for line := range bytes.Lines(head) {
		if len(fields) > 0 && (line[0] == ' ' || line[0] == '\t') {
			last := &fields[len(fields)-1]
			*last = append(slices.Clip(*last), line...)
			continue
		}
		fields = append(fields, line)
	}
	return fields
}

// withoutField takes all fields of a name out of a message and leaves every
// other byte as it is.
func withoutField(raw []byte, name string) []byte {
	head, body := splitMessage(raw)
	var out []byte
	for _, f := range fieldsOf(head) {
		n, _, _ := bytes.Cut(f, []byte(":"))
		if !strings.EqualFold(string(bytes.TrimSpace(n)), name) {
			out = append(out, f...)
		}
	}
	return append(out, body...)
}

func decodeWords(s string) string {
	if d, err := new(mime.WordDecoder).DecodeHeader(s); err == nil {
		return d
	}
	return s
}

// addressesIn lists the bare addresses of some header fields.
func addressesIn(h mail.Header, fields ...string) []string {
	var all []string
	for _, f := range fields {
		for _, value := range h[f] {
			list, err := mail.ParseAddressList(value)
			if err != nil {
				continue
			}
			for _, a := range list {
				all = append(all, a.Address)
			}
		}
	}
	return all
}

// newMessageID is one in the way of Exchange, for messages without.
func newMessageID() string {
	return "<" + strings.ToUpper(rand.Text()[:20]) + "@SY5P282MB4321.AUSP282.PROD.OUTLOOK.COM>"
}

// encodeWords writes a text for a header.
func encodeWords(s string) string { return mime.QEncoding.Encode("utf-8", oneLine(s)) }
