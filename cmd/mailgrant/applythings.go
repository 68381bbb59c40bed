package main

import (
	"context"
	"slices"
	"strings"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
)

func (p *plan) registration(w *wantRegistration) error {
	key := strings.ToLower(w.Name)
	have, exists := p.registrations[key]
	c := p.begin("registration", w.Name, w.line, exists)
	if !exists && w.Template == nil {
		return inFile(w.line, "the registration %s has no template", w.Name).Fix("add template: mailgrant registration templates lists them")
	}
	if exists && w.Template != nil && *w.Template != have.Template {
		return inFile(w.line, "the registration %s is one of %s, and stays that", w.Name, have.Template).Fix("make another under another name")
	}
	s := client.RegistrationSettings{
		Template: differs(c, "template", have.Template, w.Template), Cloud: differs(c, "cloud", have.Cloud, w.Cloud),
		Tenant: differs(c, "tenant", have.Tenant, w.Tenant), Issuer: differs(c, "issuer", have.Issuer, w.Issuer),
		ClientID: differs(c, "client_id", have.ClientID, w.ClientID), Prompt: differs(c, "prompt", have.Prompt, w.Prompt),
		Overrides:   differs(c, "overrides", have.Overrides, w.Overrides),
		ScopesExtra: differs(c, "scopes_extra", have.ScopesExtra, w.ScopesExtra), ScopesLeave: differs(c, "scopes_leave", have.ScopesLeave, w.ScopesLeave),
		DeviceFlow: differs(c, "device_flow", have.DeviceFlow, w.DeviceFlow), CAFile: differs(c, "ca_file", have.CAFile, w.CAFile),
		Disabled: differs(c, "disabled", have.Disabled, w.Disabled),
	}
	c.then(func(ctx context.Context) (err error) {
		switch {
		case !exists:
			s.Name = &w.Name
			have, err = p.cl.CreateRegistration(ctx, s)
		case c.Action == actChanged && s != (client.RegistrationSettings{}):
			have, err = p.cl.UpdateRegistration(ctx, have.ID, s)
		}
		p.registrations[key] = have
		return err
	})
	if !exists {
		p.registrations[key] = client.Registration{} // others of the file may name it
	}
	return p.credentials(c, key, have.Credentials, w)
}

// credentials adds those that are not there. What a secret is cannot be compared,
// so a new secret has a new description.
func (p *plan) credentials(c *change, key string, have []mailgrant.Credential, w *wantRegistration) error {
	left := slices.Clone(have)
	for i, x := range w.Credentials {
		if x.Kind == "" {
			x.Kind = mailgrant.CredentialSecret
		}
		is := func(k mailgrant.Credential) bool { return k.Kind == x.Kind && k.Description == x.Description }
		if j := slices.IndexFunc(left, is); j >= 0 {
			left = slices.Delete(left, j, j+1)
			continue
		}
		n := client.NewCredential{Kind: x.Kind, TokenFile: x.TokenFile, Description: x.Description, NotBefore: x.NotBefore, NotAfter: x.NotAfter}
		if x.Kind != mailgrant.CredentialNone && x.Kind != mailgrant.CredentialFederated {
			if (x.SecretEnv == "") == (x.SecretFile == "") {
				return inFile(w.line, "credential %d of %s does not say where its secret is", i+1, w.Name).Fix("add one of secret_env and secret_file")
			}
			var err error
			if n.Secret, err = p.secret(x); err != nil {
				return err
			}
		}
		c.note("credentials", nil, strings.TrimSpace(string(x.Kind)+" "+x.Description))
		c.then(func(ctx context.Context) error {
			_, err := p.cl.AddCredential(ctx, p.registrations[key].ID, n)
			return err
		})
	}
	return nil
}

// roleWord is a role as the file writes it.
func roleWord(r mailgrant.MailboxRole) string {
	if r == mailgrant.RoleNone {
		return "none"
	}
	return string(r)
}

