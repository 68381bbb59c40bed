package grant

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/oauth"
	"github.com/mailgrant/mailgrant/internal/store"
)

const (
	// floor is the least time between two tries to refresh a grant after a failure.
	floor = 60 * time.Second

	// restMax is how long a grant rests at most, and how long a lapsed one does.
	restMax = 15 * time.Minute

	// renewWithin bounds one refresh with all its waiting; leaseFor outlasts it, so
	// that a slow node is not overtaken, only a dead one.
	renewWithin = 45 * time.Second
	leaseFor    = 50 * time.Second

	// patience is how long we wait for the node that has the lease after a failure:
	// it may be resting, or trying again.
	patience = 2 * time.Second

	// graceFor is how long the refresh token before the present one may still be
	// tried, should the present one be refused at once.
	graceFor = time.Hour
)

// A wish is why a token is wanted.
type wish struct {
	early     bool // the present one still works
	fresh     bool // the present one was refused
	scheduled bool // nobody waits: the grant has been idle
	refused   mailgrant.Secret
}

func (w wish) name() string {
	switch {
	case w.fresh:
		return "fresh"
	case w.scheduled:
		return "scheduled"
	case w.early:
		return "early"
	}
	return ""
}

// A gate lets one refresh of a grant through at a time in this process, and
// remembers how the last one went. All but sem and open belong to who is inside.
type gate struct {
	sem        chan struct{}
	open       atomic.Bool // forget what was: something has changed
	until      time.Time   // no try before
	tries      int         // failed ones in a row
	err        error       // of the last
	generation int64       // of the grant then
	unsaved    *unsaved
}

// unsaved is what a refresh brought and the database did not take. Its refresh
// token may be the only one that works.
type unsaved struct {
	renewal store.Renewal
	id      key
	token   *cached
}

func (k *Keeper) gate(grant mailgrant.ID) *gate {
	if g, ok := k.gates.Load(grant); ok {
		return g.(*gate)
	}
	g, _ := k.gates.LoadOrStore(grant, &gate{sem: make(chan struct{}, 1)})
	return g.(*gate)
}

// renew gets a token from wherever it can be had: the cache, after waiting for
// somebody else's refresh; another node; the provider.
func (k *Keeper) renew(ctx context.Context, id key, w wish) (mailgrant.Token, error) {
	g := k.gate(id.grant)
	select {
	case g.sem <- struct{}{}:
		defer func() { <-g.sem }()
	case <-ctx.Done():
		return mailgrant.Token{}, waited(id, ctx.Err())
	}
	if t, ok := k.already(id, w); ok {
		return t, nil
	}
	if k.resting(ctx, id, g) {
		return k.still(id, w, g.err)
	}
	t, err := k.compete(ctx, id, w, g)
	if isCode(err, mailgrant.Conflict) { // somebody else's result counts: a consent, a refresh, a disconnection
		if t, ok := k.already(id, w); ok {
			return t, nil
		}
		if t, err = k.compete(ctx, id, w, g); isCode(err, mailgrant.Conflict) {
			err = waited(id, err)
		}
	}
	if err != nil {
		return k.still(id, w, err)
	}
	g.tries, g.err, g.until = 0, nil, time.Time{}
	return t, nil
}

// resting says whether it is too early for another try. A consent that came in
// meanwhile, here or on another node, ends the rest.
func (k *Keeper) resting(ctx context.Context, id key, g *gate) bool {
	if g.open.Swap(false) {
		g.until = time.Time{}
	}
	if !k.Now().Before(g.until) {
		return false
	}
	if !k.Store.Clustered() { // nobody else could have done anything
		return true
	}
	now, err := k.Store.Grant(ctx, id.org, id.grant)
	return err != nil || now.Generation == g.generation
}

