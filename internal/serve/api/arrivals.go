package api

import (
	"io"
	"slices"
	"strconv"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
	"github.com/mailgrant/mailgrant/internal/rfc5322"
	"github.com/mailgrant/mailgrant/internal/store"
)

// arrivalKinds are the events that an app may follow which only receives: those
// of its mailboxes.
var arrivalKinds = []string{"arrival.new", "arrival.quarantined", "arrival.acknowledged", "arrival.ignored", "submission.bounced",
	"reader.held", "reader.failing", "reader.resumed", "reader.after_failed"}

// readable are the mailboxes whose arrivals the caller may see; all when nil.
func readable(by mailgrant.Caller) []mailgrant.ID {
	if by.May(mailgrant.ScopeRead) {
		return nil
	}
	if by.App.Mailboxes == nil {
		return []mailgrant.ID{}
	}
	return by.App.Mailboxes
}

func mayReadMailbox(by mailgrant.Caller, mailbox mailgrant.ID) bool {
	l := readable(by)
	return l == nil || slices.Contains(l, mailbox)
}

func (c *call) listArrivals() error {
	limit, err := c.q.limit(pageMax)
	if err != nil {
		return err
	}
	after, err := c.cursor()
	if err != nil {
		return err
	}
	f := store.ArrivalFilter{Mailboxes: readable(c.by), Since: c.q.time("since"), Words: c.q.str("q"), Oldest: c.q.str("order") == "oldest", After: after, Limit: limit}
	if name := c.q.str("mailbox"); name != "" {
		m, err := c.mailbox(name)
		if err != nil {
			return err
		}
		if !mayReadMailbox(c.by, m.ID) {
			return store.Absent("mailbox", mailgrant.ID(name))
		}
		f.Mailboxes = []mailgrant.ID{m.ID}
	}
	for _, s := range c.q["state"] {
		f.States = append(f.States, mailgrant.ArrivalState(s))
	}
	l, next, err := c.Store.Arrivals(c.r.Context(), c.by.Org, f)
	if err != nil {
		return err
	}
	if l == nil {
		l = []mailgrant.Arrival{}
	}
	return c.reply(client.Page[mailgrant.Arrival]{Items: l, Next: c.next(next)})
}

// arrival finds the one that the address names, if the caller may see it.
func (c *call) arrival() (mailgrant.Arrival, error) {
	a, err := c.Store.Arrival(c.r.Context(), c.by.Org, mailgrant.ID(c.args[0]))
	if err == nil && !mayReadMailbox(c.by, a.Mailbox) {
		return mailgrant.Arrival{}, store.Absent("arrival", mailgrant.ID(c.args[0]))
	}
	return a, err
}

// shownMax bounds the text and the HTML of an answer; the raw message has all.
const shownMax = 1 << 20

func (c *call) getArrival() error {
	a, err := c.arrival()
	if err != nil {
		return err
	}
	out := client.FullArrival{Arrival: a}
	if a.Body {
		r, err := c.Inbox.Body(c.r.Context(), a.Org, a.ID)
		if err != nil {
			return err
		}
		defer r.Close()
		if out.Text, out.HTML, out.Cut, err = rfc5322.Texts(r, shownMax); err != nil {
			return err
		}
	}
	return c.reply(out)
}

func (c *call) getArrivalRaw() error {
	a, err := c.arrival()
	if err != nil {
		return err
	}
	r, err := c.Inbox.Body(c.r.Context(), a.Org, a.ID)
	if err != nil {
		return err
	}
	defer r.Close()
	c.foreign(string(a.ID) + ".eml")
	c.w.Header().Set("Content-Length", strconv.FormatInt(a.Size, 10))
	c.stream(messageType)
	_, err = io.Copy(c.slowly(c.w), r)
	return err
}

// foreign says of what follows that it comes from outside: it is to be saved, not
// shown, and may do nothing. R-ME3.
func (c *call) foreign(name string) {
	h := c.w.Header()
	h.Set("Content-Disposition", rfc5322.Disposition("attachment", name))
	h.Set("Content-Security-Policy", "sandbox; default-src 'none'")
}

