package node_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
	"github.com/mailgrant/mailgrant/internal/cluster"
	"github.com/mailgrant/mailgrant/internal/config"
	"github.com/mailgrant/mailgrant/internal/node"
	"github.com/mailgrant/mailgrant/internal/store"
	"github.com/mailgrant/mailgrant/internal/vault"
	"github.com/mailgrant/mailgrant/sim"
	"github.com/mailgrant/mailgrant/test/real"
)

const (
	scanner = "scanner@contoso.example"
	robin   = "robin@fabrikam.example"
)

// members are the settings of nodes over one PostgreSQL and one master key, and the
// Microsoft 365 they send by.
func members(t *testing.T, n int) ([]config.Config, *sim.Sim) {
	s, err := sim.Start(t.Context(), sim.Config{Dir: t.TempDir()})
	must(t, err)
	t.Cleanup(func() { s.Close() })
	must(t, s.World().ChangeKnobs(func(k *sim.Knobs) {
		k.PerMinute, k.Connections, k.RecipientsPerDay, k.TenantExternal = 1e9, 100, 1e9, 1e9
	}))
	must(t, s.World().SetSMTPAuth(scanner, "on"))
	login, err := url.Parse(s.LoginURL())
	must(t, err)
	master := filepath.Join(t.TempDir(), "master.key")
	must(t, os.WriteFile(master, []byte(vault.NewMasterKey()), 0o600))
	database := real.Postgres(t)
	list := make([]config.Config, n)
	for i := range list {
		c := settings(t)
		c.Database, c.MasterKey.File = database, master
		c.Listen = []string{"http+insecure://127.0.0.1:0"}
		c.Egress.CAFile, c.Egress.Allow = s.CAFile(), []string{login.Host, s.SMTPAddr()}
		list[i] = c
	}
	return list, s
}

// furnish makes an app with a key, and a mailbox in a shard of the node.
func furnish(t *testing.T, n *node.Node, api *client.Client, s *sim.Sim) (mailgrant.ID, client.IssuedKey) {
	t.Helper()
	ctx := t.Context()
	host, port, err := net.SplitHostPort(s.SMTPAddr())
	must(t, err)
	name, template, tenant, id := "Contoso Notices", "microsoft365", sim.ContosoTenantID, sim.ContosoSystemClientID
	overrides := map[string]string{"login_url": s.LoginURL(), "smtp_host": host, "smtp_port": port}
	reg, err := api.CreateRegistration(ctx, client.RegistrationSettings{Name: &name, Template: &template, Tenant: &tenant, ClientID: &id, Overrides: &overrides})
	must(t, err)
	_, err = api.AddCredential(ctx, reg.ID, client.NewCredential{Secret: sim.ContosoSystemClientSecret})
	must(t, err)
	address, kind, flow, can := scanner, mailgrant.MailboxApp, mailgrant.FlowApp, []mailgrant.Capability{mailgrant.CanSMTP}
	g, err := api.CreateGrant(ctx, client.GrantSettings{Registration: &reg.ID, Mailbox: &address, MailboxKind: &kind, Flow: &flow, Capabilities: &can})
	must(t, err)
	_, err = api.Activate(ctx, g.ID)
	must(t, err)
	shards, err := n.Store.OwnShards(ctx, n.ID())
	must(t, err)
	m := mailgrant.Mailbox{ID: mailgrant.NewID(mailgrant.PrefixMailbox), Org: g.Org, Address: scanner, Kind: kind, Grant: g.ID, State: mailgrant.MailboxActive,
		Limits: mailgrant.Limits{Connections: 4, PerMinute: -1, RecipientsPerDay: -1}}
	for _, mine := shards[cluster.Shard(m.ID)]; !mine; _, mine = shards[cluster.Shard(m.ID)] {
		m.ID = mailgrant.NewID(mailgrant.PrefixMailbox)
	}
	must(t, n.Store.CreateMailbox(ctx, m))
	app := "load"
	_, err = api.CreateApp(ctx, client.AppSettings{Name: &app})
	must(t, err)
	k, err := api.IssueKey(ctx, app, client.NewKey{Scopes: []mailgrant.Scope{mailgrant.ScopeSend, mailgrant.ScopeRead}})
	must(t, err)
	return m.ID, k
}

