// Package route says which mailbox carries a submission, and why.
//
// System messages leave by the System mailbox only, and nothing else does. A
// person with an active grant sends through the own mailbox; everybody else
// through Global. The From rules of a mailbox decide which senders it may carry.
// Every answer has its reason; no answer is a refusal with its remedy.
package route

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/access"
)

// A Store is what route reads.
type Store interface {
	Mailbox(ctx context.Context, org, id mailgrant.ID) (mailgrant.Mailbox, error)
	MailboxByAddress(ctx context.Context, org mailgrant.ID, address string) (mailgrant.Mailbox, error)
	MailboxesByRole(ctx context.Context, org mailgrant.ID, role mailgrant.MailboxRole) ([]mailgrant.Mailbox, error)
	Grant(ctx context.Context, org, id mailgrant.ID) (mailgrant.Grant, error)
}

// A Router chooses. What it read it trusts for a short time, so that a busy
// mailbox costs no query per message.
type Router struct {
	store Store
	now   func() time.Time

	mu    sync.RWMutex
	cache map[cacheKey]cached
}

type cacheKey struct {
	org  mailgrant.ID
	kind string // "id", "address", "role", "grant"
	key  string
}

type cached struct {
	mailbox mailgrant.Mailbox
	grant   mailgrant.Grant
	err     error
	until   time.Time
}

const (
	// trustFor bounds how long a change made on another node goes unseen.
	trustFor = 2 * time.Second

	cacheMax = 50_000
)

// New makes a Router over s.
func New(s Store) *Router {
	return &Router{store: s, now: time.Now, cache: map[cacheKey]cached{}}
}

// Forget makes the router read everything anew: something was changed here.
func (r *Router) Forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cache = map[cacheKey]cached{}
}

// A Request is what a route depends on.
type Request struct {
	Class      mailgrant.Class
	OnBehalfOf string       // the person it is sent for, when the app says so
	From       string       // address in the From field
	Named      mailgrant.ID // a mailbox the caller named
}

// Choose answers with the mailbox and the reason.
func (r *Router) Choose(ctx context.Context, c mailgrant.Caller, q Request) (mailgrant.Route, mailgrant.Mailbox, error) {
	if q.Class == "" {
		q.Class = mailgrant.ClassUser
	}
	if err := mayClass(c, q.Class); err != nil {
		return mailgrant.Route{}, mailgrant.Mailbox{}, err
	}
	m, kind, reason, err := r.choose(ctx, c, q)
	if err != nil {
		return mailgrant.Route{}, m, err
	}
	if err := mayMailbox(c, m); err != nil {
		return mailgrant.Route{}, m, err
	}
	if m.State == mailgrant.MailboxDisabled {
		return mailgrant.Route{}, m, mailgrant.Errorf(mailgrant.NoRoute, nil, "the mailbox %s is switched off", m.Address).
			Fix("switch it on: mailgrant mailbox enable %s", m.Address)
	}
	return mailgrant.Route{Mailbox: m.ID, Address: m.Address, Kind: kind, Reason: reason}, m, nil
}

func mayClass(c mailgrant.Caller, class mailgrant.Class) error {
	if c.Operator {
		return nil
	}
	classes := c.App.Classes
	if len(classes) == 0 {
		classes = []mailgrant.Class{mailgrant.ClassUser}
	}
	for _, have := range classes {
		if have == class {
			return nil
		}
	}
	return mailgrant.Errorf(mailgrant.Forbidden, nil, "the app %s may not send messages of the class %q", c.App.Name, class).
		Fix("allow it: mailgrant app set %s --class %s", c.App.Name, class)
}

func mayMailbox(c mailgrant.Caller, m mailgrant.Mailbox) error {
	if c.Operator || len(c.App.Mailboxes) == 0 {
		return nil
	}
	for _, id := range c.App.Mailboxes {
		if id == m.ID {
			return nil
		}
	}
	return mailgrant.Errorf(mailgrant.Forbidden, nil, "the app %s may not send through %s", c.App.Name, m.Address).
		Fix("allow it: mailgrant app set %s --mailbox %s", c.App.Name, m.Address).See("refused-mailbox")
}

func (r *Router) choose(ctx context.Context, c mailgrant.Caller, q Request) (m mailgrant.Mailbox, kind, reason string, err error) {
	if q.Class == mailgrant.ClassSystem {
		return r.system(ctx, c.Org, q)
	}
	named := q.Named
	if named == "" {
		named = c.Mailbox
	}
	if named != "" {
		m, err = r.mailbox(ctx, c.Org, named)
		if err != nil {
			return m, "", "", err
		}
		if m.Role == mailgrant.RoleSystem {
			return m, "", "", mailgrant.Errorf(mailgrant.NoRoute, nil, "%s carries system messages only", m.Address).
				Fix("send with the class system, or name another mailbox")
		}
		return m, "named", "the caller named this mailbox", nil
	}
	return r.person(ctx, c.Org, q)
}

