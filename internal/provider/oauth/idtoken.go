package oauth

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/diagnose"
	"github.com/mailgrant/mailgrant/internal/provider"
)

const (
	idTokenMax = 64 << 10
	clockSkew  = 120 * time.Second
)

// algorithms are those an ID token may be signed with. The token does not choose.
var algorithms = []string{oidc.RS256, oidc.RS384, oidc.RS512, oidc.PS256, oidc.PS384, oidc.PS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.EdDSA}

// Claims are what an ID token says, after it was checked.
type Claims struct {
	Issuer  string `json:"iss"`
	Subject string `json:"sub"`
	Nonce   string `json:"nonce"`
	AZP     string `json:"azp"`
	Expiry  int64  `json:"exp"`
	Issued  int64  `json:"iat"`
	Before  int64  `json:"nbf"`

	TenantID string `json:"tid"`
	ObjectID string `json:"oid"`
	Username string `json:"preferred_username"`
	UPN      string `json:"upn"`
	Email    string `json:"email"`
	Name     string `json:"name"`
	Verified any    `json:"email_verified"` // true or "true"
	Owned    any    `json:"xms_edov"`       // Entra: the tenant has proved the domain of email; true, "1"
}

// Verify checks an ID token: size, signature by the issuer's keys with an
// algorithm of ours, issuer, audience, times, nonce, at_hash. OpenID Connect Core
// section 3.1.3.7.
func (c *Client) Verify(ctx context.Context, keys *Keys, raw, access mailgrant.Secret, nonce string) (Claims, error) {
	return c.verified(ctx, keys, raw, access, nonce, true)
}

func (c *Client) verified(ctx context.Context, keys *Keys, raw, access mailgrant.Secret, nonce string, asked bool) (Claims, error) {
	claims, err := c.verify(ctx, keys, raw.Reveal(), access.Reveal(), nonce, asked)
	if err == nil {
		return claims, nil
	}
	var e *mailgrant.Error
	if errors.As(err, &e) {
		return Claims{}, e
	}
	f := c.explain(diagnose.Failure{Text: "the ID token is not valid: " + err.Error(), Err: err, Protocol: "oidc", Context: map[string]any{"step": "id-token"}}, "authorization_code")
	return Claims{}, mailgrant.Errorf(mailgrant.Forbidden, err, "the provider's word on who signed in does not hold").With(f).
		Fix("begin again; if it stays, check the registration's tenant and client ID")
}

func (c *Client) verify(ctx context.Context, keys *Keys, raw, access, nonce string, asked bool) (Claims, error) {
	var claims Claims
	if len(raw) > idTokenMax {
		return claims, fmt.Errorf("it has %d bytes, more than %d", len(raw), idTokenMax)
	}
	set := keys.of(c)
	v := oidc.NewVerifier(c.Settings.Issuer, set, &oidc.Config{
		ClientID: c.ClientID, SupportedSigningAlgs: algorithms,
		SkipIssuerCheck: true, // below: Entra's template rule
		SkipExpiryCheck: true, // below: with our skew
	})
	t, err := v.Verify(ctx, raw)
	if err != nil && set.failed != nil {
		return claims, set.failed
	}
	if err != nil {
		return claims, err
	}
	if err := t.Claims(&claims); err != nil {
		return claims, err
	}
	if err := issuerFits(c.Settings, claims.Issuer, claims.TenantID); err != nil {
		return claims, err
	}
	if len(t.Audience) > 1 && claims.AZP == "" || claims.AZP != "" && claims.AZP != c.ClientID {
		return claims, fmt.Errorf("it was made for another client: azp %.60q", claims.AZP)
	}
	if err := c.timely(claims); err != nil {
		return claims, err
	}
	if asked && (nonce == "" || subtle.ConstantTimeCompare([]byte(nonce), []byte(claims.Nonce)) != 1) {
		return claims, errors.New("its nonce is not the one of this flow")
	}
	if claims.Subject == "" {
		return claims, errors.New("it has no subject")
	}
	if t.AccessTokenHash != "" && access != "" {
		if err := t.VerifyAccessToken(access); err != nil {
			return claims, fmt.Errorf("it belongs to another access token: %w", err)
		}
	}
	return claims, nil
}

