package outbox

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
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
	more      bool // the store may have submissions that are not in queue
	preparing bool
	active    int // messages in workers' hands
	claimed   int // places promised to accepts under way
	idle      []*worker
	closed    bool
	timer     *time.Timer
	timerAt   time.Time

	box      mailgrant.Mailbox
	way      provider.Way
	readAt   time.Time // when box and way were read; zero: read them again
	wayErr   error
	places   int // connections at once
	limiter  *rate.Limiter
	handed   int // recipients within the day, as of handedAt
	handedAt time.Time

	hold       *mailgrant.Hold
	pauseUntil time.Time
	failures   int                  // in a row, of the way and not of a message
	panics     map[mailgrant.ID]int // by submission
	wg         sync.WaitGroup
}

type item struct {
	sub   mailgrant.Submission
	body  []byte // as it leaves; nil: in the store
	begun bool
}

type worker struct{ next chan item }

const (
	// queueMax bounds what waits in memory, beginBatch what is said to be begun
	// at once. After a crash no more than beginBatch and the sessions at work are
	// uncertain.
	queueMax   = 2000
	beginBatch = 16
	loadBatch  = 128

	// sessionIdle is how long a connection waits for the next message.
	sessionIdle = 10 * time.Second

	// rereadEvery is how old a lane's picture of its mailbox may be; heldReread
	// while it is held, so that a repair made on another node is seen.
	rereadEvery = 15 * time.Second
	heldReread  = 3 * time.Second
)

func newLane(o *Outbox, org, id mailgrant.ID) *lane {
	return &lane{o: o, org: org, id: id, more: true, panics: map[mailgrant.ID]int{}}
}

func (l *lane) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.timer != nil {
		l.timer.Stop()
	}
	for _, w := range l.idle {
		close(w.next)
	}
	l.idle = nil
}

// wait returns when nothing of the lane is under way.
func (l *lane) wait() { l.wg.Wait() }

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

// recover looks after what an earlier process left unfinished, and then works.
func (l *lane) recover() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.preparing = true
	l.start(func() {
		l.unfinished()
		l.mu.Lock()
		defer l.mu.Unlock()
		l.preparing = false
		l.plan()
	})
}

// reconsider makes the lane read everything anew.
func (l *lane) reconsider() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.readAt, l.more, l.pauseUntil = time.Time{}, true, time.Time{}
	if l.hold != nil {
		l.hold.ProbeAt = time.Time{} // somebody did something: try at once
	}
	l.plan()
}

// claim promises a place for a message that is being accepted, if it would go
// out at once. Its begun attempt is then part of the accept's own transaction.
func (l *lane) claim() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.more || len(l.queue) > 0 || len(l.ready) > 0 || l.hold != nil || l.places == 0 ||
		l.active+l.claimed >= l.places || l.o.now().Before(l.pauseUntil) || l.overDay(0) {
		return false
	}
	if l.limiter != nil && l.limiter.Tokens() < float64(1+l.claimed) {
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

// push gives an accepted message to the lane.
func (l *lane) push(it item) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case it.begun:
		l.claimed--
		l.ready = append(l.ready, it)
	case l.more || len(l.queue) >= queueMax || l.hold != nil || l.closed:
		l.more = true // it waits in the store, behind the others
		l.o.kept.release(it.body)
	default:
		l.queue = append(l.queue, it)
	}
	l.plan()
}

// plan starts whatever can start now, and the timer for what cannot. Call with
// mu held.
func (l *lane) plan() {
	if l.closed {
		return
	}
	now := l.o.now()
	if now.Before(l.pauseUntil) {
		l.alarm(l.pauseUntil)
		return
	}
	places := l.places
	if l.hold != nil {
		if now.Before(l.hold.ProbeAt) {
			l.reread(now)
			l.alarm(earlier(l.hold.ProbeAt, now.Add(heldReread)))
			return
		}
		places = min(places, 1) // one message is the probe
	}
	for len(l.ready) > 0 && l.active < places {
		if !l.mayGo(now) {
			return
		}
		it := l.ready[0]
		l.ready = slices.Delete(l.ready, 0, 1)
		l.active++
		l.give(it)
	}
	low := beginBatch / 2
	if l.hold != nil {
		low = 1
	}
	if (len(l.queue) > 0 || l.more) && len(l.ready) < low && !l.preparing && (l.hold == nil || l.active == 0) {
		l.preparing = true
		l.start(l.prepare)
	}
}

// mayGo asks the pace; when it says no, the timer is set.
func (l *lane) mayGo(now time.Time) bool {
	if l.overDay(len(l.ready[0].sub.Recipients)) {
		l.pauseUntil = now.Truncate(time.Hour).Add(time.Hour)
		l.alarm(l.pauseUntil)
		l.start(func() { l.tellThrottled("the day's recipients are used up", l.pauseUntil) })
		return false
	}
	if l.limiter == nil {
		return true
	}
	r := l.limiter.ReserveN(now, 1)
	if d := r.DelayFrom(now); d > 0 {
		r.CancelAt(now)
		l.alarm(now.Add(d))
		return false
	}
	return true
}

