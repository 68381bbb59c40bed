package diagnose

import "strings"

// whyGraphDenied answers ErrorAccessDenied and its like, from Graph or EWS.
func (e *evidence) whyGraphDenied() verdict {
	x := e.facts
	url := strings.ToLower(x.str("url", "endpoint", "request"))
	if url == "" && strings.Contains(e.low, "/me/") {
		url = "/me/"
	}
	if x.found(on, "polic") || x.found(on, "rbac") || x.has("access_policy") || x.has("application_access_policy") {
		return likely("graph-access-denied-policy")
	}
	roles, app := x.claim("roles")
	scp, delegated := x.claim("scp", "scope", "scopes")
	if aud, ok := x.claim("aud"); ok && aud != "" && !e.fits(aud) {
		return sure("wrong-token-audience")
	}
	if x.appOnly() || app && roles != "" {
		switch {
		case x.token != nil && roles == "":
			return sure("scope-missing")
		case app && !anyOf(roles, "mail.", "full_access", "contacts", "calendars", "mailboxsettings"):
			return likely("scope-missing")
		case app && e.sending() && !strings.Contains(roles, "mail.send") && !strings.Contains(roles, "full_access"):
			return likely("scope-missing")
		case asMe(url):
			return sure("endpoint-misconfigured")
		case app:
			return likely("graph-access-denied-policy")
		}
		return perhaps("scope-missing")
	}
	if delegated {
		return e.whyDelegatedDenied(scp, url)
	}
	if x.has("app_permissions") && !anyOf(strings.ToLower(x.str("app_permissions")), "delegated") {
		return likely("graph-access-denied-policy")
	}
	return perhaps("scope-missing")
}

// whyDelegatedDenied: a user is in the token; is it the right one, and may it?
func (e *evidence) whyDelegatedDenied(scp, url string) verdict {
	x := e.facts
	if !anyOf(scp, "mail.") || e.sending() && !strings.Contains(scp, "mail.send") {
		return likely("scope-missing")
	}
	upn, _ := x.claim("upn", "preferred_username")
	box := strings.ToLower(x.str("mailbox"))
	other := box != "" && upn != "" && box != upn || strings.Contains(url, "/users/") && (upn == "" || !strings.Contains(url, upn))
	switch {
	case other && !strings.Contains(scp, ".shared"):
		return likely("scope-missing")
	case other:
		return likely("mailbox-permission-missing")
	}
	return likely("graph-access-denied-policy")
}

// asMe reports an address that names nobody but the signed-in user.
func asMe(url string) bool { return strings.Contains(url, "/me/") || strings.HasSuffix(url, "/me") }

// whyGmailNotFound answers Gmail's 404, which a history too old shares with
// everything else that is not there.
func (e *evidence) whyGmailNotFound() verdict {
	if anyOf(e.facts.step(), "history", "delta", "sync") || anyOf(strings.ToLower(e.facts.str("url", "endpoint")), "history") || e.says("history") {
		return sure("sync-state-expired")
	}
	return perhaps("mailbox-not-found")
}

// whyPrecondition answers Gmail's failedPrecondition: for a service account the
// delegation, for a person that there is no Gmail.
func (e *evidence) whyPrecondition() verdict {
	x := e.facts
	switch {
	case x.appOnly():
		return likely("google-delegation-missing")
	case x.grant() != "", x.yes("google_api_enabled"):
		return likely("mailbox-not-licensed")
	}
	return perhaps("google-delegation-missing")
}

// whyObject answers Exchange's PowerShell, to which all are objects.
func (e *evidence) whyObject() verdict {
	if e.facts.appOnly() || e.says("serviceprincipal", "addmailboxpermission") {
		return likely("service-principal-not-registered")
	}
	return likely("mailbox-not-found")
}

// sending reports that the request was to send a message.
func (e *evidence) sending() bool {
	return anyOf(e.facts.step(), "send") || anyOf(strings.ToLower(e.facts.str("url", "endpoint")), "sendmail", "/send") || e.says("sendmail")
}

