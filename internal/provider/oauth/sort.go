package oauth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/diagnose"
)

// A Sort is what a failure means for the grant it happened to.
type Sort int

const (
	// Transient passes by itself. The grant stays as it is.
	Transient Sort = iota

	// NeedsOwner and NeedsAdmin end this grant until that person acts.
	NeedsOwner
	NeedsAdmin

	// Broken is a fault of the registration. All its grants share it, and none of
	// them is to blame: it is an alarm of its own and lapses nothing.
	Broken
)

func (s Sort) String() string {
	return [...]string{"transient", "needs-owner", "needs-administrator", "registration-broken"}[s]
}

// sorted carries the sort beside the cause.
type sorted struct {
	sort  Sort
	cause error
}

func (s *sorted) Error() string { return s.cause.Error() }
func (s *sorted) Unwrap() error { return s.cause }

// SortOf says what err means; anything not from here is transient.
func SortOf(err error) Sort {
	var s *sorted
	if errors.As(err, &s) {
		return s.sort
	}
	if errors.Is(err, mailgrant.Lapsed) {
		return NeedsOwner
	}
	if errors.Is(err, mailgrant.Invalid) || errors.Is(err, mailgrant.Misset) {
		return Broken
	}
	return Transient
}

// Asked says whether err is about a request that was made: a provider's answer, or
// the lack of one. All else was found out before, and costs the provider nothing.
func Asked(err error) bool {
	var s *sorted
	return errors.As(err, &s)
}

// Revoked says whether the provider refused a refresh token and gave a reason that
// holds for all tokens of that person: then the one before it is not worth a try.
func Revoked(err error) bool {
	var r *refusal
	return errors.As(err, &r) && (r.SubError != "" && r.SubError != "bad_token" || len(r.Codes) > 0 && !slices.Contains(r.Codes, 70000))
}

// CodeOf is the OAuth error in err, "" when there is none.
func CodeOf(err error) string {
	var r *refusal
	if errors.As(err, &r) {
		return r.Code
	}
	return ""
}

// registrationFaults are errors that no mailbox can cause. R-OA6.
var registrationFaults = []string{"invalid_client", "unauthorized_client", "invalid_request", "invalid_scope", "invalid_target",
	"unsupported_grant_type", "unsupported_response_type", "invalid_resource", "invalid_tenant", "invalid_redirect_uri"}

// personal are causes that concern one person, whatever OAuth error they come
// with: AADSTS50053 of a locked account may be an unauthorized_client.
var personal = []string{"user-consent-required", "admin-consent-required", "user-disabled", "user-not-found", "mfa-required",
	"conditional-access-blocked", "account-not-allowed-for-app", "password-changed", "sign-in-frequency"}

// grantFaults end one grant.
var grantFaults = []string{"invalid_grant", "interaction_required", "consent_required", "login_required", "access_denied",
	"authorization_declined", "account_selection_required", "user_password_expired", "expired_token", "bad_verification_code"}

// sortOf weighs the OAuth error first: that is what clients may branch on. The
// finding only tells who must act.
func sortOf(r *refusal, f mailgrant.Finding) Sort {
	switch {
	case r.Status == http.StatusTooManyRequests, r.Status >= 500:
		return Transient
	case slices.Contains(registrationFaults, r.Code):
		if slices.Contains(personal, f.Cause) {
			return person(f)
		}
		return Broken
	case !slices.Contains(grantFaults, r.Code):
		return Transient
	case f.Cause == "clock-skew", f.Who == mailgrant.WhoOperator && f.Retry == mailgrant.RetryFix:
		return Broken
	case f.Cause == "throttled-app": // AADSTS50196 comes as invalid_grant
		return Transient
	}
	return person(f)
}

func person(f mailgrant.Finding) Sort {
	if f.Who == mailgrant.WhoTenantAdmin {
		return NeedsAdmin
	}
	return NeedsOwner
}

// explain asks diagnosis, with the facts of this request.
func (c *Client) explain(x diagnose.Failure, step string) mailgrant.Finding {
	if x.Protocol == "" {
		x.Protocol = "oauth"
	}
	facts := map[string]any{"grant": factGrant(step), "provider": c.Settings.Template, "token_url": c.Settings.TokenEndpoint, "step": "token"}
	if c.Mailbox != "" {
		facts["mailbox"] = c.Mailbox
	}
	for k, v := range x.Context {
		facts[k] = v
	}
	x.Context = facts
	if c.Explain != nil {
		return c.Explain(x)
	}
	return diagnose.Explain(x)
}

