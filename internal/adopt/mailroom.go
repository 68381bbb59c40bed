package adopt

import (
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/mailgrant/mailgrant"
)

// mail_room reads mailboxes by IMAP or Graph and hands each message to an
// application. Its file is YAML, with keys that Ruby writes :email or email, and may
// hold pieces of Ruby, <%= … %>, which it runs. Here only the one that takes a value
// from the environment is understood, and none is run.

var (
	rubyPiece = regexp.MustCompile(`(?s)<%(.*?)%>`)
	rubyEnv   = regexp.MustCompile(`^=\s*ENV(?:\.fetch\(|\[)\s*["']([A-Za-z_][A-Za-z0-9_]{0,100})["']\s*[,)\]]`)
	rubyMark  = regexp.MustCompile(`RUBY-\d+-`)
	quoted    = regexp.MustCompile(`'[^']*'|"[^"]*"|` + "`[^`]*`")
	atLine    = regexp.MustCompile(`line \d+`)
)

// A room is the walk through such a file.
type room struct {
	*reading
	env  map[string]string // what stands for a piece of Ruby, to the variable it names; "" for other Ruby
	left int               // of the nodes to look at
}

// Bounds of the walk: aliases make a small file into a large one.
const (
	roomNodes = 100_000
	roomDepth = 40
)

func (r *reading) mailRoom(lines []string) error {
	w := &room{reading: r, left: roomNodes}
	text := w.withoutRuby(lines)
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		return notYAML(err)
	}
	if len(doc.Content) == 0 {
		return mailgrant.Errorf(mailgrant.Invalid, nil, "the file holds no settings").Fix("look whether it is the right one")
	}
	pairs, err := w.pairs(doc.Content[0], 0)
	if err != nil {
		return err
	}
	for _, p := range pairs {
		switch p.key {
		case "mailboxes":
			if err := w.mailboxes(p.value); err != nil {
				return err
			}
		case "health_check":
			r.understood(p.line, "left-out", "health_check: GET /healthz of mailgrant takes its place")
		default:
			r.unknown(p.line, p.key, "the file")
		}
	}
	if len(r.accounts) == 0 {
		r.need(0, "account", "look whether it is the whole file", "the file names no mailbox")
	}
	return nil
}

// notYAML keeps to the place: a parser may cite what stands there.
func notYAML(err error) error {
	why := "the file is not YAML"
	if m := atLine.FindString(err.Error()); m != "" {
		why += ": " + m
	}
	return mailgrant.Errorf(mailgrant.Invalid, errors.New(quoted.ReplaceAllString(err.Error(), "…")), "%s", why).
		Fix("mend it, or name what it is: --from %s", strings.ReplaceAll(formatList(), ", ", "|"))
}

// withoutRuby puts a word that is good YAML where a piece of Ruby was, and keeps the
// lines where they are.
func (w *room) withoutRuby(lines []string) string {
	text := strings.Join(lines, "\n")
	w.env = map[string]string{}
	var b strings.Builder
	at, line, n := 0, 1, 0
	for _, m := range rubyPiece.FindAllStringSubmatchIndex(text, -1) {
		line += strings.Count(text[at:m[0]], "\n")
		b.WriteString(text[at:m[0]])
		piece := text[m[2]:m[3]]
		at = m[1]
		name := ""
		if e := rubyEnv.FindStringSubmatch(piece); e != nil {
			name = e[1]
		} else if !strings.HasPrefix(piece, "#") {
			w.danger(line, "code-in-file", "it was not run; enter what it gives", "the file holds a piece of Ruby that mail_room runs")
		}
		if strings.HasPrefix(piece, "=") {
			n++
			key := "RUBY-" + strconv.Itoa(n) + "-"
			w.env[key] = name
			b.WriteString(key)
		}
		b.WriteString(strings.Repeat("\n", strings.Count(text[m[0]:m[1]], "\n")))
		line += strings.Count(text[m[0]:m[1]], "\n")
	}
	b.WriteString(text[at:])
	return b.String()
}

// A pair is one key of a mapping, without the colon of Ruby.
type pair struct {
	key   string
	line  int
	value *yaml.Node
}

// look follows aliases, and counts.
func (w *room) look(n *yaml.Node, depth int) (*yaml.Node, error) {
	for range roomDepth {
		if w.left--; w.left < 0 || depth > roomDepth {
			return nil, mailgrant.Errorf(mailgrant.Invalid, nil, "the file is too long or too deep, or repeats itself too often by its anchors").
				Fix("write out what *names stand for")
		}
		if n.Kind != yaml.AliasNode || n.Alias == nil {
			return n, nil
		}
		n = n.Alias
	}
	return nil, mailgrant.Errorf(mailgrant.Invalid, nil, "an anchor of the file in line %d leads to itself", n.Line).Fix("write out what *names stand for")
}

