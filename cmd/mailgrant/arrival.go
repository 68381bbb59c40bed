package main

import (
	"context"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
)

func newArrival(c *cli) *cobra.Command {
	return group("arrival", "The mail that came", arrivalList(c), arrivalShow(c), arrivalRaw(c), arrivalSave(c),
		arrivalSet(c, "acknowledge", "Say that a message is dealt with", (*client.Client).Acknowledge),
		arrivalSet(c, "ignore", "Say that a message is not wanted", (*client.Client).Ignore), arrivalAgain(c))
}

func arrivalList(c *cli) *cobra.Command {
	var f client.ArrivalFilter
	var since string
	var states []string
	var limit int
	cmd := &cobra.Command{
		Use: "list [WORD…]", Short: "List received mail, newest first; with words, what has them in its addresses or subject", Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			f.Words = strings.Join(args, " ")
			if since != "" {
				d, err := duration(since)
				if err != nil {
					return wrong(cmd, "--since %q is not a duration such as 36h or 7d", since)
				}
				f.Since = time.Now().Add(-d)
			}
			for _, s := range states {
				f.States = append(f.States, mailgrant.ArrivalState(s))
			}
			all, err := arrivals(cmd, cl, f, limit)
			if err != nil {
				return err
			}
			return c.show(cmd, list(all), func(p *printer) {
				var rows [][]string
				for _, a := range all {
					rows = append(rows, []string{string(a.ID), date(&a.NoticedAt), string(a.State), senders(a.From), oneLine(a.Subject)})
				}
				p.table([]string{"ID", "NOTICED", "STATE", "FROM", "SUBJECT"}, rows)
			})
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&f.Mailbox, "mailbox", "", "only of this mailbox, by `address` or id")
	fs.StringSliceVar(&states, "state", nil, "only in this `state`: new, delivered, acknowledged, ignored, quarantined; again for more")
	fs.StringVar(&since, "since", "", "only what came within this `duration`: 36h, 7d")
	fs.BoolVar(&f.Oldest, "oldest", false, "the oldest first")
	fs.IntVar(&limit, "limit", 50, "at most this `number`; 0 for all")
	return cmd
}

// arrivals reads pages until there are enough.
func arrivals(cmd *cobra.Command, cl *client.Client, f client.ArrivalFilter, limit int) (all []mailgrant.Arrival, err error) {
	for {
		if f.Limit = 100; limit > 0 {
			f.Limit = min(100, limit-len(all))
		}
		page, err := cl.Arrivals(cmd.Context(), f)
		if err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
		if f.Cursor = page.Next; f.Cursor == "" || limit > 0 && len(all) >= limit {
			return all, nil
		}
	}
}

func senders(l []mailgrant.Address) string {
	var words []string
	for _, a := range l {
		words = append(words, oneLine(a.Address))
	}
	return joined(words)
}

func arrivalShow(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "show ARRIVAL", Short: "Show a received message with its text", Args: count(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			a, err := cl.Arrival(cmd.Context(), mailgrant.ID(args[0]))
			if err != nil {
				return err
			}
			return c.show(cmd, a, func(p *printer) { p.arrival(a) })
		},
	}
}

func (p *printer) arrival(a client.FullArrival) {
	p.fields("ID", string(a.ID), "State", string(a.State), "Mailbox", string(a.Mailbox), "Folder", oneLine(a.Folder), "Noticed", date(&a.NoticedAt), "Received", date(&a.ReceivedAt),
		"From", senders(a.From), "To", senders(a.To), "Cc", senders(a.Cc), "Subject", oneLine(a.Subject), "Message-ID", oneLine(a.MessageID), "Size", strconv.FormatInt(a.Size, 10)+" bytes",
		"Automatic", oneLine(a.Auto), "Not read", oneLine(a.Unparsed))
	for _, r := range a.AuthResult {
		if r.Topmost {
			by := oneLine(r.Server)
			if by == "" {
				by = "the provider" // Exchange does not name itself
			}
			p.line("  %s says: %s", by, strings.TrimRight(oneLine(r.Method)+" "+oneLine(r.Result)+" "+oneLine(r.Domain), " "))
		}
	}
	if b := a.Bounce; b != nil {
		p.line("")
		p.line("It came back: %s %s", b.Submission, oneLine(b.MessageID))
		for _, r := range b.Recipients {
			p.line("  %s %s %s: %s", oneLine(r.Address), oneLine(r.Action), oneLine(r.Status), oneLine(r.Diagnostic))
		}
	}
	if a.Finding != nil {
		p.line("")
		p.finding(a.Finding, "  ")
	}
	for _, f := range a.Parts {
		p.line("  attachment %d: %s (%s, %d bytes)", f.N, oneLine(f.Name), oneLine(f.Type), f.Size)
	}
	if a.Text != "" {
		p.line("")
		for line := range strings.Lines(a.Text) {
			p.line("%s", oneLine(strings.TrimRight(line, "\r\n")))
		}
	}
}

func arrivalRaw(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "raw ARRIVAL", Short: "Print the bytes of a received message", Args: count(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			r, err := cl.ArrivalRaw(cmd.Context(), mailgrant.ID(args[0]))
			return copied(cmd.OutOrStdout(), r, err)
		},
	}
}

// copied writes r, which may not be there, to w.
func copied(w io.Writer, r io.ReadCloser, err error) error {
	if err != nil {
		return err
	}
	defer r.Close()
	if _, err := io.Copy(w, r); err != nil {
		return mailgrant.Errorf(mailgrant.Unavailable, err, "the message was broken off: %v", err).Fix("try again")
	}
	return nil
}

func arrivalSave(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "save ARRIVAL NUMBER FILE", Short: "Save an attachment of a received message; - prints it", Args: count(3, 3),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			n, err := strconv.Atoi(args[1])
			if err != nil {
				return wrong(cmd, "%q is not the number of an attachment", args[1])
			}
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			r, err := cl.Attachment(cmd.Context(), mailgrant.ID(args[0]), n)
			if err != nil || args[2] == "-" {
				return copied(cmd.OutOrStdout(), r, err)
			}
			f, err := os.OpenFile(args[2], os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) // never over something that is there
			if err != nil {
				r.Close()
				return mailgrant.Errorf(mailgrant.Invalid, err, "the file cannot be made: %v", err).Fix("name another one")
			}
			err = copied(f, r, nil)
			if e := f.Close(); err == nil && e != nil {
				err = mailgrant.Errorf(mailgrant.NoSpace, e, "the file cannot be written: %v", e).Fix("make room, or name another one")
			}
			if err != nil {
				os.Remove(args[2])
				return err
			}
			return c.done(cmd, mailgrant.ID(args[2]), "saved")
		},
	}
}

func arrivalSet(c *cli, verb, short string, set func(*client.Client, context.Context, mailgrant.ID) (mailgrant.Arrival, error)) *cobra.Command {
	return &cobra.Command{
		Use: verb + " ARRIVAL", Short: short, Args: count(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			a, err := set(cl, cmd.Context(), mailgrant.ID(args[0]))
			if err != nil {
				return err
			}
			return c.done(cmd, a.ID, string(a.State))
		},
	}
}

func arrivalAgain(c *cli) *cobra.Command {
	return doing(c, "read-again ARRIVAL", "Have a message read once more that its provider did not give", "to be read again", named((*client.Client).ReadAgain))
}
