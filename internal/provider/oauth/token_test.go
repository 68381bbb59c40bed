package oauth_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider/oauth"
)

func TestAnswersThatAreTaken(t *testing.T) {
	for _, c := range []struct {
		name, body string
		life       time.Duration
		refresh    string
		scopes     string
		told       bool
	}{
		{"whole", `{"access_token":"a1","token_type":"Bearer","expires_in":3600,"refresh_token":"r1","scope":"one two"}`, time.Hour, "r1", "one two", true},
		{"expires_in as text", `{"access_token":"a1","token_type":"bearer","expires_in":"3599"}`, 3599 * time.Second, "", "asked", false},
		{"expires_in missing", `{"access_token":"a1","token_type":"BEARER"}`, time.Hour, "", "asked", false},
		{"expires_in null and empty", `{"access_token":"a1","expires_in":null,"refresh_token":null,"error":null}`, time.Hour, "", "asked", false},
		{"expires_in of zero says nothing", `{"access_token":"a1","expires_in":0}`, time.Hour, "", "asked", false},
		{"expires_in with a fraction", `{"access_token":"a1","expires_in":1.5e3}`, 1500 * time.Second, "", "asked", false},
		{"scopes with commas", `{"access_token":"a1","scope":"one,two"}`, time.Hour, "", "one two", true},
		{"scopes as a list", `{"access_token":"a1","scope":["one","two"]}`, time.Hour, "", "one two", true},
		{"no scope at all was granted", `{"access_token":"a1","scope":""}`, time.Hour, "", "", true},
		{"members nobody knows", `{"access_token":"a1","foci":"1","ext_expires_in":{"x":[1]},"client_info":7}`, time.Hour, "", "asked", false},
	} {
		h := newHostile(t, says(200, c.body))
		now := time.Now()
		cl := h.client()
		cl.Now = func() time.Time { return now }
		a, err := cl.Refresh(t.Context(), mailgrant.NewSecret("r0"), []string{"asked"})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if a.Access.Reveal() != "a1" || a.Refresh.Reveal() != c.refresh || a.Life != c.life || !a.Expires.Equal(now.Add(c.life)) || strings.Join(a.Scopes, " ") != c.scopes || a.ScopesTold() != c.told {
			t.Errorf("%s: got %+v, access %q, refresh %q", c.name, a, a.Access.Reveal(), a.Refresh.Reveal())
		}
	}
}

// TestAnswersThatAreNot: each passes by itself, because it may come from a box on
// the way, and none leaves a token.
func TestAnswersThatAreNot(t *testing.T) {
	long := strings.Repeat("x", 33<<10)
	for name, body := range map[string]string{
		"a page":                `<!doctype html><html><title>Sign in to the hotel</title></html>`,
		"nothing":               ``,
		"a list":                `[{"access_token":"a"}]`,
		"cut short":             `{"access_token":"a","token_ty`,
		"two objects":           `{"access_token":"a"}{"access_token":"b"}`,
		"a brace too many":      `{"access_token":"a"}}`,
		"a name twice":          `{"access_token":"a","access_token":"b"}`,
		"no token":              `{"token_type":"Bearer","expires_in":3600}`,
		"an empty token":        `{"access_token":""}`,
		"another kind of token": `{"access_token":"a","token_type":"mac"}`,
		"a DPoP token":          `{"access_token":"a","token_type":"DPoP"}`,
		"a number for a token":  `{"access_token":7}`,
		"a list for a token":    `{"access_token":["a"]}`,
		"an object as expiry":   `{"access_token":"a","expires_in":{}}`,
		"a word as expiry":      `{"access_token":"a","expires_in":"soon"}`,
		"NaN as expiry":         `{"access_token":"a","expires_in":"NaN"}`,
		"an expiry before now":  `{"access_token":"a","expires_in":-5}`,
		"an expiry beyond":      `{"access_token":"a","expires_in":1e300}`,
		"a header in the token": `{"access_token":"a\r\nX: y"}`,
		"a SASL field in it":    `{"access_token":"a\u0001auth=Bearer b"}`,
		"a blank in it":         `{"access_token":"a b"}`,
		"letters beyond ASCII":  `{"access_token":"é"}`,
		"a token too long":      `{"access_token":"` + long + `"}`,
		"a refresh token so":    `{"access_token":"a","refresh_token":"` + long + `"}`,
		"a bad refresh token":   `{"access_token":"a","refresh_token":{"t":"x"}}`,
		"scope as a number":     `{"access_token":"a","scope":5}`,
	} {
		h := newHostile(t, says(200, body))
		a, err := refresh(t.Context(), h.client())
		if oauth.SortOf(err) != oauth.Transient || !errors.Is(err, mailgrant.Unavailable) || !a.Access.IsZero() || !a.Refresh.IsZero() {
			t.Errorf("%s: got %v (%v), want a passing failure", name, err, oauth.SortOf(err))
			continue
		}
		if f := mailgrant.AsError(err).Finding; f == nil || f.Retry != mailgrant.RetryLater || f.Remedy == "" {
			t.Errorf("%s: finding %+v", name, f)
		}
		if strings.Contains(fmt.Sprintf("%v %+v", err, mailgrant.AsError(err).Finding), "s3cret") {
			t.Errorf("%s: the secret is told", name)
		}
	}
}

