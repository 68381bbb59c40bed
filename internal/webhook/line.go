package webhook

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/store"
)

const (
	// connections is how many events a webhook is told of at once, where its
	// settings do not say.
	connections    = 4
	connectionsMax = 64

	// repeats is how many events at most are told again after a crash: so many may
	// be under way, or taken and not yet said to be in the store. One that takes long
	// has its place kept in a row when aheadMax behind it were taken.
	repeats  = 64
	aheadMax = 32

	// window is how many events of a webhook wait in memory; readBatch are read at
	// once, rowBatch of those that have rows. laneKeep is what a lane keeps of them
	// when it fills the window alone.
	window    = 512
	readBatch = 128
	rowBatch  = 2 * repeats
	laneKeep  = 32

	// recordEvery is how long what was taken may wait to be put into the store with
	// more; skipEvery the same for events that nobody wants.
	recordEvery = 100 * time.Millisecond
	skipEvery   = 10 * time.Second

	// life is how long an event is tried. A lane tries again after firstRetry, then
	// after twice as long, up to retryMax; an endpoint that takes nothing is tried
	// after firstProbe, up to probeMax.
	life       = 3 * 24 * time.Hour
	firstRetry = 5 * time.Second
	retryMax   = time.Hour
	firstProbe = time.Second
	probeMax   = 5 * time.Minute
	freshProbe = 30 * time.Second

	// downAfter failures in a row mean that the endpoint takes nothing: of several
	// lanes, or without any answer.
	downAfter = 4

	// stopWithin is how long an end waits for requests under way.
	stopWithin = 5 * time.Second

	storeRetry = time.Second
	fenceRetry = time.Second
)

// A line tells one webhook. Its goroutine alone uses what is below the channels.
type line struct {
	t       *Teller
	org, id mailgrant.ID

	added   atomic.Bool // there may be new events
	changed atomic.Bool // its settings, or a replay
	ending  atomic.Bool
	closing atomic.Bool   // it looks at nothing any more
	kick    chan struct{} // one of these was set
	done    chan done
	stored  chan error
	before  <-chan struct{} // the line before it is over; nil: there is none
	over    chan struct{}   // closed at the end
	cut     context.CancelFunc

	hook   mailgrant.Webhook
	boxes  []mailgrant.ID // of its app
	target target

	log    *span
	replay *span // nil: none
	lanes  map[mailgrant.ID]*lane
	ready  []*lane
	blocks int       // lanes with a time in due
	due    time.Time // of the first of them, at the earliest; zero: none
	held   int       // events in memory
	fat    *lane     // that fills the window
	active int       // requests under way

	more    bool          // the log may have more
	hidden  time.Time     // when it is looked again for what is not shown yet
	patient time.Duration // how long after the look before
	unsafe  int           // taken, and not said to be in the store, or not passed by the place there
	gone    map[row]bool

	streak   int          // failures since something was taken
	single   mailgrant.ID // the lane of all of them
	several  bool         // or of more than one
	answers  bool         // some of them were answers
	blocked  bool         // one was refused by the egress rules, and it was said
	down     bool         // takes nothing: one event at a time is tried
	seek     bool         // down: events of a mailbox that was not tried yet are looked for
	probes   int          // since it is down
	probeAt  time.Time
	probedAt time.Time // the last
	told     bool      // that it fails
	since    time.Time // it is down, or fails: the first of the failures
	back     time.Time // when it last took something again: what is put off from before is due
	pause    time.Time // it asked for one

	out     store.Telling // to be recorded next
	wanted  []arrival     // taken: in out
	saved   map[*lane]int // rows of lanes in out
	dirty   time.Time     // since when there is something in out
	urgent  bool          // it does not wait for more
	sending *batch        // not in the store yet; nil: none
	flying  bool          // it is under way there
	retryAt time.Time     // when the store is asked again
	logged  int           // tries recorded since old ones were removed
	first   mailgrant.ID  // the delivery of the first that was given up in out
	dead    int           // how many were
	lost    error         // another node's, or gone: nothing is recorded any more
}

// A row names one that waits.
type row struct {
	mailbox mailgrant.ID
	seq     int64
}

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

// A done is what became of an item.
type done struct {
	lane *lane
	it   item
	id   mailgrant.ID
	out  outcome
}

func newLine(t *Teller, org, id mailgrant.ID, before <-chan struct{}) *line {
	return &line{before: before, t: t, org: org, id: id, kick: make(chan struct{}, 1), done: make(chan done, connectionsMax), stored: make(chan error, 1), over: make(chan struct{}),
		lanes: map[mailgrant.ID]*lane{}, gone: map[row]bool{}, saved: map[*lane]int{}, more: true}
}

