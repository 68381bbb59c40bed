// Package vault seals everything that must not be read by who has the database.
//
// A master key, which never enters the database, wraps a keyset; the newest key
// of the keyset seals, all of them open. Every seal is bound to the place it was
// made for (organization, table, column, row): moved to another place it does
// not open. Rotation adds a key, re-seals while everything runs, and then takes
// the old key away.
package vault

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/mailgrant/mailgrant"
)

// A Place is where a sealed value lives. It is authenticated, not stored.
type Place struct {
	Org    mailgrant.ID
	Table  string
	Column string
	Row    mailgrant.ID
	N      int64 // of a chunk
}

func (p Place) bytes() []byte {
	b := make([]byte, 0, 128)
	for _, s := range [...]string{string(p.Org), p.Table, p.Column, string(p.Row)} {
		b = append(b, s...)
		b = append(b, 0)
	}
	return strconv.AppendInt(b, p.N, 10)
}

// A Keysets keeps the wrapped keyset. Save must fail with mailgrant.Conflict when
// the version is no longer old: two nodes must not both rotate.
type Keysets interface {
	LoadKeyset(ctx context.Context) (wrapped []byte, version int64, err error)
	SaveKeyset(ctx context.Context, wrapped []byte, old int64) error
}

// wrapped is the form of a keyset in the database.
type wrapped struct {
	Keyset []byte `json:"keyset"` // tink keyset, encrypted by the master key
	Hash   []byte `json:"hash"`   // key of Hash, encrypted by the master key
}

var (
	adKeyset = []byte("mailgrant keyset")
	adHash   = []byte("mailgrant hash key")
)

// A Vault seals and opens. It is safe for concurrent use.
type Vault struct {
	master tink.AEAD
	keys   Keysets
	ring   atomic.Pointer[ring]

	mu       sync.Mutex // one reload or rotation at a time
	reloaded time.Time
}

type ring struct {
	handle  *keyset.Handle
	aead    tink.AEAD
	primary uint32
	ids     []uint32
	hash    []byte
	version int64
}

// Open reads the keyset, or makes the first one in an empty database. A master
// key that does not open what is there changes nothing and is an error.
func Open(ctx context.Context, master tink.AEAD, keys Keysets) (*Vault, error) {
	v := &Vault{master: master, keys: keys}
	w, version, err := keys.LoadKeyset(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the keyset: %w", err)
	}
	if version == 0 {
		if err := v.create(ctx); err != nil {
			return nil, err
		}
		if w, version, err = keys.LoadKeyset(ctx); err != nil {
			return nil, fmt.Errorf("read the keyset: %w", err)
		}
	}
	r, err := v.unwrap(w, version)
	if err != nil {
		return nil, err
	}
	v.ring.Store(r)
	return v, nil
}

func (v *Vault) create(ctx context.Context) error {
	h, err := keyset.NewHandle(aead.XChaCha20Poly1305KeyTemplate())
	if err != nil {
		return fmt.Errorf("make a keyset: %w", err)
	}
	hash := make([]byte, 32)
	rand.Read(hash)
	b, err := v.wrap(h, hash)
	if err != nil {
		return err
	}
	if err := v.keys.SaveKeyset(ctx, b, 0); err != nil && mailgrant.AsError(err).Code != mailgrant.Conflict {
		return fmt.Errorf("keep the first keyset: %w", err) // Conflict: another node was first
	}
	return nil
}

func (v *Vault) wrap(h *keyset.Handle, hash []byte) ([]byte, error) {
	var buf bytes.Buffer
	if err := h.WriteWithAssociatedData(keyset.NewBinaryWriter(&buf), v.master, adKeyset); err != nil {
		return nil, fmt.Errorf("wrap the keyset: %w", err)
	}
	sealed, err := v.master.Encrypt(hash, adHash)
	if err != nil {
		return nil, fmt.Errorf("wrap the hash key: %w", err)
	}
	return json.Marshal(wrapped{Keyset: buf.Bytes(), Hash: sealed})
}

func (v *Vault) unwrap(b []byte, version int64) (*ring, error) {
	var w wrapped
	if err := json.Unmarshal(b, &w); err != nil {
		return nil, wrongMaster(err)
	}
	h, err := keyset.ReadWithAssociatedData(keyset.NewBinaryReader(bytes.NewReader(w.Keyset)), v.master, adKeyset)
	if err != nil {
		return nil, wrongMaster(err)
	}
	hash, err := v.master.Decrypt(w.Hash, adHash)
	if err != nil {
		return nil, wrongMaster(err)
	}
	a, err := aead.New(h)
	if err != nil {
		return nil, fmt.Errorf("use the keyset: %w", err)
	}
	r := &ring{handle: h, aead: a, hash: hash, version: version}
	for i := range h.Len() {
		e, err := h.Entry(i)
		if err != nil {
			return nil, fmt.Errorf("read the keyset: %w", err)
		}
		r.ids = append(r.ids, e.KeyID())
		if e.IsPrimary() {
			r.primary = e.KeyID()
		}
	}
	return r, nil
}

