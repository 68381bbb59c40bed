package webhook_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/egress"
	"github.com/mailgrant/mailgrant/internal/webhook"
)

// A body that was altered, an old timestamp, a signature that is missing and
// another's secret are refused; for a time two secrets sign.
func TestEG05Signatures(t *testing.T) {
	inTime(t, func(t *testing.T, r *rig) {
		time.Sleep(24 * 365 * time.Hour)
		w, secret := r.hookAndSecret("cases")
		_, foreign := r.hookAndSecret("other", func(w *mailgrant.Webhook) { w.Kinds = []string{"admin_consent.denied"} })
		if !strings.HasPrefix(secret.Reveal(), "whsec_") || len(secret.Reveal()) < 40 || secret == foreign {
			t.Errorf("a secret of %d letters", len(secret.Reveal()))
		}
		last := func() told {
			r.say("mbx_a", 1)
			settle(time.Second)
			l := r.far.list()
			return l[len(l)-1]
		}
		holds := func(s mailgrant.Secret, g told) bool {
			v, err := standardwebhooks.NewWebhook(s.Reveal())
			must(t, err)
			return v.Verify(g.body, g.header) == nil
		}
		g := last()
		if !holds(secret, g) || g.header.Get("webhook-id") != string(webhook.DeliveryID(w.ID, r.events("reader.failing")[0])) || g.header.Get("Content-Type") != "application/json" {
			t.Errorf("the headers do not hold: %v", g.header)
		}
		if ts, err := strconv.ParseInt(g.header.Get("webhook-timestamp"), 10, 64); err != nil || ts != g.at.Unix() {
			t.Errorf("the time is %v", g.header.Get("webhook-timestamp"))
		}
		altered, stripped, old := g, g, g
		altered.body = append(bytes.Clone(g.body), ' ')
		stripped.header, old.header = g.header.Clone(), g.header.Clone()
		stripped.header.Del("webhook-signature")
		old.header.Set("webhook-timestamp", strconv.FormatInt(g.at.Unix()-1, 10))
		if holds(secret, altered) || holds(secret, stripped) || holds(secret, old) || holds(foreign, g) {
			t.Error("what is forged holds")
		}
		var p map[string]any
		must(t, json.Unmarshal(g.body, &p))
		if p["type"] != "reader.failing" || p["timestamp"] == nil || p["data"].(map[string]any)["subject"] != "thing_1" {
			t.Errorf("the body is %s", g.body)
		}
		_, fresh, err := r.teller.Rotate(t.Context(), r.org, w.ID, webhook.BothFor)
		must(t, err)
		settle(time.Second)
		if g = last(); !holds(secret, g) || !holds(fresh, g) {
			t.Error("after a rotation not both sign")
		}
		if r.now(w).BothUntil == nil {
			t.Error("it is not said that both sign")
		}
		settle(webhook.BothFor)
		if g = last(); holds(secret, g) || !holds(fresh, g) || r.now(w).BothUntil != nil {
			t.Error("a day after a rotation the old secret signs still")
		}
		_, third, err := r.teller.Rotate(t.Context(), r.org, w.ID, 0)
		must(t, err)
		settle(time.Second)
		if g = last(); holds(fresh, g) || !holds(third, g) {
			t.Error("a rotation at once leaves the old secret")
		}
		_, _, err = r.teller.Rotate(t.Context(), r.org, w.ID, -time.Second)
		is(t, err, mailgrant.Invalid)
		if strings.Contains(r.log.String(), "whsec_") {
			t.Error("a secret is in the log")
		}
	})
}

// guarded has a rig go through a real guard.
func guarded(t *testing.T, allow ...string) func(*rig) {
	g, err := egress.New(egress.Config{Allow: allow})
	must(t, err)
	return func(r *rig) {
		r.config = func(c *webhook.Config) { c.HTTP, c.May = func() (*http.Client, error) { return g.HTTP("") }, g.May }
	}
}

