package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/mailgrant/mailgrant/internal/store"
	"github.com/mailgrant/mailgrant/test/real"
)

// migrate opens a database of an earlier version, and ends.
func migrate(dsn string) error {
	s, err := store.Open(context.Background(), dsn, quiet)
	if err != nil {
		return err
	}
	return s.Close()
}

// killedAt runs a migration that is killed at its nth call to the system of those
// named; false when it came to its end before.
func killedAt(t *testing.T, dsn, calls string, n int) bool {
	t.Helper()
	out, err := helper("migrate", dsn, "strace", "-f", "-o", os.DevNull, "-e", "trace="+calls,
		"-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", calls, n)).CombinedOutput()
	if err == nil {
		return false
	}
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		if s, ok := ended.Sys().(syscall.WaitStatus); ok && s.Signaled() && s.Signal() == syscall.SIGKILL {
			return true
		}
	}
	t.Fatalf("call %d: %v\n%s", n, err, out)
	return false
}

// Killed at each of its writes and syncs, a migration is whole or not there, and
// the next start completes it.
func TestRE17KilledWhileItMigratesSQLite(t *testing.T) {
	t.Parallel()
	first := unpack(t, keptSQLite)
	n := 1
	for again := true; again; n++ {
		name := filepath.Join(t.TempDir(), "mailgrant.db")
		must(t, os.WriteFile(name, first, 0o600))
		again = killedAt(t, name, "pwrite64,fdatasync,fsync,ftruncate,unlink", n)
		checkKept(t, open(t, name))
	}
	if n < 10 {
		t.Errorf("it was killed %d times", n-2)
	}
}

func TestRE17KilledWhileItMigratesPostgres(t *testing.T) {
	t.Parallel()
	first := string(unpack(t, keptPostgres))
	n := 1
	for again := true; again; n += 3 {
		url := real.Postgres(t)
		c, err := pgx.Connect(t.Context(), url)
		must(t, err)
		_, err = c.PgConn().Exec(t.Context(), first).ReadAll()
		must(t, err)
		must(t, c.Close(t.Context()))
		again = killedAt(t, url, "write", n)
		checkKept(t, open(t, url))
	}
	if n < 10 {
		t.Errorf("it was killed %d times", n/3-1)
	}
}
