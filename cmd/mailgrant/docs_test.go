package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

var update = flag.Bool("update", false, "write the expected files anew")

const docsDir = "../../docs/cli"

// docs/cli has a page for every command, made from the tree.
func TestPagesOfCommandsAreThoseOfTheTree(t *testing.T) {
	root := newRoot()
	pages := map[string][]byte{}
	addPages(pages, root)
	if *update {
		if err := os.RemoveAll(docsDir); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(docsDir, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, b := range pages {
			if err := os.WriteFile(filepath.Join(docsDir, name), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	have, err := filepath.Glob(filepath.Join(docsDir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range have {
		if pages[filepath.Base(f)] == nil {
			t.Errorf("%s is the page of no command; write them anew: go test ./cmd/mailgrant -run Pages -update", f)
		}
	}
	for name, want := range pages {
		got, err := os.ReadFile(filepath.Join(docsDir, name))
		if err != nil {
			t.Errorf("%v; write them anew: go test ./cmd/mailgrant -run Pages -update", err)
			continue
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s is not what the command says (-command +page); write them anew: go test ./cmd/mailgrant -run Pages -update\n%s", name, diff)
		}
	}
}

func pageName(cmd *cobra.Command) string {
	return strings.ReplaceAll(cmd.CommandPath(), " ", "_") + ".md"
}

func addPages(pages map[string][]byte, cmd *cobra.Command) {
	if cmd.Name() == "help" {
		return
	}
	pages[pageName(cmd)] = page(cmd)
	for _, c := range cmd.Commands() {
		addPages(pages, c)
	}
}

// page is what --help says, with links.
func page(cmd *cobra.Command) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# %s\n\n%s.\n", cmd.CommandPath(), cmd.Short)
	if cmd.Runnable() && (!cmd.HasSubCommands() || cmd.Name() == "queue") {
		fmt.Fprintf(&b, "\n```\n%s\n```\n", cmd.UseLine())
	}
	if cmd.Long != "" && cmd.Long != cmd.Short {
		fmt.Fprintf(&b, "\n```\n%s\n```\n", strings.TrimSpace(cmd.Long))
	}
	if cmd.Example != "" {
		fmt.Fprintf(&b, "\n## Examples\n\n```sh\n%s\n```\n", strings.ReplaceAll("\n"+cmd.Example, "\n  ", "\n")[1:])
	}
	for _, s := range []struct{ head, text string }{
		{"Flags", cmd.NonInheritedFlags().FlagUsages()}, {"Flags of all commands", cmd.InheritedFlags().FlagUsages()},
	} {
		if s.text != "" {
			fmt.Fprintf(&b, "\n## %s\n\n```\n%s```\n", s.head, s.text)
		}
	}
	if cmd.HasSubCommands() {
		b.WriteString("\n## Commands\n\n")
		for _, c := range cmd.Commands() {
			if c.Name() != "help" {
				fmt.Fprintf(&b, "- [%s](%s): %s\n", c.CommandPath(), pageName(c), c.Short)
			}
		}
	}
	if cmd.HasParent() {
		fmt.Fprintf(&b, "\nSee also [%s](%s).\n", cmd.Parent().CommandPath(), pageName(cmd.Parent()))
	}
	return b.Bytes()
}
