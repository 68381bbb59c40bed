// Command mailgrant runs mailgrant and speaks to a running one.
//
// Every command is a file of its own and a function here that makes it. Those
// that look at a running mailgrant go through package client, by the socket in
// its data directory or by an address and a key.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// commands are all there are, in the order in which help shows them.
var commands = []func(*cli) *cobra.Command{
	newServe,
	newDemo,
	newSim,
	newSend,
	newGrant,
	newRegistration,
	newMailbox,
	newApp,
	newCheck,
	newEvents,
	newWebhook,
	newListen,
	newQueue,
	newArrival,
	newRoute,
	newExplain,
	newHealth,
	newOrganization,
	newApply,
	newExport,
	newImport,
	newConfig,
	newBackup,
	newRestore,
	newKey,
	newVersion,
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the whole program but for what belongs to the process: it gives the
// exit status.
func run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	asJSON, _ := root.PersistentFlags().GetBool("json")
	return report(ctx, err, errOut, asJSON)
}

// newRoot is the tree of all commands.
func newRoot() *cobra.Command {
	c := &cli{}
	root := group("mailgrant", "Send and receive mail through mailboxes that ask for OAuth")
	root.Long = `mailgrant lets applications send through Microsoft 365, Google and other mailboxes
that take no passwords any more: it keeps the consents alive, queues, paces and
hands over the mail, and says of every failure what it means and who can mend it.

Commands reach a running mailgrant by the socket in its data directory (--dir or
--config, as for mailgrant serve), or from elsewhere by MAILGRANT_URL and
MAILGRANT_KEY.

` + exitHelp()
	root.SilenceUsage, root.SilenceErrors = true, true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usage(cmd, err) })
	c.flags(root.PersistentFlags())
	for _, f := range commands {
		root.AddCommand(f(c))
	}
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	return root
}

// group is a command that only holds others.
func group(use, short string, subs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.ArbitraryArgs}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return unknown(cmd, args[0])
		}
		return cmd.Help()
	}
	cmd.AddCommand(subs...)
	return cmd
}
