package submission

import (
	"bytes"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// pathOf cuts "FROM:<path> parameters". One space before the bracket is let
// pass: many old programs write it.
func pathOf(arg []byte, word string) (path, params []byte, ok bool) {
	if len(arg) < len(word) || !strings.EqualFold(string(arg[:len(word)]), word) {
		return nil, nil, false
	}
	rest := arg[len(word):]
	if len(rest) > 0 && rest[0] == ' ' {
		rest = rest[1:]
	}
	if len(rest) < 2 || rest[0] != '<' {
		return nil, nil, false
	}
	end := closing(rest)
	if end < 0 || end+1 < len(rest) && rest[end+1] != ' ' {
		return nil, nil, false
	}
	return rest[1:end], rest[end+1:], true
}

// closing finds the bracket that ends a path; one inside quotes does not.
func closing(b []byte) int {
	if bytes.IndexByte(b, '"') < 0 {
		return bytes.IndexByte(b, '>')
	}
	quoted := false
	for i := 0; i < len(b); i++ {
		switch {
		case quoted && b[i] == '\\':
			i++
		case b[i] == '"':
			quoted = !quoted
		case b[i] == '>' && !quoted:
			return i
		}
	}
	return -1
}

// sender reads the path of MAIL; the empty one is that of bounces.
func sender(path []byte, utf8 bool) (addr, fault string) {
	if len(path) == 0 {
		return "", ""
	}
	switch mailbox(path, utf8) {
	case pathUTF8:
		return "", "550 5.6.7 an address with such letters needs SMTPUTF8\r\n"
	case pathRoute:
		return "", "553 5.1.7 no routes: one mailbox, name@example.com\r\n"
	case pathBad:
		return "", "501 5.1.7 the sender is not an address like name@example.com\r\n"
	}
	return string(path), ""
}

// recipient reads the path of RCPT.
func recipient(path []byte, utf8 bool) (addr, fault string) {
	switch mailbox(path, utf8) {
	case pathUTF8:
		return "", "553 5.6.7 an address with such letters needs SMTPUTF8\r\n"
	case pathRoute:
		return "", "553 5.1.3 no routes: one mailbox, name@example.com\r\n"
	case pathBad:
		return "", "501 5.1.3 the recipient is not an address like name@example.com\r\n"
	}
	return string(path), ""
}

type pathFault int

const (
	pathGood  pathFault = iota
	pathBad             // not a Mailbox of RFC 5321 section 4.1.2
	pathRoute           // one that asks for another way: source route, %, !, literal
	pathUTF8            // letters that were not announced
)

// mailbox looks whether p is one plain mailbox: local part, @, host name.
func mailbox(p []byte, announced bool) pathFault {
	if len(p) > 254 {
		return pathBad
	}
	at := bytes.LastIndexByte(p, '@')
	if at < 1 || at > 64 {
		if at == 0 {
			return pathRoute
		}
		return pathBad
	}
	local, host := p[:at], p[at+1:]
	if local[0] == '@' || bytes.IndexByte(local, '%') >= 0 || bytes.IndexByte(local, '!') >= 0 ||
		len(host) > 0 && host[0] == '[' {
		return pathRoute
	}
	if !isASCII(p) {
		if !utf8.Valid(p) {
			return pathBad
		}
		if !announced {
			return pathUTF8
		}
	}
	if !isLocal(local) || !isHost(host) {
		return pathBad
	}
	return pathGood
}

// isLocal says whether b is a Dot-string or a Quoted-string.
func isLocal(b []byte) bool {
	if b[0] == '"' {
		return isQuoted(b)
	}
	before := byte('.')
	for _, c := range b {
		if c == '.' && before == '.' || c != '.' && c < utf8.RuneSelf && !atext[c] {
			return false
		}
		before = c
	}
	return before != '.' && (isASCII(b) || printable(b))
}

func isQuoted(b []byte) bool {
	if len(b) < 3 || b[len(b)-1] != '"' {
		return false
	}
	b = b[1 : len(b)-1]
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '\\':
			if i++; i == len(b) {
				return false
			}
		case '"':
			return false
		}
	}
	return printable(b)
}

// printable refuses what could not be shown, or shown only as a trick.
func printable(b []byte) bool {
	return bytes.IndexFunc(b, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}

// isHost says whether b is a host name, in letters of any alphabet. Numbers
// alone are an address, and that is a route.
func isHost(b []byte) bool {
	if len(b) == 0 || len(b) > 253 {
		return false
	}
	if !isASCII(b) || bytes.Contains(b, []byte("--")) {
		a, err := idna.Lookup.ToASCII(string(b))
		if err != nil || len(a) > 253 {
			return false
		}
		b = []byte(a)
	}
	start := 0
	for i := 0; i <= len(b); i++ {
		if i < len(b) && b[i] != '.' {
			if c := b[i]; !(c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || c == '-') {
				return false
			}
			continue
		}
		if n := i - start; n == 0 || n > 63 || b[start] == '-' || b[i-1] == '-' {
			return false
		}
		start = i + 1
	}
	if last := b[len(b)-1]; last < '0' || last > '9' {
		return true
	}
	_, err := netip.ParseAddr(string(b))
	return err != nil
}

// atext is what an atom may hold: RFC 5322 section 3.2.3.
var atext = func() (t [utf8.RuneSelf]bool) {
	for c := range t {
		t[c] = c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
			strings.ContainsRune("!#$%&'*+-/=?^_`{|}~", rune(c)) && c > 0
	}
	return t
}()
