package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant/client"
	"github.com/mailgrant/mailgrant/internal/config"
	"github.com/mailgrant/mailgrant/internal/node"
	"github.com/mailgrant/mailgrant/sim"
)

// Commands against a running mailgrant, with an imitated Microsoft 365 behind it.
func TestScriptsRunning(t *testing.T) {
	runScripts(t, "testdata/running/*.txt", func(t *testing.T, s *script) {
		w := &runningWorld{t: t, s: s}
		t.Setenv("MAILGRANT_DIR", filepath.Join(s.dir, "data"))
		if err := w.start(nil); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := w.stop(nil); err != nil {
				t.Error(err)
			}
		})
		s.steps["start"], s.steps["stop"], s.steps["consent"] = w.start, w.stop, w.consent
		s.steps["held"], s.steps["damage"] = w.held, w.damage
		s.steps["example"] = func(args []string) error { // of docs/apply.md, into a file
			return os.WriteFile(filepath.Join(s.dir, args[0]), []byte(documentExample(t)), 0o600)
		}
	})
}

// A runningWorld is a mailgrant of a script, which it may stop and start.
type runningWorld struct {
	t   *testing.T
	s   *script
	d   *demo
	end context.CancelFunc
}

func (w *runningWorld) start([]string) error {
	dir := filepath.Join(w.s.dir, "data")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	ctx, end := context.WithCancel(context.Background())
	d, err := startDemo(ctx, dir, time.Now(), node.Logger(w.t.Output(), config.Log{Level: "error", Format: "text"}))
	if err != nil {
		end()
		return err
	}
	w.d, w.end = d, end
	host, port, err := net.SplitHostPort(d.sim.SMTPAddr())
	if err != nil {
		return err
	}
	login, err := url.Parse(d.sim.LoginURL())
	if err != nil {
		return err
	}
	for name, value := range map[string]string{
		"HOME": d.home(), "LOGIN": d.sim.LoginURL(), "GRAPH": d.sim.GraphURL(), "SMTPHOST": host, "SMTPPORT": port, "PORT": login.Port(), "TENANT": sim.ContosoTenantID,
		"CLIENT": sim.ContosoClientID, "SECRET": sim.ContosoClientSecret, "SYSTEM": sim.ContosoSystemClientID, "SYSTEMSECRET": sim.ContosoSystemClientSecret,
	} {
		w.s.world[name] = value
	}
	return nil
}

func (w *runningWorld) stop([]string) error {
	if w.d == nil {
		return nil
	}
	w.end()
	err := w.d.wait()
	w.d = nil
	return err
}

// consent walks the consent of a mailbox as a person would.
func (w *runningWorld) consent(args []string) error {
	if len(args) != 2 {
		return errors.New("it takes an address and who signs in")
	}
	ctx, cancel := context.WithTimeout(context.Background(), commandWithin)
	defer cancel()
	all, err := w.d.api.Grants(ctx)
	if err != nil {
		return err
	}
	for _, g := range all {
		if strings.EqualFold(g.Mailbox, args[0]) {
			return errors.Join(w.d.consent(ctx, g.ID, args[1]), w.told(ctx))
		}
	}
	return fmt.Errorf("there is no grant of %s", args[0])
}

// damage writes over the page of a database on which the mailboxes are.
func (w *runningWorld) damage(args []string) error {
	b, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	size := int(binary.BigEndian.Uint16(b[16:]))
	for at := size; at < len(b); at += size {
		if p := b[at : at+size]; p[0] == 13 && bytes.Contains(p, []byte("office@contoso.example")) { // a leaf of a table
			copy(p, bytes.Repeat([]byte{0xa5}, 512))
			return os.WriteFile(args[0], b, 0o600)
		}
	}
	return errors.New("the page is not there")
}

// told waits for the mail by which a mailbox hears that it was connected: what comes
// after it is then the same each time.
func (w *runningWorld) told(ctx context.Context) error {
	done := errors.New("told")
	err := w.d.watch(ctx, func() error {
		p, err := w.d.api.Submissions(ctx, client.SubmissionFilter{Limit: 100})
		if err != nil {
			return err
		}
		for _, sub := range p.Items {
			if sub.Door == "inside" && !sub.State.Final() {
				return nil
			}
		}
		return done
	})
	if errors.Is(err, done) {
		return nil
	}
	return err
}

// held waits until a mailbox is held.
func (w *runningWorld) held(args []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), commandWithin)
	defer cancel()
	done := errors.New("held")
	err := w.d.watch(ctx, func() error {
		m, err := w.d.api.Mailbox(ctx, args[0])
		if err == nil && m.Hold != nil {
			return done
		}
		return err
	})
	if errors.Is(err, done) {
		return nil
	}
	return err
}
