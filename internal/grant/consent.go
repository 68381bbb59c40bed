package grant

import (
	"context"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider/oauth"
	"github.com/mailgrant/mailgrant/internal/store"
)

// BeginOptions says who begins a consent and where it ends.
type BeginOptions struct {
	By       string // for the audit
	ReturnTo string // "" = our own result page
	Prompt   string // "" = the registration's
	Cookie   string // what the browser already has from us
	link     []byte // hash of the link it began from
}

// A Consent is a trip that was begun: where to send the browser, and the cookie
// that binds it.
type Consent struct {
	URL       string
	Cookie    string
	State     string
	ExpiresAt time.Time
}

// A Result is a consent that came back well.
type Result struct {
	Grant    mailgrant.Grant
	ReturnTo string
}

// prompts are those that OpenID Connect names.
var prompts = []string{"", "none", "login", "consent", "select_account"}

// Begin starts a consent in a browser: authorization code with PKCE.
func (k *Keeper) Begin(ctx context.Context, org, grant mailgrant.ID, o BeginOptions) (Consent, error) {
	g, err := k.Store.Grant(ctx, org, grant)
	if err != nil {
		return Consent{}, err
	}
	if g.Flow == mailgrant.FlowApp {
		return Consent{}, mailgrant.Errorf(mailgrant.Invalid, nil, "the app itself uses %s: nobody consents in a browser", g.Mailbox).
			Fix("let an administrator approve the application permissions, then activate the grant: mailgrant grant begin %s", g.ID)
	}
	if err := k.mayReturn(o.ReturnTo); err != nil {
		return Consent{}, err
	}
	for _, p := range strings.Fields(o.Prompt) {
		if !slices.Contains(prompts, p) {
			return Consent{}, mailgrant.Errorf(mailgrant.Invalid, nil, "there is no prompt %.40q", p).Fix("use one of none, login, consent, select_account").At("prompt")
		}
	}
	s, err := k.situation(ctx, g)
	if err != nil {
		return Consent{}, err
	}
	if err := k.proves(ctx, s); err != nil {
		return Consent{}, err
	}
	sec := secrets{Verifier: oauth.NewVerifier(), Nonce: random(), Link: o.link, Asked: s.plan.Asked, Made: s.reg.Signature()}
	f := store.Flow{Org: org, Registration: s.reg.ID, Grant: grant, Kind: store.FlowConsent, RedirectURI: k.RedirectURI(s.reg.ID), ReturnTo: o.ReturnTo, By: o.By}
	state, cookie, err := k.newFlow(ctx, f, sec, o.Cookie)
	if err != nil {
		return Consent{}, err
	}
	return Consent{URL: k.client(s).AuthorizeURL(requestFor(s, o, f.RedirectURI, state, sec)), Cookie: cookie, State: state, ExpiresAt: k.Now().Add(flowLife)}, nil
}

// Complete takes the answer that a browser brought to a registration's address.
// The grant changes only when everything is in order: an answer that is refused
// leaves a working grant as it was. R153.
func (k *Keeper) Complete(ctx context.Context, registration mailgrant.ID, q url.Values, cookie string) (Result, error) {
	f, err := k.takeFlow(ctx, registration, store.FlowConsent, q, cookie)
	if err != nil {
		return Result{}, err
	}
	r := Result{ReturnTo: f.ReturnTo, Grant: mailgrant.Grant{ID: f.Grant, Org: f.Org}}
	s, sec, err := k.begun(ctx, f)
	if err != nil {
		return r, err
	}
	if r.Grant, err = k.answered(ctx, s, sec, f, q); err != nil {
		k.event(ctx, mailgrant.Event{Org: s.grant.Org, Kind: "grant.refused", Subject: s.grant.ID}, refusal(err))
	}
	return r, err
}

// refusal is what an event says of a consent that did not come about.
func refusal(err error) any {
	e := mailgrant.AsError(err)
	if e.Finding != nil {
		return *e.Finding
	}
	return map[string]string{"sentence": e.Message + ".", "remedy": e.Remedy}
}

