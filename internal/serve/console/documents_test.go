package console

import (
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/mailgrant/mailgrant/internal/diagnose"
)

// without is a console without a keeper: enough for what everybody may read.
func without() http.Handler { return New(Config{PublicURL: "http://localhost"}) }

func get(h http.Handler, at string) *httptest.ResponseRecorder { return answerOf(h, "GET", at) }

var href = regexp.MustCompile(`href="([^"]*)"`)

// TestEveryLinkLeadsSomewhere walks all that can be reached from the first page.
func TestEveryLinkLeadsSomewhere(t *testing.T) {
	h, seen, todo := without(), map[string]string{}, []string{"/"}
	for len(todo) > 0 {
		at := todo[0]
		todo = todo[1:]
		if _, ok := seen[at]; ok || strings.HasPrefix(at, "/v1/") {
			continue
		}
		r := get(h, at)
		seen[at] = r.Body.String()
		if r.Code != http.StatusOK {
			t.Errorf("%s: %d", at, r.Code)
		}
		for _, m := range href.FindAllStringSubmatch(r.Body.String(), -1) {
			to := html.UnescapeString(m[1])
			if strings.HasPrefix(to, "https://") {
				continue
			}
			path, anchor, _ := strings.Cut(to, "#")
			if path == "" {
				path = at
			}
			if !strings.HasPrefix(path, "/") {
				t.Errorf("%s leads to %q", at, to)
				continue
			}
			if anchor != "" && anchor != "main" {
				if b := get(h, path).Body.String(); !strings.Contains(b, `id="`+anchor+`"`) {
					t.Errorf("%s leads to %s, where nothing is called %q", at, path, anchor)
				}
			}
			todo = append(todo, path)
		}
	}
	for _, c := range append(diagnose.Catalogue(), diagnose.Refusals()...) {
		body, ok := seen["/docs/errors/"+c.ID]
		if !ok {
			t.Errorf("nothing leads to the page of %s", c.ID)
		}
		if strings.ContainsAny(regexp.MustCompile(`<code>[^<]*</code>`).ReplaceAllString(body, ""), "{}") {
			t.Errorf("the page of %s has a fact that was not filled in", c.ID)
		}
	}
	if len(seen) < len(diagnose.Catalogue())+4 {
		t.Errorf("only %d pages", len(seen))
	}
}

// TestFindingALookedUpError types what people paste. R173.
func TestFindingALookedUpError(t *testing.T) {
	h := without()
	for q, want := range map[string]string{
		"535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox. Visit https://aka.ms/smtp_auth_disabled": "/docs/errors/smtp-auth-disabled-mailbox",
		"AADSTS7000222":      "/docs/errors/client-secret-expired",
		"email mismatch":     "/docs/errors/wrong-user-signed-in",
		"mailbox-full":       "/docs/errors/mailbox-full",
		"Manage Email Apps ": "/docs/errors/smtp-auth-disabled-mailbox",
		"refused-sender":     "/docs/errors/refused-sender",
		"too many wrong":     "/docs/errors/refused-too-many-tries",
		"550 5.7.1 the app scanner may not send as kim@contoso.example. https://mail.contoso.example/docs/errors/refused-sender": "/docs/errors/refused-sender",
	} {
		if b := get(h, "/docs/errors/?q="+url.QueryEscape(q)).Body.String(); !strings.Contains(b, `href="`+want+`"`) || strings.Contains(b, "Nothing fits") {
			t.Errorf("%q does not find %s", q, want)
		}
	}
	if b := get(h, "/docs/errors/?q=zebra+crossing+xyz").Body.String(); !strings.Contains(b, "Nothing fits") {
		t.Error("found something for nothing")
	}
	if r := get(h, "/docs/errors/?q="+strings.Repeat("%f0%9f%a6%93", 4000)); r.Code != http.StatusOK {
		t.Errorf("a long text: %d", r.Code)
	}
}

func TestOldNamesOfDocuments(t *testing.T) {
	h := without()
	for _, at := range []string{"/docs/start.md", "/docs/errors/unknown.md"} {
		if r := get(h, at); r.Code != http.StatusOK {
			t.Errorf("%s: %d", at, r.Code)
		}
	}
	for _, at := range []string{"/docs/none", "/docs/errors/none", "/docs/docs.go", "/docs/errors/a/b", "/.git/config", "/debug/pprof/", "/metrics", "/style.css/"} {
		if r := get(h, at); r.Code != http.StatusNotFound {
			t.Errorf("%s: %d", at, r.Code)
		}
	}
	if to := get(h, "/docs/../docs/start").Header().Get("Location"); to != "/docs/start" {
		t.Errorf("a path with dots leads to %q", to)
	}
}

// TestBelowAPath is mailgrant behind a proxy that gives it a path of its own.
func TestBelowAPath(t *testing.T) {
	h := New(Config{PublicURL: "https://contoso.example/mail"})
	for _, at := range []string{"/", "/docs/", "/docs/start", "/docs/errors/", "/docs/errors/unknown", "/nothing"} {
		for _, m := range href.FindAllStringSubmatch(get(h, at).Body.String(), -1) {
			if strings.HasPrefix(m[1], "/") && !strings.HasPrefix(m[1], "/mail/") {
				t.Errorf("%s leads to %s", at, m[1])
			}
		}
	}
}

func TestStyleIsKeptByBrowsers(t *testing.T) {
	h := without()
	at := regexp.MustCompile(`/style\.css\?v=[0-9a-f]+`).FindString(get(h, "/").Body.String())
	r := get(h, at)
	if r.Code != http.StatusOK || !strings.Contains(r.Header().Get("Cache-Control"), "immutable") || !strings.HasPrefix(r.Header().Get("Content-Type"), "text/css") {
		t.Errorf("%d %v", r.Code, r.Header())
	}
}

// TestTheListSaysWhatEachDocumentIs: a sentence that stands alone, though its
// document goes on from a command, or begins with the head of a decision.
func TestTheListSaysWhatEachDocumentIs(t *testing.T) {
	for name, want := range map[string]string{
		"webhooks":                      "Has mailgrant tell an application what happens, from now on.",
		"receive":                       "mailgrant reads a mailbox through its grant",
		"operate":                       "For whoever runs it: ",
		"decisions/0001-lanes-not-jobs": "Something must hand over what was accepted.",
	} {
		if got := known()[name].First; !strings.HasPrefix(got, want) {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}
