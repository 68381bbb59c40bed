package node_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
	"github.com/mailgrant/mailgrant/internal/config"
	"github.com/mailgrant/mailgrant/sim"
)

// A reading is one node that reads a mailbox of the imitated Microsoft 365.
type reading struct {
	t   *testing.T
	sim *sim.Sim
	cfg config.Config
	api *client.Client
	box mailgrant.Mailbox

	also []mailgrant.Capability // of its grant, besides reading

	stop func() error
}

func receiving(t *testing.T, r mailgrant.Receive, also ...mailgrant.Capability) *reading {
	s, err := sim.Start(t.Context(), sim.Config{Dir: t.TempDir()})
	must(t, err)
	t.Cleanup(func() { s.Close() })
	c := settings(t)
	c.Egress.CAFile = s.CAFile()
	for _, a := range []string{s.LoginURL(), s.GraphURL()} {
		u, err := url.Parse(a)
		must(t, err)
		c.Egress.Allow = append(c.Egress.Allow, u.Host)
	}
	c.Egress.Allow = append(c.Egress.Allow, s.IMAPAddr(), s.POPAddr(), s.SMTPAddr())
	x := &reading{t: t, sim: s, cfg: c, also: also}
	x.start()
	x.box = x.furnish(r)
	return x
}

// start runs a node until the test ends, or stop is called.
func (x *reading) start() {
	n := open(x.t, x.cfg)
	x.api = local(x.t, x.cfg)
	x.stop = run(x.t, n)
}

func (x *reading) furnish(r mailgrant.Receive) mailgrant.Mailbox {
	t, ctx := x.t, x.t.Context()
	overrides := map[string]string{"login_url": x.sim.LoginURL(), "graph_url": x.sim.GraphURL()}
	for what, addr := range map[string]string{"imap": x.sim.IMAPAddr(), "pop": x.sim.POPAddr(), "smtp": x.sim.SMTPAddr()} {
		host, port, err := net.SplitHostPort(addr)
		must(t, err)
		overrides[what+"_host"], overrides[what+"_port"] = host, port
	}
	name, template, tenant, id := "Contoso Notices", "microsoft365", sim.ContosoTenantID, sim.ContosoSystemClientID
	reg, err := x.api.CreateRegistration(ctx, client.RegistrationSettings{Name: &name, Template: &template, Tenant: &tenant, ClientID: &id, Overrides: &overrides})
	must(t, err)
	_, err = x.api.AddCredential(ctx, reg.ID, client.NewCredential{Secret: sim.ContosoSystemClientSecret})
	must(t, err)
	address, kind, flow := scanner, mailgrant.MailboxApp, mailgrant.FlowApp
	can := append([]mailgrant.Capability{mailgrant.CanIMAP, mailgrant.CanPOP, mailgrant.CanAPIRead}, x.also...)
	g, err := x.api.CreateGrant(ctx, client.GrantSettings{Registration: &reg.ID, Mailbox: &address, MailboxKind: &kind, Flow: &flow, Capabilities: &can})
	must(t, err)
	_, err = x.api.Activate(ctx, g.ID)
	must(t, err)
	m, err := x.api.CreateMailbox(ctx, client.MailboxSettings{Address: &address, Kind: &kind, Grant: &g.ID, Receive: &r})
	must(t, err)
	return m
}

// arrivals waits until there are n, and gives them oldest first.
func (x *reading) arrivals(n int) []mailgrant.Arrival {
	x.t.Helper()
	ctx, cancel := context.WithTimeout(x.t.Context(), 30*time.Second)
	defer cancel()
	enough := errors.New("enough")
	var l client.Page[mailgrant.Arrival]
	look := func() (err error) {
		if l, err = x.api.Arrivals(ctx, client.ArrivalFilter{Oldest: true, Limit: 500}); err == nil && len(l.Items) >= n {
			err = enough
		}
		return err
	}
	err := look()
	if err == nil {
		err = x.api.Watch(ctx, client.EventFilter{Kinds: []string{"arrival.new"}}, func(mailgrant.Event) error { return look() })
	}
	if !errors.Is(err, enough) {
		s, _ := x.api.Reader(x.t.Context(), string(x.box.ID))
		x.t.Fatalf("%d arrivals, want %d: %v; the reader: %+v %+v", len(l.Items), n, err, s, s.Finding)
	}
	if len(l.Items) != n {
		x.t.Errorf("%d arrivals, want %d", len(l.Items), n)
	}
	return l.Items
}

