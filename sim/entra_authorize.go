package sim

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// A flow is one trip of a browser through the sign-in pages: an authorization
// request, a device code or an admin consent.
type flow struct {
	id      string
	made    time.Time
	session *session // the browser that began it
	canary  string   // against posts from elsewhere

	segment  segment
	app      *App
	home     *Tenant // of the app
	redirect string
	platform string
	mode     string // query, fragment, form_post
	state    string
	nonce    string
	scopes   []scope // .default is still in
	pkce     string  // challenge
	method   string  // plain or S256
	prompt   string
	hint     string
	domain   string
	cp1      bool // client declared continuous access evaluation
	info     bool // client_info=1
	device   *device
	admin    *adminRequest

	account   *account // chosen and found
	address   string   // typed or hinted
	problem   string   // shown on the page
	number    int      // to be entered in the authenticator
	picked    bool
	fresh     bool // gave a password in this flow
	approved  bool // by the authenticator, in this flow
	confirmed bool // device code: "yes, it is me"
	consented bool
	asked     bool // for approval by an administrator
	stay      string
}

// authorize begins a flow, or shows what is wrong with the request.
func (en *entra) authorize(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodPost {
		en.showError(w, r, fail("9002313"))
		return
	}
	if err := r.ParseForm(); err != nil {
		en.showError(w, r, fail("9002313"))
		return
	}
	en.sim.counts.add("authorize")
	en.mu.Lock()
	defer en.mu.Unlock()
	f, e := en.newFlow(r)
	if e != nil && (f == nil || e.noRedir) {
		en.showError(w, r, e)
		return
	}
	f.session = en.session(w, r)
	if e != nil {
		en.answerError(w, r, f, e)
		return
	}
	en.begin(f)
	en.next(w, r, f)
}

func (en *entra) begin(f *flow) {
	now := en.sim.Now()
	f.id, f.canary, f.made = newSecretText(), newSecretText(), now
	en.flows[f.id] = f
	sweep(en.flows, now, func(f *flow) time.Time { return f.made })
}

// newFlow reads an authorization request. A flow beside an error means that
// the error may go to the app.
func (en *entra) newFlow(r *http.Request) (*flow, *aadError) {
	g, e := en.where(r)
	if e != nil {
		return nil, e
	}
	for _, values := range r.Form {
		if len(values) > 1 {
			return nil, fail("9002313")
		}
	}
	q := r.Form.Get
	if q("client_id") == "" {
		return nil, fail("900144", "param", "client_id")
	}
	app, home, e := en.app(q("client_id"), g)
	if e != nil {
		return nil, e
	}
	f := &flow{segment: g, app: app, home: home, redirect: q("redirect_uri"),
		state: q("state"), nonce: q("nonce"), mode: q("response_mode"),
		pkce: q("code_challenge"), method: q("code_challenge_method"), prompt: q("prompt"),
		hint: q("login_hint"), domain: q("domain_hint"),
		info: q("client_info") == "1", cp1: declaresCP1(q("claims"))}
	if e := f.checkRedirect(); e != nil {
		return nil, e
	}
	return f, en.checkRequest(f, q("response_type"), q("scope"))
}

func (f *flow) checkRedirect() *aadError {
	if f.redirect == "" {
		if len(f.app.Redirect) == 0 {
			return fail("500113")
		}
		f.redirect = f.app.Redirect[0].URI
	}
	var ok bool
	if f.platform, ok = f.app.redirect(f.redirect); !ok {
		if len(f.app.Redirect) == 0 && !f.app.AnyLoopback {
			return fail("500113")
		}
		return fail("50011", "uri", f.redirect, "appId", f.app.ID)
	}
	return nil
}

// checkRequest finds what the app did wrong and can be told.
func (en *entra) checkRequest(f *flow, responseType, scopeParam string) *aadError {
	if f.mode == "" {
		f.mode = "query"
	}
	if !slices.Contains([]string{"query", "fragment", "form_post"}, f.mode) {
		bad := f.mode
		f.mode = "query"
		return fail("90023", "why", "Unsupported 'response_mode' value '"+bad+"'.")
	}
	switch {
	case responseType == "":
		return fail("900144", "param", "response_type")
	case strings.Contains(responseType, "id_token"):
		return fail("700054")
	case responseType != "code":
		return fail("90023", "why", "Unsupported 'response_type' value.").as("unsupported_response_type")
	}
	if e := f.checkPKCE(); e != nil {
		return e
	}
	prompts := []string{"", "login", "none", "consent", "select_account", "create"}
	if !slices.Contains(prompts, f.prompt) {
		return fail("90023", "why", "Unsupported 'prompt' value.")
	}
	if f.prompt == "select_account" && f.hint != "" && en.view().Knobs.RefuseHintOnSelect {
		return fail("90023", "why", "'login_hint' can't be combined with 'prompt' value 'select_account'.")
	}
	var e *aadError
	f.scopes, e = en.readScopes(scopeParam, f.segment, f.app)
	return e
}

