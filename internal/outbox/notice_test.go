package outbox_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/outbox"
	"github.com/mailgrant/mailgrant/internal/provider"
)

func TestR164HeldMailboxIsToldByAnother(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		r.far.answer = func(_ int, h handed) provider.Outcome {
			if h.from == "office@contoso.example" {
				return held()
			}
			return provider.Outcome{}
		}
		r.send("one")
		time.Sleep(12 * time.Hour)
		synctest.Wait()
		var told []handed
		for _, h := range r.far.list() {
			if h.to[0] == "it@contoso.example" {
				told = append(told, h)
			}
		}
		if len(told) != 1 || told[0].from != "noreply@contoso.example" {
			t.Fatalf("notices: %+v\n%s", told, r.log)
		}
		for _, want := range []string{"office@contoso.example", "It is smtp-auth-disabled-mailbox.", "Mend it.", "tenant-admin", "Auto-Submitted: auto-generated"} {
			if !strings.Contains(told[0].body, want) {
				t.Errorf("the notice lacks %q:\n%s", want, told[0].body)
			}
		}
	}, func(r *rig) { r.config = func(c *outbox.Config) { c.NoticeTo = "it@contoso.example" } })
}

func TestR164NoticeOfTheSystemMailboxGoesByGlobal(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		r.far.answer = func(_ int, h handed) provider.Outcome {
			if h.from == "noreply@contoso.example" {
				return held()
			}
			return provider.Outcome{}
		}
		_, err := r.accept(r.caller("rest"), outbox.Envelope{From: "noreply@contoso.example", Recipients: []string{"a@example.net"}, Class: mailgrant.ClassSystem},
			message("noreply@contoso.example", "reset"))
		must(t, err)
		synctest.Wait()
		for _, h := range r.far.list() {
			if h.to[0] == "it@contoso.example" && h.from == "office@contoso.example" {
				return
			}
		}
		t.Errorf("nobody was told\n%s", r.log)
	}, func(r *rig) { r.config = func(c *outbox.Config) { c.NoticeTo = "it@contoso.example" } })
}

// The mailbox that was connected hears of it by another one, else by itself.
func TestOA04ConnectedMailboxIsWrittenTo(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		must(t, r.store.CreateRegistration(t.Context(), mailgrant.Registration{ID: "reg_a", Org: r.org, Name: "M365"}))
		g := mailgrant.Grant{ID: "gra_a", Org: r.org, Registration: "reg_a", Mailbox: "kim@contoso.example", Subject: mailgrant.Subject{Address: "kim@contoso.example"}}
		must(t, r.store.CreateGrant(t.Context(), g))
		told := func() handed {
			t.Helper()
			before := len(r.far.list())
			r.out.Connected(t.Context(), g, "Contoso", []string{"send mail as this mailbox"})
			time.Sleep(time.Second)
			synctest.Wait()
			l := r.far.list()
			if len(l) == before {
				return handed{}
			}
			return l[len(l)-1]
		}
		h := told()
		for _, want := range []string{"To: <kim@contoso.example>\r\n", "Auto-Submitted: auto-generated\r\n", "for Contoso, by signing in as kim@contoso.example", "- send mail as this mailbox"} {
			if !strings.Contains(h.body, want) {
				t.Errorf("it does not say %q:\n%s", want, h.body)
			}
		}
		if h.from != r.system.Address || len(h.to) != 1 || h.to[0] != g.Mailbox {
			t.Errorf("from %s to %v", h.from, h.to)
		}
		r.system.State, r.global.State = mailgrant.MailboxDisabled, mailgrant.MailboxDisabled
		r.set(r.system)
		r.set(r.global)
		if h := told(); h.from != "" {
			t.Errorf("nobody can tell, yet %s did", h.from)
		}
		m := r.mailbox(g.Mailbox, mailgrant.RoleNone)
		m.Grant = g.ID
		r.set(m)
		if h := told(); h.from != g.Mailbox {
			t.Errorf("it does not write to itself: %q", h.from)
		}
	})
}
