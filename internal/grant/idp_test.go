package grant_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"time"
)

// An idp is a provider in memory: discovery, code with PKCE, refresh tokens that
// rotate and end the whole family when an old one comes again, client
// credentials, device code, revocation. Tests bend it.
type idp struct {
	base string

	mu       sync.Mutex
	codes    map[string]*family // by code
	refresh  map[string]*family // by refresh token
	families int
	made     int
	counts   map[string]int // of requests, by grant type or path
	revoked  []string
	forms    []url.Values
	ahead    time.Duration // of its clock
	device   string        // how the device code stands: "" waits, "ok", or an error

	keep    bool                                              // no new refresh token: Google's way
	old     bool                                              // old refresh tokens go on: Microsoft's way
	secrets map[string]bool                                   // that are taken; nil: all
	claims  map[string]any                                    // over those of every ID token
	scope   *string                                           // told as granted; nil: not told
	life    int                                               // seconds of an access token; 0: an hour
	fault   func(w http.ResponseWriter, r *http.Request) bool // answers instead
	answer  func(m map[string]any)                            // changes a good token answer
}

// A family is what one consent has brought.
type family struct {
	who       string
	challenge string
	redirect  string
	nonce     string
	current   string
	dead      bool
}

func newIDP() *idp {
	return &idp{base: "https://idp.example", codes: map[string]*family{}, refresh: map[string]*family{}, counts: map[string]int{}}
}

var idpKey = sync.OnceValue(func() *rsa.PrivateKey { k, _ := rsa.GenerateKey(rand.Reader, 2048); return k })

// RoundTrip answers without a network.
func (p *idp) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	w := httptest.NewRecorder()
	w.Body.Reset()
	func() {
		defer func() {
			if e := recover(); e != nil && e != http.ErrAbortHandler {
				panic(e)
			} else if e != nil {
				w = nil
			}
		}()
		p.ServeHTTP(w, r)
	}()
	if w == nil {
		return nil, fmt.Errorf("the connection was reset")
	}
	res := w.Result()
	res.Request = r
	return res, r.Context().Err()
}

func (p *idp) client() *http.Client { return &http.Client{Transport: p} }

