package inbox

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/rfc5322"
	"github.com/mailgrant/mailgrant/internal/store"
)

// A mailbox is moved from one protocol to another in steps that each can be
// looked at:
//
//	inventory ─▶ (dry run ends here) ─▶ switch ─▶ read all once ─▶ is all of the list taken?
//	                                      └───────── back, within a week ◀──┘
//
// The inventory reads all that the other way shows, and says of each message
// whether it was taken before. So what will happen is known before it does.

// backWithin is how long a move can be taken back.
const backWithin = 7 * 24 * time.Hour

// before is how a mailbox was read before it was moved.
type before struct {
	Protocol string            `json:"protocol"`
	Cursor   string            `json:"cursor"`
	Receive  mailgrant.Receive `json:"receive"`
	Until    time.Time         `json:"until"` // it can be taken back
}

// Move has a mailbox read by another protocol: nothing is taken twice, nothing is
// left out. With dry nothing is changed.
func (in *Inbox) Move(ctx context.Context, m mailgrant.Mailbox, to string, dry bool) (r mailgrant.Move, err error) {
	if m.Receive == nil {
		return r, mailgrant.Errorf(mailgrant.Conflict, nil, "%s is not read, so there is nothing to move", m.Address).
			Fix("have it read: mailgrant mailbox set %s --receive %s", m.Address, to)
	}
	pos, err := in.Store.Position(ctx, m.Org, m.ID)
	if err != nil {
		return r, err
	}
	r = mailgrant.Move{Mailbox: m.ID, Address: m.Address, From: pos.Protocol, To: to, DryRun: dry}
	if pos.Protocol == to {
		return r, mailgrant.Errorf(mailgrant.Conflict, nil, "%s is read by %s already", m.Address, to).Fix("nothing is to be done")
	}
	if r.Taken, err = in.Store.SeenCount(ctx, m.Org, m.ID); err != nil {
		return r, err
	}
	shown, err := in.inventory(ctx, readBy(m, to), pos)
	if err != nil {
		return r, err
	}
	names, loose := same(shown)
	r.There, r.Same, r.New = len(shown), len(names), len(shown)-len(names)
	if dry {
		return r, nil
	}
	if m, err = in.Store.Mailbox(ctx, m.Org, m.ID); err != nil { // that took a while: somebody may have changed it
		return r, err
	}
	if m.Receive == nil {
		return r, mailgrant.Errorf(mailgrant.Conflict, nil, "%s was switched off meanwhile", m.Address).Fix("have it read again, and then moved")
	}
	// What is the same is known by its other name too: a provider that gives names
	// first is not asked for it again.
	if err := in.Store.KnowRemotes(ctx, m.Org, m.ID, names, loose); err != nil {
		return r, err
	}
	next := readBy(m, to)
	if err := in.turn(ctx, m, next, pos, &r); err != nil {
		return r, err
	}
	in.verify(ctx, next, &r, shown)
	return r, nil
}

// readBy is m, read by another protocol.
func readBy(m mailgrant.Mailbox, protocol string) mailgrant.Mailbox {
	receive := *m.Receive
	receive.Protocol = protocol
	m.Receive = &receive
	return m
}

// turn switches over. Should the power fail in the middle, the next opening of the
// mailbox finds another protocol than the position's, which is a switch as well.
func (in *Inbox) turn(ctx context.Context, m, next mailgrant.Mailbox, pos store.Position, r *mailgrant.Move) error {
	now := in.now().UTC()
	old := memoOf(pos, now)
	until := now.Add(backWithin)
	doc := memo{Began: old.Began, Switched: now, Before: &before{Protocol: pos.Protocol, Cursor: pos.Cursor, Receive: *m.Receive, Until: until}}
	if err := in.Store.UpdateMailbox(ctx, next); err != nil {
		return err
	}
	if err := in.place(ctx, m, pos, store.Position{Protocol: next.Receive.Protocol, Doc: doc.text()}); err != nil {
		return errors.Join(err, in.Store.UpdateMailbox(ctx, m))
	}
	r.Moved, r.BackUntil = true, &until
	return nil
}

// place puts the position of a mailbox somewhere else. Its reader may move on at
// the same moment; then it is done again from where that came to.
func (in *Inbox) place(ctx context.Context, m mailgrant.Mailbox, from, to store.Position) (err error) {
	fence, mine := in.Owner.Fence(m.ID)
	if !mine {
		fence = store.Fence{} // its owner finds the new position, and begins anew
	}
	for range placeTries {
		if err = in.Store.SetPosition(ctx, m.Org, m.ID, from, to, fence); !errors.Is(err, mailgrant.Conflict) {
			break
		}
		at, e := in.Store.Position(ctx, m.Org, m.ID)
		if e != nil {
			return e
		}
		from = at // even if it begins to be read the other way by itself
	}
	if err == nil {
		in.Changed(ctx, m.Org, m.ID)
	}
	return err
}

const placeTries = 20

