package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/access"
	"github.com/mailgrant/mailgrant/internal/cluster"
	"github.com/mailgrant/mailgrant/internal/outbox"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/route"
	"github.com/mailgrant/mailgrant/internal/store"
	"github.com/mailgrant/mailgrant/internal/vault"
)

// A rig is an outbox over a real store, with a transport that does as it is told.
type rig struct {
	t      testing.TB
	dsn    string
	master string

	store   *store.Store
	vault   *vault.Vault
	router  *route.Router
	access  *access.Access
	out     *outbox.Outbox
	member  *cluster.Member
	node    mailgrant.ID
	stop    func()
	log     *logs
	org     mailgrant.ID
	app     mailgrant.App
	global  mailgrant.Mailbox
	system  mailgrant.Mailbox
	far     *far
	config  func(*outbox.Config)
	started int
}

// inTime runs a test in which time stands still while anything works.
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
	r := &rig{t: t, dsn: dsn, master: vault.NewMasterKey(), far: newFar()}
	for _, o := range opts {
		o(r)
	}
	r.start()
	t.Cleanup(func() { r.end() })
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
	r.store, r.vault, r.router = s, v, route.New(s)
	r.access = access.New(access.Config{Store: s, Vault: v})
	if r.started++; r.started == 1 {
		r.found(ctx)
	}
	c := outbox.Config{Store: s, Vault: v, Router: r.router, Sender: r.access, Ways: r.far, Transports: map[string]provider.Transport{"smtp": r.far.transport()},
		Choose: func(_ provider.Way, _ *provider.Handover, all map[string]provider.Transport) (provider.Transport, string, error) {
			return all["smtp"], "the only one", nil
		},
		Owner: cluster.Solo{}, Node: mailgrant.NewID(mailgrant.PrefixNode), Hostname: "gate.contoso.example", PublicURL: "https://gate.contoso.example", Log: log,
		MessageBytes: 10 << 20, Recipients: 100, Life: 5 * 24 * time.Hour}
	if r.config != nil {
		r.config(&c)
	}
	if s.Clustered() {
		r.member = cluster.New(s, c.Node, log)
		c.Owner, c.Clustered = r.member, true
	}
	r.out, r.node = outbox.New(c), c.Node
	if r.member != nil {
		r.member.Gained, r.member.Lost = r.out.Gained, r.out.Lost
		s.OnLane(r.out.Look)
		s.OnRetry(r.out.Retried)
	}
	run, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := r.out.Run(run); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	r.stop = sync.OnceFunc(func() {
		stop()
		wg.Wait()
		if r.member != nil { // it beats when the test says so, and now it leaves
			if err := r.member.Run(run); err != nil {
				t.Errorf("leave: %v", err)
			}
		}
	})
}

// end stops the outbox and lets go of the store.
func (r *rig) end() {
	r.stop()
	if r.store != nil {
		r.store.Close()
		r.store = nil
	}
}

// again is another process over the same store, after a clean end.
func (r *rig) again() {
	r.end()
	r.start()
}

func (r *rig) found(ctx context.Context) {
	t := r.t
	if orgs, err := r.store.Organizations(ctx); err != nil || len(orgs) > 0 {
		must(t, err)
		r.refind(ctx, orgs[0].ID)
		return
	}
	r.org = mailgrant.NewID(mailgrant.PrefixOrganization)
	must(t, r.store.CreateOrganization(ctx, mailgrant.Organization{ID: r.org, Name: "Contoso"}))
	r.app = mailgrant.App{ID: mailgrant.NewID(mailgrant.PrefixApp), Org: r.org, Name: "cases", Classes: []mailgrant.Class{mailgrant.ClassUser, mailgrant.ClassSystem}}
	must(t, r.store.CreateApp(ctx, r.app))
	r.global = r.mailbox("office@contoso.example", mailgrant.RoleGlobal)
	r.system = r.mailbox("noreply@contoso.example", mailgrant.RoleSystem)
}

