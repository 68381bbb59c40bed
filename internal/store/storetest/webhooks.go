package storetest

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/store"
)

func (f *fixture) webhook(t *testing.T, name string) mailgrant.Webhook {
	t.Helper()
	w := mailgrant.Webhook{ID: mailgrant.NewID(mailgrant.PrefixWebhook), Org: f.org, Name: name, URL: "https://hooks.contoso.example/mail"}
	f.must(t, f.CreateWebhook(f.ctx, w, []byte("sealed")))
	w, err := f.Webhook(f.ctx, f.org, w.ID)
	f.must(t, err)
	return w
}

func webhookLife(t *testing.T, f *fixture) {
	f.must(t, f.AddEvent(f.ctx, mailgrant.Event{Org: f.org, Kind: "before"}))
	w := f.webhook(t, "Cases")
	before := f.events(t, 1, "before")[0]
	if w.State != mailgrant.WebhookActive || w.Position < before.Seq {
		t.Errorf("a new one: %+v, behind %d", w, before.Seq)
	}
	is(t, f.CreateWebhook(f.ctx, mailgrant.Webhook{ID: mailgrant.NewID(mailgrant.PrefixWebhook), Org: f.org, Name: "cases"}, []byte("s")), mailgrant.Conflict)
	if got, err := f.WebhookByName(f.ctx, f.org, "cASES"); err != nil || got.ID != w.ID {
		t.Errorf("by name: %v, %v", got.ID, err)
	}
	f.must(t, f.RecordTelling(f.ctx, store.Telling{Org: f.org, Webhook: w.ID, Wait: []store.WaitingEvent{{Event: before, Attempts: 3, Since: before.At, DueAt: time.Now().Add(time.Hour)}},
		Turn: &store.Turn{State: mailgrant.WebhookFailing, Finding: &mailgrant.Finding{Cause: "webhook-failing"}, Since: time.Now()}}))
	if got, _ := f.Webhook(f.ctx, f.org, w.ID); got.State != mailgrant.WebhookFailing || got.Finding == nil || got.FailingAt == nil {
		t.Errorf("failing: %+v", got)
	}
	w.URL, w.State = "https://other.contoso.example/", mailgrant.WebhookActive
	f.must(t, f.UpdateWebhook(f.ctx, w))
	if got, _ := f.Webhook(f.ctx, f.org, w.ID); got.State != mailgrant.WebhookFailing || got.URL != w.URL {
		t.Errorf("a change does not mend it: %+v", got)
	}
	w.State = mailgrant.WebhookDisabled
	f.must(t, f.UpdateWebhook(f.ctx, w))
	got, err := f.Webhook(f.ctx, f.org, w.ID)
	f.must(t, err)
	all, err := f.EveryWebhook(f.ctx)
	f.must(t, err)
	if got.State != mailgrant.WebhookDisabled || got.Finding != nil || slices.ContainsFunc(all, func(o mailgrant.Webhook) bool { return o.ID == w.ID }) {
		t.Errorf("switched off: %+v", got)
	}
	w.State = mailgrant.WebhookActive
	f.must(t, f.UpdateWebhook(f.ctx, w))
	wait, err := f.WaitingEvents(f.ctx, f.org, w.ID, before.Mailbox, 10)
	f.must(t, err)
	if got, _ = f.Webhook(f.ctx, f.org, w.ID); got.State != mailgrant.WebhookActive || len(wait) != 1 || !wait[0].DueAt.IsZero() || wait[0].Since.Equal(before.At) {
		t.Errorf("switched on again: %+v, %+v", got, wait)
	}
	both := time.Now().Add(time.Hour).UTC().Truncate(time.Microsecond)
	f.must(t, f.RotateWebhook(f.ctx, f.org, w.ID, []byte("fresh"), both))
	s, err := f.WebhookSecrets(f.ctx, f.org, w.ID)
	f.must(t, err)
	if string(s.Sealed) != "fresh" || string(s.Previous) != "sealed" || !s.BothUntil.Equal(both) {
		t.Errorf("rotated: %q, %q until %v", s.Sealed, s.Previous, s.BothUntil)
	}
	f.must(t, f.DeleteWebhook(f.ctx, f.org, w.ID))
	is(t, second(f.Webhook(f.ctx, f.org, w.ID)), mailgrant.NotFound)
	is(t, second(f.WebhookSecrets(f.ctx, f.org, w.ID)), mailgrant.NotFound)
	is(t, f.DeleteWebhook(f.ctx, f.org, w.ID), mailgrant.NotFound)
	is(t, f.UpdateWebhook(f.ctx, w), mailgrant.NotFound)
	is(t, f.RecordTelling(f.ctx, store.Telling{Org: f.org, Webhook: w.ID}), mailgrant.Conflict)
	if l, _ := f.WaitingLanes(f.ctx, f.org, w.ID); len(l) > 0 {
		t.Errorf("what waits for it is left: %+v", l)
	}
	f.events(t, 6, "webhook.created", "webhook.changed", "webhook.rotated", "webhook.deleted")
}

