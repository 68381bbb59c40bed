package rfc5322

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/ianaindex"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/simplifiedchinese"
	xunicode "golang.org/x/text/encoding/unicode"
)

// charsets are names that the lists of IANA and of the browsers do not know, or
// know in another way than mail uses them.
var charsets = map[string]encoding.Encoding{
	"gb2312":           simplifiedchinese.GB18030, // as everybody writes it; IANA's tables have none
	"gbk":              simplifiedchinese.GB18030,
	"cp936":            simplifiedchinese.GB18030,
	"hz-gb-2312":       simplifiedchinese.HZGB2312,
	"cp932":            japanese.ShiftJIS,
	"iso-2022-jp-1":    japanese.ISO2022JP,
	"iso-2022-jp-2":    japanese.ISO2022JP,
	"iso-2022-jp-ms":   japanese.ISO2022JP,
	"cp50220":          japanese.ISO2022JP,
	"ansi_x3.4-1968":   nil,
	"ansi_x3.110-1983": charmap.ISO8859_1, // RFC 1345; all of Latin 1, and what is met is that
	"iso-8859-8-i":     charmap.ISO8859_8,
	"utf-16":           xunicode.UTF16(xunicode.BigEndian, xunicode.UseBOM),
}

// encodingNamed finds a character set; nil is UTF-8, or none that is known.
func encodingNamed(name string) (e encoding.Encoding, known bool) {
	name, _, _ = strings.Cut(strings.ToLower(strings.Trim(name, "\"' \t")), "*") // RFC 2231 section 5: a language
	switch name {
	case "utf-8", "utf8", "us-ascii", "ascii", "utf-8-strict", "unicode-1-1-utf-8", "":
		return nil, true
	}
	if e, ok := charsets[name]; ok {
		return e, true
	}
	if e, err := htmlindex.Get(name); err == nil && e != encoding.Replacement {
		return e, true
	}
	if e, err := ianaindex.MIME.Encoding(name); err == nil && e != nil {
		return e, true
	}
	if e, err := htmlindex.Get(strings.Replace(name, "cp", "windows-", 1)); err == nil && e != encoding.Replacement {
		return e, true
	}
	return nil, false
}

// CharsetReader knows the character sets that mail is written in, for subjects
// and names.
func CharsetReader(charset string, r io.Reader) (io.Reader, error) {
	e, ok := encodingNamed(charset)
	if !ok {
		return nil, fmt.Errorf("unknown character set %q", charset)
	}
	if e == nil {
		return r, nil
	}
	return e.NewDecoder().Reader(r), nil
}

// toText makes UTF-8 of b. It trusts b more than charset: what says that it is
// ASCII or Latin 1 and is good UTF-8 is that, and what fits nothing is read as
// Windows-1252, which has a letter for nearly every byte.
func toText(charset string, b []byte) string {
	escapes := bytes.IndexByte(b, 0x1b) >= 0
	if ascii(b) && !escapes && sevenBit(charset) {
		return string(b)
	}
	e, known := encodingNamed(charset)
	valid := utf8.Valid(b)
	if e == nil || !known {
		switch {
		case escapes && (bytes.Contains(b, []byte("\x1b$")) || bytes.Contains(b, []byte("\x1b("))):
			e = japanese.ISO2022JP
		case valid:
			return string(b)
		case mostlyUTF8(b) && (charset == "" || strings.HasPrefix(charset, "utf")):
			return strings.ToValidUTF8(string(b), "\ufffd")
		default:
			e = charmap.Windows1252
		}
	}
	if valid && !escapes && (e == charmap.Windows1252 || e == charmap.ISO8859_1) {
		return string(b)
	}
	out, err := e.NewDecoder().Bytes(b)
	if err != nil || valid && !escapes && bytes.ContainsRune(out, utf8.RuneError) && !strings.HasPrefix(charset, "utf-16") {
		return strings.ToValidUTF8(string(b), "\ufffd")
	}
	return strings.ToValidUTF8(string(out), "\ufffd")
}

// sevenBit says that ASCII stands for itself in charset.
func sevenBit(charset string) bool {
	return !strings.HasPrefix(charset, "utf-16") && !strings.HasPrefix(charset, "utf-32") && !strings.HasPrefix(charset, "hz")
}

