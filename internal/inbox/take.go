package inbox

import (
	"bytes"
	"context"
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
	c.Events = []mailgrant.Event{summary("arrival.quarantined", c.Arrival)}
	l.add(c, false)
}

func (s *session) bodyless(l *leaf, m provider.Incoming, why string) {
	c := s.bare(m)
	c.Arrival.Unparsed = why
	c.Events = []mailgrant.Event{summary("arrival.new", c.Arrival)}
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
	var bounced []mailgrant.Event
	if a.Bounce != nil {
		bounced = s.bounced(ctx, a)
	}
	c.Events = append([]mailgrant.Event{summary("arrival.new", *a)}, bounced...)
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
