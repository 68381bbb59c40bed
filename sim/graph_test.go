package sim_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/mail"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant/sim"
)

const graphHost = "https://graph.microsoft.com/"

// graph calls Graph below /v1.0.
func (e *env) graph(token, method, path, kind, body string, header ...string) *answer {
	e.Helper()
	if token != "" {
		header = append(header, "Authorization", "Bearer "+token)
	}
	return e.do(method, e.GraphURL()+"/v1.0"+path, kind, []byte(body), header...)
}

func (e *env) wantGraph(what string, a *answer, status int, code, text string) {
	e.Helper()
	doc, _ := a.doc["error"].(map[string]any)
	message, _ := doc["message"].(string)
	if a.status != status || a.code() != code || !strings.Contains(message, text) {
		e.Errorf("%s: got %d %s, want %d %s %q", what, a.status, a.body, status, code, text)
	}
}

const (
	plainType = "text/plain"
	jsonType  = "application/json"
)

// note is the JSON of a message with one recipient.
func note(to string, more ...string) string {
	m := map[string]any{"subject": "Grüße", "body": map[string]string{"contentType": "text", "content": "Hi\r\n.\r\n"},
		"toRecipients": []any{map[string]any{"emailAddress": map[string]string{"address": to}}}}
	for i := 0; i+1 < len(more); i += 2 {
		m[more[i]] = json.RawMessage(more[i+1])
	}
	b, _ := json.Marshal(m)
	return string(b)
}

func sendJSON(message string) string { return `{"message":` + message + `}` }

func person(address string) string { return `{"emailAddress":{"address":"` + address + `"}}` }

func TestGraphUsers(t *testing.T) {
	e := start(t)
	token := e.userToken("kim@contoso.example", graphHost+"User.Read")
	a := e.graph(token, "GET", "/me", "", "", "client-request-id", "my-own")
	if a.status != 200 || a.text("mail") != "kim@contoso.example" || a.text("displayName") != "Kim Akers" || a.doc["accountEnabled"] != nil ||
		a.header.Get("client-request-id") != "my-own" || a.header.Get("request-id") == "" {
		t.Errorf("/me: got %d %s %v", a.status, a.body, a.header)
	}
	if a = e.graph(token, "GET", "/ME?$select=id,accountEnabled", "", ""); a.text("id") == "" || a.doc["accountEnabled"] != true || a.doc["mail"] != nil {
		t.Errorf("$select: got %s", a.body)
	}
	if a = e.graph(token, "GET", "/users/kim@contoso.example", "", ""); a.status != 200 {
		t.Errorf("oneself by address: got %d %s", a.status, a.body)
	}
	e.wantGraph("others", e.graph(token, "GET", "/users/sam@contoso.example", "", ""), 403, "Authorization_RequestDenied", "Insufficient privileges")
	e.wantGraph("list", e.graph(token, "GET", "/users", "", ""), 403, "Authorization_RequestDenied", "")
	app := e.appToken("https://graph.microsoft.com")
	e.wantGraph("app as me", e.graph(app, "GET", "/me", "", ""), 400, "BadRequest", "/me request is only valid with delegated authentication flow.")
	for _, c := range []struct {
		path string
		n    int
	}{{"/users", 7}, {"/users?$top=2", 2}, {"/users?$skip=6", 1}, {"/users?$filter=" + url.QueryEscape("mail eq 'sam@contoso.example'"), 1}, {"/users?$filter=" + url.QueryEscape("userPrincipalName eq 'x'"), 0}} {
		a := e.graph(app, "GET", c.path, "", "")
		if list, _ := a.doc["value"].([]any); a.status != 200 || len(list) != c.n {
			t.Errorf("%s: got %d %s", c.path, a.status, a.body)
		}
		if next := a.text("@odata.nextLink"); (next != "") != (c.n == 2) {
			t.Errorf("%s: the link to the rest is %q", c.path, next)
		}
	}
	a = e.graph(app, "GET", "/users/office@contoso.example", "", "")
	if b := e.graph(app, "GET", "/users/"+a.text("id"), "", ""); a.status != 200 || b.text("mail") != "office@contoso.example" {
		t.Errorf("a shared mailbox by its id: got %s, %s", a.body, b.body)
	}
	e.wantGraph("nobody", e.graph(app, "GET", "/users/nobody@contoso.example", "", ""), 404, "Request_ResourceNotFound", "")
	e.wantGraph("bad filter", e.graph(app, "GET", "/users?$filter=mail", "", ""), 400, "BadRequest", "Invalid filter clause")
	e.wantGraph("bad top", e.graph(app, "GET", "/users?$top=x", "", ""), 400, "BadRequest", "$top")
	e.wantGraph("unknown path", e.graph(app, "GET", "/planets", "", ""), 400, "BadRequest", "Resource not found for the segment")
	e.wantGraph("unknown version", e.do("GET", e.GraphURL()+"/v9/me", "", nil), 404, "ResourceNotFound", "")
	e.wantGraph("method", e.graph(app, "DELETE", "/users", "", ""), 405, "Request_BadRequest", "")
}

