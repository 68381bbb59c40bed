package store

import (
	"context"
	"encoding/base64"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
)

const webhookColumns = "SELECT doc, state, position, both_until, finding, failing_since, taken_at FROM webhooks"

func webhookRow(r rows) (mailgrant.Webhook, error) {
	var text, state, finding string
	var position, both, failing, taken int64
	if err := r.Scan(&text, &state, &position, &both, &finding, &failing, &taken); err != nil {
		return mailgrant.Webhook{}, err
	}
	w := fromJSON[mailgrant.Webhook](text)
	if w == nil {
		return mailgrant.Webhook{}, errors.New("store: a webhook does not read")
	}
	w.State, w.Position, w.Finding = mailgrant.WebhookState(state), position, fromJSON[mailgrant.Finding](finding)
	w.FailingAt, w.TakenAt = timeOf(failing), timeOf(taken)
	if both > time.Now().UnixMicro() {
		w.BothUntil = timeOf(both)
	}
	return *w, nil
}

// webhookDoc is what of a webhook only people change.
func webhookDoc(w mailgrant.Webhook) string {
	w.State, w.Position, w.Finding, w.FailingAt, w.TakenAt, w.BothUntil = "", 0, nil, nil, nil, nil
	w.Waiting, w.DeadLetters = 0, 0
	return toJSON(w)
}

// Webhooks are those of the organization, oldest first.
func (s *Store) Webhooks(ctx context.Context, org mailgrant.ID) ([]mailgrant.Webhook, error) {
	return s.WebhooksAfter(ctx, org, "", 0)
}

// WebhooksAfter are a page of the organization's.
func (s *Store) WebhooksAfter(ctx context.Context, org, after mailgrant.ID, limit int) ([]mailgrant.Webhook, error) {
	return page(ctx, s.eng, webhookColumns+" WHERE org = ?"+pageByID, []any{string(org)}, string(after), limit, webhookRow)
}

// Webhook is one of them.
func (s *Store) Webhook(ctx context.Context, org, id mailgrant.ID) (mailgrant.Webhook, error) {
	return first(ctx, s.eng, "webhook", id, webhookColumns+" WHERE org = ? AND id = ?", []any{string(org), string(id)}, webhookRow)
}

// WebhookByName finds a webhook by its name, in any case of letters.
func (s *Store) WebhookByName(ctx context.Context, org mailgrant.ID, name string) (mailgrant.Webhook, error) {
	return first(ctx, s.eng, "webhook", mailgrant.ID(name), webhookColumns+" WHERE org = ? AND name = ?", []any{string(org), Key(name)}, webhookRow)
}

// EveryWebhook are those of all organizations that are not switched off.
func (s *Store) EveryWebhook(ctx context.Context) ([]mailgrant.Webhook, error) {
	return list(ctx, s.eng, webhookColumns+" WHERE state <> 'disabled' ORDER BY org, id", nil, webhookRow)
}

// WebhookSecrets are what a webhook's events are signed with, sealed.
type WebhookSecrets struct {
	Sealed    []byte
	Previous  []byte    // nil: none
	BothUntil time.Time // when Previous ends
}

// WebhookSecrets are those of a webhook.
func (s *Store) WebhookSecrets(ctx context.Context, org, id mailgrant.ID) (w WebhookSecrets, err error) {
	var both int64
	err = scan(ctx, s.eng, "SELECT sealed, sealed_prev, both_until FROM webhooks WHERE org = ? AND id = ?", []any{string(org), string(id)}, &w.Sealed, &w.Previous, &both)
	if errors.Is(err, errNone) {
		return w, notFound("webhook", id)
	}
	w.BothUntil = fromMicros(both)
	return w, err
}

// CreateWebhook adds w, with its secret sealed. It is told of what comes from now on.
func (s *Store) CreateWebhook(ctx context.Context, w mailgrant.Webhook, sealed []byte) error {
	n, err := s.changeWebhook(ctx, w.Org, w.ID, "webhook.created", stmt{`INSERT INTO webhooks (org, id, name, state, position, doc, sealed)
		VALUES (?, ?, ?, ?, (SELECT COALESCE(MAX(seq), 0) FROM events WHERE org = ?), ?, ?)`,
		[]any{string(w.Org), string(w.ID), Key(w.Name), string(mailgrant.WebhookActive), string(w.Org), webhookDoc(w), sealed}})
	if errors.Is(err, errReference) {
		return notFound("organization", w.Org)
	}
	return written(n, err, "webhook", w.ID)
}