// refind knows again what another process founded.
func (r *rig) refind(ctx context.Context, org mailgrant.ID) {
	r.org = org
	apps, err := r.store.Apps(ctx, org)
	must(r.t, err)
	r.app = apps[0]
	r.global, err = r.store.MailboxByAddress(ctx, org, "office@contoso.example")
	must(r.t, err)
	r.system, err = r.store.MailboxByAddress(ctx, org, "noreply@contoso.example")
	must(r.t, err)
}

func (r *rig) mailbox(address string, role mailgrant.MailboxRole) mailgrant.Mailbox {
	r.t.Helper()
	m := mailgrant.Mailbox{ID: mailgrant.NewID(mailgrant.PrefixMailbox), Org: r.org, Address: address, Role: role, Transport: "auto", State: mailgrant.MailboxActive}
	must(r.t, r.store.CreateMailbox(context.Background(), m))
	return m
}

// set changes the settings of a mailbox as an operator does.
func (r *rig) set(m mailgrant.Mailbox) {
	r.t.Helper()
	must(r.t, r.store.UpdateMailbox(context.Background(), m))
	r.router.Forget()
	r.out.Wake(m.Org, m.ID)
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

func (r *rig) caller(door string) mailgrant.Caller {
	return mailgrant.Caller{Org: r.org, App: r.app, Door: door, Source: "192.0.2.1"}
}

func message(from, subject string) string {
	return "From: " + from + "\r\nTo: a@example.net\r\nSubject: " + subject + "\r\nMessage-ID: <" + strings.ReplaceAll(subject, " ", "-") + "@contoso.example>\r\n\r\nHello.\r\n"
}

// accept hands a message over as a door does.
func (r *rig) accept(c mailgrant.Caller, e outbox.Envelope, msg string) (mailgrant.Submission, error) {
	d := r.out.Draft(context.Background(), c.Org)
	defer d.Discard()
	if _, err := io.WriteString(d, msg); err != nil {
		return mailgrant.Submission{}, err
	}
	return r.out.Accept(context.Background(), c, e, d)
}

func to(list ...string) outbox.Envelope {
	return outbox.Envelope{From: "office@contoso.example", Recipients: list}
}

// send is a message from the Global mailbox at the SMTP door.
func (r *rig) send(subject string) mailgrant.Submission {
	r.t.Helper()
	sub, err := r.accept(r.caller("smtp"), to("a@example.net"), message("office@contoso.example", subject))
	must(r.t, err)
	return sub
}

func (r *rig) sub(id mailgrant.ID) mailgrant.Submission {
	r.t.Helper()
	sub, err := r.store.Submission(context.Background(), r.org, id)
	must(r.t, err)
	return sub
}

func (r *rig) box(id mailgrant.ID) mailgrant.Mailbox {
	r.t.Helper()
	m, err := r.store.Mailbox(context.Background(), r.org, id)
	must(r.t, err)
	return m
}

func (r *rig) attempts(id mailgrant.ID) []mailgrant.Attempt {
	r.t.Helper()
	l, err := r.store.Attempts(context.Background(), r.org, id)
	must(r.t, err)
	return l
}

func (r *rig) events(kinds ...string) []mailgrant.Event {
	r.t.Helper()
	l, err := r.store.Events(context.Background(), r.org, store.EventFilter{Kinds: kinds, Limit: 500})
	must(r.t, err)
	return l
}

func (r *rig) wants(id mailgrant.ID, want mailgrant.SubmissionState) mailgrant.Submission {
	r.t.Helper()
	sub := r.sub(id)
	if sub.State != want {
		r.t.Fatalf("%s is %s, want %s; attempts %+v\n%s", id, sub.State, want, r.attempts(id), r.log)
	}
	return sub
}

// A far is the other side: what it got, when, and how it answers.
type far struct {
	mu     sync.Mutex
	got    []handed
	opened int
	active int
	most   int // at once
	limits mailgrant.Limits
	wayErr error

	takes  time.Duration                                // one answer
	answer func(n int, h handed) provider.Outcome       // of the nth handover, from 1; nil: delivered
	open   func(n int) error                            // of the nth session
	find   func(messageID string) (found bool, e error) // nil: cannot look
}

type handed struct {
	at   time.Time
	id   string // Message-ID
	from string
	to   []string
	body string
	ctx  context.Context
}

func newFar() *far { return &far{} }

// set changes how it answers from now on.
func (f *far) set(change func(f *far)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func (f *far) list() []handed {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]handed(nil), f.got...)
}

