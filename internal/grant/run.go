package grant

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/store"
)

const (
	lookEvery   = time.Minute     // for idle grants that are due
	dueAtOnce   = 200             // read in one look
	dueTogether = 4               // refreshed side by side
	tellEvery   = 15              // minutes: how exact the time of last use is
	watchEvery  = 2 * time.Second // for what other nodes changed
)

// Run refreshes idle grants on schedule, keeps the time of last use, and in a
// cluster hears what other nodes changed. When ctx ends it waits for refreshes
// under way: what they bring must reach the store.
func (k *Keeper) Run(ctx context.Context) error {
	defer k.Wait()
	if k.Store.Clustered() {
		k.work.Go(func() { k.watch(ctx) })
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			k.tellUse(context.WithoutCancel(ctx), true)
			return nil
		case <-tick.C:
			k.refreshDue(ctx)
			k.tellUse(ctx, false)
		}
	}
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
	if err != nil && ctx.Err() == nil {
		k.Log.Warn("an idle grant is not refreshed", "grant", g.ID, "err", err)
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

// watch drops tokens that another node's change made wrong: a grant that is
// revoked there stops working here within seconds.
func (k *Keeper) watch(ctx context.Context) {
	added, stop := k.Store.WatchEvents()
	defer stop()
	cursors := map[mailgrant.ID]int64{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-added:
		case <-time.After(watchEvery):
		}
		for org, grants := range k.cachedByOrg() {
			if err := k.hear(ctx, org, grants, cursors); err != nil && ctx.Err() == nil {
				k.Log.Warn("changes of other nodes are not heard", "org", org, "err", err)
			}
		}
		select { // many events are one look
		case <-ctx.Done():
			return
		case <-time.After(watchEvery / 4):
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
	after, known := cursors[org]
	if !known {
		last, err := k.Store.LastEvent(ctx, org)
		if err != nil {
			return err
		}
		cursors[org] = last
		for id := range grants {
			if g, err := k.Store.Grant(ctx, org, id); isCode(err, mailgrant.NotFound) || err == nil && g.State != mailgrant.GrantActive {
				k.forget(id)
			}
		}
		return nil
	}
	events, err := k.Store.Events(ctx, org, store.EventFilter{After: after, Limit: 500, Kinds: changes})
	if err != nil {
		return err
	}
	for _, e := range events {
		cursors[org] = e.Seq
		k.heard(e)
	}
	return nil
}

func (k *Keeper) heard(e mailgrant.Event) {
	switch e.Kind {
	case "registration.changed", "registration.deleted":
		k.forgetRegistration(e.Subject)
	case "credential.created", "credential.deleted":
		k.rests.Clear() // rare, and the event does not name the registration
	case "grant.active": // ours from that consent is newer than the event
		k.cache.drop(func(id key, c *cached) bool { return id.grant == e.Subject && c.made.Before(e.At) })
	default:
		k.forget(e.Subject)
	}
}
