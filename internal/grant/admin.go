package grant

import (
	"context"
	"net/url"
	"slices"
	"strings"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/oauth"
	"github.com/mailgrant/mailgrant/internal/store"
)

// The states of an organization-wide approval.
const (
	AdminAsked   = "asked"
	AdminGranted = "granted"
	AdminDenied  = "denied"
)

// An AdminResult is what an administrator's consent left behind.
type AdminResult struct {
	Consent  store.AdminConsent
	Grant    mailgrant.Grant // the one it was asked for
	ReturnTo string
	Active   bool // the app's grant works already
}

// BeginAdminConsent starts an administrator's approval for a grant. It has its own
// address and state and yields no token: at no time is an administrator's token
// held for somebody's mailbox. E11.
func (k *Keeper) BeginAdminConsent(ctx context.Context, org, grant mailgrant.ID, o BeginOptions) (Consent, error) {
	g, err := k.Store.Grant(ctx, org, grant)
	if err != nil {
		return Consent{}, err
	}
	if err := k.mayReturn(o.ReturnTo); err != nil {
		return Consent{}, err
	}
	s, err := k.situation(ctx, g)
	if err != nil {
		return Consent{}, err
	}
	return k.beginAdmin(ctx, s, o)
}

func (k *Keeper) beginAdmin(ctx context.Context, s situation, o BeginOptions) (Consent, error) {
	f := store.Flow{Org: s.reg.Org, Registration: s.reg.ID, Grant: s.grant.ID, Kind: store.FlowAdminConsent, RedirectURI: k.AdminRedirectURI(s.reg.ID), ReturnTo: o.ReturnTo, By: o.By}
	state, cookie, err := k.newFlow(ctx, f, secrets{Asked: s.plan.Asked, Made: s.reg.Signature(), Link: o.link}, o.Cookie)
	if err != nil {
		return Consent{}, err
	}
	u, err := k.client(s).AdminConsentURL(f.RedirectURI, state, adminScopes(s))
	if err != nil {
		return Consent{}, err
	}
	if have, err := k.Store.AdminConsent(ctx, s.reg.Org, s.reg.ID); err != nil || have.State != AdminGranted {
		c := store.AdminConsent{Registration: s.reg.ID, Org: s.reg.Org, State: AdminAsked, Scopes: adminScopes(s), At: k.Now()}
		if err := k.Store.PutAdminConsent(ctx, c); err != nil {
			return Consent{}, err
		}
	}
	return Consent{URL: u, Cookie: cookie, State: state, ExpiresAt: k.Now().Add(flowLife)}, nil
}

// adminScopes are what an administrator approves: the very permissions of a
// person's grant, or all that the app was given, one resource at a time.
func adminScopes(s situation) []string {
	if s.grant.Flow == mailgrant.FlowApp {
		return s.plan.Tokens[s.plan.Resources[0]]
	}
	return s.plan.Asked
}

// CompleteAdminConsent takes the answer. An error wins over admin_consent=True,
// which Entra sends beside it; the tenant it names is written down and believed in
// nothing.
func (k *Keeper) CompleteAdminConsent(ctx context.Context, registration mailgrant.ID, q url.Values, cookie string) (AdminResult, error) {
	f, err := k.takeFlow(ctx, registration, store.FlowAdminConsent, q, cookie)
	if err != nil {
		return AdminResult{}, err
	}
	r := AdminResult{ReturnTo: f.ReturnTo}
	s, sec, err := k.begun(ctx, f)
	if err != nil {
		return r, err
	}
	r.Grant = s.grant
	r.Consent = store.AdminConsent{Registration: registration, Org: f.Org, State: AdminDenied, At: k.Now(), Scopes: adminScopes(s)}
	if t := q.Get("tenant"); provider.IsGUID(t) {
		r.Consent.Tenant = strings.ToLower(t)
	}
	switch {
	case q.Get("error") != "":
		err = k.client(s).Denied(q)
		r.Consent.Error = mailgrant.AsError(err).Message
	case !strings.EqualFold(q.Get("admin_consent"), "true"):
		err = k.rejected(ctx, registration, "an administrator's answer without admin_consent")
		r.Consent.Error = "the answer said neither yes nor no"
	case r.Consent.Tenant != "" && provider.IsGUID(s.set.Tenant) && r.Consent.Tenant != s.set.Tenant:
		err = otherTenant(s, r.Consent.Tenant)
		r.Consent.Error = mailgrant.AsError(err).Message
	default:
		r.Consent.State = AdminGranted
	}
	if have, e := k.Store.AdminConsent(ctx, f.Org, registration); err != nil && e == nil && have.State == AdminGranted {
		have.Error, r.Consent = r.Consent.Error, have // what was approved before is not taken back by this
	}
	if e := k.Store.PutAdminConsent(ctx, r.Consent); e != nil {
		return r, e
	}
	if err != nil {
		return r, err
	}
	return r, k.approved(ctx, s, sec, &r)
}

