package grant_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/grant"
)

// senders ask for a token all at once; it must be one and the same.
func senders(h *house, n int, k *grant.Keeper, g mailgrant.Grant) (string, error) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	got := map[string]bool{}
	var failed error
	for range n {
		wg.Go(func() {
			tok, err := k.Token(h.ctx, h.org, g.ID, "mail")
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = err
			}
			got[tok.Value.Reveal()] = true
		})
	}
	wg.Wait()
	if len(got) != 1 {
		h.t.Errorf("different tokens: %v", got)
	}
	for v := range got {
		return v, failed
	}
	return "", failed
}

func TestOA19OneRefreshForAllSenders(t *testing.T) {
	h := newHouse(t)
	g := h.active()
	for i := range 10 {
		h.pass(2 * time.Hour)
		tok, err := senders(h, 50, h.Keeper, g)
		if err != nil || tok == "" {
			t.Fatalf("expiry %d: %q, %v", i, tok, err)
		}
		if n := h.idp.count("refresh_token"); n != i+1 {
			t.Fatalf("expiry %d: %d refreshes", i, n)
		}
	}
	if now := h.grant(g.ID); now.Generation != g.Generation+10 || now.State != mailgrant.GrantActive {
		t.Errorf("got %+v", now)
	}
}

func TestEarlyRefreshKeepsNobodyWaiting(t *testing.T) {
	h := newHouse(t)
	g := h.active()
	asked, release := make(chan struct{}), make(chan struct{})
	h.idp.set(func() {
		h.idp.fault = func(w http.ResponseWriter, r *http.Request) bool {
			close(asked)
			<-release
			return false
		}
	})
	h.pass(50 * time.Minute) // ten are left
	if tok, err := h.token(g); err != nil || tok != "access-1" {
		t.Fatalf("got %q, %v", tok, err)
	}
	<-asked
	for range 100 {
		if tok, err := h.token(g); err != nil || tok != "access-1" {
			t.Fatalf("got %q, %v", tok, err)
		}
	}
	h.idp.well()
	close(release)
	h.Wait()
	if tok, err := h.token(g); err != nil || tok != "access-2" || h.idp.count("refresh_token") != 1 || h.kept(g.ID) != "refresh-2" {
		t.Errorf("got %q, %v after %d refreshes", tok, err, h.idp.count("refresh_token"))
	}
}

func TestOA21RefreshTokenIsKeptWhenNoneComes(t *testing.T) {
	h := newHouse(t)
	g := h.active()
	h.idp.set(func() { h.idp.keep = true })
	for range 3 {
		h.pass(2 * time.Hour)
		if _, err := h.token(g); err != nil {
			t.Fatal(err)
		}
	}
	if h.kept(g.ID) != "refresh-1" || h.idp.count("refresh_token") != 3 {
		t.Errorf("kept %q", h.kept(g.ID))
	}
}

// TestR150DurableBeforeUse: no access token is given while its refresh token is
// not kept, and what the provider gave is not asked for twice.
func TestR150DurableBeforeUse(t *testing.T) {
	h := newHouse(t)
	g := h.active()
	h.pass(2 * time.Hour)
	h.db.fail("RenewGrant", 2)
	h.db.hook = func(method string) {
		if method == "RenewGrant" && h.kept(g.ID) != "refresh-1" {
			t.Error("kept too early")
		}
	}
	tok, err := h.token(g)
	if err != nil || tok != "access-2" || h.kept(g.ID) != "refresh-2" || h.idp.count("refresh_token") != 1 {
		t.Errorf("got %q, %v, kept %q after %d refreshes", tok, err, h.kept(g.ID), h.idp.count("refresh_token"))
	}
}

