// Package microsoft sends and reads by Microsoft Graph.
//
// Two ways to send, each a transport of its own because the record names them apart:
//
//	graph          the message as it is, in base64: POST …/sendMail, up to about 3 MB
//	graph-upload   a draft rebuilt from its parts, files in slices, then sent: up to 150 MB
//
// Graph takes the recipients from the header. So an envelope that has more than
// the header gets a Bcc line for the rest, and one that has less cannot go this
// way. Graph also writes the message anew: what is signed belongs to SMTP.
//
// It reads by delta links: see read.go for how, and notices.go for how Graph tells
// of new mail by itself.
package microsoft

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/wire"
)

// The names of the transports in records.
const (
	Name       = "graph"
	UploadName = "graph-upload"
)

// MIMEMax is the size of a message that still fits: a request of Graph has at
// most 4 MB, and base64 makes four octets of three.
const MIMEMax = 3_000_000

// Graph is the transport for messages as they are.
func Graph() provider.Transport {
	return provider.Transport{Name: Name, Open: open(func(s *session) send { return s.mime }), Find: find}
}

// Upload is the transport for large ones.
func Upload() provider.Transport {
	return provider.Transport{Name: UploadName, Open: open(func(s *session) send { return s.upload }), Find: find}
}

type send func(context.Context, *provider.Handover) provider.Outcome

func open(how func(*session) send) func(context.Context, provider.Way) (provider.Session, error) {
	return func(_ context.Context, w provider.Way) (provider.Session, error) {
		if w.Settings.GraphURL == "" || w.HTTP == nil {
			return nil, mailgrant.Errorf(mailgrant.Misset, nil, "the provider of %s has no Graph address set", w.Mailbox.Address).
				Fix("set graph_url on its registration, or let the mailbox send by SMTP")
		}
		s := &session{way: w, base: base(w), resource: w.Settings.Resources[mailgrant.CanAPISend]}
		s.send = how(s)
		return s, nil
	}
}

// A session has nothing open: connections are the HTTP client's.
type session struct {
	way      provider.Way
	base     string // "https://graph.microsoft.com/v1.0/me"
	resource string
	send     send
}

func (s *session) Send(ctx context.Context, h *provider.Handover) provider.Outcome {
	return s.send(ctx, h)
}
func (s *session) Close() error { return nil }

// base is the address of the mailbox. The app itself has no "me".
func base(w provider.Way) string {
	if w.Grant.Flow == mailgrant.FlowApp || w.Mailbox.Kind != mailgrant.MailboxOwn {
		return root(w) + "/users/" + url.PathEscape(w.Mailbox.Address)
	}
	return root(w) + "/me"
}

// root is the address of Graph, with its version.
func root(w provider.Way) string {
	r := strings.TrimSuffix(w.Settings.GraphURL, "/")
	if !strings.HasSuffix(r, "/v1.0") && !strings.HasSuffix(r, "/beta") {
		r += "/v1.0"
	}
	return r
}

func (s *session) call(method, path string) wire.Call {
	return wire.Call{Way: s.way, Resource: s.resource, Step: "graph-send", Method: method, URL: s.base + path, Header: http.Header{}}
}

// mime sends the bytes of the message.
func (s *session) mime(ctx context.Context, h *provider.Handover) provider.Outcome {
	head, err := wire.ReadHeader(h)
	if err != nil {
		return wire.Unfit("Graph", "its header cannot be read", err)
	}
	bcc, why := wire.AgreeHeader(h, head)
	if why != "" {
		return wire.CannotGo("Graph", why)
	}
	line := wire.BccLine(bcc)
	raw := h.Size + int64(len(line))
	if raw > MIMEMax {
		return tooLarge(raw)
	}
	c := s.call("POST", "/sendMail")
	c.Type, c.Size = "text/plain", int64(base64.StdEncoding.EncodedLen(int(raw)))
	c.Body = func() (io.ReadCloser, error) {
		r, err := wire.Read(h)
		if err != nil {
			return nil, err
		}
		return &encoder{r: io.MultiReader(strings.NewReader(line), io.LimitReader(r, h.Size)), c: r}, nil
	}
	a, err := c.Do(ctx)
	switch {
	case err != nil:
		return c.Broken(err, true)
	case a.Status == http.StatusAccepted:
		return provider.Outcome{Fate: mailgrant.FateDelivered, Reply: "202 Accepted", RemoteID: a.RequestID}
	case a.Status/100 == 2: // seen with large messages: it says nothing of what became of it
		out := c.Refused(a)
		out.Fate = mailgrant.FateUncertain
		return out
	}
	return c.Refused(a)
}

