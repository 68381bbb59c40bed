package pop

import (
	"context"

	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/wire"
)

// look connects as far as the secured greeting and leaves again.
func look(ctx context.Context, c Config, w provider.Way) (seen provider.Seen, err error) {
	s := newSession(c, w)
	if err := s.Look(ctx, s); err != nil {
		return seen, err
	}
	for _, m := range s.caps.sasl {
		seen.Auth = append(seen.Auth, wire.Clean(m, 40))
	}
	seen.TLS = s.Conn.TLS()
	s.leave(ctx)
	return seen, nil
}

// login logs in and leaves again. The mailbox is not opened: that Exchange
// accepts a login does not say that it reaches the mailbox. R96.
func login(ctx context.Context, c Config, w provider.Way) error {
	s := newSession(c, w)
	s.only = true
	if err := s.Open(ctx, s); err != nil {
		return err
	}
	s.leave(ctx)
	return nil
}
