package store_test

import (
	"context"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/test/real"
)

// What one node says of a mailbox the others hear, each word by itself.
func TestWhatOneNodeSaysOthersHear(t *testing.T) {
	t.Parallel()
	url := real.Postgres(t)
	a, b := open(t, url), open(t, url)
	type word struct {
		what         string
		org, mailbox mailgrant.ID
	}
	heard := make(chan word)
	hear := func(what string) func(org, mailbox mailgrant.ID) {
		return func(org, mailbox mailgrant.ID) {
			select {
			case heard <- word{what, org, mailbox}:
			case <-t.Context().Done():
			}
		}
	}
	b.OnLane(hear("lane"))
	b.OnRetry(hear("retry"))
	b.OnReader(hear("reader"))
	b.OnMail(hear("mail"))
	b.OnDoubt(hear("doubt"))
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for what, say := range map[string]func(ctx context.Context, org, mailbox mailgrant.ID) error{
		"lane": a.WakeLane, "retry": a.RetryLane, "reader": a.WakeReader, "mail": a.RingReader, "doubt": a.DoubtReader} {
		want := word{what, "org_a", mailgrant.ID("mbx_" + what)}
		for got := (word{}); got != want; { // it may not listen yet
			must(t, say(t.Context(), want.org, want.mailbox))
			select {
			case got = <-heard:
			case <-tick.C:
			case <-deadline:
				t.Fatalf("never heard: %v", want)
			}
			if got.mailbox != "" && got.mailbox != mailgrant.ID("mbx_"+got.what) {
				t.Errorf("heard %v", got)
			}
		}
	}
}
