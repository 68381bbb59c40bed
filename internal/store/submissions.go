package store

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
)

// What is not final also has final_at 0, and that is what the lanes' index asks for.
// A statement about one submission asks for its state: PostgreSQL would else take
// that index for the shorter way, and read the lane from end to end.
var stateNumbers = map[mailgrant.SubmissionState]int64{
	mailgrant.SubmissionReady: 0, mailgrant.SubmissionSending: 1, mailgrant.SubmissionUncertain: 2,
	mailgrant.SubmissionDelivered: 3, mailgrant.SubmissionFailed: 4, mailgrant.SubmissionCancelled: 5,
}

var stateNames = [...]mailgrant.SubmissionState{mailgrant.SubmissionReady, mailgrant.SubmissionSending, mailgrant.SubmissionUncertain,
	mailgrant.SubmissionDelivered, mailgrant.SubmissionFailed, mailgrant.SubmissionCancelled}

// A Fence is the right to work a mailbox: the shard it falls in, the node that
// owns the shard, and since which generation. The zero Fence is SQLite's, where
// one process owns all.
type Fence struct {
	Shard      int64
	Node       mailgrant.ID
	Generation int64
}

// where is what a fenced write adds to its conditions. The shard's row is locked
// until the write is durable: who takes the shard over sees all that was written
// under the generation before, or none of it is written.
func (f Fence) where(args []any) (string, []any) {
	if f.Node == "" {
		return "", args
	}
	return " AND EXISTS (SELECT 1 FROM shards WHERE n = ? AND node = ? AND generation = ? FOR SHARE)",
		append(args, f.Shard, string(f.Node), f.Generation)
}

// An Acceptance is a submission to be taken responsibility for.
type Acceptance struct {
	Submission mailgrant.Submission
	Body       []byte // the only chunk, sealed; nil when the chunks are there already
	Digest     []byte // of the body and envelope, for the idempotency key
	KeepKey    time.Duration
	WakeOthers bool  // another node owns the lane
	Fence      Fence // of a submission in the state sending: the right to send it
}

const (
	submissionInto   = "INSERT INTO submissions (org, id, app, mailbox, state, attempts, duplicate, size, accepted_at, due_at, expires_at, doc) "
	submissionPlaces = "?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?"
	submissionInsert = submissionInto + "VALUES (" + submissionPlaces + ")"
)

// AcceptSubmission makes a submission durable, with its body and its event, in
// one transaction. When its idempotency key was used before, nothing is written
// and the earlier submission comes back; Conflict when that one differs. One in
// the state sending comes back as ready when its lane belongs to another node by
// now.
func (s *Store) AcceptSubmission(ctx context.Context, a Acceptance) (mailgrant.Submission, error) {
	sub, ctx := a.Submission, brings(ctx)
	if sub.IdempotencyKey != "" {
		return s.acceptOnce(ctx, a)
	}
	fenced := sub.State == mailgrant.SubmissionSending && a.Fence.Node != ""
	stmts := s.accepted(a)
	if fenced {
		stmts = append(begunOr(a.Fence, stmts[0]), stmts[1:]...)
	}
	o := newOp(stmts)
	if !s.Clustered() {
		o.leave, o.undo = true, s.taken(sub)
	}
	if err := s.eng.submit(ctx, o); err != nil {
		return sub, err
	}
	if fenced && o.affected[0] == 0 {
		sub.State = mailgrant.SubmissionReady
	}
	s.told()
	return sub, nil
}

// begunOr keeps a submission as begun where the fence holds, and as ready where it
// does not: of the two statements one finds something to do.
func begunOr(f Fence, insert stmt) []stmt {
	where, begun := f.where(insert.args)
	ready := slices.Clone(insert.args)
	ready[4] = stateNumbers[mailgrant.SubmissionReady]
	return []stmt{{submissionInto + "SELECT " + submissionPlaces + " WHERE" + strings.TrimPrefix(where, " AND"), begun},
		{insert.sql + " ON CONFLICT (org, id) DO NOTHING", ready}}
}