func (c *call) getAttachment() error {
	a, err := c.arrival()
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(c.args[1])
	i := slices.IndexFunc(a.Parts, func(p mailgrant.Part) bool { return p.N == n })
	if err != nil || i < 0 {
		return mailgrant.Errorf(mailgrant.NotFound, err, "the arrival has no attachment %s", clip(c.args[1])).Fix("see what it has: GET /v1/arrivals/%s, or mailgrant arrival show %s", a.ID, a.ID)
	}
	r, err := c.Inbox.Body(c.r.Context(), a.Org, a.ID)
	if err != nil {
		return err
	}
	defer r.Close()
	c.foreign(a.Parts[i].Name)
	c.stream(octetType) // what it is said to be stands in the arrival: nothing is to be guessed or run. ME-05
	_, err = rfc5322.Part(r, n, c.slowly(c.w))
	return err
}

func (c *call) setArrival(s mailgrant.ArrivalState) error {
	if err := c.nothing(); err != nil {
		return err
	}
	a, err := c.arrival()
	if err != nil {
		return err
	}
	if a, err = c.Store.SetArrival(c.r.Context(), a.Org, a.ID, c.by.App.ID, s); err != nil {
		return err
	}
	return c.reply(a)
}

func (c *call) acknowledgeArrival() error { return c.setArrival(mailgrant.ArrivalAcknowledged) }
func (c *call) ignoreArrival() error      { return c.setArrival(mailgrant.ArrivalIgnored) }

func (c *call) readArrivalAgain() error {
	if err := c.nothing(); err != nil {
		return err
	}
	a, err := c.arrival()
	if err != nil {
		return err
	}
	if err := c.Inbox.ReadAgain(c.r.Context(), a.Org, a.ID); err != nil {
		return err
	}
	return c.done()
}

func (c *call) getReader() error {
	m, err := c.mailbox(c.args[0])
	if err != nil {
		return err
	}
	if !mayReadMailbox(c.by, m.ID) {
		return store.Absent("mailbox", mailgrant.ID(c.args[0]))
	}
	return c.reply(c.Inbox.Status(m))
}

// moveMailbox has a mailbox read by another protocol, or takes that back.
func (c *call) moveMailbox() error {
	var s client.MoveOrder
	if err := c.decode(&s); err != nil {
		return err
	}
	m, err := c.mailbox(c.args[0])
	if err != nil {
		return err
	}
	var r mailgrant.Move
	switch {
	case s.Back && (s.To != "" || s.DryRun):
		return mailgrant.Errorf(mailgrant.Invalid, nil, "a move is to be taken back, and another one made").Fix("ask for one of both").At("back")
	case s.Back:
		r, err = c.Inbox.Back(c.r.Context(), m)
	case s.To != "imap" && s.To != "graph" && s.To != "pop":
		return mailgrant.Errorf(mailgrant.Invalid, nil, "a mailbox cannot be read by %q", clip(s.To)).Fix("use one of: imap, graph, pop").At("to")
	default:
		r, err = c.Inbox.Move(c.r.Context(), m, s.To, s.DryRun)
	}
	if err != nil {
		return err
	}
	return c.reply(r)
}

// received keeps a caller who only receives to what it may follow.
func received(by mailgrant.Caller, f *store.EventFilter) error {
	f.Mailboxes = readable(by)
	if f.Mailboxes == nil {
		return nil
	}
	if len(f.Kinds) == 0 {
		f.Kinds = arrivalKinds
	}
	var kinds []string
	for _, k := range f.Kinds {
		was := len(kinds)
		for _, may := range arrivalKinds {
			if mailgrant.KindMatches(k, may) {
				kinds = append(kinds, may)
			}
		}
		if len(kinds) == was {
			return mailgrant.Errorf(mailgrant.Forbidden, nil, "a key that only receives may not follow events of the kind %q", clip(k)).
				Fix("use a key with the right read, or ask for kinds of arrivals only").At("kind")
		}
	}
	f.Kinds = kinds
	return nil
}