// already looks whether the one before us in the gate brought what we want.
func (k *Keeper) already(id key, w wish) (mailgrant.Token, bool) {
	c := k.cache.get(id)
	if c == nil {
		return mailgrant.Token{}, false
	}
	now := k.Now()
	switch {
	case w.fresh:
		return c.token, c.token.Value != w.refused || now.Sub(c.made) < floor
	case w.early:
		return c.token, now.Before(c.soft)
	case w.scheduled:
		return c.token, now.Sub(c.made) < floor
	}
	return c.token, now.Before(c.hard)
}

// still gives the token we have when a passing failure keeps us from a new one.
func (k *Keeper) still(id key, w wish, err error) (mailgrant.Token, error) {
	c := k.cache.get(id)
	if c != nil && !w.fresh && !w.scheduled && k.Now().Before(c.token.Expires) && oauth.SortOf(err) == oauth.Transient {
		return c.token, nil
	}
	return mailgrant.Token{}, err
}

// failed sets when the next try at the provider may be: a minute after the first
// failure, later after more, never all grants together.
func (g *gate) failed(now time.Time, generation int64, err error) {
	g.tries++
	g.err, g.generation = err, generation
	pause := min(floor<<min(g.tries-1, 6), restMax)
	switch oauth.SortOf(err) {
	case oauth.NeedsOwner, oauth.NeedsAdmin:
		pause = restMax
	case oauth.Broken: // mended by a setting: be there soon
		pause = floor
	}
	if f := mailgrant.AsError(err).Finding; f != nil && f.RetryAfter > pause {
		pause = min(f.RetryAfter, time.Hour)
	}
	pause += time.Duration(rand.Float64() * 0.2 * float64(pause))
	g.until = now.Add(pause)
}

// compete takes the lease of the grant's row, or waits for the node that has it.
func (k *Keeper) compete(ctx context.Context, id key, w wish, gt *gate) (mailgrant.Token, error) {
	begun := time.Now()
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, 500*time.Millisecond) {
		g, held, err := k.Store.LeaseGrant(ctx, id.org, id.grant, k.Node, leaseFor)
		if err != nil {
			return mailgrant.Token{}, err
		}
		if err := k.usable(g, held); err != nil {
			k.release(ctx, id, held)
			gt.failed(k.Now(), g.Generation, err)
			return mailgrant.Token{}, err
		}
		if t, ok := k.handed(ctx, id, w, g); ok {
			k.release(ctx, id, held)
			return t, nil
		}
		if held {
			return k.refresh(ctx, id, g, gt)
		}
		if f := g.LastFinding; f != nil && time.Since(begun) > patience { // whoever has the lease rests after a failure
			err := mailgrant.Errorf(codeOf(*f), nil, "%s", f.Sentence).With(*f)
			gt.failed(k.Now(), g.Generation, err)
			return mailgrant.Token{}, err
		}
		if w.scheduled { // somebody does it: that is all we want
			return mailgrant.Token{}, nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return mailgrant.Token{}, waited(id, ctx.Err())
		}
	}
}

func (k *Keeper) release(ctx context.Context, id key, held bool) {
	if !held {
		return
	}
	if err := k.Store.ReleaseGrant(ctx, id.org, id.grant, k.Node); err != nil {
		k.Log.Warn("a grant's lease is not given back, it ends by itself", "grant", id.grant, "err", err)
	}
}

// usable says whether a grant can give tokens at all. A lapsed one may be tried
// again by who gets its lease: its administrator may have relented.
func (k *Keeper) usable(g mailgrant.Grant, held bool) error {
	switch g.State {
	case mailgrant.GrantActive:
		return nil
	case mailgrant.GrantLapsed:
		if held && k.Now().Sub(g.UpdatedAt) >= floor { // else another node has just tried
			return nil
		}
		return lapsed(g, nil, nil)
	}
	return unusable(g)
}

