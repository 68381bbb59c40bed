package inbox_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/inbox"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/store"
)

// A base is a store of which some methods do as they are told.
type base struct {
	*store.Store
	putChunk      func() error
	afterDone     func() error
	readMailboxes func()
	setPosition   func()
}

func (b *base) PutChunk(ctx context.Context, org, owner mailgrant.ID, n int64, sealed []byte) error {
	if b.putChunk != nil {
		if err := b.putChunk(); err != nil {
			return err
		}
	}
	return b.Store.PutChunk(ctx, org, owner, n, sealed)
}

func (b *base) AfterDone(ctx context.Context, org mailgrant.ID, f store.Fence, ids []mailgrant.ID) error {
	if b.afterDone != nil {
		if err := b.afterDone(); err != nil {
			return err
		}
	}
	return b.Store.AfterDone(ctx, org, f, ids)
}

func (b *base) ReadMailboxes(ctx context.Context) ([]store.Lane, error) {
	l, err := b.Store.ReadMailboxes(ctx)
	if b.readMailboxes != nil {
		b.readMailboxes()
	}
	return l, err
}

func (b *base) SetPosition(ctx context.Context, org, mailbox mailgrant.ID, from, to store.Position, f store.Fence) error {
	if b.setPosition != nil {
		b.setPosition()
	}
	return b.Store.SetPosition(ctx, org, mailbox, from, to, f)
}

// over puts b between the inbox and its store.
func over(b *base) func(*rig) {
	return func(r *rig) {
		r.config = func(c *inbox.Config) {
			b.Store = c.Store.(*store.Store)
			c.Store = b
		}
	}
}

// What broke off needs no room any more, however often it does.
func TestRoomIsGivenBack(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		r.far.with(func() {
			r.far.size = 1 << 20
			r.far.fetch = func(m *mail) error {
				if m.n <= 60 {
					return errMidway
				}
				return nil
			}
		})
		for i := range 60 {
			r.far.deliver(message(fmt.Sprint("broken", i)))
		}
		r.far.deliver(message("last"))
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if l := r.arrivals(); len(l) != 61 || l[60].Subject != "last" {
			t.Errorf("%d arrivals", len(l))
		}
	})
}

// Messages that are larger than their provider says, or of which it says nothing,
// are taken all the same.
func TestSizesThatAreNotSo(t *testing.T) {
	for name, size := range map[string]int64{"small": 1, "large": 9 << 20} {
		t.Run(name, func(t *testing.T) {
			inTime(t, func(t *testing.T, r *rig) {
				for i := range 300 {
					r.far.deliver(message(fmt.Sprint(i)) + strings.Repeat("0123456789abcdef\r\n", 1000))
				}
				synctest.Wait()
				if l := r.arrivals(); len(l) != 300 {
					t.Errorf("%d arrivals", len(l))
				}
			}, func(r *rig) { r.far.size, r.far.page = size, 100 })
		})
	}
}

// When it is our own side that fails, or the network for a moment, no message is
// to blame.
func TestNoMessageIsToBlame(t *testing.T) {
	long := message("long") + strings.Repeat("0123456789abcdef\r\n", 1<<20/18)
	t.Run("store", func(t *testing.T) {
		var down atomic.Bool
		b := &base{putChunk: func() error {
			if down.Load() {
				return mailgrant.Errorf(mailgrant.Unavailable, nil, "no database")
			}
			return nil
		}}
		inTime(t, func(t *testing.T, r *rig) {
			down.Store(true)
			r.far.deliver(long)
			time.Sleep(time.Hour)
			down.Store(false)
			time.Sleep(10 * time.Minute)
			synctest.Wait()
			if l := r.arrivals(); len(l) != 1 || l[0].State != mailgrant.ArrivalNew {
				t.Errorf("arrivals: %+v", l)
			}
		}, over(b))
	})
	t.Run("network", func(t *testing.T) {
		inTime(t, func(t *testing.T, r *rig) {
			mended := time.Now().Add(10 * time.Second)
			r.far.with(func() {
				r.far.fetch = func(*mail) error {
					if time.Now().Before(mended) {
						return errMidway
					}
					return nil
				}
			})
			r.far.deliver(message("one"))
			time.Sleep(time.Minute)
			synctest.Wait()
			if l := r.arrivals(); len(l) != 1 || l[0].State != mailgrant.ArrivalNew {
				t.Errorf("arrivals: %+v", l)
			}
		})
	})
}

// A panic ends a session, closes it and lets go of all that it held. R-RE9.
func TestPanicEndsTheSessionOnly(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		var met atomic.Int64
		r.far.with(func() {
			r.far.fetch = func(m *mail) error {
				if m.n == 2 && met.Add(1) <= 3 {
					panic("met something")
				}
				return nil
			}
		})
		r.far.deliver(message("one"), message("two"))
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := r.subjects(); got != "one two" {
			t.Errorf("arrivals: %s", got)
		}
		if opens, closes := r.far.counts(); opens != 4 || closes != 3 {
			t.Errorf("opened %d times, closed %d times", opens, closes)
		}
	})
}

