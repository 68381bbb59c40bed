package sim_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant/sim"
)

// control calls the control address with a JSON body.
func (e *env) control(method, path, body string, header ...string) *answer {
	e.Helper()
	return e.do(method, e.ControlURL()+path, jsonType, []byte(body), header...)
}

func TestControlIndexIsComplete(t *testing.T) {
	e := start(t)
	var list []struct{ Call, Does string }
	if err := json.Unmarshal(e.control("GET", "/", "").body, &list); err != nil || len(list) < 25 {
		t.Fatalf("got %v, %v", list, err)
	}
	for _, c := range list {
		method, path, _ := strings.Cut(c.Call, " ")
		if c.Does == "" || !strings.HasPrefix(path, sim.ControlPath+"/") || method == "" {
			t.Errorf("got %+v", c)
		}
	}
	if a := e.control("GET", "/nonsense", ""); a.status != 404 || !strings.Contains(a.text("error"), "GET /_control/ lists") {
		t.Errorf("unknown path: got %d %s", a.status, a.body)
	}
}

func TestControlChangesTheWorld(t *testing.T) {
	e := start(t)
	for _, c := range []struct {
		path, patch string
		changed     func() bool
	}{
		{"/tenants/contoso.example", `{"smtp_auth_disabled":true,"rules":[{"kind":"block"}]}`, func() bool {
			t, _ := e.World().Tenant(sim.ContosoTenantID)
			return t.SMTPAuthDisabled && len(t.Rules) == 1 && len(t.Users) == 5
		}},
		{"/users/kim@contoso.example", `{"mfa":true,"roles":["Global Administrator"]}`, func() bool {
			u, _ := e.World().User("kim@contoso.example")
			return u.MFA && len(u.Roles) == 1 && u.Name == "Kim Akers"
		}},
		{"/mailboxes/alex@contoso.example", `{"smtp_auth_disabled":null,"max_send_size":1000}`, func() bool {
			m, _ := e.World().Mailbox("alex@contoso.example")
			return m.SMTPAuthDisabled == nil && m.MaxSendSize == 1000
		}},
		{"/apps/" + sim.ContosoClientID, `{"disabled":true}`, func() bool { a, _ := e.World().App(sim.ContosoClientID); return a.Disabled && len(a.Secrets) == 2 }},
		{"/knobs", `{"per_minute":-1,"code_life":"1m"}`, func() bool {
			k := e.World().Knobs()
			return k.PerMinute == -1 && k.CodeLife == sim.Duration(time.Minute) && k.Connections == 3
		}},
	} {
		if a := e.control("PATCH", c.path, c.patch); a.status != 200 || !c.changed() {
			t.Errorf("%s: got %d %s", c.path, a.status, a.body)
		}
		if a := e.control("PATCH", c.path, `{"no_such_member":1}`); a.status != 400 || !strings.Contains(a.text("error"), "no_such_member") || !c.changed() {
			t.Errorf("%s with an unknown member: got %d %s", c.path, a.status, a.body)
		}
		if a := e.control("GET", c.path, ""); a.status != 200 || a.doc == nil {
			t.Errorf("%s: got %d %s", c.path, a.status, a.body)
		}
	}
	for _, path := range []string{"/tenants/x", "/users/x", "/mailboxes/x", "/apps/x"} {
		if a := e.control("PATCH", path, `{}`); a.status != 404 || !strings.Contains(a.text("error"), "no such") {
			t.Errorf("%s: got %d %s", path, a.status, a.body)
		}
	}
	if a := e.control("POST", "/tenants/contoso.example/users", `{"address":"new@contoso.example","password":"p"}`); a.status != 200 || a.text("id") == "" {
		t.Errorf("new user: got %d %s", a.status, a.body)
	}
	if _, ok := e.World().Mailbox("new@contoso.example"); !ok {
		t.Error("the new user has no mailbox")
	}
	if a := e.control("POST", "/tenants/contoso.example/users", `{"address":"new@contoso.example"}`); a.status != 400 || !strings.Contains(a.text("error"), "there twice") {
		t.Errorf("the same again: got %d %s", a.status, a.body)
	}
	if a := e.control("POST", "/consents", `{"tenant":"contoso.example","user":"kim@contoso.example","app":"`+sim.ContosoClientID+`","scopes":["Mail.Send"]}`); a.status != 204 {
		t.Errorf("consent: got %d %s", a.status, a.body)
	}
	if a := e.control("DELETE", "/consents?tenant=contoso.example&app="+sim.ContosoClientID, ""); a.status != 204 {
		t.Errorf("without consent: got %d %s", a.status, a.body)
	}
	if a := e.control("POST", "/users/kim@contoso.example/revoke", ""); a.status != 204 {
		t.Errorf("revoke: got %d %s", a.status, a.body)
	}
	if u, _ := e.World().User("kim@contoso.example"); u.TokensValidFrom.IsZero() {
		t.Error("nothing was revoked")
	}
	whole := e.control("GET", "/world?format=yaml", "")
	if a := e.control("PUT", "/world", "tenants: []\n"); a.status != 204 || len(e.World().State().Tenants) != 0 {
		t.Errorf("empty world: got %d %s", a.status, a.body)
	}
	if a := e.do("PUT", e.ControlURL()+"/world", "application/yaml", whole.body); a.status != 204 || len(e.World().State().Tenants) != 3 {
		t.Errorf("the world again: got %d %s", a.status, a.body)
	}
	if a := e.control("PUT", "/world", `{"tenants":[{"id":"x"}]}`); a.status != 400 || len(e.World().State().Tenants) != 3 {
		t.Errorf("a bad world: got %d %s", a.status, a.body)
	}
}

