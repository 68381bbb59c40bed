package client

import (
	"time"

	"github.com/mailgrant/mailgrant"
)

// A Page is a part of a list, and the cursor of the next part: "" after the last.
type Page[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitempty"`
}

// Settings of things are sent whole or in part: a nil field stays as it is, and
// takes its default in a new thing.

// OrganizationSettings are those of an organization.
type OrganizationSettings struct {
	Name *string `json:"name,omitempty"`
}

// RegistrationSettings are those of a registration.
type RegistrationSettings struct {
	Name        *string            `json:"name,omitempty"`
	Template    *string            `json:"template,omitempty"` // fixed once made
	Cloud       *string            `json:"cloud,omitempty"`
	Tenant      *string            `json:"tenant,omitempty"`
	Issuer      *string            `json:"issuer,omitempty"`
	ClientID    *string            `json:"client_id,omitempty"`
	Prompt      *string            `json:"prompt,omitempty"`
	Overrides   *map[string]string `json:"overrides,omitempty"`
	ScopesExtra *[]string          `json:"scopes_extra,omitempty"`
	ScopesLeave *[]string          `json:"scopes_leave,omitempty"`
	DeviceFlow  *bool              `json:"device_flow,omitempty"` // the operator's to set
	CAFile      *string            `json:"ca_file,omitempty"`     // the operator's to set
	Disabled    *bool              `json:"disabled,omitempty"`
}

// A Registration is one as it is shown: what a person needs to register it at the
// provider stands beside its settings.
type Registration struct {
	mailgrant.Registration
	RedirectURI      string                 `json:"redirect_uri"`
	AdminRedirectURI string                 `json:"admin_redirect_uri,omitempty"` // where the provider knows an approval for all
	Missing          []string               `json:"missing,omitempty"`            // what must still be filled in
	Credentials      []mailgrant.Credential `json:"credentials"`
	AdminConsent     *AdminConsent          `json:"admin_consent,omitempty"`
}

// A NewCredential is a way for a registration to prove itself.
type NewCredential struct {
	Kind        mailgrant.CredentialKind `json:"kind,omitempty"`        // default secret
	Secret      string                   `json:"secret,omitempty"`      // the secret's value, the PEM of key and certificate, or Google's JSON key
	TokenFile   string                   `json:"token_file,omitempty"`  // federated: a file on the server; the operator's to set
	Description string                   `json:"description,omitempty"` //
	NotBefore   *time.Time               `json:"not_before,omitempty"`
	NotAfter    *time.Time               `json:"not_after,omitempty"` // of a certificate: its own end
}

// A Template is what is known of a provider before anybody registered there.
type Template struct {
	ID       string   `json:"id"`
	Name     string   `json:"name"`
	Register string   `json:"register,omitempty"` // how a client is come by
	Clouds   []string `json:"clouds,omitempty"`
	Fields   []string `json:"fields"` // that a registration may override
}

// A Discovery says who keeps the mail of an address, and how we know.
type Discovery struct {
	Address  string   `json:"address"`
	Domain   string   `json:"domain"`
	Template string   `json:"template"` // "" when nobody knows
	Name     string   `json:"name,omitempty"`
	Cloud    string   `json:"cloud,omitempty"`
	Tenant   string   `json:"tenant,omitempty"`
	MX       []string `json:"mx,omitempty"`
	Reason   string   `json:"reason"`
	Sure     bool     `json:"sure"`
}

// GrantSettings are those of a grant.
type GrantSettings struct {
	Registration *mailgrant.ID           `json:"registration,omitempty"` // default: the only one
	Mailbox      *string                 `json:"mailbox,omitempty"`      // the address whose consent is expected
	MailboxKind  *mailgrant.MailboxKind  `json:"mailbox_kind,omitempty"` // default own
	Flow         *mailgrant.Flow         `json:"flow,omitempty"`         // default code
	Capabilities *[]mailgrant.Capability `json:"capabilities,omitempty"` // default: what sending needs
}

// A Grant is one as it is shown.
type Grant struct {
	mailgrant.Grant
	Changed  bool   `json:"changed,omitempty"`   // it is for more than was consented to, or its registration was changed since: authorise again
	RevokeAt string `json:"revoke_at,omitempty"` // where its owner ends it at the provider
}

// A NewLink is a link to be made.
type NewLink struct {
	Kind string `json:"kind,omitempty"` // consent (default), for the owner of the mailbox, or admin_consent
}

// A Link lets somebody without an account begin one consent, once.
type Link struct {
	ID        mailgrant.ID `json:"id"`
	URL       string       `json:"url,omitempty"` // shown once, when it is made
	Kind      string       `json:"kind"`          // consent, admin_consent
	Grant     mailgrant.ID `json:"grant"`
	Mailbox   string       `json:"mailbox"` // of the grant
	CreatedBy string       `json:"created_by"`
	CreatedAt time.Time    `json:"created_at"`
	ExpiresAt time.Time    `json:"expires_at"`
}

