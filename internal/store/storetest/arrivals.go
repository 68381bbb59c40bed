package storetest

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/store"
)

func collectedOf(org, mailbox mailgrant.ID, remote string) store.Collected {
	now := time.Now().UTC().Truncate(time.Microsecond)
	return store.Collected{
		Arrival: mailgrant.Arrival{ID: mailgrant.NewID(mailgrant.PrefixArrival), Org: org, Mailbox: mailbox, State: mailgrant.ArrivalNew, Protocol: "imap",
			RemoteID: remote, NoticedAt: now, ReceivedAt: now, Size: 6, MessageID: "<" + remote + "@x>", Subject: "Case " + remote},
		Body: []byte("sealed"), BodyUntil: now.Add(time.Hour), Loose: []byte("loose" + remote), Exact: []byte("exact" + remote), Words: "kim@x case " + remote,
		Events: []mailgrant.Event{{Org: org, Kind: "arrival.new", Mailbox: mailbox}},
	}
}

// collect keeps one message at the front of a mailbox that was never read.
func (f *fixture) collect(t *testing.T, mailbox mailgrant.ID, remote string) mailgrant.Arrival {
	t.Helper()
	c := collectedOf(f.org, mailbox, remote)
	taken, err := f.Collect(f.ctx, store.Page{Org: f.org, Mailbox: mailbox, To: store.Position{Protocol: "imap", Cursor: "1"}, Messages: []store.Collected{c}})
	f.must(t, err)
	if !slices.Equal(taken, []bool{true}) {
		t.Fatalf("taken %v", taken)
	}
	return c.Arrival
}

func (f *fixture) page(t *testing.T, from, to string, l ...store.Collected) ([]bool, error) {
	t.Helper()
	p := store.Page{Org: f.org, Mailbox: f.box.ID, To: store.Position{Protocol: "imap", Cursor: to}, Messages: l}
	if from != "" {
		p.From = store.Position{Protocol: "imap", Cursor: from}
	}
	return f.Collect(f.ctx, p)
}

func collectOnce(t *testing.T, f *fixture) {
	a, b := collectedOf(f.org, f.box.ID, "1"), collectedOf(f.org, f.box.ID, "2")
	taken, err := f.page(t, "", "1", a, b)
	f.must(t, err)
	if !slices.Equal(taken, []bool{true, true}) {
		t.Errorf("taken %v", taken)
	}
	if p, err := f.Position(f.ctx, f.org, f.box.ID); err != nil || p.Cursor != "1" || p.Protocol != "imap" {
		t.Errorf("position %+v, %v", p, err)
	}
	again := collectedOf(f.org, f.box.ID, "1") // the same name
	copied := collectedOf(f.org, f.box.ID, "2")
	copied.Arrival.RemoteID = "3" // the same bytes under another name
	loosely := collectedOf(f.org, f.box.ID, "2")
	loosely.Arrival.RemoteID, loosely.Exact, loosely.Loosely = "4", []byte("other bytes"), true
	forged := collectedOf(f.org, f.box.ID, "2")
	forged.Arrival.RemoteID, forged.Exact = "5", []byte("forged bytes") // the same Message-ID: another message
	taken, err = f.page(t, "1", "2", again, copied, loosely, forged)
	f.must(t, err)
	if !slices.Equal(taken, []bool{false, false, false, true}) {
		t.Errorf("taken %v, want only the last", taken)
	}
	if l, _, err := f.Arrivals(f.ctx, f.org, store.ArrivalFilter{}); err != nil || len(l) != 3 {
		t.Errorf("%d arrivals, %v", len(l), err)
	}
	// The server makes its names anew: another message has the name of the first.
	other := collectedOf(f.org, f.box.ID, "8")
	other.Arrival.RemoteID = "1"
	rendered := collectedOf(f.org, f.box.ID, "1")
	rendered.Exact = []byte("the same mail, put together in another way")
	nameless := collectedOf(f.org, f.box.ID, "1")
	nameless.Loose, nameless.Exact = []byte("1"), []byte("1")
	for _, want := range []bool{true, false} {
		if taken, err = f.page(t, "2", "2", other, rendered, nameless); err != nil || !slices.Equal(taken, []bool{want, false, false}) {
			t.Errorf("taken %v, %v; want the first: %v", taken, err, want)
		}
	}
	seen, err := f.SeenRemotes(f.ctx, f.org, f.box.ID, []string{"1", "4", "9"})
	f.must(t, err)
	if !seen["1"] || !seen["4"] || seen["9"] {
		t.Errorf("seen %v", seen)
	}
	f.must(t, f.ForgetRemotes(f.ctx, f.org, f.box.ID, []string{"1"}))
	if seen, _ := f.SeenRemotes(f.ctx, f.org, f.box.ID, []string{"1"}); seen["1"] {
		t.Error("a forgotten name is seen still")
	}
	// The server shows the same mail once more, and then another one of that name.
	reused := collectedOf(f.org, f.box.ID, "6")
	reused.Arrival.RemoteID = "1"
	for _, c := range []struct {
		from, to string
		m        store.Collected
		want     bool
	}{{"2", "3", collectedOf(f.org, f.box.ID, "1"), false}, {"3", "4", reused, true}} {
		if taken, err = f.page(t, c.from, c.to, c.m); err != nil || taken[0] != c.want {
			t.Errorf("after the name was forgotten: %s taken %v, %v", c.m.Exact, taken, err)
		}
		for range 2 { // the second time there is no such name
			f.must(t, f.ForgetRemotes(f.ctx, f.org, f.box.ID, []string{"1"}))
		}
	}
	large := collectedOf(f.org, f.box.ID, "7") // known by its name only
	large.Loose, large.Exact = []byte("7"), []byte("7")
	for i, at := range []string{"4", "5", "6"} {
		if taken, err = f.page(t, at, string(rune(at[0]+1)), large); err != nil || !taken[0] {
			t.Fatalf("%d: a message without a body is not taken after its name was forgotten: %v, %v", i, taken, err)
		}
		large.Arrival.ID = mailgrant.NewID(mailgrant.PrefixArrival)
		f.must(t, f.ForgetRemotes(f.ctx, f.org, f.box.ID, []string{"7"}))
	}
}

