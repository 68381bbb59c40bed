package console

import (
	"net/http"
	"regexp"
	"strings"

	"github.com/mailgrant/mailgrant/internal/diagnose"
)

// families are the parts of the catalogue, in its own order.
var families = []struct{ Letter, Name string }{
	{"A", "Switches in Exchange and in the mailbox"}, {"B", "Which mailbox, which user"}, {"C", "What a token is for"}, {"D", "The registration at the provider"},
	{"E", "Signing in and consenting"}, {"F", "Google only"}, {"G", "Signing in to the console"}, {"H", "Limits"}, {"I", "The message and its recipients"},
	{"J", "The way there"}, {"K", "Not a failure"}, {"", "What nobody knows yet"}, {"R", "Refused by mailgrant itself"},
}

// A causeList is the catalogue, or what of it fits a question.
type causeList struct {
	Query string
	Best  *causePage // what a pasted text means
	Found []diagnose.Cause
	All   []family
}

type family struct {
	Name   string
	Causes []diagnose.Cause
}

const (
	querySize = 4000 // as much of a pasted text as is looked at
	fewWords  = 8    // more of them are a text, not words to look for
)

// causes lists the catalogue. A pasted text is explained; words find the causes
// that have all of them.
func (s *console) causes(w http.ResponseWriter, r *http.Request) {
	q := strings.TrimSpace(strings.ToValidUTF8(r.URL.Query().Get("q"), ""))
	if len(q) > querySize {
		q = strings.ToValidUTF8(q[:querySize], "")
	}
	list := causeList{Query: q}
	if q == "" {
		list.All = byFamily()
		s.show(w, r, http.StatusOK, page{Name: "causes", Title: "When something fails", Nav: "errors", Data: list})
		return
	}
	if c, ok := meant(q); ok {
		p := pageOf(c)
		list.Best = &p
	}
	words := strings.Fields(q)
	if len(words) > fewWords {
		words = nil
	}
	for _, c := range listed() {
		if (list.Best == nil || c.ID != list.Best.ID) && hasAll(c, words) {
			list.Found = append(list.Found, plainCause(c))
		}
	}
	s.show(w, r, http.StatusOK, page{Name: "causes", Title: "When something fails", Nav: "errors", Data: list})
}

// ownPage is where a line of ours says which page explains it.
var ownPage = regexp.MustCompile(`/docs/errors/([a-z0-9-]+)`)

// meant is what a pasted text is about: the page it names, or what it is explained
// as.
func meant(text string) (diagnose.Cause, bool) {
	if m := ownPage.FindStringSubmatch(text); m != nil {
		if c, ok := diagnose.Lookup(m[1]); ok {
			return c, true
		}
	}
	f := diagnose.Explain(diagnose.Failure{Text: text})
	if f.Cause == diagnose.Unknown || f.Confidence < 0.4 {
		return diagnose.Cause{}, false
	}
	return diagnose.Lookup(f.Cause)
}

// listed are all that have a page: causes, and what mailgrant itself refuses.
func listed() []diagnose.Cause { return append(diagnose.Catalogue(), diagnose.Refusals()...) }

func byFamily() (all []family) {
	have := map[string][]diagnose.Cause{}
	for _, c := range listed() {
		have[c.Family] = append(have[c.Family], plainCause(c))
	}
	for _, f := range families {
		if len(have[f.Letter]) > 0 {
			all = append(all, family{f.Name, have[f.Letter]})
		}
	}
	return all
}

func hasAll(c diagnose.Cause, words []string) bool {
	text := strings.ToLower(strings.Join(append([]string{c.Sentence, c.Remedy, c.Notes, c.Meanwhile}, c.Texts...), "\n"))
	for _, w := range words {
		if !c.Matches(w) && !strings.Contains(text, strings.ToLower(w)) {
			return false
		}
	}
	return len(words) > 0
}

// A causePage is one cause as its page shows it.
type causePage struct {
	diagnose.Cause
	WhoSays, Meanwhile string
	PersonalWho        string
	Relatives          []diagnose.Cause
}

// cause shows one cause.
func (s *console) cause(w http.ResponseWriter, r *http.Request) {
	id := strings.TrimSuffix(r.PathValue("cause"), ".md")
	c, ok := diagnose.Lookup(id)
	if !ok {
		s.show(w, r, http.StatusNotFound, page{Name: "nothing", Title: "No such cause", Nav: "errors"})
		return
	}
	p := pageOf(c)
	s.show(w, r, http.StatusOK, page{Name: "cause", Title: p.Title, Nav: "errors", Data: p})
}

func pageOf(c diagnose.Cause) causePage {
	p := causePage{Cause: plainCause(c), WhoSays: whoOf(c.Who), Meanwhile: or(c.Meanwhile, meanwhile(c.Retry))}
	if c.Consumer != nil {
		p.PersonalWho = whoOf(c.Consumer.Who)
	}
	for _, id := range c.Related {
		if o, ok := diagnose.Lookup(id); ok {
			p.Relatives = append(p.Relatives, plainCause(o))
		}
	}
	return p
}

// plainCause has the words of a cause where nothing is known of a case.
func plainCause(c diagnose.Cause) diagnose.Cause {
	c.Sentence, c.Remedy, c.Steps = plain(c.Sentence), plain(c.Remedy), plainSteps(c.Steps)
	if c.Consumer != nil {
		o := *c.Consumer
		o.Remedy, o.Steps = plain(o.Remedy), plainSteps(o.Steps)
		c.Consumer = &o
	}
	return c
}

func plainSteps(steps []diagnose.Step) (out []diagnose.Step) {
	for _, st := range steps {
		out = append(out, diagnose.Step{Place: plain(st.Place), Text: plain(st.Text), Command: plain(st.Command)})
	}
	return out
}

// fact is a fact of a case in the catalogue's texts, with the words for when it is
// not known.
var fact = regexp.MustCompile(`\{([a-z_]+)(?:\|([^{}]*))?\}`)

func plain(s string) string {
	return strings.TrimSpace(fact.ReplaceAllString(s, "$2"))
}
