package diagnose

import (
	"embed"
	"io/fs"
	"strings"
	"sync"

	"github.com/mailgrant/mailgrant"
	"gopkg.in/yaml.v3"
)

//go:embed catalogue/*.yaml
var causeFiles embed.FS

// A Cause is one entry of the catalogue: what it means, in words for a person,
// and what to do about it. Sentence, Remedy and Steps may name facts of the case
// as {mailbox|the mailbox}: the fact, or else the words behind the bar.
type Cause struct {
	ID       string          `yaml:"id"`
	Family   string          `yaml:"family"` // A to K as in the documents; "" for unknown, R for what mailgrant refuses
	Title    string          `yaml:"title"`
	Sentence string          `yaml:"sentence"`
	Remedy   string          `yaml:"remedy"`
	Steps    []Step          `yaml:"steps"`
	Who      mailgrant.Who   `yaml:"who"`
	Retry    mailgrant.Retry `yaml:"retry"`
	Consumer *Other          `yaml:"consumer"` // where no organisation stands behind the mailbox
	Texts    []string        `yaml:"texts"`    // words by which people may know it
	Notes    string          `yaml:"notes"`    // what it is easily taken for
	Links    []string        `yaml:"links"`
	Search   []string        `yaml:"search"` // old names, words people type
	Related  []string        `yaml:"related"`
	Codes    []string        `yaml:"codes"`

	Meanwhile string `yaml:"meanwhile"` // what becomes of the mail, where Retry does not say it
}

// A Step is one line of a remedy.
type Step struct {
	Place   string `yaml:"place"`
	Text    string `yaml:"text"`
	Command string `yaml:"command"`
}

// Other replaces parts of a cause for a mailbox with nobody above its owner.
type Other struct {
	Who    mailgrant.Who `yaml:"who"`
	Remedy string        `yaml:"remedy"`
	Steps  []Step        `yaml:"steps"`
}

// entries holds every cause behind its own door: a cause is read when it is
// first needed, so that the first failure of a process does not wait for all.
var entries = sync.OnceValue(func() map[string]func() Cause {
	m := map[string]func() Cause{}
	add := func(from embed.FS, dir string) {
		files, _ := fs.ReadDir(from, dir)
		for _, f := range files {
			id := strings.TrimSuffix(f.Name(), ".yaml")
			m[id] = sync.OnceValue(func() Cause { return readCause(from, dir+"/"+f.Name()) })
		}
	}
	add(causeFiles, "catalogue")
	add(refusalFiles, "refusals")
	return m
})

// readCause reads one entry. The files are part of the program and proven by its
// tests, so an unreadable one cannot happen.
func readCause(from embed.FS, name string) Cause {
	b, err := from.ReadFile(name)
	if err != nil {
		panic(err)
	}
	var c Cause
	if err := yaml.Unmarshal(b, &c); err != nil {
		panic(name + ": " + err.Error())
	}
	return c
}

// Lookup finds a cause, or a refusal of our own, by its id.
func Lookup(id string) (Cause, bool) {
	read, ok := entries()[id]
	if !ok {
		return Cause{}, false
	}
	return read(), true
}

// Catalogue lists all causes by family, then id, with "unknown" at the end.
func Catalogue() []Cause {
	files, _ := fs.ReadDir(causeFiles, "catalogue")
	var all []Cause
	for _, family := range append(strings.Split("ABCDEFGHIJK", ""), "") {
		for _, f := range files {
			if c, ok := Lookup(strings.TrimSuffix(f.Name(), ".yaml")); ok && c.Family == family {
				all = append(all, c)
			}
		}
	}
	return all
}

// Matches reports whether a word a person typed belongs to this cause.
func (c Cause) Matches(word string) bool {
	word = strings.ToLower(strings.TrimSpace(word))
	for _, s := range append(append([]string{c.ID, c.Title}, c.Search...), c.Codes...) {
		if strings.Contains(strings.ToLower(s), word) {
			return true
		}
	}
	return false
}

// finding fills a cause with the facts of one case.
func (c Cause) finding(e *evidence, v verdict) mailgrant.Finding {
	fill := e.fill
	f := mailgrant.Finding{
		Cause: c.ID, Title: c.Title, Sentence: fill(c.Sentence), Remedy: fill(c.Remedy),
		Who: c.Who, Retry: c.Retry, RetryAfter: e.wait, Confidence: v.confidence,
		Link: "errors/" + c.ID, Raw: raw(whole(e.failure)),
	}
	steps := c.Steps
	if c.Consumer != nil && e.facts.consumer() {
		f.Who = c.Consumer.Who
		if c.Consumer.Remedy != "" {
			f.Remedy = fill(c.Consumer.Remedy)
		}
		steps = c.Consumer.Steps
	}
	for _, s := range steps {
		f.Steps = append(f.Steps, mailgrant.Step{Place: fill(s.Place), Text: fill(s.Text), Command: e.fillCommand(s.Command)})
	}
	return f
}

// fill puts facts in place of {name|words for when it is not known}.
func (e *evidence) fill(s string) string { return fillWith(s, e.fact) }

// fillCommand does so in a line to copy, where a fact must not be able to say
// more to a shell than its own name.
func (e *evidence) fillCommand(s string) string {
	return fillWith(s, func(name string) string {
		v := e.fact(name)
		for i := 0; i < len(v); i++ {
			if !wordByte(v[i]) && !strings.ContainsRune("@+-:", rune(v[i])) {
				return ""
			}
		}
		return strings.TrimLeft(v, "-")
	})
}

func fillWith(s string, fact func(name string) string) string {
	if !strings.Contains(s, "{") {
		return s
	}
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '{')
		if i < 0 {
			b.WriteString(s)
			return b.String()
		}
		end := strings.IndexByte(s[i:], '}')
		if end < 0 {
			b.WriteString(s)
			return b.String()
		}
		name, other, ok := strings.Cut(s[i+1:i+end], "|")
		b.WriteString(s[:i])
		if v := fact(name); v != "" {
			b.WriteString(v)
		} else if ok {
			b.WriteString(other)
		}
		s = s[i+end+1:]
	}
}

// fact is a value worth naming in a sentence, clean and short.
func (e *evidence) fact(name string) string {
	x := e.facts
	v := ""
	switch name {
	case "mailbox":
		v = x.str("mailbox", "xoauth2_user", "user", "username")
	case "user":
		v, _ = x.claim("upn", "preferred_username", "email", "unique_name")
		if v == "" {
			v = x.str("signed_in_user", "signed_in_as")
		}
	case "host":
		v = x.str("host", "server", "target")
	case "tenant":
		v = x.str("tenant", "tenant_id")
	case "app":
		v = x.str("client_id", "app_id", "appid", "application_id")
	case "aud":
		v, _ = x.claim("aud")
	case "scope":
		v = needed(e)
	case "code":
		v = e.codeName()
	case "wait":
		if e.wait > 0 {
			v = spanWords(e.wait)
		}
	default:
		v = x.str(name)
	}
	return cut(raw(v), 120)
}
