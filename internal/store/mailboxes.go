package store

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/mailgrant/mailgrant"
)

const mailboxColumns = `SELECT doc, state, hold, last_success,
	COALESCE((SELECT g.state FROM grants g WHERE g.org = mailboxes.org AND g.id = mailboxes.grant_id), '') FROM mailboxes`

func mailboxRow(r rows) (mailgrant.Mailbox, error) {
	var text, state, hold, grant string
	var success int64
	if err := r.Scan(&text, &state, &hold, &success, &grant); err != nil {
		return mailgrant.Mailbox{}, err
	}
	m := fromJSON[mailgrant.Mailbox](text)
	if m == nil {
		return mailgrant.Mailbox{}, errors.New("store: a mailbox does not read")
	}
	m.State, m.Hold, m.LastSuccess = mailgrant.MailboxState(state), fromJSON[mailgrant.Hold](hold), timeOf(success)
	m.GrantState = mailgrant.GrantState(grant)
	return *m, nil
}

// Mailboxes are those of the organization, oldest first.
func (s *Store) Mailboxes(ctx context.Context, org mailgrant.ID) ([]mailgrant.Mailbox, error) {
	return list(ctx, s.eng, mailboxColumns+" WHERE org = ? ORDER BY id", []any{string(org)}, mailboxRow)
}

// Mailbox is one of them.
func (s *Store) Mailbox(ctx context.Context, org, id mailgrant.ID) (mailgrant.Mailbox, error) {
	return first(ctx, s.eng, "mailbox", id, mailboxColumns+" WHERE org = ? AND id = ?", []any{string(org), string(id)}, mailboxRow)
}

// MailboxByAddress finds a mailbox by its address, in any case of letters.
func (s *Store) MailboxByAddress(ctx context.Context, org mailgrant.ID, address string) (mailgrant.Mailbox, error) {
	return first(ctx, s.eng, "mailbox", mailgrant.ID(address), mailboxColumns+" WHERE org = ? AND address = ?",
		[]any{string(org), Key(address)}, mailboxRow)
}

// MailboxesByRole are the mailboxes with a role, oldest first.
func (s *Store) MailboxesByRole(ctx context.Context, org mailgrant.ID, role mailgrant.MailboxRole) ([]mailgrant.Mailbox, error) {
	return list(ctx, s.eng, mailboxColumns+" WHERE org = ? AND role = ? ORDER BY id", []any{string(org), string(role)}, mailboxRow)
}

// MailboxesByGrant are the mailboxes that use a grant.
func (s *Store) MailboxesByGrant(ctx context.Context, org, grant mailgrant.ID) ([]mailgrant.Mailbox, error) {
	return list(ctx, s.eng, mailboxColumns+" WHERE org = ? AND grant_id = ? ORDER BY id", []any{string(org), string(grant)}, mailboxRow)
}

// CreateMailbox adds m.
func (s *Store) CreateMailbox(ctx context.Context, m mailgrant.Mailbox) error {
	n, err := s.change(ctx, mailgrant.Event{Org: m.Org, Kind: "mailbox.created", Subject: m.ID, Mailbox: m.ID},
		stmt{"INSERT INTO mailboxes (org, id, address, role, grant_id, state, doc, receive) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
			[]any{string(m.Org), string(m.ID), Key(m.Address), string(m.Role), string(m.Grant), string(m.State), settingsOf(m), receiveOf(m)}})
	if errors.Is(err, errReference) {
		return notFound("organization", m.Org)
	}
	return written(n, err, "mailbox", m.ID)
}

// settingsOf is what of a mailbox only people change.
func settingsOf(m mailgrant.Mailbox) string {
	m.State, m.Hold, m.LastSuccess, m.GrantState = "", nil, nil, ""
	return toJSON(m)
}

func receiveOf(m mailgrant.Mailbox) string {
	if m.Receive == nil {
		return ""
	}
	return m.Receive.Protocol
}

// ReadMailboxes are the mailboxes of all organizations that are to be read.
func (s *Store) ReadMailboxes(ctx context.Context) ([]Lane, error) {
	return list(ctx, s.eng, "SELECT org, id FROM mailboxes WHERE receive <> '' AND state <> 'disabled'", nil, func(r rows) (Lane, error) {
		var org, id string
		err := r.Scan(&org, &id)
		return Lane{mailgrant.ID(org), mailgrant.ID(id)}, err
	})
}

// TellReader adds an event of reading a mailbox: that it is held for a cause, or is
// read again, with the cause "". What was told of it before is not told once more,
// whichever process did.
func (s *Store) TellReader(ctx context.Context, cause string, e mailgrant.Event) error {
	_, err := s.change(ctx, e, stmt{"UPDATE mailboxes SET reader_told = ? WHERE org = ? AND id = ? AND reader_told <> ?",
		[]any{cause, string(e.Org), string(e.Mailbox), cause}})
	return err
}

// UpdateMailbox replaces the settings of m, and its state when it is switched on
// or off. A hold stays.
func (s *Store) UpdateMailbox(ctx context.Context, m mailgrant.Mailbox) error {
	n, err := s.change(ctx, mailgrant.Event{Org: m.Org, Kind: "mailbox.changed", Subject: m.ID, Mailbox: m.ID},
		stmt{`UPDATE mailboxes SET address = ?, role = ?, grant_id = ?, doc = ?, receive = ?,
			state = CASE WHEN ? = 'disabled' THEN 'disabled' WHEN hold <> '' THEN 'held' ELSE 'active' END
			WHERE org = ? AND id = ?`,
			[]any{Key(m.Address), string(m.Role), string(m.Grant), settingsOf(m), receiveOf(m), string(m.State), string(m.Org), string(m.ID)}})
	return written(n, err, "mailbox", m.ID)
}

