package sim

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

// What a Fault can do: at the points of HTTP, of mail (SMTP, IMAP and POP), of
// reading (IMAP and POP), or at all of them.
const (
	DoClose    = "close"    // all: end the connection without an answer
	DoHang     = "hang"     // all: never answer
	DoSlow     = "slow"     // all: wait for Delay, then go on as usual
	DoLost     = "lost"     // all: do what was asked, then end the connection without an answer
	DoReply    = "reply"    // mail: answer Text and do nothing
	DoAnswer   = "answer"   // mail: do what was asked, but answer Text
	DoDrop     = "drop"     // smtp: end the connection after Bytes more bytes from the client
	DoCut      = "cut"      // http, reading: do what was asked, but end the connection after Bytes of the answer
	DoEndless  = "endless"  // reading: a line of Bytes, or one that never ends
	DoLiteral  = "literal"  // imap: announce a literal of Bytes, send what there is, and no more
	DoLie      = "lie"      // imap, pop: answer wrongly; Text says in what, see Lies
	DoStatus   = "status"   // http: Status with Code and Text in the manner of the place
	DoAADSTS   = "aadsts"   // sign-in: the error of that Code
	DoHTML     = "html"     // http: a page of a proxy, with Status
	DoBody     = "body"     // http: Status and Body as they are
	DoBig      = "big"      // http: a good answer that goes on for Bytes
	DoDrip     = "drip"     // http: one byte each Delay, endlessly; reading: from now on each byte takes Delay
	DoRedirect = "redirect" // http: Status (307) to Location
	DoEdit     = "edit"     // http: the true JSON answer with the members of Edit put in

	DoTwice = "twice" // notify: tell it two times

	// DoUnreachable lets a login succeed and the mailbox stay out of reach.
	DoUnreachable = "unreachable"
)

// Lies are what the deed "lie" of a fault at imap or pop can be about.
var Lies = map[string]string{
	"uidvalidity":   "imap: SELECT tells another UIDVALIDITY each time",
	"uidnext":       "imap: UIDNEXT is 1",
	"uid-same":      "imap: all messages of a FETCH have the UID of the first",
	"uid-zero":      "imap: messages have the UID 0",
	"uid-huge":      "imap: messages have UIDs beyond 32 bits",
	"uid-backwards": "imap: the messages of a FETCH have the UIDs in reverse",
	"uid-unasked":   "imap: FETCH of one message tells of others too",
	"size":          "imap, pop: the size is not that of the message",
	"copyuid":       "imap: COPYUID with empty sets",
	"unquoted":      "imap: LIST leaves folder names unquoted",
	"structure":     "imap: BODYSTRUCTURE with a malformed disposition",
	"exists":        "imap: tells of a million messages",
	"uidl-same":     "pop: all messages have the same UIDL",
	"uidl-fresh":    "pop: each session has other UIDLs",
}

// A Fault is something that goes wrong on purpose at one point.
//
// Points are: discovery, jwks, authorize, adminconsent, devicecode, logout,
// token (and token.refresh_token, token.authorization_code,
// token.client_credentials, token.device_code), userinfo, graph (and graph.me,
// graph.users, graph.sendMail, graph.createDraft, graph.attach,
// graph.createUploadSession, graph.upload, graph.send, graph.find, graph.get,
// graph.delete, graph.update, graph.move, graph.translate, graph.createFolder,
// graph.delta, graph.subscribe, graph.subscription, graph.renew,
// graph.unsubscribe), notify (what Graph tells a client), smtp.connect, smtp.greeting, smtp.EHLO, smtp.STARTTLS, smtp.AUTH,
// smtp.MAIL, smtp.RCPT, smtp.DATA, smtp.dot, smtp.BDAT, smtp.RSET, smtp.NOOP,
// smtp.QUIT; imap.connect, imap.greeting, imap.push, pop.connect, pop.greeting, and
// imap. or pop. with any of their commands, UID FETCH as imap.FETCH.
// A point covers those below it: graph is all of Graph.
type Fault struct {
	// Name is one of FaultNames, which fills in what is absent here, or a name
	// of your own to clear the fault by.
	Name  string `json:"name,omitempty"`
	Point string `json:"point,omitempty"`
	Do    string `json:"do,omitempty"`

	Status     int            `json:"status,omitempty"`
	Code       string         `json:"code,omitempty"` // AADSTS number, or Graph's error code
	Text       string         `json:"text,omitempty"`
	RetryAfter string         `json:"retry_after,omitempty"` // the header as it is sent
	Body       string         `json:"body,omitempty"`
	Location   string         `json:"location,omitempty"`
	Edit       map[string]any `json:"edit,omitempty"` // null takes a member away
	Delay      Duration       `json:"delay,omitempty"`
	Bytes      int64          `json:"bytes,omitempty"`

	// Match limits the fault to calls about this address or client id.
	Match string `json:"match,omitempty"`

	Skip        int     `json:"skip,omitempty"`        // leave so many calls alone first
	Times       int     `json:"times,omitempty"`       // then hit so many; 0 = all
	Probability float64 `json:"probability,omitempty"` // of each hit; 0 = certain

	Hits int `json:"hits"` // how often it struck, told by Faults
}

