package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"

	"github.com/mailgrant/mailgrant/internal/config"
)

var commentedSetting = regexp.MustCompile(`(?m)^#((?:  )*[a-z_]+:)`)

// The template shows every setting there is, each with its default.
func TestConfigTemplateIsTheDefaults(t *testing.T) {
	text := commentedSetting.ReplaceAllString(configTemplate, "$1")
	var tree map[string]any
	if err := yaml.Unmarshal([]byte(text), &tree); err != nil {
		t.Fatal(err)
	}
	var got []string
	for name, v := range tree {
		inner, ok := v.(map[string]any)
		if !ok {
			got = append(got, name)
		}
		for k := range inner {
			got = append(got, name+"."+k)
		}
	}
	want := config.Names()
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the template does not show the settings that there are (-there are +shown):\n%s", diff)
	}
	file := filepath.Join(t.TempDir(), "mailgrant.yaml")
	if err := os.WriteFile(file, []byte(strings.Replace(text, "dir: mailgrant-data", "dir: "+t.TempDir(), 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	c.Dir = config.Default().Dir
	if diff := cmp.Diff(config.Default().String(), c.String()); diff != "" {
		t.Errorf("the template does not show the defaults (-default +template):\n%s", diff)
	}
}
