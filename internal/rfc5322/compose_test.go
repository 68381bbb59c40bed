package rfc5322_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/rfc5322"
)

func usualMail() rfc5322.Mail {
	return rfc5322.Mail{From: "Cases <cases@contoso.example>", To: []string{"alex@contoso.example"}, Subject: "Hi", Text: "Hello\n"}
}

func composed(t *testing.T, m rfc5322.Mail) (*rfc5322.Composed, []byte) {
	t.Helper()
	c, err := rfc5322.Compose(m)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if n, err := c.WriteTo(&out); err != nil || n != int64(out.Len()) {
		t.Fatalf("wrote %d of %d, %v", n, out.Len(), err)
	}
	l := rfc5322.Lines{W: io.Discard}
	if _, err := l.Write(out.Bytes()); err != nil || l.EightBit || l.NUL {
		t.Fatalf("%v, 8-bit %v, NUL %v in %q", err, l.EightBit, l.NUL, out.Bytes())
	}
	for _, s := range strings.Split(out.String(), "\r\n") {
		if len(s) > 998 {
			t.Fatalf("a line of %d bytes", len(s))
		}
	}
	return c, out.Bytes()
}

// AP-03: whatever stands in whatever field, it is refused by name, or no field,
// part or recipient comes into being that was not asked for.
func TestAP03NothingCanBeInjected(t *testing.T) {
	evil := []string{"x\r\nBcc: evil@evil.example", "x\nBcc: evil@evil.example", "x\rBcc: evil@evil.example", "x\x00y", "x\u0085Bcc: evil@evil.example",
		"x\u2028Bcc: evil@evil.example", "x\u2029y", "x\x0by", "x\x7fy", "x\xff\xfe", "x\x1b[31m"}
	fields := map[string]func(*rfc5322.Mail, string){
		"from":                func(m *rfc5322.Mail, s string) { m.From = s + " <a@contoso.example>" },
		"sender":              func(m *rfc5322.Mail, s string) { m.Sender = "a" + s + "@contoso.example" },
		"reply_to[0]":         func(m *rfc5322.Mail, s string) { m.ReplyTo = []string{`"` + s + `" <a@contoso.example>`} },
		"to[1]":               func(m *rfc5322.Mail, s string) { m.To = append(m.To, "a@contoso.example"+s) },
		"cc[0]":               func(m *rfc5322.Mail, s string) { m.Cc = []string{"<a@contoso.example>" + s} },
		"bcc[0]":              func(m *rfc5322.Mail, s string) { m.Bcc = []string{s + "@contoso.example"} },
		"subject":             func(m *rfc5322.Mail, s string) { m.Subject = s },
		"message_id":          func(m *rfc5322.Mail, s string) { m.MessageID = "<" + s + "@x>" },
		"in_reply_to":         func(m *rfc5322.Mail, s string) { m.InReplyTo = "<a@x>" + s },
		"references[0]":       func(m *rfc5322.Mail, s string) { m.References = []string{"<a@x" + s + ">"} },
		"headers":             func(m *rfc5322.Mail, s string) { m.Headers = map[string]string{"X-" + s: "y"} },
		"headers.X-Case":      func(m *rfc5322.Mail, s string) { m.Headers = map[string]string{"X-Case": s} },
		"attachments[0].name": func(m *rfc5322.Mail, s string) { m.Attachments = []rfc5322.Attachment{{Name: s}} },
		"attachments[0].content_type": func(m *rfc5322.Mail, s string) {
			m.Attachments = []rfc5322.Attachment{{Name: "a", ContentType: "text/plain; charset=" + s}}
		},
		"attachments[0].content_id": func(m *rfc5322.Mail, s string) { m.Attachments = []rfc5322.Attachment{{Name: "a", ContentID: s}} },
	}
	for field, set := range fields {
		for _, s := range evil {
			m := usualMail()
			set(&m, s)
			_, err := rfc5322.Compose(m)
			var e *mailgrant.Error
			if !errors.As(err, &e) || e.Code != mailgrant.Invalid || e.Field != field || e.Remedy == "" {
				t.Errorf("%s = %q: got %v (field %q), want it refused by name", field, s, err, fieldOf(err))
			}
		}
	}
}

