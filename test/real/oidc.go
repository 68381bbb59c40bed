package real

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"html"
	"io"
	"maps"
	"math/big"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// The people of the provider, where OIDCOptions name no others.
const (
	Alex     = "alex@real.example"
	Robin    = "robin@real.example"
	System   = "system@real.example" // whom the app's own tokens speak for
	Password = "correct horse"
)

// OIDCOptions say what differs from a provider with two people and an app.
type OIDCOptions struct {
	RedirectURIs    []string          // besides OIDC.Callback
	Users           map[string]string // address: password; nil: Alex and Robin
	Scopes          []string          // of the resource; nil: mail.send and mail.read
	AppMailbox      string            // the mailbox of client credentials; "": System
	AuthMethod      string            // client_secret_basic (default), client_secret_post
	TokenSeconds    int               // life of an access token; 0: an hour
	RefreshSeconds  int               // life of a refresh token; 0: a day
	OpaqueTokens    bool              // no JWTs: only introspection can tell what they are
	Port            int               // 0: a free one
	NoExtraCallback bool              // do not register OIDC.Callback
}

// OIDC is npm's oidc-provider, certified by the OpenID foundation: code with
// PKCE, which it insists on; refresh tokens (scope offline_access together with
// prompt=consent) that rotate, and end the grant when an old one comes again;
// client credentials; access tokens that are JWTs for one resource.
type OIDC struct {
	Issuer string // discovery lies under it
	CAFile string
	Client *http.Client // trusts it; follows no redirect

	ClientID, ClientSecret       string // of people: code and refresh
	AppClientID, AppClientSecret string // of the app alone: client credentials
	Callback                     string // a registered redirect URI that nobody serves
	Resource                     string // the audience of access tokens
	Scopes                       []string
	Users                        map[string]string
	KeyID                        string
	PublicKey                    *rsa.PublicKey // that access tokens are signed with

	opaque  bool
	control string
	log     log
}

// NewOIDC starts the provider and ends it with the test.
func NewOIDC(t testing.TB, o OIDCOptions) *OIDC {
	t.Helper()
	dir, node, cert := nodeDir(t), program(t, "node"), certificates(t)
	p := &OIDC{CAFile: cert.certFile, Client: Client(t),
		ClientID: "mailgrant", ClientSecret: "s3cret:+%/of-people",
		AppClientID: "mailgrant-app", AppClientSecret: "s3cret:+%/of-the-app",
		Callback: "https://client.example/callback", Resource: "https://mail.real.example", Scopes: o.Scopes,
		Users: o.Users, KeyID: "key-1", opaque: o.OpaqueTokens}
	if p.Users == nil {
		p.Users = map[string]string{Alex: Password, Robin: Password}
	}
	if p.Scopes == nil {
		p.Scopes = []string{"mail.send", "mail.read"}
	}
	redirects := o.RedirectURIs
	if !o.NoExtraCallback {
		redirects = append([]string{p.Callback}, redirects...)
	}
	users := map[string]string{}
	for a, pass := range p.Users {
		users[strings.ToLower(a)] = pass
	}
	settings, err := json.Marshal(map[string]any{
		"cert": cert.leafFile, "key": cert.keyFile, "port": o.Port, "users": users, "scopes": p.Scopes, "resource": p.Resource,
		"client_id": p.ClientID, "client_secret": p.ClientSecret, "app_client_id": p.AppClientID, "app_client_secret": p.AppClientSecret,
		"redirect_uris": redirects, "auth_method": or(o.AuthMethod, "client_secret_basic"), "app_mailbox": or(o.AppMailbox, System),
		"token_seconds": orInt(o.TokenSeconds, 3600), "refresh_seconds": orInt(o.RefreshSeconds, 86400), "key_id": p.KeyID, "opaque": o.OpaqueTokens,
	})
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(node, "oidc.mjs")
	c.Dir, c.Stderr = dir, &p.log
	c.Env = append(c.Environ(), "SETTINGS="+string(settings), "NODE_ENV=production", "NODE_NO_WARNINGS=1")
	stdin, err1 := c.StdinPipe() // when we end, so does it
	stdout, err2 := c.StdoutPipe()
	if err := errors.Join(err1, err2, c.Start()); err != nil {
		t.Fatalf("oidc-provider: %v", err)
	}
	var told struct {
		Issuer    string                `json:"issuer"`
		Control   string                `json:"control"`
		PublicKey struct{ N, E string } `json:"public_key"`
	}
	line, err := firstJSON(stdout, &p.log)
	if err == nil {
		err = json.Unmarshal(line, &told)
	}
	drained := make(chan struct{})
	go func() { io.Copy(&p.log, stdout); close(drained) }()
	t.Cleanup(func() {
		stdin.Close()
		<-drained
		c.Wait()
		if t.Failed() && len(p.log.String()) > 0 {
			t.Logf("oidc-provider said:\n%s", tail(p.log.String()))
		}
	})
	if err != nil {
		t.Fatalf("oidc-provider did not start: %v", err)
	}
	p.Issuer, p.control = told.Issuer, told.Control
	n, err1 := base64.RawURLEncoding.DecodeString(told.PublicKey.N)
	e, err2 := base64.RawURLEncoding.DecodeString(told.PublicKey.E)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatalf("oidc-provider's key: %v", err)
	}
	p.PublicKey = &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}
	return p
}

