package api

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
	"github.com/mailgrant/mailgrant/docs"
	"github.com/mailgrant/mailgrant/internal/diagnose"
)

// getHealth says how the installation does: to anybody whether it does, to who
// may read the organization how its mailboxes, grants and queue do. R165.
func (c *call) getHealth() error {
	h := c.Health(c.r.Context())
	if h.OK && c.can(mailgrant.ScopeRead) {
		if err := c.addHealth(&h); err != nil {
			return err
		}
	}
	if !c.by.Operator {
		h.Doors = nil
	}
	status := http.StatusOK
	if !h.OK {
		status = http.StatusServiceUnavailable
	}
	var v any = h
	if !c.can(mailgrant.ScopeRead) {
		v = struct {
			OK bool `json:"ok"`
		}{h.OK}
	}
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	c.send(status, jsonType, append(b, '\n'))
	return nil
}

// addHealth adds the organization's part; for an operator who names none, that
// of all.
func (c *call) addHealth(h *client.Health) error {
	orgs := []mailgrant.ID{c.by.Org}
	if c.by.Org == "" {
		all, err := c.Store.Organizations(c.r.Context())
		if err != nil {
			return err
		}
		orgs = nil
		for _, o := range all {
			orgs = append(orgs, o.ID)
		}
	}
	h.Grants = map[string]int{}
	for _, org := range orgs {
		if err := c.healthOf(org, h); err != nil {
			return err
		}
	}
	return nil
}

func (c *call) healthOf(org mailgrant.ID, h *client.Health) error {
	ctx := c.r.Context()
	boxes, err := c.Store.Mailboxes(ctx, org)
	if err != nil {
		return err
	}
	counts, err := c.Store.QueueAfter(ctx, org, "", 0)
	if err != nil {
		return err
	}
	waiting := map[mailgrant.ID]int64{}
	for _, n := range counts {
		waiting[n.Mailbox] = n.Waiting
		h.Queue += n.Waiting
	}
	for _, m := range boxes {
		e := client.MailboxHealth{ID: m.ID, Address: m.Address, State: m.State, GrantState: m.GrantState, Waiting: waiting[m.ID], LastSuccess: m.LastSuccess}
		if m.Hold != nil {
			e.Cause, e.HeldSince = m.Hold.Finding.Cause, m.Hold.Since
		}
		if m.State == mailgrant.MailboxHeld {
			addHeld(h, e.HeldSince)
		}
		h.Mailboxes = append(h.Mailboxes, e)
	}
	grants, err := c.Store.GrantStates(ctx, org)
	for state, n := range grants {
		h.Grants[string(state)] += n
	}
	return err
}

// addHeld counts a held mailbox. What one provider refuses to one mailbox is no
// reason for a load balancer to send people elsewhere: OK stays.
func addHeld(h *client.Health, since time.Time) {
	h.Held++
	if !since.IsZero() && (h.HeldSince.IsZero() || since.Before(h.HeldSince)) {
		h.HeldSince = since
	}
}

const (
	failureMax = 256 << 10 // bytes of one failure to be explained
	batchMax   = 32 << 20  // of many
)

// explain says what a text means; many of them as lines.
func (c *call) explain() error {
	kind, err := c.contentType(jsonType, ndjsonType)
	if err != nil {
		return err
	}
	if kind == ndjsonType {
		return c.explainLines()
	}
	var f client.Failure
	if err := c.decode(&f); err != nil {
		return err
	}
	if f.Text == "" {
		return mailgrant.Errorf(mailgrant.Invalid, nil, "there is no text to explain").Fix("send what the other side said, as it came").At("text")
	}
	if len(f.Text) > failureMax {
		return tooLarge(failureMax)
	}
	return c.reply(diagnose.Explain(diagnose.Failure{Text: f.Text, Protocol: f.Protocol, Context: f.Context}))
}