func TestRefusalsAreSorted(t *testing.T) {
	entra := func(code string, n int, text, sub string) string {
		b, _ := json.Marshal(map[string]any{"error": code, "error_description": fmt.Sprintf("AADSTS%d: %s\r\nTrace ID: x", n, text), "error_codes": []int{n}, "suberror": sub})
		return string(b)
	}
	for _, c := range []struct {
		name   string
		status int
		body   string
		sort   oauth.Sort
		code   mailgrant.Code
		cause  string
	}{
		{"invalid_grant", 400, `{"error":"invalid_grant"}`, oauth.NeedsOwner, mailgrant.Lapsed, "grant-revoked"},
		{"Google's", 400, `{"error":"invalid_grant","error_description":"Token has been expired or revoked."}`, oauth.NeedsOwner, mailgrant.Lapsed, "grant-revoked"},
		{"revoked", 400, entra("invalid_grant", 50173, "The provided grant has expired due to it being revoked", "bad_token"), oauth.NeedsOwner, mailgrant.Lapsed, "password-changed"},
		{"idle", 400, entra("invalid_grant", 700082, "The refresh token has expired due to inactivity.", ""), oauth.NeedsOwner, mailgrant.Lapsed, "grant-expired-inactivity"},
		{"blocked", 400, entra("invalid_grant", 53003, "Access has been blocked by Conditional Access policies.", "message_only"), oauth.NeedsAdmin, mailgrant.Lapsed, "conditional-access-blocked"},
		{"disabled", 400, entra("invalid_grant", 50057, "The user account is disabled.", ""), oauth.NeedsAdmin, mailgrant.Lapsed, "user-disabled"},
		{"second factor", 400, entra("interaction_required", 50076, "you must use multi-factor authentication", "basic_action"), oauth.NeedsOwner, mailgrant.Lapsed, "mfa-required"},
		{"not consented", 400, entra("invalid_grant", 65001, "has not consented", "consent_required"), oauth.NeedsOwner, mailgrant.Lapsed, "user-consent-required"},
		{"not consented, said otherwise", 400, entra("invalid_request", 90008, "has not consented", ""), oauth.NeedsOwner, mailgrant.Lapsed, "user-consent-required"},
		{"a locked account is no fault of the registration", 400, entra("unauthorized_client", 50053, "You've tried to sign in too many times", ""), oauth.NeedsAdmin, mailgrant.Lapsed, "user-disabled"},
		{"login_required", 400, `{"error":"login_required"}`, oauth.NeedsOwner, mailgrant.Lapsed, ""},
		{"secret wrong", 401, entra("invalid_client", 7000215, "Invalid client secret provided.", ""), oauth.Broken, mailgrant.Misset, "client-secret-wrong"},
		{"secret expired", 401, entra("invalid_client", 7000222, "The provided client secret keys are expired.", ""), oauth.Broken, mailgrant.Misset, "client-secret-expired"},
		{"unknown client", 400, entra("unauthorized_client", 700016, "was not found in the directory", ""), oauth.Broken, mailgrant.Misset, "app-not-in-tenant"},
		{"bad scope", 400, `{"error":"invalid_scope"}`, oauth.Broken, mailgrant.Misset, "scope-invalid"},
		{"bad request", 400, `{"error":"invalid_request"}`, oauth.Broken, mailgrant.Misset, ""},
		{"unsupported", 400, `{"error":"unsupported_grant_type"}`, oauth.Broken, mailgrant.Misset, ""},
		{"200 with an error", 200, `{"error":"invalid_grant"}`, oauth.NeedsOwner, mailgrant.Lapsed, "grant-revoked"},
		{"200 with an error that passes", 200, `{"error":"temporarily_unavailable"}`, oauth.Transient, mailgrant.Unavailable, ""},
		{"a loop, Entra thinks", 400, entra("invalid_grant", 50196, "request loop", ""), oauth.Transient, mailgrant.Unavailable, "throttled-app"},
		{"temporarily", 400, `{"error":"temporarily_unavailable"}`, oauth.Transient, mailgrant.Unavailable, ""},
		{"server_error", 400, `{"error":"server_error"}`, oauth.Transient, mailgrant.Unavailable, ""},
		{"an error nobody knows", 400, `{"error":"mercury_retrograde"}`, oauth.Transient, mailgrant.Unavailable, ""},
		{"400 without words", 400, ``, oauth.Transient, mailgrant.Unavailable, ""},
		{"400 with a page", 400, `<html><h1>Bad Request</h1></html>`, oauth.Transient, mailgrant.Unavailable, ""},
		{"404", 404, `<html>Not Found</html>`, oauth.Transient, mailgrant.Unavailable, ""},
		{"500", 500, `{"error":"invalid_grant"}`, oauth.Transient, mailgrant.Unavailable, ""},
		{"503 with a page", 503, `<html>Service Unavailable</html>`, oauth.Transient, mailgrant.Unavailable, ""},
		{"429", 429, `{"error":"invalid_client"}`, oauth.Transient, mailgrant.Unavailable, ""},
		{"types all wrong", 400, `{"error":{"code":5,"status":"RESOURCE_EXHAUSTED","message":[1]},"error_codes":"x","suberror":7}`, oauth.Transient, mailgrant.Unavailable, ""},
		{"deep", 400, `{"error":` + strings.Repeat("[", 20_000), oauth.Transient, mailgrant.Unavailable, ""},
	} {
		h := newHostile(t, says(c.status, c.body))
		cl := h.client()
		cl.Settings.Template = "microsoft365"
		_, err := refresh(t.Context(), cl)
		f := mailgrant.AsError(err).Finding
		if oauth.SortOf(err) != c.sort || !errors.Is(err, c.code) || f == nil || c.cause != "" && f.Cause != c.cause {
			t.Errorf("%s: got %v %v %+v, want %v %v %s", c.name, oauth.SortOf(err), mailgrant.AsError(err).Code, f, c.sort, c.code, c.cause)
			continue
		}
		if needs := c.sort != oauth.Transient; f.NeedsPerson() != needs || !oauth.Asked(err) {
			t.Errorf("%s: retry is %s, asked %v", c.name, f.Retry, oauth.Asked(err))
		}
	}
}

