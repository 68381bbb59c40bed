package node_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
	"github.com/mailgrant/mailgrant/internal/config"
	"github.com/mailgrant/mailgrant/internal/node"
	"github.com/mailgrant/mailgrant/internal/store"
	"github.com/mailgrant/mailgrant/internal/vault"
)

func TestMain(m *testing.M) {
	if os.Getenv(lifeConfig) != "" {
		if err := life(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m, // but for the PostgreSQL that all tests share
		goleak.IgnoreAnyFunction("github.com/mailgrant/mailgrant/test/real.(*PostgresServer).Start.func1"), goleak.IgnoreAnyFunction("os/exec.(*Cmd).Start.func2"))
}

var quiet = slog.New(slog.DiscardHandler)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// settings are those of a node of its own, on ports that are free.
func settings(t testing.TB) config.Config {
	c := config.Default()
	c.Dir = filepath.Join(t.TempDir(), "data")
	c.Hostname = "gate.contoso.example"
	c.Listen = []string{"http+insecure://127.0.0.1:0", "https://127.0.0.1:0", "submissions://127.0.0.1:0", "submission+insecure://127.0.0.1:0"}
	return c
}

func open(t testing.TB, c config.Config) *node.Node {
	t.Helper()
	n, err := node.Open(t.Context(), c, node.Options{Log: quiet})
	must(t, err)
	t.Cleanup(n.Close)
	return n
}

// run serves until stop is called, which gives what Run came to.
func run(t testing.TB, n *node.Node) (stop func() error) {
	ctx, end := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	stop = sync.OnceValue(func() error { end(); return <-ended })
	t.Cleanup(func() { stop() })
	return stop
}

// local is the operator's client. Its connections end with the test.
func local(t testing.TB, c config.Config) *client.Client {
	api := client.Local(c.Socket())
	t.Cleanup(api.HTTP.CloseIdleConnections)
	return api
}

// addr is where a door is really open.
func addr(t testing.TB, n *node.Node, scheme string) string {
	t.Helper()
	for _, d := range n.Doors() {
		if rest, ok := strings.CutPrefix(d.URI, scheme+"://"); ok {
			return rest
		}
	}
	t.Fatalf("no door %s in %v", scheme, n.Doors())
	return ""
}

func TestDoorsAreListedAsTheyAreOpen(t *testing.T) {
	c := settings(t)
	n := open(t, c)
	stop := run(t, n)
	var schemes []string
	for _, d := range n.Doors() {
		scheme, at, _ := strings.Cut(d.URI, "://")
		schemes = append(schemes, scheme)
		network := "tcp"
		if scheme == "unix" {
			network = "unix"
		} else if strings.HasSuffix(at, ":0") {
			t.Errorf("%s has no real port", d.URI)
		}
		conn, err := net.Dial(network, at)
		must(t, err)
		conn.Close()
		if secure := scheme == "https" || scheme == "submissions"; secure != (d.Fingerprint != "") {
			t.Errorf("%s: fingerprint %q", d.URI, d.Fingerprint)
		}
	}
	if want := []string{"http+insecure", "https", "submissions", "submission+insecure", "unix"}; !slices.Equal(schemes, want) {
		t.Errorf("doors %v, want %v", schemes, want)
	}
	h, err := local(t, c).Health(t.Context())
	must(t, err)
	if !h.OK || len(h.Doors) != 5 || h.Node != n.ID() {
		t.Errorf("health: %+v", h)
	}
	must(t, stop())
	for _, d := range n.Doors() {
		_, at, _ := strings.Cut(d.URI, "://")
		if conn, err := net.Dial("tcp", at); err == nil {
			conn.Close()
			t.Errorf("%s is open after the end", d.URI)
		}
	}
	n.Close() // again does nothing
}

// What is served begins with Run: before it, a connection waits.
func TestNobodyIsServedBeforeRun(t *testing.T) {
	c := settings(t)
	n := open(t, c)
	conn, err := net.Dial("tcp", addr(t, n, "submission+insecure"))
	must(t, err)
	defer conn.Close()
	must(t, conn.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("before Run: %v", err)
	}
	run(t, n)
	must(t, conn.SetReadDeadline(time.Now().Add(20*time.Second)))
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.HasPrefix(line, "220 ") {
		t.Errorf("after Run: %q, %v", line, err)
	}
}

// The operator's door is its owner's alone, and a socket that a dead process left
// is no hindrance; one that is in use is.
func TestOperatorsSocket(t *testing.T) {
	c := settings(t)
	must(t, os.MkdirAll(c.Dir, 0o700))
	l, err := net.Listen("unix", c.Socket())
	must(t, err)
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close() // as after a kill
	n := open(t, c)
	fi, err := os.Stat(c.Socket())
	must(t, err)
	if fi.Mode().Perm() != 0o600 || fi.Mode()&os.ModeSocket == 0 {
		t.Errorf("the socket is %v", fi.Mode())
	}
	left, err := filepath.Glob(filepath.Join(c.Dir, ".s*"))
	must(t, err)
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	other := c
	other.Database = filepath.Join(t.TempDir(), "other.db") // else the database refuses first
	_, err = node.Open(t.Context(), other, node.Options{Log: quiet})
	if !errors.Is(err, mailgrant.Conflict) || mailgrant.AsError(err).Remedy == "" {
		t.Errorf("a second one in the same directory: %v", err)
	}
	stop := run(t, n)
	if _, err := local(t, c).Organizations(t.Context()); err != nil {
		t.Errorf("the first one after the second was refused: %v", err)
	}
	must(t, stop())
}

// A start that fails lets go of everything: the next one works.
func TestPortInUseLeavesNothingOpen(t *testing.T) {
	c := settings(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	first := free.Addr().String()
	free.Close()
	c.Listen = []string{"http+insecure://" + first, "submissions://127.0.0.1:0", "http+insecure://" + taken.Addr().String()}
	n, err := node.Open(t.Context(), c, node.Options{Log: quiet})
	if !errors.Is(err, mailgrant.Misset) || mailgrant.AsError(err).Remedy == "" || n != nil {
		t.Fatalf("%v, %v", n, err)
	}
	if conn, err := net.Dial("tcp", first); err == nil {
		conn.Close()
		t.Error("the door before it is still open")
	}
	if _, err := os.Stat(c.Socket()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket: %v", err)
	}
	taken.Close()
	n = open(t, c)
	must(t, run(t, n)())
}

// An end does not wait for those who only listen: streams of events and sessions
// of mail that say nothing.
func TestStopWithOpenStreamsAndSessions(t *testing.T) {
	c := settings(t)
	n := open(t, c)
	stop := run(t, n)
	api := local(t, c)
	name := "watcher"
	_, err := api.CreateApp(t.Context(), client.AppSettings{Name: &name})
	must(t, err)
	key, err := api.IssueKey(t.Context(), name, client.NewKey{Scopes: []mailgrant.Scope{mailgrant.ScopeRead}})
	must(t, err)
	var ended sync.WaitGroup
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	for range 3 {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr(t, n, "http+insecure")+"/v1/events", nil)
		must(t, err)
		r.Header.Set("Authorization", "Bearer "+key.Secret)
		r.Header.Set("Accept", "text/event-stream")
		res, err := transport.RoundTrip(r)
		must(t, err)
		if res.StatusCode != http.StatusOK {
			t.Fatalf("a stream: %s", res.Status)
		}
		ended.Go(func() {
			defer res.Body.Close()
			io.Copy(io.Discard, res.Body)
		})
	}
	for range 3 {
		conn, err := net.Dial("tcp", addr(t, n, "submission+insecure"))
		must(t, err)
		in := bufio.NewReader(conn)
		if line, err := in.ReadString('\n'); err != nil || !strings.HasPrefix(line, "220 ") {
			t.Fatalf("a session: %q, %v", line, err)
		}
		ended.Go(func() {
			defer conn.Close()
			io.Copy(io.Discard, in)
		})
	}
	idle, err := net.Dial("tcp", addr(t, n, "https")) // never shakes hands
	must(t, err)
	defer idle.Close()
	began := time.Now()
	must(t, stop())
	if d := time.Since(began); d > 15*time.Second {
		t.Errorf("the end took %v", d)
	}
	ended.Wait()
}

// A process that ends does not promise to go on by itself.
func TestWhatKeepsItFromStartingIsTold(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, closed.Close())
	c := settings(t)
	c.Database = "postgres://mailgrant@" + closed.Addr().String() + "/mailgrant?sslmode=disable"
	_, err = node.Open(t.Context(), c, node.Options{Log: quiet})
	if want := "look at the server and the way to it; then start again"; !errors.Is(err, mailgrant.Unavailable) || mailgrant.AsError(err).Remedy != want {
		t.Errorf("no PostgreSQL: %v; %q", err, mailgrant.AsError(err).Remedy)
	}
	full := mailgrant.Errorf(mailgrant.NoSpace, nil, "the disk of the database is full").Fix("make room on it; mailgrant goes on by itself")
	if got := mailgrant.AsError(node.Ended(fmt.Errorf("outbox: %w", full))); got.Remedy != "make room on it; then start again" || !errors.Is(got, full) || full.Remedy == got.Remedy {
		t.Errorf("a full disk: %v; %q", got, got.Remedy)
	}
	for _, err := range []error{nil, mailgrant.Errorf(mailgrant.Misset, nil, "x").Fix("y"), errors.New("x")} {
		if got := node.Ended(err); got != err {
			t.Errorf("%v became %v", err, got)
		}
	}
}