func TestAP03OddButHarmless(t *testing.T) {
	for _, s := range []string{"Grüße aus Wien, und viel mehr Text, der nicht in eine Zeile passt – auch nicht in zwei", "=?utf-8?q?=0D=0ABcc:_x?=", ": colon", "a  b", strings.Repeat("日本語", 200),
		`quo"te\`, "<a@b>, c", strings.Repeat("word ", 300), "tab\there", " leading"} {
		m := usualMail()
		m.Subject, m.Headers = s, map[string]string{"X-Case": s}
		if uncommon := strings.ContainsAny(s, "\t"); !uncommon {
			m.From = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `" <cases@contoso.example>`
		}
		if len(m.From) > 900 {
			m.From = "cases@contoso.example"
		}
		_, raw := composed(t, m)
		got, err := mail.ReadMessage(bytes.NewReader(raw))
		if err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		dec := new(mime.WordDecoder)
		sub, err := dec.DecodeHeader(got.Header.Get("Subject"))
		if strings.TrimSpace(sub) != strings.TrimSpace(s) && sub != s || err != nil {
			t.Errorf("subject: got %q, %v, want %q", sub, err, s)
		}
		if got.Header.Get("Bcc") != "" || len(got.Header["From"]) != 1 {
			t.Errorf("%q: made %v", s, got.Header)
		}
		h, err := rfc5322.ParseHeader(rfc5322.Block(raw))
		if err != nil || h.From[0].String() != "cases@contoso.example" {
			t.Errorf("%q: our own header is refused: %v", s, err)
		}
	}
}

func TestAP03ReservedHeaders(t *testing.T) {
	for _, name := range []string{"From", "bcc", "To", "Received", "Content-Type", "MIME-Version", "Return-Path", "DKIM-Signature", "Resent-From", "Date", "X-Mailgrant-Id", "Sender", "Message-ID",
		"a b", "x:y", "", strings.Repeat("X", 71), "X-Ä"} {
		m := usualMail()
		m.Headers = map[string]string{name: "x"}
		if _, err := rfc5322.Compose(m); !errors.Is(err, mailgrant.Invalid) || !strings.HasPrefix(fieldOf(err), "headers") {
			t.Errorf("%q: got %v, want it refused", name, err)
		}
	}
}

// AP-04: who gets it is who was checked.
func TestAP04EnvelopeIsWhatWasChecked(t *testing.T) {
	m := usualMail()
	m.To = []string{"Alex <Alex@Contoso.EXAMPLE>", "b@x.example"}
	m.Cc = []string{"alex@contoso.example", "Jörg <jörg@bücher.example>"}
	m.Bcc = []string{"secret@x.example"}
	c, err := rfc5322.Compose(m)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"Alex@contoso.example", "b@x.example", "jörg@xn--bcher-kva.example", "secret@x.example"}
	if !slices.Equal(c.Recipients, want) || c.From != "cases@contoso.example" || !c.UTF8 {
		t.Errorf("got %q from %q, UTF-8 %v", c.Recipients, c.From, c.UTF8)
	}
	var out bytes.Buffer
	c.WriteTo(&out)
	if bytes.Contains(out.Bytes(), []byte("secret")) || bytes.Contains(out.Bytes(), []byte("Bcc")) {
		t.Error("a blind recipient is in the message")
	}
	for _, m := range []rfc5322.Mail{{}, {From: "a@b"}, {From: "a@b, c@d", To: []string{"e@f"}}, {From: "a@b", To: []string{"x: c@d;"}}} {
		if _, err := rfc5322.Compose(m); !errors.Is(err, mailgrant.Invalid) {
			t.Errorf("%+v: got %v, want it refused", m, err)
		}
	}
}

// AP-11: a name is only a name.
func TestAP11AttachmentsAreTheirBytes(t *testing.T) {
	for _, name := range []string{"/etc/passwd", "../../etc/passwd", `C:\x`, "file:///etc/passwd", "https://evil.example/x", ""} {
		m := usualMail()
		m.Attachments = []rfc5322.Attachment{{Name: name}}
		if _, err := rfc5322.Compose(m); fieldOf(err) != "attachments[0].name" {
			t.Errorf("%q: got %v, want it refused", name, err)
		}
	}
	for _, kind := range []string{"multipart/mixed; boundary=x", "message/rfc822", "message/external-body; access-type=URL", "text", "text/plain; a=\"\r\n\"", "text/plain\r\nX: y"} {
		m := usualMail()
		m.Attachments = []rfc5322.Attachment{{Name: "a", ContentType: kind}}
		if _, err := rfc5322.Compose(m); fieldOf(err) != "attachments[0].content_type" {
			t.Errorf("%q: got %v, want it refused", kind, err)
		}
	}
}

