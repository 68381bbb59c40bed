// Package outbox takes responsibility for messages and keeps it.
//
// Accept makes a submission durable before the door says so. The lane of its
// mailbox then hands it over: in order, at the provider's pace, over connections
// that are used again. Before the bytes go, a begun attempt is durable, so that
// after a crash it is known which messages may have been sent; after the answer,
// the attempt is recorded with its finding. A mailbox that cannot work keeps its
// submissions and tells why; nothing fails for it.
package outbox

import (
	"context"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/body"
	"github.com/mailgrant/mailgrant/internal/cluster"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/route"
	"github.com/mailgrant/mailgrant/internal/store"
	"github.com/mailgrant/mailgrant/internal/vault"
)

// A Store is what the outbox keeps things in.
type Store interface {
	AcceptSubmission(ctx context.Context, a store.Acceptance) (mailgrant.Submission, error)
	PutChunk(ctx context.Context, org, owner mailgrant.ID, n int64, sealed []byte) error
	DropChunks(ctx context.Context, org, owner mailgrant.ID) error
	Chunk(ctx context.Context, org, owner mailgrant.ID, n int64) ([]byte, error)
	Submission(ctx context.Context, org, id mailgrant.ID) (mailgrant.Submission, error)
	CancelSubmission(ctx context.Context, org, id mailgrant.ID) error
	RetrySubmission(ctx context.Context, org, id mailgrant.ID) error
	BusyLanes(ctx context.Context) ([]store.Lane, error)
	DueSubmissions(ctx context.Context, mailbox mailgrant.ID, at time.Time, limit int) ([]mailgrant.Submission, error)
	NextDue(ctx context.Context, mailbox mailgrant.ID, after time.Time) (time.Time, error)
	Unfinished(ctx context.Context, mailbox mailgrant.ID) ([]mailgrant.Submission, error)
	BeginAttempt(ctx context.Context, f store.Fence, subs []mailgrant.Submission) ([]bool, error)
	UndoAttempt(ctx context.Context, f store.Fence, subs []mailgrant.Submission) error
	MarkUncertain(ctx context.Context, f store.Fence, sub mailgrant.Submission) error
	RecordAttempt(r store.Record, done func(error))
	HandedSince(ctx context.Context, mailbox mailgrant.ID, since time.Time) (int, error)
	Mailbox(ctx context.Context, org, id mailgrant.ID) (mailgrant.Mailbox, error)
	MailboxesByRole(ctx context.Context, org mailgrant.ID, role mailgrant.MailboxRole) ([]mailgrant.Mailbox, error)
	MailboxesByGrant(ctx context.Context, org, grant mailgrant.ID) ([]mailgrant.Mailbox, error)
	HoldMailbox(ctx context.Context, org, id mailgrant.ID, h mailgrant.Hold) error
	ResumeMailbox(ctx context.Context, org, id mailgrant.ID) error
	MarkSuccess(ctx context.Context, at map[store.Lane]time.Time) error
	WakeLane(ctx context.Context, org, mailbox mailgrant.ID) error
	RetryLane(ctx context.Context, org, mailbox mailgrant.ID) error
	AddEvent(ctx context.Context, e mailgrant.Event) error

	// Now is the time that all nodes go by.
	Now() time.Time
}

// A Ways finds the way to a mailbox's provider.
type Ways interface {
	Way(ctx context.Context, m mailgrant.Mailbox) (provider.Way, error)
}

// A Sender decides whether a caller may send as all of these addresses.
type Sender interface {
	MaySend(ctx context.Context, c mailgrant.Caller, m mailgrant.Mailbox, identities []string) error
}

// A Choice picks the transport for one message, and says why.
type Choice func(w provider.Way, h *provider.Handover, all map[string]provider.Transport) (provider.Transport, string, error)

// Config is what an Outbox is made of.
type Config struct {
	Store      Store
	Vault      *vault.Vault
	Router     *route.Router
	Sender     Sender
	Ways       Ways
	Transports map[string]provider.Transport
	Choose     Choice
	Owner      cluster.Owner
	Clustered  bool
	Node       mailgrant.ID
	Hostname   string // names this installation in Received and Message-ID
	PublicURL  string
	Log        *slog.Logger

	MessageBytes int64         // limit of one message
	Recipients   int           // limit of one message
	Life         time.Duration // of a submission that its mailbox sets none for
	NoticeTo     string        // who is told of held mailboxes; "" nobody

	// Steps is told of each step of accept and send; tests stop the world there.
	Steps func(step string)
}

