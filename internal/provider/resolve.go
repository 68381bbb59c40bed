package provider

import (
	"context"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/mailgrant/mailgrant"
)

// guid is the form of tenant and client ids at Microsoft.
var guid = regexp.MustCompile(`^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$`)

// IsGUID says whether s has the form of a GUID.
func IsGUID(s string) bool { return guid.MatchString(s) }

// domainName is a DNS name of at least two labels.
var domainName = regexp.MustCompile(`^(?i:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+(?i:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)$`)

// manyTenants are the tenant segments that stand for no single directory.
var manyTenants = map[string]bool{"common": true, "organizations": true, "consumers": true}

// Resolve makes the settings of a registration. It needs the network only where
// something must be looked up: the tenant id of a domain, or the metadata of a
// generic provider.
func Resolve(ctx context.Context, r mailgrant.Registration, client *http.Client) (Settings, error) {
	t, ok := Lookup(r.Template)
	if !ok {
		return Settings{}, mailgrant.Errorf(mailgrant.Invalid, nil, "there is no template %q", r.Template).
			Fix("use one of: %s", strings.Join(sortedKeys(readers()), ", ")).At("template")
	}
	s, err := t.in(r.Cloud)
	if err != nil {
		return s, err
	}
	if r.Issuer != "" && s.Discovery != "none" {
		s.Issuer = r.Issuer
	}
	if err := s.override(r.Overrides); err != nil {
		return s, err
	}
	s.Limits = s.LimitValues.limits()
	if s.Microsoft() {
		if s.Tenant, err = tenantOf(ctx, s, r, client); err != nil {
			return s, err
		}
	}
	s.expand()
	if s.Discovery != "none" {
		if err := s.discover(ctx, client); err != nil {
			return s, err
		}
	}
	if r.Prompt != "" {
		s.Prompt = r.Prompt
	}
	return s, s.complete()
}

// tenantOf is the tenant segment: the id of a directory, or one of the words
// that stand for many. A domain is looked up, because only the id is for ever.
func tenantOf(ctx context.Context, s Settings, r mailgrant.Registration, client *http.Client) (string, error) {
	t := strings.TrimSpace(r.Tenant)
	if t == "" {
		t = s.Tenant
	}
	switch {
	case t == "":
		return "", mailgrant.Errorf(mailgrant.Misset, nil, "the registration %s does not say which Microsoft tenant it is for", r.Name).
			Fix("enter the Directory (tenant) ID that the app's overview page shows").At("tenant")
	case IsGUID(t):
		return strings.ToLower(t), nil
	case manyTenants[strings.ToLower(t)]:
		return strings.ToLower(t), nil
	case !domainName.MatchString(t):
		return "", mailgrant.Errorf(mailgrant.Invalid, nil, "%q is neither a tenant id nor a domain", t).
			Fix("enter the Directory (tenant) ID that the app's overview page shows").At("tenant")
	}
	return TenantID(ctx, client, s.Vars["login_url"], t)
}

// complete says what is still missing before anything can be asked.
func (s Settings) complete() error {
	for _, e := range []struct{ name, value string }{
		{"authorization_endpoint", s.AuthorizationEndpoint}, {"token_endpoint", s.TokenEndpoint}} {
		if e.value == "" {
			return mailgrant.Errorf(mailgrant.Misset, nil, "the provider's %s is not known", strings.ReplaceAll(e.name, "_", " ")).
				Fix("give the registration an issuer, or set %s in its overrides", e.name).At("overrides." + e.name)
		}
	}
	for name, value := range map[string]string{
		"authorization_endpoint": s.AuthorizationEndpoint, "token_endpoint": s.TokenEndpoint, "jwks_uri": s.JWKSURI,
		"device_authorization_endpoint": s.DeviceAuthorizationEndpoint, "revocation_endpoint": s.RevocationEndpoint,
		"userinfo_endpoint": s.UserinfoEndpoint, "admin_consent_endpoint": s.AdminConsentEndpoint} {
		if value != "" && !isWebAddress(value) {
			return mailgrant.Errorf(mailgrant.Misset, nil, "the provider's %s is not a web address: %.100q", strings.ReplaceAll(name, "_", " "), value).
				Fix("correct it in the registration's overrides").At("overrides." + name)
		}
	}
	return nil
}

// isWebAddress says whether s can be asked: absolute, with a host, without user
// name and fragment. Whether it may be plain http is for egress to say.
func isWebAddress(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && u.User == nil && u.Fragment == ""
}
