// Package vaulttest gives tests a vault.
package vaulttest

import (
	"context"
	"sync"
	"testing"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/vault"
)

// New is a vault with a random master key and its keyset in memory.
func New(t testing.TB) *vault.Vault {
	t.Helper()
	master, err := vault.MasterKey(vault.NewMasterKey())
	if err != nil {
		t.Fatal(err)
	}
	v, err := vault.Open(t.Context(), master, &Keysets{})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Keysets keeps a keyset in memory.
type Keysets struct {
	mu      sync.Mutex
	wrapped []byte
	version int64
}

// LoadKeyset implements vault.Keysets.
func (k *Keysets) LoadKeyset(context.Context) ([]byte, int64, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.wrapped, k.version, nil
}

// SaveKeyset implements vault.Keysets.
func (k *Keysets) SaveKeyset(_ context.Context, wrapped []byte, old int64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if old != k.version {
		return mailgrant.Errorf(mailgrant.Conflict, nil, "the keyset was changed meanwhile").Fix("try again")
	}
	k.wrapped, k.version = wrapped, old+1
	return nil
}