func TestGraphTokens(t *testing.T) {
	e := start(t)
	token := e.userToken("kim@contoso.example", graphHost+"User.Read")
	other := e.userToken("kim@contoso.example")
	e.wantGraph("none", e.graph("", "GET", "/me", "", ""), 401, "InvalidAuthenticationToken", "Access token is empty.")
	e.wantGraph("garbage", e.graph("garbage", "GET", "/me", "", ""), 401, "InvalidAuthenticationToken", "Access token validation failure.")
	e.wantGraph("for SMTP", e.graph(other, "GET", "/me", "", ""), 401, "InvalidAuthenticationToken", "Access token validation failure. Invalid audience.")
	if a := e.graph("garbage", "GET", "/me", "", ""); !strings.HasPrefix(a.header.Get("WWW-Authenticate"), "Bearer ") {
		t.Errorf("got no challenge but %v", a.header)
	}
	e.World().Revoke("kim@contoso.example", e.Now())
	if a := e.graph(token, "GET", "/me", "", ""); a.status != 200 {
		t.Errorf("a token of an ordinary client outlives its session: got %d", a.status)
	}
	e.Advance(2 * time.Hour)
	e.wantGraph("expired", e.graph(token, "GET", "/me", "", ""), 401, "InvalidAuthenticationToken", "Lifetime validation failed, the token is expired.")
}

func TestGraphContinuousAccessEvaluation(t *testing.T) {
	e := start(t)
	cp1 := `{"access_token":{"xms_cc":{"values":["cp1"]}}}`
	scope := "openid offline_access " + graphHost + "User.Read"
	back := e.signIn(sim.SignIn{Address: "kim@contoso.example"}, "claims", cp1, "scope", scope)
	a := e.token("organizations", redemption(back.Get("code"), "scope", scope))
	if a.doc["expires_in"].(float64) < 20*3600 {
		t.Errorf("the token of such a client is long-lived: got %v", a.doc["expires_in"])
	}
	e.Advance(time.Minute)
	e.World().Revoke("kim@contoso.example", e.Now())
	got := e.graph(a.text("access_token"), "GET", "/me", "", "")
	e.wantGraph("revoked", got, 401, "InvalidAuthenticationToken", "")
	challenge := got.header.Get("WWW-Authenticate")
	_, rest, _ := strings.Cut(challenge, `error="insufficient_claims", claims="`)
	text, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(rest, `"`))
	if err != nil || !strings.Contains(string(text), `"nbf"`) {
		t.Errorf("got %q, %v", challenge, err)
	}
}

func TestGraphSendsMIMEAsItIs(t *testing.T) {
	e := start(t)
	token := e.userToken("kim@contoso.example", graphHost+"Mail.Send")
	message := strings.Replace(letter, "Subject", "Bcc: c@example.net\r\nSubject", 1)
	a := e.graph(token, "POST", "/me/sendMail", plainType, b64(message))
	if a.status != 202 || len(a.body) != 0 {
		t.Fatalf("got %d %s", a.status, a.body)
	}
	b, c, sent := e.Mail("b@example.net"), e.Mail("c@example.net"), e.Sent("kim@contoso.example")
	if len(b) != 1 || len(c) != 1 || len(sent) != 1 || string(sent[0].Raw) != message || string(b[0].Raw) != letter || b[0].Via != "graph" {
		t.Errorf("got %d, %d and %d messages: %+v", len(b), len(c), len(sent), b)
	}
	if a := e.graph(token, "POST", "/me/sendMail", plainType, b64("To: d@example.net\r\nSubject: x\r\n\r\nHi\r\n")); a.status != 202 {
		t.Fatalf("without From: got %d %s", a.status, a.body)
	}
	if got := string(e.Mail("d@example.net")[0].Raw); !strings.Contains(got, "From: \"Kim Akers\" <kim@contoso.example>\r\n") || !strings.Contains(got, "Message-ID: <") {
		t.Errorf("what lacks is filled in: got %q", got)
	}
}

