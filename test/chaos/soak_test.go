package chaos

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant/sim"
)

// soakFor is how long the load goes on: MAILGRANT_SOAK, or a moment.
func soakFor() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("MAILGRANT_SOAK")); err == nil && d > 0 {
		return d
	}
	return 3 * time.Second
}

// bad are the days that a provider has: each hits now and then.
var bad = []sim.Fault{
	{Name: "soak-token", Point: "token", Do: sim.DoStatus, Status: 503, Probability: 0.2},
	{Name: "soak-graph-busy", Point: "graph.sendMail", Do: sim.DoStatus, Status: 503, Probability: 0.01, RetryAfter: "1"},
	{Name: "soak-graph-lost", Point: "graph.sendMail", Do: sim.DoLost, Probability: 0.005},
	{Name: "soak-smtp-close", Point: "smtp.MAIL", Do: sim.DoClose, Probability: 0.005},
	{Name: "soak-smtp-lost", Point: "smtp.dot", Do: sim.DoLost, Probability: 0.005},
	{Name: "soak-smtp-later", Point: "smtp.RCPT", Do: sim.DoReply, Text: "451 4.3.2 try again later", Probability: 0.005},
}

// TestSoakRE23 loads a mailgrant whose provider has bad days, and then looks whether
// it still holds what it held at first: memory and open files.
func TestSoakRE23(t *testing.T) {
	w := newWorld(t)
	w.setUp()
	p, err := w.start("")
	if err != nil {
		t.Fatal(err)
	}
	run := func(name string, d time.Duration) {
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		w.load(ctx, p, name, 4<<10)
	}
	run("warm", soakFor()/3)
	memory, files := held(t, p)
	for _, f := range bad {
		if err := w.sim.SetFault(f); err != nil {
			t.Fatal(err)
		}
	}
	run("soak", soakFor())
	w.sim.ClearFaults()
	memoryAfter, filesAfter := held(t, p)
	if !alive(p) {
		t.Fatal("the process is gone")
	}
	p.stop(t)
	t.Parallel() // the rest is waiting
	w.drain()
	c := w.reckon()
	t.Logf("%v: %d accepted, %d arrived, %d lost, %d twice (%d flagged); memory %d to %d MiB, files %d to %d", soakFor(), c.accepted, c.arrived, c.lost, c.twice, c.flagged,
		memory>>10, memoryAfter>>10, files, filesAfter)
	if memoryAfter > memory+64<<10 {
		t.Errorf("memory grew from %d to %d KiB", memory, memoryAfter)
	}
	if filesAfter > files+50 {
		t.Errorf("open files grew from %d to %d", files, filesAfter)
	}
}

// held is the resident memory in KiB and the open files of a process.
func held(t *testing.T, p *process) (kib, files int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); f[0] == "VmRSS:" {
			if kib, err = strconv.Atoi(f[1]); err != nil {
				t.Fatal(err)
			}
		}
	}
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return kib, len(open)
}
