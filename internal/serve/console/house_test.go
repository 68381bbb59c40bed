package console

import (
	"bytes"
	"context"
	"crypto/tls"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/grant"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/store"
	"github.com/mailgrant/mailgrant/internal/vault"
	"github.com/mailgrant/mailgrant/sim"
)

// Chromium runs until the process ends, and so does what reads its notices.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("os/exec.(*Cmd).writerDescriptor.func1"))
}

const (
	alex  = "alex@contoso.example"
	kim   = "kim@contoso.example"
	admin = "admin@contoso.example"
)

// A house is the console on a real keeper, store and vault, beside an imitation
// of Microsoft 365.
type house struct {
	t      testing.TB
	sim    *sim.Sim
	store  *store.Store
	keeper *grant.Keeper
	url    string
	org    mailgrant.ID
	reg    mailgrant.Registration
	log    *logged
	ahead  atomic.Int64 // how far the keeper's clock is ahead, in ns
}

// logged keeps the log, at debug level.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

type options struct {
	returnURLs []string
	prove      func(context.Context, provider.Way) error
	settings   func(*house, *mailgrant.Registration) (secret string)
	formPost   bool
}

func newHouse(t testing.TB, o options) *house {
	t.Helper()
	h := &house{t: t, org: mailgrant.NewID(mailgrant.PrefixOrganization), log: &logged{}}
	var err error
	h.sim, err = sim.Start(t.Context(), sim.Config{})
	must(t, err)
	t.Cleanup(func() { h.sim.Close() })
	log := slog.New(slog.NewJSONHandler(h.log, &slog.HandlerOptions{Level: slog.LevelDebug}))

	h.store, err = store.Open(t.Context(), filepath.Join(t.TempDir(), "mailgrant.db"), log)
	must(t, err)
	t.Cleanup(func() { h.store.Close() })
	master, err := vault.MasterKey(vault.NewMasterKey())
	must(t, err)
	v, err := vault.Open(t.Context(), master, h.store)
	must(t, err)

	srv := httptest.NewUnstartedServer(nil)
	h.url = strings.Replace("http://"+srv.Listener.Addr().String(), "127.0.0.1", "localhost", 1)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: h.sim.CertPool(), MinVersion: tls.VersionTLS12}}
	t.Cleanup(transport.CloseIdleConnections)
	h.keeper = grant.NewKeeper(grant.Config{
		Store: h.store, Vault: v, Node: "nod_test", PublicURL: h.url, ReturnURLs: o.returnURLs, Prove: o.prove, Log: log,
		HTTP: func(mailgrant.Registration) *http.Client {
			return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		},
		Now: func() time.Time { return time.Now().Add(time.Duration(h.ahead.Load())) },
	})
	t.Cleanup(h.keeper.Close)
	srv.Config.Handler = New(Config{Keeper: h.keeper, Ping: h.store.Ping, PublicURL: h.url, Version: "1.2.3", Log: log})
	srv.Start()
	t.Cleanup(srv.Close)

	must(t, h.store.CreateOrganization(t.Context(), mailgrant.Organization{ID: h.org, Name: "Contoso"}))
	h.reg = h.registration("Contoso Mail", sim.ContosoClientID, sim.ContosoClientSecret, o)
	return h
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// registration adds a registration of one of the sim's applications.
func (h *house) registration(name, client, secret string, o options) mailgrant.Registration {
	h.t.Helper()
	r := mailgrant.Registration{ID: mailgrant.NewID(mailgrant.PrefixRegistration), Org: h.org, Name: name, Template: "microsoft365", Tenant: sim.ContosoTenantID, ClientID: client,
		Overrides: map[string]string{"login_url": h.sim.LoginURL(), "graph_url": h.sim.GraphURL(),
			"authorization_endpoint": h.sim.BrowserURL() + "/" + sim.ContosoTenantID + "/oauth2/v2.0/authorize",
			"admin_consent_endpoint": h.sim.BrowserURL() + "/" + sim.ContosoTenantID + "/v2.0/adminconsent"}}
	if o.settings != nil {
		secret = o.settings(h, &r)
	}
	if o.formPost {
		r.Overrides["extra_authorize.response_mode"] = "form_post"
	}
	must(h.t, h.store.CreateRegistration(h.t.Context(), r))
	c := mailgrant.Credential{ID: mailgrant.NewID(mailgrant.PrefixCredential), Org: h.org, Registration: r.ID, Kind: mailgrant.CredentialSecret}
	var err error
	c.Sealed, err = h.keeper.Vault.Seal(vault.Place{Org: h.org, Table: "credentials", Column: "secret", Row: c.ID}, []byte(secret))
	must(h.t, err)
	must(h.t, h.store.CreateCredential(h.t.Context(), c))
	return r
}

