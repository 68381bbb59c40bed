package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/config"
	"github.com/mailgrant/mailgrant/internal/node"
	"github.com/mailgrant/mailgrant/sim"
)

func newSim(c *cli) *cobra.Command {
	var cfg sim.Config
	var world, trust string
	cmd := &cobra.Command{
		Use:   "sim",
		Short: "Run an imitation of Microsoft 365 to develop and test against",
		Long: `sim imitates the parts of Microsoft 365 that mail needs, on the real wire: Entra
sign-in with its pages, SMTP submission, IMAP and POP with XOAUTH2, Graph. It starts
with a world of its own, Contoso, or with that of a file (--world); what is in it can
be changed, and broken, at its control address while it runs.

Nothing in it is secret. It listens on this machine only.`,
		Args: count(0, 0),
		RunE: func(cmd *cobra.Command, args []string) error {
			if world != "" {
				w, err := loadWorld(world)
				if err != nil {
					return err
				}
				cfg.World = w
			}
			if trust != "" {
				var err error
				if cfg.Trust, err = loadCertificates(trust); err != nil {
					return err
				}
			}
			cfg.Log = node.Logger(cmd.ErrOrStderr(), config.Log{Level: "warn", Format: "text"})
			s, err := sim.Start(cmd.Context(), cfg)
			if err != nil {
				return mailgrant.Errorf(mailgrant.Misset, err, "the imitation does not start: %v", err).Fix("choose addresses that are free: mailgrant sim --help")
			}
			defer s.Close()
			if err := c.show(cmd, simPlaces(s), func(p *printer) { showSim(p, s) }); err != nil {
				return err
			}
			<-cmd.Context().Done()
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&world, "world", "", "`file` with the tenants, users and mailboxes to begin with")
	f.StringVar(&cfg.Dir, "ca-dir", "", "`directory` in which its certificate authority is kept from run to run")
	f.StringVar(&trust, "trust-ca", "", "PEM `file` with authorities that are good for notification addresses, beside the system's and its own")
	f.StringVar(&cfg.HTTPS, "https", "127.0.0.1:8443", "`address` of sign-in and Graph")
	f.StringVar(&cfg.HTTP, "http", "127.0.0.1:8026", "`address` of the same pages for browsers")
	f.StringVar(&cfg.SMTP, "smtp", "127.0.0.1:8587", "`address` of SMTP with STARTTLS")
	f.StringVar(&cfg.SMTPS, "smtps", "127.0.0.1:8465", "`address` of SMTP with implicit TLS")
	f.StringVar(&cfg.IMAP, "imap", "127.0.0.1:8993", "`address` of IMAP with implicit TLS")
	f.StringVar(&cfg.POP, "pop", "127.0.0.1:8995", "`address` of POP with implicit TLS")
	return cmd
}

func loadWorld(file string) (*sim.World, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, mailgrant.Errorf(mailgrant.Misset, err, "the world cannot be read: %v", err).Fix("name a file that can be read, after --world")
	}
	defer f.Close()
	w, err := sim.LoadWorld(f)
	if err != nil {
		return nil, mailgrant.Errorf(mailgrant.Invalid, err, "%s is no world: %v", file, err).Fix("compare it with docs/sim.md")
	}
	return w, nil
}

// loadCertificates reads all certificates of a PEM file.
func loadCertificates(file string) ([]*x509.Certificate, error) {
	const remedy = "name a PEM file with certificates, after --trust-ca"
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, mailgrant.Errorf(mailgrant.Misset, err, "the authorities cannot be read: %v", err).Fix(remedy)
	}
	var all []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		ca, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, mailgrant.Errorf(mailgrant.Invalid, err, "%s has a certificate that does not read: %v", file, err).Fix(remedy)
		}
		all = append(all, ca)
	}
	if all == nil {
		return nil, mailgrant.Errorf(mailgrant.Invalid, nil, "%s has no certificate", file).Fix(remedy)
	}
	return all, nil
}

// simAt is where the parts of an imitation are.
type simAt struct {
	Login   string `json:"login_url"`
	Graph   string `json:"graph_url"`
	SMTP    string `json:"smtp"`
	SMTPS   string `json:"smtps"`
	IMAP    string `json:"imap"`
	POP     string `json:"pop"`
	Browser string `json:"browser_url"`
	CAFile  string `json:"ca_file"`
}

func simPlaces(s *sim.Sim) simAt {
	return simAt{s.LoginURL(), s.GraphURL(), s.SMTPAddr(), s.SMTPSAddr(), s.IMAPAddr(), s.POPAddr(), s.BrowserURL(), s.CAFile()}
}

func showSim(p *printer, s *sim.Sim) {
	p.fields("sign-in", s.LoginURL(), "Graph", s.GraphURL(), "SMTP", s.SMTPAddr()+" (STARTTLS)", "SMTP", s.SMTPSAddr()+" (TLS)",
		"IMAP", s.IMAPAddr()+" (TLS)", "POP", s.POPAddr()+" (TLS)",
		"mailboxes", s.BrowserURL()+"/webmail", "control", s.BrowserURL()+"/_control", "CA", s.CAFile())
	p.line("")
	if t, ok := s.World().Tenant(sim.ContosoTenantID); ok {
		p.line("%s is the tenant %s; everybody's password is %s.", t.Name, t.ID, sim.ContosoPassword)
		p.line("An app that people sign in to: %s, secret %s", sim.ContosoClientID, sim.ContosoClientSecret)
	}
	fmt.Fprintln(p.w, "Ctrl-C ends it.")
}
