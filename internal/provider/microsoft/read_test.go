package microsoft

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
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
	"testing/synctest"
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

// A keeper keeps what it is given, by id.
type keeper struct {
	t     *testing.T
	known map[string]bool
	said  []string
}

func (k *keeper) reading() provider.Reading {
	return provider.Reading{Known: func(_ context.Context, ids []string) (map[string]bool, error) {
		m := map[string]bool{}
		for _, id := range ids {
			m[id] = k.known[id]
		}
		return m, nil
	}}
}

func (k *keeper) take(in provider.Incoming) error {
	what := "large"
	switch {
	case in.Err != nil:
		what = "refused"
	case in.Body != nil:
		b, err := io.ReadAll(in.Body)
		if err != nil {
			return err
		}
		what = string(b)
		if len(what) > 40 {
			what = strconv.Itoa(len(what))
		}
	}
	k.said = append(k.said, in.Remote+"="+what)
	k.known[in.Remote] = true
	return nil
}

// all reads until no more is there, and says what came.
func (k *keeper) all(in provider.Inbox, at *provider.Cursor) string {
	k.t.Helper()
	k.said = nil
	for range 100 {
		to, more, err := in.Next(k.t.Context(), *at, k.take)
		*at = to
		if err != nil {
			k.said = append(k.said, trouble(err))
			break
		}
		if !more {
			break
		}
	}
	return strings.Join(k.said, " ")
}

func trouble(err error) string {
	e := mailgrant.AsError(err)
	if e.Finding == nil {
		return "[" + string(e.Code) + "]"
	}
	s := "[" + string(e.Code) + " " + e.Finding.Cause
	if e.Finding.RetryAfter > 0 {
		s += " " + e.Finding.RetryAfter.String()
	}
	return s + "]"
}

func openMail(t *testing.T, w provider.Way, r provider.Reading) provider.Inbox {
	t.Helper()
	in, err := Reader(ReadConfig{}).Open(t.Context(), w, r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	return in
}

func TestReadsByDelta(t *testing.T) {
	for _, c := range []struct {
		kind mailgrant.MailboxKind
		flow mailgrant.Flow
		base string
	}{
		{mailgrant.MailboxOwn, mailgrant.FlowCode, "/v1.0/me"},
		{mailgrant.MailboxShared, mailgrant.FlowCode, "/v1.0/users/alex@contoso.example"},
		{mailgrant.MailboxApp, mailgrant.FlowApp, "/v1.0/users/alex@contoso.example"},
	} {
		g := newMailGraph(t)
		for i := range 5 {
			g.put(fmt.Sprintf("m%d", i+1), "f-in", fmt.Sprintf("Subject: %d\r\n\r\n", i+1), i)
		}
		k := &keeper{t, map[string]bool{}, nil}
		in := openMail(t, g.way(c.kind, c.flow), k.reading())
		var at provider.Cursor
		// Pages come newest first here, within a page the oldest is first.
		want := "m4=Subject: 4\r\n\r\n m5=Subject: 5\r\n\r\n m2=Subject: 2\r\n\r\n m3=Subject: 3\r\n\r\n m1=Subject: 1\r\n\r\n"
		if got := k.all(in, &at); got != want {
			t.Errorf("%s: got %q", c.kind, got)
		}
		for _, s := range g.requests() {
			if !strings.HasPrefix(s, "GET "+c.base+"/") {
				t.Errorf("%s: asked %s", c.kind, s)
			}
		}
		if got := k.all(in, &at); got != "" || len(g.requests()) != 1 {
			t.Errorf("nothing new: got %q", got)
		}
		g.mu.Lock()
		g.changes++
		g.messages[0].change, g.messages[1].change, g.messages[1].removed = g.changes, g.changes, true // one was marked, one has gone
		g.mu.Unlock()
		g.put("m6", "f-in", "x", 6)
		in.Close()
		if got := k.all(openMail(t, g.way(c.kind, c.flow), k.reading()), &at); got != "m6=x" {
			t.Errorf("by the cursor: got %q", got)
		}
	}
}

func TestSinceLeavesOlderMailAlone(t *testing.T) {
	g := newMailGraph(t)
	g.put("old", "f-in", "x", -1)
	g.put("new", "f-in", "y", 0)
	k := &keeper{t, map[string]bool{}, nil}
	r := k.reading()
	r.Since = testDay.Add(300 * time.Millisecond)
	in := openMail(t, g.way(mailgrant.MailboxOwn, mailgrant.FlowCode), r)
	var at provider.Cursor
	if got := k.all(in, &at); got != "new=y" {
		t.Errorf("got %q", got)
	}
	g.put("older", "f-in", "z", -2) // moved into the folder
	if got := k.all(in, &at); got != "" {
		t.Errorf("then got %q", got)
	}
}

func TestIM07BeginsAgainWhenTheLinkIsTooOld(t *testing.T) {
	for _, c := range []struct {
		status     int
		code, text string
	}{
		{410, "syncStateNotFound", "The sync state generation is not found; ."},
		{410, "resyncRequired", "Resync required."},
		{410, "", ""},
		{400, "SyncStateNotFound", "The sync state generation is not found."},
	} {
		g := newMailGraph(t)
		g.put("a", "f-in", "x", 0)
		k := &keeper{t, map[string]bool{}, nil}
		in := openMail(t, g.way(mailgrant.MailboxOwn, mailgrant.FlowCode), k.reading())
		var at provider.Cursor
		k.all(in, &at)
		g.put("b", "f-in", "y", 1)
		g.answer = func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Query().Get("$deltatoken") != "1" {
				return false
			}
			if c.code == "" {
				w.WriteHeader(c.status)
			} else {
				fail(w, c.status, c.code, c.text)
			}
			return true
		}
		if got := k.all(in, &at); got != "b=y" {
			t.Errorf("%d %s: got %q", c.status, c.code, got)
		}
	}
}

