package main

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// The example of the documents is a file that apply reads, and export would write
// the same again.
func TestTheExampleOfTheDocumentsIsRead(t *testing.T) {
	w, err := readWanted(strings.NewReader(documentExample(t)))
	if err != nil {
		t.Fatal(err)
	}
	if len(w.Registrations) != 1 || len(w.Mailboxes) != 4 || len(w.Apps) != 2 {
		t.Fatalf("read %d registrations, %d mailboxes, %d apps", len(w.Registrations), len(w.Mailboxes), len(w.Apps))
	}
	b, err := yaml.Marshal(w)
	if err != nil {
		t.Fatal(err)
	}
	again, err := readWanted(strings.NewReader(string(b)))
	if err != nil {
		t.Fatalf("what export writes is not read: %v\n%s", err, b)
	}
	for i := range again.Registrations {
		again.Registrations[i].line = w.Registrations[i].line
	}
	for i := range again.Mailboxes {
		again.Mailboxes[i].line = w.Mailboxes[i].line
	}
	for i := range again.Apps {
		again.Apps[i].line = w.Apps[i].line
	}
	if !reflect.DeepEqual(w, again) {
		t.Errorf("read, written and read again it is another:\n%s", b)
	}
}

var exampleBlock = regexp.MustCompile("(?s)```yaml\n(.*?)```")

func documentExample(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../../docs/apply.md")
	if err != nil {
		t.Fatal(err)
	}
	m := exampleBlock.FindSubmatch(b)
	if m == nil {
		t.Fatal("docs/apply.md has no example")
	}
	return string(m[1])
}

// Every setting of a file is described in the documents.
func TestTheDocumentsNameEverySettingOfAFile(t *testing.T) {
	b, err := os.ReadFile("../../docs/apply.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []any{wanted{}, wantRegistration{}, wantCredential{}, wantMailbox{}, wantLimits{}, wantReceive{}, wantGrant{}, wantApp{}} {
		rt := reflect.TypeOf(v)
		for i := range rt.NumField() {
			name, _, _ := strings.Cut(rt.Field(i).Tag.Get("yaml"), ",")
			if name != "" && !strings.Contains(string(b), "`"+name+"`") && !strings.Contains(string(b), "## "+name) {
				t.Errorf("docs/apply.md does not describe %s of %s", name, rt.Name())
			}
		}
	}
}
