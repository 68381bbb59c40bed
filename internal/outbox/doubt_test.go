package outbox_test

import (
	"context"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/outbox"
	"github.com/mailgrant/mailgrant/internal/store"
)

// A forgetful store keeps what it accepts and says that it did not, as a
// connection that is lost at the commit does.
type forgetful struct {
	*store.Store
	lose bool
}

func (s *forgetful) AcceptSubmission(ctx context.Context, a store.Acceptance) (mailgrant.Submission, error) {
	sub, err := s.Store.AcceptSubmission(ctx, a)
	if err == nil && s.lose {
		err = mailgrant.Errorf(mailgrant.Unavailable, nil, "the answer was lost").Fix("try again")
	}
	return sub, err
}

// A message that was refused and kept all the same is not left as being sent, where
// nobody could do anything about it; it goes.
func TestRE05AcceptWhoseAnswerIsLost(t *testing.T) {
	var s *forgetful
	inTime(t, func(t *testing.T, r *rig) {
		r.send("first")
		time.Sleep(time.Second)
		s.lose = true
		_, err := r.accept(r.caller("smtp"), to("a@example.net"), message("office@contoso.example", "second"))
		is(t, err, mailgrant.Unavailable)
		s.lose = false
		time.Sleep(5 * time.Second)
		r.send("third")
		time.Sleep(time.Second)
		if got := r.far.names(); got != "first second third" {
			t.Errorf("sent: %s", got)
		}
		l, _, err := r.store.Submissions(t.Context(), r.org, store.SubmissionFilter{})
		must(t, err)
		for _, sub := range l {
			r.wants(sub.ID, mailgrant.SubmissionDelivered)
		}
	}, func(r *rig) {
		r.config = func(c *outbox.Config) {
			s = &forgetful{Store: c.Store.(*store.Store)}
			c.Store = s
		}
	})
}

// A message whose body is gone ends by itself. Others of the mailbox go on.
func TestMessageWithoutABodyHoldsNobody(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		now := time.Now().UTC()
		lost := mailgrant.Submission{ID: mailgrant.NewID(mailgrant.PrefixSubmission), Org: r.org, Route: mailgrant.Route{Mailbox: r.global.ID}, EnvelopeFrom: "office@contoso.example",
			From: "office@contoso.example", Recipients: []string{"a@example.net"}, Size: 5, State: mailgrant.SubmissionReady, AcceptedAt: now, DueAt: now, ExpiresAt: now.Add(time.Hour)}
		_, err := r.store.AcceptSubmission(t.Context(), store.Acceptance{Submission: lost})
		must(t, err)
		r.out.Wake(r.org, r.global.ID)
		sub := r.send("next")
		time.Sleep(5 * time.Second)
		r.wants(lost.ID, mailgrant.SubmissionFailed)
		r.wants(sub.ID, mailgrant.SubmissionDelivered)
		if h := r.box(r.global.ID).Hold; h != nil {
			t.Errorf("the mailbox is held: %+v", h)
		}
	})
}
