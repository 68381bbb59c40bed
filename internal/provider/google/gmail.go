// Package google sends by the Gmail API.
//
// The API takes the message as it is and its recipients from the header; a Bcc
// line is taken out there. What the envelope and the header cannot be made to
// agree on goes by SMTP.
package google

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/wire"
)

// Name is the transport's name in records.
const Name = "gmail"

// MessageMax is the largest message that the API takes.
const MessageMax = 35 << 20

// Gmail is the transport.
func Gmail() provider.Transport { return provider.Transport{Name: Name, Open: open, Find: find} }

type session struct{ way provider.Way }

func open(_ context.Context, w provider.Way) (provider.Session, error) {
	if w.Settings.GmailURL == "" || w.HTTP == nil {
		return nil, mailgrant.Errorf(mailgrant.Misset, nil, "the provider of %s has no Gmail address set", w.Mailbox.Address).
			Fix("set gmail_url on its registration, or let the mailbox send by SMTP")
	}
	return &session{w}, nil
}

func (s *session) Close() error { return nil }

func root(w provider.Way) string {
	r := strings.TrimSuffix(w.Settings.GmailURL, "/")
	return strings.TrimSuffix(r, "/gmail/v1")
}

func (s *session) Send(ctx context.Context, h *provider.Handover) provider.Outcome {
	head, err := wire.ReadHeader(h)
	if err != nil {
		return wire.Unfit("the Gmail API", "its header cannot be read", err)
	}
	bcc, why := wire.AgreeHeader(h, head)
	if why != "" {
		return wire.CannotGo("the Gmail API", why)
	}
	line := wire.BccLine(bcc)
	if h.Size+int64(len(line)) > MessageMax {
		out := wire.CannotGo("the Gmail API", "it is larger than 35 MB")
		out.Finding.Cause, out.Finding.Link = "message-too-large", "errors/message-too-large"
		return out
	}
	c := wire.Call{Way: s.way, Resource: s.way.Settings.Resources[mailgrant.CanAPISend], Step: "api-send", Method: "POST",
		URL: root(s.way) + "/upload/gmail/v1/users/me/messages/send?uploadType=media", Type: "message/rfc822", Size: h.Size + int64(len(line))}
	c.Body = func() (io.ReadCloser, error) {
		r, err := wire.Read(h)
		if err != nil {
			return nil, err
		}
		return struct {
			io.Reader
			io.Closer
		}{io.MultiReader(strings.NewReader(line), io.LimitReader(r, h.Size)), r}, nil
	}
	a, err := c.Do(ctx)
	if err != nil {
		return c.Broken(err, true)
	}
	if a.Status != http.StatusOK {
		return c.Refused(a)
	}
	var sent struct {
		ID string `json:"id"`
	}
	if json.Unmarshal(a.Body, &sent) != nil || sent.ID == "" {
		out := c.Refused(a)
		out.Fate = mailgrant.FateUncertain
		return out
	}
	return provider.Outcome{Fate: mailgrant.FateDelivered, Reply: "200 OK", RemoteID: wire.Clean(sent.ID, 100)}
}

// find looks for a Message-ID among what was sent.
func find(ctx context.Context, w provider.Way, messageID string, since time.Time) (bool, error) {
	if w.Settings.GmailURL == "" || w.HTTP == nil || !mayRead(w) {
		return false, mailgrant.Errorf(mailgrant.Misset, nil, "the grant of %s does not let us look at what was sent", w.Mailbox.Address).
			Fix("grant it the reading of mail by the Gmail API as well")
	}
	resource := w.Settings.Resources[mailgrant.CanAPIRead]
	if resource == "" {
		resource = w.Settings.Resources[mailgrant.CanAPISend]
	}
	q := url.Values{"q": {"in:sent rfc822msgid:" + strings.Trim(messageID, "<>") + " after:" + since.Add(-24*time.Hour).UTC().Format("2006/01/02")}, "maxResults": {"1"}}
	c := wire.Call{Way: w, Resource: resource, Step: "api-find", Method: "GET", URL: root(w) + "/gmail/v1/users/me/messages?" + q.Encode()}
	a, err := c.Do(ctx)
	if err != nil {
		return false, err
	}
	var page struct {
		Messages []struct {
			ID string `json:"id"`
		} `json:"messages"`
	}
	if a.Status != http.StatusOK || json.Unmarshal(a.Body, &page) != nil {
		return false, wire.Error(c.Explain(a), nil, "what %s has sent could not be looked at", w.Mailbox.Address)
	}
	return len(page.Messages) > 0, nil
}

func mayRead(w provider.Way) bool {
	for _, s := range w.Grant.ScopesGranted {
		switch strings.TrimPrefix(s, "https://www.googleapis.com/auth/") {
		case "gmail.readonly", "gmail.modify", "https://mail.google.com/":
			return true
		}
	}
	return false
}
