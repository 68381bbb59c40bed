package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
)

func newMailbox(c *cli) *cobra.Command {
	return group("mailbox", "The addresses that mail leaves and comes by",
		mailboxList(c), mailboxAdd(c), mailboxShow(c), mailboxSet(c), mailboxDelete(c), mailboxResume(c), mailboxReader(c), mailboxMove(c),
		mailboxSwitch(c, "enable", false), mailboxSwitch(c, "disable", true))
}

func mailboxList(c *cli) *cobra.Command {
	return listing(c, "list", "List the mailboxes", (*client.Client).Mailboxes, []string{"ID", "ADDRESS", "ROLE", "KIND", "STATE", "GRANT", "WHY"},
		func(m mailgrant.Mailbox) []string {
			why := ""
			if m.Hold != nil {
				why = m.Hold.Finding.Title
			}
			return []string{string(m.ID), m.Address, string(m.Role), string(m.Kind), mailboxState(m.State, m.GrantState), string(m.Grant), why}
		})
}

// mailboxFlags are those of add and set.
type mailboxFlags struct {
	address, displayName, kind, role, person, grant, transport, life, uncertain string
	senders                                                                     []string
	limits                                                                      mailgrant.Limits
	receive                                                                     receiveFlags
}

func (f *mailboxFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&f.displayName, "display-name", "", "`name` beside the address")
	fs.StringVar(&f.kind, "kind", "", "whose it is (`kind`): own, shared, app (default own)")
	fs.StringVar(&f.role, "role", "", "which mail it carries (`role`): personal, global, system, none (default none)")
	fs.StringVar(&f.person, "person", "", "personal: `address` of its person, where it differs")
	fs.StringVar(&f.grant, "grant", "", "`id` of the grant it sends through; empty takes it away")
	fs.StringVar(&f.transport, "transport", "", "`way` out: auto, smtp, graph, gmail (default auto)")
	fs.StringArrayVar(&f.senders, "sender", nil, "`address` it may send as besides its own, or *@domain"+listHelp)
	fs.IntVar(&f.limits.Connections, "connections", 0, "`number` at a time to its provider; 0 the provider's usual, -1 no limit")
	fs.IntVar(&f.limits.PerMinute, "per-minute", 0, "`number` of messages a minute; 0 the provider's usual, -1 no limit")
	fs.IntVar(&f.limits.RecipientsPerDay, "recipients-per-day", 0, "`number` of recipients a day; 0 the provider's usual, -1 no limit")
	fs.Int64Var(&f.limits.MessageBytes, "message-bytes", 0, "largest message in `bytes`; 0 the provider's usual, -1 no limit")
	fs.StringVar(&f.life, "life", "", "how long (`duration`: 36h, 5d) a submission is tried; 0 for 5 days")
	fs.StringVar(&f.uncertain, "uncertain", "", "what to do with mail whose answer was lost (`policy`): resend, hold (default resend)")
	f.receive.add(fs)
}

func (f *mailboxFlags) settings(cmd *cobra.Command, have mailgrant.Mailbox) (s client.MailboxSettings, err error) {
	r, g, k := role(f.role), mailgrant.ID(f.grant), mailgrant.MailboxKind(f.kind)
	s = client.MailboxSettings{
		DisplayName: given(cmd, "display-name", f.displayName), Kind: given(cmd, "kind", k), Role: given(cmd, "role", r),
		Person: given(cmd, "person", f.person), Grant: given(cmd, "grant", g), Transport: given(cmd, "transport", f.transport),
		Uncertain: given(cmd, "uncertain", f.uncertain),
	}
	// Rules replace the address itself: who adds a sender does not mean to lose it.
	base := have.Senders
	if len(base) == 0 {
		base = []string{have.Address}
	}
	s.Senders = edited(cmd, "sender", base, f.senders)
	limits := have.Limits
	for name, set := range map[string]func(){
		"connections":        func() { limits.Connections = f.limits.Connections },
		"per-minute":         func() { limits.PerMinute = f.limits.PerMinute },
		"recipients-per-day": func() { limits.RecipientsPerDay = f.limits.RecipientsPerDay },
		"message-bytes":      func() { limits.MessageBytes = f.limits.MessageBytes },
	} {
		if cmd.Flags().Changed(name) {
			set()
			s.Limits = &limits
		}
	}
	if cmd.Flags().Changed("life") {
		d, err := duration(f.life)
		if err != nil {
			return s, wrong(cmd, "--life %q is not a duration such as 36h or 5d", f.life)
		}
		life := mailgrant.Duration(d)
		s.Life = &life
	}
	s.Receive, err = f.receive.settings(cmd, have.Receive)
	return s, err
}

