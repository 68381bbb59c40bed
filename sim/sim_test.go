package sim_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant/sim"
)

func TestStartThatFailsLeavesNothing(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if s, err := sim.Start(t.Context(), sim.Config{SMTP: taken.Addr().String()}); err == nil {
		s.Close()
		t.Error("started on an address that is taken")
	}
}

func TestContextEndsTheSim(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	s, err := sim.Start(ctx, sim.Config{})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", s.SMTPAddr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	enough := errors.New("enough")
	cancel(enough)
	if _, err := s.WaitMail(context.Background(), "kim@contoso.example", 1); !errors.Is(err, enough) {
		t.Errorf("waiting for mail: got %v", err)
	}
	if err := s.WaitCount(context.Background(), "never", 1); !errors.Is(err, enough) {
		t.Errorf("waiting for a count: got %v", err)
	}
	io.Copy(io.Discard, conn)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("a second time: %v", err)
	}
}

// Everybody sends, refreshes and changes the world at once.
func TestManyAtOnce(t *testing.T) {
	e := start(t, knobs(func(k *sim.Knobs) {
		k.GraphConcurrency, k.PerMinute, k.Connections, k.KeepMail, k.RecipientsPerDay = -1, -1, -1, 50, -1
	}))
	token, refresh := e.userToken("kim@contoso.example", graphHost+"Mail.Send"), e.tokens("kim@contoso.example").text("refresh_token")
	smtpToken := e.userToken("kim@contoso.example")
	dialogues := make([]*dialogue, 4)
	for i := range dialogues {
		dialogues[i] = e.login("kim@contoso.example", smtpToken)
	}
	bad := make(chan string, 200)
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for range 10 {
				if reply, err := dialogues[i].send("kim@contoso.example", letter, "b@example.net"); err != nil || reply[0] != '2' {
					bad <- fmt.Sprint("smtp: ", reply, err)
				}
				a, err := e.try("POST", e.GraphURL()+"/v1.0/me/sendMail", plainType, []byte(b64(letter)), "Authorization", "Bearer "+token)
				if err != nil || a.status != 202 {
					bad <- fmt.Sprint("graph: ", a, err)
				}
			}
		})
		all.Go(func() {
			for range 5 {
				form := renewal(refresh).Encode()
				a, err := e.try("POST", e.LoginURL()+"/organizations/oauth2/v2.0/token", "application/x-www-form-urlencoded", []byte(form))
				if err != nil || a.status != 200 {
					bad <- fmt.Sprint("token: ", a, err)
				}
				if err := e.World().ChangeMailbox("sam@contoso.example", func(m *sim.Mailbox) { m.Used++ }); err != nil {
					bad <- err.Error()
				}
				e.SetFault(sim.Fault{Name: fmt.Sprint("f", i), Point: "graph.delete", Do: sim.DoClose})
				e.Advance(time.Second)
			}
		})
	}
	all.Wait()
	close(bad)
	for b := range bad {
		t.Error(b)
	}
	if m, _ := e.World().Mailbox("sam@contoso.example"); m.Used != 20 {
		t.Errorf("changes were lost: got %d, want 20", m.Used)
	}
	c := e.Counts()
	if c["smtp.messages"] != 40 || c["graph.messages"] != 40 || len(e.AllMail()) != 50 {
		t.Errorf("got %d and %d messages, %d kept", c["smtp.messages"], c["graph.messages"], len(e.AllMail()))
	}
}

func TestSMTPLimitsOfTheConversation(t *testing.T) {
	e := start(t, knobs(func(k *sim.Knobs) { k.ProtocolErrors = 2 }))
	d := e.dial()
	d.want("500 5.3.3 ", "WISH")
	d.want("500 5.3.3 ", "WISH")
	d.want("421 4.7.0 Too many errors", "WISH")
	if _, err := d.in.ReadByte(); err != io.EOF {
		t.Errorf("then the connection ends: got %v", err)
	}
	d = e.dial()
	d.want("500 5.5.6 Line too long", "NOOP "+strings.Repeat("x", 3000))
	e.World().ChangeKnobs(func(k *sim.Knobs) { k.IdleTimeout = sim.Duration(time.Millisecond) })
	e.dial().want("421 4.4.1 Connection timed out", "")
}

