package api

import (
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
	"github.com/mailgrant/mailgrant/internal/webhook"
)

func (c *call) listWebhooks() error {
	return page(c, c.Store.WebhooksAfter, func(w mailgrant.Webhook) mailgrant.ID { return w.ID })
}

// webhook finds one by id or name.
func (c *call) webhook(name string) (mailgrant.Webhook, error) {
	if mailgrant.ID(name).Is(mailgrant.PrefixWebhook) {
		return c.Store.Webhook(c.r.Context(), c.by.Org, mailgrant.ID(name))
	}
	return c.Store.WebhookByName(c.r.Context(), c.by.Org, name)
}

// replyWebhook says what waits for it, too.
func (c *call) replyWebhook(w mailgrant.Webhook) error {
	var err error
	if w.Waiting, w.DeadLetters, err = c.Store.WaitingCounts(c.r.Context(), w.Org, w.ID); err != nil {
		return err
	}
	return c.reply(w)
}

func (c *call) getWebhook() error {
	w, err := c.webhook(c.args[0])
	if err != nil {
		return err
	}
	return c.replyWebhook(w)
}

func setWebhook(w *mailgrant.Webhook, s client.WebhookSettings) {
	set(&w.Name, s.Name)
	set(&w.URL, s.URL)
	set(&w.Kinds, s.Kinds)
	set(&w.Mailboxes, s.Mailboxes)
	set(&w.App, s.App)
	set(&w.Full, s.Full)
	set(&w.Connections, s.Connections)
	if s.Disabled == nil {
		return
	}
	switch {
	case *s.Disabled:
		w.State = mailgrant.WebhookDisabled
	case w.State == mailgrant.WebhookDisabled:
		w.State = mailgrant.WebhookActive
	}
}

// createWebhook makes a webhook. Its secret is in this answer and in no other. SE-10.
func (c *call) createWebhook() error {
	var s client.WebhookSettings
	if err := c.decode(&s); err != nil {
		return err
	}
	w := mailgrant.Webhook{Org: c.by.Org}
	setWebhook(&w, s)
	off := w.State == mailgrant.WebhookDisabled
	w, secret, err := c.Webhooks.Create(c.r.Context(), w)
	if err != nil {
		return err
	}
	if off { // a new one is active: it is switched off as a change
		w.State = mailgrant.WebhookDisabled
		if w, err = c.Webhooks.Update(c.r.Context(), w); err != nil {
			return err
		}
	}
	return c.made(client.SignedWebhook{Webhook: w, Secret: secret.Reveal()}, "/v1/webhooks/"+string(w.ID))
}

func (c *call) updateWebhook() error {
	w, err := c.webhook(c.args[0])
	if err != nil {
		return err
	}
	var s client.WebhookSettings
	if err := c.decode(&s); err != nil {
		return err
	}
	setWebhook(&w, s)
	if w, err = c.Webhooks.Update(c.r.Context(), w); err != nil {
		return err
	}
	return c.replyWebhook(w)
}

func (c *call) deleteWebhook() error {
	if err := c.nothing(); err != nil {
		return err
	}
	w, err := c.webhook(c.args[0])
	if err != nil {
		return err
	}
	if err := c.Webhooks.Delete(c.r.Context(), w.Org, w.ID); err != nil {
		return err
	}
	return c.done()
}

// rotateWebhook gives a new secret, in this answer and in no other.
func (c *call) rotateWebhook() error {
	w, err := c.webhook(c.args[0])
	if err != nil {
		return err
	}
	var r client.Rotation
	if err := c.decode(&r); err != nil {
		return err
	}
	both := webhook.BothFor
	if r.BothFor != nil {
		both = time.Duration(*r.BothFor)
	}
	w, secret, err := c.Webhooks.Rotate(c.r.Context(), w.Org, w.ID, both)
	if err != nil {
		return err
	}
	return c.reply(client.SignedWebhook{Webhook: w, Secret: secret.Reveal()})
}

func (c *call) testWebhook() error {
	if err := c.nothing(); err != nil {
		return err
	}
	w, err := c.webhook(c.args[0])
	if err != nil {
		return err
	}
	d, err := c.Webhooks.Test(c.r.Context(), w.Org, w.ID)
	if err != nil {
		return err
	}
	return c.reply(d)
}

func (c *call) replayWebhook() error {
	w, err := c.webhook(c.args[0])
	if err != nil {
		return err
	}
	var r client.Replay
	if err := c.decode(&r); err != nil {
		return err
	}
	n, err := c.Webhooks.Replay(c.r.Context(), w.Org, w.ID, webhook.Span(r))
	if err != nil {
		return err
	}
	return c.reply(client.Replayed(n))
}

func (c *call) listDeliveries() error {
	limit, err := c.q.limit(pageMax)
	if err != nil {
		return err
	}
	after, err := c.cursor()
	if err != nil {
		return err
	}
	w, err := c.webhook(c.args[0])
	if err != nil {
		return err
	}
	read := c.Store.Deliveries
	if c.q.str("dead") == "true" {
		read = c.Store.DeadLetters
	}
	l, next, err := read(c.r.Context(), w.Org, w.ID, after, limit)
	if err != nil {
		return err
	}
	return c.reply(client.Page[mailgrant.Delivery]{Items: l, Next: c.next(next)})
}
