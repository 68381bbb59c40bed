package sim

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"mime"
	"net/http"
	"net/mail"
	"slices"
	"strings"
	"time"
)

// sendMail takes a message as JSON, or as MIME in base64, and sends it.
func (c *graphCall) sendMail() *graphError {
	if c.isMIME() {
		raw, e := c.readMIME()
		if e != nil {
			return e
		}
		return c.send(&submission{raw: raw})
	}
	var req struct {
		Message         *graphMessage
		SaveToSentItems any
	}
	if e := c.readJSON(&req); e != nil {
		return e
	}
	if req.Message == nil {
		return badRequest("The property 'Message' is required in the request.")
	}
	raw, e := c.compose(req.Message)
	if e != nil {
		return e
	}
	save := true
	switch v := req.SaveToSentItems.(type) {
	case bool:
		save = v
	case string: // the documentation's own examples quote it
		save = !strings.EqualFold(v, "false")
	}
	return c.send(&submission{raw: raw, noSent: !save})
}

func (c *graphCall) isMIME() bool {
	kind, _, _ := mime.ParseMediaType(c.Header.Get("Content-Type"))
	return kind == "text/plain"
}

func (c *graphCall) readMIME() ([]byte, *graphError) {
	text := strings.NewReplacer("\r", "", "\n", "").Replace(string(c.body))
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(raw) == 0 {
		return nil, &graphError{status: 400, code: "ErrorMimeContentInvalidBase64String", text: "Invalid base64 string for MIME content."}
	}
	if len(headerOf(raw)) == 0 {
		return nil, &graphError{status: 400, code: "ErrorMimeContentInvalid", text: "The MIME content is invalid."}
	}
	return raw, nil
}

func (c *graphCall) readJSON(into any) *graphError {
	kind, _, _ := mime.ParseMediaType(c.Header.Get("Content-Type"))
	if kind != "application/json" {
		return &graphError{status: 415, code: "RequestBodyRead", text: "A supported MIME type could not be found that matches the content type of the request."}
	}
	if err := json.Unmarshal(c.body, into); err != nil {
		return badRequest("Unable to read JSON request payload. Please ensure Content-Type header is set and payload is of valid JSON format.")
	}
	return nil
}

func badRequest(text string) *graphError {
	return &graphError{status: 400, code: "BadRequest", text: text}
}

// send hands a submission to Exchange, unless an address in it is a trigger.
func (c *graphCall) send(sub *submission) *graphError {
	if e := c.address(sub); e != nil {
		return e
	}
	about := append([]string{c.key, sub.from}, sub.to...)
	about = append(about, addressesIn(headerOf(sub.raw), "From", "Sender")...)
	c.g.sim.faults.strike(c.w, c.Request, c.g.sim.faults.graphTrigger(about...), func(w http.ResponseWriter, _ *http.Request) {
		if e := c.submit(sub); e != nil {
			c.g.refuse(w, e)
			return
		}
		w.WriteHeader(http.StatusAccepted)
	}, c.g.faultStatus)
	return nil
}

// address takes the envelope from the header, as Graph does.
func (c *graphCall) address(sub *submission) *graphError {
	head := headerOf(sub.raw)
	if head.Get("From") == "" {
		from := mail.Address{Name: c.mailbox.Name, Address: c.mailbox.Address}
		sub.raw = append([]byte("From: "+from.String()+"\r\n"), sub.raw...)
		head = headerOf(sub.raw)
	}
	sub.via, sub.who, sub.from = "graph", c.sender(), c.mailbox.Address
	if from := addressesIn(head, "From"); len(from) > 0 {
		sub.from = from[0]
	}
	for _, field := range []string{"To", "Cc", "Bcc"} {
		for _, value := range head[field] {
			list, err := mail.ParseAddressList(value)
			if value = strings.TrimSpace(value); err != nil && value != "" && !strings.HasSuffix(value, ":;") {
				return invalidRecipients() // undisclosed-recipients:; is an empty group
			}
			for _, a := range list {
				if !containsFold(sub.to, a.Address) {
					sub.to = append(sub.to, a.Address)
				}
			}
		}
	}
	limit := c.mailbox.RecipientLimit
	if limit == 0 {
		limit = c.v.Knobs.RecipientsPerMail
	}
	if len(sub.to) == 0 || over(len(sub.to), limit) {
		return invalidRecipients()
	}
	return nil
}

func invalidRecipients() *graphError {
	return &graphError{status: 400, code: "ErrorInvalidRecipients", text: graphRecipientsText}
}

// submit lets Exchange check and deliver. From another mailbox than the one of
// the path needs the shared scope as well.
func (c *graphCall) submit(sub *submission) *graphError {
	if c.caller != nil && !c.mailbox.goesBy(sub.from) && !c.hasScope(needSend.shared) {
		return &graphError{status: 403, code: "ErrorSendAsDenied", text: graphSendAsText}
	}
	_, bad, err := c.g.sim.smtpd.take(c.Context(), sub)
	if err != nil {
		panic(http.ErrAbortHandler) // the client or the sim went away
	}
	if bad == nil {
		return nil
	}
	e := &graphError{status: bad.status, code: bad.code, text: bad.text}
	if bad.status == http.StatusTooManyRequests {
		e.retry = time.Hour
	}
	return e
}

