package store

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
)

// An EventFilter chooses events.
type EventFilter struct {
	After   int64    // cursor: the Seq of the last one seen
	Limit   int      // 0 = 100
	Kinds   []string // "grant.lapsed", or all of a sort: "grant.*"
	Subject mailgrant.ID
	App     mailgrant.ID
	Mailbox mailgrant.ID

	Mailboxes []mailgrant.ID // only of these; nil = of any, or of none
}

// event is the statement that adds e to the log. Over SQLite it gets its number
// when it is written: an event that waited must not come behind a later one.
func (s *Store) event(e mailgrant.Event) stmt {
	if e.At.IsZero() {
		e.At = time.Now()
	}
	data := string(e.Data)
	if data == "" {
		data = "{}"
	}
	if s.Clustered() {
		// The transaction has its id before the event has its number: see horizon.
		return stmt{`INSERT INTO events (org, seq, tx, kind, at, subject, app, mailbox, data)
			SELECT ?, nextval('event_seq'), t.id, ?, ?, ?, ?, ?, ? FROM (SELECT pg_current_xact_id() AS id OFFSET 0) t`,
			[]any{string(e.Org), e.Kind, micros(e.At), string(e.Subject), string(e.App), string(e.Mailbox), data}}
	}
	return stmt{"INSERT INTO events (org, seq, kind, at, subject, app, mailbox, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
		[]any{string(e.Org), late(func() any { return s.seq.Add(1) }), e.Kind, micros(e.At), string(e.Subject), string(e.App), string(e.Mailbox), data}}
}

func (s *Store) addEvent(ctx context.Context, q querier, e mailgrant.Event) error {
	st := s.event(e)
	_, err := q.exec(ctx, st.sql, st.args...)
	return err
}

// AddEvent puts e into the log.
func (s *Store) AddEvent(ctx context.Context, e mailgrant.Event) error {
	_, err := s.do(ctx, s.event(e))
	if err == nil {
		s.told()
	}
	return err
}

// Events are the organization's events after a cursor, oldest first. An event is
// shown when nothing before it can still appear.
func (s *Store) Events(ctx context.Context, org mailgrant.ID, f EventFilter) ([]mailgrant.Event, error) {
	if f.Limit <= 0 {
		f.Limit = 100
	}
	q := "SELECT org, seq, kind, at, subject, app, mailbox, data FROM events WHERE org = ? AND seq > ?"
	args := []any{string(org), f.After}
	for _, c := range []struct {
		column string
		id     mailgrant.ID
	}{{"subject", f.Subject}, {"app", f.App}, {"mailbox", f.Mailbox}} {
		if c.id != "" {
			q += " AND " + c.column + " = ?"
			args = append(args, string(c.id))
		}
	}
	if f.Mailboxes != nil {
		if len(f.Mailboxes) == 0 {
			return []mailgrant.Event{}, nil
		}
		q += " AND mailbox IN " + marks(len(f.Mailboxes))
		for _, m := range f.Mailboxes {
			args = append(args, string(m))
		}
	}
	if len(f.Kinds) > 0 {
		var any []string
		for _, k := range f.Kinds {
			if group, ok := strings.CutSuffix(k, "*"); ok {
				any = append(any, `kind LIKE ? ESCAPE '\'`)
				args = append(args, likeable.Replace(group)+"%")
				continue
			}
			any = append(any, "kind = ?")
			args = append(args, k)
		}
		q += " AND (" + strings.Join(any, " OR ") + ")"
	}
	if s.Clustered() {
		upTo, err := s.shown(ctx)
		if err != nil {
			return nil, err
		}
		q += " AND seq <= ?"
		args = append(args, upTo)
	}
	return list(ctx, s.eng, q+" ORDER BY seq LIMIT ?", append(args, f.Limit), func(r rows) (mailgrant.Event, error) {
		var e mailgrant.Event
		var org, subject, app, mailbox, data string
		var at int64
		err := r.Scan(&org, &e.Seq, &e.Kind, &at, &subject, &app, &mailbox, &data)
		e.Org, e.Subject, e.App, e.Mailbox = mailgrant.ID(org), mailgrant.ID(subject), mailgrant.ID(app), mailgrant.ID(mailbox)
		e.At, e.Data = fromMicros(at), json.RawMessage(data)
		return e, err
	})
}

// LastEvent is the cursor of the newest event that is shown.
func (s *Store) LastEvent(ctx context.Context, org mailgrant.ID) (int64, error) {
	q, args := "SELECT COALESCE(MAX(seq), 0) FROM events WHERE org = ?", []any{string(org)}
	if s.Clustered() {
		upTo, err := s.shown(ctx)
		if err != nil {
			return 0, err
		}
		q += " AND seq <= ?"
		args = append(args, upTo)
	}
	return one[int64](ctx, s.eng, q, args...)
}

// WatchEvents gives a channel on which something comes when events were added,
// on this node or another. Call stop when done.
func (s *Store) WatchEvents() (added <-chan struct{}, stop func()) {
	ch := make(chan struct{}, 1)
	s.watchMu.Lock()
	s.watch[ch] = true
	s.watchMu.Unlock()
	return ch, func() {
		s.watchMu.Lock()
		delete(s.watch, ch)
		s.watchMu.Unlock()
	}
}

// told wakes those who watch, here and on the other nodes.
func (s *Store) told() {
	s.wake()
	select {
	case s.tell <- struct{}{}: // nil over SQLite
	default:
	}
}

