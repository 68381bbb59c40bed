package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
)

// A beginning is a grant from an address: what is there already is used, what is
// missing is made.
type beginning struct {
	registration, kind, role string
	capabilities             []string
	app, device, fresh, wait bool
	timeout                  time.Duration

	later bool // the mailbox has a grant, and keeps it until the new one is consented to
}

func newBegin(c *cli) *cobra.Command {
	var b beginning
	cmd := &cobra.Command{
		Use: "begin ADDRESS|GRANT", Short: "Connect a mailbox: begin its consent, and make what is missing for it", Args: count(1, 1),
		Long: `Connect a mailbox: begin its consent, and make what is missing for it.

The provider is found from the address, and the registration at it; --registration
chooses where there are several. A grant and the mailbox are made when they are not
there, and the link to open is printed: it works once and for three days, so it can
be sent to the owner of the mailbox. With --device a code is printed instead, with
--app nobody signs in: an administrator approves once, then the app itself sends.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if b.app && b.device {
				return wrong(cmd, "--app and --device exclude each other: with --app nobody signs in")
			}
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			g, m, err := b.prepare(cmd, cl, args[0])
			if err != nil {
				return err
			}
			return b.begin(cmd, c, cl, begun{Grant: &g, Mailbox: m})
		},
	}
	f := cmd.Flags()
	f.StringVar(&b.registration, "registration", "", "`name` or id of the registration")
	f.StringVar(&b.kind, "kind", "", "whose mailbox it is (`kind`): own, shared, app (default own; app with --app)")
	f.StringVar(&b.role, "role", "", "which mail the mailbox carries (`role`): personal, global, system, none")
	f.StringSliceVar(&b.capabilities, "capability", nil, "`capability` to ask for besides those of the grant: smtp, imap, pop, api_send, api_read, signin; again for more, -X leaves X out (default of a new one: what sending needs)")
	f.BoolVar(&b.app, "app", false, "the app itself, without a person: client credentials")
	f.BoolVar(&b.device, "device", false, "a code to enter on another device, where the operator allows it")
	f.BoolVar(&b.fresh, "new", false, "make another grant although there is one")
	f.BoolVar(&b.wait, "wait", false, "wait until the consent is given")
	f.DurationVar(&b.timeout, "timeout", 0, "with --wait: give up after this `duration` (default when the link ends)")
	return cmd
}

// begun is what a beginning answers, and with --wait what becomes of it.
type begun struct {
	Grant   *client.Grant      `json:"grant"`
	Mailbox *mailgrant.Mailbox `json:"mailbox,omitempty"`
	Link    *client.Link       `json:"link,omitempty"`
	Device  *client.DeviceCode `json:"device,omitempty"`
}

// flow is how the grant will be come by.
func (b *beginning) flow() mailgrant.Flow {
	switch {
	case b.app:
		return mailgrant.FlowApp
	case b.device:
		return mailgrant.FlowDevice
	}
	return mailgrant.FlowCode
}

// prepare finds or makes the grant and the mailbox of an address.
func (b *beginning) prepare(cmd *cobra.Command, cl *client.Client, name string) (g client.Grant, m *mailgrant.Mailbox, err error) {
	ctx := cmd.Context()
	if mailgrant.ID(name).Is(mailgrant.PrefixGrant) {
		if g, err = cl.Grant(ctx, mailgrant.ID(name)); err == nil {
			err = b.same(ctx, cl, g)
		}
		if err == nil && (b.app || b.device) && g.Flow != b.flow() {
			flow := b.flow()
			g, err = cl.UpdateGrant(ctx, g.ID, client.GrantSettings{Flow: &flow})
		}
		if err == nil {
			g, err = b.asAsked(ctx, cl, g)
		}
		return g, nil, err
	}
	if !strings.Contains(name, "@") {
		return g, nil, wrong(cmd, "%q is neither an address nor the id of a grant", name)
	}
	if g, err = b.grant(ctx, cl, name); err != nil {
		return g, nil, err
	}
	m, err = b.mailbox(ctx, cl, name, g.ID)
	return g, m, err
}

// same says whether a grant goes by the registration that was named, if one was.
func (b *beginning) same(ctx context.Context, cl *client.Client, g client.Grant) error {
	if b.registration == "" {
		return nil
	}
	r, err := findRegistration(ctx, cl, b.registration)
	if err != nil || r.ID == g.Registration {
		return err
	}
	return mailgrant.Errorf(mailgrant.Conflict, nil, "the grant %s goes by another registration than %s", g.ID, r.Name).
		Fix("leave --registration out, or begin another grant: mailgrant grant begin %s --registration %q", g.Mailbox, r.Name).At("registration")
}

// grant is one for the address that was not revoked, or a new one.
func (b *beginning) grant(ctx context.Context, cl *client.Client, address string) (client.Grant, error) {
	var reg mailgrant.ID
	if b.registration != "" {
		r, err := findRegistration(ctx, cl, b.registration)
		if err != nil {
			return client.Grant{}, err
		}
		reg = r.ID
	}
	if !b.fresh {
		have, err := b.have(ctx, cl, address, reg)
		if err != nil {
			return client.Grant{}, err
		}
		if len(have) > 0 {
			return b.asAsked(ctx, cl, have[len(have)-1])
		}
	}
	if reg == "" {
		var err error
		if reg, err = b.findRegistration(ctx, cl, address); err != nil {
			return client.Grant{}, err
		}
	}
	flow := b.flow()
	s := b.asked(nil)
	s.Registration, s.Mailbox, s.Flow = &reg, &address, &flow
	return cl.CreateGrant(ctx, s)
}

// have are the grants of an address that go by reg, if it is named, and by the flow
// that was asked for. Where the mailbox uses another registration's, one that was
// begun before counts: it is still to be given.
func (b *beginning) have(ctx context.Context, cl *client.Client, address string, reg mailgrant.ID) ([]client.Grant, error) {
	other := func(g client.Grant) bool {
		return (b.app || b.device) && g.Flow != b.flow() || reg != "" && g.Registration != reg
	}
	have, err := grantsOf(ctx, cl, address)
	if have = slices.DeleteFunc(have, other); err != nil || len(have) > 0 || reg == "" {
		return have, err
	}
	have, err = grantsFor(ctx, cl, address)
	return slices.DeleteFunc(have, other), err
}

// asAsked is a grant that is there, with what the flags ask for.
func (b *beginning) asAsked(ctx context.Context, cl *client.Client, g client.Grant) (client.Grant, error) {
	s := b.asked(g.Capabilities)
	if s.MailboxKind != nil && *s.MailboxKind == g.MailboxKind {
		s.MailboxKind = nil
	}
	if s.Capabilities != nil && slices.Equal(*s.Capabilities, g.Capabilities) {
		s.Capabilities = nil
	}
	if s.MailboxKind == nil && s.Capabilities == nil {
		return g, nil
	}
	return cl.UpdateGrant(ctx, g.ID, s)
}

// asked is what the flags say of a grant that covers have.
func (b *beginning) asked(have []mailgrant.Capability) (s client.GrantSettings) {
	if k := b.mailboxKind(); k != "" {
		s.MailboxKind = &k
	}
	if len(b.capabilities) > 0 {
		list := withEdits(have, b.capabilities)
		s.Capabilities = &list
	}
	return s
}

func (b *beginning) mailboxKind() mailgrant.MailboxKind {
	if b.kind == "" && b.app {
		return mailgrant.MailboxApp
	}
	return mailgrant.MailboxKind(b.kind)
}

// findRegistration is the one that fits the provider of the address.
func (b *beginning) findRegistration(ctx context.Context, cl *client.Client, address string) (mailgrant.ID, error) {
	all, err := cl.Registrations(ctx)
	if err != nil {
		return "", err
	}
	all = slices.DeleteFunc(all, func(r client.Registration) bool { return r.Disabled })
	d, err := cl.Discover(ctx, address)
	if err != nil {
		return "", err
	}
	fit := slices.DeleteFunc(slices.Clone(all), func(r client.Registration) bool { return !fits(r, d) })
	switch {
	case len(fit) == 1:
		return fit[0].ID, nil
	case len(fit) > 1:
		return "", mailgrant.Errorf(mailgrant.Conflict, nil, "%d registrations fit %s: %s", len(fit), address, names(fit)).
			Fix("say which: mailgrant grant begin %s --registration NAME", address).At("registration")
	case d.Template == "" && len(all) == 1:
		return all[0].ID, nil
	case d.Template == "":
		return "", mailgrant.Errorf(mailgrant.NotFound, nil, "nobody knows who keeps the mail of %s: %s", address, d.Reason).
			Fix("say by which registration it goes: mailgrant grant begin %s --registration NAME", address).At("registration")
	}
	add := fmt.Sprintf("mailgrant registration add --for %s", address)
	return "", mailgrant.Errorf(mailgrant.NotFound, nil, "%s is with %s, and there is no registration for it", address, d.Name).
		Fix("register there and make it here: %s; or name one that fits: mailgrant grant begin %s --registration NAME", add, address).At("registration")
}

// fits says whether a registration can serve what an address was found to be.
func fits(r client.Registration, d client.Discovery) bool {
	if r.Template != d.Template {
		return false
	}
	if d.Cloud != "" && r.Cloud != "" && r.Cloud != d.Cloud {
		return false
	}
	for _, t := range []string{"", "common", "organizations", d.Tenant, d.Domain} {
		if strings.EqualFold(r.Tenant, t) {
			return true
		}
	}
	return d.Tenant == "" || strings.Contains(r.Tenant, ".") // another domain may be of the same tenant
}

func names(all []client.Registration) string {
	list := make([]string, len(all))
	for i, r := range all {
		list[i] = r.Name
	}
	return joined(list)
}

// mailbox makes the mailbox of the address, or gives the one that is there the
// grant and the role.
func (b *beginning) mailbox(ctx context.Context, cl *client.Client, address string, grant mailgrant.ID) (*mailgrant.Mailbox, error) {
	m, err := cl.Mailbox(ctx, address)
	s := client.MailboxSettings{Grant: &grant}
	if b.role != "" {
		r := role(b.role)
		s.Role = &r
	}
	if k := b.mailboxKind(); k != "" {
		s.Kind = &k
	}
	if b.later = err == nil && m.Grant != "" && m.Grant != grant; b.later {
		s.Grant = nil
	}
	switch {
	case err != nil && mailgrant.AsError(err).Code == mailgrant.NotFound:
		s.Address = &address
		m, err = cl.CreateMailbox(ctx, s)
	case err == nil && (s.Grant != nil && m.Grant != grant || s.Role != nil && *s.Role != m.Role || s.Kind != nil && *s.Kind != m.Kind):
		m, err = cl.UpdateMailbox(ctx, string(m.ID), s)
	}
	return &m, err
}

// take gives a mailbox the grant that was consented to, where it had another.
func (b *beginning) take(ctx context.Context, cl *client.Client, x *begun) error {
	if !b.later || x.Mailbox == nil {
		return nil
	}
	m, err := cl.UpdateMailbox(ctx, string(x.Mailbox.ID), client.MailboxSettings{Grant: &x.Grant.ID})
	x.Mailbox = &m
	return err
}

// begin starts the flow of the grant, prints what a person must do, and waits when
// it is asked to.
func (b *beginning) begin(cmd *cobra.Command, c *cli, cl *client.Client, x begun) error {
	switch x.Grant.Flow {
	case mailgrant.FlowApp:
		return b.beginApp(cmd, c, cl, x)
	case mailgrant.FlowDevice:
		return b.beginDevice(cmd, c, cl, x)
	}
	l, err := cl.Link(cmd.Context(), x.Grant.ID, linkConsent)
	if err != nil {
		return err
	}
	x.Link = &l
	if err := c.each(cmd, x, func(p *printer) {
		p.line("Open this link, or send it to the owner of %s. It works once, until %s:", x.Grant.Mailbox, date(&l.ExpiresAt))
		p.line("")
		p.line("  %s", l.URL)
		if b.later && !b.wait {
			p.line("")
			p.line("%s keeps the grant it has. When this one is given:", x.Grant.Mailbox)
			p.line("  mailgrant mailbox set %s --grant %s", x.Grant.Mailbox, x.Grant.ID)
		}
	}); err != nil {
		return err
	}
	return b.waitFor(cmd, c, cl, x, l.ExpiresAt, func(ctx context.Context) (client.Grant, bool, error) {
		g, err := cl.Grant(ctx, x.Grant.ID)
		return g, renewed(*x.Grant, g), err
	})
}

// renewed says whether a consent was given between two looks at a grant.
func renewed(before, now client.Grant) bool {
	return now.State == mailgrant.GrantActive && now.ConsentedAt != nil && (before.ConsentedAt == nil || now.ConsentedAt.After(*before.ConsentedAt))
}

// beginApp tries whether the app may already; if not, an administrator must say so.
func (b *beginning) beginApp(cmd *cobra.Command, c *cli, cl *client.Client, x begun) error {
	g, err := cl.Activate(cmd.Context(), x.Grant.ID)
	if err == nil {
		x.Grant = &g
		if err := b.take(cmd.Context(), cl, &x); err != nil {
			return err
		}
		return c.each(cmd, x, func(p *printer) { p.line("%s is connected: the app itself sends, nobody has to sign in.", g.Mailbox) })
	}
	refused := mailgrant.AsError(err)
	if refused.Code.Temporary() || refused.Finding == nil || refused.Finding.Who != mailgrant.WhoTenantAdmin {
		return err
	}
	l, lerr := cl.Link(cmd.Context(), x.Grant.ID, linkAdmin)
	if lerr != nil { // a provider without such an address: what it said itself is the better answer
		return err
	}
	x.Link = &l
	if err := c.each(cmd, x, func(p *printer) {
		p.finding(refused.Finding, "")
		p.line("")
		p.line("An administrator opens this link, until %s:", date(&l.ExpiresAt))
		p.line("")
		p.line("  %s", l.URL)
	}); err != nil {
		return err
	}
	return b.waitFor(cmd, c, cl, x, l.ExpiresAt, func(ctx context.Context) (client.Grant, bool, error) {
		g, err := cl.Activate(ctx, x.Grant.ID)
		if e := mailgrant.AsError(err); e != nil && e.Finding != nil { // not yet, as the provider sees it
			return g, false, nil
		}
		return g, err == nil, err
	})
}

func (b *beginning) beginDevice(cmd *cobra.Command, c *cli, cl *client.Client, x begun) error {
	d, err := cl.BeginDevice(cmd.Context(), x.Grant.ID)
	if err != nil {
		return err
	}
	x.Device = &d
	if err := c.each(cmd, x, func(p *printer) {
		p.line("Open %s and enter %s, until %s.", d.VerificationURI, d.UserCode, date(&d.ExpiresAt))
		p.line("Sign in as the owner of %s. Nobody else may ask you for this code.", x.Grant.Mailbox)
	}); err != nil {
		return err
	}
	b.wait = true // the code is good for nothing when nobody asks for its answer
	return b.waitFor(cmd, c, cl, x, d.ExpiresAt, func(ctx context.Context) (client.Grant, bool, error) {
		s, err := cl.PollDevice(ctx, x.Grant.ID, d.Flow)
		if err != nil || !s.Done || s.Grant == nil {
			return client.Grant{}, false, err
		}
		return *s.Grant, true, nil
	})
}

// look is between two looks whether a person is through: short enough not to be
// waited for, and no load.
const look = time.Second

// waitFor looks until the consent is given, and says who gave it.
func (b *beginning) waitFor(cmd *cobra.Command, c *cli, cl *client.Client, x begun, until time.Time, is func(context.Context) (client.Grant, bool, error)) error {
	if !b.wait {
		return nil
	}
	if b.timeout > 0 {
		until = time.Now().Add(b.timeout)
	}
	ctx, cancel := context.WithDeadline(cmd.Context(), until)
	defer cancel()
	if !c.json && isTerminal(cmd.ErrOrStderr()) {
		fmt.Fprintln(cmd.ErrOrStderr(), "Waiting. Ctrl-C ends only the waiting.")
	}
	for {
		g, done, err := is(ctx)
		switch {
		case errors.Is(ctx.Err(), context.DeadlineExceeded):
			return mailgrant.Errorf(mailgrant.Lapsed, nil, "nobody consented for %s in time", x.Grant.Mailbox).
				Fix("begin again: mailgrant grant begin %s --wait", x.Grant.ID)
		case err != nil && !mailgrant.AsError(err).Code.Temporary():
			return err
		case done:
			x.Grant, x.Link, x.Device = &g, nil, nil
			if err := b.take(ctx, cl, &x); err != nil {
				return err
			}
			return c.each(cmd, x, func(p *printer) { p.connected(g) })
		}
		select {
		case <-ctx.Done():
		case <-time.After(look):
		}
	}
}

func (p *printer) connected(g client.Grant) {
	who := g.Subject.UPN
	if who == "" {
		who = g.Subject.Address
	}
	if who == "" || strings.EqualFold(who, g.Mailbox) {
		p.line("%s is connected.", g.Mailbox)
		return
	}
	p.line("%s is connected; %s signed in.", g.Mailbox, who)
}
