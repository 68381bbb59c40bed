package store

import (
	"context"
	"errors"
	"time"

	"github.com/mailgrant/mailgrant"
)

func flowRow(r rows) (Flow, error) {
	var text string
	var sealed []byte
	if err := r.Scan(&text, &sealed); err != nil {
		return Flow{}, err
	}
	f := fromJSON[Flow](text)
	if f == nil {
		return Flow{}, errors.New("store: a flow does not read")
	}
	f.Sealed = sealed
	return *f, nil
}

// CreateFlow keeps a trip to the provider that has begun.
func (s *Store) CreateFlow(ctx context.Context, f Flow) error {
	plain := f
	plain.Sealed = nil
	n, err := s.do(ctx, stmt{"INSERT INTO flows (org, id, state_hash, doc, sealed, expires_at) VALUES (?, ?, ?, ?, ?, ?)",
		[]any{string(f.Org), string(f.ID), f.StateHash, toJSON(plain), f.Sealed, micros(f.ExpiresAt)}})
	return written(n, err, "flow", f.ID)
}

// TakeFlow gives the flow of a state and removes it: it can be taken once. An
// unknown, used or ended one is not found.
func (s *Store) TakeFlow(ctx context.Context, stateHash []byte) (f Flow, err error) {
	err = s.tx(ctx, func(ctx context.Context, q querier) error {
		f, err = first(ctx, q, "flow", "", "SELECT doc, sealed FROM flows WHERE state_hash = ? AND expires_at > ?"+s.eng.forUpdate(),
			[]any{stateHash, micros(time.Now())}, flowRow)
		if err != nil {
			return err
		}
		n, err := q.exec(ctx, "DELETE FROM flows WHERE state_hash = ?", stateHash)
		if err == nil && n == 0 {
			return notFound("flow", f.ID)
		}
		return err
	})
	return f, err
}

// Flow is one that has not ended.
func (s *Store) Flow(ctx context.Context, org, id mailgrant.ID) (Flow, error) {
	return first(ctx, s.eng, "flow", id, "SELECT doc, sealed FROM flows WHERE org = ? AND id = ? AND expires_at > ?",
		[]any{string(org), string(id), micros(time.Now())}, flowRow)
}

// DeleteFlow gives a flow up.
func (s *Store) DeleteFlow(ctx context.Context, org, id mailgrant.ID) error {
	_, err := s.do(ctx, stmt{"DELETE FROM flows WHERE org = ? AND id = ?", []any{string(org), string(id)}})
	return err
}

// CreateConsentLink keeps a link by its hash.
func (s *Store) CreateConsentLink(ctx context.Context, l ConsentLink) error {
	n, err := s.do(ctx, stmt{"INSERT INTO consent_links (org, id, hash, doc, expires_at) VALUES (?, ?, ?, ?, ?)",
		[]any{string(l.Org), string(l.ID), l.Hash, toJSON(l), micros(l.ExpiresAt)}})
	return written(n, err, "link", l.ID)
}

// ConsentLinkByHash finds a link, used or not.
func (s *Store) ConsentLinkByHash(ctx context.Context, hash []byte) (ConsentLink, error) {
	return first(ctx, s.eng, "link", "", linkColumns+" WHERE hash = ?", []any{hash}, linkRow)
}

const linkColumns = "SELECT doc, used_at FROM consent_links"

func linkRow(r rows) (ConsentLink, error) {
	var text string
	var used int64
	if err := r.Scan(&text, &used); err != nil {
		return ConsentLink{}, err
	}
	l := fromJSON[ConsentLink](text)
	if l == nil {
		return ConsentLink{}, errors.New("store: a link does not read")
	}
	l.UsedAt = timeOf(used)
	return *l, nil
}

// UseConsentLink uses a link up. It can be done once, before its end.
func (s *Store) UseConsentLink(ctx context.Context, hash []byte) error {
	now := micros(time.Now())
	n, err := s.do(ctx, stmt{"UPDATE consent_links SET used_at = ? WHERE hash = ? AND used_at = 0 AND expires_at > ?", []any{now, hash, now}})
	return written(n, err, "link", "")
}

// DeleteConsentLink takes a link back.
func (s *Store) DeleteConsentLink(ctx context.Context, org, id mailgrant.ID) error {
	n, err := s.do(ctx, stmt{"DELETE FROM consent_links WHERE org = ? AND id = ?", []any{string(org), string(id)}})
	return written(n, err, "link", id)
}

// PutAdminConsent keeps what is known of an organization-wide approval.
func (s *Store) PutAdminConsent(ctx context.Context, c AdminConsent) error {
	_, err := s.do(ctx,
		stmt{`INSERT INTO admin_consents (org, registration, doc) VALUES (?, ?, ?)
			ON CONFLICT (org, registration) DO UPDATE SET doc = excluded.doc`, []any{string(c.Org), string(c.Registration), toJSON(c)}},
		s.event(mailgrant.Event{Org: c.Org, Kind: "admin_consent." + c.State, Subject: c.Registration}))
	s.told()
	return err
}

// AdminConsent is the newest answer for a registration.
func (s *Store) AdminConsent(ctx context.Context, org, registration mailgrant.ID) (AdminConsent, error) {
	return first(ctx, s.eng, "admin consent", registration, "SELECT doc FROM admin_consents WHERE org = ? AND registration = ?",
		[]any{string(org), string(registration)}, doc[AdminConsent])
}
