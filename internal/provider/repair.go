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
			if torn, ok := s.apart(known, tokens[i]); ok {
				notes = append(notes, written+" was read as "+strings.Join(torn, " "))
				tokens = slices.Replace(tokens, i, i+1, torn...)
				continue
			}
			if scope, err = s.understood(known, tokens[i]); err != nil {
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

// apart takes known scopes asunder that were pasted without blanks between them.
// A provider of whom we know little may have a scope that only looks like two.
func (s Settings) apart(known map[string]string, token string) ([]string, bool) {
	if !s.Microsoft() && strings.Count(token, "://") < 2 {
		return nil, false
	}
	var list []string
	for rest := squeeze(token); rest != ""; {
		found := ""
		for spelling := range known {
			if len(spelling) > len(found) && strings.HasPrefix(rest, spelling) {
				found = spelling
			}
		}
		if found == "" {
			return nil, false
		}
		list, rest = append(list, known[found]), rest[len(found):]
	}
	return list, len(list) > 1
}

// understood takes a scope that no spelling fits. One that stands under another of
// the provider's addresses is moved to its own: the portal lists the permissions
// of SMTP and IMAP under Graph, but a token request must name Outlook.
func (s Settings) understood(known map[string]string, token string) (string, error) {
	i := strings.LastIndexByte(token, '/')
	name := squeeze(token[i+1:])
	if right := known[name]; i > 0 && right != "" && strings.Contains(right, "://") && s.hosted(token) {
		return right, nil
	}
	for c, role := range s.AdminRoles {
		if name == squeeze(role) && known[name] == "" {
			return "", mailgrant.Errorf(mailgrant.Invalid, nil, "%s is a permission of the app itself, not of a person", role).
				Fix("take it out: a person's consent for %s needs no more than the capability; or let the app act as itself", c).At("scopes_extra")
		}
	}
	return s.verbatim(token)
}

// hosted says whether a scope stands under an address of the provider.
func (s Settings) hosted(scope string) bool {
	for _, hosts := range s.ResourceHosts {
		for _, host := range hosts {
			if strings.HasPrefix(strings.ToLower(scope), strings.ToLower(host)+"/") {
				return true
			}
		}
	}
	return false
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
