// Package check tests a mailbox from its settings to a message that arrives, and
// says at each step what was found.
//
//	settings ─┬─▶ DNS ─▶ TCP ─▶ TLS ─┐
//	          └─▶ token ─┬───────────┴─▶ authenticate ─▶ send to itself
//	                     └─▶ audience and scopes, identity
//
// A step that fails does not end the check: what does not depend on it goes on,
// what does is skipped and says so. A login alone proves little, so the check
// goes on to a message.
package check

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/smtp"
)

// The names of the steps, in their order.
const (
	StepSettings     = "settings"
	StepDNS          = "DNS"
	StepTCP          = "TCP"
	StepTLS          = "TLS"
	StepToken        = "token"
	StepScopes       = "audience and scopes"
	StepIdentity     = "identity"
	StepAuthenticate = "authenticate"
	StepSend         = "send to itself"
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

// Deps is what a check needs.
type Deps struct {
	Keeper     Keeper
	Transports map[string]provider.Transport
	Choose     func(provider.Way, *provider.Handover, map[string]provider.Transport) (provider.Transport, string, error)
	SMTP       smtp.Config
	Resolver   Resolver // nil: the system's
	Proxy      bool     // HTTP goes through a proxy, which looks up and connects by itself
}

// Options of one check.
type Options struct {
	NoSend bool // leave the message out
}

// stepWithin bounds a step.
const stepWithin = 45 * time.Second

// Run checks a mailbox. step, which may be nil, hears of every step as it ends.
func Run(ctx context.Context, d Deps, m mailgrant.Mailbox, o Options, step func(Step)) Report {
	if d.Resolver == nil {
		d.Resolver = net.DefaultResolver
	}
	r := &run{Deps: d, box: m, opts: o, tell: step, state: map[string]string{}, report: Report{Mailbox: m.ID, Address: m.Address, OK: true}}
	defer r.end()
	for _, s := range []struct {
		name  string
		needs []string
		do    func(context.Context) result
	}{
		{StepSettings, nil, r.settings},
		{StepDNS, []string{StepSettings}, r.dns},
		{StepTCP, []string{StepSettings, StepDNS}, r.tcp},
		{StepTLS, []string{StepSettings, StepTCP}, r.tls},
		{StepToken, []string{StepSettings}, r.token},
		{StepScopes, []string{StepToken}, r.scopes},
		{StepIdentity, []string{StepToken}, r.identity},
		{StepAuthenticate, []string{StepTLS, StepToken}, r.authenticate},
		{StepSend, []string{StepTLS, StepToken, StepAuthenticate}, r.send},
	} {
		r.step(ctx, s.name, s.needs, s.do)
	}
	return r.report
}

// A run is a check under way.
type run struct {
	Deps
	box    mailgrant.Mailbox
	opts   Options
	tell   func(Step)
	state  map[string]string
	report Report

	way       provider.Way
	transport provider.Transport
	host      string
	port      string
	tok       mailgrant.Token
	session   provider.Session
	message   *provider.Handover
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

func (r *run) step(ctx context.Context, name string, needs []string, do func(context.Context) result) {
	began := time.Now()
	s := Step{Name: name, State: Passed}
	switch broken := slices.IndexFunc(needs, func(n string) bool { return r.state[n] == Failed || r.state[n] == "" }); {
	case broken >= 0:
		s.State, s.Text = Skipped, "needs "+needs[broken]
	case ctx.Err() != nil:
		s.State, s.Text = Skipped, "the check was broken off"
	default:
		sctx, cancel := context.WithTimeout(ctx, stepWithin)
		r.settle(&s, guarded(sctx, do))
		cancel()
	}
	if s.State != Skipped || !strings.HasPrefix(s.Text, "needs ") {
		r.state[name] = s.State
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

// httpAPI says whether the chosen transport is an HTTP API.
func (r *run) httpAPI() bool { return r.transport.Name != smtp.Name }

// knock asks an HTTP API for nothing, to see whether it is there.
func (r *run) knock(ctx context.Context) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.apiURL(), nil)
	if err != nil {
		return nil, err
	}
	res, err := r.way.HTTP.Do(req)
	if err != nil {
		return nil, err
	}
	res.Body.Close()
	return res, nil
}

func (r *run) apiURL() string {
	if r.way.Settings.GraphURL != "" {
		return r.way.Settings.GraphURL
	}
	return r.way.Settings.GmailURL
}
