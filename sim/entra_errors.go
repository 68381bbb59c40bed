package sim

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// An aadError is one of Entra's errors on its way to a page, a redirect or a
// JSON body.
type aadError struct {
	code    string // without "AADSTS"
	err     string // OAuth's error
	text    string
	sub     string
	status  int
	claims  string
	more    map[string]any
	codes   []string // error_codes, where the second one matters
	noRedir bool     // shown on a page of Entra, never sent to the app
}

func (e *aadError) Error() string { return "AADSTS" + e.code + ": " + e.text }

// aadText is a row of the catalogue. Words in braces are filled in.
type aadText struct {
	err    string
	text   string
	sub    string
	status int // 400 when 0
}

// fail makes an error of the catalogue; args are pairs of word and value.
func fail(code string, args ...string) *aadError {
	row := aadsts[code]
	e := &aadError{code: code, err: row.err, text: row.text, sub: row.sub, status: row.status}
	if e.status == 0 {
		e.status = http.StatusBadRequest
	}
	for i := 0; i+1 < len(args); i += 2 {
		e.text = strings.ReplaceAll(e.text, "{"+args[i]+"}", args[i+1])
	}
	return e
}

// page marks e as one that is shown and not sent to the app.
func (e *aadError) page() *aadError {
	e.noRedir = true
	return e
}

func (e *aadError) as(oauth string) *aadError {
	e.err = oauth
	return e
}

// A traced error has the marks with which support would find it.
type traced struct {
	*aadError
	trace, correlation string
	at                 time.Time
}

func (en *entra) trace(r *http.Request, e *aadError) traced {
	correlation := r.Header.Get("client-request-id")
	if !isGUID(correlation) {
		correlation = newGUID()
	}
	en.sim.counts.add("entra.error." + e.code)
	return traced{e, newGUID(), correlation, en.sim.Now().UTC()}
}

func (t traced) description() string {
	return fmt.Sprintf("AADSTS%s: %s\r\nTrace ID: %s\r\nCorrelation ID: %s\r\nTimestamp: %s",
		t.code, t.text, t.trace, t.correlation, t.at.Format(aadTime))
}

const aadTime = "2006-01-02 15:04:05Z"

