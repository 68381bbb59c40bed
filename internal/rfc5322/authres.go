package rfc5322

import (
	"strings"

	"github.com/emersion/go-msgauth/authres"

	"github.com/mailgrant/mailgrant"
)

// authResults adds the results of one Authentication-Results field. Exchange
// leaves out who speaks, writes comments, and puts in methods of its own; so the
// field is first brought into the form that RFC 8601 has. What is no result in it
// is passed.
func authResults(into []mailgrant.AuthResult, v string, topmost bool) []mailgrant.AuthResult {
	parts := statements(v)
	if len(parts) == 0 {
		return into
	}
	server := firstWord(parts[0])
	if strings.IndexByte(server, '=') >= 0 {
		server = "" // Exchange begins with the first result
	} else {
		parts = parts[1:]
	}
	server = clean(server, maxDomain)
	for _, s := range parts {
		if len(into) >= maxResults {
			break
		}
		_, results, err := authres.Parse("x;" + s)
		if err != nil || len(results) == 0 {
			continue
		}
		r := mailgrant.AuthResult{Server: server, Topmost: topmost}
		r.Method, r.Result, r.Domain = resultOf(results[0], s)
		if r.Method != "" && r.Result != "" {
			into = append(into, r)
		}
	}
	return into
}

func resultOf(r authres.Result, s string) (method, result, domain string) {
	method, _, _ = strings.Cut(firstWord(s), "=")
	method, _, _ = strings.Cut(strings.ToLower(method), "/") // a version
	switch r := r.(type) {
	case *authres.SPFResult:
		result, domain = string(r.Value), first(afterAt(r.From), r.Helo)
	case *authres.DKIMResult:
		result, domain = string(r.Value), first(r.Domain, afterAt(r.Identifier))
	case *authres.DMARCResult:
		result, domain = string(r.Value), afterAt(r.From)
	case *authres.DomainKeysResult:
		result, domain = string(r.Value), first(r.Domain, afterAt(r.From))
	case *authres.SenderIDResult:
		result, domain = string(r.Value), afterAt(r.HeaderValue)
	case *authres.ARCResult:
		result = string(r.Value)
	case *authres.AuthResult:
		result, domain = string(r.Value), afterAt(r.Auth)
	case *authres.IPRevResult:
		result = string(r.Value)
	case *authres.GenericResult:
		result, domain = string(r.Value), first(r.Params["header.d"], afterAt(r.Params["header.from"]), afterAt(r.Params["smtp.mailfrom"]))
	}
	return clean(method, 40), clean(result, 40), clean(strings.ToLower(domain), maxDomain)
}

func afterAt(s string) string {
	return strings.Trim(s[strings.LastIndexByte(s, '@')+1:], `<>"`)
}

// statements parts a field at its semicolons, without comments and quotes.
func statements(v string) []string {
	if strings.ContainsAny(v, "(\"\\") {
		v = withoutComments(v)
	}
	parts := strings.Split(v, ";")
	out := parts[:0]
	for i, s := range parts {
		if s = strings.TrimSpace(s); s != "" || i == 0 {
			out = append(out, s)
		}
	}
	return out
}

// withoutComments leaves comments out, and makes one word of what stands in
// quotes.
func withoutComments(v string) string {
	var b strings.Builder
	b.Grow(len(v))
	depth := 0
	for i := 0; i < len(v); i++ {
		switch c := v[i]; {
		case c == '\\':
			i++
		case c == '(':
			depth++
		case c == ')':
			depth = max(0, depth-1)
		case depth > 0:
		case c == '"':
			for i++; i < len(v) && v[i] != '"'; i++ {
				if v[i] > ' ' && v[i] != ';' {
					b.WriteByte(v[i])
				} else {
					b.WriteByte('_')
				}
			}
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}
