package oauth_test

import (
	"bytes"
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/oauth"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hostile is a provider that answers whatever it is told to, and remembers what
// it was asked.
type hostile struct {
	*httptest.Server
	answer http.HandlerFunc

	mu    sync.Mutex
	forms []url.Values
	auths []string
	paths map[string]int
}

func newHostile(t testing.TB, answer http.HandlerFunc) *hostile {
	t.Helper()
	h := &hostile{answer: answer, paths: map[string]int{}}
	h.Server = httptest.NewServer(h)
	t.Cleanup(h.Close)
	return h
}

func (h *hostile) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.ParseForm()
	h.mu.Lock()
	h.forms, h.auths = append(h.forms, r.PostForm), append(h.auths, r.Header.Get("Authorization"))
	h.paths[r.URL.Path]++
	h.mu.Unlock()
	h.answer(w, r)
}

func (h *hostile) last() url.Values {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.forms[len(h.forms)-1]
}

func (h *hostile) count(path string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.paths[path]
}

// client speaks to it with a secret.
func (h *hostile) client() *oauth.Client {
	c := at(h.URL)
	c.HTTP = h.Server.Client()
	return c
}

// at is a client of the provider at an address.
func at(address string) *oauth.Client {
	return &oauth.Client{HTTP: &http.Client{}, ClientID: "client", Credential: oauth.Credential{Kind: mailgrant.CredentialSecret, Secret: mailgrant.NewSecret("s3cret")},
		Settings: provider.Settings{Template: "generic", Name: "Example", Issuer: address, IssuerRule: "exact", TokenEndpoint: address + "/token", JWKSURI: address + "/keys",
			DeviceAuthorizationEndpoint: address + "/device", RevocationEndpoint: address + "/revoke", UserinfoEndpoint: address + "/userinfo",
			AuthorizationEndpoint: address + "/authorize", AuthMethod: "client_secret_post", PKCE: true, ScopeDelimiter: " ", TokenLife: time.Hour}}
}

// newTLS is the same behind a certificate that nobody trusts.
func newTLS(t testing.TB, h http.Handler) *httptest.Server {
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func says(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

// refresh asks once; the answer is the server's affair.
func refresh(ctx context.Context, c *oauth.Client) (oauth.Answer, error) {
	return c.Refresh(ctx, mailgrant.NewSecret("r0"), nil)
}

// answering is a transport that answers by itself.
type answering struct {
	status int
	body   []byte
}

func (a answering) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: a.status, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(a.body)), Request: r}, nil
}
