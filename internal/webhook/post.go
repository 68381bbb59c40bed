package webhook

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/mailgrant/mailgrant"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

const (
	// totalWithin is how long a request may take in all; connecting has its own,
	// shorter limit in package egress.
	totalWithin = 15 * time.Second

	answerRead = 64 << 10 // of an answer
	answerKept = 2 << 10

	// retryAfterMax is how long an endpoint may put us off at once.
	retryAfterMax = time.Hour
)

// A target is where and how a line posts.
type target struct {
	url     string
	full    bool
	secrets []mailgrant.Secret // the newest first; all sign
	both    time.Time          // when the second ends
	signers []*standardwebhooks.Webhook
}

// An outcome is what a request came to.
type outcome struct {
	at      time.Time
	took    time.Duration
	status  int // 0: no answer
	answer  string
	err     string // why it was not taken; "": it was
	after   time.Duration
	blocked bool // by the egress rules
}

func (o outcome) taken() bool { return o.err == "" }

// idLetters keeps byte order in text order, as the other IDs do.
var idLetters = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// DeliveryID is the webhook-id: always the same for an event and a webhook, and
// another for any other two. It begins with the time of the event, as a UUIDv7.
func DeliveryID(webhook mailgrant.ID, e mailgrant.Event) mailgrant.ID {
	h := sha256.New()
	fmt.Fprintf(h, "%s %d %d %s %s", webhook, e.Seq, e.At.UnixMicro(), e.Kind, e.Subject)
	u := h.Sum(nil)[:16]
	ms := uint64(max(e.At.UnixMilli(), 0))
	binary.BigEndian.PutUint64(u, ms<<16|0x7000|uint64(binary.BigEndian.Uint16(u[6:])&0x0fff))
	u[8] = u[8]&0x3f | 0x80
	return mailgrant.ID(mailgrant.PrefixDelivery + "_" + idLetters.EncodeToString(u))
}

// payload is the body of a request, after Standard Webhooks.
type payload struct {
	Type      string          `json:"type"`
	Timestamp time.Time       `json:"timestamp"`
	Data      mailgrant.Event `json:"data"`
}

// whole says whether what an event carries rides along: an application that is
// told of mail need not ask for its subject.
func whole(kind string, full bool) bool { return full || kind == "arrival.new" }

// Payload is the body of a request that tells of e.
func Payload(e mailgrant.Event, full bool) ([]byte, error) {
	var b bytes.Buffer
	err := writePayload(&b, e, full)
	return b.Bytes(), err
}

func writePayload(b *bytes.Buffer, e mailgrant.Event, full bool) error {
	if !whole(e.Kind, full) {
		e.Data = nil
	}
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(payload{e.Kind, e.At.UTC(), e}); err != nil {
		return err
	}
	b.Truncate(b.Len() - 1) // the line's end
	return nil
}

// Sign gives the headers that go with a body: its id, the time, and a signature by
// each of the secrets.
func Sign(h http.Header, id mailgrant.ID, at time.Time, body []byte, secrets ...mailgrant.Secret) error {
	signers, err := signersOf(secrets)
	if err != nil {
		return err
	}
	return sign(h, id, at, body, signers)
}

func signersOf(secrets []mailgrant.Secret) (l []*standardwebhooks.Webhook, err error) {
	for _, s := range secrets {
		w, err := standardwebhooks.NewWebhook(s.Reveal())
		if err != nil || !strings.HasPrefix(s.Reveal(), secretPrefix) || len(s.Reveal()) < secretMin {
			return nil, errors.New("the secret of a webhook is not whsec_ and base64") // the library's error shows it
		}
		l = append(l, w)
	}
	return l, nil
}

func sign(h http.Header, id mailgrant.ID, at time.Time, body []byte, signers []*standardwebhooks.Webhook) error {
	var all []string
	for _, s := range signers {
		one, err := s.Sign(string(id), at, body)
		if err != nil {
			return fmt.Errorf("sign: %w", err)
		}
		all = append(all, one)
	}
	h[http.CanonicalHeaderKey(standardwebhooks.HeaderWebhookID)] = []string{string(id)}
	h[http.CanonicalHeaderKey(standardwebhooks.HeaderWebhookTimestamp)] = []string{strconv.FormatInt(at.Unix(), 10)}
	h[http.CanonicalHeaderKey(standardwebhooks.HeaderWebhookSignature)] = []string{strings.Join(all, " ")}
	return nil
}

// A sheet is the buffer of a request's body. The transport may read it even after
// the request has failed, so it is used again only when all have let go of it.
type sheet struct {
	bytes.Buffer
	held atomic.Int32
}

var sheets = sync.Pool{New: func() any { return new(sheet) }}

// sheetMax is the largest buffer that is kept.
const sheetMax = 64 << 10

func takeSheet() *sheet {
	s := sheets.Get().(*sheet)
	s.Reset()
	s.held.Store(1)
	return s
}

func (s *sheet) release() {
	if s.held.Add(-1) == 0 && s.Cap() <= sheetMax {
		sheets.Put(s)
	}
}

func (s *sheet) body() io.ReadCloser {
	s.held.Add(1)
	return &sheetReader{Reader: bytes.NewReader(s.Bytes()), s: s}
}

type sheetReader struct {
	*bytes.Reader
	s    *sheet
	once sync.Once
}

// Close implements io.Closer.
func (r *sheetReader) Close() error { r.once.Do(r.s.release); return nil }

