package console

import (
	"strings"

	"github.com/mailgrant/mailgrant"
)

// A said is what a failure means to the person it happened to, where the catalogue
// speaks to whoever runs mailgrant.
type said struct{ Title, Lead, Todo string }

// persons are the failures that most people meet.
var persons = map[string]said{
	"wrong-user-signed-in": {Title: "That was another account"},
	"user-consent-required": {"The permission was not given",
		"You chose not to allow it, or left the page. That is your right, and nothing has changed.",
		"If it was a mistake, begin again and choose Accept. If it was not, there is nothing left to do."},
	"admin-consent-required": {"An administrator has to approve this first",
		"Your organization lets only its administrators decide which applications may be used.",
		"Send the lines below to your administrator or IT department. Once they have approved, open your own link again."},
	"code-expired-or-used": {"This has to begin again",
		"This answer belongs to no consent that was begun in this browser in the last ten minutes. Perhaps it took longer, the page was loaded twice, or the link was opened in one browser and finished in another.",
		"Begin again from the link you were given. Stay in one browser, and take no longer than ten minutes."},
	"scope-missing":               {Title: "A permission is missing"},
	"account-not-allowed-for-app": {Title: "This account cannot be used here"},
}

// administrators are those of an approval.
var administrators = map[string]said{
	"user-consent-required": {"The approval was not given",
		"You chose not to approve it, or left the page. Nothing has changed.",
		"If it was a mistake, begin again and choose Accept. If it was not, there is nothing left to do."},
	"admin-consent-required": {"This account may not approve it",
		"The account that signed in is no administrator who may approve applications.",
		"Begin again and sign in as a Global Administrator or a Privileged Role Administrator, or send the link to one."},
}

func (o outcome) said() said {
	if o.Admin {
		if s, ok := administrators[o.Finding.Cause]; ok {
			return s
		}
	}
	return persons[o.Finding.Cause]
}

// Title is the heading of a failure.
func (o outcome) Title() string {
	switch {
	case o.said().Title != "":
		return o.said().Title
	case o.Finding.Title != "" && o.Finding.Cause != "unknown":
		return o.Finding.Title
	case o.Code.Temporary():
		return "This does not work just now"
	}
	return "This did not work"
}

// Lead is what happened.
func (o outcome) Lead() string { return or(o.said().Lead, o.Finding.Sentence) }

// Todo is what the person can do.
func (o outcome) Todo() string {
	if o.Finding.Cause == "wrong-user-signed-in" {
		return "Begin again and choose " + o.Mailbox + ". If " + or(o.Provider, "the provider") + " does not let you choose, open your link in a private window. " +
			"If it is a mailbox that several people share, tell whoever sent you the link: then each of them may sign in with their own account."
	}
	return or(o.said().Todo, o.Finding.Remedy)
}

// Operators says whether the finding itself is for others than the one who reads.
func (o outcome) Operators() bool { return o.Todo() != o.Finding.Remedy }

// Who can mend it.
func (o outcome) Who() string {
	if o.Admin && (o.Finding.Who == mailgrant.WhoTenantAdmin || o.Finding.Who == mailgrant.WhoMailboxOwner) {
		return "You, as an administrator of the organization"
	}
	return who(o.Finding.Who, o.Provider)
}

// Kept says whether an earlier consent may be there. R153.
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