// R-OA7: the token goes to Graph's own address and nowhere else, whatever an
// answer or a cursor says.
func TestOA17LinksElsewhereAreRefused(t *testing.T) {
	thief := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("somebody else was asked: %s with %q", r.URL, r.Header.Get("Authorization"))
	}))
	defer thief.Close()
	own := func(g *mailGraph) string { u, _ := url.Parse(g.URL); return u.Host }
	for name, link := range map[string]func(*mailGraph) string{
		"host":   func(*mailGraph) string { return thief.URL + "/v1.0/me/x" },
		"port":   func(g *mailGraph) string { return strings.Replace(g.URL, own(g), "127.0.0.1:1", 1) + "/x" },
		"scheme": func(g *mailGraph) string { return "https://" + own(g) + "/x" },
		"user": func(g *mailGraph) string {
			return "http://" + own(g) + "@" + strings.TrimPrefix(thief.URL, "http://") + "/x"
		},
		"password": func(g *mailGraph) string { return "http://a:b@" + own(g) + "/x" },
		"relative": func(*mailGraph) string { return "//" + strings.TrimPrefix(thief.URL, "http://") + "/x" },
		"nonsense": func(*mailGraph) string { return "\x7f://" },
	} {
		for _, kind := range []string{"@odata.nextLink", "@odata.deltaLink"} {
			g := newMailGraph(t)
			g.put("a", "f-in", "x", 0)
			k := &keeper{t, map[string]bool{}, nil}
			in := openMail(t, g.way(mailgrant.MailboxOwn, mailgrant.FlowCode), k.reading())
			g.answer = func(w http.ResponseWriter, r *http.Request) bool {
				if strings.HasSuffix(r.URL.Path, "/delta") {
					reply(w, 200, map[string]any{"value": []any{}, kind: link(g)})
					return true
				}
				return false
			}
			var at provider.Cursor
			if got := k.all(in, &at); got != "[unavailable unknown]" {
				t.Errorf("%s as %s: got %q", name, kind, got)
			}
			g.answer = nil
			at = position{Links: map[string]string{"f-in": link(g)}}.cursor()
			if got := k.all(in, &at); got != "a=x" {
				t.Errorf("%s in the cursor: got %q", name, got)
			}
		}
	}
	g := newMailGraph(t)
	g.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/v1.0/me/mailFolders" {
			reply(w, 200, map[string]any{"value": []any{map[string]any{"id": "1", "displayName": "x"}}, "@odata.nextLink": thief.URL})
			return true
		}
		return false
	}
	if _, err := folders(t.Context(), g.way(mailgrant.MailboxOwn, mailgrant.FlowCode)); err == nil {
		t.Error("a list of folders went on elsewhere")
	}
}

