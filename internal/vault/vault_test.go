package vault_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/vault"
	"github.com/mailgrant/mailgrant/internal/vault/vaulttest"
)

var place = vault.Place{Org: "org_a", Table: "grants", Column: "refresh_token", Row: "gra_1"}

func TestSE03SealOpensOnlyInItsPlace(t *testing.T) {
	v := vaulttest.New(t)
	sealed, err := v.Seal(place, []byte("refresh"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed, []byte("refresh")) {
		t.Error("the sealed value shows the plain one")
	}
	if got, err := v.Open(place, sealed); err != nil || string(got) != "refresh" {
		t.Fatalf("Open = %q, %v", got, err)
	}
	others := map[string]vault.Place{
		"organization": {Org: "org_b", Table: "grants", Column: "refresh_token", Row: "gra_1"},
		"table":        {Org: "org_a", Table: "credentials", Column: "refresh_token", Row: "gra_1"},
		"column":       {Org: "org_a", Table: "grants", Column: "previous", Row: "gra_1"},
		"row":          {Org: "org_a", Table: "grants", Column: "refresh_token", Row: "gra_2"},
		"chunk":        {Org: "org_a", Table: "grants", Column: "refresh_token", Row: "gra_1", N: 1},
	}
	for name, p := range others {
		if _, err := v.Open(p, sealed); err == nil {
			t.Errorf("it opened with another %s", name)
		}
	}
}

func TestSE06SealsOfOneTextDiffer(t *testing.T) {
	v := vaulttest.New(t)
	seen := map[string]bool{}
	for range 10_000 {
		b, err := v.Seal(place, []byte("the same"))
		if err != nil {
			t.Fatal(err)
		}
		if seen[string(b)] {
			t.Fatal("two seals of one text are the same")
		}
		seen[string(b)] = true
	}
}

func TestSE05RotationKeepsAllReadable(t *testing.T) {
	keys := &vaulttest.Keysets{}
	text := vault.NewMasterKey()
	master, _ := vault.MasterKey(text)
	a, err := vault.Open(t.Context(), master, keys)
	if err != nil {
		t.Fatal(err)
	}
	b, err := vault.Open(t.Context(), master, keys) // another node
	if err != nil {
		t.Fatal(err)
	}
	old, _ := a.Seal(place, []byte("old"))
	oldKey := vault.KeyOf(old)
	if _, err := a.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	fresh, _ := a.Seal(place, []byte("new"))
	if vault.KeyOf(fresh) == oldKey {
		t.Fatal("the new key does not seal")
	}
	for _, v := range []*vault.Vault{a, b} {
		for _, s := range [][]byte{old, fresh} {
			if _, err := v.Open(place, s); err != nil {
				t.Errorf("open after rotation: %v", err)
			}
		}
	}
	if err := a.Retire(t.Context(), oldKey); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Open(place, old); err == nil {
		t.Error("a retired key still opens")
	}
	if _, err := a.Open(place, fresh); err != nil {
		t.Errorf("the present key: %v", err)
	}
	if h1, h2 := a.Hash("key", "x"), b.Hash("key", "x"); !bytes.Equal(h1, h2) {
		t.Error("rotation changed the hashes")
	}
}

func TestSE04WrongMasterKeyIsRefused(t *testing.T) {
	keys := &vaulttest.Keysets{}
	right, _ := vault.MasterKey(vault.NewMasterKey())
	if _, err := vault.Open(t.Context(), right, keys); err != nil {
		t.Fatal(err)
	}
	before, version, _ := keys.LoadKeyset(t.Context())
	wrong, _ := vault.MasterKey(vault.NewMasterKey())
	if _, err := vault.Open(t.Context(), wrong, keys); !errors.Is(err, mailgrant.Misset) {
		t.Fatalf("wrong key: %v", err)
	}
	after, v2, _ := keys.LoadKeyset(t.Context())
	if !bytes.Equal(before, after) || version != v2 {
		t.Error("a wrong master key changed the database")
	}
	for name, text := range map[string]string{
		"empty":     "",
		"too short": "c2hvcnQ=",
		"zeros":     "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
		"no base64": "%%%",
	} {
		if _, err := vault.MasterKey(text); !errors.Is(err, mailgrant.Misset) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSE04MasterKeyFileForOwnerOnly(t *testing.T) {
	name := filepath.Join(t.TempDir(), "master.key")
	if _, err := vault.MasterKeyFile(name, false); !errors.Is(err, mailgrant.Misset) {
		t.Errorf("missing file: %v", err)
	}
	if _, err := vault.MasterKeyFile(name, true); err != nil {
		t.Fatal(err)
	}
	if fi, _ := os.Stat(name); fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", fi.Mode())
	}
	os.Chmod(name, 0o644)
	if _, err := vault.MasterKeyFile(name, false); !errors.Is(err, mailgrant.Misset) {
		t.Errorf("readable for all: %v", err)
	}
}

func TestMasterKeyBehindACommand(t *testing.T) {
	script := filepath.Join(t.TempDir(), "kms")
	// A stand-in for a key service, reversible byte by byte.
	os.WriteFile(script, []byte("#!/bin/sh\nbase64 -d | tr 'a-zA-Z' 'n-za-mN-ZA-M' | base64 -w0\n"), 0o755)
	keys := &vaulttest.Keysets{}
	v, err := vault.Open(t.Context(), vault.MasterKeyCommand([]string{script}), keys)
	if err != nil {
		t.Fatal(err)
	}
	sealed, _ := v.Seal(place, []byte("x"))
	again, err := vault.Open(t.Context(), vault.MasterKeyCommand([]string{script}), keys)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := again.Open(place, sealed); err != nil || string(got) != "x" {
		t.Fatalf("%q, %v", got, err)
	}
}

func BenchmarkSeal10KB(b *testing.B) {
	v := vaulttest.New(b)
	plain := make([]byte, 10<<10)
	b.SetBytes(int64(len(plain)))
	for b.Loop() {
		if _, err := v.Seal(place, plain); err != nil {
			b.Fatal(err)
		}
	}
}
