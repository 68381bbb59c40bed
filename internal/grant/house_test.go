package grant_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/grant"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/store"
	"github.com/mailgrant/mailgrant/internal/vault"
	"github.com/mailgrant/mailgrant/internal/vault/vaulttest"
)

func TestMain(m *testing.M) {
	if secondProcess() {
		return
	}
	goleak.VerifyTestMain(m, // but for the PostgreSQL that all tests share
		goleak.IgnoreAnyFunction("github.com/mailgrant/mailgrant/test/real.(*PostgresServer).Start.func1"), goleak.IgnoreAnyFunction("os/exec.(*Cmd).Start.func2"))
}

const alex, mallory = "alex@contoso.example", "mallory@evil.example"

// A house is a keeper with a database, a vault and a provider.
type house struct {
	*grant.Keeper
	t     testing.TB
	ctx   context.Context
	store *store.Store
	db    *faultyStore
	vault *vault.Vault
	idp   *idp
	org   mailgrant.ID
	dir   string // of the database
	reg   mailgrant.Registration

	mu     sync.Mutex
	ahead  time.Duration // of the keeper's clock
	opened []string      // tokens that Prove was shown
	prove  error
	told   []string // that they were connected
}

func newHouse(t testing.TB) *house {
	t.Helper()
	dir := t.TempDir()
	s, err := store.Open(t.Context(), filepath.Join(dir, "m.db"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	h := furnish(t, s, vaulttest.New(t), newIDP())
	h.dir = dir
	return h
}

func furnish(t testing.TB, s *store.Store, v *vault.Vault, p *idp) *house {
	t.Helper()
	h := &house{t: t, ctx: t.Context(), store: s, vault: v, idp: p, org: mailgrant.NewID(mailgrant.PrefixOrganization)}
	h.db = &faultyStore{Store: s}
	h.must(s.CreateOrganization(h.ctx, mailgrant.Organization{ID: h.org, Name: "Contoso"}))
	h.reg = mailgrant.Registration{ID: mailgrant.NewID(mailgrant.PrefixRegistration), Org: h.org, Name: "Example", Template: "generic", Issuer: p.base, ClientID: "client",
		ScopesExtra: []string{"mail"}, DeviceFlow: true}
	h.must(s.CreateRegistration(h.ctx, h.reg))
	h.secret("s1", nil)
	h.Keeper = h.keeper(mailgrant.NewID(mailgrant.PrefixNode))
	return h
}

// keeper makes one more keeper over the same database.
func (h *house) keeper(node mailgrant.ID) *grant.Keeper {
	return grant.NewKeeper(grant.Config{Store: h.db, Vault: h.vault, Node: node, PublicURL: "https://mail.contoso.example", ReturnURLs: []string{"https://app.contoso.example/done?x=1"},
		HTTP: func(mailgrant.Registration) *http.Client { return h.idp.client() },
		Now: func() time.Time {
			h.mu.Lock()
			defer h.mu.Unlock()
			return time.Now().Add(h.ahead)
		},
		Connected: func(_ context.Context, g mailgrant.Grant, rights []string) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.told = append(h.told, g.Mailbox+": "+strings.Join(rights, ", "))
		},
		Prove: func(ctx context.Context, w provider.Way) error {
			tok, err := w.Token(ctx, "", false)
			h.mu.Lock()
			defer h.mu.Unlock()
			h.opened = append(h.opened, w.Mailbox.Address+" "+tok.Value.Reveal())
			return errors.Join(err, h.prove)
		}})
}

func (h *house) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// pass lets time go by for the keeper and the provider.
func (h *house) pass(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ahead += d
	h.idp.set(func() { h.idp.ahead = h.ahead })
}

func (h *house) secret(value string, notAfter *time.Time) mailgrant.Credential {
	h.t.Helper()
	c := mailgrant.Credential{ID: mailgrant.NewID(mailgrant.PrefixCredential), Org: h.org, Registration: h.reg.ID, Kind: mailgrant.CredentialSecret, NotAfter: notAfter}
	var err error
	c.Sealed, err = h.vault.Seal(vault.Place{Org: h.org, Table: "credentials", Column: "secret", Row: c.ID}, []byte(value))
	h.must(err)
	h.must(h.store.CreateCredential(h.ctx, c))
	return c
}

// pending makes a grant that nobody consented to yet.
func (h *house) pending(mailbox string, flow mailgrant.Flow, kind mailgrant.MailboxKind) mailgrant.Grant {
	h.t.Helper()
	g := mailgrant.Grant{ID: mailgrant.NewID(mailgrant.PrefixGrant), Org: h.org, Registration: h.reg.ID, Mailbox: mailbox, MailboxKind: kind, Flow: flow,
		Capabilities: []mailgrant.Capability{mailgrant.CanSMTP}, State: mailgrant.GrantPending}
	h.must(h.store.CreateGrant(h.ctx, g))
	return g
}

// active makes a grant that Alex consented to.
func (h *house) active() mailgrant.Grant {
	h.t.Helper()
	g := h.pending(alex, mailgrant.FlowCode, mailgrant.MailboxOwn)
	r, err := h.consent(g, alex)
	h.must(err)
	return r.Grant
}

// consent is a whole trip of a browser.
func (h *house) consent(g mailgrant.Grant, who string) (grant.Result, error) {
	h.t.Helper()
	c, err := h.Begin(h.ctx, h.org, g.ID, grant.BeginOptions{By: "test"})
	h.must(err)
	return h.Complete(h.ctx, h.reg.ID, h.idp.consent(c.URL, who), c.Cookie)
}

func (h *house) grant(id mailgrant.ID) mailgrant.Grant {
	h.t.Helper()
	g, err := h.store.Grant(h.ctx, h.org, id)
	h.must(err)
	return g
}

// kept is the refresh token in the database.
func (h *house) kept(id mailgrant.ID) string {
	h.t.Helper()
	g := h.grant(id)
	if len(g.Sealed) == 0 {
		return ""
	}
	b, err := h.vault.Open(vault.Place{Org: h.org, Table: "grants", Column: "refresh_token", Row: id}, g.Sealed)
	h.must(err)
	return string(b)
}

// token asks for one.
func (h *house) token(g mailgrant.Grant) (string, error) {
	t, err := h.Token(h.ctx, h.org, g.ID, "mail")
	return t.Value.Reveal(), err
}

func (h *house) events(kind string) int {
	h.t.Helper()
	l, err := h.store.Events(h.ctx, h.org, store.EventFilter{Kinds: []string{kind}, Limit: 500})
	h.must(err)
	return len(l)
}

func (h *house) is(err error, code mailgrant.Code, what string) *mailgrant.Error {
	h.t.Helper()
	if err == nil {
		h.t.Errorf("%s: got no error, want %s", what, code)
		return &mailgrant.Error{}
	}
	e := mailgrant.AsError(err)
	if !errors.Is(err, code) {
		h.t.Errorf("%s: got %v (%s), want %s", what, err, e.Code, code)
	}
	if e.Remedy == "" {
		h.t.Errorf("%s: no remedy in %v", what, err)
	}
	return e
}

// A faultyStore fails where a test wants it to.
type faultyStore struct {
	*store.Store
	mu    sync.Mutex
	fails map[string]int // how often yet, by method; -1: always
	hook  func(method string)
}

var errDown = mailgrant.Errorf(mailgrant.Unavailable, nil, "the database is away").Fix("wait")

func (f *faultyStore) step(method string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.hook != nil {
		f.hook(method)
	}
	n := f.fails[method]
	if n > 0 {
		f.fails[method]--
	}
	if n != 0 {
		return fmt.Errorf("%s: %w", method, errDown)
	}
	return nil
}

func (f *faultyStore) fail(method string, times int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fails == nil {
		f.fails = map[string]int{}
	}
	f.fails[method] = times
}

func (f *faultyStore) Registration(ctx context.Context, org, id mailgrant.ID) (mailgrant.Registration, error) {
	if err := f.step("Registration"); err != nil {
		return mailgrant.Registration{}, err
	}
	return f.Store.Registration(ctx, org, id)
}

func (f *faultyStore) Credentials(ctx context.Context, org, id mailgrant.ID) ([]mailgrant.Credential, error) {
	if err := f.step("Credentials"); err != nil {
		return nil, err
	}
	return f.Store.Credentials(ctx, org, id)
}

func (f *faultyStore) Grant(ctx context.Context, org, id mailgrant.ID) (mailgrant.Grant, error) {
	if err := f.step("Grant"); err != nil {
		return mailgrant.Grant{}, err
	}
	return f.Store.Grant(ctx, org, id)
}

func (f *faultyStore) LeaseGrant(ctx context.Context, org, id, node mailgrant.ID, d time.Duration) (mailgrant.Grant, bool, error) {
	if err := f.step("LeaseGrant"); err != nil {
		return mailgrant.Grant{}, false, err
	}
	return f.Store.LeaseGrant(ctx, org, id, node, d)
}

func (f *faultyStore) ReleaseGrant(ctx context.Context, org, id, node mailgrant.ID) error {
	return errors.Join(f.step("ReleaseGrant"), f.Store.ReleaseGrant(ctx, org, id, node))
}

func (f *faultyStore) RenewGrant(ctx context.Context, r store.Renewal) error {
	if err := f.step("RenewGrant"); err != nil {
		return err
	}
	return f.Store.RenewGrant(ctx, r)
}

func (f *faultyStore) LapseGrant(ctx context.Context, org, id, node mailgrant.ID, generation int64, x mailgrant.Finding) error {
	if err := f.step("LapseGrant"); err != nil {
		return err
	}
	return f.Store.LapseGrant(ctx, org, id, node, generation, x)
}

func (f *faultyStore) NoteGrant(ctx context.Context, org, id mailgrant.ID, x *mailgrant.Finding, at *time.Time) error {
	if err := f.step("NoteGrant"); err != nil {
		return err
	}
	return f.Store.NoteGrant(ctx, org, id, x, at)
}

func (f *faultyStore) CompleteConsent(ctx context.Context, g mailgrant.Grant) error {
	if err := f.step("CompleteConsent"); err != nil {
		return err
	}
	return f.Store.CompleteConsent(ctx, g)
}

func (f *faultyStore) TakeFlow(ctx context.Context, hash []byte) (store.Flow, error) {
	if err := f.step("TakeFlow"); err != nil {
		return store.Flow{}, err
	}
	return f.Store.TakeFlow(ctx, hash)
}

func (f *faultyStore) RevokeGrant(ctx context.Context, org, id mailgrant.ID) error {
	if err := f.step("RevokeGrant"); err != nil {
		return err
	}
	return f.Store.RevokeGrant(ctx, org, id)
}

func (f *faultyStore) AddEvent(ctx context.Context, e mailgrant.Event) error {
	if err := f.step("AddEvent"); err != nil {
		return err
	}
	return f.Store.AddEvent(ctx, e)
}

var _ grant.Store = (*faultyStore)(nil)

// answers without the parameters named.
func without(q url.Values, names ...string) url.Values {
	out := url.Values{}
	for k, v := range q {
		out[k] = v
	}
	for _, n := range names {
		out.Del(n)
	}
	return out
}
