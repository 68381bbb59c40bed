package adopt

import (
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/mailgrant/mailgrant"
)

// email-oauth2-proxy stands between mail programs and providers: a section for each
// door it opens, [IMAP-1993], one for each account, [name@domain], and [emailproxy]
// for itself. It may keep its tokens in the same file.

var proxyDoor = regexp.MustCompile(`^(IMAP|POP|SMTP)-(\d{1,5})$`)

// A proxyDoors is what is known of the doors: by protocol, the first one.
type proxyDoors map[string]*proxyServer

type proxyServer struct {
	line       int
	host, port string
	local      string // the door as a mail program names it
}

func (r *reading) emailProxy(lines []string) error {
	f, err := r.ini(lines, dialect{})
	if err != nil {
		return err
	}
	p := &interpolation{r: r, left: interpolateMost, used: map[string]bool{}}
	doors := proxyDoors{}
	var accounts []*section
	own := &section{at: map[string]int{}}
	for _, raw := range f.sections {
		s := p.in(f.all(raw))
		switch {
		case proxyDoor.MatchString(s.name):
			r.proxyDoor(s, doors)
		case s.name == "emailproxy":
			own = s
		case strings.Contains(s.name, "@"):
			accounts = append(accounts, s)
		default:
			r.proxyHeading(s)
		}
	}
	r.proxyOwn(own)
	for _, s := range accounts {
		r.proxyAccount(s, doors, accounts)
	}
	r.strangers(f, p)
	if len(accounts) == 0 {
		r.need(0, "account", "look whether it is the whole file", "the file names no account")
	}
	return nil
}

// proxyHeading passes the sections that only hold words for people.
func (r *reading) proxyHeading(s *section) {
	for _, e := range s.entries {
		if e.key != "documentation" && !e.inherited {
			r.unknownEntry(e, "the section of line "+strconv.Itoa(s.line))
		}
	}
}

func (r *reading) proxyDoor(s *section, doors proxyDoors) {
	m := proxyDoor.FindStringSubmatch(s.name)
	d := &proxyServer{line: s.line, local: "localhost:" + m[2]}
	encrypted := s.value("local_certificate_path") != "" && s.value("local_key_path") != ""
	for _, e := range r.each(s) {
		switch e.key {
		case "server_address":
			d.host = e.value
		case "server_port":
			d.port = e.value
		case "local_address":
			if !loopback(e.value) && !encrypted {
				r.danger(e.line, "cleartext", "let the programs speak to mailgrant: submission by TLS on 465 or 587, with a key of their own",
					"passwords reach the proxy unencrypted over the network, at %s", shown(e.value))
			}
			d.local = shown(e.value) + ":" + m[2]
		case "starttls", "server_starttls", "local_starttls", "local_certificate_path", "local_key_path", "documentation":
		case "plugins":
			r.danger(e.line, "runs-a-program", "look at what they do, and let the app do it", "plugins change what passes the proxy; they were not run")
		default:
			r.unknownEntry(e, s.name)
		}
	}
	if d.host == "" {
		r.strange(s.line, "incomplete", "%s names no server", s.name)
		return
	}
	protocol := strings.ToLower(m[1])
	if doors[protocol+" "+placeKey(d.host)] == nil {
		doors[protocol+" "+placeKey(d.host)] = d
	}
	r.understood(s.line, "server", "%s: %s at %s", s.name, m[1], shown(d.host))
}

// placeKey is the same for all servers of a provider that is known.
func placeKey(host string) string {
	if p, ok := placeOf(host); ok {
		return p.template
	}
	return "generic"
}

// proxyOwn reads the switches of the proxy itself.
func (r *reading) proxyOwn(s *section) {
	on := func(key string) bool { return truth(s.value(key)) }
	const forgets = "delete_account_token_on_password_error"
	if e, set := s.get(forgets); !set || truth(e.value) {
		r.danger(max(e.line, s.line), "consent-deleted", "mailgrant keeps consents apart from the keys of apps; nothing is to be done here",
			"%s is on, as it is where nobody says otherwise: one wrong password of any program throws the consent away, and a person must sign in again", forgets)
	}
	for _, e := range r.each(s) {
		switch e.key {
		case "documentation", "encrypt_client_secret_on_first_use", forgets:
		case "allow_catch_all_accounts":
			if on(e.key) {
				r.danger(e.line, "catch-all", "name each mailbox; what an app may use is in its own settings", "any address may be opened through the proxy, not only those that are named")
			}
		case "use_login_password_as_client_credentials_secret":
			if on(e.key) {
				r.danger(e.line, "password-replay", "give the secret to mailgrant once, and each program a key of its own: mailgrant app key issue",
					"programs send the client secret as their password: whoever knows one of them has all mailboxes")
			}
		default:
			r.unknownEntry(e, "emailproxy")
		}
	}
}

