package api_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
	"github.com/mailgrant/mailgrant/internal/access"
	"github.com/mailgrant/mailgrant/internal/serve/api"
)

// message is a good one, changed.
func message(change func(m map[string]any)) string {
	m := map[string]any{"from": "office@contoso.example", "to": []string{"kim@fabrikam.example"}, "subject": "s", "text": "t"}
	if change != nil {
		change(m)
	}
	return jsonOf(m)
}

func field(name string, v any) string { return message(func(m map[string]any) { m[name] = v }) }

func TestAP02_AnAppSendsAsItsMailboxesOnly(t *testing.T) {
	r := newRig(t)
	other := r.mailbox(r.org, "boss@contoso.example", mailgrant.RoleNone)
	key := r.keyOf(r.app(r.org, func(a *mailgrant.App) { a.Mailboxes = []mailgrant.ID{r.box.ID} }), mailgrant.ScopeSend)
	raw := func(header, query string) reply {
		return r.ask("POST", "/v1/submissions"+query, key, header+"To: kim@fabrikam.example\r\n\r\nx", "Content-Type", "message/rfc822")
	}
	for name, got := range map[string]reply{
		"From":                  r.ask("POST", "/v1/submissions", key, field("from", "boss@contoso.example")),
		"Sender":                r.ask("POST", "/v1/submissions", key, field("sender", "boss@contoso.example")),
		"named mailbox":         r.ask("POST", "/v1/submissions", key, field("mailbox", string(other.ID))),
		"named by address":      r.ask("POST", "/v1/submissions", key, field("mailbox", other.Address)),
		"raw From":              raw("From: boss@contoso.example\r\n", ""),
		"raw Sender":            raw("From: office@contoso.example\r\nSender: boss@contoso.example\r\n", ""),
		"raw Resent-From":       raw("Resent-From: boss@contoso.example\r\nFrom: office@contoso.example\r\n", ""),
		"raw Resent-Sender":     raw("Resent-Sender: boss@contoso.example\r\nFrom: office@contoso.example\r\n", ""),
		"raw envelope":          raw("From: office@contoso.example\r\n", "?from=boss@contoso.example"),
		"two authors":           raw("From: office@contoso.example, boss@contoso.example\r\n", ""),
		"two From fields":       raw("From: office@contoso.example\r\nFrom: boss@contoso.example\r\n", ""),
		"folded second From":    raw("From: office@contoso.example\r\nfrom :\r\n boss@contoso.example\r\n", ""),
		"bare CR before a From": raw("From: office@contoso.example\r\nX-A: b\rFrom: boss@contoso.example\r\n", ""),
		"somebody elsewhere":    r.ask("POST", "/v1/submissions", key, field("from", "ceo@bank.example")),
	} {
		if got.status != 403 && got.status != 422 {
			t.Errorf("%s: got %d: %s", name, got.status, got.body)
		}
		got.wants(t, got.status)
	}
	r.ask("POST", "/v1/submissions", key, message(nil)).wants(t, 202)
	r.sent.wait(t, 1)
	if n := r.sent.count(); n != 1 {
		t.Errorf("%d messages were sent, want 1", n)
	}
}

// No key moves the mail of a mailbox, or its tokens, to another host.
func TestOA22_NoKeyPointsAMailboxElsewhere(t *testing.T) {
	r := newRig(t)
	key := r.key(mailgrant.ScopeManage, mailgrant.ScopeRead)
	reg := mailgrant.Registration{ID: mailgrant.NewID(mailgrant.PrefixRegistration), Org: r.org, Name: "M365", Template: "microsoft365", Tenant: "3f9d1c2e-0000-4000-8000-000000000001"}
	must(t, r.store.CreateRegistration(t.Context(), reg))
	for _, f := range []string{"smtp_host", "smtp_port", "imap_host", "pop_host", "graph_url", "token_endpoint", "host", "settings", "overrides", "registration", "org"} {
		for _, path := range []string{"/v1/mailboxes/" + string(r.box.ID), "/v1/registrations/" + string(reg.ID)} {
			for _, v := range []any{"evil.example", map[string]string{"smtp_host": "evil.example"}} {
				got := r.ask("PATCH", path, key, jsonOf(map[string]any{f: v}), "Content-Type", "application/json")
				if got.status != 400 && got.status != 403 && got.status != 422 {
					t.Errorf("%s with %s: %d: %s", path, f, got.status, got.body)
				}
			}
		}
	}
	if now, err := r.store.Registration(t.Context(), r.org, reg.ID); err != nil || now.Signature() != reg.Signature() {
		t.Errorf("got %+v, %v", now, err)
	}
}

