package provider

import (
	"net/url"
	"slices"
	"strings"

	"github.com/mailgrant/mailgrant"
)

// An Ask is what a grant shall be able to do.
type Ask struct {
	Capabilities []mailgrant.Capability
	Flow         mailgrant.Flow
	Kind         mailgrant.MailboxKind
	Extra, Leave []string // of the registration: asked besides, not to be asked
}

// AskOf is what a grant of a registration asks for.
func AskOf(r mailgrant.Registration, g mailgrant.Grant) Ask {
	return Ask{Capabilities: g.Capabilities, Flow: g.Flow, Kind: g.MailboxKind, Extra: r.ScopesExtra, Leave: r.ScopesLeave}
}

// A Plan is what to ask a provider for. A consent may span resources; a token is
// for one.
type Plan struct {
	Asked     []string            // by the consent
	Tokens    map[string][]string // by resource, in its token request
	Resources []string            // the first is that of the code exchange
	Notes     []string            // what was put right or left out, and why
}

// Scopes makes the smallest plan for what is asked.
func Scopes(s Settings, a Ask) (Plan, error) {
	b := builder{s: s, ask: a, plan: Plan{Tokens: map[string][]string{}}}
	plan := b.forPerson
	if a.Flow == mailgrant.FlowApp {
		plan = b.forApp
	}
	err := plan()
	return b.plan, err
}

type builder struct {
	s    Settings
	ask  Ask
	plan Plan
}

// forPerson names every scope, because a person should be asked for no more than
// is used.
func (b *builder) forPerson() error {
	for _, c := range b.ask.Capabilities {
		if err := b.supported(c); err != nil {
			return err
		}
		for _, scope := range b.scopesOf(c) {
			b.add(b.resource(c), scope)
		}
		if len(b.scopesOf(c)) == 0 && c != mailgrant.CanSignIn {
			b.open(b.resource(c))
		}
	}
	if err := b.extras(); err != nil {
		return err
	}
	if len(b.plan.Resources) == 0 && slices.Contains(b.ask.Capabilities, mailgrant.CanSignIn) {
		b.open(b.resource(mailgrant.CanSignIn)) // any token says who it is; only alone does it need one of its own
	}
	b.leave()
	b.dropCovered()
	b.whole()
	if len(b.plan.Resources) == 0 {
		return mailgrant.Errorf(mailgrant.Invalid, nil, "the grant asks for nothing").
			Fix("choose at least one capability: smtp, api_send, imap, pop, api_read, signin").At("capabilities")
	}
	return nil
}

// forApp asks for everything that an administrator gave the app: Entra lets the
// app name nothing else than .default, one resource at a time.
func (b *builder) forApp() error {
	for _, c := range b.ask.Capabilities {
		if c == mailgrant.CanSignIn {
			b.note("signin is left out: nobody signs in when the app acts as itself")
			continue
		}
		if err := b.supported(c); err != nil {
			return err
		}
		if scope := b.s.AppScopes[c]; scope != "" {
			b.add(b.resource(c), scope)
			continue
		}
		for _, scope := range b.s.Scopes[c] {
			b.add(b.resource(c), scope)
		}
		b.open(b.resource(c))
	}
	for _, e := range b.ask.Extra {
		if b.s.Microsoft() && !strings.HasSuffix(e, "/.default") {
			return mailgrant.Errorf(mailgrant.Invalid, nil, "%q cannot be asked for by the app itself", cut(e)).
				Fix("an app has the application permissions that an administrator gave it; add the permission there, and take this scope out").At("scopes_extra")
		}
	}
	if err := b.extras(); err != nil {
		return err
	}
	b.dropCovered()
	for _, r := range b.plan.Resources {
		b.plan.Asked = append(b.plan.Asked, b.plan.Tokens[r]...)
	}
	if len(b.plan.Resources) == 0 {
		return mailgrant.Errorf(mailgrant.Invalid, nil, "the grant asks for nothing").
			Fix("choose at least one capability: smtp, api_send, imap, pop, api_read").At("capabilities")
	}
	return nil
}

