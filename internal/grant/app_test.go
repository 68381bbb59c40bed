package grant_test

import (
	"encoding/base64"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/grant"
	"github.com/mailgrant/mailgrant/internal/store"
)

const contoso = "11111111-1111-1111-1111-111111111111"

// entraHouse is a house whose registration is Microsoft's.
func entraHouse(t *testing.T) *house {
	h := newHouse(t)
	h.reg.Template, h.reg.Tenant, h.reg.Issuer, h.reg.ScopesExtra = "microsoft365", contoso, "", nil
	h.reg.Overrides = map[string]string{"token_endpoint": h.idp.base + "/token", "jwks_uri": h.idp.base + "/keys", "device_authorization_endpoint": h.idp.base + "/device"}
	h.must(h.store.UpdateRegistration(h.ctx, h.reg))
	return h
}

func TestAppActsAsItself(t *testing.T) {
	h := entraHouse(t)
	g := h.pending("scanner@contoso.example", mailgrant.FlowApp, mailgrant.MailboxApp)
	_, err := h.Token(h.ctx, h.org, g.ID, "outlook")
	h.is(err, mailgrant.Lapsed, "before it is activated")
	_, err = h.Begin(h.ctx, h.org, g.ID, grant.BeginOptions{})
	h.is(err, mailgrant.Invalid, "nobody consents in a browser")
	h.prove = mailgrant.Errorf(mailgrant.Forbidden, nil, "the mailbox does not open").Fix("give the app rights on it")
	_, err = h.Activate(h.ctx, h.org, g.ID)
	h.is(err, mailgrant.Forbidden, "a mailbox that does not open")
	if h.grant(g.ID).State != mailgrant.GrantPending {
		t.Error("kept all the same")
	}
	h.prove = nil
	now, err := h.Activate(h.ctx, h.org, g.ID)
	if err != nil || now.State != mailgrant.GrantActive || now.Subject.TenantID != contoso || now.Subject.Subject != "client" || len(now.Sealed) != 0 {
		t.Fatalf("got %+v, %v", now, err)
	}
	if f := h.idp.forms[len(h.idp.forms)-1]; f.Get("scope") != "https://outlook.office365.com/.default" || f.Get("client_secret") != "s1" || f.Get("grant_type") != "client_credentials" {
		t.Errorf("form %v", f)
	}
	tok, err := h.Token(h.ctx, h.org, g.ID, "outlook")
	if err != nil || tok.Value.Reveal() != "app-2" || h.opened[1] != "scanner@contoso.example app-2" {
		t.Errorf("got %q, %v, opened %q", tok.Value.Reveal(), err, h.opened)
	}
	h.pass(2 * time.Hour)
	if tok, err := h.Token(h.ctx, h.org, g.ID, "outlook"); err != nil || tok.Value.Reveal() != "app-3" {
		t.Errorf("later: %q, %v", tok.Value.Reveal(), err)
	}
	h.pass(2 * time.Hour)
	h.idp.set(func() { h.idp.secrets = map[string]bool{} })
	_, err = h.Token(h.ctx, h.org, g.ID, "outlook")
	h.is(err, mailgrant.Misset, "secret refused")
	if h.grant(g.ID).State != mailgrant.GrantActive {
		t.Error("a broken registration lapsed a grant")
	}
	h.idp.set(func() { h.idp.secrets = nil })
	if _, err := h.Activate(h.ctx, h.org, g.ID); err != nil { // a person has mended it: no rest
		t.Errorf("mended: %v", err)
	}
	if tok, err := h.Token(h.ctx, h.org, g.ID, "outlook"); err != nil || tok.Value.IsZero() {
		t.Errorf("mended: %v", err)
	}
	h.must(h.Revoke(h.ctx, h.org, g.ID))
	_, err = h.Token(h.ctx, h.org, g.ID, "outlook")
	h.is(err, mailgrant.Lapsed, "disconnected")
	h.reg.Tenant = "organizations"
	h.must(h.store.UpdateRegistration(h.ctx, h.reg))
	_, err = h.Activate(h.ctx, h.org, g.ID)
	if e := h.is(err, mailgrant.Misset, "no tenant"); e.Field != "tenant" {
		t.Errorf("got %+v", e)
	}
	_, err = h.Activate(h.ctx, h.org, h.pending(alex, mailgrant.FlowCode, mailgrant.MailboxOwn).ID)
	h.is(err, mailgrant.Invalid, "a person's grant")
}

