package microsoft

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"go.uber.org/goleak"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// graph is a little Graph: it keeps what it was sent and answers what it is told.
type graph struct {
	*httptest.Server
	mu       sync.Mutex
	seen     []string // "METHOD path"
	tokens   []string
	bodies   map[string][]byte
	uploaded []byte
	answer   func(w http.ResponseWriter, r *http.Request) bool
}

func newGraph(t *testing.T, answer func(http.ResponseWriter, *http.Request) bool) *graph {
	g := &graph{bodies: map[string][]byte{}, answer: answer}
	g.Server = httptest.NewServer(g)
	t.Cleanup(g.Close)
	return g
}

func (g *graph) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.seen = append(g.seen, r.Method+" "+r.URL.Path)
	g.tokens = append(g.tokens, r.Header.Get("Authorization"))
	g.bodies[r.URL.Path] = body
	w.Header().Set("request-id", "req-1")
	if g.answer != nil && g.answer(w, r) {
		return
	}
	switch {
	case strings.HasSuffix(r.URL.Path, "/sendMail"), strings.HasSuffix(r.URL.Path, "/send"):
		w.WriteHeader(202)
	case strings.HasSuffix(r.URL.Path, "/messages"), strings.HasSuffix(r.URL.Path, "/attachments"):
		w.WriteHeader(201)
		io.WriteString(w, `{"id":"draft=1"}`)
	case strings.HasSuffix(r.URL.Path, "/createUploadSession"):
		w.WriteHeader(201)
		fmt.Fprintf(w, `{"uploadUrl":%q}`, g.URL+"/upload/1")
	case r.Method == "PUT":
		g.uploaded = append(g.uploaded, body...)
		w.WriteHeader(200)
	case r.Method == "DELETE":
		w.WriteHeader(204)
	}
}

func (g *graph) way(kind mailgrant.MailboxKind, flow mailgrant.Flow) provider.Way {
	return provider.Way{
		Mailbox:  mailgrant.Mailbox{Address: "alex@contoso.example", Kind: kind},
		Grant:    mailgrant.Grant{Flow: flow, Capabilities: []mailgrant.Capability{mailgrant.CanAPISend, mailgrant.CanAPIRead}},
		Settings: provider.Settings{Template: "microsoft365", GraphURL: g.URL, Resources: map[mailgrant.Capability]string{mailgrant.CanAPISend: "graph", mailgrant.CanAPIRead: "graph"}},
		HTTP:     &http.Client{Transport: g.Client().Transport, Timeout: 5 * time.Second},
		Token: func(_ context.Context, resource string, fresh bool) (mailgrant.Token, error) {
			return mailgrant.Token{Value: mailgrant.NewSecret(fmt.Sprintf("%s-token-%v", resource, fresh))}, nil
		},
	}
}

func handover(msg string, to ...string) *provider.Handover {
	return &provider.Handover{From: "alex@contoso.example", Recipients: to, MessageID: "<1@contoso.example>", Size: int64(len(msg)),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(msg)), nil }}
}

const plain = "From: alex@contoso.example\r\nTo: B <b@example.net>\r\nSubject: x\r\n\r\nHi =\r\n"