func TestRetryAfterIsRead(t *testing.T) {
	for header, want := range map[string]time.Duration{"120": 2 * time.Minute, "Fri, 01 Jan 2027 00:01:00 GMT": time.Minute, "soon": 0, "-5": 0, "99999999999999999999": 0, "": 0} {
		h := newHostile(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", header)
			w.WriteHeader(429)
		})
		c := h.client()
		c.Now = func() time.Time { return time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC) }
		_, err := refresh(t.Context(), c)
		if got := mailgrant.AsError(err).Finding.RetryAfter; got != want {
			t.Errorf("Retry-After %q: got %v, want %v", header, got, want)
		}
	}
}

func TestOA13EndlessAnswer(t *testing.T) {
	chunk := bytes.Repeat([]byte("x"), 64<<10)
	endless := func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}
	bomb := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		for range 800 { // 50 MB once it is unpacked
			if _, err := z.Write(chunk); err != nil {
				return
			}
		}
		z.Close()
	}
	for name, answer := range map[string]http.HandlerFunc{"endless": endless, "compressed": bomb} {
		h := newHostile(t, answer)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := refresh(t.Context(), h.client())
		runtime.ReadMemStats(&after)
		if oauth.SortOf(err) != oauth.Transient || !errors.Is(err, mailgrant.Unavailable) {
			t.Errorf("%s: got %v", name, err)
		}
		if grew := int64(after.HeapSys) - int64(before.HeapSys); grew > 20<<20 {
			t.Errorf("%s: memory grew by %d bytes", name, grew)
		}
		h.CloseClientConnections()
	}
}

