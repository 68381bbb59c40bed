package inbox

import (
	"slices"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
)

// Choose is the reader of a mailbox, and why it is this one: the one its settings
// name, else the best its grant allows.
func Choose(w provider.Way, readers map[string]provider.Reader) (r provider.Reader, why string, err error) {
	can := func(c mailgrant.Capability) bool { return slices.Contains(w.Grant.Capabilities, c) }
	offers := []struct {
		name  string
		can   mailgrant.Capability
		host  string
		label string
		why   string
	}{
		{"imap", mailgrant.CanIMAP, w.Settings.IMAPHost, "IMAP", "as the grant covers it and the server tells of new mail at once"},
		{"graph", mailgrant.CanAPIRead, w.Settings.GraphURL, "Graph", "as the grant covers it and not IMAP"},
		{"pop", mailgrant.CanPOP, w.Settings.POPHost, "POP", "as the grant covers no other way"},
	}
	asked := w.Mailbox.Receive.Protocol
	for _, o := range offers {
		r, have := readers[o.name]
		if !have || asked != "auto" && asked != o.name {
			continue
		}
		if asked == o.name && !can(o.can) {
			return r, "", mailgrant.Errorf(mailgrant.Misset, nil, "the grant of %s does not cover reading by %s", w.Mailbox.Address, asked).
				Fix("let its owner consent to it: mailgrant grant begin %s --capability %s", w.Mailbox.Address, o.can).At("receive.protocol")
		}
		if asked == o.name && o.host == "" {
			return r, "", mailgrant.Errorf(mailgrant.Misset, nil, "%s does not offer %s, as far as is known", w.Settings.Name, asked).
				Fix("choose another protocol, or set the address by an override of the registration").At("receive.protocol")
		}
		if asked == o.name {
			return r, o.label + ", as the mailbox says.", nil
		}
		if can(o.can) && o.host != "" {
			return r, o.label + ", " + o.why + ".", nil
		}
	}
	return provider.Reader{}, "", mailgrant.Errorf(mailgrant.Misset, nil, "the grant of %s covers no way to read mail", w.Mailbox.Address).
		Fix("let its owner consent to one: mailgrant grant begin %s --capability imap", w.Mailbox.Address).At("receive")
}