// verify has all be read once the new way, and sees whether all of the list is taken
// then.
func (in *Inbox) verify(ctx context.Context, m mailgrant.Mailbox, r *mailgrant.Move, shown []listed) {
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		switch s := in.Status(m); {
		case s.State == mailgrant.ReaderElsewhere: // another node reads it: that it is whole is seen there
			return
		case s.State == mailgrant.ReaderHeld:
			r.Finding = s.Finding
			return
		case s.State == mailgrant.ReaderWaiting && s.Protocol == r.To:
			r.Verified = in.allTaken(ctx, m, shown)
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

const lookAgain = 50 * time.Millisecond

// Back takes a move back: the mailbox is read as it was before.
func (in *Inbox) Back(ctx context.Context, m mailgrant.Mailbox) (r mailgrant.Move, err error) {
	pos, err := in.Store.Position(ctx, m.Org, m.ID)
	if err != nil {
		return r, err
	}
	now := in.now().UTC()
	was := memoOf(pos, now)
	if was.Before == nil || now.After(was.Before.Until) {
		return r, mailgrant.Errorf(mailgrant.Conflict, nil, "%s was not moved within the last week", m.Address).
			Fix("move it the other way: mailgrant mailbox move %s --to PROTOCOL", m.Address)
	}
	r = mailgrant.Move{Mailbox: m.ID, Address: m.Address, From: pos.Protocol, To: was.Before.Protocol}
	next := m
	next.Receive = &was.Before.Receive
	if err := in.Store.UpdateMailbox(ctx, next); err != nil {
		return r, err
	}
	doc := memo{Began: was.Began, Switched: now}
	if err := in.place(ctx, m, pos, store.Position{Protocol: was.Before.Protocol, Cursor: was.Before.Cursor, Doc: doc.text()}); err != nil {
		return r, errors.Join(err, in.Store.UpdateMailbox(ctx, m))
	}
	r.Moved = true
	return r, nil
}

// allTaken says whether all of a list has been taken, by the names it was shown
// under.
func (in *Inbox) allTaken(ctx context.Context, m mailgrant.Mailbox, shown []listed) bool {
	names := make([]string, len(shown))
	for i, s := range shown {
		names[i] = s.remote
	}
	seen, err := in.Store.SeenRemotes(ctx, m.Org, m.ID, names)
	for _, n := range names {
		if err != nil || !seen[n] {
			return false
		}
	}
	return true
}

// A listed is a message that the other way shows.
type listed struct {
	remote string
	loose  []byte
	same   bool // it was taken before
}

// same are those of a list that were taken before, by their names and by what stays
// the same of them.
func same(shown []listed) (names []string, loose [][]byte) {
	for _, s := range shown {
		if s.same {
			names, loose = append(names, s.remote), append(loose, s.loose)
		}
	}
	return names, loose
}

// inventory lists what a mailbox shows when it is read as its settings say, and
// says of each message whether it has been taken.
func (in *Inbox) inventory(ctx context.Context, m mailgrant.Mailbox, pos store.Position) (shown []listed, err error) {
	way, err := in.Ways.Way(ctx, m)
	if err != nil {
		return nil, err
	}
	reader, _, err := Choose(way, in.Readers)
	if err != nil {
		return nil, err
	}
	s := &session{box: m}
	s.begin(store.Position{Doc: pos.Doc}, reader.Name, in.now())
	nothing := func(context.Context, []string) (map[string]bool, error) { return nil, nil }
	box, err := reader.Open(ctx, way, provider.Reading{Folders: m.Receive.Folders, Since: s.since, Max: in.MessageBytes, Known: nothing})
	if err != nil {
		return nil, err
	}
	defer box.Close()
	cursor := provider.Cursor("")
	for more := true; more; {
		page := len(shown)
		cursor, more, err = box.Next(ctx, cursor, func(i provider.Incoming) error {
			if !i.ReceivedAt.IsZero() && i.ReceivedAt.Before(s.since) {
				return nil
			}
			loose := []byte(i.Remote)
			if i.Body != nil {
				p, err := rfc5322.Read(i.Body)
				if err != nil {
					return err
				}
				if _, err := io.Copy(io.Discard, i.Body); err != nil {
					return err
				}
				loose = p.Loose[:]
			}
			shown = append(shown, listed{remote: i.Remote, loose: loose})
			return nil
		})
		if err == nil {
			err = in.compare(ctx, m, shown[page:])
		}
		if err != nil {
			return shown, err
		}
	}
	return shown, nil
}

// compare says which of a page have been taken.
func (in *Inbox) compare(ctx context.Context, m mailgrant.Mailbox, page []listed) error {
	loose := make([][]byte, len(page))
	for i, l := range page {
		loose[i] = l.loose
	}
	known, err := in.Store.SeenLoose(ctx, m.Org, m.ID, loose)
	for i := range page {
		page[i].same = known[string(page[i].loose)]
	}
	return err
}
