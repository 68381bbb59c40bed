package outbox

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/store"
)

// A lane is the ordered, paced way of one mailbox to its provider.
//
//	store ──load──▶ queue ──begin, durable──▶ ready ──▶ a worker's session
//	  ▲  accept ──push──▲   └────claimed at accept───────▲
//	  └──────────────── standDown: held, paused, closed ─┘
//
// The queue is in memory only while it is short; what does not fit stays in the
// store, and more says so. A worker keeps its session for the next message and
// ends when nothing comes.
type lane struct {
	o   *Outbox
	org mailgrant.ID
	id  mailgrant.ID

	mu        sync.Mutex
	queue     []item
	ready     []item
	stray     []item // begun and not to be sent now: the store must know
	more      bool   // the store may have submissions that are not in queue
	recovered bool   // what an earlier owner left unfinished was looked after
	preparing bool
	stood     int // counts standDowns: what was prepared before one is stray
	active    int // messages in workers' hands
	claimed   int // places promised to accepts under way
	idle      []*worker
	closed    bool
	usedAt    time.Time
	timer     *time.Timer
	timerAt   time.Time
	due       time.Time // when the store has something that is not due yet; zero: nothing

	box    mailgrant.Mailbox
	way    provider.Way
	readAt time.Time // when box and way were read; zero: read them again
	wayErr error
	off    bool // switched off by a person
	places int  // connections at once
	pace   *pace
	handed int // recipients within the day
	flying int // recipients in workers' hands, or not yet recorded

	hold       *mailgrant.Hold
	telling    int // changes of the hold that the store does not have yet
	pauseUntil time.Time
	failures   int                  // in a row, of the way and not of a message
	panics     map[mailgrant.ID]int // by submission
	looking    chan struct{}        // who looks into Sent Items at once
	wg         sync.WaitGroup
}

// An item is a submission on its way through the lane.
type item struct {
	sub   mailgrant.Submission
	body  []byte      // as it leaves; nil: in the store
	fence store.Fence // under which it was begun
	begun bool
}

// recipients are those that an attempt is for.
func (it item) recipients() []string {
	if len(it.sub.Pending) > 0 {
		return it.sub.Pending
	}
	return it.sub.Recipients
}

type worker struct{ next chan item }

const (
	// queueMax bounds what waits in memory. beginBatch is how much is said to be
	// begun at once where few connections are open: see batchSize.
	queueMax   = 2000
	beginBatch = 16
	loadBatch  = 128

	// sessionIdle is how long a connection waits for the next message, laneIdle
	// how long a lane without any is remembered.
	sessionIdle = 10 * time.Second
	laneIdle    = 10 * time.Minute

	// rereadEvery is how old a lane's picture of its mailbox may be; heldReread
	// while it is held, so that a repair made on another node is seen.
	rereadEvery = 15 * time.Second
	heldReread  = 3 * time.Second

	// lookers is how many look into Sent Items of one mailbox at once.
	lookers = 2
)

func newLane(o *Outbox, org, id mailgrant.ID) *lane {
	return &lane{o: o, org: org, id: id, more: true, usedAt: o.now(), panics: map[mailgrant.ID]int{}, looking: make(chan struct{}, lookers)}
}

func (l *lane) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shut()
}

// shut is close with mu held.
func (l *lane) shut() {
	l.closed = true
	if l.timer != nil {
		l.timer.Stop()
	}
	for _, w := range l.idle {
		close(w.next)
	}
	l.idle = nil
	l.drop(l.queue)
	l.queue = nil
}

// drop forgets the bodies of items.
func (l *lane) drop(items []item) {
	for i := range items {
		l.o.kept.release(items[i].body)
		items[i].body = nil
	}
}

// wait returns when nothing of a closed lane is under way, and what it had begun
// and not sent waits in the store again.
func (l *lane) wait() {
	l.wg.Wait()
	l.mu.Lock()
	l.drop(l.ready)
	l.stray, l.ready = append(l.stray, l.ready...), nil
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), giveBackWithin)
	defer cancel()
	l.giveBack(ctx)
}

// giveBackWithin is how long an end waits for the store; what it cannot give back
// is looked after by the next owner.
const giveBackWithin = 5 * time.Second

// start runs f unless the lane is closed. Call with mu held.
func (l *lane) start(f func()) {
	if l.closed {
		return
	}
	l.wg.Add(1)
	l.o.wg.Add(1)
	go func() {
		defer l.o.wg.Done()
		defer l.wg.Done()
		f()
	}()
}

