package rfc5322_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/rfc5322"
)

// block makes a header of lines.
func block(lines ...string) []byte { return []byte(strings.Join(lines, "\r\n") + "\r\n\r\n") }

func fieldOf(err error) string {
	var e *mailgrant.Error
	if errors.As(err, &e) {
		return e.Field
	}
	return ""
}

func list(as []rfc5322.Address) string {
	var out []string
	for _, a := range as {
		out = append(out, a.Name+"|"+a.String())
	}
	return strings.Join(out, " ")
}

func TestParseHeader(t *testing.T) {
	h, err := rfc5322.ParseHeader(block(
		"Received: from a by b; date", "Received: from b", "\tby c",
		"From : =?utf-8?q?J=C3=B6rg?= Muster <Joerg@Contoso.EXAMPLE>",
		"Sender: scanner@contoso.example (Copy Room)",
		"To: team: a@x.example, \"B, C\" <b@x.example>;, undisclosed-recipients:;",
		"Cc: <c@x.example>,", " d@x.example (D)",
		"BCC: secret@x.example",
		"Subject: =?iso-8859-1?q?Gr=FC=DFe?=", " aus Wien",
		"message-id: <1@x>", "Date: Mon, 23 Nov 2026 10:00:00 +0000", "Auto-Submitted: Auto-Replied; owner-email=x",
		"Content-Type: multipart/signed;", "\tboundary=x", "no colon here", "X-Other: y"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ what, got, want string }{
		{"From", list(h.From), "Jörg Muster|Joerg@contoso.example"},
		{"Sender", list(h.Sender), "|scanner@contoso.example"},
		{"To", list(h.To), "|a@x.example B, C|b@x.example"},
		{"Cc", list(h.Cc), "|c@x.example |d@x.example"},
		{"Bcc", list(h.Bcc), "|secret@x.example"},
		{"Subject", h.Subject, "Grüße aus Wien"},
		{"Message-ID", h.MessageID, "<1@x>"},
		{"Auto-Submitted", h.AutoSubmitted, "auto-replied"},
		{"Content-Type", h.ContentType, "multipart/signed"},
		{"Malformed", strings.Join(h.Malformed, ","), "field 13"},
		{"rest", fmt.Sprint(h.Received, h.Signed, h.UTF8, h.EightBit), "2 true false false"},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %q, want %q", c.what, c.got, c.want)
		}
	}
}

func TestParseHeaderEnds(t *testing.T) {
	for _, c := range []struct {
		in  string
		len int
	}{{"", 0}, {"\r\n", 2}, {"A: b", 4}, {"A: b\r\n", 6}, {"A: b\r\n\r\n", 8}, {"A: b\r\n\r\nbody\r\n\r\n", 8}} {
		h, err := rfc5322.ParseHeader(rfc5322.Block([]byte(c.in)))
		if err != nil || h.Len != c.len {
			t.Errorf("%q: got %d, %v, want %d", c.in, h.Len, err, c.len)
		}
	}
}

// What decides who is sending is plain, or it is refused.
func TestAP04SendersThatCanBeReadTwoWays(t *testing.T) {
	for _, c := range []struct {
		field string
		lines []string
	}{
		{"from", []string{"From: a@ok.example", "From: b@evil.example"}},
		{"from", []string{"From: a@ok.example", "FROM : b@evil.example"}},
		{"sender", []string{"From: a@ok.example", "Sender: a@ok.example", "Sender: b@ok.example"}},
		{"from", []string{"From: b@evil.example <a@ok.example>"}},
		{"from", []string{"From: a@ok.example (<b@evil.example>)"}},
		{"from", []string{"From: a@ok.example (x (y))"}},
		{"from", []string{"From: friends: a@ok.example;"}},
		{"from", []string{"From: <@ok.example,@evil.example:a@ok.example>"}},
		{"from", []string{"From: \"b@evil.example x\"@ok.example"}},
		{"from", []string{"From: a%evil.example@ok.example"}},
		{"from", []string{"From: evil.example!a@ok.example"}},
		{"from", []string{"From: a@ok.example@evil.example"}},
		{"from", []string{"From: a @ ok.example"}},
		{"from", []string{"From: a@ok. example"}},
		{"from", []string{"From: a@ok.example b@evil.example"}},
		{"from", []string{"From: <a@ok.example"}},
		{"from", []string{"From: <a@ok.example> <b@evil.example>"}},
		{"from", []string{"From: <a@ok.example> b@evil.example"}},
		{"from", []string{"From: a@[127.0.0.1]"}},
		{"from", []string{"From: a@ok.example,"}},
		{"from", []string{"From: ,a@ok.example"}},
		{"from", []string{"From: a@ok.example;b@evil.example"}},
		{"from", []string{"From:"}},
		{"from", []string{"From: <>"}},
		{"from", []string{"From: \"x\\\" <a@ok.example>"}},
		{"from", []string{"From: a@ok.example\u2028b"}},
		{"from", []string{"From: \x0bx <a@ok.example>"}},
		{"resent-from", []string{"From: a@ok.example", "Resent-From: b@evil.example <a@ok.example>"}},
		{"header", []string{"From\x0b: a@ok.example"}},
		{"header", []string{" From: b@evil.example", "From: a@ok.example"}},
		{"header", []string{"From: a@ok.example\x00"}},
		{"header", []string{"Subject: x\rFrom: b@evil.example", "From: a@ok.example"}},
		{"header", []string{"Subject: x\nFrom: b@evil.example", "From: a@ok.example"}},
		{"header", []string{"Subject: x\r\r\nFrom: b@evil.example", "From: a@ok.example"}},
	} {
		_, err := rfc5322.ParseHeader(block(c.lines...))
		if !errors.Is(err, mailgrant.Invalid) || fieldOf(err) != c.field {
			t.Errorf("%q: got %v (field %q), want it refused for %s", c.lines, err, fieldOf(err), c.field)
		}
	}
}