// answers are the buffers that answers are read into.
var answers = sync.Pool{New: func() any { return new([answerKept]byte) }}

// post tells a target of e. It never fails: what went wrong is in the outcome.
func (t *Teller) post(ctx context.Context, to target, id mailgrant.ID, e mailgrant.Event) (out outcome) {
	out.at = t.now().UTC()
	defer func() {
		if p := recover(); p != nil {
			t.Log.Error("telling a webhook failed inside", "delivery", id, "panic", p)
			out.err = "it failed inside of mailgrant"
		}
		out.took = t.now().Sub(out.at)
	}()
	ctx, cancel := context.WithTimeout(ctx, t.within)
	defer cancel()
	s := takeSheet()
	defer s.release()
	if err := writePayload(&s.Buffer, e, to.full); err != nil {
		out.err = "the event cannot be written as JSON"
		return out
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to.url, nil)
	if err != nil {
		out.err = "its URL is none"
		return out
	}
	r.Body, r.ContentLength = s.body(), int64(s.Len())
	r.GetBody = func() (io.ReadCloser, error) { return s.body(), nil }
	r.Header["Content-Type"] = contentType
	r.Header["User-Agent"] = userAgent
	r.Header["Accept-Encoding"] = identity                  // or else an answer is unpacked, however large it becomes
	r.Header["Idempotency-Key"] = []string{string(id)}      // and a connection that was closed meanwhile costs nothing
	signers := to.signers[:min(len(to.signers), to.sign())] // the one before may have ended since
	if err := sign(r.Header, id, out.at, s.Bytes(), signers); err != nil {
		r.Body.Close()
		out.err = "it cannot be signed"
		return out
	}
	c, err := t.HTTP()
	if err != nil {
		r.Body.Close()
		out.err = mailgrant.AsError(err).Message
		return out
	}
	res, err := c.Do(r)
	if err != nil {
		out.err, out.blocked = t.wrong(ctx, r.URL.Host, err)
		return out
	}
	defer res.Body.Close()
	out.status = res.StatusCode
	out.answer = to.clean(read(res.Body))
	out.after = retryAfter(res.Header.Get("Retry-After"), out.at)
	out.err = refusal(res.StatusCode)
	return out
}

// sign is how many of the secrets sign now.
func (t target) sign() int {
	if len(t.secrets) > 1 && !time.Now().Before(t.both) {
		return 1
	}
	return len(t.secrets)
}

var contentType, userAgent, identity = []string{"application/json"}, []string{"mailgrant"}, []string{"identity"}

// read takes the beginning of an answer, and reads on for a while: a connection
// is used again only when its answer was read. EG-04.
func read(r io.Reader) string {
	b := answers.Get().(*[answerKept]byte)
	defer answers.Put(b)
	n, err := io.ReadFull(r, b[:])
	text := string(b[:n])
	for left := answerRead - n; err == nil && left > 0; left -= n {
		n, err = r.Read(b[:min(left, len(b))])
	}
	return text
}

// refusal says why a status does not mean that the event was taken; "" when it
// does.
func refusal(status int) string {
	switch {
	case status >= 200 && status < 300:
		return ""
	case status >= 300 && status < 400:
		return fmt.Sprintf("it answered %d, and redirects are not followed: set the URL to where it leads", status)
	case status == http.StatusGone:
		return "it answered 410: it is to be told no more"
	}
	return strings.TrimSpace(fmt.Sprintf("it answered %d %s", status, http.StatusText(status)))
}

// wrong says why there was no answer, in words that tell the same whatever stands
// at an address that is out of bounds.
func (t *Teller) wrong(ctx context.Context, host string, err error) (text string, blocked bool) {
	var ours *mailgrant.Error
	var timeout net.Error
	switch {
	case errors.As(err, &ours):
		return ours.Message, ours.Code == mailgrant.Misset
	case ctx.Err() != nil, errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Sprintf("it did not answer within %v", t.within), false
	case strings.Contains(err.Error(), "tls: ") || strings.Contains(err.Error(), "x509: "):
		return "no trusted TLS connection to " + host + " could be made", false
	}
	return "the connection to " + host + " broke", false
}

// retryAfter reads the header of that name: seconds or a date.
func retryAfter(text string, now time.Time) time.Duration {
	if text == "" {
		return 0
	}
	if n, err := strconv.Atoi(strings.TrimSpace(text)); err == nil {
		return min(max(time.Duration(min(n, 1<<20))*time.Second, 0), retryAfterMax)
	}
	if at, err := http.ParseTime(text); err == nil {
		return min(max(at.Sub(now), 0), retryAfterMax)
	}
	return 0
}

// clean is an answer without control characters, and without our secret should
// the other side show it.
func (t target) clean(s string) string {
	for _, secret := range t.secrets {
		s = strings.ReplaceAll(s, secret.Reveal(), secret.String())
		s = strings.ReplaceAll(s, strings.TrimPrefix(secret.Reveal(), secretPrefix), secret.String())
	}
	s = strings.ToValidUTF8(s, "")
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\t':
			return r
		case r == '\r':
			return -1
		case unicode.IsControl(r), r == '\u2028', r == '\u2029', unicode.Is(unicode.Bidi_Control, r):
			return -1
		}
		return r
	}, s))
}

// hostOf names an endpoint in an event: its path may hold a secret.
func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Host
}
