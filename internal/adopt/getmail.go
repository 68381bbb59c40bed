package adopt

import (
	"slices"
	"strconv"
	"strings"

	"github.com/mailgrant/mailgrant"
)

// getmail reads one mailbox a file. From version 4 on it is described in
// [retriever], what becomes of its mail in [destination] and sections it names, and
// the rest in [options] and [filter-…]. Up to version 3 there is a section for each
// account, and [default] for all of them; they are read by POP, and never by TLS.

func (r *reading) getmail(lines []string) error {
	old := !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(strings.TrimSpace(l), "[retriever]") })
	f, err := r.ini(lines, dialect{semicolon: true, hash: old})
	if err != nil {
		return err
	}
	defer r.strangers(f, nil)
	if old {
		r.getmailOld(f)
		return nil
	}
	options := &section{at: map[string]int{}}
	var retriever *section
	for _, raw := range f.sections {
		s := f.all(raw)
		switch {
		case s.name == "retriever":
			retriever = s
		case s.name == "options":
			options = s
		case s.name == "destination" || s.value("type") != "" && !strings.HasPrefix(s.name, "filter"):
			r.getmailDestination(s)
		case strings.HasPrefix(s.name, "filter"):
			r.getmailFilter(s)
		default:
			r.strange(s.line, "unknown-section", "the section of line %d is not known", s.line)
		}
	}
	if retriever == nil {
		r.strange(0, "incomplete", "the section [retriever] is indented, and so a part of what is above it")
		return nil
	}
	a := r.getmailRetriever(retriever)
	r.getmailOptions(a, options, retriever)
	r.accounts = append(r.accounts, a)
	r.understood(a.line, "account", "%s: %s at %s", shown(a.user), strings.ToUpper(a.protocol), shown(a.host))
	return nil
}

// getmailRetriever reads who is read, where and how.
func (r *reading) getmailRetriever(s *section) *account {
	a := &account{line: s.line, flow: mailgrant.FlowCode, user: s.value("username"), host: s.value("server"), after: mailgrant.AfterLeave}
	kind := s.value("type")
	a.protocol, a.tls = "imap", strings.Contains(kind, "SSL")
	a.can = []mailgrant.Capability{mailgrant.CanIMAP}
	if strings.Contains(kind, "POP3") || strings.Contains(kind, "SDPS") {
		a.protocol, a.can = "pop", []mailgrant.Capability{mailgrant.CanPOP}
	}
	a.port, _ = strconv.Atoi(s.value("port"))
	a.locate()
	xoauth := truth(s.value("use_xoauth2"))
	for _, e := range r.each(s) {
		r.getmailKey(a, e, xoauth)
	}
	switch {
	case kind == "":
		r.strange(s.line, "incomplete", "[retriever] has no type; IMAP is taken for it")
	case !a.tls:
		r.cleartext(s.line, a.host)
	case s.value("ca_certs") == "" && s.value("ssl_fingerprints") == "":
		r.unchecked(s.line, "the certificate of %s is not checked: ca_certs is not set", shown(a.host))
	}
	if a.host == "" {
		r.strange(s.line, "incomplete", "[retriever] names no server")
	}
	if !xoauth {
		r.replay(s.line, a.user)
	}
	return a
}

func (r *reading) getmailKey(a *account, e entry, xoauth bool) {
	switch e.key {
	case "server", "username", "port", "use_xoauth2":
	case "type":
		switch {
		case strings.HasPrefix(e.value, "Multidrop"):
			r.need(e.line, "multidrop", "let the app sort arrivals by Delivered-To or To", "a mailbox for a whole domain is sorted by recipient; mailgrant hands on what arrives, unsorted")
		case strings.HasPrefix(e.value, "BrokenUIDL"):
			r.need(e.line, "uidl", "read it by IMAP, or see that its server names messages", "the server was thought to give messages no names; mailgrant needs them to read nothing twice")
		case !strings.HasPrefix(e.value, "Simple"):
			r.strange(e.line, "unknown-value", "the type of [retriever] is none that is known")
		}
	case "password":
		r.password(e.line, a.user)
	case "password_command":
		if xoauth {
			r.danger(e.line, "token-in-file", "its owner consents anew; client_id, tenant and client secret stand in that file, and may be entered", "a program keeps the tokens of %s in a file of its own, unsealed", shown(a.user))
			return
		}
		r.runs(e.line, e.key)
	case "mailboxes":
		if strings.EqualFold(strings.TrimSpace(e.value), "ALL") {
			r.need(e.line, "folders", "name them: folders below receive", "all folders were read; mailgrant reads the inbox, until others are named")
			return
		}
		list, ok := tuple(e.value)
		if !ok {
			r.strange(e.line, "unknown-value", "mailboxes is no list in brackets")
		}
		a.folders = list
	case "move_on_delete":
		a.moveTo = shown(e.value)
	case "use_peek":
		if a.protocol == "imap" && !truth(e.value) {
			a.after = mailgrant.AfterMark
		}
	case "imap_on_delete": // see getmailDelete
	case "imap_search":
		r.understood(e.line, "left-out", "imap_search: mailgrant remembers how far it has read, and does not go by flags")
	case "ssl_version":
		if v := strings.ToLower(e.value); v == "sslv3" || v == "tlsv1" || v == "tlsv1_1" {
			r.danger(e.line, "old-tls", "mailgrant speaks TLS 1.2 and later; nothing is to be done here", "the connection uses %s, which can be broken", shown(e.value))
		}
	case "ssl_ciphers":
		if strings.Contains(strings.ToUpper(e.value), "SECLEVEL=") {
			r.danger(e.line, "old-tls", "mailgrant does not take weak keys; the server may have to be mended", "weak keys of the server are let pass")
		}
	case "ssl_cert_hostname":
		r.danger(e.line, "certificate-not-checked", "use the name that the certificate bears as the server's", "the certificate is for another name than the server's")
	case "ca_certs":
		r.understood(e.line, "left-out", "ca_certs: mailgrant goes by the roots of the system; ca_file of the registration names others")
	case "keyfile", "certfile", "ssl_fingerprints":
		r.need(e.line, "client-certificate", "sign in by consent instead", "%s: mailgrant opens mailboxes by tokens, not by a client's certificate or a fixed fingerprint", e.key)
	case "use_apop", "use_kerberos", "use_netrc", "netrc_file":
		r.understood(e.line, "left-out", "%s: another way of giving a password, which consent replaces", e.key)
	case "timeout", "delete_dup_msgids", "record_mailbox", "fingerprint", "id", "pop3_use_top":
		r.understood(e.line, "left-out", "%s: not needed here", e.key)
	case "envelope_recipient":
		r.understood(e.line, "left-out", "envelope_recipient: the fields of an arrival are the app's to look at")
	default:
		r.unknownEntry(e, "retriever")
	}
}

