package node_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/config"
	"github.com/mailgrant/mailgrant/internal/node"
	"github.com/mailgrant/mailgrant/internal/store"
	"github.com/mailgrant/mailgrant/internal/vault"
)

// The environment of a life that changes keys until it is killed.
const (
	lifeConfig = "MAILGRANT_TEST_LIFE"
	lifeKind   = "MAILGRANT_TEST_LIFE_KIND" // busy, idle or last
)

// tokens is how many there are. More make each life longer and show nothing else.
const tokens = 500

// token is what a generation of a grant has.
func token(g mailgrant.ID, generation int64) string {
	return fmt.Sprintf("token %d of %s", generation, g)
}

func tokenPlace(g mailgrant.Grant) vault.Place {
	return vault.Place{Org: g.Org, Table: "grants", Column: "refresh_token", Row: g.ID}
}

// life is another process. It says how many tokens it can read, and then seals
// them under one new key after the other; the last life ends when one key is left.
func life() error {
	var c config.Config
	if err := json.Unmarshal([]byte(os.Getenv(lifeConfig)), &c); err != nil {
		return err
	}
	ctx := context.Background()
	n, err := node.Open(ctx, c, node.Options{Log: quiet})
	if err != nil {
		return err
	}
	defer n.Close()
	if err := readable(ctx, n); err != nil {
		return err
	}
	fmt.Println("readable")
	kind := os.Getenv(lifeKind)
	node.SetRest(n, time.Millisecond)
	if kind == "busy" {
		node.SetRest(n, time.Hour) // what is on its way when a key is changed needs the old one
		go renewals(ctx, n)
	}
	for {
		if kind != "last" {
			if _, err := n.Vault.Rotate(ctx); err != nil {
				return err
			}
		}
		node.ResealAll(ctx, n)
		if kind == "last" {
			return readable(ctx, n)
		}
	}
}

// renewals keep new tokens, as refreshes do.
func renewals(ctx context.Context, n *node.Node) {
	orgs, err := n.Store.Organizations(ctx)
	if err != nil {
		return
	}
	l, err := n.Store.Grants(ctx, orgs[0].ID)
	for err == nil {
		var g mailgrant.Grant
		var sealed []byte
		if g, _, err = n.Store.LeaseGrant(ctx, orgs[0].ID, l[rand.N(len(l))].ID, n.ID(), time.Minute); err != nil {
			return
		}
		if sealed, err = n.Vault.Seal(tokenPlace(g), []byte(token(g.ID, g.Generation+1))); err == nil {
			err = n.Store.RenewGrant(ctx, store.Renewal{Grant: g.ID, Org: g.Org, Node: n.ID(), Generation: g.Generation, At: time.Now(), Sealed: sealed})
		}
	}
}

// readable says whether every token is.
func readable(ctx context.Context, n *node.Node) error {
	orgs, err := n.Store.Organizations(ctx)
	if err != nil {
		return err
	}
	l, err := n.Store.Grants(ctx, orgs[0].ID)
	if err != nil || len(l) != tokens {
		return fmt.Errorf("%d grants, %v", len(l), err)
	}
	for _, g := range l {
		for before, sealed := range [][]byte{g.Sealed, g.SealedPrev} {
			if sealed == nil {
				continue
			}
			if b, err := n.Vault.Open(tokenPlace(g), sealed); err != nil || string(b) != token(g.ID, g.Generation-int64(before)) {
				return fmt.Errorf("%s is %q, under key %d of %v: %v", g.ID, b, vault.KeyOf(sealed), n.Vault.Keys(), err)
			}
		}
	}
	return nil
}

// fillTokens makes the grants, under the first key.
func fillTokens(t *testing.T, c config.Config) (first uint32) {
	t.Helper()
	n := open(t, c)
	defer n.Close()
	ctx := t.Context()
	orgs, err := n.Store.Organizations(ctx)
	must(t, err)
	reg := mailgrant.Registration{ID: mailgrant.NewID(mailgrant.PrefixRegistration), Org: orgs[0].ID, Name: "Contoso Mail", Template: "microsoft365"}
	must(t, n.Store.CreateRegistration(ctx, reg))
	var wg sync.WaitGroup
	work := make(chan int)
	for range 32 {
		wg.Go(func() {
			for i := range work {
				g := mailgrant.Grant{ID: mailgrant.NewID(mailgrant.PrefixGrant), Org: reg.Org, Registration: reg.ID, Mailbox: fmt.Sprintf("m%d@contoso.example", i), State: mailgrant.GrantPending}
				err := n.Store.CreateGrant(ctx, g)
				if err == nil {
					g.Sealed, err = n.Vault.Seal(tokenPlace(g), []byte(token(g.ID, 1)))
				}
				if err == nil {
					err = n.Store.CompleteConsent(ctx, g)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range tokens {
		work <- i
	}
	close(work)
	wg.Wait()
	return n.Vault.Primary()
}

// Keys are changed again and again under load, and the process is killed fifty
// times in the middle of it: each next one can read every token.
func TestSE05KilledWhileKeysAreChanged(t *testing.T) {
	t.Parallel()
	c := settings(t)
	c.Listen = []string{"http+insecure://127.0.0.1:0"}
	first := fillTokens(t, c)
	b, err := json.Marshal(c)
	must(t, err)
	begin := func(kind string) (*exec.Cmd, string) {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), lifeConfig+"="+string(b), lifeKind+"="+kind)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		line, _ := bufio.NewReader(out).ReadString('\n')
		return cmd, strings.TrimSpace(line)
	}
	for i := range 50 {
		kind := []string{"busy", "idle"}[i%2]
		cmd, said := begin(kind)
		if said == "readable" {
			<-time.After(rand.N(100 * time.Millisecond))
		}
		must(t, cmd.Process.Kill())
		cmd.Wait()
		if said != "readable" {
			t.Fatalf("life %d, %s: it says %q", i, kind, said)
		}
	}
	last, said := begin("last")
	if err := last.Wait(); err != nil || said != "readable" {
		t.Fatalf("the last life: %q, %v", said, err)
	}
	n := open(t, c)
	must(t, readable(t.Context(), n))
	if k := n.Vault.Keys(); len(k) != 1 || k[0] == first {
		t.Errorf("keys %v, the first was %d", k, first)
	}
}
