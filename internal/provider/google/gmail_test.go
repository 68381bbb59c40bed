package google

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestGmail(t *testing.T) {
	const msg = "From: a@example.com\r\nTo: b@example.net\r\n\r\nHi\r\n"
	for _, c := range []struct {
		name, answer string
		status       int
		want         mailgrant.Fate
	}{
		{"sent", `{"id":"18c","threadId":"18c"}`, 200, mailgrant.FateDelivered},
		{"an answer that says nothing", `<html>`, 200, mailgrant.FateUncertain},
		{"too fast", `{"error":{"code":429,"message":"User-rate limit exceeded.  Retry after 2026-11-24T12:00:00.000Z","errors":[{"reason":"rateLimitExceeded"}]}}`, 429, mailgrant.FateLater},
		{"out of order", ``, 503, mailgrant.FateLater},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got, where string
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				b, _ := io.ReadAll(r.Body)
				got, where = string(b), r.Method+" "+r.URL.String()+" "+r.Header.Get("Content-Type")
				w.WriteHeader(c.status)
				io.WriteString(w, c.answer)
			}))
			defer s.Close()
			out := sendTo(t, s, msg)
			if out.Fate != c.want {
				t.Errorf("got %+v, want %s", out, c.want)
			}
			if got != "Bcc: blind@example.net\r\n"+msg || where != "POST /upload/gmail/v1/users/me/messages/send?uploadType=media message/rfc822" {
				t.Errorf("sent %q to %q", got, where)
			}
		})
	}
}

func way(s *httptest.Server) provider.Way {
	return provider.Way{Mailbox: mailgrant.Mailbox{Address: "a@example.com", Kind: mailgrant.MailboxOwn}, Settings: provider.Settings{Template: "google", GmailURL: s.URL},
		Grant: mailgrant.Grant{ScopesGranted: []string{"https://mail.google.com/"}}, HTTP: s.Client(),
		Token: func(context.Context, string, bool) (mailgrant.Token, error) {
			return mailgrant.Token{Value: mailgrant.NewSecret("t")}, nil
		}}
}

func sendTo(t *testing.T, s *httptest.Server, msg string) provider.Outcome {
	w := way(s)
	w.Settings.Resources = map[mailgrant.Capability]string{mailgrant.CanAPISend: "google"}
	session, err := Gmail().Open(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	return session.Send(t.Context(), &provider.Handover{From: "a@example.com", Recipients: []string{"b@example.net", "blind@example.net"}, Size: int64(len(msg)),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(msg)), nil }})
}

func TestFind(t *testing.T) {
	var q string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q = r.URL.Query().Get("q")
		io.WriteString(w, `{"messages":[{"id":"18c"}]}`)
	}))
	defer s.Close()
	found, err := Gmail().Find(t.Context(), way(s), "<1@x>", time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC))
	if !found || err != nil || q != "in:sent rfc822msgid:1@x after:2026/11/23" {
		t.Errorf("got %v, %v with %q", found, err, q)
	}
}
