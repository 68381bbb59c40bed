package storetest

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/store"
)

// orgless are the methods that know no organization: what they are given is
// secret or was found by another that does, or they see to the whole.
var orgless = []string{"AppByName", "Backup", "Beat", "BusyLanes", "ClaimShards", "Close", "Clustered", "ConsentLinkByHash", "Disk", "DueSubmissions",
	"EveryWebhook", "GrantsDue", "HandedSince", "KeyByHash", "LastEvents", "Leave", "LoadKeyset", "NextDue", "Now", "OnDoubt", "OnLane", "OnMail", "OnReader", "OnRetry", "Organization", "Organizations", "OrganizationsAfter", "OwnShards", "Ping",
	"ReadMailboxes", "RegistrationAnywhere", "ReleaseShards", "Restore", "SaveKeyset", "SealedBy", "Sweep", "TakeFlow", "TouchKeys", "Unfinished",
	"CreateOrganization", "UpdateOrganization", "DeleteOrganization", "UseConsentLink", "WatchEvents", "WakeLane", "RetryLane", "WakeReader", "RingReader", "DoubtReader"}

// walk calls every method that takes an organization with another one's, and
// with every id, address and hash there is: nothing comes back and nothing
// changes. Whoever adds a method finds it here.
func walk(t *testing.T, f *fixture) {
	w := newWalker(t, f)
	before := w.rows()
	typ := reflect.TypeFor[*store.Store]()
	walked := 0
	for i := range typ.NumMethod() {
		m := typ.Method(i)
		if slices.Contains(orgless, m.Name) {
			continue
		}
		walked++
		for _, id := range w.ids {
			w.call(m, id)
		}
		if after := w.rows(); after != before {
			t.Errorf("%s changed what belongs to another organization:\n%s\nwas:\n%s", m.Name, after, before)
			before = after
		}
	}
	if walked < 50 {
		t.Errorf("only %d methods were walked", walked)
	}
	for _, name := range orgless {
		if _, ok := typ.MethodByName(name); !ok {
			t.Errorf("there is no method %s any more", name)
		}
	}
}

type walker struct {
	*fixture
	t     *testing.T
	other mailgrant.ID
	ids   []mailgrant.ID
	with  map[reflect.Type]func(id mailgrant.ID) any
}

