package store

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/mailgrant/mailgrant"
)

// live is what of a grant a consent or a refresh changes.
type live struct {
	Subject   mailgrant.Subject `json:"subject"`
	Asked     []string          `json:"asked,omitempty"`
	Granted   []string          `json:"granted,omitempty"`
	Signature string            `json:"signature,omitempty"`
}

const grantColumns = `SELECT doc, live, state, generation, sealed, sealed_prev, consented_at, last_refresh, next_refresh,
	last_use, token_expires, finding, updated_at FROM grants`

func grantRow(r rows) (mailgrant.Grant, error) {
	var text, liveText, state, finding string
	var generation, consented, last, next, used, expires, updated int64
	var sealed, prev []byte
	if err := r.Scan(&text, &liveText, &state, &generation, &sealed, &prev, &consented, &last, &next, &used, &expires, &finding, &updated); err != nil {
		return mailgrant.Grant{}, err
	}
	var g mailgrant.Grant
	var l live
	if err := errors.Join(json.Unmarshal([]byte(text), &g), json.Unmarshal([]byte(liveText), &l)); err != nil {
		return g, err
	}
	g.Subject, g.ScopesAsked, g.ScopesGranted, g.Signature = l.Subject, l.Asked, l.Granted, l.Signature
	g.State, g.Generation, g.Sealed, g.SealedPrev = mailgrant.GrantState(state), generation, sealed, prev
	g.ConsentedAt, g.LastRefresh, g.NextRefresh = timeOf(consented), timeOf(last), timeOf(next)
	g.LastUse, g.TokenExpires, g.LastFinding = timeOf(used), timeOf(expires), fromJSON[mailgrant.Finding](finding)
	g.UpdatedAt = fromMicros(updated)
	return g, nil
}

// grantSettings is what of a grant only people change.
func grantSettings(g mailgrant.Grant) string {
	return toJSON(mailgrant.Grant{ID: g.ID, Org: g.Org, Registration: g.Registration, Mailbox: g.Mailbox, MailboxKind: g.MailboxKind,
		Flow: g.Flow, Capabilities: g.Capabilities, CreatedAt: g.CreatedAt})
}

func grantLive(g mailgrant.Grant) string {
	return toJSON(live{g.Subject, g.ScopesAsked, g.ScopesGranted, g.Signature})
}

// Grants are those of the organization, oldest first.
func (s *Store) Grants(ctx context.Context, org mailgrant.ID) ([]mailgrant.Grant, error) {
	return list(ctx, s.eng, grantColumns+" WHERE org = ? ORDER BY id", []any{string(org)}, grantRow)
}

// Grant is one of them.
func (s *Store) Grant(ctx context.Context, org, id mailgrant.ID) (mailgrant.Grant, error) {
	return first(ctx, s.eng, "grant", id, grantColumns+" WHERE org = ? AND id = ?", []any{string(org), string(id)}, grantRow)
}

// CreateGrant adds g, pending.
func (s *Store) CreateGrant(ctx context.Context, g mailgrant.Grant) error {
	n, err := s.change(ctx, mailgrant.Event{Org: g.Org, Kind: "grant.created", Subject: g.ID},
		stmt{"INSERT INTO grants (org, id, registration, state, doc, live, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
			[]any{string(g.Org), string(g.ID), string(g.Registration), string(g.State), grantSettings(g), grantLive(g), micros(time.Now())}})
	if errors.Is(err, errReference) {
		return notFound("registration", g.Registration)
	}
	return written(n, err, "grant", g.ID)
}

// UpdateGrant replaces the settings of g: mailbox, kind, flow, capabilities.
func (s *Store) UpdateGrant(ctx context.Context, g mailgrant.Grant) error {
	n, err := s.change(ctx, mailgrant.Event{Org: g.Org, Kind: "grant.changed", Subject: g.ID},
		stmt{"UPDATE grants SET doc = ?, updated_at = ? WHERE org = ? AND id = ?", []any{grantSettings(g), micros(time.Now()), string(g.Org), string(g.ID)}})
	return written(n, err, "grant", g.ID)
}

