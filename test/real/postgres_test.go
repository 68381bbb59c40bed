package real_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/mailgrant/mailgrant/test/real"
)

func ask(t *testing.T, url, sql string, args ...any) (n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	if err := c.QueryRow(ctx, sql, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}

func TestEachPostgresDatabaseIsItsOwn(t *testing.T) {
	a, b := real.Postgres(t), real.Postgres(t)
	if a == b {
		t.Fatalf("the same database twice: %s", a)
	}
	ask(t, a, "WITH x AS (SELECT 1) SELECT 1 FROM x")
	ctx := t.Context()
	c, err := pgx.Connect(ctx, a)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	if _, err := c.Exec(ctx, "CREATE TABLE marks (n int)"); err != nil {
		t.Fatal(err)
	}
	if n := ask(t, b, "SELECT count(*) FROM pg_tables WHERE tablename = 'marks'"); n != 0 {
		t.Fatal("a table of one database is seen in the other")
	}
	if v := ask(t, b, "SELECT current_setting('server_version_num')::int"); v < 140000 {
		t.Fatalf("server version %d", v)
	}
}

func TestPostgresServerComesBackAfterStopAndKill(t *testing.T) {
	s := real.NewPostgresServer(t)
	url := s.Database(t)
	ctx := t.Context()
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	if _, err := c.Exec(ctx, "CREATE TABLE marks (n int)"); err != nil {
		t.Fatal(err)
	}
	for i, end := range []func(testing.TB){s.Stop, s.Kill} {
		if _, err := c.Exec(ctx, "INSERT INTO marks VALUES (1)"); err != nil {
			t.Fatal(err)
		}
		end(t)
		if _, err := pgx.Connect(ctx, url); err == nil {
			t.Fatal("a stopped server answers")
		}
		s.Start(t)
		if c, err = pgx.Connect(ctx, url); err != nil {
			t.Fatal(err)
		}
		defer c.Close(ctx)
		if n := ask(t, url, "SELECT count(*) FROM marks"); n != i+1 {
			t.Fatalf("%d rows after start %d", n, i+1)
		}
	}
}
