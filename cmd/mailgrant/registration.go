package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
)

func newRegistration(c *cli) *cobra.Command {
	return group("registration", "Our clients at the mail providers",
		registrationList(c), registrationAdd(c), registrationShow(c), registrationSet(c), registrationDelete(c),
		registrationSwitch(c, "enable", false), registrationSwitch(c, "disable", true),
		registrationTemplates(c), registrationTemplate(c), newCredential(c))
}

// findRegistration takes an id or a name.
func findRegistration(ctx context.Context, cl *client.Client, name string) (client.Registration, error) {
	if mailgrant.ID(name).Is(mailgrant.PrefixRegistration) {
		return cl.Registration(ctx, mailgrant.ID(name))
	}
	all, err := cl.Registrations(ctx)
	if err != nil {
		return client.Registration{}, err
	}
	var found []client.Registration
	for _, r := range all {
		if strings.EqualFold(r.Name, name) {
			found = append(found, r)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return client.Registration{}, mailgrant.Errorf(mailgrant.NotFound, nil, "there is no registration %q", name).
			Fix("list them: mailgrant registration list").At("registration")
	}
	return client.Registration{}, mailgrant.Errorf(mailgrant.Conflict, nil, "%d registrations are named %q", len(found), name).
		Fix("use the id of the one you mean: mailgrant registration list").At("registration")
}

func registrationList(c *cli) *cobra.Command {
	return listing(c, "list", "List the registrations", (*client.Client).Registrations, []string{"ID", "NAME", "TEMPLATE", "TENANT OR ISSUER", "CLIENT ID", "STATE"},
		func(r client.Registration) []string {
			return []string{string(r.ID), r.Name, r.Template, r.Tenant + r.Issuer, r.ClientID, registrationState(r)}
		})
}

func registrationState(r client.Registration) string {
	switch {
	case r.Disabled:
		return "disabled"
	case len(r.Missing) > 0:
		return "lacks " + joined(r.Missing)
	}
	return "ready"
}

// registrationFlags are those of add and set.
type registrationFlags struct {
	name, cloud, tenant, issuer, clientID, prompt, caFile string
	overrides, extra, leave                               []string
	device                                                bool
}

func (f *registrationFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&f.cloud, "cloud", "", "`cloud` of the provider, where it has several: public, gcc-high, dod, china")
	fs.StringVar(&f.tenant, "tenant", "", "Microsoft: directory (tenant) `id` or domain")
	fs.StringVar(&f.issuer, "issuer", "", "generic: `address` where discovery starts")
	fs.StringVar(&f.clientID, "client-id", "", "application (client) `id` that the provider shows")
	fs.StringVar(&f.prompt, "prompt", "", "OAuth `prompt`; empty for the template's")
	fs.StringArrayVar(&f.overrides, "override", nil, "`name=value` that replaces a fact of the template; again for more, name= takes it back")
	fs.StringArrayVar(&f.extra, "scope-extra", nil, "`scope` to ask for besides"+listHelp)
	fs.StringArrayVar(&f.leave, "scope-leave", nil, "`scope` not to ask for although the template would"+listHelp)
	fs.BoolVar(&f.device, "device-flow", false, "allow the device code")
	fs.StringVar(&f.caFile, "ca-file", "", "PEM `file` on the server, trusted besides the system's roots for this provider")
}

func (f *registrationFlags) settings(cmd *cobra.Command, have client.Registration) (client.RegistrationSettings, error) {
	overrides, err := editedMap(cmd, "override", have.Overrides, f.overrides)
	return client.RegistrationSettings{
		Cloud: given(cmd, "cloud", f.cloud), Tenant: given(cmd, "tenant", f.tenant), Issuer: given(cmd, "issuer", f.issuer),
		ClientID: given(cmd, "client-id", f.clientID), Prompt: given(cmd, "prompt", f.prompt), Overrides: overrides,
		ScopesExtra: edited(cmd, "scope-extra", have.ScopesExtra, f.extra), ScopesLeave: edited(cmd, "scope-leave", have.ScopesLeave, f.leave),
		DeviceFlow: given(cmd, "device-flow", f.device), CAFile: given(cmd, "ca-file", f.caFile),
	}, err
}

