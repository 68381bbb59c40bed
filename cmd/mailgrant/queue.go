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

func newQueue(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use: "queue", Short: "What waits to be sent, by mailbox", Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknown(cmd, args[0])
			}
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			all, err := cl.Queue(cmd.Context())
			if err != nil {
				return err
			}
			return c.show(cmd, list(all), func(p *printer) {
				var rows [][]string
				for _, w := range all {
					why := ""
					if w.Hold != nil {
						why = "held: " + w.Hold.Finding.Title
					}
					rows = append(rows, []string{w.Address, strconv.FormatInt(w.Waiting, 10), date(&w.Oldest), why})
				}
				p.table([]string{"MAILBOX", "WAITING", "OLDEST", "STATE"}, rows)
			})
		},
	}
	cmd.AddCommand(queueList(c), queueShow(c), queueRaw(c), queueCancel(c), queueRetry(c))
	return cmd
}

// unfinished are the states in which something is still to come.
var unfinished = []mailgrant.SubmissionState{mailgrant.SubmissionReady, mailgrant.SubmissionSending, mailgrant.SubmissionUncertain}

func queueList(c *cli) *cobra.Command {
	var f client.SubmissionFilter
	var app, since string
	var states []string
	var every bool
	var limit int
	cmd := &cobra.Command{
		Use: "list", Short: "List the submissions that wait, newest first", Args: count(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			if f.App, err = appID(cmd, cl, app); err != nil {
				return err
			}
			if since != "" {
				d, err := duration(since)
				if err != nil {
					return wrong(cmd, "--since %q is not a duration such as 36h or 7d", since)
				}
				f.Since = time.Now().Add(-d)
			}
			for _, s := range states {
				f.States = append(f.States, mailgrant.SubmissionState(s))
			}
			if len(states) == 0 && !every {
				f.States = unfinished
			}
			all, err := submissions(cmd, cl, f, limit)
			if err != nil {
				return err
			}
			if c.json {
				return c.show(cmd, list(all), nil)
			}
			waiting, err := cl.Queue(cmd.Context())
			if err != nil {
				return err
			}
			return c.show(cmd, nil, func(p *printer) { p.submissions(all, waiting) })
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&f.Mailbox, "mailbox", "", "only by this mailbox, by `address` or id")
	fs.StringVar(&app, "app", "", "only of this app, by `name` or id")
	fs.StringSliceVar(&states, "state", nil, "only in this `state`: ready, sending, uncertain, delivered, failed, cancelled; again for more")
	fs.BoolVar(&every, "all", false, "those that are over too")
	fs.StringVar(&since, "since", "", "only those accepted within this `duration`: 36h, 7d")
	fs.IntVar(&limit, "limit", 100, "at most this `number`; 0 for all")
	return cmd
}

// submissions reads pages until there are enough.
func submissions(cmd *cobra.Command, cl *client.Client, f client.SubmissionFilter, limit int) (all []mailgrant.Submission, err error) {
	for {
		if f.Limit = 100; limit > 0 {
			f.Limit = min(100, limit-len(all))
		}
		page, err := cl.Submissions(cmd.Context(), f)
		if err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
		if f.Cursor = page.Next; f.Cursor == "" || limit > 0 && len(all) >= limit {
			return all, nil
		}
	}
}

// submissions says of those that nobody has tried why their mailbox is held.
func (p *printer) submissions(all []mailgrant.Submission, waiting []client.Waiting) {
	held := map[string]string{}
	for _, w := range waiting {
		if w.Hold != nil {
			held[w.Address] = w.Hold.Finding.Title
		}
	}
	var rows [][]string
	for _, s := range all {
		why := ""
		switch {
		case s.Finding != nil:
			why = s.Finding.Title
		case s.Held && !s.State.Final():
			why = held[s.Route.Address]
		}
		rows = append(rows, []string{string(s.ID), submissionState(s), date(&s.AcceptedAt), s.Route.Address, s.From, first(s.Recipients), strconv.Itoa(s.Attempts), why})
	}
	p.table([]string{"ID", "STATE", "ACCEPTED", "BY", "FROM", "TO", "ATTEMPTS", "WHY"}, rows)
}

func submissionState(s mailgrant.Submission) string {
	if s.Held && !s.State.Final() {
		return string(s.State) + ", held"
	}
	return string(s.State)
}

// first names the first recipient and counts the others.
func first(list []string) string {
	switch len(list) {
	case 0:
		return ""
	case 1:
		return list[0]
	}
	return list[0] + " +" + strconv.Itoa(len(list)-1)
}

// shown is a submission with its attempts.
type shown struct {
	mailgrant.Submission
	History []mailgrant.Attempt `json:"history"`
}

func queueShow(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "show SUBMISSION", Short: "Show a submission and every attempt", Args: count(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			s, err := cl.Submission(cmd.Context(), mailgrant.ID(args[0]))
			if err != nil {
				return err
			}
			all, err := cl.Attempts(cmd.Context(), s.ID)
			if err != nil {
				return err
			}
			return c.show(cmd, shown{s, list(all)}, func(p *printer) {
				p.submission(s)
				for _, a := range all {
					p.attempt(a)
				}
			})
		},
	}
}

