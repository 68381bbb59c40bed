package inbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/body"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/wire"
	"github.com/mailgrant/mailgrant/internal/rfc5322"
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

const (
	// afterBatch is how many messages are marked, moved or deleted at once: by POP,
	// each time costs a session, and some servers allow one in five minutes.
	afterBatch = 1000

	// afterPause is the time between tries of what is done after reading, where it
	// fails; reading goes on.
	afterPause = 5 * time.Minute
)

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

func (m memo) text() string {
	b, _ := json.Marshal(m)
	return string(b)
}

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

// take turns one message into an arrival.
func (s *session) take(ctx context.Context, l *leaf, m provider.Incoming) error {
	if !m.ReceivedAt.IsZero() && m.ReceivedAt.Before(s.since) {
		l.known = append(l.known, m.Remote)
		return nil
	}
	if m.Err != nil {
		return s.refused(l, m, m.Err)
	}
	if s.w.bad[m.Remote].n >= badMax {
		s.quarantine(l, m, nil)
		return nil
	}
	if m.Body == nil {
		s.bodyless(l, m, fmt.Sprintf("the message has %d bytes, more than the limit of %d", m.Size, s.w.in.MessageBytes))
		return nil
	}
	reserved, err := s.reserve(ctx, l, m.Size)
	if err != nil {
		return err
	}
	far := &source{r: m.Body}
	m.Body = far
	c, stored, err := s.arrival(ctx, m)
	if err != nil {
		if far.broke && ctx.Err() == nil {
			s.count(m.Remote, badEvery)
		}
		return err
	}
	l.occupy(s.w.in, reserved, int64(len(c.Body)))
	l.add(c, stored)
	delete(s.w.bad, m.Remote)
	return nil
}

// A source is the bytes of a message, and remembers whether it was the provider who
// broke off: what goes wrong here is no fault of the message.
type source struct {
	r     io.Reader
	broke bool
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.broke = s.broke || err != nil && err != io.EOF && !errors.Is(err, provider.ErrTooLarge)
	return n, err
}

func (l *leaf) add(c store.Collected, stored bool) {
	l.messages, l.chunks = append(l.messages, c), append(l.chunks, stored)
}

// refused is a message that the provider does not give. It is tried again a few
// times, and then put in quarantine, so that the others come.
func (s *session) refused(l *leaf, m provider.Incoming, err error) error {
	s.count(m.Remote, 0)
	if s.w.bad[m.Remote].n < badMax {
		return fmt.Errorf("read the message %s: %w", m.Remote, err)
	}
	s.quarantine(l, m, wire.FindingOf(err))
	return nil
}

// count counts a failure of one message, unless the one before was just now.
func (s *session) count(remote string, every time.Duration) {
	if s.w.bad == nil {
		s.w.bad = map[string]fault{}
	}
	f, now := s.w.bad[remote], s.w.in.now()
	if f.n > 0 && now.Sub(f.at) < every {
		return
	}
	s.w.bad[remote] = fault{f.n + 1, now}
}

func (s *session) quarantine(l *leaf, m provider.Incoming, f *mailgrant.Finding) {
	if f == nil {
		f = &mailgrant.Finding{Cause: "unknown", Title: "Message not read", Sentence: "The provider began to give this message and did not end it, several times.",
			Remedy: "Look at the message at the provider; then have it read again.", Who: mailgrant.WhoMailboxOwner, Retry: mailgrant.RetryFix}
	}
	delete(s.w.bad, m.Remote)
	c := s.bare(m)
	c.Arrival.State, c.Arrival.Finding = mailgrant.ArrivalQuarantined, f
	c.Arrival.Unparsed = "the provider does not give it"
	c.Events = []mailgrant.Event{s.told("arrival.quarantined", c.Arrival)}
	l.add(c, false)
}

func (s *session) bodyless(l *leaf, m provider.Incoming, why string) {
	c := s.bare(m)
	c.Arrival.Unparsed = why
	c.Events = []mailgrant.Event{s.told("arrival.new", c.Arrival)}
	l.add(c, false)
}

// bare is an arrival of which only the provider's word is known.
func (s *session) bare(m provider.Incoming) store.Collected {
	a := mailgrant.Arrival{ID: mailgrant.NewID(mailgrant.PrefixArrival), Org: s.w.org, Mailbox: s.w.id, State: mailgrant.ArrivalNew, Protocol: s.protocol,
		Folder: wire.Clean(m.Folder, 200), RemoteID: m.Remote, NoticedAt: s.w.in.now().UTC(), ReceivedAt: m.ReceivedAt.UTC(), Size: m.Size}
	return store.Collected{Arrival: a, Loose: []byte(m.Remote), Exact: []byte(m.Remote)} // nothing else tells it from others
}

