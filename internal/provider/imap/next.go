package imap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/diagnose"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/wire"
)

// A page ends where one of these is reached.
const (
	pageMessages = 100
	pageBytes    = 8 << 20
)

const (
	ahead    = 8       // messages asked for before the first has come
	beyond   = 8 << 20 // more than this over the limit is not read past
	triesMax = 5       // connections that one message may cost
	inARow   = 2       // messages refused one after the other that are their own fault
)

// A takeError is one of our own side: the connection is fine.
type takeError struct{ err error }

func (e *takeError) Error() string { return e.err.Error() }

// errPageEnds ends a page before its bounds.
var errPageEnds = errors.New("the page ends here")

// A page is what one Next has given so far.
type page struct {
	take  func(provider.Incoming) error
	n     int
	bytes int64
	done  bool
}

func (p *page) full() bool { return p.done || p.n >= pageMessages || p.bytes >= pageBytes }

// Next takes a page. Its cursor moves with each message, so that an error in the
// middle loses nothing and repeats nothing.
func (s *session) Next(ctx context.Context, from provider.Cursor, take func(provider.Incoming) error) (to provider.Cursor, more bool, err error) {
	defer s.during(ctx, "imap-read", &err)()
	at, err := readCursor(from)
	if err != nil {
		return from, false, err
	}
	s.places = at
	if from != s.given {
		for _, t := range s.folders {
			t.forget()
		}
	}
	p := &page{take: take}
	for _, t := range s.folders {
		if err = s.readFolder(ctx, t, p); err != nil || p.full() {
			break
		}
	}
	for _, t := range s.folders {
		more = more || t.due || len(t.pending)+len(t.odd) > 0
	}
	s.given = at.cursor()
	return s.given, more && err == nil, err
}

func (s *session) readFolder(ctx context.Context, t *tracked, p *page) error {
	for spans := 0; !p.full(); {
		if !t.due && len(t.pending)+len(t.odd) == 0 {
			return nil
		}
		if err := s.choose(t); err != nil {
			return err
		}
		s.settle(t)
		if len(t.pending)+len(t.odd) == 0 {
			if spans++; spans > 20 {
				return nil // more, with the next page
			}
			if err := s.search(ctx, t); err != nil {
				return err
			}
			continue
		}
		if err := s.readSome(t, p); err != nil && err != errPageEnds {
			return err
		}
	}
	return nil
}

// A wanted is a message to be given.
type wanted struct {
	fetched
	tag string // of the command that asks for its bytes
}

// readSome gives the next messages of a folder, as many as the page still holds.
func (s *session) readSome(t *tracked, p *page) error {
	list, odd := &t.pending, false
	if len(t.pending) == 0 {
		list, odd = &t.odd, true
	}
	uids := (*list)[:min(len(*list), pageMessages-p.n)]
	about, all, err := s.describe(uids)
	if err != nil {
		return err
	}
	var batch []wanted // in the order of uids
	for _, uid := range uids {
		f, known := about[uid]
		if known || !all {
			f.uid = uid
			batch = append(batch, wanted{fetched: f})
		}
	}
	s.link.bodies = true
	defer func(l *link) { l.bodies = false }(s.link)
	sent, bytes := 0, p.bytes
	done := func(uid uint32) {
		for len(*list) > 0 && (*list)[0] <= uid {
			*list = (*list)[1:]
		}
		if at := s.places[t.name]; !odd {
			at.Next, at.Tries = uint64(uid)+1, 0
			s.places[t.name] = at
		}
	}
	for i := range batch {
		if sent-i < ahead/2 {
			if sent, bytes, err = s.ask(batch, sent, i+ahead, bytes, p.n+i > 0); err != nil {
				return err
			}
			if sent == i { // what comes would be too much for this page
				p.done = true
				return errPageEnds
			}
		}
		w := &batch[i]
		if !s.tooOld(w.fetched) {
			if err := s.give(t, w, p, func() { done(w.uid) }); err != nil {
				return s.abandon(t, batch[i:sent], err)
			}
		}
		done(w.uid)
	}
	done(uids[len(uids)-1]) // what is gone at the end
	return nil
}

