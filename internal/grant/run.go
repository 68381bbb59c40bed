package grant

import (
	"context"
	"maps"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/store"
)

const (
	lookEvery   = time.Minute     // for idle grants that are due
	dueAtOnce   = 200             // read in one look
	dueTogether = 4               // refreshed side by side
	idleAgain   = time.Hour       // after a failure: those behind have their turn
	tellEvery   = 15              // minutes: how exact the time of last use is
	watchEvery  = 2 * time.Second // for what other nodes changed
	hearAtOnce  = 500             // events read in one look
)

// Run refreshes idle grants on schedule, keeps the time of last use, and hears
// what the rooms around it and other nodes changed. When ctx ends it waits for refreshes
// under way: what they bring must reach the store.
func (k *Keeper) Run(ctx context.Context) error {
	defer k.Close()
	k.work.Go(func() { k.watch(ctx) })
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			k.tellUse(context.WithoutCancel(ctx), true)
			return nil
		case <-tick.C:
			k.settle(ctx)
			k.refreshDue(ctx)
			k.tellUse(ctx, false)
			now := k.Now()
			k.cache.drop(func(_ key, c *cached) bool { return !now.Before(c.token.Expires) })
		}
	}
}

// settle tries again to keep what refreshes brought while the store was away.
func (k *Keeper) settle(ctx context.Context) {
	k.owed.Range(func(id, _ any) bool {
		if _, err := k.obtain(ctx, id.(key), wish{scheduled: true}); err != nil {
			k.Log.Warn("a renewed grant is still not saved", "grant", id.(key).grant, "err", err)
		}
		return ctx.Err() == nil
	})
}

// refreshDue renews grants that nobody has used for so long that the provider
// might forget them.
func (k *Keeper) refreshDue(ctx context.Context) {
	due, err := k.Store.GrantsDue(ctx, k.Now(), dueAtOnce)
	if err != nil {
		k.Log.Warn("idle grants are not looked at", "err", err)
		return
	}
	var group errgroup.Group
	group.SetLimit(dueTogether)
	for _, g := range due {
		group.Go(func() error { k.refreshIdle(ctx, g); return nil })
	}
	group.Wait()
}

func (k *Keeper) refreshIdle(ctx context.Context, g mailgrant.Grant) {
	_, plan, err := k.plan(ctx, g)
	if err == nil {
		_, err = k.obtain(ctx, key{g.Org, g.ID, plan.resources()}, wish{scheduled: true})
	}
	if err == nil || ctx.Err() != nil {
		return
	}
	k.Log.Warn("an idle grant is not refreshed", "grant", g.ID, "err", err)
	later := k.Now().Add(idleAgain + time.Duration(rand.Float64()*0.2*float64(idleAgain)))
	if err := k.Store.PostponeGrant(ctx, g.Org, g.ID, later); err != nil {
		k.Log.Warn("an idle grant is not put off", "grant", g.ID, "err", err)
	}
}

// tellUse writes down when grants were used last.
func (k *Keeper) tellUse(ctx context.Context, all bool) {
	newest := map[key]int64{}
	k.cache.each(func(id key, c *cached) {
		used, told := c.used.Load(), c.told.Load()
		if used <= told || !all && used-told < tellEvery && told != 0 {
			return
		}
		c.told.Store(used)
		id.resource = ""
		newest[id] = max(newest[id], used)
	})
	for id, minute := range newest {
		at := time.Unix(minute*60, 0).UTC()
		if err := k.Store.NoteGrant(ctx, id.org, id.grant, nil, &at); err != nil && ctx.Err() == nil {
			k.Log.Warn("the last use of a grant is not kept", "grant", id.grant, "err", err)
		}
	}
}

// changes are the events after which a token in memory may be wrong.
var changes = []string{"grant.revoked", "grant.lapsed", "grant.deleted", "grant.changed", "grant.active",
	"registration.changed", "registration.deleted", "credential.created", "credential.deleted"}