// DeleteGrant removes a grant that no mailbox uses.
func (s *Store) DeleteGrant(ctx context.Context, org, id mailgrant.ID) error {
	return s.tx(ctx, func(ctx context.Context, q querier) error {
		users, err := list(ctx, q, mailboxColumns+" WHERE org = ? AND grant_id = ?", []any{string(org), string(id)}, mailboxRow)
		if err != nil {
			return err
		}
		if len(users) > 0 {
			return inUse("grant", "mailboxes", names(users, func(m mailgrant.Mailbox) string { return m.Address }))
		}
		n, err := q.exec(ctx, "DELETE FROM grants WHERE org = ? AND id = ?", string(org), string(id))
		if err != nil {
			return err
		}
		if n == 0 {
			return notFound("grant", id)
		}
		return s.addEvent(ctx, q, mailgrant.Event{Org: org, Kind: "grant.deleted", Subject: id})
	})
}

// GrantsDue are active grants that nobody used for so long that the keeper must
// refresh them, soonest first.
func (s *Store) GrantsDue(ctx context.Context, at time.Time, limit int) ([]mailgrant.Grant, error) {
	return list(ctx, s.eng, grantColumns+" WHERE state = 'active' AND next_refresh > 0 AND next_refresh <= ? ORDER BY next_refresh LIMIT ?",
		[]any{micros(at), limit}, grantRow)
}

// PostponeGrant puts off the refresh of an idle grant that could not be made now,
// so that those behind it have their turn.
func (s *Store) PostponeGrant(ctx context.Context, org, id mailgrant.ID, until time.Time) error {
	_, err := s.do(ctx, stmt{"UPDATE grants SET next_refresh = ? WHERE org = ? AND id = ? AND next_refresh > 0 AND next_refresh < ?",
		[]any{micros(until), string(org), string(id), micros(until)}})
	return err
}

// CompleteConsent makes g active with what the consent brought. Its mailboxes
// are no longer held.
func (s *Store) CompleteConsent(ctx context.Context, g mailgrant.Grant) error {
	defer s.told()
	return s.tx(ctx, func(ctx context.Context, q querier) error {
		now := time.Now()
		n, err := q.exec(ctx, `UPDATE grants SET state = 'active', live = ?, generation = generation + 1, sealed = ?, sealed_prev = NULL,
			lease_node = '', lease_until = 0, consented_at = ?, last_refresh = ?, next_refresh = ?, token_expires = ?, finding = '', updated_at = ?
			WHERE org = ? AND id = ?`,
			grantLive(g), g.Sealed, micros(now), micros(now), microsOf(g.NextRefresh), microsOf(g.TokenExpires), micros(now), string(g.Org), string(g.ID))
		if err != nil {
			return err
		}
		if n == 0 {
			return notFound("grant", g.ID)
		}
		if s.Clustered() { // tokens of the consent before are not to be handed on
			if _, err := q.exec(ctx, "DELETE FROM handover WHERE org = ? AND grant_id = ?", string(g.Org), string(g.ID)); err != nil {
				return err
			}
		}
		held, err := list(ctx, q, mailboxColumns+" WHERE org = ? AND grant_id = ?", []any{string(g.Org), string(g.ID)}, mailboxRow)
		if err != nil {
			return err
		}
		for _, m := range held {
			if m.Hold != nil && m.Hold.ProbeAt.After(now.Add(neverProbes)) { // of a restore: only a person ends it
				continue
			}
			if err := s.resume(ctx, q, m.Org, m.ID); err != nil {
				return err
			}
		}
		return s.addEvent(ctx, q, mailgrant.Event{Org: g.Org, Kind: "grant.active", Subject: g.ID, Data: []byte(toJSON(map[string]any{
			"mailbox": g.Mailbox, "signed_in_as": g.Subject, "scopes": g.ScopesGranted}))})
	})
}

