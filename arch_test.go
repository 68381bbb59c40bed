package mailgrant_test

import (
	"os/exec"
	"strings"
	"testing"
)

// floors are the storeys of the house, from the ground up. A package imports
// only from storeys below its own.
var floors = []struct {
	name     string
	packages []string
}{
	{"words", []string{""}},
	{"wire", []string{"client", "docs"}},
	{"ground", []string{"internal/diagnose", "internal/rfc5322", "internal/vault", "internal/egress", "internal/adopt"}},
	{"store", []string{"internal/store"}},
	{"cluster", []string{"internal/cluster", "internal/store/storetest", "internal/vault/vaulttest"}},
	{"bodies", []string{"internal/body"}},
	{"providers", []string{"internal/provider"}},
	{"provider parts", []string{"internal/provider/oauth", "internal/provider/wire", "internal/provider/wire/wiretest"}},
	{"transports", []string{"internal/provider/smtp", "internal/provider/imap", "internal/provider/pop", "internal/provider/microsoft", "internal/provider/google"}},
	{"choice", []string{"internal/provider/auto"}},
	{"grant and access", []string{"internal/grant", "internal/access", "internal/check"}},
	{"route", []string{"internal/route"}},
	{"promises", []string{"internal/outbox", "internal/inbox", "internal/webhook"}},
	{"doors", []string{"internal/serve/api", "internal/serve/console", "internal/serve/submission", "internal/serve/certs"}},
	{"config", []string{"internal/config"}},
	{"node", []string{"internal/node"}},
	{"commands", []string{"cmd/mailgrant"}},
}

// apart are packages that no storey may import, and what they may import of the
// house: sim must not share our misunderstandings.
var apart = map[string][]string{
	"sim": nil,
}

// simUsers may start the imitation.
var simUsers = []string{"cmd/mailgrant"}

const module = "github.com/mailgrant/mailgrant"

func inModule(path string) (string, bool) {
	if path == module {
		return "", true
	}
	return strings.CutPrefix(path, module+"/")
}

func TestImportsGoDown(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`, "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	floorOf := map[string]int{}
	for n, f := range floors {
		for _, p := range f.packages {
			floorOf[p] = n
		}
	}
	seen := 0
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line)
		pkg, ok := inModule(words[0])
		if !ok || strings.HasPrefix(pkg, "test/") {
			continue
		}
		seen++
		mine, placed := floorOf[pkg]
		allowed, isApart := apart[pkg]
		if !placed && !isApart {
			t.Errorf("%q stands on no floor: give it one in arch_test.go", pkg)
			continue
		}
		for _, imported := range words[1:] {
			other, ok := inModule(imported)
			if !ok {
				continue
			}
			switch {
			case isApart:
				if !contains(allowed, other) {
					t.Errorf("%s stands apart and imports %q", pkg, other)
				}
			case other == "sim":
				if !contains(simUsers, pkg) {
					t.Errorf("%s imports sim: only commands and tests start it", pkg)
				}
			case strings.HasPrefix(other, "test/"):
				t.Errorf("%s imports %s, which is for tests", pkg, other)
			case floorOf[other] >= mine:
				t.Errorf("%s (%s) imports %s (%s): imports go down", pkg, floors[mine].name, other, floors[floorOf[other]].name)
			}
		}
	}
	if seen < 20 {
		t.Fatalf("only %d packages were looked at", seen)
	}
}

// TestWordsNeedNothing keeps the root package to the standard library.
func TestWordsNeedNothing(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", `{{if not .Standard}}{{.ImportPath}}{{end}}`, ".").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	if got := strings.TrimSpace(string(out)); got != module {
		t.Errorf("the root package needs %q", got)
	}
}

func contains(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}
