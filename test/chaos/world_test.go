package chaos

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/smtp"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
	"github.com/mailgrant/mailgrant/internal/config"
	"github.com/mailgrant/mailgrant/sim"
)

// The mailboxes: one by Graph, where Sent Items can be looked into, one by SMTP,
// where they cannot.
const (
	byGraph = "noreply@contoso.example"
	bySMTP  = "scanner@contoso.example"
	reader  = "robin@fabrikam.example"
)

// A world is the imitated Microsoft 365, a data directory, and what was accepted.
type world struct {
	t   *testing.T
	sim *sim.Sim
	cfg config.Config
	key string

	undone string // where a life notes what is about to be deleted; "" nowhere

	mu       sync.Mutex
	accepted map[string]mailgrant.ID // by subject
}

func newWorld(t *testing.T) *world {
	t.Helper()
	s, err := sim.Start(t.Context(), sim.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	err = s.World().ChangeKnobs(func(k *sim.Knobs) {
		k.PerMinute, k.Connections, k.RecipientsPerDay, k.TenantExternal, k.GraphRequests, k.GraphConcurrency, k.GraphUpload, k.KeepMail = 1e9, 100, 1e9, 1e9, 1e9, 100, 1e15, 0
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.World().SetSMTPAuth(bySMTP, "on"); err != nil {
		t.Fatal(err)
	}
	c := settings(t)
	c.Egress.CAFile = s.CAFile()
	for _, a := range []string{s.LoginURL(), s.GraphURL()} {
		u, err := url.Parse(a)
		if err != nil {
			t.Fatal(err)
		}
		c.Egress.Allow = append(c.Egress.Allow, u.Host)
	}
	c.Egress.Allow = append(c.Egress.Allow, s.SMTPAddr())
	return &world{t: t, sim: s, cfg: c, accepted: map[string]mailgrant.ID{}}
}

// settings are those of a mailgrant with a directory of its own.
func settings(t *testing.T) config.Config {
	t.Helper()
	dir, err := os.MkdirTemp("", "chaos-") // short: a socket's path is bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := config.Default()
	c.Dir, c.Hostname, c.Log = dir, "mailgrant.contoso.example", config.Log{Level: "warn", Format: "text"}
	c.Listen = []string{"http+insecure://127.0.0.1:0", "submission+insecure://127.0.0.1:0"}
	return c
}

// A process is one life of mailgrant.
type process struct {
	cmd   *exec.Cmd
	rest  string // address of the API
	smtp  string
	ended chan struct{}
}

// start begins a life; die is the step at which it ends itself. wrap goes in
// front of the command.
func (w *world) start(die string, wrap ...string) (*process, error) {
	b, err := json.Marshal(w.cfg)
	if err != nil {
		return nil, err
	}
	args := append(wrap, os.Args[0])
	p := &process{cmd: exec.Command(args[0], args[1:]...), ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), childConfig+"="+string(b), childDie+"="+die, childUndone+"="+w.undone)
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	line, readErr := bufio.NewReader(out).ReadString('\n')
	go func() { p.cmd.Wait(); close(p.ended) }()
	for _, uri := range strings.Fields(line) {
		if a, ok := strings.CutPrefix(uri, "http+insecure://"); ok {
			p.rest = "http://" + a
		}
		if a, ok := strings.CutPrefix(uri, "submission+insecure://"); ok {
			p.smtp = a
		}
	}
	if p.rest == "" || p.smtp == "" {
		p.kill()
		return nil, fmt.Errorf("the process did not come up: %q, %v", line, readErr)
	}
	return p, nil
}

func (p *process) kill() { p.cmd.Process.Kill(); <-p.ended }

// stop lets a life end in order.
func (p *process) stop(t *testing.T) {
	t.Helper()
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(time.Minute):
		p.kill()
		t.Error("the process did not end within a minute of TERM")
		return
	}
	if s := p.cmd.ProcessState; !s.Success() { // also after a data race
		t.Errorf("the process ended with: %v", s)
	}
}

// setUp makes registration, mailboxes and app in a first life.
func (w *world) setUp() {
	w.t.Helper()
	p, err := w.start("")
	if err != nil {
		w.t.Fatal(err)
	}
	defer p.stop(w.t)
	ctx, c := w.t.Context(), client.Local(w.cfg.Socket())
	must := w.must
	host, port, err := net.SplitHostPort(w.sim.SMTPAddr())
	must(err)
	name, template, tenant, id := "Contoso Notices", "microsoft365", sim.ContosoTenantID, sim.ContosoSystemClientID
	overrides := map[string]string{"login_url": w.sim.LoginURL(), "graph_url": w.sim.GraphURL(), "smtp_host": host, "smtp_port": port}
	reg, err := c.CreateRegistration(ctx, client.RegistrationSettings{Name: &name, Template: &template, Tenant: &tenant, ClientID: &id, Overrides: &overrides})
	must(err)
	_, err = c.AddCredential(ctx, reg.ID, client.NewCredential{Secret: sim.ContosoSystemClientSecret})
	must(err)
	kind, flow, limits := mailgrant.MailboxApp, mailgrant.FlowApp, mailgrant.Limits{Connections: 4, PerMinute: -1, RecipientsPerDay: -1}
	for address, can := range map[string][]mailgrant.Capability{
		byGraph: {mailgrant.CanAPISend, mailgrant.CanAPIRead},
		bySMTP:  {mailgrant.CanSMTP},
	} {
		g, err := c.CreateGrant(ctx, client.GrantSettings{Registration: &reg.ID, Mailbox: &address, MailboxKind: &kind, Flow: &flow, Capabilities: &can})
		must(err)
		_, err = c.CreateMailbox(ctx, client.MailboxSettings{Address: &address, Kind: &kind, Grant: &g.ID, Limits: &limits})
		must(err)
		_, err = c.Activate(ctx, g.ID)
		must(err)
	}
	app, senders := "load", []string{"*@contoso.example"}
	_, err = c.CreateApp(ctx, client.AppSettings{Name: &app, Senders: &senders})
	must(err)
	k, err := c.IssueKey(ctx, app, client.NewKey{Scopes: []mailgrant.Scope{mailgrant.ScopeSend, mailgrant.ScopeRead}})
	must(err)
	w.key = k.Secret
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatalf("%v; %s", err, mailgrant.AsError(err).Remedy)
	}
}

