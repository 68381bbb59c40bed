package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
)

// A wantWebhook is known by its name. Its mailboxes are addresses, its app a name.
type wantWebhook struct {
	Name        string    `yaml:"name"`
	URL         *string   `yaml:"url,omitempty"`
	Kinds       *[]string `yaml:"kinds,omitempty"`
	Mailboxes   *[]string `yaml:"mailboxes,omitempty"`
	App         *string   `yaml:"app,omitempty"` // none for all
	Full        *bool     `yaml:"full,omitempty"`
	Connections *int      `yaml:"connections,omitempty"`
	Disabled    *bool     `yaml:"disabled,omitempty"`
	SecretTo    string    `yaml:"secret_to,omitempty"` // file that its secret is written to when it is made

	line int
}

func (p *plan) webhook(w *wantWebhook, all wanted) error {
	key := strings.ToLower(w.Name)
	have, exists := p.webhooks[key]
	c := p.begin("webhook", w.Name, w.line, exists)
	if !exists && w.URL == nil {
		return inFile(w.line, "the webhook %s has no url", w.Name).Fix("add the address that is told")
	}
	if !exists && w.SecretTo == "" {
		return inFile(w.line, "the webhook %s is new, and it is not said where its secret goes", w.Name).
			Fix("add secret_to: a file that is written with it, or make the webhook first: mailgrant webhook create")
	}
	s := client.WebhookSettings{
		URL: differs(c, "url", have.URL, w.URL), Kinds: differs(c, "kinds", have.Kinds, sortedKinds(w.Kinds)), Full: differs(c, "full", have.Full, w.Full),
		Connections: differs(c, "connections", have.Connections, w.Connections), Disabled: differs(c, "disabled", have.State == mailgrant.WebhookDisabled, w.Disabled),
	}
	app := differs(c, "app", p.appWord(have.App), w.App)
	if err := p.hookNames(w, all); err != nil {
		return err
	}
	var boxes *[]string
	if w.Mailboxes != nil {
		now := p.addresses(have.Mailboxes)
		boxes = differs(c, "mailboxes", now, sameFold(now, w.Mailboxes))
	}
	c.then(func(ctx context.Context) error {
		if boxes != nil {
			ids := []mailgrant.ID{}
			for _, a := range *boxes {
				ids = append(ids, p.mailboxes[strings.ToLower(a)].ID)
			}
			s.Mailboxes = &ids
		}
		if app != nil {
			id := p.apps[strings.ToLower(*app)].ID // "" for none
			s.App = &id
		}
		if exists {
			if s == (client.WebhookSettings{}) {
				return nil
			}
			_, err := p.cl.UpdateWebhook(ctx, string(have.ID), s)
			return err
		}
		s.Name = &w.Name
		return p.makeWebhook(ctx, w, s)
	})
	return nil
}

// makeWebhook makes one, and writes its secret, which nobody sees again, where the
// file says: before it is made, it is seen that that can be written.
func (p *plan) makeWebhook(ctx context.Context, w *wantWebhook, s client.WebhookSettings) error {
	name := w.SecretTo
	if !filepath.IsAbs(name) {
		name = filepath.Join(p.dir, name)
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return mailgrant.Errorf(mailgrant.Misset, err, "its secret cannot be written: %v", err).Fix("name a file in secret_to that is not there yet")
	}
	made, err := p.cl.CreateWebhook(ctx, s)
	if err == nil {
		_, err = f.WriteString(made.Secret + "\n")
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		os.Remove(name)
	}
	return err
}

// sortedKinds are kinds as mailgrant keeps them.
func sortedKinds(l *[]string) *[]string {
	if l == nil {
		return nil
	}
	out := slices.Clone(*l)
	slices.Sort(out)
	out = slices.Compact(out)
	return &out
}

// appWord is the app of a webhook as the file writes it.
func (p *plan) appWord(id mailgrant.ID) string {
	if id == "" {
		return "none"
	}
	for _, a := range p.apps {
		if a.ID == id {
			return a.Name
		}
	}
	return string(id)
}

// hookNames sees that the mailboxes and the app of a webhook are here or in mailgrant.
func (p *plan) hookNames(w *wantWebhook, all wanted) error {
	if w.Mailboxes != nil {
		for _, a := range *w.Mailboxes {
			_, ok := p.mailboxes[strings.ToLower(a)]
			if !ok && !slices.ContainsFunc(all.Mailboxes, func(m wantMailbox) bool { return strings.EqualFold(m.Address, a) }) {
				return inFile(w.line, "the webhook %s names the mailbox %s, which is neither here nor in mailgrant", w.Name, a).
					Fix("add it under mailboxes, or name one of: mailgrant mailbox list")
			}
		}
	}
	if w.App == nil || *w.App == "none" {
		return nil
	}
	_, ok := p.apps[strings.ToLower(*w.App)]
	if !ok && !slices.ContainsFunc(all.Apps, func(a wantApp) bool { return strings.EqualFold(a.Name, *w.App) }) {
		return inFile(w.line, "the webhook %s names the app %s, which is neither here nor in mailgrant", w.Name, *w.App).
			Fix("add it under apps, or name one of: mailgrant app list")
	}
	return nil
}

func (p *plan) exportWebhook(h mailgrant.Webhook) wantWebhook {
	w := wantWebhook{Name: h.Name, URL: saying(h.URL), Kinds: some(h.Kinds), Mailboxes: some(p.addresses(h.Mailboxes)), Full: saying(h.Full),
		Connections: saying(h.Connections), Disabled: saying(h.State == mailgrant.WebhookDisabled), SecretTo: strings.ToLower(envName(h.Name)) + ".txt"}
	if h.App != "" {
		app := p.appWord(h.App)
		w.App = &app
	}
	return w
}