// A provider that tells of each message while a long one is read does not break it
// off; and what is told while the mailbox waits is looked at.
func TestToldOfNewMail(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		synctest.Wait()
		r.far.with(func() {
			r.far.fetch = func(*mail) error {
				time.Sleep(10 * time.Second)
				return nil
			}
		})
		r.far.deliver(message("one"))
		for range 20 {
			time.Sleep(time.Second)
			r.in.Told(t.Context(), r.box.Org, r.box.ID)
		}
		synctest.Wait()
		r.far.with(func() {
			r.far.next++
			r.far.mail = append(r.far.mail, &mail{n: r.far.next, text: message("two"), at: time.Now(), remotes: map[string]string{"imap": "imap-2"}})
		})
		r.in.Told(t.Context(), r.box.Org, r.box.ID)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if got := r.subjects(); got != "one two" {
			t.Errorf("arrivals: %s", got)
		}
		if opens, _ := r.far.counts(); opens != 1 {
			t.Errorf("opened %d times", opens)
		}
	})
}

// A node that lost a mailbox without knowing it does nothing over and over.
func TestAfterReadingElsewhere(t *testing.T) {
	var n atomic.Int64
	b := &base{afterDone: func() error {
		if n.Add(1) < 4 {
			return mailgrant.Errorf(mailgrant.Conflict, nil, "another node works this now")
		}
		return nil
	}}
	inTime(t, func(t *testing.T, r *rig) {
		r.far.deliver(message("one"))
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if got := r.far.deeds(); len(got) != 4 || n.Load() != 4 {
			t.Errorf("%q, kept %d times", got, n.Load())
		}
		if l := r.events("reader.held"); len(l) != 0 {
			t.Errorf("a person is asked: %+v", l)
		}
	}, over(b), func(r *rig) { r.box.Receive.After = mailgrant.AfterDelete })
}

// Mail that was to be deleted, and could not be, stays when its owner says so.
func TestDeletingIsSwitchedOff(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		r.far.with(func() {
			r.far.doing = func([]string) error { return mailgrant.Errorf(mailgrant.Misset, nil, "read only").Fix("mend it") }
		})
		r.far.deliver(message("one"))
		synctest.Wait()
		r.far.with(func() { r.far.doing = nil })
		m := r.box
		m.Receive = &mailgrant.Receive{Protocol: "imap", Everything: true}
		must(t, r.store.UpdateMailbox(t.Context(), m))
		r.in.Look(m.Org, m.ID)
		time.Sleep(time.Hour)
		r.far.deliver(message("two"))
		synctest.Wait()
		if got := r.far.deeds(); len(got) != 0 || r.subjects() != "one two" {
			t.Errorf("%q; arrivals %s", got, r.subjects())
		}
		if l, err := r.store.AfterReading(t.Context(), m.Org, m.ID, 10); err != nil || len(l) != 0 {
			t.Errorf("still to be done: %v, %v", l, err)
		}
	}, func(r *rig) { r.box.Receive.After = mailgrant.AfterDelete })
}

func messages(name string, n int) (l []string) {
	for i := range n {
		l = append(l, message(fmt.Sprint(name, i)))
	}
	return l
}

// One message that cannot be moved does not keep the others from it, and is not
// tried for ever at once.
func TestOneThatCannotBeMoved(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		calls := 0
		r.far.with(func() {
			r.far.doing = func(remotes []string) error {
				calls++
				if slices.Contains(remotes, "imap-17") {
					return mailgrant.Errorf(mailgrant.Misset, nil, "this one may not be moved").Fix("let it be moved")
				}
				return nil
			}
		})
		r.far.deliver(messages("m", 40)...)
		synctest.Wait()
		if got := r.far.deeds(); len(got) != 39 {
			t.Errorf("%d of 39 were moved", len(got))
		}
		l, err := r.store.AfterReading(t.Context(), r.box.Org, r.box.ID, 10)
		if err != nil || len(l) != 1 || l[0].Remote != "imap-17" {
			t.Errorf("left: %+v, %v", l, err)
		}
		if n := len(r.events("reader.after_failed")); n != 1 {
			t.Errorf("told %d times", n)
		}
		r.far.with(func() {
			calls, r.far.doing = 0, func([]string) error {
				calls++
				return mailgrant.Errorf(mailgrant.Misset, nil, "there is no such folder").Fix("make it")
			}
		})
		r.far.deliver(messages("n", 400)...)
		time.Sleep(6 * time.Minute)
		r.far.deliver(message("last"))
		synctest.Wait()
		r.far.with(func() {
			if calls == 0 || calls > 20 {
				t.Errorf("tried %d times", calls)
			}
		})
		if got := len(r.arrivals()); got != 441 {
			t.Errorf("%d arrivals", got)
		}
	}, func(r *rig) { r.box.Receive.After, r.box.Receive.MoveTo = mailgrant.AfterMove, "Done" })
}

