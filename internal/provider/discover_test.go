package provider_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/egress"
	"github.com/mailgrant/mailgrant/internal/provider"
)

// issuer is a server with one document, which tests bend.
type issuer struct {
	*httptest.Server
	path  string // where the document lies
	serve http.HandlerFunc
	mu    sync.Mutex
	seen  []string
}

func newIssuer(t *testing.T, path string, change func(map[string]any)) *issuer {
	i := &issuer{path: path}
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.mu.Lock()
		i.seen = append(i.seen, r.URL.Path)
		i.mu.Unlock()
		switch {
		case i.serve != nil:
			i.serve(w, r)
		case r.URL.Path == i.path:
			m := map[string]any{"issuer": i.URL, "authorization_endpoint": i.URL + "/auth", "token_endpoint": i.URL + "/token", "jwks_uri": i.URL + "/keys",
				"revocation_endpoint": i.URL + "/revoke", "scopes_supported": []string{"openid", "email", "offline_access"}}
			if change != nil {
				change(m)
			}
			json.NewEncoder(w).Encode(m)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(i.Close)
	return i
}

func (i *issuer) registration() mailgrant.Registration {
	return mailgrant.Registration{Template: "generic", Issuer: i.URL, ClientID: "c"}
}

const oidcPath, rfc8414Path = "/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"

func TestDiscovery(t *testing.T) {
	i := newIssuer(t, oidcPath, func(m map[string]any) {
		m["authorization_response_iss_parameter_supported"], m["token_endpoint_auth_methods_supported"] = true, []string{"client_secret_post"}
	})
	s, err := provider.Resolve(t.Context(), i.registration(), i.Client())
	if err != nil {
		t.Fatal(err)
	}
	if s.AuthorizationEndpoint != i.URL+"/auth" || s.TokenEndpoint != i.URL+"/token" || s.RevocationEndpoint != i.URL+"/revoke" || s.IssParameter != "required" || s.AuthMethod != "client_secret_post" || !s.OIDC() || s.OfflineScope != "offline_access" {
		t.Errorf("got %+v", s)
	}
	r := i.registration() // overrides win, and the document fills the rest
	r.Overrides = map[string]string{"token_endpoint": "https://other.example/token", "auth_method": "client_secret_basic"}
	if s, err = provider.Resolve(t.Context(), r, i.Client()); err != nil || s.TokenEndpoint != "https://other.example/token" || s.AuthMethod != "client_secret_basic" || s.JWKSURI != i.URL+"/keys" {
		t.Errorf("got %+v, %v", s, err)
	}
	i = newIssuer(t, rfc8414Path, func(m map[string]any) { m["scopes_supported"] = []string{"mail.send"}; delete(m, "jwks_uri") })
	if s, err = provider.Resolve(t.Context(), i.registration(), i.Client()); err != nil || s.OIDC() || len(s.BaseScopes) != 0 || s.OfflineScope != "" || s.AuthMethod != "client_secret_basic" {
		t.Errorf("RFC 8414: got %+v, %v", s, err)
	}
	i = newIssuer(t, rfc8414Path+"/tenant/one", nil) // the path goes behind, RFC 8414 section 3.1
	r = i.registration()
	r.Issuer += "/tenant/one"
	if _, err = provider.Resolve(t.Context(), r, i.Client()); !errors.Is(err, mailgrant.Misset) || i.seen[0] != "/tenant/one"+oidcPath || i.seen[1] != rfc8414Path+"/tenant/one" {
		t.Errorf("got %v after %v", err, i.seen)
	}
}

func TestOA12MetadataThatIsRefused(t *testing.T) {
	other := newIssuer(t, oidcPath, nil)
	for _, c := range []struct {
		name   string
		change func(map[string]any)
		serve  http.HandlerFunc
		code   mailgrant.Code
	}{
		{"another issuer", func(m map[string]any) { m["issuer"] = "https://evil.example" }, nil, mailgrant.Misset},
		{"a slash more", func(m map[string]any) { m["issuer"] = m["issuer"].(string) + "/" }, nil, mailgrant.Misset},
		{"no issuer", func(m map[string]any) { delete(m, "issuer") }, nil, mailgrant.Misset},
		{"no token endpoint", func(m map[string]any) { delete(m, "token_endpoint") }, nil, mailgrant.Misset},
		{"an endpoint that is none", func(m map[string]any) { m["token_endpoint"] = "javascript:alert(1)" }, nil, mailgrant.Misset},
		{"an endpoint with a user", func(m map[string]any) { m["token_endpoint"] = "https://a:b@x.example/" }, nil, mailgrant.Misset},
		{"wrong types", func(m map[string]any) { m["token_endpoint"] = 5 }, nil, mailgrant.Misset},
		{"a page", nil, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "<html>Welcome</html>") }, mailgrant.Misset},
		{"forbidden", nil, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(403) }, mailgrant.Misset},
		{"a redirect", nil, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL+r.URL.Path, http.StatusFound)
		}, mailgrant.Misset},
		{"down", nil, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) }, mailgrant.Unavailable},
		{"too many", nil, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(429) }, mailgrant.Unavailable},
		{"cut off", nil, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1000")
			io.WriteString(w, "{")
		}, mailgrant.Unavailable},
		{"huge", nil, func(w http.ResponseWriter, r *http.Request) {
			chunk := bytes.Repeat([]byte(" "), 64<<10)
			for range 3200 {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		}, mailgrant.Unavailable},
	} {
		i := newIssuer(t, oidcPath, c.change)
		i.serve = c.serve
		client := &http.Client{} // one that would follow
		_, err := provider.Resolve(t.Context(), i.registration(), client)
		if !errors.Is(err, c.code) || mailgrant.AsError(err).Remedy == "" {
			t.Errorf("%s: got %v, want %s with a remedy", c.name, err, c.code)
		}
		client.CloseIdleConnections()
	}
	if len(other.seen) != 0 {
		t.Errorf("the other host was asked for %v", other.seen)
	}
	for _, bad := range []string{"login.example.com", "ftp://x.example", "https://x.example?y", "https://u@x.example", "https://x.example#f"} {
		_, err := provider.Resolve(t.Context(), mailgrant.Registration{Template: "generic", Issuer: bad}, nowhere)
		if !errors.Is(err, mailgrant.Invalid) {
			t.Errorf("%s: got %v", bad, err)
		}
	}
}