func TestIM06HostileAnswers(t *testing.T) {
	for name, body := range map[string]string{
		"not json": "<html>", "empty": "{}", "null": "null", "types": `{"value":{"id":1}}`, "deep": strings.Repeat("[", 100_000),
		"huge": `{"value":[` + strings.Repeat(`{"id":"x"},`, 200_000) + `{}]}`, "no link": `{"value":[{"id":"a"}]}`,
	} {
		g := newMailGraph(t)
		k := &keeper{t, map[string]bool{}, nil}
		in := openMail(t, g.way(mailgrant.MailboxOwn, mailgrant.FlowCode), k.reading())
		g.answer = func(w http.ResponseWriter, r *http.Request) bool { io.WriteString(w, body); return true }
		at := provider.Cursor("{")
		if got := k.all(in, &at); got != "[unavailable unknown]" {
			t.Errorf("%s: got %q", name, got)
		}
	}
	// A link that leads to itself, and a message that is listed twice.
	g := newMailGraph(t)
	g.put("a", "f-in", "x", 0)
	k := &keeper{t, map[string]bool{}, nil}
	in := openMail(t, g.way(mailgrant.MailboxOwn, mailgrant.FlowCode), k.reading())
	g.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/delta") {
			return false
		}
		m := map[string]any{"id": "a", "receivedDateTime": "2026-11-20T00:00:00Z"}
		reply(w, 200, map[string]any{"value": []any{m, m, map[string]any{"id": ""}}, "@odata.nextLink": g.URL + "/v1.0/me/mailFolders/f-in/messages/delta?$skiptoken=1"})
		return true
	}
	var at provider.Cursor
	if got := k.all(in, &at); got != "a=x [unavailable unknown]" {
		t.Errorf("got %q", got)
	}
}

func TestRE12ThrottledReadingWaitsAsTold(t *testing.T) {
	for _, where := range []string{"/delta", "/$value", "/mailFolders/inbox"} {
		for _, status := range []int{429, 503} {
			g := newMailGraph(t)
			g.put("a", "f-in", "x", 0)
			k := &keeper{t, map[string]bool{}, nil}
			g.answer = func(w http.ResponseWriter, r *http.Request) bool {
				if strings.HasSuffix(r.URL.Path, where) {
					w.Header().Set("Retry-After", "17")
					fail(w, status, map[int]string{429: "ApplicationThrottled", 503: "ServiceNotAvailable"}[status], "Application is over its MailboxConcurrency limit.")
					return true
				}
				return false
			}
			in, err := Reader(ReadConfig{}).Open(t.Context(), g.way(mailgrant.MailboxOwn, mailgrant.FlowCode), k.reading())
			if err == nil {
				var at provider.Cursor
				_, _, err = in.Next(t.Context(), at, k.take)
			}
			e := mailgrant.AsError(err)
			if e == nil || e.Code != mailgrant.Unavailable || e.Finding == nil || e.Finding.RetryAfter != 17*time.Second || len(k.said) > 0 {
				t.Errorf("%s %d: got %+v", where, status, e)
			}
		}
	}
}

func TestRefusedTokenGetsOneSuccessorWhileReading(t *testing.T) {
	g := newMailGraph(t)
	g.put("a", "f-in", "x", 0)
	g.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.Header.Get("Authorization"), "false") {
			fail(w, 401, "InvalidAuthenticationToken", "Lifetime validation failed, the token is expired.")
			return true
		}
		return false
	}
	k := &keeper{t, map[string]bool{}, nil}
	var at provider.Cursor
	if got := k.all(openMail(t, g.way(mailgrant.MailboxOwn, mailgrant.FlowCode), k.reading()), &at); got != "a=x" {
		t.Errorf("got %q", got)
	}
	g.answer = func(w http.ResponseWriter, r *http.Request) bool {
		fail(w, 401, "InvalidAuthenticationToken", "Access token validation failure. Invalid audience.")
		return true
	}
	g.requests()
	_, err := Reader(ReadConfig{}).Open(t.Context(), g.way(mailgrant.MailboxOwn, mailgrant.FlowCode), k.reading())
	if got := trouble(err); got != "[misset wrong-token-audience]" || len(g.requests()) != 2 {
		t.Errorf("got %s", got)
	}
}

