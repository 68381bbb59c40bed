package check

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/diagnose"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/smtp"
	"github.com/mailgrant/mailgrant/internal/provider/wire"
	"github.com/mailgrant/mailgrant/internal/rfc5322"
)

// prepare finds the way, and makes the message that a send would take.
func (r *run) prepare(ctx context.Context) result {
	if r.box.State == mailgrant.MailboxDisabled {
		return result{err: mailgrant.Errorf(mailgrant.Misset, nil, "the mailbox %s is switched off", r.box.Address).Fix("switch it on: mailgrant mailbox enable %s", r.box.Address)}
	}
	if r.box.Grant == "" {
		return result{err: mailgrant.Errorf(mailgrant.Misset, nil, "the mailbox %s has no grant", r.box.Address).Fix("give it one: mailgrant grant begin %s", r.box.Address)}
	}
	var err error
	if r.way, err = r.Keeper.Way(ctx, r.box); err != nil {
		return result{err: err}
	}
	if g := r.way.Grant; g.State != mailgrant.GrantActive {
		e := mailgrant.Errorf(mailgrant.Lapsed, nil, "the grant of %s is %s", r.box.Address, g.State).Fix("ask its owner to consent: mailgrant grant begin %s", r.box.Address)
		if g.LastFinding != nil {
			e = e.With(*g.LastFinding)
		}
		return result{err: e}
	}
	return result{err: r.compose()}
}

// settings finds what serves one direction: the transport that a small message of
// its own would take, or the reader.
func (r *run) settings(_ context.Context, l *leg) result {
	if r.ready.err != nil {
		return r.ready
	}
	if l == r.in {
		return r.readSettings(l)
	}
	t, why, err := r.Choose(r.way, r.message, r.Transports)
	if err != nil {
		return result{err: err}
	}
	r.transport, r.report.Transport, r.report.Why = t, t.Name, why
	set := r.way.Settings
	l.protocol, l.resource = t.Name, set.Resources[mailgrant.CanSMTP]
	if l.httpAPI() {
		l.resource = set.Resources[mailgrant.CanAPISend]
	}
	text := r.place(l, set.SMTPHost, set.SMTPPort, set.SMTPSecurity == "tls")
	if h := r.box.Hold; h != nil {
		text += fmt.Sprintf("; held since %s: %s", h.Since.UTC().Format("2006-01-02 15:04"), h.Finding.Title)
	}
	return result{text: text}
}

// place notes the server and says how it is reached.
func (r *run) place(l *leg, host string, port int, implicit bool) string {
	if !l.httpAPI() {
		l.host, l.port = host, strconv.Itoa(port)
		return fmt.Sprintf("%s by %s, %s:%s with %s", r.way.Settings.Template, strings.ToUpper(l.protocol), l.host, l.port, map[bool]string{true: "TLS", false: "STARTTLS"}[implicit])
	}
	u, err := url.Parse(r.apiURL())
	if err != nil {
		u = &url.URL{}
	}
	l.host, l.port = u.Hostname(), u.Port()
	if l.port == "" {
		l.port = map[bool]string{true: "80", false: "443"}[u.Scheme == "http"]
	}
	return fmt.Sprintf("%s by its API, %s", r.way.Settings.Template, r.apiURL())
}

func (r *run) apiURL() string {
	if r.way.Settings.GraphURL != "" {
		return r.way.Settings.GraphURL
	}
	return r.way.Settings.GmailURL
}

func (r *run) dns(ctx context.Context, l *leg) result {
	if _, err := netip.ParseAddr(l.host); err == nil {
		return result{skip: "the server is given by its address"}
	}
	if r.Proxy && l.httpAPI() {
		return result{skip: "the proxy looks names up"}
	}
	found, err := r.Resolver.LookupHost(ctx, l.host)
	if err != nil {
		f := r.explain(l, "network", err.Error(), err)
		return result{err: wire.Error(f, err, "the name %s cannot be looked up", l.host)}
	}
	if len(found) > 4 {
		found = append(found[:4:4], "…")
	}
	return result{text: l.host + " is " + strings.Join(found, ", ")}
}

