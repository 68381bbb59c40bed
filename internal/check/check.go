// Package check tests a mailbox from its settings to a message that comes back,
// and says at each step what was found.
//
//	send      settings ─┬─▶ DNS ─▶ TCP ─▶ TLS ─┐
//	                    └─▶ token ─┬───────────┴─▶ authenticate ─────────────────┐
//	                               └─▶ audience and scopes, identity             │
//	receive   the same, then ─▶ open the mailbox ─▶ folders ─▶ reader ──┐        │
//	                                                                    │        ▼
//	round trip                                  mail table ◀── send to itself ◀──┘
//	                                               └─▶ From, Sent folder, Authentication-Results, junk folder
//
// A step that fails does not end the check: what does not depend on it goes on,
// what does is skipped and says so. A login alone proves little, so the check
// goes on to a message. What both directions share is looked at once. R105.
package check

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/smtp"
	"github.com/mailgrant/mailgrant/internal/provider/wire"
)

// The states of a step.
const (
	Passed  = mailgrant.StepPassed
	Failed  = mailgrant.StepFailed
	Skipped = mailgrant.StepSkipped
)

// Step and Report are words of the house: doors speak of them too.
type (
	Step   = mailgrant.CheckStep
	Report = mailgrant.CheckReport
)

// Keeper gives the way of a mailbox.
type Keeper interface {
	Way(ctx context.Context, m mailgrant.Mailbox) (provider.Way, error)
}

// Resolver looks names up. *net.Resolver is one.
type Resolver interface {
	LookupHost(ctx context.Context, host string) ([]string, error)
}

// A Table is where mail that came is kept, and the reader that brings it there.
type Table interface {
	// Marked is the arrival with a mark in its subject; NotFound while there is none.
	Marked(ctx context.Context, m mailgrant.Mailbox, mark string) (mailgrant.Arrival, error)

	// Watch gives a channel on which something comes when the table has changed.
	Watch() (changed <-chan struct{}, stop func())

	Reader(m mailgrant.Mailbox) mailgrant.ReaderStatus

	// Read has the mailbox read at once.
	Read(ctx context.Context, m mailgrant.Mailbox)
}

// Deps is what a check needs.
type Deps struct {
	Keeper       Keeper
	Transports   map[string]provider.Transport
	Choose       func(provider.Way, *provider.Handover, map[string]provider.Transport) (provider.Transport, string, error)
	Readers      map[string]provider.Reader
	ChooseReader func(provider.Way, map[string]provider.Reader) (provider.Reader, string, error)
	Table        Table // nil: the mailbox is not read yet
	Marks        Marks
	SMTP         smtp.Config
	Resolver     Resolver // nil: the system's
	Proxy        bool     // HTTP goes through a proxy, which looks up and connects by itself
}

// Options of one check.
type Options struct {
	NoSend bool   // leave the message out
	Only   string // CheckSend or CheckReceive; "" what the mailbox is for
}

const (
	// stepWithin bounds a step, tripWithin one that waits for a message.
	stepWithin = 45 * time.Second
	tripWithin = 2 * time.Minute
)

// Run checks a mailbox. step, which may be nil, hears of every step as it ends.
func Run(ctx context.Context, d Deps, m mailgrant.Mailbox, o Options, step func(Step)) Report {
	if d.Resolver == nil {
		d.Resolver = net.DefaultResolver
	}
	r := &run{Deps: d, box: m, opts: o, tell: step, report: Report{Mailbox: m.ID, Address: m.Address, OK: true}}
	defer r.end()
	r.ready = guarded(ctx, r.prepare)
	for _, l := range r.plan() {
		r.walk(ctx, l)
	}
	r.trip(ctx)
	return r.report
}

// A run is a check under way.
type run struct {
	Deps
	box    mailgrant.Mailbox
	opts   Options
	tell   func(Step)
	report Report

	ready     result // of what both directions need
	way       provider.Way
	out, in   *leg // nil where the mailbox does not send, or is not read
	transport provider.Transport
	session   provider.Session
	reader    provider.Reader
	folders   []provider.Folder
	mark      string
	message   *provider.Handover
	sent      time.Time
	came      *mailgrant.Arrival
	cameIn    string // the junk folder that it came into
	unread    bool   // nobody said that the mailbox is to be read
}

