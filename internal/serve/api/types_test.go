package api_test

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
	"github.com/mailgrant/mailgrant/internal/access"
	"github.com/mailgrant/mailgrant/internal/diagnose"
	"github.com/mailgrant/mailgrant/internal/serve/api"
	"github.com/mailgrant/mailgrant/internal/serve/console"
)

// documents answer the types of problems, each asked for once.
var documents = struct {
	sync.Mutex
	console http.Handler
	status  map[string]int
}{console: console.New(console.Config{PublicURL: publicURL}), status: map[string]int{}}

// typed wants the type of a problem to be a page that is there, whatever test came
// upon it.
func (r *rig) typed(p client.Problem) {
	r.Helper()
	if r.unnamed && p.Type == "about:blank" {
		return
	}
	page, ok := strings.CutPrefix(p.Type, publicURL+"/docs/errors/")
	if !ok || page == "" {
		r.Errorf("the type %q of %q is no page of ours", p.Type, p.Detail)
		return
	}
	documents.Lock()
	defer documents.Unlock()
	if documents.status[page] == 0 {
		w := httptest.NewRecorder()
		documents.console.ServeHTTP(w, httptest.NewRequest("GET", "/docs/errors/"+page, nil))
		documents.status[page] = w.Code
	}
	if documents.status[page] != http.StatusOK {
		r.Errorf("the type %s answers %d", p.Type, documents.status[page])
	}
}

func TestTypesOfProblems(t *testing.T) {
	r := newRig(t)
	good := r.key(mailgrant.ScopeSend, mailgrant.ScopeRead)
	narrow := r.app(r.org, func(a *mailgrant.App) { a.Senders = []string{"*@fabrikam.example"} })
	elsewhere := r.app(r.org, func(a *mailgrant.App) { a.Doors = []string{"smtp"} })
	gone := r.app(r.org, nil)
	k, revoked, err := r.access.IssueKey(t.Context(), r.org, gone.ID, access.KeyInput{})
	must(t, err)
	must(t, r.access.RevokeKey(t.Context(), r.org, k.ID))
	message := `{"from":"office@contoso.example","to":["b@example.org"],"subject":"x","text":"x"}`
	r.ask("POST", "/v1/submissions", good, message, "Idempotency-Key", "one").wants(t, 202)
	for _, c := range []struct {
		what, page, method, path, key, body string
		header                              []string
	}{
		{what: "no key", page: "refused-key", method: "GET", path: "/v1/queue"},
		{what: "a wrong key", page: "refused-key", method: "GET", path: "/v1/queue", key: "mg_" + strings.Repeat("x", 32)},
		{what: "a revoked key", page: "refused-key-ended", method: "GET", path: "/v1/queue", key: revoked.Reveal()},
		{what: "another door", page: "refused-key-place", method: "POST", path: "/v1/submissions", key: r.keyOf(elsewhere), body: message},
		{what: "a right that is missing", page: "refused-right", method: "GET", path: "/v1/queue", key: r.key(mailgrant.ScopeSend)},
		{what: "another's sender", page: "refused-sender", method: "POST", path: "/v1/submissions", key: r.keyOf(narrow), body: message},
		{what: "no route", page: "refused-no-route", method: "POST", path: "/v1/submissions", key: good, body: strings.Replace(message, "office@", "kim@", 1)},
		{what: "nothing there", page: "refused-not-found", method: "GET", path: "/v1/submissions/msg_00000000000000000000000000", key: good},
		{what: "no such address", page: "refused-not-found", method: "GET", path: "/v1/nothing", key: good},
		{what: "another method", page: "refused-request", method: "PUT", path: "/v1/submissions", key: good},
		{what: "an unknown field", page: "refused-request", method: "POST", path: "/v1/submissions", key: good, body: `{"form":"x"}`},
		{what: "an idempotency key used before", page: "refused-idempotency-key", method: "POST", path: "/v1/submissions", key: good,
			body: strings.Replace(message, `"x"`, `"y"`, 1), header: []string{"Idempotency-Key", "one"}},
		{what: "much too large", page: "refused-message-too-large", method: "POST", path: "/v1/explain", key: good, body: `{"text":"` + strings.Repeat("x", 300<<10) + `"}`},
	} {
		if p := r.ask(c.method, c.path, c.key, c.body, c.header...).problem; p.Type != publicURL+"/docs/errors/"+c.page {
			t.Errorf("%s: got %q (%s), want %s", c.what, p.Type, p.Detail, c.page)
		}
	}
}

// SE: a key that is not there, one that is nearly right and what is no key at all
// look the same, page and all.
func TestAWrongKeySaysNoMore(t *testing.T) {
	r := newRig(t)
	key := r.key()
	var seen []client.Problem
	for _, k := range []string{"mg_" + strings.Repeat("x", len(key)-3), key[:len(key)-1] + "0", "case-manager"} {
		p := r.ask("GET", "/v1/queue", k, "").wants(t, 401).problem
		p.Trace = ""
		seen = append(seen, p)
	}
	if seen[0] != seen[1] || seen[0] != seen[2] || seen[0].Type != publicURL+"/docs/errors/refused-key" {
		t.Errorf("got %+v", seen)
	}
}

func TestWithoutAPublicAddressTypesAreBlank(t *testing.T) {
	r := newRig(t, func(c *api.Config) { c.PublicURL = "" })
	r.unnamed = true
	if p := r.ask("GET", "/v1/queue", "", "").problem; p.Type != "about:blank" {
		t.Errorf("got %q", p.Type)
	}
}

// TestPagesNameRequestsThatExist looks at the lines to copy that speak to this door.
func TestPagesNameRequestsThatExist(t *testing.T) {
	r := newRig(t)
	document := r.ask("GET", "/v1/openapi.yaml", "", "").wants(t, 200).body
	line := regexp.MustCompile(`\$MAILGRANT_URL(/v1/[^"]*)"`)
	variable := regexp.MustCompile(`/[A-Z]+`)
	seen := 0
	for _, c := range diagnose.Refusals() {
		for _, s := range c.Steps {
			m := line.FindStringSubmatch(s.Command)
			if m == nil {
				if strings.HasPrefix(s.Command, "curl") {
					t.Errorf("%s: %s asks nothing", c.ID, s.Command)
				}
				continue
			}
			seen++
			method := "get"
			switch {
			case strings.Contains(s.Command, "-X PATCH"):
				method = "patch"
			case strings.Contains(s.Command, "-X POST"), strings.Contains(s.Command, "--json"), strings.Contains(s.Command, "--data-binary"):
				method = "post"
			}
			path := variable.ReplaceAllString(regexp.QuoteMeta(m[1]), `/\{[a-z]+\}`)
			if !regexp.MustCompile(`(?m)^  ` + path + `:\n(    [^\n]*\n)*    ` + method + `:`).Match(document) {
				t.Errorf("%s: there is no %s %s", c.ID, method, m[1])
			}
		}
	}
	if seen < 8 {
		t.Errorf("only %d requests were found", seen)
	}
}