func (p *printer) submission(s mailgrant.Submission) {
	due := ""
	if !s.State.Final() {
		due = date(&s.DueAt)
	}
	p.fields("ID", string(s.ID), "State", submissionState(s), "From", s.From, "Envelope from", s.EnvelopeFrom, "To", joined(s.Recipients), "Left", joined(s.Pending),
		"Subject", s.Subject, "Message-ID", s.MessageID, "Size", strconv.FormatInt(s.Size, 10), "Class", string(s.Class), "On behalf of", s.OnBehalfOf,
		"App", string(s.App), "Door", s.Door, "By", s.Route.Address, "Because", s.Route.Reason, "Accepted", date(&s.AcceptedAt), "Due", due,
		"Ends", date(&s.ExpiresAt), "Final", date(s.FinalAt), "Duplicate", yes(s.Duplicate, "possible"), "Key", s.IdempotencyKey, "Trace", string(s.Trace))
}

func queueRaw(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "raw SUBMISSION", Short: "Print the bytes of a submission as they leave", Args: count(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			r, err := cl.Raw(cmd.Context(), mailgrant.ID(args[0]))
			return copied(cmd.OutOrStdout(), r, err)
		},
	}
}

func queueCancel(c *cli) *cobra.Command {
	var mailbox string
	cmd := &cobra.Command{
		Use: "cancel [SUBMISSION…]", Short: "End submissions that are not being sent", Args: count(0, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			ids, err := meant(cmd, cl, args, mailbox)
			if err != nil {
				return err
			}
			return c.every(cmd, ids, cl.Cancel)
		},
	}
	cmd.Flags().StringVar(&mailbox, "mailbox", "", "all that wait in this mailbox, by `address` or id")
	return cmd
}

func queueRetry(c *cli) *cobra.Command {
	var mailbox string
	cmd := &cobra.Command{
		Use: "retry [SUBMISSION…]", Short: "Try submissions again now", Args: count(0, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			ids, err := meant(cmd, cl, args, mailbox)
			if err != nil {
				return err
			}
			return c.every(cmd, ids, cl.Retry)
		},
	}
	cmd.Flags().StringVar(&mailbox, "mailbox", "", "all that wait in this mailbox, by `address` or id")
	return cmd
}

// meant are the submissions that were named, or all that wait in a mailbox.
func meant(cmd *cobra.Command, cl *client.Client, args []string, mailbox string) (ids []mailgrant.ID, err error) {
	if (len(args) == 0) == (mailbox == "") {
		return nil, wrong(cmd, "name submissions, or a mailbox with --mailbox")
	}
	for _, a := range args {
		ids = append(ids, mailgrant.ID(a))
	}
	if mailbox == "" {
		return ids, nil
	}
	all, err := submissions(cmd, cl, client.SubmissionFilter{Mailbox: mailbox, States: []mailgrant.SubmissionState{mailgrant.SubmissionReady}}, 0)
	for _, s := range all {
		ids = append(ids, s.ID)
	}
	return ids, err
}

// every does one thing to many submissions. It goes on after one that cannot, and
// ends with the last error.
func (c *cli) every(cmd *cobra.Command, ids []mailgrant.ID, do func(ctx context.Context, id mailgrant.ID) (mailgrant.Submission, error)) (last error) {
	for _, id := range ids {
		s, err := do(cmd.Context(), id)
		if err != nil {
			last = err
			if len(ids) > 1 && !c.json {
				fmt.Fprintf(cmd.ErrOrStderr(), "%s: %v\n", id, err)
			}
			continue
		}
		if err := c.each(cmd, s, func(p *printer) { p.line("%s %s", s.ID, submissionState(s)) }); err != nil {
			return err
		}
	}
	return last
}
