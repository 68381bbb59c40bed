package main

import (
	"context"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
	"github.com/mailgrant/mailgrant/internal/config"
)

// A cli is what all commands share: where mailgrant is and how to answer.
type cli struct {
	dir, file    string // of the settings, as for serve
	url, keyFile string // of a mailgrant elsewhere
	organization string
	json         bool
}

func (c *cli) flags(f *pflag.FlagSet) {
	f.StringVar(&c.dir, "dir", "", "data `directory` of mailgrant")
	f.StringVar(&c.file, "config", "", "settings `file` (default $MAILGRANT_CONFIG)")
	f.StringVar(&c.url, "url", "", "`address` of a mailgrant elsewhere (default $MAILGRANT_URL)")
	f.StringVar(&c.keyFile, "key-file", "", "`file` with the key for it (default the value of $MAILGRANT_KEY)")
	f.StringVar(&c.organization, "organization", "", "`name` or id of the organization, where there are several (default $MAILGRANT_ORGANIZATION)")
	f.BoolVar(&c.json, "json", false, "answer in JSON: one value, or one a line for streams")
}

// config reads the settings, as mailgrant serve does.
func (c *cli) config() (config.Config, error) {
	file := c.file
	if file == "" {
		file = os.Getenv("MAILGRANT_CONFIG")
	}
	cfg, err := config.Load(file)
	if err != nil {
		return cfg, err
	}
	if c.dir != "" {
		cfg.Dir = c.dir
	}
	return cfg, nil
}

// elsewhere is the address of a mailgrant that is not reached by its socket.
// --dir and --config mean this machine, whatever the environment says.
func (c *cli) elsewhere() string {
	if c.url != "" || c.dir != "" || c.file != "" {
		return c.url
	}
	return os.Getenv("MAILGRANT_URL")
}

// client reaches the mailgrant that is meant.
func (c *cli) client(cmd *cobra.Command) (*client.Client, error) {
	cl, err := c.reach(cmd)
	if err != nil {
		return nil, err
	}
	cl.UserAgent = "mailgrant-cli/" + version()
	name := c.organization
	if name == "" {
		name = os.Getenv("MAILGRANT_ORGANIZATION")
	}
	if name != "" {
		cl.Organization, err = organizationID(cmd.Context(), cl, name)
	}
	return cl, err
}

func (c *cli) reach(cmd *cobra.Command) (*client.Client, error) {
	at := c.elsewhere()
	if at == "" {
		cfg, err := c.config()
		if err != nil {
			return nil, err
		}
		return client.Local(cfg.Socket()), nil
	}
	if c.dir != "" || c.file != "" {
		return nil, wrong(cmd, "--url names a mailgrant elsewhere, --dir and --config one of this machine")
	}
	key, err := c.key()
	if err != nil {
		return nil, err
	}
	return client.New(at, key.Reveal()), nil
}

// key is that of a mailgrant elsewhere. It is never on the command line, where
// every user of the machine can read it.
func (c *cli) key() (mailgrant.Secret, error) {
	if c.keyFile != "" {
		b, err := os.ReadFile(c.keyFile)
		if err != nil {
			return mailgrant.Secret{}, mailgrant.Errorf(mailgrant.Misset, err, "the key cannot be read: %v", err).
				Fix("name a file that holds nothing but the key, after --key-file")
		}
		return mailgrant.NewSecret(strings.TrimSpace(string(b))), nil
	}
	if v := os.Getenv("MAILGRANT_KEY"); v != "" {
		return mailgrant.NewSecret(v), nil
	}
	return mailgrant.Secret{}, mailgrant.Errorf(mailgrant.Unauthorized, nil, "there is no key for %s", c.elsewhere()).
		Fix("set MAILGRANT_KEY, or --key-file; make a key there with: mailgrant app key issue APP")
}

// organizationID finds an organization by its name.
func organizationID(ctx context.Context, cl *client.Client, name string) (mailgrant.ID, error) {
	if mailgrant.ID(name).Is(mailgrant.PrefixOrganization) {
		return mailgrant.ID(name), nil
	}
	all, err := cl.Organizations(ctx)
	if err != nil {
		return "", err
	}
	for _, o := range all {
		if strings.EqualFold(o.Name, name) {
			return o.ID, nil
		}
	}
	return "", mailgrant.Errorf(mailgrant.NotFound, nil, "there is no organization %q", name).
		Fix("list them: mailgrant organization list").At("organization")
}
