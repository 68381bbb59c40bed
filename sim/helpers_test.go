package sim_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mailgrant/mailgrant/sim"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// An env is a sim and a client that trusts it and follows no redirect.
type env struct {
	*testing.T
	*sim.Sim
	client *http.Client
	ctx    context.Context
}

func start(t *testing.T, change ...func(*sim.State)) *env {
	t.Helper()
	world := sim.Contoso()
	if err := world.Update(func(s *sim.State) error {
		for _, f := range change {
			f(s)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return startWith(t, sim.Config{World: world})
}

func startWith(t *testing.T, c sim.Config) *env {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	s, err := sim.Start(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.CertPool()}}
	e := &env{T: t, Sim: s, ctx: ctx, client: &http.Client{Transport: transport, Timeout: 30 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		cancel()
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return e
}

// knobs is a change of knobs for start.
func knobs(f func(*sim.Knobs)) func(*sim.State) { return func(s *sim.State) { f(&s.Knobs) } }

// contoso is a change of the first tenant for start.
func contoso(f func(*sim.Tenant)) func(*sim.State) { return func(s *sim.State) { f(s.Tenants[0]) } }

type answer struct {
	status int
	header http.Header
	body   []byte
	doc    map[string]any
}

func (a *answer) text(name string) string { s, _ := a.doc[name].(string); return s }

// code is the code of an error of Graph.
func (a *answer) code() string {
	e, _ := a.doc["error"].(map[string]any)
	s, _ := e["code"].(string)
	return s
}

func (e *env) do(method, at, kind string, body []byte, header ...string) *answer {
	e.Helper()
	a, err := e.try(method, at, kind, body, header...)
	if err != nil {
		e.Fatal(err)
	}
	return a
}

func (e *env) try(method, at, kind string, body []byte, header ...string) (*answer, error) {
	req, err := http.NewRequestWithContext(e.ctx, method, at, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
		req.Header.Set(header[i], header[i+1])
	}
	res, err := e.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	a := &answer{status: res.StatusCode, header: res.Header}
	if a.body, err = io.ReadAll(res.Body); err != nil {
		return nil, err
	}
	json.Unmarshal(a.body, &a.doc)
	return a, nil
}

func (e *env) get(at string, header ...string) *answer {
	e.Helper()
	return e.do("GET", at, "", nil, header...)
}

const (
	callback = "http://localhost:8765/callback"
	verifier = "a-verifier-that-is-long-enough-for-the-standard-0123456789"
	smtpSend = "https://outlook.office.com/SMTP.Send"
)

func s256(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// with puts pairs over a form; an empty value takes one away.
func with(form url.Values, pairs ...string) url.Values {
	form = maps.Clone(form)
	for i := 0; i+1 < len(pairs); i += 2 {
		if form.Set(pairs[i], pairs[i+1]); pairs[i+1] == "" {
			form.Del(pairs[i])
		}
	}
	return form
}

func request(pairs ...string) url.Values {
	return with(url.Values{"client_id": {sim.ContosoClientID}, "response_type": {"code"}, "redirect_uri": {callback},
		"scope": {"openid profile email offline_access " + smtpSend}, "state": {"a b"}, "nonce": {"n1"},
		"code_challenge": {s256(verifier)}, "code_challenge_method": {"S256"}}, pairs...)
}

func (e *env) authorizeURL(tenant string, pairs ...string) string {
	return e.LoginURL() + "/" + tenant + "/oauth2/v2.0/authorize?" + request(pairs...).Encode()
}

// signIn goes through the pages and returns the query of the redirect.
func (e *env) signIn(who sim.SignIn, pairs ...string) url.Values {
	e.Helper()
	back, err := e.SignIn(e.ctx, e.authorizeURL("organizations", pairs...), who)
	if err != nil {
		e.Fatal(err)
	}
	return back.Query()
}

// token calls the token endpoint.
func (e *env) token(tenant string, form url.Values, header ...string) *answer {
	e.Helper()
	return e.do("POST", e.LoginURL()+"/"+tenant+"/oauth2/v2.0/token", "application/x-www-form-urlencoded", []byte(form.Encode()), header...)
}

func redemption(code string, pairs ...string) url.Values {
	return with(url.Values{"grant_type": {"authorization_code"}, "client_id": {sim.ContosoClientID}, "client_secret": {sim.ContosoClientSecret},
		"code": {code}, "redirect_uri": {callback}, "code_verifier": {verifier}}, pairs...)
}

func renewal(refresh string, pairs ...string) url.Values {
	return with(url.Values{"grant_type": {"refresh_token"}, "client_id": {sim.ContosoClientID}, "client_secret": {sim.ContosoClientSecret},
		"refresh_token": {refresh}}, pairs...)
}

// tokens signs a person in and redeems the code for a token of a resource.
func (e *env) tokens(address string, scopes ...string) *answer {
	e.Helper()
	scope := "openid profile email offline_access " + cmp.Or(strings.Join(scopes, " "), smtpSend)
	back := e.signIn(sim.SignIn{Address: address}, "scope", scope)
	a := e.token("organizations", redemption(back.Get("code"), "scope", scope))
	if a.status != http.StatusOK {
		e.Fatalf("tokens of %s: got %d %s after %v", address, a.status, a.body, back)
	}
	return a
}

func (e *env) userToken(address string, scopes ...string) string {
	e.Helper()
	return e.tokens(address, scopes...).text("access_token")
}

func (e *env) appToken(resource string) string {
	e.Helper()
	a := e.token("contoso.example", url.Values{"grant_type": {"client_credentials"}, "client_id": {sim.ContosoSystemClientID},
		"client_secret": {sim.ContosoSystemClientSecret}, "scope": {resource + "/.default"}})
	if a.status != http.StatusOK {
		e.Fatalf("token of the app: got %d %s", a.status, a.body)
	}
	return a.text("access_token")
}

// claims reads a token without checking it.
func claims(t *testing.T, token string) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("%q is no JWT", token)
	}
	plain, err := base64.RawURLEncoding.DecodeString(parts[1])
	var c map[string]any
	if err != nil || json.Unmarshal(plain, &c) != nil {
		t.Fatalf("%q is no JWT: %v", token, err)
	}
	return c
}

// wantAADSTS checks the error of the token endpoint.
func (e *env) wantAADSTS(what string, a *answer, code, oauth string) {
	e.Helper()
	if a.status < 400 || a.text("error") != oauth || !strings.HasPrefix(a.text("error_description"), "AADSTS"+code+": ") {
		e.Errorf("%s: got %d %s %.300q, want %s AADSTS%s", what, a.status, a.text("error"), a.text("error_description"), oauth, code)
	}
}
