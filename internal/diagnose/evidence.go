package diagnose

import (
	"sort"
	"strings"
	"time"
)

// evidence is all that can be read from one failure.
type evidence struct {
	failure  Failure
	facts    facts
	protocol string // as given, or else as the facts and the text let guess

	text     string  // unescaped, decoded, any case
	low      string  // text in lower case
	words    string  // text squeezed: letters and digits only, lower case
	marks    []where // what is known of every byte of words
	html     bool    // a page came where data was expected
	aad      []int   // AADSTS numbers, in order
	smtp     []int   // three-digit replies
	enhanced []string
	http     int
	wait     time.Duration

	hits []hit
}

// A hit is one sign found.
type hit struct {
	cause string // an id, or a question when it begins with "?"
	rank  int
	size  int // length of the sign: the longer says more
	at    int
}

// gather reads the failure once and collects every hit.
func gather(f Failure) *evidence {
	e := &evidence{failure: f, facts: factsOf(f)}
	e.failure.Protocol = protocolOf(f.Protocol, e.facts.step())
	e.protocol = e.failure.Protocol
	e.text, e.html = plain(whole(f))
	e.text = serverSaid(e.text)
	e.low = strings.ToLower(e.text)
	e.words, e.marks = squeeze(e.text)
	e.scan()
	if e.protocol == "" {
		e.protocol = e.likelyProtocol()
	}
	e.wait = waitOf(f, e.low)
	e.matchError(f.Err)
	e.matchCodes()
	e.matchSigns()
	e.matchShape()
	return e
}

// protocolOf brings other names of a protocol to ours. A door that passes on what
// Graph said is not the one that failed.
func protocolOf(name, step string) string {
	name = strings.ToLower(strings.TrimSpace(name))
	if strings.HasPrefix(step, "graph-") {
		return "graph"
	}
	switch name {
	case "pop3", "pops", "pop3s":
		return "pop"
	case "imaps", "imap4":
		return "imap"
	case "smtps", "submission", "submissions", "lmtp":
		return "smtp"
	case "gmail", "ews", "http", "https", "api", "rest":
		return "graph"
	case "openid", "openid-connect", "saml":
		return "oidc"
	case "oauth2", "token":
		return "oauth"
	case "tcp", "tls", "dns":
		return "network"
	}
	return name
}

// likelyProtocol guesses what was spoken, for a text somebody pasted.
func (e *evidence) likelyProtocol() string {
	x := e.facts
	step, host := x.step(), strings.ToLower(x.str("host", "server"))
	for _, p := range []string{"smtp", "imap", "pop"} {
		if strings.HasPrefix(step, p) || strings.HasPrefix(host, p) {
			return p
		}
	}
	switch x.str("port") {
	case "25", "465", "587":
		return "smtp"
	case "143", "993":
		return "imap"
	case "110", "995":
		return "pop"
	}
	switch {
	case len(e.aad) > 0, e.says("invalidgrant", "invalidclient", "unauthorizedclient", "oauth2v20token"):
		return "oauth"
	case len(e.enhanced) > 0, e.says("smtpautherror", "smtpserver"):
		return "smtp"
	case strings.HasPrefix(e.text, "-ERR "), e.says("poplib"):
		return "pop"
	case e.says("authenticatefailed", "imaplib", "authenticatedbutnotconnected", "imap4"), strings.Contains(e.text, "* BYE"), strings.Contains(e.text, " NO ["):
		return "imap"
	case strings.Contains(e.low, "graph.microsoft.com"), e.says("erroraccessdenied", "invalidauthenticationtoken"):
		return "graph"
	}
	return ""
}

// whole puts the parts a caller had already taken out back beside the text, so
// that signs see them too.
func whole(f Failure) string {
	text := f.Text
	if text == "" && f.Err != nil {
		text = f.Err.Error()
	}
	if len(text) > maxText {
		text = text[:maxText*3/4] + "\n" + text[len(text)-maxText/4:]
	}
	for _, more := range []string{f.Code, f.SubError, f.Enhanced} {
		if more != "" && !strings.Contains(text, more) {
			text += "\n" + more
		}
	}
	return text
}

// serverSaid drops what .NET puts in front of the server's own words: its name of
// the reply code, which for most replies is another than the server meant.
func serverSaid(s string) string {
	const mark = "the server response was:"
	i := strings.Index(strings.ToLower(s), mark)
	if i > len(s) { // a letter that is longer when small
		return s
	}
	if i < 0 || len(strings.TrimSpace(s[min(len(s), i+len(mark)):])) < 6 {
		return s
	}
	before := strings.TrimRight(s[:i], " \n")
	from := max(strings.LastIndexByte(before, '\n')+1, strings.LastIndex(before, ": ")+1)
	return s[:from] + " " + s[i+len(mark):]
}

// maxText bounds the work; a reply is short, a bounce with its message is not.
const maxText = 12 << 10

func (e *evidence) hit(cause string, rank, size, at int) {
	e.hits = append(e.hits, hit{cause, rank, size, at})
}

// ranked puts the best hit first: by rank, then by the longer sign, then by the
// earlier place.
func (e *evidence) ranked() []hit {
	sort.SliceStable(e.hits, func(i, j int) bool {
		a, b := e.hits[i], e.hits[j]
		if a.rank != b.rank {
			return a.rank > b.rank
		}
		if a.size != b.size {
			return a.size > b.size
		}
		return a.at < b.at
	})
	return e.hits
}

// says reports whether the squeezed text holds any of the squeezed phrases.
func (e *evidence) says(phrases ...string) bool {
	for _, p := range phrases {
		if strings.Contains(e.words, p) {
			return true
		}
	}
	return false
}

// is reports whether the protocol is one of these.
func (e *evidence) is(protocols ...string) bool {
	for _, p := range protocols {
		if e.protocol == p {
			return true
		}
	}
	return false
}