// grant adds one that nobody has consented to.
func (h *house) grant(mailbox string, change ...func(*mailgrant.Grant)) mailgrant.Grant {
	h.t.Helper()
	g := mailgrant.Grant{ID: mailgrant.NewID(mailgrant.PrefixGrant), Org: h.org, Registration: h.reg.ID, Mailbox: mailbox, MailboxKind: mailgrant.MailboxOwn,
		Flow: mailgrant.FlowCode, Capabilities: []mailgrant.Capability{mailgrant.CanSMTP}, State: mailgrant.GrantPending}
	for _, f := range change {
		f(&g)
	}
	must(h.t, h.store.CreateGrant(h.t.Context(), g))
	return g
}

// link makes a link and gives its path.
func (h *house) link(g mailgrant.Grant, kind store.FlowKind) string {
	h.t.Helper()
	l, err := h.keeper.Link(h.t.Context(), h.org, g.ID, kind, "ada@contoso.example")
	must(h.t, err)
	return strings.TrimPrefix(l.URL, h.url)
}

// tokens is how often the sim was asked for a token.
func (h *house) tokens() (n int) {
	for name, count := range h.sim.Counts() {
		if strings.HasPrefix(name, "token.") {
			n += count
		}
	}
	return n
}

// A browser is a person's, as far as HTTP goes.
type browser struct {
	h      *house
	client *http.Client
	jar    http.CookieJar // of the provider's pages
}

func (h *house) browser() *browser {
	jar, err := cookiejar.New(nil)
	must(h.t, err)
	tr := &http.Transport{}
	h.t.Cleanup(tr.CloseIdleConnections)
	return &browser{h, &http.Client{Transport: tr, Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, sim.NewJar()}
}

// A reply is an answer, read.
type reply struct {
	Status int
	Header http.Header
	Body   string
	At     string
}

// text is what a reader sees of a page.
func (r reply) text() string {
	_, body, _ := strings.Cut(r.Body, "<body")
	_, body, _ = strings.Cut(body, ">")
	return strings.Join(strings.Fields(html.UnescapeString(tag.ReplaceAllString(body, " "))), " ")
}

var tag = regexp.MustCompile(`<[^>]*>`)

func (b *browser) do(method, path string, form url.Values, change ...func(*http.Request)) reply {
	b.h.t.Helper()
	to := path
	if strings.HasPrefix(path, "/") {
		to = b.h.url + path
	}
	req, err := http.NewRequestWithContext(b.h.t.Context(), method, to, strings.NewReader(form.Encode()))
	must(b.h.t, err)
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	for _, f := range change {
		f(req)
	}
	res, err := b.client.Do(req)
	must(b.h.t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	must(b.h.t, err)
	return reply{res.StatusCode, res.Header, string(body), to}
}

func (b *browser) get(path string, change ...func(*http.Request)) reply {
	b.h.t.Helper()
	return b.do(http.MethodGet, path, nil, change...)
}

// follow goes on while the answer leads to a page of ours.
func (b *browser) follow(r reply) reply {
	b.h.t.Helper()
	for range 5 {
		to := r.Header.Get("Location")
		if r.Status/100 != 3 || strings.HasPrefix(to, "http") && !strings.HasPrefix(to, b.h.url) {
			return r
		}
		r = b.get(to)
	}
	b.h.t.Fatal("the pages go round in circles")
	return r
}

// begin presses the button of a link and gives the provider's address.
func (b *browser) begin(link string) string {
	b.h.t.Helper()
	r := b.do(http.MethodPost, link, nil)
	if r.Status != http.StatusSeeOther || !strings.HasPrefix(r.Header.Get("Location"), b.h.sim.BrowserURL()) {
		b.h.t.Fatalf("begin %s: %d to %q\n%s", link, r.Status, r.Header.Get("Location"), r.text())
	}
	return r.Header.Get("Location")
}

// signIn walks the provider's pages and gives the address it leads back to.
func (b *browser) signIn(at string, who sim.SignIn) string {
	b.h.t.Helper()
	who.Jar = b.jar
	back, err := b.h.sim.SignIn(b.h.t.Context(), at, who)
	must(b.h.t, err)
	return back.String()
}

// consent does all of it and gives the page it ends at.
func (b *browser) consent(link string, who sim.SignIn) reply {
	b.h.t.Helper()
	return b.follow(b.get(b.signIn(b.begin(link), who)))
}

// wants fails unless the page has that status and says all of it.
func (r reply) wants(t testing.TB, status int, says ...string) {
	t.Helper()
	if r.Status != status {
		t.Errorf("%s: status %d, want %d\n%s", r.At, r.Status, status, r.text())
	}
	for _, s := range says {
		if !strings.Contains(r.text(), s) {
			t.Errorf("%s does not say %q:\n%s", r.At, s, r.text())
		}
	}
}

// answerOf asks a handler without a network.
func answerOf(s http.Handler, method, to string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, to, nil)
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

// placeOf is where a request is taken to come from.
func placeOf(t *testing.T, remote, forwarded, trusted string) string {
	t.Helper()
	s := &console{}
	if trusted != "" {
		s.TrustedProxies = []netip.Prefix{netip.MustParsePrefix(trusted)}
	}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = remote
	if forwarded != "" {
		r.Header.Set("X-Forwarded-For", forwarded)
	}
	return s.from(r).String()
}
