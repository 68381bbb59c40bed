package chaos

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/smtp"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
	"github.com/mailgrant/mailgrant/sim"
	"github.com/mailgrant/mailgrant/test/real"
)

// A way is how a mailbox is read.
type way struct {
	protocol string
	can      mailgrant.Capability
	after    mailgrant.AfterRead
	pushes   bool
	settings []string // of Dovecot
}

// doneFolder is where read mail is moved.
const doneFolder = "Done"

// A mailroom is a mailbox of a real Dovecot, that mailgrant reads over a cable, and
// an application that it tells.
type mailroom struct {
	*world
	way   way
	mail  *real.MailServer
	cable *cable
	app   *application
	r     *rand.Rand

	token string // of who writes to the mailbox
	sent  int
	first int // step at which a life ends
	kills map[string]int
}

func newMailroom(t *testing.T, way way, seed uint64) *mailroom {
	t.Helper()
	p := real.NewOIDC(t, real.OIDCOptions{})
	m := &mailroom{world: &world{t: t, cfg: settings(t)}, way: way, mail: real.NewMailServer(t, p), app: newApplication(t),
		r: rand.New(rand.NewPCG(seed, 3)), kills: map[string]int{}}
	m.first = m.r.IntN(len(receiveSteps))
	if len(way.settings) > 0 {
		m.mail.KillDovecot(t)
		m.mail.StartDovecot(t, way.settings...)
	}
	to := m.mail.IMAPS()
	if way.protocol == "pop" {
		to = m.mail.POP3S()
	}
	m.cable = newCable(t, to)
	_, port, err := net.SplitHostPort(m.cable.addr)
	m.must(err)
	m.cfg.Egress.Allow = []string{p.Host(), net.JoinHostPort(m.mail.Host, port), m.app.addr}
	alex, err := p.SignIn(t.Context(), real.Login{Address: real.Alex, Password: real.Password})
	m.must(err)
	m.token = alex.AccessToken
	m.furnish(p, port)
	return m
}

// furnish makes registration, mailbox, webhook and app in a first life.
func (m *mailroom) furnish(p *real.OIDC, port string) {
	m.t.Helper()
	life, err := m.start("")
	m.must(err)
	defer life.stop(m.t)
	name, template, id, extra := "Real", "generic", p.AppClientID, p.Scopes
	overrides := map[string]string{m.way.protocol + "_host": m.mail.Host, m.way.protocol + "_port": port}
	m.reads(reading{
		registration: client.RegistrationSettings{Name: &name, Template: &template, Issuer: &p.Issuer, ClientID: &id, ScopesExtra: &extra, Overrides: &overrides, CAFile: &m.mail.CAFile},
		secret:       p.AppClientSecret, can: m.way.can, addresses: []string{real.System},
		receive: mailgrant.Receive{Protocol: m.way.protocol, After: m.way.after, Everything: true, Poll: mailgrant.Duration(10 * time.Second)},
	}, m.app)
}

// A reading is what is set up to read mailboxes.
type reading struct {
	registration client.RegistrationSettings
	secret       string
	can          mailgrant.Capability
	addresses    []string
	receive      mailgrant.Receive
}