// All doors close at once: while a client of one has something under way, no other
// takes anything new.
func TestDoorsCloseTogether(t *testing.T) {
	c := settings(t)
	n := open(t, c)
	stop := run(t, n)
	busy, err := net.Dial("unix", c.Socket())
	must(t, err)
	defer busy.Close()
	in := bufio.NewReader(busy)
	_, err = io.WriteString(busy, "POST /v1/organizations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
	must(t, err)
	if line, err := in.ReadString('\n'); err != nil || !strings.Contains(line, "100") { // its handler waits for the body
		t.Fatalf("got %q, %v", line, err)
	}
	_, err = in.ReadString('\n')
	must(t, err)
	ended := make(chan error, 1)
	go func() { ended <- stop() }()
	for _, scheme := range []string{"http+insecure", "https", "submission+insecure", "submissions"} {
		for at := addr(t, n, scheme); ; {
			conn, err := net.Dial("tcp", at)
			if err != nil {
				break
			}
			conn.Close()
			select {
			case err := <-ended:
				t.Fatalf("%s was open until the end: %v", scheme, err)
			default:
			}
		}
	}
	_, err = io.WriteString(busy, "{}")
	must(t, err)
	if res, err := http.ReadResponse(in, nil); err != nil || res.StatusCode != http.StatusUnprocessableEntity {
		t.Errorf("what was under way: %v, %v", res, err)
	}
	must(t, <-ended)
}

// A pipeListener has the connections it is given.
type pipeListener struct{ conns chan net.Conn }

func (l pipeListener) Accept() (net.Conn, error) {
	if c, ok := <-l.conns; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (l pipeListener) Close() error   { return nil }
func (l pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// Who does not hear an answer is let go; who does may take as long as it takes.
func TestWB07_WhoDoesNotHearIsLetGo(t *testing.T) {
	serve := func(t *testing.T, h http.HandlerFunc, use func(client net.Conn)) {
		near, far := net.Pipe()
		l := pipeListener{make(chan net.Conn, 1)}
		l.conns <- far
		s := &http.Server{Handler: h}
		ended := make(chan struct{})
		go func() { s.Serve(node.Hearing(l)); close(ended) }()
		_, err := io.WriteString(near, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		must(t, err)
		use(near)
		near.Close()
		close(l.conns)
		s.Close()
		<-ended
	}
	synctest.Test(t, func(t *testing.T) {
		began, over := time.Now(), make(chan error, 1)
		serve(t, func(w http.ResponseWriter, _ *http.Request) {
			_, err := w.Write(make([]byte, 1<<20))
			over <- err
		}, func(net.Conn) {
			if err := <-over; err == nil || time.Since(began) > 5*time.Minute {
				t.Errorf("after %v: %v", time.Since(began), err)
			}
		})
	})
	synctest.Test(t, func(t *testing.T) { // a handler's own bound holds too
		began, over := time.Now(), make(chan error, 1)
		serve(t, func(w http.ResponseWriter, _ *http.Request) {
			must(t, http.NewResponseController(w).SetWriteDeadline(time.Now().Add(3*time.Second)))
			_, err := w.Write(make([]byte, 1<<20))
			over <- err
		}, func(net.Conn) {
			if err := <-over; err == nil || time.Since(began) > 4*time.Second {
				t.Errorf("after %v: %v", time.Since(began), err)
			}
		})
	})
	synctest.Test(t, func(t *testing.T) { // a stream that somebody listens to
		serve(t, func(w http.ResponseWriter, _ *http.Request) {
			for range 60 {
				io.WriteString(w, "data: x\n\n")
				if err := http.NewResponseController(w).Flush(); err != nil {
					t.Error(err)
				}
				time.Sleep(time.Minute)
			}
		}, func(client net.Conn) {
			res, err := http.ReadResponse(bufio.NewReader(client), nil)
			must(t, err)
			if b, err := io.ReadAll(res.Body); err != nil || len(b) != 60*len("data: x\n\n") {
				t.Errorf("%d bytes, %v", len(b), err)
			}
		})
	})
}

// A part that fails ends the whole, and the others with it.
func TestDoorThatFailsEndsTheNode(t *testing.T) {
	c := settings(t)
	n := open(t, c)
	must(t, n.Store.Close()) // nothing works any more
	if err := n.Run(t.Context()); err == nil {
		t.Error("it runs without a database, and says nothing of it")
	}
}

// sealed fills each column that holds seals, and gives what is in them.
func sealed(t *testing.T, n *node.Node) (plain map[string]string) {
	ctx := t.Context()
	orgs, err := n.Store.Organizations(ctx)
	must(t, err)
	org := orgs[0].ID
	seal := func(table, column string, row mailgrant.ID, chunk int64, text string) []byte {
		b, err := n.Vault.Seal(vault.Place{Org: org, Table: table, Column: column, Row: row, N: chunk}, []byte(text))
		must(t, err)
		return b
	}
	now := time.Now().UTC()
	reg := mailgrant.Registration{ID: mailgrant.NewID(mailgrant.PrefixRegistration), Org: org, Name: "Contoso Mail", Template: "microsoft365"}
	must(t, n.Store.CreateRegistration(ctx, reg))
	cred := mailgrant.Credential{ID: mailgrant.NewID(mailgrant.PrefixCredential), Org: org, Registration: reg.ID, Kind: mailgrant.CredentialSecret}
	cred.Sealed = seal("credentials", "secret", cred.ID, 0, "the secret")
	must(t, n.Store.CreateCredential(ctx, cred))
	g := mailgrant.Grant{ID: mailgrant.NewID(mailgrant.PrefixGrant), Org: org, Registration: reg.ID, Mailbox: "office@contoso.example", State: mailgrant.GrantPending}
	must(t, n.Store.CreateGrant(ctx, g))
	g.Sealed = seal("grants", "refresh_token", g.ID, 0, "the token before")
	must(t, n.Store.CompleteConsent(ctx, g))
	held, ok, err := n.Store.LeaseGrant(ctx, org, g.ID, n.ID(), time.Minute)
	if err != nil || !ok {
		t.Fatalf("no lease: %v, %v", ok, err)
	}
	must(t, n.Store.RenewGrant(ctx, store.Renewal{Grant: g.ID, Org: org, Node: n.ID(), Generation: held.Generation, At: now,
		Sealed: seal("grants", "refresh_token", g.ID, 0, "the token")}))
	flow := store.Flow{ID: mailgrant.NewID(mailgrant.PrefixFlow), Org: org, StateHash: []byte("state"), ExpiresAt: now.Add(time.Hour)}
	flow.Sealed = seal("flows", "data", flow.ID, 0, "the flow")
	must(t, n.Store.CreateFlow(ctx, flow))
	body := mailgrant.NewID(mailgrant.PrefixSubmission)
	must(t, n.Store.PutChunk(ctx, org, body, 1, seal("chunks", "bytes", body, 1, "the chunk")))
	hook := mailgrant.Webhook{ID: mailgrant.NewID(mailgrant.PrefixWebhook), Org: org, Name: "cases", URL: "https://hooks.contoso.example/"}
	must(t, n.Store.CreateWebhook(ctx, hook, seal("webhooks", "secret", hook.ID, 0, "whsec_ before")))
	must(t, n.Store.RotateWebhook(ctx, org, hook.ID, seal("webhooks", "secret", hook.ID, 0, "whsec_"), now.Add(time.Hour)))
	return map[string]string{"webhooks.sealed": "whsec_", "webhooks.sealed_prev": "whsec_ before", "credentials.sealed": "the secret", "grants.sealed": "the token", "grants.sealed_prev": "the token before",
		"flows.sealed": "the flow", "chunks.sealed": "the chunk"}
}

// opened is what is in the columns, as the present key sealed it.
func opened(t *testing.T, n *node.Node) map[string]string {
	t.Helper()
	rows, err := n.Store.SealedBy(t.Context(), vault.KeyPrefix(n.Vault.Primary()), 100)
	must(t, err)
	out := map[string]string{}
	for _, r := range rows {
		name := r.Table + "." + r.Column
		b, err := n.Vault.Open(vault.Place{Org: r.Org, Table: r.Table, Column: node.SealedAs[name], Row: r.Row, N: r.N}, r.Sealed)
		must(t, err)
		out[name] = string(b)
	}
	return out
}

func same(t *testing.T, got, want map[string]string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d columns, want %d: %v", len(got), len(want), got)
	}
	for name, text := range want {
		if got[name] != text {
			t.Errorf("%s is %q, want %q", name, got[name], text)
		}
	}
}

// A rotation seals every column anew, while everything runs, and takes the old key
// away.
func TestRotationSealsAllAnew(t *testing.T) {
	c := settings(t)
	n := open(t, c)
	node.SetRest(n, time.Millisecond)
	plain := sealed(t, n)
	same(t, opened(t, n), plain)
	old := n.Vault.Primary()
	run(t, n)
	api := local(t, c)
	s, err := api.RotateKey(t.Context())
	must(t, err)
	if s.Primary == old {
		t.Errorf("the primary is still %d", old)
	}
	for deadline := time.Now().Add(20 * time.Second); len(s.Keys) != 1; {
		if time.Now().After(deadline) {
			t.Fatalf("the old key stays: %+v", s)
		}
		s, err = api.KeyStatus(t.Context())
		must(t, err)
	}
	if s.Left != 0 || s.Primary == old {
		t.Errorf("at the end: %+v", s)
	}
	same(t, opened(t, n), plain)
}

// What was sealed before a rotation may reach the database after the first look
// found nothing. Its key is there until it was looked for again.
func TestRotationWaitsForWhatIsOnItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := open(t, settings(t))
		orgs, err := n.Store.Organizations(t.Context())
		must(t, err)
		org, body := orgs[0].ID, mailgrant.NewID(mailgrant.PrefixSubmission)
		place := vault.Place{Org: org, Table: "chunks", Column: "bytes", Row: body, N: 1}
		late, err := n.Vault.Seal(place, []byte("the chunk"))
		must(t, err)
		_, err = n.RotateKey(t.Context())
		must(t, err)
		done := make(chan struct{})
		go func() { node.ResealAll(t.Context(), n); close(done) }()
		time.Sleep(node.KeysRest / 2)
		must(t, n.Store.PutChunk(t.Context(), org, body, 1, late))
		<-done
		fresh, err := n.Store.Chunk(t.Context(), org, body, 1)
		must(t, err)
		if b, err := n.Vault.Open(place, fresh); err != nil || string(b) != "the chunk" {
			t.Errorf("it is lost: %q, %v", b, err)
		}
		if k := n.Vault.Keys(); len(k) != 1 {
			t.Errorf("keys %v", k)
		}
	})
}

