package grant

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/oauth"
	"github.com/mailgrant/mailgrant/internal/store"
)

// flowLife is how long a trip to the provider may take. R-OA1.
const flowLife = 10 * time.Minute

// The purposes of keyed hashes.
const (
	hashState   = "oauth state"
	hashBrowser = "consent browser"
	hashLink    = "consent link"
)

// secrets is what a flow keeps sealed.
type secrets struct {
	Verifier string    `json:"v,omitempty"`
	Nonce    string    `json:"n,omitempty"`
	Link     []byte    `json:"l,omitempty"` // hash of the link that began it
	Device   string    `json:"d,omitempty"`
	Interval int       `json:"i,omitempty"` // seconds
	Asked    []string  `json:"a,omitempty"`
	Made     string    `json:"s,omitempty"` // signature of the registration then
	Expires  time.Time `json:"e,omitzero"`
}

// random is 256 bits as text.
func random() string {
	var b [32]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// browserCookie is the form of a browser's own cookie.
var browserCookie = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)

// RedirectURI is where the provider sends browsers of a registration back to.
// Each registration has its own, so that an answer cannot be taken for another's.
// It is made of the configured public address, never of a request. R146.
func (k *Keeper) RedirectURI(registration mailgrant.ID) string {
	return k.PublicURL + "/oauth/callback/" + string(registration)
}

// AdminRedirectURI is the same for consents of a whole organization.
func (k *Keeper) AdminRedirectURI(registration mailgrant.ID) string {
	return k.PublicURL + "/oauth/admin-consent/" + string(registration)
}

// localPage is a page of our own: plain segments, so that nothing in it can lead
// elsewhere.
var localPage = regexp.MustCompile(`^(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+$`)

// mayReturn refuses every address but those the operator listed and pages of our
// own. R-OA4.
func (k *Keeper) mayReturn(to string) error {
	if to == "" || slices.Contains(k.ReturnURLs, to) || localPage.MatchString(to) {
		return nil
	}
	return mailgrant.Errorf(mailgrant.Invalid, nil, "a consent may not return to %.100q", to).
		Fix("use a page of mailgrant, or have the operator list this address, letter by letter").At("return_to")
}

// newFlow keeps a trip and gives its state and the cookie of its browser.
func (k *Keeper) newFlow(ctx context.Context, f store.Flow, s secrets, cookie string) (state, browser string, err error) {
	state, browser = random(), cookie
	if !browserCookie.MatchString(browser) {
		browser = random()
	}
	now := k.Now()
	if f.ID == "" {
		f.ID = mailgrant.NewID(mailgrant.PrefixFlow)
	}
	f.StateHash, f.BrowserHash = k.Vault.Hash(hashState, state), k.Vault.Hash(hashBrowser, browser)
	f.CreatedAt, f.ExpiresAt = now, now.Add(flowLife)
	plain, err := json.Marshal(s)
	if err != nil {
		return "", "", err
	}
	if f.Sealed, err = k.Vault.Seal(placeOfFlow(f), plain); err != nil {
		return "", "", err
	}
	return state, browser, k.Store.CreateFlow(ctx, f)
}

func (k *Keeper) openFlow(f store.Flow) (s secrets, err error) {
	plain, err := k.Vault.Open(placeOfFlow(f), f.Sealed)
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(plain, &s)
}

// A rejection is why a callback was not even looked into.
type rejection struct{ reason string }

func (r rejection) Error() string { return r.reason }

// rejected is one error for all reasons; the log and the audit have the reason.
func (k *Keeper) rejected(ctx context.Context, registration mailgrant.ID, reason string) error {
	k.Log.Warn("a consent's answer is refused", "registration", registration, "reason", reason)
	if r, err := k.Store.RegistrationAnywhere(ctx, registration); err == nil {
		k.event(ctx, mailgrant.Event{Org: r.Org, Kind: "oauth.callback_rejected", Subject: registration}, map[string]string{"reason": reason})
	}
	return mailgrant.Errorf(mailgrant.Invalid, rejection{reason}, "this answer belongs to no consent that was begun here in this browser").
		Fix("begin again from the link you were given; the link works until the consent is done").With(mailgrant.Finding{
		Cause: "code-expired-or-used", Title: "Begin again", Sentence: "This answer belongs to no consent that was begun in this browser in the last ten minutes.",
		Remedy: "Begin again from the link you were given, and stay in one browser.", Who: mailgrant.WhoMailboxOwner, Retry: mailgrant.RetryReauthorize,
		Confidence: 1, Link: "errors/code-expired-or-used"})
}

