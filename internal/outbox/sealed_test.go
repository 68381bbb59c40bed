package outbox_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/vault"
)

// Who has the files, the log at its loudest, or what a panic prints, has nothing
// of what was sealed. SE-01, SE-02.
func TestSE01NothingSealedIsSeenElsewhere(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		const body, token, client = "canary-body-4711", "canary-token-4712", "canary-client-4713"
		secret := mailgrant.NewSecret(token)
		r.far.answer = func(n int, _ handed) provider.Outcome {
			if n == 1 {
				panic(fmt.Sprintf("with %v and %+v and %#v", secret, secret, struct{ S mailgrant.Secret }{secret}))
			}
			return held()
		}
		must(t, r.store.CreateRegistration(t.Context(), mailgrant.Registration{ID: "reg_a", Org: r.org, Name: "M365"}))
		seal := func(table, column string, row mailgrant.ID, plain string) []byte {
			b, err := r.vault.Seal(vault.Place{Org: r.org, Table: table, Column: column, Row: row}, []byte(plain))
			must(t, err)
			return b
		}
		must(t, r.store.CreateCredential(t.Context(), mailgrant.Credential{ID: "crd_a", Org: r.org, Registration: "reg_a", Sealed: seal("credentials", "sealed", "crd_a", client)}))
		must(t, r.store.CreateGrant(t.Context(), mailgrant.Grant{ID: "gra_a", Org: r.org, Registration: "reg_a", Mailbox: "office@contoso.example"}))
		must(t, r.store.CompleteConsent(t.Context(), mailgrant.Grant{ID: "gra_a", Org: r.org, Sealed: seal("grants", "sealed", "gra_a", token)}))
		_, err := r.accept(r.caller("rest"), to("a@example.net"), message("office@contoso.example", "one")+body+"\r\n")
		must(t, err)
		large := message("office@contoso.example", "two") + strings.Repeat(strings.Repeat("0", 70)+"\r\n", 8000) + body + "\r\n"
		_, err = r.accept(r.caller("rest"), to("a@example.net"), large)
		must(t, err)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if n := len(r.far.list()); n < 2 {
			t.Fatalf("only %d tries", n)
		}
		var dump bytes.Buffer
		must(t, r.store.Backup(t.Context(), &dump))
		seen := map[string][]byte{"backup": dump.Bytes(), "log": []byte(r.log.String())}
		files, err := filepath.Glob(r.dsn + "*")
		must(t, err)
		for _, name := range files {
			if seen[name], err = os.ReadFile(name); err != nil {
				t.Fatal(err)
			}
		}
		if len(files) < 3 || !strings.Contains(r.log.String(), "panic") {
			t.Fatalf("files %v; log:\n%s", files, r.log)
		}
		for where, b := range seen {
			for _, canary := range []string{body, token, client, r.master[:len(r.master)-1]} {
				if bytes.Contains(b, []byte(canary)) {
					t.Errorf("%s shows %s", where, canary)
				}
			}
		}
	})
}

// The key is changed and everything re-sealed while mail comes and goes; the old
// one is then not needed by anything. SE-05.
func TestSE05RotationWhileMailGoesOn(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		r.far.answer = func(_ int, h handed) provider.Outcome {
			if strings.Contains(h.id, "waits") {
				return put("recipient-rejected", time.Hour)
			}
			return provider.Outcome{}
		}
		for i := range 40 {
			r.send(fmt.Sprintf("waits%d", i))
		}
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() {
				for i := range 40 {
					if _, err := r.accept(r.caller("rest"), to("a@example.net"), message("office@contoso.example", fmt.Sprintf("goes-%d-%d", w, i))); err != nil {
						t.Errorf("accept: %v", err)
					}
				}
			})
		}
		wg.Go(func() {
			for range 2 {
				old := r.vault.Keys()
				if _, err := r.vault.Rotate(t.Context()); err != nil {
					t.Errorf("rotate: %v", err)
					return
				}
				for _, key := range old {
					r.resealAll(t, key)
				}
			}
		})
		wg.Wait()
		primary := r.vault.Primary()
		for _, key := range r.vault.Keys() {
			if key == primary {
				continue
			}
			r.resealAll(t, key) // what was sealed while the key was changed
			must(t, r.vault.Retire(t.Context(), key))
		}
		r.again()
		r.far.set(func(f *far) { f.answer = nil })
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		if left, err := r.store.BusyLanes(t.Context()); err != nil || len(left) > 0 {
			t.Errorf("left over: %v, %v\n%s", left, err, r.log)
		}
		if n := len(r.events("submission.delivered")); n != 200 {
			t.Errorf("%d delivered, want 200", n)
		}
		if keys := r.vault.Keys(); len(keys) != 1 {
			t.Errorf("%d keys are left", len(keys))
		}
	})
}

// resealAll seals anew what a key sealed.
func (r *rig) resealAll(t *testing.T, key uint32) {
	for {
		l, err := r.store.SealedBy(t.Context(), vault.KeyPrefix(key), 50)
		if err != nil {
			t.Errorf("look for seals: %v", err)
			return
		}
		if len(l) == 0 {
			return
		}
		for _, row := range l {
			p := vault.Place{Org: row.Org, Table: row.Table, Column: "bytes", Row: row.Row, N: row.N}
			plain, err := r.vault.Open(p, row.Sealed)
			var fresh []byte
			if err == nil {
				fresh, err = r.vault.Seal(p, plain)
			}
			if err == nil {
				err = r.store.Reseal(t.Context(), row, fresh)
			}
			if err != nil {
				t.Errorf("reseal %s: %v", row.Row, err)
				return
			}
		}
	}
}
