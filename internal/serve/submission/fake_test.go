package submission_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/serve/submission"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeAccess knows one app: user "app", key "mg_good".
type fakeAccess struct {
	mu      sync.Mutex
	logins  []string // user names that were tried
	revoked bool
	confirm error // when set, what Confirm says
	caller  mailgrant.Caller
}

func newFakeAccess() *fakeAccess {
	return &fakeAccess{caller: mailgrant.Caller{
		Org: "org_1",
		App: mailgrant.App{ID: "app_1", Org: "org_1", Name: "app"},
		Key: mailgrant.Key{ID: "key_1", Prefix: "mg_good", Scopes: []mailgrant.Scope{mailgrant.ScopeSend}},
	}}
}

func (f *fakeAccess) Login(ctx context.Context, user, key, door, source string) (mailgrant.Caller, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.logins = append(f.logins, user)
	c := f.caller
	c.Door, c.Source = door, source
	switch {
	case key == "mg_slow":
		<-ctx.Done()
		return mailgrant.Caller{}, mailgrant.Errorf(mailgrant.Unavailable, ctx.Err(), "the key could not be checked").Fix("try again")
	case key == "mg_down":
		return mailgrant.Caller{}, mailgrant.Errorf(mailgrant.Unavailable, nil, "the key could not be checked").Fix("try again")
	case key == "mg_panic":
		panic("a mistake of ours")
	case key == "mg_often":
		return mailgrant.Caller{}, mailgrant.Errorf(mailgrant.Limited, nil, "too many wrong keys came from this address").Fix("try again in 10s")
	case key == "mg_read" && user == "app":
		c.Key.Scopes = []mailgrant.Scope{mailgrant.ScopeRead}
		return c, nil
	case key != "mg_good" || user != "app" && user != "office@example.com":
		return mailgrant.Caller{}, mailgrant.Errorf(mailgrant.Unauthorized, nil, "the user name or key is not right").Fix("take the key as it was shown")
	}
	if user != "app" {
		c.Mailbox = "mbx_1"
	}
	return c, nil
}

func (f *fakeAccess) Confirm(_ context.Context, c mailgrant.Caller) (mailgrant.Caller, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.confirm != nil {
		return mailgrant.Caller{}, f.confirm
	}
	if f.revoked {
		return mailgrant.Caller{}, mailgrant.Errorf(mailgrant.Unauthorized, nil, "the key mg_good was revoked").Fix("issue another")
	}
	return c, nil
}

func (f *fakeAccess) revoke() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.revoked = true
}

func (f *fakeAccess) tried() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.logins)
}

// fakeOutbox keeps what it accepts.
type fakeOutbox struct {
	mu       sync.Mutex
	accepted []message
	drafts   int // made and neither accepted nor discarded
	discards int
	hold     chan struct{} // when set, Accept waits for it
	refuse   error         // when set, what Accept says
}

type message struct {
	caller mailgrant.Caller
	env    submission.Envelope
	body   string
}

type fakeDraft struct {
	out  *fakeOutbox
	buf  bytes.Buffer
	done bool
}

func (d *fakeDraft) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("X-Panic:")) {
		panic("a mistake of ours")
	}
	if bytes.Contains(p, []byte("X-Full:")) {
		return 0, mailgrant.Errorf(mailgrant.NoSpace, nil, "the disk is full").Fix("make room")
	}
	return d.buf.Write(p)
}

func (d *fakeDraft) Discard() {
	d.out.mu.Lock()
	defer d.out.mu.Unlock()
	if !d.done {
		d.done = true
		d.out.drafts--
		d.out.discards++
	}
}

func (o *fakeOutbox) CheckSender(_ context.Context, c mailgrant.Caller, from string, class mailgrant.Class) error {
	if strings.HasPrefix(from, "slow@") {
		<-o.hold
	}
	if strings.HasPrefix(from, "busy@") {
		return mailgrant.Errorf(mailgrant.Unavailable, nil, "the store does not answer").Fix("try again")
	}
	if strings.HasSuffix(strings.ToLower(from), "@evil.example") {
		return mailgrant.Errorf(mailgrant.Forbidden, nil, "the app %s may not send as %s", c.App.Name, from).
			Fix("send as *@example.com, or allow it: mailgrant app update app --sender %s", from)
	}
	return nil
}

func (o *fakeOutbox) Draft(context.Context, mailgrant.ID) submission.Draft {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.drafts++
	return &fakeDraft{out: o}
}

func (o *fakeOutbox) Accept(ctx context.Context, c mailgrant.Caller, e submission.Envelope, d submission.Draft) (mailgrant.Submission, error) {
	if o.hold != nil {
		select {
		case <-o.hold:
		case <-ctx.Done():
			return mailgrant.Submission{}, mailgrant.Errorf(mailgrant.Unavailable, ctx.Err(), "the store does not answer").Fix("try again")
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.refuse != nil {
		return mailgrant.Submission{}, o.refuse
	}
	f := d.(*fakeDraft)
	body := f.buf.String()
	for mark, code := range map[string]mailgrant.Code{
		"X-No-Route:": mailgrant.NoRoute, "X-Unavailable:": mailgrant.Unavailable, "X-Invalid:": mailgrant.Invalid,
		"X-Limited:": mailgrant.Limited, "X-Forbidden:": mailgrant.Forbidden,
	} {
		if strings.Contains(body, mark) {
			return mailgrant.Submission{}, mailgrant.Errorf(code, nil, "the message was refused for %s", code).Fix("do something about it")
		}
	}
	if strings.Contains(body, "X-Finding:") {
		return mailgrant.Submission{}, mailgrant.Errorf(mailgrant.Misset, nil, "SMTP AUTH is off for the mailbox").
			With(mailgrant.Finding{Remedy: "switch it on", Link: "errors/smtp-auth-disabled-mailbox"})
	}
	if strings.Contains(body, "X-Broken:") {
		return mailgrant.Submission{}, errors.New("sql: secret inside")
	}
	f.done = true
	o.drafts--
	o.accepted = append(o.accepted, message{c, e, body})
	return mailgrant.Submission{ID: "msg_00000000000000000000000000"}, nil
}

func (o *fakeOutbox) messages() []message {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.accepted)
}

// left is how many drafts were neither accepted nor discarded.
func (o *fakeOutbox) left() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.drafts
}
