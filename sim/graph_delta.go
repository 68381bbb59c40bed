package sim

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Delta tells of what changed in a folder since it was asked the last time. A
// round goes over pages ($skiptoken) and ends with a $deltatoken.

// A deltaState is what a token holds.
type deltaState struct {
	Folder   string    `json:"f"`
	Validity uint32    `json:"v"` // of the folder: another one makes the token worthless
	Since    uint64    `json:"s"` // changes up to here are told
	Until    uint64    `json:"u"` // and this round goes up to here
	First    bool      `json:"i,omitempty"`
	UID      uint32    `json:"p,omitempty"` // where the first round stands
	From     time.Time `json:"r,omitzero"`  // mail that was received before is left out
	Select   string    `json:"x,omitempty"`
	Changes  string    `json:"c,omitempty"`
}

func (d deltaState) token() string {
	text, err := json.Marshal(d)
	if err != nil {
		panic(err) // plain values
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

func syncStateGone() *graphError {
	return &graphError{status: http.StatusGone, code: "syncStateNotFound",
		text: "The sync state generation is not found; generation-based sync state is expired, resync is required."}
}

func (c *graphCall) delta() *graphError {
	f, e := c.folderOf()
	if e != nil {
		return e
	}
	state, e := c.deltaState(f)
	if e != nil {
		return e
	}
	size := c.pageSize()
	p := c.g.sim.mail
	p.mu.Lock()
	if f.gone || state.Folder != f.id || state.Validity != f.validity || !state.First && state.Since < f.lost {
		p.mu.Unlock()
		return syncStateGone()
	}
	if state.Until <= state.Since { // a new round
		state.Until = f.box.mod
	}
	var steps []deltaStep
	var more bool
	if state.First {
		steps, more = f.everything(&state, size, c.v.Knobs.GraphDeltaOldestFirst)
	} else {
		steps, more = f.changes(&state, size)
	}
	p.mu.Unlock()
	docs := []map[string]any{}
	for _, s := range steps {
		docs = append(docs, c.deltaJSON(s, state.Select))
	}
	doc := pageOf(c.context("Collection(message)"), docs)
	link := c.g.base(c.Request) + c.URL.Path + "?"
	if more {
		doc["@odata.nextLink"] = link + "$skiptoken=" + state.token()
	} else {
		doc["@odata.deltaLink"] = link + "$deltatoken=" + deltaState{Folder: f.id, Validity: f.validity, Since: state.Until,
			From: state.From, Select: state.Select, Changes: state.Changes}.token()
	}
	if prefer := c.Header.Get("Prefer"); prefer != "" {
		c.w.Header().Set("Preference-Applied", prefer)
	}
	c.json(http.StatusOK, doc)
	return nil
}

// deltaState reads the token of the request, or begins anew.
func (c *graphCall) deltaState(f *folder) (d deltaState, e *graphError) {
	q := c.URL.Query()
	text := cmp.Or(q.Get("$skiptoken"), q.Get("$deltatoken"))
	if text != "" {
		plain, err := base64.RawURLEncoding.DecodeString(text)
		if err != nil || json.Unmarshal(plain, &d) != nil || d.Folder == "" {
			return d, badRequest("Badly formed token. Unable to parse the sync state.")
		}
		return d, nil
	}
	d = deltaState{Folder: f.id, Validity: f.validity, First: true, Select: q.Get("$select"), Changes: strings.ToLower(q.Get("changeType"))}
	if q.Has("$search") {
		return d, badRequest("$search is not supported by change tracking.")
	}
	if d.Changes != "" && !slices.Contains([]string{itCame, itChanged, itLeft}, d.Changes) {
		return d, badRequest("Invalid value for changeType.")
	}
	if filter := q.Get("$filter"); filter != "" {
		name, op, value, e := comparison(filter)
		at, err := time.Parse(time.RFC3339, value)
		if e != nil || err != nil || !strings.EqualFold(name, "receivedDateTime") || op != "ge" && op != "gt" {
			return d, badRequest("Change tracking is not supported against filter '" + filter + "'.")
		}
		if op == "gt" {
			at = at.Add(time.Nanosecond)
		}
		d.From = at
	}
	return d, nil
}

// pageSize is what the caller prefers, in its bounds.
func (c *graphCall) pageSize() int {
	for _, part := range strings.Split(strings.Join(c.Header.Values("Prefer"), ","), ",") {
		if v, ok := cutPrefixFold(strings.TrimSpace(part), "odata.maxpagesize="); ok {
			if n, err := strconv.Atoi(strings.TrimSpace(v)); err == nil && n > 0 {
				if over(n, c.v.Knobs.GraphDeltaPage) {
					n = c.v.Knobs.GraphDeltaPage
				}
				return n
			}
		}
	}
	return 10
}

// A deltaStep is one line of an answer: a message as it is, or one that left.
type deltaStep struct {
	m    Message
	gone *change
}

// everything is a page of the first round.
func (f *folder) everything(d *deltaState, size int, oldestFirst bool) (steps []deltaStep, more bool) {
	list := slices.Clone(f.list)
	if !oldestFirst {
		slices.Reverse(list)
	}
	for _, m := range list {
		told := oldestFirst && m.UID <= d.UID || !oldestFirst && d.UID != 0 && m.UID >= d.UID
		if told || m.mod > d.Until || m.At.Before(d.From) {
			continue // what changed meanwhile is told in the next round
		}
		if len(steps) == size {
			return steps, true
		}
		steps = append(steps, deltaStep{m: *m})
		d.UID = m.UID
	}
	return steps, false
}

// changes is a page of a later round: of each message only the last change.
func (f *folder) changes(d *deltaState, size int) (steps []deltaStep, more bool) {
	log := f.since(d.Since)
	last := map[uint32]uint64{}
	came := map[uint32]bool{}
	for _, c := range log {
		if c.mod <= d.Until {
			came[c.uid] = came[c.uid] || c.came
			last[c.uid] = c.mod
		}
	}
	for _, c := range log {
		if c.mod > d.Until {
			break
		}
		if last[c.uid] != c.mod {
			continue
		}
		m := f.find(c.uid)
		switch {
		case c.gone && (d.Changes == "" || d.Changes == itLeft):
		case !c.gone && (m == nil || m.At.Before(d.From)):
			continue
		case !c.gone && d.Changes == "":
		case !c.gone && came[c.uid] && d.Changes == itCame, !c.gone && !came[c.uid] && d.Changes == itChanged:
		default:
			continue
		}
		if len(steps) == size {
			return steps, true
		}
		if c.gone {
			steps = append(steps, deltaStep{gone: &c})
		} else {
			steps = append(steps, deltaStep{m: *m})
		}
		d.Since = c.mod
	}
	return steps, false
}

func (c *graphCall) deltaJSON(s deltaStep, wanted string) map[string]any {
	if s.gone != nil {
		id := s.gone.id
		if c.immutable() {
			id = s.gone.immutable
		}
		return map[string]any{"@odata.type": "#microsoft.graph.message", "id": id, "@removed": map[string]string{"reason": "deleted"}}
	}
	whole := c.messageJSON(s.m)
	doc := only(whole, wanted)
	delete(doc, "@odata.context")
	doc["id"] = whole["id"]
	doc["@odata.type"] = "#microsoft.graph.message"
	return doc
}
