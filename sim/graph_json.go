package sim

import (
	"encoding/base64"
	"fmt"
	"net/mail"
	"strconv"
	"strings"
	"time"
)

// A graphMessage is the part of Graph's message resource that can be written.
// Names are compared without case, as Graph does.
type graphMessage struct {
	Subject       string
	Body          *graphBody
	From, Sender  *graphRecipient
	ToRecipients  []graphRecipient
	CcRecipients  []graphRecipient
	BccRecipients []graphRecipient
	ReplyTo       []graphRecipient
	Importance    string
	Attachments   []graphAttachment

	InternetMessageID             string
	InternetMessageHeaders        []struct{ Name, Value string }
	SingleValueExtendedProperties []struct{ ID, Value string }
}

type graphBody struct {
	ContentType string `json:"contentType"`
	Content     string `json:"content"`
}

type graphRecipient struct {
	EmailAddress struct {
		Name    string `json:"name"`
		Address string `json:"address"`
	} `json:"emailAddress"`
}

func (r graphRecipient) address() *mail.Address {
	return &mail.Address{Name: oneLine(r.EmailAddress.Name), Address: r.EmailAddress.Address}
}

func recipientsJSON(list []*mail.Address) []graphRecipient {
	all := make([]graphRecipient, len(list))
	for i, a := range list {
		all[i].EmailAddress.Name, all[i].EmailAddress.Address = a.Name, a.Address
		if a.Name == "" {
			all[i].EmailAddress.Name = a.Address
		}
	}
	return all
}

// A graphAttachment is a file as Graph takes it.
type graphAttachment struct {
	Type         string `json:"@odata.type"`
	Name         string
	ContentType  string
	ContentBytes *string
	ContentID    string
	IsInline     bool
}

func (a *graphAttachment) file() (file, *graphError) {
	f := file{Name: oneLine(a.Name), Type: a.ContentType, ContentID: a.ContentID, Inline: a.IsInline}
	switch {
	case !strings.EqualFold(a.Type, "#microsoft.graph.fileAttachment"):
		return f, badRequest("Only attachments of type #microsoft.graph.fileAttachment are taken here.")
	case a.Name == "":
		return f, badRequest("Required property 'Name' is missing in the payload.")
	case a.ContentBytes == nil:
		return f, badRequest("Required property 'ContentBytes' is missing in the payload.")
	}
	var err error
	if f.Data, err = base64.StdEncoding.DecodeString(*a.ContentBytes); err != nil {
		return f, badRequest("Cannot convert the literal of 'ContentBytes' to the expected type 'Edm.Binary'.")
	}
	return f, nil
}

func (m *graphMessage) files() ([]file, *graphError) {
	var all []file
	for i := range m.Attachments {
		f, e := m.Attachments[i].file()
		if e != nil {
			return nil, e
		}
		all = append(all, f)
	}
	return all, nil
}

// compose writes the message of a JSON as MIME.
func (c *graphCall) compose(m *graphMessage) ([]byte, *graphError) {
	for _, list := range [][]graphRecipient{m.ToRecipients, m.CcRecipients, m.BccRecipients, m.ReplyTo} {
		for _, r := range list {
			if _, err := mail.ParseAddress("<" + r.EmailAddress.Address + ">"); err != nil {
				return nil, invalidRecipients()
			}
		}
	}
	for _, h := range m.InternetMessageHeaders {
		if !strings.HasPrefix(strings.ToLower(h.Name), "x-") || strings.ContainsAny(h.Name, " :\r\n") {
			return nil, &graphError{status: 400, code: "InvalidInternetMessageHeader",
				text: "The internet message header name '" + h.Name + "' should start with 'x-' or 'X-'."}
		}
	}
	files, e := m.files()
	if e != nil {
		return nil, e
	}
	return withFiles(m.mime(c.mailbox, c.g.sim.Now()), files), nil
}

// pick leaves of a resource what $select names.
func (c *graphCall) pick(doc map[string]any) map[string]any {
	id, hasID := doc["id"]
	doc = only(doc, c.URL.Query().Get("$select"))
	if hasID && c.route.point != "graph.me" && c.route.point != "graph.users" {
		doc["id"] = id
	}
	return doc
}

// only leaves of a resource the members that are named, and its annotations.
func only(doc map[string]any, wanted string) map[string]any {
	if wanted == "" {
		return doc
	}
	names := trimAll(strings.Split(wanted, ","))
	picked := map[string]any{}
	for k, v := range doc {
		if strings.HasPrefix(k, "@") || containsFold(names, k) {
			picked[k] = v
		}
	}
	return picked
}

