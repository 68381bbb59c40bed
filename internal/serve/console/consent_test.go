package console

import (
	"context"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/grant"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/store"
	"github.com/mailgrant/mailgrant/sim"
)

func TestAPersonConnectsAMailbox(t *testing.T) {
	h := newHouse(t, options{})
	g := h.grant(alex)
	link, b := h.link(g, store.FlowConsent), h.browser()

	first := b.get(link)
	first.wants(t, http.StatusOK, "Contoso asks for your consent", "Connect alex@contoso.example", "send mail as this mailbox", "Choose the account alex@contoso.example",
		"Continue to Microsoft 365", "ada@contoso.example", "Contoso Mail", "modern authentication", "SMTP.Send")
	last := b.consent(link, sim.SignIn{Address: alex})
	last.wants(t, http.StatusOK, "alex@contoso.example is connected", "You can close this window", "send mail as alex@contoso.example", "How to take it back", "myapplications.microsoft.com")

	g, err := h.store.Grant(t.Context(), h.org, g.ID)
	must(t, err)
	if g.State != mailgrant.GrantActive || g.Subject.UPN != alex {
		t.Errorf("the grant is %s for %q", g.State, g.Subject.UPN)
	}
	b.get(last.At).wants(t, http.StatusOK, "is connected")               // loading it again is fine
	h.browser().get(last.At).wants(t, http.StatusGone, "no longer here") // but not elsewhere
	b.get(link).wants(t, http.StatusNotFound, "This link does not work")
}

func TestAnAdministratorApproves(t *testing.T) {
	h := newHouse(t, options{})
	g := h.grant(alex)
	link, b := h.link(g, store.FlowAdminConsent), h.browser()
	b.get(link).wants(t, http.StatusOK, "For an administrator of Contoso", "Approve “Contoso Mail”", "alex@contoso.example", "SMTP.Send")
	b.consent(link, sim.SignIn{Address: admin}).wants(t, http.StatusOK, "The application is approved", "Now the owner of alex@contoso.example can open their own link")
}

func TestAnAdministratorDeclines(t *testing.T) {
	h := newHouse(t, options{})
	link, b := h.link(h.grant(alex), store.FlowAdminConsent), h.browser()
	r := b.consent(link, sim.SignIn{Address: admin, Decline: true})
	r.wants(t, http.StatusForbidden, "Begin again")
	if !strings.Contains(r.Body, `href="`+link+`"`) {
		t.Error("no way to begin again")
	}
}

func TestAPersonDeclines(t *testing.T) {
	h := newHouse(t, options{})
	link, b := h.link(h.grant(alex), store.FlowConsent), h.browser()
	r := b.consent(link, sim.SignIn{Address: alex, Decline: true})
	r.wants(t, http.StatusForbidden, "The permission was not given", "Begin again", "Nothing was kept")
	b.consent(link, sim.SignIn{Address: alex}).wants(t, http.StatusOK, "is connected")
}

func TestAnAdministratorIsNeeded(t *testing.T) {
	h := newHouse(t, options{})
	must(t, h.sim.World().ChangeTenant(sim.ContosoTenantID, func(c *sim.Tenant) { c.UserConsent = "none" }))
	link, b := h.link(h.grant(alex), store.FlowConsent), h.browser()
	r := b.consent(link, sim.SignIn{Address: alex})
	r.wants(t, http.StatusForbidden, "An administrator has to approve this first", "Please let “Contoso Mail” use my mailbox alex@contoso.example", "Begin again")

	approve := regexp.MustCompile(regexp.QuoteMeta(h.url) + `(/connect/[\w-]+)`).FindStringSubmatch(r.Body)
	if approve == nil {
		t.Fatal("no link for the administrator")
	}
	h.browser().get(approve[1]).wants(t, http.StatusOK, "For an administrator", "whoever was asked to connect alex@contoso.example")
	h.browser().consent(approve[1], sim.SignIn{Address: admin}).wants(t, http.StatusOK, "The application is approved")
	b.consent(link, sim.SignIn{Address: alex}).wants(t, http.StatusOK, "alex@contoso.example is connected")
}