// UpdateWebhook replaces the settings of w, and its state when it is switched on
// or off. One that is switched on begins anew: it is neither failing nor is
// anything of it put off.
func (s *Store) UpdateWebhook(ctx context.Context, w mailgrant.Webhook) error {
	n, err := s.changeWebhook(ctx, w.Org, w.ID, "webhook.changed",
		stmt{"UPDATE waiting SET due_at = 0, since = ? WHERE org = ? AND webhook = ? AND dead = 0 AND ? <> 'disabled' AND EXISTS (SELECT 1 FROM webhooks WHERE org = ? AND id = ? AND state = 'disabled')",
			[]any{micros(time.Now()), string(w.Org), string(w.ID), string(w.State), string(w.Org), string(w.ID)}},
		stmt{`UPDATE webhooks SET name = ?, doc = ?,
			finding = CASE WHEN (state = 'disabled') <> (? = 'disabled') THEN '' ELSE finding END,
			failing_since = CASE WHEN (state = 'disabled') <> (? = 'disabled') THEN 0 ELSE failing_since END,
			state = CASE WHEN ? = 'disabled' THEN 'disabled' WHEN state = 'disabled' THEN 'active' ELSE state END WHERE org = ? AND id = ?`,
			[]any{Key(w.Name), webhookDoc(w), string(w.State), string(w.State), string(w.State), string(w.Org), string(w.ID)}})
	if err != nil {
		return written(nil, err, "webhook", w.ID)
	}
	return written(n[1:], nil, "webhook", w.ID)
}

// RotateWebhook gives a webhook a new secret. Until both, the one before signs too.
func (s *Store) RotateWebhook(ctx context.Context, org, id mailgrant.ID, sealed []byte, both time.Time) error {
	n, err := s.changeWebhook(ctx, org, id, "webhook.rotated", stmt{"UPDATE webhooks SET sealed_prev = sealed, sealed = ?, both_until = ? WHERE org = ? AND id = ?",
		[]any{sealed, micros(both), string(org), string(id)}})
	return written(n, err, "webhook", id)
}

// DeleteWebhook removes a webhook and all that waits for it.
func (s *Store) DeleteWebhook(ctx context.Context, org, id mailgrant.ID) error {
	var stmts []stmt
	for _, t := range []string{"waiting", "replays", "deliveries"} {
		stmts = append(stmts, stmt{"DELETE FROM " + t + " WHERE org = ? AND webhook = ?", []any{string(org), string(id)}})
	}
	n, err := s.changeWebhook(ctx, org, id, "webhook.deleted", append(stmts, stmt{"DELETE FROM webhooks WHERE org = ? AND id = ?", []any{string(org), string(id)}})...)
	if err != nil {
		return err
	}
	return written(n[len(stmts):], nil, "webhook", id)
}

// unnamed refuses to remove what a webhook names: that would go on without a word,
// and tell of nothing.
func unnamed(ctx context.Context, q querier, org mailgrant.ID, what string, names func(mailgrant.Webhook) bool) error {
	all, err := list(ctx, q, webhookColumns+" WHERE org = ? ORDER BY id", []any{string(org)}, webhookRow)
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(all, names); i >= 0 {
		return mailgrant.Errorf(mailgrant.Conflict, nil, "the webhook %s names the %s", all[i].Name, what).
			Fix("take it out of the webhook, or delete that first: mailgrant webhook delete %s", all[i].ID)
	}
	return nil
}

// changeWebhook is change, and has the node look that works the webhook.
func (s *Store) changeWebhook(ctx context.Context, org, id mailgrant.ID, kind string, stmts ...stmt) ([]int64, error) {
	n, err := s.change(ctx, mailgrant.Event{Org: org, Kind: kind, Subject: id}, stmts...)
	if err == nil && n[len(n)-1] > 0 {
		err = s.WakeLane(ctx, org, id)
	}
	return n, err
}

// A WaitingEvent is one that was not taken, or stands behind such a one of its
// mailbox.
type WaitingEvent struct {
	Event    mailgrant.Event
	Attempts int
	Since    time.Time // when it began to wait
	DueAt    time.Time // zero: as soon as those before it are taken
	Dead     bool      // given up
	Last     *mailgrant.Delivery
}

