package microsoft

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/wire"
	"github.com/mailgrant/mailgrant/internal/rfc5322"
)

const (
	// smallFile goes within one request; larger ones need a session of their own.
	smallFile = 2 << 20

	// slice is a multiple of 320 KiB below the 4 MB that one PUT may have.
	slice = 12 * 320 << 10

	// maxOwnHeaders is how many X- fields Graph lets a draft have.
	maxOwnHeaders = 5
)

// upload makes a draft, puts the files to it, and sends it. Until the last step
// nothing has been sent, so whatever goes wrong there can be done again.
func (s *session) upload(ctx context.Context, h *provider.Handover) provider.Outcome {
	d, err := takeApart(h)
	if err != nil {
		return wire.Unfit("Graph's upload", "it cannot be taken apart ("+wire.Clean(err.Error(), 200)+")", err)
	}
	if d.head.Signed {
		return wire.CannotGo("Graph's upload", "it is signed or encrypted and would be written anew")
	}
	bcc, why := wire.AgreeHeader(h, d.head)
	if why != "" {
		return wire.CannotGo("Graph's upload", why)
	}
	id, out := s.create(ctx, d, bcc)
	if out != nil {
		return *out
	}
	if out = s.files(ctx, h, d, id); out != nil {
		s.discard(ctx, id)
		return *out
	}
	c := s.call("POST", "/messages/"+url.PathEscape(id)+"/send")
	a, err := c.Do(ctx)
	if err != nil {
		return c.Broken(err, true)
	}
	if a.Status != http.StatusAccepted {
		out := c.Refused(a)
		if out.Fate != mailgrant.FateUncertain {
			s.discard(ctx, id)
		}
		return out
	}
	return provider.Outcome{Fate: mailgrant.FateDelivered, Reply: "202 Accepted; " + d.said(), RemoteID: a.RequestID}
}

// said is what the record says of how the message was rebuilt.
func (d *draft) said() string {
	kind := "its text"
	if d.html != "" {
		kind = "its HTML"
		if d.text != "" {
			kind += " (not the plain text beside it)"
		}
	}
	s := fmt.Sprintf("rebuilt as a draft with %s and %d files", kind, len(d.files))
	if len(d.dropped) > 0 {
		s += "; left out: " + strings.Join(d.dropped, ", ")
	}
	return wire.Clean(s, wire.ReplyMax-20)
}

// create makes the draft. What comes back is its id, or an outcome.
func (s *session) create(ctx context.Context, d *draft, bcc []string) (string, *provider.Outcome) {
	c := s.call("POST", "/messages")
	c.Type = "application/json"
	c.Header["Prefer"] = []string{`IdType="ImmutableId"`}
	c.Body, c.Size = wire.JSON(d.json(bcc))
	var made struct {
		ID string `json:"id"`
	}
	if out := s.step(ctx, c, http.StatusCreated, &made); out != nil {
		return "", out
	}
	if made.ID == "" {
		out := wire.CannotGo("Graph's upload", "the draft has no id")
		out.Fate, out.Finding.Retry = mailgrant.FateLater, mailgrant.RetryLater
		return "", &out
	}
	return made.ID, nil
}

// step makes a call that must end in one status. A lost answer leaves no more
// than a draft behind.
func (s *session) step(ctx context.Context, c wire.Call, want int, into any) *provider.Outcome {
	a, err := c.Do(ctx)
	if err != nil {
		out := c.Broken(err, false)
		return &out
	}
	if a.Status != want || into != nil && json.Unmarshal(a.Body, into) != nil {
		out := c.Refused(a)
		if out.Fate == mailgrant.FateUncertain {
			out.Fate = mailgrant.FateLater
		}
		return &out
	}
	return nil
}

type recipient struct {
	EmailAddress struct {
		Name    string `json:"name,omitempty"`
		Address string `json:"address"`
	} `json:"emailAddress"`
}

func recipients(l []rfc5322.Address) []recipient {
	out := make([]recipient, len(l))
	for i, a := range l {
		out[i].EmailAddress.Name, out[i].EmailAddress.Address = a.Name, a.String()
	}
	return out
}

// json is the draft as Graph takes it.
func (d *draft) json(bcc []string) map[string]any {
	body := map[string]any{"contentType": "text", "content": d.text}
	if d.html != "" {
		body = map[string]any{"contentType": "html", "content": d.html}
	}
	var blind []rfc5322.Address
	for _, s := range bcc {
		if a, err := rfc5322.ParseAddress(s); err == nil {
			blind = append(blind, a)
		}
	}
	blind = append(blind, d.head.Bcc...)
	m := map[string]any{"subject": d.head.Subject, "body": body, "toRecipients": recipients(d.head.To), "ccRecipients": recipients(d.head.Cc), "bccRecipients": recipients(blind)}
	if len(d.head.ReplyTo) > 0 {
		m["replyTo"] = recipients(d.head.ReplyTo)
	}
	if len(d.head.From) == 1 {
		m["from"] = recipients(d.head.From)[0]
	}
	if len(d.head.Sender) == 1 {
		m["sender"] = recipients(d.head.Sender)[0]
	}
	if d.head.MessageID != "" {
		m["internetMessageId"] = d.head.MessageID
	}
	switch strings.ToLower(d.fields.Get("Importance")) {
	case "high", "low":
		m["importance"] = strings.ToLower(d.fields.Get("Importance"))
	}
	if l := d.ownHeaders(); len(l) > 0 {
		m["internetMessageHeaders"] = l
	}
	if l := d.threading(); len(l) > 0 {
		m["singleValueExtendedProperties"] = l
	}
	return m
}

