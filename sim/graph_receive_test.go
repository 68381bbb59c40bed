package sim_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant/sim"
)

// items is the list of an answer.
func (a *answer) items() (list []map[string]any) {
	var doc struct{ Value []map[string]any }
	json.Unmarshal(a.body, &doc)
	return doc.Value
}

func subjects(list []map[string]any) string {
	var all []string
	for _, m := range list {
		if m["@removed"] != nil {
			all = append(all, "-")
			continue
		}
		all = append(all, fmt.Sprint(m["subject"]))
	}
	return strings.Join(all, " ")
}

const immutable = `IdType="ImmutableId"`

func TestGraphFolders(t *testing.T) {
	e := start(t, contoso(func(t *sim.Tenant) {
		t.Mailboxes[2].Language, t.Mailboxes[2].Folders = "fr", []string{"Boîte de réception/Factures"}
	}))
	token := e.userToken(kim, graphHost+"Mail.ReadWrite")
	a := e.graph(token, "GET", "/me/mailFolders/inbox?$select=displayName,childFolderCount", "", "")
	if a.text("displayName") != "Boîte de réception" || a.doc["childFolderCount"] != 1.0 || a.doc["totalItemCount"] != nil {
		t.Errorf("well-known: got %s", a.body)
	}
	a = e.graph(token, "GET", "/me/mailFolders('inbox')/childFolders", "", "")
	if list := a.items(); len(list) != 1 || list[0]["displayName"] != "Factures" {
		t.Fatalf("below: got %s", a.body)
	}
	id := a.items()[0]["id"].(string)
	if a = e.graph(token, "GET", "/me/mailFolders/"+url.PathEscape(id), "", ""); a.text("displayName") != "Factures" {
		t.Errorf("by id: got %s", a.body)
	}
	a = e.graph(token, "POST", "/me/mailFolders/"+url.PathEscape(id)+"/childFolders", jsonType, `{"displayName":"2026"}`)
	if a.status != 201 || a.text("parentFolderId") != id {
		t.Errorf("made: got %d %s", a.status, a.body)
	}
	e.wantGraph("made twice", e.graph(token, "POST", "/me/mailFolders/"+url.PathEscape(id)+"/childFolders", jsonType, `{"displayName":"2026"}`), 409, "ErrorFolderExists", "")
	e.wantGraph("no such folder", e.graph(token, "GET", "/me/mailFolders/attic", "", ""), 404, "ErrorItemNotFound", "")
}

