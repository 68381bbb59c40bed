package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
	"github.com/mailgrant/mailgrant/internal/vault"
)

// With playMain set, this test binary is mailgrant.
const playMain = "PLAY_MAILGRANT"

func TestMain(m *testing.M) {
	if os.Getenv(playMain) != "" {
		main()
	}
	os.Exit(m.Run())
}

// somebody is a user whose processes are not root's: to root every process is open.
func somebody(t *testing.T) *syscall.Credential {
	t.Helper()
	if os.Getuid() != 0 {
		return nil // we are one
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	if err1 != nil || err2 != nil {
		t.Fatalf("nobody is %s:%s", u.Uid, u.Gid)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// A serving is mailgrant serve in a process of its own, of a user that is not root.
type serving struct {
	cmd  *exec.Cmd
	api  *client.Client
	said bytes.Buffer // on standard error
	as   *syscall.Credential
}

func serveAlone(t *testing.T, env ...string) *serving {
	t.Helper()
	as := somebody(t)
	dir, err := os.MkdirTemp("", "closed-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if as != nil {
		if err := os.Chown(dir, int(as.Uid), int(as.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	s := &serving{cmd: exec.Command("/proc/self/exe", "serve", "--dir", filepath.Join(dir, "data"), "--listen", "http+insecure://127.0.0.1:0"), as: as,
		api: client.Local(filepath.Join(dir, "data", "mailgrant.sock"))} // the path of this binary may be closed to others
	s.cmd.Dir, s.cmd.Stderr, s.cmd.SysProcAttr = dir, &s.said, &syscall.SysProcAttr{Credential: as}
	s.cmd.Env = append([]string{playMain + "=1", "GOTRACEBACK=crash", "PATH=" + os.Getenv("PATH")}, env...)
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.cmd.Process.Kill() })
	if n, err := out.Read(make([]byte, 100)); n == 0 {
		t.Fatalf("it does not come up: %v\n%s", err, s.said.String())
	}
	return s
}

// A crash leaves no secret behind, neither in a core file nor in what it prints;
// and while it runs, no other process of the same user looks into it.
func TestSE08ProcessIsClosedToOthers(t *testing.T) {
	t.Parallel()
	master, secret := strings.TrimSpace(vault.NewMasterKey()), "MARKED-client-secret-7c1f"
	for _, sig := range []syscall.Signal{syscall.SIGQUIT, syscall.SIGABRT} {
		s := serveAlone(t, "MAILGRANT_MASTER_KEY__ENV=MARKED", "MARKED="+master)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		name, template, tenant, id := "M365", "microsoft365", "11111111-2222-4333-8444-555555555555", "66666666-2222-4333-8444-555555555555"
		reg, err := s.api.CreateRegistration(ctx, client.RegistrationSettings{Name: &name, Template: &template, Tenant: &tenant, ClientID: &id})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.api.AddCredential(ctx, reg.ID, client.NewCredential{Secret: secret}); err != nil {
			t.Fatal(err)
		}
		app := "load"
		if _, err := s.api.CreateApp(ctx, client.AppSettings{Name: &app}); err != nil {
			t.Fatal(err)
		}
		key, err := s.api.IssueKey(ctx, app, client.NewKey{Scopes: []mailgrant.Scope{mailgrant.ScopeSend}})
		if err != nil {
			t.Fatal(err)
		}
		s.looksClosed(t)
		s.cmd.Process.Signal(sig)
		err = s.cmd.Wait()
		status, _ := s.cmd.ProcessState.Sys().(syscall.WaitStatus)
		if err == nil || status.CoreDump() {
			t.Errorf("%v: it ends with %v; core file: %v", sig, err, status.CoreDump())
		}
		if !strings.Contains(s.said.String(), "goroutine ") {
			t.Errorf("%v: there is no dump to look into:\n%.2000s", sig, s.said.String())
		}
		for _, what := range []string{master, secret, key.Secret} {
			if strings.Contains(s.said.String(), what) {
				t.Errorf("%v: the dump contains %.8s…", sig, what)
			}
		}
	}
}

var noCore = regexp.MustCompile(`(?m)^Max core file size +0 +0 `)

func (s *serving) looksClosed(t *testing.T) {
	t.Helper()
	at := "/proc/" + strconv.Itoa(s.cmd.Process.Pid) + "/"
	limits, err := os.ReadFile(at + "limits")
	if err != nil || !noCore.Match(limits) {
		t.Errorf("core files: %v\n%s", err, limits)
	}
	for _, file := range []string{"environ", "mem", "maps", "fd/0"} {
		c := exec.Command("head", "-c", "1", at+file)
		c.SysProcAttr = &syscall.SysProcAttr{Credential: s.as}
		if out, err := c.CombinedOutput(); err == nil || !strings.Contains(string(out), "ermission denied") {
			t.Errorf("another process of the user reads %s: %v, %s", file, err, out)
		}
	}
}
