package provider_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const tenant = "11111111-2222-3333-4444-555555555555"

// resolve makes settings without a network.
func resolve(t *testing.T, r mailgrant.Registration) provider.Settings {
	t.Helper()
	s, err := provider.Resolve(t.Context(), r, nowhere)
	if err != nil {
		t.Fatalf("%s: %v", r.Template, err)
	}
	return s
}

// nowhere fails whoever asks the network.
var nowhere = &http.Client{Transport: unreachable{}}

type unreachable struct{}

func (unreachable) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("the network was asked")
}

// TestTemplatesAreComplete: every file parses, resolves, and says what the rooms
// above rely on.
func TestTemplatesAreComplete(t *testing.T) {
	all := provider.Templates()
	if len(all) != 11 || all[0].ID != "microsoft365" || all[1].ID != "google" {
		t.Fatalf("%d templates, the first are %s and %s", len(all), all[0].ID, all[1].ID)
	}
	for _, tmpl := range all {
		if tmpl.Name == "" || tmpl.Register == "" || tmpl.ID != "generic" && len(tmpl.Notes) == 0 {
			t.Errorf("%s: name, register or notes are missing", tmpl.ID)
		}
		clouds := tmpl.Clouds
		if clouds == nil {
			clouds = []string{""}
		}
		for _, cloud := range clouds {
			r := mailgrant.Registration{Template: tmpl.ID, Cloud: cloud, Tenant: tenant, ClientID: "c"}
			if tmpl.ID == "microsoft-personal" {
				r.Tenant = ""
			}
			if tmpl.ID == "generic" {
				r.Overrides = map[string]string{"discovery": "none", "authorization_endpoint": "https://a.example/a", "token_endpoint": "https://a.example/t"}
			}
			s := resolve(t, r)
			where := tmpl.ID + " " + cloud
			if !s.PKCE || s.ScopeDelimiter == "" || s.SubjectKey == "" || s.TokenResourceRule == "" || s.RefreshRotation == "" || s.IssParameter == "" || s.LoginHint == "" || s.RevokeAt == "" || s.DefaultResource == "" || s.TokenLife == 0 {
				t.Errorf("%s: a field is empty: %+v", where, s)
			}
			for _, text := range []string{s.AuthorizationEndpoint, s.TokenEndpoint, s.JWKSURI, s.Issuer, s.SMTPHost, s.IMAPHost, s.UserinfoEndpoint, strings.Join(s.Scopes[mailgrant.CanSMTP], " "), s.AppScopes[mailgrant.CanSMTP]} {
				if strings.ContainsAny(text, "{}") {
					t.Errorf("%s: not filled in: %s", where, text)
				}
			}
			for c := range s.Scopes {
				if s.Resources[c] == "" {
					t.Errorf("%s: %s belongs to no resource", where, c)
				}
				if _, err := provider.Scopes(s, provider.Ask{Capabilities: []mailgrant.Capability{c}, Flow: mailgrant.FlowCode}); err != nil {
					t.Errorf("%s: %s: %v", where, c, err)
				}
			}
			for _, m := range []string{s.SMTPSecurity, s.IMAPSecurity} {
				if m != "tls" && m != "starttls" {
					t.Errorf("%s: security %q", where, m)
				}
			}
			if s.IssParameter != "absent" && s.IssParameter != "if-present" && s.IssParameter != "required" {
				t.Errorf("%s: iss_parameter %q", where, s.IssParameter)
			}
		}
		for _, f := range tmpl.Fields() {
			if f == "" || f == "-" {
				t.Errorf("%s has a field without a name", tmpl.ID)
			}
		}
	}
}