// issuerFits compares the issuer as plain text. Where many Microsoft tenants may
// sign in, the token's own tenant stands in for the placeholder, and must be one.
func issuerFits(s provider.Settings, issuer, tenant string) error {
	want := s.Issuer
	if s.IssuerRule == "entra" {
		if err := tenantFits(s.Tenant, tenant); err != nil {
			return err
		}
		want = strings.Replace(want, "/"+s.Tenant+"/", "/"+tenant+"/", 1)
	}
	// Google is known to leave the scheme out.
	if issuer != want && !(want == "https://accounts.google.com" && issuer == "accounts.google.com") {
		return fmt.Errorf("its issuer is %.200q, not %.200q", issuer, want)
	}
	return nil
}

// PersonalTenant is the one tenant of all personal Microsoft accounts.
const PersonalTenant = "9188040d-6c67-4c5b-b112-36a304b66dad"

// tenantFits says whether people of a tenant may sign in where allowed is asked.
func tenantFits(allowed, tenant string) error {
	if !provider.IsGUID(tenant) {
		return fmt.Errorf("its tenant %.60q is no tenant id", tenant)
	}
	person := strings.EqualFold(tenant, PersonalTenant)
	switch {
	case allowed == "common", allowed == "organizations" && !person, allowed == "consumers" && person, strings.EqualFold(tenant, allowed):
		return nil
	}
	return fmt.Errorf("it comes from the tenant %s, not from %s", tenant, allowed)
}

func (c *Client) timely(t Claims) error {
	now := c.now()
	at := func(n int64) time.Time { return time.Unix(n, 0) }
	switch {
	case t.Expiry == 0 || t.Issued == 0:
		return errors.New("it does not say from when to when it holds")
	case now.After(at(t.Expiry).Add(clockSkew)):
		return fmt.Errorf("it ended at %s", at(t.Expiry).UTC())
	case t.Before != 0 && now.Add(clockSkew).Before(at(t.Before)), now.Add(clockSkew).Before(at(t.Issued)):
		return errors.New("it is from the future: one of the clocks is wrong")
	}
	return nil
}

// Peek reads iss and sub of a token without checking it. It serves only to notice
// that a refresh came back with somebody else; nothing is trusted for it.
func Peek(raw mailgrant.Secret) (c Claims, ok bool) {
	parts := strings.Split(raw.Reveal(), ".")
	if len(parts) != 3 || len(raw.Reveal()) > idTokenMax {
		return c, false
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	return c, err == nil && json.Unmarshal(b, &c) == nil
}

// Addresses are the names the claims give, in the template's order. An email
// that nobody verified is left out: whoever may write it may write anybody's.
func (t Claims) Addresses(order []string) []string {
	if len(order) == 0 {
		order = []string{"email"}
	}
	by := map[string]string{"preferred_username": t.Username, "upn": t.UPN}
	if t.Verified == nil || said(t.Verified) {
		by["email"] = t.Email
	}
	var list []string
	add := func(s string) {
		if s != "" && len(s) <= 320 && strings.Contains(s, "@") && !slices.ContainsFunc(list, func(h string) bool { return strings.EqualFold(h, s) }) {
			list = append(list, s)
		}
	}
	for _, name := range order {
		add(by[name])
	}
	return list
}

// EmailOwned says whether an Entra tenant has proved that the domain of email is
// its own. Without it, email is whatever the tenant's administrator wrote.
func (t Claims) EmailOwned() bool { return said(t.Owned) }

// said reads a yes as providers write it.
func said(v any) bool {
	switch v := v.(type) {
	case bool:
		return v
	case string:
		return v == "1" || strings.EqualFold(v, "true")
	case float64:
		return v == 1
	}
	return false
}

// VerifyWithoutNonce checks an ID token that came straight from the token endpoint
// of a device code: no browser carried anything a nonce could protect.
func (c *Client) VerifyWithoutNonce(ctx context.Context, keys *Keys, raw, access mailgrant.Secret) (Claims, error) {
	return c.verified(ctx, keys, raw, access, "", false)
}
