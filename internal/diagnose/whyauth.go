package diagnose

import (
	"strconv"
	"strings"
)

func itoa(n int) string { return strconv.Itoa(n) }

// whyAuth answers "authentication failed", which says nothing by itself. The
// order is that of likelihood in the field: the token's audience, its scopes,
// who it belongs to, the app's place in Exchange, the switches.
func (e *evidence) whyAuth() verdict {
	x := e.facts
	if reply := e.reply(); reply >= 400 && reply < 500 {
		return e.whyTemporary()
	}
	if x.recently() {
		return likely("throttled-mailbox")
	}
	if v := e.fromSwitches(); v.cause != "" {
		return v
	}
	if x.oauth() {
		return e.whyTokenRefused()
	}
	return e.whyPasswordRefused()
}

// fromSwitches answers from what is known of policies and switches.
func (e *evidence) fromSwitches() verdict {
	x := e.facts
	switch {
	case x.yes("security_defaults", "security_defaults_enabled") || x.found(on, "security", "default"):
		return likely("conditional-access-blocked")
	case x.found(on, "conditional", "access") || x.found(" blocked failure failed ", "conditional"):
		return likely("conditional-access-blocked")
	case e.is("smtp") && (x.no("smtp_auth_enabled", "authenticated_smtp", "smtp_auth") || x.yes("smtp_client_authentication_disabled", "smtpclientauthenticationdisabled")):
		if strings.Contains(strings.ToLower(x.str("smtp_auth_scope", "smtp_auth_level")), "tenant") {
			return likely("smtp-auth-disabled-tenant")
		}
		return likely("smtp-auth-disabled-mailbox")
	case e.is("smtp") && (x.no("smtp_auth_enabled_tenant", "tenant_smtp_auth_enabled", "smtp_auth_tenant")):
		return likely("smtp-auth-disabled-tenant")
	case e.is("imap") && (x.no("imap_enabled") || x.found(off, "imap", "enabled")):
		return likely("imap-pop-disabled-mailbox")
	case e.is("pop") && (x.no("pop_enabled") || x.found(off, "pop", "enabled")):
		return likely("imap-pop-disabled-mailbox")
	case x.no("licensed", "licence", "license", "mailbox_licensed") || x.found(off, "licen"):
		return likely("mailbox-not-licensed")
	case x.no("client_sent_auth", "auth_attempted", "auth_sent"):
		return likely("smtp-auth-not-attempted")
	}
	if n, ok := x.num("clock_offset_seconds", "clock_skew_seconds", "clock_offset"); ok && (n > 240 || n < -240) {
		return likely("clock-skew")
	}
	return verdict{}
}

// whyTokenRefused looks at the token shown to SMTP, IMAP or POP.
func (e *evidence) whyTokenRefused() verdict {
	if v := e.tokenFault(); v.cause != "" {
		return v
	}
	x := e.facts
	if x.service("google") {
		return e.whyGoogleRefused()
	}
	if x.appOnly() || e.hasRoles() {
		return e.whyAppRefused()
	}
	if v := e.whyIdentity(); v.cause != "" {
		return v
	}
	switch {
	case x.service("generic"): // switches are Microsoft's
		return hardly("wrong-token-audience")
	case e.is("smtp") && x.yes("smtp_auth_enabled"):
		return perhaps("xoauth2-identity-mismatch")
	case e.is("smtp") && e.scopeKnown():
		return perhaps("smtp-auth-disabled-mailbox")
	case e.is("imap", "pop") && e.scopeKnown():
		return perhaps("imap-pop-disabled-mailbox")
	case e.is("smtp"):
		return hardly("smtp-auth-disabled-mailbox")
	}
	return hardly("wrong-token-audience")
}

// tokenFault finds what is wrong with the token itself.
func (e *evidence) tokenFault() verdict {
	x := e.facts
	if x.yes("token_expired", "access_token_expired") || e.tokenOld() {
		return likely("access-token-expired")
	}
	if aud, known := x.claim("aud", "audience"); known && aud != "" && !e.fits(aud) {
		return sure("wrong-token-audience")
	}
	if e.lacksScope() {
		return sure("scope-missing")
	}
	return verdict{}
}

// tokenOld reports a token whose age or end is known to be past.
func (e *evidence) tokenOld() bool {
	x := e.facts
	if n, ok := x.num("token_age_minutes", "access_token_age_minutes", "minutes_since_token"); ok && n >= 58 {
		return true
	}
	if n, ok := x.num("token_expires_in", "token_expires_in_seconds", "seconds_left"); ok && n <= 0 {
		return true
	}
	v, _ := x.claim("expired")
	return v == "true"
}

