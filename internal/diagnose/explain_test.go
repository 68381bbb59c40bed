package diagnose_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net"
	"os"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant/internal/diagnose"
)

// m is a context, written short.
type m = map[string]any

// TestContextTellsLookAlikesApart: the same words, and other facts.
func TestContextTellsLookAlikesApart(t *testing.T) {
	exo := func(facts m) m {
		c := m{"host": "outlook.office365.com", "auth_mech": "xoauth2"}
		maps.Copy(c, facts)
		return c
	}
	const (
		imap      = "A01 NO AUTHENTICATE failed."
		smtp      = "535 5.7.3 Authentication unsuccessful"
		connected = "A02 BAD User is authenticated but not connected."
		denied    = `{"error":{"code":"ErrorAccessDenied","message":"Access is denied. Check credentials and try again."}}`
		challenge = "334 eyJzdGF0dXMiOiI0MDAiLCJzY2hlbWVzIjoiQmVhcmVyIiwic2NvcGUiOiJodHRwczovL21haWwuZ29vZ2xlLmNvbS8ifQ=="
	)
	outlook := func(scp, upn string) m {
		return m{"aud": "https://outlook.office.com", "scp": scp, "upn": upn}
	}
	appToken := m{"aud": "https://outlook.office365.com", "roles": "IMAP.AccessAsApp"}
	for _, c := range []struct {
		text, protocol string
		context        m
		cause          string
	}{
		{imap, "imap", exo(m{"token": m{"aud": "https://graph.microsoft.com", "scp": "IMAP.AccessAsUser.All"}}), "wrong-token-audience"},
		{imap, "imap", exo(m{"token": outlook("SMTP.Send", "a@b.example"), "mailbox": "a@b.example"}), "scope-missing"},
		{imap, "imap", exo(m{"token": outlook("IMAP.AccessAsUser.All", "boss@b.example"), "mailbox": "a@b.example"}), "wrong-user-signed-in"},
		{imap, "imap", exo(m{"token": outlook("IMAP.AccessAsUser.All", "a@b.example"), "mailbox": "a@b.example"}), "imap-pop-disabled-mailbox"},
		{imap, "imap", exo(m{"grant": "client_credentials", "token": appToken, "service_principal_registered": false}), "service-principal-not-registered"},
		{imap, "imap", exo(m{"grant": "client_credentials", "token": appToken, "service_principal_registered": true}), "mailbox-permission-missing"},
		{imap, "imap", exo(m{"grant": "client_credentials", "token": m{"aud": "https://outlook.office365.com", "scp": "IMAP.AccessAsUser.All"}}), "scope-missing"},
		{imap, "imap", m{"host": "outlook.office365.com", "auth_mech": "login", "date": "2024-02-01"}, "basic-auth-retired"},
		{smtp, "smtp", exo(m{"token": outlook("SMTP.Send", "me@b.example"), "mailbox": "box@b.example", "mailbox_type": "shared", "xoauth2_user": "box@b.example"}), "xoauth2-identity-mismatch"},
		{smtp, "smtp", exo(m{"token": outlook("SMTP.Send", "a@b.example"), "mailbox": "a@b.example", "smtp_auth_enabled": false}), "smtp-auth-disabled-mailbox"},
		{smtp, "smtp", m{"host": "smtp.office365.com", "auth_mech": "login", "date": "2015-02-24"}, "basic-credentials-wrong"},
		{smtp, "smtp", exo(m{"token": outlook("SMTP.Send", "a@b.example"), "mailbox": "a@b.example", "smtp_auth_enabled_minutes_ago": 3}), "propagation-delay"},
		{connected, "imap", exo(m{"same_credentials_worked_minutes_ago": 4}), "throttled-mailbox"},
		{connected, "imap", exo(m{"token": outlook("IMAP.AccessAsUser.All", "admin@b.example"), "mailbox": "a@b.example"}), "wrong-user-signed-in"},
		{connected, "imap", exo(m{"imap_enabled": false}), "imap-pop-disabled-mailbox"},
		{denied, "graph", m{"grant": "client_credentials", "token": m{"aud": "https://graph.microsoft.com", "roles": "Mail.Send"}, "url": "https://graph.microsoft.com/v1.0/users/a@b.example/sendMail"}, "graph-access-denied-policy"},
		{denied, "graph", m{"grant": "client_credentials", "token": m{"aud": "https://graph.microsoft.com", "roles": nil}}, "scope-missing"},
		{denied, "graph", m{"grant": "client_credentials", "token": m{"aud": "https://graph.microsoft.com", "roles": "Mail.Send"}, "url": "https://graph.microsoft.com/v1.0/me/sendMail"}, "endpoint-misconfigured"},
		{challenge, "smtp", m{"host": "smtp.gmail.com", "auth_mech": "xoauth2", "token": m{"scope": "https://www.googleapis.com/auth/gmail.send"}}, "scope-missing"},
		{challenge + "\n454 4.7.0 Too many login attempts, please try again later.", "smtp", m{"host": "smtp.gmail.com", "auth_mech": "xoauth2", "token": m{"scope": "https://www.googleapis.com/auth/gmail.send"}}, "throttled-mailbox"},
		{"invalid_grant: Token has been expired or revoked.", "oauth", m{"provider": "google", "grant": "refresh_token", "consent_age_days": 7}, "google-testing-mode-7-day"},
		{"invalid_grant: Token has been expired or revoked.", "oauth", m{"provider": "google", "grant": "refresh_token", "publishing_status": "testing"}, "google-testing-mode-7-day"},
		{"invalid_grant: Token has been expired or revoked.", "oauth", m{"provider": "google", "grant": "refresh_token", "consent_age_days": 60}, "grant-revoked"},
		{"invalid_grant", "oauth", m{"grant": "authorization_code"}, "code-expired-or-used"},
		{"javax.mail.AuthenticationFailedException: 421 4.7.0 Temporary System Problem", "smtp", m{"auth_mech": "xoauth2"}, "provider-outage"},
		{"smtplib.SMTPAuthenticationError: (432, b'4.3.2 Concurrent connections limit exceeded.')", "smtp", m{"auth_mech": "xoauth2"}, "concurrent-connections"},
		{"AuthenticationException: 451 4.7.0 Temporary server error. Please try again later. PRX2", "smtp", m{"auth_mech": "login"}, "provider-outage"},
		{"454 4.7.0 Temporary authentication failure", "smtp", m{"auth_mech": "plain"}, "provider-outage"},
		{"AADSTS65001: The user or administrator has not consented", "oauth", m{"grant": "authorization_code"}, "user-consent-required"},
		{"AADSTS65001: The user or administrator has not consented", "oauth", m{"grant": "client_credentials"}, "admin-consent-required"},
		{"AADSTS53003: Access has been blocked by Conditional Access policies.", "oauth", m{"grant": "device_code"}, "device-code-blocked"},
		{"AADSTS53003: Access has been blocked by Conditional Access policies.", "oauth", m{"grant": "refresh_token"}, "conditional-access-blocked"},
		{"554 5.7.1 Relay access denied", "smtp", m{"step": "smtp-rcpt"}, "smtp-auth-not-attempted"},
		{"554 5.7.1 Relay access denied", "smtp", m{"kind": "bounce"}, "recipient-rejected"},
		{"Connection timed out", "smtp", m{"host": "smtp.office365.com"}, "network-unreachable"},
		{"connect to mx.b.example[192.0.2.1]:25: Connection timed out", "smtp", m{"kind": "bounce"}, "recipient-domain-unreachable"},
		{"Connection reset by peer", "imap", m{"session_age_minutes": 20}, "connection-closed-idle"},
		{"Connection reset by peer", "imap", m{"step": "connect"}, "network-unreachable"},
	} {
		got := diagnose.Explain(diagnose.Failure{Text: c.text, Protocol: c.protocol, Context: c.context})
		if got.Cause != c.cause {
			t.Errorf("%.60q with %v is %s, said %s", c.text, c.context, c.cause, got.Cause)
		}
	}
}

