package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
)

// call runs a command against a server that stands for mailgrant.
func call(t *testing.T, h http.Handler, in string, args ...string) (out, errOut string, status int) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	t.Setenv("MAILGRANT_KEY", "mg_test")
	var o, e bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), commandWithin)
	defer cancel()
	status = run(ctx, append(args, "--url", s.URL), strings.NewReader(in), &o, &e)
	return o.String(), e.String(), status
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

func TestFollowGoesOnAfterTheLastEventSeen(t *testing.T) {
	var after []string
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		after = append(after, r.URL.Query().Get("after"))
		w.Header().Set("Content-Type", "text/event-stream")
		n := 41 + len(after)
		fmt.Fprintf(w, "data: {\"seq\":%d,\"kind\":\"mailbox.held\"}\n\n", n)
	})
	out, errOut, status := call(t, h, "", "events", "--follow", "--limit", "2", "--json")
	if want := []string{"now", "42"}; status != 0 || fmt.Sprint(after) != fmt.Sprint(want) {
		t.Errorf("asked for events after %v, want %v; exit %d\n%s%s", after, want, status, out, errOut)
	}
	if strings.Count(out, `"seq":4`) != 2 {
		t.Errorf("printed:\n%s", out)
	}
}

func TestFollowDoesNotWaitForAServerThatIsNotThere(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	if _, errOut, status := call(t, h, "", "events", "--follow"); status != exitTemporary || !strings.Contains(errOut, "not from mailgrant") {
		t.Errorf("exit %d: %s", status, errOut)
	}
}

func TestSendFromAFileEndsItsLinesAsTheWireDoes(t *testing.T) {
	for name, x := range map[string]struct{ file, want string }{
		"of Unix":     {"Subject: x\n\na\nb\r\nc", "Subject: x\r\n\r\na\r\nb\r\nc"},
		"of the wire": {"Subject: x\r\n\r\na\nb\r\n", "Subject: x\r\n\r\na\nb\r\n"},
		"none":        {"no line", "no line"},
		"empty":       {"", ""},
	} {
		b, err := io.ReadAll(crlf(iotest.OneByteReader(strings.NewReader(x.file))))
		if err != nil || string(b) != x.want {
			t.Errorf("ends %s: %q became %q, want %q: %v", name, x.file, b, x.want, err)
		}
	}
	if _, err := io.ReadAll(crlf(iotest.ErrReader(errors.New("torn")))); err == nil {
		t.Error("a file that breaks off is a message")
	}
}

func TestSendHandsTheBytesAndTheEnvelopeOver(t *testing.T) {
	file := filepath.Join(t.TempDir(), "m.eml")
	if err := os.WriteFile(file, []byte("From: a@x.example\nSubject: hi\n\nbody\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		q := r.URL.Query()
		if string(b) != "From: a@x.example\r\nSubject: hi\r\n\r\nbody\r\n" || r.Header.Get("Idempotency-Key") != "k" || q.Get("from") != "bounce@x.example" ||
			fmt.Sprint(q["to"]) != "[b@y.example c@y.example]" || q.Get("class") != "system" || r.Header.Get("Authorization") != "Bearer mg_test" {
			t.Errorf("got %q %v %v", b, q, r.Header)
		}
		answer(w, mailgrant.Submission{ID: "msg_1", Route: mailgrant.Route{Address: "office@x.example", Reason: "because"}})
	})
	out, errOut, status := call(t, h, "", "send", file, "--key", "k", "--from", "bounce@x.example", "--to", "b@y.example", "--to", "c@y.example", "--class", "system")
	if status != 0 || out != "msg_1 accepted, by office@x.example: because\n" {
		t.Errorf("exit %d: %s%s", status, out, errOut)
	}
}

func TestBeginWaitsForTheConsent(t *testing.T) {
	looks := 0
	g := client.Grant{Grant: mailgrant.Grant{ID: mailgrant.NewID(mailgrant.PrefixGrant), Mailbox: "a@x.example", Flow: mailgrant.FlowCode, State: mailgrant.GrantPending}}
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			answer(w, client.Link{URL: "https://m.example/connect/1", Kind: "consent", ExpiresAt: time.Now().Add(time.Hour)})
			return
		}
		if looks++; looks > 2 {
			now := time.Now()
			g.State, g.ConsentedAt, g.Subject.UPN = mailgrant.GrantActive, &now, "b@x.example"
		}
		answer(w, g)
	})
	out, errOut, status := call(t, h, "", "grant", "begin", string(g.ID), "--wait")
	if status != 0 || !strings.Contains(out, "https://m.example/connect/1") || !strings.HasSuffix(out, "a@x.example is connected; b@x.example signed in.\n") {
		t.Errorf("exit %d: %s%s", status, out, errOut)
	}
	g.State, g.ConsentedAt, looks = mailgrant.GrantPending, nil, -1000
	if _, errOut, status := call(t, h, "", "grant", "begin", string(g.ID), "--wait", "--timeout", "50ms"); status != exitPerson || !strings.Contains(errOut, "in time") {
		t.Errorf("nobody consented: exit %d: %s", status, errOut)
	}
}

