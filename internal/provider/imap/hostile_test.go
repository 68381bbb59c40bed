package imap

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/wire"
	"github.com/mailgrant/mailgrant/internal/provider/wire/wiretest"
)

// answers plays a server that does right, but for the answer to one command.
func answers(conn net.Conn, verb string, attack func(w io.Writer, tag string)) {
	c := tls.Server(conn, wiretest.ServerTLS())
	defer conn.Close()
	if verb == "" {
		attack(c, "*")
		io.Copy(io.Discard, c)
		return
	}
	io.WriteString(c, "* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=XOAUTH2] ready\r\n")
	for r := bufio.NewReader(c); ; {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		tag, command, _ := strings.Cut(strings.TrimSpace(line), " ")
		if command == "" {
			continue
		}
		if strings.HasPrefix(command, verb) {
			attack(c, tag)
			continue
		}
		said := map[string]string{"LIST": "* LIST () \"/\" INBOX\r\n", "SELECT": "* 2 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n* OK [UIDNEXT 3] x\r\n", "UID SEARCH": "* SEARCH 1 2\r\n",
			"UID FETCH 1:2 (UID I": "* 1 FETCH (UID 1 RFC822.SIZE 3)\r\n* 2 FETCH (UID 2 RFC822.SIZE 3)\r\n", "UID FETCH 1:2 (UID B": "* 1 FETCH (UID 1 BODY[] {3}\r\nabc)\r\n* 2 FETCH (UID 2 BODY[] {3}\r\nabc)\r\n",
			"UID FETCH 2 (UID B": "* 2 FETCH (UID 2 BODY[] {3}\r\nabc)\r\n"}
		for v, s := range said {
			if strings.HasPrefix(command, v) {
				io.WriteString(c, s)
			}
		}
		if strings.HasPrefix(command, "AUTHENTICATE") {
			tag += " OK [CAPABILITY IMAP4rev1 IDLE] in"
		} else {
			tag += " OK done"
		}
		if _, err := io.WriteString(c, tag+"\r\n"); err != nil {
			return
		}
	}
}

// forever writes s until nobody reads any more.
func forever(first, s string) func(io.Writer, string) {
	return func(w io.Writer, _ string) {
		go io.Copy(io.Discard, w.(*tls.Conn)) // nor does it listen
		io.WriteString(w, first)
		block := strings.Repeat(s, 1+(16<<10)/len(s))
		for n := 0; n < 200<<20; n += len(block) {
			if _, err := io.WriteString(w, block); err != nil {
				return
			}
		}
	}
}

func once(s string) func(io.Writer, string) {
	return func(w io.Writer, tag string) { io.WriteString(w, s+tag+" OK done\r\n") }
}

