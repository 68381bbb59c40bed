// Package provider knows mail providers: what they offer, where it is, and what
// must be asked of them.
//
//	registration ─▶ template ─▶ cloud ─▶ overrides ─▶ discovery ─▶ Settings
//
// A template is data: one file for each provider below templates/. Resolve makes
// Settings of a registration; Scopes says what to ask of the provider for what a
// grant shall do; FindProvider finds the template of an address.
package provider

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
)

// Settings are the facts of one registration's provider: template, cloud,
// overrides and discovery put together. The names in the tags are the names of
// overrides and of fields in the template files.
type Settings struct {
	Template string `yaml:"-"`
	Name     string `yaml:"display_name"`
	Cloud    string `yaml:"-"`
	Tenant   string `yaml:"tenant"` // Microsoft: the tenant id, once it is known

	Vars map[string]string `yaml:"vars"` // parts of addresses: {login_url}, {tld}

	Issuer                      string `yaml:"issuer"`
	IssuerRule                  string `yaml:"issuer_rule"` // "exact", or "entra": the tenant of the token stands in for {tenantid}
	Discovery                   string `yaml:"discovery"`   // "none", "oidc" (then RFC 8414), "rfc8414"
	AuthorizationEndpoint       string `yaml:"authorization_endpoint"`
	TokenEndpoint               string `yaml:"token_endpoint"`
	DeviceAuthorizationEndpoint string `yaml:"device_authorization_endpoint"`
	AdminConsentEndpoint        string `yaml:"admin_consent_endpoint"`
	UserinfoEndpoint            string `yaml:"userinfo_endpoint"`
	JWKSURI                     string `yaml:"jwks_uri"`
	EndSessionEndpoint          string `yaml:"end_session_endpoint"`
	RevocationEndpoint          string `yaml:"revocation_endpoint"`

	AuthMethod        string   `yaml:"auth_method"` // of a client with a secret: "client_secret_post", "client_secret_basic"; "none"
	AuthMethods       []string `yaml:"auth_methods"`
	AssertionAlg      string   `yaml:"assertion_alg"`      // of a certificate: "PS256" with x5t#S256, "RS256" with x5t
	AssertionAudience string   `yaml:"assertion_audience"` // "token_endpoint", "issuer"

	ExtraAuthorize map[string]string `yaml:"extra_authorize"`
	ExtraToken     map[string]string `yaml:"extra_token"`
	Prompt         string            `yaml:"prompt"`
	LoginHint      string            `yaml:"login_hint"`    // "always", "never", "not-with-select-account"
	PKCE           bool              `yaml:"pkce"`          // S256; off only by an override
	IssParameter   string            `yaml:"iss_parameter"` // RFC 9207: "required", "if-present", "absent"
	CallbackServer string            `yaml:"callback_server"`

	RefreshRotation string        `yaml:"refresh_rotation"` // "replace", "keep", "may-replace"; what comes is kept in any case
	RefreshIdle     time.Duration `yaml:"refresh_idle"`     // unused for so long, a refresh token dies; 0 = not known
	PerUserCap      int           `yaml:"per_user_cap"`     // refresh tokens of one account and client; the oldest drops
	TokenLife       time.Duration `yaml:"token_life"`       // when expires_in is missing

	TokenResourceRule string                                                     `yaml:"token_resource_rule"` // "single": one resource for each token; "shared"
	SubjectKey        string                                                     `yaml:"subject_key"`         // "tid+oid", "iss+sub"
	UserClaims        []string                                                   `yaml:"user_claims"`         // where an address may stand, best first
	ScopeDelimiter    string                                                     `yaml:"scope_delimiter"`
	BaseScopes        []string                                                   `yaml:"base_scopes"`   // may join any resource
	OfflineScope      string                                                     `yaml:"offline_scope"` // asks for a refresh token
	Scopes            map[mailgrant.Capability][]string                          `yaml:"scopes"`
	ScopesWith        map[mailgrant.Capability]map[mailgrant.Capability][]string `yaml:"scopes_with"`   // instead of Scopes, when both are asked
	SharedSuffix      string                                                     `yaml:"shared_suffix"` // of API scopes for another's mailbox
	KnownScopes       []string                                                   `yaml:"known_scopes"`  // spelled right, for the repair of what people paste
	Covers            map[string][]string                                        `yaml:"covers"`        // a scope that includes others
	AppScopes         map[mailgrant.Capability]string                            `yaml:"app_scopes"`    // of a token for the app itself
	AdminRoles        map[mailgrant.Capability]string                            `yaml:"admin_roles"`   // the permission an administrator gives the app
	Unsupported       map[mailgrant.Capability]string                            `yaml:"unsupported"`   // and why
	Resources         map[mailgrant.Capability]string                            `yaml:"resources"`     // "outlook", "graph", "google", "mail"
	ResourceHosts     map[string][]string                                        `yaml:"resource_hosts"`
	DefaultResource   string                                                     `yaml:"default_resource"` // of a scope without an address

	SMTPHost     string   `yaml:"smtp_host"`
	SMTPPort     int      `yaml:"smtp_port"`
	SMTPSecurity string   `yaml:"smtp_security"` // "starttls", "tls"
	IMAPHost     string   `yaml:"imap_host"`
	IMAPPort     int      `yaml:"imap_port"`
	IMAPSecurity string   `yaml:"imap_security"`
	POPHost      string   `yaml:"pop_host"`
	POPPort      int      `yaml:"pop_port"`
	POPSecurity  string   `yaml:"pop_security"`
	GraphURL     string   `yaml:"graph_url"`
	GmailURL     string   `yaml:"gmail_url"`
	SASL         []string `yaml:"sasl"` // in the order of preference
	POPTwoLine   bool     `yaml:"pop_two_line"`
	IMAPSASLIR   string   `yaml:"imap_sasl_ir"` // "auto", "never"
	SPFInclude   string   `yaml:"spf_include"`

	Limits               mailgrant.Limits `yaml:"-"`
	LimitValues          limitValues      `yaml:"limits"`
	APIConnections       int              `yaml:"api_connections"`
	RecipientsPerMessage int              `yaml:"recipients_per_message"`

	RevokeAt string `yaml:"revoke_at"` // where a person takes the consent back at the provider
}