// names are the Message-IDs in order, without their brackets and domain.
func (f *far) names() string {
	var out []string
	for _, h := range f.list() {
		out = append(out, strings.TrimSuffix(strings.TrimPrefix(h.id, "<"), "@contoso.example>"))
	}
	return strings.Join(out, " ")
}

func (f *far) Way(_ context.Context, m mailgrant.Mailbox) (provider.Way, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return provider.Way{Mailbox: m, Settings: provider.Settings{Limits: f.limits}}, f.wayErr
}

func (f *far) transport() provider.Transport {
	t := provider.Transport{Name: "smtp", Open: func(ctx context.Context, w provider.Way) (provider.Session, error) {
		f.mu.Lock()
		f.opened++
		n, open := f.opened, f.open
		f.mu.Unlock()
		if open != nil {
			if err := open(n); err != nil {
				return nil, err
			}
		}
		return &session{f: f}, nil
	}}
	t.Find = func(_ context.Context, _ provider.Way, id string, _ time.Time) (bool, error) {
		f.mu.Lock()
		find := f.find
		f.mu.Unlock()
		if find == nil {
			return false, errors.New("nobody can look")
		}
		return find(id)
	}
	return t
}

type session struct {
	f      *far
	closed bool
}

func (s *session) Close() error { s.closed = true; return nil }

func (s *session) Send(ctx context.Context, h *provider.Handover) provider.Outcome {
	f := s.f
	if s.closed {
		panic("a closed session was used")
	}
	body, err := h.Open()
	if err != nil {
		return provider.Outcome{Fate: mailgrant.FateLater, Finding: &mailgrant.Finding{Cause: "unknown", Retry: mailgrant.RetryLater}}
	}
	b, err := io.ReadAll(body)
	if err != nil {
		panic(err)
	}
	if int64(len(b)) != h.Size {
		panic(fmt.Sprintf("%d bytes, said to be %d", len(b), h.Size))
	}
	got := handed{at: time.Now(), id: h.MessageID, from: h.From, to: h.Recipients, body: string(b), ctx: ctx}
	f.mu.Lock()
	f.got = append(f.got, got)
	n, answer, takes := len(f.got), f.answer, f.takes
	f.active++
	f.most = max(f.most, f.active)
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.active--
		f.mu.Unlock()
	}()
	if takes > 0 {
		select {
		case <-time.After(takes):
		case <-ctx.Done():
			return provider.Outcome{Fate: mailgrant.FateUncertain, Broken: true, Finding: &mailgrant.Finding{Cause: "connection-lost", Retry: mailgrant.RetryLater}}
		}
	}
	if answer != nil {
		if out := answer(n, got); out.Fate != "" {
			return out
		}
	}
	return provider.Outcome{Fate: mailgrant.FateDelivered, Reply: "250 2.0.0 OK", RemoteID: fmt.Sprint(n)}
}

func finding(cause string, retry mailgrant.Retry) *mailgrant.Finding {
	return &mailgrant.Finding{Cause: cause, Title: cause, Sentence: "It is " + cause + ".", Remedy: "Mend it.", Who: mailgrant.WhoTenantAdmin, Retry: retry, Confidence: 1}
}

func refused(text string) provider.Outcome {
	return provider.Outcome{Fate: mailgrant.FateRefused, Reply: text, Finding: finding("recipient-rejected", mailgrant.RetryNever)}
}

func put(cause string, after time.Duration) provider.Outcome {
	return provider.Outcome{Fate: mailgrant.FateLater, Reply: "451 4.3.2 later", RetryAfter: after, Finding: finding(cause, mailgrant.RetryLater)}
}

func held() provider.Outcome {
	return provider.Outcome{Fate: mailgrant.FateHeld, Reply: "535 5.7.139", Finding: finding("smtp-auth-disabled-mailbox", mailgrant.RetryFix), Broken: true}
}

func uncertain() provider.Outcome {
	return provider.Outcome{Fate: mailgrant.FateUncertain, Broken: true, Finding: finding("connection-lost", mailgrant.RetryLater)}
}

// logs keeps what was logged.
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