func (s *session) tooOld(f fetched) bool { return !f.at.IsZero() && f.at.Before(s.reading.Since) }

func (s *session) tooLarge(n int64) bool { return s.reading.Max > 0 && n > s.reading.Max }

// describe asks what the messages are. Those that it does not name are gone,
// unless all is false.
func (s *session) describe(uids []uint32) (about map[uint32]fetched, all bool, err error) {
	about = make(map[uint32]fetched, len(uids))
	for _, uid := range uids {
		about[uid] = fetched{}
	}
	_, err = s.run("UID FETCH "+uidSet(uids)+" (UID INTERNALDATE RFC822.SIZE)", func(r response) error {
		if r.kind != "FETCH" {
			return nil
		}
		f, err := readFetch(r.rest)
		if err != nil {
			return err
		}
		if old, asked := about[f.uid]; asked && old.uid == 0 {
			about[f.uid] = f
		}
		return nil
	})
	for uid, f := range about {
		if f.uid == 0 {
			delete(about, uid)
		}
	}
	var no *refused
	if errors.As(err, &no) && s.link != nil && s.ofMessage(err) {
		return about, false, nil // each is asked for by itself
	}
	return about, true, err
}

// ask sends the commands for the next messages, up to batch[to], in one write.
func (s *session) ask(batch []wanted, from, to int, bytes int64, some bool) (int, int64, error) {
	var out strings.Builder
	i := from
	for ; i < min(to, len(batch)); i++ {
		w := &batch[i]
		if s.tooOld(w.fetched) || s.tooLarge(w.size) {
			continue
		}
		if bytes += w.size; bytes > pageBytes && (some || i > 0) {
			bytes -= w.size
			break
		}
		w.tag = s.link.tag()
		fmt.Fprintf(&out, "%s UID FETCH %d (UID BODY.PEEK[])\r\n", w.tag, w.uid)
	}
	if out.Len() == 0 {
		return i, bytes, nil
	}
	s.link.conn.SetDeadline(time.Now().Add(s.c.limits.command))
	return i, bytes, s.link.write([]byte(out.String()))
}

// give hands one message over.
func (s *session) give(t *tracked, w *wanted, p *page, done func()) error {
	in := provider.Incoming{Remote: s.places[t.name].remote(t.name, w.uid), Folder: t.name, ReceivedAt: w.at, Size: w.size}
	if w.tag == "" {
		return p.add(in, 0)
	}
	s.link.left = floodMax
	s.link.conn.SetReadDeadline(time.Now().Add(s.c.limits.command))
	given := false
	for {
		r, err := s.next()
		switch {
		case err != nil:
			if given {
				return err
			}
			return s.lost(t, w, in, p, err, done)
		case r.tag == w.tag:
			w.tag = ""
			if given || r.kind == "OK" { // or gone, between the two questions
				if given {
					s.refusals = 0
				}
				return nil
			}
			return s.refusal(t, w, in, p, &refused{r})
		case r.tag != "":
			return errGarbled
		case r.kind != "FETCH":
			continue
		}
		f, err := readFetch(r.rest)
		if err != nil {
			return err
		}
		if given || !f.here && !f.whole || f.uid != 0 && f.uid != w.uid {
			if err := s.boundBody(r); err != nil {
				return err
			}
			continue
		}
		given = true
		if err := s.body(t, w, in, f, p, done); err != nil {
			return err
		}
		s.link.conn.SetReadDeadline(time.Now().Add(s.c.limits.command))
	}
}

// body hands over the bytes as they come.
func (s *session) body(t *tracked, w *wanted, in provider.Incoming, f fetched, p *page, done func()) error {
	if f.whole {
		in.Body = strings.NewReader(f.body)
		if s.tooLarge(int64(len(f.body))) {
			in.Body = nil
		}
		err := p.add(in, int64(len(f.body)))
		if err == nil {
			done()
		}
		return err
	}
	b := s.link.body
	if s.tooLarge(b.n) {
		in.Size = b.n
		if err := p.add(in, 0); err != nil {
			return err
		}
		done()
		if b.n > s.reading.Max+beyond {
			return errFlood // nobody waits for the rest
		}
		return nil
	}
	b.end = func() error {
		if rest, err := readFetch(s.tail()); err != nil || rest.uid != 0 && rest.uid != w.uid {
			return errGarbled
		}
		return nil
	}
	in.Body = b
	err := p.add(in, b.n)
	if b.err != nil && b.err != io.EOF {
		return s.lost(t, w, in, p, b.err, done)
	}
	if err == nil {
		done()
	}
	return err
}

