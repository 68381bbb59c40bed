package grant_test

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/grant"
	"github.com/mailgrant/mailgrant/internal/store"
)

func TestConsent(t *testing.T) {
	h := newHouse(t)
	g := h.pending(alex, mailgrant.FlowCode, mailgrant.MailboxOwn)
	c, err := h.Begin(h.ctx, h.org, g.ID, grant.BeginOptions{ReturnTo: "/mailboxes"})
	h.must(err)
	u, _ := url.Parse(c.URL)
	q := u.Query()
	for name, want := range map[string]string{"redirect_uri": "https://mail.contoso.example/oauth/callback/" + string(h.reg.ID), "scope": "openid email offline_access mail",
		"login_hint": alex, "prompt": "consent", "code_challenge_method": "S256", "state": c.State, "response_type": "code"} {
		if q.Get(name) != want || len(q[name]) != 1 {
			t.Errorf("%s: got %q, want %q", name, q[name], want)
		}
	}
	if len(c.State) < 43 || len(q.Get("nonce")) < 43 || len(c.Cookie) != 43 || time.Until(c.ExpiresAt) > 10*time.Minute {
		t.Errorf("got %+v", c)
	}
	r, err := h.Complete(h.ctx, h.reg.ID, h.idp.consent(c.URL, alex), c.Cookie)
	h.must(err)
	if r.ReturnTo != "/mailboxes" || r.Grant.State != mailgrant.GrantActive || r.Grant.Subject.Address != alex || r.Grant.Subject.Issuer != h.idp.base || r.Grant.Signature != h.reg.Signature() ||
		strings.Join(r.Grant.ScopesAsked, " ") != "openid email offline_access mail" || r.Grant.NextRefresh == nil || r.Grant.TokenExpires == nil {
		t.Errorf("got %+v", r)
	}
	if tok, err := h.token(g); err != nil || tok != "access-1" || h.idp.count("refresh_token") != 0 || h.kept(g.ID) != "refresh-1" {
		t.Errorf("got %q %v, kept %q", tok, err, h.kept(g.ID))
	}
	for _, s := range []string{string(r.Grant.Sealed), strings.Join(r.Grant.ScopesGranted, " ")} {
		if strings.Contains(s, "refresh-1") || strings.Contains(s, "access-1") {
			t.Error("a token stands in the clear")
		}
	}
	if h.events("grant.active") != 1 {
		t.Error("no event")
	}
}

func TestOA01CallbackWithoutState(t *testing.T) {
	h := newHouse(t)
	g := h.pending(alex, mailgrant.FlowCode, mailgrant.MailboxOwn)
	c, err := h.Begin(h.ctx, h.org, g.ID, grant.BeginOptions{})
	h.must(err)
	good := h.idp.consent(c.URL, alex)
	cases := map[string]url.Values{"no state": without(good, "state"), "nothing": {}, "an error without state": {"error": {"access_denied"}},
		"empty": {"code": {"c"}, "state": {""}}, "unknown": {"code": {"c"}, "state": {strings.Repeat("x", 43)}}, "huge": {"code": {"c"}, "state": {strings.Repeat("x", 1<<20)}},
		"twice": {"code": {"c"}, "state": {c.State, c.State}, "iss": {h.idp.base}}, "code twice": {"code": {"a", "b"}, "state": {c.State}, "iss": {h.idp.base}}} // OA-26
	for name, q := range cases {
		_, err := h.Complete(h.ctx, h.reg.ID, q, c.Cookie)
		h.is(err, mailgrant.Invalid, name)
	}
	if n := h.idp.count("authorization_code"); n != 0 || h.events("oauth.callback_rejected") != len(cases) {
		t.Errorf("%d token requests, %d events", n, h.events("oauth.callback_rejected"))
	}
	if _, err := h.Complete(h.ctx, h.reg.ID, good, c.Cookie); err != nil {
		t.Errorf("the good one: %v", err)
	}
}