// arrival reads one message: its bytes go to be kept, and what they say is parsed
// on the way.
func (s *session) arrival(ctx context.Context, m provider.Incoming) (c store.Collected, stored bool, err error) {
	in := s.w.in
	c = s.bare(m)
	keep, until := s.keepUntil(c.Arrival.NoticedAt)
	k := in.bodies()
	if !keep {
		k.Store = nowhere{k.Store}
	}
	w := k.Writer(ctx, s.w.org, c.Arrival.ID)
	p, err := parse(io.TeeReader(m.Body, w))
	if err == nil {
		err = w.Settle()
	}
	if err == nil && keep {
		c.Body, err = k.Seal(s.w.org, c.Arrival.ID, w.First)
	}
	if err != nil {
		return c, false, errors.Join(err, w.Drop())
	}
	stored = keep && w.Stored()
	a := &c.Arrival
	a.Size, a.Body = w.Size(), keep
	c.Exact = w.Digest()[:16]
	w.Release()
	p.Fill(a)
	if c.Loose = p.Loose[:]; p.Loose == ([16]byte{}) { // it could not be read at all
		c.Loose = c.Exact
	}
	if keep {
		c.BodyUntil = until
	}
	if r := s.box.Receive; r.After != "" && r.After != mailgrant.AfterLeave {
		c.After, s.undone = r.After, true
	}
	c.Loosely = !s.memo.Switched.IsZero() && !a.ReceivedAt.IsZero() && a.ReceivedAt.Before(s.memo.Switched.Add(clockSlack))
	c.Words = words(*a)
	if in.Own(*a) {
		a.State = mailgrant.ArrivalIgnored
		return c, stored, nil
	}
	c.Events = append(c.Events, s.told("arrival.new", *a))
	if a.Bounce != nil {
		c.Events = append(c.Events, s.bounced(ctx, a)...)
		c.Events[0] = s.told("arrival.new", *a) // with what is known of the bounce
	}
	return c, stored, nil
}

// clockSlack is how far the clocks of a provider and of this machine may be apart.
const clockSlack = 2 * time.Minute

// nowhere forgets what it is given: only headers are kept.
type nowhere struct{ body.Store }

func (nowhere) PutChunk(context.Context, mailgrant.ID, mailgrant.ID, int64, []byte) error { return nil }
func (nowhere) DropChunks(context.Context, mailgrant.ID, mailgrant.ID) error              { return nil }

// keepUntil says whether the bytes of a message are kept, and how long.
func (s *session) keepUntil(now time.Time) (keep bool, until time.Time) {
	life := s.w.in.Keep
	if k := s.box.Receive.Keep; k != nil {
		if life = time.Duration(*k); life <= 0 {
			return false, time.Time{}
		}
	}
	if life <= 0 {
		return true, forEver
	}
	return true, now.Add(life)
}

var forEver = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

// parse reads what a message says. A mistake of ours with one message is that
// message's: its bytes are kept all the same. ME-01, R-ME1.
func parse(r io.Reader) (p rfc5322.Parsed, err error) {
	defer func() {
		if e := recover(); e != nil {
			p = rfc5322.Parsed{}
			p.Unparsed = "reading it met a mistake of mailgrant's own"
			_, err = io.Copy(io.Discard, r)
		}
	}()
	p, err = rfc5322.Read(r)
	if err == nil {
		_, err = io.Copy(io.Discard, r)
	}
	return p, err
}

// wordsMax bounds what a search looks in.
const wordsMax = 1000

func words(a mailgrant.Arrival) string {
	var b bytes.Buffer
	for _, l := range [][]mailgrant.Address{a.From, a.To, a.Cc} {
		for _, ad := range l {
			if b.Len() > wordsMax {
				break
			}
			b.WriteString(ad.Name + " " + ad.Address + " ")
		}
	}
	b.WriteString(a.Subject + " " + a.MessageID)
	s := strings.ToLower(b.String())
	if len(s) > 2*wordsMax {
		s = s[:2*wordsMax]
	}
	return strings.ToValidUTF8(s, "")
}