func letter(subject string) []byte {
	return fmt.Appendf(nil, "From: Robin <%s>\r\nTo: <%s>\r\nSubject: %s\r\nMessage-ID: <%s@fabrikam.example>\r\nDate: Tue, 24 Nov 2026 10:00:00 +0000\r\n\r\nHello.\r\n", robin, scanner, subject, subject)
}

func TestMailIsReceived(t *testing.T) {
	for _, protocol := range []string{"imap", "pop", "graph", "auto"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			x := receiving(t, mailgrant.Receive{Protocol: protocol, Everything: true, Poll: mailgrant.Duration(10 * time.Second)})
			was := len(x.sim.Mail(scanner))
			for i := range 3 {
				_, err := x.sim.Deliver(scanner, letter(fmt.Sprint("case-", i)))
				must(t, err)
			}
			want := map[string]string{}
			for _, m := range x.sim.Mail(scanner) {
				want[m.Subject] = string(m.Raw)
			}
			for i, a := range x.arrivals(was + 3)[was:] {
				if p := a.Protocol; a.Subject != fmt.Sprint("case-", i) && p != "graph" { // which has seconds only, and says no order
					t.Errorf("%d is %s", i, a.Subject)
				}
				raw, err := x.api.ArrivalRaw(t.Context(), a.ID)
				must(t, err)
				b, err := io.ReadAll(raw)
				must(t, err)
				if a.From[0].Address != robin || string(b) != want[a.Subject] || len(b) == 0 {
					t.Errorf("%s from %v: %q, want %q", a.Subject, a.From, b, want[a.Subject])
				}
				delete(want, a.Subject)
			}
		})
	}
}

// What came while mailgrant was down is taken when it is there again, once. After
// reading it is moved.
func TestMailThatCameMeanwhile(t *testing.T) {
	x := receiving(t, mailgrant.Receive{Protocol: "imap", Everything: true, After: mailgrant.AfterMove, MoveTo: "Done"})
	was := len(x.sim.Mail(scanner))
	x.arrivals(was)
	for i := range 3 {
		must(t, x.stop())
		_, err := x.sim.Deliver(scanner, letter(fmt.Sprint("case-", i)))
		must(t, err)
		x.start()
		if l := x.arrivals(was + i + 1); l[was+i].Subject != fmt.Sprint("case-", i) {
			t.Errorf("the last is %q", l[was+i].Subject)
		}
	}
	must(t, x.stop()) // what is to be done after reading is done, or the next process does it
	x.start()
	for deadline := time.After(30 * time.Second); len(x.sim.MailIn(scanner, "Done")) != was+3; {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-deadline:
			t.Fatalf("%d messages were moved, want %d", len(x.sim.MailIn(scanner, "Done")), was+3)
		}
	}
}

// A POP mailbox with thousands of messages on the server moves to IMAP and to
// Graph without one being taken twice. R26.
func TestR26PopMailboxMoves(t *testing.T) {
	const n = 5000
	x := receiving(t, mailgrant.Receive{Protocol: "pop", Everything: true, Poll: mailgrant.Duration(10 * time.Second)})
	must(t, x.stop())
	was := len(x.sim.Mail(scanner))
	for i := range n {
		_, err := x.sim.Deliver(scanner, letter(fmt.Sprint("case-", i)))
		must(t, err)
	}
	x.start()
	for deadline := time.After(3 * time.Minute); ; {
		r, err := x.api.Reader(t.Context(), scanner)
		must(t, err)
		if r.Taken >= n && r.State == mailgrant.ReaderWaiting {
			break
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-deadline:
			t.Fatalf("the reader: %+v", r)
		}
	}
	for _, to := range []string{"imap", "graph"} {
		r, err := x.api.Move(t.Context(), scanner, client.MoveOrder{To: to})
		must(t, err)
		if !r.Moved || !r.Verified || r.There != was+n || r.Same != was+n || r.New != 0 {
			t.Errorf("to %s: %+v", to, r)
		}
	}
	seen := map[string]int{}
	for f := (client.ArrivalFilter{Limit: 500}); ; {
		p, err := x.api.Arrivals(t.Context(), f)
		must(t, err)
		for _, a := range p.Items {
			seen[a.Subject]++
		}
		if f.Cursor = p.Next; f.Cursor == "" {
			break
		}
	}
	for i := range n {
		if c := seen[fmt.Sprint("case-", i)]; c != 1 {
			t.Errorf("case-%d was taken %d times", i, c)
		}
	}
	if len(seen) < n {
		t.Errorf("%d messages", len(seen))
	}
}