// TestTemplatesMatchTheReference: one row for each row of the reference.
func TestTemplatesMatchTheReference(t *testing.T) {
	const entra = "https://login.microsoftonline.com/" + tenant + "/oauth2/v2.0/"
	for _, c := range []struct{ id, cloud, authorize, token, device, smtpScope, smtp, imap, pop string }{
		{"microsoft365", "public", entra + "authorize", entra + "token", entra + "devicecode", "https://outlook.office.com/SMTP.Send", "smtp.office365.com:587 starttls", "outlook.office365.com:993", "outlook.office365.com:995"},
		{"google", "", "https://accounts.google.com/o/oauth2/v2/auth", "https://oauth2.googleapis.com/token", "https://oauth2.googleapis.com/device/code", "https://mail.google.com/", "smtp.gmail.com:465 tls", "imap.gmail.com:993", "pop.gmail.com:995"},
		{"yahoo", "", "https://api.login.yahoo.com/oauth2/request_auth", "https://api.login.yahoo.com/oauth2/get_token", "", "mail-w", "smtp.mail.yahoo.com:465 tls", "imap.mail.yahoo.com:993", "pop.mail.yahoo.com:995"},
		{"aol", "", "https://api.login.aol.com/oauth2/request_auth", "https://api.login.aol.com/oauth2/get_token", "", "mail-w", "smtp.aol.com:465 tls", "imap.aol.com:993", "pop.aol.com:995"},
		{"fastmail", "", "https://api.fastmail.com/oauth/authorize", "https://api.fastmail.com/oauth/refresh", "", "https://www.fastmail.com/dev/protocol-smtp", "smtp.fastmail.com:465 tls", "imap.fastmail.com:993", "pop.fastmail.com:995"},
		{"zoho", "eu", "https://accounts.zoho.eu/oauth/v2/auth", "https://accounts.zoho.eu/oauth/v2/token", "", "", "smtp.zoho.eu:465 tls", "imap.zoho.eu:993", "pop.zoho.eu:995"},
		{"zoho", "ca", "https://accounts.zohocloud.ca/oauth/v2/auth", "https://accounts.zohocloud.ca/oauth/v2/token", "", "", "smtp.zohocloud.ca:465 tls", "imap.zohocloud.ca:993", "pop.zohocloud.ca:995"},
		{"yandex", "", "https://oauth.yandex.com/authorize", "https://oauth.yandex.com/token", "", "mail:smtp", "smtp.yandex.com:465 tls", "imap.yandex.com:993", ""},
		{"mailru", "", "https://o2.mail.ru/login", "https://o2.mail.ru/token", "", "mail.imap", "smtp.mail.ru:465 tls", "imap.mail.ru:993", ""},
		{"comcast", "", "https://oauth.xfinity.com/oauth/authorize", "https://oauth.xfinity.com/oauth/token", "", "https://email.comcast.net/", "smtp.comcast.net:465 tls", "imap.comcast.net:993", ""},
		{"microsoft-personal", "", "https://login.microsoftonline.com/consumers/oauth2/v2.0/authorize", "https://login.microsoftonline.com/consumers/oauth2/v2.0/token", "https://login.microsoftonline.com/consumers/oauth2/v2.0/devicecode", "https://outlook.office.com/SMTP.Send", "smtp-mail.outlook.com:587 starttls", "outlook.office365.com:993", "outlook.office365.com:995"},
	} {
		r := mailgrant.Registration{Template: c.id, Cloud: c.cloud, Tenant: tenant}
		if c.id == "microsoft-personal" {
			r.Tenant = ""
		}
		s := resolve(t, r)
		pop := ""
		if s.POPHost != "" {
			pop = s.POPHost + ":995"
		}
		got := []string{s.AuthorizationEndpoint, s.TokenEndpoint, s.DeviceAuthorizationEndpoint, strings.Join(s.Scopes[mailgrant.CanSMTP], " "),
			s.SMTPHost + map[int]string{587: ":587 ", 465: ":465 "}[s.SMTPPort] + s.SMTPSecurity, s.IMAPHost + ":993", pop}
		want := []string{c.authorize, c.token, c.device, c.smtpScope, c.smtp, c.imap, c.pop}
		if !slices.Equal(got, want) || s.IMAPPort != 993 || pop != "" && s.POPPort != 995 {
			t.Errorf("%s %s:\ngot  %q\nwant %q", c.id, c.cloud, got, want)
		}
	}
}

