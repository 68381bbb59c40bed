package imap

import (
	"encoding/base64"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// utf7 is the modified base64 of RFC 3501 section 5.1.3.
var utf7 = base64.NewEncoding("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,").WithPadding(base64.NoPadding)

// encodeName writes a folder's name as servers want it: nothing but printable
// ASCII is left, so that no name can end a command.
func encodeName(name string) string {
	var out strings.Builder
	var odd []rune
	flush := func() {
		if odd == nil {
			return
		}
		units := utf16.Encode(odd)
		b := make([]byte, 0, 2*len(units))
		for _, u := range units {
			b = append(b, byte(u>>8), byte(u))
		}
		out.WriteString("&" + utf7.EncodeToString(b) + "-")
		odd = nil
	}
	for _, r := range name {
		switch {
		case r == '&':
			flush()
			out.WriteString("&-")
		case r >= ' ' && r <= '~':
			flush()
			out.WriteRune(r)
		default:
			odd = append(odd, r)
		}
	}
	flush()
	return out.String()
}

// decodeName reads such a name. What is not well written stays as it is: some
// servers write UTF-8, some anything.
func decodeName(wire string) string {
	var out strings.Builder
	for rest := wire; ; {
		plain, after, found := strings.Cut(rest, "&")
		out.WriteString(plain)
		if !found {
			break
		}
		code, next, ended := strings.Cut(after, "-")
		if !ended {
			return strings.ToValidUTF8(wire, "?")
		}
		if code == "" {
			out.WriteByte('&')
		} else {
			b, err := utf7.DecodeString(code)
			if err != nil || len(b)%2 != 0 {
				return strings.ToValidUTF8(wire, "?")
			}
			units := make([]uint16, len(b)/2)
			for i := range units {
				units[i] = uint16(b[2*i])<<8 | uint16(b[2*i+1])
			}
			out.WriteString(string(utf16.Decode(units)))
		}
		rest = next
	}
	if s := out.String(); utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(wire, "?")
}
