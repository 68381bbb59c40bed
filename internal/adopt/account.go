package adopt

import (
	"fmt"
	"net/mail"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/mailgrant/mailgrant"
)

// An account is one mailbox as a file describes it.
type account struct {
	line int    // where it begins
	user string // who signs in, as the file writes it
	host string // of the mail server
	port int
	tls  bool // from the first byte, and not by STARTTLS

	protocol string // how it is read: imap, pop, graph; "" when it is not
	after    mailgrant.AfterRead
	moveTo   string
	folders  []string
	poll     mailgrant.Duration
	deletes  bool // the program takes read mail away

	place     place
	overrides map[string]string
	extra     []string // scopes that no capability asks for
	tenant    string
	clientID  string
	flow      mailgrant.Flow
	can       []mailgrant.Capability
	secret    secret

	address string
	kind    mailgrant.MailboxKind
	told    string // who signs in for a shared mailbox
}

// A secret is the client secret of an account. Its value is only compared.
type secret struct {
	line  int
	value string
	env   string // the file takes it from there already
	kind  mailgrant.CredentialKind

	unknown bool // there is one, but not here
}

func (s secret) is() bool { return s.value != "" || s.env != "" }

// password notes that a password stands in the file.
func (r *reading) password(line int, whose string) {
	r.danger(line, "password-in-file", "it is not taken over; change it once the mailbox is read by consent, and delete the line",
		"the password of %s stands in the file in the clear", cmpOr(whose, "a mailbox"))
}

// replay notes that a mailbox is opened by its password.
func (r *reading) replay(line int, whose string) {
	r.danger(line, "password-replay", "its owner consents once instead; the password stays with its owner",
		"%s is opened by its password, sent again at each sign-in: whoever reads it once can use it everywhere", cmpOr(whose, "a mailbox"))
}

// cleartext notes that a connection is not encrypted.
func (r *reading) cleartext(line int, host string) {
	r.danger(line, "cleartext", "mailgrant speaks TLS only; nothing is to be done here",
		"the connection to %s is not encrypted: password and mail can be read on the way", shown(host))
}

// unchecked notes that anybody may play the server.
func (r *reading) unchecked(line int, format string, args ...any) {
	r.danger(line, "certificate-not-checked", "mailgrant always checks it; name an authority of your own with ca_file in the registration", format, args...)
}

// runs notes a program that is started with the mail or for it.
func (r *reading) runs(line int, key string) {
	r.danger(line, "runs-a-program", "it was not run, and mailgrant runs none: let the app do with arriving mail what it did", "%s starts a program", key)
}

