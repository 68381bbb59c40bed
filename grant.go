package mailgrant

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"time"
)

// An Organization is the customer whose registrations, mailboxes, people and
// apps these are. Nothing crosses between two.
type Organization struct {
	ID        ID        `json:"id"`
	Name      string    `json:"name"`
	CreatedAt time.Time `json:"created_at"`
}

// MainOrganization is the name of the one that a fresh install has, until somebody
// gives it theirs.
const MainOrganization = "Main"

// Named says whether the organization has a name that means something to people.
func (o Organization) Named() bool { return o.Name != "" && o.Name != MainOrganization }

// A Registration is our client at a provider. Its template gives the base
// facts; Overrides replaces single ones.
type Registration struct {
	ID          ID                `json:"id"`
	Org         ID                `json:"org"`
	Name        string            `json:"name"`
	Template    string            `json:"template"`            // "microsoft365", "google", "generic", …
	Cloud       string            `json:"cloud,omitempty"`     // "public", "gcc-high", "dod", "china"; Microsoft only
	Tenant      string            `json:"tenant,omitempty"`    // tenant id or domain; Microsoft only
	Issuer      string            `json:"issuer,omitempty"`    // generic: where discovery starts
	ClientID    string            `json:"client_id"`           // "Application (client) ID"
	Prompt      string            `json:"prompt,omitempty"`    // OAuth prompt; "" = the template's, select_account for Microsoft
	Overrides   map[string]string `json:"overrides,omitempty"` // by field name of the template: "token_endpoint", "smtp_host", …
	ScopesExtra []string          `json:"scopes_extra,omitempty"`
	ScopesLeave []string          `json:"scopes_leave,omitempty"` // not to be asked although the template would
	DeviceFlow  bool              `json:"device_flow,omitempty"`  // the operator allows the device code
	CAFile      string            `json:"ca_file,omitempty"`      // trusted besides the system's roots, for this provider only
	Disabled    bool              `json:"disabled,omitempty"`
	CreatedAt   time.Time         `json:"created_at"`
	UpdatedAt   time.Time         `json:"updated_at"`
}

// Signature changes when a change of the registration makes its grants doubtful:
// a grant carries the signature it was made under.
func (r Registration) Signature() string {
	b, _ := json.Marshal([]any{r.Template, r.Cloud, r.Tenant, r.Issuer, r.ClientID, r.Prompt, r.Overrides,
		slices.Sorted(slices.Values(r.ScopesExtra)), slices.Sorted(slices.Values(r.ScopesLeave))})
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:8])
}

// CredentialKind is how a registration proves itself.
type CredentialKind string

const (
	CredentialSecret         CredentialKind = "secret"
	CredentialCertificate    CredentialKind = "certificate"     // PEM: private key and certificate
	CredentialFederated      CredentialKind = "federated"       // a file that holds another issuer's token
	CredentialServiceAccount CredentialKind = "service_account" // Google's JSON key
	CredentialNone           CredentialKind = "none"            // a public client
)

// A Credential is one way in which a registration proves itself. Of several
// that are valid now, the one that ends last is used first.
type Credential struct {
	ID           ID             `json:"id"`
	Org          ID             `json:"org"`
	Registration ID             `json:"registration"`
	Kind         CredentialKind `json:"kind"`
	Description  string         `json:"description,omitempty"`
	Fingerprint  string         `json:"fingerprint,omitempty"` // x5t#S256 of a certificate; first 8 hex digits of a secret's keyed hash
	TokenFile    string         `json:"token_file,omitempty"`  // federated: read at each use
	NotBefore    *time.Time     `json:"not_before,omitempty"`
	NotAfter     *time.Time     `json:"not_after,omitempty"`
	CreatedAt    time.Time      `json:"created_at"`
	Sealed       []byte         `json:"-"` // the secret itself, sealed by vault
}

// ValidAt says whether c may be used at t.
func (c Credential) ValidAt(t time.Time) bool {
	return (c.NotBefore == nil || !t.Before(*c.NotBefore)) && (c.NotAfter == nil || t.Before(*c.NotAfter))
}

