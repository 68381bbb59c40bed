package sim_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/mailgrant/mailgrant/sim"
)

func TestDiscovery(t *testing.T) {
	e := start(t)
	for _, c := range []struct{ segment, issuer, tokenSegment string }{
		{sim.ContosoTenantID, sim.ContosoTenantID, sim.ContosoTenantID},
		{"contoso.example", sim.ContosoTenantID, sim.ContosoTenantID},
		{"CONTOSO.onmicrosoft.example", sim.ContosoTenantID, sim.ContosoTenantID},
		{"common", "{tenantid}", "common"},
		{"organizations", "{tenantid}", "organizations"},
		{"consumers", "9188040d-6c67-4c5b-b112-36a304b66dad", "9188040d-6c67-4c5b-b112-36a304b66dad"},
	} {
		a := e.get(e.LoginURL() + "/" + c.segment + "/v2.0/.well-known/openid-configuration")
		if a.text("issuer") != e.LoginURL()+"/"+c.issuer+"/v2.0" || a.text("token_endpoint") != e.LoginURL()+"/"+c.tokenSegment+"/oauth2/v2.0/token" {
			t.Errorf("%s: got issuer %s, token endpoint %s", c.segment, a.text("issuer"), a.text("token_endpoint"))
		}
		for _, absent := range []string{"code_challenge_methods_supported", "revocation_endpoint", "authorization_response_iss_parameter_supported"} {
			if _, ok := a.doc[absent]; ok {
				t.Errorf("%s: has %s, which Entra has not", c.segment, absent)
			}
		}
	}
	a := e.get(e.LoginURL() + "/nobody.example/v2.0/.well-known/openid-configuration")
	e.wantAADSTS("unknown domain", a, "90002", "invalid_tenant")
	a = e.get(e.LoginURL() + "/nonsense/v2.0/.well-known/openid-configuration")
	e.wantAADSTS("no domain at all", a, "900023", "invalid_request")
}

func TestDiscoveryUnderMicrosoftsNames(t *testing.T) {
	e := start(t)
	a := e.get(e.LoginURL()+"/common/v2.0/.well-known/openid-configuration", "Host", "login.microsoftonline.com")
	if got := a.text("token_endpoint"); got != "https://login.microsoftonline.com/common/oauth2/v2.0/token" {
		t.Errorf("token endpoint: got %s", got)
	}
	if got := a.text("userinfo_endpoint"); got != "https://graph.microsoft.com/oidc/userinfo" {
		t.Errorf("userinfo: got %s", got)
	}
}

// keySet fetches the JWKS.
func (e *env) keySet() map[string]*rsa.PublicKey {
	e.Helper()
	var set struct {
		Keys []struct{ Kid, N, E, Issuer string }
	}
	if err := json.Unmarshal(e.get(e.LoginURL()+"/common/discovery/v2.0/keys").body, &set); err != nil {
		e.Fatal(err)
	}
	all := map[string]*rsa.PublicKey{}
	for _, k := range set.Keys {
		n, _ := base64.RawURLEncoding.DecodeString(k.N)
		exp, _ := base64.RawURLEncoding.DecodeString(k.E)
		all[k.Kid] = &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(exp).Int64())}
		if k.Issuer != e.LoginURL()+"/{tenantid}/v2.0" {
			e.Errorf("issuer of a key: got %s", k.Issuer)
		}
	}
	return all
}

func signedBy(t *testing.T, token string) string {
	t.Helper()
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		t.Fatal(err)
	}
	return parsed.Headers[0].KeyID
}

func TestKeysRollOver(t *testing.T) {
	e := start(t)
	idToken := func() string { return e.tokens("kim@contoso.example").text("id_token") }
	first, before := signedBy(t, idToken()), e.keySet()
	if before[first] == nil || len(before) != 2 {
		t.Fatalf("got %d keys, with the current one: %v", len(before), before[first] != nil)
	}
	if err := e.RollKeys(false); err != nil {
		t.Fatal(err)
	}
	token := idToken()
	second, after := signedBy(t, token), e.keySet()
	if second == first || before[second] == nil {
		t.Errorf("the next key was not announced before: %s", second)
	}
	if after[first] == nil || len(after) != 3 {
		t.Errorf("the retired key is gone: %d keys", len(after))
	}
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.RS256})
	var c map[string]any
	if err != nil || parsed.Claims(after[second], &c) != nil {
		t.Errorf("the signature does not verify: %v", err)
	}
	if err := e.RollKeys(true); err != nil {
		t.Fatal(err)
	}
	third, now := signedBy(t, idToken()), e.keySet()
	if now[first] != nil || now[second] != nil || after[third] != nil || now[third] == nil {
		t.Error("an emergency must withdraw the old keys and use one that was not announced")
	}
}

