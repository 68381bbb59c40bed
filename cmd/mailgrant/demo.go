package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
)

func newDemo(c *cli) *cobra.Command {
	var o demoOptions
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show mailgrant at work, with an imitated Microsoft 365",
		Long: `demo starts mailgrant and an imitation of Microsoft 365 on this machine, sets up
the organization Contoso, walks a consent by itself, sends a message end to end,
has the answer come to the case manager by webhook, and shows a mailbox that
cannot send with what to do about it. Then it stays, for you to look around and to
send more.

Nothing of it is left behind, unless --keep names a directory.`,
		Args: count(0, 0),
		RunE: func(cmd *cobra.Command, args []string) error { return runDemo(cmd, c, o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.keep, "keep", "", "`directory`, empty or of a demo before, in which everything is kept and found again by the next demo")
	f.BoolVar(&o.once, "once", false, "do the walk, say what happened, and end: status 0 when the mail arrived, 1 when not")
	f.BoolVar(&o.verbose, "verbose", false, "show the log")
	return cmd
}

type demoOptions struct {
	keep          string
	once, verbose bool
}

// A demoReport is what the walk came to.
type demoReport struct {
	OK        bool                  `json:"ok"`
	StartedMS int64                 `json:"started_ms"`
	ArrivedMS int64                 `json:"arrived_ms,omitempty"` // from the start to the mail in the mailbox
	Consent   *client.Grant         `json:"consent,omitempty"`
	Sent      *mailgrant.Submission `json:"sent,omitempty"`
	Attempts  []mailgrant.Attempt   `json:"attempts,omitempty"`
	Reply     *demoAnswer           `json:"reply,omitempty"` // what the case manager heard of by webhook
	Held      *mailgrant.Mailbox    `json:"held,omitempty"`  // the mailbox that cannot send
	Places    demoPlaces            `json:"places"`
	Error     *failure              `json:"error,omitempty"`
}

// demoPlaces are the addresses to open and the lines to try.
type demoPlaces struct {
	Home       string `json:"home"`
	API        string `json:"api"`
	Webmail    string `json:"webmail"`
	Arrived    string `json:"arrived"` // the mailbox where the message went
	Consent    string `json:"consent"` // to give one yourself
	Control    string `json:"control"`
	Submission string `json:"submission"`
	Dir        string `json:"dir"`
	Key        string `json:"key"`
	Curl       string `json:"curl"`
	Swaks      string `json:"swaks"`
	Answer     string `json:"answer"`
	Arrivals   string `json:"arrivals"`
	Mend       string `json:"mend"`
}

func runDemo(cmd *cobra.Command, c *cli, o demoOptions) (err error) {
	began := time.Now()
	dir, remove, err := demoDir(o.keep)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	ctx, stop := context.WithCancel(cmd.Context())
	defer stop()
	d, err := startDemo(ctx, dir, began, demoLog(cmd, o))
	if err != nil {
		return err
	}
	defer func() { stop(); err = errors.Join(err, d.wait()) }()
	p := &printer{cmd.OutOrStdout()}
	if c.json {
		p.w = io.Discard
	}
	walk := d.walk(ctx, p)
	if walk != nil && ctx.Err() == nil {
		e := mailgrant.AsError(walk)
		d.report.Error = &failure{Code: e.Code, Message: e.Message, Remedy: e.Remedy, Field: e.Field, Finding: e.Finding}
	}
	if c.json {
		if err := writeJSON(cmd.OutOrStdout(), d.report, true); err != nil {
			return err
		}
	}
	switch {
	case walk != nil:
		return walk
	case o.once && !d.report.OK:
		return errFailed
	case o.once:
		return nil
	}
	showPlaces(p, d.report.Places, o.keep)
	select {
	case <-ctx.Done():
		return nil
	case err := <-d.ended:
		d.ended <- err
		return err
	}
}

// demoDir is where a demo keeps its files, and how they are removed.
func demoDir(keep string) (dir string, remove func() error, err error) {
	if keep != "" {
		if err := os.MkdirAll(keep, 0o700); err != nil {
			return "", nil, mailgrant.Errorf(mailgrant.Misset, err, "%s cannot be made: %v", keep, err).Fix("name a directory you may write to, after --keep")
		}
		if err := demoOwn(keep); err != nil {
			return "", nil, err
		}
		dir, err := filepath.Abs(keep)
		return dir, func() error { return nil }, err
	}
	dir, err = os.MkdirTemp("", "mailgrant-demo-")
	if err != nil {
		return "", nil, mailgrant.Errorf(mailgrant.Misset, err, "there is no room for the demo's files: %v", err).Fix("name a directory with --keep, or set TMPDIR")
	}
	return dir, func() error { return os.RemoveAll(dir) }, nil
}

// demoOwn says whether a directory is empty or a demo's: in any other the demo would
// write among what is not its own, perhaps into a real mailgrant.
func demoOwn(dir string) error {
	have, err := os.ReadDir(dir)
	if err != nil {
		return mailgrant.Errorf(mailgrant.Misset, err, "%s cannot be read: %v", dir, err).Fix("name another directory after --keep")
	}
	if len(have) == 0 || slices.ContainsFunc(have, func(e os.DirEntry) bool { return e.Name() == demoMark }) {
		return nil
	}
	return mailgrant.Errorf(mailgrant.Conflict, nil, "%s is not empty, and was not made by a demo", dir).
		Fix("name an empty directory, or one that is not there yet, after --keep")
}

func showPlaces(p *printer, a demoPlaces, keep string) {
	p.line("")
	p.line("Look around")
	p.fields("  mailgrant", a.Home, "  where the message arrived", a.Arrived, "  all imitated mailboxes", a.Webmail, "  the API", a.API, "  give a consent yourself", a.Consent)
	p.line("    (choose sam@contoso.example; everybody's password is the one shown there)")
	p.line("")
	p.line("Send another")
	p.line("  %s", a.Curl)
	p.line("  %s", a.Swaks)
	p.line("")
	p.line("Answer as Robin would, and see it come")
	p.line("  %s", a.Answer)
	p.line("  %s", a.Arrivals)
	p.line("")
	p.line("Mend the mailbox that cannot send, and see its mail leave by itself within a minute")
	p.line("  %s", a.Mend)
	p.line("")
	if keep != "" {
		p.line("Everything is kept in %s. Ctrl-C ends the demo.", a.Dir)
		return
	}
	p.line("Other commands reach it with --dir %s", a.Dir)
	p.line("Ctrl-C ends the demo and removes what it made.")
}

// step tells of one thing that was done, and how long after the start.
func (d *demo) step(p *printer, format string, args ...any) {
	p.line("  ✓ %s  (%d ms)", fmt.Sprintf(format, args...), time.Since(d.began).Milliseconds())
}
