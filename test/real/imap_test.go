package real_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/imap"
	"github.com/mailgrant/mailgrant/test/real"
)

// imapWay is the way to a mailbox of m by IMAP.
func imapWay(m *real.MailServer, address, security, mech string, token func(fresh bool) string) provider.Way {
	port := m.IMAPPort
	if security == "tls" {
		port = m.IMAPSPort
	}
	return provider.Way{
		Mailbox: mailgrant.Mailbox{Address: address, Kind: mailgrant.MailboxOwn}, Grant: mailgrant.Grant{Flow: mailgrant.FlowCode, Mailbox: address},
		Settings: provider.Settings{Template: "generic", IMAPHost: m.Host, IMAPPort: port, IMAPSecurity: security, SASL: []string{mech}},
		CAFile:   m.CAFile, Dial: new(net.Dialer).DialContext,
		Token: func(_ context.Context, _ string, fresh bool) (mailgrant.Token, error) {
			return mailgrant.Token{Value: mailgrant.NewSecret(token(fresh))}, nil
		},
	}
}

func imapReader(t *testing.T) provider.Reader {
	return imap.Reader(imap.Config{TLS: func(name, _ string) *tls.Config { return trusting(t, name) }})
}

// A reads is a mailbox that is read, with all that was taken.
type reads struct {
	t      *testing.T
	box    provider.Inbox
	cursor provider.Cursor
	got    map[string][]byte
	order  []string
}

func openIMAP(t *testing.T, w provider.Way, r provider.Reading) *reads {
	t.Helper()
	box, err := imapReader(t).Open(t.Context(), w, r)
	if err != nil {
		t.Fatal(err)
	}
	return &reads{t: t, box: box, got: map[string][]byte{}}
}

// all takes what is there.
func (r *reads) all() {
	r.t.Helper()
	for more := true; more; {
		var err error
		r.cursor, more, err = r.box.Next(r.t.Context(), r.cursor, func(in provider.Incoming) error {
			if in.Err != nil {
				return in.Err
			}
			b, err := io.ReadAll(in.Body)
			if err == nil && r.got[in.Remote] != nil {
				err = fmt.Errorf("%s came twice", in.Remote)
			}
			if err == nil && (in.ReceivedAt.IsZero() || time.Since(in.ReceivedAt).Abs() > time.Hour || in.Size != int64(len(b))) {
				err = fmt.Errorf("%s is of %v and %d bytes, want now and %d", in.Remote, in.ReceivedAt, in.Size, len(b))
			}
			r.got[in.Remote] = b
			r.order = append(r.order, in.Remote)
			return err
		})
		if err != nil {
			r.t.Fatal(err)
		}
	}
}

// await waits until there are n messages.
func (r *reads) await(n int) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	for r.all(); len(r.got) < n; r.all() {
		if err := r.box.Wait(ctx); err != nil {
			r.t.Fatalf("after %d of %d messages: %v", len(r.got), n, err)
		}
	}
}

// deliver submits messages to a mailbox.
func deliver(t *testing.T, m *real.MailServer, token, to string, subjects ...string) {
	t.Helper()
	s, err := sender{m: m, address: real.Alex, token: token, security: "tls"}.open(t)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, subject := range subjects {
		body := "From: " + real.Alex + "\r\nSubject: " + subject + "\r\n\r\n.\r\n" + strings.Repeat("Hi\r\n", 1000)
		if out := s.Send(t.Context(), handover(real.Alex, []byte(body), to)); out.Fate != mailgrant.FateDelivered {
			t.Fatalf("%+v", out)
		}
	}
}

