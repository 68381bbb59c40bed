// Package wire is what all transports share: the call of an HTTP API, the login to
// a mail server, the facts of a case, the step from a refusal to a finding and on
// to a fate, and text of the other side made fit to be kept.
package wire

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/diagnose"
	"github.com/mailgrant/mailgrant/internal/provider"
)

// ReplyMax is how much of an answer is kept.
const ReplyMax = 500

// Clean makes text of the other side one bounded line that is safe to store,
// log and show: no control characters, no escape sequences, no broken UTF-8.
func Clean(s string, max int) string {
	if len(s) > 2*max {
		s = s[:2*max]
	}
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\r':
			return -1
		case r == '\n', r == '\t', r == '\u2028', r == '\u2029', r == '\u0085':
			return ' '
		case r < ' ', r >= 0x7f && r < 0xa0, r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069:
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	s = strings.TrimSpace(s)
	if len(s) > max {
		s = strings.ToValidUTF8(s[:max], "") // a letter cut in two goes
	}
	return s
}

// Claims are what a token says of itself. They are not verified and serve
// diagnosis only: whom it is for is the other side's to judge.
type Claims struct {
	Audience string
	Scopes   string   // delegated
	Roles    []string // of the app itself
	UPN      string
	Tenant   string
	App      string
	Expires  time.Time
	Opaque   bool // not a JWT
}

// ReadClaims looks into a token.
func ReadClaims(t mailgrant.Token) Claims {
	parts := strings.Split(t.Value.Reveal(), ".")
	if len(parts) != 3 {
		return Claims{Opaque: true, Scopes: strings.Join(t.Scopes, " ")}
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	var c struct {
		Aud   any      `json:"aud"`
		Scp   any      `json:"scp"`
		Scope any      `json:"scope"`
		Roles []string `json:"roles"`
		UPN   string   `json:"upn"`
		Name  string   `json:"preferred_username"`
		Uniq  string   `json:"unique_name"`
		Mail  string   `json:"email"`
		Tid   string   `json:"tid"`
		AppID string   `json:"appid"`
		Azp   string   `json:"azp"`
		Exp   float64  `json:"exp"`
	}
	if err != nil || json.Unmarshal(raw, &c) != nil {
		return Claims{Opaque: true, Scopes: strings.Join(t.Scopes, " ")}
	}
	out := Claims{Audience: words(c.Aud), Scopes: first(words(c.Scp), words(c.Scope)), Roles: c.Roles, UPN: first(c.UPN, c.Name, c.Uniq, c.Mail),
		Tenant: c.Tid, App: first(c.AppID, c.Azp)}
	if c.Exp > 0 && c.Exp < 1e12 {
		out.Expires = time.Unix(int64(c.Exp), 0)
	}
	return out
}

func words(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case []any:
		var l []string
		for _, e := range v {
			if s, ok := e.(string); ok {
				l = append(l, s)
			}
		}
		return strings.Join(l, " ")
	}
	return ""
}

func first(l ...string) string {
	for _, s := range l {
		if s != "" {
			return s
		}
	}
	return ""
}

// FindingOf is the finding of a failure; one that has none gets what its code
// says.
func FindingOf(err error) *mailgrant.Finding {
	e := mailgrant.AsError(err)
	if e.Finding != nil {
		return e.Finding
	}
	f := &mailgrant.Finding{Cause: diagnose.Unknown, Title: "Something must be changed first", Sentence: e.Message + ".", Remedy: e.Remedy, Who: mailgrant.WhoOperator, Retry: mailgrant.RetryFix}
	switch {
	case e.Code.Temporary() || e.Code == mailgrant.Internal:
		f.Title, f.Retry, f.Who = "Not possible just now", mailgrant.RetryLater, mailgrant.WhoNobody
	case e.Code == mailgrant.Lapsed:
		f.Title, f.Retry, f.Who = "A consent is missing", mailgrant.RetryReauthorize, mailgrant.WhoMailboxOwner
	case e.Code == mailgrant.Invalid || e.Code == mailgrant.TooLarge:
		f.Retry = mailgrant.RetryNever
	}
	return f
}

