package console

import (
	"net/http"
	"strings"
	"testing"

	"github.com/mailgrant/mailgrant"
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
	t.Log(r.text())
}

func TestAPersonDeclines(t *testing.T) {
	h := newHouse(t, options{})
	link, b := h.link(h.grant(alex), store.FlowConsent), h.browser()
	r := b.consent(link, sim.SignIn{Address: alex, Decline: true})
	t.Log(r.text())
	r.wants(t, http.StatusForbidden, "The permission was not given", "Begin again", "Nothing was kept")
	b.consent(link, sim.SignIn{Address: alex}).wants(t, http.StatusOK, "is connected")
}
