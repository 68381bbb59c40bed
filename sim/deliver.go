package sim

import (
	"bytes"
	"cmp"
	"fmt"
	"net/mail"
	"slices"
	"strings"
	"time"
)

// A Delivery is a message that comes from outside.
type Delivery struct {
	To     string    // address of a mailbox, or of anybody elsewhere
	From   string    // envelope; "" takes it from the header, "<>" is nobody
	Raw    []byte    // as it was on the wire
	Folder string    // FolderInbox when empty
	Flags  []string  //
	At     time.Time // when it is received; zero = now

	// SPF, DKIM, DMARC and CompAuth are what Authentication-Results says of it:
	// "pass" when empty. "none" is what it says of mail that nobody signed.
	SPF, DKIM, DMARC, CompAuth string

	// AsIs files the bytes as they are: without the fields that the service
	// puts into each header, and without an end of line that it would mend.
	AsIs bool
}

// Deliver brings a message from outside to a mailbox.
func (s *Sim) Deliver(to string, raw []byte) (Message, error) {
	return s.DeliverMail(Delivery{To: to, Raw: raw})
}

// DeliverMail brings a message from outside to a mailbox. There is an error
// when the address is of a domain in the world and nobody has it: then a real
// service would not have taken it.
func (s *Sim) DeliverMail(d Delivery) (Message, error) {
	v, box := s.world.now.Load(), s.mailboxOf(d.To)
	if !strings.Contains(d.To, "@") {
		return Message{}, fmt.Errorf("%q is no address", d.To)
	}
	if v.tenants[domainOf(d.To)] != nil && v.mailboxes[box].item == nil {
		return Message{}, fmt.Errorf("%w mailbox %q", errNotThere, d.To)
	}
	if !d.AsIs {
		d.Raw = asOnWire(d.Raw)
	}
	head := headerOf(d.Raw)
	switch {
	case d.From == "<>":
		d.From = ""
	case d.From == "":
		if from := addressesIn(head, "From"); len(from) > 0 {
			d.From = from[0]
		}
	}
	m := messageOf(head, d.From, []string{d.To})
	m.At, m.Via, m.Flags, m.Raw = d.At, "outside", slices.Clone(d.Flags), d.Raw
	if m.At.IsZero() {
		m.At = s.Now()
	}
	if !d.AsIs && v.mailboxes[box].item != nil {
		t := trace{from: d.From, head: head, at: m.At, spf: d.SPF, dkim: d.DKIM, dmarc: d.DMARC, compauth: d.CompAuth}
		m.Raw = s.smtpd.traced(t, d.Raw)
	}
	s.mail.mu.Lock()
	defer s.mail.mu.Unlock()
	b := s.mail.box(box)
	f := b.folder(cmp.Or(d.Folder, FolderInbox))
	if f == nil {
		return Message{}, fmt.Errorf("%w folder %q", errNotThere, d.Folder)
	}
	s.counts.add("deliveries")
	return *s.mail.file(f, m), nil
}

// asOnWire ends the lines of a file as SMTP brings them: CRLF.
func asOnWire(raw []byte) []byte {
	lf := []byte("\n")
	if bytes.Count(raw, lf) == bytes.Count(raw, []byte("\r\n")) {
		return raw
	}
	raw = bytes.ReplaceAll(raw, []byte("\r\n"), lf)
	return bytes.ReplaceAll(raw, lf, []byte("\r\n"))
}

func messageOf(head mail.Header, from string, to []string) Message {
	return Message{From: from, To: to, Subject: decodeWords(head.Get("Subject")), MessageID: strings.TrimSpace(head.Get("Message-Id"))}
}

