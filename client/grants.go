package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/mailgrant/mailgrant"
)

// Grants are those of the organization.
func (c *Client) Grants(ctx context.Context) ([]Grant, error) {
	return all[Grant](ctx, c, "/v1/grants")
}

// Grant is one of them.
func (c *Client) Grant(ctx context.Context, grant mailgrant.ID) (Grant, error) {
	return get[Grant](ctx, c, "/v1/grants/"+id(grant))
}

// CreateGrant makes one, pending.
func (c *Client) CreateGrant(ctx context.Context, s GrantSettings) (Grant, error) {
	return put[Grant](ctx, c, http.MethodPost, "/v1/grants", s)
}

// UpdateGrant changes one.
func (c *Client) UpdateGrant(ctx context.Context, grant mailgrant.ID, s GrantSettings) (Grant, error) {
	return put[Grant](ctx, c, http.MethodPatch, "/v1/grants/"+id(grant), s)
}

// DeleteGrant removes one that no mailbox uses.
func (c *Client) DeleteGrant(ctx context.Context, grant mailgrant.ID) error {
	return c.call(ctx, http.MethodDelete, "/v1/grants/"+id(grant), nil, nil)
}

// Link makes an address that lets its holder begin one consent. kind is consent,
// for the owner of the mailbox, or admin_consent.
func (c *Client) Link(ctx context.Context, grant mailgrant.ID, kind string) (Link, error) {
	return put[Link](ctx, c, http.MethodPost, "/v1/grants/"+id(grant)+"/links", NewLink{Kind: kind})
}

// Links are those of the organization that still work, without their addresses.
func (c *Client) Links(ctx context.Context) ([]Link, error) {
	return all[Link](ctx, c, "/v1/links")
}

// DeleteLink takes a link back: it works no more.
func (c *Client) DeleteLink(ctx context.Context, link mailgrant.ID) error {
	return c.call(ctx, http.MethodDelete, "/v1/links/"+id(link), nil, nil)
}

// Activate makes a grant of the app itself active: nobody signs in.
func (c *Client) Activate(ctx context.Context, grant mailgrant.ID) (Grant, error) {
	return put[Grant](ctx, c, http.MethodPost, "/v1/grants/"+id(grant)+"/activate", nil)
}

// BeginDevice starts a device code, where the operator allows it.
func (c *Client) BeginDevice(ctx context.Context, grant mailgrant.ID) (DeviceCode, error) {
	return put[DeviceCode](ctx, c, http.MethodPost, "/v1/grants/"+id(grant)+"/device", nil)
}

// PollDevice asks whether the person is through.
func (c *Client) PollDevice(ctx context.Context, grant, flow mailgrant.ID) (DeviceState, error) {
	return get[DeviceState](ctx, c, "/v1/grants/"+id(grant)+"/device/"+id(flow))
}

// CheckAdminConsent looks again whether an administrator has approved.
func (c *Client) CheckAdminConsent(ctx context.Context, grant mailgrant.ID) (AdminConsent, error) {
	return put[AdminConsent](ctx, c, http.MethodPost, "/v1/grants/"+id(grant)+"/admin-consent", nil)
}

// Renew refreshes a grant now.
func (c *Client) Renew(ctx context.Context, grant mailgrant.ID) (Grant, error) {
	return put[Grant](ctx, c, http.MethodPost, "/v1/grants/"+id(grant)+"/renew", nil)
}

// Revoke disconnects a grant: its refresh token is destroyed.
func (c *Client) Revoke(ctx context.Context, grant mailgrant.ID) (Grant, error) {
	return put[Grant](ctx, c, http.MethodPost, "/v1/grants/"+id(grant)+"/revoke", nil)
}

// Token gives an access token, good for at least a minute. resource is one of
// the template's, such as outlook or graph; "" is the grant's first.
func (c *Client) Token(ctx context.Context, grant mailgrant.ID, resource string) (Token, error) {
	path := "/v1/grants/" + id(grant) + "/token"
	if resource != "" {
		path += "?resource=" + url.QueryEscape(resource)
	}
	return get[Token](ctx, c, path)
}
