package sim

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Refresh tokens carry their grant, sealed with the key of the world. So they
// outlive a restart, and hundreds of thousands of them cost nothing.

func (v *view) aead() cipher.AEAD {
	block, err := aes.NewCipher(v.seal)
	if err != nil {
		panic(err) // the length was checked
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return gcm
}

func (en *entra) sealGrant(g *grant) string {
	plain, err := json.Marshal(g)
	if err != nil {
		panic(err) // a grant is plain data
	}
	aead := en.view().aead()
	nonce := randomBytes(aead.NonceSize())
	return "1.A" + base64.RawURLEncoding.EncodeToString(aead.Seal(nonce, nonce, plain, nil))
}

func (en *entra) openGrant(text string) (*grant, bool) {
	text, ok := strings.CutPrefix(text, "1.A")
	sealed, err := base64.RawURLEncoding.DecodeString(text)
	aead := en.view().aead()
	if !ok || err != nil || len(sealed) < aead.NonceSize() {
		return nil, false
	}
	plain, err := aead.Open(nil, sealed[:aead.NonceSize()], sealed[aead.NonceSize():], nil)
	g := new(grant)
	if err != nil || json.Unmarshal(plain, g) != nil {
		return nil, false
	}
	return g, true
}

// A family is the refresh tokens that came from one sign-in. Only the newest
// is good while RotateStrict is on.
type family struct {
	newest int
	dead   bool
}

// family needs en.mu.
func (en *entra) family(id string) *family {
	fam := en.families[id]
	if fam == nil {
		fam = new(family)
		en.families[id] = fam
	}
	return fam
}

// renew changes a refresh token for tokens of one resource.
func (en *entra) renew(req *tokenRequest) (*tokenAnswer, *aadError) {
	text := req.PostForm.Get("refresh_token")
	if text == "" {
		return nil, fail("900144", "param", "refresh_token")
	}
	g, ok := en.openGrant(text)
	if !ok || !strings.EqualFold(g.App, req.app.ID) {
		return nil, fail("70000")
	}
	if req.segment.tenant != nil && req.segment.tenant.ID != g.Tenant {
		return nil, en.wrongTenant(req, g)
	}
	if !g.SPA && !req.secret && g.ACR != "0" {
		return nil, fail("7000218")
	}
	if e := en.notOutlived(g); e != nil {
		return nil, e
	}
	if e := en.alive(g); e != nil {
		return nil, e
	}
	param := req.PostForm.Get("scope")
	asked := g.Scopes
	if param != "" {
		asked = strings.Fields(param)
	}
	r, e := en.resourceOf(req, strings.Join(asked, " "), en.view().Knobs.RefuseManyScopes)
	if e != nil {
		return nil, e
	}
	if c := req.PostForm.Get("claims"); c != "" {
		g.CP1 = g.CP1 || declaresCP1(c)
	}
	if e := en.rotate(g); e != nil {
		return nil, e
	}
	return en.issue(req, g, r, asked, nil)
}

func (en *entra) wrongTenant(req *tokenRequest, g *grant) *aadError {
	at, ok := en.view().users[strings.ToLower(g.User)]
	if !ok {
		return fail("70000")
	}
	e := fail("50020", "user", at.item.Address, "idp", tokenIssuer(g.Tenant), "tenant", req.segment.tenant.Name)
	return fillApp(e, req.app)
}

// notOutlived checks the age of the refresh token itself.
func (en *entra) notOutlived(g *grant) *aadError {
	now, k := en.sim.Now(), en.view().Knobs
	if g.SPA && now.Sub(g.First) > time.Duration(k.SPARefreshLife) {
		return fail("700084", "t", g.First.UTC().Format(longTime))
	}
	if now.Sub(g.Issued) > time.Duration(k.RefreshIdle) {
		return fail("700082", "t", g.Issued.UTC().Format(longTime), "idle", days(time.Duration(k.RefreshIdle)))
	}
	return nil
}

const longTime = "2006-01-02T15:04:05.0000000Z"

// days writes a time span as .NET does: 90.00:00:00.
func days(d time.Duration) string {
	s := int(d.Seconds())
	return fmt.Sprintf("%d.%02d:%02d:%02d", s/86400, s/3600%24, s/60%60, s%60)
}

// rotate counts the renewal, and with RotateStrict refuses all but the newest
// token of a family, which ends the family.
func (en *entra) rotate(g *grant) *aadError {
	en.mu.Lock()
	defer en.mu.Unlock()
	if en.view().Knobs.RotateStrict {
		fam := en.family(g.Family)
		if fam.dead || g.Serial < fam.newest {
			fam.dead = true
			en.sim.counts.add("token.family_revoked")
			return fail("50173", "t1", g.Issued.UTC().Format(longTime), "t2", en.sim.Now().UTC().Format(longTime))
		}
		if !en.view().Knobs.OmitRefreshToken {
			fam.newest = g.Serial + 1
		}
	}
	g.Serial++
	return nil
}

// alive checks everything that may have changed since the sign-in.
func (en *entra) alive(g *grant) *aadError {
	at, ok := en.view().users[strings.ToLower(g.User)]
	t := en.view().tenants[strings.ToLower(g.Tenant)]
	if t == nil {
		return fail("90002", "t", g.Tenant)
	}
	if !ok {
		return fail("50034", "user", g.User, "tenant", t.Name)
	}
	a := &account{tenant: t, home: at.tenant, user: at.item, oid: g.OID}
	if e := en.userState(a); e != nil {
		return e
	}
	if since := at.item.TokensValidFrom; !g.SignIn.After(since) && !since.IsZero() {
		return fail("50173", "t1", g.Issued.UTC().Format(longTime), "t2", since.UTC().Format(longTime))
	}
	app := en.view().apps[strings.ToLower(g.App)].item
	if app == nil {
		return fail("700016", "appId", g.App, "tenant", t.Name)
	}
	if e := assigned(a, app); e != nil {
		return e
	}
	return en.stillAllowed(a, g)
}

func (en *entra) stillAllowed(a *account, g *grant) *aadError {
	if e := en.conditional(a, g.App); e != nil {
		return e
	}
	if rule := en.rule(a, g.App, RuleFrequency); rule != nil && en.tooOld(a, g.App, g.SignIn) {
		return fail("70043", "t", g.SignIn.UTC().Format(longTime),
			"sec", fmt.Sprint(int(time.Duration(rule.Frequency).Seconds())))
	}
	if g.MFA || en.rule(a, g.App, RuleRequireMFA) == nil && !a.tenant.SecurityDefaults {
		return nil
	}
	code := "50076"
	if !a.user.MFA {
		code = "50079"
	}
	e := fail(code, "resource", exchangeResource.appID)
	e.claims = `{"access_token":{"capolids":{"essential":true,"values":["` + newGUID() + `"]}}}`
	return e
}

// resourceOf finds the one resource that a token is for. Of several the first
// is taken, unless strict.
func (en *entra) resourceOf(req *tokenRequest, param string, strict bool) (target, *aadError) {
	cloud, directory := "*", req.segment.name
	if req.segment.tenant != nil {
		cloud, directory = req.segment.tenant.Cloud, req.segment.tenant.Name
	}
	to := target{resource: graphResource, uri: "https://" + cloudHosts[hostsOf(cloud)].graph}
	found, oidc := false, false
	for _, s := range parseScopes(param, cloud) {
		if slices.Contains(oidcScopes, s.raw) {
			oidc = oidc || s.raw != "offline_access"
			continue
		}
		if s.resource == nil {
			return to, fail("500011", "uri", s.uri, "tenant", directory)
		}
		if s.name != ".default" && !slices.Contains(s.resource.delegated, s.name) {
			return to, fail("70011", "s", s.raw)
		}
		if !found {
			to.resource, to.uri, found = s.resource, s.uri, true
		}
		if s.resource != to.resource {
			if strict {
				return to, fail("700022")
			}
			continue
		}
		to.names = append(to.names, s.name)
	}
	if !found && !oidc {
		return to, fail("28002", "s", param)
	}
	if len(to.names) > 1 && slices.Contains(to.names, ".default") {
		e := fail("70011", "s", param)
		e.text += " .default scope can't be combined with resource-specific scopes."
		return to, e
	}
	return to, nil
}

// A target is the resource of one access token and what was asked of it.
type target struct {
	resource *resource
	uri      string
	names    []string
}
