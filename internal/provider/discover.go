package provider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/diagnose"
)

// documentMax bounds a metadata document after decompression.
const documentMax = 1 << 20

// A metadata document: OpenID Connect Discovery 1.0 section 3, RFC 8414 section 2.
type metadata struct {
	Issuer        string   `json:"issuer"`
	Authorization string   `json:"authorization_endpoint"`
	Token         string   `json:"token_endpoint"`
	Device        string   `json:"device_authorization_endpoint"`
	Userinfo      string   `json:"userinfo_endpoint"`
	JWKS          string   `json:"jwks_uri"`
	EndSession    string   `json:"end_session_endpoint"`
	Revocation    string   `json:"revocation_endpoint"`
	AuthMethods   []string `json:"token_endpoint_auth_methods_supported"`
	Scopes        []string `json:"scopes_supported"`
	Challenges    []string `json:"code_challenge_methods_supported"`
	IssParameter  bool     `json:"authorization_response_iss_parameter_supported"`

	Region    string `json:"tenant_region_scope"`     // Entra: "WW", "NA", "EU", "USG"
	SubRegion string `json:"tenant_region_sub_scope"` // Entra: "GCC", "DODCON", "DOD"
	Instance  string `json:"cloud_instance_name"`     // Entra: "microsoftonline.com"
}

// errAbsent says that a server has no such document.
var errAbsent = errors.New("no such document")

// discover fills what neither template nor overrides say from the metadata of the
// issuer: OpenID Connect first, then RFC 8414.
func (s *Settings) discover(ctx context.Context, client *http.Client) error {
	if s.Issuer == "" {
		return nil // complete says what is missing
	}
	if !isWebAddress(s.Issuer) || strings.Contains(s.Issuer, "?") {
		return mailgrant.Errorf(mailgrant.Invalid, nil, "%.100q is not the address of an issuer", s.Issuer).
			Fix("enter the issuer as the provider writes it, such as https://login.example.com").At("issuer")
	}
	m, err := fetchMetadata(ctx, client, s.Issuer, s.Discovery)
	if err != nil {
		return err
	}
	return s.take(m)
}

func fetchMetadata(ctx context.Context, client *http.Client, issuer, kind string) (metadata, error) {
	addresses := []string{oidcAddress(issuer), rfc8414Address(issuer)}
	if kind == "rfc8414" {
		addresses = addresses[1:]
	}
	var err error
	for _, a := range addresses {
		var m metadata // nothing of a document that was refused may stay
		if err = fetchDocument(ctx, client, a, &m); err == nil {
			return m, nil
		}
		if !absent(err) {
			break
		}
	}
	return metadata{}, discoveryFailed(issuer, err)
}

// absent says whether the document is not there, or not for us: then it may be at
// another address, and it will not come by waiting.
func absent(err error) bool {
	var refused *refusedDocument
	return errors.Is(err, errAbsent) || errors.As(err, &refused)
}

// oidcAddress appends the path (Discovery 1.0 section 4.1), rfc8414Address puts
// it before the issuer's own (RFC 8414 section 3.1).
func oidcAddress(issuer string) string {
	return strings.TrimSuffix(issuer, "/") + "/.well-known/openid-configuration"
}

func rfc8414Address(issuer string) string {
	u, _ := url.Parse(issuer)
	return u.Scheme + "://" + u.Host + "/.well-known/oauth-authorization-server" + strings.TrimSuffix(u.EscapedPath(), "/")
}

// fetchDocument reads one JSON document, bounded. A redirect is not followed.
func fetchDocument(ctx context.Context, client *http.Client, address string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "mailgrant")
	direct := *client // whatever the caller's client does with redirects
	direct.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := direct.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	switch {
	case res.StatusCode == http.StatusNotFound, res.StatusCode == http.StatusGone:
		return fmt.Errorf("%s: %w", address, errAbsent)
	case res.StatusCode/100 == 4 && res.StatusCode != http.StatusTooManyRequests && res.StatusCode != http.StatusRequestTimeout:
		return &refusedDocument{status: res.StatusCode}
	case res.StatusCode/100 == 3:
		return fmt.Errorf("%s leads elsewhere, which is not followed: %w", address, errAbsent)
	case res.StatusCode != http.StatusOK:
		return fmt.Errorf("%s answers %d", address, res.StatusCode)
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, documentMax+1))
	if err != nil {
		return err
	}
	if len(b) > documentMax {
		return fmt.Errorf("%s answers with more than %d bytes", address, documentMax)
	}
	return parseMetadata(b, into)
}

func parseMetadata(b []byte, into any) error {
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("%w: %v", errAbsent, err) // a page of words: this is not the place
	}
	return nil
}

// refusedDocument is a 4xx: Entra says so that it knows no such tenant.
type refusedDocument struct{ status int }

func (e *refusedDocument) Error() string { return fmt.Sprintf("the server answers %d", e.status) }

// refusedByUs is what the egress rules say of an address: it has its own remedy,
// and nothing that came from the provider is to be explained.
func refusedByUs(err error) error {
	if ours := (*mailgrant.Error)(nil); errors.As(err, &ours) && ours.Code == mailgrant.Misset {
		return ours
	}
	return nil
}

