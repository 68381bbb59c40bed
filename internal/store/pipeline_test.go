package store_test

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/store"
)

// committed reads until n submissions are there, whether they are on the disk or
// not.
func (h house) committed(t *testing.T, n int) {
	t.Helper()
	for {
		l, _, err := h.Submissions(t.Context(), h.org, store.SubmissionFilter{})
		must(t, err)
		if len(l) == n {
			return
		}
	}
}

// What was committed while a sync failed lies behind what may be missing on the
// disk: a later sync that succeeds is no reason to answer for it.
func TestRE04NothingIsAnsweredBehindASyncThatFailed(t *testing.T) {
	t.Parallel()
	h := found(t, onSQLite(t))
	entered, fail := make(chan struct{}), make(chan struct{})
	syncs := 0 // one at a time
	store.OnSync(h.Store, func() error {
		if syncs++; syncs > 1 {
			return nil
		}
		close(entered)
		<-fail
		return syscall.EIO
	})
	ends := make(chan error, 2)
	accept := func() {
		_, err := h.accept(t.Context(), []byte("b"))
		ends <- err
	}
	go accept()
	<-entered
	go accept()
	h.committed(t, 2)
	close(fail)
	for range 2 {
		is(t, <-ends, mailgrant.Unavailable)
	}
	_, err := h.accept(t.Context(), []byte("b"))
	must(t, err)
	h.whole(t, 3)
}

// A body stays with a submission that was refused to its client and kept all the
// same; without one it goes.
func TestDroppedChunksAreNotThoseOfASubmission(t *testing.T) {
	for _, c := range []struct {
		name string
		open func(*testing.T) *store.Store
	}{{"sqlite", onSQLite}, {"postgres", onPostgres}} {
		t.Run(c.name, func(t *testing.T) {
			h := found(t, c.open(t))
			sub, err := h.accept(t.Context(), []byte("b"))
			must(t, err)
			must(t, h.DropChunks(t.Context(), h.org, sub.ID))
			h.whole(t, 1)
			draft := mailgrant.NewID(mailgrant.PrefixSubmission)
			must(t, h.PutChunk(t.Context(), h.org, draft, 1, []byte("b")))
			must(t, h.DropChunks(t.Context(), h.org, draft))
			_, err = h.Chunk(t.Context(), h.org, draft, 1)
			is(t, err, mailgrant.NotFound)
		})
	}
}

// An event gets its number from the writer. Had it one while it waits, others
// could overtake it, and whoever reads on from those would never see it.
func TestEventsAreNumberedWhenTheyAreWritten(t *testing.T) {
	t.Parallel()
	h := found(t, onSQLite(t))
	entered, goOn := make(chan struct{}), make(chan struct{})
	store.OnSync(h.Store, sync.OnceValue(func() error {
		close(entered)
		<-goOn
		return nil
	}))
	ends := make(chan error, 2)
	accept := func() {
		_, err := h.accept(t.Context(), []byte("b"))
		ends <- err
	}
	go accept()
	<-entered
	go accept()
	h.committed(t, 2) // the writer waits for the syncer now
	before := store.Number(h.Store)
	ended, end := context.WithCancel(t.Context())
	end()
	is(t, h.AddEvent(ended, mailgrant.Event{Org: h.org, Kind: "test.late"}), mailgrant.Unavailable)
	if now := store.Number(h.Store); now != before {
		t.Errorf("an event that was never written took a number: %d after %d", now, before)
	}
	close(goOn)
	for range 2 {
		must(t, <-ends)
	}
}

// Numbers that a power cut took back do not come again: a reader may have seen
// them before they were on the disk.
func TestEventNumbersAreNotUsedTwice(t *testing.T) {
	name := filepath.Join(t.TempDir(), "mailgrant.db")
	h := found(t, open(t, name))
	_, err := h.accept(t.Context(), []byte("b"))
	must(t, err)
	seen, err := h.LastEvent(t.Context(), h.org)
	must(t, err)
	must(t, h.Close())
	h.Store = open(t, name)
	_, err = h.accept(t.Context(), []byte("b"))
	must(t, err)
	now, err := h.LastEvent(t.Context(), h.org)
	must(t, err)
	if now < seen+1024 { // more than two groups of events
		t.Errorf("the first event after a start is %d, the last before it was %d", now, seen)
	}
}

// Whoever still writes while the store closes, or afterwards, gets an answer.
func TestWritesAroundTheEnd(t *testing.T) {
	for _, c := range []struct {
		name string
		open func(*testing.T) *store.Store
	}{{"sqlite", onSQLite}, {"postgres", onPostgres}} {
		t.Run(c.name, func(t *testing.T) {
			h := found(t, c.open(t))
			ctx := context.Background() // never ends
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					for {
						if _, err := h.accept(ctx, []byte("b")); err != nil {
							if !errors.Is(err, mailgrant.Unavailable) {
								t.Errorf("at the end: %v", err)
							}
							return
						}
					}
				})
			}
			_, err := h.accept(ctx, []byte("b"))
			must(t, err)
			must(t, h.Close())
			wg.Wait()
			told := make(chan error, 1)
			h.RecordAttempt(store.Record{State: mailgrant.SubmissionDelivered, Attempt: mailgrant.Attempt{Org: h.org}}, func(err error) { told <- err })
			is(t, <-told, mailgrant.Unavailable)
		})
	}
}