func TestMicrosoftClouds(t *testing.T) {
	for _, c := range []struct{ cloud, login, graph, scope, appScope, imap, smtp, spf string }{
		{"public", "login.microsoftonline.com", "https://graph.microsoft.com", "https://outlook.office.com", "https://outlook.office365.com", "outlook.office365.com", "smtp.office365.com", "spf.protection.outlook.com"},
		{"gcc-high", "login.microsoftonline.us", "https://graph.microsoft.us", "https://outlook.office365.us", "https://outlook.office365.us", "outlook.office365.us", "smtp.office365.us", "spf.protection.office365.us"},
		{"dod", "login.microsoftonline.us", "https://dod-graph.microsoft.us", "https://outlook.office365.us", "https://outlook.office365.us", "outlook-dod.office365.us", "outlook-dod.office365.us", "spf.protection.office365.us"},
		{"china", "login.partner.microsoftonline.cn", "https://microsoftgraph.chinacloudapi.cn", "https://partner.outlook.cn", "https://partner.outlook.cn", "partner.outlook.cn", "partner.outlook.cn", "spf.protection.partner.outlook.cn"},
	} {
		s := resolve(t, mailgrant.Registration{Template: "microsoft365", Cloud: c.cloud, Tenant: tenant})
		at := "https://" + c.login + "/" + tenant
		got := []string{s.Issuer, s.TokenEndpoint, s.JWKSURI, s.AdminConsentEndpoint, s.EndSessionEndpoint, s.GraphURL, s.UserinfoEndpoint,
			s.Scopes[mailgrant.CanSMTP][0], s.Scopes[mailgrant.CanIMAP][0], s.Scopes[mailgrant.CanPOP][0], s.Scopes[mailgrant.CanAPISend][0],
			s.AppScopes[mailgrant.CanSMTP], s.AppScopes[mailgrant.CanAPISend], s.IMAPHost, s.POPHost, s.SMTPHost, s.SPFInclude}
		want := []string{at + "/v2.0", at + "/oauth2/v2.0/token", at + "/discovery/v2.0/keys", at + "/v2.0/adminconsent", at + "/oauth2/v2.0/logout", c.graph, c.graph + "/oidc/userinfo",
			c.scope + "/SMTP.Send", c.scope + "/IMAP.AccessAsUser.All", c.scope + "/POP.AccessAsUser.All", c.graph + "/Mail.Send",
			c.appScope + "/.default", c.graph + "/.default", c.imap, c.imap, c.smtp, c.spf}
		if !slices.Equal(got, want) {
			t.Errorf("%s:\ngot  %q\nwant %q", c.cloud, got, want)
		}
		if s.RevocationEndpoint != "" || s.IssParameter != "absent" || s.Discovery != "none" || s.TokenResourceRule != "single" {
			t.Errorf("%s: %+v", c.cloud, s)
		}
	}
	if _, err := provider.Resolve(t.Context(), mailgrant.Registration{Template: "microsoft365", Cloud: "germany", Tenant: tenant}, nowhere); !errors.Is(err, mailgrant.Invalid) {
		t.Errorf("a cloud that closed: %v", err)
	}
}

func TestOverrides(t *testing.T) {
	s := resolve(t, mailgrant.Registration{Template: "microsoft365", Tenant: strings.ToUpper(tenant), Prompt: "login", Overrides: map[string]string{
		"login_url": "https://localhost:8443/", "graph_url": "https://localhost:8444", "smtp_host": "localhost", "smtp_port": "2587", "pkce": "false", "refresh_idle": "48h",
		"scopes.smtp": "{outlook_scope}/SMTP.Send extra", "limits.per_minute": "-1", "sasl": "OAUTHBEARER XOAUTH2", "app_scopes.smtp": "x/.default"}})
	if s.TokenEndpoint != "https://localhost:8443/"+tenant+"/oauth2/v2.0/token" || s.Issuer != "https://localhost:8443/"+tenant+"/v2.0" || s.UserinfoEndpoint != "https://localhost:8444/oidc/userinfo" {
		t.Errorf("addresses: %s %s %s", s.TokenEndpoint, s.Issuer, s.UserinfoEndpoint)
	}
	if s.SMTPHost != "localhost" || s.SMTPPort != 2587 || s.PKCE || s.RefreshIdle.Hours() != 48 || s.Prompt != "login" || s.Limits.PerMinute != -1 || s.Limits.Connections != 3 ||
		strings.Join(s.Scopes[mailgrant.CanSMTP], " ") != "https://outlook.office.com/SMTP.Send extra" || strings.Join(s.SASL, " ") != "OAUTHBEARER XOAUTH2" || s.AppScopes[mailgrant.CanSMTP] != "x/.default" {
		t.Errorf("fields: %+v", s)
	}
	fresh := resolve(t, mailgrant.Registration{Template: "microsoft365", Tenant: tenant})
	if fresh.AppScopes[mailgrant.CanSMTP] == "x/.default" || len(fresh.Scopes[mailgrant.CanSMTP]) != 1 || fresh.Vars["login_url"] != "https://login.microsoftonline.com" {
		t.Error("an override has changed the template for everybody")
	}
	for name, value := range map[string]string{"tokn_endpoint": "x", "smtp_port": "many", "pkce": "maybe", "scopes": "x", "limits": "3", "limits.x": "3", "smtp_host.x": "y", "scopes_with.smtp": "x",
		"token_endpoint": "ftp://x", "jwks_uri": "//x", "authorization_endpoint": "https://user:pass@x.example/", "refresh_idle": "soon"} {
		_, err := provider.Resolve(t.Context(), mailgrant.Registration{Template: "google", Overrides: map[string]string{name: value}}, nowhere)
		e := mailgrant.AsError(err)
		if err == nil || e.Remedy == "" || e.Field != "overrides."+name {
			t.Errorf("%s=%s: got %v at %q", name, value, err, e.Field)
		}
	}
}