// handed takes a token that another node left.
func (k *Keeper) handed(ctx context.Context, id key, w wish, g mailgrant.Grant) (mailgrant.Token, bool) {
	if !k.Store.Clustered() || g.State != mailgrant.GrantActive {
		return mailgrant.Token{}, false
	}
	sealed, expires, err := k.Store.FetchHandover(ctx, id.org, id.grant, id.resource)
	if err != nil {
		return mailgrant.Token{}, false
	}
	b, err := k.Vault.Open(placeOfHandover(id.org, id.grant, id.resource), sealed)
	if err != nil {
		return mailgrant.Token{}, false
	}
	var h handover
	if json.Unmarshal(b, &h) != nil {
		return mailgrant.Token{}, false
	}
	c := newCached(mailgrant.Token{Value: mailgrant.NewSecret(h.Token), Type: "Bearer", Expires: expires, Resource: id.resource, Scopes: h.Scopes}, g.Registration, h.Made)
	now := k.Now()
	if !now.Before(c.hard) || w.early && !now.Before(c.soft) || w.fresh && c.token.Value == w.refused || w.scheduled && now.Sub(c.made) >= floor {
		return mailgrant.Token{}, false
	}
	k.cache.put(id, c)
	return c.token, true
}

// A handover is the inside of store.Handover.
type handover struct {
	Token  string    `json:"t"`
	Scopes []string  `json:"s,omitempty"`
	Made   time.Time `json:"m"`
}

// refresh asks the provider. We hold the lease.
func (k *Keeper) refresh(ctx context.Context, id key, g mailgrant.Grant, gt *gate) (mailgrant.Token, error) {
	if gt.unsaved != nil {
		return k.rescue(ctx, id, g, gt)
	}
	s, err := k.situation(ctx, g)
	if err == nil {
		err = s.covers(id.resource)
	}
	if err != nil {
		k.release(ctx, id, true)
		return mailgrant.Token{}, err
	}
	a, used, err := k.ask(ctx, s, id.resource)
	if err != nil {
		return mailgrant.Token{}, k.refused(ctx, id, g, gt, err)
	}
	return k.keep(ctx, id, s, a, used, gt)
}

// rescue writes what a refresh before this one brought, before anything else is
// tried. It ends with a conflict, so that we begin anew on the grant as it then is.
func (k *Keeper) rescue(ctx context.Context, id key, g mailgrant.Grant, gt *gate) (mailgrant.Token, error) {
	u := gt.unsaved
	gt.unsaved = nil
	k.owed.Delete(u.id)
	if u.renewal.Generation != g.Generation { // somebody consented meanwhile
		k.release(ctx, id, true)
		return mailgrant.Token{}, superseded(nil)
	}
	if err := k.save(ctx, u, gt); err != nil {
		return mailgrant.Token{}, err
	}
	if u.id == id && k.Now().Before(u.token.hard) {
		return u.token.token, nil
	}
	return mailgrant.Token{}, superseded(nil)
}

func superseded(err error) error {
	return mailgrant.Errorf(mailgrant.Conflict, err, "another result counts").Fix("try again")
}

// covers says whether the grant was made for this: under this form of its
// registration, and for these scopes. R103: a change is not silently used.
func (s situation) covers(resource string) error {
	want, ok := s.plan.Tokens[resource]
	if !ok && !slices.Contains(s.plan.Resources, resource) {
		return mailgrant.Errorf(mailgrant.Forbidden, nil, "the grant of %s has no token for %q", s.grant.Mailbox, resource).
			Fix("use one of: %s; or give the grant another capability and have it consented again", join(s.plan.Resources)).At("resource")
	}
	if s.grant.Signature != s.reg.Signature() {
		return again(s.grant, "its registration was changed after the consent")
	}
	for _, scope := range want {
		if !slices.Contains(s.grant.ScopesAsked, scope) {
			return again(s.grant, "it is now to be asked for "+scope)
		}
	}
	return nil
}

