package grant

import (
	"context"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
)

// Way is all that a transport needs for a mailbox. It is made once for many
// messages.
func (k *Keeper) Way(ctx context.Context, m mailgrant.Mailbox) (provider.Way, error) {
	if m.Grant == "" {
		return provider.Way{}, mailgrant.Errorf(mailgrant.Misset, nil, "the mailbox %s has no grant", m.Address).
			Fix("make one: mailgrant grant begin %s", m.Address).At("grant")
	}
	g, err := k.Store.Grant(ctx, m.Org, m.Grant)
	if err != nil {
		return provider.Way{}, err
	}
	s, err := k.situation(ctx, g)
	if err != nil {
		return provider.Way{}, err
	}
	return provider.Way{Mailbox: m, Grant: g, Settings: s.set, CAFile: s.reg.CAFile, HTTP: k.HTTP(s.reg), Dial: k.Dial,
		Token: func(ctx context.Context, resource string, fresh bool) (mailgrant.Token, error) {
			if fresh {
				return k.FreshToken(ctx, m.Org, m.Grant, resource)
			}
			return k.Token(ctx, m.Org, m.Grant, resource)
		}}, nil
}