func TestTenants(t *testing.T) {
	for in, want := range map[string]string{tenant: tenant, " " + strings.ToUpper(tenant) + " ": tenant, "Organizations": "organizations", "common": "common"} {
		if s := resolve(t, mailgrant.Registration{Template: "microsoft365", Tenant: in}); s.Tenant != want {
			t.Errorf("%q: got %q", in, s.Tenant)
		}
	}
	for in, code := range map[string]mailgrant.Code{"": mailgrant.Misset, "contoso": mailgrant.Invalid, "../evil": mailgrant.Invalid, "a@b.example": mailgrant.Invalid, "contoso.example/x": mailgrant.Invalid, "contoso.example": mailgrant.Unavailable} {
		_, err := provider.Resolve(t.Context(), mailgrant.Registration{Template: "microsoft365", Tenant: in}, nowhere)
		if !errors.Is(err, code) || mailgrant.AsError(err).Remedy == "" {
			t.Errorf("%q: got %v, want %s", in, err, code)
		}
	}
	if _, err := provider.Resolve(t.Context(), mailgrant.Registration{Template: "nowhere"}, nowhere); !errors.Is(err, mailgrant.Invalid) {
		t.Errorf("no template: %v", err)
	}
	if _, err := provider.Resolve(context.Background(), mailgrant.Registration{Template: "generic"}, nowhere); !errors.Is(err, mailgrant.Misset) {
		t.Errorf("generic without anything: %v", err)
	}
}

// TestR103SignatureFollowsTheRegistration: what makes grants doubtful changes it,
// what does not leaves it.
func TestR103SignatureFollowsTheRegistration(t *testing.T) {
	base := mailgrant.Registration{Template: "microsoft365", Cloud: "public", Tenant: tenant, Issuer: "i", ClientID: "c", Prompt: "p",
		Overrides: map[string]string{"a": "1", "b": "2"}, ScopesExtra: []string{"x", "y"}, ScopesLeave: []string{"z"}}
	for name, change := range map[string]func(*mailgrant.Registration){
		"template": func(r *mailgrant.Registration) { r.Template = "google" }, "cloud": func(r *mailgrant.Registration) { r.Cloud = "dod" },
		"tenant": func(r *mailgrant.Registration) { r.Tenant = "t" }, "issuer": func(r *mailgrant.Registration) { r.Issuer = "j" },
		"client": func(r *mailgrant.Registration) { r.ClientID = "d" }, "prompt": func(r *mailgrant.Registration) { r.Prompt = "" },
		"override": func(r *mailgrant.Registration) { r.Overrides = map[string]string{"a": "1", "b": "3"} },
		"extra":    func(r *mailgrant.Registration) { r.ScopesExtra = []string{"x"} }, "leave": func(r *mailgrant.Registration) { r.ScopesLeave = nil },
		"moved": func(r *mailgrant.Registration) { r.ScopesExtra, r.ScopesLeave = []string{"x"}, []string{"y", "z"} },
	} {
		r := base
		change(&r)
		if r.Signature() == base.Signature() {
			t.Errorf("%s changes nothing", name)
		}
	}
	same := base
	same.Name, same.CAFile, same.DeviceFlow, same.ScopesExtra = "n", "f", true, []string{"y", "x"}
	if same.Signature() != base.Signature() {
		t.Error("a name changes it")
	}
}
