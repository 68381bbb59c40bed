package grant

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/store"
)

// linkLife is how long a person has to open a link. R-OA8.
const linkLife = 72 * time.Hour

// An Invitation is what somebody who opens a link is told before anything begins.
type Invitation struct {
	Kind         store.FlowKind
	Organization string // "" as long as nobody has named it
	Registration string // its name
	Provider     string
	Mailbox      string
	MailboxKind  mailgrant.MailboxKind
	Rights       []string // in plain words
	Scopes       []string // as the provider will name them
	By           string   // who made the link
	ExpiresAt    time.Time
	Authorize    string // address of the provider's page, for the page's policy
}

// A Link lets its holder begin one consent.
type Link struct {
	store.ConsentLink
	URL string
}

// Link makes an address that lets its holder begin one consent: the owner of the
// mailbox, or an administrator for the whole organization. It is shown once.
func (k *Keeper) Link(ctx context.Context, org, grant mailgrant.ID, kind store.FlowKind, by string) (Link, error) {
	g, err := k.Store.Grant(ctx, org, grant)
	if err != nil {
		return Link{}, err
	}
	s, err := k.situation(ctx, g)
	if err != nil {
		return Link{}, err
	}
	switch {
	case kind == store.FlowConsent && g.Flow == mailgrant.FlowApp:
		return Link{}, mailgrant.Errorf(mailgrant.Invalid, nil, "the app itself uses %s: its owner has nothing to consent", g.Mailbox).
			Fix("make a link for the administrator").At("kind")
	case kind == store.FlowAdminConsent && s.set.AdminConsentEndpoint == "":
		return Link{}, mailgrant.Errorf(mailgrant.Invalid, nil, "%s has no consent for a whole organization", s.set.Name).
			Fix("make a link for the owner of the mailbox").At("kind")
	case kind != store.FlowConsent && kind != store.FlowAdminConsent:
		return Link{}, mailgrant.Errorf(mailgrant.Invalid, nil, "there is no link of the kind %.40q", kind).Fix("use consent or admin_consent").At("kind")
	}
	if kind == store.FlowConsent {
		if err := k.proves(ctx, s); err != nil {
			return Link{}, err
		}
	}
	token, now := random(), k.Now()
	l := store.ConsentLink{ID: mailgrant.NewID(mailgrant.PrefixLink), Org: org, Grant: grant, Mailbox: g.Mailbox, Kind: kind, Hash: k.Vault.Hash(hashLink, token),
		CreatedBy: by, CreatedAt: now, ExpiresAt: now.Add(linkLife)}
	if err := k.Store.CreateConsentLink(ctx, l); err != nil {
		return Link{}, err
	}
	return Link{l, k.PublicURL + "/connect/" + token}, nil
}

// noLink is one answer for unknown, used, expired and taken-back links. OA-06.
func noLink() error {
	return mailgrant.Errorf(mailgrant.NotFound, nil, "this link does not work").
		Fix("links work once and for three days: ask whoever sent it for a new one")
}

func (k *Keeper) link(ctx context.Context, token string) (store.ConsentLink, situation, error) {
	if !browserCookie.MatchString(token) { // the same form: 256 bits
		return store.ConsentLink{}, situation{}, noLink()
	}
	l, err := k.Store.ConsentLinkByHash(ctx, k.Vault.Hash(hashLink, token))
	if isCode(err, mailgrant.NotFound) || err == nil && (l.UsedAt != nil || !k.Now().Before(l.ExpiresAt)) {
		return l, situation{}, noLink()
	}
	if err != nil {
		return l, situation{}, err
	}
	g, err := k.Store.Grant(ctx, l.Org, l.Grant)
	if isCode(err, mailgrant.NotFound) {
		return l, situation{}, noLink()
	}
	if err != nil {
		return l, situation{}, err
	}
	s, err := k.situation(ctx, g)
	return l, s, err
}

// Invitation says what a link is for. Nothing begins by looking.
func (k *Keeper) Invitation(ctx context.Context, token string) (Invitation, error) {
	l, s, err := k.link(ctx, token)
	if err != nil {
		return Invitation{}, err
	}
	o, err := k.Store.Organization(ctx, l.Org)
	if err != nil {
		return Invitation{}, err
	}
	if !o.Named() {
		o.Name = ""
	}
	i := Invitation{Kind: l.Kind, Organization: o.Name, Registration: s.reg.Name, Provider: s.set.Name, Mailbox: s.grant.Mailbox, MailboxKind: s.grant.MailboxKind,
		Rights: rights(s), Scopes: s.plan.Asked, By: l.CreatedBy, ExpiresAt: l.ExpiresAt, Authorize: s.set.AuthorizationEndpoint}
	if l.Kind == store.FlowAdminConsent {
		i.Authorize, i.Scopes = s.set.AdminConsentEndpoint, adminScopes(s)
	}
	return i, nil
}

// rights says in words what the capabilities mean.
func rights(s situation) []string {
	words := map[mailgrant.Capability]string{
		mailgrant.CanSMTP: "send mail as this mailbox", mailgrant.CanAPISend: "send mail as this mailbox",
		mailgrant.CanIMAP: "read, move and delete its mail", mailgrant.CanPOP: "read and delete its mail",
		mailgrant.CanAPIRead: "read its mail", mailgrant.CanSignIn: "know who signs in",
	}
	narrow := []string{words[mailgrant.CanPOP], words[mailgrant.CanAPIRead]}
	if slices.ContainsFunc(s.plan.Asked, func(scope string) bool { return strings.Contains(scope, "Mail.ReadWrite") }) {
		words[mailgrant.CanAPIRead] = words[mailgrant.CanIMAP]
	}
	var list []string
	add := func(w string) {
		if !slices.Contains(list, w) {
			list = append(list, w)
		}
	}
	for _, c := range s.grant.Capabilities {
		if w := words[c]; w != "" {
			add(w)
		}
	}
	if slices.Contains(list, words[mailgrant.CanIMAP]) { // which says what the others say, and more
		list = slices.DeleteFunc(list, func(w string) bool { return slices.Contains(narrow, w) })
	}
	if s.grant.Flow != mailgrant.FlowApp && s.set.OfflineScope != "" {
		add("do this while nobody is signed in, until you disconnect it")
	}
	return list
}

// BeginLink starts what a link is for. It is used up when the consent succeeds, so
// that the wrong account can be put right.
func (k *Keeper) BeginLink(ctx context.Context, token string, o BeginOptions) (Consent, error) {
	l, s, err := k.link(ctx, token)
	if err != nil {
		return Consent{}, err
	}
	o.By, o.link = l.CreatedBy, l.Hash
	if l.Kind == store.FlowAdminConsent {
		return k.beginAdmin(ctx, s, o)
	}
	return k.Begin(ctx, l.Org, l.Grant, o)
}
