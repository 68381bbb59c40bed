package check

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/rfc5322"
)

// readSettings finds the reader.
func (r *run) readSettings(l *leg) result {
	reader, why, err := r.ChooseReader(r.way, r.Readers)
	if err != nil {
		return result{err: err}
	}
	r.reader, r.report.Protocol, r.report.WhyProtocol = reader, reader.Name, why
	set := r.way.Settings
	l.protocol = reader.Name
	switch l.protocol {
	case "imap":
		l.resource = set.Resources[mailgrant.CanIMAP]
		return result{text: r.place(l, set.IMAPHost, set.IMAPPort, set.IMAPSecurity != "starttls")}
	case "pop":
		l.resource = set.Resources[mailgrant.CanPOP]
		return result{text: r.place(l, set.POPHost, set.POPPort, set.POPSecurity == "tls")}
	}
	l.resource = set.Resources[mailgrant.CanAPIRead]
	return result{text: r.place(l, "", 0, true)}
}

// login proves who we are, and no more: that a login is accepted does not say that
// the mailbox opens. IMAP and POP want the mailbox's own address, whoever signed
// in. R159, R105.
func (r *run) login(ctx context.Context) result {
	if r.reader.Login == nil {
		return result{skip: "each request shows the token, so opening the mailbox shows it"}
	}
	if err := r.undisturbed(ctx, func() error { return r.reader.Login(ctx, r.way) }); err != nil {
		return result{err: err}
	}
	return result{text: "logged in as " + r.box.Address}
}

// open opens the inbox, as the reader does. R96.
func (r *run) open(ctx context.Context, _ *leg) result {
	if err := r.visit(ctx, nil, time.Now(), nil); err != nil {
		return result{err: r.notConnected(err)}
	}
	return result{text: "the mailbox opens"}
}

// notConnected adds to the refusal that has several causes all that it can mean:
// Exchange does not say which. R96.
func (r *run) notConnected(err error) error {
	e := mailgrant.AsError(err)
	if e.Finding == nil || !strings.Contains(strings.ToLower(e.Finding.Raw), "authenticated but not connected") {
		return err
	}
	f := *e.Finding
	who := clean(first(r.way.Grant.Subject.UPN, r.way.Grant.Subject.Address, "the app itself"))
	if r.way.Grant.Flow == mailgrant.FlowApp {
		who = "the app itself"
	}
	f.Steps = append(slices.Clip(f.Steps),
		mailgrant.Step{Place: "mailgrant", Text: "The same answer has other causes. The token speaks for " + who + ": it must have been given by the licensed user whose mailbox this is, or by one with Full Access to it.",
			Command: "mailgrant grant show " + r.box.Address},
		mailgrant.Step{Place: "Microsoft 365 admin centre > Users > Active users > the user > Licenses and apps", Text: "See that the user has a licence with Exchange Online; a shared mailbox needs none."},
		mailgrant.Step{Place: "Microsoft 365 admin centre > Users > Active users > the user > Mail > Manage email apps", Text: "See that " + strings.ToUpper(r.in.protocol) + " is ticked."},
		mailgrant.Step{Place: "Exchange admin centre > Recipients > Mailboxes > the mailbox > Email addresses", Text: "See that " + r.box.Address + " is the primary address, and no alias."},
		mailgrant.Step{Text: "If the same grant worked within the last hour, too many sessions were opened: wait."})
	return mailgrant.Errorf(e.Code, err, "%s", e.Message).With(f)
}