// pairs are those of a mapping, with what it merges by << where it does not say
// otherwise.
func (w *room) pairs(n *yaml.Node, depth int) ([]pair, error) {
	n, err := w.look(n, depth)
	if err != nil {
		return nil, err
	}
	if n.Kind != yaml.MappingNode {
		if n.Kind != yaml.ScalarNode || n.Tag != "!!null" {
			w.strange(n.Line, "unknown-value", "line %d should hold names and values", n.Line)
		}
		return nil, nil
	}
	if n.Tag != "" && n.Tag != "!!map" {
		w.danger(n.Line, "code-in-file", "it was not made; write plain names and values", "the file asks Ruby to make an object")
	}
	var own, merged []pair
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if w.left--; w.left < 0 {
			return nil, w.tooMuch()
		}
		if k.Tag != "!!merge" {
			own = append(own, pair{strings.TrimPrefix(k.Value, ":"), k.Line, v})
			continue
		}
		more, err := w.mergedPairs(v, depth+1)
		if err != nil {
			return nil, err
		}
		merged = append(merged, more...)
	}
	seen := map[string]bool{}
	out := own[:0:0]
	for _, p := range append(own, merged...) {
		if seen[p.key] {
			continue
		}
		seen[p.key] = true
		out = append(out, p)
	}
	return out, nil
}

func (w *room) tooMuch() error {
	_, err := w.look(&yaml.Node{}, roomDepth+1)
	return err
}

func (w *room) mergedPairs(n *yaml.Node, depth int) (out []pair, err error) {
	if n, err = w.look(n, depth); err != nil {
		return nil, err
	}
	if n.Kind != yaml.SequenceNode {
		return w.pairs(n, depth)
	}
	for _, c := range n.Content {
		more, err := w.pairs(c, depth+1)
		if err != nil {
			return nil, err
		}
		out = append(out, more...)
	}
	return out, nil
}

// A scalar is a value as text.
type scalar struct {
	text string
	line int
	env  string // where Ruby takes it from the environment
	ruby bool   // other Ruby makes it
}

func (w *room) scalar(n *yaml.Node) scalar {
	line := n.Line
	n, err := w.look(n, 0)
	if err != nil || n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		return scalar{line: line}
	}
	s := scalar{text: strings.TrimPrefix(n.Value, ":"), line: line}
	if key := rubyMark.FindString(s.text); key != "" {
		if name, ok := w.env[key]; ok && name != "" && s.text == key {
			return scalar{line: line, env: name}
		} else if ok {
			return scalar{line: line, ruby: true}
		}
	}
	return s
}

func (w *room) mailboxes(n *yaml.Node) error {
	n, err := w.look(n, 0)
	if err != nil {
		return err
	}
	if n.Kind != yaml.SequenceNode {
		w.strange(n.Line, "unknown-value", "mailboxes is no list")
		return nil
	}
	for _, c := range n.Content {
		pairs, err := w.pairs(c, 1)
		if err != nil {
			return err
		}
		if err := w.mailbox(c.Line, pairs); err != nil {
			return err
		}
	}
	return nil
}

// mailbox reads one mailbox.
func (w *room) mailbox(line int, pairs []pair) error {
	v := map[string]scalar{}
	for _, p := range pairs {
		v[p.key] = w.scalar(p.value)
	}
	a := &account{line: line, user: v["email"].text, protocol: "imap", flow: mailgrant.FlowCode, after: mailgrant.AfterMark, can: []mailgrant.Capability{mailgrant.CanIMAP}}
	if a.host = v["host"].text; a.host == "" {
		a.host = "imap.gmail.com" // what mail_room takes
	}
	a.port, _ = strconv.Atoi(v["port"].text)
	graph := v["inbox_method"].text == "microsoft_graph"
	if graph {
		a.protocol, a.flow, a.host, a.can = "graph", mailgrant.FlowApp, "graph.microsoft.com", []mailgrant.Capability{mailgrant.CanAPIRead}
	}
	a.locate()
	a.tls = true
	encryption := encryptionOf{ssl: true}
	for _, p := range pairs {
		if err := w.key(a, p, v[p.key], &encryption); err != nil {
			return err
		}
	}
	if s := v["email"]; s.env != "" || s.ruby {
		w.need(s.line, "address", "add it by hand: mailgrant mailbox add ADDRESS", "the address comes from outside the file")
		return nil
	}
	if !graph {
		if !encryption.ssl && !encryption.startTLS {
			w.cleartext(encryption.line, a.host)
		}
		w.replay(line, a.user)
	}
	w.accounts = append(w.accounts, a)
	w.understood(line, "account", "%s: %s at %s", shown(a.user), map[bool]string{true: "Graph, the app itself", false: "IMAP"}[graph], shown(a.host))
	return nil
}

