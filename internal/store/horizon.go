package store

import (
	"context"
	"sync"
	"time"
)

// A horizon says up to which event of the log nothing can appear any more. Over
// PostgreSQL an event has its number before it is committed, and transactions end
// in any order: whoever read past a number that is still to come would never see
// that event.
//
//	the last number is read ──▶ a transaction's id is drawn ──▶ all before it are over
//	                                                              = the horizon
//
// A transaction has its own id before its events have their numbers. So those that
// hold numbers up to the one that was read are older than the id that was drawn
// after that; when none of those is open, all is there that ever will be.
type horizon struct {
	mu    sync.Mutex
	seq   int64
	ahead []mark // what will be the horizon, ascending

	waking bool          // those who watch will be woken
	pause  time.Duration // before that; it grows while the horizon stands
}

// A mark becomes the horizon when all transactions before tx are over.
type mark struct{ seq, tx int64 }

// marksMax bounds what is kept while one transaction stays open: the last mark is
// replaced by later ones.
const marksMax = 64

// wakeFirst and wakeMax are when those who watch are woken for what is hidden.
const (
	wakeFirst = 10 * time.Millisecond
	wakeMax   = time.Second
)

// shown says up to which event the log may be read now. Where more is hidden, those
// who watch are woken soon: nobody else may say so when it is not any more.
func (s *Store) shown(ctx context.Context) (int64, error) {
	seq, err := s.horizon.look(ctx, s.eng)
	if err == nil {
		s.horizon.soon(s.wake)
	}
	return seq, err
}

// look asks where the horizon is now.
func (h *horizon) look(ctx context.Context, q querier) (int64, error) {
	h.mu.Lock()
	known := h.seq
	if n := len(h.ahead); n > 0 {
		known = h.ahead[n-1].seq
	}
	h.mu.Unlock()
	// The number is read before the id is drawn, and that only for new numbers. What
	// is still open is as of before both.
	var m mark
	var oldest int64
	err := scan(ctx, q, `SELECT n.seq, CASE WHEN n.seq > ? THEN pg_current_xact_id()::text::bigint ELSE 0 END, pg_snapshot_xmin(pg_current_snapshot())::text::bigint
		FROM (SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS seq FROM event_seq OFFSET 0) n`, []any{known}, &m.seq, &m.tx, &oldest)
	if err != nil {
		return 0, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if m.tx > 0 {
		h.add(m)
	}
	for len(h.ahead) > 0 && h.ahead[0].tx <= oldest {
		h.seq, h.ahead, h.pause = max(h.seq, h.ahead[0].seq), h.ahead[1:], 0
	}
	return h.seq, nil
}

// add keeps a mark. Of several that were made at once one may be behind already.
func (h *horizon) add(m mark) {
	n := len(h.ahead)
	if n > 0 && (m.seq <= h.ahead[n-1].seq || m.tx <= h.ahead[n-1].tx) || m.seq <= h.seq {
		return
	}
	if n >= marksMax {
		h.ahead[n-1] = m
		return
	}
	h.ahead = append(h.ahead, m)
}

// soon has those who watch woken when something is hidden.
func (h *horizon) soon(wake func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.ahead) == 0 || h.waking {
		return
	}
	h.waking, h.pause = true, min(max(2*h.pause, wakeFirst), wakeMax)
	time.AfterFunc(h.pause, func() {
		h.mu.Lock()
		h.waking = false
		h.mu.Unlock()
		wake()
	})
}