// whyGraphToken answers InvalidAuthenticationToken and plain 401.
func (e *evidence) whyGraphToken() verdict {
	x := e.facts
	if aud, ok := x.claim("aud"); ok && aud != "" && !e.fits(aud) {
		return sure("wrong-token-audience")
	}
	if e.tokenOld() || x.yes("token_expired") {
		return likely("access-token-expired")
	}
	if roles, ok := x.claim("roles"); x.appOnly() && ok && roles == "" {
		return likely("scope-missing")
	}
	if x.str("api") == "ews" && x.password() {
		return e.whyPasswordRefused()
	}
	if v := strings.ToLower(x.str("authorization_header", "auth_header")); v != "" {
		return likely("endpoint-misconfigured")
	}
	return perhaps("access-token-expired")
}

// whyNotFound answers ResourceNotFound, Request_ResourceNotFound and 404.
func (e *evidence) whyNotFound() verdict {
	x := e.facts
	switch {
	case x.appOnly() && asMe(x.str("url", "endpoint")):
		return likely("endpoint-misconfigured")
	case x.yes("user_exists") || x.no("licensed", "has_licence", "has_license") || x.found(off, "licen"):
		return likely("mailbox-not-licensed")
	}
	return likely("mailbox-not-found")
}

// whySendAs answers ErrorSendAsDenied and SendAsDenied. A From that Exchange
// cannot read is refused with the same words as a foreign one.
func (e *evidence) whySendAs() verdict {
	x := e.facts
	header := strings.ToLower(x.str("from_header"))
	box := strings.ToLower(x.str("mailbox"))
	if header != "" && malformedFrom(header) {
		return likely("message-invalid")
	}
	from := strings.ToLower(x.str("from_address", "from"))
	if from != "" && box != "" && from == box && x.has("from_header") {
		return perhaps("message-invalid")
	}
	return sure("send-as-denied")
}

// malformedFrom reports a display name with an address in it and no quotes.
func malformedFrom(header string) bool {
	name, _, ok := strings.Cut(header, "<")
	name = strings.TrimSpace(name)
	return ok && strings.Contains(name, "@") && !strings.HasPrefix(name, `"`)
}

// whyThrottled answers 429 and its like: for one mailbox, or for all.
func (e *evidence) whyThrottled() verdict {
	x := e.facts
	switch {
	case e.says("mailboxconcurrency", "concurren", "simultaneous"):
		return likely("concurrent-connections")
	case e.is("oauth", "oidc"):
		return likely("throttled-app")
	case anyOf(strings.ToLower(x.str("limit", "limit_scope", "scope_of_limit")), "app", "tenant", "org", "project"):
		return likely("throttled-app")
	}
	return likely("throttled-mailbox")
}

// whyPage answers an HTML page where data was expected: something in between
// said it, or the address is wrong.
func (e *evidence) whyPage() verdict {
	x := e.facts
	url := strings.ToLower(x.str("token_url", "url", "endpoint"))
	switch {
	case e.says("proxy", "squid", "zscaler", "fortinet", "fortigate", "bluecoat", "websense", "sophos", "barracuda", "paloalto", "captive", "webfilter", "firewall", "umbrella", "accessdeniedbypolicy"):
		return likely("proxy-interference")
	case e.http == 413 || e.says("entitytoolarge"):
		return likely("message-too-large")
	case e.http >= 500 || e.says("badgateway", "gatewaytimeout", "serviceunavailable", "internalservererror"):
		return likely("provider-outage")
	case e.http == 404 || e.http == 405 || anyOf(url, "authorize", "http://"):
		return likely("endpoint-misconfigured")
	case e.http == 403 || e.http == 407:
		return likely("proxy-interference")
	case e.http == 429:
		return e.whyThrottled()
	}
	return perhaps("proxy-interference")
}

// whyParse answers a JSON parser that met something else.
func (e *evidence) whyParse() verdict {
	x := e.facts
	url := strings.ToLower(x.str("token_url", "url", "endpoint"))
	switch {
	case e.html:
		return e.whyPage()
	case x.yes("proxy", "behind_proxy") || x.has("proxy") && !x.no("proxy"):
		return likely("proxy-interference")
	case e.http >= 500:
		return likely("provider-outage")
	case url != "":
		return perhaps("endpoint-misconfigured")
	}
	return perhaps("proxy-interference")
}
