package diagnose

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// facts is what is known beside the text. Keys are those of the taxonomy:
//
//	provider host port tls auth_mech grant step url token_url kind
//	token{aud scp roles scope upn} mailbox mailbox_type xoauth2_user
//	requested_scope same_credentials_worked_minutes_ago smtp_auth_enabled
//	mailbox_permissions publishing_status consent_age_days …
//
// Others are looked for by the words in their names, so that a caller who writes
// "imap_switched_on" instead of "imap_enabled" is understood as well.
type facts struct {
	m     map[string]any
	names []string // of m, in order, so that the same facts give the same answer
	token map[string]any
	where string // host, provider and addresses in one lower-case string
	at    time.Time
}

func factsOf(f Failure) facts {
	x := facts{m: f.Context, names: slices.Sorted(maps.Keys(f.Context))}
	x.token = tokenFacts(f.Context["token"])
	x.where = strings.ToLower(strings.Join([]string{
		x.str("provider"), x.str("host"), x.str("server"), x.str("api"), x.str("url"),
		x.str("token_url"), x.str("endpoint"), x.str("target"), domainOf(x.str("mailbox")),
	}, " "))
	x.at = x.date("date", "seen", "time", "timestamp", "when", "year")
	return x
}

// tokenFacts takes the token's claims as a map; a word alone tells nothing.
func tokenFacts(v any) map[string]any {
	switch t := v.(type) {
	case map[string]any:
		return t
	case map[string]string:
		m := map[string]any{}
		for k, s := range t {
			m[k] = s
		}
		return m
	}
	return nil
}

func domainOf(address string) string {
	_, domain, _ := strings.Cut(address, "@")
	return domain
}

// str is a fact as text; lists are joined by spaces.
func (x facts) str(keys ...string) string {
	for _, k := range keys {
		if v, ok := x.m[k]; ok && v != nil {
			return textOf(v)
		}
	}
	return ""
}

func textOf(v any) string {
	switch t := v.(type) {
	case nil:
		return ""
	case string:
		return t
	case bool:
		return strconv.FormatBool(t)
	case []any:
		parts := make([]string, len(t))
		for i, p := range t {
			parts[i] = textOf(p)
		}
		return strings.Join(parts, " ")
	case []string:
		return strings.Join(t, " ")
	case float64:
		return strconv.FormatFloat(t, 'f', -1, 64)
	case json.Number:
		return t.String()
	case map[string]any:
		b, _ := json.Marshal(t)
		return string(b)
	}
	return fmt.Sprint(v)
}

// has reports whether the fact is known at all.
func (x facts) has(key string) bool { _, ok := x.m[key]; return ok }

// num is a fact as a number.
func (x facts) num(keys ...string) (float64, bool) {
	for _, k := range keys {
		s := x.str(k)
		if s == "" {
			continue
		}
		if n, err := strconv.ParseFloat(strings.TrimSpace(s), 64); err == nil {
			return n, true
		}
	}
	return 0, false
}

// yes and no report a switch that is known to be on or off. Absent is neither.
func (x facts) yes(keys ...string) bool { return x.is(on, keys) }
func (x facts) no(keys ...string) bool  { return x.is(off, keys) }

const (
	on  = " true yes on 1 enabled ok active present granted required "
	off = " false no off 0 disabled none missing absent never null nil "
)

func (x facts) is(values string, keys []string) bool {
	for _, k := range keys {
		v, ok := x.m[k]
		if !ok {
			continue
		}
		s := strings.ToLower(strings.TrimSpace(textOf(v)))
		if v == nil {
			s = "null"
		}
		if s != "" && strings.Contains(values, " "+s+" ") {
			return true
		}
	}
	return false
}

// find looks for a fact whose name holds all these words.
func (x facts) find(words ...string) (any, bool) {
	for _, name := range x.names {
		k, v := strings.ToLower(name), x.m[name]
		all := true
		for _, w := range words {
			all = all && strings.Contains(k, w)
		}
		if all {
			return v, true
		}
	}
	return nil, false
}

// found reports whether a fact named by these words has one of the values.
func (x facts) found(values string, words ...string) bool {
	v, ok := x.find(words...)
	if !ok {
		return false
	}
	s := strings.ToLower(strings.TrimSpace(textOf(v)))
	if v == nil {
		s = "null"
	}
	return s != "" && strings.Contains(values, " "+s+" ")
}

