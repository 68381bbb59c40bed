package grant_test

import (
	"crypto/tls"
	"errors"
	"net/http"
	"net/url"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/grant"
	"github.com/mailgrant/mailgrant/internal/store"
	"github.com/mailgrant/mailgrant/internal/vault"
	"github.com/mailgrant/mailgrant/sim"
)

// simHouse is a house whose provider is the imitation of Microsoft 365.
func simHouse(t *testing.T) (*house, *sim.Sim) {
	t.Helper()
	h := newHouse(t)
	s, err := sim.Start(t.Context(), sim.Config{Now: func() time.Time {
		h.mu.Lock()
		defer h.mu.Unlock()
		return time.Now().Add(h.ahead)
	}})
	h.must(err)
	t.Cleanup(func() { s.Close() })
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.CertPool()}}
	t.Cleanup(transport.CloseIdleConnections)
	h.HTTP = func(mailgrant.Registration) *http.Client { return &http.Client{Transport: transport} }
	h.PublicURL = "http://127.0.0.1:9"
	h.entra(s, sim.ContosoClientID, sim.ContosoClientSecret)
	return h, s
}

// entra makes the registration one of the sim's apps.
func (h *house) entra(s *sim.Sim, client, secret string) {
	h.t.Helper()
	h.reg.Template, h.reg.Tenant, h.reg.Issuer, h.reg.ScopesExtra, h.reg.ClientID = "microsoft365", sim.ContosoTenantID, "", nil, client
	h.reg.Overrides = map[string]string{"login_url": s.LoginURL(), "graph_url": s.GraphURL()}
	h.must(h.store.UpdateRegistration(h.ctx, h.reg))
	l, err := h.store.Credentials(h.ctx, h.org, h.reg.ID)
	h.must(err)
	for _, c := range l {
		h.must(h.store.DeleteCredential(h.ctx, h.org, c.ID))
	}
	if secret != "" {
		h.secret(secret, nil)
	}
}

func (h *house) signIn(s *sim.Sim, c grant.Consent, who sim.SignIn) (url.Values, error) {
	back, err := s.SignIn(h.ctx, c.URL, who)
	if err != nil {
		return nil, err
	}
	return back.Query(), nil
}

func (h *house) wants(mailbox string, flow mailgrant.Flow, kind mailgrant.MailboxKind, can ...mailgrant.Capability) mailgrant.Grant {
	h.t.Helper()
	g := mailgrant.Grant{ID: mailgrant.NewID(mailgrant.PrefixGrant), Org: h.org, Registration: h.reg.ID, Mailbox: mailbox, MailboxKind: kind, Flow: flow,
		Capabilities: can, State: mailgrant.GrantPending}
	h.must(h.store.CreateGrant(h.ctx, g))
	return g
}

// TestEntraOneConsentTwoResources: one refresh token, a token for Outlook and one
// for Graph, and the second factor passed once, by the person.
func TestEntraOneConsentTwoResources(t *testing.T) {
	h, s := simHouse(t)
	g := h.wants(alex, mailgrant.FlowCode, mailgrant.MailboxOwn, mailgrant.CanSMTP, mailgrant.CanAPISend)
	c, err := h.Begin(h.ctx, h.org, g.ID, grant.BeginOptions{})
	h.must(err)
	q, err := h.signIn(s, c, sim.SignIn{Address: alex})
	h.must(err)
	r, err := h.Complete(h.ctx, h.reg.ID, q, c.Cookie)
	if err != nil {
		t.Fatal(err)
	}
	if r.Grant.Subject.TenantID != sim.ContosoTenantID || r.Grant.Subject.ObjectID == "" || r.Grant.Subject.UPN != alex {
		t.Errorf("subject %+v", r.Grant.Subject)
	}
	outlook, err := h.Token(h.ctx, h.org, g.ID, "outlook")
	h.must(err)
	graph, err := h.Token(h.ctx, h.org, g.ID, "graph")
	h.must(err)
	if outlook.Value == graph.Value || !strings.Contains(strings.Join(outlook.Scopes, " "), "SMTP.Send") || !strings.Contains(strings.Join(graph.Scopes, " "), "Mail.Send") {
		t.Errorf("outlook %v, graph %v", outlook.Scopes, graph.Scopes)
	}
	for range 3 {
		h.pass(2 * time.Hour)
		for _, resource := range []string{"outlook", "graph"} {
			if _, err := h.Token(h.ctx, h.org, g.ID, resource); err != nil {
				t.Fatal(err)
			}
		}
	}
	h.must(s.World().Revoke(alex, s.Now()))
	h.pass(2 * time.Hour)
	_, err = h.Token(h.ctx, h.org, g.ID, "outlook")
	if e := h.is(err, mailgrant.Lapsed, "sessions revoked"); e.Finding == nil || e.Finding.Who != mailgrant.WhoMailboxOwner {
		t.Errorf("got %+v", e.Finding)
	}
}