func registrationAdd(c *cli) *cobra.Command {
	var f registrationFlags
	var template, address string
	cmd := &cobra.Command{
		Use: "add [NAME]", Short: "Make a registration, and say what the provider must know of it", Args: count(0, 1),
		Long: `Make a registration, and say what the provider must know of it.

It may be half filled in: the answer names the redirect URI to enter at the
provider, and what is still missing here. With --for the template, the cloud and
the tenant are found from an address.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			s, err := f.settings(cmd, client.Registration{})
			if err != nil {
				return err
			}
			s.Template = given(cmd, "template", template)
			if address != "" {
				if err := discovered(cmd.Context(), cl, address, &s); err != nil {
					return err
				}
			}
			if s.Template == nil {
				return wrong(cmd, "it takes --template, or --for and an address from which it is found")
			}
			name := *s.Template
			if len(args) > 0 {
				name = args[0]
			}
			s.Name = &name
			r, err := cl.CreateRegistration(cmd.Context(), s)
			if err != nil {
				return err
			}
			return c.showRegistration(cmd, cl, r)
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&template, "template", "", "`provider`: microsoft365, google, generic, …; see registration templates")
	cmd.Flags().StringVar(&address, "for", "", "`address` from which template, cloud and tenant are found")
	return cmd
}

// discovered fills in what an address tells and no flag has said.
func discovered(ctx context.Context, cl *client.Client, address string, s *client.RegistrationSettings) error {
	d, err := cl.Discover(ctx, address)
	if err != nil {
		return err
	}
	if d.Template == "" && s.Template == nil {
		return mailgrant.Errorf(mailgrant.NotFound, nil, "nobody knows who keeps the mail of %s: %s", address, d.Reason).
			Fix("name the provider with --template: mailgrant registration templates")
	}
	for _, p := range []struct {
		to   **string
		from string
	}{{&s.Template, d.Template}, {&s.Cloud, d.Cloud}, {&s.Tenant, d.Tenant}} {
		if *p.to == nil && p.from != "" {
			*p.to = &p.from
		}
	}
	return nil
}

func registrationShow(c *cli) *cobra.Command {
	return showing(c, "show REGISTRATION", "Show a registration, by id or name",
		func(cl *client.Client, ctx context.Context, name string) (client.Registration, error) {
			return findRegistration(ctx, cl, name)
		}, c.showRegistration)
}

func registrationSet(c *cli) *cobra.Command {
	var f registrationFlags
	cmd := &cobra.Command{
		Use: "set REGISTRATION", Short: "Change a registration", Args: count(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			r, err := findRegistration(cmd.Context(), cl, args[0])
			if err != nil {
				return err
			}
			s, err := f.settings(cmd, r)
			if err != nil {
				return err
			}
			s.Name = given(cmd, "name", f.name)
			if r, err = cl.UpdateRegistration(cmd.Context(), r.ID, s); err != nil {
				return err
			}
			return c.showRegistration(cmd, cl, r)
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&f.name, "name", "", "its new `name`")
	return cmd
}

func registrationSwitch(c *cli, verb string, disabled bool) *cobra.Command {
	short := map[bool]string{true: "Switch a registration off: none of its grants gives tokens", false: "Switch a registration on again"}[disabled]
	return doing(c, verb+" REGISTRATION", short, verb+"d", func(cl *client.Client, ctx context.Context, name string) (mailgrant.ID, error) {
		r, err := findRegistration(ctx, cl, name)
		if err != nil {
			return "", err
		}
		_, err = cl.UpdateRegistration(ctx, r.ID, client.RegistrationSettings{Disabled: &disabled})
		return r.ID, err
	})
}

func registrationDelete(c *cli) *cobra.Command {
	return doing(c, "delete REGISTRATION", "Delete a registration that no grant uses", "deleted", func(cl *client.Client, ctx context.Context, name string) (mailgrant.ID, error) {
		r, err := findRegistration(ctx, cl, name)
		if err != nil {
			return "", err
		}
		return r.ID, cl.DeleteRegistration(ctx, r.ID)
	})
}

func registrationTemplates(c *cli) *cobra.Command {
	return listing(c, "templates", "List the providers that are known", (*client.Client).Templates, []string{"TEMPLATE", "PROVIDER", "CLOUDS"},
		func(t client.Template) []string { return []string{t.ID, t.Name, joined(t.Clouds)} })
}

func registrationTemplate(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "template TEMPLATE", Short: "Show a template: where to register, and what may be overridden", Args: count(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			all, err := cl.Templates(cmd.Context())
			if err != nil {
				return err
			}
			for _, t := range all {
				if t.ID != args[0] {
					continue
				}
				return c.show(cmd, t, func(p *printer) {
					p.fields("Template", t.ID, "Provider", t.Name, "Register", t.Register, "Clouds", joined(t.Clouds))
					p.line("Overrides")
					for _, f := range t.Fields {
						p.line("  %s", f)
					}
				})
			}
			return mailgrant.Errorf(mailgrant.NotFound, nil, "there is no template %q", args[0]).Fix("list them: mailgrant registration templates")
		},
	}
}

func (c *cli) showRegistration(cmd *cobra.Command, _ *client.Client, r client.Registration) error {
	return c.show(cmd, r, func(p *printer) {
		p.fields("ID", string(r.ID), "Name", r.Name, "Template", r.Template, "Cloud", r.Cloud, "Tenant", r.Tenant, "Issuer", r.Issuer,
			"Client ID", r.ClientID, "Prompt", r.Prompt, "Scopes besides", joined(r.ScopesExtra), "Scopes left out", joined(r.ScopesLeave),
			"Device code", yes(r.DeviceFlow, "allowed"), "CA file", r.CAFile, "State", registrationState(r),
			"Redirect URI", r.RedirectURI, "Admin redirect URI", r.AdminRedirectURI)
		for _, k := range sorted(r.Overrides) {
			p.line("Override %s=%s", k, oneLine(r.Overrides[k]))
		}
		if a := r.AdminConsent; a != nil {
			p.fields("Admin consent", strings.TrimSpace(a.State+" "+a.Error), "At", date(&a.At))
		}
		if len(r.Credentials) > 0 {
			p.line("")
			p.credentials(r.Credentials)
		}
	})
}
