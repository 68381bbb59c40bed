package main

import (
	"io"
	"net/http"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/mailgrant/mailgrant/client"
)

// largeBody is where a person begins to wonder what is happening.
const largeBody = 256 << 10

// progress shows how much of a large request has gone, when somebody watches.
// size is that of a body whose length the request does not know.
func (c *cli) progress(cmd *cobra.Command, cl *client.Client, size int64) {
	if w := cmd.ErrOrStderr(); isTerminal(w) {
		cl.HTTP.Transport = watched{cl.HTTP.Transport, w, size}
	}
}

// watched draws a bar for the body of a request.
type watched struct {
	next http.RoundTripper
	w    io.Writer
	size int64
}

func (t watched) RoundTrip(r *http.Request) (*http.Response, error) {
	size := r.ContentLength
	if size <= 0 {
		size = t.size
	}
	if r.Body == nil || r.Body == http.NoBody || size < largeBody {
		return t.next.RoundTrip(r)
	}
	bar := progressbar.NewOptions64(size, progressbar.OptionSetWriter(t.w), progressbar.OptionSetDescription("Sending"),
		progressbar.OptionShowBytes(true), progressbar.OptionShowCount(), progressbar.OptionClearOnFinish(), progressbar.OptionFullWidth())
	out := r.Clone(r.Context())
	out.Body = counted{progressbar.NewReader(r.Body, bar), r.Body}
	res, err := t.next.RoundTrip(out)
	bar.Finish()
	return res, err
}

// counted reads through the bar and closes the body itself.
type counted struct {
	progressbar.Reader
	body io.Closer
}

func (c counted) Read(p []byte) (int, error) { return c.Reader.Read(p) }
func (c counted) Close() error               { return c.body.Close() }