// taken takes back a submission whose sender was told to come again, before
// anybody sends it: what comes again would be a second one. One with an
// idempotency key stays, since it would be the same one.
func (s *Store) taken(sub mailgrant.Submission) *op {
	return &op{done: make(chan struct{}), fn: func(ctx context.Context, q querier) error {
		n, err := q.exec(ctx, "UPDATE submissions SET state = 5, final_at = ? WHERE org = ? AND id = ? AND state = ? AND attempts = 0",
			micros(s.Now()), string(sub.Org), string(sub.ID), stateNumbers[sub.State])
		if err != nil || n == 0 {
			return err
		}
		return s.addEvent(ctx, q, mailgrant.Event{Org: sub.Org, Kind: "submission.cancelled", Subject: sub.ID, App: sub.App, Mailbox: sub.Route.Mailbox})
	}}
}

// accepted are the statements that keep a submission.
func (s *Store) accepted(a Acceptance) []stmt {
	sub := a.Submission
	stmts := make([]stmt, 0, 5)
	stmts = append(stmts, stmt{submissionInsert, []any{string(sub.Org), string(sub.ID), string(sub.App), string(sub.Route.Mailbox), stateNumbers[sub.State],
		int64(0), int64(0), sub.Size, micros(sub.AcceptedAt), micros(sub.DueAt), micros(sub.ExpiresAt), toJSON(sub)}},
		s.event(mailgrant.Event{Org: sub.Org, Kind: "submission.accepted", At: sub.AcceptedAt, Subject: sub.ID, App: sub.App, Mailbox: sub.Route.Mailbox}))
	if a.Body != nil {
		stmts = append(stmts, chunkInsert(sub.Org, sub.ID, 0, a.Body))
	}
	if a.WakeOthers {
		stmts = append(stmts, wakeLane(sub.Org, sub.Route.Mailbox))
	}
	return stmts
}

func chunkInsert(org, owner mailgrant.ID, n int64, sealed []byte) stmt {
	return stmt{"INSERT INTO chunks (org, owner, n, sealed) VALUES (?, ?, ?, ?)", []any{string(org), string(owner), n, sealed}}
}

// acceptOnce accepts under an idempotency key.
func (s *Store) acceptOnce(ctx context.Context, a Acceptance) (mailgrant.Submission, error) {
	defer s.told()
	got := a.Submission // its own: whoever leaves early does not look at it any more
	o := &op{done: make(chan struct{}), leave: !s.Clustered()}
	o.fn = func(ctx context.Context, q querier) (err error) {
		sub := a.Submission // again at each run
		defer func() { got = sub }()
		now := s.Now()
		if _, err := q.exec(ctx, "DELETE FROM idempotency WHERE org = ? AND app = ? AND key = ? AND expires_at <= ?",
			string(sub.Org), string(sub.App), sub.IdempotencyKey, micros(now)); err != nil {
			return err
		}
		n, err := q.exec(ctx, `INSERT INTO idempotency (org, app, key, submission, digest, expires_at) VALUES (?, ?, ?, ?, ?, ?)
			ON CONFLICT (org, app, key) DO NOTHING`,
			string(sub.Org), string(sub.App), sub.IdempotencyKey, string(sub.ID), a.Digest, micros(now.Add(a.KeepKey)))
		if err != nil {
			return err
		}
		if n == 0 {
			var id string
			var digest []byte
			if err := scan(ctx, q, "SELECT submission, digest FROM idempotency WHERE org = ? AND app = ? AND key = ?",
				[]any{string(sub.Org), string(sub.App), sub.IdempotencyKey}, &id, &digest); err != nil {
				return err
			}
			if string(digest) != string(a.Digest) {
				return mailgrant.Errorf(mailgrant.Conflict, nil, "this idempotency key was used for another message (%s)", id).
					Fix("use a new key for each message, and the same key only to repeat the same one").See("refused-idempotency-key")
			}
			sub, err = first(ctx, q, "submission", mailgrant.ID(id), submissionColumns+" WHERE s.org = ? AND s.id = ?", []any{string(sub.Org), id}, submissionRow)
			return err
		}
		return execAll(ctx, q, s.accepted(a))
	}
	if err := s.eng.submit(ctx, o); err != nil {
		return a.Submission, err
	}
	return got, nil
}