// A leg is the way to the provider in one direction.
type leg struct {
	direction string
	protocol  string // "smtp", "imap", "pop", "graph", "gmail"
	host      string
	port      string
	resource  string // whose token it shows
	tok       mailgrant.Token
	state     map[string]string // of its steps
}

// A result is what a step comes back with. err makes it a failure, skip a step
// that was not tried.
type result struct {
	text string
	skip string
	err  error
}

func (r *run) end() {
	if r.session != nil {
		r.session.Close()
	}
}

// plan says which directions there are to check: what the mailbox is set for, and
// what its grant covers. One that only could be read is checked as if it were.
func (r *run) plan() (legs []*leg) {
	can := func(l ...mailgrant.Capability) bool {
		return slices.ContainsFunc(l, func(c mailgrant.Capability) bool { return slices.Contains(r.way.Grant.Capabilities, c) })
	}
	sends := can(mailgrant.CanSMTP, mailgrant.CanAPISend) || r.box.Transport != "" && r.box.Transport != "auto"
	reads := r.box.Receive != nil
	switch {
	case r.opts.Only != "":
		sends, reads = r.opts.Only == mailgrant.CheckSend, r.opts.Only == mailgrant.CheckReceive
	case r.ready.err != nil && r.way.Grant.ID == "": // nothing is known of it
		sends = !reads
	case !sends && !reads:
		reads = can(mailgrant.CanIMAP, mailgrant.CanPOP, mailgrant.CanAPIRead)
		sends = !reads
	}
	if reads && r.box.Receive == nil {
		r.unread = true
		r.box.Receive = &mailgrant.Receive{Protocol: "auto"}
		r.way.Mailbox.Receive = r.box.Receive
	}
	if sends {
		r.out = &leg{direction: mailgrant.CheckSend, state: map[string]string{}}
		legs = append(legs, r.out)
	}
	if reads {
		r.in = &leg{direction: mailgrant.CheckReceive, state: map[string]string{}}
		legs = append(legs, r.in)
	}
	return legs
}

// A task is a step to be done.
type task struct {
	name  string
	needs []string
	do    func(context.Context, *leg) result
}

// walk takes the steps of one direction. What the other one has shown already is
// not tried again.
func (r *run) walk(ctx context.Context, l *leg) {
	const settings, tcp, tls, token = mailgrant.StepSettings, mailgrant.StepTCP, mailgrant.StepTLS, mailgrant.StepToken
	r.step(ctx, l, task{settings, nil, r.settings})
	if other := r.out; other != nil && other != l {
		if l.host != "" && l.host == other.host && l.port == other.port {
			l.take(other, mailgrant.StepDNS, tcp, tls)
		}
		if l.protocol != "" && l.resource == other.resource {
			l.tok = other.tok
			l.take(other, token, mailgrant.StepIdentity)
		}
	}
	tasks := []task{
		{mailgrant.StepDNS, []string{settings}, r.dns},
		{tcp, []string{settings, mailgrant.StepDNS}, r.tcp},
		{tls, []string{settings, tcp}, r.tls},
		{token, []string{settings}, r.token},
		{mailgrant.StepScopes, []string{token}, r.scopes},
		{mailgrant.StepIdentity, []string{token}, r.identity},
		{mailgrant.StepAuthenticate, []string{tls, token}, r.authenticate},
	}
	if l == r.in {
		tasks = append(tasks,
			task{mailgrant.StepOpen, []string{tls, token, mailgrant.StepAuthenticate}, r.open},
			task{mailgrant.StepFolders, []string{mailgrant.StepOpen}, r.compareFolders})
		if r.Table != nil {
			tasks = append(tasks, task{mailgrant.StepReader, []string{mailgrant.StepOpen, mailgrant.StepFolders}, r.reads})
		}
	}
	for _, t := range tasks {
		if l.state[t.name] == "" {
			r.step(ctx, l, t)
		}
	}
}

