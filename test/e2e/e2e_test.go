// Package e2e_test runs mailgrant whole between parts that we did not write:
// programs that submit, a provider, a browser, Postfix.
package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
	"github.com/mailgrant/mailgrant/internal/config"
	"github.com/mailgrant/mailgrant/internal/node"
	"github.com/mailgrant/mailgrant/test/real"
)

// A world is mailgrant with one mailbox, Alex's, at a provider that it learns of
// by its issuer, and an app that submits.
type world struct {
	oidc      *real.OIDC
	mail      *real.MailServer
	admin     *client.Client // the operator, on the local socket
	app       *client.Client // the app, with its key
	key       string
	home      string
	implicit  string // submissions://
	starttls  string // submission://
	grant     mailgrant.ID
	mailboxID mailgrant.ID
}

// start runs everything over a database; "" is SQLite.
func start(t *testing.T, database string) *world {
	t.Helper()
	port := freePort(t)
	w := &world{home: "http://localhost:" + port, implicit: "127.0.0.1:" + freePort(t), starttls: "127.0.0.1:" + freePort(t)}
	reg := mailgrant.NewID(mailgrant.PrefixRegistration) // the provider must know the way back before we ask it anything
	w.oidc = real.NewOIDC(t, real.OIDCOptions{RedirectURIs: []string{w.home + "/oauth/callback/" + string(reg)}})
	w.mail = real.NewMailServer(t, w.oidc)
	n, cfg := w.run(t, port, database)
	ctx := t.Context()
	w.admin = client.Local(cfg.Socket())
	orgs, err := w.admin.Organizations(ctx)
	if err != nil {
		t.Fatal(err)
	}
	must(t, n.Store.CreateRegistration(ctx, mailgrant.Registration{ID: reg, Org: orgs[0].ID, Name: "Real", Template: "generic", Issuer: w.oidc.Issuer, ClientID: w.oidc.ClientID,
		ScopesExtra: []string{"mail.send"}, CAFile: w.mail.CAFile, CreatedAt: time.Now().UTC(), UpdatedAt: time.Now().UTC(),
		Overrides: map[string]string{"smtp_host": w.mail.Host, "smtp_port": strconv.Itoa(w.mail.SubmissionPort)}}))
	_, err = w.admin.AddCredential(ctx, reg, client.NewCredential{Kind: mailgrant.CredentialSecret, Secret: w.oidc.ClientSecret})
	must(t, err)
	address, can, role, name := real.Alex, []mailgrant.Capability{mailgrant.CanSMTP}, mailgrant.RoleGlobal, "crm"
	g, err := w.admin.CreateGrant(ctx, client.GrantSettings{Registration: &reg, Mailbox: &address, Capabilities: &can})
	must(t, err)
	w.grant = g.ID
	m, err := w.admin.CreateMailbox(ctx, client.MailboxSettings{Address: &address, Role: &role, Grant: &g.ID})
	must(t, err)
	w.mailboxID = m.ID
	_, err = w.admin.CreateApp(ctx, client.AppSettings{Name: &name})
	must(t, err)
	k, err := w.admin.IssueKey(ctx, name, client.NewKey{Scopes: []mailgrant.Scope{mailgrant.ScopeSend, mailgrant.ScopeRead}})
	must(t, err)
	w.key, w.app = k.Secret, client.New(w.home, k.Secret)
	return w
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		e := mailgrant.AsError(err)
		t.Fatalf("%v (%s; %v)", err, e.Remedy, e.Cause)
	}
}

// run starts mailgrant itself and ends it with the test.
func (w *world) run(t *testing.T, port, database string) (*node.Node, config.Config) {
	t.Helper()
	c := config.Default()
	dir, err := os.MkdirTemp("", "mg-e2e-") // the path of a socket is short
	must(t, err)
	c.Dir, c.Database, c.Hostname, c.PublicURL = dir, database, "mailgrant.real.example", w.home
	c.Listen = []string{"http+insecure://127.0.0.1:" + port, "submissions://" + w.implicit, "submission://" + w.starttls}
	c.TLS.Cert, c.TLS.Key = real.Certificate(t)
	c.Egress.Allow = []string{w.oidc.Host(), w.mail.Submission(), w.mail.Submissions()}
	ctx, stop := context.WithCancel(context.Background())
	n, err := node.Open(ctx, c, node.Options{Log: node.Logger(t.Output(), config.Log{Level: "warn", Format: "text"})})
	must(t, err)
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("mailgrant ended with %v", err)
		}
		os.RemoveAll(dir)
	})
	return n, c
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// consent is what Alex does: from the link that mailgrant made, over the pages of
// the provider, back to a page that says how it ended.
func (w *world) consent(t *testing.T) {
	t.Helper()
	link, err := w.admin.Link(t.Context(), w.grant, "consent")
	must(t, err)
	b := real.NewBrowser(t)
	b.Goto(link.URL)
	accessible(t, b)
	b.Click("button.main")
	b.Fill("#password", real.Password)
	if got := b.Value("#address"); got != real.Alex {
		t.Errorf("the provider was not told who is expected, but %q", got)
	}
	b.Click(`role=button[name="Sign in"]`)
	b.Click(`role=button[name="Allow"]`)
	b.WaitURL(w.home)
	accessible(t, b)
	if u, err := url.Parse(b.URL()); err != nil || u.Query().Get("code") != "" {
		t.Errorf("the code stays in the address bar: %s", b.URL())
	}
	g, err := w.admin.Grant(t.Context(), w.grant)
	must(t, err)
	if g.State != mailgrant.GrantActive || g.Subject.Address != real.Alex {
		t.Fatalf("the grant is %s for %+v; the page says: %s", g.State, g.Subject, b.Text("body"))
	}
	if got := b.Elsewhere(); len(got) > 0 {
		t.Errorf("the pages asked elsewhere for %v", got)
	}
}