// resting says whether the lane may be forgotten: nothing is under way, and nothing
// was for a while. Call with mu held.
func (l *lane) resting(now time.Time) bool {
	return l.active == 0 && l.claimed == 0 && !l.preparing && !l.more && l.due.IsZero() && l.flying == 0 &&
		len(l.queue)+len(l.ready)+len(l.stray)+len(l.idle) == 0 && now.Sub(l.usedAt) > laneIdle
}

// look makes the lane read its mailbox and its submissions anew: there is new
// work, or a change that another node made.
func (l *lane) look() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.readAt, l.more = time.Time{}, true
	l.plan()
}

// reconsider is look after somebody did something about the mailbox: what held
// or paused it may be over, so it is tried at once. A hold that only a person
// ends stays.
func (l *lane) reconsider() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.readAt, l.more, l.pauseUntil = time.Time{}, true, time.Time{}
	if l.hold != nil && l.hold.ProbeAt.Before(l.o.now().Add(2*probeMax)) {
		l.hold.ProbeAt = time.Time{}
	}
	l.plan()
}

// claim promises a place for a message that is being accepted, if it would go
// out at once. Its begun attempt is then part of the accept's own transaction.
func (l *lane) claim() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.o.now()
	if l.closed || !l.recovered || l.preparing || l.more || len(l.queue) > 0 || len(l.ready) > 0 || l.hold != nil || l.off ||
		len(l.stray) > 0 || l.active+l.claimed >= l.places || now.Before(l.pauseUntil) || l.overDay(0) {
		return false
	}
	if l.pace != nil && l.pace.free(now, 1+l.claimed) <= l.claimed {
		return false
	}
	l.claimed++
	return true
}

func (l *lane) unclaim() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.claimed--
	l.plan()
}

// doubt is unclaim after an accept that failed: the store may have kept it all the
// same, as begun, and then nobody would send it or look after it.
func (l *lane) doubt(it item) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.claimed--
	l.stray, l.more = append(l.stray, it), true
	l.plan()
}

// push gives an accepted message to the lane; false when the lane is closed.
func (l *lane) push(it item) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if it.begun {
		l.claimed--
	}
	if l.closed {
		l.o.kept.release(it.body)
		return false
	}
	l.usedAt = l.o.now()
	switch {
	case it.begun:
		l.ready = append(l.ready, it)
	case l.more || len(l.queue) >= queueMax || l.hold != nil:
		l.more = true // it waits in the store, behind the others
		l.o.kept.release(it.body)
	default:
		l.queue = append(l.queue, it)
	}
	l.plan()
	return true
}

// waiting says whether there may be something to send. Call with mu held.
func (l *lane) waiting() bool { return l.more || len(l.queue)+len(l.ready) > 0 }

// plan starts whatever can start now, and the timer for what cannot. Call with
// mu held.
func (l *lane) plan() {
	if l.closed {
		return
	}
	now := l.o.now()
	switch {
	case l.off:
		l.standDown()
		l.reread(now)
		l.alarm(now.Add(rereadEvery))
		return
	case now.Before(l.pauseUntil):
		l.alarm(l.pauseUntil)
		return
	case l.hold != nil && now.Before(l.hold.ProbeAt):
		if l.waiting() {
			l.alarm(l.hold.ProbeAt)
		}
		if l.readAt.IsZero() || l.o.Clustered && l.waiting() {
			l.reread(now)
		}
		if l.o.Clustered && l.waiting() {
			l.alarm(now.Add(heldReread))
		}
		return
	}
	places, low := l.places, l.batchSize()/2
	if l.hold != nil {
		places, low = min(places, 1), 1 // one message is the probe
	}
	for len(l.ready) > 0 && l.active < places {
		if !l.mayGo(now) {
			return
		}
		it := l.ready[0]
		l.ready = slices.Delete(l.ready, 0, 1)
		l.active++
		l.flying += len(it.recipients())
		l.give(it)
	}
	if len(l.queue) == 0 && !l.more || len(l.ready) >= low || l.preparing || l.hold != nil && l.active > 0 {
		return
	}
	if l.pace != nil && l.recovered && l.pace.free(now, len(l.ready)+1) <= len(l.ready) {
		l.alarm(now.Add(l.pace.wait(now))) // nothing is begun that cannot go soon
		return
	}
	l.preparing = true
	stood := l.stood
	l.start(func() { l.prepare(stood) })
}

