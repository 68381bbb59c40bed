package sim

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// The POP service of Exchange. It sees the Inbox and nothing else.

const (
	popBanner    = "+OK The Microsoft Exchange POP3 service is ready. [{b64}]"
	popAuthed    = "+OK User successfully authenticated."
	popRefused   = "-ERR Authentication failure: unknown user name or bad password."
	popBye       = "+OK Microsoft Exchange Server POP3 server signing off."
	popError     = "-ERR Protocol error. 14"
	popState     = "-ERR Command is not valid in this state."
	popNoSuch    = "-ERR The specified message does not exist."
	popClosed    = "-ERR Connection is closed. 10"
	popThrottled = "-ERR Request is throttled. Suggested Backoff Time: 92415 milliseconds"
	popMaxLine   = 255 // RFC 2449 section 4
)

// A popSession is one connection.
type popSession struct {
	*wire
	crowd *crowd
	list  []popMessage // as it was at the login
	lie   string
}

// A popMessage is one of the messages that a session sees. What is marked goes
// away with QUIT.
type popMessage struct {
	Message
	marked bool
}

// pop speaks with one client.
func (c *crowd) pop(w *wire) {
	s := &popSession{wire: w, crowd: c}
	s.at("greeting", func() { s.reply(popBanner) })
	for !s.ending {
		if s.in.Buffered() == 0 && s.flush() != nil {
			return
		}
		s.idle(s.knobs().POPTimeout)
		line, err := s.line(maxAuthLine)
		switch {
		case errors.Is(err, errLineLong):
			s.reply(popError)
			return
		case errors.As(err, new(net.Error)):
			s.reply(popClosed)
			return
		case err != nil:
			return
		}
		s.command(line)
	}
}

// reply says a text. One that says BYE is the last.
func (s *popSession) reply(text string) {
	s.say(strings.ReplaceAll(text, "{b64}", bannerHost(s.knobs().HostName)))
	if strings.Contains(text, "BYE") || text == popClosed {
		s.ending = true
	}
}

func (s *popSession) at(point string, do func()) {
	f := s.fault("pop." + point)
	if f != nil && f.Do == DoLie {
		s.lie = f.Text
		do()
		s.lie = ""
		return
	}
	s.suffer(f, s.reply, do)
}

type popCommand struct {
	login bool // before it
	do    func(*popSession, []string)
}

var popCommands map[string]*popCommand

func init() {
	popCommands = map[string]*popCommand{
		"CAPA": {true, (*popSession).capa},
		"AUTH": {true, (*popSession).auth},
		"USER": {true, (*popSession).user},
		"PASS": {true, (*popSession).pass},
		"STAT": {false, (*popSession).stat},
		"LIST": {false, (*popSession).listing},
		"UIDL": {false, (*popSession).listing},
		"RETR": {false, (*popSession).retrieve},
		"TOP":  {false, (*popSession).retrieve},
		"DELE": {false, (*popSession).dele},
		"RSET": {false, (*popSession).reset},
		"NOOP": {false, func(s *popSession, _ []string) { s.reply("+OK") }},
		"QUIT": {true, (*popSession).quit},
	}
}

func (s *popSession) command(line string) {
	words := strings.Fields(line)
	if len(words) == 0 {
		s.mistake()
		return
	}
	words[0] = strings.ToUpper(words[0])
	cmd := popCommands[words[0]]
	switch {
	case cmd == nil, len(line) > popMaxLine && !s.knobs().POPOneLine:
		s.mistake()
		return
	case s.who == nil && !cmd.login, s.who != nil && (words[0] == "AUTH" || words[0] == "USER" || words[0] == "PASS"):
		s.reply(popState)
		return
	}
	if words[0] == "AUTH" {
		cmd.do(s, words) // its fault waits until it is known who it is
		return
	}
	s.at(words[0], func() { cmd.do(s, words) })
}

func (s *popSession) mistake() {
	s.mistakes++
	s.reply(popError)
	if over(s.mistakes, s.knobs().ProtocolErrors) {
		s.ending = true
	}
}

func (s *popSession) capa(_ []string) {
	s.reply("+OK")
	k := s.knobs()
	for _, c := range k.POPCapability {
		if strings.HasPrefix(c, "SASL ") && k.OAuthBearer {
			c += " OAUTHBEARER"
		}
		s.say(c)
	}
	s.say(".")
}

func (s *popSession) refuse() {
	s.failures++
	s.reply(popRefused)
	if over(s.failures+1, s.knobs().AuthFailures) {
		s.ending = true
	}
}

func (s *popSession) user(_ []string) { s.reply("+OK") }

func (s *popSession) pass(_ []string) {
	s.sim.counts.add("pop.basic")
	s.refuse()
}

