package oauth_test

import (
	"crypto"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider/oauth"
)

// certificate is PEM of a key and a certificate for it.
func certificate(t *testing.T, key crypto.Signer) (text string, cert *x509.Certificate) {
	t.Helper()
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mailgrant"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})) + string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), cert
}

func TestClientAssertion(t *testing.T) {
	for _, c := range []struct {
		name, template, alg, audience string
		key                           crypto.Signer
		want                          jose.SignatureAlgorithm
		thumb                         string
	}{
		{"Entra", "entra", "PS256", "token_endpoint", rsaKey(), jose.PS256, "x5t#S256"},
		{"Entra, older", "entra", "RS256", "token_endpoint", rsaKey(), jose.RS256, "x5t"},
		{"others", "exact", "RS256", "issuer", rsaKey(), jose.RS256, "x5t#S256"},
		{"a curve", "exact", "", "issuer", ecKey(), jose.ES256, "x5t#S256"},
	} {
		h := newHostile(t, says(200, `{"access_token":"a"}`))
		cl := h.client()
		text, cert := certificate(t, c.key)
		cl.Credential = oauth.Credential{Kind: mailgrant.CredentialCertificate, Secret: mailgrant.NewSecret(text)}
		cl.Settings.IssuerRule, cl.Settings.AssertionAlg, cl.Settings.AssertionAudience = c.template, c.alg, c.audience
		if _, err := cl.AppToken(t.Context(), []string{"x/.default"}, ""); err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		f := h.last()
		if f.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" || f.Has("client_secret") || f.Get("grant_type") != "client_credentials" || f.Get("scope") != "x/.default" {
			t.Errorf("%s: form %v", c.name, f)
		}
		jws, err := jose.ParseSignedCompact(f.Get("client_assertion"), []jose.SignatureAlgorithm{c.want})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		payload, err := jws.Verify(c.key.Public())
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		s1, s256 := sha1.Sum(cert.Raw), sha256.Sum256(cert.Raw)
		thumbs := map[string]string{"x5t": base64.RawURLEncoding.EncodeToString(s1[:]), "x5t#S256": base64.RawURLEncoding.EncodeToString(s256[:])}
		var header map[string]string
		raw, _ := base64.RawURLEncoding.DecodeString(strings.Split(f.Get("client_assertion"), ".")[0])
		if err := json.Unmarshal(raw, &header); err != nil || header["typ"] != "JWT" || header[c.thumb] != thumbs[c.thumb] {
			t.Errorf("%s: header %s", c.name, raw)
		}
		var claims struct {
			Iss, Sub, Jti string
			Aud           any
			Nbf, Iat, Exp int64
		}
		json.Unmarshal(payload, &claims)
		want := cl.Settings.TokenEndpoint
		if c.audience == "issuer" {
			want = cl.Settings.Issuer
		}
		now := time.Now().Unix()
		if claims.Iss != "client" || claims.Sub != "client" || claims.Aud != want || claims.Jti == "" || claims.Nbf > now || claims.Exp < now+200 || claims.Exp > now+601 {
			t.Errorf("%s: claims %s", c.name, payload)
		}
		cl.AppToken(t.Context(), nil, "")
		if h.last().Get("client_assertion") == f.Get("client_assertion") {
			t.Errorf("%s: the same assertion twice", c.name)
		}
	}
}

