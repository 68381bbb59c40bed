package pop

import (
	"bufio"
	"context"
	"errors"
	"math"
	"strconv"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/diagnose"
	"github.com/mailgrant/mailgrant/internal/provider"
)

// through is the cursor of a mailbox that was read to its end once. It says no
// more: where to go on is what nobody knows yet.
const through provider.Cursor = "1"

const (
	// batch is how many keys are asked about at once.
	batch = 500

	// ahead is what is looked at of a message's header before it is taken.
	ahead = 16 << 10

	// drainMax is how large a message may be that was not taken and is read to its
	// end, so that the session goes on.
	drainMax = 8 << 20

	// patience is how often a message may be refused for a reason that passes
	// before it counts as one that the server does not give.
	patience = 5
)

// inbox is an open mailbox, with a session or between two.
type inbox struct {
	c   Config
	way provider.Way
	r   provider.Reading

	s     *session
	ended bool          // its listing was looked through
	login time.Time     // of the last session
	delay time.Duration // that must lie between two

	looked map[uint32]string // keys that had to be looked for, by number
	hashes map[string]int    // how often each came

	before  memory          // see vanished
	deleted map[string]bool // unique ids that we deleted and that were not missing yet
	refused map[string]int  // how often, by key
}

func (b *inbox) Pushes() bool { return false }

// connect begins a session, no sooner after the last one than the server allows.
func (b *inbox) connect(ctx context.Context) error {
	if !b.login.IsZero() {
		if err := rest(ctx, time.Until(b.login.Add(b.delay))); err != nil {
			return err
		}
	}
	s := newSession(b.c, b.way)
	if err := s.Open(ctx, s); err != nil {
		return err
	}
	b.s, b.ended, b.login, b.delay = s, false, s.begun, s.caps.delay
	b.looked, b.hashes = nil, nil
	return nil
}

// drop ends a session that is of no more use.
func (b *inbox) drop() {
	if b.s != nil {
		b.s.HangUp()
		b.s = nil
	}
}

// ready is a session with its listing.
func (b *inbox) ready(ctx context.Context) error {
	if b.s == nil {
		if err := b.connect(ctx); err != nil {
			return err
		}
	}
	if b.s.listed != nil {
		return nil
	}
	defer b.s.Conn.CloseWith(ctx)()
	if err := b.s.list(); err != nil {
		return b.failed(ctx, err)
	}
	return b.vanished(ctx)
}

// failed drops the session and says why.
func (b *inbox) failed(ctx context.Context, err error) error {
	defer b.drop()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var e *mailgrant.Error
	if errors.As(err, &e) {
		return err
	}
	return b.s.broken(err)
}

func (b *inbox) Next(ctx context.Context, from provider.Cursor, take func(provider.Incoming) error) (provider.Cursor, bool, error) {
	if b.s != nil && b.ended { // it shows nothing that has come since
		b.leave(ctx)
	}
	if err := b.ready(ctx); err != nil {
		return from, false, err
	}
	defer b.s.Conn.CloseWith(ctx)()
	p := page{inbox: b, take: take}
	if err := p.read(ctx); err != nil {
		return from, false, err
	}
	if b.s == nil || b.s.at < len(b.s.listed.entries) {
		return from, true, nil
	}
	b.ended = true
	return through, false, nil
}

// A page is one call of Next.
type page struct {
	*inbox
	take  func(provider.Incoming) error
	taken int
	bytes int64
	looks int

	refusals int // one after the other
}

// read looks through the listing from where the last page ended.
func (p *page) read(ctx context.Context) error {
	all := p.s.listed.entries
	for p.s != nil && p.s.at < len(all) && !p.full() {
		keys := make([]string, 0, batch)
		from := p.s.at
		for i := from; i < min(len(all), from+batch); i++ {
			k, err := p.key(i)
			if err != nil {
				return p.failed(ctx, err)
			}
			keys = append(keys, k)
		}
		known, err := p.r.Known(ctx, keys)
		if err != nil {
			return err
		}
		for i, k := range keys {
			if p.s == nil || p.full() {
				break
			}
			if !known[k] {
				if err := p.one(ctx, all[from+i], k); err != nil {
					return err
				}
			}
			if p.s != nil {
				p.s.at = from + i + 1
			}
		}
	}
	return nil
}

