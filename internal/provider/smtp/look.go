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
	s := newSession(c.ready(), w)
	if err := s.Look(ctx, s); err != nil {
		return Seen{}, err
	}
	defer s.Close()
	return Seen{Greeting: s.greeting, TLS: s.Conn.TLS(), Auth: s.caps.auth, SizeMax: s.caps.sizeMax}, nil
}
