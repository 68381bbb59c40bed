package api_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/mailgrant/mailgrant"
)

// ten is a message of 10 KB.
var ten = []byte(jsonOf(map[string]any{"from": "office@contoso.example", "to": []string{"kim@fabrikam.example"}, "subject": "Your case 4711",
	"text": strings.Repeat("Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do.\n", 10<<10/65)}))

// quiet is an answer that nobody keeps.
type quiet struct {
	h      http.Header
	status int
}

func (q *quiet) Header() http.Header         { return q.h }
func (q *quiet) Write(p []byte) (int, error) { return len(p), nil }
func (q *quiet) WriteHeader(status int)      { q.status = status }

func requests(b *testing.B, r *rig, method, path, key string, body []byte, status int) {
	b.Helper()
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	b.RunParallel(func(pb *testing.PB) {
		in := bytes.NewReader(body)
		q := &quiet{h: http.Header{}}
		for pb.Next() {
			in.Reset(body)
			req, err := http.NewRequestWithContext(context.Background(), method, path, io.NopCloser(in))
			if err != nil {
				b.Error(err)
				return
			}
			req.ContentLength, req.RemoteAddr = int64(len(body)), "192.0.2.1:1"
			req.Header["Authorization"] = []string{"Bearer " + key}
			if len(body) > 0 {
				req.Header["Content-Type"] = []string{"application/json"}
			}
			clear(q.h)
			if r.api.ServeHTTP(q, req); q.status != status {
				b.Errorf("got %d, want %d", q.status, status)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
}

// BenchmarkSubmission10KB is the whole accept of a message in fields, durable.
func BenchmarkSubmission10KB(b *testing.B) {
	r := newRig(b)
	b.SetParallelism(16)
	requests(b, r, "POST", "/v1/submissions", r.key(mailgrant.ScopeSend), ten, 202)
}

// BenchmarkRefusal10KB reads and writes the message and is refused before it is
// kept: what the door itself costs.
func BenchmarkRefusal10KB(b *testing.B) {
	r := newRig(b)
	body := bytes.Replace(ten, []byte("office@contoso.example"), []byte("ceo@bank.example"), 1)
	requests(b, r, "POST", "/v1/submissions", r.key(mailgrant.ScopeSend), body, 422)
}

// BenchmarkToken is a token from the cache, without the network.
func BenchmarkToken(b *testing.B) {
	r := newRig(b)
	g := r.active(r.org, r.box.Address)
	m := r.box
	m.Grant = g.ID
	must(b, r.store.UpdateMailbox(b.Context(), m))
	key := r.keyOf(r.app(r.org, func(a *mailgrant.App) { a.Mailboxes = []mailgrant.ID{m.ID} }), mailgrant.ScopeToken)
	requests(b, r, "GET", "/v1/grants/"+string(g.ID)+"/token", key, nil, 200)
}

// BenchmarkTokenOverHTTP is the same over connections that stay open.
func BenchmarkTokenOverHTTP(b *testing.B) {
	r := newRig(b)
	g := r.active(r.org, r.box.Address)
	key := r.key(mailgrant.ScopeManage)
	s := httptest.NewServer(r.api)
	defer s.Close()
	c := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			req, err := http.NewRequest("GET", s.URL+"/v1/grants/"+string(g.ID)+"/token", nil)
			if err != nil {
				b.Error(err)
				return
			}
			req.Header["Authorization"] = []string{"Bearer " + key}
			res, err := c.Do(req)
			if err != nil {
				b.Error(err)
				return
			}
			if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != 200 {
				b.Errorf("got %d, %v", res.StatusCode, err)
			}
			res.Body.Close()
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
}
