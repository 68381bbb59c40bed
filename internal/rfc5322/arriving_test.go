package rfc5322_test

import (
	"bytes"
	"encoding/base64"
	"mime"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/rfc5322"
)

func loose(t *testing.T, raw string) [16]byte {
	t.Helper()
	p, err := rfc5322.Read(strings.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	return p.Loose
}

// The same mail is known again when a server has written it anew.
func TestLoose(t *testing.T) {
	const text = "Die Teile gehen am Dienstag mit dem ersten Lastwagen ab.\r\n"
	base := "From: =?utf-8?q?J=C3=B6rg?= <Joerg@Fabrikam.example>\r\nTo: a@contoso.example, B <b@contoso.example>\r\n" +
		"Subject: Angebot =?utf-8?q?f=C3=BCr_die_n=C3=A4chste?= Woche\r\nDate: Mon, 23 Nov 2026 11:00:00 +0100\r\n"
	again := "date: 23 Nov 2026 10:00:00 GMT\r\nReceived: by x\r\nFROM: \"Joerg M.\"\r\n <joerg@fabrikam.example>\r\nTo: <a@contoso.example>,\r\n\t\"B\" <b@contoso.example>\r\n" +
		"Subject: =?iso-8859-1?Q?Angebot_f=FCr_die?=\r\n =?utf-8?B?" + base64.StdEncoding.EncodeToString([]byte(" nächste Woche")) + "?=\r\n"
	id := "Message-ID: <1@fabrikam.example>\r\n"
	plain := "\r\n" + text
	two := "Content-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64.StdEncoding.EncodeToString([]byte(strings.TrimSpace(text))) +
		"\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>x</p>\r\n--b--\r\n"
	file := func(content string) string {
		return "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n" + text + "\r\n--b\r\nContent-Type: image/png\r\n\r\n" + content + "\r\n--b--\r\n"
	}
	for _, c := range []struct {
		name, a, b string
		same       bool
	}{
		{"folded, encoded and sorted anew", base + id + plain, id + again + two, true},
		{"without an id, by its text", base + plain, again + two, true},
		{"another text, with an id", base + id + plain, base + id + "\r\nx", true},
		{"another text, without an id", base + plain, base + "\r\nx", false},
		{"another id", base + id + plain, base + strings.Replace(id, "1@", "2@", 1) + plain, false},
		{"another date", base + id + plain, strings.Replace(base, "11:00", "11:01", 1) + id + plain, false},
		{"another recipient", base + id + plain, strings.Replace(base, "a@", "c@", 1) + id + plain, false},
		{"one recipient less", base + id + plain, strings.Replace(base, "a@contoso.example, ", "", 1) + id + plain, false},
		{"another subject", base + id + plain, strings.Replace(base, "Woche", "Tage", 1) + id + plain, false},
		{"another scan, without an id", base + file("scan 1"), base + file("scan 10"), false},
		{"a date that cannot be read", "Date: x\r\n" + id, "Date: y\r\n" + id, false},
	} {
		if same := loose(t, c.a) == loose(t, c.b); same != c.same {
			t.Errorf("%s: the same %v, want %v", c.name, same, c.same)
		}
	}
}

// A name is fit to be a file's on every system, and cannot leave its folder.
func TestME04FileName(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"a.pdf", "a.pdf"}, {"Grüße.pdf", "Grüße.pdf"}, {"Gru\u0308n.pdf", "Grün.pdf"}, {"見積書.pdf", "見積書.pdf"}, {"100%.txt", "100%.txt"},
		{"../../etc/passwd", "passwd"}, {`..\..\x.txt`, "x.txt"}, {`C:\x`, "x"}, {"C:x", "x"}, {`\\server\share\x`, "x"}, {"/", ""}, {"a/", ""},
		{"a\x00b.txt", "ab.txt"}, {"a\r\nX: y.txt", "a X_ y.txt"}, {"a\tb", "a b"}, {"invoice\u202efdp.exe", "invoicefdp.exe"}, {"a\u200b\ufeff.txt", "a.txt"},
		{".htaccess", "htaccess"}, {"...", ""}, {". .", ""}, {"x...", "x"}, {"x .", "x"}, {" x ", "x"},
		{"con", "_con"}, {"CON.txt", "_CON.txt"}, {"com1", "_com1"}, {"com¹.x", "_com¹.x"}, {"lpt9.tar.gz", "_lpt9.tar.gz"}, {"conin$", "_conin$"}, {"com10", "com10"}, {"contract.pdf", "contract.pdf"},
		{`<a>|"b"?*:.txt`, "_a___b____.txt"}, {"-rf", "_rf"}, {"~root", "_root"}, {"a\uff0fb\u2044c", "a_b_c"}, {"\xff\xfe.txt", "_.txt"},
		{strings.Repeat("x", 10_000) + ".pdf", strings.Repeat("x", 176) + ".pdf"}, {strings.Repeat("ü", 95) + ".pdf", strings.Repeat("ü", 88) + ".pdf"},
		{"x." + strings.Repeat("y", 300), "x." + strings.Repeat("y", 178)},
	} {
		if got := rfc5322.FileName(c.in); got != c.want {
			t.Errorf("%.40q: got %q, want %q", c.in, got, c.want)
		}
	}
}

