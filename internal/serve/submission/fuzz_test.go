package submission

import (
	"bytes"
	"net/mail"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

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
