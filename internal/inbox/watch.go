package inbox

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/wire"
)

// A watcher reads one mailbox. Idle, it is one goroutine and these few fields.
type watcher struct {
	in    *Inbox
	org   mailgrant.ID
	id    mailgrant.ID
	end   func()
	ended atomic.Bool
	done  chan struct{}
	again chan struct{} // the settings changed, or somebody mended something

	mu     sync.Mutex
	status mailgrant.ReaderStatus
	stop   context.CancelFunc // of the session
	rung   bool               // there may be new mail
	wake   func(error)        // ends the wait; nil: it does not wait

	failures int              // sessions in a row that ended badly
	told     *string          // cause of the hold that was told; "": it reads; nil: the store knows
	bad      map[string]fault // failures of single messages, by remote id
	doneAt   time.Time        // when what is done after reading failed
}

const (
	// retryFirst and retryMax are the pauses after a session that failed, heldFirst
	// and heldMax where only a person can end the failure: a probe costs the
	// provider a login.
	retryFirst = time.Second
	retryMax   = 5 * time.Minute
	heldFirst  = time.Minute
	heldMax    = 15 * time.Minute
	askedMax   = time.Hour // of what a provider asks for

	// failingAfter is how many failures in a row are worth telling.
	failingAfter = 5

	// badMax is how often one message is tried before it is put in quarantine. Of
	// connections that break in the middle of it only one in badEvery counts: it may
	// be the network, for a moment.
	badMax   = 3
	badEvery = 10 * time.Second
)

// A fault is how often a message failed, and when it was counted last.
type fault struct {
	n  int
	at time.Time
}

// errOff ends a watcher: the mailbox is not to be read, or not by this node.
var errOff = errors.New("inbox: not to be read")

// run reads until ctx ends or there is nothing to read any more.
func (w *watcher) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := w.attempt(ctx)
		if errors.Is(err, errOff) || ctx.Err() != nil {
			return
		}
		if err == nil { // restarted
			continue
		}
		pause := w.failed(ctx, err)
		select {
		case <-time.After(pause):
		case <-w.again:
		case <-ctx.Done():
		}
	}
}

// attempt opens the mailbox and reads until something goes wrong; nil when it is
// to be opened anew. A panic is one session's and not the program's. R-RE9.
func (w *watcher) attempt(ctx context.Context) (err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	w.mu.Lock()
	w.stop = stop
	w.mu.Unlock()
	select {
	case <-w.again: // the session that begins knows of it
	default:
	}
	defer func() {
		if p := recover(); p != nil {
			w.in.Log.Error("reading a mailbox", "mailbox", w.id, "panic", fmt.Sprint(p))
			err = mailgrant.Errorf(mailgrant.Internal, nil, "reading the mailbox met a mistake of mailgrant's own").Fix("look at the log, and report it")
		}
	}()
	s, err := w.open(ctx)
	if err == nil {
		defer s.close()
		err = s.read(ctx)
	}
	if ctx.Err() != nil && !errors.Is(err, errOff) {
		return nil // ended, or restarted
	}
	return err
}

// call says that the mailbox is wanted, whatever was before.
func (w *watcher) call() {
	select {
	case w.again <- struct{}{}:
	default:
	}
}

// restart has the mailbox opened anew at once.
func (w *watcher) restart() {
	w.call()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stop != nil {
		w.stop()
	}
}

// errRung ends a wait: there may be new mail.
var errRung = errors.New("inbox: there may be new mail")

// ring has the provider asked for new mail: at once when the session waits, else
// before it does.
func (w *watcher) ring() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rung = true
	if w.wake != nil {
		w.wake(errRung)
	}
}

// heard says whether the bell was rung since the last time. From now on it ends
// what wake does.
func (w *watcher) heard(wake func(error)) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	rung := w.rung
	w.rung, w.wake = false, wake
	return rung
}

