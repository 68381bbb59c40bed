package sim

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// A keyring has the keys that tokens are signed with.
//
//	next ──roll──▶ current ──roll──▶ retired
//
// All of them are published. An emergency roll forgets the old ones at once.
type keyring struct {
	clock  *clock
	making sync.WaitGroup
	ready  chan struct{} // closed when the first two keys are made

	mu   sync.Mutex
	keys []*signingKey // next, current, then the retired
}

type signingKey struct {
	id     string // kid and x5t
	key    *rsa.PrivateKey
	cert   []byte
	signer jose.Signer
}

// newKeyring makes its keys beside the start of the rest.
func newKeyring(c *clock) *keyring {
	k := &keyring{clock: c, ready: make(chan struct{})}
	k.keys = make([]*signingKey, 2)
	k.making.Go(func() {
		defer close(k.ready)
		k.keys[1] = mustMakeKey(c.now())
		k.keys[0] = mustMakeKey(c.now())
	})
	return k
}

func (k *keyring) close() { k.making.Wait() }

func mustMakeKey(now time.Time) *signingKey {
	s, err := makeKey(now)
	if err != nil {
		panic(err) // no randomness in this machine
	}
	return s
}

func makeKey(now time.Time) (*signingKey, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: newSerial(),
		Subject:      pkix.Name{CommonName: "accounts.accesscontrol.windows.net"},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.AddDate(5, 0, 0),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	sum := sha1.Sum(cert)
	s := &signingKey{id: base64.RawURLEncoding.EncodeToString(sum[:]), key: key, cert: cert}
	s.signer, err = newSigner(jose.RS256, key, map[jose.HeaderKey]any{"kid": s.id, "x5t": s.id})
	return s, err
}

func newSigner(alg jose.SignatureAlgorithm, key any, header map[jose.HeaderKey]any) (jose.Signer, error) {
	opts := (&jose.SignerOptions{ExtraHeaders: header}).WithType("JWT")
	return jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, opts)
}

// sign makes a token of claims with the current key.
func (k *keyring) sign(claims any) (string, error) {
	return jwt.Signed(k.current().signer).Claims(claims).Serialize()
}

func (k *keyring) current() *signingKey {
	<-k.ready
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.keys[1]
}

func (k *keyring) published() []*signingKey {
	<-k.ready
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]*signingKey(nil), k.keys...)
}

// roll takes the next key into use. An emergency takes one that nobody has
// seen, and forgets the others.
func (k *keyring) roll(emergency bool) error {
	<-k.ready
	fresh, err := makeKey(k.clock.now())
	if err != nil {
		return err
	}
	var current *signingKey
	if emergency {
		if current, err = makeKey(k.clock.now()); err != nil {
			return err
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if emergency {
		k.keys = []*signingKey{fresh, current}
	} else {
		k.keys = append([]*signingKey{fresh}, k.keys...)
	}
	return nil
}

// RollKeys takes the next signing key into use, which was published before. An
// emergency takes an unknown key and withdraws all older ones.
func (s *Sim) RollKeys(emergency bool) error { return s.keys.roll(emergency) }

// A token is what this sim puts into its access tokens, in the form of v1.0.
type token struct {
	Audience string   `json:"aud"`
	Issuer   string   `json:"iss"`
	IssuedAt int64    `json:"iat"`
	NotFrom  int64    `json:"nbf"`
	Expiry   int64    `json:"exp"`
	Acr      string   `json:"acr,omitempty"`
	Amr      []string `json:"amr,omitempty"`
	AppName  string   `json:"app_displayname"`
	AppID    string   `json:"appid"`
	AppIDACR string   `json:"appidacr"` // 0 public, 1 secret, 2 certificate
	IDType   string   `json:"idtyp"`    // user or app
	Name     string   `json:"name,omitempty"`
	ObjectID string   `json:"oid"`
	Roles    []string `json:"roles,omitempty"`
	Scopes   string   `json:"scp,omitempty"`
	Subject  string   `json:"sub"`
	TenantID string   `json:"tid"`
	UPN      string   `json:"upn,omitempty"`
	UTI      string   `json:"uti"`
	Version  string   `json:"ver"`
	CC       []string `json:"xms_cc,omitempty"`
}

var (
	errTokenShape   = errors.New("the token is malformed")
	errTokenKey     = errors.New("the token is signed by an unknown key")
	errTokenExpired = errors.New("the token is expired")
)

// verify reads an access token of this sim: signature, issuer and dates. Its
// audience is up to the caller.
func (k *keyring) verify(raw string) (*token, error) {
	parsed, err := jwt.ParseSigned(raw, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errTokenShape, err)
	}
	var t token
	if err := k.claims(parsed, &t); err != nil {
		return nil, err
	}
	now := k.clock.now()
	if t.Issuer != tokenIssuer(t.TenantID) {
		return nil, fmt.Errorf("%w: issuer %s", errTokenShape, t.Issuer)
	}
	if now.Unix() >= t.Expiry || now.Unix() < t.NotFrom-300 {
		return &t, errTokenExpired
	}
	return &t, nil
}

func (k *keyring) claims(parsed *jwt.JSONWebToken, t *token) error {
	for _, key := range k.published() {
		if len(parsed.Headers) == 1 && parsed.Headers[0].KeyID == key.id {
			if err := parsed.Claims(key.key.Public(), t); err != nil {
				return fmt.Errorf("%w: %w", errTokenKey, err)
			}
			return nil
		}
	}
	return errTokenKey
}

func tokenIssuer(tid string) string { return "https://sts.windows.net/" + tid + "/" }