var attacks = []struct {
	name, verb string
	attack     func(io.Writer, string)
	fine       bool // there is nothing wrong with it, or nothing that matters
}{
	{"endless greeting", "", forever("* OK ", "x"), false},
	{"endless line", "LIST", forever("* LIST ", "x"), false},
	{"endless tag", "LIST", forever("", "A"), false},
	{"endless untagged lines", "LIST", forever("", "* OK still here\r\n"), false},
	{"endless capabilities", "LIST", forever("* CAPABILITY", " AUTH=XOAUTH2"), false},
	{"a million folders", "LIST", forever("", "* LIST () \"/\" \"folder\"\r\n"), false},
	{"literal of 10 GB", "LIST", forever("* LIST () \"/\" {10737418240}\r\n", "x"), false},
	{"literal of no number", "LIST", once("* LIST () \"/\" {99999999999999999999}\r\n"), false},
	{"literal below nothing", "LIST", once("* LIST () \"/\" {-1}\r\n"), false},
	{"endless literals", "LIST", forever("* LIST () \"/\"", " {5}\r\nabcde"), false},
	{"literal that ends", "LIST", func(w io.Writer, _ string) { io.WriteString(w, "* LIST () \"/\" {50}\r\nabc"); w.(*tls.Conn).Close() }, false},
	{"endless quoted", "LIST", forever("* LIST () \"/\" \"", "x"), false},
	{"quoted without end", "LIST", once("* LIST () \"/\" \"abc\\\r\n"), false},
	{"NULs", "LIST", once("* LIST (\x00) \"\x00\" \"a\x00b\"\r\n* OK \x00\x1b[31m\r\n"), true},
	{"nothing", "LIST", forever("", "\r\n"), false},
	{"another's end", "LIST", once("A999 OK done\r\n"), false},
	{"go on", "LIST", once("+ go on\r\n"), false},
	{"endless go on", "AUTHENTICATE", forever("", "+ eyJ9\r\n"), false},
	{"numbers below nothing", "SELECT", once("* -1 EXISTS\r\n"), true},
	{"huge numbers", "SELECT", once("* 99999999999999999999 EXISTS\r\n"), false},
	{"UIDNEXT of no number", "SELECT", once("* 2 EXISTS\r\n* OK [UIDNEXT -5] x\r\n* OK [UIDVALIDITY 99999999999999] x\r\n"), true},
	{"endless code", "SELECT", forever("* OK [UIDVALIDITY ", "9"), false},
	{"numbers below nothing, found", "UID SEARCH", once("* SEARCH -1\r\n"), false},
	{"zero, found", "UID SEARCH", once("* SEARCH 0\r\n"), false},
	{"a million found", "UID SEARCH", forever("* SEARCH", " 1"), false},
	{"a million found in many lines", "UID SEARCH", forever("", "* SEARCH 1 2 3 4 5 6 7 8 9\r\n"), false},
	{"10k deep", "UID FETCH 1:2 (UID I", once("* 1 FETCH (UID 1 ENVELOPE " + strings.Repeat("(", 10_000) + strings.Repeat(")", 10_000) + ")\r\n"), false},
	{"64 deep", "UID FETCH 1:2 (UID I", once("* 1 FETCH (UID 1 ENVELOPE " + strings.Repeat("(", 64) + "NIL" + strings.Repeat(")", 64) + " RFC822.SIZE 3)\r\n* 2 FETCH (UID 2 RFC822.SIZE 3)\r\n"), true},
	{"endless depth", "UID FETCH 1:2 (UID I", forever("* 1 FETCH (UID 1 ENVELOPE ", "("), false},
	{"endless fetch", "UID FETCH 1:2 (UID I", forever("", "* 1 FETCH (UID 9 FLAGS (\\Seen))\r\n"), false},
	{"unclosed", "UID FETCH 1:2 (UID I", once("* 1 FETCH (UID 1 FLAGS (\\Seen\r\n"), false},
	{"unasked body of 10 GB", "UID FETCH 1:2 (UID I", forever("* 1 FETCH (UID 1 BODY[] {10737418240}\r\n", "x"), false},
	{"body of 10 GB of another", "UID FETCH 1:2 (UID B", forever("* 1 FETCH (UID 5 BODY[] {10737418240}\r\n", "x"), false},
	{"endless bodies of another", "UID FETCH 1:2 (UID B", forever("", "* 1 FETCH (UID 5 BODY[] {5}\r\nabcde)\r\n"), false},
	{"body within a body", "UID FETCH 1:2 (UID B", once("* 1 FETCH (UID 1 BODY[] {3}\r\nabc BODY[] {3}\r\nabc)\r\n"), true},
	{"endless line behind a body", "UID FETCH 1:2 (UID B", forever("* 1 FETCH (UID 1 BODY[] {3}\r\nabc", " FLAGS"), false},
	{"body of no number", "UID FETCH 1:2 (UID B", once("* 1 FETCH (UID 1 BODY[] {-3}\r\nabc)\r\n"), false},
	{"quoted body without end", "UID FETCH 1:2 (UID B", once("* 1 FETCH (UID 1 BODY[] \"abc\r\n"), false},
}

// IM-06: whatever a server sends, the session ends, nothing panics, and little
// is read.
func TestIM06HostileServers(t *testing.T) {
	wiretest.Pair()
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			w := wayTo("imap.example:993", "tls")
			conns := connections(&w)
			done := make(chan struct{})
			go func() {
				defer close(done)
				for range 2 {
					select {
					case conn := <-conns:
						answers(conn, a.verb, a.attack)
					case <-t.Context().Done():
						return
					}
				}
			}()
			var read atomic.Int64
			dial := w.Dial
			w.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
				c, err := dial(ctx, network, addr)
				return counting{c, &read}, err
			}
			err := readAll(t, w)
			if (err == nil) != a.fine {
				t.Errorf("got %v", err)
			}
			if err != nil {
				e := mailgrant.AsError(err)
				if e.Finding == nil || len(e.Message)+len(e.Finding.Raw)+len(e.Finding.Sentence) > 4000 {
					t.Errorf("got %q without a finding that can be shown", err)
				}
			}
			if n := read.Load() >> 20; n >= 16 {
				t.Errorf("%d MiB were read, want less than 16", n)
			}
		})
	}
}

// counting counts what is read: what was not read takes no memory.
type counting struct {
	net.Conn
	n *atomic.Int64
}

func (c counting) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// readAll opens the mailbox and takes what is there.
func readAll(t *testing.T, w provider.Way) error {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	box, err := Reader(config()).Open(ctx, w, provider.Reading{Max: 1 << 20})
	if err != nil {
		return err
	}
	defer box.Close()
	for cursor, more := provider.Cursor(""), true; more && err == nil; {
		cursor, more, err = box.Next(ctx, cursor, func(in provider.Incoming) error {
			if in.Err != nil || in.Body == nil {
				return nil
			}
			_, err := io.Copy(io.Discard, in.Body)
			return err
		})
	}
	return err
}

