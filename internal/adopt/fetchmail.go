package adopt

import (
	"slices"
	"strconv"
	"strings"

	"github.com/mailgrant/mailgrant"
)

// fetchmail reads mailboxes and hands mail to a mail server or a program of the
// machine. Its file is a text of words in almost any order: "set" for itself,
// "defaults" for all, then "poll" or "skip" for a server with its options, and
// "user" for each mailbox there.

// What a keyword is followed by.
type follow int

const (
	nothing follow = iota
	oneWord
	number
	wordList
)

// setWords follow "set".
var setWords = map[string]follow{
	"logfile": oneWord, "idfile": oneWord, "pidfile": oneWord, "daemon": number, "postmaster": oneWord, "properties": oneWord,
	"bouncemail": nothing, "spambounce": nothing, "softbounce": nothing, "syslog": nothing, "invisible": nothing, "showdots": nothing,
}

// serverWords belong to a server.
var serverWords = map[string]follow{
	"aka": wordList, "via": oneWord, "local": wordList, "localdomains": wordList, "proto": oneWord, "protocol": oneWord, "service": oneWord, "port": number,
	"interval": number, "auth": oneWord, "authenticate": oneWord, "preauth": oneWord, "preauthenticate": oneWord, "timeout": number, "idletimeout": number,
	"envelope": oneWord, "qvirtual": oneWord, "principal": oneWord, "esmtpname": oneWord, "esmtppassword": oneWord, "interface": oneWord, "monitor": oneWord,
	"plugin": oneWord, "plugout": oneWord, "dns": nothing, "uidl": nothing, "checkalias": nothing, "tracepolls": nothing, "bad-header": oneWord, "retrieve-error": oneWord,
}

// userWords belong to a mailbox.
var userWords = map[string]follow{
	"is": wordList, "to": wordList, "pass": oneWord, "password": oneWord, "passwordfile": oneWord, "passwordfd": number, "folder": wordList, "folders": wordList, "moveto": oneWord,
	"smtp": wordList, "smtphost": wordList, "fetchdomains": wordList, "smtpaddress": oneWord, "smtpname": oneWord, "antispam": wordList, "mda": oneWord, "bsmtp": oneWord, "lmtp": nothing,
	"pre": oneWord, "preconnect": oneWord, "post": oneWord, "postconnect": oneWord, "keep": nothing, "flush": nothing, "limitflush": nothing, "fetchall": nothing, "rewrite": nothing,
	"forcecr": nothing, "stripcr": nothing, "pass8": nothing, "pass8bits": nothing, "dropstatus": nothing, "dropdelivered": nothing, "mimedec": nothing, "mimedecode": nothing,
	"idle": nothing, "forceidle": nothing, "ssl": nothing, "sslkey": oneWord, "sslcert": oneWord, "sslproto": oneWord, "sslcertck": nothing, "sslcertfile": oneWord, "sslcertpath": oneWord,
	"sslcommonname": oneWord, "sslfingerprint": oneWord, "limit": number, "warnings": number, "fetchlimit": number, "fetchsizelimit": number, "fastuidl": number, "batchlimit": number,
	"expunge": number, "properties": oneWord, "here": nothing, "there": nothing,
}

// long are the words whose short forms mean the same.
var long = map[string]string{
	"proto": "protocol", "local": "localdomains", "authenticate": "auth", "preauth": "auth", "preauthenticate": "auth", "pass": "password", "folders": "folder", "smtp": "smtphost",
	"pre": "preconnect", "post": "postconnect", "pass8": "pass8bits", "mimedec": "mimedecode", "username": "user", "server": "poll",
}

func isKeyword(w word) bool {
	if w.quoted || w.name {
		return false
	}
	t := w.text
	if base, no := strings.CutPrefix(t, "no"); no && base != "" {
		if f, ok := option(base); ok && f == nothing {
			return true
		}
	}
	_, ok := option(t)
	return ok || slices.Contains([]string{"set", "defaults", "poll", "server", "skip", "user", "username", "no", "="}, t)
}

func option(t string) (follow, bool) {
	if f, ok := serverWords[t]; ok {
		return f, true
	}
	f, ok := userWords[t]
	return f, ok
}

// A fetchOption is one option as the file gives it.
type fetchOption struct {
	key    string
	no     bool
	line   int
	values []string
}

