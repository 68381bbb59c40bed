package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/mailgrant/mailgrant"
)

// A demo writes into a directory of its own, and into no other.
func TestDemoKeepsToItsDirectory(t *testing.T) {
	write := func(name string) func(dir string) {
		return func(dir string) {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(`{"HTTP":8025,"SimHTTPS":8443}`), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		fill    func(dir string)
		refused bool
	}{
		"empty":             {func(string) {}, false},
		"a demo's":          {func(dir string) { write("ports.json")(dir); write("mailgrant.db")(dir) }, false},
		"a real mailgrant":  {write("mailgrant.db"), true},
		"somebody's things": {write(".profile"), true},
	} {
		dir := t.TempDir()
		c.fill(dir)
		before, _ := os.ReadDir(dir)
		got, _, err := demoDir(dir)
		after, _ := os.ReadDir(dir)
		if (err != nil) != c.refused || !c.refused && got != dir || !slices.EqualFunc(before, after, func(a, b os.DirEntry) bool { return a.Name() == b.Name() }) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if err != nil && (mailgrant.AsError(err).Code != mailgrant.Conflict || mailgrant.AsError(err).Remedy == "") {
			t.Errorf("%s: %v", name, err)
		}
	}
	dir := filepath.Join(t.TempDir(), "new")
	if got, _, err := demoDir(dir); err != nil || got != dir {
		t.Errorf("a new directory: %q, %v", got, err)
	}
	// A ports.json of somebody else is not taken for a demo's.
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ports.json"), []byte(`{"http":"x","ports":[1]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (&demo{dir: dir}).choosePorts(); mailgrant.AsError(err) == nil || mailgrant.AsError(err).Code != mailgrant.Invalid {
		t.Errorf("foreign ports: %v", err)
	}
}
