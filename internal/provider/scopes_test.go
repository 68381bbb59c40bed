package provider_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
)

func caps(s string) []mailgrant.Capability {
	var l []mailgrant.Capability
	for _, c := range strings.Fields(s) {
		l = append(l, mailgrant.Capability(c))
	}
	return l
}

func TestOA23SmallestPlan(t *testing.T) {
	const o, g = "https://outlook.office.com/", "https://graph.microsoft.com/"
	for _, c := range []struct {
		name, template, caps, extra, leave string
		flow                               mailgrant.Flow
		kind                               mailgrant.MailboxKind
		asked                              string
		resources                          string // resource=scopes; …
	}{
		{"send", "microsoft365", "smtp", "", "", "code", "own", "openid profile email offline_access " + o + "SMTP.Send", "outlook=" + o + "SMTP.Send"},
		{"send and receive share a token", "microsoft365", "smtp imap pop", "", "", "code", "own", "openid profile email offline_access " + o + "SMTP.Send " + o + "IMAP.AccessAsUser.All " + o + "POP.AccessAsUser.All",
			"outlook=" + o + "SMTP.Send " + o + "IMAP.AccessAsUser.All " + o + "POP.AccessAsUser.All"},
		{"two resources, two tokens", "microsoft365", "smtp api_send", "", "", "code", "own", "openid profile email offline_access " + o + "SMTP.Send " + g + "Mail.Send", "outlook=" + o + "SMTP.Send; graph=" + g + "Mail.Send"},
		{"signing in needs no token beside another", "microsoft365", "signin smtp", "", "", "code", "own", "openid profile email offline_access " + o + "SMTP.Send", "outlook=" + o + "SMTP.Send"},
		{"signing in alone", "microsoft365", "signin", "", "", "code", "own", "openid profile email offline_access", "graph="},
		{"drafts need writing", "microsoft365", "api_send api_read", "", "", "code", "own", "openid profile email offline_access " + g + "Mail.Send " + g + "Mail.ReadWrite", "graph=" + g + "Mail.Send " + g + "Mail.ReadWrite"},
		{"another's mailbox", "microsoft365", "api_send", "", "", "code", "shared", "openid profile email offline_access " + g + "Mail.Send.Shared", "graph=" + g + "Mail.Send.Shared"},
		{"another's mailbox by SMTP", "microsoft365", "smtp", "", "", "code", "shared", "openid profile email offline_access " + o + "SMTP.Send", "outlook=" + o + "SMTP.Send"},
		{"User.Read goes to Graph", "microsoft365", "smtp", "User.Read", "", "code", "own", "openid profile email offline_access " + o + "SMTP.Send " + g + "User.Read", "outlook=" + o + "SMTP.Send; graph=" + g + "User.Read"},
		{"left out", "microsoft365", "smtp", "", "email profile", "code", "own", "openid offline_access " + o + "SMTP.Send", "outlook=" + o + "SMTP.Send"},
		{"the app itself", "microsoft365", "smtp imap", "", "", "app", "app", "https://outlook.office365.com/.default", "outlook=https://outlook.office365.com/.default"},
		{"the app itself, two", "microsoft365", "smtp api_send signin", "", "", "app", "app", "https://outlook.office365.com/.default " + g + ".default", "outlook=https://outlook.office365.com/.default; graph=" + g + ".default"},
		{"Google's one scope covers", "google", "smtp imap api_send", "", "", "code", "own", "openid email https://mail.google.com/", "google=https://mail.google.com/"},
		{"Google, API only", "google", "api_send", "", "", "code", "own", "openid email https://www.googleapis.com/auth/gmail.send", "google=https://www.googleapis.com/auth/gmail.send"},
		{"Yahoo, once", "yahoo", "smtp imap pop", "", "", "code", "own", "mail-w", "mail=mail-w"},
		{"Zoho", "zoho", "api_send", "", "", "code", "own", "ZohoMail.messages.CREATE ZohoMail.accounts.READ", "mail=ZohoMail.messages.CREATE ZohoMail.accounts.READ"},
	} {
		r := mailgrant.Registration{Template: c.template, Tenant: tenant}
		s := resolve(t, r)
		p, err := provider.Scopes(s, provider.Ask{Capabilities: caps(c.caps), Flow: c.flow, Kind: c.kind, Extra: strings.Fields(c.extra), Leave: strings.Fields(c.leave)})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		var list []string
		for _, res := range p.Resources {
			list = append(list, res+"="+strings.Join(p.Tokens[res], " "))
			if err := s.OneResource(p.Tokens[res]); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			if err := s.OneResource(p.Refresh(s, res)); err != nil {
				t.Errorf("%s: refresh: %v", c.name, err)
			}
		}
		if err := s.OneResource(p.Exchange(s)); err != nil {
			t.Errorf("%s: exchange: %v", c.name, err)
		}
		if got := strings.Join(p.Asked, " "); got != c.asked {
			t.Errorf("%s: asked\ngot  %s\nwant %s", c.name, got, c.asked)
		}
		if got := strings.Join(list, "; "); got != c.resources {
			t.Errorf("%s: tokens\ngot  %s\nwant %s", c.name, got, c.resources)
		}
	}
}

