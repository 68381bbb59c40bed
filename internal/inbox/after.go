package inbox

import (
	"context"
	"slices"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider/wire"
	"github.com/mailgrant/mailgrant/internal/store"
)

const (
	// afterBatch is how many messages are marked, moved or deleted at once: by POP,
	// each time costs a session, and some servers allow one in five minutes.
	afterBatch = 1000

	// afterPause is the time between tries of what is done after reading, where it
	// fails; reading goes on.
	afterPause = 5 * time.Minute

	// afterTries is how many failures are had to find the message with which it
	// cannot be done. Where it can be done with none, no more are needed.
	afterTries = 20
)

// afterReading does with messages what is to be done once they are kept. Where it
// cannot be done, reading goes on, and it is tried again later.
func (s *session) afterReading(ctx context.Context) error {
	in := s.w.in
	if !s.undone || !s.w.doneAt.IsZero() && in.now().Sub(s.w.doneAt) < afterPause {
		return nil
	}
	for {
		l, err := in.Store.AfterReading(ctx, s.w.org, s.w.id, afterBatch)
		if err != nil {
			return err
		}
		if len(l) == 0 {
			s.undone, s.w.doneAt = false, time.Time{}
			return nil
		}
		what := l[0].After
		l = slices.DeleteFunc(l, func(u store.Undone) bool { return u.After != what })
		var failure error
		if what == s.box.Receive.After { // else it was to be done, and is not to be any more
			in.Steps("inbox.before-done")
			tries := afterTries
			l, failure = s.do(ctx, what, l, &tries)
			in.Steps("inbox.after-done")
		}
		ids := make([]mailgrant.ID, len(l))
		for i, u := range l {
			ids[i] = u.ID
		}
		if err := in.Store.AfterDone(ctx, s.w.org, s.fence, ids); err != nil {
			return overtaken(err)
		}
		if failure != nil {
			return s.notDone(ctx, what, failure)
		}
	}
}

// do does it, and says with which messages it was done. Where it fails for all,
// each half is tried: one message must not keep the others from it.
func (s *session) do(ctx context.Context, what mailgrant.AfterRead, l []store.Undone, tries *int) (done []store.Undone, err error) {
	remotes := make([]string, len(l))
	for i, u := range l {
		remotes[i] = u.Remote
	}
	if err = s.inbox.Done(ctx, remotes, what, s.box.Receive.MoveTo); err == nil {
		return l, nil
	}
	if *tries--; !lasting(wire.FindingOf(err)) || len(l) == 1 || *tries <= 0 {
		return nil, err
	}
	for _, half := range [][]store.Undone{l[:len(l)/2], l[len(l)/2:]} {
		some, failed := s.do(ctx, what, half, tries)
		done = append(done, some...)
		if failed != nil {
			err = failed
		}
		if *tries <= 0 || failed != nil && !lasting(wire.FindingOf(failed)) {
			break
		}
	}
	return done, err
}

// lasting says whether trying again at once is of no use.
func lasting(f *mailgrant.Finding) bool { return f.NeedsPerson() || f.Retry == mailgrant.RetryNever }

// notDone tells, once, that messages cannot be marked, moved or deleted. A
// failure of the connection ends the session as any other.
func (s *session) notDone(ctx context.Context, what mailgrant.AfterRead, err error) error {
	f := wire.FindingOf(err)
	if !lasting(f) {
		return err
	}
	if s.w.doneAt.IsZero() {
		s.w.in.Log.Warn("what is done after reading fails", "mailbox", s.w.id, "what", what, "err", err)
		s.w.event(ctx, "reader.after_failed", f)
	}
	s.w.doneAt = s.w.in.now()
	s.w.say(func(st *mailgrant.ReaderStatus) { st.Finding = f })
	return nil
}
