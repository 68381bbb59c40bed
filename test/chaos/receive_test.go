package chaos

import (
	"os"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
)

// noPush are settings of Dovecot with which it does not tell of new mail.
var noPush = []string{"imap_capability = IMAP4rev1 SASL-IR LITERAL+ ID ENABLE UIDPLUS MOVE UNSELECT CHILDREN NAMESPACE LIST-EXTENDED SPECIAL-USE"}

var ways = map[string]way{
	"imap-leave":       {protocol: "imap", can: mailgrant.CanIMAP, after: mailgrant.AfterLeave, pushes: true},
	"imap-delete":      {protocol: "imap", can: mailgrant.CanIMAP, after: mailgrant.AfterDelete, pushes: true},
	"imap-polled-move": {protocol: "imap", can: mailgrant.CanIMAP, after: mailgrant.AfterMove, settings: noPush},
	"pop-leave":        {protocol: "pop", can: mailgrant.CanPOP, after: mailgrant.AfterLeave},
	"pop-delete":       {protocol: "pop", can: mailgrant.CanPOP, after: mailgrant.AfterDelete},
}

// amount is how many messages come in how many lives: a thousand where somebody
// asks for chaos.
func amount() (messages, lives int) {
	if os.Getenv("MAILGRANT_CHAOS") != "" {
		return 1000, max(cycles()/4, 4)
	}
	return 60, 4
}

// TestChaosReceive brings mail to a real Dovecot while the connection to it, its
// processes, mailgrant and the application are killed. The application sees each
// message exactly once, and nothing is deleted that it does not see.
func TestChaosReceive(t *testing.T) {
	t.Parallel()
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			m := newMailroom(t, way, seed)
			messages, lives := amount()
			c := m.writer()
			m.app.behave(false)
			for i := range lives {
				m.life(i, c, messages*(i+1)/lives-m.sent)
			}
			m.drain()
			m.reckon()
		})
	}
}