func collectAll(t *testing.T, f *fixture) {
	_, err := f.page(t, "", "1", collectedOf(f.org, f.box.ID, "1"))
	f.must(t, err)
	// Another reader came between: nothing of the page is kept.
	_, err = f.page(t, "0", "2", collectedOf(f.org, f.box.ID, "2"))
	is(t, err, mailgrant.Conflict)
	_, err = f.page(t, "", "2", collectedOf(f.org, f.box.ID, "2"))
	is(t, err, mailgrant.Conflict)
	// One that cannot be kept keeps the whole page back, and the cursor with it.
	twice := collectedOf(f.org, f.box.ID, "3")
	other := collectedOf(f.org, f.box.ID, "4")
	other.Arrival.ID = twice.Arrival.ID
	if _, err = f.page(t, "1", "2", twice, other); err == nil {
		t.Error("two arrivals of one id were kept")
	}
	if l, _, _ := f.Arrivals(f.ctx, f.org, store.ArrivalFilter{}); len(l) != 1 {
		t.Errorf("%d arrivals", len(l))
	}
	if p, _ := f.Position(f.ctx, f.org, f.box.ID); p.Cursor != "1" {
		t.Errorf("the cursor went to %s", p.Cursor)
	}
	f.events(t, 1, "arrival.new")
}

