package imap

import (
	"context"
	"errors"

	"github.com/mailgrant/mailgrant/internal/provider"
)

// look connects as far as the secured greeting and leaves again.
func look(ctx context.Context, c Config, w provider.Way) (seen provider.Seen, err error) {
	s := newSession(c, w)
	if err := s.Look(ctx, s); err != nil {
		return seen, err
	}
	seen.Auth, seen.TLS = s.caps.auth, s.Conn.TLS()
	return seen, s.Close()
}

// login logs in and leaves again. What the server refuses after it has accepted
// the login is no matter of the login: Exchange accepts that of a mailbox which it
// then cannot reach. R96.
func login(ctx context.Context, c Config, w provider.Way) error {
	s := newSession(c, w)
	err := s.Open(ctx, s)
	if no := (*refused)(nil); s.Step == "imap-capability" && errors.As(err, &no) {
		return nil
	}
	if err != nil {
		return err
	}
	return s.Close()
}