// What breaks off half way, or has less than it said, is not taken; it is the next
// time.
func TestIM06HalfMessageIsNotTaken(t *testing.T) {
	for _, how := range []string{"length", "chunked"} {
		g := newMailGraph(t)
		g.put("a", "f-in", "x", 0)
		g.put("b", "f-in", "y", 1)
		g.answer = func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, "/messages/b/$value") {
				return false
			}
			conn, _, _ := w.(http.Hijacker).Hijack()
			io.WriteString(conn, map[string]string{"length": "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nSubject: half", "chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nd\r\nSubject: half\r\n"}[how])
			conn.Close()
			return true
		}
		k := &keeper{t, map[string]bool{}, nil}
		in := openMail(t, g.way(mailgrant.MailboxOwn, mailgrant.FlowCode), k.reading())
		var at provider.Cursor
		if got := k.all(in, &at); !strings.HasPrefix(got, "a=x [unavailable ") {
			t.Errorf("%s: got %q", how, got)
		}
		g.answer = nil
		if got := k.all(in, &at); got != "b=y" {
			t.Errorf("%s: then got %q", how, got)
		}
	}
}

func TestLargeMessageIsTakenWithoutItsBody(t *testing.T) {
	g := newMailGraph(t)
	g.put("told", "f-in", strings.Repeat("x", 1001), 0)
	g.put("fits", "f-in", strings.Repeat("x", 1000), 1)
	g.put("untold", "f-in", strings.Repeat("x", 100_000), 2)
	k := &keeper{t, map[string]bool{}, nil}
	r := k.reading()
	r.Max = 1000
	in := openMail(t, g.way(mailgrant.MailboxOwn, mailgrant.FlowCode), r)
	var at provider.Cursor
	if got := k.all(in, &at); got != "fits=1000 untold=large told=large" {
		t.Errorf("got %q", got)
	}
}

// One message that Graph does not give stops no other, and is told in the end.
func TestMessageThatGraphDoesNotGive(t *testing.T) {
	g := newMailGraph(t)
	g.page = 10
	for i, id := range []string{"a", "bad", "gone", "b", "odd"} {
		g.put(id, "f-in", id, i)
	}
	g.answer = func(w http.ResponseWriter, r *http.Request) bool {
		switch r.URL.Path {
		case "/v1.0/me/messages/bad/$value":
			fail(w, 500, "ErrorInternalServerError", "An internal server error occurred. The operation failed.")
		case "/v1.0/me/messages/gone/$value":
			itemNotFound(w)
		case "/v1.0/me/messages/odd/$value":
			fail(w, 400, "ErrorMimeContentConversionFailed", "MIME content conversion failed.")
		default:
			return false
		}
		return true
	}
	k := &keeper{t, map[string]bool{}, nil}
	var at provider.Cursor
	var got []string
	for range patience {
		in := openMail(t, g.way(mailgrant.MailboxOwn, mailgrant.FlowCode), k.reading()) // the cursor remembers, not the inbox
		got = append(got, k.all(in, &at))
		in.Close()
	}
	if got[0] != "a=a b=b odd=refused [unavailable provider-outage]" || got[1] != "[unavailable provider-outage]" || got[patience-1] != "bad=refused" {
		t.Errorf("got %q", got)
	}
	if strings.Contains(string(at), "bad") {
		t.Errorf("still remembered: %s", at)
	}
}

func TestErrorOfTakeComesBackAsItIs(t *testing.T) {
	g := newMailGraph(t)
	g.put("a", "f-in", "x", 0)
	k := &keeper{t, map[string]bool{}, nil}
	in := openMail(t, g.way(mailgrant.MailboxOwn, mailgrant.FlowCode), k.reading())
	full := errors.New("disk full")
	to, _, err := in.Next(t.Context(), "", func(provider.Incoming) error { return full })
	if err != full {
		t.Errorf("got %v", err)
	}
	if got := k.all(in, &to); got != "a=x" {
		t.Errorf("then got %q", got)
	}
}