// LeaseGrant takes the right to refresh a grant for a time. held is false when
// another node has it; g is the grant as it stands now. The time is measured by
// the database's clock where nodes share one, whatever theirs say. R-RE4.
func (s *Store) LeaseGrant(ctx context.Context, org, id, node mailgrant.ID, d time.Duration) (g mailgrant.Grant, held bool, err error) {
	lease := stmt{`UPDATE grants SET lease_node = ?, lease_until = ? WHERE org = ? AND id = ?
		AND (lease_node = ? OR lease_node = '' OR lease_until < ?)`,
		[]any{string(node), micros(time.Now().Add(d)), string(org), string(id), string(node), micros(time.Now())}}
	if s.Clustered() {
		lease = stmt{`UPDATE grants SET lease_node = ?, lease_until = ` + present + ` + ? WHERE org = ? AND id = ?
			AND (lease_node = ? OR lease_node = '' OR lease_until < ` + present + `)`,
			[]any{string(node), d.Microseconds(), string(org), string(id), string(node)}}
	}
	n, err := s.do(ctx, lease)
	if err != nil {
		return g, false, err
	}
	g, err = s.Grant(ctx, org, id)
	return g, n[0] == 1, err
}

// ReleaseGrant gives the right back.
func (s *Store) ReleaseGrant(ctx context.Context, org, id, node mailgrant.ID) error {
	_, err := s.do(ctx, stmt{"UPDATE grants SET lease_node = '', lease_until = 0 WHERE org = ? AND id = ? AND lease_node = ?",
		[]any{string(org), string(id), string(node)}})
	return err
}

// freeGrants takes back the leases of a process that was killed: nobody else has
// this database, and a refresh need not wait for them to end.
func (s *Store) freeGrants(ctx context.Context) error {
	_, err := s.do(ctx, stmt{"UPDATE grants SET lease_node = '', lease_until = 0 WHERE lease_node <> ''", nil})
	return err
}

// RenewGrant keeps what a refresh brought. It is refused when the lease or the
// grant changed hands meanwhile.
func (s *Store) RenewGrant(ctx context.Context, r Renewal) error {
	return s.tx(ctx, func(ctx context.Context, q querier) error {
		g, err := first(ctx, q, "grant", r.Grant, grantColumns+" WHERE org = ? AND id = ? AND lease_node = ? AND generation = ?"+s.eng.forUpdate(),
			[]any{string(r.Org), string(r.Grant), string(r.Node), r.Generation}, grantRow)
		if errors.Is(err, mailgrant.NotFound) {
			return fencedOut(err)
		}
		if err != nil {
			return err
		}
		sealed, prev := g.Sealed, g.SealedPrev
		if r.Sealed != nil {
			sealed, prev = r.Sealed, g.Sealed
		}
		if r.Scopes != nil {
			g.ScopesGranted = r.Scopes
		}
		state := mailgrant.GrantActive
		if _, err := q.exec(ctx, `UPDATE grants SET state = ?, live = ?, generation = generation + 1, sealed = ?, sealed_prev = ?,
			lease_node = '', lease_until = 0, last_refresh = ?, next_refresh = ?, token_expires = ?, finding = '', updated_at = ?
			WHERE org = ? AND id = ?`, string(state), grantLive(g), sealed, prev, micros(r.At), micros(r.Next), micros(r.Expires), micros(time.Now()),
			string(r.Org), string(r.Grant)); err != nil {
			return err
		}
		if s.Clustered() {
			for _, h := range r.Handover {
				if _, err := q.exec(ctx, `INSERT INTO handover (org, grant_id, resource, sealed, expires_at) VALUES (?, ?, ?, ?, ?)
					ON CONFLICT (org, grant_id, resource) DO UPDATE SET sealed = excluded.sealed, expires_at = excluded.expires_at`,
					string(r.Org), string(r.Grant), h.Resource, h.Sealed, micros(s.shared(h.Expires))); err != nil {
					return err
				}
			}
		}
		if g.State == mailgrant.GrantActive {
			return nil
		}
		return s.addEvent(ctx, q, mailgrant.Event{Org: r.Org, Kind: "grant.active", Subject: r.Grant})
	})
}

