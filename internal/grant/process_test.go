package grant_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/grant"
	"github.com/mailgrant/mailgrant/internal/store"
	"github.com/mailgrant/mailgrant/internal/vault"
	"github.com/mailgrant/mailgrant/test/real"
)

// helperVariable makes this program the second process of a test.
const helperVariable = "MAILGRANT_TEST_KEEPER"

// orders are what the second process is told at its start.
type orders struct {
	Database, Master string
	Org, Grant       mailgrant.ID
}

// An order is a line to it, a report a line back.
type order struct {
	Senders int
	Ahead   time.Duration // of its clock
	Stop    bool          // stand still between the provider's answer and the database
}

type report struct {
	Tokens  []string // different ones
	Errors  []string
	Stopped bool
}

// secondProcess is the life of the second process: a keeper of its own over the
// same database.
func secondProcess() bool {
	text := os.Getenv(helperVariable)
	if text == "" {
		return false
	}
	var o orders
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		panic(err)
	}
	k, err := openKeeper(context.Background(), o.Database, o.Master)
	if err != nil {
		panic(err)
	}
	out := json.NewEncoder(os.Stdout)
	in := json.NewDecoder(os.Stdin)
	for {
		var a order
		if err := in.Decode(&a); err != nil {
			return true // the first process is gone
		}
		k.ahead, k.db.hook = a.Ahead, nil
		if a.Stop {
			k.db.hook = func(method string) {
				if method == "RenewGrant" {
					out.Encode(report{Stopped: true})
					select {}
				}
			}
		}
		out.Encode(k.ask(o, a.Senders))
	}
}

// nodeKeeper is one node of a cluster.
type nodeKeeper struct {
	*grant.Keeper
	store *store.Store
	db    *faultyStore
	vault *vault.Vault
	ahead time.Duration
}

func openKeeper(ctx context.Context, database, master string) (*nodeKeeper, error) {
	s, err := store.Open(ctx, database, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	key, err := vault.MasterKey(master)
	if err != nil {
		return nil, err
	}
	v, err := vault.Open(ctx, key, s)
	if err != nil {
		return nil, err
	}
	n := &nodeKeeper{store: s, db: &faultyStore{Store: s}, vault: v}
	n.Keeper = grant.NewKeeper(grant.Config{Store: n.db, Vault: v, Node: mailgrant.NewID(mailgrant.PrefixNode), PublicURL: "https://mail.contoso.example",
		HTTP: func(mailgrant.Registration) *http.Client { return http.DefaultClient },
		Now:  func() time.Time { return time.Now().Add(n.ahead) }})
	return n, nil
}

// ask has many senders want a token at once.
func (n *nodeKeeper) ask(o orders, senders int) (r report) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	for range senders {
		wg.Go(func() {
			t, err := n.Token(context.Background(), o.Org, o.Grant, "mail")
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				r.Errors = append(r.Errors, string(mailgrant.AsError(err).Code)+": "+err.Error())
			} else if v := t.Value.Reveal(); !slices.Contains(r.Tokens, v) {
				r.Tokens = append(r.Tokens, v)
			}
		})
	}
	wg.Wait()
	return r
}

// A cluster is two processes over one PostgreSQL, and their provider.
type cluster struct {
	*house
	here   *nodeKeeper
	orders orders
	url    string
	to     *json.Encoder
	from   *json.Decoder
	other  *exec.Cmd
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	url, master := real.Postgres(t), vault.NewMasterKey()
	p := newIDP()
	srv := httptest.NewServer(p)
	t.Cleanup(srv.Close)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	p.base = srv.URL
	here, err := openKeeper(t.Context(), url, master)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { here.store.Close() })
	c := &cluster{house: furnish(t, here.store, here.vault, p), here: here, url: url}
	c.Keeper = here.Keeper
	g := c.active()
	c.orders = orders{Database: url, Master: master, Org: c.org, Grant: g.ID}
	c.start()
	return c
}

// start starts the second process.
func (c *cluster) start() {
	c.t.Helper()
	text, _ := json.Marshal(c.orders)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), helperVariable+"="+string(text))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	c.must(err)
	stdout, err := cmd.StdoutPipe()
	c.must(err)
	c.must(cmd.Start())
	c.other, c.to, c.from = cmd, json.NewEncoder(stdin), json.NewDecoder(bufio.NewReader(stdout))
	c.t.Cleanup(func() {
		stdin.Close()
		io.Copy(io.Discard, stdout)
		cmd.Wait()
	})
}