func (r *run) tcp(ctx context.Context, l *leg) result {
	if r.Proxy && l.httpAPI() {
		return result{skip: "the proxy connects"}
	}
	began := time.Now()
	conn, err := r.way.Dial(ctx, "tcp", net.JoinHostPort(l.host, l.port))
	if err != nil {
		return result{err: r.known(l, err, "network")}
	}
	defer conn.Close()
	return result{text: fmt.Sprintf("connected to %s in %d ms", conn.RemoteAddr(), time.Since(began).Milliseconds())}
}

// known gives an error its finding.
func (r *run) known(l *leg, err error, protocol string) error {
	var e *mailgrant.Error
	if errors.As(err, &e) && (e.Finding != nil || e.Code == mailgrant.Misset) {
		return e
	}
	f := r.explain(l, protocol, err.Error(), err)
	msg := "the server does not answer as it should"
	if e != nil {
		msg = e.Message
	}
	return wire.Error(f, err, "%s", msg)
}

func (r *run) explain(l *leg, protocol, text string, err error) mailgrant.Finding {
	facts := wire.Facts(r.way, l.tok, "check")
	facts["host"], facts["port"] = l.host, l.port
	return diagnose.Explain(diagnose.Failure{Text: text, Protocol: protocol, Context: facts, Err: err})
}

func (r *run) tls(ctx context.Context, l *leg) result {
	if l.httpAPI() {
		res, err := r.knock(ctx)
		if err != nil {
			return result{err: r.known(l, err, "network")}
		}
		if res.TLS == nil {
			return result{text: "no TLS: the operator allows this server to be spoken to in the clear"}
		}
		return result{text: describe(*res.TLS)}
	}
	seen, err := r.look(ctx, l)
	if err != nil {
		return result{err: err}
	}
	return result{text: describe(seen.TLS) + "; it offers " + clean(strings.Join(seen.Auth, " "))}
}

// look sees what a server shows before anybody logs in.
func (r *run) look(ctx context.Context, l *leg) (provider.Seen, error) {
	if l == r.in {
		return r.reader.Look(ctx, r.way)
	}
	seen, err := smtp.Look(ctx, r.SMTP, r.way)
	return provider.Seen{TLS: seen.TLS, Auth: seen.Auth}, err
}

// knock asks an HTTP API for nothing, to see whether it is there.
func (r *run) knock(ctx context.Context) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.apiURL(), nil)
	if err != nil {
		return nil, err
	}
	res, err := r.way.HTTP.Do(req)
	if err != nil {
		return nil, err
	}
	res.Body.Close()
	return res, nil
}

// describe says which TLS, whose certificate, and until when.
func describe(s tls.ConnectionState) string {
	text := tls.VersionName(s.Version)
	if len(s.PeerCertificates) == 0 {
		return text
	}
	c := s.PeerCertificates[0]
	text += fmt.Sprintf(", certificate of %s by %s until %s", wire.Clean(c.Subject.CommonName, 100), wire.Clean(c.Issuer.CommonName, 100), c.NotAfter.UTC().Format("2006-01-02"))
	if left := time.Until(c.NotAfter); left < 14*24*time.Hour {
		text += fmt.Sprintf(" (only %d days)", int(left.Hours()/24))
	}
	return text
}

func (r *run) token(ctx context.Context, l *leg) result {
	var err error
	if l.tok, err = r.way.Token(ctx, l.resource, false); err != nil {
		return result{err: err}
	}
	if l.tok.Expires.IsZero() {
		return result{text: "there is one"}
	}
	return result{text: fmt.Sprintf("good for another %d minutes", int(time.Until(l.tok.Expires).Minutes()))}
}

func (r *run) identity(_ context.Context, l *leg) result {
	if r.way.Grant.Flow == mailgrant.FlowApp {
		return result{text: "the app itself, for " + r.box.Address}
	}
	c, sub := wire.ReadClaims(l.tok), r.way.Grant.Subject
	if c.UPN != "" && sub.UPN != "" && !strings.EqualFold(c.UPN, sub.UPN) || c.Tenant != "" && sub.TenantID != "" && !strings.EqualFold(c.Tenant, sub.TenantID) {
		f := mailgrant.Finding{Cause: "wrong-user-signed-in", Title: "Somebody else's token", Sentence: fmt.Sprintf("The token speaks for %s, the consent was given by %s.", wire.Clean(c.UPN, 100), sub.UPN),
			Remedy: "Let the mailbox's owner consent again.", Who: mailgrant.WhoMailboxOwner, Retry: mailgrant.RetryReauthorize, Confidence: 1, Link: "errors/wrong-user-signed-in"}
		return result{err: wire.Error(f, nil, "the token is not of the one who consented")}
	}
	who := first(sub.UPN, sub.Address, wire.Clean(c.UPN, 100))
	switch {
	case who == "":
		return result{skip: "neither the token nor the grant says who consented"}
	case r.box.Kind == mailgrant.MailboxShared:
		return result{text: who + " signed in, for the shared mailbox " + r.box.Address}
	case strings.EqualFold(who, r.box.Address), strings.EqualFold(sub.Address, r.box.Address):
		return result{text: who}
	}
	return result{text: who + " signed in, for " + r.box.Address + ": right if both are one mailbox"}
}