func fencedOut(err error) error {
	return mailgrant.Errorf(mailgrant.Conflict, err, "another node works this now").Fix("nothing: its result counts")
}

// LapseGrant says that a grant no longer works. The refresh token is kept: only
// an explicit disconnect destroys it.
func (s *Store) LapseGrant(ctx context.Context, org, id, node mailgrant.ID, generation int64, f mailgrant.Finding) error {
	defer s.told()
	return s.tx(ctx, func(ctx context.Context, q querier) error {
		g, err := first(ctx, q, "grant", id, grantColumns+" WHERE org = ? AND id = ? AND generation = ? AND (lease_node = ? OR lease_node = '')"+s.eng.forUpdate(),
			[]any{string(org), string(id), generation, string(node)}, grantRow)
		if errors.Is(err, mailgrant.NotFound) {
			return fencedOut(err)
		}
		if err != nil {
			return err
		}
		if _, err := q.exec(ctx, "UPDATE grants SET state = 'lapsed', lease_node = '', lease_until = 0, finding = ?, updated_at = ? WHERE org = ? AND id = ?",
			toJSON(f), micros(time.Now()), string(org), string(id)); err != nil {
			return err
		}
		if g.State == mailgrant.GrantLapsed {
			return nil
		}
		return s.addEvent(ctx, q, mailgrant.Event{Org: org, Kind: "grant.lapsed", Subject: id, Data: []byte(toJSON(f))})
	})
}

// NoteGrant keeps the last finding and the last use, each where it is given.
func (s *Store) NoteGrant(ctx context.Context, org, id mailgrant.ID, f *mailgrant.Finding, lastUse *time.Time) error {
	text := optional(f)
	n, err := s.do(ctx, stmt{`UPDATE grants SET finding = CASE WHEN ? <> '' THEN ? ELSE finding END,
		last_use = CASE WHEN ? > last_use THEN ? ELSE last_use END WHERE org = ? AND id = ?`,
		[]any{text, text, microsOf(lastUse), microsOf(lastUse), string(org), string(id)}})
	return written(n, err, "grant", id)
}

// RevokeGrant destroys the tokens of a grant.
func (s *Store) RevokeGrant(ctx context.Context, org, id mailgrant.ID) error {
	defer s.told()
	var stmts []stmt
	if s.Clustered() {
		stmts = append(stmts, stmt{"DELETE FROM handover WHERE org = ? AND grant_id = ?", []any{string(org), string(id)}})
	}
	stmts = append(stmts, stmt{`UPDATE grants SET state = 'revoked', generation = generation + 1, sealed = NULL, sealed_prev = NULL,
		lease_node = '', lease_until = 0, next_refresh = 0, updated_at = ? WHERE org = ? AND id = ?`,
		[]any{micros(time.Now()), string(org), string(id)}})
	n, err := s.change(ctx, mailgrant.Event{Org: org, Kind: "grant.revoked", Subject: id}, stmts...)
	if err != nil {
		return err
	}
	return written(n[len(n)-1:], nil, "grant", id)
}

// FetchHandover gives an access token that another node left.
func (s *Store) FetchHandover(ctx context.Context, org, grant mailgrant.ID, resource string) (sealed []byte, expires time.Time, err error) {
	if !s.Clustered() {
		return nil, expires, notFound("token", grant)
	}
	var at int64
	err = scan(ctx, s.eng, "SELECT sealed, expires_at FROM handover WHERE org = ? AND grant_id = ? AND resource = ?",
		[]any{string(org), string(grant), resource}, &sealed, &at)
	if errors.Is(err, errNone) {
		return nil, expires, notFound("token", grant)
	}
	return sealed, s.local(fromMicros(at)), err
}
