package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
)

func TestClientSendsAndReads(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	c := r.client(r.key(mailgrant.ScopeSend))
	sub, err := c.Send(ctx, client.Message{From: "Office <office@contoso.example>", To: []string{"kim@fabrikam.example"}, Bcc: []string{"boss@contoso.example"},
		Subject: "Grüße", Text: "Hello\n", HTML: "<p>Hello</p>", Headers: map[string]string{"X-Case": "4711"},
		Attachments: []client.Attachment{{Name: "a.txt", Content: []byte("file")}}})
	must(t, err)
	if !sub.ID.Is(mailgrant.PrefixSubmission) || sub.State != mailgrant.SubmissionReady || sub.Route.Mailbox != r.box.ID || len(sub.Recipients) != 2 || sub.Trace == "" {
		t.Errorf("got %+v", sub)
	}
	text, to := r.sent.wait(t, 1)
	for _, want := range []string{"X-Case: 4711\r\n", "a.txt", "ZmlsZQ==", "Hello", "multipart/"} {
		if !strings.Contains(text, want) {
			t.Errorf("the message lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "boss@") || !slices.Contains(to, "boss@contoso.example") {
		t.Errorf("Bcc: sent to %v\n%s", to, text)
	}
	raw, err := c.Raw(ctx, sub.ID)
	must(t, err)
	b, err := io.ReadAll(raw)
	must(t, err)
	raw.Close()
	if string(b) != text {
		t.Error("raw differs from what was sent")
	}
	delivered(t, c, sub.ID)
	for _, path := range []string{"/v1/submissions/" + string(sub.ID), "/v1/submissions"} { // it is due no more
		if a := r.ask("GET", path, r.key(mailgrant.ScopeRead), "").wants(t, 200); strings.Contains(string(a.body), "due_at") || strings.Contains(string(a.body), "0001-01-01") {
			t.Errorf("%s: %s", path, a.body)
		}
	}
	attempts, err := c.Attempts(ctx, sub.ID)
	must(t, err)
	if len(attempts) != 1 || attempts[0].Fate != mailgrant.FateDelivered {
		t.Errorf("got %+v", attempts)
	}
	if _, err := c.Cancel(ctx, sub.ID); !errors.Is(err, mailgrant.Conflict) {
		t.Errorf("cancel of what is sent: %v", err)
	}
	page, err := c.Submissions(ctx, client.SubmissionFilter{States: []mailgrant.SubmissionState{mailgrant.SubmissionDelivered}, Since: time.Now().Add(-time.Hour), Mailbox: r.box.Address})
	must(t, err)
	if len(page.Items) != 1 || page.Items[0].ID != sub.ID {
		t.Errorf("got %+v", page)
	}
}

// delivered waits for the record of an attempt.
func delivered(t *testing.T, c *client.Client, id mailgrant.ID) mailgrant.Submission {
	t.Helper()
	for range 10_000 {
		sub, err := c.Submission(t.Context(), id)
		must(t, err)
		if sub.State == mailgrant.SubmissionDelivered {
			return sub
		}
	}
	t.Fatal("it was not recorded as delivered")
	return mailgrant.Submission{}
}

func TestClientSendsBytes(t *testing.T) {
	r := newRig(t)
	c := r.client(r.key(mailgrant.ScopeSend))
	message := "From: office@contoso.example\nTo: kim@fabrikam.example, Lee <lee@fabrikam.example>\nBcc: kim@fabrikam.example, boss@contoso.example\nSubject: raw\nMIME-Version: 1.0\n\n.one\n..two\nend"
	sub, err := c.SendBytes(t.Context(), client.Envelope{}, strings.NewReader(message))
	must(t, err)
	if want := []string{"kim@fabrikam.example", "lee@fabrikam.example", "boss@contoso.example"}; !slices.Equal(sub.Recipients, want) || sub.EnvelopeFrom != "office@contoso.example" {
		t.Errorf("got %v from %s, want %v", sub.Recipients, sub.EnvelopeFrom, want)
	}
	text, _ := r.sent.wait(t, 1)
	if !strings.HasSuffix(text, "Subject: raw\r\nMIME-Version: 1.0\r\n\r\n.one\r\n..two\r\nend\r\n") || strings.Contains(text, "Bcc") {
		t.Errorf("got %q", text)
	}
	sub, err = c.SendBytes(t.Context(), client.Envelope{From: "office@contoso.example", Recipients: []string{"only@fabrikam.example"}, Class: mailgrant.ClassUser,
		OnBehalfOf: "kim@contoso.example", Mailbox: r.box.Address, SendAt: time.Now().Add(time.Hour)}, strings.NewReader(message))
	must(t, err)
	if !slices.Equal(sub.Recipients, []string{"only@fabrikam.example"}) || sub.Route.Kind != "named" || time.Until(sub.DueAt) < 50*time.Minute || sub.OnBehalfOf != "kim@contoso.example" {
		t.Errorf("got %+v", sub)
	}
	cancelled, err := c.Cancel(t.Context(), sub.ID)
	must(t, err)
	if cancelled.State != mailgrant.SubmissionCancelled {
		t.Errorf("got %s", cancelled.State)
	}
	again, err := c.Retry(t.Context(), sub.ID)
	must(t, err)
	if again.State == mailgrant.SubmissionCancelled {
		t.Errorf("got %s", again.State)
	}
	r.sent.wait(t, 2)
}

func TestClientLargeBytesStream(t *testing.T) {
	r := newRig(t)
	c := r.client(r.key(mailgrant.ScopeSend))
	line := strings.Repeat("x", 76) + "\r\n"
	body := "From: office@contoso.example\r\nTo: kim@fabrikam.example\r\nSubject: large\r\n\r\n" + strings.Repeat(line, 3<<20/len(line))
	sub, err := c.SendBytes(t.Context(), client.Envelope{}, strings.NewReader(body))
	must(t, err)
	if sub.Size < int64(len(body)) {
		t.Errorf("got %d bytes, want at least %d", sub.Size, len(body))
	}
	if text, _ := r.sent.wait(t, 1); !strings.HasSuffix(text, body[len(body)-1<<20:]) {
		t.Error("the end of the message differs")
	}
	_, err = c.SendBytes(t.Context(), client.Envelope{}, io.MultiReader(strings.NewReader(body), bytes.NewReader(bytes.Repeat([]byte(line), 20<<20/len(line)))))
	if !errors.Is(err, mailgrant.TooLarge) {
		t.Errorf("23 MiB: got %v, want too large", err)
	}
}

func TestClientSettings(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	c := r.client(r.key(mailgrant.ScopeManage))
	orgs, err := c.Organizations(ctx)
	must(t, err)
	if len(orgs) != 1 || orgs[0].ID != r.org {
		t.Errorf("got %+v", orgs)
	}
	if o, err := c.UpdateOrganization(ctx, r.org, client.OrganizationSettings{Name: pointer("Contoso Ltd")}); err != nil || o.Name != "Contoso Ltd" {
		t.Errorf("got %+v, %v", o, err)
	}
	templates, err := c.Templates(ctx)
	must(t, err)
	if len(templates) < 5 || templates[0].ID != "microsoft365" || !slices.Contains(templates[0].Fields, "smtp_host") {
		t.Errorf("got %d templates", len(templates))
	}
	d, err := c.Discover(ctx, "somebody@gmail.com")
	must(t, err)
	if d.Template != "google" || !d.Sure {
		t.Errorf("got %+v", d)
	}
	m, err := c.CreateMailbox(ctx, client.MailboxSettings{Address: pointer("Kim@contoso.example"), Role: pointer(mailgrant.RolePersonal), Life: pointer(mailgrant.Duration(time.Hour)),
		Limits: &mailgrant.Limits{PerMinute: 30}, Senders: &[]string{"kim@contoso.example"}})
	must(t, err)
	if m.Life != mailgrant.Duration(time.Hour) || m.Limits.PerMinute != 30 || m.State != mailgrant.MailboxActive {
		t.Errorf("got %+v", m)
	}
	m, err = c.UpdateMailbox(ctx, "kim@contoso.example", client.MailboxSettings{Disabled: pointer(true), Senders: &[]string{}})
	must(t, err)
	if m.State != mailgrant.MailboxDisabled || m.Limits.PerMinute != 30 || len(m.Senders) != 0 || m.Role != mailgrant.RolePersonal {
		t.Errorf("a change in part: got %+v", m)
	}
	if m, err = c.UpdateMailbox(ctx, string(m.ID), client.MailboxSettings{Disabled: pointer(false)}); err != nil || m.State != mailgrant.MailboxActive {
		t.Errorf("got %+v, %v", m, err)
	}
	must(t, r.store.HoldMailbox(ctx, r.org, m.ID, mailgrant.Hold{Since: time.Now(), Finding: mailgrant.Finding{Cause: "mailbox-full"}}))
	must(t, c.ResumeMailbox(ctx, m.Address))
	if m, err = c.Mailbox(ctx, "KIM@contoso.example"); err != nil || m.Hold != nil {
		t.Errorf("got %+v, %v", m, err)
	}
	if all, err := c.Mailboxes(ctx); err != nil || len(all) != 2 {
		t.Errorf("got %+v, %v", all, err)
	}
	route, err := c.Route(ctx, client.RouteQuestion{From: r.box.Address})
	must(t, err)
	if route.Mailbox != r.box.ID || route.Reason == "" {
		t.Errorf("got %+v", route)
	}
	if _, err := c.Route(ctx, client.RouteQuestion{From: "nobody@elsewhere.example"}); !errors.Is(err, mailgrant.NoRoute) || mailgrant.AsError(err).Remedy == "" {
		t.Errorf("got %v", err)
	}
	must(t, c.DeleteMailbox(ctx, "kim@contoso.example"))
	if _, err := c.Mailbox(ctx, "kim@contoso.example"); !errors.Is(err, mailgrant.NotFound) {
		t.Errorf("got %v", err)
	}
}

func TestClientAppsAndKeys(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	c := r.client(r.key(mailgrant.ScopeManage))
	a, err := c.CreateApp(ctx, client.AppSettings{Name: pointer("scanner"), Mailboxes: &[]mailgrant.ID{r.box.ID}, PerMinute: pointer(7)})
	must(t, err)
	if a, err = c.UpdateApp(ctx, "Scanner", client.AppSettings{Senders: &[]string{"office@contoso.example"}}); err != nil || a.PerMinute != 7 || len(a.Senders) != 1 {
		t.Errorf("got %+v, %v", a, err)
	}
	if _, err := c.CreateApp(ctx, client.AppSettings{Name: pointer("scanner")}); !errors.Is(err, mailgrant.Conflict) {
		t.Errorf("the same name twice: %v", err)
	}
	k, err := c.IssueKey(ctx, "scanner", client.NewKey{Name: "first", Scopes: []mailgrant.Scope{mailgrant.ScopeSend}, NotAfter: pointer(time.Now().Add(time.Hour))})
	must(t, err)
	if !strings.HasPrefix(k.Secret, k.Prefix) || len(k.Secret) < 30 {
		t.Errorf("got %+v", k)
	}
	_, err = r.client(k.Secret).Send(ctx, client.Message{From: "office@contoso.example", To: []string{"kim@fabrikam.example"}})
	must(t, err)
	must(t, c.RevokeKey(ctx, "scanner", k.ID))
	if _, err := r.client(k.Secret).Submissions(ctx, client.SubmissionFilter{}); !errors.Is(err, mailgrant.Unauthorized) {
		t.Errorf("a revoked key: %v", err)
	}
	keys, err := c.Keys(ctx, string(a.ID))
	must(t, err)
	if len(keys) != 1 || keys[0].RevokedAt == nil {
		t.Errorf("got %+v", keys)
	}
	must(t, c.DeleteApp(ctx, "scanner"))
	if all, err := c.Apps(ctx); err != nil || len(all) != 1 {
		t.Errorf("got %+v, %v", all, err)
	}
}

func TestClientGrantsAndTokens(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	c := r.client(r.key(mailgrant.ScopeManage))
	g := r.active(r.org, r.box.Address)
	if g.State != mailgrant.GrantActive || g.Changed || g.RevokeAt == "" {
		t.Errorf("got %+v", g)
	}
	token, err := c.Token(ctx, g.ID, "")
	must(t, err)
	if token.AccessToken != "access-token-of-a-test" || token.TokenType != "Bearer" || token.ExpiresIn < 3000 || token.Resource == "" {
		t.Errorf("got %+v", token)
	}
	if _, err := c.Token(ctx, g.ID, "graph"); err == nil || mailgrant.AsError(err).Field != "resource" {
		t.Errorf("a foreign resource: %v", err)
	}
	app := r.app(r.org, nil)
	key := r.keyOf(app, mailgrant.ScopeToken)
	if _, err := r.client(key).Token(ctx, g.ID, ""); !errors.Is(err, mailgrant.Forbidden) {
		t.Errorf("an app that lists no mailbox: %v", err)
	}
	_, err = c.UpdateMailbox(ctx, r.box.Address, client.MailboxSettings{Grant: &g.ID})
	must(t, err)
	listed := r.app(r.org, func(a *mailgrant.App) { a.Mailboxes = []mailgrant.ID{r.box.ID} })
	if _, err := r.client(r.keyOf(listed, mailgrant.ScopeToken)).Token(ctx, g.ID, "mail"); err != nil {
		t.Errorf("an app that lists the mailbox: %v", err)
	}
	if err := c.DeleteGrant(ctx, g.ID); !errors.Is(err, mailgrant.Conflict) || !strings.Contains(err.Error(), r.box.Address) {
		t.Errorf("a grant in use: %v", err)
	}
	if _, err := c.UpdateGrant(ctx, g.ID, client.GrantSettings{Mailbox: pointer("other@contoso.example")}); !errors.Is(err, mailgrant.Conflict) {
		t.Errorf("an active grant moved: %v", err)
	}
	if got, err := c.Renew(ctx, g.ID); err != nil || got.State != mailgrant.GrantActive {
		t.Errorf("renew: %+v, %v", got, err)
	}
	if _, err := c.BeginDevice(ctx, g.ID); !errors.Is(err, mailgrant.Forbidden) {
		t.Errorf("a device code that nobody allowed: %v", err)
	}
	if _, err := c.CheckAdminConsent(ctx, g.ID); err != nil {
		t.Errorf("admin consent: %v", err)
	}
	if got, err := c.Revoke(ctx, g.ID); err != nil || got.State != mailgrant.GrantRevoked {
		t.Errorf("revoke: %+v, %v", got, err)
	}
	// What a mailbox's grant is follows it, wherever the mailbox is shown.
	shown := func(want mailgrant.GrantState) {
		t.Helper()
		one, err := c.Mailbox(ctx, r.box.Address)
		must(t, err)
		list, err := c.Mailboxes(ctx)
		must(t, err)
		h, err := c.Health(ctx)
		must(t, err)
		if one.GrantState != want || list[0].GrantState != want || h.Mailboxes[0].GrantState != want {
			t.Errorf("got %q, %q and %q, want %q", one.GrantState, list[0].GrantState, h.Mailboxes[0].GrantState, want)
		}
	}
	shown(mailgrant.GrantRevoked)
	if _, err := c.Token(ctx, g.ID, ""); !errors.Is(err, mailgrant.Lapsed) || mailgrant.AsError(err).Finding == nil {
		t.Errorf("a token of a revoked grant: %v", err)
	}
	reg := g.Registration
	person, err := c.CreateGrant(ctx, client.GrantSettings{Registration: &reg, Mailbox: pointer("kim@contoso.example")})
	must(t, err)
	if person.State != mailgrant.GrantPending || person.Flow != mailgrant.FlowCode || !slices.Equal(person.Capabilities, []mailgrant.Capability{mailgrant.CanSMTP}) {
		t.Errorf("got %+v", person)
	}
	made, err := c.CreateMailbox(ctx, client.MailboxSettings{Address: pointer("kim@contoso.example"), Grant: &person.ID})
	if err != nil || made.GrantState != mailgrant.GrantPending || made.State != mailgrant.MailboxActive {
		t.Errorf("got %+v, %v", made, err)
	}
	must(t, c.DeleteMailbox(ctx, made.Address))
	link, err := c.Link(ctx, person.ID, "consent")
	must(t, err)
	if !strings.HasPrefix(link.URL, publicURL+"/connect/") || link.Kind != "consent" || time.Until(link.ExpiresAt) < time.Hour {
		t.Errorf("got %+v", link)
	}
	links, err := c.Links(ctx)
	must(t, err)
	want := link
	want.URL = "" // it was shown once
	if len(links) != 1 || links[0] != want || !want.ID.Is(mailgrant.PrefixLink) || want.Mailbox != "kim@contoso.example" || want.Grant != person.ID {
		t.Errorf("got %+v, want %+v", links, want)
	}
	must(t, c.DeleteLink(ctx, link.ID))
	if err := c.DeleteLink(ctx, link.ID); !errors.Is(err, mailgrant.NotFound) {
		t.Errorf("a link that is taken back: %v", err)
	}
	if links, err = c.Links(ctx); err != nil || len(links) != 0 {
		t.Errorf("got %+v, %v", links, err)
	}
	must(t, c.DeleteGrant(ctx, person.ID))
	all, err := c.Grants(ctx)
	must(t, err)
	if len(all) != 1 {
		t.Errorf("got %+v", all)
	}
	if _, err := c.Grant(ctx, person.ID); !errors.Is(err, mailgrant.NotFound) {
		t.Errorf("got %v", err)
	}
}

func TestClientRegistrations(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	c := r.client(r.key(mailgrant.ScopeManage))
	reg, err := c.CreateRegistration(ctx, client.RegistrationSettings{Template: pointer("microsoft365")})
	must(t, err)
	if !slices.Equal(reg.Missing, []string{"tenant", "client_id", "credential"}) || reg.RedirectURI != publicURL+"/oauth/callback/"+string(reg.ID) || reg.AdminRedirectURI == "" {
		t.Errorf("got %+v", reg)
	}
	reg, err = c.UpdateRegistration(ctx, reg.ID, client.RegistrationSettings{Tenant: pointer("3f9d1c2e-0000-4000-8000-000000000001"), ClientID: pointer(" 11111111-2222-4333-8444-555555555555 ")})
	must(t, err)
	if reg.ClientID != "11111111-2222-4333-8444-555555555555" || !slices.Equal(reg.Missing, []string{"credential"}) {
		t.Errorf("got %+v", reg)
	}
	first, err := c.AddCredential(ctx, reg.ID, client.NewCredential{Secret: "abc8Q~the-first-secret", Description: "until spring", NotAfter: pointer(time.Now().Add(24 * time.Hour))})
	must(t, err)
	second, err := c.AddCredential(ctx, reg.ID, client.NewCredential{Kind: mailgrant.CredentialSecret, Secret: "abc8Q~the-second-secret"})
	must(t, err)
	if first.Fingerprint == "" || len(first.Fingerprint) != 8 || first.Fingerprint == second.Fingerprint {
		t.Errorf("fingerprints %q and %q", first.Fingerprint, second.Fingerprint)
	}
	if reg, err = c.Registration(ctx, reg.ID); err != nil || len(reg.Credentials) != 2 || len(reg.Missing) != 0 {
		t.Errorf("two secrets at once: got %+v, %v", reg, err)
	}
	must(t, c.DeleteCredential(ctx, reg.ID, first.ID))
	for field, s := range map[string]client.RegistrationSettings{
		"overrides": {Overrides: &map[string]string{"token_endpoint": "https://evil.example"}}, "ca_file": {CAFile: pointer("/etc/passwd")}, "device_flow": {DeviceFlow: pointer(true)},
		"issuer": {Issuer: pointer("https://evil.example")},
	} {
		if _, err := c.UpdateRegistration(ctx, reg.ID, s); !errors.Is(err, mailgrant.Forbidden) || mailgrant.AsError(err).Field != field {
			t.Errorf("%s: got %v, want forbidden", field, err)
		}
	}
	if _, err := c.AddCredential(ctx, reg.ID, client.NewCredential{Kind: mailgrant.CredentialFederated, TokenFile: "/etc/passwd"}); !errors.Is(err, mailgrant.Forbidden) {
		t.Errorf("a file of the server: %v", err)
	}
	if _, err := r.op(r.org).AddCredential(ctx, reg.ID, client.NewCredential{Kind: mailgrant.CredentialFederated, TokenFile: "/var/run/token"}); err != nil {
		t.Errorf("the operator names a file: %v", err)
	}
	if seen, err := c.Registration(ctx, reg.ID); err != nil || jsonOf(seen) != strings.ReplaceAll(jsonOf(seen), "/var/run", "") {
		t.Errorf("a key sees a path of the server: %+v, %v", seen, err)
	}
	if _, err := c.UpdateRegistration(ctx, reg.ID, client.RegistrationSettings{Template: pointer("google")}); !errors.Is(err, mailgrant.Conflict) {
		t.Errorf("another template: %v", err)
	}
	if _, err := c.UpdateRegistration(ctx, reg.ID, client.RegistrationSettings{Cloud: pointer("moon")}); mailgrant.AsError(err).Field != "cloud" {
		t.Errorf("no such cloud: %v", err)
	}
	must(t, c.DeleteRegistration(ctx, reg.ID))
	if all, err := c.Registrations(ctx); err != nil || len(all) != 0 {
		t.Errorf("got %+v, %v", all, err)
	}
}

func TestClientOperates(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	op := r.op("")
	var b bytes.Buffer
	must(t, op.Backup(ctx, &b))
	if b.String() != "sealed" {
		t.Errorf("got %q", b.String())
	}
	if s, err := op.KeyStatus(ctx); err != nil || s.Primary != 7 {
		t.Errorf("got %+v, %v", s, err)
	}
	if s, err := op.RotateKey(ctx); err != nil || s.Left != 3 {
		t.Errorf("got %+v, %v", s, err)
	}
	other, err := op.CreateOrganization(ctx, client.OrganizationSettings{Name: pointer("Fabrikam")})
	must(t, err)
	if _, err := op.Mailboxes(ctx); !errors.Is(err, mailgrant.Invalid) || mailgrant.AsError(err).Field != "Mailgrant-Organization" {
		t.Errorf("two organizations and none named: %v", err)
	}
	op.Organization = "contoso"
	if all, err := op.Mailboxes(ctx); err != nil || len(all) != 1 {
		t.Errorf("by its name: %v, %v", all, err)
	}
	must(t, op.DeleteOrganization(ctx, other.ID))
	if err := op.DeleteOrganization(ctx, r.org); !errors.Is(err, mailgrant.Conflict) {
		t.Errorf("an organization that is not empty: %v", err)
	}
	h, err := r.op("").Health(ctx)
	must(t, err)
	if len(h.Doors) != 1 || len(h.Mailboxes) != 1 || h.Version != "1.2.3" {
		t.Errorf("got %+v", h)
	}
	if h, err = r.client("").Health(ctx); err != nil || !h.OK || h.Version != "" || h.Mailboxes != nil {
		t.Errorf("without a key: %+v, %v", h, err)
	}
	// A held mailbox is told of; the installation is well all the same.
	since := time.Now().UTC().Add(-time.Hour).Truncate(time.Second)
	for i, at := range []time.Time{since.Add(time.Minute), since} {
		m := r.mailbox(r.org, fmt.Sprint("held", i, "@contoso.example"), mailgrant.RoleNone)
		must(t, r.store.HoldMailbox(ctx, r.org, m.ID, mailgrant.Hold{Since: at, ProbeAt: since.Add(3 * time.Hour), Finding: mailgrant.Finding{Cause: "mailbox-full"}}))
	}
	if h, err = r.op("").Health(ctx); err != nil || !h.OK || h.Held != 2 || !h.HeldSince.Equal(since) || !h.Mailboxes[2].HeldSince.Equal(since) {
		t.Errorf("with held mailboxes: %+v, %v", h, err)
	}
	if got := r.ask("GET", "/v1/health", "", "").wants(t, 200); string(got.body) != "{\"ok\":true}\n" {
		t.Errorf("without a key: %s", got.body)
	}
	for _, m := range h.Mailboxes[1:] {
		must(t, op.DeleteMailbox(ctx, m.Address))
	}
	if h, err = r.client(r.key(mailgrant.ScopeRead)).Health(ctx); err != nil || len(h.Mailboxes) != 1 || h.Doors != nil {
		t.Errorf("a reader: %+v, %v", h, err)
	}
	f, err := r.client(r.key()).Explain(ctx, client.Failure{Text: "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant.", Protocol: "smtp"})
	must(t, err)
	if f.Cause != "smtp-auth-disabled-tenant" || f.Remedy == "" {
		t.Errorf("got %+v", f)
	}
	causes, err := r.client(r.key()).Causes(ctx, "")
	must(t, err)
	if one, err := r.client(r.key()).Cause(ctx, causes[0].ID); err != nil || one.Title != causes[0].Title || len(causes) < 50 {
		t.Errorf("got %+v, %v of %d", one, err, len(causes))
	}
	q, err := op.Queue(ctx)
	must(t, err)
	if len(q) != 0 {
		t.Errorf("got %+v", q)
	}
}

func TestClientChecks(t *testing.T) {
	r := newRig(t)
	c := r.client(r.key(mailgrant.ScopeManage))
	var steps []string
	report, err := c.Check(t.Context(), r.box.Address, true, func(s mailgrant.CheckStep) { steps = append(steps, s.Name) })
	must(t, err)
	if !report.OK || !slices.Equal(steps, []string{"settings"}) || report.Steps[0].Text != "no message: true" {
		t.Errorf("got %+v, steps %v", report, steps)
	}
	got := r.ask("POST", "/v1/mailboxes/"+string(r.box.ID)+"/check", r.key(mailgrant.ScopeManage), "").wants(t, 200)
	var whole mailgrant.CheckReport
	must(t, json.Unmarshal(got.body, &whole))
	if whole.Mailbox != r.box.ID || whole.Steps[0].Text != "no message: false" {
		t.Errorf("got %+v", whole)
	}
}

func TestExplainManyLines(t *testing.T) {
	r := newRig(t)
	got := r.ask("POST", "/v1/explain", r.key(), `{"id":"a","text":"AADSTS7000222: The provided client secret keys are expired."}`+"\n\n"+`{"id":"b","text":"xyzzy"}`+"\n", "Content-Type", "application/x-ndjson").wants(t, 200)
	d := json.NewDecoder(bytes.NewReader(got.body))
	var a, b client.Explained
	must(t, d.Decode(&a))
	must(t, d.Decode(&b))
	if a.ID != "a" || a.Cause != "client-secret-expired" || b.ID != "b" || b.Cause != "unknown" {
		t.Errorf("got %+v and %+v", a, b)
	}
	r.ask("POST", "/v1/explain", r.key(), "{\"text\":\"x\"}\n{\"what\":1}", "Content-Type", "application/json").wants(t, 400)
	r.ask("POST", "/v1/explain", r.key(), "{\"what\":1}\n", "Content-Type", "application/x-ndjson").wants(t, 422)
}

func TestEventsByPageAndStream(t *testing.T) {
	r := newRig(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := r.client(r.key(mailgrant.ScopeRead, mailgrant.ScopeSend))
	page, err := c.Events(ctx, client.EventFilter{Limit: 1})
	must(t, err)
	if len(page.Items) != 1 || page.Next == "" {
		t.Errorf("got %+v", page)
	}
	enough := errors.New("enough")
	seen := make(chan mailgrant.Event, 100)
	done := make(chan error, 1)
	go func() {
		done <- c.Watch(ctx, client.EventFilter{Kinds: []string{"submission.accepted", "mailbox.created"}}, func(e mailgrant.Event) error {
			seen <- e
			if e.Kind == "submission.accepted" {
				return enough
			}
			return nil
		})
	}()
	if e := <-seen; e.Kind != "mailbox.created" || e.Subject != r.box.ID {
		t.Errorf("the old ones come first: got %+v", e)
	}
	sub, err := c.Send(ctx, client.Message{From: r.box.Address, To: []string{"kim@fabrikam.example"}})
	must(t, err)
	if err := <-done; err != enough {
		t.Fatal(err)
	}
	if e := <-seen; e.Subject != sub.ID {
		t.Errorf("got %+v, want the submission", e)
	}
	rest, err := c.Events(ctx, client.EventFilter{After: 0, Subject: sub.ID})
	must(t, err)
	if len(rest.Items) == 0 || rest.Items[0].Subject != sub.ID {
		t.Errorf("got %+v", rest)
	}
}

// A move of a large mailbox takes minutes; whatever else takes so long is no answer.
func TestClientWaitsAsLongAsACallMayTake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := client.New("http://mailgrant.example", "")
		c.HTTP = &http.Client{Transport: slow(5 * time.Minute)}
		if _, err := c.Move(t.Context(), "office@contoso.example", client.MoveOrder{To: "graph"}); err != nil {
			t.Errorf("a move: %v", err)
		}
		_, err := c.Mailbox(t.Context(), "office@contoso.example")
		if e := mailgrant.AsError(err); e == nil || e.Code != mailgrant.Unavailable || !strings.Contains(e.Message, "within 1m0s") {
			t.Errorf("a mailbox: %v", err)
		}
		c.HTTP = &http.Client{Transport: slow(7 * time.Hour)}
		_, err = c.Move(t.Context(), "office@contoso.example", client.MoveOrder{To: "graph"})
		if e := mailgrant.AsError(err); e == nil || e.Code != mailgrant.Unavailable || !strings.Contains(e.Message, "within 6h0m0s") {
			t.Errorf("a move that takes too long: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Minute, cancel)
		begin := time.Now()
		if _, err = c.Move(ctx, "office@contoso.example", client.MoveOrder{To: "graph"}); !errors.Is(err, context.Canceled) || time.Since(begin) != time.Minute {
			t.Errorf("a move that is given up: %v after %v", err, time.Since(begin))
		}
	})
}

// slow is a server that answers after a time.
type slow time.Duration

func (s slow) RoundTrip(r *http.Request) (*http.Response, error) {
	select {
	case <-time.After(time.Duration(s)):
		return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader("{}"))}, nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

func TestClientOnTheSocket(t *testing.T) {
	r := newRig(t)
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	must(t, err)
	s := &http.Server{Handler: r.api.Operator()}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	c := client.Local(path)
	all, err := c.Mailboxes(t.Context())
	must(t, err)
	if len(all) != 1 || all[0].ID != r.box.ID {
		t.Errorf("got %+v", all)
	}
	sub, err := c.Send(t.Context(), client.Message{From: r.box.Address, To: []string{"kim@fabrikam.example"}})
	must(t, err)
	if sub.App != "" || sub.Door != "rest" {
		t.Errorf("got %+v", sub)
	}
	r.sent.wait(t, 1)
}
