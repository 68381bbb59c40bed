package main

import (
	"os"
	"strings"
	"testing"
)

// TestSettingsPage keeps docs/settings.md to the template; -update writes it.
func TestSettingsPage(t *testing.T) {
	const file = "../../docs/settings.md"
	want := "# Settings\n\nDefaults, then this file (`--config`, or `MAILGRANT_CONFIG`), then the environment, then flags. An unknown name is an\n" +
		"error. `mailgrant config check` looks at a file, `mailgrant config show` says what is in force.\n\n```yaml\n" + strings.TrimSpace(configTemplate) + "\n```\n"
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil || string(got) != want {
		t.Errorf("docs/settings.md is not what the template says (%v); run: go test ./cmd/mailgrant -update", err)
	}
}
