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
	n.at[key] = now
	return true
}

// notice tells a person that a mailbox is held, by a mailbox that is not the
// held one. R164.
func (o *Outbox) notice(ctx context.Context, held mailgrant.Mailbox, f mailgrant.Finding) {
	if o.NoticeTo == "" || !o.notices.first(string(held.ID)+f.Cause, o.now()) {
		return
	}
	by, err := o.other(ctx, held)
	if err != nil {
		o.Log.Error("nobody can be told of the held mailbox by mail", "mailbox", held.Address, "err", err)
		return
	}
	text := fmt.Sprintf("%s\r\n\r\nMailbox: %s\r\nWho can fix it: %s\r\nWhat to do: %s\r\n\r\nIts mail is kept and leaves by itself once this is mended.\r\n%s/docs/%s\r\n",
		f.Sentence, held.Address, f.Who, f.Remedy, strings.TrimSuffix(o.PublicURL, "/"), f.Link)
	msg := strings.Join([]string{"From: mailgrant <" + by.Address + ">", "To: <" + o.NoticeTo + ">",
		"Subject: " + held.Address + " cannot send: " + f.Title, "Auto-Submitted: auto-generated", "MIME-Version: 1.0",
		"Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: 8bit", "", text}, "\r\n")
	if err := o.inside(ctx, by, o.NoticeTo, []byte(msg)); err != nil {
		o.Log.Error("send a notice", "mailbox", held.Address, "err", err)
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
	return m, errors.New("no other mailbox works")
}

// inside sends a message of our own through a mailbox.
func (o *Outbox) inside(ctx context.Context, by mailgrant.Mailbox, to string, msg []byte) error {
	d := o.Draft(ctx, by.Org)
	defer d.Discard()
	if _, err := d.Write(msg); err != nil {
		return err
	}
	class := mailgrant.ClassUser
	if by.Role == mailgrant.RoleSystem {
		class = mailgrant.ClassSystem
	}
	c := mailgrant.Caller{Org: by.Org, Operator: true, Door: "inside"}
	_, err := o.Accept(ctx, c, Envelope{From: by.Address, Recipients: []string{to}, Class: class, Named: by.ID}, d)
	return err
}

// bounce tells the envelope sender that recipients did not get the message,
// where a door has no other way to say so. Never for a bounce, or for our own
// messages. RFC 3464; SM-17.
func (l *lane) bounce(sub mailgrant.Submission, a mailgrant.Attempt, recipients []string) {
	if sub.Door != "smtp" || sub.EnvelopeFrom == "" {
		return
	}
	l.mu.Lock()
	box, held := l.box, l.hold != nil
	l.start(func() {
		ctx := l.o.run
		by := box
		if held || box.Role != mailgrant.RoleSystem {
			if b, err := l.o.other(ctx, box); err == nil {
				by = b
			} else if held {
				l.o.Log.Error("no mailbox can carry a bounce", "submission", sub.ID)
				return
			}
		}
		head, err := l.o.Body(ctx, sub.Org, sub.ID)
		if err != nil {
			l.o.Log.Error("read the header for a bounce", "submission", sub.ID, "err", err)
			return
		}
		r := head.(*chunkReader)
		header := headerBlock(r.left)
		if h, err := rfc5322.ParseHeader(header); err == nil && h.AutoSubmitted != "" && !strings.EqualFold(h.AutoSubmitted, "no") {
			return // nobody reads what an automaton is told
		}
		msg := l.o.report(by, sub, a, recipients, header)
		if err := l.o.inside(ctx, by, sub.EnvelopeFrom, msg); err != nil {
			l.o.Log.Error("send a bounce", "submission", sub.ID, "err", err)
		}
	})
	l.mu.Unlock()
}