func sendBy(t *testing.T, tr provider.Transport, w provider.Way, h *provider.Handover) provider.Outcome {
	t.Helper()
	s, err := tr.Open(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	return s.Send(t.Context(), h)
}

func TestMIMEArrivesByteForByte(t *testing.T) {
	for _, c := range []struct {
		kind mailgrant.MailboxKind
		flow mailgrant.Flow
		path string
	}{
		{mailgrant.MailboxOwn, mailgrant.FlowCode, "/v1.0/me/sendMail"},
		{mailgrant.MailboxShared, mailgrant.FlowCode, "/v1.0/users/alex@contoso.example/sendMail"},
		{mailgrant.MailboxApp, mailgrant.FlowApp, "/v1.0/users/alex@contoso.example/sendMail"},
	} {
		g := newGraph(t, nil)
		msg := plain + strings.Repeat("x", 50_000)
		out := sendBy(t, Graph(), g.way(c.kind, c.flow), handover(msg, "b@example.net"))
		if out.Fate != mailgrant.FateDelivered || out.RemoteID != "req-1" {
			t.Fatalf("got %+v", out)
		}
		got, err := base64.StdEncoding.DecodeString(string(g.bodies[c.path]))
		if err != nil || string(got) != msg {
			t.Errorf("%s: %d bytes, %v, want %d", c.path, len(got), err, len(msg))
		}
	}
}

func TestEnvelopeAndHeader(t *testing.T) {
	g := newGraph(t, nil)
	w := g.way(mailgrant.MailboxOwn, mailgrant.FlowCode)
	out := sendBy(t, Graph(), w, handover(plain, "B@example.net", "secret@example.net", "s2@example.net"))
	raw, _ := base64.StdEncoding.DecodeString(string(g.bodies["/v1.0/me/sendMail"]))
	if out.Fate != mailgrant.FateDelivered || string(raw) != "Bcc: secret@example.net,\r\n s2@example.net\r\n"+plain {
		t.Errorf("blind recipients: got %+v, %q", out, raw)
	}
	for _, c := range []struct{ msg, to string }{
		{strings.Replace(plain, "Subject", "Cc: c@example.net\r\nSubject", 1), "b@example.net"},
		{strings.Replace(plain, "Subject", "To: c@@example.net\r\nSubject", 1), "b@example.net"},
		{strings.Replace(plain, "Subject", "no colon\r\nSubject", 1), "b@example.net"},
	} {
		out := sendBy(t, Graph(), w, handover(c.msg, c.to))
		if out.Fate != mailgrant.FateRefused || out.Finding.Retry != mailgrant.RetryNever {
			t.Errorf("%q: got %+v, want it kept from Graph", c.msg, out)
		}
	}
	if n := len(g.seen); n != 1 {
		t.Errorf("Graph saw %d requests, want 1", n)
	}
}

func TestRefusedTokenGetsOneSuccessor(t *testing.T) {
	g := newGraph(t, func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.Header.Get("Authorization"), "false") {
			w.WriteHeader(401)
			return true
		}
		return false
	})
	out := sendBy(t, Graph(), g.way(mailgrant.MailboxOwn, mailgrant.FlowCode), handover(plain, "b@example.net"))
	if out.Fate != mailgrant.FateDelivered || len(g.seen) != 2 {
		t.Errorf("got %+v after %v", out, g.seen)
	}
}

func TestRE12ThrottledWaitsAsTold(t *testing.T) {
	for _, c := range []struct {
		value    string
		min, max time.Duration
	}{
		{"17", 17 * time.Second, 17 * time.Second},
		{time.Now().Add(90 * time.Second).UTC().Format(http.TimeFormat), 80 * time.Second, 90 * time.Second},
		{"", 0, 0}, {"-5", 0, 0}, {"soon", 0, 0}, {"1e300", 0, 0},
	} {
		g := newGraph(t, func(w http.ResponseWriter, _ *http.Request) bool {
			if c.value != "" {
				w.Header().Set("Retry-After", c.value)
			}
			w.WriteHeader(429)
			io.WriteString(w, `{"error":{"code":"ApplicationThrottled","message":"Application is over its MailboxConcurrency limit."}}`)
			return true
		})
		out := sendBy(t, Graph(), g.way(mailgrant.MailboxOwn, mailgrant.FlowCode), handover(plain, "b@example.net"))
		if out.Fate != mailgrant.FateLater || out.RetryAfter < c.min || out.RetryAfter > c.max {
			t.Errorf("%q: got %s after %v", c.value, out.Fate, out.RetryAfter)
		}
	}
}

func TestRE10LostAnswerIsUncertain(t *testing.T) {
	for _, how := range []string{"drop", "504", "200"} {
		g := newGraph(t, func(w http.ResponseWriter, _ *http.Request) bool {
			switch how {
			case "drop":
				conn, _, _ := w.(http.Hijacker).Hijack()
				conn.Close()
			case "504":
				w.WriteHeader(504)
			case "200":
				io.WriteString(w, "<html>")
			}
			return true
		})
		out := sendBy(t, Graph(), g.way(mailgrant.MailboxOwn, mailgrant.FlowCode), handover(plain, "b@example.net"))
		if out.Fate != mailgrant.FateUncertain || out.Finding == nil {
			t.Errorf("%s: got %+v, want uncertain", how, out)
		}
	}
	g := newGraph(t, nil)
	w := g.way(mailgrant.MailboxOwn, mailgrant.FlowCode)
	g.Close()
	if out := sendBy(t, Graph(), w, handover(plain, "b@example.net")); out.Fate != mailgrant.FateLater {
		t.Errorf("no connection: got %+v, want later", out)
	}
}