// watch drops tokens that a change made wrong, wherever it was made: a grant that
// is revoked on one node stops working on the others within seconds, and a
// registration that was changed is not silently used. R103.
func (k *Keeper) watch(ctx context.Context) {
	added, stop := k.Store.WatchEvents()
	defer stop()
	var again <-chan time.Time
	cursors := map[mailgrant.ID]int64{}
	for {
		if k.Store.Clustered() { // other nodes wake nobody, and our own events are many
			added, again = nil, time.After(watchEvery)
		}
		select {
		case <-ctx.Done():
			return
		case <-added:
		case <-again:
		}
		byOrg := k.cachedByOrg()
		maps.DeleteFunc(cursors, func(org mailgrant.ID, _ int64) bool { return byOrg[org] == nil }) // nothing to lose there
		for org, grants := range byOrg {
			if err := k.hear(ctx, org, grants, cursors); err != nil && ctx.Err() == nil {
				k.Log.Warn("changes are not heard", "org", org, "err", err)
			}
		}
		select { // many events are one look
		case <-ctx.Done():
			return
		case <-time.After(watchEvery / 8):
		}
	}
}

func (k *Keeper) cachedByOrg() map[mailgrant.ID]map[mailgrant.ID]bool {
	m := map[mailgrant.ID]map[mailgrant.ID]bool{}
	k.cache.each(func(id key, _ *cached) {
		if m[id.org] == nil {
			m[id.org] = map[mailgrant.ID]bool{}
		}
		m[id.org][id.grant] = true
	})
	return m
}

// hear reads an organization's events since the last look. At the first look there
// is none to start from, so the grants themselves are asked.
func (k *Keeper) hear(ctx context.Context, org mailgrant.ID, grants map[mailgrant.ID]bool, cursors map[mailgrant.ID]int64) error {
	last, err := k.Store.LastEvent(ctx, org)
	after, known := cursors[org]
	if err != nil || known && last == after {
		return err
	}
	if !known {
		cursors[org] = last
		for id := range grants {
			if ok, err := k.stands(ctx, org, id); err == nil && !ok {
				k.forget(id)
			}
		}
		return nil
	}
	for {
		events, err := k.Store.Events(ctx, org, store.EventFilter{After: after, Limit: hearAtOnce, Kinds: changes})
		if err != nil {
			return err
		}
		for _, e := range events {
			after, cursors[org] = e.Seq, e.Seq
			k.heard(ctx, e)
		}
		if len(events) < hearAtOnce {
			cursors[org] = max(last, after) // past all that does not concern us
			return nil
		}
	}
}

// stands says whether a grant may give tokens as far as the store knows.
func (k *Keeper) stands(ctx context.Context, org, grant mailgrant.ID) (bool, error) {
	g, err := k.Store.Grant(ctx, org, grant)
	if isCode(err, mailgrant.NotFound) {
		return false, nil
	}
	if err != nil || g.State != mailgrant.GrantActive {
		return false, err
	}
	r, err := k.Store.Registration(ctx, org, g.Registration)
	return err == nil && !r.Disabled && r.Signature() == g.Signature, err
}

// sameAsBefore says whether a change of a registration, such as of its name, leaves
// its tokens right.
func (k *Keeper) sameAsBefore(ctx context.Context, e mailgrant.Event) bool {
	r, err := k.Store.Registration(ctx, e.Org, e.Subject)
	if err != nil || r.Disabled {
		return false
	}
	_, same := k.settings.get(r)
	return same
}

func (k *Keeper) heard(ctx context.Context, e mailgrant.Event) {
	switch e.Kind {
	case "registration.changed":
		if !k.sameAsBefore(ctx, e) {
			k.forgetRegistration(e.Subject)
		}
	case "registration.deleted":
		k.forgetRegistration(e.Subject)
	case "credential.created", "credential.deleted":
		k.rests.Clear() // rare, and the event does not name the registration
	case "grant.active": // ours from that consent is newer than the event
		k.cache.dropGrant(e.Subject, func(c *cached) bool { return c.made.Before(e.At) })
		k.reopen(e.Subject)
	case "grant.lapsed": // whoever found that out rests, and so do we
		k.cache.dropGrant(e.Subject, all)
	default:
		k.forget(e.Subject)
	}
}