func TestBadCertificates(t *testing.T) {
	text, _ := certificate(t, rsaKey())
	other, _ := certificate(t, otherKey())
	key, cert := strings.SplitAfterN(text, "-----END PRIVATE KEY-----\n", 2)[0], strings.SplitAfterN(text, "-----END PRIVATE KEY-----\n", 2)[1]
	ec, _ := x509.MarshalECPrivateKey(ecKey())
	ecCert := strings.SplitAfterN(first(certificate(t, ecKey())), "-----END PRIVATE KEY-----\n", 2)[1]
	if _, _, err := oauth.ReadCertificate(mailgrant.NewSecret(cert + string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: ec})) + ecCert)); err != nil {
		t.Errorf("an older form, and a chain: %v", err)
	}
	pkcs1 := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaKey())}))
	if _, _, err := oauth.ReadCertificate(mailgrant.NewSecret(pkcs1 + cert)); err != nil {
		t.Errorf("PKCS 1: %v", err)
	}
	for name, s := range map[string]string{"nothing": "", "key alone": key, "certificate alone": cert, "not of each other": key + strings.SplitAfterN(other, "-----END PRIVATE KEY-----\n", 2)[1],
		"garbage": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n" + cert, "a thumbprint": "6E:11:22"} {
		_, _, err := oauth.ReadCertificate(mailgrant.NewSecret(s))
		if !errors.Is(err, mailgrant.Invalid) || mailgrant.AsError(err).Remedy == "" {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func first[A, B any](a A, _ B) A { return a }

func TestFederatedTokenIsReadAtEachUse(t *testing.T) {
	h := newHostile(t, says(200, `{"access_token":"a"}`))
	c := h.client()
	file := filepath.Join(t.TempDir(), "token")
	c.Credential = oauth.Credential{Kind: mailgrant.CredentialFederated, TokenFile: file}
	write := func(s string) {
		if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, sub := range []string{"one", "two"} {
		jwt := made(`{"alg":"RS256"}`, map[string]string{"sub": sub}, []byte("sig"))
		write(jwt + "\n")
		if _, err := c.AppToken(t.Context(), nil, ""); err != nil || h.last().Get("client_assertion") != jwt {
			t.Errorf("%s: %v, form %v", sub, err, h.last())
		}
	}
	asked := len(h.forms)
	for name, s := range map[string]string{"empty": "", "another file": "root:x:0:0:root:/root:/bin/sh", "three words with dots": "a.b.c", "too long": "e30." + strings.Repeat("A", 40<<10) + ".AA"} {
		write(s)
		if _, err := c.AppToken(t.Context(), nil, ""); !errors.Is(err, mailgrant.Misset) || strings.Contains(err.Error(), "root:") || oauth.Asked(err) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	c.Credential.TokenFile = file + ".gone"
	if _, err := c.AppToken(t.Context(), nil, ""); !errors.Is(err, mailgrant.Misset) {
		t.Errorf("no file: got %v", err)
	}
	if len(h.forms) != asked {
		t.Error("something was sent that is no token")
	}
}

func TestServiceAccountStandsInForAMailbox(t *testing.T) {
	h := newHostile(t, says(200, `{"access_token":"a","expires_in":3599}`))
	c := h.client()
	der, _ := x509.MarshalPKCS8PrivateKey(rsaKey())
	key, _ := json.Marshal(map[string]string{"type": "service_account", "client_email": "bot@p.iam.example", "private_key_id": "kid9", "token_uri": "https://evil.example/token",
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))})
	c.Credential = oauth.Credential{Kind: mailgrant.CredentialServiceAccount, Secret: mailgrant.NewSecret(string(key))}
	if _, err := c.AppToken(t.Context(), []string{"https://mail.google.com/"}, "alex@contoso.example"); err != nil {
		t.Fatal(err)
	}
	jws, err := jose.ParseSignedCompact(h.last().Get("assertion"), []jose.SignatureAlgorithm{jose.RS256})
	if err != nil || jws.Signatures[0].Header.KeyID != "kid9" || h.last().Get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" {
		t.Fatalf("%v, form %v", err, h.last())
	}
	payload, err := jws.Verify(rsaKey().Public())
	var claims map[string]any
	json.Unmarshal(payload, &claims)
	if err != nil || claims["iss"] != "bot@p.iam.example" || claims["sub"] != "alex@contoso.example" || claims["scope"] != "https://mail.google.com/" || claims["aud"] != c.Settings.TokenEndpoint {
		t.Errorf("claims %s, %v", payload, err)
	}
	for _, bad := range []string{"", "{}", `{"type":"authorized_user"}`, `{"type":"service_account","private_key":"x"}`} {
		if _, _, _, err := oauth.ReadServiceAccount(mailgrant.NewSecret(bad)); !errors.Is(err, mailgrant.Invalid) {
			t.Errorf("%q: got %v", bad, err)
		}
	}
}
