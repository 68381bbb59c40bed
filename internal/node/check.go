package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/check"
	"github.com/mailgrant/mailgrant/internal/inbox"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/auto"
	"github.com/mailgrant/mailgrant/internal/provider/smtp"
	"github.com/mailgrant/mailgrant/internal/store"
)

// ways gives one way, whatever mailbox is asked for.
type ways struct{ w provider.Way }

func (w ways) Way(context.Context, mailgrant.Mailbox) (provider.Way, error) { return w.w, nil }

func (n *Node) checkDeps(k check.Keeper) check.Deps {
	return check.Deps{Keeper: k, Transports: n.transports, Choose: auto.Choose, Readers: n.readers, ChooseReader: inbox.Choose, Marks: n.marks(),
		SMTP: n.smtpConfig(), Proxy: n.cfg.Egress.Proxy != ""}
}

func (n *Node) marks() check.Marks { return check.Marks{Hash: n.Vault.Hash} }

// ownMail says whether an arrival is a check's own message.
func (n *Node) ownMail(a mailgrant.Arrival) bool {
	return n.marks().Own(a.Mailbox, a.Subject, time.Now())
}

// table shows a check what comes in.
type table struct{ n *Node }

func (t table) Marked(ctx context.Context, m mailgrant.Mailbox, mark string) (mailgrant.Arrival, error) {
	l, _, err := t.n.Store.Arrivals(ctx, m.Org, store.ArrivalFilter{Mailboxes: []mailgrant.ID{m.ID}, Words: mark, Limit: 1})
	if err != nil {
		return mailgrant.Arrival{}, err
	}
	if len(l) == 0 {
		return mailgrant.Arrival{}, store.Absent("arrival", mailgrant.ID(mark))
	}
	return l[0], nil
}

func (t table) Watch() (<-chan struct{}, func())                  { return t.n.Store.WatchEvents() }
func (t table) Reader(m mailgrant.Mailbox) mailgrant.ReaderStatus { return t.n.Inbox.Status(m) }
func (t table) Read(ctx context.Context, m mailgrant.Mailbox)     { t.n.Inbox.Changed(ctx, m.Org, m.ID) }

// check tests a mailbox. One that passes although it is held need not wait for
// its next probe.
func (n *Node) check(ctx context.Context, m mailgrant.Mailbox, o check.Options, step func(check.Step)) check.Report {
	d := n.checkDeps(n.Keeper)
	d.Table = table{n}
	r := check.Run(ctx, d, m, o, step)
	if r.OK && m.Hold != nil {
		n.Outbox.Wake(m.Org, m.ID)
	}
	return r
}

// prove opens a mailbox with a token of a consent that is not kept yet: as far as
// a check goes without a message. One that is to be read is opened by its reader.
func (n *Node) prove(ctx context.Context, w provider.Way) error {
	m, err := n.Store.MailboxByAddress(ctx, w.Mailbox.Org, w.Mailbox.Address)
	switch {
	case err == nil:
		w.Mailbox.Receive = m.Receive
	case !errors.Is(err, mailgrant.NotFound): // it may be made after its consent
		return err
	}
	w.Mailbox.Transport = provable(ctx, w)
	o := check.Options{NoSend: true, Only: n.provableBy(ctx, w)}
	r := check.Run(ctx, n.checkDeps(ways{w}), w.Mailbox, o, nil)
	for _, s := range r.Steps {
		if s.State != check.Failed || s.Name == mailgrant.StepFolders { // which of its folders are read is no matter of the consent
			continue
		}
		e := mailgrant.Errorf(mailgrant.Forbidden, nil, "%s does not open: %s", w.Mailbox.Address, s.Text)
		if s.Finding != nil {
			e = e.With(*s.Finding)
		}
		return fmt.Errorf("%s: %w", s.Name, e)
	}
	return nil
}

// provableBy is the direction in which a mailbox is opened to prove a consent.
func (n *Node) provableBy(ctx context.Context, w provider.Way) string {
	sends := slices.Contains(w.Grant.Capabilities, mailgrant.CanSMTP) || slices.Contains(w.Grant.Capabilities, mailgrant.CanAPISend)
	if !sends {
		return mailgrant.CheckReceive
	}
	if w.Mailbox.Receive == nil {
		return mailgrant.CheckSend
	}
	r, _, err := inbox.Choose(w, n.readers)
	if err != nil {
		return mailgrant.CheckSend
	}
	can := map[string]mailgrant.Capability{"imap": mailgrant.CanIMAP, "pop": mailgrant.CanPOP, "graph": mailgrant.CanAPIRead}[r.Name]
	if _, err := w.Token(ctx, w.Settings.Resources[can], false); err != nil {
		return mailgrant.CheckSend
	}
	return mailgrant.CheckReceive
}

// provable is the transport whose token there is already: a person's consent
// gives one for its first resource only, until it is kept.
func provable(ctx context.Context, w provider.Way) string {
	if w.Settings.SMTPHost == "" || !slices.Contains(w.Grant.Capabilities, mailgrant.CanSMTP) {
		return auto.Auto
	}
	if _, err := w.Token(ctx, w.Settings.Resources[mailgrant.CanSMTP], false); err != nil {
		return auto.Auto
	}
	return smtp.Name
}
