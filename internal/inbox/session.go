package inbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/body"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/store"
)

// A session is one opening of a mailbox.
type session struct {
	w        *watcher
	box      mailgrant.Mailbox
	inbox    provider.Inbox
	protocol string
	fence    store.Fence
	memo     memo
	since    time.Time
	cursor   string         // behind the last page that was taken
	pos      store.Position // behind the last page that was given to the store
	kept     chan error     // the page that is being kept; nil: none
	brought  bool           // there are messages in it
	undone   bool           // something is to be done after reading
}

// memo is what the inbox keeps beside a reader's cursor.
type memo struct {
	Began    time.Time `json:"began"`             // when reading began: older mail is left alone, unless it is asked for
	Switched time.Time `json:"switched,omitzero"` // when the mailbox began to be read another way
	Before   *before   `json:"before,omitempty"`  // how it was read until then
}

func memoOf(pos store.Position, now time.Time) (m memo) {
	if json.Unmarshal([]byte(pos.Doc), &m) != nil || m.Began.IsZero() {
		m.Began = now.Add(-clockSlack).UTC().Truncate(time.Second) // providers date by the second
	}
	return m
}

func (m memo) text() string {
	return string(marshal(m))
}

// begin says from where a session reads.
func (s *session) begin(pos store.Position, protocol string, now time.Time) {
	s.memo = memoOf(pos, now)
	s.cursor = pos.Cursor
	if pos.Protocol != protocol {
		s.cursor = ""
		if pos.Protocol != "" {
			s.memo.Switched = now.UTC()
		}
	}
	r := s.box.Receive
	switch {
	case r.Since != nil:
		s.since = *r.Since
	case !r.Everything:
		s.since = s.memo.Began
	}
}

func (s *session) close() {
	if s.kept != nil {
		<-s.kept
	}
	if err := s.inbox.Close(); err != nil {
		s.w.in.Log.Debug("close a mailbox", "mailbox", s.w.id, "err", err)
	}
}