func TestFoldersByName(t *testing.T) {
	g := newMailGraph(t)
	w := g.way(mailgrant.MailboxOwn, mailgrant.FlowCode)
	for name, id := range map[string]string{"Inbox": "f-in", "inbox": "f-in", "posteingang": "f-in", "Sent Items": "f-sent", "aufträge": "f-a", "Aufträge/2026/27": "f-a1", "Aufträge/2026/27/Neu": "f-a2"} {
		k := &keeper{t, map[string]bool{}, nil}
		r := k.reading()
		r.Folders = []string{name, name}
		in := openMail(t, w, r)
		g.requests()
		if to, _, err := in.Next(t.Context(), "", k.take); err != nil || !strings.Contains(string(to), id) || len(g.requests()) != 1 {
			t.Errorf("%s: got %s, %v", name, to, err)
		}
	}
	for _, name := range []string{"nowhere", "Aufträge/x", "Archive", "inbox/x", "Aufträge/2026"} {
		_, err := Reader(ReadConfig{}).Open(t.Context(), w, provider.Reading{Folders: []string{name}})
		if e := mailgrant.AsError(err); e == nil || e.Code != mailgrant.Misset || e.Remedy == "" {
			t.Errorf("%s: got %v", name, err)
		}
	}
	list, err := Reader(ReadConfig{}).Folders(t.Context(), w)
	want := []provider.Folder{{Name: "Posteingang", Use: "inbox"}, {Name: "Gesendet", Use: "sent"}, {Name: "Papierkorb", Use: "trash"}, {Name: "Aufträge"}, {Name: "Aufträge/2026/27"}, {Name: "Aufträge/2026/27/neu"}}
	if err != nil || !slices.Equal(list, want) {
		t.Errorf("got %+v, %v", list, err)
	}
}

func TestSeveralFolders(t *testing.T) {
	g := newMailGraph(t)
	g.put("a", "f-in", "x", 0)
	g.put("b", "f-a", "y", 0)
	k := &keeper{t, map[string]bool{}, nil}
	r := k.reading()
	r.Folders = []string{"Inbox", "Aufträge"}
	in := openMail(t, g.way(mailgrant.MailboxOwn, mailgrant.FlowCode), r)
	var at provider.Cursor
	if got := k.all(in, &at); got != "a=x b=y" {
		t.Errorf("got %q", got)
	}
	if err := in.Done(t.Context(), []string{"a"}, mailgrant.AfterMove, "Aufträge"); err != nil {
		t.Error(err)
	}
	g.requests()
	if got := k.all(in, &at); got != "" || len(g.requests()) != 2 { // moved, and known by the same id
		t.Errorf("got %q", got)
	}
}

func TestAfterReading(t *testing.T) {
	g := newMailGraph(t)
	for i, id := range []string{"a", "b", "c", "d"} {
		g.put(id, "f-in", "x", i)
	}
	k := &keeper{t, map[string]bool{}, nil}
	in := openMail(t, g.way(mailgrant.MailboxOwn, mailgrant.FlowCode), k.reading())
	for _, c := range []struct {
		id, to string
		what   mailgrant.AfterRead
	}{{"a", "", mailgrant.AfterMark}, {"b", "Aufträge/2026/27", mailgrant.AfterMove}, {"c", "", mailgrant.AfterDelete}, {"d", "Ablage/mailgrant", mailgrant.AfterMove}, {"d", "", mailgrant.AfterLeave}} {
		if err := in.Done(t.Context(), []string{c.id, "gone"}, c.what, c.to); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
	}
	var got []string
	for _, m := range g.messages {
		got = append(got, fmt.Sprint(m.folder, " ", m.read))
	}
	if s := strings.Join(got, ", "); s != "f-in true, f-a1 false, f-bin false, f-new-mailgrant false" {
		t.Errorf("got %s", s)
	}
	if f := g.folder("f-new-mailgrant"); f == nil || f.parent != "f-new-Ablage" {
		t.Errorf("the new folder is %+v", f)
	}
	g.answer = func(w http.ResponseWriter, _ *http.Request) bool {
		fail(w, 403, "ErrorAccessDenied", "Access is denied. Check credentials and try again.")
		return true
	}
	if err := in.Done(t.Context(), []string{"a"}, mailgrant.AfterMark, ""); !errors.Is(err, mailgrant.Misset) {
		t.Errorf("without the right: got %v", err)
	}
}

