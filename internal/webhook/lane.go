package webhook

import (
	"context"
	"slices"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/store"
)

// A lane is the ordered way of the events of one mailbox. Those without one share
// a lane.
type lane struct {
	mailbox mailgrant.ID
	queue   []item
	busy    bool
	listed  bool      // in ready
	rows    bool      // the store has more of it
	unsaved int       // rows on their way there
	due     time.Time // its first was not taken: not before
}

// An item is an event on its way.
type item struct {
	e        mailgrant.Event
	place    *place // nil: it comes from a row
	again    bool   // of a replay
	attempts int
	since    time.Time // when it began to wait; zero: it did not
}

// A row names one that waits.
type row struct {
	mailbox mailgrant.ID
	seq     int64
}

const (
	// laneKeep is what a lane keeps in memory when it fills the window alone.
	laneKeep = 32

	// rowBatch is how many events that have rows are read at once.
	rowBatch = 2 * repeats
)

func (l *line) lane(mailbox mailgrant.ID) *lane {
	n := l.lanes[mailbox]
	if n == nil {
		n = &lane{mailbox: mailbox}
		l.lanes[mailbox] = n
	}
	return n
}

// take puts an event into its lane; behind others that wait in the store it waits
// there too.
func (l *line) take(it item, now time.Time) {
	n := l.lane(it.e.Mailbox)
	if n.rows || n.unsaved > 0 || !n.due.IsZero() {
		l.wait(n, it, now)
		return
	}
	n.queue = append(n.queue, it)
	if len(n.queue) > window/2 {
		l.fat = n
	}
	l.held++
	l.list(n)
}

// wait gives an event that waits a row.
func (l *line) wait(n *lane, it item, now time.Time) {
	if it.since.IsZero() {
		it.since = now
	}
	d := l.try(it, done{})
	l.keep(n, it, time.Time{}, d, now)
}

// keep puts a row into the store, with the next record: the place of the event
// moves in the same transaction.
func (l *line) keep(n *lane, it item, due time.Time, last mailgrant.Delivery, now time.Time) {
	l.out.Wait = append(l.out.Wait, store.WaitingEvent{Event: it.e, Attempts: it.attempts, Since: it.since, DueAt: due, Last: &last})
	l.out.saved[n]++
	n.unsaved++
	delete(l.gone, row{n.mailbox, it.e.Seq})
	if it.place != nil {
		it.place.done = true
	}
	l.touch(now)
}

// strike takes an event off the rows.
func (l *line) strike(n *lane, e mailgrant.Event, now time.Time) {
	l.out.Done = append(l.out.Done, e)
	l.gone[row{n.mailbox, e.Seq}] = true
	l.touch(now)
}

// thin makes room when one mailbox fills the window: what is far behind in its lane
// waits in the store, and the other mailboxes go on.
func (l *line) thin(now time.Time) {
	n := l.fat
	if n == nil || l.down {
		return
	}
	if l.fat = nil; len(n.queue) <= window/2 {
		return
	}
	for _, it := range n.queue[laneKeep:] {
		l.held--
		if it.place != nil {
			l.wait(n, it, now)
		}
	}
	n.queue = slices.Clone(n.queue[:laneKeep])
	n.rows = true
}

// loadRows takes the next events of a lane out of the store. Those that were taken
// and are not yet away from there are left out.
func (l *line) loadRows(ctx context.Context, n *lane, now time.Time) {
	limit := rowBatch
	if l.down { // one is tried
		limit = 1 + len(l.gone)
	}
	rows, err := l.t.Store.WaitingEvents(ctx, l.org, l.id, n.mailbox, limit)
	if err != nil {
		if ctx.Err() == nil {
			l.t.Log.Warn("read what waits for a webhook", "webhook", l.id, "err", err)
		}
		l.block(n, now.Add(storeRetry))
		return
	}
	n.rows = len(rows) == limit
	for _, w := range rows {
		if l.gone[row{n.mailbox, w.Event.Seq}] {
			continue
		}
		if w.Event.Kind == "" { // no more in the log
			l.strike(n, w.Event, now)
			continue
		}
		if len(n.queue) == 0 && w.DueAt.After(now) && (w.Last == nil || !w.Last.At.Before(l.back)) {
			n.rows = true
			l.block(n, w.DueAt)
			return
		}
		n.queue = append(n.queue, item{e: w.Event, attempts: w.Attempts, since: w.Since})
		l.held++
	}
}

// list puts a lane among those that may go on.
func (l *line) list(n *lane) {
	if n.listed || n.busy || !n.due.IsZero() || len(n.queue) == 0 && !n.rows {
		return
	}
	n.listed = true
	l.ready = append(l.ready, n)
}

// rest forgets a lane that has nothing left.
func (l *line) rest(n *lane) {
	if len(n.queue) == 0 && !n.rows && n.unsaved == 0 && !n.busy && !n.listed && n.due.IsZero() && l.lanes[n.mailbox] == n {
		delete(l.lanes, n.mailbox)
	}
}

// block puts a lane off.
func (l *line) block(n *lane, until time.Time) {
	if !n.due.IsZero() {
		l.blocks--
	}
	n.due = until
	if until.IsZero() {
		l.list(n)
		return
	}
	l.blocks++
	if l.due.IsZero() || until.Before(l.due) {
		l.due = until
	}
}

// wakeLanes lists the lanes that were put off till now.
func (l *line) wakeLanes(now time.Time) {
	if l.blocks == 0 || l.due.After(now) || l.down {
		return
	}
	l.due = time.Time{}
	for _, n := range l.lanes {
		switch {
		case n.due.IsZero():
		case !n.due.After(now):
			l.block(n, time.Time{})
		case l.due.IsZero() || n.due.Before(l.due):
			l.due = n.due
		}
	}
}

// unblock lists all lanes that were put off.
func (l *line) unblock() {
	for _, n := range l.lanes {
		if !n.due.IsZero() {
			l.block(n, time.Time{})
		}
	}
	l.due = time.Time{}
}
