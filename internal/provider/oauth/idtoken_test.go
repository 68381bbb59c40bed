package oauth_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider/oauth"
)

// signer keeps the keys of a provider that tests tamper with.
type signer struct {
	*hostile
	mu   sync.Mutex
	keys []jose.JSONWebKey
	more map[string]string // issuer by key id, as Entra writes it
}

var (
	rsaKey   = sync.OnceValue(func() *rsa.PrivateKey { k, _ := rsa.GenerateKey(rand.Reader, 2048); return k })
	otherKey = sync.OnceValue(func() *rsa.PrivateKey { k, _ := rsa.GenerateKey(rand.Reader, 2048); return k })
	ecKey    = sync.OnceValue(func() *ecdsa.PrivateKey { k, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader); return k })
)

func newSigner(t *testing.T) *signer {
	s := &signer{keys: []jose.JSONWebKey{public("k1", rsaKey().Public())}, more: map[string]string{}}
	s.hostile = newHostile(t, func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		list := []map[string]any{}
		for _, k := range s.keys {
			b, _ := k.MarshalJSON()
			var m map[string]any
			json.Unmarshal(b, &m)
			if iss := s.more[k.KeyID]; iss != "" {
				m["issuer"] = iss
			}
			list = append(list, m)
		}
		list = append(list, map[string]any{"kty": "quantum", "kid": "new"}) // a kind nobody knows yet
		json.NewEncoder(w).Encode(map[string]any{"keys": list})
	})
	return s
}

func public(id string, k crypto.PublicKey) jose.JSONWebKey {
	return jose.JSONWebKey{Key: k, KeyID: id, Use: "sig"}
}

func (s *signer) set(keys ...jose.JSONWebKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys = keys
}

// claims are good ones, changed as said; a nil value takes a claim out.
func (s *signer) claims(change map[string]any) map[string]any {
	now := time.Now().Unix()
	m := map[string]any{"iss": s.URL, "sub": "alex", "aud": "client", "exp": now + 600, "iat": now, "nonce": "n1", "email": "alex@contoso.example"}
	maps.Copy(m, change)
	maps.DeleteFunc(m, func(_ string, v any) bool { return v == nil })
	return m
}

func jwtOf(t *testing.T, alg jose.SignatureAlgorithm, key any, kid string, claims any) string {
	t.Helper()
	b, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	opts := &jose.SignerOptions{}
	if kid != "" {
		opts = opts.WithHeader("kid", kid)
	}
	sg, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, opts.WithType("JWT"))
	if err != nil {
		t.Fatal(err)
	}
	jws, err := sg.Sign(b)
	if err != nil {
		t.Fatal(err)
	}
	text, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// made puts a token together by hand.
func made(header string, claims any, signature []byte) string {
	b, _ := json.Marshal(claims)
	enc := base64.RawURLEncoding.EncodeToString
	return enc([]byte(header)) + "." + enc(b) + "." + enc(signature)
}

func (s *signer) verify(c *oauth.Client, keys *oauth.Keys, raw string) (oauth.Claims, error) {
	return c.Verify(context.Background(), keys, mailgrant.NewSecret(raw), mailgrant.NewSecret("the access token"), "n1")
}

func refused(t *testing.T, name string, err error) {
	t.Helper()
	if !errors.Is(err, mailgrant.Forbidden) || mailgrant.AsError(err).Finding == nil || mailgrant.AsError(err).Remedy == "" {
		t.Errorf("%s: got %v, want it refused with a finding", name, err)
	}
}

