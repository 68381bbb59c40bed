package sim

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// The entra part is the sign-in service. What outlives a request but not the
// process is here; what an administrator can see is in the World.
type entra struct {
	sim *Sim

	mu       sync.Mutex
	flows    map[string]*flow    // sign-ins under way, by id
	sessions map[string]*session // browsers, by cookie
	codes    map[string]*code    // authorization codes
	devices  map[string]*device  // by device code
	families map[string]*family  // refresh tokens, while RotateStrict is on
}

func newEntra(s *Sim) *entra {
	return &entra{sim: s,
		flows:    map[string]*flow{},
		sessions: map[string]*session{},
		codes:    map[string]*code{},
		devices:  map[string]*device{},
		families: map[string]*family{},
	}
}

func (en *entra) view() *view { return en.sim.world.now.Load() }

func (en *entra) routes(mux *http.ServeMux) {
	f := en.sim.faults.around
	discovery := f("discovery", en.discovery)
	mux.HandleFunc("GET /{tenant}/v2.0/.well-known/openid-configuration", discovery)
	mux.HandleFunc("GET /{tenant}/.well-known/openid-configuration", discovery)
	mux.HandleFunc("GET /{tenant}/discovery/v2.0/keys", f("jwks", en.jwks))
	mux.HandleFunc("GET /{tenant}/discovery/keys", f("jwks", en.jwks))
	mux.HandleFunc("GET /common/discovery/instance", en.instance)
	mux.HandleFunc("/{tenant}/oauth2/v2.0/authorize", f("authorize", en.authorize))
	mux.HandleFunc("/{tenant}/oauth2/v2.0/token", f("token", en.token))
	mux.HandleFunc("/{tenant}/oauth2/v2.0/devicecode", f("devicecode", en.deviceCode))
	mux.HandleFunc("/{tenant}/oauth2/v2.0/logout", f("logout", en.logout))
	mux.HandleFunc("GET /{tenant}/v2.0/adminconsent", f("adminconsent", en.adminConsent))
	mux.HandleFunc("GET /{tenant}/adminconsent", f("adminconsent", en.adminConsent))
	mux.HandleFunc("POST /{tenant}/login", en.login)
	mux.HandleFunc("GET /{tenant}/login", en.login)
	mux.HandleFunc("/devicelogin", en.deviceLogin)
	mux.HandleFunc("GET /error", en.errorPage)
}

// base is the address under which a client reached us: one of Microsoft's
// names if its resolver was bent, our own otherwise.
func (en *entra) base(r *http.Request) string {
	host := strings.ToLower(r.Host)
	if name, _, _ := strings.Cut(host, ":"); r.TLS != nil && name != "localhost" && containsFold(servedHosts, name) {
		return "https://" + host
	}
	return en.sim.LoginURL()
}

// pages is where a person's browser is sent.
func (en *entra) pages(r *http.Request) string {
	if en.view().Knobs.AnnounceBrowserURL {
		return en.sim.BrowserURL()
	}
	return en.base(r)
}

// An authority is the tenant segment of a path.
type segment struct {
	name   string
	tenant *Tenant // nil for common and organizations
}

func (g segment) common() bool { return g.tenant == nil }

// where resolves the tenant segment: a GUID, a domain, common, organizations
// or consumers.
func (en *entra) where(r *http.Request) (segment, *aadError) {
	name := strings.ToLower(r.PathValue("tenant"))
	switch name {
	case "common", "organizations":
		return segment{name: name}, nil
	case "consumers":
		t := en.view().tenants[consumersTenant]
		if t == nil {
			return segment{}, fail("90002", "t", name)
		}
		return segment{name, t}, nil
	}
	if t := en.view().tenants[name]; t != nil {
		return segment{name, t}, nil
	}
	if !isGUID(name) && !strings.Contains(name, ".") {
		return segment{}, fail("900023", "x", name)
	}
	e := fail("90002", "t", name)
	if strings.Contains(r.URL.Path, ".well-known") {
		e.err = "invalid_tenant"
	}
	return segment{}, e
}

// admits says whether accounts of tenant t may come this way.
func (g segment) admits(t *Tenant) bool {
	switch {
	case g.tenant != nil:
		return g.tenant.ID == t.ID
	case g.name == "organizations":
		return t.ID != consumersTenant
	}
	return true
}

// app finds the registration with that client id as seen from a tenant.
func (en *entra) app(id string, g segment) (*App, *Tenant, *aadError) {
	at, ok := en.view().apps[strings.ToLower(id)]
	directory := g.name
	if g.tenant != nil {
		directory = g.tenant.Name
	}
	if !ok {
		return nil, nil, fail("700016", "appId", id, "tenant", directory).page()
	}
	app, home := at.item, at.tenant
	if app.Disabled {
		return nil, nil, fail("70001", "appId", app.ID, "name", app.Name).page()
	}
	if g.common() && app.accounts() == AudienceTenant {
		return nil, nil, fail("50194", "appId", app.ID, "name", app.Name).page()
	}
	if g.tenant != nil && !app.takes(g.tenant, home) {
		return nil, nil, fail("700016", "appId", id, "tenant", directory).page()
	}
	return app, home, nil
}

func (a *App) accounts() string {
	if a.Accounts == "" {
		return AudienceTenant
	}
	return a.Accounts
}

// takes says whether accounts of t may sign in to an app that lives in home.
func (a *App) takes(t, home *Tenant) bool {
	personal := t.ID == consumersTenant
	switch a.accounts() {
	case AudienceOrganizations:
		return !personal
	case AudienceAll:
		return true
	case AudienceConsumers:
		return personal
	}
	return t.ID == home.ID
}

// redirect finds how a redirect URI is registered. A native loopback matches
// any port.
func (a *App) redirect(uri string) (platform string, ok bool) {
	u, err := url.Parse(uri)
	if err != nil || !u.IsAbs() || u.Fragment != "" {
		return "", false
	}
	for _, r := range a.Redirect {
		if r.URI == uri || r.Platform == PlatformNative && sameLoopback(r.URI, u) {
			if r.Platform == "" {
				return PlatformWeb, true
			}
			return r.Platform, true
		}
	}
	if a.AnyLoopback && (u.Scheme == "http" || u.Scheme == "https") && isLoopback(u) {
		return PlatformWeb, true
	}
	return "", false
}

func isLoopback(u *url.URL) bool {
	switch u.Hostname() {
	case "localhost", "127.0.0.1", "::1":
		return true
	}
	return false
}

func sameLoopback(registered string, u *url.URL) bool {
	r, err := url.Parse(registered)
	return err == nil && isLoopback(r) && r.Scheme == u.Scheme && r.Hostname() == u.Hostname() &&
		strings.TrimSuffix(r.Path, "/") == strings.TrimSuffix(u.Path, "/")
}

// sweep forgets what is older than a day, so that a sim may run for months.
func sweep[T any](m map[string]T, now time.Time, made func(T) time.Time) {
	if len(m) < 1000 {
		return
	}
	for k, v := range m {
		if now.Sub(made(v)) > 24*time.Hour {
			delete(m, k)
		}
	}
}
