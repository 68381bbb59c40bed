package submission

import (
	"strings"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/diagnose"
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

// Pages of what this door refuses by itself.
const (
	pageAddress    = "refused-address"
	pageCommand    = "refused-command"
	pageInternal   = "refused-internal"
	pageMessage    = "refused-message-invalid"
	pageNoLogin    = "refused-no-login"
	pageRecipients = "refused-recipients"
	pageTooMuch    = "refused-too-much"
	pageTries      = "refused-too-many-tries"
	pageNotNow     = "refused-unavailable"
)

// faultPages explain the fixed answers to a command, by what they begin with. All
// others are slips in the protocol.
var faultPages = []struct{ begins, page string }{
	{"530 ", pageNoLogin}, {"538 ", pageNoLogin},
	{"501 5.1.", pageAddress}, {"553 5.1.", pageAddress}, {"550 5.6.7 ", pageAddress}, {"553 5.6.7 ", pageAddress},
}

// maxReply is a reply line with its CRLF: RFC 5321 section 4.5.3.1.5.
const maxReply = 512

// minText is the least that a line has besides its page.
const minText = 128

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

// about is a fixed line with the page that explains it.
func (s *Server) about(line, page string) string {
	return s.fit("", strings.TrimSuffix(line, "\r\n"), page)
}

// fault is the answer to a slip in the protocol.
func (s *Server) fault(line string) string {
	for _, f := range faultPages {
		if strings.HasPrefix(line, f.begins) {
			return s.about(line, f.page)
		}
	}
	return s.about(line, pageCommand)
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

// format puts message, remedy and page into one line.
func (s *Server) format(r reply, e *mailgrant.Error) string {
	page := diagnose.About(e)
	if e.Code == mailgrant.Invalid && e.Finding == nil && e.Page == "" {
		page = pageMessage // there is no other request here
	}
	text := plain(e.Message)
	if e.Remedy != "" {
		text += ". " + plain(e.Remedy)
	}
	return s.fit(r.code+" "+r.status+" ", text, page)
}

// fit makes a line of a text and the page about it. The page stays whole; the text
// is cut. A page that leaves no room for any text is left out.
func (s *Server) fit(head, text, page string) string {
	if s.PublicURL == "" {
		page = ""
	} else if page = ". " + s.PublicURL + "/docs/errors/" + page; len(page) > maxReply-minText {
		page = ""
	}
	if room := maxReply - len(head) - len(page) - len("\r\n"); len(text) > room {
		text = text[:room-3] + "..."
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
