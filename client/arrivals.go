package client

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/mailgrant/mailgrant"
)

// A FullArrival is a received message with its text.
type FullArrival struct {
	mailgrant.Arrival
	Text string `json:"text,omitempty"` // decoded to UTF-8
	HTML string `json:"html,omitempty"` // as its sender wrote it: not to be trusted
	Cut  bool   `json:"cut,omitempty"`  // of the text or the HTML only the beginning is here
}

// An ArrivalFilter chooses arrivals.
type ArrivalFilter struct {
	Mailbox string // id or address
	States  []mailgrant.ArrivalState
	Since   time.Time
	Words   string // that all stand in the addresses, the subject or the Message-ID
	Oldest  bool   // first
	Cursor  string
	Limit   int
}

// Arrivals are a page of received mail, newest first unless the filter says
// otherwise.
func (c *Client) Arrivals(ctx context.Context, f ArrivalFilter) (Page[mailgrant.Arrival], error) {
	v := url.Values{}
	for k, s := range map[string]string{"mailbox": f.Mailbox, "q": f.Words, "cursor": f.Cursor} {
		if s != "" {
			v.Set(k, s)
		}
	}
	for _, s := range f.States {
		v.Add("state", string(s))
	}
	if !f.Since.IsZero() {
		v.Set("since", f.Since.UTC().Format(time.RFC3339))
	}
	if f.Oldest {
		v.Set("order", "oldest")
	}
	if f.Limit > 0 {
		v.Set("limit", strconv.Itoa(f.Limit))
	}
	return get[Page[mailgrant.Arrival]](ctx, c, "/v1/arrivals?"+v.Encode())
}

// Arrival is a received message with its text.
func (c *Client) Arrival(ctx context.Context, arrival mailgrant.ID) (FullArrival, error) {
	return get[FullArrival](ctx, c, "/v1/arrivals/"+id(arrival))
}

// ArrivalRaw gives the bytes of a received message. Close it.
func (c *Client) ArrivalRaw(ctx context.Context, arrival mailgrant.ID) (io.ReadCloser, error) {
	return c.bytes(ctx, "/v1/arrivals/"+id(arrival)+"/raw", "message/rfc822")
}

// Attachment gives the nth attachment of a received message, decoded. Close it.
func (c *Client) Attachment(ctx context.Context, arrival mailgrant.ID, n int) (io.ReadCloser, error) {
	return c.bytes(ctx, "/v1/arrivals/"+id(arrival)+"/attachments/"+strconv.Itoa(n), "application/octet-stream")
}

func (c *Client) bytes(ctx context.Context, path, kind string) (io.ReadCloser, error) {
	res, err := c.do(ctx, http.MethodGet, path, nil, func(r *http.Request) { r.Header.Set("Accept", kind) })
	if err != nil {
		return nil, err
	}
	return res.Body, nil
}

// Acknowledge says that the app is done with a received message.
func (c *Client) Acknowledge(ctx context.Context, arrival mailgrant.ID) (mailgrant.Arrival, error) {
	return put[mailgrant.Arrival](ctx, c, http.MethodPost, "/v1/arrivals/"+id(arrival)+"/acknowledge", nil)
}

// Ignore says that a received message is not wanted.
func (c *Client) Ignore(ctx context.Context, arrival mailgrant.ID) (mailgrant.Arrival, error) {
	return put[mailgrant.Arrival](ctx, c, http.MethodPost, "/v1/arrivals/"+id(arrival)+"/ignore", nil)
}

// ReadAgain has a message read once more that its provider did not give.
func (c *Client) ReadAgain(ctx context.Context, arrival mailgrant.ID) error {
	return c.call(ctx, http.MethodPost, "/v1/arrivals/"+id(arrival)+"/read-again", nil, nil)
}

// A MoveOrder says how a mailbox is to be read from now on.
type MoveOrder struct {
	To     string `json:"to,omitempty"`      // protocol: imap, graph, pop
	DryRun bool   `json:"dry_run,omitempty"` // only say what would happen
	Back   bool   `json:"back,omitempty"`    // take the last move back
}

// moveWithin is long enough for a large mailbox at a provider that is slow.
const moveWithin = 6 * time.Hour

// Move has a mailbox, by its id or address, read by another protocol. That takes
// minutes where the mailbox is large.
func (c *Client) Move(ctx context.Context, mailbox string, o MoveOrder) (mailgrant.Move, error) {
	ctx, cancel := answerWithin(ctx, moveWithin)
	defer cancel()
	return put[mailgrant.Move](ctx, c, http.MethodPost, "/v1/mailboxes/"+url.PathEscape(mailbox)+"/move", o)
}

// Reader says how the reading of a mailbox goes, by its id or address.
func (c *Client) Reader(ctx context.Context, mailbox string) (mailgrant.ReaderStatus, error) {
	return get[mailgrant.ReaderStatus](ctx, c, "/v1/mailboxes/"+url.PathEscape(mailbox)+"/reader")
}
