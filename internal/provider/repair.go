package provider

import (
	"slices"
	"strings"

	"github.com/mailgrant/mailgrant"
)

// wordsInScope bounds how many pieces one scope may have been torn into.
const wordsInScope = 8

// misspelt are forms that circulate in set-up guides, squeezed. The right name
// stands without its resource.
var misspelt = map[string]string{
	"smptsend": "SMTP.Send", "smpt": "SMTP.Send", "smtpsend": "SMTP.Send",
	"imapaccessasuser": "IMAP.AccessAsUser.All", "imapaccess": "IMAP.AccessAsUser.All", "imapaccessasusersall": "IMAP.AccessAsUser.All",
	"popaccessasuser": "POP.AccessAsUser.All", "popaccess": "POP.AccessAsUser.All",
	"userread": "User.Read", "mailsend": "Mail.Send", "mailread": "Mail.Read", "mailreadwrite": "Mail.ReadWrite",
	"offlineacces": "offline_access", "offlineaccess": "offline_access", "offline": "offline_access",
}

// Repair reads scopes as people paste them: with spaces where underscores, dots
// and colons were, cut short, in the wrong case, without their resource. Every
// change is noted. What cannot be understood is refused.
func (s Settings) Repair(text string) (scopes, notes []string, err error) {
	tokens := strings.FieldsFunc(text, func(r rune) bool {
		return r == ' ' || r == ',' || r == ';' || r == '\n' || r == '\r' || r == '\t' || r == '\u00a0'
	})
	known := s.spellings()
	for i := 0; i < len(tokens); {
		scope, n := longest(known, tokens[i:])
		written := strings.Join(tokens[i:i+max(n, 1)], " ")
		if n == 0 {
			if scope, err = s.verbatim(tokens[i]); err != nil {
				return nil, nil, err
			}
			n = 1
		}
		if scope != written {
			notes = append(notes, written+" was read as "+scope)
		}
		if !slices.Contains(scopes, scope) {
			scopes = append(scopes, scope)
		}
		i += n
	}
	return scopes, notes, nil
}

// longest finds the known scope that takes the most pieces.
func longest(known map[string]string, tokens []string) (scope string, n int) {
	for n := min(len(tokens), wordsInScope); n > 0; n-- {
		if scope, ok := known[squeeze(strings.Join(tokens[:n], ""))]; ok {
			return scope, n
		}
	}
	return "", 0
}

// spellings are all scopes of the template by their letters and digits alone,
// with and without the resource.
func (s Settings) spellings() map[string]string {
	m := map[string]string{}
	put := func(scope string) {
		m[squeeze(scope)] = scope
		if i := strings.LastIndexByte(scope, '/'); i >= 0 && i+1 < len(scope) && !isDefault(scope) {
			if short := squeeze(scope[i+1:]); m[short] == "" {
				m[short] = scope
			}
		}
	}
	for _, scope := range []string{"openid", "profile", "email", "offline_access"} {
		put(scope)
	}
	for _, c := range []mailgrant.Capability{mailgrant.CanSMTP, mailgrant.CanIMAP, mailgrant.CanPOP, mailgrant.CanAPISend, mailgrant.CanAPIRead} {
		for _, scope := range s.Scopes[c] {
			put(scope)
		}
		if scope := s.AppScopes[c]; scope != "" {
			m[squeeze(scope)] = scope
		}
	}
	for _, scope := range s.KnownScopes {
		put(scope)
	}
	for wrong, right := range misspelt {
		if full := m[squeeze(right)]; full != "" && m[wrong] == "" {
			m[wrong] = full
			if host, _, ok := strings.Cut(strings.TrimPrefix(full, "https://"), "/"); ok && strings.Contains(full, "://") {
				m[squeeze("https://"+host+"/"+wrong)] = full
			}
		}
	}
	return m
}

func squeeze(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return -1
	}, s)
}

// verbatim takes a scope the template does not know, as long as it can be one:
// RFC 6749 section 3.3. Leftovers of a torn address cannot.
func (s Settings) verbatim(token string) (string, error) {
	bad := strings.HasPrefix(token, "//") || strings.HasSuffix(token, "//") || strings.EqualFold(token, "https") || strings.EqualFold(token, "http") || len(token) > 500
	for _, r := range token {
		bad = bad || r <= ' ' || r > '~' || r == '"' || r == '\\'
	}
	if bad || s.Microsoft() && !strings.ContainsAny(token, "./:") {
		return "", mailgrant.Errorf(mailgrant.Invalid, nil, "%.100q is not a permission of %s", token, s.Name).
			Fix("write it as the provider does, such as %s", s.example()).At("scopes_extra")
	}
	return token, nil
}

func (s Settings) example() string {
	for _, c := range []mailgrant.Capability{mailgrant.CanSMTP, mailgrant.CanAPISend, mailgrant.CanIMAP} {
		if l := s.Scopes[c]; len(l) > 0 {
			return l[0]
		}
	}
	return "openid"
}