func execAll(ctx context.Context, q querier, stmts []stmt) error {
	for _, st := range stmts {
		if _, err := q.exec(ctx, st.sql, st.args...); err != nil {
			return err
		}
	}
	return nil
}

// PutChunk keeps one chunk of a large body before its submission is accepted.
func (s *Store) PutChunk(ctx context.Context, org, owner mailgrant.ID, n int64, sealed []byte) error {
	_, err := s.do(brings(ctx), chunkInsert(org, owner, n, sealed))
	return err
}

// DropChunks removes the chunks of a submission that was not accepted. One whose
// accept was refused and yet kept, as after a commit whose answer was lost, has
// its body left.
func (s *Store) DropChunks(ctx context.Context, org, owner mailgrant.ID) error {
	_, err := s.do(ctx, stmt{`DELETE FROM chunks WHERE org = ? AND owner = ?
		AND NOT EXISTS (SELECT 1 FROM submissions s WHERE s.org = ? AND s.id = ?)`, []any{string(org), string(owner), string(org), string(owner)}})
	return err
}

// Chunk is the nth chunk of a body; NotFound after the last.
func (s *Store) Chunk(ctx context.Context, org, owner mailgrant.ID, n int64) ([]byte, error) {
	b, err := one[[]byte](ctx, s.eng, "SELECT sealed FROM chunks WHERE org = ? AND owner = ? AND n = ?", string(org), string(owner), n)
	if errors.Is(err, errNone) {
		return nil, notFound("body", owner)
	}
	return b, err
}

const submissionColumns = `SELECT s.doc, s.state, s.attempts, s.duplicate, s.due_at, s.expires_at, s.final_at, s.pending, s.finding,
	COALESCE((SELECT m.state FROM mailboxes m WHERE m.org = s.org AND m.id = s.mailbox), '') FROM submissions s`

func submissionRow(r rows) (mailgrant.Submission, error) {
	var text, pending, finding, mailbox string
	var state, attempts, duplicate, due, expires, final int64
	if err := r.Scan(&text, &state, &attempts, &duplicate, &due, &expires, &final, &pending, &finding, &mailbox); err != nil {
		return mailgrant.Submission{}, err
	}
	sub := fromJSON[mailgrant.Submission](text)
	if sub == nil || state < 0 || int(state) >= len(stateNames) {
		return mailgrant.Submission{}, errors.New("store: a submission does not read")
	}
	sub.State, sub.Attempts, sub.Duplicate = stateNames[state], int(attempts), duplicate != 0
	sub.DueAt, sub.ExpiresAt, sub.FinalAt = fromMicros(due), fromMicros(expires), timeOf(final)
	if p := fromJSON[[]string](pending); p != nil {
		sub.Pending = *p
	}
	sub.Finding = fromJSON[mailgrant.Finding](finding)
	sub.Held = !sub.State.Final() && mailbox == string(mailgrant.MailboxHeld)
	return *sub, nil
}

// Submission is one of the organization's.
func (s *Store) Submission(ctx context.Context, org, id mailgrant.ID) (mailgrant.Submission, error) {
	return first(ctx, s.eng, "submission", id, submissionColumns+" WHERE s.org = ? AND s.id = ?", []any{string(org), string(id)}, submissionRow)
}

// A SubmissionFilter chooses submissions.
type SubmissionFilter struct {
	App     mailgrant.ID
	OnlyApp bool // with App "": none but those of no app
	Mailbox mailgrant.ID
	States  []mailgrant.SubmissionState
	Since   time.Time
	After   string // cursor of the page before
	Limit   int    // 0 = 50
}

