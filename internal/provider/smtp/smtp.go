// Package smtp hands messages to a provider's submission server, with a token in
// place of a password.
//
// A session is one connection and serves many messages. A message on an open
// connection takes two trips: MAIL, RCPT and DATA go together where the server
// lets them (RFC 2920), then the message with its dot. BDAT would need no dots,
// but a server could take the message without our hearing anything before it;
// after a 354 we know that a lost connection has sent nothing.
//
//	dial ▶ TLS ▶ EHLO ▶ AUTH ┬▶ MAIL RCPT… DATA ▶ message ▶ 250 ┐
//	                         └──────────────◀───────────────────┘
//
// What the server answers is foreign text: bounded when read, cleaned when kept.
package smtp

import (
	"context"
	"crypto/tls"
	"log/slog"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant/internal/provider"
)

// Name is the transport's name in records.
const Name = "smtp"

// Config is what the transport needs besides a way.
type Config struct {
	Hostname string                                           // says who we are in EHLO; "" or no real name: the address
	TLS      func(serverName, extraCAFile string) *tls.Config // egress.Guard.TLS
	Log      *slog.Logger

	limits timeouts // zero: RFC 5321
}

// timeouts bound single steps; a context bounds the whole. RFC 5321 section
// 4.5.3.2.
type timeouts struct{ connect, greeting, command, data, block, dot time.Duration }

var rfcTimeouts = timeouts{connect: 30 * time.Second, greeting: 5 * time.Minute, command: 5 * time.Minute, data: 2 * time.Minute, block: 3 * time.Minute, dot: 10 * time.Minute}

// Transport is the way out by SMTP.
func Transport(c Config) provider.Transport {
	c = c.ready()
	return provider.Transport{Name: Name, Open: func(ctx context.Context, w provider.Way) (provider.Session, error) {
		s := newSession(c, w)
		if err := s.Open(ctx, s); err != nil {
			return nil, err
		}
		return s, nil
	}}
}

// ready fills in what was left out.
func (c Config) ready() Config {
	if c.limits == (timeouts{}) {
		c.limits = rfcTimeouts
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// ehloName is a name that servers take: Exchange refuses what is no host name.
func ehloName(hostname, localIP string) string {
	ok := hostname != "" && len(hostname) <= 255
	for _, r := range hostname {
		ok = ok && (r == '.' || r == '-' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z')
	}
	switch {
	case ok:
		return hostname
	case strings.Contains(localIP, ":"):
		return "[IPv6:" + localIP + "]"
	case localIP != "":
		return "[" + localIP + "]"
	}
	return "localhost"
}
