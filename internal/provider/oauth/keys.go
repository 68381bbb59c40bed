package oauth

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/mailgrant/mailgrant"
)

const (
	keysLive    = 24 * time.Hour
	keysAtMost  = time.Minute // one fetch in so long for keys we do not know. R-ID2
	keysInASet  = 200
	keysWaiting = totalWithin
)

// Keys keeps the public keys of providers, by address. The zero value is ready.
type Keys struct {
	mu   sync.Mutex
	sets map[string]*keySet
}

// A keySet is one document, fetched when first needed. Who finds the key in it
// waits for no fetch.
type keySet struct {
	fetch sync.Mutex // one at a time

	mu      sync.Mutex // of what follows
	keys    []publicKey
	fetched time.Time
	sought  time.Time // when we last looked for a key that was not there, or failed
}

// A publicKey is one entry. Entra says in it whose tokens it may sign.
type publicKey struct {
	jose.JSONWebKey
	issuer string
}

// of is the set of one provider as go-oidc wants it.
func (k *Keys) of(c *Client) *keysOf {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.sets == nil {
		k.sets = map[string]*keySet{}
	}
	s := k.sets[c.Settings.JWKSURI]
	if s == nil {
		s = &keySet{}
		k.sets[c.Settings.JWKSURI] = s
	}
	return &keysOf{client: c, set: s}
}

type keysOf struct {
	client *Client
	set    *keySet
	failed error // of fetching them: go-oidc tells it as text only
}

// VerifySignature implements oidc.KeySet. Keys in the token's header are not
// looked at.
func (k *keysOf) VerifySignature(ctx context.Context, raw string) ([]byte, error) {
	jws, err := jose.ParseSignedCompact(raw, []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA})
	if err != nil {
		return nil, err
	}
	if len(jws.Signatures) != 1 {
		return nil, errors.New("it must have one signature")
	}
	id := jws.Signatures[0].Header.KeyID
	keys, err := k.load(ctx, id, false)
	if err != nil {
		return nil, err
	}
	payload, err := k.check(jws, keys)
	if errors.Is(err, errNoKey) && id == "" { // nothing but the signature tells that the key is new
		if keys, err = k.load(ctx, id, true); err == nil {
			payload, err = k.check(jws, keys)
		}
	}
	return payload, err
}

var errNoKey = errors.New("no key of the provider has signed it")

func (k *keysOf) check(jws *jose.JSONWebSignature, keys []publicKey) ([]byte, error) {
	for _, key := range keys {
		payload, err := jws.Verify(key.JSONWebKey)
		if err != nil {
			continue
		}
		return payload, k.signs(key, payload)
	}
	return nil, errNoKey
}

// signs compares the issuer that Entra writes into each key.
func (k *keysOf) signs(key publicKey, payload []byte) error {
	if key.issuer == "" {
		return nil
	}
	var t Claims
	if err := json.Unmarshal(payload, &t); err != nil {
		return err
	}
	if want := strings.ReplaceAll(key.issuer, "{tenantid}", t.TenantID); want != t.Issuer {
		return fmt.Errorf("its key signs for %.200q only", want)
	}
	return nil
}

// load gives the keys with this id. One that we do not have, or not the right one,
// makes us look again, rarely: a token may name any.
func (k *keysOf) load(ctx context.Context, id string, other bool) ([]publicKey, error) {
	if fits, settled, err := k.set.look(k.client.now(), id, other); settled {
		return fits, err
	}
	k.set.fetch.Lock()
	defer k.set.fetch.Unlock()
	if fits, settled, err := k.set.look(k.client.now(), id, other); settled { // whoever was before us has fetched
		return fits, err
	}
	keys, err := k.client.fetchKeys(ctx)
	k.failed = err
	return k.set.take(k.client.now(), keys, err, id, other)
}

// look says what the set has, and whether that settles it without a fetch.
func (s *keySet) look(now time.Time, id string, other bool) (fits []publicKey, settled bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fits = s.with(id)
	switch {
	case len(fits) > 0 && !other && now.Sub(s.fetched) < keysLive:
		return fits, true, nil
	case s.sought.IsZero() || now.Sub(s.sought) >= keysAtMost:
		return nil, false, nil
	case len(fits) > 0:
		return fits, true, nil
	}
	return nil, true, noKey(id)
}

// take keeps what a fetch brought. Keys that were good a day ago are better than
// none.
func (s *keySet) take(now time.Time, keys []publicKey, err error, id string, other bool) ([]publicKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.keys, s.fetched = keys, now
	}
	fits := s.with(id)
	if err != nil || len(fits) == 0 || other {
		s.sought = now
	}
	switch {
	case len(fits) > 0:
		return fits, nil
	case err != nil:
		return nil, err
	}
	return nil, noKey(id)
}

func noKey(id string) error { return fmt.Errorf("the provider has no key %.60q", id) }

func (s *keySet) with(id string) []publicKey {
	var list []publicKey
	for _, k := range s.keys {
		if id == "" || k.KeyID == id {
			list = append(list, k)
		}
	}
	return list
}

func (c *Client) fetchKeys(ctx context.Context) ([]publicKey, error) {
	ctx, cancel := context.WithTimeout(ctx, keysWaiting)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.Settings.JWKSURI, nil)
	if err != nil {
		return nil, c.broken("jwks", err)
	}
	res, err := c.do(req)
	if err != nil {
		return nil, c.broken("jwks", err)
	}
	if res.status != http.StatusOK {
		return nil, c.refused("jwks", "", res)
	}
	keys, err := parseKeys(res.body)
	if err != nil {
		return nil, c.odd("jwks", err)
	}
	return keys, nil
}

// parseKeys takes the public signing keys and passes over what it cannot read: a
// provider may add kinds we do not know.
func parseKeys(body []byte) ([]publicKey, error) {
	var doc struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return nil, fmt.Errorf("the keys are not JSON: %w", err)
	}
	if len(doc.Keys) > keysInASet {
		return nil, fmt.Errorf("there are %d keys, more than %d", len(doc.Keys), keysInASet)
	}
	var list []publicKey
	for _, raw := range doc.Keys {
		var k publicKey
		var more struct {
			Issuer string `json:"issuer"`
		}
		if json.Unmarshal(raw, &k.JSONWebKey) != nil || json.Unmarshal(raw, &more) != nil {
			continue
		}
		if !k.Valid() || !k.IsPublic() || k.Use != "" && k.Use != "sig" {
			continue
		}
		k.issuer = more.Issuer
		list = append(list, k)
	}
	if len(list) == 0 {
		return nil, errors.New("there is no key in it")
	}
	return list, nil
}

// RolesOf reads the application permissions in an access token, to show what an
// administrator approved. Nothing is decided by it.
func RolesOf(token mailgrant.Secret) []string {
	parts := strings.Split(token.Reveal(), ".")
	if len(parts) != 3 {
		return nil
	}
	var t struct {
		Roles []string `json:"roles"`
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(b, &t) != nil {
		return nil
	}
	return t.Roles
}
