// Package access says who stands at a door and what it may do there.
//
// An app proves itself with a key: a random text that is shown once and kept as
// a keyed hash. Because keys are random, a fast hash is enough, and because the
// answer is remembered for a moment, a good key costs about a microsecond. What
// is remembered is read again before it is three seconds old, and at once when
// this process changed it, so that a revoked key stops working everywhere well
// within five seconds, on open sessions too (Confirm).
//
// Wrong keys are counted by user name and by source, over all doors. The answer
// to a wrong key comes later and later, and a source that goes on is turned away
// unheard; a key that was good a moment ago is never kept waiting by either. An
// unknown name and a wrong key take the same way and get the same answer. No
// grant is ever touched here.
package access

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mailgrant/mailgrant"
)

// A Store keeps apps and keys. *store.Store is one.
type Store interface {
	App(ctx context.Context, org, id mailgrant.ID) (mailgrant.App, error)
	AppByName(ctx context.Context, name string) ([]mailgrant.App, error)
	CreateApp(ctx context.Context, a mailgrant.App) error
	UpdateApp(ctx context.Context, a mailgrant.App) error
	DeleteApp(ctx context.Context, org, id mailgrant.ID) error
	CreateKey(ctx context.Context, k mailgrant.Key) error
	RevokeKey(ctx context.Context, org, id mailgrant.ID, at time.Time) error
	KeyByHash(ctx context.Context, hash []byte) (mailgrant.Key, mailgrant.App, error)
	TouchKeys(ctx context.Context, used map[mailgrant.ID]time.Time) error
	Mailbox(ctx context.Context, org, id mailgrant.ID) (mailgrant.Mailbox, error)
	MailboxByAddress(ctx context.Context, org mailgrant.ID, address string) (mailgrant.Mailbox, error)
}

// A Vault makes keyed hashes. *vault.Vault is one.
type Vault interface {
	Hash(purpose, value string) []byte
}

// Config is what an Access needs. Log and Now may be nil.
type Config struct {
	Store Store
	Vault Vault
	Log   *slog.Logger
	Now   func() time.Time
}

// An Access knows apps by their keys. It is safe for concurrent use.
type Access struct {
	store   Store
	vault   Vault
	log     *slog.Logger
	now     func() time.Time
	cache   *cache
	guesses *guesses

	touchMu sync.Mutex
	touched map[mailgrant.ID]time.Time
}

// touchEvery is how exact the time of a key's last use is.
const touchEvery = time.Minute

// New makes an Access.
func New(c Config) *Access {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Access{
		store: c.Store, vault: c.Vault, log: c.Log, now: c.Now,
		cache: newCache(), guesses: newGuesses(),
		touched: map[mailgrant.ID]time.Time{},
	}
}

// Authenticate finds who shows the key at a door that has no user names.
func (a *Access) Authenticate(ctx context.Context, key, door, source string) (mailgrant.Caller, error) {
	e, l, err := a.find(ctx, "", key, source)
	if err != nil {
		return mailgrant.Caller{}, err
	}
	return a.admit(e, l, door, source)
}

// Login finds who shows the key under a user name: the name or id of its app, or
// the address of a mailbox the app may name. The key says which organization is
// meant; the name is compared with what belongs to it.
func (a *Access) Login(ctx context.Context, user, key, door, source string) (mailgrant.Caller, error) {
	e, l, err := a.find(ctx, user, key, source)
	if err != nil {
		return mailgrant.Caller{}, err
	}
	mailbox, err := a.match(ctx, l, user)
	if errors.Is(err, errOther) {
		return mailgrant.Caller{}, a.wrong(ctx, user, source)
	}
	if err != nil {
		return mailgrant.Caller{}, err
	}
	c, err := a.admit(e, l, door, source)
	c.Mailbox = mailbox
	return c, err
}

// Confirm says whether what the caller proved still holds, and gives it with the
// app and key as they are now. A door asks it before each piece of work of a
// session that stays open.
func (a *Access) Confirm(ctx context.Context, c mailgrant.Caller) (mailgrant.Caller, error) {
	if c.Operator {
		return c, nil
	}
	hash, ok := hashOf(c.Key.Hash)
	if !ok {
		return mailgrant.Caller{}, wrongKey()
	}
	e := a.cache.byHash(hash)
	if e == nil {
		e = newEntry([32]byte{}, hash)
	}
	l, err := a.fresh(ctx, e)
	if errors.Is(err, mailgrant.NotFound) {
		return mailgrant.Caller{}, mailgrant.Errorf(mailgrant.Unauthorized, err, "the key %s was taken away", c.Key.Prefix).
			Fix("issue another: mailgrant app key issue APP").See("refused-key-ended")
	}
	if err != nil {
		return mailgrant.Caller{}, err
	}
	now, err := a.admit(e, l, c.Door, c.Source)
	if err != nil {
		return mailgrant.Caller{}, err
	}
	if c.Mailbox != "" && len(l.app.Mailboxes) > 0 && !slices.Contains(l.app.Mailboxes, c.Mailbox) {
		return mailgrant.Caller{}, mayNotName(l.app, "this mailbox")
	}
	now.Mailbox = c.Mailbox
	return now, nil
}

