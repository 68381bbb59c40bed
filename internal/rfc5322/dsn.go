package rfc5322

import (
	"bytes"
	"fmt"
	"mime/quotedprintable"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
)

// A Report tells the sender of a message whom it did not reach.
type Report struct {
	From      string // who reports: an address that may send
	To        string // the envelope sender; "" is told nothing
	Hostname  string // who we are
	ID        string // of the submission
	MessageID string // of the message
	Subject   string // of the message
	Accepted  time.Time
	At        time.Time
	Link      string // where the documents are: "https://mail.contoso.example/docs"; "" none
	Header    []byte // of the message; blind recipients are taken out
	Failed    []Failure
}

// A Failure is one recipient's part.
type Failure struct {
	Address string
	Reply   string // what the other side said; "" nothing
	Expired bool   // it was tried until its time was over
	Finding *mailgrant.Finding
}

// DSN is the report as a message: words for the person, fields for the program,
// the header of the message. It is nil when there is nobody to tell: a report
// about a report would never end. RFC 3464, RFC 6522.
func DSN(r Report) []byte {
	if r.To == "" || len(r.Failed) == 0 {
		return nil
	}
	b := boundary()
	var out bytes.Buffer
	for _, f := range [][2]string{
		{"From", Address{Name: "mailgrant"}.with(r.From)}, {"To", "<" + line(r.To, 254) + ">"},
		{"Subject", text("Not delivered: " + first(line(r.Subject, 150), "your message"))},
		{"Date", r.At.Format(time.RFC1123Z)}, {"Auto-Submitted", "auto-replied"},
		{"In-Reply-To", reference(r.MessageID)}, {"References", reference(r.MessageID)}, {"MIME-Version", "1.0"},
	} {
		if f[1] != "" {
			out.WriteString(field(f[0], f[1]))
		}
	}
	out.WriteString("Content-Type: multipart/report; report-type=delivery-status;\r\n boundary=\"" + b + "\"\r\n\r\n")
	part := func(kind, content string) {
		out.WriteString("--" + b + "\r\nContent-Type: " + kind + "\r\n")
		if ascii(content) && !longLines(content) {
			out.WriteString("\r\n" + content + "\r\n")
			return
		}
		out.WriteString("Content-Transfer-Encoding: quoted-printable\r\n\r\n")
		q := quotedprintable.NewWriter(&out)
		q.Write([]byte(content))
		q.Close()
		out.WriteString("\r\n")
	}
	part("text/plain; charset=utf-8", r.words())
	part("message/delivery-status", r.fields())
	if head := r.original(); head != "" {
		part("text/rfc822-headers", head)
	}
	out.WriteString("--" + b + "--\r\n")
	return out.Bytes()
}

// with writes the name and an address given as text.
func (a Address) with(addr string) string { return phrase(a.Name) + " <" + line(addr, 254) + ">" }

func reference(id string) string {
	if messageID(id) {
		return id
	}
	return ""
}

func first(l ...string) string {
	for _, s := range l {
		if s != "" {
			return s
		}
	}
	return ""
}

// line is foreign text made one bounded line.
func line(s string, max int) string {
	return cutText(decodeText(strings.ReplaceAll(s, "=?", "= ?")), max)
}

func longLines(s string) bool {
	for l := range strings.SplitSeq(s, "\r\n") {
		if len(l) > 900 {
			return true
		}
	}
	return false
}

// words is the part for the person: what happened, why, what can be done.
func (r Report) words() string {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	if r.Subject != "" {
		say("Your message \"%s\" of %s", line(r.Subject, 150), r.Accepted.UTC().Format("2 January 2006 15:04 MST"))
	} else {
		say("Your message of %s", r.Accepted.UTC().Format("2 January 2006 15:04 MST"))
	}
	say("was not delivered to:")
	for _, f := range r.Failed {
		say("\r\n  %s", line(f.Address, 254))
		if f.Expired {
			say("    It was tried again and again until its time was over. The last reason:")
		}
		if f.Finding != nil {
			say("    %s", first(line(f.Finding.Sentence, 500), line(f.Finding.Title, 200), "No reason is known."))
			if s := line(f.Finding.Remedy, 500); s != "" {
				say("    What to do: %s", s)
			}
			if w := who[f.Finding.Who]; w != "" {
				say("    Who can do it: %s", w)
			}
			if r.Link != "" && f.Finding.Link != "" {
				say("    More: %s/%s", strings.TrimSuffix(line(r.Link, 200), "/"), line(f.Finding.Link, 200))
			}
		}
		if s := line(f.Reply, 500); s != "" {
			say("    The other side said: %s", s)
		}
	}
	say("\r\nThis report was made by mailgrant on %s. The message is kept there under the number %s.", r.Hostname, r.ID)
	return b.String()
}

var who = map[mailgrant.Who]string{
	mailgrant.WhoOperator:     "whoever runs the sending application",
	mailgrant.WhoTenantAdmin:  "the administrator of the mail service",
	mailgrant.WhoMailboxOwner: "the owner of the sending mailbox",
	mailgrant.WhoProvider:     "the mail provider",
}

// fields is the part for the program. RFC 3464 section 2.
func (r Report) fields() string {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	say("Reporting-MTA: dns; %s", line(r.Hostname, 255))
	if r.ID != "" {
		say("X-Mailgrant-Submission: %s", line(r.ID, 100))
	}
	say("Arrival-Date: %s", r.Accepted.Format(time.RFC1123Z))
	for _, f := range r.Failed {
		kind, addr := "rfc822", line(f.Address, 254)
		if !ascii(addr) {
			kind, addr = "utf-8", xtext(addr)
		}
		say("\r\nFinal-Recipient: %s; %s\r\nAction: failed\r\nStatus: %s", kind, addr, status(f))
		if s := line(f.Reply, 500); s != "" {
			say("Diagnostic-Code: smtp; %s", xtext(s))
		}
		say("Last-Attempt-Date: %s", r.At.Format(time.RFC1123Z))
	}
	return b.String()
}

// xtext keeps letters outside ASCII in a field that has none. RFC 6533 section 3.
func xtext(s string) string {
	if ascii(s) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if r < 0x80 {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, "\\x{%X}", r)
		}
	}
	return b.String()
}

// status is the code in the answer, as a failure: what was put off for too long
// has failed too. RFC 3463.
func status(f Failure) string {
	if f.Expired {
		return "4.4.7"
	}
	for w := range strings.FieldsSeq(f.Reply) {
		var a, b, c int
		var rest string
		if n, _ := fmt.Sscanf(w, "%d.%d.%d%s", &a, &b, &c, &rest); n == 3 && (a == 4 || a == 5) && b >= 0 && c >= 0 && b < 1000 && c < 1000 {
			return fmt.Sprintf("5.%d.%d", b, c)
		}
	}
	return "5.0.0"
}

// original is the message's header, without what nobody else may see.
func (r Report) original() string {
	h := withoutBcc(nil, Block(r.Header))
	const max = 32 << 10
	if len(h) > max {
		h = h[:max]
		if i := bytes.LastIndex(h, crlf); i >= 0 {
			h = h[:i+2]
		}
	}
	return strings.TrimRight(string(h), "\r\n")
}