// pushing is a mailbox that Graph can tell of.
func pushing(t *testing.T, g *mailGraph, k *keeper) (provider.Inbox, *Notices) {
	n := NewNotices()
	r := k.reading()
	r.Push, r.PushSecret = "https://mail.example/notices/graph", "s3cret"
	in, err := Reader(ReadConfig{Notices: n}).Open(t.Context(), g.way(mailgrant.MailboxOwn, mailgrant.FlowCode), r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	return in, n
}

func notice(sub, secret, event string) []byte {
	b, _ := json.Marshal(map[string]any{"value": []any{map[string]any{"subscriptionId": sub, "clientState": secret, "changeType": "created", "lifecycleEvent": event,
		"subscriptionExpirationDateTime": "2026-11-27T00:00:00.0000000Z", "resource": "Users/1/Messages/2", "tenantId": "t", "resourceData": map[string]string{"id": "2"}}}})
	return b
}

func TestNoticeWakesTheReader(t *testing.T) {
	g := newMailGraph(t)
	k := &keeper{t, map[string]bool{}, nil}
	in, n := pushing(t, g, k)
	var at provider.Cursor
	k.all(in, &at)
	sub := g.subs["sub-1"]
	until, _ := time.Parse(time.RFC3339, sub["expirationDateTime"])
	if life := time.Until(until); !in.Pushes() || sub["resource"] != "me/mailFolders('f-in')/messages" || sub["clientState"] != "s3cret" || sub["changeType"] != "created" ||
		sub["notificationUrl"] == "" || sub["lifecycleNotificationUrl"] == "" || life < 45*time.Minute || life > 10_080*time.Minute {
		t.Fatalf("subscribed %v", sub)
	}
	for _, bad := range [][]byte{notice("sub-1", "wrong", ""), notice("sub-1", "", ""), notice("sub-1", "s3cret ", "")} {
		if reply, elsewhere := n.Handle("", bad); reply.Status != 202 || len(elsewhere) != 0 {
			t.Errorf("forged: got %+v, %v", reply, elsewhere)
		}
	}
	if _, elsewhere := n.Handle("", notice("sub-9", "s3cret", "")); len(elsewhere) != 1 || !elsewhere[0].From("s3cret") {
		t.Errorf("another's: got %+v", elsewhere)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := in.Wait(ctx); err == nil {
		t.Error("a forged notice woke the reader")
	}
	g.put("a", "f-in", "x", 0)
	for range 3 { // told more than once: woken once
		n.Handle("", notice("sub-1", "s3cret", ""))
	}
	if err := in.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	g.requests()
	if got := k.all(in, &at); got != "a=x" {
		t.Errorf("got %q", got)
	}
	if s := g.requests(); len(s) != 2 {
		t.Errorf("it took %v", s)
	}
}

func TestSubscriptionIsKeptAlive(t *testing.T) {
	g := newMailGraph(t)
	k := &keeper{t, map[string]bool{}, nil}
	in, n := pushing(t, g, k)
	var at provider.Cursor
	step := func(want ...string) {
		t.Helper()
		g.requests()
		k.all(in, &at)
		var got []string
		for _, s := range g.requests() {
			if strings.Contains(s, "subscriptions") {
				got = append(got, s)
			}
		}
		if !slices.Equal(got, want) || !in.Pushes() {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	step("POST /v1.0/subscriptions")
	step()
	n.Handle("", notice("sub-1", "s3cret", "missed"))
	step()
	n.Handle("", notice("sub-1", "s3cret", "reauthorizationRequired"))
	step("POST /v1.0/subscriptions/sub-1/reauthorize")
	n.Handle("", notice("sub-1", "s3cret", "subscriptionRemoved"))
	step("POST /v1.0/subscriptions")
	age := func(left time.Duration) {
		p := in.(*inbox).read(at)
		s := p.Subs["f-in"]
		s.Until = time.Now().Add(left)
		p.Subs["f-in"] = s
		at = p.cursor()
	}
	age(subAhead - time.Minute)
	step("PATCH /v1.0/subscriptions/sub-2")
	age(-time.Minute)
	step("POST /v1.0/subscriptions")
	delete(g.subs, "sub-3")
	age(time.Minute)
	step("PATCH /v1.0/subscriptions/sub-3", "POST /v1.0/subscriptions")

	// Another process goes on with it; a new secret makes a new one.
	in.Close()
	if _, elsewhere := n.Handle("", notice("sub-4", "s3cret", "")); len(elsewhere) != 1 {
		t.Error("a closed reader still hears")
	}
	in, _ = pushing(t, g, k)
	step()
	in.(*inbox).r.PushSecret = "another"
	step("POST /v1.0/subscriptions")
}

func TestWithoutSubscriptionItIsPolled(t *testing.T) {
	g := newMailGraph(t)
	g.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasPrefix(r.URL.Path, "/v1.0/subscriptions") {
			fail(w, 400, "InvalidRequest", "Subscription validation request failed.")
			return true
		}
		return false
	}
	g.put("a", "f-in", "x", 0)
	k := &keeper{t, map[string]bool{}, nil}
	in, _ := pushing(t, g, k)
	var at provider.Cursor
	if got := k.all(in, &at); got != "a=x" || in.Pushes() {
		t.Errorf("got %q", got)
	}
	g.requests()
	k.all(in, &at)
	if s := g.requests(); len(s) != 1 {
		t.Errorf("asked at once again: %v", s)
	}
	in.(*inbox).pushAgain = time.Now()
	g.answer = nil
	k.all(in, &at)
	if !in.Pushes() {
		t.Error("not asked for again")
	}
}

func TestWaitPolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			poll   time.Duration
			pushed bool
			want   time.Duration
		}{{0, false, time.Minute}, {10 * time.Second, false, 10 * time.Second}, {0, true, 5 * time.Minute}, {time.Hour, true, time.Hour}} {
			b := &inbox{r: provider.Reading{Poll: c.poll}, pushed: c.pushed}
			began := time.Now()
			if err := b.Wait(t.Context()); err != nil || time.Since(began) != c.want {
				t.Errorf("%+v: got %v, %v", c, time.Since(began), err)
			}
		}
	})
}

