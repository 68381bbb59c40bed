package main

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
)

func newApp(c *cli) *cobra.Command {
	return group("app", "The programs that send, and what they may do",
		appList(c), appAdd(c), appShow(c), appSet(c), appDelete(c), appSwitch(c, "enable", false), appSwitch(c, "disable", true), newAppKey(c))
}

func appList(c *cli) *cobra.Command {
	return listing(c, "list", "List the apps", (*client.Client).Apps, []string{"ID", "NAME", "CLASSES", "SENDERS", "DOORS", "STATE"}, func(a mailgrant.App) []string {
		return []string{string(a.ID), a.Name, joined(a.Classes), joined(a.Senders), joined(a.Doors), yes(a.Disabled, "disabled")}
	})
}

// appFlags are those of add and set.
type appFlags struct {
	name                               string
	classes, mailboxes, senders, doors []string
	perMinute                          int
}

func (f *appFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringArrayVar(&f.classes, "class", nil, "`class` of mail it may send: user, system"+listHelp)
	fs.StringArrayVar(&f.mailboxes, "mailbox", nil, "`address` or id of a mailbox it may name, whose mail it may read and whose tokens it may have"+listHelp)
	fs.StringArrayVar(&f.senders, "sender", nil, "`address` it may send as, or *@domain; none for whatever its mailboxes carry"+listHelp)
	fs.StringArrayVar(&f.doors, "door", nil, "`door` it may use: smtp, rest; none for all"+listHelp)
	fs.IntVar(&f.perMinute, "per-minute", 0, "`number` of messages a minute; 0 for no limit")
}

func (f *appFlags) settings(ctx context.Context, cmd *cobra.Command, cl *client.Client, have mailgrant.App) (client.AppSettings, error) {
	base := have.Classes
	if len(base) == 0 { // an app without classes may send as user, and goes on to
		base = []mailgrant.Class{mailgrant.ClassUser}
	}
	s := client.AppSettings{
		Classes: edited(cmd, "class", base, f.classes), Senders: edited(cmd, "sender", have.Senders, f.senders),
		Doors: edited(cmd, "door", have.Doors, f.doors), PerMinute: given(cmd, "per-minute", f.perMinute),
	}
	if have.ID == "" && s.Classes != nil { // a new app has what it is given
		s.Classes = edited[mailgrant.Class](cmd, "class", nil, f.classes)
	}
	ids, err := mailboxIDs(ctx, cl, f.mailboxes)
	if err == nil {
		s.Mailboxes = edited(cmd, "mailbox", have.Mailboxes, ids)
	}
	return s, err
}

// mailboxIDs turns the addresses among the values of a list flag into ids.
func mailboxIDs(ctx context.Context, cl *client.Client, values []string) ([]string, error) {
	ids := make([]string, len(values))
	for i, v := range values {
		sign, name := "", v
		if len(v) > 0 && v[0] == '-' {
			sign, name = "-", v[1:]
		}
		if v == "none" || mailgrant.ID(name).Is(mailgrant.PrefixMailbox) {
			ids[i] = v
			continue
		}
		m, err := cl.Mailbox(ctx, name)
		if err != nil {
			return nil, err
		}
		ids[i] = sign + string(m.ID)
	}
	return ids, nil
}

func appAdd(c *cli) *cobra.Command {
	var f appFlags
	cmd := &cobra.Command{
		Use: "add NAME", Short: "Make an app; mailgrant app key issue NAME gives it a key", Args: count(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			s, err := f.settings(cmd.Context(), cmd, cl, mailgrant.App{})
			if err != nil {
				return err
			}
			s.Name = &args[0]
			a, err := cl.CreateApp(cmd.Context(), s)
			if err != nil {
				return err
			}
			return c.showApp(cmd, cl, a)
		},
	}
	f.add(cmd)
	return cmd
}

func appShow(c *cli) *cobra.Command {
	return showing(c, "show APP", "Show an app, by name or id", (*client.Client).App, c.showApp)
}

func appSet(c *cli) *cobra.Command {
	var f appFlags
	cmd := &cobra.Command{
		Use: "set APP", Short: "Change an app", Args: count(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			a, err := cl.App(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			s, err := f.settings(cmd.Context(), cmd, cl, a)
			if err != nil {
				return err
			}
			s.Name = given(cmd, "name", f.name)
			if a, err = cl.UpdateApp(cmd.Context(), string(a.ID), s); err != nil {
				return err
			}
			return c.showApp(cmd, cl, a)
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&f.name, "name", "", "its new `name`")
	return cmd
}

func appDelete(c *cli) *cobra.Command {
	return doing(c, "delete APP", "Delete an app and its keys", "deleted", named((*client.Client).DeleteApp))
}

func appSwitch(c *cli, verb string, disabled bool) *cobra.Command {
	short := map[bool]string{true: "Switch an app off: its keys are refused", false: "Switch an app on again"}[disabled]
	return doing(c, verb+" APP", short, verb+"d", func(cl *client.Client, ctx context.Context, name string) (mailgrant.ID, error) {
		a, err := cl.UpdateApp(ctx, name, client.AppSettings{Disabled: &disabled})
		return mailgrant.ID(a.Name), err
	})
}

func (c *cli) showApp(cmd *cobra.Command, cl *client.Client, a mailgrant.App) error {
	if c.json {
		return c.show(cmd, a, nil)
	}
	names, err := addresses(cmd.Context(), cl, a.Mailboxes)
	if err != nil {
		return err
	}
	return c.show(cmd, a, func(p *printer) {
		p.fields("ID", string(a.ID), "Name", a.Name, "Classes", joined(a.Classes), "Mailboxes", joined(names), "Senders", joined(a.Senders),
			"Doors", joined(a.Doors), "A minute", positive(a.PerMinute), "State", yes(a.Disabled, "disabled"))
	})
}

func positive(n int) string {
	if n <= 0 {
		return ""
	}
	return strconv.Itoa(n)
}

// addresses are those of mailboxes; an id that is gone stays an id.
func addresses(ctx context.Context, cl *client.Client, ids []mailgrant.ID) ([]string, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	all, err := cl.Mailboxes(ctx)
	if err != nil {
		return nil, err
	}
	name := map[mailgrant.ID]string{}
	for _, m := range all {
		name[m.ID] = m.Address
	}
	out := make([]string, len(ids))
	for i, id := range ids {
		if out[i] = name[id]; out[i] == "" {
			out[i] = string(id)
		}
	}
	return out, nil
}
