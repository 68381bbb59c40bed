package api_test

import (
	"io/fs"
	"os"
	"regexp"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/mailgrant/mailgrant/docs"
)

var (
	curlLine = regexp.MustCompile(`curl [^\n]*?localhost:8025(/v1/[^\s"'?]*)(?:\?([^\s"']*))?[^\n]*(?:\\\n[^\n]*)*`)
	anyArg   = regexp.MustCompile(`\{[a-z]+\}`)
)

// What documents tell people to ask of us by curl is something we answer.
func TestCurlLinesOfDocumentsAreOurs(t *testing.T) {
	var doc struct {
		Paths map[string]map[string]struct {
			Parameters []struct{ Name, In string }
		}
	}
	if err := yaml.Unmarshal(docs.OpenAPI, &doc); err != nil {
		t.Fatal(err)
	}
	seen := 0
	look := func(file string, text []byte) {
		for _, m := range curlLine.FindAllSubmatch(text, -1) {
			seen++
			line, path, query := string(m[0]), string(m[1]), string(m[2])
			op, params := "get", map[string]bool{}
			if _, verb, ok := strings.Cut(line, "-X "); ok {
				op = strings.ToLower(strings.Fields(verb)[0])
			} else if strings.Contains(line, " -d ") {
				op = "post"
			}
			found := false
			for at, ops := range doc.Paths {
				fits := regexp.MustCompile("^" + anyArg.ReplaceAllString(at, "[^/]+") + "$").MatchString(path)
				if o, ok := ops[op]; fits && ok {
					found = true
					for _, p := range o.Parameters {
						params[p.Name] = p.In == "query"
					}
				}
			}
			if !found {
				t.Errorf("%s: there is no %s %s:\n%s", file, op, path, line)
			}
			for _, pair := range strings.FieldsFunc(query, func(r rune) bool { return r == '&' }) {
				if name, _, _ := strings.Cut(pair, "="); found && !params[name] {
					t.Errorf("%s: %s %s has no parameter %q:\n%s", file, op, path, name, line)
				}
			}
		}
	}
	readme, err := os.ReadFile("../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	look("README.md", readme)
	err = fs.WalkDir(docs.Files, ".", func(at string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := docs.Files.ReadFile(at)
		look("docs/"+at, b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 10 {
		t.Errorf("only %d lines were looked at", seen)
	}
}