// answered takes the answer to a consent that was begun here.
func (k *Keeper) answered(ctx context.Context, s situation, sec secrets, f store.Flow, q url.Values) (mailgrant.Grant, error) {
	if err := k.issuerOf(ctx, s, q); err != nil {
		return s.grant, err
	}
	if q.Get("error") != "" {
		return s.grant, k.client(s).Denied(q)
	}
	code := q.Get("code")
	if code == "" || len(code) > 16<<10 {
		return s.grant, k.rejected(ctx, s.reg.ID, "no code")
	}
	k.rests.Delete(s.reg.ID) // a person waits: whoever mended the registration may be they
	a, err := k.use(ctx, s, func(c *oauth.Client) (oauth.Answer, error) {
		return c.Exchange(ctx, code, f.RedirectURI, sec.Verifier, s.exchangeScopes())
	})
	if err != nil {
		return s.grant, err
	}
	return k.accept(ctx, s, sec, a, true)
}

// exchangeScopes are sent where one token serves one resource; elsewhere the
// consent has said it.
func (s situation) exchangeScopes() []string {
	if s.set.TokenResourceRule != "single" {
		return nil
	}
	return s.plan.Exchange(s.set)
}

// accept compares what a consent brought with what was expected, and keeps it. A
// token that is not what it should be is ended at the provider and not kept.
func (k *Keeper) accept(ctx context.Context, s situation, sec secrets, a oauth.Answer, nonce bool) (mailgrant.Grant, error) {
	g, err := k.examine(ctx, s, sec, a, nonce)
	if err == nil {
		g.Sealed, err = k.Vault.Seal(placeOfRefresh(g), []byte(a.Refresh.Reveal()))
	}
	if err == nil && sec.Link != nil { // once, and only for a consent that fits
		err = k.useLink(ctx, sec.Link)
	}
	if err == nil {
		err = k.complete(ctx, g)
	}
	if err != nil {
		k.giveBackUnless(ctx, s, g, a)
		return s.grant, err
	}
	k.forget(g.ID)
	k.cache.put(key{g.Org, g.ID, s.plan.Resources[0]}, newCached(a.Token(s.plan.Resources[0]), g.Registration, k.Now()))
	k.Connected(context.WithoutCancel(ctx), g, rights(s))
	return k.Store.Grant(ctx, g.Org, g.ID)
}

func (k *Keeper) useLink(ctx context.Context, link []byte) error {
	err := k.Store.UseConsentLink(ctx, link)
	if isCode(err, mailgrant.NotFound) {
		return mailgrant.Errorf(mailgrant.NotFound, err, "this link was used, taken back or has ended").Fix("ask for a new link")
	}
	return err
}

// examine makes the grant that the answer would leave.
func (k *Keeper) examine(ctx context.Context, s situation, sec secrets, a oauth.Answer, nonce bool) (mailgrant.Grant, error) {
	g := s.grant
	who, err := k.identify(ctx, s, a, sec.Nonce, nonce)
	if err != nil {
		return g, err
	}
	g.Subject = who.subject
	if err := k.expected(ctx, s, a, who); err != nil {
		return g, err
	}
	if a.Refresh.IsZero() {
		return g, noRefresh(s)
	}
	if err := s.granted(a); err != nil {
		return g, err
	}
	now := k.Now()
	next := k.next(s, now)
	g.ScopesAsked, g.ScopesGranted, g.Signature = s.plan.Asked, grantedScopes(s, a), s.reg.Signature()
	g.State, g.ConsentedAt, g.LastRefresh, g.NextRefresh, g.TokenExpires = mailgrant.GrantActive, &now, &now, &next, &a.Expires
	return g, k.prove(ctx, s, g, who, a)
}

