package wire

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestSM16CleanText(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"550 5.1.1 no\r\nsuch\tuser", "550 5.1.1 no such user"},
		{"\x1b[31mred\x1b[0m\x00", "[31mred[0m"},
		{"a\u202egnp.exe\u0085b", "agnp.exe b"},
		{"\xff\xfe", "?"},
	} {
		if got := Clean(c.in, 100); got != c.want {
			t.Errorf("%q: got %q, want %q", c.in, got, c.want)
		}
	}
	for _, s := range []string{strings.Repeat("ä", 600), strings.Repeat("x", 600), strings.Repeat("日", 600)} {
		if got := Clean(s, ReplyMax); len(got) > ReplyMax || len(got) < ReplyMax-3 || !utf8.ValidString(got) {
			t.Errorf("cut to %d bytes, valid %v", len(got), utf8.ValidString(got))
		}
	}
}