// Submissions are a page of the organization's, newest first, and the cursor of
// the next page, "" after the last.
func (s *Store) Submissions(ctx context.Context, org mailgrant.ID, f SubmissionFilter) (l []mailgrant.Submission, next string, err error) {
	if f.Limit <= 0 {
		f.Limit = 50
	}
	q, args := submissionColumns+" WHERE s.org = ?", []any{string(org)}
	if f.After != "" {
		b, err := base64.RawURLEncoding.DecodeString(f.After)
		if err != nil || !mailgrant.ID(b).Is(mailgrant.PrefixSubmission) {
			return nil, "", mailgrant.Errorf(mailgrant.Invalid, err, "the cursor is not one of ours").Fix("take it from the answer before").At("cursor")
		}
		q += " AND s.id < ?"
		args = append(args, string(b))
	}
	if f.App != "" {
		q += " AND s.app = ?"
		args = append(args, string(f.App))
	}
	if f.Mailbox != "" {
		q += " AND s.mailbox = ?"
		args = append(args, string(f.Mailbox))
	}
	if !f.Since.IsZero() {
		q += " AND s.accepted_at >= ?"
		args = append(args, micros(f.Since))
	}
	if len(f.States) > 0 {
		q += " AND s.state IN " + marks(len(f.States))
		for _, st := range f.States {
			args = append(args, stateNumbers[st])
		}
	}
	l, err = list(ctx, s.eng, q+" ORDER BY s.id DESC LIMIT ?", append(args, f.Limit+1), submissionRow)
	if err == nil && len(l) > f.Limit {
		l = l[:f.Limit]
		next = base64.RawURLEncoding.EncodeToString([]byte(l[f.Limit-1].ID))
	}
	return l, next, err
}

// Attempts are those of a submission, in order.
func (s *Store) Attempts(ctx context.Context, org, submission mailgrant.ID) ([]mailgrant.Attempt, error) {
	return s.AttemptsAfter(ctx, org, submission, 0, 0)
}

const attemptColumns = "SELECT n, doc FROM attempts"

func attemptRow(r rows) (mailgrant.Attempt, error) {
	var n int64
	var text string
	if err := r.Scan(&n, &text); err != nil {
		return mailgrant.Attempt{}, err
	}
	a := fromJSON[mailgrant.Attempt](text)
	if a == nil {
		return mailgrant.Attempt{}, errors.New("store: an attempt does not read")
	}
	a.N = int(n)
	return *a, nil
}

// CancelSubmission ends a submission that is not being sent. One that is
// uncertain is left as it is: nobody asks any more whether it was sent.
func (s *Store) CancelSubmission(ctx context.Context, org, id mailgrant.ID) error {
	defer s.told()
	return s.tx(ctx, func(ctx context.Context, q querier) error {
		sub, err := first(ctx, q, "submission", id, submissionColumns+" WHERE s.org = ? AND s.id = ?"+forUpdateOf(s.eng), []any{string(org), string(id)}, submissionRow)
		if err != nil {
			return err
		}
		if sub.State != mailgrant.SubmissionReady && sub.State != mailgrant.SubmissionUncertain {
			return mailgrant.Errorf(mailgrant.Conflict, nil, "the submission is %s and can no longer be cancelled", sub.State).
				Fix("look at it: mailgrant queue show %s", id)
		}
		if _, err := q.exec(ctx, "UPDATE submissions SET state = 5, final_at = ? WHERE org = ? AND id = ?", micros(time.Now()), string(org), string(id)); err != nil {
			return err
		}
		return s.addEvent(ctx, q, mailgrant.Event{Org: org, Kind: "submission.cancelled", Subject: id, App: sub.App, Mailbox: sub.Route.Mailbox})
	})
}

func forUpdateOf(e engine) string {
	if e.forUpdate() == "" {
		return ""
	}
	return e.forUpdate() + " OF s"
}

