package diagnose

import "strings"

// whyInvalidGrant answers invalid_grant, by which a provider says that a code, a
// refresh token or an assertion is no good, and no more.
func (e *evidence) whyInvalidGrant() verdict {
	x := e.facts
	if v := e.testingMode(); v.cause != "" {
		return v
	}
	if n, ok := x.num("clock_offset_seconds", "clock_skew_seconds", "clock_offset_minutes", "clock_skew_minutes", "clock_offset"); ok && n != 0 {
		return likely("clock-skew")
	}
	if x.found(on, "password", "changed") || x.found(on, "password", "reset") || x.has("password_changed_minutes_ago") {
		return likely("password-changed")
	}
	if n, ok := x.num("days_since_last_use", "idle_days", "inactive_days", "unused_days", "days_unused", "last_used_days_ago"); ok && n >= 60 {
		return likely("grant-expired-inactivity")
	}
	switch x.grant() {
	case "authorization_code", "device_code":
		return likely("code-expired-or-used")
	case "jwt-bearer":
		return perhaps("clock-skew")
	case "password":
		return perhaps("basic-credentials-wrong")
	case "client_credentials":
		return perhaps("client-secret-wrong")
	}
	return likely("grant-revoked")
}

// testingMode: a Google grant of seven days, or of an app still in testing.
func (e *evidence) testingMode() verdict {
	x := e.facts
	google := x.service("google") || e.says("google")
	if strings.Contains(strings.ToLower(x.str("publishing_status", "app_status", "consent_screen")), "test") {
		return sure("google-testing-mode-7-day")
	}
	days, ok := x.num("consent_age_days", "grant_age_days", "token_age_days", "refresh_token_age_days", "days_since_consent")
	if google && ok && days >= 6.5 && days <= 8.5 {
		return likely("google-testing-mode-7-day")
	}
	return verdict{}
}

func (e *evidence) whyInvalidClient() verdict {
	x := e.facts
	switch {
	case anyOf(x.str("credential", "client_auth"), "cert", "jwt", "key", "assertion"):
		return likely("certificate-mismatch")
	case x.found(on, "worked", "before") || x.found(on, "secret", "expired"):
		return likely("client-secret-expired")
	case strings.Contains(strings.ToLower(x.str("client_kind", "client_type", "platform")), "public"):
		return likely("client-type-mismatch")
	case x.service("google") && e.says("notfound"):
		return likely("app-not-in-tenant")
	}
	return perhaps("client-secret-wrong")
}

func (e *evidence) whyUnauthorizedClient() verdict {
	x := e.facts
	switch {
	case x.grant() == "jwt-bearer" || x.service("google") && x.appOnly():
		return likely("google-delegation-missing")
	case x.service("google"):
		return perhaps("client-type-mismatch")
	}
	return perhaps("app-not-in-tenant")
}

// whyAccessDenied answers access_denied on the way back from consent.
func (e *evidence) whyAccessDenied() verdict {
	x := e.facts
	switch {
	case x.service("google") && strings.Contains(x.str("publishing_status"), "test"):
		return likely("google-app-unverified")
	case e.http == 403 && x.service("google"):
		return likely("google-app-unverified")
	}
	return perhaps("user-consent-required")
}

func (e *evidence) whyInvalidRequest() verdict {
	return perhaps("endpoint-misconfigured")
}

// whyRefresh answers AADSTS70000 and 50085: the token shown is not good.
func (e *evidence) whyRefresh() verdict {
	switch {
	case e.says("serviceabuse", "abusemode"):
		return sure("user-disabled")
	case e.says("scopesrequested", "scopesrequestedareunauthorized", "unauthorizedorexpired"):
		return likely("user-consent-required")
	case e.says("inputparametercode", "authorizationcode", "parametercodeis"):
		return likely("code-expired-or-used")
	case e.says("redirecturi"):
		return likely("redirect-uri-mismatch")
	case e.says("codeverifier"):
		return likely("endpoint-misconfigured")
	}
	if e.facts.grant() == "authorization_code" && !e.says("refreshtoken") {
		return likely("code-expired-or-used")
	}
	return likely("grant-revoked")
}

// whyExpired answers AADSTS70008, which speaks of codes and refresh tokens alike.
func (e *evidence) whyExpired() verdict {
	switch {
	case e.facts.grant() == "authorization_code", e.facts.grant() == "device_code":
		return sure("code-expired-or-used")
	case e.facts.grant() == "refresh_token":
		return sure("grant-expired-inactivity")
	case e.says("wasinactivefor", "refreshtokenhasexpired"):
		return sure("grant-expired-inactivity")
	case e.says("authcode", "authorizationcodehas", "codehasexpired"):
		return likely("code-expired-or-used")
	}
	return likely("grant-expired-inactivity")
}

// whySPA answers AADSTS700084: the redirect address stands under the wrong
// platform, which is why the grant lives a day.
func (e *evidence) whySPA() verdict { return likely("client-type-mismatch") }

// whyScope answers AADSTS70011.
func (e *evidence) whyScope() verdict {
	if e.says("notcompatiblewitheachother", "morethanoneresource", "multipleresources") || resources(e.facts.str("requested_scope", "scope", "scopes")) > 1 {
		return sure("mixed-resource-scopes")
	}
	return sure("scope-invalid")
}

// resources counts the resources a scope string names.
func resources(scope string) int {
	seen := map[string]bool{}
	for _, s := range strings.Fields(strings.ToLower(scope)) {
		if rest, ok := strings.CutPrefix(s, "https://"); ok {
			host, _, _ := strings.Cut(rest, "/")
			seen[host] = true
		}
	}
	return len(seen)
}

