package oauth_test

import (
	"errors"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider/oauth"
)

func TestDeviceCode(t *testing.T) {
	for _, c := range []struct {
		name, body string
		ok         bool
		interval   time.Duration
		complete   string
	}{
		{"Entra", `{"device_code":"d","user_code":"ABC-DEF","verification_uri":"https://microsoft.com/devicelogin","expires_in":900,"interval":5,"message":"x"}`, true, 5 * time.Second, ""},
		{"Google", `{"device_code":"d","user_code":"ABC-DEF","verification_url":"https://www.google.com/device","expires_in":1800,"interval":"7"}`, true, 7 * time.Second, ""},
		{"no interval", `{"device_code":"d","user_code":"U","verification_uri":"https://x.example/d","verification_uri_complete":"https://x.example/d?c=U"}`, true, 5 * time.Second, "https://x.example/d?c=U"},
		{"a script for an address", `{"device_code":"d","user_code":"U","verification_uri":"javascript:alert(1)"}`, false, 0, ""},
		{"a script beside it", `{"device_code":"d","user_code":"U","verification_uri":"https://x.example","verification_uri_complete":"data:text/html,x"}`, true, 5 * time.Second, ""},
		{"no device code", `{"user_code":"U","verification_uri":"https://x.example"}`, false, 0, ""},
		{"no user code", `{"device_code":"d","verification_uri":"https://x.example"}`, false, 0, ""},
		{"wrong types", `{"device_code":"d","user_code":5,"verification_uri":"https://x.example"}`, false, 0, ""},
		{"empty", `{}`, false, 0, ""},
		{"a page", `<html>`, false, 0, ""},
	} {
		h := newHostile(t, says(200, c.body))
		cl := h.client()
		cl.Settings.Discovery = "none"
		d, err := cl.Device(t.Context(), []string{"openid", "x"})
		if ok := err == nil; ok != c.ok || err != nil && !errors.Is(err, mailgrant.Unavailable) {
			t.Errorf("%s: got %v", c.name, err)
			continue
		}
		if !c.ok {
			continue
		}
		if d.Interval != c.interval || d.Complete != c.complete || d.Code.IsZero() || time.Until(d.Expires) > 10*time.Minute || h.last().Get("scope") != "openid x" || h.last().Has("client_secret") {
			t.Errorf("%s: got %+v, form %v", c.name, d, h.last())
		}
	}
	h := newHostile(t, says(200, `{}`))
	c := h.client()
	c.Settings.Discovery = "oidc"
	if c.Device(t.Context(), nil); h.last().Get("client_secret") != "s3cret" {
		t.Errorf("a provider found by its metadata: form %v", h.last())
	}
	c.Settings.DeviceAuthorizationEndpoint = ""
	if _, err := c.Device(t.Context(), nil); !errors.Is(err, mailgrant.Invalid) {
		t.Errorf("no endpoint: got %v", err)
	}
}

func TestDevicePolling(t *testing.T) {
	for _, c := range []struct {
		body  string
		state oauth.Pending
		code  mailgrant.Code
	}{
		{`{"error":"authorization_pending"}`, oauth.Waiting, ""},
		{`{"error":"slow_down"}`, oauth.SlowDown, ""},
		{`{"error":"authorization_declined"}`, oauth.NotPending, mailgrant.Lapsed},
		{`{"error":"access_denied"}`, oauth.NotPending, mailgrant.Lapsed},
		{`{"error":"expired_token"}`, oauth.NotPending, mailgrant.Lapsed},
		{`{"error":"bad_verification_code"}`, oauth.NotPending, mailgrant.Lapsed},
		{`{"error":"server_error"}`, oauth.NotPending, mailgrant.Unavailable},
		{`<html>`, oauth.NotPending, mailgrant.Unavailable},
	} {
		h := newHostile(t, says(400, c.body))
		_, state, err := h.client().PollDevice(t.Context(), mailgrant.NewSecret("d"))
		if state != c.state || c.code == "" && err != nil || c.code != "" && !errors.Is(err, c.code) {
			t.Errorf("%s: got %v, %v", c.body, state, err)
		}
		if err != nil && (oauth.SortOf(err) == oauth.Transient) != (c.code == mailgrant.Unavailable) {
			t.Errorf("%s: sorted as %v", c.body, oauth.SortOf(err))
		}
		if f := h.last(); f.Get("device_code") != "d" || f.Get("client_secret") != "s3cret" || f.Get("grant_type") != "urn:ietf:params:oauth:grant-type:device_code" {
			t.Errorf("%s: form %v", c.body, f)
		}
	}
	h := newHostile(t, says(200, `{"access_token":"a","refresh_token":"r"}`))
	if a, state, err := h.client().PollDevice(t.Context(), mailgrant.NewSecret("d")); err != nil || state != oauth.NotPending || a.Refresh.Reveal() != "r" {
		t.Errorf("got %+v %v %v", a, state, err)
	}
}