// firstJSON returns the first line that is an object; notices before it are
// kept in the log.
func firstJSON(r io.Reader, rest io.Writer) ([]byte, error) {
	// One byte at a time, so that nothing behind the line is read ahead.
	for {
		var line []byte
		var b [1]byte
		for {
			if _, err := io.ReadFull(r, b[:]); err != nil {
				return nil, err
			}
			if b[0] == '\n' {
				break
			}
			line = append(line, b[0])
		}
		if strings.HasPrefix(string(line), "{") {
			return line, nil
		}
		rest.Write(append(line, '\n'))
	}
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func orInt(n, otherwise int) int {
	if n == 0 {
		return otherwise
	}
	return n
}

// Host is the host:port of the issuer.
func (p *OIDC) Host() string { return strings.TrimPrefix(p.Issuer, "https://") }

// PublicKeyPEM is the key that access tokens are signed with.
func (p *OIDC) PublicKeyPEM() ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(p.PublicKey)
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), err
}

// Counts are what the provider was asked for so far.
type Counts struct {
	Token         map[string]int `json:"token"`        // tokens given, by grant_type
	TokenErrors   map[string]int `json:"token_errors"` // refused, by error
	Authorize     int            `json:"authorize"`
	Keys          int            `json:"keys"`
	Introspection int            `json:"introspection"`
}

// Counts asks for the counts.
func (p *OIDC) Counts(t testing.TB) (c Counts) {
	t.Helper()
	res, err := p.Client.Get(p.control)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&c); err != nil {
		t.Fatal(err)
	}
	return c
}

// A Login is what a person does on the provider's pages.
type Login struct {
	Address, Password string
	Deny              bool // press Deny instead of Allow
}

// ErrPage is a page of the provider that says why it cannot go on.
var ErrPage = errors.New("the provider shows an error page")

var (
	formAction = regexp.MustCompile(`<form method="post" action="([^"]+)"`)
	errorText  = regexp.MustCompile(`<p (?:id="error"|role="alert")>([^<]*)</p>`)
)

// Consent walks the provider's pages as a person would, from the authorize
// address to the callback address that the browser would open next. A refusal
// of the provider that it sends back to the client is in that address too.
func (p *OIDC) Consent(ctx context.Context, authorizeURL string, l Login) (callbackURL string, err error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return "", err
	}
	browser := *p.Client
	browser.Jar = jar
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, authorizeURL, nil)
	for range 20 {
		if err != nil {
			return "", err
		}
		body, next, fail := step(&browser, req)
		switch {
		case fail != nil:
			return "", fail
		case next != nil && next.Host != p.Host():
			return next.String(), nil
		case next != nil:
			req, err = http.NewRequestWithContext(ctx, http.MethodGet, next.String(), nil)
		default:
			req, err = submit(ctx, req.URL, body, l)
		}
	}
	return "", fmt.Errorf("the provider's pages go round in circles at %s", req.URL)
}

// step makes one request: a page, or the next address.
func step(browser *http.Client, req *http.Request) (body string, next *url.URL, err error) {
	res, err := browser.Do(req)
	if err != nil {
		return "", nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return "", nil, err
	}
	if to := res.Header.Get("Location"); res.StatusCode/100 == 3 && to != "" {
		next, err := req.URL.Parse(to)
		return "", next, err
	}
	if m := errorText.FindSubmatch(b); m != nil {
		return "", nil, fmt.Errorf("%w: %s", ErrPage, html.UnescapeString(string(m[1])))
	}
	if res.StatusCode != http.StatusOK {
		return "", nil, fmt.Errorf("%s answered %s: %.200s", req.URL, res.Status, b)
	}
	return string(b), nil, nil
}

