package access

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
)

// A key reads mg_abcd_ and 32 more letters and digits, which are 160 random
// bits. The first seven letters may be shown and tell keys apart.
const (
	keyPrefix  = "mg_"
	keyBytes   = 20
	maxKeyText = 512
)

var keyEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// A KeyInput is what can be chosen for a key.
type KeyInput struct {
	Name     string
	Scopes   []mailgrant.Scope // none: send
	Sources  []string          // addresses or CIDRs it may come from; none: anywhere
	NotAfter *time.Time
}

var scopes = []mailgrant.Scope{mailgrant.ScopeSend, mailgrant.ScopeReceive, mailgrant.ScopeRead, mailgrant.ScopeToken, mailgrant.ScopeManage}

// IssueKey makes a key for an app. The secret is the only copy of its text.
func (a *Access) IssueKey(ctx context.Context, org, app mailgrant.ID, in KeyInput) (mailgrant.Key, mailgrant.Secret, error) {
	now := a.now().UTC()
	if err := in.check(now); err != nil {
		return mailgrant.Key{}, mailgrant.Secret{}, err
	}
	if _, err := a.store.App(ctx, org, app); err != nil {
		return mailgrant.Key{}, mailgrant.Secret{}, err
	}
	text := newKeyText()
	k := mailgrant.Key{
		ID: mailgrant.NewID(mailgrant.PrefixKey), Org: org, App: app,
		Name: in.Name, Prefix: text[:len(keyPrefix)+4],
		Scopes: in.Scopes, Sources: in.Sources, NotAfter: in.NotAfter,
		CreatedAt: now, Hash: a.vault.Hash("key", text),
	}
	if len(k.Scopes) == 0 {
		k.Scopes = []mailgrant.Scope{mailgrant.ScopeSend}
	}
	if err := a.store.CreateKey(ctx, k); err != nil {
		return mailgrant.Key{}, mailgrant.Secret{}, err
	}
	return k, mailgrant.NewSecret(text), nil
}

// RevokeKey ends a key: here at once, on other nodes within three seconds.
func (a *Access) RevokeKey(ctx context.Context, org, key mailgrant.ID) error {
	defer a.cache.changed()
	return a.store.RevokeKey(ctx, org, key, a.now().UTC())
}

func newKeyText() string {
	var b [3 + keyBytes]byte
	rand.Read(b[:]) // never fails: crypto/rand
	return keyPrefix + keyEncoding.EncodeToString(b[:3])[:4] + "_" + keyEncoding.EncodeToString(b[3:])
}

func (in *KeyInput) check(now time.Time) error {
	if len(in.Name) > maxName || hasControl(in.Name) {
		return mailgrant.Errorf(mailgrant.Invalid, nil, "the name of a key is one line of up to %d letters", maxName).
			Fix("choose a shorter one").At("name")
	}
	for i, s := range in.Scopes {
		if !slices.Contains(scopes, s) {
			return mailgrant.Errorf(mailgrant.Invalid, nil, "a key has no right called %q", s).
				Fix("choose from send, receive, read, token, manage").At(at("scopes", i))
		}
	}
	for i, s := range in.Sources {
		if _, err := parseSource(s); err != nil {
			return mailgrant.Errorf(mailgrant.Invalid, err, "%q is not an address or a network", s).
				Fix("write it like 192.0.2.7 or 192.0.2.0/24 or 2001:db8::/48").At(at("sources", i))
		}
	}
	if in.NotAfter != nil && !in.NotAfter.After(now) {
		return mailgrant.Errorf(mailgrant.Invalid, nil, "the key would have ended already").
			Fix("choose a time that is still to come, or none").At("not_after")
	}
	return nil
}

// parseSource reads a network, or an address as a network of one.
func parseSource(s string) (netip.Prefix, error) {
	if strings.Contains(s, "/") {
		p, err := netip.ParsePrefix(s)
		if err == nil && p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		return p.Masked(), err
	}
	ip, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Prefix{}, err
	}
	ip = ip.Unmap().WithZone("")
	return netip.PrefixFrom(ip, ip.BitLen()), nil
}
