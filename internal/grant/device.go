package grant

import (
	"context"
	"sync"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider/oauth"
	"github.com/mailgrant/mailgrant/internal/store"
)

// A DeviceCode is what a person enters on another device.
type DeviceCode struct {
	Flow            mailgrant.ID
	UserCode        string
	VerificationURI string
	Complete        string // with the code in it; "" where there is none
	ExpiresAt       time.Time
	Interval        time.Duration // between two polls
	Mailbox         string
}

// A poll keeps us from asking more often than we may.
type poll struct {
	mu       sync.Mutex
	next     time.Time
	interval time.Duration
}

// BeginDevice starts a device code. It is off unless the operator allows it for
// the registration: a code is easily talked out of somebody. OA-28.
func (k *Keeper) BeginDevice(ctx context.Context, org, grant mailgrant.ID, by string) (DeviceCode, error) {
	g, err := k.Store.Grant(ctx, org, grant)
	if err != nil {
		return DeviceCode{}, err
	}
	s, err := k.situation(ctx, g)
	if err != nil {
		return DeviceCode{}, err
	}
	if !s.reg.DeviceFlow || g.Flow != mailgrant.FlowDevice {
		return DeviceCode{}, mailgrant.Errorf(mailgrant.Forbidden, nil, "the device code is not allowed for %s", g.Mailbox).
			Fix("use the consent in the browser; an operator can allow device_flow on the registration")
	}
	clients, err := k.clients(ctx, s)
	if err != nil {
		return DeviceCode{}, err
	}
	d, err := clients[0].Device(ctx, s.deviceScopes())
	if err != nil {
		return DeviceCode{}, err
	}
	f := store.Flow{ID: mailgrant.NewID(mailgrant.PrefixFlow), Org: org, Registration: s.reg.ID, Grant: grant, Kind: store.FlowDeviceCode, By: by}
	sec := secrets{Device: d.Code.Reveal(), Interval: int(d.Interval / time.Second), Asked: s.plan.Asked, Made: s.reg.Signature(), Expires: d.Expires}
	if _, _, err := k.newFlow(ctx, f, sec, ""); err != nil { // under a state that nobody is told
		return DeviceCode{}, err
	}
	k.polls.Store(f.ID, &poll{next: k.Now().Add(d.Interval), interval: d.Interval})
	return DeviceCode{Flow: f.ID, UserCode: d.UserCode, VerificationURI: d.VerificationURI, Complete: d.Complete, ExpiresAt: d.Expires, Interval: d.Interval, Mailbox: g.Mailbox}, nil
}

func (s situation) deviceScopes() []string {
	if s.set.TokenResourceRule == "single" {
		return s.plan.Exchange(s.set)
	}
	return s.plan.Asked
}

// PollDevice asks once whether the person is through; done is false when they are
// not. Asked too early, it does not ask the provider.
func (k *Keeper) PollDevice(ctx context.Context, org, flow mailgrant.ID) (r Result, done bool, err error) {
	f, err := k.Store.Flow(ctx, org, flow)
	if err != nil || f.Kind != store.FlowDeviceCode || !k.Now().Before(f.ExpiresAt) {
		k.polls.Delete(flow)
		if err == nil || isCode(err, mailgrant.NotFound) {
			err = mailgrant.Errorf(mailgrant.NotFound, err, "this code was used or was not entered in time").Fix("begin again")
		}
		return r, false, err
	}
	s, sec, err := k.begun(ctx, f)
	if err != nil {
		return r, false, err
	}
	r.Grant = s.grant
	v, _ := k.polls.LoadOrStore(flow, &poll{interval: time.Duration(sec.Interval) * time.Second})
	p := v.(*poll)
	p.mu.Lock()
	defer p.mu.Unlock()
	if k.Now().Before(p.next) {
		return r, false, nil
	}
	return k.pollOnce(ctx, s, sec, f, p)
}

func (k *Keeper) pollOnce(ctx context.Context, s situation, sec secrets, f store.Flow, p *poll) (r Result, done bool, err error) {
	r.Grant = s.grant
	var state oauth.Pending
	a, err := k.use(ctx, s, func(c *oauth.Client) (a oauth.Answer, err error) {
		a, state, err = c.PollDevice(ctx, mailgrant.NewSecret(sec.Device))
		return a, err
	})
	if state == oauth.SlowDown { // for good: RFC 8628 section 3.5
		p.interval += 5 * time.Second
	}
	p.next = k.Now().Add(p.interval)
	switch {
	case err != nil && oauth.SortOf(err) == oauth.Transient:
		p.interval = max(p.interval, min(2*p.interval, time.Minute)) // RFC 8628 section 3.5: back off
		p.next = k.Now().Add(p.interval)
		return r, false, nil
	case err == nil && state != oauth.NotPending:
		return r, false, nil
	}
	k.polls.Delete(f.ID)
	if e := k.Store.DeleteFlow(ctx, f.Org, f.ID); e != nil {
		k.Log.Warn("a flow that is over is not removed", "flow", f.ID, "err", e)
	}
	if err != nil {
		return r, false, err
	}
	r.Grant, err = k.accept(ctx, s, sec, a, false)
	return r, err == nil, err
}
