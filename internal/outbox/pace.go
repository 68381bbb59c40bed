package outbox

import "time"

// A pace keeps a lane to so many messages in any sixty seconds. It remembers
// when the last of them went, so that the limit is used to the full and never
// passed.
type pace struct {
	went []time.Time // a ring of the last perMinute
	next int         // the oldest place in it
}

// of is the pace for a limit, nil for none. What went before still counts.
func (p *pace) of(perMinute int) *pace {
	switch {
	case perMinute <= 0:
		return nil
	case p != nil && len(p.went) == perMinute:
		return p
	}
	fresh := &pace{went: make([]time.Time, perMinute)}
	if p != nil {
		old := append(p.went[p.next:len(p.went):len(p.went)], p.went[:p.next]...)
		for _, t := range old[max(0, len(old)-perMinute):] {
			fresh.take(t)
		}
	}
	return fresh
}

// wait is how long the next message must wait.
func (p *pace) wait(now time.Time) time.Duration {
	return max(0, p.went[p.next].Add(time.Minute).Sub(now))
}

// take counts a message.
func (p *pace) take(now time.Time) {
	p.went[p.next] = now
	p.next = (p.next + 1) % len(p.went)
}

// free is how many of n messages may go now.
func (p *pace) free(now time.Time, n int) int {
	n = min(n, len(p.went))
	for i := range n {
		if p.went[(p.next+i)%len(p.went)].Add(time.Minute).After(now) {
			return i
		}
	}
	return n
}