// Facts is what is known of a case, in the words that diagnose knows.
func Facts(w provider.Way, t mailgrant.Token, step string) map[string]any {
	f := map[string]any{"step": step, "mailbox": w.Mailbox.Address, "provider": w.Settings.Template}
	if g := map[mailgrant.Flow]string{mailgrant.FlowCode: "authorization_code", mailgrant.FlowApp: "client_credentials", mailgrant.FlowDevice: "device_code"}[w.Grant.Flow]; g != "" {
		f["grant"] = g
	}
	if k := map[mailgrant.MailboxKind]string{mailgrant.MailboxOwn: "user", mailgrant.MailboxShared: "shared", mailgrant.MailboxApp: "app"}[w.Mailbox.Kind]; k != "" {
		f["mailbox_type"] = k
	}
	if s := w.Mailbox.LastSuccess; s != nil && time.Since(*s) < time.Hour && w.Mailbox.UpdatedAt.Before(*s) {
		f["same_credentials_worked_minutes_ago"] = int(time.Since(*s).Minutes())
	}
	if c := w.Grant.ConsentedAt; c != nil {
		f["consent_age_days"] = int(time.Since(*c).Hours() / 24)
	}
	if !t.Value.IsZero() {
		f["token"] = tokenFacts(t, w.Grant)
	}
	return f
}

func tokenFacts(t mailgrant.Token, g mailgrant.Grant) map[string]any {
	c := ReadClaims(t)
	m := map[string]any{}
	if c.Opaque {
		if c.Scopes != "" {
			m["scope"] = c.Scopes
		}
		return m
	}
	m["aud"] = c.Audience
	if g.Flow == mailgrant.FlowApp {
		m["roles"] = strings.Join(c.Roles, " ")
	} else {
		m["scp"] = c.Scopes
	}
	if upn := first(c.UPN, g.Subject.UPN); upn != "" {
		m["upn"] = upn
	}
	return m
}

// Fate says what a finding about a message means for it, where no code of the
// other side says more.
func Fate(f mailgrant.Finding) mailgrant.Fate {
	switch {
	case f.Retry == mailgrant.RetryNever, f.Cause == "send-as-denied":
		return mailgrant.FateRefused // the mailbox is fine; another From would leave
	case f.NeedsPerson():
		return mailgrant.FateHeld
	}
	return mailgrant.FateLater
}

// Failed is the outcome of an error on the way. What we ourselves say is wrong
// with the settings holds the mailbox; what nobody knows passes.
func Failed(err error, f diagnose.Failure) provider.Outcome {
	if u := (*Unreadable)(nil); errors.As(err, &u) {
		return unread(u)
	}
	var e *mailgrant.Error
	if errors.As(err, &e) {
		if found := ourFinding(e); found != nil {
			return provider.Outcome{Fate: Fate(*found), Finding: found, Reply: found.Raw, RetryAfter: found.RetryAfter}
		}
	}
	f.Err = err
	if f.Text == "" {
		f.Text = err.Error()
	}
	found := diagnose.Explain(f)
	out := provider.Outcome{Fate: mailgrant.FateLater, Finding: &found, Reply: Clean(f.Text, ReplyMax), RetryAfter: found.RetryAfter}
	if found.Cause != diagnose.Unknown && found.NeedsPerson() {
		out.Fate = mailgrant.FateHeld
	}
	return out
}

func unread(u *Unreadable) provider.Outcome {
	return provider.Outcome{Fate: mailgrant.FateLater, Reply: "not sent: the message could not be read", Finding: &mailgrant.Finding{
		Cause: diagnose.Unknown, Title: "Message not read", Sentence: "The message could not be read from mailgrant's own database.",
		Remedy: "Look after the database; the message is tried again by itself.", Who: mailgrant.WhoOperator, Retry: mailgrant.RetryLater,
		Raw: Clean(u.Err.Error(), ReplyMax)}}
}

// ourFinding is what an error of our own says, nil when that is only that the
// way did not work.
func ourFinding(e *mailgrant.Error) *mailgrant.Finding {
	if e.Finding == nil {
		switch e.Code {
		case mailgrant.Misset, mailgrant.Forbidden, mailgrant.NotFound, mailgrant.Lapsed:
		default:
			return nil
		}
	}
	return FindingOf(e)
}

// Error makes the error that a session could not be opened with.
func Error(f mailgrant.Finding, cause error, format string, args ...any) error {
	code := mailgrant.Unavailable
	switch {
	case f.Retry == mailgrant.RetryReauthorize:
		code = mailgrant.Lapsed
	case f.NeedsPerson(), f.Retry == mailgrant.RetryNever:
		code = mailgrant.Misset
	}
	return mailgrant.Errorf(code, cause, format, args...).With(f)
}