func TestControlCredentials(t *testing.T) {
	e := start(t)
	app := "/apps/" + sim.ContosoSystemClientID
	token := func(secret string) *answer {
		return e.token("contoso.example", url.Values{"grant_type": {"client_credentials"}, "client_id": {sim.ContosoSystemClientID},
			"client_secret": {secret}, "scope": {"https://graph.microsoft.com/.default"}})
	}
	s := e.control("POST", app+"/secrets", "")
	if a := token(s.text("value")); s.status != 200 || a.status != 200 {
		t.Errorf("issued secret: got %s, %d %s", s.body, a.status, a.body)
	}
	if a := e.control("POST", app+"/secrets/"+s.text("id")+"/expire", ""); a.status != 204 {
		t.Errorf("expire: got %d %s", a.status, a.body)
	}
	e.wantAADSTS("expired secret", token(s.text("value")), "7000222", "invalid_client")
	if a := token(sim.ContosoSystemClientSecret); a.status != 200 {
		t.Errorf("the other secret: got %d %s", a.status, a.body)
	}
	if a := e.control("POST", app+"/secrets/*/expire", `{"at":"2026-01-02T00:00:00Z"}`); a.status != 204 {
		t.Errorf("expire all: got %d %s", a.status, a.body)
	}
	e.wantAADSTS("all expired", token(sim.ContosoSystemClientSecret), "7000222", "invalid_client")
	if a := e.control("POST", app+"/secrets/none/expire", ""); a.status != 404 {
		t.Errorf("no such secret: got %d %s", a.status, a.body)
	}
	c := e.control("POST", app+"/certificates", `{"life":"24h"}`)
	if c.status != 200 || !strings.Contains(c.text("key_pem"), "PRIVATE KEY") || c.text("x5t_s256") == "" {
		t.Errorf("certificate: got %d %s", c.status, c.body)
	}
	if a := e.control("DELETE", app+"/certificates/"+c.text("id"), ""); a.status != 204 {
		t.Errorf("remove: got %d %s", a.status, a.body)
	}
	if a := e.control("DELETE", app+"/certificates/"+c.text("id"), ""); a.status != 404 {
		t.Errorf("remove again: got %d %s", a.status, a.body)
	}
}

