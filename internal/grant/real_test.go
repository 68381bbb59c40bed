package grant_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/grant"
	"github.com/mailgrant/mailgrant/test/real"
)

// realHouse is a house whose provider is one that we did not write: npm's
// oidc-provider, found by its issuer alone.
func realHouse(t *testing.T) (*house, *real.OIDC) {
	t.Helper()
	h := newHouse(t)
	p := real.NewOIDC(t, real.OIDCOptions{RedirectURIs: []string{h.RedirectURI(h.reg.ID)}, NoExtraCallback: true})
	t.Cleanup(p.Client.CloseIdleConnections)
	h.HTTP = func(mailgrant.Registration) *http.Client { return p.Client }
	h.register(p, h.reg, p.ClientID, p.ClientSecret)
	return h, p
}

// register makes r a registration at the provider.
func (h *house) register(p *real.OIDC, r mailgrant.Registration, id, secret string) {
	h.t.Helper()
	r.Issuer, r.ClientID, r.ScopesExtra = p.Issuer, id, p.Scopes
	h.must(h.store.UpdateRegistration(h.ctx, r))
	l, err := h.store.Credentials(h.ctx, h.org, r.ID)
	h.must(err)
	for _, c := range l {
		h.must(h.store.DeleteCredential(h.ctx, h.org, c.ID))
	}
	h.reg = r
	h.secret(secret, nil)
}

// walk takes a person through the provider's pages.
func (h *house) walk(p *real.OIDC, g mailgrant.Grant, l real.Login) (grant.Result, error) {
	h.t.Helper()
	c, err := h.Begin(h.ctx, h.org, g.ID, grant.BeginOptions{})
	h.must(err)
	back, err := p.Consent(h.ctx, c.URL, l)
	h.must(err)
	u, err := url.Parse(back)
	h.must(err)
	if to := u.Scheme + "://" + u.Host + u.Path; to != h.RedirectURI(h.reg.ID) {
		h.t.Fatalf("the provider sends back to %s", to)
	}
	return h.Complete(h.ctx, h.reg.ID, u.Query(), c.Cookie)
}

func TestRealProviderConsentAndRotation(t *testing.T) {
	h, p := realHouse(t)
	g := h.pending(real.Alex, mailgrant.FlowCode, mailgrant.MailboxOwn)
	_, err := h.walk(p, g, real.Login{Address: real.Alex, Password: real.Password, Deny: true})
	h.is(err, mailgrant.Lapsed, "denied")
	_, err = h.walk(p, g, real.Login{Address: real.Robin, Password: real.Password})
	h.is(err, mailgrant.Forbidden, "another account")
	if h.grant(g.ID).State != mailgrant.GrantPending {
		t.Error("kept")
	}
	r, err := h.walk(p, g, real.Login{Address: real.Alex, Password: real.Password})
	if err != nil {
		t.Fatal(err)
	}
	if r.Grant.Subject.Address != real.Alex || r.Grant.Subject.Issuer != p.Issuer || !strings.Contains(strings.Join(r.Grant.ScopesGranted, " "), "mail.send mail.read") {
		t.Errorf("got %+v", r.Grant)
	}
	first, err := h.token(g)
	if err != nil || strings.Count(first, ".") != 2 {
		t.Fatalf("got %q, %v", first, err)
	}
	kept := h.kept(g.ID)
	for i := range 5 { // an old refresh token once more would end them all
		h.pass(2 * time.Hour)
		tok, err := senders(h, 50, h.Keeper, g)
		if err != nil || tok == first || h.kept(g.ID) == kept {
			t.Fatalf("expiry %d: %v", i, err)
		}
		first, kept = tok, h.kept(g.ID)
		if n := p.Counts(t); n.Token["refresh_token"] != i+1 || n.TokenErrors["invalid_grant"] != 0 {
			t.Fatalf("expiry %d: %+v", i, n)
		}
	}
	h.must(h.Revoke(h.ctx, h.org, g.ID))
	if _, err := p.Refresh(h.ctx, kept); err == nil {
		t.Error("the provider still takes the token of a disconnected grant")
	}
}

// TestRealProviderR153: a consent that fails leaves the token working, at the
// provider too.
func TestRealProviderR153(t *testing.T) {
	h, p := realHouse(t)
	g := h.pending(real.Alex, mailgrant.FlowCode, mailgrant.MailboxOwn)
	alex := real.Login{Address: real.Alex, Password: real.Password}
	if _, err := h.walk(p, g, alex); err != nil {
		t.Fatal(err)
	}
	_, err := h.walk(p, g, real.Login{Address: real.Robin, Password: real.Password})
	h.is(err, mailgrant.Forbidden, "another account")
	h.db.fail("CompleteConsent", -1)
	_, err = h.walk(p, g, alex)
	h.is(err, mailgrant.Unavailable, "the database is away")
	h.db.fail("CompleteConsent", 0)
	h.pass(2 * time.Hour)
	if _, err := h.token(g); err != nil {
		t.Errorf("the working token: %v", err)
	}
}

func TestRealProviderRevokedThere(t *testing.T) {
	h, p := realHouse(t)
	g := h.pending(real.Alex, mailgrant.FlowCode, mailgrant.MailboxOwn)
	login := real.Login{Address: real.Alex, Password: real.Password}
	if _, err := h.walk(p, g, login); err != nil {
		t.Fatal(err)
	}
	h.must(p.Revoke(h.ctx, h.kept(g.ID)))
	h.pass(2 * time.Hour)
	_, err := h.token(g)
	if e := h.is(err, mailgrant.Lapsed, "revoked at the provider"); e.Finding == nil || e.Finding.Cause != "grant-revoked" || h.kept(g.ID) == "" {
		t.Errorf("got %+v", e)
	}
	h.pass(-2 * time.Hour)
	if _, err := h.walk(p, g, login); err != nil {
		t.Errorf("again: %v", err)
	}
	if _, err := h.token(g); err != nil {
		t.Errorf("again: %v", err)
	}
}

func TestRealProviderClientCredentials(t *testing.T) {
	h, p := realHouse(t)
	h.register(p, h.reg, p.AppClientID, p.AppClientSecret)
	g := h.pending(real.System, mailgrant.FlowApp, mailgrant.MailboxApp)
	now, err := h.Activate(h.ctx, h.org, g.ID)
	if err != nil || now.State != mailgrant.GrantActive {
		t.Fatalf("got %+v, %v", now, err)
	}
	first, err := h.token(g)
	if err != nil || strings.Count(first, ".") != 2 || len(h.opened) != 1 || h.opened[0] != real.System+" "+first {
		t.Errorf("got %q, %v, opened %q", first, err, h.opened)
	}
	h.pass(2 * time.Hour)
	if tok, err := senders(h, 50, h.Keeper, g); err != nil || tok == first || p.Counts(t).Token["client_credentials"] != 2 {
		t.Errorf("later: %v, %+v", err, p.Counts(t))
	}
	h.register(p, h.reg, p.AppClientID, "wrong")
	h.pass(2 * time.Hour)
	_, err = h.token(g)
	if e := h.is(err, mailgrant.Misset, "a wrong secret"); e.Finding == nil || e.Finding.Cause != "client-secret-wrong" {
		t.Errorf("got %+v", e)
	}
}