// TestOA20DatabaseAwayAfterTheAnswer: the database is gone for minutes just when the
// provider has given a new refresh token. It is kept in memory and written later.
func TestOA20DatabaseAwayAfterTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		g := h.active()
		h.pass(2 * time.Hour)
		h.db.fail("RenewGrant", -1)
		_, err := h.token(g) // 45 seconds
		h.is(err, mailgrant.Unavailable, "while the database is away")
		if h.idp.count("refresh_token") != 1 {
			t.Fatalf("%d refreshes", h.idp.count("refresh_token"))
		}
		h.db.fail("RenewGrant", 0)
		tok, err := h.token(g)
		if err != nil || tok != "access-2" || h.kept(g.ID) != "refresh-2" || h.idp.count("refresh_token") != 1 {
			t.Errorf("got %q, %v, kept %q after %d refreshes", tok, err, h.kept(g.ID), h.idp.count("refresh_token"))
		}
		// Nobody asks: the keeper writes it by itself.
		h.pass(2 * time.Hour)
		h.db.fail("RenewGrant", -1)
		h.token(g)
		h.db.fail("RenewGrant", 0)
		ctx, stop := context.WithCancel(h.ctx)
		done := make(chan error)
		go func() { done <- h.Run(ctx) }()
		time.Sleep(2 * time.Minute)
		if h.kept(g.ID) != "refresh-3" {
			t.Errorf("kept %q", h.kept(g.ID))
		}
		stop()
		<-done
	})
}

func TestOA17RefusedInTheMiddleOfABurst(t *testing.T) {
	h := newHouse(t)
	g, other := h.active(), h.pending("robin@contoso.example", mailgrant.FlowCode, mailgrant.MailboxOwn)
	if _, err := h.consent(other, "robin@contoso.example"); err != nil {
		t.Fatal(err)
	}
	h.pass(2 * time.Hour)
	h.faulty(400, `{"error":"invalid_grant","error_description":"Token has been expired or revoked."}`)
	for range 20 {
		_, err := h.token(g)
		e := h.is(err, mailgrant.Lapsed, "revoked")
		if e.Finding == nil || e.Finding.Cause != "grant-revoked" || e.Finding.Retry != mailgrant.RetryReauthorize {
			t.Fatalf("got %+v", e)
		}
		h.pass(30 * time.Second)
	}
	now := h.grant(g.ID)
	if now.State != mailgrant.GrantLapsed || h.kept(g.ID) != "refresh-1" || now.LastFinding == nil || h.events("grant.lapsed") != 1 {
		t.Errorf("got %+v, kept %q", now, h.kept(g.ID))
	}
	if n := h.idp.count("refresh_token"); n != 1 {
		t.Errorf("%d refreshes within 10 minutes", n)
	}
	h.idp.well()
	if _, err := h.token(other); err != nil {
		t.Errorf("another mailbox: %v", err)
	}
	h.pass(15 * time.Minute) // the administrator has relented
	if tok, err := h.token(g); err != nil || tok == "" || h.grant(g.ID).State != mailgrant.GrantActive || h.grant(g.ID).LastFinding != nil {
		t.Errorf("later: %q, %v", tok, err)
	}
	h.faulty(400, `{"error":"invalid_grant"}`)
	h.pass(2 * time.Hour)
	h.token(g)
	h.idp.well()
	if _, err := h.consent(g, alex); err != nil {
		t.Fatal(err)
	}
	if _, err := h.token(g); err != nil {
		t.Errorf("consented again: %v", err)
	}
}

func (h *house) faulty(status int, body string) { h.idp.faulty(status, body) }

