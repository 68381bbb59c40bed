package store

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/mailgrant/mailgrant"
)

// Lists by pages: at most so many things, 0 for all, in the order of their ids
// after one of them. Each is one range of an index, whatever stands around it.

func page[T any](ctx context.Context, q querier, text string, args []any, after any, limit int, f func(rows) (T, error)) ([]T, error) {
	if limit <= 0 {
		limit = math.MaxInt32
	}
	return list(ctx, q, text, append(args, after, limit), f)
}

const pageByID = " AND id > ? ORDER BY id LIMIT ?"

// OrganizationsAfter are a page of all there are.
func (s *Store) OrganizationsAfter(ctx context.Context, after mailgrant.ID, limit int) ([]mailgrant.Organization, error) {
	return page(ctx, s.eng, "SELECT doc FROM organizations WHERE id > ? ORDER BY id LIMIT ?", nil, string(after), limit, doc[mailgrant.Organization])
}

// RegistrationsAfter are a page of the organization's.
func (s *Store) RegistrationsAfter(ctx context.Context, org, after mailgrant.ID, limit int) ([]mailgrant.Registration, error) {
	return page(ctx, s.eng, "SELECT doc FROM registrations WHERE org = ?"+pageByID, []any{string(org)}, string(after), limit, doc[mailgrant.Registration])
}

// GrantsAfter are a page of the organization's.
func (s *Store) GrantsAfter(ctx context.Context, org, after mailgrant.ID, limit int) ([]mailgrant.Grant, error) {
	return page(ctx, s.eng, grantColumns+" WHERE org = ?"+pageByID, []any{string(org)}, string(after), limit, grantRow)
}

// GrantStates counts the organization's grants by their state.
func (s *Store) GrantStates(ctx context.Context, org mailgrant.ID) (map[mailgrant.GrantState]int, error) {
	type count struct {
		state string
		n     int
	}
	all, err := list(ctx, s.eng, "SELECT state, COUNT(*) FROM grants WHERE org = ? GROUP BY state", []any{string(org)}, func(r rows) (c count, err error) {
		return c, r.Scan(&c.state, &c.n)
	})
	m := map[mailgrant.GrantState]int{}
	for _, c := range all {
		m[mailgrant.GrantState(c.state)] = c.n
	}
	return m, err
}

// LinksAfter are a page of the organization's that still work. Others are swept
// within days.
func (s *Store) LinksAfter(ctx context.Context, org, after mailgrant.ID, limit int) ([]ConsentLink, error) {
	return page(ctx, s.eng, linkColumns+" WHERE org = ? AND used_at = 0 AND expires_at > ?"+pageByID, []any{string(org), micros(time.Now())}, string(after), limit, linkRow)
}

// MailboxesAfter are a page of the organization's.
func (s *Store) MailboxesAfter(ctx context.Context, org, after mailgrant.ID, limit int) ([]mailgrant.Mailbox, error) {
	return page(ctx, s.eng, mailboxColumns+" WHERE org = ?"+pageByID, []any{string(org)}, string(after), limit, mailboxRow)
}

// AppsAfter are a page of the organization's.
func (s *Store) AppsAfter(ctx context.Context, org, after mailgrant.ID, limit int) ([]mailgrant.App, error) {
	return page(ctx, s.eng, appColumns+" WHERE org = ?"+pageByID, []any{string(org)}, string(after), limit, doc[mailgrant.App])
}

// KeysAfter are a page of an app's.
func (s *Store) KeysAfter(ctx context.Context, org, app, after mailgrant.ID, limit int) ([]mailgrant.Key, error) {
	return page(ctx, s.eng, keyColumns+" WHERE org = ? AND app = ?"+pageByID, []any{string(org), string(app)}, string(after), limit, keyRow)
}

// AttemptsAfter are a page of a submission's, after the attempt of a number.
func (s *Store) AttemptsAfter(ctx context.Context, org, submission mailgrant.ID, after, limit int) ([]mailgrant.Attempt, error) {
	return page(ctx, s.eng, attemptColumns+" WHERE org = ? AND submission = ? AND n > ? ORDER BY n LIMIT ?",
		[]any{string(org), string(submission)}, after, limit, attemptRow)
}

// Counts is how many submissions a mailbox has waiting, and since when.
type Counts struct {
	Mailbox mailgrant.ID
	Address string
	Hold    *mailgrant.Hold
	Waiting int64
	Oldest  time.Time
}

// QueueAfter counts what waits, a page of mailboxes. It jumps in the lanes' index
// from one mailbox to the next, as BusyLanes does, and stops when the page is full:
// mailboxes with nothing to send cost nothing.
func (s *Store) QueueAfter(ctx context.Context, org, after mailgrant.ID, limit int) ([]Counts, error) {
	const text = `WITH RECURSIVE m(mailbox) AS (
			SELECT MIN(mailbox) FROM submissions WHERE final_at = 0 AND mailbox > ?
			UNION ALL
			SELECT (SELECT MIN(mailbox) FROM submissions WHERE final_at = 0 AND mailbox > m.mailbox) FROM m WHERE m.mailbox IS NOT NULL)
		SELECT (SELECT b.doc FROM mailboxes b WHERE b.org = ? AND b.id = m.mailbox), (SELECT b.hold FROM mailboxes b WHERE b.org = ? AND b.id = m.mailbox),
			(SELECT COUNT(*) FROM submissions s WHERE s.mailbox = m.mailbox AND s.final_at = 0), (SELECT MIN(s.due_at) FROM submissions s WHERE s.mailbox = m.mailbox AND s.final_at = 0)
		FROM m WHERE m.mailbox IS NOT NULL AND (SELECT b.id FROM mailboxes b WHERE b.org = ? AND b.id = m.mailbox) IS NOT NULL LIMIT ?`
	if limit <= 0 {
		limit = math.MaxInt32
	}
	return list(ctx, s.eng, text, []any{string(after), string(org), string(org), string(org), limit}, countsRow)
}

func countsRow(r rows) (Counts, error) {
	var text, hold string
	var c Counts
	var oldest *int64
	if err := r.Scan(&text, &hold, &c.Waiting, &oldest); err != nil {
		return c, err
	}
	m := fromJSON[mailgrant.Mailbox](text)
	if m == nil {
		return c, errors.New("store: a mailbox does not read")
	}
	c.Mailbox, c.Address, c.Hold = m.ID, m.Address, fromJSON[mailgrant.Hold](hold)
	if oldest != nil {
		c.Oldest = fromMicros(*oldest)
	}
	return c, nil
}
