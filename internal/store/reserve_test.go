package store_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/store"
)

// useReserve fills a small disk to its last block, and then does all that must go
// on nevertheless.
func useReserve(dir string) error {
	h, ballast, err := smallDisk(dir)
	if err != nil {
		return err
	}
	ctx := context.Background()
	g := mailgrant.Grant{ID: "gra_a", Org: h.org, Registration: "reg_a", Mailbox: "office@contoso.example"}
	if err := errors.Join(h.CreateRegistration(ctx, mailgrant.Registration{ID: "reg_a", Org: h.org, Name: "M365"}), h.CreateGrant(ctx, g), h.CompleteConsent(ctx, g)); err != nil {
		return err
	}
	var kept []mailgrant.Submission
	for range 60 {
		sub, err := h.accept(ctx, make([]byte, 20<<10))
		if err != nil {
			return err
		}
		kept = append(kept, sub)
	}
	h.Close() // the log goes into the database
	again, err := store.Open(ctx, filepath.Join(dir, "mailgrant.db"), quiet)
	if err != nil {
		return err
	}
	defer again.Close()
	h.Store = again
	if err := fillUp(filepath.Join(dir, "filler")); err != nil {
		return err
	}
	for i, sub := range kept {
		if i%2 == 0 {
			if err := h.CancelSubmission(ctx, h.org, sub.ID); err != nil {
				return fmt.Errorf("cancel %d: %w", i, err)
			}
			continue
		}
		if err := h.sent(ctx, sub); err != nil {
			return fmt.Errorf("send %d: %w", i, err)
		}
	}
	for i := range 10 {
		g, _, err := h.LeaseGrant(ctx, h.org, "gra_a", "nod_a", time.Minute)
		if err != nil {
			return fmt.Errorf("lease %d: %w", i, err)
		}
		if err := h.RenewGrant(ctx, store.Renewal{Grant: g.ID, Org: h.org, Node: "nod_a", Generation: g.Generation, Sealed: make([]byte, 4<<10), At: time.Now()}); err != nil {
			return fmt.Errorf("keep refresh token %d: %w", i, err)
		}
	}
	if _, err := h.accept(ctx, []byte("b")); !errors.Is(err, mailgrant.NoSpace) {
		return fmt.Errorf("new mail in the room that was kept: %w", err)
	}
	if err := errors.Join(os.Remove(ballast), os.Remove(filepath.Join(dir, "filler"))); err != nil {
		return err
	}
	for end := time.Now().Add(30 * time.Second); ; <-time.After(100 * time.Millisecond) {
		if _, err = h.accept(ctx, []byte("b")); err == nil {
			break
		}
		if time.Now().After(end) {
			return fmt.Errorf("after there is room: %w", err)
		}
	}
	if fi, err := os.Stat(filepath.Join(dir, "mailgrant.db.reserve")); err != nil || fi.Size() == 0 {
		return fmt.Errorf("no room is kept again: %w", err)
	}
	for i, sub := range kept {
		now, err := h.Submission(ctx, h.org, sub.ID)
		want := []mailgrant.SubmissionState{mailgrant.SubmissionCancelled, mailgrant.SubmissionDelivered}[i%2]
		if err != nil || now.State != want {
			return fmt.Errorf("submission %d is %s, want %s; %w", i, now.State, want, err)
		}
	}
	return nil
}

// fillUp takes what is left.
func fillUp(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			return nil
		}
	}
}

// sent begins an attempt and keeps what it came to.
func (h house) sent(ctx context.Context, sub mailgrant.Submission) error {
	if ok, err := h.BeginAttempt(ctx, store.Fence{}, []mailgrant.Submission{sub}); err != nil || !ok[0] {
		return fmt.Errorf("begin: %v, %w", ok, err)
	}
	done := make(chan error, 1)
	h.RecordAttempt(store.Record{State: mailgrant.SubmissionDelivered, Attempt: mailgrant.Attempt{Submission: sub.ID, Org: h.org, Mailbox: h.box,
		EndedAt: time.Now(), Fate: mailgrant.FateDelivered}}, func(err error) { done <- err })
	return <-done
}

// On a full disk what is on its way comes to its end, and what is new is refused.
func TestRE05RoomIsKeptForWhatMustEnd(t *testing.T) {
	t.Parallel()
	onSmallDisk(t, "reserve")
}

// A backup that somebody takes slowly keeps the log from starting over. What must end
// does not wait for it each time.
func TestRE05WhoReadsDoesNotHoldUpWhatMustEnd(t *testing.T) {
	t.Parallel()
	s := onSQLite(t)
	h := found(t, s)
	body := make([]byte, 1<<20)
	rand.Read(body)
	_, err := h.accept(t.Context(), body)
	must(t, err)
	out, in := io.Pipe()
	backup := make(chan error, 1)
	go func() { backup <- s.Backup(t.Context(), in) }()
	_, err = io.ReadFull(out, make([]byte, 1<<10)) // into the rows; the rest is not taken until the end
	must(t, err)
	store.GiveRoomUp(s, 64<<10)
	begin := time.Now()
	for i := range 20 {
		must(t, s.AddEvent(t.Context(), mailgrant.Event{Org: h.org, Kind: "a", Data: fmt.Appendf(nil, "%q", strings.Repeat("a", 10<<10))}))
		if d := time.Since(begin); d > 20*time.Second {
			t.Fatalf("%d took %v", i+1, d)
		}
	}
	must(t, out.Close())
	<-backup
}