// TestOA18ProviderDown: nothing lapses, the provider is left in peace, and the
// token that still works is used.
func TestOA18ProviderDown(t *testing.T) {
	for name, fault := range map[string]func(w http.ResponseWriter, r *http.Request) bool{
		"503":   func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(503); return true },
		"429":   func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(429); return true },
		"reset": func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) },
		"page":  page,
		"redirect": func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, "https://evil.example/", http.StatusTemporaryRedirect)
			return true
		},
	} {
		h := newHouse(t)
		g := h.active()
		h.idp.set(func() { h.idp.fault = fault })
		h.pass(50 * time.Minute)
		for range 5 { // early: the old one is still good
			if tok, err := h.token(g); err != nil || tok != "access-1" {
				t.Errorf("%s: got %q, %v", name, tok, err)
			}
			h.Wait()
		}
		if n := h.idp.count("refresh_token"); n != 1 {
			t.Errorf("%s: %d tries at once", name, n)
		}
		h.pass(15 * time.Minute)
		tries := h.idp.count("refresh_token")
		for range 60 { // half an hour, two calls a minute
			_, err := h.token(g)
			h.is(err, mailgrant.Unavailable, name)
			h.pass(30 * time.Second)
		}
		if n := h.idp.count("refresh_token") - tries; n < 2 || n > 8 {
			t.Errorf("%s: %d tries within half an hour", name, n)
		}
		now := h.grant(g.ID)
		if now.State != mailgrant.GrantActive || h.kept(g.ID) != "refresh-1" || now.LastFinding == nil || h.events("grant.lapsed") != 0 {
			t.Errorf("%s: %+v", name, now)
		}
		h.idp.well()
		h.pass(20 * time.Minute)
		if tok, err := h.token(g); err != nil || tok != "access-2" {
			t.Errorf("%s, over: %q, %v", name, tok, err)
		}
	}
}

// TestBrokenRegistrationLapsesNothing: all grants share the fault and none is to
// blame; and the provider is not asked by each of them.
func TestBrokenRegistrationLapsesNothing(t *testing.T) {
	h := newHouse(t)
	var grants []mailgrant.Grant
	for range 5 {
		grants = append(grants, h.active())
	}
	h.idp.set(func() { h.idp.secrets = map[string]bool{} })
	h.pass(2 * time.Hour)
	for _, g := range grants {
		_, err := h.token(g)
		if e := h.is(err, mailgrant.Misset, "secret refused"); e.Finding == nil || e.Finding.Retry != mailgrant.RetryFix {
			t.Errorf("got %+v", e)
		}
		if h.grant(g.ID).State != mailgrant.GrantActive {
			t.Error("lapsed")
		}
	}
	if n := h.idp.count("refresh_token"); n != 1 || h.events("registration.refused") != 1 {
		t.Errorf("%d refreshes, %d alarms", n, h.events("registration.refused"))
	}
	h.idp.set(func() { h.idp.secrets = nil })
	h.pass(2 * time.Minute)
	for _, g := range grants {
		if _, err := h.token(g); err != nil {
			t.Errorf("mended: %v", err)
		}
	}
}

// TestR157TwoSecretsAtOnce: the one that ends last is used first; when it is
// refused the other one serves.
func TestR157TwoSecretsAtOnce(t *testing.T) {
	h := newHouse(t)
	soon, late := time.Now().Add(24*time.Hour), time.Now().Add(300*24*time.Hour)
	l, _ := h.store.Credentials(h.ctx, h.org, h.reg.ID)
	h.must(h.store.DeleteCredential(h.ctx, h.org, l[0].ID))
	h.secret("old", &soon)
	h.secret("new", &late)
	g := h.active()
	if h.idp.forms[len(h.idp.forms)-1].Get("client_secret") == "" {
		for _, f := range h.idp.forms {
			if s := f.Get("client_secret"); s != "" && s != "new" {
				t.Errorf("used %q first", s)
			}
		}
	}
	h.idp.set(func() { h.idp.secrets = map[string]bool{"old": true} }) // not known everywhere yet
	h.pass(2 * time.Hour)
	if _, err := h.token(g); err != nil || h.idp.count("refresh_token") != 2 {
		t.Errorf("got %v after %d requests", err, h.idp.count("refresh_token"))
	}
	h.idp.set(func() { h.idp.secrets = map[string]bool{"new": true} })
	h.pass(30 * time.Hour) // the old one has ended: it is not shown any more
	if _, err := h.token(g); err != nil || h.idp.count("refresh_token") != 3 {
		t.Errorf("got %v after %d requests", err, h.idp.count("refresh_token"))
	}
	h.pass(400 * 24 * time.Hour)
	_, err := h.token(g)
	if e := h.is(err, mailgrant.Misset, "all have ended"); e.Finding == nil || e.Finding.Cause != "client-secret-expired" || h.idp.count("refresh_token") != 3 {
		t.Errorf("got %+v after %d requests", e, h.idp.count("refresh_token"))
	}
	h.secret("new", nil) // mended: no rest was needed, for nobody was asked
	if _, err := h.token(g); err != nil {
		t.Errorf("mended: %v", err)
	}
}

