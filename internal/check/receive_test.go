package check

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/auto"
	"github.com/mailgrant/mailgrant/internal/provider/microsoft"
)

// A post is a provider that takes by Graph what is shown by a reader, and the table
// in which it appears. Nothing of it is on a wire.
type post struct {
	mu      sync.Mutex
	way     provider.Way
	status  mailgrant.ReaderStatus
	lost    bool   // what is sent never comes
	junked  bool   // it comes into the junk folder
	as      string // it comes as from this one
	results []mailgrant.AuthResult
	openErr error
	listErr error
	mark    string
	reads   int // how often the reader was sent to look
	changed chan struct{}
}

func (p *post) RoundTrip(req *http.Request) (*http.Response, error) {
	res := &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader("{}")), Request: req, Header: http.Header{}}
	if strings.HasSuffix(req.URL.Path, "/sendMail") {
		res.StatusCode = 202
	}
	return res, nil
}

// taken is what comes of a message that was handed over.
func (p *post) transport() provider.Transport {
	return provider.Transport{Name: microsoft.Name, Open: func(context.Context, provider.Way) (provider.Session, error) { return p, nil }}
}

func (p *post) Send(_ context.Context, h *provider.Handover) provider.Outcome {
	r, _ := h.Open()
	b, _ := io.ReadAll(r)
	text := strings.ReplaceAll(string(b), "\r\n ", " ")
	_, mark, _ := strings.Cut(text, strings.TrimPrefix(beforeMark, ", "))
	mark, _, _ = strings.Cut(mark, "\r\n")
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mark = strings.TrimSpace(mark)
	return provider.Outcome{Fate: mailgrant.FateDelivered, Reply: "202 Accepted"}
}

func (p *post) Close() error { return nil }

func (p *post) Marked(_ context.Context, m mailgrant.Mailbox, mark string) (a mailgrant.Arrival, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mark != mark || mark == "" || p.lost || p.junked {
		return a, mailgrant.Errorf(mailgrant.NotFound, nil, "it is not there")
	}
	return mailgrant.Arrival{ID: "arr_1", Folder: "INBOX", State: mailgrant.ArrivalIgnored, From: []mailgrant.Address{{Address: first(p.as, m.Address)}}, AuthResult: p.results}, nil
}

func (p *post) Watch() (<-chan struct{}, func())                { return p.changed, func() {} }
func (p *post) Reader(mailgrant.Mailbox) mailgrant.ReaderStatus { return p.status }
func (p *post) Read(context.Context, mailgrant.Mailbox)         { p.reads++ }

// reader shows the inbox, and what was sent or taken for spam.
func (p *post) reader() provider.Reader {
	return provider.Reader{Name: "imap",
		Look: func(context.Context, provider.Way) (provider.Seen, error) {
			return provider.Seen{Auth: []string{"XOAUTH2"}}, nil
		},
		Login: func(context.Context, provider.Way) error { return nil },
		Folders: func(context.Context, provider.Way) ([]provider.Folder, error) {
			return []provider.Folder{{Name: "INBOX", Use: "inbox"}, {Name: "Spam", Use: "junk"}, {Name: "Sent", Use: "sent"}}, p.listErr
		},
		Open: func(_ context.Context, _ provider.Way, r provider.Reading) (provider.Inbox, error) {
			return &shown{p: p, folders: r.Folders}, p.openErr
		}}
}

type shown struct {
	provider.Inbox
	p       *post
	folders []string
}

func (s *shown) Close() error { return nil }

func (s *shown) Next(_ context.Context, _ provider.Cursor, take func(provider.Incoming) error) (provider.Cursor, bool, error) {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	for _, f := range s.folders {
		if f == "Spam" && !s.p.junked || s.p.mark == "" {
			continue
		}
		letter := "From: alex@contoso.example\r\nSubject: [mailgrant check] x" + beforeMark + s.p.mark + "\r\n\r\nHello.\r\n"
		for _, b := range []string{"Subject: another\r\n\r\n", letter} {
			if err := take(provider.Incoming{Remote: b, Folder: f, Body: strings.NewReader(b)}); err != nil {
				return "", false, err
			}
		}
	}
	return "1", false, nil
}

