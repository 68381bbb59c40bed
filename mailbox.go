package mailgrant

import "time"

// MailboxKind says whose a mailbox is and so who signs in for it.
type MailboxKind string

const (
	MailboxOwn    MailboxKind = "own"    // its own user consents
	MailboxShared MailboxKind = "shared" // another user with rights on it consents
	MailboxApp    MailboxKind = "app"    // the app itself, no person
)

// MailboxRole says which submissions a mailbox carries.
type MailboxRole string

const (
	RolePersonal MailboxRole = "personal" // one person's own mail
	RoleGlobal   MailboxRole = "global"   // everybody who has no personal mailbox
	RoleSystem   MailboxRole = "system"   // the product's own messages
	RoleNone     MailboxRole = ""         // only when named
)

// MailboxState is whether mail leaves through it.
type MailboxState string

const (
	MailboxActive   MailboxState = "active"
	MailboxHeld     MailboxState = "held"     // cannot work now; keeps its submissions
	MailboxDisabled MailboxState = "disabled" // switched off by a person
)

// A Mailbox is an address that sends or receives through a grant.
type Mailbox struct {
	ID          ID           `json:"id"`
	Org         ID           `json:"org"`
	Address     string       `json:"address"`
	DisplayName string       `json:"display_name,omitempty"`
	Kind        MailboxKind  `json:"kind"`
	Role        MailboxRole  `json:"role,omitempty"`
	Person      string       `json:"person,omitempty"` // personal: the address of its person, where it differs
	Grant       ID           `json:"grant,omitempty"`
	GrantState  GrantState   `json:"grant_state,omitempty"` // mail leaves only while it is active; set when read
	Transport   string       `json:"transport"`             // "auto", "smtp", "graph", "gmail"
	Senders     []string     `json:"senders,omitempty"`     // From rules: "a@x", "*@x"; empty = the address itself
	Limits      Limits       `json:"limits"`                // zero fields take the provider's
	Life        Duration     `json:"life,omitempty"`        // of a submission; 0 = 5 days
	Receive     *Receive     `json:"receive,omitempty"`     // how it is read; nil = it is not
	Uncertain   string       `json:"uncertain,omitempty"`   // "resend" (default), "hold"
	State       MailboxState `json:"state"`                 //
	Hold        *Hold        `json:"hold,omitempty"`        // why it is held
	LastSuccess *time.Time   `json:"last_success,omitempty"`
	CreatedAt   time.Time    `json:"created_at"`
	UpdatedAt   time.Time    `json:"updated_at"`
}

// Limits are a mailbox's pace towards its provider. Zero means the provider's
// usual figure, -1 none.
type Limits struct {
	Connections      int   `json:"connections,omitempty"`
	PerMinute        int   `json:"per_minute,omitempty"`
	RecipientsPerDay int   `json:"recipients_per_day,omitempty"`
	MessageBytes     int64 `json:"message_bytes,omitempty"`
}

// A Hold says why a mailbox keeps its submissions and when it tries again.
type Hold struct {
	Finding Finding   `json:"finding"`
	Since   time.Time `json:"since"`
	ProbeAt time.Time `json:"probe_at"`
	Probes  int       `json:"probes"`
}

// A Route is the mailbox that was chosen for a submission, and why.
type Route struct {
	Mailbox ID     `json:"mailbox"`
	Address string `json:"address"`
	Kind    string `json:"kind"`   // "personal", "global", "system", "named"
	Reason  string `json:"reason"` // one sentence
}

// A Duration is a time.Duration that JSON and YAML write as "5m" or "120h".
type Duration time.Duration

func (d Duration) String() string               { return time.Duration(d).String() }
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}
