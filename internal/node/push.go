package node

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider/microsoft"
)

// Where Graph tells of new mail: …/notices/graph/ORGANIZATION/MAILBOX.
const pushPath = "/notices/graph/"

// pushMax bounds what Graph tells at once.
const pushMax = 1 << 20

// push is where the provider of a mailbox may tell of new mail, and what it must
// show. Only an https address can be told to one.
func (n *Node) push(m mailgrant.Mailbox) (url, secret string) {
	base := strings.TrimSuffix(n.cfg.PublicURL, "/")
	if !strings.HasPrefix(base, "https://") {
		return "", ""
	}
	return base + pushPath + string(m.Org) + "/" + string(m.ID), n.pushSecret(m.ID)
}

func (n *Node) pushSecret(mailbox mailgrant.ID) string {
	return hex.EncodeToString(n.Vault.Hash("graph notice", string(mailbox)))
}

// servePush hears Graph. A notice for a mailbox that another node reads goes on to
// it; one without the mailbox's secret wakes nobody.
func (n *Node) servePush(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, pushMax))
	if err != nil {
		status := http.StatusBadRequest
		if large := (*http.MaxBytesError)(nil); errors.As(err, &large) {
			status = http.StatusRequestEntityTooLarge
		}
		w.WriteHeader(status)
		return
	}
	reply, elsewhere := n.notices.Handle(r.URL.Query().Get("validationToken"), body)
	n.tellReader(r.Context(), mailgrant.ID(r.PathValue("org")), mailgrant.ID(r.PathValue("mailbox")), elsewhere)
	if reply.Type != "" {
		h.Set("Content-Type", reply.Type)
	}
	w.WriteHeader(reply.Status)
	if _, err := io.WriteString(w, reply.Body); err != nil {
		n.log.Debug("Graph did not hear the answer", "err", err)
	}
}

// tellReader has the node look that reads a mailbox, and the reader see to its
// subscription where that ends: this node has no such reader now.
func (n *Node) tellReader(ctx context.Context, org, mailbox mailgrant.ID, notices []microsoft.Notice) {
	if !org.Is(mailgrant.PrefixOrganization) || !mailbox.Is(mailgrant.PrefixMailbox) {
		return
	}
	secret := n.pushSecret(mailbox)
	told, ends := false, false
	for _, notice := range notices {
		if notice.From(secret) {
			told, ends = true, ends || notice.Ends()
		}
	}
	if ends {
		n.notices.Doubt(secret)
		if err := n.Store.DoubtReader(ctx, org, mailbox); err != nil && ctx.Err() == nil {
			n.log.Warn("tell a node that Graph ends a subscription", "mailbox", mailbox, "err", err) // its renewal finds it
		}
	}
	if told {
		n.Inbox.Told(ctx, org, mailbox)
	}
}
