// Package client speaks mailgrant's REST API, /v1.
//
//	c := client.New("https://mailgrant.example.com", os.Getenv("MAILGRANT_KEY"))
//	sub, err := c.Send(ctx, client.Message{
//		From: "office@contoso.example", To: []string{"kim@fabrikam.example"},
//		Subject: "Your case", Text: "We are on it.",
//	}, client.Key("case-4711"))
//
// Every error of the server comes back as a *mailgrant.Error, with its remedy and,
// where a provider said no, the finding: errors.Is(err, mailgrant.Lapsed) works.
// The types in this package are those of the wire; the server uses them too.
package client
