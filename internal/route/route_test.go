package route_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/route"
)

// fake keeps mailboxes and grants in memory.
type fake struct {
	boxes  []mailgrant.Mailbox
	grants map[mailgrant.ID]mailgrant.GrantState
	asked  int
	down   bool
}

func none(what string) error {
	return mailgrant.Errorf(mailgrant.NotFound, nil, "there is no %s", what).Fix("x")
}

func (f *fake) find(ok func(mailgrant.Mailbox) bool) (l []mailgrant.Mailbox, err error) {
	f.asked++
	if f.down {
		return nil, mailgrant.Errorf(mailgrant.Unavailable, nil, "the database is away").Fix("wait")
	}
	for _, m := range f.boxes {
		if ok(m) {
			l = append(l, m)
		}
	}
	return l, nil
}

func (f *fake) one(ok func(mailgrant.Mailbox) bool) (mailgrant.Mailbox, error) {
	l, err := f.find(ok)
	if err == nil && len(l) == 0 {
		err = none("mailbox")
	}
	if err != nil {
		return mailgrant.Mailbox{}, err
	}
	return l[0], nil
}

func (f *fake) Mailbox(_ context.Context, org, id mailgrant.ID) (mailgrant.Mailbox, error) {
	return f.one(func(m mailgrant.Mailbox) bool { return m.Org == org && m.ID == id })
}

func (f *fake) MailboxByAddress(_ context.Context, org mailgrant.ID, address string) (mailgrant.Mailbox, error) {
	return f.one(func(m mailgrant.Mailbox) bool { return m.Org == org && strings.EqualFold(m.Address, address) })
}

func (f *fake) Mailboxes(_ context.Context, org mailgrant.ID) ([]mailgrant.Mailbox, error) {
	return f.find(func(m mailgrant.Mailbox) bool { return m.Org == org })
}

func (f *fake) MailboxesByRole(_ context.Context, org mailgrant.ID, role mailgrant.MailboxRole) ([]mailgrant.Mailbox, error) {
	return f.find(func(m mailgrant.Mailbox) bool { return m.Org == org && m.Role == role })
}

func (f *fake) MailboxesByGrant(_ context.Context, org, grant mailgrant.ID) ([]mailgrant.Mailbox, error) {
	return f.find(func(m mailgrant.Mailbox) bool { return m.Org == org && m.Grant == grant })
}

func (f *fake) Grant(_ context.Context, org, id mailgrant.ID) (mailgrant.Grant, error) {
	s, ok := f.grants[id]
	if !ok {
		return mailgrant.Grant{}, none("grant")
	}
	return mailgrant.Grant{ID: id, Org: org, State: s}, nil
}

func (f *fake) CreateMailbox(_ context.Context, m mailgrant.Mailbox) error {
	f.boxes = append(f.boxes, m)
	return nil
}

func (f *fake) UpdateMailbox(_ context.Context, m mailgrant.Mailbox) error {
	for i := range f.boxes {
		if f.boxes[i].ID == m.ID {
			f.boxes[i] = m
		}
	}
	return nil
}

func (f *fake) DeleteMailbox(_ context.Context, _, id mailgrant.ID) error {
	for i := range f.boxes {
		if f.boxes[i].ID == id {
			f.boxes = append(f.boxes[:i:i], f.boxes[i+1:]...)
			return nil
		}
	}
	return none("mailbox")
}

func (f *fake) ResumeMailbox(context.Context, mailgrant.ID, mailgrant.ID) error { return nil }

const (
	global  = "mbx_global"
	system  = "mbx_system"
	kim     = "mbx_kim"
	lapsed  = "mbx_lapsed"
	scanner = "mbx_scanner"
)