// Answers mean the same in whatever pieces they come.
func TestAnswersInAllPieces(t *testing.T) {
	said := "* OK [CODE x] text {5}\r\n* LIST (\\a) \"/\" {3}\r\na}b\r\n* LIST () NIL {3+}\r\n{3}\r\n* 1 FETCH (UID 7 FLAGS (\\Seen) BODY[] {13}\r\n{3}\r\nabc)\r\n\r\n X (\"a\\\"b\" {1}\r\n) y))\r\nA1 OK done\r\n"
	read := func(r io.Reader) string {
		l := &link{conn: wire.NewConn(readOnly{r: r}), left: floodMax, bodies: true, patience: time.Minute}
		defer l.idle()
		var out strings.Builder
		for {
			r, err := l.read()
			if err != nil {
				fmt.Fprintf(&out, "%v", err)
				return out.String()
			}
			fmt.Fprintf(&out, "%q %s %d %q %q %q %q\n", r.tag, r.kind, r.num, r.code, r.args, r.text, r.rest)
			if l.body != nil {
				b, err := io.ReadAll(l.body)
				fmt.Fprintf(&out, "%q %v\n", b, err)
			}
		}
	}
	want := `"" OK 0 "CODE" "x" "text {5}" ""
"" LIST 0 "" "" "" "(\\a) \"/\" {3}\na}b"
"" LIST 0 "" "" "" "() NIL {3+}\n{3}"
"" FETCH 1 "" "" "" "(UID 7 FLAGS (\\Seen) BODY[] {13}"
"{3}\r\nabc)\r\n\r\n" <nil>
"A1" OK 0 "" "" "done" ""
EOF`
	for _, r := range []io.Reader{strings.NewReader(said), iotest.OneByteReader(strings.NewReader(said)), iotest.HalfReader(strings.NewReader(said)), iotest.DataErrReader(strings.NewReader(said))} {
		if got := read(r); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
	for range 200 { // at every place
		cut := rand.IntN(len(said))
		if got := read(io.MultiReader(strings.NewReader(said[:cut]), strings.NewReader(said[cut:]))); got != want {
			t.Errorf("cut at %d: got\n%s", cut, got)
		}
	}
}

// readOnly is a connection that only says what it has.
type readOnly struct {
	net.Conn
	r io.Reader
}

func (c readOnly) Read(p []byte) (int, error)      { return c.r.Read(p) }
func (c readOnly) SetReadDeadline(time.Time) error { return nil }
func (c readOnly) SetDeadline(time.Time) error     { return nil }

// FuzzAnswers reads what a server may send, as all that knows how to.
func FuzzAnswers(f *testing.F) {
	for _, s := range []string{
		"* OK [CAPABILITY IMAP4rev1 AUTH=XOAUTH2] ready\r\n", "* LIST (\\HasNoChildren \\Sent) \"/\" {3}\r\nabc\r\n", "* LIST () NIL &AMQ-\r\n",
		"* 1 FETCH (UID 7 INTERNALDATE \"17-Jul-1996 02:44:25 -0700\" RFC822.SIZE 4 BODY[] {4}\r\nabcd FLAGS (\\Seen))\r\n", "* 1 FETCH (BODY[HEADER.FIELDS (X)]<0> \"a\" ENVELOPE ((NIL)))\r\n",
		"* SEARCH 1 2 3 (MODSEQ 9)\r\n", "* STATUS \"a(b\" (MESSAGES 1 UIDNEXT 2 UIDVALIDITY 3)\r\n", "* NAMESPACE ((\"\" \"/\")) NIL NIL\r\n", "+ eyJ9\r\nA1 NO [X] y\r\n", "* BYE\r\n", "* 5 EXISTS\r\n* 5 EXPUNGE\r\n",
		"* 1 FETCH (BODY[] \"x\\\"\")\r\n", "* 1 FETCH (BODY[] NIL)\r\n", "* OK [COPYUID 1  ] x\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s := &session{c: Config{}.ready(), chosen: &tracked{}}
		s.Conn = wire.NewConn(readOnly{r: strings.NewReader(string(b))})
		s.link = link{conn: s.Conn, left: 1 << 20, bodies: true, patience: time.Minute}
		l := &s.link
		defer l.idle()
		for {
			r, err := s.next()
			if err != nil {
				return
			}
			if said := r.said(); len(said) > 500 || strings.ContainsAny(said, "\r\n\x00\x1b") {
				t.Errorf("not fit to be kept: %q", said)
			}
			readCaps(string(r.rest))
			readNamespace(r.rest, "/")
			readStatus(r.rest)
			if list, err := readSearch(nil, r.rest); err == nil {
				for _, uid := range list {
					if uid == 0 {
						t.Error("a UID of nothing")
					}
				}
			}
			if k, err := readList(r.rest); err == nil {
				if f, ok := k.folder(); ok && strings.ContainsAny(quote(f.wire), "\r\n\x00") {
					t.Errorf("%q breaks a command", f.wire)
				}
			}
			f, err := readFetch(r.rest)
			if err == nil && f.here && l.body == nil {
				t.Errorf("%q: a body that is nowhere", r.rest)
			}
			if body := l.body; body != nil {
				if n, err := io.Copy(io.Discard, body); err == nil && n != body.n {
					t.Errorf("%d bytes of %d are taken for the whole", n, body.n)
				}
			}
		}
	})
}
