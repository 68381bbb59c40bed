package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
)

// demoTold is what a webhook says.
type demoTold struct {
	Type string          `json:"type"`
	Data mailgrant.Event `json:"data"`
}

// demoAnswer is what the event of an arrival says of it, as far as the demo shows.
type demoAnswer struct {
	ID        mailgrant.ID        `json:"id"`
	MessageID string              `json:"message_id"`
	InReplyTo []string            `json:"in_reply_to"`
	From      []mailgrant.Address `json:"from"`
	Subject   string              `json:"subject"`
	Snippet   string              `json:"snippet"`
	MS        int64               `json:"ms"` // from the mail in the mailbox to the webhook
}

// demoHook is the case manager's own small server: it hears of new mail by
// webhook, and believes what is signed.
type demoHook struct {
	server *http.Server
	secret chan string // what its webhook signs with, once it is known
	heard  chan demoTold
}

const demoHookPath = "/case-manager/mail"

func startDemoHook(port int) (*demoHook, error) {
	l, err := net.Listen("tcp", local(port))
	if err != nil {
		return nil, mailgrant.Errorf(mailgrant.Unavailable, err, "the demo's case manager cannot listen: %v", err).Fix("end what uses its port, or begin in another directory (--keep)")
	}
	h := &demoHook{secret: make(chan string, 1), heard: make(chan demoTold, 16)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+demoHookPath, h.hear)
	h.server = &http.Server{Handler: mux, ReadTimeout: 10 * time.Second}
	go h.server.Serve(l)
	return h, nil
}

func (h *demoHook) hear(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	secret := <-h.secret
	h.secret <- secret
	v, wrong := standardwebhooks.NewWebhook(secret)
	if err := errors.Join(err, wrong); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if err := v.Verify(body, r.Header); err != nil {
		http.Error(w, "the signature is not good", http.StatusUnauthorized)
		return
	}
	var told demoTold
	if err := json.Unmarshal(body, &told); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	select {
	case h.heard <- told:
	default: // the demo has seen enough
	}
	w.WriteHeader(http.StatusNoContent)
}

func (d *demo) hookURL() string {
	return "http://localhost:" + strconv.Itoa(d.ports.Hook) + demoHookPath
}

// subscribe has the case manager told of the office's mail, signed with a secret
// of its own.
func (d *demo) subscribe(ctx context.Context) error {
	have, err := d.api.Webhook(ctx, "case-manager")
	if err == nil { // a kept demo has it; its secret was shown once
		at := mailgrant.Duration(0)
		signed, err := d.api.RotateWebhook(ctx, string(have.ID), client.Rotation{BothFor: &at})
		if err != nil {
			return err
		}
		d.hook.secret <- signed.Secret
		return nil
	}
	if !errors.Is(err, mailgrant.NotFound) {
		return err
	}
	name, url, kinds := "case-manager", d.hookURL(), []string{"arrival.new"}
	signed, err := d.api.CreateWebhook(ctx, client.WebhookSettings{Name: &name, URL: &url, Kinds: &kinds})
	if err != nil {
		return err
	}
	d.hook.secret <- signed.Secret
	return nil
}

// reply has Robin answer, and shows how the case manager hears of it.
func (d *demo) reply(ctx context.Context, p *printer) error {
	if err := d.subscribe(ctx); err != nil {
		return err
	}
	sent := d.report.Sent
	id := fmt.Sprintf("<answer-%s@fabrikam.example>", strconv.FormatInt(d.began.UnixNano(), 36))
	began := time.Now()
	_, err := d.sim.Deliver(demoOffice, []byte("From: Robin Doe <"+demoRobin+">\r\nTo: "+demoOffice+"\r\nSubject: Re: "+sent.Subject+"\r\nMessage-ID: "+id+
		"\r\nIn-Reply-To: "+sent.MessageID+"\r\nReferences: "+sent.MessageID+"\r\nDate: "+began.Format(time.RFC1123Z)+
		"\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nThank you. Here is the paper that was missing.\r\n"))
	if err != nil {
		return err
	}
	for {
		select {
		case told := <-d.hook.heard:
			var a demoAnswer
			if err := json.Unmarshal(told.Data.Data, &a); err != nil || a.MessageID != id {
				continue // of other mail in the office's mailbox
			}
			a.MS = time.Since(began).Milliseconds()
			d.report.Reply = &a
			d.step(p, "Robin answered; the case manager heard of it by a signed webhook, %d ms after the mail came", a.MS)
			p.line("      %s %q: %s", told.Type, a.Subject, a.Snippet)
			return nil
		case <-ctx.Done():
			return mailgrant.Errorf(mailgrant.Unavailable, ctx.Err(), "the case manager did not hear of the answer within %s", demoWithin).
				Fix("run the demo with --verbose and read the log")
		}
	}
}