// RetrySubmission makes a waiting submission due now, and a failed one that
// still has its body ready again with a new life.
func (s *Store) RetrySubmission(ctx context.Context, org, id mailgrant.ID) error {
	return s.tx(ctx, func(ctx context.Context, q querier) error {
		sub, err := first(ctx, q, "submission", id, submissionColumns+" WHERE s.org = ? AND s.id = ?"+forUpdateOf(s.eng), []any{string(org), string(id)}, submissionRow)
		if err != nil {
			return err
		}
		now := s.Now()
		switch sub.State {
		case mailgrant.SubmissionReady:
			_, err = q.exec(ctx, "UPDATE submissions SET due_at = ? WHERE org = ? AND id = ? AND state = 0", micros(now), string(org), string(id))
		case mailgrant.SubmissionFailed, mailgrant.SubmissionCancelled, mailgrant.SubmissionUncertain:
			if _, err := one[int64](ctx, q, "SELECT n FROM chunks WHERE org = ? AND owner = ? AND n = 0", string(org), string(id)); err != nil {
				return mailgrant.Errorf(mailgrant.Conflict, err, "the body of this submission is no longer kept").Fix("send the message again")
			}
			life := sub.ExpiresAt.Sub(sub.AcceptedAt)
			_, err = q.exec(ctx, `UPDATE submissions SET state = 0, due_at = ?, expires_at = ?, final_at = 0,
				duplicate = CASE WHEN state = 2 THEN 1 ELSE duplicate END WHERE org = ? AND id = ?`,
				micros(now), micros(now.Add(life)), string(org), string(id))
		default:
			return mailgrant.Errorf(mailgrant.Conflict, nil, "the submission is %s", sub.State).Fix("nothing is to be done")
		}
		if err != nil {
			return err
		}
		return s.addEvent(ctx, q, mailgrant.Event{Org: org, Kind: "submission.retried", Subject: id, App: sub.App, Mailbox: sub.Route.Mailbox})
	})
}

// A Lane is a mailbox that has something left to send.
type Lane struct{ Org, Mailbox mailgrant.ID }

// BusyLanes are all mailboxes with submissions that are not final. It jumps from
// one mailbox to the next in the lanes' index and reads no row twice.
func (s *Store) BusyLanes(ctx context.Context) ([]Lane, error) {
	boxes, err := list(ctx, s.eng, `WITH RECURSIVE m(mailbox) AS (
			SELECT MIN(mailbox) FROM submissions WHERE final_at = 0
			UNION ALL
			SELECT (SELECT MIN(mailbox) FROM submissions WHERE final_at = 0 AND mailbox > m.mailbox) FROM m WHERE m.mailbox IS NOT NULL)
		SELECT mailbox, (SELECT s.org FROM submissions s WHERE s.mailbox = m.mailbox AND s.final_at = 0 LIMIT 1) FROM m WHERE mailbox IS NOT NULL`, nil,
		func(r rows) (Lane, error) {
			var mailbox string
			var org *string
			err := r.Scan(&mailbox, &org)
			if org == nil {
				return Lane{}, err
			}
			return Lane{mailgrant.ID(*org), mailgrant.ID(mailbox)}, err
		})
	return boxes, err
}

// DueSubmissions are the next of a lane, in order, that are ready at a time.
func (s *Store) DueSubmissions(ctx context.Context, mailbox mailgrant.ID, at time.Time, limit int) ([]mailgrant.Submission, error) {
	return list(ctx, s.eng, submissionColumns+" WHERE s.mailbox = ? AND s.final_at = 0 AND s.state = 0 AND s.due_at <= ? ORDER BY s.due_at, s.id LIMIT ?",
		[]any{string(mailbox), micros(at), limit}, submissionRow)
}

// NextDue is when the next of a lane becomes due after a time; zero when none
// will.
func (s *Store) NextDue(ctx context.Context, mailbox mailgrant.ID, after time.Time) (time.Time, error) {
	n, err := one[*int64](ctx, s.eng, "SELECT MIN(due_at) FROM submissions WHERE mailbox = ? AND final_at = 0 AND due_at > ? AND state = 0",
		string(mailbox), micros(after))
	if err != nil || n == nil {
		return time.Time{}, err
	}
	return fromMicros(*n), nil
}