func TestGraphMessages(t *testing.T) {
	e := start(t)
	token := e.userToken(kim, graphHost+"Mail.ReadWrite")
	one := e.deliver(kim, "One")
	e.Advance(time.Minute)
	e.deliver(kim, "Two")
	a := e.graph(token, "GET", "/me/mailFolders/inbox/messages?$orderby=receivedDateTime+asc&$select=subject", "", "")
	if list := a.items(); subjects(list) != "One Two" || list[0]["id"] != one.ID {
		t.Errorf("oldest first: got %s", a.body)
	}
	since := url.QueryEscape("receivedDateTime gt " + one.At.UTC().Format(time.RFC3339Nano) + " and isRead eq false")
	if a = e.graph(token, "GET", "/me/messages?$filter="+since, "", ""); subjects(a.items()) != "Two" {
		t.Errorf("filtered: got %s", a.body)
	}
	for _, skip := range []string{"2", "9223372036854775807"} {
		if a = e.graph(token, "GET", "/me/messages?$skip="+skip, "", ""); len(a.items()) != 0 || a.text("@odata.nextLink") != "" {
			t.Errorf("behind the last: got %s", a.body)
		}
	}
	for _, q := range []string{"$top=-1", "$top=x", "$skip=-1", "$filter=size+gt+5", "$orderby=subject"} {
		if a = e.graph(token, "GET", "/me/messages?"+q, "", ""); a.status != 400 {
			t.Errorf("%s: got %d %s", q, a.status, a.body)
		}
	}
	a = e.graph(token, "GET", "/me/messages/"+url.PathEscape(one.ID), "", "", "Prefer", immutable)
	if a.text("id") != one.ImmutableID || a.doc["isRead"] != false || a.text("receivedDateTime") == "" {
		t.Errorf("immutable: got %s", a.body)
	}
	if a = e.graph(token, "GET", "/me/messages/"+url.PathEscape(one.ImmutableID)+"/$value", "", "", "Prefer", immutable); string(a.body) != string(one.Raw) {
		t.Errorf("$value: got %s", a.body)
	}
	at := "/me/messages/" + url.PathEscape(one.ImmutableID)
	if a = e.graph(token, "PATCH", at, jsonType, `{"isRead":true,"flag":{"flagStatus":"flagged"}}`); a.status != 200 || a.doc["isRead"] != true {
		t.Errorf("mark: got %d %s", a.status, a.body)
	}
	if flags := e.Mail(kim)[0].Flags; strings.Join(flags, " ") != `\Seen \Flagged` {
		t.Errorf("marked: got %v", flags)
	}
	a = e.graph(token, "POST", at+"/move", jsonType, `{"destinationId":"archive"}`)
	if a.status != 201 || a.text("id") == one.ID || len(e.MailIn(kim, sim.FolderArchive)) != 1 {
		t.Errorf("move: got %d %s", a.status, a.body)
	}
	e.wantGraph("the old id", e.graph(token, "GET", "/me/messages/"+url.PathEscape(one.ID), "", ""), 404, "ErrorItemNotFound", "The specified object was not found in the store.")
	if b := e.graph(token, "POST", "/me/translateExchangeIds", jsonType, `{"inputIds":["`+a.text("id")+`","x"],"sourceIdType":"restId","targetIdType":"restImmutableEntryId"}`); b.items()[0]["targetId"] != one.ImmutableID || b.items()[1]["errorDetails"] == nil {
		t.Errorf("translate: got %s", b.body)
	}
	e.wantGraph("to nowhere", e.graph(token, "POST", at+"/move", jsonType, `{"destinationId":"attic"}`), 404, "ErrorItemNotFound", "")
	if a = e.graph(token, "POST", at+"/copy", jsonType, `{"destinationId":"deleteditems"}`); a.status != 201 || len(e.MailIn(kim, sim.FolderDeleted)) != 1 {
		t.Errorf("copy: got %d %s", a.status, a.body)
	}
	if a = e.graph(token, "DELETE", at, "", ""); a.status != 204 || len(e.MailIn(kim, sim.FolderArchive)) != 0 {
		t.Errorf("delete: got %d %s", a.status, a.body)
	}
	e.wantGraph("delete again", e.graph(token, "DELETE", at, "", ""), 404, "ErrorItemNotFound", "")
	e.wantGraph("malformed", e.graph(token, "GET", "/me/messages/x", "", ""), 400, "ErrorInvalidIdMalformed", "Id is malformed.")
}

func TestGraphWhoMayReadMail(t *testing.T) {
	e := start(t, contoso(func(t *sim.Tenant) {
		for _, a := range t.Apps {
			a.Delegated = append(a.Delegated, "Mail.Read", "Mail.Read.Shared", "Mail.ReadBasic")
		}
	}))
	basic, read := e.userToken(kim, graphHost+"Mail.ReadBasic"), e.userToken(kim, graphHost+"Mail.Read")
	shared, app := e.userToken(kim, graphHost+"Mail.Read.Shared"), e.appToken("https://graph.microsoft.com")
	id := url.PathEscape(e.deliver(kim, "One").ImmutableID)
	state := e.World().State()
	role := func(name string) func(*sim.Tenant) {
		return func(t *sim.Tenant) {
			t.Consents, t.Assignments = nil, []sim.RoleAssignment{{App: sim.ContosoSystemClientID, Role: name, Scope: []string{kim}}}
		}
	}
	for _, c := range []struct {
		what, token, method, path string
		status                    int
		change                    func(*sim.Tenant)
	}{
		{"basic lists", basic, "GET", "/me/messages", 200, nil},
		{"basic has no bytes", basic, "GET", "/me/messages/" + id + "/$value", 403, nil},
		{"read has", read, "GET", "/me/messages/" + id + "/$value", 200, nil},
		{"read does not change", read, "DELETE", "/me/messages/" + id, 403, nil},
		{"somebody else's", read, "GET", "/users/sam@contoso.example/messages", 403, nil},
		{"shared without the scope", read, "GET", "/users/office@contoso.example/messages", 403, nil},
		{"shared with it", shared, "GET", "/users/office@contoso.example/mailFolders/inbox/messages/delta", 200, nil},
		{"shared without the right", shared, "GET", "/users/noreply@contoso.example/messages", 403, nil},
		{"app", app, "GET", "/users/kim@contoso.example/mailFolders/inbox/messages/delta", 200, nil},
		{"app as me", app, "GET", "/me/messages", 400, nil},
		{"app by policy", app, "GET", "/users/kim@contoso.example/messages", 403, func(t *sim.Tenant) {
			t.Policies = []sim.AccessPolicy{{App: sim.ContosoSystemClientID, Right: "DenyAccess", Members: []string{kim}}}
		}},
		{"app by role", "", "GET", "/users/kim@contoso.example/messages/" + id + "/$value", 200, role("Application Mail.ReadWrite")},
		{"app by role elsewhere", "", "GET", "/users/sam@contoso.example/messages", 403, role("Application Mail.Read")},
		{"app by role for less", "", "DELETE", "/users/kim@contoso.example/messages/" + id, 403, role("Application Mail.Read")},
	} {
		e.World().Replace(state)
		if c.change != nil {
			e.World().ChangeTenant("contoso.example", c.change)
		}
		token := c.token
		if token == "" {
			token = e.appToken("https://graph.microsoft.com")
		}
		if a := e.graph(token, c.method, c.path, "", ""); a.status != c.status {
			t.Errorf("%s: got %d %s, want %d", c.what, a.status, a.body, c.status)
		}
	}
}

