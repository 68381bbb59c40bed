package sim

import (
	"crypto/rand"
	"net/http"
	"strings"
	"time"
)

// A session is a browser that we gave a cookie.
type session struct {
	id      string
	made    time.Time
	signed  []*signedIn
	clients map[string]string // apps signed in to, for front-channel logout
}

// A signedIn is an account whose password the browser gave.
type signedIn struct {
	user string // object id at home
	sid  string
	at   time.Time
	mfa  bool
}

// An account is a user as one tenant sees it: a member, or a guest with an
// object id of its own.
type account struct {
	tenant *Tenant // whose token it gets
	home   *Tenant
	user   *User
	oid    string
}

const sessionCookie = "ESTSAUTH"

// session finds the browser's session, or gives it one.
func (en *entra) session(w http.ResponseWriter, r *http.Request) *session {
	now := en.sim.Now()
	for _, c := range r.CookiesNamed(sessionCookie) {
		s := en.sessions[c.Value]
		if s != nil && now.Sub(s.made) < time.Duration(en.view().Knobs.SessionLife) {
			return s
		}
	}
	s := &session{id: newSecretText(), made: now, clients: map[string]string{}}
	en.sessions[s.id] = s
	sweep(en.sessions, now, func(s *session) time.Time { return s.made })
	en.setCookie(w, r, s, 0)
	return s
}

func (en *entra) setCookie(w http.ResponseWriter, r *http.Request, s *session, age int) {
	http.SetCookie(w, &http.Cookie{Name: sessionCookie, Value: s.id, Path: "/", MaxAge: age,
		HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteLaxMode})
}

func newSecretText() string { return rand.Text() + rand.Text() }

// signedInAs finds an account's sign-in, unless it was revoked since.
func (s *session) signedInAs(u *User) *signedIn {
	for _, in := range s.signed {
		if in.user == u.ID && in.at.After(u.TokensValidFrom) {
			return in
		}
	}
	return nil
}

func (s *session) add(u *User, now time.Time) *signedIn {
	s.remove(u.ID)
	in := &signedIn{user: u.ID, sid: newGUID(), at: now}
	s.signed = append(s.signed, in)
	return in
}

func (s *session) remove(user string) {
	var left []*signedIn
	for _, in := range s.signed {
		if in.user != user {
			left = append(left, in)
		}
	}
	s.signed = left
}

// find looks an address up as somebody who signs in through segment g.
func (en *entra) find(address string, g segment) (*account, *aadError) {
	at, ok := en.view().users[strings.ToLower(strings.TrimSpace(address))]
	if !ok {
		return nil, nil
	}
	a := &account{tenant: at.tenant, home: at.tenant, user: at.item, oid: at.item.ID}
	if g.tenant == nil || g.tenant.ID == at.tenant.ID {
		return a, nil
	}
	for _, guest := range g.tenant.Guests {
		if at.item.goesBy(guest.Address) {
			a.tenant, a.oid = g.tenant, guest.ID
			return a, nil
		}
	}
	return a, fail("50020", "user", at.item.Address, "idp", "https://sts.windows.net/"+at.tenant.ID+"/",
		"tenant", g.tenant.Name)
}

// known lists the signed-in accounts of a browser that a flow could use.
func (en *entra) known(f *flow) []*account {
	var list []*account
	for _, in := range f.session.signed {
		at, ok := en.view().users[strings.ToLower(in.user)]
		if !ok || f.session.signedInAs(at.item) == nil {
			continue
		}
		if f.domain != "" && f.domain != "organizations" && f.domain != "consumers" &&
			!strings.EqualFold(domainOf(at.item.Address), f.domain) {
			continue
		}
		a, e := en.find(at.item.Address, f.segment)
		if e == nil && a != nil && f.segment.admits(a.tenant) {
			list = append(list, a)
		}
	}
	return list
}