func (b *builder) supported(c mailgrant.Capability) error {
	if why := b.s.Unsupported[c]; why != "" {
		return mailgrant.Errorf(mailgrant.Invalid, nil, "%s cannot be used for %s: %s", b.s.Name, c, why).
			Fix("choose another capability or another provider").At("capabilities")
	}
	_, known := b.s.Scopes[c]
	if !known {
		return mailgrant.Errorf(mailgrant.Invalid, nil, "%s has no %s that mailgrant knows", b.s.Name, c).
			Fix("choose among %s, or set scopes.%s in the registration's overrides", either(capabilities(b.s.Scopes)), c).At("capabilities")
	}
	return nil
}

func capabilities(m map[mailgrant.Capability][]string) []string {
	var l []string
	for c := range m {
		l = append(l, string(c))
	}
	slices.Sort(l)
	return l
}

// scopesOf are those of one capability, for another's mailbox where it is shared.
func (b *builder) scopesOf(c mailgrant.Capability) []string {
	scopes := b.s.Scopes[c]
	for with, instead := range b.s.ScopesWith[c] {
		if slices.Contains(b.ask.Capabilities, with) {
			scopes = instead
		}
	}
	if b.ask.Kind != mailgrant.MailboxShared || b.s.SharedSuffix == "" || c != mailgrant.CanAPISend && c != mailgrant.CanAPIRead {
		return scopes
	}
	shared := make([]string, len(scopes))
	for i, s := range scopes {
		shared[i] = s + b.s.SharedSuffix
	}
	return shared
}

func (b *builder) resource(c mailgrant.Capability) string {
	if r := b.s.Resources[c]; r != "" {
		return r
	}
	return b.s.DefaultResource
}

func (b *builder) open(resource string) {
	if !slices.Contains(b.plan.Resources, resource) {
		b.plan.Resources = append(b.plan.Resources, resource)
	}
}

func (b *builder) add(resource, scope string) {
	b.open(resource)
	if !slices.Contains(b.plan.Tokens[resource], scope) {
		b.plan.Tokens[resource] = append(b.plan.Tokens[resource], scope)
	}
}

func (b *builder) note(s string) { b.plan.Notes = append(b.plan.Notes, s) }

// extras puts the registration's own scopes to the resources they belong to.
func (b *builder) extras() error {
	list, notes, err := b.s.Repair(strings.Join(b.ask.Extra, " "))
	if err != nil {
		return err
	}
	b.plan.Notes = append(b.plan.Notes, notes...)
	for _, scope := range list {
		if b.s.joins(scope) {
			continue
		}
		r := b.s.ResourceOf(scope)
		if isDefault(scope) && b.ask.Flow != mailgrant.FlowApp {
			return mailgrant.Errorf(mailgrant.Invalid, nil, "%q cannot be asked for together with single permissions", cut(scope)).
				Fix("take it out; name the permissions, or let the app act as itself").At("scopes_extra")
		}
		if b.s.TokenResourceRule == "single" && !slices.Contains(b.plan.Resources, r) {
			b.note(scope + " belongs to " + r + ", which nothing else here uses: it gets a token of its own, because one token serves one resource")
		}
		b.add(r, scope)
	}
	return nil
}

func isDefault(scope string) bool { return strings.HasSuffix(scope, "/.default") }

func (b *builder) leave() {
	if len(b.ask.Leave) == 0 {
		return
	}
	leave, _, _ := b.s.Repair(strings.Join(b.ask.Leave, " "))
	leave = append(leave, b.ask.Leave...)
	for r, list := range b.plan.Tokens {
		b.plan.Tokens[r] = slices.DeleteFunc(list, func(s string) bool { return slices.Contains(leave, s) })
	}
	b.s.BaseScopes = slices.DeleteFunc(slices.Clone(b.s.BaseScopes), func(s string) bool { return slices.Contains(leave, s) })
	if slices.Contains(leave, b.s.OfflineScope) {
		b.s.OfflineScope = ""
	}
}

