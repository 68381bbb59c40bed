// Package oauth is our side of OAuth 2.0 on the wire: what is sent to a provider,
// and what is made of its answers.
//
// golang.org/x/oauth2 builds authorization requests and PKCE here. Token requests
// are our own, because they need what it does not do: another scope for each
// refresh, client assertions, answers whose types and sizes are checked, and
// refusals with all their members.
//
// Every failure is an *mailgrant.Error with a finding; SortOf says what it means
// for the grant.
package oauth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/diagnose"
	"github.com/mailgrant/mailgrant/internal/provider"
)

const (
	// answerMax bounds an answer after decompression. R-OA5.
	answerMax = 1 << 20

	// totalWithin bounds a request, even when the client has no limit of its own.
	totalWithin = 20 * time.Second
)

// A Client speaks to one provider for one registration. HTTP must not follow
// redirects: egress sees to it.
type Client struct {
	HTTP       *http.Client
	Settings   provider.Settings
	ClientID   string
	Credential Credential
	Mailbox    string // for diagnosis only
	Now        func() time.Time

	// Explain makes a finding; nil is diagnose.Explain.
	Explain func(diagnose.Failure) mailgrant.Finding
}

func (c *Client) now() time.Time {
	if c.Now == nil {
		return time.Now()
	}
	return c.Now()
}

// Exchange trades the code of a consent for tokens. RFC 6749 section 4.1.3.
func (c *Client) Exchange(ctx context.Context, code, redirectURI, verifier string, scopes []string) (Answer, error) {
	v := url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {redirectURI}}
	if verifier != "" {
		v.Set("code_verifier", verifier)
	}
	if err := c.scope(v, scopes); err != nil {
		return Answer{}, err
	}
	return c.token(ctx, v)
}

// Refresh trades a refresh token for an access token; scopes choose the resource
// where a provider has several. RFC 6749 section 6.
func (c *Client) Refresh(ctx context.Context, refresh mailgrant.Secret, scopes []string) (Answer, error) {
	v := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh.Reveal()}}
	if err := c.scope(v, scopes); err != nil {
		return Answer{}, err
	}
	return c.token(ctx, v)
}

// AppToken gets a token for the app itself. subject is whom a Google service
// account stands in for; others ignore it. RFC 6749 section 4.4.
func (c *Client) AppToken(ctx context.Context, scopes []string, subject string) (Answer, error) {
	v := url.Values{"grant_type": {"client_credentials"}}
	if c.Credential.Kind == mailgrant.CredentialServiceAccount {
		assertion, err := c.serviceAssertion(scopes, subject)
		if err != nil {
			return Answer{}, err
		}
		v = url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {assertion}}
		return c.token(ctx, v)
	}
	if err := c.scope(v, scopes); err != nil {
		return Answer{}, err
	}
	return c.token(ctx, v)
}

// scope refuses two resources before the provider does.
func (c *Client) scope(v url.Values, scopes []string) error {
	if err := c.Settings.OneResource(scopes); err != nil {
		return err
	}
	if len(scopes) > 0 {
		v.Set("scope", strings.Join(scopes, c.delimiter()))
	}
	return nil
}

func (c *Client) delimiter() string {
	if c.Settings.ScopeDelimiter == "" {
		return " "
	}
	return c.Settings.ScopeDelimiter
}

// token makes a token request and reads its answer.
func (c *Client) token(ctx context.Context, v url.Values) (Answer, error) {
	for name, value := range c.Settings.ExtraToken {
		if v.Get(name) == "" {
			v.Set(name, value)
		}
	}
	asked := v.Get("grant_type")
	res, err := c.post(ctx, c.Settings.TokenEndpoint, v, true)
	if err != nil {
		return Answer{}, c.broken(asked, err)
	}
	if res.status != http.StatusOK {
		return Answer{}, c.refused(asked, v.Get("scope"), res)
	}
	a, refusal, err := parseAnswer(res.body, c.now(), c.Settings.TokenLife)
	if refusal != nil {
		return Answer{}, c.refused(asked, v.Get("scope"), res)
	}
	if err != nil {
		return Answer{}, c.odd(asked, err)
	}
	if a.Scopes == nil && v.Get("scope") != "" { // unchanged: RFC 6749 section 5.1
		a.Scopes, a.scopeAssumed = splitScopes(v.Get("scope")), true
	}
	return a, nil
}

// A response is an answer as it came, bounded.
type response struct {
	status     int
	body       []byte
	retryAfter time.Duration
	location   bool // it wanted to send us elsewhere
}

// post sends a form, with proof of who we are where it is asked for.
func (c *Client) post(ctx context.Context, endpoint string, v url.Values, prove bool) (response, error) {
	v.Set("client_id", c.ClientID) // Entra wants it even beside a Basic header: AADSTS900144
	header := http.Header{}
	if prove {
		if err := c.authenticate(v, header); err != nil {
			return response{}, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, totalWithin)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(v.Encode()))
	if err != nil {
		return response{}, err
	}
	req.Header = header
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return c.do(req)
}

var errTooLong = errors.New("the answer is too long")

func (c *Client) do(req *http.Request) (response, error) {
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "mailgrant")
	client := *c.HTTP // a redirect must not be followed, whatever the caller's client does
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := client.Do(req)
	if err != nil {
		return response{}, err
	}
	defer res.Body.Close()
	r := response{status: res.StatusCode, retryAfter: retryAfter(res.Header.Get("Retry-After"), c.now()), location: res.StatusCode/100 == 3}
	r.body, err = io.ReadAll(io.LimitReader(res.Body, answerMax+1))
	if err != nil {
		return r, err
	}
	if len(r.body) > answerMax {
		return r, fmt.Errorf("%w: over %d bytes", errTooLong, answerMax)
	}
	return r, nil
}

// retryAfter reads seconds or a date.
func retryAfter(v string, now time.Time) time.Duration {
	if n, err := strconv.Atoi(strings.TrimSpace(v)); err == nil && n > 0 && n < 1e7 {
		return time.Duration(n) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil && t.After(now) {
		return t.Sub(now)
	}
	return 0
}

// Revoke ends a token at the provider, where that can be done. RFC 7009.
func (c *Client) Revoke(ctx context.Context, token mailgrant.Secret, hint string) error {
	if c.Settings.RevocationEndpoint == "" || token.IsZero() {
		return nil
	}
	v := url.Values{"token": {token.Reveal()}}
	if hint != "" {
		v.Set("token_type_hint", hint)
	}
	res, err := c.post(ctx, c.Settings.RevocationEndpoint, v, true)
	if err != nil {
		return c.broken("revoke", err)
	}
	if res.status != http.StatusOK && !bytes.Contains(res.body, []byte("invalid_token")) {
		return c.refused("revoke", "", res)
	}
	return nil
}