// faults are those that are set.
type faults struct {
	sim *Sim

	mu   sync.Mutex
	set  []*Fault
	seen map[string]int // tries of plus-addresses with a number
}

func newFaults(s *Sim) *faults { return &faults{sim: s, seen: map[string]int{}} }

// SetFault breaks something until it is cleared or has struck Times times. A
// fault of the same name is replaced.
func (s *Sim) SetFault(f Fault) error {
	f, err := f.complete()
	if err != nil {
		return err
	}
	s.ClearFault(f.Name)
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	s.faults.set = append(s.faults.set, &f)
	return nil
}

// ClearFault mends what the fault of that name broke.
func (s *Sim) ClearFault(name string) {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	s.faults.set = slices.DeleteFunc(s.faults.set, func(f *Fault) bool { return f.Name == name })
}

// ClearFaults mends everything.
func (s *Sim) ClearFaults() {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	s.faults.set = nil
}

// Faults lists what is broken and how often each struck.
func (s *Sim) Faults() []Fault {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	list := make([]Fault, len(s.faults.set))
	for i, f := range s.faults.set {
		list[i] = *f
	}
	return list
}

// complete fills f from the named fault and checks it.
func (f Fault) complete() (Fault, error) {
	if named, ok := namedFault(f.Name); ok {
		f = f.over(named)
	}
	if f.Name == "" {
		f.Name = f.Point + ":" + f.Do
	}
	if !slices.Contains(points, f.Point) && !isReadPoint(f.Point) {
		return f, fmt.Errorf("fault %q: unknown point %q", f.Name, f.Point)
	}
	if !slices.Contains(deeds, f.Do) {
		return f, fmt.Errorf("fault %q: unknown deed %q", f.Name, f.Do)
	}
	if f.Do == DoAADSTS && aadsts[f.Code].err == "" {
		return f, fmt.Errorf("fault %q: unknown AADSTS code %q", f.Name, f.Code)
	}
	if f.Do == DoLie && Lies[f.Text] == "" {
		return f, fmt.Errorf("fault %q: unknown lie %q", f.Name, f.Text)
	}
	if (f.Do == DoReply || f.Do == DoAnswer) && f.Text == "" {
		return f, fmt.Errorf("fault %q: needs a text to answer", f.Name)
	}
	return f, nil
}

// over takes from below what f leaves open.
func (f Fault) over(below Fault) Fault {
	below.Name = f.Name
	fill := func(to *string, with string) {
		if with != "" {
			*to = with
		}
	}
	fill(&below.Point, f.Point)
	fill(&below.Do, f.Do)
	fill(&below.Code, f.Code)
	fill(&below.Text, f.Text)
	fill(&below.RetryAfter, f.RetryAfter)
	fill(&below.Body, f.Body)
	fill(&below.Location, f.Location)
	fill(&below.Match, f.Match)
	if f.Status != 0 {
		below.Status = f.Status
	}
	if f.Delay != 0 {
		below.Delay = f.Delay
	}
	if f.Bytes != 0 {
		below.Bytes = f.Bytes
	}
	if f.Edit != nil {
		below.Edit = f.Edit
	}
	below.Skip, below.Times, below.Probability = f.Skip, f.Times, f.Probability
	return below
}

