package store

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
)

var arrivalNumbers = map[mailgrant.ArrivalState]int64{
	mailgrant.ArrivalNew: 0, mailgrant.ArrivalDelivered: 1, mailgrant.ArrivalAcknowledged: 2, mailgrant.ArrivalIgnored: 3, mailgrant.ArrivalQuarantined: 4,
}

var arrivalNames = [...]mailgrant.ArrivalState{mailgrant.ArrivalNew, mailgrant.ArrivalDelivered, mailgrant.ArrivalAcknowledged,
	mailgrant.ArrivalIgnored, mailgrant.ArrivalQuarantined}

var afterNumbers = map[mailgrant.AfterRead]int64{mailgrant.AfterLeave: 0, mailgrant.AfterMark: 1, mailgrant.AfterMove: 2, mailgrant.AfterDelete: 3}
var afterNames = [...]mailgrant.AfterRead{mailgrant.AfterLeave, mailgrant.AfterMark, mailgrant.AfterMove, mailgrant.AfterDelete}

// A Position is how far a mailbox has been read.
type Position struct {
	Protocol string // of the reader whose cursor it is; "" = never read
	Cursor   string
	Doc      string // what else its owner keeps, JSON
}

// Position is that of a mailbox.
func (s *Store) Position(ctx context.Context, org, mailbox mailgrant.ID) (p Position, err error) {
	err = scan(ctx, s.eng, "SELECT protocol, position, doc FROM readings WHERE org = ? AND mailbox = ?", []any{string(org), string(mailbox)}, &p.Protocol, &p.Cursor, &p.Doc)
	if errors.Is(err, errNone) {
		return Position{}, nil
	}
	return p, err
}

// A Collected is one arrival to be kept.
type Collected struct {
	Arrival   mailgrant.Arrival
	BodyUntil time.Time // zero: without its bytes
	Body      []byte    // the only chunk, sealed; nil when the chunks are there already
	Loose     []byte    // the same for a message that is read another way
	Exact     []byte    // of its bytes
	Words     string    // what a search looks in, in small letters
	After     mailgrant.AfterRead
	Events    []mailgrant.Event

	// Loosely has a message count as taken when another with the same Loose was:
	// the mailbox is read another way since then, and bytes differ.
	Loosely bool
}

// A Page is what a reader took, and how far it came.
type Page struct {
	Org, Mailbox mailgrant.ID
	From, To     Position
	Messages     []Collected
	Known        []string // remote ids that are not to be taken: too old
	Fence        Fence
}