// A WaitingLane is a mailbox with events that wait; "" is that of events without one.
type WaitingLane struct {
	Mailbox mailgrant.ID
	DueAt   time.Time // of its first
}

// WaitingLanes are those of a webhook.
func (s *Store) WaitingLanes(ctx context.Context, org, webhook mailgrant.ID) ([]WaitingLane, error) {
	return list(ctx, s.eng, "SELECT mailbox, MAX(due_at) FROM waiting WHERE webhook = ? AND dead = 0 AND org = ? GROUP BY mailbox",
		[]any{string(webhook), string(org)}, func(r rows) (l WaitingLane, err error) {
			var mailbox string
			var due int64
			err = r.Scan(&mailbox, &due)
			return WaitingLane{mailgrant.ID(mailbox), fromMicros(due)}, err
		})
}

const waitingColumns = `SELECT w.org, w.seq, w.mailbox, w.dead, w.attempts, w.since, w.due_at, w.doc,
	COALESCE(e.kind, ''), COALESCE(e.at, 0), COALESCE(e.subject, ''), COALESCE(e.app, ''), COALESCE(e.data, '') FROM waiting w LEFT JOIN events e ON e.org = w.org AND e.seq = w.seq`

// waitingRow reads one; its Kind is "" when the event is no more in the log.
func waitingRow(r rows) (w WaitingEvent, err error) {
	var org, mailbox, text, subject, app, data string
	var dead, attempts, since, due, at int64
	if err := r.Scan(&org, &w.Event.Seq, &mailbox, &dead, &attempts, &since, &due, &text, &w.Event.Kind, &at, &subject, &app, &data); err != nil {
		return w, err
	}
	w.Event.Org, w.Event.Mailbox, w.Event.Subject, w.Event.App = mailgrant.ID(org), mailgrant.ID(mailbox), mailgrant.ID(subject), mailgrant.ID(app)
	w.Event.At, w.Event.Data = fromMicros(at), []byte(data)
	w.Attempts, w.Since, w.DueAt, w.Dead, w.Last = int(attempts), fromMicros(since), fromMicros(due), dead != 0, fromJSON[mailgrant.Delivery](text)
	return w, nil
}

// WaitingEvents are the first of a mailbox that wait for a webhook, in order.
func (s *Store) WaitingEvents(ctx context.Context, org, webhook, mailbox mailgrant.ID, limit int) ([]WaitingEvent, error) {
	return list(ctx, s.eng, waitingColumns+" WHERE w.webhook = ? AND w.dead = 0 AND w.mailbox = ? AND w.org = ? ORDER BY w.seq LIMIT ?",
		[]any{string(webhook), string(mailbox), string(org), limit}, waitingRow)
}