// Content-Disposition says the name that was meant, whatever is in it.
func TestME04Disposition(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"a.pdf", "attachment; filename=a.pdf"}, {"a b.pdf", `attachment; filename="a b.pdf"`}, {`a"b.pdf`, `attachment; filename=a_b.pdf`},
		{"Grüße.pdf", "attachment; filename*=utf-8''Gr%C3%BC%C3%9Fe.pdf"}, {"", "attachment; filename=attachment"}, {"../..", "attachment; filename=attachment"},
		{"a\r\nSet-Cookie: x=y", "attachment; filename=\"a Set-Cookie_ x=y\""},
	} {
		got := rfc5322.Disposition("attachment", c.in)
		if got != c.want {
			t.Errorf("%q: got %q, want %q", c.in, got, c.want)
		}
		if how, p, err := mime.ParseMediaType(got); err != nil || how != "attachment" || p["filename"] == "" {
			t.Errorf("%q: read back as %q %v, %v", c.in, how, p, err)
		}
	}
}

// Dates are read as programs write them.
func TestDate(t *testing.T) {
	want := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	for _, s := range []string{
		"Mon, 23 Nov 2026 10:00:00 +0100", "23 Nov 2026 10:00:00 +0100", "Mon,23 Nov 2026 10:00:00 +0100 (CET)", "Mon, 23 Nov 2026 10:00 +0100", "Monday, 23-Nov-26 09:00:00 GMT",
		"Mon Nov 23 09:00:00 2026", "Mon, 23 November 2026 10:00:00+0100", "2026-11-23T10:00:00+01:00", "2026-11-23 09:00:00", "23 Nov 2026 04:00:00 EST", "23 Nov 2026 09:00:00 UT",
		"Mon, 23 Nov 2026 10:00:00 CET", "Mon, 23 Nov 2026 10:00:00 +01:00", "Mon, 23 Nov 2026 10:00:00 GMT+0100", "Nov 23, 2026 9:00:00 AM", "Mon, 23 (the) Nov 2026 09:00:00 (who) -0000", "Mon, 23 Nov 126 09:00:00 Z",
		"Mon, 23 Nov 2026 10:00:00.123 +0100",
	} {
		if got, ok := rfc5322.ParseDate(s); !ok || !got.Equal(want) {
			t.Errorf("%q: got %v, %v", s, got, ok)
		}
	}
	for _, s := range []string{"", "x", "31 Feb 2026 10:00:00 +0000", "23 Nov 2026", "Mon, 23 Nov 2026 25:00:00 +0000", "23 Nov 0000 10:00:00 +0000", "0 Nov 2026 10:00:00 +0000", "23 Foo 2026 10:00:00",
		"9999-12-31T23:59:59Z", "1 2 3 4 5 6 7:8:9", ":", "1:", "-", "99999999999999999999 Nov 2026 10:00:00"} {
		if got, ok := rfc5322.ParseDate(s); ok {
			t.Errorf("%q: got %v", s, got)
		}
	}
}

// A text is cut at its bound, between two letters.
func TestTextsAreCut(t *testing.T) {
	raw := "Content-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" + strings.Repeat("ü", 100) +
		"\r\n--b\r\nContent-Type: text/html; charset=windows-1252\r\n\r\n" + strings.Repeat("\xfc", 100) + "\r\n--b--\r\n"
	for _, c := range []struct {
		max, text, html int
		cut             bool
	}{{1000, 200, 200, false}, {200, 200, 200, false}, {199, 198, 198, true}, {5, 4, 4, true}, {1, 0, 0, true}, {0, 0, 0, true}} {
		text, html, cut, err := rfc5322.Texts(strings.NewReader(raw), c.max)
		if err != nil || len(text) != c.text || len(html) != c.html || cut != c.cut || !utf8.ValidString(text+html) {
			t.Errorf("at %d: got %d and %d bytes, cut %v, %v", c.max, len(text), len(html), cut, err)
		}
	}
}

