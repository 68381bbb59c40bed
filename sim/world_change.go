package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Knobs returns the knobs as they are.
func (w *World) Knobs() Knobs { return w.now.Load().Knobs }

// ChangeKnobs changes the knobs.
func (w *World) ChangeKnobs(f func(*Knobs)) error {
	return w.Update(func(s *State) error { f(&s.Knobs); return nil })
}

// Tenant finds a tenant by id or domain.
func (w *World) Tenant(key string) (Tenant, bool) {
	t, ok := w.now.Load().tenants[strings.ToLower(key)]
	if !ok {
		return Tenant{}, false
	}
	return deepCopy(*t), true
}

// User finds a user by address, alias, UPN or object id.
func (w *World) User(key string) (User, bool) {
	return found(w.now.Load().users, key)
}

// Mailbox finds a mailbox by its address or one of its aliases.
func (w *World) Mailbox(key string) (Mailbox, bool) {
	return found(w.now.Load().mailboxes, key)
}

// App finds an app registration by client id.
func (w *World) App(id string) (App, bool) {
	return found(w.now.Load().apps, id)
}

func found[T any](index map[string]inTenant[T], key string) (T, bool) {
	at, ok := index[strings.ToLower(key)]
	if !ok {
		var none T
		return none, false
	}
	return deepCopy(*at.item), true
}

// ChangeTenant changes the tenant with that id or domain.
func (w *World) ChangeTenant(key string, f func(*Tenant)) error {
	return w.Update(func(s *State) error {
		for _, t := range s.Tenants {
			if strings.EqualFold(t.ID, key) || containsFold(t.Domains, key) {
				f(t)
				return nil
			}
		}
		return fmt.Errorf("no tenant %q", key)
	})
}

// ChangeUser changes the user with that address, alias, UPN or object id.
func (w *World) ChangeUser(key string, f func(*User)) error {
	return w.Update(func(s *State) error {
		for _, t := range s.Tenants {
			for _, u := range t.Users {
				if u.goesBy(key) {
					f(u)
					return nil
				}
			}
		}
		return fmt.Errorf("no user %q", key)
	})
}

// ChangeMailbox changes the mailbox with that address or alias.
func (w *World) ChangeMailbox(key string, f func(*Mailbox)) error {
	return w.Update(func(s *State) error {
		for _, t := range s.Tenants {
			for _, m := range t.Mailboxes {
				if m.goesBy(key) {
					f(m)
					return nil
				}
			}
		}
		return fmt.Errorf("no mailbox %q", key)
	})
}

// ChangeApp changes the app registration with that client id.
func (w *World) ChangeApp(id string, f func(*App)) error {
	return w.Update(func(s *State) error {
		for _, t := range s.Tenants {
			for _, a := range t.Apps {
				if strings.EqualFold(a.ID, id) {
					f(a)
					return nil
				}
			}
		}
		return fmt.Errorf("no app %q", id)
	})
}

// AddUser adds u and an own mailbox of the same address to a tenant.
func (w *World) AddUser(tenant string, u User) error {
	if u.ID == "" {
		u.ID = newGUID()
	}
	return w.ChangeTenant(tenant, func(t *Tenant) {
		t.Users = append(t.Users, &u)
		t.Mailboxes = append(t.Mailboxes, &Mailbox{Address: u.Address, Name: u.Name})
	})
}

// Revoke ends every grant and session of a user, as "revoke sessions" does.
// Grants made at or before the moment at are dead.
func (w *World) Revoke(user string, at time.Time) error {
	return w.ChangeUser(user, func(u *User) { u.TokensValidFrom = at })
}

// SetSMTPAuth flips the switch of a mailbox: "on", "off" or "inherit".
func (w *World) SetSMTPAuth(mailbox, to string) error {
	var disabled *bool
	switch to {
	case "on":
		disabled = new(bool)
	case "off":
		off := true
		disabled = &off
	case "inherit":
	default:
		return fmt.Errorf("SMTP AUTH is on, off or inherit, not %q", to)
	}
	return w.ChangeMailbox(mailbox, func(m *Mailbox) { m.SMTPAuthDisabled = disabled })
}