// An Outbox accepts and delivers. It is safe for concurrent use.
type Outbox struct {
	Config
	now func() time.Time

	mu     sync.Mutex
	lanes  map[mailgrant.ID]*lane
	paces  map[mailgrant.ID]*pace // by app
	closed bool
	run    context.Context // of all work
	abort  context.CancelFunc
	wg     sync.WaitGroup

	kept    kept
	notices noticed

	successMu sync.Mutex
	success   map[store.Lane]time.Time
}

// New makes an Outbox; Run starts its lanes.
func New(c Config) *Outbox {
	if c.Steps == nil {
		c.Steps = func(string) {}
	}
	run, abort := context.WithCancel(context.Background())
	return &Outbox{Config: c, now: c.Store.Now, lanes: map[mailgrant.ID]*lane{}, paces: map[mailgrant.ID]*pace{}, run: run, abort: abort,
		success: map[store.Lane]time.Time{}, notices: noticed{at: map[string]time.Time{}}}
}

// Run works the lanes until ctx ends, and then lets what is under way finish, for
// half a minute at most.
func (o *Outbox) Run(ctx context.Context) error {
	defer o.abort()
	if !o.Clustered {
		if err := o.lookAtAll(ctx, everyLane); err != nil && ctx.Err() == nil {
			return err
		}
	}
	success, look := time.NewTicker(successEvery), time.NewTicker(lookEvery)
	defer success.Stop()
	defer look.Stop()
	for {
		select {
		case <-success.C:
			o.flushSuccess(ctx)
		case <-look.C:
			o.forgetResting()
			if err := o.lookAtAll(ctx, everyLane); err != nil && ctx.Err() == nil {
				o.Log.Warn("look at the lanes", "err", err)
			}
		case <-ctx.Done():
			o.shut()
			last, cancel := context.WithTimeout(context.Background(), giveBackWithin)
			defer cancel()
			o.flushSuccess(last)
			return nil
		}
	}
}

const (
	successEvery = 2 * time.Second
	stopWithin   = 25 * time.Second

	// lookEvery is when all lanes are looked at, should a word between nodes have
	// been lost.
	lookEvery = 30 * time.Second
)

func (o *Outbox) shut() {
	o.mu.Lock()
	o.closed = true
	lanes := slices.Collect(maps.Values(o.lanes))
	for _, l := range lanes {
		l.close()
	}
	o.mu.Unlock()
	done := make(chan struct{})
	go func() { o.wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(stopWithin):
		o.abort() // what is cut off is uncertain, and said to be
		<-done
	}
	for _, l := range lanes {
		l.wait()
	}
}

func everyLane(mailgrant.ID) bool { return true }

// lookAtAll has the lanes look that are ours, have work, and fall under which.
func (o *Outbox) lookAtAll(ctx context.Context, which func(mailbox mailgrant.ID) bool) error {
	busy, err := o.Store.BusyLanes(ctx)
	if err != nil {
		return err
	}
	for _, b := range busy {
		if which(b.Mailbox) {
			o.Look(b.Org, b.Mailbox)
		}
	}
	return nil
}

// forgetResting forgets lanes that had nothing to do for a while.
func (o *Outbox) forgetResting() {
	now := o.now()
	o.mu.Lock()
	defer o.mu.Unlock()
	for id, l := range o.lanes {
		l.mu.Lock()
		if l.resting(now) {
			l.shut()
			delete(o.lanes, id)
		}
		l.mu.Unlock()
	}
}

// Gained starts the lanes of shards that this node owns now.
func (o *Outbox) Gained(shards []int64) {
	set := setOf(shards)
	if err := o.lookAtAll(o.run, func(m mailgrant.ID) bool { return set[cluster.Shard(m)] }); err != nil {
		o.Log.Error("take lanes over", "err", err) // again within lookEvery
	}
}

