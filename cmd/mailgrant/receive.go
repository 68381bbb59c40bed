package main

import (
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
)

// receiveFlags say how a mailbox is read.
type receiveFlags struct {
	protocol, after, moveTo, since, poll, keep string
	folders                                    []string
}

func (f *receiveFlags) add(fs *pflag.FlagSet) {
	fs.StringVar(&f.protocol, "receive", "", "read it by this `protocol`: auto, imap, pop, graph; off to end it")
	fs.StringArrayVar(&f.folders, "folder", nil, "`folder` to read instead of the inbox"+listHelp)
	fs.StringVar(&f.after, "after-reading", "", "what becomes of read mail at the provider (`what`): leave, mark, move, delete (default leave)")
	fs.StringVar(&f.moveTo, "move-to", "", "`folder` for read mail, with --after-reading move")
	fs.StringVar(&f.since, "receive-since", "", "leave mail alone that is older than this (`date` such as 2026-11-01, a duration such as 7d, or all)")
	fs.StringVar(&f.poll, "poll", "", "ask so often (`duration`: 30s, 5m) where the provider does not tell of new mail; 0 the usual")
	fs.StringVar(&f.keep, "keep", "", "keep received bodies so long (`duration`: 30d); 0 headers only")
}

// receiveNames are the flags that need a mailbox which is read.
var receiveNames = []string{"folder", "after-reading", "move-to", "receive-since", "poll", "keep"}

// settings is have with what was given changed; nil when nothing was.
func (f *receiveFlags) settings(cmd *cobra.Command, have *mailgrant.Receive) (*mailgrant.Receive, error) {
	given := slices.DeleteFunc(slices.Clone(receiveNames), func(n string) bool { return !cmd.Flags().Changed(n) })
	if !cmd.Flags().Changed("receive") && len(given) == 0 {
		return nil, nil
	}
	var r mailgrant.Receive
	switch {
	case have != nil:
		r = *have
	case f.protocol == "" || f.protocol == "off" && len(given) > 0:
		return nil, wrong(cmd, "--%s is for a mailbox that is read: add --receive auto", given[0])
	}
	if f.protocol != "" {
		r.Protocol = f.protocol
	}
	if l := edited(cmd, "folder", r.Folders, f.folders); l != nil {
		r.Folders = *l
	}
	if cmd.Flags().Changed("after-reading") {
		if r.After = mailgrant.AfterRead(f.after); r.After != mailgrant.AfterMove {
			r.MoveTo = ""
		}
	}
	if cmd.Flags().Changed("move-to") {
		r.MoveTo = f.moveTo
	}
	if cmd.Flags().Changed("receive-since") {
		if err := f.cutOff(cmd, &r); err != nil {
			return nil, err
		}
	}
	if cmd.Flags().Changed("poll") {
		d, err := duration(f.poll)
		if err != nil {
			return nil, wrong(cmd, "--poll %q is not a duration such as 30s or 5m", f.poll)
		}
		r.Poll = mailgrant.Duration(d)
	}
	if cmd.Flags().Changed("keep") {
		d, err := duration(f.keep)
		if err != nil {
			return nil, wrong(cmd, "--keep %q is not a duration such as 36h or 30d", f.keep)
		}
		keep := mailgrant.Duration(d)
		r.Keep = &keep
	}
	return &r, nil
}

func (f *receiveFlags) cutOff(cmd *cobra.Command, r *mailgrant.Receive) error {
	r.Since, r.Everything = nil, false
	if f.since == "all" {
		r.Everything = true
		return nil
	}
	if t, err := time.Parse(time.DateOnly, f.since); err == nil {
		r.Since = &t
		return nil
	}
	d, err := duration(f.since)
	if err != nil {
		return wrong(cmd, "--receive-since %q is neither a date such as 2026-11-01 nor a duration such as 7d nor all", f.since)
	}
	t := time.Now().Add(-d).UTC().Truncate(time.Second)
	r.Since = &t
	return nil
}

