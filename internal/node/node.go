// Package node builds mailgrant from its parts and runs them.
//
//	Open   settings ─▶ store ─▶ vault ─▶ keeper ─▶ router, outbox ─▶ doors
//	Run    each part is started in that order and stopped in reverse: doors
//	       first, so that nothing new comes in while what is under way ends
//
// It is where the interfaces of all packages meet. Nothing here decides about
// mail.
package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/access"
	"github.com/mailgrant/mailgrant/internal/cluster"
	"github.com/mailgrant/mailgrant/internal/config"
	"github.com/mailgrant/mailgrant/internal/egress"
	"github.com/mailgrant/mailgrant/internal/grant"
	"github.com/mailgrant/mailgrant/internal/inbox"
	"github.com/mailgrant/mailgrant/internal/outbox"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/microsoft"
	"github.com/mailgrant/mailgrant/internal/route"
	"github.com/mailgrant/mailgrant/internal/serve/api"
	"github.com/mailgrant/mailgrant/internal/serve/certs"
	"github.com/mailgrant/mailgrant/internal/serve/submission"
	"github.com/mailgrant/mailgrant/internal/store"
	"github.com/mailgrant/mailgrant/internal/vault"
	"github.com/mailgrant/mailgrant/internal/webhook"
)

// Options are what differs between a server, a demo and a test.
type Options struct {
	Log   *slog.Logger      // nil: as the settings say, to standard error
	Steps func(step string) // hears of each step of accept and send; tests stop the world there
	Login string            // takes the place of Microsoft's public login host; "" the real one
}

// A Node is one running mailgrant.
type Node struct {
	cfg    config.Config
	opts   Options
	log    *slog.Logger
	id     mailgrant.ID
	began  time.Time
	master tink.AEAD

	Store     *store.Store
	Vault     *vault.Vault
	Egress    *egress.Guard
	Keeper    *grant.Keeper
	Router    *route.Router
	Mailboxes *route.Mailboxes
	Access    *access.Access
	Outbox    *outbox.Outbox
	Inbox     *inbox.Inbox
	Webhooks  *webhook.Teller
	API       *api.API
	Certs     *certs.Certs

	transports map[string]provider.Transport
	readers    map[string]provider.Reader
	notices    *microsoft.Notices
	member     *cluster.Member // nil over SQLite
	mail       *submission.Server
	doors      []*door
	reseal     chan struct{}
	rest       time.Duration // keysRest, or keysRestAll
	closed     sync.Once
}

// Version is the version of this program, as its build knows it.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "devel"
	}
	return info.Main.Version
}

// Open makes all parts and opens the doors; nobody is served before Run.
func Open(ctx context.Context, c config.Config, o Options) (n *Node, err error) {
	n = &Node{cfg: c, opts: o, log: o.Log, id: mailgrant.NewID(mailgrant.PrefixNode), began: time.Now(), reseal: make(chan struct{}, 1), rest: keysRest,
		notices: microsoft.NewNotices()}
	if n.log == nil {
		n.log = Logger(os.Stderr, c.Log)
	}
	defer func() {
		if err != nil {
			n.Close()
			n, err = nil, Ended(err)
		}
	}()
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return n, mailgrant.Errorf(mailgrant.Misset, err, "the data directory %s cannot be made: %v", c.Dir, err).Fix("choose another one (--dir), or let mailgrant write there")
	}
	if n.Store, err = store.Open(ctx, c.DatabasePath(), n.log); err != nil {
		return n, err
	}
	_, sealed, err := n.Store.LoadKeyset(ctx)
	if err != nil {
		return n, err
	}
	if n.master, err = MasterKey(c, sealed == 0); err != nil { // a new key opens nothing that is there
		return n, err
	}
	if n.Vault, err = vault.Open(ctx, n.master, n.Store); err != nil {
		return n, err
	}
	if err := n.firstOrganization(ctx); err != nil {
		return n, err
	}
	if n.Egress, err = egress.New(egress.Config{Allow: c.Egress.Allow, CAFile: c.Egress.CAFile, Proxy: c.Egress.Proxy, Log: n.log}); err != nil {
		return n, err
	}
	n.transports, n.readers = n.makeTransports(), n.makeReaders()
	n.Router = route.New(n.Store)
	n.Keeper = n.makeKeeper()
	n.Mailboxes = route.NewMailboxes(n.Store, n.Router)
	n.Mailboxes.Changed = func(m mailgrant.Mailbox) {
		n.Outbox.Wake(m.Org, m.ID)
		n.Inbox.Changed(context.WithoutCancel(ctx), m.Org, m.ID)
	}
	n.Access = access.New(access.Config{Store: n.Store, Vault: n.Vault, Log: n.log})
	owner := n.makeMember()
	n.Outbox = n.makeOutbox(owner)
	n.Inbox = n.makeInbox(owner)
	n.Webhooks = n.makeWebhooks(owner)
	n.joinMember()
	if n.Certs, err = certs.New(certs.Config{CertFile: c.TLS.Cert, KeyFile: c.TLS.Key, Dir: c.Dir, Names: n.names(), Log: n.log}); err != nil {
		return n, err
	}
	n.API = n.makeAPI()
	n.mail = n.makeSubmission()
	return n, n.openDoors()
}

