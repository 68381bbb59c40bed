package console

import (
	"net/url"
	"regexp"
	"strings"

	"github.com/mailgrant/mailgrant"
)

// mayNow says what a grant lets mailgrant do, to the owner of the mailbox.
func mayNow(g mailgrant.Grant) []string {
	words := map[mailgrant.Capability]string{
		mailgrant.CanSMTP: "send mail as " + g.Mailbox, mailgrant.CanAPISend: "send mail as " + g.Mailbox,
		mailgrant.CanIMAP: "read, move and delete its mail", mailgrant.CanPOP: "read and delete its mail",
		mailgrant.CanAPIRead: "read its mail", mailgrant.CanSignIn: "know that it is you who signs in",
	}
	var list []string
	seen := map[string]bool{}
	for _, c := range g.Capabilities {
		if w := words[c]; w != "" && !seen[w] {
			seen[w] = true
			list = append(list, w)
		}
	}
	return list
}

// who says in words who can mend a failure, to somebody at a consent.
func who(w mailgrant.Who, provider string) string {
	switch w {
	case mailgrant.WhoMailboxOwner:
		return "You, the owner of the mailbox"
	case mailgrant.WhoTenantAdmin:
		return "An administrator of your organization"
	case mailgrant.WhoOperator:
		return "Whoever runs mailgrant here"
	case mailgrant.WhoProvider:
		return or(provider, "The mail provider")
	case mailgrant.WhoNobody:
		return "Nobody has to: it passes by itself"
	}
	return ""
}

// whoOf is the same where nobody in particular reads.
func whoOf(w mailgrant.Who) string {
	switch w {
	case mailgrant.WhoMailboxOwner:
		return "The owner of the mailbox"
	case mailgrant.WhoTenantAdmin:
		return "An administrator of the organization"
	}
	return who(w, "")
}

// meanwhile says what mailgrant does with mail while a failure lasts.
func meanwhile(r mailgrant.Retry) string {
	switch r {
	case mailgrant.RetryNow:
		return "Tries again at once with a new token or connection."
	case mailgrant.RetryLater:
		return "Keeps the message and tries again later, ever more slowly."
	case mailgrant.RetryReauthorize:
		return "Holds the mailbox and keeps its mail until somebody has signed in again. Nothing is lost."
	case mailgrant.RetryFix:
		return "Holds the mailbox and keeps its mail until the setting is changed. Nothing is lost."
	case mailgrant.RetryNever:
		return "Gives up this one message and tells its sender. The mailbox goes on."
	case mailgrant.RetryNone:
		return "Nothing: all is well."
	}
	return ""
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Host
}

// A part is a piece of text, or a link.
type part struct{ Text, Link string }

var webAddress = regexp.MustCompile(`https://[A-Za-z0-9.-]+(?::\d+)?(?:/[A-Za-z0-9._~%!$&'()*+,;=:@/?#-]*[A-Za-z0-9_~/#-]|/)?`)

// parts finds the https addresses in a text of ours.
func parts(s string) (list []part) {
	for s != "" {
		at := webAddress.FindStringIndex(s)
		if at == nil {
			return append(list, part{Text: s})
		}
		if at[0] > 0 {
			list = append(list, part{Text: s[:at[0]]})
		}
		link := s[at[0]:at[1]]
		list = append(list, part{Text: strings.TrimPrefix(link, "https://"), Link: link})
		s = s[at[1]:]
	}
	return list
}
