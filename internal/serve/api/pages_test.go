package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
)

// Every list is given by pages, each thing once, and the client reads them to the end.
func TestListsByPages(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	app := r.app(r.org, nil)
	key := r.keyOf(app, mailgrant.ScopeManage)
	r.active(r.org, "a@contoso.example")
	r.active(r.org, "b@contoso.example")
	for _, a := range []string{"a@contoso.example", "b@contoso.example", "c@contoso.example"} {
		m := r.mailbox(r.org, a, mailgrant.RoleNone)
		must(t, r.store.HoldMailbox(ctx, r.org, m.ID, mailgrant.Hold{Finding: mailgrant.Finding{Cause: "mailbox-full"}, ProbeAt: time.Now().Add(time.Hour)}))
		_, err := r.op(r.org).Send(ctx, client.Message{From: a, To: []string{"kim@fabrikam.example"}, Text: "x", Mailbox: a})
		must(t, err)
		r.organization(a)
	}
	r.keyOf(app)
	for path, want := range map[string]int{
		"/v1/mailboxes": 4, "/v1/grants": 2, "/v1/registrations": 2, "/v1/apps": 1, "/v1/apps/" + string(app.ID) + "/keys": 2, "/v1/queue": 3,
		"/v1/organizations": 1, "/v1/submissions": 3,
	} {
		if got := r.pages(r.door.URL, path, key); got != want {
			t.Errorf("%s: %d of %d", path, got, want)
		}
	}
	if got := r.pages(r.operator.URL, "/v1/organizations", ""); got != 4 {
		t.Errorf("the operator sees %d of 4 organizations", got)
	}
	q, err := r.client(key).Queue(context.Background())
	must(t, err)
	if len(q) != 3 || q[0].Address != "a@contoso.example" || q[0].Waiting != 1 || q[0].Hold == nil || q[0].Oldest.IsZero() {
		t.Errorf("the queue: %+v", q)
	}
}

// pages reads a list one thing at a time, and counts the things.
func (r *rig) pages(base, path, key string) (n int) {
	r.Helper()
	seen := map[string]bool{}
	for next := ""; ; {
		got := r.do(base, "GET", path+"?limit=1"+next, key, strings.NewReader("")).wants(r, 200)
		var p client.Page[json.RawMessage]
		unmarshal(r, got.body, &p)
		if len(p.Items) != 1 || seen[string(p.Items[0])] {
			r.Fatalf("%s, page %d: %s", path, len(seen), got.body)
		}
		seen[string(p.Items[0])] = true
		if p.Next == "" {
			return len(seen)
		}
		next = "&cursor=" + p.Next
	}
}

// More than one page of the largest size: the client follows.
func TestClientFollowsPages(t *testing.T) {
	r := newRig(t)
	var made sync.WaitGroup
	for i := range 520 { // together they share the syncs of the disk
		made.Go(func() {
			m := mailgrant.Mailbox{ID: mailgrant.NewID(mailgrant.PrefixMailbox), Org: r.org, Address: fmt.Sprintf("m%03d@contoso.example", i), State: mailgrant.MailboxActive}
			if err := r.store.CreateMailbox(t.Context(), m); err != nil {
				t.Error(err)
			}
		})
	}
	made.Wait()
	all, err := r.client(r.key(mailgrant.ScopeRead)).Mailboxes(t.Context())
	must(t, err)
	seen := map[mailgrant.ID]bool{}
	for _, m := range all {
		seen[m.ID] = true
	}
	if len(all) != 521 || len(seen) != 521 {
		t.Errorf("%d mailboxes, %d of them different, of 521", len(all), len(seen))
	}
}
