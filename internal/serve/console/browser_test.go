package console

import (
	"image/png"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/store"
	"github.com/mailgrant/mailgrant/sim"
	"github.com/mailgrant/mailgrant/test/real"
)

// artifacts is where pictures of the pages are left for people to look at.
func artifacts(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", "..", "..", "test", "artifacts", "console"))
	must(t, err)
	must(t, os.MkdirAll(dir, 0o755))
	return dir
}

// sampleServer serves the pages of samples, and those that anybody may read.
func sampleServer(t *testing.T) string {
	h, all := without(), samples()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p, ok := all[strings.TrimPrefix(r.URL.Path, "/sample/")]; ok {
			s := &console{Config: Config{Version: "1.2.3"}}
			s.headers(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.show(w, r, http.StatusOK, p) })).ServeHTTP(w, r)
			return
		}
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

// samplePaths are the addresses of all pages, by name.
func samplePaths() map[string]string {
	paths := map[string]string{"docs-start": "/docs/start", "docs-operate": "/docs/operate", "docs-list": "/docs/", "docs-causes": "/docs/errors/",
		"docs-cause": "/docs/errors/smtp-auth-disabled-mailbox", "docs-search": "/docs/errors/?q=535+5.7.139+SmtpClientAuthentication+is+disabled"}
	for name := range samples() {
		paths[name] = "/sample/" + name
	}
	return paths
}

// inDark are pages that together have all there is to colour.
var inDark = []string{"home", "connect", "approve-app", "connected", "failed-administrator", "failed-steps", "causes-found", "cause", "document"}

// alike are pages that have nothing which another has not.
var alike = []string{"approved-app", "approved-later", "causes-none", "connected-shared", "docs-list", "failed-denied-approval", "failed-unavailable", "foreign", "slow"}

// TestPagesAreForEverybody holds every page to what axe knows of people who cannot
// see it, and to its own policy; on a telephone nothing is wider than the screen.
func TestPagesAreForEverybody(t *testing.T) {
	dir, url := artifacts(t), sampleServer(t)
	light, dark, phone := real.NewBrowser(t), real.NewBrowserWith(t, real.PageOptions{Dark: true}), real.NewBrowserWith(t, real.PageOptions{Width: 390, Height: 844})
	look := func(b *real.Browser, name, path, kind string) string {
		if status := b.Goto(url + path); status != http.StatusOK {
			t.Fatalf("%s: %d", path, status)
		}
		if kind != "phone" {
			for _, v := range b.Accessibility() {
				t.Errorf("%s, %s: %s", name, kind, v)
			}
		}
		file := filepath.Join(dir, name+"-"+kind+".png")
		if kind == "phone" || slices.Contains(inDark, name) {
			b.Screenshot(file)
		}
		return file
	}
	for name, path := range samplePaths() {
		if !slices.Contains(alike, name) {
			look(light, name, path, "light")
		}
		if slices.Contains(inDark, name) {
			look(dark, name, path, "dark")
		}
		if got := widthOf(t, look(phone, name, path, "phone")); got != 390 {
			t.Errorf("%s is %d wide on a screen of 390", name, got)
		}
	}
	for kind, b := range map[string]*real.Browser{"light": light, "dark": dark, "phone": phone} {
		if got := b.Faults(); len(got) > 0 {
			t.Errorf("%s: %v", kind, got)
		}
		if got := b.Elsewhere(); len(got) > 0 {
			t.Errorf("%s: asked elsewhere for %v", kind, got)
		}
	}
}

func widthOf(t *testing.T, file string) int {
	t.Helper()
	f, err := os.Open(file)
	must(t, err)
	defer f.Close()
	c, err := png.DecodeConfig(f)
	must(t, err)
	return c.Width
}

// TestChromiumConnectsAMailbox is a person's whole way: the link, another account
// by mistake, the right one with its second factor, and the page at the end. No
// script runs on any page.
func TestChromiumConnectsAMailbox(t *testing.T) {
	h := newHouse(t, options{})
	g := h.grant(alex)
	link := h.url + h.link(g, store.FlowConsent)
	b := real.NewBrowserWith(t, real.PageOptions{NoScript: true})

	b.Goto(link)
	b.Press("Tab")
	if got := b.Focused(); !strings.Contains(got, "Continue to Microsoft 365") {
		t.Errorf("the first key press leads to %q, not to the button", got)
	}
	b.Press("Enter")
	h.walk(b, kim)
	if got := b.Text("h1"); got != "That was another account" {
		t.Fatalf("came to %q\n%s", got, b.Text("main"))
	}

	b.Click(`role=link[name="Begin again"]`)
	b.Click(`role=button[name="Continue to Microsoft 365"]`)
	h.walk(b, alex)
	if got := b.Text("h1"); got != "alex@contoso.example is connected" {
		t.Fatalf("came to %q\n%s", got, b.Text("main"))
	}
	if u := b.URL(); strings.Contains(u, "code=") || strings.Contains(u, "state=") {
		t.Errorf("the address bar says %s", u)
	}
	g, err := h.store.Grant(t.Context(), h.org, g.ID)
	must(t, err)
	if g.State != mailgrant.GrantActive || g.Subject.UPN != alex {
		t.Errorf("the grant is %s for %q", g.State, g.Subject.UPN)
	}
	b.Reload()
	b.Wait("text=is connected")
	b.Back() // leads to the provider's page, never to an address with a code
	if u := b.URL(); strings.Contains(u, "code=") {
		t.Errorf("back is %s", u)
	}
	if got := b.Elsewhere(); len(got) > 0 {
		t.Errorf("asked elsewhere for %v", got)
	}
}

