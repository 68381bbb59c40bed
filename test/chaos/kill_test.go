package chaos

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if os.Getenv(childConfig) != "" {
		os.Exit(Child())
	}
	flag.Set("test.parallel", "3") // they wait more than they work
	os.Exit(m.Run())
}

// steps are all between the first byte of a message and its recorded attempt.
var steps = []string{
	"accept.chunk", "accept.before-commit", "accept.after-commit",
	"send.before-begin", "send.after-begin", "send.connect", "send.before-bytes", "send.after-answer", "send.before-record", "send.after-record",
}

// cycles is how often the process is killed: MAILGRANT_CHAOS, or a few.
func cycles() int {
	if n, err := strconv.Atoi(os.Getenv("MAILGRANT_CHAOS")); err == nil && n > 0 {
		return n
	}
	return 6
}

// TestChaosRE01Kill kills mailgrant at every step in turn, and at any moment from
// outside, under load by both doors.
func TestChaosRE01Kill(t *testing.T) {
	w := newWorld(t)
	w.setUp()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	n := cycles()
	for i := range n {
		w.life(i, r)
	}
	t.Parallel() // the rest is waiting
	w.drain()
	c := w.reckon()
	t.Logf("%d kills: %d accepted, %d arrived, %d lost, %d twice (%d flagged), %d arrived without an answer",
		n, c.accepted, c.arrived, c.lost, c.twice, c.flagged, c.unacked)
	if c.accepted < n {
		t.Errorf("only %d messages were accepted in %d lives: too few to show anything", c.accepted, n)
	}
}

// life is one run that ends by a kill: every other one at a step of its own.
func (w *world) life(i int, r *rand.Rand) {
	w.t.Helper()
	die, within := "", time.Duration(50+r.IntN(400))*time.Millisecond
	if i%2 == 0 {
		die = steps[i/2%len(steps)] + ":" + strconv.Itoa(1+r.IntN(20))
	}
	p, err := w.start(die)
	if err != nil {
		w.t.Fatal(err)
	}
	size := 2 << 10
	if i%5 == 0 || strings.HasPrefix(die, "accept.chunk") {
		size = 600 << 10 // in chunks
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), within+3*time.Second)
	defer cancel()
	if die == "" {
		time.AfterFunc(within, p.kill)
	} else {
		context.AfterFunc(ctx, p.kill)
	}
	w.load(ctx, p, fmt.Sprintf("c%d", i), size)
	p.kill()
}