func (p *page) full() bool {
	l := p.c.limits
	return p.taken >= l.page || p.bytes >= l.pageBytes || p.looks >= l.looks
}

// one takes a message, or leaves it alone. An error of take comes back as it is.
func (p *page) one(ctx context.Context, e entry, key string) error {
	in := provider.Incoming{Remote: key, Folder: Folder, Size: e.size}
	if !p.r.Since.IsZero() || p.tooLarge(e.size) {
		header, refused, err := p.s.header(e)
		p.looks++
		if err != nil {
			return p.failed(ctx, err)
		}
		if refused != nil {
			return p.notGiven(ctx, in, *refused)
		}
		in.ReceivedAt = received(header, time.Now())
	}
	if p.tooLarge(e.size) || p.older(in.ReceivedAt) {
		p.taken++
		return p.take(in)
	}
	return p.retrieve(ctx, e, in)
}

func (p *page) tooLarge(size int64) bool { return p.r.Max > 0 && size > p.r.Max }

// older says that a message is to be left alone: take remembers it and no more.
// What has no date counts as new: nothing is lost by taking it.
func (p *page) older(at time.Time) bool { return !at.IsZero() && at.Before(p.r.Since) }

// retrieve lets take read a message. What breaks off half way is not taken.
func (p *page) retrieve(ctx context.Context, e entry, in provider.Incoming) error {
	p.s.Step = "pop-read"
	r, err := p.s.command("RETR " + strconv.Itoa(int(e.number)))
	if err != nil {
		return p.failed(ctx, err)
	}
	if !r.ok {
		return p.notGiven(ctx, in, r)
	}
	most := int64(math.MaxInt64)
	if p.r.Max > 0 {
		most = p.r.Max
	}
	p.s.allow(e.size + 4<<20)
	d := newDots(p.s.r, most)
	body := bufio.NewReaderSize(d, ahead)
	start, _ := body.Peek(ahead)
	in.ReceivedAt = received(start, time.Now())
	in.Body = body
	err = p.take(in)
	switch {
	case errors.Is(d.err, provider.ErrTooLarge) && (err == nil || errors.Is(err, provider.ErrTooLarge)):
		p.drop() // all of it is on its way: the connection is of no more use
		in.Size, in.Body = max(in.Size, most+1), nil
		p.taken++
		return p.take(in)
	case d.err != nil && !d.whole():
		return p.failed(ctx, d.err)
	case err != nil:
		if e.size > drainMax || d.drain() != nil {
			p.drop()
		}
		return err
	}
	p.taken, p.bytes, p.refusals = p.taken+1, p.bytes+e.size, 0
	if err := d.drain(); err != nil {
		return p.failed(ctx, err)
	}
	delete(p.refused, in.Remote)
	return nil
}

// passing says whether a refusal is about the server and not about the message.
func (s *session) passing(r reply) bool {
	f := s.explain(r.text)
	return r.code == "SYS/TEMP" || r.code == "IN-USE" || f.Cause != diagnose.Unknown && (f.Retry == mailgrant.RetryLater || f.Retry == mailgrant.RetryNow)
}

// notGiven is for a message that the server refuses. One that it may give another
// time is passed over, so that it does not stop those behind it.
func (p *page) notGiven(ctx context.Context, in provider.Incoming, r reply) error {
	if p.s.passing(r) {
		if p.refused == nil {
			p.refused = map[string]int{}
		}
		if p.refused[in.Remote]++; p.refused[in.Remote] < patience {
			if p.refusals++; p.refusals >= patience { // it is the server
				return p.failed(ctx, p.s.refusedBy(r))
			}
			return nil
		}
		delete(p.refused, in.Remote)
	}
	in.Body, in.Err = nil, p.s.refusedBy(r)
	p.taken++
	return p.take(in)
}
