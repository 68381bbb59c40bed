package diagnose_test

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/mailgrant/mailgrant/internal/diagnose"
)

var update = flag.Bool("update", false, "write docs/errors anew from the catalogue")

func TestPagesAreThoseOfTheCatalogue(t *testing.T) {
	dir := filepath.Join("..", "..", "docs", "errors")
	want := map[string]string{"README.md": diagnose.Index()}
	for _, c := range append(diagnose.Catalogue(), diagnose.Refusals()...) {
		want[c.ID+".md"] = c.Page()
	}
	if *update {
		writePages(t, dir, want)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if _, ok := want[f.Name()]; !ok {
			t.Errorf("%s belongs to no cause", f.Name())
		}
	}
	for name, page := range want {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		} else if string(got) != page {
			t.Errorf("%s is not what the catalogue says; run go test ./internal/diagnose -update", name)
		}
	}
}

func writePages(t *testing.T, dir string, pages map[string]string) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	old, _ := filepath.Glob(filepath.Join(dir, "*.md"))
	for _, f := range old {
		if _, ok := pages[filepath.Base(f)]; !ok {
			os.Remove(f)
		}
	}
	for name, page := range pages {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