type encryptionOf struct {
	ssl, startTLS bool
	line          int
}

func (w *room) key(a *account, p pair, s scalar, encryption *encryptionOf) error {
	switch p.key {
	case "email", "host", "port", "inbox_method":
		if p.key == "inbox_method" && s.text != "imap" && s.text != "microsoft_graph" {
			w.strange(p.line, "unknown-value", "the inbox_method is none that is known; IMAP is taken for it")
		}
	case "password":
		if s.text != "" && a.protocol == "imap" {
			w.password(p.line, a.user)
		}
	case "name":
		a.folders = []string{s.text}
	case "ssl":
		return w.ssl(a, p, s, encryption)
	case "start_tls":
		encryption.startTLS = truth(s.text)
	case "delete_after_delivery":
		if truth(s.text) {
			a.deletes = true
			w.danger(p.line, "deletes", "the settings leave it; see what still needs a person", "read mail is deleted at the server: what was lost on the way does not come back")
		}
	case "search_command":
		w.understood(p.line, "left-out", "search_command: mailgrant remembers how far it has read, and does not go by flags")
	case "inbox_options":
		return w.inboxOptions(a, p.value)
	case "delivery_method":
		w.delivery(a, s)
	case "delivery_options":
		return w.deliveryOptions(p.value)
	case "arbitration_method":
		if s.text != "" && s.text != "noop" {
			w.danger(p.line, "read-twice", "nodes of mailgrant agree on one reader by themselves", "several processes read %s, and agree by %s on who takes a message, which does not always hold", shown(a.user), methodWord(s.text))
		}
	case "arbitration_options":
		return w.arbitration(p.value)
	case "delivery_url", "delivery_token", "location", "log_path", "content_type":
		w.option(p, s)
	case "expunge_deleted", "idle_timeout", "limit_max_unread", "delivery_klass", "logger":
		w.understood(p.line, "left-out", "%s: not needed here", p.key)
	default:
		w.unknown(p.line, p.key, "a mailbox")
	}
	return nil
}

// ssl may be a switch, or settings of OpenSSL.
func (w *room) ssl(a *account, p pair, s scalar, encryption *encryptionOf) error {
	encryption.line = p.line
	n, err := w.look(p.value, 0)
	if err != nil || n.Kind == yaml.ScalarNode {
		encryption.ssl = !slices.Contains([]string{"false", "no", "off", "n"}, strings.ToLower(s.text))
		return err
	}
	options, err := w.pairs(n, 0)
	for _, o := range options {
		switch v := w.scalar(o.value); o.key {
		case "verify_mode":
			if v.text != "peer" && v.text != "fail_if_no_peer_cert" {
				w.unchecked(o.line, "the certificate of %s is not checked: verify_mode", shown(a.host))
			}
		case "ca_file", "ca_path", "cert_store":
			w.understood(o.line, "left-out", "%s: mailgrant goes by the roots of the system; ca_file of the registration names others", o.key)
		case "ssl_version", "min_version", "max_version", "ciphers":
			w.understood(o.line, "left-out", "%s: mailgrant speaks TLS 1.2 and later", o.key)
		default:
			w.unknown(o.line, o.key, "ssl")
		}
	}
	return err
}

