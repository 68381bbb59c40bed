package inbox_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/cluster"
	"github.com/mailgrant/mailgrant/internal/inbox"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/store"
	"github.com/mailgrant/mailgrant/internal/vault"
)

// A rig is an inbox over a real store, with a provider that does as it is told.
type rig struct {
	t      testing.TB
	dsn    string
	master string
	store  *store.Store
	in     *inbox.Inbox
	far    *far
	box    mailgrant.Mailbox
	config func(*inbox.Config)
	stop   func()
}

// inTime runs a test in which time stands still while anything works.
func inTime(t *testing.T, f func(t *testing.T, r *rig), opts ...func(*rig)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { f(t, newRig(t, filepath.Join(t.TempDir(), "mailgrant.db"), opts...)) })
}

func newRig(t testing.TB, dsn string, opts ...func(*rig)) *rig {
	t.Helper()
	r := &rig{t: t, dsn: dsn, master: vault.NewMasterKey(), far: newFar()}
	r.box = mailgrant.Mailbox{ID: mailgrant.NewID(mailgrant.PrefixMailbox), Org: mailgrant.NewID(mailgrant.PrefixOrganization), Address: "cases@contoso.example",
		Grant: mailgrant.NewID(mailgrant.PrefixGrant), State: mailgrant.MailboxActive, Transport: "auto", Receive: &mailgrant.Receive{Protocol: "imap", Everything: true}}
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
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	s, err := store.Open(ctx, r.dsn, log)
	must(t, err)
	master, err := vault.MasterKey(r.master)
	must(t, err)
	v, err := vault.Open(ctx, master, s)
	must(t, err)
	r.store = s
	if l, err := s.Organizations(ctx); err == nil && len(l) == 0 {
		must(t, s.CreateOrganization(ctx, mailgrant.Organization{ID: r.box.Org, Name: "Contoso"}))
		must(t, s.CreateMailbox(ctx, r.box))
	} else {
		boxes, err := s.Mailboxes(ctx, l[0].ID)
		must(t, err)
		r.box = boxes[0]
	}
	c := inbox.Config{Store: s, Vault: v, Ways: r.far, Readers: map[string]provider.Reader{}, Owner: cluster.Solo{}, Log: log, MessageBytes: 10 << 20, Keep: 720 * time.Hour}
	for _, name := range []string{"imap", "pop", "graph"} {
		c.Readers[name] = r.far.reader(name)
	}
	if r.config != nil {
		r.config(&c)
	}
	r.in = inbox.New(c)
	run, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := r.in.Run(run); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	r.stop = sync.OnceFunc(func() {
		stop()
		wg.Wait()
		if err := s.Close(); err != nil {
			t.Errorf("close the store: %v", err)
		}
	})
}

func (r *rig) end() { r.stop() }

func (r *rig) restart() { r.end(); r.start() }

// arrivals are all, oldest first.
func (r *rig) arrivals() (out []mailgrant.Arrival) {
	r.t.Helper()
	for after := ""; ; {
		l, next, err := r.store.Arrivals(r.t.Context(), r.box.Org, store.ArrivalFilter{Oldest: true, Limit: 500, After: after})
		must(r.t, err)
		out = append(out, l...)
		if next == "" {
			return out
		}
		after = next
	}
}

func (r *rig) subjects() string {
	r.t.Helper()
	var l []string
	for _, a := range r.arrivals() {
		l = append(l, a.Subject)
	}
	return strings.Join(l, " ")
}

func (r *rig) events(kinds ...string) []mailgrant.Event {
	r.t.Helper()
	l, err := r.store.Events(r.t.Context(), r.box.Org, store.EventFilter{Kinds: kinds, Limit: 1000})
	must(r.t, err)
	return l
}

func (r *rig) body(id mailgrant.ID) string {
	r.t.Helper()
	b, err := r.in.Body(r.t.Context(), r.box.Org, id)
	must(r.t, err)
	text, err := io.ReadAll(b)
	must(r.t, err)
	return string(text)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func message(subject string) string {
	return "From: Kim <kim@example.net>\r\nTo: cases@contoso.example\r\nSubject: " + subject + "\r\nMessage-ID: <" + subject +
		"@example.net>\r\nDate: Tue, 24 Nov 2026 10:00:00 +0000\r\n\r\nHello, this is " + subject + ".\r\n"
}

// far is the provider.
type far struct {
	mu      sync.Mutex
	mail    []*mail
	next    int
	changed chan struct{} // closed and made anew when something came
	opens   int
	closes  int
	refuse  func(protocol string) error // of opening
	fetch   func(m *mail) error         // of one message; errMidway cuts it in the middle
	page    int                         // messages of one page
	size    int64                       // that it says of each message; 0 = the true one
	did     []string                    // after reading
	doing   func(remotes []string) error
	can     []mailgrant.Capability
}

type mail struct {
	n       int
	text    string
	at      time.Time
	remotes map[string]string // by protocol
}

var errMidway = errors.New("cut in the middle")

func newFar() *far {
	return &far{changed: make(chan struct{}), page: 3, can: []mailgrant.Capability{mailgrant.CanIMAP, mailgrant.CanPOP, mailgrant.CanAPIRead}}
}

// with changes how it behaves.
func (f *far) with(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// counts are how often a mailbox was opened and closed.
func (f *far) counts() (opens, closes int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.opens, f.closes
}

func (f *far) deeds() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.did)
}