// take returns the fault that strikes now at a point, or nil. About are the
// addresses and client ids of the call.
func (fs *faults) take(point string, about ...string) *Fault {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for _, f := range fs.set {
		if f.covers(point, about) && f.strikes() {
			fs.sim.counts.add("fault." + f.Name)
			hit := *f
			return &hit
		}
	}
	return nil
}

func (f *Fault) covers(point string, about []string) bool {
	if f.Point != point && !strings.HasPrefix(point, f.Point+".") {
		return false
	}
	return f.Match == "" || containsFold(about, f.Match)
}

func (f *Fault) strikes() bool {
	if f.Times > 0 && f.Hits >= f.Times {
		return false
	}
	if f.Skip > 0 {
		f.Skip--
		return false
	}
	if f.Probability > 0 && rand.Float64() >= f.Probability {
		return false
	}
	f.Hits++
	return true
}

func (f *Fault) delay(usual Duration) time.Duration {
	if f.Delay != 0 {
		return time.Duration(f.Delay)
	}
	return time.Duration(usual)
}

var deeds = []string{DoClose, DoHang, DoSlow, DoLost, DoReply, DoAnswer, DoDrop, DoStatus,
	DoAADSTS, DoHTML, DoBody, DoBig, DoDrip, DoRedirect, DoEdit,
	DoCut, DoEndless, DoLiteral, DoLie, DoUnreachable, DoTwice}

// isReadPoint says whether a point is one of IMAP or POP.
func isReadPoint(point string) bool {
	kind, at, below := strings.Cut(point, ".")
	switch kind {
	case "imap":
		return !below || at == "connect" || at == "greeting" || at == "push" || imapCommands[at] != nil
	case "pop":
		return !below || at == "connect" || at == "greeting" || popCommands[at] != nil
	}
	return false
}

var points = []string{
	"discovery", "jwks", "authorize", "adminconsent", "devicecode", "logout", "userinfo",
	"token", "token.refresh_token", "token.authorization_code", "token.client_credentials", "token.device_code",
	"graph", "graph.me", "graph.users", "graph.sendMail", "graph.createDraft", "graph.attach",
	"graph.createUploadSession", "graph.upload", "graph.send", "graph.find", "graph.get", "graph.delete",
	"graph.update", "graph.move", "graph.translate", "graph.createFolder", "graph.delta",
	"graph.subscribe", "graph.subscription", "graph.renew", "graph.unsubscribe", "notify",
	"smtp.connect", "smtp.greeting", "smtp.EHLO", "smtp.STARTTLS", "smtp.AUTH", "smtp.MAIL", "smtp.RCPT",
	"smtp.DATA", "smtp.dot", "smtp.BDAT", "smtp.RSET", "smtp.NOOP", "smtp.QUIT",
	"imap", "imap.connect", "imap.greeting", "imap.push", "imap.AUTHENTICATE", "imap.SELECT", "imap.LIST", "imap.FETCH",
	"imap.SEARCH", "imap.STORE", "imap.MOVE", "imap.EXPUNGE", "imap.IDLE",
	"pop", "pop.connect", "pop.greeting", "pop.AUTH", "pop.STAT", "pop.LIST", "pop.UIDL", "pop.RETR", "pop.DELE", "pop.QUIT",
}

// FaultNames lists the faults that have a name. Beside them, "aadsts-50173"
// and the like break the token endpoint with that error.
func FaultNames() []string { return slices.Sorted(maps.Keys(namedFaults)) }

func namedFault(name string) (Fault, bool) {
	if code, ok := strings.CutPrefix(name, "aadsts-"); ok {
		return Fault{Point: "token", Do: DoAADSTS, Code: code}, true
	}
	f, ok := namedFaults[name]
	return f, ok
}

