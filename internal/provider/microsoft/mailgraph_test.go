package microsoft

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
)

// mailGraph is a Graph with one mailbox: folders, messages, delta links that count
// changes, subscriptions.
type mailGraph struct {
	*httptest.Server
	t  *testing.T
	mu sync.Mutex

	folders  []testFolder
	messages []testMessage
	changes  int // so many so far
	page     int // messages on one page
	subs     map[string]map[string]string
	made     int // subscriptions

	seen   []string // "METHOD path?query"
	answer func(w http.ResponseWriter, r *http.Request) bool
}

type testFolder struct{ id, name, parent, wellKnown string }

type testMessage struct {
	id, folder, raw string
	received        time.Time
	change          int
	removed, read   bool
}

var testDay = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func newMailGraph(t *testing.T) *mailGraph {
	g := &mailGraph{t: t, page: 2, subs: map[string]map[string]string{}}
	g.folders = []testFolder{{"f-in", "Posteingang", "", "inbox"}, {"f-sent", "Gesendet", "", "sentitems"}, {"f-bin", "Papierkorb", "", "deleteditems"},
		{"f-a", "Aufträge", "", ""}, {"f-a1", "2026/27", "f-a", ""}, {"f-a2", "neu", "f-a1", ""}}
	g.Server = httptest.NewServer(g)
	t.Cleanup(g.Close)
	return g
}

func (g *mailGraph) put(id, folder, raw string, hours int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.changes++
	g.messages = append(g.messages, testMessage{id: id, folder: folder, raw: raw, received: testDay.Add(time.Duration(hours) * time.Hour), change: g.changes})
}

// requests are those since the last time it was asked.
func (g *mailGraph) requests() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.seen
	g.seen = nil
	return s
}

func (g *mailGraph) way(kind mailgrant.MailboxKind, flow mailgrant.Flow) provider.Way {
	return provider.Way{
		Mailbox:  mailgrant.Mailbox{Address: "alex@contoso.example", Kind: kind},
		Grant:    mailgrant.Grant{Flow: flow},
		Settings: provider.Settings{Template: "microsoft365", GraphURL: g.URL, Resources: map[mailgrant.Capability]string{mailgrant.CanAPIRead: "graph"}},
		HTTP:     &http.Client{Transport: g.Client().Transport, Timeout: 5 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		Token: func(_ context.Context, resource string, fresh bool) (mailgrant.Token, error) {
			return mailgrant.Token{Value: mailgrant.NewSecret(fmt.Sprintf("%s-token-%v", resource, fresh))}, nil
		},
	}
}

func (g *mailGraph) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.seen = append(g.seen, r.Method+" "+r.URL.Path)
	if !strings.Contains(strings.Join(r.Header.Values("Prefer"), ", "), `IdType="ImmutableId"`) {
		g.t.Errorf("%s %s does not ask for immutable ids", r.Method, r.URL)
	}
	if g.answer != nil && g.answer(w, r) {
		return
	}
	path := strings.TrimPrefix(r.URL.Path, "/v1.0")
	if strings.HasPrefix(path, "/subscriptions") {
		g.subscriptions(w, r, path)
		return
	}
	path = strings.TrimPrefix(strings.TrimPrefix(path, "/users/alex@contoso.example/"), "/me/")
	p := strings.Split(strings.Trim(path, "/"), "/")
	switch {
	case p[0] == "mailFolders" && len(p) == 1, p[0] == "mailFolders" && len(p) == 3 && p[2] == "childFolders":
		parent := ""
		if len(p) == 3 {
			parent = p[1]
		}
		g.list(w, r, parent)
	case p[0] == "mailFolders" && len(p) == 2:
		if f := g.folder(p[1]); f != nil {
			reply(w, 200, g.json(*f))
			return
		}
		itemNotFound(w)
	case p[0] == "mailFolders" && len(p) == 4 && p[3] == "delta":
		g.delta(w, r, p[1])
	case p[0] == "messages" && len(p) > 1:
		g.message(w, r, p)
	default:
		w.WriteHeader(404)
	}
}

func (g *mailGraph) folder(id string) *testFolder {
	for i, f := range g.folders {
		if f.id == id || f.wellKnown == id {
			return &g.folders[i]
		}
	}
	return nil
}

func (g *mailGraph) json(f testFolder) map[string]any {
	n := 0
	for _, o := range g.folders {
		if o.parent == f.id {
			n++
		}
	}
	return map[string]any{"id": f.id, "displayName": f.name, "childFolderCount": n}
}