// A draft is what a message in Drafts is made of: the message as it was
// created, and the files put to it since.
type draft struct {
	base  []byte
	files []attached
}

// An attached is a file on a draft.
type attached struct {
	id string
	file
}

func (d *draft) raw() []byte {
	files := make([]file, len(d.files))
	for i, a := range d.files {
		files[i] = a.file
	}
	return withFiles(d.base, files)
}

// createDraft puts a message into Drafts, from JSON or MIME.
func (c *graphCall) createDraft() *graphError {
	d := &draft{}
	if c.isMIME() {
		raw, e := c.readMIME()
		if e != nil {
			return e
		}
		d.base = raw
		if headerOf(raw).Get("Message-Id") == "" {
			d.base = append([]byte("Message-ID: "+newMessageID()+"\r\n"), raw...)
		}
	} else {
		m := new(graphMessage)
		if e := c.readJSON(m); e != nil {
			return e
		}
		files, e := m.files()
		if e != nil {
			return e
		}
		m.Attachments = nil
		if d.base, e = c.compose(m); e != nil {
			return e
		}
		for _, f := range files {
			d.files = append(d.files, attached{newItemID(), f})
		}
	}
	m := Message{From: c.mailbox.Address, At: c.g.sim.Now(), Via: "graph", Flags: []string{FlagSeen, FlagDraft}, draft: d}
	m.describe(d.raw())
	if e := c.fits(m.Raw); e != nil {
		return e
	}
	made := c.g.sim.mail.put(c.mailbox.Address, FolderDrafts, m)
	c.json(http.StatusCreated, c.messageJSON(made))
	return nil
}

// describe fills in what the listing of a draft shows.
func (m *Message) describe(raw []byte) {
	head := headerOf(raw)
	m.Raw, m.Subject, m.MessageID = raw, decodeWords(head.Get("Subject")), strings.TrimSpace(head.Get("Message-Id"))
	m.To = addressesIn(head, "To", "Cc", "Bcc")
}

// fits says whether Exchange keeps a message of that size.
func (c *graphCall) fits(raw []byte) *graphError {
	limit := c.mailbox.MaxSendSize
	if limit == 0 {
		limit = c.v.Knobs.MaxSendSize
	}
	if over(int64(len(raw)), limit) {
		return &graphError{status: 400, code: "ErrorMessageSizeExceeded",
			text: "The message exceeds the maximum supported size., Cannot save changes made to an item to store."}
	}
	return nil
}

// theDraft finds the draft of the path.
func (c *graphCall) theDraft() (Message, *graphError) {
	m, e := c.message()
	if e == nil && m.draft == nil {
		e = &graphError{status: 400, code: "ErrorInvalidOperation", text: "The operation can only be performed on a draft message."}
	}
	return m, e
}

// attach puts a file to a draft in one request.
func (c *graphCall) attach() *graphError {
	if _, e := c.theDraft(); e != nil {
		return e
	}
	var a graphAttachment
	if e := c.readJSON(&a); e != nil {
		return e
	}
	f, e := a.file()
	if e != nil {
		return e
	}
	made, e := c.addFile(c.args["id"], f)
	if e != nil {
		return e
	}
	c.json(http.StatusCreated, made.json(c.g.sim.Now(), true))
	return nil
}

// addFile puts a file to a draft, if the message stays within its size.
func (c *graphCall) addFile(id string, f file) (attached, *graphError) {
	a := attached{newItemID(), f}
	var e *graphError
	found := c.g.sim.mail.with(c.mailbox.Address, id, func(m *Message) {
		if m.draft == nil {
			return
		}
		d := &draft{m.draft.base, append(slices.Clip(m.draft.files), a)}
		raw := d.raw()
		if e = c.fits(raw); e == nil {
			m.draft = d
			c.g.sim.mail.rewrite(m, raw)
		}
	})
	if !found {
		return a, itemNotFound()
	}
	return a, e
}

// sendDraft sends what lies in Drafts and takes it out of there.
func (c *graphCall) sendDraft() *graphError {
	m, e := c.theDraft()
	if e != nil {
		return e
	}
	sub := &submission{raw: bytes.Clone(m.Raw), draft: &m}
	return c.send(sub)
}

// discard takes the draft of a submission away once it is sent. What is sent
// has its immutable id.
func (x *exchange) discard(sub *submission) (immutable string) {
	if sub.draft == nil {
		return ""
	}
	x.sim.mail.remove(sub.draft.Mailbox, sub.draft.ID)
	return sub.draft.ImmutableID
}
