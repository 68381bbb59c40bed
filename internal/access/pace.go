package access

import (
	"sync"
	"time"

	"github.com/mailgrant/mailgrant"
)

// A pace keeps each app to its submissions a minute on this node. It remembers
// only apps that have a limit and used it lately.
type pace struct {
	mu   sync.Mutex
	apps map[mailgrant.ID]bucket
}

type bucket struct {
	left float64
	at   time.Time
}

func newPace() *pace { return &pace{apps: map[mailgrant.ID]bucket{}} }

// Spend counts one submission against the app's limit.
func (a *Access) Spend(c mailgrant.Caller) error {
	limit := float64(c.App.PerMinute)
	if c.Operator || limit <= 0 {
		return nil
	}
	now := a.now()
	a.pace.mu.Lock()
	defer a.pace.mu.Unlock()
	b, ok := a.pace.apps[c.App.ID]
	if !ok {
		a.pace.sweep(now)
		b = bucket{left: limit, at: now}
	}
	b.left = min(limit, b.left+max(0, now.Sub(b.at).Minutes())*limit)
	b.at = now
	if b.left < 1 {
		a.pace.apps[c.App.ID] = b
		wait := time.Duration((1 - b.left) / limit * float64(time.Minute))
		return mailgrant.Errorf(mailgrant.Limited, nil, "the app %s may make %d submissions a minute", c.App.Name, c.App.PerMinute).
			Fix("try again in %s, or raise its limit: mailgrant app set %s --per-minute N", wait.Round(time.Second)+time.Second, c.App.Name)
	}
	b.left--
	a.pace.apps[c.App.ID] = b
	return nil
}

// sweep forgets apps whose minute is over.
func (p *pace) sweep(now time.Time) {
	if len(p.apps) < 1024 {
		return
	}
	for id, b := range p.apps {
		if now.Sub(b.at) > time.Minute {
			delete(p.apps, id)
		}
	}
}