// namedByWebhook is not deleted: the webhook would tell of nothing, and nobody know.
func namedByWebhook(t *testing.T, f *fixture) {
	m := f.mailbox(t, "kim@contoso.example", "")
	of := f.webhook(t, "of-mailbox")
	of.Mailboxes = []mailgrant.ID{f.box.ID, m.ID}
	f.must(t, f.UpdateWebhook(f.ctx, of))
	app := f.webhook(t, "of-app")
	app.App, app.State = f.app.ID, mailgrant.WebhookDisabled // it may be switched on again
	f.must(t, f.UpdateWebhook(f.ctx, app))
	for what, err := range map[string]error{string(of.ID): f.DeleteMailbox(f.ctx, f.org, m.ID), string(app.ID): f.DeleteApp(f.ctx, f.org, f.app.ID)} {
		is(t, err, mailgrant.Conflict)
		if e := mailgrant.AsError(err); !strings.Contains(e.Remedy, "webhook delete "+what) {
			t.Errorf("remedy: %s", e.Remedy)
		}
	}
	of.Mailboxes = of.Mailboxes[:1]
	f.must(t, f.UpdateWebhook(f.ctx, of))
	f.must(t, f.DeleteMailbox(f.ctx, f.org, m.ID))
	f.must(t, f.DeleteWebhook(f.ctx, f.org, app.ID))
	f.must(t, f.DeleteApp(f.ctx, f.org, f.app.ID))
	is(t, f.DeleteApp(f.ctx, f.org, f.app.ID), mailgrant.NotFound)
	f.events(t, 2, "mailbox.deleted", "app.deleted")
}

// tellings adds n events and gives them.
func (f *fixture) tellings(t *testing.T, n int) []mailgrant.Event {
	t.Helper()
	for i := range n {
		f.must(t, f.AddEvent(f.ctx, mailgrant.Event{Org: f.org, Kind: "told", Mailbox: mailgrant.ID(fmt.Sprint("mbx_", i%2)), Data: []byte(`{"n":1}`)}))
	}
	return f.events(t, n, "told")
}