// owns waits until a node has so many shards.
func owns(t *testing.T, n *node.Node, want int) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(30 * time.Second); ; {
		l, err := n.Store.OwnShards(t.Context(), n.ID())
		must(t, err)
		if len(l) == want {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%d shards, want %d", len(l), want)
		}
	}
}

// delivered waits until a submission is, and says which nodes tried it.
func delivered(t *testing.T, api *client.Client, id mailgrant.ID) (by []mailgrant.ID) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(30 * time.Second); ; {
		sub, err := api.Submission(t.Context(), id)
		must(t, err)
		if sub.State == mailgrant.SubmissionDelivered {
			if sub.Duplicate {
				t.Errorf("%s may have been sent twice", id)
			}
			break
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s is %s", id, sub.State)
		}
	}
	l, err := api.Attempts(t.Context(), id)
	must(t, err)
	for _, a := range l {
		by = append(by, a.Node)
	}
	return by
}

// Two nodes over one PostgreSQL: what one accepts, the one that has the mailbox
// sends, once; and one that stops in order hands all of it over, under load.
func TestRE19ANodeThatStopsHandsOver(t *testing.T) {
	c, s := members(t, 2)
	a := open(t, c[0])
	run(t, a)
	api := local(t, c[0])
	owns(t, a, store.Shards)
	b := open(t, c[1])
	stopB := run(t, b)
	owns(t, b, store.Shards/2)
	_, key := furnish(t, b, api, s)
	app := client.New("http://"+addr(t, a, "http+insecure"), key.Secret)
	defer app.HTTP.Transport.(*http.Transport).CloseIdleConnections()
	send := func(name string) (mailgrant.ID, error) {
		sub, err := app.Send(t.Context(), client.Message{From: scanner, To: []string{robin}, Subject: name, Text: "Hello.\n"})
		return sub.ID, err
	}
	began := time.Now()
	first, err := send("first")
	must(t, err)
	if by := delivered(t, api, first); len(by) != 1 || by[0] != b.ID() {
		t.Errorf("accepted at %s, tried by %v, but %s has the mailbox", a.ID(), by, b.ID())
	}
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("the one that has the mailbox was not woken: it took %v", d)
	}
	var mu sync.Mutex
	sent := map[string]mailgrant.ID{"first": first}
	enough := make(chan struct{})
	under, over := context.WithCancel(t.Context())
	var load sync.WaitGroup
	for w := range 2 {
		load.Go(func() {
			for i := 0; under.Err() == nil; i++ {
				name := fmt.Sprintf("load-%d-%d", w, i)
				id, err := send(name)
				if err != nil {
					t.Errorf("accept %s: %v", name, err)
					return
				}
				mu.Lock()
				if sent[name] = id; len(sent) == 20 {
					close(enough)
				}
				mu.Unlock()
			}
		})
	}
	<-enough
	must(t, stopB())
	over()
	load.Wait()
	stopped := time.Now()
	last, err := send("last")
	must(t, err)
	sent["last"] = last
	if by := delivered(t, api, last); len(by) != 1 || by[0] != a.ID() {
		t.Errorf("the last one was tried by %v, want %s", by, a.ID())
	}
	if d := time.Since(stopped); d > 8*time.Second {
		t.Errorf("it took %v until the other had the mailbox", d)
	}
	byB := 0
	for _, id := range sent {
		for _, n := range delivered(t, api, id) {
			if n == b.ID() {
				byB++
			}
		}
	}
	if byB == 0 || byB == len(sent) {
		t.Errorf("%d of %d were tried by the one that stopped", byB, len(sent))
	}
	arrived := map[string]int{}
	for _, m := range s.Mail(robin) {
		arrived[m.Subject]++
	}
	for name := range sent {
		if arrived[name] != 1 {
			t.Errorf("%s arrived %d times", name, arrived[name])
		}
	}
}
