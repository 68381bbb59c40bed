package sim

import (
	"context"
	"crypto/tls"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// The exchange part is the submission service: SMTP on the wire, and the
// limits that all ways of sending share.
type exchange struct {
	sim *Sim

	mu        sync.Mutex
	open      map[string][]*smtpSession // authenticated, by mailbox, oldest first
	sent      map[string][]time.Time    // messages of the last minute
	daily     map[string][]recipients   // by mailbox
	external  map[string][]recipients   // by tenant
	penalties map[string]penalty        // by mailbox
}

// recipients is how many were addressed at a moment.
type recipients struct {
	at time.Time
	n  int
}

// A penalty counts refusals of one kind in a row.
type penalty struct {
	kind int // last digit of 5.2.25x
	n    int
}

func newExchange(s *Sim) *exchange {
	return &exchange{sim: s,
		open:      map[string][]*smtpSession{},
		sent:      map[string][]time.Time{},
		daily:     map[string][]recipients{},
		external:  map[string][]recipients{},
		penalties: map[string]penalty{},
	}
}

// serve takes connections until the listener closes, then ends those that are
// open and waits for them.
func (x *exchange) serve(l net.Listener, implicitTLS bool) {
	var open sync.WaitGroup
	defer open.Wait()
	for {
		conn, ok := x.sim.next(l, "smtp")
		if !ok {
			return
		}
		open.Go(func() { x.accept(conn, implicitTLS) })
	}
}

func (x *exchange) accept(conn net.Conn, implicitTLS bool) {
	stop := context.AfterFunc(x.sim.ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	x.sim.counts.add("smtp.connections")
	if f := x.sim.faults.take("smtp.connect"); f != nil && f.Do != DoSlow {
		if tcp, ok := conn.(*net.TCPConn); ok {
			tcp.SetLinger(0) // a reset, as near to a refused connection as it gets
		}
		return
	}
	var state *tls.ConnectionState
	if implicitTLS {
		conn = tls.Server(conn, x.sim.tls)
		if conn.(*tls.Conn).HandshakeContext(x.sim.ctx) != nil {
			return
		}
		s := conn.(*tls.Conn).ConnectionState()
		state = &s
	}
	newSMTPSession(x, conn, state).run()
}

// enter counts a connection of a mailbox from its login on.
func (x *exchange) enter(mailbox string, c *smtpSession) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.open[mailbox] = append(x.open[mailbox], c)
}

func (x *exchange) leave(mailbox string, c *smtpSession) {
	x.mu.Lock()
	defer x.mu.Unlock()
	left := slices.DeleteFunc(x.open[mailbox], func(o *smtpSession) bool { return o == c })
	if x.open[mailbox] = left; len(left) == 0 {
		delete(x.open, mailbox)
	}
}

// crowded says whether c is one connection of its mailbox too many.
func (x *exchange) crowded(mailbox string, c *smtpSession) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return over(slices.Index(x.open[mailbox], c)+1, x.sim.world.now.Load().Knobs.Connections)
}

// pace waits until a mailbox may send one more message in this minute. More
// than that is delayed, never refused.
func (x *exchange) pace(ctx context.Context, mailbox string) error {
	limit := x.sim.world.now.Load().Knobs.PerMinute
	if limit < 0 {
		return nil
	}
	x.mu.Lock()
	now := x.sim.Now()
	recent := slices.DeleteFunc(x.sent[mailbox], func(t time.Time) bool { return now.Sub(t) >= time.Minute })
	start := now
	if len(recent) >= limit {
		start = recent[len(recent)-limit].Add(time.Minute)
		x.sim.counts.add("smtp.paced")
	}
	x.sent[mailbox] = append(recent, start)
	x.mu.Unlock()
	return x.sim.clock.wait(ctx, start)
}

// spend books recipients of a mailbox and its tenant against the limits of a
// day. It answers with the reply of a limit that is used up, or "".
func (x *exchange) spend(t *Tenant, mailbox string, to []string) string {
	k := x.sim.world.now.Load().Knobs
	outside := 0
	for _, a := range to {
		if !t.hasDomain(domainOf(a)) {
			outside++
		}
	}
	limit := k.TenantExternal
	if limit == 0 {
		limit = externalLimit(t)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	now := x.sim.Now()
	if over(spent(x.daily, mailbox, now)+len(to), k.RecipientsPerDay) {
		return replyQuotaDay
	}
	if outside > 0 && over(spent(x.external, t.ID, now)+outside, limit) {
		if t.Trial {
			return replyTERRLTrial
		}
		return replyTERRL
	}
	x.daily[mailbox] = append(x.daily[mailbox], recipients{now, len(to)})
	if outside > 0 {
		x.external[t.ID] = append(x.external[t.ID], recipients{now, outside})
	}
	return ""
}

// spent forgets what is older than a day and adds up the rest.
func spent(book map[string][]recipients, key string, now time.Time) (n int) {
	book[key] = slices.DeleteFunc(book[key], func(r recipients) bool { return now.Sub(r.at) >= 24*time.Hour })
	for _, r := range book[key] {
		n += r.n
	}
	return n
}

// The kinds of faults that are punished when they go on, by the last digit.
const (
	penaltyFull = iota + 1
	penaltySendAs
	penaltyLicence
	penaltyTooMany
	penaltyInvalid
)

var penaltyWords = map[int]string{
	penaltyFull:    "mailbox full",
	penaltySendAs:  "send as denied",
	penaltyLicence: "invalid license",
	penaltyTooMany: "too many recipients",
	penaltyInvalid: "invalid recipients",
}

// punish counts a refusal, and replaces its reply once there were too many.
func (x *exchange) punish(mailbox string, kind int, reply string) string {
	limit := x.sim.world.now.Load().Knobs.PenaltyAfter
	x.mu.Lock()
	defer x.mu.Unlock()
	p := x.penalties[mailbox]
	if p.kind != kind {
		p = penalty{kind: kind}
	}
	p.n++
	x.penalties[mailbox] = p
	if limit > 0 && p.n > limit {
		return x.reply(replyThrottled, "{n}", string(rune('0'+kind)), "{what}", penaltyWords[kind])
	}
	return reply
}

func (x *exchange) forgive(mailbox string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.penalties, mailbox)
}

// switchedOff is the reply of the SMTP AUTH switch that stands in the way: the
// mailbox's if it is set, the tenant's otherwise.
func switchedOff(t *Tenant, m *Mailbox) string {
	switch {
	case m.SMTPAuthDisabled != nil && *m.SMTPAuthDisabled:
		return replyMailboxOff
	case m.SMTPAuthDisabled == nil && t.SMTPAuthDisabled:
		return replyTenantOff
	}
	return ""
}

// mailbox finds the mailbox of an address that mail can be sent from: it
// exists and its user, if any, has a licence.
func (v *view) mailbox(address string) (*Tenant, *Mailbox) {
	at, ok := v.mailboxes[strings.ToLower(address)]
	if !ok {
		at, ok = v.mailboxes[withoutPlus(strings.ToLower(address))]
	}
	if !ok || at.item.SoftDeleted || at.tenant.NoExchange {
		return nil, nil
	}
	if u, ok := v.users[strings.ToLower(at.item.Address)]; ok && u.item.Unlicensed && !at.item.Shared {
		return nil, nil
	}
	return at.tenant, at.item
}
