// Package grant keeps consents alive.
//
// A grant is born when the owner of a mailbox says yes at the provider, and lives
// while its refresh token does. Keeper is the only one to see refresh tokens in
// the clear; all others ask it for an access token, and get one that is good for
// at least another minute.
//
//	Token ──cached──▶ done, without a lock
//	  └─not─▶ flight ─▶ gate of the grant ─▶ lease of its row ─▶ provider ─▶ store ─▶ cache
//	         (one for  (one at a time in     (one node, with             (the new
//	         a token)   this process)         a generation)               token is durable
//	                                                                      before it is used)
//
// Access tokens live in memory. In a cluster the node that refreshed leaves them,
// sealed, for the others.
package grant

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/oauth"
)

// Config is what a Keeper needs. Prove, Dial, Log and Now may be nil.
type Config struct {
	Store     Store
	Vault     Vault
	HTTP      func(mailgrant.Registration) *http.Client // without redirects; egress makes it
	Dial      func(ctx context.Context, network, addr string) (net.Conn, error)
	Node      mailgrant.ID
	PublicURL string

	// ReturnURLs are the pages, letter by letter, to which a consent may return
	// besides our own.
	ReturnURLs []string

	// Prove opens the mailbox with a new token before its grant is kept. It is
	// asked where the provider's word on the person is not enough: shared
	// mailboxes, the app itself, providers that do not say who consented.
	Prove func(ctx context.Context, w provider.Way) error

	// Changed hears that a grant was consented to, revoked or lapsed here: what
	// waits for it can look again. It must not block.
	Changed func(org, grant mailgrant.ID)

	// Connected hears that a person gave a consent here, and to what in words: the
	// mailbox is to be told, lest somebody was talked into it. OA-04.
	Connected func(ctx context.Context, g mailgrant.Grant, rights []string)

	Log *slog.Logger
	Now func() time.Time
}

// A Keeper hands out access tokens. It is safe for concurrent use.
type Keeper struct {
	Config
	cache    cache
	flights  singleflight.Group
	gates    sync.Map // grant id → *gate
	settings settingsCache
	rests    sync.Map // registration id → rest
	keys     oauth.Keys
	polls    sync.Map // flow id → poll
	owed     sync.Map // keys of tokens that a refresh brought and the store has not taken
	endMu    sync.Mutex
	ended    bool           // nothing is begun any more
	work     sync.WaitGroup // what was begun
}

// NewKeeper makes a Keeper. Run does its scheduled work.
func NewKeeper(c Config) *Keeper {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Changed == nil {
		c.Changed = func(org, grant mailgrant.ID) {}
	}
	if c.Connected == nil {
		c.Connected = func(context.Context, mailgrant.Grant, []string) {}
	}
	k := &Keeper{Config: c}
	k.cache.init()
	return k
}

// Token gives an access token of a grant for a resource; "" is the grant's first.
func (k *Keeper) Token(ctx context.Context, org, grant mailgrant.ID, resource string) (mailgrant.Token, error) {
	id := key{org, grant, resource}
	if c := k.cache.get(id); c != nil {
		now := k.Now()
		if now.Before(c.hard) {
			if c.stale(now) {
				k.early(ctx, key{org, grant, c.token.Resource}, c)
			}
			c.touch(now)
			return c.token, nil
		}
	}
	if resource == "" {
		return k.firstToken(ctx, org, grant, false)
	}
	t, err := k.obtain(ctx, id, wish{})
	if c := k.cache.get(id); err == nil && c != nil {
		c.touch(k.Now())
	}
	return t, err
}

// FreshToken gives another token than the cached one, which was refused. A token
// younger than the floor is given again: asking once more would not better it.
func (k *Keeper) FreshToken(ctx context.Context, org, grant mailgrant.ID, resource string) (mailgrant.Token, error) {
	if resource == "" {
		return k.firstToken(ctx, org, grant, true)
	}
	id := key{org, grant, resource}
	w := wish{}
	if c := k.cache.get(id); c != nil {
		if k.Now().Sub(c.made) < floor {
			return c.token, nil
		}
		w = wish{fresh: true, refused: c.token.Value}
	}
	return k.obtain(ctx, id, w)
}