func mailboxAdd(c *cli) *cobra.Command {
	var f mailboxFlags
	cmd := &cobra.Command{
		Use: "add ADDRESS", Short: "Make a mailbox; mailgrant grant begin ADDRESS connects it", Args: count(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			s, err := f.settings(cmd, mailgrant.Mailbox{Address: args[0]})
			if err != nil {
				return err
			}
			s.Address = &args[0]
			m, err := cl.CreateMailbox(cmd.Context(), s)
			if err != nil {
				return err
			}
			return c.showMailbox(cmd, cl, m)
		},
	}
	f.add(cmd)
	return cmd
}

func mailboxShow(c *cli) *cobra.Command {
	return showing(c, "show MAILBOX", "Show a mailbox, by address or id", (*client.Client).Mailbox, c.showMailbox)
}

func mailboxSet(c *cli) *cobra.Command {
	var f mailboxFlags
	cmd := &cobra.Command{
		Use: "set MAILBOX", Short: "Change a mailbox", Args: count(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			m, err := cl.Mailbox(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			s, err := f.settings(cmd, m)
			if err != nil {
				return err
			}
			s.Address = given(cmd, "address", f.address)
			if m, err = cl.UpdateMailbox(cmd.Context(), string(m.ID), s); err != nil {
				return err
			}
			return c.showMailbox(cmd, cl, m)
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&f.address, "address", "", "its new `address`")
	return cmd
}

func mailboxDelete(c *cli) *cobra.Command {
	return doing(c, "delete MAILBOX", "Delete a mailbox that has nothing left to send", "deleted", named((*client.Client).DeleteMailbox))
}

func mailboxResume(c *cli) *cobra.Command {
	return doing(c, "resume MAILBOX", "End the hold of a mailbox: the next message shows whether it works", "resumed", named((*client.Client).ResumeMailbox))
}

func mailboxSwitch(c *cli, verb string, disabled bool) *cobra.Command {
	short := map[bool]string{true: "Switch a mailbox off: nothing leaves by it", false: "Switch a mailbox on again"}[disabled]
	return doing(c, verb+" MAILBOX", short, verb+"d", func(cl *client.Client, ctx context.Context, name string) (mailgrant.ID, error) {
		m, err := cl.UpdateMailbox(ctx, name, client.MailboxSettings{Disabled: &disabled})
		return mailgrant.ID(m.Address), err
	})
}

// mailboxState says of a mailbox that is neither held nor switched off what its
// grant keeps it from.
func mailboxState(state mailgrant.MailboxState, grant mailgrant.GrantState) string {
	switch {
	case state != mailgrant.MailboxActive || grant == mailgrant.GrantActive:
		return string(state)
	case grant == "":
		return "no grant"
	}
	return "grant " + string(grant)
}

func (c *cli) showMailbox(cmd *cobra.Command, _ *client.Client, m mailgrant.Mailbox) error {
	return c.show(cmd, m, func(p *printer) {
		role := string(m.Role)
		if role == "" {
			role = "none: only mail that names it"
		}
		life := ""
		if m.Life > 0 {
			life = m.Life.String()
		}
		p.fields("ID", string(m.ID), "Address", m.Address, "Name", m.DisplayName, "Kind", string(m.Kind), "Role", role, "Person", m.Person,
			"Grant", string(m.Grant), "Transport", m.Transport, "Senders", joined(m.Senders), "Limits", limitWords(m.Limits),
			"Life", life, "Uncertain", m.Uncertain, "Received by", receiveWords(m.Receive), "State", mailboxState(m.State, m.GrantState), "Last success", date(m.LastSuccess))
		if h := m.Hold; h != nil {
			p.line("")
			p.line("Held since %s: %s", date(&h.Since), oneLine(h.Finding.Title))
			p.finding(&h.Finding, "  ")
			p.line("  Tried again at %s", date(&h.ProbeAt))
		}
	})
}

// limitWords says which limits are not the provider's.
func limitWords(l mailgrant.Limits) string {
	var words []string
	for _, x := range []struct {
		n    int64
		text string
	}{{int64(l.Connections), "connections"}, {int64(l.PerMinute), "a minute"}, {int64(l.RecipientsPerDay), "recipients a day"}, {l.MessageBytes, "bytes a message"}} {
		switch {
		case x.n > 0:
			words = append(words, strconv.FormatInt(x.n, 10)+" "+x.text)
		case x.n < 0:
			words = append(words, "any "+x.text)
		}
	}
	return joined(words)
}

// span is a duration for people.
func span(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Hour:
		return d.Round(100 * time.Millisecond).String()
	case d < 48*time.Hour:
		return d.Round(time.Minute).String()
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}