func contoso() *fake {
	return &fake{
		boxes: []mailgrant.Mailbox{
			{ID: global, Org: "org_a", Address: "office@contoso.example", Role: mailgrant.RoleGlobal, Grant: "gra_global", Senders: []string{"*@contoso.example"}, State: mailgrant.MailboxActive},
			{ID: system, Org: "org_a", Address: "noreply@contoso.example", Role: mailgrant.RoleSystem, Grant: "gra_system", State: mailgrant.MailboxActive},
			{ID: kim, Org: "org_a", Address: "kim@contoso.example", Role: mailgrant.RolePersonal, Grant: "gra_kim", State: mailgrant.MailboxActive},
			{ID: lapsed, Org: "org_a", Address: "lee@contoso.example", Role: mailgrant.RolePersonal, Grant: "gra_lee", State: mailgrant.MailboxActive},
			{ID: scanner, Org: "org_a", Address: "scan@contoso.example", Grant: "gra_scan", State: mailgrant.MailboxActive},
			{ID: "mbx_b", Org: "org_b", Address: "office@fabrikam.example", Role: mailgrant.RoleGlobal, Senders: []string{"*"}, State: mailgrant.MailboxActive},
		},
		grants: map[mailgrant.ID]mailgrant.GrantState{"gra_global": mailgrant.GrantActive, "gra_system": mailgrant.GrantActive, "gra_kim": mailgrant.GrantActive,
			"gra_lee": mailgrant.GrantLapsed, "gra_scan": mailgrant.GrantActive, "gra_new": mailgrant.GrantPending},
	}
}

func app(classes ...mailgrant.Class) mailgrant.Caller {
	return mailgrant.Caller{Org: "org_a", App: mailgrant.App{ID: "app_a", Org: "org_a", Name: "cases", Classes: classes}}
}