// allMailboxes plans the mailboxes. A role of which there is one is taken from its
// holder before another gets it.
func (p *plan) allMailboxes(all []wantMailbox) error {
	taken := map[string]bool{}
	for _, w := range all {
		if w.Role != nil {
			taken[*w.Role] = true
		}
	}
	var first, then []*change
	before := len(p.changes)
	for i := range all {
		w := &all[i]
		have, exists := p.mailboxes[strings.ToLower(w.Address)]
		if err := p.mailbox(w, have, exists); err != nil {
			return err
		}
		c := p.changes[len(p.changes)-1]
		gives := exists && w.Role != nil && role(*w.Role) != have.Role && single(have.Role) && taken[string(have.Role)]
		if !gives {
			then = append(then, c)
			continue
		}
		first = append(first, c)
		if single(role(*w.Role)) { // it takes what another must give up first
			c.do = slices.Insert(c.do, 0, func(ctx context.Context) error { return p.freeRoles(ctx, all) })
		}
	}
	p.changes = append(append(p.changes[:before:before], first...), then...)
	return nil
}

// single says whether one mailbox only has this role.
func single(r mailgrant.MailboxRole) bool {
	return r == mailgrant.RoleGlobal || r == mailgrant.RoleSystem
}

// freeRoles takes the roles that the file gives to others from their holders.
func (p *plan) freeRoles(ctx context.Context, all []wantMailbox) error {
	none := mailgrant.RoleNone
	for _, w := range all {
		m, ok := p.mailboxes[strings.ToLower(w.Address)]
		if !ok || w.Role == nil || !single(m.Role) || role(*w.Role) == m.Role {
			continue
		}
		m, err := p.cl.UpdateMailbox(ctx, string(m.ID), client.MailboxSettings{Role: &none})
		if err != nil {
			return err
		}
		p.mailboxes[strings.ToLower(w.Address)] = m
	}
	return nil
}

func (p *plan) mailbox(w *wantMailbox, have mailgrant.Mailbox, exists bool) error {
	key := strings.ToLower(w.Address)
	c := p.begin("mailbox", w.Address, w.line, exists)
	var newRole *mailgrant.MailboxRole
	if r := differs(c, "role", roleWord(have.Role), w.Role); r != nil {
		v := role(*r)
		newRole = &v
	}
	disabled := have.State == mailgrant.MailboxDisabled
	s := client.MailboxSettings{
		DisplayName: differs(c, "display_name", have.DisplayName, w.DisplayName), Kind: differs(c, "kind", have.Kind, w.Kind),
		Role: newRole, Person: differs(c, "person", have.Person, w.Person),
		Transport: differs(c, "transport", have.Transport, w.Transport), Senders: differs(c, "senders", have.Senders, sameFold(have.Senders, w.Senders)),
		Limits: limits(c, have.Limits, w.Limits), Life: differs(c, "life", have.Life, w.Life),
		Uncertain: differs(c, "uncertain", have.Uncertain, w.Uncertain), Disabled: differs(c, "disabled", disabled, w.Disabled),
	}
	var err error
	if s.Receive, err = receive(c, have.Receive, w); err != nil {
		return err
	}
	if err := p.grant(c, w, have); err != nil {
		return err
	}
	own := s
	c.then(func(ctx context.Context) (err error) {
		now := p.mailboxes[key]
		if w.grantID != "" && w.grantID != now.Grant {
			s.Grant = &w.grantID
		}
		switch {
		case !exists:
			s.Address = &w.Address
			now, err = p.cl.CreateMailbox(ctx, s)
		case own != (client.MailboxSettings{}) || s.Grant != nil:
			now, err = p.cl.UpdateMailbox(ctx, string(now.ID), s)
		}
		p.mailboxes[key] = now
		return err
	})
	return nil
}

func limits(c *change, have mailgrant.Limits, w *wantLimits) *mailgrant.Limits {
	if w == nil {
		return nil
	}
	l, n := have, len(c.Fields)
	set(&l.Connections, differs(c, "limits.connections", have.Connections, w.Connections))
	set(&l.PerMinute, differs(c, "limits.per_minute", have.PerMinute, w.PerMinute))
	set(&l.RecipientsPerDay, differs(c, "limits.recipients_per_day", have.RecipientsPerDay, w.RecipientsPerDay))
	set(&l.MessageBytes, differs(c, "limits.message_bytes", have.MessageBytes, w.MessageBytes))
	if len(c.Fields) == n {
		return nil
	}
	return &l
}