func TestRevokeDestroysAndEnds(t *testing.T) {
	h := newHouse(t)
	g := h.active()
	h.must(h.Revoke(h.ctx, h.org, g.ID))
	now := h.grant(g.ID)
	if now.State != mailgrant.GrantRevoked || len(now.Sealed)+len(now.SealedPrev) != 0 || h.idp.ended() != "refresh-1" {
		t.Errorf("got %+v, ended %q", now, h.idp.ended())
	}
	_, err := h.token(g)
	h.is(err, mailgrant.Lapsed, "disconnected")
	if h.idp.count("refresh_token") != 0 {
		t.Error("asked on")
	}
	// The provider is away: it is destroyed here all the same.
	g = h.active()
	h.idp.set(func() {
		h.idp.fault = func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(503); return true }
	})
	h.must(h.Revoke(h.ctx, h.org, g.ID))
	if h.kept(g.ID) != "" {
		t.Error("still there")
	}
	// The database is away: nothing has happened.
	h.idp.well()
	g = h.active()
	h.db.fail("RevokeGrant", 1)
	h.is(h.Revoke(h.ctx, h.org, g.ID), mailgrant.Unavailable, "the database is away")
	if h.kept(g.ID) == "" || strings.Contains(h.idp.ended(), h.kept(g.ID)) {
		t.Errorf("ended %q", h.idp.ended())
	}
}

// TestRevokedWhileItIsRefreshed: the refresh loses, and the token that nobody
// would ever know is ended.
func TestRevokedWhileItIsRefreshed(t *testing.T) {
	h := newHouse(t)
	g := h.active()
	h.pass(2 * time.Hour)
	asked, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	h.db.hook = func(method string) {
		if method == "RenewGrant" {
			once.Do(func() { close(asked); <-release })
		}
	}
	done := make(chan error)
	go func() { _, err := h.token(g); done <- err }()
	<-asked
	other := h.keeper(mailgrant.NewID(mailgrant.PrefixNode))
	other.Store = h.store
	h.must(other.Revoke(h.ctx, h.org, g.ID))
	close(release)
	h.is(<-done, mailgrant.Lapsed, "disconnected meanwhile")
	if h.kept(g.ID) != "" || h.idp.ended() != "refresh-1 refresh-2" {
		t.Errorf("kept %q, ended %q", h.kept(g.ID), h.idp.ended())
	}
}

// TestConsentedWhileItIsRefreshed: the consent counts.
func TestConsentedWhileItIsRefreshed(t *testing.T) {
	h := newHouse(t)
	g := h.active()
	h.pass(2 * time.Hour)
	asked, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	h.db.hook = func(method string) {
		if method == "RenewGrant" {
			once.Do(func() { close(asked); <-release })
		}
	}
	var tok string
	done := make(chan error)
	go func() {
		var err error
		tok, err = h.token(g)
		done <- err
	}()
	<-asked
	other := h.keeper(mailgrant.NewID(mailgrant.PrefixNode))
	other.Store = h.store
	c, err := other.Begin(h.ctx, h.org, g.ID, grant.BeginOptions{})
	h.must(err)
	if _, err := other.Complete(h.ctx, h.reg.ID, h.idp.consent(c.URL, alex), c.Cookie); err != nil {
		t.Fatal(err)
	}
	close(release)
	if err := <-done; err != nil || tok == "access-2" || h.kept(g.ID) == "refresh-2" || h.idp.ended() != "" {
		t.Errorf("got %q, %v, kept %q, ended %q", tok, err, h.kept(g.ID), h.idp.ended())
	}
}

