package api

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/rfc5322"
	"github.com/mailgrant/mailgrant/internal/store"
)

// shownGrant is a grant as it is shown, with what follows from its registration.
func (c *call) shownGrant(g mailgrant.Grant, r mailgrant.Registration) client.Grant {
	t, _ := provider.Lookup(r.Template)
	at := t.Settings.RevokeAt
	if v := r.Overrides["revoke_at"]; v != "" {
		at = v
	}
	if strings.Contains(at, "{") { // a part that only the resolved settings know
		at = ""
	}
	return client.Grant{Grant: g, Changed: c.Keeper.Outgrown(g, r), RevokeAt: at}
}

func (c *call) showGrant(g mailgrant.Grant) (client.Grant, error) {
	r, err := c.Store.Registration(c.r.Context(), c.by.Org, g.Registration)
	return c.shownGrant(g, r), err
}

func (c *call) replyGrant(g mailgrant.Grant, err error) error {
	if err != nil {
		return err
	}
	out, err := c.showGrant(g)
	if err != nil {
		return err
	}
	return c.reply(out)
}

func (c *call) listGrants() error {
	return page(c, c.grantsAfter, func(g client.Grant) mailgrant.ID { return g.ID })
}

func (c *call) grantsAfter(ctx context.Context, org, after mailgrant.ID, limit int) ([]client.Grant, error) {
	some, err := c.Store.GrantsAfter(ctx, org, after, limit)
	if err != nil {
		return nil, err
	}
	regs := map[mailgrant.ID]mailgrant.Registration{} // few of many grants
	list := make([]client.Grant, len(some))
	for i, g := range some {
		r, ok := regs[g.Registration]
		if !ok {
			if r, err = c.Store.Registration(ctx, org, g.Registration); err != nil {
				return nil, err
			}
			regs[g.Registration] = r
		}
		list[i] = c.shownGrant(g, r)
	}
	return list, nil
}

func (c *call) grant() (mailgrant.Grant, error) {
	return c.Store.Grant(c.r.Context(), c.by.Org, mailgrant.ID(c.args[0]))
}

func (c *call) getGrant() error { return c.replyGrant(c.grant()) }

func (c *call) createGrant() error {
	var s client.GrantSettings
	if err := c.decode(&s); err != nil {
		return err
	}
	now := time.Now().UTC()
	g := mailgrant.Grant{ID: mailgrant.NewID(mailgrant.PrefixGrant), Org: c.by.Org, MailboxKind: mailgrant.MailboxOwn, Flow: mailgrant.FlowCode,
		State: mailgrant.GrantPending, CreatedAt: now, UpdatedAt: now}
	if s.MailboxKind != nil && *s.MailboxKind == mailgrant.MailboxApp {
		g.Flow = mailgrant.FlowApp
	}
	r, err := c.registrationFor(s.Registration)
	if err != nil {
		return err
	}
	g.Registration = r.ID
	setGrant(&g, s)
	if s.Capabilities == nil {
		g.Capabilities = sending(r)
	}
	if err := checkGrant(&g, r); err != nil {
		return err
	}
	if err := c.Store.CreateGrant(c.r.Context(), g); err != nil {
		return err
	}
	c.w.Header().Set("Location", "/v1/grants/"+string(g.ID))
	return c.replyGrant(g, nil)
}

// registrationFor is the one that was named, or the only one.
func (c *call) registrationFor(id *mailgrant.ID) (mailgrant.Registration, error) {
	if id != nil {
		return c.Store.Registration(c.r.Context(), c.by.Org, *id)
	}
	all, err := c.Store.RegistrationsAfter(c.r.Context(), c.by.Org, "", 2)
	switch {
	case err != nil:
		return mailgrant.Registration{}, err
	case len(all) == 0:
		return mailgrant.Registration{}, mailgrant.Errorf(mailgrant.Misset, nil, "there is no registration yet").
			Fix("make one first: mailgrant registration add").At("registration")
	case len(all) > 1:
		return mailgrant.Registration{}, mailgrant.Errorf(mailgrant.Invalid, nil, "there are several registrations, and the grant names none").
			Fix("name one: mailgrant registration list").At("registration")
	}
	return all[0], nil
}

func setGrant(g *mailgrant.Grant, s client.GrantSettings) {
	set(&g.Mailbox, s.Mailbox)
	set(&g.MailboxKind, s.MailboxKind)
	set(&g.Flow, s.Flow)
	set(&g.Capabilities, s.Capabilities)
}

