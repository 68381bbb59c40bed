package api_test

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
	"github.com/mailgrant/mailgrant/docs"
)

// An operation is one of the document: what the walks go by.
type operation struct {
	method, path string
	ID           string                `yaml:"operationId"`
	Security     []map[string][]string `yaml:"security"`
	Description  string                `yaml:"description"`
	Body         *struct {
		Content map[string]any `yaml:"content"`
	} `yaml:"requestBody"`
}

func (o operation) operator() bool { return strings.HasPrefix(o.Description, "Only the operator") }

// public says whether no key is needed.
func (o operation) public() bool {
	return slices.ContainsFunc(o.Security, func(m map[string][]string) bool { return len(m) == 0 })
}

func (o operation) scopes() (list []mailgrant.Scope) {
	for _, m := range o.Security {
		for _, s := range m["key"] {
			list = append(list, mailgrant.Scope(s))
		}
	}
	return list
}

// body is the least that the operation reads.
func (o operation) body() string {
	if o.Body != nil {
		return "{}"
	}
	return ""
}

func operations(t *testing.T) (all []operation) {
	t.Helper()
	var doc struct {
		Paths map[string]map[string]operation `yaml:"paths"`
	}
	must(t, yaml.Unmarshal(docs.OpenAPI, &doc))
	for path, item := range doc.Paths {
		for method, o := range item {
			o.method, o.path = strings.ToUpper(method), path
			all = append(all, o)
		}
	}
	slices.SortFunc(all, func(a, b operation) int { return strings.Compare(a.path+a.method, b.path+b.method) })
	if len(all) < 50 {
		t.Fatalf("only %d operations are in the document", len(all))
	}
	return all
}

var pathPart = regexp.MustCompile(`\{(\w+)\}`)

// fill puts ids into the path.
func (o operation) fill(ids map[string]string) string {
	return pathPart.ReplaceAllStringFunc(o.path, func(p string) string { return ids[p[1:len(p)-1]] })
}

// somebodyElse has one of everything.
func somebodyElse(t *testing.T, r *rig) map[string]string {
	t.Helper()
	ctx := t.Context()
	org := r.organization("Fabrikam")
	g := r.active(org, "info@fabrikam.example")
	m := r.mailbox(org, "info@fabrikam.example", mailgrant.RoleGlobal)
	a := r.app(org, nil)
	key := r.keyOf(a, mailgrant.ScopeSend)
	keys, err := r.store.Keys(ctx, org, a.ID)
	must(t, err)
	reg, err := r.op(org).Registration(ctx, g.Registration)
	must(t, err)
	person, err := r.op(org).CreateGrant(ctx, client.GrantSettings{Registration: &reg.ID, Mailbox: pointer("kim@fabrikam.example")})
	must(t, err)
	link, err := r.op(org).Link(ctx, person.ID, "consent")
	must(t, err)
	sub, err := r.client(key).Send(ctx, client.Message{From: m.Address, To: []string{"kim@contoso.example"}, SendAt: pointer(time.Now().Add(time.Hour))})
	must(t, err)
	arrival := r.arrival(m)
	hook, err := r.op(org).CreateWebhook(ctx, client.WebhookSettings{Name: pointer("theirs"), URL: pointer("https://hooks.fabrikam.example/"), Kinds: &[]string{"admin_consent.denied"}})
	must(t, err)
	return map[string]string{"webhook": string(hook.ID), "organization": string(org), "arrival": string(arrival.ID), "attachment": "4294967", "registration": string(reg.ID), "credential": string(reg.Credentials[0].ID), "grant": string(g.ID),
		"mailbox": string(m.ID), "app": string(a.ID), "key": string(keys[0].ID), "submission": string(sub.ID), "flow": string(mailgrant.NewID(mailgrant.PrefixFlow)), "link": string(link.ID), "cause": "no-such-cause"}
}

// nobodys are ids of the same form that name nothing.
func nobodys() map[string]string {
	ids := map[string]string{"cause": "no-such-cause", "attachment": "4294967"}
	for name, prefix := range map[string]string{"webhook": "whk", "organization": "org", "registration": "reg", "credential": "crd", "grant": "gra", "mailbox": "mbx", "app": "app", "key": "key", "submission": "msg", "arrival": "arr", "flow": "flw", "link": "lnk"} {
		ids[name] = string(mailgrant.NewID(prefix))
	}
	return ids
}

// withoutIDs makes two answers comparable.
func withoutIDs(s string, ids map[string]string) string {
	for _, id := range ids {
		s = strings.ReplaceAll(s, id, "ID")
	}
	return s
}

