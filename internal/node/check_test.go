package node_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
	"github.com/mailgrant/mailgrant/sim"
)

// failures are the steps of a check that failed, each with its cause.
func failures(r mailgrant.CheckReport) string {
	var out []string
	for _, s := range r.Steps {
		if s.State == mailgrant.StepFailed {
			out = append(out, fmt.Sprintf("%s %s: %s", s.Direction, s.Name, s.Finding.Cause))
		}
		if s.Text == "" || (s.State == mailgrant.StepFailed) != (s.Finding != nil) || s.Finding != nil && s.Finding.Remedy == "" {
			out = append(out, "without a word: "+s.Name)
		}
	}
	return strings.Join(out, ", ")
}

func step(r mailgrant.CheckReport, direction, name string) mailgrant.CheckStep {
	for _, s := range r.Steps {
		if s.Direction == direction && s.Name == name {
			return s
		}
	}
	return mailgrant.CheckStep{}
}

// R94, R105: a mailbox that sends and is read is tested as far as its own message
// in the mail table, of which applications do not hear.
func TestR105CheckOfAMailboxThatSendsAndIsRead(t *testing.T) {
	for _, protocol := range []string{"imap", "pop", "graph"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			x := receiving(t, mailgrant.Receive{Protocol: protocol}, mailgrant.CanAPISend)
			r, err := x.api.Check(t.Context(), scanner, false, nil)
			must(t, err)
			if got := failures(r); got != "" || !r.OK || r.Protocol != protocol || r.WhyProtocol == "" {
				t.Errorf("failed: %s; %+v", got, r)
			}
			seen := map[string]bool{}
			for _, s := range r.Steps {
				if seen[s.Direction+s.Name] {
					t.Errorf("%s is there twice", s.Name)
				}
				seen[s.Direction+s.Name] = true
			}
			if protocol == "graph" && (seen["receive"+mailgrant.StepTLS] || seen["receive"+mailgrant.StepToken]) {
				t.Error("what both directions share was tried twice")
			}
			for name, want := range map[string]string{mailgrant.StepArrive: "ignored", mailgrant.StepFrom: scanner, mailgrant.StepJunk: "it came into In", mailgrant.StepAuthResults: "dmarc=none",
				mailgrant.StepSent: map[bool]string{true: "POP shows only the inbox", false: "a copy is in Sent Items"}[protocol == "pop"]} {
				if s := step(r, mailgrant.CheckRoundTrip, name); !strings.Contains(strings.ToLower(s.Text), strings.ToLower(want)) {
					t.Errorf("%s: %q, want %q", name, s.Text, want)
				}
			}
			l, err := x.api.Arrivals(t.Context(), client.ArrivalFilter{})
			must(t, err)
			if len(l.Items) != 1 || l.Items[0].State != mailgrant.ArrivalIgnored {
				t.Errorf("the table has %+v", l.Items)
			}
			must(t, second(x.sim.Deliver(scanner, letter("case-1"))))
			for _, e := range events(t, x) {
				if e.Kind == "arrival.new" && !strings.Contains(string(e.Data), "case-1") {
					t.Errorf("applications hear of %s", e.Data)
				}
			}
		})
	}
}

func second(_ sim.Message, err error) error { return err }

// events are those up to the first arrival of which applications hear.
func events(t *testing.T, x *reading) (l []mailgrant.Event) {
	t.Helper()
	m := x.box
	poll := mailgrant.Duration(10 * time.Second)
	m.Receive.Poll = poll // the reader looks again at once
	_, err := x.api.UpdateMailbox(t.Context(), string(m.ID), client.MailboxSettings{Receive: m.Receive})
	must(t, err)
	x.api.Watch(t.Context(), client.EventFilter{}, func(e mailgrant.Event) error {
		l = append(l, e)
		if e.Kind == "arrival.new" {
			return fmt.Errorf("enough")
		}
		return nil
	})
	return l
}

