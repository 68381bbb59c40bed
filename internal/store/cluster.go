package store

import (
	"context"
	"time"

	"github.com/mailgrant/mailgrant"
)

// Shards is how many parts the mailboxes are dealt into.
const Shards = 256

// alive is the SQL of the nodes that beat within the last ten seconds, by the
// database's clock. R-RE4.
const alive = "SELECT id FROM nodes WHERE beat_at > now() - interval '10 seconds'"

// present is the SQL of the database's clock, in our microseconds.
const present = "CAST(EXTRACT(EPOCH FROM now()) * 1000000 AS BIGINT)"

// Beat says that a node lives, and counts those that do.
func (s *Store) Beat(ctx context.Context, node mailgrant.ID) (living int, err error) {
	if _, err := s.do(ctx, stmt{"INSERT INTO nodes (id, beat_at) VALUES (?, now()) ON CONFLICT (id) DO UPDATE SET beat_at = now()", []any{string(node)}},
		stmt{"DELETE FROM nodes WHERE beat_at < now() - interval '1 hour'", nil}); err != nil {
		return 0, err
	}
	before := s.clock()
	var n, at int64
	if err := scan(ctx, s.eng, "SELECT COUNT(*), "+present+" FROM ("+alive+") a", nil, &n, &at); err != nil {
		return 0, err
	}
	s.compare(before, fromMicros(at), s.clock())
	return int(n), nil
}

// clockNoise is how far the clocks of a node and the database may be apart and
// count as the same: that much may be the way to it.
const clockNoise = 2 * time.Second

// compare learns how far the database's clock, asked between two moments, is ahead
// of ours.
func (s *Store) compare(before, theirs, after time.Time) {
	d := theirs.Sub(before.Add(after.Sub(before) / 2).Round(0))
	if d.Abs() < clockNoise+after.Sub(before) {
		d = 0
	}
	if was := time.Duration(s.ahead.Swap(int64(d))); (was - d).Abs() >= clockNoise {
		s.log.Warn("the clock of this machine and that of the database differ: the database's counts", "ahead", d.Round(time.Second))
	}
}

// Now is the time that all nodes go by: in a cluster the database's, as the last
// heartbeat knows it. What one node says is due must be due for the others. RE-15.
func (s *Store) Now() time.Time { return s.clock().Add(time.Duration(s.ahead.Load())) }

// shared turns a time of this node's clock into one of the clock that all go by, and
// local turns it back.
func (s *Store) shared(t time.Time) time.Time { return t.Add(time.Duration(s.ahead.Load())) }
func (s *Store) local(t time.Time) time.Time  { return t.Add(-time.Duration(s.ahead.Load())) }

// OwnShards are the shards of a node and since which generation it has each.
func (s *Store) OwnShards(ctx context.Context, node mailgrant.ID) (map[int64]int64, error) {
	l, err := list(ctx, s.eng, "SELECT n, generation FROM shards WHERE node = ?", []any{string(node)}, func(r rows) ([2]int64, error) {
		var v [2]int64
		err := r.Scan(&v[0], &v[1])
		return v, err
	})
	out := make(map[int64]int64, len(l))
	for _, v := range l {
		out[v[0]] = v[1]
	}
	return out, err
}

// ClaimShards takes up to n shards that no living node has. Each gets a new
// generation, so that what its last owner still writes is refused.
func (s *Store) ClaimShards(ctx context.Context, node mailgrant.ID, n int) error {
	_, err := s.do(ctx, stmt{`UPDATE shards SET node = ?, generation = generation + 1 WHERE n IN (
		SELECT n FROM shards WHERE node = '' OR node NOT IN (` + alive + `) ORDER BY n LIMIT ? FOR UPDATE SKIP LOCKED)`,
		[]any{string(node), int64(n)}})
	return err
}

// ReleaseShards gives shards back.
func (s *Store) ReleaseShards(ctx context.Context, node mailgrant.ID, shards []int64) error {
	stmts := make([]stmt, 0, len(shards))
	for _, n := range shards {
		stmts = append(stmts, stmt{"UPDATE shards SET node = '' WHERE n = ? AND node = ?", []any{n, string(node)}})
	}
	if len(stmts) == 0 {
		return nil
	}
	_, err := s.do(ctx, stmts...)
	return err
}

// Leave takes a node out at once.
func (s *Store) Leave(ctx context.Context, node mailgrant.ID) error {
	_, err := s.do(ctx, stmt{"UPDATE shards SET node = '' WHERE node = ?", []any{string(node)}},
		stmt{"DELETE FROM nodes WHERE id = ?", []any{string(node)}})
	return err
}
