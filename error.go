package mailgrant

import (
	"errors"
	"fmt"
	"time"
)

// A Code says to a program what went wrong. It is an error itself, so that
// errors.Is(err, mailgrant.Lapsed) asks for it.
type Code string

const (
	Invalid      Code = "invalid"      // the request is malformed; Field says where
	Unauthorized Code = "unauthorized" // no key, or not a good one
	Forbidden    Code = "forbidden"    // a good key that may not do this
	NotFound     Code = "not_found"    // absent or somebody else's: they look the same
	Conflict     Code = "conflict"     // clashes with what is there
	TooLarge     Code = "too_large"
	Limited      Code = "limited"     // too much in too short a time
	NoRoute      Code = "no_route"    // no mailbox may carry this submission
	Lapsed       Code = "lapsed"      // the grant no longer works; a person must consent
	Misset       Code = "misset"      // a registration, mailbox or provider setting must change
	Unavailable  Code = "unavailable" // passes by itself: database, network, provider
	NoSpace      Code = "no_space"    // the disk is full
	Internal     Code = "internal"    // our own mistake
)

func (c Code) Error() string { return string(c) }

// Temporary says whether trying the same again later can succeed without
// anybody changing anything.
func (c Code) Temporary() bool {
	return c == Limited || c == Unavailable || c == NoSpace
}

// An Error is what crosses package boundaries. Code is for programs, Message and
// Remedy are for people, Cause is for the log.
type Error struct {
	Code    Code
	Message string   // one plain sentence without secrets
	Remedy  string   // a command, a link, or a thing to change
	Field   string   // the input at fault, when there is one: "to[2]", "subject"
	Finding *Finding // the diagnosis, when a provider or server said no
	Page    string   // below docs/errors/, where one explains it more closely than the page of its Code: "refused-sender"
	Cause   error

	RetryAfter time.Duration // until the same can succeed; 0: nobody knows
}

func (e *Error) Error() string { return e.Message }
func (e *Error) Unwrap() error { return e.Cause }

// Is makes errors.Is(err, code) work.
func (e *Error) Is(target error) bool { c, ok := target.(Code); return ok && c == e.Code }

// Errorf makes an Error; cause may be nil.
func Errorf(code Code, cause error, format string, args ...any) *Error {
	return &Error{Code: code, Cause: cause, Message: fmt.Sprintf(format, args...)}
}

// Fix adds the remedy.
func (e *Error) Fix(format string, args ...any) *Error {
	e.Remedy = fmt.Sprintf(format, args...)
	return e
}

// At adds the field at fault.
func (e *Error) At(field string) *Error { e.Field = field; return e }

// See names the page that explains it more closely than the one of its code.
func (e *Error) See(page string) *Error { e.Page = page; return e }

// After says when the same can succeed.
func (e *Error) After(wait time.Duration) *Error { e.RetryAfter = wait; return e }

// With adds a finding, and takes its remedy if there is none yet.
func (e *Error) With(f Finding) *Error {
	e.Finding = &f
	if e.Remedy == "" {
		e.Remedy = f.Remedy
	}
	return e
}

// AsError finds the Error in err; any other error becomes an Internal one, whose
// message says nothing of its inside.
func AsError(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return Errorf(Internal, err, "something went wrong inside mailgrant").
		Fix("try again; if it stays, look for this request's trace number in the log")
}