// explainLines answers each line with one, in order.
func (c *call) explainLines() error {
	b, err := c.open(batchMax, false)
	if err != nil {
		return err
	}
	defer b.Close()
	c.unheard(b.rc.EnableFullDuplex()) // answers go out while lines come in
	in := bufio.NewScanner(b)
	in.Buffer(make([]byte, 0, 64<<10), failureMax)
	out := json.NewEncoder(c.slowly(c.w))
	for n := 1; in.Scan(); n++ {
		if len(in.Bytes()) == 0 {
			continue
		}
		var f client.Failure
		if err := decodeBytes(in.Bytes(), &f); err != nil {
			return mailgrant.AsError(err).At(fmt.Sprintf("line %d", n))
		}
		if !c.begun {
			c.stream(ndjsonType)
		}
		found := diagnose.Explain(diagnose.Failure{Text: f.Text, Protocol: f.Protocol, Context: f.Context})
		if err := out.Encode(client.Explained{ID: f.ID, Cause: found.Cause, Title: found.Title, Remedy: found.Remedy, Who: found.Who, Retry: found.Retry, Confidence: found.Confidence}); err != nil {
			return err
		}
	}
	switch err := in.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return tooLarge(failureMax)
	case err != nil:
		return bodyError(err)
	case !c.begun:
		c.stream(ndjsonType)
	}
	return nil
}

func shownCause(k diagnose.Cause) client.Cause {
	out := client.Cause{ID: k.ID, Title: k.Title, Sentence: k.Sentence, Remedy: k.Remedy, Who: k.Who, Retry: k.Retry, Meanwhile: k.Meanwhile, Codes: k.Codes, Links: k.Links, Related: k.Related, Link: "errors/" + k.ID}
	for _, s := range k.Steps {
		out.Steps = append(out.Steps, mailgrant.Step{Place: s.Place, Text: s.Text, Command: s.Command})
	}
	return out
}

func (c *call) listCauses() error {
	var list []client.Cause
	for _, k := range append(diagnose.Catalogue(), diagnose.Refusals()...) {
		if s := c.q.str("search"); s == "" || k.Matches(s) {
			list = append(list, shownCause(k))
		}
	}
	if list == nil {
		list = []client.Cause{}
	}
	return c.reply(client.Page[client.Cause]{Items: list})
}

func (c *call) getCause() error {
	k, ok := diagnose.Lookup(c.args[0])
	if !ok {
		return mailgrant.Errorf(mailgrant.NotFound, nil, "there is no such cause").Fix("list them all: GET /v1/causes")
	}
	return c.reply(shownCause(k))
}

func (c *call) getKeyset() error {
	s, err := c.KeyStatus(c.r.Context())
	if err != nil {
		return err
	}
	return c.reply(s)
}

func (c *call) rotateKeyset() error {
	if err := c.nothing(); err != nil {
		return err
	}
	s, err := c.RotateKey(c.r.Context())
	if err != nil {
		return err
	}
	return c.reply(s)
}

// backup writes everything. An answer that breaks off is cut, so that nobody takes
// it for whole.
func (c *call) backup() error {
	if err := c.nothing(); err != nil {
		return err
	}
	return c.Backup(c.r.Context(), &starting{c: c, w: c.slowly(c.w)})
}

// starting begins the answer with its first bytes: until then an error can still
// be told.
type starting struct {
	c *call
	w io.Writer
}

// Write implements io.Writer.
func (s *starting) Write(p []byte) (int, error) {
	if !s.c.begun {
		s.c.w.Header().Set("Content-Disposition", `attachment; filename="mailgrant.backup"`)
		s.c.stream("application/octet-stream")
	}
	return s.w.Write(p)
}

func (c *call) getOpenAPI() error {
	c.send(http.StatusOK, "application/yaml", docs.OpenAPI)
	return nil
}

func (c *call) getOpenAPIJSON() error {
	c.send(http.StatusOK, jsonType, openAPIJSON())
	return nil
}
