package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
	"github.com/mailgrant/mailgrant/internal/access"
	"github.com/mailgrant/mailgrant/internal/check"
	"github.com/mailgrant/mailgrant/internal/rfc5322"
	"github.com/mailgrant/mailgrant/internal/route"
)

func (c *call) listMailboxes() error {
	return page(c, c.Store.MailboxesAfter, func(m mailgrant.Mailbox) mailgrant.ID { return m.ID })
}

// mailbox finds one by id or address.
func (c *call) mailbox(name string) (mailgrant.Mailbox, error) {
	ctx := c.r.Context()
	if mailgrant.ID(name).Is(mailgrant.PrefixMailbox) {
		return c.Store.Mailbox(ctx, c.by.Org, mailgrant.ID(name))
	}
	m, err := c.Store.MailboxByAddress(ctx, c.by.Org, name)
	if errors.Is(err, mailgrant.NotFound) {
		if n, ok := access.Normal(name); ok && n != name {
			return c.Store.MailboxByAddress(ctx, c.by.Org, n)
		}
	}
	return m, err
}

func (c *call) getMailbox() error {
	m, err := c.mailbox(c.args[0])
	if err != nil {
		return err
	}
	return c.reply(m)
}

func (c *call) createMailbox() error {
	var s client.MailboxSettings
	if err := c.decode(&s); err != nil {
		return err
	}
	m := mailgrant.Mailbox{Org: c.by.Org}
	setMailbox(&m, s)
	if err := c.checkMailbox(&m); err != nil {
		return err
	}
	made, err := c.Mailboxes.CreateMailbox(c.r.Context(), m)
	if err != nil {
		return err
	}
	if m.State == mailgrant.MailboxDisabled { // a new one is active: it is switched off as a change
		made.State = m.State
		if made, err = c.Mailboxes.UpdateMailbox(c.r.Context(), made); err != nil {
			return err
		}
	}
	if made, err = c.Store.Mailbox(c.r.Context(), made.Org, made.ID); err != nil { // with what follows from its grant
		return err
	}
	return c.made(made, "/v1/mailboxes/"+string(made.ID))
}

func setMailbox(m *mailgrant.Mailbox, s client.MailboxSettings) {
	set(&m.Address, s.Address)
	set(&m.DisplayName, s.DisplayName)
	set(&m.Kind, s.Kind)
	set(&m.Role, s.Role)
	set(&m.Person, s.Person)
	set(&m.Grant, s.Grant)
	set(&m.Transport, s.Transport)
	set(&m.Senders, s.Senders)
	set(&m.Limits, s.Limits)
	set(&m.Life, s.Life)
	set(&m.Uncertain, s.Uncertain)
	if s.Receive != nil {
		m.Receive = s.Receive
		if s.Receive.Protocol == "off" {
			m.Receive = nil
		}
	}
	if s.Disabled != nil {
		m.State = mailgrant.MailboxActive
		if *s.Disabled {
			m.State = mailgrant.MailboxDisabled
		}
	}
}

const lifeMax = mailgrant.Duration(60 * 24 * time.Hour)

// checkMailbox sees to what the rules about mailboxes leave open.
func (c *call) checkMailbox(m *mailgrant.Mailbox) error {
	if m.DisplayName != "" {
		if err := checkName(&m.DisplayName, "a mailbox"); err != nil {
			return mailgrant.AsError(err).At("display_name")
		}
	}
	if m.Person != "" {
		a, err := rfc5322.ParseAddress(m.Person)
		if err != nil {
			return mailgrant.Errorf(mailgrant.Invalid, err, "the person of a mailbox is not an address").Fix("write it as name@domain").At("person")
		}
		m.Person = a.String()
	}
	l := m.Limits
	if l.Connections < -1 || l.PerMinute < -1 || l.RecipientsPerDay < -1 || l.MessageBytes < -1 || l.PerMinute > 1_000_000 || l.Connections > 1000 {
		return mailgrant.Errorf(mailgrant.Invalid, nil, "a limit is out of range").Fix("use 0 for the provider's usual figure and -1 for none").At("limits")
	}
	if r := m.Receive; r != nil && r.Keep != nil && c.KeepArrivals > 0 && time.Duration(*r.Keep) > c.KeepArrivals {
		return mailgrant.Errorf(mailgrant.Invalid, nil, "received mail is kept for %s here, and its body no longer", c.KeepArrivals).
			Fix("choose a shorter time, or raise keep.arrivals in the settings").At("receive.keep")
	}
	if m.Life > lifeMax {
		return mailgrant.Errorf(mailgrant.Invalid, nil, "a submission cannot be tried for longer than 60 days").Fix("choose a shorter life").At("life")
	}
	return nil
}

