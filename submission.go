package mailgrant

import "time"

// A Class says what a message is for, and so which mailbox may carry it.
type Class string

const (
	ClassUser   Class = "user"   // people's mail
	ClassSystem Class = "system" // the product's own: resets, alarms
)

// A SubmissionState is where a submission stands. Held and deferred are not
// states of their own: the first follows from its mailbox, the second from its
// attempts.
//
//	ready ──begin──▶ sending ──┬─▶ delivered
//	  ▲                │  │    ├─▶ failed
//	  └─────later──────┘  │    └─▶ (ready, some recipients left)
//	  ready ◀─looked up── uncertain        ready ──cancel──▶ cancelled
type SubmissionState string

const (
	SubmissionReady     SubmissionState = "ready"
	SubmissionSending   SubmissionState = "sending"
	SubmissionUncertain SubmissionState = "uncertain" // bytes sent, answer lost
	SubmissionDelivered SubmissionState = "delivered"
	SubmissionFailed    SubmissionState = "failed"
	SubmissionCancelled SubmissionState = "cancelled"
)

// Final says whether nothing more will happen to it.
func (s SubmissionState) Final() bool {
	return s == SubmissionDelivered || s == SubmissionFailed || s == SubmissionCancelled
}

// A Submission is an envelope and message we accepted.
type Submission struct {
	ID             ID              `json:"id"`
	Org            ID              `json:"org"`
	App            ID              `json:"app,omitempty"`
	Door           string          `json:"door"` // "smtp", "rest", "inside"
	Class          Class           `json:"class"`
	OnBehalfOf     string          `json:"on_behalf_of,omitempty"` // the person it is sent for
	Route          Route           `json:"route"`
	EnvelopeFrom   string          `json:"envelope_from"`
	Recipients     []string        `json:"recipients"`
	Pending        []string        `json:"pending,omitempty"` // recipients left when only some took it; empty = all
	From           string          `json:"from"`              // address in the From field
	Subject        string          `json:"subject,omitempty"`
	MessageID      string          `json:"message_id"`
	Size           int64           `json:"size"` // bytes
	EightBit       bool            `json:"eight_bit,omitempty"`
	UTF8           bool            `json:"utf8,omitempty"` // needs SMTPUTF8
	State          SubmissionState `json:"state"`
	Duplicate      bool            `json:"possible_duplicate,omitempty"`
	Attempts       int             `json:"attempts"`
	AcceptedAt     time.Time       `json:"accepted_at"`
	DueAt          time.Time       `json:"due_at,omitzero"` // of the next attempt
	ExpiresAt      time.Time       `json:"expires_at"`
	FinalAt        *time.Time      `json:"final_at,omitempty"`
	Finding        *Finding        `json:"finding,omitempty"` // of the last attempt that did not deliver
	IdempotencyKey string          `json:"idempotency_key,omitempty"`
	Trace          ID              `json:"trace,omitempty"`
	Held           bool            `json:"held,omitempty"` // its mailbox is held; set when read
}

// A Fate is what an attempt means for its submission.
type Fate string

const (
	FateDelivered Fate = "delivered"
	FateRefused   Fate = "refused"   // this message fails now
	FateLater     Fate = "later"     // try again
	FateHeld      Fate = "held"      // the mailbox cannot; not counted against the message
	FateUncertain Fate = "uncertain" // the bytes went, the answer was lost
)

// An Attempt is one try to hand a submission over.
type Attempt struct {
	Submission ID                `json:"submission"`
	Org        ID                `json:"org"`
	N          int               `json:"n"` // from 1
	Mailbox    ID                `json:"mailbox"`
	Transport  string            `json:"transport"`           // "smtp", "graph", "graph-upload", "gmail"
	Why        string            `json:"why,omitempty"`       // why this transport
	StartedAt  time.Time         `json:"started_at"`          //
	EndedAt    time.Time         `json:"ended_at"`            //
	Fate       Fate              `json:"fate"`                //
	Reply      string            `json:"reply,omitempty"`     // the last answer, cut
	RemoteID   string            `json:"remote_id,omitempty"` // request id or queue id of the other side
	Finding    *Finding          `json:"finding,omitempty"`
	Recipients []RecipientResult `json:"recipients,omitempty"` // only when they differ
	Node       ID                `json:"node,omitempty"`
}

// A RecipientResult is one recipient's part of an attempt.
type RecipientResult struct {
	Address string   `json:"address"`
	Fate    Fate     `json:"fate"`
	Reply   string   `json:"reply,omitempty"`
	Finding *Finding `json:"finding,omitempty"`
}
