package sim

import (
	"encoding/base64"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf16"
)

// The IMAP service of Exchange, as far as programs read mail with it.

// The replies of Exchange. Those that end in a number are its own.
const (
	imapBanner       = "* OK The Microsoft Exchange IMAP4 service is ready. [{b64}]"
	imapNotConnected = "{tag} BAD User is authenticated but not connected."
	imapExpired      = "{tag} BAD Command Error. 10"
	imapError        = "{tag} BAD Command Error. 12"
	imapState        = "{tag} BAD Command received in Invalid state."
	imapTooLong      = "{tag} BAD command line limit exceeded"
	imapUnavailable  = "{tag} NO Server Unavailable. 15"
	imapThrottled    = "{tag} BAD Request is throttled. Suggested Backoff Time: 92415 milliseconds"
	imapClosed       = "* BYE Connection is closed. 13"
	imapSigningOff   = "* BYE Microsoft Exchange Server IMAP4 server signing off."
)

// An imapSession is one connection.
type imapSession struct {
	*wire
	crowd *crowd

	mu    sync.Mutex // held while something is done or said
	tag   string     // of the command under way
	verb  string     // of the same, without UID
	byUID bool       // it began with UID
	keep  bool       // no news behind it: sequence numbers must stay
	sel   *selected
	under string // tag of IDLE, while that goes on
	deaf  bool   // hears of nothing any more
	lie   string // what the command under way lies about
	huge  int64  // what it announces as the size of a literal

	idling  atomic.Bool // in IDLE, for those who do not hold mu
	pending atomic.Bool // a push is on its way
	pushes  sync.WaitGroup
}

// A selected is the folder that a session has open, with what it told of it.
type selected struct {
	folder   *folder
	readOnly bool
	uids     []uint32 // by sequence number
	mod      uint64   // the last change that was told
}

