package wiretest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
)

// AsApp makes w the way of an app itself to a mailbox at Microsoft 365. Its token
// is what the endpoint gives for form.
func AsApp(t *testing.T, w *provider.Way, mailbox, endpoint string, roots *x509.CertPool, form url.Values) {
	t.Helper()
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots}}}
	res, err := client.PostForm(endpoint, form)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var doc struct {
		Token string `json:"access_token"`
	}
	if err := json.NewDecoder(res.Body).Decode(&doc); err != nil {
		t.Fatal(err)
	}
	w.Settings.Template = "microsoft365"
	w.Mailbox = mailgrant.Mailbox{Address: mailbox, Kind: mailgrant.MailboxApp}
	w.Grant = mailgrant.Grant{Flow: mailgrant.FlowApp}
	w.Token = func(context.Context, string, bool) (mailgrant.Token, error) {
		return mailgrant.Token{Value: mailgrant.NewSecret(doc.Token)}, nil
	}
}
