package microsoft

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/diagnose"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/wire"
)

// An api is Graph for one mailbox, for reading.
type api struct {
	way      provider.Way
	root     string // "https://graph.microsoft.com/v1.0"
	base     string // with "/me" or "/users/…"
	resource string
}

func newAPI(w provider.Way) (*api, error) {
	if w.Settings.GraphURL == "" || w.HTTP == nil {
		return nil, mailgrant.Errorf(mailgrant.Misset, nil, "the provider of %s has no Graph address set", w.Mailbox.Address).
			Fix("set graph_url on its registration, or let the mailbox be read by IMAP")
	}
	resource := w.Settings.Resources[mailgrant.CanAPIRead]
	if resource == "" {
		return nil, mailgrant.Errorf(mailgrant.Misset, nil, "the provider of %s does not say whose token opens its API for reading", w.Mailbox.Address).
			Fix("set resources.api_read on its registration, or let the mailbox be read by IMAP")
	}
	return &api{way: w, root: root(w), base: base(w), resource: resource}, nil
}

// preferID asks for ids that stay when a message moves. Every request must.
const preferID = `IdType="ImmutableId"`

// call is a request to Graph.
func (a *api) call(step, method, at string) wire.Call {
	return wire.Call{Way: a.way, Resource: a.resource, Step: step, Method: method, URL: at, Header: http.Header{"Prefer": {preferID}}}
}

// do makes a call that must end in one of these statuses, and reads the answer
// into v unless that is nil. The answer comes back whenever there was one.
func (a *api) do(ctx context.Context, c wire.Call, v any, want ...int) (*wire.Answer, error) {
	ans, err := c.Do(ctx)
	if err != nil {
		return nil, a.broken(ctx, c, err)
	}
	for _, s := range want {
		if ans.Status != s {
			continue
		}
		if v != nil && json.Unmarshal(ans.Body, v) != nil {
			return ans, a.strange(c, "its answer cannot be read")
		}
		return ans, nil
	}
	return ans, a.refused(c, ans)
}

// withJSON puts v into a call.
func withJSON(c wire.Call, v any) wire.Call {
	c.Type = "application/json"
	c.Body, c.Size = wire.JSON(v)
	return c
}

// refused makes an error of an answer that is no success.
func (a *api) refused(c wire.Call, ans *wire.Answer) error {
	f := c.Explain(ans)
	f.RetryAfter = max(f.RetryAfter, wire.RetryAfter(ans.Header, time.Now()))
	return wire.Error(f, nil, "Graph refuses %s for %s: HTTP %d", verb(c), a.way.Mailbox.Address, ans.Status)
}

// broken makes an error of a call without an answer.
func (a *api) broken(ctx context.Context, c wire.Call, err error) error {
	var e *mailgrant.Error
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &e):
		return e
	}
	f := diagnose.Explain(diagnose.Failure{Text: err.Error(), Protocol: "network", Err: err, Context: map[string]any{"url": c.URL, "step": c.Step, "mailbox": a.way.Mailbox.Address}})
	return wire.Error(f, err, "Graph did not answer %s for %s", verb(c), a.way.Mailbox.Address)
}

// strange makes an error of an answer that is not Graph's.
func (a *api) strange(c wire.Call, why string) error {
	return wire.Error(mailgrant.Finding{Cause: diagnose.Unknown, Title: "Answer not understood", Sentence: "What answered in Graph's place is not understood: " + why + ".",
		Remedy: "See whether the registration's graph_url is that of Microsoft Graph, and whether something on the way changes what it says.",
		Who:    mailgrant.WhoOperator, Retry: mailgrant.RetryLater}, nil, "Graph's answer to %s for %s is not understood: %s", verb(c), a.way.Mailbox.Address, why)
}

// verb is what a call was for, in a word.
func verb(c wire.Call) string { return strings.TrimPrefix(c.Step, "graph-") }

// ours says whether a link leads to where our token may go: the same scheme, host
// and port as Graph's own address. R-OA7.
func (a *api) ours(link string) bool {
	u, err := url.Parse(link)
	own, oerr := url.Parse(a.root)
	return err == nil && oerr == nil && u.User == nil && u.Scheme == own.Scheme && strings.EqualFold(u.Host, own.Host) && u.Opaque == ""
}

// most reads a body and says when there is too much of it.
type most struct {
	r    io.Reader
	left int64
	err  error
}

func (m *most) Read(p []byte) (int, error) {
	if m.err != nil {
		return 0, m.err
	}
	if int64(len(p)) > m.left+1 {
		p = p[:m.left+1]
	}
	n, err := m.r.Read(p)
	if m.left -= int64(n); m.left < 0 {
		n, err = n+int(m.left), provider.ErrTooLarge
	}
	m.err = err
	return n, err
}

// query writes a query as Graph likes it: "$" as it is, a blank as %20.
func query(pairs ...string) string {
	var b strings.Builder
	for i := 0; i+1 < len(pairs); i += 2 {
		b.WriteString(map[bool]string{true: "?", false: "&"}[i == 0])
		b.WriteString(pairs[i] + "=" + strings.ReplaceAll(url.QueryEscape(pairs[i+1]), "+", "%20"))
	}
	return b.String()
}