// mayGo asks the pace; when it says no, the timer is set.
func (l *lane) mayGo(now time.Time) bool {
	if l.overDay(len(l.ready[0].recipients())) {
		until := now.Truncate(time.Hour).Add(time.Hour)
		l.pauseUntil = until
		l.alarm(until)
		l.standDown()
		l.start(func() { l.tellThrottled("the day's recipients are used up", until) })
		return false
	}
	if l.pace == nil {
		return true
	}
	if d := l.pace.wait(now); d > 0 {
		l.alarm(now.Add(d))
		return false
	}
	l.pace.take(now)
	return true
}

// overDay says whether n more recipients pass the provider's daily limit. A
// message that passes it alone goes when nothing else did: the provider decides.
func (l *lane) overDay(n int) bool {
	limit, have := l.limits().RecipientsPerDay, l.handed+l.flying
	return limit > 0 && have > 0 && have+max(n, 1) > limit
}

func (l *lane) give(it item) {
	if n := len(l.idle); n > 0 {
		w := l.idle[n-1]
		l.idle = l.idle[:n-1]
		w.next <- it
		return
	}
	w := &worker{next: make(chan item, 1)}
	w.next <- it
	l.start(func() { l.work(w) })
}

// dueAt says that the store has something for the lane at t. Call with mu held.
func (l *lane) dueAt(t time.Time) {
	if !t.After(l.o.now()) {
		l.more = true
		l.plan()
		return
	}
	if l.due.IsZero() || t.Before(l.due) {
		l.due = t
	}
	l.alarm(l.due)
}

// alarm makes plan run at t, unless it runs before: whoever still has a reason
// then, says so again. Call with mu held.
func (l *lane) alarm(t time.Time) {
	if l.closed || !l.timerAt.IsZero() && !t.Before(l.timerAt) {
		return
	}
	if l.timer != nil {
		l.timer.Stop()
	}
	l.timerAt = t
	l.timer = time.AfterFunc(max(t.Sub(l.o.now()), 0), func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if !l.timerAt.Equal(t) {
			return // it was set anew meanwhile
		}
		l.timerAt = time.Time{}
		if now := l.o.now(); !l.due.IsZero() && !now.Before(l.due) {
			l.due, l.more = time.Time{}, true
		} else if !l.due.IsZero() {
			l.alarm(l.due)
		}
		l.plan()
	})
}

// work hands messages over until none comes for a while.
func (l *lane) work(w *worker) {
	s := &sessions{l: l}
	defer s.close()
	idle := time.NewTimer(sessionIdle)
	defer idle.Stop()
	for {
		select {
		case it, ok := <-w.next:
			if !ok {
				return
			}
			l.deliver(s, it)
			if !l.rest(w) {
				return
			}
			idle.Reset(sessionIdle)
		case <-idle.C:
			l.mu.Lock()
			i := slices.Index(l.idle, w)
			if i >= 0 {
				l.idle = slices.Delete(l.idle, i, i+1)
			}
			l.mu.Unlock()
			if i >= 0 {
				return
			}
		}
	}
}

// rest makes a worker free for the next message.
func (l *lane) rest(w *worker) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.active--
	l.usedAt = l.o.now()
	if l.closed {
		return false
	}
	l.idle = append(l.idle, w)
	l.plan()
	return true
}

// errNotMine means that another node works the lane.
var errNotMine = errors.New("outbox: the lane belongs to another node")

