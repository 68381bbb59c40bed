package node

import (
	"context"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/cluster"
	"github.com/mailgrant/mailgrant/internal/config"
	"github.com/mailgrant/mailgrant/internal/grant"
	"github.com/mailgrant/mailgrant/internal/inbox"
	"github.com/mailgrant/mailgrant/internal/outbox"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/auto"
	"github.com/mailgrant/mailgrant/internal/provider/google"
	"github.com/mailgrant/mailgrant/internal/provider/imap"
	"github.com/mailgrant/mailgrant/internal/provider/microsoft"
	"github.com/mailgrant/mailgrant/internal/provider/pop"
	"github.com/mailgrant/mailgrant/internal/provider/smtp"
	"github.com/mailgrant/mailgrant/internal/vault"
	"github.com/mailgrant/mailgrant/internal/webhook"
)

// MasterKey finds the master key where the settings say. With create, the file
// in the data directory is made when nothing else is set.
func MasterKey(c config.Config, create bool) (tink.AEAD, error) {
	switch {
	case len(c.MasterKey.Command) > 0:
		return vault.MasterKeyCommand(c.MasterKey.Command), nil
	case c.MasterKey.Env != "":
		text := os.Getenv(c.MasterKey.Env)
		if text == "" {
			return nil, mailgrant.Errorf(mailgrant.Misset, nil, "the environment variable %s, which should hold the master key, is empty", c.MasterKey.Env).
				Fix("set it to the master key of this database; a new one is made by: mailgrant key new")
		}
		return vault.MasterKey(text)
	case c.MasterKey.File != "":
		return vault.MasterKeyFile(c.MasterKey.File, false)
	}
	return vault.MasterKeyFile(filepath.Join(c.Dir, "master.key"), create)
}

func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

func (n *Node) smtpConfig() smtp.Config {
	return smtp.Config{Hostname: n.cfg.Host(), TLS: n.Egress.TLS, Log: n.log}
}

func (n *Node) makeTransports() map[string]provider.Transport {
	m := map[string]provider.Transport{}
	for _, t := range []provider.Transport{smtp.Transport(n.smtpConfig()), microsoft.Graph(), microsoft.Upload(), google.Gmail()} {
		m[t.Name] = t
	}
	return m
}

// httpFor is the client for a registration's provider. A CA file that cannot be
// read must not lead to a client that trusts less or more: it fails each request.
func (n *Node) httpFor(r mailgrant.Registration) *http.Client {
	c, err := n.Egress.HTTP(r.CAFile)
	if err != nil {
		return &http.Client{Transport: broken{err}}
	}
	return c
}

type broken struct{ err error }

func (b broken) RoundTrip(*http.Request) (*http.Response, error) { return nil, b.err }

func (n *Node) makeKeeper() *grant.Keeper {
	return grant.NewKeeper(grant.Config{
		Store: n.Store, Vault: n.Vault, HTTP: n.httpFor, Dial: n.Egress.Dial, Node: n.id,
		PublicURL: strings.TrimSuffix(n.cfg.PublicURL, "/"), Prove: n.prove, Log: n.log,
		Changed: func(org, id mailgrant.ID) {
			n.Router.Forget()
			go n.Outbox.WakeGrant(context.Background(), org, id)
			go n.Inbox.LookGrant(context.Background(), org, id)
		},
		Connected: n.connected,
	})
}

// connected has a mailbox told that its owner consented.
func (n *Node) connected(ctx context.Context, g mailgrant.Grant, rights []string) {
	org, err := n.Store.Organization(ctx, g.Org)
	if err != nil {
		n.log.Error("a mailbox cannot be told that it was connected", "mailbox", g.Mailbox, "err", err)
		return
	}
	n.Outbox.Connected(ctx, g, org.Name, rights)
}

// makeMember makes what knows which mailboxes are this node's to work.
func (n *Node) makeMember() cluster.Owner {
	if !n.Store.Clustered() {
		return cluster.Solo{}
	}
	n.member, n.rest = cluster.New(n.Store, n.id, n.log), keysRestAll
	return n.member
}

// A part works what this node owns.
type part interface {
	Gained(shards []int64)
	Lost(shards []int64) (wait func())
}

// joinMember has all parts hear of what the node owns.
func (n *Node) joinMember() {
	if n.member == nil {
		return
	}
	parts := []part{n.Outbox, n.Inbox, n.Webhooks}
	n.member.Gained = func(shards []int64) {
		for _, p := range parts {
			p.Gained(shards)
		}
	}
	n.member.Lost = func(shards []int64) func() {
		var waits []func()
		for _, p := range parts {
			waits = append(waits, p.Lost(shards))
		}
		return func() {
			for _, wait := range waits {
				wait()
			}
		}
	}
	n.Store.OnLane(n.look)
	n.Store.OnRetry(n.Outbox.Retried)
	n.Store.OnReader(n.Inbox.Look)
	n.Store.OnMail(n.Inbox.Ring)
	n.Store.OnDoubt(func(_, mailbox mailgrant.ID) { n.notices.Doubt(n.pushSecret(mailbox)) })
}

// look has the part look that works what another node spoke of.
func (n *Node) look(org, id mailgrant.ID) {
	if id == "" || id.Is(mailgrant.PrefixWebhook) {
		n.Webhooks.Look(org, id)
	}
	if !id.Is(mailgrant.PrefixWebhook) {
		n.Outbox.Look(org, id)
	}
}

func (n *Node) makeWebhooks(owner cluster.Owner) *webhook.Teller {
	return webhook.New(webhook.Config{
		Store: n.Store, Vault: n.Vault, HTTP: func() (*http.Client, error) { return n.Egress.HTTP("") }, May: n.Egress.May,
		Owner: owner, Clustered: n.Store.Clustered(), Log: n.log, Steps: n.opts.Steps,
	})
}

func (n *Node) makeReaders() map[string]provider.Reader {
	m := map[string]provider.Reader{}
	for _, r := range []provider.Reader{imap.Reader(imap.Config{TLS: n.Egress.TLS, Log: n.log}), pop.Reader(pop.Config{TLS: n.Egress.TLS, Log: n.log}),
		microsoft.Reader(microsoft.ReadConfig{Notices: n.notices, Log: n.log})} {
		m[r.Name] = r
	}
	return m
}

func (n *Node) makeInbox(owner cluster.Owner) *inbox.Inbox {
	return inbox.New(inbox.Config{
		Store: n.Store, Vault: n.Vault, Ways: n.Keeper, Readers: n.readers, Owner: owner, Log: n.log,
		MessageBytes: n.cfg.Limits.MessageBytes, Keep: n.cfg.Keep.Arrivals, Push: n.push, Own: n.ownMail, Steps: n.opts.Steps,
	})
}

func (n *Node) makeOutbox(owner cluster.Owner) *outbox.Outbox {
	return outbox.New(outbox.Config{
		Store: n.Store, Vault: n.Vault, Router: n.Router, Sender: n.Access, Ways: n.Keeper,
		Transports: n.transports, Choose: auto.Choose, Owner: owner, Clustered: n.Store.Clustered(), Node: n.id,
		Hostname: n.cfg.Host(), PublicURL: n.cfg.PublicURL, Log: n.log,
		MessageBytes: n.cfg.Limits.MessageBytes, Recipients: n.cfg.Limits.Recipients, Life: n.cfg.Limits.Life,
		NoticeTo: n.cfg.Notices.To, Steps: n.opts.Steps,
	})
}
