package api

import (
	"context"
	"slices"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
	"github.com/mailgrant/mailgrant/internal/access"
)

func (c *call) listApps() error {
	return page(c, c.Store.AppsAfter, func(a mailgrant.App) mailgrant.ID { return a.ID })
}

// app finds one by id or name.
func (c *call) app(name string) (mailgrant.App, error) {
	if mailgrant.ID(name).Is(mailgrant.PrefixApp) {
		return c.Store.App(c.r.Context(), c.by.Org, mailgrant.ID(name))
	}
	all, err := c.Store.AppByName(c.r.Context(), name)
	if err != nil {
		return mailgrant.App{}, err
	}
	for _, a := range all {
		if a.Org == c.by.Org {
			return a, nil
		}
	}
	return mailgrant.App{}, absent("app", mailgrant.ID(name))
}

func (c *call) getApp() error {
	a, err := c.app(c.args[0])
	if err != nil {
		return err
	}
	return c.reply(a)
}

func setApp(a *mailgrant.App, s client.AppSettings) {
	set(&a.Name, s.Name)
	set(&a.Classes, s.Classes)
	set(&a.Mailboxes, s.Mailboxes)
	set(&a.Senders, s.Senders)
	set(&a.Doors, s.Doors)
	set(&a.PerMinute, s.PerMinute)
	set(&a.Disabled, s.Disabled)
}

func (c *call) createApp() error {
	var s client.AppSettings
	if err := c.decode(&s); err != nil {
		return err
	}
	a := mailgrant.App{Org: c.by.Org}
	setApp(&a, s)
	a, err := c.Access.CreateApp(c.r.Context(), a)
	if err != nil {
		return err
	}
	return c.made(a, "/v1/apps/"+string(a.ID))
}

func (c *call) updateApp() error {
	a, err := c.app(c.args[0])
	if err != nil {
		return err
	}
	var s client.AppSettings
	if err := c.decode(&s); err != nil {
		return err
	}
	setApp(&a, s)
	if a, err = c.Access.UpdateApp(c.r.Context(), a); err != nil {
		return err
	}
	return c.reply(a)
}

func (c *call) deleteApp() error {
	if err := c.nothing(); err != nil {
		return err
	}
	a, err := c.app(c.args[0])
	if err != nil {
		return err
	}
	if err := c.Access.DeleteApp(c.r.Context(), a.Org, a.ID); err != nil {
		return err
	}
	return c.done()
}

func (c *call) listKeys() error {
	a, err := c.app(c.args[0])
	if err != nil {
		return err
	}
	return page(c, func(ctx context.Context, org, after mailgrant.ID, limit int) ([]mailgrant.Key, error) {
		return c.Store.KeysAfter(ctx, org, a.ID, after, limit)
	}, func(k mailgrant.Key) mailgrant.ID { return k.ID })
}

// issueKey makes a key. Its secret is in this answer and in no other. SE-10.
func (c *call) issueKey() error {
	a, err := c.app(c.args[0])
	if err != nil {
		return err
	}
	var n client.NewKey
	if err := c.decode(&n); err != nil {
		return err
	}
	k, secret, err := c.Access.IssueKey(c.r.Context(), a.Org, a.ID, access.KeyInput{Name: n.Name, Scopes: n.Scopes, Sources: n.Sources, NotAfter: n.NotAfter})
	if err != nil {
		return err
	}
	return c.reply(client.IssuedKey{Key: k, Secret: secret.Reveal()})
}

func (c *call) revokeKey() error {
	if err := c.nothing(); err != nil {
		return err
	}
	a, err := c.app(c.args[0])
	if err != nil {
		return err
	}
	all, err := c.Store.Keys(c.r.Context(), a.Org, a.ID)
	if err != nil {
		return err
	}
	id := mailgrant.ID(c.args[1])
	if !slices.ContainsFunc(all, func(k mailgrant.Key) bool { return k.ID == id }) {
		return absent("key", id)
	}
	if err := c.Access.RevokeKey(c.r.Context(), a.Org, id); err != nil {
		return err
	}
	return c.done()
}
