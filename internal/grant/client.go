package grant

import (
	"context"
	"slices"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider/oauth"
)

// A rest is the time a registration is left in peace after the provider refused
// it. All its grants share it: ten thousand mailboxes need not ask the same.
type rest struct {
	until time.Time
	err   error
}

// use runs one token call with the credential that ends last; when the provider
// does not take it, with the next one. R157: two secrets may be held at once.
func (k *Keeper) use(ctx context.Context, s situation, call func(*oauth.Client) (oauth.Answer, error)) (oauth.Answer, error) {
	if r, ok := k.rests.Load(s.reg.ID); ok && k.Now().Before(r.(rest).until) {
		return oauth.Answer{}, r.(rest).err
	}
	clients, err := k.clients(ctx, s)
	if err != nil {
		return oauth.Answer{}, err
	}
	for i, c := range clients {
		a, err := call(c)
		if err == nil {
			k.rests.Delete(s.reg.ID)
			return a, nil
		}
		if i+1 < len(clients) && oauth.CodeOf(err) == "invalid_client" {
			k.Log.Warn("a credential was refused, trying the next", "registration", s.reg.ID, "credential", c.Credential.ID, "err", err)
			continue
		}
		k.alarm(ctx, s, err)
		return a, err
	}
	return oauth.Answer{}, noCredential(s.reg)
}

// alarm tells that a registration is broken, once in a while, and lets it rest.
func (k *Keeper) alarm(ctx context.Context, s situation, err error) {
	code := oauth.CodeOf(err)
	if oauth.SortOf(err) != oauth.Broken || code != "invalid_client" && code != "unauthorized_client" {
		return
	}
	k.rests.Store(s.reg.ID, rest{k.Now().Add(floor), err})
	k.Log.Error("the provider refuses the registration", "registration", s.reg.ID, "err", err)
	if f := mailgrant.AsError(err).Finding; f != nil {
		k.event(ctx, mailgrant.Event{Org: s.reg.Org, Kind: "registration.refused", Subject: s.reg.ID}, f)
	}
}

// client is one that needs no credential: for addresses and keys.
func (k *Keeper) client(s situation) *oauth.Client {
	return &oauth.Client{HTTP: k.HTTP(s.reg), Settings: s.set, ClientID: s.reg.ClientID, Mailbox: s.grant.Mailbox, Now: k.Now}
}

// clients are one for each credential that is valid now, best first.
func (k *Keeper) clients(ctx context.Context, s situation) ([]*oauth.Client, error) {
	all, err := k.Store.Credentials(ctx, s.reg.Org, s.reg.ID)
	if err != nil {
		return nil, err
	}
	now := k.Now()
	valid := slices.DeleteFunc(slices.Clone(all), func(c mailgrant.Credential) bool { return !c.ValidAt(now) })
	if len(valid) == 0 && len(all) > 0 {
		return nil, expired(s.reg, all)
	}
	slices.SortStableFunc(valid, endsLater)
	var list []*oauth.Client
	for _, c := range valid {
		client := k.client(s)
		if client.Credential, err = k.open(c); err != nil {
			return nil, err
		}
		list = append(list, client)
	}
	if len(list) == 0 && s.grant.Flow == mailgrant.FlowApp {
		return nil, noCredential(s.reg)
	}
	if len(list) == 0 { // a public client
		list = append(list, k.client(s))
	}
	return list, nil
}

// endsLater puts what never ends first, then the latest end.
func endsLater(a, b mailgrant.Credential) int {
	switch {
	case a.NotAfter == nil && b.NotAfter == nil:
		return 0
	case a.NotAfter == nil:
		return -1
	case b.NotAfter == nil:
		return 1
	}
	return b.NotAfter.Compare(*a.NotAfter)
}

func (k *Keeper) open(c mailgrant.Credential) (oauth.Credential, error) {
	o := oauth.Credential{ID: c.ID, Kind: c.Kind, TokenFile: c.TokenFile}
	if len(c.Sealed) == 0 {
		return o, nil
	}
	b, err := k.Vault.Open(placeOfCredential(c), c.Sealed)
	o.Secret = mailgrant.NewSecret(string(b))
	return o, err
}

func noCredential(r mailgrant.Registration) error {
	return mailgrant.Errorf(mailgrant.Misset, nil, "the registration %s has nothing to prove itself with", r.Name).
		Fix("add its client secret: mailgrant registration credential add %s (a public client, which has none: --kind none)", r.ID)
}

// proves says before a person is troubled whether the code they bring back could be
// exchanged. Who has no credential and is no public client finds out only then.
func (k *Keeper) proves(ctx context.Context, s situation) error {
	clients, err := k.clients(ctx, s)
	if err == nil && clients[0].Credential.Kind == "" && s.set.AuthMethod != "none" {
		err = noCredential(s.reg)
	}
	return err
}

// expired is found out here before the provider says it.
func expired(r mailgrant.Registration, all []mailgrant.Credential) error {
	last := slices.MinFunc(all, endsLater)
	when := "is not valid yet"
	if last.NotAfter != nil {
		when = "ended on " + last.NotAfter.UTC().Format("2 January 2006")
	}
	return mailgrant.Errorf(mailgrant.Misset, nil, "the credential of the registration %s %s", r.Name, when).With(mailgrant.Finding{
		Cause: "client-secret-expired", Title: "Client secret expired", Sentence: "The credential of the registration " + r.Name + " " + when + ".",
		Remedy: "Make a new secret or certificate at the provider and add it here: mailgrant registration credential add " + string(r.ID),
		Who:    mailgrant.WhoOperator, Retry: mailgrant.RetryFix, Confidence: 1, Link: "errors/client-secret-expired"})
}
