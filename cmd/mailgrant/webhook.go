package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
)

func newWebhook(c *cli) *cobra.Command {
	return group("webhook", "The addresses of applications that are told what happens",
		webhookCreate(c), webhookList(c), webhookShow(c), webhookChange(c), webhookRotate(c), webhookDelete(c), webhookTest(c), webhookDeliveries(c), webhookReplay(c))
}

// webhookFlags are those of create and change.
type webhookFlags struct {
	kinds, mailboxes []string
	app              string
	full             bool
	connections      int
}

func (f *webhookFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringArrayVar(&f.kinds, "kind", nil, "`kind` of events it is told of, such as submission.failed or arrival.*; none for all"+listHelp)
	fs.StringArrayVar(&f.mailboxes, "mailbox", nil, "`address` or id of a mailbox whose events it is told of; none for all"+listHelp)
	fs.StringVar(&f.app, "app", "", "only events of this app and its mailboxes, by `name` or id; none for all")
	fs.BoolVar(&f.full, "full", false, "tell with each event what it carries, not with arrivals only")
	fs.IntVar(&f.connections, "connections", 0, "`number` of events it is told of at once (default 4)")
}

func (f *webhookFlags) settings(cmd *cobra.Command, cl *client.Client, have mailgrant.Webhook) (client.WebhookSettings, error) {
	s := client.WebhookSettings{Kinds: edited(cmd, "kind", have.Kinds, f.kinds), Full: given(cmd, "full", f.full), Connections: given(cmd, "connections", f.connections)}
	ids, err := mailboxIDs(cmd.Context(), cl, f.mailboxes)
	if err != nil {
		return s, err
	}
	s.Mailboxes = edited(cmd, "mailbox", have.Mailboxes, ids)
	if !cmd.Flags().Changed("app") {
		return s, nil
	}
	var app mailgrant.ID
	if f.app != "none" {
		app, err = appID(cmd, cl, f.app)
	}
	s.App = &app
	return s, err
}

