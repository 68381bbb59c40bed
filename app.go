package mailgrant

import "time"

// An App is a program that uses mailgrant. Its keys are how it proves itself at
// any door; the rest is its access.
type App struct {
	ID        ID        `json:"id"`
	Org       ID        `json:"org"`
	Name      string    `json:"name"`                 // also a user name at the SMTP door
	Classes   []Class   `json:"classes,omitempty"`    // of submissions it may make; empty = user
	Mailboxes []ID      `json:"mailboxes,omitempty"`  // it may name, and whose tokens it may have; empty = whatever route chooses
	Senders   []string  `json:"senders,omitempty"`    // addresses it may send as: "a@x", "*@x"; empty = whatever its mailboxes may carry
	Doors     []string  `json:"doors,omitempty"`      // "smtp", "rest"; empty = all
	PerMinute int       `json:"per_minute,omitempty"` // 0 = unlimited
	Disabled  bool      `json:"disabled,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// A Scope is one right of a key.
type Scope string

const (
	ScopeSend    Scope = "send"    // make submissions, read its own
	ScopeReceive Scope = "receive" // read arrivals of the app's mailboxes, and say what became of them
	ScopeRead    Scope = "read"    // read submissions, events, mailboxes, grants of the organization
	ScopeToken   Scope = "token"   // have access tokens of the app's mailboxes
	ScopeManage  Scope = "manage"  // change everything of the organization
)

// A Key is the secret an app shows. It is shown once and kept as a hash.
type Key struct {
	ID        ID         `json:"id"`
	Org       ID         `json:"org"`
	App       ID         `json:"app"`
	Name      string     `json:"name,omitempty"`
	Prefix    string     `json:"prefix"` // the first letters, to tell keys apart
	Scopes    []Scope    `json:"scopes"`
	Sources   []string   `json:"sources,omitempty"` // CIDRs it may come from; empty = anywhere
	NotAfter  *time.Time `json:"not_after,omitempty"`
	RevokedAt *time.Time `json:"revoked_at,omitempty"`
	LastUse   *time.Time `json:"last_use,omitempty"`
	CreatedAt time.Time  `json:"created_at"`

	Hash []byte `json:"-"` // keyed SHA-256 of the whole key
}

// A Caller is who stands at a door after proving itself: an app with a key, or
// the operator on the local socket (Operator true, App zero).
type Caller struct {
	Org      ID
	App      App
	Key      Key
	Operator bool
	Door     string // "smtp", "rest"
	Source   string // IP address of the peer
	Mailbox  ID     // the mailbox it logged in as at the SMTP door, if it did
}

// May says whether the caller's key has the scope; an operator has all.
func (c Caller) May(s Scope) bool {
	if c.Operator {
		return true
	}
	for _, have := range c.Key.Scopes {
		if have == s || have == ScopeManage {
			return true
		}
	}
	return false
}
