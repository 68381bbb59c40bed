// Package adopt reads the settings of other programs that fetch mail or stand
// between a mailbox and its clients, and says what of them mailgrant can go on with.
//
// A file becomes a Report: what was understood, what in it is dangerous, what still
// needs a person, and the settings in the form that mailgrant apply reads. Nothing
// of a file is run, no other file is opened, nobody is asked over the network, and
// no secret leaves this package: where one stands, the report names the line, and
// the settings name an environment variable for it.
//
//	bytes ─▶ text ─▶ one reader a format ─▶ accounts ─▶ settle ─▶ Report
//
// What a file says and a reader does not know is listed, line by line: a setting
// that was passed over in silence would be missed too late.
package adopt

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/mailgrant/mailgrant"
)

// A Format is whose settings a file holds.
type Format string

const (
	EmailProxy Format = "email-oauth2-proxy"
	MailRoom   Format = "mail_room"
	Getmail    Format = "getmail"
	Fetchmail  Format = "fetchmail"
)

// Formats are all that are read.
var Formats = []Format{EmailProxy, MailRoom, Getmail, Fetchmail}

// A Note is one thing that a report tells.
type Note struct {
	Line   int    `json:"line,omitempty"`   // of the file; 0: of all of it
	Kind   string `json:"kind"`             // for programs: "password-in-file", "consent", …
	Text   string `json:"text"`             // one sentence without secrets
	Remedy string `json:"remedy,omitempty"` // what to do about it
}

// A Report is what became of a file.
type Report struct {
	Format        Format   `json:"format"`
	Understood    []Note   `json:"understood"`
	Dangerous     []Note   `json:"dangerous"`
	Needs         []Note   `json:"needs"`          // what still needs a person
	NotUnderstood []Note   `json:"not_understood"` // lines that say nothing to us
	Secrets       []Secret `json:"secrets"`        // that the operator fills in
	Settings      Settings `json:"settings"`
}

// A Secret is a place in the file where one stands, and the environment variable
// from which apply will take it.
type Secret struct {
	Line int    `json:"line,omitempty"`
	Env  string `json:"env"`
	What string `json:"what"` // "the client secret of Microsoft 365"
}

// MaxBytes bounds a file: the longest that people write are a tenth of it.
const MaxBytes = 1 << 20

// accountsMax bounds what a person can look through.
const accountsMax = 2000

// strangeMax ends the reading of a file that is something else.
const strangeMax = 1000

// Read reads a file. Without a format it is found from the content.
func Read(data []byte, format Format) (Report, error) {
	r := &reading{met: map[int]int{}, missed: map[int]int{}, once: map[string]bool{}}
	lines, err := r.text(data)
	if err != nil {
		return Report{}, err
	}
	if format == "" {
		if format, err = detect(lines); err != nil {
			return Report{}, err
		}
	}
	r.Format = format
	switch format {
	case EmailProxy:
		err = r.emailProxy(lines)
	case MailRoom:
		err = r.mailRoom(lines)
	case Getmail:
		err = r.getmail(lines)
	case Fetchmail:
		r.fetchmail(lines)
	default:
		return Report{}, mailgrant.Errorf(mailgrant.Invalid, nil, "%q is no format that can be imported", format).
			Fix("use one of: %s", formatList()).At("from")
	}
	if err != nil {
		return Report{}, err
	}
	if len(r.NotUnderstood) > strangeMax {
		return Report{}, mailgrant.Errorf(mailgrant.Invalid, nil, "more than %d lines of the file are not understood as settings of %s", strangeMax, format).
			Fix("look whether it is the right file, or name what it is: --from")
	}
	if len(r.accounts) > accountsMax {
		return Report{}, mailgrant.Errorf(mailgrant.TooLarge, nil, "the file names more than %d mailboxes", accountsMax).
			Fix("take it apart, and import the parts one by one")
	}
	r.settle()
	return r.done(), nil
}

func formatList() string {
	names := make([]string, len(Formats))
	for i, f := range Formats {
		names[i] = string(f)
	}
	return strings.Join(names, ", ")
}