// WaitingFor names the webhooks that each of some events waits for, or that gave it up.
func (s *Store) WaitingFor(ctx context.Context, org mailgrant.ID, seqs []int64) (map[int64][]mailgrant.ID, error) {
	out := map[int64][]mailgrant.ID{}
	for part := range slices.Chunk(seqs, namesAtOnce) {
		args := []any{string(org)}
		for _, n := range part {
			args = append(args, n)
		}
		_, err := list(ctx, s.eng, "SELECT seq, webhook FROM waiting WHERE org = ? AND seq IN "+marks(len(part)), args, func(r rows) (bool, error) {
			var seq int64
			var id string
			err := r.Scan(&seq, &id)
			out[seq] = append(out[seq], mailgrant.ID(id))
			return true, err
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// WaitingCounts says how many events wait for a webhook, and how many it gave up. Both
// values of dead are named so that SQLite goes by the key, not by the organization.
func (s *Store) WaitingCounts(ctx context.Context, org, webhook mailgrant.ID) (waiting, dead int64, err error) {
	err = scan(ctx, s.eng, "SELECT COALESCE(SUM(1 - dead), 0), COALESCE(SUM(dead), 0) FROM waiting WHERE webhook = ? AND dead IN (0, 1) AND org = ?",
		[]any{string(webhook), string(org)}, &waiting, &dead)
	return waiting, dead, err
}

// A Replay is a span of the event log that a webhook is told once more.
type Replay struct {
	ID       mailgrant.ID
	Position int64 // events to here are done with
	Until    int64 // the last
}

// AddReplay has a webhook told once more of the events after a seq, to another.
func (s *Store) AddReplay(ctx context.Context, org, webhook mailgrant.ID, r Replay) error {
	n, err := s.changeWebhook(ctx, org, webhook, "webhook.replayed", stmt{`INSERT INTO replays (org, webhook, id, position, until)
		SELECT org, id, ?, ?, ? FROM webhooks WHERE org = ? AND id = ?`, []any{string(r.ID), r.Position, r.Until, string(org), string(webhook)}})
	return written(n, err, "webhook", webhook)
}

// Replays are those of a webhook that are not done, oldest first.
func (s *Store) Replays(ctx context.Context, org, webhook mailgrant.ID) ([]Replay, error) {
	return list(ctx, s.eng, "SELECT id, position, until FROM replays WHERE webhook = ? AND org = ? ORDER BY id", []any{string(webhook), string(org)}, func(r rows) (Replay, error) {
		var p Replay
		var id string
		err := r.Scan(&id, &p.Position, &p.Until)
		p.ID = mailgrant.ID(id)
		return p, err
	})
}

// ReplayDead has a webhook told once more of all that it gave up, and says how
// many those are.
func (s *Store) ReplayDead(ctx context.Context, org, webhook mailgrant.ID) (n int64, err error) {
	now := micros(time.Now())
	err = s.tx(ctx, func(ctx context.Context, q querier) error {
		if _, err := first(ctx, q, "webhook", webhook, webhookColumns+" WHERE org = ? AND id = ?", []any{string(org), string(webhook)}, webhookRow); err != nil {
			return err
		}
		if n, err = q.exec(ctx, `INSERT INTO waiting (org, webhook, mailbox, seq, dead, attempts, since, due_at, doc)
			SELECT org, webhook, mailbox, seq, 0, 0, ?, 0, doc FROM waiting WHERE webhook = ? AND dead = 1 AND org = ?
			ON CONFLICT (webhook, dead, mailbox, seq) DO NOTHING`, now, string(webhook), string(org)); err != nil {
			return err
		}
		if _, err := q.exec(ctx, "DELETE FROM waiting WHERE webhook = ? AND dead = 1 AND org = ?", string(webhook), string(org)); err != nil {
			return err
		}
		return s.addEvent(ctx, q, mailgrant.Event{Org: org, Kind: "webhook.replayed", Subject: webhook})
	})
	if err != nil {
		return 0, err
	}
	s.told()
	return n, s.WakeLane(ctx, org, webhook)
}

// Deliveries are a page of a webhook's last tries, newest first, and the cursor of
// the next page, "" after the last.
func (s *Store) Deliveries(ctx context.Context, org, webhook mailgrant.ID, after string, limit int) (l []mailgrant.Delivery, next string, err error) {
	q, args := "SELECT doc FROM deliveries WHERE webhook = ? AND org = ?", []any{string(webhook), string(org)}
	if after != "" {
		at, id, err := placeOf(after)
		if err != nil {
			return nil, "", err
		}
		q += " AND (at, id) < (?, ?)"
		args = append(args, at, id)
	}
	return s.deliveries(ctx, q+" ORDER BY at DESC, id DESC LIMIT ?", args, limit, func(d mailgrant.Delivery) string { return place(micros(d.At), d.ID) })
}

// DeadLetters are a page of what a webhook gave up, the last try of each: by
// mailbox, and in the order of the log.
func (s *Store) DeadLetters(ctx context.Context, org, webhook mailgrant.ID, after string, limit int) (l []mailgrant.Delivery, next string, err error) {
	q, args := "SELECT doc FROM waiting WHERE webhook = ? AND dead = 1 AND org = ?", []any{string(webhook), string(org)}
	if after != "" {
		seq, mailbox, err := placeOf(after)
		if err != nil {
			return nil, "", err
		}
		q += " AND (mailbox, seq) > (?, ?)"
		args = append(args, mailbox, seq)
	}
	l, next, err = s.deliveries(ctx, q+" ORDER BY mailbox, seq LIMIT ?", args, limit, func(d mailgrant.Delivery) string { return place(d.Event, d.Mailbox) })
	for i := range l {
		l[i].State, l[i].RetryAt = mailgrant.DeliveryDead, nil
	}
	return l, next, err
}

func (s *Store) deliveries(ctx context.Context, q string, args []any, limit int, end func(mailgrant.Delivery) string) (l []mailgrant.Delivery, next string, err error) {
	if limit <= 0 {
		limit = 50
	}
	l, err = list(ctx, s.eng, q, append(args, limit+1), doc[mailgrant.Delivery])
	if err == nil && len(l) > limit {
		l = l[:limit]
		next = end(l[limit-1])
	}
	return l, next, err
}

// place is a cursor of deliveries.
func place(n int64, id mailgrant.ID) string {
	return base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(n, 10) + " " + string(id)))
}

func placeOf(cursor string) (n int64, id string, err error) {
	b, err := base64.RawURLEncoding.DecodeString(cursor)
	number, id, ok := strings.Cut(string(b), " ")
	if err == nil && ok {
		n, err = strconv.ParseInt(number, 10, 64)
	}
	if err != nil || !ok {
		return 0, "", mailgrant.Errorf(mailgrant.Invalid, err, "the cursor is not one of ours").Fix("take it from the answer before").At("cursor")
	}
	return n, id, nil
}

// Delivered finds the last try of a delivery in the log of a webhook.
func (s *Store) Delivered(ctx context.Context, org, webhook, id mailgrant.ID) (mailgrant.Delivery, error) {
	return first(ctx, s.eng, "delivery", id, "SELECT doc FROM deliveries WHERE webhook = ? AND org = ? AND id = ? ORDER BY at DESC LIMIT 1",
		[]any{string(webhook), string(org), string(id)}, doc[mailgrant.Delivery])
}

// AddDelivery keeps a try that belongs to no event: a test.
func (s *Store) AddDelivery(ctx context.Context, d mailgrant.Delivery) error {
	_, err := s.do(ctx, stmt{"INSERT INTO deliveries (org, webhook, at, id, doc) SELECT org, id, ?, ?, ? FROM webhooks WHERE org = ? AND id = ?",
		[]any{micros(d.At), string(d.ID), toJSON(d), string(d.Org), string(d.Webhook)}})
	return err
}

// The last tries of each webhook are kept so long, and so many.
const (
	DeliveriesFor = 3 * 24 * time.Hour
	DeliveriesMax = 1000
)

// A Telling is what became of events at a webhook since the last one.
type Telling struct {
	Org, Webhook mailgrant.ID
	Fence        Fence
	Position     int64 // events to here are taken, in Wait, waiting already, or not wanted; 0: as it was
	TakenAt      time.Time
	Wait         []WaitingEvent    // to be kept, or changed
	Done         []mailgrant.Event // wait no more, nor are they dead: Seq and Mailbox
	Expire       time.Time         // what has waited since before is dead; zero: nothing
	Replay       *Replay           // moved
	ReplayDone   bool              // to its end
	Deliveries   []mailgrant.Delivery
	Prune        bool           // older deliveries may be too many
	Arrivals     []mailgrant.ID // all webhooks that want them have them
	Turn         *Turn
	Events       []mailgrant.Event
}

// A Turn is a new state of a webhook.
type Turn struct {
	State   mailgrant.WebhookState
	Finding *mailgrant.Finding
	Since   time.Time // failing: since when
}

// RecordTelling keeps it, in one transaction; what expires goes before, in as many as
// it takes. Conflict when another node works the webhook now, or it is gone.
func (s *Store) RecordTelling(ctx context.Context, t Telling) error {
	for more := !t.Expire.IsZero(); more; {
		var err error
		if more, err = s.expire(ctx, t); err != nil {
			return err
		}
	}
	err := s.tx(ctx, func(ctx context.Context, q querier) error {
		if err := t.move(ctx, q); err != nil {
			return err
		}
		return execAll(ctx, q, s.telling(t))
	})
	if err == nil && (len(t.Events) > 0 || t.Turn != nil) {
		s.told()
	}
	return err
}

// move moves the place of the webhook. It keeps others from writing for it meanwhile.
func (t Telling) move(ctx context.Context, q querier) error {
	where, args := t.Fence.where([]any{t.Position, t.Position, micros(t.TakenAt), micros(t.TakenAt), string(t.Org), string(t.Webhook)})
	n, err := q.exec(ctx, `UPDATE webhooks SET position = CASE WHEN position < ? THEN ? ELSE position END,
		taken_at = CASE WHEN taken_at < ? THEN ? ELSE taken_at END WHERE org = ? AND id = ?`+where, args...)
	if err == nil && n == 0 {
		err = fencedOut(nil)
	}
	return err
}

// expireBatch is how many are given up in one transaction: there may be as many as an
// endpoint left in three days.
const expireBatch = 500

// expire gives up the first of what has waited for too long, and says whether there is
// more.
func (s *Store) expire(ctx context.Context, t Telling) (more bool, err error) {
	const old = " FROM waiting WHERE webhook = ? AND dead = 0 AND since < ? AND org = ? ORDER BY mailbox, seq LIMIT ?"
	args := []any{string(t.Webhook), micros(t.Expire), string(t.Org), expireBatch}
	err = s.tx(ctx, func(ctx context.Context, q querier) error {
		if err := (Telling{Org: t.Org, Webhook: t.Webhook, Fence: t.Fence}).move(ctx, q); err != nil {
			return err
		}
		if _, err := q.exec(ctx, `INSERT INTO waiting (org, webhook, mailbox, seq, dead, attempts, since, due_at, doc)
			SELECT * FROM (SELECT org, webhook, mailbox, seq, 1, attempts, since, due_at, doc`+old+`) o WHERE true
			ON CONFLICT (webhook, dead, mailbox, seq) DO NOTHING`, args...); err != nil {
			return err
		}
		n, err := q.exec(ctx, "DELETE FROM waiting WHERE webhook = ? AND dead = 0 AND (mailbox, seq) IN (SELECT mailbox, seq"+old+")", append([]any{string(t.Webhook)}, args...)...)
		more = n == expireBatch
		return err
	})
	return more, err
}

// telling are the statements behind the first.
func (s *Store) telling(t Telling) (stmts []stmt) {
	org, hook := string(t.Org), string(t.Webhook)
	for _, e := range t.Done {
		stmts = append(stmts, stmt{"DELETE FROM waiting WHERE webhook = ? AND dead IN (0, 1) AND mailbox = ? AND seq = ? AND org = ?",
			[]any{hook, string(e.Mailbox), e.Seq, org}})
	}
	for _, w := range t.Wait {
		if w.Dead {
			stmts = append(stmts, stmt{"DELETE FROM waiting WHERE webhook = ? AND dead = 0 AND mailbox = ? AND seq = ? AND org = ?",
				[]any{hook, string(w.Event.Mailbox), w.Event.Seq, org}})
		}
		stmts = append(stmts, stmt{`INSERT INTO waiting (org, webhook, mailbox, seq, dead, attempts, since, due_at, doc) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (webhook, dead, mailbox, seq) DO UPDATE SET attempts = excluded.attempts, since = excluded.since, due_at = excluded.due_at, doc = excluded.doc`,
			[]any{org, hook, string(w.Event.Mailbox), w.Event.Seq, flag(w.Dead), int64(w.Attempts), micros(w.Since), micros(w.DueAt), optional(w.Last)}})
	}
	if r := t.Replay; r != nil && t.ReplayDone {
		stmts = append(stmts, stmt{"DELETE FROM replays WHERE webhook = ? AND id = ? AND org = ?", []any{hook, string(r.ID), org}})
	} else if r != nil {
		stmts = append(stmts, stmt{"UPDATE replays SET position = ? WHERE webhook = ? AND id = ? AND org = ?", []any{r.Position, hook, string(r.ID), org}})
	}
	stmts = append(stmts, deliveryInserts(t)...)
	if t.Prune {
		stmts = append(stmts, stmt{`DELETE FROM deliveries WHERE webhook = ? AND org = ? AND at < (SELECT at FROM deliveries WHERE webhook = ? ORDER BY at DESC LIMIT 1 OFFSET ?)`,
			[]any{hook, org, hook, DeliveriesMax - 1}})
	}
	stmts = append(stmts, arrivalsTold(t.Org, t.Arrivals)...)
	if u := t.Turn; u != nil {
		stmts = append(stmts, stmt{"UPDATE webhooks SET state = ?, finding = ?, failing_since = ? WHERE org = ? AND id = ? AND state <> 'disabled'",
			[]any{string(u.State), optional(u.Finding), micros(u.Since), org, hook}})
	}
	for _, e := range t.Events {
		stmts = append(stmts, s.event(e))
	}
	return stmts
}

// deliveryInserts put many rows into one statement: over PostgreSQL each one is a
// trip. The sizes are few, so that the statements can be kept.
func deliveryInserts(t Telling) (stmts []stmt) {
	for rest := t.Deliveries; len(rest) > 0; {
		n := 1
		for n*4 <= min(len(rest), 64) {
			n *= 4
		}
		st := stmt{sql: "INSERT INTO deliveries (org, webhook, at, id, doc) VALUES (?, ?, ?, ?, ?)" + strings.Repeat(", (?, ?, ?, ?, ?)", n-1) + " ON CONFLICT DO NOTHING"}
		for _, d := range rest[:n] {
			st.args = append(st.args, string(t.Org), string(t.Webhook), micros(d.At), string(d.ID), toJSON(d))
		}
		stmts, rest = append(stmts, st), rest[n:]
	}
	return stmts
}

func arrivalsTold(org mailgrant.ID, ids []mailgrant.ID) (stmts []stmt) {
	for _, id := range ids {
		stmts = append(stmts, stmt{"UPDATE arrivals SET state = 1 WHERE org = ? AND id = ? AND state = 0", []any{string(org), string(id)}})
	}
	return stmts
}

// ArrivalsTold says that all webhooks that want these arrivals have them.
func (s *Store) ArrivalsTold(ctx context.Context, org mailgrant.ID, ids []mailgrant.ID) error {
	if len(ids) == 0 {
		return nil
	}
	_, err := s.do(ctx, arrivalsTold(org, ids)...)
	return err
}

// LastEvents are the numbers of the newest event of each organization, shown or
// not yet.
func (s *Store) LastEvents(ctx context.Context) (map[mailgrant.ID]int64, error) {
	out := map[mailgrant.ID]int64{}
	_, err := list(ctx, s.eng, "SELECT id, COALESCE((SELECT MAX(seq) FROM events WHERE org = o.id), 0) FROM organizations o", nil, func(r rows) (bool, error) {
		var id string
		var seq int64
		err := r.Scan(&id, &seq)
		out[mailgrant.ID(id)] = seq
		return true, err
	})
	return out, err
}

// EventsHidden says whether the organization has events after a seq that were not
// shown when it was read to there: over PostgreSQL a transaction that began before
// theirs was still open. They may be shown by now.
func (s *Store) EventsHidden(ctx context.Context, org mailgrant.ID, after int64) (bool, error) {
	if !s.Clustered() {
		return false, nil
	}
	_, err := one[int64](ctx, s.eng, "SELECT seq FROM events WHERE org = ? AND seq > ? LIMIT 1", string(org), after)
	if errors.Is(err, errNone) {
		return false, nil
	}
	return err == nil, err
}

// EventBefore is the seq of the last event that was added before a time, 0 when
// none was. It halves the log until it is found.
func (s *Store) EventBefore(ctx context.Context, org mailgrant.ID, at time.Time) (int64, error) {
	var low int64
	high, err := one[int64](ctx, s.eng, "SELECT COALESCE(MAX(seq), 0) FROM events WHERE org = ?", string(org))
	if err != nil {
		return 0, err
	}
	for low < high { // the last event up to low was before, what comes after high was not
		mid := low + (high-low+1)/2
		var seq, when int64
		if err := scan(ctx, s.eng, "SELECT seq, at FROM events WHERE org = ? AND seq >= ? ORDER BY seq LIMIT 1", []any{string(org), mid}, &seq, &when); err != nil {
			return 0, err
		}
		if when < micros(at) {
			low = seq
		} else {
			high = mid - 1
		}
	}
	return low, nil
}

// sweepEvents removes events that are past their time and that no webhook has to
// be told of any more, with what was given up of them.
func sweepEvents(org mailgrant.ID, before time.Time) []stmt {
	const old = `SELECT seq FROM events WHERE org = ? AND at < ?
		AND seq <= COALESCE((SELECT MIN(position) FROM webhooks WHERE org = ? AND state <> 'disabled'), ?)
		AND NOT EXISTS (SELECT 1 FROM waiting w WHERE w.org = events.org AND w.seq = events.seq AND w.dead = 0) ORDER BY seq LIMIT ?`
	args := []any{string(org), string(org), micros(before), string(org), int64(math.MaxInt64), sweepBatch}
	return []stmt{{"DELETE FROM waiting WHERE org = ? AND dead = 1 AND seq IN (" + old + ")", args}, {"DELETE FROM events WHERE org = ? AND seq IN (" + old + ")", args}}
}
