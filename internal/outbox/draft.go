package outbox

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"
	"sync/atomic"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/vault"
)

// chunkSize is how much of a body one row holds. A message that fits is kept in
// memory until it is accepted; of a larger one only the first chunk is, so that
// its header can still be read and written.
const chunkSize = 256 << 10

// A Draft is a message on its way in. Write takes its bytes, lines ending in
// CRLF. It is accepted or discarded.
type Draft struct {
	o   *Outbox
	ctx context.Context
	org mailgrant.ID
	id  mailgrant.ID

	first    []byte // the first chunk, to be sealed by Accept
	rest     []byte // bytes of the chunk that is being filled, after the first
	n        int64  // chunks sent to the store
	size     int64
	eightBit bool
	sum      hash.Hash // of a large message; a small one is hashed when asked for
	err      error
	done     bool

	writes sync.WaitGroup // chunks on their way to the store
	places chan struct{}  // bounds them
	failed atomic.Pointer[error]
}

// chunksAhead is how many chunks of one message may be on their way to the store
// while the next one comes in.
const chunksAhead = 4

var buffers = sync.Pool{New: func() any { return new(make([]byte, 0, 16<<10)) }}

// Draft begins a message of an organization.
func (o *Outbox) Draft(ctx context.Context, org mailgrant.ID) *Draft {
	return &Draft{o: o, ctx: ctx, org: org, id: mailgrant.NewID(mailgrant.PrefixSubmission), first: (*buffers.Get().(*[]byte))[:0]}
}

// ID is what the submission will be called.
func (d *Draft) ID() mailgrant.ID { return d.id }

// Size is how many bytes were written.
func (d *Draft) Size() int64 { return d.size }

// Write implements io.Writer. What does not fit in memory is sealed and stored
// as it comes.
func (d *Draft) Write(p []byte) (int, error) {
	if d.err != nil {
		return 0, d.err
	}
	if d.size+int64(len(p)) > d.o.MessageBytes {
		d.err = mailgrant.Errorf(mailgrant.TooLarge, nil, "the message is larger than %d MiB", d.o.MessageBytes>>20).
			Fix("make it smaller, or raise limits.message_bytes in the settings")
		return 0, d.err
	}
	d.size += int64(len(p))
	d.eightBit = d.eightBit || hasHigh(p)
	written := len(p)
	if room := chunkSize - len(d.first); room > 0 {
		take := min(room, len(p))
		d.first = append(d.first, p[:take]...)
		p = p[take:]
	}
	for len(p) > 0 {
		if d.rest == nil {
			d.rest = make([]byte, 0, chunkSize)
			d.sum = sha256.New()
			d.sum.Write(d.first)
		}
		take := min(chunkSize-len(d.rest), len(p))
		d.rest = append(d.rest, p[:take]...)
		p = p[take:]
		if len(d.rest) == chunkSize {
			if d.err = d.flush(); d.err != nil {
				return 0, d.err
			}
		}
	}
	return written, nil
}

func (d *Draft) flush() error {
	if len(d.rest) == 0 {
		return nil
	}
	d.sum.Write(d.rest)
	d.n++
	sealed, err := d.o.Vault.Seal(bodyPlace(d.org, d.id, d.n), d.rest)
	if err != nil {
		return err
	}
	d.rest = d.rest[:0]
	d.o.Steps("accept.chunk")
	if d.places == nil {
		d.places = make(chan struct{}, chunksAhead)
	}
	d.places <- struct{}{}
	n := d.n
	d.writes.Go(func() {
		defer func() { <-d.places }()
		if err := d.o.Store.PutChunk(d.ctx, d.org, d.id, n, sealed); err != nil {
			d.failed.CompareAndSwap(nil, &err)
		}
	})
	return d.failure()
}

// failure is the first that a chunk met.
func (d *Draft) failure() error {
	if err := d.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// settle sends what is left, and returns when all chunks are durable.
func (d *Draft) settle() error {
	err := d.flush()
	d.writes.Wait()
	return errors.Join(err, d.failure())
}

func bodyPlace(org, id mailgrant.ID, n int64) vault.Place {
	return vault.Place{Org: org, Table: "chunks", Column: "bytes", Row: id, N: n}
}

// digest is what an idempotency key stands for.
func (d *Draft) digest(parts ...string) []byte {
	if d.sum == nil {
		d.sum = sha256.New()
		d.sum.Write(d.first)
	}
	for _, p := range parts {
		fmt.Fprintf(d.sum, "%d:%s", len(p), p)
	}
	return d.sum.Sum(nil)
}

// Discard forgets the message. After Accept it does nothing.
func (d *Draft) Discard() {
	if d.done {
		return
	}
	d.done = true
	d.writes.Wait()
	d.release()
	if d.n > 0 {
		if err := d.o.Store.DropChunks(context.WithoutCancel(d.ctx), d.org, d.id); err != nil {
			d.o.Log.Warn("drop a draft", "id", d.id, "err", err) // the sweep finds it
		}
	}
}

func (d *Draft) release() {
	if cap(d.first) <= chunkSize {
		b := d.first[:0]
		buffers.Put(&b)
	}
	d.first, d.rest = nil, nil
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

// chunkReader reads a body chunk by chunk, one ahead.
type chunkReader struct {
	o     *Outbox
	ctx   context.Context
	sub   mailgrant.Submission
	n     int64 // of the next chunk
	read  int64 // bytes of the chunks before it
	left  []byte
	ahead chan chunk
}

type chunk struct {
	bytes []byte
	err   error
}

func (o *Outbox) chunks(ctx context.Context, sub mailgrant.Submission) *chunkReader {
	return &chunkReader{o: o, ctx: ctx, sub: sub}
}

// after is a reader that goes on behind the first chunk.
func (r *chunkReader) after(first []byte) *chunkReader {
	return &chunkReader{o: r.o, ctx: r.ctx, sub: r.sub, n: 1, read: int64(len(first)), left: first}
}

func (r *chunkReader) fetch(n int64) (c chunk) {
	sealed, err := r.o.Store.Chunk(r.ctx, r.sub.Org, r.sub.ID, n)
	if err != nil {
		return chunk{err: err}
	}
	c.bytes, c.err = r.o.Vault.Open(bodyPlace(r.sub.Org, r.sub.ID, n), sealed)
	return c
}

// fill reads the next chunk.
func (r *chunkReader) fill() error {
	var c chunk
	if r.ahead != nil {
		c, r.ahead = <-r.ahead, nil
	} else {
		c = r.fetch(r.n)
	}
	if c.err != nil {
		return c.err
	}
	r.left = c.bytes
	r.n++
	r.read += int64(len(c.bytes))
	return nil
}

// look begins to read the chunk after this one.
func (r *chunkReader) look() {
	if r.ahead != nil || r.read >= r.sub.Size {
		return
	}
	ahead, n := make(chan chunk, 1), r.n
	r.ahead = ahead
	go func() { ahead <- r.fetch(n) }()
}

// Read implements io.Reader.
func (r *chunkReader) Read(p []byte) (int, error) {
	for len(r.left) == 0 {
		if r.read >= r.sub.Size {
			return 0, io.EOF
		}
		if err := r.fill(); err != nil {
			return 0, err
		}
	}
	r.look()
	n := copy(p, r.left)
	r.left = r.left[n:]
	return n, nil
}

// Close implements io.Closer.
func (r *chunkReader) Close() error { return nil }