func TestGraphDelta(t *testing.T) {
	e := start(t)
	token := e.userToken(kim, graphHost+"Mail.ReadWrite")
	var made []sim.Message
	for i := range 5 {
		made = append(made, e.deliver(kim, fmt.Sprint("M", i)))
	}
	const first = "/me/mailFolders('Inbox')/messages/delta?$select=subject,isRead"
	get := func(at string) *answer {
		t.Helper()
		if strings.HasPrefix(at, "/") {
			at = e.GraphURL() + "/v1.0" + at
		}
		return e.do("GET", at, "", nil, "Authorization", "Bearer "+token, "Prefer", "odata.maxpagesize=2, "+immutable)
	}
	// round goes over all pages and returns what they told, and the link that ends them.
	round := func(at string) (told []map[string]any, link string, pages int) {
		t.Helper()
		for {
			a := get(at)
			if a.status != 200 || len(a.items()) > 2 {
				t.Fatalf("got %d %s", a.status, a.body)
			}
			pages++
			told = append(told, a.items()...)
			if link = a.text("@odata.deltaLink"); link != "" {
				return told, link, pages
			}
			at = a.text("@odata.nextLink")
		}
	}
	a := get(first)
	if a.header.Get("Preference-Applied") == "" || !strings.Contains(a.text("@odata.nextLink"), "$skiptoken=") {
		t.Errorf("got %v %s", a.header, a.body)
	}
	e.deliver(kim, "M5") // comes while the first round goes on
	told, link, _ := round(a.text("@odata.nextLink"))
	if told = append(a.items(), told...); subjects(told) != "M4 M3 M2 M1 M0" || told[4]["id"] != made[0].ImmutableID || !strings.Contains(link, "$deltatoken=") || told[0]["isRead"] != false || told[0]["body"] != nil {
		t.Errorf("first round: got %s, %v", subjects(told), told)
	}
	told, link, _ = round(link)
	if subjects(told) != "M5" {
		t.Errorf("what came meanwhile: got %v", told)
	}
	if told, again, pages := round(link); len(told) != 0 || pages != 1 || again == "" {
		t.Errorf("nothing new: got %v", told)
	}
	e.SetFlags(made[1].ImmutableID, sim.FlagSeen)
	e.Expunge(made[0].ID)
	e.Move(made[2].ID, sim.FolderArchive)
	e.deliver(kim, "M6")
	e.SetFlags(made[1].ImmutableID, sim.FlagSeen, `\Flagged`)
	told, link, pages := round(link)
	if subjects(told) != "- - M6 M1" || pages != 2 || told[0]["id"] != made[0].ImmutableID || told[3]["isRead"] != true || fmt.Sprint(told[0]["@removed"]) != "map[reason:deleted]" {
		t.Errorf("changes: got %s in %d pages, %v", subjects(told), pages, told)
	}
	filtered := first + "&changeType=created&$filter=" + url.QueryEscape("receivedDateTime ge "+e.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	told, later, _ := round(filtered)
	if len(told) != 0 {
		t.Errorf("filtered: got %v", told)
	}
	e.SetFlags(made[1].ImmutableID)
	e.Advance(2 * time.Hour)
	token = e.userToken(kim, graphHost+"Mail.ReadWrite")
	e.deliver(kim, "M7")
	if told, _, _ := round(later); subjects(told) != "M7" {
		t.Errorf("only what is created: got %v", told)
	}
	for what, q := range map[string]string{"search": "$search=x", "another filter": "$filter=" + url.QueryEscape("isRead eq false"), "a word": "$filter=x", "token": "$deltatoken=x", "change": "changeType=all"} {
		if a := get("/me/mailFolders/inbox/messages/delta?" + q); a.status != 400 || a.code() != "BadRequest" {
			t.Errorf("%s: got %d %s", what, a.status, a.body)
		}
	}
	e.SetFault(sim.Fault{Name: "graph-410", Times: 1})
	e.wantGraph("on request", get(link), 410, "syncStateNotFound", "resync is required")
	if told, _, _ := round(link); subjects(told) != "M1 M7" {
		t.Errorf("afterwards: got %v", told)
	}
	e.ResetUIDValidity(kim, "")
	e.wantGraph("numbered anew", get(link), 410, "syncStateNotFound", "")
	e.World().ChangeKnobs(func(k *sim.Knobs) { k.GraphDeltaOldestFirst = true })
	told, link, _ = round(first)
	if subjects(told) != "M1 M3 M4 M5 M6 M7" {
		t.Errorf("oldest first: got %s", subjects(told))
	}
	change := func(times int) {
		for range times {
			e.SetFlags(made[1].ImmutableID, sim.FlagSeen)
			e.SetFlags(made[1].ImmutableID)
		}
	}
	change(99_900)
	if told, _, _ := round(link); subjects(told) != "M1" {
		t.Errorf("many changes: got %v", told)
	}
	change(100)
	e.wantGraph("too many changes", get(link), 410, "syncStateNotFound", "")
}

// A hook is the address of a client that Graph calls.
type hook struct {
	*httptest.Server
	mu     sync.Mutex
	status int
	silent bool // does not say the token
	got    chan map[string]any
}

// newHook has the certificate of httptest unless it is given one.
func newHook(t *testing.T, cert ...tls.Certificate) *hook {
	h := &hook{status: 202, got: make(chan map[string]any, 100)}
	h.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		defer h.mu.Unlock()
		if token := r.URL.Query().Get("validationToken"); token != "" {
			w.Header().Set("Content-Type", "text/plain")
			if !h.silent {
				io.WriteString(w, token)
			}
			return
		}
		w.WriteHeader(h.status)
		if h.status != 202 {
			return
		}
		var doc struct{ Value []map[string]any }
		json.NewDecoder(r.Body).Decode(&doc)
		for _, n := range doc.Value {
			h.got <- n
		}
	}))
	h.TLS = &tls.Config{Certificates: cert}
	h.StartTLS()
	t.Cleanup(h.Close)
	return h
}