// parts are the types of all parts, in order, with their names and decoded sizes.
func parts(t *testing.T, header func(string) string, body io.Reader, depth int) string {
	t.Helper()
	kind, params, err := mime.ParseMediaType(header("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(kind, "multipart/") {
		n, _ := io.Copy(io.Discard, body)
		_, d, _ := mime.ParseMediaType(header("Content-Disposition"))
		return fmt.Sprintf("%s %s%s %v", kind, d["filename"], header("Content-Id"), n > 0)
	}
	var out []string
	for r := multipart.NewReader(body, params["boundary"]); ; {
		p, err := r.NextPart()
		if err == io.EOF {
			return kind + "(" + strings.Join(out, ", ") + ")"
		}
		if err != nil || depth > 5 {
			t.Fatal(err)
		}
		out = append(out, parts(t, p.Header.Get, p, depth+1))
	}
}

func TestCompose(t *testing.T) {
	m := usualMail()
	m.Text, m.HTML = "Grüße\r\n.\n\rx", "<p>Grüße<img src=cid:logo>"
	m.Date = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	m.Attachments = []rfc5322.Attachment{{Name: "übersicht.pdf", Content: bytes.Repeat([]byte{1, 2, 3}, 1000)}, {Name: "logo.png", ContentID: "logo", Content: []byte("png")}}
	c, raw := composed(t, m)
	got, err := mail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	want := "multipart/mixed(multipart/alternative(text/plain  true, multipart/related(text/html  true, image/png logo.png<logo> true)), application/pdf übersicht.pdf true)"
	if p := parts(t, got.Header.Get, got.Body, 0); p != want {
		t.Errorf("got  %s\nwant %s", p, want)
	}
	if id := got.Header.Get("Message-Id"); id != c.MessageID || !strings.HasSuffix(id, "@contoso.example>") {
		t.Errorf("Message-ID %q", id)
	}
	if d := got.Header.Get("Date"); d != "Mon, 23 Nov 2026 10:00:00 +0000" {
		t.Errorf("Date %q", d)
	}
	_, plain := composed(t, usualMail())
	if !bytes.Contains(plain, []byte("\r\n\r\nHello\r\n")) {
		t.Errorf("a plain message: %q", plain)
	}
}

func TestDSN(t *testing.T) {
	f := &mailgrant.Finding{Sentence: "The recipient does not exist.", Remedy: "Correct the address.\r\nBcc: x", Who: mailgrant.WhoOperator, Link: "errors/recipient-rejected"}
	r := rfc5322.Report{From: "cases@contoso.example", To: "app@contoso.example", Hostname: "mail.contoso.example", ID: "msg_1", MessageID: "<1@x>", Subject: "Fälle\r\nX: y",
		Accepted: time.Unix(1.8e9, 0), At: time.Unix(1.8e9+60, 0), Link: "https://mail.contoso.example/docs/", Header: []byte("From: app@contoso.example\r\nBcc: secret@x.example\r\nSubject: Fälle\r\n\r\nbody"),
		Failed: []rfc5322.Failure{{Address: "nobody@x.example", Reply: "550 5.1.1 no\r\nsuch user \x1b[31m", Finding: f}, {Address: "jörg@x.example", Reply: "451 4.7.1 wait", Expired: true}}}
	raw := rfc5322.DSN(r)
	got, err := mail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	all, _ := io.ReadAll(got.Body)
	want := "multipart/report(text/plain  true, message/delivery-status  true, text/rfc822-headers  true)"
	if p := parts(t, got.Header.Get, bytes.NewReader(all), 0); p != want {
		t.Errorf("got  %s\nwant %s", p, want)
	}
	for _, s := range []string{"Final-Recipient: rfc822; nobody@x.example", "Status: 5.1.1", "Diagnostic-Code: smtp; 550 5.1.1 no  such user [31m", "Final-Recipient: utf-8; j\\x{F6}rg@x.example",
		"Status: 4.4.7", "Reporting-MTA: dns; mail.contoso.example", "What to do: Correct the address.", "errors/recipient-rejected"} {
		if !bytes.Contains(all, []byte(s)) {
			t.Errorf("%q is missing in\n%s", s, all)
		}
	}
	if bytes.Contains(raw, []byte("secret")) || got.Header.Get("Auto-Submitted") != "auto-replied" || got.Header.Get("X") != "" {
		t.Errorf("not as it should be:\n%s", raw)
	}
	if h, err := rfc5322.ParseHeader(rfc5322.Block(raw)); err != nil || h.From[0].String() != "cases@contoso.example" || h.AutoSubmitted != "auto-replied" {
		t.Errorf("got %+v, %v", h, err)
	}
	l := rfc5322.Lines{W: io.Discard}
	if _, err := l.Write(raw); err != nil || l.EightBit {
		t.Errorf("lines: %v, 8-bit %v", err, l.EightBit)
	}
	r.To = ""
	if rfc5322.DSN(r) != nil {
		t.Error("a report for the null sender")
	}
}