func TestAP03_NothingBecomesAnotherHeader(t *testing.T) {
	r := newRig(t)
	key := r.key(mailgrant.ScopeSend)
	sent := 0
	for _, bad := range []string{"\r\nBcc: evil@evil.example", "\nBcc: evil@evil.example", "\rBcc: evil@evil.example", "\x00", "\u0085Bcc: evil@evil.example", "\u2028Bcc: evil@evil.example", "\u2029x"} {
		for name, body := range map[string]string{
			"subject":                     field("subject", "a"+bad),
			"from":                        field("from", "A"+bad+" <office@contoso.example>"),
			"to[0]":                       field("to", []string{"kim@fabrikam.example" + bad}),
			"cc[0]":                       field("cc", []string{"K" + bad + " <kim@fabrikam.example>"}),
			"reply_to[0]":                 field("reply_to", []string{"kim@fabrikam.example" + bad}),
			"message_id":                  field("message_id", "<a@b.example>"+bad),
			"in_reply_to":                 field("in_reply_to", "<a@b.example>"+bad),
			"references[0]":               field("references", []string{"<a@b.example>" + bad}),
			"headers.X-A":                 field("headers", map[string]string{"X-A": "v" + bad}),
			"headers":                     field("headers", map[string]string{"X-A" + bad: "v"}),
			"attachments[0].name":         field("attachments", []map[string]string{{"name": "a" + bad + ".txt", "content": "YQ=="}}),
			"attachments[0].content_type": field("attachments", []map[string]string{{"name": "a.txt", "content_type": "text/plain" + bad, "content": "YQ=="}}),
			"attachments[0].content_id":   field("attachments", []map[string]string{{"name": "a.txt", "content_id": "a" + bad, "content": "YQ=="}}),
		} {
			got := r.ask("POST", "/v1/submissions", key, body)
			if got.status == 202 {
				sent++
				text, to := r.sent.wait(t, sent)
				if len(to) != 1 || strings.Contains(strings.ToLower(text), "\nbcc:") {
					t.Errorf("%s with %q: sent to %v:\n%s", name, bad, to, text)
				}
				continue
			}
			got.wants(t, 422).at(t, name)
		}
	}
	for _, h := range []string{"Bcc", "To", "From", "Received", "DKIM-Signature", "Return-Path", "Content-Type", "X-Mailgrant-Id", "bcc ", "X A", "X:A", ""} {
		if got := r.ask("POST", "/v1/submissions", key, field("headers", map[string]string{h: "v"})); got.status != 422 {
			t.Errorf("the header %q: got %d: %s", h, got.status, got.body)
		}
	}
}

func TestAP04_TheEnvelopeIsWhatWasChecked(t *testing.T) {
	r := newRig(t)
	key := r.key(mailgrant.ScopeSend)
	for _, bad := range []string{`<@a.example,@b.example:kim@fabrikam.example>`, "group: a@b.example, c@d.example;", "<kim@fabrikam.example", "a@b@c.example",
		"kim@fabrikam.example, evil@evil.example", "kim@fabrikam.example (", "@fabrikam.example", "kim@", "kim", "", " ", "kim@[127.0.0.1", "kim@fabrikam..example", `"unclosed@fabrikam.example`} {
		got := r.ask("POST", "/v1/submissions", key, field("to", []string{bad}))
		got.wants(t, 422).at(t, "to[0]")
	}
	for _, odd := range []string{`"a@evil.example x"@fabrikam.example`, "kim%evil.example@fabrikam.example", "kim@fabrikam.example (evil@evil.example)", `"evil@evil.example" <kim@fabrikam.example>`} {
		before := r.sent.count()
		got := r.ask("POST", "/v1/submissions", key, field("to", []string{odd}))
		if got.status != 202 {
			got.wants(t, 422)
			continue
		}
		_, to := r.sent.wait(t, before+1)
		if len(to) != 1 || !strings.HasSuffix(to[0], "@fabrikam.example") {
			t.Errorf("%q went to %v", odd, to)
		}
	}
}

func TestAP05_UnknownFieldsAreRefused(t *testing.T) {
	r := newRig(t)
	key := r.key(mailgrant.ScopeManage)
	for _, name := range []string{"tenant_id", "org", "id", "state", "status", "verified", "created_at", "quota", "hold", "last_success", "ROLE", "Role", "config_signature", "__proto__"} {
		r.ask("PATCH", "/v1/mailboxes/"+string(r.box.ID), key, `{"`+name+`":"x"}`).wants(t, 422).at(t, name)
		r.ask("POST", "/v1/submissions", key, field(name, "x")).wants(t, 422).at(t, name)
		if name != "id" && name != "state" {
			r.ask("POST", "/v1/apps", key, `{"name":"a","`+name+`":"x"}`).wants(t, 422).at(t, name)
		}
	}
	r.ask("PATCH", "/v1/mailboxes/"+string(r.box.ID), key, `{"limits":{"per_hour":1}}`).wants(t, 422).at(t, "limits.per_hour")
	for body, at := range map[string]string{
		`{"role":5}`: "role", `{"senders":"x"}`: "senders", `{"senders":[1]}`: "senders[0]", `{"senders":[null]}`: "senders[0]", `{"limits":[]}`: "limits", `{"disabled":"true"}`: "disabled",
		`{"limits":{"per_minute":1.5}}`: "limits.per_minute", `{"limits":{"per_minute":"1"}}`: "limits.per_minute", `{"life":5}`: "life", `{"life":"soon"}`: "life", `{"life":"3h","life":"2h"}`: "life",
		`{"limits":{"per_minute":99999999999999999999}}`: "limits.per_minute",
	} {
		r.ask("PATCH", "/v1/mailboxes/"+string(r.box.ID), key, body).wants(t, 422).at(t, at)
	}
	m, err := r.store.Mailbox(t.Context(), r.org, r.box.ID)
	must(t, err)
	if m.Role != mailgrant.RoleGlobal || m.State != mailgrant.MailboxActive || !m.UpdatedAt.IsZero() {
		t.Errorf("something changed: %+v", m)
	}
}

