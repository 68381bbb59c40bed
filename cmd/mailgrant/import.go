package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/adopt"
)

func newImport(c *cli) *cobra.Command {
	var from, out string
	cmd := &cobra.Command{
		Use: "import FILE", Short: "Read the settings of another mail program, say what is dangerous in them, and make a file for apply", Args: count(1, 1),
		Long: `Read the settings of email-oauth2-proxy, mail_room, getmail or fetchmail, and say line by
line what was understood, what is dangerous, what still needs a person, and what was not
understood. What can be taken over is written as a file for mailgrant apply; nothing is
changed in mailgrant, which need not even run, until that file is applied.

Nothing of the file is run. Secrets are neither shown nor taken over: the file for apply
names an environment variable for each. docs/import.md describes it.`,
		Example: `  mailgrant import ~/.fetchmailrc
  mailgrant import emailproxy.config --out contoso.yaml
  mailgrant import settings.txt --from getmail --json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			report, err := readForeign(cmd, args[0], adopt.Format(from))
			if err != nil {
				return err
			}
			done := imported{Report: report, File: args[0]}
			if err := done.write(out); err != nil {
				return err
			}
			if err := c.show(cmd, done, func(p *printer) { p.imported(done) }); err != nil {
				return err
			}
			if done.Out == "" {
				return mailgrant.Errorf(mailgrant.Misset, nil, "no mailbox of the file could be taken over").Fix("look at what the report asks for")
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "whose settings they are (`program`): email-oauth2-proxy, mail_room, getmail, fetchmail (default found from the file)")
	cmd.Flags().StringVar(&out, "out", "apply.yaml", "the `file` to make for apply")
	return cmd
}

// An imported is what import answers.
type imported struct {
	File string `json:"file"`
	adopt.Report
	Out  string   `json:"out,omitempty"` // the file for apply; "" when nothing could be taken over
	Next []string `json:"next"`          // the commands to run then
}

func readForeign(cmd *cobra.Command, name string, from adopt.Format) (adopt.Report, error) {
	in, _, err := openMessage(cmd, name)
	if err != nil {
		return adopt.Report{}, err
	}
	defer in.Close()
	b, err := io.ReadAll(io.LimitReader(in, adopt.MaxBytes+1))
	if err != nil {
		return adopt.Report{}, unreadable(err)
	}
	return adopt.Read(b, from)
}

// write makes the file for apply. One that is there is somebody's.
func (d *imported) write(name string) error {
	d.Next = []string{}
	b, err := d.Report.File()
	if err != nil || b == nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return mailgrant.Errorf(mailgrant.Conflict, err, "%s is there already", name).Fix("name another file with --out, or take it away").At("out")
	}
	if err == nil {
		_, err = f.Write(b)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return mailgrant.Errorf(mailgrant.Invalid, err, "%s cannot be written: %v", name, err).Fix("name another file with --out").At("out")
	}
	d.Out, d.Next = name, d.next(name)
	return nil
}

// next are the commands that lead from the file to mail.
func (d *imported) next(name string) (next []string) {
	for _, s := range d.Secrets {
		next = append(next, fmt.Sprintf("export %s=…   # %s", s.Env, s.From()))
	}
	file := shellWord(name)
	next = append(next, "mailgrant apply -f "+file+" --dry-run", "mailgrant apply -f "+file)
	for _, m := range d.Settings.Mailboxes {
		next = append(next, "mailgrant grant begin "+shellWord(m.Address))
	}
	for _, m := range d.Settings.Mailboxes {
		next = append(next, "mailgrant check "+shellWord(m.Address))
	}
	return next
}

var plainShell = regexp.MustCompile(`^[A-Za-z0-9@%+=:,./_-]+$`)

// shellWord is a word as a shell takes it.
func shellWord(s string) string {
	if plainShell.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func (p *printer) imported(d imported) {
	p.line("%s: settings of %s", oneLine(d.File), d.Format)
	for _, part := range []struct {
		head  string
		notes []adopt.Note
	}{
		{"Understood", d.Understood}, {"Dangerous", d.Dangerous}, {"Still needs a person", d.Needs}, {"Not understood", d.NotUnderstood},
	} {
		p.line("")
		p.line("%s", part.head)
		if len(part.notes) == 0 {
			p.line("  nothing")
		}
		for _, n := range part.notes {
			p.note(filepath.Base(d.File), n)
		}
	}
	p.line("")
	if d.Out == "" {
		p.line("No file was made for apply.")
		return
	}
	p.line("%s was made; registrations: %d, mailboxes: %d. Nothing is changed in mailgrant until it is applied.", oneLine(d.Out), len(d.Settings.Registrations), len(d.Settings.Mailboxes))
	p.line("Look through it, and then:")
	for _, s := range d.Next {
		p.line("  %s", oneLine(s))
	}
}

func (p *printer) note(file string, n adopt.Note) {
	at := file
	if n.Line > 0 {
		at = fmt.Sprintf("%s:%d", file, n.Line)
	}
	text := n.Text
	if n.Remedy != "" {
		text += ". Fix: " + n.Remedy
	}
	p.line("  %s: %s", oneLine(at), oneLine(text))
}