// What a refused document said is not in the next one.
func TestOA11DocumentsDoNotMix(t *testing.T) {
	i := newIssuer(t, "", nil)
	i.serve = func(w http.ResponseWriter, r *http.Request) {
		m := map[string]any{"issuer": i.URL, "authorization_endpoint": i.URL + "/auth", "token_endpoint": i.URL + "/token"}
		if r.URL.Path == oidcPath {
			m["jwks_uri"], m["scopes_supported"] = i.URL+"/evil", "not a list"
		}
		json.NewEncoder(w).Encode(m)
	}
	s, err := provider.Resolve(t.Context(), i.registration(), i.Client())
	if err != nil || s.JWKSURI != "" {
		t.Errorf("got %q, %v", s.JWKSURI, err)
	}
}

// A provider of somebody's own cannot send people to a known one's page, and have
// the code that this gives them posted to itself.
func TestOA11CodeOfAKnownProviderStaysThere(t *testing.T) {
	for _, page := range []string{"https://login.microsoftonline.com/common/oauth2/v2.0/authorize", "https://LOGIN.microsoftonline.com:443/organizations/oauth2/v2.0/authorize",
		"https://login.microsoftonline.us/common/oauth2/v2.0/authorize", "https://accounts.google.com/o/oauth2/v2/auth", "https://accounts.google.com./o/oauth2/v2/auth"} {
		i := newIssuer(t, oidcPath, func(m map[string]any) { m["authorization_endpoint"] = page })
		_, err := provider.Resolve(t.Context(), i.registration(), i.Client())
		if e := mailgrant.AsError(err); e == nil || e.Code != mailgrant.Misset || e.Field != "issuer" || e.Remedy == "" {
			t.Errorf("%s: got %v", page, err)
		}
	}
}

