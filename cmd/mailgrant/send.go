package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"mime"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
)

// A sending is a message from flags, a file or standard input.
type sending struct {
	from, subject, text, textFile, html, htmlFile string
	to, cc, bcc, replyTo, attach, headers         []string
	class, onBehalfOf, mailbox, at, key           string
	wait                                          bool
}

func newSend(c *cli) *cobra.Command {
	var s sending
	cmd := &cobra.Command{
		Use: "send [FILE]", Short: "Send a message: from flags, or FILE as it is (- for standard input)", Args: count(0, 1),
		Long: `Send a message.

With FILE, or - for standard input, the message goes as its bytes are, header and
body; --to and --from replace the envelope. Without, it is made from the flags, and
its text is read from standard input when there is no --text.`,
		Example: `  mailgrant send --from office@contoso.example --to kim@fabrikam.example --subject "Your case" --text "We are on it." --wait
  mailgrant send message.eml
  date | mailgrant send --from office@contoso.example --to kim@fabrikam.example --subject "The time"`,
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			sub, err := s.send(cmd, c, cl, args)
			if err != nil {
				return err
			}
			if s.wait {
				return s.follow(cmd, c, cl, sub)
			}
			return c.show(cmd, sub, func(p *printer) { p.accepted(sub) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&s.from, "from", "", "`address` it comes from")
	f.StringArrayVar(&s.to, "to", nil, "`address` it goes to; again for more")
	f.StringArrayVar(&s.cc, "cc", nil, "`address` that gets a copy; again for more")
	f.StringArrayVar(&s.bcc, "bcc", nil, "`address` that gets a copy unseen; again for more")
	f.StringArrayVar(&s.replyTo, "reply-to", nil, "`address` for answers; again for more")
	f.StringVar(&s.subject, "subject", "", "its `subject`")
	f.StringVar(&s.text, "text", "", "its `text`")
	f.StringVar(&s.textFile, "text-file", "", "`file` with its text; - for standard input")
	f.StringVar(&s.html, "html", "", "its text as `HTML`")
	f.StringVar(&s.htmlFile, "html-file", "", "`file` with its text as HTML; - for standard input")
	f.StringArrayVar(&s.attach, "attach", nil, "`file` to attach; again for more")
	f.StringArrayVar(&s.headers, "header", nil, "one more header field, as `Name: value`; again for more")
	f.StringVar(&s.class, "class", "", "what it is for (`class`): user, system (default user)")
	f.StringVar(&s.onBehalfOf, "on-behalf-of", "", "`address` of the person it is sent for")
	f.StringVar(&s.mailbox, "mailbox", "", "`address` or id of the mailbox it leaves by (default: see mailgrant route)")
	f.StringVar(&s.at, "at", "", "`time` not to send it before: 2027-01-31T08:00:00Z, or a duration from now")
	f.StringVar(&s.key, "key", "", "idempotency `key`: the same key twice is the same submission")
	f.BoolVar(&s.wait, "wait", false, "wait until it is delivered or failed, and show every attempt")
	return cmd
}

// composing are the flags that make a message, and mean nothing beside one.
var composing = []string{"cc", "bcc", "reply-to", "subject", "text", "text-file", "html", "html-file", "attach", "header"}

func (s *sending) send(cmd *cobra.Command, c *cli, cl *client.Client, args []string) (mailgrant.Submission, error) {
	at, err := moment(cmd, "at", s.at)
	if err != nil {
		return mailgrant.Submission{}, err
	}
	var opts []client.Option
	if s.key != "" {
		opts = append(opts, client.Key(s.key))
	}
	if len(args) == 0 {
		m, err := s.message(cmd, at)
		if err != nil {
			return mailgrant.Submission{}, err
		}
		c.progress(cmd, cl, 0)
		return cl.Send(cmd.Context(), m, opts...)
	}
	for _, name := range composing {
		if cmd.Flags().Changed(name) {
			return mailgrant.Submission{}, wrong(cmd, "--%s does not go with a message that is already written", name)
		}
	}
	in, size, err := openMessage(cmd, args[0])
	if err != nil {
		return mailgrant.Submission{}, err
	}
	defer in.Close()
	e := client.Envelope{From: s.from, Recipients: s.to, Class: mailgrant.Class(s.class), OnBehalfOf: s.onBehalfOf, Mailbox: s.mailbox}
	if at != nil {
		e.SendAt = *at
	}
	c.progress(cmd, cl, size)
	return cl.SendBytes(cmd.Context(), e, crlf(in), opts...)
}

// openMessage opens a file, or standard input, whose size is not known.
func openMessage(cmd *cobra.Command, name string) (io.ReadCloser, int64, error) {
	if name == "-" {
		return io.NopCloser(cmd.InOrStdin()), 0, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, 0, unreadable(err)
	}
	if fi, err := f.Stat(); err == nil && fi.Mode().IsRegular() {
		return f, fi.Size(), nil
	}
	return f, 0, nil
}

func unreadable(err error) error {
	return mailgrant.Errorf(mailgrant.Invalid, err, "a file cannot be read: %v", err).Fix("look at its name and its permissions")
}

// crlf makes the ends of lines those of the wire, when those of the first line are
// those of Unix; a message that has them already is not touched.
func crlf(r io.Reader) io.Reader {
	in := bufio.NewReaderSize(r, 64<<10)
	head, _ := in.Peek(64 << 10)
	if i := strings.IndexByte(string(head), '\n'); i < 0 || i > 0 && head[i-1] == '\r' {
		return in
	}
	pr, pw := io.Pipe()
	go func() {
		w := bufio.NewWriterSize(pw, 64<<10)
		var last byte
		for {
			b, err := in.ReadByte()
			if err != nil {
				w.Flush()
				if err == io.EOF {
					err = nil
				}
				pw.CloseWithError(err)
				return
			}
			if b == '\n' && last != '\r' {
				w.WriteByte('\r')
			}
			if err := w.WriteByte(b); err != nil { // nobody reads on
				return
			}
			last = b
		}
	}()
	return pr
}

// message makes the fields from the flags.
func (s *sending) message(cmd *cobra.Command, at *time.Time) (client.Message, error) {
	if len(s.to)+len(s.cc)+len(s.bcc) == 0 {
		return client.Message{}, wrong(cmd, "a message needs somebody to go to (--to), or a FILE that says it")
	}
	m := client.Message{From: s.from, To: s.to, Cc: s.cc, Bcc: s.bcc, ReplyTo: s.replyTo, Subject: s.subject, Text: s.text, HTML: s.html,
		Class: mailgrant.Class(s.class), OnBehalfOf: s.onBehalfOf, Mailbox: s.mailbox, SendAt: at}
	for _, h := range s.headers {
		name, value, ok := strings.Cut(h, ":")
		if !ok {
			return m, wrong(cmd, "--header %q is not Name: value", h)
		}
		if m.Headers == nil {
			m.Headers = map[string]string{}
		}
		m.Headers[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	if err := s.texts(cmd, &m); err != nil {
		return m, err
	}
	for _, name := range s.attach {
		b, err := os.ReadFile(name)
		if err != nil {
			return m, unreadable(err)
		}
		a := client.Attachment{Name: filepath.Base(name), Content: b}
		if t := mime.TypeByExtension(filepath.Ext(name)); strings.HasPrefix(t, "message/") || strings.HasPrefix(t, "multipart/") {
			a.ContentType = "application/octet-stream" // a message in a message is a file here, and stays as it is
		}
		m.Attachments = append(m.Attachments, a)
	}
	return m, nil
}

// texts reads the text from where the flags say, else from standard input.
func (s *sending) texts(cmd *cobra.Command, m *client.Message) error {
	if s.textFile == "-" && s.htmlFile == "-" {
		return wrong(cmd, "standard input can be read once: for --text-file or for --html-file")
	}
	if s.textFile == "" && !cmd.Flags().Changed("text") && s.htmlFile == "" && s.html == "" && !isTerminal(cmd.InOrStdin()) {
		s.textFile = "-"
	}
	for _, t := range []struct {
		file string
		to   *string
	}{{s.textFile, &m.Text}, {s.htmlFile, &m.HTML}} {
		if t.file == "" {
			continue
		}
		in, _, err := openMessage(cmd, t.file)
		if err != nil {
			return err
		}
		b, err := io.ReadAll(in)
		in.Close()
		if err != nil {
			return unreadable(err)
		}
		*t.to = string(b)
	}
	return nil
}

func (p *printer) accepted(sub mailgrant.Submission) {
	p.line("%s accepted, by %s: %s", sub.ID, sub.Route.Address, oneLine(sub.Route.Reason))
}

// A step of a submission that is followed.
type followed struct {
	Submission *mailgrant.Submission `json:"submission,omitempty"`
	Attempt    *mailgrant.Attempt    `json:"attempt,omitempty"`
}

// follow shows the attempts of a submission until it is final. It is an error of
// the command when it was not delivered.
func (s *sending) follow(cmd *cobra.Command, c *cli, cl *client.Client, sub mailgrant.Submission) error {
	if err := c.each(cmd, followed{Submission: &sub}, func(p *printer) { p.accepted(sub) }); err != nil {
		return err
	}
	held := false
	for shown := 0; ; {
		now, err := cl.Submission(cmd.Context(), sub.ID)
		if err != nil {
			return err
		}
		if now.Attempts > shown || now.State.Final() {
			all, err := cl.Attempts(cmd.Context(), sub.ID)
			if err != nil {
				return err
			}
			for ; shown < len(all); shown++ {
				a := all[shown]
				if err := c.each(cmd, followed{Attempt: &a}, func(p *printer) { p.attempt(a) }); err != nil {
					return err
				}
			}
		}
		if now.State.Final() {
			return s.final(cmd, c, now)
		}
		if now.Held && !held && !c.json {
			fmt.Fprintf(cmd.ErrOrStderr(), "%s is held and keeps the message; see: mailgrant mailbox show %s\n", now.Route.Address, now.Route.Address)
			held = true
		}
		if err := pause(cmd.Context(), glance); err != nil {
			return err
		}
	}
}

// glance is between two looks at a submission that is under way.
const glance = 100 * time.Millisecond

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func (s *sending) final(cmd *cobra.Command, c *cli, sub mailgrant.Submission) error {
	if err := c.each(cmd, followed{Submission: &sub}, func(p *printer) { p.line("%s %s", sub.ID, sub.State) }); err != nil {
		return err
	}
	if sub.State != mailgrant.SubmissionDelivered {
		return errFailed
	}
	return nil
}

func (p *printer) attempt(a mailgrant.Attempt) {
	p.line("attempt %d  %s by %s in %s  %s", a.N, a.Fate, a.Transport, span(a.EndedAt.Sub(a.StartedAt)), oneLine(a.Reply))
	p.finding(a.Finding, "  ")
	for _, r := range a.Recipients {
		p.line("  %s  %s  %s", oneLine(r.Address), r.Fate, oneLine(r.Reply))
		p.finding(r.Finding, "    ")
	}
}