func TestR103ChangedRegistrationIsNotSilentlyUsed(t *testing.T) {
	h := newHouse(t)
	g := h.active()
	ctx, stop := context.WithCancel(h.ctx)
	done := make(chan error)
	go func() { done <- h.Run(ctx) }()
	defer func() { stop(); <-done }()
	r := h.reg
	r.Name = "another name" // leaves everything
	h.must(h.store.UpdateRegistration(h.ctx, r))
	r.Prompt = "login"
	heard := h.until(func() bool {
		h.must(h.store.UpdateRegistration(h.ctx, r))
		_, err := h.token(g)
		return err != nil
	})
	_, err := h.token(g)
	e := h.is(err, mailgrant.Lapsed, "after the change")
	if !heard || e.Finding == nil || !strings.Contains(e.Message, "registration was changed") || h.idp.count("refresh_token") != 0 || h.grant(g.ID).State != mailgrant.GrantActive {
		t.Errorf("heard %v, got %+v, %d refreshes", heard, e, h.idp.count("refresh_token"))
	}
	h.must(h.store.UpdateRegistration(h.ctx, h.reg)) // put back
	if _, err := h.token(g); err != nil {
		t.Errorf("put back: %v", err)
	}
}

// until waits for what other goroutines will bring about.
func (h *house) until(f func() bool) bool {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	end := time.After(20 * time.Second)
	for {
		if f() {
			return true
		}
		select {
		case <-tick.C:
		case <-end:
			return false
		}
	}
}

// A token goes to the hosts for which its owner consented. Where the operator moves
// one, the owner is asked again before anything is sent there.
func TestOA22HostsArePinned(t *testing.T) {
	h := newHouse(t)
	g := h.active()
	h.pass(2 * time.Hour) // no token is left
	for _, name := range []string{"smtp_host", "imap_host", "pop_host", "smtp_port", "graph_url", "gmail_url", "token_endpoint", "userinfo_endpoint", "revocation_endpoint", "resource_hosts.mail"} {
		r := h.reg
		value := "https://evil.example"
		switch {
		case strings.HasSuffix(name, "_host"), strings.HasPrefix(name, "resource_hosts"):
			value = "evil.example"
		case strings.HasSuffix(name, "_port"):
			value = "2525"
		}
		r.Overrides = map[string]string{}
		for k, v := range h.reg.Overrides {
			r.Overrides[k] = v
		}
		r.Overrides[name] = value
		h.must(h.store.UpdateRegistration(h.ctx, r))
		_, err := h.token(g)
		h.is(err, mailgrant.Lapsed, name)
		w, err := h.Way(h.ctx, mailgrant.Mailbox{Org: h.org, Address: alex, Grant: g.ID})
		if err == nil {
			_, err = w.Token(h.ctx, "mail", false)
		}
		h.is(err, mailgrant.Lapsed, name+", on the way")
	}
	if n := h.idp.count("refresh_token"); n != 0 {
		t.Errorf("%d refreshes", n)
	}
	h.must(h.store.UpdateRegistration(h.ctx, h.reg))
	if _, err := h.token(g); err != nil {
		t.Errorf("put back: %v", err)
	}
}

func TestOA23MoreCapabilitiesNeedAnotherConsent(t *testing.T) {
	h := newHouse(t)
	g := h.active()
	r := h.reg
	r.ScopesExtra = []string{"mail", "contacts"}
	h.must(h.store.UpdateRegistration(h.ctx, r))
	h.pass(2 * time.Hour)
	_, err := h.token(g)
	h.is(err, mailgrant.Lapsed, "asked for more")
	if !h.Outgrown(g, r) || h.Outgrown(g, h.reg) {
		t.Errorf("outgrown: %v, and without more %v", h.Outgrown(g, r), h.Outgrown(g, h.reg))
	}
	h.must(h.store.UpdateRegistration(h.ctx, h.reg))
	_, err = h.Token(h.ctx, h.org, g.ID, "graph")
	if e := h.is(err, mailgrant.Forbidden, "another resource"); e.Field != "resource" {
		t.Errorf("got %+v", e)
	}
	_, err = h.Token(h.ctx, mailgrant.NewID(mailgrant.PrefixOrganization), g.ID, "mail")
	h.is(err, mailgrant.NotFound, "another organization")
	r.ScopesExtra, r.Disabled = h.reg.ScopesExtra, true
	h.must(h.store.UpdateRegistration(h.ctx, r))
	_, err = h.token(g)
	h.is(err, mailgrant.Misset, "switched off")
}