// reads has mailboxes read, an application told of what comes, and gives that a key.
func (w *world) reads(r reading, a *application) {
	w.t.Helper()
	ctx, c := w.t.Context(), client.Local(w.cfg.Socket())
	reg, err := c.CreateRegistration(ctx, r.registration)
	w.must(err)
	_, err = c.AddCredential(ctx, reg.ID, client.NewCredential{Kind: mailgrant.CredentialSecret, Secret: r.secret})
	w.must(err)
	if r.receive.After == mailgrant.AfterMove {
		r.receive.MoveTo = doneFolder
	}
	hook, address, kinds := "cases", "http://"+a.addr+"/mail", []string{"arrival.*"}
	h, err := c.CreateWebhook(ctx, client.WebhookSettings{Name: &hook, URL: &address, Kinds: &kinds})
	w.must(err)
	w.must(a.trust(h.Secret))
	kind, flow, can := mailgrant.MailboxApp, mailgrant.FlowApp, []mailgrant.Capability{r.can}
	var boxes []mailgrant.ID
	for _, address := range r.addresses {
		g, err := c.CreateGrant(ctx, client.GrantSettings{Registration: &reg.ID, Mailbox: &address, MailboxKind: &kind, Flow: &flow, Capabilities: &can})
		w.must(err)
		_, err = c.Activate(ctx, g.ID)
		w.must(err)
		box, err := c.CreateMailbox(ctx, client.MailboxSettings{Address: &address, Kind: &kind, Grant: &g.ID, Receive: &r.receive})
		w.must(err)
		boxes = append(boxes, box.ID)
	}
	name := "cases"
	_, err = c.CreateApp(ctx, client.AppSettings{Name: &name, Mailboxes: &boxes})
	w.must(err)
	k, err := c.IssueKey(ctx, name, client.NewKey{Scopes: []mailgrant.Scope{mailgrant.ScopeReceive}})
	w.must(err)
	w.key = k.Secret
}

// readsSim sets all up to read mailboxes of the imitated Microsoft 365 by IMAP, in a
// first life.
func (w *world) readsSim(a *application, receive mailgrant.Receive, addresses ...string) {
	w.t.Helper()
	w.cfg.Egress.Allow = append(w.cfg.Egress.Allow, w.sim.IMAPAddr(), a.addr)
	p, err := w.start("")
	w.must(err)
	defer p.stop(w.t)
	host, port, err := net.SplitHostPort(w.sim.IMAPAddr())
	w.must(err)
	name, template, tenant, id := "Contoso Notices", "microsoft365", sim.ContosoTenantID, sim.ContosoSystemClientID
	overrides := map[string]string{"login_url": w.sim.LoginURL(), "graph_url": w.sim.GraphURL(), "imap_host": host, "imap_port": port}
	w.reads(reading{
		registration: client.RegistrationSettings{Name: &name, Template: &template, Tenant: &tenant, ClientID: &id, Overrides: &overrides},
		secret:       sim.ContosoSystemClientSecret, can: mailgrant.CanIMAP, addresses: addresses, receive: receive,
	}, a)
}

// letter is the nth message. Some are large, all have lines that are easily spoiled.
func letter(from, to string, n int) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "From: Alex <%s>\r\nTo: <%s>\r\nSubject: %s\r\nMessage-ID: <%d@real.example>\r\nDate: Tue, 24 Nov 2026 10:00:00 +0000\r\n", from, to, subject(n), n)
	b.WriteString("MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n.\r\n..\r\nFrom here: Grüße \xff\r\n")
	size := 100 * (n % 40)
	if n%25 == 3 {
		size = 300 << 10 // in chunks
	}
	for b.Len() < size {
		fmt.Fprintf(&b, ".%d All work and no play makes Jack a dull boy.\r\n", b.Len())
	}
	return b.Bytes()
}

func subject(n int) string { return "m-" + strconv.Itoa(n) }

// bearer logs in with a token.
type bearer struct{ address, token string }

// Start implements smtp.Auth.
func (b bearer) Start(*smtp.ServerInfo) (string, []byte, error) {
	return "XOAUTH2", []byte("user=" + b.address + "\x01auth=Bearer " + b.token + "\x01\x01"), nil
}

// Next implements smtp.Auth.
func (b bearer) Next(said []byte, more bool) ([]byte, error) {
	if more {
		return nil, fmt.Errorf("the token is refused: %s", said)
	}
	return nil, nil
}

// writer logs in at Postfix, which a Dovecot that is down does not disturb from
// then on.
func (m *mailroom) writer() *smtp.Client {
	m.t.Helper()
	pem, err := os.ReadFile(m.mail.CAFile)
	m.must(err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	conn, err := tls.Dial("tcp", m.mail.Submissions(), &tls.Config{ServerName: m.mail.Host, RootCAs: pool})
	m.must(err)
	c, err := smtp.NewClient(conn, m.mail.Host)
	m.must(err)
	m.t.Cleanup(func() { c.Close() })
	m.must(c.Auth(bearer{real.Alex, m.token}))
	return c
}

// send writes the next n letters.
func (m *mailroom) send(c *smtp.Client, n int) error {
	for range n {
		if err := c.Mail(real.Alex); err != nil {
			return err
		}
		if err := c.Rcpt(real.System); err != nil {
			return err
		}
		w, err := c.Data()
		if err == nil {
			_, err = w.Write(letter(real.Alex, real.System, m.sent))
		}
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			return err
		}
		m.sent++
	}
	return nil
}

