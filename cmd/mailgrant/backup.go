package main

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/config"
	"github.com/mailgrant/mailgrant/internal/node"
	"github.com/mailgrant/mailgrant/internal/store"
	"github.com/mailgrant/mailgrant/internal/vault"
)

func newBackup(c *cli) *cobra.Command {
	salvage := false
	cmd := &cobra.Command{
		Use: "backup FILE", Short: "Write everything as it stands now into one sealed file (- for standard output)", Args: count(1, 1),
		Long: `Write everything as it stands now into one sealed file (- for standard output).

The running mailgrant writes it; where none runs, the database is read directly. The
file appears under its name when it is whole and on the disk, and not before. It
opens with the master key of this installation only: keep that elsewhere.

With --salvage it saves what can still be read of a SQLite database that is damaged,
which it does not change: messages that wait, and all the rest. mailgrant restore
puts that into a fresh data directory, like any backup.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			var out saved
			write := func(w io.Writer) error { return c.backup(cmd, w) }
			if salvage {
				write = func(w io.Writer) (err error) { out.Salvaged, err = c.salvage(cmd, w); return err }
			}
			if args[0] == "-" {
				return write(cmd.OutOrStdout())
			}
			size, err := writeWhole(args[0], write)
			if err != nil {
				return err
			}
			out.File, out.Size = args[0], size
			return c.show(cmd, out, func(p *printer) { p.saved(out) })
		},
	}
	cmd.Flags().BoolVar(&salvage, "salvage", false, "save what can still be read of a damaged SQLite database")
	return cmd
}

// saved is a file that was written.
type saved struct {
	File     string          `json:"file"`
	Size     int64           `json:"size"`
	Salvaged *store.Salvaged `json:"salvaged,omitempty"`
}

func (p *printer) saved(s saved) {
	p.line("%s  %d bytes", s.File, s.Size)
	switch {
	case s.Salvaged == nil:
	case len(s.Salvaged.Damaged) == 0:
		p.line("%d rows are saved: all of them could be read.", s.Salvaged.Rows)
	default:
		p.line("%d rows are saved; some could not be read in: %s", s.Salvaged.Rows, joined(s.Salvaged.Damaged))
	}
}

// salvage writes a backup of a database that does not open.
func (c *cli) salvage(cmd *cobra.Command, w io.Writer) (*store.Salvaged, error) {
	cfg, err := c.config()
	switch {
	case err != nil:
		return nil, err
	case answers(cmd.Context(), cfg):
		return nil, running(cfg)
	case cfg.Database != "" && !strings.HasPrefix(cfg.Database, "sqlite://"):
		return nil, mailgrant.Errorf(mailgrant.Invalid, nil, "only a SQLite file can be salvaged").Fix("use the tools of PostgreSQL for its database")
	}
	master, err := node.MasterKey(cfg, false)
	if err != nil {
		return nil, err
	}
	out, err := vault.SealStream(master, w)
	if err != nil {
		return nil, err
	}
	saved, err := store.Salvage(cmd.Context(), strings.TrimPrefix(cfg.DatabasePath(), "sqlite://"), out)
	return &saved, errors.Join(err, out.Close())
}

func (c *cli) backup(cmd *cobra.Command, w io.Writer) error {
	if c.elsewhere() == "" {
		cfg, err := c.config()
		if err != nil {
			return err
		}
		if !answers(cmd.Context(), cfg) {
			return backupStore(cmd.Context(), cfg, w)
		}
	}
	cl, err := c.client(cmd)
	if err != nil {
		return err
	}
	return cl.Backup(cmd.Context(), w)
}

// answers says whether a mailgrant runs on the data directory.
func answers(ctx context.Context, cfg config.Config) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", cfg.Socket())
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

func backupStore(ctx context.Context, cfg config.Config, w io.Writer) (err error) {
	s, err := openStore(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	master, err := node.MasterKey(cfg, false)
	if err != nil {
		return err
	}
	if _, err := vault.Open(ctx, master, s); err != nil { // else it would open with neither master key
		return err
	}
	out, err := vault.SealStream(master, w)
	if err != nil {
		return err
	}
	if err := s.Backup(ctx, out); err != nil {
		return err
	}
	return out.Close()
}

// openStore opens a database that is there; only serve and restore make one.
func openStore(ctx context.Context, cfg config.Config) (*store.Store, error) {
	if cfg.Database == "" {
		if _, err := os.Stat(cfg.DatabasePath()); err != nil {
			return nil, mailgrant.Errorf(mailgrant.Misset, err, "there is no mailgrant in %s", cfg.Dir).
				Fix("name the data directory (--dir) or the settings file (--config) that mailgrant serve uses")
		}
	}
	s, err := store.Open(ctx, cfg.DatabasePath(), node.Logger(io.Discard, cfg.Log))
	return s, node.Ended(err)
}

// writeWhole makes a file appear under its name only when it is whole and on the
// disk. What was there before stays until then.
func writeWhole(name string, write func(io.Writer) error) (size int64, err error) {
	dir := filepath.Dir(name)
	f, err := os.CreateTemp(dir, "."+filepath.Base(name)+".*") // mode 0600
	if err != nil {
		return 0, unwritable(err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if err := write(f); err != nil {
		return 0, err
	}
	if fi, err := f.Stat(); err == nil {
		size = fi.Size()
	}
	for _, step := range []func() error{f.Sync, f.Close, func() error { return os.Rename(f.Name(), name) }, func() error { return syncDir(dir) }} {
		if err := step(); err != nil {
			return 0, unwritable(err)
		}
	}
	return size, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func unwritable(err error) error {
	return mailgrant.Errorf(mailgrant.Invalid, err, "the file cannot be written: %v", err).Fix("choose another place, or make room there")
}

func newRestore(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "restore FILE", Short: "Put a backup into an empty data directory or database (- for standard input)", Args: count(1, 1),
		Long: `Put a backup into an empty data directory or database (- for standard input), all or
nothing. The master key of the installation that wrote it must be in its place, and
mailgrant must not run.

Every mailbox is held afterwards, and every webhook is off: what was sent and told
since the backup is not known to it. Look at what waits, cancel what was sent already,
then resume the mailboxes and switch the webhooks on.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := c.config()
			if err != nil {
				return err
			}
			if answers(cmd.Context(), cfg) {
				return running(cfg)
			}
			in := io.NopCloser(cmd.InOrStdin())
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return unreadable(err)
				}
				in = f
			}
			defer in.Close()
			if err := node.Restore(cmd.Context(), cfg, in); err != nil {
				return err
			}
			return c.show(cmd, outcome{args[0], "restored"}, func(p *printer) {
				p.line("Restored. All mailboxes are held. Start mailgrant, look at what waits (mailgrant queue list), then:")
				p.line("  mailgrant mailbox resume ADDRESS")
				p.line("All webhooks are off. When applications may hear again what they heard since the backup:")
				p.line("  mailgrant webhook change NAME --enable")
			})
		},
	}
}

func running(cfg config.Config) error {
	return mailgrant.Errorf(mailgrant.Conflict, nil, "mailgrant runs on %s", cfg.Dir).Fix("stop it first")
}