func tooLarge(n int64) provider.Outcome {
	out := wire.CannotGo("Graph in one piece", "it is too large for it")
	out.Finding.Cause, out.Finding.Title, out.Finding.Link = "message-too-large", "Message too large", "errors/message-too-large"
	out.Finding.Remedy = "Grant the mailbox SMTP, or Mail.ReadWrite for the upload of large messages, and leave its transport on auto."
	return out
}

// An encoder reads base64 of what it reads, with little memory.
type encoder struct {
	r    io.Reader
	c    io.Closer
	in   [3 * 4096]byte
	out  [4 * 4096]byte
	left []byte
	err  error
}

func (e *encoder) Read(p []byte) (int, error) {
	if len(e.left) == 0 {
		if e.err != nil {
			return 0, e.err
		}
		n, err := io.ReadFull(e.r, e.in[:])
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = io.EOF
		}
		e.err = err
		base64.StdEncoding.Encode(e.out[:], e.in[:n])
		e.left = e.out[:base64.StdEncoding.EncodedLen(n)]
		if n == 0 {
			return 0, e.err
		}
	}
	n := copy(p, e.left)
	e.left = e.left[n:]
	return n, nil
}

func (e *encoder) Close() error { return e.c.Close() }

// find looks in Sent Items for a Message-ID.
func find(ctx context.Context, w provider.Way, messageID string, since time.Time) (bool, error) {
	if w.Settings.GraphURL == "" || w.HTTP == nil || !mayRead(w) {
		return false, mailgrant.Errorf(mailgrant.Misset, nil, "the grant of %s does not let us look in Sent Items", w.Mailbox.Address).
			Fix("grant it the reading of mail by Graph as well")
	}
	resource := w.Settings.Resources[mailgrant.CanAPIRead]
	if resource == "" {
		resource = w.Settings.Resources[mailgrant.CanAPISend]
	}
	q := url.Values{"$filter": {"internetMessageId eq '" + strings.ReplaceAll(messageID, "'", "''") + "'"}, "$select": {"id,sentDateTime"}, "$top": {"5"}}
	c := wire.Call{Way: w, Resource: resource, Step: "graph-find", Method: "GET", URL: base(w) + "/mailFolders/sentitems/messages?" + strings.ReplaceAll(q.Encode(), "+", "%20")}
	a, err := c.Do(ctx)
	if err != nil {
		return false, err
	}
	var page struct {
		Value []struct {
			Sent time.Time `json:"sentDateTime"`
		} `json:"value"`
	}
	if a.Status != http.StatusOK || json.Unmarshal(a.Body, &page) != nil {
		return false, wire.Error(c.Explain(a), nil, "Sent Items of %s could not be looked into", w.Mailbox.Address)
	}
	for _, m := range page.Value { // an application may use an id again: only what is new counts
		if m.Sent.IsZero() || m.Sent.After(since.Add(-clockSkew)) {
			return true, nil
		}
	}
	return false, nil
}

// clockSkew is how far the provider's clock may be behind ours.
const clockSkew = 10 * time.Minute

func mayRead(w provider.Way) bool {
	for _, c := range w.Grant.Capabilities {
		if c == mailgrant.CanAPIRead {
			return true
		}
	}
	for _, s := range w.Grant.ScopesGranted {
		if strings.Contains(strings.ToLower(s), "mail.read") {
			return true
		}
	}
	return false
}

// MayUpload says whether the grant lets us keep drafts, which an upload needs.
func MayUpload(w provider.Way) bool {
	for _, s := range w.Grant.ScopesGranted {
		if strings.Contains(strings.ToLower(s), "mail.readwrite") {
			return true
		}
	}
	for _, c := range w.Grant.Capabilities {
		if c == mailgrant.CanAPIRead && w.Grant.Flow == mailgrant.FlowApp {
			return true
		}
	}
	return false
}
