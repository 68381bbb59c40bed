// Package inbox notices mail and keeps it.
//
// Each mailbox that is read has a watcher. It opens the mailbox, takes page after
// page of what came, and waits until something may have come again:
//
//	reader ──Next──▶ messages ──Collect──▶ arrivals, bytes, events, cursor
//	   ▲                                      │ one transaction
//	   ├──Done: mark, move, delete ◀──────────┘ only after the commit
//	   └──Wait: the provider tells, or it is time to ask
//
// A page and how far it came are kept together, so that nothing is lost and
// nothing is taken twice, whatever dies when. A message that cannot be read is
// kept as it is; one that the provider does not give is put in quarantine after
// some tries. Neither stops the mailbox.
package inbox

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/body"
	"github.com/mailgrant/mailgrant/internal/cluster"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/store"
	"github.com/mailgrant/mailgrant/internal/vault"
)

// A Store is what the inbox keeps things in.
type Store interface {
	body.Store
	Position(ctx context.Context, org, mailbox mailgrant.ID) (store.Position, error)
	SetPosition(ctx context.Context, org, mailbox mailgrant.ID, from, to store.Position, f store.Fence) error
	SeenCount(ctx context.Context, org, mailbox mailgrant.ID) (int, error)
	SeenLoose(ctx context.Context, org, mailbox mailgrant.ID, loose [][]byte) (map[string]bool, error)
	KnowRemotes(ctx context.Context, org, mailbox mailgrant.ID, remotes []string, loose [][]byte) error
	Collect(ctx context.Context, p store.Page) (taken []bool, err error)
	SeenRemotes(ctx context.Context, org, mailbox mailgrant.ID, remotes []string) (map[string]bool, error)
	ForgetRemotes(ctx context.Context, org, mailbox mailgrant.ID, remotes []string) error
	AfterReading(ctx context.Context, org, mailbox mailgrant.ID, limit int) ([]store.Undone, error)
	AfterDone(ctx context.Context, org mailgrant.ID, f store.Fence, ids []mailgrant.ID) error
	Arrival(ctx context.Context, org, id mailgrant.ID) (mailgrant.Arrival, error)
	ReadAgain(ctx context.Context, org, id mailgrant.ID) error
	ReadMailboxes(ctx context.Context) ([]store.Lane, error)
	Mailbox(ctx context.Context, org, id mailgrant.ID) (mailgrant.Mailbox, error)
	UpdateMailbox(ctx context.Context, m mailgrant.Mailbox) error
	MailboxesByGrant(ctx context.Context, org, grant mailgrant.ID) ([]mailgrant.Mailbox, error)
	Submission(ctx context.Context, org, id mailgrant.ID) (mailgrant.Submission, error)
	AddEvent(ctx context.Context, e mailgrant.Event) error
	TellReader(ctx context.Context, cause string, e mailgrant.Event) error
	WakeReader(ctx context.Context, org, mailbox mailgrant.ID) error
	RingReader(ctx context.Context, org, mailbox mailgrant.ID) error
}

// A Ways finds the way to a mailbox's provider.
type Ways interface {
	Way(ctx context.Context, m mailgrant.Mailbox) (provider.Way, error)
}

// Config is what an Inbox is made of.
type Config struct {
	Store   Store
	Vault   *vault.Vault
	Ways    Ways
	Readers map[string]provider.Reader
	Owner   cluster.Owner
	Log     *slog.Logger

	MessageBytes int64         // a larger message is kept without its body
	Keep         time.Duration // of bodies, where a mailbox says nothing else; 0 = for ever

	// Push is where the provider of a mailbox may tell of new mail, and what it
	// must show; "" where it cannot reach us.
	Push func(m mailgrant.Mailbox) (url, secret string)

	// Own says whether an arrival is a message that mailgrant sent to the mailbox
	// itself to test it. Such a one is kept as ignored, and nobody is told of it.
	Own func(a mailgrant.Arrival) bool

	// Steps is told of each step of taking mail; tests stop the world there.
	Steps func(step string)
}

// An Inbox reads mailboxes. It is safe for concurrent use.
type Inbox struct {
	Config
	now func() time.Time

	mu       sync.Mutex
	watchers map[mailgrant.ID]*watcher
	closed   bool
	run      context.Context // of all work
	abort    context.CancelFunc
	wg       sync.WaitGroup

	gates gates
	room  *semaphore.Weighted // bytes of messages that are taken and not yet kept
}

