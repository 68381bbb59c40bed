package submission_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/diagnose"
	"github.com/mailgrant/mailgrant/internal/serve/submission"
)

// pair is a certificate for 127.0.0.1 and the roots that trust it.
var pair = sync.OnceValues(func() (tls.Certificate, *x509.CertPool) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC), // in bubbles too
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &k.PublicKey, k)
	if err != nil {
		panic(err)
	}
	leaf, _ := x509.ParseCertificate(der)
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k}, roots
})

func serverTLS() *tls.Config {
	cert, _ := pair()
	return &tls.Config{Certificates: []tls.Certificate{cert}}
}

func clientTLS() *tls.Config {
	_, roots := pair()
	return &tls.Config{ServerName: "127.0.0.1", RootCAs: roots}
}

// A dialogue is a file: settings, an empty line, and what is said to the door.
//
//	C: text     a line of ours. Lines that follow one another leave in one write
//	R: "raw"    bytes of ours as Go writes them, with nothing behind
//	S: text     the answer, the whole line
//	TLS         a handshake
//	LOGIN       greeting, EHLO and AUTH with the good key, whatever is answered
//	REVOKE      the key is revoked now
//	CLOSED      the door has closed the connection
//
// {b64:text} is text in base64, with Go's escapes; {long:100} are 100 letters.
// Settings: door (tls, starttls, insecure, notls), public (the PublicURL), any of
// submission.Limits, and, of what came of it: want (a message, as in show),
// refused (the codes the hook heard), logins (the user names that were tried).
type dialogue struct {
	set   map[string][]string
	lines []string
	paged bool              // refusals have a page that the file does not say
	heard func(line string) // each answer; may be nil
}

func readDialogue(t *testing.T, file string) dialogue {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, _ := strings.Cut(string(b), "\n\n")
	d := dialogue{set: map[string][]string{}}
	for l := range strings.SplitSeq(head, "\n") {
		if k, v, _ := strings.Cut(l, ":"); !strings.HasPrefix(l, "#") {
			d.set[k] = append(d.set[k], strings.TrimSpace(v))
		}
	}
	for l := range strings.SplitSeq(rest, "\n") {
		if l != "" && !strings.HasPrefix(l, "#") {
			d.lines = append(d.lines, l)
		}
	}
	return d
}

// one is a setting that stands there once at most.
func (d dialogue) one(name string) string { return strings.Join(d.set[name], " ") }

// limits are those the head of the file names.
func (d dialogue) limits(t *testing.T) (l submission.Limits) {
	v := reflect.ValueOf(&l).Elem()
	for name, values := range d.set {
		f := v.FieldByName(name)
		if !f.IsValid() {
			if !slices.Contains([]string{"door", "public", "want", "refused", "logins"}, name) {
				t.Errorf("there is no setting %q", name)
			}
			continue
		}
		if f.Type() == reflect.TypeFor[time.Duration]() {
			p, err := time.ParseDuration(values[0])
			if err != nil {
				t.Fatal(err)
			}
			f.SetInt(int64(p))
			continue
		}
		n, err := strconv.ParseInt(values[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		f.SetInt(n)
	}
	return l
}

var placeholder = regexp.MustCompile(`\{(b64|long):([^}]*)\}`)

func expand(t *testing.T, s string) string {
	return placeholder.ReplaceAllStringFunc(s, func(m string) string {
		p := placeholder.FindStringSubmatch(m)
		if p[1] == "long" {
			n, err := strconv.Atoi(p[2])
			if err != nil {
				t.Fatal(err)
			}
			return strings.Repeat("x", n)
		}
		text, err := strconv.Unquote(`"` + p[2] + `"`)
		if err != nil {
			t.Fatalf("%s: %v", m, err)
		}
		return base64.StdEncoding.EncodeToString([]byte(text))
	})
}

func TestDialogues(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no dialogues", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			readDialogue(t, file).play(t)
		})
	}
}

const publicURL = "https://mail.contoso.example"