func newWalker(t *testing.T, f *fixture) *walker {
	w := &walker{fixture: f, t: t, other: mailgrant.NewID(mailgrant.PrefixOrganization)}
	f.must(t, f.CreateOrganization(f.ctx, mailgrant.Organization{ID: w.other, Name: "Fabrikam"}))
	g := f.grant(t)
	g.Sealed = []byte("sealed")
	f.must(t, f.CompleteConsent(f.ctx, g))
	m := f.mailbox(t, "kim@contoso.example", g.ID)
	sub, begun := f.accept(t, m.ID), f.accept(t, m.ID)
	_, err := f.BeginAttempt(f.ctx, store.Fence{}, []mailgrant.Submission{begun})
	f.must(t, err)
	k := mailgrant.Key{ID: mailgrant.NewID(mailgrant.PrefixKey), Org: f.org, App: f.app.ID, Hash: []byte("keyhash")}
	f.must(t, f.CreateKey(f.ctx, k))
	c := mailgrant.Credential{ID: mailgrant.NewID(mailgrant.PrefixCredential), Org: f.org, Registration: f.reg.ID, Sealed: []byte("sealed")}
	f.must(t, f.CreateCredential(f.ctx, c))
	fl := store.Flow{ID: mailgrant.NewID(mailgrant.PrefixFlow), Org: f.org, Grant: g.ID, Registration: f.reg.ID, StateHash: []byte("state"), Sealed: []byte("s"), ExpiresAt: time.Now().Add(time.Hour)}
	f.must(t, f.CreateFlow(f.ctx, fl))
	l := store.ConsentLink{ID: mailgrant.NewID("lnk"), Org: f.org, Grant: g.ID, Hash: []byte("link"), ExpiresAt: time.Now().Add(time.Hour)}
	f.must(t, f.CreateConsentLink(f.ctx, l))
	f.must(t, f.PutAdminConsent(f.ctx, store.AdminConsent{Registration: f.reg.ID, Org: f.org, State: "granted"}))
	arr := f.collect(t, m.ID, "1")
	hook := f.webhook(t, "cases")
	f.must(t, f.RecordTelling(f.ctx, store.Telling{Org: f.org, Webhook: hook.ID, Wait: []store.WaitingEvent{{Event: mailgrant.Event{Seq: 1, Mailbox: m.ID}}, {Event: mailgrant.Event{Seq: 2}, Dead: true}},
		Deliveries: []mailgrant.Delivery{{ID: "dlv_theirs", Org: f.org, At: time.Now()}}}))
	f.must(t, f.AddReplay(f.ctx, f.org, hook.ID, store.Replay{ID: mailgrant.NewID("rpl"), Until: 9}))
	w.ids = []mailgrant.ID{hook.ID, "dlv_theirs", arr.ID, f.org, f.reg.ID, f.app.ID, f.box.ID, g.ID, m.ID, sub.ID, begun.ID, k.ID, c.ID, fl.ID, l.ID}
	fresh := func() mailgrant.ID { return mailgrant.NewID("new") }
	lane := func(id mailgrant.ID) mailgrant.Submission {
		s := f.submission(id)
		s.Org, s.ID = w.other, id
		return s
	}
	w.with = map[reflect.Type]func(id mailgrant.ID) any{
		reflect.TypeFor[context.Context]():        func(mailgrant.ID) any { return f.ctx },
		reflect.TypeFor[string]():                 func(mailgrant.ID) any { return "kim@contoso.example" },
		reflect.TypeFor[[]string]():               func(mailgrant.ID) any { return []string{"1"} },
		reflect.TypeFor[[]int64]():                func(mailgrant.ID) any { return []int64{1, 2} },
		reflect.TypeFor[[][]byte]():               func(mailgrant.ID) any { return [][]byte{[]byte("loose1")} },
		reflect.TypeFor[[]mailgrant.ID]():         func(id mailgrant.ID) any { return []mailgrant.ID{id} },
		reflect.TypeFor[store.ArrivalFilter]():    func(mailgrant.ID) any { return store.ArrivalFilter{Mailboxes: []mailgrant.ID{m.ID}} },
		reflect.TypeFor[mailgrant.ArrivalState](): func(mailgrant.ID) any { return mailgrant.ArrivalIgnored },
		reflect.TypeFor[store.Position]():         func(mailgrant.ID) any { return store.Position{Protocol: "imap", Cursor: "1"} },
		reflect.TypeFor[store.Page](): func(id mailgrant.ID) any {
			return store.Page{Org: w.other, Mailbox: id, From: store.Position{Protocol: "imap", Cursor: "1"}, To: store.Position{Protocol: "imap", Cursor: "2"},
				Messages: []store.Collected{collectedOf(w.other, id, "2")}}
		},
		reflect.TypeFor[[]byte]():                 func(mailgrant.ID) any { return []byte("sealed") },
		reflect.TypeFor[int]():                    func(mailgrant.ID) any { return 100 },
		reflect.TypeFor[int64]():                  func(mailgrant.ID) any { return int64(1) },
		reflect.TypeFor[time.Time]():              func(mailgrant.ID) any { return time.Now().Add(time.Minute) },
		reflect.TypeFor[time.Duration]():          func(mailgrant.ID) any { return time.Minute },
		reflect.TypeFor[*time.Time]():             func(mailgrant.ID) any { at := time.Now(); return &at },
		reflect.TypeFor[mailgrant.Finding]():      func(mailgrant.ID) any { return mailgrant.Finding{Cause: "x"} },
		reflect.TypeFor[*mailgrant.Finding]():     func(mailgrant.ID) any { return &mailgrant.Finding{Cause: "x"} },
		reflect.TypeFor[mailgrant.Hold]():         func(mailgrant.ID) any { return mailgrant.Hold{Since: time.Now()} },
		reflect.TypeFor[mailgrant.MailboxRole]():  func(mailgrant.ID) any { return mailgrant.RoleGlobal },
		reflect.TypeFor[store.Fence]():            func(mailgrant.ID) any { return store.Fence{} },
		reflect.TypeFor[store.EventFilter]():      func(id mailgrant.ID) any { return store.EventFilter{Subject: id} },
		reflect.TypeFor[store.SubmissionFilter](): func(mailgrant.ID) any { return store.SubmissionFilter{Mailbox: m.ID} },
		reflect.TypeFor[mailgrant.Registration](): func(id mailgrant.ID) any {
			r := f.reg
			r.Org, r.ID, r.Name = w.other, id, "changed"
			return r
		},
		reflect.TypeFor[mailgrant.App](): func(id mailgrant.ID) any { return mailgrant.App{ID: id, Org: w.other, Name: "changed " + string(id)} },
		reflect.TypeFor[mailgrant.Key](): func(id mailgrant.ID) any {
			return mailgrant.Key{ID: fresh(), Org: w.other, App: id, Hash: []byte(fresh())}
		},
		reflect.TypeFor[mailgrant.Credential](): func(id mailgrant.ID) any {
			return mailgrant.Credential{ID: fresh(), Org: w.other, Registration: id}
		},
		reflect.TypeFor[mailgrant.Grant](): func(id mailgrant.ID) any {
			return mailgrant.Grant{ID: id, Org: w.other, Registration: f.reg.ID, Mailbox: "x@y", Sealed: []byte("theirs")}
		},
		reflect.TypeFor[mailgrant.Mailbox](): func(id mailgrant.ID) any {
			return mailgrant.Mailbox{ID: id, Org: w.other, Address: string(id) + "@fabrikam.example", Grant: g.ID}
		},
		reflect.TypeFor[mailgrant.Event](): func(id mailgrant.ID) any { return mailgrant.Event{Org: w.other, Kind: "theirs", Subject: id} },
		reflect.TypeFor[store.Flow](): func(id mailgrant.ID) any {
			return store.Flow{ID: id, Org: w.other, StateHash: []byte(fresh()), ExpiresAt: time.Now().Add(time.Hour)}
		},
		reflect.TypeFor[store.ConsentLink](): func(id mailgrant.ID) any {
			return store.ConsentLink{ID: id, Org: w.other, Hash: []byte(fresh()), ExpiresAt: time.Now().Add(time.Hour)}
		},
		reflect.TypeFor[store.AdminConsent](): func(mailgrant.ID) any {
			return store.AdminConsent{Registration: f.reg.ID, Org: w.other, State: "denied"}
		},
		reflect.TypeFor[store.Renewal](): func(id mailgrant.ID) any {
			return store.Renewal{Grant: id, Org: w.other, Generation: 1, Sealed: []byte("theirs"), At: time.Now()}
		},
		reflect.TypeFor[store.SealedRow](): func(id mailgrant.ID) any {
			return store.SealedRow{Org: w.other, Table: "grants", Column: "sealed", Row: id, Sealed: []byte("sealed")}
		},
		reflect.TypeFor[store.Acceptance](): func(id mailgrant.ID) any {
			s := lane(m.ID)
			s.ID = fresh()
			return store.Acceptance{Submission: s, Body: []byte("theirs")}
		},
		reflect.TypeFor[mailgrant.Submission]():   func(id mailgrant.ID) any { return lane(id) },
		reflect.TypeFor[[]mailgrant.Submission](): func(id mailgrant.ID) any { return []mailgrant.Submission{lane(id)} },
		reflect.TypeFor[store.Record](): func(id mailgrant.ID) any {
			return store.Record{State: mailgrant.SubmissionDelivered, Attempt: attemptOf(lane(id), 1, mailgrant.FateDelivered)}
		},
		reflect.TypeFor[mailgrant.Webhook](): func(id mailgrant.ID) any {
			return mailgrant.Webhook{ID: id, Org: w.other, Name: string(id)}
		},
		reflect.TypeFor[mailgrant.Delivery](): func(id mailgrant.ID) any {
			return mailgrant.Delivery{ID: fresh(), Org: w.other, Webhook: id, At: time.Now()}
		},
		reflect.TypeFor[store.Replay](): func(mailgrant.ID) any { return store.Replay{ID: fresh(), Until: 10} },
		reflect.TypeFor[store.Telling](): func(id mailgrant.ID) any {
			return store.Telling{Org: w.other, Webhook: id, Position: 1 << 40, Arrivals: []mailgrant.ID{id}}
		},
		reflect.TypeFor[map[store.Lane]time.Time](): func(id mailgrant.ID) any {
			return map[store.Lane]time.Time{{Org: w.other, Mailbox: id}: time.Now()}
		},
	}
	return w
}