// endless gives the same bytes for ever.
type endless struct{ of string }

func (e endless) Read(p []byte) (int, error) {
	for n := 0; n < len(p); {
		n += copy(p[n:], e.of)
	}
	return len(p), nil
}

func TestAP06_BodiesOfAnySizeAndShape(t *testing.T) {
	r := newRig(t, func(c *api.Config) { c.MessageBytes = 8 << 20 })
	key := r.key(mailgrant.ScopeManage)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	// Without a length and without an end.
	for _, path := range []string{"/v1/submissions", "/v1/mailboxes", "/v1/explain"} {
		for _, of := range []string{`{"text":"` + strings.Repeat("a", 1<<16), "[[[[", `{"to":["a@b.example","` + strings.Repeat("a", 1<<16), " ", `{"a":`} {
			body := io.MultiReader(strings.NewReader(of), io.LimitReader(endless{of[len(of)-1:]}, 1<<30))
			got := r.unread("POST", path, key, body)
			if got.status != 413 && got.status != 422 && got.status != 400 {
				t.Errorf("%s with %.12q without end: got %d: %s", path, of, got.status, got.body)
			}
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grew := int64(after.HeapAlloc) - int64(before.HeapAlloc); grew > 64<<20 {
		t.Errorf("the memory grew by %d MiB", grew>>20)
	}
	// A length that is too large is refused before a byte of it.
	conn := r.dial()
	fmt.Fprintf(conn, "POST /v1/submissions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: 1073741824\r\n\r\n", key)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	must(t, err)
	if res.StatusCode != 413 {
		t.Errorf("1 GiB: got %d", res.StatusCode)
	}
	for name, c := range map[string]struct {
		body   string
		status int
	}{
		"depth 100,000":       {strings.Repeat("[", 100_000), 400},
		"depth in a field":    {`{"headers":` + strings.Repeat(`{"a":`, 100_000), 422},
		"1e6 recipients":      {field("to", slices.Repeat([]string{"a@b.ex"}, 1_000_000)), 422},
		"200 recipients":      {field("to", many(200)), 422},
		"10,000 attachments":  {field("attachments", slices.Repeat([]map[string]string{{"name": "a", "content": ""}}, 10_000)), 422},
		"bad base64":          {field("attachments", []map[string]string{{"name": "a", "content": "*"}}), 422},
		"key twice":           {`{"from":"office@contoso.example","from":"boss@contoso.example","to":["a@b.example"]}`, 422},
		"key twice, escaped":  {`{"from":"office@contoso.example","\u0066rom":"boss@contoso.example","to":["a@b.example"]}`, 422},
		"not UTF-8":           {"{\"subject\":\"\xff\"}", 422},
		"lone surrogate":      {`{"subject":"\ud800"}`, 400},
		"not JSON":            {"hello", 400},
		"ends early":          {`{"from":`, 400},
		"goes on":             {message(nil) + "{}", 400},
		"empty":               {" ", 400},
		"a list":              {"[]", 400},
		"too long a subject":  {field("subject", strings.Repeat("a", 1<<20)), 422},
		"a number for a text": {`{"from":5}`, 422},
		"NUL in the text":     {field("text", "a\x00b"), 422},
	} {
		got := r.ask("POST", "/v1/submissions", key, c.body)
		if got.status != c.status {
			t.Errorf("%s: got %d, want %d: %s", name, got.status, c.status, got.body)
		}
		got.wants(t, got.status)
	}
	r.sent.mu.Lock()
	defer r.sent.mu.Unlock()
	if len(r.sent.all) != 0 {
		t.Errorf("%d messages were sent", len(r.sent.all))
	}
}

func many(n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprintf("a%d@b.example", i))
	}
	return list
}

