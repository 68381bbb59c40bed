// Package diagnose turns what a provider or server said into what it means.
//
// Explain reads one failure in four passes, each weaker than the one before:
//
//	codes    AADSTS numbers, OAuth errors, enhanced status codes, Graph codes
//	shape    JSON in text, a decoded 334 challenge, an HTML page, a bounce
//	words    thousands of short signs, matched without regard to case,
//	         quoting, line breaks or the library that wrapped them
//	facts    where the words cannot decide, what is known of this case: the
//	         token's audience and scopes, who signed in, what worked before
//
// Every pass leaves hits with a rank; the highest rank wins. A hit names a cause
// or a question, and a question is a function over the facts. What nobody knows
// is said to be unknown, with the raw text beside it.
//
// The package reads nothing and writes nothing while it runs. Its causes and
// signs are data, in catalogue/ and signs/, embedded and read at first use.
package diagnose

import (
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
)

// Unknown is the id of the finding for a failure nobody recognises.
const Unknown = "unknown"

// A Failure is what is known of one failure. Everything in it is optional.
type Failure struct {
	Text     string         // what the other side said, as it came
	Protocol string         // oauth, smtp, imap, pop, graph, oidc, network; "" when not known
	Context  map[string]any // facts, see facts.go; an absent key means not known

	Code       string // the OAuth "error" or the Graph "error.code"
	SubError   string // the OAuth "suberror"
	ErrorCodes []int  // AADSTS numbers
	HTTPStatus int
	SMTPCode   int
	Enhanced   string        // "5.7.139"
	RetryAfter time.Duration // what a Retry-After header said
	Err        error         // net, tls, x509 and context errors are known by type
}

// Explain says what a failure is, who can mend it, and what becomes of the work.
// It never fails: a failure it does not know has the cause "unknown".
func Explain(f Failure) mailgrant.Finding {
	e := gather(f)
	v := e.verdict()
	c, ok := Lookup(v.cause)
	if !ok {
		c, _ = Lookup(Unknown)
		v.confidence = 0
	}
	return c.finding(e, v)
}

// A verdict is a cause and how sure we are of it.
type verdict struct {
	cause      string
	confidence float64
}

// confidenceOf says how far a hit of each rank is to be trusted. The ranks are
// those of signs/: 9 is a code that has one meaning, 1 a mere hint.
var confidenceOf = [...]float64{0.1, 0.3, 0.45, 0.6, 0.75, 0.85, 0.92, 0.95, 0.97, 0.98}

// cannot rules out what a protocol or a reply cannot mean, whatever the words.
func (e *evidence) cannot(h hit) bool {
	if farAway[h.cause] && e.bounced() && e.clearer() {
		return true
	}
	switch h.cause {
	case "not-an-error":
		return h.rank < 7 && e.refused() && e.facts.str("kind") == ""
	case "recipient-rejected", "recipient-domain-unreachable", "message-invalid", "sender-domain-unauthenticated":
		reply := e.reply()
		return e.is("imap", "pop", "oauth", "oidc") || reply == 534 || reply == 535
	case "daily-recipient-limit", "message-too-large", "mailbox-full", "spam-blocked-sender", "ip-reputation-blocked",
		"smtp-auth-disabled-mailbox", "smtp-auth-disabled-tenant", "smtp-auth-not-attempted", "imap-pop-disabled-mailbox",
		"client-identification-required", "?relay", "?full", "?send-as", "?421", "?452", "?552", "?553", "?policy":
		return e.is("oauth", "oidc")
	}
	return false
}

// clearer reports a strong hit that is more than a trouble of some connection.
func (e *evidence) clearer() bool {
	for _, h := range e.hits {
		if h.rank >= 7 && !farAway[h.cause] && h.cause != "not-an-error" && h.cause != "provider-outage" {
			return true
		}
	}
	return false
}

// verdict takes the best hit, and answers its question when it is one. A
// question without an answer leaves the word to the next hit.
func (e *evidence) verdict() verdict {
	for _, h := range e.ranked() {
		if e.cannot(h) {
			continue
		}
		if !strings.HasPrefix(h.cause, "?") {
			return e.settle(verdict{h.cause, confidenceOf[h.rank]})
		}
		answer, known := questions[h.cause]
		if !known {
			continue
		}
		if v := answer(e); v.cause != "" {
			v.confidence = min(v.confidence, confidenceOf[h.rank])
			return e.settle(v)
		}
	}
	return e.settle(e.guess())
}

// Seen is the finding of a cause that we saw with our own eyes, and nobody said.
func Seen(cause string, f Failure) mailgrant.Finding {
	c, ok := Lookup(cause)
	if !ok {
		c, _ = Lookup(Unknown)
	}
	return c.finding(gather(f), verdict{cause: c.ID, confidence: 1})
}