func TestScopesOfTokenCalls(t *testing.T) {
	s := resolve(t, mailgrant.Registration{Template: "microsoft365", Tenant: tenant})
	p, err := provider.Scopes(s, provider.Ask{Capabilities: caps("smtp api_send"), Flow: mailgrant.FlowCode})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ got []string }{
		"openid profile email offline_access https://outlook.office.com/SMTP.Send": {p.Exchange(s)},
		"https://outlook.office.com/SMTP.Send offline_access":                      {p.Refresh(s, "outlook")},
		"https://graph.microsoft.com/Mail.Send offline_access":                     {p.Refresh(s, "graph")},
	} {
		if got := strings.Join(c.got, " "); got != name {
			t.Errorf("got %q, want %q", got, name)
		}
	}
	g := resolve(t, mailgrant.Registration{Template: "google"})
	p, _ = provider.Scopes(g, provider.Ask{Capabilities: caps("smtp"), Flow: mailgrant.FlowCode})
	if p.Refresh(g, "google") != nil {
		t.Error("Google needs no scope in a refresh")
	}
}

func TestPlansThatAreRefused(t *testing.T) {
	for _, c := range []struct {
		template, caps, extra string
		flow                  mailgrant.Flow
		field                 string
	}{
		{"microsoft365", "", "", "code", "capabilities"},
		{"microsoft365", "signin", "", "app", "capabilities"},
		{"microsoft365", "fly", "", "code", "capabilities"},
		{"microsoft365", "smtp", "https://graph.microsoft.com/.default", "code", "scopes_extra"},
		{"microsoft365", "smtp", "SMTP.SendAsApp", "code", "scopes_extra"},
		{"microsoft365", "smtp", "Mail.Send", "app", "scopes_extra"},
		{"microsoft365", "smtp", "nonsense", "code", "scopes_extra"},
		{"zoho", "smtp", "", "code", "capabilities"},
		{"mailru", "pop", "", "code", "capabilities"},
		{"google", "smtp", "bad\"scope", "code", "scopes_extra"},
	} {
		s := resolve(t, mailgrant.Registration{Template: c.template, Tenant: tenant})
		_, err := provider.Scopes(s, provider.Ask{Capabilities: caps(c.caps), Flow: c.flow, Extra: strings.Fields(c.extra)})
		if e := mailgrant.AsError(err); !errors.Is(err, mailgrant.Invalid) || e.Remedy == "" || e.Field != c.field {
			t.Errorf("%+v: got %v at %q", c, err, e.Field)
		}
	}
}

