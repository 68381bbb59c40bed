package sim_test

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant/sim"
)

// An application is sent through a consent and sends a message by Graph. What
// it would reach at Microsoft it reaches at the addresses of the sim.
func ExampleStart() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := sim.Start(ctx, sim.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()

	// A client that trusts the sim. A program under test is given s.CAFile().
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.CertPool()}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}

	// Kim signs in and consents, as with a browser.
	const callback = "http://localhost:8765/callback"
	authority := s.LoginURL() + "/organizations/oauth2/v2.0"
	back, err := s.SignIn(ctx, authority+"/authorize?"+url.Values{
		"client_id": {sim.ContosoClientID}, "response_type": {"code"}, "redirect_uri": {callback},
		"scope": {"offline_access https://graph.microsoft.com/Mail.Send"},
	}.Encode(), sim.SignIn{Address: "kim@contoso.example"})
	if err != nil {
		log.Fatal(err)
	}

	// The application redeems the code.
	res, err := client.PostForm(authority+"/token", url.Values{
		"grant_type": {"authorization_code"}, "code": {back.Query().Get("code")}, "redirect_uri": {callback},
		"client_id": {sim.ContosoClientID}, "client_secret": {sim.ContosoClientSecret},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer res.Body.Close()
	var token struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(res.Body).Decode(&token); err != nil {
		log.Fatal(err)
	}

	// The first try is throttled, the second one is taken.
	if err := s.SetFault(sim.Fault{Name: "graph-429", Times: 1}); err != nil {
		log.Fatal(err)
	}
	message := "From: kim@contoso.example\r\nTo: ann@adatum.example\r\nSubject: Hello\r\n\r\nHello Ann\r\n"
	for range 2 {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.GraphURL()+"/v1.0/me/sendMail",
			strings.NewReader(base64.StdEncoding.EncodeToString([]byte(message))))
		if err != nil {
			log.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token.AccessToken)
		req.Header.Set("Content-Type", "text/plain")
		res, err := client.Do(req)
		if err != nil {
			log.Fatal(err)
		}
		res.Body.Close()
		fmt.Println(res.Status)
	}

	arrived, err := s.WaitMail(ctx, "ann@adatum.example", 1)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(arrived[0].Subject, "by", arrived[0].Via)

	// Output:
	// 429 Too Many Requests
	// 202 Accepted
	// Hello by graph
}
