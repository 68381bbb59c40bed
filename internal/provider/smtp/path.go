package smtp

import (
	"io"

	"github.com/mailgrant/mailgrant/internal/diagnose"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/rfc5322"
)

// path is an address as it stands between < and >. One that would end the
// command, or that the server cannot read, gives why.
func path(addr string, utf8 bool) (string, string) {
	if plain(addr) {
		return addr, ""
	}
	a, err := rfc5322.ParseAddress(addr)
	if err != nil || a.Name != "" {
		return "", "it is not an address"
	}
	if a.UTF8 && !utf8 {
		return "", "it has letters outside ASCII, and the server does not offer SMTPUTF8"
	}
	return a.String(), ""
}

// plain is the usual address, known at a glance.
func plain(s string) bool {
	at := 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '@':
			at++
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '-', c == '_', c == '+', c == '=', c == '\'':
		default:
			return false
		}
	}
	return at == 1 && len(s) <= 254 && s[0] != '@' && s[len(s)-1] != '@'
}

// withoutUTF8 judges a message with letters outside ASCII for a server without
// SMTPUTF8. Addresses of that kind cannot be sent; an 8-bit header alone goes as
// 8-bit text, as it came.
func (s *session) withoutUTF8(h *provider.Handover) *provider.Outcome {
	const raw = "553 5.6.7 non-ASCII addresses not permitted"
	bad := func() *provider.Outcome {
		return refused("message-invalid", "Address with letters outside ASCII",
			"The message has an address with letters outside ASCII, and "+s.Host+" does not take those.", "Use an address in ASCII.", raw)
	}
	if _, why := path(h.From, false); why != "" && h.From != "" {
		return bad()
	}
	r, err := h.Open()
	if err != nil {
		return nil // it will be said when it is opened to be sent
	}
	defer r.Close()
	first, err := io.ReadAll(io.LimitReader(r, rfc5322.MaxHeader))
	if err != nil {
		return nil
	}
	head, err := rfc5322.ParseHeader(rfc5322.Block(first))
	if err != nil || head.UTF8 {
		return bad()
	}
	if head.EightBit && !s.caps.eightBit {
		return refused("message-invalid", "Message with 8-bit text", "The header has 8-bit text and "+s.Host+" takes 7-bit only.",
			"Send it with encoded words in the header.", "554 5.6.3 conversion required but not done")
	}
	return nil
}

// failure is what is known of a fault of the way.
func (s *session) failure() diagnose.Failure {
	return diagnose.Failure{Protocol: "network", Context: map[string]any{"host": s.Host, "step": s.Step, "mailbox": s.Way.Mailbox.Address}}
}
