package api

import (
	"encoding/json"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/mailgrant/mailgrant"
)

// The answers of the hot requests are written by hand: encoding/json would take a
// good part of the time of an accept. A test holds them against it.

const hexDigits = "0123456789abcdef"

// appendText writes a JSON string.
func appendText(b []byte, s string) []byte {
	b = append(b, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c < 0x20 || c == '"' || c == '\\' || c == 0x7f:
			b = append(append(b, s[from:i]...), '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			i++
			from = i
		case c < utf8.RuneSelf:
			i++
		default:
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				b = append(append(b, s[from:i]...), "\ufffd"...)
				from = i + 1
			}
			i += n
		}
	}
	return append(append(b, s[from:]...), '"')
}

func appendTexts(b []byte, list []string) []byte {
	b = append(b, '[')
	for i, s := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendText(b, s)
	}
	return append(b, ']')
}

func appendTime(b []byte, t time.Time) []byte {
	return append(t.AppendFormat(append(b, '"'), time.RFC3339Nano), '"')
}

// appendSubmission writes a submission as it is shown.
func appendSubmission(b []byte, s *mailgrant.Submission) []byte {
	text := func(name, v string) { b = appendText(append(b, name...), v) }
	some := func(name, v string) {
		if v != "" {
			text(name, v)
		}
	}
	flag := func(name string, v bool) {
		if v {
			b = append(append(b, name...), "true"...)
		}
	}
	moment := func(name string, v time.Time) { b = appendTime(append(b, name...), v) }
	text(`{"id":`, string(s.ID))
	text(`,"org":`, string(s.Org))
	some(`,"app":`, string(s.App))
	text(`,"door":`, s.Door)
	text(`,"class":`, string(s.Class))
	some(`,"on_behalf_of":`, s.OnBehalfOf)
	text(`,"route":{"mailbox":`, string(s.Route.Mailbox))
	text(`,"address":`, s.Route.Address)
	text(`,"kind":`, s.Route.Kind)
	text(`,"reason":`, s.Route.Reason)
	text(`},"envelope_from":`, s.EnvelopeFrom)
	b = appendTexts(append(b, `,"recipients":`...), s.Recipients)
	if len(s.Pending) > 0 {
		b = appendTexts(append(b, `,"pending":`...), s.Pending)
	}
	text(`,"from":`, s.From)
	some(`,"subject":`, s.Subject)
	text(`,"message_id":`, s.MessageID)
	b = strconv.AppendInt(append(b, `,"size":`...), s.Size, 10)
	flag(`,"eight_bit":`, s.EightBit)
	flag(`,"utf8":`, s.UTF8)
	text(`,"state":`, string(s.State))
	flag(`,"possible_duplicate":`, s.Duplicate)
	b = strconv.AppendInt(append(b, `,"attempts":`...), int64(s.Attempts), 10)
	moment(`,"accepted_at":`, s.AcceptedAt)
	if !s.DueAt.IsZero() {
		moment(`,"due_at":`, s.DueAt)
	}
	moment(`,"expires_at":`, s.ExpiresAt)
	if s.FinalAt != nil {
		moment(`,"final_at":`, *s.FinalAt)
	}
	if s.Finding != nil {
		if f, err := json.Marshal(s.Finding); err == nil {
			b = append(append(b, `,"finding":`...), f...)
		}
	}
	some(`,"idempotency_key":`, s.IdempotencyKey)
	some(`,"trace":`, string(s.Trace))
	flag(`,"held":`, s.Held)
	return append(b, '}')
}