func (w *world) note(subject string, id mailgrant.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.accepted[subject] = id
}

// load submits from several clients by both doors until ctx ends or the process
// is gone.
func (w *world) load(ctx context.Context, p *process, name string, size int) {
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() { w.loadSMTP(ctx, p, fmt.Sprintf("%s-s%d", name, i), size) })
		wg.Go(func() { w.loadREST(ctx, p, fmt.Sprintf("%s-r%d", name, i), size) })
	}
	wg.Wait()
}

func from(n int) string {
	if n%2 == 0 {
		return byGraph
	}
	return bySMTP
}

func (w *world) loadREST(ctx context.Context, p *process, name string, size int) {
	c := client.New(p.rest, w.key)
	defer c.HTTP.Transport.(*http.Transport).CloseIdleConnections()
	for n := 0; ctx.Err() == nil; n++ {
		subject := fmt.Sprintf("%s-%d", name, n)
		sub, err := c.Send(ctx, client.Message{From: from(n), To: []string{reader}, Subject: subject, Text: strings.Repeat("All work and no play.\n", size/22+1)})
		if err != nil {
			if mailgrant.AsError(err).Code.Temporary() && alive(p) {
				continue
			}
			return
		}
		w.note(subject, sub.ID)
	}
}

func alive(p *process) bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

