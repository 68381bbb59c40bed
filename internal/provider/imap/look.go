package imap

import (
	"context"
	"crypto/tls"
	"errors"

	"github.com/mailgrant/mailgrant/internal/provider"
)

// look connects as far as the secured greeting and leaves again.
func look(ctx context.Context, c Config, w provider.Way) (seen provider.Seen, err error) {
	s := &session{c: c, way: w}
	if err := s.reach(ctx); err != nil {
		s.hangUp()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return seen, s.notOpened(err)
	}
	seen.Auth = s.caps.auth
	if t, ok := s.link.conn.(*tls.Conn); ok {
		seen.TLS = t.ConnectionState()
	}
	return seen, s.Close()
}

// login logs in and leaves again. What the server refuses after it has accepted
// the login is no matter of the login: Exchange accepts that of a mailbox which it
// then cannot reach. R96.
func login(ctx context.Context, c Config, w provider.Way) error {
	s := &session{c: c, way: w}
	err := s.login(ctx)
	if no := (*refused)(nil); s.step == "imap-capability" && errors.As(err, &no) {
		return nil
	}
	if err != nil {
		return err
	}
	return s.Close()
}