// deliver files the message with its recipients and into Sent Items.
func (x *exchange) deliver(sub *submission) {
	sub.complete(x)
	x.forgive(strings.ToLower(sub.who.mailbox.Address))
	m := Message{From: sub.from, To: sub.to, Subject: sub.subject, MessageID: sub.id, At: x.sim.Now(), Via: sub.via}
	immutable := x.discard(sub)
	if !sub.noSent {
		sent := m
		sent.ImmutableID, sent.Raw, sent.Flags = immutable, sub.raw, []string{FlagSeen}
		x.sim.mail.put(sub.who.mailbox.Address, FolderSent, sent)
	}
	x.sim.counts.add(sub.via + ".messages")
	v := x.sim.world.now.Load()
	seen := map[string]bool{}
	for _, to := range sub.to {
		box := x.sim.mailboxOf(to)
		if seen[box] {
			continue
		}
		seen[box] = true
		t := v.tenants[domainOf(to)]
		switch {
		case t == nil: // elsewhere: what was on the wire
			m.Raw = sub.wire
			x.sim.mail.put(box, FolderInbox, m)
		case v.mailboxes[box].item == nil:
			x.bounce(sub, to)
		default:
			m.Raw = x.traced(trace{from: sub.from, head: headerOf(sub.wire), at: m.At, inside: sub.who.tenant.ID == t.ID,
				dkimDomain: onMicrosoft(sub.who.tenant)}, sub.wire)
			x.sim.mail.put(box, cmp.Or(v.mailboxes[box].item.DeliverTo, FolderInbox), m)
		}
	}
}

// onMicrosoft is the domain that a tenant's mail is signed by until it has a
// key of its own.
func onMicrosoft(t *Tenant) string {
	for _, d := range t.Domains {
		if strings.Contains(d, ".onmicrosoft.") {
			return d
		}
	}
	return t.Domains[0]
}

// A trace is what the service writes into the header of mail that it delivers.
type trace struct {
	from                       string // envelope
	head                       mail.Header
	at                         time.Time
	inside                     bool // from the same organization
	dkimDomain                 string
	spf, dkim, dmarc, compauth string
}

// The fields that Exchange writes above the others, and below them.
const (
	traceTop = `Received: from {BACK} (2603:10c6:10:1b4::14) by
 {BACK2} with HTTPS; {date}
Received: from {FRONT} (2603:10c6:10:1b4::4)
 by {BACK} (2603:10c6:10:1b4::14) with Microsoft SMTP
 Server (version=TLS1_2, cipher=TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384) id
 15.20.9769.17; {date}
`
	traceOutside = `Authentication-Results: spf={spf} (sender IP is 203.0.113.9)
 smtp.mailfrom={domain}; dkim={dkim} ({signed})
 header.d={signer};dmarc={dmarc} action={action}
 header.from={header};compauth={compauth} reason={reason}
Received-SPF: {Spf} (protection.outlook.com: domain of {domain} designates
 203.0.113.9 as permitted sender) receiver=protection.outlook.com;
 client-ip=203.0.113.9; helo=mail.{domain}; pr=C
Received: from mail.{domain} (203.0.113.9) by
 {FRONT} (10.167.249.6) with Microsoft SMTP Server
 (version=TLS1_3, cipher=TLS_AES_256_GCM_SHA384) id 15.20.9769.17 via Frontend
 Transport; {date}
`
	traceInside = `Authentication-Results: dkim=none (message not signed)
 header.d=none;dmarc=none action=none header.from={header};
`
	traceBottom = `Return-Path: {from}
X-MS-Exchange-Organization-Network-Message-Id:
 {guid}
X-MS-Exchange-Organization-AuthAs: {as}
X-MS-Exchange-Organization-SCL: {scl}
`
	backEnd  = "SY5P282MB4321.AUSP282.PROD.OUTLOOK.COM"
	backEnd2 = "ME3P282MB1234.AUSP282.PROD.OUTLOOK.COM"
)

