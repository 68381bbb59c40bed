package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/mailgrant/mailgrant"
)

// stepSigns are the states of a step at a glance.
var stepSigns = map[string]string{mailgrant.StepPassed: "✓", mailgrant.StepFailed: "✗", mailgrant.StepSkipped: "–"}

// directionWords head the steps of a direction.
var directionWords = map[string]string{mailgrant.CheckSend: "Sending", mailgrant.CheckReceive: "Receiving", mailgrant.CheckRoundTrip: "There and back"}

func newCheck(c *cli) *cobra.Command {
	var noSend bool
	cmd := &cobra.Command{
		Use: "check MAILBOX", Short: "Test a mailbox, from its settings to a message to itself", Args: count(1, 1),
		Long: `Test a mailbox, by address or id: settings, DNS, TCP, TLS, token, audience and
scopes, identity, login, and a message to itself. One that is read is opened as
well, its folders are compared with those that are to be read, and its reader is
looked at. Where it sends and is read, the message is waited for in the mail table,
and its From, the Sent folder, Authentication-Results and the junk folder are looked
at; applications do not hear of that message. Every step is shown as it ends, with
what to do where one failed. The exit status is 1 when a step failed.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			p := &printer{cmd.OutOrStdout()}
			direction := mailgrant.CheckSend
			report, err := cl.Check(cmd.Context(), args[0], noSend, func(s mailgrant.CheckStep) {
				if c.json {
					return
				}
				if s.Direction != direction {
					direction = s.Direction
					p.line("%s:", directionWords[direction])
				}
				p.step(s)
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
	if f := s.Finding; f != nil && strings.EqualFold(strings.TrimSuffix(f.Sentence, "."), s.Text) { // said already
		said := *f
		said.Sentence = ""
		s.Finding = &said
	}
	p.finding(s.Finding, "    ")
}

func (p *printer) conclusion(r mailgrant.CheckReport) {
	if r.Transport != "" {
		p.line("%s sends by %s: %s", r.Address, r.Transport, oneLine(r.Why))
	}
	if r.Protocol != "" {
		p.line("%s is read by %s: %s", r.Address, r.Protocol, oneLine(r.WhyProtocol))
	}
	if r.OK {
		p.line("%s works.", r.Address)
		return
	}
	p.line("%s does not work yet.", r.Address)
}