// approved uses the link up, and activates a grant that waited for this.
func (k *Keeper) approved(ctx context.Context, s situation, sec secrets, r *AdminResult) error {
	if sec.Link != nil {
		if err := k.Store.UseConsentLink(ctx, sec.Link); err != nil && !isCode(err, mailgrant.NotFound) {
			return err
		}
	}
	k.rests.Delete(s.reg.ID)
	if s.grant.Flow != mailgrant.FlowApp {
		return nil
	}
	g, err := k.Activate(ctx, s.grant.Org, s.grant.ID)
	if err != nil { // an approval takes minutes to reach every server
		k.Log.Info("approved, and not usable yet", "grant", s.grant.ID, "err", err)
		return nil
	}
	r.Grant, r.Active = g, true
	return nil
}

func otherTenant(s situation, tenant string) error {
	f := mailgrant.Finding{Cause: "account-not-allowed-for-app", Title: "Another organization approved", Sentence: "An administrator of the tenant " + tenant + " approved, but the registration is for " + s.set.Tenant + ".",
		Remedy: "Let an administrator of the right organization open the link.", Who: mailgrant.WhoTenantAdmin, Retry: mailgrant.RetryReauthorize, Confidence: 1, Link: "errors/account-not-allowed-for-app"}
	return mailgrant.Errorf(mailgrant.Forbidden, nil, "an administrator of another organization approved").With(f)
}

// CheckAdminConsent looks again whether the app has what an administrator was
// asked for, as far as its own tokens show it.
func (k *Keeper) CheckAdminConsent(ctx context.Context, org, grant mailgrant.ID) (store.AdminConsent, error) {
	g, err := k.Store.Grant(ctx, org, grant)
	if err != nil {
		return store.AdminConsent{}, err
	}
	s, err := k.situation(ctx, g)
	if err != nil {
		return store.AdminConsent{}, err
	}
	c, err := k.Store.AdminConsent(ctx, org, s.reg.ID)
	if err != nil && !isCode(err, mailgrant.NotFound) {
		return c, err
	}
	if g.Flow != mailgrant.FlowApp || !s.set.Microsoft() { // only a person's consent would show it
		return c, nil
	}
	var roles []string
	for _, r := range s.plan.Resources {
		a, err := k.use(ctx, s, func(c *oauth.Client) (oauth.Answer, error) { return c.AppToken(ctx, s.plan.Tokens[r], g.Mailbox) })
		if err != nil {
			return c, err
		}
		roles = append(roles, oauth.RolesOf(a.Access)...)
	}
	c.Registration, c.Org, c.At, c.Error, c.Scopes = s.reg.ID, org, k.Now(), "", roles
	c.State = AdminGranted
	for _, want := range g.Capabilities {
		if role := s.set.AdminRoles[want]; role != "" && !slices.Contains(roles, role) {
			c.State, c.Error = AdminAsked, "the app lacks "+role
		}
	}
	return c, k.Store.PutAdminConsent(ctx, c)
}
