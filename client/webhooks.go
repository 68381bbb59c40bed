package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/mailgrant/mailgrant"
)

// WebhookSettings are what of a webhook can be changed. What is left out stays.
type WebhookSettings struct {
	Name        *string         `json:"name,omitempty"`
	URL         *string         `json:"url,omitempty"`
	Kinds       *[]string       `json:"kinds,omitempty"`     // patterns such as arrival.*; empty = all
	Mailboxes   *[]mailgrant.ID `json:"mailboxes,omitempty"` // only events of these; empty = all
	App         *mailgrant.ID   `json:"app,omitempty"`       // only events of this app and its mailboxes; "" = all
	Full        *bool           `json:"full,omitempty"`      // what an event carries rides along
	Connections *int            `json:"connections,omitempty"`
	Disabled    *bool           `json:"disabled,omitempty"`
}

// A SignedWebhook is a webhook with its new secret, which is shown this once.
type SignedWebhook struct {
	mailgrant.Webhook
	Secret string `json:"secret"`
}

// A Rotation asks for a new secret.
type Rotation struct {
	BothFor *mailgrant.Duration `json:"both_for,omitempty"` // how long the secret before signs too; default 24h
}

// A Replay says which events a webhook is to be told of once more: by number, by
// time, one delivery, or all that were given up.
type Replay struct {
	From        *int64       `json:"from,omitempty"` // seq of the first
	To          *int64       `json:"to,omitempty"`   // seq of the last; default the newest
	Since       *time.Time   `json:"since,omitempty"`
	Until       *time.Time   `json:"until,omitempty"` // default now
	Delivery    mailgrant.ID `json:"delivery,omitempty"`
	DeadLetters bool         `json:"dead_letters,omitempty"`
}

// Replayed says what is told once more: of the events from one number to another
// those that the webhook wants, or so many dead letters.
type Replayed struct {
	From        int64 `json:"from,omitempty"`
	To          int64 `json:"to,omitempty"`
	DeadLetters int64 `json:"dead_letters,omitempty"`
}

// Webhooks are those of the organization.
func (c *Client) Webhooks(ctx context.Context) ([]mailgrant.Webhook, error) {
	return all[mailgrant.Webhook](ctx, c, "/v1/webhooks")
}

// Webhook is one of them, by id or name.
func (c *Client) Webhook(ctx context.Context, idOrName string) (mailgrant.Webhook, error) {
	return get[mailgrant.Webhook](ctx, c, "/v1/webhooks/"+url.PathEscape(idOrName))
}

// CreateWebhook makes one. Its secret is in this answer and in no other.
func (c *Client) CreateWebhook(ctx context.Context, s WebhookSettings) (SignedWebhook, error) {
	return put[SignedWebhook](ctx, c, http.MethodPost, "/v1/webhooks", s)
}

// UpdateWebhook changes one.
func (c *Client) UpdateWebhook(ctx context.Context, idOrName string, s WebhookSettings) (mailgrant.Webhook, error) {
	return put[mailgrant.Webhook](ctx, c, http.MethodPatch, "/v1/webhooks/"+url.PathEscape(idOrName), s)
}

// DeleteWebhook removes one and all that waits for it.
func (c *Client) DeleteWebhook(ctx context.Context, idOrName string) error {
	return c.call(ctx, http.MethodDelete, "/v1/webhooks/"+url.PathEscape(idOrName), nil, nil)
}

// RotateWebhook gives one a new secret.
func (c *Client) RotateWebhook(ctx context.Context, idOrName string, r Rotation) (SignedWebhook, error) {
	return put[SignedWebhook](ctx, c, http.MethodPost, "/v1/webhooks/"+url.PathEscape(idOrName)+"/rotate", r)
}

// TestWebhook posts a test to one, and says what came of it.
func (c *Client) TestWebhook(ctx context.Context, idOrName string) (mailgrant.Delivery, error) {
	return put[mailgrant.Delivery](ctx, c, http.MethodPost, "/v1/webhooks/"+url.PathEscape(idOrName)+"/test", nil)
}

// ReplayWebhook has one told once more.
func (c *Client) ReplayWebhook(ctx context.Context, idOrName string, r Replay) (Replayed, error) {
	return put[Replayed](ctx, c, http.MethodPost, "/v1/webhooks/"+url.PathEscape(idOrName)+"/replay", r)
}

// Deliveries are a page of the last tries to tell a webhook, newest first; with
// dead those that were given up.
func (c *Client) Deliveries(ctx context.Context, idOrName string, dead bool, cursor string, limit int) (Page[mailgrant.Delivery], error) {
	v := url.Values{}
	if dead {
		v.Set("dead", "true")
	}
	if cursor != "" {
		v.Set("cursor", cursor)
	}
	if limit > 0 {
		v.Set("limit", strconv.Itoa(limit))
	}
	return get[Page[mailgrant.Delivery]](ctx, c, "/v1/webhooks/"+url.PathEscape(idOrName)+"/deliveries?"+v.Encode())
}