// Run serves until ctx ends or a part fails, and then stops everything in
// reverse. It closes the node.
func (n *Node) Run(ctx context.Context) error {
	defer n.Close()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var stops []func()
	start := func(name string, run func(context.Context) error) {
		part, stop := context.WithCancel(context.WithoutCancel(ctx))
		done := make(chan struct{})
		go func() {
			defer close(done)
			if err := run(part); err != nil && part.Err() == nil {
				fail(fmt.Errorf("%s: %w", name, err))
			}
		}()
		stops = append(stops, func() { stop(); <-done })
	}
	start("chores", n.chores)
	start("keys", n.keys)
	start("keeper", n.Keeper.Run)
	start("access", n.Access.Run)
	start("outbox", n.Outbox.Run)
	start("inbox", n.Inbox.Run)
	start("webhooks", n.Webhooks.Run)
	if n.member != nil {
		start("cluster", n.member.Run)
	}
	start("doors", n.serve)
	n.log.Info("mailgrant is ready", "version", Version(), "node", n.id, "doors", n.uris(), "public_url", n.cfg.PublicURL)
	<-ctx.Done()
	n.log.Info("stopping")
	for i := len(stops) - 1; i >= 0; i-- {
		stops[i]()
	}
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return Ended(err)
	}
	return nil
}

// goesOn is what the store promises of a trouble that passes. It is true of a
// process that runs.
const goesOn = "; mailgrant goes on by itself"

// Ended is an error with which a process ends, or does not even begin: nothing goes
// on by itself then.
func Ended(err error) error {
	e := mailgrant.AsError(err)
	if e == nil || !e.Code.Temporary() {
		return err
	}
	todo, _, _ := strings.Cut(e.Remedy, goesOn)
	if todo == "" {
		todo = "wait until it has passed"
	}
	last := *e
	last.Cause, last.Remedy = err, todo+"; then start again"
	return &last
}

// Close lets go of everything that Open took. Run does it itself.
func (n *Node) Close() {
	n.closed.Do(func() {
		for _, d := range n.doors {
			d.close()
		}
		if n.Store != nil {
			if err := n.Store.Close(); err != nil {
				n.log.Error("close the store", "err", err)
			}
		}
	})
}

// ID names this process in the cluster and in records.
func (n *Node) ID() mailgrant.ID { return n.id }

// Logger makes the log of a process. Secrets print as [secret] by their type.
func Logger(w io.Writer, c config.Log) *slog.Logger {
	var level slog.Level // an unknown word is info
	level.UnmarshalText([]byte(c.Level))
	o := &slog.HandlerOptions{Level: level}
	if c.Format == "text" {
		return slog.New(slog.NewTextHandler(w, o))
	}
	return slog.New(slog.NewJSONHandler(w, o))
}

// firstOrganization makes the one that a fresh install has.
func (n *Node) firstOrganization(ctx context.Context) error {
	l, err := n.Store.Organizations(ctx)
	if err != nil || len(l) > 0 {
		return err
	}
	return n.Store.CreateOrganization(ctx, mailgrant.Organization{ID: mailgrant.NewID(mailgrant.PrefixOrganization), Name: mailgrant.MainOrganization, CreatedAt: time.Now().UTC()})
}

// names are those the certificate must have.
func (n *Node) names() []string {
	names := []string{n.cfg.Host()}
	if h := hostOf(n.cfg.PublicURL); h != "" {
		names = append(names, h)
	}
	return names
}

func (n *Node) proxies() (list []netip.Prefix) {
	for _, s := range n.cfg.TrustedProxies {
		if p, err := netip.ParsePrefix(s); err == nil {
			list = append(list, p)
		} else if a, err := netip.ParseAddr(s); err == nil {
			list = append(list, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return list
}
