package sim

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// client finds the app of a token request and checks how it proves itself.
func (en *entra) client(r *http.Request) (*tokenRequest, *aadError) {
	g, e := en.where(r)
	if e != nil {
		return nil, e
	}
	app, home, e := en.app(r.PostForm.Get("client_id"), g)
	if e != nil {
		return nil, e
	}
	req := &tokenRequest{Request: r, segment: g, app: app, home: home, acr: "0"}
	secret, e := secretOf(r)
	if e != nil {
		return nil, e
	}
	assertion := r.PostForm.Get("client_assertion")
	switch {
	case secret == "" && assertion == "":
		return req, en.mayBePublic(req)
	case app.Public && len(app.Secrets)+len(app.Certificates)+len(app.Federated) == 0:
		return nil, fail("700025")
	case assertion != "":
		req.acr, req.secret = "2", true
		return req, en.checkAssertion(r, app, assertion)
	}
	req.acr, req.secret = "1", true
	return req, en.checkSecret(app, secret)
}

// mayBePublic lets a client through that presents nothing. Whether its kind of
// redirect may do so is seen at the code.
func (en *entra) mayBePublic(req *tokenRequest) *aadError {
	kind := req.PostForm.Get("grant_type")
	if req.app.Public || kind == "client_credentials" || kind == "authorization_code" || kind == "refresh_token" {
		return nil
	}
	return fail("7000218")
}

// secretOf takes the secret from the body or the Basic header, where id and
// secret are form-encoded first (RFC 6749 section 2.3.1).
func secretOf(r *http.Request) (string, *aadError) {
	id, secret, basic := r.BasicAuth()
	if !basic {
		return r.PostForm.Get("client_secret"), nil
	}
	id, err1 := url.QueryUnescape(id)
	secret, err2 := url.QueryUnescape(secret)
	if err1 != nil || err2 != nil || !strings.EqualFold(id, r.PostForm.Get("client_id")) {
		return "", fail("7000215", "appId", r.PostForm.Get("client_id"))
	}
	return secret, nil
}

func (en *entra) checkSecret(app *App, secret string) *aadError {
	now := en.sim.Now()
	expired := false
	for _, s := range app.Secrets {
		if s.Value != secret || now.Before(s.Start) {
			continue
		}
		if s.End.IsZero() || now.Before(s.End) {
			return nil
		}
		expired = true
	}
	if expired {
		return fail("7000222", "appId", app.ID)
	}
	return fail("7000215", "appId", app.ID)
}

const jwtBearer = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// assertionClaims are those of a client assertion.
type assertionClaims struct {
	Issuer   string           `json:"iss"`
	Subject  string           `json:"sub"`
	Audience jwt.Audience     `json:"aud"`
	Expiry   *jwt.NumericDate `json:"exp"`
	NotFrom  *jwt.NumericDate `json:"nbf"`
	ID       string           `json:"jti"`
}

// checkAssertion verifies a JWT in the place of a secret: signed with a
// certificate of the app, or by an issuer that the app trusts.
func (en *entra) checkAssertion(r *http.Request, app *App, raw string) *aadError {
	if r.PostForm.Get("client_assertion_type") != jwtBearer {
		return fail("900144", "param", "client_assertion_type")
	}
	parsed, err := jwt.ParseSigned(raw, []jose.SignatureAlgorithm{jose.RS256, jose.PS256, jose.ES256})
	if err != nil || len(parsed.Headers) != 1 {
		return fail("50027")
	}
	var c assertionClaims
	if parsed.UnsafeClaimsWithoutVerification(&c) != nil {
		return fail("50027")
	}
	if !strings.EqualFold(c.Issuer, app.ID) && len(app.Federated) > 0 {
		return en.checkFederated(r.Context(), app, parsed, c)
	}
	if e := en.checkCertificate(app, parsed); e != nil {
		return e
	}
	if !strings.EqualFold(c.Issuer, app.ID) || !strings.EqualFold(c.Subject, app.ID) {
		return fail("700021")
	}
	if !en.ownAudience(r, c.Audience) {
		return fail("700023")
	}
	return en.checkDates(c)
}

// ownAudience accepts the token endpoint, as documented, and the issuer.
func (en *entra) ownAudience(r *http.Request, aud jwt.Audience) bool {
	g, e := en.where(r)
	if e != nil {
		return false
	}
	names := []string{g.name}
	if g.tenant != nil {
		names = append(append(names, g.tenant.ID), g.tenant.Domains...)
	}
	for _, n := range names {
		for _, base := range []string{en.sim.LoginURL(), en.sim.BrowserURL(), en.base(r), "https://login.microsoftonline.com"} {
			if aud.Contains(base+"/"+n+"/oauth2/v2.0/token") || aud.Contains(base+"/"+n+"/v2.0") {
				return true
			}
		}
	}
	return false
}

