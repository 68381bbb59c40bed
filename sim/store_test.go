package sim_test

import (
	"bytes"
	"encoding/json"
	"mime"
	"mime/multipart"
	"net/mail"
	"net/url"
	"strings"
	"testing"

	"github.com/mailgrant/mailgrant/sim"
)

func TestControlBringsAndChangesMail(t *testing.T) {
	e := start(t)
	const raw = "From: Ann <ann@adatum.example>\r\nTo: kim@contoso.example\r\nSubject: One\r\nMessage-ID: <1@adatum.example>\r\n\r\nHello\r\n"
	post := func(query string) *answer {
		return e.do("POST", e.ControlURL()+"/mail?"+query, "message/rfc822", []byte(raw))
	}
	a := post("to=kim%2Bnews@contoso.example&spf=fail&dkim=none&dmarc=fail&from=bounce@list.example&at=2026-11-01T10:00:00Z")
	if a.status != 200 || a.text("folder") != "Inbox" || a.text("from") != "bounce@list.example" || a.text("at") != "2026-11-01T10:00:00Z" || a.doc["uid"] != 1.0 || a.doc["raw"] != nil {
		t.Fatalf("got %d %s", a.status, a.body)
	}
	id := a.text("immutable_id")
	got := string(e.Mail(kim)[0].Raw)
	for _, want := range []string{
		"Authentication-Results: spf=fail (sender IP is 203.0.113.9)\r\n smtp.mailfrom=list.example; dkim=none (message not signed)\r\n header.d=none;dmarc=fail action=oreject\r\n header.from=adatum.example;compauth=fail reason=000\r\n",
		"Return-Path: bounce@list.example\r\n", "X-MS-Exchange-Organization-AuthAs: Anonymous\r\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("lacks %q: %s", want, got)
		}
	}
	at := "/mail/" + url.PathEscape(id)
	if a = e.control("PATCH", at, `{"folder":"Archive","flags":["\\Flagged"]}`); a.status != 200 || a.text("folder") != "Archive" || a.text("immutable_id") != id || a.doc["uid"] != 1.0 {
		t.Errorf("move: got %d %s", a.status, a.body)
	}
	if a = e.control("GET", "/mail?folder=archive", ""); !strings.Contains(string(a.body), `"\\Flagged"`) {
		t.Errorf("list: got %s", a.body)
	}
	if a = e.control("PATCH", at, `{"folder":"Nowhere"}`); a.status != 404 {
		t.Errorf("to nowhere: got %d %s", a.status, a.body)
	}
	if a = e.control("DELETE", at, ""); a.status != 204 || len(e.AllMail()) != 0 {
		t.Errorf("delete: got %d %s", a.status, a.body)
	}
	if a = e.control("DELETE", at, ""); a.status != 404 {
		t.Errorf("delete again: got %d %s", a.status, a.body)
	}
	for query, status := range map[string]int{"to=nobody@contoso.example": 404, "to=": 400, "to=kim@contoso.example&at=soon": 400, "to=kim@contoso.example&folder=Nowhere": 404} {
		if a := post(query); a.status != status {
			t.Errorf("%s: got %d %s, want %d", query, a.status, a.body, status)
		}
	}
	if a = post("to=kim@contoso.example&as_is=1&folder=Junk+Email&flags=%5CSeen"); a.status != 200 || string(e.MailIn(kim, sim.FolderJunk)[0].Raw) != raw {
		t.Errorf("as it is: got %d %s", a.status, a.body)
	}
	folders := "/mailboxes/" + kim + "/folders"
	if a = e.control("POST", folders, `{"name":"Cases/2026"}`); a.status != 200 || !strings.Contains(string(a.body), `"Cases/2026"`) {
		t.Errorf("make: got %d %s", a.status, a.body)
	}
	if a = e.control("DELETE", folders+"?name=Cases", ""); a.status != 204 {
		t.Errorf("delete: got %d %s", a.status, a.body)
	}
	if a = e.control("DELETE", folders+"?name=Inbox", ""); a.status != 400 {
		t.Errorf("delete the Inbox: got %d %s", a.status, a.body)
	}
	var list []sim.FolderInfo
	json.Unmarshal(e.control("GET", folders, "").body, &list)
	before := list[0].UIDValidity
	if a = e.control("POST", "/mailboxes/"+kim+"/renumber", `{}`); a.status != 204 {
		t.Errorf("renumber: got %d %s", a.status, a.body)
	}
	json.Unmarshal(e.control("GET", folders, "").body, &list)
	if len(list) != 6 || list[0].UIDValidity == before {
		t.Errorf("got %+v", list)
	}
	if a = e.control("GET", "/mailboxes/nobody@contoso.example/folders", ""); a.status != 404 {
		t.Errorf("nobody's: got %d %s", a.status, a.body)
	}
}

