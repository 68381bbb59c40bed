package sim_test

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant/sim"
)

// pop logs in to a mailbox.
func (e *env) pop(mailbox, token string) *reading {
	e.Helper()
	r := e.connect(e.POPAddr())
	if line := r.line(); !strings.HasPrefix(line, "+OK The Microsoft Exchange POP3 service is ready. [") {
		e.Errorf("greeting: got %s", line)
	}
	if got := r.popAuth(mailbox, token); got != "+OK User successfully authenticated." {
		e.Errorf("login: got %s", got)
	}
	return r
}

func (r *reading) popAuth(mailbox, token string) string {
	r.e.Helper()
	if got := r.ask("AUTH XOAUTH2"); got != "+ " {
		return got
	}
	return r.ask(xoauth2(mailbox, token))
}

// ask sends a line and returns the first line of the answer.
func (r *reading) ask(line string) string {
	r.e.Helper()
	r.send(line + "\r\n")
	return r.line()
}

// many reads an answer of several lines.
func (r *reading) many(line string) string {
	r.e.Helper()
	all := r.ask(line)
	for l := all; strings.HasPrefix(all, "+OK") && l != "."; all += "\n" + l {
		l = r.line()
	}
	return all
}

func TestPOPTranscript(t *testing.T) {
	e := start(t)
	token := e.userToken(kim, popScope)
	one, two := e.deliver(kim, "One"), e.deliver(kim, "Two")
	if _, err := e.Move(e.deliver(kim, "Away").ID, sim.FolderArchive); err != nil {
		t.Fatal(err)
	}
	r := e.connect(e.POPAddr())
	if got := r.line(); got != "+OK The Microsoft Exchange POP3 service is ready. [UwBZADUAUAAyADgAMgBDAEEAMAAwADkANwAuAG8AdQB0AGwAbwBvAGsALgBvAGYAZgBpAGMAZQAzADYANQAuAGMAbwBtAA==]" {
		t.Errorf("greeting: got %s", got)
	}
	for _, c := range [][2]string{
		{"CAPA", "+OK\nTOP\nUIDL\nSASL PLAIN XOAUTH2\nUSER\n."},
		{"STAT", "-ERR Command is not valid in this state."},
		{"WISH", "-ERR Protocol error. 14"},
		{"AUTH XOAUTH2 " + xoauth2(kim, token), "-ERR Protocol error. 14"},
		{"AUTH PLAIN", "-ERR Protocol error. 14"},
	} {
		if got := r.many(c[0]); got != c[1] {
			t.Errorf("%.20s: got %q, want %q", c[0], got, c[1])
		}
	}
	if got := r.ask("USER kim"); got != "+OK" {
		t.Errorf("USER: got %s", got)
	}
	if got := r.ask("PASS secret"); got != "-ERR Authentication failure: unknown user name or bad password." {
		t.Errorf("PASS: got %s", got)
	}
	if got := r.popAuth(kim, token); got != "+OK User successfully authenticated." {
		t.Errorf("AUTH: got %s", got)
	}
	head, _, _ := strings.Cut(string(one.Raw), "\r\n\r\n")
	head = strings.ReplaceAll(head, "\r\n", "\n")
	for _, c := range [][2]string{
		{"STAT", fmt.Sprintf("+OK 2 %d", len(one.Raw)+len(two.Raw))},
		{"LIST 2", fmt.Sprintf("+OK 2 %d", len(two.Raw))},
		{"UIDL 1", "+OK 1 1"},
		{"UIDL 3", "-ERR The specified message does not exist."},
		{"RETR 3", "-ERR The specified message does not exist."},
		{"RETR -1", "-ERR The specified message does not exist."},
		{"DELE 0", "-ERR The specified message does not exist."},
		{"TOP 1", "-ERR Protocol error. 14"},
		{"AUTH XOAUTH2", "-ERR Command is not valid in this state."},
		{"NOOP", "+OK"},
		{"DELE 1", "+OK"},
		{"DELE 1", "-ERR The specified message does not exist."},
		{"STAT", fmt.Sprintf("+OK 1 %d", len(two.Raw))},
		{"RSET", "+OK"},
		{"STAT", fmt.Sprintf("+OK 2 %d", len(one.Raw)+len(two.Raw))},
	} {
		if got := r.ask(c[0]); got != c[1] {
			t.Errorf("%s: got %q, want %q", c[0], got, c[1])
		}
	}
	for _, c := range [][2]string{
		{"LIST", fmt.Sprintf("+OK\n1 %d\n2 %d\n.", len(one.Raw), len(two.Raw))},
		{"UIDL", "+OK\n1 1\n2 2\n."},
		{"RETR 1", "+OK\n" + head + "\n\nHello\n..dot\n."},
		{"TOP 1 1", "+OK\n" + head + "\n\nHello\n."},
		{"TOP 1 0", "+OK\n" + head + "\n\n."},
		{"TOP 1 99999999", "+OK\n" + head + "\n\nHello\n..dot\n."},
	} {
		if got := r.many(c[0]); got != c[1] {
			t.Errorf("%s: got %q, want %q", c[0], got, c[1])
		}
	}
	r.ask("DELE 2")
	e.deliver(kim, "Three")
	if got := r.ask("QUIT"); got != "+OK Microsoft Exchange Server POP3 server signing off." {
		t.Errorf("QUIT: got %s", got)
	}
	r.ends()
	if got := e.pop(kim, token).many("UIDL"); got != "+OK\n1 1\n2 4\n." {
		t.Errorf("afterwards: got %q", got)
	}
}