func arrivalsFound(t *testing.T, f *fixture) {
	var l []store.Collected
	for _, r := range []string{"1", "2", "3", "4", "5"} {
		l = append(l, collectedOf(f.org, f.box.ID, r))
	}
	l[1].Words = "100%_ sure\\"
	_, err := f.page(t, "", "1", l...)
	f.must(t, err)
	got, err := f.Arrival(f.ctx, f.org, l[2].Arrival.ID)
	f.must(t, err)
	if got.Subject != "Case 3" || !got.Body || got.State != mailgrant.ArrivalNew || got.RemoteID != "3" || !got.NoticedAt.Equal(l[2].Arrival.NoticedAt) || got.Mailbox != f.box.ID {
		t.Errorf("%+v", got)
	}
	if b, err := f.Chunk(f.ctx, f.org, got.ID, 0); err != nil || string(b) != "sealed" {
		t.Errorf("%q, %v", b, err)
	}
	subjects := func(fl store.ArrivalFilter) (s string) {
		fl.Limit = 2
		for {
			page, next, err := f.Arrivals(f.ctx, f.org, fl)
			f.must(t, err)
			for _, a := range page {
				s += a.RemoteID
			}
			if next == "" {
				return s
			}
			fl.After, s = next, s+" "
		}
	}
	for _, c := range []struct {
		f    store.ArrivalFilter
		want string
	}{
		{store.ArrivalFilter{}, "54 32 1"},
		{store.ArrivalFilter{Oldest: true}, "12 34 5"},
		{store.ArrivalFilter{Words: "CASE kim"}, "54 31"},
		{store.ArrivalFilter{Words: `100%_ \`}, "2"},
		{store.ArrivalFilter{Words: "%"}, "2"},
		{store.ArrivalFilter{Mailboxes: []mailgrant.ID{"mbx_other"}}, ""},
		{store.ArrivalFilter{Mailboxes: []mailgrant.ID{}}, ""},
		{store.ArrivalFilter{States: []mailgrant.ArrivalState{mailgrant.ArrivalIgnored}}, ""},
		{store.ArrivalFilter{Since: time.Now().Add(time.Minute)}, ""},
		{store.ArrivalFilter{Since: time.Now().Add(-time.Minute), Oldest: true}, "12 34 5"},
	} {
		if got := subjects(c.f); got != c.want {
			t.Errorf("%+v gives %q, want %q", c.f, got, c.want)
		}
	}
	_, _, err = f.Arrivals(f.ctx, f.org, store.ArrivalFilter{After: "bXNnXzE"})
	is(t, err, mailgrant.Invalid)
}

func knowRemotes(t *testing.T, f *fixture) {
	a := collectedOf(f.org, f.box.ID, "1")
	_, err := f.page(t, "", "1", a)
	f.must(t, err)
	_, err = f.Collect(f.ctx, store.Page{Org: f.org, Mailbox: f.box.ID, From: store.Position{Protocol: "imap", Cursor: "1"}, To: store.Position{Protocol: "imap", Cursor: "1"}, Known: []string{"too old"}})
	f.must(t, err)
	f.must(t, f.KnowRemotes(f.ctx, f.org, f.box.ID, []string{"other-1", "1"}, [][]byte{a.Loose, a.Loose}))
	seen, err := f.SeenRemotes(f.ctx, f.org, f.box.ID, []string{"1", "other-1"})
	f.must(t, err)
	if len(seen) != 2 {
		t.Errorf("seen %v", seen)
	}
	if n, err := f.SeenCount(f.ctx, f.org, f.box.ID); err != nil || n != 1 {
		t.Errorf("%d messages, %v: a message with two names is one, and one that is too old is none", n, err)
	}
	again := collectedOf(f.org, f.box.ID, "1")
	again.Arrival.RemoteID, again.Exact, again.Loosely = "other-1", []byte("written anew"), true
	taken, err := f.page(t, "1", "2", again)
	f.must(t, err)
	if taken[0] {
		t.Error("it was taken again by its other name")
	}
}

func readMailboxes(t *testing.T, f *fixture) {
	m := f.box
	want := func(n int) {
		t.Helper()
		l, err := f.ReadMailboxes(f.ctx)
		f.must(t, err)
		if len(l) != n || n > 0 && l[0] != (store.Lane{Org: f.org, Mailbox: m.ID}) {
			t.Errorf("%+v, want %d", l, n)
		}
	}
	want(0)
	m.Receive = &mailgrant.Receive{Protocol: "imap"}
	f.must(t, f.UpdateMailbox(f.ctx, m))
	want(1)
	m.State = mailgrant.MailboxDisabled
	f.must(t, f.UpdateMailbox(f.ctx, m))
	want(0)
	m.State, m.Receive = mailgrant.MailboxActive, nil
	f.must(t, f.UpdateMailbox(f.ctx, m))
	want(0)
}

func arrivalStates(t *testing.T, f *fixture) {
	a, q := collectedOf(f.org, f.box.ID, "1"), collectedOf(f.org, f.box.ID, "2")
	q.Arrival.State = mailgrant.ArrivalQuarantined
	_, err := f.page(t, "", "1", a, q)
	f.must(t, err)
	for _, s := range []mailgrant.ArrivalState{mailgrant.ArrivalAcknowledged, mailgrant.ArrivalAcknowledged, mailgrant.ArrivalIgnored} {
		got, err := f.SetArrival(f.ctx, f.org, a.Arrival.ID, f.app.ID, s)
		f.must(t, err)
		if got.State != s {
			t.Errorf("%s, want %s", got.State, s)
		}
	}
	l := f.events(t, 2, "arrival.acknowledged", "arrival.ignored")
	if l[0].Kind != "arrival.acknowledged" || l[0].Subject != a.Arrival.ID || l[0].App != f.app.ID || l[0].Mailbox != f.box.ID {
		t.Errorf("events %+v", l)
	}
	_, err = f.SetArrival(f.ctx, f.org, q.Arrival.ID, "", mailgrant.ArrivalAcknowledged)
	is(t, err, mailgrant.Conflict)
	is(t, f.ReadAgain(f.ctx, f.org, a.Arrival.ID), mailgrant.Conflict)
	f.must(t, f.ReadAgain(f.ctx, f.org, q.Arrival.ID))
	_, err = f.Arrival(f.ctx, f.org, q.Arrival.ID)
	is(t, err, mailgrant.NotFound)
	if p, _ := f.Position(f.ctx, f.org, f.box.ID); p.Cursor != "" || p.Protocol != "imap" {
		t.Errorf("position %+v, want its beginning", p)
	}
}

func afterReading(t *testing.T, f *fixture) {
	a, b := collectedOf(f.org, f.box.ID, "1"), collectedOf(f.org, f.box.ID, "2")
	a.After = mailgrant.AfterMove
	_, err := f.page(t, "", "1", a, b)
	f.must(t, err)
	l, err := f.AfterReading(f.ctx, f.org, f.box.ID, 10)
	f.must(t, err)
	if want := (store.Undone{ID: a.Arrival.ID, Remote: "1", After: mailgrant.AfterMove}); len(l) != 1 || l[0] != want {
		t.Fatalf("%+v, want %+v", l, want)
	}
	if f.Clustered() {
		foreign := store.Fence{Shard: 1, Node: "nod_elsewhere", Generation: 7}
		if err := f.AfterDone(f.ctx, f.org, foreign, []mailgrant.ID{a.Arrival.ID}); !errors.Is(err, mailgrant.Conflict) {
			t.Errorf("done by a node that does not own the mailbox: %v", err)
		}
	}
	f.must(t, f.AfterDone(f.ctx, f.org, store.Fence{}, []mailgrant.ID{a.Arrival.ID}))
	if l, _ := f.AfterReading(f.ctx, f.org, f.box.ID, 10); len(l) != 0 {
		t.Errorf("%d left", len(l))
	}
}

func arrivalsSwept(t *testing.T, f *fixture) {
	old, kept := collectedOf(f.org, f.box.ID, "1"), collectedOf(f.org, f.box.ID, "2")
	old.BodyUntil = time.Now().Add(-time.Second)
	_, err := f.page(t, "", "1", old, kept)
	f.must(t, err)
	sub := f.accept(t, f.box.ID)
	lost := mailgrant.NewID(mailgrant.PrefixArrival)
	f.must(t, f.PutChunk(f.ctx, f.org, lost, 0, []byte("x")))
	sweep := func(after time.Duration) {
		for more := true; more; {
			more, err = f.Sweep(f.ctx, time.Now().Add(after), store.Keep{Bodies: 240 * time.Hour, Arrivals: 720 * time.Hour})
			f.must(t, err)
		}
	}
	sweep(0)
	if got, err := f.Arrival(f.ctx, f.org, old.Arrival.ID); err != nil || got.Body {
		t.Errorf("a body past its time: %v, %v", got.Body, err)
	}
	for what, id := range map[string]mailgrant.ID{"a kept body": kept.Arrival.ID, "one that is being read": lost, "a submission's": sub.ID} {
		if _, err := f.Chunk(f.ctx, f.org, id, 0); err != nil {
			t.Errorf("%s is gone: %v", what, err)
		}
	}
	sweep(48 * time.Hour)
	_, err = f.Chunk(f.ctx, f.org, lost, 0)
	is(t, err, mailgrant.NotFound)
	sweep(1000 * time.Hour)
	_, err = f.Arrival(f.ctx, f.org, kept.Arrival.ID)
	is(t, err, mailgrant.NotFound)
	_, err = f.Chunk(f.ctx, f.org, kept.Arrival.ID, 0)
	is(t, err, mailgrant.NotFound)
	seen, err := f.SeenRemotes(f.ctx, f.org, f.box.ID, []string{"2"})
	f.must(t, err)
	if !seen["2"] {
		t.Error("what was taken is forgotten with its arrival: it would be taken again")
	}
}