func TestOA02CallbackTwice(t *testing.T) {
	h := newHouse(t)
	g := h.pending(alex, mailgrant.FlowCode, mailgrant.MailboxOwn)
	c, err := h.Begin(h.ctx, h.org, g.ID, grant.BeginOptions{})
	h.must(err)
	q := h.idp.consent(c.URL, alex)
	var wg sync.WaitGroup
	errs := make(chan error, 10)
	for range 10 {
		wg.Go(func() { _, err := h.Complete(h.ctx, h.reg.ID, q, c.Cookie); errs <- err })
	}
	wg.Wait()
	close(errs)
	good := 0
	for err := range errs {
		if err == nil {
			good++
		} else {
			h.is(err, mailgrant.Invalid, "replay")
		}
	}
	if good != 1 || h.idp.count("authorization_code") != 1 || h.events("grant.active") != 1 {
		t.Errorf("%d went through, %d token requests", good, h.idp.count("authorization_code"))
	}
}

func TestOA03OtherBrowser(t *testing.T) {
	h := newHouse(t)
	g := h.pending(alex, mailgrant.FlowCode, mailgrant.MailboxOwn)
	for _, cookie := range []string{"", strings.Repeat("A", 43), "x"} {
		c, err := h.Begin(h.ctx, h.org, g.ID, grant.BeginOptions{})
		h.must(err)
		_, err = h.Complete(h.ctx, h.reg.ID, h.idp.consent(c.URL, alex), cookie)
		h.is(err, mailgrant.Invalid, "cookie "+cookie)
		if _, err = h.Complete(h.ctx, h.reg.ID, h.idp.consent(c.URL, alex), c.Cookie); err == nil {
			t.Error("the state works on after an answer in another browser")
		}
	}
	c, err := h.Begin(h.ctx, h.org, g.ID, grant.BeginOptions{Cookie: strings.Repeat("B", 43)})
	h.must(err)
	if c.Cookie != strings.Repeat("B", 43) {
		t.Error("two trips of one browser need two cookies")
	}
	if n := h.idp.count("authorization_code"); n != 0 {
		t.Errorf("%d token requests", n)
	}
}

func TestOA05WrongAccount(t *testing.T) {
	h := newHouse(t)
	g := h.pending(alex, mailgrant.FlowCode, mailgrant.MailboxOwn)
	made, err := h.Link(h.ctx, h.org, g.ID, store.FlowConsent, "operator")
	h.must(err)
	token := tokenOf(made)
	c, err := h.BeginLink(h.ctx, token, grant.BeginOptions{})
	h.must(err)
	_, err = h.Complete(h.ctx, h.reg.ID, h.idp.consent(c.URL, mallory), c.Cookie)
	e := h.is(err, mailgrant.Forbidden, "mallory")
	if !strings.Contains(e.Message, alex) || !strings.Contains(e.Message, mallory) || e.Finding == nil || e.Finding.Cause != "wrong-user-signed-in" {
		t.Errorf("got %+v", e)
	}
	if h.idp.ended() != "refresh-1" || h.kept(g.ID) != "" || h.grant(g.ID).State != mailgrant.GrantPending {
		t.Errorf("given back: %q, kept %q", h.idp.ended(), h.kept(g.ID))
	}
	if n := h.events("grant.refused"); n != 1 {
		t.Errorf("who sent the link is told by %d events", n)
	}
	c, err = h.BeginLink(h.ctx, token, grant.BeginOptions{}) // still there for the right account
	h.must(err)
	if _, err = h.Complete(h.ctx, h.reg.ID, h.idp.consent(c.URL, alex), c.Cookie); err != nil {
		t.Errorf("alex: %v", err)
	}
	_, err = h.BeginLink(h.ctx, token, grant.BeginOptions{})
	h.is(err, mailgrant.NotFound, "the link again")
}

// TestOA05OthersKeepTheirs: a person who picks the wrong account does not lose the
// mailbox that account has connected itself: many providers end all of a person's
// tokens with one.
func TestOA05OthersKeepTheirs(t *testing.T) {
	h := newHouse(t)
	theirs := h.pending(mallory, mailgrant.FlowCode, mailgrant.MailboxOwn)
	if _, err := h.consent(theirs, mallory); err != nil {
		t.Fatal(err)
	}
	_, err := h.consent(h.pending(alex, mailgrant.FlowCode, mailgrant.MailboxOwn), mallory)
	h.is(err, mailgrant.Forbidden, "mallory")
	if h.idp.ended() != "" {
		t.Errorf("ended %q", h.idp.ended())
	}
}

