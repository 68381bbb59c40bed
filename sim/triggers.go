package sim

import (
	"strconv"
	"strings"
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
		"too many at once: try later"},
	{"tempfail", Fault{Point: "smtp.RCPT", Do: DoReply, Text: replyTempFail},
		Fault{Do: DoStatus, Status: 503, Code: "ServiceNotAvailable", Text: "The service is temporarily unavailable.", RetryAfter: "10"},
		"a passing failure"},
	{"busy", Fault{Point: "smtp.dot", Do: DoReply, Text: replyThreads},
		Fault{Do: DoStatus, Status: 429, Code: "TooManyRequests", Text: "Too many requests."},
		"recipient-side throttling, without Retry-After"},
	{"mailboxfull", Fault{Point: "smtp.dot", Do: DoReply, Text: replyMailboxFull},
		Fault{Do: DoStatus, Status: 507, Code: "ErrorQuotaExceeded", Text: "The process failed to get the correct properties. The mailbox is over its quota."},
		"the sending mailbox is over its quota"},
	{"quota", Fault{Point: "smtp.dot", Do: DoReply, Text: replyQuotaDay},
		Fault{Do: DoStatus, Status: 429, Code: "ErrorSubmissionQuotaExceeded", Text: graphQuotaText, RetryAfter: "3600"},
		"the recipients of the day are used up"},
	{"sendasdenied", Fault{Point: "smtp.dot", Do: DoReply, Text: replySendAs},
		Fault{Do: DoStatus, Status: 403, Code: "ErrorSendAsDenied", Text: graphSendAsText},
		"no right to send as this sender"},
	{"toolarge", Fault{Point: "smtp.dot", Do: DoReply, Text: strings.Replace(replyOversize, "{code}", "552 5.3.4", 1)},
		Fault{Do: DoStatus, Status: 400, Code: "ErrorMessageSizeExceeded", Text: graphSizeText},
		"the message is too large"},
	{"unknown", Fault{Point: "smtp.RCPT", Do: DoReply, Text: replyUnknownUser},
		Fault{Do: DoStatus, Status: 400, Code: "ErrorInvalidRecipients", Text: graphRecipientsText},
		"no such recipient"},
	{"blocked", Fault{Point: "smtp.dot", Do: DoReply, Text: "550 5.7.705 Access denied, tenant has exceeded threshold [{host}]"},
		Fault{Do: DoStatus, Status: 403, Code: "ErrorMessageSubmissionBlocked", Text: "Access denied, tenant has exceeded threshold."},
		"the tenant may not send any more"},
	{"badsender", Fault{Point: "smtp.MAIL", Do: DoReply, Text: "550 5.1.8 Access denied, bad outbound sender [{host}]"},
		Fault{Do: DoStatus, Status: 403, Code: "ErrorMessageSubmissionBlocked", Text: "Access denied, bad outbound sender."},
		"this sender is blocked for spam (senders only)"},
	{"penalty", Fault{Point: "smtp.dot", Do: DoReply, Text: "550 5.2.252 Sender throttled due to continuous send as denied errors."},
		Fault{Do: DoStatus, Status: 403, Code: "ErrorSendAsDenied", Text: graphSendAsText},
		"punished for repeated faults"},
	{"dropdot", Fault{Point: "smtp.dot", Do: DoLost},
		Fault{Do: DoLost},
		"taken and delivered, but the answer is lost"},
	{"drop", Fault{Point: "smtp.dot", Do: DoClose},
		Fault{Do: DoClose},
		"not taken; the connection ends without an answer"},
	{"queued432", Fault{Point: "smtp.dot", Do: DoAnswer, Text: reply432},
		Fault{Do: DoEdit, Status: 503, Edit: map[string]any{}},
		"taken and delivered, but the answer says try later"},
	{"slow", Fault{Point: "smtp.dot", Do: DoSlow},
		Fault{Do: DoSlow},
		"answered after the knob slow_by"},
	{"hang", Fault{Point: "smtp.dot", Do: DoHang},
		Fault{Do: DoHang},
		"never answered"},
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
	return fs.triggered(addresses, "graph", func(t *trigger) *Fault { return &t.graph })
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
