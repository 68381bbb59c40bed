package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/config"
)

func load(t *testing.T, text string) (config.Config, error) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "mailgrant.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return config.Load(name)
}

func TestFileThenEnvironment(t *testing.T) {
	t.Setenv("MAILGRANT_LIMITS__RECIPIENTS", "7")
	t.Setenv("MAILGRANT_KEY", "of the client")
	c, err := load(t, "dir: data\nlimits: {recipients: 5, life: 48h}\nlisten: ['submissions://:10465']\n")
	if err != nil {
		t.Fatal(err)
	}
	if c.Limits.Recipients != 7 || c.Limits.Life.Hours() != 48 || c.Limits.MessageBytes != 35<<20 {
		t.Errorf("limits: %+v", c.Limits)
	}
	if !filepath.IsAbs(c.Dir) {
		t.Errorf("dir %q is not relative to the file", c.Dir)
	}
}

func TestSC03BadSettingsAreRefused(t *testing.T) {
	for name, text := range map[string]string{
		"unknown":                 "databse: x",
		"unknown inside":          "limits: {recipient: 5}",
		"wrong kind":              "limits: {recipients: many}",
		"plain text to the world": "listen: ['submission+insecure://0.0.0.0:25']",
		"http without a word":     "listen: ['http://127.0.0.1:80']",
		"no such door":            "listen: ['gopher://:70']",
		"no door":                 "listen: []",
		"public http":             "public_url: http://mail.example.com",
		"half a certificate":      "tls: {cert: a.pem}",
		"no YAML":                 "\t:",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, text)
			if !errors.Is(err, mailgrant.Misset) {
				t.Fatalf("got %v", err)
			}
			if mailgrant.AsError(err).Remedy == "" {
				t.Errorf("%v: no remedy", err)
			}
		})
	}
}

func TestUnknownSettingIsNamedWithItsPlace(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"at the top":       {"# mine\ndir: x\n\ndatabse: y\n", `mailgrant.yaml, line 4: there is no setting "databse"`},
		"inside":           {"limits:\n  recipients: 5\n  recipient: 5\n", `line 3: there is no setting "limits.recipient"`},
		"in one line":      {"log: {levl: info}", `line 1: there is no setting "log.levl"`},
		"deep below":       {"dir: x\nfoo:\n  bar:\n    - baz: 1\n", `line 3: there is no setting "foo.bar"`},
		"the first of two": {"zzz: 1\naaa: 2\n", `line 1: there is no setting "zzz"`},
		"with dots":        {"dir: x\nfoo.bar: 1\n", `line 2: there is no setting "foo.bar"`},
	} {
		if _, err := load(t, c.text); err == nil || !strings.HasSuffix(err.Error(), c.want) || mailgrant.AsError(err).Remedy == "" {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
	}
	t.Setenv("MAILGRANT_LIMITS__RECIPIENT", "7")
	for _, text := range []string{"dir: x", "limits: {recipients: 3}"} {
		if _, err := load(t, text); err == nil || !strings.Contains(err.Error(), "MAILGRANT_LIMITS__RECIPIENT") {
			t.Errorf("of the environment: %v", err)
		}
	}
}

func TestSE11PrintedSettingsHideSecrets(t *testing.T) {
	c := config.Default()
	c.Database = "postgres://mail:hunter2@db/mail"
	if s := c.String(); strings.Contains(s, "hunter2") || !strings.Contains(s, "[secret]") {
		t.Errorf("%s", s)
	}
}

func TestPrintedSettingsAreReadAgain(t *testing.T) {
	want := config.Default()
	want.Listen = []string{"https://:8443", "submission+insecure://127.0.0.1:2525"}
	want.Dir = "/var/lib/mailgrant"
	got, err := load(t, want.String())
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != want.String() {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