// tokenOf is what of a link only its holder knows.
func tokenOf(l grant.Link) string { return l.URL[strings.LastIndex(l.URL, "/")+1:] }

func TestOA06LinksAreTakenBack(t *testing.T) {
	h := newHouse(t)
	g := h.pending(alex, mailgrant.FlowCode, mailgrant.MailboxOwn)
	made, err := h.Link(h.ctx, h.org, g.ID, store.FlowConsent, "op")
	h.must(err)
	c, err := h.BeginLink(h.ctx, tokenOf(made), grant.BeginOptions{})
	h.must(err)
	h.must(h.store.DeleteConsentLink(h.ctx, h.org, made.ID))
	_, err = h.Invitation(h.ctx, tokenOf(made))
	h.is(err, mailgrant.NotFound, "looking")
	_, err = h.BeginLink(h.ctx, tokenOf(made), grant.BeginOptions{})
	h.is(err, mailgrant.NotFound, "beginning")
	_, err = h.Complete(h.ctx, h.reg.ID, h.idp.consent(c.URL, alex), c.Cookie)
	h.is(err, mailgrant.NotFound, "ending what was begun before")
	if got := h.grant(g.ID); got.State != mailgrant.GrantPending {
		t.Errorf("the grant is %s", got.State)
	}
}

func TestOA06Links(t *testing.T) {
	h := newHouse(t)
	g := h.pending(alex, mailgrant.FlowCode, mailgrant.MailboxOwn)
	make := func() string {
		made, err := h.Link(h.ctx, h.org, g.ID, store.FlowConsent, "op")
		h.must(err)
		if d := time.Until(made.ExpiresAt); d < 71*time.Hour || d > 72*time.Hour || !strings.HasPrefix(made.URL, "https://mail.contoso.example/connect/") {
			t.Errorf("got %+v", made)
		}
		return tokenOf(made)
	}
	token := make()
	i, err := h.Invitation(h.ctx, token)
	if err != nil || i.Organization != "Contoso" || i.Mailbox != alex || i.By != "op" || strings.Join(i.Scopes, " ") != "openid email offline_access mail" || len(i.Rights) != 2 || i.Authorize != h.idp.base+"/authorize" {
		t.Errorf("got %+v, %v", i, err)
	}
	if h.idp.count("authorization_code") != 0 || h.events("grant.active") != 0 {
		t.Error("looking has begun something")
	}
	texts := map[string]bool{}
	for name, token := range map[string]string{"guessed": strings.Repeat("A", 43), "short": "x", "path": "../../x", "long": strings.Repeat("A", 1<<16)} {
		_, err := h.Invitation(h.ctx, token)
		h.is(err, mailgrant.NotFound, name)
		texts[err.Error()] = true
	}
	h.pass(73 * time.Hour)
	_, err = h.BeginLink(h.ctx, token, grant.BeginOptions{})
	h.is(err, mailgrant.NotFound, "expired")
	texts[err.Error()] = true
	h.pass(-73 * time.Hour)
	if len(texts) != 1 {
		t.Errorf("they can be told apart: %v", texts)
	}
	// Two trips from one link: one counts.
	a, err := h.BeginLink(h.ctx, token, grant.BeginOptions{})
	h.must(err)
	b, err := h.BeginLink(h.ctx, token, grant.BeginOptions{})
	h.must(err)
	if _, err := h.Complete(h.ctx, h.reg.ID, h.idp.consent(a.URL, alex), a.Cookie); err != nil {
		t.Fatal(err)
	}
	first := h.kept(g.ID)
	_, err = h.Complete(h.ctx, h.reg.ID, h.idp.consent(b.URL, alex), b.Cookie)
	h.is(err, mailgrant.NotFound, "the second trip")
	if h.kept(g.ID) != first || h.idp.ended() != "" {
		t.Errorf("kept %q, ended %q: the working token is not what it was", h.kept(g.ID), h.idp.ended())
	}
	_, err = h.Link(h.ctx, h.org, g.ID, store.FlowAdminConsent, "op")
	h.is(err, mailgrant.Invalid, "no admin consent here")
	_, err = h.Link(h.ctx, h.org, g.ID, "cake", "op")
	h.is(err, mailgrant.Invalid, "no such link")
}