// mostlyUTF8 says that the letters of b are more often UTF-8 than not.
func mostlyUTF8(b []byte) bool {
	good, bad := 0, 0
	for len(b) > 0 {
		if b[0] < utf8.RuneSelf {
			b = b[1:]
			continue
		}
		r, n := utf8.DecodeRune(b)
		if r == utf8.RuneError && n == 1 {
			bad++
		} else {
			good++
		}
		b = b[n:]
	}
	return good > bad
}

// headerText is the value of a field in one line of UTF-8, its encoded words as
// they are.
func headerText(v []byte, charset string) string {
	v = bytes.Trim(v, " \t\r\n")
	if bytes.IndexByte(v, '\n') >= 0 {
		flat := make([]byte, 0, len(v))
		for line := range bytes.Lines(v) {
			flat = append(flat, bytes.TrimRight(line, "\r\n")...)
		}
		v = flat
	}
	if ascii(v) && bytes.IndexByte(v, 0x1b) < 0 {
		return string(v)
	}
	return toText(charset, v)
}

// decodeWords reads encoded words as they are met, not only as RFC 2047 wants
// them: with spaces in them, within other words, in quotes, cut within a letter,
// in broken base64.
func decodeWords(s string) string {
	if !strings.Contains(s, "=?") {
		return s
	}
	var out strings.Builder
	var run []byte // of words of one charset, which may share a letter
	set := ""
	flush := func() {
		if len(run) > 0 {
			out.WriteString(toText(set, run))
			run = run[:0]
		}
	}
	for {
		i := strings.Index(s, "=?")
		if i < 0 {
			break
		}
		if len(run) > 0 && strings.TrimLeft(s[:i], " \t\r\n") != "" || len(run) == 0 {
			flush()
			out.WriteString(s[:i])
			set = ""
		}
		charset, enc, rest, ok := wordFrame(s[i+2:])
		if !ok {
			flush()
			out.WriteString("=?")
			s = s[i+2:]
			continue
		}
		end := strings.Index(rest, "?=")
		if end < 0 { // nor is there an end for any later one
			s = s[i:]
			break
		}
		if charset != set {
			flush()
			set = charset
		}
		run = decodeWord(run, enc, rest[:end])
		s = rest[end+2:]
	}
	flush()
	out.WriteString(s)
	return out.String()
}

// wordFrame reads charset?e? before the text of an encoded word.
func wordFrame(s string) (charset string, enc byte, rest string, ok bool) {
	i := strings.IndexByte(s[:min(len(s), 60)], '?')
	if i < 1 || len(s) < i+3 || s[i+2] != '?' {
		return "", 0, "", false
	}
	switch enc = s[i+1] | 0x20; enc {
	case 'q', 'b':
		charset, _, _ = strings.Cut(strings.ToLower(s[:i]), "*")
		return charset, enc, s[i+3:], true
	}
	return "", 0, "", false
}

func decodeWord(out []byte, enc byte, s string) []byte {
	if enc == 'q' {
		return unescape(out, []byte(strings.ReplaceAll(s, "_", " ")))
	}
	if n := base64.StdEncoding.DecodedLen(len(s)); n < 1<<20 && len(s)%4 == 0 {
		if b, err := base64.StdEncoding.AppendDecode(out, []byte(s)); err == nil {
			return b
		}
	}
	var c collector
	d := decoder{to: &c, enc: inBase64}
	d.write([]byte(s))
	d.close()
	return append(out, c...)
}

type collector []byte

func (c *collector) data(p []byte) bool { *c = append(*c, p...); return true }

// clean is foreign text made one line without what must not be shown, cut at max
// bytes.
func clean(s string, max int) string {
	s = strings.TrimSpace(strings.Map(shown, s))
	return cutText(s, max)
}

// cutText cuts at a letter.
func cutText(s string, max int) string {
	if len(s) <= max {
		return s
	}
	for max > 0 && !utf8.RuneStart(s[max]) {
		max--
	}
	return s[:max]
}

// shown takes out control characters; space of every kind becomes a space.
func shown(r rune) rune {
	switch {
	case r == unicode.ReplacementChar, r >= ' ' && r < 0x7f, r >= 0xa0 && r != '\u2028' && r != '\u2029':
		return r
	case unicode.IsSpace(r):
		return ' '
	}
	return -1
}
