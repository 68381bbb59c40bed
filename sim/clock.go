package sim

import (
	"context"
	"sync"
	"time"
)

// A clock is the time of the imitated cloud: that of the machine or of the
// test, plus what Advance added.
type clock struct {
	base func() time.Time

	mu    sync.Mutex
	ahead time.Duration
	moved chan struct{} // closed and replaced by each Advance
}

func newClock(base func() time.Time) *clock {
	if base == nil {
		base = time.Now
	}
	return &clock{base: base, moved: make(chan struct{})}
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.base().Add(c.ahead)
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
	close(c.moved)
	c.moved = make(chan struct{})
}

// wait returns when the clock shows t, be it that time passed or that it was
// advanced.
func (c *clock) wait(ctx context.Context, t time.Time) error {
	for {
		c.mu.Lock()
		left, moved := t.Sub(c.base().Add(c.ahead)), c.moved
		c.mu.Unlock()
		if left <= 0 {
			return nil
		}
		timer := time.NewTimer(left)
		select {
		case <-timer.C:
		case <-moved:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
		timer.Stop()
	}
}

// sleep waits for d on the clock.
func (c *clock) sleep(ctx context.Context, d time.Duration) error {
	return c.wait(ctx, c.now().Add(d))
}