// firstToken is for callers who do not name a resource.
func (k *Keeper) firstToken(ctx context.Context, org, grant mailgrant.ID, fresh bool) (mailgrant.Token, error) {
	g, err := k.Store.Grant(ctx, org, grant)
	if err != nil {
		return mailgrant.Token{}, err
	}
	_, plan, err := k.plan(ctx, g)
	if err != nil {
		return mailgrant.Token{}, err
	}
	id := key{org, grant, plan.resources()}
	if fresh {
		return k.FreshToken(ctx, org, grant, id.resource)
	}
	t, err := k.Token(ctx, org, grant, id.resource)
	if c := k.cache.get(id); err == nil && c != nil {
		k.cache.put(key{org, grant, ""}, c) // the next one need not look up which is the first
	}
	return t, err
}

// earlyEvery is the least time between two looks whether a token can be renewed in
// the background. How often the provider is asked is another thing: see gate.
const earlyEvery = 5 * time.Second

// early refreshes in the background, while the present token still works.
func (k *Keeper) early(ctx context.Context, id key, c *cached) {
	if !k.begin() {
		return
	}
	go func() {
		defer k.work.Done()
		defer c.renewing.Store(false)
		_, err := k.obtain(context.WithoutCancel(ctx), id, wish{early: true})
		c.again.Store(k.Now().Add(earlyEvery).Unix())
		if err != nil {
			k.Log.Info("early refresh", "grant", id.grant, "resource", id.resource, "err", err)
		}
	}()
}

// obtain joins all who want the same. Who gives up waiting does not stop the
// refresh: its result may be the only copy of a refresh token.
func (k *Keeper) obtain(ctx context.Context, id key, w wish) (mailgrant.Token, error) {
	done := k.flights.DoChan(string(id.org)+"\x00"+string(id.grant)+"\x00"+id.resource+"\x00"+w.name(), func() (any, error) {
		if !k.begin() {
			return nil, mailgrant.Errorf(mailgrant.Unavailable, nil, "mailgrant is stopping").Fix("try again when it runs again")
		}
		defer k.work.Done()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), renewWithin)
		defer cancel()
		return k.renew(ctx, id, w)
	})
	select {
	case r := <-done:
		t, _ := r.Val.(mailgrant.Token)
		return t, r.Err
	case <-ctx.Done():
		return mailgrant.Token{}, waited(id, ctx.Err())
	}
}

func waited(id key, err error) error {
	return mailgrant.Errorf(mailgrant.Unavailable, err, "no token came in time").Fix("try again in a moment")
}

// Close refuses what is asked from now on, and waits for refreshes under way. The
// store may be closed next, and what a refresh brings then would be lost.
func (k *Keeper) Close() {
	k.endMu.Lock()
	k.ended = true
	k.endMu.Unlock()
	k.work.Wait()
}

// begin counts a piece of work that Close waits for; false: it is too late for it.
func (k *Keeper) begin() bool {
	k.endMu.Lock()
	defer k.endMu.Unlock()
	if !k.ended {
		k.work.Add(1)
	}
	return !k.ended
}

// forget drops the tokens of one grant from memory.
func (k *Keeper) forget(grant mailgrant.ID) {
	k.cache.dropGrant(grant, all)
	k.reopen(grant)
}

// reopen ends the rest of a grant: something about it has changed.
func (k *Keeper) reopen(grant mailgrant.ID) {
	if g, ok := k.gates.Load(grant); ok {
		g.(*gate).open.Store(true)
	}
}

// forgetRegistration drops what was made under an older form of a registration.
func (k *Keeper) forgetRegistration(registration mailgrant.ID) {
	k.cache.drop(func(_ key, c *cached) bool { return c.registration == registration })
	k.settings.drop(registration)
	k.rests.Delete(registration)
}

// isCode says whether err is an *mailgrant.Error of that code.
func isCode(err error, c mailgrant.Code) bool { return errors.Is(err, c) }