// What is sent inside of the world arrives with the fields of Exchange, and
// what nobody has comes back as a report (RFC 3464).
func TestMailInsideOfTheWorld(t *testing.T) {
	e := start(t)
	d := e.login(kim, e.userToken(kim))
	if reply, err := d.send(kim, letter, "sam@contoso.example", "robin@fabrikam.example", "nobody@fabrikam.example", "b@example.net"); err != nil || reply[0] != '2' {
		t.Fatalf("got %q, %v", reply, err)
	}
	sam, robin, out := string(e.Mail("sam@contoso.example")[0].Raw), string(e.Mail("robin@fabrikam.example")[0].Raw), string(e.Mail("b@example.net")[0].Raw)
	if !strings.Contains(sam, "Authentication-Results: dkim=none (message not signed)\r\n header.d=none;dmarc=none action=none header.from=contoso.example;\r\n") || !strings.Contains(sam, "AuthAs: Internal\r\n") {
		t.Errorf("in the same organization: got %s", sam)
	}
	if !strings.Contains(robin, "dkim=pass (signature was verified)\r\n header.d=contoso.onmicrosoft.example;") || !strings.Contains(robin, "AuthAs: Anonymous\r\n") {
		t.Errorf("in another one: got %s", robin)
	}
	if out != strings.ReplaceAll(letter, "\r\n..", "\r\n.") {
		t.Errorf("elsewhere: got %s", out)
	}
	if sent := e.Sent(kim); len(sent) != 1 || sent[0].Flags[0] != sim.FlagSeen {
		t.Errorf("sent: got %+v", sent)
	}
	report := e.Mail(kim)[0].Raw
	m, err := mail.ReadMessage(bytes.NewReader(report))
	if err != nil {
		t.Fatal(err)
	}
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/report" || params["report-type"] != "delivery-status" {
		t.Errorf("got %s %v, %v", kind, params, err)
	}
	var kinds []string
	parts := multipart.NewReader(m.Body, params["boundary"])
	for {
		p, err := parts.NextPart()
		if err != nil {
			break
		}
		kind, _, _ := mime.ParseMediaType(p.Header.Get("Content-Type"))
		kinds = append(kinds, kind)
	}
	if strings.Join(kinds, " ") != "multipart/alternative message/delivery-status message/rfc822" {
		t.Errorf("the parts: got %v", kinds)
	}
	for _, want := range []string{"\r\nFinal-Recipient: rfc822;nobody@fabrikam.example\r\nAction: failed\r\nStatus: 5.1.10\r\n", "\r\n\r\nFrom: Kim Akers", "In-Reply-To: <1@x.example>"} {
		if !strings.Contains(string(report), want) {
			t.Errorf("the report lacks %q: %s", want, report)
		}
	}
}

func TestOldMailMakesRoom(t *testing.T) {
	e := start(t)
	var first sim.Message
	for _, s := range []string{"One", "Two", "Three"} {
		if m := e.deliver(kim, s); s == "One" {
			first = m
		}
	}
	e.World().ChangeKnobs(func(k *sim.Knobs) { k.KeepMail = 2 })
	e.deliver("sam@contoso.example", "Four")
	if got := e.AllMail(); len(got) != 2 || got[0].Subject != "Three" || got[1].Subject != "Four" {
		t.Errorf("got %+v", got)
	}
	if err := e.Expunge(first.ID); err == nil {
		t.Error("what made room is there")
	}
}
