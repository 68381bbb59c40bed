package main

import (
	"github.com/spf13/cobra"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
)

func newOrganization(c *cli) *cobra.Command {
	return group("organization", "The customers whose mailboxes and apps these are",
		organizationList(c), organizationAdd(c), organizationSet(c), organizationDelete(c))
}

func organizationList(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the organizations", Args: count(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			all, err := cl.Organizations(cmd.Context())
			if err != nil {
				return err
			}
			return c.show(cmd, list(all), func(p *printer) {
				var rows [][]string
				for _, o := range all {
					rows = append(rows, []string{string(o.ID), o.Name})
				}
				p.table([]string{"ID", "NAME"}, rows)
			})
		},
	}
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
	return &cobra.Command{
		Use: "delete ORGANIZATION", Short: "Delete an empty organization", Args: count(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			id, err := organizationID(cmd.Context(), cl, args[0])
			if err != nil {
				return err
			}
			if err := cl.DeleteOrganization(cmd.Context(), id); err != nil {
				return err
			}
			return c.done(cmd, id, "deleted")
		},
	}
}

func (c *cli) showOrganization(cmd *cobra.Command, o mailgrant.Organization) error {
	return c.show(cmd, o, func(p *printer) { p.fields("ID", string(o.ID), "Name", o.Name) })
}
