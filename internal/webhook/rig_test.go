package webhook_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/cluster"
	"github.com/mailgrant/mailgrant/internal/store"
	"github.com/mailgrant/mailgrant/internal/vault"
	"github.com/mailgrant/mailgrant/internal/webhook"
)

// A rig is a teller over a real store, with receivers that do as they are told.
type rig struct {
	t      testing.TB
	dsn    string
	master string
	store  *store.Store
	vault  *vault.Vault
	teller *webhook.Teller
	member *cluster.Member
	node   mailgrant.ID
	org    mailgrant.ID
	log    *logs
	far    *far
	client *http.Client
	config func(*webhook.Config)
	stop   func()
}

func inTime(t *testing.T, f func(t *testing.T, r *rig), opts ...func(*rig)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, filepath.Join(t.TempDir(), "mailgrant.db"), opts...)
		f(t, r)
	})
}

func newRig(t testing.TB, dsn string, opts ...func(*rig)) *rig {
	t.Helper()
	r := &rig{t: t, dsn: dsn, master: vault.NewMasterKey(), far: &far{}}
	r.client = &http.Client{Transport: r.far}
	for _, o := range opts {
		o(r)
	}
	r.start()
	t.Cleanup(r.end)
	return r
}

// start opens everything; again after end it is the next process.
func (r *rig) start() {
	t := r.t
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	r.log = &logs{}
	log := slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s, err := store.Open(ctx, r.dsn, log)
	must(t, err)
	master, err := vault.MasterKey(r.master)
	must(t, err)
	v, err := vault.Open(ctx, master, s)
	must(t, err)
	r.store, r.vault = s, v
	orgs, err := s.Organizations(ctx)
	must(t, err)
	if len(orgs) == 0 {
		r.org = mailgrant.NewID(mailgrant.PrefixOrganization)
		must(t, s.CreateOrganization(ctx, mailgrant.Organization{ID: r.org, Name: "Contoso"}))
	} else {
		r.org = orgs[0].ID
	}
	c := webhook.Config{Store: s, Vault: v, HTTP: func() (*http.Client, error) { return r.client, nil }, Owner: cluster.Solo{}, Log: log}
	if s.Clustered() {
		r.node = mailgrant.NewID(mailgrant.PrefixNode)
		r.member = cluster.New(s, r.node, log)
		c.Owner, c.Clustered = r.member, true
	}
	if r.config != nil {
		r.config(&c)
	}
	r.teller = webhook.New(c)
	if r.member != nil {
		r.member.Gained, r.member.Lost = r.teller.Gained, r.teller.Lost
		s.OnLane(r.teller.Look)
	}
	run, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := r.teller.Run(run); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	r.stop = sync.OnceFunc(func() {
		stop()
		wg.Wait()
		if r.member != nil {
			if err := r.member.Run(run); err != nil {
				t.Errorf("leave: %v", err)
			}
		}
	})
}

func (r *rig) end() {
	r.stop()
	if r.store != nil {
		r.store.Close()
		r.store = nil
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func is(t testing.TB, err error, code mailgrant.Code) {
	t.Helper()
	if !errors.Is(err, code) {
		t.Fatalf("got %v, want %s", err, code)
	}
	if mailgrant.AsError(err).Remedy == "" {
		t.Errorf("%v: no remedy", err)
	}
}

// hook makes a webhook.
func (r *rig) hook(name string, change ...func(*mailgrant.Webhook)) mailgrant.Webhook {
	r.t.Helper()
	w, _ := r.hookAndSecret(name, change...)
	return w
}

func (r *rig) hookAndSecret(name string, change ...func(*mailgrant.Webhook)) (mailgrant.Webhook, mailgrant.Secret) {
	r.t.Helper()
	w := mailgrant.Webhook{Org: r.org, Name: name, URL: "https://" + name + ".contoso.example/hook", Kinds: []string{"reader.*", "arrival.*"}}
	for _, f := range change {
		f(&w)
	}
	w, secret, err := r.teller.Create(context.Background(), w)
	must(r.t, err)
	return w, secret
}

// say adds an event of a mailbox.
func (r *rig) say(mailbox string, n int) {
	r.t.Helper()
	must(r.t, r.store.AddEvent(context.Background(), mailgrant.Event{Org: r.org, Kind: "reader.failing", Mailbox: mailgrant.ID(mailbox), Subject: mailgrant.ID(fmt.Sprint("thing_", n))}))
}

func (r *rig) now(w mailgrant.Webhook) mailgrant.Webhook {
	r.t.Helper()
	got, err := r.store.Webhook(context.Background(), r.org, w.ID)
	must(r.t, err)
	return got
}

func (r *rig) counts(w mailgrant.Webhook) (waiting, dead int64) {
	r.t.Helper()
	waiting, dead, err := r.store.WaitingCounts(context.Background(), r.org, w.ID)
	must(r.t, err)
	return waiting, dead
}

func (r *rig) events(kinds ...string) []mailgrant.Event {
	r.t.Helper()
	l, err := r.store.Events(context.Background(), r.org, store.EventFilter{Kinds: kinds, Limit: 10_000})
	must(r.t, err)
	return l
}

// A far is all receivers.
type far struct {
	mu     sync.Mutex
	got    []told
	active map[string]int
	most   int // at once of one host
	takes  time.Duration
	answer func(got told) (status int, h http.Header, err error) // nil: 204
}

// A told is a request that a receiver saw.
type told struct {
	at      time.Time
	host    string
	id      string
	header  http.Header
	body    []byte
	event   mailgrant.Event
	mailbox string
	took    bool
}

// parse is the event in a body.
func parse(body []byte) mailgrant.Event {
	var p struct{ Data mailgrant.Event }
	if err := json.Unmarshal(body, &p); err != nil {
		panic(err)
	}
	return p.Data
}

// RoundTrip implements http.RoundTripper.
func (f *far) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	req.Body.Close()
	if err != nil {
		return nil, err
	}
	got := told{at: time.Now(), host: strings.TrimSuffix(req.URL.Host, ".contoso.example"), id: req.Header.Get("webhook-id"), header: req.Header, body: body}
	got.event = parse(body)
	got.mailbox = string(got.event.Mailbox)
	f.mu.Lock()
	if f.active == nil {
		f.active = map[string]int{}
	}
	f.active[got.host]++
	f.most = max(f.most, f.active[got.host])
	answer, takes := f.answer, f.takes
	f.mu.Unlock()
	if takes > 0 {
		select {
		case <-time.After(takes):
		case <-req.Context().Done():
			err = req.Context().Err()
		}
	}
	status, h := http.StatusNoContent, http.Header{}
	if answer != nil && err == nil {
		if status, h, err = answer(got); h == nil {
			h = http.Header{}
		}
	}
	got.took = err == nil && status/100 == 2
	f.mu.Lock()
	defer f.mu.Unlock()
	f.active[got.host]--
	f.got = append(f.got, got)
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(bytes.NewReader([]byte("the answer\x1b[31m"))), Request: req}, nil
}

func (f *far) set(change func(*far)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func (f *far) list() []told {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]told(nil), f.got...)
}

// taken are the things of a mailbox that a host took, in order.
func (f *far) taken(host, mailbox string) string {
	var out []string
	for _, g := range f.list() {
		if g.took && g.host == host && g.mailbox == mailbox {
			out = append(out, strings.TrimPrefix(string(g.event.Subject), "thing_"))
		}
	}
	return strings.Join(out, " ")
}

func upTo(n int) string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprint(i))
	}
	return strings.Join(out, " ")
}

type logs struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
