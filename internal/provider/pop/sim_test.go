package pop

import (
	"context"
	"crypto/tls"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/wire/wiretest"
	"github.com/mailgrant/mailgrant/sim"
)

const simScanner = "scanner@contoso.example"

// inSim is a mailbox of three messages in an imitation of Exchange, by a right of
// the app itself, and the way to it.
func inSim(t *testing.T) (*sim.Sim, Config, provider.Way) {
	t.Helper()
	s, err := sim.Start(context.Background(), sim.Config{World: sim.Contoso()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	for i := range 3 {
		raw := fmt.Sprintf("From: Pat <pat@fabrikam.example>\r\nTo: %s\r\nSubject: %d\r\n\r\n.\r\n%s", simScanner, i, strings.Repeat("Hi\r\n", 500))
		if _, err := s.Deliver(simScanner, []byte(raw)); err != nil {
			t.Fatal(err)
		}
	}
	w := wayTo(s.POPAddr(), "tls")
	wiretest.AsApp(t, &w, simScanner, s.LoginURL()+"/contoso.example/oauth2/v2.0/token", s.CertPool(), url.Values{"grant_type": {"client_credentials"},
		"client_id": {sim.ContosoSystemClientID}, "client_secret": {sim.ContosoSystemClientSecret}, "scope": {"https://outlook.office365.com/.default"}})
	c := Config{limits: usual, TLS: func(name, _ string) *tls.Config { return &tls.Config{ServerName: name, RootCAs: s.CertPool()} }}
	c.limits.command, c.limits.greeting = time.Second, time.Second
	return s, c, w
}

// Whatever goes wrong once, the messages come whole, each once, and are deleted in
// the end and not before.
func TestTheImitationFails(t *testing.T) {
	for _, fault := range []string{"", "pop-refuse", "pop-dead", "pop-auth-failed", "pop-in-use", "pop-unavailable", "pop-throttled", "pop-closed", "pop-drop", "pop-half", "pop-endless",
		"pop-hang", "pop-drop-quit", "pop-lost-quit", "pop-size", "pop-uidl-same"} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			s, c, w := inSim(t)
			if fault != "" {
				if err := s.SetFault(sim.Fault{Name: fault, Times: 1}); err != nil {
					t.Fatal(err)
				}
			}
			lie := s.MailIn(simScanner, sim.FolderInbox)
			led := newLedger(t)
			led.sum = func(_ provider.Incoming, b []byte) string {
				for i, m := range lie {
					if string(m.Raw) == string(b) {
						return strconv.Itoa(i)
					}
				}
				return "what is not there"
			}
			r := led.reading()
			r.Max = 1 << 20
			deleted, tries := false, 0
			for ; tries < 8 && !deleted; tries++ {
				err := readAndDelete(t, c, w, r, led)
				if deleted = err == nil; !deleted {
					t.Log(problem(err))
				}
			}
			var took []string
			for _, l := range led.said {
				_, what, _ := strings.Cut(l, "=")
				what, _, _ = strings.Cut(what, "@")
				took = append(took, what)
			}
			if got := strings.Join(took, " "); got != "0 1 2" || !deleted || len(s.MailIn(simScanner, sim.FolderInbox)) != 0 {
				t.Errorf("after %d tries: got %q, %d are left", tries, led.said, len(s.MailIn(simScanner, sim.FolderInbox)))
			}
		})
	}
}

// readAndDelete is one opening of the mailbox.
func readAndDelete(t *testing.T, c Config, w provider.Way, r provider.Reading, led *ledger) error {
	in, err := Reader(c).Open(t.Context(), w, r)
	if err != nil {
		return err
	}
	defer in.Close()
	for more := true; more; {
		if _, more, err = in.Next(t.Context(), "", led.take); err != nil {
			return err
		}
	}
	return in.Done(t.Context(), slices.Collect(maps.Keys(led.known)), mailgrant.AfterDelete, "")
}
