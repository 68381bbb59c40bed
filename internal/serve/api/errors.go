package api

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
	"github.com/mailgrant/mailgrant/internal/diagnose"
)

// answers is how each code looks in HTTP, and when to try again.
var answers = map[mailgrant.Code]struct {
	status int
	title  string
	retry  time.Duration
}{
	mailgrant.Invalid:      {http.StatusUnprocessableEntity, "The request is not right", 0},
	mailgrant.Unauthorized: {http.StatusUnauthorized, "A good key is needed", 0},
	mailgrant.Forbidden:    {http.StatusForbidden, "The key may not do this", 0},
	mailgrant.NotFound:     {http.StatusNotFound, "Not found", 0},
	mailgrant.Conflict:     {http.StatusConflict, "It clashes with what is there", 0},
	mailgrant.TooLarge:     {http.StatusRequestEntityTooLarge, "Too large", 0},
	mailgrant.Limited:      {http.StatusTooManyRequests, "Too much in too short a time", 0}, // its limiter says when
	mailgrant.NoRoute:      {http.StatusUnprocessableEntity, "No mailbox may carry this", 0},
	mailgrant.Lapsed:       {http.StatusConflict, "A person must consent again", 0},
	mailgrant.Misset:       {http.StatusConflict, "A setting must change", 0},
	mailgrant.Unavailable:  {http.StatusServiceUnavailable, "Not now", 5 * time.Second},
	mailgrant.NoSpace:      {http.StatusServiceUnavailable, "The disk is full", time.Minute},
	mailgrant.Internal:     {http.StatusInternalServerError, "Something went wrong inside mailgrant", 0},
}

// A httpStatus is the cause of an error that HTTP has a status of its own for.
type httpStatus int

func (s httpStatus) Error() string { return http.StatusText(int(s)) }

var errPanic = errors.New("api: a handler panicked")

func stack() string { return string(debug.Stack()) }

// statusOf is the status of an error: that of its code, where HTTP and the
// finding do not know better.
func statusOf(e *mailgrant.Error) int {
	var s httpStatus
	switch {
	case errors.As(e, &s):
		return int(s)
	case e.Code == mailgrant.Invalid && e.Field == "" && errors.Is(e, errJSON):
		return http.StatusBadRequest // it is no JSON at all
	case e.Code == mailgrant.Misset && e.Field != "":
		return http.StatusUnprocessableEntity
	}
	if a, ok := answers[e.Code]; ok {
		return a.status
	}
	return http.StatusInternalServerError
}

// fail answers with err. What a client cannot use goes to the log.
func (c *call) fail(err error) {
	var e *mailgrant.Error
	if !errors.As(err, &e) && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		err = mailgrant.Errorf(mailgrant.Unavailable, err, "it could not be done in time").Fix("try again")
	}
	e = mailgrant.AsError(err)
	status := statusOf(e)
	level := slog.LevelDebug
	switch {
	case c.r.Context().Err() != nil: // nobody hears the answer
	case status == http.StatusInternalServerError:
		level = slog.LevelError
	case status > http.StatusInternalServerError:
		level = slog.LevelWarn
	}
	c.Log.Log(c.r.Context(), level, "a request was refused", "trace", c.trace, "route", c.name(), "app", c.by.App.ID, "status", status, "code", e.Code, "err", err, "cause", e.Cause)
	if c.begun {
		panic(http.ErrAbortHandler) // the client must see that the answer is not whole
	}
	c.problem(e, status)
}

// problem writes an error as RFC 9457 has it.
func (c *call) problem(e *mailgrant.Error, status int) {
	a, ok := answers[e.Code]
	if !ok {
		a = answers[mailgrant.Internal]
	}
	p := client.Problem{Type: c.page(e), Title: a.title, Status: status, Detail: e.Message, Code: e.Code, Remedy: e.Remedy,
		Field: e.Field, Finding: e.Finding, Trace: c.trace}
	retry := a.retry
	switch f := e.Finding; {
	case e.RetryAfter > 0:
		retry = e.RetryAfter
	case f != nil && f.RetryAfter > 0 && e.Code.Temporary():
		retry = f.RetryAfter
	}
	h := c.w.Header()
	if retry > 0 {
		h.Set("Retry-After", strconv.Itoa(max(1, int((retry+time.Second-1)/time.Second))))
	}
	if status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="mailgrant"`)
	}
	b, err := json.Marshal(p)
	if err != nil {
		b = []byte(`{"type":"about:blank","title":"Something went wrong inside mailgrant","status":500,"code":"internal"}`)
	}
	c.send(status, "application/problem+json", append(b, '\n'))
}

// page is the type of a problem: the page about it, where browsers reach us.
func (a *API) page(e *mailgrant.Error) string {
	if a.PublicURL == "" {
		return "about:blank"
	}
	return a.PublicURL + "/docs/errors/" + diagnose.About(e)
}
