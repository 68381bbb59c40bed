package store_test

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/store"
	"github.com/mailgrant/mailgrant/test/real"
)

// Over PostgreSQL a store has what several nodes need besides.
var clusterOnly = []string{"nodes", "shards", "handover"}

func TestBothDatabasesHaveTheSameTables(t *testing.T) {
	lite, post := onSQLite(t), onPostgres(t)
	for what, of := range map[string]func(*store.Store) (map[string]string, error){
		"tables":  func(s *store.Store) (map[string]string, error) { return store.Tables(t.Context(), s) },
		"indexes": func(s *store.Store) (map[string]string, error) { return store.Indexes(t.Context(), s) },
	} {
		a, err := of(lite)
		must(t, err)
		b, err := of(post)
		must(t, err)
		for _, name := range clusterOnly {
			if what == "tables" && b[name] == "" {
				t.Errorf("PostgreSQL has no table %s", name)
			}
			delete(b, name)
		}
		if what == "tables" {
			b["events"] = strings.Replace(b["events"], " tx", "", 1) // its order among those that are open
		}
		if len(a) < 5 || !maps.Equal(a, b) {
			for _, name := range slices.Sorted(maps.Keys(a)) {
				t.Logf("sqlite   %s: %s", name, a[name])
				t.Logf("postgres %s: %s", name, b[name])
			}
			t.Errorf("the %s differ", what)
		}
	}
}

func TestRE17OlderProgramRefusesNewerSchema(t *testing.T) {
	for name, dsn := range map[string]string{"sqlite": filepath.Join(t.TempDir(), "mailgrant.db"), "postgres": real.Postgres(t)} {
		t.Run(name, func(t *testing.T) {
			s, err := store.Open(t.Context(), dsn, quiet)
			must(t, err)
			must(t, s.CreateOrganization(t.Context(), mailgrant.Organization{ID: "org_a", Name: "A"}))
			must(t, store.SetSchema(t.Context(), s, store.Newest+1))
			s.Close()
			for range 2 { // it changes nothing
				_, err = store.Open(t.Context(), dsn, quiet)
				is(t, err, mailgrant.Misset)
				if !strings.Contains(err.Error(), "newer") {
					t.Errorf("it says: %v", err)
				}
			}
		})
	}
}

func TestRE03DurableByItsSettings(t *testing.T) {
	s := onSQLite(t)
	for name, want := range map[string]string{"journal_mode": "wal", "synchronous": "1", "foreign_keys": "1", "page_size": "8192"} {
		if got, err := store.Pragma(t.Context(), s, name); err != nil || got != want {
			t.Errorf("%s is %s, want %s; %v", name, got, want, err)
		}
	}
	v, err := store.Version(t.Context(), s)
	must(t, err)
	if slices.Compare(numbers(v), []int{3, 51, 3}) < 0 {
		t.Errorf("SQLite %s, want 3.51.3 or later", v)
	}
}

func numbers(v string) (out []int) {
	for _, p := range strings.Split(v, ".") {
		n := 0
		for _, c := range p {
			n = 10*n + int(c-'0')
		}
		out = append(out, n)
	}
	return out
}

// A long lane does not make what is written for one of its submissions slow: a
// PostgreSQL that last counted while nothing waited takes the lanes' index for short.
func TestSubmissionIsWrittenByItsKey(t *testing.T) {
	url := real.Postgres(t)
	h := found(t, open(t, url))
	for range 200 {
		_, err := h.accept(t.Context(), []byte("b"))
		must(t, err)
	}
	c, err := pgx.Connect(t.Context(), url)
	must(t, err)
	defer c.Close(t.Context())
	for _, q := range []string{"UPDATE submissions SET state = 3, final_at = 1", "VACUUM ANALYZE submissions"} {
		_, err := c.Exec(t.Context(), q)
		must(t, err)
	}
	sub, err := h.accept(t.Context(), []byte("b"))
	must(t, err)
	plans, err := store.Plans(t.Context(), h.Store, sub, store.Fence{Shard: 1, Node: "nod_a", Generation: 1})
	must(t, err)
	for what, plan := range plans {
		if !strings.Contains(plan, "submissions_pkey") || strings.Contains(plan, "submissions_lane") {
			t.Errorf("%s:\n%s", what, plan)
		}
	}
}
