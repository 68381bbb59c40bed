package sim

import (
	"strings"
	"testing"
)

// What clients send and what lies in mailboxes is foreign: nothing of it may
// end the imitation.

func FuzzIMAPParts(f *testing.F) {
	f.Add([]byte("From: a@b\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\nHi\r\n--x\r\nContent-Type: message/rfc822\r\n\r\nSubject: y\r\n\r\nz\r\n--x--\r\n"), "2.1.HEADER.FIELDS (SUBJECT)")
	f.Add([]byte("\r\n\r\n"), "1.MIME")
	f.Add([]byte("Content-Type: multipart/mixed; boundary=\"\"\r\n"), "TEXT")
	f.Fuzz(func(t *testing.T, raw []byte, section string) {
		p := partOf(raw)
		p.structure(true)
		envelope(raw)
		if whole, ok := p.section(""); !ok || string(whole) != string(raw) {
			t.Errorf("BODY[] of %q: got %q, %v", raw, whole, ok)
		}
		p.section(strings.ToUpper(section))
		firstLines(raw, 3)
	})
}

func FuzzIMAPCommand(f *testing.F) {
	f.Add(`A1 UID FETCH 1:*,5 (UID BODY.PEEK[HEADER.FIELDS (DATE "FROM")]<0.5>)`, "x")
	f.Add(`A2 SEARCH OR (FROM "a\"b") NOT HEADER Message-ID {5}`, "<a@b>")
	f.Add(`A3 LIST "" "F&AOQ-lle/%"`, "")
	f.Fuzz(func(t *testing.T, line, literal string) {
		text, _, mark := literalMark(line)
		in := &imapInput{texts: []string{text}}
		if mark != 0 {
			in.literals, in.texts = [][]byte{[]byte(literal)}, append(in.texts, ")")
		}
		for l := in.lexer(); ; {
			kind, value := l.token()
			if kind == tokenEnd {
				break
			}
			parseSet(value)
			fetchItems([]string{value})
			matchList(value, "INBOX/Below")
			quote(value)
		}
		l := in.lexer()
		l.list()
		for range 100 {
			if key, ok := (&imapSession{sel: &selected{}}).searchKey(l, 0); !ok || key == nil {
				break
			}
		}
	})
}

func FuzzUTF7(f *testing.F) {
	f.Add("Entwürfe & 日本語")
	f.Add("&AOQ")
	f.Add("&-&&ZeVnLIqe-")
	f.Fuzz(func(t *testing.T, name string) {
		fromUTF7(name)
		if valid := strings.ToValidUTF8(name, "?"); fromUTF7(toUTF7(valid)) != valid {
			t.Errorf("%q became %q", valid, fromUTF7(toUTF7(valid)))
		}
	})
}
