package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
)

func newCredential(c *cli) *cobra.Command {
	return group("credential", "How registrations prove themselves", credentialAdd(c), credentialList(c), credentialDelete(c))
}

func credentialAdd(c *cli) *cobra.Command {
	var n client.NewCredential
	var kind, file, from, until string
	cmd := &cobra.Command{
		Use: "add REGISTRATION", Short: "Add a client secret, a certificate or another proof to a registration", Args: count(1, 1),
		Long: `Add a client secret, a certificate or another proof to a registration.

The secret is read from --secret-file, or from the terminal without showing it,
or from standard input. It is never an argument: other users of the machine can
read those.`,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			r, err := findRegistration(cmd.Context(), cl, args[0])
			if err != nil {
				return err
			}
			n.Kind = mailgrant.CredentialKind(kind)
			if n.NotBefore, err = moment(cmd, "not-before", from); err != nil {
				return err
			}
			if n.NotAfter, err = moment(cmd, "not-after", until); err != nil {
				return err
			}
			if n.Kind != mailgrant.CredentialNone && n.Kind != mailgrant.CredentialFederated {
				if n.Secret, err = readSecret(cmd, file, "The secret's value (not its ID): "); err != nil {
					return err
				}
			}
			made, err := cl.AddCredential(cmd.Context(), r.ID, n)
			if err != nil {
				return err
			}
			return c.show(cmd, made, func(p *printer) { p.credentials([]mailgrant.Credential{made}) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&kind, "kind", "secret", "`kind`: secret, certificate (PEM of key and certificate), federated, service_account (Google's JSON), none")
	f.StringVar(&file, "secret-file", "", "`file` that holds the secret; - for standard input")
	f.StringVar(&n.TokenFile, "token-file", "", "federated: `file` on the server that holds another issuer's token")
	f.StringVar(&n.Description, "description", "", "a `word` to know it by")
	f.StringVar(&from, "not-before", "", "`date` from which it is good")
	f.StringVar(&until, "not-after", "", "`date` at which it ends, as the provider shows it")
	return cmd
}

// secretMax bounds a secret; a certificate chain fits.
const secretMax = 256 << 10

// readSecret reads from a file, from the keyboard without echo, or from input.
func readSecret(cmd *cobra.Command, file, prompt string) (string, error) {
	b, err := secretBytes(cmd, file, prompt)
	if err != nil {
		return "", mailgrant.Errorf(mailgrant.Invalid, err, "the secret cannot be read: %v", err).Fix("name a readable file: --secret-file FILE")
	}
	b = bytes.TrimRight(b, "\r\n")
	if len(b) == 0 {
		return "", mailgrant.Errorf(mailgrant.Invalid, nil, "the secret is empty").Fix("enter it, or name a file that holds it: --secret-file FILE")
	}
	return string(b), nil
}

func secretBytes(cmd *cobra.Command, file, prompt string) ([]byte, error) {
	in := cmd.InOrStdin()
	if file != "" && file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	} else if f, ok := in.(*os.File); ok && isTerminal(f) {
		fmt.Fprint(cmd.ErrOrStderr(), prompt)
		defer fmt.Fprintln(cmd.ErrOrStderr())
		return term.ReadPassword(int(f.Fd()))
	}
	b, err := io.ReadAll(io.LimitReader(in, secretMax+1))
	if err == nil && len(b) > secretMax {
		err = fmt.Errorf("it is larger than %d bytes", secretMax)
	}
	return b, err
}

func credentialList(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "list REGISTRATION", Short: "List the credentials of a registration", Args: count(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			r, err := findRegistration(cmd.Context(), cl, args[0])
			if err != nil {
				return err
			}
			return c.show(cmd, list(r.Credentials), func(p *printer) { p.credentials(r.Credentials) })
		},
	}
}

func credentialDelete(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "delete REGISTRATION CREDENTIAL", Short: "Delete a credential", Args: count(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			r, err := findRegistration(cmd.Context(), cl, args[0])
			if err != nil {
				return err
			}
			id := mailgrant.ID(args[1])
			if err := cl.DeleteCredential(cmd.Context(), r.ID, id); err != nil {
				return err
			}
			return c.done(cmd, id, "deleted")
		},
	}
}

func (p *printer) credentials(all []mailgrant.Credential) {
	var rows [][]string
	for _, k := range all {
		state := "good"
		if !k.ValidAt(time.Now()) {
			state = "not valid now"
		}
		rows = append(rows, []string{string(k.ID), string(k.Kind), k.Description, strings.TrimSpace(k.Fingerprint + k.TokenFile), date(k.NotAfter), state})
	}
	p.table([]string{"CREDENTIAL", "KIND", "DESCRIPTION", "FINGERPRINT", "ENDS", "STATE"}, rows)
}