// TestGraceOfTheTokenBefore: the provider refuses the token it gave last, as after
// a backup was restored, and still knows the one before.
func TestGraceOfTheTokenBefore(t *testing.T) {
	h := newHouse(t)
	g := h.active()
	h.idp.set(func() { h.idp.old = true })
	h.pass(2 * time.Hour)
	if _, err := h.token(g); err != nil {
		t.Fatal(err)
	}
	h.idp.set(func() { delete(h.idp.refresh, "refresh-2") })
	h.pass(50 * time.Minute)
	h.token(g)
	h.Wait()
	if now := h.grant(g.ID); now.State != mailgrant.GrantActive || h.kept(g.ID) != "refresh-3" || h.idp.count("refresh_token") != 3 {
		t.Errorf("%s, kept %q after %d refreshes", now.State, h.kept(g.ID), h.idp.count("refresh_token"))
	}
	h.idp.set(func() { delete(h.idp.refresh, "refresh-3"); delete(h.idp.refresh, "refresh-2") })
	h.pass(3 * time.Hour) // too late for grace
	_, err := h.token(g)
	h.is(err, mailgrant.Lapsed, "hours later")
	if h.idp.count("refresh_token") != 4 {
		t.Errorf("%d refreshes", h.idp.count("refresh_token"))
	}
}

func TestRefreshForSomebodyElse(t *testing.T) {
	for name, claims := range map[string]map[string]any{"subject": {"sub": "mallory"}, "issuer": {"iss": "https://evil.example"}} {
		h := newHouse(t)
		g := h.active()
		h.idp.set(func() { h.idp.claims = claims })
		h.pass(2 * time.Hour)
		for range 3 {
			_, err := h.token(g)
			h.is(err, mailgrant.Lapsed, name)
		}
		if h.kept(g.ID) != "refresh-1" || h.idp.count("refresh_token") != 1 || h.grant(g.ID).LastFinding.Cause != "wrong-user-signed-in" {
			t.Errorf("%s: kept %q after %d refreshes", name, h.kept(g.ID), h.idp.count("refresh_token"))
		}
	}
}

// TestStoreFailsAtEachStep: whatever the database refuses, no refresh token is lost
// and the next try goes on.
func TestStoreFailsAtEachStep(t *testing.T) {
	for _, method := range []string{"LeaseGrant", "Registration", "Credentials", "ReleaseGrant", "Grant", "RenewGrant", "AddEvent"} {
		h := newHouse(t)
		g := h.active()
		h.pass(2 * time.Hour)
		h.db.fail(method, 1)
		_, err := h.token(g)
		if err != nil {
			h.is(err, mailgrant.Unavailable, method)
			if _, err = h.token(g); err != nil {
				t.Errorf("%s, once more: %v", method, err)
			}
		}
		h.pass(2 * time.Hour)
		if _, err := h.token(g); err != nil || h.grant(g.ID).State != mailgrant.GrantActive {
			t.Errorf("%s, later: %v", method, err)
		}
	}
	for _, method := range []string{"LapseGrant", "NoteGrant"} {
		h := newHouse(t)
		g := h.active()
		h.pass(2 * time.Hour)
		h.db.fail(method, 1)
		h.faulty(map[string]int{"LapseGrant": 400, "NoteGrant": 503}[method], `{"error":"invalid_grant"}`)
		if _, err := h.token(g); err == nil || h.kept(g.ID) != "refresh-1" {
			t.Errorf("%s: %v", method, err)
		}
		h.idp.well()
		h.pass(20 * time.Minute)
		if _, err := h.token(g); err != nil {
			t.Errorf("%s, later: %v", method, err)
		}
	}
}

