package smtp

import (
	"context"
	"crypto/tls"

	"github.com/mailgrant/mailgrant/internal/provider"
)

// Seen is what a server shows before anybody logs in.
type Seen struct {
	Greeting string
	TLS      tls.ConnectionState
	Auth     []string // mechanisms it offers
	SizeMax  int64    // 0 = it does not say
}

// Look connects as far as the secured EHLO and leaves again. For a check.
func Look(ctx context.Context, c Config, w provider.Way) (Seen, error) {
	s := &session{c: c.ready(), way: w}
	defer s.hangUp()
	var seen Seen
	err := s.dial(ctx)
	if err == nil {
		raw := s.raw
		defer context.AfterFunc(ctx, func() { raw.Close() })()
		err = s.greet(ctx)
	}
	if err != nil {
		return seen, s.notOpened(err)
	}
	seen.Greeting, seen.Auth, seen.SizeMax = s.greeting, s.caps.auth, s.caps.sizeMax
	if t, ok := s.conn.(*tls.Conn); ok {
		seen.TLS = t.ConnectionState()
	}
	s.Close()
	return seen, nil
}