func TestRoutes(t *testing.T) {
	both := app(mailgrant.ClassUser, mailgrant.ClassSystem)
	only := app()
	only.App.Mailboxes = []mailgrant.ID{scanner}
	asScanner := app()
	asScanner.Mailbox = scanner
	for _, c := range []struct {
		name   string
		change func(f *fake)
		caller mailgrant.Caller
		q      route.Request

		want mailgrant.ID
		kind string
		why  string // part of the reason or the refusal
		code mailgrant.Code
	}{
		{name: "R9 nobody's own: Global", caller: both, q: route.Request{From: "pat@contoso.example"}, want: global, kind: "global", why: "no mailbox here"},
		{name: "R9 the office itself", caller: both, q: route.Request{From: "office@contoso.example"}, want: global, kind: "global"},
		{name: "R10 the own one first", caller: both, q: route.Request{From: "kim@contoso.example"}, want: kim, kind: "personal"},
		{name: "R10 the person it is for counts", caller: both, q: route.Request{From: "kim@contoso.example", OnBehalfOf: "kim@contoso.example"}, want: kim, kind: "personal"},
		{name: "R11 the class decides", caller: both, q: route.Request{Class: mailgrant.ClassSystem, From: "noreply@contoso.example"}, want: system, kind: "system"},
		{name: "R10 System carries no user mail", caller: both, q: route.Request{From: "noreply@contoso.example"}, want: global, kind: "global"},
		{name: "R10 nor by its name", caller: both, q: route.Request{From: "noreply@contoso.example", Named: system}, code: mailgrant.NoRoute, why: "system messages only"},
		{name: "R10 Global is no fall-back for System", change: func(f *fake) { f.DeleteMailbox(context.Background(), "", system) }, caller: both,
			q: route.Request{Class: mailgrant.ClassSystem, From: "office@contoso.example"}, code: mailgrant.NoRoute, why: "no System mailbox"},
		{name: "R10 nor is another named", caller: both, q: route.Request{Class: mailgrant.ClassSystem, From: "noreply@contoso.example", Named: global}, code: mailgrant.NoRoute},
		{name: "R14 System carries its own address only", caller: both, q: route.Request{Class: mailgrant.ClassSystem, From: "boss@contoso.example"}, code: mailgrant.NoRoute, why: "may not carry"},
		{name: "R14 nobody carries a stranger", caller: both, q: route.Request{From: "a@elsewhere.example"}, code: mailgrant.NoRoute, why: "may not carry"},
		{name: "R17 not as another person", caller: both, q: route.Request{From: "kim@contoso.example", OnBehalfOf: "pat@contoso.example"}, want: global, kind: "global"},
		{name: "R24 not granted yet: Global, and it says so", caller: both, q: route.Request{From: "lee@contoso.example"}, want: global, kind: "global", why: "has lapsed"},
		{name: "R25 nothing is lost where only the own one may", change: func(f *fake) { f.boxes[0].Senders = nil }, caller: both, q: route.Request{From: "lee@contoso.example"},
			want: lapsed, kind: "personal", why: "waits"},
		{name: "no Global, no own", change: func(f *fake) { f.DeleteMailbox(context.Background(), "", global) }, caller: both, q: route.Request{From: "pat@contoso.example"}, code: mailgrant.NoRoute},
		{name: "a mailbox of its own", caller: both, q: route.Request{From: "scan@contoso.example"}, want: scanner, kind: "named"},
		{name: "named", caller: both, q: route.Request{From: "scan@contoso.example", Named: scanner}, want: scanner, kind: "named"},
		{name: "logged in as", caller: asScanner, q: route.Request{From: "scan@contoso.example"}, want: scanner, kind: "named"},
		{name: "AP-02 an app with a list", caller: only, q: route.Request{From: "kim@contoso.example"}, code: mailgrant.Forbidden},
		{name: "AP-02 an app with a list, named", caller: only, q: route.Request{From: "kim@contoso.example", Named: kim}, code: mailgrant.Forbidden},
		{name: "an app's class", caller: app(), q: route.Request{Class: mailgrant.ClassSystem, From: "noreply@contoso.example"}, code: mailgrant.Forbidden},
		{name: "AP-01 a foreign mailbox", caller: both, q: route.Request{From: "kim@contoso.example", Named: "mbx_b"}, code: mailgrant.NotFound},
		{name: "switched off", change: func(f *fake) { f.boxes[4].State = mailgrant.MailboxDisabled }, caller: both, q: route.Request{From: "scan@contoso.example", Named: scanner}, code: mailgrant.NoRoute},
		{name: "any case, any alphabet", change: func(f *fake) { f.boxes[2].Address = "kim@xn--bcher-kva.example" }, caller: both, q: route.Request{From: "Kim@bücher.example", Named: kim}, want: kim, kind: "named"},
		{name: "the database is away", change: func(f *fake) { f.down = true }, caller: both, q: route.Request{From: "kim@contoso.example"}, code: mailgrant.Unavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := contoso()
			if c.change != nil {
				c.change(f)
			}
			got, m, err := route.New(f).Choose(t.Context(), c.caller, c.q)
			if c.code != "" {
				if !errors.Is(err, c.code) || !strings.Contains(err.Error(), c.why) || mailgrant.AsError(err).Remedy == "" {
					t.Fatalf("got %+v, %v; want %s with a remedy, %q", got, err, c.code, c.why)
				}
				return
			}
			if err != nil || got.Mailbox != c.want || m.ID != c.want || got.Kind != c.kind || !strings.Contains(got.Reason, c.why) || got.Reason == "" {
				t.Errorf("got %+v, %v; want %s, %s, %q", got, err, c.want, c.kind, c.why)
			}
		})
	}
}

func TestBusyMailboxCostsNoQueries(t *testing.T) {
	f := contoso()
	r := route.New(f)
	for range 1000 {
		if _, _, err := r.Choose(t.Context(), app(), route.Request{From: "kim@contoso.example"}); err != nil {
			t.Fatal(err)
		}
	}
	if f.asked > 3 {
		t.Errorf("%d queries for 1000 messages", f.asked)
	}
	f.grants["gra_kim"] = mailgrant.GrantLapsed
	r.Forget()
	if got, _, _ := r.Choose(t.Context(), app(), route.Request{From: "kim@contoso.example"}); got.Kind != "global" {
		t.Errorf("after a change: %+v", got)
	}
}

