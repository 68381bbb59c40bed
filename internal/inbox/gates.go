package inbox

import (
	"context"
	"sync"

	"github.com/mailgrant/mailgrant/internal/provider"
)

// openings is how many mailboxes log in to one host at once. A start with ten
// thousand of them must not look like an attack.
const openings = 64

// gates are the places for logins. Each host has its own: one that does not answer
// must not hold up the mailboxes of others.
type gates struct {
	mu sync.Mutex
	at map[string]*gate
}

type gate struct {
	places chan struct{}
	users  int // in it and before it
}

// enter waits for a place. Call leave when logged in, or not.
func (g *gates) enter(ctx context.Context, host string) (leave func(), err error) {
	g.mu.Lock()
	at := g.at[host]
	if at == nil {
		at = &gate{places: make(chan struct{}, openings)}
		g.at[host] = at
	}
	at.users++
	g.mu.Unlock()
	done := func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if at.users--; at.users == 0 {
			delete(g.at, host)
		}
	}
	select {
	case at.places <- struct{}{}:
		return func() { <-at.places; done() }, nil
	case <-ctx.Done():
		done()
		return nil, ctx.Err()
	}
}

// hostOf is where a reader logs in.
func hostOf(w provider.Way, reader string) string {
	switch reader {
	case "imap":
		return w.Settings.IMAPHost
	case "pop":
		return w.Settings.POPHost
	}
	return w.Settings.GraphURL
}
