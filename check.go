package mailgrant

import "time"

// The states of a step of a check.
const (
	StepPassed  = "passed"
	StepFailed  = "failed"
	StepSkipped = "skipped"
)

// A CheckStep is one thing that a check of a mailbox tried.
type CheckStep struct {
	Name    string        `json:"name"`  // "settings", "DNS", "token", …
	State   string        `json:"state"` // passed, failed, skipped
	Text    string        `json:"text"`  // what was seen, or why it was skipped
	Finding *Finding      `json:"finding,omitempty"`
	Took    time.Duration `json:"took"` // ns
}

// A CheckReport is a connection test of a mailbox: an ordered list of steps.
type CheckReport struct {
	Mailbox   ID          `json:"mailbox"`
	Address   string      `json:"address"`
	Transport string      `json:"transport,omitempty"`
	Why       string      `json:"why,omitempty"` // why this transport
	OK        bool        `json:"ok"`            // no step failed
	Steps     []CheckStep `json:"steps"`
}