// TestOA14SlowAnswer runs on a clock of its own: twenty seconds pass at once.
func TestOA14SlowAnswer(t *testing.T) {
	for name, drip := range map[string]bool{"never": false, "a byte a second": true} {
		synctest.Test(t, func(t *testing.T) {
			srv, cli := net.Pipe()
			var served sync.WaitGroup
			defer served.Wait()
			defer srv.Close()
			asked := make(chan struct{})
			served.Go(func() {
				srv.Read(make([]byte, 1))
				close(asked)
				io.Copy(io.Discard, srv)
			})
			served.Go(func() {
				<-asked
				if !drip {
					return
				}
				_, err := srv.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"))
				for err == nil {
					<-time.After(time.Second)
					_, err = srv.Write([]byte(" "))
				}
			})
			tr := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return cli, nil }}
			defer tr.CloseIdleConnections()
			c := at("http://provider.example")
			c.HTTP = &http.Client{Transport: tr}
			begun := time.Now()
			_, err := refresh(t.Context(), c)
			if took := time.Since(begun); took != 20*time.Second || oauth.SortOf(err) != oauth.Transient || !errors.Is(err, mailgrant.Unavailable) {
				t.Errorf("%s: %v after %v", name, err, took)
			}
		})
	}
}

func TestOA15RedirectIsNotFollowed(t *testing.T) {
	other := newHostile(t, says(200, `{"access_token":"stolen"}`))
	for _, status := range []int{301, 302, 303, 307, 308} {
		h := newHostile(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", other.URL+"/token")
			w.WriteHeader(status)
		})
		c := h.client()
		c.HTTP = &http.Client{} // one that would follow
		calls := map[string]func() error{
			"refresh": func() error { _, err := refresh(t.Context(), c); return err },
			"code":    func() error { _, err := c.Exchange(t.Context(), "code", "https://x/cb", "v", nil); return err },
			"app":     func() error { _, err := c.AppToken(t.Context(), nil, ""); return err },
			"device":  func() error { _, err := c.Device(t.Context(), nil); return err },
			"revoke":  func() error { return c.Revoke(t.Context(), mailgrant.NewSecret("r"), "") },
			"who":     func() error { _, err := c.Userinfo(t.Context(), mailgrant.NewSecret("a")); return err },
		}
		for name, call := range calls {
			if err := call(); oauth.SortOf(err) != oauth.Transient || err == nil {
				t.Errorf("%d %s: got %v", status, name, err)
			}
		}
		c.HTTP.CloseIdleConnections()
	}
	if len(other.forms) != 0 {
		t.Errorf("the other host was asked %d times", len(other.forms))
	}
}