func TestAP01_ForeignIDsLookAbsentOnEveryRoute(t *testing.T) {
	r := newRig(t)
	theirs, none := somebodyElse(t, r), nobodys()
	key := r.key(mailgrant.ScopeManage)
	walked := 0
	for _, o := range operations(t) {
		if !strings.Contains(o.path, "{") {
			continue
		}
		walked++
		foreign := r.ask(o.method, o.fill(theirs), key, o.body())
		absent := r.ask(o.method, o.fill(none), key, o.body())
		want := http.StatusNotFound
		if o.operator() {
			want = http.StatusForbidden
		}
		if foreign.status != want {
			t.Errorf("%s with foreign ids: got %d, want %d: %s", o.ID, foreign.status, want, foreign.body)
		}
		f, a := foreign.problem, absent.problem
		if foreign.status != absent.status || f.Code != a.Code || f.Field != a.Field || withoutIDs(f.Detail, theirs) != withoutIDs(a.Detail, none) || withoutIDs(f.Remedy, theirs) != withoutIDs(a.Remedy, none) {
			t.Errorf("%s: a foreign id looks different from an absent one:\n%s\n%s", o.ID, foreign.body, absent.body)
		}
	}
	if walked < 30 {
		t.Errorf("only %d routes were walked", walked)
	}
	// An own parent does not open a foreign child.
	mine := r.app(r.org, nil)
	reg := r.generic(r.org)
	r.ask("DELETE", "/v1/registrations/"+string(reg.ID)+"/credentials/"+theirs["credential"], key, "").wants(t, 404)
	r.ask("DELETE", "/v1/apps/"+string(mine.ID)+"/keys/"+theirs["key"], key, "").wants(t, 404)
	org := mailgrant.ID(theirs["organization"])
	keys, err := r.store.Keys(t.Context(), org, mailgrant.ID(theirs["app"]))
	must(t, err)
	credentials, err := r.store.Credentials(t.Context(), org, mailgrant.ID(theirs["registration"]))
	must(t, err)
	sub, err := r.store.Submission(t.Context(), org, mailgrant.ID(theirs["submission"]))
	must(t, err)
	if keys[0].RevokedAt != nil || len(credentials) != 1 || sub.State != mailgrant.SubmissionReady {
		t.Errorf("something of theirs changed: %+v, %d credentials, %s", keys[0], len(credentials), sub.State)
	}
}

func TestAP01_ForeignIDsInQueriesBodiesAndHeaders(t *testing.T) {
	r := newRig(t)
	theirs, none := somebodyElse(t, r), nobodys()
	key := r.key(mailgrant.ScopeManage)
	for name, ask := range map[string]func(ids map[string]string) reply{
		"submissions of a mailbox": func(ids map[string]string) reply {
			return r.ask("GET", "/v1/submissions?mailbox="+ids["mailbox"], key, "")
		},
		"submissions of an app": func(ids map[string]string) reply { return r.ask("GET", "/v1/submissions?app="+ids["app"], key, "") },
		"events of a subject": func(ids map[string]string) reply {
			return r.ask("GET", "/v1/events?subject="+ids["submission"], key, "")
		},
		"events of a mailbox": func(ids map[string]string) reply { return r.ask("GET", "/v1/events?mailbox="+ids["mailbox"], key, "") },
		"route": func(ids map[string]string) reply {
			return r.ask("GET", "/v1/route?from=a@b.example&mailbox="+ids["mailbox"], key, "")
		},
		"send through a mailbox": func(ids map[string]string) reply {
			return r.ask("POST", "/v1/submissions", key, `{"from":"office@contoso.example","to":["a@b.example"],"mailbox":"`+ids["mailbox"]+`"}`)
		},
		"bytes through a mailbox": func(ids map[string]string) reply {
			return r.ask("POST", "/v1/submissions?mailbox="+ids["mailbox"], key, "From: office@contoso.example\r\nTo: a@b.example\r\n\r\n", "Content-Type", "message/rfc822")
		},
		"grant of a registration": func(ids map[string]string) reply {
			return r.ask("POST", "/v1/grants", key, `{"mailbox":"a@contoso.example","registration":"`+ids["registration"]+`"}`)
		},
		"mailbox with a grant": func(ids map[string]string) reply {
			return r.ask("POST", "/v1/mailboxes", key, `{"address":"a@contoso.example","grant":"`+ids["grant"]+`"}`)
		},
		"change to a grant": func(ids map[string]string) reply {
			return r.ask("PATCH", "/v1/mailboxes/"+string(r.box.ID), key, `{"grant":"`+ids["grant"]+`"}`)
		},
		"app with a mailbox": func(ids map[string]string) reply {
			return r.ask("POST", "/v1/apps", key, `{"name":"sneaky","mailboxes":["`+ids["mailbox"]+`"]}`)
		},
		"organization in the header": func(ids map[string]string) reply {
			return r.ask("GET", "/v1/mailboxes", key, "", "Mailgrant-Organization", ids["organization"])
		},
	} {
		foreign, absent := ask(theirs), ask(none)
		f, a := foreign.problem, absent.problem
		if foreign.status != absent.status || f.Code != a.Code || withoutIDs(f.Detail, theirs) != withoutIDs(a.Detail, none) {
			t.Errorf("%s: a foreign id looks different from an absent one:\n%s\n%s", name, foreign.body, absent.body)
		}
		if strings.HasPrefix(name, "events") {
			if string(foreign.body) != `{"items":[]}`+"\n" {
				t.Errorf("%s: got %s", name, foreign.body)
			}
			continue
		}
		if foreign.status < 400 {
			t.Errorf("%s: got %d: %s", name, foreign.status, foreign.body)
		}
	}
	if n := r.sent.count(); n != 0 {
		t.Errorf("%d messages were sent", n)
	}
}

