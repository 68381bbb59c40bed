package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
)

func newAppKey(c *cli) *cobra.Command {
	return group("key", "The keys with which apps prove themselves", appKeyIssue(c), appKeyList(c), appKeyRevoke(c))
}

func appKeyIssue(c *cli) *cobra.Command {
	var n client.NewKey
	var scopes []string
	var until string
	cmd := &cobra.Command{
		Use: "issue APP", Short: "Make a key for an app; it is shown this once", Args: count(1, 1),
		Long: `Make a key for an app. It is shown this once: mailgrant keeps only its hash.

The key alone goes to standard output, so that KEY=$(mailgrant app key issue APP)
works.`,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			for _, s := range scopes {
				n.Scopes = append(n.Scopes, mailgrant.Scope(s))
			}
			if n.NotAfter, err = moment(cmd, "not-after", until); err != nil {
				return err
			}
			k, err := cl.IssueKey(cmd.Context(), args[0], n)
			if err != nil {
				return err
			}
			if !c.json {
				fmt.Fprintf(cmd.ErrOrStderr(), "%s of %s, for: %s. It is shown this once; keep it where only the app can read it.\n", k.ID, args[0], joined(k.Scopes))
			}
			return c.show(cmd, k, func(p *printer) { p.line("%s", k.Secret) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&n.Name, "name", "", "a `word` to know it by")
	f.StringSliceVar(&scopes, "scope", nil, "what it may (`scope`): send, receive, read, token, manage; again for more (default send)")
	f.StringSliceVar(&n.Sources, "source", nil, "`network` it may come from, as a CIDR; again for more (default anywhere)")
	f.StringVar(&until, "not-after", "", "`date` at which it ends, or a duration from now: 90d")
	return cmd
}

func appKeyList(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "list APP", Short: "List the keys of an app, revoked ones too", Args: count(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			all, err := cl.Keys(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return c.show(cmd, list(all), func(p *printer) {
				var rows [][]string
				for _, k := range all {
					state := "good"
					if k.RevokedAt != nil {
						state = "revoked " + date(k.RevokedAt)
					}
					rows = append(rows, []string{string(k.ID), k.Name, k.Prefix + "…", joined(k.Scopes), joined(k.Sources), date(k.NotAfter), date(k.LastUse), state})
				}
				p.table([]string{"ID", "NAME", "KEY", "SCOPES", "SOURCES", "ENDS", "LAST USE", "STATE"}, rows)
			})
		},
	}
}

func appKeyRevoke(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "revoke APP KEY", Short: "End a key of an app, by its id, its name or its first letters", Args: count(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			id, err := findKey(cmd.Context(), cl, args[0], args[1])
			if err != nil {
				return err
			}
			if err := cl.RevokeKey(cmd.Context(), args[0], id); err != nil {
				return err
			}
			return c.done(cmd, id, "revoked")
		},
	}
}

// findKey finds a key that is still good.
func findKey(ctx context.Context, cl *client.Client, app, name string) (mailgrant.ID, error) {
	if mailgrant.ID(name).Is(mailgrant.PrefixKey) {
		return mailgrant.ID(name), nil
	}
	all, err := cl.Keys(ctx, app)
	if err != nil {
		return "", err
	}
	var found []mailgrant.ID
	for _, k := range all {
		if k.RevokedAt == nil && (k.Name == name || k.Prefix != "" && strings.TrimSuffix(name, "…") == k.Prefix) {
			found = append(found, k.ID)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", mailgrant.Errorf(mailgrant.NotFound, nil, "%s has no such key", app).Fix("list them: mailgrant app key list %s", app)
	}
	return "", mailgrant.Errorf(mailgrant.Conflict, nil, "%d keys of %s are called so", len(found), app).
		Fix("use the id of the one you mean: mailgrant app key list %s", app)
}
