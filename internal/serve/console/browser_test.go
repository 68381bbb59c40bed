package console

import (
	"image/png"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mailgrant/mailgrant/test/real"
)

// artifacts is where pictures of the pages are left for people to look at.
func artifacts(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", "..", "..", "test", "artifacts", "console"))
	must(t, err)
	must(t, os.MkdirAll(dir, 0o755))
	return dir
}

// sampleServer serves the pages of samples, and some that anybody may read.
func sampleServer(t *testing.T) string {
	h := without()
	all := samples()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p, ok := all[strings.TrimPrefix(r.URL.Path, "/sample/")]; ok {
			s := &console{Config: Config{Version: "1.2.3"}}
			s.headers(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.show(w, r, 200, p) })).ServeHTTP(w, r)
			return
		}
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

// TestPagesAreSeenByEverybody opens every page in light and dark, on a desk and on
// a telephone: axe finds nothing, the policy keeps nothing out, and nothing is
// wider than the screen.
func TestPagesAreSeenByEverybody(t *testing.T) {
	dir, url := artifacts(t), sampleServer(t)
	paths := map[string]string{"real-start": "/docs/start", "real-operate": "/docs/operate", "real-documents": "/docs/", "real-causes": "/docs/errors/", "real-cause": "/docs/errors/smtp-auth-disabled-mailbox",
		"real-search": "/docs/errors/?q=535+5.7.139+SmtpClientAuthentication+is+disabled"}
	for name := range samples() {
		paths[name] = "/sample/" + name
	}
	for kind, o := range map[string]real.PageOptions{"light": {}, "dark": {Dark: true}, "phone": {Width: 390, Height: 844}, "phone-dark": {Width: 390, Height: 844, Dark: true}} {
		b := real.NewBrowserWith(t, o)
		for name, path := range paths {
			if status := b.Goto(url + path); status != http.StatusOK {
				t.Fatalf("%s: %d", path, status)
			}
			for _, v := range b.Accessibility() {
				t.Errorf("%s, %s: %s", name, kind, v)
			}
			file := filepath.Join(dir, name+"-"+kind+".png")
			b.Screenshot(file)
			if got := widthOf(t, file); o.Width != 0 && got != o.Width {
				t.Errorf("%s is %d wide on a screen of %d", name, got, o.Width)
			}
		}
		if got := b.Faults(); len(got) > 0 {
			t.Errorf("%s: %v", kind, got)
		}
		if got := b.Elsewhere(); len(got) > 0 {
			t.Errorf("%s: asked elsewhere for %v", kind, got)
		}
	}
}

func widthOf(t *testing.T, file string) int {
	t.Helper()
	f, err := os.Open(file)
	must(t, err)
	defer f.Close()
	c, err := png.DecodeConfig(f)
	must(t, err)
	return c.Width
}
