// Package api is the REST door, /v1.
//
//	request ─▶ router ─▶ who ─▶ scope, organization ─▶ query, body ─▶ do ─▶ answer
//	             │404,405  │401   │403, 404              │400, 422
//
// Every route stands in one table (table.go): its address, who may use it, what
// goes in and what comes out. The router, the checks in front of every handler,
// docs/openapi.yaml and the test that walks all routes with foreign ids are made
// of that table. The types of the wire are those of package client.
//
// The door decides nothing: a handler turns a request into one call and the
// answer back.
package api

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
	"github.com/mailgrant/mailgrant/internal/access"
	"github.com/mailgrant/mailgrant/internal/check"
	"github.com/mailgrant/mailgrant/internal/grant"
	"github.com/mailgrant/mailgrant/internal/inbox"
	"github.com/mailgrant/mailgrant/internal/outbox"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/route"
	"github.com/mailgrant/mailgrant/internal/store"
	"github.com/mailgrant/mailgrant/internal/webhook"
)

// Config is what the door needs.
type Config struct {
	Store     *store.Store
	Access    *access.Access
	Outbox    *outbox.Outbox
	Inbox     *inbox.Inbox
	Router    *route.Router
	Mailboxes *route.Mailboxes
	Keeper    *grant.Keeper
	Webhooks  *webhook.Teller

	// Check tests a mailbox; step hears of every step as it ends.
	Check  func(ctx context.Context, m mailgrant.Mailbox, o check.Options, step func(check.Step)) check.Report
	Finder provider.Finder

	// Backup writes everything, sealed, as it stands now.
	Backup    func(ctx context.Context, w io.Writer) error
	KeyStatus func(ctx context.Context) (client.KeyStatus, error)
	RotateKey func(ctx context.Context) (client.KeyStatus, error)

	// Health is how the process does; mailboxes, grants and queue are added here.
	Health func(ctx context.Context) client.Health

	PublicURL      string
	Version        string
	TrustedProxies []netip.Prefix // may say where a request comes from
	Log            *slog.Logger   // nil: none

	MessageBytes int64         // limit of one message
	Recipients   int           // limit of one message
	KeepArrivals time.Duration // how long received mail is kept; 0 for ever
}

// An API serves /v1. It is safe for concurrent use.
type API struct {
	Config
	routes  *node
	memory  *semaphore.Weighted // of large JSON bodies
	checks  chan struct{}       // mailboxes being tested
	streams streams
	stop    chan struct{}
	stopped sync.Once
	tokens  permissions
	within  time.Duration // how long a small body may take
}

// New makes the door. It costs next to nothing: the OpenAPI document is data.
func New(c Config) *API {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.PublicURL = strings.TrimSuffix(c.PublicURL, "/")
	a := &API{Config: c, routes: tree(table()), checks: make(chan struct{}, checksAtOnce), stop: make(chan struct{}), within: bodyWithin}
	a.memory = semaphore.NewWeighted(max(memoryMin, 2*a.jsonMax()))
	return a
}

// ServeHTTP is the door for keys.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.serve(w, r, false) }

// Operator is the same door for whoever may reach the socket of this machine: no
// key is needed and everything allowed. The organization is named in the header
// Mailgrant-Organization, or the only one.
func (a *API) Operator() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { a.serve(w, r, true) })
}

// Stop ends the streams of events: nothing else would before their clients do.
func (a *API) Stop() { a.stopped.Do(func() { close(a.stop) }) }

// A call is one request under way.
type call struct {
	*API
	w     http.ResponseWriter
	r     *http.Request
	route *endpoint
	by    mailgrant.Caller // Org is "" where the route needs none, or nobody is known
	trace mailgrant.ID
	args  [maxArgs]string // the variable parts of the path
	q     query
	begun bool // the answer has begun
	timed bool // the answer has a deadline
}

func (a *API) serve(w http.ResponseWriter, r *http.Request, operator bool) {
	c := &call{API: a, w: w, r: r, trace: mailgrant.NewID(mailgrant.PrefixTrace)}
	h := w.Header()
	h["Mailgrant-Trace"] = []string{string(c.trace)}
	h["Cache-Control"] = noStore
	h["X-Content-Type-Options"] = noSniff
	defer c.caught()
	defer c.untimed()
	if r.ContentLength != 0 {
		c.deadline(http.NewResponseController(w), time.Now().Add(a.within))
	}
	if err := c.run(operator); err != nil {
		c.fail(err)
	}
}

var noStore, noSniff = []string{"no-store"}, []string{"nosniff"}

// caught turns a panic into an answer without its inside. AP-12.
func (c *call) caught() {
	p := recover()
	if p == nil {
		return
	}
	if p == http.ErrAbortHandler { // an answer that is broken off on purpose
		panic(p)
	}
	c.Log.Error("a request failed inside", "trace", c.trace, "route", c.name(), "panic", p, "stack", stack())
	if c.begun {
		panic(http.ErrAbortHandler)
	}
	c.problem(mailgrant.AsError(errPanic), http.StatusInternalServerError)
}

func (c *call) run(operator bool) error {
	if err := c.find(); err != nil {
		return err
	}
	if err := c.identify(operator); err != nil {
		return err
	}
	if err := c.allowed(); err != nil {
		return err
	}
	if err := c.organization(); err != nil {
		return err
	}
	if err := c.parseQuery(); err != nil {
		return err
	}
	return c.route.do(c)
}

func (c *call) name() string {
	if c.route == nil {
		return ""
	}
	return c.route.id
}