func tellingKept(t *testing.T, f *fixture) {
	w := f.webhook(t, "cases")
	e := f.tellings(t, 6)
	now := time.Now().UTC().Truncate(time.Microsecond)
	arrival := f.collect(t, f.box.ID, "1")
	last := &mailgrant.Delivery{ID: "dlv_a", Event: e[0].Seq, Mailbox: e[0].Mailbox}
	f.must(t, f.RecordTelling(f.ctx, store.Telling{Org: f.org, Webhook: w.ID, Position: e[5].Seq, TakenAt: now, Arrivals: []mailgrant.ID{arrival.ID},
		Wait: []store.WaitingEvent{{Event: e[0], Attempts: 1, Since: now, DueAt: now.Add(time.Minute), Last: last}, {Event: e[2], Since: now}, {Event: e[1], Since: now, DueAt: now}}}))
	f.must(t, f.RecordTelling(f.ctx, store.Telling{Org: f.org, Webhook: w.ID, Position: e[3].Seq}))
	got, err := f.Webhook(f.ctx, f.org, w.ID)
	f.must(t, err)
	if got.Position != e[5].Seq || got.TakenAt == nil || !got.TakenAt.Equal(now) {
		t.Errorf("%+v, want position %d", got, e[5].Seq)
	}
	if a, err := f.Arrival(f.ctx, f.org, arrival.ID); err != nil || a.State != mailgrant.ArrivalDelivered {
		t.Errorf("the arrival is %s, %v", a.State, err)
	}
	lanes, err := f.WaitingLanes(f.ctx, f.org, w.ID)
	f.must(t, err)
	slices.SortFunc(lanes, func(a, b store.WaitingLane) int { return bytes.Compare([]byte(a.Mailbox), []byte(b.Mailbox)) })
	if len(lanes) != 2 || lanes[0].Mailbox != "mbx_0" || !lanes[0].DueAt.Equal(now.Add(time.Minute)) || !lanes[1].DueAt.Equal(now) {
		t.Errorf("lanes %+v", lanes)
	}
	wait, err := f.WaitingEvents(f.ctx, f.org, w.ID, "mbx_0", 10)
	f.must(t, err)
	if len(wait) != 2 || wait[0].Event.Seq != e[0].Seq || wait[0].Attempts != 1 || wait[0].Last == nil || wait[0].Last.ID != "dlv_a" || wait[1].Event.Seq != e[2].Seq ||
		wait[0].Event.Kind != "told" || string(wait[0].Event.Data) != string(e[0].Data) || !wait[0].Event.At.Equal(e[0].At) {
		t.Errorf("waiting %+v", wait)
	}
	if m, err := f.WaitingFor(f.ctx, f.org, []int64{e[0].Seq, e[3].Seq}); err != nil || len(m) != 1 || !slices.Equal(m[e[0].Seq], []mailgrant.ID{w.ID}) {
		t.Errorf("the first and the fourth wait for %v, %v", m, err)
	}
	// One is given up, one was taken.
	f.must(t, f.RecordTelling(f.ctx, store.Telling{Org: f.org, Webhook: w.ID, Wait: []store.WaitingEvent{{Event: e[0], Dead: true, Attempts: 9, Since: now, Last: last}}, Done: []mailgrant.Event{e[1]}}))
	waiting, dead, err := f.WaitingCounts(f.ctx, f.org, w.ID)
	f.must(t, err)
	l, next, err := f.DeadLetters(f.ctx, f.org, w.ID, "", 10)
	f.must(t, err)
	if waiting != 1 || dead != 1 || len(l) != 1 || next != "" || l[0].ID != "dlv_a" {
		t.Errorf("%d wait, %d given up: %+v", waiting, dead, l)
	}
	if f.Clustered() {
		stranger := store.Fence{Shard: 1, Node: "nod_stranger", Generation: 1}
		is(t, f.RecordTelling(f.ctx, store.Telling{Org: f.org, Webhook: w.ID, Fence: stranger, Position: e[5].Seq + 100, Done: e}), mailgrant.Conflict)
		if again, _, _ := f.WaitingCounts(f.ctx, f.org, w.ID); again != waiting {
			t.Error("a node that does not own it wrote for it")
		}
	}
}

// expiredGivenUp has more expire than one transaction moves.
func expiredGivenUp(t *testing.T, f *fixture) {
	const old, fresh = 1201, 3
	w := f.webhook(t, "cases")
	since := time.Now().Add(-time.Hour).UTC().Truncate(time.Microsecond)
	l := []store.WaitingEvent{{Event: mailgrant.Event{Seq: 1, Mailbox: "mbx_1"}, Since: since, Dead: true}} // and waits once more
	for i := range old + fresh {
		e := store.WaitingEvent{Event: mailgrant.Event{Seq: int64(i), Mailbox: mailgrant.ID(fmt.Sprint("mbx_", i%2))}, Attempts: i, Since: since}
		if i >= old {
			e.Since = since.Add(time.Minute)
		}
		l = append(l, e)
	}
	f.must(t, f.RecordTelling(f.ctx, store.Telling{Org: f.org, Webhook: w.ID, Wait: l}))
	expire := store.Telling{Org: f.org, Webhook: w.ID, Position: 7, Expire: since.Add(time.Second)}
	if f.Clustered() {
		stranger := expire
		stranger.Fence = store.Fence{Shard: 1, Node: "nod_stranger", Generation: 1}
		is(t, f.RecordTelling(f.ctx, stranger), mailgrant.Conflict)
	}
	if waiting, dead, err := f.WaitingCounts(f.ctx, f.org, w.ID); err != nil || waiting != old+fresh || dead != 1 {
		t.Errorf("%d wait, %d are given up, %v", waiting, dead, err)
	}
	for range 2 { // the second time there is nothing left to do
		f.must(t, f.RecordTelling(f.ctx, expire))
		if waiting, dead, err := f.WaitingCounts(f.ctx, f.org, w.ID); err != nil || waiting != fresh || dead != old {
			t.Errorf("%d wait, %d are given up, %v", waiting, dead, err)
		}
	}
	if got, err := f.Webhook(f.ctx, f.org, w.ID); err != nil || got.Position < 7 {
		t.Errorf("%+v, %v", got, err)
	}
}

