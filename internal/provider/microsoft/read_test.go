package microsoft

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
)

// A keeper keeps what it is given, by id.
type keeper struct {
	t     *testing.T
	known map[string]bool
	said  []string
}

func (k *keeper) reading() provider.Reading {
	return provider.Reading{Known: func(_ context.Context, ids []string) (map[string]bool, error) {
		m := map[string]bool{}
		for _, id := range ids {
			m[id] = k.known[id]
		}
		return m, nil
	}}
}

func (k *keeper) take(in provider.Incoming) error {
	what := "large"
	switch {
	case in.Err != nil:
		what = "refused"
	case in.Body != nil:
		b, err := io.ReadAll(in.Body)
		if err != nil {
			return err
		}
		what = string(b)
		if len(what) > 40 {
			what = strconv.Itoa(len(what))
		}
	}
	k.said = append(k.said, in.Remote+"="+what)
	k.known[in.Remote] = true
	return nil
}

// all reads until no more is there, and says what came.
func (k *keeper) all(in provider.Inbox, at *provider.Cursor) string {
	k.t.Helper()
	k.said = nil
	for range 100 {
		to, more, err := in.Next(k.t.Context(), *at, k.take)
		*at = to
		if err != nil {
			k.said = append(k.said, trouble(err))
			break
		}
		if !more {
			break
		}
	}
	return strings.Join(k.said, " ")
}

func trouble(err error) string {
	e := mailgrant.AsError(err)
	if e.Finding == nil {
		return "[" + string(e.Code) + "]"
	}
	s := "[" + string(e.Code) + " " + e.Finding.Cause
	if e.Finding.RetryAfter > 0 {
		s += " " + e.Finding.RetryAfter.String()
	}
	return s + "]"
}

func openMail(t *testing.T, w provider.Way, r provider.Reading) provider.Inbox {
	t.Helper()
	in, err := Reader(ReadConfig{}).Open(t.Context(), w, r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	return in
}

func TestReadsByDelta(t *testing.T) {
	for _, c := range []struct {
		kind mailgrant.MailboxKind
		flow mailgrant.Flow
		base string
	}{
		{mailgrant.MailboxOwn, mailgrant.FlowCode, "/v1.0/me"},
		{mailgrant.MailboxShared, mailgrant.FlowCode, "/v1.0/users/alex@contoso.example"},
		{mailgrant.MailboxApp, mailgrant.FlowApp, "/v1.0/users/alex@contoso.example"},
	} {
		g := newMailGraph(t)
		for i := range 5 {
			g.put(fmt.Sprintf("m%d", i+1), "f-in", fmt.Sprintf("Subject: %d\r\n\r\n", i+1), i)
		}
		k := &keeper{t, map[string]bool{}, nil}
		in := openMail(t, g.way(c.kind, c.flow), k.reading())
		var at provider.Cursor
		// Pages come newest first here, within a page the oldest is first.
		want := "m4=Subject: 4\r\n\r\n m5=Subject: 5\r\n\r\n m2=Subject: 2\r\n\r\n m3=Subject: 3\r\n\r\n m1=Subject: 1\r\n\r\n"
		if got := k.all(in, &at); got != want {
			t.Errorf("%s: got %q", c.kind, got)
		}
		for _, s := range g.requests() {
			if !strings.HasPrefix(s, "GET "+c.base+"/") {
				t.Errorf("%s: asked %s", c.kind, s)
			}
		}
		if got := k.all(in, &at); got != "" || len(g.requests()) != 1 {
			t.Errorf("nothing new: got %q", got)
		}
		g.mu.Lock()
		g.changes++
		g.messages[0].change, g.messages[1].change, g.messages[1].removed = g.changes, g.changes, true // one was marked, one has gone
		g.mu.Unlock()
		g.put("m6", "f-in", "x", 6)
		in.Close()
		if got := k.all(openMail(t, g.way(c.kind, c.flow), k.reading()), &at); got != "m6=x" {
			t.Errorf("by the cursor: got %q", got)
		}
	}
}

func TestSinceLeavesOlderMailAlone(t *testing.T) {
	g := newMailGraph(t)
	g.put("old", "f-in", "x", -1)
	g.put("new", "f-in", "y", 0)
	k := &keeper{t, map[string]bool{}, nil}
	r := k.reading()
	r.Since = testDay.Add(300 * time.Millisecond)
	in := openMail(t, g.way(mailgrant.MailboxOwn, mailgrant.FlowCode), r)
	var at provider.Cursor
	if got := k.all(in, &at); got != "new=y" {
		t.Errorf("got %q", got)
	}
	g.put("older", "f-in", "z", -2) // moved into the folder
	if got := k.all(in, &at); got != "" {
		t.Errorf("then got %q", got)
	}
}

func TestIM07BeginsAgainWhenTheLinkIsTooOld(t *testing.T) {
	for _, c := range []struct {
		status     int
		code, text string
	}{
		{410, "syncStateNotFound", "The sync state generation is not found; ."},
		{410, "resyncRequired", "Resync required."},
		{410, "", ""},
		{400, "SyncStateNotFound", "The sync state generation is not found."},
	} {
		g := newMailGraph(t)
		g.put("a", "f-in", "x", 0)
		k := &keeper{t, map[string]bool{}, nil}
		in := openMail(t, g.way(mailgrant.MailboxOwn, mailgrant.FlowCode), k.reading())
		var at provider.Cursor
		k.all(in, &at)
		g.put("b", "f-in", "y", 1)
		g.answer = func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Query().Get("$deltatoken") != "1" {
				return false
			}
			if c.code == "" {
				w.WriteHeader(c.status)
			} else {
				fail(w, c.status, c.code, c.text)
			}
			return true
		}
		if got := k.all(in, &at); got != "b=y" {
			t.Errorf("%d %s: got %q", c.status, c.code, got)
		}
	}
}