func TestCodeFlow(t *testing.T) {
	e := start(t)
	back := e.signIn(sim.SignIn{Address: "alex@contoso.example"}, "scope", "openid profile email offline_access "+smtpSend+" https://graph.microsoft.com/Mail.Send")
	if back.Get("state") != "a b" || back.Get("session_state") == "" || back.Has("iss") {
		t.Errorf("redirect: got %v", back)
	}
	a := e.token("organizations", redemption(back.Get("code"), "scope", "openid profile email offline_access "+smtpSend))
	if a.status != 200 || a.text("token_type") != "Bearer" || a.text("scope") != smtpSend {
		t.Fatalf("got %d %s", a.status, a.body)
	}
	if n := a.doc["expires_in"].(float64); n < 3599 || n > 5399 {
		t.Errorf("expires_in: got %v", n)
	}
	id := claims(t, a.text("id_token"))
	for k, want := range map[string]any{"aud": sim.ContosoClientID, "iss": e.LoginURL() + "/" + sim.ContosoTenantID + "/v2.0", "nonce": "n1",
		"tid": sim.ContosoTenantID, "ver": "2.0", "preferred_username": "alex@contoso.example", "email": "alex@contoso.example"} {
		if id[k] != want {
			t.Errorf("id token: %s is %v, want %v", k, id[k], want)
		}
	}
	access := claims(t, a.text("access_token"))
	if access["aud"] != "https://outlook.office.com" || access["scp"] != "SMTP.Send" || access["appid"] != sim.ContosoClientID {
		t.Errorf("access token: got %v", access)
	}
	// The same refresh token serves the other resource, and gives a new one.
	b := e.token("organizations", renewal(a.text("refresh_token"), "scope", "https://graph.microsoft.com/Mail.Send"))
	if c := claims(t, b.text("access_token")); c["aud"] != "https://graph.microsoft.com" || !strings.Contains(c["scp"].(string), "Mail.Send") {
		t.Errorf("the other resource: got %v", c)
	}
	if b.text("refresh_token") == "" || b.text("refresh_token") == a.text("refresh_token") {
		t.Error("each renewal brings a new refresh token")
	}
	again := e.token("organizations", renewal(a.text("refresh_token")))
	if again.status != 200 {
		t.Errorf("the old refresh token still works at Entra: got %d %s", again.status, again.body)
	}
	info := e.get(e.GraphURL()+"/oidc/userinfo", "Authorization", "Bearer "+e.userToken("alex@contoso.example", "https://graph.microsoft.com/Mail.Send"))
	if info.status != 200 || info.text("sub") != id["sub"] {
		t.Errorf("userinfo: got %d %s, want the sub %v", info.status, info.body, id["sub"])
	}
}

func TestAuthorizeRequestsThatAreWrong(t *testing.T) {
	e := start(t)
	for _, c := range []struct {
		what, tenant string
		pairs        []string
		code         string
		onPage       bool
	}{
		{"unknown client", "organizations", []string{"client_id", "11111111-2222-4333-8444-555555555555"}, "700016", true},
		{"no client", "organizations", []string{"client_id", ""}, "900144", true},
		{"unregistered redirect", "organizations", []string{"redirect_uri", "https://evil.example/cb"}, "50011", true},
		{"single-tenant app at common", "common", []string{"client_id", sim.ContosoSystemClientID}, "50194", true},
		{"app of another tenant", "fabrikam.example", []string{"client_id", sim.ContosoSystemClientID}, "700016", true},
		{"unknown tenant", "nobody.example", nil, "90002", true},
		{"no response type", "organizations", []string{"response_type", ""}, "900144", false},
		{"id token", "organizations", []string{"response_type", "code id_token"}, "700054", false},
		{"unknown prompt", "organizations", []string{"prompt", "please"}, "90023", false},
		{"unknown response mode", "organizations", []string{"response_mode", "smoke"}, "90023", false},
		{"no scope", "organizations", []string{"scope", ""}, "900144", false},
		{"scope with a typo", "organizations", []string{"scope", "https://outlook.office.com/SMTP.Sned"}, "650053", false},
		{"unknown resource", "organizations", []string{"scope", "https://outlook.offce.com/SMTP.Send"}, "500011", false},
		{".default beside a name", "organizations", []string{"scope", "https://outlook.office.com/.default " + smtpSend}, "70011", false},
		{"short challenge", "organizations", []string{"code_challenge", "short"}, "50147", false},
		{"unknown method", "organizations", []string{"code_challenge_method", "S1"}, "501491", false},
		{"method without challenge", "organizations", []string{"code_challenge", ""}, "501491", false},
		{"SPA without PKCE", "organizations", []string{"redirect_uri", "https://spa.contoso.example/", "code_challenge", "", "code_challenge_method", ""}, "9002325", false},
	} {
		back, err := e.SignIn(e.ctx, e.authorizeURL(c.tenant, c.pairs...), sim.SignIn{Address: "kim@contoso.example"})
		var page *sim.PageError
		switch {
		case c.onPage && (!errors.As(err, &page) || !strings.Contains(page.Text, "AADSTS"+c.code+":")):
			t.Errorf("%s: got %v, %v, want a page with AADSTS%s", c.what, back, err, c.code)
		case !c.onPage && (err != nil || !strings.HasPrefix(back.Query().Get("error_description"), "AADSTS"+c.code+":") || back.Query().Get("state") != "a b"):
			t.Errorf("%s: got %v, %v, want AADSTS%s in the redirect", c.what, back, err, c.code)
		}
	}
}