func discoveryFailed(issuer string, err error) error {
	if absent(err) {
		return mailgrant.Errorf(mailgrant.Misset, err, "%.200s publishes no provider metadata", issuer).
			Fix("check the issuer's spelling; if the provider has none, set authorization_endpoint and token_endpoint in the overrides").At("issuer")
	}
	if ours := refusedByUs(err); ours != nil {
		return ours
	}
	f := diagnose.Explain(diagnose.Failure{Err: err, Protocol: "network", Context: map[string]any{"url": issuer, "step": "discovery"}})
	return mailgrant.Errorf(mailgrant.Unavailable, err, "the provider metadata of %.200s cannot be read now", issuer).With(f)
}

// take fills the gaps. The document must name the issuer it was asked for,
// letter by letter: RFC 8414 section 3.3.
func (s *Settings) take(m metadata) error {
	if m.Issuer != s.Issuer {
		return mailgrant.Errorf(mailgrant.Misset, nil, "the metadata at %.200s names another issuer: %.200q", s.Issuer, m.Issuer).
			Fix("if the second one is your provider, enter it as the issuer exactly so; else do not use this server").At("issuer")
	}
	if s.AuthorizationEndpoint == "" {
		if err := s.ownPage(m); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		have *string
		got  string
	}{
		{&s.AuthorizationEndpoint, m.Authorization}, {&s.TokenEndpoint, m.Token}, {&s.DeviceAuthorizationEndpoint, m.Device},
		{&s.UserinfoEndpoint, m.Userinfo}, {&s.JWKSURI, m.JWKS}, {&s.EndSessionEndpoint, m.EndSession}, {&s.RevocationEndpoint, m.Revocation},
	} {
		if *f.have == "" {
			*f.have = f.got
		}
	}
	if s.AuthMethod == "" {
		s.AuthMethod = preferred(m.AuthMethods)
	}
	if m.IssParameter {
		s.IssParameter = "required"
	}
	if s.OfflineScope != "" && len(m.Scopes) > 0 && !slices.Contains(m.Scopes, s.OfflineScope) {
		s.OfflineScope = ""
	}
	if len(m.Scopes) > 0 {
		s.BaseScopes = slices.DeleteFunc(slices.Clone(s.BaseScopes), func(b string) bool { return !slices.Contains(m.Scopes, b) })
	}
	return nil
}

// ownPage refuses metadata that send people to the page of a provider we know and
// their code elsewhere: whoever set that up would have the code. OA-11.
func (s *Settings) ownPage(m metadata) error {
	if to := hostOf(m.Authorization); hostOf(m.Token) != to && hostOf(s.Issuer) != to && knownPages()[to] {
		return mailgrant.Errorf(mailgrant.Misset, nil, "the metadata at %.200s send people to %s, which is another provider's, and their consent elsewhere", s.Issuer, to).
			Fix("use the template of that provider; do not use this server").At("issuer")
	}
	return nil
}

// knownPages are the hosts of the pages of all templates.
var knownPages = sync.OnceValue(func() map[string]bool {
	hosts := map[string]bool{}
	for _, t := range Templates() {
		for _, cloud := range append([]string{""}, t.Clouds...) {
			if s, err := t.in(cloud); err == nil {
				s.expand()
				hosts[hostOf(s.AuthorizationEndpoint)] = true
			}
		}
	}
	delete(hosts, "")
	return hosts
})

func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
}

// preferred is how a secret is shown where the provider leaves the choice. No
// list means Basic: RFC 8414 section 2.
func preferred(methods []string) string {
	for _, m := range []string{"client_secret_basic", "client_secret_post"} {
		if len(methods) == 0 || slices.Contains(methods, m) {
			return m
		}
	}
	return "client_secret_basic"
}

// TenantID finds the directory of a domain at a Microsoft login host. Nobody has
// to sign in for it.
func TenantID(ctx context.Context, client *http.Client, loginURL, domain string) (string, error) {
	m, err := tenantDocument(ctx, client, loginURL, domain)
	if err != nil {
		return "", err
	}
	return tenantIn(loginURL, m.Issuer)
}

func tenantDocument(ctx context.Context, client *http.Client, loginURL, domain string) (metadata, error) {
	var m metadata
	address := strings.TrimSuffix(loginURL, "/") + "/" + url.PathEscape(domain) + "/v2.0/.well-known/openid-configuration"
	err := fetchDocument(ctx, client, address, &m)
	switch {
	case err == nil:
		return m, nil
	case absent(err):
		return m, mailgrant.Errorf(mailgrant.Misset, err, "Microsoft knows no organization with the domain %s", domain).
			Fix("check the spelling, or enter the Directory (tenant) ID").At("tenant")
	}
	if ours := refusedByUs(err); ours != nil {
		return m, ours
	}
	f := diagnose.Explain(diagnose.Failure{Err: err, Protocol: "network", Context: map[string]any{"url": address, "step": "discovery"}})
	return m, mailgrant.Errorf(mailgrant.Unavailable, err, "Microsoft cannot be asked for the tenant of %s now", domain).With(f)
}

// tenantIn takes the tenant id out of an issuer of that login host.
func tenantIn(loginURL, issuer string) (string, error) {
	u, err := url.Parse(issuer)
	if err == nil {
		if id, _, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/"); IsGUID(id) {
			return strings.ToLower(id), nil
		}
	}
	return "", mailgrant.Errorf(mailgrant.Misset, err, "the metadata at %s names no tenant id", loginURL).
		Fix("enter the Directory (tenant) ID that the app's overview page shows").At("tenant")
}
