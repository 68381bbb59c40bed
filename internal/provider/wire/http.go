package wire

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/diagnose"
	"github.com/mailgrant/mailgrant/internal/provider"
)

// bodyMax is what is read of an answer. R-OA5.
const bodyMax = 1 << 20

// A Call is one request to a provider's HTTP API.
type Call struct {
	Way      provider.Way
	Resource string // whose token; "" none: the address itself is the permission
	Step     string
	Method   string
	URL      string
	Type     string // of the body
	Size     int64  // of the body; 0 none
	Header   http.Header

	// Body gives the body, as often as it is asked.
	Body func() (io.ReadCloser, error)
}

// An Answer is what came back.
type Answer struct {
	Status    int
	Header    http.Header
	Size      int64 // of the body, as the other side says; -1 when it does not
	Body      []byte
	RequestID string
	Token     mailgrant.Token
}

// Lost says that a request was sent whole and its answer never came.
type Lost struct{ Err error }

func (l *Lost) Error() string { return "the answer was lost: " + l.Err.Error() }
func (l *Lost) Unwrap() error { return l.Err }

// slowest is the line we still wait for, in bytes a second.
const slowest = 64 << 10

// Do makes the call. A token that is refused gets one successor.
func (c Call) Do(ctx context.Context) (*Answer, error) {
	a, body, err := c.Stream(ctx, 0)
	if body != nil {
		defer body.Close()
		a.Body, _ = io.ReadAll(io.LimitReader(body, bodyMax)) // what is cut off does not read; the status has come
	}
	return a, err
}

// Stream makes the call and leaves the body of a success to be read: about so many
// bytes are to be expected. That of any other answer has been read; its body is
// nil.
func (c Call) Stream(ctx context.Context, size int64) (*Answer, io.ReadCloser, error) {
	var tok mailgrant.Token
	var err error
	if c.Resource != "" {
		if tok, err = c.Way.Token(ctx, c.Resource, false); err != nil {
			return nil, nil, err
		}
	}
	a, body, err := c.once(ctx, tok, size)
	if err != nil || a.Status != http.StatusUnauthorized || c.Resource == "" {
		return a, body, err
	}
	fresh, err := c.Way.Token(ctx, c.Resource, true)
	if err != nil || fresh.Value == tok.Value {
		return a, nil, nil
	}
	return c.once(ctx, fresh, size)
}

func (c Call) once(ctx context.Context, tok mailgrant.Token, size int64) (*Answer, io.ReadCloser, error) {
	var sent atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(i httptrace.WroteRequestInfo) { sent.Store(i.Err == nil) }})
	req, err := c.request(ctx, tok)
	if err != nil {
		return nil, nil, err
	}
	client := *c.Way.HTTP
	if client.Timeout > 0 {
		client.Timeout += time.Duration((c.Size+size)/slowest) * time.Second
	}
	res, err := client.Do(req)
	if err != nil {
		if sent.Load() {
			return nil, nil, &Lost{err}
		}
		return nil, nil, err
	}
	a := &Answer{Status: res.StatusCode, Header: res.Header, Size: res.ContentLength, Token: tok, RequestID: Clean(first(res.Header.Get("Request-Id"), res.Header.Get("X-Request-Id")), 100)}
	if res.StatusCode/100 == 2 {
		return a, res.Body, nil
	}
	defer res.Body.Close()
	a.Body, _ = io.ReadAll(io.LimitReader(res.Body, bodyMax))
	return a, nil, nil
}

func (c Call) request(ctx context.Context, tok mailgrant.Token) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, c.Method, c.URL, nil)
	if err != nil {
		return nil, mailgrant.Errorf(mailgrant.Misset, err, "the address of the provider's API is not a URL").Fix("correct it in the registration's overrides")
	}
	if c.Body != nil {
		if req.Body, err = c.Body(); err != nil {
			return nil, err
		}
		req.GetBody, req.ContentLength = c.Body, c.Size
		req.Header.Set("Content-Type", c.Type)
	}
	if !tok.Value.IsZero() {
		req.Header.Set("Authorization", "Bearer "+tok.Value.Reveal())
	}
	for k, v := range c.Header {
		req.Header[k] = v
	}
	req.Header.Set("Client-Request-Id", requestID())
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "mailgrant")
	return req, nil
}

