package inbox_test

import (
	"testing"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/inbox"
	"github.com/mailgrant/mailgrant/internal/provider"
)

// A grant for sending is not read with, by whatever protocol, though the provider
// might let it.
func TestOA23SendOnlyGrantIsNotRead(t *testing.T) {
	readers := map[string]provider.Reader{}
	for _, name := range []string{"graph", "imap", "pop"} {
		readers[name] = provider.Reader{Name: name}
	}
	set := provider.Settings{GraphURL: "https://graph.example", IMAPHost: "imap.example", POPHost: "pop.example", SMTPHost: "smtp.example"}
	covers := map[string]mailgrant.Capability{"graph": mailgrant.CanAPIRead, "imap": mailgrant.CanIMAP, "pop": mailgrant.CanPOP}
	for _, protocol := range []string{"auto", "graph", "imap", "pop"} {
		way := func(can ...mailgrant.Capability) provider.Way {
			return provider.Way{Settings: set, Grant: mailgrant.Grant{Capabilities: can},
				Mailbox: mailgrant.Mailbox{Address: "office@contoso.example", Receive: &mailgrant.Receive{Protocol: protocol}}}
		}
		if r, _, err := inbox.Choose(way(mailgrant.CanSMTP, mailgrant.CanAPISend, mailgrant.CanSignIn), readers); err == nil || mailgrant.AsError(err).Code != mailgrant.Misset || mailgrant.AsError(err).Remedy == "" {
			t.Errorf("%s: read by %q, %v", protocol, r.Name, err)
		}
		for name, can := range covers {
			r, _, err := inbox.Choose(way(mailgrant.CanSMTP, can), readers)
			if allowed := protocol == "auto" || protocol == name; (err == nil) != allowed || allowed && r.Name != name {
				t.Errorf("%s with %s: read by %q, %v", protocol, can, r.Name, err)
			}
		}
	}
}