func waitingReplayed(t *testing.T, f *fixture) {
	w := f.webhook(t, "cases")
	e := f.tellings(t, 5)
	var l []store.WaitingEvent
	for _, e := range e {
		l = append(l, store.WaitingEvent{Event: e, Dead: true, Attempts: 5, Since: e.At, Last: &mailgrant.Delivery{ID: "dlv", Event: e.Seq, Mailbox: e.Mailbox}})
	}
	f.must(t, f.RecordTelling(f.ctx, store.Telling{Org: f.org, Webhook: w.ID, Position: e[4].Seq, Wait: l}))
	seen := 0
	for after := ""; ; {
		some, next, err := f.DeadLetters(f.ctx, f.org, w.ID, after, 2)
		f.must(t, err)
		seen += len(some)
		if after = next; next == "" {
			break
		}
	}
	n, err := f.ReplayDead(f.ctx, f.org, w.ID)
	f.must(t, err)
	wait, err := f.WaitingEvents(f.ctx, f.org, w.ID, "mbx_0", 10)
	f.must(t, err)
	if seen != 5 || n != 5 || len(wait) != 3 || wait[0].Attempts != 0 || wait[0].Since.Equal(e[0].At) {
		t.Errorf("%d seen, %d replayed: %+v", seen, n, wait)
	}
	r := store.Replay{ID: mailgrant.NewID("rpl"), Position: e[0].Seq, Until: e[3].Seq}
	f.must(t, f.AddReplay(f.ctx, f.org, w.ID, r))
	r.Position = e[1].Seq
	f.must(t, f.RecordTelling(f.ctx, store.Telling{Org: f.org, Webhook: w.ID, Replay: &r}))
	if l, err := f.Replays(f.ctx, f.org, w.ID); err != nil || len(l) != 1 || l[0] != r {
		t.Errorf("replays %+v, %v", l, err)
	}
	f.must(t, f.RecordTelling(f.ctx, store.Telling{Org: f.org, Webhook: w.ID, Replay: &r, ReplayDone: true}))
	if l, err := f.Replays(f.ctx, f.org, w.ID); err != nil || len(l) != 0 {
		t.Errorf("replays %+v, %v", l, err)
	}
	is(t, f.AddReplay(f.ctx, f.org, "whk_none", r), mailgrant.NotFound)
}