func TestCheckOfAMailboxThatCannotBeRead(t *testing.T) {
	change := func(f func(*sim.Mailbox)) func(*testing.T, *reading) {
		return func(t *testing.T, x *reading) { must(t, x.sim.World().ChangeMailbox(scanner, f)) }
	}
	fault := func(name string) func(*testing.T, *reading) {
		return func(t *testing.T, x *reading) { must(t, x.sim.SetFault(sim.Fault{Name: name})) }
	}
	imap, graph := mailgrant.Receive{Protocol: "imap"}, mailgrant.Receive{Protocol: "graph"}
	for name, c := range map[string]struct {
		receive mailgrant.Receive
		break_  func(*testing.T, *reading)
		want    string
		text    string // of the first failure, or its finding
	}{
		"IMAP is switched off":                {imap, change(func(m *sim.Mailbox) { m.IMAPDisabled = true }), "receive open the mailbox: mailbox-permission-missing", "IMAP is ticked"},
		"POP is switched off":                 {mailgrant.Receive{Protocol: "pop"}, change(func(m *sim.Mailbox) { m.POPDisabled = true }), "receive authenticate: service-principal-not-registered", ""},
		"R96 authenticated but not connected": {imap, fault("imap-not-connected"), "receive open the mailbox: mailbox-permission-missing", "User is authenticated but not connected"},
		"no licence":                          {graph, change(func(m *sim.Mailbox) { m.SoftDeleted = true }), "receive open the mailbox: mailbox-not-licensed", ""},
		"folder missing":                      {mailgrant.Receive{Protocol: "imap", Folders: []string{"Fax"}}, nil, "receive folders: endpoint-misconfigured", "Junk Email"},
		"folder missing by Graph":             {mailgrant.Receive{Protocol: "graph", Folders: []string{"Fax"}}, nil, "receive folders: endpoint-misconfigured", "Junk Email"},
		"the login is refused":                {imap, fault("imap-auth-failed"), "receive authenticate: service-principal-not-registered", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := receiving(t, c.receive)
			if c.break_ != nil {
				c.break_(t, x)
			}
			r, err := x.api.Check(t.Context(), scanner, false, nil)
			must(t, err)
			if got := failures(r); got != c.want || r.OK {
				t.Errorf("failed: %s\nwant    %s\n%+v", got, c.want, r.Steps)
			}
			for _, s := range r.Steps {
				if s.State == mailgrant.StepFailed && !strings.Contains(fmt.Sprint(s.Text, *s.Finding), c.text) {
					t.Errorf("%s: %q is not in %+v", s.Name, c.text, s)
				}
			}
		})
	}
}

// A message that the provider takes for spam is found in the junk folder.
func TestCheckFindsItsMessageInTheJunkFolder(t *testing.T) {
	for _, protocol := range []string{"imap", "graph"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			x := receiving(t, mailgrant.Receive{Protocol: protocol}, mailgrant.CanAPISend)
			must(t, x.sim.World().ChangeMailbox(scanner, func(m *sim.Mailbox) { m.DeliverTo = sim.FolderJunk }))
			r, err := x.api.Check(t.Context(), scanner, false, nil)
			must(t, err)
			if got := failures(r); got != "round trip junk folder: mail-in-junk" {
				t.Errorf("failed: %s\n%+v", got, r.Steps)
			}
			if s := step(r, mailgrant.CheckRoundTrip, mailgrant.StepFrom); !strings.Contains(s.Text, scanner) {
				t.Errorf("From: %q", s.Text)
			}
		})
	}
}

// A consent of a mailbox that is to be read is proved by its reader, though it
// covers sending as well.
func TestConsentIsProvedByTheReader(t *testing.T) {
	x := receiving(t, mailgrant.Receive{Protocol: "imap", Folders: []string{"Fax"}}, mailgrant.CanAPISend)
	_, err := x.api.Activate(t.Context(), x.box.Grant)
	must(t, err) // that a folder is missing is no matter of the consent
	must(t, x.sim.SetFault(sim.Fault{Name: "imap-not-connected"}))
	if _, err := x.api.Activate(t.Context(), x.box.Grant); err == nil || !strings.Contains(err.Error(), "does not open") {
		t.Errorf("activated although the mailbox does not open: %v", err)
	}
}
