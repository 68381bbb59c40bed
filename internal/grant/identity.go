package grant

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/oauth"
)

// An identity is who consented, as far as the provider says it.
type identity struct {
	subject mailgrant.Subject
	names   []string // addresses and user names
	known   bool
}

// identify reads who consented: from the ID token, or where there is none from
// the userinfo endpoint. A provider without either leaves it open; then the
// mailbox itself must prove it.
func (k *Keeper) identify(ctx context.Context, s situation, a oauth.Answer, nonce string, checkNonce bool) (identity, error) {
	c := k.client(s)
	if s.set.OIDC() {
		if a.IDToken.IsZero() {
			return identity{}, mailgrant.Errorf(mailgrant.Misset, nil, "the provider does not say who consented for %s", s.grant.Mailbox).
				Fix("let the registration ask for openid")
		}
		if !checkNonce {
			return k.identifyUnasked(ctx, c, a)
		}
		t, err := c.Verify(ctx, &k.keys, a.IDToken, a.Access, nonce)
		if err != nil {
			return identity{}, err
		}
		return identityOf(s.set, t), nil
	}
	if s.set.UserinfoEndpoint != "" && slices.Contains(s.set.BaseScopes, "openid") {
		return k.userinfo(ctx, s, c, a)
	}
	return identity{}, nil
}

// identifyUnasked checks an ID token that no browser carried.
func (k *Keeper) identifyUnasked(ctx context.Context, c *oauth.Client, a oauth.Answer) (identity, error) {
	t, err := c.VerifyWithoutNonce(ctx, &k.keys, a.IDToken, a.Access)
	if err != nil {
		return identity{}, err
	}
	return identityOf(c.Settings, t), nil
}

func identityOf(set provider.Settings, t oauth.Claims) identity {
	if set.Microsoft() && !provider.IsGUID(set.Tenant) && !t.EmailOwned() && t.TenantID != oauth.PersonalTenant {
		t.Email = "" // any tenant may sign in, and its administrator may write any address
	}
	names := t.Addresses(set.UserClaims)
	who := identity{names: names, known: true, subject: mailgrant.Subject{Issuer: t.Issuer, Subject: t.Subject, Name: bounded(t.Name), UPN: bounded(t.UPN)}}
	if set.SubjectKey == "tid+oid" {
		who.subject.TenantID, who.subject.ObjectID = t.TenantID, t.ObjectID
		if who.subject.UPN == "" {
			who.subject.UPN = bounded(t.Username)
		}
	}
	if len(names) > 0 {
		who.subject.Address = names[0]
	}
	return who
}

func bounded(s string) string {
	if len(s) > 320 {
		return s[:320]
	}
	return strings.ToValidUTF8(s, "?")
}

func (k *Keeper) userinfo(ctx context.Context, s situation, c *oauth.Client, a oauth.Answer) (identity, error) {
	m, err := c.Userinfo(ctx, a.Access)
	if err != nil {
		return identity{}, err
	}
	get := func(name string) (v string) { json.Unmarshal(m[name], &v); return bounded(v) }
	t := oauth.Claims{Issuer: s.set.Issuer, Subject: get("sub"), Email: get("email"), Username: get("preferred_username"), Name: get("name")}
	json.Unmarshal(m["email_verified"], &t.Verified)
	if t.Issuer == "" {
		t.Issuer = s.set.TokenEndpoint
	}
	return identityOf(s.set, t), nil
}

// expected compares who consented with who should have. R-OA7.
//
//	own      one of the person's names is the mailbox
//	shared   any person of the registration's tenant; opening the mailbox proves it
//	app      nobody consents
//
// Whoever consented first is pinned by the provider's own id: an address can be
// given to somebody else. Disconnecting the grant ends the pin.
func (k *Keeper) expected(ctx context.Context, s situation, a oauth.Answer, who identity) error {
	g := s.grant
	if !who.known || g.MailboxKind == mailgrant.MailboxShared {
		if k.Prove == nil {
			return mailgrant.Errorf(mailgrant.Misset, nil, "%s does not say whether the one who consented may use %s, and the mailbox cannot be opened to prove it", s.set.Name, g.Mailbox).
				Fix("ask the operator: this needs the check of the mailbox")
		}
	}
	if !who.known {
		return nil
	}
	pinned := g.State == mailgrant.GrantActive || g.State == mailgrant.GrantLapsed
	if pinned && (g.Subject.ObjectID != "" || g.Subject.Subject != "") && !g.Subject.Same(who.subject) {
		return wrongAccount(g, who, fmt.Sprintf("The grant of %s belongs to %s.", g.Mailbox, called(g.Subject)),
			"Sign in with that account; if the mailbox has a new owner, disconnect the grant first and then authorise it anew.")
	}
	if g.MailboxKind == mailgrant.MailboxShared {
		return nil
	}
	names := who.names
	if !has(names, g.Mailbox) {
		names = append(names, k.aliases(ctx, s, a)...)
	}
	if has(names, g.Mailbox) {
		return nil
	}
	return wrongAccount(g, who, fmt.Sprintf("The consent is for %s.", g.Mailbox),
		"Begin again and choose "+g.Mailbox+". If that is a shared mailbox, say so in the grant: then whoever has rights on it signs in.")
}