// harm does something to the world outside of mailgrant.
func (m *mailroom) harm(what string) {
	m.t.Helper()
	switch what {
	case "cable":
		if n := m.r.IntN(100 << 10); n%3 > 0 {
			m.cable.cutAfter(n)
		} else {
			m.cable.cut()
		}
	case "Dovecot":
		m.mail.KillDovecot(m.t)
		<-time.After(time.Duration(m.r.IntN(300)) * time.Millisecond)
		m.mail.StartDovecot(m.t, m.way.settings...)
	case "application":
		m.app.restart(time.Duration(m.r.IntN(300)) * time.Millisecond)
	}
	m.kills[what]++
}

var harms = []string{"Dovecot", "cable", "application", "cable"}

// receiveSteps are all between a message that is read and its application that
// knows of it.
var receiveSteps = []string{
	"inbox.before-collect", "inbox.before-done", "webhook.after-answer", "inbox.after-collect", "inbox.after-done",
	"webhook.before-post", "webhook.before-commit", "webhook.after-commit",
}

// life is one run that ends by a kill: every other one at a step of its own. New
// letters come meanwhile, and harm is done elsewhere.
func (m *mailroom) life(i int, c *smtp.Client, letters int) {
	m.t.Helper()
	die, last := "", 2*time.Second
	if i%2 == 1 {
		die, last = receiveSteps[(m.first+i/2)%len(receiveSteps)]+":"+strconv.Itoa(1+m.r.IntN(2)), 8*time.Second
	}
	p, err := m.start(die)
	m.must(err)
	sent := make(chan error, 1)
	go func() { sent <- m.send(c, letters) }()
	wait := func(most time.Duration) {
		select {
		case <-p.ended:
		case <-time.After(time.Duration(m.r.Int64N(int64(most)))):
		}
	}
	for n := range 1 + m.r.IntN(2) {
		wait(500 * time.Millisecond)
		m.harm(harms[(i+n)%len(harms)])
	}
	if err := <-sent; err != nil {
		m.t.Fatalf("Postfix: %v", err)
	}
	wait(last)
	if !alive(p) {
		m.kills["step"]++
	}
	p.kill()
	m.kills["mailgrant"]++
}

// drain runs a life without harm until everything is read, told, and done with at
// the provider.
func (m *mailroom) drain() {
	m.t.Helper()
	m.app.behave(true)
	m.cable.calm()
	p, err := m.start("")
	m.must(err)
	defer p.stop(m.t)
	c := client.New(p.rest, m.key)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(3 * time.Minute); ; {
		missing := m.missing(c)
		if missing == "" {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			s, err := client.Local(m.cfg.Socket()).Reader(m.t.Context(), real.System)
			m.t.Fatalf("%s; the reader: %+v %+v %v", missing, s, s.Finding, err)
		}
	}
}

// missing says what is still to be done; "" nothing.
func (m *mailroom) missing(c *client.Client) string {
	l, err := arrivals(m.t.Context(), c)
	if err != nil || len(l) < m.sent {
		return fmt.Sprintf("%d of %d messages are in the mail table, %v", len(l), m.sent, err)
	}
	if ids, _, _ := m.app.heard(); len(ids) < m.sent {
		return fmt.Sprintf("%d of %d messages were told", len(ids), m.sent)
	}
	if i := slices.IndexFunc(l, func(a mailgrant.Arrival) bool { return a.State != mailgrant.ArrivalDelivered }); i >= 0 {
		return fmt.Sprintf("%s is %s", l[i].Subject, l[i].State)
	}
	if here, want := m.lie(""), m.left(); here != want {
		return fmt.Sprintf("%d messages lie in the inbox, not %d", here, want)
	}
	s, err := client.Local(m.cfg.Socket()).Reader(m.t.Context(), real.System)
	if err != nil || s.State != mailgrant.ReaderWaiting || s.Push != m.way.pushes {
		return fmt.Sprintf("the reader is %+v, %v", s, err)
	}
	return ""
}