// Outgrown says whether a grant of r must be consented to once more before all that
// it is for works. The provider is not asked: what is not known of it yet is right.
func (k *Keeper) Outgrown(g mailgrant.Grant, r mailgrant.Registration) bool {
	if g.Signature == "" { // nobody has consented yet
		return false
	}
	if g.Signature != r.Signature() {
		return true
	}
	have, known := k.settings.get(r)
	if !known || have.err != nil {
		return false
	}
	plan, err := provider.Scopes(have.set, provider.AskOf(r, g))
	if err != nil {
		return false
	}
	s := situation{grant: g, reg: r, set: have.set, plan: plan}
	return slices.ContainsFunc(plan.Resources, func(resource string) bool { return s.covers(resource) != nil })
}

// ask makes the token call. used is the refresh token that worked.
func (k *Keeper) ask(ctx context.Context, s situation, resource string) (a oauth.Answer, used mailgrant.Secret, err error) {
	g := s.grant
	if g.Flow == mailgrant.FlowApp {
		a, err = k.use(ctx, s, func(c *oauth.Client) (oauth.Answer, error) {
			return c.AppToken(ctx, s.plan.Tokens[resource], g.Mailbox)
		})
		return a, used, err
	}
	for _, sealed := range [][]byte{g.Sealed, g.SealedPrev} {
		if len(sealed) == 0 {
			break
		}
		var plain []byte
		if plain, err = k.Vault.Open(placeOfRefresh(g), sealed); err != nil {
			return a, used, err
		}
		used = mailgrant.NewSecret(string(plain))
		a, err = k.use(ctx, s, func(c *oauth.Client) (oauth.Answer, error) {
			return c.Refresh(ctx, used, s.plan.Refresh(s.set, resource))
		})
		if err == nil || !k.graceful(g, err) {
			return a, used, err
		}
	}
	if err == nil {
		err = unusable(g)
	}
	return a, used, err
}

// graceful says whether the token before the present one may be tried: the
// provider gave us a new one a short time ago and already refuses it, without a
// reason that would hold for both.
func (k *Keeper) graceful(g mailgrant.Grant, err error) bool {
	return oauth.CodeOf(err) == "invalid_grant" && !oauth.Revoked(err) && g.State == mailgrant.GrantActive && len(g.SealedPrev) > 0 &&
		g.LastRefresh != nil && k.Now().Sub(*g.LastRefresh) < graceFor
}

// keep makes the result durable, and only then usable.
func (k *Keeper) keep(ctx context.Context, id key, s situation, a oauth.Answer, used mailgrant.Secret, gt *gate) (mailgrant.Token, error) {
	g, now := s.grant, k.Now()
	if err := sameSubject(g, a); err != nil {
		return mailgrant.Token{}, k.lapse(ctx, id, g, gt, err)
	}
	c := newCached(a.Token(id.resource), g.Registration, now)
	r, err := k.result(id, s, a, used, c)
	if err != nil {
		k.release(ctx, id, true)
		return mailgrant.Token{}, err
	}
	err = k.save(ctx, &unsaved{renewal: r, id: id, token: c}, gt)
	if isCode(err, mailgrant.Conflict) || isCode(err, mailgrant.NotFound) {
		k.orphaned(ctx, s, a)
	}
	if err != nil {
		return mailgrant.Token{}, err
	}
	if g.State != mailgrant.GrantActive {
		k.Changed(g.Org, g.ID)
	}
	k.Log.Debug("refreshed", "grant", g.ID, "resource", id.resource, "expires", a.Expires)
	return c.token, nil
}

// result is what a refresh brought as the store keeps it.
func (k *Keeper) result(id key, s situation, a oauth.Answer, used mailgrant.Secret, c *cached) (r store.Renewal, err error) {
	g := s.grant
	r = store.Renewal{Grant: g.ID, Org: g.Org, Node: k.Node, Generation: g.Generation, At: c.made, Expires: a.Expires, Next: k.next(s, c.made)}
	if a.ScopesTold() && g.Flow != mailgrant.FlowApp {
		r.Scopes = mergeScopes(g.ScopesGranted, s.plan.Tokens[id.resource], a.Scopes)
	}
	if r.Sealed, err = k.sealRefresh(g, a, used); err != nil || !k.Store.Clustered() {
		return r, err
	}
	h, err := k.sealHandover(id, c)
	r.Handover = []store.Handover{h}
	return r, err
}