func wrongMaster(err error) error {
	return mailgrant.Errorf(mailgrant.Misset, err, "the master key does not open this database").
		Fix("give the master key this database was made with (master_key in the settings); nothing was changed")
}

// Seal makes plain unreadable for all who lack the master key, and bound to p.
func (v *Vault) Seal(p Place, plain []byte) ([]byte, error) {
	b, err := v.ring.Load().aead.Encrypt(plain, p.bytes())
	if err != nil {
		return nil, fmt.Errorf("seal %s.%s: %w", p.Table, p.Column, err)
	}
	return b, nil
}

// Open gives back what was sealed for p.
func (v *Vault) Open(p Place, sealed []byte) ([]byte, error) {
	b, err := v.ring.Load().aead.Decrypt(sealed, p.bytes())
	if err == nil {
		return b, nil
	}
	if !v.knows(KeyOf(sealed)) && v.reload(context.Background()) == nil { // another node rotated
		if b, err = v.ring.Load().aead.Decrypt(sealed, p.bytes()); err == nil {
			return b, nil
		}
	}
	return nil, mailgrant.Errorf(mailgrant.Internal, err, "a sealed value of %s does not open: it was altered or moved", p.Table).
		Fix("restore this row from a backup; run mailgrant key status")
}

// Hash is a keyed hash of a value that is only ever compared: keys of apps,
// states, link tokens. Its key does not rotate. purpose keeps kinds apart.
func (v *Vault) Hash(purpose, value string) []byte {
	m := hmac.New(sha256.New, v.ring.Load().hash)
	m.Write([]byte(purpose))
	m.Write([]byte{0})
	m.Write([]byte(value))
	return m.Sum(nil)
}

// KeyOf says which key of the keyset sealed a value; 0 when it is no seal.
func KeyOf(sealed []byte) uint32 {
	if len(sealed) < 5 || sealed[0] != 1 { // tink's output prefix
		return 0
	}
	return binary.BigEndian.Uint32(sealed[1:5])
}

// KeyPrefix are the first bytes of everything a key sealed.
func KeyPrefix(id uint32) []byte { return binary.BigEndian.AppendUint32([]byte{1}, id) }

// Primary is the key that seals now, Keys are all that open.
func (v *Vault) Primary() uint32 { return v.ring.Load().primary }
func (v *Vault) Keys() []uint32  { return v.ring.Load().ids }

func (v *Vault) knows(id uint32) bool {
	for _, k := range v.ring.Load().ids {
		if k == id {
			return true
		}
	}
	return false
}

// reloadFloor keeps garbage from turning into database load.
const reloadFloor = time.Second

func (v *Vault) reload(ctx context.Context) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if time.Since(v.reloaded) < reloadFloor {
		return nil
	}
	v.reloaded = time.Now()
	return v.load(ctx)
}

// Refresh takes over a keyset that another node changed.
func (v *Vault) Refresh(ctx context.Context) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.load(ctx)
}

func (v *Vault) load(ctx context.Context) error {
	w, version, err := v.keys.LoadKeyset(ctx)
	if err != nil {
		return fmt.Errorf("read the keyset: %w", err)
	}
	if version == v.ring.Load().version {
		return nil
	}
	r, err := v.unwrap(w, version)
	if err != nil {
		return err
	}
	v.ring.Store(r)
	return nil
}

// Rotate adds a key and seals with it from now on. The keys before it go on to
// open; Retire takes them away when nothing is sealed by them.
func (v *Vault) Rotate(ctx context.Context) (newKey uint32, err error) {
	err = v.change(ctx, func(m *keyset.Manager) error {
		id, err := m.Add(aead.XChaCha20Poly1305KeyTemplate())
		if err != nil {
			return err
		}
		newKey = id
		return m.SetPrimary(id)
	})
	return newKey, err
}

// Retire removes an old key. Whatever it sealed can then not be opened again.
func (v *Vault) Retire(ctx context.Context, id uint32) error {
	return v.change(ctx, func(m *keyset.Manager) error { return m.Delete(id) })
}

// Rewrap puts the keyset under another master key.
func (v *Vault) Rewrap(ctx context.Context, master tink.AEAD) error {
	old := v.master
	v.mu.Lock()
	v.master = master
	v.mu.Unlock()
	if err := v.change(ctx, func(*keyset.Manager) error { return nil }); err != nil {
		v.mu.Lock()
		v.master = old
		v.mu.Unlock()
		return err
	}
	return nil
}

func (v *Vault) change(ctx context.Context, f func(*keyset.Manager) error) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := v.ring.Load()
	m := keyset.NewManagerFromHandle(now.handle)
	if err := f(m); err != nil {
		return fmt.Errorf("change the keyset: %w", err)
	}
	h, err := m.Handle()
	if err != nil {
		return fmt.Errorf("change the keyset: %w", err)
	}
	b, err := v.wrap(h, now.hash)
	if err != nil {
		return err
	}
	if err := v.keys.SaveKeyset(ctx, b, now.version); err != nil {
		return fmt.Errorf("keep the keyset: %w", err)
	}
	return v.load(ctx)
}
