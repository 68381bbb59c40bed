package api

import (
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/mailgrant/mailgrant"
)

// getToken gives an access token to an app that may have it. R73.
func (c *call) getToken() error {
	id := mailgrant.ID(c.args[0])
	if err := c.mayToken(id); err != nil {
		return err
	}
	t, err := c.Keeper.Token(c.r.Context(), c.by.Org, id, c.q.str("resource"))
	if err != nil {
		return err
	}
	b := make([]byte, 0, len(t.Value.Reveal())+256)
	c.send(c.route.status, jsonType, append(appendToken(b, t, time.Now()), '\n'))
	return nil
}

// appendToken writes a client.Token.
func appendToken(b []byte, t mailgrant.Token, now time.Time) []byte {
	b = appendText(append(b, `{"access_token":`...), t.Value.Reveal())
	b = appendText(append(b, `,"token_type":`...), t.Type)
	b = appendTime(append(b, `,"expires_at":`...), t.Expires)
	b = strconv.AppendInt(append(b, `,"expires_in":`...), int64(max(0, t.Expires.Sub(now)/time.Second)), 10)
	b = appendText(append(b, `,"resource":`...), t.Resource)
	if len(t.Scopes) > 0 {
		b = appendTexts(append(b, `,"scopes":`...), t.Scopes)
	}
	return append(b, '}')
}

// mayToken says whether the caller may have tokens of a grant: the operator, who
// manages the organization, and an app for the mailboxes that are listed in it.
// A token is more than the right to send, so an app without a list has none.
func (c *call) mayToken(grant mailgrant.ID) error {
	if c.can(mailgrant.ScopeManage) {
		return nil
	}
	listed := func(id mailgrant.ID) bool { return slices.Contains(c.by.App.Mailboxes, id) }
	if slices.ContainsFunc(c.tokens.known(c.by.Org, grant), listed) {
		return nil
	}
	boxes, err := c.tokens.read(c, grant) // a no is never from memory
	if err != nil {
		return err
	}
	if slices.ContainsFunc(boxes, listed) {
		return nil
	}
	if _, err := c.Store.Grant(c.r.Context(), c.by.Org, grant); err != nil {
		return err
	}
	return mailgrant.Errorf(mailgrant.Forbidden, nil, "the app %s may not have tokens of this grant", c.by.App.Name).
		Fix("list a mailbox of the grant in the app: mailgrant app set %s --mailbox ADDRESS", c.by.App.Name)
}

// permissions remembers for a moment which mailboxes use a grant, so that a token
// from the cache costs no query.
type permissions struct {
	mu sync.RWMutex
	m  map[permission]permitted
}

type permission struct{ org, grant mailgrant.ID }

type permitted struct {
	boxes []mailgrant.ID
	until time.Time
}

const (
	// permittedFor bounds how long a mailbox that was taken from a grant is
	// believed to have it.
	permittedFor = 2 * time.Second

	permissionsMax = 20_000
)

func (p *permissions) known(org, grant mailgrant.ID) []mailgrant.ID {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if have := p.m[permission{org, grant}]; time.Now().Before(have.until) {
		return have.boxes
	}
	return nil
}

func (p *permissions) read(c *call, grant mailgrant.ID) ([]mailgrant.ID, error) {
	now := time.Now() // before the store is asked
	boxes, err := c.Store.MailboxesByGrant(c.r.Context(), c.by.Org, grant)
	if err != nil || len(boxes) == 0 {
		return nil, err
	}
	have := permitted{until: now.Add(permittedFor)}
	for _, m := range boxes {
		have.boxes = append(have.boxes, m.ID)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.m == nil || len(p.m) >= permissionsMax {
		p.m = map[permission]permitted{}
	}
	p.m[permission{c.by.Org, grant}] = have
	return have.boxes, nil
}
