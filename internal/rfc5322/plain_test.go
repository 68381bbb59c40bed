package rfc5322_test

import (
	"bytes"
	"io"
	"mime/quotedprintable"
	"net/mail"
	"strings"
	"testing"

	"github.com/mailgrant/mailgrant/internal/rfc5322"
)

// TestTextArrivesAsItIs reads texts back, whichever way they leave.
func TestTextArrivesAsItIs(t *testing.T) {
	for _, c := range []struct{ name, text, encoding string }{
		{"short lines", "Good morning,\n\nwe are on it.\n", "7bit"},
		{"CRLF", "one\r\ntwo\r\n", "7bit"},
		{"a dot", "one\n.\n..two\n", "7bit"},
		{"nothing", "", "7bit"},
		{"78 letters", strings.Repeat("x", 78) + "\n", "7bit"},
		{"79 letters", strings.Repeat("x", 79) + "\n", "quoted-printable"},
		{"no end", "one\ntwo", "quoted-printable"},
		{"a mailbox file's line", "one\nFrom here on\n", "quoted-printable"},
		{"a blank at the end", "one \ntwo\n", "quoted-printable"},
		{"a tab", "one\ttwo\n", "quoted-printable"},
		{"umlauts", "Grüße\n", "quoted-printable"},
		{"a bare CR", "one\rtwo\n", "quoted-printable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := rfc5322.Compose(rfc5322.Mail{From: "a@contoso.example", To: []string{"b@contoso.example"}, Subject: "x", Text: c.text})
			if err != nil {
				t.Fatal(err)
			}
			var raw bytes.Buffer
			if _, err := m.WriteTo(&raw); err != nil {
				t.Fatal(err)
			}
			got, err := mail.ReadMessage(&raw)
			if err != nil {
				t.Fatal(err)
			}
			if e := got.Header.Get("Content-Transfer-Encoding"); e != c.encoding {
				t.Errorf("encoding %s, want %s", e, c.encoding)
			}
			body := got.Body
			if c.encoding == "quoted-printable" {
				body = quotedprintable.NewReader(body)
			}
			b, err := io.ReadAll(body)
			if err != nil {
				t.Fatal(err)
			}
			want := strings.ReplaceAll(strings.ReplaceAll(c.text, "\r\n", "\n"), "\n", "\r\n") + "\r\n"
			if c.name != "a bare CR" && string(b) != want {
				t.Errorf("got %q, want %q", b, want)
			}
			if strings.Contains(strings.ReplaceAll(string(b), "\r\n", ""), "\n") {
				t.Errorf("a line ends in something else than CRLF: %q", b)
			}
		})
	}
}
