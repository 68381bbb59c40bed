package main

import (
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mailgrant/mailgrant/client"
)

func newHealth(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "health", Short: "Say how the installation does; exit status 1 when something is wrong", Args: count(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			h, err := cl.Health(cmd.Context())
			if err != nil {
				return err
			}
			if err := c.show(cmd, h, func(p *printer) { p.health(h) }); err != nil {
				return err
			}
			if !h.OK {
				return errFailed
			}
			return nil
		},
	}
}

// heldWords says how many mailboxes are held, and since when.
func heldWords(n int, since time.Time) string {
	words := "1 mailbox is held"
	if n > 1 {
		words = strconv.Itoa(n) + " mailboxes are held"
	}
	switch {
	case since.IsZero():
		return words
	case n > 1:
		return words + ", the first since " + date(&since)
	}
	return words + " since " + date(&since)
}

func (p *printer) health(h client.Health) {
	state := "well"
	if !h.OK {
		state = "not well"
	}
	if h.Held > 0 {
		state += ", " + heldWords(h.Held, h.HeldSince)
	}
	p.fields("State", state, "Version", h.Version, "Node", string(h.Node), "Database", h.Database, "Up", span(h.Uptime), "Waiting", strconv.FormatInt(h.Queue, 10))
	for _, s := range h.Problems {
		p.line("Problem: %s", oneLine(s))
	}
	for _, state := range sorted(h.Grants) {
		p.line("Grants %s: %d", state, h.Grants[state])
	}
	for _, d := range h.Doors {
		p.line("%s", strings.TrimSpace("Door "+d.URI+" "+d.Fingerprint))
	}
	if len(h.Mailboxes) == 0 {
		return
	}
	p.line("")
	var rows [][]string
	for _, m := range h.Mailboxes {
		rows = append(rows, []string{m.Address, mailboxState(m.State, m.GrantState), m.Cause, strconv.FormatInt(m.Waiting, 10), date(m.LastSuccess)})
	}
	p.table([]string{"MAILBOX", "STATE", "CAUSE", "WAITING", "LAST SUCCESS"}, rows)
}