func TestTokensOpenDovecotIMAP(t *testing.T) {
	p := real.NewOIDC(t, real.OIDCOptions{})
	m := real.NewMailServer(t, p)
	good := token(t, p, real.Robin)
	deliver(t, m, token(t, p, real.Alex), real.Robin, "one")
	m.Await(t, real.Robin, 1)
	for _, security := range []string{"starttls", "tls"} {
		for _, mech := range []string{"XOAUTH2", "OAUTHBEARER"} {
			r := openIMAP(t, imapWay(m, real.Robin, security, mech, func(bool) string { return good }), provider.Reading{})
			r.all()
			if len(r.got) != 1 || !bytes.Contains(r.got[r.order[0]], []byte("Subject: one\r\n")) {
				t.Errorf("%s by %s: got %q", mech, security, r.got)
			}
			if !r.box.Pushes() {
				t.Error("Dovecot pushes")
			}
			if err := r.box.Close(); err != nil {
				t.Error(err)
			}
		}
		// A refused token is renewed once.
		for _, mech := range []string{"XOAUTH2", "OAUTHBEARER"} {
			asked := 0
			w := imapWay(m, real.Robin, security, mech, func(fresh bool) string {
				if asked++; fresh {
					return good
				}
				return changed(good)
			})
			openIMAP(t, w, provider.Reading{}).box.Close()
			if asked != 2 {
				t.Errorf("%s by %s: %d tokens were asked for", mech, security, asked)
			}
		}
	}
	_, err := imapReader(t).Open(t.Context(), imapWay(m, real.Robin, "tls", "XOAUTH2", func(bool) string { return "opaque" }), provider.Reading{})
	if e := mailgrant.AsError(err); e == nil || e.Finding == nil || !strings.Contains(e.Finding.Raw, "AUTHENTICATIONFAILED") {
		t.Errorf("a token that is none: %v", err)
	}
}

// Dovecot tells of new mail by itself; what is read is marked, moved and deleted,
// and folders are made.
func TestDovecotIMAPPushes(t *testing.T) {
	p := real.NewOIDC(t, real.OIDCOptions{})
	m := real.NewMailServer(t, p)
	alex, robin := token(t, p, real.Alex), token(t, p, real.Robin)
	way := imapWay(m, real.Robin, "tls", "OAUTHBEARER", func(bool) string { return robin })
	r := openIMAP(t, way, provider.Reading{})
	r.all()
	for i := range 3 {
		sent := time.Now()
		deliver(t, m, alex, real.Robin, fmt.Sprintf("n%d", i))
		r.await(i + 1)
		t.Logf("noticed and read %v after it was submitted", time.Since(sent))
	}
	var subjects []string
	for i := range 250 { // more than a page
		subjects = append(subjects, fmt.Sprintf("m%d", i))
	}
	deliver(t, m, alex, real.Robin, subjects...)
	r.await(253)
	sent := m.Await(t, real.Robin, 253)
	for i, name := range r.order {
		found := false
		for _, f := range sent {
			found = found || bytes.Equal(bytes.ReplaceAll(f.Raw, []byte("\n"), []byte("\r\n")), r.got[name])
		}
		if !found {
			t.Fatalf("%d, %s: is nowhere in the Maildir", i, name)
		}
	}

	ctx := t.Context()
	if err := r.box.Done(ctx, r.order[:2], mailgrant.AfterMark, ""); err != nil {
		t.Fatal(err)
	}
	if err := r.box.Done(ctx, r.order[2:4], mailgrant.AfterMove, "Erledigt & Ärger"); err != nil {
		t.Fatal(err)
	}
	for range 2 { // what is gone is no error
		if err := r.box.Done(ctx, r.order[4:253], mailgrant.AfterDelete, ""); err != nil {
			t.Fatal(err)
		}
	}
	r.all()
	r.box.Close()
	if n := len(m.Messages(t, real.Robin)); n != 2 {
		t.Errorf("%d messages are left in the inbox, want 2", n)
	}

	folders, err := imapReader(t).Folders(ctx, way)
	if got := fmt.Sprint(folders); err != nil || !strings.Contains(got, "{INBOX inbox}") || !strings.Contains(got, "{Erledigt & Ärger }") {
		t.Errorf("folders: %v, %v", got, err)
	}
	both := openIMAP(t, way, provider.Reading{Folders: []string{"erledigt & ärger", "inbox"}, Poll: time.Second})
	defer both.box.Close()
	both.all()
	if len(both.got) != 4 || !strings.HasPrefix(both.order[0], "Erledigt & Ärger/") || !strings.HasPrefix(both.order[3], "INBOX/") {
		t.Errorf("got %q", both.order)
	}
	deliver(t, m, alex, real.Robin, "polled")
	both.await(5)
	none := openIMAP(t, way, provider.Reading{Since: time.Now().Add(time.Hour)})
	defer none.box.Close()
	if none.all(); len(none.got) != 0 {
		t.Errorf("older mail was read: %q", none.order)
	}
	if _, err := imapReader(t).Open(ctx, way, provider.Reading{Folders: []string{"nowhere"}}); err == nil || !strings.Contains(mailgrant.AsError(err).Remedy, "Erledigt & Ärger, ") && !strings.Contains(mailgrant.AsError(err).Remedy, "INBOX") {
		t.Errorf("a folder that is missing: %v", err)
	}
}
