package sim

import (
	"bytes"
	"strconv"
	"strings"
	"time"
)

// A searchKey says whether a message is looked for.
type searchKey func(m *Message, seq uint32) bool

// search answers SEARCH and UID SEARCH.
func (s *imapSession) search(l *lexer) {
	var keys []searchKey
	for {
		key, ok := s.searchKey(l, 0)
		if !ok {
			s.mistake()
			return
		}
		if key == nil {
			break
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		s.mistake()
		return
	}
	p := s.sim.mail
	var found strings.Builder
	p.mu.Lock()
	for i, uid := range s.sel.uids {
		m := s.sel.folder.find(uid)
		if m == nil || !allOf(keys)(m, uint32(i+1)) {
			continue
		}
		n := uint32(i + 1)
		if s.byUID {
			n = uid
		}
		found.WriteString(" " + utoa(n))
	}
	p.mu.Unlock()
	s.say("* SEARCH", found.String())
	s.ok("SEARCH completed.")
}

func allOf(keys []searchKey) searchKey {
	return func(m *Message, seq uint32) bool {
		for _, k := range keys {
			if !k(m, seq) {
				return false
			}
		}
		return true
	}
}

const searchDepth = 64

// searchKey reads one key; nil at the end.
func (s *imapSession) searchKey(l *lexer, depth int) (searchKey, bool) {
	if depth > searchDepth {
		return nil, false
	}
	kind, word := l.token()
	switch kind {
	case tokenEnd:
		return nil, true
	case '(':
		var keys []searchKey
		for !strings.HasPrefix(strings.TrimLeft(l.text, " "), ")") {
			key, ok := s.searchKey(l, depth+1)
			if !ok || key == nil {
				return nil, false
			}
			keys = append(keys, key)
		}
		l.token()
		return allOf(keys), len(keys) > 0
	case tokenAtom:
	default:
		return nil, false
	}
	word = strings.ToUpper(word)
	flagged := func(flag string, want bool) (searchKey, bool) {
		return func(m *Message, _ uint32) bool { return m.has(flag) == want }, true
	}
	switch word {
	case "ALL", "OLD":
		return func(*Message, uint32) bool { return true }, true
	case "NEW", "RECENT":
		return func(*Message, uint32) bool { return false }, true
	case "SEEN", "ANSWERED", "FLAGGED", "DELETED", "DRAFT":
		return flagged(`\`+word, true)
	case "UNSEEN", "UNANSWERED", "UNFLAGGED", "UNDELETED", "UNDRAFT":
		return flagged(`\`+word[2:], false)
	case "CHARSET":
		l.word()
		return s.searchKey(l, depth+1)
	case "KEYWORD":
		return flagged(l.word(), true)
	case "UNKEYWORD":
		return flagged(l.word(), false)
	case "NOT":
		key, ok := s.searchKey(l, depth+1)
		return func(m *Message, n uint32) bool { return !key(m, n) }, ok && key != nil
	case "OR":
		a, ok := s.searchKey(l, depth+1)
		b, ok2 := s.searchKey(l, depth+1)
		return func(m *Message, n uint32) bool { return a(m, n) || b(m, n) }, ok && ok2 && a != nil && b != nil
	case "UID":
		set, ok := parseSet(l.word())
		return s.inSet(set, true), ok
	case "SINCE", "BEFORE", "ON":
		return searchDay(word, l.word(), func(m *Message) time.Time { return m.At.UTC() })
	case "SENTSINCE", "SENTBEFORE", "SENTON":
		return searchDay(word[4:], l.word(), func(m *Message) time.Time {
			at, _ := headerOf(m.Raw).Date()
			return at
		})
	case "LARGER", "SMALLER":
		n, err := strconv.Atoi(l.word())
		return func(m *Message, _ uint32) bool {
			return word == "LARGER" && len(m.Raw) > n || word == "SMALLER" && len(m.Raw) < n
		}, err == nil
	case "HEADER":
		return searchField(l.word(), l.word())
	case "FROM", "TO", "CC", "BCC", "SUBJECT":
		return searchField(word, l.word())
	case "BODY", "TEXT":
		want := bytes.ToLower([]byte(l.word()))
		return func(m *Message, _ uint32) bool { return bytes.Contains(bytes.ToLower(m.Raw), want) }, true
	}
	set, ok := parseSet(word)
	return s.inSet(set, false), ok
}

func (s *imapSession) inSet(set numberSet, byUID bool) searchKey {
	return func(m *Message, seq uint32) bool {
		last := uint32(len(s.sel.uids))
		if byUID {
			return set.has(m.UID, s.sel.uids[last-1])
		}
		return set.has(seq, last)
	}
}

// searchDay compares days, without the time.
func searchDay(word, text string, at func(*Message) time.Time) (searchKey, bool) {
	day, err := time.Parse("_2-Jan-2006", text)
	return func(m *Message, _ uint32) bool {
		d := at(m).Truncate(24 * time.Hour)
		switch word {
		case "SINCE":
			return !d.Before(day)
		case "BEFORE":
			return d.Before(day)
		}
		return d.Equal(day)
	}, err == nil
}

// searchField looks for a text in a header field; "" finds every such field.
func searchField(name, text string) (searchKey, bool) {
	text = strings.ToLower(text)
	return func(m *Message, _ uint32) bool {
		head, _ := splitMessage(m.Raw)
		for _, f := range fieldsOf(head) {
			n, value, _ := strings.Cut(string(f), ":")
			if strings.EqualFold(strings.TrimSpace(n), name) && strings.Contains(strings.ToLower(decodeWords(strings.TrimSpace(value))), text) {
				return true
			}
		}
		return false
	}, name != ""
}
