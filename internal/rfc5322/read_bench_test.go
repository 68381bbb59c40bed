package rfc5322_test

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/mailgrant/mailgrant/internal/rfc5322"
)

// usualHeader is as long as that of mail that came through two servers.
const usualHeader = "Received: from mx1.contoso.example (2001:db8::1) by\r\n mbx7.contoso.example (2001:db8::7) with Microsoft SMTP Server (version=TLS1_3,\r\n" +
	" cipher=TLS_AES_256_GCM_SHA384) id 15.20.1.1; Mon, 23 Nov 2026 10:00:02 +0000\r\n" +
	"Authentication-Results: spf=pass (sender IP is 192.0.2.7)\r\n smtp.mailfrom=fabrikam.example; dkim=pass (signature was verified)\r\n" +
	" header.d=fabrikam.example;dmarc=pass action=none\r\n header.from=fabrikam.example;compauth=pass reason=100\r\n" +
	"Received: from out.fabrikam.example (192.0.2.7) by mx1.contoso.example\r\n with ESMTPS id 7; Mon, 23 Nov 2026 10:00:01 +0000\r\n" +
	"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=fabrikam.example; s=s1;\r\n h=from:to:subject:date:message-id; bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=;\r\n" +
	" b=" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9wcXJzdHV2d3h5ejAxMjM0NTY3ODk=\r\n" +
	"From: =?utf-8?q?J=C3=B6rg_Muster?= <joerg@fabrikam.example>\r\nTo: \"Support, Contoso\" <support@contoso.example>\r\nCc: a@contoso.example, B <b@contoso.example>\r\n" +
	"Subject: Re: [Case 4711] =?utf-8?q?Angebot_f=C3=BCr_die_n=C3=A4chste_Woche?=\r\nDate: Mon, 23 Nov 2026 11:00:00 +0100\r\n" +
	"Message-ID: <AM0PR01MB1234567890@AM0PR01.eurprd01.prod.example>\r\nIn-Reply-To: <case-4711.1@contoso.example>\r\nReferences: <case-4711.0@contoso.example>\r\n <case-4711.1@contoso.example>\r\n" +
	"X-MS-Exchange-Organization-SCL: 1\r\nX-MS-Has-Attach: \r\nAccept-Language: de-DE, en-US\r\nContent-Language: de-DE\r\nMIME-Version: 1.0\r\n"

var usualText = strings.Repeat("Good morning, the parts you asked about leave on Tuesday with the first lorry.\r\n", 110)

func arrivals() map[string][]byte {
	plain := usualHeader + "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\n" + usualText
	two := usualHeader + "Content-Type: multipart/alternative;\r\n\tboundary=\"_000_AM0PR01\"\r\n\r\n--_000_AM0PR01\r\nContent-Type: text/plain; charset=\"utf-8\"\r\n" +
		"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + usualText[:3000] + "\r\n--_000_AM0PR01\r\nContent-Type: text/html; charset=\"utf-8\"\r\n" +
		"Content-Transfer-Encoding: quoted-printable\r\n\r\n<html><body><p>" + usualText[:5000] + "</p></body></html>\r\n--_000_AM0PR01--\r\n"
	page := usualHeader + "Content-Type: text/html; charset=\"utf-8\"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n<html><head><style>" +
		strings.Repeat("p { margin: 0 } \r\n", 200) + "</style></head><body><p>" + usualText[:5000] + "</p></body></html>\r\n"
	return map[string][]byte{"plain": []byte(plain), "alternative": []byte(two), "html": []byte(page), "attachment": append([]byte(usualHeader), attached(9000)...)}
}

// attached is the rest of a message with a file of about n bytes of base64.
func attached(n int) []byte {
	return []byte("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nsee attached\r\n--b\r\n" +
		"Content-Type: application/pdf; name=\"a.pdf\"\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: attachment; filename=\"a.pdf\"\r\n\r\n" +
		strings.Repeat(strings.Repeat("QUJD", 19)+"\r\n", n/78) + "--b--\r\n")
}

func BenchmarkRead(b *testing.B) {
	for name, raw := range arrivals() {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			r := bytes.NewReader(nil)
			for b.Loop() {
				r.Reset(raw)
				if _, err := rfc5322.Read(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkPart(b *testing.B) {
	raw := append([]byte(usualHeader), attached(10<<20)...)
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := rfc5322.Part(bytes.NewReader(raw), 1, io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}
