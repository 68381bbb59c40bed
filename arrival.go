package mailgrant

import "time"

// Receive says how a mailbox is read.
type Receive struct {
	Protocol   string     `json:"protocol"`             // "auto", "imap", "pop", "graph"
	Folders    []string   `json:"folders,omitempty"`    // names as people see them; empty = the inbox
	After      AfterRead  `json:"after,omitempty"`      // what becomes of mail at the provider once it is kept; "" = leave
	MoveTo     string     `json:"move_to,omitempty"`    // folder, for After = move
	Since      *time.Time `json:"since,omitempty"`      // older mail is left alone; nil = from when reading began
	Poll       Duration   `json:"poll,omitempty"`       // where the provider cannot tell of new mail; 0 = 1 minute
	Keep       *Duration  `json:"keep,omitempty"`       // of bodies; nil = the installation's, 0 = headers only
	Everything bool       `json:"everything,omitempty"` // the first reading takes all that is there, however old
}

// AfterRead is what becomes of a message at its provider once it is kept here.
type AfterRead string

const (
	AfterLeave  AfterRead = "leave"
	AfterMark   AfterRead = "mark" // as read
	AfterMove   AfterRead = "move"
	AfterDelete AfterRead = "delete"
)

// An ArrivalState is where an arrival stands.
//
//	new ──every webhook took it──▶ delivered
//	new, delivered ──app──▶ acknowledged ◀──app──▶ ignored ◀──app── any
//	quarantined ──read again──▶ new
type ArrivalState string

const (
	ArrivalNew          ArrivalState = "new"
	ArrivalDelivered    ArrivalState = "delivered"    // all webhooks that want it have it
	ArrivalAcknowledged ArrivalState = "acknowledged" // an app said that it is done with it
	ArrivalIgnored      ArrivalState = "ignored"      // an app does not want it
	ArrivalQuarantined  ArrivalState = "quarantined"  // the provider does not give it to us
)

// An Arrival is a message that appeared in a mailbox. All that stands in it but
// the first eight fields comes from outside and is only claimed.
type Arrival struct {
	ID         ID           `json:"id"`
	Org        ID           `json:"org"`
	Mailbox    ID           `json:"mailbox"`
	State      ArrivalState `json:"state"`
	Folder     string       `json:"folder,omitempty"`
	Protocol   string       `json:"protocol"`    // "imap", "pop", "graph"
	RemoteID   string       `json:"remote_id"`   // the provider's name for it in this mailbox
	NoticedAt  time.Time    `json:"noticed_at"`  // when it was kept
	ReceivedAt time.Time    `json:"received_at"` // by the provider, as it says
	Size       int64        `json:"size"`        // bytes
	Body       bool         `json:"body"`        // its bytes are kept still

	MessageID  string       `json:"message_id,omitempty"` // with its angle brackets
	InReplyTo  []string     `json:"in_reply_to,omitempty"`
	References []string     `json:"references,omitempty"`
	Date       *time.Time   `json:"date,omitempty"`
	From       []Address    `json:"from,omitempty"`
	Sender     []Address    `json:"sender,omitempty"`
	ReplyTo    []Address    `json:"reply_to,omitempty"`
	To         []Address    `json:"to,omitempty"`
	Cc         []Address    `json:"cc,omitempty"`
	Subject    string       `json:"subject,omitempty"`
	Snippet    string       `json:"snippet,omitempty"` // the first words of its text
	Parts      []Part       `json:"attachments,omitempty"`
	AuthResult []AuthResult `json:"authentication_results,omitempty"`
	Auto       string       `json:"auto_submitted,omitempty"` // "auto-replied", "auto-generated", "bulk"…: no person wrote it
	Bounce     *Bounce      `json:"bounce,omitempty"`
	Unparsed   string       `json:"unparsed,omitempty"` // why not all of it could be read; its bytes are whole
	Finding    *Finding     `json:"finding,omitempty"`  // quarantined: why
}