// read takes what is there, and waits for more, until something goes wrong.
func (s *session) read(ctx context.Context) error {
	s.undone = true // an earlier session may have left something
	for {
		s.w.heard(nil) // what was told until now is about to be read
		s.w.say(func(st *mailgrant.ReaderStatus) { st.State = mailgrant.ReaderReading })
		for more := true; more; {
			var err error
			if more, err = s.page(ctx); err != nil {
				return err
			}
		}
		if err := s.afterReading(ctx); err != nil {
			return err
		}
		s.w.succeeded(ctx)
		now := s.w.in.now().UTC()
		s.w.say(func(st *mailgrant.ReaderStatus) {
			st.State, st.LastRead, st.RetryAt = mailgrant.ReaderWaiting, &now, nil
			if s.w.doneAt.IsZero() {
				st.Finding = nil
			}
		})
		if err := s.wait(ctx); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// wait waits until the provider tells of mail, here or by the bell, or is to be
// asked.
func (s *session) wait(ctx context.Context) error {
	waiting, wake := context.WithCancelCause(ctx)
	defer wake(nil)
	if s.w.heard(wake) {
		return nil
	}
	err := s.inbox.Wait(waiting)
	if s.w.heard(nil) && errors.Is(err, errRung) {
		return nil
	}
	return err
}

// page takes one page and has it kept. While more is there, the next one is taken
// meanwhile.
func (s *session) page(ctx context.Context) (more bool, err error) {
	var l leaf
	given := false
	defer func() {
		if !given { // a panic: nothing of it is kept
			l.forget(s.w.in)
		}
	}()
	to, more, err := s.inbox.Next(ctx, provider.Cursor(s.cursor), func(m provider.Incoming) error { return s.take(ctx, &l, m) })
	if errors.Is(err, errFull) {
		more, err = true, nil
	}
	given = true
	kept := s.keep(ctx, &l, string(to), more && err == nil)
	if err != nil { // what was taken before it is kept nevertheless
		return false, errors.Join(err, kept)
	}
	return more, kept
}

// keep gives a page to the store. With ahead it does not wait for it, but for the
// page before it.
func (s *session) keep(ctx context.Context, l *leaf, to string, ahead bool) error {
	err := s.settle()
	if err != nil {
		l.forget(s.w.in)
		return err
	}
	next := store.Position{Protocol: s.protocol, Cursor: to, Doc: s.memo.text()}
	s.cursor = to
	if next == s.pos && len(l.messages)+len(l.known) == 0 {
		l.release(s.w.in) // one may have broken off
		return nil
	}
	fence, mine := s.w.in.Owner.Fence(s.w.id)
	if !mine {
		l.forget(s.w.in)
		return errOff
	}
	p := store.Page{Org: s.w.org, Mailbox: s.w.id, From: s.pos, To: next, Messages: l.messages, Known: l.known, Fence: fence}
	s.pos, s.fence = next, fence
	done := make(chan error, 1)
	go func() {
		defer func() { // as in attempt: one session's, and not the program's
			if e := recover(); e != nil {
				done <- mailgrant.Errorf(mailgrant.Internal, fmt.Errorf("panic: %v", e), "keeping what came met a mistake of mailgrant's own").Fix("look at the log, and report it")
			}
		}()
		done <- s.collect(ctx, l, p)
	}()
	s.kept, s.brought = done, len(l.messages) > 0
	if ahead {
		return nil
	}
	return s.settle()
}

// settle waits for the page that is being kept. A session that brings mail does not
// count as one of those that fail, however it ends.
func (s *session) settle() error {
	if s.kept == nil {
		return nil
	}
	err := <-s.kept
	s.kept = nil
	if err == nil && s.brought {
		s.w.failures = 0
	}
	return err
}

func (s *session) collect(ctx context.Context, l *leaf, p store.Page) error {
	in := s.w.in
	in.Steps("inbox.before-collect")
	// What was taken is kept although the reading is being stopped.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keepWithin)
	defer cancel()
	taken, err := in.Store.Collect(ctx, p)
	in.Steps("inbox.after-collect")
	l.release(in)
	if err != nil {
		return overtaken(fmt.Errorf("keep what came: %w", err))
	}
	n := int64(0)
	for i, ok := range taken {
		if ok {
			n++
		} else {
			l.dropChunks(ctx, in, i)
		}
	}
	if n > 0 {
		now := in.now().UTC()
		s.w.say(func(st *mailgrant.ReaderStatus) { st.LastMail, st.Taken = &now, st.Taken+n })
	}
	return nil
}

// overtaken is err, unless somebody else reads the mailbox by now, or moved it: then
// it is only to be opened anew.
func overtaken(err error) error {
	if !errors.Is(err, mailgrant.Conflict) {
		return err
	}
	return mailgrant.Errorf(mailgrant.Unavailable, err, "the mailbox was taken over or changed meanwhile").Fix("nothing is to be done; it is opened anew")
}

// keepWithin is how long a page may take to be kept.
const keepWithin = 30 * time.Second

// A leaf is a page that is being taken.
type leaf struct {
	messages []store.Collected
	known    []string
	chunks   []bool // messages with chunks in the store already
	room     int64  // of the inbox's
	full     bool   // it holds more than there was room for
}

func (l *leaf) release(in *Inbox) {
	in.room.Release(l.room)
	l.room = 0
}

// forget is for a page that is not to be kept.
func (l *leaf) forget(in *Inbox) {
	l.release(in)
	for i := range l.messages {
		l.dropChunks(context.Background(), in, i)
	}
}

func (l *leaf) dropChunks(ctx context.Context, in *Inbox, i int) {
	if !l.chunks[i] {
		return
	}
	a := l.messages[i].Arrival
	if err := in.Store.DropChunks(ctx, a.Org, a.ID); err != nil {
		in.Log.Warn("drop a body", "arrival", a.ID, "err", err) // the sweep finds it
	}
}

// errFull ends a page early: too much is in memory over all mailboxes.
var errFull = errors.New("inbox: no room")

// reserve makes room for a message; where the provider does not say how large it
// is, for the largest. Whoever holds room already does not wait for more: the page
// ends and is kept first.
func (s *session) reserve(ctx context.Context, l *leaf, size int64) (n int64, err error) {
	n = int64(2 * body.ChunkSize)
	if size > 0 {
		n = min(size, n)
	}
	if len(l.messages) == 0 && l.room == 0 {
		if err := s.w.in.room.Acquire(ctx, n); err != nil {
			return 0, err
		}
	} else if l.full || !s.w.in.room.TryAcquire(n) {
		return 0, errFull
	}
	l.room += n
	return n, nil
}

// occupy sets right what was reserved, when it is known how much is in memory. The
// provider may have said less: then the page ends.
func (l *leaf) occupy(in *Inbox, reserved, used int64) {
	switch more := used - reserved; {
	case more <= 0:
		in.room.Release(-more)
		l.room += more
	case in.room.TryAcquire(more):
		l.room += more
	default:
		l.full = true
	}
}