func first(l ...string) string {
	for _, s := range l {
		if s != "" {
			return s
		}
	}
	return ""
}

// authenticate logs in, and opens the mailbox where the grant lets us.
func (r *run) authenticate(ctx context.Context, l *leg) result {
	if l == r.in {
		return r.login(ctx)
	}
	s, err := r.transport.Open(ctx, r.way)
	if err != nil {
		return result{err: err}
	}
	r.session = s
	if !l.httpAPI() {
		return result{text: "logged in as " + smtp.User(r.way)}
	}
	return r.openMailbox(ctx, l)
}

func (r *run) openMailbox(ctx context.Context, l *leg) result {
	read := false
	for _, c := range r.way.Grant.Capabilities {
		read = read || c == mailgrant.CanAPIRead
	}
	if !read {
		return result{skip: "the grant covers sending only, so sending shows it"}
	}
	c := wire.Call{Way: r.way, Resource: first(r.way.Settings.Resources[mailgrant.CanAPIRead], l.resource), Step: "graph-read", Method: http.MethodGet, URL: r.readURL()}
	a, err := c.Do(ctx)
	if err != nil {
		return result{err: r.known(l, err, "network")}
	}
	if a.Status != http.StatusOK {
		return result{err: wire.Error(c.Explain(a), nil, "the mailbox %s cannot be opened", r.box.Address)}
	}
	return result{text: "the mailbox opens"}
}

func (r *run) readURL() string {
	root := strings.TrimSuffix(r.apiURL(), "/")
	if r.way.Settings.GraphURL == "" {
		return strings.TrimSuffix(root, "/gmail/v1") + "/gmail/v1/users/me/profile"
	}
	if !strings.HasSuffix(root, "/v1.0") {
		root += "/v1.0"
	}
	if r.way.Grant.Flow == mailgrant.FlowApp || r.box.Kind != mailgrant.MailboxOwn {
		return root + "/users/" + url.PathEscape(r.box.Address) + "/mailFolders/inbox?$select=id"
	}
	return root + "/me/mailFolders/inbox?$select=id"
}

// compose makes the message to itself.
func (r *run) compose() error {
	now := time.Now()
	r.mark = r.Marks.New(r.box.ID, now)
	c, err := rfc5322.Compose(rfc5322.Mail{From: r.box.Address, To: []string{r.box.Address}, Date: now,
		Subject: "[mailgrant check] " + r.box.Address + " at " + now.UTC().Format("2006-01-02 15:04:05 MST") + beforeMark + r.mark,
		Text:    "This message was sent by a check of this mailbox. It shows that the mailbox can send and receive; nothing needs to be done.\r\n",
		Headers: map[string]string{"Auto-Submitted": "auto-generated"}})
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if _, err := c.WriteTo(&b); err != nil {
		return err
	}
	r.message = &provider.Handover{From: c.From, Recipients: c.Recipients, MessageID: c.MessageID, Size: int64(b.Len()), UTF8: c.UTF8, HeaderRecipients: c.Recipients,
		Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil }}
	return nil
}

func (r *run) send(ctx context.Context, _ *leg) result {
	if r.opts.NoSend {
		return result{skip: "not asked for"}
	}
	began := time.Now()
	out := r.session.Send(ctx, r.message)
	if out.Fate == mailgrant.FateDelivered {
		r.sent = began
		return result{text: "taken: " + out.Reply}
	}
	if out.Finding == nil {
		return result{err: mailgrant.Errorf(mailgrant.Unavailable, nil, "the message was not taken: %s", out.Reply).Fix("try again")}
	}
	return result{err: wire.Error(*out.Finding, nil, "the message was not taken: %s", out.Reply)}
}
