package store_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/store"
	"github.com/mailgrant/mailgrant/test/real"
)

func TestSE02DatabaseIsForItsOwnerOnly(t *testing.T) {
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "mailgrant.db"))
	must(t, s.CreateOrganization(t.Context(), mailgrant.Organization{ID: mailgrant.NewID(mailgrant.PrefixOrganization)}))
	files, err := os.ReadDir(dir)
	must(t, err)
	for _, f := range files {
		info, err := f.Info()
		must(t, err)
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", f.Name(), info.Mode())
		}
	}
	if len(files) < 3 { // the database, its log, its lock
		t.Errorf("%d files", len(files))
	}
}

func TestDatabaseThatIsNotThere(t *testing.T) {
	url := real.Postgres(t)
	base, _, _ := strings.Cut(url, "?")
	_, err := store.Open(t.Context(), base[:strings.LastIndexByte(base, '/')+1]+"nowhere", slog.New(slog.DiscardHandler))
	is(t, err, mailgrant.Misset)
}