// TestWrappingChangesNothing: a text means the same in capitals, escaped, in a
// page, over several lines and behind the name of an exception.
func TestWrappingChangesNothing(t *testing.T) {
	texts := map[string]string{
		"AADSTS700082: The refresh token has expired due to inactivity. The token was issued on 2024-01-01.": "grant-expired-inactivity",
		"535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant.":      "smtp-auth-disabled-tenant",
		"A1 BAD Request is throttled. Suggested Backoff Time: 92415 milliseconds":                            "throttled-mailbox",
		"x509: certificate signed by unknown authority":                                                      "tls-certificate-untrusted",
		"550 5.1.1 The email account that you tried to reach does not exist.":                                "recipient-rejected",
	}
	for text, cause := range texts {
		for name, wrapped := range map[string]string{
			"upper":   strings.ToUpper(text),
			"lower":   strings.ToLower(text),
			"go":      fmt.Sprintf("deliver msg_1: %v", errors.New(text)),
			"json":    fmt.Sprintf("%q", fmt.Sprintf("%q", text+"\r\nTrace ID: 1")),
			"python":  "Traceback (most recent call last):\n  File \"x.py\", line 3\nlib.Error: (b'" + text + "',)",
			"java":    "jakarta.mail.MessagingException: " + text + "\n\tat org.example.Mail.send(Mail.java:12)",
			"html":    "<p>Error: <b>" + strings.ReplaceAll(text, " ", "&nbsp;") + "</b></p>",
			"folded":  strings.Replace(text, " ", "\r\n ", 4),
			"percent": strings.ReplaceAll(text, " ", "%20"),
			"quoted":  strings.ReplaceAll(text, " t", "=20t"),
			"rfc2047": "Subject: " + mime.QEncoding.Encode("utf-8", "é: "+text),
			"base64":  "Subject: " + mime.BEncoding.Encode("utf-8", "é: "+text),
		} {
			if got := diagnose.Explain(diagnose.Failure{Text: wrapped}).Cause; got != cause {
				t.Errorf("%s: %q is %s, said %s", name, wrapped, cause, got)
			}
		}
	}
}