type fetchOptions map[string]fetchOption

// A fetchServer is one poll, skip or defaults.
type fetchServer struct {
	name    string
	line    int
	skip    bool
	all     bool // defaults
	options fetchOptions
	users   []*fetchUser
}

type fetchUser struct {
	line    int
	remote  string
	named   bool // by "user", and not only by options
	options fetchOptions
}

// A fetchParse goes through the words.
type fetchParse struct {
	*reading
	words   []word
	at      int
	servers []*fetchServer
	now     *fetchServer
	user    *fetchUser
	daemon  int
	lost    int // the last line with a word that was not understood
}

func (r *reading) fetchmail(lines []string) {
	list, open := words(lines)
	p := &fetchParse{reading: r, words: list}
	if open > 0 {
		r.strange(open, "open-quote", "a quote of line %d is not closed: nothing after it was read", open)
	}
	for p.at < len(p.words) {
		p.next()
	}
	defaults := &fetchServer{options: fetchOptions{}}
	polled := false
	for _, s := range p.servers {
		if s.all {
			defaults = s
			continue
		}
		polled = true
		r.fetchServer(s, defaults, p.daemon)
	}
	if !polled {
		r.need(0, "account", "look whether it is the whole file", "the file names no server")
	}
}

// next reads one statement or option.
func (p *fetchParse) next() {
	w := p.words[p.at]
	p.at++
	if w.quoted || w.name {
		p.stray(w)
		return
	}
	switch w.text {
	case "set":
		p.set()
	case "poll", "server", "skip":
		p.begin(&fetchServer{line: w.line, skip: w.text == "skip", name: p.value()})
	case "defaults":
		p.begin(&fetchServer{line: w.line, all: true})
	case "user", "username":
		p.names(w)
	case "no":
		if p.at < len(p.words) && !p.words[p.at].quoted {
			next := p.words[p.at]
			p.at++
			p.option(next, true)
			return
		}
		p.stray(w)
	default:
		if f, ok := option(strings.TrimPrefix(w.text, "no")); ok && f == nothing && strings.HasPrefix(w.text, "no") {
			w.text = strings.TrimPrefix(w.text, "no")
			p.option(w, true)
			return
		}
		p.option(w, false)
	}
}

// stray notes a word that is no keyword where one should stand. It is not shown: a
// password that was not quoted falls apart into such words.
func (p *fetchParse) stray(w word) {
	if p.lost != w.line {
		p.strange(w.line, "unknown-word", "line %d has a word that is no keyword of fetchmail; a value with spaces or signs needs quotes", w.line)
	}
	p.lost = w.line
}

func (p *fetchParse) begin(s *fetchServer) {
	s.options = fetchOptions{}
	p.servers = append(p.servers, s)
	p.now, p.user = s, nil
	if !s.all && s.name == "" {
		p.strange(s.line, "incomplete", "line %d names no server", s.line)
	}
}

// value is the next word, if it is one; "=" before it says nothing.
func (p *fetchParse) value() string {
	if p.at < len(p.words) && p.words[p.at].ends {
		p.at++
	}
	if p.at < len(p.words) && !p.words[p.at].ends {
		p.at++
		return p.words[p.at-1].text
	}
	return ""
}

// list are words up to the next keyword. A local name may be mapped: theirs=ours.
func (p *fetchParse) list() (out []string) {
	for p.at < len(p.words) {
		w := p.words[p.at]
		switch {
		case w.ends && len(out) > 0:
			p.at++
			if p.at < len(p.words) && !p.words[p.at].ends {
				p.at++
			}
		case isKeyword(w):
			return out
		default:
			out = append(out, w.text)
			p.at++
		}
	}
	return out
}

func (p *fetchParse) set() {
	no := false
	if p.at < len(p.words) && p.words[p.at].text == "no" && !p.words[p.at].quoted {
		p.at++
		no = true
	}
	if p.at == len(p.words) {
		return
	}
	w := p.words[p.at]
	p.at++
	key := w.text
	if base, ok := strings.CutPrefix(key, "no"); ok && !no {
		if f, known := setWords[base]; known && f == nothing {
			key = base
		}
	}
	f, ok := setWords[key]
	if w.quoted || !ok {
		p.stray(w)
		return
	}
	value := ""
	if f != nothing {
		value = p.value()
	}
	switch key {
	case "daemon":
		p.daemon, _ = strconv.Atoi(value)
		p.understood(w.line, "poll", "set daemon: asked every %d seconds, where the provider does not tell of new mail", p.daemon)
	case "postmaster":
		p.understood(w.line, "left-out", "set postmaster: what cannot be read is kept as unparsed, and nobody is written to")
	case "bouncemail", "spambounce", "softbounce":
		p.understood(w.line, "left-out", "set %s: mailgrant answers no mail that it reads", key)
	default:
		p.understood(w.line, "left-out", "set %s: not needed here", key)
	}
}