func TestDeviceCodeIsFollowedToItsEnd(t *testing.T) {
	polls := 0
	g := client.Grant{Grant: mailgrant.Grant{ID: mailgrant.NewID(mailgrant.PrefixGrant), Mailbox: "a@x.example", Flow: mailgrant.FlowDevice}}
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/device"):
			answer(w, client.DeviceCode{Flow: "flw_1", UserCode: "ABCD-EFGH", VerificationURI: "https://login.example/device", ExpiresAt: time.Now().Add(time.Hour)})
		case strings.HasSuffix(r.URL.Path, "/device/flw_1"):
			polls++
			answer(w, client.DeviceState{Done: polls > 1, Grant: &g})
		default:
			answer(w, g)
		}
	})
	out, errOut, status := call(t, h, "", "grant", "begin", string(g.ID), "--json")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if status != 0 || len(lines) != 2 || !strings.Contains(lines[0], `"user_code":"ABCD-EFGH"`) || strings.Contains(lines[1], "device\":{") {
		t.Errorf("exit %d: %s%s", status, out, errOut)
	}
}

func TestWhoMayMendIsSaid(t *testing.T) {
	f := mailgrant.Finding{Cause: "grant-revoked", Title: "t", Sentence: "s", Remedy: "sign in again", Who: mailgrant.WhoMailboxOwner, Retry: mailgrant.RetryReauthorize,
		Raw: "AADSTS50173\nexpired"}
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusConflict)
		json.NewEncoder(w).Encode(client.Problem{Title: "x", Code: mailgrant.Lapsed, Detail: "the consent no longer works", Remedy: "sign in again", Finding: &f})
	})
	_, errOut, status := call(t, h, "", "grant", "token", "gra_00000000000000000000000000")
	want := "mailgrant: the consent no longer works\nFix: sign in again\nWho: the owner of the mailbox\nSaid: AADSTS50173 expired\n"
	if status != exitPerson || errOut != want {
		t.Errorf("exit %d, got\n%swant\n%s", status, errOut, want)
	}
	_, errOut, _ = call(t, h, "", "grant", "token", "gra_00000000000000000000000000", "--json")
	var got failure
	if err := json.Unmarshal([]byte(errOut), &got); err != nil || got.Code != mailgrant.Lapsed || got.Finding == nil {
		t.Errorf("for programs: %s", errOut)
	}
}

func TestWhatOthersWroteDoesNotMoveTheCursor(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer(w, client.Page[mailgrant.Mailbox]{Items: []mailgrant.Mailbox{{ID: "mbx_1", Address: "a@x.example",
			Hold: &mailgrant.Hold{Finding: mailgrant.Finding{Title: "bad\x1b[2J\nmbx_2  b@x.example\u2028\u009b"}}}}})
	})
	out, _, status := call(t, h, "", "mailbox", "list")
	if status != 0 || strings.ContainsAny(out, "\x1b\u2028\u009b") || strings.Count(out, "\n") != 2 {
		t.Errorf("exit %d, printed %q", status, out)
	}
}

func TestAFileAppearsWhenItIsWhole(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "b")
	if err := os.WriteFile(name, []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := writeWhole(name, func(w io.Writer) error {
		io.WriteString(w, "half")
		return errors.New("torn")
	})
	left, _ := os.ReadDir(dir)
	if b, _ := os.ReadFile(name); err == nil || string(b) != "before" || len(left) != 1 {
		t.Errorf("after a failure: %v, %q, %d files", err, b, len(left))
	}
	size, err := writeWhole(name, func(w io.Writer) error { _, err := io.WriteString(w, "whole"); return err })
	fi, _ := os.Stat(name)
	if b, _ := os.ReadFile(name); err != nil || string(b) != "whole" || size != 5 || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %q, %d, %v", err, b, size, fi.Mode())
	}
}

