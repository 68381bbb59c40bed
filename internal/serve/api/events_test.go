package api_test

import (
	"bufio"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/access"
	"github.com/mailgrant/mailgrant/internal/serve/api"
)

// follow opens a stream of events.
func (r *rig) follow(key, query string, header ...string) (*http.Response, *bufio.Reader) {
	r.Helper()
	req, err := http.NewRequestWithContext(r.Context(), "GET", r.door.URL+"/v1/events"+query, nil)
	must(r, err)
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Accept", "text/event-stream")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	must(r, err)
	r.Cleanup(func() { res.Body.Close() })
	return res, bufio.NewReader(res.Body)
}

// event is the next one of a stream, by its id and data; "" when it has ended.
func event(in *bufio.Reader) (id, data string) {
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return "", ""
		}
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "id: "):
			id = line[4:]
		case strings.HasPrefix(line, "data: "):
			data = line[6:]
		case line == "" && data != "":
			return id, data
		}
	}
}

func TestAStreamGoesOnAfterTheLastEvent(t *testing.T) {
	r := newRig(t)
	key := r.key(mailgrant.ScopeRead)
	res, in := r.follow(key, "")
	if res.Header.Get("Content-Type") != "text/event-stream" || res.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("got %v", res.Header)
	}
	first, _ := event(in)
	second, data := event(in)
	_, in = r.follow(key, "?after=0", "Last-Event-ID", first)
	if id, again := event(in); id != second || again != data {
		t.Errorf("after %s came %s, want %s", first, id, second)
	}
	_, in = r.follow(key, "?after=now")
	if line, err := in.ReadString('\n'); err != nil || line != ": keep-alive\n" {
		t.Errorf("a stream with nothing to say yet begins with %q, %v", line, err)
	}
	r.mailbox(r.org, "new@contoso.example", mailgrant.RoleNone)
	must(t, r.store.AddEvent(t.Context(), mailgrant.Event{Org: r.organization("Fabrikam"), Kind: "foreign"}))
	must(t, r.store.AddEvent(t.Context(), mailgrant.Event{Org: r.org, Kind: "own"}))
	if _, data := event(in); !strings.Contains(data, "mailbox.created") {
		t.Errorf("got %s", data)
	}
	if _, data := event(in); !strings.Contains(data, `"own"`) {
		t.Errorf("got %s", data)
	}
	r.ask("HEAD", "/v1/events", key, "", "Accept", "text/event-stream").wants(t, 200)
	r.ask("GET", "/v1/events", key, "", "Accept", "text/event-stream", "Last-Event-ID", "x").wants(t, 422).at(t, "Last-Event-ID")
}

// Who asks for a kind that no event has is told so, and does not wait for nothing.
func TestEventsOfNoKind(t *testing.T) {
	r := newRig(t)
	key := r.key(mailgrant.ScopeRead)
	for _, kind := range []string{"arrival.nw", "arival.*", ""} {
		r.ask("GET", "/v1/events?kind=arrival.new&kind="+kind, key, "").wants(t, 422).at(t, "kind")
		r.ask("GET", "/v1/events?kind="+kind, key, "", "Accept", "text/event-stream").wants(t, 422).at(t, "kind")
	}
	r.ask("GET", "/v1/events?kind=submission.*", key, "").wants(t, 200)
	must(t, mailgrant.CheckKinds("kind", api.ArrivalKinds))
}

// A stream of few kinds passes all others, and what mail says stays on its line.
func TestME07_AStreamOfOneKind(t *testing.T) {
	r := newRig(t)
	_, in := r.follow(r.key(mailgrant.ScopeRead), "?after=now&kind=arrival.new")
	if _, err := in.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	subject := "a\nid: 9\ndata: {}\n\nevent: x\r\r\u2028"
	for n := range 5 {
		for range 20 {
			must(t, r.store.AddEvent(t.Context(), mailgrant.Event{Org: r.org, Kind: "other"}))
		}
		b, err := json.MarshalIndent(map[string]any{"n": n, "subject": subject}, "", "\n")
		must(t, err)
		must(t, r.store.AddEvent(t.Context(), mailgrant.Event{Org: r.org, Kind: "arrival.new", Data: b}))
		_, text := event(in)
		var e struct {
			Data struct {
				N       int    `json:"n"`
				Subject string `json:"subject"`
			} `json:"data"`
		}
		if err := json.Unmarshal([]byte(text), &e); err != nil || e.Data.N != n || e.Data.Subject != subject {
			t.Errorf("event %d: %s, %v", n, text, err)
		}
	}
}

func TestAP08_AStreamEndsWithItsKey(t *testing.T) {
	r := newRig(t)
	app := r.app(r.org, nil)
	k, secret, err := r.access.IssueKey(t.Context(), r.org, app.ID, access.KeyInput{Scopes: []mailgrant.Scope{mailgrant.ScopeRead}})
	must(t, err)
	_, in := r.follow(secret.Reveal(), "?after=now")
	if _, err := in.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	must(t, r.access.RevokeKey(t.Context(), r.org, k.ID))
	r.mailbox(r.org, "new@contoso.example", mailgrant.RoleNone)
	if id, data := event(in); id != "" {
		t.Errorf("a revoked key heard %s", data)
	}
}

func TestStreamsEndWhenTheDoorStops(t *testing.T) {
	r := newRig(t)
	_, in := r.follow(r.key(mailgrant.ScopeRead), "?after=now")
	if _, err := in.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	r.api.Stop()
	if id, _ := event(in); id != "" {
		t.Errorf("got event %s", id)
	}
	r.api.Stop() // again is nothing
	_, in = r.follow(r.key(mailgrant.ScopeRead), "")
	if id, _ := event(in); id != "" {
		t.Errorf("a stream that begins after the stop got event %s", id)
	}
}

func TestStreamsOfOneAppAreCounted(t *testing.T) {
	r := newRig(t)
	app := r.app(r.org, nil)
	key := r.keyOf(app, mailgrant.ScopeRead)
	for range 32 {
		_, in := r.follow(key, "?after=now")
		if _, err := in.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	r.ask("GET", "/v1/events", r.keyOf(app, mailgrant.ScopeRead), "", "Accept", "text/event-stream").wants(t, 429)
	_, in := r.follow(r.key(mailgrant.ScopeRead), "?after=now")
	if _, err := in.ReadString('\n'); err != nil {
		t.Errorf("another app: %v", err)
	}
}