// receiveWords says for people how a mailbox is read.
func receiveWords(r *mailgrant.Receive) string {
	if r == nil {
		return "nobody: it is not read"
	}
	words := []string{r.Protocol}
	if len(r.Folders) > 0 {
		words = append(words, "folders "+joined(r.Folders))
	}
	switch r.After {
	case mailgrant.AfterMark:
		words = append(words, "then marked as read")
	case mailgrant.AfterMove:
		words = append(words, "then moved to "+r.MoveTo)
	case mailgrant.AfterDelete:
		words = append(words, "then deleted")
	}
	if r.Since != nil {
		words = append(words, "from "+date(r.Since))
	}
	if r.Everything {
		words = append(words, "old mail too")
	}
	return joined(words)
}

func mailboxReader(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "reader MAILBOX", Short: "Say how the reading of a mailbox goes", Args: count(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			s, err := cl.Reader(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return c.show(cmd, s, func(p *printer) {
				tells := ""
				if s.Protocol != "" {
					tells = map[bool]string{true: "by the provider itself", false: "by asking"}[s.Push]
				}
				p.fields("State", string(s.State), "Since", date(&s.Since), "Protocol", s.Protocol, "New mail is noticed", tells, "All read", date(s.LastRead), "Taken", strconv.FormatInt(s.Taken, 10)+" messages since mailgrant was started", "Last arrival", date(s.LastMail))
				if s.Finding != nil {
					p.line("")
					p.line("%s", oneLine(s.Finding.Title))
					p.finding(s.Finding, "  ")
					if s.RetryAt != nil {
						p.line("  Tried again at %s", date(s.RetryAt))
					}
				}
			})
		},
	}
}

func mailboxMove(c *cli) *cobra.Command {
	var o client.MoveOrder
	cmd := &cobra.Command{
		Use: "move MAILBOX --to PROTOCOL", Short: "Have a mailbox read by another protocol without taking a message twice",
		Long: `move has a mailbox read by another protocol: it lists what the other way shows,
recognises what was taken already, switches over, reads all once and counts again.

--dry-run ends after the list. --back takes a move back within a week.`,
		Args: count(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case o.To == "" && !o.Back:
				return wrong(cmd, "say where to: --to imap, --to graph or --to pop; or --back")
			case o.Back && (o.To != "" || o.DryRun):
				return wrong(cmd, "--back stands alone")
			}
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			r, err := cl.Move(cmd.Context(), args[0], o)
			if err != nil {
				return err
			}
			return c.show(cmd, r, func(p *printer) { p.moved(r, o) })
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&o.To, "to", "", "read it by this `protocol`: imap, graph, pop")
	fs.BoolVar(&o.DryRun, "dry-run", false, "only say what would happen")
	fs.BoolVar(&o.Back, "back", false, "read it again as before the last move")
	return cmd
}

func (p *printer) moved(r mailgrant.Move, o client.MoveOrder) {
	if o.Back {
		p.line("%s is read by %s again", r.Address, r.To)
		return
	}
	p.line("%d messages were taken by %s so far", r.Taken, r.From)
	p.line("%d messages are there by %s: %d of them are known, %d will be taken", r.There, r.To, r.Same, r.New)
	switch {
	case r.DryRun:
		p.line("Nothing was changed. To move it: mailgrant mailbox move %s --to %s", r.Address, r.To)
		return
	case r.Finding != nil:
		p.line("It is to be read by %s now, but cannot be:", r.To)
		p.finding(r.Finding, "  ")
	case r.Verified:
		p.line("%s is read by %s now, and all that is there has been taken, once", r.Address, r.To)
	default:
		p.line("%s is read by %s from now on; look how it goes: mailgrant mailbox reader %s", r.Address, r.To, r.Address)
	}
	if r.BackUntil != nil {
		p.line("To take it back until %s: mailgrant mailbox move %s --back", date(r.BackUntil), r.Address)
	}
}
