package cluster_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/cluster"
	"github.com/mailgrant/mailgrant/internal/store"
	"github.com/mailgrant/mailgrant/test/real"
)

// A node is a member with a store of its own over the common database.
type node struct {
	*cluster.Member
	id    mailgrant.ID
	store *store.Store

	mu    sync.Mutex
	holds map[int64]bool
	busy  chan struct{} // what is under way for lost shards; nil: nothing
}

func newNode(t *testing.T, url string) *node {
	t.Helper()
	s, err := store.Open(t.Context(), url, slog.New(slog.DiscardHandler))
	must(t, err)
	t.Cleanup(func() { s.Close() })
	n := &node{id: mailgrant.NewID(mailgrant.PrefixNode), store: s, holds: map[int64]bool{}}
	n.Member = cluster.New(s, n.id, slog.New(slog.DiscardHandler))
	n.Gained = func(l []int64) {
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, i := range l {
			n.holds[i] = true
		}
	}
	n.Lost = func(l []int64) func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, i := range l {
			delete(n.holds, i)
		}
		busy := n.busy
		return func() {
			if busy != nil {
				<-busy
			}
		}
	}
	return n
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (n *node) beat(t *testing.T) {
	t.Helper()
	must(t, n.Beat(t.Context()))
}

func (n *node) shards(t *testing.T) int {
	t.Helper()
	m, err := n.store.OwnShards(t.Context(), n.id)
	must(t, err)
	return len(m)
}