// refuse answers a program with the JSON body of an error.
func (en *entra) refuse(w http.ResponseWriter, r *http.Request, e *aadError) {
	t := en.trace(r, e)
	codes := []int{}
	for _, c := range append([]string{e.code}, e.codes...) {
		if n, err := strconv.Atoi(c); err == nil {
			codes = append(codes, n)
		}
	}
	body := map[string]any{
		"error":             e.err,
		"error_description": t.description(),
		"error_codes":       codes,
		"timestamp":         t.at.Format(aadTime),
		"trace_id":          t.trace,
		"correlation_id":    t.correlation,
		"error_uri":         en.base(r) + "/error?code=" + e.code,
	}
	if e.sub != "" {
		body["suberror"] = e.sub
	}
	if e.claims != "" {
		body["claims"] = e.claims
	}
	for k, v := range e.more {
		body[k] = v
	}
	entraHeaders(w, t.trace)
	if e.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Basic realm="login.microsoftonline.com"`)
	}
	writeJSON(w, e.status, body)
}

func entraHeaders(w http.ResponseWriter, request string) {
	h := w.Header()
	h.Set("Cache-Control", "no-store, no-cache")
	h.Set("Pragma", "no-cache")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("P3P", `CP="DSP CUR OTPi IND OTRi ONL FIN"`)
	h.Set("x-ms-request-id", request)
	h.Set("x-ms-ests-server", "2.1.22400.4 - SIM ProdSlices")
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.Encode(body)
}

// aadsts is the catalogue: the codes that this sim gives by itself and those
// that only a fault gives.
var aadsts = map[string]aadText{
	"16000":   {err: "interaction_required", text: "User account '{user}' from identity provider '{idp}' does not exist in tenant '{tenant}' and cannot access the application '{appId}'({name}) in that tenant. Either multiple user identities are available for the current request or selected account is not supported for the scenario."},
	"16003":   {err: "interaction_required", text: "The user account hasn't been explicitly added to the tenant."},
	"28002":   {err: "invalid_request", text: "Provided value for the input parameter scope '{s}' is not valid when requesting an access token. Please specify a valid scope."},
	"28003":   {err: "invalid_request", text: "Provided value for the input parameter scope can't be empty when requesting an access token using the provided authorization code. Please specify a valid scope."},
	"50011":   {err: "invalid_request", text: "The redirect URI '{uri}' specified in the request does not match the redirect URIs configured for the application '{appId}'. Make sure the redirect URI sent in the request matches one added to your application in the Azure portal. Navigate to https://aka.ms/redirectUriMismatchError to learn more about how to fix this."},
	"50020":   {err: "invalid_grant", text: "User account '{user}' from identity provider '{idp}' does not exist in tenant '{tenant}' and cannot access the application '{appId}'({name}) in that tenant. The account needs to be added as an external user in the tenant first. Sign out and sign in again with a different Azure Active Directory user account."},
	"50027":   {err: "invalid_client", text: "JWT token is invalid or malformed.", status: 401},
	"50034":   {err: "invalid_grant", text: "The user account {user} does not exist in the {tenant} directory. To sign into this application, the account must be added to the directory."},
	"500341":  {err: "invalid_grant", text: "The user account {user} has been deleted from the {tenant} directory. To sign into this application, the account must be added to the directory."},
	"50053":   {err: "invalid_grant", text: "You've tried to sign in too many times with an incorrect user ID or password."},
	"50055":   {err: "invalid_grant", text: "Password is expired.", sub: "user_password_expired"},
	"50057":   {err: "invalid_grant", text: "The user account is disabled."},
	"50058":   {err: "login_required", text: "A silent sign-in request was sent but no user is signed in. The cookies used to represent the user's session were not sent in the request to Azure AD. This can happen if the user is using Internet Explorer or Edge, and the web app sending the silent sign-in request is in different IE security zone than the Azure AD endpoint (login.microsoftonline.com)"},
	"50059":   {err: "invalid_request", text: "No tenant-identifying information found in either the request or implied by any provided credentials."},
	"50072":   {err: "interaction_required", text: "Due to a configuration change made by your administrator, or because you moved to a new location, you must enroll in multi-factor authentication to access '{resource}'.", sub: "basic_action"},
	"50074":   {err: "interaction_required", text: "Strong Authentication is required.", sub: "basic_action"},
	"50076":   {err: "invalid_grant", text: "Due to a configuration change made by your administrator, or because you moved to a new location, you must use multi-factor authentication to access '{resource}'.", sub: "basic_action"},
	"50079":   {err: "interaction_required", text: "Due to a configuration change made by your administrator, or because you moved to a new location, you must enroll in multi-factor authentication to access '{resource}'.", sub: "basic_action"},
	"50105":   {err: "invalid_grant", text: "Your administrator has configured the application {name} ('{appId}') to block users unless they are specifically granted ('assigned') access to the application. The signed in user '{EmailHidden}' is blocked because they are not a direct member of a group with access, nor had access directly assigned by an administrator. Please contact your administrator to assign access to this application."},
	"500011":  {err: "invalid_resource", text: "The resource principal named '{uri}' was not found in the tenant named '{tenant}'. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You might have sent your authentication request to the wrong tenant."},
	"500112":  {err: "invalid_client", text: "The reply address '{uri}' does not match the reply address '{was}' provided when requesting Authorization code.", status: 401},
	"500113":  {err: "invalid_request", text: "No reply address is registered for the application."},
	"500133":  {err: "invalid_grant", text: "Assertion is not within its valid time range. Ensure that the access token is not expired before using it for user assertion, or request a new token."},
	"50126":   {err: "invalid_grant", text: "Error validating credentials due to invalid username or password."},
	"50132":   {err: "invalid_grant", text: "The session is not valid due to the following reasons: password expiration or recent password change, SSO artifact is invalid or expired, session is not fresh enough for application, or a silent sign-in request was sent but the user's session with Azure AD is invalid or has expired."},
	"50133":   {err: "invalid_grant", text: "The session is not valid due to password expiration or recent password change."},
	"50140":   {err: "interaction_required", text: "This occurred due to 'Keep me signed in' interrupt when the user was signing in."},
	"501481":  {err: "invalid_grant", text: "The Code_Verifier does not match the code_challenge supplied in the authorization request."},
	"501491":  {err: "invalid_request", text: "Code_Challenge parameter is invalid: {why}"},
	"50147":   {err: "invalid_request", text: "The size of the Code_Challenge parameter isn't valid."},
	"50158":   {err: "interaction_required", text: "External security challenge not satisfied. User will be redirected to another page or authentication provider to satisfy additional authentication challenges.", sub: "basic_action"},
	"50173":   {err: "invalid_grant", sub: "bad_token", text: "The provided grant has expired due to it being revoked, a fresh auth token is needed. The user might have changed or reset their password. The grant was issued on '{t1}' and the TokensValidFrom date (before which tokens are not valid) for this user is '{t2}'."},
	"50194":   {err: "invalid_request", text: "Application '{appId}'({name}) is not configured as a multi-tenant application. Usage of the /common endpoint is not supported for such apps created after '10/15/2018'. Use a tenant-specific endpoint or configure the application to be multi-tenant."},
	"50196":   {err: "invalid_grant", text: "The server terminated an operation because it encountered a client request loop. Please contact your app vendor."},
	"53000":   {err: "invalid_grant", text: "Device is not in required device state: compliant. Conditional Access policy requires a compliant device, and the device is not compliant. The user must enroll their device with an approved MDM provider like Intune."},
	"53001":   {err: "invalid_grant", text: "Device is not in required device state: domain_joined. Conditional Access policy requires a domain joined device, and the device is not domain joined."},
	"53002":   {err: "invalid_grant", text: "Application used is not an approved app for Conditional Access."},
	"530002":  {err: "interaction_required", text: "Your device is required to be compliant to access this resource"},
	"530003":  {err: "interaction_required", text: "Your device is required to be managed to access this resource"},
	"53003":   {err: "invalid_grant", sub: "message_only", text: "Access has been blocked by Conditional Access policies. The access policy does not allow token issuance."},
	"530032":  {err: "access_denied", text: "User blocked due to risk on home tenant."},
	"530034":  {err: "access_denied", text: "A delegated administrator was blocked from accessing the tenant due to account risk in their home tenant."},
	"530035":  {err: "access_denied", text: "Access has been blocked by security defaults. The request is deemed unsafe by security defaults policies."},
	"54005":   {err: "invalid_grant", text: "OAuth2 Authorization code was already redeemed, please retry with a new valid code or use an existing refresh token."},
	"65001":   {err: "invalid_grant", sub: "consent_required", text: "The user or administrator has not consented to use the application with ID '{appId}' named '{name}'. Send an interactive authorization request for this user and resource."},
	"65004":   {err: "access_denied", text: "User declined to consent to access the app."},
	"65005":   {err: "invalid_resource", text: "The application required resource access list does not contain applications discoverable by the resource or the client application has requested access to resource which was not specified in its required resource access list."},
	"650052":  {err: "invalid_client", text: "The app needs access to a service that your organization has not subscribed to or enabled. Contact your IT Admin to review the configuration of your service subscriptions.", status: 401},
	"650053":  {err: "invalid_client", text: "The application '{name}' asked for scope '{s}' that doesn't exist on the resource '{resource}'. Contact the app vendor."},
	"650056":  {err: "invalid_client", text: "Misconfigured application. This could be due to one of the following: The client has not listed any permissions for '{api}' in the requested permissions in the client's application registration. Or, The admin has not consented in the tenant. Or, Check the application identifier in the request to ensure it matches the configured client application identifier. Please contact your admin to fix the configuration or consent on behalf of the tenant."},
	"650057":  {err: "invalid_resource", text: "Invalid resource. The client has requested access to a resource which is not listed in the requested permissions in the client's application registration. Client app ID: {appId}({name}). Resource value from request: '{uri}'. Resource app ID:{resource}. List of valid resources from app registration: {list}"},
	"70000":   {err: "invalid_grant", sub: "bad_token", text: "The provided value for the input parameter 'refresh_token' or 'assertion' is not valid."},
	"70001":   {err: "unauthorized_client", text: "The application '{appId}'({name}) is disabled."},
	"70002":   {err: "invalid_client", text: "Error validating credentials.", status: 401},
	"70003":   {err: "unsupported_grant_type", text: "The app requested an unsupported grant type '{grant}'."},
	"70008":   {err: "invalid_grant", text: "The provided authorization code or refresh token has expired due to inactivity. Send a new interactive authorization request for this user and resource."},
	"70011":   {err: "invalid_scope", text: "The provided value for the input parameter 'scope' is not valid. The scope {s} is not valid."},
	"70012":   {err: "server_error", text: "A server error occurred while authenticating a MSA (consumer) user.", status: 500},
	"70016":   {err: "authorization_pending", text: "OAuth 2.0 device flow error. Authorization is pending. Continue polling."},
	"70018":   {err: "bad_verification_code", text: "Invalid verification code due to User typing in wrong user code for device code flow."},
	"70019":   {err: "expired_token", text: "Verification code expired. Have the user retry the sign-in."},
	"70043":   {err: "invalid_grant", sub: "token_expired", text: "The refresh token has expired or is invalid due to sign-in frequency checks by conditional access. The token was issued on {t} and the maximum allowed lifetime for this request is {sec}."},
	"700005":  {err: "invalid_grant", text: "Provided Authorization Code is intended to use against other tenant, thus rejected."},
	"700016":  {err: "unauthorized_client", text: "Application with identifier '{appId}' was not found in the directory '{tenant}'. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You may have sent your authentication request to the wrong tenant."},
	"700021":  {err: "invalid_client", status: 401, text: "Client assertion application identifier doesn't match 'client_id' parameter."},
	"700022":  {err: "invalid_request", text: "The provided value for the input parameter scope isn't valid because it contains more than one resource."},
	"700023":  {err: "invalid_client", status: 401, text: "Client assertion audience claim does not match Realm issuer."},
	"700024":  {err: "invalid_client", status: 401, text: "Client assertion is not within its valid time range. Current time: {now}, assertion valid from {from}, expiry time of assertion {to}."},
	"700025":  {err: "invalid_client", status: 401, text: "Client is public so neither 'client_assertion' nor 'client_secret' should be presented."},
	"700027":  {err: "invalid_client", status: 401, text: "Client assertion contains an invalid signature. [Reason - {why}, Thumbprint of key used by client: '{tp}'{more}]"},
	"700054":  {err: "unsupported_response_type", text: "response_type 'id_token' is not enabled for the application."},
	"70021":   {err: "invalid_client", status: 401, text: "No matching federated identity record found for presented assertion."},
	"700211":  {err: "invalid_client", status: 401, text: "No matching federated identity record found for presented assertion issuer '{v}'. Check your federated identity credential Subject, Audience and Issuer against the presented assertion. https://learn.microsoft.com/entra/workload-id/workload-identity-federation"},
	"700212":  {err: "invalid_client", status: 401, text: "No matching federated identity record found for presented assertion audience '{v}'. Check your federated identity credential Subject, Audience and Issuer against the presented assertion. https://learn.microsoft.com/entra/workload-id/workload-identity-federation"},
	"700213":  {err: "invalid_client", status: 401, text: "No matching federated identity record found for presented assertion subject '{v}'. Check your federated identity credential Subject, Audience and Issuer against the presented assertion. https://learn.microsoft.com/entra/workload-id/workload-identity-federation"},
	"700082":  {err: "invalid_grant", text: "The refresh token has expired due to inactivity.\u00a0The token was issued on {t} and was inactive for {idle}."},
	"700084":  {err: "invalid_grant", text: "The refresh token was issued to a single page app (SPA), and therefore has a fixed, limited lifetime of 1.00:00:00, which cannot be extended. It is now expired and a new sign in request must be sent by the SPA to the sign in page. The token was issued on {t}."},
	"7000215": {err: "invalid_client", status: 401, text: "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '{appId}'."},
	"7000216": {err: "invalid_client", status: 401, text: "The request body must contain the following parameter: 'client_assertion' or 'client_secret'."},
	"7000218": {err: "invalid_client", status: 401, text: "The request body must contain the following parameter: 'client_assertion' or 'client_secret'."},
	"7000222": {err: "invalid_client", status: 401, text: "The provided client secret keys for app '{appId}' are expired. Visit the Azure portal to create new keys for your app: https://aka.ms/NewClientSecret, or consider using certificate credentials for added security: https://aka.ms/certCreds."},
	"90002":   {err: "invalid_request", text: "Tenant '{t}' not found. This may happen if there are no active subscriptions for the tenant. Check to make sure you have the correct tenant ID. Check with your subscription administrator."},
	"900023":  {err: "invalid_request", text: "Specified tenant identifier '{x}' is neither a valid DNS name, nor a valid external domain."},
	"90008":   {err: "invalid_request", text: "The user or administrator has not consented to use the application with ID '{appId}'. This happened because application is misconfigured: it must require access to Windows Azure Active Directory by specifying at least 'Sign in and read user profile' permission"},
	"90014":   {err: "invalid_request", text: "The request body must contain the following parameter: '{param}'."},
	"900144":  {err: "invalid_request", text: "The request body must contain the following parameter: '{param}'."},
	"90023":   {err: "invalid_request", text: "{why}"},
	"90055":   {err: "temporarily_unavailable", text: "The tenant is throttled due to too many requests.", status: 429},
	"90072":   {err: "invalid_grant", text: "User account '{user}' from identity provider '{idp}' does not exist in tenant '{tenant}' and cannot access the application '{appId}'({name}) in that tenant. The account needs to be added as an external user in the tenant first. Sign out and sign in again with a different Azure Active Directory user account."},
	"90094":   {err: "access_denied", text: "An administrator of {tenant} has set a policy that prevents you from granting {name} the permissions it is requesting. Contact an administrator of {tenant}, who can grant permissions to this app on your behalf."},
	"90095":   {err: "access_denied", text: "Admin consent is required for the permissions requested by this application. An admin consent request may be sent to the admin."},
	"90099":   {err: "access_denied", text: "The application '{appId}' ({name}) has not been authorized in the tenant '{tenant}'. Applications must be authorized to access the customer tenant before partner delegated administrators can use them."},
	"900561":  {err: "invalid_request", text: "The endpoint only accepts POST requests. Received a {method} request."},
	"900971":  {err: "invalid_request", text: "No reply address provided."},
	"90133":   {err: "invalid_request", text: "Device Code flow is not supported under /common or /consumers endpoint."},
	"9001023": {err: "invalid_request", text: "The grant type isn't supported over the /common or /consumers endpoints. Please use the /organizations or tenant-specific endpoint."},
	"9002313": {err: "invalid_request", text: "Invalid request. Request is malformed or invalid."},
	"9002325": {err: "invalid_request", text: "Proof Key for Code Exchange is required for cross-origin authorization code redemption."},
	"9002326": {err: "invalid_request", text: "Cross-origin token redemption is permitted only for the 'Single-Page Application' client-type. Request origin: '{origin}'."},
	"9002327": {err: "invalid_request", text: "Tokens issued for the 'Single-Page Application' client-type may only be redeemed via cross-origin requests."},
	"1002012": {err: "invalid_scope", text: "The provided value for scope {s} is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier (application ID URI)."},
	"1002016": {err: "invalid_request", text: "You are using TLS version 1.0, 1.1 and/or 3DES cipher which are deprecated to improve the security posture of Azure AD. Your TenantID is: {t}. Please refer to https://go.microsoft.com/fwlink/?linkid=2161187 and conduct needed actions to remediate the issue. For further questions, please contact your administrator."},
}
