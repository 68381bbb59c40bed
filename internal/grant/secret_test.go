package grant_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/grant"
	"github.com/mailgrant/mailgrant/internal/store"
)

// lines collects a log.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestSE01NoSecretIsTold: marked secrets of every kind go through everything that
// a keeper does; none is in the log at debug level, in an error, an event, or in
// the clear in the database.
func TestSE01NoSecretIsTold(t *testing.T) {
	h := newHouse(t)
	log := &lines{}
	h.Log = slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var told strings.Builder
	tell := func(what any, err error) {
		b, _ := json.Marshal(what)
		fmt.Fprintf(&told, "%s %+v %v", b, what, err)
		if err != nil {
			e := mailgrant.AsError(err)
			f, _ := json.Marshal(e.Finding)
			fmt.Fprintf(&told, " %s %s %s %v", e.Message, e.Remedy, f, e.Cause)
		}
	}
	h.secret("marked-client-secret", nil)
	h.idp.set(func() {
		h.idp.answer = func(m map[string]any) {
			m["access_token"] = "marked-" + m["access_token"].(string)
		}
	})
	g := h.pending(alex, mailgrant.FlowCode, mailgrant.MailboxOwn)
	c, err := h.Begin(h.ctx, h.org, g.ID, grant.BeginOptions{})
	h.must(err)
	r, err := h.Complete(h.ctx, h.reg.ID, h.idp.consent(c.URL, alex), c.Cookie)
	tell(r, err)
	tok, err := h.Token(h.ctx, h.org, g.ID, "mail")
	tell(tok, err)
	for _, body := range []string{`{"error":"invalid_grant"}`, `<html>`, `{"error":"invalid_client"}`, `{"access_token":7}`} {
		h.faulty(400, body)
		h.pass(2 * time.Hour)
		tok, err := h.Token(h.ctx, h.org, g.ID, "mail")
		tell(tok, err)
	}
	h.idp.well()
	_, err = h.consent(h.pending("robin@contoso.example", mailgrant.FlowCode, mailgrant.MailboxOwn), mallory)
	tell(nil, err)
	events, err := h.store.Events(h.ctx, h.org, store.EventFilter{Limit: 500})
	tell(events, err)
	tell(h.grant(g.ID), h.Revoke(h.ctx, h.org, g.ID))
	h.must(h.store.Close())
	database := ""
	files, _ := filepath.Glob(filepath.Join(h.dir, "*"))
	for _, f := range files {
		b, err := os.ReadFile(f)
		h.must(err)
		database += string(b)
	}
	if len(log.String()) == 0 || len(database) == 0 {
		t.Fatal("nothing was looked at")
	}
	verifier := "" // of the first trip, as the provider saw it
	for _, f := range h.idp.forms {
		if v := f.Get("code_verifier"); v != "" {
			verifier = v
			break
		}
	}
	for name, secret := range map[string]string{"client secret": "marked-client-secret", "access token": "marked-access", "refresh token": "refresh-1", "state": c.State, "cookie": c.Cookie, "verifier": verifier, "code": "code-1"} {
		for where, text := range map[string]string{"the log": log.String(), "an answer, error or event": told.String(), "the database": database} {
			if i := strings.Index(text, secret); i >= 0 {
				t.Errorf("the %s stands in %s: …%s…", name, where, text[max(0, i-80):min(len(text), i+80)])
			}
		}
	}
}
