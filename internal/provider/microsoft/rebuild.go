package microsoft

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"net/textproto"
	"strings"

	"github.com/mailgrant/mailgrant/internal/provider"
	"github.com/mailgrant/mailgrant/internal/provider/wire"
	"github.com/mailgrant/mailgrant/internal/rfc5322"
)

// The bounds of R-ME1 for taking a message apart.
const (
	maxDepth = 64
	maxParts = 2000
	maxBody  = 2 << 20 // of the text; a draft with it must fit in one request
)

// A draft is a message in the pieces that Graph takes.
type draft struct {
	head    rfc5322.Header
	fields  mail.Header
	html    string
	text    string
	files   []part
	dropped []string // what cannot be carried over
}

// A part is one file, found again by its place.
type part struct {
	place  int
	name   string
	kind   string
	cid    string
	inline bool
	size   int64
}

var errShape = errors.New("it has more parts, or deeper ones, than can be taken apart")

// takeApart reads a message once, and keeps the text and where the files are.
func takeApart(h *provider.Handover) (*draft, error) {
	head, err := wire.ReadHeader(h)
	if err != nil {
		return nil, err
	}
	d := &draft{head: head}
	place := 0
	err = walk(h, func(p *multipart.Part, kind string, params map[string]string, r io.Reader) error {
		place++
		disposition, dp, _ := mime.ParseMediaType(p.Header.Get("Content-Disposition"))
		name := fileName(dp["filename"], params["name"])
		body := disposition != "attachment" && name == "" && p.Header.Get("Content-Id") == ""
		switch {
		case body && kind == "text/html" && d.html == "":
			d.html, err = readText(r, params["charset"])
		case body && kind == "text/plain" && d.text == "":
			d.text, err = readText(r, params["charset"])
		default:
			f := part{place: place, name: name, kind: kind, cid: strings.Trim(p.Header.Get("Content-Id"), "<> "), inline: disposition == "inline"}
			if f.name == "" {
				f.name = unnamed(place, kind)
			}
			f.size, err = io.Copy(io.Discard, r)
			f.inline = f.inline || disposition == "" && f.cid != ""
			d.files = append(d.files, f)
		}
		return err
	}, &d.fields)
	return d, err
}

func unnamed(n int, kind string) string {
	if kind == "message/rfc822" {
		return fmt.Sprintf("message-%d.eml", n)
	}
	if l, _ := mime.ExtensionsByType(kind); len(l) > 0 {
		return fmt.Sprintf("part-%d%s", n, l[0])
	}
	return fmt.Sprintf("part-%d.bin", n)
}

func fileName(names ...string) string {
	for _, n := range names {
		if d, err := new(mime.WordDecoder).DecodeHeader(n); err == nil {
			n = d
		}
		if n != "" {
			return n
		}
	}
	return ""
}

// walk visits every leaf of a message, in order, with its content decoded.
func walk(h *provider.Handover, visit func(p *multipart.Part, kind string, params map[string]string, r io.Reader) error, fields *mail.Header) error {
	src, err := wire.Read(h)
	if err != nil {
		return err
	}
	defer src.Close()
	m, err := mail.ReadMessage(bufio.NewReaderSize(src, 32<<10))
	if err != nil {
		return err
	}
	if fields != nil {
		*fields = m.Header
	}
	top := &multipart.Part{Header: textproto.MIMEHeader(m.Header)}
	parts := 0
	var down func(p *multipart.Part, r io.Reader, depth int) error
	down = func(p *multipart.Part, r io.Reader, depth int) error {
		if parts++; parts > maxParts || depth > maxDepth {
			return errShape
		}
		kind, params, err := mime.ParseMediaType(p.Header.Get("Content-Type"))
		if err != nil && kind == "" {
			kind, params = "text/plain", nil
		}
		if !strings.HasPrefix(kind, "multipart/") || params["boundary"] == "" {
			return visit(p, kind, params, decoded(r, p.Header.Get("Content-Transfer-Encoding")))
		}
		mr := multipart.NewReader(r, params["boundary"])
		for {
			next, err := mr.NextRawPart()
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
			if err := down(next, next, depth+1); err != nil {
				return err
			}
		}
	}
	return down(top, m.Body, 0)
}

// decoded undoes the transfer encoding. Foreign characters in base64 are passed
// over, as RFC 2045 section 6.8 asks.
func decoded(r io.Reader, encoding string) io.Reader {
	switch strings.ToLower(strings.TrimSpace(encoding)) {
	case "base64":
		return base64.NewDecoder(base64.StdEncoding, &letters{r: r})
	case "quoted-printable":
		return quotedprintable.NewReader(r)
	}
	return r
}

// letters passes on the letters of base64 only.
type letters struct{ r io.Reader }

func (l *letters) Read(p []byte) (int, error) {
	for {
		n, err := l.r.Read(p)
		k := 0
		for _, c := range p[:n] {
			if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '+' || c == '/' || c == '=' {
				p[k] = c
				k++
			}
		}
		if k > 0 || err != nil {
			return k, err
		}
	}
}

func readText(r io.Reader, charset string) (string, error) {
	switch strings.ToLower(charset) {
	case "", "utf-8", "us-ascii":
	default:
		c, err := rfc5322.CharsetReader(charset, r)
		if err != nil {
			return "", err
		}
		r = c
	}
	b, err := io.ReadAll(io.LimitReader(r, maxBody+1))
	if err == nil && len(b) > maxBody {
		err = fmt.Errorf("its text is larger than %d MiB", maxBody>>20)
	}
	return strings.ToValidUTF8(string(b), "\ufffd"), err
}
