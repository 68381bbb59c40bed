package diagnose

import "strings"

// questions are the signs that have more than one meaning. Each is answered from
// the facts; an answer without a cause leaves the word to the next sign.
var questions map[string]func(*evidence) verdict

func init() {
	questions = map[string]func(*evidence) verdict{
		"?auth":              (*evidence).whyAuth,
		"?not-connected":     (*evidence).whyNotConnected,
		"?challenge":         (*evidence).whyChallenge,
		"?graph-denied":      (*evidence).whyGraphDenied,
		"?graph-token":       (*evidence).whyGraphToken,
		"?graph-notfound":    (*evidence).whyNotFound,
		"?send-as":           (*evidence).whySendAs,
		"?invalid-grant":     (*evidence).whyInvalidGrant,
		"?invalid-client":    (*evidence).whyInvalidClient,
		"?unauthorized":      (*evidence).whyUnauthorizedClient,
		"?access-denied":     (*evidence).whyAccessDenied,
		"?invalid-request":   (*evidence).whyInvalidRequest,
		"?refresh":           (*evidence).whyRefresh,
		"?expired":           (*evidence).whyExpired,
		"?spa":               (*evidence).whySPA,
		"?scope":             (*evidence).whyScope,
		"?consent":           (*evidence).whyConsent,
		"?misconfigured-app": (*evidence).whyMisconfigured,
		"?parameter":         (*evidence).whyParameter,
		"?entra":             (*evidence).whyEntra,
		"?entra-credential":  (*evidence).whyCredential,
		"?assertion":         (*evidence).whyAssertion,
		"?secret":            (*evidence).whySecret,
		"?app":               (*evidence).whyApp,
		"?locked":            (*evidence).whyLocked,
		"?password":          (*evidence).whyPassword,
		"?device":            (*evidence).whyDevice,
		"?conditional":       (*evidence).whyConditional,
		"?temporary":         (*evidence).whyTemporary,
		"?421":               (*evidence).why421,
		"?452":               (*evidence).why452,
		"?552":               (*evidence).why552,
		"?553":               (*evidence).why553,
		"?policy":            (*evidence).whyPolicy,
		"?mechanism":         (*evidence).whyMechanism,
		"?closed":            (*evidence).whyClosed,
		"?gmail-notfound":    (*evidence).whyGmailNotFound,
		"?precondition":      (*evidence).whyPrecondition,
		"?object":            (*evidence).whyObject,
		"?timeout":           (*evidence).whyTimeout,
		"?page":              (*evidence).whyPage,
		"?throttled":         (*evidence).whyThrottled,
		"?token-time":        (*evidence).whyTokenTime,
		"?relay":             (*evidence).whyRelay,
		"?full":              (*evidence).whyFull,
		"?quota":             (*evidence).whyQuota,
		"?parse":             (*evidence).whyParse,
	}
}

func sure(cause string) verdict    { return verdict{cause, 0.95} }
func likely(cause string) verdict  { return verdict{cause, 0.75} }
func perhaps(cause string) verdict { return verdict{cause, 0.5} }
func hardly(cause string) verdict  { return verdict{cause, 0.3} }
func anyOf(s string, words ...string) bool {
	for _, w := range words {
		if strings.Contains(s, w) {
			return true
		}
	}
	return false
}

// settle lets facts that are stronger than any text have the last word.
func (e *evidence) settle(v verdict) verdict {
	x := e.facts
	if e.bounced() && farAway[v.cause] {
		return likely("recipient-domain-unreachable")
	}
	if v.cause == "grant-revoked" {
		if t := e.testingMode(); t.cause != "" {
			return t
		}
	}
	if authentication[v.cause] && x.recently() && v.confidence < 0.9 {
		return likely("throttled-mailbox")
	}
	if couldBeDelay[v.cause] && e.justChanged() {
		return likely("propagation-delay")
	}
	if reply := e.reply(); reply >= 400 && reply < 500 && v.confidence <= 0.75 && authentication[v.cause] && !e.says("tokenwillexpire") {
		return e.whyTemporary()
	}
	return v
}

// farAway are the troubles of a connection. In a bounce, the connection was the
// one from our provider to the recipient's.
var farAway = map[string]bool{
	"network-unreachable": true, "dns-failure": true, "connection-closed-idle": true, "tls-failure": true,
	"tls-certificate-untrusted": true,
}

// bounced reports a failure that came back as a message: it tells of the
// recipient's side.
func (e *evidence) bounced() bool {
	return e.facts.bounce() || e.says("finalrecipient", "diagnosticcode", "inreplytorcptto", "inreplytoendofdata",
		"deliverystatusnotification", "mailreturnedtosender", "deliverytothefollowingrecipient", "thefollowingaddresseshad",
		"createdautomaticallybymaildeliverysoftware", "afterrcptto", "reportingmta")
}

// authentication are the causes that blame a credential or a right.
var authentication = map[string]bool{
	"mailbox-permission-missing": true, "wrong-user-signed-in": true, "xoauth2-identity-mismatch": true,
	"service-principal-not-registered": true, "basic-credentials-wrong": true, "basic-auth-retired": true,
	"imap-pop-disabled-mailbox": true, "wrong-token-audience": true, "scope-missing": true,
	"smtp-auth-disabled-mailbox": true, "app-password-required": true, "access-token-expired": true,
}

