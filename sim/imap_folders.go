package sim

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

const imapFlags = `\Seen \Answered \Flagged \Deleted \Draft $MDNSent`

// mailbox is the session's, with the store locked.
func (s *imapSession) mailbox() *box { return s.sim.mail.box(s.who.mailbox.Address) }

// shown is the name of a folder as IMAP has it: the inbox is INBOX.
func (f *folder) shown() string {
	inbox := f.box.byUse("inbox").name
	if rest, ok := strings.CutPrefix(f.name, inbox); ok && (rest == "" || rest[0] == '/') {
		return "INBOX" + rest
	}
	return f.name
}

const imapPattern = 16 << 10 // the most that LIST compares names with

// list answers LIST and LSUB.
func (s *imapSession) list(l *lexer) {
	reference, pattern := fromUTF7(l.word()), fromUTF7(l.word())
	if !l.end() || len(reference)+len(pattern) > imapPattern {
		s.mistake()
		return
	}
	if pattern == "" {
		s.say("* ", s.verb, ` (\Noselect) "/" ""`)
		s.ok(s.verb + " completed.")
		return
	}
	p := s.sim.mail
	p.mu.Lock()
	b := s.mailbox()
	all := slices.Clone(b.folders)
	slices.SortStableFunc(all, func(a, b *folder) int { return cmp.Compare(a.shown(), b.shown()) })
	var lines []string
	for _, f := range all {
		if !matchList(reference+pattern, f.shown()) {
			continue
		}
		attrs := `\HasNoChildren`
		if len(b.below(f)) > 0 {
			attrs = `\HasChildren`
		}
		for _, std := range standard {
			if std.use == f.use && std.attr != "" && !s.knobs().IMAPNoSpecialUse {
				attrs += " " + std.attr
			}
		}
		name := folderName(f.shown())
		if s.lie == "unquoted" {
			name = toUTF7(f.shown())
		}
		lines = append(lines, fmt.Sprintf(`* %s (%s) "/" %s`, s.verb, attrs, name))
	}
	p.mu.Unlock()
	for _, line := range lines {
		s.say(line)
	}
	s.ok(s.verb + " completed.")
}

// matchList says whether a name fits a pattern: * is anything, % anything on
// one level. It goes over the pattern once, with all places of the name that
// may be reached so far.
func matchList(pattern, name string) bool {
	if strings.EqualFold(pattern, name) && strings.EqualFold(name, "INBOX") {
		return true
	}
	at := make([]bool, len(name)+1)
	at[0] = true
	for i := range len(pattern) {
		c := pattern[i]
		if c == '*' || c == '%' {
			for j := range len(name) {
				at[j+1] = at[j+1] || at[j] && (c == '*' || name[j] != '/')
			}
			continue
		}
		for j := len(name); j > 0; j-- {
			at[j] = at[j-1] && name[j-1] == c
		}
		at[0] = false
	}
	return at[len(name)]
}

// folderCalled finds a folder by the name that a client says, with the store
// locked.
func (s *imapSession) folderCalled(name string) *folder {
	return s.mailbox().folder(fromUTF7(strings.TrimSuffix(name, "/")))
}

// absent answers for a folder that is not there.
func (s *imapSession) absent(name string) {
	s.no(name + " doesn't exist.")
}

func (s *imapSession) status(l *lexer) {
	name, items := l.word(), l.list()
	if !l.end() {
		s.mistake()
		return
	}
	p := s.sim.mail
	p.mu.Lock()
	f := s.folderCalled(name)
	if f == nil {
		p.mu.Unlock()
		s.absent(name)
		return
	}
	i, shown := f.info(), f.shown()
	p.mu.Unlock()
	var out []string
	for _, item := range items {
		n, item := 0, strings.ToUpper(item)
		switch item {
		case "MESSAGES":
			n = i.Count
		case "RECENT":
		case "UIDNEXT":
			n = int(i.UIDNext)
		case "UIDVALIDITY":
			n = int(i.UIDValidity)
		case "UNSEEN":
			n = i.Unread
		default:
			s.mistake()
			return
		}
		out = append(out, item+" "+strconv.Itoa(n))
	}
	s.say("* STATUS ", folderName(shown), " (", strings.Join(out, " "), ") ")
	s.ok("STATUS completed.")
}