func TestAP08_EveryRouteWantsItsScope(t *testing.T) {
	r := newRig(t)
	ids := nobodys()
	every := []mailgrant.Scope{mailgrant.ScopeSend, mailgrant.ScopeRead, mailgrant.ScopeToken}
	for _, o := range operations(t) {
		path := o.fill(ids)
		if !o.public() {
			none := r.ask(o.method, path, "", o.body()).wants(t, 401)
			if none.header.Get("WWW-Authenticate") == "" {
				t.Errorf("%s: a 401 without WWW-Authenticate", o.ID)
			}
		}
		if o.operator() {
			r.ask(o.method, path, r.key(mailgrant.ScopeManage), o.body()).wants(t, 403)
			continue
		}
		if len(o.scopes()) == 0 {
			continue
		}
		others := slices.DeleteFunc(slices.Clone(every), func(s mailgrant.Scope) bool { return slices.Contains(o.scopes(), s) })
		got := r.ask(o.method, path, r.key(others...), o.body()).wants(t, 403)
		if !strings.Contains(got.problem.Remedy, "--scope "+string(o.scopes()[0])) {
			t.Errorf("%s: the remedy is %q", o.ID, got.problem.Remedy)
		}
		if ok := r.ask(o.method, path, r.key(o.scopes()[0]), o.body()); ok.status == 401 || ok.status == 403 && ok.problem.Detail != "" && strings.Contains(ok.problem.Detail, "lacks the right") {
			t.Errorf("%s with its scope: got %s", o.ID, ok.body)
		}
	}
}

func TestAP13_NoRouteIsOpenToOtherSites(t *testing.T) {
	r := newRig(t)
	key := r.key(mailgrant.ScopeManage)
	for _, o := range operations(t) {
		path := o.fill(nobodys())
		for _, origin := range []string{"https://evil.example", "null", publicURL + ".evil.example"} {
			if o.method == "GET" {
				if got := r.ask(o.method, path, key, "", "Origin", origin); got.header.Get("Access-Control-Allow-Origin") != "" || got.header.Get("Access-Control-Allow-Credentials") != "" {
					t.Errorf("%s lets %s in: %v", o.ID, origin, got.header)
				}
			}
		}
		got := r.ask("OPTIONS", path, "", "", "Origin", "https://evil.example", "Access-Control-Request-Method", o.method).wants(t, 405)
		if allow := got.header.Get("Allow"); !strings.Contains(allow, o.method) || got.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: a preflight got %v", o.ID, got.header)
		}
	}
}

func TestOtherMethodsAndSpellingsAreRefused(t *testing.T) {
	r := newRig(t)
	key := r.key(mailgrant.ScopeManage)
	got := r.ask("PUT", "/v1/mailboxes", key, "{}").wants(t, 405)
	if got.header.Get("Allow") != "GET, HEAD, POST" {
		t.Errorf("got Allow %q", got.header.Get("Allow"))
	}
	r.ask("TRACE", "/v1/mailboxes", key, "").wants(t, 405)
	r.ask("POST", "/v1/mailboxes/"+string(r.box.ID), key, "{}", "X-HTTP-Method-Override", "DELETE").wants(t, 405)
	for _, path := range []string{"/v1/", "/v1", "/v1/Mailboxes", "/v1/mailboxes/", "/v1//mailboxes", "/v1/./mailboxes", "/v1/x/../mailboxes", "/v1/mail%62oxes", "/v1/mailboxes/%2e%2e", "/v1/mailboxes/a/b/c", "/v1/mailboxes;x=1", "/v1/debug/pprof", "/metrics"} {
		if got := r.ask("GET", path, key, ""); got.status != 404 {
			t.Errorf("%s: got %d", path, got.status)
		}
	}
	head := r.ask("HEAD", "/v1/mailboxes", key, "")
	if head.status != 200 || len(head.body) != 0 || head.header.Get("Content-Length") == "" {
		t.Errorf("HEAD: got %d, %d bytes", head.status, len(head.body))
	}
	if _, err := fmt.Sscan(head.header.Get("Content-Length"), new(int)); err != nil {
		t.Error(err)
	}
}
