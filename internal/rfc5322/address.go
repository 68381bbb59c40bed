package rfc5322

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"

	"github.com/mailgrant/mailgrant"
)

// An Address is one mailbox: an optional name, and the two sides of the @.
// Domain is in lower case, and in A-labels where it has other letters than
// ASCII: two spellings of one domain are one Address.
type Address struct {
	Name   string
	Local  string // as it is meant, without quotes
	Domain string
	UTF8   bool // the local part has letters outside ASCII, so SMTPUTF8 is needed
}

// String is the address as an envelope writes it: local@domain, without a name.
func (a Address) String() string {
	if a.Local == "" && a.Domain == "" {
		return ""
	}
	if dotAtom(a.Local) {
		return a.Local + "@" + a.Domain
	}
	return `"` + a.Local + `"@` + a.Domain
}

// Key is the form in which addresses are compared: lower case, composed letters.
func (a Address) Key() string {
	if a.UTF8 {
		a.Local = norm.NFC.String(a.Local)
	}
	a.Local = strings.ToLower(a.Local)
	return a.String()
}

// ParseAddress reads one address as an application or a person writes it, with
// or without a name. What mail programs are known to read differently is
// refused: comments, source routes, the % and ! of old gateways, groups, quoted
// local parts with an @ or a space in them, address literals. AP-04.
func ParseAddress(s string) (Address, error) {
	if len(s) > maxAddressText {
		return Address{}, notAnAddress("the address is longer than an address can be")
	}
	if why := uncleanText(s); why != "" {
		return Address{}, notAnAddress("%q is not a mail address: %s", s, why)
	}
	l := list{s: s, strict: true}
	a, more, why := l.next()
	if why == "" && !more {
		why = "there is none"
	}
	if why == "" && (l.comment || l.i < len(s)) {
		why = "there is more than one address in it"
		if l.comment {
			why = "it has a comment"
		}
	}
	if why != "" {
		return Address{}, notAnAddress("%q is not a mail address: %s", clip(s), why)
	}
	return a, nil
}

func notAnAddress(format string, args ...any) *mailgrant.Error {
	return mailgrant.Errorf(mailgrant.Invalid, nil, format, args...).Fix("write it like name@example.com or Name <name@example.com>")
}

const (
	maxAddressText = 1000 // a name and an address
	maxLocal       = 64   // RFC 5321 section 4.5.3.1
	maxDomain      = 255
	maxPath        = 254 // a path without its brackets
)

func clip(s string) string {
	if len(s) > 80 {
		return strings.ToValidUTF8(s[:80], "") + "…"
	}
	return s
}

// uncleanText says why s cannot stand in a header: control characters, among
// them those that only some programs take for the end of a line.
func uncleanText(s string) (why string) {
	for i, r := range s {
		switch {
		case r == utf8.RuneError:
			if _, n := utf8.DecodeRuneInString(s[i:]); n == 1 {
				why = notUTF8
			}
		case r == '\t':
		case r < ' ', r >= 0x7f && r < 0xa0, r == '\u2028', r == '\u2029':
			return "it has a control character"
		}
	}
	return why
}

const notUTF8 = "it is not UTF-8"

// parseSpec reads local@domain with nothing around it.
func parseSpec(s string) (a Address, why string) {
	at := strings.IndexByte(s, '@')
	switch {
	case s == "":
		return a, "there is nothing between < and >"
	case at < 0:
		return a, "it has no @"
	case s[0] == '"':
		if a.Local, at, why = quotedLocal(s); why != "" {
			return a, why
		}
	case s[0] == '@':
		return a, "source routes are not used any more"
	default:
		a.Local = s[:at]
		if strings.ContainsAny(a.Local, "%!") {
			return a, "% and ! before the @ would route it onwards"
		}
		if !dotAtom(a.Local) {
			return a, "what stands before the @ is not allowed there"
		}
	}
	if strings.IndexByte(s[at+1:], '@') >= 0 {
		return a, "it has two @"
	}
	if a.Domain, why = domain(s[at+1:]); why != "" {
		return a, why
	}
	a.UTF8 = !ascii(a.Local)
	if len(a.Local) > maxLocal || len(a.Local)+1+len(a.Domain) > maxPath {
		return a, "it is too long"
	}
	return a, ""
}

// quotedLocal takes a quoted local part only when the quotes are needed for dots
// alone (some carriers gave such addresses out) or not at all.
func quotedLocal(s string) (local string, at int, why string) {
	end := strings.IndexByte(s[1:], '"') + 1
	if end < 1 || end+1 >= len(s) || s[end+1] != '@' {
		return "", 0, "its quotes are not in order"
	}
	local = s[1:end]
	if local == "" || strings.ContainsAny(local, "%!") {
		return "", 0, "what stands in the quotes is not allowed there"
	}
	for _, r := range local {
		if r != '.' && !atext(r) {
			return "", 0, "what stands in the quotes is read differently by different programs"
		}
	}
	return local, end + 1, ""
}

// dotAtom says whether s is words with single dots between them.
func dotAtom(s string) bool {
	last := '.'
	for _, r := range s {
		if r == '.' && last == '.' || r != '.' && !atext(r) {
			return false
		}
		last = r
	}
	return last != '.'
}

// atext is what a local part may be made of. RFC 5322 section 3.2.3, RFC 6532.
func atext(r rune) bool {
	if r < utf8.RuneSelf {
		return atextASCII[r]
	}
	return r != utf8.RuneError && !unicode.IsControl(r) && !unicode.IsSpace(r) && !unicode.Is(unicode.Cf, r) && r != '\u2028' && r != '\u2029'
}

var atextASCII = func() (t [utf8.RuneSelf]bool) {
	for _, r := range "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-/=?^_`{|}~" {
		t[r] = true
	}
	return t
}()

// domain checks a domain and gives its one form.
func domain(s string) (string, string) {
	const bad = "what stands after the @ is not a domain"
	if s == "" || len(s) > 4*maxDomain {
		return "", bad
	}
	if s[0] == '[' {
		return "", "addresses of machines in brackets are not used"
	}
	if !ascii(s) {
		a, err := idna.Lookup.ToASCII(s)
		if err != nil {
			return "", bad
		}
		s = a
	}
	if len(s) > maxDomain || !hostName(s) {
		return "", bad
	}
	return strings.ToLower(s), ""
}

func hostName(s string) bool {
	label := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '.':
			if label == 0 || s[i-1] == '-' {
				return false
			}
			label = 0
			continue
		case c == '-':
			if label == 0 {
				return false
			}
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_':
		default:
			return false
		}
		if label++; label > 63 {
			return false
		}
	}
	return label > 0 && s[len(s)-1] != '-'
}

func ascii[T string | []byte](s T) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