// What Compose and DSN write is read back.
func TestReadsWhatWeWrite(t *testing.T) {
	m, err := rfc5322.Compose(rfc5322.Mail{From: "Jörg <joerg@contoso.example>", To: []string{"a@fabrikam.example"}, Subject: "Grüße", Text: "Text ü\n", HTML: "<p>ü</p>",
		Attachments: []rfc5322.Attachment{{Name: "Größe.pdf", Content: []byte("pdf")}, {Name: "logo.png", ContentID: "logo", Content: []byte("png")}}})
	if err != nil {
		t.Fatal(err)
	}
	var raw bytes.Buffer
	if _, err := m.WriteTo(&raw); err != nil {
		t.Fatal(err)
	}
	got := readAll(t, raw.Bytes())
	a := got.Arrival
	if a.Unparsed != "" || a.Subject != "Grüße" || a.MessageID != m.MessageID || got.Text != "Text ü\n" || got.HTML != "<p>ü</p>" || len(a.Parts) != 2 ||
		a.Parts[0].Name != "logo.png" || !a.Parts[0].Inline || a.Parts[1].Name != "Größe.pdf" || got.Contents[1] != "pdf" {
		t.Errorf("read back as %+v", got)
	}
	id := mailgrant.NewID(mailgrant.PrefixSubmission)
	now := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	report := rfc5322.DSN(rfc5322.Report{From: "postmaster@contoso.example", To: "joerg@contoso.example", Hostname: "mail.contoso.example", ID: string(id), MessageID: m.MessageID, Subject: "Grüße",
		Accepted: now, At: now, Header: []byte(rfc5322.Received("mail.contoso.example", "HTTPS", string(id), now) + raw.String()), Failed: []rfc5322.Failure{{Address: "a@fabrikam.example", Reply: "550 5.1.1 unknown"}}})
	want := &mailgrant.Bounce{Submission: id, MessageID: m.MessageID, Recipients: []mailgrant.BounceRecipient{{Address: "a@fabrikam.example", Action: "failed", Status: "5.1.1", Diagnostic: "550 5.1.1 unknown"}}}
	if d := cmp.Diff(want, readAll(t, report).Arrival.Bounce); d != "" {
		t.Errorf("the report is read as another one:\n%s", d)
	}
}

func seeds(f *testing.F) {
	files, _ := filepath.Glob("testdata/read/*.eml")
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
}

// FuzzRead: nothing is an error, it is the same in whatever pieces it comes, and
// all that is said of it is text.
func FuzzRead(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, work, err := rfc5322.Work(bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		if work > 300*int64(len(raw))+1<<20 {
			t.Errorf("%d bytes were looked at for %d", work, len(raw))
		}
		pieces, err := rfc5322.Read(iotest.HalfReader(iotest.DataErrReader(bytes.NewReader(raw))))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(p, pieces); d != "" {
			t.Errorf("in pieces it is another message:\n%s", d)
		}
		text := func(s string) {
			if !utf8.ValidString(s) || strings.ContainsAny(s, "\x00\r\n") {
				t.Errorf("%q is no text", s)
			}
		}
		for _, l := range [][]mailgrant.Address{p.From, p.Sender, p.ReplyTo, p.To, p.Cc} {
			for _, a := range l {
				text(a.Name)
				text(a.Address)
			}
		}
		for _, a := range p.Parts {
			text(a.Name + a.Type + a.ContentID)
			if strings.ContainsAny(a.Name, `/\`) || strings.HasPrefix(a.Name, ".") {
				t.Errorf("%q is a path", a.Name)
			}
		}
		for _, r := range p.AuthResult {
			text(r.Server + r.Method + r.Result + r.Domain)
		}
		if p.Bounce != nil {
			for _, r := range p.Bounce.Recipients {
				text(r.Address + r.Action + r.Status + r.Diagnostic)
			}
		}
		text(strings.Join(p.InReplyTo, "") + strings.Join(p.References, "") + p.MessageID + p.Subject + p.Snippet + p.Unparsed + p.Auto)
	})
}

// FuzzTexts: the texts are text, and not longer than they may be.
func FuzzTexts(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, n := range []int{7, 1 << 16} {
			text, html, _, err := rfc5322.Texts(bytes.NewReader(raw), n)
			if err != nil || len(text) > n || len(html) > n || !utf8.ValidString(text+html) || strings.IndexByte(text+html, 0) >= 0 {
				t.Errorf("at %d: %q, %q, %v", n, text, html, err)
			}
		}
	})
}

// FuzzPart: every attachment that Read names is there, with the same name and
// size.
func FuzzPart(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := rfc5322.Read(bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range p.Parts[:min(len(p.Parts), 20)] {
			var b bytes.Buffer
			got, err := rfc5322.Part(bytes.NewReader(raw), a.N, &b)
			if err != nil || int64(b.Len()) != a.Size || got != a {
				t.Errorf("%+v is taken as %+v with %d bytes, %v", a, got, b.Len(), err)
			}
		}
	})
}

// FuzzFileName: a name that was made fit is fit.
func FuzzFileName(f *testing.F) {
	for _, s := range []string{"a.pdf", "../x", `C:\x`, "con", "a\u202eb", "...", "Gru\u0308n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name := rfc5322.FileName(s)
		if again := rfc5322.FileName(name); again != name {
			t.Errorf("%q becomes %q, and then %q", s, name, again)
		}
		if len(name) > 200 || strings.ContainsAny(name, "/\\\x00\r\n:") || !utf8.ValidString(name) {
			t.Errorf("%q becomes %q", s, name)
		}
	})
}