// call gives the other organization first and then the id, whatever it names.
func (w *walker) call(m reflect.Method, id mailgrant.ID) {
	args := []reflect.Value{reflect.ValueOf(w.Store)}
	done := make(chan error, 1)
	asked := false
	org := w.other
	for i := 1; i < m.Type.NumIn(); i++ {
		in := m.Type.In(i)
		switch {
		case in == reflect.TypeFor[mailgrant.ID]():
			args = append(args, reflect.ValueOf(org))
			org, asked = id, true
		case in == reflect.TypeFor[func(error)]():
			args = append(args, reflect.ValueOf(func(err error) { done <- err }))
		case w.with[in] != nil:
			args = append(args, reflect.ValueOf(w.with[in](id)))
			asked = asked || in.Kind() == reflect.Struct || in.Kind() == reflect.Slice || in.Kind() == reflect.Map
		default:
			w.t.Fatalf("%s takes a %v: say how another organization would call it", m.Name, in)
		}
	}
	if !asked {
		w.t.Errorf("%s names no organization; say in orgless why that is right", m.Name)
	}
	for _, out := range m.Func.Call(args) {
		v := out.Interface()
		if _, failed := v.(error); failed || v == nil {
			continue
		}
		b, err := json.Marshal(v)
		if err != nil || strings.Contains(string(b), `"org":"`+string(w.org)) {
			w.t.Errorf("%s(%s) gives %s, %v", m.Name, id, b, err)
		}
		if sealed, ok := v.([]byte); ok && len(sealed) > 0 {
			w.t.Errorf("%s(%s) gives %q", m.Name, id, sealed)
		}
	}
	if m.Name == "RecordAttempt" {
		<-done
	}
}