func (f *flow) checkPKCE() *aadError {
	switch {
	case f.pkce == "" && f.platform == PlatformSPA:
		return fail("9002325")
	case f.pkce == "" && f.method != "":
		return fail("501491", "why", "code_challenge_method without code_challenge")
	case f.pkce == "":
		return nil
	case f.method == "":
		f.method = "plain"
	}
	if f.method != "plain" && f.method != "S256" {
		return fail("501491", "why", "unsupported code_challenge_method '"+f.method+"'")
	}
	if len(f.pkce) < 43 || len(f.pkce) > 128 || f.method == "S256" && len(f.pkce) != 43 {
		return fail("50147")
	}
	return nil
}

// readScopes checks a scope parameter. Several resources are allowed here, as
// they are in an authorization request.
func (en *entra) readScopes(param string, g segment, app *App) ([]scope, *aadError) {
	if strings.TrimSpace(param) == "" {
		return nil, fail("900144", "param", "scope")
	}
	cloud := "*"
	directory := g.name
	if g.tenant != nil {
		cloud, directory = g.tenant.Cloud, g.tenant.Name
	}
	all := parseScopes(param, cloud)
	named, whole := false, false
	for _, s := range all {
		if slices.Contains(oidcScopes, s.raw) {
			continue
		}
		if s.resource == nil {
			if !strings.Contains(s.uri, ":") && !isGUID(s.uri) {
				return nil, fail("70011", "s", s.raw)
			}
			return nil, fail("500011", "uri", s.uri, "tenant", directory)
		}
		if s.name == ".default" {
			whole = true
			continue
		}
		named = true
		if !slices.Contains(s.resource.delegated, s.name) {
			return nil, fail("650053", "name", app.Name, "s", s.name, "resource", s.resource.appID)
		}
	}
	if named && whole {
		e := fail("70011", "s", param)
		e.text += " .default scope can't be combined with resource-specific scopes."
		return nil, e
	}
	return all, nil
}

// answer sends the browser back to the app in the mode that it asked for.
// A redirect is a 303, so that no credential is posted again.
func (en *entra) answer(w http.ResponseWriter, r *http.Request, f *flow, values url.Values) {
	delete(en.flows, f.id)
	if f.state != "" {
		values.Set("state", f.state)
	}
	if en.view().Knobs.ResponseIssuer && f.account != nil {
		values.Set("iss", en.base(r)+"/"+f.account.tenant.ID+"/v2.0")
	}
	entraHeaders(w, newGUID())
	switch f.mode {
	case "form_post":
		en.show(w, http.StatusOK, "formpost", page{Title: "Working...", Action: f.redirect, Values: values})
	case "fragment":
		http.Redirect(w, r, f.redirect+"#"+values.Encode(), http.StatusSeeOther)
	default:
		http.Redirect(w, r, withQuery(f.redirect, values), http.StatusSeeOther)
	}
}

func withQuery(uri string, values url.Values) string {
	joint := "?"
	if strings.Contains(uri, "?") {
		joint = "&"
	}
	return uri + joint + values.Encode()
}

// answerError sends an error to the app, or shows it where the app must not
// hear it.
func (en *entra) answerError(w http.ResponseWriter, r *http.Request, f *flow, e *aadError) {
	if e.noRedir || f.redirect == "" {
		delete(en.flows, f.id)
		en.showError(w, r, e)
		return
	}
	t := en.trace(r, e)
	values := url.Values{"error": {e.err}, "error_description": {t.description()}}
	values.Set("error_uri", en.base(r)+"/error?code="+e.code)
	if e.sub != "" {
		values.Set("error_subcode", e.sub)
	}
	if f.admin != nil && e.err == "access_denied" {
		f.adminDenied(values)
	}
	en.answer(w, r, f, values)
}