func TestAdminConsent(t *testing.T) {
	h := entraHouse(t)
	app := h.pending("scanner@contoso.example", mailgrant.FlowApp, mailgrant.MailboxApp)
	begin := func(g mailgrant.Grant) grant.Consent {
		c, err := h.BeginAdminConsent(h.ctx, h.org, g.ID, grant.BeginOptions{ReturnTo: "/registrations"})
		h.must(err)
		return c
	}
	c := begin(app)
	u, _ := url.Parse(c.URL)
	if u.Path != "/"+contoso+"/v2.0/adminconsent" || u.Query().Get("redirect_uri") != "https://mail.contoso.example/oauth/admin-consent/"+string(h.reg.ID) ||
		u.Query().Get("scope") != "https://outlook.office365.com/.default" || u.Query().Has("code_challenge") || u.Query().Has("response_type") {
		t.Errorf("got %s", c.URL)
	}
	state := func() string {
		a, err := h.store.AdminConsent(h.ctx, h.org, h.reg.ID)
		h.must(err)
		return a.State
	}
	if state() != grant.AdminAsked {
		t.Errorf("got %s", state())
	}
	finish := func(q url.Values) (grant.AdminResult, error) {
		c := begin(app)
		q.Set("state", c.State)
		return h.CompleteAdminConsent(h.ctx, h.reg.ID, q, c.Cookie)
	}
	// An error wins over admin_consent=True, which Entra sends beside it.
	r, err := finish(url.Values{"admin_consent": {"True"}, "tenant": {contoso}, "error": {"consent_required"}, "error_description": {"AADSTS65004: The resource owner or authorization server denied the request."}})
	if h.is(err, mailgrant.Lapsed, "denied"); state() != grant.AdminDenied || r.ReturnTo != "/registrations" || h.idp.count("client_credentials") != 0 {
		t.Errorf("got %s, %+v", state(), r)
	}
	_, err = finish(url.Values{})
	h.is(err, mailgrant.Invalid, "neither yes nor no")
	_, err = finish(url.Values{"admin_consent": {"True"}, "tenant": {"22222222-2222-2222-2222-222222222222"}})
	if h.is(err, mailgrant.Forbidden, "another tenant"); state() != grant.AdminDenied {
		t.Errorf("got %s", state())
	}
	c = begin(app)
	q := url.Values{"admin_consent": {"True"}, "tenant": {strings.ToUpper(contoso)}, "state": {c.State}, "scope": {"x"}}
	_, err = h.CompleteAdminConsent(h.ctx, h.reg.ID, q, strings.Repeat("A", 43))
	h.is(err, mailgrant.Invalid, "another browser")
	r, err = finish(q)
	if err != nil || !r.Active || r.Grant.State != mailgrant.GrantActive || state() != grant.AdminGranted || r.Consent.Tenant != contoso {
		t.Errorf("got %+v, %v", r, err)
	}
	_, err = finish(url.Values{"error": {"access_denied"}}) // somebody tries again, and says no
	if h.is(err, mailgrant.Lapsed, "denied later"); state() != grant.AdminGranted {
		t.Errorf("what was approved is %s", state())
	}
	// For a person's grant the very permissions are approved, and no token comes.
	g := h.pending(alex, mailgrant.FlowCode, mailgrant.MailboxOwn)
	u, _ = url.Parse(begin(g).URL)
	if u.Query().Get("scope") != "openid profile email offline_access https://outlook.office.com/SMTP.Send" {
		t.Errorf("got %s", u)
	}
	made, err := h.Link(h.ctx, h.org, g.ID, store.FlowAdminConsent, "op")
	h.must(err)
	token := tokenOf(made)
	i, err := h.Invitation(h.ctx, token)
	if err != nil || i.Kind != store.FlowAdminConsent || !strings.HasSuffix(i.Authorize, "/adminconsent") {
		t.Errorf("got %+v, %v", i, err)
	}
	c, err = h.BeginLink(h.ctx, token, grant.BeginOptions{})
	h.must(err)
	r, err = h.CompleteAdminConsent(h.ctx, h.reg.ID, url.Values{"admin_consent": {"True"}, "state": {c.State}}, c.Cookie)
	if err != nil || r.Active || r.Grant.State != mailgrant.GrantPending || h.kept(g.ID) != "" {
		t.Errorf("got %+v, %v", r, err)
	}
	_, err = h.Invitation(h.ctx, token)
	h.is(err, mailgrant.NotFound, "the link again")
}

