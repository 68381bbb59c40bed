package mailgrant

import (
	"slices"
	"time"
)

// A WebhookState is whether an application is told.
//
//	active ──nothing is taken──▶ failing ──something is taken──▶ active
//	   └────────────410, a restore, a person────┴──▶ disabled ──a person──▶ active
type WebhookState string

const (
	WebhookActive   WebhookState = "active"
	WebhookFailing  WebhookState = "failing"  // it takes nothing now: see the finding
	WebhookDisabled WebhookState = "disabled" // switched off: by a person, its own answer 410 or a restore (see the finding)
)

// A Webhook is an address of an application that is told of events. It has a
// place in the event log; what stands before is told, waits, or is not wanted.
type Webhook struct {
	ID          ID           `json:"id"`
	Org         ID           `json:"org"`
	Name        string       `json:"name"`
	URL         string       `json:"url"`
	Kinds       []string     `json:"kinds,omitempty"`       // patterns: "submission.failed", "arrival.*"; empty = all
	Mailboxes   []ID         `json:"mailboxes,omitempty"`   // only events of these; empty = all
	App         ID           `json:"app,omitempty"`         // only events of this app, and those of no app in its mailboxes
	Full        bool         `json:"full,omitempty"`        // what an event carries rides along, not with arrivals only
	Connections int          `json:"connections,omitempty"` // at once; 0 = 4
	State       WebhookState `json:"state"`
	Finding     *Finding     `json:"finding,omitempty"` // why it is failing or disabled
	FailingAt   *time.Time   `json:"failing_since,omitempty"`
	TakenAt     *time.Time   `json:"last_success,omitempty"`
	BothUntil   *time.Time   `json:"both_secrets_until,omitempty"` // after a rotation: till then the secret before signs too
	Position    int64        `json:"position"`                     // seq of the last event it need not be told of any more
	Waiting     int64        `json:"waiting,omitempty"`            // events that were not taken, and those behind them; set when it is shown alone
	DeadLetters int64        `json:"dead_letters,omitempty"`       // events that were given up; set when it is shown alone
	CreatedAt   time.Time    `json:"created_at"`
	UpdatedAt   time.Time    `json:"updated_at"`
}

// Wants says whether the webhook is to be told of e. Mailboxes are those that its
// app names. Of itself it is told nothing: what it does not take would add to what
// it is to take.
func (w Webhook) Wants(e Event, mailboxes []ID) bool {
	if w.ID != "" && e.Subject == w.ID {
		return false
	}
	if len(w.Kinds) > 0 && !slices.ContainsFunc(w.Kinds, func(p string) bool { return KindMatches(p, e.Kind) }) {
		return false
	}
	if len(w.Mailboxes) > 0 && !slices.Contains(w.Mailboxes, e.Mailbox) {
		return false
	}
	if w.App != "" && e.App != w.App {
		return e.App == "" && e.Mailbox != "" && slices.Contains(mailboxes, e.Mailbox)
	}
	return true
}

// A DeliveryState is what became of one try to tell a webhook.
type DeliveryState string

const (
	DeliveryTaken   DeliveryState = "taken"
	DeliveryRefused DeliveryState = "refused" // it is tried again
	DeliveryDead    DeliveryState = "dead"    // given up: only a replay tries it again
)

// A Delivery is one try to tell a webhook of an event. All tries for one event
// have the same ID, which is the webhook-id that the receiver sees.
type Delivery struct {
	ID      ID            `json:"id"`
	Org     ID            `json:"org"`
	Webhook ID            `json:"webhook"`
	Event   int64         `json:"event"` // its seq; 0 for a test
	Kind    string        `json:"kind"`
	Mailbox ID            `json:"mailbox,omitempty"`
	N       int           `json:"n"` // from 1; 0 when it was given up untried
	At      time.Time     `json:"at"`
	Took    time.Duration `json:"took"` // ns
	State   DeliveryState `json:"state"`
	Status  int           `json:"status,omitempty"` // of HTTP; 0 when there was no answer
	Answer  string        `json:"answer,omitempty"` // its beginning, without control characters
	Error   string        `json:"error,omitempty"`  // why it was not taken
	RetryAt *time.Time    `json:"retry_at,omitempty"`
}
