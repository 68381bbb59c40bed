package store_test

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/store"
)

// On a disk that is slow all are served, later; on one that has stopped answering
// they are refused in time, and what was refused is not kept to be sent besides.
func TestRE22SlowDisk(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		sync     time.Duration
		refuses  bool
		takes    time.Duration // what is said of it
		answered time.Duration
	}{{2 * time.Second, false, 2 * time.Second, 7 * time.Second}, {30 * time.Second, true, 30 * time.Second, 9 * time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			s, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "mailgrant.db"), quiet)
			must(t, err)
			defer s.Close()
			h := found(t, s)
			store.OnSync(h.Store, func() error { time.Sleep(c.sync); return nil })
			var mu sync.Mutex
			kept, refused := map[mailgrant.ID]bool{}, map[mailgrant.ID]bool{}
			accept := func(key string, state mailgrant.SubmissionState) error {
				ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second) // as a door does
				defer cancel()
				sub, begin := h.message(), time.Now()
				sub.IdempotencyKey, sub.State = key, state
				got, err := h.AcceptSubmission(ctx, store.Acceptance{Submission: sub, Body: []byte("b"), Digest: []byte("d"), KeepKey: time.Hour})
				if d := time.Since(begin); d > c.answered {
					t.Errorf("%v: answered after %v", c.sync, d)
				}
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					kept[got.ID] = true
				case errors.Is(err, mailgrant.Unavailable) && c.refuses:
					refused[sub.ID] = true
				default:
					t.Errorf("%v: %v", c.sync, err)
				}
				return err
			}
			var wg sync.WaitGroup
			for i := range 40 {
				wg.Go(func() {
					time.Sleep(time.Duration(i) * 100 * time.Millisecond)
					accept("", []mailgrant.SubmissionState{mailgrant.SubmissionReady, mailgrant.SubmissionSending}[i%2])
				})
			}
			wg.Go(func() { accept("key", mailgrant.SubmissionReady) })
			time.Sleep(4500 * time.Millisecond)
			if takes, refusing := s.Disk(); refusing != c.refuses || !refusing && takes != c.takes {
				t.Errorf("%v: it says that the disk takes %v, and refuses: %v", c.sync, takes, refusing)
			}
			if c.refuses {
				begin := time.Now()
				if err := accept("", mailgrant.SubmissionReady); !errors.Is(err, mailgrant.Unavailable) || mailgrant.AsError(err).RetryAfter == 0 || time.Since(begin) > 0 {
					t.Errorf("%v: in the middle of it: %v after %v", c.sync, err, time.Since(begin))
				}
			}
			wg.Wait()
			time.Sleep(2 * time.Minute)
			if err := accept("key", mailgrant.SubmissionReady); err != nil && !c.refuses { // the client comes again
				t.Errorf("%v: %v", c.sync, err)
			}
			time.Sleep(2 * time.Minute)
			if takes, refusing := s.Disk(); takes != 0 || refusing {
				t.Errorf("%v: long after it: %v, %v", c.sync, takes, refusing)
			}
			l, _, err := h.Submissions(t.Context(), h.org, store.SubmissionFilter{Limit: 500})
			must(t, err)
			keyed := 0
			for _, sub := range l {
				if sub.IdempotencyKey != "" {
					keyed++
					continue
				}
				if kept[sub.ID] == refused[sub.ID] || refused[sub.ID] && sub.State != mailgrant.SubmissionCancelled || kept[sub.ID] && sub.State == mailgrant.SubmissionCancelled {
					t.Errorf("%v: %s is %s; accepted %v, refused %v", c.sync, sub.ID, sub.State, kept[sub.ID], refused[sub.ID])
				}
				delete(kept, sub.ID)
			}
			for _, sub := range l {
				delete(kept, sub.ID)
			}
			if keyed != 1 || len(kept) > 0 {
				t.Errorf("%v: %d under one key; lost: %v", c.sync, keyed, kept)
			}
		})
	}
}

// An answer that comes too late between two statements is one that does not come.
func TestRE06NoTimeLeftToAskPostgres(t *testing.T) {
	t.Parallel()
	h := found(t, onPostgres(t))
	late, end := context.WithTimeout(t.Context(), 2*time.Second)
	defer end()
	is(t, store.InTransaction(late, h.Store, func(add func(mailgrant.Event) error) error {
		<-late.Done()
		return add(mailgrant.Event{Org: h.org, Kind: "late"})
	}), mailgrant.Unavailable)
}
