package rfc5322_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/rfc5322"
)

// nested is n multiparts one in the other; closed or not.
func nested(n int, closed bool, kind string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Subject: deep\r\nContent-Type: %s; boundary=b0\r\n\r\n", kind)
	for i := range n {
		fmt.Fprintf(&b, "--b%d\r\nContent-Type: %s; boundary=b%d\r\n\r\n", i, kind, i+1)
	}
	fmt.Fprintf(&b, "--b%d\r\n\r\ntext\r\n", n)
	for i := n; closed && i >= 0; i-- {
		fmt.Fprintf(&b, "--b%d--\r\n", i)
	}
	return b.String()
}

func partsOf(n int, part string) string {
	return "Subject: wide\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" + strings.Repeat("--b\r\n"+part, n) + "--b--\r\n"
}

// hostile are messages made to be slow, of about n bytes each.
func hostile(n int) map[string]string {
	sixtyFour := func(line string) string {
		s := nested(rfc5322.MaxDepth-2, false, "multipart/mixed")
		return s + strings.Repeat(line, max(0, n-len(s))/len(line))
	}
	field := func(name, v string) string {
		return name + ": " + strings.Repeat(v, n/len(v)) + "\r\nSubject: long\r\n\r\ntext\r\n"
	}
	mixed := "Content-Type: multipart/mixed; boundary=b\r\n\r\n"
	return map[string]string{
		"nested multiparts":            nested(n/60, true, "multipart/mixed"),
		"nested multiparts, unclosed":  nested(n/60, false, "multipart/alternative"),
		"nested messages":              strings.Repeat("Content-Type: message/rfc822\r\n\r\n", n/32),
		"digests":                      nested(n/60, false, "multipart/digest"),
		"parts":                        partsOf(n/20, "\r\ntext\r\n"),
		"empty parts":                  partsOf(n/5, ""),
		"parts with files":             partsOf(n/60, "Content-Disposition: attachment; filename=a\r\n\r\n\r\n"),
		"multiparts side by side":      partsOf(n/50, "Content-Type: multipart/mixed; boundary=c\r\n\r\n"),
		"multiparts without boundary":  partsOf(n/40, "Content-Type: multipart/mixed\r\n\r\n"),
		"lines like boundaries":        sixtyFour("--x\r\n"),
		"lines of dashes":              sixtyFour("--\r\n"),
		"nearly boundaries":            sixtyFour("--b6\r\n"),
		"boundaries with much behind":  sixtyFour("--b1                                                         x\r\n"),
		"a line that does not end":     mixed + "--b\r\n\r\n" + strings.Repeat("x", n),
		"a boundary that does not end": mixed + strings.Repeat("--b", n/3),
		"line ends":                    mixed + "--b\r\n\r\n" + strings.Repeat("\r\n", n/2),
		"carriage returns":             mixed + "--b\r\n\r\n" + strings.Repeat("\r", n),
		"a part's header of 1 MB":      mixed + "--b\r\n" + strings.Repeat("X-A: b\r\n", n/8) + "\r\ntext\r\n--b--\r\n",
		"parts with lines that are no": partsOf(n/100, strings.Repeat("no field\r\nX-A: b\r\n", 5)+"\r\n"),
		"an unfolded header":           "Subject: " + strings.Repeat("x", n),
		"continuations":                "Subject: x\r\n" + strings.Repeat(" \r\n", n/3),
		"no fields":                    strings.Repeat("no field\r\n", n/10) + "Subject: x\r\n\r\n",
		"addresses":                    field("To", "a@b.example,"),
		"address fields":               strings.Repeat("To: a@b.example\r\n", n/17) + "\r\n",
		"open brackets":                field("To", "<,"),
		"open comments":                field("To", "(,"),
		"nested comments":              field("To", "("),
		"open quotes":                  field("Cc", "\",a@b "),
		"groups":                       field("To", "g:a@b.example;,"),
		"at signs":                     field("To", "@"),
		"encoded words":                field("Subject", "=?utf-8?q?=41?= "),
		"open encoded words":           field("Subject", "=?a?q?x"),
		"half encoded words":           field("Subject", "=?"),
		"encoded words in names":       field("From", "=?utf-8?b?YQ=?= <a@b.example>, "),
		"parameters":                   field("Content-Type", "text/plain;a=b;"),
		"pieces of a name":             field("Content-Disposition", ";filename*1*=a"),
		"open parameters":              field("Content-Type", ";name=\""),
		"parameters with comments":     field("Content-Type", "text/plain;(;"),
		"references":                   field("References", "<a@b>"),
		"open references":              field("References", "<"),
		"results":                      field("Authentication-Results", "x;spf=pass smtp.mailfrom=a@b;"),
		"open results":                 field("Authentication-Results", "x;\"("),
		"result fields":                strings.Repeat("Authentication-Results: x; spf=pass\r\n", n/37) + "\r\n",
		"dates":                        field("Date", "1 Jan 2026 "),
		"base64":                       "Content-Transfer-Encoding: base64\r\nContent-Type: a/b\r\n\r\n" + strings.Repeat("=Y", n/2),
		"quoted-printable":             "Content-Transfer-Encoding: quoted-printable\r\nContent-Type: a/b\r\n\r\n" + strings.Repeat("=", n),
		"tags":                         "Content-Type: text/html\r\n\r\n" + strings.Repeat("<", n),
		"styles":                       "Content-Type: text/html\r\n\r\n<style>" + strings.Repeat("</st", n/4),
		"entities":                     "Content-Type: text/html\r\n\r\n" + strings.Repeat("&am", n/3),
		"recipients of a report": "Content-Type: multipart/report; boundary=b\r\n\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\n" +
			strings.Repeat("Final-Recipient: rfc822; a@b.example\r\n\r\n", n/40) + "--b--\r\n",
		"a report of one field": "Content-Type: multipart/report; boundary=b\r\n\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\n" +
			"Diagnostic-Code: " + strings.Repeat("x\r\n ", n/4) + "\r\n--b--\r\n",
		"a report of qmail": "Return-Path: <>\r\n\r\nHi. This is the \r\n\r\n" + strings.Repeat("<a@b.example>:\r\nx\r\n\r\n", n/22),
		"a report of Exim": "Return-Path: <>\r\nX-Failed-Recipients: " + strings.Repeat("a@b,", n/8) +
			"\r\n\r\nThis message was created automatically by mail delivery software\r\n" + strings.Repeat("\n  a@b\n", n/14),
	}
}

