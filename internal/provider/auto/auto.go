// Package auto chooses the way out for one message, and says why.
package auto

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/google"
	"github.com/mailgrant/mailgrant/internal/provider/microsoft"
	"github.com/mailgrant/mailgrant/internal/provider/smtp"
	"github.com/mailgrant/mailgrant/internal/provider/wire"
)

// Auto is what a mailbox says that leaves the choice to us.
const Auto = "auto"

// Choose gives the transport for a message and the reason in one sentence, for
// the record. What the mailbox names is taken; "auto" looks at what the grant
// covers, and then at the message:
//
//	only one way is granted                     that one
//	SMTP AUTH is known to be off                the API
//	signed, 8-bit, or header and envelope differ SMTP: it carries bytes and envelope as they are
//	small and plain, at Microsoft               Graph: its pace is higher
//	large                                       SMTP, else Graph's upload
//	at Google                                   SMTP
func Choose(w provider.Way, h *provider.Handover, transports map[string]provider.Transport) (provider.Transport, string, error) {
	c := chooser{w: w, h: h, transports: transports}
	name, why, err := c.choose()
	if err != nil {
		return provider.Transport{}, "", err
	}
	t, ok := transports[name]
	if !ok {
		return t, "", none(w, fmt.Sprintf("the transport %q is not there", name))
	}
	return t, why, nil
}

type chooser struct {
	w          provider.Way
	h          *provider.Handover
	transports map[string]provider.Transport
}

func none(w provider.Way, why string) error {
	return mailgrant.Errorf(mailgrant.Misset, nil, "%s has no way to send: %s", w.Mailbox.Address, why).
		Fix("let its grant cover sending by SMTP or by the provider's API, and its transport be auto")
}

// smtp and api say what the grant and the settings allow.
func (c chooser) smtp() bool {
	return c.w.Settings.SMTPHost != "" && slices.Contains(c.w.Grant.Capabilities, mailgrant.CanSMTP)
}

func (c chooser) api() string {
	switch {
	case !slices.Contains(c.w.Grant.Capabilities, mailgrant.CanAPISend):
		return ""
	case c.w.Settings.GraphURL != "":
		return microsoft.Name
	case c.w.Settings.GmailURL != "":
		return google.Name
	}
	return ""
}

func (c chooser) choose() (name, why string, err error) {
	named := c.w.Mailbox.Transport
	if named != "" && named != Auto {
		return c.named(named)
	}
	api := c.api()
	switch {
	case !c.smtp() && api == "":
		return "", "", none(c.w, "its grant covers neither SMTP nor an API of the provider")
	case api == "":
		return smtp.Name, "SMTP, as the grant covers no other way.", nil
	case !c.smtp():
		return c.onlyAPI(api, "as the grant covers no other way")
	}
	if off := c.switchedOff(); off != "" {
		return c.onlyAPI(api, "as "+off)
	}
	if why := c.needsSMTP(); why != "" {
		return smtp.Name, "SMTP, as " + why + ".", nil
	}
	if api == google.Name {
		return smtp.Name, "SMTP, as it answers for each recipient.", nil
	}
	return microsoft.Name, "Graph, as the message is small and plain and Graph lets more through in a minute than SMTP.", nil
}

// named is a choice that the mailbox makes itself.
func (c chooser) named(name string) (string, string, error) {
	if name == microsoft.Name && c.h.Size > microsoft.MIMEMax {
		if microsoft.MayUpload(c.w) {
			return microsoft.UploadName, fmt.Sprintf("Graph, as the mailbox says; with %s it needs the upload.", size(c.h.Size)), nil
		}
		return name, "Graph, as the mailbox says.", nil
	}
	label := map[string]string{smtp.Name: "SMTP", microsoft.Name: "Graph", microsoft.UploadName: "Graph's upload", google.Name: "the Gmail API"}[name]
	if label == "" {
		return "", "", none(c.w, fmt.Sprintf("there is no transport %q", name))
	}
	return name, label + ", as the mailbox says.", nil
}

// onlyAPI is for a grant without SMTP, or with one that is switched off.
func (c chooser) onlyAPI(api, why string) (string, string, error) {
	if api == google.Name {
		return api, "the Gmail API, " + why + ".", nil
	}
	if c.h.Size > microsoft.MIMEMax {
		if !microsoft.MayUpload(c.w) {
			return "", "", tooLarge(c.h.Size)
		}
		return microsoft.UploadName, fmt.Sprintf("Graph's upload, %s and %s is too much for one request.", why, size(c.h.Size)), nil
	}
	return api, "Graph, " + why + ".", nil
}

func tooLarge(n int64) error {
	f := mailgrant.Finding{Cause: "message-too-large", Title: "Message too large", Sentence: "The message has " + size(n) + "; Graph takes 3 MB in one request, and the grant does not cover its upload.",
		Remedy: "Let the grant cover SMTP, or Mail.ReadWrite.", Who: mailgrant.WhoOperator, Retry: mailgrant.RetryNever, Confidence: 1, Link: "errors/message-too-large"}
	return mailgrant.Errorf(mailgrant.TooLarge, nil, "the message is too large for the one way that is granted").With(f)
}

// switchedOff knows from the mailbox's hold that SMTP cannot work.
func (c chooser) switchedOff() string {
	if h := c.w.Mailbox.Hold; h != nil && strings.HasPrefix(h.Finding.Cause, "smtp-auth-disabled-") {
		return "SMTP AUTH is switched off for this mailbox"
	}
	return ""
}

// needsSMTP finds what the API could not carry as it is.
func (c chooser) needsSMTP() string {
	api := map[string]string{microsoft.Name: "Graph", google.Name: "the Gmail API"}[c.api()]
	switch {
	case c.h.From == "":
		return "a bounce has no sender for " + api
	case c.h.Size > microsoft.MIMEMax && c.api() == microsoft.Name:
		return "with " + size(c.h.Size) + " the message is too large for one request to Graph"
	case c.h.Size > google.MessageMax:
		return "with " + size(c.h.Size) + " the message is too large for the Gmail API"
	case c.h.EightBit || c.h.UTF8:
		return "its 8-bit text must arrive as it is"
	}
	head, err := wire.ReadHeader(c.h)
	if err != nil {
		return "its header cannot be read plainly"
	}
	if head.Signed {
		return "it is signed or encrypted, and " + api + " may write it anew"
	}
	if _, why := wire.AgreeHeader(c.h, head); why != "" {
		return why
	}
	return ""
}

func size(n int64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%d KB", n>>10)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/(1<<20))
}
