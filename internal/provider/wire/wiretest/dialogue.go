package wiretest

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant/internal/provider"
)

// A Dialogue is a file: settings, an empty line, and what is said. C: is expected
// of us, S: is the server's answer, TLS is a handshake, DROP ends the connection,
// NEXT waits for another one. {token} is the response for "token", {fresh} for
// "fresh", and {bearer} and {bearer-fresh} are those of OAUTHBEARER.
type Dialogue struct {
	Head  [][2]string // in their order
	Lines []string
}

// Each plays the dialogues in testdata.
func Each(t *testing.T, play func(*testing.T, Dialogue)) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no dialogues", err)
	}
	Pair() // whatever is made before a bubble is not bound to it
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { play(t, read(t, file)) })
	}
}

func read(t *testing.T, file string) (d Dialogue) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, _ := strings.Cut(string(b), "\n\n")
	for _, l := range strings.Split(head, "\n") {
		k, v, _ := strings.Cut(l, ":")
		if !strings.HasPrefix(l, "#") {
			d.Head = append(d.Head, [2]string{k, strings.TrimSpace(v)})
		}
	}
	for _, l := range strings.Split(rest, "\n") {
		if l != "" && !strings.HasPrefix(l, "#") {
			d.Lines = append(d.Lines, l)
		}
	}
	return d
}

// Get is a setting, "" when it is not there.
func (d Dialogue) Get(key string) string {
	v, _ := d.Find(key)
	return v
}

// Find is a setting, and whether it is there.
func (d Dialogue) Find(key string) (value string, ok bool) {
	for _, s := range d.Head {
		if s[0] == key {
			value, ok = s[1], true
		}
	}
	return value, ok
}

// Set puts the settings into a way that all protocols know.
func (d Dialogue) Set(w *provider.Way) {
	if s := d.Get("sasl"); s != "" {
		w.Settings.SASL = strings.Fields(s)
	}
	if s := d.Get("template"); s != "" {
		w.Settings.Template = s
	}
}

// A Server plays the server's part of a dialogue.
type Server struct {
	Dialogue
	Addr  string   // that we think it is at
	Words []string // more that stands for something in a line, as strings.NewReplacer takes it

	// Accept waits for the next connection.
	Accept func() (net.Conn, error)

	// Own does what a line says that only this protocol has. May be nil.
	Own func(conn net.Conn, line string, words *strings.Replacer) (known bool, err error)

	// End hears what comes after the last line: not expected, but for the farewell.
	End func(conn net.Conn, r *bufio.Reader) error

	conn net.Conn
	r    *bufio.Reader
}

// Listen plays by TCP, until done is called. done says where we left the text.
func (s *Server) Listen(t *testing.T) (done func() error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Addr = l.Addr().String()
	s.Accept = func() (net.Conn, error) {
		c, err := l.Accept()
		if err == nil {
			c.SetDeadline(time.Now().Add(30 * time.Second))
		}
		return c, err
	}
	played := make(chan error, 1)
	go func() { played <- s.Play() }()
	return func() error {
		l.Close()
		return <-played
	}
}

// Play goes through the dialogue and says where we left the text.
func (s *Server) Play() error {
	words := strings.NewReplacer(append(s.usual(), s.Words...)...)
	if err := s.next(); err != nil {
		return err
	}
	defer func() { s.conn.Close() }()
	for i, line := range s.Lines {
		if err := s.line(line, words); err != nil {
			return fmt.Errorf("at %d, %q: %w", i+1, line, err)
		}
	}
	return s.End(s.conn, s.r)
}

func (s *Server) line(line string, words *strings.Replacer) error {
	if s.Own != nil {
		if known, err := s.Own(s.conn, line, words); known {
			return err
		}
	}
	switch {
	case line == "TLS":
		return s.secure()
	case line == "DROP":
		s.conn.Close()
		return nil
	case line == "NEXT":
		s.conn.Close()
		return s.next()
	case strings.HasPrefix(line, "S: "):
		_, err := io.WriteString(s.conn, words.Replace(line[3:])+"\r\n")
		return err
	case strings.HasPrefix(line, "C: "):
		got, err := s.r.ReadString('\n')
		if want := words.Replace(line[3:]) + "\r\n"; err == nil && got != want {
			err = fmt.Errorf("got %q, want %q", got, want)
		}
		return err
	}
	return errors.New("a line that says nothing")
}

// next waits for a connection, and for its handshake where TLS comes first.
func (s *Server) next() error {
	c, err := s.Accept()
	if err != nil {
		return err
	}
	s.conn, s.r = c, bufio.NewReader(c)
	if s.Get("security") == "tls" {
		return s.secure()
	}
	return nil
}

func (s *Server) secure() error {
	c := tls.Server(s.conn, ServerTLS())
	s.conn, s.r = c, bufio.NewReader(c)
	return c.Handshake()
}

// usual is what stands for something in every dialogue.
func (s *Server) usual() []string {
	host, port := HostPort(s.Addr)
	xoauth2 := func(token string) string { return "user=alex@contoso.example\x01auth=Bearer " + token + "\x01\x01" }
	bearer := func(token string) string { // RFC 7628
		return fmt.Sprintf("n,a=alex@contoso.example,\x01host=%s\x01port=%d\x01auth=Bearer %s\x01\x01", host, port, token)
	}
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	return []string{"{token}", b64(xoauth2("token")), "{fresh}", b64(xoauth2("fresh")), "{bearer}", b64(bearer("token")), "{bearer-fresh}", b64(bearer("fresh")),
		"{empty}", "", `\e`, "\x1b", `\0`, "\x00", `\n`, "\r\n", `\lf`, "\n"}
}

// Silent is a server that goes along until it hears word, and then says nothing.
// answer is what it says to a command, with its line end.
func Silent(t *testing.T, greeting, word string, answer func(verb string) string) (addr string, heard <-chan struct{}) {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", ServerTLS())
	if err != nil {
		t.Fatal(err)
	}
	ch, done := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		io.WriteString(c, greeting+"\r\n")
		for r := bufio.NewReader(c); ; {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			verb := strings.Fields(line + " ?")[0]
			if verb == word {
				close(ch)
				io.Copy(io.Discard, r)
				return
			}
			io.WriteString(c, answer(verb))
		}
	}()
	return l.Addr().String(), ch
}
