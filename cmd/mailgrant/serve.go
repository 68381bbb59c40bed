package main

import (
	"fmt"
	"runtime"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/mailgrant/mailgrant/internal/node"
)

func newServe(c *cli) *cobra.Command {
	var listen []string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run mailgrant",
		Long: `serve runs mailgrant until it is told to stop: an interrupt or a TERM signal
lets what is under way end, for half a minute at most.

Without a settings file it keeps everything in ./mailgrant-data and listens on
this machine for the API, and on all networks for mail with TLS.`,
		Args: count(0, 0),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := c.config()
			if err != nil {
				return err
			}
			if len(listen) > 0 {
				cfg.Listen = listen
			}
			if err := cfg.Check(); err != nil {
				return err
			}
			if err := closedToOthers(); err != nil {
				return err
			}
			floor := thrift()
			defer runtime.KeepAlive(floor)
			n, err := node.Open(cmd.Context(), cfg, node.Options{Log: node.Logger(cmd.ErrOrStderr(), cfg.Log)})
			if err != nil {
				return err
			}
			for _, d := range n.Doors() {
				line := "listening on " + d.URI
				if d.Fingerprint != "" && n.Certs.Info().Generated {
					line += "\n  certificate made for the local network, SHA-256 " + d.Fingerprint
				}
				fmt.Fprintln(cmd.OutOrStdout(), line)
			}
			defer time.AfterFunc(settled, giveBack).Stop()
			return n.Run(cmd.Context())
		},
	}
	cmd.Flags().StringArrayVar(&listen, "listen", nil, "`door` to open instead of those of the settings, such as submissions://:465; may be given several times")
	return cmd
}

// closedToOthers keeps what this process has in memory to itself: it leaves no core
// file, and no other process of the same user may read its memory, its environment
// or its open files, or attach to it. SE-08.
func closedToOthers() error {
	none := unix.Rlimit{}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &none); err != nil {
		return fmt.Errorf("switch off core files: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("close this process to others: %w", err)
	}
	return nil
}
