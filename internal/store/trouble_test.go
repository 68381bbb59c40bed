package store_test

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/store"
	"github.com/mailgrant/mailgrant/test/real"
)

// A second process is this test binary, told by its environment what to play.
const (
	helperRole = "MAILGRANT_TEST_HELPER"
	helperDir  = "MAILGRANT_TEST_DIR"
)

func TestMain(m *testing.M) {
	role := map[string]func(dir string) error{"full": fillDisk, "lock": lockDatabase, "sync": acceptOne, "flaky": acceptSome, "migrate": migrate, "reserve": useReserve}[os.Getenv(helperRole)]
	if role == nil {
		os.Exit(m.Run())
	}
	if err := role(os.Getenv(helperDir)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func helper(role, dir string, before ...string) *exec.Cmd {
	args := append(before, os.Args[0])
	c := exec.Command(args[0], args[1:]...)
	c.Env = append(os.Environ(), helperRole+"="+role, helperDir+"="+dir)
	return c
}

// openAt is a store in another process.
func openAt(dir string) (house, error) {
	ctx := context.Background()
	s, err := store.Open(ctx, filepath.Join(dir, "mailgrant.db"), quiet)
	if err != nil {
		return house{}, err
	}
	h := house{s, mailgrant.NewID(mailgrant.PrefixOrganization), mailgrant.NewID(mailgrant.PrefixMailbox)}
	return h, errors.Join(s.CreateOrganization(ctx, mailgrant.Organization{ID: h.org, Name: "Contoso"}),
		s.CreateMailbox(ctx, mailgrant.Mailbox{ID: h.box, Org: h.org, Address: "office@contoso.example", State: mailgrant.MailboxActive}))
}

// smallDisk gives dir a disk of its own, of 8 MiB, which nobody else sees, and on it
// a database and a ballast of 2 MiB.
func smallDisk(dir string) (h house, ballast string, err error) {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return h, "", fmt.Errorf("make mounts private: %w", err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=16m"); err != nil { // gone with this process
		return h, "", fmt.Errorf("mount a small disk: %w", err)
	}
	ballast = filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 4<<20), 0o600); err != nil {
		return h, "", err
	}
	h, err = openAt(dir)
	return h, ballast, err
}

func fillDisk(dir string) error {
	h, ballast, err := smallDisk(dir)
	if err != nil {
		return err
	}
	defer h.Close()
	ctx, body := context.Background(), make([]byte, 100<<10)
	var kept []mailgrant.Submission
	for {
		var sub mailgrant.Submission
		if sub, err = h.accept(ctx, body); err != nil {
			break
		}
		if kept = append(kept, sub); len(kept) > 200 {
			return errors.New("the disk is never full")
		}
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	for range 20 { // and many at once
		wg.Go(func() {
			begin := time.Now()
			_, err := h.accept(ctx, body)
			mu.Lock()
			defer mu.Unlock()
			fmt.Printf("full: %s after %ds\n", mailgrant.AsError(err).Code, int(time.Since(begin).Seconds()))
		})
	}
	wg.Wait()
	fmt.Printf("full: %s after 0s\n", mailgrant.AsError(err).Code)
	if err := allThere(ctx, h, kept); err != nil {
		return fmt.Errorf("while it is full: %w", err)
	}
	if err := os.Remove(ballast); err != nil {
		return err
	}
	for range 10 {
		sub, err := h.accept(ctx, body)
		if err != nil {
			return fmt.Errorf("after there is room: %w", err)
		}
		kept = append(kept, sub)
	}
	if err := allThere(ctx, h, kept); err != nil {
		return err
	}
	h.Close()
	again, err := store.Open(ctx, filepath.Join(dir, "mailgrant.db"), quiet)
	if err != nil {
		return err
	}
	defer again.Close()
	h.Store = again
	return allThere(ctx, h, kept)
}

func allThere(ctx context.Context, h house, kept []mailgrant.Submission) error {
	l, _, err := h.Submissions(ctx, h.org, store.SubmissionFilter{Limit: 500})
	if err != nil {
		return err
	}
	if len(l) != len(kept) {
		return fmt.Errorf("%d submissions, %d were accepted", len(l), len(kept))
	}
	for _, sub := range kept {
		if b, err := h.Chunk(ctx, h.org, sub.ID, 0); err != nil || len(b) != 100<<10 {
			return fmt.Errorf("the body of %s: %d bytes, %v", sub.ID, len(b), err)
		}
	}
	return nil
}

// onSmallDisk plays a role in another process, which may mount its disk.
func onSmallDisk(t *testing.T, role string) string {
	t.Helper()
	c := helper(role, t.TempDir())
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Getuid() != 0 {
		c.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		c.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		c.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

func TestRE05DiskFull(t *testing.T) {
	t.Parallel()
	out := onSmallDisk(t, "full")
	if n := strings.Count(out, "full: no_space after 0s"); n != 21 {
		t.Errorf("%d of 21 were refused at once for want of space:\n%s", n, out)
	}
}

// lockDatabase holds the file as a careless backup tool does, until it is told.
func lockDatabase(dir string) error {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "mailgrant.db"))
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	if _, err := db.Exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	fmt.Println("locked")
	io.Copy(io.Discard, os.Stdin)
	_, err = db.Exec("ROLLBACK")
	fmt.Println("free")
	return err
}

func TestRE06DatabaseLockedByAnotherProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h := found(t, open(t, filepath.Join(dir, "mailgrant.db")))
	c := helper("lock", dir)
	in, err := c.StdinPipe()
	must(t, err)
	out, err := c.StdoutPipe()
	must(t, err)
	must(t, c.Start())
	defer c.Wait()
	defer in.Close()
	said := bufio.NewScanner(out)
	if !said.Scan() || said.Text() != "locked" {
		t.Fatalf("it says %q", said.Text())
	}
	var wg sync.WaitGroup
	for range 30 {
		wg.Go(func() {
			begin := time.Now()
			_, err := h.accept(context.WithoutCancel(t.Context()), []byte("b"))
			if !errors.Is(err, mailgrant.Unavailable) || time.Since(begin) > 10*time.Second {
				t.Errorf("%v after %v", err, time.Since(begin))
			}
		})
	}
	if _, err := h.Organizations(t.Context()); err != nil {
		t.Errorf("reading meanwhile: %v", err)
	}
	wg.Wait()
	in.Close()
	said.Scan()
	begin := time.Now()
	_, err = h.accept(t.Context(), []byte("b"))
	must(t, err)
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("the first accept after it took %v", d)
	}
	h.whole(t, 1)
}

