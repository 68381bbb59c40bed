package provider

import (
	"context"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/mailgrant/mailgrant"
)

// A Way is all that a transport needs to know to reach one mailbox. A lane makes
// it once and uses it for many messages.
type Way struct {
	Mailbox  mailgrant.Mailbox
	Grant    mailgrant.Grant
	Settings Settings // template, cloud and overrides, resolved
	CAFile   string   // trusted besides the system's roots; "" none
	HTTP     *http.Client
	Dial     func(ctx context.Context, network, addr string) (net.Conn, error)

	// Token gives an access token for the resource that is good for at least
	// another minute. With fresh it does not come from the cache: the last one
	// was refused.
	Token func(ctx context.Context, resource string, fresh bool) (mailgrant.Token, error)
}

// A Handover is one message to be handed over.
type Handover struct {
	From       string // envelope sender, "" for a bounce
	Recipients []string
	MessageID  string
	Size       int64 // bytes that Open will give
	EightBit   bool  // the body has octets over 127
	UTF8       bool  // an address or the header needs SMTPUTF8

	// Open gives the bytes as they must leave, lines ending in CRLF. It can be
	// called more than once.
	Open func() (io.ReadCloser, error)

	// HeaderRecipients are the addresses in To and Cc. A transport that takes the
	// recipients from the header needs them to agree with the envelope.
	HeaderRecipients []string
}

// An Outcome is what became of a handover.
type Outcome struct {
	Fate       mailgrant.Fate
	Reply      string // the last answer of the other side, cut to 500 bytes
	RemoteID   string // its id for the message or request
	Finding    *mailgrant.Finding
	RetryAfter time.Duration               // what it asked for; 0 when it did not
	Recipients []mailgrant.RecipientResult // only when they differ
	Broken     bool                        // the session is of no more use
}

// A Session hands messages over, one at a time. It may keep a connection.
type Session interface {
	Send(ctx context.Context, h *Handover) Outcome
	Close() error
}

// A Transport is one way out.
type Transport struct {
	Name string // "smtp", "graph", "gmail"

	// Open starts a session. An error is an *mailgrant.Error with a Finding.
	Open func(ctx context.Context, w Way) (Session, error)

	// Find looks for a message that may have been sent, by its Message-ID. nil
	// where the transport cannot.
	Find func(ctx context.Context, w Way, messageID string, since time.Time) (bool, error)
}