// A Summary is what an event says of an arrival.
type Summary struct {
	ID         mailgrant.ID        `json:"id"`
	Folder     string              `json:"folder,omitempty"`
	ReceivedAt time.Time           `json:"received_at,omitzero"`
	Size       int64               `json:"size"`
	MessageID  string              `json:"message_id,omitempty"`
	InReplyTo  []string            `json:"in_reply_to,omitempty"`
	From       []mailgrant.Address `json:"from,omitempty"`
	To         []mailgrant.Address `json:"to,omitempty"`
	Subject    string              `json:"subject,omitempty"`
	Snippet    string              `json:"snippet,omitempty"`
	Files      int                 `json:"attachments,omitempty"`
	Auto       string              `json:"auto_submitted,omitempty"`
	Bounce     *mailgrant.Bounce   `json:"bounce,omitempty"`
	Unparsed   string              `json:"unparsed,omitempty"`
	Finding    *mailgrant.Finding  `json:"finding,omitempty"`
}

// addressesTold bounds an event; the arrival has all.
const addressesTold = 20

func (s *session) told(kind string, a mailgrant.Arrival) mailgrant.Event {
	data := marshal(Summary{ID: a.ID, Folder: a.Folder, ReceivedAt: a.ReceivedAt, Size: a.Size, MessageID: a.MessageID, InReplyTo: a.InReplyTo,
		From: first(a.From), To: first(a.To), Subject: a.Subject, Snippet: a.Snippet, Files: len(a.Parts), Auto: a.Auto, Bounce: a.Bounce, Unparsed: a.Unparsed, Finding: a.Finding})
	return mailgrant.Event{Org: a.Org, Kind: kind, At: a.NoticedAt, Subject: a.ID, Mailbox: a.Mailbox, Data: data}
}

// marshal leaves < and > as they are: what reads it is no page.
func marshal(v any) json.RawMessage {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic("inbox: a summary does not marshal: " + err.Error()) // our own types always do
	}
	return bytes.TrimRight(b.Bytes(), "\n")
}

func first(l []mailgrant.Address) []mailgrant.Address { return l[:min(len(l), addressesTold)] }

// bounced ties a bounce to the submission that caused it. What a bounce claims
// counts only when our own record agrees: whose it is, its Message-ID, and that
// it went to those recipients. ME-06.
func (s *session) bounced(ctx context.Context, a *mailgrant.Arrival) []mailgrant.Event {
	claimed := a.Bounce.Submission
	a.Bounce.Submission = ""
	if !claimed.Is(mailgrant.PrefixSubmission) {
		return nil
	}
	sub, err := s.w.in.Store.Submission(ctx, s.w.org, claimed)
	if err != nil {
		if !errors.Is(err, mailgrant.NotFound) {
			s.w.in.Log.Warn("look for what bounced", "submission", claimed, "err", err)
		}
		return nil
	}
	if sub.MessageID != a.Bounce.MessageID || sub.Route.Mailbox != s.w.id && !strings.EqualFold(sub.EnvelopeFrom, s.box.Address) {
		return nil
	}
	var gone []mailgrant.BounceRecipient
	for _, r := range a.Bounce.Recipients {
		for _, to := range sub.Recipients {
			if strings.EqualFold(r.Address, to) && r.Action == "failed" {
				gone = append(gone, r)
			}
		}
	}
	a.Bounce.Submission = sub.ID
	if len(gone) == 0 {
		return nil
	}
	data, _ := json.Marshal(map[string]any{"arrival": a.ID, "recipients": gone})
	return []mailgrant.Event{{Org: s.w.org, Kind: "submission.bounced", At: a.NoticedAt, Subject: sub.ID, App: sub.App, Mailbox: sub.Route.Mailbox, Data: data}}
}

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
		var ids []mailgrant.ID
		var remotes []string
		for _, u := range l {
			if u.After == what {
				ids, remotes = append(ids, u.ID), append(remotes, u.Remote)
			}
		}
		if what == s.box.Receive.After { // else it was to be done, and is not to be any more
			in.Steps("inbox.before-done")
			if err := s.inbox.Done(ctx, remotes, what, s.box.Receive.MoveTo); err != nil {
				return s.notDone(ctx, what, err)
			}
			in.Steps("inbox.after-done")
		}
		if err := in.Store.AfterDone(ctx, s.w.org, s.fence, ids); err != nil {
			return overtaken(err)
		}
	}
}

// notDone tells, once, that messages cannot be marked, moved or deleted. A
// failure of the connection ends the session as any other.
func (s *session) notDone(ctx context.Context, what mailgrant.AfterRead, err error) error {
	f := wire.FindingOf(err)
	if !f.NeedsPerson() && f.Retry != mailgrant.RetryNever {
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
