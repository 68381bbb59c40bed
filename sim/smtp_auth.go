package sim

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
)

const roleSendAsApp = "Application SMTP.SendAsApp"

// auth is the AUTH command in its forms: with the answer in the same line, or
// behind a challenge.
func (c *smtpSession) auth(arg string) {
	mechanism, initial, _ := strings.Cut(arg, " ")
	k := c.knobs()
	switch {
	case c.hello == "" || c.who != nil || c.mailing:
		c.mistake(replySequence)
		return
	case c.tls == nil && !k.PlaintextAuth:
		c.mistake(replyNoMechanism)
		return
	}
	if !k.StrictCase {
		mechanism = strings.ToUpper(mechanism)
	}
	switch {
	case mechanism == "XOAUTH2", mechanism == "OAUTHBEARER" && k.OAuthBearer:
		c.bearer(mechanism, initial)
	case mechanism == "LOGIN":
		c.loginAuth(initial)
	default:
		c.mistake(replyNoMechanism)
	}
}

// ask sends a challenge and reads the answer, decoded.
func (c *smtpSession) ask(challenge string) ([]byte, bool) {
	c.say("334 " + challenge)
	if c.out.Flush() != nil {
		c.ending = true
		return nil, false
	}
	line, err := c.line(maxAuthLine)
	if err != nil {
		c.mistake(replyLineLong)
		c.ending = true
		return nil, false
	}
	return c.decode(line)
}

func (c *smtpSession) decode(text string) ([]byte, bool) {
	switch text {
	case "*":
		c.say(replyAuthAbort)
		return nil, false
	case "=":
		return nil, true
	}
	plain, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		c.mistake(replyAuthBase64)
		return nil, false
	}
	return plain, true
}

// bearer reads a token and the mailbox that it shall open.
func (c *smtpSession) bearer(mechanism, initial string) {
	var answer []byte
	var ok bool
	if initial == "" {
		answer, ok = c.ask("")
	} else {
		answer, ok = c.decode(initial)
	}
	if !ok {
		return
	}
	user, token := readXOAUTH2(string(answer))
	if mechanism == "OAUTHBEARER" {
		user, token = readOAuthBearer(string(answer))
	}
	c.x.sim.counts.add("smtp.auth")
	if f := c.x.sim.faults.smtpTrigger("smtp.AUTH", user); f != nil {
		c.suffer(f, func() {})
		return
	}
	who, reply := c.x.byBearer(user, token)
	if reply != "" {
		c.refuseAuth(mechanism, reply)
		return
	}
	c.who, c.box = who, strings.ToLower(who.mailbox.Address)
	c.x.enter(c.box, c)
	c.x.sim.counts.add("smtp.authenticated")
	c.say(replyAuthOK)
}

// refuseAuth answers a failed login: at once, as Exchange does, or behind the
// challenge with which Google and OAUTHBEARER explain it.
func (c *smtpSession) refuseAuth(mechanism, reply string) {
	c.x.sim.counts.add("smtp.auth_failures")
	if c.knobs().FailChallenge || mechanism == "OAUTHBEARER" {
		why, _ := json.Marshal(map[string]string{"status": "401", "schemes": "bearer", "scope": "https://outlook.office.com/SMTP.Send"})
		c.say("334 " + base64.StdEncoding.EncodeToString(why))
		if c.out.Flush() != nil {
			return
		}
		if _, err := c.line(maxAuthLine); err != nil {
			c.ending = true
			return
		}
	}
	c.failures++
	c.say(reply)
	if over(c.failures+1, c.knobs().AuthFailures) {
		c.say(replyTooManyBad)
	}
}

func readXOAUTH2(s string) (user, token string) {
	for _, part := range strings.Split(s, "\x01") {
		if v, ok := strings.CutPrefix(part, "user="); ok {
			user = v
		}
		if v, ok := cutPrefixFold(part, "auth=Bearer "); ok {
			token = v
		}
	}
	return user, token
}

// readOAuthBearer reads "n,a=user,\x01...\x01auth=Bearer token\x01\x01"
// (RFC 7628 section 3.1).
func readOAuthBearer(s string) (user, token string) {
	head, rest, _ := strings.Cut(s, "\x01")
	for _, part := range strings.Split(head, ",") {
		if v, ok := strings.CutPrefix(part, "a="); ok {
			user = strings.NewReplacer("=2C", ",", "=3D", "=").Replace(v)
		}
	}
	_, token = readXOAUTH2(rest)
	return user, token
}

func cutPrefixFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}

