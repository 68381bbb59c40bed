package inbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
)

// A Summary is what an event says of an arrival.
type Summary struct {
	ID         mailgrant.ID        `json:"id"`
	Folder     string              `json:"folder,omitempty"`
	ReceivedAt time.Time           `json:"received_at,omitzero"`
	Size       int64               `json:"size"`
	MessageID  string              `json:"message_id,omitempty"`
	InReplyTo  []string            `json:"in_reply_to,omitempty"`
	From       []mailgrant.Address `json:"from,omitempty"`
	To         []mailgrant.Address `json:"to,omitempty"`
	Subject    string              `json:"subject,omitempty"`
	Snippet    string              `json:"snippet,omitempty"`
	Files      int                 `json:"attachments,omitempty"`
	Auto       string              `json:"auto_submitted,omitempty"`
	Bounce     *mailgrant.Bounce   `json:"bounce,omitempty"`
	Unparsed   string              `json:"unparsed,omitempty"`
	Finding    *mailgrant.Finding  `json:"finding,omitempty"`
}

// addressesTold bounds an event; the arrival has all.
const addressesTold = 20

// summary is the event that tells of an arrival.
func summary(kind string, a mailgrant.Arrival) mailgrant.Event {
	data := marshal(Summary{ID: a.ID, Folder: a.Folder, ReceivedAt: a.ReceivedAt, Size: a.Size, MessageID: a.MessageID, InReplyTo: a.InReplyTo,
		From: first(a.From), To: first(a.To), Subject: a.Subject, Snippet: a.Snippet, Files: len(a.Parts), Auto: a.Auto, Bounce: a.Bounce, Unparsed: a.Unparsed, Finding: a.Finding})
	return mailgrant.Event{Org: a.Org, Kind: kind, At: a.NoticedAt, Subject: a.ID, Mailbox: a.Mailbox, Data: data}
}

// marshal leaves < and > as they are: what reads it is no page.
func marshal(v any) json.RawMessage {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic("inbox: what is told does not marshal: " + err.Error()) // our own types always do
	}
	return bytes.TrimRight(b.Bytes(), "\n")
}

func first(l []mailgrant.Address) []mailgrant.Address { return l[:min(len(l), addressesTold)] }

// bounced ties a bounce to the submission that caused it. What a bounce claims
// counts only when our own record agrees: whose it is, its Message-ID, and that
// it went to those recipients. ME-06.
func (s *session) bounced(ctx context.Context, a *mailgrant.Arrival) []mailgrant.Event {
	claimed := a.Bounce.Submission
	a.Bounce.Submission = ""
	if !claimed.Is(mailgrant.PrefixSubmission) {
		return nil
	}
	sub, err := s.w.in.Store.Submission(ctx, s.w.org, claimed)
	if err != nil {
		if !errors.Is(err, mailgrant.NotFound) {
			s.w.in.Log.Warn("look for what bounced", "submission", claimed, "err", err)
		}
		return nil
	}
	if sub.MessageID != a.Bounce.MessageID || sub.Route.Mailbox != s.w.id && !strings.EqualFold(sub.EnvelopeFrom, s.box.Address) {
		return nil
	}
	var gone []mailgrant.BounceRecipient
	for _, r := range a.Bounce.Recipients {
		for _, to := range sub.Recipients {
			if strings.EqualFold(r.Address, to) && r.Action == "failed" {
				gone = append(gone, r)
			}
		}
	}
	a.Bounce.Submission = sub.ID
	if len(gone) == 0 {
		return nil
	}
	return []mailgrant.Event{{Org: s.w.org, Kind: "submission.bounced", At: a.NoticedAt, Subject: sub.ID, App: sub.App, Mailbox: sub.Route.Mailbox,
		Data: marshal(map[string]any{"arrival": a.ID, "recipients": gone})}}
}