func TestPrompts(t *testing.T) {
	e := start(t)
	silent := func(jar sim.SignIn, pairs ...string) string {
		q := e.signIn(jar, append(pairs, "prompt", "none")...)
		if q.Has("code") {
			return "code"
		}
		return q.Get("error")
	}
	who := sim.SignIn{Address: "kim@contoso.example", Jar: sim.NewJar()}
	if got := silent(who); got != "login_required" {
		t.Errorf("none without a session: got %s", got)
	}
	if q := e.signIn(who); !q.Has("code") {
		t.Fatalf("first sign-in: got %v", q)
	}
	if got := silent(who); got != "code" {
		t.Errorf("none with a session: got %s", got)
	}
	if got := silent(who, "login_hint", "alex@contoso.example"); got != "login_required" {
		t.Errorf("none for somebody else: got %s", got)
	}
	if got := silent(who, "scope", "openid Mail.ReadWrite"); got != "consent_required" {
		t.Errorf("none for more: got %s", got)
	}
	wrong := who
	wrong.Password = "not this"
	if q := e.signIn(wrong); !q.Has("code") {
		t.Errorf("with a session no password is asked: got %v", q)
	}
	var page *sim.PageError
	if _, err := e.SignIn(e.ctx, e.authorizeURL("organizations", "prompt", "login"), wrong); !errors.As(err, &page) || page.Page != "password" {
		t.Errorf("login asks for the password: got %v", err)
	}
	if q := e.signIn(sim.SignIn{Address: who.Address, Jar: who.Jar, Decline: true}); !q.Has("code") {
		t.Errorf("a consent is asked for once: got %v", q)
	}
	if q := e.signIn(sim.SignIn{Address: who.Address, Jar: who.Jar, Decline: true}, "prompt", "consent"); q.Get("error") != "access_denied" {
		t.Errorf("consent asks again: got %v", q)
	}
	sam := sim.SignIn{Address: "sam@contoso.example", Jar: who.Jar}
	back := e.signIn(sam, "prompt", "select_account")
	if got := claims(t, e.token("organizations", redemption(back.Get("code"))).text("id_token"))["preferred_username"]; got != sam.Address {
		t.Errorf("select_account: got %v", got)
	}
	back = e.signIn(sim.SignIn{Address: "nobody@contoso.example", Jar: who.Jar}, "login_hint", "kim@contoso.example")
	if got := claims(t, e.token("organizations", redemption(back.Get("code"))).text("id_token"))["preferred_username"]; got != "kim@contoso.example" {
		t.Errorf("login_hint chooses among the sessions: got %v", got)
	}
	hint := sim.SignIn{Address: "nobody@contoso.example", Password: sim.ContosoPassword}
	if q := e.signIn(hint, "login_hint", "kim@contoso.example"); !q.Has("code") {
		t.Errorf("login_hint fills in the address: got %v", q)
	}
}

func TestResponseModes(t *testing.T) {
	e := start(t)
	back, err := e.SignIn(e.ctx, e.authorizeURL("organizations", "response_mode", "fragment"), sim.SignIn{Address: "kim@contoso.example"})
	if err != nil || back.RawQuery != "" || !strings.Contains(back.Fragment, "code=") {
		t.Errorf("fragment: got %v, %v", back, err)
	}
	back, err = e.SignIn(e.ctx, e.authorizeURL("organizations", "response_mode", "form_post"), sim.SignIn{Address: "kim@contoso.example"})
	if err != nil || back.Query().Get("code") == "" || back.Query().Get("state") != "a b" {
		t.Errorf("form_post: got %v, %v", back, err)
	}
}