// unread sends a body that may not be taken to its end.
func (r *rig) unread(method, path, key string, body io.Reader) reply {
	req, err := http.NewRequest(method, r.door.URL+path, struct{ io.Reader }{body})
	must(r, err)
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil { // the server answered and closed while we still wrote
		return reply{status: 413}
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	must(r, err)
	return reply{status: res.StatusCode, body: b}
}

func (r *rig) dial() net.Conn {
	conn, err := net.Dial("tcp", r.door.Listener.Addr().String())
	must(r, err)
	r.Cleanup(func() { conn.Close() })
	must(r, conn.SetDeadline(time.Now().Add(time.Minute)))
	return conn
}

func TestAP06_PackedAndForeignBodiesAreRefused(t *testing.T) {
	r := newRig(t)
	key := r.key(mailgrant.ScopeManage)
	for _, packed := range []string{"gzip", "deflate", "br", "zstd", "gzip, gzip", "x"} {
		for _, path := range []string{"/v1/submissions", "/v1/mailboxes", "/v1/explain"} {
			r.ask("POST", path, key, message(nil), "Content-Encoding", packed).wants(t, 415)
		}
	}
	for _, kind := range []string{"text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/json; charset=utf-16", "application/jsonx", "*/*", "x"} {
		r.ask("POST", "/v1/submissions", key, message(nil), "Content-Type", kind).wants(t, 415)
		r.ask("POST", "/v1/apps", key, `{"name":"a"}`, "Content-Type", kind).wants(t, 415)
	}
	r.ask("POST", "/v1/submissions", key, message(nil), "Content-Type", "application/json; charset=UTF-8").wants(t, 202)
	r.ask("POST", "/v1/mailboxes/"+string(r.box.ID)+"/resume", key, `{"x":1}`).wants(t, 422)
	r.ask("POST", "/v1/mailboxes/"+string(r.box.ID)+"/resume", key, `{}`).wants(t, 204)
}

func TestAP07_OneKeyIsOneSubmission(t *testing.T) {
	r := newRig(t)
	app := r.app(r.org, nil)
	key := r.keyOf(app, mailgrant.ScopeSend)
	body := message(nil)
	ids := make([]mailgrant.ID, 50)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			got := r.ask("POST", "/v1/submissions", key, body, "Idempotency-Key", "case-4711")
			if got.status != 202 || !strings.HasPrefix(got.header.Get("Location"), "/v1/submissions/msg_") {
				t.Errorf("got %d: %s", got.status, got.body)
				return
			}
			ids[i] = mailgrant.ID(strings.TrimPrefix(got.header.Get("Location"), "/v1/submissions/"))
		})
	}
	wg.Wait()
	if slices.Sort(ids); len(slices.Compact(ids)) != 1 {
		t.Errorf("got several submissions: %v", ids)
	}
	r.ask("POST", "/v1/submissions", key, field("subject", "another"), "Idempotency-Key", "case-4711").wants(t, 409)
	if other := r.ask("POST", "/v1/submissions", r.keyOf(app, mailgrant.ScopeSend), body, "Idempotency-Key", "case-4711").wants(t, 202); !strings.HasSuffix(other.header.Get("Location"), string(ids[0])) {
		t.Error("another key of the app made another submission")
	}
	if other := r.ask("POST", "/v1/submissions", r.key(mailgrant.ScopeSend), body, "Idempotency-Key", "case-4711").wants(t, 202); strings.HasSuffix(other.header.Get("Location"), string(ids[0])) {
		t.Error("another app was given the submission")
	}
	raw := "From: office@contoso.example\r\nTo: kim@fabrikam.example\r\n\r\nx"
	first := r.ask("POST", "/v1/submissions", key, raw, "Content-Type", "message/rfc822", "Idempotency-Key", "raw").wants(t, 202)
	if again := r.ask("POST", "/v1/submissions", key, raw, "Content-Type", "message/rfc822", "Idempotency-Key", "raw").wants(t, 202); again.header.Get("Location") != first.header.Get("Location") {
		t.Error("the same bytes made another submission")
	}
	r.ask("POST", "/v1/submissions?to=lee@fabrikam.example", key, raw, "Content-Type", "message/rfc822", "Idempotency-Key", "raw").wants(t, 409)
	for _, bad := range []string{strings.Repeat("a", 201), "schlüssel", "a\tb"} {
		r.ask("POST", "/v1/submissions", key, body, "Idempotency-Key", bad).wants(t, 422).at(t, "Idempotency-Key")
	}
	r.sent.wait(t, 3)
	if n := r.sent.count(); n != 3 {
		t.Errorf("%d messages were sent, want 3", n)
	}
}

