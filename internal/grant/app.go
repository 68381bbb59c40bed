package grant

import (
	"context"
	"fmt"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/oauth"
)

// Activate makes a grant of the app itself active: a token for each resource, the
// mailbox opened with it, and only then kept. Nobody signs in. R144.
func (k *Keeper) Activate(ctx context.Context, org, grant mailgrant.ID) (mailgrant.Grant, error) {
	g, err := k.Store.Grant(ctx, org, grant)
	if err != nil {
		return g, err
	}
	if g.Flow != mailgrant.FlowApp {
		return g, mailgrant.Errorf(mailgrant.Invalid, nil, "a person must consent for %s", g.Mailbox).
			Fix("begin the consent: mailgrant grant begin %s", g.ID)
	}
	s, err := k.situation(ctx, g)
	if err != nil {
		return g, err
	}
	if s.set.Microsoft() && !provider.IsGUID(s.set.Tenant) {
		return g, mailgrant.Errorf(mailgrant.Misset, nil, "the app itself can sign in to one tenant only, not to %q", s.set.Tenant).
			Fix("enter the Directory (tenant) ID in the registration").At("tenant")
	}
	k.rests.Delete(s.reg.ID) // somebody did something: the provider may think otherwise now
	answers := map[string]oauth.Answer{}
	for _, r := range s.plan.Resources {
		a, err := k.use(ctx, s, func(c *oauth.Client) (oauth.Answer, error) {
			return c.AppToken(ctx, s.plan.Tokens[r], g.Mailbox)
		})
		if err != nil {
			return g, err
		}
		answers[r] = a
	}
	return k.keepApp(ctx, s, answers)
}

func (k *Keeper) keepApp(ctx context.Context, s situation, answers map[string]oauth.Answer) (mailgrant.Grant, error) {
	g, now := s.grant, k.Now()
	first := answers[s.plan.Resources[0]]
	g.Subject = mailgrant.Subject{TenantID: s.set.Tenant, Issuer: s.set.Issuer, Subject: s.reg.ClientID, Name: s.reg.Name}
	g.ScopesAsked, g.ScopesGranted, g.Signature = s.plan.Asked, s.plan.Asked, s.reg.Signature()
	g.State, g.ConsentedAt, g.LastRefresh, g.TokenExpires, g.Sealed = mailgrant.GrantActive, &now, &now, &first.Expires, nil
	if err := k.prove(ctx, s, g, identity{}, first); err != nil {
		return s.grant, fmt.Errorf("activate the grant of %s: %w", g.Mailbox, err)
	}
	if err := k.complete(ctx, g); err != nil {
		return s.grant, err
	}
	k.forget(g.ID)
	for r, a := range answers {
		k.cache.put(key{g.Org, g.ID, r}, newCached(a.Token(r), g.Registration, now))
	}
	return k.Store.Grant(ctx, g.Org, g.ID)
}

// Update replaces the settings of a grant. What waits for it looks again: it may be
// for no more now than was consented to.
func (k *Keeper) Update(ctx context.Context, g mailgrant.Grant) error {
	if err := k.Store.UpdateGrant(ctx, g); err != nil {
		return err
	}
	k.forget(g.ID)
	k.Changed(g.Org, g.ID)
	return nil
}

// Revoke disconnects a grant: destroyed here, then ended at the provider where it
// can be. Where a person takes the consent back at the provider is in
// Settings.RevokeAt.
func (k *Keeper) Revoke(ctx context.Context, org, grant mailgrant.ID) error {
	g, err := k.Store.Grant(ctx, org, grant)
	if err != nil {
		return err
	}
	if err := k.Store.RevokeGrant(ctx, org, grant); err != nil {
		return err
	}
	k.forget(grant)
	k.Changed(org, grant)
	if err := k.end(ctx, g); err != nil {
		k.Log.Warn("a refresh token is not ended at the provider", "grant", g.ID, "err", err)
	}
	return nil
}

// end ends the refresh token of a grant at the provider.
func (k *Keeper) end(ctx context.Context, g mailgrant.Grant) error {
	if len(g.Sealed) == 0 {
		return nil
	}
	s, err := k.situation(ctx, g)
	if err != nil || s.set.RevocationEndpoint == "" {
		return err
	}
	plain, err := k.Vault.Open(placeOfRefresh(g), g.Sealed)
	if err != nil {
		return err
	}
	clients, err := k.clients(ctx, s)
	if err != nil {
		return err
	}
	return clients[0].Revoke(ctx, mailgrant.NewSecret(string(plain)), "refresh_token")
}