func webhookCreate(c *cli) *cobra.Command {
	var f webhookFlags
	cmd := &cobra.Command{
		Use: "create NAME URL", Short: "Have an address told what happens; its secret is shown this once", Args: count(2, 2),
		Long: `Have an address told what happens from now on. Its secret, with which the application
sees that it is told by mailgrant, is shown this once and goes to standard output
alone, so that SECRET=$(mailgrant webhook create NAME URL) works.

docs/webhooks.md says what is posted and how an application checks it.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			s, err := f.settings(cmd, cl, mailgrant.Webhook{})
			if err != nil {
				return err
			}
			s.Name, s.URL = &args[0], &args[1]
			w, err := cl.CreateWebhook(cmd.Context(), s)
			if err != nil {
				return err
			}
			return c.showSecret(cmd, w)
		},
	}
	f.add(cmd)
	return cmd
}

// showSecret shows a new secret.
func (c *cli) showSecret(cmd *cobra.Command, w client.SignedWebhook) error {
	if !c.json {
		fmt.Fprintf(cmd.ErrOrStderr(), "The secret of %s, %s. It is shown this once; keep it where only the application can read it.\n", w.Name, w.ID)
		if w.BothUntil != nil {
			fmt.Fprintf(cmd.ErrOrStderr(), "The secret before signs too until %s.\n", date(w.BothUntil))
		}
	}
	return c.show(cmd, w, func(p *printer) { p.line("%s", w.Secret) })
}

func webhookList(c *cli) *cobra.Command {
	return listing(c, "list", "List the webhooks", (*client.Client).Webhooks, []string{"ID", "NAME", "URL", "KINDS", "STATE", "LAST TAKEN"},
		func(w mailgrant.Webhook) []string {
			return []string{string(w.ID), w.Name, w.URL, joined(w.Kinds), string(w.State), date(w.TakenAt)}
		})
}

func webhookShow(c *cli) *cobra.Command {
	return showing(c, "show WEBHOOK", "Show a webhook, by name or id, and what waits for it", (*client.Client).Webhook, c.showWebhook)
}

func (c *cli) showWebhook(cmd *cobra.Command, cl *client.Client, w mailgrant.Webhook) error {
	if c.json {
		return c.show(cmd, w, nil)
	}
	names, err := addresses(cmd.Context(), cl, w.Mailboxes)
	if err != nil {
		return err
	}
	return c.show(cmd, w, func(p *printer) {
		p.fields("ID", string(w.ID), "Name", w.Name, "URL", w.URL, "Kinds", joined(w.Kinds), "Mailboxes", joined(names), "App", string(w.App),
			"With data", yes(w.Full, "yes"), "At once", positive(w.Connections), "State", string(w.State), "Last taken", date(w.TakenAt),
			"Two secrets until", date(w.BothUntil), "Waiting", positive(int(w.Waiting)), "Dead letters", positive(int(w.DeadLetters)))
		p.finding(w.Finding, "")
	})
}

func webhookChange(c *cli) *cobra.Command {
	var f webhookFlags
	var name, address string
	var enable, disable bool
	cmd := &cobra.Command{
		Use: "change WEBHOOK", Short: "Change a webhook, or switch it off and on", Args: count(1, 1),
		Long: `Change a webhook, or switch it off and on. One that is switched on again is told of
what happened meanwhile.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if enable && disable {
				return wrong(cmd, "choose one of --enable and --disable")
			}
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			w, err := cl.Webhook(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			s, err := f.settings(cmd, cl, w)
			if err != nil {
				return err
			}
			s.Name, s.URL = given(cmd, "name", name), given(cmd, "url", address)
			if enable || disable {
				s.Disabled = &disable
			}
			if w, err = cl.UpdateWebhook(cmd.Context(), string(w.ID), s); err != nil {
				return err
			}
			return c.showWebhook(cmd, cl, w)
		},
	}
	f.add(cmd)
	fs := cmd.Flags()
	fs.StringVar(&name, "name", "", "its new `name`")
	fs.StringVar(&address, "url", "", "its new `URL`")
	fs.BoolVar(&enable, "enable", false, "switch it on again")
	fs.BoolVar(&disable, "disable", false, "switch it off")
	return cmd
}

func webhookRotate(c *cli) *cobra.Command {
	var both string
	cmd := &cobra.Command{
		Use: "rotate WEBHOOK", Short: "Give a webhook a new secret; it is shown this once", Args: count(1, 1),
		Long: `Give a webhook a new secret. For a day, or as --both-for says, the secret before signs
too, so that the application can change over meanwhile.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			var r client.Rotation
			if both != "" {
				d, err := duration(both)
				if err != nil {
					return wrong(cmd, "--both-for %q is not a duration such as 24h", both)
				}
				v := mailgrant.Duration(d)
				r.BothFor = &v
			}
			w, err := cl.RotateWebhook(cmd.Context(), args[0], r)
			if err != nil {
				return err
			}
			return c.showSecret(cmd, w)
		},
	}
	cmd.Flags().StringVar(&both, "both-for", "", "how long both sign (`duration`); 0 ends the secret before at once (default 24h)")
	return cmd
}

func webhookDelete(c *cli) *cobra.Command {
	return doing(c, "delete WEBHOOK", "Delete a webhook and all that waits for it", "deleted", named((*client.Client).DeleteWebhook))
}

func webhookTest(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "test WEBHOOK", Short: "Post a test to a webhook, and say what came of it", Args: count(1, 1),
		Long: "Post an event of the kind webhook.test to a webhook, and say what came of it. It exits\nwith 1 when the test was not taken.",
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			d, err := cl.TestWebhook(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if err := c.show(cmd, d, func(p *printer) { p.delivery(d) }); err != nil || d.State == mailgrant.DeliveryTaken {
				return err
			}
			return mailgrant.Errorf(mailgrant.Unavailable, nil, "the test was not taken: %s", d.Error).
				Fix("mend what answers there; set another address: mailgrant webhook change %s --url URL", args[0])
		},
	}
}

func (p *printer) delivery(d mailgrant.Delivery) {
	text := fmt.Sprintf("%s  %s  %s  %s", date(&d.At), d.ID, d.Kind, d.State)
	if d.Status != 0 {
		text += "  " + strconv.Itoa(d.Status)
	}
	p.line("%s  %v  try %d", text, d.Took.Round(time.Millisecond), d.N)
	if d.Error != "" {
		p.line("  %s", oneLine(d.Error))
	}
	if d.Answer != "" && d.State != mailgrant.DeliveryTaken {
		p.line("  Said: %s", oneLine(d.Answer))
	}
	if d.RetryAt != nil {
		p.line("  Tried again %s", date(d.RetryAt))
	}
}

func webhookDeliveries(c *cli) *cobra.Command {
	var dead bool
	var limit int
	cmd := &cobra.Command{
		Use: "deliveries WEBHOOK", Short: "List the last tries to tell a webhook, newest first", Args: count(1, 1),
		Long: `List the last tries to tell a webhook, newest first: for three days, and a thousand at
most. With --dead-letters list what was given up after three days.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			for cursor, left := "", limit; ; {
				page, err := cl.Deliveries(cmd.Context(), args[0], dead, cursor, min(left, eventPage))
				if err != nil {
					return err
				}
				for _, d := range page.Items {
					if err := c.each(cmd, d, func(p *printer) { p.delivery(d) }); err != nil {
						return err
					}
				}
				if left -= len(page.Items); page.Next == "" || left <= 0 {
					return nil
				}
				cursor = page.Next
			}
		},
	}
	cmd.Flags().BoolVar(&dead, "dead-letters", false, "what was given up")
	cmd.Flags().IntVar(&limit, "limit", 50, "at most this `number`")
	return cmd
}

