package sim

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"
)

// A code is an authorization code on its way through the browser.
type code struct {
	grant    grant
	app      string
	redirect string
	platform string
	pkce     string
	method   string
	nonce    string
	info     bool
	made     time.Time
	used     bool
}

// A grant is what a sign-in leaves behind; it travels inside refresh tokens.
type grant struct {
	Family  string    `json:"f"`
	Serial  int       `json:"n"`
	App     string    `json:"a"`
	Tenant  string    `json:"t"`
	User    string    `json:"u"` // object id at home
	OID     string    `json:"o"` // in the tenant
	Scopes  []string  `json:"s"` // as they were asked for
	SignIn  time.Time `json:"i"`
	Issued  time.Time `json:"d"` // of this refresh token
	First   time.Time `json:"b"` // of the first one
	MFA     bool      `json:"m,omitempty"`
	SID     string    `json:"k,omitempty"`
	SPA     bool      `json:"p,omitempty"`
	CP1     bool      `json:"c,omitempty"`
	ACR     string    `json:"r,omitempty"` // how the app proved itself
	Offline bool      `json:"l,omitempty"`
}

func (en *entra) newCode(f *flow, in *signedIn) string {
	now := en.sim.Now()
	var asked []string
	for _, s := range f.scopes {
		asked = append(asked, s.raw)
	}
	text := "1.A" + base64.RawURLEncoding.EncodeToString(randomBytes(180))
	en.codes[text] = &code{
		app: f.app.ID, redirect: f.redirect, platform: f.platform, pkce: f.pkce, method: f.method,
		nonce: f.nonce, info: f.info, made: now,
		grant: f.grant(in, now, asked),
	}
	sweep(en.codes, now, func(c *code) time.Time { return c.made })
	return text
}

func (f *flow) grant(in *signedIn, now time.Time, asked []string) grant {
	return grant{Family: newGUID(), App: f.app.ID, Tenant: f.account.tenant.ID, User: f.account.user.ID,
		OID: f.account.oid, Scopes: asked, SignIn: in.at, Issued: now, First: now, MFA: in.mfa, SID: in.sid,
		SPA: f.platform == PlatformSPA, CP1: f.cp1, Offline: slices.Contains(asked, "offline_access")}
}

// A tokenRequest is a call of the token endpoint by a client that is known.
type tokenRequest struct {
	*http.Request
	segment segment
	app     *App
	home    *Tenant
	acr     string // how the client proved itself: 0 not, 1 secret, 2 certificate
	secret  bool   // it presented a credential of some kind
}

// token is the token endpoint.
func (en *entra) token(w http.ResponseWriter, r *http.Request) {
	answer, e := en.grantToken(r)
	if e != nil {
		en.refuse(w, r, e)
		return
	}
	entraHeaders(w, newGUID())
	writeJSON(w, http.StatusOK, answer)
}

func (en *entra) grantToken(r *http.Request) (*tokenAnswer, *aadError) {
	if e := readForm(r); e != nil {
		return nil, e
	}
	kind := strings.TrimPrefix(r.PostForm.Get("grant_type"), "urn:ietf:params:oauth:grant-type:")
	en.sim.counts.add("token")
	if kind != "" {
		en.sim.counts.add("token." + kind)
	}
	for _, p := range []string{"grant_type", "client_id"} {
		if r.PostForm.Get(p) == "" {
			return nil, fail("900144", "param", p)
		}
	}
	req, e := en.client(r)
	if e != nil {
		return nil, e
	}
	switch kind {
	case "authorization_code":
		return en.redeem(req)
	case "refresh_token":
		return en.renew(req)
	case "client_credentials":
		return en.forApp(req)
	case "device_code":
		return en.pollDevice(req)
	case "password":
		return nil, fail("50126")
	}
	return nil, fail("70003", "grant", r.PostForm.Get("grant_type"))
}

// readForm takes a POST of a form and nothing else. No parameter may come
// twice (RFC 6749 section 3.2).
func readForm(r *http.Request) *aadError {
	if r.Method != http.MethodPost {
		return fail("900561", "method", r.Method)
	}
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if kind != "application/x-www-form-urlencoded" {
		return fail("900144", "param", "grant_type")
	}
	r.Body = http.MaxBytesReader(nil, r.Body, 1<<20)
	if r.ParseForm() != nil {
		return fail("9002313")
	}
	for _, values := range r.PostForm {
		if len(values) > 1 {
			return fail("9002313")
		}
	}
	return nil
}

