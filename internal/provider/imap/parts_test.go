package imap

import (
	"strings"
	"testing"
	"testing/quick"
	"unicode/utf8"

	"github.com/mailgrant/mailgrant"
)

// RFC 3501 section 5.1.3, with its own example.
func TestNamesOfFolders(t *testing.T) {
	for _, c := range []struct{ name, wire string }{
		{"INBOX", "INBOX"}, {"~peter/mail/台北/日本語", "~peter/mail/&U,BTFw-/&ZeVnLIqe-"}, {"Tom & Ärger", "Tom &- &AMQ-rger"}, {"&", "&-"}, {"😀", "&2D3eAA-"}, {"a\r\nb\x00", "a&AA0ACg-b&AAA-"},
	} {
		if got := encodeName(c.name); got != c.wire {
			t.Errorf("%q is written %q, want %q", c.name, got, c.wire)
		}
		if got := decodeName(c.wire); got != c.name {
			t.Errorf("%q is read %q, want %q", c.wire, got, c.name)
		}
	}
	for wire, want := range map[string]string{"a&b": "a&b", "&!-": "&!-", "&AA-": "&AA-", "Entwürfe": "Entwürfe", "\xff": "?", "&2D0-": "\ufffd"} {
		if got := decodeName(wire); got != want {
			t.Errorf("%q is read %q, want %q", wire, got, want)
		}
	}
	if err := quick.Check(func(name string) bool {
		wire := encodeName(name)
		return decodeName(wire) == strings.ToValidUTF8(name, "\ufffd") && strings.IndexFunc(wire, func(r rune) bool { return r < ' ' || r > '~' }) < 0
	}, nil); err != nil {
		t.Error(err)
	}
}

// IM-03: no name of a folder or of a server's making ends a command.
func TestIM03NamesAreQuoted(t *testing.T) {
	for in, want := range map[string]string{`a"b\c`: `"a\"b\\c"`, "": `""`, "a b": `"a b"`} {
		if got := quote(in); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	for _, wire := range []string{"a\r\nA1 LOGOUT", "a\x00", "", strings.Repeat("x", 3000)} {
		if f, ok := (listed{wire: wire}).folder(); ok {
			t.Errorf("%q is a folder: %+v", wire, f)
		}
	}
}

func TestFoldersAreFound(t *testing.T) {
	var all []folder
	for _, l := range []listed{
		{wire: "INBOX", delim: "/"}, {wire: "Sent Items", delim: "/", attrs: []string{"sent"}}, {wire: "Sent", delim: "/"}, {wire: "Corbeille", delim: "/"},
		{wire: "Kunden", delim: "/", attrs: []string{"noselect"}}, {wire: "Kunden/A", delim: "/"}, {wire: "INBOX/Sub", delim: "/"}, {wire: "&AMQ-", delim: "/"},
	} {
		f, ok := l.folder()
		if !ok {
			t.Fatal(l)
		}
		all = append(all, f)
	}
	for want, wire := range map[string]string{"": "INBOX", "inbox": "INBOX", "Sent": "Sent", "SENT ITEMS": "Sent Items", "Gesendete Elemente": "Sent Items", "trash": "Corbeille",
		"deleted items": "Corbeille", "kunden/a": "Kunden/A", "/Kunden/A/": "Kunden/A", "sub": "INBOX/Sub", "ä": "&AMQ-", "&AMQ-": "&AMQ-", "junk": "", "nowhere": ""} {
		if f, _ := find(all, want); f.wire != wire {
			t.Errorf("%q is %q, want %q", want, f.wire, wire)
		}
	}
	if _, err := choose(all, []string{"Kunden"}); err == nil || !strings.Contains(err.Error(), "only other folders") {
		t.Errorf("got %v", err)
	}
	list, err := choose(all, []string{"INBOX", "inbox", "Sent"})
	if err != nil || len(list) != 2 {
		t.Errorf("got %v, %v", list, err)
	}
}

func TestNamesOfMessages(t *testing.T) {
	for _, s := range []string{"INBOX/17/42", "a/b/1/4294967295", "INBOX/17~2/1", "x//0/1"} {
		r, ok := readRemote(s)
		if !ok || r.String() != s {
			t.Errorf("%q is read as %+v, %v", s, r, ok)
		}
	}
	for _, s := range []string{"", "INBOX", "INBOX/1", "INBOX/1/0", "INBOX/1/4294967296", "INBOX/x/1", "INBOX/1~/1", "INBOX/-1/1"} {
		if r, ok := readRemote(s); ok {
			t.Errorf("%q is read as %+v", s, r)
		}
	}
	if _, err := readCursor("nonsense"); mailgrant.AsError(err).Remedy == "" {
		t.Errorf("got %v", err)
	}
	if got := uidSet([]uint32{1, 2, 3, 5, 7, 8, 4294967295}); got != "1:3,5,7:8,4294967295" {
		t.Error(got)
	}
}

func TestListsOfAnySizeAreRead(t *testing.T) {
	if f, err := readFetch([]byte(`(FLAGS (\Seen) UID 7 X-GM-LABELS ("\\Inbox" {1}` + "\n" + `)) BODY[] "a\"b")`)); err != nil || f.uid != 7 || f.body != `a"b` {
		t.Errorf("got %+v, %v", f, err)
	}
	for _, s := range []string{"", "(", "(UID)", "(UID x)", "(UID 4294967296)", "(UID -1)", "(FLAGS (a)", "(X {9}\nab)", "(BODY[ \"a\")"} {
		if f, err := readFetch([]byte(s)); err == nil {
			t.Errorf("%q is read as %+v", s, f)
		}
	}
	if !utf8.ValidString(response{kind: "NO", text: "\xff"}.said()) {
		t.Error("a reply that is not text")
	}
}
