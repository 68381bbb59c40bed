package grant

import (
	"context"
	"sync"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
)

// settingsLife is how long discovered settings are used before they are read
// again. Entra and others let their documents be kept for a day.
const settingsLife = 24 * time.Hour

// settingsCache keeps resolved settings by registration and what they were made of.
type settingsCache struct {
	mu sync.Mutex
	m  map[mailgrant.ID]resolved
}

type resolved struct {
	set  provider.Settings
	of   string // signature of the registration
	when time.Time
}

func (c *settingsCache) get(r mailgrant.Registration) (resolved, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.m[r.ID]
	return v, ok && v.of == r.Signature()
}

func (c *settingsCache) put(r mailgrant.Registration, set provider.Settings, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil {
		c.m = map[mailgrant.ID]resolved{}
	}
	c.m[r.ID] = resolved{set, r.Signature(), now}
}

func (c *settingsCache) drop(id mailgrant.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.m, id)
}

// Settings are the resolved settings of a registration.
func (k *Keeper) Settings(ctx context.Context, org, registration mailgrant.ID) (provider.Settings, error) {
	r, err := k.Store.Registration(ctx, org, registration)
	if err != nil {
		return provider.Settings{}, err
	}
	return k.resolve(ctx, r)
}

// resolve reads settings once a day. Good ones stay in force when the provider's
// document cannot be read or has turned bad.
func (k *Keeper) resolve(ctx context.Context, r mailgrant.Registration) (provider.Settings, error) {
	have, ok := k.settings.get(r)
	if ok && (have.set.Discovery == "none" || k.Now().Sub(have.when) < settingsLife) {
		return have.set, nil
	}
	set, err := provider.Resolve(ctx, r, k.HTTP(r))
	if err != nil {
		if ok {
			k.Log.Warn("provider metadata is not renewed", "registration", r.ID, "err", err)
			k.settings.put(r, have.set, k.Now().Add(time.Hour-settingsLife))
			return have.set, nil
		}
		return set, err
	}
	k.settings.put(r, set, k.Now())
	return set, nil
}

// A situation is a grant with everything around it.
type situation struct {
	grant mailgrant.Grant
	reg   mailgrant.Registration
	set   provider.Settings
	plan  provider.Plan
}

func (k *Keeper) situation(ctx context.Context, g mailgrant.Grant) (s situation, err error) {
	s.grant = g
	if s.reg, err = k.Store.Registration(ctx, g.Org, g.Registration); err != nil {
		return s, err
	}
	if s.reg.Disabled {
		return s, mailgrant.Errorf(mailgrant.Misset, nil, "the registration %s is switched off", s.reg.Name).
			Fix("switch it on: mailgrant registration enable %s", s.reg.ID)
	}
	if s.set, err = k.resolve(ctx, s.reg); err != nil {
		return s, err
	}
	s.plan, err = provider.Scopes(s.set, provider.AskOf(s.reg, g))
	return s, err
}

// planned is a plan that knows its first resource.
type planned struct{ provider.Plan }

func (p planned) resources() string { return p.Resources[0] }

func (k *Keeper) plan(ctx context.Context, g mailgrant.Grant) (provider.Settings, planned, error) {
	s, err := k.situation(ctx, g)
	return s.set, planned{s.plan}, err
}
