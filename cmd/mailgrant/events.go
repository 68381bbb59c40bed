package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
)

func newEvents(c *cli) *cobra.Command {
	var f client.EventFilter
	var subject, app, mailbox string
	var follow bool
	cmd := &cobra.Command{
		Use: "events", Short: "List what happened, or follow what happens", Args: count(0, 0),
		Long: `List what happened, oldest first. With --follow go on with what happens: from now,
or after --after. A connection that breaks is made again, after the last event seen.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			f.Subject = mailgrant.ID(subject)
			if f.App, err = appID(cmd, cl, app); err != nil {
				return err
			}
			if f.Mailbox, err = mailboxID(cmd, cl, mailbox); err != nil {
				return err
			}
			if !follow {
				return c.events(cmd, cl, f)
			}
			if !cmd.Flags().Changed("after") {
				f.After = -1
			}
			return c.follow(cmd, cl, f)
		},
	}
	fs := cmd.Flags()
	fs.Int64Var(&f.After, "after", 0, "`number` of the last event already seen")
	fs.StringArrayVar(&f.Kinds, "kind", nil, "only this `kind`, such as submission.delivered or arrival.*; again for more")
	fs.StringVar(&subject, "subject", "", "only about this `id`")
	fs.StringVar(&app, "app", "", "only of this app, by `name` or id")
	fs.StringVar(&mailbox, "mailbox", "", "only of this mailbox, by `address` or id")
	fs.IntVar(&f.Limit, "limit", 0, "at most this `number` (default all)")
	fs.BoolVar(&follow, "follow", false, "go on until interrupted")
	return cmd
}

func appID(cmd *cobra.Command, cl *client.Client, name string) (mailgrant.ID, error) {
	if name == "" || mailgrant.ID(name).Is(mailgrant.PrefixApp) {
		return mailgrant.ID(name), nil
	}
	a, err := cl.App(cmd.Context(), name)
	return a.ID, err
}

func mailboxID(cmd *cobra.Command, cl *client.Client, name string) (mailgrant.ID, error) {
	if name == "" || mailgrant.ID(name).Is(mailgrant.PrefixMailbox) {
		return mailgrant.ID(name), nil
	}
	m, err := cl.Mailbox(cmd.Context(), name)
	return m.ID, err
}

// eventPage is how many are fetched at a time.
const eventPage = 500

// events lists to the end of the log, or to the limit.
func (c *cli) events(cmd *cobra.Command, cl *client.Client, f client.EventFilter) error {
	left := f.Limit
	for {
		f.Limit = eventPage
		if left > 0 {
			f.Limit = min(left, eventPage)
		}
		page, err := cl.Events(cmd.Context(), f)
		if err != nil {
			return err
		}
		for _, e := range page.Items {
			if err := c.each(cmd, e, func(p *printer) { p.event(e) }); err != nil {
				return err
			}
			f.After = e.Seq
		}
		if left > 0 {
			if left -= len(page.Items); left <= 0 {
				return nil
			}
		}
		if page.Next == "" || len(page.Items) == 0 {
			return nil
		}
	}
}

// again is how long a broken stream is left alone.
const again = 2 * time.Second

// follow shows new events.
func (c *cli) follow(cmd *cobra.Command, cl *client.Client, f client.EventFilter) error {
	return c.watch(cmd, cl, f, func(e mailgrant.Event) error {
		return c.each(cmd, e, func(p *printer) { p.event(e) })
	})
}

// watch goes on with new events. Only the first connection may fail.
func (c *cli) watch(cmd *cobra.Command, cl *client.Client, f client.EventFilter, take func(mailgrant.Event) error) error {
	left, began := f.Limit, false
	f.Limit = 0
	enough := errors.New("enough")
	for {
		start := time.Now()
		err := cl.Watch(cmd.Context(), f, func(e mailgrant.Event) error {
			f.After, began = e.Seq, true
			if err := take(e); err != nil {
				return err
			}
			if left--; left == 0 {
				return enough
			}
			return nil
		})
		began = began || time.Since(start) > again // it stood, and nothing happened
		switch {
		case err == enough:
			return nil
		case cmd.Context().Err() != nil:
			return cmd.Context().Err()
		case !began || !mailgrant.AsError(err).Code.Temporary():
			return err
		}
		if !c.json {
			fmt.Fprintf(cmd.ErrOrStderr(), "%v; going on\n", err)
		}
		if err := pause(cmd.Context(), again); err != nil {
			return err
		}
	}
}

func (p *printer) event(e mailgrant.Event) {
	p.line("%s", strings.TrimRight(fmt.Sprintf("%d  %s  %s  %s  %s", e.Seq, date(&e.At), e.Kind, e.Subject, oneLine(gist(e.Data))), " "))
}

// gist is what of an event's data a person wants on one line: its sentence, where
// it has one, else all of it. --json has everything.
func gist(data json.RawMessage) string {
	var d struct {
		Sentence string             `json:"sentence"`
		Finding  *mailgrant.Finding `json:"finding"`
		Why      string             `json:"why"`

		From       []mailgrant.Address         `json:"from"`
		Subject    string                      `json:"subject"`
		Snippet    string                      `json:"snippet"`
		Recipients []mailgrant.BounceRecipient `json:"recipients"`
	}
	if err := json.Unmarshal(data, &d); err != nil {
		return string(data)
	}
	if d.Finding != nil {
		d.Sentence = d.Finding.Sentence
	}
	switch {
	case d.Sentence != "":
		return d.Sentence
	case d.Why != "":
		return d.Why
	case len(d.From) > 0:
		return senders(d.From) + ": " + strings.TrimSuffix(d.Subject+" | "+d.Snippet, " | ")
	case len(d.Recipients) > 0:
		return d.Recipients[0].Address + " " + d.Recipients[0].Status + " " + d.Recipients[0].Diagnostic
	case string(data) == "{}":
		return ""
	}
	return string(data)
}
