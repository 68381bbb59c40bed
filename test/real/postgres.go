package real

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Postgres gives a new, empty database on a server that all tests of this
// process share. Both are gone in the end.
func Postgres(t testing.TB) (url string) {
	t.Helper()
	return sharedServer(t).Database(t)
}

func sharedServer(t testing.TB) *PostgresServer {
	t.Helper()
	shared.Lock()
	defer shared.Unlock() // also when the server does not start
	if shared.server == nil {
		shared.server = startPostgres(t)
	}
	return shared.server
}

// shared is the one server of this process; the janitor ends it.
var shared struct {
	sync.Mutex
	server *PostgresServer
}

// A PostgresServer is a server of one test, which may stop, kill and start it.
// It does not wait for the disk: what it is killed in the middle of survives in
// the page cache, only a power cut would not.
type PostgresServer struct {
	Port int

	bin, dir string
	cred     *syscall.Credential
	log      log
	cmd      *exec.Cmd
	ended    chan struct{}
	made     atomic.Int64
}

// NewPostgresServer starts a server that belongs to t alone.
func NewPostgresServer(t testing.TB) *PostgresServer {
	t.Helper()
	s := startPostgres(t)
	t.Cleanup(func() {
		s.end(syscall.SIGINT)
		os.RemoveAll(s.dir)
	})
	return s
}

func startPostgres(t testing.TB) *PostgresServer {
	t.Helper()
	s := &PostgresServer{bin: postgresBin(t), dir: folder(t, "pg"), cred: unprivileged(t)}
	atExit(t, killFromFile(filepath.Join(s.dir, "data", "postmaster.pid"), "INT")+"; rm -rf "+quote(s.dir))
	if s.cred != nil {
		if err := os.Chown(s.dir, int(s.cred.Uid), int(s.cred.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	s.Port = freePorts(t, 1)[0]
	if out, err := s.command("initdb", "-D", s.data(), "-U", "mailgrant", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync").CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	s.Start(t)
	return s
}

func (s *PostgresServer) data() string { return filepath.Join(s.dir, "data") }

// command runs a program of PostgreSQL as the user that owns the data.
func (s *PostgresServer) command(name string, args ...string) *exec.Cmd {
	c := exec.Command(filepath.Join(s.bin, name), args...)
	c.Dir = s.dir
	c.Env = append(slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "PG") }), "HOME="+s.dir, "LC_ALL=C")
	c.SysProcAttr = &syscall.SysProcAttr{Credential: s.cred, Setpgid: true}
	return c
}

// Start starts the server, on the same port as before, and returns when it
// answers.
func (s *PostgresServer) Start(t testing.TB) {
	t.Helper()
	s.cmd = s.command("postgres", "-D", s.data(), "-p", strconv.Itoa(s.Port), "-k", s.dir, "-h", "127.0.0.1",
		"-c", "fsync=off", "-c", "full_page_writes=off", "-c", "max_connections=300", "-c", "shared_buffers=64MB", "-c", "log_min_messages=warning")
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	if err := s.cmd.Start(); err != nil {
		t.Fatalf("postgres: %v", err)
	}
	ended := make(chan struct{})
	s.ended = ended
	go func(c *exec.Cmd) { c.Wait(); close(ended) }(s.cmd)
	if err := await(func() error {
		return s.command("pg_isready", "-q", "-h", "127.0.0.1", "-p", strconv.Itoa(s.Port)).Run()
	}, ended); err != nil {
		t.Fatalf("PostgreSQL on port %d: %v\n%s", s.Port, err, tail(s.log.String()))
	}
}

// Stop ends the server as an administrator does who cannot wait: sessions are
// cut, data is written.
func (s *PostgresServer) Stop(t testing.TB) {
	t.Helper()
	s.end(syscall.SIGINT)
}

// Kill ends all processes of the server with SIGKILL. Start recovers from its
// log.
func (s *PostgresServer) Kill(t testing.TB) {
	t.Helper()
	s.end(syscall.SIGKILL)
}

func (s *PostgresServer) end(sig syscall.Signal) {
	select {
	case <-s.ended:
		return
	default:
	}
	if sig == syscall.SIGKILL {
		// The workers have groups of their own; they notice by themselves that
		// the postmaster is gone, and Start waits until they have.
		for _, pid := range children(s.cmd.Process.Pid) {
			syscall.Kill(pid, sig)
		}
	}
	s.cmd.Process.Signal(sig)
	select {
	case <-s.ended:
	case <-time.After(upWithin):
		syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
		<-s.ended
	}
}

// children are the ids of the processes that pid started.
func children(pid int) (out []int) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	for _, f := range strings.Fields(string(b)) {
		if n, err := strconv.Atoi(f); err == nil {
			out = append(out, n)
		}
	}
	return out
}

// Database makes a new, empty database, which goes when the test ends.
func (s *PostgresServer) Database(t testing.TB) (url string) {
	t.Helper()
	name := fmt.Sprintf("t%d", s.made.Add(1))
	if err := s.sql("CREATE DATABASE " + name + " TEMPLATE template0"); err != nil {
		t.Fatalf("a new database: %v\n%s", err, tail(s.log.String()))
	}
	t.Cleanup(func() { s.sql("DROP DATABASE IF EXISTS " + name + " WITH (FORCE)") }) // a stopped server has lost it anyhow
	return s.URL(name)
}

// URL is the address of a database of this server.
func (s *PostgresServer) URL(database string) string {
	return fmt.Sprintf("postgres://mailgrant@127.0.0.1:%d/%s?sslmode=disable", s.Port, database)
}

func (s *PostgresServer) sql(text string) error {
	c := s.command("psql", "-q", "-X", "-h", "127.0.0.1", "-p", strconv.Itoa(s.Port), "-U", "mailgrant", "-d", "postgres", "-v", "ON_ERROR_STOP=1", "-c", text)
	out, err := c.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// postgresBin is the folder of the newest server's programs.
func postgresBin(t testing.TB) string {
	t.Helper()
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	slices.SortFunc(dirs, func(a, b string) int { return version(a) - version(b) })
	if len(dirs) > 0 {
		newest := dirs[len(dirs)-1]
		if v := version(newest); v < 14 {
			t.Fatalf("PostgreSQL %d is too old, 14 is the least; %s", v, remedy)
		}
		return filepath.Dir(newest)
	}
	if p, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(p)
	}
	t.Fatalf("PostgreSQL is not installed; %s", remedy)
	return ""
}

// version is the 15 of /usr/lib/postgresql/15/bin/initdb.
func version(path string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
	return n
}

// unprivileged is the system user that daemons run as which refuse root; nil
// when we are not root ourselves.
func unprivileged(t testing.TB) *syscall.Credential {
	t.Helper()
	if os.Getuid() != 0 {
		return nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err1 == nil && err2 == nil && uid != 0 {
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		}
	}
	t.Fatal("there is neither a user postgres nor nobody to run daemons as; " + remedy)
	return nil
}