func TestCheckAdminConsent(t *testing.T) {
	h := entraHouse(t)
	app := h.pending("scanner@contoso.example", mailgrant.FlowApp, mailgrant.MailboxApp)
	roles := func(list string) {
		h.idp.set(func() {
			h.idp.answer = func(m map[string]any) {
				m["access_token"] = "e30." + base64.RawURLEncoding.EncodeToString([]byte(`{"roles":[`+list+`]}`)) + ".c2ln"
			}
		})
	}
	roles(`"IMAP.AccessAsApp"`)
	c, err := h.CheckAdminConsent(h.ctx, h.org, app.ID)
	if err != nil || c.State != grant.AdminAsked || !strings.Contains(c.Error, "SMTP.SendAsApp") {
		t.Errorf("got %+v, %v", c, err)
	}
	roles(`"IMAP.AccessAsApp","SMTP.SendAsApp"`)
	c, err = h.CheckAdminConsent(h.ctx, h.org, app.ID)
	if err != nil || c.State != grant.AdminGranted || c.Error != "" {
		t.Errorf("got %+v, %v", c, err)
	}
}

func TestOA28DeviceCode(t *testing.T) {
	h := newHouse(t)
	g := h.pending(alex, mailgrant.FlowDevice, mailgrant.MailboxOwn)
	off := h.reg
	off.DeviceFlow = false
	h.must(h.store.UpdateRegistration(h.ctx, off))
	_, err := h.BeginDevice(h.ctx, h.org, g.ID, "op")
	h.is(err, mailgrant.Forbidden, "off by default")
	h.must(h.store.UpdateRegistration(h.ctx, h.reg))
	_, err = h.BeginDevice(h.ctx, h.org, h.pending(alex, mailgrant.FlowCode, mailgrant.MailboxOwn).ID, "op")
	h.is(err, mailgrant.Forbidden, "a grant of another flow")
	d, err := h.BeginDevice(h.ctx, h.org, g.ID, "op")
	h.must(err)
	if d.UserCode != "ABC-DEF" || d.Interval != 5*time.Second || time.Until(d.ExpiresAt) > 10*time.Minute || d.Mailbox != alex {
		t.Errorf("got %+v", d)
	}
	polls := func() int { return h.idp.count("urn:ietf:params:oauth:grant-type:device_code") }
	poll := func(want bool) grant.Result {
		t.Helper()
		r, done, err := h.PollDevice(h.ctx, h.org, d.Flow)
		if err != nil || done != want {
			t.Errorf("got %v, %v, want %v", done, err, want)
		}
		return r
	}
	for range 5 {
		poll(false) // too early: nobody is asked
	}
	if polls() != 0 {
		t.Errorf("%d polls", polls())
	}
	h.pass(6 * time.Second)
	poll(false)
	h.idp.set(func() { h.idp.device = "slow_down" })
	h.pass(6 * time.Second)
	poll(false)
	h.idp.set(func() { h.idp.device = "" })
	h.pass(6 * time.Second) // the interval is ten seconds now, for good
	poll(false)
	if polls() != 2 {
		t.Errorf("%d polls", polls())
	}
	h.pass(6 * time.Second)
	poll(false)
	h.faulty(503, "") // a failure passes, and makes the interval longer
	h.pass(11 * time.Second)
	poll(false)
	h.idp.well()
	h.pass(11 * time.Second)
	poll(false)
	if polls() != 4 {
		t.Errorf("%d polls", polls())
	}
	_, _, err = h.PollDevice(h.ctx, mailgrant.NewID(mailgrant.PrefixOrganization), d.Flow)
	h.is(err, mailgrant.NotFound, "another organization")
	h.idp.set(func() { h.idp.device = "ok" })
	h.pass(30 * time.Second)
	r := poll(true)
	if r.Grant.State != mailgrant.GrantActive || r.Grant.Subject.Address != alex || h.kept(g.ID) == "" {
		t.Errorf("got %+v", r.Grant)
	}
	_, _, err = h.PollDevice(h.ctx, h.org, d.Flow)
	h.is(err, mailgrant.NotFound, "once more")
	for answer, code := range map[string]mailgrant.Code{"authorization_declined": mailgrant.Lapsed, "access_denied": mailgrant.Lapsed, "expired_token": mailgrant.Lapsed} {
		if d, err = h.BeginDevice(h.ctx, h.org, g.ID, "op"); err != nil {
			t.Fatal(err)
		}
		h.idp.set(func() { h.idp.device = answer })
		h.pass(6 * time.Second)
		_, done, err := h.PollDevice(h.ctx, h.org, d.Flow)
		if !errors.Is(err, code) || done {
			t.Errorf("%s: got %v, %v", answer, done, err)
		}
		_, _, err = h.PollDevice(h.ctx, h.org, d.Flow)
		h.is(err, mailgrant.NotFound, "over")
	}
	// The wrong person enters the code.
	other := h.pending("robin@contoso.example", mailgrant.FlowDevice, mailgrant.MailboxOwn)
	if d, err = h.BeginDevice(h.ctx, h.org, other.ID, "op"); err != nil {
		t.Fatal(err)
	}
	h.idp.set(func() { h.idp.device = "ok" })
	h.pass(6 * time.Second)
	_, _, err = h.PollDevice(h.ctx, h.org, d.Flow)
	h.is(err, mailgrant.Forbidden, "the wrong person")
	if h.kept(other.ID) != "" {
		t.Error("kept")
	}
	if d, err = h.BeginDevice(h.ctx, h.org, g.ID, "op"); err != nil {
		t.Fatal(err)
	}
	h.pass(11 * time.Minute)
	_, _, err = h.PollDevice(h.ctx, h.org, d.Flow)
	h.is(err, mailgrant.NotFound, "eleven minutes later")
}