// entra answers for domains as Microsoft's login host does.
func entra(t *testing.T, tenants map[string]map[string]any) *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		domain := strings.Split(r.URL.Path, "/")[1]
		m, ok := tenants[domain]
		if !ok || !strings.HasSuffix(r.URL.Path, "/v2.0"+oidcPath) {
			w.WriteHeader(400)
			io.WriteString(w, `{"error":"invalid_tenant","error_description":"AADSTS90002: Tenant not found."}`)
			return
		}
		json.NewEncoder(w).Encode(m)
	}))
	t.Cleanup(s.Close)
	return s
}

func document(id, region, sub, instance string) map[string]any {
	return map[string]any{"issuer": "https://login.microsoftonline.com/" + id + "/v2.0", "tenant_region_scope": region, "tenant_region_sub_scope": sub, "cloud_instance_name": instance}
}

func TestFindProvider(t *testing.T) {
	login := entra(t, map[string]map[string]any{
		"contoso.example": document(tenant, "EU", "", "microsoftonline.com"), "gov.example": document(tenant, "USGov", "DODCON", "microsoftonline.us"),
		"army.example": document(tenant, "USGov", "DOD", "microsoftonline.us"), "cn.example": document(tenant, "AS", "", "partner.microsoftonline.cn"),
		"odd.example": document("common", "", "", ""), "mixed.example": document(tenant, "EU", "", "microsoftonline.com"), "xn--bcher-kva.example": document(tenant, "EU", "", "microsoftonline.com"),
	})
	mx := map[string][]string{"contoso.example": {"contoso-example.mail.protection.outlook.com."}, "gov.example": {"gov-example.mail.protection.office365.us."}, "army.example": {"army.mail.protection.office365.us."},
		"cn.example": {"cn-example.mail.protection.partner.outlook.cn."}, "mixed.example": {"ASPMX.L.GOOGLE.COM."}, "g.example": {"smtp.google.com."}, "f.example": {"in1-smtp.messagingengine.com."},
		"z.example": {"mx.zoho.eu."}, "null.example": {"."}, "trap.example": {"evil-google.com.", "google.com.evil.example."}, "xn--bcher-kva.example": {"x.mail.protection.outlook.com."}, "new.example": {"new-example.a-v1.mx.microsoft."}}
	f := provider.Finder{HTTP: login.Client(), LoginURL: login.URL, LookupMX: func(_ context.Context, domain string) ([]*net.MX, error) {
		var l []*net.MX
		for _, h := range mx[domain] {
			l = append(l, &net.MX{Host: h})
		}
		if l == nil {
			return nil, &net.DNSError{Err: "no such host", Name: domain, IsNotFound: true}
		}
		return l, nil
	}}
	for _, c := range []struct {
		address, template, cloud, tenant string
		sure                             bool
	}{
		{"alex@contoso.example", "microsoft365", "public", tenant, true},
		{" Alex@Contoso.Example. ", "microsoft365", "public", tenant, true},
		{"a@bücher.example", "microsoft365", "public", tenant, true},
		{"a@gov.example", "microsoft365", "gcc-high", tenant, true},
		{"a@army.example", "microsoft365", "dod", tenant, true},
		{"a@cn.example", "microsoft365", "china", tenant, true},
		{"a@new.example", "microsoft365", "", "", false},
		{"a@mixed.example", "google", "", "", true},
		{"a@g.example", "google", "", "", true},
		{"a@gmail.com", "google", "", "", true},
		{"a@Outlook.com", "microsoft-personal", "", "", true},
		{"a@f.example", "fastmail", "", "", true},
		{"a@z.example", "zoho", "", "", true},
		{"a@odd.example", "", "", "", false},
		{"a@null.example", "", "", "", false},
		{"a@trap.example", "", "", "", false},
		{"\"odd@local\"@contoso.example", "microsoft365", "public", tenant, true},
	} {
		g, err := provider.FindProvider(t.Context(), c.address, f)
		if err != nil || g.Template != c.template || g.Cloud != c.cloud || g.Tenant != c.tenant || g.Sure != c.sure || g.Reason == "" {
			t.Errorf("%s: got %+v, %v", c.address, g, err)
		}
	}
	for _, bad := range []string{"", "alex", "@contoso.example", "alex@", "alex@localhost", "alex@contoso..example", "alex@con toso.example", "alex@-x.example", "a@" + strings.Repeat("x.", 140) + "example", "alex@evil.example/../x"} {
		if _, err := provider.FindProvider(t.Context(), bad, f); !errors.Is(err, mailgrant.Invalid) || mailgrant.AsError(err).Field != "address" {
			t.Errorf("%q: got %v", bad, err)
		}
	}
}

