package store

import (
	"time"

	"github.com/mailgrant/mailgrant"
)

// FlowKind says what a pending trip to the provider is for.
type FlowKind string

const (
	FlowConsent      FlowKind = "consent"
	FlowAdminConsent FlowKind = "admin_consent"
	FlowDeviceCode   FlowKind = "device"
)

// A Flow is one trip of a browser to a provider, from begin to callback. It is
// used once and lives ten minutes at most.
type Flow struct {
	ID           mailgrant.ID
	Org          mailgrant.ID
	Registration mailgrant.ID
	Grant        mailgrant.ID // zero for admin consent
	Kind         FlowKind
	StateHash    []byte // keyed hash of the state parameter
	BrowserHash  []byte // keyed hash of the cookie of the browser that began it
	Sealed       []byte // verifier, nonce, device code: JSON, sealed
	RedirectURI  string
	ReturnTo     string
	By           string // who began it, for the audit
	CreatedAt    time.Time
	ExpiresAt    time.Time
}

// A ConsentLink lets somebody without an account begin one consent. Its token is
// known to its holder only.
type ConsentLink struct {
	ID        mailgrant.ID
	Org       mailgrant.ID
	Grant     mailgrant.ID
	Mailbox   string   // of the grant
	Kind      FlowKind // consent or admin_consent
	Hash      []byte
	CreatedBy string
	CreatedAt time.Time
	ExpiresAt time.Time
	UsedAt    *time.Time
}

// A Renewal is the result of one refresh.
type Renewal struct {
	Grant      mailgrant.ID
	Org        mailgrant.ID
	Node       mailgrant.ID // must still hold the lease
	Generation int64        // of the grant before it; the row must still have it
	Sealed     []byte       // new refresh token; nil keeps the present one
	Scopes     []string     // granted; nil keeps
	At         time.Time
	Expires    time.Time // of the access token
	Next       time.Time // when the keeper refreshes it if nobody uses it
	Handover   []Handover
}

// A Handover is an access token on its way to the other nodes of a cluster:
// sealed, in a table that is neither logged nor backed up. SQLite has none.
type Handover struct {
	Resource string
	Sealed   []byte
	Expires  time.Time
}

// An AdminConsent is what is known of an organization-wide approval.
type AdminConsent struct {
	Registration mailgrant.ID
	Org          mailgrant.ID
	Tenant       string // as the callback named it: not proof of anything
	State        string // "asked", "granted", "denied"
	Scopes       []string
	Error        string
	At           time.Time
}
