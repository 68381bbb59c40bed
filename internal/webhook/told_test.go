package webhook_test

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/store"
)

// arrive keeps an arrival with its event, as an inbox does.
func (r *rig) arrive(mailbox mailgrant.ID, n int) mailgrant.ID {
	r.t.Helper()
	ctx := r.t.Context()
	from, err := r.store.Position(ctx, r.org, mailbox)
	must(r.t, err)
	a := mailgrant.Arrival{ID: mailgrant.NewID(mailgrant.PrefixArrival), Org: r.org, Mailbox: mailbox, State: mailgrant.ArrivalNew, RemoteID: fmt.Sprint(n), NoticedAt: time.Now().UTC()}
	_, err = r.store.Collect(ctx, store.Page{Org: r.org, Mailbox: mailbox, From: from, To: store.Position{Protocol: "imap", Cursor: fmt.Sprint(n)}, Messages: []store.Collected{{
		Arrival: a, Loose: []byte(a.ID), Exact: []byte(a.ID),
		Events: []mailgrant.Event{{Org: r.org, Kind: "arrival.new", Subject: a.ID, Mailbox: mailbox, Data: []byte(`{"subject":"Case 17"}`)}}}}})
	must(r.t, err)
	return a.ID
}

func (r *rig) state(arrival mailgrant.ID) mailgrant.ArrivalState {
	r.t.Helper()
	a, err := r.store.Arrival(r.t.Context(), r.org, arrival)
	must(r.t, err)
	return a.State
}

// An arrival is delivered when all webhooks that want it have it, and new as long
// as nobody wants it.
func TestArrivalIsDeliveredWhenAllHaveIt(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		box := mailgrant.Mailbox{ID: mailgrant.NewID(mailgrant.PrefixMailbox), Org: r.org, Address: "kim@contoso.example", State: mailgrant.MailboxActive}
		must(t, r.store.CreateMailbox(t.Context(), box))
		first := r.arrive(box.ID, 1)
		settle(time.Minute)
		if s := r.state(first); s != mailgrant.ArrivalNew {
			t.Errorf("with no webhook it is %s", s)
		}
		r.hook("a")
		second := r.arrive(box.ID, 2)
		settle(time.Minute)
		if s := r.state(second); s != mailgrant.ArrivalDelivered {
			t.Errorf("with one webhook it is %s", s)
		}
		if g := r.far.list(); len(g) != 1 || string(g[0].event.Data) != `{"subject":"Case 17"}` || g[0].event.Subject != second {
			t.Errorf("told: %+v", g)
		}
		down := true
		r.far.answer = func(g told) (int, http.Header, error) {
			if down && g.host == "b" {
				return 500, nil, nil
			}
			return 200, nil, nil
		}
		b := r.hook("b")
		r.hook("c", func(w *mailgrant.Webhook) { w.Kinds = []string{"submission.*"} })
		third := r.arrive(box.ID, 3)
		settle(time.Minute)
		if s := r.state(third); s != mailgrant.ArrivalNew {
			t.Errorf("with one of two it is %s", s)
		}
		r.far.set(func(*far) { down = false })
		settle(time.Hour)
		if s := r.state(third); s != mailgrant.ArrivalDelivered {
			t.Errorf("when both have it, it is %s", s)
		}
		r.far.set(func(*far) { down = true })
		b.State = mailgrant.WebhookDisabled
		_, err := r.teller.Update(t.Context(), b)
		must(t, err)
		fourth := r.arrive(box.ID, 4)
		settle(time.Minute)
		if s := r.state(fourth); s != mailgrant.ArrivalDelivered {
			t.Errorf("when the other is switched off, it is %s", s)
		}
		if s := r.state(first); s != mailgrant.ArrivalNew {
			t.Errorf("what came before the webhooks is %s", s)
		}
	})
}

// An arrival that one webhook alone had not taken is delivered, at the latest at the
// next start, when that one is switched off.
func TestArrivalIsDeliveredWhenTheOtherIsOff(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		box := mailgrant.Mailbox{ID: mailgrant.NewID(mailgrant.PrefixMailbox), Org: r.org, Address: "kim@contoso.example", State: mailgrant.MailboxActive}
		must(t, r.store.CreateMailbox(t.Context(), box))
		r.hook("a")
		off := r.hook("b")
		r.far.answer = func(g told) (int, http.Header, error) {
			if g.host == "b" {
				return 500, nil, nil
			}
			return 200, nil, nil
		}
		id := r.arrive(box.ID, 1)
		settle(time.Minute)
		off.State = mailgrant.WebhookDisabled
		_, err := r.teller.Update(t.Context(), off)
		must(t, err)
		settle(time.Minute)
		r.end()
		r.start()
		settle(time.Minute)
		if s := r.state(id); s != mailgrant.ArrivalDelivered {
			t.Errorf("it is %s", s)
		}
	})
}

// Two webhooks that take an arrival at the same moment leave it delivered, over
// many of them.
func TestArrivalsOfSeveralWebhooks(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		box := mailgrant.Mailbox{ID: mailgrant.NewID(mailgrant.PrefixMailbox), Org: r.org, Address: "kim@contoso.example", State: mailgrant.MailboxActive}
		must(t, r.store.CreateMailbox(t.Context(), box))
		for _, name := range []string{"a", "b", "c"} {
			r.hook(name)
		}
		var ids []mailgrant.ID
		for n := range 40 {
			ids = append(ids, r.arrive(box.ID, n))
		}
		settle(time.Minute)
		for _, id := range ids {
			if s := r.state(id); s != mailgrant.ArrivalDelivered {
				t.Errorf("%s is %s", id, s)
			}
		}
	})
}

// Nothing works while nothing happens.
func TestIdleIsIdle(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		r.hook("cases")
		r.say("mbx_a", 0)
		settle(time.Minute)
		r.end()
		reads := &counting{}
		r.config = reads.config
		r.start()
		settle(time.Minute)
		before := reads.n.Load()
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if n := reads.n.Load(); n != before {
			t.Errorf("%d reads in a day without events", n-before)
		}
	})
}
