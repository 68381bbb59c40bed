package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Scripts are command lines with what they answer, as one would see them:
//
//	# a remark
//	file NAME            the lines after it that begin with "| " become a file
//	env NAME VALUE       sets an environment variable
//	consent ADDRESS WHO  somebody walks the consent of a mailbox at the imitated provider
//	< TEXT               a line of standard input for the next command
//	$ mailgrant …        a command; then what it printed, "2> " before lines of
//	                     standard error, and [exit N] when that is not 0; a line "…" is
//	                     any lines
//
// {DIR} is the directory of the script, {mbx}, {msg} … the last id of that kind that
// was printed, {secret} the last key of an app, and other names in braces are what the world of the script gives. Ids,
// times and such are written as their kind. go test -update writes what was printed.
type script struct {
	t     *testing.T
	dir   string
	world map[string]string // names in braces
	steps map[string]func(args []string) error

	out   strings.Builder // the script as it turned out
	input strings.Builder
	last  map[string]string // ids
}

// runScripts runs every script of a directory, each in a world of its own.
func runScripts(t *testing.T, pattern string, open func(t *testing.T, s *script)) {
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts in %s: %v", pattern, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			s := &script{t: t, dir: t.TempDir(), world: map[string]string{}, steps: map[string]func([]string) error{}, last: map[string]string{}}
			for _, name := range []string{"URL", "KEY", "CONFIG", "ORGANIZATION", "DIR"} {
				t.Setenv("MAILGRANT_"+name, "")
				os.Unsetenv("MAILGRANT_" + name)
			}
			t.Setenv("TZ", "UTC")
			s.world["DIR"] = s.dir
			open(t, s)
			s.run(file)
		})
	}
}

func (s *script) run(file string) {
	b, err := os.ReadFile(file)
	if err != nil {
		s.t.Fatal(err)
	}
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		word, rest, _ := strings.Cut(line, " ")
		switch {
		case line == "" && (i == 0 || lines[i-1] != ""), word == "#", word == "#!":
			s.keep(line)
		case word == "file":
			s.keep(line)
			i = s.file(rest, lines, i+1)
		case word == "env":
			s.keep(line)
			name, value, _ := strings.Cut(rest, " ")
			s.t.Setenv(name, s.expand(value))
		case word == "<":
			s.keep(line)
			s.input.WriteString(s.expand(rest) + "\n")
		case s.steps[word] != nil:
			s.keep(line)
			if err := s.steps[word](strings.Fields(s.expand(rest))); err != nil {
				s.t.Fatalf("%s:%d: %s: %v", file, i+1, line, err)
			}
		case word == "$":
			s.keep(line)
			i = s.command(file, rest, lines, i)
		default:
			s.t.Fatalf("%s:%d: %q is no line of a script", file, i+1, line)
		}
	}
	if *update {
		if err := os.WriteFile(file, []byte(strings.TrimRight(s.out.String(), "\n")+"\n"), 0o644); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *script) keep(line string) { s.out.WriteString(line + "\n") }

// file writes the lines that follow, and gives the last of them.
func (s *script) file(name string, lines []string, i int) int {
	var b strings.Builder
	for ; i < len(lines) && strings.HasPrefix(lines[i], "|"); i++ {
		s.keep(lines[i])
		b.WriteString(s.expand(strings.TrimPrefix(strings.TrimPrefix(lines[i], "|"), " ")) + "\n")
	}
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(b.String()), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return i - 1
}

// commandWithin bounds one command; a machine under load is slow.
const commandWithin = 60 * time.Second

// command runs one and compares what it printed; it gives the last line that
// belongs to it.
func (s *script) command(file, text string, lines []string, i int) int {
	at := i + 1
	var want []string
	for i++; i < len(lines) && lines[i] != "" && !strings.HasPrefix(lines[i], "$ "); i++ {
		want = append(want, lines[i])
	}
	args := fieldsOf(s.t, s.expand(text))
	if len(args) == 0 || args[0] != "mailgrant" {
		s.t.Fatalf("%s:%d: %q is not a command of ours", file, at, text)
	}
	var out, errOut bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), commandWithin)
	defer cancel()
	status := run(ctx, args[1:], strings.NewReader(s.input.String()), &out, &errOut)
	s.input.Reset()
	got := s.seen(out.String(), errOut.String(), status)
	if fits := elided(want, got); fits {
		got = want
	}
	if diff := cmp.Diff(want, got); diff != "" && !*update {
		s.t.Errorf("%s:%d: $ %s (-expected +printed)\n%s", file, at, text, diff)
	}
	for _, l := range got {
		s.keep(l)
	}
	return i - 1
}

// elided says whether what was printed is what was expected, where a line "…" stands
// for any lines: words that belong to others.
func elided(want, got []string) bool {
	if len(want) == 0 {
		return len(got) == 0
	}
	if want[0] == "…" {
		return elided(want[1:], got) || len(got) > 0 && elided(want, got[1:])
	}
	return len(got) > 0 && want[0] == got[0] && elided(want[1:], got[1:])
}

