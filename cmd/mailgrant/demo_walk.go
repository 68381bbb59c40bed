package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
	"github.com/mailgrant/mailgrant/sim"
)

// The people and mailboxes of the demo, as they are in the imitated Contoso.
const (
	demoOffice  = "office@contoso.example"  // Global, shared: Kim signs in for it
	demoNoreply = "noreply@contoso.example" // System: the app itself
	demoKim     = "kim@contoso.example"     // an employee
	demoAlex    = "alex@contoso.example"    // another, who approves on the phone
	demoScanner = "scanner@contoso.example" // a device, whose SMTP AUTH is off
	demoSam     = "sam@contoso.example"     // has not consented yet: try it
	demoRobin   = "robin@fabrikam.example"  // whom everybody writes to
)

// demoWithin bounds the walk: it takes a second on a quiet machine.
const demoWithin = 60 * time.Second

// walk sets everything up and shows what mailgrant is for.
func (d *demo) walk(ctx context.Context, p *printer) error {
	ctx, cancel := context.WithTimeout(ctx, demoWithin)
	defer cancel()
	d.report.StartedMS = time.Since(d.began).Milliseconds()
	p.line("mailgrant, with an imitated Microsoft 365")
	p.line("")
	d.step(p, "started")
	key, err := d.setUp(ctx, p)
	if err != nil {
		return err
	}
	d.places(key)
	if err := d.send(ctx, p, key); err != nil {
		return err
	}
	if err := d.reply(ctx, p); err != nil {
		return err
	}
	return d.fail(ctx, p, key)
}

// setUp makes Contoso, unless a kept demo has it already, and gives a new key of
// the case manager.
func (d *demo) setUp(ctx context.Context, p *printer) (key string, err error) {
	boxes, err := d.api.Mailboxes(ctx)
	if err != nil {
		return "", err
	}
	if len(boxes) == 0 {
		if err := d.makeContoso(ctx, p); err != nil {
			return "", err
		}
	} else {
		d.step(p, "found Contoso again: %d mailboxes", len(boxes))
	}
	k, err := d.api.IssueKey(ctx, "case-manager", client.NewKey{Name: "demo", Scopes: []mailgrant.Scope{mailgrant.ScopeSend, mailgrant.ScopeRead}})
	return k.Secret, err
}

func (d *demo) makeContoso(ctx context.Context, p *printer) error {
	orgs, err := d.api.Organizations(ctx)
	if err != nil {
		return err
	}
	name := "Contoso"
	if _, err := d.api.UpdateOrganization(ctx, orgs[0].ID, client.OrganizationSettings{Name: &name}); err != nil {
		return err
	}
	people, err := d.register(ctx, "Contoso Mail", sim.ContosoClientID, sim.ContosoClientSecret)
	if err != nil {
		return err
	}
	system, err := d.register(ctx, "Contoso Notices", sim.ContosoSystemClientID, sim.ContosoSystemClientSecret)
	if err != nil {
		return err
	}
	d.step(p, "registered the apps of Contoso, with their secrets sealed")
	var all errgroup.Group
	for _, m := range []demoMailbox{
		{address: demoKim, reg: people, role: mailgrant.RolePersonal, kind: mailgrant.MailboxOwn, signIn: demoKim},
		{address: demoOffice, reg: people, role: mailgrant.RoleGlobal, kind: mailgrant.MailboxShared, signIn: demoKim, read: true},
		{address: demoAlex, reg: people, role: mailgrant.RolePersonal, kind: mailgrant.MailboxOwn, signIn: demoAlex},
		{address: demoSam, reg: people, role: mailgrant.RolePersonal, kind: mailgrant.MailboxOwn},
		{address: demoNoreply, reg: system, role: mailgrant.RoleSystem, kind: mailgrant.MailboxApp},
		{address: demoScanner, reg: people, kind: mailgrant.MailboxOwn, signIn: demoScanner, transport: "smtp"},
	} {
		all.Go(func() error {
			if err := d.makeMailbox(ctx, m); err != nil {
				return fmt.Errorf("set up %s: %w", m.address, err)
			}
			return nil
		})
	}
	if err := all.Wait(); err != nil {
		return err
	}
	d.step(p, "Kim signed in at the imitated Microsoft page and consented, for her own mailbox and for the office (walked by itself)")
	return d.makeApps(ctx)
}

// register makes a registration that leads to the imitation.
func (d *demo) register(ctx context.Context, name, clientID, secret string) (mailgrant.ID, error) {
	template, tenant := "microsoft365", sim.ContosoTenantID
	overrides := map[string]string{"login_url": d.sim.LoginURL(), "graph_url": d.sim.GraphURL()}
	for name, at := range map[string]string{"smtp": d.sim.SMTPAddr(), "imap": d.sim.IMAPAddr(), "pop": d.sim.POPAddr()} {
		host, port, err := net.SplitHostPort(at)
		if err != nil {
			return "", err
		}
		overrides[name+"_host"], overrides[name+"_port"] = host, port
	}
	r, err := d.api.CreateRegistration(ctx, client.RegistrationSettings{Name: &name, Template: &template, Tenant: &tenant, ClientID: &clientID, Overrides: &overrides})
	if err != nil {
		return "", err
	}
	ends := time.Now().AddDate(1, 0, 0)
	_, err = d.api.AddCredential(ctx, r.ID, client.NewCredential{Kind: mailgrant.CredentialSecret, Secret: secret, Description: "demo", NotAfter: &ends})
	return r.ID, err
}

