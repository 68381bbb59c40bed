package grant

import (
	"context"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/store"
	"github.com/mailgrant/mailgrant/internal/vault"
)

// A Store keeps what the keeper must not forget. *store.Store is one.
type Store interface {
	Clustered() bool
	Organization(ctx context.Context, id mailgrant.ID) (mailgrant.Organization, error)
	Registration(ctx context.Context, org, id mailgrant.ID) (mailgrant.Registration, error)
	RegistrationAnywhere(ctx context.Context, id mailgrant.ID) (mailgrant.Registration, error)
	Credentials(ctx context.Context, org, registration mailgrant.ID) ([]mailgrant.Credential, error)

	Grant(ctx context.Context, org, id mailgrant.ID) (mailgrant.Grant, error)
	Grants(ctx context.Context, org mailgrant.ID) ([]mailgrant.Grant, error)
	GrantsDue(ctx context.Context, at time.Time, limit int) ([]mailgrant.Grant, error)
	PostponeGrant(ctx context.Context, org, id mailgrant.ID, until time.Time) error
	CompleteConsent(ctx context.Context, g mailgrant.Grant) error
	LeaseGrant(ctx context.Context, org, id, node mailgrant.ID, d time.Duration) (mailgrant.Grant, bool, error)
	ReleaseGrant(ctx context.Context, org, id, node mailgrant.ID) error
	RenewGrant(ctx context.Context, r store.Renewal) error
	LapseGrant(ctx context.Context, org, id, node mailgrant.ID, generation int64, f mailgrant.Finding) error
	NoteGrant(ctx context.Context, org, id mailgrant.ID, f *mailgrant.Finding, lastUse *time.Time) error
	RevokeGrant(ctx context.Context, org, id mailgrant.ID) error
	UpdateGrant(ctx context.Context, g mailgrant.Grant) error
	FetchHandover(ctx context.Context, org, grant mailgrant.ID, resource string) ([]byte, time.Time, error)

	CreateFlow(ctx context.Context, f store.Flow) error
	TakeFlow(ctx context.Context, stateHash []byte) (store.Flow, error)
	Flow(ctx context.Context, org, id mailgrant.ID) (store.Flow, error)
	DeleteFlow(ctx context.Context, org, id mailgrant.ID) error
	CreateConsentLink(ctx context.Context, l store.ConsentLink) error
	ConsentLinkByHash(ctx context.Context, hash []byte) (store.ConsentLink, error)
	UseConsentLink(ctx context.Context, hash []byte) error
	PutAdminConsent(ctx context.Context, c store.AdminConsent) error
	AdminConsent(ctx context.Context, org, registration mailgrant.ID) (store.AdminConsent, error)

	Events(ctx context.Context, org mailgrant.ID, f store.EventFilter) ([]mailgrant.Event, error)
	LastEvent(ctx context.Context, org mailgrant.ID) (int64, error)
	WatchEvents() (added <-chan struct{}, stop func())
	AddEvent(ctx context.Context, e mailgrant.Event) error
}

// A Vault seals refresh tokens and flows. *vault.Vault is one.
type Vault interface {
	Seal(p vault.Place, plain []byte) ([]byte, error)
	Open(p vault.Place, sealed []byte) ([]byte, error)
	Hash(purpose, value string) []byte
}

func placeOfRefresh(g mailgrant.Grant) vault.Place {
	return vault.Place{Org: g.Org, Table: "grants", Column: "refresh_token", Row: g.ID}
}

func placeOfCredential(c mailgrant.Credential) vault.Place {
	return vault.Place{Org: c.Org, Table: "credentials", Column: "secret", Row: c.ID}
}

func placeOfFlow(f store.Flow) vault.Place {
	return vault.Place{Org: f.Org, Table: "flows", Column: "data", Row: f.ID}
}

func placeOfHandover(org, grant mailgrant.ID, resource string) vault.Place {
	return vault.Place{Org: org, Table: "handover", Column: resource, Row: grant}
}