// both is a mailbox that sends by Graph and is read by IMAP.
func both() (Deps, mailgrant.Mailbox, *post) {
	p := &post{changed: make(chan struct{}, 1), status: mailgrant.ReaderStatus{State: mailgrant.ReaderWaiting, Push: true}}
	b := box
	b.Receive = &mailgrant.Receive{Protocol: "auto"}
	p.way = provider.Way{Mailbox: b, HTTP: &http.Client{Transport: p},
		Dial: func(context.Context, string, string) (net.Conn, error) {
			a, z := net.Pipe()
			z.Close()
			return a, nil
		},
		Grant: mailgrant.Grant{ID: "gra_1", State: mailgrant.GrantActive, Flow: mailgrant.FlowCode, Capabilities: []mailgrant.Capability{mailgrant.CanAPISend, mailgrant.CanIMAP},
			Subject: mailgrant.Subject{UPN: "alex@contoso.example"}},
		Settings: provider.Settings{Template: "microsoft365", GraphURL: "https://127.0.0.1/", IMAPHost: "127.0.0.2", IMAPPort: 993,
			Resources: map[mailgrant.Capability]string{mailgrant.CanAPISend: "graph", mailgrant.CanIMAP: "outlook"}},
		Token: func(_ context.Context, resource string, _ bool) (mailgrant.Token, error) {
			if resource == "graph" {
				return jwt(`{"aud":"https://graph.microsoft.com","scp":"Mail.Send","upn":"alex@contoso.example"}`), nil
			}
			return jwt(`{"aud":"https://outlook.office.com","scp":"IMAP.AccessAsUser.All","upn":"alex@contoso.example"}`), nil
		}}
	return Deps{Choose: auto.Choose, Transports: map[string]provider.Transport{microsoft.Name: p.transport()}, Table: p, Readers: map[string]provider.Reader{"imap": p.reader()},
		ChooseReader: func(w provider.Way, l map[string]provider.Reader) (provider.Reader, string, error) {
			if w.Mailbox.Receive.Protocol == "pop" {
				return provider.Reader{}, "", errors.New("no")
			}
			return l["imap"], "IMAP.", nil
		}}, b, p
}

// causes are the steps that failed, with their causes.
func causes(r Report) string {
	var l []string
	for _, s := range r.Steps {
		if s.State == Failed {
			l = append(l, s.Direction+" "+s.Name+": "+s.Finding.Cause)
		}
	}
	return strings.Join(l, ", ")
}

func TestCheckOfReceiving(t *testing.T) {
	fails := []mailgrant.AuthResult{{Method: "spf", Result: "fail", Domain: "contoso.example", Topmost: true}, {Method: "dmarc", Result: "fail", Topmost: true}}
	forged := []mailgrant.AuthResult{{Method: "dkim", Result: "pass", Domain: "mail.contoso.example", Topmost: true}, {Method: "dmarc", Result: "fail"}}
	for _, c := range []struct {
		name   string
		change func(*post, *mailgrant.Mailbox, *Options)
		want   string // the failures
		step   string // and what one step says
		says   string
	}{
		{"all well", nil, "", mailgrant.StepArrive, "there after"},
		{"no message", func(_ *post, _ *mailgrant.Mailbox, o *Options) { o.NoSend = true }, "", mailgrant.StepArrive, unsent},
		{"scope missing", func(p *post, _ *mailgrant.Mailbox, _ *Options) {
			p.way.Token = func(_ context.Context, resource string, _ bool) (mailgrant.Token, error) {
				return jwt(`{"aud":"https://` + map[string]string{"graph": "graph.microsoft.com", "outlook": "outlook.office.com"}[resource] + `","scp":"Mail.Send SMTP.Send"}`), nil
			}
		}, "receive audience and scopes: scope-missing", mailgrant.StepScopes, "not what reading needs"},
		{"role missing", func(p *post, _ *mailgrant.Mailbox, _ *Options) {
			p.way.Grant.Flow = mailgrant.FlowApp
			p.way.Token = func(_ context.Context, resource string, _ bool) (mailgrant.Token, error) {
				return jwt(`{"aud":"https://` + map[string]string{"graph": "graph.microsoft.com", "outlook": "outlook.office.com"}[resource] + `","roles":["Mail.Send","POP.AccessAsApp"]}`), nil
			}
		}, "receive audience and scopes: scope-missing", mailgrant.StepScopes, "not what reading needs"},
		{"R94 it does not come", func(p *post, _ *mailgrant.Mailbox, _ *Options) { p.lost = true }, "round trip mail table: mail-not-arriving", mailgrant.StepFrom, "needs mail table"},
		{"R94 the reader is held", func(p *post, _ *mailgrant.Mailbox, _ *Options) {
			p.status = mailgrant.ReaderStatus{State: mailgrant.ReaderHeld, Finding: &mailgrant.Finding{Cause: "grant-revoked", Remedy: "consent", Retry: mailgrant.RetryReauthorize}}
		}, "receive reader: grant-revoked", mailgrant.StepArrive, "needs reader"},
		{"another node reads", func(p *post, _ *mailgrant.Mailbox, _ *Options) { p.status.State = mailgrant.ReaderElsewhere }, "", mailgrant.StepReader, "another node"},
		{"it comes into junk", func(p *post, _ *mailgrant.Mailbox, _ *Options) { p.junked = true }, "round trip junk folder: mail-in-junk", mailgrant.StepArrive, "junk folder"},
		{"the sender is rewritten", func(p *post, _ *mailgrant.Mailbox, _ *Options) { p.as = "other@contoso.example" }, "round trip From: sender-rewritten", mailgrant.StepFrom, "arrived as other@contoso.example"},
		{"DMARC fails", func(p *post, _ *mailgrant.Mailbox, _ *Options) { p.results = fails }, "round trip Authentication-Results: sender-domain-unauthenticated", mailgrant.StepAuthResults, "dmarc=fail"},
		{"ME-06 only the topmost counts", func(p *post, _ *mailgrant.Mailbox, _ *Options) { p.results = forged }, "", mailgrant.StepAuthResults, "dkim=pass for mail.contoso.example (aligned)"},
		{"R105 it does not open", func(p *post, _ *mailgrant.Mailbox, _ *Options) {
			p.openErr = mailgrant.Errorf(mailgrant.Misset, nil, "no").With(mailgrant.Finding{Cause: "mailbox-permission-missing", Raw: "BAD User is authenticated but not connected.", Retry: mailgrant.RetryFix})
		}, "receive open the mailbox: mailbox-permission-missing", mailgrant.StepArrive, "needs open the mailbox"},
		{"only read", func(p *post, _ *mailgrant.Mailbox, _ *Options) {
			p.way.Grant.Capabilities = []mailgrant.Capability{mailgrant.CanIMAP}
		}, "", mailgrant.StepReader, "waiting"},
		{"could be read", func(p *post, b *mailgrant.Mailbox, _ *Options) {
			p.way.Grant.Capabilities, b.Receive = []mailgrant.Capability{mailgrant.CanIMAP}, nil
		}, "", mailgrant.StepReader, "--receive auto"},
		{"only one direction", func(_ *post, _ *mailgrant.Mailbox, o *Options) { o.Only = mailgrant.CheckReceive }, "", mailgrant.StepOpen, "opens"},
		{"no reader", func(_ *post, b *mailgrant.Mailbox, _ *Options) { b.Receive = &mailgrant.Receive{Protocol: "pop"} }, "receive settings: unknown", mailgrant.StepArrive, "needs open the mailbox"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, b, p := both()
				o := Options{}
				if c.change != nil {
					c.change(p, &b, &o)
				}
				p.way.Mailbox = b
				d.Keeper = keeper{way: p.way}
				began := time.Now()
				r := Run(t.Context(), d, b, o, nil)
				if got := causes(r); got != c.want || r.OK != (c.want == "") {
					t.Errorf("failed: %q, want %q\n%+v", got, c.want, r.Steps)
				}
				said := ""
				for _, s := range r.Steps {
					if s.Name == c.step {
						said = s.Text
					}
				}
				if !strings.Contains(said, c.says) {
					t.Errorf("%s says %q, want %q", c.step, said, c.says)
				}
				if d := time.Since(began); d > 100*time.Second {
					t.Errorf("it took %s", d)
				}
			})
		})
	}
}