// A mailbox that is added while all are looked at is read on.
func TestAddedWhileAllAreLookedAt(t *testing.T) {
	b := &base{}
	inTime(t, func(t *testing.T, r *rig) {
		synctest.Wait()
		other := r.box
		other.ID, other.Address = mailgrant.NewID(mailgrant.PrefixMailbox), "other@contoso.example"
		done := false
		b.readMailboxes = func() {
			if !done {
				done = true
				must(t, r.store.CreateMailbox(t.Context(), other))
				r.in.Look(other.Org, other.ID)
			}
		}
		r.in.Look(r.box.Org, "")
		synctest.Wait()
		if st := r.in.Status(other); st.State != mailgrant.ReaderWaiting {
			t.Errorf("status: %+v", st)
		}
		if opens, _ := r.far.counts(); opens != 2 {
			t.Errorf("opened %d times", opens)
		}
	}, over(b))
}

// A mailbox that begins to be read the new way by itself in the middle of a move
// is moved all the same.
func TestMoveMeetsItsReader(t *testing.T) {
	b := &base{}
	inTime(t, func(t *testing.T, r *rig) {
		r.far.deliver(message("one"))
		synctest.Wait()
		done := false
		b.setPosition = func() {
			if !done {
				done = true
				r.in.Look(r.box.Org, r.box.ID)
				r.far.deliver(message("two"))
				synctest.Wait()
			}
		}
		got, err := r.in.Move(t.Context(), r.box, "graph", false)
		if err != nil || !got.Moved || got.BackUntil == nil {
			t.Fatalf("%+v, %v", got, err)
		}
		synctest.Wait()
		m, err := r.store.Mailbox(t.Context(), r.box.Org, r.box.ID)
		if err != nil || m.Receive.Protocol != "graph" || r.subjects() != "one two" {
			t.Errorf("%+v, %v: %s", m.Receive, err, r.subjects())
		}
	}, over(b))
}

// What somebody changes while a mailbox is counted stays as it is.
func TestMoveMeetsAChange(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		r.far.deliver(message("one"))
		synctest.Wait()
		r.far.with(func() {
			r.far.refuse = func(string) error { // it does not, and that once
				r.far.refuse = nil
				m, err := r.store.Mailbox(t.Context(), r.box.Org, r.box.ID)
				must(t, err)
				m.Receive.MoveTo = "Done"
				return r.store.UpdateMailbox(t.Context(), m)
			}
		})
		got, err := r.in.Move(t.Context(), r.box, "graph", false)
		if err != nil || !got.Moved {
			t.Fatalf("%+v, %v", got, err)
		}
		m, err := r.store.Mailbox(t.Context(), r.box.Org, r.box.ID)
		if err != nil || m.Receive.Protocol != "graph" || m.Receive.MoveTo != "Done" {
			t.Errorf("%+v, %v", m.Receive, err)
		}
	})
}

// A host that does not answer does not hold up the mailboxes of another.
func TestDeadHostHoldsUpNobodyElse(t *testing.T) {
	var dead atomic.Int64
	far := &hosts{open: func(ctx context.Context, host string) error {
		if host != "dead" {
			return nil
		}
		dead.Add(1)
		select {
		case <-time.After(time.Hour):
		case <-ctx.Done():
		}
		return errors.New("no answer")
	}}
	inTime(t, func(t *testing.T, r *rig) {
		synctest.Wait()
		for i := range 100 {
			m := r.box
			m.ID, m.Address = mailgrant.NewID(mailgrant.PrefixMailbox), fmt.Sprintf("m%d@dead", i)
			must(t, r.store.CreateMailbox(t.Context(), m))
			r.in.Look(m.Org, m.ID)
		}
		synctest.Wait()
		r.in.Look(r.box.Org, r.box.ID) // opens anew
		synctest.Wait()
		if st := r.in.Status(r.box); st.State != mailgrant.ReaderWaiting || dead.Load() != 64 {
			t.Errorf("status %+v; %d logins at the dead host", st, dead.Load())
		}
	}, func(r *rig) {
		r.config = func(c *inbox.Config) {
			far.far, far.reader = r.far, c.Readers["imap"]
			c.Ways, c.Readers = far, map[string]provider.Reader{"imap": {Name: "imap", Open: far.openBox}}
		}
	})
}

// hosts are several providers: a mailbox is at the one that its domain names.
type hosts struct {
	far    *far
	reader provider.Reader
	open   func(ctx context.Context, host string) error
}

func (h *hosts) Way(ctx context.Context, m mailgrant.Mailbox) (provider.Way, error) {
	w, err := h.far.Way(ctx, m)
	_, w.Settings.IMAPHost, _ = strings.Cut(m.Address, "@")
	return w, err
}

func (h *hosts) openBox(ctx context.Context, w provider.Way, r provider.Reading) (provider.Inbox, error) {
	if err := h.open(ctx, w.Settings.IMAPHost); err != nil {
		return nil, err
	}
	return h.reader.Open(ctx, w, r)
}
