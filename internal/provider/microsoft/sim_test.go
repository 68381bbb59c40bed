package microsoft

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/sim"
)

const simKim = "kim@contoso.example"

// inSim is the way to Kim's mailbox in an imitation of Microsoft 365, by a right of
// the app itself. Trust are whose certificates are good for notices.
func inSim(t *testing.T, trust ...*x509.Certificate) (*sim.Sim, provider.Way) {
	t.Helper()
	s, err := sim.Start(context.Background(), sim.Config{World: sim.Contoso(), Trust: trust})
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.CertPool()}}
	client := &http.Client{Transport: transport, Timeout: 20 * time.Second}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, provider.Way{
		Mailbox:  mailgrant.Mailbox{Address: simKim, Kind: mailgrant.MailboxApp},
		Grant:    mailgrant.Grant{Flow: mailgrant.FlowApp},
		Settings: provider.Settings{Template: "microsoft365", GraphURL: s.GraphURL(), Resources: map[mailgrant.Capability]string{mailgrant.CanAPIRead: "graph"}},
		HTTP:     client,
		Token: func(context.Context, string, bool) (mailgrant.Token, error) {
			res, err := client.PostForm(s.LoginURL()+"/contoso.example/oauth2/v2.0/token", url.Values{"grant_type": {"client_credentials"}, "client_id": {sim.ContosoSystemClientID},
				"client_secret": {sim.ContosoSystemClientSecret}, "scope": {"https://graph.microsoft.com/.default"}})
			if err != nil {
				return mailgrant.Token{}, err
			}
			defer res.Body.Close()
			var tok mailgrant.Token
			var doc struct {
				Token string `json:"access_token"`
			}
			err = json.NewDecoder(res.Body).Decode(&doc)
			tok.Value = mailgrant.NewSecret(doc.Token)
			return tok, err
		},
	}
}

func simMail(t *testing.T, s *sim.Sim, subjects ...string) {
	t.Helper()
	for _, subject := range subjects {
		if _, err := s.Deliver(simKim, []byte("From: Pat <pat@fabrikam.example>\r\nTo: "+simKim+"\r\nSubject: "+subject+"\r\n\r\nHi\r\n")); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReadsTheImitation(t *testing.T) {
	s, w := inSim(t)
	s.ClearMail()
	var many []string
	for i := range 120 { // more than two pages
		many = append(many, fmt.Sprintf("m%03d", i))
	}
	simMail(t, s, many...)
	known := map[string]bool{}
	var got []string
	r := provider.Reading{Known: func(context.Context, []string) (map[string]bool, error) { return known, nil }}
	take := func(in provider.Incoming) error {
		raw, err := io.ReadAll(in.Body)
		if err != nil || known[in.Remote] || in.ReceivedAt.IsZero() {
			t.Errorf("%s: %v", in.Remote, err)
		}
		known[in.Remote] = true
		_, after, _ := strings.Cut(string(raw), "Subject: ")
		subject, _, _ := strings.Cut(after, "\r\n")
		got = append(got, subject)
		return err
	}
	in := openMail(t, w, r)
	var at provider.Cursor
	all := func(want ...string) {
		t.Helper()
		got = nil
		for more := true; more; {
			var err error
			if at, more, err = in.Next(t.Context(), at, take); err != nil {
				t.Fatal(err)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	all(many...)
	all()
	simMail(t, s, "later")
	all("later")

	ids := slices.Sorted(maps.Keys(known))
	for what, id := range map[mailgrant.AfterRead]string{mailgrant.AfterMark: ids[0], mailgrant.AfterMove: ids[1], mailgrant.AfterDelete: ids[2]} {
		for range 2 { // what is done already is no error
			if err := in.Done(t.Context(), []string{id}, what, "Ablage/2026"); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	all()
	if n := len(s.MailIn(simKim, sim.FolderInbox)); n != 119 {
		t.Errorf("%d messages in the inbox, want 119", n)
	}
	list, err := Reader(ReadConfig{}).Folders(t.Context(), w)
	if text := fmt.Sprint(list); err != nil || !strings.Contains(text, "{Ablage/2026 }") || !strings.Contains(text, " inbox}") || !strings.Contains(text, " trash}") {
		t.Errorf("folders: %v, %v", list, err)
	}

	if err := s.SetFault(sim.Fault{Name: "graph-410", Times: 1}); err != nil {
		t.Fatal(err)
	}
	simMail(t, s, "after the reset")
	all("after the reset")
}

// The imitation tells of new mail, and of the life of the subscription.
func TestTheImitationTells(t *testing.T) {
	n := NewNotices()
	door := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		reply, _ := n.Handle(r.URL.Query().Get("validationToken"), body)
		if reply.Type != "" {
			rw.Header().Set("Content-Type", reply.Type)
		}
		rw.WriteHeader(reply.Status)
		io.WriteString(rw, reply.Body)
	}))
	defer door.Close()
	s, w := inSim(t, door.Certificate())
	s.ClearMail()
	k := &keeper{t, map[string]bool{}, nil}
	r := k.reading()
	r.Push, r.PushSecret = door.URL+"/graph", "s3cret"
	in, err := Reader(ReadConfig{Notices: n}).Open(t.Context(), w, r)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	var at provider.Cursor
	k.all(in, &at)
	if subs := s.Subscriptions(); !in.Pushes() || len(subs) != 1 || subs[0].Mailbox != simKim {
		t.Fatalf("subscribed: %+v", subs)
	}
	for i := range 3 {
		sent := time.Now()
		simMail(t, s, fmt.Sprint(i))
		if err := in.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := k.all(in, &at); len(k.said) != 1 {
			t.Errorf("got %q", got)
		}
		t.Logf("read %v after it came", time.Since(sent))
	}
	for _, event := range []string{sim.LifecycleReauthorize, sim.LifecycleMissed, sim.LifecycleRemoved} {
		if err := s.Lifecycle(s.Subscriptions()[0].ID, event); err != nil {
			t.Fatal(err)
		}
		if err := in.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := k.all(in, &at); got != "" || !in.Pushes() || len(s.Subscriptions()) != 1 {
			t.Errorf("%s: got %q", event, got)
		}
	}
}