// seen is what a command printed, in the lines of a script. Empty lines, which end a
// command there, are shown as ".".
func (s *script) seen(out, errOut string, status int) (lines []string) {
	s.remember(out + errOut)
	for _, x := range []struct{ text, mark string }{{out, ""}, {errOut, "2> "}} {
		if x.text == "" {
			continue
		}
		for l := range strings.SplitSeq(strings.TrimSuffix(x.text, "\n"), "\n") {
			if l = x.mark + s.plain(l); strings.TrimSpace(l) == "" {
				l = "."
			}
			lines = append(lines, strings.TrimRight(l, " "))
		}
	}
	if status != 0 {
		lines = append(lines, "[exit "+strconv.Itoa(status)+"]")
	}
	return lines
}

var (
	anID    = regexp.MustCompile(`\b([a-z]{3})_[0-9a-hjkmnp-tv-z]{26}\b`)
	aKey    = regexp.MustCompile(`\bmg_[0-9A-Za-z_]{20,}`)
	inBrace = regexp.MustCompile(`\{([A-Za-z]+)\}`)
)

// changing is what differs from run to run.
var changing = []struct {
	re *regexp.Regexp
	as string
}{
	{anID, "${1}_…"},
	{regexp.MustCompile(`\bmg_[0-9A-Za-z_]{4,}`), "mg_…"},
	{regexp.MustCompile(`\bwhsec_[0-9A-Za-z+/=]{20,}`), "whsec_…"},
	{regexp.MustCompile(`\b20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)`), "TIME"},
	{regexp.MustCompile(`\b20\d\d-\d\d-\d\d \d\d:\d\d:\d\d( UTC)?`), "DATE"},
	{regexp.MustCompile(`\b20\d\d-\d\d-\d\d$|\b20\d\d-\d\d-\d\d([; ])`), "DAY$1"},
	{regexp.MustCompile(`\b\d+(\.\d+)?(µs|ms|s)\b`), "SPAN"},
	{regexp.MustCompile(`\b\d+ (ms|minutes|bytes)\b`), "N $1"},
	{regexp.MustCompile(`/connect/[0-9A-Za-z_-]+`), "/connect/…"},
	{regexp.MustCompile(`\b[0-9a-f]{8}(  +(DATE|-)  )`), "HEX$1"}, // the fingerprint of a secret
	{regexp.MustCompile(`^\d+(  DATE  )`), "N$1"},                 // the number of an event
	{regexp.MustCompile(`^(Key|Size) ( *)\d+`), "$1 ${2}N"},
	{regexp.MustCompile(`\b([0-9A-F]{16}|[0-9a-f]{16})\b`), "HEX"}, // of a server's reply; a signature
	{regexp.MustCompile(`("subject":)"[0-9A-Za-z_-]{43}"`), `$1"…"`},
	{regexp.MustCompile(`("seq"):\d+`), "$1:N"},
	{regexp.MustCompile(` +$`), ""},
}

func (s *script) plain(line string) string {
	names := sorted(s.world)
	slices.SortStableFunc(names, func(a, b string) int { return len(s.world[b]) - len(s.world[a]) }) // an address before its host
	for _, name := range names {
		line = strings.ReplaceAll(line, s.world[name], "{"+name+"}")
	}
	for _, c := range changing {
		line = c.re.ReplaceAllString(line, c.as)
	}
	return line
}

// remember keeps the last id of each kind; a Message-ID only looks like one.
func (s *script) remember(text string) {
	if key := aKey.FindString(text); key != "" {
		s.last["secret"] = key
	}
	for _, at := range anID.FindAllStringSubmatchIndex(text, -1) {
		if !strings.HasPrefix(text[at[1]:], "@") {
			s.last[text[at[2]:at[3]]] = text[at[0]:at[1]]
		}
	}
}

func (s *script) expand(text string) string {
	return inBrace.ReplaceAllStringFunc(text, func(m string) string {
		name := m[1 : len(m)-1]
		if v, ok := s.world[name]; ok {
			return v
		}
		if v, ok := s.last[name]; ok {
			return v
		}
		return m
	})
}

// fieldsOf splits a command line as a shell would: by spaces, outside of quotes.
func fieldsOf(t *testing.T, text string) (fields []string) {
	t.Helper()
	var b strings.Builder
	quote, inside := rune(0), false
	for _, r := range text + " " {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '"' || r == '\''):
			quote, inside = r, true
		case quote == 0 && r == ' ':
			if inside {
				fields = append(fields, b.String())
			}
			b.Reset()
			inside = false
		default:
			b.WriteRune(r)
			inside = true
		}
	}
	if quote != 0 {
		t.Fatal(fmt.Errorf("a quote is open in %q", text))
	}
	return fields
}

// Commands that need no running mailgrant.
func TestScriptsAlone(t *testing.T) {
	runScripts(t, "testdata/alone/*.txt", func(t *testing.T, s *script) { t.Setenv("MAILGRANT_DIR", s.dir) })
}