// fits reports whether an audience belongs to the protocol.
func (e *evidence) fits(aud string) bool {
	graph := anyOf(aud, "graph.microsoft", "microsoftgraph", "00000003-0000-0000-c000-000000000000")
	outlook := anyOf(aud, "outlook", "00000002-0000-0ff1-ce00-000000000000")
	google := anyOf(aud, "google", "apps.googleusercontent")
	switch e.protocol {
	case "smtp", "imap", "pop":
		if e.facts.service("google") {
			return !graph && !outlook
		}
		return outlook || google || strings.Contains(aud, "office.com/imap") || !graph && !e.facts.service("microsoft") && !anyOf(aud, "api://", "management")
	case "graph":
		if e.facts.service("google") || e.facts.str("api") == "gmail" {
			return !graph && !outlook
		}
		if e.facts.str("api") == "ews" {
			return outlook
		}
		return graph
	}
	return true
}

// need lists, for a protocol, what a token must hold: any one of them.
var need = map[string][]string{
	"smtp": {"smtp.send", "smtp.sendasapp", "full_access_as_app", "mail:smtp", "mail-w", "mail.google.com"},
	"imap": {"imap.accessasuser", "imap.accessasapp", "full_access_as_app", "mail:imap", "mail.imap", "mail-w", "mail-r", "mail.google.com"},
	"pop":  {"pop.accessasuser", "pop.accessasapp", "full_access_as_app", "mail:pop", "mail-w", "mail-r", "mail.google.com"},
}

// needed is the name of the permission that the protocol wants, to show.
func needed(e *evidence) string {
	app := e.facts.appOnly()
	if e.facts.service("google") {
		return "https://mail.google.com/"
	}
	switch e.protocol {
	case "smtp":
		return map[bool]string{false: "SMTP.Send", true: "SMTP.SendAsApp"}[app]
	case "imap":
		return map[bool]string{false: "IMAP.AccessAsUser.All", true: "IMAP.AccessAsApp"}[app]
	case "pop":
		return map[bool]string{false: "POP.AccessAsUser.All", true: "POP.AccessAsApp"}[app]
	case "graph":
		return "Mail.Send"
	}
	return ""
}

// lacksScope reports that the token's permissions are known and not enough.
func (e *evidence) lacksScope() bool {
	x := e.facts
	scp, known := x.claim("scp", "scope", "scopes")
	roles, app := x.claim("roles")
	wants := need[e.protocol]
	if wants == nil || x.service("generic") { // what others call their permissions is not known
		return false
	}
	if x.appOnly() && app {
		return !anyOf(roles, wants...)
	}
	if x.appOnly() && known && !x.service("google") {
		return true // delegated permissions do not work without a user
	}
	if known || app {
		return !anyOf(scp+" "+roles, wants...)
	}
	if asked := strings.ToLower(x.str("granted_scope", "scope", "scopes")); asked != "" && !strings.Contains(asked, ".default") {
		return !anyOf(asked, wants...)
	}
	return false
}

func (e *evidence) scopeKnown() bool {
	_, scp := e.facts.claim("scp", "scope", "scopes")
	_, roles := e.facts.claim("roles")
	return scp || roles
}

func (e *evidence) hasRoles() bool {
	roles, ok := e.facts.claim("roles")
	return ok && roles != ""
}

// whyAppRefused: the token is right and no user is in it, so Exchange either
// does not know the app or has given it no right on the mailbox.
func (e *evidence) whyAppRefused() verdict {
	x := e.facts
	if login, box := strings.ToLower(x.str("xoauth2_user", "login_user", "sasl_user")), strings.ToLower(x.str("mailbox")); login != "" && box != "" && login != box {
		return likely("xoauth2-identity-mismatch")
	}
	if x.no("service_principal_registered", "service_principal", "exchange_service_principal", "new_service_principal") || x.found(off, "service", "principal") {
		return sure("service-principal-not-registered")
	}
	if v, ok := x.find("object", "id"); ok && anyOf(strings.ToLower(textOf(v)), "registration", "app_reg", "application object", "wrong", "mismatch", "false") {
		return sure("service-principal-not-registered")
	}
	if x.found(" app-registration app_registration wrong mismatch false ", "service", "principal") {
		return sure("service-principal-not-registered")
	}
	if x.has("mailbox_permissions") {
		if anyOf(strings.ToLower(x.str("mailbox_permissions")), "fullaccess", "full access", "full_access") {
			return likely("service-principal-not-registered")
		}
		return likely("mailbox-permission-missing")
	}
	if x.yes("service_principal_registered", "service_principal", "exchange_service_principal") || x.found(on, "service", "principal") {
		return likely("mailbox-permission-missing")
	}
	if x.found(off, "permission") || x.found(off, "full", "access") {
		return likely("mailbox-permission-missing")
	}
	return perhaps("service-principal-not-registered")
}