// Every code has an exit status, and every status a meaning.
func TestExitStatusTableIsWhole(t *testing.T) {
	meaning := map[int]bool{}
	for _, m := range exitMeaning {
		meaning[m.status] = true
	}
	docs, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range exitMeaning {
		if !strings.Contains(string(docs), fmt.Sprintf("| %d | %s |", m.status, m.text)) {
			t.Errorf("docs/cli.md does not say that %d is: %s", m.status, m.text)
		}
	}
	for _, c := range []mailgrant.Code{mailgrant.Invalid, mailgrant.Unauthorized, mailgrant.Forbidden, mailgrant.NotFound, mailgrant.Conflict, mailgrant.TooLarge,
		mailgrant.Limited, mailgrant.NoRoute, mailgrant.Lapsed, mailgrant.Misset, mailgrant.Unavailable, mailgrant.NoSpace, mailgrant.Internal} {
		s, ok := exitOf[c]
		if !ok || !meaning[s] || c.Temporary() != (s == exitTemporary) {
			t.Errorf("%s has the exit status %d", c, s)
		}
	}
}

// A large body is counted while it goes; its bytes stay what they are.
func TestProgressCountsWhatGoes(t *testing.T) {
	body := strings.Repeat("x", 2*largeBody)
	var seen int
	next := roundTrip(func(r *http.Request) (*http.Response, error) {
		b, err := io.ReadAll(r.Body)
		seen = len(b)
		return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, errors.Join(err, r.Body.Close())
	})
	var screen bytes.Buffer
	r := httptest.NewRequest(http.MethodPost, "http://mailgrant/v1/submissions", strings.NewReader(body))
	if _, err := (watched{next, &screen, 0}).RoundTrip(r); err != nil || seen != len(body) {
		t.Errorf("%d of %d bytes went: %v", seen, len(body), err)
	}
	if !strings.Contains(screen.String(), "Sending") {
		t.Errorf("the screen shows %q", screen.String())
	}
	screen.Reset()
	r = httptest.NewRequest(http.MethodPost, "http://mailgrant/v1/submissions", strings.NewReader("small"))
	if _, err := (watched{next, &screen, 0}).RoundTrip(r); err != nil || screen.Len() > 0 {
		t.Errorf("for a small body the screen shows %q: %v", screen.String(), err)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestRegistrationThatFitsAnAddress(t *testing.T) {
	d := client.Discovery{Domain: "contoso.example", Template: "microsoft365", Tenant: "3a1c6d2e-5b7f-4c80-9e1d-2f3a4b5c6d7e", Cloud: "public"}
	for _, x := range []struct {
		template, tenant, cloud string
		want                    bool
	}{
		{"microsoft365", "3A1C6D2E-5b7f-4c80-9e1d-2f3a4b5c6d7e", "", true},
		{"microsoft365", "contoso.example", "public", true},
		{"microsoft365", "contoso.onmicrosoft.example", "", true},
		{"microsoft365", "organizations", "", true},
		{"microsoft365", "b7e4f9a0-3d1c-4e65-8f72-1c9a6d5b4e22", "", false},
		{"microsoft365", "contoso.example", "china", false},
		{"google", "", "", false},
	} {
		r := client.Registration{Registration: mailgrant.Registration{Template: x.template, Tenant: x.tenant, Cloud: x.cloud}}
		if got := fits(r, d); got != x.want {
			t.Errorf("%s %s %s fits: %v, want %v", x.template, x.tenant, x.cloud, got, x.want)
		}
	}
}

// Thousands of lines are answered in their order, each id as it came.
func TestExplainAnswersLineByLine(t *testing.T) {
	var in, out bytes.Buffer
	for i := range 2000 {
		text := map[bool]string{true: "AADSTS7000222: The provided client secret keys are expired.", false: "what nobody ever said"}[i%3 == 0]
		fmt.Fprintf(&in, "{\"id\": %d, \"text\": %q, \"protocol\": \"oauth\", \"context\": null, \"source\": \"ignored\"}\n\n", i, text)
	}
	if err := explainLines(&in, &out); err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(&out)
	d.DisallowUnknownFields()
	for i := range 2000 {
		var a struct {
			ID                               int
			Cause, Title, Remedy, Who, Retry string
			Confidence                       float64
		}
		if err := d.Decode(&a); err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
		want := map[bool]string{true: "client-secret-expired", false: "unknown"}[i%3 == 0]
		if a.ID != i || a.Cause != want || a.Title == "" || a.Remedy == "" || a.Who == "" || a.Retry == "" {
			t.Fatalf("answer %d is %+v, want the cause %s", i, a, want)
		}
	}
	if d.More() {
		t.Error("there are more answers than questions")
	}
}