const (
	// roomBytes bounds the bodies in memory over all mailboxes.
	roomBytes = 48 << 20

	// lookEvery is when all mailboxes are looked at, should a word between nodes
	// have been lost.
	lookEvery = 30 * time.Second
)

// New makes an Inbox; Run starts its watchers.
func New(c Config) *Inbox {
	if c.Steps == nil {
		c.Steps = func(string) {}
	}
	if c.Push == nil {
		c.Push = func(mailgrant.Mailbox) (string, string) { return "", "" }
	}
	if c.Own == nil {
		c.Own = func(mailgrant.Arrival) bool { return false }
	}
	run, abort := context.WithCancel(context.Background())
	return &Inbox{Config: c, now: time.Now, watchers: map[mailgrant.ID]*watcher{}, run: run, abort: abort,
		gates: gates{at: map[string]*gate{}}, room: semaphore.NewWeighted(roomBytes)}
}

// Run reads until ctx ends, and then lets what is being kept be kept.
func (in *Inbox) Run(ctx context.Context) error {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		if err := in.lookAtAll(ctx); err != nil && ctx.Err() == nil {
			in.Log.Warn("look at the mailboxes that are read", "err", err)
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			in.shut()
			return nil
		}
	}
}

func (in *Inbox) shut() {
	in.mu.Lock()
	in.closed = true
	in.mu.Unlock()
	in.abort()
	in.wg.Wait()
}

// lookAtAll starts watchers that are missing, and ends those that are not to be.
func (in *Inbox) lookAtAll(ctx context.Context) error {
	in.mu.Lock()
	before := maps.Clone(in.watchers) // one that begins meanwhile is of a mailbox that is not in the list
	in.mu.Unlock()
	boxes, err := in.Store.ReadMailboxes(ctx)
	if err != nil {
		return err
	}
	wanted := make(map[mailgrant.ID]bool, len(boxes))
	for _, m := range boxes {
		if _, mine := in.Owner.Fence(m.Mailbox); mine {
			wanted[m.Mailbox] = true
			in.watch(m.Org, m.Mailbox)
		}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	for id, w := range before {
		if !wanted[id] {
			w.end()
		}
	}
	return nil
}

// watch starts the watcher of a mailbox unless there is one.
func (in *Inbox) watch(org, mailbox mailgrant.ID) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if w := in.watchers[mailbox]; w != nil && w.ended.Load() {
		w.call() // the next one begins when it is gone
	}
	if in.closed || in.watchers[mailbox] != nil {
		return
	}
	ctx, cancel := context.WithCancel(in.run)
	w := &watcher{in: in, org: org, id: mailbox, done: make(chan struct{}), again: make(chan struct{}, 1)}
	w.end = func() { w.ended.Store(true); cancel() }
	w.status.State = mailgrant.ReaderConnecting
	in.watchers[mailbox] = w
	in.wg.Go(func() {
		w.run(ctx)
		w.end()
		in.mu.Lock()
		delete(in.watchers, mailbox)
		in.mu.Unlock()
		close(w.done)
		select {
		case <-w.again: // it was wanted again while it ended
			in.watch(org, mailbox)
		default:
		}
	})
}

// Gained starts the watchers of shards that this node owns now.
func (in *Inbox) Gained([]int64) {
	if err := in.lookAtAll(in.run); err != nil && in.run.Err() == nil {
		in.Log.Error("take mailboxes over", "err", err) // again within lookEvery
	}
}