// deliver has messages come.
func (f *far) deliver(texts ...string) { f.deliverAt(time.Now(), texts...) }

func (f *far) deliverAt(at time.Time, texts ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, text := range texts {
		f.next++
		m := &mail{n: f.next, text: text, at: at, remotes: map[string]string{}}
		for _, p := range []string{"imap", "pop", "graph"} {
			m.remotes[p] = fmt.Sprintf("%s-%d", p, f.next)
		}
		f.mail = append(f.mail, m)
	}
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *far) Way(_ context.Context, m mailgrant.Mailbox) (provider.Way, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return provider.Way{Mailbox: m, Grant: mailgrant.Grant{Capabilities: f.can}, Settings: provider.Settings{Name: "Far", IMAPHost: "imap.far", POPHost: "pop.far", GraphURL: "https://graph.far"}}, nil
}

func (f *far) reader(name string) provider.Reader {
	return provider.Reader{Name: name, Open: func(_ context.Context, w provider.Way, r provider.Reading) (provider.Inbox, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.opens++
		if f.refuse != nil {
			if err := f.refuse(name); err != nil {
				return nil, err
			}
		}
		return &farBox{f: f, name: name, r: r, seen: f.changed}, nil
	}}
}

type farBox struct {
	f    *far
	name string
	r    provider.Reading
	seen chan struct{}
}

// Next implements provider.Inbox. Its cursor is the number of the last message.
func (b *farBox) Next(ctx context.Context, from provider.Cursor, take func(provider.Incoming) error) (to provider.Cursor, more bool, err error) {
	at, _ := strconv.Atoi(string(from))
	b.f.mu.Lock()
	var all []*mail
	for _, m := range b.f.mail {
		now := *m
		now.remotes = maps.Clone(m.remotes)
		all = append(all, &now)
	}
	b.seen = b.f.changed
	b.f.mu.Unlock()
	to = from
	n := 0
	for _, m := range all {
		if m.n <= at || m.at.Before(b.r.Since) {
			continue
		}
		if n++; n > b.f.page {
			return to, true, nil
		}
		if err := b.give(m, take); err != nil {
			return to, false, err
		}
		to = provider.Cursor(strconv.Itoa(m.n))
	}
	return to, false, ctx.Err()
}

func (b *farBox) give(m *mail, take func(provider.Incoming) error) error {
	in := provider.Incoming{Remote: m.remotes[b.name], Folder: "INBOX", ReceivedAt: m.at, Size: int64(len(m.text)), Body: strings.NewReader(m.text)}
	b.f.mu.Lock()
	fetch := b.f.fetch
	if b.f.size > 0 {
		in.Size = b.f.size
	}
	b.f.mu.Unlock()
	if fetch != nil {
		switch err := fetch(m); {
		case errors.Is(err, errMidway):
			in.Body = io.MultiReader(strings.NewReader(m.text[:len(m.text)/2]), broken{})
		case err != nil:
			in.Err, in.Body = err, nil
		}
	}
	if in.Size > b.r.Max {
		in.Body = nil
	}
	return take(in)
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func (b *farBox) Wait(ctx context.Context) error {
	select {
	case <-b.seen:
	case <-ctx.Done():
	}
	return nil
}

func (b *farBox) Pushes() bool { return true }

func (b *farBox) Done(_ context.Context, remotes []string, what mailgrant.AfterRead, to string) error {
	b.f.mu.Lock()
	defer b.f.mu.Unlock()
	if b.f.doing != nil {
		if err := b.f.doing(remotes); err != nil {
			return err
		}
	}
	for _, r := range remotes {
		b.f.did = append(b.f.did, string(what)+" "+r+to)
	}
	return nil
}

func (b *farBox) Close() error {
	b.f.mu.Lock()
	defer b.f.mu.Unlock()
	b.f.closes++
	return nil
}