// truth reads a switch as Python does.
func truth(s string) bool {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "1", "yes", "true", "on":
		return true
	}
	return false
}

// proxyAccount reads one account. What it does not set it takes from [@domain] and
// [@], where the file has them.
func (r *reading) proxyAccount(s *section, doors proxyDoors, all []*section) {
	catchAll := strings.HasPrefix(s.name, "@")
	a := &account{line: s.line, user: s.name}
	v := map[string]entry{}
	for _, from := range append([]*section{s}, fallbacks(s, all)...) {
		for _, e := range from.entries {
			if _, set := v[e.key]; !set {
				v[e.key] = e
			}
		}
	}
	for _, e := range r.each(s) {
		r.proxyKey(s, e)
	}
	if catchAll {
		r.need(s.line, "address", "name each mailbox: mailgrant mailbox add ADDRESS", "[%s] stands for any address, and none of them is named", shown(s.name))
		return
	}
	r.proxyPlace(a, v)
	r.proxyFlow(a, v)
	r.proxyScopes(a, v["oauth2_scope"])
	r.proxySecret(a, v)
	r.proxyReading(a, doors)
	r.accounts = append(r.accounts, a)
	r.understood(s.line, "account", "%s: %s at %s", shown(s.name), flowWords(a.flow), a.place.name)
}

func fallbacks(s *section, all []*section) (out []*section) {
	_, domain, _ := strings.Cut(s.name, "@")
	for _, name := range []string{"@" + domain, "@"} {
		i := slices.IndexFunc(all, func(x *section) bool { return x.name == name && x != s })
		if i >= 0 {
			out = append(out, all[i])
		}
	}
	return out
}

// proxyKey notes what a key of an account means for itself.
func (r *reading) proxyKey(s *section, e entry) {
	switch e.key {
	case "permission_url", "token_url", "oauth2_scope", "oauth2_flow", "client_id", "documentation", "redirect_listen_address", "use_pkce":
	case "redirect_uri":
		r.understood(e.line, "redirect-uri", "redirect_uri: mailgrant has one of its own")
	case "client_secret":
		if e.value != "" && !strings.Contains(e.value, "***") {
			r.danger(e.line, "client-secret-in-file", "mailgrant seals it; make a new one, and delete the line", "the client secret of %s stands in the file in the clear", shown(s.name))
		}
	case "client_secret_encrypted":
		r.understood(e.line, "client-secret", "client_secret_encrypted: sealed with the password of the mail program, and not opened")
	case "refresh_token", "access_token":
		r.danger(e.line, "token-in-file", "it is not taken over: the owner consents anew; delete it, and revoke it at the provider",
			"%s of %s stands in the file, sealed only with the password of the mail program", e.key, shown(s.name))
	case "token_salt", "token_iterations", "access_token_expiry", "last_activity":
		r.understood(e.line, "token", "%s: belongs to the tokens, and is left out", e.key)
	case "jwt_certificate_path", "jwt_key_path":
		r.need(e.line, "certificate", "put key and certificate into one PEM file: mailgrant registration credential add", "%s is a file of its own", e.key)
	default:
		r.unknownEntry(e, s.name)
	}
}

// proxyPlace finds the provider, from where tokens are issued.
func (r *reading) proxyPlace(a *account, v map[string]entry) {
	token, permission := v["token_url"], v["permission_url"]
	u, err := url.Parse(token.value)
	if err != nil || u.Host == "" {
		r.strange(token.line, "incomplete", "%s has no token_url that is an address", shown(a.user))
		u = &url.URL{}
	}
	if u.Scheme == "http" && !loopback(u.Hostname()) {
		r.danger(token.line, "cleartext", "use https", "tokens are fetched without encryption, from %s", shown(u.Hostname()))
	}
	p, ok := placeOf(u.Hostname())
	if !ok {
		a.place = place{template: "generic", name: cmpOr(u.Hostname(), "mail provider")}
		a.overrides = map[string]string{}
		for key, e := range map[string]entry{"token_endpoint": token, "authorization_endpoint": permission} {
			if address := site(e.value); address != "" {
				a.overrides[key] = address
			}
		}
		return
	}
	a.place = p
	if !microsoft(p.template) {
		return
	}
	a.tenant = tenantOf(token.value)
	if personal.MatchString(a.user) {
		a.place = places[0]
	}
	if asked := tenantOf(permission.value); permission.value != "" && !strings.EqualFold(asked, a.tenant) {
		r.danger(permission.line, "two-tenants", "decide on one: tenant in the registration", "consent is asked for at the tenant %s, and tokens are fetched at %s", shown(asked), shown(a.tenant))
	}
	if !strings.Contains(u.Path, "/v2.0/") {
		r.danger(token.line, "old-endpoint", "mailgrant uses version 2.0; nothing is to be done here", "tokens come from the endpoint of version 1, which takes a resource instead of scopes")
	}
}