func (h *hook) answer(status int, silent bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.status, h.silent = status, silent
}

func (e *env) heard(h *hook) map[string]any {
	e.Helper()
	select {
	case n := <-h.got:
		return n
	case <-e.ctx.Done():
		e.Fatal("nothing was heard")
		return nil
	}
}

func TestGraphSubscriptions(t *testing.T) {
	h := newHook(t)
	e := startWith(t, sim.Config{Trust: []*x509.Certificate{h.Certificate()}})
	token := e.userToken(kim, graphHost+"Mail.ReadWrite")
	doc := func(pairs ...string) string {
		d := map[string]string{"changeType": "created", "notificationUrl": h.URL + "/hook?tenant=1", "lifecycleNotificationUrl": h.URL + "/life",
			"resource": "me/mailFolders('Inbox')/messages", "expirationDateTime": e.Now().Add(24 * time.Hour).Format(time.RFC3339), "clientState": "s3cret"}
		for i := 0; i+1 < len(pairs); i += 2 {
			d[pairs[i]] = pairs[i+1]
		}
		b, _ := json.Marshal(d)
		return string(b)
	}
	post := func(pairs ...string) *answer {
		return e.graph(token, "POST", "/subscriptions", jsonType, doc(pairs...), "Prefer", immutable)
	}
	for _, c := range [][3]string{
		{"changeType", "moved", "Invalid 'changeType'"},
		{"resource", "me/events", "Invalid resource"},
		{"resource", "users/('')/messages", "Invalid resource"},
		{"resource", "me/mailFolders/inbox/events", "Invalid resource"},
		{"expirationDateTime", "soon", "expirationDateTime"},
		{"expirationDateTime", e.Now().Add(-time.Hour).Format(time.RFC3339), "must be in the future"},
		{"expirationDateTime", e.Now().Add(8 * 24 * time.Hour).Format(time.RFC3339), "can only be 10080 minutes in the future"},
		{"clientState", strings.Repeat("x", 129), "128"},
		{"notificationUrl", "http://hooks.example/x", "https"},
		{"notificationUrl", "http://localhost:8080/x", "https"},
		{"notificationUrl", "https://192.0.2.1/x", "Unable to connect"},
		{"notificationUrl", "https://localhost:1/x", "Unable to connect"},
	} {
		e.wantGraph(c[0]+" "+c[1], post(c[0], c[1]), 400, "ValidationError", c[2])
	}
	app := e.appToken("https://graph.microsoft.com")
	for _, resource := range []string{"me/messages", "users//messages", "users/('')/messages", "users"} {
		e.wantGraph("an app and "+resource, e.graph(app, "POST", "/subscriptions", jsonType, doc("resource", resource)), 400, "ValidationError", "Invalid resource")
	}
	h.answer(202, true)
	e.wantGraph("a client that does not say the token", post(), 400, "ValidationError", "must exactly match validationToken")
	h.answer(202, false)
	e.wantGraph("somebody else's", post("resource", "users/sam@contoso.example/messages"), 403, "ErrorAccessDenied", "")
	a := post()
	id := a.text("id")
	if a.status != 201 || id == "" || a.text("clientState") != "s3cret" || a.text("applicationId") != sim.ContosoClientID || e.Counts()["graph.validations"] < 2 {
		t.Fatalf("got %d %s", a.status, a.body)
	}
	if short := post("expirationDateTime", e.Now().Add(time.Minute).Format(time.RFC3339), "changeType", "updated, deleted", "lifecycleNotificationUrl", ""); short.status != 201 {
		t.Errorf("a short one: got %d %s", short.status, short.body)
	} else if at, _ := time.Parse(time.RFC3339, short.text("expirationDateTime")); at.Sub(e.Now()) < 44*time.Minute {
		t.Errorf("a short one is made longer: got %s", short.body)
	} else {
		e.graph(token, "DELETE", "/subscriptions/"+short.text("id"), "", "")
	}

	m := e.deliver(kim, "One")
	n := e.heard(h)
	data, _ := n["resourceData"].(map[string]any)
	if n["subscriptionId"] != id || n["clientState"] != "s3cret" || n["changeType"] != "created" || n["tenantId"] != sim.ContosoTenantID || data["id"] != m.ImmutableID ||
		n["resource"] != "Users/a0f1c2d3-0003-4a5b-8c6d-7e8f90a1b2c3/Messages/"+m.ImmutableID || data["@odata.type"] != "#Microsoft.Graph.Message" {
		t.Errorf("a notification: got %v", n)
	}
	e.SetFlags(m.ID, sim.FlagSeen) // not asked for
	if _, err := e.DeliverMail(sim.Delivery{To: kim, Raw: m.Raw, Folder: sim.FolderJunk}); err != nil {
		t.Fatal(err)
	}
	e.SetFault(sim.Fault{Name: "graph-notify-lost", Times: 1})
	e.deliver(kim, "Lost")
	if err := e.WaitCount(e.ctx, "graph.notifications_lost", 1); err != nil {
		t.Fatal(err)
	}
	e.SetFault(sim.Fault{Name: "graph-notify-twice", Times: 1})
	two := e.deliver(kim, "Two")
	for range 2 {
		if n := e.heard(h); n["resourceData"].(map[string]any)["id"] != two.ImmutableID {
			t.Errorf("twice the same: got %v", n)
		}
	}
	e.SetFault(sim.Fault{Name: "graph-notify-foreign", Times: 1})
	e.deliver(kim, "Three")
	if n := e.heard(h); n["clientState"] != "not-yours" {
		t.Errorf("forged: got %v", n)
	}
	h.answer(503, false)
	four := e.deliver(kim, "Four")
	if err := e.WaitCount(e.ctx, "graph.notifications_failed", 1); err != nil {
		t.Fatal(err)
	}
	h.answer(202, false)
	e.Advance(10 * time.Second)
	if n := e.heard(h); n["resourceData"].(map[string]any)["id"] != four.ImmutableID {
		t.Errorf("again: got %v", n)
	}

	lifecycle := func(event string) *answer {
		return e.control("POST", "/subscriptions/"+id+"/lifecycle", `{"event":"`+event+`"}`)
	}
	for _, event := range []string{sim.LifecycleMissed, sim.LifecycleReauthorize} {
		if a := lifecycle(event); a.status != 204 {
			t.Errorf("%s: got %d %s", event, a.status, a.body)
		}
		if n := e.heard(h); n["lifecycleEvent"] != event || n["subscriptionId"] != id || n["clientState"] != "s3cret" {
			t.Errorf("%s: got %v", event, n)
		}
	}
	if a := lifecycle("tired"); a.status != 400 {
		t.Errorf("unknown event: got %d %s", a.status, a.body)
	}
	at := "/subscriptions/" + id
	if a := e.graph(token, "POST", at+"/reauthorize", "", ""); a.status != 204 {
		t.Errorf("reauthorize: got %d %s", a.status, a.body)
	}
	until := e.Now().Add(72 * time.Hour).UTC().Truncate(time.Second)
	if a := e.graph(token, "PATCH", at, jsonType, `{"expirationDateTime":"`+until.Format(time.RFC3339)+`"}`); a.status != 200 || a.text("expirationDateTime") != until.Format("2006-01-02T15:04:05.0000000Z") {
		t.Errorf("renew: got %d %s", a.status, a.body)
	}
	e.wantGraph("another lifecycle address", e.graph(token, "PATCH", at, jsonType, `{"lifecycleNotificationUrl":"`+h.URL+`"}`), 400, "ValidationError", "")
	if a := e.graph(token, "GET", "/subscriptions", "", ""); len(a.items()) != 1 || len(e.Subscriptions()) != 1 {
		t.Errorf("list: got %s", a.body)
	}
	if a := lifecycle(sim.LifecycleRemoved); a.status != 204 {
		t.Errorf("removed: got %d %s", a.status, a.body)
	}
	if n := e.heard(h); n["lifecycleEvent"] != "subscriptionRemoved" {
		t.Errorf("removed: got %v", n)
	}
	for _, method := range []string{"GET", "PATCH", "DELETE"} {
		e.wantGraph(method+" once it is removed", e.graph(token, method, at, jsonType, "{}"), 404, "ResourceNotFound", "")
	}
	id = post().text("id")
	e.Advance(25 * time.Hour)
	token = e.userToken(kim, graphHost+"Mail.ReadWrite")
	e.wantGraph("at its end", e.graph(token, "GET", "/subscriptions/"+id, "", ""), 404, "ResourceNotFound", "")
	e.deliver(kim, "Five")
	if len(e.Subscriptions()) != 0 || len(h.got) != 0 {
		t.Errorf("it goes on: %v", e.Subscriptions())
	}
	e.World().ChangeKnobs(func(k *sim.Knobs) { k.GraphSubscriptions = 1 })
	post()
	e.wantGraph("one too many", post(), 403, "ExtensionError", "")
	e.Advance(25 * time.Hour)
	token = e.userToken(kim, graphHost+"Mail.ReadWrite")
	if a := post(); a.status != 201 {
		t.Errorf("what ended makes room: got %d %s", a.status, a.body)
	}

	e.World().ChangeKnobs(func(k *sim.Knobs) {
		k.GraphSubscriptions, k.GraphSubscriptionMax, k.GraphValidation, k.GraphNotifyTimeout, k.GraphNotifyRetry = -1, -1, -1, -1, -1
	})
	if a := post("expirationDateTime", e.Now().Add(1000*time.Hour).Format(time.RFC3339), "changeType", "deleted"); a.status != 201 {
		t.Errorf("without limits: got %d %s", a.status, a.body)
	}
	failed := e.Counts()["graph.notifications_failed"]
	h.answer(503, false)
	e.Expunge(four.ID)
	if err := e.WaitCount(e.ctx, "graph.notifications_failed", failed+1); err != nil {
		t.Fatal(err)
	}
	h.answer(202, false)
	e.Expunge(two.ID)
	if n := e.heard(h); n["resourceData"].(map[string]any)["id"] != two.ImmutableID {
		t.Errorf("one that was not taken comes again without a retry: got %v", n)
	}
}