// The work on a message grows with its length and nothing else.
func TestME02WorkGrowsWithTheLength(t *testing.T) {
	const n = 60_000
	small, large := hostile(n), hostile(4*n)
	for name, s := range small {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			_, one, err := rfc5322.Work(strings.NewReader(s))
			if err != nil {
				t.Fatal(err)
			}
			_, four, err := rfc5322.Work(strings.NewReader(large[name]))
			if err != nil {
				t.Fatal(err)
			}
			// A guess at a boundary costs 4 KiB for each of 2,000 parts at most.
			const guesses = 2000 * 4 << 10
			if most := guesses + 40*int64(len(large[name])); four > most {
				t.Errorf("%d bytes were looked at for %d", four, len(large[name]))
			}
			if four > guesses+5*one {
				t.Errorf("four times the length makes %d times the work", four/one)
			}
			for _, f := range []func() error{
				func() error { _, _, _, err := rfc5322.Texts(strings.NewReader(large[name]), 1<<20); return err },
				func() error { _, err := rfc5322.Part(strings.NewReader(large[name]), 1e6, io.Discard); return err },
			} {
				if err := f(); err != nil && !errors.Is(err, mailgrant.NotFound) {
					t.Error(err)
				}
			}
			if d := time.Since(began); d > 20*time.Second { // what is not linear takes hours
				t.Errorf("it took %v", d)
			}
		})
	}
}

