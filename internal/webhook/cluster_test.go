package webhook_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/store"
	"github.com/mailgrant/mailgrant/internal/webhook"
	"github.com/mailgrant/mailgrant/test/real"
)

// pair is two nodes over one database and the same receivers.
func pair(t *testing.T, config func(*webhook.Config)) (a, b *rig) {
	t.Helper()
	url := real.Postgres(t)
	a = newRig(t, url, func(r *rig) { r.config = config })
	b = newRig(t, url, func(r *rig) { r.far, r.master, r.client = a.far, a.master, a.client })
	return a, b
}

// eventually asks until it is so, while the nodes beat.
func eventually(t *testing.T, what string, so func() bool, nodes ...*rig) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(60 * time.Second); !so(); {
		for _, r := range nodes {
			must(t, r.member.Beat(t.Context()))
		}
		select {
		case <-tick.C:
		case <-deadline:
			for _, r := range nodes {
				t.Logf("%s:\n%s%s", r.node, r.places(), r.log)
			}
			t.Fatalf("never: %s", what)
		}
	}
}

// Each webhook is told by one node, in order, whichever node the events come from
// and wherever it was made; when a node leaves, the other goes on.
func TestRE08OneNodeTellsEach(t *testing.T) {
	t.Parallel()
	a, b := pair(t, nil)
	eventually(t, "the nodes share", func() bool {
		var n int
		for i := range 64 {
			if _, mine := b.member.Fence(mailgrant.ID(fmt.Sprint("whk_", i))); mine {
				n++
			}
		}
		return n > 10 && n < 54
	}, a, b)
	var hooks []mailgrant.Webhook
	for i := range 8 {
		hooks = append(hooks, []*rig{a, b}[i%2].hook(fmt.Sprint("h", i)))
	}
	const each = 30
	var wg sync.WaitGroup
	for m := range 4 {
		wg.Go(func() {
			for n := range each {
				[]*rig{a, b}[(n+m)%2].say(fmt.Sprint("mbx_", m), n)
			}
		})
	}
	wg.Wait()
	all := func(n int) func() bool { return func() bool { return a.far.firsts(hooks, n) } }
	eventually(t, "all is told, in order", all(each), a, b)
	b.end()
	for m := range 4 {
		a.say(fmt.Sprint("mbx_", m), each)
	}
	eventually(t, "the one that is left tells all", all(each+1), a)
	eventually(t, "nothing waits", func() bool {
		return !slices.ContainsFunc(hooks, func(w mailgrant.Webhook) bool { waiting, dead := a.counts(w); return waiting+dead > 0 })
	}, a)
}

// A node that lost its webhook keeps nothing of what it was told since: the other
// tells it again.
func TestRE08LostWebhookIsNotWritten(t *testing.T) {
	t.Parallel()
	var frozen atomic.Bool
	thaw := make(chan struct{})
	a, b := pair(t, func(c *webhook.Config) {
		c.Store = &freezing{Store: c.Store, frozen: &frozen, thaw: thaw}
	})
	eventually(t, "the first has all", func() bool { _, mine := a.member.Fence("whk_x"); return mine }, a)
	w := a.hook("cases")
	a.say("mbx_a", 0)
	eventually(t, "it tells", func() bool { return a.now(w).TakenAt != nil }, a)
	frozen.Store(true)
	a.say("mbx_a", 1)
	eventually(t, "the second is told, and not recorded", func() bool { return a.far.taken("cases", "mbx_a") == "0 1" }, a)
	before := a.now(w).Position
	must(t, b.store.Leave(t.Context(), a.node)) // thought dead
	eventually(t, "the other tells it again", func() bool { return a.far.taken("cases", "mbx_a") == "0 1 1" && b.now(w).Position > before }, b)
	position := b.now(w).Position
	close(thaw)
	b.say("mbx_a", 2)
	eventually(t, "the other goes on", func() bool {
		return strings.HasPrefix(a.far.taken("cases", "mbx_a"), "0 1 1 2") && b.now(w).Position > position
	}, b)
	if waiting, dead := b.counts(w); waiting+dead != 0 {
		t.Errorf("%d wait, %d are given up", waiting, dead)
	}
}

// A freezing store records nothing until it is thawed.
type freezing struct {
	webhook.Store
	frozen *atomic.Bool
	thaw   chan struct{}
}

// RecordTelling implements webhook.Store.
func (f *freezing) RecordTelling(ctx context.Context, t store.Telling) error {
	if f.frozen.Load() {
		<-f.thaw
	}
	return f.Store.RecordTelling(context.WithoutCancel(ctx), t)
}

// firsts says whether each webhook took n things of four mailboxes, each for the
// first time in order: when a webhook moves, some are told again.
func (f *far) firsts(hooks []mailgrant.Webhook, n int) bool {
	next := map[string]int{}
	for _, g := range f.list() {
		lane := g.host + " " + g.mailbox
		if g.took && string(g.event.Subject) == fmt.Sprint("thing_", next[lane]) {
			next[lane]++
		}
	}
	done := 0
	for _, have := range next {
		if have == n {
			done++
		}
	}
	return done == 4*len(hooks)
}

// places is where each webhook stands, as a node sees it.
func (r *rig) places() string {
	var out strings.Builder
	all, err := r.store.Webhooks(context.Background(), r.org)
	last, _ := r.store.LastEvent(context.Background(), r.org)
	fmt.Fprintf(&out, "the last event is %d, %v\n", last, err)
	for _, w := range all {
		_, mine := r.member.Fence(w.ID)
		waiting, dead := r.counts(w)
		fmt.Fprintf(&out, "%s %s at %d, %d wait, %d are given up, mine: %v\n", w.Name, w.State, w.Position, waiting, dead, mine)
	}
	return out.String()
}