func TestPeopleWhoCannotSignIn(t *testing.T) {
	e := start(t)
	for _, c := range []struct {
		what   string
		change func(*sim.Tenant, *sim.User)
		who    sim.SignIn
		page   string
		text   string // of the page, or of the error in the redirect
	}{
		{"nobody", nil, sim.SignIn{Address: "nobody@contoso.example"}, "address", "We couldn't find an account"},
		{"personal account", nil, sim.SignIn{Address: "pat@outlook.example"}, "address", "personal account"},
		{"wrong password", nil, sim.SignIn{Address: "kim@contoso.example", Password: "x"}, "password", "incorrect"},
		{"denied in the authenticator", nil, sim.SignIn{Address: "alex@contoso.example", DeclineApproval: true}, "number", "denied"},
		{"declined", nil, sim.SignIn{Address: "kim@contoso.example", Decline: true}, "", "AADSTS65004"},
		{"disabled", func(_ *sim.Tenant, u *sim.User) { u.Disabled = true }, sim.SignIn{Address: "kim@contoso.example"}, "error", "AADSTS50057"},
		{"locked", func(_ *sim.Tenant, u *sim.User) { u.Locked = true }, sim.SignIn{Address: "kim@contoso.example"}, "error", "AADSTS50053"},
		{"password expired", func(_ *sim.Tenant, u *sim.User) { u.PasswordExpired = true }, sim.SignIn{Address: "kim@contoso.example"}, "error", "AADSTS50055"},
		{"blocked", func(t *sim.Tenant, _ *sim.User) { t.Rules = []sim.Rule{{Kind: sim.RuleBlock}} }, sim.SignIn{Address: "kim@contoso.example"}, "error", "AADSTS53003"},
		{"no device", func(t *sim.Tenant, _ *sim.User) { t.Rules = []sim.Rule{{Kind: sim.RuleCompliantDevice}} }, sim.SignIn{Address: "kim@contoso.example"}, "error", "AADSTS53000"},
		{"no Exchange", func(t *sim.Tenant, _ *sim.User) { t.NoExchange = true }, sim.SignIn{Address: "kim@contoso.example"}, "error", "AADSTS650052"},
		{"not assigned", func(t *sim.Tenant, _ *sim.User) {
			t.Enterprise = append(t.Enterprise, &sim.Enterprise{App: sim.ContosoClientID, ObjectID: "aaaaaaaa-0000-4000-8000-000000000001", AssignmentRequired: true})
		}, sim.SignIn{Address: "kim@contoso.example"}, "error", "AADSTS50105"},
		{"no user consent", func(t *sim.Tenant, _ *sim.User) { t.UserConsent = "none" }, sim.SignIn{Address: "kim@contoso.example"}, "", "AADSTS90094"},
		{"asks an administrator", func(t *sim.Tenant, _ *sim.User) { t.UserConsent, t.ConsentWorkflow = "none", true },
			sim.SignIn{Address: "kim@contoso.example", RequestApproval: true}, "", "AADSTS90095"},
	} {
		if err := e.World().Replace(sim.Contoso().State()); err != nil {
			t.Fatal(err)
		}
		if c.change != nil {
			e.World().Update(func(s *sim.State) error { c.change(s.Tenants[0], s.Tenants[0].Users[2]); return nil })
		}
		back, err := e.SignIn(e.ctx, e.authorizeURL("organizations"), c.who)
		var page *sim.PageError
		switch {
		case c.page != "" && (!errors.As(err, &page) || page.Page != c.page || !strings.Contains(page.Text, c.text)):
			t.Errorf("%s: got %v, %v, want %q at the page %s", c.what, back, err, c.text, c.page)
		case c.page == "" && (err != nil || !strings.HasPrefix(back.Query().Get("error_description"), c.text)):
			t.Errorf("%s: got %v, %v, want %s in the redirect", c.what, back, err, c.text)
		}
	}
}

func TestEnrolmentAndConsentForAll(t *testing.T) {
	e := start(t, contoso(func(t *sim.Tenant) { t.Rules = []sim.Rule{{Kind: sim.RuleRequireMFA}} }))
	e.signIn(sim.SignIn{Address: "kim@contoso.example"})
	if u, _ := e.World().User("kim@contoso.example"); !u.MFA {
		t.Error("the person has no authenticator after the enrolment")
	}
	e.signIn(sim.SignIn{Address: "admin@contoso.example", ForOrganization: true, StaySignedIn: true})
	if q := e.signIn(sim.SignIn{Address: "sam@contoso.example", Decline: true}); !q.Has("code") {
		t.Errorf("after the administrator nobody is asked: got %v", q)
	}
}

