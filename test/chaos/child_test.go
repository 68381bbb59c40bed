// Package chaos kills mailgrant, takes its power away and loads it, and then
// counts: nothing that was accepted may be lost, and nothing may go twice unless
// it says so.
package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/mailgrant/mailgrant/internal/config"
	"github.com/mailgrant/mailgrant/internal/node"
	"github.com/mailgrant/mailgrant/internal/store"
)

// The environment of a child: its settings, the step at which it dies, and where it
// notes what is about to be deleted at its provider.
const (
	childConfig = "CHAOS_CONFIG" // config.Config as JSON
	childDie    = "CHAOS_DIE"    // "step:n"; "" lives
	childUndone = "CHAOS_UNDONE" // a file of the name undoneFile; "" nowhere
)

const undoneFile = "undone"

// Child is the process that is killed: a mailgrant like any other, but for a
// step at which it may end itself as kill -9 would. It prints "ready" and the
// doors, one a line, when it serves.
func Child() int {
	var c config.Config
	if err := json.Unmarshal([]byte(os.Getenv(childConfig)), &c); err != nil {
		fmt.Fprintln(os.Stderr, "settings:", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var n *node.Node
	steps := dieAt(os.Getenv(childDie))
	if name := os.Getenv(childUndone); name != "" {
		steps = noteUndone(name, func() *store.Store { return n.Store })
	}
	var err error
	n, err = node.Open(ctx, c, node.Options{Log: node.Logger(os.Stderr, c.Log), Steps: steps})
	if err != nil {
		fmt.Fprintln(os.Stderr, "open:", err)
		return 1
	}
	var uris []string
	for _, d := range n.Doors() {
		uris = append(uris, d.URI)
	}
	fmt.Println("ready", strings.Join(uris, " "))
	if err := n.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "run:", err)
		return 1
	}
	return 0
}

// dieAt ends the process at the nth time of a step, without a last word.
func dieAt(what string) func(string) {
	step, count, ok := strings.Cut(what, ":")
	if !ok {
		return nil
	}
	n, err := strconv.ParseInt(count, 10, 64)
	if err != nil {
		return nil
	}
	var seen atomic.Int64
	return func(s string) {
		if s == step && seen.Add(1) == n {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // until it is done
		}
	}
}

// noteUndone writes down, before anything is done with messages at their provider,
// which arrivals they are.
func noteUndone(name string, of func() *store.Store) func(string) {
	return func(step string) {
		if step != "inbox.before-done" {
			return
		}
		if err := writeUndone(name, of()); err != nil {
			fmt.Fprintln(os.Stderr, "note what is about to be deleted:", err)
			os.Exit(1)
		}
	}
}

func writeUndone(name string, s *store.Store) error {
	ctx := context.Background()
	boxes, err := s.ReadMailboxes(ctx)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	for _, m := range boxes {
		l, err := s.AfterReading(ctx, m.Org, m.Mailbox, 1000)
		if err != nil {
			return err
		}
		for _, u := range l {
			fmt.Fprintln(&text, u.ID)
		}
	}
	return os.WriteFile(name, text.Bytes(), 0o600)
}