func TestMailboxRules(t *testing.T) {
	for _, c := range []struct {
		name string
		m    mailgrant.Mailbox
		code mailgrant.Code
	}{
		{"R7 a second Global", mailgrant.Mailbox{Address: "x@contoso.example", Role: mailgrant.RoleGlobal, Grant: "gra_new"}, mailgrant.Conflict},
		{"R7 a second System", mailgrant.Mailbox{Address: "x@contoso.example", Role: mailgrant.RoleSystem, Grant: "gra_new"}, mailgrant.Conflict},
		{"R12 System's grant for a person", mailgrant.Mailbox{Address: "x@contoso.example", Role: mailgrant.RolePersonal, Grant: "gra_system"}, mailgrant.Conflict},
		{"R17 a person's grant for another person", mailgrant.Mailbox{Address: "x@contoso.example", Role: mailgrant.RolePersonal, Grant: "gra_kim"}, mailgrant.Conflict},
		{"a shared mailbox by a person's grant", mailgrant.Mailbox{Address: "x@contoso.example", Kind: mailgrant.MailboxShared, Grant: "gra_kim"}, ""},
		{"a grant that is not there", mailgrant.Mailbox{Address: "x@contoso.example", Grant: "gra_none"}, mailgrant.NotFound},
		{"no address", mailgrant.Mailbox{Address: "x"}, mailgrant.Invalid},
		{"a role there is not", mailgrant.Mailbox{Address: "x@contoso.example", Role: "boss"}, mailgrant.Invalid},
		{"a transport there is not", mailgrant.Mailbox{Address: "x@contoso.example", Transport: "pigeon"}, mailgrant.Invalid},
		{"a rule that is none", mailgrant.Mailbox{Address: "x@contoso.example", Senders: []string{"*@"}}, mailgrant.Invalid},
		{"good", mailgrant.Mailbox{Address: "x@contoso.example", Senders: []string{"*@contoso.example", "Y@contoso.example"}, Grant: "gra_new"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := contoso()
			c.m.Org = "org_a"
			got, err := route.NewMailboxes(f, route.New(f)).CreateMailbox(t.Context(), c.m)
			if c.code != "" {
				if !errors.Is(err, c.code) || mailgrant.AsError(err).Remedy == "" && c.code != mailgrant.NotFound {
					t.Errorf("got %v, want %s with a remedy", err, c.code)
				}
				return
			}
			if err != nil || got.ID == "" || got.State != mailgrant.MailboxActive || got.Transport != "auto" {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func TestR12R18MailboxesStayApart(t *testing.T) {
	f := contoso()
	b := route.NewMailboxes(f, route.New(f))
	told := 0
	b.Changed = func(mailgrant.Mailbox) { told++ }
	m := f.boxes[2] // Kim's
	f.DeleteMailbox(t.Context(), "", global)
	m.Role = mailgrant.RoleGlobal
	if _, err := b.UpdateMailbox(t.Context(), m); !errors.Is(err, mailgrant.Conflict) {
		t.Errorf("R18 a person's mailbox as Global: %v", err)
	}
	m = mailgrant.Mailbox{Org: "org_a", Address: "new@contoso.example", Role: mailgrant.RoleGlobal, Grant: "gra_system"}
	if _, err := b.CreateMailbox(t.Context(), m); !errors.Is(err, mailgrant.Conflict) {
		t.Errorf("R12 Global with System's grant: %v", err)
	}
	m.Grant = "gra_new"
	if _, err := b.CreateMailbox(t.Context(), m); err != nil {
		t.Errorf("R13 Global with its own: %v", err)
	}
	if told != 1 {
		t.Errorf("told of %d changes, want 1", told)
	}
}
