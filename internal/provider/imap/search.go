package imap

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"
)

// A server names all messages of a search in one line, each in eleven bytes at
// most: so many that the line stays below lineMax.
const (
	searchMax = 95_000
	spanMax   = 80_000
)

// leap is how far above the next UID that the server told a message may lie
// before it is asked again.
const leap = 1 << 16

// A tracked is a folder that is read, for as long as the session lasts.
type tracked struct {
	name, wire string
	due        bool     // something may be there that has not been looked for
	fresh      bool     // the server told validity and uidnext since they were looked at
	validity   uint32   // as the server told last
	uidnext    uint32   // likewise; 0 when it does not tell
	pending    []uint32 // UIDs to be read, ascending
	odd        []uint32 // likewise, but their numbers do not move the cursor
	counted    uint32   // messages that were there when it was looked for new ones last
	hasCount   bool     // it was
	retry      uint32   // the UID that was refused once
}

// opened notes what a SELECT said.
func (t *tracked) opened(validity, uidnext, exists uint32) {
	t.due = t.due || !t.hasCount || validity != t.validity || uidnext == 0 || uidnext != t.uidnext || exists != t.counted
	t.validity, t.uidnext, t.fresh = validity, uidnext, true
}

// forget lets all be looked for again.
func (t *tracked) forget() {
	t.due, t.hasCount, t.pending, t.odd = true, false, nil, nil
}

// settle says where reading goes on in the selected folder. Another UIDVALIDITY
// is another folder; a UIDNEXT that went back says that UIDs come again, whatever
// UIDVALIDITY says. Both are read from the beginning. IM-07.
func (s *session) settle(t *tracked) {
	at, known := s.places[t.name]
	switch {
	case !known || at.Validity != t.validity:
		at = place{Validity: t.validity, Next: 1}
	case t.fresh && t.uidnext != 0 && uint64(t.uidnext) < at.Next:
		s.c.Log.Warn("UIDNEXT of a folder went back: it is read again from its beginning", "mailbox", s.Way.Mailbox.ID, "folder", t.name, "uidnext", t.uidnext, "read_up_to", at.Next)
		at = place{Validity: t.validity, Epoch: at.Epoch + 1, Next: 1}
	default:
		t.fresh = false
		return
	}
	t.fresh = false
	t.forget()
	s.places[t.name] = at
}

// search looks for what came after the cursor. A folder with too many messages
// for one answer is looked at in spans; it stays due until the last.
func (s *session) search(ctx context.Context, t *tracked) error {
	at := s.places[t.name]
	t.due = false
	grown := uint32(0)
	if t.hasCount && s.exists > t.counted {
		grown = s.exists - t.counted
	}
	t.counted, t.hasCount = s.exists, true
	if s.exists == 0 || at.Next > math.MaxUint32 {
		return nil
	}
	last, all := "*", true
	end := at.Next + spanMax
	if s.exists > spanMax && uint64(t.uidnext) > end {
		last, all = fmt.Sprint(end-1), false
		t.due = true
	}
	uids, err := s.find(fmt.Sprintf("%d:%s", at.Next, last), grown == 0 || at.Next == 1)
	if err != nil {
		return err
	}
	for len(uids) > 0 && uint64(uids[0]) < at.Next { // "*" is the last message, however low
		uids = uids[1:]
	}
	if !all {
		for len(uids) > 0 && uint64(uids[len(uids)-1]) >= end {
			uids = uids[:len(uids)-1]
		}
		if t.pending = uids; len(uids) == 0 {
			at.Next, at.Tries = end, 0
			s.places[t.name] = at
		}
		return nil
	}
	t.pending = uids
	if err := s.mistrust(ctx, t); err != nil {
		return err
	}
	if at.Next > 1 && uint32(len(uids)) < grown { // more came than the cursor can see
		return s.sweep(ctx, t, at)
	}
	return nil
}

// find searches a range of UIDs and gives them in order, each once.
func (s *session) find(span string, since bool) (uids []uint32, err error) {
	command := "UID SEARCH UID " + span
	if since && !s.reading.Since.IsZero() {
		// The server's day may be another than ours; the exact time is compared
		// when it is known.
		command += " SINCE " + s.reading.Since.Add(-24*time.Hour).UTC().Format("2-Jan-2006")
	}
	_, err = s.run(command, func(r response) (err error) {
		if r.kind == "SEARCH" {
			uids, err = readSearch(uids, r.rest)
		}
		return err
	})
	slices.Sort(uids)
	return slices.Compact(uids), err
}

// mistrust sets apart what lies far above the next UID that the server told, and
// above it still when it is asked again: such a number must not move the cursor,
// or all that comes after would be skipped.
func (s *session) mistrust(ctx context.Context, t *tracked) error {
	n := len(t.pending)
	if t.uidnext == 0 || n == 0 || uint64(t.pending[n-1]) < uint64(t.uidnext)+leap {
		return nil
	}
	validity := t.validity
	if err := s.selectFolder(t.wire, t); err != nil {
		return err
	}
	if t.validity != validity || t.uidnext == 0 {
		return nil // settle and search say more
	}
	i, _ := slices.BinarySearch(t.pending, t.uidnext)
	odd := t.pending[i:]
	t.pending, t.fresh, t.due = t.pending[:i:i], false, false
	return s.addUnknown(ctx, t, s.places[t.name], odd)
}

// sweep looks for new messages below the cursor, which only a server that does
// not keep UIDs in order can have.
func (s *session) sweep(ctx context.Context, t *tracked, at place) error {
	if s.exists > spanMax || s.reading.Known == nil {
		return nil
	}
	uids, err := s.find(fmt.Sprintf("1:%d", at.Next-1), true)
	if err != nil {
		return err
	}
	return s.addUnknown(ctx, t, at, uids)
}

// addUnknown adds those of uids that have not been taken before.
func (s *session) addUnknown(ctx context.Context, t *tracked, at place, uids []uint32) error {
	if s.reading.Known == nil {
		return nil
	}
	for part := range slices.Chunk(uids, 500) {
		names := make([]string, len(part))
		for i, uid := range part {
			names[i] = at.remote(t.name, uid)
		}
		known, err := s.reading.Known(ctx, names)
		if err != nil {
			return &takeError{err}
		}
		for i, uid := range part {
			if !known[names[i]] {
				t.odd = append(t.odd, uid)
			}
		}
	}
	return nil
}