// walk answers the sim's pages until one of ours is there.
func (h *house) walk(b *real.Browser, address string) {
	h.t.Helper()
	const ours = ".trip h1"
	b.Wait("form[data-step] button")
	for range 12 {
		step := b.Attribute("form[data-step]", "data-step")
		switch step {
		case "pick":
			b.Click("text=Use another account")
		case "address":
			b.Fill("#account", address)
			b.Press("Enter")
		case "password":
			b.Fill("#password", sim.ContosoPassword)
			b.Click(`role=button[name="Sign in"]`)
		case "number":
			b.Fill("#entered", b.Text("#number"))
			b.Click(`role=button[name="Yes"]`)
		case "stay":
			b.Click(`role=button[name="No"]`)
		case "consent", "adminconsent":
			b.Click(`role=button[name="Accept"]`)
		case "needadmin":
			b.Click("text=Return to the application without granting consent")
		default:
			h.t.Fatalf("at the page %q of the provider", step)
		}
		// The page that sends a form by itself has no button to be seen.
		b.Wait(ours + ", form[data-step]:not([data-step=" + step + "]) button")
		if b.Count(ours) > 0 {
			return
		}
	}
	h.t.Fatal("the provider's pages do not end")
}

func TestChromiumAsksAnAdministrator(t *testing.T) {
	h := newHouse(t, options{})
	must(t, h.sim.World().ChangeTenant(sim.ContosoTenantID, func(c *sim.Tenant) { c.UserConsent = "none" }))
	b, boss := real.NewBrowser(t), real.NewBrowser(t)
	b.Goto(h.url + h.link(h.grant(alex), store.FlowConsent))
	b.Click(`role=button[name="Continue to Microsoft 365"]`)
	h.walk(b, alex)
	if got := b.Text("h1"); got != "An administrator has to approve this first" {
		t.Fatalf("came to %q\n%s", got, b.Text("main"))
	}
	boss.Goto(b.Attribute("[aria-label='Lines for your administrator'] a", "href"))
	boss.Click(`role=button[name="Continue to Microsoft 365"]`)
	h.walk(boss, admin)
	if got := boss.Text("h1"); got != "The application is approved" {
		t.Fatalf("the administrator came to %q\n%s", got, boss.Text("main"))
	}
	b.Click(`role=link[name="Begin again after the approval"]`)
	b.Click(`role=button[name="Continue to Microsoft 365"]`)
	h.walk(b, alex)
	if got := b.Text("h1"); got != "alex@contoso.example is connected" {
		t.Errorf("came to %q\n%s", got, b.Text("main"))
	}
}

// A form that the provider's page posts comes without our Lax cookie; the browser
// brings it to the address it is then sent on to.
func TestChromiumBringsAFormOfTheProvider(t *testing.T) {
	h := newHouse(t, options{formPost: true})
	b := real.NewBrowser(t)
	b.Goto(h.url + h.link(h.grant(kim), store.FlowConsent))
	b.Click(`role=button[name="Continue to Microsoft 365"]`)
	h.walk(b, kim)
	b.WaitURL("/oauth/result/")
	if got := b.Text("h1"); got != "kim@contoso.example is connected" {
		t.Errorf("came to %q\n%s", got, b.Text("main"))
	}
}

// The provider is npm's oidc-provider, which we did not write.
func TestChromiumConnectsAtARealProvider(t *testing.T) {
	var p *real.OIDC
	h := newHouse(t, options{settings: func(h *house, r *mailgrant.Registration) string {
		p = real.NewOIDC(t, real.OIDCOptions{RedirectURIs: []string{h.keeper.RedirectURI(r.ID)}})
		t.Cleanup(p.Client.CloseIdleConnections)
		h.keeper.HTTP = func(mailgrant.Registration) *http.Client { return p.Client }
		*r = mailgrant.Registration{ID: r.ID, Org: r.Org, Name: "Real", Template: "generic", Issuer: p.Issuer, ClientID: p.ClientID, ScopesExtra: p.Scopes}
		return p.ClientSecret
	}})
	g := h.grant(real.Alex)
	link := h.url + h.link(g, store.FlowConsent)
	for _, deny := range []bool{true, false} {
		b := real.NewBrowser(t)
		b.Goto(link)
		b.Click("role=button[name^='Continue to']")
		b.Fill("#address", real.Alex)
		b.Fill("#password", real.Password)
		b.Press("Enter")
		if deny {
			b.Click(`role=button[name="Deny"]`)
		} else {
			b.Click(`role=button[name="Allow"]`)
		}
		b.WaitURL("/oauth/result/")
		want := "alex@real.example is connected"
		if deny {
			want = "The permission was not given"
		}
		if got := b.Text("h1"); got != want {
			t.Fatalf("came to %q, want %q\n%s", got, want, b.Text("main"))
		}
		if got := b.Accessibility(); len(got) > 0 {
			t.Error(got)
		}
	}
	if g, err := h.store.Grant(t.Context(), h.org, g.ID); err != nil || g.State != mailgrant.GrantActive || g.Subject.Issuer != p.Issuer {
		t.Errorf("the grant is %+v, %v", g, err)
	}
}