func (r *reading) getmailOptions(a *account, s, retriever *section) {
	for _, e := range r.each(s) {
		switch e.key {
		case "delete":
			if truth(e.value) {
				r.getmailDelete(a, e.line, retriever.value("imap_on_delete"))
			}
		case "delete_after":
			if n, err := strconv.Atoi(e.value); err != nil || n > 0 {
				r.need(e.line, "delete", "have a rule at the provider do it", "read mail was deleted after days; mailgrant deletes at once or not at all")
			}
		case "delete_bigger_than":
			if n, err := strconv.Atoi(e.value); err != nil || n > 0 {
				r.danger(e.line, "deletes", "the settings leave it where it is", "large mail is deleted at the server even where other mail is kept")
			}
		case "read_all":
			if !truth(s.value("delete")) && truth(e.value) {
				r.understood(e.line, "left-out", "read_all: mailgrant reads each message once")
			}
		case "verbose", "delivered_to", "received", "message_log", "message_log_syslog", "message_log_verbose", "fingerprint", "logfile", "skip_imap_fetch_size", "use_netrc", "netrc_file", "to_oldmail_on_each_mail", "only_oldmail_file":
			r.understood(e.line, "left-out", "%s: not needed here", e.key)
		case "max_message_size", "max_messages_per_session", "max_bytes_per_session":
			r.understood(e.line, "left-out", "%s: mailgrant paces itself, and what is too large is kept without its body", e.key)
		default:
			r.unknownEntry(e, "options")
		}
	}
	if a.moveTo != "" && a.after != mailgrant.AfterMove {
		r.understood(a.line, "left-out", "move_on_delete: without delete nothing was moved")
		a.moveTo = ""
	}
}

// getmailDelete finds what deleting means: it may only move or mark.
func (r *reading) getmailDelete(a *account, line int, flags string) {
	flags = strings.ToLower(flags)
	switch {
	case a.moveTo != "" && a.protocol == "imap":
		a.after = mailgrant.AfterMove
		r.understood(line, "after", "read mail is moved to %s", a.moveTo)
	case a.protocol == "imap" && strings.Contains(flags, "seen") && !strings.Contains(flags, "deleted"):
		a.after = mailgrant.AfterMark
		r.understood(line, "after", "read mail is marked as read")
	default:
		a.deletes = true
		r.danger(line, "deletes", "the settings leave it; see what still needs a person", "read mail is deleted at the server: what was lost on the way does not come back")
	}
}

// getmailDestination reads what becomes of the mail.
func (r *reading) getmailDestination(s *section) {
	kind := s.value("type")
	for _, e := range r.each(s) {
		switch e.key {
		case "type", "path", "locals", "default", "destinations":
		case "arguments", "unixfrom", "user", "group", "filemode", "lock_method", "ignore_stderr", "ignore_stdout", "host", "port", "override", "fallback", "envelope_recipient",
			"qmaillocal", "homedir", "localdomain", "defaultdelivery", "conf-break", "localpart_translate", "strip_delivered_to", "maildir", "timeout":
			r.understood(e.line, "left-out", "%s: belongs to where the mail was put", e.key)
		case "allow_root_commands":
			r.danger(e.line, "runs-a-program", "it was not run", "programs may be started by root")
		default:
			r.unknownEntry(e, "the section of line "+strconv.Itoa(s.line))
		}
	}
	if strings.HasPrefix(kind, "MDA_") {
		r.runs(s.line, kindWord(kind))
	}
	r.need(s.line, "destination", "let the app take it by a webhook or GET /v1/arrivals, or by mailgrant arrival save", "mail went to %s; mailgrant hands it to apps instead", kindWord(kind))
}