// wake wakes those who watch here.
func (s *Store) wake() {
	s.watchMu.Lock()
	defer s.watchMu.Unlock()
	for ch := range s.watch {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// pgChannel carries "lane ORG MAILBOX", "retry ORG MAILBOX", "reader ORG MAILBOX",
// "mail ORG MAILBOX" and "doubt ORG MAILBOX" between nodes, and bare wake-ups.
const pgChannel = "mailgrant"

// listenEvents has a connection of its own, as LISTEN needs. When it is lost,
// watchers are woken at each new connection: nothing is missed, only late.
func (s *Store) listenEvents(e *pgEngine) {
	ctx, cancel := context.WithCancel(context.Background())
	s.listen = cancel
	s.tell = make(chan struct{}, 1)
	s.wg.Go(func() { s.tellOthers(ctx, e) })
	s.wg.Go(func() {
		for ctx.Err() == nil {
			err := s.listenOnce(ctx, e)
			if ctx.Err() == nil {
				s.log.Warn("listening to the other nodes", "err", err)
				select {
				case <-time.After(time.Second):
				case <-ctx.Done():
				}
			}
		}
	})
}

func (s *Store) listenOnce(ctx context.Context, e *pgEngine) error {
	conn, err := e.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	raw := conn.Hijack() // a listening connection must not go back to the pool
	defer raw.Close(context.Background())
	if _, err := raw.Exec(ctx, "LISTEN "+pgChannel); err != nil {
		return err
	}
	s.wake()
	for _, wake := range []*func(org, mailbox mailgrant.ID){s.lanes.Load(), s.readers.Load()} {
		if wake != nil {
			(*wake)("", "") // what was said while nobody listened
		}
	}
	for {
		n, err := raw.WaitForNotification(ctx)
		if err != nil {
			return err
		}
		if f := strings.Fields(n.Payload); len(f) == 3 {
			wake := s.lanes.Load()
			switch f[0] {
			case "retry":
				wake = s.retries.Load()
			case "reader":
				wake = s.readers.Load()
			case "mail":
				wake = s.bells.Load()
			case "doubt":
				wake = s.doubts.Load()
			}
			if wake != nil {
				(*wake)(mailgrant.ID(f[1]), mailgrant.ID(f[2]))
			}
			continue
		}
		s.wake()
	}
}

// tellEvery is how often a node tells the others of new events at most: a
// notification locks the whole server for the moment of its commit.
const tellEvery = 100 * time.Millisecond

// tellOthers tells the other nodes of new events.
func (s *Store) tellOthers(ctx context.Context, e *pgEngine) {
	for {
		select {
		case <-s.tell:
		case <-ctx.Done():
			return
		}
		if _, err := e.exec(ctx, "SELECT pg_notify('"+pgChannel+"', 'events')"); err != nil && ctx.Err() == nil {
			s.log.Warn("telling the other nodes of events", "err", err)
		}
		select {
		case <-time.After(tellEvery):
		case <-ctx.Done():
			return
		}
	}
}

// WakeLane has the node look that owns a lane.
func (s *Store) WakeLane(ctx context.Context, org, mailbox mailgrant.ID) error {
	if !s.Clustered() {
		return nil
	}
	_, err := s.do(ctx, wakeLane(org, mailbox))
	return err
}

// RetryLane has the node that owns a lane try again at once: somebody did something
// about what keeps its mail back.
func (s *Store) RetryLane(ctx context.Context, org, mailbox mailgrant.ID) error {
	if !s.Clustered() {
		return nil
	}
	_, err := s.do(ctx, notify("retry", org, mailbox))
	return err
}

// WakeReader has the node read a mailbox anew that owns it.
func (s *Store) WakeReader(ctx context.Context, org, mailbox mailgrant.ID) error {
	if !s.Clustered() {
		return nil
	}
	_, err := s.do(ctx, notify("reader", org, mailbox))
	return err
}

// RingReader has the node that owns a mailbox ask its provider for new mail.
func (s *Store) RingReader(ctx context.Context, org, mailbox mailgrant.ID) error {
	if !s.Clustered() {
		return nil
	}
	_, err := s.do(ctx, notify("mail", org, mailbox))
	return err
}

// DoubtReader has all nodes know that the provider of a mailbox may not tell of its
// mail any more: one of them reads it, or will.
func (s *Store) DoubtReader(ctx context.Context, org, mailbox mailgrant.ID) error {
	if !s.Clustered() {
		return nil
	}
	_, err := s.do(ctx, notify("doubt", org, mailbox))
	return err
}

// OnMail has f called when another node was told of new mail in a mailbox.
func (s *Store) OnMail(f func(org, mailbox mailgrant.ID)) { s.bells.Store(&f) }

// OnDoubt has f called when a node learnt that the provider of a mailbox may not
// tell of its mail any more.
func (s *Store) OnDoubt(f func(org, mailbox mailgrant.ID)) { s.doubts.Store(&f) }

// OnReader has f called when another node changed how a mailbox is read, and
// without one when all should be looked at.
func (s *Store) OnReader(f func(org, mailbox mailgrant.ID)) { s.readers.Store(&f) }

// OnLane has f called when another node accepted a submission for a lane, and
// without one when all should be looked at.
func (s *Store) OnLane(f func(org, mailbox mailgrant.ID)) { s.lanes.Store(&f) }

// OnRetry has f called when another node was told of something that may let a lane
// go on.
func (s *Store) OnRetry(f func(org, mailbox mailgrant.ID)) { s.retries.Store(&f) }

// wakeLane tells the other nodes of new work; nothing on SQLite.
func wakeLane(org, mailbox mailgrant.ID) stmt { return notify("lane", org, mailbox) }

func notify(what string, org, mailbox mailgrant.ID) stmt {
	return stmt{"SELECT pg_notify('" + pgChannel + "', ?)", []any{what + " " + string(org) + " " + string(mailbox)}}
}