// couldBeDelay are the causes that look just like a change not yet applied.
var couldBeDelay = map[string]bool{
	"mailbox-permission-missing": true, "service-principal-not-registered": true, "graph-access-denied-policy": true,
	"smtp-auth-disabled-mailbox": true, "smtp-auth-disabled-tenant": true, "google-delegation-missing": true,
	"google-api-not-enabled": true, "scope-missing": true, "send-as-denied": true, "imap-pop-disabled-mailbox": true,
	"admin-consent-required": true, "app-not-in-tenant": true, "mailbox-not-licensed": true, "mailbox-not-found": true,
	"client-secret-wrong": true, "basic-auth-retired": true, "redirect-uri-mismatch": true, "certificate-mismatch": true, "wrong-token-audience": true, "basic-credentials-wrong": true, "google-admin-blocked-app": true, "xoauth2-identity-mismatch": true, "conditional-access-blocked": true,
}

// justChanged reports that the right setting was made a short while ago.
func (e *evidence) justChanged() bool {
	x := e.facts
	for _, name := range x.names {
		k, v := strings.ToLower(name), x.m[name]
		s := strings.ToLower(textOf(v))
		if waitedOut(k, s) || changing(k) && lately(s) {
			return true
		}
		if !anyOf(k, "ago", "since", "age", "after", "recent", "just") || anyOf(k, "worked", "consent_age", "session", "token", "token_age", "password", "secret_age", "polls", "last_success") {
			continue
		}
		if !changing(k) {
			continue
		}
		if strings.Contains(on, " "+s+" ") && s != "1" {
			return true
		}
		if n, ok := (facts{m: map[string]any{"n": v}}).num("n"); ok {
			limit := 24.0 * 60
			switch {
			case strings.Contains(k, "hour"):
				limit = 26
			case strings.Contains(k, "day"):
				limit = 1
			case strings.Contains(k, "second"):
				limit = 24 * 3600
			}
			if n <= limit {
				return true
			}
		}
	}
	return false
}

// waitedOut reports a fact that says it worked after a while.
func waitedOut(key, value string) bool {
	return anyOf(key, "work", "resolv", "succe", "fixed") && anyOf(key, "later", "after", "wait", "next", "eventual") &&
		!anyOf(key, "minutes_ago", "stopped") && value != "" && value != "0" && !strings.Contains(off, " "+value+" ")
}

// lately reports a value that tells of a change not long ago.
func lately(s string) bool {
	if anyOf(s, "days ago", "weeks ago", "months ago", "years ago") {
		return false
	}
	return anyOf(s, "minutes ago", "minute ago", "hour ago", "hours ago", "just", "today", "recent", "moments ago")
}

// changing reports a fact whose name tells of a setting made.
func changing(key string) bool {
	return !anyOf(key, "worked", "password", "token", "session", "address", "offset") && anyOf(key, "chang", "grant", "enabl", "add", "permission", "policy", "config", "set",
		"regist", "creat", "role", "assign", "delegat", "switch", "licen", "fixed", "consent", "propag", "scope", "toggl", "updat")
}

// recently reports that the very same credentials worked moments ago.
func (x facts) recently() bool {
	if x.yes("same_credentials_worked_minutes_ago", "worked_minutes_ago", "same_credentials_work_elsewhere_now") {
		return true
	}
	if n, ok := x.num("same_credentials_worked_minutes_ago", "worked_minutes_ago", "last_success_minutes_ago"); ok {
		return n > 0 && n <= 60
	}
	return false
}

// guess is the last resort, when no sign was found at all.
func (e *evidence) guess() verdict {
	x := e.facts
	switch {
	case e.http == 429:
		return e.whyThrottled()
	case x.str("kind") == "inbound-message":
		return perhaps("not-an-error")
	case strings.HasSuffix(e.words, "eof"):
		return e.whyClosed()
	case e.is("oidc") && e.says("issuer", "audience"):
		return perhaps("oidc-issuer-or-audience-mismatch")
	case e.html && e.is("oauth", "graph", "oidc", "network"):
		return e.whyPage()
	case e.http == 407:
		return likely("proxy-interference")
	case e.http == 413:
		return likely("message-too-large")
	case e.http >= 500 && e.http < 600 && !e.is("smtp", "imap", "pop"):
		return likely("provider-outage")
	case e.http == 401 && e.is("graph"):
		return e.whyGraphToken()
	case e.http == 403 && e.is("graph"):
		return e.whyGraphDenied()
	case e.http == 404 && e.is("graph"):
		return hardly("mailbox-not-found")
	case e.http == 404 && e.is("oauth", "oidc"), e.http == 405:
		return perhaps("endpoint-misconfigured")
	case e.http == 410 && e.is("graph"):
		return perhaps("sync-state-expired")
	case e.reply() >= 500 && x.bounce():
		return hardly("recipient-rejected")
	case e.reply() >= 400 && e.reply() < 500 && x.bounce():
		return hardly("recipient-domain-unreachable")
	}
	if v := e.fromFacts(); v.cause != "" {
		return v
	}
	return verdict{Unknown, 0}
}

// fromFacts answers where the text says nothing but the facts say enough.
func (e *evidence) fromFacts() verdict {
	x := e.facts
	if e.failure.Text == "" && e.failure.Err == nil && e.failure.Code == "" {
		return verdict{}
	}
	if e.says("exceeded", "toomany", "toooften", "frequen", "limit") {
		return verdict{} // of logins perhaps, and yet no credential is to blame
	}
	if e.is("imap", "pop", "smtp") && (e.says("authent", "login", "logon", "credential", "password") || strings.Contains(x.step(), "auth")) {
		return e.whyAuth()
	}
	return verdict{}
}

// codeName is the code to name in a sentence.
func (e *evidence) codeName() string {
	if len(e.aad) > 0 {
		return "AADSTS" + itoa(e.aad[len(e.aad)-1])
	}
	if r := e.reply(); r != 0 && len(e.enhanced) > 0 {
		return itoa(r) + " " + e.enhanced[0]
	}
	return e.failure.Code
}
