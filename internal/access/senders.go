package access

import (
	"context"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"

	"github.com/mailgrant/mailgrant"
)

// MaySend says whether the caller may send under all these identities through
// the mailbox: the envelope sender, From, Sender, Resent-From and Resent-Sender.
// Each must be allowed to the app and be one the mailbox may carry. The null
// sender "" is nobody's and passes next to a good one.
func (a *Access) MaySend(_ context.Context, c mailgrant.Caller, m mailgrant.Mailbox, identities []string) error {
	named := false
	for _, id := range identities {
		if id == "" {
			continue
		}
		named = true
		n, ok := Normal(id)
		if !ok {
			return mailgrant.Errorf(mailgrant.Invalid, nil, "the sender %q is not one plain address", id).
				Fix("write it like name@example.com")
		}
		if !c.Operator && len(c.App.Senders) > 0 && !anyRule(c.App.Senders, n) {
			return mailgrant.Errorf(mailgrant.Forbidden, nil, "the app %s may not send as %s", c.App.Name, id).
				Fix("send as one of %s, or allow it: mailgrant app set %s --sender %s", some(c.App.Senders), c.App.Name, id).See("refused-sender")
		}
		if !carries(m, n) {
			return mailgrant.Errorf(mailgrant.Forbidden, nil, "the mailbox %s may not carry mail from %s", m.Address, id).
				Fix("send as %s, or allow it: mailgrant mailbox set %s --sender %s", some(sendersOf(m)), m.Address, id).See("refused-sender")
		}
	}
	if !named {
		return mailgrant.Errorf(mailgrant.Forbidden, nil, "the message names no sender").
			Fix("give it a From field with the address of %s", m.Address).See("refused-sender")
	}
	return nil
}

// MaySendAs is the part of MaySend that is known before the mailbox is: whether
// the app may send as this one.
func (a *Access) MaySendAs(c mailgrant.Caller, id string) error {
	if id == "" || c.Operator || len(c.App.Senders) == 0 {
		return nil
	}
	if n, ok := Normal(id); ok && anyRule(c.App.Senders, n) {
		return nil
	}
	return mailgrant.Errorf(mailgrant.Forbidden, nil, "the app %s may not send as %s", c.App.Name, id).
		Fix("send as one of %s, or allow it: mailgrant app set %s --sender %s", some(c.App.Senders), c.App.Name, id).See("refused-sender")
}

// Carries says whether the mailbox's own rules let it carry mail from address.
func Carries(m mailgrant.Mailbox, address string) bool {
	n, ok := Normal(address)
	return ok && carries(m, n)
}

// carries says whether normal is the mailbox's own address, or one that was
// proved to be its to send as. R14.
func carries(m mailgrant.Mailbox, normal string) bool {
	own, ok := Normal(m.Address)
	return ok && own == normal || anyRule(m.Senders, normal)
}

func sendersOf(m mailgrant.Mailbox) []string { return append([]string{m.Address}, m.Senders...) }

// some names the first few rules.
func some(rules []string) string {
	if len(rules) > 3 {
		return strings.Join(rules[:3], ", ") + " and others"
	}
	return strings.Join(rules, ", ")
}

// CheckRule says whether s is a sender rule: "a@x", "*@x", or "*" for any.
func CheckRule(s string) *mailgrant.Error {
	if s == "*" {
		return nil
	}
	probe := s
	if rest, ok := strings.CutPrefix(s, "*@"); ok {
		probe = "any@" + rest
	}
	if _, ok := Normal(probe); !ok || strings.Contains(probe, "*") {
		return mailgrant.Errorf(mailgrant.Invalid, nil, "%q is not a rule for senders", s).
			Fix("write an address (name@example.com), a domain (*@example.com), or * for any")
	}
	return nil
}

// anyRule compares an address in normal form with the rules.
func anyRule(rules []string, normal string) bool {
	for _, r := range rules {
		if r == "*" || matches(r, normal) {
			return true
		}
	}
	return false
}