// orphaned ends the refresh token of a grant that was disconnected while it was
// refreshed: nobody knows it but us, and nobody ever would. Where something else
// counts, the token may belong to what counts, and stays.
func (k *Keeper) orphaned(ctx context.Context, s situation, a oauth.Answer) {
	g, err := k.Store.Grant(ctx, s.grant.Org, s.grant.ID)
	if err != nil && !isCode(err, mailgrant.NotFound) || err == nil && g.State != mailgrant.GrantRevoked || a.Refresh.IsZero() {
		return
	}
	k.giveBack(ctx, s, a)
}

// sealRefresh seals the refresh token to keep: a new one, or the one before the
// present one when it was that which worked; nil keeps the present one. Google
// leaves it out of a renewal, Microsoft sends a new one each time.
func (k *Keeper) sealRefresh(g mailgrant.Grant, a oauth.Answer, used mailgrant.Secret) ([]byte, error) {
	if g.Flow == mailgrant.FlowApp {
		return nil, nil
	}
	fresh := a.Refresh
	if fresh.IsZero() {
		fresh = used
	}
	if present, err := k.Vault.Open(placeOfRefresh(g), g.Sealed); err == nil && string(present) == fresh.Reveal() {
		return nil, nil
	}
	return k.Vault.Seal(placeOfRefresh(g), []byte(fresh.Reveal()))
}

func (k *Keeper) sealHandover(id key, c *cached) (store.Handover, error) {
	b, err := json.Marshal(handover{c.token.Value.Reveal(), c.token.Scopes, c.made})
	if err != nil {
		return store.Handover{}, err
	}
	sealed, err := k.Vault.Seal(placeOfHandover(id.org, id.grant, id.resource), b)
	return store.Handover{Resource: id.resource, Sealed: sealed, Expires: c.token.Expires}, err
}

// save does not give up lightly: what it holds may exist nowhere else. A lease that
// ended meanwhile is taken again; only a grant that has gone on is a conflict.
func (k *Keeper) save(ctx context.Context, u *unsaved, gt *gate) error {
	r := u.renewal
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		err := k.Store.RenewGrant(ctx, r)
		if isCode(err, mailgrant.Conflict) {
			err = k.leaseAgain(ctx, r)
			if err == nil {
				continue
			}
		}
		switch {
		case err == nil:
			u.token.made = k.Now() // newer than what the event log says of it
			k.cache.put(u.id, u.token)
			return nil
		case isCode(err, mailgrant.Conflict), isCode(err, mailgrant.NotFound):
			return err
		}
		k.Log.Error("a renewed grant is not saved yet", "grant", r.Grant, "err", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			gt.unsaved = u
			k.owed.Store(u.id, true)
			return err
		}
	}
}

// leaseAgain takes the lease once more, as long as the grant is what it was.
func (k *Keeper) leaseAgain(ctx context.Context, r store.Renewal) error {
	g, held, err := k.Store.LeaseGrant(ctx, r.Org, r.Grant, r.Node, leaseFor)
	switch {
	case err != nil:
		return err
	case g.Generation != r.Generation:
		if held {
			k.release(ctx, key{r.Org, r.Grant, ""}, true)
		}
		return superseded(nil) // fenced out
	case !held:
		return mailgrant.Errorf(mailgrant.Unavailable, nil, "another node holds the grant").Fix("try again in a moment")
	}
	return nil
}

