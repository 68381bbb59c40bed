package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// A mention is a place where a text names one of our commands.
type mention struct{ where, words string }

// spoken is how a text leads to a command: after a colon, in brackets, in a code
// block, or told to be run. Anything else after our name is prose about mailgrant.
var spoken = regexp.MustCompile("(?:^|: |\\(|`|\\$ |[Rr]un |with |that )mailgrant ((?:[a-z]|--)[^)`;\n]*)")

// Every command and flag that a text of ours names exists.
func TestRemediesNameCommandsThatExist(t *testing.T) {
	root := newRoot()
	seen := 0
	for _, m := range append(sourceMentions(t), fileMentions(t)...) {
		if problem := unknownCommand(root, m.words); problem != "" {
			t.Errorf("%s: mailgrant %s\n\t%s", m.where, m.words, problem)
		}
		seen++
	}
	if seen < 60 {
		t.Errorf("only %d commands were found in all texts: is the search still right?", seen)
	}
}

// sourceMentions are those in the string literals of the program.
func sourceMentions(t *testing.T) (all []mention) {
	t.Helper()
	fset := token.NewFileSet()
	walk(t, []string{"../../internal", "../../client", "../../sim", "."}, ".go", func(path string) {
		if strings.HasSuffix(path, "_test.go") {
			return
		}
		f, err := parser.ParseFile(fset, path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			lit, ok := n.(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				return true
			}
			text, _ := strconv.Unquote(lit.Value)
			for _, m := range spoken.FindAllStringSubmatch(text, -1) {
				if !strings.HasPrefix(m[1], "keyset") && !strings.HasPrefix(m[1], "hash key") && !strings.HasPrefix(m[1], "stream") && !strings.HasPrefix(m[1], "backup 1") { // labels of seals and files
					all = append(all, mention{fset.Position(lit.Pos()).String(), m[1]})
				}
			}
			return true
		})
	})
	return all
}

// fileMentions are those in the catalogue and in the documents.
func fileMentions(t *testing.T) (all []mention) {
	t.Helper()
	add := func(path string) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(b), "\n") {
			line = strings.TrimPrefix(strings.TrimSpace(line), "command: ")
			for _, m := range spoken.FindAllStringSubmatch(strings.Trim(line, `'"`), -1) {
				all = append(all, mention{path + ":" + strconv.Itoa(i+1), m[1]})
			}
		}
	}
	walk(t, []string{"../../internal/diagnose/catalogue"}, ".yaml", add)
	walk(t, []string{"../../docs"}, ".md", func(path string) {
		if !strings.Contains(filepath.ToSlash(path), "docs/cli/") { // made from the tree itself
			add(path)
		}
	})
	add("../../README.md")
	return all
}

func walk(t *testing.T, roots []string, ending string, f func(path string)) {
	t.Helper()
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && strings.HasSuffix(path, ending) && !strings.Contains(path, "testdata") {
				f(path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// plainWord is a word that would name a command, were it one.
var plainWord = regexp.MustCompile(`^[a-z]+$`)

// unknownCommand says what is wrong with the words after our name.
func unknownCommand(root *cobra.Command, text string) string {
	cmd, words := root, strings.Fields(text)
	for len(words) > 0 && cmd.HasSubCommands() && plainWord.MatchString(strings.TrimRight(words[0], ",.:")) {
		name := strings.TrimRight(words[0], ",.:")
		next := childOf(cmd, name)
		switch {
		case next == nil && cmd == root && prose(root, name):
			return ""
		case next == nil:
			return cmd.CommandPath() + " has no command " + name
		}
		cmd, words = next, words[1:]
	}
	for _, w := range words {
		name, isFlag := strings.CutPrefix(w, "--")
		name, _, _ = strings.Cut(strings.TrimRight(name, ",.:"), "=")
		if isFlag && name != "" && cmd.Flags().Lookup(name) == nil && cmd.InheritedFlags().Lookup(name) == nil && name != "help" {
			return cmd.CommandPath() + " has no flag --" + name
		}
	}
	return ""
}

// prose says whether a word after our name goes on a sentence: a verb, and none
// that is nearly a command.
func prose(root *cobra.Command, word string) bool {
	switch word {
	case "itself", "is", "may", "could", "can", "cannot", "will", "must", "to":
		return true
	}
	verb, ok := strings.CutSuffix(word, "s")
	return ok && childOf(root, verb) == nil && childOf(root, strings.TrimSuffix(verb, "e")) == nil
}

func childOf(cmd *cobra.Command, name string) *cobra.Command {
	for _, c := range cmd.Commands() {
		if c.Name() == name || c.HasAlias(name) {
			return c
		}
	}
	return nil
}