func trimAll(list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = strings.TrimSpace(s)
	}
	return out
}

func (c *graphCall) json(status int, doc any) {
	c.w.Header().Set("OData-Version", "4.0")
	writeJSON(c.w, status, doc)
}

const graphTime = "2006-01-02T15:04:05Z"

// messageJSON shows a message as Graph does.
func (c *graphCall) messageJSON(m Message) map[string]any {
	r := readMessage(m.Raw)
	body := graphBody{"text", r.Text}
	if r.HTML != "" {
		body = graphBody{"html", r.HTML}
	}
	at := m.At.UTC().Format(graphTime)
	doc := map[string]any{
		"@odata.context": c.context("users('" + c.mailbox.Address + "')/messages/$entity"),
		"@odata.etag":    `W/"` + m.changeKey() + `"`,
		"id":             c.idOf(m), "changeKey": m.changeKey(), "createdDateTime": at, "lastModifiedDateTime": at,
		"receivedDateTime": at, "sentDateTime": at, "hasAttachments": r.hasAttachments(),
		"internetMessageId": m.MessageID, "subject": m.Subject, "bodyPreview": preview(r),
		"importance": importance(r.Header), "parentFolderId": m.folder.id, "conversationId": folderID(c.mailbox.Address, m.Subject),
		"isRead": m.has(FlagSeen), "isDraft": m.draft != nil,
		"webLink": c.g.sim.WebmailURL(c.mailbox.Address), "body": body, "flag": map[string]string{"flagStatus": flagStatus(m)},
		"categories":   []string{},
		"toRecipients": recipientsJSON(addressList(r.Header, "To")), "ccRecipients": recipientsJSON(addressList(r.Header, "Cc")),
		"bccRecipients": recipientsJSON(addressList(r.Header, "Bcc")), "replyTo": recipientsJSON(addressList(r.Header, "Reply-To")),
	}
	if from := recipientsJSON(addressList(r.Header, "From")); len(from) > 0 {
		doc["from"], doc["sender"] = from[0], from[0]
	}
	if sender := recipientsJSON(addressList(r.Header, "Sender")); len(sender) > 0 {
		doc["sender"] = sender[0]
	}
	return doc
}

func flagStatus(m Message) string {
	if m.has(`\Flagged`) {
		return "flagged"
	}
	return "notFlagged"
}

// changeKey is another one after each change.
func (m *Message) changeKey() string {
	return "CQAAAB" + challenge("S256", m.ImmutableID+strconv.FormatUint(m.mod, 10))[:18]
}

// idOf is the id of a message of the kind that the caller wants.
func (c *graphCall) idOf(m Message) string {
	if c.immutable() {
		return m.ImmutableID
	}
	return m.ID
}

func (c *graphCall) immutable() bool {
	return strings.Contains(strings.ToLower(strings.ReplaceAll(strings.Join(c.Header.Values("Prefer"), ","), " ", "")), `idtype="immutableid"`)
}

func importance(h mail.Header) string {
	switch v := strings.ToLower(strings.TrimSpace(h.Get("Importance"))); v {
	case "low", "high":
		return v
	}
	return "normal"
}

// context is the address of the metadata that answers carry.
func (c *graphCall) context(of string) string {
	return c.g.base(c.Request) + "/v1.0/$metadata#" + of
}

func (a attached) json(now time.Time, withBytes bool) map[string]any {
	doc := map[string]any{
		"@odata.type": "#microsoft.graph.fileAttachment", "@odata.mediaContentType": a.Type, "id": a.id, "name": a.Name,
		"lastModifiedDateTime": now.UTC().Format(graphTime), "contentType": a.Type, "size": len(a.Data), "isInline": a.Inline,
		"contentId": nil,
	}
	if a.ContentID != "" {
		doc["contentId"] = a.ContentID
	}
	if withBytes {
		doc["contentBytes"] = base64.StdEncoding.EncodeToString(a.Data)
	}
	return doc
}

// pageOf is a list as OData has it.
func pageOf(context string, items []map[string]any) map[string]any {
	if items == nil {
		items = []map[string]any{}
	}
	return map[string]any{"@odata.context": context, "value": items}
}

// literal reads a string of OData: 'it”s'.
func literal(s string) (string, error) {
	s = strings.TrimSpace(s)
	if len(s) < 2 || s[0] != '\'' || s[len(s)-1] != '\'' || strings.Count(s, "'")%2 != 0 {
		return "", fmt.Errorf("%q is not a quoted string", s)
	}
	return strings.ReplaceAll(s[1:len(s)-1], "''", "'"), nil
}