func TestRedemptionsThatAreWrong(t *testing.T) {
	e := start(t)
	jar := sim.NewJar()
	fresh := func(pairs ...string) string {
		return e.signIn(sim.SignIn{Address: "kim@contoso.example", Jar: jar}, pairs...).Get("code")
	}
	plain := []string{"code_challenge", verifier, "code_challenge_method", ""}
	if a := e.token("organizations", redemption(fresh(plain...))); a.status != 200 {
		t.Errorf("plain PKCE: got %d %s", a.status, a.body)
	}
	for _, c := range []struct {
		what, tenant string
		form         url.Values
		header       []string
		code, oauth  string
	}{
		{"no verifier", "organizations", redemption(fresh(), "code_verifier", ""), nil, "501481", "invalid_grant"},
		{"wrong verifier", "organizations", redemption(fresh(), "code_verifier", verifier+"x"), nil, "501481", "invalid_grant"},
		{"verifier without challenge", "organizations", redemption(fresh("code_challenge", "", "code_challenge_method", "")), nil, "501481", "invalid_grant"},
		{"other redirect", "organizations", redemption(fresh(), "redirect_uri", callback+"/2"), nil, "500112", "invalid_client"},
		{"other tenant", "fabrikam.example", redemption(fresh()), nil, "700005", "invalid_grant"},
		{"garbage", "organizations", redemption("garbage"), nil, "9002313", "invalid_request"},
		{"from a browser", "organizations", redemption(fresh()), []string{"Origin", "https://evil.example"}, "9002326", "invalid_request"},
		{"no secret", "organizations", redemption(fresh(), "client_secret", ""), nil, "7000218", "invalid_client"},
		{"wrong secret", "organizations", redemption(fresh(), "client_secret", "x"), nil, "7000215", "invalid_client"},
		{"no code", "organizations", redemption(""), nil, "900144", "invalid_request"},
		{"no client", "organizations", redemption(fresh(), "client_id", ""), nil, "900144", "invalid_request"},
		{"unknown grant", "organizations", redemption(fresh(), "grant_type", "wish"), nil, "70003", "unsupported_grant_type"},
		{"two resources", "organizations", redemption(fresh(), "scope", smtpSend+" https://graph.microsoft.com/Mail.Send"), nil, "700022", "invalid_request"},
	} {
		e.wantAADSTS(c.what, e.token(c.tenant, c.form, c.header...), c.code, c.oauth)
	}
	code := fresh()
	if a := e.token("organizations", redemption(code, "client_secret", sim.ContosoOddSecret)); a.status != 200 {
		t.Fatalf("a secret with odd characters: got %d %s", a.status, a.body)
	}
	e.wantAADSTS("second use", e.token("organizations", redemption(code)), "54005", "invalid_grant")
	code = fresh()
	e.Advance(11 * time.Minute)
	e.wantAADSTS("too late", e.token("organizations", redemption(code)), "70008", "invalid_grant")
	if a := e.do("GET", e.LoginURL()+"/organizations/oauth2/v2.0/token", "", nil); !strings.Contains(a.text("error_description"), "AADSTS900561") {
		t.Errorf("GET: got %s", a.body)
	}
}

func TestBasicClientAuthentication(t *testing.T) {
	e := start(t)
	code := e.signIn(sim.SignIn{Address: "kim@contoso.example"}).Get("code")
	basic := base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(sim.ContosoClientID) + ":" + url.QueryEscape(sim.ContosoOddSecret)))
	if a := e.token("organizations", redemption(code, "client_secret", ""), "Authorization", "Basic "+basic); a.status != 200 {
		t.Errorf("got %d %s", a.status, a.body)
	}
}

func TestRenewalsThatEnd(t *testing.T) {
	e := start(t)
	refresh := ""
	for _, c := range []struct {
		what   string
		change func()
		pairs  []string
		code   string
		oauth  string
	}{
		{"another app's token", nil, []string{"client_id", sim.FabrikamClientID, "client_secret", sim.FabrikamClientSecret}, "50194", "invalid_request"},
		{"garbage", nil, []string{"refresh_token", "1.Agarbage"}, "70000", "invalid_grant"},
		{"not consented", nil, []string{"scope", "https://graph.microsoft.com/Mail.ReadWrite"}, "65001", "invalid_grant"},
		{"revoked", func() { e.World().Revoke("kim@contoso.example", e.Now()) }, nil, "50173", "invalid_grant"},
		{"disabled", func() { e.World().ChangeUser("kim@contoso.example", func(u *sim.User) { u.Disabled = true }) }, nil, "50057", "invalid_grant"},
		{"deleted", func() { e.World().ChangeUser("kim@contoso.example", func(u *sim.User) { u.Deleted = true }) }, nil, "50034", "invalid_grant"},
		{"consent removed", func() { e.World().RemoveConsents("contoso.example", "", sim.ContosoClientID) }, nil, "65001", "invalid_grant"},
		{"MFA required now", func() {
			e.World().ChangeTenant("contoso.example", func(t *sim.Tenant) { t.Rules = []sim.Rule{{Kind: sim.RuleRequireMFA}} })
		}, nil, "50079", "interaction_required"},
		{"blocked", func() {
			e.World().ChangeTenant("contoso.example", func(t *sim.Tenant) { t.Rules = []sim.Rule{{Kind: sim.RuleBlock}} })
		}, nil, "53003", "invalid_grant"},
		{"secret expired", func() { e.World().ExpireSecret(sim.ContosoClientID, "", e.Now()) }, nil, "7000222", "invalid_client"},
		{"sign-in frequency", func() {
			e.World().ChangeTenant("contoso.example", func(t *sim.Tenant) {
				t.Rules = []sim.Rule{{Kind: sim.RuleFrequency, Frequency: sim.Duration(time.Hour)}}
			})
			e.Advance(2 * time.Hour)
		}, nil, "70043", "invalid_grant"},
		{"unused for 90 days", func() { e.Advance(91 * 24 * time.Hour) }, nil, "700082", "invalid_grant"},
	} {
		state := sim.Contoso().State()
		state.Seal = e.World().State().Seal
		if err := e.World().Replace(state); err != nil {
			t.Fatal(err)
		}
		refresh = e.tokens("kim@contoso.example").text("refresh_token")
		if c.change != nil {
			c.change()
		}
		a := e.token("organizations", renewal(refresh, c.pairs...))
		e.wantAADSTS(c.what, a, c.code, c.oauth)
		if c.code == "50173" && !strings.Contains(a.text("error_description"), "TokensValidFrom") {
			t.Errorf("50173: got %s", a.text("error_description"))
		}
		if c.code == "50079" && a.text("claims") == "" {
			t.Errorf("50079 comes with claims: got %s", a.body)
		}
	}
}