func TestNoSecretSurvives(t *testing.T) {
	jwt := "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJodHRwczovL291dGxvb2sifQ.c2lnbmF0dXJlLXNpZ25hdHVyZQ"
	for name, c := range map[string]struct{ text, secret string }{
		"bearer":         {"GET /me Authorization: Bearer EwBoA8l6BAAUO9chh8cJscQLmU+LSWpbnr0vmwwAAQ 401", "EwBoA8l6BAAUO9chh8cJscQLmU"},
		"jwt":            {"token " + jwt + " is not valid", "c2lnbmF0dXJl"},
		"jwt cut":        {"invalid_token " + jwt[:60], "eyJhdWQi"},
		"refresh json":   {`{"refresh_token":"0.AXoAhunter2-refresh","error":"invalid_grant"}`, "hunter2"},
		"refresh nested": {`{\"refresh_token\":\"hunter2-refresh\",\"error\":\"invalid_grant\"}`, "hunter2"},
		"refresh python": {"{'refresh_token': 'hunter2-refresh', 'error': 'invalid_grant'}", "hunter2"},
		"secret form":    {"grant_type=client_credentials&client_secret=hunter2~x&client_id=1 401", "hunter2"},
		"secret ruby":    {`:client_secret => "hunter2", invalid_client`, "hunter2"},
		"google":         {"refresh 1//04hunter2abcdefghijklmnopqrstuv ya29.a0hunter2 GOCSPX-hunter2 invalid_grant", "hunter2"},
		"consumer":       {"token M.C105_BAY.0.U.-hunter2 AADSTS70000", "hunter2"},
		"entra":          {"code 0.AXoA" + strings.Repeat("hunter2", 12) + " AADSTS70000", "hunter2"},
		"callback":       {"GET /oauth/callback/1?code=hunter2hunter2&state=abcdefghijk", "hunter2"},
		"xoauth2":        {"C: AUTH XOAUTH2 dXNlcj1hQGIuZXhhbXBsZQFhdXRoPUJlYXJlciBodW50ZXIy\nS: 535 5.7.3 Authentication unsuccessful", "dXNlcj1hQGIu"},
		"continuation":   {"334 \ndXNlcj1hQGIuZXhhbXBsZQFhdXRoPUJlYXJlciBodW50ZXIy\n535 5.7.3", "dXNlcj1hQGIu"},
		"login":          {`Command "a1 LOGIN someone@b.example hunter2" failed: NO LOGIN failed`, "hunter2"},
		"login quoted":   {`a1 LOGIN "someone" "hunter2" NO`, "hunter2"},
		"pass":           {"USER a\nPASS hunter2\n-ERR [AUTH] failed", "hunter2"},
		"proxy":          {"proxyconnect http://anna:hunter2@proxy.example:3128 407", "hunter2"},
		"basic":          {"Proxy-Authorization: Basic YW5uYTpodW50ZXIyaHVudGVyMg==", "YW5uYTpodW50ZXIy"},
		"assertion":      {"client_assertion=hunter2.hunter2.hunter2&x=1", "hunter2"},
		"password":       {`{"username":"a","password":"hunter2"}`, "hunter2"},
		"key":            {"535 wrong key mg_live_hunter2hunter2", "hunter2"},
	} {
		for _, f := range []diagnose.Failure{
			{Text: c.text},
			{Text: "550 5.1.1 no", Context: m{"mailbox": c.text, "host": c.text, "tenant": c.text, "user": c.text}},
			{Err: errors.New(c.text)},
			{Text: "x", Code: c.text},
		} {
			found := diagnose.Explain(f)
			if all := fmt.Sprintf("%+v", found); strings.Contains(all, c.secret) {
				t.Errorf("%s: %s", name, all)
			}
		}
	}
}

