// Package body keeps the bytes of messages: sealed, in chunks, so that a large
// message needs no memory of its size.
package body

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

// ChunkSize is how much of a body one row holds. A message that fits is kept in
// memory until it is taken; of a larger one only the first chunk is, so that its
// header can still be read and written.
const ChunkSize = 256 << 10

// A Store keeps chunks.
type Store interface {
	PutChunk(ctx context.Context, org, owner mailgrant.ID, n int64, sealed []byte) error
	DropChunks(ctx context.Context, org, owner mailgrant.ID) error
	Chunk(ctx context.Context, org, owner mailgrant.ID, n int64) ([]byte, error)
}

// A Keeper seals bodies and keeps them.
type Keeper struct {
	Store Store
	Vault *vault.Vault
	Steps func(step string) // told of each chunk; nil nobody is
}

func place(org, id mailgrant.ID, n int64) vault.Place {
	return vault.Place{Org: org, Table: "chunks", Column: "bytes", Row: id, N: n}
}

// Seal seals the first chunk of a body.
func (k Keeper) Seal(org, id mailgrant.ID, first []byte) ([]byte, error) {
	return k.Vault.Seal(place(org, id, 0), first)
}

// A Writer takes the bytes of one message. The first chunk stays with it, for
// whoever keeps the message; the others are stored as they come.
type Writer struct {
	k   Keeper
	ctx context.Context
	org mailgrant.ID
	id  mailgrant.ID

	First []byte // the first chunk
	rest  []byte // bytes of the chunk that is being filled, after the first
	n     int64  // chunks sent to the store
	size  int64
	sum   hash.Hash // of a large message; a small one is hashed when asked for
	err   error

	writes sync.WaitGroup // chunks on their way to the store
	places chan struct{}  // bounds them
	failed atomic.Pointer[error]
}

// chunksAhead is how many chunks of one message may be on their way to the store
// while the next one comes in.
const chunksAhead = 4

var buffers = sync.Pool{New: func() any { return new(make([]byte, 0, 16<<10)) }}

// Writer begins a body.
func (k Keeper) Writer(ctx context.Context, org, id mailgrant.ID) *Writer {
	return &Writer{k: k, ctx: ctx, org: org, id: id, First: (*buffers.Get().(*[]byte))[:0]}
}

// Size is how many bytes were written, Stored whether some of them are in the
// store.
func (w *Writer) Size() int64  { return w.size }
func (w *Writer) Stored() bool { return w.n > 0 }

// Write implements io.Writer. What does not fit in memory is sealed and stored
// as it comes.
func (w *Writer) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	w.size += int64(len(p))
	written := len(p)
	if room := ChunkSize - len(w.First); room > 0 {
		take := min(room, len(p))
		w.First = append(w.First, p[:take]...)
		p = p[take:]
	}
	for len(p) > 0 {
		if w.rest == nil {
			w.rest = make([]byte, 0, ChunkSize)
			w.sum = sha256.New()
			w.sum.Write(w.First)
		}
		take := min(ChunkSize-len(w.rest), len(p))
		w.rest = append(w.rest, p[:take]...)
		p = p[take:]
		if len(w.rest) == ChunkSize {
			if w.err = w.flush(); w.err != nil {
				return 0, w.err
			}
		}
	}
	return written, nil
}

func (w *Writer) flush() error {
	if len(w.rest) == 0 {
		return nil
	}
	w.sum.Write(w.rest)
	w.n++
	sealed, err := w.k.Vault.Seal(place(w.org, w.id, w.n), w.rest)
	if err != nil {
		return err
	}
	w.rest = w.rest[:0]
	if w.k.Steps != nil {
		w.k.Steps("accept.chunk")
	}
	if w.places == nil {
		w.places = make(chan struct{}, chunksAhead)
	}
	w.places <- struct{}{}
	n := w.n
	w.writes.Go(func() {
		defer func() { <-w.places }()
		if err := w.k.Store.PutChunk(w.ctx, w.org, w.id, n, sealed); err != nil {
			w.failed.CompareAndSwap(nil, &err)
		}
	})
	return w.failure()
}

// failure is the first that a chunk met.
func (w *Writer) failure() error {
	if err := w.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// Settle stores what is left behind the first chunk, and returns when all of that
// is durable.
func (w *Writer) Settle() error {
	err := w.flush()
	w.writes.Wait()
	return errors.Join(w.err, err, w.failure())
}

// Digest is the SHA-256 of the bytes and of parts behind them. After it nothing
// may be written.
func (w *Writer) Digest(parts ...string) []byte {
	if w.sum == nil {
		w.sum = sha256.New()
		w.sum.Write(w.First)
	}
	for _, p := range parts {
		fmt.Fprintf(w.sum, "%d:%s", len(p), p)
	}
	return w.sum.Sum(nil)
}

// Drop forgets the body, and takes what is stored of it away.
func (w *Writer) Drop() error {
	w.writes.Wait()
	w.Release()
	if w.n == 0 {
		return nil
	}
	return w.k.Store.DropChunks(context.WithoutCancel(w.ctx), w.org, w.id)
}

// Release gives the memory back: the first chunk is somebody else's by now.
func (w *Writer) Release() {
	if cap(w.First) <= ChunkSize && w.First != nil {
		b := w.First[:0]
		buffers.Put(&b)
	}
	w.First, w.rest = nil, nil
}

// A Reader reads a body chunk by chunk, one ahead.
type Reader struct {
	k     Keeper
	ctx   context.Context
	org   mailgrant.ID
	id    mailgrant.ID
	size  int64
	n     int64 // of the next chunk
	read  int64 // bytes of the chunks before it
	left  []byte
	ahead chan chunk
}

type chunk struct {
	bytes []byte
	err   error
}

// Open reads the first chunk of a body of size bytes.
func (k Keeper) Open(ctx context.Context, org, id mailgrant.ID, size int64) (*Reader, error) {
	r := &Reader{k: k, ctx: ctx, org: org, id: id, size: size}
	return r, r.fill()
}

// First is what has been read of the body and not been given.
func (r *Reader) First() []byte { return r.left }

// Again is a reader that begins with the first chunk, which first is.
func (r *Reader) Again(first []byte) *Reader {
	return &Reader{k: r.k, ctx: r.ctx, org: r.org, id: r.id, size: r.size, n: 1, read: int64(len(first)), left: first}
}

func (r *Reader) fetch(n int64) (c chunk) {
	sealed, err := r.k.Store.Chunk(r.ctx, r.org, r.id, n)
	if err != nil {
		return chunk{err: err}
	}
	c.bytes, c.err = r.k.Vault.Open(place(r.org, r.id, n), sealed)
	return c
}

// fill reads the next chunk.
func (r *Reader) fill() error {
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
func (r *Reader) look() {
	if r.ahead != nil || r.read >= r.size {
		return
	}
	ahead, n := make(chan chunk, 1), r.n
	r.ahead = ahead
	go func() { ahead <- r.fetch(n) }()
}

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	for len(r.left) == 0 {
		if r.read >= r.size {
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
func (r *Reader) Close() error { return nil }