// find gives what is known of a key. A source with too many wrong keys behind it
// is heard only with a key that was good before.
func (a *Access) find(ctx context.Context, user, key, source string) (*entry, *loaded, error) {
	if len(key) > maxKeyText {
		return nil, nil, a.wrong(ctx, user, source)
	}
	quick := a.cache.quick(key)
	e := a.cache.byQuick(quick)
	if e == nil {
		if wait := a.guesses.refusal(source, a.now()); wait > 0 {
			return nil, nil, tooMany(wait)
		}
		hash, _ := hashOf(a.vault.Hash("key", key))
		e = newEntry(quick, hash)
	}
	l, err := a.fresh(ctx, e)
	if errors.Is(err, mailgrant.NotFound) {
		return nil, nil, a.wrong(ctx, user, source)
	}
	return e, l, err
}

// fresh is what the store says of a key, at most three seconds ago. One caller
// reads it again ahead of time while the others go on with what they have.
func (a *Access) fresh(ctx context.Context, e *entry) (*loaded, error) {
	gen, now := a.cache.gen.Load(), a.now()
	if l := e.state.Load(); l != nil && l.gen == gen {
		age := now.Sub(l.at)
		if age >= 0 && age < softLife {
			return l, nil
		}
		if age >= 0 && age < hardLife {
			select {
			case e.turn <- struct{}{}:
				defer func() { <-e.turn }()
				return a.read(ctx, e)
			default:
				return l, nil
			}
		}
	}
	select {
	case e.turn <- struct{}{}:
		defer func() { <-e.turn }()
	case <-ctx.Done():
		return nil, mailgrant.Errorf(mailgrant.Unavailable, ctx.Err(), "the key could not be checked in time").Fix("try again")
	}
	if l := e.state.Load(); l != nil && l.gen == a.cache.gen.Load() && now.Before(l.at.Add(softLife)) {
		return l, nil // somebody read it while we waited
	}
	return a.read(ctx, e)
}

// read asks the store. When it cannot answer, nobody comes in.
func (a *Access) read(ctx context.Context, e *entry) (*loaded, error) {
	gen, now := a.cache.gen.Load(), a.now() // before the store is asked: a change meanwhile makes this stale
	k, app, err := a.store.KeyByHash(ctx, e.hash[:])
	if errors.Is(err, mailgrant.NotFound) {
		a.cache.drop(e)
		return nil, err
	}
	if err != nil {
		return nil, mailgrant.Errorf(mailgrant.Unavailable, err, "the key could not be checked").Fix("try again")
	}
	l := &loaded{key: k, app: app, at: now, gen: gen}
	l.key.Hash = e.hash[:]
	for _, s := range k.Sources {
		if p, err := parseSource(s); err == nil {
			l.sources = append(l.sources, p)
		}
	}
	e.state.Store(l)
	a.cache.keep(e, now)
	return l, nil
}

// admit makes the caller, if key and app are good at this door, from there, now.
func (a *Access) admit(e *entry, l *loaded, door, source string) (mailgrant.Caller, error) {
	now := a.now()
	k, app := &l.key, &l.app
	switch {
	case k.RevokedAt != nil:
		return mailgrant.Caller{}, mailgrant.Errorf(mailgrant.Unauthorized, nil, "the key %s was revoked", k.Prefix).
			Fix("issue another: mailgrant app key issue %s", app.Name).See("refused-key-ended")
	case k.NotAfter != nil && !now.Before(*k.NotAfter):
		return mailgrant.Caller{}, mailgrant.Errorf(mailgrant.Unauthorized, nil, "the key %s ended on %s", k.Prefix, k.NotAfter.UTC().Format(time.DateOnly)).
			Fix("issue another: mailgrant app key issue %s", app.Name).See("refused-key-ended")
	case app.Disabled:
		return mailgrant.Caller{}, mailgrant.Errorf(mailgrant.Forbidden, nil, "the app %s is switched off", app.Name).
			Fix("switch it on: mailgrant app enable %s", app.Name).See("refused-key-place")
	case len(app.Doors) > 0 && !slices.Contains(app.Doors, door):
		return mailgrant.Caller{}, mailgrant.Errorf(mailgrant.Forbidden, nil, "the app %s may not use the %s door", app.Name, door).
			Fix("allow it: mailgrant app set %s --door %s", app.Name, door).See("refused-key-place")
	case len(k.Sources) > 0 && !l.from(source):
		return mailgrant.Caller{}, mailgrant.Errorf(mailgrant.Forbidden, nil, "the key %s may not be used from %s", k.Prefix, source).
			Fix("use it from %s, or issue a key for this address", strings.Join(k.Sources, ", ")).See("refused-key-place")
	}
	if at := now.UnixNano(); at-e.touched.Load() > int64(touchEvery) {
		e.touched.Store(at)
		a.touch(k.ID, now)
	}
	return mailgrant.Caller{Org: k.Org, App: *app, Key: *k, Door: door, Source: source}, nil
}

