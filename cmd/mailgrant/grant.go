package main

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
)

func newGrant(c *cli) *cobra.Command {
	return group("grant", "What consents leave behind",
		grantList(c), newBegin(c), grantShow(c), grantRenew(c), grantRevoke(c), grantToken(c), grantLink(c), grantDelete(c))
}

// findGrant takes an id, or an address: the grant its mailbox uses, else the only
// one that was made for it.
func findGrant(ctx context.Context, cl *client.Client, name string) (client.Grant, error) {
	if mailgrant.ID(name).Is(mailgrant.PrefixGrant) {
		return cl.Grant(ctx, mailgrant.ID(name))
	}
	all, err := grantsOf(ctx, cl, name)
	if err != nil {
		return client.Grant{}, err
	}
	switch len(all) {
	case 1:
		return all[0], nil
	case 0:
		return client.Grant{}, mailgrant.Errorf(mailgrant.NotFound, nil, "there is no grant of %s", name).
			Fix("begin one: mailgrant grant begin %s", name).At("grant")
	}
	return client.Grant{}, mailgrant.Errorf(mailgrant.Conflict, nil, "%s has %d grants", name, len(all)).
		Fix("use the id of the one you mean: mailgrant grant list").At("grant")
}

// grantsOf are the grants that an address may mean: that of its mailbox alone,
// where it has one, else all that were made for it and not revoked.
func grantsOf(ctx context.Context, cl *client.Client, address string) ([]client.Grant, error) {
	m, err := cl.Mailbox(ctx, address)
	switch {
	case err == nil && m.Grant != "":
		g, err := cl.Grant(ctx, m.Grant)
		return []client.Grant{g}, err
	case err != nil && mailgrant.AsError(err).Code != mailgrant.NotFound:
		return nil, err
	}
	return grantsFor(ctx, cl, address)
}

// grantsFor are all that were made for an address and not revoked.
func grantsFor(ctx context.Context, cl *client.Client, address string) ([]client.Grant, error) {
	all, err := cl.Grants(ctx)
	return slices.DeleteFunc(all, func(g client.Grant) bool {
		return !strings.EqualFold(g.Mailbox, address) || g.State == mailgrant.GrantRevoked
	}), err
}

func grantList(c *cli) *cobra.Command {
	return listing(c, "list", "List the grants", (*client.Client).Grants, []string{"ID", "MAILBOX", "FLOW", "STATE", "FOR", "CONSENTED", "WHY"},
		func(g client.Grant) []string {
			why := ""
			if g.LastFinding != nil && g.State != mailgrant.GrantActive {
				why = g.LastFinding.Title
			}
			return []string{string(g.ID), g.Mailbox, string(g.Flow), grantState(g), joined(g.Capabilities), date(g.ConsentedAt), why}
		})
}

func grantState(g client.Grant) string {
	if g.Changed {
		return string(g.State) + ", authorise again"
	}
	return string(g.State)
}

func grantShow(c *cli) *cobra.Command {
	return showing(c, "show GRANT", "Show a grant, by id or by the address of its mailbox",
		func(cl *client.Client, ctx context.Context, name string) (client.Grant, error) {
			return findGrant(ctx, cl, name)
		}, c.showGrant)
}

func (c *cli) showGrant(cmd *cobra.Command, _ *client.Client, g client.Grant) error {
	return c.show(cmd, g, func(p *printer) { p.grant(g) })
}

func (p *printer) grant(g client.Grant) {
	who := strings.TrimSpace(g.Subject.Name + " " + g.Subject.UPN)
	if g.Subject.UPN == "" {
		who = strings.TrimSpace(g.Subject.Name + " " + g.Subject.Address)
	}
	p.fields("ID", string(g.ID), "Mailbox", g.Mailbox, "Kind", string(g.MailboxKind), "Registration", string(g.Registration), "Flow", string(g.Flow),
		"For", joined(g.Capabilities), "State", grantState(g), "Signed in as", who, "Scopes granted", strings.Join(g.ScopesGranted, " "),
		"Consented", date(g.ConsentedAt), "Renewed", date(g.LastRefresh), "Renewed next", date(g.NextRefresh), "Last use", date(g.LastUse),
		"Owner ends it at", g.RevokeAt)
	if f := g.LastFinding; f != nil {
		p.line("")
		p.finding(f, "")
	}
}

