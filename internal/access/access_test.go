package access_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"log/slog"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/access"
	"github.com/mailgrant/mailgrant/internal/store"
	"github.com/mailgrant/mailgrant/internal/vault/vaulttest"
)

type desk struct {
	*access.Access
	store *store.Store
	org   mailgrant.ID
	app   mailgrant.App
	box   mailgrant.Mailbox
	key   mailgrant.Key
	text  string
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// inTime gives a desk with one app and its key; time moves when nothing works.
func inTime(t *testing.T, f func(t *testing.T, d *desk)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "mailgrant.db"), slog.New(slog.DiscardHandler))
		must(t, err)
		t.Cleanup(func() { s.Close() })
		d := &desk{store: s, Access: access.New(access.Config{Store: s, Vault: vaulttest.New(t)}), org: mailgrant.NewID(mailgrant.PrefixOrganization)}
		must(t, s.CreateOrganization(t.Context(), mailgrant.Organization{ID: d.org, Name: "Contoso"}))
		d.box = d.mailbox(t, "Office@contoso.example", mailgrant.RoleGlobal)
		d.app, err = d.CreateApp(t.Context(), mailgrant.App{Org: d.org, Name: "case-manager"})
		must(t, err)
		d.key, d.text = d.issue(t, access.KeyInput{})
		f(t, d)
	})
}

func (d *desk) mailbox(t *testing.T, address string, role mailgrant.MailboxRole) mailgrant.Mailbox {
	t.Helper()
	m := mailgrant.Mailbox{ID: mailgrant.NewID(mailgrant.PrefixMailbox), Org: d.org, Address: address, Role: role, State: mailgrant.MailboxActive}
	must(t, d.store.CreateMailbox(t.Context(), m))
	return m
}

func (d *desk) issue(t *testing.T, in access.KeyInput) (mailgrant.Key, string) {
	t.Helper()
	k, secret, err := d.IssueKey(t.Context(), d.org, d.app.ID, in)
	must(t, err)
	return k, secret.Reveal()
}

func (d *desk) update(t *testing.T, change func(a *mailgrant.App)) {
	t.Helper()
	change(&d.app)
	var err error
	d.app, err = d.UpdateApp(t.Context(), d.app)
	must(t, err)
}

func is(t *testing.T, err error, code mailgrant.Code) {
	t.Helper()
	if !errors.Is(err, code) || mailgrant.AsError(err).Remedy == "" {
		t.Errorf("got %v, want %s with a remedy", err, code)
	}
}

func TestLogin(t *testing.T) {
	inTime(t, func(t *testing.T, d *desk) {
		for user, mailbox := range map[string]mailgrant.ID{"case-manager": "", "CASE-Manager": "", string(d.app.ID): "", "office@contoso.example": d.box.ID, "OFFICE@Contoso.example": d.box.ID} {
			c, err := d.Login(t.Context(), user, d.text, "smtp", "192.0.2.1")
			if err != nil || c.App.ID != d.app.ID || c.Mailbox != mailbox || c.Door != "smtp" || c.Org != d.org {
				t.Errorf("%s: %+v, %v", user, c, err)
			}
		}
		_, err := d.Login(t.Context(), "kim@contoso.example", d.text, "smtp", "192.0.2.1")
		is(t, err, mailgrant.Forbidden) // a mailbox that is not there, and a good key
		system := d.mailbox(t, "noreply@contoso.example", mailgrant.RoleSystem)
		_, err = d.Login(t.Context(), system.Address, d.text, "smtp", "192.0.2.1")
		is(t, err, mailgrant.Forbidden)
		other := d.mailbox(t, "kim@contoso.example", mailgrant.RoleNone)
		d.update(t, func(a *mailgrant.App) { a.Mailboxes = []mailgrant.ID{other.ID} })
		_, err = d.Login(t.Context(), d.box.Address, d.text, "smtp", "192.0.2.1")
		is(t, err, mailgrant.Forbidden)
		if c, err := d.Login(t.Context(), other.Address, d.text, "smtp", "192.0.2.1"); err != nil || c.Mailbox != other.ID {
			t.Errorf("its own mailbox: %+v, %v", c, err)
		}
		_, err = d.Login(t.Context(), "another-app", d.text, "smtp", "192.0.2.2")
		is(t, err, mailgrant.Unauthorized)
		for _, key := range []string{"", "mg_", d.text + "x", d.text[:len(d.text)-1], strings.ToUpper(d.text), strings.Repeat("x", 10_000)} {
			_, err := d.Authenticate(t.Context(), key, "rest", fmt.Sprintf("198.51.100.%d", len(key)%200))
			is(t, err, mailgrant.Unauthorized)
		}
	})
}

