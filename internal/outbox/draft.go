package outbox

import (
	"context"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/body"
)

// A Draft is a message on its way in. Write takes its bytes, lines ending in
// CRLF. It is accepted or discarded.
type Draft struct {
	*body.Writer
	o        *Outbox
	org      mailgrant.ID
	id       mailgrant.ID
	eightBit bool
	err      error
	done     bool
}

func (o *Outbox) bodies() body.Keeper {
	return body.Keeper{Store: o.Store, Vault: o.Vault, Steps: o.Steps}
}

// Draft begins a message of an organization.
func (o *Outbox) Draft(ctx context.Context, org mailgrant.ID) *Draft {
	id := mailgrant.NewID(mailgrant.PrefixSubmission)
	return &Draft{Writer: o.bodies().Writer(ctx, org, id), o: o, org: org, id: id}
}

// ID is what the submission will be called.
func (d *Draft) ID() mailgrant.ID { return d.id }

// Write implements io.Writer, within the limit of a message.
func (d *Draft) Write(p []byte) (int, error) {
	if d.err != nil {
		return 0, d.err
	}
	if d.Size()+int64(len(p)) > d.o.MessageBytes {
		d.err = mailgrant.Errorf(mailgrant.TooLarge, nil, "the message is larger than %d MiB", d.o.MessageBytes>>20).
			Fix("make it smaller, or raise limits.message_bytes in the settings")
		return 0, d.err
	}
	d.eightBit = d.eightBit || hasHigh(p)
	var n int
	n, d.err = d.Writer.Write(p)
	return n, d.err
}

// Discard forgets the message. After Accept it does nothing.
func (d *Draft) Discard() {
	if d.done {
		return
	}
	d.done = true
	if err := d.Drop(); err != nil {
		d.o.Log.Warn("drop a draft", "id", d.id, "err", err) // the sweep finds it
	}
}

func hasHigh(p []byte) bool {
	for len(p) >= 8 {
		if (p[0]|p[1]|p[2]|p[3]|p[4]|p[5]|p[6]|p[7])&0x80 != 0 {
			return true
		}
		p = p[8:]
	}
	for _, c := range p {
		if c&0x80 != 0 {
			return true
		}
	}
	return false
}
