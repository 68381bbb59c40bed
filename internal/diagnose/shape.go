package diagnose

import "strings"

// matchShape reads the form of the text: a success, a greeting, a page.
func (e *evidence) matchShape() {
	if e.html && e.is("oauth", "graph", "oidc", "network") {
		e.hit("?page", 2, 0, 0)
	}
	if e.http == 429 {
		e.hit("?throttled", 4, 0, 0)
	}
	if e.http == 502 || e.http == 503 || e.http == 504 {
		if !e.is("smtp", "imap", "pop") {
			e.hit("provider-outage", 3, 0, 0)
		}
	}
	if e.ordinary() {
		e.hit("not-an-error", 8, 200, 0)
	}
}

// ordinary reports a text in which every line that a server sent is a success, a
// greeting or a prompt.
func (e *evidence) ordinary() bool {
	fine := false
	for line := range strings.Lines(e.text) {
		switch kindOf(line) {
		case bad:
			return false
		case good:
			fine = true
		}
	}
	return fine && !e.says("error", "fail", "exception", "denied", "refused", "invalid", "expired", "status4", "unsuccessful", "throttl", "reject", "unavailable", "notconnected", "toomany", "mismatch", "missing")
}

// refused reports a dialogue in which some line of the server is a refusal.
func (e *evidence) refused() bool {
	for line := range strings.Lines(e.text) {
		if kindOf(line) == bad {
			return true
		}
	}
	return e.reply() >= 400
}

const (
	neither = iota
	good
	bad
)

// fromServer and fromClient are how logs mark the two sides of a dialogue.
var (
	fromServer = []string{" S: ", "<= ", " << ", "<<< ", " <- "}
	fromClient = []string{"C: ", "=> ", ">>> ", " -> EHLO", " -> AUTH"}
)

// kindOf reads one line of a dialogue.
func kindOf(line string) int {
	for _, mark := range fromServer {
		if i := strings.Index(line, mark); i >= 0 {
			line = line[i+len(mark):]
		}
	}
	for _, mark := range fromClient {
		if i := strings.Index(line, mark); i >= 0 && (strings.TrimSpace(line[:i]) == "" || strings.HasSuffix(line[:i], "] ")) {
			return good
		}
	}
	s := strings.TrimLeft(line, " \t<=>-'\"`SC:[]|b")
	if strings.HasPrefix(s, "* ") || strings.HasPrefix(s, "+OK") || strings.HasPrefix(s, "-ERR") {
		return untagged(s)
	}
	if s == "+" || strings.HasPrefix(s, "+ ") && len(s) < 200 {
		return good
	}
	if n, size := number(s); size == 3 && (len(s) == 3 || s[3] == ' ' || s[3] == '-' || s[3] == '\n') {
		switch {
		case n >= 200 && n < 260, n == 334 || n == 354:
			return good
		case n >= 400 && n < 600:
			return bad
		}
		return neither
	}
	tag, rest, _ := strings.Cut(s, " ")
	if len(tag) <= 10 && tag != "" && !strings.ContainsAny(tag, ":,.(") {
		switch {
		case strings.HasPrefix(rest, "OK"):
			return good
		case strings.HasPrefix(rest, "NO "), strings.HasPrefix(rest, "BAD "):
			return bad
		}
	}
	return neither
}

// farewell reports a goodbye that answers ours.
func farewell(s string) bool {
	return anyOf(s, "signing off", "logging out", "logout") && !anyOf(s, "time", "idle", "inactiv", "shut", "expired")
}

func untagged(s string) int {
	switch {
	case strings.HasPrefix(s, "+OK"), strings.HasPrefix(s, "* OK"), strings.HasPrefix(s, "* PREAUTH"),
		strings.HasPrefix(s, "* CAPABILITY"), strings.HasPrefix(s, "* BYE") && farewell(strings.ToLower(s)),
		strings.HasPrefix(s, "* LIST"), strings.HasPrefix(s, "* FLAGS"), strings.HasPrefix(s, "* ID"), strings.HasPrefix(s, "* SEARCH"),
		strings.HasPrefix(s, "* STATUS"), strings.HasPrefix(s, "* NAMESPACE"), strings.HasPrefix(s, "* ENABLED"), strings.HasPrefix(s, "* QUOTA"), strings.HasPrefix(s, "* LSUB"):
		return good
	case strings.HasPrefix(s, "-ERR"), strings.HasPrefix(s, "* NO"), strings.HasPrefix(s, "* BAD"), strings.HasPrefix(s, "* BYE"):
		return bad
	case len(s) > 3 && digit(s[2]) && (strings.Contains(s, " EXISTS") || strings.Contains(s, " RECENT") || strings.Contains(s, " FETCH")):
		return good
	}
	return neither
}