// What breaks off half way, or has less than it said, is not taken; it is the next
// time.
func TestIM06HalfMessageIsNotTaken(t *testing.T) {
	for _, how := range []string{"length", "chunked"} {
		g := newMailGraph(t)
		g.put("a", "f-in", "x", 0)
		g.put("b", "f-in", "y", 1)
		g.answer = func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, "/messages/b/$value") {
				return false
			}
			conn, _, _ := w.(http.Hijacker).Hijack()
			io.WriteString(conn, map[string]string{"length": "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nSubject: half", "chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nd\r\nSubject: half\r\n"}[how])
			conn.Close()
			return true
		}
		k := &keeper{t, map[string]bool{}, nil}
		in := openMail(t, g.way(mailgrant.MailboxOwn, mailgrant.FlowCode), k.reading())
		var at provider.Cursor
		if got := k.all(in, &at); !strings.HasPrefix(got, "a=x [unavailable ") {
			t.Errorf("%s: got %q", how, got)
		}
		g.answer = nil
		if got := k.all(in, &at); got != "b=y" {
			t.Errorf("%s: then got %q", how, got)
		}
	}
}

func TestLargeMessageIsTakenWithoutItsBody(t *testing.T) {
	g := newMailGraph(t)
	g.put("told", "f-in", strings.Repeat("x", 1001), 0)
	g.put("fits", "f-in", strings.Repeat("x", 1000), 1)
	g.put("untold", "f-in", strings.Repeat("x", 100_000), 2)
	k := &keeper{t, map[string]bool{}, nil}
	r := k.reading()
	r.Max = 1000
	in := openMail(t, g.way(mailgrant.MailboxOwn, mailgrant.FlowCode), r)
	var at provider.Cursor
	if got := k.all(in, &at); got != "fits=1000 untold=large told=large" {
		t.Errorf("got %q", got)
	}
}

// One message that Graph does not give stops no other, and is told in the end.
func TestMessageThatGraphDoesNotGive(t *testing.T) {
	g := newMailGraph(t)
	g.page = 10
	for i, id := range []string{"a", "bad", "gone", "b", "odd"} {
		g.put(id, "f-in", id, i)
	}
	g.answer = func(w http.ResponseWriter, r *http.Request) bool {
		switch r.URL.Path {
		case "/v1.0/me/messages/bad/$value":
			fail(w, 500, "ErrorInternalServerError", "An internal server error occurred. The operation failed.")
		case "/v1.0/me/messages/gone/$value":
			itemNotFound(w)
		case "/v1.0/me/messages/odd/$value":
			fail(w, 400, "ErrorMimeContentConversionFailed", "MIME content conversion failed.")
		default:
			return false
		}
		return true
	}
	k := &keeper{t, map[string]bool{}, nil}
	var at provider.Cursor
	var got []string
	for range patience {
		in := openMail(t, g.way(mailgrant.MailboxOwn, mailgrant.FlowCode), k.reading()) // the cursor remembers, not the inbox
		got = append(got, k.all(in, &at))
		in.Close()
	}
	if got[0] != "a=a b=b odd=refused [unavailable provider-outage]" || got[1] != "[unavailable provider-outage]" || got[patience-1] != "bad=refused" {
		t.Errorf("got %q", got)
	}
	if strings.Contains(string(at), "bad") {
		t.Errorf("still remembered: %s", at)
	}
}

func TestErrorOfTakeComesBackAsItIs(t *testing.T) {
	g := newMailGraph(t)
	g.put("a", "f-in", "x", 0)
	k := &keeper{t, map[string]bool{}, nil}
	in := openMail(t, g.way(mailgrant.MailboxOwn, mailgrant.FlowCode), k.reading())
	full := errors.New("disk full")
	to, _, err := in.Next(t.Context(), "", func(provider.Incoming) error { return full })
	if err != full {
		t.Errorf("got %v", err)
	}
	if got := k.all(in, &to); got != "a=x" {
		t.Errorf("then got %q", got)
	}
}

func TestAfterReading(t *testing.T) {
	g := newMailGraph(t)
	for i, id := range []string{"a", "b", "c", "d"} {
		g.put(id, "f-in", "x", i)
	}
	k := &keeper{t, map[string]bool{}, nil}
	in := openMail(t, g.way(mailgrant.MailboxOwn, mailgrant.FlowCode), k.reading())
	for _, c := range []struct {
		id, to string
		what   mailgrant.AfterRead
	}{{"a", "", mailgrant.AfterMark}, {"b", "Aufträge/2026/27", mailgrant.AfterMove}, {"c", "", mailgrant.AfterDelete}, {"d", "Ablage/mailgrant", mailgrant.AfterMove}, {"d", "", mailgrant.AfterLeave}} {
		if err := in.Done(t.Context(), []string{c.id, "gone"}, c.what, c.to); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
	}
	var got []string
	for _, m := range g.messages {
		got = append(got, fmt.Sprint(m.folder, " ", m.read))
	}
	if s := strings.Join(got, ", "); s != "f-in true, f-a1 false, f-bin false, f-new-mailgrant false" {
		t.Errorf("got %s", s)
	}
	if f := g.folder("f-new-mailgrant"); f == nil || f.parent != "f-new-Ablage" {
		t.Errorf("the new folder is %+v", f)
	}
	g.answer = func(w http.ResponseWriter, _ *http.Request) bool {
		fail(w, 403, "ErrorAccessDenied", "Access is denied. Check credentials and try again.")
		return true
	}
	if err := in.Done(t.Context(), []string{"a"}, mailgrant.AfterMark, ""); !errors.Is(err, mailgrant.Misset) {
		t.Errorf("without the right: got %v", err)
	}
}