// A backup opens with its master key and no other, into an empty database, and
// everything that was sealed opens there.
func TestBackupAndRestore(t *testing.T) {
	c := settings(t)
	n := open(t, c)
	plain := sealed(t, n)
	delete(plain, "flows.sealed") // a consent under way does not live again
	orgs, err := n.Store.Organizations(t.Context())
	must(t, err)
	box := mailgrant.Mailbox{ID: mailgrant.NewID(mailgrant.PrefixMailbox), Org: orgs[0].ID, Address: "office@contoso.example", State: mailgrant.MailboxActive}
	must(t, n.Store.CreateMailbox(t.Context(), box))
	var backup bytes.Buffer
	must(t, n.Backup(t.Context(), &backup))
	if bytes.Contains(backup.Bytes(), []byte("contoso")) {
		t.Error("the backup can be read by anybody")
	}
	n.Close()

	other := settings(t)
	must(t, os.MkdirAll(other.Dir, 0o700))
	if err := node.Restore(t.Context(), other, bytes.NewReader(backup.Bytes())); !errors.Is(err, mailgrant.Misset) {
		t.Errorf("without a master key: %v", err)
	}
	must(t, os.WriteFile(filepath.Join(other.Dir, "master.key"), []byte(vault.NewMasterKey()), 0o600))
	if err := node.Restore(t.Context(), other, bytes.NewReader(backup.Bytes())); err == nil {
		t.Error("it opens with another master key")
	}
	key, err := os.ReadFile(filepath.Join(c.Dir, "master.key"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(other.Dir, "master.key"), key, 0o600))
	if err := node.Restore(t.Context(), other, bytes.NewReader(backup.Bytes()[:backup.Len()/2])); err == nil {
		t.Error("half a backup is taken for whole")
	}
	must(t, node.Restore(t.Context(), other, bytes.NewReader(backup.Bytes())))
	if err := node.Restore(t.Context(), other, bytes.NewReader(backup.Bytes())); !errors.Is(err, mailgrant.Conflict) {
		t.Errorf("into a database that is not empty: %v", err)
	}
	again := open(t, other)
	same(t, opened(t, again), plain)
	m, err := again.Store.Mailbox(t.Context(), box.Org, box.ID)
	must(t, err)
	if m.State != mailgrant.MailboxHeld || m.Hold == nil || m.Hold.Finding.Cause != "restored" {
		t.Errorf("the mailbox is %s, %+v", m.State, m.Hold)
	}
}
