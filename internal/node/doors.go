package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
	"github.com/mailgrant/mailgrant/internal/config"
	"github.com/mailgrant/mailgrant/internal/outbox"
	"github.com/mailgrant/mailgrant/internal/serve/submission"
)

// A door is one listener and who serves it.
type door struct {
	uri   string // as it is really open
	l     net.Listener
	tls   bool
	serve func(context.Context) error
	close func()
}

// stopWithin is how long a door waits for what is under way.
const stopWithin = 20 * time.Second

// serve has all doors open until ctx ends, and then closes them together: none waits
// for the clients of another.
func (n *Node) serve(ctx context.Context) error {
	all, ctx := errgroup.WithContext(ctx)
	for _, d := range n.doors {
		all.Go(func() error {
			if err := d.serve(ctx); err != nil {
				return fmt.Errorf("%s: %w", d.uri, err)
			}
			return nil
		})
	}
	return all.Wait()
}

// openDoors opens every listener before anything is served, so that a start
// either works or says why not.
func (n *Node) openDoors() error {
	handler := n.handler()
	for _, uri := range n.cfg.Listen {
		d, err := config.ParseDoor(uri)
		if err != nil {
			return err
		}
		if d.Scheme == "http" || d.Scheme == "https" {
			err = n.openHTTP(d, handler)
		} else {
			err = n.openSubmission(uri)
		}
		if err != nil {
			return err
		}
	}
	return n.openSocket()
}

func (n *Node) openHTTP(d config.Door, h http.Handler) error {
	l, err := net.Listen("tcp", d.Addr)
	if err != nil {
		return mailgrant.Errorf(mailgrant.Misset, err, "the door %s://%s does not open: %v", d.Scheme, d.Addr, err).
			Fix("choose an address of this machine and a port nobody uses, or give the process the right to it").At("listen")
	}
	scheme := d.Scheme
	if d.Insecure {
		scheme += "+insecure"
	}
	n.serveHTTP(&door{uri: scheme + "://" + l.Addr().String(), l: l, tls: d.Scheme == "https"}, h)
	return nil
}

// serveHTTP adds a door that speaks HTTP.
func (n *Node) serveHTTP(d *door, h http.Handler) {
	s := &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 32 << 10,
		ErrorLog: slog.NewLogLogger(n.log.Handler(), slog.LevelDebug),
	}
	if d.tls {
		s.TLSConfig = n.Certs.TLS("h2", "http/1.1")
	}
	var l net.Listener = hearing{d.l}
	if d.tls {
		l = tls.NewListener(l, s.TLSConfig)
	}
	d.serve = func(ctx context.Context) error {
		ended := make(chan error, 1)
		go func() { ended <- s.Serve(l) }()
		select {
		case err := <-ended:
			return err
		case <-ctx.Done():
		}
		n.API.Stop() // streams of events end by themselves only when told
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			s.Close()
		}
		<-ended
		return nil
	}
	d.close = func() { s.Close(); d.l.Close() }
	n.doors = append(n.doors, d)
}

func (n *Node) openSubmission(uri string) error {
	l, security, err := submission.Listen(uri)
	if err != nil {
		return err
	}
	scheme, _, _ := strings.Cut(uri, "://")
	d := &door{uri: scheme + "://" + l.Addr().String(), l: l, tls: security != submission.Insecure, close: func() { l.Close() }}
	d.serve = func(ctx context.Context) error {
		ended := make(chan error, 1)
		go func() { ended <- n.mail.Serve(l, security) }()
		select {
		case err := <-ended:
			return err
		case <-ctx.Done():
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
		defer cancel()
		if err := n.mail.Shutdown(ctx); err != nil {
			n.log.Warn("sessions were cut at the end", "err", err)
		}
		return <-ended
	}
	n.doors = append(n.doors, d)
	return nil
}

// openSocket opens the operator's own door: who may reach it may do everything.
func (n *Node) openSocket() error {
	path := n.cfg.Socket()
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return mailgrant.Errorf(mailgrant.Conflict, nil, "another mailgrant is running in %s", n.cfg.Dir).
			Fix("stop it first, or give this one a data directory of its own (--dir)")
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the old socket: %w", err)
	}
	l, err := listenPrivate(path)
	if err != nil {
		return mailgrant.Errorf(mailgrant.Misset, err, "the operator's socket %s does not open: %v", path, err).
			Fix("choose a data directory with a shorter path that mailgrant may write to (--dir)")
	}
	n.serveHTTP(&door{uri: "unix://" + path, l: l}, n.API.Operator())
	return nil
}

// listenPrivate opens a socket that only its owner may use from its first moment:
// it is made in a directory of its own and then moved.
func listenPrivate(path string) (net.Listener, error) {
	dir, err := os.MkdirTemp(filepath.Dir(path), ".s")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	err = errors.Join(os.Chmod(filepath.Join(dir, "s"), 0o600), os.Rename(filepath.Join(dir, "s"), path))
	if err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func (n *Node) uris() (list []string) {
	for _, d := range n.doors {
		list = append(list, d.uri)
	}
	return list
}

// Doors are the addresses that are open, as they are: port 0 has become a number.
func (n *Node) Doors() (list []client.Door) {
	for _, d := range n.doors {
		e := client.Door{URI: d.uri}
		if d.tls {
			e.Fingerprint = n.Certs.Info().Fingerprint
		}
		list = append(list, e)
	}
	return list
}

func (n *Node) makeSubmission() *submission.Server {
	return submission.New(submission.Config{
		Access: n.Access, Outbox: mailDoor{n.Outbox}, TLS: n.Certs.TLS(), Host: n.cfg.Host(),
		PublicURL: n.cfg.PublicURL, Limits: submission.Limits{Message: n.cfg.Limits.MessageBytes, Recipients: n.cfg.Limits.Recipients}, Log: n.log,
	})
}

// mailDoor is the outbox as the SMTP door sees it.
type mailDoor struct{ *outbox.Outbox }

func (o mailDoor) Draft(ctx context.Context, org mailgrant.ID) submission.Draft {
	return o.Outbox.Draft(ctx, org)
}

func (o mailDoor) Accept(ctx context.Context, c mailgrant.Caller, e submission.Envelope, d submission.Draft) (mailgrant.Submission, error) {
	return o.Outbox.Accept(ctx, c, outbox.Envelope{From: e.From, Recipients: e.Recipients, Class: e.Class, OnBehalfOf: e.OnBehalfOf, Named: e.Named,
		IdempotencyKey: e.IdempotencyKey, SendAt: e.SendAt, UTF8: e.UTF8, Trace: e.Trace}, d.(*outbox.Draft))
}