func (w *world) loadSMTP(ctx context.Context, p *process, name string, size int) {
	c, err := smtp.Dial(p.smtp)
	if err != nil {
		return
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	if err := c.Auth(smtp.PlainAuth("", "load", w.key, "127.0.0.1")); err != nil {
		return
	}
	for n := 0; ctx.Err() == nil; n++ {
		subject := fmt.Sprintf("%s-%d", name, n)
		id, err := submit(c, from(n), subject, size)
		if err != nil {
			return
		}
		w.note(subject, id)
	}
}

// submit hands over one message and gives the id that the 250 names.
func submit(c *smtp.Client, from, subject string, size int) (mailgrant.ID, error) {
	return submitBody(c, from, subject, func(d io.Writer) { io.WriteString(d, strings.Repeat("All work and no play.\r\n", size/23+1)) })
}

// submitBody is submit with lines that end in CRLF and do not begin with a dot: a
// writer that looks at each byte is slow under the race detector.
func submitBody(c *smtp.Client, from, subject string, body func(io.Writer)) (mailgrant.ID, error) {
	if err := errors.Join(c.Mail(from), c.Rcpt(reader)); err != nil {
		return "", err
	}
	id, err := c.Text.Cmd("DATA")
	if err != nil {
		return "", err
	}
	c.Text.StartResponse(id)
	_, _, err = c.Text.ReadResponse(354)
	c.Text.EndResponse(id)
	if err != nil {
		return "", err
	}
	d := c.Text.W
	fmt.Fprintf(d, "From: <%s>\r\nTo: <%s>\r\nSubject: %s\r\n\r\n", from, reader, subject)
	body(d)
	d.WriteString(".\r\n")
	if err := d.Flush(); err != nil {
		return "", err
	}
	_, text, err := c.Text.ReadResponse(250)
	if err != nil {
		return "", err
	}
	at := strings.Index(text, "msg_")
	if at < 0 {
		return "", fmt.Errorf("no id in %q", text)
	}
	return mailgrant.ID(strings.Fields(text[at:])[0]), nil
}

// drain runs a last life until nothing waits.
func (w *world) drain() {
	w.t.Helper()
	p, err := w.start("")
	if err != nil {
		w.t.Fatal(err)
	}
	defer p.stop(w.t)
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*time.Minute)
	defer cancel()
	c := client.Local(w.cfg.Socket())
	changed := make(chan struct{}, 1)
	go func() {
		for last := int64(0); ctx.Err() == nil; {
			c.Watch(ctx, client.EventFilter{After: last}, func(e mailgrant.Event) error {
				last = e.Seq
				select {
				case changed <- struct{}{}:
				default: // it will look anyhow
				}
				return nil
			})
		}
	}()
	for {
		q, err := c.Queue(ctx)
		if err == nil && len(q) == 0 {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			w.t.Fatalf("the queue does not empty: %v; %+v", err, q)
		}
	}
}

// A count is what came of everything that was accepted.
type count struct {
	accepted, arrived, lost, twice, flagged, unflagged, unacked int
}

// reckon compares what was accepted with what arrived.
func (w *world) reckon() count {
	w.t.Helper()
	p, err := w.start("")
	if err != nil {
		w.t.Fatal(err)
	}
	defer p.stop(w.t)
	c := client.Local(w.cfg.Socket())
	times := map[string]int{}
	for _, m := range w.sim.Mail(reader) {
		times[m.Subject]++
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	n := count{accepted: len(w.accepted), arrived: len(times)}
	for subject, id := range w.accepted {
		sub, err := c.Submission(w.t.Context(), id)
		if err != nil {
			w.t.Errorf("%s (%s) was accepted and is not in the store: %v", id, subject, err)
		}
		switch got := times[subject]; {
		case got == 0:
			n.lost++
			w.t.Errorf("%s (%s) was accepted and never arrived; it is %s", id, subject, sub.State)
		case got > 1:
			n.twice++
			if sub.Duplicate {
				n.flagged++
			} else {
				n.unflagged++
				w.t.Errorf("%s (%s) arrived %d times and is not flagged", id, subject, got)
			}
		}
	}
	for subject, got := range times {
		if _, ok := w.accepted[subject]; !ok {
			n.unacked += got
		}
	}
	return n
}

// files are the database's files, without the lock.
func (w *world) files() []string {
	db := w.cfg.DatabasePath()
	return []string{db, db + "-wal", db + ".synced"}
}