func TestRE07PostgresGoesAndComesBack(t *testing.T) {
	t.Parallel()
	server := real.NewPostgresServer(t)
	h := found(t, open(t, server.Database(t)))
	_, err := h.accept(t.Context(), []byte("b"))
	must(t, err)
	for i, end := range []func(testing.TB){server.Stop, server.Kill} {
		end(t)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				begin := time.Now()
				_, err := h.accept(t.Context(), []byte("b"))
				if !errors.Is(err, mailgrant.Unavailable) || time.Since(begin) > 10*time.Second {
					t.Errorf("%v after %v", err, time.Since(begin))
				}
			})
		}
		wg.Wait()
		server.Start(t)
		begin := time.Now()
		for _, err = h.accept(t.Context(), []byte("b")); err != nil; _, err = h.accept(t.Context(), []byte("b")) {
			if time.Since(begin) > 5*time.Second {
				t.Fatalf("five seconds after its return: %v", err)
			}
		}
		h.whole(t, i+2)
	}
}

// Leases and heartbeats go by the database's clock, not by that of the node. R-RE4.
func TestRE15LeasesGoByTheClockOfTheDatabase(t *testing.T) {
	t.Parallel()
	url := real.Postgres(t)
	c, err := pgx.Connect(t.Context(), url)
	must(t, err)
	defer c.Close(context.Background())
	_, err = c.Exec(t.Context(), "CREATE TABLE clock AS SELECT interval '0' AS ahead")
	must(t, err)
	_, err = c.Exec(t.Context(), `CREATE FUNCTION now() RETURNS timestamptz LANGUAGE sql AS 'SELECT pg_catalog.now() + ahead FROM public.clock'`)
	must(t, err)
	set := func(ahead string) {
		_, err := c.Exec(t.Context(), "UPDATE clock SET ahead = $1::text::interval", ahead)
		must(t, err)
	}
	h := found(t, open(t, url+"&search_path=public,pg_catalog")) // so that its clock is ours
	must(t, h.CreateRegistration(t.Context(), mailgrant.Registration{ID: "reg_a", Org: h.org, Name: "M365"}))
	must(t, h.CreateGrant(t.Context(), mailgrant.Grant{ID: "gra_a", Org: h.org, Registration: "reg_a", State: mailgrant.GrantActive}))
	leased := func(node mailgrant.ID) bool {
		_, held, err := h.LeaseGrant(t.Context(), h.org, "gra_a", node, time.Minute)
		must(t, err)
		return held
	}
	living := func(node mailgrant.ID) int {
		n, err := h.Beat(t.Context(), node)
		must(t, err)
		return n
	}
	for _, at := range []string{"-1 day", "1 day", "10 years"} { // as the node sees it
		set(at)
		if !leased("nod_a") || leased("nod_b") {
			t.Errorf("the database's clock at %s: the lease is not one node's", at)
		}
		if living("nod_a"); living("nod_b") != 2 {
			t.Errorf("the database's clock at %s: a node that beats is dead", at)
		}
		set(at + " 2 minutes")
		if !leased("nod_b") {
			t.Errorf("the database's clock at %s: the lease does not end", at)
		}
		if n := living("nod_b"); n != 1 {
			t.Errorf("the database's clock at %s: %d nodes live, one has not beaten for two minutes", at, n)
		}
		must(t, h.ReleaseGrant(t.Context(), h.org, "gra_a", "nod_b"))
	}
}