func TestGraphSendsJSON(t *testing.T) {
	e := start(t)
	token := e.userToken("kim@contoso.example", graphHost+"Mail.Send")
	message := note("b@example.net", "body", `{"contentType":"HTML","content":"<p>Hi <img src=\"cid:pic@x\"></p>"}`,
		"ccRecipients", "["+person("c@example.net")+"]", "bccRecipients", "["+person("d@example.net")+"]", "replyTo", "["+person("r@example.net")+"]",
		"importance", `"high"`, "internetMessageId", `"<own@x.example>"`, "internetMessageHeaders", `[{"name":"X-Case","value":"4711"}]`,
		"singleValueExtendedProperties", `[{"id":"String 0x1042","value":"<parent@x.example>"}]`,
		"attachments", `[{"@odata.type":"#microsoft.graph.fileAttachment","name":"ü.csv","contentType":"text/csv","contentBytes":"YTtiCg=="},
		{"@odata.type":"#microsoft.graph.fileAttachment","name":"p.png","contentType":"image/png","isInline":true,"contentId":"pic@x","contentBytes":"iVBORw=="}]`)
	a := e.graph(token, "POST", "/me/sendMail", jsonType, `{"message":`+message+`,"saveToSentItems":"false"}`)
	if a.status != 202 || len(e.Sent("kim@contoso.example")) != 0 {
		t.Fatalf("got %d %s, %d in Sent Items", a.status, a.body, len(e.Sent("kim@contoso.example")))
	}
	for _, to := range []string{"b@example.net", "c@example.net", "d@example.net"} {
		if len(e.Mail(to)) != 1 {
			t.Errorf("%s has %d messages", to, len(e.Mail(to)))
		}
	}
	raw := e.Mail("b@example.net")[0].Raw
	m, err := mail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"Message-Id": "<own@x.example>", "X-Case": "4711", "In-Reply-To": "<parent@x.example>", "Importance": "high",
		"Reply-To": "<r@example.net>", "Bcc": "", "Cc": "<c@example.net>", "Subject": "=?utf-8?q?Gr=C3=BC=C3=9Fe?="} {
		if got := m.Header.Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	for _, part := range []string{"multipart/mixed", "multipart/related", "YTtiCg==", "Content-ID: <pic@x>", "filename*=utf-8''%C3%BC.csv"} {
		if !bytes.Contains(raw, []byte(part)) {
			t.Errorf("%q is not in %s", part, raw)
		}
	}
}

func TestGraphRefusals(t *testing.T) {
	const kim = "kim@contoso.example"
	e := start(t)
	token := e.userToken(kim, graphHost+"Mail.Send")
	state := e.World().State()
	mime := func(s string) string { return b64(s) }
	for _, c := range []struct {
		what       string
		change     func(*sim.State)
		kind, body string
		status     int
		code, text string
	}{
		{"not base64", nil, plainType, "!!!", 400, "ErrorMimeContentInvalidBase64String", "Invalid base64 string for MIME content."},
		{"no MIME", nil, plainType, mime("\r\n"), 400, "ErrorMimeContentInvalid", ""},
		{"no JSON", nil, jsonType, "{", 400, "BadRequest", "Unable to read JSON request payload"},
		{"no message", nil, jsonType, "{}", 400, "BadRequest", "'Message' is required"},
		{"other type", nil, "text/html", "x", 415, "RequestBodyRead", ""},
		{"no recipient", nil, jsonType, `{"message":{"subject":"x"}}`, 400, "ErrorInvalidRecipients", "At least one recipient is not valid."},
		{"bad recipient", nil, jsonType, sendJSON(note("not an address")), 400, "ErrorInvalidRecipients", ""},
		{"bad recipient in MIME", nil, plainType, mime(strings.Replace(letter, "b@example.net", "b@@example.net", 1)), 400, "ErrorInvalidRecipients", ""},
		{"own header", nil, jsonType, sendJSON(note("b@example.net", "internetMessageHeaders", `[{"name":"List-Id","value":"x"}]`)), 400, "InvalidInternetMessageHeader", "should start with 'x-'"},
		{"file without bytes", nil, jsonType, sendJSON(note("b@example.net", "attachments", `[{"@odata.type":"#microsoft.graph.fileAttachment","name":"x"}]`)), 400, "BadRequest", "ContentBytes"},
		{"as somebody else", nil, jsonType, sendJSON(note("b@example.net", "from", person("sam@contoso.example"))), 403, "ErrorSendAsDenied", "does not have the right to send mail on behalf"},
		{"as shared without the scope", nil, jsonType, sendJSON(note("b@example.net", "from", person("office@contoso.example"))), 403, "ErrorSendAsDenied", ""},
		{"large", func(s *sim.State) { s.Tenants[0].Mailboxes[2].MaxSendSize = 50 }, plainType, mime(letter), 400, "ErrorMessageSizeExceeded", "The message exceeds the maximum supported size."},
		{"full", func(s *sim.State) { s.Tenants[0].Mailboxes[2].Quota = 50 }, plainType, mime(letter), 507, "ErrorQuotaExceeded", ""},
		{"recipients of the day", func(s *sim.State) { s.Knobs.RecipientsPerDay = 1 }, plainType, mime(strings.Replace(letter, "b@", "a@example.net, b@", 1)), 429, "ErrorSubmissionQuotaExceeded", ""},
		{"recipients of a message", func(s *sim.State) { s.Tenants[0].Mailboxes[2].RecipientLimit = 1 }, plainType, mime(strings.Replace(letter, "b@", "a@example.net, b@", 1)), 400, "ErrorInvalidRecipients", ""},
		{"soft-deleted", func(s *sim.State) { s.Tenants[0].Mailboxes[2].SoftDeleted = true }, plainType, mime(letter), 404, "MailboxNotEnabledForRESTAPI", "The mailbox is either inactive, soft-deleted, or is hosted on-premise."},
		{"unlicensed", func(s *sim.State) { s.Tenants[0].Users[2].Unlicensed = true }, plainType, mime(letter), 404, "MailboxNotEnabledForRESTAPI", ""},
		{"body too large", func(s *sim.State) { s.Knobs.GraphBody = 100 }, plainType, mime(letter), 400, "BadRequest", "The maximum request length supported is 4MB."},
	} {
		e.World().Replace(state)
		if c.change != nil {
			e.World().Update(func(s *sim.State) error { c.change(s); return nil })
		}
		a := e.graph(token, "POST", "/me/sendMail", c.kind, c.body)
		e.wantGraph(c.what, a, c.status, c.code, c.text)
		doc, _ := a.doc["error"].(map[string]any)
		inner, _ := doc["innerError"].(map[string]any)
		if inner["request-id"] != a.header.Get("request-id") || inner["client-request-id"] == "" || inner["date"] == "" {
			t.Errorf("%s: innerError is %v", c.what, inner)
		}
	}
	if len(e.AllMail()) != 0 {
		t.Errorf("refused mail was delivered: %+v", e.AllMail())
	}
	e.World().Replace(state)
	for range 2 {
		if a := e.graph(token, "POST", "/me/sendMail", plainType, b64(strings.Repeat("x", 5<<20))); a.code() != "BadRequest" {
			t.Errorf("five megabytes: got %d %s", a.status, a.body)
		}
	}
}