// visit opens folders and goes through what came into them since; look says
// whether that is enough. Nothing is changed there.
func (r *run) visit(ctx context.Context, folders []string, since time.Time, look func(provider.Incoming) (enough bool, err error)) error {
	nothing := func(context.Context, []string) (map[string]bool, error) { return nil, nil }
	var box provider.Inbox
	err := r.undisturbed(ctx, func() (err error) {
		box, err = r.reader.Open(ctx, r.way, provider.Reading{Folders: folders, Since: since, Max: lookMax, Known: nothing})
		return err
	})
	if err != nil {
		return err
	}
	defer box.Close()
	at, more := provider.Cursor(""), look != nil
	for more {
		at, more, err = box.Next(ctx, at, func(in provider.Incoming) error {
			enough, err := look(in)
			if enough && err == nil {
				return errEnough
			}
			return err
		})
		if errors.Is(err, errEnough) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// lookMax is how large a message may be that is looked at: a check's own is small.
const lookMax = 64 << 10

var errEnough = errors.New("check: enough was seen")

// undisturbed tries again where the mailbox is busy: POP shows it to one session at
// a time, and the reader's own may be on.
func (r *run) undisturbed(ctx context.Context, do func() error) error {
	for wait := time.Second; ; wait *= 2 {
		err := do()
		if err == nil || r.in.protocol != "pop" || wait > busyMax || !mailgrant.AsError(err).Code.Temporary() {
			return err
		}
		if pause(ctx, wait) != nil {
			return err
		}
	}
}

const busyMax = 8 * time.Second

// pause waits, unless ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// compareFolders lists the folders, and opens those that are to be read.
func (r *run) compareFolders(ctx context.Context, _ *leg) result {
	if r.reader.Folders != nil {
		var err error
		if r.folders, err = r.reader.Folders(ctx, r.way); err != nil {
			return result{err: err}
		}
	}
	chosen := r.box.Receive.Folders
	if len(chosen) == 0 {
		if r.reader.Folders == nil {
			return result{text: "POP shows only the inbox, and that is read"}
		}
		return result{text: "the inbox is read; " + r.there()}
	}
	if err := r.visit(ctx, chosen, time.Now(), nil); err != nil {
		e := mailgrant.AsError(err)
		if e.Code != mailgrant.Misset || len(r.folders) == 0 || e.Finding != nil && strings.Contains(e.Finding.Remedy, r.folders[0].Name) {
			return result{err: err}
		}
		f := mailgrant.Finding{Cause: "endpoint-misconfigured", Title: "Folder that cannot be used", Sentence: clean(strings.ToUpper(e.Message[:1])+e.Message[1:]) + ".",
			Remedy: "Choose folders that are there: " + r.there() + ".", Who: mailgrant.WhoOperator, Retry: mailgrant.RetryFix, Confidence: 1, Link: "errors/endpoint-misconfigured",
			Steps: []mailgrant.Step{{Place: "mailgrant", Text: "Read other folders.", Command: "mailgrant mailbox set " + r.box.Address + " --folder NAME"}}}
		return result{err: mailgrant.Errorf(mailgrant.Misset, err, "%s", e.Message).With(f)}
	}
	return result{text: "read: " + clean(strings.Join(chosen, ", ")) + "; " + r.there()}
}

// there names the folders of the mailbox.
func (r *run) there() string {
	var names []string
	for _, f := range r.folders {
		if len(names) == 30 {
			names = append(names, "…")
			break
		}
		names = append(names, clean(f.Name))
	}
	return "there are " + strings.Join(names, ", ")
}

// reads looks at the reader that brings mail into the table. One that is held has
// a look at once: whatever kept it may be mended, as this check came so far.
func (r *run) reads(ctx context.Context, _ *leg) result {
	if r.unread {
		return result{skip: "nobody asked for this mailbox to be read: mailgrant mailbox set " + r.box.Address + " --receive auto"}
	}
	s := r.Table.Reader(r.box)
	if s.State == mailgrant.ReaderHeld {
		r.Table.Read(ctx, r.box)
	}
	for began := time.Now(); s.State == mailgrant.ReaderHeld || s.State == mailgrant.ReaderConnecting; s = r.Table.Reader(r.box) {
		if time.Since(began) > readerWithin || pause(ctx, readerLook) != nil {
			break
		}
	}
	switch s.State {
	case mailgrant.ReaderHeld:
		return result{err: held(s)}
	case mailgrant.ReaderConnecting:
		return result{err: mailgrant.Errorf(mailgrant.Unavailable, nil, "the reader of the mailbox does not come to read").Fix("look at it in a minute: mailgrant mailbox reader %s", r.box.Address)}
	case mailgrant.ReaderElsewhere:
		return result{text: "another node reads the mailbox"}
	case mailgrant.ReaderOff:
		return result{err: mailgrant.Errorf(mailgrant.Misset, nil, "the mailbox is not read").Fix("have it read: mailgrant mailbox set %s --receive auto", r.box.Address)}
	}
	text := fmt.Sprintf("it is %s", s.State)
	if s.LastRead != nil {
		text += ", and read all at " + s.LastRead.UTC().Format("2006-01-02 15:04:05")
	}
	if s.Push {
		return result{text: text + "; the provider tells of new mail"}
	}
	return result{text: text + "; the provider is asked for new mail"}
}

const (
	readerWithin = 10 * time.Second
	readerLook   = 100 * time.Millisecond
)

// held is why the reader cannot read.
func held(s mailgrant.ReaderStatus) error {
	e := mailgrant.Errorf(mailgrant.Unavailable, nil, "the reader of the mailbox is held")
	if s.Finding != nil {
		e = e.With(*s.Finding)
	}
	return e
}

// folder is the one of a use; "" where it is not known.
func (r *run) folder(use string) string {
	i := slices.IndexFunc(r.folders, func(f provider.Folder) bool { return f.Use == use })
	if i < 0 {
		return ""
	}
	return r.folders[i].Name
}

// find looks for the check's own message in a folder.
func (r *run) find(ctx context.Context, folder string) (found *mailgrant.Arrival, err error) {
	err = r.visit(ctx, []string{folder}, r.sent.Add(-clocksApart), func(in provider.Incoming) (bool, error) {
		if in.Body == nil {
			return false, nil
		}
		p, err := rfc5322.Read(in.Body)
		if err == nil {
			_, err = io.Copy(io.Discard, in.Body)
		}
		if errors.Is(err, provider.ErrTooLarge) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		a := mailgrant.Arrival{Folder: in.Folder, ReceivedAt: in.ReceivedAt}
		p.Fill(&a)
		if !strings.Contains(a.Subject, r.mark) {
			return false, nil
		}
		found = &a
		return true, nil
	})
	return found, err
}

// clocksApart is how far the provider's clock and ours may be apart.
const clocksApart = 5 * time.Minute