func (en *entra) checkDates(c assertionClaims) *aadError {
	now := en.sim.Now()
	if c.Expiry == nil || now.After(c.Expiry.Time().Add(5*time.Minute)) ||
		c.NotFrom != nil && now.Add(5*time.Minute).Before(c.NotFrom.Time()) {
		return fail("700024", "now", now.UTC().Format(longTime), "from", dateText(c.NotFrom), "to", dateText(c.Expiry))
	}
	return nil
}

func dateText(d *jwt.NumericDate) string {
	if d == nil {
		return "(none)"
	}
	return d.Time().UTC().Format(longTime)
}

// checkCertificate finds the certificate by its thumbprint and verifies with
// it: x5t#S256, or the SHA-1 x5t of older clients.
func (en *entra) checkCertificate(app *App, parsed *jwt.JSONWebToken) *aadError {
	head := parsed.Headers[0]
	x5t, _ := head.ExtraHeaders["x5t"].(string)
	x5tS256, _ := head.ExtraHeaders["x5t#S256"].(string)
	given := x5tS256
	if given == "" {
		given = x5t
	}
	if given == "" {
		given = head.KeyID
	}
	plain, _ := base64.RawURLEncoding.DecodeString(given)
	tp := strings.ToUpper(hex.EncodeToString(plain))
	for _, c := range app.Certificates {
		cert, err := parseCertificate(c.PEM)
		if err != nil {
			continue
		}
		if one, two := thumbprints(cert); given != one && given != two {
			continue
		}
		now := en.sim.Now()
		if now.After(cert.NotAfter) || now.Before(cert.NotBefore) {
			return fail("700027", "why", "The key used is expired.", "tp", tp, "more", ", Found key 'Start="+
				cert.NotBefore.UTC().Format("01/02/2006 15:04:05")+", End="+cert.NotAfter.UTC().Format("01/02/2006 15:04:05")+"'")
		}
		var any map[string]any
		if _, isRSA := cert.PublicKey.(*rsa.PublicKey); !isRSA || parsed.Claims(cert.PublicKey, &any) != nil {
			return fail("700027", "why", "The key was found, but use of the key to verify the signature failed.", "tp", tp, "more", "")
		}
		return nil
	}
	return fail("700027", "why", "The key was not found.", "tp", tp, "more", "")
}

// checkFederated verifies the assertion of another issuer.
func (en *entra) checkFederated(ctx context.Context, app *App, parsed *jwt.JSONWebToken, c assertionClaims) *aadError {
	var match *FederatedCredential
	e := fail("700211", "v", c.Issuer)
	for i := range app.Federated {
		fc := &app.Federated[i]
		audience := fc.Audience
		if audience == "" {
			audience = "api://AzureADTokenExchange"
		}
		switch {
		case fc.Issuer != c.Issuer:
		case !c.Audience.Contains(audience):
			e = fail("700212", "v", strings.Join(c.Audience, " "))
		case fc.Subject != c.Subject:
			e = fail("700213", "v", c.Subject)
		default:
			match = fc
		}
	}
	if match == nil {
		return e
	}
	for _, key := range en.issuerKeys(ctx, match, parsed.Headers[0].KeyID) {
		var any map[string]any
		if parsed.Claims(key, &any) == nil {
			return en.checkDates(c)
		}
	}
	return fail("700027", "why", "The key was not found.", "tp", parsed.Headers[0].KeyID, "more", "")
}

// issuerKeys are those in the world, or else what the issuer publishes.
func (en *entra) issuerKeys(ctx context.Context, fc *FederatedCredential, kid string) []crypto.PublicKey {
	var keys []crypto.PublicKey
	for _, text := range fc.Keys {
		block, _ := pem.Decode([]byte(text))
		if block == nil {
			continue
		}
		if key, err := x509.ParsePKIXPublicKey(block.Bytes); err == nil {
			keys = append(keys, key)
		}
	}
	if len(fc.Keys) > 0 {
		return keys
	}
	var doc struct {
		JWKS string `json:"jwks_uri"`
	}
	var set jose.JSONWebKeySet
	issuer := strings.TrimSuffix(fc.Issuer, "/")
	if fetchJSON(ctx, issuer+"/.well-known/openid-configuration", &doc) != nil || fetchJSON(ctx, doc.JWKS, &set) != nil {
		return nil
	}
	for _, k := range set.Keys {
		if kid == "" || k.KeyID == kid {
			keys = append(keys, k.Key)
		}
	}
	return keys
}

func fetchJSON(ctx context.Context, from string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	return json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(into)
}
