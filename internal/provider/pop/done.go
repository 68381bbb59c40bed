package pop

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider/wire"
)

// pollUsual is how often is looked when nobody said.
const pollUsual = time.Minute

// Wait ends the session, so that others get at the mailbox, and waits.
func (b *inbox) Wait(ctx context.Context) error {
	b.leave(ctx)
	poll := b.r.Poll
	if poll <= 0 {
		poll = pollUsual
	}
	return rest(ctx, max(poll, time.Until(b.login.Add(b.delay))))
}

// rest waits for d.
func rest(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// leave ends the session, if there is one. Nothing is marked for deletion.
func (b *inbox) leave(ctx context.Context) {
	if b.s != nil {
		b.s.leave(ctx)
		b.s = nil
	}
}

// Close ends the session.
func (b *inbox) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), goodbye)
	defer cancel()
	b.leave(ctx)
	return nil
}

// goodbye is how long a farewell may take.
const goodbye = 5 * time.Second

// Done deletes messages, if that is to be done. The server deletes at the end of
// a session that ends in order, and not before: so QUIT belongs to it, and until
// the server has said yes to that nothing is deleted. RFC 1939 section 6. IM-10.
func (b *inbox) Done(ctx context.Context, remotes []string, what mailgrant.AfterRead, _ string) error {
	if err := can(what); err != nil || what != mailgrant.AfterDelete || len(remotes) == 0 {
		return err
	}
	if err := b.ready(ctx); err != nil {
		return err
	}
	defer b.s.Conn.CloseWith(ctx)()
	numbers, found, err := b.find(remotes)
	if err != nil {
		return b.failed(ctx, err)
	}
	b.s.Step = "pop-delete"
	for _, n := range numbers {
		r, err := b.s.command("DELE " + strconv.Itoa(int(n)))
		if err == nil && !r.ok {
			err = b.s.refusedBy(r)
		}
		if err != nil {
			return b.failed(ctx, err) // without QUIT: nothing is deleted
		}
	}
	if len(numbers) == 0 {
		return nil
	}
	s := b.s
	b.s = nil
	r, err := s.end()
	switch {
	case ctx.Err() != nil && err != nil:
		return context.Cause(ctx)
	case err != nil:
		return s.broken(err)
	case !r.ok:
		return wire.Error(s.explain(r.text), nil, "%s did not delete all messages: %s", s.Host, s.Redact(r.text))
	}
	if b.deleted == nil {
		b.deleted = map[string]bool{}
	}
	for _, k := range found {
		if !strings.Contains(k, " ") { // a unique id
			b.deleted[k] = true
		}
	}
	return nil
}

// find gives the numbers of messages in this session, and their keys. What is not
// listed is no more there.
func (b *inbox) find(remotes []string) (numbers []uint32, found []string, err error) {
	wanted := make(map[string]bool, len(remotes))
	for _, k := range remotes {
		wanted[k] = true
	}
	for i, e := range b.s.listed.entries {
		k, err := b.key(i)
		if err != nil {
			return nil, nil, err
		}
		if wanted[k] {
			numbers, found = append(numbers, e.number), append(found, k)
		}
	}
	return numbers, found, nil
}
