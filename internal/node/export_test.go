package node

import (
	"context"
	"net"
	"time"
)

// SetRest has an old key go sooner. Call it before Run.
func SetRest(n *Node, d time.Duration) { n.rest = d }

// SealedAs is the name under which the value of a column is sealed.
var SealedAs = sealedAs

// ResealAll is what a rotation has done in the background.
func ResealAll(ctx context.Context, n *Node) { n.resealAll(ctx) }

const KeysRest = keysRest

// Hearing bounds each write to the connections of a listener.
func Hearing(l net.Listener) net.Listener { return hearing{l} }
