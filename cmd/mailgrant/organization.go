package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
)

func newOrganization(c *cli) *cobra.Command {
	return group("organization", "The customers whose mailboxes and apps these are",
		organizationList(c), organizationAdd(c), organizationSet(c), organizationDelete(c))
}

func organizationList(c *cli) *cobra.Command {
	return listing(c, "list", "List the organizations", (*client.Client).Organizations, []string{"ID", "NAME"},
		func(o mailgrant.Organization) []string { return []string{string(o.ID), o.Name} })
}

func organizationAdd(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "add NAME", Short: "Make an organization", Args: count(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			o, err := cl.CreateOrganization(cmd.Context(), client.OrganizationSettings{Name: &args[0]})
			if err != nil {
				return err
			}
			return c.showOrganization(cmd, o)
		},
	}
}

func organizationSet(c *cli) *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use: "set ORGANIZATION", Short: "Change an organization", Args: count(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			id, err := organizationID(cmd.Context(), cl, args[0])
			if err != nil {
				return err
			}
			o, err := cl.UpdateOrganization(cmd.Context(), id, client.OrganizationSettings{Name: given(cmd, "name", name)})
			if err != nil {
				return err
			}
			return c.showOrganization(cmd, o)
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "its new `name`")
	return cmd
}

func organizationDelete(c *cli) *cobra.Command {
	return doing(c, "delete ORGANIZATION", "Delete an empty organization", "deleted", func(cl *client.Client, ctx context.Context, name string) (mailgrant.ID, error) {
		id, err := organizationID(ctx, cl, name)
		if err != nil {
			return id, err
		}
		return id, cl.DeleteOrganization(ctx, id)
	})
}

func (c *cli) showOrganization(cmd *cobra.Command, o mailgrant.Organization) error {
	return c.show(cmd, o, func(p *printer) { p.fields("ID", string(o.ID), "Name", o.Name) })
}