// inboxOptions are those of Graph: a client at Microsoft, and its secret.
func (w *room) inboxOptions(a *account, n *yaml.Node) error {
	options, err := w.pairs(n, 0)
	for _, o := range options {
		s := w.scalar(o.value)
		switch o.key {
		case "tenant_id":
			switch {
			case manyTenants[strings.ToLower(s.text)]:
				w.danger(o.line, "any-tenant", "enter the Directory (tenant) ID of your own at tenant:", "the app itself signs in to the tenant %q: it must be one directory, and Microsoft refuses this", s.text)
			case s.text != "":
				a.tenant = shown(s.text)
			default:
				w.need(o.line, "registration", "enter it in the file", "the tenant comes from outside the file")
			}
		case "client_id":
			a.clientID = shown(s.text)
			if s.text == "" {
				w.need(o.line, "registration", "enter it in the file", "the client_id comes from outside the file")
			}
		case "client_secret":
			a.secret = secret{line: o.line, value: s.text, env: s.env}
			if s.text != "" {
				w.danger(o.line, "client-secret-in-file", "mailgrant seals it; make a new one, and delete the line", "the client secret of %s stands in the file in the clear", shown(a.user))
			}
		case "poll_interval":
			if n, err := strconv.Atoi(s.text); err == nil && n > 0 && n < 1<<20 {
				a.poll = mailgrant.Duration(n) * 1_000_000_000
			}
		case "azure_ad_endpoint", "graph_endpoint":
			host := strings.TrimPrefix(strings.TrimPrefix(s.text, "https://"), "http://")
			host, _, _ = strings.Cut(host, "/")
			if p, ok := placeOf(host); ok && microsoft(p.template) {
				a.place = p
				continue
			}
			w.strange(o.line, "unknown-value", "%s is no cloud of Microsoft that is known", o.key)
		default:
			w.unknown(o.line, o.key, "inbox_options")
		}
	}
	if a.protocol == "graph" {
		w.danger(a.line, "all-mailboxes", "limit the app in Exchange: New-ManagementScope with Application Mail.ReadWrite",
			"the app itself may read every mailbox of the tenant, unless Exchange limits it")
	}
	return err
}

var roomMethods = []string{"postback", "sidekiq", "que", "logger", "letter_opener", "noop", "redis"}

func methodWord(m string) string {
	if slices.Contains(roomMethods, m) {
		return m
	}
	return "a way that is not known"
}

func (w *room) delivery(a *account, s scalar) {
	switch s.text {
	case "noop", "logger", "letter_opener":
		w.understood(s.line, "left-out", "delivery_method: %s is for developers", s.text)
	case "postback", "":
		w.need(s.line, "destination", "add a webhook to the same address; its body is JSON and signed, GET /v1/arrivals/ID/raw has the message", "mail was posted to the app")
	default:
		w.need(s.line, "destination", "let the app take arrivals by a webhook or GET /v1/arrivals, and queue them itself", "mail was put into a queue by %s", methodWord(s.text))
	}
}

func (w *room) deliveryOptions(n *yaml.Node) error {
	options, err := w.pairs(n, 0)
	for _, o := range options {
		w.option(o, w.scalar(o.value))
	}
	return err
}

// option is one of how mail reaches the application.
func (w *room) option(o pair, s scalar) {
	switch o.key {
	case "delivery_url":
		w.understood(o.line, "destination", "delivery_url: %s", site(s.text))
		if strings.HasPrefix(s.text, "http://") {
			if host, _, _ := strings.Cut(strings.TrimPrefix(site(s.text), "http://"), "/"); !loopback(host) && !strings.HasPrefix(host, "localhost:") && !strings.HasPrefix(host, "127.0.0.1:") {
				w.danger(o.line, "cleartext", "give the webhook an https address", "mail is posted to the app without encryption")
			}
		}
	case "delivery_token", "password", "jwt_secret":
		if s.text != "" {
			w.danger(o.line, "secret-in-file", "webhooks are signed instead; delete the line when the app has moved", "%s stands in the file in the clear", o.key)
		}
	case "redis_url":
		w.redis(o, s)
	case "username", "content_type", "jwt_auth_header", "jwt_issuer", "jwt_algorithm", "jwt_secret_path", "log_path", "location", "namespace", "queue", "worker", "sentinels", "sentinel_username",
		"host", "port", "database", "job_class", "priority", "redis_db", "logger":
		w.understood(o.line, "left-out", "%s: belongs to how the mail reached the app", o.key)
	case "sentinel_password":
		w.danger(o.line, "secret-in-file", "mailgrant needs no Redis; delete the line when the app has moved", "%s stands in the file in the clear", o.key)
	default:
		w.unknown(o.line, o.key, "delivery_options")
	}
}

func (w *room) redis(o pair, s scalar) {
	w.understood(o.line, "left-out", "redis_url: mailgrant needs no Redis")
	if strings.Contains(s.text, "@") {
		w.danger(o.line, "secret-in-file", "mailgrant needs no Redis; delete the line when the app has moved", "redis_url holds a password in the clear")
	}
}

func (w *room) arbitration(n *yaml.Node) error {
	options, err := w.pairs(n, 0)
	for _, o := range options {
		switch o.key {
		case "redis_url":
			w.redis(o, w.scalar(o.value))
		case "namespace", "sentinels", "sentinel_username", "sentinel_password", "redis_db":
			w.understood(o.line, "left-out", "%s: mailgrant needs no Redis", o.key)
		default:
			w.unknown(o.line, o.key, "arbitration_options")
		}
	}
	return err
}