// traced puts those fields into the header of a message, and leaves every
// other byte as it is.
func (x *exchange) traced(t trace, raw []byte) []byte {
	author := "none"
	if from := addressesIn(t.head, "From"); len(from) > 0 {
		author = domainOf(from[0])
	}
	domain := author
	if t.from != "" {
		domain = domainOf(t.from)
	}
	spf, dkim, dmarc := cmp.Or(t.spf, "pass"), cmp.Or(t.dkim, "pass"), cmp.Or(t.dmarc, "pass")
	compauth, reason, action := cmp.Or(t.compauth, "pass"), "100", "none"
	if t.compauth == "" && dmarc == "fail" {
		compauth, reason, action = "fail", "000", "oreject"
	}
	signer, signed := cmp.Or(t.dkimDomain, author), "signature was verified"
	switch dkim {
	case "none":
		signer, signed = "none", "message not signed"
	case "fail":
		signed = "body hash did not verify"
	}
	top, as, scl := traceTop+traceOutside, "Anonymous", "1"
	if t.inside {
		top, as, scl = traceTop+traceInside, "Internal", "-1"
	}
	fill := func(text string) []byte {
		return []byte(x.reply(strings.ReplaceAll(text, "\n", "\r\n"), "{BACK}", backEnd, "{BACK2}", backEnd2,
			"{FRONT}", "SY5P282CA0097.outlook.office365.com", "{date}", t.at.UTC().Format("Mon, 2 Jan 2006 15:04:05 -0700"),
			"{spf}", spf, "{Spf}", strings.ToUpper(spf[:1])+spf[1:], "{dkim}", dkim, "{dmarc}", dmarc, "{compauth}", compauth,
			"{reason}", reason, "{action}", action, "{signer}", signer, "{signed}", signed, "{domain}", domain, "{header}", author,
			"{from}", cmp.Or(t.from, "<>"), "{guid}", newGUID(), "{as}", as, "{scl}", scl))
	}
	head, body := splitMessage(raw)
	if !bytes.HasSuffix(head, []byte("\n")) {
		return slices.Concat(fill(top), fill(traceBottom), raw) // a header without an end
	}
	return slices.Concat(fill(top), head, fill(traceBottom), body)
}

// bounce tells the sender that a recipient inside does not exist. A bounce is
// never bounced.
func (x *exchange) bounce(sub *submission, to string) {
	if sub.from == "" {
		return
	}
	now := x.sim.Now()
	id := newMessageID()
	parts := strings.NewReplacer("{to}", to, "{from}", sub.from, "{id}", id, "{original}", sub.id, "{subject}", encodeWords("Undeliverable: "+sub.subject),
		"{domain}", onMicrosoft(sub.who.tenant), "{back}", backEnd, "{date}", now.UTC().Format("Mon, 2 Jan 2006 15:04:05 -0700"))
	raw := []byte(parts.Replace(strings.ReplaceAll(bounceText, "\n", "\r\n")))
	raw = append(raw, sub.wire...)
	if !bytes.HasSuffix(raw, []byte("\r\n")) {
		raw = append(raw, "\r\n"...)
	}
	raw = append(raw, "\r\n--_ndr_outer_--\r\n"...)
	x.sim.counts.add("bounces")
	x.sim.mail.put(x.sim.mailboxOf(sub.from), FolderInbox, Message{To: []string{sub.from},
		Subject: "Undeliverable: " + sub.subject, MessageID: id, Raw: raw, At: now, Via: sub.via})
}

const bounceText = `From: <postmaster@{domain}>
To: <{from}>
Date: {date}
Content-Type: multipart/report; report-type=delivery-status;
	boundary="_ndr_outer_"
X-MS-Exchange-Message-Is-Ndr:
Content-Language: en-US
Message-ID: {id}
In-Reply-To: {original}
References: {original}
Subject: {subject}
Auto-Submitted: auto-replied
Return-Path: <>
MIME-Version: 1.0

--_ndr_outer_
Content-Type: multipart/alternative; differences=Content-Transfer-Encoding;
	boundary="_ndr_text_"

--_ndr_text_
Content-Type: text/plain; charset="us-ascii"
Content-Transfer-Encoding: 7bit

Your message to {to} couldn't be delivered.

{to} wasn't found. The address may be misspelled or may not exist.

Diagnostic information for administrators:

Generating server: {back}

{to}
Remote Server returned '550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup'

--_ndr_text_
Content-Type: text/html; charset="us-ascii"
Content-Transfer-Encoding: 7bit

<html><body><p>Your message to <b>{to}</b> couldn't be delivered.</p>
<p>{to} wasn't found. The address may be misspelled or may not exist.</p></body></html>

--_ndr_text_--

--_ndr_outer_
Content-Type: message/delivery-status

Reporting-MTA: dns;{back}
Received-From-MTA: dns;{back}
Arrival-Date: {date}

Final-Recipient: rfc822;{to}
Action: failed
Status: 5.1.10
Diagnostic-Code: smtp;550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient {to} not found by SMTP address lookup

--_ndr_outer_
Content-Type: message/rfc822

`
