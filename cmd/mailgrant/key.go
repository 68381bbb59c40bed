package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
	"github.com/mailgrant/mailgrant/internal/config"
	"github.com/mailgrant/mailgrant/internal/node"
	"github.com/mailgrant/mailgrant/internal/vault"
)

func newKey(c *cli) *cobra.Command {
	return group("key", "The keys that seal what is secret", keyNew(c), keyStatus(c), keyRotate(c), keyRewrap(c))
}

func keyNew(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "new [FILE]", Short: "Make a master key: into a new FILE, else to standard output", Args: count(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			key := vault.NewMasterKey()
			if len(args) == 0 {
				_, err := cmd.OutOrStdout().Write([]byte(key))
				return err
			}
			f, err := os.OpenFile(args[0], os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if err != nil {
				return unwritable(err)
			}
			_, err = f.WriteString(key)
			if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
				return unwritable(err)
			}
			return c.show(cmd, saved{File: args[0], Size: int64(len(key))}, func(p *printer) { p.line("%s", args[0]) })
		},
	}
}

func keyStatus(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Say which keys seal and open, and how much old ones still seal", Args: count(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			s, err := cl.KeyStatus(cmd.Context())
			if err != nil {
				return err
			}
			return c.showKeys(cmd, s)
		},
	}
}

func keyRotate(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "rotate", Short: "Add a sealing key, and begin to seal everything anew while mailgrant runs", Args: count(0, 0),
		Long: `Add a sealing key, and begin to seal everything anew while mailgrant runs. The old
key goes when nothing is sealed by it any more; mailgrant key status says how far
it is. The master key stays as it is: mailgrant key rewrap changes that.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			s, err := cl.RotateKey(cmd.Context())
			if err != nil {
				return err
			}
			return c.showKeys(cmd, s)
		},
	}
}

func (c *cli) showKeys(cmd *cobra.Command, s client.KeyStatus) error {
	return c.show(cmd, s, func(p *printer) {
		p.line("Key %d seals.", s.Primary)
		for _, k := range s.Keys {
			if k != s.Primary {
				p.line("Key %d still opens.", k)
			}
		}
		if len(s.Keys) > 1 || s.Left > 0 {
			p.line("%s left to seal anew.", strconv.Itoa(s.Left))
		}
	})
}

func keyRewrap(c *cli) *cobra.Command {
	var file, env string
	var command []string
	cmd := &cobra.Command{
		Use: "rewrap", Short: "Change the master key; mailgrant must not run", Args: count(0, 0),
		Long: `Change the master key: the sealing keys are wrapped by the new one from now on. The
settings still name the old one while this runs, and must name the new one before
mailgrant is started again. Backups that were taken before open with the old one:
keep it as long as them. mailgrant must not run, on no node.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := c.config()
			if err != nil {
				return err
			}
			if file != "" { // the settings are read from elsewhere
				if file, err = filepath.Abs(file); err != nil {
					return unreadable(err)
				}
			}
			fresh, setting, err := newMaster(cmd, cfg, file, env, command)
			if err != nil {
				return err
			}
			if answers(cmd.Context(), cfg) {
				return running(cfg)
			}
			if err := rewrap(cmd.Context(), cfg, fresh); err != nil {
				return err
			}
			return c.show(cmd, outcome{setting, "rewrapped"}, func(p *printer) {
				p.line("The new master key is in force. Before mailgrant starts again, set:")
				p.line("  %s", setting)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&file, "to-file", "", "`file` with the new master key: mailgrant key new FILE")
	f.StringVar(&env, "to-env", "", "`name` of the environment variable that holds the new master key")
	f.StringArrayVar(&command, "to-command", nil, "`word` of a command that wraps and unwraps instead; again for each word")
	return cmd
}

// newMaster reads the new master key, and says which setting will name it.
func newMaster(cmd *cobra.Command, cfg config.Config, file, env string, command []string) (tink.AEAD, string, error) {
	given, setting := config.MasterKey{File: file, Env: env, Command: command}, ""
	n := 0
	for name, v := range map[string]string{"master_key.file": file, "master_key.env": env, "master_key.command": joined(command)} {
		if v != "" {
			n++
			setting = name + ": " + v
		}
	}
	if n != 1 {
		return nil, "", wrong(cmd, "name the new master key by one of --to-file, --to-env and --to-command")
	}
	cfg.MasterKey = given
	m, err := node.MasterKey(cfg, false)
	return m, setting, err
}

func rewrap(ctx context.Context, cfg config.Config, fresh tink.AEAD) (err error) {
	old, err := node.MasterKey(cfg, false)
	if err != nil {
		return err
	}
	s, err := openStore(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	v, err := vault.Open(ctx, old, s)
	if err != nil {
		return err
	}
	if err := v.Rewrap(ctx, fresh); err != nil {
		return err
	}
	if _, err := vault.Open(ctx, fresh, s); err != nil { // what cannot be opened again is lost: look now
		return mailgrant.Errorf(mailgrant.Internal, err, "the new master key does not open what it wrapped").
			Fix("restore the database from a backup, and keep the old master key")
	}
	return nil
}