func TestNoticeAddressIsValidated(t *testing.T) {
	n := NewNotices()
	for token, want := range map[string]Reply{
		"Validation: Testing client application reachability for subscription Request-Id: 1": {200, "text/plain; charset=utf-8", "Validation: Testing client application reachability for subscription Request-Id: 1"},
		"<script>alert(1)</script>":     {200, "text/plain; charset=utf-8", "<script>alert(1)</script>"},
		"a\r\nSet-Cookie: x":            {400, "", ""},
		strings.Repeat("x", 1+tokenMax): {400, "", ""},
	} {
		if got, _ := n.Handle(token, nil); got != want {
			t.Errorf("%.40q: got %+v", token, got)
		}
	}
	for _, body := range []string{"", "x", "[]", `{"value":{}}`, `{"value":[{"subscriptionId":1}]}`} {
		if got, _ := n.Handle("", []byte(body)); got.Status != 400 {
			t.Errorf("%q: got %+v", body, got)
		}
	}
}

func FuzzParseNotices(f *testing.F) {
	f.Add(notice("sub-1", "s", ""))
	f.Add([]byte(`{"value":[{}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		n := NewNotices()
		b := n.open("s")
		b.hears("sub-1")
		list, err := ParseNotices(body)
		if err != nil {
			return
		}
		elsewhere := n.Ring(list)
		rung := len(b.tell) > 0
		for _, x := range list {
			if x.Subscription == "sub-1" && x.From("s") {
				rung = !rung
				break
			}
		}
		if rung || len(elsewhere) > len(list) {
			t.Errorf("rung for %q", body)
		}
	})
}

func TestReaderNeedsItsSettings(t *testing.T) {
	g := newMailGraph(t)
	for _, change := range []func(*provider.Way){
		func(w *provider.Way) { w.Settings.GraphURL = "" },
		func(w *provider.Way) { w.Settings.Resources = nil },
	} {
		w := g.way(mailgrant.MailboxOwn, mailgrant.FlowCode)
		change(&w)
		_, err := Reader(ReadConfig{}).Open(t.Context(), w, provider.Reading{})
		if e := mailgrant.AsError(err); e == nil || e.Code != mailgrant.Misset || e.Remedy == "" {
			t.Errorf("got %v", err)
		}
		if _, err := folders(t.Context(), w); !errors.Is(err, mailgrant.Misset) {
			t.Errorf("got %v", err)
		}
	}
	w := g.way(mailgrant.MailboxOwn, mailgrant.FlowCode)
	g.Close()
	_, err := Reader(ReadConfig{}).Open(t.Context(), w, provider.Reading{})
	if got := trouble(err); got != "[unavailable network-unreachable]" {
		t.Errorf("nobody there: got %s", got)
	}
}