type demoMailbox struct {
	address   string
	reg       mailgrant.ID
	role      mailgrant.MailboxRole
	kind      mailgrant.MailboxKind
	transport string
	signIn    string // who consents; "" nobody does
	read      bool   // its mail is received
}

func (d *demo) makeMailbox(ctx context.Context, m demoMailbox) error {
	flow, can := mailgrant.FlowCode, []mailgrant.Capability{mailgrant.CanSMTP, mailgrant.CanAPISend}
	if m.read {
		can = append(can, mailgrant.CanIMAP)
	}
	if m.kind == mailgrant.MailboxApp {
		flow = mailgrant.FlowApp
	}
	g, err := d.api.CreateGrant(ctx, client.GrantSettings{Registration: &m.reg, Mailbox: &m.address, MailboxKind: &m.kind, Flow: &flow, Capabilities: &can})
	if err != nil {
		return err
	}
	s := client.MailboxSettings{Address: &m.address, Kind: &m.kind, Grant: &g.ID}
	if m.role != "" {
		s.Role = &m.role
	}
	if m.transport != "" {
		s.Transport = &m.transport
	}
	if m.read {
		s.Receive = &mailgrant.Receive{Protocol: "imap"}
	}
	if _, err := d.api.CreateMailbox(ctx, s); err != nil {
		return err
	}
	switch {
	case m.kind == mailgrant.MailboxApp:
		_, err = d.api.Activate(ctx, g.ID)
		return err
	case m.signIn == "":
		return nil
	}
	if err := d.consent(ctx, g.ID, m.signIn); err != nil {
		return err
	}
	if m.address == demoKim {
		g, err = d.api.Grant(ctx, g.ID)
		d.report.Consent = &g
	}
	return err
}

// consent walks a consent as its person would: from the link, over the pages of
// the provider, back to mailgrant.
func (d *demo) consent(ctx context.Context, grant mailgrant.ID, who string) error {
	link, err := d.api.Link(ctx, grant, "consent")
	if err != nil {
		return err
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		return err
	}
	browser := &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	at, err := follow(ctx, browser, http.MethodPost, link.URL)
	if err != nil {
		return err
	}
	back, err := d.sim.SignIn(ctx, at.String(), sim.SignIn{Address: who})
	if err != nil {
		return fmt.Errorf("sign in as %s: %w", who, err)
	}
	if _, err := follow(ctx, browser, http.MethodGet, back.String()); err != nil {
		return err
	}
	g, err := d.api.Grant(ctx, grant)
	if err == nil && g.State != mailgrant.GrantActive {
		err = mailgrant.Errorf(mailgrant.Lapsed, nil, "the consent for %s came back and is %s", g.Mailbox, g.State).Fix("run the demo with --verbose and read the log")
	}
	return err
}