func has(names []string, mailbox string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, mailbox) })
}

func called(s mailgrant.Subject) string {
	for _, n := range []string{s.UPN, s.Address, s.Name, s.Subject} {
		if n != "" {
			return n
		}
	}
	return "another account"
}

func wrongAccount(g mailgrant.Grant, who identity, expected, remedy string) error {
	sentence := fmt.Sprintf("%s signed in. %s", called(who.subject), expected)
	f := mailgrant.Finding{Cause: "wrong-user-signed-in", Title: "Another account signed in", Sentence: sentence, Remedy: remedy,
		Who: mailgrant.WhoMailboxOwner, Retry: mailgrant.RetryReauthorize, Confidence: 1, Link: "errors/wrong-user-signed-in"}
	return mailgrant.Errorf(mailgrant.Forbidden, nil, "%s signed in where %s was expected; nothing was kept", called(who.subject), g.Mailbox).With(f)
}

// aliases asks Graph for the other addresses of who signed in, where the token at
// hand lets us. It is a courtesy: no answer is no alias.
func (k *Keeper) aliases(ctx context.Context, s situation, a oauth.Answer) []string {
	if !s.set.Microsoft() || s.set.GraphURL == "" || s.plan.Resources[0] != "graph" ||
		!slices.ContainsFunc(a.Scopes, func(scope string) bool { return lastPart(scope) == "User.Read" }) {
		return nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(s.set.GraphURL, "/")+"/v1.0/me?$select=mail,userPrincipalName,proxyAddresses,otherMails", nil)
	if err != nil {
		return nil
	}
	req.Header.Set("Authorization", "Bearer "+a.Access.Reveal())
	res, err := k.HTTP(s.reg).Do(req)
	if err != nil {
		return nil
	}
	defer res.Body.Close()
	var me struct {
		Mail  string   `json:"mail"`
		UPN   string   `json:"userPrincipalName"`
		Proxy []string `json:"proxyAddresses"`
	}
	if res.StatusCode != http.StatusOK || json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(&me) != nil {
		return nil
	}
	names := []string{me.Mail, me.UPN}
	for _, p := range me.Proxy {
		if kind, address, ok := strings.Cut(p, ":"); ok && strings.EqualFold(kind, "smtp") {
			names = append(names, address)
		}
	}
	return names
}

// prove opens the mailbox with the new token, where the person's name does not
// say enough.
func (k *Keeper) prove(ctx context.Context, s situation, g mailgrant.Grant, who identity, a oauth.Answer) error {
	if k.Prove == nil || who.known && g.MailboxKind == mailgrant.MailboxOwn {
		return nil
	}
	first := s.plan.Resources[0]
	w := provider.Way{Mailbox: mailgrant.Mailbox{Org: g.Org, Address: g.Mailbox, Kind: g.MailboxKind, Grant: g.ID}, Grant: g, Settings: s.set, CAFile: s.reg.CAFile,
		HTTP: k.HTTP(s.reg), Dial: k.Dial, Token: k.unkept(s, a, first)}
	if err := k.Prove(ctx, w); err != nil {
		return fmt.Errorf("open %s with the new token: %w", g.Mailbox, err)
	}
	return nil
}

// unkept gives tokens of a consent that is not kept yet.
func (k *Keeper) unkept(s situation, a oauth.Answer, first string) func(context.Context, string, bool) (mailgrant.Token, error) {
	return func(ctx context.Context, resource string, _ bool) (mailgrant.Token, error) {
		switch {
		case resource == first || resource == "":
			return a.Token(first), nil
		case s.grant.Flow == mailgrant.FlowApp:
			b, err := k.use(ctx, s, func(c *oauth.Client) (oauth.Answer, error) {
				return c.AppToken(ctx, s.plan.Tokens[resource], s.grant.Mailbox)
			})
			return b.Token(resource), err
		}
		return mailgrant.Token{}, mailgrant.Errorf(mailgrant.Unavailable, nil, "only the first resource can be proved now").Fix("check the mailbox once it is connected")
	}
}