// TestEntraForMoreAndForLessAgain: more is waited for until its owner consents; when
// it is taken back, what waits hears of it at once.
func TestEntraForMoreAndForLessAgain(t *testing.T) {
	h, s := simHouse(t)
	g := h.wants(alex, mailgrant.FlowCode, mailgrant.MailboxOwn, mailgrant.CanSMTP)
	c, err := h.Begin(h.ctx, h.org, g.ID, grant.BeginOptions{})
	h.must(err)
	q, err := h.signIn(s, c, sim.SignIn{Address: alex})
	h.must(err)
	_, err = h.Complete(h.ctx, h.reg.ID, q, c.Cookie)
	h.must(err)
	heard := 0
	h.Changed = func(_, id mailgrant.ID) {
		if id == g.ID {
			heard++
		}
	}
	g = h.grant(g.ID)
	g.Capabilities = []mailgrant.Capability{mailgrant.CanSMTP, mailgrant.CanIMAP}
	h.must(h.Update(h.ctx, g))
	h.pass(2 * time.Hour)
	_, err = h.Token(h.ctx, h.org, g.ID, "outlook")
	h.is(err, mailgrant.Lapsed, "IMAP was not consented to")
	if !h.Outgrown(g, h.reg) {
		t.Error("it does not say that it is for more")
	}
	g.Capabilities = g.Capabilities[:1]
	h.must(h.Update(h.ctx, g))
	if _, err := h.Token(h.ctx, h.org, g.ID, "outlook"); err != nil || h.Outgrown(g, h.reg) || heard != 2 {
		t.Errorf("for less again: %v, outgrown %v, heard %d times", err, h.Outgrown(g, h.reg), heard)
	}
}

// TestEntraRightsInWords: an invitation says as much as is asked for, and says it once.
func TestEntraRightsInWords(t *testing.T) {
	h, _ := simHouse(t)
	for _, c := range []struct {
		can  []mailgrant.Capability
		want string
	}{
		{[]mailgrant.Capability{mailgrant.CanSMTP, mailgrant.CanAPISend}, "send mail as this mailbox"},
		{[]mailgrant.Capability{mailgrant.CanAPIRead}, "read its mail"},
		{[]mailgrant.Capability{mailgrant.CanPOP}, "read and delete its mail"},
		{[]mailgrant.Capability{mailgrant.CanAPISend, mailgrant.CanAPIRead}, "send mail as this mailbox; read, move and delete its mail"}, // Mail.ReadWrite
		{[]mailgrant.Capability{mailgrant.CanPOP, mailgrant.CanIMAP, mailgrant.CanAPIRead}, "read, move and delete its mail"},
	} {
		g := h.wants(alex, mailgrant.FlowCode, mailgrant.MailboxOwn, c.can...)
		l, err := h.Link(h.ctx, h.org, g.ID, store.FlowConsent, "op")
		h.must(err)
		i, err := h.Invitation(h.ctx, path.Base(l.URL))
		h.must(err)
		if got := strings.Join(i.Rights[:len(i.Rights)-1], "; "); got != c.want { // the last: while nobody is signed in
			t.Errorf("%v: got %q, want %q (%v)", c.can, got, c.want, i.Scopes)
		}
	}
}

func TestEntraWrongPeople(t *testing.T) {
	h, s := simHouse(t)
	g := h.wants(alex, mailgrant.FlowCode, mailgrant.MailboxOwn, mailgrant.CanSMTP)
	begin := func() grant.Consent {
		c, err := h.Begin(h.ctx, h.org, g.ID, grant.BeginOptions{})
		h.must(err)
		return c
	}
	c := begin()
	q, err := h.signIn(s, c, sim.SignIn{Address: "kim@contoso.example"})
	h.must(err)
	_, err = h.Complete(h.ctx, h.reg.ID, q, c.Cookie)
	if e := h.is(err, mailgrant.Forbidden, "kim"); !strings.Contains(e.Message, "kim@contoso.example") {
		t.Errorf("got %+v", e)
	}
	c = begin()
	q, err = h.signIn(s, c, sim.SignIn{Address: alex, Decline: true})
	h.must(err)
	_, err = h.Complete(h.ctx, h.reg.ID, q, c.Cookie)
	h.is(err, mailgrant.Lapsed, "declined")
	c = begin()
	_, err = h.signIn(s, c, sim.SignIn{Address: "robin@fabrikam.example"})
	var page *sim.PageError
	if !errors.As(err, &page) {
		t.Errorf("a foreign tenant: got %v", err)
	}
	if h.grant(g.ID).State != mailgrant.GrantPending {
		t.Error("something was kept")
	}
}