// prepare fills ready: from the queue, or from the store when that is empty. What
// was asked for before a standDown is not for now.
func (l *lane) prepare(stood int) {
	ctx := l.o.run
	batch, err := l.prepared(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.preparing = false
	l.ready = append(l.ready, batch...)
	if l.stood != stood && len(l.ready) > 0 {
		l.standDown()
	}
	if err != nil {
		l.more = true
		wait := 2 * time.Second
		if errors.Is(err, errNotMine) {
			wait = time.Second
		} else if ctx.Err() == nil {
			l.o.Log.Warn("prepare the lane", "mailbox", l.id, "err", err)
		}
		l.pauseUntil = later(l.pauseUntil, l.o.now().Add(wait))
	}
	l.plan()
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (l *lane) prepared(ctx context.Context) ([]item, error) {
	if err := l.giveBack(ctx); err != nil {
		return nil, err
	}
	if err := l.recover(ctx); err != nil {
		return nil, err
	}
	batch, err := l.batch(ctx)
	if err != nil || len(batch) == 0 {
		return nil, err
	}
	return l.begin(ctx, batch)
}

// batchSize is how many are said to be begun at once: the next ones are begun while
// each connection has one under way. After a crash no more than that and those in
// the workers' hands are uncertain. Call with mu held.
func (l *lane) batchSize() int { return max(beginBatch, 2*l.places) }

// batch takes the next messages that are due.
func (l *lane) batch(ctx context.Context) ([]item, error) {
	if err := l.read(ctx); err != nil {
		return nil, err
	}
	l.mu.Lock()
	n, now := l.batchSize(), l.o.now()
	if l.pace != nil {
		n = min(n, l.pace.free(now, n))
	}
	if l.hold != nil {
		n = 1
		if now.Before(l.hold.ProbeAt) {
			n = 0
		}
	}
	if n == 0 || l.off || l.closed {
		l.mu.Unlock()
		return nil, nil
	}
	load := len(l.queue) == 0 && l.more
	if load {
		l.more = false // what comes from now on is pushed, or says so again
	}
	l.mu.Unlock()
	if load {
		if err := l.load(ctx); err != nil {
			return nil, err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	n = min(n, len(l.queue))
	out := slices.Clone(l.queue[:n])
	l.queue = slices.Delete(l.queue, 0, n)
	return l.unexpired(out), nil
}

// unexpired leaves out, and gives up, what has outlived its life while the way
// was at fault. Call with mu held.
func (l *lane) unexpired(items []item) []item {
	now := l.o.now()
	return slices.DeleteFunc(items, func(it item) bool {
		if it.sub.Attempts == 0 && l.failures == 0 || !now.After(l.ends(it.sub, now)) {
			return false
		}
		l.o.kept.release(it.body)
		it.body = nil
		l.start(func() { l.giveUp(it) })
		return true
	})
}

// ends is when the life of a submission is over. The time of a hold does not
// count. Call with mu held.
func (l *lane) ends(sub mailgrant.Submission, now time.Time) time.Time {
	if l.hold == nil {
		return sub.ExpiresAt
	}
	return sub.ExpiresAt.Add(max(0, now.Sub(later(l.hold.Since, sub.AcceptedAt))))
}

// load reads the next page of the lane from the store.
func (l *lane) load(ctx context.Context) error {
	at := l.o.now()
	due, err := l.o.Store.DueSubmissions(ctx, l.id, at, loadBatch)
	if err != nil {
		return err
	}
	var next time.Time
	if len(due) < loadBatch {
		if next, err = l.o.Store.NextDue(ctx, l.id, at); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	items := make([]item, len(due))
	for i, sub := range due {
		items[i] = item{sub: sub}
	}
	pushed := l.queue // while we read; perhaps among what was read, which begin finds out
	if len(due) == loadBatch {
		l.more = true
		l.drop(pushed)
		pushed = nil
	}
	l.queue = append(items, pushed...)
	if !next.IsZero() {
		if l.due.IsZero() || next.Before(l.due) {
			l.due = next
		}
		l.alarm(l.due)
	}
	return nil
}

// begin says, durably, that these are about to be sent.
func (l *lane) begin(ctx context.Context, batch []item) ([]item, error) {
	fence, mine := l.o.Owner.Fence(l.id)
	if !mine {
		l.drop(batch)
		return nil, errNotMine
	}
	subs := make([]mailgrant.Submission, len(batch))
	for i := range batch {
		batch[i].fence = fence
		subs[i] = batch[i].sub
	}
	l.o.Steps("send.before-begin")
	ok, err := l.o.Store.BeginAttempt(ctx, fence, subs)
	if err != nil { // the store may have kept it all the same
		l.drop(batch)
		l.mu.Lock()
		l.stray = append(l.stray, batch...)
		l.mu.Unlock()
		return nil, err
	}
	l.o.Steps("send.after-begin")
	out := batch[:0]
	for i, it := range batch {
		if !ok[i] { // cancelled, or begun already
			l.o.kept.release(it.body)
			continue
		}
		it.begun = true
		out = append(out, it)
	}
	return out, nil
}

// standDown takes back what was begun and not sent: it waits in the store. Call
// with mu held.
func (l *lane) standDown() {
	l.more = true
	l.stood++
	l.drop(l.ready)
	l.drop(l.queue)
	l.stray = append(l.stray, l.ready...)
	l.ready, l.queue = nil, nil
	if len(l.stray) == 0 {
		return
	}
	l.start(func() {
		if err := l.giveBack(l.o.run); err != nil {
			l.o.Log.Warn("give begun attempts back", "mailbox", l.id, "err", err) // prepare does it again
		}
	})
}

// giveBack tells the store of what was begun and not sent.
func (l *lane) giveBack(ctx context.Context) error {
	l.mu.Lock()
	stray := l.stray
	l.stray = nil
	l.mu.Unlock()
	for len(stray) > 0 {
		n := 1
		for n < len(stray) && stray[n].fence == stray[0].fence {
			n++
		}
		subs := make([]mailgrant.Submission, n)
		for i := range subs {
			subs[i] = stray[i].sub
		}
		if err := l.o.Store.UndoAttempt(ctx, stray[0].fence, subs); err != nil {
			l.mu.Lock()
			l.stray = append(stray, l.stray...)
			l.mu.Unlock()
			return err
		}
		stray = stray[n:]
		l.mu.Lock()
		l.more = true
		l.plan()
		l.mu.Unlock()
	}
	return nil
}

// reread reads the mailbox when its picture is old. Call with mu held.
func (l *lane) reread(now time.Time) {
	if now.Sub(l.readAt) < heldReread || l.preparing {
		return
	}
	l.preparing = true
	l.start(func() {
		err := l.read(l.o.run)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.preparing = false
		if err != nil {
			l.o.Log.Warn("read the mailbox", "mailbox", l.id, "err", err)
			l.readAt = l.o.now() // not at once again
		}
		l.plan()
	})
}

// read brings the lane's picture of its mailbox up to date.
func (l *lane) read(ctx context.Context) error {
	l.mu.Lock()
	fresh := rereadEvery
	if l.hold != nil || l.off {
		fresh = heldReread
	}
	if !l.readAt.IsZero() && l.o.now().Sub(l.readAt) < fresh && l.wayErr == nil {
		l.mu.Unlock()
		return nil
	}
	held := l.hold
	l.mu.Unlock()
	box, err := l.o.Store.Mailbox(ctx, l.org, l.id)
	if errors.Is(err, mailgrant.NotFound) {
		return l.gone(err)
	}
	if err != nil {
		return err
	}
	way, wayErr := l.o.Ways.Way(ctx, box)
	handed := 0
	if limit := effective(box.Limits.RecipientsPerDay, way.Settings.Limits.RecipientsPerDay); limit > 0 {
		if handed, err = l.o.Store.HandedSince(ctx, l.id, l.o.now().Add(-24*time.Hour)); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.box, l.way, l.wayErr, l.readAt = box, way, wayErr, l.o.now()
	l.handed = handed
	if l.hold == held && l.telling == 0 { // else it was held or mended here while we read
		l.adoptHold(box.Hold)
	}
	l.off = box.State == mailgrant.MailboxDisabled
	l.adoptLimits()
	return nil
}

// gone gives up what is left of a mailbox that was removed: nothing will ever
// carry it.
func (l *lane) gone(err error) error {
	f := mailgrant.Finding{Cause: "unknown", Title: "Mailbox removed", Sentence: "The mailbox that was to carry this message was removed.",
		Remedy: "Send the message again by another mailbox.", Who: mailgrant.WhoOperator, Retry: mailgrant.RetryNever, Confidence: 1}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.box, l.readAt, l.hold, l.off, l.places = mailgrant.Mailbox{ID: l.id, Org: l.org}, l.o.now(), nil, false, 1
	l.wayErr = mailgrant.Errorf(mailgrant.NotFound, err, "the mailbox was removed").With(f)
	return nil
}

// adoptHold takes the hold over that the store has. One that somebody's doing
// makes to be tried at once is kept as it is.
func (l *lane) adoptHold(h *mailgrant.Hold) {
	switch {
	case h == nil:
		l.hold = nil
	case l.hold == nil || !l.hold.ProbeAt.IsZero():
		is := *h
		l.hold = &is
	}
}

func (l *lane) adoptLimits() {
	lim := l.limits()
	if l.places = lim.Connections; l.places <= 0 {
		l.places = unlimitedPlaces
	}
	l.pace = l.pace.of(lim.PerMinute)
}

// unlimitedPlaces is how many connections are opened where nobody limits them.
const unlimitedPlaces = 16

// limits are the mailbox's own, else its provider's; below zero is none.
func (l *lane) limits() mailgrant.Limits {
	a, b := l.box.Limits, l.way.Settings.Limits
	return mailgrant.Limits{Connections: effective(a.Connections, b.Connections), PerMinute: effective(a.PerMinute, b.PerMinute),
		RecipientsPerDay: effective(a.RecipientsPerDay, b.RecipientsPerDay)}
}

func effective(own, usual int) int {
	if own != 0 {
		return max(own, 0)
	}
	return max(usual, 0)
}