func TestOA07CodeOfAnotherFlow(t *testing.T) {
	h := newHouse(t)
	g := h.pending(alex, mailgrant.FlowCode, mailgrant.MailboxOwn)
	mine, err := h.Begin(h.ctx, h.org, g.ID, grant.BeginOptions{})
	h.must(err)
	theirs, err := h.Begin(h.ctx, h.org, g.ID, grant.BeginOptions{})
	h.must(err)
	stolen := h.idp.consent(theirs.URL, alex)
	stolen.Set("state", mine.State)
	_, err = h.Complete(h.ctx, h.reg.ID, stolen, mine.Cookie)
	h.is(err, mailgrant.Lapsed, "a stolen code")
	if h.grant(g.ID).State != mailgrant.GrantPending {
		t.Error("something was stored")
	}
	h.idp.set(func() { h.idp.claims = map[string]any{"nonce": "of another flow"} }) // ID-07: and were the provider not to look
	_, err = h.consent(g, alex)
	h.is(err, mailgrant.Forbidden, "a nonce of another flow")
	if h.kept(g.ID) != "" || h.idp.ended() == "" {
		t.Errorf("kept %q, ended %q", h.kept(g.ID), h.idp.ended())
	}
}

func TestOA09MixUp(t *testing.T) {
	h := newHouse(t)
	g := h.pending(alex, mailgrant.FlowCode, mailgrant.MailboxOwn)
	for name, iss := range map[string]string{"another's": "https://honest.example", "none though promised": "", "with a slash": h.idp.base + "/"} {
		c, err := h.Begin(h.ctx, h.org, g.ID, grant.BeginOptions{})
		h.must(err)
		q := h.idp.consent(c.URL, alex)
		q.Set("iss", iss)
		_, err = h.Complete(h.ctx, h.reg.ID, q, c.Cookie)
		h.is(err, mailgrant.Invalid, name)
		c, err = h.Begin(h.ctx, h.org, g.ID, grant.BeginOptions{})
		h.must(err)
		_, err = h.Complete(h.ctx, h.reg.ID, url.Values{"error": {"access_denied"}, "state": {c.State}, "iss": {"https://honest.example"}}, c.Cookie)
		h.is(err, mailgrant.Invalid, "an error of another's")
	}
	if n := h.idp.count("authorization_code"); n != 0 {
		t.Errorf("the code went out %d times", n)
	}
}

func TestOA10OtherContext(t *testing.T) {
	h := newHouse(t)
	other := h.reg
	other.ID = mailgrant.NewID(mailgrant.PrefixRegistration)
	h.must(h.store.CreateRegistration(h.ctx, other))
	g := h.pending(alex, mailgrant.FlowCode, mailgrant.MailboxOwn)
	c, err := h.Begin(h.ctx, h.org, g.ID, grant.BeginOptions{})
	h.must(err)
	_, err = h.Complete(h.ctx, other.ID, h.idp.consent(c.URL, alex), c.Cookie)
	h.is(err, mailgrant.Invalid, "another registration's address")
	c, err = h.Begin(h.ctx, h.org, g.ID, grant.BeginOptions{})
	h.must(err)
	_, err = h.CompleteAdminConsent(h.ctx, h.reg.ID, url.Values{"state": {c.State}, "admin_consent": {"True"}}, c.Cookie)
	h.is(err, mailgrant.Invalid, "the address of administrators")
	_, err = h.Begin(h.ctx, mailgrant.NewID(mailgrant.PrefixOrganization), g.ID, grant.BeginOptions{})
	h.is(err, mailgrant.NotFound, "another organization")
	if n := h.idp.count("authorization_code"); n != 0 {
		t.Errorf("the code went out %d times", n)
	}
}

