package main

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
)

func newExport(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "export", Short: "Write registrations, mailboxes, apps and webhooks as a text file for apply, without secrets", Args: count(0, 0),
		Long: `Write registrations, mailboxes, apps and webhooks as a text file for mailgrant apply. It holds
no secrets: where there is one, it names an environment variable to take it from when
the file is applied elsewhere. Keys of apps, secrets of webhooks and consents are not
in it.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			p := &plan{cl: cl}
			if err := p.look(cmd.Context()); err != nil {
				return err
			}
			w := p.export()
			if c.json {
				return exportJSON(cmd, w)
			}
			fmt.Fprintln(cmd.OutOrStdout(), "# Written by mailgrant export, for mailgrant apply. It holds no secrets.")
			e := yaml.NewEncoder(cmd.OutOrStdout())
			e.SetIndent(2)
			return e.Encode(w)
		},
	}
}

// exportJSON writes the same names as the file.
func exportJSON(cmd *cobra.Command, w wanted) error {
	b, err := yaml.Marshal(w)
	if err != nil {
		return fmt.Errorf("write the file: %w", err)
	}
	var v any
	if err := yaml.Unmarshal(b, &v); err != nil {
		return fmt.Errorf("write the file: %w", err)
	}
	return writeJSON(cmd.OutOrStdout(), v, true)
}

// export is what is there, in the form that apply reads. What has its default is
// left out.
func (p *plan) export() wanted {
	var w wanted
	for _, k := range sorted(p.registrations) {
		w.Registrations = append(w.Registrations, exportRegistration(p.registrations[k]))
	}
	for _, k := range sorted(p.mailboxes) {
		w.Mailboxes = append(w.Mailboxes, p.exportMailbox(p.mailboxes[k]))
	}
	for _, k := range sorted(p.apps) {
		a := p.apps[k]
		boxes := p.addresses(a.Mailboxes)
		w.Apps = append(w.Apps, wantApp{Name: a.Name, Classes: some(a.Classes), Mailboxes: some(boxes), Senders: some(a.Senders),
			Doors: some(a.Doors), PerMinute: saying(a.PerMinute), Disabled: saying(a.Disabled)})
	}
	for _, k := range sorted(p.webhooks) {
		w.Webhooks = append(w.Webhooks, p.exportWebhook(p.webhooks[k]))
	}
	return w
}

// saying is nil for a value that says nothing.
func saying[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

// some is nil for an empty list.
func some[T any](v []T) *[]T {
	if len(v) == 0 {
		return nil
	}
	return &v
}

func exportRegistration(r client.Registration) wantRegistration {
	w := wantRegistration{Name: r.Name, Template: saying(r.Template), Cloud: saying(r.Cloud), Tenant: saying(r.Tenant), Issuer: saying(r.Issuer),
		ClientID: saying(r.ClientID), Prompt: saying(r.Prompt), ScopesExtra: some(r.ScopesExtra), ScopesLeave: some(r.ScopesLeave),
		DeviceFlow: saying(r.DeviceFlow), CAFile: saying(r.CAFile), Disabled: saying(r.Disabled)}
	if len(r.Overrides) > 0 {
		w.Overrides = &r.Overrides
	}
	for _, k := range r.Credentials {
		x := wantCredential{Kind: k.Kind, Description: k.Description, TokenFile: k.TokenFile, NotBefore: k.NotBefore, NotAfter: k.NotAfter}
		if k.Kind != mailgrant.CredentialNone && k.Kind != mailgrant.CredentialFederated {
			x.SecretEnv = envName(r.Name + " " + k.Description)
		}
		w.Credentials = append(w.Credentials, x)
	}
	return w
}

var notEnv = regexp.MustCompile(`[^A-Z0-9]+`)

// envName is where a secret is expected when the file is applied elsewhere. It does
// not begin with MAILGRANT_, which is for settings.
func envName(words string) string {
	return "SECRET_" + strings.Trim(notEnv.ReplaceAllString(strings.ToUpper(words), "_"), "_")
}

func (p *plan) exportMailbox(m mailgrant.Mailbox) wantMailbox {
	disabled := m.State == mailgrant.MailboxDisabled
	w := wantMailbox{Address: m.Address, DisplayName: saying(m.DisplayName), Kind: saying(m.Kind), Role: saying(string(m.Role)), Person: saying(m.Person),
		Transport: saying(m.Transport), Senders: some(m.Senders), Life: saying(m.Life), Uncertain: saying(m.Uncertain), Disabled: saying(disabled)}
	if l := m.Limits; l != (mailgrant.Limits{}) {
		w.Limits = &wantLimits{saying(l.Connections), saying(l.PerMinute), saying(l.RecipientsPerDay), saying(l.MessageBytes)}
	}
	if r := m.Receive; r != nil {
		w.Receive = &wantReceive{Protocol: saying(r.Protocol), Folders: some(r.Folders), After: saying(r.After), MoveTo: saying(r.MoveTo), Since: r.Since,
			Everything: saying(r.Everything), Poll: saying(r.Poll), Keep: r.Keep}
	}
	for _, g := range p.grants {
		if name := p.registrationName(g.Registration); m.Grant != "" && g.ID == m.Grant && name != "" {
			w.Grant = &wantGrant{Registration: name, Flow: saying(g.Flow), Capabilities: some(g.Capabilities)}
		}
	}
	return w
}