// complete keeps an accepted consent, patiently: the person has done their part.
func (k *Keeper) complete(ctx context.Context, g mailgrant.Grant) error {
	var err error
	for range 4 {
		if err = k.Store.CompleteConsent(context.WithoutCancel(ctx), g); err == nil {
			k.Changed(g.Org, g.ID)
			return nil
		}
		if !mailgrant.AsError(err).Code.Temporary() {
			return err
		}
		time.Sleep(250 * time.Millisecond)
	}
	return err
}

// giveBackUnless ends a token that was not kept, unless that would end one that
// works: providers end all that a person gave us when one token of theirs is ended.
// R153. The grant that would have been, g, says who signed in, as far as we know.
func (k *Keeper) giveBackUnless(ctx context.Context, s situation, g mailgrant.Grant, a oauth.Answer) {
	if s.set.RevocationEndpoint == "" {
		return
	}
	all, err := k.Store.Grants(context.WithoutCancel(ctx), s.reg.Org)
	if err != nil { // perhaps it was kept, and only we were not told
		k.Log.Warn("a token may be left at the provider", "grant", g.ID, "err", err)
		return
	}
	for _, have := range all {
		unknown := g.Subject.Subject == "" && have.ID == g.ID
		if have.Registration == s.reg.ID && have.State == mailgrant.GrantActive && (unknown || have.Subject.Same(g.Subject)) {
			return
		}
	}
	k.giveBack(ctx, s, a)
}

// giveBack ends a token that will not be kept.
func (k *Keeper) giveBack(ctx context.Context, s situation, a oauth.Answer) {
	token, hint := a.Refresh, "refresh_token"
	if token.IsZero() {
		token, hint = a.Access, "access_token"
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	clients, err := k.clients(ctx, s)
	if err == nil {
		err = clients[0].Revoke(ctx, token, hint)
	}
	if err != nil {
		k.Log.Warn("a token that was not kept could not be ended at the provider", "grant", s.grant.ID, "err", err)
	}
}

func noRefresh(s situation) error {
	f := consentFinding(s.grant, "user-consent-required", "No lasting consent", "The provider gave a token but no refresh token, so the consent would end within the hour.")
	f.Remedy = "Let the registration ask for lasting access (offline_access, or access_type=offline), then authorise again."
	f.Who, f.Retry = mailgrant.WhoOperator, mailgrant.RetryFix
	return mailgrant.Errorf(mailgrant.Misset, nil, "the provider gave no refresh token for %s", s.grant.Mailbox).With(f)
}

// granted says whether the person left out what the mailbox needs.
func (s situation) granted(a oauth.Answer) error {
	if !a.ScopesTold() {
		return nil
	}
	for _, want := range s.plan.Tokens[s.plan.Resources[0]] {
		if !slices.ContainsFunc(a.Scopes, func(have string) bool { return sameScope(have, want) }) {
			f := consentFinding(s.grant, "scope-missing", "Permission missing", "The consent does not include "+want+".")
			f.Remedy = "Authorise again and leave every permission ticked; an administrator may have to allow it first."
			return mailgrant.Errorf(mailgrant.Misset, nil, "the consent for %s lacks %s", s.grant.Mailbox, want).With(f)
		}
	}
	return nil
}

// sameScope compares without the resource in front and without regard to case:
// Entra answers with short names now and then.
func sameScope(a, b string) bool {
	return strings.EqualFold(a, b) || strings.EqualFold(lastPart(a), lastPart(b)) && lastPart(a) != ""
}

func lastPart(s string) string { return s[strings.LastIndexByte(s, '/')+1:] }

// grantedScopes are what the consent covers. Where a token is for one resource
// its answer lists only that one's; the others were consented with it.
func grantedScopes(s situation, a oauth.Answer) []string {
	if s.set.TokenResourceRule != "single" || !a.ScopesTold() {
		return a.Scopes
	}
	list := slices.Clone(a.Scopes)
	for _, r := range s.plan.Resources[1:] {
		list = append(list, s.plan.Tokens[r]...)
	}
	return list
}