func TestFindProviderDoesWithoutOneAnswer(t *testing.T) {
	login := entra(t, map[string]map[string]any{"contoso.example": document(tenant, "EU", "", "microsoftonline.com")})
	noDNS := func(context.Context, string) ([]*net.MX, error) { return nil, errors.New("the resolver is dead") }
	g, err := provider.FindProvider(t.Context(), "a@contoso.example", provider.Finder{HTTP: login.Client(), LoginURL: login.URL, LookupMX: noDNS})
	if err != nil || g.Template != "microsoft365" || g.Sure || g.Tenant != tenant {
		t.Errorf("without DNS: got %+v, %v", g, err)
	}
	outlook := func(context.Context, string) ([]*net.MX, error) {
		return []*net.MX{{Host: "x.mail.protection.outlook.com."}}, nil
	}
	g, err = provider.FindProvider(t.Context(), "a@contoso.example", provider.Finder{HTTP: nowhere, LookupMX: outlook})
	if err != nil || g.Template != "microsoft365" || g.Sure {
		t.Errorf("without Microsoft: got %+v, %v", g, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	slow := func(ctx context.Context, _ string) ([]*net.MX, error) { <-ctx.Done(); return nil, ctx.Err() }
	if _, err := provider.FindProvider(ctx, "a@contoso.example", provider.Finder{HTTP: nowhere, LookupMX: slow}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("given up: got %v", err)
	}
}

func TestTenantOfADomain(t *testing.T) {
	login := entra(t, map[string]map[string]any{"contoso.example": document(strings.ToUpper("aaaaaaaa-2222-3333-4444-555555555555"), "EU", "", "")})
	s, err := provider.Resolve(t.Context(), mailgrant.Registration{Template: "microsoft365", Tenant: "contoso.example", Overrides: map[string]string{"login_url": login.URL}}, login.Client())
	if err != nil || s.Tenant != "aaaaaaaa-2222-3333-4444-555555555555" || !strings.Contains(s.TokenEndpoint, s.Tenant) {
		t.Errorf("got %+v, %v", s.Tenant, err)
	}
	_, err = provider.TenantID(t.Context(), login.Client(), login.URL, "nobody.example")
	if !errors.Is(err, mailgrant.Misset) || mailgrant.AsError(err).Field != "tenant" {
		t.Errorf("unknown: got %v", err)
	}
	guard, err := egress.New(egress.Config{})
	if err != nil {
		t.Fatal(err)
	}
	refuses, err := guard.HTTP("")
	if err != nil {
		t.Fatal(err)
	}
	_, err = provider.TenantID(t.Context(), refuses, login.URL, "contoso.example")
	if e := mailgrant.AsError(err); e.Code != mailgrant.Misset || e.Finding != nil || !strings.Contains(e.Remedy, "egress.allow") {
		t.Errorf("an address that mailgrant does not connect to: got %v, fix: %s", err, e.Remedy)
	}
}
