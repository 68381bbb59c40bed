package rfc5322

import (
	"mime"
	"path"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

const (
	maxFileName = 180 // bytes; file systems take 255, and a number may come to it
	maxEnding   = 16
)

// FileName makes a name that mail gives a file fit to be one, on every system:
// without folders, drives, control characters, letters that turn the direction
// of text or are not seen, names that Windows keeps for devices, dots at either
// end. It is "" when nothing is left. ME-04.
func FileName(s string) string {
	if i := strings.LastIndexAny(s, `/\`); i >= 0 {
		s = s[i+1:]
	}
	if len(s) >= 2 && s[1] == ':' && (s[0]|0x20 >= 'a' && s[0]|0x20 <= 'z') {
		s = s[2:]
	}
	if len(s) > 8*maxFileName {
		s = s[:4*maxFileName] + s[len(s)-4*maxFileName:]
	}
	s = strings.Map(fileRune, strings.ToValidUTF8(s, "_"))
	s = strings.Join(strings.Fields(norm.NFC.String(s)), " ")
	s = strings.TrimRight(strings.TrimLeft(s, ". "), ". ")
	if s == "" {
		return ""
	}
	if s[0] == '-' || s[0] == '~' {
		s = "_" + s[1:]
	}
	if stem, _, _ := strings.Cut(s, "."); device(strings.TrimRight(stem, " ")) {
		s = "_" + s
	}
	return shorten(s)
}

func fileRune(r rune) rune {
	switch {
	case r == utf8.RuneError, strings.ContainsRune(`<>:"|?*`, r):
		return '_'
	case unicode.IsSpace(r), unicode.Is(unicode.Zs, r):
		return ' '
	case unicode.IsControl(r), unicode.Is(unicode.Cf, r), unicode.Is(unicode.Co, r), r == '\u2028', r == '\u2029', r == '\u034f':
		return -1
	case r == '\u2044', r == '\u2215', r == '\u29f8', r == '\uff0f', r == '\uff3c': // look like / and \
		return '_'
	}
	return r
}

// device says whether Windows keeps a name for itself.
func device(s string) bool {
	s = strings.ToUpper(s)
	switch s {
	case "CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$", "CLOCK$":
		return true
	}
	n, ok := strings.CutPrefix(s, "COM")
	if !ok {
		n, ok = strings.CutPrefix(s, "LPT")
	}
	return ok && (len(n) == 1 && n[0] >= '0' && n[0] <= '9' || n == "¹" || n == "²" || n == "³")
}

// shorten keeps the ending of a name that is too long.
func shorten(s string) string {
	if len(s) <= maxFileName {
		return s
	}
	ending := path.Ext(s)
	if len(ending) > maxEnding {
		ending = ""
	}
	return strings.TrimRight(cutText(s[:len(s)-len(ending)], maxFileName-len(ending)), ". ") + ending
}

// A namer numbers names that come again: a.pdf, a (2).pdf.
type namer map[string]int

func (n *namer) take(name string) string {
	if name == "" {
		return ""
	}
	if *n == nil {
		*n = namer{}
	}
	key := strings.ToLower(name)
	if (*n)[key] == 0 {
		(*n)[key] = 1
		return name
	}
	ending := path.Ext(name)
	for {
		(*n)[key]++
		other := name[:len(name)-len(ending)] + " (" + strconv.Itoa((*n)[key]) + ")" + ending
		if low := strings.ToLower(other); (*n)[low] == 0 {
			(*n)[low] = 1
			return other
		}
	}
}

// Disposition is the value of a Content-Disposition field: how is "attachment",
// so that a browser keeps the file and does not show it, or "inline". The name is
// made fit for a file first. RFC 6266.
func Disposition(how, name string) string {
	return mime.FormatMediaType(how, map[string]string{"filename": first(FileName(name), "attachment")})
}