// failed says how long to wait after a session that failed, and tells of it.
func (w *watcher) failed(ctx context.Context, err error) time.Duration {
	w.failures++
	f := wire.FindingOf(err)
	first, most, kind := retryFirst, retryMax, ""
	switch {
	case f.NeedsPerson():
		first, most, kind = heldFirst, heldMax, "reader.held"
	case w.failures == failingAfter:
		kind = "reader.failing"
	}
	pause := min(first<<min(w.failures-1, 10), most)
	pause = pause*4/5 + rand.N(pause*2/5)
	if f.RetryAfter > 0 {
		pause = min(f.RetryAfter, askedMax)
	}
	at := w.in.now().Add(pause)
	w.say(func(s *mailgrant.ReaderStatus) {
		s.State, s.Finding, s.RetryAt = mailgrant.ReaderHeld, f, &at
	})
	w.in.Log.Info("a mailbox cannot be read", "mailbox", w.id, "cause", f.Cause, "retry_in", pause, "err", err)
	if kind != "" {
		w.tell(ctx, f.Cause, kind, f)
	}
	return pause
}

// succeeded says that all is read, and tells so where something else was told.
func (w *watcher) succeeded(ctx context.Context) {
	w.failures = 0
	w.tell(ctx, "", "reader.resumed", nil)
}

// tell tells of a hold for a cause, or of its end, unless that is what was told last,
// by this process or one before it.
func (w *watcher) tell(ctx context.Context, cause, kind string, f *mailgrant.Finding) {
	if w.told != nil && *w.told == cause {
		return
	}
	if err := w.in.Store.TellReader(ctx, cause, w.eventOf(kind, f)); err != nil {
		w.untold(ctx, kind, err)
		return
	}
	w.told = &cause
}

func (w *watcher) event(ctx context.Context, kind string, f *mailgrant.Finding) {
	if err := w.in.Store.AddEvent(ctx, w.eventOf(kind, f)); err != nil {
		w.untold(ctx, kind, err)
	}
}

func (w *watcher) untold(ctx context.Context, kind string, err error) {
	if ctx.Err() == nil {
		w.in.Log.Warn("tell of a reader", "mailbox", w.id, "event", kind, "err", err)
	}
}

func (w *watcher) eventOf(kind string, f *mailgrant.Finding) mailgrant.Event {
	e := mailgrant.Event{Org: w.org, Kind: kind, Subject: w.id, Mailbox: w.id}
	if f != nil {
		e.Data = marshal(map[string]any{"finding": f})
	}
	return e
}

// say changes the status. A change of state is dated.
func (w *watcher) say(f func(*mailgrant.ReaderStatus)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	was := w.status.State
	f(&w.status)
	if w.status.State != was {
		w.status.Since = w.in.now().UTC()
	}
}

func (w *watcher) look() mailgrant.ReaderStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.status
	s.Mailbox = w.id
	return s
}

func (w *watcher) open(ctx context.Context) (*session, error) {
	in := w.in
	fence, mine := in.Owner.Fence(w.id)
	if !mine {
		return nil, errOff
	}
	m, err := in.Store.Mailbox(ctx, w.org, w.id)
	if errors.Is(err, mailgrant.NotFound) || err == nil && (m.Receive == nil || m.State == mailgrant.MailboxDisabled) {
		return nil, errOff
	}
	if err != nil {
		return nil, err
	}
	w.say(func(s *mailgrant.ReaderStatus) { s.State = mailgrant.ReaderConnecting })
	way, err := in.Ways.Way(ctx, m)
	if err != nil {
		return nil, err
	}
	reader, _, err := Choose(way, in.Readers)
	if err != nil {
		return nil, err
	}
	pos, err := in.Store.Position(ctx, w.org, w.id)
	if err != nil {
		return nil, err
	}
	s := &session{w: w, box: m, protocol: reader.Name, pos: pos, fence: fence}
	s.begin(pos, reader.Name, in.now())
	leave, err := in.gates.enter(ctx, hostOf(way, reader.Name))
	if err != nil {
		return nil, err
	}
	defer leave()
	push, secret := in.Push(m)
	s.inbox, err = reader.Open(ctx, way, provider.Reading{Folders: m.Receive.Folders, Since: s.since, Poll: time.Duration(m.Receive.Poll), Max: in.MessageBytes,
		Known: func(ctx context.Context, l []string) (map[string]bool, error) {
			return in.Store.SeenRemotes(ctx, w.org, w.id, l)
		},
		Gone: func(ctx context.Context, l []string) error { return in.Store.ForgetRemotes(ctx, w.org, w.id, l) },
		Push: push, PushSecret: secret})
	if err != nil {
		return nil, err
	}
	w.say(func(st *mailgrant.ReaderStatus) { st.Protocol, st.Push = reader.Name, s.inbox.Pushes() })
	return s, nil
}