func TestOA24ReturnAddresses(t *testing.T) {
	h := newHouse(t)
	g := h.pending(alex, mailgrant.FlowCode, mailgrant.MailboxOwn)
	for _, to := range []string{"", "/mailboxes", "/mailboxes/mbx_1", "https://app.contoso.example/done?x=1"} {
		if _, err := h.Begin(h.ctx, h.org, g.ID, grant.BeginOptions{ReturnTo: to}); err != nil {
			t.Errorf("%q: %v", to, err)
		}
	}
	for _, to := range []string{"//evil.example", "/\\evil.example", "\\\\evil", "https:evil.example", "https://evil.example", "/%2f%2fevil.example", "/a//b", "/../x", "/.", "/a/..", "/\tx", "/a\n/b", "javascript:alert(1)",
		"data:text/html,x", "https://app.contoso.example@evil.example/", "https://app.contoso.example/done?x=1&y", "https://app.contoso.example/done", "HTTPS://app.contoso.example/done?x=1", "/a?b=c", "/a#b", "evil.example", " /a"} {
		_, err := h.Begin(h.ctx, h.org, g.ID, grant.BeginOptions{ReturnTo: to})
		if e := h.is(err, mailgrant.Invalid, to); e.Field != "return_to" {
			t.Errorf("%q: field %q", to, e.Field)
		}
	}
	_, err := h.Begin(h.ctx, h.org, g.ID, grant.BeginOptions{Prompt: "please"})
	h.is(err, mailgrant.Invalid, "prompt")
}

func TestOA25RefusedAtTheProvider(t *testing.T) {
	h := newHouse(t)
	g := h.active()
	before := h.kept(g.ID)
	c, err := h.Begin(h.ctx, h.org, g.ID, grant.BeginOptions{ReturnTo: "/mailboxes"})
	h.must(err)
	r, err := h.Complete(h.ctx, h.reg.ID, url.Values{"error": {"access_denied"}, "error_description": {"<b>no</b>\r\nX: y"}, "state": {c.State}, "iss": {h.idp.base}}, c.Cookie)
	e := h.is(err, mailgrant.Lapsed, "denied")
	if e.Finding == nil || r.ReturnTo != "/mailboxes" || h.kept(g.ID) != before || h.grant(g.ID).State != mailgrant.GrantActive {
		t.Errorf("got %+v %+v", r, e)
	}
}

// TestR153FailedConsentKeepsTheToken: whatever goes wrong, the working token works
// on, here and at the provider.
func TestR153FailedConsentKeepsTheToken(t *testing.T) {
	none := ""
	for name, wrong := range map[string]func(h *house){
		"no refresh token":    func(h *house) { h.idp.answer = func(m map[string]any) { delete(m, "refresh_token") } },
		"no ID token":         func(h *house) { h.idp.answer = func(m map[string]any) { delete(m, "id_token") } },
		"a scope left out":    func(h *house) { h.idp.scope = &none },
		"a page":              func(h *house) { h.idp.fault = page },
		"another key":         func(h *house) { h.idp.answer = func(m map[string]any) { m["id_token"] = m["id_token"].(string) + "x" } },
		"unverified address":  func(h *house) { h.idp.claims = map[string]any{"email_verified": false} },
		"another subject":     func(h *house) { h.idp.claims = map[string]any{"sub": "somebody with the same address"} },
		"secret refused":      func(h *house) { h.idp.secrets = map[string]bool{} },
		"a foreign audience":  func(h *house) { h.idp.claims = map[string]any{"aud": "other"} },
		"the database failed": func(h *house) { h.db.fail("CompleteConsent", -1) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			g := h.active()
			before := h.kept(g.ID)
			h.idp.set(func() { wrong(h) })
			if _, err := h.consent(g, alex); err == nil {
				t.Fatal("taken")
			}
			h.idp.set(func() { h.idp.answer, h.idp.scope, h.idp.fault, h.idp.claims, h.idp.secrets = nil, nil, nil, nil, nil })
			now := h.grant(g.ID)
			if h.kept(g.ID) != before || now.State != mailgrant.GrantActive || now.Generation != g.Generation || strings.Contains(h.idp.ended(), before) {
				t.Fatalf("kept %q of %q, %s, ended %q", h.kept(g.ID), before, now.State, h.idp.ended())
			}
			h.pass(2 * time.Hour) // and renews
			if _, err := h.token(g); err != nil {
				t.Errorf("the old token: %v", err)
			}
		})
	}
}