// A notification address needs a good certificate, as with Microsoft.
func TestGraphNotifiesWhereTheCertificateIsGood(t *testing.T) {
	dir := t.TempDir()
	e := startWith(t, sim.Config{Dir: dir})
	token := e.userToken(kim, graphHost+"Mail.Read")
	subscribe := func(to string) *answer {
		return e.graph(token, "POST", "/subscriptions", jsonType, `{"changeType":"created","resource":"me/messages","notificationUrl":"`+to+
			`","expirationDateTime":"`+e.Now().Add(time.Hour).Format(time.RFC3339)+`"}`)
	}
	e.wantGraph("of nobody known", subscribe(newHook(t).URL), 400, "ValidationError", "Could not create SSL/TLS secure channel.")

	ca, err := tls.LoadX509KeyPair(filepath.Join(dir, "ca.pem"), filepath.Join(dir, "ca-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	signed := func(leaf x509.Certificate) string {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.CreateCertificate(rand.Reader, &leaf, ca.Leaf, key.Public(), ca.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		h := newHook(t, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key})
		return strings.Replace(h.URL, "127.0.0.1", "localhost", 1)
	}
	good := x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(time.Hour)}
	old, other := good, good
	old.NotAfter, other.DNSNames = now.Add(-time.Hour), []string{"hooks.contoso.example"}
	if a := subscribe(signed(good)); a.status != 201 {
		t.Errorf("of the sim's own authority: got %d %s", a.status, a.body)
	}
	e.wantGraph("run out", subscribe(signed(old)), 400, "ValidationError", "Could not create SSL/TLS secure channel.")
	e.wantGraph("of another name", subscribe(signed(other)), 400, "ValidationError", "Could not create SSL/TLS secure channel.")
}

