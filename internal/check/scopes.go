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
	roles     []string // any of them; of the app itself
}

var (
	outlook = []string{"outlook", "office365", "00000002-0000-0ff1-ce00-000000000000"}
	graph   = []string{"graph", "00000003-0000-0000-c000-000000000000"}
)

// expected is known for the providers whose tokens can be read.
func (r *run) expected(l *leg) (expectation, bool) {
	const gmail = "https://www.googleapis.com/auth/gmail."
	set := r.way.Settings
	switch {
	case strings.HasPrefix(set.Template, "microsoft") && l == r.out && l.httpAPI():
		return expectation{graph, []string{"Mail.Send", "Mail.Send.Shared"}, []string{"Mail.Send"}}, true
	case strings.HasPrefix(set.Template, "microsoft") && l.httpAPI():
		if a := r.box.Receive.After; a != "" && a != mailgrant.AfterLeave { // it changes what it reads
			return expectation{graph, []string{"Mail.ReadWrite", "Mail.ReadWrite.Shared"}, []string{"Mail.ReadWrite"}}, true
		}
		return expectation{graph, []string{"Mail.Read", "Mail.ReadWrite", "Mail.Read.Shared", "Mail.ReadWrite.Shared"}, []string{"Mail.Read", "Mail.ReadWrite"}}, true
	case strings.HasPrefix(set.Template, "microsoft"):
		scope := map[string]string{"smtp": "SMTP.Send", "imap": "IMAP.AccessAsUser.All", "pop": "POP.AccessAsUser.All"}[l.protocol]
		role := map[string]string{"smtp": "SMTP.SendAsApp", "imap": "IMAP.AccessAsApp", "pop": "POP.AccessAsApp"}[l.protocol]
		return expectation{outlook, []string{scope}, []string{role}}, true
	case set.Template == "google" && l == r.out && l.httpAPI():
		return expectation{nil, []string{"https://mail.google.com/", gmail + "send", gmail + "compose", gmail + "modify"}, nil}, true
	case set.Template == "google":
		return expectation{nil, []string{"https://mail.google.com/"}, nil}, true
	}
	return expectation{}, false
}

// scopes compares what the token says of itself with what it will be asked for.
func (r *run) scopes(_ context.Context, l *leg) result {
	want, ok := r.expected(l)
	if !ok {
		return result{skip: "nothing is known of what this provider's tokens say"}
	}
	c := wire.ReadClaims(l.tok)
	if c.Opaque && c.Scopes == "" {
		return result{skip: "the token cannot be read, and its scopes were not told"}
	}
	if !c.Opaque && len(want.audiences) > 0 && !slices.ContainsFunc(want.audiences, func(a string) bool { return strings.Contains(strings.ToLower(c.Audience), a) }) {
		return misfit(l, "wrong-token-audience", "Token for another API", fmt.Sprintf("The token is for %s, and that is not what it would be shown to.", wire.Clean(c.Audience, 100)),
			"Ask for scopes of the right API, one API for each token.", mailgrant.WhoOperator)
	}
	if r.way.Grant.Flow == mailgrant.FlowApp && len(want.roles) > 0 {
		if i := slices.IndexFunc(want.roles, func(role string) bool { return slices.Contains(c.Roles, role) }); i >= 0 {
			return result{text: "for " + wire.Clean(c.Audience, 100) + ", with the role " + want.roles[i]}
		}
		if l.protocol == "imap" || l.protocol == "pop" {
			return misfit(l, "scope-missing", "Role missing in the token", fmt.Sprintf("The app's token lacks the role %s; it has %s.", want.roles[0], wire.Clean(first(strings.Join(c.Roles, " "), "none"), 200)),
				"Add the application permission "+want.roles[0]+" to the app registration and have an administrator consent to it.", mailgrant.WhoTenantAdmin)
		}
		return result{text: "without the role " + want.roles[0] + ": right only where Exchange itself gives it to the app (RBAC for Applications)"}
	}
	for _, have := range strings.Fields(c.Scopes) {
		for _, s := range want.scopes {
			if have == s || strings.HasSuffix(have, "/"+s) {
				return result{text: strings.TrimSpace("with " + s + forAudience(c))}
			}
		}
	}
	return misfit(l, "scope-missing", "Permission missing in the token", fmt.Sprintf("The token lacks %s; it has %s.", want.scopes[0], wire.Clean(first(c.Scopes, "none"), 200)),
		"Add "+want.scopes[0]+" to the app registration, have it consented, and renew the grant.", mailgrant.WhoTenantAdmin)
}

func forAudience(c wire.Claims) string {
	if c.Audience == "" {
		return ""
	}
	return ", for " + wire.Clean(c.Audience, 100)
}

// misfit is a failure that we see in the token ourselves.
func misfit(l *leg, cause, title, sentence, remedy string, who mailgrant.Who) result {
	f := mailgrant.Finding{Cause: cause, Title: title, Sentence: sentence, Remedy: remedy, Who: who, Retry: mailgrant.RetryFix, Confidence: 1, Link: "errors/" + cause}
	return result{err: wire.Error(f, nil, "the token is not what %s needs", map[string]string{mailgrant.CheckSend: "sending", mailgrant.CheckReceive: "reading"}[l.direction])}
}
