package real

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// A Door is a door of the program under test that takes mail by SMTP.
type Door struct {
	Address   string // host:port
	Implicit  bool   // TLS from the beginning; else STARTTLS
	User, Key string
	CAFile    string // what its certificate is trusted by
}

// A Submitter is a mail program that people submit with. It hands over body, the
// message as it stands with lines ending in CRLF, and tells the server's last
// reply; an error when that is no consent.
type Submitter func(t testing.TB, d Door, from string, to []string, body []byte) (reply string, err error)

// Submitters are all of them by name.
var Submitters = map[string]Submitter{"swaks": Swaks, "smtplib": Smtplib, "nodemailer": Nodemailer}

//go:embed submit.py
var submitPython string

// Smtplib is the SMTP client of Python.
func Smtplib(t testing.TB, d Door, from string, to []string, body []byte) (string, error) {
	t.Helper()
	return runScript(t, exec.Command(program(t, "python3"), "-c", submitPython), d, from, to, body)
}

// Nodemailer is the SMTP client of Node programs.
func Nodemailer(t testing.TB, d Door, from string, to []string, body []byte) (string, error) {
	t.Helper()
	c := exec.Command(program(t, "node"), "submit.mjs")
	c.Dir = nodeDir(t)
	return runScript(t, c, d, from, to, body)
}

// runScript runs a script that prints the reply.
func runScript(t testing.TB, c *exec.Cmd, d Door, from string, to []string, body []byte) (string, error) {
	t.Helper()
	host, port := d.split(t)
	settings, err := json.Marshal(map[string]any{"host": host, "port": port, "implicit": d.Implicit, "user": d.User, "key": d.Key, "ca": d.CAFile,
		"from": from, "to": to, "eightBit": bytes.ContainsFunc(body, func(r rune) bool { return r > 127 })})
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	c.Env = append(c.Environ(), "SETTINGS="+string(settings), "NODE_NO_WARNINGS=1")
	c.Stdin, c.Stderr = bytes.NewReader(body), &stderr
	out, err := c.Output()
	reply := strings.TrimSpace(string(out))
	if err != nil {
		return reply, fmt.Errorf("%w: %s%s", err, reply, tail(stderr.String()))
	}
	return reply, nil
}

// swaksReply is a line that the server said, in the transcript of swaks.
var swaksReply = regexp.MustCompile(`(?m)^<[~*-][ *]+(\d{3} .*)$`)

// Swaks is the Swiss army knife for SMTP. It takes the message as it goes over
// the wire, so that it changes nothing itself.
func Swaks(t testing.TB, d Door, from string, to []string, body []byte) (string, error) {
	t.Helper()
	host, port := d.split(t)
	tls := "--tls"
	if d.Implicit {
		tls = "--tls-on-connect"
	}
	data := bytes.ReplaceAll(append([]byte("\r\n"), body...), []byte("\r\n."), []byte("\r\n.."))[2:]
	if !bytes.HasSuffix(data, []byte("\r\n")) {
		data = append(data, "\r\n"...)
	}
	c := exec.Command(program(t, "swaks"), "--server", host, "--port", strconv.Itoa(port), tls, "--tls-verify", "--tls-ca-path", d.CAFile, "--helo", "client.example",
		"--auth", "PLAIN", "--auth-user", d.User, "--auth-password", d.Key, "--from", from, "--to", strings.Join(to, ","), "--no-data-fixup", "--data", "-")
	c.Stdin = bytes.NewReader(append(data, '.'))
	out, err := c.CombinedOutput()
	reply := ""
	for _, m := range swaksReply.FindAllStringSubmatch(strings.ReplaceAll(string(out), "\r", ""), -1) {
		if !strings.HasPrefix(m[1], "221 ") {
			reply = m[1]
		}
	}
	if err == nil && reply == "" {
		err = errors.New("no reply in what it printed")
	}
	if err != nil {
		return reply, fmt.Errorf("swaks: %w\n%s", err, tail(string(out)))
	}
	return reply, nil
}

func (d Door) split(t testing.TB) (host string, port int) {
	t.Helper()
	host, p, err := net.SplitHostPort(d.Address)
	if err == nil {
		port, err = strconv.Atoi(p)
	}
	if err != nil {
		t.Fatalf("the door's address: %v", err)
	}
	return host, port
}