func page(w http.ResponseWriter, r *http.Request) bool {
	if r.URL.Path != "/token" {
		return false
	}
	w.Header().Set("Content-Type", "text/html")
	w.Write([]byte("<!doctype html><title>Sign in to the hotel</title>"))
	return true
}

func TestConsentAfterChangesIsRefused(t *testing.T) {
	h := newHouse(t)
	g := h.pending(alex, mailgrant.FlowCode, mailgrant.MailboxOwn)
	c, err := h.Begin(h.ctx, h.org, g.ID, grant.BeginOptions{})
	h.must(err)
	r := h.reg
	r.ScopesExtra = []string{"mail", "contacts"}
	h.must(h.store.UpdateRegistration(h.ctx, r))
	_, err = h.Complete(h.ctx, h.reg.ID, h.idp.consent(c.URL, alex), c.Cookie)
	h.is(err, mailgrant.Conflict, "the registration was changed")
	if h.idp.count("authorization_code") != 0 {
		t.Error("the code went out")
	}
	c, err = h.Begin(h.ctx, h.org, g.ID, grant.BeginOptions{})
	h.must(err)
	h.pass(11 * time.Minute)
	_, err = h.Complete(h.ctx, h.reg.ID, h.idp.consent(c.URL, alex), c.Cookie)
	h.is(err, mailgrant.Invalid, "eleven minutes later")
}

func TestConsentSurvivesAShortOutageOfTheDatabase(t *testing.T) {
	h := newHouse(t)
	g := h.pending(alex, mailgrant.FlowCode, mailgrant.MailboxOwn)
	h.db.fail("CompleteConsent", 2)
	if _, err := h.consent(g, alex); err != nil || h.kept(g.ID) != "refresh-1" || h.idp.ended() != "" {
		t.Errorf("got %v, kept %q, ended %q", err, h.kept(g.ID), h.idp.ended())
	}
	for method, code := range map[string]mailgrant.Code{"TakeFlow": mailgrant.Unavailable, "Registration": mailgrant.Unavailable, "Credentials": mailgrant.Unavailable} {
		c, err := h.Begin(h.ctx, h.org, g.ID, grant.BeginOptions{})
		h.must(err)
		h.db.fail(method, 1)
		_, err = h.Complete(h.ctx, h.reg.ID, h.idp.consent(c.URL, alex), c.Cookie)
		h.is(err, code, method)
	}
	if h.kept(g.ID) != "refresh-1" {
		t.Errorf("kept %q", h.kept(g.ID))
	}
}

func TestSharedMailboxIsOpenedBeforeItIsKept(t *testing.T) {
	h := newHouse(t)
	g := h.pending("sales@contoso.example", mailgrant.FlowCode, mailgrant.MailboxShared)
	h.prove = mailgrant.Errorf(mailgrant.Forbidden, nil, "the mailbox does not open").Fix("give alex rights on it")
	_, err := h.consent(g, alex)
	h.is(err, mailgrant.Forbidden, "without rights")
	if h.kept(g.ID) != "" || h.idp.ended() != "refresh-1" {
		t.Errorf("kept %q, ended %q", h.kept(g.ID), h.idp.ended())
	}
	h.prove = nil
	r, err := h.consent(g, alex)
	if err != nil || r.Grant.Subject.Address != alex || len(h.opened) != 2 || h.opened[1] != "sales@contoso.example access-2" {
		t.Errorf("got %+v, %v, opened %q", r, err, h.opened)
	}
	h.Keeper.Prove = nil
	_, err = h.consent(g, alex)
	h.is(err, mailgrant.Misset, "nobody can open it")
}

