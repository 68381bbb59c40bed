package sim_test

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant/sim"
)

// A dialogue is a connection to the submission service.
type dialogue struct {
	e    *env
	conn net.Conn
	in   *bufio.Reader
}

// dial connects without STARTTLS.
func (e *env) dial() *dialogue {
	e.Helper()
	conn, err := new(net.Dialer).DialContext(e.ctx, "tcp", e.SMTPAddr())
	if err != nil {
		e.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	e.Cleanup(func() { conn.Close() })
	d := &dialogue{e: e, conn: conn, in: bufio.NewReader(conn)}
	d.want("220 ", "")
	return d
}

// secure connects and says EHLO behind STARTTLS.
func (e *env) secure() *dialogue {
	e.Helper()
	d := e.dial()
	d.want("250 ", "EHLO client.example")
	d.want("220 2.0.0 ", "STARTTLS")
	conn := tls.Client(d.conn, &tls.Config{RootCAs: e.CertPool(), ServerName: "localhost"})
	d.conn, d.in = conn, bufio.NewReader(conn)
	d.want("250 ", "EHLO client.example")
	return d
}

// login connects as a mailbox.
func (e *env) login(mailbox, token string) *dialogue {
	e.Helper()
	d := e.secure()
	d.want("235 2.7.0 Authentication successful", "AUTH XOAUTH2 "+xoauth2(mailbox, token))
	return d
}

func xoauth2(user, token string) string {
	return base64.StdEncoding.EncodeToString([]byte("user=" + user + "\x01auth=Bearer " + token + "\x01\x01"))
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// say sends a line, if there is one, and returns the last line of the reply.
func (d *dialogue) say(line string) (string, error) {
	if line != "" {
		if _, err := io.WriteString(d.conn, line+"\r\n"); err != nil {
			return "", err
		}
	}
	for {
		reply, err := d.in.ReadString('\n')
		if err != nil {
			return reply, err
		}
		if len(reply) < 4 || reply[3] != '-' {
			return strings.TrimSuffix(reply, "\r\n"), nil
		}
	}
}

func (d *dialogue) want(prefix, line string) {
	d.e.Helper()
	if reply, err := d.say(line); err != nil || !strings.HasPrefix(reply, prefix) {
		d.e.Errorf("%.60q: got %q, %v, want %q", line, reply, err, prefix)
	}
}

const letter = "From: Kim Akers <kim@contoso.example>\r\nTo: b@example.net\r\nSubject: x\r\nMessage-ID: <1@x.example>\r\n\r\nHi\r\n.. dots\r\n"

// send hands over a message and returns the reply that ended it.
func (d *dialogue) send(from, message string, to ...string) (string, error) {
	for _, line := range append([]string{"MAIL FROM:<" + from + ">"}, rcpt(to)...) {
		if reply, err := d.say(line); err != nil || reply[0] != '2' {
			return reply, err
		}
	}
	if reply, err := d.say("DATA"); err != nil || !strings.HasPrefix(reply, "354") {
		return reply, err
	}
	return d.say(message + ".")
}

func rcpt(to []string) (lines []string) {
	for _, a := range to {
		lines = append(lines, "RCPT TO:<"+a+">")
	}
	return lines
}

func TestSMTPTranscript(t *testing.T) {
	e := start(t)
	d := e.dial()
	for _, c := range [][2]string{
		{"AUTH XOAUTH2 x", "503 5.5.1 "},
		{"EHLO", "501 5.5.4 Invalid domain name ["},
		{"EHLO bad_/name", "501 5.5.4 Invalid domain name ["},
		{"EHLO client.example", "250 SMTPUTF8"},
		{"AUTH XOAUTH2 x", "504 5.7.4 Unrecognized authentication type ["},
		{"MAIL FROM:<kim@contoso.example>", "530 5.7.57 Client not authenticated to send mail. ["},
		{"WISH", "500 5.3.3 Unrecognized command 'WISH' ["},
		{"NOOP", "250 2.0.0 OK"},
		{"RSET", "250 2.0.0 Resetting"},
		{"VRFY x", "252 2.1.5 Cannot VRFY user"},
		{"STARTTLS", "220 2.0.0 SMTP server ready"},
	} {
		d.want(c[1], c[0])
	}
	d = e.secure()
	for _, c := range [][2]string{
		{"STARTTLS", "503 5.5.1 "},
		{"AUTH CRAM-MD5", "504 5.7.4 Unrecognized authentication type ["},
		{"AUTH OAUTHBEARER x", "504 5.7.4 "},
		{"AUTH XOAUTH2 !!!", "501 5.5.2 Cannot decode response"},
		{"AUTH XOAUTH2", "334 "},
		{"*", "501 5.7.0 Authentication aborted"},
		{"AUTH XOAUTH2", "334 "},
		{xoauth2("kim@contoso.example", e.userToken("kim@contoso.example")), "235 2.7.0 Authentication successful"},
		{"AUTH XOAUTH2 x", "503 5.5.1 "},
		{"DATA", "503 5.5.1 "},
		{"MAIL FROM:kim", "501 5.1.7 Invalid address ["},
		{"MAIL FROM:<kim@contoso.example> SIZE=157286401", "552 5.3.4 Message size exceeds fixed maximum message size"},
		{"MAIL FROM:<kim@contoso.example> SIZE=100 BODY=8BITMIME", "250 2.1.0 Sender OK"},
		{"MAIL FROM:<kim@contoso.example>", "503 5.5.1 "},
		{"RCPT TO:<no address>", "501 5.1.3 Invalid address ["},
		{"RCPT TO:<b@example.net>", "250 2.1.5 Recipient OK"},
		{"DATA", "354 Start mail input; end with <CRLF>.<CRLF>"},
		{letter + ".", "250 2.0.0 OK <1@x.example> [Hostname=SY5P282CA0097.outlook.office365.com]"},
		{"QUIT", "221 2.0.0 Service closing transmission channel"},
	} {
		d.want(c[1], c[0])
	}
	got, sent := e.Mail("b@example.net"), e.Sent("kim@contoso.example")
	want := strings.ReplaceAll(letter, "\r\n..", "\r\n.")
	if len(got) != 1 || string(got[0].Raw) != want || got[0].From != "kim@contoso.example" || len(sent) != 1 || string(sent[0].Raw) != want {
		t.Errorf("got %d messages, %d sent, %+v", len(got), len(sent), got)
	}
}

func TestSMTPChunks(t *testing.T) {
	e := start(t)
	d := e.login("kim@contoso.example", e.userToken("kim@contoso.example"))
	d.want("250 ", "MAIL FROM:<kim@contoso.example>")
	d.want("250 ", "RCPT TO:<b@example.net>")
	half := len(letter) / 2
	for _, c := range [][2]string{
		{fmt.Sprintf("BDAT %d\r\n%s", half, letter[:half]), "250 2.0.0 "},
		{fmt.Sprintf("BDAT %d LAST\r\n%s", len(letter)-half, letter[half:]), "250 2.0.0 OK <1@x.example>"},
	} {
		if _, err := io.WriteString(d.conn, c[0]); err != nil {
			t.Fatal(err)
		}
		d.want(c[1], "")
	}
	if got := e.Mail("b@example.net"); len(got) != 1 || string(got[0].Raw) != letter {
		t.Errorf("got %+v", got)
	}
}

func TestSMTPLogins(t *testing.T) {
	const kim, alex, office, noreply = "kim@contoso.example", "alex@contoso.example", "office@contoso.example", "noreply@contoso.example"
	e := start(t)
	userToken, appToken := e.userToken(kim), e.appToken("https://outlook.office365.com")
	graphToken := e.userToken(kim, "https://graph.microsoft.com/Mail.Send")
	alexToken, scannerToken := e.userToken(alex), e.userToken("scanner@contoso.example")
	state := e.World().State()
	on := true
	for _, c := range []struct {
		what   string
		change func(*sim.State)
		line   string
		want   []string
	}{
		{"own", nil, "AUTH XOAUTH2 " + xoauth2(kim, userToken), []string{"235 2.7.0 "}},
		{"shared with the right", nil, "AUTH XOAUTH2 " + xoauth2(office, userToken), []string{"235 2.7.0 "}},
		{"shared without", nil, "AUTH XOAUTH2 " + xoauth2(noreply, userToken), []string{"535 5.7.3 Authentication unsuccessful ["}},
		{"somebody else's", nil, "AUTH XOAUTH2 " + xoauth2(alex, userToken), []string{"535 5.7.3 "}},
		{"token of Graph", nil, "AUTH XOAUTH2 " + xoauth2(kim, graphToken), []string{"535 5.7.3 "}},
		{"garbage token", nil, "AUTH XOAUTH2 " + xoauth2(kim, "garbage"), []string{"535 5.7.3 "}},
		{"the mailbox is off", nil, "AUTH XOAUTH2 " + xoauth2("scanner@contoso.example", scannerToken), []string{"535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox. Visit https://aka.ms/smtp_auth_disabled for more information. ["}},
		{"the tenant is off", func(s *sim.State) { s.Tenants[0].SMTPAuthDisabled = true }, "AUTH XOAUTH2 " + xoauth2(kim, userToken),
			[]string{"535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. Visit https://aka.ms/smtp_auth_disabled for more information. ["}},
		{"the mailbox overrides the tenant", func(s *sim.State) { s.Tenants[0].SMTPAuthDisabled = true }, "AUTH XOAUTH2 " + xoauth2(alex, alexToken), []string{"235 2.7.0 "}},
		{"policy", func(s *sim.State) { s.Tenants[0].Rules = []sim.Rule{{Kind: sim.RuleBlockSMTP}} }, "AUTH XOAUTH2 " + xoauth2(kim, userToken),
			[]string{"535 5.7.139 Authentication unsuccessful, the request did not meet the criteria to be authenticated successfully. Contact your administrator."}},
		{"unlicensed", func(s *sim.State) { s.Tenants[0].Users[2].Unlicensed = true }, "AUTH XOAUTH2 " + xoauth2(kim, userToken), []string{"535 5.7.3 "}},
		{"app", nil, "AUTH XOAUTH2 " + xoauth2(noreply, appToken), []string{"235 2.7.0 "}},
		{"app without the mailbox", nil, "AUTH XOAUTH2 " + xoauth2(kim, appToken), []string{"535 5.7.3 "}},
		{"app not in Exchange", func(s *sim.State) { s.Tenants[0].Principals = nil }, "AUTH XOAUTH2 " + xoauth2(noreply, appToken), []string{"535 5.7.3 "}},
		{"app with the wrong object id", func(s *sim.State) { s.Tenants[0].Principals[0].ObjectID = sim.ContosoSystemClientID }, "AUTH XOAUTH2 " + xoauth2(noreply, appToken), []string{"535 5.7.3 "}},
		{"challenge of Google", func(s *sim.State) { s.Knobs.FailChallenge = true }, "AUTH XOAUTH2 " + xoauth2(kim, "x"), []string{"334 ey", "535 5.7.3 "}},
		{"OAUTHBEARER", func(s *sim.State) { s.Knobs.OAuthBearer = true }, "AUTH OAUTHBEARER " + b64("n,a="+kim+",\x01auth=Bearer "+userToken+"\x01\x01"), []string{"235 2.7.0 "}},
		{"lower case, strictly", func(s *sim.State) { s.Knobs.StrictCase = true }, "AUTH xoauth2 " + xoauth2(kim, userToken), []string{"504 5.7.4 "}},
		{"lower case", nil, "auth xoauth2 " + xoauth2(kim, userToken), []string{"235 2.7.0 "}},
		{"password, retired", nil, "AUTH LOGIN " + b64(kim), []string{"334 UGFzc3dvcmQ6", "550 5.7.30 Basic authentication is not supported for Client Submission."}},
		{"password, disabled", func(s *sim.State) { s.Tenants[0].BasicAuth = "disabled" }, "AUTH LOGIN " + b64(kim), []string{"334 ", "535 5.7.139 Authentication unsuccessful, basic authentication is disabled. ["}},
		{"password, security defaults", func(s *sim.State) { s.Tenants[0].SecurityDefaults = true }, "AUTH LOGIN " + b64(kim),
			[]string{"334 ", "535 5.7.139 Authentication unsuccessful, user is locked by your organization's security defaults policy. Contact your administrator."}},
		{"password, allowed", func(s *sim.State) { s.Tenants[0].BasicAuth = "allowed" }, "AUTH LOGIN " + b64(kim), []string{"334 ", "235 2.7.0 "}},
		{"password, wrong", func(s *sim.State) { s.Tenants[0].BasicAuth, s.Tenants[0].Users[2].Password = "allowed", "x" }, "AUTH LOGIN " + b64(kim),
			[]string{"334 ", "535 5.7.139 Authentication unsuccessful, the user credentials were incorrect. ["}},
		{"password, the switch", func(s *sim.State) { s.Tenants[0].Mailboxes[2].SMTPAuthDisabled = &on }, "AUTH LOGIN " + b64(kim), []string{"334 ", "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox."}},
	} {
		e.World().Replace(state)
		if c.change != nil {
			e.World().Update(func(s *sim.State) error { c.change(s); return nil })
		}
		d := e.secure()
		line := c.line
		for _, want := range c.want {
			if reply, err := d.say(line); err != nil || !strings.HasPrefix(reply, want) {
				t.Errorf("%s: got %q, %v, want %q", c.what, reply, err, want)
			}
			line = b64(sim.ContosoPassword)
		}
		d.conn.Close()
	}
	e.World().Replace(state)
	e.Advance(2 * time.Hour)
	d := e.secure()
	for range 2 {
		d.want("535 5.7.3 ", "AUTH XOAUTH2 "+xoauth2(kim, userToken))
	}
	d.want("535 5.7.3 ", "AUTH XOAUTH2 "+xoauth2(kim, userToken))
	d.want("421 4.7.0 ", "")
}

func TestSMTPScopedRole(t *testing.T) {
	e := start(t, contoso(func(t *sim.Tenant) {
		t.Consents = nil // the role takes the place of the permission
		t.Assignments = []sim.RoleAssignment{{App: sim.ContosoSystemClientID, Role: "Application SMTP.SendAsApp", Scope: []string{"kim@contoso.example"}}}
	}))
	token := e.appToken("https://outlook.office365.com")
	e.login("kim@contoso.example", token)
	e.secure().want("535 5.7.3 ", "AUTH XOAUTH2 "+xoauth2("noreply@contoso.example", token))
}

func TestSMTPReplies(t *testing.T) {
	const kim = "kim@contoso.example"
	from := func(f string) string { return strings.Replace(letter, "Kim Akers <kim@contoso.example>", f, 1) }
	e := start(t)
	state := e.World().State()
	mailbox := func(f func(*sim.Mailbox)) func(*sim.State) {
		return func(s *sim.State) { f(s.Tenants[0].Mailboxes[2]) }
	}
	for _, c := range []struct {
		what    string
		change  func(*sim.State)
		from    string
		message string
		to      []string
		want    string
	}{
		{"good", nil, kim, letter, nil, "250 2.0.0 OK <1@x.example> [Hostname="},
		{"on behalf of a shared mailbox", nil, "office@contoso.example", from("office@contoso.example"), nil, "250 2.0.0 OK "},
		{"as somebody else", nil, kim, from("alex@contoso.example"), nil, "554 5.2.252 SendAsDenied; kim@contoso.example not allowed to send as alex@contoso.example; STOREDRV.Submission.Exception:SendAsDeniedException"},
		{"envelope of somebody else", nil, "alex@contoso.example", letter, nil, "554 5.2.252 SendAsDenied; "},
		{"no From", nil, kim, strings.TrimPrefix(letter, "From: Kim Akers <kim@contoso.example>\r\n"), nil, "550 5.7.512 Access denied, message must be RFC 5322 section 3.6.2 compliant"},
		{"bare line feed", nil, kim, letter + "a\nb\r\n", nil, "550 5.6.11 "},
		{"large header", func(s *sim.State) { s.Knobs.MaxHeaderSize = 50 }, kim, letter, nil, "552 5.3.4 Header size exceeds fixed maximum size"},
		{"large", mailbox(func(m *sim.Mailbox) { m.MaxSendSize = 50 }), kim, letter, nil, "552 5.3.4 STOREDRV.Submission.Exception:MessageSubmissionExceededException.MapiExceptionMaxSubmissionExceeded"},
		{"mailbox full", mailbox(func(m *sim.Mailbox) { m.Quota, m.Used = 1000, 990 }), kim, letter, nil, "554 5.2.2 mailbox full; STOREDRV.Submission.Exception:QuotaExceededException.MapiExceptionShutoffQuotaExceeded"},
		{"recipients of the day", func(s *sim.State) { s.Knobs.RecipientsPerDay = 1 }, kim, letter, []string{"a@example.net", "b@example.net"}, "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException"},
		{"external recipients of the tenant", func(s *sim.State) { s.Knobs.TenantExternal = 1 }, kim, letter, []string{"a@example.net", "b@example.net"}, "550 5.7.233 "},
		{"internal ones do not count", func(s *sim.State) { s.Knobs.TenantExternal = 1 }, kim, letter, []string{"sam@contoso.example", "alex@contoso.example"}, "250 2.0.0 "},
		{"trial tenant", func(s *sim.State) { s.Knobs.TenantExternal, s.Tenants[0].Trial = 1, true }, kim, letter, []string{"a@example.net", "b@example.net"}, "550 5.7.232 "},
		{"recipients of a message", mailbox(func(m *sim.Mailbox) { m.RecipientLimit = 1 }), kim, letter, []string{"a@example.net", "b@example.net"}, "452 4.5.3 Too many recipients"},
	} {
		e.World().Replace(state)
		e.Advance(25 * time.Hour) // the books of the day are empty again
		token := e.userToken(kim)
		if c.change != nil {
			e.World().Update(func(s *sim.State) error { c.change(s); return nil })
		}
		if c.to == nil {
			c.to = []string{"b@example.net"}
		}
		d := e.login(kim, token)
		if reply, err := d.send(c.from, c.message, c.to...); err != nil || !strings.HasPrefix(reply, c.want) {
			t.Errorf("%s: got %q, %v, want %q", c.what, reply, err, c.want)
		}
		d.conn.Close()
	}
}

func TestSMTPPenalty(t *testing.T) {
	e := start(t, knobs(func(k *sim.Knobs) { k.PenaltyAfter = 2 }))
	d := e.login("kim@contoso.example", e.userToken("kim@contoso.example"))
	forged := strings.Replace(letter, "kim@", "alex@", 1)
	for i, want := range []string{"554 5.2.252 SendAsDenied; ", "554 5.2.252 SendAsDenied; ", "550 5.2.252 Sender throttled due to continuous send as denied errors."} {
		if reply, _ := d.send("kim@contoso.example", forged, "b@example.net"); !strings.HasPrefix(reply, want) {
			t.Errorf("refusal %d: got %q, want %q", i+1, reply, want)
		}
	}
}

func TestSMTPThreeConnections(t *testing.T) {
	e := start(t)
	token := e.userToken("kim@contoso.example")
	var all []*dialogue
	for range 4 {
		all = append(all, e.login("kim@contoso.example", token))
	}
	if reply, _ := all[3].send("kim@contoso.example", letter, "b@example.net"); !strings.HasPrefix(reply, "432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending for more information. [Hostname=") {
		t.Errorf("the fourth: got %q", reply)
	}
	all[0].want("221 ", "QUIT")
	if _, err := all[0].in.ReadByte(); err != io.EOF {
		t.Errorf("after QUIT: got %v", err)
	}
	if err := e.WaitCount(e.ctx, "smtp.closed", 1); err != nil {
		t.Fatal(err)
	}
	if reply, _ := all[3].send("kim@contoso.example", letter, "b@example.net"); !strings.HasPrefix(reply, "250 ") {
		t.Errorf("when there is room again: got %q", reply)
	}
}

func TestSMTPPaceDelaysAndNeverRefuses(t *testing.T) {
	e := start(t, knobs(func(k *sim.Knobs) { k.PerMinute = 1 }))
	d := e.login("kim@contoso.example", e.userToken("kim@contoso.example"))
	d.send("kim@contoso.example", letter, "b@example.net")
	done := make(chan string)
	go func() {
		reply, _ := d.send("kim@contoso.example", letter, "b@example.net")
		done <- reply
	}()
	if err := e.WaitCount(e.ctx, "smtp.paced", 1); err != nil {
		t.Fatal(err)
	}
	if n := len(e.Mail("b@example.net")); n != 1 {
		t.Errorf("before the minute is over: got %d messages, want 1", n)
	}
	e.Advance(time.Minute)
	if reply := <-done; !strings.HasPrefix(reply, "250 ") || len(e.Mail("b@example.net")) != 2 {
		t.Errorf("after it: got %q", reply)
	}
}

func TestSMTPDelivery(t *testing.T) {
	e := start(t, knobs(func(k *sim.Knobs) { k.StripBcc, k.AddReceived = true, true }))
	d := e.login("kim@contoso.example", e.userToken("kim@contoso.example"))
	message := strings.Replace(letter, "Subject", "Bcc: c@example.net\r\nSubject", 1)
	if reply, err := d.send("kim@contoso.example", message, "sam+news@contoso.example", "alex.wilber@contoso.example", "nobody@contoso.example"); err != nil || reply[0] != '2' {
		t.Fatalf("got %q, %v", reply, err)
	}
	sam, alex := e.Mail("sam@contoso.example"), e.Mail("alex@contoso.example")
	if len(sam) != 1 || len(alex) != 1 || !strings.HasPrefix(string(sam[0].Raw), "Received: ") || strings.Contains(string(sam[0].Raw), "Bcc:") {
		t.Errorf("got %d and %d messages, %+v", len(sam), len(alex), sam)
	}
	back := e.Mail("kim@contoso.example")
	if len(back) != 1 || back[0].From != "" || !strings.Contains(string(back[0].Raw), "Diagnostic-Code: smtp;550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient nobody@contoso.example not found by SMTP address lookup") {
		t.Errorf("the bounce: got %+v", back)
	}
	alias := strings.Replace(letter, "kim@contoso.example", "alex.wilber@contoso.example", 1)
	e.World().SetSMTPAuth("alex@contoso.example", "on")
	if reply, err := e.login("alex@contoso.example", e.userToken("alex@contoso.example")).send("alex@contoso.example", alias, "b@example.net"); err != nil || reply[0] != '2' {
		t.Fatalf("got %q, %v", reply, err)
	}
	if got := string(e.Mail("b@example.net")[0].Raw); !strings.Contains(got, "<alex@contoso.example>") {
		t.Errorf("an alias in From becomes the primary address: got %q", got)
	}
}

func TestSMTPFaults(t *testing.T) {
	const kim = "kim@contoso.example"
	e := start(t, knobs(func(k *sim.Knobs) { k.SlowBy = sim.Duration(time.Millisecond) }))
	token := e.userToken(kim)
	for _, c := range []struct {
		name      string
		want      string // of the end of data; "" is a lost connection
		delivered bool
	}{
		{"smtp-lost-dot", "", true}, {"smtp-drop-dot", "", false}, {"smtp-432", "432 4.3.2 ", false}, {"smtp-432-queued", "432 4.3.2 ", true},
		{"smtp-quota", "554 5.2.0 ", false}, {"smtp-mailbox-full", "554 5.2.2 ", false}, {"smtp-5705", "550 5.7.705 ", false},
		{"smtp-5708", "550 5.7.708 ", false}, {"smtp-518", "550 5.1.8 ", false}, {"smtp-47500", "451 4.7.500 ", false}, {"smtp-odd-code", "999 ", false},
	} {
		e.ClearFaults()
		e.ClearMail()
		if err := e.SetFault(sim.Fault{Name: c.name, Times: 1, Match: kim}); err != nil {
			t.Fatal(err)
		}
		d := e.login(kim, token)
		reply, err := d.send(kim, letter, "b@example.net")
		if c.want == "" && err == nil || !strings.HasPrefix(reply, c.want) || c.delivered != (len(e.Mail("b@example.net")) == 1) {
			t.Errorf("%s: got %q, %v, %d messages", c.name, reply, err, len(e.Mail("b@example.net")))
		}
		d.conn.Close()
		if f := e.Faults(); len(f) != 1 || f[0].Hits != 1 {
			t.Errorf("%s: got %+v", c.name, f)
		}
	}
	e.ClearFaults()
	for name, want := range map[string]string{"smtp-auth-535": "535 5.7.3 ", "smtp-auth-454": "454 4.7.0 ", "smtp-prx4": "451 4.7.0 ", "smtp-conditional": "535 5.7.139 ",
		"smtp-expires-soon": "501 5.5.127 Invalid XOAUTH2 auth data - Token will expire soon"} {
		e.SetFault(sim.Fault{Name: name})
		d := e.secure()
		d.want(want, "AUTH XOAUTH2 "+xoauth2(kim, token))
		d.conn.Close()
		e.ClearFault(name)
	}
	for name, want := range map[string]string{"smtp-421": "421 4.3.2 Service not available", "smtp-refuse": "", "smtp-greeting": "220 "} {
		e.SetFault(sim.Fault{Name: name})
		conn, err := net.Dial("tcp", e.SMTPAddr())
		if err != nil { // reset before it was ours
			if want != "" {
				t.Errorf("%s: %v", name, err)
			}
			e.ClearFault(name)
			continue
		}
		reply, err := (&dialogue{e: e, conn: conn, in: bufio.NewReader(conn)}).say("")
		if want == "" && err == nil || !strings.HasPrefix(reply, want) {
			t.Errorf("%s: got %q, %v", name, reply, err)
		}
		conn.Close()
		e.ClearFault(name)
	}
	e.SetFault(sim.Fault{Name: "smtp-drop-body"})
	if reply, err := e.login(kim, token).send(kim, letter+strings.Repeat("a line\r\n", 1000), "b@example.net"); err == nil || len(e.Mail("b@example.net")) != 0 {
		t.Errorf("smtp-drop-body: got %q, %v", reply, err)
	}
	if err := e.SetFault(sim.Fault{Point: "nowhere", Do: sim.DoClose}); err == nil {
		t.Error("an unknown point is taken")
	}
	if err := e.SetFault(sim.Fault{Name: "aadsts-1"}); err == nil {
		t.Error("an unknown AADSTS code is taken")
	}
}

func TestSMTPNothingBeforeTLSCounts(t *testing.T) {
	e := start(t)
	d := e.dial()
	d.want("250 ", "EHLO client.example")
	if _, err := io.WriteString(d.conn, "STARTTLS\r\nEHLO injected.example\r\n"); err != nil {
		t.Fatal(err)
	}
	d.want("220 2.0.0 ", "")
	conn := tls.Client(d.conn, &tls.Config{RootCAs: e.CertPool(), ServerName: "localhost"})
	d.conn, d.in = conn, bufio.NewReader(conn)
	d.want("503 5.5.1 ", "AUTH XOAUTH2 x") // there was no EHLO yet
	if e.Counts()["smtp.injected_before_tls"] != 1 {
		t.Error("the injected command was not seen as such")
	}
}

func TestSMTPSImplicitTLS(t *testing.T) {
	e := start(t)
	conn, err := tls.Dial("tcp", e.SMTPSAddr(), &tls.Config{RootCAs: e.CertPool(), ServerName: "localhost"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	d := &dialogue{e: e, conn: conn, in: bufio.NewReader(conn)}
	d.want("220 ", "")
	d.want("250 ", "EHLO client.example")
	d.want("235 ", "AUTH XOAUTH2 "+xoauth2("kim@contoso.example", e.userToken("kim@contoso.example")))
}

// A trigger in the recipient, by SMTP and by Graph.
func TestTriggers(t *testing.T) {
	const kim = "kim@contoso.example"
	e := start(t, knobs(func(k *sim.Knobs) {
		k.SlowBy, k.PerMinute, k.Connections, k.GraphConcurrency = sim.Duration(time.Millisecond), -1, -1, -1
	}))
	token, graphToken := e.userToken(kim), e.userToken(kim, "https://graph.microsoft.com/Mail.Send")
	type end struct {
		smtp, graph          string // "" is a lost connection
		bySMTP, byGraph      bool   // delivered
		retryAfter, senderly bool
	}
	want := map[string]end{
		"throttled":    {smtp: "432 4.3.2 Concurrent", graph: "429 ApplicationThrottled", retryAfter: true},
		"tempfail":     {smtp: "451 4.7.0 ", graph: "503 ServiceNotAvailable", retryAfter: true},
		"busy":         {smtp: "432 4.3.2 STOREDRV.Deliver; recipient thread limit exceeded", graph: "429 TooManyRequests"},
		"mailboxfull":  {smtp: "554 5.2.2 mailbox full", graph: "507 ErrorQuotaExceeded"},
		"quota":        {smtp: "554 5.2.0 ", graph: "429 ErrorSubmissionQuotaExceeded", retryAfter: true},
		"sendasdenied": {smtp: "554 5.2.252 SendAsDenied; kim@contoso.example not allowed", graph: "403 ErrorSendAsDenied"},
		"toolarge":     {smtp: "552 5.3.4 ", graph: "400 ErrorMessageSizeExceeded"},
		"unknown":      {smtp: "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient x+unknown@example.net", graph: "400 ErrorInvalidRecipients"},
		"blocked":      {smtp: "550 5.7.705 ", graph: "403 ErrorMessageSubmissionBlocked"},
		"badsender":    {smtp: "550 5.1.8 ", graph: "403 ErrorMessageSubmissionBlocked", senderly: true},
		"penalty":      {smtp: "550 5.2.252 Sender throttled", graph: "403 ErrorSendAsDenied"},
		"dropdot":      {bySMTP: true, byGraph: true},
		"drop":         {},
		"queued432":    {smtp: "432 4.3.2 ", graph: "503 ", bySMTP: true, byGraph: true},
		"slow":         {smtp: "250 ", graph: "202 ", bySMTP: true, byGraph: true},
		"hang":         {},
	}
	for word := range sim.Triggers() {
		w, ok := want[word]
		if _, read := readTriggers[word]; !ok && read {
			continue // it is about reading, and tested there
		}
		if !ok {
			t.Errorf("+%s is not tested", word)
			continue
		}
		if word == "hang" {
			continue // below
		}
		e.ClearMail()
		from, to := kim, "x+"+word+"@example.net"
		if w.senderly {
			from, to = "kim+"+word+"@contoso.example", "x@example.net"
		}
		message := strings.NewReplacer("kim@contoso.example", from, "b@example.net", to).Replace(letter)
		d := e.login(kim, token)
		reply, err := d.send(from, message, to)
		if (w.smtp == "") != (err != nil) || !strings.HasPrefix(reply, w.smtp) || w.bySMTP != (len(e.Mail(to)) == 1) {
			t.Errorf("+%s by SMTP: got %q, %v, %d messages", word, reply, err, len(e.Mail(to)))
		}
		d.conn.Close()
		e.ClearMail()
		a, err := e.try("POST", e.GraphURL()+"/v1.0/me/sendMail", "text/plain", []byte(b64(message)), "Authorization", "Bearer "+graphToken)
		got, retry := "", false
		if err == nil {
			got, retry = fmt.Sprintf("%d %s", a.status, a.code()), a.header.Get("Retry-After") != ""
		}
		if got != w.graph || retry != w.retryAfter || w.byGraph != (len(e.Mail(to)) == 1) {
			t.Errorf("+%s by Graph: got %q, Retry-After %v, %d messages, %v", word, got, retry, len(e.Mail(to)), err)
		}
	}
	d := e.login(kim, token)
	for i, prefix := range []string{"432 ", "432 ", "250 "} {
		if reply, err := d.send(kim, letter, "x+throttled2@example.net"); err != nil || !strings.HasPrefix(reply, prefix) {
			t.Errorf("try %d of a number: got %q, %v, want %q", i+1, reply, err, prefix)
		}
	}
	d.conn.SetDeadline(time.Now().Add(50 * time.Millisecond))
	if reply, err := d.send(kim, letter, "x+hang@example.net"); err == nil {
		t.Errorf("+hang: got %q", reply)
	}
}