// both have senders ask in both processes at once.
func (c *cluster) both(senders int, ahead time.Duration) (here, there report) {
	c.t.Helper()
	c.here.ahead = ahead
	c.must(c.to.Encode(order{Senders: senders, Ahead: ahead}))
	here = c.here.ask(c.orders, senders)
	c.must(c.from.Decode(&there))
	return here, there
}

// TestOA19TwoProcesses: rotating refresh tokens with reuse detection, fifty senders
// at once in each of two processes, at every expiry.
func TestOA19TwoProcesses(t *testing.T) {
	c := newCluster(t)
	const rounds = 20
	for i := range rounds {
		here, there := c.both(50, time.Duration(i+1)*2*time.Hour)
		if len(here.Errors)+len(there.Errors) > 0 || len(here.Tokens) != 1 || !slices.Equal(here.Tokens, there.Tokens) {
			t.Fatalf("round %d: here %+v, there %+v", i, here, there)
		}
		if n := c.idp.count("refresh_token"); n != i+1 {
			t.Fatalf("round %d: %d refreshes", i, n)
		}
	}
	now := c.grant(c.orders.Grant)
	if f := c.idp.refresh[c.kept(now.ID)]; f == nil || f.dead || f.current != c.kept(now.ID) || now.Generation != rounds+1 {
		t.Errorf("kept %q of %+v at generation %d", c.kept(now.ID), f, now.Generation)
	}
}

// TestRefusedInTwoProcesses: both rest after one try, and both go on after a
// consent in one.
func TestRefusedInTwoProcesses(t *testing.T) {
	c := newCluster(t)
	c.faulty(400, `{"error":"invalid_grant"}`)
	for range 3 {
		here, there := c.both(20, 2*time.Hour)
		for _, r := range []report{here, there} {
			if len(r.Tokens) != 0 || len(r.Errors) != 20 || r.Errors[0][:7] != "lapsed:" {
				t.Fatalf("got %+v", r)
			}
		}
	}
	if n := c.idp.count("refresh_token"); n != 1 || c.events("grant.lapsed") != 1 {
		t.Errorf("%d refreshes", n)
	}
	c.idp.well()
	c.idp.set(func() { c.idp.ahead = 2 * time.Hour })
	if _, err := c.consent(c.grant(c.orders.Grant), alex); err != nil {
		t.Fatal(err)
	}
	here, there := c.both(20, 2*time.Hour)
	if len(here.Errors)+len(there.Errors) > 0 || len(here.Tokens) != 1 || len(there.Tokens) != 1 {
		t.Errorf("after the consent: here %+v, there %+v", here, there)
	}
	if n := c.idp.count("refresh_token"); n > 2 {
		t.Errorf("%d refreshes", n)
	}
}

// TestDownInTwoProcesses: while the provider is down both leave it in peace after
// one try, and nothing lapses.
func TestDownInTwoProcesses(t *testing.T) {
	c := newCluster(t)
	c.faulty(503, "<html>")
	for range 3 {
		here, there := c.both(20, 2*time.Hour)
		for _, r := range []report{here, there} {
			if len(r.Tokens) != 0 || len(r.Errors) != 20 || r.Errors[0][:12] != "unavailable:" {
				t.Fatalf("got %+v", r)
			}
		}
	}
	if n := c.idp.count("refresh_token"); n != 1 || c.grant(c.orders.Grant).State != mailgrant.GrantActive {
		t.Errorf("%d tries", n)
	}
	c.idp.well()
	here, there := c.both(20, 2*time.Hour+2*time.Minute)
	if len(here.Errors)+len(there.Errors) > 0 || len(here.Tokens) != 1 || !slices.Equal(here.Tokens, there.Tokens) || c.idp.count("refresh_token") != 2 {
		t.Errorf("here %+v, there %+v, %d refreshes", here, there, c.idp.count("refresh_token"))
	}
}

