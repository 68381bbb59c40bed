package rfc5322

import (
	"strings"
)

// mediaType is the type in a Content-Type field, in lower case; rest are its
// parameters. What is no type is taken as RFC 2045 section 5.2 says.
func mediaType(v string) (t, rest string) {
	v = strings.TrimLeft(v, " \t\"'")
	t, rest = cutAny(v, "; \t,(")
	t = strings.ToLower(strings.TrimRight(t, "\"'"))
	switch t {
	case "text/plain", "text/html", "multipart/mixed", "multipart/alternative", "multipart/related": // most are
		return t, rest
	case "", "text":
		return "text/plain", rest
	case "html":
		return "text/html", rest
	}
	main, sub, ok := strings.Cut(t, "/")
	if ok && len(t) <= 100 && token(main) && token(sub) {
		return t, rest
	}
	if main == "multipart" {
		return "multipart/mixed", rest
	}
	if main == "text" || strings.IndexByte(t, '=') > 0 { // parameters without a type
		return "text/plain", v
	}
	return "application/octet-stream", rest
}

func token(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`()<>@,;:\"/[]?=`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

// cutAny parts s before the first of chars.
func cutAny(s, chars string) (before, from string) {
	if i := strings.IndexAny(s, chars); i >= 0 {
		return s[:i], s[i:]
	}
	return s, ""
}

func firstWord(s string) string {
	s, _ = cutAny(strings.TrimLeft(s, " \t"), "; \t(")
	return s
}

// eachParam gives the parameters of a field, names in lower case. What stands in
// no quotes goes up to the semicolon, for file names with spaces; who knows
// better takes the first word.
func eachParam(s string, each func(name, v string)) {
	for {
		s = strings.TrimLeft(s, "; \t,")
		if s == "" {
			return
		}
		if s[0] == '(' { // a comment
			_, s, _ = strings.Cut(s, ")")
			continue
		}
		i := strings.IndexAny(s, "=;")
		if i < 0 {
			return
		}
		name := s[:i]
		if s[i] == ';' {
			s = s[i:]
			continue
		}
		s = strings.TrimLeft(s[i+1:], " \t")
		if j := strings.LastIndexAny(name[:len(strings.TrimRight(name, " \t"))], " \t"); j >= 0 {
			name = name[j+1:] // a word that is no parameter stood before it
		}
		name = strings.ToLower(strings.TrimSpace(name))
		var v string
		if s != "" && s[0] == '"' {
			v, s = quotedParam(s)
		} else {
			v, s = cutAny(s, ";")
			v = strings.TrimRight(v, " \t")
			if name != "name" && name != "filename" {
				w := firstWord(v)
				if rest := strings.TrimLeft(v[len(w):], " \t"); strings.IndexByte(rest, '=') > 0 {
					v, s = w, rest+s // the semicolon was forgotten
				}
			}
		}
		each(name, v)
	}
}

// quotedParam reads a value in quotes. A backslash that does not need to be there
// is part of it: names of files come with their folders.
func quotedParam(s string) (v, rest string) {
	end := strings.IndexByte(s[1:], '"') + 1
	if end < 1 {
		v, rest = cutAny(s[1:], ";") // never closed
		return strings.TrimRight(v, " \t"), rest
	}
	if strings.IndexByte(s[:end], '\\') < 0 {
		return s[1:end], s[end+1:]
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return b.String(), s[i+1:]
		case c == '\\' && i+1 < len(s) && (s[i+1] == '"' || s[i+1] == '\\'):
			i++
			b.WriteByte(s[i])
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), ""
}

// maxPieces bounds the pieces of one name, RFC 2231 section 3.
const maxPieces = 100

// fileNames collects the names that a part gives its file: filename before name,
// and of each the form of RFC 2231 before the plain one.
type fileNames struct{ of [2]*nameForms }

type nameForms struct {
	plain    string
	extended string
	pieces   []string
	coded    []bool
}

// param takes name, name*, name*0 and name*0*.
func (n *fileNames) param(i int, key, name, v string) {
	rest, ok := strings.CutPrefix(name, key)
	if !ok || rest != "" && rest[0] != '*' {
		return
	}
	f := n.of[i]
	if f == nil {
		f = &nameForms{}
		n.of[i] = f
	}
	switch {
	case rest == "":
		once(&f.plain, v)
	case rest == "*":
		once(&f.extended, v)
	default:
		num, coded := strings.CutSuffix(rest[1:], "*")
		k := 0
		for j := range len(num) {
			if num[j] < '0' || num[j] > '9' || k >= maxPieces {
				return
			}
			k = k*10 + int(num[j]-'0')
		}
		if k >= maxPieces || num == "" {
			return
		}
		for len(f.pieces) <= k {
			f.pieces, f.coded = append(f.pieces, ""), append(f.coded, false)
		}
		f.pieces[k], f.coded[k] = v, coded
	}
}

func (n *fileNames) name(charset string) string {
	for _, f := range n.of {
		if f == nil {
			continue
		}
		if s := f.best(charset); s != "" {
			return s
		}
	}
	return ""
}

func (f *nameForms) best(charset string) string {
	if f.extended != "" {
		set, v := charsetOfParam(f.extended, charset)
		return toText(set, percent(v))
	}
	if len(f.pieces) > 0 {
		set, b := charset, []byte(nil)
		for i, p := range f.pieces {
			if !f.coded[i] {
				b = append(b, p...)
				continue
			}
			if i == 0 {
				set, p = charsetOfParam(p, charset)
			}
			b = append(b, percent(p)...)
		}
		if s := toText(set, b); s != "" {
			return decodeWords(s)
		}
	}
	return decodeWords(f.plain)
}

// charsetOfParam takes charset'language' off an extended value.
func charsetOfParam(v, otherwise string) (charset, rest string) {
	set, rest, ok := strings.Cut(v, "'")
	if !ok || len(set) > 40 {
		return otherwise, v
	}
	if _, after, ok := strings.Cut(rest, "'"); ok {
		return strings.ToLower(set), after
	}
	return otherwise, v
}

// percent undoes the escapes of RFC 2231.
func percent(s string) []byte {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) && nibble(s[i+1]) < 16 && nibble(s[i+2]) < 16 {
			b = append(b, nibble(s[i+1])<<4|nibble(s[i+2]))
			i += 2
			continue
		}
		b = append(b, s[i])
	}
	return b
}
