package wire

import (
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/diagnose"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/rfc5322"
)

// ReadHeader reads the header of a message that is to leave.
func ReadHeader(h *provider.Handover) (rfc5322.Header, error) {
	r, err := Read(h)
	if err != nil {
		return rfc5322.Header{}, err
	}
	defer r.Close()
	n := int64(rfc5322.MaxHeader)
	if h.Size > 0 {
		n = min(n, h.Size)
	}
	first, err := io.ReadAll(io.LimitReader(r, n))
	if err != nil {
		return rfc5322.Header{}, err
	}
	return rfc5322.ParseHeader(rfc5322.Block(first))
}

// Agree compares the envelope with the recipients in the header, for an API that
// takes them from there. bcc are those that must be added as blind ones. why
// says in what they cannot be made to agree: the header names somebody whom the
// envelope does not, or cannot be read plainly.
func Agree(envelope, header []string) (bcc []string, why string) {
	named := make(map[string]bool, len(header))
	for _, a := range header {
		named[key(a)] = true
	}
	sent := make(map[string]bool, len(envelope))
	for _, a := range envelope {
		if k := key(a); !sent[k] {
			sent[k] = true
			if !named[k] {
				bcc = append(bcc, a)
			}
		}
	}
	for _, a := range header {
		if !sent[key(a)] {
			return nil, "its header names a recipient who is not to get it this time"
		}
	}
	return bcc, ""
}

// AgreeHeader is Agree over a header as it was read.
func AgreeHeader(h *provider.Handover, head rfc5322.Header) (bcc []string, why string) {
	for _, m := range head.Malformed {
		if m == "to" || m == "cc" || m == "bcc" || strings.HasPrefix(m, "field ") {
			return nil, "its header cannot be read plainly"
		}
	}
	var named []string
	for _, a := range slices.Concat(head.To, head.Cc, head.Bcc) {
		named = append(named, a.String())
	}
	return Agree(h.Recipients, named)
}

func key(addr string) string {
	if a, err := rfc5322.ParseAddress(addr); err == nil {
		return a.Key()
	}
	return strings.ToLower(addr)
}

// BccLine names those recipients for an API that reads them there and takes the
// line out before anybody sees it. RFC 5322 section 3.6.3.
func BccLine(addrs []string) string {
	if len(addrs) == 0 {
		return ""
	}
	return "Bcc: " + strings.Join(addrs, ",\r\n ") + "\r\n"
}

// Unreadable is a fault of our own store while a message was read. It says
// nothing about the message nor about the mailbox.
type Unreadable struct{ Err error }

func (u *Unreadable) Error() string { return "the message could not be read: " + u.Err.Error() }
func (u *Unreadable) Unwrap() error { return u.Err }

// Read opens a message. What goes wrong while it is read is Unreadable.
func Read(h *provider.Handover) (io.ReadCloser, error) {
	r, err := h.Open()
	if err != nil {
		return nil, &Unreadable{err}
	}
	if _, ok := r.(io.WriterTo); ok { // from memory: no buffer between
		return writing{reading{r}}, nil
	}
	return reading{r}, nil
}

type reading struct{ io.ReadCloser }

func (r reading) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = &Unreadable{err}
	}
	return n, err
}

type writing struct{ reading }

func (r writing) WriteTo(w io.Writer) (int64, error) {
	to := target{w: w}
	n, err := r.ReadCloser.(io.WriterTo).WriteTo(&to)
	if err != nil && to.err == nil {
		err = &Unreadable{err}
	}
	return n, err
}

// A target notes whether it was the writing that failed.
type target struct {
	w   io.Writer
	err error
}

func (t *target) Write(p []byte) (int, error) {
	n, err := t.w.Write(p)
	if err != nil {
		t.err = err
	}
	return n, err
}

// Unfit is CannotGo after an error that told us so; a message that could not be
// read is no worse for it, and is tried again.
func Unfit(by, why string, err error) provider.Outcome {
	if u := (*Unreadable)(nil); errors.As(err, &u) {
		return Failed(err, diagnose.Failure{})
	}
	return CannotGo(by, why)
}

// CannotGo is the outcome of a message that this API cannot carry as it is.
func CannotGo(by, why string) provider.Outcome {
	return provider.Outcome{Fate: mailgrant.FateRefused, Reply: "not sent: " + why, Finding: &mailgrant.Finding{Cause: "message-invalid", Title: "Message that this way cannot carry",
		Sentence: "The message cannot go by " + by + ": " + why + ".", Remedy: "Grant the mailbox SMTP as well, and leave its transport on auto.",
		Who: mailgrant.WhoOperator, Retry: mailgrant.RetryNever, Confidence: 1, Link: "errors/message-invalid"}}
}