// Unfinished are submissions of a lane whose attempt began and was never
// recorded: the process died, or the answer was lost.
func (s *Store) Unfinished(ctx context.Context, mailbox mailgrant.ID) ([]mailgrant.Submission, error) {
	return list(ctx, s.eng, submissionColumns+" WHERE s.mailbox = ? AND s.final_at = 0 AND s.state IN (1, 2) ORDER BY s.due_at, s.id",
		[]any{string(mailbox)}, submissionRow)
}

// BeginAttempt says, durably, that submissions are about to be sent: if nothing
// is ever recorded of it, they may have been. The answer names those that may
// go; the others were cancelled, belong to another node now, or were tried since
// they were read: a lane may hold a message twice for a moment.
func (s *Store) BeginAttempt(ctx context.Context, f Fence, subs []mailgrant.Submission) (ok []bool, err error) {
	stmts := make([]stmt, len(subs))
	for i, sub := range subs {
		stmts[i] = beginOf(f, sub)
	}
	n, err := s.do(ctx, stmts...)
	if err != nil {
		return nil, err
	}
	ok = make([]bool, len(subs))
	for i := range n {
		ok[i] = n[i] == 1
	}
	return ok, nil
}

func beginOf(f Fence, sub mailgrant.Submission) stmt {
	where, args := f.where([]any{string(sub.Org), string(sub.ID), sub.Attempts, micros(sub.DueAt)})
	return stmt{"UPDATE submissions SET state = 1 WHERE org = ? AND id = ? AND state = 0 AND attempts = ? AND due_at = ?" + where, args}
}

// A Record is what an attempt came to.
type Record struct {
	Attempt   mailgrant.Attempt // its N is given by the store
	State     mailgrant.SubmissionState
	DueAt     time.Time // ready: when to try again
	Duplicate bool      // another copy may have been sent
	Counts    bool      // against the message: attempts is raised
	Pending   []string  // recipients left
	Events    []mailgrant.Event
	Handed    int // recipients to count for the day's limit; 0 when nobody counts
	Fence     Fence

	// Bounce tells the sender of recipients that were given up. It is accepted in
	// the same transaction, so that nobody is left without an answer.
	Bounce *Acceptance
}

// attemptInsert numbers the attempts of a submission as they are recorded. The
// same one twice, as after a commit whose answer was lost, is one.
const attemptInsert = `INSERT INTO attempts (org, submission, n, doc)
	SELECT ?, ?, COALESCE(MAX(n), 0) + 1, ? FROM attempts WHERE org = ? AND submission = ? HAVING COUNT(CASE WHEN doc = ? THEN 1 END) = 0`

func (s *Store) record(r Record) []stmt {
	a := r.Attempt
	var final int64
	if r.State.Final() {
		final = micros(a.EndedAt)
	}
	pending := ""
	if len(r.Pending) > 0 {
		pending = toJSON(r.Pending)
	}
	where, args := r.Fence.where([]any{stateNumbers[r.State], flag(r.Counts), flag(r.Duplicate), micros(r.DueAt), final, pending, optional(a.Finding),
		string(a.Org), string(a.Submission)})
	stmts := make([]stmt, 0, 3+len(r.Events))
	doc := toJSON(a)
	stmts = append(stmts,
		stmt{`UPDATE submissions SET state = ?, attempts = attempts + ?, duplicate = CASE WHEN ? = 1 THEN 1 ELSE duplicate END,
			due_at = ?, final_at = ?, pending = ?, finding = ? WHERE org = ? AND id = ? AND state < 3` + where, args},
		stmt{attemptInsert, []any{string(a.Org), string(a.Submission), doc, string(a.Org), string(a.Submission), doc}})
	for _, e := range r.Events {
		stmts = append(stmts, s.event(e))
	}
	if r.Handed > 0 {
		stmts = append(stmts, stmt{`INSERT INTO handed (mailbox, hour, recipients) VALUES (?, ?, ?)
			ON CONFLICT (mailbox, hour) DO UPDATE SET recipients = handed.recipients + excluded.recipients`,
			[]any{string(a.Mailbox), a.EndedAt.Unix() / 3600, int64(r.Handed)}})
	}
	return stmts
}

