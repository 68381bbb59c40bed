// Package real runs, for tests, the parts of the world that we did not write:
// PostgreSQL, an OpenID provider, Postfix with Dovecot, Chromium, and the mail
// programs that people submit with.
//
//	oidc := real.NewOIDC(t, real.OIDCOptions{})
//	mail := real.NewMailServer(t, oidc)
//	pg := real.Postgres(t)
//	page := real.NewBrowser(t)
//	reply, err := real.Swaks(t, real.Door{…}, real.Alex, []string{real.Robin}, message)
//
// Each part is private to the test process: its own folder under the system's
// temporary one, ports of 127.0.0.1 that were free, certificates of an authority
// made for the occasion. All of it is gone when the test is over, also when the
// test process was killed. A part that is not installed fails the test and says
// what to do; no test is skipped for it.
package real

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// remedy is the one thing to do when a part is missing.
const remedy = "run: make test-deps"

// program finds an executable, also where only the system's manager looks.
func program(t testing.TB, name string) string {
	t.Helper()
	if p, err := exec.LookPath(name); err == nil {
		return p
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} {
		if p, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return p
		}
	}
	t.Fatalf("%s is not installed; %s", name, remedy)
	return ""
}

// nodeDir is the folder of the Node scripts and their packages.
func nodeDir(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		node := filepath.Join(dir, "test", "real", "node")
		if _, err := os.Stat(filepath.Join(node, "package-lock.json")); err == nil {
			if _, err := os.Stat(filepath.Join(node, "node_modules", ".installed")); err != nil {
				t.Fatalf("the Node packages of test/real/node are not installed; %s", remedy)
			}
			return node
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("test/real/node is not in any folder above; run the tests inside the checkout")
		}
		dir = filepath.Dir(dir)
	}
}

// folder makes a private folder with a short path (sockets allow about 100
// bytes) that other system users may pass through, and removes it at the end.
func folder(t testing.TB, name string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mg-"+name+"-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// freePorts are n ports of 127.0.0.1 that nobody listens on.
func freePorts(t testing.TB, n int) []int {
	t.Helper()
	ports := make([]int, n)
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // only now, so that no port comes twice
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports
}

// upWithin bounds how long a daemon may take to listen: a loaded machine with
// two cores needs seconds for some.
const upWithin = 30 * time.Second

// awaitPort returns once something listens on the port, or says that the daemon
// has ended, or has not come up in time.
func awaitPort(port int, ended <-chan struct{}) error {
	return await(func() error {
		c, err := net.DialTimeout("tcp", "127.0.0.1:"+strconv.Itoa(port), time.Second)
		if err == nil {
			c.Close()
		}
		return err
	}, ended)
}

// Await asks until there is no error, and for half a minute at most.
func Await(ask func() error) error { return await(ask, nil) }

// await asks until there is no error.
func await(ask func() error, ended <-chan struct{}) error {
	deadline := time.After(upWithin)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-ended:
			return errors.New("it ended by itself")
		case <-deadline:
			return fmt.Errorf("not up after %v: %w", upWithin, err)
		case <-tick.C:
		}
	}
}

// janitor outlives this process, whatever ends it, and runs the commands that
// were written to it: a killed test leaves neither daemons nor folders.
var janitor = sync.OnceValues(func() (io.Writer, error) {
	c := exec.Command("sh", "-c", `todo=$(cat); eval "$todo"`)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt at the keyboard is not for it
	w, err := c.StdinPipe()
	if err != nil {
		return nil, err
	}
	return w, c.Start()
})

// atExit has the janitor run a shell command when this process is gone.
func atExit(t testing.TB, command string) {
	t.Helper()
	w, err := janitor()
	if err == nil {
		_, err = io.WriteString(w, command+"\n")
	}
	if err != nil {
		t.Fatalf("the process that cleans up after the tests cannot be started: %v", err)
	}
}

// killFromFile is a shell command that ends the process whose id is the first
// line of a file, and waits for it.
func killFromFile(file, signal string) string {
	root := strings.Join(rootPrefix(), " ") // the file or the process may be root's
	return fmt.Sprintf(`p=$({ head -n 1 %[1]s || %[3]s head -n 1 %[1]s; } 2>/dev/null | tr -d ' '); if [ -n "$p" ]; then `+
		`{ kill -%[2]s "$p" || %[3]s kill -%[2]s "$p"; } 2>/dev/null; `+
		`n=0; while [ $n -lt 100 ] && grep -q '^State:.[^Z]' "/proc/$p/status" 2>/dev/null; do sleep 0.1; n=$((n+1)); done; fi`, quote(file), signal, root)
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// rootPrefix is what a command needs in front of it to run as root.
func rootPrefix() []string {
	if os.Getuid() == 0 {
		return nil
	}
	return []string{"sudo", "-n"}
}

// asRoot makes a command that runs as root; Postfix starts no other way.
func asRoot(t testing.TB, name string, args ...string) *exec.Cmd {
	t.Helper()
	if os.Getuid() == 0 {
		return exec.Command(name, args...)
	}
	sudo, err := exec.LookPath("sudo")
	if err == nil {
		err = exec.Command(sudo, "-n", "true").Run()
	}
	if err != nil {
		t.Fatalf("Postfix and Dovecot can only be started by root, and sudo does not work without a password (%v); run the tests as root, or run: sudo -v", err)
	}
	return exec.Command(sudo, append([]string{"-n", name}, args...)...)
}

// A log collects what a daemon prints and shows it when the test failed.
type log struct {
	mu  sync.Mutex
	buf []byte
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf = append(l.buf, p...)
	return len(p), nil
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.buf)
}

// tail is the end of a text: what a daemon said last.
func tail(s string) string {
	const most = 8000
	if len(s) > most {
		return "…" + s[len(s)-most:]
	}
	return s
}
