package sim

import (
	"encoding/base64"
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// A tokenAnswer is the body of a success.
type tokenAnswer struct {
	Type         string `json:"token_type"`
	Scope        string `json:"scope,omitempty"`
	ExpiresIn    int    `json:"expires_in,omitempty"`
	ExtExpiresIn int    `json:"ext_expires_in,omitempty"`
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token,omitempty"`
	IDToken      string `json:"id_token,omitempty"`
	ClientInfo   string `json:"client_info,omitempty"`
}

// issue makes the tokens of a user's grant. The code is nil at a renewal.
func (en *entra) issue(req *tokenRequest, g *grant, to target, asked []string, c *code) (*tokenAnswer, *aadError) {
	t := en.view().tenants[strings.ToLower(g.Tenant)]
	u := en.view().users[strings.ToLower(g.User)].item
	if t.NoExchange && to.resource == exchangeResource {
		return nil, fail("650052")
	}
	names, e := granted(t, g, to, req.app)
	if e != nil {
		return nil, e
	}
	tok := token{Audience: to.uri, AppID: req.app.ID, AppName: req.app.Name, AppIDACR: req.acr, IDType: "user",
		Acr: "1", Amr: []string{"pwd"}, Name: u.Name, ObjectID: g.OID, UPN: u.upn(), TenantID: t.ID,
		Subject: pairwise(g.OID, to.resource.appID), Scopes: strings.Join(names, " ")}
	if g.MFA {
		tok.Amr = append(tok.Amr, "mfa")
	}
	if g.CP1 {
		tok.CC = []string{"CP1"}
	}
	a, e := en.answerToken(&tok, en.tokenLife(g.CP1), scopeText(names, to))
	if e != nil {
		return nil, e
	}
	have := append(slices.Clone(g.Scopes), asked...)
	g.Offline = g.Offline || slices.Contains(asked, "offline_access")
	if k := en.view().Knobs; g.Offline && (c != nil || !k.OmitRefreshToken) {
		g.Issued = en.sim.Now()
		a.RefreshToken = en.sealGrant(g)
	}
	if slices.Contains(have, "openid") {
		nonce := ""
		if c != nil {
			nonce = c.nonce
		}
		a.IDToken = en.idToken(req, g, u, nonce, have)
	}
	if c != nil && c.info || req.PostForm.Get("client_info") == "1" {
		a.ClientInfo = clientInfo(g)
	}
	return a, nil
}

// granted is what stands in the token: all that was consented to on its
// resource. Something asked for that is not there needs a consent.
func granted(t *Tenant, g *grant, to target, app *App) ([]string, *aadError) {
	all := t.consented(app.ID, g.OID)
	names := namesOn(to.resource, all)
	for _, n := range to.names {
		if n != ".default" && !slices.Contains(names, n) {
			return nil, fail("65001", "appId", app.ID, "name", app.Name)
		}
	}
	if len(names) == 0 && slices.Contains(to.names, ".default") {
		return nil, fail("65001", "appId", app.ID, "name", app.Name)
	}
	if to.resource == graphResource {
		for _, o := range []string{"profile", "openid", "email"} {
			if slices.Contains(all, o) {
				names = append(names, o)
			}
		}
		if len(names) == 0 {
			return nil, fail("65001", "appId", app.ID, "name", app.Name)
		}
	}
	return names, nil
}

// scopeText is the scope member: Graph's names are bare, others carry the
// resource as it was asked for.
func scopeText(names []string, to target) string {
	list := slices.Clone(names)
	for i, n := range list {
		if to.resource != graphResource {
			list[i] = to.uri + "/" + n
		}
	}
	return strings.Join(list, " ")
}

func (en *entra) tokenLife(cae bool) time.Duration {
	k := en.view().Knobs
	if cae {
		return time.Duration(k.CAETokenLife)
	}
	life := time.Duration(k.AccessTokenMin)
	if spread := time.Duration(k.AccessTokenMax) - life; spread > 0 {
		life += rand.N(spread)
	}
	return life
}

// answerToken signs an access token and puts it into an answer.
func (en *entra) answerToken(t *token, life time.Duration, scopes string) (*tokenAnswer, *aadError) {
	now := en.sim.Now()
	t.Issuer, t.Version, t.UTI = tokenIssuer(t.TenantID), "1.0", base64.RawURLEncoding.EncodeToString(randomBytes(16))
	t.IssuedAt, t.NotFrom, t.Expiry = now.Unix(), now.Unix(), now.Add(life).Unix()
	raw, err := en.sim.keys.sign(t)
	if err != nil {
		return nil, fail("70012")
	}
	a := &tokenAnswer{Type: "Bearer", Scope: scopes, AccessToken: raw}
	if !en.view().Knobs.OmitExpiresIn {
		a.ExpiresIn = int(life.Seconds())
		a.ExtExpiresIn = a.ExpiresIn
	}
	return a, nil
}

// pairwise is the sub of a user at one app: stable, and different elsewhere.
func pairwise(oid, app string) string {
	return challenge("S256", oid+"@"+strings.ToLower(app))
}

func clientInfo(g *grant) string {
	text, _ := json.Marshal(map[string]string{"uid": g.OID, "utid": g.Tenant})
	return base64.RawURLEncoding.EncodeToString(text)
}

// idToken tells the app who signed in.
func (en *entra) idToken(req *tokenRequest, g *grant, u *User, nonce string, scopes []string) string {
	now := en.sim.Now().Unix()
	c := map[string]any{
		"aud": req.app.ID, "iss": en.base(req.Request) + "/" + g.Tenant + "/v2.0",
		"iat": now, "nbf": now, "exp": now + 3600, "ver": "2.0", "tid": g.Tenant,
		"sub": pairwise(g.OID, req.app.ID), "uti": base64.RawURLEncoding.EncodeToString(randomBytes(16)),
		"rh": "1.A" + base64.RawURLEncoding.EncodeToString(randomBytes(24)),
	}
	if slices.Contains(scopes, "profile") {
		c["oid"], c["name"], c["preferred_username"] = g.OID, u.Name, u.upn()
		c["login_hint"] = loginHint(u)
	}
	if slices.Contains(scopes, "email") {
		c["email"] = u.Address
	}
	if nonce != "" {
		c["nonce"] = nonce
	}
	if g.SID != "" {
		c["sid"] = g.SID
	}
	raw, err := en.signID(c)
	if err != nil {
		return ""
	}
	return raw
}

// loginHint is opaque to apps.
func loginHint(u *User) string {
	return "O." + base64.RawURLEncoding.EncodeToString([]byte(u.ID))
}

func userOfHint(hint string) (id string, ok bool) {
	text, ok := strings.CutPrefix(hint, "O.")
	plain, err := base64.RawURLEncoding.DecodeString(text)
	return string(plain), ok && err == nil
}

// signID signs an id token, spoiled as the knob TamperIDToken says.
func (en *entra) signID(c map[string]any) (string, error) {
	how := en.view().Knobs.TamperIDToken
	switch how {
	case "iss":
		c["iss"] = "https://elsewhere.example/v2.0"
	case "aud":
		c["aud"] = newGUID()
	case "tid":
		c["tid"] = newGUID()
	case "oid":
		c["oid"] = newGUID()
	case "nonce":
		c["nonce"] = "another"
	case "exp":
		c["exp"] = c["iat"].(int64) - 3600
	case "sub":
		delete(c, "sub")
	case "sig", "kid":
		other := mustMakeKey(en.sim.Now())
		id := en.sim.keys.current().id
		if how == "kid" {
			id = "unpublished"
		}
		signer, err := newSigner(jose.RS256, other.key, map[jose.HeaderKey]any{"kid": id})
		if err != nil {
			return "", err
		}
		return jwt.Signed(signer).Claims(c).Serialize()
	case "alg-hs256":
		signer, err := newSigner(jose.HS256, en.sim.keys.current().cert, nil)
		if err != nil {
			return "", err
		}
		return jwt.Signed(signer).Claims(c).Serialize()
	case "alg-none":
		body, err := json.Marshal(c)
		head := base64.RawURLEncoding.EncodeToString([]byte(`{"typ":"JWT","alg":"none"}`))
		return head + "." + base64.RawURLEncoding.EncodeToString(body) + ".", err
	}
	return en.sim.keys.sign(c)
}