func TestAP08_KeysThatAreOverOrElsewhere(t *testing.T) {
	r := newRig(t, func(c *api.Config) { c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })
	app := r.app(r.org, nil)
	issue := func(in access.KeyInput) string {
		_, s, err := r.access.IssueKey(t.Context(), r.org, app.ID, in)
		must(t, err)
		return s.Reveal()
	}
	here := issue(access.KeyInput{Scopes: []mailgrant.Scope{mailgrant.ScopeRead}, Sources: []string{"192.0.2.0/24"}})
	for forwarded, want := range map[string]int{"": 403, "192.0.2.7": 200, "198.51.100.1": 403, "192.0.2.7, 198.51.100.1": 403, "198.51.100.1, 192.0.2.7": 200, "192.0.2.7, 127.0.0.2": 200, "192.0.2.7, nonsense": 403} {
		r.ask("GET", "/v1/mailboxes", here, "", "X-Forwarded-For", forwarded).wants(t, want)
	}
	good := r.key(mailgrant.ScopeRead)
	for _, path := range []string{"/v1/mailboxes?key=" + good, "/v1/mailboxes?access_token=" + good, "/v1/mailboxes?api_key=" + good} {
		r.ask("GET", path, "", "").wants(t, 401)
		r.ask("GET", path, good, "").wants(t, 422)
	}
	for _, header := range []string{"Basic " + good, "Bearer", "Bearer ", good, "Bearer " + good + "x", "Bearer " + good[:len(good)-1]} {
		r.ask("GET", "/v1/mailboxes", "", "", "Authorization", header).wants(t, 401)
	}
	smtpOnly := r.keyOf(r.app(r.org, func(a *mailgrant.App) { a.Doors = []string{"smtp"} }), mailgrant.ScopeRead)
	r.ask("GET", "/v1/mailboxes", smtpOnly, "").wants(t, 403)
	must(t, r.access.DeleteApp(t.Context(), r.org, app.ID))
	r.ask("GET", "/v1/mailboxes", here, "", "X-Forwarded-For", "192.0.2.7").wants(t, 401)
}

func TestAP08_ASenderSeesItsOwnOnly(t *testing.T) {
	r := newRig(t)
	mine, other := r.app(r.org, nil), r.app(r.org, nil)
	c, o := r.client(r.keyOf(mine, mailgrant.ScopeSend)), r.client(r.keyOf(other, mailgrant.ScopeSend))
	sub, err := o.Send(t.Context(), client.Message{From: r.box.Address, To: []string{"kim@fabrikam.example"}, SendAt: pointer(time.Now().Add(time.Hour))})
	must(t, err)
	_, err = c.Submission(t.Context(), sub.ID)
	_, absent := c.Submission(t.Context(), mailgrant.NewID(mailgrant.PrefixSubmission))
	if !errors.Is(err, mailgrant.NotFound) || !errors.Is(absent, mailgrant.NotFound) || mailgrant.AsError(err).Remedy != mailgrant.AsError(absent).Remedy {
		t.Errorf("another app's: %v; an absent one: %v", err, absent)
	}
	for name, err := range map[string]error{
		"cancel": last(c.Cancel(t.Context(), sub.ID)), "retry": last(c.Retry(t.Context(), sub.ID)), "attempts": last(c.Attempts(t.Context(), sub.ID)), "raw": last(c.Raw(t.Context(), sub.ID)),
	} {
		if !errors.Is(err, mailgrant.NotFound) {
			t.Errorf("%s of another app's: %v", name, err)
		}
	}
	if page, err := c.Submissions(t.Context(), client.SubmissionFilter{}); err != nil || len(page.Items) != 0 {
		t.Errorf("got %+v, %v", page, err)
	}
	if _, err := c.Submissions(t.Context(), client.SubmissionFilter{App: other.ID}); !errors.Is(err, mailgrant.Forbidden) {
		t.Errorf("got %v", err)
	}
	reader := r.client(r.key(mailgrant.ScopeRead))
	if _, err := reader.Submission(t.Context(), sub.ID); err != nil {
		t.Errorf("a reader: %v", err)
	}
	if _, err := reader.Cancel(t.Context(), sub.ID); !errors.Is(err, mailgrant.Forbidden) {
		t.Errorf("a reader cancels: %v", err)
	}
	if _, err := r.client(r.key(mailgrant.ScopeManage)).Cancel(t.Context(), sub.ID); err != nil {
		t.Errorf("a manager cancels: %v", err)
	}
}

func last[T any](_ T, err error) error { return err }

func TestAP09_TheLimitOfAnAppIs429(t *testing.T) {
	r := newRig(t)
	key := r.keyOf(r.app(r.org, func(a *mailgrant.App) { a.PerMinute = 3 }), mailgrant.ScopeSend)
	other := r.key(mailgrant.ScopeSend)
	for range 3 {
		r.ask("POST", "/v1/submissions", key, message(nil)).wants(t, 202)
	}
	got := r.ask("POST", "/v1/submissions", key, message(nil)).wants(t, 429)
	// What the limiter says is what the header and the client say.
	wait, err := strconv.Atoi(got.header.Get("Retry-After"))
	if err != nil || wait < 1 || wait > 60 || !strings.Contains(got.problem.Remedy, "try again in "+(time.Duration(wait)*time.Second).String()) {
		t.Errorf("Retry-After %q: %s", got.header.Get("Retry-After"), got.problem.Remedy)
	}
	_, err = r.client(key).Send(t.Context(), client.Message{From: r.box.Address, To: []string{"kim@fabrikam.example"}, Text: "x"})
	if e := mailgrant.AsError(err); !errors.Is(err, mailgrant.Limited) || e.RetryAfter < time.Second || e.RetryAfter > time.Minute {
		t.Errorf("the client: %v", err)
	}
	r.ask("POST", "/v1/submissions", other, message(nil)).wants(t, 202)
}