// auth takes a token in the second of two lines; in one Exchange does not.
func (s *popSession) auth(words []string) {
	k := s.knobs()
	if len(words) < 2 {
		s.mistake()
		return
	}
	mechanism := words[1]
	if !k.StrictCase {
		mechanism = strings.ToUpper(mechanism)
	}
	bearer := mechanism == "OAUTHBEARER" && k.OAuthBearer
	if mechanism != "XOAUTH2" && !bearer || len(words) > 3 || len(words) == 3 && !k.POPOneLine {
		s.mistake()
		return
	}
	answer := ""
	if len(words) == 3 {
		answer = words[2]
	} else {
		var ok bool
		if answer, ok = s.ask("+ "); !ok {
			return
		}
	}
	plain, err := base64.StdEncoding.Strict().DecodeString(answer)
	if err != nil {
		s.mistake()
		return
	}
	s.name = userOf(string(plain))
	f := s.fault("pop.AUTH")
	s.name = ""
	s.suffer(f, s.reply, func() { s.enter(string(plain), bearer) })
}

func (s *popSession) enter(answer string, bearer bool) {
	k := s.knobs()
	unreachable := s.forgotten
	if !s.login(s.crowd, answer, bearer, k.POPConnections) || s.forgotten || unreachable {
		s.crowd.leave(s.wire)
		s.who, s.counted, s.forgotten = nil, false, false
		if k.FailChallenge || bearer {
			if _, ok := s.ask("+ " + challengeText("POP")); !ok {
				return
			}
		}
		s.refuse()
		return
	}
	for _, m := range s.sim.mail.list(s.who.mailbox.Address, FolderInbox) {
		s.list = append(s.list, popMessage{Message: m})
	}
	s.reply(popAuthed)
}

func (s *popSession) stat(_ []string) {
	n, size := 0, 0
	for _, m := range s.list {
		if !m.marked {
			n++
			size += len(m.Raw)
		}
	}
	s.reply(fmt.Sprintf("+OK %d %d", n, size))
}

// number finds the message that is meant.
func (s *popSession) number(text string) *popMessage {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > len(s.list) || s.list[n-1].marked {
		return nil
	}
	return &s.list[n-1]
}

// listing answers LIST and UIDL, for all messages or for one.
func (s *popSession) listing(words []string) {
	line := func(i int) string {
		m := &s.list[i]
		value := m.UIDL
		switch {
		case words[0] == "LIST" && s.lie == "size":
			value = strconv.Itoa(len(m.Raw) * 2)
		case words[0] == "LIST":
			value = strconv.Itoa(len(m.Raw))
		case s.lie == "uidl-same":
			value = s.list[0].UIDL
		case s.lie == "uidl-fresh":
			value = newSecretText()[:20]
		}
		return strconv.Itoa(i+1) + " " + value
	}
	if len(words) > 1 {
		m := s.number(words[1])
		if m == nil || len(words) > 2 {
			s.reply(popNoSuch)
			return
		}
		n, _ := strconv.Atoi(words[1])
		s.reply("+OK " + line(n-1))
		return
	}
	s.reply("+OK")
	for i := range s.list {
		if !s.list[i].marked {
			s.say(line(i))
		}
	}
	s.say(".")
}

// retrieve answers RETR and TOP.
func (s *popSession) retrieve(words []string) {
	if len(words) < 2 || words[0] == "TOP" && len(words) != 3 {
		s.mistake()
		return
	}
	m := s.number(words[1])
	if m == nil {
		s.reply(popNoSuch)
		return
	}
	// It may have been taken away by another program.
	if _, there := s.sim.mail.find(m.Mailbox, m.ImmutableID); !there {
		s.reply(popNoSuch)
		return
	}
	raw := m.Raw
	if words[0] == "TOP" {
		n, err := strconv.Atoi(words[2])
		if err != nil || n < 0 {
			s.mistake()
			return
		}
		raw = firstLines(raw, n)
	}
	s.reply("+OK")
	s.stuffed(raw)
	s.say(".")
}

// firstLines is the header of a message with n lines of its text.
func firstLines(raw []byte, n int) []byte {
	at := len(headOf(raw))
	for ; n > 0 && at < len(raw); n-- {
		end := bytes.IndexByte(raw[at:], '\n')
		if end < 0 {
			return raw
		}
		at += end + 1
	}
	return raw[:at]
}

// stuffed sends a message with a dot before lines that begin with one.
func (s *popSession) stuffed(raw []byte) {
	for len(raw) > 0 {
		line := raw
		if i := bytes.IndexByte(raw, '\n'); i >= 0 {
			line = raw[:i+1]
		}
		raw = raw[len(line):]
		if line[0] == '.' {
			s.write(".")
		}
		s.bytes(line)
		if len(raw) == 0 && line[len(line)-1] != '\n' {
			s.write("\r\n")
		}
		if s.ending {
			return
		}
	}
}

func (s *popSession) dele(words []string) {
	var m *popMessage
	if len(words) == 2 {
		m = s.number(words[1])
	}
	if m == nil {
		s.reply(popNoSuch)
		return
	}
	m.marked = true
	s.reply("+OK")
}

func (s *popSession) reset(_ []string) {
	for i := range s.list {
		s.list[i].marked = false
	}
	s.reply("+OK")
}

// quit takes away what is marked. Without it nothing is.
func (s *popSession) quit(_ []string) {
	for _, m := range s.list {
		if m.marked && s.sim.mail.remove(m.Mailbox, m.ImmutableID) {
			s.sim.counts.add("pop.deleted")
		}
	}
	s.reply(popBye)
	s.ending = true
}