// errOther means that the user name is not one of this key.
var errOther = errors.New("access: another user name")

// match compares the user name with the app and its mailboxes.
func (a *Access) match(ctx context.Context, l *loaded, user string) (mailgrant.ID, error) {
	user = strings.TrimSpace(user)
	if strings.EqualFold(user, l.app.Name) || user == string(l.app.ID) {
		return "", nil
	}
	if !strings.Contains(user, "@") || len(user) > maxAddress {
		return "", errOther
	}
	if id, ok := l.login(user); ok {
		return id, nil
	}
	m, err := a.mailboxByAddress(ctx, l.app.Org, user)
	if errors.Is(err, mailgrant.NotFound) {
		return "", mayNotName(l.app, user)
	}
	if err != nil {
		return "", mailgrant.Errorf(mailgrant.Unavailable, err, "the user name could not be checked").Fix("try again")
	}
	if !MayName(l.app, m) {
		return "", mayNotName(l.app, user)
	}
	l.remember(user, m.ID)
	return m.ID, nil
}

// mailboxByAddress looks for the address as it was typed, then in normal form.
func (a *Access) mailboxByAddress(ctx context.Context, org mailgrant.ID, address string) (mailgrant.Mailbox, error) {
	m, err := a.store.MailboxByAddress(ctx, org, address)
	if errors.Is(err, mailgrant.NotFound) {
		if n, ok := Normal(address); ok && n != strings.ToLower(address) {
			return a.store.MailboxByAddress(ctx, org, n)
		}
	}
	return m, err
}

// MayName says whether the app may choose the mailbox itself, by logging in as
// it or by naming it. An app without a list may name what route could give it:
// any mailbox, but that of the product's own messages only if it makes such.
func MayName(app mailgrant.App, m mailgrant.Mailbox) bool {
	if len(app.Mailboxes) > 0 {
		return slices.Contains(app.Mailboxes, m.ID)
	}
	return m.Role != mailgrant.RoleSystem || slices.Contains(app.Classes, mailgrant.ClassSystem)
}

func mayNotName(app mailgrant.App, mailbox string) error {
	return mailgrant.Errorf(mailgrant.Forbidden, nil, "the app %s may not use %s", app.Name, mailbox).
		Fix("log in as %s, or allow the mailbox: mailgrant app set %s --mailbox ADDRESS", app.Name, app.Name).See("refused-mailbox")
}

func wrongKey() error {
	return mailgrant.Errorf(mailgrant.Unauthorized, nil, "the user name or key is not right").
		Fix("take the key as it was shown when it was issued, or issue another: mailgrant app key issue APP")
}

func tooMany(wait time.Duration) error {
	wait = (wait + time.Second - 1).Truncate(time.Second)
	return mailgrant.Errorf(mailgrant.Limited, nil, "too many wrong keys came from this address").After(wait).
		Fix("correct the key where it is set, and try again in %s", wait).See("refused-too-many-tries")
}

// wrong counts a wrong key and lets its sender wait for the answer.
func (a *Access) wrong(ctx context.Context, user, source string) error {
	delay, refused := a.guesses.note(user, source, a.now())
	if refused > 0 {
		return tooMany(refused)
	}
	if delay > 0 {
		defer a.guesses.done(source)
		t := time.NewTimer(delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
	return wrongKey()
}

// from says whether source is one the key may come from.
func (l *loaded) from(source string) bool {
	ip, err := netip.ParseAddr(source)
	if err != nil {
		return false
	}
	ip = ip.Unmap().WithZone("")
	return slices.ContainsFunc(l.sources, func(p netip.Prefix) bool { return p.Contains(ip) })
}

func (a *Access) touch(key mailgrant.ID, at time.Time) {
	a.touchMu.Lock()
	defer a.touchMu.Unlock()
	a.touched[key] = at
}

// Run writes down when keys were last used, until ctx ends.
func (a *Access) Run(ctx context.Context) error {
	tick := time.NewTicker(touchEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			a.flush(ctx)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			a.flush(last)
			return nil
		}
	}
}

func (a *Access) flush(ctx context.Context) {
	a.touchMu.Lock()
	used := a.touched
	a.touched = map[mailgrant.ID]time.Time{}
	a.touchMu.Unlock()
	if len(used) == 0 {
		return
	}
	if err := a.store.TouchKeys(ctx, used); err != nil {
		a.log.Warn("the last use of keys was not written down", "keys", len(used), "error", err)
	}
}
