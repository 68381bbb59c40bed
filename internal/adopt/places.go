package adopt

import (
	"net/url"
	"regexp"
	"strings"

	"github.com/mailgrant/mailgrant"
)

// A place is a provider that mailgrant has a template for, and how it shows in the
// settings of others: by its mail servers and by the servers that issue its tokens.
// The facts themselves are those of the template.
type place struct {
	template, name string
	hosts          []string // ends of names
	cloud          string
}

// places in the order in which they are looked through: the narrow ones first.
var places = []place{
	{"microsoft-personal", "Outlook.com", []string{"imap-mail.outlook.com", "pop-mail.outlook.com", "smtp-mail.outlook.com", "imap.outlook.com", "hotmail.com", "live.com"}, ""},
	{"microsoft365", "Microsoft 365", []string{"outlook-dod.office365.us"}, "dod"},
	{"microsoft365", "Microsoft 365", []string{"office365.us", "login.microsoftonline.us", "graph.microsoft.us"}, "gcc-high"},
	{"microsoft365", "Microsoft 365", []string{"partner.outlook.cn", "login.partner.microsoftonline.cn", "login.chinacloudapi.cn", "microsoftgraph.chinacloudapi.cn"}, "china"},
	{"microsoft365", "Microsoft 365", []string{"office365.com", "outlook.office.com", "login.microsoftonline.com", "login.windows.net", "graph.microsoft.com", "mail.protection.outlook.com"}, ""},
	{"google", "Google", []string{"gmail.com", "googlemail.com", "accounts.google.com", "oauth2.googleapis.com", "www.googleapis.com", "mail.google.com"}, ""},
	{"yahoo", "Yahoo", []string{"mail.yahoo.com", "api.login.yahoo.com"}, ""},
	{"aol", "AOL", []string{"imap.aol.com", "pop.aol.com", "smtp.aol.com", "api.login.aol.com"}, ""},
	{"fastmail", "Fastmail", []string{"fastmail.com"}, ""},
	{"zoho", "Zoho", []string{"zoho.com", "zoho.eu", "zoho.in"}, ""},
	{"mailru", "Mail.ru", []string{"mail.ru"}, ""},
	{"yandex", "Yandex", []string{"yandex.com", "yandex.ru"}, ""},
	{"comcast", "Comcast", []string{"comcast.net", "oauth.xfinity.com"}, ""},
}

// placeOf finds the provider of a host.
func placeOf(host string) (place, bool) {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	for _, p := range places {
		for _, end := range p.hosts {
			if host == end || strings.HasSuffix(host, "."+end) {
				return p, true
			}
		}
	}
	return place{}, false
}

// personal are the domains of Microsoft's consumer accounts.
var personal = regexp.MustCompile(`(?i)@(?:outlook|hotmail|live|msn)\.[a-z.]+$`)

func microsoft(template string) bool { return strings.HasPrefix(template, "microsoft") }

// manyTenants are the words that stand for no single directory.
var manyTenants = map[string]bool{"common": true, "organizations": true, "consumers": true}

// tenantOf is the first part of the path of one of Microsoft's addresses.
func tenantOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	if p, ok := placeOf(u.Hostname()); !ok || !microsoft(p.template) {
		return ""
	}
	tenant, _, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	if !tenantWord.MatchString(tenant) {
		return ""
	}
	return tenant
}

var tenantWord = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.-]{2,100}$`)

// site is scheme, host and path of an address: what may hold a secret is left out.
func site(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return ""
	}
	return shown((&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String())
}

// loopback says whether a host is this machine itself.
func loopback(host string) bool {
	switch strings.Trim(strings.ToLower(host), "[]") {
	case "", "localhost", "127.0.0.1", "::1":
		return true
	}
	return strings.HasPrefix(host, "127.")
}

// A scope is what one of a provider's scopes asks for.
type scope struct {
	can      mailgrant.Capability // "": nothing of its own
	resource string               // Microsoft: outlook or graph
}

var scopes = map[string]scope{
	"imap.accessasuser.all": {mailgrant.CanIMAP, "outlook"},
	"pop.accessasuser.all":  {mailgrant.CanPOP, "outlook"},
	"smtp.send":             {mailgrant.CanSMTP, "outlook"},
	"imap.accessasapp":      {mailgrant.CanIMAP, "outlook"},
	"pop.accessasapp":       {mailgrant.CanPOP, "outlook"},
	"smtp.sendasapp":        {mailgrant.CanSMTP, "outlook"},
	"mail.read":             {mailgrant.CanAPIRead, "graph"},
	"mail.readwrite":        {mailgrant.CanAPIRead, "graph"},
	"mail.read.shared":      {mailgrant.CanAPIRead, "graph"},
	"mail.readwrite.shared": {mailgrant.CanAPIRead, "graph"},
	"mail.send":             {mailgrant.CanAPISend, "graph"},
	"mail.send.shared":      {mailgrant.CanAPISend, "graph"},
	"user.read":             {"", "graph"},
	".default":              {},

	"https://mail.google.com/":                         {},
	"https://mail.google.com":                          {},
	"https://www.googleapis.com/auth/gmail.send":       {can: mailgrant.CanAPISend},
	"https://www.googleapis.com/auth/gmail.readonly":   {can: mailgrant.CanAPIRead},
	"https://www.googleapis.com/auth/gmail.modify":     {can: mailgrant.CanAPIRead},
	"https://www.googleapis.com/auth/gmail.imap_admin": {},

	"mail-w": {}, "mail-r": {},
	"offline_access": {}, "openid": {}, "profile": {}, "email": {},
}

// lookScope finds a scope; at Microsoft the resource it belongs to as well.
func lookScope(text string) (s scope, known bool) {
	lower := strings.ToLower(text)
	if s, ok := scopes[lower]; ok {
		return s, true
	}
	u, err := url.Parse(lower)
	if err != nil || u.Host == "" {
		return s, false
	}
	p, ok := placeOf(u.Hostname())
	if !ok && u.Hostname() != "ps.outlook.com" || ok && !microsoft(p.template) {
		return s, false
	}
	s, known = scopes[strings.Trim(u.Path, "/")]
	if s.resource = "outlook"; strings.Contains(u.Hostname(), "graph") {
		s.resource = "graph"
	}
	return s, known
}