func cmpOr(s, other string) string {
	if s == "" {
		return other
	}
	return shown(s)
}

// proxyFlow finds how tokens are come by, as the proxy does: by a person where there
// is a page to send them to.
func (r *reading) proxyFlow(a *account, v map[string]entry) {
	flow := v["oauth2_flow"]
	switch {
	case flow.value == "device":
		a.flow = mailgrant.FlowDevice
		r.need(flow.line, "device-flow", "set device_flow: true in the registration, or take flow: code", "the device code has to be allowed, as others than the owner can be led to enter one")
	case v["permission_url"].value != "" && flow.value != "client_credentials" && flow.value != "password" && flow.value != "service_account":
		a.flow = mailgrant.FlowCode
	case flow.value == "password":
		a.flow = mailgrant.FlowCode
		r.danger(flow.line, "password-replay", "its owner consents once instead, and works with MFA too", "%s signs in by sending the owner's own password on (the password flow)", shown(a.user))
	case flow.value == "service_account":
		a.flow = mailgrant.FlowApp
		r.danger(flow.line, "all-mailboxes", "limit what the service account may stand for, in Google's admin console", "the service account can open every mailbox of the domain")
	case flow.value == "client_credentials" || flow.value == "":
		a.flow = mailgrant.FlowApp
		if flow.value == "client_credentials" && v["permission_url"].value != "" {
			r.understood(v["permission_url"].line, "flow", "permission_url: not used, as the app itself signs in")
		}
	default:
		a.flow = mailgrant.FlowCode
		r.strange(flow.line, "unknown-value", "the oauth2_flow of %s is none that is known; a person's consent is taken for it", shown(a.user))
	}
	many := microsoft(a.place.template) && manyTenants[strings.ToLower(a.tenant)]
	line := v["token_url"].line
	switch {
	case many && a.flow == mailgrant.FlowApp:
		r.danger(line, "any-tenant", "enter the Directory (tenant) ID of your own at tenant:", "the app itself signs in to the tenant %q: it must be one directory, and Microsoft refuses this", a.tenant)
		a.tenant = ""
	case many && v["client_secret"].value != "" && !personal.MatchString(a.user):
		r.danger(line, "any-tenant", "enter the Directory (tenant) ID of your own at tenant:", "a client with a secret lets accounts of any organization sign in (%q)", a.tenant)
		a.tenant = ""
	}
}

func flowWords(f mailgrant.Flow) string {
	switch f {
	case mailgrant.FlowApp:
		return "the app itself"
	case mailgrant.FlowDevice:
		return "a device code"
	}
	return "consent of a person"
}

// scopesMost is more than any provider has for mail.
const scopesMost = 50

// proxyScopes finds what is asked for.
func (r *reading) proxyScopes(a *account, e entry) {
	resources := map[string]bool{}
	words := strings.Fields(e.value)
	if len(words) > scopesMost {
		r.strange(e.line, "too-many", "%s asks for %d scopes; %d of them were looked at", shown(a.user), len(words), scopesMost)
		words = words[:scopesMost]
	}
	all, named := false, false
	for _, w := range words {
		s, known := lookScope(w)
		if !known {
			if a.place.template == "generic" {
				a.extra = append(a.extra, shown(w))
				continue
			}
			r.strange(e.line, "unknown-scope", "the scope %s is not known at %s: a slip of the pen?", shown(w), a.place.name)
			continue
		}
		if strings.HasSuffix(strings.ToLower(w), ".default") || s.can == "" && s.resource == "" && strings.HasPrefix(w, "mail-") || strings.HasPrefix(w, "https://mail.google.com") {
			all = true
		}
		if microsoft(a.place.template) && s.resource != "" {
			resources[s.resource] = true
		}
		if s.can != "" {
			named = true
			if !slices.Contains(a.can, s.can) {
				a.can = append(a.can, s.can)
			}
		}
	}
	if len(resources) > 1 {
		r.danger(e.line, "mixed-resources", "mailgrant asks once, and fetches a token for each: nothing is to be done here",
			"scopes of Graph and of Exchange are asked for together: one token is good for one of them only, and Microsoft refuses the rest")
	}
	if all && named && microsoft(a.place.template) {
		r.danger(e.line, "mixed-scopes", "mailgrant asks for the ones or the other: nothing is to be done here", ".default is asked for together with named scopes, which Microsoft refuses")
	}
	if a.flow == mailgrant.FlowApp && named && microsoft(a.place.template) {
		r.danger(e.line, "mixed-scopes", "mailgrant asks for .default; the permissions are those of the app at the provider", "the app itself cannot ask for named scopes, only for .default")
	}
	if microsoft(a.place.template) && a.flow != mailgrant.FlowApp && len(words) > 0 && !slices.Contains(words, "offline_access") {
		r.danger(e.line, "no-refresh", "mailgrant asks for offline_access by itself", "without offline_access the consent ends with the first token, after an hour")
	}
	if e.value == "" {
		r.strange(a.line, "incomplete", "%s has no oauth2_scope", shown(a.user))
	}
	if !all || named {
		return
	}
	a.can = nil // as far as the doors go: see proxyReading
}

