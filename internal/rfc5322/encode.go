package rfc5322

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"io"
	"strings"
	"unicode/utf8"
)

// lineMax is how long we make lines; RFC 5322 section 2.1.1 asks for 78.
const lineMax = 76

// field writes one header field, folded between words.
func field(name, value string) string {
	var b strings.Builder
	b.WriteString(name + ":")
	n := len(name) + 1
	for w := range strings.SplitSeq(value, " ") {
		if n > len(name)+1 && n+1+len(w) > lineMax && w != "" {
			b.WriteString("\r\n")
			n = 0
		}
		b.WriteString(" " + w)
		n += 1 + len(w)
	}
	b.WriteString("\r\n")
	return b.String()
}

// text is s as it stands in a header: itself when it is plain, else in encoded
// words. Text that looks like an encoded word is encoded too, so that it is read
// as it was written. RFC 2047.
func text(s string) string {
	if ascii(s) && !strings.Contains(s, "=?") && strings.TrimSpace(s) == s {
		return s
	}
	const chunk = 42 // bytes, so that a word with its frame stays below 75
	var words []string
	for len(s) > 0 {
		n := min(chunk, len(s))
		for n < len(s) && !utf8.RuneStart(s[n]) {
			n--
		}
		words = append(words, "=?utf-8?b?"+base64.StdEncoding.EncodeToString([]byte(s[:n]))+"?=")
		s = s[n:]
	}
	return strings.Join(words, " ")
}

// header is the address as it stands in a header, with its name.
func (a Address) header() string {
	if a.Name == "" {
		return a.String()
	}
	return phrase(a.Name) + " <" + a.String() + ">"
}

func phrase(s string) string {
	if !ascii(s) || strings.Contains(s, "=?") {
		return text(s)
	}
	plain := true
	for i := 0; i < len(s); i++ {
		plain = plain && (atextASCII[s[i]] || s[i] == ' ')
	}
	if plain && strings.TrimSpace(s) == s {
		return s
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

func addresses(l []Address) string {
	out := make([]string, len(l))
	for i, a := range l {
		out[i] = a.header()
	}
	return strings.Join(out, ", ")
}

// boundary separates parts; it cannot be guessed, so no content can hold it.
func boundary() string {
	var b [15]byte
	rand.Read(b[:])
	return "=_" + hex.EncodeToString(b[:])
}

// wrapped writes base64 in lines, and needs no more memory for a large file.
type wrapped struct {
	w    io.Writer
	in   [57]byte
	n    int
	line [78]byte
}

func (e *wrapped) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 {
		n := copy(e.in[e.n:], p)
		e.n += n
		p = p[n:]
		if e.n == len(e.in) {
			if err := e.flush(); err != nil {
				return 0, err
			}
		}
	}
	return total, nil
}

func (e *wrapped) flush() error {
	if e.n == 0 {
		return nil
	}
	l := base64.StdEncoding.EncodedLen(e.n)
	base64.StdEncoding.Encode(e.line[:l], e.in[:e.n])
	e.line[l], e.line[l+1] = '\r', '\n'
	e.n = 0
	_, err := e.w.Write(e.line[:l+2])
	return err
}