var getmailKinds = []string{"Maildir", "Mboxrd", "MDA_external", "MDA_lmtp", "MDA_qmaillocal", "MultiDestination", "MultiSorter", "MultiGuesser", "Filter_classifier", "Filter_external", "Filter_TMDA"}

func kindWord(kind string) string {
	if slices.Contains(getmailKinds, kind) {
		return kind
	}
	return "a destination that is not known"
}

func (r *reading) getmailFilter(s *section) {
	r.runs(s.line, "a filter")
	for _, e := range r.each(s) {
		switch e.key {
		case "type", "path", "arguments", "exitcodes_keep", "exitcodes_drop", "unixfrom", "user", "group", "ignore_header_shrinkage", "ignore_stderr", "allow_root_commands", "conf-break", "ignore_stdout":
		default:
			r.unknownEntry(e, "the section of line "+strconv.Itoa(s.line))
		}
	}
}

// getmailOld reads a file of getmail 2 or 3.
func (r *reading) getmailOld(f *ini) {
	shared := &section{at: map[string]int{}}
	for _, s := range f.sections {
		if s.name == "default" {
			shared = s
			r.getmailOldKeys(nil, s)
		}
	}
	for _, s := range f.sections {
		if s.name == "default" {
			continue
		}
		a := &account{line: s.line, flow: mailgrant.FlowCode, protocol: "pop", can: []mailgrant.Capability{mailgrant.CanPOP}, after: mailgrant.AfterLeave}
		a.user, a.host = bare(s.value("username")), bare(s.value("server"))
		a.port, _ = strconv.Atoi(bare(s.value("port")))
		a.locate()
		r.getmailOldKeys(a, s)
		if a.host == "" {
			r.strange(s.line, "unknown-section", "the section of line %d is no account: it names no server", s.line)
			continue
		}
		r.cleartext(s.line, a.host)
		r.replay(s.line, a.user)
		if e, own := s.get("delete"); own && truth(e.value) {
			r.getmailDelete(a, e.line, "")
		} else if e, ok := shared.get("delete"); ok && !own && truth(e.value) {
			r.getmailDelete(a, e.line, "")
		}
		r.need(s.line, "destination", "let the app take it by a webhook or GET /v1/arrivals", "mail went to files and programs of this machine; mailgrant hands it to apps instead")
		r.accounts = append(r.accounts, a)
		r.understood(s.line, "account", "%s: POP at %s, in the form of getmail 3 and earlier", shown(a.user), shown(a.host))
	}
}

func (r *reading) getmailOldKeys(a *account, s *section) {
	for _, e := range r.each(s) {
		switch e.key {
		case "server", "username", "port", "delete":
		case "password":
			whose := "all accounts"
			if a != nil {
				whose = a.user
			}
			r.password(e.line, whose)
		case "postmaster", "local", "recipients":
			if strings.Contains(e.value, "|") {
				r.runs(e.line, e.key)
				continue
			}
			r.understood(e.line, "left-out", "%s: belongs to where the mail was put", e.key)
		case "delete_after":
			r.need(e.line, "delete", "have a rule at the provider do it", "read mail was deleted after days; mailgrant deletes at once or not at all")
		case "readall", "verbose", "message_log", "use_apop", "timeout", "eliminate_duplicates", "envelope_recipient", "envelope_sender", "no_delivered_to", "no_received", "max_message_size",
			"max_messages_per_session", "max_bytes_per_session", "message_log_verbose", "authtype", "recipient_header", "use_*env", "extension_sep", "extension_depth", "rewrite_from":
			r.understood(e.line, "left-out", "%s: not needed here", e.key)
		default:
			where := "default"
			if a != nil {
				where = "an account"
			}
			r.unknownEntry(e, where)
		}
	}
}

// bare takes quotes off.
func bare(s string) string {
	if len(s) > 1 && (s[0] == '"' || s[0] == '\'') && s[len(s)-1] == s[0] {
		return s[1 : len(s)-1]
	}
	return s
}

// tuple reads a list as Python writes it: ("INBOX", 'Cases'). It is read, not
// evaluated.
func tuple(s string) (list []string, ok bool) {
	s = strings.TrimSpace(s)
	if len(s) < 2 || s[0] != '(' || s[len(s)-1] != ')' {
		return nil, false
	}
	s = s[1 : len(s)-1]
	for {
		s = strings.TrimLeft(s, " \t\n,")
		if s == "" {
			return list, true
		}
		s = strings.TrimLeft(s, "ru")
		if s == "" || s[0] != '"' && s[0] != '\'' {
			return list, false
		}
		var b strings.Builder
		i := 1
		for i < len(s) && s[i] != s[0] {
			if s[i] == '\\' && i+1 < len(s) {
				i++
			}
			b.WriteByte(s[i])
			i++
		}
		if i == len(s) {
			return list, false
		}
		list, s = append(list, b.String()), s[i+1:]
	}
}