// take has steps of another direction count for this one.
func (l *leg) take(other *leg, names ...string) {
	for _, n := range names {
		if s := other.state[n]; s != "" {
			l.state[n] = s
		}
	}
}

// trip sends a message to the mailbox itself and looks for it.
func (r *run) trip(ctx context.Context) {
	if r.out == nil {
		return
	}
	send := task{mailgrant.StepSend, []string{mailgrant.StepTLS, mailgrant.StepToken, mailgrant.StepAuthenticate}, r.send}
	if r.in == nil || r.Table == nil || r.unread {
		r.step(ctx, r.out, send)
		return
	}
	l := &leg{direction: mailgrant.CheckRoundTrip, state: map[string]string{}}
	l.take(r.out, send.needs...)
	l.take(r.in, mailgrant.StepOpen, mailgrant.StepReader)
	r.step(ctx, l, send)
	for _, t := range []task{
		{mailgrant.StepArrive, []string{mailgrant.StepSend, mailgrant.StepOpen, mailgrant.StepReader}, r.arrive},
		{mailgrant.StepFrom, []string{mailgrant.StepArrive}, r.from},
		{mailgrant.StepSent, []string{mailgrant.StepSend, mailgrant.StepOpen}, r.sentFolder},
		{mailgrant.StepAuthResults, []string{mailgrant.StepArrive}, r.authResults},
		{mailgrant.StepJunk, []string{mailgrant.StepArrive}, r.junk},
	} {
		r.step(ctx, l, t)
	}
}

func (r *run) step(ctx context.Context, l *leg, t task) {
	began := time.Now()
	s := Step{Name: t.name, Direction: l.direction, State: Passed}
	switch broken := slices.IndexFunc(t.needs, func(n string) bool { return l.state[n] == Failed || l.state[n] == "" }); {
	case broken >= 0:
		s.State, s.Text = Skipped, "needs "+t.needs[broken]
	case ctx.Err() != nil:
		s.State, s.Text = Skipped, "the check was broken off"
	default:
		within := stepWithin
		if l.direction == mailgrant.CheckRoundTrip {
			within = tripWithin
		}
		sctx, cancel := context.WithTimeout(ctx, within)
		r.settle(&s, guarded(sctx, func(ctx context.Context) result { return t.do(ctx, l) }))
		cancel()
	}
	if s.State != Skipped || !strings.HasPrefix(s.Text, "needs ") {
		l.state[t.name] = s.State
	}
	s.Took = time.Since(began)
	if s.State == Failed {
		r.report.OK = false
	}
	r.report.Steps = append(r.report.Steps, s)
	if r.tell != nil {
		r.tell(s)
	}
}

// guarded turns a panic into a failed step: whoever asks for a check is in
// trouble already.
func guarded(ctx context.Context, do func(context.Context) result) (out result) {
	defer func() {
		if p := recover(); p != nil {
			out = result{err: mailgrant.Errorf(mailgrant.Internal, fmt.Errorf("%v", p), "mailgrant itself failed at this step").Fix("report it with this output")}
		}
	}()
	return do(ctx)
}

func (r *run) settle(s *Step, out result) {
	switch {
	case out.skip != "":
		s.State, s.Text = Skipped, out.skip
	case out.err != nil:
		s.State = Failed
		e := mailgrant.AsError(out.err)
		s.Text, s.Finding = e.Message, e.Finding
		if s.Finding == nil {
			s.Finding = &mailgrant.Finding{Cause: "unknown", Title: "Not passed", Sentence: e.Message + ".", Remedy: e.Remedy, Who: mailgrant.WhoOperator, Retry: mailgrant.RetryFix}
			if e.Code.Temporary() {
				s.Finding.Retry, s.Finding.Who = mailgrant.RetryLater, mailgrant.WhoNobody
			}
		}
	default:
		s.Text = out.text
	}
}

// httpAPI says whether a direction goes over an HTTP API.
func (l *leg) httpAPI() bool {
	return l.protocol != smtp.Name && l.protocol != "imap" && l.protocol != "pop"
}

// clean makes text of the provider fit to be shown.
func clean(s string) string { return wire.Clean(s, 200) }