func TestSendersOfOldPrograms(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"a@ok.example (Cron Daemon)", "|a@ok.example"},
		{"A@ok.example <a@ok.example>", "A@ok.example|a@ok.example"},
		{"\"a@evil.example\" <a@ok.example>", "a@evil.example|a@ok.example"}, // plainly a name
		{"John Q. Public <a@ok.example>", "John Q. Public|a@ok.example"},
		{"J\xf6rg <a@ok.example>", "J\ufffdrg|a@ok.example"},
		{"Jörg <jörg@bücher.example>", "Jörg|jörg@xn--bcher-kva.example"},
		{"a@ok.example, \"B\" <b@ok.example>", "|a@ok.example B|b@ok.example"},
		{"\"a\"@ok.example", "|a@ok.example"},
		{"\"a..b\"@ok.example", "|\"a..b\"@ok.example"},
		{"=?utf-8?b?YQ0KQmNjOiB4?= <a@ok.example>", "a  Bcc: x|a@ok.example"},
	} {
		h, err := rfc5322.ParseHeader(block("From: " + c.in))
		if got := list(h.From); err != nil || got != c.want {
			t.Errorf("%q: got %q, %v, want %q", c.in, got, err, c.want)
		}
	}
}

func TestAP04ParseAddress(t *testing.T) {
	for _, in := range []string{`"a@evil.test x"@ok.test`, "<@a,@b:c@d>", "a%b@c", "a!b@c", "a:b@c;", "<a@b", "a@b>", "a@b@c", "a b@c", "a@b c", "@b", "a@", "a", "",
		"a@b (c)", "(c) a@b", "a(c)@b", "a@b, c@d", "a@b,", "a@b;c@d", "a@b\r\nRCPT TO:<x@y>", "a@b\x00", "a\u0085@b", "a\u2028@b", "a\u200b@b", "a\u00a0@b", "a@b..c", "a@.b",
		"a@-b", "a@b-", ".a@b", "a.@b", "a..b@c", "a@[1.2.3.4]", "a@b%c", "a@b/c", strings.Repeat("x", 65) + "@b", "a@" + strings.Repeat("x", 64) + ".b", "a\xff@b",
		"b@evil.test <a@ok.test>", "=?utf-8?q?x?=@", "a@xn--" + strings.Repeat("y.", 140), "\"\"@b", "\"a\nb\"@c", "<a@b> c", "\"a\" \"b\"@c", strings.Repeat("a", 2000)} {
		if a, err := rfc5322.ParseAddress(in); !errors.Is(err, mailgrant.Invalid) {
			t.Errorf("%q: got %+v, %v, want it refused", in, a, err)
		}
	}
	for _, c := range []struct{ in, name, addr, key string }{
		{"a@b.example", "", "a@b.example", "a@b.example"},
		{"  <A@B.example>  ", "", "A@b.example", "a@b.example"},
		{"Ann Lee <ann@b.example>", "Ann Lee", "ann@b.example", "ann@b.example"},
		{`"Lee, Ann" <ann@b.example>`, "Lee, Ann", "ann@b.example", "ann@b.example"},
		{"o'neil+tag=x@b.example", "", "o'neil+tag=x@b.example", "o'neil+tag=x@b.example"},
		{"jörg@BÜCHER.example", "", "jörg@xn--bcher-kva.example", "jörg@xn--bcher-kva.example"},
		{"Jo\u0308rg@b.example", "", "Jo\u0308rg@b.example", "jörg@b.example"},
		{"a@b。example", "", "a@b.example", "a@b.example"},
	} {
		a, err := rfc5322.ParseAddress(c.in)
		if err != nil || a.Name != c.name || a.String() != c.addr || a.Key() != c.key {
			t.Errorf("%q: got %q %q %q, %v, want %q %q %q", c.in, a.Name, a.String(), a.Key(), err, c.name, c.addr, c.key)
		}
	}
}

