package diagnose_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/diagnose"
)

// TestCatalogueIsTheTaxonomy holds the catalogue to the agreed causes, each with
// its usual mender and its usual retry.
func TestCatalogueIsTheTaxonomy(t *testing.T) {
	b, err := os.ReadFile("testdata/taxonomy.txt")
	if err != nil {
		t.Fatal(err)
	}
	agreed := map[string]bool{diagnose.Unknown: true}
	for _, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		f := strings.Fields(line)
		agreed[f[1]] = true
		c, ok := diagnose.Lookup(f[1])
		if !ok {
			t.Errorf("no entry for %s", f[1])
		} else if c.ID != f[1] || c.Family != f[0] || string(c.Who) != f[2] || string(c.Retry) != f[3] {
			t.Errorf("%s is %s %s %s, agreed is %s", c.ID, c.Family, c.Who, c.Retry, line)
		}
	}
	for _, c := range diagnose.Catalogue() {
		if !agreed[c.ID] {
			t.Errorf("%s is not in the taxonomy", c.ID)
		}
	}
	if got := len(diagnose.Catalogue()); got != len(agreed) {
		t.Errorf("the catalogue lists %d causes of %d", got, len(agreed))
	}
}

// known are the facts that an entry may name.
var known = map[string]bool{"mailbox": true, "user": true, "host": true, "port": true, "tenant": true, "app": true,
	"aud": true, "scope": true, "code": true, "wait": true, "from_address": true}

var placeholder = regexp.MustCompile(`\{([^{}|]*)(\|[^{}]*)?\}`)

func TestEntriesAreWhole(t *testing.T) {
	titles := map[string]string{}
	for _, c := range diagnose.Catalogue() {
		if titles[c.Title] != "" {
			t.Errorf("%s and %s have the same title", c.ID, titles[c.Title])
		}
		titles[c.Title] = c.ID
		for _, s := range []string{c.Sentence, c.Remedy} {
			if !strings.HasSuffix(s, ".") {
				t.Errorf("%s: %q does not end as a sentence", c.ID, s)
			}
		}
		if c.ID != "not-an-error" && len(c.Steps) == 0 {
			t.Errorf("%s has no steps", c.ID)
		}
		if c.ID != diagnose.Unknown && len(c.Texts) == 0 {
			t.Errorf("%s shows no text by which it may be known", c.ID)
		}
		for _, id := range c.Related {
			if _, ok := diagnose.Lookup(id); !ok || id == c.ID {
				t.Errorf("%s is related to %s", c.ID, id)
			}
		}
		for _, l := range c.Links {
			if !strings.HasPrefix(l, "https://") {
				t.Errorf("%s links to %s", c.ID, l)
			}
		}
		checkPlaceholders(t, c)
	}
}

// checkPlaceholders wants every fact known, and words for when it is not.
func checkPlaceholders(t *testing.T, c diagnose.Cause) {
	texts := []string{c.Sentence, c.Remedy}
	steps := c.Steps
	if c.Consumer != nil {
		texts = append(texts, c.Consumer.Remedy)
		steps = append(append([]diagnose.Step{}, steps...), c.Consumer.Steps...)
	}
	for _, s := range steps {
		texts = append(texts, s.Place, s.Text, s.Command)
	}
	for _, s := range texts {
		for _, m := range placeholder.FindAllStringSubmatch(s, -1) {
			if !known[m[1]] || len(m[2]) < 2 {
				t.Errorf("%s: placeholder %s", c.ID, m[0])
			}
		}
	}
	if p := c.Page(); strings.ContainsAny(p, "{}|") && placeholder.MatchString(p) {
		t.Errorf("%s: a placeholder is left on its page", c.ID)
	}
}

func TestFactsOfTheCaseAreNamed(t *testing.T) {
	f := diagnose.Explain(diagnose.Failure{Text: "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox.",
		Protocol: "smtp", Context: map[string]any{"mailbox": "scanner@contoso.example"}})
	if !strings.Contains(f.Sentence, "scanner@contoso.example") {
		t.Errorf("sentence %q does not name the mailbox", f.Sentence)
	}
	if f.Link != "errors/smtp-auth-disabled-mailbox" || f.Who != mailgrant.WhoTenantAdmin || !f.NeedsPerson() {
		t.Errorf("got %+v", f)
	}
	var commands []string
	for _, s := range f.Steps {
		commands = append(commands, s.Command)
	}
	if !strings.Contains(strings.Join(commands, "\n"), "Set-CASMailbox -Identity scanner@contoso.example -Smtp") {
		t.Errorf("commands %q", commands)
	}
}

// TestACommandTakesNoCommand keeps a hostile address out of lines to copy.
func TestACommandTakesNoCommand(t *testing.T) {
	for _, address := range []string{"a@b.example; rm -rf /", "$(id)@b.example", "a`id`@b.example", "-x", "a\nb@c.example", "a|b@c.example"} {
		for _, c := range diagnose.Catalogue() {
			f := diagnose.Explain(diagnose.Failure{Text: strings.Join(c.Texts, "\n"), Context: map[string]any{"mailbox": address, "host": address, "client_id": address}})
			for _, s := range f.Steps {
				if strings.Contains(s.Command, address) {
					t.Errorf("%s: %q", f.Cause, s.Command)
				}
			}
		}
	}
}

func TestAPersonalMailboxHasNoAdministrator(t *testing.T) {
	f := diagnose.Explain(diagnose.Failure{Text: "Your account is not enabled for IMAP use.", Protocol: "imap", Context: map[string]any{"mailbox": "someone@gmail.com"}})
	if f.Cause != "imap-pop-disabled-mailbox" || f.Who != mailgrant.WhoMailboxOwner {
		t.Errorf("got %s, to be mended by %s", f.Cause, f.Who)
	}
	for _, s := range f.Steps {
		if strings.Contains(s.Place, "admin") {
			t.Errorf("sends the owner to %s", s.Place)
		}
	}
}

func TestEveryCauseIsKnownByItsOwnTexts(t *testing.T) {
	for _, c := range diagnose.Catalogue() {
		hit := false
		for _, text := range c.Texts {
			hit = hit || diagnose.Explain(diagnose.Failure{Text: text}).Cause == c.ID
		}
		if !hit && !onlyByFacts[c.ID] {
			t.Errorf("no text of %s leads to it", c.ID)
		}
	}
}

// onlyByFacts are causes whose words are those of other causes.
var onlyByFacts = map[string]bool{diagnose.Unknown: true, "xoauth2-identity-mismatch": true, "service-principal-not-registered": true,
	"google-testing-mode-7-day": true, "device-code-blocked": true}

func TestWordsFindACause(t *testing.T) {
	for word, id := range map[string]string{"less secure apps": "app-password-required", "AADSTS7000222": "client-secret-expired",
		"7-day": "google-testing-mode-7-day", "Need admin approval": "admin-consent-required", " STARTTLS ": "tls-failure"} {
		if c, _ := diagnose.Lookup(id); !c.Matches(word) {
			t.Errorf("%q does not find %s", word, id)
		}
	}
}