func TestControlFaultsClockAndKeys(t *testing.T) {
	e := start(t)
	if a := e.control("POST", "/faults", `{"name":"graph-429","times":2}`); a.status != 200 || a.text("point") != "graph" {
		t.Errorf("set: got %d %s", a.status, a.body)
	}
	if a := e.control("POST", "/faults", `{"point":"token","do":"status","status":500,"delay":"1s"}`); a.status != 200 || a.text("name") != "token:status" {
		t.Errorf("own: got %d %s", a.status, a.body)
	}
	if a := e.control("POST", "/faults", `{"name":"nonsense"}`); a.status != 400 {
		t.Errorf("unknown: got %d %s", a.status, a.body)
	}
	if len(e.Faults()) != 2 {
		t.Errorf("got %+v", e.Faults())
	}
	if a := e.control("DELETE", "/faults/graph-429", ""); a.status != 204 || len(e.Faults()) != 1 {
		t.Errorf("clear one: got %d, %+v", a.status, e.Faults())
	}
	if a := e.control("DELETE", "/faults", ""); a.status != 204 || len(e.Faults()) != 0 {
		t.Errorf("clear: got %d, %+v", a.status, e.Faults())
	}
	if a := e.control("GET", "/faults/names", ""); len(a.doc["names"].(map[string]any)) != len(sim.FaultNames()) {
		t.Errorf("names: got %s", a.body)
	}
	if a := e.control("GET", "/triggers", ""); a.text("throttled") == "" {
		t.Errorf("triggers: got %s", a.body)
	}
	before := e.Now()
	if a := e.control("POST", "/clock", `{"advance":"90m"}`); a.status != 200 || e.Now().Sub(before) < 90*time.Minute {
		t.Errorf("clock: got %d %s", a.status, a.body)
	}
	if a := e.control("POST", "/clock", `{"advance":"-1m"}`); a.status != 400 {
		t.Errorf("backwards: got %d %s", a.status, a.body)
	}
	if a := e.control("POST", "/clock", `{"advance":5}`); a.status != 400 {
		t.Errorf("no duration: got %d %s", a.status, a.body)
	}
	n := len(e.keySet())
	if a := e.control("POST", "/keys/roll", ""); a.status != 204 || len(e.keySet()) != n+1 {
		t.Errorf("roll: got %d %s", a.status, a.body)
	}
	if a := e.control("POST", "/keys/roll", `{"emergency":true}`); a.status != 204 || len(e.keySet()) != 2 {
		t.Errorf("emergency: got %d %s", a.status, a.body)
	}
	if a := e.control("GET", "/counts", ""); a.doc["jwks"] == nil {
		t.Errorf("counts: got %s", a.body)
	}
}

func TestControlMail(t *testing.T) {
	e := start(t)
	waiting := make(chan *answer)
	go func() {
		a, err := e.try("GET", e.ControlURL()+"/mail?mailbox=b@example.net&wait=30s", "", nil)
		if err != nil {
			t.Error(err)
		}
		waiting <- a
	}()
	token := e.userToken("kim@contoso.example", graphHost+"Mail.Send")
	e.graph(token, "POST", "/me/sendMail", plainType, b64(letter))
	var got []sim.Message
	if a := <-waiting; a == nil || json.Unmarshal(a.body, &got) != nil || len(got) != 1 || got[0].Raw != nil {
		t.Fatalf("waited for: got %+v", got)
	}
	if a := e.control("GET", "/mail/"+url.PathEscape(got[0].ID)+"/raw", ""); string(a.body) != letter || a.header.Get("Content-Type") != "message/rfc822" {
		t.Errorf("raw: got %q", a.body)
	}
	if a := e.control("GET", "/mail/"+url.PathEscape(got[0].ID), ""); a.text("message_id") != "<1@x.example>" || a.text("raw") == "" {
		t.Errorf("one: got %s", a.body)
	}
	count := func(query string) (n int) {
		json.Unmarshal(e.control("GET", "/mail"+query, "").body, &got)
		return len(got)
	}
	if count("") != 2 || count("?folder=Sent%20Items") != 1 || count("?mailbox=kim@contoso.example") != 1 || count("?mailbox=nobody@example.net&wait=1ms") != 0 {
		t.Error("the lists are wrong")
	}
	if count("?raw=1"); got[0].Raw == nil {
		t.Error("raw=1 brings no bytes")
	}
	for _, q := range []string{"?count=x", "?wait=x"} {
		if a := e.control("GET", "/mail"+q, ""); a.status != 400 {
			t.Errorf("%s: got %d %s", q, a.status, a.body)
		}
	}
	if a := e.control("DELETE", "/mail", ""); a.status != 204 || len(e.AllMail()) != 0 {
		t.Errorf("clear: got %d", a.status)
	}
	if a := e.control("GET", "/mail/x", ""); a.status != 404 {
		t.Errorf("no such message: got %d %s", a.status, a.body)
	}
}

func TestControlIsForThisMachineOnly(t *testing.T) {
	e := start(t)
	for _, c := range []struct {
		what   string
		header []string
		status int
	}{
		{"by name", nil, 200},
		{"rebound name", []string{"Host", "evil.example"}, 403},
		{"page of another site", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"page of another origin", []string{"Origin", "https://evil.example"}, 403},
	} {
		if a := e.control("POST", "/clock", `{}`, c.header...); a.status != c.status {
			t.Errorf("%s: got %d %s, want %d", c.what, a.status, a.body, c.status)
		}
	}
	open := startWith(t, sim.Config{HTTP: "0.0.0.0:0"})
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(open.BrowserURL(), "http://"))
	for _, out := range outside(t) {
		if a := open.get("http://" + net.JoinHostPort(out, port) + sim.ControlPath + "/counts"); a.status != 403 {
			t.Errorf("by the address %s: got %d %s", out, a.status, a.body)
		}
	}
	if a := open.get(open.ControlURL() + "/counts"); a.status != 200 {
		t.Errorf("by the loopback of the same listener: got %d %s", a.status, a.body)
	}
}