// TestARefusalOutweighsTheSuccessesBeforeIt: logs of whole sessions.
func TestARefusalOutweighsTheSuccessesBeforeIt(t *testing.T) {
	before := "S: 220 x ESMTP ready\nC: EHLO y\nS: 250-x Hello\nS: 250 AUTH LOGIN XOAUTH2\nC: AUTH XOAUTH2 [secret]\n"
	for after, cause := range map[string]string{
		"S: 235 2.7.0 Authentication successful\nC: MAIL FROM:<a@b.example>\nS: 250 2.1.0 Sender OK\n":                                          "not-an-error",
		"S: 535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant.\n":                                    "smtp-auth-disabled-tenant",
		"S: 235 2.7.0 Authentication successful\nS: 250 2.1.0 Sender OK\nS: 550 5.7.60 Client does not have permissions to send as this sender": "send-as-denied",
		"S: 235 2.7.0 Authentication successful\nS: 432 4.3.2 Concurrent connections limit exceeded.":                                           "concurrent-connections",
	} {
		if got := diagnose.Explain(diagnose.Failure{Text: before + after, Protocol: "smtp"}).Cause; got != cause {
			t.Errorf("%q is %s, said %s", after, cause, got)
		}
	}
	dump := "Array ( [code] => 535 [message] => Authentication unsuccessful )"
	if got := diagnose.Explain(diagnose.Failure{Text: dump, Protocol: "smtp"}).Cause; got == "not-an-error" {
		t.Errorf("%q is said to be no failure", dump)
	}
}

func TestErrorsAreKnownByType(t *testing.T) {
	dial := func(err error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: err} }
	for _, c := range []struct {
		err   error
		cause string
	}{
		{dial(os.NewSyscallError("connect", syscall.ECONNREFUSED)), "network-unreachable"},
		{dial(&net.DNSError{Err: "no such host", Name: "smtp.b.example", IsNotFound: true}), "dns-failure"},
		{fmt.Errorf("deliver: %w", x509.UnknownAuthorityError{}), "tls-certificate-untrusted"},
		{context.DeadlineExceeded, "network-unreachable"},
		{io.ErrUnexpectedEOF, "network-unreachable"},
	} {
		if got := diagnose.Explain(diagnose.Failure{Err: c.err, Protocol: "network"}).Cause; got != c.cause {
			t.Errorf("%v is %s, said %s", c.err, c.cause, got)
		}
	}
}

func TestTheAskedPauseIsHeard(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"Request is throttled. Suggested Backoff Time: 92415 milliseconds":        92415 * time.Millisecond,
		"429 Too Many Requests Retry-After: 17":                                   17 * time.Second,
		"450 4.2.0 Greylisted, please try again in 5 minutes":                     5 * time.Minute,
		"ErrorServerBusy BackOffMilliseconds 2000":                                2 * time.Second,
		"Retry after 2026-05-05T10:00:00.000Z":                                    0,
		"550 5.1.1 User unknown":                                                  0,
		"421 try again in 99999999 hours":                                         7 * 24 * time.Hour,
		"Sie werden gedrosselt. Retry-After: \"3\"":                               3 * time.Second,
		`{"error":{"code":"TooManyRequests"},"headers":{"retry-after":"120"}}`:    2 * time.Minute,
		"Application is over its MailboxConcurrency limit. Please wait 4 seconds": 4 * time.Second,
	} {
		if got := diagnose.Explain(diagnose.Failure{Text: text}).RetryAfter; got != want {
			t.Errorf("%q asks for %v, heard %v", text, want, got)
		}
	}
	if got := diagnose.Explain(diagnose.Failure{Text: "429", RetryAfter: time.Minute}).RetryAfter; got != time.Minute {
		t.Errorf("a header's minute became %v", got)
	}
}

