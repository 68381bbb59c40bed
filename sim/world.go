package sim

import "time"

// A State is everything that an administrator of the imitated cloud could see
// or set. It is the shape of a world file; World guards the living one.
type State struct {
	Tenants []*Tenant `json:"tenants"`
	Knobs   Knobs     `json:"knobs"`

	// Seal is the base64 key under which refresh tokens are sealed. It is made
	// when absent; kept in the file, tokens outlive a restart of the sim.
	Seal string `json:"seal,omitempty"`
}

// A Tenant is one directory of Entra with its Exchange organization.
type Tenant struct {
	ID      string   `json:"id"` // GUID
	Name    string   `json:"name"`
	Domains []string `json:"domains"` // the first one is the primary

	// Cloud is public, gcchigh, dod or china. It decides which resources the
	// tenant knows and what the discovery document says.
	Cloud string `json:"cloud,omitempty"`

	// UserConsent says what people may consent to: all (the default) or none.
	// ConsentWorkflow offers them to ask an administrator.
	UserConsent     string `json:"user_consent,omitempty"`
	ConsentWorkflow bool   `json:"consent_workflow,omitempty"`

	SecurityDefaults bool   `json:"security_defaults,omitempty"`
	Rules            []Rule `json:"rules,omitempty"` // Conditional Access

	// SMTPAuthDisabled is Set-TransportConfig -SmtpClientAuthenticationDisabled.
	SMTPAuthDisabled bool `json:"smtp_auth_disabled,omitempty"`

	// BasicAuth is what a password gets at SMTP: retired (the default),
	// disabled or allowed.
	BasicAuth string `json:"basic_auth,omitempty"`

	// SendFromAlias is SendFromAliasEnabled: without it an alias in From is
	// rewritten to the primary address.
	SendFromAlias bool `json:"send_from_alias,omitempty"`

	Licences   int  `json:"licences,omitempty"` // decides the external recipients a day
	Trial      bool `json:"trial,omitempty"`
	NoExchange bool `json:"no_exchange,omitempty"` // not subscribed at all

	Users       []*User          `json:"users,omitempty"`
	Guests      []Guest          `json:"guests,omitempty"`
	Mailboxes   []*Mailbox       `json:"mailboxes,omitempty"`
	Apps        []*App           `json:"apps,omitempty"`
	Enterprise  []*Enterprise    `json:"enterprise,omitempty"`
	Principals  []*Principal     `json:"principals,omitempty"`
	Assignments []RoleAssignment `json:"role_assignments,omitempty"`
	Policies    []AccessPolicy   `json:"access_policies,omitempty"`
	Consents    []*Consent       `json:"consents,omitempty"`
}

// The kinds of Conditional Access rules.
const (
	RuleBlock           = "block"             // 53003 for every token
	RuleRequireMFA      = "require_mfa"       // 50076 until the person approved
	RuleFrequency       = "sign_in_frequency" // 70043 when the sign-in is older
	RuleCompliantDevice = "compliant_device"  // 53000, nobody here has a device
	RuleBlockDeviceCode = "block_device_code" // 53003 for the device code flow
	RuleBlockSMTP       = "block_smtp"        // 535 5.7.139 "did not meet the criteria"
)

// A Rule is a Conditional Access policy. Empty lists mean everybody and every
// application.
type Rule struct {
	Name      string   `json:"name,omitempty"`
	Kind      string   `json:"kind"`
	Users     []string `json:"users,omitempty"`     // addresses
	Except    []string `json:"except,omitempty"`    // addresses left out
	Apps      []string `json:"apps,omitempty"`      // client ids
	Frequency Duration `json:"frequency,omitempty"` // of sign_in_frequency
}

// A User is a person, or an account that somebody signs in to.
type User struct {
	ID       string   `json:"id"` // oid
	Address  string   `json:"address"`
	UPN      string   `json:"upn,omitempty"` // the address where it differs
	Name     string   `json:"name,omitempty"`
	Password string   `json:"password,omitempty"`
	Aliases  []string `json:"aliases,omitempty"`
	Roles    []string `json:"roles,omitempty"` // e.g. RoleGlobalAdmin

	MFA             bool `json:"mfa,omitempty"` // has an authenticator and is asked
	Disabled        bool `json:"disabled,omitempty"`
	Deleted         bool `json:"deleted,omitempty"`
	Locked          bool `json:"locked,omitempty"`
	PasswordExpired bool `json:"password_expired,omitempty"`
	Unlicensed      bool `json:"unlicensed,omitempty"`

	// TokensValidFrom moves forward when sessions are revoked: no grant from
	// before it works any more.
	TokensValidFrom time.Time `json:"tokens_valid_from,omitzero"`
}

// The roles that may consent for a whole tenant.
const (
	RoleGlobalAdmin = "Global Administrator"
	RoleAppAdmin    = "Application Administrator"
)

// A Guest is a user of another tenant with an own object id in this one.
type Guest struct {
	ID      string `json:"id"`
	Address string `json:"address"`
}