func TestPOPDeletesOnlyAtACleanEnd(t *testing.T) {
	e := start(t)
	token := e.userToken(kim, popScope)
	e.deliver(kim, "One")
	for i, end := range []func(*reading){
		func(r *reading) {},
		func(r *reading) { e.SetFault(sim.Fault{Name: "pop-drop-quit", Times: 1}); r.send("QUIT\r\n") },
	} {
		r := e.pop(kim, token)
		r.ask("DELE 1")
		end(r)
		if i > 0 {
			r.ends()
		}
		r.conn.Close()
		if err := e.WaitCount(e.ctx, "pop.closed", i+1); err != nil {
			t.Fatal(err)
		}
		if n := len(e.Mail(kim)); n != 1 {
			t.Errorf("end %d: got %d messages, want 1", i, n)
		}
	}
	e.SetFault(sim.Fault{Name: "pop-lost-quit", Times: 1})
	r := e.pop(kim, token)
	r.ask("DELE 1")
	r.send("QUIT\r\n")
	r.ends()
	if n := len(e.Mail(kim)); n != 0 {
		t.Errorf("only the answer was lost: got %d messages, want 0", n)
	}
}

func TestPOPWhoMayRead(t *testing.T) {
	e := start(t)
	imap := e.userToken(kim, imapScope)
	mine, app := e.userToken(kim, popScope), e.appToken("https://outlook.office365.com")
	state := e.World().State()
	for _, c := range []struct {
		what, user, token string
		good              bool
		change            func(*sim.State)
	}{
		{"own", kim, mine, true, nil},
		{"shared with full access", "office@contoso.example", mine, true, nil},
		{"somebody else's", "sam@contoso.example", mine, false, nil},
		{"scope of IMAP", kim, imap, false, nil},
		{"garbage", kim, "garbage", false, nil},
		{"app with full access", "noreply@contoso.example", app, true, nil},
		{"app without", kim, app, false, nil},
		{"POP is off", kim, mine, false, func(s *sim.State) { s.Tenants[0].Mailboxes[2].POPDisabled = true }},
		{"out of reach", "kim+notconnected@contoso.example", mine, false, nil},
	} {
		e.World().Replace(state)
		if c.change != nil {
			e.World().Update(func(s *sim.State) error { c.change(s); return nil })
		}
		r := e.connect(e.POPAddr())
		r.line()
		want := "-ERR Authentication failure: unknown user name or bad password."
		if c.good {
			want = "+OK User successfully authenticated."
		}
		if got := r.popAuth(c.user, c.token); got != want {
			t.Errorf("%s: got %q, want %q", c.what, got, want)
		}
		r.conn.Close()
	}
}

