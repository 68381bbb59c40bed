package sim

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// missingConsent asks for what the app wants and nobody granted yet.
func (en *entra) missingConsent(f *flow) (string, page, *aadError) {
	if f.admin != nil {
		return en.missingAdmin(f)
	}
	wanted := expand(f.scopes, f.app.Delegated, "*")
	if len(wanted) == 0 {
		return "", page{}, fillApp(fail("650056", "api", graphResource.name), f.app).page()
	}
	open := f.ungranted(wanted)
	if len(open) == 0 && (f.prompt != "consent" || f.consented) {
		return "", page{}, nil
	}
	t, u := f.account.tenant, f.account.user
	if !u.isAdmin() && len(open) > 0 && (t.UserConsent == "none" || needsAdmin(open)) {
		title := "Need admin approval"
		if t.ConsentWorkflow {
			title = "Approval required"
		}
		return "needadmin", page{Title: title, Tenant: t, Scopes: permissions(wanted)}, nil
	}
	return "consent", page{Title: "Permissions requested", Tenant: t, Scopes: permissions(wanted),
		Publisher: f.home.Name, MayDecideForAll: u.isAdmin()}, nil
}

func needsAdmin(scopes []scope) bool {
	return slices.ContainsFunc(scopes, func(s scope) bool { return slices.Contains(onlyAdminScopes, s.name) })
}

func (f *flow) ungranted(wanted []scope) []scope {
	have := f.account.tenant.consented(f.app.ID, f.account.oid)
	var open []scope
	for _, s := range wanted {
		if !slices.Contains(have, s.full()) {
			open = append(open, s)
		}
	}
	return open
}

func permissions(scopes []scope) []permission {
	var list []permission
	seen := map[string]bool{}
	for _, s := range scopes {
		title, detail := describe(s)
		if !seen[title] {
			list = append(list, permission{title, detail, s.full()})
		}
		seen[title] = true
	}
	return list
}

// enterConsent records the answer to the consent page.
func (en *entra) enterConsent(f *flow, yes, forAll bool) *aadError {
	if f.account == nil {
		return fail("50058")
	}
	if ask, _, e := en.missing(f); e != nil || ask != "consent" && ask != "adminconsent" {
		return e // the page is not due: an answer from elsewhere grants nothing
	}
	if !yes {
		return fail("65004")
	}
	f.consented = true
	if f.admin != nil {
		return en.consentForAll(f)
	}
	var full []string
	for _, s := range expand(f.scopes, f.app.Delegated, "*") {
		full = append(full, s.full())
	}
	oid := f.account.oid
	if forAll && f.account.user.isAdmin() {
		oid = ""
	}
	en.sim.counts.add("consent")
	return en.record(f, oid, full, nil)
}

func (en *entra) record(f *flow, oid string, scopes, roles []string) *aadError {
	err := en.sim.world.ChangeTenant(f.account.tenant.ID, func(t *Tenant) {
		t.consent(f.app.ID, oid, scopes, roles)
	})
	if err != nil {
		return fail("90002", "t", f.account.tenant.ID)
	}
	en.refresh(f)
	return nil
}

func (en *entra) enterNeedAdmin(f *flow, answer string) *aadError {
	t := f.account.tenant
	switch answer {
	case "request":
		f.asked = true
		en.sim.counts.add("consent.requested")
		return fail("90095")
	case "other":
		f.enterAccount("")
		return nil
	}
	return fail("90094", "tenant", t.Name, "name", f.app.Name)
}

// An adminRequest is what an admin consent asks for. The answer of version 1
// is shorter.
type adminRequest struct {
	v1    bool
	roles []scope
	scope string
}

