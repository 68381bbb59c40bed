package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
	"github.com/mailgrant/mailgrant/internal/webhook"
)

// listenSecret is the environment variable of the secret that events are signed with.
const listenSecret = "WEBHOOK_SECRET"

// forwardWithin is how long a local program may take.
const forwardWithin = 15 * time.Second

func newListen(c *cli) *cobra.Command {
	var f client.EventFilter
	var full bool
	var mailbox, app, to string
	cmd := &cobra.Command{
		Use: "listen", Short: "Print events as they come, and post them to a program on this machine", Args: count(0, 0),
		Long: `Print events as they come, as a webhook would be told of them. For developers: nothing
is set up, and it ends when it is interrupted.

With --forward-to each event is posted there as well, signed like that of a webhook,
one after the other. The secret is that of the environment variable
` + listenSecret + `, or a new one, which is said at the beginning. What the
program does not take is not tried again.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := c.client(cmd)
			if err != nil {
				return err
			}
			if f.App, err = appID(cmd, cl, app); err != nil {
				return err
			}
			if f.Mailbox, err = mailboxID(cmd, cl, mailbox); err != nil {
				return err
			}
			if !cmd.Flags().Changed("after") {
				f.After = -1
			}
			l := &listener{c: c, cmd: cmd, full: full}
			if to != "" {
				if err := l.forward(to); err != nil {
					return err
				}
			}
			return c.watch(cmd, cl, f, l.event)
		},
	}
	fs := cmd.Flags()
	fs.StringArrayVar(&f.Kinds, "kind", nil, "only this `kind`, such as submission.delivered or arrival.*; again for more")
	fs.StringVar(&mailbox, "mailbox", "", "only of this mailbox, by `address` or id")
	fs.StringVar(&app, "app", "", "only of this app, by `name` or id")
	fs.Int64Var(&f.After, "after", 0, "begin after the event of this `number` instead of now")
	fs.IntVar(&f.Limit, "limit", 0, "end after this `number` of events")
	fs.BoolVar(&full, "full", false, "forward what an event carries, not with arrivals only")
	fs.StringVar(&to, "forward-to", "", "post each event to this `URL`, such as http://localhost:3000/hooks")
	return cmd
}

// A listener shows events, and posts them.
type listener struct {
	c      *cli
	cmd    *cobra.Command
	full   bool
	to     string
	secret mailgrant.Secret
	http   *http.Client
}

// forward has events posted, too.
func (l *listener) forward(to string) error {
	u, err := url.Parse(to)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return wrong(l.cmd, "--forward-to %q is not a URL such as http://localhost:3000/hooks", to)
	}
	l.to, l.secret = to, mailgrant.NewSecret(os.Getenv(listenSecret))
	l.http = &http.Client{Timeout: forwardWithin, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if l.secret.IsZero() {
		b := make([]byte, 32)
		rand.Read(b) // never fails: crypto/rand
		l.secret = mailgrant.NewSecret("whsec_" + base64.StdEncoding.EncodeToString(b))
		fmt.Fprintf(l.cmd.ErrOrStderr(), "Signed with %s\n", l.secret.Reveal())
	}
	if err := webhook.Sign(http.Header{}, "dlv_check", time.Now(), nil, l.secret); err != nil {
		return wrong(l.cmd, "%s is not the secret of a webhook: whsec_ and base64", listenSecret)
	}
	return nil
}

// A forwarded is an event and what the program said to it.
type forwarded struct {
	mailgrant.Event
	Forwarded bool   `json:"forwarded"`
	Status    int    `json:"status,omitempty"`
	Took      string `json:"took,omitempty"`
	Error     string `json:"error,omitempty"`
}

// event takes one.
func (l *listener) event(e mailgrant.Event) error {
	if l.to == "" {
		return l.c.each(l.cmd, e, func(p *printer) { p.event(e) })
	}
	began := time.Now()
	status, err := l.post(l.cmd.Context(), e)
	f := forwarded{Event: e, Forwarded: err == nil && status/100 == 2, Status: status, Took: time.Since(began).Round(time.Millisecond).String()}
	if err != nil {
		f.Error = err.Error()
	}
	return l.c.each(l.cmd, f, func(p *printer) {
		p.event(e)
		if err != nil {
			p.line("  not taken: %s", oneLine(f.Error))
			return
		}
		p.line("  %d  %s", status, f.Took)
	})
}

func (l *listener) post(ctx context.Context, e mailgrant.Event) (status int, err error) {
	body, err := webhook.Payload(e, l.full)
	if err != nil {
		return 0, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, l.to, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "mailgrant")
	if err := webhook.Sign(r.Header, webhook.DeliveryID("listen", e), time.Now(), body, l.secret); err != nil {
		return 0, err
	}
	res, err := l.http.Do(r)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	_, err = io.CopyN(io.Discard, res.Body, 64<<10)
	if err == io.EOF {
		err = nil
	}
	return res.StatusCode, err
}