// names reads "user" and whom it names: at the server, unless "here" follows.
func (p *fetchParse) names(w word) {
	if p.now == nil {
		p.strange(w.line, "no-server", "a user is named before any server")
		p.list()
		return
	}
	u := &fetchUser{line: w.line, named: true, options: fetchOptions{}}
	p.now.users = append(p.now.users, u)
	p.user = u
	list := p.list()
	here := p.at < len(p.words) && p.words[p.at].text == "here"
	if here || p.at < len(p.words) && p.words[p.at].text == "there" {
		p.at++
	}
	if !here && len(list) > 0 {
		u.remote = list[0]
	}
}

func (p *fetchParse) option(w word, no bool) {
	key := w.text
	if full := long[key]; full != "" {
		key = full
	}
	ofServer, isServer := serverWords[w.text]
	f, ok := userWords[w.text]
	if isServer {
		f, ok = ofServer, true
	}
	if !ok {
		p.stray(w)
		return
	}
	o := fetchOption{key: key, no: no, line: w.line}
	switch {
	case no && (f == nothing || key == "envelope"):
	case f == wordList:
		o.values = p.list()
	case f != nothing:
		o.values = []string{p.value()}
		if key == "envelope" { // a number may come first
			if _, err := strconv.Atoi(o.values[0]); err == nil {
				o.values = []string{p.value()}
			}
		}
	}
	switch {
	case p.now == nil:
		p.strange(w.line, "no-server", "%s stands before any server", key)
	case key == "here" || key == "there":
		p.side(key)
	case isServer:
		if p.user != nil {
			p.strange(w.line, "order", "%s of the server stands after a user; fetchmail itself refuses this", key)
		}
		p.now.options[key] = o
	default:
		if p.user == nil {
			p.user = &fetchUser{line: w.line, options: fetchOptions{}}
			p.now.users = append(p.now.users, p.user)
		}
		p.user.options[key] = o
	}
}

// side reads "there" after "is NAME": that is the name at the server.
func (p *fetchParse) side(key string) {
	if key != "there" || p.user == nil {
		return
	}
	if o := p.user.options["is"]; len(o.values) == 1 && p.user.remote == "" {
		p.user.remote = o.values[0]
		delete(p.user.options, "is")
	}
}

// with are the options of one with what it does not set from others.
func (o fetchOptions) with(others fetchOptions) fetchOptions {
	all := fetchOptions{}
	for k, v := range others {
		all[k] = v
	}
	for k, v := range o {
		all[k] = v
	}
	return all
}

func (o fetchOptions) value(key string) string {
	if v := o[key]; len(v.values) > 0 {
		return v.values[0]
	}
	return ""
}

func (o fetchOptions) on(key string) bool {
	v, ok := o[key]
	return ok && !v.no
}

// fetchServer makes accounts of the users of a server.
func (r *reading) fetchServer(s, defaults *fetchServer, daemon int) {
	shared := fetchOptions{}
	if len(defaults.users) > 0 {
		shared = defaults.users[len(defaults.users)-1].options
	}
	o := s.options.with(defaults.options)
	r.serverNotes(s, o)
	users := s.users
	if len(users) == 0 {
		users = []*fetchUser{{line: s.line, options: fetchOptions{}}}
	}
	for _, u := range users {
		r.fetchUser(s, o, u, u.options.with(shared), daemon)
	}
}