// whyIdentity compares who signed in with whom the login names.
func (e *evidence) whyIdentity() verdict {
	x := e.facts
	upn, _ := x.claim("upn", "preferred_username", "email", "unique_name")
	if upn == "" {
		upn = strings.ToLower(x.str("signed_in_user", "signed_in_as", "consented_by", "token_user", "authorized_by", "user_signed_in"))
	}
	box := strings.ToLower(x.str("mailbox"))
	login := strings.ToLower(x.str("xoauth2_user", "login_user", "sasl_user"))
	shared := strings.Contains(strings.ToLower(x.str("mailbox_type")), "shared")
	rights := strings.ToLower(x.str("mailbox_permissions"))
	target := login
	if target == "" {
		target = box
	}
	switch {
	case upn == "" && shared && e.is("smtp"):
		return perhaps("xoauth2-identity-mismatch")
	case upn == "" && box != "" && login != "" && box != login:
		return perhaps("xoauth2-identity-mismatch")
	case upn == "" && shared:
		return perhaps("mailbox-permission-missing")
	case upn == "" || target == "" || upn == target && (box == "" || box == upn || e.is("smtp")):
		return verdict{}
	case upn == target && shared && anyOf(rights, "full"):
		return likely("xoauth2-identity-mismatch")
	case e.is("smtp") && (shared || rights != ""):
		return likely("xoauth2-identity-mismatch")
	case x.has("mailbox_permissions") && anyOf(rights, "full"):
		return likely("xoauth2-identity-mismatch")
	case shared:
		return likely("mailbox-permission-missing")
	case x.has("mailbox_permissions"):
		return likely("mailbox-permission-missing")
	case login != "" && box != "" && login != box && upn == box:
		return likely("xoauth2-identity-mismatch")
	case x.yes("alias") || x.found(on, "alias"):
		return likely("xoauth2-identity-mismatch")
	}
	return likely("wrong-user-signed-in")
}

// whyGoogleRefused: Gmail says only that the token does not do.
func (e *evidence) whyGoogleRefused() verdict {
	x := e.facts
	if v := e.whyIdentity(); v.cause != "" {
		return v
	}
	if x.grant() == "jwt-bearer" || x.appOnly() {
		return perhaps("google-delegation-missing")
	}
	if e.scopeKnown() {
		return perhaps("access-token-expired")
	}
	return hardly("access-token-expired")
}

// whyPasswordRefused: a name and a password were shown.
func (e *evidence) whyPasswordRefused() verdict {
	x := e.facts
	kind := strings.ToLower(x.str("password_kind", "password_type", "credential"))
	if anyOf(kind, "app") {
		if x.service("microsoft") && !x.before("2022-10-01") {
			return likely("basic-auth-retired")
		}
		return likely("basic-credentials-wrong")
	}
	if anyOf(kind, "account", "normal", "login", "regular") && (x.wantsAppPassword() || x.service("google")) {
		return likely("app-password-required")
	}
	if x.yes("mfa", "mfa_enabled", "2fa", "two_factor", "two_step_verification") || x.found(on, "mfa") || x.found(on, "2fa") {
		if x.service("microsoft") {
			return likely("basic-auth-retired")
		}
		return likely("app-password-required")
	}
	switch {
	case x.service("microsoft") && e.is("imap", "pop", "graph") && !x.before("2022-10-01"):
		return perhaps("basic-auth-retired")
	case x.service("microsoft") && x.consumer() && !x.before("2024-09-16"):
		return perhaps("basic-auth-retired")
	case x.service("yahoo"), x.service("tencent"), x.service("netease"), x.service("icloud"), x.service("mailru"):
		return perhaps("app-password-required")
	case x.service("google") && !x.before("2022-05-30") && !x.at.IsZero():
		return perhaps("app-password-required")
	}
	if x.oauth() || !x.password() && x.token != nil {
		return e.whyTokenRefused()
	}
	return perhaps("basic-credentials-wrong")
}

// whyNotConnected answers Exchange's "User is authenticated but not connected".
func (e *evidence) whyNotConnected() verdict {
	x := e.facts
	if x.recently() || x.found(on, "worked") {
		return likely("throttled-mailbox")
	}
	if n, ok := x.num("open_connections", "connections", "parallel_connections", "concurrent_sessions", "sessions"); ok && n >= 8 {
		return likely("throttled-mailbox")
	}
	if v := e.fromSwitches(); v.cause != "" {
		return v
	}
	if v := e.tokenFault(); v.cause != "" {
		return v
	}
	if x.appOnly() || e.hasRoles() {
		if v := e.whyAppRefused(); v.cause != "service-principal-not-registered" || v.confidence > 0.6 {
			return v
		}
		return likely("mailbox-permission-missing")
	}
	if v := e.whyIdentity(); v.cause != "" {
		return v
	}
	if x.consumer() {
		return perhaps("provider-outage")
	}
	return perhaps("mailbox-permission-missing")
}

// whyChallenge answers the JSON Gmail sends in place of a refusal.
func (e *evidence) whyChallenge() verdict {
	if e.says("toomanyloginattempts", "toomanysimultaneous") {
		return likely("throttled-mailbox")
	}
	if v := e.tokenFault(); v.cause != "" {
		return v
	}
	x := e.facts
	if asked := strings.ToLower(x.str("requested_scope", "scope", "scopes")); asked != "" && !anyOf(asked, "mail.google.com") && x.service("google") {
		return likely("scope-missing")
	}
	if v := e.whyIdentity(); v.cause != "" {
		return v
	}
	if x.appOnly() {
		return perhaps("google-delegation-missing")
	}
	if e.says("status400") {
		return perhaps("scope-missing")
	}
	return perhaps("access-token-expired")
}