// redeem changes an authorization code for tokens.
func (en *entra) redeem(req *tokenRequest) (*tokenAnswer, *aadError) {
	form := req.PostForm.Get
	for _, p := range []string{"code", "redirect_uri"} {
		if form(p) == "" {
			return nil, fail("900144", "param", p)
		}
	}
	c, e := en.takeCode(req, form("code"))
	if e != nil {
		return nil, e
	}
	if e := c.check(req, form("redirect_uri"), form("code_verifier")); e != nil {
		return nil, e
	}
	if e := en.alive(&c.grant); e != nil {
		return nil, e
	}
	param := form("scope")
	asked := c.grant.Scopes
	if param != "" {
		asked = strings.Fields(param)
	} else if !slices.ContainsFunc(asked, func(s string) bool { return s != "offline_access" }) {
		return nil, fail("28003")
	}
	r, e := en.resourceOf(req, strings.Join(asked, " "), param != "")
	if e != nil {
		return nil, e
	}
	c.grant.ACR = req.acr
	return en.issue(req, &c.grant, r, asked, c)
}

// takeCode finds a code and marks it used. A second use is refused, and ends
// the family of the first (RFC 6749 section 4.1.2).
func (en *entra) takeCode(req *tokenRequest, text string) (*code, *aadError) {
	en.mu.Lock()
	defer en.mu.Unlock()
	c := en.codes[text]
	if c == nil {
		return nil, fail("9002313")
	}
	if !strings.EqualFold(c.app, req.app.ID) {
		return nil, fail("70000")
	}
	if req.segment.tenant != nil && req.segment.tenant.ID != c.grant.Tenant {
		return nil, fail("700005")
	}
	if c.used {
		if en.view().Knobs.RotateStrict {
			en.family(c.grant.Family).dead = true
		}
		return nil, fail("54005")
	}
	c.used = true
	if en.sim.Now().Sub(c.made) > time.Duration(en.view().Knobs.CodeLife) {
		return nil, fail("70008")
	}
	return c, nil
}

// check compares the redemption with the authorization.
func (c *code) check(req *tokenRequest, redirect, verifier string) *aadError {
	if redirect != c.redirect {
		return fail("500112", "uri", redirect, "was", c.redirect)
	}
	origin := req.Header.Get("Origin")
	switch spa := c.platform == PlatformSPA; {
	case spa && origin == "":
		return fail("9002327")
	case !spa && origin != "":
		return fail("9002326", "origin", origin)
	case spa && verifier == "":
		return fail("9002325")
	}
	if (c.platform == PlatformNative || c.platform == PlatformSPA) && req.secret {
		return fail("700025")
	}
	if c.platform == PlatformWeb && !req.secret {
		return fail("7000218")
	}
	if c.pkce == "" && verifier != "" {
		// A verifier without a challenge is a downgrade (RFC 9700 section 4.8).
		return fail("501481")
	}
	if c.pkce != "" && subtle.ConstantTimeCompare([]byte(challenge(c.method, verifier)), []byte(c.pkce)) != 1 {
		return fail("501481")
	}
	return nil
}

func challenge(method, verifier string) string {
	if method == "plain" {
		return verifier
	}
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// forApp gives an app a token of its own, without a user.
func (en *entra) forApp(req *tokenRequest) (*tokenAnswer, *aadError) {
	if req.segment.common() || req.segment.tenant.ID == consumersTenant {
		return nil, fail("9001023")
	}
	if !req.secret {
		return nil, fail("7000216")
	}
	param := req.PostForm.Get("scope")
	if param == "" {
		return nil, fail("90014", "param", "scope")
	}
	t := req.segment.tenant
	s := parseScope(param, t.Cloud)
	if len(strings.Fields(param)) != 1 || s.name != ".default" {
		return nil, fail("1002012", "s", param)
	}
	if s.resource == nil {
		return nil, fail("500011", "uri", s.uri, "tenant", t.Name)
	}
	ent := t.enterprise(req.app.ID)
	if ent == nil && t.ID != req.home.ID {
		return nil, fail("700016", "appId", req.app.ID, "tenant", t.Name)
	}
	if ent != nil && ent.Disabled {
		return nil, fail("70001", "appId", req.app.ID, "name", req.app.Name)
	}
	oid := req.app.ID
	if ent != nil {
		oid = ent.ObjectID
	}
	life := en.tokenLife(false)
	tok := token{Audience: s.uri, AppID: req.app.ID, AppName: req.app.Name, AppIDACR: req.acr, IDType: "app",
		ObjectID: oid, Subject: oid, TenantID: t.ID, Roles: namesOn(s.resource, t.roles(req.app.ID))}
	return en.answerToken(&tok, life, "")
}

// declaresCP1 looks into a claims parameter for the client capability of
// continuous access evaluation.
func declaresCP1(claims string) bool {
	var c struct {
		AccessToken struct {
			CC struct{ Values []string } `json:"xms_cc"`
		} `json:"access_token"`
	}
	return json.Unmarshal([]byte(claims), &c) == nil &&
		slices.ContainsFunc(c.AccessToken.CC.Values, func(v string) bool { return strings.EqualFold(v, "cp1") })
}