// refused notes a failure where it belongs: on the grant, or nowhere but here.
// What was found out without asking the provider needs no rest.
func (k *Keeper) refused(ctx context.Context, id key, g mailgrant.Grant, gt *gate, err error) error {
	if s := oauth.SortOf(err); s == oauth.NeedsOwner || s == oauth.NeedsAdmin {
		return k.lapse(ctx, id, g, gt, err)
	}
	if f := mailgrant.AsError(err).Finding; f != nil {
		if err := k.Store.NoteGrant(ctx, id.org, id.grant, f, nil); err != nil {
			k.Log.Warn("a finding is not kept", "grant", id.grant, "err", err)
		}
	}
	if !oauth.Asked(err) {
		k.release(ctx, id, true)
		return err
	}
	gt.failed(k.Now(), g.Generation, err)
	k.restTogether(ctx, id, gt.until.Sub(k.Now()))
	return err
}

// restTogether keeps the lease for a while, so that other nodes rest as well.
func (k *Keeper) restTogether(ctx context.Context, id key, d time.Duration) {
	if !k.Store.Clustered() {
		k.release(ctx, id, true)
		return
	}
	if _, _, err := k.Store.LeaseGrant(ctx, id.org, id.grant, k.Node, d); err != nil {
		k.Log.Warn("a grant's rest is not kept", "grant", id.grant, "err", err)
	}
}

// lapse says that a person must act. The refresh token stays where it is.
func (k *Keeper) lapse(ctx context.Context, id key, g mailgrant.Grant, gt *gate, err error) error {
	f := mailgrant.AsError(err).Finding
	if f == nil {
		f = &mailgrant.Finding{}
	}
	gt.failed(k.Now(), g.Generation, err)
	if err := k.Store.LapseGrant(ctx, g.Org, g.ID, k.Node, g.Generation, *f); err != nil {
		k.release(ctx, id, true)
		return err
	}
	k.Log.Warn("a grant lapsed", "grant", g.ID, "mailbox", g.Mailbox, "cause", f.Cause)
	k.cache.dropGrant(g.ID, all)
	k.Changed(g.Org, g.ID)
	if k.Store.Clustered() {
		k.restTogether(ctx, id, gt.until.Sub(k.Now()))
	}
	return lapsed(g, f, err)
}

// next is when an idle grant is refreshed: weekly, or well inside a shorter limit.
func (k *Keeper) next(s situation, now time.Time) time.Time {
	if s.grant.Flow == mailgrant.FlowApp {
		return time.Time{}
	}
	every := 7 * 24 * time.Hour
	if s.set.RefreshIdle > 0 {
		every = min(every, s.set.RefreshIdle/4)
	}
	return now.Add(every - time.Duration(rand.Float64()*0.2*float64(every)))
}

// sameSubject notices a refresh that came back with somebody else. R-ID1.
func sameSubject(g mailgrant.Grant, a oauth.Answer) error {
	t, ok := oauth.Peek(a.IDToken)
	if !ok || g.Subject.Subject == "" || t.Subject == g.Subject.Subject && sameIssuer(t.Issuer, g.Subject.Issuer) {
		return nil
	}
	return foreignToken(g)
}

// sameIssuer compares as plain text; Google is known to leave the scheme out.
func sameIssuer(a, b string) bool {
	return strings.TrimPrefix(a, "https://") == strings.TrimPrefix(b, "https://")
}

// mergeScopes replaces those of one resource by what was granted now.
func mergeScopes(have, asked, granted []string) []string {
	var list []string
	for _, s := range have {
		if !slices.Contains(asked, s) {
			list = append(list, s)
		}
	}
	for _, s := range granted {
		if !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list
}

// Renew refreshes a grant now, for all its resources, and gives it as it stands. A
// person asks for it, and so it does not wait for the end of a rest.
func (k *Keeper) Renew(ctx context.Context, org, grant mailgrant.ID) (mailgrant.Grant, error) {
	g, err := k.Store.Grant(ctx, org, grant)
	if err != nil {
		return g, err
	}
	k.reopen(grant)
	k.rests.Delete(g.Registration)
	_, plan, err := k.plan(ctx, g)
	if err != nil {
		return g, err
	}
	for _, r := range plan.Resources {
		if _, err := k.FreshToken(ctx, org, grant, r); err != nil {
			return g, err
		}
	}
	return k.Store.Grant(ctx, org, grant)
}