// sending is what a mailbox needs to send at this provider: SMTP where there is
// it, and Graph beside it, because SMTP is switched off in many tenants.
func sending(r mailgrant.Registration) (can []mailgrant.Capability) {
	t, _ := provider.Lookup(r.Template)
	s := t.Settings
	offers := func(c mailgrant.Capability) bool { _, ok := s.Scopes[c]; return ok && s.Unsupported[c] == "" }
	if offers(mailgrant.CanSMTP) || r.Overrides["scopes.smtp"] != "" {
		can = append(can, mailgrant.CanSMTP)
	}
	if offers(mailgrant.CanAPISend) && (len(can) == 0 || s.Microsoft()) {
		can = append(can, mailgrant.CanAPISend)
	}
	if len(can) == 0 {
		can = append(can, mailgrant.CanSMTP)
	}
	return can
}

func checkGrant(g *mailgrant.Grant, r mailgrant.Registration) error {
	a, err := rfc5322.ParseAddress(g.Mailbox)
	if err != nil {
		return mailgrant.Errorf(mailgrant.Invalid, err, "the grant does not name the mailbox it is for").Fix("write its address as name@domain").At("mailbox")
	}
	g.Mailbox = a.String()
	for _, f := range []struct {
		at, v string
		of    []string
	}{
		{"mailbox_kind", string(g.MailboxKind), []string{"own", "shared", "app"}},
		{"flow", string(g.Flow), []string{"code", "app", "device"}},
	} {
		if !slices.Contains(f.of, f.v) {
			return mailgrant.Errorf(mailgrant.Invalid, nil, "there is no such %s", strings.ReplaceAll(f.at, "_", " ")).Fix("use one of %s", strings.Join(f.of, ", ")).At(f.at)
		}
	}
	if g.MailboxKind == mailgrant.MailboxApp && g.Flow != mailgrant.FlowApp {
		return mailgrant.Errorf(mailgrant.Invalid, nil, "a mailbox of the kind app is used by the app itself").Fix("use the flow app, or the kind own or shared").At("flow")
	}
	t, _ := provider.Lookup(r.Template)
	s := t.Settings
	seen := map[mailgrant.Capability]bool{}
	for _, can := range g.Capabilities {
		if _, known := s.Scopes[can]; !known && r.Overrides["scopes."+string(can)] == "" {
			return mailgrant.Errorf(mailgrant.Invalid, nil, "%s has no capability %q", t.Name, clip(string(can))).
				Fix("choose among smtp, api_send, imap, pop, api_read, signin").At("capabilities")
		}
		if seen[can] {
			return mailgrant.Errorf(mailgrant.Invalid, nil, "the capability %s is named twice", can).Fix("name it once").At("capabilities")
		}
		if why := s.Unsupported[can]; why != "" {
			return mailgrant.Errorf(mailgrant.Invalid, nil, "%s cannot be used for %s: %s", t.Name, can, why).Fix("choose another capability").At("capabilities")
		}
		seen[can] = true
	}
	if len(seen) == 0 {
		return mailgrant.Errorf(mailgrant.Invalid, nil, "the grant asks for nothing").Fix("choose among smtp, api_send, imap, pop, api_read, signin").At("capabilities")
	}
	return nil
}

// updateGrant changes a grant. Whom an active one speaks for is settled: another
// mailbox needs another consent.
func (c *call) updateGrant() error {
	g, err := c.grant()
	if err != nil {
		return err
	}
	var s client.GrantSettings
	if err := c.decode(&s); err != nil {
		return err
	}
	if s.Registration != nil && *s.Registration != g.Registration {
		return mailgrant.Errorf(mailgrant.Conflict, nil, "the registration of a grant cannot be changed").Fix("make another grant, and give it to the mailbox").At("registration")
	}
	old := g
	setGrant(&g, s)
	r, err := c.Store.Registration(c.r.Context(), g.Org, g.Registration)
	if err != nil {
		return err
	}
	if err := checkGrant(&g, r); err != nil {
		return err
	}
	if len(g.Sealed) > 0 || g.State == mailgrant.GrantActive {
		if field := settled(old, g); field != "" {
			return mailgrant.Errorf(mailgrant.Conflict, nil, "the grant is the consent of %s, which cannot be moved", old.Mailbox).
				Fix("disconnect it first (mailgrant grant revoke %s), or make another grant", g.ID).At(field)
		}
	}
	if err := c.Keeper.Update(c.r.Context(), g); err != nil {
		return err
	}
	return c.getGrant()
}

func settled(old, g mailgrant.Grant) string {
	switch {
	case !strings.EqualFold(old.Mailbox, g.Mailbox):
		return "mailbox"
	case old.MailboxKind != g.MailboxKind:
		return "mailbox_kind"
	case old.Flow != g.Flow:
		return "flow"
	}
	return ""
}

