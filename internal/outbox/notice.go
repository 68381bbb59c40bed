package outbox

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/rfc5322"
	"github.com/mailgrant/mailgrant/internal/store"
)

// noticed keeps notices to one per cause, mailbox and day.
type noticed struct {
	mu sync.Mutex
	at map[string]time.Time
}

func (n *noticed) first(key string, now time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if now.Sub(n.at[key]) < 24*time.Hour {
		return false
	}
	for k, at := range n.at {
		if now.Sub(at) >= 24*time.Hour {
			delete(n.at, k)
		}
	}
	n.at[key] = now
	return true
}

// forget lets a notice that could not be sent be sent at the next occasion.
func (n *noticed) forget(key string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.at, key)
}

// notice tells a person that a mailbox is held, by a mailbox that is not the
// held one. R164.
func (o *Outbox) notice(ctx context.Context, held mailgrant.Mailbox, f mailgrant.Finding) {
	key := string(held.ID) + f.Cause
	if o.NoticeTo == "" || !o.notices.first(key, o.now()) {
		return
	}
	by, err := o.other(ctx, held)
	if err != nil {
		o.notices.forget(key)
		o.Log.Error("nobody can be told of the held mailbox by mail", "mailbox", held.Address, "err", err)
		return
	}
	text := fmt.Sprintf("%s\r\n\r\nMailbox: %s\r\nWho can fix it: %s\r\nWhat to do: %s\r\n\r\nIts mail is kept and leaves by itself once this is mended.\r\n%s/docs/%s\r\n",
		f.Sentence, held.Address, f.Who, f.Remedy, strings.TrimSuffix(o.PublicURL, "/"), f.Link)
	msg := strings.Join([]string{"From: mailgrant <" + by.Address + ">", "To: <" + o.NoticeTo + ">",
		"Subject: " + held.Address + " cannot send: " + f.Title, "Auto-Submitted: auto-generated", "MIME-Version: 1.0",
		"Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: 8bit", "", text}, "\r\n")
	if err := o.inside(ctx, by, o.NoticeTo, []byte(msg)); err != nil {
		o.notices.forget(key)
		o.Log.Error("send a notice", "mailbox", held.Address, "err", err)
	}
}

// Connected tells a mailbox that it was connected, and to what its owner has said
// yes: one who was talked into it finds out. Where no other mailbox works, it
// writes to itself. OA-04.
func (o *Outbox) Connected(ctx context.Context, g mailgrant.Grant, organization string, rights []string) {
	by, err := o.other(ctx, mailgrant.Mailbox{Org: g.Org})
	if err != nil {
		var own []mailgrant.Mailbox
		if own, err = o.Store.MailboxesByGrant(ctx, g.Org, g.ID); err == nil && len(own) == 0 {
			return // there is none yet; the event says it
		}
		if err == nil {
			by = own[0]
		}
	}
	if err == nil {
		text := fmt.Sprintf("%s was connected to mailgrant at %s, for %s, by signing in as %s.\r\n\r\nmailgrant may now:\r\n- %s\r\n\r\n"+
			"If this was not you, or not meant, ask whoever runs mailgrant to disconnect it, and take the consent back at your provider.\r\n",
			g.Mailbox, o.PublicURL, organization, g.Subject.Address, strings.Join(rights, "\r\n- "))
		msg := strings.Join([]string{"From: mailgrant <" + by.Address + ">", "To: <" + g.Mailbox + ">",
			"Subject: Your mailbox was connected to mailgrant", "Auto-Submitted: auto-generated", "MIME-Version: 1.0",
			"Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: 8bit", "", text}, "\r\n")
		err = o.inside(ctx, by, g.Mailbox, []byte(msg))
	}
	if err != nil {
		o.Log.Error("a mailbox cannot be told that it was connected", "mailbox", g.Mailbox, "err", err)
	}
}

