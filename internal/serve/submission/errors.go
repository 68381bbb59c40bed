package submission

import (
	"strings"

	"github.com/mailgrant/mailgrant"
)

// A reply is the number and the enhanced status of an answer.
type reply struct{ code, status string }

// replies is what a refused message is answered with: RFC 5321 section 4.2,
// RFC 3463.
var replies = map[mailgrant.Code]reply{
	mailgrant.Invalid:      {"554", "5.6.0"},
	mailgrant.Unauthorized: {"535", "5.7.8"},
	mailgrant.Forbidden:    {"550", "5.7.1"},
	mailgrant.NotFound:     {"550", "5.7.1"},
	mailgrant.Conflict:     {"554", "5.5.0"},
	mailgrant.TooLarge:     {"552", "5.3.4"},
	mailgrant.Limited:      {"451", "4.7.1"},
	mailgrant.NoRoute:      {"550", "5.7.1"},
	mailgrant.Lapsed:       {"550", "5.7.0"},
	mailgrant.Misset:       {"550", "5.3.5"},
	mailgrant.Unavailable:  {"451", "4.3.0"},
	mailgrant.NoSpace:      {"452", "4.3.1"},
	mailgrant.Internal:     {"451", "4.3.0"}, // the sender keeps the message: it is not lost by our mistake
}

// loginReplies is what a refused login is answered with: RFC 4954 section 6.
var loginReplies = map[mailgrant.Code]reply{
	mailgrant.Limited:     {"421", "4.7.0"},
	mailgrant.Unavailable: {"454", "4.7.0"},
	mailgrant.NoSpace:     {"454", "4.7.0"},
	mailgrant.Internal:    {"454", "4.7.0"},
}

// pages are those that explain a refusal which comes without a finding. Other
// codes have none: what is to be done stands in the line.
var pages = map[mailgrant.Code]string{
	mailgrant.Invalid:  "errors/message-invalid",
	mailgrant.TooLarge: "errors/message-too-large",
}

// maxReply is a reply line with its CRLF: RFC 5321 section 4.5.3.1.5.
const maxReply = 512

// answer says an error in one line.
func (s *session) answer(err error) {
	s.refused(mailgrant.AsError(err).Code)
	s.say(s.srv.line(err))
}

func (s *session) refused(code mailgrant.Code) {
	if h := s.srv.Hooks.Refused; h != nil {
		h(code)
	}
}

// page is the address of a page of the documents, to stand behind a text.
func (s *Server) page(name string) string {
	if s.PublicURL == "" || name == "" {
		return ""
	}
	return ". " + s.PublicURL + "/docs/" + name
}

func (s *Server) line(err error) string {
	e := mailgrant.AsError(err)
	r, ok := replies[e.Code]
	if !ok {
		r = replies[mailgrant.Internal]
	}
	return s.format(r, e)
}

func (s *Server) loginLine(e *mailgrant.Error) string {
	r, ok := loginReplies[e.Code]
	if !ok {
		r = replies[mailgrant.Unauthorized]
	}
	return s.format(r, e)
}

// format puts message, remedy and page into one line. The page stays whole; the
// texts are cut to fit.
func (s *Server) format(r reply, e *mailgrant.Error) string {
	name := pages[e.Code]
	if f := e.Finding; f != nil && f.Link != "" {
		name = f.Link
	}
	page := s.page(name)
	text := plain(e.Message)
	if e.Remedy != "" {
		text += ". " + plain(e.Remedy)
	}
	head := r.code + " " + r.status + " "
	if room := maxReply - len(head) - len(page) - len("\r\n"); len(text) > room {
		text = text[:max(0, room-3)] + "..."
	}
	return head + text + page + "\r\n"
}

// plain makes text fit for a reply: one line of printable ASCII.
func plain(text string) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case r == '\u2013' || r == '\u2014':
			return '-'
		case r == '\u2018' || r == '\u2019':
			return '\''
		case r == '\u201c' || r == '\u201d':
			return '"'
		case r < ' ' || r == 0x7f:
			return ' '
		case r > 0x7f:
			return '?'
		}
		return r
	}, strings.ReplaceAll(text, "\u2026", "..."))
	return strings.TrimSuffix(strings.TrimSpace(text), ".")
}