// takeFlow finds the flow an answer belongs to. State comes before everything
// else, errors too; then registration and browser must be those it began with.
// Whatever comes of it, the flow is used up.
func (k *Keeper) takeFlow(ctx context.Context, registration mailgrant.ID, kind store.FlowKind, q url.Values, cookie string) (store.Flow, error) {
	for name, values := range q {
		if len(values) > 1 {
			return store.Flow{}, k.rejected(ctx, registration, "parameter twice: "+name[:min(len(name), 40)])
		}
	}
	state := q.Get("state")
	if state == "" || len(state) > 200 {
		return store.Flow{}, k.rejected(ctx, registration, "no state")
	}
	f, err := k.Store.TakeFlow(ctx, k.Vault.Hash(hashState, state))
	switch {
	case isCode(err, mailgrant.NotFound):
		return f, k.rejected(ctx, registration, "unknown, used or expired state")
	case err != nil:
		return f, err
	case !k.Now().Before(f.ExpiresAt):
		return f, k.rejected(ctx, registration, "expired state")
	case f.Kind != kind:
		return f, k.rejected(ctx, registration, "state of another kind of consent")
	case f.Registration != registration:
		return f, k.rejected(ctx, registration, "state of another registration")
	case cookie == "" || subtle.ConstantTimeCompare(k.Vault.Hash(hashBrowser, cookie), f.BrowserHash) != 1:
		return f, k.rejected(ctx, registration, "another browser")
	}
	return f, nil
}

// issuerOf checks RFC 9207: an answer that names its issuer must name the one
// that was asked, and one that promised to must do so.
func (k *Keeper) issuerOf(ctx context.Context, s situation, q url.Values) error {
	iss := q.Get("iss")
	switch {
	case iss == "" && s.set.IssParameter == "required":
		return k.rejected(ctx, s.reg.ID, "the answer does not name its issuer")
	case iss != "" && s.set.Issuer != "" && !issuedBy(s.set, iss):
		return k.rejected(ctx, s.reg.ID, "the answer comes from another issuer")
	}
	if s.set.CallbackServer == "" {
		return nil
	}
	return sameServer(s, q.Get(s.set.CallbackServer))
}

// issuedBy compares as plain text. Where many Microsoft tenants may sign in, any of
// them may answer; which of them did, the ID token says.
func issuedBy(set provider.Settings, iss string) bool {
	before, after, many := strings.Cut(set.Issuer, "/"+set.Tenant+"/")
	if !many || !set.Microsoft() || provider.IsGUID(set.Tenant) {
		return iss == set.Issuer
	}
	rest, ok1 := strings.CutPrefix(iss, before+"/")
	tenant, ok2 := strings.CutSuffix(rest, "/"+after)
	return iss == set.Issuer || ok1 && ok2 && provider.IsGUID(tenant)
}

// sameServer compares the data centre an answer names with the registration's.
// The code is shown nowhere else.
func sameServer(s situation, server string) error {
	if server == "" {
		return nil
	}
	u, err := url.Parse(server)
	want, _ := url.Parse(s.set.TokenEndpoint)
	if err == nil && u.Scheme == want.Scheme && u.Host == want.Host {
		return nil
	}
	return mailgrant.Errorf(mailgrant.Misset, err, "this account lives in another data centre (%.100s) than the registration", server).
		Fix("make a registration with the cloud of that data centre")
}

// begun is what holds of every flow that comes back: its grant and all around it.
func (k *Keeper) begun(ctx context.Context, f store.Flow) (situation, secrets, error) {
	sec, err := k.openFlow(f)
	if err != nil {
		return situation{}, sec, err
	}
	g, err := k.Store.Grant(ctx, f.Org, f.Grant)
	if err != nil {
		return situation{}, sec, err
	}
	s, err := k.situation(ctx, g)
	if err != nil {
		return s, sec, err
	}
	if g.Registration != f.Registration || s.reg.Signature() != sec.Made || !slices.Equal(s.plan.Asked, sec.Asked) {
		return s, sec, mailgrant.Errorf(mailgrant.Conflict, nil, "the registration or the grant was changed while the consent was under way").
			Fix("begin again")
	}
	return s, sec, nil
}

// hintOf is whom to expect at the provider's page. The owner of a shared mailbox
// signs in with an own account, which nobody told us.
func hintOf(g mailgrant.Grant) string {
	if g.MailboxKind == mailgrant.MailboxShared {
		return g.Subject.UPN
	}
	return g.Mailbox
}

func requestFor(s situation, o BeginOptions, redirect, state string, sec secrets) oauth.Request {
	nonce := sec.Nonce
	if !s.set.OIDC() {
		nonce = ""
	}
	return oauth.Request{RedirectURI: redirect, State: state, Nonce: nonce, Verifier: sec.Verifier, Scopes: s.plan.Asked,
		Hint: hintOf(s.grant), Prompt: strings.TrimSpace(o.Prompt)}
}