// imap speaks with one client.
func (c *crowd) imap(w *wire) {
	s := &imapSession{wire: w, crowd: c}
	defer s.close()
	s.mu.Lock()
	s.at("greeting", func() { s.reply(imapBanner) })
	s.mu.Unlock()
	for {
		s.mu.Lock()
		if s.ending || s.in.Buffered() == 0 && s.flush() != nil {
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		s.waitFor()
		cmd, err := s.read()
		s.mu.Lock()
		switch {
		case err == nil && s.under != "":
			s.endIdle(cmd)
		case err == nil:
			s.command(cmd)
		case errors.Is(err, errLineLong):
			s.tag = cmd.tag()
			s.reply(imapTooLong)
			s.ending = true
		case errors.Is(err, errNoLiteral):
			s.tag = cmd.tag()
			s.mistake()
		case errors.As(err, new(net.Error)):
			s.reply(imapClosed)
			fallthrough
		default:
			s.ending = true
		}
		s.mu.Unlock()
	}
}

// waitFor sets how long the client may be silent.
func (s *imapSession) waitFor() {
	k := s.knobs()
	if s.who == nil {
		s.idle(k.IMAPLoginTimeout)
		return
	}
	s.idle(k.IMAPTimeout)
}

func (s *imapSession) close() {
	s.mu.Lock()
	s.flush()
	s.unselect() // then nobody starts a push any more
	s.mu.Unlock()
	s.conn.Close()
	s.pushes.Wait()
}

// reply says a text that may have the tag in it, and more than one line. BYE is
// the last.
func (s *imapSession) reply(text string) {
	k := s.knobs()
	text = strings.NewReplacer("{tag}", s.tag, "{b64}", bannerHost(k.HostName)).Replace(text)
	s.say(strings.ReplaceAll(text, "\n", "\r\n"))
	if strings.Contains(text, "* BYE") {
		s.ending = true
	}
}

// bannerHost is the name of the server in the greeting: UTF-16 in base64.
func bannerHost(name string) string {
	var b []byte
	for _, u := range utf16.Encode([]rune(name)) {
		b = append(b, byte(u), byte(u>>8))
	}
	return base64.StdEncoding.EncodeToString(b)
}

// at does something at a point, with the fault that strikes there.
func (s *imapSession) at(point string, do func()) {
	f := s.fault("imap." + point)
	switch {
	case f != nil && f.Do == DoLie:
		s.lie = f.Text
		do()
		s.lie = ""
	case f != nil && f.Do == DoLiteral:
		s.huge = f.Bytes
		if s.huge == 0 {
			s.huge = 2 << 30
		}
		do()
		s.huge = 0
	case f != nil && f.Do == DoHang && point == "push":
		s.deaf = true
	default:
		s.suffer(f, s.reply, do)
	}
}

// ok ends a command well, with the news of the folder before that.
func (s *imapSession) ok(text string) {
	if s.sel != nil && !s.keep {
		s.news()
	}
	if !s.ending {
		s.say(s.tag, " OK ", text)
	}
}

func (s *imapSession) no(text string) { s.say(s.tag, " NO ", text) }

// mistake answers what cannot be understood; too much of it ends the session.
func (s *imapSession) mistake() {
	s.mistakes++
	s.reply(imapError)
	if over(s.mistakes, s.knobs().ProtocolErrors) {
		s.reply(imapClosed)
	}
}

// In which state a command may come.
const (
	imapAny = iota
	imapBefore
	imapAfter
	imapSelected
)

type imapCommand struct {
	state int
	do    func(*imapSession, *lexer)
	needs string // capability
}

var imapCommands map[string]*imapCommand

func init() {
	imapCommands = map[string]*imapCommand{
		"CAPABILITY":   {imapAny, (*imapSession).capability, ""},
		"ID":           {imapAny, (*imapSession).id, "ID"},
		"NOOP":         {imapAny, func(s *imapSession, _ *lexer) { s.ok("NOOP completed.") }, ""},
		"LOGOUT":       {imapAny, (*imapSession).logout, ""},
		"LOGIN":        {imapBefore, (*imapSession).password, ""},
		"STARTTLS":     {imapBefore, func(s *imapSession, _ *lexer) { s.mistake() }, ""},
		"AUTHENTICATE": {imapBefore, (*imapSession).authenticate, ""},
		"NAMESPACE":    {imapAfter, (*imapSession).namespace, "NAMESPACE"},
		"LIST":         {imapAfter, (*imapSession).list, ""},
		"LSUB":         {imapAfter, (*imapSession).list, ""},
		"STATUS":       {imapAfter, (*imapSession).status, ""},
		"SELECT":       {imapAfter, (*imapSession).selectFolder, ""},
		"EXAMINE":      {imapAfter, (*imapSession).selectFolder, ""},
		"CREATE":       {imapAfter, (*imapSession).create, ""},
		"DELETE":       {imapAfter, (*imapSession).deleteFolder, ""},
		"SUBSCRIBE":    {imapAfter, (*imapSession).subscribe, ""},
		"UNSUBSCRIBE":  {imapAfter, (*imapSession).subscribe, ""},
		"APPEND":       {imapAfter, (*imapSession).append, ""},
		"IDLE":         {imapAfter, (*imapSession).beginIdle, "IDLE"},
		"UNSELECT":     {imapSelected, (*imapSession).unselectFolder, "UNSELECT"},
		"CLOSE":        {imapSelected, (*imapSession).closeFolder, ""},
		"CHECK":        {imapSelected, func(s *imapSession, _ *lexer) { s.ok("CHECK completed.") }, ""},
		"FETCH":        {imapSelected, (*imapSession).fetch, ""},
		"SEARCH":       {imapSelected, (*imapSession).search, ""},
		"STORE":        {imapSelected, (*imapSession).store, ""},
		"COPY":         {imapSelected, (*imapSession).copy, ""},
		"MOVE":         {imapSelected, (*imapSession).copy, "MOVE"},
		"EXPUNGE":      {imapSelected, (*imapSession).expunge, ""},
	}
}

// command does one command, unless a fault is in the way.
func (s *imapSession) command(in *imapInput) {
	l := in.lexer()
	s.tag, s.byUID, s.keep = l.word(), false, false
	s.verb = strings.ToUpper(l.word())
	if s.verb == "UID" {
		s.byUID, s.verb = true, strings.ToUpper(l.word())
	}
	cmd := imapCommands[s.verb]
	if s.tag == "" || strings.ContainsAny(s.tag, `+*"(){%\`) {
		s.tag = "*"
		s.mistake()
		return
	}
	if cmd == nil || s.byUID && !slices.Contains([]string{"FETCH", "SEARCH", "STORE", "COPY", "MOVE", "EXPUNGE"}, s.verb) || !s.can(cmd.needs) {
		s.mistake()
		return
	}
	s.keep = !s.byUID && slices.Contains([]string{"FETCH", "SEARCH", "STORE"}, s.verb)
	do := func() {
		switch {
		case cmd.state == imapBefore && s.who != nil, cmd.state > imapBefore && s.who == nil:
			s.reply(imapState)
		case cmd.state > imapBefore && !s.reachable():
			s.reply(imapNotConnected)
		case cmd.state > imapBefore && s.knobs().EndAtExpiry && !s.sim.Now().Before(s.who.expires):
			s.reply(imapExpired)
		case cmd.state == imapSelected && s.sel == nil:
			s.reply(imapState)
		default:
			cmd.do(s, l)
		}
	}
	if s.verb == "AUTHENTICATE" {
		do() // its fault waits until it is known who it is
		return
	}
	s.at(s.verb, do)
}

func (s *imapSession) capabilities() string {
	k := s.knobs()
	if s.who != nil {
		return k.IMAPCapability
	}
	if k.OAuthBearer {
		return strings.Replace(k.IMAPPreAuth, "AUTH=XOAUTH2", "AUTH=XOAUTH2 AUTH=OAUTHBEARER", 1)
	}
	return k.IMAPPreAuth
}

// can says whether the service offers something.
func (s *imapSession) can(what string) bool {
	return what == "" || containsFold(strings.Fields(s.capabilities()), what)
}

func (s *imapSession) capability(*lexer) {
	s.say("* CAPABILITY ", s.capabilities())
	s.ok("CAPABILITY completed.")
}

func (s *imapSession) id(*lexer) {
	s.say(`* ID ("name" "Microsoft.Exchange.Imap4.Imap4Server" "version" "15.20")`)
	s.ok("ID completed")
}

func (s *imapSession) namespace(*lexer) {
	s.say(`* NAMESPACE (("" "/")) NIL NIL`)
	s.ok("NAMESPACE completed.")
}

func (s *imapSession) logout(*lexer) {
	s.reply(imapSigningOff)
	s.say(s.tag, " OK LOGOUT completed.")
}

// password is the old way in.
func (s *imapSession) password(*lexer) {
	s.sim.counts.add("imap.basic")
	s.refuse("LOGIN failed.")
}

func (s *imapSession) refuse(text string) {
	s.failures++
	s.no(text)
	if over(s.failures+1, s.knobs().AuthFailures) {
		s.reply(imapClosed)
	}
}

// authenticate takes a token in the same line, or behind a challenge.
func (s *imapSession) authenticate(l *lexer) {
	mechanism, initial := l.word(), l.word()
	k := s.knobs()
	if !k.StrictCase {
		mechanism = strings.ToUpper(mechanism)
	}
	bearer := mechanism == "OAUTHBEARER" && k.OAuthBearer
	if mechanism != "XOAUTH2" && !bearer {
		s.refuse("AUTHENTICATE failed.")
		return
	}
	if initial != "" && !s.can("SASL-IR") {
		s.mistake()
		return
	}
	if initial == "" {
		var ok bool
		if initial, ok = s.ask("+ "); !ok {
			return
		}
	}
	answer, err := base64.StdEncoding.Strict().DecodeString(initial)
	if initial == "=" {
		answer, err = nil, nil
	}
	if err != nil || initial == "*" {
		s.mistake()
		return
	}
	s.about(string(answer), func() { s.open(mechanism, string(answer)) })
}

// about does a login, with the fault that strikes it.
func (s *imapSession) about(answer string, do func()) {
	s.name = userOf(answer)
	f := s.fault("imap.AUTHENTICATE")
	s.name = ""
	s.suffer(f, s.reply, do)
}

func (s *imapSession) open(mechanism, answer string) {
	k := s.knobs()
	forgotten := s.forgotten
	if s.login(s.crowd, answer, mechanism == "OAUTHBEARER", k.IMAPConnections) {
		s.forgotten = s.forgotten || forgotten
		s.ok("AUTHENTICATE completed.")
		return
	}
	if k.FailChallenge || mechanism == "OAUTHBEARER" {
		if _, ok := s.ask("+ " + challengeText("IMAP")); !ok {
			return
		}
	}
	s.refuse(k.IMAPAuthFailed)
}

// beginIdle lets the client hear of changes as they come (RFC 2177).
func (s *imapSession) beginIdle(*lexer) {
	s.sim.counts.add("imap.idle")
	s.under = s.tag
	s.idling.Store(true)
	s.say("+ IDLE accepted, awaiting DONE command.")
	if s.sel != nil {
		s.news() // of what came between the commands
	}
}

func (s *imapSession) endIdle(in *imapInput) {
	s.tag, s.under = s.under, ""
	s.idling.Store(false)
	if !strings.EqualFold(strings.TrimSpace(in.texts[0]), "DONE") {
		s.mistake()
		return
	}
	s.ok("IDLE completed.")
}

// hear is called with the store locked when the selected folder changed.
func (s *imapSession) hear() {
	if s.idling.Load() && s.pending.CompareAndSwap(false, true) {
		s.pushes.Go(s.push)
	}
}

// push tells a client in IDLE what is new.
func (s *imapSession) push() {
	s.pending.Store(false)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.under == "" || s.deaf || s.ending || s.sel == nil {
		return
	}
	s.at("push", func() {
		s.news()
		s.sim.counts.add("imap.pushes")
	})
	if s.flush() != nil || s.ending {
		s.conn.Close() // so that the reader hears of it
	}
}

// imapDate is INTERNALDATE.
func imapDate(t time.Time) string { return t.UTC().Format("02-Jan-2006 15:04:05 -0700") }
