package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
)

// The commands that most groups have: list all there are, show one, do one thing
// to one of them.

// asking is what a command does that asks mailgrant.
func asking(c *cli, do func(cmd *cobra.Command, cl *client.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		cl, err := c.client(cmd)
		if err != nil {
			return err
		}
		return do(cmd, cl, args)
	}
}

// listing lists what get brings, with a row for each.
func listing[T any](c *cli, use, short string, get func(*client.Client, context.Context) ([]T, error), head []string, row func(T) []string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: count(0, 0),
		RunE: asking(c, func(cmd *cobra.Command, cl *client.Client, _ []string) error {
			all, err := get(cl, cmd.Context())
			if err != nil {
				return err
			}
			return c.show(cmd, list(all), func(p *printer) {
				var rows [][]string
				for _, v := range all {
					rows = append(rows, row(v))
				}
				p.table(head, rows)
			})
		}),
	}
}

// showing shows what get brings of the one that is named.
func showing[T any](c *cli, use, short string, get func(*client.Client, context.Context, string) (T, error), show func(*cobra.Command, *client.Client, T) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: count(1, 1),
		RunE: asking(c, func(cmd *cobra.Command, cl *client.Client, args []string) error {
			v, err := get(cl, cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return show(cmd, cl, v)
		}),
	}
}

// doing does one thing to the one that is named, and says so by the id that do gives.
func doing(c *cli, use, short, result string, do func(*client.Client, context.Context, string) (mailgrant.ID, error)) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: count(1, 1),
		RunE: asking(c, func(cmd *cobra.Command, cl *client.Client, args []string) error {
			id, err := do(cl, cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return c.done(cmd, id, result)
		}),
	}
}

// named is do for doing, where the name that was given says which one it was.
func named[N ~string](do func(*client.Client, context.Context, N) error) func(*client.Client, context.Context, string) (mailgrant.ID, error) {
	return func(cl *client.Client, ctx context.Context, name string) (mailgrant.ID, error) {
		return mailgrant.ID(name), do(cl, ctx, N(name))
	}
}