func TestFreshToken(t *testing.T) {
	h := newHouse(t)
	g := h.active()
	fresh := func() string {
		tok, err := h.FreshToken(h.ctx, h.org, g.ID, "mail")
		h.must(err)
		return tok.Value.Reveal()
	}
	if got := fresh(); got != "access-1" {
		t.Errorf("a second old: got %s", got)
	}
	h.pass(2 * time.Minute)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if got := fresh(); got != "access-2" {
				t.Errorf("refused: got %s", got)
			}
		})
	}
	wg.Wait()
	if h.idp.count("refresh_token") != 1 {
		t.Errorf("%d refreshes", h.idp.count("refresh_token"))
	}
	h.pass(2 * time.Minute)
	r, err := h.Renew(h.ctx, h.org, g.ID)
	if err != nil || h.idp.count("refresh_token") != 2 || r.Generation != g.Generation+2 {
		t.Errorf("renew: %+v, %v", r, err)
	}
}

func TestTokenWithoutAResource(t *testing.T) {
	h := newHouse(t)
	g := h.active()
	get := func() string {
		tok, err := h.Token(h.ctx, h.org, g.ID, "")
		h.must(err)
		return tok.Value.Reveal()
	}
	get()
	reads := 0
	h.db.hook = func(string) { reads++ }
	if got := get(); got != "access-1" || reads != 0 {
		t.Errorf("got %s after %d reads", got, reads)
	}
	h.pass(50 * time.Minute)
	get()
	h.Wait()
	if got := get(); got != "access-2" {
		t.Errorf("after an early refresh: got %s", got)
	}
	h.must(h.Revoke(h.ctx, h.org, g.ID))
	_, err := h.Token(h.ctx, h.org, g.ID, "")
	h.is(err, mailgrant.Lapsed, "disconnected")
}

// What a refresh brings after the end could not be kept, so none is begun.
func TestNothingIsBegunAfterTheEnd(t *testing.T) {
	h := newHouse(t)
	g := h.active()
	h.pass(2 * time.Hour)
	h.Close()
	_, err := h.token(g)
	h.is(err, mailgrant.Unavailable, "stopping")
	if n := h.idp.count("refresh_token"); n != 0 {
		t.Errorf("%d refreshes", n)
	}
}

// TestGivingUpDoesNotStopTheRefresh: its result may be the only copy.
func TestGivingUpDoesNotStopTheRefresh(t *testing.T) {
	h := newHouse(t)
	g := h.active()
	h.pass(2 * time.Hour)
	asked, release := make(chan struct{}), make(chan struct{})
	h.idp.set(func() {
		h.idp.fault = func(w http.ResponseWriter, r *http.Request) bool {
			close(asked)
			<-release
			return false
		}
	})
	ctx, cancel := context.WithCancel(h.ctx)
	done := make(chan error)
	go func() { _, err := h.Token(ctx, h.org, g.ID, "mail"); done <- err }()
	<-asked
	cancel()
	h.is(<-done, mailgrant.Unavailable, "given up")
	h.idp.well()
	close(release)
	h.Wait()
	if h.kept(g.ID) != "refresh-2" {
		t.Errorf("kept %q", h.kept(g.ID))
	}
}

// TestR152IdleGrantsAreRefreshed on a clock of its own: hours pass at once.
func TestR152IdleGrantsAreRefreshed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.reg.Overrides = map[string]string{"refresh_idle": "8h"} // every two hours, then, instead of every week
		h.must(h.store.UpdateRegistration(h.ctx, h.reg))
		g := h.active()
		app := h.pending("app@contoso.example", mailgrant.FlowApp, mailgrant.MailboxApp)
		if _, err := h.Activate(h.ctx, h.org, app.ID); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(h.ctx)
		done := make(chan error)
		go func() { done <- h.Run(ctx) }()
		time.Sleep(90 * time.Minute)
		if n := h.idp.count("refresh_token"); n != 0 {
			t.Errorf("%d refreshes so soon", n)
		}
		time.Sleep(40 * time.Minute)
		if n := h.idp.count("refresh_token"); n != 1 || h.idp.count("client_credentials") != 1 || h.kept(g.ID) != "refresh-3" {
			t.Errorf("%d refreshes when it was due, %d of the app, kept %q", n, h.idp.count("client_credentials"), h.kept(g.ID))
		}
		if tok, err := h.token(g); err != nil || tok == "" {
			t.Error(err)
		}
		time.Sleep(2 * time.Minute)
		if used := h.grant(g.ID).LastUse; used == nil || time.Since(*used) > 5*time.Minute {
			t.Errorf("last use %v", used)
		}
		stop()
		<-done
	})
}