func TestSentItemsWithoutACopy(t *testing.T) {
	e := start(t, contoso(func(t *sim.Tenant) { t.Mailboxes[2].NoSentCopy = true }))
	if reply, err := e.login("kim@contoso.example", e.userToken("kim@contoso.example")).send("kim@contoso.example", letter, "b@example.net"); err != nil || reply[0] != '2' {
		t.Fatalf("got %q, %v", reply, err)
	}
	if len(e.Mail("b@example.net")) != 1 || len(e.Sent("kim@contoso.example")) != 0 {
		t.Error("there is a copy in Sent Items")
	}
}

func TestGuests(t *testing.T) {
	e := start(t, contoso(func(t *sim.Tenant) {
		t.Guests = []sim.Guest{{ID: "aaaaaaaa-0000-4000-8000-00000000000a", Address: "robin@fabrikam.example"}}
	}))
	at := func(tenant string) string {
		return e.LoginURL() + "/" + tenant + "/oauth2/v2.0/authorize?" + request("scope", "openid profile "+graphHost+"User.Read").Encode()
	}
	robin := sim.SignIn{Address: "robin@fabrikam.example"}
	back, err := e.SignIn(e.ctx, at("contoso.example"), robin)
	if err != nil {
		t.Fatal(err)
	}
	a := e.token("contoso.example", redemption(back.Query().Get("code")))
	id := claims(t, a.text("id_token"))
	if id["tid"] != sim.ContosoTenantID || id["oid"] != "aaaaaaaa-0000-4000-8000-00000000000a" {
		t.Errorf("as a guest: got %v", id)
	}
	if back, err = e.SignIn(e.ctx, at("organizations"), robin); err != nil {
		t.Fatal(err)
	}
	id = claims(t, e.token("organizations", redemption(back.Query().Get("code"))).text("id_token"))
	if id["tid"] != sim.FabrikamTenantID || id["oid"] == "aaaaaaaa-0000-4000-8000-00000000000a" {
		t.Errorf("at home: got %v", id)
	}
	var page *sim.PageError
	_, err = e.SignIn(e.ctx, at("fabrikam.example"), sim.SignIn{Address: "kim@contoso.example"})
	if !errors.As(err, &page) || !strings.Contains(page.Text, "AADSTS50020") {
		t.Errorf("nobody's guest: got %v", err)
	}
}

func TestPersonalAccounts(t *testing.T) {
	e := start(t)
	e.World().ChangeApp(sim.ContosoClientID, func(a *sim.App) { a.Accounts = sim.AudienceAll })
	back, err := e.SignIn(e.ctx, e.authorizeURL("common"), sim.SignIn{Address: "pat@outlook.example"})
	if err != nil {
		t.Fatal(err)
	}
	a := e.token("common", redemption(back.Query().Get("code")))
	if tid := claims(t, a.text("id_token"))["tid"]; tid != "9188040d-6c67-4c5b-b112-36a304b66dad" {
		t.Errorf("tid: got %v", tid)
	}
	e.login("pat@outlook.example", a.text("access_token"))
}

func TestClouds(t *testing.T) {
	e := start(t, contoso(func(t *sim.Tenant) { t.Cloud = "gcchigh" }))
	a := e.get(e.LoginURL() + "/contoso.example/v2.0/.well-known/openid-configuration")
	if a.text("tenant_region_scope") != "USG" || a.text("msgraph_host") != "graph.microsoft.us" {
		t.Errorf("got %s", a.body)
	}
	form := func(resource string) url.Values {
		return url.Values{"grant_type": {"client_credentials"}, "client_id": {sim.ContosoSystemClientID}, "client_secret": {sim.ContosoSystemClientSecret}, "scope": {resource + "/.default"}}
	}
	if a := e.token("contoso.example", form("https://outlook.office365.us")); a.status != 200 {
		t.Errorf("its own resource: got %d %s", a.status, a.body)
	}
	e.wantAADSTS("that of another cloud", e.token("contoso.example", form("https://outlook.office365.com")), "500011", "invalid_resource")
}