func matches(rule, normal string) bool {
	if rest, ok := strings.CutPrefix(rule, "*@"); ok {
		n, ok := Normal("x@" + rest)
		return ok && strings.HasSuffix(normal, n[1:]) && strings.LastIndexByte(normal, '@') == len(normal)-len(n)+1
	}
	n, ok := Normal(rule)
	return ok && n == normal
}

// maxAddress is the longest address there is: RFC 5321 section 4.5.3.1.3.
const maxAddress = 254

// Normal is the form in which addresses are compared: letters lower-case, the
// domain in A-labels, a local part quoted only when it must be. Anything that is
// not exactly one plain address has none: no display name, comment, route, group
// or address literal.
func Normal(address string) (string, bool) {
	if isPlain(address) {
		return address, true
	}
	at := strings.LastIndexByte(address, '@')
	if at < 1 || len(address) > 2*maxAddress || !utf8.ValidString(address) {
		return "", false
	}
	local, ok := normalLocal(address[:at])
	if !ok {
		return "", false
	}
	domain, err := idna.Lookup.ToASCII(strings.ToLower(address[at+1:]))
	if err != nil || !isDomain(domain) || len(local)+1+len(domain) > maxAddress {
		return "", false
	}
	return local + "@" + domain, true
}

// isPlain is the usual case, decided without allocation: lower-case ASCII,
// dots between atoms, a host name.
func isPlain(s string) bool {
	at := strings.IndexByte(s, '@')
	if at < 1 || at > 64 || len(s) > maxAddress {
		return false
	}
	before := byte('.')
	for i := range at {
		c := s[i]
		if c == '.' && before == '.' || c != '.' && (!isAtext(c) || 'A' <= c && c <= 'Z') {
			return false
		}
		before = c
	}
	return before != '.' && !strings.Contains(s[at+1:], "xn--") && isDomain(s[at+1:])
}

func isAtext(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}

// isDomain says whether s is a host name in lower-case ASCII.
func isDomain(s string) bool {
	if len(s) == 0 || len(s) > 253 {
		return false
	}
	start := 0
	for i := 0; i <= len(s); i++ {
		if i < len(s) && s[i] != '.' {
			if c := s[i]; !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-') {
				return false
			}
			continue
		}
		if n := i - start; n == 0 || n > 63 || s[start] == '-' || s[i-1] == '-' {
			return false
		}
		start = i + 1
	}
	return true
}

// normalLocal is the local part in lower case and NFC, with quotes only where
// RFC 5321 section 4.1.2 asks for them.
func normalLocal(s string) (string, bool) {
	if strings.HasPrefix(s, `"`) {
		var ok bool
		if s, ok = unquote(s); !ok {
			return "", false
		}
	} else if !isDotString(s) {
		return "", false
	}
	s = norm.NFC.String(strings.ToLower(norm.NFC.String(s)))
	if s == "" || len(s) > 64 {
		return "", false
	}
	if isDotString(s) {
		return s, true
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`, true
}

// isDotString says whether s is atoms with dots between, of letters of any
// alphabet (RFC 6531 section 3.3).
func isDotString(s string) bool {
	before := '.'
	for _, r := range s {
		switch {
		case r == '.':
			if before == '.' {
				return false
			}
		case r < utf8.RuneSelf:
			if !isAtext(byte(r)) {
				return false
			}
		case !unicode.IsPrint(r):
			return false
		}
		before = r
	}
	return before != '.'
}

// unquote reads a quoted local part. Its letters are printable; a space counts
// as one.
func unquote(s string) (string, bool) {
	if len(s) < 2 || s[len(s)-1] != '"' {
		return "", false
	}
	s = s[1 : len(s)-1]
	var b strings.Builder
	escaped := false
	for _, r := range s {
		switch {
		case !unicode.IsPrint(r):
			return "", false
		case !escaped && r == '\\':
			escaped = true
			continue
		case !escaped && r == '"':
			return "", false
		}
		b.WriteRune(r)
		escaped = false
	}
	return b.String(), !escaped
}