func TestOA16UntrustedCertificate(t *testing.T) {
	h := newHostile(t, says(200, `{"access_token":"a"}`))
	h.Close()
	h.Server = newTLS(t, h)
	c := h.client()
	c.HTTP = &http.Client{}
	_, err := refresh(t.Context(), c)
	if oauth.SortOf(err) != oauth.Broken || !errors.Is(err, mailgrant.Misset) || len(h.forms) != 0 {
		t.Errorf("got %v (%v), %d requests", err, oauth.SortOf(err), len(h.forms))
	}
	c.HTTP = h.Server.Client() // the one that trusts it
	if _, err := refresh(t.Context(), c); err != nil {
		t.Errorf("with its CA: %v", err)
	}
}

func TestOA18NetworkFailuresPass(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.(*net.TCPConn).SetLinger(0)
			c.Close()
		}
	}()
	reset := "http://" + l.Addr().String()
	defer l.Close()
	for _, to := range []string{reset, "http://127.0.0.1:1", "http://nowhere.invalid"} {
		c := at(to)
		_, err := refresh(t.Context(), c)
		if oauth.SortOf(err) != oauth.Transient || !errors.Is(err, mailgrant.Unavailable) || mailgrant.AsError(err).Finding == nil {
			t.Errorf("%s: got %v", to, err)
		}
	}
}

func TestRFC6749BasicEncodesBothParts(t *testing.T) {
	h := newHostile(t, says(200, `{"access_token":"a"}`))
	c := h.client()
	c.ClientID, c.Credential.Secret, c.Settings.AuthMethod = "id:with+colon", mailgrant.NewSecret("s:+%/ ü"), "client_secret_basic"
	if _, err := refresh(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(h.auths[0], "Basic "))
	id, secret, _ := strings.Cut(string(raw), ":")
	gotID, err1 := url.QueryUnescape(id)
	gotSecret, err2 := url.QueryUnescape(secret)
	if err := errors.Join(err, err1, err2); err != nil || gotID != c.ClientID || gotSecret != "s:+%/ ü" {
		t.Errorf("got %q %q %v", gotID, gotSecret, err)
	}
	if f := h.last(); f.Has("client_secret") || f.Get("client_id") != c.ClientID {
		t.Errorf("body %v", f)
	}
	c.Settings.AuthMethod = "client_secret_post"
	refresh(t.Context(), c)
	if f := h.last(); f.Get("client_secret") != "s:+%/ ü" || h.auths[1] != "" {
		t.Errorf("post: body %v, header %q", f, h.auths[1])
	}
	c.Credential = oauth.Credential{}
	refresh(t.Context(), c)
	if f := h.last(); f.Has("client_secret") || f.Get("client_id") == "" || h.auths[2] != "" {
		t.Errorf("public client: body %v, header %q", f, h.auths[2])
	}
}

func TestOA08ChallengeIsAlwaysS256(t *testing.T) {
	c := newHostile(t, says(200, "")).client()
	v := oauth.NewVerifier()
	if len(v) < 43 || len(v) > 128 || v == oauth.NewVerifier() {
		t.Errorf("verifier %q", v)
	}
	u, err := url.Parse(c.AuthorizeURL(oauth.Request{RedirectURI: "https://m.example/oauth/callback/reg_1", State: "st", Nonce: "no", Verifier: v, Scopes: []string{"openid", "x"}, Hint: "a@x.example"}))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(v))
	for name, want := range map[string]string{"response_type": "code", "client_id": "client", "redirect_uri": "https://m.example/oauth/callback/reg_1", "state": "st", "nonce": "no",
		"scope": "openid x", "login_hint": "a@x.example", "code_challenge_method": "S256", "code_challenge": base64.RawURLEncoding.EncodeToString(sum[:])} {
		if got := u.Query()[name]; len(got) != 1 || got[0] != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if strings.Contains(u.String(), v) {
		t.Error("the verifier is in the address")
	}
}

