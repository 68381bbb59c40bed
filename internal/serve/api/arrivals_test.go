package api_test

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
	"github.com/mailgrant/mailgrant/internal/body"
	"github.com/mailgrant/mailgrant/internal/rfc5322"
	"github.com/mailgrant/mailgrant/internal/serve/api"
	"github.com/mailgrant/mailgrant/internal/store"
)

const received = "From: Kim <kim@example.net>\r\nTo: office@contoso.example\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nMessage-ID: <1@example.net>\r\nMIME-Version: 1.0\r\n" +
	"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nSch=F6ne Gr=FC=DFe\r\n" +
	"--b\r\nContent-Type: text/html\r\nContent-Disposition: attachment; filename=\"../../<b>.html\"\r\nContent-Transfer-Encoding: base64\r\n\r\nPHNjcmlwdD4=\r\n--b--\r\n"

// arrival keeps a received message in a mailbox.
func (r *rig) arrival(m mailgrant.Mailbox) mailgrant.Arrival {
	r.Helper()
	p, err := rfc5322.Read(strings.NewReader(received))
	must(r, err)
	now := time.Now().UTC()
	a := mailgrant.Arrival{ID: mailgrant.NewID(mailgrant.PrefixArrival), Org: m.Org, Mailbox: m.ID, State: mailgrant.ArrivalNew, Protocol: "imap", NoticedAt: now, ReceivedAt: now, Size: int64(len(received))}
	a.RemoteID = string(a.ID)
	p.Fill(&a)
	sealed, err := body.Keeper{Store: r.store, Vault: r.vault}.Seal(a.Org, a.ID, []byte(received))
	must(r, err)
	at, err := r.store.Position(r.Context(), m.Org, m.ID)
	must(r, err)
	to := store.Position{Protocol: "imap", Cursor: string(a.ID)}
	_, err = r.store.Collect(r.Context(), store.Page{Org: m.Org, Mailbox: m.ID, From: at, To: to, Messages: []store.Collected{{Arrival: a, Body: sealed, BodyUntil: now.Add(time.Hour),
		Loose: []byte(a.ID), Exact: []byte(a.ID), Words: "kim@example.net grüße", Events: []mailgrant.Event{{Org: m.Org, Kind: "arrival.new", Subject: a.ID, Mailbox: m.ID}}}}})
	must(r, err)
	return a
}

func TestArrivalsAreReadOverREST(t *testing.T) {
	r := newRig(t)
	a := r.arrival(r.box)
	c := r.client(r.key(mailgrant.ScopeRead))
	l, err := c.Arrivals(t.Context(), client.ArrivalFilter{Mailbox: r.box.Address, Words: "Grüße KIM", States: []mailgrant.ArrivalState{mailgrant.ArrivalNew}})
	must(t, err)
	if len(l.Items) != 1 || l.Items[0].ID != a.ID || l.Items[0].Subject != "Grüße" || l.Next != "" {
		t.Fatalf("%+v", l)
	}
	if l, err = c.Arrivals(t.Context(), client.ArrivalFilter{Words: "nobody"}); err != nil || len(l.Items) != 0 {
		t.Errorf("%+v, %v", l, err)
	}
	got, err := c.Arrival(t.Context(), a.ID)
	must(t, err)
	if strings.TrimSpace(got.Text) != "Schöne Grüße" || len(got.Parts) != 1 || got.Parts[0].Type != "text/html" || got.HTML != "" {
		t.Errorf("%+v", got)
	}
	raw, err := c.ArrivalRaw(t.Context(), a.ID)
	must(t, err)
	if b, err := io.ReadAll(raw); err != nil || string(b) != received {
		t.Errorf("%q, %v", b, err)
	}
	file, err := c.Attachment(t.Context(), a.ID, 1)
	must(t, err)
	if b, err := io.ReadAll(file); err != nil || string(b) != "<script>" {
		t.Errorf("%q, %v", b, err)
	}
	if got, err := c.Acknowledge(t.Context(), a.ID); err != nil || got.State != mailgrant.ArrivalAcknowledged {
		t.Errorf("%s, %v", got.State, err)
	}
	if s, err := c.Reader(t.Context(), r.box.Address); err != nil || s.State != mailgrant.ReaderOff {
		t.Errorf("%+v, %v", s, err)
	}
	if err := c.ReadAgain(t.Context(), a.ID); mailgrant.AsError(err).Code != mailgrant.Conflict {
		t.Errorf("read again: %v", err)
	}
}