func TestPOPOtherProviders(t *testing.T) {
	e := start(t, knobs(func(k *sim.Knobs) {
		k.FailChallenge, k.OAuthBearer = true, true
		k.POPCapability = []string{"USER", "RESP-CODES", "EXPIRE 0", "TOP", "UIDL", "SASL PLAIN XOAUTH2"}
	}))
	token := e.userToken(kim, popScope)
	r := e.connect(e.POPAddr())
	r.line()
	if got := r.many("CAPA"); got != "+OK\nUSER\nRESP-CODES\nEXPIRE 0\nTOP\nUIDL\nSASL PLAIN XOAUTH2 OAUTHBEARER\n." {
		t.Errorf("got %q", got)
	}
	if got := r.popAuth(kim, "garbage"); !strings.HasPrefix(got, "+ eyJ") {
		t.Errorf("a bad token is explained first: got %q", got)
	}
	if got := r.ask(""); got != "-ERR Authentication failure: unknown user name or bad password." {
		t.Errorf("then it is refused: got %q", got)
	}
	r.ask("AUTH OAUTHBEARER")
	if got := r.ask(b64("n,a=" + kim + ",\x01host=localhost\x01port=995\x01auth=Bearer " + token + "\x01\x01")); got != "+OK User successfully authenticated." {
		t.Errorf("a good one: got %q", got)
	}
}

func TestPOPFaults(t *testing.T) {
	e := start(t, knobs(func(k *sim.Knobs) { k.POPOneLine = true }))
	token := e.userToken(kim, popScope)
	e.deliver(kim, "One")
	e.deliver(kim, "Two")
	for _, c := range []struct {
		name, command, want string
	}{
		{"pop-closed", "RETR 1", "-ERR Connection is closed. 10\r\n"},
		{"pop-half", "RETR 1", "+OK\r\nReceived: from "},
		{"pop-drip", "RETR 1", "+OK\r\nR"},
		{"pop-endless", "RETR 1", "* OK aaaaaaaaaaaaaaa"},
		{"pop-size", "LIST", "+OK\r\n"},
		{"pop-uidl-same", "UIDL", "+OK\r\n1 1\r\n2 1\r\n.\r\n"},
	} {
		r := e.connect(e.POPAddr())
		r.line()
		if got := r.ask("AUTH XOAUTH2 " + xoauth2(kim, token)); got != "+OK User successfully authenticated." {
			t.Errorf("in one line, where that is taken: got %q", got)
		}
		if err := e.SetFault(sim.Fault{Name: c.name}); err != nil {
			t.Fatal(err)
		}
		r.send(c.command + "\r\n")
		got := make([]byte, len(c.want))
		if _, err := io.ReadFull(r.in, got); err != nil || string(got) != c.want {
			t.Errorf("%s: got %q, %v", c.name, got, err)
		}
		e.ClearFaults()
		r.conn.Close()
	}
	for name, want := range map[string]string{"pop-in-use": "-ERR [IN-USE] ", "pop-unavailable": "-ERR [SYS/TEMP] ", "pop-throttled": "-ERR Request is throttled. Suggested Backoff Time: 92415 milliseconds"} {
		e.SetFault(sim.Fault{Name: name, Match: kim, Times: 1})
		r := e.connect(e.POPAddr())
		r.line()
		if got := r.popAuth(kim, token); !strings.HasPrefix(got, want) {
			t.Errorf("%s: got %q", name, got)
		}
	}
	r := e.pop(kim, token)
	e.World().ChangeKnobs(func(k *sim.Knobs) { k.POPTimeout = sim.Duration(time.Millisecond) })
	r.send("NOOP\r\n")
	r.line()
	if got := r.line(); got != "-ERR Connection is closed. 10" {
		t.Errorf("silence: got %q", got)
	}
}

func TestFilesComeWithTheLinesOfTheWire(t *testing.T) {
	e := start(t)
	file := []byte("Subject: From a file\r\n\nOne\nTwo\n")
	for _, c := range []struct {
		asIs bool
		end  string
	}{{false, "\r\n\r\nOne\r\nTwo\r\n"}, {true, "\r\n\nOne\nTwo\n"}} {
		m, err := e.DeliverMail(sim.Delivery{To: kim, Raw: file, AsIs: c.asIs})
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(string(m.Raw), c.end) || !c.asIs && strings.Count(string(m.Raw), "\n") != strings.Count(string(m.Raw), "\r\n") {
			t.Errorf("as it is %v: %q", c.asIs, m.Raw)
		}
	}
}