// whyConsent answers AADSTS65001: nobody agreed. Where no person can be asked,
// an administrator must.
func (e *evidence) whyConsent() verdict {
	x := e.facts
	switch {
	case x.no("interactive_possible") || x.appOnly():
		return sure("admin-consent-required")
	case x.no("user_consent_allowed") || x.found(off, "user", "consent"):
		return sure("admin-consent-required")
	case strings.Contains(strings.ToLower(x.str("app_permissions", "permission_type")), "application"):
		return likely("admin-consent-required")
	}
	return sure("user-consent-required")
}

// whyMisconfigured answers AADSTS650056, whose text offers three reasons.
func (e *evidence) whyMisconfigured() verdict {
	if e.facts.found(off, "admin", "consent") {
		return likely("admin-consent-required")
	}
	return likely("scope-invalid")
}

// whyParameter answers "must contain the following parameter".
func (e *evidence) whyParameter() verdict {
	if e.says("clientassertion", "parameterclientsecret") {
		return sure("client-type-mismatch")
	}
	return sure("endpoint-misconfigured")
}

// whyEntra answers an AADSTS number not in the table, by the OAuth error.
func (e *evidence) whyEntra() verdict {
	switch {
	case e.says("temporarilyunavailable", "servererror"):
		return likely("provider-outage")
	case e.says("interactionrequired"):
		return perhaps("mfa-required")
	case e.says("invalidscope", "invalidresource"):
		return perhaps("scope-invalid")
	case e.says("invalidclient"):
		return perhaps("client-secret-wrong")
	case e.says("unauthorizedclient"):
		return perhaps("app-not-in-tenant")
	case e.says("invalidgrant"):
		return perhaps("grant-revoked")
	case e.says("invalidrequest"):
		return perhaps("endpoint-misconfigured")
	}
	return verdict{}
}

// whyCredential answers the wrapper AADSTS70002, which comes with a second code
// or, alone, with a missing parameter.
func (e *evidence) whyCredential() verdict {
	switch {
	case e.says("mustcontainthefollowingparameter"):
		return e.whyParameter()
	case e.says("clientsecret", "secret"):
		return likely("client-secret-wrong")
	case e.says("assertion", "certificate"):
		return e.whyAssertion()
	case e.says("username", "password"):
		return likely("basic-credentials-wrong")
	case e.says("clientdoesnotexist", "applicationisnotsupported", "mustbemarkedas", "consumer"):
		return likely("account-not-allowed-for-app")
	case e.says("refreshtoken", "grant"):
		return likely("grant-revoked")
	}
	return perhaps("client-secret-wrong")
}

// whyAssertion answers the codes of a signed client assertion.
func (e *evidence) whyAssertion() verdict {
	switch {
	case e.says("validtimerange", "notwithinitsvalid", "nottimevalid", "clockskew", "skew"):
		return sure("clock-skew")
	case e.says("keyusedisexpired", "certificatehasexpired"):
		return sure("certificate-mismatch")
	case e.says("expired") && !e.says("foundkey", "key"):
		return likely("clock-skew")
	case e.says("secret"):
		return sure("client-secret-wrong")
	case e.says("audience"):
		return likely("endpoint-misconfigured")
	}
	return sure("certificate-mismatch")
}

// whySecret answers AADSTS7000215: wrong, unless it is known to have worked.
func (e *evidence) whySecret() verdict {
	x := e.facts
	if x.found(on, "worked") || x.found(on, "secret", "removed") || x.found(on, "secret", "expired") || x.found(on, "secret", "deleted") {
		return likely("client-secret-expired")
	}
	return sure("client-secret-wrong")
}

// whyApp answers AADSTS70001, which once meant two things.
func (e *evidence) whyApp() verdict {
	if e.says("disabled") {
		return sure("app-disabled")
	}
	return sure("app-not-in-tenant")
}

// whyLocked answers AADSTS50053: too many wrong passwords, or a bad address.
func (e *evidence) whyLocked() verdict {
	if e.says("maliciousip", "maliciousactivity", "ipaddresswithmalicious") {
		return likely("conditional-access-blocked")
	}
	if e.says("accountislocked", "locked") {
		return likely("user-disabled")
	}
	return likely("user-disabled")
}

// whyPassword answers AADSTS50126.
func (e *evidence) whyPassword() verdict {
	return sure("basic-credentials-wrong")
}

// whyDevice: a device must prove itself, which the device code flow cannot.
func (e *evidence) whyDevice() verdict {
	if e.facts.grant() == "device_code" {
		return sure("device-code-blocked")
	}
	return sure("conditional-access-blocked")
}

// whyConditional answers AADSTS53003 and 530036.
func (e *evidence) whyConditional() verdict {
	if e.facts.grant() == "device_code" || e.says("authenticationflow", "devicecodeflow") {
		return sure("device-code-blocked")
	}
	return sure("conditional-access-blocked")
}

// whyTokenTime answers a token whose times do not fit: ours or theirs is wrong.
func (e *evidence) whyTokenTime() verdict {
	x := e.facts
	if x.yes("token_just_issued", "fresh_token") || x.found(on, "just", "issued") {
		return likely("clock-skew")
	}
	if n, ok := x.num("clock_offset_seconds", "clock_skew_seconds"); ok && n != 0 {
		return likely("clock-skew")
	}
	return likely("access-token-expired")
}