// serverNotes tells what the options of a server mean.
func (r *reading) serverNotes(s *fetchServer, o fetchOptions) {
	for _, key := range sortedOptions(o) {
		v := o[key]
		switch key {
		case "protocol", "port", "service", "via", "interval":
		case "auth":
			switch v.values[0] {
			case "oauthbearer", "xoauth2":
				r.understood(v.line, "sign-in", "auth: signed in by token already")
			case "ssh", "implicit":
				r.need(v.line, "sign-in", "read the mailbox at its provider", "the mailbox is reached by a program that signs in by itself")
			default:
				r.understood(v.line, "left-out", "auth: another way of giving a password, which consent replaces")
			}
		case "plugin", "plugout":
			r.runs(v.line, key)
		case "esmtppassword":
			r.password(v.line, "a mail server")
		case "envelope", "qvirtual", "localdomains", "aka", "checkalias", "dns":
			r.understood(v.line, "left-out", "%s: belongs to sorting by recipient, which is the app's", key)
		case "bad-header", "retrieve-error":
			r.understood(v.line, "left-out", "%s: what cannot be read is kept as it is, and stops nothing", key)
		default:
			r.understood(v.line, "left-out", "%s: not needed here", key)
		}
	}
	if s.skip {
		r.understood(s.line, "skip", "skip: the mailboxes are not read; receive is left out")
	}
}

