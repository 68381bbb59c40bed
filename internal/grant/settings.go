package grant

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
)

// settingsLife is how long discovered settings are used before they are read
// again. Entra and others let their documents be kept for a day.
const settingsLife = 24 * time.Hour

// settingsRest is how long a provider is left in peace whose document cannot be
// read and of whom we know nothing yet.
const settingsRest = 5 * time.Second

// settingsCache keeps resolved settings by registration and what they were made of.
type settingsCache struct {
	flights singleflight.Group
	mu      sync.Mutex
	m       map[mailgrant.ID]resolved
}

type resolved struct {
	set  provider.Settings
	err  error  // why there are none
	of   string // signature of the registration
	when time.Time
}

func (c *settingsCache) get(r mailgrant.Registration) (resolved, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.m[r.ID]
	return v, ok && v.of == r.Signature()
}

func (c *settingsCache) put(r mailgrant.Registration, set provider.Settings, err error, when time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil {
		c.m = map[mailgrant.ID]resolved{}
	}
	c.m[r.ID] = resolved{set, err, r.Signature(), when}
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
	switch age := k.Now().Sub(have.when); {
	case ok && have.err != nil && age < settingsRest:
		return have.set, have.err
	case ok && have.err == nil && (have.set.Discovery == "none" || age < settingsLife):
		return have.set, nil
	}
	done := k.settings.flights.DoChan(string(r.ID)+r.Signature(), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), resolveWithin)
		defer cancel()
		return k.lookUp(ctx, r, have, ok && have.err == nil)
	})
	select {
	case v := <-done:
		return v.Val.(provider.Settings), v.Err
	case <-ctx.Done():
		return provider.Settings{}, mailgrant.Errorf(mailgrant.Unavailable, ctx.Err(), "the provider's metadata did not come in time").Fix("try again in a moment")
	}
}

// resolveWithin bounds one look-up: a tenant's document and the metadata.
const resolveWithin = 40 * time.Second

// lookUp resolves once for all who wait. have are the settings so far, if good.
func (k *Keeper) lookUp(ctx context.Context, r mailgrant.Registration, have resolved, good bool) (provider.Settings, error) {
	set, err := provider.Resolve(ctx, r, k.HTTP(r))
	if err != nil && good {
		k.Log.Warn("provider metadata is not renewed", "registration", r.ID, "err", err)
		k.settings.put(r, have.set, nil, k.Now().Add(time.Hour-settingsLife))
		return have.set, nil
	}
	k.settings.put(r, set, err, k.Now())
	return set, err
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