// overDay says whether n more recipients pass the provider's daily limit.
func (l *lane) overDay(n int) bool {
	limit := l.limits().RecipientsPerDay
	return limit > 0 && l.handed+n > limit
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

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// alarm makes plan run at t.
func (l *lane) alarm(t time.Time) {
	if l.timer != nil && !l.timerAt.IsZero() && !t.Before(l.timerAt) {
		return // an earlier one is set; it will set this one
	}
	if l.timer != nil {
		l.timer.Stop()
	}
	l.timerAt = t
	l.timer = time.AfterFunc(max(t.Sub(l.o.now()), 0), func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.timerAt = time.Time{}
		l.more = l.more || len(l.queue) == 0 // something may have become due
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
	if l.closed {
		return false
	}
	l.idle = append(l.idle, w)
	l.plan()
	return true
}

// prepare fills ready: from the queue, or from the store when that is empty.
func (l *lane) prepare() {
	ctx := l.o.run
	batch, err := l.batch(ctx)
	if err == nil && len(batch) > 0 {
		batch, err = l.begin(ctx, batch)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.preparing = false
	l.ready = append(l.ready, batch...)
	if err != nil && ctx.Err() == nil {
		l.o.Log.Warn("prepare the lane", "mailbox", l.id, "err", err)
		l.more = true
		l.pauseUntil = l.o.now().Add(2 * time.Second)
	}
	l.plan()
}

// batch takes the next messages that are due.
func (l *lane) batch(ctx context.Context) ([]item, error) {
	if err := l.read(ctx); err != nil {
		return nil, err
	}
	l.mu.Lock()
	n := beginBatch
	if l.hold != nil {
		n = 1
		if l.o.now().Before(l.hold.ProbeAt) {
			l.mu.Unlock()
			return nil, nil
		}
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
	return out, nil
}

// load reads the next page of the lane from the store.
func (l *lane) load(ctx context.Context) error {
	due, err := l.o.Store.DueSubmissions(ctx, l.id, l.o.now(), loadBatch)
	if err != nil {
		return err
	}
	var next time.Time
	if len(due) < loadBatch {
		if next, err = l.o.Store.NextDue(ctx, l.id); err != nil {
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
	l.queue = append(items, pushed...)
	if len(due) == loadBatch {
		l.more = true
		for _, it := range pushed {
			l.o.kept.release(it.body)
		}
		l.queue = items
	} else if !next.IsZero() && next.After(l.o.now()) {
		l.alarm(next)
	}
	return nil
}

// begin says, durably, that these are about to be sent.
func (l *lane) begin(ctx context.Context, batch []item) ([]item, error) {
	fence, mine := l.o.Owner.Fence(l.id)
	if !mine {
		return nil, nil // another node has them now
	}
	subs := make([]mailgrant.Submission, len(batch))
	for i, it := range batch {
		subs[i] = it.sub
	}
	l.o.Steps("send.before-begin")
	ok, err := l.o.Store.BeginAttempt(ctx, fence, subs)
	if err != nil {
		for _, it := range batch {
			l.o.kept.release(it.body)
		}
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

// reread makes the next prepare read the mailbox when its picture is old. Call
// with mu held.
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
		}
		l.plan()
	})
}

// read brings the lane's picture of its mailbox up to date.
func (l *lane) read(ctx context.Context) error {
	l.mu.Lock()
	fresh := rereadEvery
	if l.hold != nil {
		fresh = heldReread
	}
	if !l.readAt.IsZero() && l.o.now().Sub(l.readAt) < fresh && l.wayErr == nil {
		l.mu.Unlock()
		return nil
	}
	l.mu.Unlock()
	box, err := l.o.Store.Mailbox(ctx, l.org, l.id)
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
	l.handed, l.handedAt = handed, l.readAt
	l.adopt(box)
	return nil
}

// adopt takes over the mailbox's hold and limits.
func (l *lane) adopt(box mailgrant.Mailbox) {
	switch {
	case box.Hold == nil:
		l.hold = nil
	case l.hold == nil || !l.hold.ProbeAt.IsZero():
		h := *box.Hold
		l.hold = &h
	}
	if box.State == mailgrant.MailboxDisabled {
		l.pauseUntil = l.o.now().Add(rereadEvery)
	}
	lim := l.limits()
	if l.places = lim.Connections; l.places <= 0 {
		l.places = unlimitedPlaces
	}
	switch {
	case lim.PerMinute <= 0:
		l.limiter = nil
	case l.limiter == nil || l.limiter.Limit() != rate.Limit(float64(lim.PerMinute)/60):
		l.limiter = rate.NewLimiter(rate.Limit(float64(lim.PerMinute)/60), max(1, lim.PerMinute/3))
	}
}

// unlimitedPlaces is how many connections are opened where nobody limits them.
const unlimitedPlaces = 8

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