// address finds the mailbox of an account from who signs in. Exchange lets a person
// open a shared mailbox as person/shared.
func (a *account) find(r *reading) bool {
	user := strings.TrimSpace(a.user)
	if i := strings.LastIndexAny(user, `/\`); i > 0 && strings.Contains(user[:i], "@") && strings.Contains(user[i:], "@") && isAddress(user[i+1:]) {
		a.kind, a.told, user = mailgrant.MailboxShared, user[:i], user[i+1:]
	}
	if !strings.Contains(user, "@") && a.place.template == "google" && localPart.MatchString(user) {
		user += "@gmail.com"
	}
	if !isAddress(user) {
		r.need(a.line, "address", "add it by hand: mailgrant mailbox add ADDRESS", "%s: which mailbox is it? It is not in the settings", whoWords(a.user))
		return false
	}
	a.address = user
	return true
}

func whoWords(user string) string {
	if user == "" {
		return "the user is not named"
	}
	return "the user " + strconv.Quote(shown(user)) + " is no address"
}

var localPart = regexp.MustCompile(`^[A-Za-z0-9._+-]{1,64}$`)

func isAddress(s string) bool {
	if len(s) > 254 || strings.ContainsAny(s, " \t\n<>(),;:\"\\[]*") {
		return false
	}
	a, err := mail.ParseAddress(s)
	if err != nil || a.Address != s {
		return false
	}
	_, domain, _ := strings.Cut(s, "@")
	return strings.Contains(domain, ".") && !strings.Contains(domain, "..")
}

// locate finds the provider of an account from its mail server.
func (a *account) locate() {
	p, ok := placeOf(a.host)
	if ok {
		if a.place = p; p.template == "microsoft365" && personal.MatchString(a.user) {
			a.place = places[0]
		}
		return
	}
	a.place = place{template: "generic", name: a.host}
	if a.place.name == "" {
		a.place.name = "mail provider"
	}
	if a.overrides == nil {
		a.overrides = map[string]string{}
	}
	if a.host != "" && (a.protocol == "imap" || a.protocol == "pop") {
		a.overrides[a.protocol+"_host"] = a.host
		if a.port > 0 && a.port != 143 && a.port != 110 { // those of cleartext are not taken over
			a.overrides[a.protocol+"_port"] = strconv.Itoa(a.port)
		}
	}
}

// settle makes settings of the accounts, and notes what they still need.
func (r *reading) settle() {
	var boxes []*account
	byAddress := map[string]*account{}
	for _, a := range r.accounts {
		if !a.find(r) {
			continue
		}
		key := strings.ToLower(a.address)
		if first := byAddress[key]; first != nil {
			r.merge(first, a)
			continue
		}
		byAddress[key] = a
		boxes = append(boxes, a)
	}
	regs := r.registrations(boxes)
	for _, a := range boxes {
		r.mailbox(a, regs[a.group()])
	}
	if len(boxes) > 0 {
		r.need(0, "stop-the-other", "stop it first, and look that nothing starts it again: cron, systemd, a second machine",
			"two programs that read one mailbox take each other's mail: %s must not run while mailgrant reads", r.Format)
	}
}

// merge puts what a file says of one mailbox in two places together.
func (r *reading) merge(first, a *account) {
	for _, c := range a.can {
		if !slices.Contains(first.can, c) {
			first.can = append(first.can, c)
		}
	}
	if first.protocol == "" || a.protocol == "" { // one of them is not read
		if first.protocol == "" {
			first.protocol, first.folders, first.after, first.moveTo, first.poll, first.deletes = a.protocol, a.folders, a.after, a.moveTo, a.poll, a.deletes
		}
		r.understood(a.line, "account", "%s is in line %d already", shown(a.address), first.line)
		return
	}
	r.danger(a.line, "read-twice", "mailgrant reads it once, with the folders of both; let one app take the mail, or several webhooks",
		"%s is read in line %d already: two readers of one mailbox take each other's mail, or each gets all of it", shown(a.address), first.line)
	if a.protocol != first.protocol {
		r.need(a.line, "protocol", "choose one: protocol below receive", "%s is read by %s and by %s; %s was taken over", shown(a.address), first.protocol, a.protocol, first.protocol)
	}
	if len(first.folders) == 0 && len(a.folders) > 0 {
		first.folders = []string{"INBOX"}
	}
	for _, f := range a.folders {
		if len(first.folders) <= foldersMost && !slices.Contains(first.folders, f) {
			first.folders = append(first.folders, f)
		}
	}
	if len(a.folders) == 0 && len(first.folders) > 0 && !slices.Contains(first.folders, "INBOX") {
		first.folders = append(first.folders, "INBOX")
	}
	first.deletes = first.deletes || a.deletes
}

// group tells accounts apart that need registrations of their own.
func (a *account) group() string {
	o := make([]string, 0, len(a.overrides))
	for k, v := range a.overrides {
		o = append(o, k+"="+v)
	}
	slices.Sort(o)
	return fmt.Sprintf("%q", []any{a.place.template, a.place.cloud, strings.ToLower(a.tenant), strings.ToLower(a.clientID), o})
}

// registrations makes one for each client at a provider.
func (r *reading) registrations(boxes []*account) map[string]string {
	named, names, secrets := map[string]string{}, map[string]int{}, map[string]*account{}
	for _, a := range boxes {
		g := a.group()
		if name := named[g]; name != "" {
			r.secondSecret(secrets[g], a)
			continue
		}
		name := r.nameOf(a)
		if names[name]++; names[name] > 1 {
			name += " " + strconv.Itoa(names[name])
		}
		named[g], secrets[g] = name, a
		reg := Registration{Name: name, Template: a.place.template, Cloud: a.place.cloud, Tenant: a.tenant, ClientID: a.clientID, Overrides: a.overrides, ScopesExtra: a.extra}
		if a.place.template == "microsoft-personal" {
			reg.Tenant = ""
		}
		r.credential(a, &reg)
		r.register(a, &reg)
		r.Settings.Registrations = append(r.Settings.Registrations, reg)
	}
	return named
}

var notName = regexp.MustCompile(`[^A-Za-z0-9]+`)

// nameOf is a name that the registrations of other files and of people do not have:
// apply would take one of the same name for this one, and change it.
func (r *reading) nameOf(a *account) string {
	if id := notName.ReplaceAllString(a.clientID, ""); id != "" {
		return a.place.name + " " + id[:min(8, len(id))]
	}
	return a.place.name + " from " + string(r.Format)
}

func (r *reading) secondSecret(first, a *account) {
	if a.secret.value == "" || a.secret.value == first.secret.value {
		return
	}
	r.danger(a.secret.line, "two-secrets", "find out which one is in force, and let the provider forget the other",
		"the client has another secret here than in line %d", first.secret.line)
}

var notEnv = regexp.MustCompile(`[^A-Z0-9]+`)

// credential is how the registration will prove itself.
func (r *reading) credential(a *account, reg *Registration) {
	switch {
	case a.clientID == "" || a.secret.unknown:
		return
	case a.secret.is():
		kind, what := a.secret.kind, "client secret"
		if kind == "" {
			kind = mailgrant.CredentialSecret
		}
		if kind != mailgrant.CredentialSecret {
			what = strings.ReplaceAll(string(kind), "_", " ")
		}
		env := a.secret.env
		if env == "" {
			env = r.envFor(reg.Name)
		}
		reg.Credentials = []Credential{{Kind: kind, Description: "imported", SecretEnv: env}}
		s := Secret{Line: a.secret.line, Env: env, What: "the " + what + " of " + reg.Name}
		r.Secrets = append(r.Secrets, s)
		r.need(s.Line, "secret", "set it before you apply: export "+env+"=…; better still, make a new one at the provider", "apply takes %s from the environment variable %s", s.What, env)
	default:
		reg.Credentials = []Credential{{Kind: mailgrant.CredentialNone, Description: "imported"}}
	}
}

// envFor is an environment variable that no other secret of the file has.
func (r *reading) envFor(name string) string {
	base := "SECRET_" + strings.Trim(notEnv.ReplaceAllString(strings.ToUpper(name), "_"), "_")
	env := base
	for n := 2; !r.first("env " + env); n++ {
		env = base + "_" + strconv.Itoa(n)
	}
	return env
}

// register notes what is to be done at the provider.
func (r *reading) register(a *account, reg *Registration) {
	var missing []string
	if microsoft(reg.Template) && reg.Tenant == "" && reg.Template != "microsoft-personal" {
		missing = append(missing, "tenant")
	}
	if reg.ClientID == "" {
		missing = append(missing, "client_id")
	}
	if reg.Template == "generic" && reg.Overrides["token_endpoint"] == "" {
		missing = append(missing, "issuer")
	}
	if reg.missing = strings.Join(missing, ", "); reg.missing != "" {
		r.need(a.line, "registration", "enter "+reg.missing+" in the file, or name a registration that you have, at grant:, and take this one out",
			"%s has to know mailgrant as a client: it is not registered there yet, or the file does not say how", reg.Name)
	}
	if a.flow != mailgrant.FlowApp {
		r.need(a.line, "redirect-uri", "enter it at the provider as it is shown: mailgrant registration show "+strconv.Quote(reg.Name),
			"%s sends people back to mailgrant only when its redirect URI is registered", reg.Name)
	}
	switch {
	case reg.Template == "google" && r.first("publishing"):
		r.need(a.line, "publishing", "make the app Internal, or have it verified", "while the app is in testing at Google, each consent ends after 7 days")
	case microsoft(reg.Template) && a.flow == mailgrant.FlowApp:
		r.need(a.line, "admin-consent", "send the link: mailgrant grant begin "+a.address+" --app; for IMAP, POP and SMTP then New-ServicePrincipal and Add-MailboxPermission in Exchange",
			"an administrator of the tenant must approve %s for the app itself", reg.Name)
	case reg.Template == "microsoft365":
		r.need(a.line, "admin-consent", "send the link: mailgrant grant link "+a.address+" --admin", "where people may not consent themselves, an administrator of the tenant must approve %s", reg.Name)
	}
	if reg.Template == "microsoft365" && a.protocol != "graph" && r.first("licence") {
		r.need(a.line, "licence", "look at the mailbox in the Microsoft 365 admin centre", "Exchange opens a mailbox by IMAP, POP and SMTP only when it, or who signs in for it, has a licence with Exchange Online")
	}
}

// mailbox makes the mailbox of an account, and notes who must act for it.
func (r *reading) mailbox(a *account, reg string) {
	m := Mailbox{Address: a.address, Kind: a.kind, Grant: Grant{Registration: reg, Flow: a.flow, Capabilities: a.capabilities()}}
	if a.flow == mailgrant.FlowApp && m.Kind == "" {
		m.Kind = mailgrant.MailboxApp
	}
	if a.protocol != "" {
		m.Receive = r.receive(a)
	}
	r.Settings.Mailboxes = append(r.Settings.Mailboxes, m)
	who := "its owner"
	if a.told != "" {
		who = shown(a.told) + ", who has rights on it,"
	}
	if a.flow != mailgrant.FlowApp {
		r.need(a.line, "consent", "send the link: mailgrant grant begin "+a.address, "%s must consent for %s once", who, a.address)
	}
	if a.place.template == "microsoft365" && slices.Contains(a.can, mailgrant.CanSMTP) {
		r.need(a.line, "smtp-auth", "an Exchange administrator: Set-CASMailbox -Identity "+a.address+" -SmtpClientAuthenticationDisabled $false; or send by Graph: capability api_send",
			"SMTP AUTH is off for %s where nobody switched it on", a.address)
	}
}

// capabilities are those of the account in their usual order.
func (a *account) capabilities() (out []mailgrant.Capability) {
	for _, c := range []mailgrant.Capability{mailgrant.CanSMTP, mailgrant.CanIMAP, mailgrant.CanPOP, mailgrant.CanAPISend, mailgrant.CanAPIRead} {
		if slices.Contains(a.can, c) {
			out = append(out, c)
		}
	}
	return out
}

// foldersMost is what mailgrant reads of one mailbox.
const foldersMost = 20

// pollLeast is what mailgrant lets anybody ask a provider.
const pollLeast = mailgrant.Duration(10_000_000_000)

// receive is how the mailbox is read. Deleting is left to a person: what was taken
// away at the first try does not come back.
func (r *reading) receive(a *account) *Receive {
	v := &Receive{Protocol: a.protocol, After: a.after, MoveTo: a.moveTo, Poll: a.poll}
	if v.Poll > 0 && v.Poll < pollLeast {
		v.Poll = pollLeast
	}
	for _, f := range a.folders {
		switch {
		case f == "" || strings.EqualFold(f, "inbox") && len(a.folders) == 1:
		case a.protocol == "pop":
			r.need(a.line, "folders", "read the mailbox by IMAP", "POP shows only the inbox of %s, not other folders", a.address)
		case f == v.MoveTo:
			r.need(a.line, "folders", "name another folder to move to", "%s is both read and moved to; it is not read", shown(f))
		default:
			v.Folders = append(v.Folders, shown(f))
		}
	}
	if len(v.Folders) > foldersMost {
		r.need(a.line, "folders", "let rules at the provider gather the mail", "mailgrant reads %d folders of a mailbox; the first of %s were taken over", foldersMost, a.address)
		v.Folders = v.Folders[:foldersMost]
	}
	if a.deletes {
		v.After, v.MoveTo = mailgrant.AfterLeave, ""
		r.need(a.line, "delete", "once mail arrives as it should: mailgrant mailbox set "+a.address+" --after-reading delete",
			"%s deleted read mail of %s at the server; the settings leave it there, until you have seen that nothing is lost", r.Format, a.address)
	}
	if v.After == "" || a.protocol == "pop" && v.After != mailgrant.AfterDelete {
		v.After = mailgrant.AfterLeave
	}
	r.understood(a.line, "receive", "%s is to be read by %s", a.address, v.words())
	r.need(a.line, "first-reading", "for what lies there: mailgrant mailbox set "+a.address+" --receive-since 1d, or a date, or all; before the owner consents",
		"mailgrant begins %s with what comes from now on", a.address)
	return v
}

// words says for people how a mailbox is read.
func (v *Receive) words() string {
	s := v.Protocol
	if len(v.Folders) > 0 {
		s += ", folders " + strings.Join(v.Folders, ", ")
	}
	switch v.After {
	case mailgrant.AfterMark:
		s += ", then marked as read"
	case mailgrant.AfterMove:
		s += ", then moved to " + v.MoveTo
	default:
		s += ", then left"
	}
	if v.Poll > 0 {
		s += ", asked every " + v.Poll.String()
	}
	return s
}
