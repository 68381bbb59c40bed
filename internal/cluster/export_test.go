package cluster

import "time"

// SetClock gives a member another clock.
func SetClock(m *Member, now func() time.Time) { m.now = now }