func TestArrivalsByPages(t *testing.T) {
	r := newRig(t)
	var want []mailgrant.ID
	for range 5 {
		want = append(want, r.arrival(r.box).ID)
	}
	c := r.client(r.key(mailgrant.ScopeRead))
	var got []mailgrant.ID
	f := client.ArrivalFilter{Limit: 2, Oldest: true}
	for {
		p, err := c.Arrivals(t.Context(), f)
		must(t, err)
		for _, a := range p.Items {
			got = append(got, a.ID)
		}
		if f.Cursor = p.Next; f.Cursor == "" {
			break
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// ME-05, ME-04: what came from outside is a file to be saved, under a name that is
// none of theirs.
func TestME05_AttachmentsAreSavedNotShown(t *testing.T) {
	r := newRig(t)
	a := r.arrival(r.box)
	for _, path := range []string{"/attachments/1", "/raw"} {
		got := r.ask("GET", "/v1/arrivals/"+string(a.ID)+path, r.key(mailgrant.ScopeRead), "")
		got.wants(t, 200)
		h := got.header
		if d := h.Get("Content-Disposition"); !strings.HasPrefix(d, "attachment;") || strings.Contains(d, "..") || strings.Contains(d, "/") || strings.Contains(d, "<") {
			t.Errorf("%s: %s", path, d)
		}
		if h.Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(h.Get("Content-Security-Policy"), "sandbox") || strings.Contains(h.Get("Content-Type"), "html") {
			t.Errorf("%s: %v", path, h)
		}
	}
	r.ask("GET", "/v1/arrivals/"+string(a.ID)+"/attachments/2", r.key(mailgrant.ScopeRead), "").wants(t, 404)
	r.ask("GET", "/v1/arrivals/"+string(a.ID)+"/attachments/../raw", r.key(mailgrant.ScopeRead), "").wants(t, 404)
}

// AP-02: a key that receives sees the arrivals of its app's mailboxes and no
// others, whatever it asks for. ME-07.
func TestAP02_ReceivingIsBoundToTheAppsMailboxes(t *testing.T) {
	r := newRig(t)
	theirs := r.mailbox(r.org, "kim@contoso.example", mailgrant.RolePersonal)
	own, other := r.arrival(r.box), r.arrival(theirs)
	app := r.app(r.org, func(a *mailgrant.App) { a.Mailboxes = []mailgrant.ID{r.box.ID} })
	key := r.keyOf(app, mailgrant.ScopeReceive)
	c := r.client(key)
	l, err := c.Arrivals(t.Context(), client.ArrivalFilter{})
	must(t, err)
	if len(l.Items) != 1 || l.Items[0].ID != own.ID {
		t.Errorf("%+v", l)
	}
	for _, path := range []string{"", "/raw", "/attachments/1"} {
		r.ask("GET", "/v1/arrivals/"+string(own.ID)+path, key, "").wants(t, 200)
		r.ask("GET", "/v1/arrivals/"+string(other.ID)+path, key, "").wants(t, 404)
	}
	for _, what := range []string{"acknowledge", "ignore", "read-again"} {
		r.ask("POST", "/v1/arrivals/"+string(other.ID)+"/"+what, key, "").wants(t, 404)
	}
	r.ask("GET", "/v1/arrivals?mailbox="+string(theirs.ID), key, "").wants(t, 404)
	r.ask("GET", "/v1/mailboxes/"+string(theirs.ID)+"/reader", key, "").wants(t, 404)
	r.ask("GET", "/v1/submissions", key, "").wants(t, 403)
	r.ask("GET", "/v1/events?kind=grant.lapsed", key, "").wants(t, 403)
	e, err := c.Events(t.Context(), client.EventFilter{})
	must(t, err)
	if len(e.Items) != 1 || e.Items[0].Subject != own.ID {
		t.Errorf("events %+v", e.Items)
	}
	if e, err = c.Events(t.Context(), client.EventFilter{Kinds: []string{"arrival.*"}}); err != nil || len(e.Items) != 1 {
		t.Errorf("arrival.*: %+v, %v", e.Items, err)
	}
	// An app without mailboxes receives nothing.
	none := r.client(r.keyOf(r.app(r.org, nil), mailgrant.ScopeReceive))
	if l, err = none.Arrivals(t.Context(), client.ArrivalFilter{}); err != nil || len(l.Items) != 0 {
		t.Errorf("%+v, %v", l, err)
	}
	if e, err = none.Events(t.Context(), client.EventFilter{}); err != nil || len(e.Items) != 0 {
		t.Errorf("%+v, %v", e, err)
	}
	if got := r.ask("GET", "/v1/arrivals", r.key(mailgrant.ScopeSend), ""); got.status != 403 || bytes.Contains(got.body, []byte(own.ID)) {
		t.Errorf("%d %s", got.status, got.body)
	}
}

func TestReceiveSettings(t *testing.T) {
	r := newRig(t, func(c *api.Config) { c.KeepArrivals = 30 * 24 * time.Hour })
	c := r.client(r.key(mailgrant.ScopeManage))
	set := func(v mailgrant.Receive) (mailgrant.Mailbox, error) {
		return c.UpdateMailbox(t.Context(), r.box.Address, client.MailboxSettings{Receive: &v})
	}
	day := mailgrant.Duration(24 * time.Hour)
	m, err := set(mailgrant.Receive{Protocol: "imap", Folders: []string{"INBOX", "Cases"}, After: mailgrant.AfterMove, MoveTo: "Done", Keep: &day})
	must(t, err)
	if m.Receive == nil || m.Receive.MoveTo != "Done" || *m.Receive.Keep != day {
		t.Errorf("%+v", m.Receive)
	}
	now, long := time.Now(), 100*day
	for name, v := range map[string]mailgrant.Receive{
		"protocol":    {Protocol: "exchange"},
		"no protocol": {},
		"after":       {Protocol: "imap", After: "burn"},
		"move to":     {Protocol: "imap", After: mailgrant.AfterMove},
		"no move":     {Protocol: "imap", MoveTo: "Done"},
		"circle":      {Protocol: "imap", Folders: []string{"Done"}, After: mailgrant.AfterMove, MoveTo: "Done"},
		"poll":        {Protocol: "pop", Poll: mailgrant.Duration(time.Second)},
		"pop folder":  {Protocol: "pop", Folders: []string{"Cases"}},
		"pop mark":    {Protocol: "pop", After: mailgrant.AfterMark},
		"keep":        {Protocol: "imap", Keep: &long},
		"both":        {Protocol: "imap", Since: &now, Everything: true},
	} {
		_, err := set(v)
		if e := mailgrant.AsError(err); err == nil || e.Remedy == "" || e.Code != mailgrant.Invalid && e.Code != mailgrant.Misset {
			t.Errorf("%s: %v", name, err)
		}
	}
	if m, err = set(mailgrant.Receive{Protocol: "off"}); err != nil || m.Receive != nil {
		t.Errorf("off: %+v, %v", m.Receive, err)
	}
}