// A reader that nobody tells of mail is sent to look.
func TestCheckSendsTheReaderToLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, b, p := both()
		p.lost, p.status.Push = true, false
		d.Keeper = keeper{way: p.way}
		Run(t.Context(), d, b, Options{}, nil)
		if p.reads < 2 {
			t.Errorf("it looked %d times", p.reads)
		}
	})
}

// R-ME4, ME-06: only our own mark is one, of this mailbox and of these days.
func TestME06MarksCannotBeForged(t *testing.T) {
	m := Marks{Hash: func(purpose, value string) []byte {
		s := sha256.Sum256([]byte("key" + purpose + value))
		return s[:]
	}}
	now := time.Now()
	mark := m.New("mbx_1", now)
	subject := "[mailgrant check] alex@contoso.example at noon" + beforeMark + mark
	other := Marks{Hash: func(_, value string) []byte { s := sha256.Sum256([]byte(value)); return s[:] }}
	for name, c := range map[string]struct {
		marks   Marks
		mailbox mailgrant.ID
		subject string
		at      time.Time
		want    bool
	}{
		"ours":                {m, "mbx_1", subject, now, true},
		"an hour later":       {m, "mbx_1", subject, now.Add(time.Hour), true},
		"of another mailbox":  {m, "mbx_2", subject, now, false},
		"too late":            {m, "mbx_1", subject, now.Add(2 * markLife), false},
		"altered":             {m, "mbx_1", subject[:len(subject)-1] + map[bool]string{true: "b", false: "a"}[subject[len(subject)-1] == 'a'], now, false},
		"cut":                 {m, "mbx_1", subject[:len(subject)-1], now, false},
		"of another key":      {m, "mbx_1", "x" + beforeMark + other.New("mbx_1", now), now, false},
		"of nobody":           {m, "mbx_1", "x" + beforeMark + Marks{}.New("mbx_1", now), now, false},
		"without a key":       {Marks{}, "mbx_1", subject, now, false},
		"no mark":             {m, "mbx_1", "[mailgrant check] hello", now, false},
		"a reply to a check":  {m, "mbx_1", subject + " (was: x)", now, false},
		"another one's text":  {m, "mbx_1", mark, now, false},
		"in small or capital": {m, "mbx_1", strings.Replace(subject, mark, strings.ToUpper(mark), 1), now, true},
	} {
		if got := c.marks.Own(c.mailbox, c.subject, c.at); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if m.New("mbx_1", now) == mark {
		t.Error("two marks are the same")
	}
}