// TestEveryRefusalHasItsPage plays all dialogues at a door that has a public
// address: each refusal is as it is without one, and says which page explains it.
func TestEveryRefusalHasItsPage(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no dialogues", err)
	}
	seen, mu := map[string]int{}, sync.Mutex{}
	t.Run("dialogues", func(t *testing.T) {
		for _, file := range files {
			d := readDialogue(t, file)
			if d.one("public") == "" {
				d.set["public"] = []string{publicURL}
				d.paged = true
			}
			d.heard = func(line string) {
				if line[0] != '4' && line[0] != '5' {
					return
				}
				text, page, ok := strings.Cut(line, ". "+publicURL+"/docs/errors/")
				if _, there := diagnose.Lookup(page); !ok || !there || len(text) < len("500 ") {
					t.Errorf("%s: %q says no page that is there", file, line)
				}
				if _, err := os.Stat("../../../docs/errors/" + page + ".md"); err != nil {
					t.Errorf("%s: %v", file, err)
				}
				mu.Lock()
				defer mu.Unlock()
				seen[page]++
			}
			t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
				t.Parallel()
				d.play(t)
			})
		}
	})
	if len(seen) < 15 || seen["refused-key"] == 0 || seen["refused-no-login"] == 0 || seen["refused-address"] == 0 {
		t.Errorf("the dialogues lead to %v only", seen)
	}
}

func (d dialogue) play(t *testing.T) {
	r := newRig(t, func(c *submission.Config) {
		c.Limits, c.PublicURL = d.limits(t), d.one("public")
		if d.one("door") == "notls" {
			c.TLS = nil
		}
	})
	security := map[string]submission.Security{"tls": submission.ImplicitTLS, "starttls": submission.StartTLS,
		"insecure": submission.Insecure, "notls": submission.Insecure}
	door, ok := security[d.one("door")]
	if !ok {
		t.Fatalf("there is no door %q", d.one("door"))
	}
	c := r.dial(t, r.listen(t, door), door == submission.ImplicitTLS)
	for i := 0; i < len(d.lines); i++ {
		// What we say in a row leaves in one write.
		var out strings.Builder
		for ; i < len(d.lines); i++ {
			if l, ok := strings.CutPrefix(d.lines[i], "C: "); ok {
				out.WriteString(expand(t, l) + "\r\n")
			} else if l, ok := strings.CutPrefix(d.lines[i], "R: "); ok {
				raw, err := strconv.Unquote(expand(t, l))
				if err != nil {
					t.Fatalf("%s: %v", l, err)
				}
				out.WriteString(raw)
			} else {
				break
			}
		}
		if out.Len() > 0 {
			c.write(t, out.String())
		}
		if i == len(d.lines) {
			break
		}
		switch line := d.lines[i]; {
		case line == "TLS":
			c.secure(t)
		case line == "LOGIN":
			c.login(t)
		case line == "REVOKE":
			r.access.revoke()
		case line == "CLOSED":
			c.closed(t)
		case strings.HasPrefix(line, "S: "):
			got, want := c.line(t), expand(t, line[3:])
			if d.heard != nil {
				d.heard(got)
			}
			if d.paged {
				got, _, _ = strings.Cut(got, ". "+publicURL+"/docs/errors/")
			}
			if got != want {
				t.Fatalf("at line %d of what is said\ngot  %s\nwant %s", i+1, got, want)
			}
		default:
			t.Fatalf("a line that says nothing: %q", line)
		}
	}
	c.nc.Close()
	r.stop(t)
	var got []string
	for _, m := range r.outbox.messages() {
		got = append(got, show(m))
	}
	if !slices.Equal(got, d.set["want"]) {
		t.Errorf("messages\ngot  %s\nwant %s", strings.Join(got, "\n     "), strings.Join(d.set["want"], "\n     "))
	}
	if want, ok := d.set["refused"]; ok && strings.Join(r.refusedCodes(), " ") != want[0] {
		t.Errorf("refused: got %q, want %q", r.refusedCodes(), want[0])
	}
	if want, ok := d.set["logins"]; ok && strings.Join(r.access.tried(), " ") != want[0] {
		t.Errorf("logins: got %q, want %q", r.access.tried(), want[0])
	}
}

// show is a message in one line.
func show(m message) string {
	out := fmt.Sprintf("<%s> to %s", m.env.From, strings.Join(m.env.Recipients, " "))
	if m.env.UTF8 {
		out += " utf8"
	}
	if m.env.Named != "" {
		out += " through " + string(m.env.Named)
	}
	if m.env.Class != mailgrant.ClassUser {
		out += " class " + string(m.env.Class)
	}
	return out + " " + strconv.QuoteToASCII(m.body)
}

