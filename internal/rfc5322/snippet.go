package rfc5322

import (
	"html"
	"strings"
	"unicode"
	"unicode/utf8"
)

// words is the begin of a text in one line: n letters of it, space made one
// space, what is not seen left out.
func words(s string, n int) string {
	var w wordWriter
	w.max = n
	w.Grow(min(n, len(s)))
	w.write(s)
	return w.String()
}

type wordWriter struct {
	strings.Builder
	max, n int
	space  bool
}

func (w *wordWriter) full() bool { return w.n >= w.max }

func (w *wordWriter) write(s string) {
	for _, r := range s {
		if r < utf8.RuneSelf {
			if r <= ' ' || r == 0x7f {
				w.space = w.space || w.n > 0
				continue
			}
		} else if unicode.IsSpace(r) {
			w.space = w.space || w.n > 0
			continue
		} else if r == '\u034f' || unicode.Is(unicode.Cf, r) || unicode.IsControl(r) {
			continue
		}
		if w.space {
			w.space = false
			w.n++
			if w.full() {
				return
			}
			w.WriteByte(' ')
		}
		if w.full() {
			return
		}
		w.WriteRune(r)
		w.n++
	}
}

// wordsOfHTML is words for HTML, as far as that can be read without laying it
// out: tags are left out, and what is between those that show nothing.
func wordsOfHTML(s string, n int) string {
	var w wordWriter
	w.max = n
	w.Grow(min(n, len(s)))
	for s != "" && !w.full() {
		i := strings.IndexByte(s, '<')
		if i < 0 {
			i = len(s)
		}
		if i > 0 {
			w.write(unescapeHTML(s[:i]))
			s = s[i:]
			continue
		}
		if strings.HasPrefix(s, "<!--") {
			_, s, _ = strings.Cut(s[4:], "-->")
			continue
		}
		if len(s) < 2 || !(s[1] == '/' || s[1] == '!' || s[1] == '?' || s[1]|0x20 >= 'a' && s[1]|0x20 <= 'z') {
			w.write("<")
			s = s[1:]
			continue
		}
		var tag string
		tag, s, _ = strings.Cut(s[1:], ">")
		name, _ := cutAny(strings.TrimLeft(tag, "/ \t\r\n"), " \t\r\n/")
		switch name = strings.ToLower(name); name {
		case "b", "i", "u", "a", "em", "strong", "span", "font", "small", "sup", "sub": // may stand within a word
		case "style", "script", "title", "head":
			if tag[0] == '/' {
				w.write(" ")
			} else {
				s = afterTag(s, "</"+name)
			}
		default:
			w.write(" ")
		}
	}
	return w.String()
}

// afterTag passes everything up to the end of a tag; all when there is none.
func afterTag(s, tag string) string {
	for at := 0; ; {
		i := strings.Index(s[at:], "</")
		if i < 0 {
			return ""
		}
		at += i
		if len(s)-at >= len(tag) && strings.EqualFold(s[at:at+len(tag)], tag) {
			_, s, _ = strings.Cut(s[at:], ">")
			return s
		}
		at += 2
	}
}

func unescapeHTML(s string) string {
	if len(s) > 4<<10 {
		s = cutText(s, 4<<10) // far more than is shown
	}
	return html.UnescapeString(s)
}

// cutLetters cuts after n letters.
func cutLetters(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for i := range s {
		if n == 0 {
			return strings.TrimRight(s[:i], " ")
		}
		n--
	}
	return s
}