// proxySecret notes where the client's secret is.
func (r *reading) proxySecret(a *account, v map[string]entry) {
	id := v["client_id"]
	switch {
	case strings.Contains(id.value, "***"):
		r.strange(id.line, "example", "client_id of %s is still the one of the example", shown(a.user))
	case id.value != "":
		a.clientID = shown(id.value)
	}
	e := v["client_secret"]
	switch {
	case e.value == "" && v["client_secret_encrypted"].value != "":
		a.secret.unknown = true
		r.need(v["client_secret_encrypted"].line, "secret", "make a new one at the provider: mailgrant registration credential add", "the client secret of %s is sealed, and cannot be taken over", shown(a.user))
		return
	case e.value == "" && v["jwt_certificate_path"].value != "":
		a.secret = secret{line: v["jwt_certificate_path"].line, kind: mailgrant.CredentialCertificate, value: v["jwt_certificate_path"].value}
		return
	case e.value == "":
		return
	case strings.Contains(e.value, "***"):
		a.secret.unknown = true
		r.strange(e.line, "example", "client_secret of %s is still the one of the example", shown(a.user))
		return
	}
	a.secret = secret{line: e.line, value: e.value}
	if v["oauth2_flow"].value == "service_account" {
		a.secret.kind, a.clientID = mailgrant.CredentialServiceAccount, ""
		r.need(e.line, "service-account", "enter the client_id of the JSON key, and add it: mailgrant registration credential add", "the key of the service account is not taken over")
		return
	}
}

// proxyReading turns doors into what mailgrant does: it reads the mailbox itself.
func (r *reading) proxyReading(a *account, doors proxyDoors) {
	found := map[string]*proxyServer{}
	for _, protocol := range []string{"smtp", "imap", "pop"} {
		d := doors[protocol+" "+a.place.template]
		if d == nil && microsoft(a.place.template) {
			d = doors[protocol+" microsoft365"]
		}
		if d != nil {
			found[protocol] = d
			if a.place.template == "generic" {
				a.overrides[protocol+"_host"] = shown(d.host)
				if n, err := strconv.Atoi(d.port); err == nil && n > 0 && n < 65536 {
					a.overrides[protocol+"_port"] = strconv.Itoa(n)
				}
			}
		}
	}
	cans := []struct {
		protocol string
		can      mailgrant.Capability
	}{{"smtp", mailgrant.CanSMTP}, {"imap", mailgrant.CanIMAP}, {"pop", mailgrant.CanPOP}}
	if len(a.can) == 0 {
		for _, c := range cans {
			if found[c.protocol] != nil {
				a.can = append(a.can, c.can)
			}
		}
	}
	for _, c := range cans {
		d := found[c.protocol]
		if d == nil || !slices.Contains(a.can, c.can) {
			continue
		}
		if c.protocol == "smtp" {
			r.need(d.line, "clients", "mailgrant app add NAME, mailgrant app key issue NAME; then port 465 or 587 of mailgrant, user the app or the address, password the key",
				"programs that send through the proxy at %s have to be pointed to mailgrant", shown(d.local))
			continue
		}
		if a.protocol == "" {
			a.protocol = c.protocol
		}
		r.need(d.line, "clients", "let the app take arriving mail by a webhook or GET /v1/arrivals",
			"programs that read by %s through the proxy at %s cannot read so from mailgrant, which reads the mailbox itself", strings.ToUpper(c.protocol), shown(d.local))
	}
}