func TestStrictRotation(t *testing.T) {
	e := start(t, knobs(func(k *sim.Knobs) { k.RotateStrict = true }))
	first := e.tokens("kim@contoso.example").text("refresh_token")
	second := e.token("organizations", renewal(first)).text("refresh_token")
	e.wantAADSTS("the old one", e.token("organizations", renewal(first)), "50173", "invalid_grant")
	e.wantAADSTS("then the family is dead", e.token("organizations", renewal(second)), "50173", "invalid_grant")
}

// assertion signs a client assertion.
func assertion(t *testing.T, alg jose.SignatureAlgorithm, key crypto.PrivateKey, header map[jose.HeaderKey]any, c map[string]any) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, &jose.SignerOptions{ExtraHeaders: header})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := jwt.Signed(signer).Claims(c).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestClientCredentials(t *testing.T) {
	e := start(t)
	fed, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, _ := x509.MarshalPKIXPublicKey(fed.Public())
	fedPEM := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	e.World().ChangeApp(sim.ContosoSystemClientID, func(a *sim.App) {
		a.Federated = []sim.FederatedCredential{{Name: "ci", Issuer: "https://ci.example", Subject: "repo:mail", Keys: []string{fedPEM}}}
	})
	good, err := e.IssueCertificate(sim.ContosoCertificateClientID, 0)
	if err != nil {
		t.Fatal(err)
	}
	old, err := e.IssueCertificate(sim.ContosoCertificateClientID, -time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	keyOf := func(c *sim.IssuedCertificate) crypto.PrivateKey {
		block, _ := pem.Decode([]byte(c.KeyPEM))
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	own := func(pairs map[string]any) map[string]any {
		c := map[string]any{"iss": sim.ContosoCertificateClientID, "sub": sim.ContosoCertificateClientID, "jti": rand.Text(),
			"aud": e.LoginURL() + "/" + sim.ContosoTenantID + "/oauth2/v2.0/token", "nbf": e.Now().Unix(), "exp": e.Now().Add(5 * time.Minute).Unix()}
		for k, v := range pairs {
			c[k] = v
		}
		return c
	}
	byIssuer := func(pairs map[string]any) map[string]any {
		c := map[string]any{"iss": "https://ci.example", "sub": "repo:mail", "aud": "api://AzureADTokenExchange", "exp": e.Now().Add(5 * time.Minute).Unix()}
		for k, v := range pairs {
			c[k] = v
		}
		return c
	}
	goodKey := keyOf(good)
	form := func(id string, pairs ...string) url.Values {
		return with(url.Values{"grant_type": {"client_credentials"}, "client_id": {id}, "scope": {"https://outlook.office365.com/.default"}}, pairs...)
	}
	asserted := func(id, jwt string) url.Values {
		return form(id, "client_assertion", jwt, "client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
	}
	cert := func(alg jose.SignatureAlgorithm, key crypto.PrivateKey, header map[jose.HeaderKey]any, pairs map[string]any) url.Values {
		return asserted(sim.ContosoCertificateClientID, assertion(t, alg, key, header, own(pairs)))
	}
	x5t256, x5t := map[jose.HeaderKey]any{"x5t#S256": good.X5TS256}, map[jose.HeaderKey]any{"x5t": good.X5T}
	for _, c := range []struct {
		what        string
		tenant      string
		form        url.Values
		code, oauth string
	}{
		{"secret", "contoso.example", form(sim.ContosoSystemClientID, "client_secret", sim.ContosoSystemClientSecret), "", ""},
		{"PS256", sim.ContosoTenantID, cert(jose.PS256, goodKey, x5t256, nil), "", ""},
		{"RS256 with SHA-1", sim.ContosoTenantID, cert(jose.RS256, goodKey, x5t, nil), "", ""},
		{"federated", "contoso.example", asserted(sim.ContosoSystemClientID, assertion(t, jose.ES256, fed, nil, byIssuer(nil))), "", ""},
		{"no proof", "contoso.example", form(sim.ContosoSystemClientID), "7000216", "invalid_client"},
		{"common", "common", form(sim.ContosoClientID, "client_secret", sim.ContosoClientSecret), "9001023", "invalid_request"},
		{"no scope", "contoso.example", form(sim.ContosoSystemClientID, "client_secret", sim.ContosoSystemClientSecret, "scope", ""), "90014", "invalid_request"},
		{"no .default", "contoso.example", form(sim.ContosoSystemClientID, "client_secret", sim.ContosoSystemClientSecret, "scope", smtpSend), "1002012", "invalid_scope"},
		{"unknown resource", "contoso.example", form(sim.ContosoSystemClientID, "client_secret", sim.ContosoSystemClientSecret, "scope", "https://outlook.offce365.com/.default"), "500011", "invalid_resource"},
		{"unknown key", sim.ContosoTenantID, cert(jose.PS256, goodKey, map[jose.HeaderKey]any{"x5t#S256": "unknown"}, nil), "700027", "invalid_client"},
		{"wrong signature", sim.ContosoTenantID, cert(jose.PS256, keyOf(old), x5t256, nil), "700027", "invalid_client"},
		{"expired certificate", sim.ContosoTenantID, cert(jose.PS256, keyOf(old), map[jose.HeaderKey]any{"x5t#S256": old.X5TS256}, nil), "700027", "invalid_client"},
		{"wrong audience", sim.ContosoTenantID, cert(jose.PS256, goodKey, x5t256, map[string]any{"aud": "https://elsewhere.example"}), "700023", "invalid_client"},
		{"expired assertion", sim.ContosoTenantID, cert(jose.PS256, goodKey, x5t256, map[string]any{"exp": e.Now().Add(-time.Hour).Unix()}), "700024", "invalid_client"},
		{"wrong subject", sim.ContosoTenantID, cert(jose.PS256, goodKey, x5t256, map[string]any{"sub": "somebody"}), "700021", "invalid_client"},
		{"not a JWT", sim.ContosoTenantID, asserted(sim.ContosoCertificateClientID, "x.y"), "50027", "invalid_client"},
		{"federated, other subject", "contoso.example", asserted(sim.ContosoSystemClientID, assertion(t, jose.ES256, fed, nil, byIssuer(map[string]any{"sub": "x"}))), "700213", "invalid_client"},
		{"federated, other issuer", "contoso.example", asserted(sim.ContosoSystemClientID, assertion(t, jose.ES256, fed, nil, byIssuer(map[string]any{"iss": "https://x.example"}))), "700211", "invalid_client"},
	} {
		a := e.token(c.tenant, c.form)
		if c.code != "" {
			e.wantAADSTS(c.what, a, c.code, c.oauth)
			continue
		}
		if a.status != 200 || a.text("refresh_token")+a.text("id_token") != "" {
			t.Errorf("%s: got %d %s", c.what, a.status, a.body)
			continue
		}
		if got := claims(t, a.text("access_token")); got["idtyp"] != "app" || !slices.Contains(got["roles"].([]any), any("SMTP.SendAsApp")) {
			t.Errorf("%s: got %v", c.what, got)
		}
	}
}

func TestDeviceCode(t *testing.T) {
	e := start(t, knobs(func(k *sim.Knobs) { k.SlowDown = true }))
	begin := func() *answer {
		return e.do("POST", e.LoginURL()+"/organizations/oauth2/v2.0/devicecode", "application/x-www-form-urlencoded",
			[]byte(url.Values{"client_id": {sim.ContosoDeviceClientID}, "scope": {"openid offline_access " + smtpSend}}.Encode()))
	}
	poll := func(code string) *answer {
		return e.token("organizations", url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "client_id": {sim.ContosoDeviceClientID}, "device_code": {code}})
	}
	page := func(a *answer) string { return a.text("verification_uri") + "?user_code=" + a.text("user_code") }
	a := begin()
	if a.doc["interval"] != 5.0 || a.doc["expires_in"] != 900.0 || !strings.Contains(a.text("message"), a.text("user_code")) {
		t.Fatalf("got %s", a.body)
	}
	e.wantAADSTS("pending", poll(a.text("device_code")), "70016", "authorization_pending")
	e.wantAADSTS("too early", poll(a.text("device_code")), "70016", "slow_down")
	if back, err := e.SignIn(e.ctx, page(a), sim.SignIn{Address: "alex@contoso.example"}); err != nil || back != nil {
		t.Fatalf("got %v, %v", back, err)
	}
	if got := poll(a.text("device_code")); got.status != 200 || got.text("refresh_token") == "" {
		t.Errorf("approved: got %d %s", got.status, got.body)
	}
	e.wantAADSTS("twice", poll(a.text("device_code")), "54005", "invalid_grant")
	a = begin()
	e.SignIn(e.ctx, page(a), sim.SignIn{Address: "kim@contoso.example", Decline: true})
	e.wantAADSTS("declined", poll(a.text("device_code")), "65004", "authorization_declined")
	a = begin()
	e.Advance(16 * time.Minute)
	e.wantAADSTS("expired", poll(a.text("device_code")), "70019", "expired_token")
	e.wantAADSTS("unknown", poll("x"), "70018", "bad_verification_code")
	var stopped *sim.PageError
	if _, err := e.SignIn(e.ctx, page(a), sim.SignIn{Address: "kim@contoso.example"}); !errors.As(err, &stopped) || !strings.Contains(stopped.Text, "didn't work") {
		t.Errorf("a dead code on the page: got %v", err)
	}
}

func TestAdminConsent(t *testing.T) {
	e := start(t)
	at := func(path, scope string) string {
		return e.LoginURL() + path + "?" + url.Values{"client_id": {sim.ContosoClientID}, "redirect_uri": {callback}, "state": {"s1"}, "scope": {scope}}.Encode()
	}
	admin := sim.SignIn{Address: "admin@contoso.example"}
	back, err := e.SignIn(e.ctx, at("/organizations/v2.0/adminconsent", "https://outlook.office.com/.default"), admin)
	if err != nil || back.Query().Get("admin_consent") != "True" || back.Query().Get("tenant") != sim.ContosoTenantID || back.Query().Get("state") != "s1" {
		t.Fatalf("got %v, %v", back, err)
	}
	if q := e.signIn(sim.SignIn{Address: "kim@contoso.example", Decline: true}, "scope", smtpSend); !q.Has("code") {
		t.Errorf("afterwards nobody is asked: got %v", q)
	}
	admin.Decline = true
	back, err = e.SignIn(e.ctx, at("/organizations/v2.0/adminconsent", "https://graph.microsoft.com/.default"), admin)
	if err != nil || back.Query().Get("error") != "consent_required" || back.Query().Get("admin_consent") != "True" || !strings.HasPrefix(back.Query().Get("error_description"), "AADSTS65004:") {
		t.Errorf("declined: got %v, %v", back, err)
	}
	back, err = e.SignIn(e.ctx, at("/contoso.example/adminconsent", ""), admin)
	if err != nil || back.Query().Get("error") != "permission_denied" {
		t.Errorf("declined in version 1: got %v, %v", back, err)
	}
	back, err = e.SignIn(e.ctx, at("/organizations/v2.0/adminconsent", "https://graph.microsoft.com/.default"), sim.SignIn{Address: "kim@contoso.example"})
	if err != nil || back.Query().Get("error") == "" {
		t.Errorf("not an administrator: got %v, %v", back, err)
	}
	var page *sim.PageError
	if _, err = e.SignIn(e.ctx, at("/common/v2.0/adminconsent", "https://graph.microsoft.com/.default"), admin); !errors.As(err, &page) || !strings.Contains(page.Text, "AADSTS9001023") {
		t.Errorf("common: got %v", err)
	}
}

func TestLogout(t *testing.T) {
	e := start(t)
	e.World().ChangeApp(sim.ContosoClientID, func(a *sim.App) { a.LogoutURL = "https://app.example/frontchannel" })
	jar := sim.NewJar()
	who := sim.SignIn{Address: "kim@contoso.example", Jar: jar}
	back := e.signIn(who)
	hint := claims(t, e.token("organizations", redemption(back.Get("code"))).text("id_token"))
	e.client.Jar = jar
	a := e.get(e.LoginURL() + "/organizations/oauth2/v2.0/logout?" + url.Values{"logout_hint": {hint["login_hint"].(string)}, "post_logout_redirect_uri": {callback}}.Encode())
	if a.status != 200 || !strings.Contains(string(a.body), "https://app.example/frontchannel?sid="+hint["sid"].(string)) || strings.Contains(string(a.body), "iss=") {
		t.Errorf("got %d %s, want a front-channel logout with sid and without iss", a.status, a.body)
	}
	if q := e.signIn(who, "prompt", "none"); q.Get("error") != "login_required" {
		t.Errorf("after the logout: got %v", q)
	}
	e.signIn(who)
	e.World().ChangeApp(sim.ContosoClientID, func(a *sim.App) { a.LogoutURL = "" })
	a = e.get(e.LoginURL() + "/organizations/oauth2/v2.0/logout?" + url.Values{"post_logout_redirect_uri": {callback}, "state": {"x"}}.Encode())
	if a.status != 303 || a.header.Get("Location") != callback+"?state=x" {
		t.Errorf("got %d to %s", a.status, a.header.Get("Location"))
	}
	a = e.get(e.LoginURL() + "/organizations/oauth2/v2.0/logout?" + url.Values{"post_logout_redirect_uri": {"https://evil.example/"}}.Encode())
	if a.status != 200 || strings.Contains(string(a.body), "evil.example") {
		t.Errorf("an unregistered address: got %d %s", a.status, a.body)
	}
}

func TestTamperedIDTokens(t *testing.T) {
	e := start(t)
	for _, how := range []string{"iss", "aud", "tid", "oid", "nonce", "exp", "sub", "sig", "kid", "alg-hs256", "alg-none"} {
		e.World().ChangeKnobs(func(k *sim.Knobs) { k.TamperIDToken = how })
		token := e.tokens("kim@contoso.example").text("id_token")
		parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.RS256})
		good := false
		if err == nil {
			var c map[string]any
			key := e.keySet()[parsed.Headers[0].KeyID]
			good = key != nil && parsed.Claims(key, &c) == nil && c["iss"] == e.LoginURL()+"/"+sim.ContosoTenantID+"/v2.0" && c["aud"] == sim.ContosoClientID &&
				c["tid"] == sim.ContosoTenantID && c["nonce"] == "n1" && c["sub"] != nil && c["exp"].(float64) > float64(e.Now().Unix()) && c["oid"] == "a0f1c2d3-0003-4a5b-8c6d-7e8f90a1b2c3"
		}
		if good {
			t.Errorf("%s: the token is good", how)
		}
	}
}