func TestIDTokenThatHolds(t *testing.T) {
	s, keys := newSigner(t), &oauth.Keys{}
	s.set(public("k1", rsaKey().Public()), public("e1", ecKey().Public()))
	c := s.client()
	sum := sha256.Sum256([]byte("the access token"))
	for name, raw := range map[string]string{
		"RS256":          jwtOf(t, jose.RS256, rsaKey(), "k1", s.claims(nil)),
		"PS256":          jwtOf(t, jose.PS256, rsaKey(), "k1", s.claims(nil)),
		"ES256":          jwtOf(t, jose.ES256, ecKey(), "e1", s.claims(nil)),
		"a list of one":  jwtOf(t, jose.RS256, rsaKey(), "k1", s.claims(map[string]any{"aud": []string{"client"}})),
		"two, azp ours":  jwtOf(t, jose.RS256, rsaKey(), "k1", s.claims(map[string]any{"aud": []string{"client", "x"}, "azp": "client"})),
		"at_hash":        jwtOf(t, jose.RS256, rsaKey(), "k1", s.claims(map[string]any{"at_hash": base64.RawURLEncoding.EncodeToString(sum[:16])})),
		"within skew":    jwtOf(t, jose.RS256, rsaKey(), "k1", s.claims(map[string]any{"exp": time.Now().Add(-time.Minute).Unix(), "nbf": time.Now().Add(time.Minute).Unix()})),
		"without a kid":  jwtOf(t, jose.RS256, rsaKey(), "", s.claims(nil)),
		"unknown claims": jwtOf(t, jose.RS256, rsaKey(), "k1", s.claims(map[string]any{"hasgroups": true, "uti": "x", "acrs": []string{"c1"}})),
	} {
		got, err := s.verify(c, keys, raw)
		if err != nil || got.Subject != "alex" || got.Email != "alex@contoso.example" {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
	if n := s.count("/keys"); n != 1 {
		t.Errorf("the keys were fetched %d times", n)
	}
}

func TestID01AlgorithmNone(t *testing.T) {
	s, keys := newSigner(t), &oauth.Keys{}
	for _, alg := range []string{`"none"`, `"None"`, `"nOnE"`, `""`, `null`} {
		refused(t, alg, second(s.verify(s.client(), keys, made(`{"alg":`+alg+`,"kid":"k1"}`, s.claims(nil), nil))))
	}
	good := jwtOf(t, jose.RS256, rsaKey(), "k1", s.claims(nil))
	refused(t, "no signature", second(s.verify(s.client(), keys, good[:strings.LastIndex(good, ".")+1])))
	refused(t, "no third part", second(s.verify(s.client(), keys, good[:strings.LastIndex(good, ".")])))
}

func second[T any](_ T, err error) error { return err }

func TestID02PublicKeyAsSecret(t *testing.T) {
	s, keys := newSigner(t), &oauth.Keys{}
	der, _ := x509.MarshalPKIXPublicKey(rsaKey().Public())
	jwk, _ := public("k1", rsaKey().Public()).MarshalJSON()
	for name, secret := range map[string][]byte{"DER": der, "JWK": jwk, "PEM": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), "client secret": []byte(strings.Repeat("s3cret", 8))} {
		refused(t, name, second(s.verify(s.client(), keys, jwtOf(t, jose.HS256, secret, "k1", s.claims(nil)))))
	}
	// The header cannot bring keys of its own either.
	own := public("k1", otherKey().Public())
	jwkHeader, _ := json.Marshal(map[string]any{"alg": "RS256", "kid": "k1", "jwk": own, "jku": s.URL + "/evil"})
	signed := jwtOf(t, jose.RS256, otherKey(), "k1", s.claims(nil))
	parts := strings.Split(signed, ".")
	refused(t, "jwk in the header", second(s.verify(s.client(), keys, base64.RawURLEncoding.EncodeToString(jwkHeader)+"."+parts[1]+"."+parts[2])))
	if s.count("/evil") != 0 {
		t.Error("a key was fetched from where the token said")
	}
}

func TestID03WrongKey(t *testing.T) {
	s, keys := newSigner(t), &oauth.Keys{}
	refused(t, "right kid, other key", second(s.verify(s.client(), keys, jwtOf(t, jose.RS256, otherKey(), "k1", s.claims(nil)))))
	refused(t, "other kind of key", second(s.verify(s.client(), keys, jwtOf(t, jose.ES256, ecKey(), "k1", s.claims(nil)))))
	good := jwtOf(t, jose.RS256, rsaKey(), "k1", s.claims(nil))
	parts := strings.Split(good, ".")
	evil, _ := json.Marshal(s.claims(map[string]any{"sub": "mallory"}))
	refused(t, "payload changed", second(s.verify(s.client(), keys, parts[0]+"."+base64.RawURLEncoding.EncodeToString(evil)+"."+parts[2])))
	s.set(jose.JSONWebKey{Key: rsaKey().Public(), KeyID: "enc", Use: "enc"}, public("k9", otherKey().Public()))
	refused(t, "a key that is not for signing", second(s.verify(s.client(), &oauth.Keys{}, jwtOf(t, jose.RS256, rsaKey(), "enc", s.claims(nil)))))
}

func TestID04FloodOfKeyIDs(t *testing.T) {
	s, keys := newSigner(t), &oauth.Keys{}
	now := time.Now()
	c := s.client()
	c.Now = func() time.Time { return now }
	good := jwtOf(t, jose.RS256, rsaKey(), "k1", s.claims(nil))
	for i := range 1000 {
		raw := made(fmt.Sprintf(`{"alg":"RS256","kid":"x%d"}`, i), s.claims(nil), []byte("no"))
		if err := second(s.verify(c, keys, raw)); err == nil {
			t.Fatal("taken")
		}
		if i%100 == 0 {
			if _, err := s.verify(c, keys, good); err != nil {
				t.Fatalf("others are in trouble: %v", err)
			}
		}
	}
	if n := s.count("/keys"); n != 1 {
		t.Errorf("the keys were fetched %d times within a minute", n)
	}
	now = now.Add(61 * time.Second)
	s.verify(c, keys, made(`{"alg":"RS256","kid":"y"}`, s.claims(nil), []byte("no")))
	s.verify(c, keys, made(`{"alg":"RS256","kid":"z"}`, s.claims(nil), []byte("no")))
	if n := s.count("/keys"); n != 2 {
		t.Errorf("the keys were fetched %d times in the second minute", n-1)
	}
}

// TestID04OthersDoNotWait: while keys are fetched for an unknown id, tokens with
// known ones pass.
func TestID04OthersDoNotWait(t *testing.T) {
	s, keys := newSigner(t), &oauth.Keys{}
	c := s.client()
	good := jwtOf(t, jose.RS256, rsaKey(), "k1", s.claims(nil))
	if _, err := s.verify(c, keys, good); err != nil {
		t.Fatal(err)
	}
	asked, release := make(chan struct{}), make(chan struct{})
	serve := s.answer
	s.answer = func(w http.ResponseWriter, r *http.Request) {
		close(asked)
		<-release
		serve(w, r)
	}
	done := make(chan error)
	go func() {
		done <- second(s.verify(c, keys, made(`{"alg":"RS256","kid":"y"}`, s.claims(nil), []byte("no"))))
	}()
	<-asked
	if _, err := s.verify(c, keys, good); err != nil {
		t.Error(err)
	}
	close(release)
	refused(t, "the unknown one", <-done)
}

func TestID05Audience(t *testing.T) {
	s, keys := newSigner(t), &oauth.Keys{}
	for name, change := range map[string]map[string]any{
		"another":           {"aud": "other"},
		"missing":           {"aud": nil},
		"a number":          {"aud": 7},
		"two without azp":   {"aud": []string{"client", "other"}},
		"azp of another":    {"azp": "other"},
		"two, azp of other": {"aud": []string{"client", "other"}, "azp": "other"},
		"only in azp":       {"aud": "other", "azp": "client"},
		"part of the name":  {"aud": "client2"},
		"issuer of another": {"iss": "https://evil.example"},
		"issuer with slash": {"iss": s.URL + "/"},
		"issuer missing":    {"iss": nil},
		"subject missing":   {"sub": nil},
		"subject empty":     {"sub": ""},
		"subject a number":  {"sub": 5},
		"wrong at_hash":     {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"},
	} {
		refused(t, name, second(s.verify(s.client(), keys, jwtOf(t, jose.RS256, rsaKey(), "k1", s.claims(change)))))
	}
}

func TestID06Times(t *testing.T) {
	s, keys := newSigner(t), &oauth.Keys{}
	in := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	for name, change := range map[string]map[string]any{
		"expired":          {"exp": in(-3 * time.Minute)},
		"exp missing":      {"exp": nil},
		"exp as text":      {"exp": "tomorrow"},
		"not yet":          {"nbf": in(10 * time.Minute)},
		"of the future":    {"iat": in(10 * time.Minute)},
		"iat missing":      {"iat": nil},
		"exp beyond int64": {"exp": 1e300},
	} {
		refused(t, name, second(s.verify(s.client(), keys, jwtOf(t, jose.RS256, rsaKey(), "k1", s.claims(change)))))
	}
}

func TestID07Nonce(t *testing.T) {
	s, keys := newSigner(t), &oauth.Keys{}
	for name, change := range map[string]map[string]any{"missing": {"nonce": nil}, "empty": {"nonce": ""}, "another": {"nonce": "n2"}, "a number": {"nonce": 1}} {
		refused(t, name, second(s.verify(s.client(), keys, jwtOf(t, jose.RS256, rsaKey(), "k1", s.claims(change)))))
	}
	raw := jwtOf(t, jose.RS256, rsaKey(), "k1", s.claims(map[string]any{"nonce": ""}))
	refused(t, "a flow without one", second(s.client().Verify(t.Context(), keys, mailgrant.NewSecret(raw), mailgrant.Secret{}, "")))
	if _, err := s.client().VerifyWithoutNonce(t.Context(), keys, mailgrant.NewSecret(raw), mailgrant.Secret{}); err != nil {
		t.Errorf("a device code has none: %v", err)
	}
}

const tidA, tidB = "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"

func TestID08Tenants(t *testing.T) {
	for _, c := range []struct {
		name, tenant, tid, iss, keyIssuer string
		ok                                bool
	}{
		{"its own", tidA, tidA, tidA, "{tenantid}", true},
		{"in other letters", "aaaaaaaa-1111-1111-1111-111111111111", "AAAAAAAA-1111-1111-1111-111111111111", "AAAAAAAA-1111-1111-1111-111111111111", "{tenantid}", true},
		{"a foreign one", tidA, tidB, tidB, "{tenantid}", false},
		{"a foreign one with our issuer", tidA, tidB, tidA, "{tenantid}", false},
		{"ours with a foreign issuer", tidA, tidA, tidB, "{tenantid}", false},
		{"any", "common", tidB, tidB, "{tenantid}", true},
		{"any, issuer does not fit", "common", tidB, tidA, "{tenantid}", false},
		{"any, no tid", "common", "", tidA, "{tenantid}", false},
		{"any, tid is no id", "common", "common", "common", "{tenantid}", false},
		{"any, key of personal accounts only", "common", tidB, tidB, oauth.PersonalTenant, false},
		{"a person at common", "common", oauth.PersonalTenant, oauth.PersonalTenant, oauth.PersonalTenant, true},
		{"a person where work accounts are asked", "organizations", oauth.PersonalTenant, oauth.PersonalTenant, oauth.PersonalTenant, false},
		{"work where persons are asked", "consumers", tidB, tidB, "{tenantid}", false},
		{"a person where persons are asked", "consumers", oauth.PersonalTenant, oauth.PersonalTenant, oauth.PersonalTenant, true},
	} {
		s := newSigner(t)
		cl := s.client()
		cl.Settings.IssuerRule, cl.Settings.Tenant, cl.Settings.Issuer = "entra", c.tenant, s.URL+"/"+c.tenant+"/v2.0"
		s.more["k1"] = s.URL + "/" + c.keyIssuer + "/v2.0"
		raw := jwtOf(t, jose.RS256, rsaKey(), "k1", s.claims(map[string]any{"iss": s.URL + "/" + c.iss + "/v2.0", "tid": c.tid, "oid": tidB}))
		_, err := s.verify(cl, &oauth.Keys{}, raw)
		if ok := err == nil; ok != c.ok {
			t.Errorf("%s: got %v", c.name, err)
		}
	}
}

func TestID13KeyIDAbsent(t *testing.T) {
	s := newSigner(t)
	raw := jwtOf(t, jose.RS256, rsaKey(), "", s.claims(nil))
	s.set(public("a", otherKey().Public()), public("b", rsaKey().Public()))
	if _, err := s.verify(s.client(), &oauth.Keys{}, raw); err != nil {
		t.Errorf("one of several verifies: %v", err)
	}
	s.set(public("a", otherKey().Public()), public("b", ecKey().Public()))
	refused(t, "none of several", second(s.verify(s.client(), &oauth.Keys{}, raw)))
}

func TestID14KeyRotation(t *testing.T) {
	s, keys := newSigner(t), &oauth.Keys{}
	now := time.Now()
	c := s.client()
	c.Now = func() time.Time { return now }
	for i, step := range []time.Duration{0, time.Second, 61 * time.Second} { // the second: just before signing
		now = now.Add(step)
		id := fmt.Sprintf("k%d", i)
		key, other := rsaKey(), otherKey()
		if i%2 == 1 {
			key, other = other, key
		}
		s.set(public("old", other.Public()), public(id, key.Public()))
		if _, err := s.verify(c, keys, jwtOf(t, jose.RS256, key, id, s.claims(nil))); err != nil {
			t.Errorf("after %d rotations: %v", i, err)
		}
	}
	// Without ids nothing but the signature tells.
	now = now.Add(2 * time.Minute)
	s.set(public("", rsaKey().Public()))
	keys = &oauth.Keys{}
	s.verify(c, keys, jwtOf(t, jose.RS256, rsaKey(), "", s.claims(nil)))
	s.set(public("", otherKey().Public()))
	if _, err := s.verify(c, keys, jwtOf(t, jose.RS256, otherKey(), "", s.claims(nil))); err != nil {
		t.Errorf("without ids: %v", err)
	}
}

func TestKeysOutliveAProviderThatIsDown(t *testing.T) {
	s, keys := newSigner(t), &oauth.Keys{}
	now := time.Now()
	c := s.client()
	c.Now = func() time.Time { return now }
	good := func() string {
		return jwtOf(t, jose.RS256, rsaKey(), "k1", s.claims(map[string]any{"exp": now.Add(time.Minute).Unix(), "iat": now.Unix()}))
	}
	if _, err := s.verify(c, keys, good()); err != nil {
		t.Fatal(err)
	}
	s.answer = says(503, "<html>")
	now = now.Add(25 * time.Hour)
	if _, err := s.verify(c, keys, good()); err != nil {
		t.Errorf("a day later: %v", err)
	}
	_, err := s.verify(c, &oauth.Keys{}, good())
	if !errors.Is(err, mailgrant.Unavailable) {
		t.Errorf("without keys: got %v, want it to pass by itself", err)
	}
}

func TestID15Monsters(t *testing.T) {
	s, keys := newSigner(t), &oauth.Keys{}
	enc := base64.RawURLEncoding.EncodeToString
	many := map[string]any{}
	for i := range 10_000 {
		many[fmt.Sprint("claim", i)] = i
	}
	for name, raw := range map[string]string{
		"dots":           strings.Repeat(".", 1<<20),
		"PBES2":          enc([]byte(`{"alg":"PBES2-HS256+A128KW","enc":"A128GCM","p2c":2147483647,"p2s":"AAAA"}`)) + ".AAAA.AAAA.AAAA.AAAA",
		"zip":            enc([]byte(`{"alg":"dir","enc":"A128GCM","zip":"DEF"}`)) + "..AAAA.AAAA.AAAA",
		"ten thousand":   made(`{"alg":"RS256","kid":"k1"}`, many, []byte("x")),
		"empty":          "",
		"not base64":     "!!!.???.***",
		"JSON form":      `{"payload":"e30","signatures":[]}`,
		"crit":           made(`{"alg":"RS256","kid":"k1","crit":["x"]}`, s.claims(nil), []byte("x")),
		"claims a list":  made(`{"alg":"RS256","kid":"k1"}`, []int{1}, []byte("x")),
		"header no JSON": enc([]byte("{{{")) + ".e30.AA",
	} {
		begun := time.Now()
		refused(t, name, second(s.verify(s.client(), keys, raw)))
		if took := time.Since(begun); took > time.Second {
			t.Errorf("%s took %v", name, took)
		}
	}
}

func TestID09AddressesOfAPerson(t *testing.T) {
	for _, c := range []struct {
		name   string
		claims string
		order  []string
		want   string
	}{
		{"in the order of the template", `{"preferred_username":"u@x.example","email":"e@x.example"}`, []string{"email", "preferred_username"}, "e@x.example u@x.example"},
		{"only what the template names", `{"preferred_username":"victim@x.example","email":"e@x.example"}`, []string{"email"}, "e@x.example"},
		{"an email nobody verified", `{"email":"victim@x.example","email_verified":false}`, []string{"email"}, ""},
		{"the same as text", `{"email":"victim@x.example","email_verified":"false"}`, nil, ""},
		{"verified", `{"email":"e@x.example","email_verified":true}`, nil, "e@x.example"},
		{"verified, as text", `{"email":"e@x.example","email_verified":"true"}`, nil, "e@x.example"},
		{"a name is no address", `{"preferred_username":"alex"}`, []string{"preferred_username"}, ""},
		{"once", `{"preferred_username":"A@x.example","upn":"a@X.example"}`, []string{"preferred_username", "upn"}, "A@x.example"},
	} {
		var claims oauth.Claims
		if err := json.Unmarshal([]byte(c.claims), &claims); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(claims.Addresses(c.order), " "); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func FuzzAnswers(f *testing.F) {
	for _, s := range []string{`{"access_token":"a"}`, `{"error":"invalid_grant","error_codes":[1]}`, `[`, `{"error":{"status":"x"}}`, "<html>", `{"keys":[{"kty":"RSA"}]}`} {
		f.Add([]byte(s), 200)
		f.Add([]byte(s), 400)
	}
	f.Fuzz(func(t *testing.T, body []byte, status int) {
		if status < 200 || status > 599 {
			return
		}
		c := at("http://provider.example")
		c.HTTP = &http.Client{Transport: answering{status, body}}
		a, err := refresh(t.Context(), c)
		if err == nil && a.Access.IsZero() {
			t.Errorf("no token and no error")
		}
		if err != nil && mailgrant.AsError(err).Finding == nil {
			t.Errorf("no finding in %v", err)
		}
		c.Device(t.Context(), nil)
		c.Verify(t.Context(), &oauth.Keys{}, mailgrant.NewSecret(string(body)), mailgrant.Secret{}, "n")
	})
}
