package diagnose

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// rawSize is how much of the other side's words a finding carries.
const rawSize = 500

// secrets are the shapes of what must never be shown: tokens, codes, keys and
// passwords with the names they go by.
var secrets = regexp.MustCompile(`(?i)` +
	`eyJ[\w-]{10,}(?:\.[\w-]+){1,4}` + // JWT, whole or cut
	`|\b(?:bearer|zoho-oauthtoken)\s+[\w.~+/=-]{8,}` +
	`|\bbasic\s+[a-z0-9+/=]{16,}` +
	`|\bauth(?:enticate)?\s+(?:xoauth2|oauthbearer|plain|login)\s+[\w+/=-]{8,}` +
	`|\b(?:client_secret|client_assertion|refresh_token|access_token|id_token|device_code|code_verifier|assertion|password|passwd|pwd|api_?key|secret)\b\\*["']?\s*(?:=>|[=:])\s*\\*(?:"[^"]*"?|'[^']*'?|[^\s&,;"'})]+)` +
	`|[?&](?:code|state|token)=[^\s&"']{8,}|\bcode=[\w.-]{40,}` +
	`|\bdXNlcj[\w+/=]{8,}|\bbixhP[\w+/=]{8,}` + // XOAUTH2 and OAUTHBEARER in base64
	`|://[^/\s:@"']+:[^/\s@"']+@` +
	`|\bGOCSPX-[\w-]+|\bya29\.[\w.-]+|\b[01]\.A[\w-]{40,}[\w.-]*|\bM\.C\d{3}_[\w.!*$-]+|\bmg_[a-z0-9]+_\w+` +
	`|\b1//[\w-]{20,}` +
	`|\b[A-Za-z0-9+/_-]{120,}={0,2}`)

// loginLine finds the password in a line of IMAP or POP.
var loginLine = regexp.MustCompile(`(?i)(\blogin\s+"?[^\s"]+@[^\s"]+"?\s+|\blogin\s+"[^"]+"\s+|(?:^|[\n>:'"] ?)pass\s+)("[^"]*"|[^\s"]+)`)

// raw is the text without secrets and control characters, cut to rawSize.
func raw(s string) string {
	if len(s) > 3*rawSize {
		s = s[:3*rawSize]
	}
	s = strings.ToValidUTF8(s, "")
	if risky(s) {
		s = secrets.ReplaceAllStringFunc(s, hide)
		s = loginLine.ReplaceAllString(s, "$1[secret]")
	}
	s = strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || r == '\r' {
			return ' '
		}
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || unicode.Is(unicode.Bidi_Control, r) {
			return -1
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	return cut(s, rawSize)
}

// risky spares most texts the search: no word of a secret, no long run.
func risky(s string) bool {
	low := strings.ToLower(s)
	for _, w := range []string{"eyj", "bearer", "basic ", "auth", "secret", "token", "passw", "pwd", "assertion", "code", "api", "login", "ya29", "gocspx", "1//", "state=", "mg_", "m.c", "dxnlcj", "bixhp", "://", "pass "} {
		if strings.Contains(low, w) {
			return true
		}
	}
	run := 0
	for i := 0; i < len(s); i++ {
		run++
		if !isBase64(s[i]) {
			run = 0
		}
		if run >= 40 {
			return true
		}
	}
	return false
}

// hide keeps the name of a secret and drops its value.
func hide(s string) string {
	if strings.HasPrefix(s, "://") {
		return "://[secret]@"
	}
	if i := strings.IndexAny(s, "=:"); i > 0 && i < 30 {
		return s[:i+1] + "[secret]"
	}
	if i := strings.LastIndexByte(s, ' '); i > 0 {
		return s[:i+1] + "[secret]"
	}
	return "[secret]"
}

func cut(s string, size int) string {
	if len(s) <= size {
		return s
	}
	s = s[:size-3]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s + "…"
}
