package real

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"
)

// Awkward are messages from Alex to Robin that programs on the way like to spoil,
// by what is awkward about them.
func Awkward(t testing.TB) map[string][]byte {
	t.Helper()
	head := "From: Alex <" + Alex + ">\r\nTo: " + Robin + "\r\nSubject: awkward\r\nMessage-ID: <awkward@real.example>\r\nDate: Mon, 1 Jan 2024 00:00:00 +0000\r\nMIME-Version: 1.0\r\n"
	out := map[string][]byte{
		"dots":               []byte(head + "\r\n.\r\n..\r\n.a\r\n ..\r\n.\r\n"),
		"8-bit":              []byte(head + "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGrüße \xe2\x82\xac \xff\xfe\r\n"),
		"8-bit header":       []byte(head + "X-Old: Gr\xfc\xdfe\r\n\r\nHi\r\n"),
		"longest lines":      []byte(head + "\r\n" + strings.Repeat(strings.Repeat("x", 998)+"\r\n", 3)),
		"too long a line":    []byte(head + "\r\n" + strings.Repeat("y", 20_000) + "\r\n." + strings.Repeat("z", 5_000) + "\r\n"),
		"quoted-printable":   []byte(head + "Content-Transfer-Encoding: quoted-printable\r\n\r\n=2E=\r\n.=3D=\r\n=20=09 \t \r\nFrom me=\r\n\r\n"),
		"empty lines":        []byte(head + "\r\n\r\n\r\n \r\n\t\r\n\r\n\r\n"),
		"From in front":      []byte(head + "\r\nFrom here on\r\n>From there\r\n"),
		"folded header":      []byte(head + "X-Folded: a\r\n b\r\n\tc\r\n  \td\r\nx-CaSe:no space\r\nX-Empty:\r\nX-End: spaces  \r\n\r\nHi\r\n"),
		"Bcc":                []byte(head + "Bcc: hidden@elsewhere.example\r\nResent-Bcc: hidden@elsewhere.example\r\n\r\nkept as it came: whose it is to remove it is upstream of the transport\r\n"),
		"header alone":       []byte(head),
		"binary in an octet": append([]byte(head+"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"), "\x01\x02\x7f\x80\xff\x1b[31m\r\n"...),
	}
	out["signed"] = signed(t, head)
	return out
}

// signed is S/MIME as openssl makes it: a changed space or line end in the first
// part breaks the signature.
func signed(t testing.TB, head string) []byte {
	t.Helper()
	dir := t.TempDir()
	run := func(in []byte, args ...string) []byte {
		c := exec.Command(program(t, "openssl"), args...)
		var stderr bytes.Buffer
		c.Dir, c.Stdin, c.Stderr = dir, bytes.NewReader(in), &stderr
		out, err := c.Output()
		if err != nil {
			t.Fatalf("openssl %v: %v\n%s", args, err, stderr.String())
		}
		return out
	}
	run(nil, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "key.pem", "-out", "cert.pem", "-days", "2", "-subj", "/CN=Alex/emailAddress="+Alex)
	part := "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGrüße,  \r\n.\r\n-- \r\nAlex\r\n"
	mime := run([]byte(part), "smime", "-sign", "-binary", "-crlfeol", "-signer", "cert.pem", "-inkey", "key.pem")
	mime = bytes.ReplaceAll(bytes.ReplaceAll(mime, []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r\n"))
	return append([]byte(strings.TrimSuffix(head, "MIME-Version: 1.0\r\n")), mime...)
}