func TestGraphReadingFaults(t *testing.T) {
	e := start(t)
	token := e.userToken(kim, graphHost+"Mail.ReadWrite")
	m := e.deliver(kim, "One")
	const delta = "/mailFolders/inbox/messages/delta"
	for range 2 {
		a := e.graph(token, "GET", "/users/kim+throttled2@contoso.example"+delta, "", "")
		e.wantGraph("by address", a, 429, "ApplicationThrottled", "Application is over its MailboxConcurrency limit.")
		if a.header.Get("Retry-After") != "10" || a.header.Get("request-id") == "" {
			t.Errorf("got %v", a.header)
		}
	}
	if a := e.graph(token, "GET", "/users/kim+throttled2@contoso.example"+delta, "", ""); a.status != 200 {
		t.Errorf("then it is let through: got %d %s", a.status, a.body)
	}
	e.SetFault(sim.Fault{Name: "graph-half", Times: 1})
	if a, err := e.try("GET", e.GraphURL()+"/v1.0/me/messages/"+url.PathEscape(m.ID)+"/$value", "", nil, "Authorization", "Bearer "+token); err == nil {
		t.Errorf("half an answer: got %d %s", a.status, a.body)
	}
	e.SetFault(sim.Fault{Name: "graph-lost-move", Times: 1})
	if a, err := e.try("POST", e.GraphURL()+"/v1.0/me/messages/"+url.PathEscape(m.ID)+"/move", jsonType, []byte(`{"destinationId":"archive"}`), "Authorization", "Bearer "+token); err == nil {
		t.Errorf("a lost answer: got %d %s", a.status, a.body)
	}
	if len(e.MailIn(kim, sim.FolderArchive)) != 1 {
		t.Error("the message did not move")
	}
}
