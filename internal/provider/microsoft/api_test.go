package microsoft

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
)

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