// What is over a bound is kept back and said, and the rest is there.
func TestME01ME02Bounds(t *testing.T) {
	many := func(f string, n int) string { return strings.Repeat(f, n) }
	for _, c := range []struct {
		name, raw, said string
		ok              func(p rfc5322.Parsed) bool
	}{
		{"64 deep", nested(63, true, "multipart/mixed"), "", func(p rfc5322.Parsed) bool { return p.Snippet == "text" }},
		{"65 deep", nested(64, true, "multipart/mixed"), "its parts are nested deeper than 64",
			func(p rfc5322.Parsed) bool { return len(p.Parts) == 1 && p.Parts[0].Type == "multipart/mixed" }},
		{"10,000 deep", nested(10_000, true, "multipart/mixed"), "its parts are nested deeper than 64", func(p rfc5322.Parsed) bool { return len(p.Parts) == 1 }},
		{"2,000 parts", partsOf(2000, "Content-Type: a/b\r\n\r\nx\r\n"), "", func(p rfc5322.Parsed) bool { return len(p.Parts) == 2000 }},
		{"2,001 parts", partsOf(2001, "Content-Type: a/b\r\n\r\nx\r\n"), "it has more than 2,000 parts", func(p rfc5322.Parsed) bool { return len(p.Parts) == 2000 }},
		{"a million parts", partsOf(1e6, "\r\nx\r\n"), "it has more than 2,000 parts", func(p rfc5322.Parsed) bool { return p.Subject == "wide" }},
		{"2,000 addresses", "To: " + many("a@b.example, ", 2000) + "\r\n\r\n", "", func(p rfc5322.Parsed) bool { return len(p.To) == 2000 }},
		{"2,001 addresses", "To: " + many("a@b.example, ", 2001) + "\r\nSubject: x\r\n\r\n", "the to field has more than 2,000 addresses",
			func(p rfc5322.Parsed) bool { return len(p.To) == 2000 && p.Subject == "x" }},
		{"100,000 address fields", "Subject: x\r\n" + many("Cc: a@b.example\r\n", 100_000) + "\r\ntext",
			"a header is larger than 256 KiB, and only its begin was read; the header has too many fields; the cc field has more than 2,000 addresses",
			func(p rfc5322.Parsed) bool { return len(p.Cc) == 2000 && p.Snippet == "text" }},
		{"a header of 256 KiB", "Subject: x\r\nX-A: " + many("a", rfc5322.MaxHeader-len("Subject: x\r\nX-A: \r\nCc: a@b.example\r\n")) + "\r\nCc: a@b.example\r\n\r\ntext", "",
			func(p rfc5322.Parsed) bool { return len(p.Cc) == 1 && p.Snippet == "text" }},
		{"a header of 8 MB", "Subject: x\r\n" + many("X-A: "+many("a", 990)+"\r\n", 8000) + "Cc: a@b.example\r\n\r\ntext", "a header is larger than 256 KiB, and only its begin was read",
			func(p rfc5322.Parsed) bool { return p.Subject == "x" && p.Cc == nil && p.Snippet == "text" }},
		{"a line of 8 MB in the header", "Subject: x\r\nX-A: " + many("a", 8<<20) + "\r\n\r\ntext", "a header is larger than 256 KiB, and only its begin was read",
			func(p rfc5322.Parsed) bool { return p.Subject == "x" && p.Snippet == "text" }},
		{"a million pieces of a name", "Content-Type: a/b; " + many("name*1*=a;", 25_000) + "\r\n\r\nx", "", func(p rfc5322.Parsed) bool { return len(p.Parts) == 1 }},
		{"a million references", "References: " + many("<a@b> ", 40_000) + "<last@b>\r\n\r\n", "",
			func(p rfc5322.Parsed) bool { return len(p.References) == 100 && p.References[99] == "<last@b>" }},
		{"a report of 10,000 recipients", "Content-Type: multipart/report; boundary=b\r\n\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\n" +
			many("\r\nFinal-Recipient: rfc822; a@b.example\r\nStatus: 5.1.1\r\n", 10_000) + "--b--\r\n", "", func(p rfc5322.Parsed) bool { return len(p.Bounce.Recipients) == 500 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := rfc5322.Read(strings.NewReader(c.raw))
			if err != nil {
				t.Fatal(err)
			}
			if p.Unparsed != c.said {
				t.Errorf("it says %q, want %q", p.Unparsed, c.said)
			}
			if !c.ok(p) {
				p.Parts, p.To, p.Cc = p.Parts[:min(3, len(p.Parts))], p.To[:min(3, len(p.To))], p.Cc[:min(3, len(p.Cc))]
				t.Errorf("read as %+v", p)
			}
			if p.Size != int64(len(c.raw)) {
				t.Errorf("%d bytes were read of %d", p.Size, len(c.raw))
			}
		})
	}
}