// Collect keeps a page: its arrivals with their bytes and events, and how far the
// mailbox has been read, in one transaction. What was taken before is left out;
// taken says which are new. Conflict when another reader came between.
func (s *Store) Collect(ctx context.Context, p Page) (taken []bool, err error) {
	err = s.tx(brings(ctx), func(ctx context.Context, q querier) error {
		taken = make([]bool, len(p.Messages)) // again at each run
		if err := s.advance(ctx, q, p); err != nil {
			return err
		}
		for _, remote := range p.Known {
			if _, err := q.exec(ctx, seenInsert, string(p.Mailbox), remote, []byte{}, []byte{}); err != nil {
				return err
			}
		}
		for i, c := range p.Messages {
			fresh, err := isFresh(ctx, q, p.Mailbox, c)
			if err != nil {
				return err
			}
			if !fresh {
				continue
			}
			taken[i] = true
			if err := execAll(ctx, q, s.collected(c)); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && len(p.Messages) > 0 {
		s.told()
	}
	return taken, err
}

// advance moves the position of a mailbox, when it is where the reader began and
// the mailbox is still this node's.
func (s *Store) advance(ctx context.Context, q querier, p Page) error {
	if p.From.Protocol == "" {
		if _, err := q.exec(ctx, `INSERT INTO readings (mailbox, org, protocol, position, doc)
			SELECT id, org, '', '', '' FROM mailboxes WHERE org = ? AND id = ? ON CONFLICT (mailbox) DO NOTHING`,
			string(p.Org), string(p.Mailbox)); err != nil {
			return err
		}
	}
	where, args := p.Fence.where([]any{p.To.Protocol, p.To.Cursor, p.To.Doc, string(p.Org), string(p.Mailbox), p.From.Protocol, p.From.Cursor, p.From.Doc})
	n, err := q.exec(ctx, "UPDATE readings SET protocol = ?, position = ?, doc = ? WHERE org = ? AND mailbox = ? AND protocol = ? AND position = ? AND doc = ?"+where, args...)
	if err == nil && n == 0 {
		return mailgrant.Errorf(mailgrant.Conflict, nil, "the mailbox is read by another, or another way, by now").Fix("nothing is to be done")
	}
	if err == nil && p.From.Protocol != "" && p.From.Protocol != p.To.Protocol {
		// The other way has other names: what was still to be done at the provider by
		// the old ones is left undone there.
		_, err = q.exec(ctx, "UPDATE arrivals"+s.by("arrivals_after")+" SET after = 0 WHERE org = ? AND mailbox = ? AND after > 0", string(p.Org), string(p.Mailbox))
	}
	return err
}

const seenInsert = "INSERT INTO seen (mailbox, remote, loose, exact) VALUES (?, ?, ?, ?) ON CONFLICT (mailbox, remote) DO NOTHING"

// isFresh says whether a message has not been taken yet, and keeps that it is now.
func isFresh(ctx context.Context, q querier, mailbox mailgrant.ID, c Collected) (bool, error) {
	same, args := "SELECT 1 FROM seen WHERE mailbox = ? AND loose = ?", []any{string(mailbox), c.Loose}
	if !c.Loosely {
		same += " AND exact = ?"
		args = append(args, c.Exact)
	}
	_, err := one[int64](ctx, q, same+" LIMIT 1", args...)
	if err != nil && !errors.Is(err, errNone) {
		return false, err
	}
	known := err == nil
	n, err := q.exec(ctx, seenInsert, string(mailbox), c.Arrival.RemoteID, c.Loose, c.Exact)
	if err != nil || known || n == 1 {
		return err == nil && !known, err
	}
	return isRenamed(ctx, q, mailbox, c)
}

// isRenamed says whether a message has the name of another one that was taken: a
// server makes its names anew, and the cursor that knew of it is gone. Both the
// bytes and what they say differ then. It is known by them from now on.
func isRenamed(ctx context.Context, q querier, mailbox mailgrant.ID, c Collected) (bool, error) {
	if bytes.Equal(c.Loose, c.Exact) { // only its name is known
		return false, nil
	}
	_, err := one[int64](ctx, q, "SELECT 1 FROM seen WHERE mailbox = ? AND remote = ? AND loose <> exact AND loose <> ? AND exact <> ?",
		string(mailbox), c.Arrival.RemoteID, c.Loose, c.Exact)
	if errors.Is(err, errNone) {
		return false, nil
	}
	if err == nil {
		_, err = q.exec(ctx, seenInsert, string(mailbox), string(mailgrant.NewID("gone")), c.Loose, c.Exact)
	}
	return err == nil, err
}

func (s *Store) collected(c Collected) []stmt {
	a := c.Arrival
	stmts := make([]stmt, 0, 3)
	stmts = append(stmts, stmt{`INSERT INTO arrivals (org, id, mailbox, state, noticed_at, body_until, after, remote, words, doc) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		[]any{string(a.Org), string(a.ID), string(a.Mailbox), arrivalNumbers[a.State], micros(a.NoticedAt), micros(c.BodyUntil), afterNumbers[c.After], a.RemoteID, c.Words, toJSON(arrivalDoc(a))}})
	if c.Body != nil {
		stmts = append(stmts, chunkInsert(a.Org, a.ID, 0, c.Body))
	}
	for _, e := range c.Events {
		stmts = append(stmts, s.event(e))
	}
	return stmts
}

// arrivalDoc is what of an arrival has no column.
func arrivalDoc(a mailgrant.Arrival) mailgrant.Arrival {
	a.ID, a.Org, a.Mailbox, a.State, a.NoticedAt, a.RemoteID, a.Body = "", "", "", "", time.Time{}, "", false
	return a
}

const arrivalColumns = "SELECT org, id, mailbox, state, noticed_at, body_until, remote, doc FROM arrivals"

func arrivalRow(r rows) (mailgrant.Arrival, error) {
	var org, id, mailbox, remote, text string
	var state, noticed, until int64
	if err := r.Scan(&org, &id, &mailbox, &state, &noticed, &until, &remote, &text); err != nil {
		return mailgrant.Arrival{}, err
	}
	a := fromJSON[mailgrant.Arrival](text)
	if a == nil || state < 0 || int(state) >= len(arrivalNames) {
		return mailgrant.Arrival{}, errors.New("store: an arrival does not read")
	}
	a.Org, a.ID, a.Mailbox, a.RemoteID = mailgrant.ID(org), mailgrant.ID(id), mailgrant.ID(mailbox), remote
	a.State, a.NoticedAt, a.Body = arrivalNames[state], fromMicros(noticed), until > 0
	return *a, nil
}

// Arrival is one of the organization's.
func (s *Store) Arrival(ctx context.Context, org, id mailgrant.ID) (mailgrant.Arrival, error) {
	return first(ctx, s.eng, "arrival", id, arrivalColumns+" WHERE org = ? AND id = ?", []any{string(org), string(id)}, arrivalRow)
}

// An ArrivalFilter chooses arrivals.
type ArrivalFilter struct {
	Mailboxes []mailgrant.ID // nil = all of the organization
	States    []mailgrant.ArrivalState
	Since     time.Time
	Words     string // all of them stand in the addresses, the subject or the Message-ID
	Oldest    bool   // first; else the newest
	After     string // cursor of the page before
	Limit     int    // 0 = 50
}

// Arrivals are a page of the organization's, and the cursor of the next page, ""
// after the last.
func (s *Store) Arrivals(ctx context.Context, org mailgrant.ID, f ArrivalFilter) (l []mailgrant.Arrival, next string, err error) {
	if f.Limit <= 0 {
		f.Limit = 50
	}
	q, args := arrivalColumns, []any{string(org)}
	switch one := len(f.States) == 1; {
	case len(f.Mailboxes) == 1 && !(one && f.States[0] == mailgrant.ArrivalNew): // what is new is little
		q += s.by("arrivals_mailbox")
	case one:
		q += s.by("arrivals_state")
	}
	q += " WHERE org = ?"
	beyond, order := " AND id < ?", " ORDER BY id DESC LIMIT ?"
	if f.Oldest {
		beyond, order = " AND id > ?", " ORDER BY id LIMIT ?"
	}
	if f.After != "" {
		b, err := base64.RawURLEncoding.DecodeString(f.After)
		if err != nil || !mailgrant.ID(b).Is(mailgrant.PrefixArrival) {
			return nil, "", mailgrant.Errorf(mailgrant.Invalid, err, "the cursor is not one of ours").Fix("take it from the answer before").At("cursor")
		}
		q += beyond
		args = append(args, string(b))
	}
	if f.Mailboxes != nil {
		if len(f.Mailboxes) == 0 {
			return nil, "", nil
		}
		q += " AND mailbox IN " + marks(len(f.Mailboxes))
		for _, m := range f.Mailboxes {
			args = append(args, string(m))
		}
	}
	if len(f.States) > 0 {
		q += " AND state IN " + marks(len(f.States))
		for _, st := range f.States {
			args = append(args, arrivalNumbers[st])
		}
	}
	if !f.Since.IsZero() {
		q += " AND id >= ? AND noticed_at >= ?"
		args = append(args, cutID(f.Since, mailgrant.PrefixArrival), micros(f.Since))
	}
	words := strings.Fields(strings.ToLower(f.Words))
	if len(words) > wordsMax {
		return nil, "", mailgrant.Errorf(mailgrant.Invalid, nil, "a search has more than %d words", wordsMax).Fix("look for fewer words").At("q")
	}
	for _, w := range words {
		q += ` AND words LIKE ? ESCAPE '\'`
		args = append(args, "%"+likeable.Replace(w)+"%")
	}
	l, err = list(ctx, s.eng, q+order, append(args, f.Limit+1), arrivalRow)
	if err == nil && len(l) > f.Limit {
		l = l[:f.Limit]
		next = base64.RawURLEncoding.EncodeToString([]byte(l[f.Limit-1].ID))
	}
	return l, next, err
}

// wordsMax bounds one search: a database compares each arrival with each word.
const wordsMax = 20

var likeable = strings.NewReplacer(`\`, `\\`, "%", `\%`, "_", `\_`)

// SetArrival says what an app made of an arrival. What is acknowledged or ignored
// already may be set again; one in quarantine may be ignored only.
func (s *Store) SetArrival(ctx context.Context, org, id, app mailgrant.ID, state mailgrant.ArrivalState) (a mailgrant.Arrival, err error) {
	defer s.told()
	err = s.tx(ctx, func(ctx context.Context, q querier) error {
		a, err = first(ctx, q, "arrival", id, arrivalColumns+" WHERE org = ? AND id = ?"+s.eng.forUpdate(), []any{string(org), string(id)}, arrivalRow)
		if err != nil || a.State == state {
			return err
		}
		if a.State == mailgrant.ArrivalQuarantined && state != mailgrant.ArrivalIgnored {
			return mailgrant.Errorf(mailgrant.Conflict, nil, "the arrival is in quarantine: its provider does not give it to us").
				Fix("have it read again, or ignore it")
		}
		a.State = state
		if _, err := q.exec(ctx, "UPDATE arrivals SET state = ? WHERE org = ? AND id = ?", arrivalNumbers[state], string(org), string(id)); err != nil {
			return err
		}
		return s.addEvent(ctx, q, mailgrant.Event{Org: org, Kind: "arrival." + string(state), Subject: id, App: app, Mailbox: a.Mailbox})
	})
	return a, err
}

// ReadAgain forgets an arrival in quarantine, so that the next reading of the
// mailbox from its beginning takes it again.
func (s *Store) ReadAgain(ctx context.Context, org, id mailgrant.ID) error {
	return s.tx(ctx, func(ctx context.Context, q querier) error {
		a, err := first(ctx, q, "arrival", id, arrivalColumns+" WHERE org = ? AND id = ?"+s.eng.forUpdate(), []any{string(org), string(id)}, arrivalRow)
		if err != nil {
			return err
		}
		if a.State != mailgrant.ArrivalQuarantined {
			return mailgrant.Errorf(mailgrant.Conflict, nil, "the arrival is %s and has been read", a.State).Fix("nothing is to be done")
		}
		return execAll(ctx, q, []stmt{
			{"DELETE FROM seen WHERE mailbox = ? AND remote = ?", []any{string(a.Mailbox), a.RemoteID}},
			{"DELETE FROM arrivals WHERE org = ? AND id = ?", []any{string(org), string(id)}},
			{"UPDATE readings SET position = '' WHERE org = ? AND mailbox = ?", []any{string(org), string(a.Mailbox)}},
		})
	})
}

// SeenRemotes says which names of a provider have been taken.
func (s *Store) SeenRemotes(ctx context.Context, org, mailbox mailgrant.ID, remotes []string) (map[string]bool, error) {
	return seen(ctx, s.eng, org, mailbox, "remote", remotes)
}

// SeenLoose says which messages have been taken, by what stays the same of them
// however they are read.
func (s *Store) SeenLoose(ctx context.Context, org, mailbox mailgrant.ID, loose [][]byte) (map[string]bool, error) {
	return seen(ctx, s.eng, org, mailbox, "loose", loose)
}

// seen says which values of a column there are.
func seen[T string | []byte](ctx context.Context, q querier, org, mailbox mailgrant.ID, column string, values []T) (map[string]bool, error) {
	out := map[string]bool{}
	for part := range slices.Chunk(values, namesAtOnce) {
		args := []any{string(org), string(mailbox)}
		for _, v := range part {
			args = append(args, v)
		}
		l, err := list(ctx, q, "SELECT DISTINCT "+column+" FROM seen WHERE "+ownSeen+" AND "+column+" IN "+marks(len(part)), args,
			func(r rows) (v T, err error) { err = r.Scan(&v); return v, err })
		if err != nil {
			return nil, err
		}
		for _, v := range l {
			out[string(v)] = true
		}
	}
	return out, nil
}

// namesAtOnce bounds one statement.
const namesAtOnce = 250

// ownSeen are the rows of an organization's mailbox.
const ownSeen = "mailbox = (SELECT mailbox FROM readings WHERE org = ? AND mailbox = ?)"

// SeenCount is how many messages of a mailbox have been taken. What was left alone
// for its age is not counted.
func (s *Store) SeenCount(ctx context.Context, org, mailbox mailgrant.ID) (int, error) {
	n, err := one[int64](ctx, s.eng, "SELECT COUNT(DISTINCT loose) FROM seen WHERE LENGTH(loose) > 0 AND "+ownSeen, string(org), string(mailbox))
	return int(n), err
}

// KnowRemotes keeps that messages which were taken have these names too, where the
// mailbox is read another way.
func (s *Store) KnowRemotes(ctx context.Context, org, mailbox mailgrant.ID, remotes []string, loose [][]byte) error {
	for len(remotes) > 0 { // in parts, so that nobody waits for it
		n := min(len(remotes), namesAtOnce)
		if err := s.tx(ctx, func(ctx context.Context, q querier) error {
			_, err := one[string](ctx, q, "SELECT mailbox FROM readings WHERE org = ? AND mailbox = ?", string(org), string(mailbox))
			if errors.Is(err, errNone) { // somebody else's, or never read
				return nil
			}
			for i := range n {
				if err == nil {
					_, err = q.exec(ctx, seenInsert, string(mailbox), remotes[i], loose[i], []byte{})
				}
			}
			return err
		}); err != nil {
			return err
		}
		remotes, loose = remotes[n:], loose[n:]
	}
	return nil
}

// ForgetRemotes forgets names that the provider no longer has and may give again.
// What had them stays known by its bytes: a server that shows nothing for a while
// and then all again must not have it taken twice. What has only a name is
// forgotten.
func (s *Store) ForgetRemotes(ctx context.Context, org, mailbox mailgrant.ID, remotes []string) error {
	stmts := make([]stmt, 0, 2*len(remotes))
	for _, r := range remotes {
		stmts = append(stmts,
			stmt{`INSERT INTO seen (mailbox, remote, loose, exact) SELECT mailbox, ?, loose, exact FROM seen s WHERE ` + ownSeen + ` AND remote = ? AND loose <> exact
				AND NOT EXISTS (SELECT 1 FROM seen o WHERE o.mailbox = s.mailbox AND o.loose = s.loose AND o.exact = s.exact AND o.remote <> s.remote)`,
				[]any{string(mailgrant.NewID("gone")), string(org), string(mailbox), r}},
			stmt{"DELETE FROM seen WHERE " + ownSeen + " AND remote = ?", []any{string(org), string(mailbox), r}})
	}
	if len(stmts) == 0 {
		return nil
	}
	_, err := s.do(ctx, stmts...)
	return err
}

// An Undone is an arrival with which something is still to be done at its
// provider.
type Undone struct {
	ID     mailgrant.ID
	Remote string
	After  mailgrant.AfterRead
}

// AfterReading are the first of a mailbox with which something is to be done.
func (s *Store) AfterReading(ctx context.Context, org, mailbox mailgrant.ID, limit int) ([]Undone, error) {
	return list(ctx, s.eng, "SELECT id, remote, after FROM arrivals"+s.by("arrivals_after")+" WHERE org = ? AND mailbox = ? AND after > 0 ORDER BY id LIMIT ?",
		[]any{string(org), string(mailbox), int64(limit)},
		func(r rows) (u Undone, err error) {
			var id string
			var n int64
			err = r.Scan(&id, &u.Remote, &n)
			if n < 0 || int(n) >= len(afterNames) {
				return u, errors.New("store: an arrival does not read")
			}
			u.ID, u.After = mailgrant.ID(id), afterNames[n]
			return u, err
		})
}

// AfterDone keeps that it was done. Conflict when the mailbox is another node's.
func (s *Store) AfterDone(ctx context.Context, org mailgrant.ID, f Fence, ids []mailgrant.ID) error {
	stmts := make([]stmt, len(ids))
	for i, id := range ids {
		where, args := f.where([]any{string(org), string(id)})
		stmts[i] = stmt{"UPDATE arrivals SET after = 0 WHERE org = ? AND id = ?" + where, args}
	}
	if len(stmts) == 0 {
		return nil
	}
	n, err := s.do(ctx, stmts...)
	if err == nil && slices.Max(n) == 0 {
		return fencedOut(nil)
	}
	return err
}

// SetPosition replaces how far a mailbox has been read, unless it is elsewhere
// than from by now: then Conflict.
func (s *Store) SetPosition(ctx context.Context, org, mailbox mailgrant.ID, from, to Position, f Fence) error {
	_, err := s.Collect(ctx, Page{Org: org, Mailbox: mailbox, From: from, To: to, Fence: f})
	return err
}

// unkeptFor is how long the chunks of a message may be there before their
// arrival, which comes when all of it has been read. Those that a crash left
// behind are looked for for two days more, so that a sweep need not go through
// all bodies there are.
const (
	unkeptFor   = 24 * time.Hour
	unkeptUntil = 72 * time.Hour
)

// sweepArrivalBodies removes bodies that are past their time, and those whose
// arrival never came.
func (s *Store) sweepArrivalBodies(now time.Time) []stmt {
	old := "SELECT id FROM arrivals WHERE body_until > 0 AND body_until < ? ORDER BY body_until LIMIT ?"
	args := []any{micros(now), sweepBatch}
	return []stmt{
		{"DELETE FROM chunks WHERE owner IN (" + old + ")", args},
		{"UPDATE arrivals SET body_until = 0 WHERE body_until > 0 AND body_until < ? AND id IN (" + old + ")", append(args[:1:1], args...)},
		{`DELETE FROM chunks WHERE (owner, n) IN (SELECT c.owner, c.n FROM chunks c LEFT JOIN arrivals a ON a.org = c.org AND a.id = c.owner
			WHERE c.owner > ? AND c.owner < ? AND a.id IS NULL ORDER BY c.owner LIMIT ?)`,
			[]any{cutID(now.Add(-unkeptUntil), mailgrant.PrefixArrival), cutID(now.Add(-unkeptFor), mailgrant.PrefixArrival), sweepBatch}},
	}
}