// A Mailbox is one in Exchange. Lists of people hold addresses.
type Mailbox struct {
	Address string   `json:"address"`
	Name    string   `json:"name,omitempty"`
	Aliases []string `json:"aliases,omitempty"`
	Shared  bool     `json:"shared,omitempty"`

	// SMTPAuthDisabled is Set-CASMailbox -SmtpClientAuthenticationDisabled:
	// absent inherits from the tenant, false overrides it.
	SMTPAuthDisabled *bool `json:"smtp_auth_disabled,omitempty"`
	IMAPDisabled     bool  `json:"imap_disabled,omitempty"`
	POPDisabled      bool  `json:"pop_disabled,omitempty"`
	NoSentCopy       bool  `json:"no_sent_copy,omitempty"` // of mail sent by SMTP

	// DeliverTo is the folder that a rule or the spam filter puts what comes into.
	DeliverTo string `json:"deliver_to,omitempty"` // FolderInbox when empty

	// Language names the standard folders: en (when absent), de, fr or ja.
	// Folders are there beside them, with "/" between levels. Both count when
	// the mailbox is first used.
	Language string   `json:"language,omitempty"`
	Folders  []string `json:"folders,omitempty"`

	SendAs       []string `json:"send_as,omitempty"`
	FullAccess   []string `json:"full_access,omitempty"`
	SendOnBehalf []string `json:"send_on_behalf,omitempty"`

	MaxSendSize    int64 `json:"max_send_size,omitempty"`   // bytes, 0 = knob
	RecipientLimit int   `json:"recipient_limit,omitempty"` // a message, 0 = knob
	Quota          int64 `json:"quota,omitempty"`           // bytes, 0 = none
	Used           int64 `json:"used,omitempty"`            // bytes, beside the mail held here
	SoftDeleted    bool  `json:"soft_deleted,omitempty"`
}

// The platforms of a redirect URI.
const (
	PlatformWeb    = "web"
	PlatformSPA    = "spa"
	PlatformNative = "native"
)

// Who may sign in to an app.
const (
	AudienceTenant        = "tenant"        // only its own directory
	AudienceOrganizations = "organizations" // every work account
	AudienceAll           = "all"           // work and personal accounts
	AudienceConsumers     = "consumers"     // personal accounts
)

// An App is an app registration, listed under its home tenant.
type App struct {
	ID       string     `json:"id"` // client id
	Name     string     `json:"name"`
	Accounts string     `json:"accounts,omitempty"` // AudienceTenant when absent
	Redirect []Redirect `json:"redirect,omitempty"`

	// AnyLoopback takes every http://localhost, 127.0.0.1 or [::1] address as
	// registered for the web, whatever its port and path.
	AnyLoopback bool `json:"any_loopback,omitempty"`

	Public       bool                  `json:"public,omitempty"` // "allow public client flows"
	Disabled     bool                  `json:"disabled,omitempty"`
	Secrets      []Secret              `json:"secrets,omitempty"`
	Certificates []Certificate         `json:"certificates,omitempty"`
	Federated    []FederatedCredential `json:"federated,omitempty"`

	// Delegated and Application list the configured permissions in the form of
	// scopes: "Mail.Send" is Graph's, others carry their resource.
	Delegated   []string `json:"delegated,omitempty"`
	Application []string `json:"application,omitempty"`

	LogoutURL string `json:"logout_url,omitempty"` // front channel
}

// A Redirect is one registered redirect URI.
type Redirect struct {
	URI      string `json:"uri"`
	Platform string `json:"platform,omitempty"` // PlatformWeb when absent
}

// A Secret is a client secret. An absent date does not limit it.
type Secret struct {
	ID    string    `json:"id"`
	Value string    `json:"value"`
	Start time.Time `json:"start,omitzero"`
	End   time.Time `json:"end,omitzero"`
}

// A Certificate is a public key with which an app signs assertions. Its dates
// are those inside the PEM.
type Certificate struct {
	ID  string `json:"id,omitempty"`
	PEM string `json:"pem"`
}

// A FederatedCredential trusts assertions of another issuer. Keys come from
// Keys when given, otherwise from the issuer's discovery document.
type FederatedCredential struct {
	Name     string   `json:"name"`
	Issuer   string   `json:"issuer"`
	Subject  string   `json:"subject"`
	Audience string   `json:"audience,omitempty"` // api://AzureADTokenExchange when absent
	Keys     []string `json:"keys,omitempty"`     // public keys, PEM
}

// An Enterprise is the enterprise application: an app as one tenant sees it.
// It comes into being with the first consent.
type Enterprise struct {
	App                string   `json:"app"`
	ObjectID           string   `json:"object_id"`
	Disabled           bool     `json:"disabled,omitempty"`
	AssignmentRequired bool     `json:"assignment_required,omitempty"`
	Assigned           []string `json:"assigned,omitempty"` // addresses
}

// A Principal is what New-ServicePrincipal made in Exchange. ObjectID must be
// that of the enterprise application; with another, sign-in fails.
type Principal struct {
	App        string   `json:"app"`
	ObjectID   string   `json:"object_id"`
	FullAccess []string `json:"full_access,omitempty"` // Add-MailboxPermission
	SendAs     []string `json:"send_as,omitempty"`     // Add-RecipientPermission
}

// A RoleAssignment is RBAC for applications: a role such as
// "Application SMTP.SendAsApp" or "Application Mail.Send" on some mailboxes.
type RoleAssignment struct {
	App   string   `json:"app"`
	Role  string   `json:"role"`
	Scope []string `json:"scope,omitempty"` // addresses; none = every mailbox
}

// An AccessPolicy is New-ApplicationAccessPolicy; it binds Graph, not SMTP.
type AccessPolicy struct {
	App     string   `json:"app"`
	Right   string   `json:"right"` // RestrictAccess or DenyAccess
	Members []string `json:"members"`
}

// A Consent is one row of what people or administrators granted to an app.
// Scopes and roles are in full form with the canonical resource.
type Consent struct {
	App    string   `json:"app"`
	User   string   `json:"user,omitempty"` // oid; absent = everybody, by an administrator
	Scopes []string `json:"scopes,omitempty"`
	Roles  []string `json:"roles,omitempty"` // application permissions
}