func TestGraphRightsOfPeople(t *testing.T) {
	e := start(t, contoso(func(t *sim.Tenant) {
		t.Mailboxes = append(t.Mailboxes, &sim.Mailbox{Address: "read@contoso.example", Shared: true, FullAccess: []string{"kim@contoso.example"}})
	}))
	send, shared := e.userToken("kim@contoso.example", graphHost+"Mail.Send"), e.userToken("kim@contoso.example", graphHost+"Mail.Send.Shared")
	e.World().RemoveConsents("contoso.example", "", sim.ContosoClientID)
	only := e.userToken("kim@contoso.example", graphHost+"User.Read")
	for _, c := range []struct {
		what, token, path, from string
		status                  int
		code                    string
	}{
		{"own", send, "/me/sendMail", "", 202, ""},
		{"own by address", send, "/users/kim@contoso.example/sendMail", "", 202, ""},
		{"own by id, case of the path", send, "/Users/a0f1c2d3-0003-4a5b-8c6d-7e8f90a1b2c3/sendmail", "", 202, ""},
		{"no scope", only, "/me/sendMail", "", 403, "ErrorAccessDenied"},
		{"shared", shared, "/users/office@contoso.example/sendMail", "", 202, ""},
		{"shared as From", shared, "/me/sendMail", "office@contoso.example", 202, ""},
		{"shared without the scope", send, "/users/office@contoso.example/sendMail", "", 403, "ErrorAccessDenied"},
		{"shared with full access only", shared, "/users/read@contoso.example/sendMail", "", 403, "ErrorAccessDenied"},
		{"somebody else's", shared, "/users/sam@contoso.example/sendMail", "", 403, "ErrorAccessDenied"},
		{"nobody's", shared, "/users/nobody@contoso.example/sendMail", "", 404, "ErrorInvalidUser"},
		{"another tenant's", shared, "/users/robin@fabrikam.example/sendMail", "", 404, "ErrorInvalidUser"},
	} {
		message := note("b@example.net")
		if c.from != "" {
			message = note("b@example.net", "from", person(c.from))
		}
		if a := e.graph(c.token, "POST", c.path, jsonType, sendJSON(message)); a.status != c.status || a.code() != c.code {
			t.Errorf("%s: got %d %s, want %d %s", c.what, a.status, a.body, c.status, c.code)
		}
	}
	if n := len(e.Sent("office@contoso.example")); n != 1 {
		t.Errorf("Sent Items of the shared mailbox has %d messages, want 1", n)
	}
}

func TestGraphRightsOfApps(t *testing.T) {
	e := start(t)
	state := e.World().State()
	const app = sim.ContosoSystemClientID
	policy := func(right string, members ...string) func(*sim.Tenant) {
		return func(t *sim.Tenant) {
			t.Policies = append(t.Policies, sim.AccessPolicy{App: app, Right: right, Members: members})
		}
	}
	role := func(scope ...string) func(*sim.Tenant) {
		return func(t *sim.Tenant) {
			t.Consents, t.Assignments = nil, []sim.RoleAssignment{{App: app, Role: "Application Mail.Send", Scope: scope}}
		}
	}
	for _, c := range []struct {
		what    string
		change  func(*sim.Tenant)
		mailbox string
		from    string
		status  int
	}{
		{"any mailbox", nil, "kim@contoso.example", "", 202},
		{"another From", nil, "kim@contoso.example", "sam@contoso.example", 403},
		{"restricted to it", policy("RestrictAccess", "kim@contoso.example"), "kim@contoso.example", "", 202},
		{"restricted to others", policy("RestrictAccess", "kim@contoso.example"), "sam@contoso.example", "", 403},
		{"denied", policy("DenyAccess", "kim@contoso.example"), "kim@contoso.example", "", 403},
		{"others denied", policy("DenyAccess", "kim@contoso.example"), "sam@contoso.example", "", 202},
		{"role in its scope", role("kim@contoso.example"), "kim@contoso.example", "", 202},
		{"role outside of it", role("kim@contoso.example"), "sam@contoso.example", "", 403},
		{"role without scope", role(), "sam@contoso.example", "", 202},
		{"no permission", func(t *sim.Tenant) { t.Consents = nil }, "kim@contoso.example", "", 403},
		{"a role adds to the permission", func(t *sim.Tenant) {
			t.Assignments = []sim.RoleAssignment{{App: app, Role: "Application Mail.Send", Scope: []string{"kim@contoso.example"}}}
		}, "sam@contoso.example", "", 202},
	} {
		e.World().Replace(state)
		if c.change != nil {
			e.World().ChangeTenant("contoso.example", c.change)
		}
		message := note("b@example.net")
		if c.from != "" {
			message = note("b@example.net", "from", person(c.from))
		}
		a := e.graph(e.appToken("https://graph.microsoft.com"), "POST", "/users/"+c.mailbox+"/sendMail", jsonType, sendJSON(message))
		if a.status != c.status {
			t.Errorf("%s: got %d %s, want %d", c.what, a.status, a.body, c.status)
		}
	}
}