// Lost stops the lanes of shards. Wait returns when nothing of them is under way.
func (o *Outbox) Lost(shards []int64) (wait func()) {
	set := setOf(shards)
	o.mu.Lock()
	defer o.mu.Unlock()
	var gone []*lane
	for id, l := range o.lanes {
		if set[cluster.Shard(id)] {
			gone = append(gone, l)
			delete(o.lanes, id)
			l.close()
		}
	}
	return func() {
		for _, l := range gone {
			l.wait()
		}
	}
}

func setOf(shards []int64) map[int64]bool {
	set := make(map[int64]bool, len(shards))
	for _, n := range shards {
		set[n] = true
	}
	return set
}

// Look makes the lane of a mailbox look for new work and for what another node
// changed; without a mailbox, all lanes.
func (o *Outbox) Look(org, mailbox mailgrant.ID) {
	if mailbox == "" {
		if err := o.lookAtAll(o.run, everyLane); err != nil {
			o.Log.Warn("look at the lanes", "err", err)
		}
		return
	}
	if _, mine := o.Owner.Fence(mailbox); mine {
		o.lane(org, mailbox).look()
	}
}

// Wake makes the lane of a mailbox try again at once, whichever node has it: somebody
// did something about its settings, its hold or its submissions.
func (o *Outbox) Wake(org, mailbox mailgrant.ID) {
	if _, mine := o.Owner.Fence(mailbox); mine {
		o.Retried(org, mailbox)
		return
	}
	if err := o.Store.RetryLane(o.run, org, mailbox); err != nil && o.run.Err() == nil {
		o.Log.Warn("have a lane tried again by its node", "mailbox", mailbox, "err", err) // it tries by itself, later
	}
}

// Retried is Wake, said by another node.
func (o *Outbox) Retried(org, mailbox mailgrant.ID) {
	if _, mine := o.Owner.Fence(mailbox); mine {
		o.lane(org, mailbox).reconsider()
	}
}

// WakeGrant wakes the lanes of all mailboxes that use a grant.
func (o *Outbox) WakeGrant(ctx context.Context, org, grant mailgrant.ID) {
	boxes, err := o.Store.MailboxesByGrant(ctx, org, grant)
	if err != nil {
		o.Log.Warn("wake the lanes of a grant", "grant", grant, "err", err)
	}
	for _, m := range boxes {
		o.Wake(org, m.ID)
	}
}

// Retry makes a submission due now.
func (o *Outbox) Retry(ctx context.Context, org, id mailgrant.ID) error {
	if err := o.Store.RetrySubmission(ctx, org, id); err != nil {
		return err
	}
	sub, err := o.Store.Submission(ctx, org, id)
	if err == nil {
		o.Wake(org, sub.Route.Mailbox)
	}
	return err
}

// Cancel ends a submission that is not being sent.
func (o *Outbox) Cancel(ctx context.Context, org, id mailgrant.ID) error {
	return o.Store.CancelSubmission(ctx, org, id)
}

// Body gives the bytes of a submission as they leave.
func (o *Outbox) Body(ctx context.Context, org, id mailgrant.ID) (io.ReadCloser, error) {
	sub, err := o.Store.Submission(ctx, org, id)
	if err != nil {
		return nil, err
	}
	return opened(o.bodies().Open(ctx, sub.Org, sub.ID, sub.Size))
}

// opened keeps a nil reader out of an interface.
func opened(r *body.Reader, err error) (io.ReadCloser, error) {
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (o *Outbox) lane(org, mailbox mailgrant.ID) *lane {
	o.mu.Lock()
	defer o.mu.Unlock()
	l := o.lanes[mailbox]
	if l == nil {
		l = newLane(o, org, mailbox)
		if o.closed {
			l.close()
			return l
		}
		o.lanes[mailbox] = l
	}
	return l
}

func (o *Outbox) succeeded(l store.Lane, at time.Time) {
	o.successMu.Lock()
	o.success[l] = at
	o.successMu.Unlock()
}

func (o *Outbox) flushSuccess(ctx context.Context) {
	o.successMu.Lock()
	m := o.success
	o.success = map[store.Lane]time.Time{}
	o.successMu.Unlock()
	if len(m) == 0 {
		return
	}
	if err := o.Store.MarkSuccess(ctx, m); err != nil {
		o.Log.Warn("note successes", "err", err)
	}
}
