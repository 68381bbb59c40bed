package imap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
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
	triesMax   = 5 // connections that one message may cost
	strangeMax = 3 // answers with other messages than expected, before each is asked for alone
	inARow     = 2 // messages refused one after the other that are their own fault
)

// A takeError is one of our own side: the connection is fine.
type takeError struct{ err error }

func (e *takeError) Error() string { return e.err.Error() }

// errPageEnds says that what comes next would be too much for the page.
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
	var batch []fetched // in the order of uids; what is gone is not there
	for _, uid := range uids {
		if f, known := about[uid]; known || !all {
			f.uid = uid
			batch = append(batch, f)
		}
	}
	h := &handing{s: s, t: t, p: p}
	h.done = func(uid uint32) {
		for len(*list) > 0 && (*list)[0] <= uid {
			*list = (*list)[1:]
		}
		if at := s.places[t.name]; !odd {
			at.Next, at.Tries = uint64(uid)+1, 0
			s.places[t.name] = at
		}
	}
	if err := h.all(batch); err != nil {
		return err
	}
	h.done(uids[len(uids)-1])
	return nil
}

// A handing gives the messages of one folder to whoever reads, in their order.
type handing struct {
	s     *session
	t     *tracked
	p     *page
	done  func(uid uint32) // moves the cursor behind it
	alone bool             // the next one is asked for by itself
}

// all gives them, with one command for as many as the page holds. Commands that
// follow each other without waiting would not do: Dovecot answers several at
// once, so that bytes come before the end of another's command.
func (h *handing) all(batch []fetched) error {
	for len(batch) > 0 {
		n := h.plain(batch)
		if n == 0 {
			if err := h.without(batch[0]); err != nil {
				return err
			}
			batch = batch[1:]
			continue
		}
		if n = h.fits(batch[:n]); n == 0 {
			h.p.done = true
			return errPageEnds
		}
		if h.alone || h.s.single {
			n = 1
		}
		given, err := h.fetch(batch[:n])
		if err != nil {
			return err
		}
		h.alone = given < n
		batch = batch[given:]
	}
	return nil
}

func (h *handing) at() place { return h.s.places[h.t.name] }

// plain is how many of the first are to be fetched.
func (h *handing) plain(batch []fetched) int {
	for i, f := range batch {
		if h.s.tooOld(f) || h.s.tooLarge(f.size) {
			return i
		}
	}
	return len(batch)
}

// fits is how many of the first the page still holds. It holds one in any case.
func (h *handing) fits(batch []fetched) int {
	bytes := h.p.bytes
	for i, f := range batch {
		if bytes += f.size; bytes > pageBytes && h.p.n+i > 0 {
			return i
		}
	}
	return len(batch)
}

// without passes a message that is not fetched.
func (h *handing) without(f fetched) error {
	if !h.s.tooOld(f) {
		if err := h.p.add(h.incoming(f), 0); err != nil {
			return err
		}
	}
	h.done(f.uid)
	return nil
}

func (h *handing) incoming(f fetched) provider.Incoming {
	return provider.Incoming{Remote: h.at().remote(h.t.name, f.uid), Folder: h.t.name, ReceivedAt: f.at, Size: f.size}
}

// fetch asks for the bytes of some messages and gives them as they come. It says
// how many were given. Where another one comes than is expected, nothing more is
// taken of that answer: the next command asks for the expected one alone, and that
// answer says whether it is gone.
func (h *handing) fetch(run []fetched) (given int, err error) {
	s := h.s
	uids, total := make([]uint32, len(run)), int64(0)
	for i, f := range run {
		uids[i] = f.uid
		total += f.size
	}
	tag, err := s.send(s.c.limits.command, "UID FETCH "+uidSet(uids)+" (UID BODY.PEEK[])")
	if err != nil {
		return 0, err
	}
	s.link.left += int(min(total, pageBytes))
	s.link.bodies = true
	defer func() { s.link.bodies = false }()
	odd := false
	for {
		r, err := s.next()
		switch {
		case err != nil && given < len(run):
			return given, h.lost(run[given], err)
		case err != nil:
			return given, err
		case r.tag == tag:
			if odd {
				s.strange++
				s.single = s.single || s.strange >= strangeMax
			}
			return h.end(run, given, r)
		case r.tag != "":
			return given, errGarbled
		case r.kind != "FETCH":
			continue
		}
		f, err := readFetch(r.rest)
		if err != nil {
			return given, err
		}
		if !f.here && !f.whole {
			continue
		}
		if odd || given == len(run) || f.uid != run[given].uid && (f.uid != 0 || len(run) > 1) {
			odd = odd || given < len(run) && len(run) > 1
			s.single = s.single || f.uid == 0 // its number comes behind its bytes
			if err := s.passBody(); err != nil {
				return given, err
			}
			continue
		}
		if err := h.body(run[given], f); err != nil {
			return given, h.abandon(tag, err)
		}
		given++
		s.refusals = 0
		s.Conn.SetReadDeadline(time.Now().Add(s.c.limits.command))
	}
}

// end is the end of a fetch.
func (h *handing) end(run []fetched, given int, r response) (int, error) {
	no := &refused{r}
	switch {
	case given == len(run):
		return given, nil
	case r.kind == "OK" && len(run) == 1: // gone, between the two questions
		h.done(run[0].uid)
		return 1, nil
	case r.kind == "OK":
		return given, nil
	case len(run) == 1:
		return h.refusal(run[0], no)
	case h.s.ofMessage(no):
		return given, nil
	}
	return given, no
}