func TestAP08KeysThatAreNoLongerGood(t *testing.T) {
	soon := func() *time.Time { at := time.Now().Add(time.Hour); return &at }
	for _, c := range []struct {
		name   string
		in     func() access.KeyInput
		app    func(a *mailgrant.App)
		after  func(t *testing.T, d *desk, k mailgrant.Key)
		door   string
		source string
		code   mailgrant.Code
	}{
		{name: "good", door: "rest"},
		{name: "revoked", after: func(t *testing.T, d *desk, k mailgrant.Key) { must(t, d.RevokeKey(t.Context(), d.org, k.ID)) }, code: mailgrant.Unauthorized},
		{name: "expired", in: func() access.KeyInput { return access.KeyInput{NotAfter: soon()} }, after: func(*testing.T, *desk, mailgrant.Key) { time.Sleep(time.Hour) }, code: mailgrant.Unauthorized},
		{name: "not expired", in: func() access.KeyInput { return access.KeyInput{NotAfter: soon()} }},
		{name: "from its network", in: func() access.KeyInput { return access.KeyInput{Sources: []string{"192.0.2.0/24"}} }, source: "192.0.2.200"},
		{name: "from its address, written as IPv6", in: func() access.KeyInput { return access.KeyInput{Sources: []string{"192.0.2.7"}} }, source: "::ffff:192.0.2.7"},
		{name: "from elsewhere", in: func() access.KeyInput { return access.KeyInput{Sources: []string{"192.0.2.0/24"}} }, source: "192.0.3.1", code: mailgrant.Forbidden},
		{name: "from nowhere", in: func() access.KeyInput { return access.KeyInput{Sources: []string{"192.0.2.0/24"}} }, source: "unix", code: mailgrant.Forbidden},
		{name: "another door", app: func(a *mailgrant.App) { a.Doors = []string{"rest"} }, door: "smtp", code: mailgrant.Forbidden},
		{name: "switched off", app: func(a *mailgrant.App) { a.Disabled = true }, code: mailgrant.Forbidden},
		{name: "app deleted", after: func(t *testing.T, d *desk, _ mailgrant.Key) { must(t, d.DeleteApp(t.Context(), d.org, d.app.ID)) }, code: mailgrant.Unauthorized},
	} {
		t.Run(c.name, func(t *testing.T) {
			inTime(t, func(t *testing.T, d *desk) {
				in := access.KeyInput{}
				if c.in != nil {
					in = c.in()
				}
				k, text := d.issue(t, in)
				before, err := d.Authenticate(t.Context(), text, "rest", "192.0.2.7")
				must(t, err)
				if c.app != nil {
					d.update(t, c.app)
				}
				if c.after != nil {
					c.after(t, d, k)
				}
				door, source := "rest", "192.0.2.7"
				if c.door != "" {
					door = c.door
				}
				if c.source != "" {
					source = c.source
				}
				_, err = d.Authenticate(t.Context(), text, door, source)
				before.Door, before.Source = door, source
				_, confirmed := d.Confirm(t.Context(), before)
				if c.code == "" {
					must(t, err)
					must(t, confirmed)
					return
				}
				is(t, err, c.code)
				is(t, confirmed, c.code) // on a session that is open, too
			})
		})
	}
}

// What another node revoked stops here within five seconds, on open sessions too.
func TestAP08RevokedOnAnotherNode(t *testing.T) {
	inTime(t, func(t *testing.T, d *desk) {
		c, err := d.Login(t.Context(), "case-manager", d.text, "smtp", "192.0.2.1")
		must(t, err)
		must(t, d.store.RevokeKey(t.Context(), d.org, d.key.ID, time.Now()))
		for range 8 {
			time.Sleep(500 * time.Millisecond)
			_, err = d.Confirm(t.Context(), c)
		}
		is(t, err, mailgrant.Unauthorized)
		_, err = d.Login(t.Context(), "case-manager", d.text, "smtp", "192.0.2.1")
		is(t, err, mailgrant.Unauthorized)
	})
}

// A store that does not answer lets nobody in, and nobody is blamed for it.
func TestStoreThatIsAwayLetsNobodyIn(t *testing.T) {
	inTime(t, func(t *testing.T, d *desk) {
		d.store.Close()
		_, err := d.Authenticate(t.Context(), d.text, "rest", "192.0.2.1")
		is(t, err, mailgrant.Unavailable)
	})
}