// Lost ends the watchers of shards. Wait returns when nothing of them is under
// way.
func (in *Inbox) Lost(shards []int64) (wait func()) {
	set := make(map[int64]bool, len(shards))
	for _, n := range shards {
		set[n] = true
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	var gone []*watcher
	for id, w := range in.watchers {
		if set[cluster.Shard(id)] {
			w.end()
			gone = append(gone, w)
		}
	}
	return func() {
		for _, w := range gone {
			<-w.done
		}
	}
}

// Look has a mailbox read anew: it was made, or somebody changed it, its grant or
// its hold. Without a mailbox, all are looked at.
func (in *Inbox) Look(org, mailbox mailgrant.ID) {
	if mailbox == "" {
		in.Gained(nil)
		return
	}
	if _, mine := in.Owner.Fence(mailbox); !mine {
		return
	}
	in.mu.Lock()
	w := in.watchers[mailbox]
	in.mu.Unlock()
	if w == nil {
		in.watch(org, mailbox) // it ends by itself where there is nothing to read
		return
	}
	w.restart()
}

// Changed is Look, wherever in the cluster the mailbox is read.
func (in *Inbox) Changed(ctx context.Context, org, mailbox mailgrant.ID) {
	if _, mine := in.Owner.Fence(mailbox); mine {
		in.Look(org, mailbox)
		return
	}
	if err := in.Store.WakeReader(ctx, org, mailbox); err != nil && ctx.Err() == nil {
		in.Log.Warn("have a mailbox read anew by its node", "mailbox", mailbox, "err", err) // it sees it within lookEvery
	}
}

// Ring has a mailbox of this node looked at for new mail, of which its provider told. What is
// under way goes on, and one that cannot be read now waits for its time.
func (in *Inbox) Ring(_, mailbox mailgrant.ID) {
	in.mu.Lock()
	w := in.watchers[mailbox]
	in.mu.Unlock()
	if w != nil {
		w.ring()
	}
}

// Told is Ring, wherever in the cluster the mailbox is read.
func (in *Inbox) Told(ctx context.Context, org, mailbox mailgrant.ID) {
	if _, mine := in.Owner.Fence(mailbox); mine {
		in.Ring(org, mailbox)
		return
	}
	if err := in.Store.RingReader(ctx, org, mailbox); err != nil && ctx.Err() == nil {
		in.Log.Warn("tell a node of new mail", "mailbox", mailbox, "err", err) // it asks the provider in any case
	}
}

// LookGrant has all mailboxes of a grant read anew.
func (in *Inbox) LookGrant(ctx context.Context, org, grant mailgrant.ID) {
	boxes, err := in.Store.MailboxesByGrant(ctx, org, grant)
	if err != nil {
		in.Log.Warn("read the mailboxes of a grant anew", "grant", grant, "err", err)
	}
	for _, m := range boxes {
		if m.Receive != nil {
			in.Changed(ctx, org, m.ID)
		}
	}
}

// Status is how the reading of a mailbox goes, as far as this node knows.
func (in *Inbox) Status(m mailgrant.Mailbox) mailgrant.ReaderStatus {
	if m.Receive == nil || m.State == mailgrant.MailboxDisabled {
		return mailgrant.ReaderStatus{Mailbox: m.ID, State: mailgrant.ReaderOff}
	}
	in.mu.Lock()
	w := in.watchers[m.ID]
	in.mu.Unlock()
	if w != nil {
		return w.look()
	}
	s := mailgrant.ReaderStatus{Mailbox: m.ID, State: mailgrant.ReaderConnecting}
	if _, mine := in.Owner.Fence(m.ID); !mine {
		s.State = mailgrant.ReaderElsewhere
	}
	return s
}

// ReadAgain has an arrival in quarantine read once more.
func (in *Inbox) ReadAgain(ctx context.Context, org, id mailgrant.ID) error {
	a, err := in.Store.Arrival(ctx, org, id)
	if err != nil {
		return err
	}
	if err := in.Store.ReadAgain(ctx, org, id); err != nil {
		return err
	}
	in.Changed(ctx, org, a.Mailbox)
	return nil
}

// Body gives the bytes of an arrival as they came.
func (in *Inbox) Body(ctx context.Context, org, id mailgrant.ID) (io.ReadCloser, error) {
	a, err := in.Store.Arrival(ctx, org, id)
	if err != nil {
		return nil, err
	}
	if !a.Body {
		return nil, errBodyless(nil)
	}
	r, err := in.bodies().Open(ctx, org, id, a.Size)
	if errors.Is(err, mailgrant.NotFound) { // swept away just now
		return nil, errBodyless(err)
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

func errBodyless(err error) error {
	return mailgrant.Errorf(mailgrant.NotFound, err, "the bytes of this arrival are not kept").
		Fix("keep bodies longer: keep.arrivals in the settings, or receive.keep of the mailbox; what is over does not come back")
}

func (in *Inbox) bodies() body.Keeper { return body.Keeper{Store: in.Store, Vault: in.Vault} }