// RecordAttempt keeps what an attempt came to. done is called when it is
// durable, or failed; it must be quick. A node that lost the lane is refused
// with Conflict, and its attempt stays on record.
func (s *Store) RecordAttempt(r Record, done func(error)) {
	o := newOp(s.record(r))
	touched := func() int64 { return o.affected[0] }
	if r.Bounce != nil {
		o, touched = s.recordWith(o.stmts, *r.Bounce)
	}
	o.done, o.after = nil, func(err error) {
		if err == nil && touched() == 0 {
			err = fencedOut(nil)
		}
		if err == nil {
			s.told()
		}
		done(err)
	}
	if r.Handed > 0 {
		o.order = string(r.Attempt.Mailbox)
	}
	ctx, cancel := context.WithTimeout(context.Background(), recordWithin)
	defer cancel()
	if err := s.eng.submit(ctx, o); err != nil {
		done(err)
	}
}

// recordWithin is how long a record may take before it is tried again.
const recordWithin = 20 * time.Second

// recordWith records an attempt and accepts the bounce that goes with it, unless
// the record is refused.
func (s *Store) recordWith(stmts []stmt, bounce Acceptance) (o *op, touched func() int64) {
	var n int64
	return &op{fn: func(ctx context.Context, q querier) (err error) {
		st := stmts[0]
		if n, err = q.exec(ctx, st.sql, st.args...); err != nil {
			return err
		}
		if n == 0 {
			return execAll(ctx, q, stmts[1:2]) // the attempt stays on record
		}
		return execAll(ctx, q, append(stmts[1:], s.accepted(bounce)...))
	}}, func() int64 { return n }
}

// MarkUncertain keeps that an unfinished submission may have been sent.
func (s *Store) MarkUncertain(ctx context.Context, f Fence, sub mailgrant.Submission) error {
	n, err := s.do(ctx, doubtOf(f, sub))
	if err == nil && n[0] == 0 {
		return fencedOut(nil)
	}
	return err
}

func doubtOf(f Fence, sub mailgrant.Submission) stmt {
	where, args := f.where([]any{string(sub.Org), string(sub.ID)})
	return stmt{"UPDATE submissions SET state = 2 WHERE org = ? AND id = ? AND state IN (1, 2)" + where, args}
}

// HandedSince counts a mailbox's recipients since a time, by the hour.
func (s *Store) HandedSince(ctx context.Context, mailbox mailgrant.ID, since time.Time) (int, error) {
	n, err := one[int64](ctx, s.eng, "SELECT COALESCE(SUM(recipients), 0) FROM handed WHERE mailbox = ? AND hour >= ?", string(mailbox), since.Unix()/3600)
	return int(n), err
}

// Keep says how long what is over is kept. Zero keeps for ever.
type Keep struct {
	Bodies      time.Duration // after the submission's end
	Submissions time.Duration // with attempts, after their end
	Events      time.Duration
	Arrivals    time.Duration // whole, bodies too
}

// sweepBatch bounds one step of a sweep, so that nobody waits for it.
const sweepBatch = 200

