package imap

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"strings"

	"github.com/mailgrant/mailgrant"
)

// Done does what is to be done after reading. Messages of another UIDVALIDITY are
// no more there.
//
// A server without UIDPLUS can only expunge all that is marked as deleted, what
// others have marked as well. There we mark ours and leave them marked.
func (s *session) Done(ctx context.Context, remotes []string, what mailgrant.AfterRead, moveTo string) (err error) {
	if what == "" || what == mailgrant.AfterLeave || len(remotes) == 0 {
		return nil
	}
	defer s.during(ctx, "imap-"+string(what), &err)()
	if s.Conn == nil {
		return net.ErrClosed
	}
	target := ""
	if what == mailgrant.AfterMove {
		if target, err = s.target(moveTo); err != nil {
			return err
		}
	}
	for _, g := range groups(remotes) {
		if err := s.after(g, what, target); err != nil {
			return err
		}
	}
	return nil
}

// A group is messages of one folder, as it was then.
type group struct {
	remote // of the first
	uids   []uint32
}

func groups(remotes []string) []*group {
	var list []*group
	for _, name := range remotes {
		r, ok := readRemote(name)
		if !ok {
			continue // no name of ours: nothing there has it
		}
		i := slices.IndexFunc(list, func(g *group) bool {
			return g.folder == r.folder && g.validity == r.validity && g.epoch == r.epoch
		})
		if i < 0 {
			i, list = len(list), append(list, &group{remote: r})
		}
		list[i].uids = append(list[i].uids, r.uid)
	}
	for _, g := range list {
		slices.Sort(g.uids)
		g.uids = slices.Compact(g.uids)
	}
	return list
}

func (s *session) after(g *group, what mailgrant.AfterRead, target string) error {
	if at, known := s.places[g.folder]; known && (at.Validity != g.validity || at.Epoch != g.epoch) {
		return nil
	}
	open, err := s.enter(g.folder)
	if err != nil || !open || s.validity != g.validity {
		return err
	}
	if s.readOnly {
		return misset(fmt.Sprintf("the folder %q cannot be changed by us", g.folder), "give the mailbox's user the right to change it, or set what to do after reading to leave")
	}
	for part := range slices.Chunk(g.uids, 200) {
		set := uidSet(part)
		switch what {
		case mailgrant.AfterMark:
			_, err = s.run("UID STORE "+set+` +FLAGS.SILENT (\Seen)`, nil)
		case mailgrant.AfterMove:
			err = s.move(set, target)
		case mailgrant.AfterDelete:
			err = s.remove(set)
		default:
			err = misset(fmt.Sprintf("nobody knows what %q after reading is", what), "set it to leave, mark, move or delete")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// enter opens a folder by the name that people see. It says false where there
// is none any more.
func (s *session) enter(name string) (bool, error) {
	for _, t := range s.folders {
		if t.name == name {
			return true, s.choose(t)
		}
	}
	all, err := s.list()
	if err != nil {
		return false, err
	}
	i := slices.IndexFunc(all, func(f folder) bool { return f.name == name && !f.closed })
	if i < 0 {
		return false, nil
	}
	return true, s.selectFolder(all[i].wire, nil)
}

// remove deletes for good, as far as that touches nobody else's.
func (s *session) remove(set string) error {
	if _, err := s.run("UID STORE "+set+` +FLAGS.SILENT (\Deleted)`, nil); err != nil {
		return err
	}
	return s.expunge(set)
}

func (s *session) expunge(set string) error {
	if s.caps.uidplus {
		_, err := s.run("UID EXPUNGE "+set, nil)
		return err
	}
	if !s.told {
		s.told = true
		s.c.Log.Warn("the server cannot delete single messages (no UIDPLUS): they are marked as deleted and stay until somebody expunges the folder",
			"mailbox", s.Way.Mailbox.ID, "host", s.Host)
	}
	return nil
}

// move brings messages to another folder. Where that takes several commands, it
// copies only what is not marked yet: a second try makes no second copy.
func (s *session) move(set, target string) error {
	if target == s.selected {
		return nil
	}
	if s.caps.move {
		_, err := s.run("UID MOVE "+set+" "+quote(target), nil)
		return err
	}
	var left []uint32
	_, err := s.run("UID SEARCH UID "+set+" UNDELETED", func(r response) (err error) {
		if r.kind == "SEARCH" {
			left, err = readSearch(left, r.rest)
		}
		return err
	})
	if err != nil || len(left) == 0 {
		return err
	}
	slices.Sort(left)
	rest := uidSet(slices.Compact(left))
	if _, err := s.run("UID COPY "+rest+" "+quote(target), nil); err != nil {
		return err
	}
	return s.remove(rest)
}

// target is the folder to move to, which is made when it is missing.
func (s *session) target(name string) (string, error) {
	if strings.Trim(name, "/") == "" {
		return "", misset("no folder is set to move mail to", "set move_to on the mailbox")
	}
	all, err := s.list()
	if err != nil {
		return "", err
	}
	if f, ok := find(all, name); ok {
		if f.closed {
			return "", misset(fmt.Sprintf("the folder %q of the mailbox holds only other folders", name), "move to one of: "+names(all))
		}
		return f.wire, nil
	}
	made, err := s.wireName(all, name)
	if err != nil {
		return "", err
	}
	_, err = s.run("CREATE "+quote(made), nil)
	var no *refused
	if errors.As(err, &no) && no.r.code == "ALREADYEXISTS" {
		err = nil
	}
	return made, err
}

// wireName writes the name of a folder to be made, below what the server calls
// our own. RFC 2342.
func (s *session) wireName(all []folder, name string) (string, error) {
	delim, prefix := "", ""
	for _, f := range all {
		if f.delim != "" {
			delim = f.delim
			break
		}
	}
	if s.caps.namespace {
		_, err := s.run("NAMESPACE", func(r response) error {
			if r.kind == "NAMESPACE" {
				prefix, delim = readNamespace(r.rest, delim)
			}
			return nil
		})
		if no := (*refused)(nil); err != nil && !errors.As(err, &no) {
			return "", err
		}
	}
	levels := strings.Split(strings.Trim(name, "/"), "/")
	for i, part := range levels {
		if delim != "" && strings.Contains(part, delim) || delim == "" && len(levels) > 1 {
			return "", misset(fmt.Sprintf("the server makes no folder %q: its own mark between levels is %q", name, delim), "choose a name without it, or one of: "+names(all))
		}
		levels[i] = encodeName(part)
	}
	return prefix + strings.Join(levels, delim), nil
}

// readNamespace takes the first personal one of a NAMESPACE.
func readNamespace(b []byte, usual string) (prefix, delim string) {
	s := scanner{b: b}
	s.expect('(')
	s.space()
	s.expect('(')
	prefix, _ = s.str()
	s.space()
	d, known := s.str()
	if s.err != nil || strings.ContainsAny(prefix, "\r\n\x00") || len(prefix) > math.MaxUint8 {
		return "", usual
	}
	if known {
		usual = d
	}
	return prefix, usual
}
