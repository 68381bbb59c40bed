// Package webhook tells applications what happened.
//
// A webhook is a place in the event log of its organization: what stands before
// it has been told. Its line reads on from there, and posts each event that the
// webhook wants, signed after Standard Webhooks (https://www.standardwebhooks.com).
//
//	log ──read──▶ lanes, one a mailbox ──▶ a few requests at once ──▶ place, tries: durable
//	                │  ▲
//	   not taken ───▼──┴── when it is due, or the endpoint answers again
//	              waiting rows ──after three days──▶ dead letters ──replay──▶ waiting
//
// Order is kept for each mailbox. An event that is not taken holds up those of
// its own mailbox only; they get rows, all others none. When the endpoint takes
// nothing at all, the place stays where it is, and one event at a time is tried.
//
// Everything is told at least once. After a crash no more than repeats events
// are told again, under the same webhook-id.
package webhook

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/cluster"
	"github.com/mailgrant/mailgrant/internal/store"
	"github.com/mailgrant/mailgrant/internal/vault"
)

// A Store is what webhooks and what they were told are kept in.
type Store interface {
	EveryWebhook(ctx context.Context) ([]mailgrant.Webhook, error)
	Webhooks(ctx context.Context, org mailgrant.ID) ([]mailgrant.Webhook, error)
	Webhook(ctx context.Context, org, id mailgrant.ID) (mailgrant.Webhook, error)
	WebhookSecrets(ctx context.Context, org, id mailgrant.ID) (store.WebhookSecrets, error)
	CreateWebhook(ctx context.Context, w mailgrant.Webhook, sealed []byte) error
	UpdateWebhook(ctx context.Context, w mailgrant.Webhook) error
	RotateWebhook(ctx context.Context, org, id mailgrant.ID, sealed []byte, both time.Time) error
	DeleteWebhook(ctx context.Context, org, id mailgrant.ID) error
	App(ctx context.Context, org, id mailgrant.ID) (mailgrant.App, error)
	Mailbox(ctx context.Context, org, id mailgrant.ID) (mailgrant.Mailbox, error)

	Events(ctx context.Context, org mailgrant.ID, f store.EventFilter) ([]mailgrant.Event, error)
	EventsHidden(ctx context.Context, org mailgrant.ID, after int64) (bool, error)
	EventBefore(ctx context.Context, org mailgrant.ID, at time.Time) (int64, error)
	LastEvents(ctx context.Context) (map[mailgrant.ID]int64, error)
	LastEvent(ctx context.Context, org mailgrant.ID) (int64, error)
	WatchEvents() (added <-chan struct{}, stop func())

	RecordTelling(ctx context.Context, t store.Telling) error
	WaitingLanes(ctx context.Context, org, webhook mailgrant.ID) ([]store.WaitingLane, error)
	WaitingEvents(ctx context.Context, org, webhook, mailbox mailgrant.ID, limit int) ([]store.WaitingEvent, error)
	WaitingFor(ctx context.Context, org mailgrant.ID, seqs []int64) (map[int64][]mailgrant.ID, error)
	ArrivalsTold(ctx context.Context, org mailgrant.ID, ids []mailgrant.ID) error
	AddReplay(ctx context.Context, org, webhook mailgrant.ID, r store.Replay) error
	Replays(ctx context.Context, org, webhook mailgrant.ID) ([]store.Replay, error)
	ReplayDead(ctx context.Context, org, webhook mailgrant.ID) (int64, error)
	Delivered(ctx context.Context, org, webhook, id mailgrant.ID) (mailgrant.Delivery, error)
	AddDelivery(ctx context.Context, d mailgrant.Delivery) error
	AddEvent(ctx context.Context, e mailgrant.Event) error
}

// Config is what a Teller is made of.
type Config struct {
	Store     Store
	Vault     *vault.Vault
	HTTP      func() (*http.Client, error) // reaches only what the egress rules allow, and follows nothing
	May       func(*url.URL) error         // says of an address what the egress rules say of it
	Owner     cluster.Owner
	Clustered bool
	Log       *slog.Logger

	// Steps is told of each step of telling; tests stop the world there.
	Steps func(step string)
}

// A Teller tells all webhooks that are this node's. It is safe for concurrent use.
type Teller struct {
	Config
	now    func() time.Time
	within time.Duration // one request

	mu    sync.Mutex
	lines map[mailgrant.ID]*line
	ended bool
	asked map[mailgrant.ID]mailgrant.ID // webhooks to be looked at, and their organizations
	all   bool                          // all are to be looked at
	look  chan struct{}
	wg    sync.WaitGroup
}

// New makes a Teller; Run starts its lines.
func New(c Config) *Teller {
	if c.Steps == nil {
		c.Steps = func(string) {}
	}
	return &Teller{Config: c, now: time.Now, within: totalWithin, lines: map[mailgrant.ID]*line{}, asked: map[mailgrant.ID]mailgrant.ID{}, look: make(chan struct{}, 1)}
}

// lookEvery is when a node of a cluster looks which webhooks are its own, should a
// word between nodes have been lost.
const lookEvery = 30 * time.Second

// Run tells until ctx ends, and then lets what is under way finish.
func (t *Teller) Run(ctx context.Context) error {
	added, stop := t.Store.WatchEvents() // before the first look: nothing falls between
	defer stop()
	var tick <-chan time.Time
	if t.Clustered {
		ticker := time.NewTicker(lookEvery)
		defer ticker.Stop()
		tick = ticker.C
	} else if err := t.start(ctx, func(mailgrant.ID) bool { return true }); err != nil && ctx.Err() == nil {
		return err
	}
	seen := map[mailgrant.ID]int64{}
	for {
		select {
		case <-added:
			t.wake(ctx, seen)
		case <-t.look:
			t.lookAt(ctx)
		case <-tick:
			t.lookForNew(ctx)
		case <-ctx.Done():
			t.end()
			return nil
		}
	}
}

