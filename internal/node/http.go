package node

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/mailgrant/mailgrant/client"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/serve/api"
	"github.com/mailgrant/mailgrant/internal/serve/console"
)

func (n *Node) makeAPI() *api.API {
	finder := provider.Finder{LoginURL: n.opts.Login}
	if c, err := n.Egress.HTTP(""); err == nil {
		finder.HTTP = c
	}
	return api.New(api.Config{
		Store: n.Store, Access: n.Access, Outbox: n.Outbox, Inbox: n.Inbox, Webhooks: n.Webhooks, Router: n.Router, Mailboxes: n.Mailboxes, Keeper: n.Keeper,
		Check: n.check, Finder: finder, Backup: n.Backup, KeyStatus: n.KeyStatus, RotateKey: n.RotateKey, Health: n.Health,
		PublicURL: n.cfg.PublicURL, Version: Version(), TrustedProxies: n.proxies(), Log: n.log,
		MessageBytes: n.cfg.Limits.MessageBytes, Recipients: n.cfg.Limits.Recipients, KeepArrivals: n.cfg.Keep.Arrivals,
	})
}

// handler is what the HTTP doors serve: the API, and pages for people.
func (n *Node) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/v1/", n.API)
	mux.HandleFunc("POST "+pushPath+"{org}/{mailbox}", n.servePush)
	mux.Handle("/", console.New(console.Config{
		Keeper: n.Keeper, Ping: n.Store.Ping, PublicURL: n.cfg.PublicURL, Version: Version(), TrustedProxies: n.proxies(), Log: n.log,
	}))
	return mux
}

// Health is how this process does.
func (n *Node) Health(ctx context.Context) client.Health {
	h := client.Health{OK: true, Version: Version(), Node: n.id, Database: "sqlite", Uptime: time.Since(n.began), Doors: n.Doors()}
	if n.Store.Clustered() {
		h.Database = "postgres"
	}
	if err := n.Store.Ping(ctx); err != nil {
		h.OK, h.Problems = false, append(h.Problems, "the database does not answer")
	}
	takes, refusing := n.Store.Disk()
	switch {
	case refusing:
		h.OK, h.Problems = false, append(h.Problems, "the disk of the database does not answer: new mail is refused until it does")
	case takes > diskSlow:
		h.Problems = append(h.Problems, fmt.Sprintf("the disk of the database is slow: a write takes %s", takes.Round(100*time.Millisecond)))
	}
	return h
}

// diskSlow is when a write to the disk is worth a word. A good one takes
// milliseconds.
const diskSlow = time.Second
