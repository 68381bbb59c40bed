package check

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider/wire"
)

// An expectation is what a token must say to be of use.
type expectation struct {
	audiences []string // parts of the audience, any of them
	scopes    []string // any of them; delegated
	role      string   // of the app itself
}

// expected is known for the providers whose tokens can be read.
func (r *run) expected() (expectation, bool) {
	microsoft, api := strings.HasPrefix(r.way.Settings.Template, "microsoft"), r.httpAPI()
	switch {
	case microsoft && api:
		return expectation{[]string{"graph", "00000003-0000-0000-c000-000000000000"}, []string{"Mail.Send", "Mail.Send.Shared"}, "Mail.Send"}, true
	case microsoft:
		return expectation{[]string{"outlook", "office365", "00000002-0000-0ff1-ce00-000000000000"}, []string{"SMTP.Send"}, "SMTP.SendAsApp"}, true
	case r.way.Settings.Template == "google" && api:
		return expectation{nil, []string{"https://mail.google.com/", "https://www.googleapis.com/auth/gmail.send", "https://www.googleapis.com/auth/gmail.compose",
			"https://www.googleapis.com/auth/gmail.modify"}, ""}, true
	case r.way.Settings.Template == "google":
		return expectation{nil, []string{"https://mail.google.com/"}, ""}, true
	}
	return expectation{}, false
}

// scopes compares what the token says of itself with what it will be asked for.
func (r *run) scopes(context.Context) result {
	want, ok := r.expected()
	if !ok {
		return result{skip: "nothing is known of what this provider's tokens say"}
	}
	c := wire.ReadClaims(r.tok)
	if c.Opaque && c.Scopes == "" {
		return result{skip: "the token cannot be read, and its scopes were not told"}
	}
	if !c.Opaque && len(want.audiences) > 0 && !slices.ContainsFunc(want.audiences, func(a string) bool { return strings.Contains(strings.ToLower(c.Audience), a) }) {
		return r.misfit("wrong-token-audience", "Token for another API", fmt.Sprintf("The token is for %s, and that is not what it would be shown to.", wire.Clean(c.Audience, 100)),
			"Ask for scopes of the right API, one API for each token.", mailgrant.WhoOperator)
	}
	if r.way.Grant.Flow == mailgrant.FlowApp && want.role != "" {
		if slices.Contains(c.Roles, want.role) {
			return result{text: "for " + wire.Clean(c.Audience, 100) + ", with the role " + want.role}
		}
		return result{text: "without the role " + want.role + ": right only where Exchange itself gives it to the app (RBAC for Applications)"}
	}
	for _, have := range strings.Fields(c.Scopes) {
		for _, s := range want.scopes {
			if have == s || strings.HasSuffix(have, "/"+s) {
				return result{text: strings.TrimSpace("with " + s + forAudience(c))}
			}
		}
	}
	return r.misfit("scope-missing", "Permission missing in the token", fmt.Sprintf("The token lacks %s; it has %s.", want.scopes[0], wire.Clean(first(c.Scopes, "none"), 200)),
		"Add "+want.scopes[0]+" to the app registration, have it consented, and renew the grant.", mailgrant.WhoTenantAdmin)
}

func forAudience(c wire.Claims) string {
	if c.Audience == "" {
		return ""
	}
	return ", for " + wire.Clean(c.Audience, 100)
}

// misfit is a failure that we see in the token ourselves.
func (r *run) misfit(cause, title, sentence, remedy string, who mailgrant.Who) result {
	f := mailgrant.Finding{Cause: cause, Title: title, Sentence: sentence, Remedy: remedy, Who: who, Retry: mailgrant.RetryFix, Confidence: 1, Link: "errors/" + cause}
	return result{err: wire.Error(f, nil, "the token is not what sending needs")}
}