// until asks until it is so; what waits for the other's goroutine takes a moment.
func until(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !so(); {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func sql(t *testing.T, url, text string, args ...any) {
	t.Helper()
	c, err := pgx.Connect(t.Context(), url)
	must(t, err)
	defer c.Close(context.Background())
	_, err = c.Exec(t.Context(), text, args...)
	must(t, err)
}

// mailbox finds one whose shard a node owns.
func (n *node) mailbox(t *testing.T) (mailgrant.ID, store.Fence) {
	t.Helper()
	for range 100_000 {
		id := mailgrant.NewID(mailgrant.PrefixMailbox)
		if f, ok := n.Fence(id); ok {
			return id, f
		}
	}
	t.Fatal("it owns nothing")
	return "", store.Fence{}
}

func TestMembersShareAndMoveOnACleanStop(t *testing.T) {
	url := real.Postgres(t)
	a, b := newNode(t, url), newNode(t, url)
	a.beat(t)
	if n := a.shards(t); n != store.Shards {
		t.Fatalf("alone it has %d", n)
	}
	b.beat(t) // it lives now, and a has too much
	a.beat(t)
	until(t, "a gives half away", func() bool { return a.shards(t) == store.Shards/2 })
	b.beat(t)
	if n := b.shards(t); n != store.Shards/2 {
		t.Fatalf("the second has %d", n)
	}
	for i := range 2000 {
		id := mailgrant.NewID(mailgrant.PrefixMailbox)
		_, mine := a.Fence(id)
		_, yours := b.Fence(id)
		if mine == yours {
			t.Fatalf("mailbox %d: the first has it: %v, the second: %v", i, mine, yours)
		}
	}
	stopped, stop := context.WithCancel(t.Context())
	stop()
	must(t, a.Run(stopped)) // one that stops gives everything back
	b.beat(t)
	if n := b.shards(t); n != store.Shards {
		t.Errorf("after the first left the second has %d", n)
	}
	until(t, "what was gained is told", func() bool { b.mu.Lock(); defer b.mu.Unlock(); return len(b.holds) == store.Shards })
}

// Mail under way holds back the shards that are given away, and nothing else: a
// node that waits for it goes on living.
func TestBeatsDoNotWaitForMail(t *testing.T) {
	url := real.Postgres(t)
	a, b := newNode(t, url), newNode(t, url)
	a.busy = make(chan struct{})
	a.beat(t)
	b.beat(t)
	for range 3 {
		a.beat(t)
		b.beat(t)
	}
	if n := a.shards(t); n != store.Shards {
		t.Errorf("it gave away what it still works: %d left", n)
	}
	a.mu.Lock()
	held := len(a.holds)
	a.mu.Unlock()
	if held != store.Shards/2 {
		t.Errorf("it works %d shards, want half", held)
	}
	close(a.busy)
	until(t, "half is given away", func() bool { return a.shards(t) == store.Shards/2 })
}

func TestRE09DeadNodesShardsMoveAndItsWritesAreRefused(t *testing.T) {
	url := real.Postgres(t)
	a, b := newNode(t, url), newNode(t, url)
	org := mailgrant.NewID(mailgrant.PrefixOrganization)
	must(t, a.store.CreateOrganization(t.Context(), mailgrant.Organization{ID: org, Name: "Contoso"}))
	a.beat(t)
	id, fence := a.mailbox(t)
	must(t, a.store.CreateMailbox(t.Context(), mailgrant.Mailbox{ID: id, Org: org, Address: "a@contoso.example", State: mailgrant.MailboxActive}))
	var subs []mailgrant.Submission
	for range 4 {
		now := time.Now().UTC()
		sub := mailgrant.Submission{ID: mailgrant.NewID(mailgrant.PrefixSubmission), Org: org, Route: mailgrant.Route{Mailbox: id}, State: mailgrant.SubmissionReady,
			Recipients: []string{"x@example.net"}, AcceptedAt: now, DueAt: now, ExpiresAt: now.Add(time.Hour)}
		_, err := a.store.AcceptSubmission(t.Context(), store.Acceptance{Submission: sub, Body: []byte("b")})
		must(t, err)
		subs = append(subs, sub)
	}
	if ok, err := a.store.BeginAttempt(t.Context(), fence, subs[:1]); err != nil || !ok[0] {
		t.Fatalf("the owner may not begin: %v, %v", ok, err)
	}
	b.beat(t)
	if n := b.shards(t); n != 0 {
		t.Fatalf("a living node lost %d shards", n)
	}
	sql(t, url, "UPDATE nodes SET beat_at = now() - interval '11 seconds' WHERE id = $1", string(a.id)) // it froze
	b.beat(t)
	if n := b.shards(t); n != store.Shards {
		t.Fatalf("the living one has %d", n)
	}
	// The dead one wakes up and goes on where it was.
	ok, err := a.store.BeginAttempt(t.Context(), fence, subs[1:])
	if err != nil || slices.Contains(ok, true) {
		t.Errorf("it begins: %v, %v", ok, err)
	}
	done := make(chan error, 1)
	a.store.RecordAttempt(store.Record{State: mailgrant.SubmissionDelivered, Fence: fence, Attempt: mailgrant.Attempt{Submission: subs[0].ID, Org: org, Mailbox: id,
		EndedAt: time.Now(), Fate: mailgrant.FateDelivered}}, func(err error) { done <- err })
	if err := <-done; !errors.Is(err, mailgrant.Conflict) {
		t.Errorf("its late result: %v", err)
	}
	if l, err := b.store.Attempts(t.Context(), org, subs[0].ID); err != nil || len(l) != 1 {
		t.Errorf("the late result is not on record: %v, %v", l, err)
	}
	if err := a.store.MarkUncertain(t.Context(), fence, subs[0]); !errors.Is(err, mailgrant.Conflict) {
		t.Errorf("it marks: %v", err)
	}
	late := subs[1]
	late.ID, late.State = mailgrant.NewID(mailgrant.PrefixSubmission), mailgrant.SubmissionSending
	got, err := a.store.AcceptSubmission(t.Context(), store.Acceptance{Submission: late, Body: []byte("b"), Fence: fence})
	if err != nil || got.State != mailgrant.SubmissionReady {
		t.Errorf("it accepts as begun: %s, %v", got.State, err)
	}
	a.beat(t) // it lives again, and sees that nothing is its own
	if _, mine := a.Fence(id); mine {
		t.Error("it still thinks the mailbox its own")
	}
	fresh, mine := b.Fence(id)
	if !mine || fresh.Generation <= fence.Generation {
		t.Errorf("the new owner: %+v, %v", fresh, mine)
	}
}

func TestSilentNodeStopsByItself(t *testing.T) {
	url := real.Postgres(t)
	a := newNode(t, url)
	at := time.Now()
	cluster.SetClock(a.Member, func() time.Time { return at })
	a.beat(t)
	id, _ := a.mailbox(t)
	at = at.Add(8 * time.Second) // before the others think it dead
	if _, mine := a.Fence(id); mine {
		t.Error("it goes on without a beat")
	}
	a.beat(t)
	if _, mine := a.Fence(id); !mine {
		t.Error("it does not go on after a beat")
	}
}
