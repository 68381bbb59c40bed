package adopt_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/adopt"
)

var update = flag.Bool("update", false, "write the expected reports anew")

// marker is in every secret of the examples.
const marker = "s3cr3t"

// Each example has its report beside it. The format is found by itself, and no
// secret comes out.
func TestExamples(t *testing.T) {
	for _, f := range adopt.Formats {
		files, err := filepath.Glob("testdata/" + string(f) + "/*")
		if err != nil {
			t.Fatal(err)
		}
		seen := 0
		for _, file := range files {
			if filepath.Ext(file) == ".golden" {
				continue
			}
			seen++
			t.Run(filepath.ToSlash(strings.TrimPrefix(file, "testdata/")), func(t *testing.T) { example(t, f, file) })
		}
		if seen < 2 {
			t.Errorf("%s has %d examples", f, seen)
		}
	}
}

// docs/import.md names every kind of danger.
func TestTheDocumentsNameEveryDanger(t *testing.T) {
	page, err := os.ReadFile("../../docs/import.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	kind := regexp.MustCompile(`\.danger\([^"]*"([a-z-]+)"`)
	seen := 0
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range kind.FindAllSubmatch(source, -1) {
			if seen++; !bytes.Contains(page, []byte("`"+string(m[1])+"`")) {
				t.Errorf("docs/import.md does not name %s", m[1])
			}
		}
	}
	if seen < 40 {
		t.Errorf("only %d were found: is the search still right?", seen)
	}
}

func example(t *testing.T, f adopt.Format, file string) {
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	r, err := adopt.Read(data, "")
	if err != nil {
		t.Fatal(err)
	}
	if r.Format != f {
		t.Errorf("it was taken for %s", r.Format)
	}
	got, settings := told(t, r)
	if strings.Contains(got, marker) {
		t.Errorf("a secret comes out:\n%s", got)
	}
	golden := file + ".golden"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("-expected +got; write them anew with -update\n%s", diff)
	}
	sound(t, r, data, settings)
}

// told is all that leaves the package.
func told(t *testing.T, r adopt.Report) (all string, settings []byte) {
	t.Helper()
	b, err := r.JSON()
	if err != nil {
		t.Fatal(err)
	}
	if settings, err = r.File(); err != nil {
		t.Fatal(err)
	}
	return string(b) + "\n" + string(settings), settings
}

// sound holds what is true of every report.
func sound(t *testing.T, r adopt.Report, data []byte, settings []byte) {
	t.Helper()
	lines := bytes.Count(data, []byte("\n")) + bytes.Count(data, []byte("\r")) + 2
	for _, l := range [][]adopt.Note{r.Understood, r.Dangerous, r.Needs, r.NotUnderstood} {
		for _, n := range l {
			if n.Line < 0 || n.Line > lines || n.Kind == "" || n.Text == "" || strings.ContainsAny(n.Text+n.Remedy, "\n\r") {
				t.Errorf("%+v, of %d lines", n, lines)
			}
		}
	}
	var back adopt.Settings
	if err := yaml.Unmarshal(settings, &back); err != nil {
		t.Fatalf("%v in:\n%s", err, settings)
	}
	registrations := map[string]bool{}
	for _, reg := range back.Registrations {
		registrations[reg.Name] = true
	}
	for _, m := range back.Mailboxes {
		if m.Address == "" || !registrations[m.Grant.Registration] {
			t.Errorf("%+v", m)
		}
		if m.Receive != nil && (m.Receive.Protocol == "" || m.Receive.After == mailgrant.AfterDelete) {
			t.Errorf("%+v", m.Receive)
		}
	}
}

func TestHostileFiles(t *testing.T) {
	deep := strings.Repeat("[", 20_000)
	for name, c := range map[string]struct {
		data   string
		format adopt.Format
		code   mailgrant.Code
	}{
		"empty":          {"", "", mailgrant.Invalid},
		"only a mark":    {"\xef\xbb\xbf \r\n", "", mailgrant.Invalid},
		"too large":      {strings.Repeat("a", adopt.MaxBytes+1), "", mailgrant.TooLarge},
		"a program":      {"\x7fELF\x00\x01", "", mailgrant.Invalid},
		"a letter":       {"Dear Kim,\nwe are on it.\n", "", mailgrant.Invalid},
		"no such format": {"[a]\n", "procmail", mailgrant.Invalid},
		"not YAML":       {"mailboxes: {a: [", adopt.MailRoom, mailgrant.Invalid},
		"deep":           {"mailboxes: " + deep, adopt.MailRoom, mailgrant.Invalid},
		"merge bomb":     {bomb("<<: [*%c, *%c, *%c, *%c, *%c, *%c, *%c, *%c, *%c]"), adopt.MailRoom, mailgrant.Invalid},
		"many words":     {strings.Repeat("poll\nx y z\n", 2000), adopt.Fetchmail, mailgrant.Invalid},
		"many mailboxes": {numbered("poll x user u%@x.example\n"), adopt.Fetchmail, mailgrant.TooLarge},
		"many sections":  {"[retriever]\n" + strings.Repeat("[x]\n[y]\n", 2000), adopt.Getmail, mailgrant.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := adopt.Read([]byte(c.data), c.format)
			e := mailgrant.AsError(err)
			if err == nil || e.Code != c.code || e.Remedy == "" {
				t.Errorf("%v (%v), %d lines not understood", err, e, len(r.NotUnderstood))
			}
		})
	}
}

// What refers to what refers to much ends soon.
func TestReferencesEndSoon(t *testing.T) {
	var b strings.Builder
	b.WriteString("[a@b.example]\n")
	for c := 'a'; c < 'm'; c++ {
		b.WriteString(string(c) + " = " + strings.Repeat("%("+string(c+1)+")s", 5000) + "\n")
	}
	r, err := adopt.Read([]byte(b.String()+"m =\n"), adopt.EmailProxy)
	if err != nil || len(r.NotUnderstood) < 10 {
		t.Errorf("%v, %d notes", err, len(r.NotUnderstood))
	}
}

// numbered repeats a line with a number in it.
func numbered(line string) string {
	var b strings.Builder
	for i := range 2 * 2000 {
		b.WriteString(strings.ReplaceAll(line, "%", strconv.Itoa(i)))
	}
	return b.String()
}

// bomb is a file in which each mapping merges the one before it nine times.
func bomb(merge string) string {
	var b strings.Builder
	b.WriteString("a: &a {email: x@example.net}\n")
	for c := 'b'; c < 'm'; c++ {
		b.WriteString(string(c) + ": &" + string(c) + " {" + strings.ReplaceAll(merge, "%c", string(c-1)) + "}\n")
	}
	b.WriteString("mailboxes: [*l]\n")
	return b.String()
}

// What a parser says of a broken file may cite what stands there.
func TestAnErrorCitesNothing(t *testing.T) {
	_, err := adopt.Read([]byte("mailboxes:\n  - email: a@b.example\n    password: *"+marker+"\n"), "")
	if err == nil || strings.Contains(err.Error(), marker) || !strings.Contains(err.Error(), "YAML") {
		t.Errorf("%v", err)
	}
	if cause := mailgrant.AsError(err).Cause; cause == nil || strings.Contains(cause.Error(), marker) {
		t.Errorf("%v", cause)
	}
}

// The same settings mean the same in each encoding.
func TestEncodings(t *testing.T) {
	plain := "[retriever]\ntype = SimpleIMAPSSLRetriever\nserver = imap.example.net\nusername = jörg@example.net\nmailboxes = ('Entwürfe', )\n"
	want, _ := told(t, read(t, []byte(plain)))
	var little, big []byte
	for _, c := range plain {
		little = append(little, byte(c), byte(c>>8))
		big = append(big, byte(c>>8), byte(c))
	}
	for name, data := range map[string][]byte{
		"CRLF": []byte(strings.ReplaceAll(plain, "\n", "\r\n")), "CR": []byte(strings.ReplaceAll(plain, "\n", "\r")), "mark": []byte("\xef\xbb\xbf" + plain),
		"little": append([]byte("\xff\xfe"), little...), "big": append([]byte("\xfe\xff"), big...),
	} {
		if got, _ := told(t, read(t, data)); got != want {
			t.Errorf("%s: %s", name, cmp.Diff(want, got))
		}
	}
	var latin []byte
	for _, c := range plain {
		latin = append(latin, byte(c))
	}
	r := read(t, latin)
	if len(r.NotUnderstood) != 1 || r.NotUnderstood[0].Kind != "encoding" || r.NotUnderstood[0].Line != 4 {
		t.Errorf("%+v", r.NotUnderstood)
	}
}

func read(t *testing.T, data []byte) adopt.Report {
	t.Helper()
	r, err := adopt.Read(data, "")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func FuzzRead(f *testing.F) {
	for i, format := range adopt.Formats {
		files, err := filepath.Glob("testdata/" + string(format) + "/*")
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			if data, err := os.ReadFile(file); err == nil && filepath.Ext(file) != ".golden" {
				f.Add(data, byte(i))
			}
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, which byte) {
		for _, format := range []adopt.Format{"", adopt.Formats[int(which)%len(adopt.Formats)]} {
			r, err := adopt.Read(data, format)
			if err != nil {
				if e := mailgrant.AsError(err); e.Code == mailgrant.Internal || e.Remedy == "" {
					t.Errorf("%v", err)
				}
				continue
			}
			_, settings := told(t, r)
			sound(t, r, data, settings)
		}
	})
}
