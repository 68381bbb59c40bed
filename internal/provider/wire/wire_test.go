package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"
	"unicode/utf8"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/diagnose"
	"github.com/mailgrant/mailgrant/internal/provider"
)

func TestFailed(t *testing.T) {
	fix := mailgrant.Finding{Cause: "client-secret-expired", Retry: mailgrant.RetryFix}
	later := mailgrant.Finding{Cause: "provider-outage", Retry: mailgrant.RetryLater, RetryAfter: time.Minute}
	for _, c := range []struct {
		err  error
		want mailgrant.Fate
	}{
		{mailgrant.Errorf(mailgrant.Misset, nil, "x").With(fix), mailgrant.FateHeld},
		{fmt.Errorf("token: %w", mailgrant.Errorf(mailgrant.Unavailable, nil, "x").With(later)), mailgrant.FateLater},
		{mailgrant.Errorf(mailgrant.Misset, nil, "mailgrant does not connect there"), mailgrant.FateHeld},
		{mailgrant.Errorf(mailgrant.Lapsed, nil, "no consent"), mailgrant.FateHeld},
		{mailgrant.Errorf(mailgrant.Internal, nil, "our own"), mailgrant.FateLater},
		{errors.New("something new"), mailgrant.FateLater},
		{context.DeadlineExceeded, mailgrant.FateLater},
	} {
		out := Failed(c.err, diagnose.Failure{Protocol: "network"})
		if out.Fate != c.want || out.Finding == nil {
			t.Errorf("%v: got %+v, want %s", c.err, out, c.want)
		}
	}
}

func TestAgree(t *testing.T) {
	for _, c := range []struct {
		envelope, header string
		bcc              string
		ok               bool
	}{
		{"a@x b@x", "A@X", "b@x", true},
		{"a@x a@X", "a@x a@x", "", true},
		{"a@x", "a@x b@x", "", false},
		{"a@bücher.example", "a@xn--bcher-kva.example", "", true},
		{"a@x", "", "a@x", true},
	} {
		bcc, why := Agree(strings.Fields(c.envelope), strings.Fields(c.header))
		if strings.Join(bcc, " ") != c.bcc || (why == "") != c.ok {
			t.Errorf("%s against %s: got %q, %q", c.envelope, c.header, bcc, why)
		}
	}
}

func TestClaimsAreNotTrusted(t *testing.T) {
	for _, v := range []string{"", "a.b.c", "a.e30.c", "a.bnVsbA.c", "a.eyJhdWQiOlsxLDIsImEiXSwiZXhwIjoxZTMwMH0.c", strings.Repeat(".", 5)} {
		c := ReadClaims(mailgrant.Token{Value: mailgrant.NewSecret(v), Scopes: []string{"s"}})
		if c.Audience != "" && c.Audience != "a" || !c.Expires.IsZero() {
			t.Errorf("%q: got %+v", v, c)
		}
	}
	f := Facts(provider.Way{Grant: mailgrant.Grant{Flow: mailgrant.FlowApp}}, mailgrant.Token{Value: mailgrant.NewSecret("a.eyJhdWQiOiJ4In0.c")}, "smtp-auth")
	if f["token"].(map[string]any)["roles"] != "" || strings.Contains(fmt.Sprint(f), "eyJ") {
		t.Errorf("got %v", f)
	}
}

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

// A message that cannot be read is told from one that cannot be written, in
// whatever way it is copied.
func TestReadTellsWhoFailed(t *testing.T) {
	gone, full := errors.New("the database is gone"), errors.New("the connection is gone")
	var u *Unreadable
	for name, wrap := range map[string]func(io.Reader) io.Reader{"plain": func(r io.Reader) io.Reader { return struct{ io.Reader }{r} }, "WriterTo": func(r io.Reader) io.Reader { return io.MultiReader(r) }} {
		h := &provider.Handover{Open: func() (io.ReadCloser, error) {
			return io.NopCloser(wrap(io.MultiReader(strings.NewReader("x"), iotest.ErrReader(gone)))), nil
		}}
		r, err := Read(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r); !errors.As(err, &u) || !errors.Is(err, gone) {
			t.Errorf("%s: got %v, want that it could not be read", name, err)
		}
		h.Open = func() (io.ReadCloser, error) { return io.NopCloser(wrap(strings.NewReader("x"))), nil }
		if r, err = Read(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(broken{full}, r); !errors.Is(err, full) || errors.As(err, &u) {
			t.Errorf("%s: got %v, want that it could not be written", name, err)
		}
	}
	if _, err := Read(&provider.Handover{Open: func() (io.ReadCloser, error) { return nil, gone }}); !errors.As(err, &u) {
		t.Errorf("got %v, want that it could not be read", err)
	}
}

type broken struct{ err error }

func (b broken) Write([]byte) (int, error) { return 0, b.err }
