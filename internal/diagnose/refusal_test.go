package diagnose_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/diagnose"
)

func source(t *testing.T, path string) *ast.File {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestEveryCodeHasAPage reads the codes where they are declared, so that a new one
// cannot be forgotten.
func TestEveryCodeHasAPage(t *testing.T) {
	codes := 0
	pages := map[string]string{}
	ast.Inspect(source(t, filepath.Join("..", "..", "error.go")), func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if kind, ok := v.Type.(*ast.Ident); !ok || kind.Name != "Code" {
			return true
		}
		lit := v.Values[0].(*ast.BasicLit)
		code, err := strconv.Unquote(lit.Value)
		if err != nil {
			t.Fatal(err)
		}
		codes++
		id := diagnose.About(mailgrant.Errorf(mailgrant.Code(code), nil, "no"))
		c, found := diagnose.Lookup(id)
		if !found || len(c.Codes) != 1 || c.Codes[0] != code {
			t.Errorf("%s is explained by %q, which is about %q", code, id, c.Codes)
		}
		if pages[id] != "" {
			t.Errorf("%s and %s have the same page", code, pages[id])
		}
		pages[id] = code
		return true
	})
	if codes < 13 {
		t.Errorf("only %d codes were found", codes)
	}
}

// TestEveryNamedPageIsThere looks at all places that name a closer page, and wants
// every refusal led to by a code, by such a place or by the SMTP door.
func TestEveryNamedPageIsThere(t *testing.T) {
	used := map[string]bool{}
	err := filepath.WalkDir(filepath.Join("..", "..", "internal"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		ast.Inspect(source(t, path), func(n ast.Node) bool {
			lit, ok := n.(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				return true
			}
			id, err := strconv.Unquote(lit.Value)
			if err == nil && strings.HasPrefix(id, "refused-") {
				used[id] = true
				if c, ok := diagnose.Lookup(id); !ok || c.ID != id {
					t.Errorf("%s names the page %q, which is not there", path, id)
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range diagnose.Refusals() {
		if !used[c.ID] {
			t.Errorf("nothing leads to %s", c.ID)
		}
	}
}

func TestRefusalsAreWhole(t *testing.T) {
	titles, causes := map[string]string{}, map[string]bool{}
	for _, c := range diagnose.Catalogue() {
		titles[c.Title], causes[c.ID] = c.ID, true
	}
	for _, c := range diagnose.Refusals() {
		if titles[c.Title] != "" {
			t.Errorf("%s and %s have the same title", c.ID, titles[c.Title])
		}
		titles[c.Title] = c.ID
		if causes[c.ID] || !strings.HasPrefix(c.ID, "refused-") || c.Family != "R" {
			t.Errorf("%s, of the family %s, could be taken for a cause", c.ID, c.Family)
		}
		for _, s := range []string{c.Sentence, c.Remedy, c.Meanwhile} {
			if !strings.HasSuffix(s, ".") {
				t.Errorf("%s: %q does not end as a sentence", c.ID, s)
			}
		}
		if len(c.Steps) == 0 || len(c.Texts) == 0 || c.Who == "" || c.Retry == "" {
			t.Errorf("%s is not whole", c.ID)
		}
		for _, id := range c.Related {
			if _, ok := diagnose.Lookup(id); !ok || id == c.ID {
				t.Errorf("%s is related to %s", c.ID, id)
			}
		}
		for _, code := range c.Codes { // a mail server that keeps the mail, and a page that says otherwise, would be no help
			if later := c.Retry == mailgrant.RetryLater; later != mailgrant.Code(code).Temporary() && mailgrant.Code(code) != mailgrant.Internal {
				t.Errorf("%s is for %s and says %s", c.ID, code, c.Retry)
			}
		}
		for _, s := range c.Steps {
			if strings.Contains(c.Page(), "{}") || s.Command != "" && !strings.Contains(c.Page(), s.Command) {
				t.Errorf("%s: %s is not on its page as it is", c.ID, s.Command)
			}
		}
	}
}

// A text of another side is never taken for a refusal of our own.
func TestNoTextIsARefusal(t *testing.T) {
	for _, c := range diagnose.Refusals() {
		for _, text := range append(c.Texts, c.ID, c.Title) {
			if f := diagnose.Explain(diagnose.Failure{Text: text}); strings.HasPrefix(f.Cause, "refused-") {
				t.Errorf("%q is explained as %s", text, f.Cause)
			}
		}
	}
}

func TestAFindingExplainsBeforeTheCode(t *testing.T) {
	e := mailgrant.Errorf(mailgrant.Forbidden, nil, "no").See("refused-sender")
	if got := diagnose.About(e); got != "refused-sender" {
		t.Errorf("got %s", got)
	}
	if got := diagnose.About(e.With(mailgrant.Finding{Cause: "mailbox-full", Link: "errors/mailbox-full"})); got != "mailbox-full" {
		t.Errorf("got %s", got)
	}
	if got := diagnose.About(mailgrant.Errorf("new_code", nil, "odd")); got != "refused-internal" {
		t.Errorf("got %s", got)
	}
}