func TestAP10_FiltersAndCursors(t *testing.T) {
	r := newRig(t)
	key := r.key(mailgrant.ScopeManage)
	for i := range 12 {
		r.mailbox(r.org, fmt.Sprintf("m%02d@contoso.example", i), mailgrant.RoleNone)
	}
	for path, want := range map[string]int{
		"/v1/submissions?limit=1000000000": 422, "/v1/submissions?limit=0": 422, "/v1/submissions?limit=-1": 422, "/v1/submissions?limit=x": 422, "/v1/submissions?limit=501": 422, "/v1/submissions?limit=500": 200,
		"/v1/submissions?sort=id": 422, "/v1/submissions?state=sent": 422, "/v1/submissions?state=failed&state=ready": 200, "/v1/submissions?since=yesterday": 422, "/v1/submissions?limit=1&limit=2": 422,
		"/v1/submissions?cursor=x": 422, "/v1/submissions?cursor=bXNnXzA": 422, "/v1/mailboxes?cursor=mbx_zzz": 422, "/v1/events?cursor=-1": 422, "/v1/events?after=1'--": 422, "/v1/events?after=99999999999999999999": 422,
		"/v1/events?kind=x'%20OR%20'1'='1": 422, "/v1/events?subject=%27%3BDROP%20TABLE%20events": 200, "/v1/submissions?mailbox=%25": 404, "/v1/submissions?%zz": 400, "/v1/submissions?a;b": 400,
		"/v1/mailboxes/%27%20OR%201%3D1": 404, "/v1/apps/%25": 404, "/v1/mailboxes?limit=5": 200, "/v1/route?from=a@b.example&class=root": 422, "/v1/events?subject=a%00b": 422,
		"/v1/route": 422, "/v1/discover": 422, "/v1/discover?address=": 422, "/v1/discover?address=nobody": 422,
	} {
		got := r.ask("GET", path, key, "")
		if got.status != want {
			t.Errorf("%s: got %d, want %d: %s", path, got.status, want, got.body)
		}
		got.wants(t, got.status)
	}
	seen := map[mailgrant.ID]bool{}
	next := ""
	for pages := 0; ; pages++ {
		var p client.Page[mailgrant.Mailbox]
		got := r.ask("GET", "/v1/mailboxes?limit=5"+next, key, "").wants(t, 200)
		unmarshal(t, got.body, &p)
		for _, m := range p.Items {
			seen[m.ID] = true
		}
		if p.Next == "" {
			if pages != 2 {
				t.Errorf("got %d pages", pages+1)
			}
			break
		}
		next = "&cursor=" + p.Next
	}
	if len(seen) != 13 {
		t.Errorf("got %d mailboxes of 13", len(seen))
	}
	other := r.keyOf(r.app(r.organization("Fabrikam"), nil), mailgrant.ScopeManage)
	r.ask("GET", "/v1/mailboxes?limit=5"+next, other, "").wants(t, 422).at(t, "cursor")
	r.ask("GET", "/v1/apps?limit=5"+next, key, "").wants(t, 422).at(t, "cursor")
}

func TestAP11_AttachmentsNameNoFilesAndNoAddresses(t *testing.T) {
	r := newRig(t)
	key := r.key(mailgrant.ScopeSend)
	secret := filepath.Join(t.TempDir(), "secret.txt")
	must(t, os.WriteFile(secret, []byte("the secret of a file"), 0o600))
	asked := false
	trap := newTrap(t, func() { asked = true })
	for _, a := range []map[string]any{
		{"name": "a", "path": secret}, {"name": "a", "href": trap}, {"name": "a", "url": trap}, {"name": "a", "content": map[string]string{"path": secret}},
		{"name": "a", "content": "file://" + secret}, {"name": "a", "content": "data:text/plain;base64,YQ=="}, {"name": "a", "content": trap}, {"name": "a"},
		{"name": "../../etc/passwd", "content": "YQ=="}, {"name": `C:\x`, "content": "YQ=="}, {"name": "", "content": "YQ=="}, {"name": "a", "content": "YQ==", "encoding": "file"},
	} {
		r.ask("POST", "/v1/submissions", key, field("attachments", []map[string]any{a})).wants(t, 422)
	}
	// In the text they stay words.
	r.ask("POST", "/v1/submissions", key, message(func(m map[string]any) {
		m["html"] = `<img src="file://` + secret + `"><img src="` + trap + `"><img src="cid:` + secret + `">`
	})).wants(t, 202)
	if text, _ := r.sent.wait(t, 1); strings.Contains(text, "the secret of a file") {
		t.Error("a file of the server was sent")
	}
	if asked || r.sent.count() != 1 {
		t.Errorf("another server was asked: %v; %d messages", asked, r.sent.count())
	}
}