// What lies inside is not connected to, whatever it is called; who tries learns
// nothing, and it is on record. The way of a redirect is not gone.
func TestEG01InnerAddresses(t *testing.T) {
	t.Parallel()
	var reached atomic.Int32
	inner := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	defer inner.Close()
	r := newRig(t, filepath.Join(t.TempDir(), "mailgrant.db"), guarded(t))
	_, port, _ := net.SplitHostPort(inner.Listener.Addr().String())
	said := map[string]bool{}
	for i, host := range []string{"127.0.0.1", "localhost", "localhost.", "0.0.0.0", "[::1]", "169.254.169.254", "10.0.0.1", "192.168.1.1", "2130706433", "0x7f000001", "0177.0.0.1", "[::ffff:127.0.0.1]", "127.1"} {
		w := r.hook(fmt.Sprint("h", i), func(w *mailgrant.Webhook) { w.Kinds = []string{"admin_consent.denied"} })
		w.URL = "https://" + host + "/"
		must(t, r.store.UpdateWebhook(t.Context(), w)) // as one that was there before such a URL was refused
		d, err := r.teller.Test(t.Context(), r.org, w.ID)
		must(t, err)
		if d.State == mailgrant.DeliveryTaken || d.Status != 0 {
			t.Errorf("%s: %+v", host, d)
		}
		said[strings.ReplaceAll(d.Error, strings.Trim(host, "[]"), "HOST")] = true
	}
	if len(said) > 3 { // refused, with brackets or without; and what no resolver knows
		t.Errorf("it is said: %v", said)
	}
	if l := r.events("webhook.blocked"); len(l) < 8 {
		t.Errorf("%d refusals are on record", len(l))
	}
	for _, u := range []string{"http://hooks.example/", "https://hooks.example:" + port + "/", "https://user:pw@hooks.example/", "ftp://hooks.example/", "hooks.example", "https://hooks.example/#x", "https:///x"} {
		_, _, err := r.teller.Create(t.Context(), mailgrant.Webhook{Org: r.org, Name: "bad", URL: u})
		is(t, err, mailgrant.Invalid)
		if mailgrant.AsError(err).Field != "url" || strings.Contains(err.Error(), "pw@") {
			t.Errorf("%s: %v", u, err)
		}
	}
	if reached.Load() > 0 {
		t.Error("an inner server was reached")
	}
}

// An inner address that is written in the URL is refused when it is set, whatever stands
// there, unless the operator let it through; names are looked up when it is told. A
// webhook that has such a URL can still be changed.
func TestEG01InnerAddressesAreNotSet(t *testing.T) {
	t.Parallel()
	r := newRig(t, filepath.Join(t.TempDir(), "mailgrant.db"), guarded(t, "10.0.0.7:8080"))
	ctx := t.Context()
	w := r.hook("cases")
	for _, host := range []string{"127.0.0.1", "127.0.0.1.", "0.0.0.0", "10.0.0.1", "10.0.0.7", "192.168.1.1:8443", "169.254.169.254", "[::1]", "[::ffff:10.0.0.1]", "[64:ff9b::7f00:1]", "[fe80::1%25eth0]"} {
		fresh := mailgrant.Webhook{Org: r.org, Name: "inner", URL: "https://" + host + "/hooks"}
		_, _, err := r.teller.Create(ctx, fresh)
		is(t, err, mailgrant.Invalid)
		changed := w
		changed.URL = fresh.URL
		_, also := r.teller.Update(ctx, changed)
		is(t, also, mailgrant.Invalid)
		e := mailgrant.AsError(err)
		if e.Field != "url" || !strings.HasPrefix(e.Message, "mailgrant does not connect to ") || !strings.Contains(e.Remedy, "egress.allow") || also.Error() != err.Error() {
			t.Errorf("%s: at %q: %v; %s; when changed: %v", host, e.Field, err, e.Remedy, also)
		}
	}
	for _, host := range []string{"http://127.0.0.1/", "http://[::1]/", "http://10.0.0.7/"} {
		_, _, err := r.teller.Create(ctx, mailgrant.Webhook{Org: r.org, Name: "inner", URL: host})
		is(t, err, mailgrant.Invalid)
	}
	for i, u := range []string{"http://10.0.0.7:8080/", "https://10.0.0.7:8080/", "https://localhost/", "https://8.8.8.8/"} {
		r.hook(fmt.Sprint("may", i), func(w *mailgrant.Webhook) { w.URL = u })
	}
	w.URL = "https://10.0.0.1/"
	must(t, r.store.UpdateWebhook(ctx, w))
	w.State = mailgrant.WebhookDisabled
	if w, err := r.teller.Update(ctx, w); err != nil || w.State != mailgrant.WebhookDisabled {
		t.Errorf("one that is there is not switched off: %v", err)
	}
}

// A webhook that the egress rules stop is blocked in the line as well, is said to be
// so once, and nothing is lost when the operator lets it through.
func TestEG02BlockedAtEachTry(t *testing.T) {
	t.Parallel()
	r := newRig(t, filepath.Join(t.TempDir(), "mailgrant.db"), guarded(t))
	r.hook("inner", func(w *mailgrant.Webhook) { w.URL = "https://localhost/" })
	added, stop := r.store.WatchEvents()
	defer stop()
	for n := range 4 {
		r.say(fmt.Sprint("mbx_", n), 0)
	}
	for len(r.events("webhook.failing")) == 0 {
		<-added
	}
	if n := len(r.events("webhook.blocked")); n != 1 {
		t.Errorf("it is said %d times", n)
	}
}