func TestWhatNeedsSMTPUTF8(t *testing.T) {
	for _, c := range []struct {
		line           string
		utf8, eightBit bool
	}{
		{"Subject: Grüße", false, true},
		{"Subject: Gr\xfc\xdfe", false, true},
		{"To: Jörg <j@b.example>", false, true},
		{"To: jörg@b.example", true, true},
		{"To: J <j@bücher.example>", true, true},
		{"To: j@b.example", false, false},
	} {
		h, err := rfc5322.ParseHeader(block("From: a@b.example", c.line))
		if err != nil || h.UTF8 != c.utf8 || h.EightBit != c.eightBit {
			t.Errorf("%q: got %v %v, %v", c.line, h.UTF8, h.EightBit, err)
		}
	}
}

func TestHeaderBounds(t *testing.T) {
	if _, err := rfc5322.ParseHeader(bytes.Repeat([]byte("x"), rfc5322.MaxHeader+1)); !errors.Is(err, mailgrant.TooLarge) {
		t.Errorf("a large header: got %v", err)
	}
	if _, err := rfc5322.ParseHeader(block("To: " + strings.Repeat("a@b.example,", 2001))); fieldOf(err) != "to" {
		t.Errorf("too many addresses: got %v", err)
	}
	if h, err := rfc5322.ParseHeader(block("To: " + strings.Repeat("@,", 60000))); err != nil || len(h.Malformed) == 0 {
		t.Errorf("bad addresses: got %v, %v", h.Malformed, err)
	}
	if h, err := rfc5322.ParseHeader(block("To: " + strings.Repeat("(", 100000))); err != nil || len(h.Malformed) == 0 {
		t.Errorf("deep comments: got %v, %v", h.Malformed, err)
	}
}

func TestSM14LeavingHeader(t *testing.T) {
	in := "From mailbox Mon Nov 23\r\nBcc: a@x\r\n\tb@x\r\nFrom: a@ok\r\nbcc : c@x,\r\n d@x\r\n e@x\r\nResent-Bcc: f@x\r\nX-Bcc: kept\r\nBcc: g@x\r\n\r\nBcc: body\r\n"
	want := "Received: x\r\nDate: y\r\nFrom: a@ok\r\nX-Bcc: kept\r\n\r\nBcc: body\r\n"
	if got := string(rfc5322.LeavingHeader([]byte(in), "Received: x\r\n", "Date: y")); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if got := string(rfc5322.Leaving([]byte(in), "Received: x", "Date: y\r\n")); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	for _, c := range []struct{ in, want string }{{"", ""}, {"\r\n", "\r\n"}, {"Bcc: x", ""}, {"Bcc: x\r\n\r\n", "\r\n"}, {"A: b\r\nBcc: x\r\n", "A: b\r\n"}, {"Bcc: x\r\n y\r\nA: b", "A: b"}} {
		if got := string(rfc5322.LeavingHeader([]byte(c.in))); got != c.want {
			t.Errorf("%q: got %q, want %q", c.in, got, c.want)
		}
	}
}