// accessible looks at a page of ours as it is now.
func accessible(t *testing.T, b *real.Browser) {
	t.Helper()
	if got := b.Accessibility(); len(got) > 0 {
		t.Errorf("%s: %s", b.Title(), strings.Join(got, "\n"))
	}
	if got := b.Faults(); len(got) > 0 {
		t.Errorf("%s: %s", b.Title(), strings.Join(got, "\n"))
	}
}

// ours are the fields that mailgrant puts on top: who gave it the message.
var ours = regexp.MustCompile(`\A(?:Received: [^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*)?`)

// same says whether mail is body but for the trace on top.
func same(t *testing.T, name string, mail real.Mail, body []byte) {
	t.Helper()
	got := ours.ReplaceAll(mail.Sent, nil)
	if !bytes.Equal(got, body) {
		t.Errorf("%s: sent\n%q\narrived\n%q", name, body, got)
	}
	if bytes.Contains(mail.Trace, []byte("hidden@")) {
		t.Errorf("%s: the trace names who is hidden: %s", name, mail.Trace)
	}
}

// doors submits to both doors, by the app's name and by the mailbox's address.
func (w *world) doors(t *testing.T) []real.Door {
	return []real.Door{
		{Address: w.implicit, Implicit: true, User: "crm", Key: w.key, CAFile: real.CAFile(t)},
		{Address: w.starttls, User: real.Alex, Key: w.key, CAFile: real.CAFile(t)},
	}
}

// byREST submits all awkward messages as bytes, and one in fields.
func (w *world) byREST(t *testing.T, n int) int {
	t.Helper()
	for name, body := range real.Awkward(t) {
		sub, err := w.app.SendBytes(t.Context(), client.Envelope{Recipients: []string{real.Robin, real.Elsewhere}}, bytes.NewReader(body))
		if err != nil {
			t.Errorf("%s by REST: %v", name, err)
			continue
		}
		n++
		same(t, name+" by REST", w.mail.Await(t, real.Robin, n)[n-1], withoutBcc(body))
		same(t, name+" by REST", w.mail.Await(t, real.Elsewhere, n)[n-1], withoutBcc(body))
		w.delivered(t, sub.ID)
	}
	text := "Grüße,\n.\nAlex\n"
	sub, err := w.app.Send(t.Context(), client.Message{From: real.Alex, To: []string{real.Robin}, Bcc: []string{real.Elsewhere}, Subject: "Über €", Text: text})
	must(t, err)
	n++
	got := w.mail.Await(t, real.Elsewhere, n)[n-1]
	if bytes.Contains(got.Raw, []byte("Bcc:")) || !bytes.Contains(got.Sent, []byte("\r\nTo: "+real.Robin+"\r\n")) {
		t.Errorf("in fields it arrived as\n%s", got.Raw)
	}
	w.mail.Await(t, real.Robin, n)
	w.delivered(t, sub.ID)
	return n
}

var bcc = regexp.MustCompile(`(?mi)^(?:resent-)?bcc:[^\r\n]*\r\n`)

// withoutBcc is what must leave: all but the fields that name hidden recipients.
// SM-14.
func withoutBcc(body []byte) []byte {
	head, rest, whole := bytes.Cut(body, []byte("\r\n\r\n"))
	if !whole {
		return bcc.ReplaceAll(body, nil)
	}
	return append(append(bcc.ReplaceAll(append(bytes.Clone(head), "\r\n"...), nil), "\r\n"...), rest...)
}

// delivered waits until the record says so too.
func (w *world) delivered(t *testing.T, id mailgrant.ID) {
	t.Helper()
	if err := real.Await(func() error {
		sub, err := w.app.Submission(t.Context(), id)
		if err == nil && sub.State != mailgrant.SubmissionDelivered {
			err = fmt.Errorf("it is %s: %+v", sub.State, sub.Finding)
		}
		return err
	}); err != nil {
		t.Errorf("%s: %v", id, err)
	}
}