// factGrant is the grant type in diagnosis' words.
func factGrant(step string) string {
	switch step {
	case "urn:ietf:params:oauth:grant-type:device_code":
		return "device_code"
	case "urn:ietf:params:oauth:grant-type:jwt-bearer":
		return "jwt-bearer"
	case "authorize":
		return "authorization_code"
	}
	return step
}

// refused makes an error of an answer that says no.
func (c *Client) refused(step, scope string, res response) error {
	r := parseRefusal(res.body)
	r.Status, r.RetryAfter = res.status, res.retryAfter
	text := string(res.body)
	if r.Description != "" {
		text = r.Description
	}
	if strings.TrimSpace(text) == "" {
		text = http.StatusText(res.status)
	}
	if len(text) > 4<<10 {
		text = text[:4<<10]
	}
	if res.location {
		return c.wrap(Transient, &r, c.explain(diagnose.Failure{Text: "the token endpoint answers with a redirect", HTTPStatus: res.status}, step))
	}
	f := c.explain(diagnose.Failure{Text: text, Code: r.Code, SubError: r.SubError, ErrorCodes: r.Codes, HTTPStatus: res.status,
		RetryAfter: res.retryAfter, Context: map[string]any{"requested_scope": scope}}, step)
	return c.wrap(sortOf(&r, f), &r, f)
}

// Denied makes an error of the error a browser brought back from the provider's
// page. RFC 6749 section 4.1.2.1.
func (c *Client) Denied(q url.Values) error {
	r := refusal{Code: clean(q.Get("error"), 100), Description: clean(q.Get("error_description"), 500), SubError: clean(q.Get("error_subcode"), 100), Status: http.StatusBadRequest}
	f := c.explain(diagnose.Failure{Text: r.Description, Code: r.Code, SubError: r.SubError, Context: map[string]any{"step": "authorize"}}, "authorize")
	return c.wrap(sortOf(&r, f), &r, f)
}

// broken makes an error of a request without an answer.
func (c *Client) broken(step string, err error) error {
	var e *mailgrant.Error
	if errors.As(err, &e) && e.Code != mailgrant.Unavailable { // our own: a credential, egress
		return e
	}
	if errors.Is(err, errTooLong) {
		return c.odd(step, err)
	}
	sort := Transient
	if untrusted(err) {
		sort = Broken
	}
	if ue := (*url.Error)(nil); errors.As(err, &ue) {
		err = ue.Err
	}
	f := c.explain(diagnose.Failure{Err: err, Protocol: "network", Context: map[string]any{"url": c.Settings.TokenEndpoint}}, step)
	return c.wrap(sort, err, f)
}

// untrusted says whether the server could not prove who it is: that does not pass
// by waiting, and nothing was sent to it.
func untrusted(err error) bool {
	var ca x509.UnknownAuthorityError
	var host x509.HostnameError
	var cert x509.CertificateInvalidError
	var verify *tls.CertificateVerificationError
	return errors.As(err, &ca) || errors.As(err, &host) || errors.As(err, &cert) || errors.As(err, &verify)
}

// odd is an answer that makes no sense. It may be a box on the way, so it passes.
func (c *Client) odd(step string, err error) error {
	f := c.explain(diagnose.Failure{Text: "the token endpoint's answer cannot be used: " + err.Error()}, step)
	return c.wrap(Transient, err, f)
}

func (c *Client) wrap(sort Sort, cause error, f mailgrant.Finding) error {
	code := map[Sort]mailgrant.Code{Transient: mailgrant.Unavailable, NeedsOwner: mailgrant.Lapsed, NeedsAdmin: mailgrant.Lapsed, Broken: mailgrant.Misset}[sort]
	if errors.Is(cause, context.Canceled) {
		code = mailgrant.Unavailable
	}
	message := f.Sentence
	if message == "" {
		message = c.Settings.Name + " gave no token"
	}
	switch { // the sort is what counts here
	case sort == Transient && f.Retry != mailgrant.RetryNow:
		f.Retry = mailgrant.RetryLater
	case sort == Broken:
		f.Retry = mailgrant.RetryFix
	case sort != Transient && !f.NeedsPerson():
		f.Retry = mailgrant.RetryReauthorize
	}
	return mailgrant.Errorf(code, &sorted{sort, cause}, "%s", message).With(f)
}