// TestIdentityIsPinned: an address can be given to somebody else; the grant stays
// with the one who consented, until it is disconnected. R-OA7.
func TestIdentityIsPinned(t *testing.T) {
	h := newHouse(t)
	g := h.active()
	h.idp.set(func() { h.idp.claims = map[string]any{"sub": "successor"} })
	_, err := h.consent(g, alex)
	h.is(err, mailgrant.Forbidden, "another person with this address")
	h.must(h.Revoke(h.ctx, h.org, g.ID))
	if r, err := h.consent(g, alex); err != nil || r.Grant.Subject.Subject != "successor" {
		t.Errorf("after a disconnection: %v", err)
	}
}

func TestEntraIdentities(t *testing.T) {
	const tid, evil, oid = "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222", "33333333-3333-3333-3333-333333333333"
	for _, c := range []struct {
		name, tenant string
		claims       map[string]any
		ok           bool
	}{
		{"user name", tid, map[string]any{"tid": tid, "preferred_username": alex, "email": nil}, true},
		{"another case", tid, map[string]any{"tid": tid, "preferred_username": "ALEX@Contoso.example", "email": nil}, true},
		{"email in our own tenant", tid, map[string]any{"tid": tid, "preferred_username": "a.smith@contoso.example", "email": alex}, true},
		{"nOAuth: any tenant may write any email", "organizations", map[string]any{"tid": evil, "preferred_username": mallory, "email": alex}, false},
		{"the same, said to be verified", "common", map[string]any{"tid": evil, "preferred_username": mallory, "email": alex, "email_verified": true}, false},
		{"an email whose domain the tenant owns", "organizations", map[string]any{"tid": tid, "preferred_username": "x@contoso.example", "email": alex, "xms_edov": true}, true},
		{"a foreign tenant", tid, map[string]any{"tid": evil, "preferred_username": alex}, false},
		{"no object id", tid, map[string]any{"tid": tid, "oid": nil, "preferred_username": alex}, true},
	} {
		h := newHouse(t)
		h.reg.Template, h.reg.Tenant, h.reg.Issuer, h.reg.ScopesExtra = "microsoft365", c.tenant, "", nil
		h.reg.Overrides = map[string]string{"token_endpoint": h.idp.base + "/token", "jwks_uri": h.idp.base + "/keys", "issuer": h.idp.base + "/{tenant}/v2.0", "revocation_endpoint": h.idp.base + "/revoke"}
		h.must(h.store.UpdateRegistration(h.ctx, h.reg))
		h.idp.claims = map[string]any{"oid": oid, "iss": h.idp.base + "/" + c.claims["tid"].(string) + "/v2.0"}
		for k, v := range c.claims {
			h.idp.claims[k] = v
		}
		g := h.pending(alex, mailgrant.FlowCode, mailgrant.MailboxOwn)
		r, err := h.consent(g, alex)
		if ok := err == nil; ok != c.ok {
			t.Errorf("%s: got %v", c.name, err)
			continue
		}
		if c.ok && r.Grant.Subject.TenantID != tid {
			t.Errorf("%s: subject %+v", c.name, r.Grant.Subject)
		}
		if !c.ok && !errors.Is(err, mailgrant.Forbidden) && !errors.Is(err, mailgrant.Invalid) {
			t.Errorf("%s: got %v", c.name, err)
		}
	}
}

