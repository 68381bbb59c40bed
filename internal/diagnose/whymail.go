package diagnose

import "strings"

// whyTemporary answers a 4xx: a limit or a fault, never a credential.
func (e *evidence) whyTemporary() verdict {
	x := e.facts
	switch {
	case e.says("toomany", "throttl", "ratelimit", "ratelimited", "tryingtooo", "exceeded"):
		return likely("throttled-mailbox")
	case e.says("concurren", "simultaneous"):
		return likely("concurrent-connections")
	case e.says("greylist", "graylist"):
		return likely("recipient-domain-unreachable")
	case e.reply() == 432:
		return likely("concurrent-connections")
	case x.bounce() || strings.Contains(x.step(), "rcpt"):
		return perhaps("recipient-domain-unreachable")
	}
	return likely("provider-outage")
}

// why421: the server ends the talk: idle, too busy, or too many of us.
func (e *evidence) why421() verdict {
	x := e.facts
	switch {
	case e.says("toomanyconn", "toomanyconcurrent", "toomanysession", "concurrent", "simultaneous"):
		return likely("concurrent-connections")
	case e.says("timeout", "idle", "timedout", "inactiv"):
		return likely("connection-closed-idle")
	case e.says("rate", "toomany", "throttl"):
		return likely("throttled-mailbox")
	case x.bounce():
		return perhaps("recipient-domain-unreachable")
	}
	return perhaps("provider-outage")
}

func (e *evidence) why452() verdict {
	switch {
	case e.says("toomanyrecipients"):
		return likely("daily-recipient-limit")
	case e.says("quota", "full", "storage", "space"):
		return likely("mailbox-full")
	}
	return perhaps("provider-outage")
}

func (e *evidence) why552() verdict {
	if e.says("size", "large", "toobig", "maxmessage", "exceedslimit") {
		return likely("message-too-large")
	}
	if e.says("virus", "illegalattachment", "blocked", "content", "spam") {
		return likely("message-invalid")
	}
	return perhaps("mailbox-full")
}

func (e *evidence) why553() verdict {
	x := e.facts
	switch {
	case e.says("sender", "from", "relay", "notallowed", "owned"):
		if e.facts.bounce() {
			return perhaps("recipient-rejected")
		}
		return perhaps("send-as-denied")
	case strings.Contains(x.step(), "mail"):
		return perhaps("message-invalid")
	}
	return perhaps("recipient-rejected")
}

// whyPolicy answers 550, 554 and 5.7.1, which carry anything at all.
func (e *evidence) whyPolicy() verdict {
	x := e.facts
	switch {
	case e.says("virus", "spam", "content", "attachment", "junk"):
		return perhaps("message-invalid")
	case e.says("blacklist", "blocklist", "blocked", "reputation", "rbl", "dnsbl"):
		return perhaps("ip-reputation-blocked")
	case e.says("spf", "dkim", "dmarc"):
		return perhaps("sender-domain-unauthenticated")
	case e.says("quota", "mailboxfull", "overquota"):
		return perhaps("mailbox-full")
	case e.says("relay"):
		return e.whyRelay()
	case e.says("unknownuser", "userunknown", "nosuchuser", "recipient", "mailboxunavailable", "mailbox"):
		return perhaps("recipient-rejected")
	case e.says("sender"):
		return perhaps("message-invalid")
	case e.says("authenticat", "login"):
		return e.whyAuth()
	case x.bounce(), strings.Contains(x.step(), "rcpt"):
		return perhaps("recipient-rejected")
	case strings.Contains(x.step(), "data"):
		return perhaps("message-invalid")
	}
	if e.is("smtp") {
		return hardly("recipient-rejected")
	}
	return verdict{}
}

// whyRelay: relaying is refused to those who have not logged in, and to those
// who sent to the wrong server.
func (e *evidence) whyRelay() verdict {
	x := e.facts
	switch {
	case x.bounce():
		return likely("recipient-rejected")
	case x.no("client_sent_auth", "auth_sent", "auth_attempted", "auth") || x.str("auth_mech") == "none":
		return sure("smtp-auth-not-attempted")
	case e.says("notauthenticated", "authenticationrequired", "authenticatefirst", "pleaseauthenticate"):
		return sure("smtp-auth-not-attempted")
	case strings.Contains(x.step(), "rcpt") && x.str("auth_mech") != "":
		return perhaps("recipient-rejected")
	}
	return likely("smtp-auth-not-attempted")
}

// whyMechanism: the server does not know the mechanism, or not yet before TLS.
func (e *evidence) whyMechanism() verdict {
	x := e.facts
	switch {
	case x.str("tls") == "none":
		return likely("tls-failure")
	case strings.Contains(x.str("auth_mech"), "oauth"):
		return likely("endpoint-misconfigured")
	case x.service("microsoft") && x.password():
		return likely("basic-auth-retired")
	case x.service("microsoft") && !x.oauth():
		return perhaps("basic-auth-retired")
	}
	return perhaps("endpoint-misconfigured")
}

// whyClosed: a connection ended. Long after it began that is the custom of the
// server; at the very beginning nothing answers there.
func (e *evidence) whyClosed() verdict {
	x := e.facts
	step := x.step()
	port := x.str("port")
	n, aged := x.num("session_age_minutes", "idle_minutes", "connection_age_minutes", "session_minutes")
	switch {
	case x.str("tls") == "none" && (port == "993" || port == "995" || port == "465"),
		x.str("tls") == "implicit" && (port == "587" || port == "143" || port == "110" || port == "25"):
		return likely("tls-failure")
	case strings.Contains(step, "tls"):
		return likely("tls-failure")
	case aged && n >= 1, strings.Contains(step, "idle"):
		return likely("connection-closed-idle")
	case step == "connect", strings.Contains(step, "greeting"), e.says("greeting", "connecting", "toconnect", "connecttcp", "connectfailed"):
		return likely("network-unreachable")
	case e.is("imap", "pop"):
		return perhaps("connection-closed-idle")
	case strings.Contains(step, "data"), strings.Contains(step, "send"):
		return perhaps("connection-closed-idle")
	}
	return perhaps("network-unreachable")
}

// whyTimeout: nothing came in time.
func (e *evidence) whyTimeout() verdict {
	x := e.facts
	if n, ok := x.num("session_age_minutes", "idle_minutes"); ok && n >= 1 || strings.Contains(x.step(), "idle") {
		return likely("connection-closed-idle")
	}
	if x.bounce() {
		return likely("recipient-domain-unreachable")
	}
	return likely("network-unreachable")
}

// whyFull: a quota is used up: of a mailbox, or of the sending.
func (e *evidence) whyFull() verdict {
	if e.says("system") && (e.reply() == 452 || strings.Contains(strings.Join(e.enhanced, " "), ".3.1")) {
		return likely("provider-outage") // the server's disk, not a mailbox
	}
	return likely("mailbox-full")
}

// whyQuota: the word alone; sending quotas and mailbox quotas share it.
func (e *evidence) whyQuota() verdict {
	switch {
	case e.says("daily", "sending", "perday", "24hour", "recipient", "submission"):
		return likely("daily-recipient-limit")
	case e.says("request", "permin", "persecond", "peruser", "queries", "calls"):
		return e.whyThrottled()
	}
	return perhaps("mailbox-full")
}