func grantRenew(c *cli) *cobra.Command {
	return showing(c, "renew GRANT", "Refresh a grant now, by id or address", func(cl *client.Client, ctx context.Context, name string) (client.Grant, error) {
		g, err := findGrant(ctx, cl, name)
		if err != nil {
			return g, err
		}
		return cl.Renew(ctx, g.ID)
	}, c.showGrant)
}

func grantRevoke(c *cli) *cobra.Command {
	return showing(c, "revoke GRANT", "Disconnect a grant: its refresh token is destroyed", func(cl *client.Client, ctx context.Context, name string) (client.Grant, error) {
		g, err := findGrant(ctx, cl, name)
		if err != nil {
			return g, err
		}
		return cl.Revoke(ctx, g.ID)
	}, c.showGrant)
}

func grantToken(c *cli) *cobra.Command {
	var resource string
	cmd := &cobra.Command{
		Use: "token GRANT", Short: "Print an access token, by id or address", Args: count(1, 1),
		Long: "Print an access token that is good for at least a minute, and nothing else, to standard output.",
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			g, err := findGrant(cmd.Context(), cl, args[0])
			if err != nil {
				return err
			}
			t, err := cl.Token(cmd.Context(), g.ID, resource)
			if err != nil {
				return err
			}
			return c.show(cmd, t, func(p *printer) { p.line("%s", t.AccessToken) })
		},
	}
	cmd.Flags().StringVar(&resource, "resource", "", "whose token (`resource`): outlook, graph, …; default the grant's first")
	return cmd
}

// The kinds of links.
const (
	linkConsent = "consent"
	linkAdmin   = "admin_consent"
)

func grantLink(c *cli) *cobra.Command {
	var admin bool
	cmd := &cobra.Command{
		Use: "link GRANT", Short: "Make a link with which the owner, or an administrator, consents", Args: count(1, 1),
		Long: `Make a link with which the owner of the mailbox consents without an account here,
or with --admin an administrator for the whole organization. It works once and for
three days.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			g, err := findGrant(cmd.Context(), cl, args[0])
			if err != nil {
				return err
			}
			kind := linkConsent
			if admin {
				kind = linkAdmin
			}
			l, err := cl.Link(cmd.Context(), g.ID, kind)
			if err != nil {
				return err
			}
			return c.show(cmd, l, func(p *printer) { p.line("%s", l.URL) })
		},
	}
	cmd.Flags().BoolVar(&admin, "admin", false, "for an administrator, who approves for the whole organization")
	cmd.AddCommand(linkList(c), linkDelete(c))
	return cmd
}

func linkList(c *cli) *cobra.Command {
	return listing(c, "list", "List the links that still work", (*client.Client).Links, []string{"ID", "MAILBOX", "KIND", "BY", "MADE", "ENDS"}, func(l client.Link) []string {
		return []string{string(l.ID), l.Mailbox, l.Kind, l.CreatedBy, date(&l.CreatedAt), date(&l.ExpiresAt)}
	})
}

func linkDelete(c *cli) *cobra.Command {
	return doing(c, "delete LINK", "Take a link back: it works no more", "deleted", named((*client.Client).DeleteLink))
}

func grantDelete(c *cli) *cobra.Command {
	return doing(c, "delete GRANT", "Delete a grant that no mailbox uses", "deleted", func(cl *client.Client, ctx context.Context, name string) (mailgrant.ID, error) {
		g, err := findGrant(ctx, cl, name)
		if err != nil {
			return g.ID, err
		}
		return g.ID, cl.DeleteGrant(ctx, g.ID)
	})
}
