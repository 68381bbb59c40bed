// Package console serves the pages that people see.
//
//	GET  /connect/{token}                        what a link asks for; looking begins nothing
//	POST /connect/{token}                        begins, and sends the browser to the provider
//	     /oauth/callback/{registration}          the provider sends the browser back
//	     /oauth/admin-consent/{registration}     the same for an administrator's approval
//	GET  /oauth/result/{id}                      what came of it, at an address without a code
//	GET  /docs/  /docs/errors/                   the documents and the catalogue of causes
//	GET  /  /healthz  /style.css  /icon.svg
//
// Every page is made here, whole, and needs no script. Nothing in a page comes
// from elsewhere, and no address is made of what a browser says: PublicURL is
// what we are called.
package console

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/grant"
	"github.com/mailgrant/mailgrant/internal/vault"
)

// A Keeper begins and completes consents. *grant.Keeper is one.
type Keeper interface {
	Invitation(ctx context.Context, token string) (grant.Invitation, error)
	BeginLink(ctx context.Context, token string, o grant.BeginOptions) (grant.Consent, error)
	Complete(ctx context.Context, registration mailgrant.ID, q url.Values, cookie string) (grant.Result, error)
	CompleteAdminConsent(ctx context.Context, registration mailgrant.ID, q url.Values, cookie string) (grant.AdminResult, error)
}

// A Vault seals what a browser carries for us. *vault.Vault is one.
type Vault interface {
	Seal(p vault.Place, plain []byte) ([]byte, error)
	Open(p vault.Place, sealed []byte) ([]byte, error)
}

// Config is what the pages need.
type Config struct {
	Keeper         *grant.Keeper
	Ping           func(context.Context) error // asks the database
	PublicURL      string                      // what browsers reach us by
	Version        string
	TrustedProxies []netip.Prefix // may say where a request comes from
	Log            *slog.Logger
}

// New makes the handler of everything that is not the API.
func New(c Config) http.Handler {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		if err := c.Ping(r.Context()); err != nil {
			http.Error(w, "the database does not answer", http.StatusServiceUnavailable)
			return
		}
		w.Write([]byte("ok\n"))
	})
	return mux
}
