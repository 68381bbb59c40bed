package rfc5322

import (
	"bytes"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/mailgrant/mailgrant"
)

const (
	maxBounced    = 500  // recipients of one report: no message of ours has more
	maxDiagnostic = 1000 // bytes

	qmailBegins = "Hi. This is the "
	eximBegins  = "This message was created automatically by mail delivery software"
)

// A bouncing collects what a report says of a message that came back.
type bouncing struct {
	b *mailgrant.Bounce

	line    []byte // a field, with the lines that continue it
	at      mailgrant.BounceRecipient
	final   string
	info    string // where old Exchange has the other side's words
	has     bool   // the group names a recipient
	lineEnd bool
}

// reports says whether a part holds the fields of a delivery report: one within a
// report, or of what is the message itself. What is forwarded deeper is somebody
// else's.
func reports(e *entity) bool {
	switch e.kind {
	case "message/delivery-status", "message/global-delivery-status", "message/report":
		return e.up != nil && (e.up.kind == "multipart/report" || e.depth == 1)
	}
	return false
}

func returned(e *entity) bool {
	switch e.kind {
	case "message/rfc822", "message/global", "text/rfc822-headers", "message/rfc822-headers", "message/global-headers":
		return e.up != nil && (e.up.kind == "multipart/report" || e.depth == 1)
	}
	return false
}

func (d *bouncing) begin() {
	if d.b == nil {
		d.b = &mailgrant.Bounce{}
	}
	d.line, d.lineEnd = d.line[:0], true
}

// add takes the fields as they come. RFC 3464 section 2.1.
func (d *bouncing) add(p []byte) {
	for len(p) > 0 {
		n := lineLen(p)
		l := p[:n]
		p = p[n:]
		if d.lineEnd && l[0] != ' ' && l[0] != '\t' {
			d.field()
			if empty(l) {
				d.recipient()
			}
		}
		d.line = append(d.line, l[:min(len(l), 4*maxDiagnostic-len(d.line))]...)
		d.lineEnd = l[len(l)-1] == '\n'
	}
}

func (d *bouncing) end() {
	d.field()
	d.recipient()
}

// field takes the field that is over.
func (d *bouncing) field() {
	f := d.line
	d.line = d.line[:0]
	name, raw, ok := cutName(f)
	if !ok {
		return
	}
	v := headerText(raw, "")
	switch strings.ToLower(string(name)) {
	case "x-mailgrant-submission":
		d.submission(v)
	case "original-recipient":
		d.startsWith(&d.at.Address)
		d.at.Address = reported(v)
	case "final-recipient":
		d.startsWith(&d.final)
		d.final = reported(v)
	case "action":
		w, _ := cutAny(strings.TrimSpace(strings.ToLower(v)), " \t;(")
		switch w {
		case "failed", "delayed", "delivered", "relayed", "expanded":
			d.at.Action = w
		}
	case "status":
		d.at.Status = statusIn(v)
	case "diagnostic-code":
		d.at.Diagnostic = diagnostic(v)
	case "x-supplementary-info":
		d.info = clean(decodeWords(v), maxDiagnostic)
	}
}

// startsWith begins a new group where the empty line before it is missing.
func (d *bouncing) startsWith(is *string) {
	if *is != "" {
		d.recipient()
	}
	d.has = true
}

// recipient ends a group. The address that our message was sent to counts, not
// the one it was sent on to.
func (d *bouncing) recipient() {
	r := d.at
	r.Address = first(r.Address, d.final)
	if r.Diagnostic == "" {
		r.Diagnostic = d.info
	}
	if r.Status == "" {
		r.Status = statusIn(r.Diagnostic)
	}
	if has := d.has; has && r.Address != "" && len(d.b.Recipients) < maxBounced {
		if r.Action == "" {
			r.Action = actionOf(r.Status)
		}
		d.b.Recipients = append(d.b.Recipients, r)
	}
	d.at, d.final, d.info, d.has = mailgrant.BounceRecipient{}, "", "", false
}

func actionOf(status string) string {
	switch {
	case strings.HasPrefix(status, "2"):
		return "delivered"
	case strings.HasPrefix(status, "4"):
		return "delayed"
	}
	return "failed"
}

// reported is the address in type;address. RFC 3464 section 2.3, RFC 6533
// section 3.
func reported(v string) string {
	kind, addr, ok := strings.Cut(v, ";")
	if !ok {
		kind, addr = "", v
	}
	addr = strings.Trim(addr, " \t<>\"")
	if strings.EqualFold(strings.TrimSpace(kind), "utf-8") {
		addr = unxtext(addr)
	}
	if a, why := parseSpec(addr); why == "" {
		return a.String()
	}
	return clean(addr, maxPath+10)
}

