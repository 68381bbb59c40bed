package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
)

// Send hands over a message in fields.
func (c *Client) Send(ctx context.Context, m Message, opts ...Option) (sub mailgrant.Submission, err error) {
	return sub, c.call(ctx, http.MethodPost, "/v1/submissions", m, &sub, opts...)
}

// SendBytes hands over a message as its bytes, header and body. They are read
// while they are sent.
func (c *Client) SendBytes(ctx context.Context, e Envelope, message io.Reader, opts ...Option) (sub mailgrant.Submission, err error) {
	v := url.Values{}
	for k, s := range map[string]string{"from": e.From, "class": string(e.Class), "on_behalf_of": e.OnBehalfOf, "mailbox": e.Mailbox} {
		if s != "" {
			v.Set(k, s)
		}
	}
	for _, r := range e.Recipients {
		v.Add("to", r)
	}
	if !e.SendAt.IsZero() {
		v.Set("send_at", e.SendAt.UTC().Format(time.RFC3339))
	}
	path := "/v1/submissions"
	if len(v) > 0 {
		path += "?" + v.Encode()
	}
	opts = append(opts, func(r *http.Request) { r.Header.Set("Content-Type", "message/rfc822") })
	res, err := c.do(ctx, http.MethodPost, path, message, opts...)
	if err != nil {
		return sub, err
	}
	defer res.Body.Close()
	return sub, read(res, &sub)
}

// Submission is one of the organization's, or of the app's own.
func (c *Client) Submission(ctx context.Context, sub mailgrant.ID) (mailgrant.Submission, error) {
	return get[mailgrant.Submission](ctx, c, "/v1/submissions/"+id(sub))
}

// Submissions are a page of them, newest first.
func (c *Client) Submissions(ctx context.Context, f SubmissionFilter) (Page[mailgrant.Submission], error) {
	v := url.Values{}
	set := func(k, s string) {
		if s != "" {
			v.Set(k, s)
		}
	}
	set("app", string(f.App))
	set("mailbox", f.Mailbox)
	set("cursor", f.Cursor)
	for _, s := range f.States {
		v.Add("state", string(s))
	}
	if !f.Since.IsZero() {
		v.Set("since", f.Since.UTC().Format(time.RFC3339))
	}
	if f.Limit > 0 {
		v.Set("limit", strconv.Itoa(f.Limit))
	}
	return get[Page[mailgrant.Submission]](ctx, c, "/v1/submissions?"+v.Encode())
}

// Attempts are the tries to hand a submission over, oldest first.
func (c *Client) Attempts(ctx context.Context, sub mailgrant.ID) ([]mailgrant.Attempt, error) {
	return all[mailgrant.Attempt](ctx, c, "/v1/submissions/"+id(sub)+"/attempts")
}

// Raw gives the bytes of a submission as they leave. Close it.
func (c *Client) Raw(ctx context.Context, sub mailgrant.ID) (io.ReadCloser, error) {
	return c.bytes(ctx, "/v1/submissions/"+id(sub)+"/raw", "message/rfc822")
}

// Cancel ends a submission that is not being sent.
func (c *Client) Cancel(ctx context.Context, sub mailgrant.ID) (mailgrant.Submission, error) {
	return put[mailgrant.Submission](ctx, c, http.MethodPost, "/v1/submissions/"+id(sub)+"/cancel", nil)
}

// Retry makes a submission due now.
func (c *Client) Retry(ctx context.Context, sub mailgrant.ID) (mailgrant.Submission, error) {
	return put[mailgrant.Submission](ctx, c, http.MethodPost, "/v1/submissions/"+id(sub)+"/retry", nil)
}

// Queue says what waits, by mailbox.
func (c *Client) Queue(ctx context.Context) ([]Waiting, error) {
	return all[Waiting](ctx, c, "/v1/queue")
}

func (f EventFilter) values() url.Values {
	v := url.Values{}
	for k, s := range map[string]mailgrant.ID{"subject": f.Subject, "app": f.App, "mailbox": f.Mailbox} {
		if s != "" {
			v.Set(k, string(s))
		}
	}
	for _, k := range f.Kinds {
		v.Add("kind", k)
	}
	if f.After > 0 {
		v.Set("after", strconv.FormatInt(f.After, 10))
	}
	if f.Limit > 0 {
		v.Set("limit", strconv.Itoa(f.Limit))
	}
	return v
}

// Events are the next events after the filter's cursor, oldest first.
func (c *Client) Events(ctx context.Context, f EventFilter) (Page[mailgrant.Event], error) {
	return get[Page[mailgrant.Event]](ctx, c, "/v1/events?"+f.values().Encode())
}

// Watch calls f for every event after the filter's cursor, and goes on with new
// ones until ctx ends, f fails or the connection does. A negative After begins
// with the next event.
func (c *Client) Watch(ctx context.Context, filter EventFilter, f func(mailgrant.Event) error) error {
	v := filter.values()
	if filter.After < 0 {
		v.Set("after", "now")
	}
	res, err := c.do(ctx, http.MethodGet, "/v1/events?"+v.Encode(), nil, func(r *http.Request) { r.Header.Set("Accept", "text/event-stream") })
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var data bytes.Buffer
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(make([]byte, 64<<10), 4<<20)
	for lines.Scan() {
		line := lines.Text()
		if s, ok := strings.CutPrefix(line, "data:"); ok {
			data.WriteString(strings.TrimPrefix(s, " "))
			continue
		}
		if line != "" || data.Len() == 0 {
			continue
		}
		var e mailgrant.Event
		err := json.Unmarshal(data.Bytes(), &e)
		data.Reset()
		if err == nil {
			err = f(e)
		}
		if err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := lines.Err(); err != nil {
		return unreachable(c.base, err)
	}
	return mailgrant.Errorf(mailgrant.Unavailable, io.EOF, "the stream of events ended").Fix("go on after the last event you saw")
}

// Check tests a mailbox, by id or address; step hears of every step as it ends.
// With noSend no message is sent.
func (c *Client) Check(ctx context.Context, mailbox string, noSend bool, step func(mailgrant.CheckStep)) (mailgrant.CheckReport, error) {
	path := "/v1/mailboxes/" + url.PathEscape(mailbox) + "/check"
	if noSend {
		path += "?send=false"
	}
	var report mailgrant.CheckReport
	res, err := c.do(ctx, http.MethodPost, path, nil, func(r *http.Request) { r.Header.Set("Accept", "application/x-ndjson") })
	if err != nil {
		return report, err
	}
	defer res.Body.Close()
	for d := json.NewDecoder(res.Body); ; {
		var line struct {
			Step   *mailgrant.CheckStep   `json:"step"`
			Report *mailgrant.CheckReport `json:"report"`
		}
		if err := d.Decode(&line); err != nil {
			return report, mailgrant.Errorf(mailgrant.Unavailable, err, "the check was broken off").Fix("try again")
		}
		if line.Step != nil && step != nil {
			step(*line.Step)
		}
		if line.Report != nil {
			return *line.Report, nil
		}
	}
}
