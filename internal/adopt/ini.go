package adopt

import (
	"strings"

	"github.com/mailgrant/mailgrant"
)

// The grammar of Python's configparser, which email-oauth2-proxy and getmail use:
// sections, keys in any case before = or :, values that go on in lines that are
// indented deeper, comments on lines of their own, and a section [DEFAULT] whose
// keys every other section has too.

// An ini is such a file.
type ini struct {
	sections []*section
	defaults *section

	byName map[string]*section
}

type section struct {
	name    string
	line    int
	entries []entry

	at map[string]int // in entries, by key
}

type entry struct {
	key, value string
	line       int
	inherited  bool

	lines []string // of the value, until all is read
}

// dialect is what differs from program to program.
type dialect struct {
	hash      bool // " #" begins a comment within a line
	semicolon bool // " ;" does
}

// ini reads lines. What is not understood is noted; a section or a key that is there
// twice counts as what came last, as it did before Python 3.
func (r *reading) ini(lines []string, d dialect) (*ini, error) {
	f := &ini{byName: map[string]*section{}}
	var now *section
	var last *entry // whose value may go on
	indent := 0
	for i, line := range lines {
		n, text := i+1, strings.TrimSpace(line)
		if text == "" || text[0] == '#' || text[0] == ';' {
			continue // within a value too
		}
		deep := len(line) - len(strings.TrimLeft(line, " \t"))
		if last != nil && deep > indent {
			last.lines = append(last.lines, d.strip(text))
			continue
		}
		indent = deep
		if name, ok := header(text); ok {
			now, last = f.section(r, name, n), nil
			continue
		}
		at := strings.IndexAny(text, "=:")
		switch {
		case now == nil:
			r.strange(n, "no-section", "the line stands before the first section")
		case at < 1:
			r.strange(n, "no-setting", "the line is neither a section nor a setting")
			last = nil
		default:
			key := strings.ToLower(strings.TrimSpace(text[:at]))
			last = now.put(r, entry{key: key, lines: []string{d.strip(strings.TrimSpace(text[at+1:]))}, line: n})
		}
	}
	for _, s := range f.sections {
		s.join()
	}
	if f.defaults != nil {
		f.defaults.join()
	}
	if len(f.sections) > sectionsMax || f.defaults != nil && len(f.defaults.entries) > defaultsMax {
		return nil, mailgrant.Errorf(mailgrant.Invalid, nil, "the file has more than %d sections, or more than %d settings for all of them", sectionsMax, defaultsMax).
			Fix("take it apart, and import the parts one by one")
	}
	return f, nil
}

// Bounds of a file whose sections all have the settings of [DEFAULT].
const (
	sectionsMax = 2000
	defaultsMax = 200
)

func (s *section) join() {
	for i := range s.entries {
		e := &s.entries[i]
		e.value, e.lines = strings.Trim(strings.Join(e.lines, "\n"), "\n"), nil
	}
}

func header(text string) (string, bool) {
	if text[0] != '[' {
		return "", false
	}
	name, _, ok := strings.Cut(text[1:], "]")
	return strings.TrimSpace(name), ok && name != ""
}

// strip takes a comment off the end of a value.
func (d dialect) strip(value string) string {
	for i := 1; i < len(value); i++ {
		if (value[i] == ';' && d.semicolon || value[i] == '#' && d.hash) && (value[i-1] == ' ' || value[i-1] == '\t') {
			return strings.TrimSpace(value[:i])
		}
	}
	return value
}

func (f *ini) section(r *reading, name string, line int) *section {
	if s := f.byName[name]; s != nil {
		if s != f.defaults {
			r.strange(line, "twice", "the section of line %d is here again; both are read as one", s.line)
		}
		return s
	}
	s := &section{name: name, line: line, at: map[string]int{}}
	f.byName[name] = s
	if name == "DEFAULT" {
		f.defaults = s
		return s
	}
	f.sections = append(f.sections, s)
	return s
}

func (s *section) put(r *reading, e entry) *entry {
	if i, ok := s.at[e.key]; ok {
		r.strange(e.line, "twice", "%s of line %d is here again; the last one counts", named(e.key), s.entries[i].line)
		s.entries[i] = e
		return &s.entries[i]
	}
	s.at[e.key] = len(s.entries)
	s.entries = append(s.entries, e)
	return &s.entries[len(s.entries)-1]
}

// each are the entries of a section, which is about to look at them.
func (r *reading) each(s *section) []entry {
	for _, e := range s.entries {
		if e.inherited {
			r.met[e.line]++
		}
	}
	return s.entries
}

// strangers notes the entries of [DEFAULT] that no section knew, and no value named.
func (r *reading) strangers(f *ini, p *interpolation) {
	if f.defaults == nil {
		return
	}
	for _, e := range f.defaults.entries {
		if r.met[e.line] == r.missed[e.line] && (p == nil || !p.used[e.key]) {
			r.unknown(e.line, e.key, "DEFAULT")
		}
	}
}

// all is a section with what it does not set itself from [DEFAULT].
func (f *ini) all(s *section) *section {
	if f.defaults == nil {
		return s
	}
	all := &section{name: s.name, line: s.line, at: map[string]int{}}
	for _, e := range s.entries {
		all.at[e.key] = len(all.entries)
		all.entries = append(all.entries, e)
	}
	for _, e := range f.defaults.entries {
		if _, own := all.at[e.key]; !own {
			e.inherited = true
			all.at[e.key] = len(all.entries)
			all.entries = append(all.entries, e)
		}
	}
	return all
}

func (s *section) get(key string) (entry, bool) {
	i, ok := s.at[key]
	if !ok {
		return entry{}, false
	}
	return s.entries[i], true
}

func (s *section) value(key string) string {
	e, _ := s.get(key)
	return e.value
}

// Bounds of what references may make of a file: Python's own depth is 10, the
// others keep a small file from becoming a long wait.
const (
	interpolateDepth = 10
	interpolateMost  = 10_000
	interpolateBytes = 64 << 10
)

// An interpolation replaces %(name)s by the value of that name, and %% by %.
type interpolation struct {
	r    *reading
	left int
	used map[string]bool // the names that values refer to
}

// in is a section with its values replaced. What cannot be is noted, and empty.
func (p *interpolation) in(s *section) *section {
	out := *s
	out.entries = append([]entry(nil), s.entries...)
	for i := range out.entries {
		e := &out.entries[i]
		v, ok := p.value(s, e.value, 0)
		if !ok {
			p.r.strange(e.line, "interpolation", "%s refers to what is not there, or has a single %%", named(e.key))
		}
		e.value = v
	}
	return &out
}

func (p *interpolation) value(s *section, text string, depth int) (string, bool) {
	if depth > interpolateDepth {
		return "", false
	}
	var b strings.Builder
	for {
		plain, rest, more := strings.Cut(text, "%")
		b.WriteString(plain)
		switch {
		case !more:
			return b.String(), true
		case strings.HasPrefix(rest, "%"):
			b.WriteByte('%')
			text = rest[1:]
			continue
		case !strings.HasPrefix(rest, "("):
			return "", false
		}
		name, after, ok := strings.Cut(rest[1:], ")s")
		name = strings.ToLower(name)
		e, there := s.get(name)
		if p.left -= 1 + len(e.value)>>10; !ok || !there || p.left < 0 {
			return "", false
		}
		p.used[name] = true
		inner, ok := p.value(s, e.value, depth+1)
		if !ok || b.Len()+len(inner) > interpolateBytes {
			return "", false
		}
		b.WriteString(inner)
		text = after
	}
}