func TestEG03RedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	var hit atomic.Int32
	inner := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hit.Add(1) }))
	defer inner.Close()
	code := http.StatusTemporaryRedirect
	outer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, inner.URL, code) }))
	defer outer.Close()
	r := newRig(t, filepath.Join(t.TempDir(), "mailgrant.db"), guarded(t, outer.Listener.Addr().String(), inner.Listener.Addr().String()))
	w := r.hook("outer", func(w *mailgrant.Webhook) { w.URL = outer.URL; w.Kinds = []string{"admin_consent.denied"} })
	for _, code = range []int{301, 302, 303, 307, 308} {
		d, err := r.teller.Test(t.Context(), r.org, w.ID)
		must(t, err)
		if d.State != mailgrant.DeliveryRefused || d.Status != code || !strings.Contains(d.Error, "redirect") {
			t.Errorf("%d: %+v", code, d)
		}
	}
	if hit.Load() > 0 {
		t.Error("a redirect was followed")
	}
}

// Receivers that misbehave hold nobody else up, and cost what they may.
func TestEG04HostileReceivers(t *testing.T) { // by itself: it looks at the clock
	over := make(chan struct{})
	defer close(over)
	var sent atomic.Int64
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	io.Copy(z, io.LimitReader(zeros{}, 16<<20))
	must(t, z.Close())
	hostile := map[string]http.HandlerFunc{
		"huge": func(w http.ResponseWriter, _ *http.Request) {
			b := make([]byte, 1<<20)
			for range 1 << 10 {
				n, err := w.Write(b)
				if sent.Add(int64(n)); err != nil {
					return
				}
			}
		},
		"bomb": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(bomb.Bytes())
		},
		"drip": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusServiceUnavailable)
			for {
				w.Write([]byte("x"))
				w.(http.Flusher).Flush()
				select {
				case <-time.After(100 * time.Millisecond):
				case <-r.Context().Done():
					return
				case <-over:
					return
				}
			}
		},
		"headers": func(w http.ResponseWriter, _ *http.Request) {
			for i := range 10_000 {
				w.Header().Set(fmt.Sprint("X-Header-", i), "value")
			}
		},
		"late": func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
			case <-over:
			}
		},
		"ansi": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(500)
			io.WriteString(w, "\x1b[2J<script>\x00\xff\u202e"+strings.Repeat("é", 4000))
		},
	}
	urls := map[string]string{}
	for name, f := range hostile {
		s := httptest.NewServer(f)
		t.Cleanup(s.CloseClientConnections)
		urls[name] = s.URL
	}
	deaf, err := net.Listen("tcp", "127.0.0.1:0") // nobody accepts
	must(t, err)
	defer deaf.Close()
	urls["deaf"] = "http://" + deaf.Addr().String()
	var mu sync.Mutex
	var late []time.Duration
	enough := make(chan struct{})
	good := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		e := parse(b)
		mu.Lock()
		defer mu.Unlock()
		if late = append(late, time.Since(e.At)); len(late) == 200 {
			close(enough)
		}
	}))
	defer good.Close()
	urls["good"] = good.URL
	var allow []string
	for _, u := range urls {
		p, _ := url.Parse(u)
		allow = append(allow, p.Host)
	}
	r := newRig(t, filepath.Join(t.TempDir(), "mailgrant.db"), guarded(t, allow...))
	hooks := map[string]mailgrant.Webhook{}
	webhook.SetWithin(r.teller, time.Second)
	for name, u := range urls {
		hooks[name] = r.hook(name, func(w *mailgrant.Webhook) {
			if w.URL = u; name != "good" {
				w.Kinds = []string{"reader.held"}
			}
		})
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for n := range 200 {
		r.say(fmt.Sprint("mbx_", n%20), n/20)
		if n%40 == 0 {
			must(t, r.store.AddEvent(t.Context(), mailgrant.Event{Org: r.org, Kind: "reader.held", Mailbox: mailgrant.ID(fmt.Sprint("mbx_", n%20))}))
		}
		<-tick.C
	}
	<-enough
	mu.Lock()
	slices.Sort(late)
	if late[len(late)*9/10] > time.Second {
		t.Errorf("at the good one they come late: %v", late)
	}
	mu.Unlock()
	for name, w := range hooks {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		d, err := r.teller.Test(ctx, r.org, w.ID)
		cancel()
		must(t, err)
		wantTaken := name == "good" || name == "huge" || name == "bomb"
		if (d.State == mailgrant.DeliveryTaken) != wantTaken || d.Took > 4*time.Second {
			t.Errorf("%s: %s %d %s after %v", name, d.State, d.Status, d.Error, d.Took)
		}
		if len(d.Answer) > 2<<10 || strings.ContainsAny(d.Answer, "\x00\x1b\u202e") {
			t.Errorf("%s: an answer of %d bytes is kept: %.60q", name, len(d.Answer), d.Answer)
		}
	}
	if tries := int64(len(r.events("reader.held")) + 1); sent.Load() > tries*(8<<20) {
		t.Errorf("%d MB of the huge answer were sent", sent.Load()>>20)
	}
}

type zeros struct{}

// Read implements io.Reader.
func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
