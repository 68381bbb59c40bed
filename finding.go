package mailgrant

import "time"

// A Finding is the answer of diagnosis to one failure: what it is, in plain
// words, what to do about it, who can do that, and what becomes of the work.
type Finding struct {
	Cause      string        `json:"cause"`                 // id in the catalogue: "smtp-auth-disabled-mailbox"; "unknown" when unknown
	Title      string        `json:"title"`                 // a few words
	Sentence   string        `json:"sentence"`              // one plain sentence, with what is known of this case
	Remedy     string        `json:"remedy"`                // what to do, in one or two sentences
	Steps      []Step        `json:"steps,omitempty"`       // the remedy step by step
	Who        Who           `json:"who"`                   // who can do it
	Retry      Retry         `json:"retry"`                 // what to do with the work
	RetryAfter time.Duration `json:"retry_after,omitempty"` // what the other side asked for, in ns; 0 when it did not say
	Confidence float64       `json:"confidence"`            // 0 to 1
	Link       string        `json:"link,omitempty"`        // page of this cause below the documents: "errors/smtp-auth-disabled-mailbox"
	Raw        string        `json:"raw,omitempty"`         // what the other side said, cut and without secrets
}

// A Step is one line of a remedy.
type Step struct {
	Place   string `json:"place,omitempty"`   // "Exchange admin centre > Recipients > Mailboxes"
	Text    string `json:"text"`              // what to do there
	Command string `json:"command,omitempty"` // a line to copy
}

// Who can mend a failure.
type Who string

const (
	WhoOperator     Who = "operator"
	WhoTenantAdmin  Who = "tenant-admin"
	WhoMailboxOwner Who = "mailbox-owner"
	WhoProvider     Who = "provider"
	WhoNobody       Who = "nobody-wait"
)

// Retry says what to do with the work after a failure.
type Retry string

const (
	RetryNow         Retry = "retry-now"                 // after refresh or reconnect
	RetryLater       Retry = "retry-later"               // keep the message, pause
	RetryReauthorize Retry = "reauthorize"               // stop, a person must sign in
	RetryFix         Retry = "fix-configuration"         // stop until something is changed
	RetryNever       Retry = "permanent-message-failure" // give this message up; the mailbox is fine
	RetryNone        Retry = "none"                      // nothing is wrong
)

// NeedsPerson says whether only a person can end the failure.
func (f Finding) NeedsPerson() bool { return f.Retry == RetryReauthorize || f.Retry == RetryFix }