// dropCovered takes out what another scope includes.
func (b *builder) dropCovered() {
	for r, list := range b.plan.Tokens {
		for _, big := range slices.Clone(list) {
			for _, small := range b.s.Covers[big] {
				if i := slices.Index(list, small); i >= 0 {
					list = slices.Delete(list, i, i+1)
					b.note(small + " is not asked: " + big + " includes it")
				}
			}
		}
		b.plan.Tokens[r] = list
	}
}

// whole is the whole consent: what may join any resource first.
func (b *builder) whole() {
	b.plan.Asked = slices.Clone(b.s.BaseScopes)
	if b.s.OfflineScope != "" {
		b.plan.Asked = append(b.plan.Asked, b.s.OfflineScope)
	}
	for _, r := range b.plan.Resources {
		b.plan.Asked = append(b.plan.Asked, b.plan.Tokens[r]...)
	}
}

// Exchange are the scopes of the code exchange: the first resource's, and what
// brings the ID token and the refresh token.
func (p Plan) Exchange(s Settings) []string {
	if len(p.Resources) == 0 {
		return p.Asked
	}
	var list []string
	for _, a := range p.Asked {
		if s.joins(a) {
			list = append(list, a)
		}
	}
	return append(list, p.Tokens[p.Resources[0]]...)
}

// Refresh are the scopes of a refresh for one resource; none where all tokens
// are alike, because then the provider gives what was consented.
func (p Plan) Refresh(s Settings, resource string) []string {
	if s.TokenResourceRule != "single" {
		return nil
	}
	list := slices.Clone(p.Tokens[resource])
	if len(list) == 0 { // signing in only
		list = append(list, s.BaseScopes...)
	}
	if s.OfflineScope != "" && slices.Contains(p.Asked, s.OfflineScope) {
		list = append(list, s.OfflineScope)
	}
	return list
}

// joins says whether a scope may stand beside those of any resource.
func (s Settings) joins(scope string) bool {
	switch scope {
	case "openid", "profile", "email", "offline_access":
		return true
	}
	return scope == s.OfflineScope && scope != ""
}

// ResourceOf is the resource a scope belongs to: a name of the template, or the
// host in the scope for one the template does not know.
func (s Settings) ResourceOf(scope string) string {
	for _, name := range sortedKeys(s.ResourceHosts) {
		for _, host := range s.ResourceHosts[name] {
			if strings.HasPrefix(strings.ToLower(scope), strings.ToLower(host)+"/") {
				return name
			}
		}
	}
	if s.TokenResourceRule != "single" || !strings.Contains(scope, "://") {
		return s.DefaultResource
	}
	u, err := url.Parse(scope)
	if err != nil || u.Host == "" {
		return s.DefaultResource
	}
	return strings.ToLower(u.Host)
}

// OneResource refuses scopes of two resources in one token request: the provider
// would, with AADSTS70011 or 28000, or give a token for the first.
func (s Settings) OneResource(scopes []string) error {
	if s.TokenResourceRule != "single" {
		return nil
	}
	first, of := "", ""
	for _, scope := range scopes {
		if s.joins(scope) {
			continue
		}
		r := s.ResourceOf(scope)
		if of != "" && r != of {
			return mailgrant.Errorf(mailgrant.Invalid, nil, "%s is for %s and %s is for %s: one token serves one of them", cut(first), of, cut(scope), r).
				Fix("ask for two tokens, one for each").At("scopes")
		}
		first, of = scope, r
	}
	return nil
}

func cut(s string) string {
	if len(s) > 100 {
		return s[:100] + "…"
	}
	return s
}
