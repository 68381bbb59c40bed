package api

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/rfc5322"
)

// A message is a client.Message as it comes in: attachments are decoded while
// they are read, and nothing goes through reflection.
type message struct {
	rfc5322.Mail
	class      string
	onBehalfOf string
	mailbox    string
	sendAt     time.Time
}

const (
	fieldMax       = 8 << 10 // bytes of one short field
	referencesMax  = 100
	headersMax     = 100
	attachmentsMax = 500
)

// message reads one. textMax bounds its text.
func (j *jsonReader) message(m *message, textMax int) error {
	return j.object("", func(key string) (err error) {
		switch key {
		case "from":
			m.From, err = j.str(key, fieldMax)
		case "sender":
			m.Sender, err = j.str(key, fieldMax)
		case "to":
			m.To, err = j.strs(key, rfc5322.MaxAddresses)
		case "cc":
			m.Cc, err = j.strs(key, rfc5322.MaxAddresses)
		case "bcc":
			m.Bcc, err = j.strs(key, rfc5322.MaxAddresses)
		case "reply_to":
			m.ReplyTo, err = j.strs(key, rfc5322.MaxAddresses)
		case "subject":
			m.Subject, err = j.str(key, fieldMax)
		case "text":
			m.Text, err = j.str(key, textMax)
		case "html":
			m.HTML, err = j.str(key, textMax)
		case "in_reply_to":
			m.InReplyTo, err = j.str(key, fieldMax)
		case "references":
			m.References, err = j.strs(key, referencesMax)
		case "message_id":
			m.MessageID, err = j.str(key, fieldMax)
		case "headers":
			err = j.headers(m)
		case "attachments":
			err = j.attachments(m)
		case "class":
			m.class, err = j.str(key, fieldMax)
		case "on_behalf_of":
			m.onBehalfOf, err = j.str(key, fieldMax)
		case "mailbox":
			m.mailbox, err = j.str(key, fieldMax)
		case "send_at":
			err = j.moment(key, &m.sendAt)
		default:
			return unknown(clip(key))
		}
		return err
	})
}

// moment reads a time, or null for none.
func (j *jsonReader) moment(field string, t *time.Time) error {
	if null, err := j.null(); null || err != nil {
		return err
	}
	return j.textual(field, t)
}

func (j *jsonReader) strs(field string, limit int) (list []string, err error) {
	err = j.array(field, func(n int) error {
		if n >= limit {
			return tooMany(field, limit)
		}
		s, err := j.str(field, fieldMax)
		if err != nil {
			return in(err, fmt.Sprintf("%s[%d]", field, n))
		}
		list = append(list, s)
		return nil
	})
	return list, err
}

// in names the place of an error more exactly.
func in(err error, field string) error {
	e := mailgrant.AsError(err)
	if e.Field != "" {
		e = e.At(field)
	}
	return e
}

func (j *jsonReader) headers(m *message) error {
	m.Headers = map[string]string{}
	return j.object("headers", func(key string) error {
		if len(m.Headers) >= headersMax {
			return tooMany("headers", headersMax)
		}
		s, err := j.str("headers", fieldMax)
		if err != nil {
			return in(err, join("headers", clip(key)))
		}
		m.Headers[key] = s
		return nil
	})
}

// attachments reads files. They come as their bytes and in no other way: there is
// no field that could name a file of ours or another server. AP-11.
func (j *jsonReader) attachments(m *message) error {
	return j.array("attachments", func(n int) error {
		if n >= attachmentsMax {
			return tooMany("attachments", attachmentsMax)
		}
		var a rfc5322.Attachment
		given := false
		err := j.object("attachments", func(key string) (err error) {
			switch key {
			case "name":
				a.Name, err = j.str(key, fieldMax)
			case "content_type":
				a.ContentType, err = j.str(key, fieldMax)
			case "content_id":
				a.ContentID, err = j.str(key, fieldMax)
			case "content":
				given = true
				a.Content, err = j.base64(fmt.Sprintf("attachments[%d].content", n))
				return err
			default:
				err = unknown(clip(key)).Fix("an attachment is sent as its bytes: name, content_type, content_id and content in base64")
			}
			if err != nil {
				return in(err, fmt.Sprintf("attachments[%d].%s", n, clip(key)))
			}
			return nil
		})
		if err == nil && !given {
			err = mailgrant.Errorf(mailgrant.Invalid, nil, "the attachment has no content").Fix("send its bytes in base64").At(fmt.Sprintf("attachments[%d].content", n))
		}
		m.Attachments = append(m.Attachments, a)
		return err
	})
}

var classes = []string{"", string(mailgrant.ClassUser), string(mailgrant.ClassSystem)}

func checkClass(class string) error {
	if !slices.Contains(classes, class) {
		return mailgrant.Errorf(mailgrant.Invalid, nil, "there is no such class of messages").Fix("use user or system, or leave it out").At("class")
	}
	return nil
}

// checkPerson says whether on_behalf_of is an address.
func checkPerson(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	a, err := rfc5322.ParseAddress(s)
	if err != nil {
		return "", mailgrant.AsError(err).At("on_behalf_of")
	}
	return a.String(), nil
}

const keyMax = 200

// idempotencyKey is what makes a submission repeatable.
func (c *call) idempotencyKey() (string, error) {
	v := c.r.Header["Idempotency-Key"]
	if len(v) == 0 {
		return "", nil
	}
	if len(v) > 1 || v[0] == "" || len(v[0]) > keyMax || strings.ContainsFunc(v[0], func(r rune) bool { return r < ' ' || r >= 0x7f }) {
		return "", mailgrant.Errorf(mailgrant.Invalid, nil, "the idempotency key is not one of 1 to %d plain letters", keyMax).
			Fix("use a random text or the number of your own record").At("Idempotency-Key")
	}
	return v[0], nil
}