// ownHeaders are the first X- fields; Graph takes no others.
func (d *draft) ownHeaders() (out []map[string]string) {
	names := make([]string, 0, len(d.fields))
	for n := range d.fields {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		switch {
		case !strings.HasPrefix(n, "X-"):
			if strings.HasPrefix(n, "List-") || n == "Auto-Submitted" || n == "Precedence" {
				d.dropped = append(d.dropped, n)
			}
		case len(out) < maxOwnHeaders:
			out = append(out, map[string]string{"name": n, "value": d.fields.Get(n)})
		default:
			d.dropped = append(d.dropped, n)
		}
	}
	return out
}

// threading keeps a conversation together, by the MAPI properties behind
// In-Reply-To and References.
func (d *draft) threading() (out []map[string]string) {
	for _, f := range [][2]string{{"In-Reply-To", "String 0x1042"}, {"References", "String 0x1039"}} {
		if v := d.fields.Get(f[0]); v != "" {
			out = append(out, map[string]string{"id": f[1], "value": v})
		}
	}
	return out
}

// files puts the files to the draft, in one more reading of the message.
func (s *session) files(ctx context.Context, h *provider.Handover, d *draft, id string) (out *provider.Outcome) {
	place, next := 0, 0
	err := walk(h, func(_ *multipart.Part, _ string, _ map[string]string, r io.Reader) error {
		place++
		if next >= len(d.files) || d.files[next].place != place {
			_, err := io.Copy(io.Discard, r)
			return err
		}
		f := d.files[next]
		next++
		if f.size <= smallFile {
			out = s.small(ctx, id, f, r)
		} else {
			out = s.large(ctx, id, f, r)
		}
		if out != nil {
			return io.EOF // enough
		}
		return nil
	}, nil)
	if err != nil && out == nil {
		o := wire.Unfit("Graph's upload", "it cannot be taken apart ("+wire.Clean(err.Error(), 200)+")", err)
		out = &o
	}
	return out
}

func (s *session) small(ctx context.Context, id string, f part, r io.Reader) *provider.Outcome {
	b, err := io.ReadAll(r)
	if err != nil {
		out := wire.Unfit("Graph's upload", "the file "+f.name+" cannot be decoded", err)
		return &out
	}
	c := s.call("POST", "/messages/"+url.PathEscape(id)+"/attachments")
	c.Type = "application/json"
	m := map[string]any{"@odata.type": "#microsoft.graph.fileAttachment", "name": f.name, "contentType": f.kind, "isInline": f.inline, "contentBytes": base64.StdEncoding.EncodeToString(b)}
	if f.cid != "" {
		m["contentId"] = f.cid
	}
	c.Body, c.Size = wire.JSON(m)
	return s.step(ctx, c, http.StatusCreated, nil)
}

// large puts a file up in slices. The address it goes to is the permission: no
// token is sent there.
func (s *session) large(ctx context.Context, id string, f part, r io.Reader) *provider.Outcome {
	c := s.call("POST", "/messages/"+url.PathEscape(id)+"/attachments/createUploadSession")
	c.Type = "application/json"
	item := map[string]any{"attachmentType": "file", "name": f.name, "size": f.size, "contentType": f.kind, "isInline": f.inline}
	if f.cid != "" {
		item["contentId"] = f.cid
	}
	c.Body, c.Size = wire.JSON(map[string]any{"AttachmentItem": item})
	var up struct {
		URL string `json:"uploadUrl"`
	}
	if out := s.step(ctx, c, http.StatusCreated, &up); out != nil {
		return out
	}
	buf := make([]byte, min(int64(slice), f.size))
	for at := int64(0); at < f.size; {
		n, err := io.ReadFull(r, buf[:min(int64(len(buf)), f.size-at)])
		if err != nil {
			out := wire.Unfit("Graph's upload", "the file "+f.name+" is shorter than it was", err)
			return &out
		}
		if out := s.put(ctx, up.URL, buf[:n], at, f.size); out != nil {
			return out
		}
		at += int64(n)
	}
	return nil
}

// put sends one slice, and once more when the way failed: the same slice twice
// is the same.
func (s *session) put(ctx context.Context, to string, b []byte, at, size int64) *provider.Outcome {
	c := wire.Call{Way: s.way, Step: "graph-upload", Method: "PUT", URL: to, Type: "application/octet-stream", Size: int64(len(b)),
		Header: http.Header{"Content-Range": {fmt.Sprintf("bytes %d-%d/%d", at, at+int64(len(b))-1, size)}},
		Body:   func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }}
	for try := 0; ; try++ {
		a, err := c.Do(ctx)
		if err == nil && (a.Status == http.StatusOK || a.Status == http.StatusCreated || a.Status == http.StatusAccepted) {
			return nil
		}
		if try == 0 && ctx.Err() == nil && (err != nil || a.Status >= 500) {
			continue
		}
		var out provider.Outcome
		if err != nil {
			out = c.Broken(err, false)
		} else {
			out = c.Refused(a)
		}
		if out.Fate == mailgrant.FateUncertain {
			out.Fate = mailgrant.FateLater
		}
		return &out
	}
}

// discard takes a draft away that will not be sent.
func (s *session) discard(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	s.call("DELETE", "/messages/"+url.PathEscape(id)).Do(ctx)
}
