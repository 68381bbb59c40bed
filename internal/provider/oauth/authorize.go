package oauth

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/mailgrant/mailgrant"
)

// A Request is one trip to the provider's page.
type Request struct {
	RedirectURI string
	State       string
	Nonce       string
	Verifier    string // of PKCE
	Scopes      []string
	Hint        string // the mailbox that is expected
	Prompt      string // "" = the settings'
}

// NewVerifier makes the secret of PKCE: RFC 7636 section 4.1.
func NewVerifier() string { return oauth2.GenerateVerifier() }

// AuthorizeURL is where to send the browser. PKCE is S256 whatever the metadata
// says: Entra supports it and does not announce it.
func (c *Client) AuthorizeURL(r Request) string {
	cfg := oauth2.Config{ClientID: c.ClientID, RedirectURL: r.RedirectURI, Endpoint: oauth2.Endpoint{AuthURL: c.Settings.AuthorizationEndpoint}}
	var opts []oauth2.AuthCodeOption
	set := func(name, value string) {
		if value != "" {
			opts = append(opts, oauth2.SetAuthURLParam(name, value))
		}
	}
	for name, value := range c.Settings.ExtraAuthorize {
		set(name, value)
	}
	if c.Settings.PKCE {
		opts = append(opts, oauth2.S256ChallengeOption(r.Verifier))
	}
	prompt := r.Prompt
	if prompt == "" {
		prompt = c.Settings.Prompt
	}
	set("prompt", prompt)
	set("nonce", r.Nonce)
	set("scope", strings.Join(r.Scopes, c.delimiter()))
	if c.hints(prompt) {
		set("login_hint", r.Hint)
	}
	return cfg.AuthCodeURL(r.State, opts...)
}

// hints says whether the expected mailbox is named. Entra refuses login_hint
// beside select_account. There the picker wins: a hint would sign a person in
// silently, and a picker makes them choose; what they chose is compared with what
// was expected in either case.
func (c *Client) hints(prompt string) bool {
	switch c.Settings.LoginHint {
	case "never":
		return false
	case "not-with-select-account":
		return !strings.Contains(prompt, "select_account")
	}
	return true
}

// AdminConsentURL is where an administrator approves for everybody. It yields no
// token. Application permissions need .default.
func (c *Client) AdminConsentURL(redirectURI, state string, scopes []string) (string, error) {
	if c.Settings.AdminConsentEndpoint == "" {
		return "", mailgrant.Errorf(mailgrant.Invalid, nil, "%s has no consent for a whole organization", c.Settings.Name).
			Fix("let the owner of the mailbox consent")
	}
	u, err := url.Parse(c.Settings.AdminConsentEndpoint)
	if err != nil {
		return "", mailgrant.Errorf(mailgrant.Misset, err, "the admin consent address is not an address").Fix("correct admin_consent_endpoint in the overrides")
	}
	q := u.Query()
	q.Set("client_id", c.ClientID)
	q.Set("redirect_uri", redirectURI)
	q.Set("state", state)
	q.Set("scope", strings.Join(scopes, " "))
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// A Device is a device code under way: what a person must do, and what we poll
// with.
type Device struct {
	Code            mailgrant.Secret
	UserCode        string
	VerificationURI string
	Complete        string // with the code in it
	Expires         time.Time
	Interval        time.Duration
}

const (
	deviceLife     = 10 * time.Minute // at most; also our own limit for any flow
	deviceInterval = 5 * time.Second
)

// Device begins a device code: RFC 8628 section 3.1. A provider that is found by
// its metadata keeps to the paragraph and wants to know who asks; Microsoft and
// Google document a request without proof.
func (c *Client) Device(ctx context.Context, scopes []string) (Device, error) {
	const step = "urn:ietf:params:oauth:grant-type:device_code"
	if c.Settings.DeviceAuthorizationEndpoint == "" {
		return Device{}, mailgrant.Errorf(mailgrant.Invalid, nil, "%s has no device code", c.Settings.Name).Fix("use the consent in the browser")
	}
	v := url.Values{"scope": {strings.Join(scopes, c.delimiter())}}
	res, err := c.post(ctx, c.Settings.DeviceAuthorizationEndpoint, v, c.Settings.Discovery != "none")
	if err != nil {
		return Device{}, c.broken(step, err)
	}
	if res.status != http.StatusOK {
		return Device{}, c.refused(step, v.Get("scope"), res)
	}
	m, err := object(res.body)
	if err != nil {
		return Device{}, c.odd(step, err)
	}
	f := fields{m: m}
	d := Device{Code: f.token("device_code"), UserCode: clean(f.text("user_code"), 40), VerificationURI: f.text("verification_uri"), Complete: f.text("verification_uri_complete")}
	if d.VerificationURI == "" {
		d.VerificationURI = f.text("verification_url") // Google
	}
	d.Expires = c.now().Add(min(f.seconds("expires_in", deviceLife), deviceLife))
	d.Interval = max(f.seconds("interval", deviceInterval), time.Second)
	if f.err == nil && (d.Code.IsZero() || d.UserCode == "" || !webAddress(d.VerificationURI)) {
		f.err = errors.New("device_code, user_code or verification_uri is missing")
	}
	if f.err != nil {
		return Device{}, c.odd(step, f.err)
	}
	if d.Complete != "" && !webAddress(d.Complete) {
		d.Complete = ""
	}
	return d, nil
}

func webAddress(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && len(s) < 2000
}

// Pending says how a poll stands when there is no token yet.
type Pending int

const (
	NotPending Pending = iota
	Waiting            // ask again after the interval
	SlowDown           // ask again, five seconds later than before, for good
)

// PollDevice asks once whether the person is through. RFC 8628 section 3.5.
func (c *Client) PollDevice(ctx context.Context, code mailgrant.Secret) (Answer, Pending, error) {
	v := url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "device_code": {code.Reveal()}}
	a, err := c.token(ctx, v)
	switch CodeOf(err) {
	case "authorization_pending":
		return a, Waiting, nil
	case "slow_down":
		return a, SlowDown, nil
	case "expired_token", "bad_verification_code":
		return a, NotPending, mailgrant.Errorf(mailgrant.Lapsed, err, "the code was not entered in time").Fix("begin again")
	}
	return a, NotPending, err
}

// Userinfo asks who the bearer of a token is. OpenID Connect Core section 5.3.
func (c *Client) Userinfo(ctx context.Context, token mailgrant.Secret) (map[string]json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, totalWithin)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.Settings.UserinfoEndpoint, nil)
	if err != nil {
		return nil, c.broken("userinfo", err)
	}
	req.Header.Set("Authorization", "Bearer "+token.Reveal())
	res, err := c.do(req)
	if err != nil {
		return nil, c.broken("userinfo", err)
	}
	if res.status != http.StatusOK {
		return nil, c.refused("userinfo", "", res)
	}
	m, err := object(res.body)
	if err != nil {
		return nil, c.odd("userinfo", err)
	}
	return m, nil
}