// TestEntraAppItself: with a secret, and with a certificate in both forms.
func TestEntraAppItself(t *testing.T) {
	h, s := simHouse(t)
	h.entra(s, sim.ContosoSystemClientID, sim.ContosoSystemClientSecret)
	g := h.wants("noreply@contoso.example", mailgrant.FlowApp, mailgrant.MailboxApp, mailgrant.CanSMTP, mailgrant.CanAPISend)
	if _, err := h.Activate(h.ctx, h.org, g.ID); err != nil {
		t.Fatal(err)
	}
	h.must(s.World().ExpireSecret(sim.ContosoSystemClientID, "", s.Now()))
	h.pass(2 * time.Hour)
	_, err := h.Token(h.ctx, h.org, g.ID, "outlook")
	if e := h.is(err, mailgrant.Misset, "the secret has expired"); e.Finding == nil || e.Finding.Cause != "client-secret-expired" || h.grant(g.ID).State != mailgrant.GrantActive {
		t.Errorf("got %+v", e.Finding)
	}
	for _, alg := range []string{"PS256", "RS256"} {
		h.entra(s, sim.ContosoCertificateClientID, "")
		h.reg.Overrides["assertion_alg"] = alg
		h.must(h.store.UpdateRegistration(h.ctx, h.reg))
		cert, err := s.IssueCertificate(sim.ContosoCertificateClientID, 24*time.Hour)
		h.must(err)
		k := mailgrant.Credential{ID: mailgrant.NewID(mailgrant.PrefixCredential), Org: h.org, Registration: h.reg.ID, Kind: mailgrant.CredentialCertificate}
		k.Sealed, err = h.vault.Seal(vault.Place{Org: h.org, Table: "credentials", Column: "secret", Row: k.ID}, []byte(cert.KeyPEM+cert.PEM))
		h.must(err)
		h.must(h.store.CreateCredential(h.ctx, k))
		g := h.wants("noreply@contoso.example", mailgrant.FlowApp, mailgrant.MailboxApp, mailgrant.CanSMTP)
		if _, err := h.Activate(h.ctx, h.org, g.ID); err != nil {
			t.Errorf("%s: %v", alg, err)
		}
		h.must(s.RemoveCertificate(sim.ContosoCertificateClientID, cert.ID))
		h.pass(2 * time.Hour)
		_, err = h.Token(h.ctx, h.org, g.ID, "outlook")
		h.is(err, mailgrant.Misset, alg+", taken away")
	}
}

func TestEntraAdminConsent(t *testing.T) {
	h, s := simHouse(t)
	h.entra(s, sim.ContosoSystemClientID, sim.ContosoSystemClientSecret)
	h.must(s.World().RemoveConsents(sim.ContosoTenantID, "", sim.ContosoSystemClientID))
	g := h.wants("noreply@contoso.example", mailgrant.FlowApp, mailgrant.MailboxApp, mailgrant.CanSMTP)
	c, err := h.BeginAdminConsent(h.ctx, h.org, g.ID, grant.BeginOptions{})
	h.must(err)
	q, err := h.signIn(s, c, sim.SignIn{Address: "admin@contoso.example", Decline: true})
	h.must(err)
	_, err = h.CompleteAdminConsent(h.ctx, h.reg.ID, q, c.Cookie)
	h.is(err, mailgrant.Lapsed, "declined")
	c, err = h.BeginAdminConsent(h.ctx, h.org, g.ID, grant.BeginOptions{})
	h.must(err)
	q, err = h.signIn(s, c, sim.SignIn{Address: "admin@contoso.example"})
	h.must(err)
	r, err := h.CompleteAdminConsent(h.ctx, h.reg.ID, q, c.Cookie)
	if err != nil || !r.Active || r.Consent.State != grant.AdminGranted || r.Consent.Tenant != sim.ContosoTenantID {
		t.Errorf("got %+v, %v", r, err)
	}
	if check, err := h.CheckAdminConsent(h.ctx, h.org, g.ID); err != nil || check.State != grant.AdminGranted {
		t.Errorf("got %+v, %v", check, err)
	}
}

func TestEntraDeviceCode(t *testing.T) {
	h, s := simHouse(t)
	h.entra(s, sim.ContosoDeviceClientID, "")
	g := h.wants(alex, mailgrant.FlowDevice, mailgrant.MailboxOwn, mailgrant.CanSMTP)
	d, err := h.BeginDevice(h.ctx, h.org, g.ID, "op")
	h.must(err)
	h.pass(6 * time.Second)
	if _, done, err := h.PollDevice(h.ctx, h.org, d.Flow); done || err != nil {
		t.Fatalf("got %v, %v", done, err)
	}
	if _, err := s.SignIn(h.ctx, d.VerificationURI+"?user_code="+d.UserCode, sim.SignIn{Address: alex}); err != nil {
		t.Fatal(err)
	}
	h.pass(6 * time.Second)
	r, done, err := h.PollDevice(h.ctx, h.org, d.Flow)
	if err != nil || !done || r.Grant.Subject.UPN != alex {
		t.Errorf("got %+v, %v, %v", r, done, err)
	}
}
