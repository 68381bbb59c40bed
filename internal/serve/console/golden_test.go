package console

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/diagnose"
	"github.com/mailgrant/mailgrant/internal/grant"
	"github.com/mailgrant/mailgrant/internal/store"
)

var update = flag.Bool("update", false, "write what the pages are now into testdata")

// samples are all pages with data that does not change.
func samples() map[string]page {
	expires := time.Date(2026, 11, 27, 9, 30, 0, 0, time.UTC)
	own := grant.Invitation{Kind: store.FlowConsent, Organization: "Contoso", Registration: "Contoso Mail", Provider: "Microsoft 365", Mailbox: alex,
		MailboxKind: mailgrant.MailboxOwn, Rights: []string{"send mail as this mailbox", "do this while nobody is signed in, until you disconnect it"},
		Scopes: []string{"openid", "profile", "email", "offline_access", "https://outlook.office.com/SMTP.Send"}, By: "ada@contoso.example", ExpiresAt: expires,
		Authorize: "https://login.microsoftonline.com/common/oauth2/v2.0/authorize"}
	shared, approve := own, own
	shared.Mailbox, shared.MailboxKind, shared.By = "office@contoso.example", mailgrant.MailboxShared, ""
	approve.Kind, approve.Mailbox, approve.Rights = store.FlowAdminConsent, "noreply@contoso.example", []string{"send mail as this mailbox"}
	approve.Scopes, approve.MailboxKind = []string{"https://outlook.office365.com/.default"}, mailgrant.MailboxApp
	people := own
	people.Kind = store.FlowAdminConsent
	unnamed, unnamedPeople := own, people
	unnamed.Organization, unnamedPeople.Organization = "", ""
	invited := func(i grant.Invitation) page {
		p := page{Name: "connect", Title: "Connect " + i.Mailbox, Data: invitation{i, "/connect/token", "login.microsoftonline.com", "mailgrant.contoso.example"}}
		if i.Kind == store.FlowAdminConsent {
			p.Name, p.Title = "approve", "Approve "+i.Registration
		}
		return p
	}
	revoke := "Entra admin centre > Enterprise applications > the app > Permissions; a person: https://myapplications.microsoft.com"
	done := func(name string, o outcome) page {
		o.Provider, o.RevokeAt, o.Finding = "Microsoft 365", revoke, &mailgrant.Finding{}
		return page{Name: name, Title: "Done", Data: o}
	}
	failed := func(code mailgrant.Code, f mailgrant.Finding, change func(*outcome)) page {
		f.Link = "errors/" + f.Cause
		o := outcome{Code: code, Finding: &f, Trace: "trc_0123456789abcdefghjkmnpqrs", Provider: "Microsoft 365", Mailbox: alex, Link: "/connect/token"}
		if change != nil {
			change(&o)
		}
		return page{Name: "failed", Title: o.Title(), Trace: o.Trace, Data: o}
	}
	steps := []mailgrant.Step{{Place: "Entra admin centre > Enterprise applications > the app > Permissions", Text: "Look for the permission and press Grant admin consent."},
		{Place: "Exchange Online PowerShell", Text: "See what is set.", Command: "Get-CASMailbox -Identity alex@contoso.example | Format-List SmtpClientAuthenticationDisabled"}}
	cause := diagnose.Cause{ID: "smtp-auth-off", Family: "A", Title: "SMTP AUTH is off", Sentence: "{mailbox|The mailbox} may not send by SMTP.", Remedy: "Tick Authenticated SMTP, as in https://aka.ms/smtp_auth_disabled.",
		Who: mailgrant.WhoTenantAdmin, Retry: mailgrant.RetryFix, Codes: []string{"5.7.139", "5.7.3"}, Texts: []string{"535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox."},
		Steps:    []diagnose.Step{{Place: "Exchange Online PowerShell", Text: "The same by command.", Command: "Set-CASMailbox -Identity {mailbox|user@example.com} -SmtpClientAuthenticationDisabled $false"}, {Text: "Wait some minutes."}},
		Consumer: &diagnose.Other{Who: mailgrant.WhoMailboxOwner, Remedy: "Switch SMTP on in the settings of the mailbox."}, Notes: "It is easily taken for a wrong password.", Links: []string{"https://aka.ms/smtp_auth_disabled"}}
	best := pageOf(cause)
	first := readDocument("sample", []byte("# Operating it\n\nWhat to do *every* day. And more.\n\n## Keys\n\n| | |\n|---|---|\n| a | [b](errors/unknown.md) |\n\n| what | where |\n|---|---:|\n| c | d |\n\n    a command\n\nSee [elsewhere](nothing.md), [start](start.md#1-start-it) <b>bold</b> <script>x</script> [x](javascript:alert(1)).\n"))
	return map[string]page{
		"home": {Name: "home", Title: "mailgrant", Nav: "home"}, "nothing": {Name: "nothing", Title: "Nothing here", Nav: "none"},
		"nolink": {Name: "nolink", Title: "This link does not work"}, "slow": {Name: "slow", Title: "Please wait a moment"},
		"foreign": {Name: "foreign", Title: "Not from here"}, "gone": {Name: "gone", Title: "This page is no longer here"},
		"connect": invited(own), "connect-shared": invited(shared), "approve": invited(people), "approve-app": invited(approve),
		"connect-unnamed": invited(unnamed), "approve-unnamed": invited(unnamedPeople),
		"connected":        done("connected", outcome{Mailbox: alex, SignedIn: alex, Rights: []string{"send mail as " + alex}}),
		"connected-shared": done("connected", outcome{Mailbox: "office@contoso.example", Shared: true, SignedIn: kim, Rights: []string{"send mail as office@contoso.example"}}),
		"approved":         done("approved", outcome{Admin: true, ByPerson: true, Mailbox: alex, Scopes: own.Scopes}),
		"approved-app":     done("approved", outcome{Admin: true, Active: true, Mailbox: "noreply@contoso.example", Scopes: approve.Scopes}),
		"approved-later":   done("approved", outcome{Admin: true, Mailbox: "noreply@contoso.example"}),
		"failed-account": failed(mailgrant.Forbidden, mailgrant.Finding{Cause: "wrong-user-signed-in", Title: "Another account signed in", Sentence: "kim@contoso.example signed in. The consent is for alex@contoso.example.",
			Remedy: "Begin again and choose alex@contoso.example. If that is a shared mailbox, say so in the grant: then whoever has rights on it signs in.", Who: mailgrant.WhoMailboxOwner}, nil),
		"failed-denied": failed(mailgrant.Lapsed, mailgrant.Finding{Cause: "user-consent-required", Title: "Consent needed", Sentence: "The owner of the mailbox has declined.", Remedy: "Send the person through the consent page once.",
			Who: mailgrant.WhoMailboxOwner, Raw: "AADSTS65004: User declined to consent to access the app. access_denied"}, nil),
		"failed-denied-approval": failed(mailgrant.Lapsed, mailgrant.Finding{Cause: "user-consent-required", Title: "Consent needed", Sentence: "The owner of the mailbox has declined.", Remedy: "Send the person through the consent page once.",
			Who: mailgrant.WhoMailboxOwner}, func(o *outcome) { o.Admin = true }),
		"failed-administrator": failed(mailgrant.Lapsed, mailgrant.Finding{Cause: "admin-consent-required", Title: "Admin consent required", Sentence: "The organisation lets only an administrator approve the app.", Remedy: "Send the admin-consent link to an administrator.",
			Who: mailgrant.WhoTenantAdmin, Steps: steps, Raw: "AADSTS90094: The grant requires admin permission."}, func(o *outcome) {
			o.Approval, o.Registration = "https://mailgrant.contoso.example/connect/another-token-of-forty-three-letters-1234567", "Contoso Mail"
		}),
		"failed-again": failed(mailgrant.Invalid, mailgrant.Finding{Cause: "code-expired-or-used", Title: "Begin again", Sentence: "This answer belongs to no consent.", Remedy: "Begin again.", Who: mailgrant.WhoMailboxOwner},
			func(o *outcome) { o.Mailbox, o.Provider = "", "" }),
		"failed-steps": failed(mailgrant.Misset, mailgrant.Finding{Cause: "client-secret-expired", Title: "The client secret has expired", Sentence: "The secret of the registration ended on 1 November 2026.", Remedy: "Make a new secret and add it: https://entra.microsoft.com",
			Who: mailgrant.WhoOperator, Steps: steps, Raw: "AADSTS7000222: The provided client secret keys are expired."}, func(o *outcome) { o.Link = "" }),
		"failed-unavailable": failed(mailgrant.Unavailable, mailgrant.Finding{Sentence: "The provider does not answer.", Remedy: "Try again in a moment.", Who: mailgrant.WhoNobody}, func(o *outcome) { o.ReturnTo = "https://cases.contoso.example/mail" }),
		"causes":             {Name: "causes", Title: "When something fails", Nav: "errors", Data: causeList{All: []family{{"Switches", []diagnose.Cause{plainCause(cause)}}}}},
		"causes-found":       {Name: "causes", Title: "When something fails", Nav: "errors", Data: causeList{Query: `535 "5.7.139"`, Best: &best, Found: []diagnose.Cause{plainCause(cause)}}},
		"causes-none":        {Name: "causes", Title: "When something fails", Nav: "errors", Data: causeList{Query: "zzz"}},
		"cause":              {Name: "cause", Title: cause.Title, Nav: "errors", Data: best},
		"documents":          {Name: "documents", Title: "Documentation", Nav: "docs", Data: shelf{Guides: []document{first}, Decisions: []document{first}}},
		"document":           {Name: "document", Title: first.Title, Nav: "docs", Data: first},
	}
}

