package webhook_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
)

// boxesOfBench are so many that each event is of another lane.
const boxesOfBench = 10_000

// meter is a receiver that notes how late each event comes.
func meter(b *testing.B) (address string, late func() []time.Duration) {
	var mu sync.Mutex
	var all []time.Duration
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		at := time.Now()
		body, _ := io.ReadAll(r.Body)
		g := parse(body)
		mu.Lock()
		defer mu.Unlock()
		all = append(all, at.Sub(g.At))
	}))
	b.Cleanup(s.Close)
	return s.URL, func() []time.Duration { mu.Lock(); defer mu.Unlock(); return slices.Clone(all) }
}

// BenchmarkEventToRequest is how long after an event was added its webhook hears of
// it, at a hundred a second.
func BenchmarkEventToRequest(b *testing.B) {
	address, late := meter(b)
	r := newRig(b, filepath.Join(b.TempDir(), "mailgrant.db"), func(r *rig) { r.client = &http.Client{} })
	r.hook("cases", func(w *mailgrant.Webhook) { w.URL = address })
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	b.ResetTimer()
	var adding []time.Duration // and so long of it was spent on adding it
	for n := range b.N {
		<-tick.C
		began := time.Now()
		r.say(fmt.Sprint("mbx_", n%boxesOfBench), n)
		adding = append(adding, time.Since(began))
	}
	for len(late()) < b.N {
		<-tick.C
	}
	b.StopTimer()
	for name, l := range map[string][]time.Duration{"": late(), "adding-": adding} {
		slices.Sort(l)
		b.ReportMetric(float64(l[len(l)/2].Microseconds())/1000, name+"p50-ms")
		b.ReportMetric(float64(l[len(l)*99/100].Microseconds())/1000, name+"p99-ms")
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkBacklog is how fast a webhook is told of what has piled up.
func BenchmarkBacklog(b *testing.B) {
	address, late := meter(b)
	r := newRig(b, filepath.Join(b.TempDir(), "mailgrant.db"), func(r *rig) { r.client = &http.Client{} })
	w := r.hook("cases", func(w *mailgrant.Webhook) { w.URL = address })
	w.State = mailgrant.WebhookDisabled
	_, err := r.teller.Update(context.Background(), w)
	must(b, err)
	var wg sync.WaitGroup
	for door := range 32 {
		wg.Go(func() {
			for n := door; n < b.N; n += 32 {
				r.say(fmt.Sprint("mbx_", n%boxesOfBench), n)
			}
		})
	}
	wg.Wait()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	b.ReportAllocs()
	b.ResetTimer()
	w.State = mailgrant.WebhookActive
	_, err = r.teller.Update(context.Background(), w)
	must(b, err)
	for len(late()) < b.N {
		<-tick.C
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
