package sim

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// A need is what a call needs: the delegated scopes of which one must be
// there, those that reach mailboxes of others, the application permissions,
// and the role of RBAC for applications.
type need struct {
	own, shared, app []string
	rbac             string
	wider            []string // roles that include it
}

var (
	needUser      = need{own: []string{"User.Read", "User.ReadBasic.All", "User.Read.All", "Directory.Read.All"}}
	needDirectory = need{own: []string{"User.ReadBasic.All", "User.Read.All", "Directory.Read.All"}}
	needSend      = need{
		own: []string{"Mail.Send", "Mail.Send.Shared"}, shared: []string{"Mail.Send.Shared"},
		app: []string{"Mail.Send"}, rbac: "Application Mail.Send"}
	needRead = need{
		own:    []string{"Mail.Read", "Mail.ReadBasic", "Mail.ReadWrite", "Mail.Read.Shared", "Mail.ReadWrite.Shared"},
		shared: []string{"Mail.Read.Shared", "Mail.ReadWrite.Shared"},
		app:    []string{"Mail.Read", "Mail.ReadBasic", "Mail.ReadBasic.All", "Mail.ReadWrite"}, rbac: "Application Mail.Read",
		wider: []string{"Application Mail.ReadBasic", "Application Mail.ReadWrite"}}
	needBody = need{
		own:    []string{"Mail.Read", "Mail.ReadWrite", "Mail.Read.Shared", "Mail.ReadWrite.Shared"},
		shared: needRead.shared, app: []string{"Mail.Read", "Mail.ReadWrite"}, rbac: needRead.rbac,
		wider: []string{"Application Mail.ReadWrite"}}
	needHooks = need{} // what a subscription needs is up to its resource
	needWrite = need{
		own: []string{"Mail.ReadWrite", "Mail.ReadWrite.Shared"}, shared: []string{"Mail.ReadWrite.Shared"},
		app: []string{"Mail.ReadWrite"}, rbac: "Application Mail.ReadWrite"}
)

var (
	directoryRoles = []string{"User.Read.All", "Directory.Read.All"}
	errDenied      = graphError{status: 403, code: "ErrorAccessDenied", text: graphDeniedText}
	errPrivileges  = graphError{status: 403, code: "Authorization_RequestDenied", text: "Insufficient privileges to complete the operation."}
	errNoMailbox   = graphError{status: 404, code: "MailboxNotEnabledForRESTAPI", text: "The mailbox is either inactive, soft-deleted, or is hosted on-premise."}
)

// open finds out who calls, which mailbox is meant, and whether that is
// allowed.
func (c *graphCall) open() *graphError {
	if e := c.authenticate(); e != nil {
		return e
	}
	if !c.route.below {
		if strings.HasPrefix(c.route.path, "subscriptions") {
			return nil
		}
		return c.mayRead()
	}
	if c.key == "" && c.caller == nil {
		return &graphError{status: 400, code: "BadRequest", text: "/me request is only valid with delegated authentication flow."}
	}
	if c.route.path == "" {
		return c.mayRead()
	}
	if e := c.findMailbox(); e != nil {
		return e
	}
	if c.caller == nil {
		return c.appMay()
	}
	return c.userMay()
}

// authenticate reads the token: of this cloud, for Graph, and in time.
func (c *graphCall) authenticate() *graphError {
	raw, ok := cutPrefixFold(c.Header.Get("Authorization"), "Bearer ")
	if raw = strings.TrimSpace(raw); !ok || raw == "" {
		return c.unauthorized("Access token is empty.")
	}
	tok, err := c.g.sim.keys.verify(raw)
	switch {
	case errors.Is(err, errTokenExpired):
		return c.unauthorized("Lifetime validation failed, the token is expired.")
	case err != nil:
		c.g.sim.log.Debug("graph token refused", "why", err)
		return c.unauthorized("Access token validation failure.")
	}
	c.tok, c.tenant = tok, c.v.tenants[strings.ToLower(tok.TenantID)]
	if c.tenant == nil {
		return c.unauthorized("Access token validation failure.")
	}
	if findResource(tok.Audience, c.tenant.Cloud) != graphResource {
		return c.unauthorized("Access token validation failure. Invalid audience.")
	}
	if tok.IDType == "app" {
		return nil
	}
	at, ok := c.v.userOf(tok)
	if !ok || at.item.Deleted {
		return c.unauthorized("Access token validation failure.")
	}
	c.caller = at.item
	return c.evaluate()
}

// evaluate is continuous access evaluation: a token whose client can take a
// challenge dies with its user or sessions, all others live on to their end.
func (c *graphCall) evaluate() *graphError {
	since := c.caller.TokensValidFrom
	if !containsFold(c.tok.CC, "CP1") || !c.caller.Disabled && c.tok.IssuedAt > since.Unix() {
		return nil
	}
	claims := fmt.Sprintf(`{"access_token":{"nbf":{"essential":true,"value":"%d"}}}`, max(since.Unix(), c.tok.IssuedAt)+1)
	e := c.unauthorized("Continuous access evaluation resulted in challenge with result: InteractionRequired and code: TokenIssuedBeforeRevocationTimestamp")
	e.challenge = c.g.challenge("insufficient_claims", base64.StdEncoding.EncodeToString([]byte(claims)))
	return e
}

