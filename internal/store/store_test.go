package store_test

import (
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/mailgrant/mailgrant/internal/store"
	"github.com/mailgrant/mailgrant/internal/store/storetest"
	"github.com/mailgrant/mailgrant/test/real"
)

var quiet = slog.New(slog.DiscardHandler)

func open(t testing.TB, dsn string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), dsn, quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func onSQLite(t *testing.T) *store.Store {
	return open(t, filepath.Join(t.TempDir(), "mailgrant.db"))
}

func onPostgres(t *testing.T) *store.Store { return open(t, real.Postgres(t)) }

func TestSQLite(t *testing.T)   { storetest.Run(t, onSQLite) }
func TestPostgres(t *testing.T) { storetest.Run(t, onPostgres) }

// both runs a test on each database.
func both(t *testing.T, f func(t *testing.T, s *store.Store)) {
	for name, on := range map[string]func(*testing.T) *store.Store{"sqlite": onSQLite, "postgres": onPostgres} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, on(t))
		})
	}
}