func TestTheUnknownIsSaidToBeUnknown(t *testing.T) {
	for _, text := range []string{"", "blorp", "the frobnicator is out of cheese", "42"} {
		f := diagnose.Explain(diagnose.Failure{Text: text})
		if f.Cause != diagnose.Unknown || f.Confidence != 0 || f.Raw != text {
			t.Errorf("%q: %+v", text, f)
		}
	}
}

// TestExplainIsPure: the same failure gives the same finding, and stays as it was.
func TestExplainIsPure(t *testing.T) {
	for _, x := range readExamples(t, "examples.jsonl") {
		before := maps.Clone(x.Context)
		f := diagnose.Failure{Text: x.Text, Protocol: x.Protocol, Context: x.Context}
		first := diagnose.Explain(f)
		for range 3 {
			if again := diagnose.Explain(f); !reflect.DeepEqual(first, again) {
				t.Fatalf("%s: %+v, then %+v", x.ID, first, again)
			}
		}
		if !reflect.DeepEqual(before, x.Context) {
			t.Errorf("%s: the context was changed", x.ID)
		}
	}
}

// TestALongTextCostsLittle: a megabyte of anything is answered at once, and the
// beginning and the end of it are read.
func TestALongTextCostsLittle(t *testing.T) {
	for _, piece := range []string{"a", "<", "\\", "%", "eyJ", "AADSTS", "&", "5.7.139 ", "550 5.7.1 denied ", "{\"error\":", "=\n", "429 ", "\x00", "é", "http://", "invalid_grant "} {
		long := strings.Repeat(piece, 1<<20/len(piece))
		start := time.Now()
		f := diagnose.Explain(diagnose.Failure{Text: long, Context: m{"mailbox": long, "host": long, "token": m{"aud": long, "scp": long}}})
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%q repeated took %v", piece, took)
		}
		if len(f.Raw) > 600 || len(f.Sentence) > 1000 {
			t.Errorf("%q repeated gives %d bytes of raw text and %d of sentence", piece, len(f.Raw), len(f.Sentence))
		}
	}
	filler := strings.Repeat("Received: from a by b\r\n", 1<<16)
	if got := diagnose.Explain(diagnose.Failure{Text: filler + "550 5.1.1 User unknown"}).Cause; got != "recipient-rejected" {
		t.Errorf("at the end of a long text: %s", got)
	}
}

func FuzzExplain(f *testing.F) {
	for _, name := range []string{"examples.jsonl", "more.jsonl"} {
		for i, x := range readExamples(f, name) {
			if i%20 == 0 {
				f.Add(x.Text, x.Protocol, fmt.Sprint(x.Context["host"]), fmt.Sprint(x.Context["token"]))
			}
		}
	}
	f.Add("334 eyJ", "smtp", "smtp.gmail.com", "\xff")
	f.Add("AADSTS\n\n5\n0011 =\n=C3 %zz \\u12 \\x <a <html>", "", "{mailbox|", "}")
	f.Fuzz(func(t *testing.T, text, protocol, host, fact string) {
		found := diagnose.Explain(diagnose.Failure{Text: text, Protocol: protocol, Code: fact, Enhanced: fact,
			Context: m{"host": host, "mailbox": fact, "token": m{"aud": fact, "scp": host}, "step": fact, "date": fact, "grant": host, "consent_age_days": fact}})
		if _, ok := diagnose.Lookup(found.Cause); !ok {
			t.Fatalf("no cause %q", found.Cause)
		}
		if found.Confidence < 0 || found.Confidence > 1 || found.Who == "" || found.Retry == "" || found.Title == "" {
			t.Fatalf("%+v", found)
		}
	})
}

func BenchmarkExplain(b *testing.B) {
	all := readExamples(b, "examples.jsonl")
	diagnose.Explain(diagnose.Failure{Text: "warm"})
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		x := all[i%len(all)]
		diagnose.Explain(diagnose.Failure{Text: x.Text, Protocol: x.Protocol, Context: x.Context})
	}
}