func TestGuessesAreAnsweredLaterAndLater(t *testing.T) {
	inTime(t, func(t *testing.T, d *desk) {
		_, err := d.Login(t.Context(), "case-manager", d.text, "smtp", "192.0.2.1")
		must(t, err)
		var took []time.Duration
		guess := func(source string) error {
			begin := time.Now()
			_, err := d.Login(t.Context(), "case-manager", "mg_guess", "smtp", source)
			took = append(took, time.Since(begin))
			return err
		}
		for range 8 {
			is(t, guess("192.0.2.66"), mailgrant.Unauthorized)
		}
		if took[2] != 0 || took[3] != 100*time.Millisecond || took[7] < 800*time.Millisecond || !slices.IsSorted(took) {
			t.Errorf("answers took %v", took)
		}
		for range 30 {
			err = guess("192.0.2.66")
		}
		is(t, err, mailgrant.Limited)
		_, fresh, issued := d.IssueKey(t.Context(), d.org, d.app.ID, access.KeyInput{})
		must(t, issued)
		_, err = d.Login(t.Context(), "case-manager", fresh.Reveal(), "smtp", "192.0.2.66")
		is(t, err, mailgrant.Limited)
		wait := mailgrant.AsError(err).RetryAfter
		if wait < time.Second || !strings.Contains(mailgrant.AsError(err).Remedy, wait.String()) {
			t.Errorf("told to wait for %v: %q", wait, mailgrant.AsError(err).Remedy)
		}
		time.Sleep(wait - 2*time.Second)
		_, err = d.Login(t.Context(), "case-manager", fresh.Reveal(), "smtp", "192.0.2.66")
		is(t, err, mailgrant.Limited)
		time.Sleep(2 * time.Second)
		_, err = d.Login(t.Context(), "case-manager", fresh.Reveal(), "smtp", "192.0.2.66")
		must(t, err) // when it was told
		begin := time.Now()
		if _, err := d.Login(t.Context(), "case-manager", d.text, "smtp", "192.0.2.66"); err != nil || time.Since(begin) > 0 {
			t.Errorf("a key that was good a moment ago: %v after %v", err, time.Since(begin))
		}
		if _, err := d.Authenticate(t.Context(), d.text, "rest", "192.0.2.1"); err != nil {
			t.Errorf("another source: %v", err)
		}
		time.Sleep(15 * time.Minute)
		is(t, guess("192.0.2.66"), mailgrant.Unauthorized) // it is heard again
		if d := took[len(took)-1]; d != 0 {
			t.Errorf("after a quiet quarter of an hour the answer took %v", d)
		}
	})
}

func TestAP02SenderRules(t *testing.T) {
	inTime(t, func(t *testing.T, d *desk) {
		m := mailgrant.Mailbox{Address: "Office@contoso.example"}
		send := mailgrant.Mailbox{Address: "office@contoso.example", Senders: []string{"sales@contoso.example", "*@shop.example"}}
		free := mailgrant.Caller{Org: d.org, App: d.app}
		bound := free
		bound.App.Senders = []string{"office@contoso.example"}
		for _, c := range []struct {
			name string
			as   mailgrant.Caller
			m    mailgrant.Mailbox
			ids  []string
			code mailgrant.Code
		}{
			{"its own address", free, m, []string{"office@contoso.example", "OFFICE@CONTOSO.EXAMPLE", `"office"@contoso.example`}, ""},
			{"another envelope", free, m, []string{"boss@contoso.example", "office@contoso.example"}, mailgrant.Forbidden},
			{"another From", free, m, []string{"office@contoso.example", "boss@contoso.example"}, mailgrant.Forbidden},
			{"proved to be its to send as", free, send, []string{"sales@contoso.example", "any@shop.example", "office@contoso.example"}, ""},
			{"a domain that ends alike", free, send, []string{"any@evilshop.example"}, mailgrant.Forbidden},
			{"a domain below", free, send, []string{"any@a.shop.example"}, mailgrant.Forbidden},
			{"an app with a list", bound, send, []string{"sales@contoso.example"}, mailgrant.Forbidden},
			{"a null sender next to a good one", free, m, []string{"", "office@contoso.example"}, ""},
			{"a null sender alone", free, m, []string{""}, mailgrant.Forbidden},
			{"nobody", free, m, nil, mailgrant.Forbidden},
			{"AP-04 two addresses", free, m, []string{"office@contoso.example, boss@contoso.example"}, mailgrant.Invalid},
			{"AP-04 a name around it", free, m, []string{"x <office@contoso.example>"}, mailgrant.Invalid},
			{"AP-04 a quoted @", free, m, []string{`"boss@contoso.example"@office`}, mailgrant.Forbidden},
			{"AP-04 a route", free, m, []string{"@a,@b:office@contoso.example"}, mailgrant.Invalid},
			{"AP-04 a percent", free, m, []string{"office%contoso.example@evil.example"}, mailgrant.Forbidden},
			{"AP-04 a comment", free, m, []string{"office(x)@contoso.example"}, mailgrant.Invalid},
			{"AP-03 a line break", free, m, []string{"office@contoso.example\r\nBcc: x@y"}, mailgrant.Invalid},
			{"AP-03 NUL", free, m, []string{"office\x00@contoso.example"}, mailgrant.Invalid},
			{"the operator, bound by the mailbox only", mailgrant.Caller{Org: d.org, Operator: true}, m, []string{"boss@contoso.example"}, mailgrant.Forbidden},
		} {
			err := d.MaySend(t.Context(), c.as, c.m, c.ids)
			switch {
			case c.code == "" && err != nil:
				t.Errorf("%s: %v", c.name, err)
			case c.code != "" && (!errors.Is(err, c.code) || mailgrant.AsError(err).Remedy == ""):
				t.Errorf("%s: got %v, want %s with a remedy", c.name, err, c.code)
			}
		}
	})
}

