package sim

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// store sets, adds or takes away flags.
func (s *imapSession) store(l *lexer) {
	set, ok := parseSet(l.word())
	what, silent := strings.CutSuffix(strings.ToUpper(l.word()), ".SILENT")
	flags := l.list()
	if !ok || !l.end() || !slices.Contains([]string{"FLAGS", "+FLAGS", "-FLAGS"}, what) {
		s.mistake()
		return
	}
	if s.sel.readOnly {
		s.no("STORE failed. The folder is open for reading only.")
		return
	}
	if s.byUID {
		s.news()
	}
	p := s.sim.mail
	for seq, uid := range s.chosen(set) {
		p.mu.Lock()
		m := s.sel.folder.find(uid)
		if m == nil {
			p.mu.Unlock()
			continue
		}
		var changed bool
		switch what {
		case "FLAGS":
			changed = m.setFlags(flags)
		case "+FLAGS":
			changed = m.addFlags(flags...)
		default:
			changed = m.dropFlags(flags...)
		}
		if changed {
			p.tell(itChanged, m)
			if s.sel.mod+1 == m.mod {
				s.sel.mod = m.mod // its own change is no news
			}
		}
		now := strings.Join(m.Flags, " ")
		p.mu.Unlock()
		switch {
		case silent:
		case s.byUID:
			s.say(fmt.Sprintf("* %d FETCH (UID %d FLAGS (%s))", seq, uid, now))
		default:
			s.say(fmt.Sprintf("* %d FETCH (FLAGS (%s))", seq, now))
		}
	}
	s.ok("STORE completed.")
}

// copy is COPY and MOVE.
func (s *imapSession) copy(l *lexer) {
	set, ok := parseSet(l.word())
	name := l.word()
	if !ok || !l.end() || name == "" {
		s.mistake()
		return
	}
	p := s.sim.mail
	p.mu.Lock()
	to := s.folderCalled(name)
	if to == nil {
		p.mu.Unlock()
		s.no("[TRYCREATE] " + name + " doesn't exist.")
		return
	}
	var from, into []uint32
	for _, uid := range s.chosen(set) {
		m := s.sel.folder.find(uid)
		if m == nil {
			continue
		}
		from = append(from, uid)
		if s.verb == "MOVE" {
			p.move(m, to)
		} else {
			twin := *m
			twin.ID, twin.ImmutableID, twin.draft = "", "", nil
			m = p.file(to, twin)
		}
		into = append(into, m.UID)
	}
	validity := to.validity
	p.mu.Unlock()
	code := ""
	if s.can("UIDPLUS") && len(from) > 0 {
		code = fmt.Sprintf("[COPYUID %d %s %s] ", validity, uidList(from), uidList(into))
	}
	if s.lie == "copyuid" {
		code = fmt.Sprintf("[COPYUID %d  ] ", validity)
	}
	if s.verb == "MOVE" && code != "" {
		s.say("* OK ", code)
		code = ""
	}
	s.ok(code + s.verb + " completed.")
}

func uidList(uids []uint32) string {
	var parts []string
	for i := 0; i < len(uids); {
		j := i
		for j+1 < len(uids) && uids[j+1] == uids[j]+1 {
			j++
		}
		part := utoa(uids[i])
		if j > i {
			part += ":" + utoa(uids[j])
		}
		parts = append(parts, part)
		i = j + 1
	}
	return strings.Join(parts, ",")
}

// deleted lists the messages of the open folder that are marked so, with the
// store locked. A set limits them.
func (s *imapSession) deleted(set numberSet) []*Message {
	var list []*Message
	last := uint32(0)
	if n := len(s.sel.uids); n > 0 {
		last = s.sel.uids[n-1]
	}
	for _, m := range s.sel.folder.list {
		if m.has(FlagDeleted) && (set == nil || set.has(m.UID, last)) {
			list = append(list, m)
		}
	}
	return list
}

// expunge is EXPUNGE, and with a set UID EXPUNGE (RFC 4315).
func (s *imapSession) expunge(l *lexer) {
	var set numberSet
	ok := true
	if s.byUID {
		set, ok = parseSet(l.word())
		ok = ok && s.can("UIDPLUS")
	}
	if !ok || !l.end() {
		s.mistake()
		return
	}
	if s.sel.readOnly {
		s.no("EXPUNGE failed. The folder is open for reading only.")
		return
	}
	p := s.sim.mail
	p.mu.Lock()
	for _, m := range s.deleted(set) {
		p.drop(m)
	}
	p.mu.Unlock()
	s.ok("EXPUNGE completed.")
}

// append files a message that the client brings.
func (s *imapSession) append(l *lexer) {
	name, m := l.word(), Message{At: s.sim.Now(), Via: "imap"}
	if l.atList() {
		m.Flags = l.list()
	}
	kind, text := l.token()
	if at, err := time.Parse("_2-Jan-2006 15:04:05 -0700", text); kind == tokenString && err == nil {
		m.At = at
		kind, text = l.token()
	}
	if kind != tokenString || !l.end() {
		s.mistake()
		return
	}
	head := headerOf([]byte(text))
	full := messageOf(head, "", addressesIn(head, "To", "Cc", "Bcc"))
	m.From, m.To, m.Subject, m.MessageID, m.Raw = full.From, full.To, full.Subject, full.MessageID, []byte(text)
	p := s.sim.mail
	p.mu.Lock()
	f := s.folderCalled(name)
	if f == nil {
		p.mu.Unlock()
		s.no("[TRYCREATE] " + name + " doesn't exist.")
		return
	}
	made := *p.file(f, m)
	validity := f.validity
	p.mu.Unlock()
	code := ""
	if s.can("UIDPLUS") {
		code = "[APPENDUID " + utoa(validity) + " " + strconv.Itoa(int(made.UID)) + "] "
	}
	s.ok(code + "APPEND completed.")
}
