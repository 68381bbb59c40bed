package pop

import (
	"context"
	"crypto/tls"

	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/wire"
)

// look connects as far as the secured greeting and leaves again.
func look(ctx context.Context, c Config, w provider.Way) (seen provider.Seen, err error) {
	s := &session{c: c, way: w}
	defer s.hangUp()
	if err = s.dial(ctx); err == nil {
		raw := s.raw
		defer context.AfterFunc(ctx, func() { raw.Close() })()
		err = s.greet(ctx)
	}
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return seen, s.notOpened(err)
	}
	for _, m := range s.caps.sasl {
		seen.Auth = append(seen.Auth, wire.Clean(m, 40))
	}
	if t, ok := s.conn.(*tls.Conn); ok {
		seen.TLS = t.ConnectionState()
	}
	s.end() // what it says to a goodbye changes nothing
	return seen, nil
}

// login logs in and leaves again. The mailbox is not opened: that Exchange
// accepts a login does not say that it reaches the mailbox. R96.
func login(ctx context.Context, c Config, w provider.Way) error {
	s := &session{c: c, way: w, only: true}
	if err := s.open(ctx); err != nil {
		return err
	}
	s.end() // what it says to a goodbye changes nothing
	return nil
}