// DeleteMailbox removes a mailbox that has nothing left to send, and that no webhook
// names.
func (s *Store) DeleteMailbox(ctx context.Context, org, id mailgrant.ID) error {
	defer s.told()
	return s.tx(ctx, func(ctx context.Context, q querier) error {
		// Somebody else's is not found, whatever waits there.
		if _, err := first(ctx, q, "mailbox", id, mailboxColumns+" WHERE org = ? AND id = ?"+s.eng.forUpdate(), []any{string(org), string(id)}, mailboxRow); err != nil {
			return err
		}
		waiting, err := one[int64](ctx, q, "SELECT COUNT(*) FROM submissions WHERE mailbox = ? AND org = ? AND final_at = 0", string(id), string(org))
		if err != nil {
			return err
		}
		if waiting > 0 {
			return mailgrant.Errorf(mailgrant.Conflict, nil, "the mailbox still has %d submissions to send", waiting).
				Fix("wait for them, or cancel them: mailgrant queue cancel --mailbox %s", id)
		}
		if err := unnamed(ctx, q, org, "mailbox", func(w mailgrant.Webhook) bool { return slices.Contains(w.Mailboxes, id) }); err != nil {
			return err
		}
		if err := execAll(ctx, q, []stmt{
			{"DELETE FROM mailboxes WHERE org = ? AND id = ?", []any{string(org), string(id)}},
			{"DELETE FROM seen WHERE mailbox = ?", []any{string(id)}}, // its arrivals stay, for their time
			{"DELETE FROM readings WHERE mailbox = ?", []any{string(id)}},
		}); err != nil {
			return err
		}
		return s.addEvent(ctx, q, mailgrant.Event{Org: org, Kind: "mailbox.deleted", Subject: id, Mailbox: id})
	})
}

// HoldMailbox keeps a mailbox's submissions back, with the reason. An event
// tells of a new hold or a new reason, not of each probe.
func (s *Store) HoldMailbox(ctx context.Context, org, id mailgrant.ID, h mailgrant.Hold) error {
	defer s.told()
	return s.tx(ctx, func(ctx context.Context, q querier) error {
		m, err := first(ctx, q, "mailbox", id, mailboxColumns+" WHERE org = ? AND id = ?"+s.eng.forUpdate(), []any{string(org), string(id)}, mailboxRow)
		if err != nil {
			return err
		}
		_, err = q.exec(ctx, "UPDATE mailboxes SET hold = ?, state = CASE WHEN state = 'disabled' THEN state ELSE 'held' END WHERE org = ? AND id = ?",
			toJSON(h), string(org), string(id))
		if err != nil {
			return err
		}
		if m.Hold != nil && m.Hold.Finding.Cause == h.Finding.Cause {
			return nil
		}
		return s.addEvent(ctx, q, mailgrant.Event{Org: org, Kind: "mailbox.held", Subject: id, Mailbox: id, Data: []byte(toJSON(h))})
	})
}

// ResumeMailbox ends a hold. The time of the hold is not counted against the
// life of the submissions it kept.
func (s *Store) ResumeMailbox(ctx context.Context, org, id mailgrant.ID) error {
	defer s.told()
	return s.tx(ctx, func(ctx context.Context, q querier) error { return s.resume(ctx, q, org, id) })
}

func (s *Store) resume(ctx context.Context, q querier, org, id mailgrant.ID) error {
	m, err := first(ctx, q, "mailbox", id, mailboxColumns+" WHERE org = ? AND id = ?"+s.eng.forUpdate(), []any{string(org), string(id)}, mailboxRow)
	if err != nil {
		return err
	}
	if m.Hold == nil {
		return nil
	}
	now := time.Now()
	if _, err := q.exec(ctx, "UPDATE mailboxes SET hold = '', state = CASE WHEN state = 'disabled' THEN state ELSE 'active' END WHERE org = ? AND id = ?",
		string(org), string(id)); err != nil {
		return err
	}
	// Those that came during the hold get no more than their own waiting time.
	if _, err := q.exec(ctx, "UPDATE submissions"+s.by("submissions_lane")+` SET expires_at = expires_at + ? - CASE WHEN accepted_at > ? THEN accepted_at ELSE ? END,
		due_at = CASE WHEN due_at > ? AND attempts > 0 THEN ? ELSE due_at END
		WHERE mailbox = ? AND org = ? AND final_at = 0`,
		micros(now), micros(m.Hold.Since), micros(m.Hold.Since), micros(now), micros(now), string(id), string(org)); err != nil {
		return err
	}
	if s.Clustered() { // its lane may be another node's
		w := wakeLane(org, id)
		if _, err := q.exec(ctx, w.sql, w.args...); err != nil {
			return err
		}
	}
	return s.addEvent(ctx, q, mailgrant.Event{Org: org, Kind: "mailbox.resumed", Subject: id, Mailbox: id})
}

// MarkSuccess notes that mail left through these mailboxes.
func (s *Store) MarkSuccess(ctx context.Context, at map[Lane]time.Time) error {
	stmts := make([]stmt, 0, len(at))
	for l, t := range at {
		stmts = append(stmts, stmt{"UPDATE mailboxes SET last_success = ? WHERE org = ? AND id = ? AND last_success < ?",
			[]any{micros(t), string(l.Org), string(l.Mailbox), micros(t)}})
	}
	if len(stmts) == 0 {
		return nil
	}
	_, err := s.do(ctx, stmts...)
	return err
}