// requestID is a random UUID: the number by which the provider's people find a
// request of ours.
func requestID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// JSON makes a body of v.
func JSON(v any) (func() (io.ReadCloser, error), int64) {
	b, err := json.Marshal(v)
	return func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(string(b))), err }, int64(len(b))
}

// RetryAfter reads the header: seconds, or a date.
func RetryAfter(h http.Header, now time.Time) time.Duration {
	v := strings.TrimSpace(h.Get("Retry-After"))
	if v == "" {
		return 0
	}
	if n, err := strconv.ParseFloat(v, 64); err == nil {
		if n <= 0 || n > 1e7 {
			return 0
		}
		return time.Duration(n * float64(time.Second))
	}
	if t, err := http.ParseTime(v); err == nil && t.After(now) {
		return t.Sub(now)
	}
	return 0
}

// Explain asks diagnosis about an answer that is no success.
func (c Call) Explain(a *Answer) mailgrant.Finding {
	facts := Facts(c.Way, a.Token, c.Step)
	facts["url"] = c.URL
	var e struct {
		Error struct {
			Code    any    `json:"code"`
			Message string `json:"message"`
			Status  string `json:"status"`
			Errors  []struct {
				Reason string `json:"reason"`
			} `json:"errors"`
		} `json:"error"`
	}
	code := ""
	if json.Unmarshal(a.Body, &e) == nil {
		code, _ = e.Error.Code.(string)
		if code == "" && len(e.Error.Errors) > 0 {
			code = e.Error.Errors[0].Reason
		}
	}
	text := string(a.Body)
	if v := a.Token.Value.Reveal(); len(v) >= 16 {
		text = strings.ReplaceAll(text, v, "[secret]")
	}
	if strings.TrimSpace(text) == "" {
		text = fmt.Sprintf("HTTP %d %s", a.Status, http.StatusText(a.Status))
	}
	return diagnose.Explain(diagnose.Failure{Text: text, Protocol: "graph", Context: facts, Code: code, HTTPStatus: a.Status, RetryAfter: RetryAfter(a.Header, time.Now())})
}

// Refused is the outcome of an answer that is no success.
func (c Call) Refused(a *Answer) provider.Outcome {
	f := c.Explain(a)
	out := provider.Outcome{Fate: apiFate(a.Status, f), Finding: &f, RemoteID: a.RequestID, RetryAfter: max(f.RetryAfter, RetryAfter(a.Header, time.Now())),
		Reply: Clean(fmt.Sprintf("%d %s", a.Status, a.Body), ReplyMax)}
	if a.Status == http.StatusGatewayTimeout { // whoever stands behind may have taken it
		out.Fate = mailgrant.FateUncertain
	}
	return out
}

// apiFate weighs the status against the finding.
func apiFate(status int, f mailgrant.Finding) mailgrant.Fate {
	switch {
	case status == http.StatusTooManyRequests, status >= 500:
		return mailgrant.FateLater
	case f.Cause != diagnose.Unknown && f.Retry != mailgrant.RetryNone:
		return Fate(f)
	case status == http.StatusBadRequest, status == http.StatusRequestEntityTooLarge, status == http.StatusUnprocessableEntity:
		return mailgrant.FateRefused
	case status == http.StatusUnauthorized, status == http.StatusForbidden, status == http.StatusNotFound:
		return mailgrant.FateHeld
	}
	return mailgrant.FateLater
}

// Broken is the outcome of a call without an answer. final says that the call
// was the one that sends: then a lost answer leaves it open what became of it.
func (c Call) Broken(err error, final bool) provider.Outcome {
	out := Failed(err, diagnose.Failure{Protocol: "network", Context: map[string]any{"url": c.URL, "step": c.Step, "mailbox": c.Way.Mailbox.Address}})
	var lost *Lost
	if final && errors.As(err, &lost) {
		out.Fate = mailgrant.FateUncertain
		f := *out.Finding
		f.Sentence = "The message was sent whole, but the provider's answer was lost: it may have been taken."
		out.Finding = &f
	}
	return out
}