// endless gives head, then line again and again up to n bytes, then tail.
func endless(head, line string, n int64, tail string) io.Reader {
	return io.MultiReader(strings.NewReader(head), io.LimitReader(&repeated{s: line}, n/int64(len(line))*int64(len(line))), strings.NewReader(tail))
}

type repeated struct {
	s  string
	at int
}

func (r *repeated) Read(p []byte) (n int, err error) {
	for n < len(p) {
		k := copy(p[n:], r.s[r.at:])
		n += k
		r.at = (r.at + k) % len(r.s)
	}
	return n, nil
}

// A message of 150 MB is read, and its file taken out of it, in less than 1 MiB.
func TestME02MemoryIsAWindow(t *testing.T) {
	const file = "Content-Type: application/zip; name=a.zip\r\nContent-Transfer-Encoding: "
	line := strings.Repeat("QUJD", 19) + "\r\n"
	for _, c := range []struct {
		name, head   string
		size, decode int64 // bytes that come, and that a line becomes
		parts        int
	}{
		{"binary", file + "binary\r\n\r\n", 150 << 20, 78, 1},
		{"base64", file + "base64\r\n\r\n", 8 << 20, 57, 1},
		{"text", "\r\n", 150 << 20, 0, 0},
	} {
		head := "Subject: large\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" + c.head
		message := func() io.Reader { return endless(head, line, c.size, "\r\n--b--\r\n") }
		decoded := c.size / 78 * c.decode
		do := map[string]func() error{
			"Read": func() error {
				p, err := rfc5322.Read(message())
				if len(p.Parts) != c.parts || c.parts > 0 && p.Parts[0].Size != decoded {
					t.Errorf("%s: got %+v, want one of %d bytes", c.name, p.Parts, decoded)
				}
				return err
			},
			"Texts": func() error { _, _, _, err := rfc5322.Texts(message(), 1<<10); return err },
		}
		if c.parts > 0 {
			do["Part"] = func() error {
				a, err := rfc5322.Part(message(), 1, io.Discard)
				if a.Size != decoded {
					t.Errorf("%s: got %+v, want %d bytes", c.name, a, decoded)
				}
				return err
			}
		}
		for verb, f := range do {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := f()
			runtime.ReadMemStats(&after)
			if err != nil {
				t.Errorf("%s of %s: %v", verb, c.name, err)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
				t.Errorf("%s of %s: %d KiB were taken from memory", verb, c.name, n>>10)
			}
		}
	}
}

// What goes wrong with the source or the sink is said; nothing else is an error.
func TestReadFails(t *testing.T) {
	broken := errors.New("broken")
	raw := "Subject: x\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: a/b\r\n\r\nfile\r\n--b--\r\n"
	for cut := range len(raw) {
		r := func() io.Reader { return io.MultiReader(strings.NewReader(raw[:cut]), iotest.ErrReader(broken)) }
		if _, err := rfc5322.Read(r()); !errors.Is(err, broken) {
			t.Fatalf("Read after %d bytes: %v", cut, err)
		}
		if _, _, _, err := rfc5322.Texts(r(), 100); !errors.Is(err, broken) {
			t.Fatalf("Texts after %d bytes: %v", cut, err)
		}
		if _, err := rfc5322.Part(r(), 2, io.Discard); !errors.Is(err, broken) {
			t.Fatalf("Part after %d bytes: %v", cut, err)
		}
	}
	pr, pw := io.Pipe()
	pr.CloseWithError(broken)
	if _, err := rfc5322.Part(strings.NewReader(raw), 1, pw); !errors.Is(err, broken) {
		t.Errorf("Part into what does not take it: %v", err)
	}
	for _, n := range []int{-1, 0, 2} {
		if _, err := rfc5322.Part(strings.NewReader(raw), n, io.Discard); !errors.Is(err, mailgrant.NotFound) {
			t.Errorf("attachment %d: %v", n, err)
		}
	}
	if _, err := rfc5322.Read(iotest.DataErrReader(bytes.NewReader([]byte(raw)))); err != nil {
		t.Error(err)
	}
}