func sortedOptions(o fetchOptions) []string {
	keys := make([]string, 0, len(o))
	for k := range o {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// fetchUser makes the account of one user.
func (r *reading) fetchUser(s *fetchServer, server fetchOptions, u *fetchUser, o fetchOptions, daemon int) {
	a := &account{line: u.line, user: u.remote, flow: mailgrant.FlowCode, after: mailgrant.AfterLeave, folders: o["folder"].values}
	if a.host = server.value("via"); a.host == "" {
		a.host = s.name
	}
	protocol := strings.ToLower(server.value("protocol"))
	switch protocol {
	case "imap", "":
		a.protocol, a.can = "imap", []mailgrant.Capability{mailgrant.CanIMAP}
		if protocol == "" {
			r.understood(s.line, "protocol", "no protocol is named; IMAP is taken for it")
		}
	case "auto":
		a.protocol, a.can = "imap", []mailgrant.Capability{mailgrant.CanIMAP}
		r.understood(s.line, "protocol", "the protocol was chosen at each try; IMAP is taken for it")
	case "pop3", "pop2", "apop", "rpop", "kpop", "sdps":
		a.protocol, a.can = "pop", []mailgrant.Capability{mailgrant.CanPOP}
	default:
		r.need(s.line, "protocol", "read a mailbox instead of having a queue run", "ETRN and ODMR fetch the mail of a domain, not of a mailbox: not taken over")
		return
	}
	port := server.value("port")
	if port == "" {
		port = server.value("service")
	}
	a.port, _ = strconv.Atoi(port)
	a.tls = o.on("ssl")
	if daemon > 0 && daemon < 1<<20 {
		every := 1
		if n, err := strconv.Atoi(server.value("interval")); err == nil && n > 0 && n < 1000 {
			every = n
		}
		a.poll = mailgrant.Duration(daemon) * mailgrant.Duration(every) * 1_000_000_000
	}
	a.locate()
	r.fetchSafety(a, s, server, o)
	for _, key := range sortedOptions(o) {
		r.fetchOption(a, o[key])
	}
	r.fetchAfter(a, o)
	a.flow = mailgrant.FlowCode
	r.understood(u.line, "account", "%s: %s at %s", cmpOr(a.user, "a user without a name"), strings.ToUpper(a.protocol), shown(a.host))
	if s.skip {
		a.protocol = ""
	}
	r.accounts = append(r.accounts, a)
}

// fetchSafety notes how the way to the server is kept. Until version 6.4 fetchmail
// went on in the clear where a server did not offer STARTTLS, and did not look at
// certificates, unless it was told to.
func (r *reading) fetchSafety(a *account, s *fetchServer, server, o fetchOptions) {
	proto, given := o["sslproto"]
	version := ""
	if given && len(proto.values) > 0 {
		version = strings.ToLower(proto.values[0])
	}
	switch {
	case given && version == "" && !a.tls && !o.on("sslcertck"):
		r.cleartext(proto.line, a.host)
	case !a.tls && !given && !o.on("sslcertck"):
		r.danger(a.line, "cleartext", "mailgrant speaks TLS only; nothing is to be done here",
			"ssl is not set for %s: before version 6.4 fetchmail goes on in the clear when somebody takes STARTTLS out of the way", shown(a.host))
	}
	switch version {
	case "ssl2", "ssl3", "ssl23", "tls1", "tls1.0", "tls1.1":
		if version != "ssl23" {
			r.danger(proto.line, "old-tls", "mailgrant speaks TLS 1.2 and later; nothing is to be done here", "the connection uses %s, which can be broken", shown(version))
		}
	}
	check, told := o["sslcertck"]
	switch {
	case told && check.no:
		r.unchecked(check.line, "the certificate of %s is not checked: no sslcertck", shown(a.host))
	case !told && (a.tls || given):
		r.unchecked(a.line, "sslcertck is not set: before version 6.4 fetchmail does not check the certificate of %s", shown(a.host))
	}
	if v := server.value("auth"); v != "oauthbearer" && v != "xoauth2" {
		r.replay(a.line, cmpOr(a.user, s.name))
	}
}

func (r *reading) fetchOption(a *account, o fetchOption) {
	switch o.key {
	case "password":
		r.password(o.line, cmpOr(a.user, a.host))
	case "passwordfile":
		r.danger(o.line, "password-in-file", "it is not taken over; delete the file once the mailbox is read by consent", "the password or token of %s stands in a file of its own", cmpOr(a.user, a.host))
	case "mda", "preconnect", "postconnect":
		r.runs(o.line, o.key)
		if o.key == "mda" {
			r.need(o.line, "destination", "let the app take it by a webhook or GET /v1/arrivals", "mail went to a program of this machine; mailgrant hands it to apps instead")
		}
	case "smtphost", "bsmtp", "lmtp", "smtpname", "smtpaddress", "fetchdomains":
		r.need(o.line, "destination", "let the app take it by a webhook or GET /v1/arrivals", "%s: mail went on to a mail server; mailgrant hands it to apps instead", o.key)
	case "is", "to":
		if len(o.values) > 1 || slices.Contains(o.values, "*") {
			r.need(o.line, "multidrop", "let the app sort arrivals by Delivered-To or To", "mail was sorted to several local users; mailgrant hands on what arrives, unsorted")
			return
		}
		r.understood(o.line, "left-out", "%s: belongs to where the mail was put", o.key)
	case "flush":
		if !o.no {
			r.danger(o.line, "deletes", "nothing is to be done here: only what was read is ever deleted", "flush deletes mail that was read before, by whomever")
		}
	case "keep", "folder", "moveto", "ssl", "sslcertck", "sslproto":
	case "fetchall":
		r.understood(o.line, "left-out", "fetchall: mailgrant remembers how far it has read, and does not go by flags")
	case "idle", "forceidle":
		r.understood(o.line, "left-out", "%s: mailgrant has the provider tell of new mail wherever it can", o.key)
	case "sslcertfile", "sslcertpath":
		r.understood(o.line, "left-out", "%s: mailgrant goes by the roots of the system; ca_file of the registration names others", o.key)
	case "sslkey", "sslcert", "sslfingerprint":
		r.need(o.line, "client-certificate", "sign in by consent instead", "%s: mailgrant opens mailboxes by tokens, not by a client's certificate or a fixed fingerprint", o.key)
	case "sslcommonname":
		r.danger(o.line, "certificate-not-checked", "use the name that the certificate bears as the server's", "the certificate is for another name than the server's")
	case "limit", "limitflush", "fetchlimit", "fetchsizelimit", "batchlimit", "warnings":
		r.understood(o.line, "left-out", "%s: mailgrant paces itself, and what is too large is kept without its body", o.key)
	default:
		r.understood(o.line, "left-out", "%s: not needed here", o.key)
	}
}

// fetchAfter finds what becomes of read mail: it is deleted, unless "keep" is set.
func (r *reading) fetchAfter(a *account, o fetchOptions) {
	switch {
	case a.protocol == "imap" && o.value("moveto") != "":
		a.after, a.moveTo = mailgrant.AfterMove, shown(o.value("moveto"))
	case o.on("keep"):
		if a.protocol == "imap" {
			a.after = mailgrant.AfterMark // as fetching by IMAP does
		}
	default:
		a.deletes = true
		line := a.line
		if v, ok := o["keep"]; ok {
			line = v.line
		}
		r.danger(line, "deletes", "the settings leave it; see what still needs a person", "keep is not set: read mail is deleted at the server, and what was lost on the way does not come back")
	}
}