// A message that our own store does not give is tried again, however far it was
// read, and the mailbox is not blamed.
func TestRE06UnreadableMessageIsTriedAgain(t *testing.T) {
	g := newGraph(t, nil)
	w := g.way(mailgrant.MailboxOwn, mailgrant.FlowCode)
	msg := strings.Replace(plain, "\r\n\r\n", "\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nHi\r\n--b\r\nContent-Disposition: attachment; filename=a.bin\r\n\r\n", 1) +
		strings.Repeat("x", 80_000) + "\r\n--b--\r\n"
	for _, tr := range []provider.Transport{Graph(), Upload()} {
		for _, read := range []int{-1, 0, 10, 300, 40_000} {
			h := handover(msg, "b@example.net")
			h.Open = func() (io.ReadCloser, error) {
				gone := mailgrant.Errorf(mailgrant.NotFound, nil, "there is no such chunk")
				if read < 0 {
					return nil, gone
				}
				return io.NopCloser(io.MultiReader(strings.NewReader(msg[:read]), iotest.ErrReader(gone))), nil
			}
			out := sendBy(t, tr, w, h)
			if out.Fate != mailgrant.FateLater || out.Finding == nil || out.Finding.NeedsPerson() {
				t.Errorf("%s after %d bytes: got %+v, %+v", tr.Name, read, out, out.Finding)
			}
		}
	}
	for _, path := range g.seen {
		if strings.HasSuffix(path, "/send") {
			t.Errorf("it was sent all the same: %v", g.seen)
		}
	}
}

func TestAnswersAndFates(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		want   mailgrant.Fate
	}{
		{503, "", mailgrant.FateLater}, {500, "<html>", mailgrant.FateLater},
		{400, `{"error":{"code":"SomethingNew","message":"?"}}`, mailgrant.FateRefused},
		{403, `{"error":{"code":"ErrorAccessDenied","message":"Access is denied. Check credentials and try again."}}`, mailgrant.FateHeld},
		{302, "", mailgrant.FateLater},
	} {
		g := newGraph(t, func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(c.status)
			io.WriteString(w, c.body)
			return true
		})
		out := sendBy(t, Graph(), g.way(mailgrant.MailboxOwn, mailgrant.FlowCode), handover(plain, "b@example.net"))
		if out.Fate != c.want {
			t.Errorf("%d %s: got %s (%+v), want %s", c.status, c.body, out.Fate, out.Finding, c.want)
		}
	}
}

func large(t *testing.T, size int) (string, []byte) {
	file := make([]byte, size)
	rand.Read(file)
	var b strings.Builder
	b.WriteString("From: Alex <alex@contoso.example>\r\nTo: b@example.net\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nMessage-ID: <9@x>\r\nIn-Reply-To: <8@x>\r\nX-Case: 4711\r\nList-Id: x\r\nMIME-Version: 1.0\r\n" +
		"Content-Type: multipart/mixed; boundary=o\r\n\r\npreamble\r\n--o\r\nContent-Type: multipart/alternative; boundary=i\r\n\r\n" +
		"--i\r\nContent-Type: text/plain\r\n\r\nplain\r\n--i\r\nContent-Type: text/html; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n<p>gr=FC=DFe\r\n--i--\r\n" +
		"--o\r\nContent-Type: text/csv; charset=iso-8859-1; name=a.csv\r\nContent-Disposition: attachment; filename=a.csv\r\n\r\na;\xfc\r\n" +
		"--o\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; filename*=utf-8''%C3%BC.pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n")
	s := base64.StdEncoding.EncodeToString(file)
	for len(s) > 0 {
		n := min(76, len(s))
		b.WriteString(s[:n] + "\r\n")
		s = s[n:]
	}
	b.WriteString("--o--\r\n")
	return b.String(), file
}

