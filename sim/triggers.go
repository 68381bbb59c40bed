package sim

import (
	"strconv"
	"strings"
	"time"
)

// A trigger is a word behind the plus of an address, as in
// alex+throttled@contoso.example, that makes mail from or to it go wrong. With
// a number, as in alex+throttled2@, it does so that many times for this very
// address, and then lets mail through.
type trigger struct {
	word  string
	smtp  Fault
	graph Fault
	says  string
	imap  Fault
	pop   Fault
}

// Triggers says what each word behind the plus of an address does.
func Triggers() map[string]string {
	all := map[string]string{}
	for _, t := range triggers {
		all[t.word] = t.says
	}
	return all
}

// triggers is the table of all such words. docs/sim.md has the same.
var triggers = []trigger{
	{"throttled", Fault{Point: "smtp.dot", Do: DoReply, Text: reply432},
		Fault{Do: DoStatus, Status: 429, Code: "ApplicationThrottled", Text: "Application is over its MailboxConcurrency limit.", RetryAfter: "10"},
		"too many at once: try later",
		Fault{Point: "imap.SELECT", Do: DoReply, Text: imapThrottled}, Fault{Point: "pop.AUTH", Do: DoReply, Text: popThrottled}},
	{"tempfail", Fault{Point: "smtp.RCPT", Do: DoReply, Text: replyTempFail},
		Fault{Do: DoStatus, Status: 503, Code: "ServiceNotAvailable", Text: "The service is temporarily unavailable.", RetryAfter: "10"},
		"a passing failure",
		Fault{Point: "imap.AUTHENTICATE", Do: DoReply, Text: imapUnavailable}, Fault{Point: "pop.AUTH", Do: DoReply, Text: "-ERR [SYS/TEMP] Server Unavailable. 15"}},
	{"busy", Fault{Point: "smtp.dot", Do: DoReply, Text: replyThreads},
		Fault{Do: DoStatus, Status: 429, Code: "TooManyRequests", Text: "Too many requests."},
		"recipient-side throttling, without Retry-After", Fault{}, Fault{}},
	{"mailboxfull", Fault{Point: "smtp.dot", Do: DoReply, Text: replyMailboxFull},
		Fault{Do: DoStatus, Status: 507, Code: "ErrorQuotaExceeded", Text: "The process failed to get the correct properties. The mailbox is over its quota."},
		"the sending mailbox is over its quota", Fault{}, Fault{}},
	{"quota", Fault{Point: "smtp.dot", Do: DoReply, Text: replyQuotaDay},
		Fault{Do: DoStatus, Status: 429, Code: "ErrorSubmissionQuotaExceeded", Text: graphQuotaText, RetryAfter: "3600"},
		"the recipients of the day are used up", Fault{}, Fault{}},
	{"sendasdenied", Fault{Point: "smtp.dot", Do: DoReply, Text: replySendAs},
		Fault{Do: DoStatus, Status: 403, Code: "ErrorSendAsDenied", Text: graphSendAsText},
		"no right to send as this sender", Fault{}, Fault{}},
	{"toolarge", Fault{Point: "smtp.dot", Do: DoReply, Text: strings.Replace(replyOversize, "{code}", "552 5.3.4", 1)},
		Fault{Do: DoStatus, Status: 400, Code: "ErrorMessageSizeExceeded", Text: graphSizeText},
		"the message is too large", Fault{}, Fault{}},
	{"unknown", Fault{Point: "smtp.RCPT", Do: DoReply, Text: replyUnknownUser},
		Fault{Do: DoStatus, Status: 400, Code: "ErrorInvalidRecipients", Text: graphRecipientsText},
		"no such recipient", Fault{}, Fault{}},
	{"blocked", Fault{Point: "smtp.dot", Do: DoReply, Text: "550 5.7.705 Access denied, tenant has exceeded threshold [{host}]"},
		Fault{Do: DoStatus, Status: 403, Code: "ErrorMessageSubmissionBlocked", Text: "Access denied, tenant has exceeded threshold."},
		"the tenant may not send any more", Fault{}, Fault{}},
	{"badsender", Fault{Point: "smtp.MAIL", Do: DoReply, Text: "550 5.1.8 Access denied, bad outbound sender [{host}]"},
		Fault{Do: DoStatus, Status: 403, Code: "ErrorMessageSubmissionBlocked", Text: "Access denied, bad outbound sender."},
		"this sender is blocked for spam (senders only)", Fault{}, Fault{}},
	{"penalty", Fault{Point: "smtp.dot", Do: DoReply, Text: "550 5.2.252 Sender throttled due to continuous send as denied errors."},
		Fault{Do: DoStatus, Status: 403, Code: "ErrorSendAsDenied", Text: graphSendAsText},
		"punished for repeated faults", Fault{}, Fault{}},
	{"dropdot", Fault{Point: "smtp.dot", Do: DoLost},
		Fault{Do: DoLost},
		"taken and delivered, but the answer is lost",
		Fault{Point: "imap.STORE", Do: DoLost}, Fault{Point: "pop.QUIT", Do: DoLost}},
	{"drop", Fault{Point: "smtp.dot", Do: DoClose},
		Fault{Do: DoClose},
		"not taken; the connection ends without an answer",
		Fault{Point: "imap.FETCH", Do: DoClose}, Fault{Point: "pop.RETR", Do: DoClose}},
	{"queued432", Fault{Point: "smtp.dot", Do: DoAnswer, Text: reply432},
		Fault{Do: DoEdit, Status: 503, Edit: map[string]any{}},
		"taken and delivered, but the answer says try later", Fault{}, Fault{}},
	{"slow", Fault{Point: "smtp.dot", Do: DoSlow},
		Fault{Do: DoSlow},
		"answered after the knob slow_by",
		Fault{Point: "imap.FETCH", Do: DoSlow}, Fault{Point: "pop.RETR", Do: DoSlow}},
	{"hang", Fault{Point: "smtp.dot", Do: DoHang},
		Fault{Do: DoHang},
		"never answered",
		Fault{Point: "imap.SELECT", Do: DoHang}, Fault{Point: "pop.STAT", Do: DoHang}},
	{"stallauth", Fault{}, Fault{}, "the login is answered after 30 seconds",
		Fault{Point: "imap.AUTHENTICATE", Do: DoSlow, Delay: Duration(30 * time.Second)}, Fault{Point: "pop.AUTH", Do: DoSlow, Delay: Duration(30 * time.Second)}},
	{"notconnected", Fault{}, Fault{}, "the login is good, the mailbox out of reach",
		Fault{Point: "imap.AUTHENTICATE", Do: DoUnreachable}, Fault{Point: "pop.AUTH", Do: DoUnreachable}},
	{"bye", Fault{}, Fault{}, "the service ends the session",
		Fault{Point: "imap.IDLE", Do: DoReply, Text: imapClosed}, Fault{Point: "pop.RETR", Do: DoReply, Text: popClosed}},
	{"deaf", Fault{}, Fault{}, "IDLE never tells of anything",
		Fault{Point: "imap.push", Do: DoHang}, Fault{}},
	{"drip", Fault{}, Fault{}, "one byte in 20 milliseconds",
		Fault{Point: "imap.FETCH", Do: DoDrip, Delay: Duration(20 * time.Millisecond)}, Fault{Point: "pop.RETR", Do: DoDrip, Delay: Duration(20 * time.Millisecond)}},
	{"half", Fault{}, Fault{}, "the connection ends in the middle of a message",
		Fault{Point: "imap.FETCH", Do: DoCut, Bytes: 200}, Fault{Point: "pop.RETR", Do: DoCut, Bytes: 200}},
	{"huge", Fault{}, Fault{}, "a literal of 2 GB is announced, and does not come",
		Fault{Point: "imap.FETCH", Do: DoLiteral, Bytes: 2 << 30}, Fault{}},
	{"endless", Fault{}, Fault{}, "a line that never ends",
		Fault{Point: "imap.FETCH", Do: DoEndless}, Fault{Point: "pop.RETR", Do: DoEndless}},
	{"renumbered", Fault{}, Fault{}, "each SELECT tells another UIDVALIDITY",
		Fault{Point: "imap.SELECT", Do: DoLie, Text: "uidvalidity"}, Fault{Point: "pop.UIDL", Do: DoLie, Text: "uidl-fresh"}},
	{"liar", Fault{}, Fault{}, "all messages have the same UID",
		Fault{Point: "imap.FETCH", Do: DoLie, Text: "uid-same"}, Fault{Point: "pop.UIDL", Do: DoLie, Text: "uidl-same"}},
}