// A node whose clock is wrong delays nothing that another one works, and neither
// keeps its tokens for too long nor throws them away.
func TestRE15NodesGoByOneClock(t *testing.T) {
	t.Parallel()
	url := real.Postgres(t)
	right := found(t, open(t, url))
	must(t, right.CreateRegistration(t.Context(), mailgrant.Registration{ID: "reg_a", Org: right.org, Name: "M365"}))
	must(t, right.CreateGrant(t.Context(), mailgrant.Grant{ID: "gra_a", Org: right.org, Registration: "reg_a", State: mailgrant.GrantActive}))
	_, err := right.Beat(t.Context(), "nod_right")
	must(t, err)
	for _, off := range []time.Duration{24 * time.Hour, -24 * time.Hour, 10 * 365 * 24 * time.Hour, time.Minute} {
		wrong := house{open(t, url), right.org, right.box}
		theirs := func() time.Time { return time.Now().Add(off) }
		store.SetClock(wrong.Store, theirs)
		_, err := wrong.Beat(t.Context(), "nod_wrong")
		must(t, err)
		if d := wrong.Now().Sub(right.Now()).Abs(); d > 5*time.Second {
			t.Errorf("off by %v: the nodes are %v apart", off, d)
		}
		g, held, err := wrong.LeaseGrant(t.Context(), right.org, "gra_a", "nod_wrong", time.Minute)
		if err != nil || !held {
			t.Fatalf("off by %v: lease: %v, %v", off, held, err)
		}
		must(t, wrong.RenewGrant(t.Context(), store.Renewal{Org: right.org, Grant: "gra_a", Node: "nod_wrong", Generation: g.Generation, At: theirs(), Expires: theirs().Add(time.Hour),
			Handover: []store.Handover{{Resource: "outlook", Sealed: []byte("sealed"), Expires: theirs().Add(time.Hour)}}}))
		_, expires, err := right.FetchHandover(t.Context(), right.org, "gra_a", "outlook")
		if left := time.Until(expires); err != nil || left < 59*time.Minute || left > 61*time.Minute {
			t.Errorf("off by %v: a token for an hour is good for %v, %v", off, left, err)
		}
	}
}

