package api

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
	"github.com/mailgrant/mailgrant/internal/store"
)

const (
	eventType = "text/event-stream"

	// A stream looks again after lookEvery even if nobody said that there is
	// something: a word between nodes may be lost, and a key revoked. R-AP1.
	lookEvery = 3 * time.Second
	keepAlive = 15 * time.Second

	streamsAtOnce = 2000 // in this process
	streamsOfOne  = 32   // of one app
	eventsAtOnce  = 200  // held for one stream

	// hearWithin is how long a client may take to hear what was written.
	hearWithin = 30 * time.Second
)

// streams counts the streams that are open.
type streams struct {
	mu  sync.Mutex
	all int
	of  map[mailgrant.ID]int
}

func (s *streams) enter(app mailgrant.ID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.all >= streamsAtOnce:
		return mailgrant.Errorf(mailgrant.Unavailable, nil, "there are %d streams of events open already", s.all).Fix("read events by pages for now, and try again")
	case app != "" && s.of[app] >= streamsOfOne:
		return mailgrant.Errorf(mailgrant.Limited, nil, "the app has %d streams of events open already", s.of[app]).Fix("close one, or share one among its parts")
	}
	if s.of == nil {
		s.of = map[mailgrant.ID]int{}
	}
	s.all++
	s.of[app]++
	return nil
}

func (s *streams) leave(app mailgrant.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
	if s.of[app]--; s.of[app] == 0 {
		delete(s.of, app)
	}
}

// getEvents gives a page of the event log, or follows it.
func (c *call) getEvents() error {
	f, err := c.eventFilter()
	if err != nil {
		return err
	}
	if c.accepts(eventType) && c.r.Method != http.MethodHead {
		return c.follow(f)
	}
	l, err := c.Store.Events(c.r.Context(), c.by.Org, f)
	if err != nil {
		return err
	}
	p := client.Page[mailgrant.Event]{Items: l}
	if len(l) == f.Limit {
		p.Next = strconv.FormatInt(l[len(l)-1].Seq, 10)
	}
	return c.reply(p)
}

func (c *call) eventFilter() (f store.EventFilter, err error) {
	f = store.EventFilter{Kinds: c.q["kind"], Subject: mailgrant.ID(c.q.str("subject")), App: mailgrant.ID(c.q.str("app")), Mailbox: mailgrant.ID(c.q.str("mailbox"))}
	if len(f.Kinds) > 100 {
		return f, mailgrant.Errorf(mailgrant.Invalid, nil, "more than 100 kinds are asked for").Fix("leave kind out to have all").At("kind")
	}
	if err := mailgrant.CheckKinds("kind", f.Kinds); err != nil {
		return f, err
	}
	if f.Limit, err = c.q.limit(100); err != nil {
		return f, err
	}
	after, at := c.q.str("after"), "after"
	if s := c.q.str("cursor"); s != "" {
		after, at = s, "cursor"
	}
	if s := c.r.Header.Get("Last-Event-ID"); s != "" && c.accepts(eventType) { // a browser that comes back
		after, at = s, "Last-Event-ID"
	}
	if err := received(c.by, &f); err != nil {
		return f, err
	}
	switch after {
	case "":
	case "now":
		f.After, err = c.Store.LastEvent(c.r.Context(), c.by.Org)
	default:
		if f.After, err = strconv.ParseInt(after, 10, 64); err != nil || f.After < 0 {
			err = mailgrant.Errorf(mailgrant.Invalid, err, "%s is not the number of an event", at).Fix("take the seq of the last event you saw, or now").At(at)
		}
	}
	return f, err
}

// follow writes events as they come, until the client leaves, its key is revoked
// or the door is closed.
func (c *call) follow(f store.EventFilter) error {
	if err := c.streams.enter(c.by.App.ID); err != nil {
		return err
	}
	defer c.streams.leave(c.by.App.ID)
	added, stop := c.Store.WatchEvents() // before the first look: nothing falls between
	defer stop()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	c.w.Header().Set("X-Accel-Buffering", "no") // proxies
	c.stream(eventType)
	s := &follower{call: c, f: f, out: http.NewResponseController(c.w)}
	s.f.Limit = eventsAtOnce
	for said := time.Now(); ; {
		n, err := s.tell(c.r.Context())
		if err == nil && (n > 0 || time.Since(said) >= keepAlive || s.silent()) {
			said = time.Now()
			err = s.flush(n == 0)
		}
		if err != nil {
			c.Log.Debug("a stream of events ends", "trace", c.trace, "err", err)
			return nil
		}
		if n == eventsAtOnce {
			continue
		}
		select {
		case <-added:
		case <-tick.C:
		case <-c.r.Context().Done():
			return nil
		case <-c.stop:
			return nil
		}
	}
}

// A follower is one stream of events.
type follower struct {
	*call
	f     store.EventFilter
	out   *http.ResponseController
	buf   bytes.Buffer
	began bool
}

// silent says whether nothing was written yet: a client likes to know that the
// stream stands.
func (s *follower) silent() bool { return !s.began }

// tell takes the next events into the buffer, if the key still holds.
func (s *follower) tell(ctx context.Context) (int, error) {
	select {
	case <-s.stop:
		return 0, http.ErrServerClosed
	default:
	}
	by, err := s.Access.Confirm(ctx, s.by)
	if err != nil {
		return 0, err
	}
	if !by.May(mailgrant.ScopeRead) && !by.May(mailgrant.ScopeReceive) {
		return 0, s.lacks(mailgrant.ScopeRead)
	}
	if err := received(by, &s.f); err != nil {
		return 0, err
	}
	// What is not wanted is gone through once, and not again with each event that comes.
	last, err := s.Store.LastEvent(ctx, s.call.by.Org)
	if err != nil {
		return 0, err
	}
	l, err := s.Store.Events(ctx, s.call.by.Org, s.f)
	if err != nil {
		return 0, err
	}
	for _, e := range l {
		b, err := json.Marshal(e)
		if err != nil {
			return 0, err
		}
		s.buf.WriteString("id: ")
		s.buf.WriteString(strconv.FormatInt(e.Seq, 10))
		s.buf.WriteString("\ndata: ")
		s.buf.Write(b)
		s.buf.WriteString("\n\n")
		s.f.After = e.Seq
	}
	if len(l) < s.f.Limit {
		s.f.After = max(s.f.After, last)
	}
	return len(l), nil
}

func (s *follower) flush(empty bool) error {
	if empty {
		s.buf.WriteString(": keep-alive\n\n")
	}
	s.began = true
	s.hear(s.buf.Len())
	if _, err := s.w.Write(s.buf.Bytes()); err != nil {
		return err
	}
	s.buf.Reset()
	return s.out.Flush()
}

// slowly lets a long answer take its time, but not for ever: the client must hear
// each piece of it.
func (c *call) slowly(w io.Writer) io.Writer { return patient{c, w} }

type patient struct {
	c *call
	w io.Writer
}

// Write implements io.Writer.
func (p patient) Write(b []byte) (int, error) {
	p.c.hear(len(b))
	return p.w.Write(b)
}

// hear gives the client time to hear so many bytes.
func (c *call) hear(n int) {
	c.timed = true
	c.unheard(http.NewResponseController(c.w).SetWriteDeadline(time.Now().Add(hearWithin + time.Duration(n/slowest)*time.Second)))
}

// untimed sees the end of a long answer off, and leaves no deadline to the next
// request of the connection.
func (c *call) untimed() {
	if !c.timed {
		return
	}
	rc := http.NewResponseController(c.w)
	c.unheard(rc.Flush())
	c.unheard(rc.SetWriteDeadline(time.Time{}))
}
