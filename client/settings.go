package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/mailgrant/mailgrant"
)

// Organizations are those the caller may see.
func (c *Client) Organizations(ctx context.Context) ([]mailgrant.Organization, error) {
	return all[mailgrant.Organization](ctx, c, "/v1/organizations")
}

// CreateOrganization makes one; the operator may.
func (c *Client) CreateOrganization(ctx context.Context, s OrganizationSettings) (mailgrant.Organization, error) {
	return put[mailgrant.Organization](ctx, c, http.MethodPost, "/v1/organizations", s)
}

// UpdateOrganization changes one.
func (c *Client) UpdateOrganization(ctx context.Context, org mailgrant.ID, s OrganizationSettings) (mailgrant.Organization, error) {
	return put[mailgrant.Organization](ctx, c, http.MethodPatch, "/v1/organizations/"+id(org), s)
}

// DeleteOrganization removes an empty one; the operator may.
func (c *Client) DeleteOrganization(ctx context.Context, org mailgrant.ID) error {
	return c.call(ctx, http.MethodDelete, "/v1/organizations/"+id(org), nil, nil)
}

// Templates are the providers that are known.
func (c *Client) Templates(ctx context.Context) ([]Template, error) {
	return all[Template](ctx, c, "/v1/templates")
}

// Discover says who keeps the mail of an address.
func (c *Client) Discover(ctx context.Context, address string) (Discovery, error) {
	return get[Discovery](ctx, c, "/v1/discover?address="+url.QueryEscape(address))
}

// Registrations are those of the organization.
func (c *Client) Registrations(ctx context.Context) ([]Registration, error) {
	return all[Registration](ctx, c, "/v1/registrations")
}

// Registration is one of them, by id.
func (c *Client) Registration(ctx context.Context, reg mailgrant.ID) (Registration, error) {
	return get[Registration](ctx, c, "/v1/registrations/"+id(reg))
}

// CreateRegistration makes one. It may be half filled in: Missing says what lacks.
func (c *Client) CreateRegistration(ctx context.Context, s RegistrationSettings) (Registration, error) {
	return put[Registration](ctx, c, http.MethodPost, "/v1/registrations", s)
}

// UpdateRegistration changes one. Its grants may have to be authorised again.
func (c *Client) UpdateRegistration(ctx context.Context, reg mailgrant.ID, s RegistrationSettings) (Registration, error) {
	return put[Registration](ctx, c, http.MethodPatch, "/v1/registrations/"+id(reg), s)
}

// DeleteRegistration removes one that no grant uses.
func (c *Client) DeleteRegistration(ctx context.Context, reg mailgrant.ID) error {
	return c.call(ctx, http.MethodDelete, "/v1/registrations/"+id(reg), nil, nil)
}

// AddCredential gives a registration one more way to prove itself.
func (c *Client) AddCredential(ctx context.Context, reg mailgrant.ID, n NewCredential) (mailgrant.Credential, error) {
	return put[mailgrant.Credential](ctx, c, http.MethodPost, "/v1/registrations/"+id(reg)+"/credentials", n)
}

// DeleteCredential removes one.
func (c *Client) DeleteCredential(ctx context.Context, reg, credential mailgrant.ID) error {
	return c.call(ctx, http.MethodDelete, "/v1/registrations/"+id(reg)+"/credentials/"+id(credential), nil, nil)
}

// Mailboxes are those of the organization.
func (c *Client) Mailboxes(ctx context.Context) ([]mailgrant.Mailbox, error) {
	return all[mailgrant.Mailbox](ctx, c, "/v1/mailboxes")
}

// Mailbox is one of them, by id or address.
func (c *Client) Mailbox(ctx context.Context, idOrAddress string) (mailgrant.Mailbox, error) {
	return get[mailgrant.Mailbox](ctx, c, "/v1/mailboxes/"+url.PathEscape(idOrAddress))
}

// CreateMailbox makes one.
func (c *Client) CreateMailbox(ctx context.Context, s MailboxSettings) (mailgrant.Mailbox, error) {
	return put[mailgrant.Mailbox](ctx, c, http.MethodPost, "/v1/mailboxes", s)
}

// UpdateMailbox changes one, by id or address.
func (c *Client) UpdateMailbox(ctx context.Context, idOrAddress string, s MailboxSettings) (mailgrant.Mailbox, error) {
	return put[mailgrant.Mailbox](ctx, c, http.MethodPatch, "/v1/mailboxes/"+url.PathEscape(idOrAddress), s)
}

// DeleteMailbox removes one that has nothing left to send.
func (c *Client) DeleteMailbox(ctx context.Context, idOrAddress string) error {
	return c.call(ctx, http.MethodDelete, "/v1/mailboxes/"+url.PathEscape(idOrAddress), nil, nil)
}

// ResumeMailbox ends a hold: the next message shows whether it works.
func (c *Client) ResumeMailbox(ctx context.Context, idOrAddress string) error {
	return c.call(ctx, http.MethodPost, "/v1/mailboxes/"+url.PathEscape(idOrAddress)+"/resume", nil, nil)
}

// Apps are those of the organization.
func (c *Client) Apps(ctx context.Context) ([]mailgrant.App, error) {
	return all[mailgrant.App](ctx, c, "/v1/apps")
}

// App is one of them, by id or name.
func (c *Client) App(ctx context.Context, idOrName string) (mailgrant.App, error) {
	return get[mailgrant.App](ctx, c, "/v1/apps/"+url.PathEscape(idOrName))
}

// CreateApp makes one.
func (c *Client) CreateApp(ctx context.Context, s AppSettings) (mailgrant.App, error) {
	return put[mailgrant.App](ctx, c, http.MethodPost, "/v1/apps", s)
}

// UpdateApp changes one, by id or name.
func (c *Client) UpdateApp(ctx context.Context, idOrName string, s AppSettings) (mailgrant.App, error) {
	return put[mailgrant.App](ctx, c, http.MethodPatch, "/v1/apps/"+url.PathEscape(idOrName), s)
}

// DeleteApp removes one and its keys.
func (c *Client) DeleteApp(ctx context.Context, idOrName string) error {
	return c.call(ctx, http.MethodDelete, "/v1/apps/"+url.PathEscape(idOrName), nil, nil)
}

// Keys are those of an app, revoked ones too.
func (c *Client) Keys(ctx context.Context, app string) ([]mailgrant.Key, error) {
	return all[mailgrant.Key](ctx, c, "/v1/apps/"+url.PathEscape(app)+"/keys")
}

// IssueKey makes a key. Its secret is shown this once.
func (c *Client) IssueKey(ctx context.Context, app string, n NewKey) (IssuedKey, error) {
	return put[IssuedKey](ctx, c, http.MethodPost, "/v1/apps/"+url.PathEscape(app)+"/keys", n)
}

// RevokeKey ends a key.
func (c *Client) RevokeKey(ctx context.Context, app string, key mailgrant.ID) error {
	return c.call(ctx, http.MethodDelete, "/v1/apps/"+url.PathEscape(app)+"/keys/"+id(key), nil, nil)
}

// Route says which mailbox would carry a message, and why.
func (c *Client) Route(ctx context.Context, q RouteQuestion) (mailgrant.Route, error) {
	v := url.Values{"from": {q.From}}
	for k, s := range map[string]string{"class": string(q.Class), "on_behalf_of": q.OnBehalfOf, "mailbox": q.Mailbox} {
		if s != "" {
			v.Set(k, s)
		}
	}
	return get[mailgrant.Route](ctx, c, "/v1/route?"+v.Encode())
}