func TestRE16DamagedFileIsRefused(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "mailgrant.db")
	h := found(t, open(t, name))
	h.Close()
	if _, err := os.Stat(name + "-wal"); err == nil {
		t.Error("a clean end leaves the log behind")
	}
	b, err := os.ReadFile(name)
	must(t, err)
	for what, damage := range map[string][]byte{
		"no database": bytes.Repeat([]byte("x"), 8192),
		"cut short":   b[:len(b)/2],
	} {
		must(t, os.WriteFile(name, damage, 0o600))
		s, err := store.Open(t.Context(), name, quiet)
		if err == nil {
			s.Close()
			t.Errorf("%s: it opens", what)
			continue
		}
		if e := mailgrant.AsError(err); e.Remedy == "" || !strings.Contains(e.Message, "damaged") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestSecondProcessIsRefused(t *testing.T) {
	name := filepath.Join(t.TempDir(), "mailgrant.db")
	open(t, name)
	_, err := store.Open(t.Context(), name, quiet)
	is(t, err, mailgrant.Conflict)
}

// acceptOne says so when a message is accepted.
func acceptOne(dir string) error {
	h, err := openAt(dir)
	if err != nil {
		return err
	}
	defer h.Close()
	for i := range 3 {
		os.Stdout.WriteString(fmt.Sprintf("accepting %d\n", i))
		if _, err := h.accept(context.Background(), bytes.Repeat([]byte("b"), 10<<10)); err != nil {
			return err
		}
		os.Stdout.WriteString(fmt.Sprintf("accepted %d\n", i))
	}
	return nil
}

// What the kernel was asked for, in order: before each answer all that was
// written is forced to the disk, and the files' names with it.
func TestRE03SyncedBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	trace := filepath.Join(t.TempDir(), "trace")
	out, err := helper("sync", dir, "strace", "-f", "-y", "-o", trace, "-e", "trace=write,pwrite64,fsync,fdatasync").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	b, err := os.ReadFile(trace)
	must(t, err)
	call := regexp.MustCompile(`(write|pwrite64|fsync|fdatasync)\(\d+<([^>]*)>(?:, "([^"]*))?`)
	unsynced, answers, folder, wrote := map[string]bool{}, 0, false, false
	for line := range strings.Lines(string(b)) {
		m := call.FindStringSubmatch(line)
		switch {
		case m == nil:
		case strings.HasPrefix(m[3], "accepting"):
			wrote = false
		case strings.HasPrefix(m[3], "accepted"):
			answers++
			if len(unsynced) > 0 || !wrote {
				t.Errorf("answer %d: not forced to disk: %v; anything written: %v", answers, unsynced, wrote)
			}
			if !folder {
				t.Errorf("answer %d: the folder of the database was never synced", answers)
			}
		case strings.HasSuffix(m[2], "-shm"), strings.HasSuffix(m[2], ".synced"): // made anew at each start; and what may be older than the truth
		case m[1] == "pwrite64" && strings.HasPrefix(m[2], dir):
			unsynced[m[2]], wrote = true, true
		case m[1] == "fsync" || m[1] == "fdatasync":
			delete(unsynced, m[2])
			folder = folder || m[2] == dir
		}
	}
	if answers != 3 {
		t.Fatalf("%d answers in the trace:\n%.2000s", answers, b)
	}
}

// acceptSome goes on after a refusal.
func acceptSome(dir string) error {
	h, err := openAt(dir)
	if err != nil {
		return err
	}
	defer h.Close()
	for range 8 {
		sub, err := h.accept(context.Background(), bytes.Repeat([]byte("b"), 10<<10))
		if err != nil {
			os.Stdout.WriteString(fmt.Sprintf("refused %s\n", mailgrant.AsError(err).Code))
			continue
		}
		os.Stdout.WriteString(fmt.Sprintf("accepted %s %s\n", sub.Org, sub.ID))
	}
	return nil
}

// A sync that fails costs the accepts that asked for it, and nothing else: the file
// is opened anew, and what was answered for is there. The fault meets the nth sync
// of each thread, so that some meet the start instead.
func TestRE04SyncThatFails(t *testing.T) {
	t.Parallel()
	refused := 0
	for when := 3; when <= 12; when++ {
		dir := t.TempDir()
		out, err := helper("flaky", dir, "strace", "-f", "-o", os.DevNull, "-e", "trace=fsync,fdatasync",
			"-e", fmt.Sprintf("inject=fsync,fdatasync:error=EIO:when=%d", when)).Output()
		if err != nil && len(out) > 0 {
			t.Fatalf("sync %d: %v\n%s", when, err, out)
		}
		s := open(t, filepath.Join(dir, "mailgrant.db"))
		accepted := 0
		for line := range strings.Lines(string(out)) {
			f := strings.Fields(line)
			switch f[0] {
			case "accepted":
				accepted++
				if b, err := s.Chunk(t.Context(), mailgrant.ID(f[1]), mailgrant.ID(f[2]), 0); err != nil || len(b) != 10<<10 {
					t.Errorf("sync %d: what was accepted has %d bytes, %v", when, len(b), err)
				}
			case "refused":
				refused++
				if f[1] != string(mailgrant.Unavailable) {
					t.Errorf("sync %d: refused as %s", when, f[1])
				}
			}
		}
		if len(out) > 0 && accepted < 4 {
			t.Errorf("sync %d: only %d were accepted beside the failure:\n%s", when, accepted, out)
		}
		s.Close()
	}
	if refused == 0 {
		t.Error("no accept met a sync that failed")
	}
}