// selectFolder answers SELECT and EXAMINE.
func (s *imapSession) selectFolder(l *lexer) {
	name := l.word()
	if !l.end() || name == "" {
		s.mistake()
		return
	}
	s.unselect()
	p := s.sim.mail
	p.mu.Lock()
	f := s.folderCalled(name)
	if f == nil {
		p.mu.Unlock()
		s.absent(name)
		return
	}
	sel := &selected{folder: f, readOnly: s.verb == "EXAMINE", mod: f.box.mod}
	unseen := 0
	if len(f.list) > 0 {
		sel.uids = make([]uint32, len(f.list))
	}
	for i, m := range f.list {
		sel.uids[i] = m.UID
		if unseen == 0 && !m.has(FlagSeen) {
			unseen = i + 1
		}
	}
	validity, next := f.validity, f.next
	f.box.listen(s, f)
	p.mu.Unlock()
	s.sel = sel
	exists := len(sel.uids)
	switch s.lie {
	case "uidvalidity":
		validity += uint32(s.sim.counts.add("imap.lies")) * 1000
	case "uidnext":
		next = 1
	case "exists":
		exists = 1e6
	}
	s.say("* ", strconv.Itoa(exists), " EXISTS")
	s.say("* 0 RECENT")
	s.say("* FLAGS (", imapFlags, ")")
	if sel.readOnly {
		s.say("* OK [PERMANENTFLAGS ()] Permanent flags")
	} else {
		s.say("* OK [PERMANENTFLAGS (", imapFlags, ")] Permanent flags")
	}
	if unseen > 0 {
		s.say("* OK [UNSEEN ", strconv.Itoa(unseen), "] Is the first unseen message")
	}
	s.say("* OK [UIDVALIDITY ", utoa(validity), "] UIDVALIDITY value")
	s.say("* OK [UIDNEXT ", utoa(next), "] The next unique identifier value")
	code := "[READ-WRITE]"
	if sel.readOnly {
		code = "[READ-ONLY]"
	}
	s.say(s.tag, " OK ", code, " ", s.verb, " completed.")
}

func utoa(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

// unselect forgets the folder that is open.
func (s *imapSession) unselect() {
	if s.sel == nil {
		return
	}
	p := s.sim.mail
	p.mu.Lock()
	delete(s.sel.folder.box.ears, s)
	p.mu.Unlock()
	s.sel = nil
}

func (s *imapSession) unselectFolder(*lexer) {
	s.unselect()
	s.ok("UNSELECT completed")
}

// closeFolder is UNSELECT that takes away what is marked as deleted.
func (s *imapSession) closeFolder(*lexer) {
	if !s.sel.readOnly {
		p := s.sim.mail
		p.mu.Lock()
		for _, m := range s.deleted(nil) {
			p.drop(m)
		}
		p.mu.Unlock()
	}
	s.unselect()
	s.ok("CLOSE completed.")
}

func (s *imapSession) create(l *lexer) {
	name := l.word()
	if !l.end() || name == "" {
		s.mistake()
		return
	}
	p := s.sim.mail
	p.mu.Lock()
	there := s.folderCalled(name) != nil
	made := !there && p.makeFolder(s.mailbox(), fromUTF7(name)) != nil
	p.mu.Unlock()
	switch {
	case there:
		s.no("CREATE failed. Folder already exists.")
	case !made:
		s.no("CREATE failed. The folder name is not valid.")
	default:
		s.ok("CREATE completed.")
	}
}

func (s *imapSession) deleteFolder(l *lexer) {
	name := l.word()
	if !l.end() {
		s.mistake()
		return
	}
	p := s.sim.mail
	p.mu.Lock()
	f := s.folderCalled(name)
	if f == nil {
		p.mu.Unlock()
		s.absent(name)
		return
	}
	err := p.removeFolder(f)
	p.mu.Unlock()
	if err != nil {
		s.no("DELETE failed. " + err.Error())
		return
	}
	s.ok("DELETE completed.")
}

// subscribe is taken, and everything stays subscribed.
func (s *imapSession) subscribe(*lexer) { s.ok(s.verb + " completed.") }

// news tells of what changed in the open folder since it was told last.
func (s *imapSession) news() {
	p, sel := s.sim.mail, s.sel
	p.mu.Lock()
	f := sel.folder
	if f.gone || sel.mod < f.lost {
		p.mu.Unlock()
		s.reply(imapClosed)
		return
	}
	var lines []string
	had := len(sel.uids)
	told := map[uint32]bool{}
	changes := f.since(sel.mod)
	for _, c := range changes {
		if i, known := slices.BinarySearch(sel.uids, c.uid); known && c.gone {
			sel.uids = slices.Delete(sel.uids, i, i+1)
			lines = append(lines, fmt.Sprintf("* %d EXPUNGE", i+1))
			had--
		}
	}
	for _, c := range changes {
		m := f.find(c.uid)
		if c.gone || m == nil || told[c.uid] {
			continue
		}
		told[c.uid] = true
		i, known := slices.BinarySearch(sel.uids, c.uid)
		if !known {
			sel.uids = slices.Insert(sel.uids, i, c.uid)
			continue
		}
		if i < had {
			lines = append(lines, fmt.Sprintf("* %d FETCH (FLAGS (%s))", i+1, strings.Join(m.Flags, " ")))
		}
	}
	if len(sel.uids) != had {
		lines = append(lines, fmt.Sprintf("* %d EXISTS", len(sel.uids)))
	}
	sel.mod = f.box.mod
	p.mu.Unlock()
	for _, line := range lines {
		s.say(line)
	}
}
