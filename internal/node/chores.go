package node

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
	"github.com/mailgrant/mailgrant/internal/config"
	"github.com/mailgrant/mailgrant/internal/store"
	"github.com/mailgrant/mailgrant/internal/vault"
)

const (
	sweepEvery  = 10 * time.Minute
	sweepRest   = 100 * time.Millisecond // between two steps of one sweep
	resealBatch = 64

	// keysEvery is how often a node looks whether another one has rotated.
	keysEvery = time.Minute

	// keysRest is how long an old key is kept after nothing sealed by it is found
	// any more: what was sealed before the rotation may still be on its way into the
	// database. In a cluster a node that was cut off may go on to seal with it.
	keysRest    = time.Minute
	keysRestAll = 15 * time.Minute
)

// chores removes what is over.
func (n *Node) chores(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			n.sweep(ctx)
		}
	}
}

// keys keeps up with rotations, and seals anew what an old key sealed.
func (n *Node) keys(ctx context.Context) error {
	n.resealAll(ctx) // what an earlier process did not finish
	tick := time.NewTicker(keysEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-n.reseal:
		}
		n.resealAll(ctx)
	}
}

func (n *Node) sweep(ctx context.Context) {
	keep := store.Keep{Bodies: n.cfg.Keep.Bodies, Submissions: n.cfg.Keep.Submissions, Events: n.cfg.Keep.Events, Arrivals: n.cfg.Keep.Arrivals}
	for more := true; more && ctx.Err() == nil; {
		var err error
		if more, err = n.Store.Sweep(ctx, n.Store.Now(), keep); err != nil {
			n.log.Warn("remove what is over", "err", err)
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(sweepRest):
		}
	}
}

// RotateKey adds a sealing key; what the old ones sealed is sealed anew while
// everything runs, and then they are taken away.
func (n *Node) RotateKey(ctx context.Context) (client.KeyStatus, error) {
	if _, err := n.Vault.Rotate(ctx); err != nil {
		return client.KeyStatus{}, err
	}
	select {
	case n.reseal <- struct{}{}:
	default: // it is being done
	}
	return n.KeyStatus(ctx)
}

// KeyStatus says which keys there are, and how much old ones still seal.
func (n *Node) KeyStatus(ctx context.Context) (client.KeyStatus, error) {
	if err := n.Vault.Refresh(ctx); err != nil {
		return client.KeyStatus{}, err
	}
	s := client.KeyStatus{Primary: n.Vault.Primary(), Keys: n.Vault.Keys()}
	for _, id := range n.oldKeys() {
		l, err := n.Store.SealedBy(ctx, vault.KeyPrefix(id), resealCount)
		if err != nil {
			return s, err
		}
		s.Left += len(l)
	}
	return s, nil
}

// resealCount is as far as KeyStatus counts.
const resealCount = 1000

func (n *Node) oldKeys() (old []uint32) {
	for _, id := range n.Vault.Keys() {
		if id != n.Vault.Primary() {
			old = append(old, id)
		}
	}
	return old
}

func (n *Node) resealAll(ctx context.Context) {
	if err := n.Vault.Refresh(ctx); err != nil {
		n.log.Warn("look at the sealing keys", "err", err)
		return
	}
	for _, id := range n.oldKeys() {
		if err := n.resealKey(ctx, id); err != nil {
			if ctx.Err() == nil {
				n.log.Error("seal anew what an old key sealed", "key", id, "err", err)
			}
			return
		}
	}
}

// resealKey seals anew all that a key sealed, and takes the key away: but only when
// a second look, a while later, finds nothing either.
func (n *Node) resealKey(ctx context.Context, id uint32) error {
	for quiet := 0; quiet < 2; {
		rows, err := n.Store.SealedBy(ctx, vault.KeyPrefix(id), resealBatch)
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			if quiet++; quiet < 2 {
				select {
				case <-time.After(n.rest):
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			continue
		}
		quiet = 0
		for _, r := range rows {
			if err := n.resealRow(ctx, r); err != nil {
				return err
			}
		}
	}
	n.log.Info("an old sealing key is no longer needed", "key", id)
	return n.Vault.Retire(ctx, id)
}

// sealedAs is the name under which the value of a column was sealed.
var sealedAs = map[string]string{
	"credentials.sealed": "secret", "grants.sealed": "refresh_token", "grants.sealed_prev": "refresh_token",
	"flows.sealed": "data", "chunks.sealed": "bytes", "webhooks.sealed": "secret", "webhooks.sealed_prev": "secret",
}

func (n *Node) resealRow(ctx context.Context, r store.SealedRow) error {
	place := vault.Place{Org: r.Org, Table: r.Table, Column: sealedAs[r.Table+"."+r.Column], Row: r.Row, N: r.N}
	plain, err := n.Vault.Open(place, r.Sealed)
	if err != nil {
		return err
	}
	fresh, err := n.Vault.Seal(place, plain)
	if err != nil {
		return err
	}
	if err := n.Store.Reseal(ctx, r, fresh); err != nil && !errors.Is(err, mailgrant.NotFound) {
		return err
	}
	return nil
}

// Backup writes everything as it stands now, sealed under the master key.
func (n *Node) Backup(ctx context.Context, w io.Writer) error {
	out, err := vault.SealStream(n.master, w)
	if err != nil {
		return err
	}
	if err := n.Store.Backup(ctx, out); err != nil {
		return err
	}
	return out.Close()
}

// Restore puts a sealed backup into the empty database of the settings. Every
// mailbox is held and every webhook off afterwards, until a person has looked.
func Restore(ctx context.Context, c config.Config, r io.Reader) error {
	master, err := MasterKey(c, false)
	if err != nil {
		return err
	}
	in, err := vault.OpenStream(master, r)
	if err != nil {
		return err
	}
	s, err := store.Open(ctx, c.DatabasePath(), Logger(io.Discard, c.Log))
	if err != nil {
		return Ended(err)
	}
	return errors.Join(s.Restore(ctx, in, restored(), restoredOff()), s.Close())
}

func restored() mailgrant.Finding {
	return mailgrant.Finding{Cause: "restored", Title: "Restored from a backup", Confidence: 1, Who: mailgrant.WhoOperator, Retry: mailgrant.RetryFix,
		Sentence: "This installation was restored from a backup, and what was sent since then is not known to it.",
		Remedy:   "Look at what waits (mailgrant queue list), cancel what was sent already, then: mailgrant mailbox resume ADDRESS"}
}

func restoredOff() mailgrant.Finding {
	return mailgrant.Finding{Cause: "restored", Title: "Restored from a backup", Confidence: 1, Who: mailgrant.WhoOperator, Retry: mailgrant.RetryFix,
		Sentence: "This installation was restored from a backup, and what the webhook was told since then is not known to it.",
		Remedy:   "When its application may hear once more what it heard since the backup: mailgrant webhook change NAME --enable. It goes on from where it stood."}
}