// ExpireSecret lets a secret of an app end at the moment at. An empty id means
// all of them.
func (w *World) ExpireSecret(app, id string, at time.Time) error {
	return w.ChangeApp(app, func(a *App) {
		for i := range a.Secrets {
			if id == "" || a.Secrets[i].ID == id {
				a.Secrets[i].End = at
			}
		}
	})
}

// ReplaceSecrets takes all secrets of an app away and gives it another.
func (w *World) ReplaceSecrets(app string, s Secret) error {
	if s.ID == "" {
		s.ID = newGUID()
	}
	return w.ChangeApp(app, func(a *App) { a.Secrets = []Secret{s} })
}

// Consent records what a user (an address, or "" for the whole tenant) grants
// to an app. Scopes and roles may be in any form a request may have.
func (w *World) Consent(tenant, user, app string, scopes, roles []string) error {
	oid := ""
	if user != "" {
		u, ok := w.User(user)
		if !ok {
			return fmt.Errorf("no user %q", user)
		}
		oid = u.ID
	}
	return w.ChangeTenant(tenant, func(t *Tenant) {
		t.consent(app, oid, fullScopes(scopes), fullScopes(roles))
	})
}

// RemoveConsents takes away what was granted to an app in a tenant: by one
// user, or with an empty user by everybody.
func (w *World) RemoveConsents(tenant, user, app string) error {
	u, known := w.User(user)
	if user != "" && !known {
		return fmt.Errorf("no user %q", user)
	}
	return w.ChangeTenant(tenant, func(t *Tenant) {
		t.Consents = slices.DeleteFunc(t.Consents, func(c *Consent) bool {
			return strings.EqualFold(c.App, app) && (user == "" || c.User == u.ID)
		})
	})
}

func (t *Tenant) consent(app, oid string, scopes, roles []string) {
	if t.enterprise(app) == nil {
		t.Enterprise = append(t.Enterprise, &Enterprise{App: app, ObjectID: newGUID()})
	}
	for _, c := range t.Consents {
		if strings.EqualFold(c.App, app) && c.User == oid {
			c.Scopes = union(c.Scopes, scopes)
			c.Roles = union(c.Roles, roles)
			return
		}
	}
	t.Consents = append(t.Consents, &Consent{App: app, User: oid, Scopes: scopes, Roles: roles})
}

func (t *Tenant) enterprise(app string) *Enterprise {
	for _, e := range t.Enterprise {
		if strings.EqualFold(e.App, app) {
			return e
		}
	}
	return nil
}

// consented lists the scopes of an app that a user has, own and by the
// administrator.
func (t *Tenant) consented(app, oid string) []string {
	var have []string
	for _, c := range t.Consents {
		if strings.EqualFold(c.App, app) && (c.User == "" || c.User == oid) {
			have = union(have, c.Scopes)
		}
	}
	return have
}

// roles lists the application permissions that an administrator granted.
func (t *Tenant) roles(app string) []string {
	var have []string
	for _, c := range t.Consents {
		if strings.EqualFold(c.App, app) && c.User == "" {
			have = union(have, c.Roles)
		}
	}
	return have
}

func (t *Tenant) hasDomain(d string) bool { return containsFold(t.Domains, d) }

func (u *User) goesBy(key string) bool {
	return strings.EqualFold(u.ID, key) || strings.EqualFold(u.Address, key) ||
		strings.EqualFold(u.upn(), key) || containsFold(u.Aliases, key)
}

func (u *User) upn() string {
	if u.UPN != "" {
		return u.UPN
	}
	return u.Address
}

func (u *User) isAdmin() bool {
	return slices.Contains(u.Roles, RoleGlobalAdmin) || slices.Contains(u.Roles, RoleAppAdmin)
}

func (m *Mailbox) goesBy(key string) bool {
	return strings.EqualFold(m.Address, key) || containsFold(m.Aliases, key)
}

func (r *Rule) binds(u *User, app string) bool {
	if containsFold(r.Except, u.Address) {
		return false
	}
	return (len(r.Users) == 0 || containsFold(r.Users, u.Address)) &&
		(len(r.Apps) == 0 || containsFold(r.Apps, app))
}

func containsFold(list []string, s string) bool {
	return slices.ContainsFunc(list, func(e string) bool { return strings.EqualFold(e, s) })
}

func union(a, b []string) []string {
	a = slices.Clone(a)
	for _, s := range b {
		if !slices.Contains(a, s) {
			a = append(a, s)
		}
	}
	return a
}
