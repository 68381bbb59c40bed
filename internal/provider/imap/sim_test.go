package imap

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
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
	deliverSim(t, s, "0", "1", "2")
	w := wayTo(s.IMAPAddr(), "tls")
	wiretest.AsApp(t, &w, simScanner, s.LoginURL()+"/contoso.example/oauth2/v2.0/token", s.CertPool(), url.Values{"grant_type": {"client_credentials"},
		"client_id": {sim.ContosoSystemClientID}, "client_secret": {sim.ContosoSystemClientSecret}, "scope": {"https://outlook.office365.com/.default"}})
	c := Config{limits: usual, TLS: func(name, _ string) *tls.Config { return &tls.Config{ServerName: name, RootCAs: s.CertPool()} }}
	c.limits.command, c.limits.login = 2*time.Second, 2*time.Second
	return s, c, w
}

func deliverSim(t *testing.T, s *sim.Sim, subjects ...string) {
	t.Helper()
	for _, subject := range subjects {
		raw := fmt.Sprintf("From: Pat <pat@fabrikam.example>\r\nTo: %s\r\nSubject: %s\r\n\r\n.\r\n%s", simScanner, subject, strings.Repeat("Hi\r\n", 500))
		if _, err := s.Deliver(simScanner, []byte(raw)); err != nil {
			t.Fatal(err)
		}
	}
}

// Whatever goes wrong once, the messages come whole, each once and in their order
// under the name that is theirs, also those that come later.
func TestTheImitationFails(t *testing.T) {
	var names []string
	for _, name := range sim.FaultNames() {
		if strings.HasPrefix(name, "imap-") {
			names = append(names, name)
		}
	}
	if len(names) < 10 {
		t.Fatalf("the imitation has few faults: %q", names)
	}
	for _, fault := range append(names, "") {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			s, c, w := inSim(t)
			if fault != "" {
				if err := s.SetFault(sim.Fault{Name: fault, Times: 1}); err != nil {
					t.Fatal(err)
				}
			}
			r := &simReader{t: t, s: s, c: c, w: w, known: map[string]bool{}}
			r.until(3)
			deliverSim(t, s, "3")
			r.until(4)
			if got := strings.Join(r.took, " "); got != "0 1 2 3" {
				t.Errorf("got %s", got)
			}
			r.move("Erledigt/Hier")
			if r.box != nil {
				r.box.Close()
			}
			if in, moved := len(s.MailIn(simScanner, sim.FolderInbox)), r.last; in != 0 {
				t.Errorf("%d are left, %v", in, moved)
			}
		})
	}
}

// A simReader reads like the inbox: again after each failure, and nothing twice.
type simReader struct {
	t      *testing.T
	s      *sim.Sim
	c      Config
	w      provider.Way
	box    provider.Inbox
	cursor provider.Cursor
	known  map[string]bool
	took   []string
	names  []string
	last   error
}

func (r *simReader) open() error {
	if r.box != nil {
		return nil
	}
	var err error
	r.box, err = Reader(r.c).Open(r.t.Context(), r.w, provider.Reading{Max: 1 << 20, Poll: time.Second,
		Known: func(_ context.Context, l []string) (map[string]bool, error) { return r.known, nil }})
	if err != nil {
		r.box = nil
	}
	return err
}

// until reads until n messages were taken.
func (r *simReader) until(n int) {
	r.t.Helper()
	for tries := 0; len(r.took) < n; tries++ {
		err := r.open()
		if err == nil {
			r.cursor, _, err = r.box.Next(r.t.Context(), r.cursor, r.take)
		}
		if err == nil && len(r.took) < n {
			ctx, cancel := context.WithTimeout(r.t.Context(), 3*time.Second)
			if err = r.box.Wait(ctx); errors.Is(err, context.DeadlineExceeded) {
				err = errors.New("nothing came")
			}
			cancel()
		}
		if err != nil {
			if r.last = err; tries > 8 {
				r.t.Fatalf("%d of %d after %d tries, %s: %v", len(r.took), n, tries, r.cursor, err)
			}
			if r.box != nil {
				r.box.Close()
				r.box = nil
			}
		}
	}
}

func (r *simReader) take(in provider.Incoming) error {
	if in.Err != nil || in.Body == nil {
		r.t.Errorf("%s: without its bytes: %v", in.Remote, in.Err)
		return nil
	}
	b, err := io.ReadAll(in.Body)
	if err != nil {
		return err
	}
	what := "what is not there"
	for _, m := range r.s.MailIn(simScanner, sim.FolderInbox) {
		if string(m.Raw) == string(b) {
			what = m.Subject
		}
	}
	if r.known[in.Remote] {
		r.t.Errorf("%s came twice", in.Remote)
	}
	r.known[in.Remote] = true
	r.names = append(r.names, in.Remote)
	if !slices.Contains(r.took, what) { // under another UIDVALIDITY all come again; the inbox knows them
		r.took = append(r.took, what)
	}
	return nil
}

// move does what is to be done after reading, until it succeeds.
func (r *simReader) move(to string) {
	r.t.Helper()
	for tries := 0; ; tries++ {
		err := r.open()
		if err == nil {
			err = r.box.Done(r.t.Context(), r.names, mailgrant.AfterMove, to)
		}
		if err == nil {
			return
		}
		if tries > 5 {
			r.t.Fatalf("after %d tries: %v", tries, err)
		}
		if r.box != nil {
			r.box.Close()
			r.box = nil
		}
	}
}