// receive is how a mailbox is read with what the file wants otherwise; nil when
// nothing is to be done.
func receive(c *change, now *mailgrant.Receive, m *wantMailbox) (*mailgrant.Receive, error) {
	w := m.Receive
	if w == nil {
		return nil, nil
	}
	r := mailgrant.Receive{Protocol: "off"}
	if now != nil {
		r = *now
	}
	have, n := r, len(c.Fields)
	set(&r.Protocol, differs(c, "receive.protocol", have.Protocol, w.Protocol))
	if r.Protocol == "off" {
		if *w != (wantReceive{Protocol: w.Protocol}) {
			return nil, inFile(m.line, "receive of %s says how to read a mailbox that is not to be read", m.Address).
				Fix("add protocol: auto to it")
		}
		if len(c.Fields) == n {
			return nil, nil
		}
		return &r, nil
	}
	set(&r.Folders, differs(c, "receive.folders", have.Folders, w.Folders))
	if w.After != nil && afterWord(have.After) != *w.After {
		c.note("receive.after", afterWord(have.After), *w.After)
		if r.After = *w.After; r.After != mailgrant.AfterMove {
			r.MoveTo = ""
		}
	}
	set(&r.MoveTo, differs(c, "receive.move_to", have.MoveTo, w.MoveTo))
	if w.Since != nil && (have.Since == nil || !have.Since.Equal(*w.Since)) {
		c.note("receive.since", have.Since, *w.Since)
		r.Since, r.Everything = w.Since, false
	}
	if v := differs(c, "receive.everything", have.Everything, w.Everything); v != nil {
		if r.Everything = *v; *v && w.Since == nil {
			r.Since = nil
		}
	}
	set(&r.Poll, differs(c, "receive.poll", have.Poll, w.Poll))
	if w.Keep != nil && (have.Keep == nil || *have.Keep != *w.Keep) {
		c.note("receive.keep", have.Keep, *w.Keep)
		r.Keep = w.Keep
	}
	if len(c.Fields) == n {
		return nil, nil
	}
	return &r, nil
}

// afterWord is what becomes of read mail; the usual is to leave it.
func afterWord(a mailgrant.AfterRead) mailgrant.AfterRead {
	if a == "" {
		return mailgrant.AfterLeave
	}
	return a
}

func set[T any](to *T, v *T) {
	if v != nil {
		*to = *v
	}
}

// grantFor is the grant of a mailbox, or one that was made for it and that no other
// mailbox uses.
func (p *plan) grantFor(w *wantMailbox, have mailgrant.Mailbox) (client.Grant, bool) {
	for _, g := range p.grants {
		if have.Grant != "" && g.ID == have.Grant {
			return g, true
		}
	}
	reg := p.registrations[strings.ToLower(w.Grant.Registration)].ID
	for _, g := range p.grants {
		used := false
		for _, m := range p.mailboxes {
			used = used || m.Grant == g.ID
		}
		if !used && reg != "" && g.Registration == reg && strings.EqualFold(g.Mailbox, w.Address) && g.State != mailgrant.GrantRevoked {
			return g, true
		}
	}
	return client.Grant{}, false
}