// submit fills the one form of a page.
func submit(ctx context.Context, at *url.URL, page string, l Login) (*http.Request, error) {
	m := formAction.FindStringSubmatch(page)
	if m == nil {
		return nil, fmt.Errorf("no form on %s: %.300s", at, page)
	}
	to, err := at.Parse(html.UnescapeString(m[1]))
	if err != nil {
		return nil, err
	}
	form := url.Values{"do": {"consent"}}
	if strings.Contains(page, `name="password"`) {
		form = url.Values{"do": {"login"}, "address": {l.Address}, "password": {l.Password}}
	} else if l.Deny {
		form.Set("do", "deny")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.String(), strings.NewReader(form.Encode()))
	if err == nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return req, err
}

// Tokens are an answer of the token endpoint.
type Tokens struct {
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
	IDToken      string `json:"id_token"`
	Scope        string `json:"scope"`
	ExpiresIn    int    `json:"expires_in"`
	TokenType    string `json:"token_type"`
}

// A TokenError is a refusal of the token endpoint.
type TokenError struct {
	Status      int
	Code        string `json:"error"`
	Description string `json:"error_description"`
}

func (e *TokenError) Error() string {
	return fmt.Sprintf("%d %s: %s", e.Status, e.Code, e.Description)
}

// SignIn takes one person through a whole consent, without the program under
// test: what a test needs when it only wants a token.
func (p *OIDC) SignIn(ctx context.Context, l Login) (Tokens, error) {
	verifier := rand.Text() + rand.Text() // 52 characters; 43 are the least
	sum := sha256.Sum256([]byte(verifier))
	to, err := p.Consent(ctx, p.Issuer+"/auth?"+url.Values{
		"client_id": {p.ClientID}, "response_type": {"code"}, "redirect_uri": {p.Callback}, "state": {rand.Text()}, "prompt": {"consent"},
		"scope":          {strings.Join(append([]string{"openid", "email", "offline_access"}, p.Scopes...), " ")},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"}, "resource": {p.Resource}}.Encode(), l)
	if err != nil {
		return Tokens{}, err
	}
	back, err := url.Parse(to)
	if err != nil {
		return Tokens{}, err
	}
	if e := back.Query().Get("error"); e != "" {
		return Tokens{}, fmt.Errorf("refused: %s: %s", e, back.Query().Get("error_description"))
	}
	return p.token(ctx, p.ClientID, p.ClientSecret, url.Values{"grant_type": {"authorization_code"}, "code": {back.Query().Get("code")},
		"redirect_uri": {p.Callback}, "code_verifier": {verifier}})
}

// Refresh uses a refresh token.
func (p *OIDC) Refresh(ctx context.Context, refreshToken string) (Tokens, error) {
	return p.token(ctx, p.ClientID, p.ClientSecret, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refreshToken}})
}

// AppToken is a token of the app itself, by client credentials.
func (p *OIDC) AppToken(ctx context.Context) (Tokens, error) {
	return p.token(ctx, p.AppClientID, p.AppClientSecret, url.Values{"grant_type": {"client_credentials"},
		"scope": {strings.Join(p.Scopes, " ")}, "resource": {p.Resource}})
}

// Revoke takes a token back, and with a refresh token the whole grant.
func (p *OIDC) Revoke(ctx context.Context, token string) error {
	return p.post(ctx, "/token/revocation", p.ClientID, p.ClientSecret, url.Values{"token": {token}}, nil)
}

func (p *OIDC) token(ctx context.Context, id, secret string, form url.Values) (out Tokens, err error) {
	return out, p.post(ctx, "/token", id, secret, form, &out)
}

func (p *OIDC) post(ctx context.Context, path, id, secret string, form url.Values, into any) error {
	form = maps.Clone(form)
	form.Set("client_id", id)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.Issuer+path, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(url.QueryEscape(id), url.QueryEscape(secret)) // RFC 6749 section 2.3.1
	res, err := p.Client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		e := &TokenError{Status: res.StatusCode}
		if json.Unmarshal(body, e) != nil {
			e.Description = string(body)
		}
		return e
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(body, into)
}