func TestLoginHintAndPrompt(t *testing.T) {
	for _, c := range []struct{ rule, template, asked, hint, prompt string }{
		{"not-with-select-account", "select_account", "", "", "select_account"},
		{"not-with-select-account", "select_account", "login", "a@x", "login"},
		{"always", "consent", "", "a@x", "consent"},
		{"never", "consent", "", "", "consent"},
	} {
		cl := newHostile(t, says(200, "")).client()
		cl.Settings.LoginHint, cl.Settings.Prompt = c.rule, c.template
		u, _ := url.Parse(cl.AuthorizeURL(oauth.Request{Hint: "a@x", Prompt: c.asked, Verifier: "v"}))
		if q := u.Query(); q.Get("login_hint") != c.hint || q.Get("prompt") != c.prompt {
			t.Errorf("%+v: got %q %q", c, q.Get("login_hint"), q.Get("prompt"))
		}
	}
}

func TestOneResourceForAToken(t *testing.T) {
	h := newHostile(t, says(200, `{"access_token":"a"}`))
	c := h.client()
	c.Settings.TokenResourceRule, c.Settings.ResourceHosts = "single", map[string][]string{"outlook": {"https://outlook.office.com"}, "graph": {"https://graph.microsoft.com"}}
	_, err := c.Refresh(t.Context(), mailgrant.NewSecret("r"), []string{"openid", "https://outlook.office.com/SMTP.Send", "https://graph.microsoft.com/Mail.Send"})
	if !errors.Is(err, mailgrant.Invalid) || len(h.forms) != 0 || oauth.Asked(err) {
		t.Errorf("got %v, %d requests", err, len(h.forms))
	}
}

func TestRevoke(t *testing.T) {
	h := newHostile(t, says(200, ""))
	c := h.client()
	if err := c.Revoke(t.Context(), mailgrant.NewSecret("r1"), "refresh_token"); err != nil || h.last().Get("token") != "r1" || h.last().Get("client_secret") != "s3cret" {
		t.Errorf("got %v, %v", err, h.last())
	}
	h.answer = says(400, `{"error":"invalid_token"}`)
	if err := c.Revoke(t.Context(), mailgrant.NewSecret("r1"), ""); err != nil {
		t.Errorf("already gone: %v", err)
	}
	h.answer = says(503, "")
	if err := c.Revoke(t.Context(), mailgrant.NewSecret("r1"), ""); err == nil {
		t.Error("a failure is not told")
	}
	c.Settings.RevocationEndpoint = ""
	if err := c.Revoke(t.Context(), mailgrant.NewSecret("r1"), ""); err != nil || len(h.forms) != 3 {
		t.Errorf("no endpoint: %v", err)
	}
}

func TestOA25RefusedOnThePage(t *testing.T) {
	c := newHostile(t, says(200, "")).client()
	long := strings.Repeat("<script>alert(1)</script>\r\n\x1b[31m", 3000)
	for q, want := range map[string]oauth.Sort{
		"error=access_denied":                                            oauth.NeedsOwner,
		"error=invalid_scope":                                            oauth.Broken,
		"error=temporarily_unavailable":                                  oauth.Transient,
		"error=" + url.QueryEscape(long):                                 oauth.Transient,
		"error=access_denied&error_description=" + url.QueryEscape(long): oauth.NeedsOwner,
	} {
		v, _ := url.ParseQuery(q)
		err := c.Denied(v)
		e := mailgrant.AsError(err)
		if oauth.SortOf(err) != want || e.Finding == nil {
			t.Errorf("%.60s: got %v", q, err)
			continue
		}
		for _, s := range []string{e.Message, e.Finding.Raw, e.Finding.Sentence, errors.Unwrap(err).Error()} {
			if len(s) > 1200 || strings.ContainsAny(s, "\r\n\x1b") {
				t.Errorf("%.60s: %d bytes in %.80q", q, len(s), s)
			}
		}
	}
}