func TestSE10KeysAreShownOnceAndKeptAsHashes(t *testing.T) {
	inTime(t, func(t *testing.T, d *desk) {
		l, err := d.store.Keys(t.Context(), d.org, d.app.ID)
		must(t, err)
		if len(l) != 1 || strings.Contains(fmt.Sprintf("%+v", l), d.text) || len(l[0].Prefix) > 7 || !strings.HasPrefix(d.text, l[0].Prefix) {
			t.Errorf("kept: %+v", l)
		}
		if _, err := d.Authenticate(t.Context(), l[0].Prefix, "rest", "192.0.2.1"); !errors.Is(err, mailgrant.Unauthorized) {
			t.Errorf("a prefix opens: %v", err)
		}
		if !mailgrant.Caller.May(mailgrant.Caller{Key: l[0]}, mailgrant.ScopeSend) || mailgrant.Caller.May(mailgrant.Caller{Key: l[0]}, mailgrant.ScopeManage) {
			t.Errorf("rights: %v", l[0].Scopes)
		}
		done := make(chan error, 1)
		ctx, stop := context.WithCancel(t.Context())
		go func() { done <- d.Run(ctx) }()
		_, err = d.Authenticate(t.Context(), d.text, "rest", "192.0.2.1")
		must(t, err)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		stop()
		must(t, <-done)
		if l, _ = d.store.Keys(t.Context(), d.org, d.app.ID); l[0].LastUse == nil {
			t.Error("its last use is not kept")
		}
	})
}

func TestAppsAndKeysThatAreRefused(t *testing.T) {
	inTime(t, func(t *testing.T, d *desk) {
		past := time.Now().Add(-time.Hour)
		for name, in := range map[string]access.KeyInput{"scope": {Scopes: []mailgrant.Scope{"all"}}, "source": {Sources: []string{"example.com"}},
			"past": {NotAfter: &past}, "name": {Name: "a\r\nb"}} {
			if _, _, err := d.IssueKey(t.Context(), d.org, d.app.ID, in); !errors.Is(err, mailgrant.Invalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
		_, _, err := d.IssueKey(t.Context(), "org_other", d.app.ID, access.KeyInput{})
		is(t, err, mailgrant.NotFound) // AP-01
		for name, app := range map[string]mailgrant.App{"none": {}, "address": {Name: "a@b"}, "control": {Name: "a\nb"}, "like an id": {Name: "app_x"}, "like a key": {Name: "mg_x"},
			"class": {Name: "x", Classes: []mailgrant.Class{"boss"}}, "door": {Name: "x", Doors: []string{"window"}}, "sender": {Name: "x", Senders: []string{"*x@y.example"}},
			"limit": {Name: "x", PerMinute: -1}, "mailbox": {Name: "x", Mailboxes: []mailgrant.ID{"mbx_none"}}} {
			app.Org = d.org
			if _, err := d.CreateApp(t.Context(), app); !errors.Is(err, mailgrant.Invalid) || mailgrant.AsError(err).Field == "" {
				t.Errorf("%s: %v", name, err)
			}
		}
		_, err = d.CreateApp(t.Context(), mailgrant.App{Org: d.org, Name: "Case-Manager"})
		is(t, err, mailgrant.Conflict)
	})
}