func TestSM02Lines(t *testing.T) {
	for _, c := range []struct {
		in, fixed string
		ok        bool
	}{
		{"a\r\nb\r\n", "a\r\nb\r\n", true},
		{"a\nb", "a\r\nb\r\n", false},
		{"a\r.\r\n", "a\r\n.\r\n", false},
		{"a\r\r\nb\n\rc", "a\r\n\r\nb\r\n\r\nc\r\n", false},
		{"\n.\n", "\r\n.\r\n", false},
		{"a\r", "a\r\n", false},
		{"", "", true},
		{"a", "a\r\n", true},
	} {
		for size := 1; size < len(c.in)+2; size++ {
			for _, fix := range []bool{false, true} {
				var out bytes.Buffer
				l := rfc5322.Lines{W: &out, Fix: fix}
				var err error
				for p := []byte(c.in); len(p) > 0 && err == nil; {
					n := min(size, len(p))
					_, err = l.Write(p[:n])
					p = p[n:]
				}
				if err == nil {
					err = l.Close()
				}
				switch {
				case fix && (err != nil || out.String() != c.fixed):
					t.Errorf("%q by %d: got %q, %v, want %q", c.in, size, out.String(), err, c.fixed)
				case !fix && (err == nil) != c.ok:
					t.Errorf("%q by %d: got %v, want ok %v", c.in, size, err, c.ok)
				case !fix && c.ok && out.String() != c.in:
					t.Errorf("%q by %d: passed on as %q", c.in, size, out.String())
				}
			}
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"a@b", `"a b"@c`, "N <a@b>", "a:b@c;", "<@a:b@c>", "(x)a@b", "ä@ö.example"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := rfc5322.ParseAddress(s)
		if err != nil {
			return
		}
		text := a.String()
		if strings.ContainsAny(text, " \t\r\n\x00<>,;:()") {
			t.Fatalf("%q gave %q", s, text)
		}
		b, err := rfc5322.ParseAddress(text)
		if err != nil || b.String() != text || b.Key() != a.Key() {
			t.Fatalf("%q gave %q, which gave %q, %v", s, text, b.String(), err)
		}
	})
}

func FuzzParseHeader(f *testing.F) {
	f.Add([]byte("From: a@b\r\nTo: x: c@d, (e) <f@g>;\r\nSubject: =?utf-8?q?x?=\r\n\r\nbody"))
	f.Add([]byte("From: a\r\n b@c\r\nBcc: d\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := rfc5322.ParseHeader(b)
		if err != nil {
			if fieldOf(err) == "" {
				t.Fatalf("no field in %v", err)
			}
			return
		}
		for _, a := range h.From {
			if _, err := rfc5322.ParseAddress(a.String()); err != nil {
				t.Fatalf("From gave %q: %v", a.String(), err)
			}
		}
	})
}

func FuzzLeavingHeader(f *testing.F) {
	f.Add([]byte("Bcc: a\r\n b\r\nFrom: x\r\n\r\nbody"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := rfc5322.ParseHeader(rfc5322.Block(b)); err != nil {
			return
		}
		out := rfc5322.Leaving(b, "Received: us")
		h, err := rfc5322.ParseHeader(rfc5322.Block(out))
		if err != nil {
			t.Fatalf("%q left as %q: %v", b, out, err)
		}
		if len(h.Bcc)+len(h.ResentBcc) > 0 {
			t.Fatalf("%q left as %q with blind recipients", b, out)
		}
		if i := bytes.Index(b, []byte("\r\n\r\n")); i >= 0 && !bytes.HasSuffix(out, b[i+2:]) {
			t.Fatalf("%q left as %q: the body changed", b, out)
		}
	})
}

var usual = block("Received: from app.contoso.example ([10.0.0.5]) by mail.contoso.example with ESMTPSA id 123456789; Mon, 23 Nov 2026 10:00:00 +0000",
	"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=contoso.example; s=s1;", "\tbh=frcCV1k9oG9oKj3dpUqdJg1PxRT2RSN/XKdLCPjaYaY=;", "\tb=dzdVyOfAKCdLXdJOc9G2q8LoXSlEniSbav+yuU4zGeeruD00lszZVoG4ZHRNiYzR",
	"From: \"Case Manager\" <cases@contoso.example>", "To: Alex Wilber <alex@contoso.example>, Megan Bowen <megan@contoso.example>", "Cc: team@contoso.example",
	"Subject: Case 4711 was assigned to you", "Date: Mon, 23 Nov 2026 10:00:00 +0000", "Message-ID: <4711.1732355000@app.contoso.example>", "MIME-Version: 1.0",
	"Content-Type: multipart/alternative; boundary=\"=_b1_9f8e7d6c5b4a\"", "X-Mailer: CaseManager 6.3", "X-Priority: 3", "Auto-Submitted: auto-generated")

func BenchmarkParseHeader(b *testing.B) {
	b.SetBytes(int64(len(usual)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := rfc5322.ParseHeader(usual); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLeaving(b *testing.B) {
	msg := append(bytes.Clone(usual), bytes.Repeat([]byte("a line of the body of a message\r\n"), 300)...)
	b.SetBytes(int64(len(msg)))
	b.ReportAllocs()
	for b.Loop() {
		rfc5322.Leaving(msg, "Received: by x with ESMTPSA id msg_1; date\r\n")
	}
}