var styleMark = regexp.MustCompile(`style\.css\?v=[0-9a-f]+`)

// TestPagesAreWhatTheyWere holds every page to its file in testdata. Of a page of
// an organization without a name that is what differs from the page with one.
func TestPagesAreWhatTheyWere(t *testing.T) {
	s, all := &console{Config: Config{Version: "1.2.3"}}, samples()
	shown := func(p page) []byte {
		w := httptest.NewRecorder()
		s.show(w, httptest.NewRequest("GET", "/", nil), 200, p)
		return styleMark.ReplaceAll(w.Body.Bytes(), []byte("style.css"))
	}
	for name, p := range all {
		got, file := shown(p), filepath.Join("testdata", name+".html")
		if named, ok := strings.CutSuffix(name, "-unnamed"); ok {
			got, file = differences(t, shown(all[named]), got), filepath.Join("testdata", name+".diff")
		}
		if *update {
			must(t, os.MkdirAll("testdata", 0o755))
			must(t, os.WriteFile(file, got, 0o644))
			continue
		}
		want, err := os.ReadFile(file)
		must(t, err)
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what it was; look at it, then: go test ./internal/serve/console -update\n%s", name, firstDifference(want, got))
		}
	}
	kept, err := filepath.Glob("testdata/*")
	must(t, err)
	if len(kept) != len(all) {
		t.Errorf("%d files for %d pages", len(kept), len(all))
	}
}