// system finds the System mailbox. It is never replaced by another. R10.
func (r *Router) system(ctx context.Context, org mailgrant.ID, q Request) (mailgrant.Mailbox, string, string, error) {
	m, err := r.role(ctx, org, mailgrant.RoleSystem)
	if errors.Is(err, mailgrant.NotFound) {
		return m, "", "", mailgrant.Errorf(mailgrant.NoRoute, err, "there is no System mailbox, and nothing else carries system messages").
			Fix("make one: mailgrant mailbox add noreply@… --role system")
	}
	if err != nil {
		return m, "", "", err
	}
	if q.Named != "" && q.Named != m.ID {
		return m, "", "", mailgrant.Errorf(mailgrant.NoRoute, nil, "system messages leave by %s only", m.Address).
			Fix("name no mailbox, or send with the class user")
	}
	if !access.Carries(m, q.From) {
		return m, "", "", notCarried(m, q.From, "System")
	}
	return m, "system", "system messages leave by the System mailbox", nil
}

func notCarried(m mailgrant.Mailbox, from, what string) error {
	return mailgrant.Errorf(mailgrant.NoRoute, nil, "the %s mailbox %s may not carry mail from %s", what, m.Address, from).
		Fix("send from %s, or add the sender: mailgrant mailbox set %s --sender %s", m.Address, m.Address, from)
}

func (r *Router) person(ctx context.Context, org mailgrant.ID, q Request) (mailgrant.Mailbox, string, string, error) {
	who := q.OnBehalfOf
	if who == "" {
		who = q.From
	}
	own, err := r.address(ctx, org, who)
	if err != nil && !errors.Is(err, mailgrant.NotFound) {
		return own, "", "", err
	}
	has := err == nil && own.Role != mailgrant.RoleSystem && own.Role != mailgrant.RoleGlobal && access.Carries(own, q.From)
	active := false
	if has {
		if active, err = r.active(ctx, own); err != nil {
			return own, "", "", err
		}
	}
	if has && active {
		if own.Role == mailgrant.RolePersonal {
			return own, "personal", fmt.Sprintf("%s has given access to the own mailbox", who), nil
		}
		return own, "named", fmt.Sprintf("%s is a mailbox of its own", who), nil
	}
	global, err := r.role(ctx, org, mailgrant.RoleGlobal)
	switch {
	case err == nil && access.Carries(global, q.From):
		why := fmt.Sprintf("%s has no mailbox here, so Global carries it", who)
		if has {
			why = fmt.Sprintf("%s has not given access yet, or it has lapsed, so Global carries it", who)
		} else if strings.EqualFold(who, global.Address) {
			why = "it is sent from the Global mailbox"
		}
		return global, "global", why, nil
	case err != nil && !errors.Is(err, mailgrant.NotFound):
		return global, "", "", err
	case has: // R25: nothing is lost for a lapsed grant
		return own, "personal", fmt.Sprintf("only the own mailbox may carry mail from %s; it waits there until access is given again", q.From), nil
	case err == nil:
		return global, "", "", notCarried(global, q.From, "Global")
	}
	return global, "", "", mailgrant.Errorf(mailgrant.NoRoute, nil, "no mailbox may carry mail from %s", q.From).
		Fix("connect this mailbox (mailgrant grant begin %s --role personal), or make a Global one (--role global)", q.From)
}

func (r *Router) active(ctx context.Context, m mailgrant.Mailbox) (bool, error) {
	if m.Grant == "" || m.State == mailgrant.MailboxDisabled {
		return false, nil
	}
	c := r.read(cacheKey{m.Org, "grant", string(m.Grant)}, func() (c cached) {
		c.grant, c.err = r.store.Grant(ctx, m.Org, m.Grant)
		return c
	})
	return c.grant.State == mailgrant.GrantActive, c.err
}

func (r *Router) mailbox(ctx context.Context, org, id mailgrant.ID) (mailgrant.Mailbox, error) {
	c := r.read(cacheKey{org, "id", string(id)}, func() (c cached) {
		c.mailbox, c.err = r.store.Mailbox(ctx, org, id)
		return c
	})
	return c.mailbox, c.err
}

func (r *Router) address(ctx context.Context, org mailgrant.ID, address string) (mailgrant.Mailbox, error) {
	c := r.read(cacheKey{org, "address", strings.ToLower(address)}, func() (c cached) {
		c.mailbox, c.err = r.store.MailboxByAddress(ctx, org, address)
		return c
	})
	return c.mailbox, c.err
}

func (r *Router) role(ctx context.Context, org mailgrant.ID, role mailgrant.MailboxRole) (mailgrant.Mailbox, error) {
	c := r.read(cacheKey{org, "role", string(role)}, func() (c cached) {
		l, err := r.store.MailboxesByRole(ctx, org, role)
		if err == nil && len(l) == 0 {
			err = mailgrant.Errorf(mailgrant.NotFound, nil, "there is no %s mailbox", role)
		}
		if err == nil {
			c.mailbox = l[0]
		}
		c.err = err
		return c
	})
	return c.mailbox, c.err
}

// read answers from the cache. Only what is certain is kept: a mailbox, or that
// there is none.
func (r *Router) read(k cacheKey, f func() cached) cached {
	now := r.now()
	r.mu.RLock()
	c, ok := r.cache[k]
	r.mu.RUnlock()
	if ok && now.Before(c.until) {
		return c
	}
	c = f()
	if c.err != nil && !errors.Is(c.err, mailgrant.NotFound) {
		return c
	}
	c.until = now.Add(trustFor)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.cache) >= cacheMax {
		r.cache = map[cacheKey]cached{}
	}
	r.cache[k] = c
	return c
}