var namedFaults = map[string]Fault{
	"token-down":           {Point: "token", Do: DoClose},
	"token-hang":           {Point: "token", Do: DoHang},
	"token-slow":           {Point: "token", Do: DoSlow},
	"token-html":           {Point: "token", Do: DoHTML, Status: 502},
	"token-html-200":       {Point: "token", Do: DoHTML, Status: 200},
	"token-500":            {Point: "token", Do: DoStatus, Status: 500, Code: "server_error"},
	"token-503":            {Point: "token", Do: DoStatus, Status: 503, Code: "temporarily_unavailable", RetryAfter: "30"},
	"token-429":            {Point: "token", Do: DoStatus, Status: 429, Code: "temporarily_unavailable", RetryAfter: "30"},
	"token-big":            {Point: "token", Do: DoBig, Bytes: 200 << 20},
	"token-drip":           {Point: "token", Do: DoDrip, Delay: Duration(time.Second)},
	"token-redirect":       {Point: "token", Do: DoRedirect, Status: 307, Location: "https://elsewhere.example/token"},
	"token-lost":           {Point: "token", Do: DoLost},
	"token-garbage":        {Point: "token", Do: DoBody, Status: 200, Body: `{"access_token":`},
	"token-no-token":       {Point: "token", Do: DoEdit, Edit: map[string]any{"access_token": nil}},
	"token-no-expiry":      {Point: "token", Do: DoEdit, Edit: map[string]any{"expires_in": nil, "ext_expires_in": nil}},
	"token-odd-type":       {Point: "token", Do: DoEdit, Edit: map[string]any{"token_type": "bEARER"}},
	"token-narrow":         {Point: "token", Do: DoEdit, Edit: map[string]any{"scope": "openid profile"}},
	"discovery-down":       {Point: "discovery", Do: DoClose},
	"discovery-400":        {Point: "discovery", Do: DoAADSTS, Code: "90002"},
	"discovery-issuer":     {Point: "discovery", Do: DoEdit, Edit: map[string]any{"issuer": "https://elsewhere.example/v2.0"}},
	"jwks-down":            {Point: "jwks", Do: DoClose},
	"jwks-empty":           {Point: "jwks", Do: DoBody, Status: 200, Body: `{"keys":[]}`},
	"graph-down":           {Point: "graph", Do: DoClose},
	"graph-429":            {Point: "graph", Do: DoStatus, Status: 429, Code: "ApplicationThrottled", Text: "Application is over its MailboxConcurrency limit.", RetryAfter: "10"},
	"graph-503":            {Point: "graph", Do: DoStatus, Status: 503, Code: "ServiceNotAvailable", Text: "The service is temporarily unavailable.", RetryAfter: "10"},
	"graph-500":            {Point: "graph", Do: DoStatus, Status: 500, Code: "ErrorInternalServerError", Text: "An internal server error occurred. The operation failed."},
	"graph-401":            {Point: "graph", Do: DoStatus, Status: 401, Code: "InvalidAuthenticationToken", Text: "Lifetime validation failed, the token is expired."},
	"graph-403":            {Point: "graph", Do: DoStatus, Status: 403, Code: "ErrorAccessDenied", Text: "Access is denied. Check credentials and try again."},
	"graph-lost":           {Point: "graph.sendMail", Do: DoLost},
	"graph-html":           {Point: "graph", Do: DoHTML, Status: 502},
	"graph-410":            {Point: "graph.delta", Do: DoStatus, Status: 410, Code: "syncStateNotFound", Text: syncStateGone().text},
	"graph-410-resync":     {Point: "graph.delta", Do: DoStatus, Status: 410, Code: "resyncRequired", Text: "Resync required. Replace any local items with the server's version."},
	"graph-404":            {Point: "graph.get", Do: DoStatus, Status: 404, Code: "ErrorItemNotFound", Text: itemNotFound().text},
	"graph-lost-move":      {Point: "graph.move", Do: DoLost},
	"graph-half":           {Point: "graph.get", Do: DoCut, Bytes: 200},
	"graph-notify-lost":    {Point: "notify", Do: DoLost},
	"graph-notify-twice":   {Point: "notify", Do: DoTwice},
	"graph-notify-slow":    {Point: "notify", Do: DoSlow},
	"graph-notify-foreign": {Point: "notify", Do: DoEdit, Edit: map[string]any{"clientState": "not-yours"}},
	"smtp-refuse":          {Point: "smtp.connect", Do: DoClose},
	"smtp-421":             {Point: "smtp.greeting", Do: DoReply, Text: "421 4.3.2 Service not available, closing transmission channel"},
	"smtp-greeting":        {Point: "smtp.greeting", Do: DoSlow},
	"smtp-stall-auth":      {Point: "smtp.AUTH", Do: DoSlow, Delay: Duration(30 * time.Second)},
	"smtp-auth-535":        {Point: "smtp.AUTH", Do: DoReply, Text: "535 5.7.3 Authentication unsuccessful [{host}]"},
	"smtp-auth-454":        {Point: "smtp.AUTH", Do: DoReply, Text: "454 4.7.0 Temporary authentication failure [{host}]"},
	"smtp-prx4":            {Point: "smtp.AUTH", Do: DoReply, Text: "451 4.7.0 Temporary server error. Please try again later. PRX4 [Hostname={HOST}]"},
	"smtp-conditional":     {Point: "smtp.AUTH", Do: DoReply, Text: reply5139Criteria},
	"smtp-expires-soon":    {Point: "smtp.AUTH", Do: DoReply, Text: "501 5.5.127 Invalid XOAUTH2 auth data - Token will expire soon"},
	"smtp-no-starttls":     {Point: "smtp.STARTTLS", Do: DoReply, Text: "454 4.7.0 TLS not available due to local problem"},
	"smtp-drop-body":       {Point: "smtp.DATA", Do: DoDrop, Bytes: 1024},
	"smtp-lost-dot":        {Point: "smtp.dot", Do: DoLost},
	"smtp-drop-dot":        {Point: "smtp.dot", Do: DoClose},
	"smtp-432":             {Point: "smtp.dot", Do: DoReply, Text: reply432},
	"smtp-432-queued":      {Point: "smtp.dot", Do: DoAnswer, Text: reply432},
	"smtp-quota":           {Point: "smtp.dot", Do: DoReply, Text: replyQuotaDay},
	"smtp-mailbox-full":    {Point: "smtp.dot", Do: DoReply, Text: replyMailboxFull},
	"smtp-5705":            {Point: "smtp.dot", Do: DoReply, Text: "550 5.7.705 Access denied, tenant has exceeded threshold. Please see https://go.microsoft.com/fwlink/?LinkId=526655 for more information. [{host}]"},
	"smtp-5708":            {Point: "smtp.dot", Do: DoReply, Text: "550 5.7.708 Access denied, traffic not accepted from this IP [{host}]"},
	"smtp-518":             {Point: "smtp.dot", Do: DoReply, Text: "550 5.1.8 Access denied, bad outbound sender [{host}]"},
	"smtp-47500":           {Point: "smtp.dot", Do: DoReply, Text: "451 4.7.500 Access denied, please try again later [{host}]"},
	"smtp-long-reply":      {Point: "smtp.EHLO", Do: DoReply, Text: "{10000 lines}"},
	"imap-refuse":          {Point: "imap.connect", Do: DoClose},
	"imap-dead":            {Point: "imap.greeting", Do: DoHang},
	"imap-greeting-bye":    {Point: "imap.greeting", Do: DoReply, Text: imapClosed},
	"imap-auth-failed":     {Point: "imap.AUTHENTICATE", Do: DoReply, Text: "{tag} NO AUTHENTICATE failed."},
	"imap-stall-auth":      {Point: "imap.AUTHENTICATE", Do: DoSlow, Delay: Duration(30 * time.Second)},
	"imap-not-connected":   {Point: "imap.AUTHENTICATE", Do: DoUnreachable},
	"imap-unavailable":     {Point: "imap.AUTHENTICATE", Do: DoReply, Text: imapUnavailable},
	"imap-unavailable-2":   {Point: "imap.AUTHENTICATE", Do: DoReply, Text: "{tag} NO [UNAVAILABLE] Server Unavailable. 15"},
	"imap-throttled":       {Point: "imap.SELECT", Do: DoReply, Text: imapThrottled},
	"imap-throttled-no":    {Point: "imap.FETCH", Do: DoReply, Text: strings.Replace(imapThrottled, "BAD", "NO", 1)},
	"imap-error-10":        {Point: "imap.FETCH", Do: DoReply, Text: imapExpired},
	"imap-error-12":        {Point: "imap.SELECT", Do: DoReply, Text: imapError},
	"imap-bye":             {Point: "imap.FETCH", Do: DoReply, Text: imapClosed},
	"imap-idle-bye":        {Point: "imap.push", Do: DoReply, Text: imapClosed},
	"imap-idle-half":       {Point: "imap.push", Do: DoCut, Bytes: 5},
	"imap-idle-drop":       {Point: "imap.push", Do: DoClose},
	"imap-idle-deaf":       {Point: "imap.push", Do: DoHang},
	"imap-hang":            {Point: "imap.FETCH", Do: DoHang},
	"imap-slow":            {Point: "imap.FETCH", Do: DoSlow},
	"imap-drip":            {Point: "imap.FETCH", Do: DoDrip, Delay: Duration(20 * time.Millisecond)},
	"imap-half":            {Point: "imap.FETCH", Do: DoCut, Bytes: 200},
	"imap-huge":            {Point: "imap.FETCH", Do: DoLiteral, Bytes: 2 << 30},
	"imap-endless":         {Point: "imap.FETCH", Do: DoEndless},
	"imap-drop":            {Point: "imap.FETCH", Do: DoClose},
	"imap-lost-store":      {Point: "imap.STORE", Do: DoLost},
	"imap-lost-move":       {Point: "imap.MOVE", Do: DoLost},
	"imap-uidvalidity":     {Point: "imap.SELECT", Do: DoLie, Text: "uidvalidity"},
	"imap-uidnext":         {Point: "imap.SELECT", Do: DoLie, Text: "uidnext"},
	"imap-exists":          {Point: "imap.SELECT", Do: DoLie, Text: "exists"},
	"imap-uid-same":        {Point: "imap.FETCH", Do: DoLie, Text: "uid-same"},
	"imap-uid-zero":        {Point: "imap.FETCH", Do: DoLie, Text: "uid-zero"},
	"imap-uid-huge":        {Point: "imap.FETCH", Do: DoLie, Text: "uid-huge"},
	"imap-uid-backwards":   {Point: "imap.FETCH", Do: DoLie, Text: "uid-backwards"},
	"imap-uid-unasked":     {Point: "imap.FETCH", Do: DoLie, Text: "uid-unasked"},
	"imap-size":            {Point: "imap.FETCH", Do: DoLie, Text: "size"},
	"imap-structure":       {Point: "imap.FETCH", Do: DoLie, Text: "structure"},
	"imap-copyuid":         {Point: "imap.MOVE", Do: DoLie, Text: "copyuid"},
	"imap-unquoted":        {Point: "imap.LIST", Do: DoLie, Text: "unquoted"},
	"pop-refuse":           {Point: "pop.connect", Do: DoClose},
	"pop-dead":             {Point: "pop.greeting", Do: DoHang},
	"pop-auth-failed":      {Point: "pop.AUTH", Do: DoReply, Text: popRefused},
	"pop-stall-auth":       {Point: "pop.AUTH", Do: DoSlow, Delay: Duration(30 * time.Second)},
	"pop-in-use":           {Point: "pop.AUTH", Do: DoReply, Text: "-ERR [IN-USE] The mailbox is locked by another session."},
	"pop-unavailable":      {Point: "pop.AUTH", Do: DoReply, Text: "-ERR [SYS/TEMP] Server Unavailable. 15"},
	"pop-throttled":        {Point: "pop.AUTH", Do: DoReply, Text: popThrottled},
	"pop-closed":           {Point: "pop.RETR", Do: DoReply, Text: popClosed},
	"pop-drop":             {Point: "pop.RETR", Do: DoClose},
	"pop-half":             {Point: "pop.RETR", Do: DoCut, Bytes: 200},
	"pop-drip":             {Point: "pop.RETR", Do: DoDrip, Delay: Duration(20 * time.Millisecond)},
	"pop-endless":          {Point: "pop.RETR", Do: DoEndless},
	"pop-hang":             {Point: "pop.RETR", Do: DoHang},
	"pop-drop-quit":        {Point: "pop.QUIT", Do: DoClose},
	"pop-lost-quit":        {Point: "pop.QUIT", Do: DoLost},
	"pop-size":             {Point: "pop.LIST", Do: DoLie, Text: "size"},
	"pop-uidl-same":        {Point: "pop.UIDL", Do: DoLie, Text: "uidl-same"},
	"pop-uidl-fresh":       {Point: "pop.UIDL", Do: DoLie, Text: "uidl-fresh"},
	"smtp-odd-code":        {Point: "smtp.dot", Do: DoReply, Text: "999 \x1b[31mwhat is this\x1b[0m"},
}
