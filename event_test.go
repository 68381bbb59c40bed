package mailgrant_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/mailgrant/mailgrant"
)

// noKinds are words of packages that write events, which look like a kind and are none.
var noKinds = map[string]string{
	"receive.protocol": "a field of a mailbox",
	"send.connect":     "a step of an attempt",
	"webhook.test":     "posted, and not in the log",
}

// ends are what may follow the beginnings that are written in the code.
var ends = map[string][]string{
	"admin_consent.": {"asked", "granted", "denied"},                                            // grant.AdminAsked…
	"arrival.":       {string(mailgrant.ArrivalAcknowledged), string(mailgrant.ArrivalIgnored)}, // what an app makes of it
}

var (
	kindWritten  = regexp.MustCompile(`^[a-z_]+\.[a-z_]+$`)
	beginWritten = regexp.MustCompile(`^[a-z_]+\.$`)
)

// The kinds that the code writes are those of the list, and the other way round. A
// package that writes events makes a mailgrant.Event; all in it that is written like a
// kind is one.
func TestEveryKindOfEventIsListed(t *testing.T) {
	written := map[string]bool{}
	write := func(at token.Position, kind string) {
		if noKinds[kind] != "" {
			written[kind] = true
			return
		}
		if written[kind] = true; !slices.Contains(mailgrant.EventKinds(), kind) {
			t.Errorf("%s: the kind %q is not in the list of event.go, which docs/webhooks.md explains", at, kind)
		}
	}
	for dir, files := range sources(t) {
		fset := token.NewFileSet()
		var parsed []*ast.File
		for _, name := range files {
			f, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			parsed = append(parsed, f)
		}
		writes := false
		each(parsed, func(n ast.Node) {
			for _, kind := range kindsOf(n) {
				writes = true
				at := fset.Position(kind.Pos())
				switch v := kind.(type) {
				case *ast.Ident: // what it may be is written in this package
				case *ast.BasicLit:
					word, _ := strconv.Unquote(v.Value)
					write(at, word)
				case *ast.BinaryExpr:
					if begin, ok := v.X.(*ast.BasicLit); !ok || !beginWritten.MatchString(strings.Trim(begin.Value, `"`)) {
						t.Errorf("%s: the beginning of a kind is not written here", at)
					}
				default:
					t.Errorf("%s: a kind is not written here", at)
				}
			}
		})
		if !writes {
			continue
		}
		each(parsed, func(n ast.Node) {
			lit, ok := n.(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				return
			}
			text, _ := strconv.Unquote(lit.Value)
			switch {
			case kindWritten.MatchString(text):
				write(fset.Position(lit.Pos()), text)
			case beginWritten.MatchString(text):
				if ends[text] == nil {
					t.Errorf("%s: what follows %q in %s?", fset.Position(lit.Pos()), text, dir)
				}
				for _, end := range ends[text] {
					write(fset.Position(lit.Pos()), text+end)
				}
			}
		})
	}
	for _, k := range mailgrant.EventKinds() {
		if !written[k] {
			t.Errorf("nothing writes an event of the kind %s", k)
		}
	}
	for k := range noKinds {
		if !written[k] {
			t.Errorf("%s is nowhere", k)
		}
	}
	if !slices.IsSorted(mailgrant.EventKinds()) {
		t.Error("the list is not sorted")
	}
}

// sources are the files of each package of ours that may write events.
func sources(t *testing.T) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	for _, root := range []string{"client", "cmd", "internal"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() && (d.Name() == "storetest" || d.Name() == "testdata") {
				return filepath.SkipDir
			}
			if strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
				all[filepath.Dir(path)] = append(all[filepath.Dir(path)], path)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func each(files []*ast.File, do func(ast.Node)) {
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool { do(n); return true })
	}
}

// kindsOf are the values of Kind in an event, or in a list of events.
func kindsOf(n ast.Node) (kinds []ast.Expr) {
	lit, ok := n.(*ast.CompositeLit)
	if !ok {
		return nil
	}
	lits := []*ast.CompositeLit{lit}
	typ := lit.Type
	if list, ok := typ.(*ast.ArrayType); ok {
		lits, typ = nil, list.Elt
		for _, e := range lit.Elts {
			if l, ok := e.(*ast.CompositeLit); ok && l.Type == nil {
				lits = append(lits, l)
			}
		}
	}
	if s, ok := typ.(*ast.SelectorExpr); !ok || s.Sel.Name != "Event" || s.X.(*ast.Ident).Name != "mailgrant" {
		return nil
	}
	for _, l := range lits {
		for _, e := range l.Elts { // with names: go vet sees to that
			if kv, ok := e.(*ast.KeyValueExpr); ok && kv.Key.(*ast.Ident).Name == "Kind" {
				kinds = append(kinds, kv.Value)
			}
		}
	}
	return kinds
}

// docs/webhooks.md explains each kind, and no other.
func TestEveryKindOfEventIsExplained(t *testing.T) {
	b, err := os.ReadFile("docs/webhooks.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(b), "\n## The kinds of events\n")
	if !found {
		t.Fatal("docs/webhooks.md has no list of kinds")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	var explained []string
	for line := range strings.Lines(section) {
		if first, _, ok := strings.Cut(line, "` | "); ok {
			explained = append(explained, strings.Split(strings.TrimPrefix(first, "| `"), "`, `")...)
		}
	}
	slices.Sort(explained)
	if want := mailgrant.EventKinds(); !slices.Equal(explained, want) {
		t.Errorf("docs/webhooks.md explains %v, want %v", explained, want)
	}
}

func TestKindsThatFitNothing(t *testing.T) {
	for pattern, near := range map[string]string{
		"arrival.nw":               "arrival.new?",
		"arival.*":                 "arrival.*?",
		"Arrival.New":              "arrival.new?",
		"arrival":                  "arrival.*?",
		"submision.faild":          "submission.failed?",
		"grant.create":             "grant.created?",
		"mailbox.resume":           "mailbox.resumed?",
		"orders.paid":              "submission.failed",
		"":                         "submission.failed",
		"*.new":                    "submission.failed",
		"arrival.new*x":            "arrival.new?",
		"arrival.%":                "arrival.*?",
		strings.Repeat("x", 1<<20): "submission.failed",
	} {
		err := mailgrant.CheckKinds("kind", []string{"arrival.new", pattern})
		e := mailgrant.AsError(err)
		if err == nil || e.Code != mailgrant.Invalid || e.Field != "kind" || !strings.Contains(e.Remedy, near) || !strings.Contains(e.Remedy, "docs/webhooks.md") || len(err.Error()) > 400 {
			t.Errorf("%.30q: got %.200v, %+v; want %s", pattern, err, e, near)
		}
	}
	for _, pattern := range append(mailgrant.EventKinds(), "*", "arrival.*", "arriv*") {
		if err := mailgrant.CheckKinds("kind", []string{pattern}); err != nil {
			t.Errorf("%s: %v", pattern, err)
		}
	}
	if err := mailgrant.CheckKinds("kind", nil); err != nil {
		t.Error(err)
	}
}