func TestGraphDraftsAndUploads(t *testing.T) {
	e := start(t)
	token := e.userToken("kim@contoso.example", graphHost+"Mail.Send", graphHost+"Mail.ReadWrite")
	a := e.graph(token, "POST", "/me/messages", jsonType, note("b@example.net", "internetMessageId", `"<d@x.example>"`), "Prefer", `IdType="ImmutableId"`)
	id := a.text("id")
	if a.status != 201 || id == "" || a.doc["isDraft"] != true || a.text("internetMessageId") != "<d@x.example>" {
		t.Fatalf("draft: got %d %s", a.status, a.body)
	}
	at := "/me/messages/" + url.PathEscape(id)
	small := `{"@odata.type":"#microsoft.graph.fileAttachment","name":"small.txt","contentType":"text/plain","contentBytes":"c21hbGw="}`
	if a = e.graph(token, "POST", at+"/attachments", jsonType, small); a.status != 201 || a.text("id") == "" || a.doc["size"] != 5.0 {
		t.Errorf("small file: got %d %s", a.status, a.body)
	}
	file := bytes.Repeat([]byte("0123456789abcdef"), 5<<20/16)
	session := func(size int) *answer {
		return e.graph(token, "POST", at+"/attachments/createUploadSession", jsonType,
			fmt.Sprintf(`{"AttachmentItem":{"attachmentType":"file","name":"large.bin","size":%d,"contentType":"application/x-test"}}`, size))
	}
	e.wantGraph("too small for a session", session(2<<20-1), 400, "ErrorAttachmentSizeShouldNotBeLessThanMinimumSize", "")
	e.wantGraph("too large for one", session(151<<20), 400, "ErrorMessageSizeExceeded", "")
	s := session(len(file))
	up := s.text("uploadUrl")
	if s.status != 201 || up == "" || fmt.Sprint(s.doc["nextExpectedRanges"]) != "[0-]" {
		t.Fatalf("session: got %d %s", s.status, s.body)
	}
	put := func(from, to, total int, header ...string) *answer {
		return e.do("PUT", up, "application/octet-stream", file[from:to], append(header, "Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, total))...)
	}
	const slice = 3 << 20
	e.wantGraph("with a token", put(0, slice, len(file), "Authorization", "Bearer "+token), 401, "InvalidAuthenticationToken", "Invalid audience")
	e.wantGraph("without a range", e.do("PUT", up, "", file[:10]), 400, "BadRequest", "Content-Range")
	e.wantGraph("another size", put(0, slice, len(file)+1), 400, "BadRequest", "")
	e.wantGraph("slice too large", put(0, 5<<20, len(file)), 400, "BadRequest", "4MB")
	e.wantGraph("out of order", put(slice, len(file), len(file)), 416, "ErrorInvalidRange", "[0-]")
	if a = put(0, slice, len(file)); a.status != 200 || fmt.Sprint(a.doc["nextExpectedRanges"]) != fmt.Sprintf("[%d-]", slice) {
		t.Errorf("first slice: got %d %s", a.status, a.body)
	}
	if a = put(0, slice, len(file)); a.status != 200 {
		t.Errorf("the same slice again: got %d %s", a.status, a.body)
	}
	if a = e.get(up); fmt.Sprint(a.doc["nextExpectedRanges"]) != fmt.Sprintf("[%d-]", slice) {
		t.Errorf("state: got %s", a.body)
	}
	if a = put(slice, len(file), len(file)); a.status != 201 || a.header.Get("Location") == "" {
		t.Errorf("last slice: got %d %s", a.status, a.body)
	}
	if a = e.graph(token, "GET", at+"/attachments", "", ""); len(a.doc["value"].([]any)) != 2 {
		t.Errorf("files: got %.300s", a.body)
	}
	second := session(len(file))
	if a = e.do("DELETE", second.text("uploadUrl"), "", nil); a.status != 204 {
		t.Errorf("giving up: got %d", a.status)
	}
	e.wantGraph("given up", e.get(second.text("uploadUrl")), 404, "ErrorItemNotFound", "")
	if a = e.graph(token, "POST", at+"/send", "", ""); a.status != 202 {
		t.Fatalf("send: got %d %s", a.status, a.body)
	}
	e.wantGraph("sent twice", e.graph(token, "POST", at+"/send", "", ""), 400, "ErrorInvalidOperation", "")
	got := e.Mail("b@example.net")
	if len(got) != 1 || !strings.Contains(string(got[0].Raw), "c21hbGw=") || !strings.Contains(strings.ReplaceAll(string(got[0].Raw), "\r\n", ""), base64.StdEncoding.EncodeToString(file)) {
		t.Errorf("the files did not arrive: %d messages", len(got))
	}
	if a = e.graph(token, "GET", at, "", ""); a.status != 200 || a.doc["isDraft"] != false || a.doc["hasAttachments"] != true {
		t.Errorf("an immutable id stays: got %d %.300s", a.status, a.body)
	}
	a = e.graph(token, "GET", "/me/mailFolders/Drafts", "", "")
	if a.doc["totalItemCount"] != 0.0 {
		t.Errorf("Drafts: got %s", a.body)
	}
	a = e.graph(token, "POST", "/me/messages", plainType, b64(letter))
	at = "/me/messages/" + url.PathEscape(a.text("id"))
	if a.status != 201 || e.graph(token, "POST", at+"/attachments", jsonType, small).status != 201 {
		t.Fatalf("draft of MIME: got %d %s", a.status, a.body)
	}
	if a = e.graph(token, "GET", at+"/$value", "", ""); !strings.Contains(string(a.body), "Hi\r\n.. dots\r\n") || !strings.Contains(string(a.body), "c21hbGw=") {
		t.Errorf("its MIME: got %s", a.body)
	}
	if a = e.graph(token, "DELETE", at, "", ""); a.status != 204 {
		t.Errorf("delete: got %d", a.status)
	}
	e.wantGraph("deleted", e.graph(token, "GET", at, "", ""), 404, "ErrorItemNotFound", "The specified object was not found in the store.")
	e.wantGraph("no id", e.graph(token, "GET", "/me/messages/x", "", ""), 400, "ErrorInvalidIdMalformed", "")
	e.World().ChangeMailbox("kim@contoso.example", func(m *sim.Mailbox) { m.MaxSendSize = 1000 })
	a = e.graph(token, "POST", "/me/messages", jsonType, note("b@example.net"))
	e.wantGraph("file too large for the mailbox", e.graph(token, "POST", "/me/messages/"+url.PathEscape(a.text("id"))+"/attachments", jsonType,
		`{"@odata.type":"#microsoft.graph.fileAttachment","name":"x","contentBytes":"`+b64(strings.Repeat("x", 2000))+`"}`),
		400, "ErrorMessageSizeExceeded", "Cannot save changes made to an item to store.")
}

func TestGraphUploadLimits(t *testing.T) {
	e := start(t, knobs(func(k *sim.Knobs) { k.UploadMin, k.GraphUpload = -1, 10 }))
	token := e.userToken("kim@contoso.example", graphHost+"Mail.ReadWrite")
	id := e.graph(token, "POST", "/me/messages", jsonType, note("b@example.net")).text("id")
	up := e.graph(token, "POST", "/me/messages/"+id+"/attachments/createUploadSession", jsonType, `{"AttachmentItem":{"attachmentType":"file","name":"x","size":20}}`).text("uploadUrl")
	put := func(r string) *answer { return e.do("PUT", up, "", make([]byte, 10), "Content-Range", r) }
	if a := put("bytes 0-9/20"); a.status != 200 {
		t.Errorf("got %d %s", a.status, a.body)
	}
	a := put("bytes 10-19/20")
	e.wantGraph("too many bytes", a, 429, "ApplicationThrottled", "")
	if a.header.Get("Retry-After") != "10" {
		t.Errorf("Retry-After: got %q", a.header.Get("Retry-After"))
	}
	e.Advance(5 * time.Minute)
	if a := put("bytes 10-19/20"); a.status != 201 {
		t.Errorf("later: got %d %s", a.status, a.body)
	}
	e.Advance(25 * time.Hour)
	e.wantGraph("too late", put("bytes 10-19/20"), 404, "ErrorItemNotFound", "")
}

func TestGraphLookUp(t *testing.T) {
	e := start(t)
	token := e.userToken("kim@contoso.example", graphHost+"Mail.Send", graphHost+"Mail.Read")
	for i := range 3 {
		e.graph(token, "POST", "/me/sendMail", plainType, b64(strings.Replace(letter, "<1@", fmt.Sprintf("<o'%d@", i), 1)))
	}
	find := func(path, filter string) []any {
		t.Helper()
		a := e.graph(token, "GET", path+"?"+url.Values{"$filter": {filter}, "$select": {"id,sentDateTime"}, "$top": {"5"}}.Encode(), "", "")
		if a.status != 200 {
			t.Fatalf("got %d %s", a.status, a.body)
		}
		return a.doc["value"].([]any)
	}
	got := find("/me/mailFolders/sentitems/messages", "internetMessageId eq '<o''1@x.example>'")
	if len(got) != 1 || got[0].(map[string]any)["sentDateTime"] == nil || got[0].(map[string]any)["subject"] != nil {
		t.Errorf("got %v", got)
	}
	if got := find("/me/messages", "internetMessageId eq '<o''1@x.example>'"); len(got) != 1 {
		t.Errorf("in all folders: got %v", got)
	}
	if got := find("/me/mailFolders/inbox/messages", "internetMessageId eq '<o''1@x.example>'"); len(got) != 0 {
		t.Errorf("in the Inbox: got %v", got)
	}
	a := e.graph(token, "GET", "/me/mailFolders/SentItems/messages?$top=2&$count=true", "", "")
	list := a.doc["value"].([]any)
	if len(list) != 2 || a.doc["@odata.count"] != 3.0 || list[0].(map[string]any)["internetMessageId"] != "<o'2@x.example>" {
		t.Errorf("newest first: got %.300s", a.body)
	}
	if a = e.do("GET", a.text("@odata.nextLink"), "", nil, "Authorization", "Bearer "+token); len(a.doc["value"].([]any)) != 1 {
		t.Errorf("the rest: got %.300s", a.body)
	}
	e.wantGraph("no such folder", e.graph(token, "GET", "/me/mailFolders/attic/messages", "", ""), 404, "ErrorItemNotFound", "")
	e.wantGraph("bad filter", e.graph(token, "GET", "/me/messages?$filter="+url.QueryEscape("internetMessageId gt 5"), "", ""), 400, "BadRequest", "Invalid filter clause")
	if a = e.graph(token, "GET", "/me/mailFolders", "", ""); len(a.doc["value"].([]any)) != 6 {
		t.Errorf("folders: got %s", a.body)
	}
	e.wantGraph("a draft needs more", e.graph(token, "POST", "/me/messages", jsonType, note("b@example.net")), 403, "ErrorAccessDenied", "")
}

func TestGraphFourAtATime(t *testing.T) {
	e := start(t)
	token := e.userToken("kim@contoso.example", graphHost+"Mail.Send")
	e.SetFault(sim.Fault{Point: "graph.sendMail", Do: sim.DoHang, Times: 4})
	ctx, cancel := context.WithCancel(t.Context())
	var hanging sync.WaitGroup
	for range 4 {
		hanging.Go(func() {
			req, _ := http.NewRequestWithContext(ctx, "POST", e.GraphURL()+"/v1.0/me/sendMail", strings.NewReader(b64(letter)))
			req.Header.Set("Authorization", "Bearer "+token)
			if res, err := e.client.Do(req); err == nil {
				res.Body.Close()
			}
		})
	}
	if err := e.WaitCount(e.ctx, "fault.graph.sendMail:hang", 4); err != nil {
		t.Fatal(err)
	}
	a := e.graph(token, "POST", "/me/sendMail", plainType, b64(letter))
	e.wantGraph("the fifth", a, 429, "ApplicationThrottled", "Application is over its MailboxConcurrency limit.")
	if a.header.Get("Retry-After") != "10" {
		t.Errorf("Retry-After: got %q", a.header.Get("Retry-After"))
	}
	if a := e.graph(e.appToken("https://graph.microsoft.com"), "POST", "/users/kim@contoso.example/sendMail", plainType, b64(letter)); a.status != 202 {
		t.Errorf("another app has its own four: got %d %s", a.status, a.body)
	}
	cancel()
	hanging.Wait()
	for a.status == 429 { // until the sim saw that the four went away
		a = e.graph(token, "POST", "/me/sendMail", plainType, b64(letter))
	}
	if a.status != 202 {
		t.Errorf("afterwards: got %d %s", a.status, a.body)
	}
}

func TestGraphRequestsInTenMinutes(t *testing.T) {
	e := start(t, knobs(func(k *sim.Knobs) { k.GraphRequests = 2 }))
	token := e.userToken("kim@contoso.example", graphHost+"Mail.Send")
	for range 2 {
		if a := e.graph(token, "POST", "/me/sendMail", plainType, b64(letter)); a.status != 202 {
			t.Errorf("got %d %s", a.status, a.body)
		}
	}
	e.wantGraph("the third", e.graph(token, "POST", "/me/sendMail", plainType, b64(letter)), 429, "TooManyRequests", "")
	e.Advance(10 * time.Minute)
	if a := e.graph(token, "POST", "/me/sendMail", plainType, b64(letter)); a.status != 202 {
		t.Errorf("later: got %d %s", a.status, a.body)
	}
}

func TestGraphFaults(t *testing.T) {
	e := start(t)
	token := e.userToken("kim@contoso.example", graphHost+"Mail.Send")
	for _, c := range []struct {
		name      string
		status    int // 0 is a lost connection
		code      string
		retry     string
		delivered bool
	}{
		{"graph-down", 0, "", "", false}, {"graph-lost", 0, "", "", true}, {"graph-429", 429, "ApplicationThrottled", "10", false},
		{"graph-503", 503, "ServiceNotAvailable", "10", false}, {"graph-500", 500, "ErrorInternalServerError", "", false},
		{"graph-401", 401, "InvalidAuthenticationToken", "", false}, {"graph-403", 403, "ErrorAccessDenied", "", false}, {"graph-html", 502, "", "", false},
	} {
		e.ClearMail()
		e.ClearFaults()
		e.SetFault(sim.Fault{Name: c.name, Times: 1})
		a, err := e.try("POST", e.GraphURL()+"/v1.0/me/sendMail", plainType, []byte(b64(letter)), "Authorization", "Bearer "+token)
		switch {
		case (c.status == 0) != (err != nil):
			t.Errorf("%s: got %+v, %v", c.name, a, err)
		case err == nil && (a.status != c.status || a.code() != c.code || a.header.Get("Retry-After") != c.retry):
			t.Errorf("%s: got %d %s, Retry-After %q", c.name, a.status, a.body, a.header.Get("Retry-After"))
		}
		if got := len(e.Mail("b@example.net")) == 1; got != c.delivered {
			t.Errorf("%s: delivered %v, want %v", c.name, got, c.delivered)
		}
	}
}

func TestTokenAndDiscoveryFaults(t *testing.T) {
	e := start(t)
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {sim.ContosoSystemClientID}, "client_secret": {sim.ContosoSystemClientSecret}, "scope": {"https://graph.microsoft.com/.default"}}
	call := func() (*answer, error) {
		return e.try("POST", e.LoginURL()+"/contoso.example/oauth2/v2.0/token", "application/x-www-form-urlencoded", []byte(form.Encode()))
	}
	for _, c := range []struct {
		name   string
		status int // 0 is a lost connection
		seen   func(*answer) bool
	}{
		{"token-down", 0, nil}, {"token-lost", 0, nil},
		{"token-html", 502, func(a *answer) bool { return a.header.Get("Content-Type") == "text/html" }},
		{"token-html-200", 200, func(a *answer) bool { return a.doc == nil }},
		{"token-500", 500, func(a *answer) bool { return a.text("error") == "server_error" }},
		{"token-503", 503, func(a *answer) bool { return a.header.Get("Retry-After") == "30" }},
		{"token-429", 429, func(a *answer) bool { return a.header.Get("Retry-After") == "30" }},
		{"token-redirect", 307, func(a *answer) bool { return a.header.Get("Location") == "https://elsewhere.example/token" }},
		{"token-garbage", 200, func(a *answer) bool { return a.doc == nil }},
		{"token-no-token", 200, func(a *answer) bool { return a.doc["access_token"] == nil && a.doc["expires_in"] != nil }},
		{"token-no-expiry", 200, func(a *answer) bool { return a.doc["expires_in"] == nil }},
		{"token-odd-type", 200, func(a *answer) bool { return a.text("token_type") == "bEARER" }},
		{"token-narrow", 200, func(a *answer) bool { return a.text("scope") == "openid profile" }},
		{"aadsts-90055", 429, func(a *answer) bool { return a.text("error") == "temporarily_unavailable" }},
		{"aadsts-7000222", 401, func(a *answer) bool { return fmt.Sprint(a.doc["error_codes"]) == "[7.000222e+06]" }},
	} {
		e.SetFault(sim.Fault{Name: c.name})
		a, err := call()
		if (c.status == 0) != (err != nil) || err == nil && (a.status != c.status || !c.seen(a)) {
			t.Errorf("%s: got %+v, %v", c.name, a, err)
		}
		e.ClearFault(c.name)
	}
	e.SetFault(sim.Fault{Name: "token-big", Bytes: 1 << 20})
	if a, err := call(); err != nil || len(a.body) < 1<<20 {
		t.Errorf("token-big: got %v", err)
	}
	e.ClearFaults()
	e.SetFault(sim.Fault{Name: "one", Point: "token.refresh_token", Do: sim.DoClose})
	e.SetFault(sim.Fault{Name: "two", Point: "token", Do: sim.DoClose, Match: "another"})
	e.SetFault(sim.Fault{Name: "three", Point: "token", Do: sim.DoStatus, Status: 500, Skip: 1, Times: 1})
	for i, want := range []int{200, 500, 200} {
		if a, err := call(); err != nil || a.status != want {
			t.Errorf("call %d: got %+v, %v, want %d", i+1, a, err, want)
		}
	}
	e.ClearFaults()
	at := e.LoginURL() + "/common/v2.0/.well-known/openid-configuration"
	e.SetFault(sim.Fault{Name: "discovery-issuer"})
	if a := e.get(at); a.text("issuer") != "https://elsewhere.example/v2.0" || a.text("token_endpoint") == "" {
		t.Errorf("discovery-issuer: got %s", a.body)
	}
	e.SetFault(sim.Fault{Name: "jwks-empty"})
	if len(e.keySet()) != 0 {
		t.Error("jwks-empty: there are keys")
	}
}
