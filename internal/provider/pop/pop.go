// Package pop reads mailboxes by POP3, with a token in place of a password.
//
// A POP server locks a mailbox for one session at a time and shows it as it was
// when the session began. So a session is short: it begins with a reading, ends
// with it, and between two polls the mailbox is free for others.
//
//	dial ▶ TLS ▶ CAPA ▶ AUTH ▶ STAT ▶ UIDL, LIST ▶ TOP, RETR… ▶ DELE… ▶ QUIT ▶ wait ┐
//	  └─────────────────────────────────────◀───────────────────────────────────────┘
//
// POP knows no position to read on from: what is new is what nobody knows of all
// that is listed. Whom a message is known by is its key, see list.go.
package pop

import (
	"context"
	"crypto/tls"
	"log/slog"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
)

// Name is the reader's name in records.
const Name = "pop"

// Folder is the only one that POP shows.
const Folder = "INBOX"

// Config is what the reader needs besides a way.
type Config struct {
	TLS func(serverName, extraCAFile string) *tls.Config // egress.Guard.TLS
	Log *slog.Logger

	limits limits // zero: the usual ones
}

// limits bound single steps and single pages.
type limits struct {
	connect, greeting, command time.Duration // Exchange may think half a minute about AUTH
	listing                    time.Duration // of a whole UIDL or LIST
	page                       int           // messages taken in one page
	pageBytes                  int64         // and their bytes
	looks                      int           // headers asked for in one page
	entries                    int           // of a listing
	names                      int           // bytes of all unique ids of a listing
}

// A listing of its greatest size and what is made of it stay below 16 MiB. IM-06.
var usual = limits{connect: 30 * time.Second, greeting: time.Minute, command: 2 * time.Minute, listing: 10 * time.Minute,
	page: 250, pageBytes: 32 << 20, looks: 500, entries: 200_000, names: 6 << 20}

// slowest is the line we still wait for, in bytes a second.
const slowest = 16 << 10

// Reader is the way to read by POP. It has no folders to show.
func Reader(c Config) provider.Reader {
	c = c.ready()
	return provider.Reader{Name: Name, Look: func(ctx context.Context, w provider.Way) (provider.Seen, error) { return look(ctx, c, w) },
		Login: func(ctx context.Context, w provider.Way) error { return login(ctx, c, w) }, Open: func(ctx context.Context, w provider.Way, r provider.Reading) (provider.Inbox, error) {
			if err := allowed(r.Folders); err != nil {
				return nil, err
			}
			i := &inbox{c: c, way: w, r: r}
			if err := i.connect(ctx); err != nil {
				return nil, err
			}
			return i, nil
		}}
}

// Check says whether a mailbox can be read by POP as r asks for.
func Check(r mailgrant.Receive) error {
	if err := allowed(r.Folders); err != nil {
		return err
	}
	return can(r.After)
}

func allowed(folders []string) error {
	for _, f := range folders {
		if !strings.EqualFold(f, Folder) {
			return mailgrant.Errorf(mailgrant.Misset, nil, "POP shows only the inbox, not the folder %q", f).
				Fix("take the folder out of the mailbox's settings, or read the mailbox by IMAP or by the provider's API").At("folders")
		}
	}
	return nil
}

// can says whether POP knows how to do what is to be done after reading.
func can(what mailgrant.AfterRead) error {
	if what != mailgrant.AfterMark && what != mailgrant.AfterMove {
		return nil
	}
	return mailgrant.Errorf(mailgrant.Misset, nil, "POP can leave a message or delete it, but not %s it", what).
		Fix("set after to leave or delete, or read the mailbox by IMAP or by the provider's API").At("after")
}

// ready fills in what was left out.
func (c Config) ready() Config {
	if c.limits == (limits{}) {
		c.limits = usual
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}
