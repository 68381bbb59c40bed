// Package imap reads a mailbox by IMAP, with a token in place of a password.
//
// A session is one connection with one folder selected at a time. Nothing in it
// runs by itself: who calls Next, Wait or Done reads and writes the connection,
// so an idle mailbox costs its socket, its TLS state and one waiting goroutine.
//
//	dial ▶ TLS ▶ AUTHENTICATE ▶ LIST ▶ ┬▶ SELECT ▶ SEARCH ▶ FETCH … ┬▶ IDLE ┐
//	                                   └─────────────◀──────────────┴───────┘
//
// The name of a message is folder/uidvalidity/uid: no server gives the three to
// two messages, as long as it keeps RFC 3501 section 2.3.1.1. One that does not
// shows it by a UIDNEXT that goes back; then an epoch joins the name, as in
// INBOX/17~1/42, and the folder is read again from its beginning.
//
// What the server says is foreign text: bounded before it is kept, and cleaned
// before it is shown. IM-05, IM-06.
package imap

import (
	"context"
	"crypto/tls"
	"log/slog"
	"time"

	"github.com/mailgrant/mailgrant/internal/provider"
)

// Name is the reader's name in records.
const Name = "imap"

// Config is what the reader needs besides a way.
type Config struct {
	TLS func(serverName, extraCAFile string) *tls.Config // egress.Guard.TLS
	Log *slog.Logger

	limits timeouts // zero: usual
}

// timeouts bound single steps; a context bounds the whole.
type timeouts struct {
	connect time.Duration
	login   time.Duration // Exchange takes half a minute at times
	command time.Duration
	rearm   time.Duration // of IDLE, well below the 29 minutes of RFC 2177
}

var usual = timeouts{connect: 30 * time.Second, login: 90 * time.Second, command: time.Minute, rearm: 9 * time.Minute}

// slowest is the line we still wait for, in bytes a second.
const slowest = 8 << 10

// usualPoll is how often a folder is asked for that cannot tell by itself.
const usualPoll = time.Minute

// Reader reads by IMAP.
func Reader(c Config) provider.Reader {
	c = c.ready()
	return provider.Reader{
		Name: Name,
		Open: func(ctx context.Context, w provider.Way, r provider.Reading) (provider.Inbox, error) {
			s := newSession(c, w)
			s.reading = r
			if err := s.open(ctx); err != nil {
				return nil, err
			}
			return s, nil
		},
		Folders: func(ctx context.Context, w provider.Way) ([]provider.Folder, error) {
			s := newSession(c, w)
			if err := s.Open(ctx, s); err != nil {
				return nil, err
			}
			defer s.Close()
			return s.folderList(ctx)
		},
		Look:  func(ctx context.Context, w provider.Way) (provider.Seen, error) { return look(ctx, c, w) },
		Login: func(ctx context.Context, w provider.Way) error { return login(ctx, c, w) },
	}
}

// ready fills in what was left out.
func (c Config) ready() Config {
	if c.limits == (timeouts{}) {
		c.limits = usual
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}
