package webhook

import (
	"context"
	"time"

	"github.com/mailgrant/mailgrant/internal/store"
)

// A span is a part of the log that is told: all that comes, or a replay.
type span struct {
	store.Replay
	again  bool
	read   int64 // events to here were looked at
	places []*place
	kept   int64 // the position in the store
}

// A place is an event of a span that is not done with.
type place struct {
	it    item
	done  bool // taken, or waiting in a row
	taken bool
	row   bool // it has a row though it is in memory: others must not be told again because of it
}

const (
	// window is how many events of a webhook wait in memory; readBatch are read at
	// once.
	window    = 512
	readBatch = 128

	// lookSoon is when events that were added but are not shown yet are looked for,
	// twice as long after each look that finds them hidden still, up to lookLate.
	lookSoon = 5 * time.Millisecond
	lookLate = time.Second
)

// position is up to where all is done with.
func (s *span) position() int64 {
	n := 0
	for n < len(s.places) && s.places[n].done {
		n++
	}
	s.places = s.places[n:]
	if len(s.places) == 0 {
		return s.read
	}
	return s.places[0].it.e.Seq - 1
}

// ahead counts what was taken behind the position, and gives what of it is not done
// with up to the last that was.
func (s *span) ahead() (taken int, lags []*place) {
	last := len(s.places) - 1
	for last >= 0 && !s.places[last].taken {
		last--
	}
	for _, p := range s.places[:last+1] {
		if p.taken {
			taken++
		}
		if !p.done {
			lags = append(lags, p)
		}
	}
	return taken, lags
}

func (s *span) ended() bool { return s.again && s.read >= s.Until && len(s.places) == 0 }

// nextReplay begins with the oldest replay, if there is one.
func (l *line) nextReplay(ctx context.Context) error {
	all, err := l.t.Store.Replays(ctx, l.org, l.id)
	if err != nil || len(all) == 0 {
		return err
	}
	l.replay = &span{Replay: all[0], again: true, read: all[0].Position, kept: all[0].Position}
	return nil
}

// fill reads on in the log, and in the replay.
func (l *line) fill(ctx context.Context, now time.Time) {
	if !l.hidden.IsZero() && !l.hidden.After(now) {
		l.more, l.hidden = true, time.Time{}
	}
	for l.more && l.room() {
		if !l.readOn(ctx, l.log, now) {
			break
		}
	}
	for l.replay != nil && l.replay.read < l.replay.Until && l.room() {
		if !l.readOn(ctx, l.replay, now) {
			break
		}
	}
	if l.held >= window {
		l.thin(now)
	}
}

// room says whether more is to be read. While the endpoint takes nothing that is
// what is too old to wait any longer, and once for each try, if those are answered,
// what may be of a mailbox that it does take.
func (l *line) room() bool {
	if l.held >= window || len(l.out.Wait) >= window || len(l.out.Done) >= window {
		return false
	}
	return !l.down || len(l.lanes) == 0 || l.seek && len(l.ready) == 0 || l.expires(l.t.now())
}

// readOn takes a batch of a span. It says whether to go on.
func (l *line) readOn(ctx context.Context, s *span, now time.Time) bool {
	events, err := l.t.Store.Events(ctx, l.org, store.EventFilter{After: s.read, Limit: readBatch})
	if err != nil {
		if ctx.Err() == nil {
			l.t.Log.Warn("read events for a webhook", "webhook", l.id, "err", err)
		}
		l.hidden = now.Add(storeRetry)
		return false
	}
	if len(events) > 0 {
		l.patient = 0
	}
	expires := l.expires(now)
	l.seek = false
	for _, e := range events {
		if e.Seq > s.Until {
			s.read = s.Until
			l.touch(now)
			return false
		}
		if l.hook.App != "" && e.Subject == l.hook.App && (e.Kind == "app.changed" || e.Kind == "app.deleted") {
			l.changed.Store(true)
		}
		if !l.hook.Wants(e, l.boxes) {
			s.read = e.Seq
			l.touch(now)
			continue
		}
		p := &place{it: item{e: e, again: s.again}}
		p.it.place = p
		late := expires && p.it.late(now)
		if expires && !late && len(l.lanes) > 0 {
			return false // the rest is not too old yet
		}
		s.read = e.Seq
		s.places = append(s.places, p)
		if late {
			l.bury(p.it, l.untried(p.it, now), now)
			continue
		}
		l.take(p.it, now)
	}
	if len(events) < readBatch {
		if s.again { // nothing more can come before its end
			s.read = s.Until
			l.touch(now)
			return false
		}
		l.more = false
		l.hideAndSeek(ctx, now)
		return false
	}
	return true
}

// hideAndSeek looks again soon when there are events that are not shown yet: nobody
// may say so when they are.
func (l *line) hideAndSeek(ctx context.Context, now time.Time) {
	hidden, err := l.t.Store.EventsHidden(ctx, l.org, l.log.read)
	if !hidden && err == nil {
		l.patient = 0
		return
	}
	l.patient = min(max(2*l.patient, lookSoon), lookLate)
	l.hidden = now.Add(l.patient)
}
