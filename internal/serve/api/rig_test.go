package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
	"github.com/mailgrant/mailgrant/internal/access"
	"github.com/mailgrant/mailgrant/internal/check"
	"github.com/mailgrant/mailgrant/internal/cluster"
	"github.com/mailgrant/mailgrant/internal/grant"
	"github.com/mailgrant/mailgrant/internal/inbox"
	"github.com/mailgrant/mailgrant/internal/outbox"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/route"
	"github.com/mailgrant/mailgrant/internal/serve/api"
	"github.com/mailgrant/mailgrant/internal/store"
	"github.com/mailgrant/mailgrant/internal/vault"
	"github.com/mailgrant/mailgrant/internal/vault/vaulttest"
	"github.com/mailgrant/mailgrant/internal/webhook"
)

const publicURL = "https://mail.contoso.example"

// A rig is the real door over the real store, with a far end that keeps what it is
// sent and a provider that gives tokens.
type rig struct {
	testing.TB
	store    *store.Store
	access   *access.Access
	keeper   *grant.Keeper
	out      *outbox.Outbox
	inbox    *inbox.Inbox
	vault    *vault.Vault
	hooks    *webhook.Teller
	api      *api.API
	door     *httptest.Server // for keys
	operator *httptest.Server // the operator's own
	idp      *httptest.Server
	log      *syncBuffer
	sent     *far
	org      mailgrant.ID
	box      mailgrant.Mailbox // Global of the organization
	checked  atomic.Int64
	unnamed  bool // it has no public address
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// far is the other end: it takes everything.
type far struct {
	mu  sync.Mutex
	all [][]byte
	to  [][]string
	got chan struct{}
}

func (f *far) Send(_ context.Context, h *provider.Handover) provider.Outcome {
	r, err := h.Open()
	if err != nil {
		return provider.Outcome{Fate: mailgrant.FateLater, Reply: err.Error()}
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		return provider.Outcome{Fate: mailgrant.FateLater, Reply: err.Error()}
	}
	f.mu.Lock()
	f.all, f.to = append(f.all, b), append(f.to, h.Recipients)
	f.mu.Unlock()
	select {
	case f.got <- struct{}{}:
	default:
	}
	return provider.Outcome{Fate: mailgrant.FateDelivered, Reply: "250 taken"}
}

func (f *far) Close() error { return nil }

func (f *far) Way(_ context.Context, m mailgrant.Mailbox) (provider.Way, error) {
	return provider.Way{Mailbox: m}, nil
}

// wait gives the message and its recipients once there are n.
func (f *far) wait(t testing.TB, n int) (message string, to []string) {
	t.Helper()
	for {
		f.mu.Lock()
		if len(f.all) >= n {
			defer f.mu.Unlock()
			return string(f.all[n-1]), f.to[n-1]
		}
		f.mu.Unlock()
		select {
		case <-f.got:
		case <-time.After(20 * time.Second):
			t.Fatalf("message %d was not sent", n)
		}
	}
}

func (f *far) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.all)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newRig(t testing.TB, opts ...func(*api.Config)) *rig {
	t.Helper()
	r := &rig{TB: t, log: &syncBuffer{}, sent: &far{got: make(chan struct{}, 1)}}
	ctx := context.WithoutCancel(t.Context())
	log := slog.New(slog.NewJSONHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	r.store, err = store.Open(ctx, filepath.Join(t.TempDir(), "mailgrant.db"), log)
	must(t, err)
	t.Cleanup(func() { r.store.Close() })
	v := vaulttest.New(t)
	r.idp = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"access_token":"access-token-of-a-test","token_type":"Bearer","expires_in":3600}`)
	}))
	t.Cleanup(r.idp.Close)
	router := route.New(r.store)
	r.access = access.New(access.Config{Store: r.store, Vault: v})
	r.keeper = grant.NewKeeper(grant.Config{Store: r.store, Vault: v, PublicURL: publicURL, Log: log,
		HTTP: func(mailgrant.Registration) *http.Client { return r.idp.Client() }})
	one := provider.Transport{Name: "smtp", Open: func(context.Context, provider.Way) (provider.Session, error) { return r.sent, nil }}
	oc := outbox.Config{Store: r.store, Vault: v, Router: router, Sender: r.access, Ways: r.sent, Transports: map[string]provider.Transport{"smtp": one},
		Choose: func(provider.Way, *provider.Handover, map[string]provider.Transport) (provider.Transport, string, error) {
			return one, "the only one", nil
		},
		Owner: cluster.Solo{}, Node: mailgrant.NewID(mailgrant.PrefixNode), Hostname: "mail.contoso.example", PublicURL: publicURL, Log: log,
		MessageBytes: 20 << 20, Recipients: 100, Life: 5 * 24 * time.Hour}
	r.out = outbox.New(oc)
	run, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { r.out.Run(run) })
	t.Cleanup(func() { stop(); wg.Wait() })
	r.inbox = inbox.New(inbox.Config{Store: r.store, Vault: v, Ways: r.sent, Owner: cluster.Solo{}, Log: log, MessageBytes: 20 << 20})
	r.vault = v
	r.hooks = webhook.New(webhook.Config{Store: r.store, Vault: v, HTTP: func() (*http.Client, error) { return http.DefaultClient, nil }, Owner: cluster.Solo{}, Log: log})
	wg.Go(func() { r.hooks.Run(run) })
	c := api.Config{Webhooks: r.hooks, Store: r.store, Access: r.access, Outbox: r.out, Inbox: r.inbox, Router: router, Mailboxes: route.NewMailboxes(r.store, router), Keeper: r.keeper,
		Check: func(_ context.Context, m mailgrant.Mailbox, o check.Options, step func(check.Step)) check.Report {
			r.checked.Add(1)
			s := check.Step{Name: "settings", State: check.Passed, Text: fmt.Sprintf("no message: %v", o.NoSend)}
			if step != nil {
				step(s)
			}
			return check.Report{Mailbox: m.ID, Address: m.Address, OK: true, Steps: []check.Step{s}}
		},
		Backup: func(_ context.Context, w io.Writer) error { _, err := io.WriteString(w, "sealed"); return err },
		KeyStatus: func(context.Context) (client.KeyStatus, error) {
			return client.KeyStatus{Primary: 7, Keys: []uint32{7}}, nil
		},
		RotateKey: func(context.Context) (client.KeyStatus, error) {
			return client.KeyStatus{Primary: 8, Keys: []uint32{7, 8}, Left: 3}, nil
		},
		Health: func(context.Context) client.Health {
			return client.Health{OK: true, Version: "1.2.3", Database: "sqlite", Doors: []client.Door{{URI: "https://x"}}}
		},
		PublicURL: publicURL, Version: "1.2.3", Log: log, MessageBytes: 20 << 20, Recipients: 100}
	for _, o := range opts {
		o(&c)
	}
	r.api = api.New(c)
	r.door, r.operator = httptest.NewServer(r.api), httptest.NewServer(r.api.Operator())
	t.Cleanup(func() { r.api.Stop(); r.door.Close(); r.operator.Close() })
	r.org = r.organization("Contoso")
	r.box = r.mailbox(r.org, "office@contoso.example", mailgrant.RoleGlobal)
	return r
}

func (r *rig) organization(name string) mailgrant.ID {
	o := mailgrant.Organization{ID: mailgrant.NewID(mailgrant.PrefixOrganization), Name: name, CreatedAt: time.Now().UTC()}
	must(r, r.store.CreateOrganization(context.Background(), o))
	return o.ID
}

func (r *rig) mailbox(org mailgrant.ID, address string, role mailgrant.MailboxRole) mailgrant.Mailbox {
	m := mailgrant.Mailbox{ID: mailgrant.NewID(mailgrant.PrefixMailbox), Org: org, Address: address, Role: role, Kind: mailgrant.MailboxOwn,
		Transport: "auto", State: mailgrant.MailboxActive, CreatedAt: time.Now().UTC()}
	must(r, r.store.CreateMailbox(context.Background(), m))
	return m
}

var apps atomic.Int64

// app makes an app and gives it; change may narrow it.
func (r *rig) app(org mailgrant.ID, change func(*mailgrant.App)) mailgrant.App {
	a := mailgrant.App{Org: org, Name: fmt.Sprintf("app-%d", apps.Add(1))}
	if change != nil {
		change(&a)
	}
	a, err := r.access.CreateApp(context.Background(), a)
	must(r, err)
	return a
}

func (r *rig) keyOf(a mailgrant.App, scopes ...mailgrant.Scope) string {
	_, secret, err := r.access.IssueKey(context.Background(), a.Org, a.ID, access.KeyInput{Scopes: scopes})
	must(r, err)
	return secret.Reveal()
}

// key is one of a new app of the organization.
func (r *rig) key(scopes ...mailgrant.Scope) string { return r.keyOf(r.app(r.org, nil), scopes...) }

func (r *rig) client(key string) *client.Client { return client.New(r.door.URL, key) }

// op is the operator's client.
func (r *rig) op(org mailgrant.ID) *client.Client {
	c := client.New(r.operator.URL, "")
	c.Organization = org
	return c
}

// generic is a registration that gives tokens, with a secret.
func (r *rig) generic(org mailgrant.ID) client.Registration {
	name, template, id := "Fabrikam", "generic", "client-1"
	over := map[string]string{"authorization_endpoint": r.idp.URL + "/authorize", "token_endpoint": r.idp.URL + "/token", "smtp_host": "smtp.fabrikam.example"}
	reg, err := r.op(org).CreateRegistration(context.Background(), client.RegistrationSettings{Name: &name, Template: &template, ClientID: &id, Overrides: &over})
	must(r, err)
	_, err = r.op(org).AddCredential(context.Background(), reg.ID, client.NewCredential{Secret: "a-good-secret"})
	must(r, err)
	return reg
}

// active is a grant of the app itself that works.
func (r *rig) active(org mailgrant.ID, address string) client.Grant {
	reg := r.generic(org)
	flow := mailgrant.FlowApp
	g, err := r.op(org).CreateGrant(context.Background(), client.GrantSettings{Registration: &reg.ID, Mailbox: &address, Flow: &flow})
	must(r, err)
	g, err = r.op(org).Activate(context.Background(), g.ID)
	must(r, err)
	return g
}

// A reply is an answer, read.
type reply struct {
	status  int
	header  http.Header
	body    []byte
	problem client.Problem
}

// ask makes a request with a key; header is pairs of name and value.
func (r *rig) ask(method, path, key, body string, header ...string) reply {
	r.Helper()
	return r.do(r.door.URL, method, path, key, strings.NewReader(body), header...)
}

func (r *rig) do(base, method, path, key string, body io.Reader, header ...string) reply {
	r.Helper()
	req, err := http.NewRequest(method, base+path, body)
	must(r, err)
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	if s, ok := body.(*strings.Reader); ok && s.Len() > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	must(r, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	must(r, err)
	out := reply{status: res.StatusCode, header: res.Header, body: b}
	if res.Header.Get("Content-Type") == "application/problem+json" {
		must(r, json.Unmarshal(b, &out.problem))
		r.typed(out.problem)
	}
	return out
}

// wants is the status that a request must get; every refusal must have a remedy.
func (r reply) wants(t testing.TB, status int) reply {
	t.Helper()
	if r.status != status {
		t.Errorf("got %d, want %d: %s", r.status, status, r.body)
	}
	if r.status >= 400 {
		p := r.problem
		if p.Code == "" || p.Title == "" || p.Detail == "" || p.Remedy == "" || p.Status != r.status || p.Trace == "" || string(p.Trace) != r.header.Get("Mailgrant-Trace") {
			t.Errorf("the problem is not whole: %s", r.body)
		}
	}
	return r
}

// at is the field that a refusal must name.
func (r reply) at(t testing.TB, field string) {
	t.Helper()
	if r.problem.Field != field {
		t.Errorf("got field %q, want %q: %s", r.problem.Field, field, r.body)
	}
}

func jsonOf(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func pointer[T any](v T) *T { return &v }

func unmarshal(t testing.TB, b []byte, v any) {
	t.Helper()
	must(t, json.Unmarshal(b, v))
}

// newTrap is a server that nobody should ask.
func newTrap(t testing.TB, sprung func()) string {
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { sprung() }))
	t.Cleanup(s.Close)
	return s.URL
}