// TestLeaseLostBeforeTheSave: a slow refresh whose lease has ended takes it again,
// as long as nobody has gone on with the grant.
func TestLeaseLostBeforeTheSave(t *testing.T) {
	h := newHouse(t)
	g := h.active()
	h.pass(2 * time.Hour)
	other := mailgrant.NewID(mailgrant.PrefixNode)
	var once sync.Once
	h.db.hook = func(method string) {
		if method == "RenewGrant" {
			once.Do(func() {
				h.must(h.store.ReleaseGrant(h.ctx, h.org, g.ID, h.Keeper.Node))
				if _, held, err := h.store.LeaseGrant(h.ctx, h.org, g.ID, other, 300*time.Millisecond); err != nil || !held {
					t.Errorf("got %v, %v", held, err)
				}
			})
		}
	}
	if tok, err := h.token(g); err != nil || tok != "access-2" || h.kept(g.ID) != "refresh-2" || h.idp.count("refresh_token") != 1 {
		t.Errorf("got %q, %v, kept %q", tok, err, h.kept(g.ID))
	}
}

// TestOneDeadRegistrationDoesNotStarveOthers: more broken grants than fit in one
// look are due, and the one behind them is refreshed all the same.
func TestOneDeadRegistrationDoesNotStarveOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.reg.Overrides = map[string]string{"refresh_idle": "8h"}
		h.must(h.store.UpdateRegistration(h.ctx, h.reg))
		dead := h.reg
		dead.ID, dead.Disabled = mailgrant.NewID(mailgrant.PrefixRegistration), true
		h.must(h.store.CreateRegistration(h.ctx, dead))
		for range 210 {
			g := h.pending(alex, mailgrant.FlowCode, mailgrant.MailboxOwn)
			g.ID, g.Registration = mailgrant.NewID(mailgrant.PrefixGrant), dead.ID
			long := time.Now().Add(-time.Hour)
			g.NextRefresh, g.Signature = &long, dead.Signature()
			h.must(h.store.CreateGrant(h.ctx, g))
			h.must(h.store.CompleteConsent(h.ctx, g))
		}
		g := h.active()
		ctx, stop := context.WithCancel(h.ctx)
		done := make(chan error)
		go func() { done <- h.Run(ctx) }()
		time.Sleep(125 * time.Minute)
		if h.idp.count("refresh_token") != 1 || h.kept(g.ID) != "refresh-2" {
			t.Errorf("%d refreshes", h.idp.count("refresh_token"))
		}
		stop()
		<-done
	})
}

// TestUnusableGrantsCostTheDatabaseLittle: senders that ask on for a grant that
// nobody consented to do not write each time.
func TestUnusableGrantsCostTheDatabaseLittle(t *testing.T) {
	h := newHouse(t)
	g := h.pending(alex, mailgrant.FlowCode, mailgrant.MailboxOwn)
	writes := 0
	h.db.hook = func(method string) {
		if method == "LeaseGrant" {
			writes++
		}
	}
	for range 100 {
		_, err := h.token(g)
		h.is(err, mailgrant.Lapsed, "pending")
	}
	if writes != 1 {
		t.Errorf("%d writes", writes)
	}
	if _, err := h.consent(g, alex); err != nil {
		t.Fatal(err)
	}
	if _, err := h.token(g); err != nil {
		t.Errorf("consented: %v", err)
	}
}

func BenchmarkTokenCached(b *testing.B) {
	h := newHouse(b)
	g := h.active()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := h.Token(h.ctx, h.org, g.ID, "mail"); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
}