// TestA7Typos: what circulates in set-up guides is read as it was meant, and said.
func TestA7Typos(t *testing.T) {
	const smtp, imap, pop, read, send = "https://outlook.office.com/SMTP.Send", "https://outlook.office.com/IMAP.AccessAsUser.All", "https://outlook.office.com/POP.AccessAsUser.All",
		"https://graph.microsoft.com/User.Read", "https://graph.microsoft.com/Mail.Send"
	s := resolve(t, mailgrant.Registration{Template: "microsoft365", Tenant: tenant})
	for in, want := range map[string]string{
		"SMPT":                                 smtp, // E6
		"SMPT.Send":                            smtp,
		"https://outlook.office.com/SMPT.Send": smtp,
		"IMAP.AccessAsUser.":                   imap, // cut
		"https://outlook.office.com/IMAP.AccessAsUser.": imap,
		"User:Read":                      read,
		"user.read":                      read,
		"Mail.Send":                      send,
		"POP.AccessAsUser.All;SMTP.Send": pop + " " + smtp,
		"offline access https //outlook office com/imap accessasuser all https //outlook office com/smtp send openid email": "offline_access " + imap + " " + smtp + " openid email", // E9
		"OFFLINE_ACCESS HTTPS://OUTLOOK.OFFICE.COM/SMTP.SEND":                                                               "offline_access " + smtp,
		"https://outlook.office.com/IMAP.AccessAsUser.Allhttps://outlook.office.com/SMTP.Send":                              imap + " " + smtp, // missing blank
		"offline_accessopenidemail":                                  "offline_access openid email",
		"https://graph.microsoft.com/SMTP.Send":                      smtp, // E29: wrong resource
		"https://graph.microsoft.com/IMAP.AccessAsUser.All":          imap,
		"https://outlook.office.com/Mail.Send":                       send,
		"https://outlook.office.com/User.Read":                       read,
		"https://outlook.office365.com/SMTP.Send":                    smtp,
		"https://outlook.office.com/SMTP.Send\u00a0openid,email":     smtp + " openid email",
		"openid openid OpenID":                                       "openid",
		"https://graph.microsoft.com/Files.ReadWrite Calendars.Read": "https://graph.microsoft.com/Files.ReadWrite Calendars.Read",
		"api://1234/Thing.Do":                                        "api://1234/Thing.Do",
	} {
		got, notes, err := s.Repair(in)
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%q:\ngot  %q, %v\nwant %q", in, got, err, want)
		}
		if changed := !slices.Equal(strings.Fields(in), got); changed != (len(notes) > 0) && in != "openid openid OpenID" && !strings.ContainsAny(in, ";,\u00a0") {
			t.Errorf("%q: notes %q", in, notes)
		}
	}
	for _, in := range []string{"https", "//outlook", "nonsense", "smtp.sendasapp", strings.Repeat("x.", 400)} {
		if got, _, err := s.Repair(in); !errors.Is(err, mailgrant.Invalid) || mailgrant.AsError(err).Remedy == "" {
			t.Errorf("%.40q: got %q, %v", in, got, err)
		}
	}
	g := resolve(t, mailgrant.Registration{Template: "generic", Overrides: map[string]string{"discovery": "none", "authorization_endpoint": "https://a.example/", "token_endpoint": "https://a.example/"}})
	if got, notes, err := g.Repair("email.profile mail.send openidemail"); err != nil || strings.Join(got, " ") != "email.profile mail.send openidemail" || len(notes) != 0 {
		t.Errorf("a provider we do not know: %q %q %v", got, notes, err)
	}
}

func FuzzRepair(f *testing.F) {
	for _, s := range []string{"SMPT", "offline access https //outlook office com/smtp send", "a b c", "://", "https://graph.microsoft.com/"} {
		f.Add(s)
	}
	set, err := provider.Resolve(f.Context(), mailgrant.Registration{Template: "microsoft365", Tenant: tenant}, nowhere)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, _, err := set.Repair(text)
		if err != nil {
			return
		}
		again, notes, err := set.Repair(strings.Join(got, " "))
		if err != nil || !slices.Equal(got, again) || len(notes) > 0 {
			t.Errorf("%q: repaired to %q, and again to %q %q %v", text, got, again, notes, err)
		}
	})
}