// outside lists the addresses of this machine that others may reach.
func outside(t *testing.T) (list []string) {
	t.Helper()
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && n.IP.To4() != nil {
			list = append(list, n.IP.String())
		}
	}
	return list
}

func TestWorldFiles(t *testing.T) {
	w, err := sim.LoadWorld(strings.NewReader(`
tenants:
- id: 11111111-2222-4333-8444-555555555555
  name: Adatum
  domains: [adatum.example]
  users:
  - {id: 11111111-2222-4333-8444-555555555501, address: ann@adatum.example, name: Ann, password: secret}
  mailboxes:
  - {address: ann@adatum.example, smtp_auth_disabled: false}
  apps:
  - id: 11111111-2222-4333-8444-555555555502
    name: Adatum Mail
    any_loopback: true
    secrets: [{id: one, value: s, end: 2030-01-01T00:00:00Z}]
    delegated: [User.Read, "https://outlook.office.com/SMTP.Send"]
knobs: {code_life: 1m, per_minute: -1}
`))
	if err != nil {
		t.Fatal(err)
	}
	var first, second bytes.Buffer
	if err := w.Write(&first); err != nil {
		t.Fatal(err)
	}
	again, err := sim.LoadWorld(bytes.NewReader(first.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if again.Write(&second); first.String() != second.String() {
		t.Errorf("a world changes when it is written and read:\n%s\n%s", first.String(), second.String())
	}
	asJSON, _ := json.Marshal(w.State())
	if _, err := sim.LoadWorld(bytes.NewReader(asJSON)); err != nil {
		t.Errorf("as JSON: %v", err)
	}
	e := startWith(t, sim.Config{World: again})
	at := e.LoginURL() + "/adatum.example/oauth2/v2.0/authorize?" + request("client_id", "11111111-2222-4333-8444-555555555502").Encode()
	back, err := e.SignIn(e.ctx, at, sim.SignIn{Address: "ann@adatum.example"})
	if err != nil || !back.Query().Has("code") {
		t.Fatalf("got %v, %v", back, err)
	}
	a := e.token("adatum.example", redemption(back.Query().Get("code"), "client_id", "11111111-2222-4333-8444-555555555502", "client_secret", "s"))
	e.login("ann@adatum.example", a.text("access_token"))

	for what, c := range map[string][2]string{
		"unknown field":  {"tenant: []", `unknown field "tenant"`},
		"no GUID":        {"tenants: [{id: x}]", "is not a GUID"},
		"unknown cloud":  {"tenants: [{id: 11111111-2222-4333-8444-555555555555, cloud: rain}]", `unknown cloud "rain"`},
		"domain twice":   {"tenants: [{id: 11111111-2222-4333-8444-555555555555, domains: [a.example, A.example]}]", "there twice"},
		"bad duration":   {"knobs: {code_life: soon}", "write it as 90s"},
		"no YAML":        {"{", "world: "},
		"short seal":     {"seal: YQ==", "32 bytes"},
		"user without @": {"tenants: [{id: 11111111-2222-4333-8444-555555555555, users: [{id: 11111111-2222-4333-8444-555555555501, address: x}]}]", "needs an id (GUID) and an address"},
	} {
		if _, err := sim.LoadWorld(strings.NewReader(c[0])); err == nil || !strings.Contains(err.Error(), c[1]) {
			t.Errorf("%s: got %v, want %q", what, err, c[1])
		}
	}
}

func TestTokensOutliveTheProcess(t *testing.T) {
	dir := t.TempDir()
	first := startWith(t, sim.Config{Dir: dir})
	refresh, state := first.tokens("kim@contoso.example").text("refresh_token"), first.World().State()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	world, err := sim.NewWorld(state)
	if err != nil {
		t.Fatal(err)
	}
	second := startWith(t, sim.Config{World: world, Dir: dir})
	if first.CAFile() != second.CAFile() || !first.CertPool().Equal(second.CertPool()) {
		t.Error("the certificate authority is another one")
	}
	if a := second.token("organizations", renewal(refresh)); a.status != 200 {
		t.Errorf("got %d %s", a.status, a.body)
	}
}

func TestWebmail(t *testing.T) {
	e := start(t)
	token := e.userToken("kim@contoso.example", graphHost+"Mail.Send")
	message := note("sam@contoso.example", "subject", `"<b>Bold</b>"`, "body", `{"contentType":"html","content":"<p>Hello</p><script>alert(1)</script><img src=\"cid:pic@x\"><img src=\"https://tracker.example/x\">"}`,
		"attachments", `[{"@odata.type":"#microsoft.graph.fileAttachment","name":"evil.html","contentType":"text/html","contentBytes":"PHNjcmlwdD4="},
		{"@odata.type":"#microsoft.graph.fileAttachment","name":"p.png","contentType":"image/png","isInline":true,"contentId":"pic@x","contentBytes":"iVBORw=="}]`)
	if a := e.graph(token, "POST", "/me/sendMail", jsonType, sendJSON(message)); a.status != 202 {
		t.Fatalf("got %d %s", a.status, a.body)
	}
	got := e.Mail("sam@contoso.example")[0]
	page := func(at string, status int, parts ...string) *answer {
		t.Helper()
		a := e.get(at)
		if a.status != status {
			t.Errorf("%s: got %d", at, a.status)
		}
		for _, p := range parts {
			if !strings.Contains(string(a.body), p) {
				t.Errorf("%s: %q is not on the page", at, p)
			}
		}
		return a
	}
	if a := page(e.BrowserURL()+"/", 303); a.header.Get("Location") != "/webmail/" {
		t.Errorf("the first page: got %v", a.header)
	}
	page(e.BrowserURL()+"/webmail/", 200, "Sam Smith", "pat@outlook.example", "1 message")
	page(e.WebmailURL("sam@contoso.example"), 200, "&lt;b&gt;Bold", "Kim Akers", "Inbox")
	page(e.WebmailURL("kim@contoso.example")+"?folder=sent", 200, "&lt;b&gt;Bold", "Sent Items")
	page(e.WebmailURL("stranger@example.net"), 200, "Nothing here yet")
	page(e.WebmailURL("kim@contoso.example")+"?folder=attic", 404, "no such folder")
	at := e.WebmailURL("sam@contoso.example") + "/" + url.PathEscape(got.ID)
	a := page(at, 200, "&lt;b&gt;Bold", "evil.html", "MAIL FROM", `sandbox="allow-popups`)
	if csp := a.header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
		t.Errorf("policy of the page: got %s", csp)
	}
	a = page(at+"/body", 200, "<p>Hello</p>", `src="data:image/png;base64,iVBORw=="`)
	if csp := a.header.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "sandbox ") || strings.Contains(csp, "allow-scripts") || strings.Contains(csp, "https:") {
		t.Errorf("policy of the body: got %s", csp)
	}
	a = page(at+"/files/1", 200, "<script>")
	if a.header.Get("Content-Type") != "application/octet-stream" || !strings.HasPrefix(a.header.Get("Content-Disposition"), "attachment") {
		t.Errorf("a file: got %v", a.header)
	}
	page(at+"/files/9", 404)
	if a = page(at+"/raw", 200); !bytes.Equal(a.body, got.Raw) || !strings.HasPrefix(a.header.Get("Content-Disposition"), "attachment") {
		t.Errorf("raw: got %v", a.header)
	}
	page(e.WebmailURL("sam@contoso.example")+"/none", 404, "not there any more")
	var now struct{ Version int }
	json.Unmarshal(e.get(e.BrowserURL()+"/webmail/_changes?since=0").body, &now)
	changed := make(chan *answer)
	go func() {
		a, err := e.try("GET", fmt.Sprintf("%s/webmail/_changes?since=%d", e.BrowserURL(), now.Version), "", nil)
		if err != nil {
			t.Error(err)
		}
		changed <- a
	}()
	e.graph(token, "POST", "/me/sendMail", jsonType, sendJSON(message))
	if a := <-changed; a == nil || a.doc["version"] == float64(now.Version) {
		t.Errorf("the page does not hear of new mail: got %+v", a)
	}
	if a := e.get(e.BrowserURL() + "/_assets/style.css"); a.status != 200 || !strings.HasPrefix(a.header.Get("Content-Type"), "text/css") {
		t.Errorf("style: got %d %v", a.status, a.header)
	}
}