func TestAP12AndRE21_ErrorsSayNothingOfTheInside(t *testing.T) {
	r := newRig(t, func(c *api.Config) {
		c.Backup = func(context.Context, io.Writer) error {
			return fmt.Errorf("open /var/lib/mailgrant/x.db: SQLITE_CORRUPT SELECT * FROM keys")
		}
		c.KeyStatus = func(context.Context) (client.KeyStatus, error) { panic("the inside: /root/secret") }
	})
	for _, path := range []string{"POST /v1/backup", "GET /v1/keyset"} {
		method, at, _ := strings.Cut(path, " ")
		got := r.do(r.operator.URL, method, at, "", strings.NewReader("")).wants(t, 500)
		for _, word := range []string{"SQLITE", "/var/lib", "SELECT", "/root", "goroutine", ".go:", "1.2.3"} {
			if bytes.Contains(got.body, []byte(word)) {
				t.Errorf("%s: the answer says %q: %s", path, word, got.body)
			}
		}
		if !strings.Contains(r.log.String(), string(got.problem.Trace)) || !strings.Contains(r.log.String(), "the inside") && at == "/v1/keyset" {
			t.Errorf("%s: the log does not have what happened", path)
		}
	}
	if err := r.op("").Backup(t.Context(), io.Discard); !strings.Contains(err.Error(), "trc_") {
		t.Errorf("the client drops the trace: %v", err)
	}
	// What was sent is not sent back, and not logged.
	key := r.key(mailgrant.ScopeManage)
	reg := r.generic(r.org)
	for _, body := range []string{`{"secret":"hunter2-in-the-clear","what":1}`, `{"secret":"hunter2-in-the-clear"`, `{"secret":"hunter2-in-the-clear\n","kind":"secret"}`, `{"secret":"hunter2-in-the-clear","kind":"certificate"}`, `{"secret":"{hunter2-in-the-clear","kind":"service_account"}`, `{"kind":"hunter2-in-the-clear","secret":"a"}`} {
		got := r.ask("POST", "/v1/registrations/"+string(reg.ID)+"/credentials", key, body)
		if got.status/100 != 4 || bytes.Contains(got.body, []byte("hunter2")) {
			t.Errorf("%s: got %d: %s", body, got.status, got.body)
		}
	}
	if strings.Contains(r.log.String(), "hunter2") || strings.Contains(r.log.String(), key) {
		t.Error("the log has a secret")
	}
}

func TestSE10_SecretsAreShownOnceAndNeverAgain(t *testing.T) {
	r := newRig(t)
	manager := r.key(mailgrant.ScopeManage)
	app := r.app(r.org, nil)
	k, err := r.client(manager).IssueKey(t.Context(), app.Name, client.NewKey{})
	must(t, err)
	g := r.active(r.org, r.box.Address)
	for _, o := range operations(t) {
		if o.method != "GET" || o.ID == "getToken" {
			continue
		}
		path := o.fill(map[string]string{"app": string(app.ID), "registration": string(g.Registration), "grant": string(g.ID), "mailbox": string(r.box.ID), "organization": string(r.org), "submission": "msg_x", "arrival": "arr_x", "attachment": "4294967", "flow": "flw_x", "cause": "unknown"})
		got := r.ask("GET", path, manager, "")
		for _, secret := range []string{k.Secret, manager, "a-good-secret", "access-token-of-a-test", `"hash"`, `"sealed"`} {
			if bytes.Contains(bytes.ToLower(got.body), []byte(secret)) {
				t.Errorf("%s shows %q", o.ID, secret)
			}
		}
	}
}

func TestE16_WhatIsNoSecretIsSaidToBeNone(t *testing.T) {
	r := newRig(t)
	op := r.op(r.org)
	reg, err := op.CreateRegistration(t.Context(), client.RegistrationSettings{Template: pointer("microsoft365"), Tenant: pointer("common")})
	must(t, err)
	past := time.Now().Add(-time.Hour)
	for name, n := range map[string]struct {
		client.NewCredential
		field string
	}{
		"secret ID":          {client.NewCredential{Secret: "3f9d1c2e-1111-4222-8333-444455556666"}, "secret"},
		"empty":              {client.NewCredential{}, "secret"},
		"with a line break":  {client.NewCredential{Secret: "abc\n"}, "secret"},
		"PEM":                {client.NewCredential{Secret: "-----BEGIN PRIVATE KEY-----"}, "secret"},
		"JSON":               {client.NewCredential{Secret: `{"type":"service_account"}`}, "secret"},
		"no certificate":     {client.NewCredential{Kind: mailgrant.CredentialCertificate, Secret: "abc"}, "secret"},
		"no service account": {client.NewCredential{Kind: mailgrant.CredentialServiceAccount, Secret: `{"type":"user"}`}, "secret"},
		"ended":              {client.NewCredential{Secret: "abc", NotAfter: &past}, "not_after"},
		"no such kind":       {client.NewCredential{Kind: "password", Secret: "abc"}, "kind"},
		"a path":             {client.NewCredential{Kind: mailgrant.CredentialFederated, TokenFile: "../token"}, "token_file"},
		"none with a secret": {client.NewCredential{Kind: mailgrant.CredentialNone, Secret: "abc"}, "secret"},
		"secret with a file": {client.NewCredential{Secret: "abc", TokenFile: "/x"}, "token_file"},
		"two lines of words": {client.NewCredential{Secret: "abc", Description: "a\nb"}, "description"},
	} {
		_, err := op.AddCredential(t.Context(), reg.ID, n.NewCredential)
		if e := mailgrant.AsError(err); !errors.Is(err, mailgrant.Invalid) || e.Field != n.field || e.Remedy == "" {
			t.Errorf("%s: got %v at %q, want invalid at %q", name, err, e.Field, n.field)
		}
	}
	if _, err := op.AddCredential(t.Context(), r.generic(r.org).ID, client.NewCredential{Secret: "3f9d1c2e-1111-4222-8333-444455556666"}); err != nil {
		t.Errorf("elsewhere a GUID may be a secret: %v", err)
	}
}