// smtpTrigger and graphTrigger find the trigger in one of some addresses.
func (fs *faults) smtpTrigger(point string, addresses ...string) *Fault {
	return fs.triggered(addresses, "smtp", func(t *trigger) *Fault {
		if t.smtp.Point != point && !(point == "smtp.MAIL" && t.smtp.Point == "smtp.RCPT") {
			return nil
		}
		return &t.smtp
	})
}

func (fs *faults) graphTrigger(addresses ...string) *Fault {
	return fs.triggered(addresses, "graph", func(t *trigger) *Fault {
		if t.graph.Do == "" {
			return nil
		}
		return &t.graph
	})
}

// readTrigger finds the trigger of a point of IMAP or POP in the address that a
// session logged in to.
func (fs *faults) readTrigger(point, address string) *Fault {
	return fs.triggered([]string{address}, point, func(t *trigger) *Fault {
		switch point {
		case t.imap.Point:
			return &t.imap
		case t.pop.Point:
			return &t.pop
		}
		return nil
	})
}

func (fs *faults) triggered(addresses []string, way string, pick func(*trigger) *Fault) *Fault {
	for _, a := range addresses {
		t, times := triggerOf(a)
		if t == nil {
			continue
		}
		f := pick(t)
		if f == nil || !fs.again(way+" "+strings.ToLower(a), times) {
			continue
		}
		fs.sim.counts.add("trigger." + t.word)
		hit := *f
		return &hit
	}
	return nil
}

// triggerOf takes an address apart: alex+throttled2@ is the trigger
// "throttled", twice. Without a number it is every time.
func triggerOf(address string) (t *trigger, times int) {
	local, _, _ := strings.Cut(strings.ToLower(address), "@")
	_, tag, ok := strings.Cut(local, "+")
	if !ok {
		return nil, 0
	}
	for i := range triggers {
		rest, ok := strings.CutPrefix(tag, triggers[i].word)
		if !ok {
			continue
		}
		n, err := strconv.Atoi(rest)
		if rest == "" || err == nil && n > 0 {
			return &triggers[i], n
		}
	}
	return nil, 0
}

// again counts the tries of an address that has a number.
func (fs *faults) again(key string, times int) bool {
	if times == 0 {
		return true
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.seen[key]++
	return fs.seen[key] <= times
}
