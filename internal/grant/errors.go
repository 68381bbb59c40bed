package grant

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/mailgrant/mailgrant"
)

func join(list []string) string { return strings.Join(list, ", ") }

// renewal is how a grant is consented again, by people.
func renewal(g mailgrant.Grant) string {
	if g.Flow == mailgrant.FlowApp {
		return "try it again: mailgrant grant begin " + string(g.ID)
	}
	return "ask the owner of " + g.Mailbox + " to authorise again: mailgrant grant begin " + string(g.ID)
}

// lapsed is the error for a grant that needs a person.
func lapsed(g mailgrant.Grant, f *mailgrant.Finding, cause error) error {
	e := mailgrant.Errorf(mailgrant.Lapsed, cause, "the consent for %s no longer works", g.Mailbox)
	if f == nil {
		f = g.LastFinding
	}
	if f != nil && f.Sentence != "" {
		e.Message += ": " + strings.TrimSuffix(f.Sentence, ".")
		e = e.With(*f)
	}
	if e.Remedy == "" {
		e = e.Fix("%s", renewal(g))
	}
	return e
}

// consentFinding is what the rooms above show for a grant that nobody consented
// to, or that must be consented again.
func consentFinding(g mailgrant.Grant, cause, title, sentence string) mailgrant.Finding {
	f := mailgrant.Finding{Cause: cause, Title: title, Sentence: sentence, Remedy: upper(renewal(g)), Who: mailgrant.WhoMailboxOwner,
		Retry: mailgrant.RetryReauthorize, Confidence: 1, Link: "errors/" + cause}
	if g.Flow == mailgrant.FlowApp {
		f.Who = mailgrant.WhoOperator
	}
	return f
}

func upper(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// unusable is the error for a pending or revoked grant.
func unusable(g mailgrant.Grant) error {
	sentence := "Nobody has consented for " + g.Mailbox + " yet."
	if g.State == mailgrant.GrantRevoked {
		sentence = g.Mailbox + " was disconnected."
	}
	f := consentFinding(g, "user-consent-required", "Consent needed", sentence)
	return mailgrant.Errorf(mailgrant.Lapsed, nil, "%s", strings.TrimSuffix(sentence, ".")).With(f)
}

// again is the error for a grant that no longer fits its registration. R103.
func again(g mailgrant.Grant, why string) error {
	f := consentFinding(g, "user-consent-required", "Authorise again", "The consent for "+g.Mailbox+" must be given again: "+why+".")
	return mailgrant.Errorf(mailgrant.Lapsed, nil, "the consent for %s must be given again: %s", g.Mailbox, why).With(f)
}

// foreignToken is the error for a refresh that speaks for somebody else.
func foreignToken(g mailgrant.Grant) error {
	f := consentFinding(g, "wrong-user-signed-in", "Another account", "The provider answered a refresh for "+g.Mailbox+" with another account's token.")
	return mailgrant.Errorf(mailgrant.Lapsed, nil, "the provider answered for another account than %s", g.Mailbox).With(f)
}

// codeOf is the code that goes with what another node found.
func codeOf(f mailgrant.Finding) mailgrant.Code {
	switch f.Retry {
	case mailgrant.RetryFix:
		return mailgrant.Misset
	case mailgrant.RetryReauthorize:
		return mailgrant.Lapsed
	}
	return mailgrant.Unavailable
}

// event puts a fact into the log; a failure to do so is logged and nothing more.
func (k *Keeper) event(ctx context.Context, e mailgrant.Event, data any) {
	b, err := json.Marshal(data)
	if err == nil {
		e.Data = b
		err = k.Store.AddEvent(ctx, e)
	}
	if err != nil {
		k.Log.Error("an event is not kept", "kind", e.Kind, "err", err)
	}
}
