package outbox_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/outbox"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/store"
	"github.com/mailgrant/mailgrant/test/real"
)

// pair is two nodes over one database and one other side, each with its share.
func pair(t *testing.T, boxes int) (a, b *rig, to []mailgrant.Mailbox) {
	t.Helper()
	url := real.Postgres(t)
	a = newRig(t, url)
	b = newRig(t, url, func(r *rig) { r.far, r.master = a.far, a.master })
	for i := range boxes {
		to = append(to, a.mailbox(fmt.Sprintf("m%d@contoso.example", i), mailgrant.RoleNone))
	}
	eventually(t, "both have their share", func() bool {
		n, err := b.store.OwnShards(t.Context(), b.node)
		return err == nil && len(n) == store.Shards/2
	}, a, b)
	return a, b, to
}

// eventually asks until it is so, while the nodes beat.
func eventually(t *testing.T, what string, so func() bool, nodes ...*rig) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(40 * time.Second); !so(); {
		for _, r := range nodes {
			must(t, r.member.Beat(t.Context()))
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never: %s", what)
		}
	}
}

func (r *rig) sendBy(m mailgrant.Mailbox, name string) error {
	_, err := r.accept(r.caller("rest"), outbox.Envelope{From: m.Address, Recipients: []string{"a@example.net"}, Named: m.ID}, message(m.Address, name))
	return err
}

func (r *rig) empty(t *testing.T) bool {
	t.Helper()
	l, err := r.store.BusyLanes(t.Context())
	must(t, err)
	return len(l) == 0
}

// Whichever node takes a message, the one that has its mailbox sends it, once,
// also while the mailboxes move.
func TestRE08EachMessageOnceFromTwoNodes(t *testing.T) {
	t.Parallel()
	a, b, boxes := pair(t, 12)
	const each = 20
	var wg sync.WaitGroup
	for i, m := range boxes {
		wg.Go(func() {
			for n := range each {
				at := a
				if (i+n)%2 == 1 {
					at = b
				}
				if err := at.sendBy(m, fmt.Sprintf("m%d-%d", i, n)); err != nil {
					t.Errorf("accept: %v", err)
				}
			}
		})
	}
	wg.Wait()
	eventually(t, "all is sent", func() bool { return a.empty(t) }, a, b)
	seen := map[string]int{}
	for _, h := range a.far.list() {
		seen[h.id]++
	}
	if len(seen) != len(boxes)*each {
		t.Errorf("%d messages arrived, want %d", len(seen), len(boxes)*each)
	}
	for id, n := range seen {
		if n != 1 {
			t.Errorf("%s was sent %d times", id, n)
		}
	}
	// A clean stop moves the rest at once.
	b.end()
	must(t, a.member.Beat(t.Context()))
	for i, m := range boxes {
		must(t, a.sendBy(m, fmt.Sprintf("after-%d", i)))
	}
	eventually(t, "the one that is left sends all", func() bool { return a.empty(t) }, a)
	if n := len(a.far.list()); n != len(boxes)*(each+1) {
		t.Errorf("%d were sent", n)
	}
}

// heldByTheOther gives two nodes, and a mailbox of the second's with a message that was
// held; what held it is over by now.
func heldByTheOther(t *testing.T) (a, b *rig, theirs mailgrant.Mailbox) {
	t.Helper()
	a, b, boxes := pair(t, 12)
	a.far.set(func(f *far) { f.answer = func(int, handed) provider.Outcome { return held() } })
	for _, m := range boxes {
		if _, mine := b.member.Fence(m.ID); mine {
			theirs = m
		}
	}
	must(t, a.sendBy(theirs, "one"))
	eventually(t, "it is held", func() bool { return a.box(theirs.ID).State == mailgrant.MailboxHeld }, a, b)
	a.far.set(func(f *far) { f.answer = nil })
	return a, b, theirs
}

// A repair that one node hears of is seen by the one that holds the lane.
func TestRepairOnAnotherNodeIsSeen(t *testing.T) {
	t.Parallel()
	a, b, theirs := heldByTheOther(t)
	must(t, a.store.ResumeMailbox(t.Context(), a.org, theirs.ID))
	eventually(t, "it is sent", func() bool { return a.empty(t) }, a, b)
}

// What is done on one node about a hold, and the store does not know, is heard by the
// one that has the lane: it is tried again at once.
func TestDoneOnAnotherNodeIsHeard(t *testing.T) {
	t.Parallel()
	a, b, theirs := heldByTheOther(t)
	a.out.Wake(a.org, theirs.ID)
	eventually(t, "it is sent", func() bool { return a.empty(t) }, a, b)
}