// left is how many messages are to lie in the inbox in the end.
func (m *mailroom) left() int {
	if m.way.after == mailgrant.AfterLeave {
		return m.sent
	}
	return 0
}

// lie is how many messages there are in a folder.
func (m *mailroom) lie(folder string) int {
	m.t.Helper()
	n, err := m.mail.Count(real.System, folder)
	m.must(err)
	return n
}

// arrivals are all that an application sees in the mail table.
func arrivals(ctx context.Context, c *client.Client) (all []mailgrant.Arrival, err error) {
	f := client.ArrivalFilter{Oldest: true, Limit: 500}
	for {
		page, err := c.Arrivals(ctx, f)
		if err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
		if f.Cursor = page.Next; f.Cursor == "" {
			return all, nil
		}
	}
}

// reckon looks at what the application sees: each message once in the mail table,
// byte for byte, and once by webhook.
func (m *mailroom) reckon() {
	m.t.Helper()
	p, err := m.start("")
	m.must(err)
	defer p.stop(m.t)
	c := client.New(p.rest, m.key)
	m.must(real.Await(func() error { // it reads everything again
		s, err := client.Local(m.cfg.Socket()).Reader(m.t.Context(), real.System)
		if err == nil && s.LastRead == nil {
			err = fmt.Errorf("the reader is %s", s.State)
		}
		return err
	}))
	l, err := arrivals(m.t.Context(), c)
	m.must(err)
	letters := map[string][]byte{}
	for n := range m.sent {
		letters[subject(n)] = letter(real.Alex, real.System, n)
	}
	ids, twice, moods := m.app.heard()
	seen := seeOnce(m.t, c, l, letters, ids)
	if n := m.lie(""); n != m.left() {
		m.t.Errorf("%d messages lie in the inbox, want %d", n, m.left())
	}
	moved := 0
	if m.way.after == mailgrant.AfterMove {
		if moved = m.lie(doneFolder); moved < m.sent {
			m.t.Errorf("%d messages were moved, want %d", moved, m.sent)
		}
	}
	m.t.Logf("%d messages: %d seen once; told %d, of them %d more than once; moved %d; kills %v, cuts that hit %d; the application's bad moments %s",
		m.sent, seen, len(ids), twice, moved, m.kills, m.cable.cuts, moods)
}

// seeOnce says how many letters an application sees just once, and complains of
// the others. Above a letter may stand what the server put there.
func seeOnce(t *testing.T, c *client.Client, l []mailgrant.Arrival, letters map[string][]byte, told map[mailgrant.ID][]string) (seen int) {
	t.Helper()
	times, known := map[string]int{}, map[mailgrant.ID]bool{}
	for _, a := range l {
		times[a.Subject]++
		raw, err := c.ArrivalRaw(t.Context(), a.ID)
		var b []byte
		if err == nil {
			b, err = io.ReadAll(raw)
			raw.Close()
		}
		above, whole := bytes.CutSuffix(b, letters[a.Subject])
		if err != nil || letters[a.Subject] == nil || !whole || bytes.Contains(above, []byte("\r\n\r\n")) {
			t.Errorf("%s (%s, %s, %d bytes) came as %d other bytes, %v: %+v", a.Subject, a.ID, a.State, a.Size, len(b), err, a.Finding)
		}
		if len(told[a.ID]) != 1 {
			t.Errorf("%s (%s) was told under %d names: %v", a.Subject, a.ID, len(told[a.ID]), told[a.ID])
		}
		known[a.ID] = true
	}
	for id := range told {
		if known[id] {
			continue
		}
		t.Errorf("%s was told and is not in the mail table", id)
	}
	for s := range letters {
		if times[s] == 1 {
			seen++
		} else {
			t.Errorf("%s is in the mail table %d times", s, times[s])
		}
	}
	return seen
}
