package client

import (
	"context"
	"io"
	"net/http"
	"net/url"

	"github.com/mailgrant/mailgrant"
)

// Health is how the installation does; a key with read sees its mailboxes.
func (c *Client) Health(ctx context.Context) (Health, error) {
	return get[Health](ctx, c, "/v1/health")
}

// Explain says what a text means.
func (c *Client) Explain(ctx context.Context, f Failure) (mailgrant.Finding, error) {
	return put[mailgrant.Finding](ctx, c, http.MethodPost, "/v1/explain", f)
}

// Causes are the failures that are known; search keeps those that a word belongs to.
func (c *Client) Causes(ctx context.Context, search string) ([]Cause, error) {
	path := "/v1/causes"
	if search != "" {
		path += "?search=" + url.QueryEscape(search)
	}
	return all[Cause](ctx, c, path)
}

// Cause is one of them.
func (c *Client) Cause(ctx context.Context, cause string) (Cause, error) {
	return get[Cause](ctx, c, "/v1/causes/"+url.PathEscape(cause))
}

// Backup writes everything as it stands now to w. It is sealed with the master
// key; the operator may.
func (c *Client) Backup(ctx context.Context, w io.Writer) error {
	res, err := c.do(ctx, http.MethodPost, "/v1/backup", nil, func(r *http.Request) { r.Header.Set("Accept", "application/octet-stream") })
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(w, res.Body); err != nil {
		return mailgrant.Errorf(mailgrant.Unavailable, err, "the backup was broken off").Fix("take it again; what was written is of no use")
	}
	return nil
}

// KeyStatus says which keys seal and open, and how much the old ones still seal.
func (c *Client) KeyStatus(ctx context.Context) (KeyStatus, error) {
	return get[KeyStatus](ctx, c, "/v1/keyset")
}

// RotateKey adds a sealing key and begins to seal everything anew while mailgrant
// runs; the operator may.
func (c *Client) RotateKey(ctx context.Context) (KeyStatus, error) {
	return put[KeyStatus](ctx, c, http.MethodPost, "/v1/keyset/rotate", nil)
}
