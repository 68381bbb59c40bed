package sim

import (
	"slices"
	"strings"
)

// cloudHosts has what differs between the clouds that an organization can be
// in. See the table of national clouds in the platform's documentation.
var cloudHosts = map[string]struct {
	login, graph, smtp string
	region             any // tenant_region_scope
	exchange           []string
}{
	"":        {"login.microsoftonline.com", "graph.microsoft.com", "smtp.office365.com", "WW", publicExchange},
	"public":  {"login.microsoftonline.com", "graph.microsoft.com", "smtp.office365.com", "WW", publicExchange},
	"gcchigh": {"login.microsoftonline.us", "graph.microsoft.us", "smtp.office365.us", "USG", []string{"https://outlook.office365.us"}},
	"dod":     {"login.microsoftonline.us", "dod-graph.microsoft.us", "outlook-dod.office365.us", "USG", []string{"https://outlook.office365.us"}},
	"china":   {"login.partner.microsoftonline.cn", "microsoftgraph.chinacloudapi.cn", "partner.outlook.cn", nil, []string{"https://partner.outlook.cn"}},
}

var publicExchange = []string{
	"https://outlook.office.com", "https://outlook.office365.com", "https://ps.outlook.com",
}

// consumersTenant is the directory of personal accounts.
const consumersTenant = "9188040d-6c67-4c5b-b112-36a304b66dad"

// A resource is an API that tokens are for. One access token has one.
type resource struct {
	appID       string
	name        string
	canonical   string // how consents name it
	delegated   []string
	application []string
}

var graphResource = &resource{
	appID:     "00000003-0000-0000-c000-000000000000",
	name:      "Microsoft Graph",
	canonical: "https://graph.microsoft.com",
	delegated: []string{"User.Read", "User.ReadBasic.All", "User.Read.All", "Mail.Send", "Mail.Send.Shared",
		"Mail.Read", "Mail.ReadBasic", "Mail.ReadWrite", "Mail.Read.Shared", "Mail.ReadWrite.Shared",
		"MailboxSettings.Read", "Files.ReadWrite", "Files.ReadWrite.All", "Directory.Read.All",
		"SMTP.Send", "IMAP.AccessAsUser.All", "POP.AccessAsUser.All"},
	application: []string{"Mail.Send", "Mail.Read", "Mail.ReadBasic", "Mail.ReadBasic.All", "Mail.ReadWrite",
		"User.Read.All", "Directory.Read.All", "Files.ReadWrite.All"},
}

var exchangeResource = &resource{
	appID:     "00000002-0000-0ff1-ce00-000000000000",
	name:      "Office 365 Exchange Online",
	canonical: "https://outlook.office.com",
	delegated: []string{"SMTP.Send", "IMAP.AccessAsUser.All", "POP.AccessAsUser.All",
		"Mail.Send", "Mail.Read", "Mail.ReadWrite", "EWS.AccessAsUser.All", "User.Read"},
	application: []string{"SMTP.SendAsApp", "IMAP.AccessAsApp", "POP.AccessAsApp", "full_access_as_app",
		"Mail.Send", "Mail.Read", "Mail.ReadWrite"},
}

var oidcScopes = []string{"openid", "profile", "email", "offline_access"}

// onlyAdminScopes are delegated permissions that people cannot consent to.
var onlyAdminScopes = []string{"User.Read.All", "Directory.Read.All", "Files.ReadWrite.All"}

// A scope is one word of a scope parameter, taken apart.
type scope struct {
	raw      string
	uri      string    // the resource as it was written, "" for OpenID Connect
	resource *resource // nil: not known here
	name     string    // Mail.Send, .default, openid
}

// full is how consents name the scope.
func (s scope) full() string {
	if s.resource == nil {
		return s.raw
	}
	return s.resource.canonical + "/" + s.name
}

// parseScope takes one scope apart. A permission without a resource is
// Graph's. cloud decides which hosts are known; "*" knows those of all.
func parseScope(raw, cloud string) scope {
	if slices.Contains(oidcScopes, raw) {
		return scope{raw: raw, name: raw}
	}
	cut := strings.LastIndexByte(raw, '/')
	if cut < 0 {
		return scope{raw, "https://" + cloudHosts[hostsOf(cloud)].graph, graphResource, raw}
	}
	uri, name := strings.TrimSuffix(raw[:cut], "/"), raw[cut+1:]
	return scope{raw, uri, findResource(uri, cloud), name}
}

func hostsOf(cloud string) string {
	if cloud == "*" {
		return ""
	}
	return cloud
}