// A DeviceCode is what a person enters on another device.
type DeviceCode struct {
	Flow            mailgrant.ID  `json:"flow"`
	UserCode        string        `json:"user_code"`
	VerificationURI string        `json:"verification_uri"`
	Complete        string        `json:"verification_uri_complete,omitempty"`
	ExpiresAt       time.Time     `json:"expires_at"`
	Interval        time.Duration `json:"interval"` // ns, between two polls
}

// A DeviceState says whether the person is through.
type DeviceState struct {
	Done  bool   `json:"done"`
	Grant *Grant `json:"grant,omitempty"`
}

// An AdminConsent is what is known of an approval for a whole organization.
type AdminConsent struct {
	State  string    `json:"state"` // asked, granted, denied
	Tenant string    `json:"tenant,omitempty"`
	Scopes []string  `json:"scopes,omitempty"`
	Error  string    `json:"error,omitempty"`
	At     time.Time `json:"at"`
}

// A Token is an access token for an app that may have one.
type Token struct {
	AccessToken string    `json:"access_token"`
	TokenType   string    `json:"token_type"` // Bearer
	ExpiresAt   time.Time `json:"expires_at"`
	ExpiresIn   int       `json:"expires_in"` // seconds
	Resource    string    `json:"resource"`
	Scopes      []string  `json:"scopes,omitempty"`
}

// MailboxSettings are those of a mailbox.
type MailboxSettings struct {
	Address     *string                `json:"address,omitempty"`
	DisplayName *string                `json:"display_name,omitempty"`
	Kind        *mailgrant.MailboxKind `json:"kind,omitempty"`
	Role        *mailgrant.MailboxRole `json:"role,omitempty"`
	Person      *string                `json:"person,omitempty"`
	Grant       *mailgrant.ID          `json:"grant,omitempty"`
	Transport   *string                `json:"transport,omitempty"`
	Senders     *[]string              `json:"senders,omitempty"`
	Limits      *mailgrant.Limits      `json:"limits,omitempty"`
	Life        *mailgrant.Duration    `json:"life,omitempty"`
	Uncertain   *string                `json:"uncertain,omitempty"`
	Disabled    *bool                  `json:"disabled,omitempty"`
	Receive     *mailgrant.Receive     `json:"receive,omitempty"` // how it is read, as a whole; the protocol "off" ends it
}

// AppSettings are those of an app.
type AppSettings struct {
	Name      *string            `json:"name,omitempty"`
	Classes   *[]mailgrant.Class `json:"classes,omitempty"`
	Mailboxes *[]mailgrant.ID    `json:"mailboxes,omitempty"`
	Senders   *[]string          `json:"senders,omitempty"`
	Doors     *[]string          `json:"doors,omitempty"`
	PerMinute *int               `json:"per_minute,omitempty"`
	Disabled  *bool              `json:"disabled,omitempty"`
}

// A NewKey is a key to be issued.
type NewKey struct {
	Name     string            `json:"name,omitempty"`
	Scopes   []mailgrant.Scope `json:"scopes,omitempty"`  // default send
	Sources  []string          `json:"sources,omitempty"` // CIDRs it may come from
	NotAfter *time.Time        `json:"not_after,omitempty"`
}

// An IssuedKey is a key with its secret, which is shown this once.
type IssuedKey struct {
	mailgrant.Key
	Secret string `json:"secret"`
}

// A Message is a submission in fields. Unknown fields are refused.
type Message struct {
	From        string            `json:"from"`
	Sender      string            `json:"sender,omitempty"`
	To          []string          `json:"to,omitempty"`
	Cc          []string          `json:"cc,omitempty"`
	Bcc         []string          `json:"bcc,omitempty"`
	ReplyTo     []string          `json:"reply_to,omitempty"`
	Subject     string            `json:"subject,omitempty"`
	Text        string            `json:"text,omitempty"`
	HTML        string            `json:"html,omitempty"`
	InReplyTo   string            `json:"in_reply_to,omitempty"`
	References  []string          `json:"references,omitempty"`
	MessageID   string            `json:"message_id,omitempty"`
	Headers     map[string]string `json:"headers,omitempty"`
	Attachments []Attachment      `json:"attachments,omitempty"`

	Class      mailgrant.Class `json:"class,omitempty"`        // default user
	OnBehalfOf string          `json:"on_behalf_of,omitempty"` // the person it is sent for
	Mailbox    string          `json:"mailbox,omitempty"`      // id or address; default: route chooses
	SendAt     *time.Time      `json:"send_at,omitempty"`
}

// An Attachment is a file of a message.
type Attachment struct {
	Name        string `json:"name"`
	ContentType string `json:"content_type,omitempty"` // default: by the name's ending
	ContentID   string `json:"content_id,omitempty"`   // for cid: in HTML; makes it inline
	Content     []byte `json:"content"`                // base64
}

// An Envelope goes with a message in bytes.
type Envelope struct {
	From       string          // "": the address in the From field
	Recipients []string        // nil: those of To, Cc and Bcc; Bcc does not leave
	Class      mailgrant.Class // default user
	OnBehalfOf string
	Mailbox    string
	SendAt     time.Time
}