// A rig is a door with fakes behind it.
type rig struct {
	*submission.Server
	access  *fakeAccess
	outbox  *fakeOutbox
	mu      sync.Mutex
	refused []string
	serving []chan error
	once    sync.Once
}

func newRig(t *testing.T, change func(c *submission.Config)) *rig {
	r := &rig{access: newFakeAccess(), outbox: &fakeOutbox{}}
	c := submission.Config{Access: r.access, Outbox: r.outbox, TLS: serverTLS(), Host: "mail.contoso.example",
		Hooks: submission.Hooks{Refused: func(code mailgrant.Code) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.refused = append(r.refused, string(code))
		}}}
	if change != nil {
		change(&c)
	}
	r.Server = submission.New(c)
	t.Cleanup(func() { r.stop(t) })
	return r
}

func (r *rig) refusedCodes() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.refused)
}

// listen opens a door on the loopback.
func (r *rig) listen(t *testing.T, security submission.Security) net.Addr {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.serve(l, security)
	return l.Addr()
}

func (r *rig) serve(l net.Listener, security submission.Security) {
	done := make(chan error, 1)
	r.serving = append(r.serving, done)
	go func() { done <- r.Serve(l, security) }()
}

// stop ends the door; no draft may be left behind.
func (r *rig) stop(t *testing.T) {
	r.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := r.Shutdown(ctx); err != nil {
			t.Error("shutdown:", err)
		}
		for _, done := range r.serving {
			if err := <-done; err != nil {
				t.Error("serve:", err)
			}
		}
		if n := r.outbox.left(); n != 0 {
			t.Errorf("%d drafts are left behind", n)
		}
	})
}

// A client says and hears lines.
type client struct {
	nc net.Conn
	rd *bufio.Reader
}

func (r *rig) dial(t *testing.T, addr net.Addr, secure bool) *client {
	t.Helper()
	nc, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(20 * time.Second))
	c := &client{nc, bufio.NewReader(nc)}
	if secure {
		c.secure(t)
	}
	return c
}

func (c *client) secure(t *testing.T) {
	t.Helper()
	tc := tls.Client(c.nc, clientTLS())
	if err := tc.Handshake(); err != nil {
		t.Fatal("handshake:", err)
	}
	c.nc, c.rd = tc, bufio.NewReader(tc)
}

func (c *client) write(t *testing.T, s string) {
	t.Helper()
	if _, err := io.WriteString(c.nc, s); err != nil {
		t.Fatalf("writing %.60q: %v", s, err)
	}
}

// line is the next line of an answer, without its CRLF. No line is longer than
// the standard allows.
func (c *client) line(t *testing.T) string {
	t.Helper()
	l, err := c.rd.ReadString('\n')
	if err != nil {
		t.Fatalf("reading: %v, after %q", err, l)
	}
	text, ok := strings.CutSuffix(l, "\r\n")
	if !ok || len(l) > 512 || strings.ContainsAny(text, "\r\x00\x1b") {
		t.Fatalf("not a line of an answer: %q", l)
	}
	return text
}

// says sends a line, and wants an answer that begins like that.
func (c *client) says(t *testing.T, line, want string) {
	t.Helper()
	c.write(t, line+"\r\n")
	c.wants(t, want)
}

// wants looks at the last line of the next answer.
func (c *client) wants(t *testing.T, want string) {
	t.Helper()
	for {
		if l := c.line(t); len(l) < 4 || l[3] == ' ' {
			if !strings.HasPrefix(l, want) {
				t.Fatalf("got %q, want %q", l, want)
			}
			return
		}
	}
}

func (c *client) closed(t *testing.T) {
	t.Helper()
	if rest, err := io.ReadAll(c.rd); len(rest) > 0 || err != nil {
		t.Fatalf("not closed: got %q, %v", rest, err)
	}
}

// goodKey is the answer of AUTH PLAIN for the app the fake knows.
var goodKey = base64.StdEncoding.EncodeToString([]byte("\x00app\x00mg_good"))

// login goes from the greeting to a session that may send.
func (c *client) login(t *testing.T) {
	t.Helper()
	c.wants(t, "220 ")
	c.says(t, "EHLO pc.contoso.example", "250 ")
	c.says(t, "AUTH PLAIN "+goodKey, "235 ")
}