// poke sets a flag and wakes the line.
func (l *line) poke(flag *atomic.Bool) {
	flag.Store(true)
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

func (l *line) stop() { l.poke(&l.ending) }

// run tells until the line is stopped, its webhook is switched off or another node
// has it.
func (l *line) run() {
	defer close(l.over)
	if l.before != nil {
		<-l.before
	}
	ctx, cut := context.WithCancel(context.Background())
	defer cut()
	l.cut = cut
	if !l.load(ctx) {
		return
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for !l.ending.Load() && l.lost == nil && l.hook.State != mailgrant.WebhookDisabled {
		if l.changed.Swap(false) {
			if l.reload(ctx); l.lost != nil || l.hook.State == mailgrant.WebhookDisabled {
				break
			}
		}
		if l.added.Swap(false) {
			l.more, l.seek = true, l.answers
		}
		now := l.t.now()
		if _, mine := l.t.Owner.Fence(l.id); mine {
			l.wakeLanes(now)
			l.fill(ctx, now)
			l.dispatch(ctx, now)
			l.record(now)
			if d, idle := l.next(now); idle {
				timer.Stop()
			} else {
				timer.Reset(d)
			}
		} else { // the node cannot reach the database; if it is another's, we are stopped
			timer.Reset(fenceRetry)
		}
		select {
		case <-l.kick:
		case <-timer.C:
		case d := <-l.done:
			l.ended(d)
		case err := <-l.stored:
			l.recorded(err)
		}
	}
	l.closing.Store(true)
	l.finish()
}

// next is when something is to be done by itself.
func (l *line) next(now time.Time) (wait time.Duration, idle bool) {
	var at time.Time
	soon := func(t time.Time) {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	soon(l.hidden)
	switch {
	case l.flying:
	case l.sending != nil:
		soon(l.retryAt)
	case !l.dirty.IsZero():
		soon(l.dirty.Add(l.patience()))
	}
	switch {
	case l.active > 0 && l.down, l.unsafe >= repeats:
	case l.pause.After(now):
		soon(l.pause)
	case l.down && len(l.lanes) > 0:
		soon(l.nextProbe())
	case l.down:
	case l.blocks > 0:
		soon(l.due)
	}
	if at.IsZero() {
		return 0, true
	}
	return max(at.Sub(now), 0), false
}

// load reads everything at the start, again and again until the store answers.
func (l *line) load(ctx context.Context) bool {
	for !l.ending.Load() {
		err := l.begin(ctx)
		if err == nil {
			return l.hook.State != mailgrant.WebhookDisabled
		}
		if errors.Is(err, mailgrant.NotFound) {
			return false
		}
		l.t.Log.Warn("begin to tell a webhook", "webhook", l.id, "err", err)
		select {
		case <-time.After(storeRetry):
		case <-l.kick:
		}
	}
	return false
}

func (l *line) begin(ctx context.Context) error {
	if err := l.settings(ctx); err != nil {
		return err
	}
	lanes, err := l.t.Store.WaitingLanes(ctx, l.org, l.id)
	if err != nil {
		return err
	}
	l.log = &span{Replay: store.Replay{Until: math.MaxInt64}, read: l.hook.Position, kept: l.hook.Position}
	for _, w := range lanes {
		n := l.lane(w.Mailbox)
		n.rows = true
		l.block(n, w.DueAt)
	}
	if err := l.nextReplay(ctx); err != nil {
		return err
	}
	if l.hook.State == mailgrant.WebhookFailing && l.hook.FailingAt != nil {
		l.down, l.told, l.several, l.answers, l.since = true, true, true, true, *l.hook.FailingAt
	}
	return l.recheck(ctx)
}

// settings reads what the webhook is.
func (l *line) settings(ctx context.Context) error {
	w, err := l.t.Store.Webhook(ctx, l.org, l.id)
	if err != nil {
		return err
	}
	to, err := l.t.target(ctx, w)
	if err != nil {
		return err
	}
	l.boxes = nil
	if w.App != "" {
		a, err := l.t.Store.App(ctx, l.org, w.App)
		if err != nil && !errors.Is(err, mailgrant.NotFound) {
			return err
		}
		l.boxes = a.Mailboxes
	}
	l.hook, l.target = w, to
	return nil
}

// reload sees to it that somebody changed something: what is put off is tried now.
func (l *line) reload(ctx context.Context) {
	was := l.hook
	if err := l.settings(ctx); err != nil {
		if errors.Is(err, mailgrant.NotFound) {
			l.lost = err
			return
		}
		l.t.Log.Warn("look at a webhook", "webhook", l.id, "err", err)
		return
	}
	if l.hook.State != mailgrant.WebhookDisabled && !l.hook.UpdatedAt.Equal(was.UpdatedAt) {
		l.probes, l.probeAt, l.pause, l.back = 0, time.Time{}, time.Time{}, l.t.now()
		l.unblock()
	}
	lanes, err := l.t.Store.WaitingLanes(ctx, l.org, l.id) // dead letters may wait again
	if err != nil {
		l.t.Log.Warn("look at what waits for a webhook", "webhook", l.id, "err", err)
	}
	for _, w := range lanes {
		n := l.lane(w.Mailbox)
		n.rows = true
		if n.due.IsZero() {
			l.list(n)
		}
	}
	if l.replay == nil {
		if err := l.nextReplay(ctx); err != nil {
			l.t.Log.Warn("look at the replays of a webhook", "webhook", l.id, "err", err)
		}
	}
}

func (l *line) nextReplay(ctx context.Context) error {
	all, err := l.t.Store.Replays(ctx, l.org, l.id)
	if err != nil || len(all) == 0 {
		return err
	}
	l.replay = &span{Replay: all[0], again: true, read: all[0].Position, kept: all[0].Position}
	return nil
}

func (l *line) lane(mailbox mailgrant.ID) *lane {
	n := l.lanes[mailbox]
	if n == nil {
		n = &lane{mailbox: mailbox}
		l.lanes[mailbox] = n
	}
	return n
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

// expires says whether the endpoint has taken nothing for as long as an event is
// tried.
func (l *line) expires(now time.Time) bool { return l.down && now.Sub(l.since) >= life }

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
		late := expires && !s.again && now.Sub(e.At) >= life
		if expires && !late && len(l.lanes) > 0 {
			return false // the rest is not too old yet
		}
		s.read = e.Seq
		p := &place{it: item{e: e, again: s.again}}
		s.places = append(s.places, p)
		it := p.it
		it.place = p
		if late {
			l.bury(it, l.untried(it, now), now)
			continue
		}
		l.take(it, now)
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

// lookSoon is when events that were added but are not shown yet are looked for,
// twice as long after each look that finds them hidden still, up to lookLate.
const (
	lookSoon = 5 * time.Millisecond
	lookLate = time.Second
)

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
	l.saved[n]++
	n.unsaved++
	delete(l.gone, row{n.mailbox, it.e.Seq})
	if it.place != nil {
		it.place.done = true
	}
	l.touch(now)
}

// touch says that there is something to record.
func (l *line) touch(now time.Time) {
	if l.dirty.IsZero() {
		l.dirty = now
	}
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

// dispatch starts requests.
func (l *line) dispatch(ctx context.Context, now time.Time) {
	if l.pause.After(now) {
		return
	}
	if l.down {
		if l.active == 0 && !l.nextProbe().After(now) && l.unsafe < repeats {
			l.probe(ctx, now)
		}
		return
	}
	for l.active < l.places() && l.unsafe+l.active < repeats && len(l.ready) > 0 {
		n := l.ready[0]
		l.ready = l.ready[1:]
		n.listed = false
		l.send(ctx, n, now)
	}
}

func (l *line) places() int {
	if l.hook.Connections > 0 {
		return min(l.hook.Connections, connectionsMax)
	}
	return connections
}

// send tells of the first event of a lane. It says whether there was one.
func (l *line) send(ctx context.Context, n *lane, now time.Time) bool {
	if len(n.queue) == 0 && n.rows && n.unsaved == 0 {
		l.loadRows(ctx, n, now)
	}
	if len(n.queue) == 0 || !n.due.IsZero() {
		l.rest(n)
		return false
	}
	n.busy = true
	l.active++
	it, to := n.queue[0], l.target
	go func() {
		id := DeliveryID(l.id, it.e)
		l.t.Steps("webhook.before-post")
		out := l.t.post(ctx, to, id, it.e)
		l.t.Steps("webhook.after-answer")
		l.done <- done{n, it, id, out}
	}()
	return true
}

// nextProbe is when the next event is tried of an endpoint that takes nothing. Is
// there one of a mailbox that was not tried, and are tries answered, it is sooner:
// it may be that only the events of some mailboxes are not taken.
func (l *line) nextProbe() time.Time {
	if fresh := l.probedAt.Add(freshProbe); l.answers && len(l.ready) > 0 && fresh.Before(l.probeAt) {
		return fresh
	}
	return l.probeAt
}

// probe tries one event of an endpoint that takes nothing: of a lane that was not
// tried yet, or else of the one that waits longest.
func (l *line) probe(ctx context.Context, now time.Time) {
	l.probedAt = now
	for len(l.ready) > 0 {
		n := l.ready[0]
		l.ready = l.ready[1:]
		n.listed = false
		if l.send(ctx, n, now) {
			return
		}
	}
	var first *lane
	for _, n := range l.lanes {
		if !n.due.IsZero() && n.unsaved == 0 && (first == nil || n.due.Before(first.due)) {
			first = n
		}
	}
	if first != nil {
		l.blocks--
		first.due, l.back = time.Time{}, now
	}
	if first == nil || !l.send(ctx, first, now) {
		l.probeAt = now.Add(firstProbe)
	}
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

// strike takes an event off the rows.
func (l *line) strike(n *lane, e mailgrant.Event, now time.Time) {
	l.out.Done = append(l.out.Done, e)
	l.gone[row{n.mailbox, e.Seq}] = true
	l.touch(now)
}

// try is the record of what became of an item.
func (l *line) try(it item, d done) mailgrant.Delivery {
	r := mailgrant.Delivery{ID: d.id, Org: l.org, Webhook: l.id, Event: it.e.Seq, Kind: it.e.Kind, Mailbox: it.e.Mailbox, N: it.attempts,
		At: d.out.at, Took: d.out.took, State: mailgrant.DeliveryRefused, Status: d.out.status, Answer: d.out.answer, Error: d.out.err}
	if r.ID == "" {
		r.ID = DeliveryID(l.id, it.e)
	}
	return r
}

// ended sees to what a request came to.
func (l *line) ended(d done) {
	now := l.t.now()
	n := d.lane
	n.busy = false
	l.active--
	d.it.attempts++
	if d.out.taken() {
		l.taken(n, d, now)
		return
	}
	if l.ending.Load() && l.cutOff(d) {
		return
	}
	l.refused(n, d, now)
}

// cutOff says whether it was us who broke a request off: it is tried again by whoever
// has the webhook next.
func (l *line) cutOff(d done) bool { return d.out.status == 0 && d.out.took < l.t.within }

func (l *line) taken(n *lane, d done, now time.Time) {
	if len(n.queue) > 0 {
		n.queue = n.queue[1:]
		l.held--
	}
	p := d.it.place
	if p != nil {
		p.done, p.taken = true, true
	}
	if p == nil || p.row || d.it.again {
		l.strike(n, d.it.e, now)
	}
	l.unsafe++
	r := l.try(d.it, d)
	r.State, l.out.TakenAt = mailgrant.DeliveryTaken, now
	l.out.Deliveries = append(l.out.Deliveries, r)
	if d.it.e.Kind == "arrival.new" {
		l.wanted = append(l.wanted, arrival{d.it.e.Subject, d.it.e})
	}
	l.touch(now)
	l.works(now)
	l.list(n)
	l.rest(n)
}

// works says that the endpoint takes events.
func (l *line) works(now time.Time) {
	if l.down {
		l.back = now
		l.down, l.probes, l.probeAt = false, 0, time.Time{}
		l.unblock()
		l.more = true
	}
	if l.told {
		l.told, l.urgent = false, true
		l.out.Turn = &store.Turn{State: mailgrant.WebhookActive}
		l.say("webhook.recovered", nil)
	}
	l.streak, l.several, l.answers, l.single, l.blocked, l.since = 0, false, false, "", false, time.Time{}
}

func (l *line) refused(n *lane, d done, now time.Time) {
	if d.out.status == http.StatusGone {
		l.goneFor(d, now)
		return
	}
	l.count(n, d, now)
	r := l.try(d.it, d)
	it := d.it
	if it.since.IsZero() {
		it.since = d.out.at
	}
	if now.Sub(it.since) >= life || l.expires(now) && it.place != nil && !it.again && now.Sub(it.e.At) >= life {
		r.State = mailgrant.DeliveryDead
		l.out.Deliveries = append(l.out.Deliveries, r)
		n.queue = n.queue[1:]
		l.held--
		l.bury(it, r, now)
		l.list(n)
		l.rest(n)
	} else {
		l.putOff(n, it, r, d.out, now)
	}
	if l.expires(now) {
		l.expire(now)
	}
}

// putOff has a lane wait for its first event to be tried again.
func (l *line) putOff(n *lane, it item, r mailgrant.Delivery, out outcome, now time.Time) {
	due := now.Add(backoff(firstRetry, retryMax, it.attempts))
	if asked := now.Add(out.after); asked.After(due) {
		due = asked
	}
	r.RetryAt = &due
	l.out.Deliveries = append(l.out.Deliveries, r)
	l.keep(n, it, due, r, now)
	for _, behind := range n.queue[1:] {
		if behind.place != nil {
			l.wait(n, behind, now)
		}
	}
	l.held -= len(n.queue)
	n.queue, n.rows = nil, true
	l.block(n, due)
	if out.status == http.StatusTooManyRequests {
		l.pause = now.Add(max(out.after, firstProbe))
	}
}

// count sees whether an endpoint takes nothing at all.
func (l *line) count(n *lane, d done, now time.Time) {
	if l.streak++; l.streak == 1 {
		l.single = n.mailbox
		if l.since.IsZero() {
			l.since = d.out.at
		}
	}
	l.several = l.several || l.single != n.mailbox
	l.answers = l.answers || d.out.status != 0
	if d.out.blocked && !l.blocked {
		l.blocked, l.urgent = true, true
		l.say("webhook.blocked", map[string]string{"host": hostOf(l.target.url)})
	}
	if !l.down && l.streak >= downAfter && (l.several || !l.answers) {
		l.down, l.probes = true, 0
	}
	if l.down {
		l.probes++
		l.probeAt = now.Add(max(backoff(firstProbe, probeMax, l.probes), d.out.after))
		l.seek = d.out.status != 0
	}
	if !l.told && (l.down || l.streak > downAfter) {
		l.told, l.urgent = true, true
		f := failing(l.hook, d.out.err, l.since)
		l.out.Turn = &store.Turn{State: mailgrant.WebhookFailing, Finding: &f, Since: l.since}
		l.say("webhook.failing", f)
	}
}

// backoff doubles with each try, and keeps many from coming at the same moment.
func backoff(first, most time.Duration, n int) time.Duration {
	d := most
	if n < 20 {
		d = min(first<<max(n-1, 0), most)
	}
	return d - time.Duration(rand.Int64N(int64(d)/5+1))
}

// goneFor is for an endpoint that said that it is to be told no more.
func (l *line) goneFor(d done, now time.Time) {
	f := goneFinding(l.hook)
	r := l.try(d.it, d)
	l.out.Deliveries = append(l.out.Deliveries, r)
	l.out.Turn = &store.Turn{State: mailgrant.WebhookDisabled, Finding: &f}
	l.say("webhook.disabled", f)
	l.hook.State, l.urgent = mailgrant.WebhookDisabled, true
	l.touch(now)
}

// bury gives an event up. It stays listed, and may be replayed.
func (l *line) bury(it item, last mailgrant.Delivery, now time.Time) {
	l.out.Wait = append(l.out.Wait, store.WaitingEvent{Event: it.e, Attempts: it.attempts, Since: it.since, Dead: true, Last: &last})
	if it.place != nil {
		it.place.done = true
	} else {
		l.gone[row{it.e.Mailbox, it.e.Seq}] = true
	}
	if l.dead++; l.dead == 1 {
		l.first = last.ID
	}
	l.touch(now)
}

// untried is the record of an event that is given up with the others.
func (l *line) untried(it item, now time.Time) mailgrant.Delivery {
	d := l.try(it, done{})
	d.State, d.Error, d.At = mailgrant.DeliveryDead, "nothing was taken for three days", now.UTC()
	return d
}

// expire gives up what is too old of an endpoint that has taken nothing for days:
// what is in memory, and what waits in the store.
func (l *line) expire(now time.Time) {
	l.out.Expire = now.Add(-life)
	for _, n := range l.lanes {
		if n.busy {
			continue
		}
		kept := n.queue[:0]
		for _, it := range n.queue {
			if it.place == nil || it.again || now.Sub(it.e.At) < life {
				kept = append(kept, it)
				continue
			}
			l.held--
			l.bury(it, l.untried(it, now), now)
		}
		n.queue = kept
	}
	l.more = true
	l.touch(now)
}

// say adds an event to the log.
func (l *line) say(kind string, data any) {
	l.out.Events = append(l.out.Events, eventOf(l.org, l.id, kind, data))
	l.touch(l.t.now())
}
