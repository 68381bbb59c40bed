package main

import (
	"github.com/spf13/cobra"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
)

func newRoute(c *cli) *cobra.Command {
	var q client.RouteQuestion
	var class string
	cmd := &cobra.Command{
		Use: "route FROM", Short: "Say by which mailbox a message from an address would leave, and why", Args: count(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			q.From, q.Class = args[0], mailgrant.Class(class)
			r, err := cl.Route(cmd.Context(), q)
			if err != nil {
				return err
			}
			return c.show(cmd, r, func(p *printer) { p.line("%s (%s): %s", r.Address, r.Kind, oneLine(r.Reason)) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&class, "class", "", "what it is for (`class`): user, system (default user)")
	f.StringVar(&q.OnBehalfOf, "on-behalf-of", "", "`address` of the person it is sent for")
	f.StringVar(&q.Mailbox, "mailbox", "", "`address` or id of the mailbox it names")
	return cmd
}
