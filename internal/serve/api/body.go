package api

import (
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"mime"
	"net/http"
	"os"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/mailgrant/mailgrant"
)

const (
	// settingsMax bounds the bodies of settings; a certificate chain fits.
	settingsMax = 1 << 20

	// smallBody is what a body may take of the memory without asking.
	smallBody = 256 << 10

	// memoryMin is what all large JSON bodies together may take at least.
	memoryMin = 64 << 20

	// bodyWithin is how long a body may take, and slowest how many of its bytes
	// must come in each second after that. WB-07.
	bodyWithin = 20 * time.Second
	slowest    = 8 << 10
)

// jsonMax bounds a message in fields: base64 makes four bytes of three.
func (a *API) jsonMax() int64 { return a.MessageBytes/3*4 + settingsMax }

// bodyError says why a request's body could not be read to its end.
func bodyError(err error) error {
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return tooLarge(large.Limit)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return mailgrant.Errorf(mailgrant.Invalid, httpStatus(http.StatusRequestTimeout), "the body came too slowly").
			Fix("send it at %d KiB a second or more", slowest>>10)
	}
	var e *mailgrant.Error
	if errors.As(err, &e) {
		return e
	}
	return mailgrant.Errorf(mailgrant.Invalid, errJSON, "the body could not be read to its end").
		Fix("send it again, with its true Content-Length")
}

func tooLarge(limit int64) error {
	return mailgrant.Errorf(mailgrant.TooLarge, nil, "the body is larger than %d bytes", limit).
		Fix("make it smaller, or send large messages as message/rfc822")
}

// contentType is what the body is, without parameters. A body that is packed is
// refused: what it grows to nobody knows. AP-06.
func (c *call) contentType(can ...string) (string, error) {
	h := c.r.Header
	if packed := h["Content-Encoding"]; len(packed) > 0 && !(len(packed) == 1 && strings.EqualFold(packed[0], "identity")) {
		return "", mailgrant.Errorf(mailgrant.Invalid, httpStatus(http.StatusUnsupportedMediaType), "the body is packed (Content-Encoding)").Fix("send it as it is")
	}
	for _, kind := range can { // the usual case
		if v := h["Content-Type"]; len(v) == 1 && v[0] == kind {
			return kind, nil
		}
	}
	kind, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err == nil && len(h["Content-Type"]) == 1 {
		charset := params["charset"]
		for _, k := range can {
			if k == kind && (kind != jsonType || charset == "" || strings.EqualFold(charset, "utf-8")) {
				return kind, nil
			}
		}
	}
	return "", mailgrant.Errorf(mailgrant.Invalid, httpStatus(http.StatusUnsupportedMediaType), "the body is not of a type that is read here").
		Fix("send the header Content-Type: %s", strings.Join(can, " or "))
}

// A body reads a request's body within bounds of size, time and memory.
type body struct {
	c      *call
	r      io.Reader
	rc     *http.ResponseController
	began  time.Time
	read   int64
	limit  int64
	want   int64 // memory it may come to hold
	holds  int64 // of the memory that all share
	sum    hash.Hash
	ended  bool  // it was read to its end
	failed error // why it could not be
}

// open begins to read the body. Close it. Where it is to be held in memory, held
// is as much as that can become.
func (c *call) open(limit int64, held bool) (*body, error) {
	if c.r.ContentLength > limit {
		c.w.Header().Set("Connection", "close")
		return nil, tooLarge(limit)
	}
	b := &body{c: c, r: c.r.Body, rc: http.NewResponseController(c.w), began: time.Now(), limit: limit}
	if held {
		if b.want = c.r.ContentLength; b.want < 0 {
			b.want = limit
		}
	}
	return b, nil
}

func (b *body) deadline(t time.Time) { b.c.deadline(b.rc, t) }

// deadline bounds the reading of the body, also of one that nobody reads: the
// server wants its end before it answers. Under a server that has no deadlines its
// own count.
func (c *call) deadline(rc *http.ResponseController, t time.Time) {
	if err := rc.SetReadDeadline(t); err != nil && !errors.Is(err, http.ErrNotSupported) {
		c.Log.Debug("a deadline was not set", "trace", c.trace, "err", err)
	}
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (n int, err error) {
	defer func() {
		if err == io.EOF {
			b.ended = true
		} else if err != nil {
			b.failed = err
		}
	}()
	n, err = b.r.Read(p)
	was := b.read
	if b.read += int64(n); b.read > b.limit {
		return 0, tooLarge(b.limit)
	}
	if b.sum != nil {
		b.sum.Write(p[:n])
	}
	if b.read/smallBody != was/smallBody {
		if e := b.grow(); e != nil {
			return 0, e
		}
		b.deadline(b.began.Add(b.c.within + time.Duration(b.read/slowest)*time.Second))
	}
	return n, err
}

// memoryWithin is how long a large body waits for others to end.
const memoryWithin = 10 * time.Second

func (b *body) grow() error {
	if b.want == 0 || b.holds > 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(b.c.r.Context(), memoryWithin)
	defer cancel()
	if err := b.c.memory.Acquire(ctx, b.want); err != nil {
		return mailgrant.Errorf(mailgrant.Unavailable, err, "too many large messages are coming in at once").
			Fix("try again, or send large messages as message/rfc822")
	}
	b.holds = b.want
	b.began = b.began.Add(memoryWithin) // the wait was ours
	return nil
}

// left is how many bytes may still come, -1 when nobody knows.
func (b *body) left() int64 {
	if b.c.r.ContentLength < 0 {
		return -1
	}
	return b.c.r.ContentLength - b.read
}

// Close implements io.Closer.
func (b *body) Close() {
	if b.ended { // the deadline would end the rest of the request; of a body that is not read it ends the rest
		b.deadline(time.Time{})
	}
	if b.holds > 0 {
		b.c.memory.Release(b.holds)
		b.holds = 0
	}
}

// readers are used again with their windows.
var readers = sync.Pool{New: func() any { return newJSONReader(nil, make([]byte, 32<<10)) }}

// rest makes j ready for another body. The attachments it decoded are not its own
// any more.
func (j *jsonReader) rest() {
	*j = jsonReader{buf: j.buf, scratch: j.scratch[:0]}
	readers.Put(j)
}

var windows = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// decode reads the body into v, strictly.
func (c *call) decode(v any) error {
	if _, err := c.contentType(jsonType); err != nil {
		return err
	}
	return c.read(settingsMax, func(j *jsonReader) error { return j.value("", reflect.ValueOf(v).Elem()) })
}

func (c *call) read(limit int64, f func(*jsonReader) error) error {
	return c.readHashed(limit, false, nil, f)
}

// readHashed reads a JSON body by f. Where it is to be hashed, digest tells it
// from every other.
func (c *call) readHashed(limit int64, hashed bool, digest *[]byte, f func(*jsonReader) error) error {
	b, err := c.open(limit, true)
	if err != nil {
		return err
	}
	defer b.Close()
	if hashed {
		b.sum = sha256.New()
		defer func() { *digest = b.sum.Sum(nil) }()
	}
	j := readers.Get().(*jsonReader)
	defer j.rest()
	j.r, j.left = b, b.left
	if err := f(j); err != nil {
		return err
	}
	return j.finish()
}

// nothing reads a body that has nothing to say: none, or {}.
func (c *call) nothing() error {
	if c.r.ContentLength == 0 || c.r.Body == nil || c.r.Body == http.NoBody {
		return nil
	}
	var none struct{}
	return c.decode(&none)
}