func (p *idp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.ParseForm()
	kind := r.URL.Path
	if g := r.PostForm.Get("grant_type"); g != "" {
		kind = g
	}
	p.mu.Lock()
	p.counts[kind]++
	p.forms = append(p.forms, r.PostForm)
	fault := p.fault
	p.mu.Unlock()
	if fault != nil && fault(w, r) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	switch kind {
	case "/.well-known/openid-configuration":
		json.NewEncoder(w).Encode(map[string]any{"issuer": p.base, "authorization_endpoint": p.base + "/authorize", "token_endpoint": p.base + "/token", "jwks_uri": p.base + "/keys",
			"revocation_endpoint": p.base + "/revoke", "device_authorization_endpoint": p.base + "/device", "scopes_supported": []string{"openid", "email", "offline_access", "mail"},
			"token_endpoint_auth_methods_supported": []string{"client_secret_post"}, "authorization_response_iss_parameter_supported": true})
	case "/keys":
		n, e := idpKey().N, big.NewInt(int64(idpKey().E))
		json.NewEncoder(w).Encode(map[string]any{"keys": []any{map[string]string{"kty": "RSA", "kid": "k1", "use": "sig", "n": b64(n.Bytes()), "e": b64(e.Bytes())}}})
	case "/revoke":
		token := r.PostForm.Get("token")
		p.revoked = append(p.revoked, token)
		if f := p.refresh[token]; f != nil {
			f.dead = true
		}
	case "/device":
		json.NewEncoder(w).Encode(map[string]any{"device_code": "dev-1", "user_code": "ABC-DEF", "verification_uri": p.base + "/activate", "expires_in": 900, "interval": 5})
	default:
		p.token(w, r)
	}
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func fail(w http.ResponseWriter, status int, code string) {
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"error":%q}`, code)
}

func (p *idp) token(w http.ResponseWriter, r *http.Request) {
	q := r.PostForm
	if p.secrets != nil && !p.secrets[q.Get("client_secret")] {
		fail(w, 401, "invalid_client")
		return
	}
	switch q.Get("grant_type") {
	case "authorization_code":
		f := p.codes[q.Get("code")]
		delete(p.codes, q.Get("code"))
		sum := sha256.Sum256([]byte(q.Get("code_verifier")))
		if f == nil || f.challenge != b64(sum[:]) || f.redirect != q.Get("redirect_uri") {
			fail(w, 400, "invalid_grant")
			return
		}
		p.give(w, f, true)
	case "refresh_token":
		f := p.refresh[q.Get("refresh_token")]
		if f == nil || f.dead || f.current != q.Get("refresh_token") && !p.old {
			if f != nil {
				f.dead = true // an old one has come again: RFC 9700 section 4.14
			}
			fail(w, 400, "invalid_grant")
			return
		}
		p.give(w, f, !p.keep)
	case "client_credentials":
		p.made++
		p.say(w, map[string]any{"access_token": fmt.Sprintf("app-%d", p.made), "token_type": "Bearer", "expires_in": p.seconds()})
	case "urn:ietf:params:oauth:grant-type:device_code":
		switch p.device {
		case "ok":
			p.give(w, p.family("alex@contoso.example"), true)
		case "":
			fail(w, 400, "authorization_pending")
		default:
			fail(w, 400, p.device)
		}
	default:
		fail(w, 400, "unsupported_grant_type")
	}
}

func (p *idp) seconds() int {
	if p.life == 0 {
		return 3600
	}
	return p.life
}

func (p *idp) family(who string) *family {
	p.families++
	return &family{who: who}
}

func (p *idp) give(w http.ResponseWriter, f *family, rotate bool) {
	p.made++
	m := map[string]any{"access_token": fmt.Sprintf("access-%d", p.made), "token_type": "Bearer", "expires_in": p.seconds()}
	if rotate {
		f.current = fmt.Sprintf("refresh-%d", p.made)
		p.refresh[f.current] = f
		m["refresh_token"] = f.current
	}
	m["id_token"] = p.idToken(f)
	p.say(w, m)
}

func (p *idp) say(w http.ResponseWriter, m map[string]any) {
	if p.scope != nil {
		m["scope"] = *p.scope
	}
	if p.answer != nil {
		p.answer(m)
	}
	json.NewEncoder(w).Encode(m)
}

func (p *idp) idToken(f *family) string {
	now := time.Now().Add(p.ahead)
	sum := sha256.Sum256([]byte(f.who))
	c := map[string]any{"iss": p.base, "sub": b64(sum[:6]), "aud": "client", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(), "email": f.who, "email_verified": true}
	if f.nonce != "" {
		c["nonce"] = f.nonce
	}
	maps.Copy(c, p.claims)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	body, _ := json.Marshal(c)
	text := b64([]byte(`{"alg":"RS256","kid":"k1","typ":"JWT"}`)) + "." + b64(body)
	digest := sha256.Sum256([]byte(text))
	sig, _ := rsa.SignPKCS1v15(rand.Reader, idpKey(), crypto.SHA256, digest[:])
	return text + "." + b64(sig)
}

// consent is a person who says yes on the provider's page: the answer that the
// browser brings back.
func (p *idp) consent(authorize, who string) url.Values {
	u, _ := url.Parse(authorize)
	q := u.Query()
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.family(who)
	f.challenge, f.redirect, f.nonce = q.Get("code_challenge"), q.Get("redirect_uri"), q.Get("nonce")
	code := fmt.Sprintf("code-%d", p.families)
	p.codes[code] = f
	iss := p.base
	if c, ok := p.claims["iss"].(string); ok {
		iss = c
	}
	return url.Values{"code": {code}, "state": {q.Get("state")}, "iss": {iss}}
}

func (p *idp) count(kind string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counts[kind]
}

// set changes the provider's ways.
func (p *idp) set(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

// faulty answers token requests with a status and a body, until it is taken back.
func (p *idp) faulty(status int, body string) {
	p.set(func() {
		p.fault = func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/token" {
				return false
			}
			w.WriteHeader(status)
			w.Write([]byte(body))
			return true
		}
	})
}

func (p *idp) well() { p.set(func() { p.fault = nil }) }

func (p *idp) ended() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.revoked, " ")
}
