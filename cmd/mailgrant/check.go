package main

import (
	"github.com/spf13/cobra"

	"github.com/mailgrant/mailgrant"
)

// stepSigns are the states of a step at a glance.
var stepSigns = map[string]string{mailgrant.StepPassed: "✓", mailgrant.StepFailed: "✗", mailgrant.StepSkipped: "–"}

func newCheck(c *cli) *cobra.Command {
	var noSend bool
	cmd := &cobra.Command{
		Use: "check MAILBOX", Short: "Test a mailbox, from its settings to a message to itself", Args: count(1, 1),
		Long: `Test a mailbox, by address or id: settings, DNS, TCP, TLS, token, audience and
scopes, identity, login, and a message to itself. Every step is shown as it ends,
with what to do where one failed. The exit status is 1 when a step failed.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			p := &printer{cmd.OutOrStdout()}
			report, err := cl.Check(cmd.Context(), args[0], noSend, func(s mailgrant.CheckStep) {
				if !c.json {
					p.step(s)
				}
			})
			if err != nil {
				return err
			}
			if err := c.show(cmd, report, func(p *printer) { p.conclusion(report) }); err != nil {
				return err
			}
			if !report.OK {
				return errFailed
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&noSend, "no-send", false, "leave the message out")
	return cmd
}

func (p *printer) step(s mailgrant.CheckStep) {
	took := ""
	if s.State != mailgrant.StepSkipped {
		took = "  (" + span(s.Took) + ")"
	}
	p.line("%s %s: %s%s", stepSigns[s.State], s.Name, oneLine(s.Text), took)
	p.finding(s.Finding, "    ")
}

func (p *printer) conclusion(r mailgrant.CheckReport) {
	if r.Transport != "" {
		p.line("%s sends by %s: %s", r.Address, r.Transport, oneLine(r.Why))
	}
	if r.OK {
		p.line("%s works.", r.Address)
		return
	}
	p.line("%s does not work yet.", r.Address)
}
