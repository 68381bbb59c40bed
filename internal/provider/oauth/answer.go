package oauth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
)

// tokenMax bounds one token. R-OA5.
const tokenMax = 32 << 10

// usualLife is assumed where neither the answer nor the template says how long
// an access token lives.
const usualLife = 10 * time.Minute

// An Answer is what a token endpoint gave.
type Answer struct {
	Access  mailgrant.Secret
	Refresh mailgrant.Secret // zero: none came, keep the present one
	IDToken mailgrant.Secret
	Type    string
	Expires time.Time
	Life    time.Duration
	Scopes  []string // granted

	scopeAssumed bool // the answer did not say; what was asked holds
}

// ScopesTold says whether the provider itself listed the scopes.
func (a Answer) ScopesTold() bool { return a.Scopes != nil && !a.scopeAssumed }

// Token is the access token for a resource.
func (a Answer) Token(resource string) mailgrant.Token {
	return mailgrant.Token{Value: a.Access, Type: "Bearer", Expires: a.Expires, Resource: resource, Scopes: a.Scopes}
}

// parseAnswer reads a token answer. A refusal is one that came with status 200.
func parseAnswer(body []byte, now time.Time, life time.Duration) (Answer, *refusal, error) {
	m, err := object(body)
	if err != nil {
		return Answer{}, nil, err
	}
	if bad, ok := m["error"]; ok && string(bad) != "null" {
		r := parseRefusal(body)
		return Answer{}, &r, nil
	}
	f := fields{m: m}
	a := Answer{Access: f.token("access_token"), Refresh: f.token("refresh_token"), IDToken: f.token("id_token"), Type: f.text("token_type")}
	a.Life = f.seconds("expires_in", life)
	a.Expires = now.Add(a.Life)
	a.Scopes = f.scopes("scope")
	switch {
	case f.err != nil:
		return Answer{}, nil, f.err
	case a.Access.IsZero():
		return Answer{}, nil, errors.New("access_token is missing")
	case a.Type != "" && !strings.EqualFold(a.Type, "bearer"): // case-insensitive: RFC 6749 section 5.1
		return Answer{}, nil, fmt.Errorf("token_type is %.40q, not Bearer", a.Type)
	}
	return a, nil, nil
}

// object reads one JSON object. A name twice is refused: two readers might not
// agree on which one counts.
func object(body []byte) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(body))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("it is not a JSON object")
	}
	m := map[string]json.RawMessage{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("it is not JSON: %w", err)
		}
		name, _ := t.(string)
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return nil, fmt.Errorf("it is not JSON: %w", err)
		}
		if _, twice := m[name]; twice {
			return nil, fmt.Errorf("%.40q stands twice", name)
		}
		m[name] = raw
	}
	if _, err := d.Token(); err != nil {
		return nil, fmt.Errorf("it is not JSON: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the JSON object")
	}
	return m, nil
}

// fields reads members with their types checked; the first fault is kept.
type fields struct {
	m   map[string]json.RawMessage
	err error
}

func (f *fields) fail(name, format string, args ...any) {
	if f.err == nil {
		f.err = fmt.Errorf(name+" "+format, args...)
	}
}

func (f *fields) text(name string) (s string) {
	raw, ok := f.m[name]
	if !ok || string(raw) == "null" {
		return ""
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		f.fail(name, "is not a string")
	}
	return s
}

// token is a text that can stand in a header and in a SASL response.
func (f *fields) token(name string) mailgrant.Secret {
	s := f.text(name)
	if len(s) > tokenMax {
		f.fail(name, "has %d bytes, more than %d", len(s), tokenMax)
		return mailgrant.Secret{}
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			f.fail(name, "has a letter that no token has")
			return mailgrant.Secret{}
		}
	}
	return mailgrant.NewSecret(s)
}

// scopes takes words in a string, or a list of them, as some providers write it;
// nil when nothing is said.
func (f *fields) scopes(name string) []string {
	raw, ok := f.m[name]
	if !ok || string(raw) == "null" {
		return nil
	}
	list := []string{}
	if json.Unmarshal(raw, &list) != nil {
		list = splitScopes(f.text(name))
	}
	return list
}

func splitScopes(s string) []string {
	list := strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == ',' })
	if list == nil {
		return []string{}
	}
	return list
}

// seconds takes a number, or a number in a string, as some providers write it.
func (f *fields) seconds(name string, otherwise time.Duration) time.Duration {
	if otherwise <= 0 {
		otherwise = usualLife
	}
	raw, ok := f.m[name]
	if !ok || string(raw) == "null" {
		return otherwise
	}
	text := strings.Trim(string(raw), `"`)
	n, err := strconv.ParseFloat(text, 64)
	switch {
	case text == "":
		return otherwise
	case err != nil || math.IsNaN(n) || math.IsInf(n, 0) || n < 0 || n > 10*365*24*3600:
		f.fail(name, "is not a number of seconds")
		return otherwise
	case n == 0:
		return otherwise
	}
	return time.Duration(n * float64(time.Second))
}

// A refusal is an OAuth error: RFC 6749 section 5.2, and what Entra adds.
type refusal struct {
	Code        string
	Description string
	SubError    string
	Codes       []int
	Claims      string
	Status      int
	RetryAfter  time.Duration
}

func (r *refusal) Error() string {
	s := fmt.Sprintf("the token endpoint answers %d %s", r.Status, r.Code)
	if r.Description != "" {
		s += ": " + clean(r.Description, 500)
	}
	return s
}

// parseRefusal reads what can be read; a refusal may be anything, even a page.
func parseRefusal(body []byte) (r refusal) {
	m, err := object(body)
	if err != nil {
		return refusal{}
	}
	get := func(name string) (s string) { json.Unmarshal(m[name], &s); return s }
	r = refusal{Code: clean(get("error"), 100), Description: clean(get("error_description"), 2000), SubError: clean(get("suberror"), 100), Claims: get("claims")}
	if r.Code == "" { // {"error":{"code":…}}, as an API would
		var nested struct {
			Code    any    `json:"code"`
			Status  string `json:"status"`
			Message string `json:"message"`
		}
		if json.Unmarshal(m["error"], &nested) == nil {
			r.Code, r.Description = clean(nested.Status, 100), clean(nested.Message, 2000)
		}
	}
	json.Unmarshal(m["error_codes"], &r.Codes)
	return r
}

// clean makes foreign text one bounded line without control characters.
func clean(s string, max int) string {
	if len(s) > 2*max {
		s = s[:2*max]
	}
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\r':
			return -1
		case r == '\n', r == '\t', r == '\u2028', r == '\u2029', r == '\u0085', r == '\u00a0':
			return ' '
		case r < ' ', r >= 0x7f && r < 0xa0, r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069:
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	s = strings.TrimSpace(s)
	if len(s) > max {
		s = strings.ToValidUTF8(s[:max], "")
	}
	return s
}
