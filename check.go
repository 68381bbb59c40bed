package mailgrant

import "time"

// The states of a step of a check.
const (
	StepPassed  = "passed"
	StepFailed  = "failed"
	StepSkipped = "skipped"
)

// The steps of a check, in the order in which each direction has them.
const (
	StepSettings     = "settings"
	StepDNS          = "DNS"
	StepTCP          = "TCP"
	StepTLS          = "TLS"
	StepToken        = "token"
	StepScopes       = "audience and scopes"
	StepIdentity     = "identity"
	StepAuthenticate = "authenticate"
	StepOpen         = "open the mailbox"
	StepFolders      = "folders"
	StepReader       = "reader"

	StepSend        = "send to itself"
	StepArrive      = "mail table"
	StepFrom        = "From"
	StepSent        = "Sent folder"
	StepAuthResults = "Authentication-Results"
	StepJunk        = "junk folder"
)

// The directions of a check: out, in, and both, where a message to itself comes
// back.
const (
	CheckSend      = "send"
	CheckReceive   = "receive"
	CheckRoundTrip = "round trip"
)

// A CheckStep is one thing that a check of a mailbox tried.
type CheckStep struct {
	Name      string        `json:"name"`      // "settings", "DNS", "token", …
	Direction string        `json:"direction"` // "send", "receive", "round trip"
	State     string        `json:"state"`     // passed, failed, skipped
	Text      string        `json:"text"`      // what was seen, or why it was skipped
	Finding   *Finding      `json:"finding,omitempty"`
	Took      time.Duration `json:"took"` // ns
}

// A CheckReport is a connection test of a mailbox: an ordered list of steps.
type CheckReport struct {
	Mailbox     ID          `json:"mailbox"`
	Address     string      `json:"address"`
	Transport   string      `json:"transport,omitempty"`    // that its mail leaves by
	Why         string      `json:"why,omitempty"`          // why this transport
	Protocol    string      `json:"protocol,omitempty"`     // that it is read by
	WhyProtocol string      `json:"why_protocol,omitempty"` // why this protocol
	OK          bool        `json:"ok"`                     // no step failed
	Steps       []CheckStep `json:"steps"`
}