func TestWay(t *testing.T) {
	h := newHouse(t)
	g := h.active()
	m := mailgrant.Mailbox{Org: h.org, Address: alex, Grant: g.ID}
	w, err := h.Way(h.ctx, m)
	h.must(err)
	tok, err := w.Token(h.ctx, "mail", false)
	if err != nil || tok.Value.Reveal() != "access-1" || w.Settings.TokenEndpoint != h.idp.base+"/token" || w.Grant.ID != g.ID || w.HTTP == nil {
		t.Errorf("got %+v, %v", w, err)
	}
	h.pass(2 * time.Minute)
	if tok, err = w.Token(h.ctx, "mail", true); err != nil || tok.Value.Reveal() != "access-2" {
		t.Errorf("fresh: %q, %v", tok.Value.Reveal(), err)
	}
	m.Grant = ""
	_, err = h.Way(h.ctx, m)
	if e := h.is(err, mailgrant.Misset, "without a grant"); e.Field != "grant" {
		t.Errorf("got %+v", e)
	}
}

func TestDiscoveryIsReadOnceAndOutlivesTheProvider(t *testing.T) {
	h := newHouse(t)
	const doc = "/.well-known/openid-configuration"
	var grants []mailgrant.Grant
	for range 20 {
		grants = append(grants, h.pending(alex, mailgrant.FlowCode, mailgrant.MailboxOwn))
	}
	h.idp.set(func() { h.idp.base = "https://other.example" }) // OA-12: its document names another issuer
	for _, g := range grants {
		_, err := h.Begin(h.ctx, h.org, g.ID, grant.BeginOptions{})
		h.is(err, mailgrant.Misset, "another issuer")
	}
	if n := h.idp.count(doc); n != 1 {
		t.Errorf("a bad document was fetched %d times", n)
	}
	h.idp.set(func() { h.idp.base = "https://idp.example" })
	h.pass(6 * time.Second)
	done := make(chan error)
	for _, g := range grants {
		go func() { _, err := h.Begin(h.ctx, h.org, g.ID, grant.BeginOptions{}); done <- err }()
	}
	for range grants {
		h.must(<-done)
	}
	if n := h.idp.count(doc); n != 2 {
		t.Errorf("a good document was fetched %d times", n-1)
	}
	h.idp.set(func() { h.idp.base = "https://other.example" })
	h.pass(25 * time.Hour)
	for range 3 {
		if _, err := h.Begin(h.ctx, h.org, grants[0].ID, grant.BeginOptions{}); err != nil {
			t.Errorf("the good one is not in force: %v", err)
		}
	}
	if n := h.idp.count(doc); n != 3 {
		t.Errorf("%d look-ups", n)
	}
}

func TestAppHasSomethingToProveItselfWith(t *testing.T) {
	h := entraHouse(t)
	l, err := h.store.Credentials(h.ctx, h.org, h.reg.ID)
	h.must(err)
	for _, c := range l {
		h.must(h.store.DeleteCredential(h.ctx, h.org, c.ID))
	}
	g := h.pending("scanner@contoso.example", mailgrant.FlowApp, mailgrant.MailboxApp)
	_, err = h.Activate(h.ctx, h.org, g.ID)
	h.is(err, mailgrant.Misset, "no credential")
	if !strings.Contains(mailgrant.AsError(err).Remedy, "credential add") || len(h.idp.forms) != 0 {
		t.Errorf("got %v, fix: %s; asked %d times", err, mailgrant.AsError(err).Remedy, len(h.idp.forms))
	}
}