func (g *mailGraph) list(w http.ResponseWriter, r *http.Request, parent string) {
	if r.Method == "POST" {
		var b struct{ DisplayName string }
		json.NewDecoder(r.Body).Decode(&b)
		f := testFolder{id: "f-new-" + b.DisplayName, name: b.DisplayName, parent: parent}
		g.folders = append(g.folders, f)
		reply(w, 201, g.json(f))
		return
	}
	from, _ := strconv.Atoi(r.URL.Query().Get("$skip"))
	var all []any
	for _, f := range g.folders {
		if f.parent == parent {
			all = append(all, g.json(f))
		}
	}
	page := map[string]any{"value": all[from:min(from+3, len(all))]}
	if from+3 < len(all) {
		page["@odata.nextLink"] = g.URL + r.URL.Path + "?$skip=" + strconv.Itoa(from+3)
	}
	reply(w, 200, page)
}

// delta lists what changed after $deltatoken, from the $skiptoken on, newest first.
func (g *mailGraph) delta(w http.ResponseWriter, r *http.Request, folder string) {
	q := r.URL.Query()
	if !strings.Contains(strings.Join(r.Header.Values("Prefer"), ", "), "odata.maxpagesize=") {
		g.t.Error("no page size is asked for")
	}
	after, _ := strconv.Atoi(q.Get("$deltatoken"))
	skip, _ := strconv.Atoi(q.Get("$skiptoken"))
	var since time.Time
	if f := q.Get("$filter"); f != "" {
		since, _ = time.Parse(time.RFC3339, strings.TrimPrefix(f, "receivedDateTime ge "))
	}
	var all []testMessage
	for _, m := range g.messages {
		if m.folder == folder && m.change > after && !m.received.Before(since) {
			all = append(all, m)
		}
	}
	slices.SortFunc(all, func(a, b testMessage) int { return cmp.Compare(b.change, a.change) })
	var list []any
	for _, m := range all[skip:min(len(all), skip+g.page)] {
		o := map[string]any{"@odata.etag": "W/\"x\"", "id": m.id, "receivedDateTime": m.received.Format(time.RFC3339)}
		if m.removed {
			o = map[string]any{"id": m.id, "@removed": map[string]string{"reason": "deleted"}}
		}
		list = append(list, o)
	}
	page := map[string]any{"@odata.context": "x", "value": list}
	next := url.Values{"$deltatoken": {strconv.Itoa(after)}, "$skiptoken": {strconv.Itoa(skip + g.page)}}
	name := "@odata.nextLink"
	if skip+g.page >= len(all) {
		name, next = "@odata.deltaLink", url.Values{"$deltatoken": {strconv.Itoa(g.changes)}}
	}
	if !since.IsZero() {
		next.Set("$filter", q.Get("$filter"))
	}
	page[name] = g.URL + r.URL.Path + "?" + next.Encode()
	reply(w, 200, page)
}

func (g *mailGraph) message(w http.ResponseWriter, r *http.Request, p []string) {
	i := slices.IndexFunc(g.messages, func(m testMessage) bool { return m.id == p[1] && !m.removed })
	if i < 0 {
		itemNotFound(w)
		return
	}
	m := &g.messages[i]
	var b struct {
		IsRead        bool
		DestinationID string
	}
	switch {
	case r.Method == "GET" && p[len(p)-1] == "$value":
		io.WriteString(w, m.raw)
	case r.Method == "PATCH":
		json.NewDecoder(r.Body).Decode(&b)
		m.read = b.IsRead
		reply(w, 200, map[string]any{})
	case r.Method == "POST" && p[len(p)-1] == "move":
		json.NewDecoder(r.Body).Decode(&b)
		g.changes++
		m.folder, m.change = b.DestinationID, g.changes
		reply(w, 201, map[string]string{"id": m.id})
	case r.Method == "DELETE":
		m.folder = "f-bin"
		w.WriteHeader(204)
	}
}

func (g *mailGraph) subscriptions(w http.ResponseWriter, r *http.Request, path string) {
	id, verb, _ := strings.Cut(strings.Trim(strings.TrimPrefix(path, "/subscriptions"), "/"), "/")
	b := map[string]string{}
	json.NewDecoder(r.Body).Decode(&b)
	switch {
	case id == "":
		g.made++
		id = "sub-" + strconv.Itoa(g.made)
		b["id"] = id
		g.subs[id] = b
		reply(w, 201, b)
	case g.subs[id] == nil:
		fail(w, 404, "ResourceNotFound", "The object was not found.")
	case r.Method == "PATCH":
		g.subs[id]["expirationDateTime"] = b["expirationDateTime"]
		reply(w, 200, g.subs[id])
	case verb == "reauthorize":
		w.WriteHeader(204)
	}
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

func fail(w http.ResponseWriter, status int, code, message string) {
	reply(w, status, map[string]any{"error": map[string]string{"code": code, "message": message}})
}

func itemNotFound(w http.ResponseWriter) {
	fail(w, 404, "ErrorItemNotFound", "The specified object was not found in the store.")
}