func findResource(uri, cloud string) *resource {
	for name, c := range cloudHosts {
		if cloud != "*" && name != cloud {
			continue
		}
		if strings.EqualFold(uri, "https://"+c.graph) || uri == graphResource.appID {
			return graphResource
		}
		if containsFold(c.exchange, uri) || uri == exchangeResource.appID {
			return exchangeResource
		}
	}
	return nil
}

func parseScopes(param, cloud string) []scope {
	var all []scope
	for _, raw := range strings.Fields(param) {
		all = append(all, parseScope(raw, cloud))
	}
	return all
}

func fullScopes(raw []string) []string {
	var full []string
	for _, r := range raw {
		full = append(full, parseScope(r, "*").full())
	}
	return full
}

// expand puts the permissions configured on the app in the place of .default.
func expand(scopes []scope, configured []string, cloud string) []scope {
	var all []scope
	for _, s := range scopes {
		if s.name != ".default" {
			all = append(all, s)
			continue
		}
		for _, c := range configured {
			if p := parseScope(c, "*"); p.resource == s.resource {
				all = append(all, scope{p.raw, s.uri, p.resource, p.name})
			}
		}
	}
	return all
}

// namesOn keeps the bare names of those full scopes that are of resource r.
func namesOn(r *resource, full []string) []string {
	var names []string
	for _, f := range full {
		if name, ok := strings.CutPrefix(f, r.canonical+"/"); ok {
			names = append(names, name)
		}
	}
	return names
}

// describe tells a person what a permission allows.
func describe(s scope) (title, detail string) {
	if d, ok := descriptions[s.name]; ok {
		return d[0], d[1]
	}
	return s.raw, "Allows the app to use " + s.name + "."
}

var descriptions = map[string][2]string{
	"openid":                {"Sign you in", "Allows you to sign in to the app with your work or school account."},
	"profile":               {"View your basic profile", "Allows the app to see your basic profile (name, picture, user name)."},
	"email":                 {"View your email address", "Allows the app to read your primary email address."},
	"offline_access":        {"Maintain access to data you have given it access to", "Allows the app to see and update the data you gave it access to, even when you are not currently using the app."},
	"User.Read":             {"Sign you in and read your profile", "Allows you to sign in to the app and lets the app read your profile."},
	"SMTP.Send":             {"Send emails from mailboxes using SMTP AUTH", "Allows the app to send emails on your behalf from your mailbox."},
	"IMAP.AccessAsUser.All": {"Read and write access to mailboxes via IMAP", "Allows the app to read, update, create and delete email in your mailbox."},
	"POP.AccessAsUser.All":  {"Read and write access to mailboxes via POP", "Allows the app to read and delete email in your mailbox."},
	"Mail.Send":             {"Send mail as you", "Allows the app to send mail as you."},
	"Mail.Send.Shared":      {"Send mail on behalf of others", "Allows the app to send mail as you or on behalf of others."},
	"Mail.Read":             {"Read your mail", "Allows the app to read email in your mailbox."},
	"Mail.ReadWrite":        {"Read and write access to your mail", "Allows the app to create, read, update, and delete email in your mailbox. Does not include permission to send mail."},
	"User.Read.All":         {"Read all users' full profiles", "Allows the app to read the full set of profile properties of all users in your organization."},
	"User.ReadBasic.All":    {"Read all users' basic profiles", "Allows the app to read a basic set of profile properties of other users in your organization."},
	"Mail.Read.Shared":      {"Read user and shared mail", "Allows the app to read mail that you can access, including shared mail."},
	"Mail.ReadWrite.Shared": {"Read and write user and shared mail", "Allows the app to create, read, update, and delete mail that you have permission to access, including shared mail."},
	"MailboxSettings.Read":  {"Read your mailbox settings", "Allows the app to read your mailbox settings."},
	"Files.ReadWrite":       {"Have full access to your files", "Allows the app to read, create, update and delete your files."},
	"Files.ReadWrite.All":   {"Have full access to all files you have access to", "Allows the app to read, create, update and delete all files that you can access."},
	"Directory.Read.All":    {"Read directory data", "Allows the app to read data in your organization's directory."},
	"full_access_as_app":    {"Use Exchange Web Services with full access to all mailboxes", "Allows the app to have full access via Exchange Web Services to all mailboxes without a signed-in user."},
	"SMTP.SendAsApp":        {"Application access for sending emails via SMTP AUTH", "Allows the app to send emails from any mailbox that Exchange lets it, without a signed-in user."},
	"IMAP.AccessAsApp":      {"Application access for IMAP", "Allows the app to use IMAP on any mailbox that Exchange lets it, without a signed-in user."},
	"POP.AccessAsApp":       {"Application access for POP", "Allows the app to use POP on any mailbox that Exchange lets it, without a signed-in user."},
}
