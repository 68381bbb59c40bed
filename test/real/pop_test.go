package real_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/pop"
	"github.com/mailgrant/mailgrant/test/real"
)

// popWay is the way to Robin's mailbox by POP.
func popWay(m *real.MailServer, security, mech string, token func(fresh bool) string) provider.Way {
	port := m.POP3Port
	if security == "tls" {
		port = m.POP3SPort
	}
	return provider.Way{
		Mailbox: mailgrant.Mailbox{Address: real.Robin, Kind: mailgrant.MailboxOwn}, Grant: mailgrant.Grant{Flow: mailgrant.FlowCode, Mailbox: real.Robin},
		Settings: provider.Settings{Template: "generic", POPHost: m.Host, POPPort: port, POPSecurity: security, SASL: []string{mech}},
		CAFile:   m.CAFile, Dial: new(net.Dialer).DialContext,
		Token: func(_ context.Context, _ string, fresh bool) (mailgrant.Token, error) {
			return mailgrant.Token{Value: mailgrant.NewSecret(token(fresh))}, nil
		},
	}
}

// A popBox is a mailbox that is read, with what was taken of it.
type popBox struct {
	t     *testing.T
	in    provider.Inbox
	known map[string]bool
	order []string
	got   map[string][]byte
}

func openPOP(t *testing.T, w provider.Way, since time.Time) (*popBox, error) {
	t.Helper()
	b := &popBox{t: t, known: map[string]bool{}, got: map[string][]byte{}}
	c := pop.Config{TLS: func(name, _ string) *tls.Config { return trusting(t, name) }}
	var err error
	b.in, err = pop.Reader(c).Open(t.Context(), w, provider.Reading{Since: since, Poll: time.Millisecond,
		Known: func(context.Context, []string) (map[string]bool, error) { return b.known, nil },
		Gone: func(_ context.Context, remotes []string) error {
			for _, k := range remotes {
				delete(b.known, k)
			}
			return nil
		}})
	return b, err
}

// all takes what is there.
func (b *popBox) all() error {
	for more := true; more; {
		var err error
		_, more, err = b.in.Next(b.t.Context(), "", func(in provider.Incoming) error {
			if in.Err != nil || b.known[in.Remote] {
				return fmt.Errorf("%s: twice, or %w", in.Remote, in.Err)
			}
			b.known[in.Remote] = true
			if in.Body == nil {
				return nil // too old
			}
			raw, err := io.ReadAll(in.Body)
			if err == nil && (in.Size != int64(len(raw)) || time.Since(in.ReceivedAt).Abs() > time.Hour) {
				err = fmt.Errorf("%s is of %v and %d bytes, want now and %d", in.Remote, in.ReceivedAt, in.Size, len(raw))
			}
			b.order, b.got[in.Remote] = append(b.order, in.Remote), raw
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func TestTokensOpenDovecotPOP(t *testing.T) {
	p := real.NewOIDC(t, real.OIDCOptions{})
	m := real.NewMailServer(t, p)
	good := token(t, p, real.Robin)
	deliver(t, m, token(t, p, real.Alex), real.Robin, "one")
	m.Await(t, real.Robin, 1)
	for _, security := range []string{"starttls", "tls"} {
		for _, mech := range []string{"XOAUTH2", "OAUTHBEARER"} {
			asked := 0
			w := popWay(m, security, mech, func(fresh bool) string {
				if asked++; fresh {
					return good
				}
				return changed(good)
			})
			b, err := openPOP(t, w, time.Time{})
			if err != nil || asked != 2 {
				t.Fatalf("%s by %s after %d tokens: %v", mech, security, asked, err)
			}
			if err := b.all(); err != nil || len(b.got) != 1 {
				t.Errorf("%s by %s: got %d, %v", mech, security, len(b.got), err)
			}
			b.in.Close()
		}
	}
	_, err := openPOP(t, popWay(m, "tls", "XOAUTH2", func(bool) string { return "opaque" }), time.Time{})
	if e := mailgrant.AsError(err); e == nil || e.Finding == nil || !strings.Contains(e.Finding.Raw, "[AUTH]") {
		t.Errorf("a token that is none: %v", err)
	}
}

// Messages come as they lie in the Maildir, each once; they are deleted by a clean
// QUIT and by nothing less. IM-10.
func TestDovecotPOP(t *testing.T) {
	p := real.NewOIDC(t, real.OIDCOptions{})
	m := real.NewMailServer(t, p)
	alex, robin := token(t, p, real.Alex), token(t, p, real.Robin)
	var subjects []string
	for i := range 300 { // more than a page
		subjects = append(subjects, fmt.Sprintf("m%d", i))
	}
	deliver(t, m, alex, real.Robin, subjects...)
	lie := m.Await(t, real.Robin, 300)

	w := popWay(m, "tls", "XOAUTH2", func(bool) string { return robin })
	var last net.Conn
	w.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		var err error
		last, err = new(net.Dialer).DialContext(ctx, network, addr)
		return last, err
	}
	b, err := openPOP(t, w, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.in.Close()
	if err := b.all(); err != nil || len(b.got) != 300 {
		t.Fatalf("got %d, %v", len(b.got), err)
	}
	var want, got []string
	for _, f := range lie {
		want = append(want, string(bytes.ReplaceAll(f.Raw, []byte("\n"), []byte("\r\n"))))
	}
	for _, raw := range b.got {
		got = append(got, string(raw))
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Error("what was read is not what lies there")
	}

	deliver(t, m, alex, real.Robin, "later")
	m.Await(t, real.Robin, 301)
	if err := b.in.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.all(); err != nil || len(b.got) != 301 || !strings.Contains(string(b.got[b.order[300]]), "Subject: later") {
		t.Fatalf("got %d, %v", len(b.got), err)
	}

	last.Close() // the network goes
	if err := b.in.Done(t.Context(), b.order[:10], mailgrant.AfterDelete, ""); err == nil {
		t.Error("deleted without a connection")
	}
	if n := len(m.Messages(t, real.Robin)); n != 301 {
		t.Errorf("%d messages are left, want all", n)
	}
	for range 2 { // what is no more there is no error
		if err := b.in.Done(t.Context(), b.order[:299], mailgrant.AfterDelete, ""); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(m.Messages(t, real.Robin)); n != 2 {
		t.Errorf("%d messages are left, want 2", n)
	}
	if err := b.all(); err != nil || len(b.got) != 301 || len(b.known) != 2 {
		t.Errorf("then %d came, %d are known, %v", len(b.got), len(b.known), err)
	}

	young, err := openPOP(t, w, time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	defer young.in.Close()
	old, err := openPOP(t, w, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	defer old.in.Close()
	for b, want := range map[*popBox]int{young: 2, old: 0} {
		if err := b.all(); err != nil || len(b.got) != want || len(b.known) != 2 {
			t.Errorf("by age: %d came, %d are known, %v", len(b.got), len(b.known), err)
		}
	}
}