// limitValues are mailgrant.Limits as they are written in a file.
type limitValues struct {
	Connections      int   `yaml:"connections"`
	PerMinute        int   `yaml:"per_minute"`
	RecipientsPerDay int   `yaml:"recipients_per_day"`
	MessageBytes     int64 `yaml:"message_bytes"`
}

func (l limitValues) limits() mailgrant.Limits {
	return mailgrant.Limits{Connections: l.Connections, PerMinute: l.PerMinute, RecipientsPerDay: l.RecipientsPerDay, MessageBytes: l.MessageBytes}
}

// Microsoft says whether the provider is one of Microsoft's.
func (s Settings) Microsoft() bool { return s.IssuerRule == "entra" }

// OIDC says whether the provider tells who consented by an ID token.
func (s Settings) OIDC() bool { return s.JWKSURI != "" && slices.Contains(s.BaseScopes, "openid") }

// override replaces single fields: by name ("token_endpoint", "smtp_port"), parts
// of addresses ("login_url"), or entries ("scopes.smtp", "limits.per_minute").
func (s *Settings) override(values map[string]string) error {
	for _, name := range sortedKeys(values) {
		if err := s.set(name, values[name]); err != nil {
			return err
		}
	}
	return nil
}

func (s *Settings) set(name, value string) error {
	if _, ok := s.Vars[name]; ok {
		s.Vars[name] = strings.TrimSuffix(value, "/")
		return nil
	}
	field, entry, _ := strings.Cut(name, ".")
	v, ok := fieldOf(reflect.ValueOf(s).Elem(), field)
	if !ok {
		return mailgrant.Errorf(mailgrant.Invalid, nil, "the template %s has no field %q", s.Template, name).
			Fix("use one of the names that mailgrant registration template %s shows", s.Template).At("overrides." + name)
	}
	if err := assign(v, entry, value); err != nil {
		return mailgrant.Errorf(mailgrant.Invalid, err, "the override %s cannot be %q: %v", name, value, err).
			Fix("correct the value").At("overrides." + name)
	}
	return nil
}