// A SubmissionFilter chooses submissions.
type SubmissionFilter struct {
	App     mailgrant.ID
	Mailbox string // id or address
	States  []mailgrant.SubmissionState
	Since   time.Time
	Cursor  string
	Limit   int
}

// An EventFilter chooses events.
type EventFilter struct {
	After   int64 // the Seq of the last one seen
	Kinds   []string
	Subject mailgrant.ID
	App     mailgrant.ID
	Mailbox mailgrant.ID
	Limit   int
}

// A Waiting is how much a mailbox has to send.
type Waiting struct {
	Mailbox mailgrant.ID    `json:"mailbox"`
	Address string          `json:"address"`
	Waiting int64           `json:"waiting"`
	Oldest  time.Time       `json:"oldest,omitzero"`
	Hold    *mailgrant.Hold `json:"hold,omitempty"`
}

// A RouteQuestion asks which mailbox would carry a message.
type RouteQuestion struct {
	From       string
	Class      mailgrant.Class
	OnBehalfOf string
	Mailbox    string
}

// A Failure is a text to be explained.
type Failure struct {
	ID       string         `json:"id,omitempty"`
	Text     string         `json:"text"`
	Protocol string         `json:"protocol,omitempty"`
	Context  map[string]any `json:"context,omitempty"`
}

// Health is how the installation does.
type Health struct {
	OK        bool            `json:"ok"`
	Version   string          `json:"version"`
	Node      mailgrant.ID    `json:"node"`
	Database  string          `json:"database"` // sqlite, postgres
	Uptime    time.Duration   `json:"uptime"`   // ns
	Problems  []string        `json:"problems,omitempty"`
	Held      int             `json:"held"`                // mailboxes that are held; the installation is well all the same
	HeldSince time.Time       `json:"held_since,omitzero"` // of the one that is held longest
	Mailboxes []MailboxHealth `json:"mailboxes,omitempty"`
	Grants    map[string]int  `json:"grants,omitempty"` // how many in each state
	Queue     int64           `json:"queue"`            // submissions that wait
	Doors     []Door          `json:"doors,omitempty"`
}

// MailboxHealth is one mailbox's part of it.
type MailboxHealth struct {
	ID          mailgrant.ID           `json:"id"`
	Address     string                 `json:"address"`
	State       mailgrant.MailboxState `json:"state"`
	GrantState  mailgrant.GrantState   `json:"grant_state,omitempty"`
	Cause       string                 `json:"cause,omitempty"`     // of its hold
	HeldSince   time.Time              `json:"held_since,omitzero"` //
	Waiting     int64                  `json:"waiting"`
	LastSuccess *time.Time             `json:"last_success,omitempty"`
}

// A Door is an address that mailgrant listens on.
type Door struct {
	URI         string `json:"uri"`
	Fingerprint string `json:"fingerprint,omitempty"` // SHA-256 of its certificate
}

// KeyStatus is how far a rotation of the sealing keys is.
type KeyStatus struct {
	Primary uint32   `json:"primary"`
	Keys    []uint32 `json:"keys"`
	Left    int      `json:"left"` // seals of older keys that are still there
}

// Problem is an error on the wire: RFC 9457 with what mailgrant adds.
type Problem struct {
	Type    string             `json:"type"` // a page about it; about:blank where mailgrant has no public address
	Title   string             `json:"title"`
	Status  int                `json:"status"`
	Detail  string             `json:"detail,omitempty"`
	Code    mailgrant.Code     `json:"code"`
	Remedy  string             `json:"remedy,omitempty"`
	Field   string             `json:"field,omitempty"`
	Finding *mailgrant.Finding `json:"finding,omitempty"`
	Trace   mailgrant.ID       `json:"trace,omitempty"`
}

// Explained is what a text means, in a line of many.
type Explained struct {
	ID         string          `json:"id,omitempty"` // of the failure
	Cause      string          `json:"cause"`
	Title      string          `json:"title"`
	Remedy     string          `json:"remedy"`
	Who        mailgrant.Who   `json:"who"`
	Retry      mailgrant.Retry `json:"retry"`
	Confidence float64         `json:"confidence"`
}

// A Cause is an entry of the catalogue of failures, or of what mailgrant refuses.
type Cause struct {
	ID       string           `json:"id"`
	Title    string           `json:"title"`
	Sentence string           `json:"sentence"`
	Remedy   string           `json:"remedy"`
	Steps    []mailgrant.Step `json:"steps,omitempty"`
	Who      mailgrant.Who    `json:"who"`
	Retry    mailgrant.Retry  `json:"retry"`
	Codes    []string         `json:"codes,omitempty"`
	Links    []string         `json:"links,omitempty"`
	Related  []string         `json:"related,omitempty"` // ids of causes that look alike
	Link     string           `json:"link"`              // its page below the documents

	Meanwhile string `json:"meanwhile,omitempty"` // what becomes of the mail, where retry does not say it
}