func deliveriesFew(t *testing.T, f *fixture) {
	w := f.webhook(t, "cases")
	began := time.Now().UTC().Truncate(time.Microsecond)
	for i := range 12 {
		var l []mailgrant.Delivery
		for n := range 100 {
			at := began.Add(time.Duration(i*100+n) * time.Microsecond)
			l = append(l, mailgrant.Delivery{ID: mailgrant.ID(fmt.Sprintf("dlv_%04d", i*100+n)), Org: f.org, Webhook: w.ID, At: at, State: mailgrant.DeliveryTaken})
		}
		f.must(t, f.RecordTelling(f.ctx, store.Telling{Org: f.org, Webhook: w.ID, Deliveries: l, Prune: i == 11}))
	}
	f.must(t, f.AddDelivery(f.ctx, mailgrant.Delivery{ID: "dlv_test", Org: f.org, Webhook: w.ID, At: began.Add(-time.Hour)}))
	var got []mailgrant.Delivery
	for after := ""; ; {
		some, next, err := f.Deliveries(f.ctx, f.org, w.ID, after, 300)
		f.must(t, err)
		if got = append(got, some...); next == "" {
			break
		}
		after = next
	}
	if len(got) != store.DeliveriesMax+1 || got[0].ID != "dlv_1199" || got[999].ID != "dlv_0200" || got[1000].ID != "dlv_test" {
		t.Errorf("%d are kept, %s to %s", len(got), got[0].ID, got[len(got)-1].ID)
	}
	if d, err := f.Delivered(f.ctx, f.org, w.ID, "dlv_0777"); err != nil || d.ID != "dlv_0777" {
		t.Errorf("one of them: %+v, %v", d, err)
	}
	is(t, second(f.Delivered(f.ctx, f.org, w.ID, "dlv_0001")), mailgrant.NotFound)
	_, _, err := f.Deliveries(f.ctx, f.org, w.ID, "nonsense", 10)
	is(t, err, mailgrant.Invalid)
	if _, err := f.Sweep(f.ctx, began.Add(4*24*time.Hour), store.Keep{}); err != nil {
		t.Fatal(err)
	}
	if l, _, _ := f.Deliveries(f.ctx, f.org, w.ID, "", 10); len(l) > 0 {
		t.Errorf("%d old ones are left", len(l))
	}
}

// untoldKept keeps events that a webhook has still to be told of, however old.
func untoldKept(t *testing.T, f *fixture) {
	w := f.webhook(t, "cases")
	e := f.tellings(t, 6)
	f.must(t, f.RecordTelling(f.ctx, store.Telling{Org: f.org, Webhook: w.ID, Position: e[3].Seq,
		Wait: []store.WaitingEvent{{Event: e[1]}, {Event: e[2], Dead: true, Last: &mailgrant.Delivery{Event: e[2].Seq}}}}))
	old := store.Keep{Events: time.Minute}
	sweep := func() (left []int64) {
		_, err := f.Sweep(f.ctx, time.Now().Add(time.Hour), old)
		f.must(t, err)
		l, err := f.Events(f.ctx, f.org, store.EventFilter{Kinds: []string{"told"}})
		f.must(t, err)
		for _, e := range l {
			left = append(left, e.Seq)
		}
		return left
	}
	if left, want := sweep(), []int64{e[1].Seq, e[4].Seq, e[5].Seq}; !slices.Equal(left, want) {
		t.Errorf("left are %v, want %v", left, want)
	}
	if l, _, _ := f.DeadLetters(f.ctx, f.org, w.ID, "", 10); len(l) != 0 {
		t.Errorf("a dead letter outlives its event: %+v", l)
	}
	w.State = mailgrant.WebhookDisabled
	f.must(t, f.UpdateWebhook(f.ctx, w))
	if left, want := sweep(), []int64{e[1].Seq}; !slices.Equal(left, want) {
		t.Errorf("for one that is switched off %v are kept, want %v", left, want)
	}
}

func eventsByTime(t *testing.T, f *fixture) {
	began := time.Now().Add(time.Hour).UTC().Truncate(time.Microsecond) // after those of the fixture
	for i := range 30 {
		f.must(t, f.AddEvent(f.ctx, mailgrant.Event{Org: f.org, Kind: "told", At: began.Add(time.Duration(i) * time.Minute)}))
	}
	l := f.events(t, 30, "told")
	for i, e := range l {
		got, err := f.EventBefore(f.ctx, f.org, e.At)
		f.must(t, err)
		want := int64(0)
		if i > 0 {
			want = l[i-1].Seq
		}
		if i > 0 && got != want || i == 0 && got >= e.Seq {
			t.Errorf("before event %d: %d, want %d", i, got, want)
		}
	}
	all, err := f.LastEvents(f.ctx)
	f.must(t, err)
	if all[f.org] < l[29].Seq {
		t.Errorf("the last is %d, want %d", all[f.org], l[29].Seq)
	}
	if hidden, err := f.EventsHidden(f.ctx, f.org, all[f.org]); err != nil || hidden {
		t.Errorf("behind the last: %v, %v", hidden, err)
	}
}
