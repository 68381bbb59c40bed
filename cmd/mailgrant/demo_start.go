package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
	"github.com/mailgrant/mailgrant/internal/config"
	"github.com/mailgrant/mailgrant/internal/node"
	"github.com/mailgrant/mailgrant/sim"
)

// A demo is mailgrant and the imitated Microsoft 365, both running.
type demo struct {
	began time.Time
	dir   string
	ports demoPorts
	sim   *sim.Sim
	node  *node.Node
	hook  *demoHook
	api   *client.Client
	ended chan error // what Run came to
	keep  func() error

	report demoReport
}

// demoPorts are where everything listens. A kept demo finds them again, because
// its registrations name them.
type demoPorts struct {
	HTTP, SMTP, Submission, Submissions           int // of mailgrant
	SimHTTPS, SimHTTP, SimSMTP, SimSMTPS, SimIMAP int // of the imitation
	Hook                                          int // of the case manager
}

func demoLog(cmd *cobra.Command, o demoOptions) *slog.Logger {
	if !o.verbose {
		return node.Logger(io.Discard, config.Log{Level: "error"})
	}
	return node.Logger(cmd.ErrOrStderr(), config.Log{Level: "info", Format: "text"})
}

func startDemo(ctx context.Context, dir string, began time.Time, log *slog.Logger) (*demo, error) {
	d := &demo{began: began, dir: dir, ended: make(chan error, 1)}
	if err := d.choosePorts(); err != nil {
		return nil, err
	}
	if err := d.startSim(ctx, log); err != nil {
		return nil, err
	}
	var err error
	if d.hook, err = startDemoHook(d.ports.Hook); err != nil {
		return nil, errors.Join(err, d.sim.Close())
	}
	cfg := d.config()
	n, err := node.Open(ctx, cfg, node.Options{Log: log, Login: d.sim.LoginURL()})
	if err != nil {
		return nil, errors.Join(err, d.hook.server.Close(), d.sim.Close())
	}
	d.node, d.api = n, client.Local(cfg.Socket())
	go func() { d.ended <- n.Run(ctx) }()
	return d, nil
}

// wait returns when both have ended.
func (d *demo) wait() error {
	err := <-d.ended
	return errors.Join(err, d.hook.server.Close(), d.keep(), d.sim.Close())
}

// demoMark is the file with the ports, the first that a demo writes: by it a
// directory is known as a demo's.
const demoMark = "ports.json"

func (d *demo) choosePorts() error {
	file := filepath.Join(d.dir, demoMark)
	b, err := os.ReadFile(file)
	if err == nil {
		if err := json.Unmarshal(b, &d.ports); err != nil || d.ports.HTTP == 0 || d.ports.SimHTTPS == 0 || d.ports.Hook == 0 {
			return mailgrant.Errorf(mailgrant.Invalid, err, "%s was not written by a demo", file).Fix("name another directory after --keep")
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return mailgrant.Errorf(mailgrant.Misset, err, "%s cannot be read: %v", file, err).Fix("name another directory after --keep")
	}
	p := &d.ports
	for _, want := range []struct {
		port *int
		best int
	}{{&p.HTTP, 8025}, {&p.SMTP, 2525}, {&p.Submission, 2587}, {&p.Submissions, 2465}, {&p.SimHTTPS, 8443}, {&p.SimHTTP, 8026}, {&p.SimSMTP, 8587}, {&p.SimSMTPS, 8465}, {&p.SimIMAP, 8993}, {&p.Hook, 8027}} {
		if *want.port, err = freePort(want.best); err != nil {
			return mailgrant.Errorf(mailgrant.Unavailable, err, "no port of this machine is free").Fix("close programs that listen, and try again")
		}
	}
	if b, err = json.Marshal(d.ports); err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o600)
}

// freePort is the best one, or another where that is taken.
func freePort(best int) (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(best))
	if err != nil {
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return 0, err
		}
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func local(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }

func (d *demo) startSim(ctx context.Context, log *slog.Logger) error {
	file := filepath.Join(d.dir, "world.json")
	world := sim.Contoso()
	if f, err := os.Open(file); err == nil {
		world, err = sim.LoadWorld(f)
		f.Close()
		if err != nil {
			return mailgrant.Errorf(mailgrant.Invalid, err, "%s does not read: %v", file, err).Fix("name another directory after --keep")
		}
	}
	s, err := sim.Start(context.WithoutCancel(ctx), sim.Config{World: world, HTTPS: local(d.ports.SimHTTPS), HTTP: local(d.ports.SimHTTP),
		SMTP: local(d.ports.SimSMTP), SMTPS: local(d.ports.SimSMTPS), IMAP: local(d.ports.SimIMAP), Dir: filepath.Join(d.dir, "sim"), Log: log})
	if err != nil {
		return mailgrant.Errorf(mailgrant.Misset, err, "the imitated Microsoft 365 does not start: %v", err).Fix("end what uses its ports, or begin in another directory (--keep)")
	}
	d.sim = s
	d.keep = func() error {
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return fmt.Errorf("keep the imitated world: %w", err)
		}
		return errors.Join(s.World().Write(f), f.Close())
	}
	return nil
}

// config is that of a mailgrant that trusts the imitation and nothing else on
// this machine.
func (d *demo) config() config.Config {
	c := config.Default()
	c.Dir = d.dir
	c.Hostname = "mailgrant.contoso.example"
	c.PublicURL = "http://localhost:" + strconv.Itoa(d.ports.HTTP)
	c.Listen = []string{"http+insecure://" + local(d.ports.HTTP), "submission+insecure://" + local(d.ports.SMTP),
		"submission://" + local(d.ports.Submission), "submissions://" + local(d.ports.Submissions)}
	c.Egress.CAFile = d.sim.CAFile()
	for _, a := range []string{d.sim.LoginURL(), d.sim.GraphURL()} {
		if u, err := url.Parse(a); err == nil {
			c.Egress.Allow = append(c.Egress.Allow, u.Host)
		}
	}
	c.Egress.Allow = append(c.Egress.Allow, d.sim.SMTPAddr(), d.sim.SMTPSAddr(), d.sim.IMAPAddr(), d.sim.POPAddr(), "localhost:"+strconv.Itoa(d.ports.Hook))
	return c
}