func (c *call) updateMailbox() error {
	m, err := c.mailbox(c.args[0])
	if err != nil {
		return err
	}
	var s client.MailboxSettings
	if err := c.decode(&s); err != nil {
		return err
	}
	setMailbox(&m, s)
	if err := c.checkMailbox(&m); err != nil {
		return err
	}
	if m, err = c.Mailboxes.UpdateMailbox(c.r.Context(), m); err != nil {
		return err
	}
	return c.reply(m)
}

func (c *call) deleteMailbox() error {
	if err := c.nothing(); err != nil {
		return err
	}
	m, err := c.mailbox(c.args[0])
	if err != nil {
		return err
	}
	if err := c.Mailboxes.DeleteMailbox(c.r.Context(), m.Org, m.ID); err != nil {
		return err
	}
	return c.done()
}

func (c *call) resumeMailbox() error {
	if err := c.nothing(); err != nil {
		return err
	}
	m, err := c.mailbox(c.args[0])
	if err != nil {
		return err
	}
	if err := c.Mailboxes.ResumeMailbox(c.r.Context(), m.Org, m.ID); err != nil {
		return err
	}
	return c.done()
}

const (
	ndjsonType   = "application/x-ndjson"
	checksAtOnce = 16
)

// A checkLine is one line of a check under way: a step, and at the end the report.
type checkLine struct {
	Step   *mailgrant.CheckStep   `json:"step,omitempty"`
	Report *mailgrant.CheckReport `json:"report,omitempty"`
}

// checkMailboxNow tests a mailbox, telling each step as it ends to who asks for
// lines.
func (c *call) checkMailboxNow() error {
	if err := c.nothing(); err != nil {
		return err
	}
	m, err := c.mailbox(c.args[0])
	if err != nil {
		return err
	}
	select {
	case c.checks <- struct{}{}:
		defer func() { <-c.checks }()
	default:
		return mailgrant.Errorf(mailgrant.Limited, nil, "%d mailboxes are being checked already", checksAtOnce).After(time.Minute).Fix("try again in a minute")
	}
	o := check.Options{NoSend: c.q.str("send") == "false"}
	if !c.accepts(ndjsonType) {
		return c.reply(c.Check(c.r.Context(), m, o, nil))
	}
	c.stream(ndjsonType)
	out := json.NewEncoder(c.slowly(c.w))
	tell := func(l checkLine) {
		if err := out.Encode(l); err == nil {
			err = http.NewResponseController(c.w).Flush()
			c.unheard(err)
		}
	}
	report := c.Check(c.r.Context(), m, o, func(s check.Step) { tell(checkLine{Step: &s}) })
	tell(checkLine{Report: &report})
	return nil
}

// stream begins an answer whose length nobody knows.
func (c *call) stream(kind string) {
	c.w.Header().Set("Content-Type", kind)
	c.begun = true
	c.w.WriteHeader(c.route.status)
}

func (c *call) unheard(err error) {
	if err != nil {
		c.Log.Debug("an answer was not heard", "trace", c.trace, "err", err)
	}
}

// explainRoute says which mailbox would carry a message of this caller, and why.
func (c *call) explainRoute() error {
	from, err := rfc5322.ParseAddress(c.q.str("from"))
	if err != nil {
		return mailgrant.AsError(err).At("from")
	}
	q := route.Request{Class: mailgrant.Class(c.q.str("class")), OnBehalfOf: c.q.str("on_behalf_of"), From: from.String()}
	if name := c.q.str("mailbox"); name != "" {
		if q.Named, err = c.namedMailbox(name); err != nil {
			return err
		}
	}
	r, m, err := c.Router.Choose(c.r.Context(), c.by, q)
	if err != nil {
		return err
	}
	if err := c.Access.MaySend(c.r.Context(), c.by, m, []string{q.From}); err != nil {
		return err
	}
	return c.reply(r)
}

// namedMailbox is the id of a mailbox that the caller chooses itself.
func (c *call) namedMailbox(name string) (mailgrant.ID, error) {
	m, err := c.mailbox(name)
	if err != nil {
		return "", err
	}
	if !c.by.Operator && !access.MayName(c.by.App, m) {
		return "", mailgrant.Errorf(mailgrant.Forbidden, nil, "the app %s may not use %s", c.by.App.Name, m.Address).
			Fix("name no mailbox, or allow it: mailgrant app set %s --mailbox %s", c.by.App.Name, m.Address).See("refused-mailbox").At("mailbox")
	}
	return m.ID, nil
}