// other is a working mailbox that is not m: System first, then Global.
func (o *Outbox) other(ctx context.Context, m mailgrant.Mailbox) (mailgrant.Mailbox, error) {
	for _, role := range []mailgrant.MailboxRole{mailgrant.RoleSystem, mailgrant.RoleGlobal} {
		l, err := o.Store.MailboxesByRole(ctx, m.Org, role)
		if err != nil {
			return m, err
		}
		for _, b := range l {
			if b.ID != m.ID && b.State == mailgrant.MailboxActive {
				return b, nil
			}
		}
	}
	return m, mailgrant.Errorf(mailgrant.NoRoute, nil, "no other mailbox works").Fix("connect a System mailbox: mailgrant mailbox add noreply@… --role system")
}

// inside sends a message of our own through a mailbox.
func (o *Outbox) inside(ctx context.Context, by mailgrant.Mailbox, to string, msg []byte) error {
	d := o.Draft(ctx, by.Org)
	defer d.Discard()
	if _, err := d.Write(msg); err != nil {
		return err
	}
	_, err := o.Accept(ctx, insider(by), ownEnvelope(by, to), d)
	return err
}

func insider(by mailgrant.Mailbox) mailgrant.Caller {
	return mailgrant.Caller{Org: by.Org, Operator: true, Door: "inside"}
}

func ownEnvelope(by mailgrant.Mailbox, to string) Envelope {
	class := mailgrant.ClassUser
	if by.Role == mailgrant.RoleSystem {
		class = mailgrant.ClassSystem
	}
	return Envelope{From: by.Address, Recipients: []string{to}, Class: class, Named: by.ID}
}

// bounce makes what tells the envelope sender that recipients did not get the
// message, where a door has no other way to say so; nil where nobody is to be
// told. Never for a bounce, or for our own messages. RFC 3464; SM-17.
func (l *lane) bounce(r result) (*store.Acceptance, error) {
	sub := r.it.sub
	if sub.Door != "smtp" || sub.EnvelopeFrom == "" {
		return nil, nil
	}
	ctx := l.o.run
	first, err := l.o.bodies().Open(ctx, sub.Org, sub.ID, sub.Size)
	if err != nil && !errors.Is(err, mailgrant.NotFound) { // swept away: what is left to say is said
		return nil, err
	}
	header := rfc5322.Block(first.First())
	if h, err := rfc5322.ParseHeader(header); err == nil && h.AutoSubmitted != "" && !strings.EqualFold(h.AutoSubmitted, "no") {
		return nil, nil // nobody reads what an automaton is told
	}
	by, err := l.bounceBy(ctx)
	if err != nil {
		return nil, err
	}
	d := l.o.Draft(ctx, by.Org)
	defer d.Release()
	if _, err := d.Write(l.o.report(by, sub, r.Attempt, r.bounce, header)); err != nil {
		return nil, err
	}
	h, err := rfc5322.ParseHeader(rfc5322.Block(d.First))
	if err != nil {
		return nil, err
	}
	e := ownEnvelope(by, sub.EnvelopeFrom)
	own, m, err := l.o.submission(ctx, insider(by), e, d, h)
	if err != nil {
		return nil, err
	}
	a, _, err := l.o.acceptance(e, d, h, &own)
	if err != nil {
		return nil, err
	}
	_, mine := l.o.Owner.Fence(m.ID)
	a.WakeOthers = !mine
	return &a, nil
}

// bounceBy is the mailbox that carries a bounce: System, else Global, else the
// lane's own where it works.
func (l *lane) bounceBy(ctx context.Context) (mailgrant.Mailbox, error) {
	l.mu.Lock()
	box, usable := l.box, l.hold == nil && l.wayErr == nil && !l.off
	l.mu.Unlock()
	if usable && box.Role == mailgrant.RoleSystem {
		return box, nil
	}
	b, err := l.o.other(ctx, box)
	switch {
	case err == nil:
		return b, nil
	case usable && !mailgrant.AsError(err).Code.Temporary():
		return box, nil
	}
	return b, err
}