// unxtext reads letters outside ASCII in \x{…}.
func unxtext(s string) string {
	var b strings.Builder
	for {
		before, after, ok := strings.Cut(s, `\x{`)
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		code, _, ok := strings.Cut(after[:min(len(after), 8)], "}")
		n, err := strconv.ParseUint(code, 16, 32)
		if !ok || err != nil || n < 0x20 || !utf8.ValidRune(rune(n)) {
			b.WriteString(`\x{`)
			s = after
			continue
		}
		b.WriteRune(rune(n))
		s = after[len(code)+1:]
	}
}

// diagnostic is what the other side said, without the kind of its language.
func diagnostic(v string) string {
	kind, said, ok := strings.Cut(v, ";")
	if ok && token(strings.TrimSpace(kind)) {
		v = said
	}
	return clean(unxtext(decodeWords(v)), maxDiagnostic)
}

// statusIn finds a status of RFC 3463.
func statusIn(s string) string {
	for w := range strings.FieldsFuncSeq(s, func(r rune) bool { return (r < '0' || r > '9') && r != '.' }) {
		p := strings.Split(w, ".")
		if len(p) == 3 && len(p[0]) == 1 && strings.Contains("245", p[0]) && p[1] != "" && len(p[1]) < 4 && p[2] != "" && len(p[2]) < 4 {
			return w
		}
	}
	return ""
}

// came reads the header of the message that came back: its id, and the line we
// wrote when it was sent. Both are only claimed.
func (d *bouncing) came(message []byte) {
	eachField(headOf(message), func(name, v []byte) {
		switch arriving(name) {
		case fMessageID:
			if d.b.MessageID == "" {
				d.b.MessageID = idIn(headerText(v, ""))
			}
		case fReceived:
			if bytes.Contains(v, []byte("(mailgrant)")) && d.b.Submission == "" {
				_, after, _ := bytes.Cut(v, []byte(" id "))
				id, _ := cutAny(string(after[:min(len(after), 60)]), "; \t\r\n")
				d.submission(id)
			}
		}
	})
}

func (d *bouncing) submission(s string) {
	if id := mailgrant.ID(strings.TrimSpace(s)); d.b.Submission == "" && id.Is(mailgrant.PrefixSubmission) {
		d.b.Submission = id
	}
}

// qmail reads a report in the words of qmail: paragraphs that begin with the
// address, up to a line of dashes and the message. QSBMF, https://cr.yp.to/proto/qsbmf.txt.
func (d *bouncing) qmail(text string) bool {
	if !strings.HasPrefix(text, qmailBegins) {
		return false
	}
	report := mailgrant.Bounce{}
	_, text, _ = strings.Cut(text, "\n\n")
	for {
		text = strings.TrimLeft(text, "\n")
		if strings.HasPrefix(text, "-") {
			break
		}
		var p string
		var more bool
		p, text, more = strings.Cut(text, "\n\n")
		if head, why, ok := strings.Cut(p+"\n", ">:\n"); ok && strings.HasPrefix(head, "<") && len(report.Recipients) < maxBounced {
			if _, not := parseSpec(head[1:]); not != "" {
				return false
			}
			report.Recipients = append(report.Recipients, mailgrant.BounceRecipient{Address: reported(head[1:]), Action: "failed",
				Status: statusIn(why), Diagnostic: clean(why, maxDiagnostic)})
		}
		if !more {
			break
		}
	}
	if len(report.Recipients) == 0 {
		return false
	}
	d.b = &report
	if _, message, ok := strings.Cut(text, "\n\n"); ok {
		d.came([]byte(strings.TrimLeft(message, "\n")))
	}
	return true
}

// exim reads a report in the words of Exim before it wrote multipart/report: it
// names the recipients in a field of its own.
func (d *bouncing) exim(recipients, text string) bool {
	if recipients == "" || !strings.HasPrefix(text, eximBegins) {
		return false
	}
	d.b = &mailgrant.Bounce{}
	said, copied, _ := strings.Cut(text, "--- This is a copy of ")
	for a := range strings.SplitSeq(recipients, ",") {
		r := mailgrant.BounceRecipient{Address: reported(a), Action: "failed"}
		if r.Address == "" || len(d.b.Recipients) == maxBounced {
			continue
		}
		if _, why, ok := strings.Cut(said, "\n  "+strings.TrimSpace(a)); ok {
			why = indented(strings.TrimPrefix(strings.TrimPrefix(why, ":"), "\n"), "    ")
			r.Diagnostic = clean(strings.Join(strings.Fields(why), " "), maxDiagnostic)
			r.Status = statusIn(why)
		}
		d.b.Recipients = append(d.b.Recipients, r)
	}
	if _, message, ok := strings.Cut(copied, "\n\n"); ok {
		d.came([]byte(strings.TrimLeft(message, "\n")))
	}
	return len(d.b.Recipients) > 0
}

// indented is the lines at the begin of s that begin with by.
func indented(s, by string) string {
	at := 0
	for strings.HasPrefix(s[at:], by) {
		n := strings.IndexByte(s[at:], '\n')
		if n < 0 {
			return s
		}
		at += n + 1
	}
	return s[:at]
}