func TestUploadRebuildsTheMessage(t *testing.T) {
	g := newGraph(t, nil)
	w := g.way(mailgrant.MailboxOwn, mailgrant.FlowCode)
	msg, file := large(t, 4_500_000)
	out := sendBy(t, Upload(), w, handover(msg, "b@example.net", "blind@example.net"))
	if out.Fate != mailgrant.FateDelivered || !strings.Contains(out.Reply, "2 files") || !strings.Contains(out.Reply, "List-Id") {
		t.Fatalf("got %+v", out)
	}
	if !bytes.Equal(g.uploaded, file) {
		t.Errorf("uploaded %d bytes, want %d of the same", len(g.uploaded), len(file))
	}
	var d struct {
		Subject, InternetMessageID string
		Body                       struct{ ContentType, Content string }
		BccRecipients              []recipient
		InternetMessageHeaders     []map[string]string
	}
	if err := json.Unmarshal(g.bodies["/v1.0/me/messages"], &d); err != nil {
		t.Fatal(err)
	}
	if d.Subject != "Grüße" || d.Body.Content != "<p>grüße" || d.InternetMessageID != "<9@x>" || len(d.BccRecipients) != 1 || d.InternetMessageHeaders[0]["value"] != "4711" {
		t.Errorf("the draft is %+v", d)
	}
	var a struct {
		Name         string `json:"name"`
		ContentBytes []byte `json:"contentBytes"`
	}
	json.Unmarshal(g.bodies["/v1.0/me/messages/draft=1/attachments"], &a)
	if a.Name != "a.csv" || string(a.ContentBytes) != "a;\xfc" {
		t.Errorf("the small file is %q %q", a.Name, a.ContentBytes)
	}
	for i, s := range g.seen {
		if strings.HasPrefix(s, "PUT") && g.tokens[i] != "" {
			t.Error("the token was sent to the upload address")
		}
	}
}

func TestUploadThatFailsLeavesNothing(t *testing.T) {
	msg, _ := large(t, smallFile+100_000)
	for _, fail := range []string{"/createUploadSession", "/upload/1", "/send"} {
		g := newGraph(t, func(w http.ResponseWriter, r *http.Request) bool {
			if strings.HasSuffix(r.URL.Path, fail) {
				w.WriteHeader(503)
				return true
			}
			return false
		})
		out := sendBy(t, Upload(), g.way(mailgrant.MailboxOwn, mailgrant.FlowCode), handover(msg, "b@example.net"))
		if out.Fate != mailgrant.FateLater || g.seen[len(g.seen)-1] != "DELETE /v1.0/me/messages/draft=1" {
			t.Errorf("%s: got %+v, last %q", fail, out, g.seen[len(g.seen)-1])
		}
	}
}

func TestUploadKeepsOffWhatItWouldBreak(t *testing.T) {
	g := newGraph(t, nil)
	deep := "From: a@b\r\nTo: b@example.net\r\n"
	for i := range 70 {
		deep += fmt.Sprintf("Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n", i, i)
	}
	for _, msg := range []string{
		"From: a@b\r\nTo: b@example.net\r\nContent-Type: multipart/signed; boundary=x\r\n\r\n--x--\r\n",
		"From: a@b\r\nTo: b@example.net\r\nContent-Type: text/plain; charset=x-unknown\r\n\r\nx\r\n",
		deep + "\r\nx\r\n",
		"From: a@b\r\nTo: b@example.net\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n" + strings.Repeat("--x\r\n\r\n.\r\n", 3000),
	} {
		if out := sendBy(t, Upload(), g.way(mailgrant.MailboxOwn, mailgrant.FlowCode), handover(msg, "b@example.net")); out.Fate != mailgrant.FateRefused {
			t.Errorf("%.60q: got %+v, want it refused", msg, out)
		}
	}
	if len(g.seen) > 0 {
		t.Errorf("Graph saw %v", g.seen)
	}
}

func TestFind(t *testing.T) {
	since := time.Now()
	for _, c := range []struct {
		body  string
		found bool
	}{
		{`{"value":[]}`, false},
		{`{"value":[{"id":"1","sentDateTime":"` + since.UTC().Format(time.RFC3339) + `"}]}`, true},
		{`{"value":[{"id":"1","sentDateTime":"2020-01-01T00:00:00Z"}]}`, false},
	} {
		var filter string
		g := newGraph(t, func(w http.ResponseWriter, r *http.Request) bool {
			filter = r.URL.Query().Get("$filter")
			io.WriteString(w, c.body)
			return true
		})
		found, err := Graph().Find(t.Context(), g.way(mailgrant.MailboxOwn, mailgrant.FlowCode), "<o'neil@x>", since)
		if err != nil || found != c.found || filter != "internetMessageId eq '<o''neil@x>'" {
			t.Errorf("%s: got %v, %v with %q", c.body, found, err, filter)
		}
	}
	g := newGraph(t, nil)
	w := g.way(mailgrant.MailboxOwn, mailgrant.FlowCode)
	w.Grant.Capabilities = nil
	if _, err := Graph().Find(t.Context(), w, "<1@x>", since); err == nil || len(g.seen) != 0 {
		t.Errorf("without the right: got %v, %v", err, g.seen)
	}
}