// differences are the lines in which two pages of the same length differ.
func differences(t *testing.T, from, to []byte) []byte {
	t.Helper()
	a, b := bytes.Split(from, []byte("\n")), bytes.Split(to, []byte("\n"))
	if len(a) != len(b) {
		t.Fatalf("%d lines became %d", len(a), len(b))
	}
	var out []byte
	for i := range a {
		if !bytes.Equal(a[i], b[i]) {
			out = fmt.Appendf(out, "-%s\n+%s\n", a[i], b[i])
		}
	}
	return out
}

func firstDifference(want, got []byte) string {
	w, g := strings.Split(string(want), "\n"), strings.Split(string(got), "\n")
	for i := range min(len(w), len(g)) {
		if w[i] != g[i] {
			return "was: " + w[i] + "\nnow: " + g[i]
		}
	}
	return "one of them is longer"
}

func TestAPageThatBreaksIsAPage(t *testing.T) {
	s := New(Config{Ping: func(context.Context) error { panic("inside") }})
	if r := answerOf(s, "GET", "/healthz"); r.Code != 500 || !strings.Contains(r.Body.String(), "Something went wrong inside mailgrant") || strings.Contains(r.Body.String(), "goroutine") {
		t.Errorf("%d %s", r.Code, r.Body)
	}
}

func TestHealthSaysNothingOfTheInside(t *testing.T) {
	s := New(Config{Ping: func(context.Context) error { return errors.New("dial tcp 10.0.0.1: secret") }})
	if r := answerOf(s, "GET", "/healthz"); r.Code != 503 || strings.Contains(r.Body.String(), "10.0.0.1") {
		t.Errorf("%d %s", r.Code, r.Body)
	}
}