// rows are all rows of the fixture's organization.
func (w *walker) rows() string {
	var b bytes.Buffer
	w.must(w.t, w.Backup(w.ctx, &b))
	z, err := gzip.NewReader(&b)
	w.must(w.t, err)
	text, err := io.ReadAll(z)
	w.must(w.t, err)
	var own []string
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, `"row":[{"t":"`+string(w.org)) {
			own = append(own, line)
		}
	}
	slices.Sort(own)
	return strings.Join(own, "")
}

func bounceGoesWith(t *testing.T, f *fixture) {
	sub := f.accept(t, f.box.ID)
	own := f.submission(f.box.ID)
	own.Door = "inside"
	r := store.Record{Attempt: attemptOf(sub, 1, mailgrant.FateRefused), State: mailgrant.SubmissionFailed, Counts: true, Bounce: &store.Acceptance{Submission: own, Body: []byte("dsn")}}
	f.must(t, f.record(t, r))
	if got, err := f.Submission(f.ctx, f.org, sub.ID); err != nil || got.State != mailgrant.SubmissionFailed {
		t.Errorf("%s, %v", got.State, err)
	}
	if b, err := f.Chunk(f.ctx, f.org, own.ID, 0); err != nil || string(b) != "dsn" {
		t.Errorf("the bounce: %q, %v", b, err)
	}
	// A result that is refused leaves no bounce.
	r.Bounce = &store.Acceptance{Submission: f.submission(f.box.ID), Body: []byte("dsn")}
	is(t, f.record(t, r), mailgrant.Conflict)
	_, err := f.Submission(f.ctx, f.org, r.Bounce.Submission.ID)
	is(t, err, mailgrant.NotFound)
	// A bounce that cannot be kept keeps the failure back too.
	third := f.accept(t, f.box.ID)
	r.Attempt, r.Bounce = attemptOf(third, 1, mailgrant.FateRefused), &store.Acceptance{Submission: own, Body: []byte("dsn")}
	if err := f.record(t, r); err == nil {
		t.Error("a bounce of an id that is taken was accepted")
	}
	if got, _ := f.Submission(f.ctx, f.org, third.ID); got.State != mailgrant.SubmissionReady {
		t.Errorf("without its bounce it is %s", got.State)
	}
}