func TestSM02_BareLineEndsLeaveAsCRLF(t *testing.T) {
	r := newRig(t)
	key := r.key(mailgrant.ScopeSend)
	raw := "From: office@contoso.example\nTo: kim@fabrikam.example\n\none\rtwo\n.\r\nMAIL FROM:<evil@evil.example>\n\r\n.\n"
	r.ask("POST", "/v1/submissions", key, raw, "Content-Type", "message/rfc822").wants(t, 202)
	text, to := r.sent.wait(t, 1)
	if clean := strings.ReplaceAll(text, "\r\n", ""); strings.ContainsAny(clean, "\r\n") || len(to) != 1 {
		t.Errorf("a bare line end left: %q to %v", text, to)
	}
	r.ask("POST", "/v1/submissions", key, "From: office@contoso.example\r\nTo: kim@fabrikam.example\r\n\r\na\x00b", "Content-Type", "message/rfc822").wants(t, 422)
	r.ask("POST", "/v1/submissions", key, "Subject: nobody\r\n\r\nx", "Content-Type", "message/rfc822").wants(t, 422)
	r.ask("POST", "/v1/submissions", key, "From: office@contoso.example\r\n\r\nx", "Content-Type", "message/rfc822").wants(t, 422)
	r.ask("POST", "/v1/submissions?to=kim", key, raw, "Content-Type", "message/rfc822").wants(t, 422)
	r.ask("POST", "/v1/submissions", key, "From: office@contoso.example\r\nX: "+strings.Repeat("a", 300<<10)+"\r\n\r\n", "Content-Type", "message/rfc822").wants(t, 413)
}

func TestWB07_SlowBodiesAreEnded(t *testing.T) {
	r := newRig(t)
	api.Hasten(t, r.api, 300*time.Millisecond)
	key := r.key(mailgrant.ScopeSend)
	for _, kind := range []string{"application/json", "message/rfc822"} {
		conn := r.dial()
		fmt.Fprintf(conn, "POST /v1/submissions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: %s\r\nContent-Length: 1000\r\n\r\n{", key, kind)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		must(t, err)
		if res.StatusCode != 408 {
			b, _ := io.ReadAll(res.Body)
			t.Errorf("%s: got %d: %s", kind, res.StatusCode, b)
		}
	}
	for _, head := range []string{"POST /v1/submissions", "GET /v1/mailboxes", "GET /v1/nothing"} { // nobody reads the body
		conn := r.dial()
		fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n", head)
		if _, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil {
			t.Errorf("%s: %v", head, err)
		}
	}
	r.ask("POST", "/v1/submissions", key, message(nil)).wants(t, 202)
}

func TestWB07_BodiesThatBreakOff(t *testing.T) {
	r := newRig(t)
	key := r.key(mailgrant.ScopeSend)
	for _, rest := range []string{"Content-Length: 1000\r\n\r\n{\"from\":", "Transfer-Encoding: chunked\r\n\r\n5\r\n{\"fro\r\nzz\r\n"} {
		conn := r.dial()
		fmt.Fprintf(conn, "POST /v1/submissions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n%s", key, rest)
		must(t, conn.(*net.TCPConn).CloseWrite())
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		must(t, err)
		if res.StatusCode != 400 {
			t.Errorf("got %d", res.StatusCode)
		}
	}
	if n := r.sent.count(); n != 0 {
		t.Errorf("%d messages were sent", n)
	}
}

func TestWB07_LongAnswersOnOneConnection(t *testing.T) {
	r := newRig(t)
	key := r.key(mailgrant.ScopeManage)
	for i := range 400 {
		r.mailbox(r.org, fmt.Sprintf("m%03d@contoso.example", i), mailgrant.RoleNone)
	}
	conn := r.dial()
	in := bufio.NewReader(conn)
	for range 3 { // a long answer leaves no deadline to the requests after it
		fmt.Fprintf(conn, "GET /v1/mailboxes?limit=400 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", key)
		res, err := http.ReadResponse(in, nil)
		must(t, err)
		b, err := io.ReadAll(res.Body)
		must(t, err)
		var p client.Page[mailgrant.Mailbox]
		unmarshal(t, b, &p)
		if len(b) < 16<<10 || len(p.Items) != 400 || p.Next == "" {
			t.Errorf("got %d bytes, %d mailboxes", len(b), len(p.Items))
		}
	}
}
