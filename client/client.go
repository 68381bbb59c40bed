package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
)

// A Client speaks to one mailgrant. It is safe for concurrent use. Its fields
// may be set before the first call.
type Client struct {
	// HTTP makes the requests. New sets one that gives up after a minute, except
	// where an answer is a stream.
	HTTP *http.Client

	// Organization names the organization an operator means. A key has its own.
	Organization mailgrant.ID

	// UserAgent names the program.
	UserAgent string

	base string
	key  mailgrant.Secret
}

// New makes a Client for the mailgrant at base, such as
// https://mailgrant.example.com, with a key of an app.
func New(base, key string) *Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = 64
	return &Client{HTTP: &http.Client{Transport: t}, base: strings.TrimSuffix(base, "/"), key: mailgrant.NewSecret(key), UserAgent: "mailgrant-go"}
}

// Local makes a Client for the mailgrant whose socket is at path: an operator's,
// who needs no key.
func Local(path string) *Client {
	t := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
	return &Client{HTTP: &http.Client{Transport: t}, base: "http://mailgrant", UserAgent: "mailgrant-go"}
}

// within bounds a call whose answer is not a stream and whose context has no
// deadline, but for the time that its body takes on a line of slowest bytes a second.
const (
	within  = time.Minute
	slowest = 16 << 10
)

// An Option changes one request.
type Option func(*http.Request)

// Key makes a submission repeatable: the same key twice is the same submission.
func Key(idempotencyKey string) Option {
	return func(r *http.Request) { r.Header.Set("Idempotency-Key", idempotencyKey) }
}

// call sends in as JSON and reads the answer into out; either may be nil.
func (c *Client) call(ctx context.Context, method, path string, in, out any, opts ...Option) error {
	var body io.Reader
	limit := within
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("write the request: %w", err)
		}
		limit += time.Duration(len(b)/slowest) * time.Second
		body = bytes.NewReader(b)
		opts = append(opts, func(r *http.Request) { r.Header.Set("Content-Type", "application/json") })
	}
	if _, given := ctx.Deadline(); !given {
		var cancel context.CancelFunc
		ctx, cancel = answerWithin(ctx, limit)
		defer cancel()
	}
	res, err := c.do(ctx, method, path, body, opts...)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	return read(res, out)
}

// answerWithin bounds a call, and has it said when there was no answer by then.
func answerWithin(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, limit, mailgrant.Errorf(mailgrant.Unavailable, context.DeadlineExceeded, "no answer came from mailgrant within %s", limit).
		Fix("see how it does (mailgrant health), and try again"))
}

func read(res *http.Response, out any) error {
	if out == nil || res.StatusCode == http.StatusNoContent {
		_, err := io.Copy(io.Discard, io.LimitReader(res.Body, 1<<20))
		return err
	}
	if err := json.NewDecoder(res.Body).Decode(out); err != nil {
		return mailgrant.Errorf(mailgrant.Unavailable, err, "the answer of mailgrant could not be read to its end").Fix("try again")
	}
	return nil
}

// do makes a request and turns everything but success into an error.
func (c *Client) do(ctx context.Context, method, path string, body io.Reader, opts ...Option) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, mailgrant.Errorf(mailgrant.Misset, err, "%q is not the address of a mailgrant", c.base).Fix("write it as https://mailgrant.example.com")
	}
	if !c.key.IsZero() {
		r.Header.Set("Authorization", "Bearer "+c.key.Reveal())
	}
	if c.Organization != "" {
		r.Header.Set("Mailgrant-Organization", string(c.Organization))
	}
	r.Header.Set("User-Agent", c.UserAgent)
	r.Header.Set("Accept", "application/json")
	for _, o := range opts {
		o(r)
	}
	res, err := c.HTTP.Do(r)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, unreachable(c.base, err)
	}
	if res.StatusCode/100 != 2 {
		defer res.Body.Close()
		return nil, problem(res)
	}
	return res, nil
}

func unreachable(base string, err error) error {
	var e *url.Error
	if errors.As(err, &e) {
		err = e.Err
	}
	where := base
	if base == "http://mailgrant" {
		where = "the socket of this machine"
	}
	return mailgrant.Errorf(mailgrant.Unavailable, err, "mailgrant does not answer at %s: %v", where, err).
		Fix("start it (mailgrant serve), or say where it is: MAILGRANT_URL and MAILGRANT_KEY, or --dir of its data")
}

// problem reads an error of the API.
func problem(res *http.Response) error {
	var p Problem
	b, _ := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err := json.Unmarshal(b, &p); err != nil || p.Code == "" {
		return mailgrant.Errorf(codeOf(res.StatusCode), nil, "the answer was %s, and not from mailgrant", res.Status).
			Fix("look at what stands between here and mailgrant: a proxy, or another program at this address")
	}
	e := mailgrant.Errorf(p.Code, nil, "%s", p.Detail).At(p.Field)
	e.Remedy, e.Finding = p.Remedy, p.Finding
	if seconds, err := strconv.Atoi(res.Header.Get("Retry-After")); err == nil && seconds > 0 {
		e.RetryAfter = time.Duration(seconds) * time.Second
	}
	if p.Detail == "" {
		e.Message = p.Title
	}
	if p.Code == mailgrant.Internal && p.Trace != "" {
		e.Message += " (trace " + string(p.Trace) + ")"
	}
	return e
}

func codeOf(status int) mailgrant.Code {
	switch {
	case status == http.StatusNotFound:
		return mailgrant.NotFound
	case status == http.StatusUnauthorized:
		return mailgrant.Unauthorized
	case status == http.StatusTooManyRequests:
		return mailgrant.Limited
	case status >= 500:
		return mailgrant.Unavailable
	}
	return mailgrant.Invalid
}

// get reads one thing.
func get[T any](ctx context.Context, c *Client, path string) (v T, err error) {
	err = c.call(ctx, http.MethodGet, path, nil, &v)
	return v, err
}

// put sends settings and gives the thing as it is then.
func put[T any](ctx context.Context, c *Client, method, path string, in any) (v T, err error) {
	err = c.call(ctx, method, path, in, &v)
	return v, err
}

// all reads a list to its end.
func all[T any](ctx context.Context, c *Client, path string) ([]T, error) {
	var list []T
	join := "?"
	if strings.Contains(path, "?") {
		join = "&"
	}
	for next := ""; ; {
		at := path
		if next != "" {
			at += join + "cursor=" + url.QueryEscape(next)
		}
		p, err := get[Page[T]](ctx, c, at)
		if err != nil {
			return nil, err
		}
		list = append(list, p.Items...)
		if next = p.Next; next == "" {
			return list, nil
		}
	}
}

func id(v mailgrant.ID) string { return url.PathEscape(string(v)) }