// bySMTP submits with every program by both doors; n messages are there already.
func (w *world) bySMTP(t *testing.T, n int, bodies map[string][]byte) {
	t.Helper()
	for name, submit := range real.Submitters {
		for i, d := range w.doors(t) {
			for what, body := range bodies {
				reply, err := submit(t, d, real.Alex, []string{real.Robin, real.Elsewhere}, body)
				if err != nil || !strings.HasPrefix(reply, "250 ") {
					t.Errorf("%s by %s at door %d: %q, %v", what, name, i, reply, err)
					continue
				}
				n++
				same(t, what+" by "+name, w.mail.Await(t, real.Robin, n)[n-1], withoutBcc(body))
				same(t, what+" by "+name, w.mail.Await(t, real.Elsewhere, n)[n-1], withoutBcc(body))
			}
		}
	}
}

// bodies are the messages that the programs submit: each costs a process.
func bodies(t *testing.T, names ...string) map[string][]byte {
	all, out := real.Awkward(t), map[string][]byte{}
	for _, name := range names {
		out[name] = all[name]
	}
	return out
}

// What is submitted by REST and by the programs that people have arrives in a
// real Maildir byte for byte, by a consent that was clicked through in a browser.
func TestMailArrivesAsItWas(t *testing.T) {
	w := start(t, "")
	w.consent(t)
	n := w.byREST(t, 0)
	w.bySMTP(t, n, bodies(t, "dots", "8-bit", "signed", "Bcc"))
}

// The same over PostgreSQL, and the system's own mail by a mailbox that nobody
// signs in to.
func TestMailArrivesOverPostgres(t *testing.T) {
	w := start(t, real.Postgres(t))
	w.consent(t)
	n := w.byREST(t, 0)
	w.bySMTP(t, n, bodies(t, "signed"))
	w.check(t, real.Alex)
	w.bySystem(t)
}

// check tests a mailbox as its administrator does, up to a message to itself.
func (w *world) check(t *testing.T, address string) {
	t.Helper()
	before := len(w.mail.Messages(t, address))
	report, err := w.admin.Check(t.Context(), address, false, func(mailgrant.CheckStep) {})
	must(t, err)
	if !report.OK {
		t.Errorf("the check of %s: %+v", address, report.Steps)
	}
	got := w.mail.Await(t, address, before+1)[before]
	if !bytes.Contains(got.Sent, []byte("Subject: [mailgrant check] "+address)) {
		t.Errorf("to itself %s sent\n%s", address, got.Raw)
	}
}

// bySystem sends by the app's own right, without a person.
func (w *world) bySystem(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	name, template, id := "Real system", "generic", w.oidc.AppClientID
	extra := []string{"mail.send", "mail.read"}
	overrides := map[string]string{"smtp_host": w.mail.Host, "smtp_port": strconv.Itoa(w.mail.SubmissionsPort), "smtp_security": "tls", "sasl": "XOAUTH2"}
	r, err := w.admin.CreateRegistration(ctx, client.RegistrationSettings{Name: &name, Template: &template, Issuer: &w.oidc.Issuer, ClientID: &id,
		ScopesExtra: &extra, Overrides: &overrides, CAFile: &w.mail.CAFile})
	must(t, err)
	_, err = w.admin.AddCredential(ctx, r.ID, client.NewCredential{Kind: mailgrant.CredentialSecret, Secret: w.oidc.AppClientSecret})
	must(t, err)
	address, kind, flow, can, role := real.System, mailgrant.MailboxApp, mailgrant.FlowApp, []mailgrant.Capability{mailgrant.CanSMTP}, mailgrant.RoleSystem
	g, err := w.admin.CreateGrant(ctx, client.GrantSettings{Registration: &r.ID, Mailbox: &address, MailboxKind: &kind, Flow: &flow, Capabilities: &can})
	must(t, err)
	_, err = w.admin.CreateMailbox(ctx, client.MailboxSettings{Address: &address, Kind: &kind, Role: &role, Grant: &g.ID})
	must(t, err)
	_, err = w.admin.Activate(ctx, g.ID)
	must(t, err)
	w.check(t, real.System)
	app, classes := "crm", []mailgrant.Class{mailgrant.ClassUser, mailgrant.ClassSystem}
	_, err = w.admin.UpdateApp(ctx, app, client.AppSettings{Classes: &classes})
	must(t, err)
	n := len(w.mail.Messages(t, real.Elsewhere))
	sub, err := w.app.Send(ctx, client.Message{From: real.System, To: []string{real.Elsewhere}, Subject: "Your password", Text: "1234\n", Class: mailgrant.ClassSystem})
	must(t, err)
	if got := w.mail.Await(t, real.Elsewhere, n+1)[n]; !bytes.Contains(got.Raw, []byte("Return-Path: <"+real.System+">")) {
		t.Errorf("the system's mail arrived as\n%s", got.Raw)
	}
	w.delivered(t, sub.ID)
}