// An Address is one of a header field.
type Address struct {
	Name    string `json:"name,omitempty"`
	Address string `json:"address"`
}

// A Part is a piece of a message that is not its text.
type Part struct {
	N         int    `json:"n"`              // from 1
	Name      string `json:"name,omitempty"` // made fit to be a file's name
	Type      string `json:"type"`           // media type, as it is claimed
	Size      int64  `json:"size"`           // bytes, decoded
	ContentID string `json:"content_id,omitempty"`
	Inline    bool   `json:"inline,omitempty"`
}

// An AuthResult is one result of an Authentication-Results field (RFC 8601). The
// topmost field is the receiving provider's; the others anybody may have written.
type AuthResult struct {
	Server  string `json:"server"`
	Method  string `json:"method"` // "spf", "dkim", "dmarc", "compauth", …
	Result  string `json:"result"` // "pass", "fail", …
	Domain  string `json:"domain,omitempty"`
	Topmost bool   `json:"topmost,omitempty"`
}

// A Bounce is what a delivery status notification says (RFC 3464).
type Bounce struct {
	Submission ID                `json:"submission,omitempty"` // ours that caused it
	MessageID  string            `json:"message_id,omitempty"` // of the message that came back
	Recipients []BounceRecipient `json:"recipients,omitempty"`
}

// A BounceRecipient is one recipient of a Bounce.
type BounceRecipient struct {
	Address    string `json:"address"`
	Action     string `json:"action"` // "failed", "delayed", "delivered", "relayed", "expanded"
	Status     string `json:"status,omitempty"`
	Diagnostic string `json:"diagnostic,omitempty"`
}

// A Move is how a mailbox comes to be read by another protocol. Nothing is taken
// twice: the same mail is recognised by what stays the same of it.
type Move struct {
	Mailbox   ID         `json:"mailbox"`
	Address   string     `json:"address"`
	From      string     `json:"from,omitempty"` // protocol; "" it was not read yet
	To        string     `json:"to"`
	DryRun    bool       `json:"dry_run,omitempty"`
	Taken     int        `json:"taken"`    // messages that were taken so far
	There     int        `json:"there"`    // messages that the other way shows
	Same      int        `json:"same"`     // of those: taken already
	New       int        `json:"new"`      // of those: not taken yet, so they will be
	Moved     bool       `json:"moved"`    // it is read the other way now
	Verified  bool       `json:"verified"` // all that is there has been taken, once
	BackUntil *time.Time `json:"back_until,omitempty"`
	Finding   *Finding   `json:"finding,omitempty"` // what keeps it from being read the other way
}

// A ReaderState is what the reader of a mailbox is doing.
type ReaderState string

const (
	ReaderOff        ReaderState = "off"        // the mailbox is not read
	ReaderElsewhere  ReaderState = "elsewhere"  // another node reads it
	ReaderConnecting ReaderState = "connecting" //
	ReaderReading    ReaderState = "reading"    //
	ReaderWaiting    ReaderState = "waiting"    // all is read; the provider will tell, or is asked again
	ReaderHeld       ReaderState = "held"       // cannot read now: see the finding
)

// A ReaderStatus is how the reading of one mailbox goes.
type ReaderStatus struct {
	Mailbox  ID          `json:"mailbox"`
	State    ReaderState `json:"state"`
	Protocol string      `json:"protocol,omitempty"`
	Since    time.Time   `json:"since,omitzero"` // of this state
	Finding  *Finding    `json:"finding,omitempty"`
	RetryAt  *time.Time  `json:"retry_at,omitempty"`
	LastRead *time.Time  `json:"last_read,omitempty"` // when all was read the last time
	LastMail *time.Time  `json:"last_arrival,omitempty"`
	Taken    int64       `json:"taken"` // messages, since this process began to read it
	Push     bool        `json:"push"`  // the provider tells of new mail by itself
}
