package inbox_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/inbox"
	"github.com/mailgrant/mailgrant/internal/vault"
)

// What the process that is killed is told by its environment.
const (
	victimDir = "MAILGRANT_TEST_VICTIM_DIR"
	victimKey = "MAILGRANT_TEST_VICTIM_KEY"
	victimEnd = "MAILGRANT_TEST_VICTIM_END" // step and how often it is passed; "" it lives until all is read
)

const victimMessages = 20

// persistent is a provider whose mailbox outlives the process: what was deleted
// stands in a file.
func persistent(t testing.TB, dir string) func(*rig) {
	deleted, err := os.ReadFile(filepath.Join(dir, "deleted"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	gone := map[string]bool{}
	for _, name := range strings.Fields(string(deleted)) {
		gone[name] = true
	}
	file, err := os.OpenFile(filepath.Join(dir, "deleted"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(t, err)
	return func(r *rig) {
		r.box.Receive.After = mailgrant.AfterDelete
		for i := range victimMessages {
			text := message(fmt.Sprint("m", i))
			if i%7 == 0 {
				text += strings.Repeat("large\r\n", 60_000)
			}
			r.far.deliver(text)
		}
		mail := r.far.mail[:0]
		for _, m := range r.far.mail {
			if !gone[m.remotes["imap"]] {
				mail = append(mail, m)
			}
		}
		r.far.mail = mail
		r.far.doing = func(remotes []string) error {
			for _, name := range remotes {
				fmt.Fprintln(file, name)
			}
			return file.Sync()
		}
	}
}

// A victim reads until it comes to its step, where it kills itself.
func victim(t *testing.T, dir string) {
	step, count, _ := strings.Cut(os.Getenv(victimEnd), " ")
	left, err := strconv.Atoi(count)
	must(t, err)
	var mu sync.Mutex
	newRig(t, filepath.Join(dir, "mailgrant.db"), persistent(t, dir), func(r *rig) {
		r.master = os.Getenv(victimKey)
		r.config = func(c *inbox.Config) {
			c.Steps = func(s string) {
				mu.Lock()
				defer mu.Unlock()
				if s != step {
					return
				}
				if left--; left == 0 {
					syscall.Kill(os.Getpid(), syscall.SIGKILL)
					select {}
				}
			}
		}
	})
	select {} // until it is killed, or the parent thinks it took too long
}

func TestVictim(t *testing.T) {
	if dir := os.Getenv(victimDir); dir != "" {
		victim(t, dir)
	}
}

// A process that is killed between fetch, commit and what is done after reading
// loses no message and takes none twice; nothing is deleted that was not kept.
func TestRE02KilledAtEachStepOfReading(t *testing.T) {
	for _, step := range []string{"inbox.before-collect", "inbox.after-collect", "inbox.before-done", "inbox.after-done"} {
		for _, nth := range []int{1, 2} {
			if nth > 1 && strings.HasSuffix(step, "done") {
				continue // all is done at once
			}
			t.Run(fmt.Sprintf("%s-%d", step, nth), func(t *testing.T) {
				t.Parallel()
				killedAt(t, step, nth)
			})
		}
	}
}

func killedAt(t *testing.T, step string, nth int) {
	dir, key := t.TempDir(), vault.NewMasterKey()
	c := exec.Command(os.Args[0], "-test.run=^TestVictim$", "-test.timeout=60s")
	c.Env = append(os.Environ(), victimDir+"="+dir, victimKey+"="+key, victimEnd+"="+step+" "+strconv.Itoa(nth))
	out, err := c.CombinedOutput()
	if state := c.ProcessState.Sys().(syscall.WaitStatus); !state.Signaled() || state.Signal() != syscall.SIGKILL {
		t.Fatalf("the victim was not killed at %s: %v\n%s", step, err, out)
	}
	synctest.Test(t, func(t *testing.T) {
		deleted, err := os.ReadFile(filepath.Join(dir, "deleted"))
		must(t, err)
		r := newRig(t, filepath.Join(dir, "mailgrant.db"), persistent(t, dir), func(r *rig) { r.master = key })
		kept := map[string]bool{}
		for _, a := range r.arrivals() {
			kept[a.RemoteID] = true
		}
		for _, name := range strings.Fields(string(deleted)) {
			if !kept[name] {
				t.Errorf("%s was deleted and is not kept", name)
			}
		}
		synctest.Wait()
		count := map[string]int{}
		for _, a := range r.arrivals() {
			count[a.Subject]++
			want := message(a.Subject)
			if n, _ := strconv.Atoi(a.Subject[1:]); n%7 == 0 {
				want += strings.Repeat("large\r\n", 60_000)
			}
			if r.body(a.ID) != want {
				t.Errorf("the bytes of %s came back otherwise", a.Subject)
			}
		}
		for i := range victimMessages {
			if n := count[fmt.Sprint("m", i)]; n != 1 {
				t.Errorf("m%d was taken %d times", i, n)
			}
		}
		if n := len(r.events("arrival.new")); n != victimMessages {
			t.Errorf("%d events, want %d", n, victimMessages)
		}
		all, err := os.ReadFile(filepath.Join(dir, "deleted"))
		must(t, err)
		gone := map[string]bool{}
		for _, name := range strings.Fields(string(all)) {
			gone[name] = true
		}
		if len(gone) != victimMessages {
			t.Errorf("%d messages were deleted in the end, want %d", len(gone), victimMessages)
		}
	})
}