// adminConsent begins a consent for a whole tenant. It yields no token.
func (en *entra) adminConsent(w http.ResponseWriter, r *http.Request) {
	en.sim.counts.add("adminconsent")
	en.mu.Lock()
	defer en.mu.Unlock()
	f, e := en.newAdminFlow(r)
	if e != nil && f == nil {
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

func (en *entra) newAdminFlow(r *http.Request) (*flow, *aadError) {
	g, e := en.where(r)
	if e != nil {
		return nil, e
	}
	if g.name == "common" || g.name == "consumers" {
		return nil, fail("9001023")
	}
	q := r.URL.Query()
	app, home, e := en.adminApp(q.Get("client_id"), g)
	if e != nil {
		return nil, e
	}
	f := &flow{segment: g, app: app, home: home, redirect: q.Get("redirect_uri"), state: q.Get("state"), mode: "query",
		admin: &adminRequest{v1: !strings.Contains(r.URL.Path, "/v2.0/"), scope: q.Get("scope")}}
	if e := f.checkRedirect(); e != nil {
		return nil, e
	}
	return f, f.readAdminScopes()
}

// adminApp is app, except that organizations does for single-tenant apps too.
func (en *entra) adminApp(id string, g segment) (*App, *Tenant, *aadError) {
	at, ok := en.view().apps[strings.ToLower(id)]
	if g.common() && ok && at.item.accounts() == AudienceTenant {
		g = segment{name: at.tenant.Name, tenant: at.tenant}
	}
	return en.app(id, g)
}

// readAdminScopes sorts the request into delegated and application
// permissions: .default is all that the app configured for a resource.
func (f *flow) readAdminScopes() *aadError {
	if f.admin.v1 {
		f.scopes = parseScopes(strings.Join(f.app.Delegated, " "), "*")
		f.admin.roles = parseScopes(strings.Join(f.app.Application, " "), "*")
		return nil
	}
	if strings.TrimSpace(f.admin.scope) == "" {
		return fail("900144", "param", "scope")
	}
	for _, s := range parseScopes(f.admin.scope, "*") {
		switch {
		case slices.Contains(oidcScopes, s.raw):
			f.scopes = append(f.scopes, s)
		case s.resource == nil:
			return fail("500011", "uri", s.uri, "tenant", f.segment.name)
		case s.name == ".default":
			f.scopes = append(f.scopes, expand([]scope{s}, f.app.Delegated, "*")...)
			f.admin.roles = append(f.admin.roles, expand([]scope{s}, f.app.Application, "*")...)
		case !slices.Contains(s.resource.delegated, s.name):
			return fail("650053", "name", f.app.Name, "s", s.name, "resource", s.resource.appID)
		default:
			f.scopes = append(f.scopes, s)
		}
	}
	if len(f.scopes)+len(f.admin.roles) == 0 {
		return fillApp(fail("650056", "api", f.admin.scope), f.app).page()
	}
	return nil
}

func (en *entra) missingAdmin(f *flow) (string, page, *aadError) {
	t := f.account.tenant
	all := permissions(append(slices.Clone(f.scopes), f.admin.roles...))
	if !f.account.user.isAdmin() {
		return "needadmin", page{Title: "Need admin approval", Tenant: t, Scopes: all}, nil
	}
	if f.consented {
		return "", page{}, nil
	}
	return "adminconsent", page{Title: "Permissions requested", Tenant: t, Scopes: all, Publisher: f.home.Name}, nil
}

func (en *entra) consentForAll(f *flow) *aadError {
	if !f.account.user.isAdmin() {
		return fail("90094", "tenant", f.account.tenant.Name, "name", f.app.Name)
	}
	var scopes, roles []string
	for _, s := range f.scopes {
		scopes = append(scopes, s.full())
	}
	for _, s := range f.admin.roles {
		roles = append(roles, s.full())
	}
	en.sim.counts.add("adminconsent.granted")
	return en.record(f, "", scopes, roles)
}

func (en *entra) finishAdmin(w http.ResponseWriter, r *http.Request, f *flow) {
	values := url.Values{"admin_consent": {"True"}, "tenant": {f.account.tenant.ID}}
	if !f.admin.v1 {
		values.Set("scope", f.admin.scope)
	}
	en.answer(w, r, f, values)
}

// adminDenied is the odd answer to a refused admin consent: in version 2,
// admin_consent=True stands beside the error.
func (f *flow) adminDenied(values url.Values) {
	if f.admin.v1 {
		values.Set("error", "permission_denied")
		values.Set("error_description", "The admin canceled the request")
		return
	}
	values.Set("error", "consent_required")
	values.Set("admin_consent", "True")
	if f.account != nil {
		values.Set("tenant", f.account.tenant.ID)
	}
}