// Sweep removes a batch of what is past its time and says whether there may be
// more.
func (s *Store) Sweep(ctx context.Context, now time.Time, k Keep) (more bool, err error) {
	cut := func(d time.Duration, prefix string) string { return cutID(now.Add(-d), prefix) }
	var stmts []stmt
	if k.Bodies > 0 {
		stmts = append(stmts, stmt{`DELETE FROM chunks WHERE (owner, n) IN (SELECT c.owner, c.n FROM chunks c
			LEFT JOIN submissions s ON s.org = c.org AND s.id = c.owner
			WHERE c.owner > ? AND c.owner < ? AND (s.id IS NULL OR (s.state >= 3 AND s.final_at < ?)) ORDER BY c.owner LIMIT ?)`,
			[]any{mailgrant.PrefixSubmission + "_", cut(k.Bodies, mailgrant.PrefixSubmission), micros(now.Add(-k.Bodies)), sweepBatch}})
	}
	stmts = append(stmts, s.sweepArrivalBodies(now)...)
	if k.Arrivals > 0 {
		for _, org := range s.sweepOrgs(ctx) {
			old := "SELECT id FROM arrivals WHERE org = ? AND id < ? AND after = 0 ORDER BY id LIMIT ?"
			args := []any{string(org), cut(k.Arrivals, mailgrant.PrefixArrival), sweepBatch}
			stmts = append(stmts,
				stmt{"DELETE FROM chunks WHERE owner IN (" + old + ")", args},
				stmt{"DELETE FROM arrivals WHERE org = ? AND id IN (" + old + ")", append([]any{string(org)}, args...)})
		}
	}
	if k.Submissions > 0 {
		for _, org := range s.sweepOrgs(ctx) {
			old := "SELECT id FROM submissions WHERE org = ? AND id < ? AND state >= 3 AND final_at < ? ORDER BY id LIMIT ?"
			args := []any{string(org), cut(k.Submissions, mailgrant.PrefixSubmission), micros(now.Add(-k.Submissions)), sweepBatch}
			stmts = append(stmts,
				stmt{"DELETE FROM attempts WHERE org = ? AND submission IN (" + old + ")", append([]any{string(org)}, args...)},
				stmt{"DELETE FROM submissions WHERE org = ? AND id IN (" + old + ")", append([]any{string(org)}, args...)})
		}
	}
	if k.Events > 0 {
		for _, org := range s.sweepOrgs(ctx) {
			stmts = append(stmts, sweepEvents(org, now.Add(-k.Events))...)
		}
	}
	stmts = append(stmts,
		stmt{"DELETE FROM deliveries WHERE at < ?", []any{micros(now.Add(-DeliveriesFor))}},
		stmt{"DELETE FROM idempotency WHERE expires_at <= ?", []any{micros(now)}},
		stmt{"DELETE FROM flows WHERE expires_at <= ?", []any{micros(now)}},
		stmt{"DELETE FROM handed WHERE hour < ?", []any{now.Add(-48*time.Hour).Unix() / 3600}})
	if s.Clustered() {
		stmts = append(stmts, stmt{"DELETE FROM handover WHERE expires_at <= ?", []any{micros(now)}})
	}
	n, err := s.do(ctx, stmts...)
	for _, touched := range n[:max(0, len(n)-4)] {
		more = more || touched >= sweepBatch
	}
	return more, err
}

func (s *Store) sweepOrgs(ctx context.Context) (ids []mailgrant.ID) {
	orgs, err := s.Organizations(ctx)
	if err != nil {
		return nil
	}
	for _, o := range orgs {
		ids = append(ids, o.ID)
	}
	return ids
}

// cutID sorts just before all IDs made at t: IDs begin with their time.
func cutID(t time.Time, prefix string) string {
	ms := uint64(max(t.UnixMilli(), 0))
	const letters = "0123456789abcdefghjkmnpqrstvwxyz"
	var b strings.Builder
	fmt.Fprintf(&b, "%s_", prefix)
	for shift := 43; shift >= 3; shift -= 5 { // 48 bits, the last three left out
		b.WriteByte(letters[ms>>shift&31])
	}
	return b.String()
}

// UndoAttempt says that submissions were not sent after all.
func (s *Store) UndoAttempt(ctx context.Context, f Fence, subs []mailgrant.Submission) error {
	stmts := make([]stmt, len(subs))
	for i, sub := range subs {
		stmts[i] = undoOf(f, sub)
	}
	if len(stmts) == 0 {
		return nil
	}
	_, err := s.do(ctx, stmts...)
	return err
}

func undoOf(f Fence, sub mailgrant.Submission) stmt {
	where, args := f.where([]any{string(sub.Org), string(sub.ID)})
	return stmt{"UPDATE submissions SET state = 0 WHERE org = ? AND id = ? AND state = 1" + where, args}
}