func (c *graphCall) unauthorized(text string) *graphError {
	return &graphError{status: http.StatusUnauthorized, code: "InvalidAuthenticationToken", text: text, challenge: c.g.challenge("", "")}
}

func (c *graphCall) hasScope(any []string) bool {
	have := strings.Fields(c.tok.Scopes)
	return slices.ContainsFunc(any, func(s string) bool { return slices.Contains(have, s) })
}

func (c *graphCall) hasRole(any []string) bool {
	return slices.ContainsFunc(any, func(s string) bool { return slices.Contains(c.tok.Roles, s) })
}

// mayRead is for the directory: oneself with User.Read, others with more.
func (c *graphCall) mayRead() *graphError {
	e := errPrivileges
	switch {
	case c.caller == nil && c.hasRole(directoryRoles):
		return nil
	case c.caller != nil && c.hasScope(needDirectory.own):
		return nil
	case c.caller != nil && c.route.below && (c.key == "" || c.caller.goesBy(c.key)) && c.hasScope(needUser.own):
		return nil
	}
	return &e
}

// findMailbox finds the mailbox of the path.
func (c *graphCall) findMailbox() *graphError {
	address := c.key
	if c.key == "" {
		address = c.caller.Address
	}
	known := false
	if at, ok := c.v.users[strings.ToLower(address)]; ok && at.tenant == c.tenant {
		address, known = at.item.Address, true
	} else if m := c.tenant.sharedByID(address); m != nil {
		address = m.Address
	}
	t, m := c.v.mailbox(address)
	if m != nil && t == c.tenant {
		c.mailbox = m
		return nil
	}
	if at, ok := c.v.mailboxes[strings.ToLower(address)]; known || c.key == "" || ok && at.tenant == c.tenant {
		e := errNoMailbox
		return &e
	}
	return &graphError{status: 404, code: "ErrorInvalidUser", text: "The requested user '" + c.key + "' is invalid."}
}

// sharedByID finds a shared mailbox by its object id.
func (t *Tenant) sharedByID(id string) *Mailbox {
	if !isGUID(id) {
		return nil
	}
	for _, m := range t.Mailboxes {
		if strings.EqualFold(m.objectID(), id) {
			return m
		}
	}
	return nil
}

// objectID is that of a mailbox without a user: always the same.
func (m *Mailbox) objectID() string {
	b := sha256.Sum256([]byte(strings.ToLower(m.Address)))
	return fmt.Sprintf("%x-%x-4%x-8%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])[:36]
}

// userMay checks a delegated token: on the own mailbox, or on one of others
// with the shared scopes and a right in Exchange.
func (c *graphCall) userMay() *graphError {
	u, m, n := c.caller, c.mailbox, c.route.need
	e := errDenied
	if u.owns(m) {
		if c.hasScope(n.own) {
			return nil
		}
		return &e
	}
	right := listed(m.FullAccess, u)
	if n.rbac == needSend.rbac {
		right = listed(m.SendAs, u) || listed(m.SendOnBehalf, u)
	}
	if right && c.hasScope(n.shared) {
		return nil
	}
	return &e
}

// appMay checks an app without a user: a permission in its token, bound by the
// access policies of Exchange, or a scoped role. The two add up.
func (c *graphCall) appMay() *graphError {
	for _, role := range append([]string{c.route.need.rbac}, c.route.need.wider...) {
		if inScope(c.tenant.assignments(c.tok.AppID, role), c.mailbox) {
			return nil
		}
	}
	e := errDenied
	if !c.hasRole(c.route.need.app) {
		return &e
	}
	if !c.tenant.policyAllows(c.tok.AppID, c.mailbox) {
		e.text = "Access to OData is disabled: [RAOP] : Blocked by tenant configured AppOnly AccessPolicy settings."
		return &e
	}
	return nil
}

// policyAllows weighs the access policies of an app: a denial wins, and one
// restriction leaves only the members of restrictions.
func (t *Tenant) policyAllows(app string, m *Mailbox) bool {
	restricted, member := false, false
	for _, p := range t.Policies {
		if !strings.EqualFold(p.App, app) {
			continue
		}
		in := slices.ContainsFunc(p.Members, m.goesBy)
		switch {
		case strings.EqualFold(p.Right, "DenyAccess") && in:
			return false
		case strings.EqualFold(p.Right, "RestrictAccess"):
			restricted, member = true, member || in
		}
	}
	return !restricted || member
}

// sender is the principal that Exchange sees behind the call.
func (c *graphCall) sender() *principal {
	p := &principal{tenant: c.tenant, mailbox: c.mailbox, user: c.caller, app: c.tok.AppID}
	if c.caller == nil {
		p.service = c.tenant.service(c.tok.AppID)
		p.scoped = c.tenant.assignments(c.tok.AppID, needSend.rbac)
	}
	return p
}