var (
	proxySection   = regexp.MustCompile(`(?i)^\[(?:email oauth 2\.0 proxy configuration file|server setup|account setup|emailproxy|(?:imap|pop|smtp)-\d+|[^\]]*@[^\]]*)\]`)
	getmailSection = regexp.MustCompile(`^\[(?:retriever|destination|default)\]`)
	anySection     = regexp.MustCompile(`^\[[^\]]+\]\s*$`)
	roomKey        = regexp.MustCompile(`^["']?:?mailboxes["']?\s*:`)
	fetchmailWord  = regexp.MustCompile(`^\s*(?:poll|skip|server|defaults|set)(?:\s|$)`)
	getmailOld     = regexp.MustCompile(`^postmaster\s*[=:]`)
)

// detect finds the format by the first line that belongs to one only.
func detect(lines []string) (Format, error) {
	sections, old := false, false
	for _, l := range lines {
		switch {
		case proxySection.MatchString(l):
			return EmailProxy, nil
		case getmailSection.MatchString(l):
			return Getmail, nil
		case !sections && roomKey.MatchString(l):
			return MailRoom, nil
		case !sections && fetchmailWord.MatchString(l):
			return Fetchmail, nil
		}
		sections = sections || anySection.MatchString(l)
		old = old || getmailOld.MatchString(l)
	}
	if sections && old {
		return Getmail, nil
	}
	return "", mailgrant.Errorf(mailgrant.Invalid, nil, "the file does not show whose settings it holds").
		Fix("name it: --from %s", strings.ReplaceAll(formatList(), ", ", "|")).At("from")
}

// A reading is a report that comes to be.
type reading struct {
	Report
	accounts []*account

	met, missed map[int]int // entries of [DEFAULT], by line: looked at, not known
	once        map[string]bool
}

func (r *reading) understood(line int, kind, format string, args ...any) {
	r.Understood = append(r.Understood, Note{Line: line, Kind: kind, Text: fmt.Sprintf(format, args...)})
}

func (r *reading) danger(line int, kind, remedy, format string, args ...any) {
	r.Dangerous = append(r.Dangerous, Note{Line: line, Kind: kind, Text: fmt.Sprintf(format, args...), Remedy: remedy})
}

func (r *reading) need(line int, kind, remedy, format string, args ...any) {
	r.Needs = append(r.Needs, Note{Line: line, Kind: kind, Text: fmt.Sprintf(format, args...), Remedy: remedy})
}

// strange notes what is not understood. Beyond the most it only counts: the file is
// refused anyway.
func (r *reading) strange(line int, kind, format string, args ...any) {
	if n := len(r.NotUnderstood); n <= strangeMax {
		r.NotUnderstood = append(r.NotUnderstood, Note{Line: line, Kind: kind, Text: fmt.Sprintf(format, args...)})
	}
}

// unknown notes a key that is not known.
func (r *reading) unknown(line int, key, where string) {
	r.strange(line, "unknown-key", "%s of %s is not known", named(key), where)
}

// unknownEntry does so for an entry. One of [DEFAULT] is noted when no section knew
// it: see strangers.
func (r *reading) unknownEntry(e entry, where string) {
	if e.inherited {
		r.missed[e.line]++
		return
	}
	r.unknown(e.line, e.key, where)
}

// first says whether something is told for the first time.
func (r *reading) first(what string) bool {
	told := r.once[what]
	r.once[what] = true
	return !told
}

// done puts the notes into the order of the file.
func (r *reading) done() Report {
	for _, l := range []*[]Note{&r.Understood, &r.Dangerous, &r.Needs, &r.NotUnderstood} {
		ordered := slices.Clone(*l)
		slices.SortStableFunc(ordered, func(a, b Note) int { return cmp.Compare(rank(a.Line), rank(b.Line)) })
		*l = slices.Compact(ordered)
		if *l == nil {
			*l = []Note{}
		}
	}
	if r.Secrets == nil {
		r.Secrets = []Secret{}
	}
	return r.Report
}

// rank puts what belongs to no line after all that does.
func rank(line int) int {
	if line == 0 {
		return MaxBytes + 1
	}
	return line
}

var plainKey = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,39}$`)

// named is a key for people. One that looks like none is not shown: a line that is
// broken in the wrong place may begin with a piece of a secret.
func named(key string) string {
	if plainKey.MatchString(key) {
		return key
	}
	return "a key that is none"
}

// shown is a value for people: one line, not too long.
func shown(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029 {
			return ' '
		}
		return r
	}, s)
	if runes := []rune(s); len(runes) > 80 {
		return string(runes[:80]) + "…"
	}
	return s
}

// JSON is the report for programs.
func (r Report) JSON() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(r)
	return b.Bytes(), err
}
