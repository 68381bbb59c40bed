package outbox_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
)

func TestRE10UncertainIsLookedFor(t *testing.T) {
	for _, c := range []struct {
		name   string
		find   func(string) (bool, error)
		policy string

		handed    int
		state     mailgrant.SubmissionState
		duplicate bool
	}{
		{"found", func(string) (bool, error) { return true, nil }, "", 1, mailgrant.SubmissionDelivered, false},
		{"not found", func(string) (bool, error) { return false, nil }, "", 2, mailgrant.SubmissionDelivered, false},
		{"not found, though held", func(string) (bool, error) { return false, nil }, "hold", 2, mailgrant.SubmissionDelivered, false},
		{"nobody can look", nil, "", 2, mailgrant.SubmissionDelivered, true},
		{"nobody can look, held", nil, "hold", 1, mailgrant.SubmissionUncertain, false},
		{"the look fails", func(string) (bool, error) { return false, errors.New("403") }, "", 2, mailgrant.SubmissionDelivered, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			inTime(t, func(t *testing.T, r *rig) {
				r.far.find = c.find
				r.far.answer = func(n int, _ handed) provider.Outcome {
					if n == 1 {
						return uncertain()
					}
					return provider.Outcome{}
				}
				r.global.Uncertain = c.policy
				r.set(r.global)
				sub := r.send("one")
				synctest.Wait()
				r.wants(sub.ID, mailgrant.SubmissionUncertain)
				time.Sleep(time.Minute)
				synctest.Wait()
				got := r.wants(sub.ID, c.state)
				if n := len(r.far.list()); n != c.handed || got.Duplicate != c.duplicate {
					t.Errorf("handed over %d times, possible duplicate %v; want %d, %v", n, got.Duplicate, c.handed, c.duplicate)
				}
				if l := r.far.list(); len(l) == 2 && l[0].id != l[1].id {
					t.Error("another Message-ID")
				}
				if l := r.events("submission.uncertain"); len(l) != 1 {
					t.Errorf("%d events", len(l))
				}
				if c.state != mailgrant.SubmissionUncertain {
					return
				}
				r.again() // a restart changes nothing about it
				time.Sleep(time.Hour)
				synctest.Wait()
				r.wants(sub.ID, mailgrant.SubmissionUncertain)
				must(t, r.out.Retry(t.Context(), r.org, sub.ID))
				synctest.Wait()
				if got := r.wants(sub.ID, mailgrant.SubmissionDelivered); !got.Duplicate {
					t.Error("sent again without the flag")
				}
			})
		})
	}
}

func TestUncertainCanBeLeft(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		r.global.Uncertain = "hold"
		r.set(r.global)
		r.far.answer = func(int, handed) provider.Outcome { return uncertain() }
		sub := r.send("one")
		time.Sleep(time.Minute)
		synctest.Wait()
		must(t, r.out.Cancel(t.Context(), r.org, sub.ID))
		r.wants(sub.ID, mailgrant.SubmissionCancelled)
	})
}