// open1 checks token and mailbox of a login by token.
func (x *exchange) byBearer(user, raw string) (*principal, string) {
	v := x.sim.world.now.Load()
	tok, err := x.sim.keys.verify(raw)
	if err != nil {
		x.sim.log.Debug("smtp login refused", "user", user, "why", err)
		return nil, replyAuthFailed
	}
	t, m := v.mailbox(user)
	if m == nil || t.ID != tok.TenantID || findResource(tok.Audience, t.Cloud) != exchangeResource ||
		strings.HasPrefix(tok.Audience, "https://ps.") {
		return nil, replyAuthFailed
	}
	who, reply := v.byToken(tok, t, m)
	if reply != "" {
		return nil, reply
	}
	if reply := switchedOff(t, m); reply != "" {
		return nil, reply
	}
	return who, ""
}

func (v *view) byToken(tok *token, t *Tenant, m *Mailbox) (*principal, string) {
	if tok.IDType == "app" {
		return v.appByToken(tok, t, m)
	}
	at, ok := v.userOf(tok)
	if !ok || !slices.Contains(strings.Fields(tok.Scopes), "SMTP.Send") {
		return nil, replyAuthFailed
	}
	u := at.item
	if u.Disabled || u.Deleted || !(u.owns(m) || listed(m.SendAs, u) || listed(m.FullAccess, u)) {
		return nil, replyAuthFailed
	}
	for i := range t.Rules {
		if t.Rules[i].Kind == RuleBlockSMTP && t.Rules[i].binds(u, tok.AppID) {
			return nil, reply5139Criteria
		}
	}
	return &principal{tenant: t, mailbox: m, user: u, app: tok.AppID}, ""
}

// userOf finds the user of a delegated token, a guest's home account too.
func (v *view) userOf(tok *token) (inTenant[User], bool) {
	if at, ok := v.users[strings.ToLower(tok.ObjectID)]; ok {
		return at, true
	}
	at, ok := v.users[strings.ToLower(tok.UPN)]
	return at, ok
}

// appByToken is a login without a user. It needs a role in the token and
// rights on the mailbox, or a scoped role of Exchange and then no role in the
// token. The service principal must name the enterprise application.
func (v *view) appByToken(tok *token, t *Tenant, m *Mailbox) (*principal, string) {
	p := &principal{tenant: t, mailbox: m, app: tok.AppID, service: t.service(tok.AppID)}
	if p.service == nil || !strings.EqualFold(p.service.ObjectID, tok.ObjectID) {
		return nil, replyAuthFailed
	}
	if slices.Contains(tok.Roles, "SMTP.SendAsApp") {
		if containsFold(p.service.FullAccess, m.Address) || containsFold(p.service.SendAs, m.Address) {
			return p, ""
		}
		return nil, replyAuthFailed
	}
	p.scoped = t.assignments(tok.AppID, roleSendAsApp)
	if inScope(p.scoped, m) {
		return p, ""
	}
	return nil, replyAuthFailed
}

func (t *Tenant) service(app string) *Principal {
	for _, p := range t.Principals {
		if strings.EqualFold(p.App, app) {
			return p
		}
	}
	return nil
}

func (t *Tenant) assignments(app, role string) []RoleAssignment {
	var list []RoleAssignment
	for _, a := range t.Assignments {
		if strings.EqualFold(a.App, app) && strings.EqualFold(a.Role, role) {
			list = append(list, a)
		}
	}
	return list
}

// loginAuth is LOGIN, the old way with a password.
func (c *smtpSession) loginAuth(initial string) {
	var user []byte
	var ok bool
	if initial == "" {
		user, ok = c.ask("VXNlcm5hbWU6")
	} else {
		user, ok = c.decode(initial)
	}
	if !ok {
		return
	}
	password, ok := c.ask("UGFzc3dvcmQ6")
	if !ok {
		return
	}
	c.x.sim.counts.add("smtp.basic")
	who, reply := c.x.openBasic(string(user), string(password))
	if reply != "" {
		c.refuseAuth("LOGIN", reply)
		return
	}
	c.who, c.box = who, strings.ToLower(who.mailbox.Address)
	c.x.enter(c.box, c)
	c.say(replyAuthOK)
}

func (x *exchange) openBasic(name, password string) (*principal, string) {
	v := x.sim.world.now.Load()
	t, m := v.mailbox(name)
	at, known := v.users[strings.ToLower(name)]
	if m == nil || !known {
		return nil, replyBadPassword
	}
	switch {
	case t.ID == consumersTenant || t.BasicAuth == "disabled":
		return nil, replyBasicOff
	case t.SecurityDefaults:
		return nil, replyDefaults
	case switchedOff(t, m) != "":
		return nil, switchedOff(t, m)
	case t.BasicAuth != "allowed":
		return nil, replyBasicRetired
	case password == "" || password != at.item.Password || at.item.Disabled || at.item.Deleted:
		return nil, replyBadPassword
	}
	return &principal{tenant: t, mailbox: m, user: at.item}, ""
}
