package microsoft

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant/internal/provider"
)

func notice(sub, secret, event string) []byte {
	b, _ := json.Marshal(map[string]any{"value": []any{map[string]any{"subscriptionId": sub, "clientState": secret, "changeType": "created", "lifecycleEvent": event,
		"subscriptionExpirationDateTime": "2026-11-27T00:00:00.0000000Z", "resource": "Users/1/Messages/2", "tenantId": "t", "resourceData": map[string]string{"id": "2"}}}})
	return b
}

func TestNoticeWakesTheReader(t *testing.T) {
	g := newMailGraph(t)
	k := &keeper{t, map[string]bool{}, nil}
	in, n := pushing(t, g, k)
	var at provider.Cursor
	k.all(in, &at)
	sub := g.subs["sub-1"]
	until, _ := time.Parse(time.RFC3339, sub["expirationDateTime"])
	if life := time.Until(until); !in.Pushes() || sub["resource"] != "me/mailFolders('f-in')/messages" || sub["clientState"] != "s3cret" || sub["changeType"] != "created" ||
		sub["notificationUrl"] == "" || sub["lifecycleNotificationUrl"] == "" || life < 45*time.Minute || life > 10_080*time.Minute {
		t.Fatalf("subscribed %v", sub)
	}
	for _, bad := range [][]byte{notice("sub-1", "wrong", ""), notice("sub-1", "", ""), notice("sub-1", "s3cret ", "")} {
		if reply, elsewhere := n.Handle("", bad); reply.Status != 202 || len(elsewhere) != 0 {
			t.Errorf("forged: got %+v, %v", reply, elsewhere)
		}
	}
	if _, elsewhere := n.Handle("", notice("sub-9", "s3cret", "")); len(elsewhere) != 1 || !elsewhere[0].From("s3cret") {
		t.Errorf("another's: got %+v", elsewhere)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := in.Wait(ctx); err == nil {
		t.Error("a forged notice woke the reader")
	}
	g.put("a", "f-in", "x", 0)
	for range 3 { // told more than once: woken once
		n.Handle("", notice("sub-1", "s3cret", ""))
	}
	if err := in.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	g.requests()
	if got := k.all(in, &at); got != "a=x" {
		t.Errorf("got %q", got)
	}
	if s := g.requests(); len(s) != 2 {
		t.Errorf("it took %v", s)
	}
}

func TestNoticeAddressIsValidated(t *testing.T) {
	n := NewNotices()
	for token, want := range map[string]Reply{
		"Validation: Testing client application reachability for subscription Request-Id: 1": {200, "text/plain; charset=utf-8", "Validation: Testing client application reachability for subscription Request-Id: 1"},
		"<script>alert(1)</script>":     {200, "text/plain; charset=utf-8", "<script>alert(1)</script>"},
		"a\r\nSet-Cookie: x":            {400, "", ""},
		strings.Repeat("x", 1+tokenMax): {400, "", ""},
	} {
		if got, _ := n.Handle(token, nil); got != want {
			t.Errorf("%.40q: got %+v", token, got)
		}
	}
	for _, body := range []string{"", "x", "[]", `{"value":{}}`, `{"value":[{"subscriptionId":1}]}`} {
		if got, _ := n.Handle("", []byte(body)); got.Status != 400 {
			t.Errorf("%q: got %+v", body, got)
		}
	}
}

func FuzzParseNotices(f *testing.F) {
	f.Add(notice("sub-1", "s", ""))
	f.Add([]byte(`{"value":[{}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		n := NewNotices()
		b := n.open("s")
		b.hears("sub-1")
		list, err := ParseNotices(body)
		if err != nil {
			return
		}
		elsewhere := n.Ring(list)
		rung := len(b.tell) > 0
		for _, x := range list {
			if x.Subscription == "sub-1" && x.From("s") {
				rung = !rung
				break
			}
		}
		if rung || len(elsewhere) > len(list) {
			t.Errorf("rung for %q", body)
		}
	})
}