func (x facts) date(keys ...string) time.Time {
	for _, k := range keys {
		s := x.str(k)
		for _, layout := range []string{"2006-01-02", "2006-01", "2006", time.RFC3339} {
			if t, err := time.Parse(layout, s[:min(len(s), max(len(layout), 0))]); err == nil {
				return t
			}
		}
	}
	return time.Time{}
}

// before reports whether the failure is known to be older than the date.
func (x facts) before(date string) bool {
	t, _ := time.Parse("2006-01-02", date)
	return !x.at.IsZero() && x.at.Before(t)
}

// services are the names by which a provider shows in hosts and addresses.
var services = map[string][]string{
	"microsoft": {"microsoft", "office365", "outlook", "hotmail", "office.com", "live.com", "exchange", "partner.outlook.cn", "chinacloud", "m365"},
	"consumer":  {"outlook.com", "hotmail", "live.com", "msn.com", "gmail.com", "smtp-mail.outlook"},
	"google":    {"google", "gmail", "workspace"},
	"yahoo":     {"yahoo", "aol.", "aol ", "att.net", "ymail", "sbcglobal", "verizon.net", "rocketmail"},
	"netease":   {"163.com", "126.com", "yeah.net", "188.com", "netease"},
	"tencent":   {"qq.com", "foxmail", "exmail"},
	"yandex":    {"yandex", "ya.ru"},
	"zoho":      {"zoho"},
	"icloud":    {"icloud", "me.com", "apple"},
	"mailru":    {"mail.ru", "bk.ru", "inbox.ru", "list.ru"},
	"others":    {"fastmail", "sina.com", "sohu.com", "139.com", "aliyun", "naver", "daum", "kakao", "proton", "gmx", "web.de", "mailfence", "rambler", "seznam"},
}

// service reports whether the failure came from this provider.
func (x facts) service(name string) bool {
	names, ok := services[name]
	if !ok {
		names = []string{name}
	}
	for _, n := range names {
		if strings.Contains(x.where, n) {
			return true
		}
	}
	return false
}

// wantsAppPassword reports a provider that takes no normal password.
func (x facts) wantsAppPassword() bool {
	for _, s := range []string{"yahoo", "netease", "tencent", "yandex", "zoho", "icloud", "mailru", "others"} {
		if x.service(s) {
			return true
		}
	}
	return false
}

// consumer reports a mailbox without an organisation behind it.
func (x facts) consumer() bool {
	kind := strings.ToLower(x.str("account_type", "mailbox_type", "account", "tenant_type"))
	if strings.Contains(kind, "consumer") || strings.Contains(kind, "personal") {
		return true
	}
	if p := strings.ToLower(x.str("provider")); p == "outlook.com" || p == "consumer" || p == "hotmail" {
		return true
	}
	d := strings.ToLower(domainOf(x.str("mailbox")))
	for _, c := range []string{"outlook.", "hotmail.", "live.", "msn.com", "gmail.com", "googlemail.com", "yahoo.", "aol.com", "icloud.com", "qq.com", "163.com", "126.com"} {
		if strings.HasPrefix(d, c) {
			return true
		}
	}
	return false
}

// oauth reports whether a token was shown, password whether a password was.
func (x facts) oauth() bool {
	m := strings.ToLower(x.str("auth_mech", "auth", "auth_method", "authentication"))
	if strings.Contains(m, "oauth") || strings.Contains(m, "bearer") {
		return true
	}
	return m == "" && (x.token != nil || x.str("grant") != "" && x.str("grant") != "password" || x.str("xoauth2_user") != "")
}

func (x facts) password() bool {
	switch strings.ToLower(x.str("auth_mech", "auth", "auth_method", "authentication")) {
	case "login", "plain", "basic", "password", "cram-md5", "user", "ntlm":
		return true
	}
	return x.str("password_kind") != "" || x.str("grant") == "password"
}

// appOnly reports whether the software acts as itself.
func (x facts) appOnly() bool {
	switch strings.ToLower(x.str("grant", "flow")) {
	case "client_credentials", "client-credentials", "app-only", "jwt-bearer":
		return true
	}
	return false
}

func (x facts) grant() string { return strings.ToLower(x.str("grant", "flow", "grant_type")) }
func (x facts) step() string  { return strings.ToLower(x.str("step", "phase")) }
func (x facts) bounce() bool  { return x.str("kind") == "bounce" }

// claim is a claim of the token; known is false when nobody looked.
func (x facts) claim(names ...string) (value string, known bool) {
	for _, n := range names {
		if v, ok := x.token[n]; ok {
			return strings.ToLower(textOf(v)), true
		}
	}
	return "", false
}