// body hands over the bytes as they come.
func (h *handing) body(w, f fetched) error {
	s, in := h.s, h.incoming(w)
	if f.whole {
		in.Body = strings.NewReader(f.body)
		if s.tooLarge(int64(len(f.body))) {
			in.Body, in.Size = nil, int64(len(f.body))
		}
		if err := h.p.add(in, int64(len(f.body))); err != nil {
			return err
		}
		h.done(w.uid)
		return nil
	}
	b := s.link.body
	if s.tooLarge(b.n) {
		in.Size = b.n
		if err := h.p.add(in, 0); err != nil {
			return err
		}
		h.done(w.uid)
		return s.passBody()
	}
	b.end = func() error {
		r, err := parse(s.link.line)
		if err != nil {
			return err
		}
		if rest, err := readFetch(r.rest); err != nil || rest.uid != 0 && rest.uid != w.uid {
			return errGarbled
		}
		return nil
	}
	in.Body = b
	err := h.p.add(in, b.n)
	if b.err != nil && b.err != io.EOF {
		return h.lost(w, b.err)
	}
	if err == nil {
		h.done(w.uid)
	}
	return err
}

// abandon leaves a fetch in the middle. After an error of our own side the
// answers that are on their way are heard out and the session goes on.
func (h *handing) abandon(tag string, err error) error {
	var take *takeError
	if !errors.As(err, &take) {
		return err
	}
	s := h.s
	s.Conn.SetReadDeadline(time.Now().Add(s.c.limits.command))
	herr := s.passBody()
	if herr == nil {
		_, herr = s.hear(tag, func(response) error { return s.passBody() })
	}
	if no := (*refused)(nil); herr != nil && !errors.As(herr, &no) {
		s.HangUp()
	}
	return err
}

// lost is a connection that ended over the bytes of one message. When that
// happens over and over it is the message.
func (h *handing) lost(w fetched, err error) error {
	at := h.at()
	if at.Next > uint64(w.uid) || errors.Is(err, net.ErrClosed) { // closed by ourselves: somebody ended the context
		return err
	}
	at.Next, at.Tries = uint64(w.uid), at.Tries+1
	h.s.places[h.t.name] = at
	if at.Tries < triesMax {
		return err
	}
	in := h.incoming(w)
	in.Err = wire.Error(h.s.Explain(err), err, "%s does not give this message: the connection is lost each time", h.s.Host)
	if terr := h.p.add(in, 0); terr != nil {
		return terr
	}
	h.done(w.uid)
	return err
}

// refusal is a no to one message. The first time it is asked for again; the
// second time it is the message's own fault, unless what the server says is about
// the mailbox, or it refuses one after the other.
func (h *handing) refusal(w fetched, no *refused) (int, error) {
	s, at := h.s, h.at()
	switch {
	case !s.ofMessage(no):
		return 0, no
	case h.t.retry != w.uid:
		h.t.retry = w.uid
		return 0, nil
	case s.refusals >= inARow && at.Tries+1 < triesMax && at.Next <= uint64(w.uid):
		at.Next, at.Tries = uint64(w.uid), at.Tries+1
		s.places[h.t.name] = at
		return 0, no
	}
	s.refusals++
	in := h.incoming(w)
	in.Err = wire.Error(s.Explain(no), no, "%s does not give this message", s.Host)
	if err := h.p.add(in, 0); err != nil {
		return 0, err
	}
	h.done(w.uid)
	return 1, nil
}

func (s *session) tooOld(f fetched) bool { return !f.at.IsZero() && f.at.Before(s.reading.Since) }

func (s *session) tooLarge(n int64) bool { return s.reading.Max > 0 && n > s.reading.Max }

// describe asks what the messages are. Those that it does not name are gone,
// unless all is false. An answer whose UIDs are not those that were asked for, in
// their order, says nothing: then each is asked for by itself.
func (s *session) describe(uids []uint32) (about map[uint32]fetched, all bool, err error) {
	about = make(map[uint32]fetched, len(uids))
	sane, err := s.describeTo(about, uids)
	if err == nil && !sane && len(uids) > 1 {
		s.c.Log.Warn("a server's UIDs are not those that were asked for", "mailbox", s.Way.Mailbox.ID, "host", s.Host)
		clear(about)
		for i := range uids {
			if _, err = s.describeTo(about, uids[i:i+1]); err != nil {
				break
			}
		}
	}
	if no := (*refused)(nil); errors.As(err, &no) && s.ofMessage(err) {
		return about, false, nil // each is fetched by itself, and its answer says more
	}
	return about, sane, err
}

func (s *session) describeTo(about map[uint32]fetched, uids []uint32) (sane bool, err error) {
	sane = true
	next := 0
	_, err = s.run("UID FETCH "+uidSet(uids)+" (UID INTERNALDATE RFC822.SIZE)", func(r response) error {
		if r.kind != "FETCH" {
			return nil
		}
		f, err := readFetch(r.rest)
		if err != nil || f.size == 0 && f.at.IsZero() && !slices.Contains(uids, f.uid) {
			return err // somebody's flags
		}
		for next < len(uids) && uids[next] < f.uid {
			next++
		}
		if next == len(uids) || uids[next] != f.uid {
			sane = false
			return nil
		}
		about[f.uid] = f
		next++
		return nil
	})
	return sane, err
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

// passBody counts bytes that nobody reads as part of the answer: there are bounds
// to what is read past.
func (s *session) passBody() error {
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

// ofMessage says whether a no can be about one message.
func (s *session) ofMessage(err error) bool {
	f := s.Explain(err)
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