// start begins the lines that are ours and fall under which.
func (t *Teller) start(ctx context.Context, which func(webhook mailgrant.ID) bool) error {
	all, err := t.Store.EveryWebhook(ctx)
	if err != nil {
		return err
	}
	for _, w := range all {
		if which(w.ID) {
			t.begin(w.Org, w.ID)
		}
	}
	return nil
}

// begin starts a line, or has the one that is there look anew.
func (t *Teller) begin(org, id mailgrant.ID) {
	if _, mine := t.Owner.Fence(id); !mine {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var before <-chan struct{}
	if l := t.lines[id]; l != nil {
		if !l.ending.Load() && !l.closing.Load() {
			l.poke(&l.changed)
			return
		}
		before = l.over
	}
	if t.ended {
		return
	}
	l := newLine(t, org, id, before)
	t.lines[id] = l
	t.wg.Add(1)
	go func() {
		defer t.wg.Done()
		l.run()
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.lines[id] != l {
			return
		}
		delete(t.lines, id)
		if l.changed.Load() && !t.ended { // somebody said so while it came to its end
			t.ask(org, id)
		}
	}()
}

// wake has the lines read on whose organizations have new events.
func (t *Teller) wake(ctx context.Context, seen map[mailgrant.ID]int64) {
	t.mu.Lock()
	lines := make([]*line, 0, len(t.lines))
	orgs := map[mailgrant.ID]bool{}
	for _, l := range t.lines {
		lines = append(lines, l)
		orgs[l.org] = true
	}
	t.mu.Unlock()
	if len(orgs) > 1 {
		last, err := t.Store.LastEvents(ctx)
		if err != nil {
			t.Log.Warn("look for new events", "err", err)
		}
		for org := range orgs {
			if err == nil && last[org] == seen[org] {
				delete(orgs, org)
			}
			seen[org] = last[org]
		}
	}
	for _, l := range lines {
		if orgs[l.org] {
			l.poke(&l.added)
		}
	}
}

// Look has a webhook looked at, for its settings or a replay have changed; without
// one, all.
func (t *Teller) Look(org, id mailgrant.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ask(org, id)
}

// ask is Look with mu held.
func (t *Teller) ask(org, id mailgrant.ID) {
	if id == "" {
		t.all = true
	} else {
		t.asked[id] = org
	}
	select {
	case t.look <- struct{}{}:
	default:
	}
}

func (t *Teller) lookAt(ctx context.Context) {
	t.mu.Lock()
	asked, all := t.asked, t.all
	t.asked, t.all = map[mailgrant.ID]mailgrant.ID{}, false
	t.mu.Unlock()
	if all {
		t.lookAll(ctx)
		return
	}
	for id, org := range asked {
		w, err := t.Store.Webhook(ctx, org, id)
		if err == nil && w.State == mailgrant.WebhookDisabled || errors.Is(err, mailgrant.NotFound) {
			t.mu.Lock()
			if l := t.lines[id]; l != nil {
				l.stop()
			}
			t.mu.Unlock()
			continue
		}
		if err != nil {
			t.Log.Warn("look at a webhook", "webhook", id, "err", err)
		}
		t.begin(org, id)
	}
}

// lookForNew starts the lines that should be there.
func (t *Teller) lookForNew(ctx context.Context) {
	missing := func(id mailgrant.ID) bool {
		t.mu.Lock()
		defer t.mu.Unlock()
		return t.lines[id] == nil
	}
	if err := t.start(ctx, missing); err != nil && ctx.Err() == nil {
		t.Log.Warn("look at the webhooks", "err", err)
	}
}

func (t *Teller) lookAll(ctx context.Context) {
	if err := t.start(ctx, func(mailgrant.ID) bool { return true }); err != nil && ctx.Err() == nil {
		t.Log.Warn("look at the webhooks", "err", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range t.lines {
		l.poke(&l.changed) // and find out which are switched off
		l.poke(&l.added)
	}
}

// Gained starts the lines of shards that this node owns now.
func (t *Teller) Gained(shards []int64) {
	set := setOf(shards)
	if err := t.start(context.Background(), func(id mailgrant.ID) bool { return set[cluster.Shard(id)] }); err != nil {
		t.Log.Error("take webhooks over", "err", err) // again within lookEvery
	}
}

// Lost stops the lines of shards. Wait returns when nothing of them is under way.
func (t *Teller) Lost(shards []int64) (wait func()) {
	set := setOf(shards)
	t.mu.Lock()
	defer t.mu.Unlock()
	var gone []*line
	for id, l := range t.lines {
		if set[cluster.Shard(id)] {
			gone = append(gone, l)
			delete(t.lines, id)
			l.stop()
		}
	}
	return func() {
		for _, l := range gone {
			<-l.over
		}
	}
}

func setOf(shards []int64) map[int64]bool {
	set := make(map[int64]bool, len(shards))
	for _, n := range shards {
		set[n] = true
	}
	return set
}

func (t *Teller) end() {
	t.mu.Lock()
	t.ended = true
	for _, l := range t.lines {
		l.stop()
	}
	t.mu.Unlock()
	t.wg.Wait()
}