// tail is the answer behind the bytes of a message.
func (s *session) tail() []byte {
	r, err := parse(s.link.line)
	if err != nil {
		return nil
	}
	return r.rest
}

// add gives one message to whoever reads.
func (p *page) add(in provider.Incoming, n int64) error {
	if err := p.take(in); err != nil {
		return &takeError{err}
	}
	p.n++
	p.bytes += n
	return nil
}

// abandon leaves a page in the middle. After an error of our own side, or when
// one message is asked for again, the answers that are on their way are heard
// out and the session goes on.
func (s *session) abandon(t *tracked, open []wanted, err error) error {
	var take *takeError
	if err != errPageEnds && !errors.As(err, &take) {
		return err
	}
	for _, w := range open {
		if w.tag == "" {
			continue
		}
		s.link.left = floodMax + int(min(w.size, pageBytes))
		s.link.conn.SetReadDeadline(time.Now().Add(s.c.limits.command))
		var no *refused
		if _, herr := s.hear(w.tag, s.boundBody); herr != nil && !errors.As(herr, &no) {
			s.hangUp()
			break
		}
	}
	return err
}

// boundBody counts the bytes that nobody reads as part of the answer.
func (s *session) boundBody(response) error {
	b := s.link.body
	if b == nil {
		return nil
	}
	if b.n > int64(s.link.left) {
		return errFlood
	}
	s.link.left -= int(b.n)
	return nil
}

// lost is a connection that ended over the bytes of one message. When that
// happens over and over it is the message.
func (s *session) lost(t *tracked, w *wanted, in provider.Incoming, p *page, err error, done func()) error {
	at := s.places[t.name]
	if at.Next > uint64(w.uid) || errors.Is(err, context.Canceled) {
		return err
	}
	at.Next, at.Tries = uint64(w.uid), at.Tries+1
	s.places[t.name] = at
	if at.Tries < triesMax {
		return err
	}
	in.Body, in.Err = nil, wire.Error(s.explain(err), err, "%s does not give this message: the connection is lost each time", s.way.Settings.IMAPHost)
	if terr := p.add(in, 0); terr != nil {
		return terr
	}
	done()
	return err
}

// refusal is a no to one message. The first time it is asked for again, by
// itself; the second time it is the message's own fault, unless what the server
// says is about the mailbox, or it refuses one after the other.
func (s *session) refusal(t *tracked, w *wanted, in provider.Incoming, p *page, no *refused) error {
	at := s.places[t.name]
	switch {
	case !s.ofMessage(no):
		return no
	case t.retry != w.uid:
		t.retry, p.done = w.uid, true
		return errPageEnds
	case s.refusals >= inARow && at.Tries+1 < triesMax && at.Next <= uint64(w.uid):
		at.Next, at.Tries = uint64(w.uid), at.Tries+1
		s.places[t.name] = at
		return no
	}
	s.refusals++
	in.Err = wire.Error(s.explain(no), no, "%s does not give this message", s.way.Settings.IMAPHost)
	return p.add(in, 0)
}

// ofMessage says whether a no can be about one message.
func (s *session) ofMessage(err error) bool {
	f := s.explain(err)
	return f.Cause == diagnose.Unknown || f.Cause == "provider-outage" || f.Retry == mailgrant.RetryNever
}

// uidSet writes ascending UIDs as RFC 3501 wants a set: 1:4,7.
func uidSet(uids []uint32) string {
	var b strings.Builder
	for i := 0; i < len(uids); {
		j := i
		for j+1 < len(uids) && uids[j+1] == uids[j]+1 {
			j++
		}
		if i > 0 {
			b.WriteByte(',')
		}
		if fmt.Fprint(&b, uids[i]); j > i {
			fmt.Fprintf(&b, ":%d", uids[j])
		}
		i = j + 1
	}
	return b.String()
}