func attemptsAreNumbered(t *testing.T, f *fixture) {
	sub := f.accept(t, f.box.ID)
	held := attemptOf(sub, 1, mailgrant.FateHeld)
	r := store.Record{Attempt: held, State: mailgrant.SubmissionReady, DueAt: sub.DueAt}
	f.must(t, f.record(t, r))
	f.must(t, f.record(t, r)) // the same again, as when an answer was lost
	r.Attempt = attemptOf(sub, 1, mailgrant.FateDelivered)
	r.State, r.Counts = mailgrant.SubmissionDelivered, true
	f.must(t, f.record(t, r))
	l, err := f.Attempts(f.ctx, f.org, sub.ID)
	f.must(t, err)
	if len(l) != 2 || l[0].N != 1 || l[1].N != 2 || l[1].Fate != mailgrant.FateDelivered {
		t.Errorf("attempts: %+v", l)
	}
	if got, _ := f.Submission(f.ctx, f.org, sub.ID); got.Attempts != 1 {
		t.Errorf("%d attempts count, want 1", got.Attempts)
	}
}

func retryUncertain(t *testing.T, f *fixture) {
	sub := f.accept(t, f.box.ID)
	_, err := f.BeginAttempt(f.ctx, store.Fence{}, []mailgrant.Submission{sub})
	f.must(t, err)
	f.must(t, f.MarkUncertain(f.ctx, store.Fence{}, sub))
	f.must(t, f.RetrySubmission(f.ctx, f.org, sub.ID))
	if got, _ := f.Submission(f.ctx, f.org, sub.ID); got.State != mailgrant.SubmissionReady || !got.Duplicate {
		t.Errorf("%s, possible duplicate %v", got.State, got.Duplicate)
	}
}

func restoreWaits(t *testing.T, f *fixture) {
	g := f.grant(t)
	g.Sealed = []byte("sealed")
	f.must(t, f.CompleteConsent(f.ctx, g))
	m := f.mailbox(t, "kim@contoso.example", g.ID)
	f.accept(t, m.ID)
	hook, off := f.webhook(t, "cases"), f.webhook(t, "off")
	off.State = mailgrant.WebhookDisabled
	f.must(t, f.UpdateWebhook(f.ctx, off))
	told := f.tellings(t, 2)[0]
	f.must(t, f.RecordTelling(f.ctx, store.Telling{Org: f.org, Webhook: hook.ID, Position: told.Seq, Wait: []store.WaitingEvent{{Event: told, Since: told.At}},
		Turn: &store.Turn{State: mailgrant.WebhookFailing, Finding: &mailgrant.Finding{Cause: "webhook-failing"}, Since: told.At}}))
	f.must(t, f.SaveKeyset(f.ctx, []byte("keys"), 0))
	var b bytes.Buffer
	f.must(t, f.Backup(f.ctx, &b))
	to := f.open(t)
	f.must(t, to.Restore(f.ctx, &b, mailgrant.Finding{Cause: "restored"}, mailgrant.Finding{Cause: "restored off"}))
	f.must(t, to.CompleteConsent(f.ctx, g))
	if got, err := to.Mailbox(f.ctx, f.org, m.ID); err != nil || got.State != mailgrant.MailboxHeld {
		t.Errorf("a consent ends the hold of a restore: %s, %v", got.State, err)
	}
	f.must(t, to.ResumeMailbox(f.ctx, f.org, m.ID))
	if got, err := to.Mailbox(f.ctx, f.org, m.ID); err != nil || got.State != mailgrant.MailboxActive {
		t.Errorf("%s, %v", got.State, err)
	}
	if all, err := to.EveryWebhook(f.ctx); err != nil || len(all) > 0 {
		t.Errorf("a restore leaves webhooks that are told: %+v, %v", all, err)
	}
	if got, err := to.Webhook(f.ctx, f.org, off.ID); err != nil || got.Finding != nil {
		t.Errorf("why somebody switched a webhook off is another matter: %+v, %v", got, err)
	}
	got, err := to.Webhook(f.ctx, f.org, hook.ID)
	f.must(t, err)
	if got.State != mailgrant.WebhookDisabled || got.Finding == nil || got.Finding.Cause != "restored off" || got.FailingAt != nil {
		t.Errorf("a restored webhook: %+v", got)
	}
	got.State = mailgrant.WebhookActive
	f.must(t, to.UpdateWebhook(f.ctx, got))
	got, err = to.Webhook(f.ctx, f.org, hook.ID)
	f.must(t, err)
	waiting, _, err := to.WaitingCounts(f.ctx, f.org, hook.ID)
	if err != nil || got.State != mailgrant.WebhookActive || got.Finding != nil || got.Position != told.Seq || waiting != 1 {
		t.Errorf("switched on, it does not go on from its place: %+v, %d wait, %v", got, waiting, err)
	}
}