// A Capability is something a grant is asked for.
type Capability string

const (
	CanSMTP    Capability = "smtp"     // send by SMTP
	CanIMAP    Capability = "imap"     // receive by IMAP
	CanPOP     Capability = "pop"      // receive by POP
	CanAPISend Capability = "api_send" // send by the provider's HTTP API
	CanAPIRead Capability = "api_read" // read by the provider's HTTP API
	CanSignIn  Capability = "signin"   // know who it is
)

// A Flow is how a grant is come by.
type Flow string

const (
	FlowCode   Flow = "code"   // authorization code with PKCE: a person signs in
	FlowApp    Flow = "app"    // client credentials: the app itself
	FlowDevice Flow = "device" // device code, where the operator allows it
)

// A GrantState says what can be done with a grant.
//
//	pending ──consent──▶ active ──refused──▶ lapsed
//	                       ▲ │                  │
//	                       │ └──revoke──▶ revoked
//	                       └──────consent───────┘
type GrantState string

const (
	GrantPending GrantState = "pending"
	GrantActive  GrantState = "active"
	GrantLapsed  GrantState = "lapsed"
	GrantRevoked GrantState = "revoked"
)

// A Subject is whom a grant speaks for. TenantID and ObjectID (Microsoft) or
// Issuer and Subject identify; the rest is for people to read.
type Subject struct {
	TenantID string `json:"tenant_id,omitempty"`
	ObjectID string `json:"object_id,omitempty"`
	Issuer   string `json:"issuer,omitempty"`
	Subject  string `json:"subject,omitempty"`
	Address  string `json:"address,omitempty"`
	UPN      string `json:"upn,omitempty"`
	Name     string `json:"name,omitempty"`
}

// Same says whether both are the same identity: tid+oid, else iss+sub. Two empty
// subjects are not the same.
func (s Subject) Same(o Subject) bool {
	if s.ObjectID != "" || o.ObjectID != "" {
		return s.ObjectID != "" && s.TenantID != "" && s.ObjectID == o.ObjectID && s.TenantID == o.TenantID
	}
	return s.Subject != "" && s.Issuer != "" && s.Subject == o.Subject && s.Issuer == o.Issuer
}

// A Grant is what a consent leaves behind.
type Grant struct {
	ID            ID           `json:"id"`
	Org           ID           `json:"org"`
	Registration  ID           `json:"registration"`
	Mailbox       string       `json:"mailbox"`      // the address whose consent is expected
	MailboxKind   MailboxKind  `json:"mailbox_kind"` // own, shared, app
	Flow          Flow         `json:"flow"`
	Capabilities  []Capability `json:"capabilities"`
	State         GrantState   `json:"state"`
	Subject       Subject      `json:"subject"`
	ScopesAsked   []string     `json:"scopes_asked,omitempty"`
	ScopesGranted []string     `json:"scopes_granted,omitempty"`
	Signature     string       `json:"config_signature,omitempty"` // of the registration when consented
	Generation    int64        `json:"generation"`                 // counts refreshes; fences writers
	ConsentedAt   *time.Time   `json:"consented_at,omitempty"`
	LastRefresh   *time.Time   `json:"last_refresh,omitempty"`
	NextRefresh   *time.Time   `json:"next_refresh,omitempty"` // the keeper's schedule for an idle grant
	LastUse       *time.Time   `json:"last_use,omitempty"`
	TokenExpires  *time.Time   `json:"token_expires,omitempty"` // of the newest access token
	LastFinding   *Finding     `json:"last_finding,omitempty"`
	CreatedAt     time.Time    `json:"created_at"`
	UpdatedAt     time.Time    `json:"updated_at"`

	Sealed     []byte `json:"-"` // refresh token, sealed by vault
	SealedPrev []byte `json:"-"` // the one before it, kept a grace time
}

// A Token is a short-lived access token.
type Token struct {
	Value    Secret    `json:"access_token"`
	Type     string    `json:"token_type"` // "Bearer"
	Expires  time.Time `json:"expires"`
	Resource string    `json:"resource"`
	Scopes   []string  `json:"scopes,omitempty"`
}
