package microsoft

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
)

// pushing is a mailbox that Graph can tell of.
func pushing(t *testing.T, g *mailGraph, k *keeper) (provider.Inbox, *Notices) {
	t.Helper()
	n := NewNotices()
	return pushingTo(t, g, k, n), n
}

func pushingTo(t *testing.T, g *mailGraph, k *keeper, n *Notices) provider.Inbox {
	t.Helper()
	r := k.reading()
	r.Push, r.PushSecret = "https://mail.example/notices/graph", "s3cret"
	in, err := Reader(ReadConfig{Notices: n}).Open(t.Context(), g.way(mailgrant.MailboxOwn, mailgrant.FlowCode), r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	return in
}

// asked are the requests about subscriptions of the next look.
func (g *mailGraph) asked(k *keeper, in provider.Inbox, at *provider.Cursor) (about []string) {
	g.requests()
	k.all(in, at)
	for _, s := range g.requests() {
		if strings.Contains(s, "subscriptions") {
			about = append(about, s)
		}
	}
	return about
}

func TestSubscriptionIsKeptAlive(t *testing.T) {
	g := newMailGraph(t)
	k := &keeper{t, map[string]bool{}, nil}
	in, n := pushing(t, g, k)
	var at provider.Cursor
	step := func(want ...string) {
		t.Helper()
		if got := g.asked(k, in, &at); !slices.Equal(got, want) || !in.Pushes() {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	step("POST /v1.0/subscriptions")
	step()
	n.Handle("", notice("sub-1", "s3cret", "missed"))
	step()
	n.Handle("", notice("sub-1", "s3cret", "reauthorizationRequired"))
	step("POST /v1.0/subscriptions/sub-1/reauthorize")
	n.Handle("", notice("sub-1", "s3cret", "subscriptionRemoved"))
	step("POST /v1.0/subscriptions")
	age := func(left time.Duration) {
		p := in.(*inbox).read(at)
		s := p.Subs["f-in"]
		s.Until = time.Now().Add(left)
		p.Subs["f-in"] = s
		at = p.cursor()
	}
	age(subAhead - time.Minute)
	step("PATCH /v1.0/subscriptions/sub-2")
	age(-time.Minute)
	step("POST /v1.0/subscriptions")
	delete(g.subs, "sub-3")
	age(time.Minute)
	step("PATCH /v1.0/subscriptions/sub-3", "POST /v1.0/subscriptions")

	// Another process goes on with it; a new secret makes a new one.
	in.Close()
	if _, elsewhere := n.Handle("", notice("sub-4", "s3cret", "")); len(elsewhere) != 1 {
		t.Error("a closed reader still hears")
	}
	in, _ = pushing(t, g, k)
	step()
	in.(*inbox).r.PushSecret = "another"
	step("POST /v1.0/subscriptions")
}

// That a subscription ends may be told to a node that does not read the mailbox, or
// when nobody does, or while Graph makes no new one.
func TestSubscriptionThatEndedUnheardIsMadeAnew(t *testing.T) {
	g := newMailGraph(t)
	k := &keeper{t, map[string]bool{}, nil}
	in, n := pushing(t, g, k)
	var at provider.Cursor
	step := func(what string, want ...string) {
		t.Helper()
		if got := g.asked(k, in, &at); !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", what, got, want)
		}
	}
	step("the first", "POST /v1.0/subscriptions")
	n.Doubt("another")
	step("another's ended")
	n.Doubt("s3cret")
	if err := in.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	step("it is there", "PATCH /v1.0/subscriptions/sub-1")
	step("it was seen to")

	in.Close()
	delete(g.subs, "sub-1")
	n.Doubt("s3cret")
	in = pushingTo(t, g, k, n)
	step("it ended while nobody read", "PATCH /v1.0/subscriptions/sub-1", "POST /v1.0/subscriptions")

	down := func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.URL.Path, "/v1.0/subscriptions") {
			return false
		}
		fail(w, 503, "ServiceUnavailable", "Try again later.")
		return true
	}
	g.answer = down
	delete(g.subs, "sub-2")
	n.Handle("", notice("sub-2", "s3cret", "subscriptionRemoved"))
	step("none can be made", "POST /v1.0/subscriptions")
	in.(*inbox).pushAgain, g.answer = time.Now(), nil
	step("then it can", "POST /v1.0/subscriptions")

	g.answer = down
	n.Handle("", notice("sub-3", "s3cret", "reauthorizationRequired"))
	step("it cannot be seen to", "POST /v1.0/subscriptions/sub-3/reauthorize")
	in.(*inbox).pushAgain, g.answer = time.Now(), nil
	step("then it can", "PATCH /v1.0/subscriptions/sub-3")
	if !in.Pushes() {
		t.Error("it is not told of mail")
	}
}

func TestWithoutSubscriptionItIsPolled(t *testing.T) {
	g := newMailGraph(t)
	g.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasPrefix(r.URL.Path, "/v1.0/subscriptions") {
			fail(w, 400, "InvalidRequest", "Subscription validation request failed.")
			return true
		}
		return false
	}
	g.put("a", "f-in", "x", 0)
	k := &keeper{t, map[string]bool{}, nil}
	in, _ := pushing(t, g, k)
	var at provider.Cursor
	if got := k.all(in, &at); got != "a=x" || in.Pushes() {
		t.Errorf("got %q", got)
	}
	g.requests()
	k.all(in, &at)
	if s := g.requests(); len(s) != 1 {
		t.Errorf("asked at once again: %v", s)
	}
	in.(*inbox).pushAgain = time.Now()
	g.answer = nil
	k.all(in, &at)
	if !in.Pushes() {
		t.Error("not asked for again")
	}
}

func TestWaitPolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			poll   time.Duration
			pushed bool
			want   time.Duration
		}{{0, false, time.Minute}, {10 * time.Second, false, 10 * time.Second}, {0, true, 5 * time.Minute}, {time.Hour, true, time.Hour}} {
			b := &inbox{r: provider.Reading{Poll: c.poll}, pushed: c.pushed}
			began := time.Now()
			if err := b.Wait(t.Context()); err != nil || time.Since(began) != c.want {
				t.Errorf("%+v: got %v, %v", c, time.Since(began), err)
			}
		}
	})
}