// TestProvidersThatDoNotSay: without an ID token the userinfo endpoint is asked, and
// where there is none the mailbox itself must open.
func TestProvidersThatDoNotSay(t *testing.T) {
	h := newHouse(t)
	h.reg.Issuer = ""
	h.reg.Overrides = map[string]string{"discovery": "none", "authorization_endpoint": h.idp.base + "/authorize", "token_endpoint": h.idp.base + "/token", "revocation_endpoint": h.idp.base + "/revoke", "auth_method": "client_secret_post",
		"base_scopes": ""}
	h.must(h.store.UpdateRegistration(h.ctx, h.reg))
	g := h.pending(alex, mailgrant.FlowCode, mailgrant.MailboxOwn)
	h.prove = mailgrant.Errorf(mailgrant.Forbidden, nil, "the mailbox does not open").Fix("choose the right account")
	_, err := h.consent(g, mallory)
	h.is(err, mailgrant.Forbidden, "a mailbox that does not open")
	h.prove = nil
	if _, err := h.consent(g, alex); err != nil || len(h.opened) != 2 {
		t.Errorf("got %v, opened %q", err, h.opened)
	}
	h.Keeper.Prove = nil
	_, err = h.consent(g, alex)
	h.is(err, mailgrant.Misset, "nobody can open it")

	h.reg.Overrides["userinfo_endpoint"], h.reg.Overrides["base_scopes"] = h.idp.base+"/userinfo", "openid email"
	h.must(h.store.UpdateRegistration(h.ctx, h.reg))
	for who, info := range map[string]string{alex: `{"sub":"1","email":"` + alex + `"}`, "unverified": `{"sub":"1","email":"` + alex + `","email_verified":false}`, mallory: `{"sub":"2","email":"` + mallory + `"}`, "nobody": `{"sub":"3"}`, "a page": `<html>`} {
		h.idp.set(func() {
			h.idp.fault = func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path != "/userinfo" {
					return false
				}
				if !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer access-") {
					w.WriteHeader(401)
				}
				w.Write([]byte(info))
				return true
			}
		})
		g := h.pending(alex, mailgrant.FlowCode, mailgrant.MailboxOwn)
		if _, err := h.consent(g, alex); (err == nil) != (who == alex) {
			t.Errorf("%s: got %v", who, err)
		}
	}
}

// Nobody is sent to the provider when the code they bring back could not be exchanged.
func TestConsentIsNotBegunWithoutCredential(t *testing.T) {
	h := newHouse(t)
	g := h.pending(alex, mailgrant.FlowCode, mailgrant.MailboxOwn)
	made, err := h.Link(h.ctx, h.org, g.ID, store.FlowConsent, "test")
	h.must(err)
	token := tokenOf(made)
	ended := time.Now().Add(-time.Hour)
	for _, c := range []struct {
		name string
		set  func() // changes what the registration has
	}{
		{"none", func() {}},
		{"one that has ended", func() { h.secret("s1", &ended) }},
	} {
		have, err := h.store.Credentials(h.ctx, h.org, h.reg.ID)
		h.must(err)
		for _, x := range have {
			h.must(h.store.DeleteCredential(h.ctx, h.org, x.ID))
		}
		c.set()
		_, err = h.Begin(h.ctx, h.org, g.ID, grant.BeginOptions{})
		begin := h.is(err, mailgrant.Misset, "begin with "+c.name)
		_, err = h.BeginLink(h.ctx, token, grant.BeginOptions{})
		h.is(err, mailgrant.Misset, "begin by link with "+c.name)
		_, err = h.Link(h.ctx, h.org, g.ID, store.FlowConsent, "test")
		h.is(err, mailgrant.Misset, "a link with "+c.name)
		if want := "mailgrant registration credential add " + string(h.reg.ID); !strings.Contains(begin.Remedy, want) {
			t.Errorf("with %s: the remedy is %q, want %q in it", c.name, begin.Remedy, want)
		}
	}
	public := mailgrant.Credential{ID: mailgrant.NewID(mailgrant.PrefixCredential), Org: h.org, Registration: h.reg.ID, Kind: mailgrant.CredentialNone}
	h.must(h.store.CreateCredential(h.ctx, public))
	if _, err := h.Begin(h.ctx, h.org, g.ID, grant.BeginOptions{}); err != nil {
		t.Errorf("a public client: %v", err)
	}
}

// TestOA04MailboxIsToldThatItWasConnected: each consent is told of, and nothing
// else is.
func TestOA04MailboxIsToldThatItWasConnected(t *testing.T) {
	h := newHouse(t)
	g := h.pending(alex, mailgrant.FlowCode, mailgrant.MailboxOwn)
	if _, err := h.consent(g, mallory); err == nil || len(h.told) > 0 {
		t.Fatalf("the wrong account: %v, told %q", err, h.told)
	}
	for range 2 {
		_, err := h.consent(g, alex)
		h.must(err)
	}
	h.pass(2 * time.Hour)
	_, err := h.token(g)
	h.must(err)
	if len(h.told) != 2 || !strings.HasPrefix(h.told[0], alex+": send mail as this mailbox, ") {
		t.Errorf("told %q", h.told)
	}
}
