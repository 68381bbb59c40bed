package real_test

import (
	"bytes"
	"image/png"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mailgrant/mailgrant/test/real"
)

// A person clicks through the pages of a provider that we did not write.
func TestChromiumConsentsAtTheProvider(t *testing.T) {
	p, b := real.NewOIDC(t, real.OIDCOptions{}), real.NewBrowser(t)
	challenge := strings.Repeat("x", 43)
	b.Goto(p.Issuer + "/auth?" + url.Values{"client_id": {p.ClientID}, "response_type": {"code"}, "redirect_uri": {p.Callback}, "state": {"st"},
		"scope": {"openid email mail.send"}, "prompt": {"consent"}, "code_challenge": {challenge}, "code_challenge_method": {"S256"}, "resource": {p.Resource}}.Encode())
	b.Fill("#address", real.Alex)
	b.Fill("#password", "wrong")
	b.Click("text=Sign in >> nth=-1")
	if got := b.Text("[role=alert]"); !strings.Contains(got, "wrong") {
		t.Fatalf("a wrong password: %q", got)
	}
	if got := b.Value("#address"); got != real.Alex {
		t.Errorf("the address is %q", got)
	}
	b.Fill("#password", real.Password)
	b.Press("Enter")
	b.Click(`role=button[name="Allow"]`)
	b.WaitURL(p.Callback)
	if got := b.URL(); !strings.HasPrefix(got, p.Callback+"?code=") || !strings.Contains(got, "state=st") {
		t.Errorf("came to %s", got)
	}
	if got := b.Elsewhere(); len(got) == 0 || !strings.HasPrefix(got[0], p.Callback) {
		t.Errorf("asked elsewhere for %v", got)
	}
}

func TestChromiumSeesFaults(t *testing.T) {
	page := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Content-Security-Policy", "script-src 'self'")
		switch r.URL.Path {
		case "/good":
			w.Write([]byte(`<!doctype html><html lang="en"><title>Good</title><main><h1>Good</h1><noscript><p id="plain">No script</p></noscript></main></html>`))
		case "/bad":
			w.Write([]byte(`<!doctype html><html><title></title><img src="https://far.example/x.png"><script>alert(1)</script><input></html>`))
		default:
			http.NotFound(w, r)
		}
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(page))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // Chromium does not know its certificate at first
	s.StartTLS()
	t.Cleanup(s.Close)
	b := real.NewBrowser(t)
	if status := b.Goto(s.URL + "/good"); status != http.StatusOK || b.Title() != "Good" || len(b.Faults()) > 0 {
		t.Errorf("a good page: %d, %q, %v", status, b.Title(), b.Faults())
	}
	if got := b.Accessibility(); len(got) > 0 {
		t.Errorf("a good page: %v", got)
	}
	if b.Count("#plain") > 0 {
		t.Error("there is no script")
	}
	b.Goto(s.URL + "/bad")
	if got := strings.Join(b.Accessibility(), "\n"); !strings.Contains(got, "image-alt") || !strings.Contains(got, "html-has-lang") || !strings.Contains(got, "label") {
		t.Errorf("a bad page has only: %s", got)
	}
	if got := b.Faults(); !slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, "Content Security Policy") }) {
		t.Errorf("the script was not kept out: %v", got)
	}
	if got := b.Elsewhere(); len(got) != 1 || got[0] != "https://far.example/x.png" {
		t.Errorf("asked elsewhere for %v", got)
	}
	file := filepath.Join(t.TempDir(), "page.png")
	b.Screenshot(file)
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if img, err := png.Decode(bytes.NewReader(raw)); err != nil || img.Bounds().Dx() != 1280 {
		t.Errorf("the picture: %v", err)
	}
	plain := real.NewBrowserWith(t, real.PageOptions{NoScript: true, Width: 400, Height: 700})
	if plain.Goto(s.URL + "/good"); plain.Count("#plain") != 1 {
		t.Error("a page without script shows nothing of it")
	}
}
