package console

import (
	"strings"

	"github.com/mailgrant/mailgrant"
)

// titles are what a failure is called to the person it happened to; the others
// keep the catalogue's title.
var titles = map[string]string{
	"wrong-user-signed-in":        "That was another account",
	"admin-consent-required":      "Your administrator has to approve this first",
	"user-consent-required":       "The permission was not given",
	"code-expired-or-used":        "This has to begin again",
	"scope-missing":               "A permission is missing",
	"account-not-allowed-for-app": "This account may not be used here",
}

// leads go before what the finding says, where the person needs to hear more than
// the operator.
var leads = map[string]string{
	"user-consent-required": "You chose not to allow it, or closed the page. That is your right, and nothing has changed.",
	"code-expired-or-used":  "Mailgrant cannot match this answer to a consent that was begun in this browser. It may have taken longer than ten minutes, the page may have been loaded twice, or the link was opened in one browser and finished in another.",
}

// Title is the heading of a failure.
func (o outcome) Title() string {
	if o.Finding == nil {
		return "Something went wrong"
	}
	if t := titles[o.Finding.Cause]; t != "" {
		return t
	}
	switch {
	case o.Finding.Title != "":
		return o.Finding.Title
	case o.Code.Temporary():
		return "This does not work just now"
	}
	return "This did not work"
}

// Lead is what happened, in a sentence or two.
func (o outcome) Lead() string { return leads[o.Finding.Cause] }

// Who can mend it.
func (o outcome) Who() string {
	if o.Admin && o.Finding.Who == mailgrant.WhoTenantAdmin {
		return "You, as an administrator of the organization"
	}
	return who(o.Finding.Who, o.Provider)
}

// Kept says what became of an earlier consent. R153.
func (o outcome) Kept() bool { return o.Mailbox != "" && !o.Admin }

// Page is the page of the cause.
func (o outcome) Page() string {
	if o.Finding.Link == "" || o.Finding.Cause == "" {
		return ""
	}
	return "/docs/" + o.Finding.Link
}

// sentence makes a sentence of a message.
func sentence(s string) string {
	if s == "" {
		return ""
	}
	s = strings.ToUpper(s[:1]) + s[1:]
	if strings.HasSuffix(s, ".") || strings.HasSuffix(s, "?") || strings.HasSuffix(s, "!") {
		return s
	}
	return s + "."
}