// follow makes one request and gives where it leads.
func follow(ctx context.Context, browser *http.Client, method, to string) (*url.URL, error) {
	r, err := http.NewRequestWithContext(ctx, method, to, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	res, err := browser.Do(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	io.Copy(io.Discard, io.LimitReader(res.Body, 1<<20))
	if res.StatusCode != http.StatusSeeOther && res.StatusCode != http.StatusFound {
		return nil, fmt.Errorf("%s %s answered %s", method, r.URL.Path, res.Status)
	}
	return res.Location()
}

func (d *demo) makeApps(ctx context.Context) error {
	box, err := d.api.Mailbox(ctx, demoScanner)
	if err != nil {
		return err
	}
	manager, scanner := "case-manager", "scanner"
	classes, senders := []mailgrant.Class{mailgrant.ClassUser, mailgrant.ClassSystem}, []string{"*@contoso.example"}
	doors, boxes, own := []string{"smtp"}, []mailgrant.ID{box.ID}, []string{demoScanner}
	_, err = d.api.CreateApp(ctx, client.AppSettings{Name: &manager, Classes: &classes, Senders: &senders})
	_, err2 := d.api.CreateApp(ctx, client.AppSettings{Name: &scanner, Doors: &doors, Mailboxes: &boxes, Senders: &own})
	return errors.Join(err, err2)
}

// send hands over one message by REST and waits for it to arrive.
func (d *demo) send(ctx context.Context, p *printer, key string) error {
	app := client.New(d.home(), key)
	before := len(d.sim.Mail(demoRobin))
	sub, err := app.Send(ctx, client.Message{From: demoOffice, To: []string{demoRobin}, Subject: "Your case 4711",
		Text: "Good morning,\n\nwe have your papers and are working on them.\n\nContoso Office\n"}, client.Key("demo-"+strconv.FormatInt(d.began.UnixNano(), 36)))
	if err != nil {
		return err
	}
	if _, err := d.sim.WaitMail(ctx, demoRobin, before+1); err != nil {
		return mailgrant.Errorf(mailgrant.Unavailable, err, "the message did not arrive within %s", demoWithin).
			Fix("run the demo with --verbose and read the log")
	}
	d.report.ArrivedMS, d.report.OK = time.Since(d.began).Milliseconds(), true
	d.step(p, "the case manager sent a message by one POST; it left by %s and arrived at %s", sub.Route.Address, demoRobin)
	if err := d.final(ctx, &sub); err != nil {
		return err
	}
	if d.report.Attempts, err = d.api.Attempts(ctx, sub.ID); err != nil {
		return err
	}
	d.report.Sent = &sub
	for _, a := range d.report.Attempts {
		p.line("      %s by %s: %s", a.Fate, a.Transport, a.Why)
	}
	return nil
}

// final waits until the attempt is recorded.
func (d *demo) final(ctx context.Context, sub *mailgrant.Submission) error {
	done := errors.New("final")
	err := d.watch(ctx, func() error {
		s, err := d.api.Submission(ctx, sub.ID)
		if err == nil && s.State.Final() {
			*sub, err = s, done
		}
		return err
	})
	if errors.Is(err, done) {
		return nil
	}
	return err
}

// watch looks now and after every event, until look fails.
func (d *demo) watch(ctx context.Context, look func() error) error {
	if err := look(); err != nil {
		return err
	}
	return d.api.Watch(ctx, client.EventFilter{}, func(mailgrant.Event) error { return look() })
}

// fail shows a mailbox that cannot send: what is wrong, who can mend it, how.
func (d *demo) fail(ctx context.Context, p *printer, key string) error {
	app := client.New(d.home(), key)
	if _, err := app.Send(ctx, client.Message{From: demoScanner, To: []string{demoRobin}, Mailbox: demoScanner, Subject: "Scan from the 2nd floor", Text: "2 pages\n"}); err != nil {
		return err
	}
	held := errors.New("held")
	err := d.watch(ctx, func() error {
		m, err := d.api.Mailbox(ctx, demoScanner)
		if err == nil && m.Hold != nil {
			d.report.Held, err = &m, held
		}
		return err
	})
	if !errors.Is(err, held) {
		return err
	}
	f := d.report.Held.Hold.Finding
	p.line("")
	p.line("And when something is wrong: %s cannot send, and its mail is kept", demoScanner)
	p.line("  ✗ %s", f.Title)
	p.line("      %s", f.Sentence)
	p.line("      Who: %s", whoWords[f.Who])
	p.line("      Fix: %s", f.Remedy)
	for _, s := range f.Steps {
		if s.Command != "" {
			p.line("        %s", s.Command)
		}
	}
	return nil
}

func (d *demo) home() string { return "http://localhost:" + strconv.Itoa(d.ports.HTTP) }

// calledAs is how this program was called, for lines to copy.
func calledAs() string {
	if strings.Contains(os.Args[0], "go-build") {
		return "go run ./cmd/mailgrant"
	}
	return os.Args[0]
}

// places are the addresses to open and the lines to try.
func (d *demo) places(key string) {
	a := &d.report.Places
	a.Home, a.API, a.Dir, a.Key = d.home()+"/", d.home()+"/v1/openapi.yaml", d.dir, key
	a.Webmail, a.Arrived, a.Control = d.sim.BrowserURL()+"/webmail", d.sim.WebmailURL(demoRobin), d.sim.BrowserURL()+"/_control"
	a.Submission = "localhost:" + strconv.Itoa(d.ports.SMTP)
	a.Curl = strings.Join([]string{"curl -s " + d.home() + "/v1/submissions", "-H 'Authorization: Bearer " + key + "'", "-H 'Content-Type: application/json'",
		`-d '{"from":"` + demoKim + `","to":["` + demoRobin + `"],"subject":"Hello","text":"From curl."}'`}, " ")
	a.Swaks = strings.Join([]string{"swaks --server " + a.Submission, "--auth PLAIN --auth-user case-manager", "--auth-password " + key,
		"--from " + demoOffice, "--to " + demoRobin}, " ")
	a.Answer = fmt.Sprintf(`printf 'From: %s\nTo: %s\nSubject: Re: Your case 4711\n\nOne more thing.\n' | curl -s --data-binary @- '%s/mail?to=%s'`, demoRobin, demoOffice, a.Control, demoOffice)
	a.Arrivals = calledAs() + " arrival list --dir " + d.dir
	a.Mend = fmt.Sprintf("curl -s -X PATCH %s/mailboxes/%s -d '{\"smtp_auth_disabled\":false}'", a.Control, demoScanner)
	a.Consent = d.consentLink()
}

// consentLink is a link for the visitor: Sam has not consented yet.
func (d *demo) consentLink() string {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	grants, err := d.api.Grants(ctx)
	if err != nil {
		return ""
	}
	for _, g := range grants {
		if g.Mailbox == demoSam {
			if l, err := d.api.Link(ctx, g.ID, "consent"); err == nil {
				return l.URL
			}
		}
	}
	return ""
}
