package api_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
)

// posted is one request at a receiver.
type posted struct {
	header http.Header
	body   []byte
}

// receiver takes what it is posted.
func receiver(t *testing.T) (address string, got <-chan posted) {
	all := make(chan posted, 100)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		all <- posted{r.Header, b}
	}))
	t.Cleanup(s.Close)
	return s.URL, all
}

func holds(t *testing.T, secret string, g posted) bool {
	t.Helper()
	v, err := standardwebhooks.NewWebhook(secret)
	must(t, err)
	return v.Verify(g.body, g.header) == nil
}

func TestWebhookIsMadeAndTold(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	address, got := receiver(t)
	c := r.client(r.key(mailgrant.ScopeManage))
	w, err := c.CreateWebhook(ctx, client.WebhookSettings{Name: pointer("cases"), URL: &address, Kinds: &[]string{"reader.*"}})
	must(t, err)
	if !strings.HasPrefix(w.Secret, "whsec_") || w.State != mailgrant.WebhookActive {
		t.Errorf("made: %+v", w.Webhook)
	}
	must(t, r.store.AddEvent(ctx, mailgrant.Event{Org: r.org, Kind: "reader.failing", Subject: "thing"}))
	g := <-got
	if !holds(t, w.Secret, g) || !strings.Contains(string(g.body), `"reader.failing"`) {
		t.Errorf("told: %s", g.body)
	}
	d, err := c.TestWebhook(ctx, "CASES")
	must(t, err)
	if g = <-got; d.State != mailgrant.DeliveryTaken || d.Status != 200 || g.header.Get("webhook-id") != string(d.ID) || !holds(t, w.Secret, g) {
		t.Errorf("test: %+v, %s", d, g.body)
	}
	fresh, err := c.RotateWebhook(ctx, "cases", client.Rotation{})
	must(t, err)
	if _, err = c.TestWebhook(ctx, "cases"); err != nil {
		t.Fatal(err)
	}
	if g = <-got; !holds(t, w.Secret, g) || !holds(t, fresh.Secret, g) || fresh.BothUntil == nil || fresh.Secret == w.Secret {
		t.Error("after a rotation not both sign")
	}
	if _, err := c.ReplayWebhook(ctx, "cases", client.Replay{Since: pointer(time.Now().Add(-time.Hour))}); err != nil {
		t.Fatal(err)
	}
	if g = <-got; !strings.Contains(string(g.body), `"reader.failing"`) {
		t.Errorf("told again: %s", g.body)
	}
	var all []mailgrant.Delivery
	for deadline := time.Now().Add(20 * time.Second); len(all) < 4; { // a try is on record a moment later
		all = nil
		for cursor := ""; ; {
			p, err := c.Deliveries(ctx, "cases", false, cursor, 3)
			must(t, err)
			if all = append(all, p.Items...); p.Next == "" {
				break
			}
			cursor = p.Next
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d tries are on record", len(all))
		}
	}
	shown, err := c.UpdateWebhook(ctx, "cases", client.WebhookSettings{Disabled: pointer(true), Kinds: &[]string{"arrival.*"}})
	must(t, err)
	if shown.State != mailgrant.WebhookDisabled || len(shown.Kinds) != 1 {
		t.Errorf("changed: %+v", shown)
	}
	r.ask("POST", "/v1/webhooks/cases/replay", r.key(mailgrant.ScopeManage), `{"dead_letters":true}`).wants(t, 409)
	if l, err := c.Webhooks(ctx); err != nil || len(l) != 1 || l[0].ID != w.ID {
		t.Errorf("listed: %+v, %v", l, err)
	}
	for _, secret := range []string{w.Secret, fresh.Secret} {
		for _, path := range []string{"/v1/webhooks", "/v1/webhooks/cases", "/v1/webhooks/cases/deliveries", "/v1/events"} {
			if a := r.ask("GET", path, r.key(mailgrant.ScopeRead), ""); strings.Contains(string(a.body), secret) || a.status != 200 {
				t.Errorf("%s shows the secret, or %d", path, a.status)
			}
		}
		if strings.Contains(r.log.String(), secret) {
			t.Error("the secret is in the log")
		}
	}
	must(t, c.DeleteWebhook(ctx, "cases"))
	r.ask("GET", "/v1/webhooks/cases", r.key(mailgrant.ScopeRead), "").wants(t, 404)
}

func TestWebhooksThatCannotBe(t *testing.T) {
	r := newRig(t)
	key := r.key(mailgrant.ScopeManage)
	for body, field := range map[string]string{
		`{"url":"https://a.example/"}`:          "name",
		`{"name":"x"}`:                          "url",
		`{"name":"x","url":"ftp://a.example/"}`: "url",
		`{"name":"x","url":"https://a.example/","kinds":["Arrival New"]}`:     "kinds",
		`{"name":"x","url":"https://a.example/","kinds":["arrival.nw"]}`:      "kinds",
		`{"name":"x","url":"https://a.example/","connections":1000}`:          "connections",
		`{"name":"x\ny","url":"https://a.example/"}`:                          "name",
		`{"name":"x","url":"https://a.example/","secret":"whsec_mine"}`:       "secret",
		`{"name":"x","url":"https://a.example/","kinds":"submission.failed"}`: "kinds",
	} {
		a := r.ask("POST", "/v1/webhooks", key, body).wants(t, 422)
		a.at(t, field)
	}
	for body := range map[string]bool{`{"name":"x","url":"https://a.example/","app":"app_none"}`: true, `{"name":"x","url":"https://a.example/","mailboxes":["mbx_none"]}`: true} {
		r.ask("POST", "/v1/webhooks", key, body).wants(t, 404)
	}
	r.ask("POST", "/v1/webhooks", r.key(mailgrant.ScopeRead, mailgrant.ScopeSend), `{"name":"x","url":"https://a.example/"}`).wants(t, 403)
	r.ask("POST", "/v1/webhooks", key, `{"name":"x","url":"https://a.example/"}`).wants(t, 201)
	r.ask("POST", "/v1/webhooks", key, `{"name":"X","url":"https://a.example/"}`).wants(t, 409)
	r.ask("POST", "/v1/webhooks/x/replay", key, `{}`).wants(t, 422).at(t, "from")
	r.ask("POST", "/v1/webhooks/x/replay", key, `{"delivery":"dlv_none"}`).wants(t, 404)
	r.ask("POST", "/v1/webhooks/x/rotate", key, `{"both_for":"9999h"}`).wants(t, 422).at(t, "both_for")
}