// deleteGrant removes a grant that no mailbox uses. One that works is ended at
// the provider first: afterwards nobody could.
func (c *call) deleteGrant() error {
	if err := c.nothing(); err != nil {
		return err
	}
	g, err := c.grant()
	if err != nil {
		return err
	}
	if g.State == mailgrant.GrantActive {
		users, err := c.Store.MailboxesByGrant(c.r.Context(), g.Org, g.ID)
		if err != nil {
			return err
		}
		if len(users) == 0 {
			if err := c.Keeper.Revoke(c.r.Context(), g.Org, g.ID); err != nil {
				return err
			}
		}
	}
	if err := c.Store.DeleteGrant(c.r.Context(), g.Org, g.ID); err != nil {
		return err
	}
	return c.done()
}

func (c *call) createLink() error {
	n := client.NewLink{Kind: string(store.FlowConsent)}
	if err := c.decode(&n); err != nil {
		return err
	}
	l, err := c.Keeper.Link(c.r.Context(), c.by.Org, mailgrant.ID(c.args[0]), store.FlowKind(n.Kind), c.who())
	if err != nil {
		return err
	}
	out := shownLink(l.ConsentLink)
	out.URL = l.URL
	return c.reply(out)
}

func shownLink(l store.ConsentLink) client.Link {
	return client.Link{ID: l.ID, Kind: string(l.Kind), Grant: l.Grant, Mailbox: l.Mailbox, CreatedBy: l.CreatedBy, CreatedAt: l.CreatedAt, ExpiresAt: l.ExpiresAt}
}

func (c *call) listLinks() error {
	return page(c, func(ctx context.Context, org, after mailgrant.ID, limit int) ([]client.Link, error) {
		some, err := c.Store.LinksAfter(ctx, org, after, limit)
		list := make([]client.Link, len(some))
		for i, l := range some {
			list[i] = shownLink(l)
		}
		return list, err
	}, func(l client.Link) mailgrant.ID { return l.ID })
}

// deleteLink takes a link back. An owner who has begun by it already does not come
// through either: it is used up when the consent comes back, and then is not there.
func (c *call) deleteLink() error {
	if err := c.nothing(); err != nil {
		return err
	}
	if err := c.Store.DeleteConsentLink(c.r.Context(), c.by.Org, mailgrant.ID(c.args[0])); err != nil {
		return err
	}
	return c.done()
}

func (c *call) activate() error {
	if err := c.nothing(); err != nil {
		return err
	}
	return c.replyGrant(c.Keeper.Activate(c.r.Context(), c.by.Org, mailgrant.ID(c.args[0])))
}

func (c *call) beginDevice() error {
	if err := c.nothing(); err != nil {
		return err
	}
	d, err := c.Keeper.BeginDevice(c.r.Context(), c.by.Org, mailgrant.ID(c.args[0]), c.who())
	if err != nil {
		return err
	}
	return c.reply(client.DeviceCode{Flow: d.Flow, UserCode: d.UserCode, VerificationURI: d.VerificationURI, Complete: d.Complete, ExpiresAt: d.ExpiresAt, Interval: d.Interval})
}

func (c *call) pollDevice() error {
	g, err := c.grant()
	if err != nil {
		return err
	}
	id := mailgrant.ID(c.args[1])
	f, err := c.Store.Flow(c.r.Context(), c.by.Org, id)
	if err != nil {
		return err
	}
	if f.Grant != g.ID {
		return absent("flow", id)
	}
	r, done, err := c.Keeper.PollDevice(c.r.Context(), c.by.Org, id)
	if err != nil {
		return err
	}
	s := client.DeviceState{Done: done}
	if done {
		shown, err := c.showGrant(r.Grant)
		if err != nil {
			return err
		}
		s.Grant = &shown
	}
	return c.reply(s)
}

func (c *call) checkAdminConsent() error {
	if err := c.nothing(); err != nil {
		return err
	}
	a, err := c.Keeper.CheckAdminConsent(c.r.Context(), c.by.Org, mailgrant.ID(c.args[0]))
	if err != nil {
		return err
	}
	return c.reply(adminConsent(a))
}

func (c *call) renewGrant() error {
	if err := c.nothing(); err != nil {
		return err
	}
	return c.replyGrant(c.Keeper.Renew(c.r.Context(), c.by.Org, mailgrant.ID(c.args[0])))
}

func (c *call) revokeGrant() error {
	if err := c.nothing(); err != nil {
		return err
	}
	if err := c.Keeper.Revoke(c.r.Context(), c.by.Org, mailgrant.ID(c.args[0])); err != nil {
		return err
	}
	return c.getGrant()
}
