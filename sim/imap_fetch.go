package sim

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A fetchItem is one thing that FETCH is asked for.
type fetchItem struct {
	name    string // UID, FLAGS, BODY[…] …
	section string // inside the brackets
	body    bool   // with brackets
	peek    bool
	from, n int64 // of a partial fetch; n < 0 is all
}

var fetchMacros = map[string][]string{
	"ALL":  {"FLAGS", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE"},
	"FAST": {"FLAGS", "INTERNALDATE", "RFC822.SIZE"},
	"FULL": {"FLAGS", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE", "BODY"},
}

// fetchItems reads what is asked for.
func fetchItems(words []string) ([]fetchItem, bool) {
	if len(words) == 1 {
		if all, ok := fetchMacros[strings.ToUpper(words[0])]; ok {
			words = all
		}
	}
	var items []fetchItem
	for _, w := range words {
		it := fetchItem{name: strings.ToUpper(w), n: -1}
		open, end := strings.IndexByte(w, '['), strings.LastIndexByte(w, ']')
		switch {
		case open >= 0 && end > open:
			it.body, it.section = true, strings.ToUpper(w[open+1:end])
			it.name = strings.ToUpper(w[:open])
			it.peek = it.name == "BODY.PEEK"
			if it.name != "BODY" && !it.peek || !it.partial(w[end+1:]) {
				return nil, false
			}
		case slices.Contains([]string{"UID", "FLAGS", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE", "BODY", "BODYSTRUCTURE", "RFC822", "RFC822.HEADER", "RFC822.TEXT"}, it.name):
		default:
			return nil, false
		}
		items = append(items, it)
	}
	return items, len(items) > 0
}

// partial reads <from.count>.
func (it *fetchItem) partial(text string) bool {
	if text == "" {
		return true
	}
	text, ok := strings.CutSuffix(text, ">")
	from, n, dotted := strings.Cut(strings.TrimPrefix(text, "<"), ".")
	a, err := strconv.ParseUint(from, 10, 32)
	b, err2 := strconv.ParseUint(n, 10, 32)
	it.from, it.n = int64(a), int64(b)
	return ok && dotted && err == nil && err2 == nil && b > 0
}

func (s *imapSession) fetch(l *lexer) {
	set, ok := parseSet(l.word())
	items, known := fetchItems(l.list())
	if !ok || !known || !l.end() {
		s.mistake()
		return
	}
	if s.byUID && !slices.ContainsFunc(items, func(it fetchItem) bool { return it.name == "UID" }) {
		items = append([]fetchItem{{name: "UID", n: -1}}, items...)
	}
	if s.lie == "uid-unasked" {
		set = numberSet{{1, 0}}
	}
	for i, uid := range s.chosen(set) {
		if s.ending {
			return
		}
		s.fetchOne(i, uid, items)
	}
	s.ok("FETCH completed.")
}

// chosen goes over the messages of a set: sequence number and UID.
func (s *imapSession) chosen(set numberSet) func(func(int, uint32) bool) {
	uids := slices.Clone(s.sel.uids)
	return func(yield func(int, uint32) bool) {
		if len(uids) == 0 {
			return
		}
		last := uint32(len(uids))
		if s.byUID {
			last = uids[len(uids)-1]
		}
		for i, uid := range uids {
			n := uint32(i + 1)
			if s.byUID {
				n = uid
			}
			if set.has(n, last) && !yield(i+1, uid) {
				return
			}
		}
	}
}

// fetchOne tells of one message, if it is still there.
func (s *imapSession) fetchOne(seq int, uid uint32, items []fetchItem) {
	p := s.sim.mail
	reads := !s.sel.readOnly && slices.ContainsFunc(items, func(it fetchItem) bool {
		return it.body && !it.peek || it.name == "RFC822" || it.name == "RFC822.TEXT"
	})
	p.mu.Lock()
	found := s.sel.folder.find(uid)
	if found == nil {
		p.mu.Unlock()
		return
	}
	if reads && found.addFlags(FlagSeen) {
		p.tell(itChanged, found)
		items = append(items, fetchItem{name: "FLAGS", n: -1})
	}
	m := *found
	p.mu.Unlock()
	s.write("* " + strconv.Itoa(seq) + " FETCH (")
	for i, it := range items {
		if i > 0 {
			s.write(" ")
		}
		s.item(seq, m, it)
		if s.ending {
			return
		}
	}
	s.say(")")
}

func (s *imapSession) item(seq int, m Message, it fetchItem) {
	switch {
	case it.body:
		s.section(m, it)
	case it.name == "UID":
		s.write("UID " + s.uid(seq, m.UID))
	case it.name == "FLAGS":
		s.write("FLAGS (" + strings.Join(m.Flags, " ") + ")")
	case it.name == "INTERNALDATE":
		s.write(`INTERNALDATE "` + imapDate(m.At) + `"`)
	case it.name == "RFC822.SIZE":
		n := len(m.Raw)
		if s.lie == "size" {
			n *= 2
		}
		s.write("RFC822.SIZE " + strconv.Itoa(n))
	case it.name == "ENVELOPE":
		s.write("ENVELOPE " + envelope(m.Raw))
	case it.name == "BODYSTRUCTURE", it.name == "BODY":
		text := partOf(m.Raw).structure(it.name == "BODYSTRUCTURE")
		if s.lie == "structure" {
			text = strings.TrimSuffix(text, ")") + ` ("attachment filename="))`
		}
		s.write(it.name + " " + text)
	case it.name == "RFC822":
		s.literal("RFC822", m.Raw)
	case it.name == "RFC822.HEADER":
		s.literal("RFC822.HEADER", headOf(m.Raw))
	case it.name == "RFC822.TEXT":
		s.literal("RFC822.TEXT", m.Raw[len(headOf(m.Raw)):])
	}
}

// uid is the UID as it is told.
func (s *imapSession) uid(seq int, uid uint32) string {
	switch s.lie {
	case "uid-same":
		return utoa(s.sel.uids[0])
	case "uid-zero":
		return "0"
	case "uid-huge":
		return strconv.FormatUint(1<<32+uint64(uid), 10)
	case "uid-backwards":
		if n := len(s.sel.uids); seq <= n {
			return utoa(s.sel.uids[n-seq])
		}
	}
	return utoa(uid)
}

func (s *imapSession) section(m Message, it fetchItem) {
	label, data, ok := "BODY["+it.section+"]", []byte(nil), false
	if data, ok = partOf(m.Raw).section(it.section); !ok {
		s.write(label + " NIL")
		return
	}
	if it.n >= 0 {
		label += fmt.Sprintf("<%d>", it.from)
		data = data[min(it.from, int64(len(data))):]
		data = data[:min(it.n, int64(len(data)))]
	}
	s.literal(label, data)
}

func (s *imapSession) literal(label string, data []byte) {
	if s.huge > 0 {
		s.write(label + " {" + strconv.FormatInt(s.huge, 10) + "}\r\n")
		s.bytes(data)
		s.flush()
		s.conn.SetReadDeadline(time.Time{})
		io.Copy(io.Discard, s.in) // says no more, until the client has enough
		s.ending = true
		return
	}
	s.write(label + " {" + strconv.Itoa(len(data)) + "}\r\n")
	s.bytes(data)
}