// fieldOf finds the field with this name in its tag.
func fieldOf(v reflect.Value, name string) (reflect.Value, bool) {
	for i := range v.NumField() {
		if tag := v.Type().Field(i).Tag.Get("yaml"); tag != "-" && tag == name {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

var durationType = reflect.TypeFor[time.Duration]()

// assign parses value into v; entry names the part of a map or struct.
func assign(v reflect.Value, entry, value string) error {
	switch {
	case v.Kind() == reflect.Struct:
		f, ok := fieldOf(v, entry)
		if !ok {
			return fmt.Errorf("it has no part %q", entry)
		}
		return assign(f, "", value)
	case v.Kind() == reflect.Map:
		return assignEntry(v, entry, value)
	case entry != "":
		return fmt.Errorf("it has no parts")
	case v.Type() == durationType:
		d, err := time.ParseDuration(value)
		if err != nil {
			return errors.New("it is not a duration such as 90m")
		}
		v.SetInt(int64(d))
		return nil
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(value)
	case reflect.Bool:
		b, err := strconv.ParseBool(value)
		if err != nil {
			return errors.New("it is neither true nor false")
		}
		v.SetBool(b)
	case reflect.Int, reflect.Int64:
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return errors.New("it is not a whole number")
		}
		v.SetInt(n)
	case reflect.Slice:
		v.Set(reflect.ValueOf(words(value)))
	}
	return nil
}

func assignEntry(v reflect.Value, entry, value string) error {
	if entry == "" {
		return fmt.Errorf("name the entry: field.entry")
	}
	e := reflect.New(v.Type().Elem()).Elem()
	if e.Kind() == reflect.Map {
		return fmt.Errorf("it cannot be set singly")
	}
	if err := assign(e, "", value); err != nil {
		return err
	}
	m := reflect.MakeMap(v.Type()) // the template's map is shared
	for _, k := range v.MapKeys() {
		m.SetMapIndex(k, v.MapIndex(k))
	}
	m.SetMapIndex(reflect.ValueOf(entry).Convert(v.Type().Key()), e)
	v.Set(m)
	return nil
}

func words(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == ',' || r == '\n' || r == '\t' })
}

// expand puts the parts into all addresses.
func (s *Settings) expand() {
	vars := make([]string, 0, 2*len(s.Vars)+4)
	for _, k := range sortedKeys(s.Vars) {
		vars = append(vars, "{"+k+"}", s.Vars[k])
	}
	vars = append(vars, "{tenant}", s.Tenant, "{graph_url}", strings.TrimSuffix(s.GraphURL, "/"))
	expandValue(reflect.ValueOf(s).Elem(), strings.NewReplacer(vars...))
}

func expandValue(v reflect.Value, r *strings.Replacer) {
	switch v.Kind() {
	case reflect.String:
		if strings.Contains(v.String(), "{") {
			v.SetString(r.Replace(v.String()))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			expandValue(v.Field(i), r)
		}
	case reflect.Slice:
		if v.Len() == 0 || v.Type().Elem().Kind() != reflect.String {
			return
		}
		out := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		reflect.Copy(out, v)
		for i := range out.Len() {
			expandValue(out.Index(i), r)
		}
		v.Set(out)
	case reflect.Map:
		if v.Len() == 0 {
			return
		}
		out := reflect.MakeMap(v.Type())
		for _, k := range v.MapKeys() {
			e := reflect.New(v.Type().Elem()).Elem()
			e.Set(v.MapIndex(k))
			expandValue(e, r)
			out.SetMapIndex(k, e)
		}
		v.Set(out)
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// clone copies what a cloud or an override may write into.
func (s Settings) clone() Settings {
	v := make(map[string]string, len(s.Vars))
	for k, e := range s.Vars {
		v[k] = e
	}
	s.Vars = v
	return s
}

func settingsFields() []string {
	var names []string
	t := reflect.TypeFor[Settings]()
	for i := range t.NumField() {
		if tag := t.Field(i).Tag.Get("yaml"); tag != "-" {
			names = append(names, tag)
		}
	}
	return names
}
