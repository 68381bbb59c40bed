package provider

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"time"

	"github.com/mailgrant/mailgrant"
)

// A Cursor says how far a mailbox has been read. Only the reader that made it
// understands it; "" is the beginning.
type Cursor string

// Reading is what is to be read of a mailbox, and what is known of it already.
type Reading struct {
	Folders []string  // as people name them; empty = the inbox
	Since   time.Time // mail that the provider received before is left alone; zero = all
	Poll    time.Duration
	Max     int64 // bytes of one message; a larger one is taken without its body

	// Known says which of these remote ids have been taken before. A reader asks
	// where its cursor cannot tell.
	Known func(ctx context.Context, remotes []string) (map[string]bool, error)

	// Gone tells that these are no more at the provider: their names may come again
	// for other messages. nil where nobody cares.
	Gone func(ctx context.Context, remotes []string) error

	// Push is where the provider may send notices of new mail, "" when it cannot
	// reach us, and what they must carry.
	Push, PushSecret string
}

// An Incoming is one message, as it comes from the provider.
type Incoming struct {
	Remote     string    // unique in the mailbox, and never used for another message
	Folder     string    //
	ReceivedAt time.Time // by the provider; zero when it does not say; before Since: to be known from now on, and no more
	Size       int64     // as the provider says
	Body       io.Reader // its bytes, until take returns; nil when Err is set, or it is too large or too old
	Err        error     // the provider does not give it
}

// ErrTooLarge is what a Body ends with when there is more of it than Reading.Max,
// where the provider did not say so before, or lied.
var ErrTooLarge = errors.New("the message is larger than is taken")

// An Inbox is an open mailbox. One goroutine uses it.
type Inbox interface {
	// Next takes a page of what came after the cursor, oldest first, and says where
	// that page ends and whether more is there. When it fails, the cursor stands
	// behind the last message that was taken. An error of take ends the page and
	// comes back as it is; that message counts as not taken. Only what failed with
	// ErrTooLarge is offered once more, without its body.
	Next(ctx context.Context, from Cursor, take func(Incoming) error) (to Cursor, more bool, err error)

	// Wait returns nil when something may have come, at the latest after the time
	// to poll.
	Wait(ctx context.Context) error

	// Pushes says whether the provider tells of new mail by itself.
	Pushes() bool

	// Done does with messages what is to be done after reading. What is no more
	// there is no error.
	Done(ctx context.Context, remotes []string, what mailgrant.AfterRead, moveTo string) error

	Close() error
}

// A Folder is one of a mailbox.
type Folder struct {
	Name string `json:"name"`          // as people see it, "/" between its levels
	Use  string `json:"use,omitempty"` // "inbox", "sent", "drafts", "trash", "junk", "archive", "all"
}

// Seen is what a server shows before anybody logs in.
type Seen struct {
	TLS  tls.ConnectionState
	Auth []string // mechanisms it offers
}

// A Reader is one way to read a mailbox.
type Reader struct {
	Name string // "imap", "pop", "graph"

	// Open connects, proves who we are and opens the mailbox. An error is an
	// *mailgrant.Error with a Finding.
	Open func(ctx context.Context, w Way, r Reading) (Inbox, error)

	// Folders are those of the mailbox. nil where it has only the inbox.
	Folders func(ctx context.Context, w Way) ([]Folder, error)

	// Look connects as far as the secured greeting, Login as far as the login, and
	// both leave again. For a check. nil where the way is an HTTP API.
	Look  func(ctx context.Context, w Way) (Seen, error)
	Login func(ctx context.Context, w Way) error
}
