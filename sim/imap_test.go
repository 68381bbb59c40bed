package sim_test

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant/sim"
)

const (
	imapScope = "https://outlook.office.com/IMAP.AccessAsUser.All"
	popScope  = "https://outlook.office.com/POP.AccessAsUser.All"
	kim       = "kim@contoso.example"
)

// A reading is a connection of a program that reads mail.
type reading struct {
	e    *env
	conn net.Conn
	in   *bufio.Reader
	n    int
}

func (e *env) connect(addr string) *reading {
	e.Helper()
	conn, err := (&tls.Dialer{Config: &tls.Config{RootCAs: e.CertPool()}}).DialContext(e.ctx, "tcp", addr)
	if err != nil {
		e.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	e.Cleanup(func() { conn.Close() })
	return &reading{e: e, conn: conn, in: bufio.NewReader(conn)}
}

func (r *reading) line() string {
	r.e.Helper()
	line, err := r.in.ReadString('\n')
	if err != nil {
		r.e.Fatalf("got %q, %v", line, err)
	}
	return strings.TrimSuffix(line, "\r\n")
}

func (r *reading) send(text string) {
	r.e.Helper()
	if _, err := io.WriteString(r.conn, text); err != nil {
		r.e.Fatal(err)
	}
}

// do sends a command of IMAP and returns everything up to its end. {tag} is
// left in the last line.
func (r *reading) do(command string) string {
	r.e.Helper()
	r.n++
	tag := fmt.Sprintf("A%d", r.n)
	r.send(tag + " " + command + "\r\n")
	return r.until(tag)
}

func (r *reading) until(tag string) string {
	r.e.Helper()
	var b strings.Builder
	for {
		line := r.line()
		if rest, ok := strings.CutPrefix(line, tag+" "); ok {
			b.WriteString("{tag} " + rest + "\n")
			return b.String()
		}
		b.WriteString(line + "\n")
	}
}

// want compares the whole answer to a command.
func (r *reading) want(command string, lines ...string) {
	r.e.Helper()
	if got, want := r.do(command), strings.Join(lines, "\n")+"\n"; got != want {
		r.e.Errorf("%s\n got %s\nwant %s", command, got, want)
	}
}

func (r *reading) ends() {
	r.e.Helper()
	if line, err := r.in.ReadString('\n'); err == nil {
		r.e.Errorf("the connection goes on: %q", line)
	}
}

// imap logs in to a mailbox.
func (e *env) imap(mailbox, token string) *reading {
	e.Helper()
	r := e.connect(e.IMAPAddr())
	if line := r.line(); !strings.HasPrefix(line, "* OK The Microsoft Exchange IMAP4 service is ready. [") {
		e.Errorf("greeting: got %s", line)
	}
	r.want("AUTHENTICATE XOAUTH2 "+xoauth2(mailbox, token), "{tag} OK AUTHENTICATE completed.")
	return r
}

func (e *env) deliver(to, subject string) sim.Message {
	e.Helper()
	m, err := e.Deliver(to, []byte("From: Ann <ann@adatum.example>\r\nTo: "+to+"\r\nSubject: "+subject+
		"\r\nMessage-ID: <"+url.PathEscape(subject)+"@adatum.example>\r\nDate: Mon, 23 Nov 2026 10:00:00 +0000\r\n\r\nHello\r\n.dot\r\n"))
	if err != nil {
		e.Fatal(err)
	}
	return m
}

func TestIMAPLogin(t *testing.T) {
	e := start(t)
	token := e.userToken(kim, imapScope)
	r := e.connect(e.IMAPAddr())
	if got := r.line(); got != "* OK The Microsoft Exchange IMAP4 service is ready. [UwBZADUAUAAyADgAMgBDAEEAMAAwADkANwAuAG8AdQB0AGwAbwBvAGsALgBvAGYAZgBpAGMAZQAzADYANQAuAGMAbwBtAA==]" {
		t.Errorf("greeting: got %s", got)
	}
	r.want("CAPABILITY", "* CAPABILITY IMAP4 IMAP4rev1 AUTH=XOAUTH2 LOGINDISABLED SASL-IR UIDPLUS MOVE ID UNSELECT CHILDREN IDLE NAMESPACE LITERAL+", "{tag} OK CAPABILITY completed.")
	r.want(`ID ("name" "test")`, `* ID ("name" "Microsoft.Exchange.Imap4.Imap4Server" "version" "15.20")`, "{tag} OK ID completed")
	r.want("SELECT INBOX", "{tag} BAD Command received in Invalid state.")
	r.want("WISH", "{tag} BAD Command Error. 12")
	r.want("LOGIN kim secret", "{tag} NO LOGIN failed.")
	r.send("B AUTHENTICATE XOAUTH2\r\n")
	if got := r.line(); got != "+ " {
		t.Errorf("the challenge: got %q", got)
	}
	r.send(xoauth2(kim, token) + "\r\n")
	if got := r.line(); got != "B OK AUTHENTICATE completed." {
		t.Errorf("two lines: got %q", got)
	}
	r.want("CAPABILITY", "* CAPABILITY IMAP4 IMAP4rev1 AUTH=PLAIN AUTH=XOAUTH2 SASL-IR UIDPLUS MOVE ID UNSELECT CLIENTACCESSRULES CLIENTNETWORKPRESENCELOCATION BACKENDAUTHENTICATE CHILDREN IDLE NAMESPACE LITERAL+",
		"{tag} OK CAPABILITY completed.")
	r.want("NAMESPACE", `* NAMESPACE (("" "/")) NIL NIL`, "{tag} OK NAMESPACE completed.")
	r.want("LOGOUT", "* BYE Microsoft Exchange Server IMAP4 server signing off.", "{tag} OK LOGOUT completed.")
	r.ends()
}

func TestIMAPWhoMayRead(t *testing.T) {
	e := start(t)
	smtp, graph := e.userToken(kim), e.userToken(kim, graphHost+"Mail.ReadWrite")
	mine := e.userToken(kim, imapScope) // last: a token has all that was consented to before
	app := e.appToken("https://outlook.office365.com")
	state := e.World().State()
	const failed, away = "{tag} NO AUTHENTICATE failed.\n", "{tag} BAD User is authenticated but not connected.\n"
	for _, c := range []struct {
		what, user, token, want string
		change                  func(*sim.State)
	}{
		{"own", kim, mine, "", nil},
		{"shared with full access", "office@contoso.example", mine, "", nil},
		{"shared without", "noreply@contoso.example", mine, away, nil},
		{"somebody else's", "sam@contoso.example", mine, away, nil},
		{"nobody's", "nobody@contoso.example", mine, away, nil},
		{"another tenant's", "robin@fabrikam.example", mine, away, nil},
		{"an alias", "k@contoso.example", mine, away, func(s *sim.State) { s.Tenants[0].Mailboxes[2].Aliases = []string{"k@contoso.example"} }},
		{"IMAP is off", kim, mine, away, func(s *sim.State) { s.Tenants[0].Mailboxes[2].IMAPDisabled = true }},
		{"no licence", kim, mine, away, func(s *sim.State) { s.Tenants[0].Users[2].Unlicensed = true }},
		{"one connection too many", kim, mine, away, func(s *sim.State) { s.Knobs.IMAPConnections = -1; s.Tenants[0].Mailboxes[2].SoftDeleted = true }},
		{"the user is disabled", kim, mine, failed, func(s *sim.State) { s.Tenants[0].Users[2].Disabled = true }},
		{"scope of SMTP", kim, smtp, failed, nil},
		{"audience of Graph", kim, graph, failed, nil},
		{"garbage", kim, "garbage", failed, nil},
		{"app with full access", "noreply@contoso.example", app, "", nil},
		{"app without", kim, app, away, nil},
		{"app without service principal", "noreply@contoso.example", app, failed, func(s *sim.State) { s.Tenants[0].Principals = nil }},
	} {
		e.World().Replace(state)
		if c.change != nil {
			e.World().Update(func(s *sim.State) error { c.change(s); return nil })
		}
		r := e.connect(e.IMAPAddr())
		r.line()
		got := r.do("AUTHENTICATE XOAUTH2 " + xoauth2(c.user, c.token))
		if strings.HasPrefix(got, "{tag} OK ") {
			got = r.do("STATUS INBOX (MESSAGES)")
		}
		if c.want == "" && !strings.HasSuffix(got, "{tag} OK STATUS completed.\n") || c.want != "" && got != c.want {
			t.Errorf("%s: got %q, want %q", c.what, got, c.want)
		}
		r.conn.Close()
	}
	e.World().Replace(state)
	e.World().ChangeKnobs(func(k *sim.Knobs) { k.EndAtExpiry = true })
	r := e.imap(kim, mine)
	r.do("SELECT INBOX")
	e.Advance(3 * time.Hour)
	r.want("UID FETCH 1:* (UID)", "{tag} BAD Command Error. 10")
	other := e.connect(e.IMAPAddr())
	other.line()
	other.want("AUTHENTICATE XOAUTH2 "+xoauth2(kim, mine), "{tag} NO AUTHENTICATE failed.")
}

func TestIMAPSixteenAtATime(t *testing.T) {
	e := start(t)
	token := e.userToken(kim, imapScope)
	var first *reading
	for range 16 {
		first = e.imap(kim, token)
	}
	e.imap(kim, token).want("SELECT INBOX", "{tag} BAD User is authenticated but not connected.")
	first.do("LOGOUT")
	if err := e.WaitCount(e.ctx, "imap.closed", 1); err != nil {
		t.Fatal(err)
	}
	if got := e.imap(kim, token).do("SELECT INBOX"); !strings.HasSuffix(got, "{tag} OK [READ-WRITE] SELECT completed.\n") {
		t.Errorf("once one is gone: got %s", got)
	}
}

func TestIMAPOtherProviders(t *testing.T) {
	e := start(t, knobs(func(k *sim.Knobs) {
		k.OAuthBearer, k.StrictCase, k.IMAPAuthFailed = true, true, "[AUTHENTICATIONFAILED] Invalid credentials (Failure)"
		k.IMAPPreAuth = "IMAP4rev1 AUTH=XOAUTH2"
		k.IMAPCapability = "IMAP4rev1"
	}))
	token := e.userToken(kim, imapScope)
	r := e.connect(e.IMAPAddr())
	r.line()
	r.want("CAPABILITY", "* CAPABILITY IMAP4rev1 AUTH=XOAUTH2 AUTH=OAUTHBEARER", "{tag} OK CAPABILITY completed.")
	r.want("AUTHENTICATE XOAUTH2 "+xoauth2(kim, token), "{tag} BAD Command Error. 12")
	r.want("AUTHENTICATE xoauth2", "{tag} NO AUTHENTICATE failed.")
	answer := func(token string) string {
		r.send("B AUTHENTICATE OAUTHBEARER\r\n")
		r.line()
		r.send(b64("n,a="+kim+",\x01host=localhost\x01port=993\x01auth=Bearer "+token+"\x01\x01") + "\r\n")
		return r.line()
	}
	challenge, ok := strings.CutPrefix(answer("garbage"), "+ ")
	if plain, err := base64.StdEncoding.DecodeString(challenge); !ok || err != nil || !strings.Contains(string(plain), `"status":"401"`) {
		t.Errorf("a bad token is explained first: got %q, %v", challenge, err)
	}
	r.send("AQ==\r\n")
	if got := r.line(); got != "B NO [AUTHENTICATIONFAILED] Invalid credentials (Failure)" {
		t.Errorf("then it is refused: got %q", got)
	}
	r = e.connect(e.IMAPAddr())
	r.line()
	if got := answer(token); got != "B OK AUTHENTICATE completed." {
		t.Errorf("a good one: got %q", got)
	}
	r.do("SELECT INBOX")
	for _, c := range []string{"IDLE", "UID MOVE 1 Archive", "UID EXPUNGE 1", "NAMESPACE", "UNSELECT"} {
		r.want(c, "{tag} BAD Command Error. 12")
	}
}

func TestIMAPFolders(t *testing.T) {
	e := start(t, contoso(func(t *sim.Tenant) {
		t.Mailboxes[2].Language = "de"
		t.Mailboxes[2].Folders = []string{"Posteingang/Rechnungen & Co", "Fälle/2026/日本語", `quo"te\d`}
	}))
	r := e.imap(kim, e.userToken(kim, imapScope))
	r.want(`LIST "" "*"`,
		`* LIST (\HasNoChildren) "/" Archiv`,
		`* LIST (\HasNoChildren \Drafts) "/" Entw&APw-rfe`,
		`* LIST (\HasChildren) "/" F&AOQ-lle`,
		`* LIST (\HasChildren) "/" F&AOQ-lle/2026`,
		`* LIST (\HasNoChildren) "/" F&AOQ-lle/2026/&ZeVnLIqe-`,
		`* LIST (\HasNoChildren \Trash) "/" "Gel&APY-schte Elemente"`,
		`* LIST (\HasNoChildren \Sent) "/" "Gesendete Elemente"`,
		`* LIST (\HasChildren) "/" INBOX`,
		`* LIST (\HasNoChildren) "/" "INBOX/Rechnungen &- Co"`,
		`* LIST (\HasNoChildren \Junk) "/" Junk-E-Mail`,
		`* LIST (\HasNoChildren) "/" "quo\"te\\d"`,
		`{tag} OK LIST completed.`)
	r.want(`LIST "" "F&AOQ-lle/%"`, `* LIST (\HasChildren) "/" F&AOQ-lle/2026`, `{tag} OK LIST completed.`)
	r.want(`LIST "" "`+strings.Repeat("%*", 2000)+`Nothing"`, `{tag} OK LIST completed.`)
	r.want(`LSUB "" INBOX`, `* LSUB (\HasChildren) "/" INBOX`, `{tag} OK LSUB completed.`)
	r.want(`LIST "" ""`, `* LIST (\Noselect) "/" ""`, `{tag} OK LIST completed.`)
	r.want(`STATUS "INBOX/Rechnungen &- Co" (MESSAGES UIDNEXT UIDVALIDITY UNSEEN RECENT)`,
		`* STATUS "INBOX/Rechnungen &- Co" (MESSAGES 0 UIDNEXT 1 UIDVALIDITY 20 UNSEEN 0 RECENT 0) `, `{tag} OK STATUS completed.`)
	r.want(`CREATE "Neu/Unten"`, `{tag} OK CREATE completed.`)
	r.want(`CREATE Neu`, `{tag} NO CREATE failed. Folder already exists.`)
	r.want(`SELECT Nirgends`, `{tag} NO Nirgends doesn't exist.`)
	r.want(`DELETE Neu`, `{tag} OK DELETE completed.`)
	r.want(`DELETE "Gesendete Elemente"`, `{tag} NO DELETE failed. Gesendete Elemente cannot be deleted`)
	r.want(`STATUS Neu/Unten (MESSAGES)`, `{tag} NO Neu/Unten doesn't exist.`)
	e.World().ChangeKnobs(func(k *sim.Knobs) { k.IMAPNoSpecialUse = true })
	r.want(`LIST "" Junk*`, `* LIST (\HasNoChildren) "/" Junk-E-Mail`, `{tag} OK LIST completed.`)
	if list := e.Folders(kim); len(list) != 11 || list[0].Name != "Posteingang" || list[0].Use != "inbox" {
		t.Errorf("got %+v", list)
	}
}

// Names and patterns of clients cost no more than their length.
func TestIMAPAwkwardFolders(t *testing.T) {
	e := start(t)
	r := e.imap(kim, e.userToken(kim, imapScope))
	r.want(`CREATE A/B`, "{tag} OK CREATE completed.")
	had := len(e.Folders(kim))
	for _, name := range []string{"/", "A//B", "A//C", strings.Repeat("a/", 600) + "a"} {
		r.want(`CREATE "`+name+`"`, "{tag} NO CREATE failed. The folder name is not valid.")
	}
	deep := strings.Repeat("a/", 5<<20)
	r.want(fmt.Sprintf("CREATE {%d+}\r\n%s", len(deep), deep), "{tag} NO CREATE failed. The folder name is not valid.")
	if n := len(e.Folders(kim)); n != had {
		t.Errorf("%d folders, want %d", n, had)
	}
	long := strings.Repeat("a", 250)
	r.want("CREATE "+long, "{tag} OK CREATE completed.")
	r.want(`LIST "" "`+strings.Repeat("*a", 100)+`b"`, "{tag} OK LIST completed.")
	r.want(`LIST "" "`+strings.Repeat("%a", 100)+`"`, `* LIST (\HasNoChildren) "/" `+long, "{tag} OK LIST completed.")
	r.want(fmt.Sprintf("LIST \"\" {%d+}\r\n%s", 1<<20, strings.Repeat("*", 1<<20)), "{tag} BAD Command Error. 12")
}

func TestIMAPReads(t *testing.T) {
	e := start(t)
	one := e.deliver(kim, "One")
	e.deliver("kim+news@contoso.example", "Two")
	r := e.imap(kim, e.userToken(kim, imapScope))
	r.want("SELECT Inbox", "* 2 EXISTS", "* 0 RECENT",
		`* FLAGS (\Seen \Answered \Flagged \Deleted \Draft $MDNSent)`,
		`* OK [PERMANENTFLAGS (\Seen \Answered \Flagged \Deleted \Draft $MDNSent)] Permanent flags`,
		"* OK [UNSEEN 1] Is the first unseen message", "* OK [UIDVALIDITY 14] UIDVALIDITY value",
		"* OK [UIDNEXT 3] The next unique identifier value", "{tag} OK [READ-WRITE] SELECT completed.")
	raw := string(one.Raw)
	for _, want := range []string{"Received: from ", "Authentication-Results: spf=pass (sender IP is 203.0.113.9)\r\n smtp.mailfrom=adatum.example; dkim=pass",
		"compauth=pass reason=100", "Return-Path: ann@adatum.example\r\n", "\r\n\r\nHello\r\n.dot\r\n"} {
		if !strings.Contains(raw, want) {
			t.Errorf("what is delivered lacks %q: %s", want, raw)
		}
	}
	date := one.At.UTC().Format("02-Jan-2006 15:04:05 -0700")
	r.want("UID FETCH 1 (FLAGS INTERNALDATE RFC822.SIZE)",
		fmt.Sprintf(`* 1 FETCH (UID 1 FLAGS () INTERNALDATE "%s" RFC822.SIZE %d)`, date, len(raw)), "{tag} OK FETCH completed.")
	r.want("FETCH 1:* (UID BODY.PEEK[HEADER.FIELDS (SUBJECT MESSAGE-ID)])",
		"* 1 FETCH (UID 1 BODY[HEADER.FIELDS (SUBJECT MESSAGE-ID)] {50}", "Subject: One", "Message-ID: <One@adatum.example>", "", ")",
		"* 2 FETCH (UID 2 BODY[HEADER.FIELDS (SUBJECT MESSAGE-ID)] {50}", "Subject: Two", "Message-ID: <Two@adatum.example>", "", ")", "{tag} OK FETCH completed.")
	r.want("UID FETCH 1 BODY.PEEK[]", append(append([]string{fmt.Sprintf("* 1 FETCH (UID 1 BODY[] {%d}", len(raw))},
		strings.Split(strings.TrimSuffix(raw, "\r\n"), "\r\n")...), ")", "{tag} OK FETCH completed.")...)
	r.want("UID FETCH 1 BODY.PEEK[]<0.9>", "* 1 FETCH (UID 1 BODY[]<0> {9}", "Received:)", "{tag} OK FETCH completed.")
	r.want("UID FETCH 1 BODY.PEEK[]<999999.9>", "* 1 FETCH (UID 1 BODY[]<999999> {0}", ")", "{tag} OK FETCH completed.")
	r.want("UID FETCH 2 (ENVELOPE BODYSTRUCTURE)",
		`* 2 FETCH (UID 2 ENVELOPE ("Mon, 23 Nov 2026 10:00:00 +0000" "Two" (("Ann" NIL "ann" "adatum.example")) (("Ann" NIL "ann" "adatum.example")) (("Ann" NIL "ann" "adatum.example")) ((NIL NIL "kim+news" "contoso.example")) NIL NIL NIL "<Two@adatum.example>") BODYSTRUCTURE ("text" "plain" NIL NIL NIL "7BIT" 13 2 NIL NIL NIL))`,
		"{tag} OK FETCH completed.")
	r.want("UID FETCH 2 BODY[TEXT]", "* 2 FETCH (UID 2 BODY[TEXT] {13}", "Hello", ".dot", ` FLAGS (\Seen))`, `* 2 FETCH (FLAGS (\Seen))`, "{tag} OK FETCH completed.")
	r.want("UID SEARCH ALL", "* SEARCH 1 2", "{tag} OK SEARCH completed.")
	r.want("UID SEARCH UNSEEN", "* SEARCH 1", "{tag} OK SEARCH completed.")
	r.want("SEARCH SEEN UID 1:*", "* SEARCH 2", "{tag} OK SEARCH completed.")
	r.want(`UID SEARCH HEADER Message-ID "<two@adatum.example>"`, "* SEARCH 2", "{tag} OK SEARCH completed.")
	r.want("UID SEARCH OR (FROM ann NOT SUBJECT two) LARGER 1000000", "* SEARCH 1", "{tag} OK SEARCH completed.")
	r.want("UID SEARCH SINCE "+one.At.UTC().Format("2-Jan-2006"), "* SEARCH 1 2", "{tag} OK SEARCH completed.")
	r.want("UID SEARCH SINCE "+one.At.UTC().AddDate(0, 0, 1).Format("2-Jan-2006"), "* SEARCH", "{tag} OK SEARCH completed.")
	for _, bad := range []string{"FETCH", "FETCH 0 UID", "FETCH 1 NONSENSE", "FETCH 1 BODY[]<0>", "SEARCH", "SEARCH (", "SEARCH NONSENSE", "UID", "UID NOOP", "STORE 1 FLAGS"} {
		r.want(bad, "{tag} BAD Command Error. 12")
		e.World().ChangeKnobs(func(k *sim.Knobs) { k.ProtocolErrors = -1 })
	}
	r.want("UID FETCH 9 (UID)", "{tag} OK FETCH completed.")
	r.want("UNSELECT", "{tag} OK UNSELECT completed")
	r.want("FETCH 1 UID", "{tag} BAD Command received in Invalid state.")
}

func TestIMAPParts(t *testing.T) {
	e := start(t)
	raw := strings.ReplaceAll(`From: ann@adatum.example
To: kim@contoso.example
Subject: Parts
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=outer

--outer
Content-Type: multipart/alternative; boundary=inner

--inner
Content-Type: text/plain; charset=utf-8

Hi
--inner
Content-Type: text/html

<p>Hi
--inner--
--outer
Content-Type: message/rfc822

Subject: Inside
Content-Type: text/plain

Deep
--outer
Content-Type: application/pdf; name="a.pdf"
Content-Disposition: attachment; filename="a.pdf"
Content-Transfer-Encoding: base64

AAAA
--outer--
`, "\n", "\r\n")
	if _, err := e.DeliverMail(sim.Delivery{To: kim, Raw: []byte(raw), AsIs: true}); err != nil {
		t.Fatal(err)
	}
	r := e.imap(kim, e.userToken(kim, imapScope))
	r.do("EXAMINE INBOX")
	r.want("FETCH 1 BODYSTRUCTURE", `* 1 FETCH (BODYSTRUCTURE ((("text" "plain" ("charset" "utf-8") NIL NIL "7BIT" 2 0 NIL NIL NIL)("text" "html" NIL NIL NIL "7BIT" 5 0 NIL NIL NIL) "alternative" ("boundary" "inner") NIL NIL)`+
		`("message" "rfc822" NIL NIL NIL "7BIT" 49 (NIL "Inside" NIL NIL NIL NIL NIL NIL NIL NIL) ("text" "plain" NIL NIL NIL "7BIT" 4 0 NIL NIL NIL) 3 NIL NIL NIL)`+
		`("application" "pdf" ("name" "a.pdf") NIL NIL "base64" 4 NIL ("attachment" ("filename" "a.pdf")) NIL) "mixed" ("boundary" "outer") NIL NIL))`, "{tag} OK FETCH completed.")
	for section, want := range map[string]string{"1.1": "Hi", "1.2": "<p>Hi", "2.TEXT": "Deep", "2.1": "Deep", "3": "AAAA",
		"2.HEADER": "Subject: Inside\r\nContent-Type: text/plain\r\n\r\n", "1.1.MIME": "Content-Type: text/plain; charset=utf-8\r\n\r\n"} {
		lines := strings.Split(fmt.Sprintf("* 1 FETCH (BODY[%s] {%d}\r\n%s)", section, len(want), want), "\r\n")
		r.want("FETCH 1 BODY["+section+"]", append(lines, "{tag} OK FETCH completed.")...)
	}
	r.want("FETCH 1 BODY[9]", "* 1 FETCH (BODY[9] NIL)", "{tag} OK FETCH completed.")
	r.want("UID STORE 1 FLAGS (\\Seen)", "{tag} NO STORE failed. The folder is open for reading only.")
}

func TestIMAPChanges(t *testing.T) {
	e := start(t)
	for _, s := range []string{"One", "Two", "Three", "Four"} {
		e.deliver(kim, s)
	}
	token := e.userToken(kim, imapScope)
	r, other := e.imap(kim, token), e.imap(kim, token)
	r.do("SELECT INBOX")
	other.do("SELECT INBOX")
	r.want(`UID STORE 1,2 +FLAGS (\Deleted)`, `* 1 FETCH (UID 1 FLAGS (\Deleted))`, `* 2 FETCH (UID 2 FLAGS (\Deleted))`, "{tag} OK STORE completed.")
	r.want(`UID STORE 3 +FLAGS.SILENT (\Seen)`, "{tag} OK STORE completed.")
	r.want("NOOP", "{tag} OK NOOP completed.")
	other.want("NOOP", `* 1 FETCH (FLAGS (\Deleted))`, `* 2 FETCH (FLAGS (\Deleted))`, `* 3 FETCH (FLAGS (\Seen))`, "{tag} OK NOOP completed.")
	r.want("UID EXPUNGE 2", "* 2 EXPUNGE", "{tag} OK EXPUNGE completed.")
	r.want("UID MOVE 3:4 Archive", "* OK [COPYUID 19 3:4 1:2] ", "* 2 EXPUNGE", "* 2 EXPUNGE", "{tag} OK MOVE completed.")
	r.want(`UID COPY 1 "Deleted Items"`, "{tag} OK [COPYUID 17 1 1] COPY completed.")
	r.want("UID COPY 1 Nowhere", "{tag} NO [TRYCREATE] Nowhere doesn't exist.")
	other.want("FETCH 4 UID", "{tag} OK FETCH completed.") // gone, and not yet told
	other.want("NOOP", "* 2 EXPUNGE", "* 2 EXPUNGE", "* 2 EXPUNGE", "{tag} OK NOOP completed.")
	r.want("CLOSE", "{tag} OK CLOSE completed.")
	other.want("NOOP", "* 1 EXPUNGE", "{tag} OK NOOP completed.")
	r.send("B APPEND INBOX (\\Seen) \" 1-Feb-2026 10:00:00 +0000\" {25}\r\n")
	if got := r.line(); got != "+ Ready for additional command text." {
		t.Errorf("got %q", got)
	}
	r.send("Subject: Mine\r\n\r\nMy text\r\n")
	if got := r.line(); got != "B OK [APPENDUID 14 5] APPEND completed." {
		t.Errorf("got %q", got)
	}
	r.want("APPEND Nowhere {12+}\r\nSubject: x\r\n", "{tag} NO [TRYCREATE] Nowhere doesn't exist.")
	other.want("UID SEARCH SUBJECT Mine", "* SEARCH", "* 1 EXISTS", "{tag} OK SEARCH completed.")
	other.want("UID SEARCH SUBJECT Mine BEFORE 2-Feb-2026", "* SEARCH 5", "{tag} OK SEARCH completed.")
	if moved := e.MailIn(kim, sim.FolderArchive); len(moved) != 2 || moved[0].Subject != "Three" || moved[0].UID != 1 {
		t.Errorf("moved: got %+v", moved)
	}
	if err := e.ResetUIDValidity(kim, ""); err != nil {
		t.Fatal(err)
	}
	other.send("C NOOP\r\n")
	if got := other.line(); got != "* BYE Connection is closed. 13" {
		t.Errorf("a folder that is numbered anew: got %q", got)
	}
	other.ends()
	if got := r.do("SELECT INBOX"); !strings.Contains(got, "[UIDVALIDITY 20]") || !strings.Contains(got, "[UIDNEXT 2]") {
		t.Errorf("numbered anew: got %s", got)
	}
}

func TestIMAPIdle(t *testing.T) {
	e := start(t)
	token := e.userToken(kim, imapScope)
	r := e.imap(kim, token)
	r.do("SELECT INBOX")
	idle := func() {
		t.Helper()
		r.send("I IDLE\r\n")
		if got := r.line(); got != "+ IDLE accepted, awaiting DONE command." {
			t.Errorf("got %q", got)
		}
	}
	say := func(want string) {
		t.Helper()
		if got := r.line(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	idle()
	m := e.deliver(kim, "One")
	say("* 1 EXISTS")
	if err := e.SetFlags(m.ID, sim.FlagSeen); err != nil {
		t.Fatal(err)
	}
	say(`* 1 FETCH (FLAGS (\Seen))`)
	if err := e.Expunge(m.ID); err != nil {
		t.Fatal(err)
	}
	say("* 1 EXPUNGE")
	r.send("DONE\r\n")
	say("I OK IDLE completed.")
	e.deliver(kim, "Two")
	idle()
	say("* 1 EXISTS")
	r.send("NONSENSE\r\n")
	say("I BAD Command Error. 12")
	e.SetFault(sim.Fault{Name: "imap-idle-bye"})
	idle()
	e.deliver(kim, "Three")
	say("* BYE Connection is closed. 13")
	r.ends()
}

func TestIMAPLimits(t *testing.T) {
	e := start(t)
	r := e.connect(e.IMAPAddr())
	r.line()
	for _, c := range []string{"X {9000}", "X {-1}", "X {}", "X {99999999999999999999}"} {
		r.want(c, "{tag} BAD Command Error. 12")
	}
	r.want("X "+strings.Repeat("x", 10300), "{tag} BAD command line limit exceeded")
	r.ends()
	r = e.connect(e.IMAPAddr())
	r.line()
	r.want("X"+strings.Repeat(" {0+}\r\n", 3000), "{tag} BAD command line limit exceeded")
	r.ends()
	r = e.connect(e.IMAPAddr())
	r.line()
	r.want("X {5000+}\r\n"+strings.Repeat("x", 5000)+" {5000}", "{tag} BAD Command Error. 12")
	r = e.imap(kim, e.userToken(kim, imapScope))
	r.want("SEARCH "+strings.Repeat("(", 100), "{tag} BAD Command received in Invalid state.")
	r.do("SELECT INBOX")
	r.want("SEARCH "+strings.Repeat("(", 100), "{tag} BAD Command Error. 12")
	r.want("APPEND INBOX {99999999999}", "{tag} BAD Command Error. 12")
	e.World().ChangeKnobs(func(k *sim.Knobs) { k.IMAPTimeout = sim.Duration(time.Millisecond) })
	r.do("NOOP")
	if got := r.line(); got != "* BYE Connection is closed. 13" {
		t.Errorf("silence: got %q", got)
	}
	r.ends()
}

func TestIMAPFaults(t *testing.T) {
	e := start(t)
	token := e.userToken(kim, imapScope)
	e.deliver(kim, "One")
	e.deliver(kim, "Two")
	for _, c := range []struct {
		name, command, want string
		ends                bool
	}{
		{"imap-throttled", "SELECT INBOX", "A2 BAD Request is throttled. Suggested Backoff Time: 92415 milliseconds\r\n", false},
		{"imap-error-12", "SELECT INBOX", "A2 BAD Command Error. 12\r\n", false},
		{"imap-error-10", "UID FETCH 1 UID", "A3 BAD Command Error. 10\r\n", false},
		{"imap-bye", "UID FETCH 1 UID", "* BYE Connection is closed. 13\r\n", true},
		{"imap-drop", "UID FETCH 1 UID", "", true},
		{"imap-uid-same", "UID FETCH 1:* UID", "* 1 FETCH (UID 1)\r\n* 2 FETCH (UID 1)\r\nA3 OK ", false},
		{"imap-uid-zero", "UID FETCH 1 UID", "* 1 FETCH (UID 0)\r\n", false},
		{"imap-uid-huge", "UID FETCH 1 UID", "* 1 FETCH (UID 4294967297)\r\n", false},
		{"imap-uid-backwards", "UID FETCH 1:* UID", "* 1 FETCH (UID 2)\r\n* 2 FETCH (UID 1)\r\n", false},
		{"imap-uid-unasked", "UID FETCH 1 UID", "* 1 FETCH (UID 1)\r\n* 2 FETCH (UID 2)\r\n", false},
		{"imap-half", "UID FETCH 1 BODY.PEEK[]", "* 1 FETCH (UID 1 BODY[] {", true},
		{"imap-huge", "UID FETCH 1 BODY.PEEK[]", "* 1 FETCH (UID 1 BODY[] {2147483648}\r\nReceived: ", false},
		{"imap-endless", "UID FETCH 1 BODY.PEEK[]", "* OK " + strings.Repeat("a", 1<<20), false},
		{"imap-drip", "UID FETCH 1 UID", "* 1 FETCH (UID 1)\r\n", false},
		{"imap-structure", "UID FETCH 1 BODYSTRUCTURE", `* 1 FETCH (UID 1 BODYSTRUCTURE ("text" "plain" NIL NIL NIL "7BIT" 13 2 NIL NIL NIL ("attachment filename=")))`, false},
		{"imap-exists", "SELECT INBOX", "* 1000000 EXISTS\r\n", false},
		{"imap-unquoted", `LIST "" Sent*`, `* LIST (\HasNoChildren \Sent) "/" Sent Items` + "\r\n", false},
	} {
		r := e.imap(kim, token)
		if !strings.HasPrefix(c.command, "SELECT") && !strings.HasPrefix(c.command, "LIST") {
			r.do("SELECT INBOX")
		}
		if err := e.SetFault(sim.Fault{Name: c.name}); err != nil {
			t.Fatal(err)
		}
		r.n++
		r.send(fmt.Sprintf("A%d %s\r\n", r.n, c.command))
		got := make([]byte, len(c.want))
		if _, err := io.ReadFull(r.in, got); err != nil || string(got) != c.want {
			t.Errorf("%s: got %.200q, %v", c.name, got, err)
		}
		if c.ends {
			if rest, err := io.ReadAll(r.in); len(rest) > 200 {
				t.Errorf("%s: ends well: %q, %v", c.name, rest, err)
			}
		}
		e.ClearFaults()
		r.conn.Close()
	}
	e.SetFault(sim.Fault{Name: "imap-stall-auth"})
	r := e.connect(e.IMAPAddr())
	r.line()
	r.send("B AUTHENTICATE XOAUTH2 " + xoauth2(kim, token) + "\r\n")
	if err := e.WaitCount(e.ctx, "imap.slow", 1); err != nil {
		t.Fatal(err)
	}
	e.Advance(30 * time.Second)
	if got := r.line(); got != "B OK AUTHENTICATE completed." {
		t.Errorf("after the stall: got %q", got)
	}
	e.ClearFaults()
	e.SetFault(sim.Fault{Name: "imap-not-connected", Match: kim})
	r = e.imap(kim, token)
	r.want("SELECT INBOX", "{tag} BAD User is authenticated but not connected.")
	e.ClearFaults()
	e.SetFault(sim.Fault{Name: "imap-refuse"})
	if conn, err := tls.Dial("tcp", e.IMAPAddr(), &tls.Config{RootCAs: e.CertPool()}); err == nil {
		conn.Close()
		t.Error("a refused connection is open")
	}
}

// A readTrigger is what a word behind the plus does to those who read: the
// command that it strikes, and how its answer begins; "" is no answer.
type readTrigger struct{ imap, says, pop, popSays string }

const (
	login   = "login"
	refused = "-ERR Authentication failure: unknown user name or bad password."
)

var readTriggers = map[string]readTrigger{
	"throttled":    {"SELECT INBOX", "X BAD Request is throttled. Suggested Backoff Time: 92415 milliseconds", login, "-ERR Request is throttled."},
	"tempfail":     {login, "X NO Server Unavailable. 15", login, "-ERR [SYS/TEMP] Server Unavailable. 15"},
	"dropdot":      {"UID STORE 1 +FLAGS (\\Seen)", "", "QUIT", ""},
	"drop":         {"UID FETCH 1 UID", "", "RETR 1", ""},
	"slow":         {"UID FETCH 1 UID", "* 1 FETCH (UID 1)", "RETR 1", "+OK"},
	"hang":         {"SELECT INBOX", "hangs", "STAT", "hangs"},
	"stallauth":    {login, "X OK AUTHENTICATE completed.", login, "+OK User successfully authenticated."},
	"notconnected": {"SELECT INBOX", "X BAD User is authenticated but not connected.", login, refused},
	"bye":          {"IDLE", "* BYE Connection is closed. 13", "RETR 1", "-ERR Connection is closed. 10"},
	"deaf":         {"IDLE", "hangs", "", ""},
	"drip":         {"UID FETCH 1 UID", "* 1 FETCH (UID 1)", "RETR 1", "+OK"},
	"half":         {"UID FETCH 1 BODY.PEEK[]", "* 1 FETCH (UID 1 BODY[] {", "RETR 1", "+OK"},
	"huge":         {"UID FETCH 1 BODY.PEEK[]", "* 1 FETCH (UID 1 BODY[] {2147483648}", "", ""},
	"endless":      {"UID FETCH 1 UID", "* OK aaaaaaaaaa", "RETR 1", "* OK aaaaaaaaaa"},
	"renumbered":   {"SELECT INBOX", "* 1 EXISTS", "UIDL", "+OK"},
	"liar":         {"UID FETCH 1 UID", "* 1 FETCH (UID 1)", "UIDL", "+OK"},
}

// A trigger in the mailbox that is to be read, by IMAP and by POP.
func TestReadTriggers(t *testing.T) {
	e := start(t, knobs(func(k *sim.Knobs) {
		k.SlowBy, k.IMAPConnections, k.POPConnections = sim.Duration(time.Millisecond), -1, -1
	}))
	tokens := map[string]string{"imap": e.userToken(kim, imapScope), "pop": e.userToken(kim, popScope)}
	e.deliver(kim, "One")
	for word, w := range readTriggers {
		if sim.Triggers()[word] == "" {
			t.Errorf("there is no +%s", word)
		}
		user := "kim+" + word + "@contoso.example"
		for kind, c := range map[string][2]string{"imap": {w.imap, w.says}, "pop": {w.pop, w.popSays}} {
			if c[0] == "" {
				continue
			}
			before, slow := e.Counts()["trigger."+word], e.Counts()[kind+".slow"]
			tag, addr, auth := "X ", e.IMAPAddr(), []string{"X AUTHENTICATE XOAUTH2", xoauth2(user, tokens[kind])}
			if kind == "pop" {
				tag, addr, auth[0] = "", e.POPAddr(), "AUTH XOAUTH2"
			}
			r := e.connect(addr)
			r.line()
			if got := r.ask(auth[0]); got != "+ " {
				t.Errorf("+%s by %s: got %q", word, kind, got)
			}
			r.send(auth[1] + "\r\n")
			if word == "stallauth" {
				if err := e.WaitCount(e.ctx, kind+".slow", slow+1); err != nil {
					t.Fatal(err)
				}
				e.Advance(30 * time.Second)
			}
			if c[0] != login {
				r.line()
				if kind == "imap" && c[0] != "SELECT INBOX" {
					r.send("X SELECT INBOX\r\n")
					for !strings.HasPrefix(r.line(), "X OK") {
					}
				}
				r.send(tag + c[0] + "\r\n")
			}
			if word == "deaf" { // it strikes what would be told
				r.line()
				e.Expunge(e.deliver(kim, "Unheard").ID)
			}
			if err := e.WaitCount(e.ctx, "trigger."+word, before+1); err != nil {
				t.Fatal(err)
			}
			if c[1] == "hangs" {
				r.conn.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
				if got, err := r.in.ReadString('\n'); got != "" || !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("+%s by %s: got %q, %v", word, kind, got, err)
				}
				r.conn.Close()
				continue
			}
			got := make([]byte, len(c[1])+1)
			n, err := io.ReadFull(r.in, got)
			if c[1] == "" && err == nil || !strings.HasPrefix(string(got[:n]), c[1]) {
				t.Errorf("+%s by %s: got %q, %v, want %q", word, kind, got[:n], err, c[1])
			}
			r.conn.Close()
		}
		e.SetFlags(e.Mail(kim)[0].ID) // as it was
	}
}

// With a number a trigger strikes so many times.
func TestReadTriggersWithANumber(t *testing.T) {
	e := start(t)
	token := e.userToken(kim, imapScope)
	r := e.connect(e.IMAPAddr())
	r.line()
	const at = "kim+tempfail2@contoso.example"
	for range 2 {
		r.want("AUTHENTICATE XOAUTH2 "+xoauth2(at, token), "{tag} NO Server Unavailable. 15")
	}
	r.want("AUTHENTICATE XOAUTH2 "+xoauth2(at, token), "{tag} OK AUTHENTICATE completed.")
	e.deliver(kim, "One")
	r = e.imap("kim+liar@contoso.example", token)
	e.deliver(kim, "Two")
	r.do("SELECT INBOX")
	r.want("UID FETCH 1:* UID", "* 1 FETCH (UID 1)", "* 2 FETCH (UID 1)", "{tag} OK FETCH completed.")
	first := e.imap("kim+renumbered@contoso.example", token)
	if a, b := first.do("SELECT INBOX"), first.do("SELECT INBOX"); strings.Split(a, "\n")[5] == strings.Split(b, "\n")[5] {
		t.Errorf("UIDVALIDITY stays: %s", a)
	}
}

// Several programs change a mailbox at once, and each hears of everything.
func TestIMAPManyAtOnce(t *testing.T) {
	e := start(t)
	token := e.userToken(kim, imapScope)
	var all sync.WaitGroup
	for i := range 4 {
		r := e.imap(kim, token)
		r.do("SELECT INBOX")
		all.Go(func() {
			r.send("I IDLE\r\n")
			r.in.ReadString('\n')
			for {
				line, err := r.in.ReadString('\n')
				if err != nil {
					t.Errorf("session %d: %v", i, err)
					return
				}
				if line == "* 20 EXISTS\r\n" {
					return
				}
			}
		})
	}
	for i := range 20 {
		e.deliver(kim, fmt.Sprint("Message ", i))
	}
	all.Wait()
}
