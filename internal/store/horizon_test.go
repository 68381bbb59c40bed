package store_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/store"
	"github.com/mailgrant/mailgrant/test/real"
)

// shown are the subjects of all events that a reader sees who looks after a number,
// and the number to go on from.
func (h house) shown(t *testing.T, after int64) (l []mailgrant.ID, last int64) {
	t.Helper()
	events, err := h.Events(t.Context(), h.org, store.EventFilter{After: after, Limit: 10_000})
	must(t, err)
	for _, e := range events {
		l, after = append(l, e.Subject), e.Seq
	}
	return l, after
}

// all are the same once nothing is hidden any more. Who watches is woken then, though
// nobody adds anything.
func (h house) all(t *testing.T, after int64) (l []mailgrant.ID, last int64) {
	t.Helper()
	woken, stop := h.WatchEvents()
	defer stop()
	for {
		more, at := h.shown(t, after)
		l, after = append(l, more...), at
		hidden, err := h.EventsHidden(t.Context(), h.org, after)
		must(t, err)
		if !hidden {
			return l, after
		}
		select {
		case <-woken:
		case <-time.After(30 * time.Second):
			t.Fatalf("something is hidden behind event %d", after)
		}
	}
}

// A transaction that began first has its event's number last, and ends first: that
// event is not shown before the one whose number is smaller.
func TestRE08NoEventAppearsBehindAReader(t *testing.T) {
	t.Parallel()
	h := found(t, onPostgres(t))
	event := func(name mailgrant.ID) mailgrant.Event {
		return mailgrant.Event{Org: h.org, Kind: "told.thing", Subject: name}
	}
	_, before := h.all(t, 0)
	began, first, numbered, last := make(chan bool), make(chan bool), make(chan bool), make(chan bool)
	var both sync.WaitGroup
	both.Go(func() {
		if err := store.InTransaction(t.Context(), h.Store, func(add func(mailgrant.Event) error) error {
			close(began)
			<-numbered
			return add(event("second"))
		}); err != nil {
			t.Error(err)
		}
		close(first)
	})
	both.Go(func() {
		<-began
		if err := store.InTransaction(t.Context(), h.Store, func(add func(mailgrant.Event) error) error {
			err := add(event("first"))
			close(numbered)
			<-last
			return err
		}); err != nil {
			t.Error(err)
		}
	})
	<-first
	if l, _ := h.shown(t, before); len(l) != 0 {
		t.Errorf("%v is shown, and one before it is still to come", l)
	}
	if n, err := h.LastEvent(t.Context(), h.org); err != nil || n != before {
		t.Errorf("the last event is %d, want %d: %v", n, before, err)
	}
	if hidden, err := h.EventsHidden(t.Context(), h.org, before); err != nil || !hidden {
		t.Errorf("events are hidden: %v, %v", hidden, err)
	}
	close(last)
	both.Wait()
	if l, _ := h.all(t, before); fmt.Sprint(l) != "[first second]" {
		t.Errorf("then %v are shown", l)
	}
}

// Whoever reads on from the last event that was shown sees every event, however
// many transactions add them at once.
func TestRE08AReaderMissesNoEvent(t *testing.T) {
	t.Parallel()
	h := found(t, onPostgres(t))
	const writers, each = 6, 60
	_, at := h.all(t, 0)
	var writing sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			for i := range each {
				err := store.InTransaction(t.Context(), h.Store, func(add func(mailgrant.Event) error) error {
					<-time.After(rand.N(time.Millisecond))
					err := add(mailgrant.Event{Org: h.org, Kind: "told.thing", Subject: mailgrant.ID(fmt.Sprintf("w%d-%d", w, i))})
					<-time.After(rand.N(time.Millisecond))
					return err
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	over := make(chan bool)
	go func() { writing.Wait(); close(over) }()
	seen, early := map[mailgrant.ID]bool{}, 0
	for look, done := h.shown, false; !done; {
		select {
		case <-over:
			look, done = h.all, true
		default:
			early = len(seen)
		}
		var l []mailgrant.ID
		l, at = look(t, at)
		for _, name := range l {
			seen[name] = true
		}
	}
	if len(seen) != writers*each || early == 0 {
		t.Errorf("%d of %d events were seen, %d of them while more came", len(seen), writers*each, early)
	}
}

// A node that is frozen in the middle of a transaction keeps nothing from the others
// for long: neither rows nor events.
func TestRE09AFrozenNodeHoldsNothing(t *testing.T) {
	t.Parallel()
	h := found(t, open(t, real.NewPostgresServer(t).Database(t))) // what it holds, it holds from all databases
	_, at := h.all(t, 0)
	thing := mailgrant.Event{Org: h.org, Kind: "told.thing", Subject: "of the frozen one"}
	frozen, thaw, ended := make(chan bool), make(chan bool), make(chan error)
	go func() {
		ended <- store.InTransaction(t.Context(), h.Store, func(add func(mailgrant.Event) error) error {
			err := add(thing)
			close(frozen)
			<-thaw
			return err
		})
	}()
	<-frozen
	thing.Subject = "of another"
	must(t, h.AddEvent(t.Context(), thing))
	began := time.Now()
	l, _ := h.all(t, at)
	if d := time.Since(began); fmt.Sprint(l) != "[of another]" || d > 10*time.Second {
		t.Errorf("after %v events are %v", d, l)
	}
	close(thaw)
	if err := <-ended; err == nil {
		t.Error("what was frozen was committed all the same")
	}
}
