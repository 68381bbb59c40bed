package submission

import (
	"bytes"
	"net/mail"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestPaths(t *testing.T) {
	label := strings.Repeat("x", 63)
	for path, want := range map[string]pathFault{
		"a@b": pathGood, "a.b+c@example.com": pathGood, "!#$&'*+-/=?^_`{|}~@example.com": pathRoute, "#$&'*+-/=?^_`{|}~@example.com": pathGood,
		`"a b"@example.com`: pathGood, `"a\"b"@example.com`: pathGood, `"a@b"@example.com`: pathGood, "a@xn--mnchen-3ya.example": pathGood,
		"a@münchen.example": pathUTF8, "é@example.com": pathUTF8, "a@1.example": pathGood, "a@1a": pathGood, "a@1": pathGood,
		"": pathBad, "a": pathBad, "a@": pathBad, "a b@example.com": pathBad, ".a@example.com": pathBad, "a.@example.com": pathBad, "a..b@example.com": pathBad,
		`"@example.com`: pathBad, `""@example.com`: pathBad, `"a"b"@example.com`: pathBad, `"a\"@example.com`: pathBad, `a"b"@example.com`: pathBad, "\"a\t\"@example.com": pathBad,
		"a@-b.example": pathBad, "a@b-.example": pathBad, "a@b..example": pathBad, "a@.example": pathBad, "a@b.example.": pathBad, "a@b_c.example": pathBad,
		"a@" + label + ".example": pathGood, "a@x" + label + ".example": pathBad, "a@ab--c.example": pathBad, "a@xn--0.example": pathBad, "a@127.0.0.1": pathBad,
		strings.Repeat("x", 64) + "@example.com": pathGood, strings.Repeat("x", 65) + "@example.com": pathBad,
		"a@" + strings.Repeat(label+".", 3) + label: pathBad, "a@" + strings.Repeat(label+".", 3) + label[:60]: pathGood,
		"@example.com": pathRoute, "@r:a@example.com": pathRoute, "a%b@example.com": pathRoute, "b!a@example.com": pathRoute, "a@[192.0.2.1]": pathRoute,
		"\xff@example.com": pathBad, "a@b\u202e.example": pathUTF8,
	} {
		if got := mailbox([]byte(path), false); got != want {
			t.Errorf("%q: got %d, want %d", path, got, want)
		}
	}
	for path, want := range map[string]pathFault{"é@münchen.example": pathGood, `"é ü"@example.com`: pathGood, "a\u202eb@example.com": pathBad, "a@b\u202e.example": pathBad,
		"a\u00a0b@example.com": pathBad, "a\u0085@example.com": pathBad} {
		if got := mailbox([]byte(path), true); got != want {
			t.Errorf("%q: got %d, want %d", path, got, want)
		}
	}
}

// FuzzPath: what is taken for an address is one, and carries nothing else.
func FuzzPath(f *testing.F) {
	for _, s := range []string{"FROM:<a@example.com>", "FROM: <a@example.com> SIZE=1", "FROM:<>", `FROM:<"a b"@example.com>`, `FROM:<"a>b\"c"@example.com> X`,
		"FROM:<@r:a@b>", "FROM:<a%b@c>", "FROM:<a!b@c>", "FROM:<a@[1.2.3.4]>", "FROM:<a@1.2.3.4>", "FROM:<é@münchen.example>", "FROM:<a..b@c>",
		"FROM:<a@b>>", "FROM:<<a@b>", "FROM:<a@xn--mnchen-3ya.example>", "FROM:<a@b\u3002c>", "FROM:<\u202ea@b>", "FROM:<a@-b>", "from:<a@b.>", `FROM:<"\@b>`} {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	f.Fuzz(func(t *testing.T, arg []byte, announced bool) {
		path, params, ok := pathOf(arg, "FROM:")
		if !ok {
			return
		}
		if len(params) > 0 && params[0] != ' ' || !bytes.HasSuffix(arg, params) {
			t.Fatalf("%q: parameters %q", arg, params)
		}
		addr, fault := recipient(path, announced)
		if _, again := sender(path, announced); len(path) > 0 && (again == "") != (fault == "") {
			t.Fatalf("%q: %q as a recipient, %q as a sender", path, fault, again)
		}
		if fault != "" {
			if !strings.HasSuffix(fault, "\r\n") || strings.Count(fault, "\n") != 1 {
				t.Fatalf("%q: not one line: %q", arg, fault)
			}
			return
		}
		at := strings.LastIndexByte(addr, '@')
		local, host := addr[:at], addr[at+1:]
		switch {
		case addr != string(path), len(addr) > 254, len(local) > 64, !utf8.ValidString(addr):
			t.Fatalf("%q became %q", path, addr)
		case !announced && !isASCII([]byte(addr)):
			t.Fatalf("%q was not announced", addr)
		case strings.ContainsFunc(addr, func(r rune) bool { return !unicode.IsPrint(r) }):
			t.Fatalf("%q cannot be printed", addr)
		case strings.ContainsAny(host, "@ <>[]:%\"\\"), local[0] == '@':
			t.Fatalf("%q has another way in it", addr)
		case strings.ContainsAny(local, " <>@") && local[0] != '"':
			t.Fatalf("%q is not quoted", addr)
		}
		// One address for the parser of the standard library too.
		if m, err := mail.ParseAddress("<" + addr + ">"); err != nil || m.Name != "" || !strings.HasSuffix(m.Address, "@"+host) {
			t.Fatalf("%q is %v for net/mail: %v", addr, m, err)
		}
		if again, rest, ok := pathOf([]byte("FROM:<"+addr+"> X"), "FROM:"); !ok || string(again) != addr || string(rest) != " X" {
			t.Fatalf("%q became %q and %q", addr, again, rest)
		}
	})
}

// FuzzBody: in whatever pieces the octets of a message come, it is what a plain
// reading of RFC 5321 section 4.5.2 makes of them.
func FuzzBody(f *testing.F) {
	for _, s := range []string{"", ".\r\n", "Hi\r\n.\r\n", "..\r\n.\r\nQUIT\r\n", "a\nb", "\r", "a\r\n.\n", "a\r\n.\r", "a\r\n.\rb", "\r\n\r\n.\r\n", "a\r\n.\r\r\n", "\n.\r\n", ".x\r\n.\r\n"} {
		f.Add([]byte(s), []byte{1})
		f.Add([]byte(s), []byte{3, 0, 2})
	}
	f.Fuzz(func(t *testing.T, in, cuts []byte) {
		kept, used, ended, bare := plainBody(in)
		var b body
		var got bytes.Buffer
		var err error
		left, taken := in, 0
		for i := 0; len(left) > 0 && err == nil && b.state != dataEnd; i++ {
			n := len(left)
			if len(cuts) > 0 {
				n = min(n, 1+int(cuts[i%len(cuts)]))
			}
			var u int
			u, err = b.feed(left[:n], func(p []byte) { got.Write(p) })
			taken += u
			left = left[u:]
			if err == nil && b.state != dataEnd && u != n {
				t.Fatalf("%d of %d octets were used", u, n)
			}
		}
		if (err != nil) != bare || (b.state == dataEnd) != ended {
			t.Fatalf("%q by %v: got %v in state %d, want bare=%v ended=%v", in, cuts, err, b.state, bare, ended)
		}
		if bare {
			return
		}
		if taken != used || got.String() != kept || b.size != int64(len(kept)) {
			t.Fatalf("%q by %v: got %q of %d octets, want %q of %d", in, cuts, got.String(), taken, kept, used)
		}
	})
}

// plainBody is the same for octets that are all there, line by line.
func plainBody(in []byte) (kept string, used int, ended, bare bool) {
	var out strings.Builder
	rest := string(in)
	for {
		line, after, whole := strings.Cut(rest, "\r\n")
		if !whole {
			line = strings.TrimSuffix(line, "\r")
		}
		if strings.ContainsAny(line, "\r\n") {
			return "", 0, false, true
		}
		if !whole {
			tail, dotted := strings.CutPrefix(rest, ".")
			if dotted && tail == "\r" {
				tail = ""
			}
			out.WriteString(tail)
			return out.String(), len(in), false, false
		}
		rest = after
		if line == "." {
			return out.String(), len(in) - len(rest), true, false
		}
		out.WriteString(strings.TrimPrefix(line, ".") + "\r\n")
	}
}