// TestOA20KilledInTheMiddleOfARefresh: the provider has answered, the new refresh
// token is not durable, and the process dies. A provider that lets the old token
// live is asked again; one that does not makes the grant lapse, with its reason.
func TestOA20KilledInTheMiddleOfARefresh(t *testing.T) {
	for name, lives := range map[string]bool{"the old token lives": true, "reuse is detected": false} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			c.idp.set(func() { c.idp.old = lives })
			c.must(c.to.Encode(order{Senders: 5, Ahead: 2 * time.Hour, Stop: true}))
			var r report
			c.must(c.from.Decode(&r))
			if !r.Stopped {
				t.Fatalf("got %+v", r)
			}
			c.must(c.other.Process.Kill())
			c.here.ahead = 2 * time.Hour
			if c.kept(c.orders.Grant) != "refresh-1" || c.idp.count("refresh_token") != 1 {
				t.Fatalf("kept %q", c.kept(c.orders.Grant))
			}
			done := make(chan report)
			go func() { done <- c.here.ask(c.orders, 10) }()
			c.leaseEnds() // as it does by itself within a minute
			r = <-done
			if lives {
				if len(r.Errors) > 0 || len(r.Tokens) != 1 || c.kept(c.orders.Grant) != "refresh-3" {
					t.Errorf("got %+v, kept %q", r, c.kept(c.orders.Grant))
				}
				return
			}
			now := c.grant(c.orders.Grant)
			if len(r.Tokens) > 0 || now.State != mailgrant.GrantLapsed || now.LastFinding == nil || now.LastFinding.Cause != "grant-revoked" || now.LastFinding.Who != mailgrant.WhoMailboxOwner {
				t.Errorf("got %+v, %+v", r, now)
			}
			c.idp.set(func() { c.idp.ahead = 2 * time.Hour })
			if _, err := c.consent(now, alex); err != nil {
				t.Fatal(err)
			}
			if r = c.here.ask(c.orders, 10); len(r.Errors) > 0 || len(r.Tokens) != 1 {
				t.Errorf("consented again: %+v", r)
			}
		})
	}
}

// TestOA19ClocksThatDiffer: a node whose clock is wrong has its lease as long as any
// other: nobody takes it over while the provider still answers.
func TestOA19ClocksThatDiffer(t *testing.T) {
	for name, wrong := range map[string]time.Duration{"behind": -10 * time.Minute, "ahead": 10 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			c.must(c.to.Encode(order{Senders: 1, Ahead: wrong, Stop: true}))
			var r report
			c.must(c.from.Decode(&r))
			c.here.ahead = 2 * time.Hour
			ctx, cancel := context.WithTimeout(c.ctx, 500*time.Millisecond)
			defer cancel()
			tok, err := c.here.Token(ctx, c.org, c.orders.Grant, "mail")
			if n := c.idp.count("refresh_token"); err == nil || !r.Stopped || n != 1 {
				t.Errorf("%d refreshes at once: %v, %v", n, tok, err)
			}
			c.must(c.other.Process.Kill()) // it stands still
		})
	}
}

// leaseEnds makes the lease of the grant end now.
func (c *cluster) leaseEnds() {
	c.t.Helper()
	conn, err := pgx.Connect(c.ctx, c.url)
	c.must(err)
	defer conn.Close(c.ctx)
	tag, err := conn.Exec(c.ctx, "UPDATE grants SET lease_until = 1 WHERE id = $1", string(c.orders.Grant))
	c.must(err)
	if tag.RowsAffected() != 1 {
		c.t.Fatal(fmt.Errorf("%d leases", tag.RowsAffected()))
	}
}

// TestRevokedOnAnotherNode: a grant that is disconnected on one node stops working
// on the other within five seconds. Invariant 7.
func TestRevokedOnAnotherNode(t *testing.T) {
	c := newCluster(t)
	other, err := openKeeper(t.Context(), c.url, c.orders.Master)
	c.must(err)
	defer other.store.Close()
	ctx, stop := context.WithCancel(c.ctx)
	done := make(chan error)
	go func() { done <- other.Run(ctx) }()
	defer func() { stop(); <-done }()
	if r := other.ask(c.orders, 1); len(r.Errors) > 0 {
		t.Fatalf("got %+v", r)
	}
	c.must(c.Revoke(c.ctx, c.org, c.orders.Grant))
	begun := time.Now()
	if !c.until(func() bool { return len(other.ask(c.orders, 1).Errors) > 0 }) || time.Since(begun) > 5*time.Second {
		t.Errorf("it works %v later", time.Since(begun))
	}
}
