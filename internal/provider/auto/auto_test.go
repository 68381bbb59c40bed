package auto

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
)

func TestChoose(t *testing.T) {
	all := map[string]provider.Transport{"smtp": {Name: "smtp"}, "graph": {Name: "graph"}, "graph-upload": {Name: "graph-upload"}, "gmail": {Name: "gmail"}}
	const plain = "From: a@contoso.example\r\nTo: b@example.net\r\n\r\nHi\r\n"
	const signed = "From: a@contoso.example\r\nTo: b@example.net\r\nContent-Type: multipart/signed\r\n\r\nHi\r\n"
	both := []mailgrant.Capability{mailgrant.CanSMTP, mailgrant.CanAPISend}
	api := []mailgrant.Capability{mailgrant.CanAPISend}
	for _, c := range []struct {
		name  string
		named string
		can   []mailgrant.Capability
		set   provider.Settings
		hold  string
		size  int64
		msg   string
		flags string
		to    string
		want  string
	}{
		{name: "plain", can: both, set: provider.Settings{SMTPHost: "s", GraphURL: "g"}, want: "graph"},
		{name: "signed", can: both, set: provider.Settings{SMTPHost: "s", GraphURL: "g"}, msg: signed, want: "smtp"},
		{name: "8-bit", can: both, set: provider.Settings{SMTPHost: "s", GraphURL: "g"}, flags: "8", want: "smtp"},
		{name: "header names another", can: both, set: provider.Settings{SMTPHost: "s", GraphURL: "g"}, to: "c@example.net", want: "smtp"},
		{name: "large", can: both, set: provider.Settings{SMTPHost: "s", GraphURL: "g"}, size: 5 << 20, want: "smtp"},
		{name: "large, SMTP off", can: append(both, mailgrant.CanAPIRead), set: provider.Settings{SMTPHost: "s", GraphURL: "g"}, size: 5 << 20, hold: "smtp-auth-disabled-tenant", want: "graph-upload"},
		{name: "SMTP off", can: both, set: provider.Settings{SMTPHost: "s", GraphURL: "g"}, hold: "smtp-auth-disabled-mailbox", want: "graph"},
		{name: "other hold", can: both, set: provider.Settings{SMTPHost: "s", GraphURL: "g"}, hold: "grant-revoked", want: "graph"},
		{name: "API only", can: api, set: provider.Settings{SMTPHost: "s", GraphURL: "g"}, want: "graph"},
		{name: "API only, large", can: api, set: provider.Settings{GraphURL: "g"}, size: 5 << 20, want: "too_large"},
		{name: "SMTP only", can: []mailgrant.Capability{mailgrant.CanSMTP}, set: provider.Settings{SMTPHost: "s", GraphURL: "g"}, size: 5 << 20, want: "smtp"},
		{name: "Google", can: both, set: provider.Settings{SMTPHost: "s", GmailURL: "g"}, want: "smtp"},
		{name: "Google, API only", can: api, set: provider.Settings{SMTPHost: "s", GmailURL: "g"}, want: "gmail"},
		{name: "nothing", set: provider.Settings{SMTPHost: "s", GraphURL: "g"}, want: "misset"},
		{name: "named", named: "smtp", can: both, set: provider.Settings{SMTPHost: "s", GraphURL: "g"}, want: "smtp"},
		{name: "named graph", named: "graph", can: both, set: provider.Settings{SMTPHost: "s", GraphURL: "g"}, msg: signed, want: "graph"},
		{name: "named nonsense", named: "fax", can: both, set: provider.Settings{SMTPHost: "s", GraphURL: "g"}, want: "misset"},
	} {
		t.Run(c.name, func(t *testing.T) {
			msg, to := c.msg, c.to
			if msg == "" {
				msg = plain
			}
			if to == "" {
				to = "b@example.net"
			}
			w := provider.Way{Mailbox: mailgrant.Mailbox{Address: "a@contoso.example", Transport: c.named}, Grant: mailgrant.Grant{Capabilities: c.can, Flow: mailgrant.FlowApp}, Settings: c.set}
			if c.hold != "" {
				w.Mailbox.Hold = &mailgrant.Hold{Finding: mailgrant.Finding{Cause: c.hold}}
			}
			h := &provider.Handover{From: "a@contoso.example", Recipients: []string{to}, Size: max(c.size, int64(len(msg))), EightBit: c.flags == "8",
				Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(msg)), nil }}
			got, why, err := Choose(w, h, all)
			var e *mailgrant.Error
			switch {
			case errors.As(err, &e):
				if string(e.Code) != c.want || e.Remedy == "" {
					t.Errorf("got %v %q, want %s", e.Code, e.Message, c.want)
				}
			case got.Name != c.want || !strings.HasSuffix(why, "."):
				t.Errorf("got %s (%s), want %s", got.Name, why, c.want)
			}
		})
	}
}