func TestASharedMailboxIsConnectedByWhoMayUseIt(t *testing.T) {
	h := newHouse(t, options{prove: func(context.Context, provider.Way) error { return nil }})
	g := h.grant("office@contoso.example", func(g *mailgrant.Grant) { g.MailboxKind = mailgrant.MailboxShared })
	link, b := h.link(g, store.FlowConsent), h.browser()
	b.get(link).wants(t, http.StatusOK, "Sign in with your own account", "Nobody signs in as a shared mailbox itself")
	b.consent(link, sim.SignIn{Address: kim}).wants(t, http.StatusOK, "office@contoso.example is connected", "You signed in as kim@contoso.example")
}

// The provider may post its answer from its own page, which our cookie does not
// go with.
func TestAnAnswerComesAsAForm(t *testing.T) {
	h := newHouse(t, options{formPost: true})
	link, b := h.link(h.grant(alex), store.FlowConsent), h.browser()
	back, err := url.Parse(b.signIn(b.begin(link), sim.SignIn{Address: alex}))
	must(t, err)
	form := back.Query()
	if form.Get("code") == "" {
		t.Fatalf("no code in %v", form)
	}
	jar := b.client.Jar
	b.client.Jar = nil
	r := b.do(http.MethodPost, h.url+back.Path, form, func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") })
	b.client.Jar = jar
	to := r.Header.Get("Location")
	if r.Status != http.StatusSeeOther || strings.Contains(to, form.Get("code")) || strings.Contains(to, form.Get("state")) {
		t.Fatalf("%d, sent on to %s", r.Status, to)
	}
	b.follow(b.get(to)).wants(t, http.StatusOK, "alex@contoso.example is connected")
	b.follow(b.get(to)).wants(t, http.StatusBadRequest, "begin again")
}

func TestAConsentReturnsToWhoAsked(t *testing.T) {
	const page = "https://cases.contoso.example/mail/done"
	h := newHouse(t, options{returnURLs: []string{page}})
	g, b := h.grant(alex), h.browser()
	c, err := h.keeper.Begin(t.Context(), h.org, g.ID, grant.BeginOptions{ReturnTo: page})
	must(t, err)
	at, err := url.Parse(h.url)
	must(t, err)
	b.client.Jar.SetCookies(at, []*http.Cookie{{Name: browserCookie, Value: c.Cookie}})
	r := b.get(b.signIn(c.URL, sim.SignIn{Address: alex}))
	if r.Status != http.StatusSeeOther || r.Header.Get("Location") != page {
		t.Errorf("%d to %q", r.Status, r.Header.Get("Location"))
	}
}

func TestTheProviderIsNotThere(t *testing.T) {
	h := newHouse(t, options{})
	link, b := h.link(h.grant(alex), store.FlowConsent), h.browser()
	back := b.signIn(b.begin(link), sim.SignIn{Address: alex})
	h.sim.Close()
	b.follow(b.get(back)).wants(t, http.StatusServiceUnavailable, "Begin again", "Trace number trc_")
}

func TestASwitchedOffRegistrationIsSaid(t *testing.T) {
	h := newHouse(t, options{})
	link, b := h.link(h.grant(alex), store.FlowConsent), h.browser()
	h.reg.Disabled = true
	must(t, h.store.UpdateRegistration(t.Context(), h.reg))
	b.get(link).wants(t, http.StatusConflict, "This did not work", "switched off", "Whoever runs mailgrant here", "Trace number trc_")
}

func TestHealth(t *testing.T) {
	h := newHouse(t, options{})
	if r := h.browser().get("/healthz"); r.Status != http.StatusOK || r.Body != "ok\n" {
		t.Errorf("%d %q", r.Status, r.Body)
	}
	h.store.Close()
	if r := h.browser().get("/healthz"); r.Status != http.StatusServiceUnavailable {
		t.Errorf("without a database: %d", r.Status)
	}
}