// grant plans what a mailbox is to be consented for.
func (p *plan) grant(c *change, w *wantMailbox, have mailgrant.Mailbox) error {
	if w.Grant == nil {
		return nil
	}
	key := strings.ToLower(w.Grant.Registration)
	reg, ok := p.registrations[key]
	if !ok {
		return inFile(w.line, "the grant of %s names the registration %q, which is neither here nor in mailgrant", w.Address, w.Grant.Registration).
			Fix("add it under registrations, or name one of: mailgrant registration list")
	}
	g, exists := p.grantFor(w, have)
	s := client.GrantSettings{Flow: differs(c, "grant.flow", g.Flow, w.Grant.Flow), Capabilities: differs(c, "grant.capabilities", g.Capabilities, w.Grant.Capabilities)}
	move := !exists || g.Registration != reg.ID
	if move {
		c.note("grant.registration", p.registrationName(g.Registration), w.Grant.Registration)
	} else if have.Grant == "" {
		c.note("grant", "", string(g.ID))
	}
	c.then(func(ctx context.Context) error {
		if id := p.registrations[key].ID; move {
			s.Registration = &id
		}
		var err error
		switch {
		case !exists:
			s.Mailbox, s.MailboxKind = &w.Address, kindOf(w, have)
			g, err = p.cl.CreateGrant(ctx, s)
		case s != (client.GrantSettings{}):
			g, err = p.cl.UpdateGrant(ctx, g.ID, s)
		}
		if err == nil {
			p.keep(g)
			w.grantID = g.ID
		}
		return err
	})
	return nil
}

func (p *plan) keep(g client.Grant) {
	p.grants = append(slices.DeleteFunc(p.grants, func(x client.Grant) bool { return x.ID == g.ID }), g)
}

func kindOf(w *wantMailbox, have mailgrant.Mailbox) *mailgrant.MailboxKind {
	if w.Kind != nil {
		return w.Kind
	}
	if have.Kind != "" {
		return &have.Kind
	}
	return nil
}

func (p *plan) registrationName(id mailgrant.ID) string {
	for _, r := range p.registrations {
		if id != "" && r.ID == id {
			return r.Name
		}
	}
	return ""
}

func (p *plan) app(w *wantApp, boxes []wantMailbox) error {
	key := strings.ToLower(w.Name)
	have, exists := p.apps[key]
	c := p.begin("app", w.Name, w.line, exists)
	s := client.AppSettings{
		Classes: differs(c, "classes", have.Classes, w.Classes), Senders: differs(c, "senders", have.Senders, sameFold(have.Senders, w.Senders)),
		Doors: differs(c, "doors", have.Doors, w.Doors), PerMinute: differs(c, "per_minute", have.PerMinute, w.PerMinute),
		Disabled: differs(c, "disabled", have.Disabled, w.Disabled),
	}
	var named *[]string
	if w.Mailboxes != nil {
		if err := p.mayName(w, boxes); err != nil {
			return err
		}
		now := p.addresses(have.Mailboxes)
		named = differs(c, "mailboxes", now, sameFold(now, w.Mailboxes))
	}
	c.then(func(ctx context.Context) (err error) {
		if named != nil {
			ids := []mailgrant.ID{}
			for _, a := range *named {
				ids = append(ids, p.mailboxes[strings.ToLower(a)].ID)
			}
			s.Mailboxes = &ids
		}
		switch {
		case !exists:
			s.Name = &w.Name
			have, err = p.cl.CreateApp(ctx, s)
		case s != (client.AppSettings{}):
			have, err = p.cl.UpdateApp(ctx, string(have.ID), s)
		}
		p.apps[key] = have
		return err
	})
	return nil
}

// mayName sees that the mailboxes of an app are here or in mailgrant.
func (p *plan) mayName(w *wantApp, boxes []wantMailbox) error {
	for _, a := range *w.Mailboxes {
		_, ok := p.mailboxes[strings.ToLower(a)]
		if !ok && !slices.ContainsFunc(boxes, func(m wantMailbox) bool { return strings.EqualFold(m.Address, a) }) {
			return inFile(w.line, "the app %s names the mailbox %s, which is neither here nor in mailgrant", w.Name, a).
				Fix("add it under mailboxes, or name one of: mailgrant mailbox list")
		}
	}
	return nil
}

// addresses are those of mailboxes.
func (p *plan) addresses(ids []mailgrant.ID) []string {
	out := []string{}
	for _, id := range ids {
		name := string(id)
		for _, m := range p.mailboxes {
			if m.ID == id {
				name = m.Address
			}
		}
		out = append(out, name)
	}
	return out
}