func webhookReplay(c *cli) *cobra.Command {
	var r client.Replay
	var from, to int64
	var since, until, delivery string
	cmd := &cobra.Command{
		Use: "replay WEBHOOK", Short: "Tell a webhook once more", Args: count(1, 1),
		Long: `Tell a webhook once more: of a span of events, by number or by time, of one delivery,
or of all that was given up. Each has the webhook-id that it had before.`,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			r.From, r.To, r.Delivery = given(cmd, "from", from), given(cmd, "to", to), mailgrant.ID(delivery)
			if r.Since, err = ago(cmd, "since", since); err != nil {
				return err
			}
			if r.Until, err = ago(cmd, "until", until); err != nil {
				return err
			}
			if r.From == nil && r.Since == nil && r.Delivery == "" && !r.DeadLetters {
				return wrong(cmd, "say what to tell once more: --since, --from, --delivery or --dead-letters")
			}
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			n, err := cl.ReplayWebhook(cmd.Context(), args[0], r)
			if err != nil {
				return err
			}
			return c.show(cmd, n, func(p *printer) {
				switch {
				case r.DeadLetters:
					p.line("%d dead letters are told once more.", n.DeadLetters)
				case n.From == n.To:
					p.line("Event %d is told once more.", n.From)
				default:
					p.line("What it wants of events %d to %d is told once more.", n.From, n.To)
				}
			})
		},
	}
	fs := cmd.Flags()
	fs.Int64Var(&from, "from", 0, "`number` of the first event")
	fs.Int64Var(&to, "to", 0, "`number` of the last event (default the newest)")
	fs.StringVar(&since, "since", "", "`time` of the first event, or a duration back from now: 2h")
	fs.StringVar(&until, "until", "", "`time` before which the last event was, or a duration back from now (default now)")
	fs.StringVar(&delivery, "delivery", "", "one delivery, by its `id`")
	fs.BoolVar(&r.DeadLetters, "dead-letters", false, "all that was given up")
	return cmd
}

// ago reads a time, or a duration back from now.
func ago(cmd *cobra.Command, flag, text string) (*time.Time, error) {
	if d, err := duration(text); err == nil {
		t := time.Now().Add(-d).UTC()
		return &t, nil
	}
	return moment(cmd, flag, text)
}
