// Package sim is an imitation of Microsoft 365 that speaks the real wire: the
// sign-in service, Graph as far as mail needs it, the submission service, IMAP
// and POP. It says the real texts, keeps the real limits, and fails on request.
// Nothing that is sent to it leaves it.
//
//	s, err := sim.Start(ctx, sim.Config{})
//	defer s.Close()
//
// # Addresses
//
//	LoginURL     https   login.microsoftonline.com: discovery, authorize, token, device code, adminconsent, logout
//	GraphURL     https   graph.microsoft.com: /v1.0/me, users, sendMail, messages, mailFolders, delta, subscriptions; /oidc/userinfo
//	SMTPAddr     STARTTLS  smtp.office365.com:587
//	SMTPSAddr    implicit TLS, which Exchange has not and other providers have
//	IMAPAddr     implicit TLS  outlook.office365.com:993
//	POPAddr      implicit TLS  outlook.office365.com:995
//	BrowserURL   http    the same pages for a browser, and /webmail/ to look at mail
//	ControlURL   http    the state, read and changed by programs
//
// Clients trust CertPool or the file CAFile; with Config.Dir it stays the same.
// The certificate is also good for Microsoft's own names, for clients whose
// resolver is bent to come here; what they are told then has these names.
//
// # World
//
// A World is what administrators set: tenants with users, mailboxes, app
// registrations, consents, rights in Exchange and policies, and the Knobs, which
// are all limits and lifetimes. Contoso is the built-in one; LoadWorld reads a
// file (YAML or JSON in the shape of State). Everything may change while it
// runs, and counts from the next request on.
//
// Time is the machine's until Advance moves it. Codes, tokens, secrets and
// limits follow.
//
// # Mail
//
// There is one store: what is sent from one mailbox to another lies there, what
// Deliver brings from outside, and what clients append. IMAP, POP, Graph and the
// web mailbox read it, with UIDs, UIDLs, ids that change and ids that do not. A
// change by any of them, or by Move, SetFlags and Expunge, is pushed to IDLE and
// to the subscriptions of Graph. ResetUIDValidity numbers a folder anew.
//
// # People
//
// A person clicks through the pages at BrowserURL. A program lets SignIn do it:
// choose the account, password, number in the authenticator, consent, "stay
// signed in", for an authorization request, an admin consent or a device code.
// It returns the address that the browser would go to next.
//
// # Faults
//
// SetFault breaks one point until it is cleared or has struck so many times;
// FaultNames lists those that are ready made, Fault the points and the deeds.
// Two are worth knowing: a fault that is "lost" does what was asked and then
// drops the connection, and one with "answer" does it and says that it did not.
//
// Without access to this package an address does the same to one message, or to
// one login of IMAP and POP: alex+throttled@contoso.example is answered as if the
// mailbox were busy, alex+throttled2@ only twice. Triggers lists the words.
//
// # Control
//
// The control address does over HTTP and JSON what the methods here do, for
// programs in other languages. GET /_control/ lists its calls. It answers on
// loopback listeners only, to the name localhost, and to no page of another
// site.
//
//	curl -X PATCH  localhost:8080/_control/mailboxes/kim@contoso.example -d '{"smtp_auth_disabled":true}'
//	curl -X POST   localhost:8080/_control/faults -d '{"name":"graph-429","times":2}'
//	curl           'localhost:8080/_control/mail?mailbox=ann@adatum.example&wait=5s'
//
// # What it is not
//
// Notifications with the message in them, $search, $batch and personal Graph
// data are not imitated. Notifications go to this machine only, by https with a
// certificate of an authority of the system, of this one, or of Config.Trust.
// Facts come from Microsoft's documentation and from captures; where neither
// says anything, a knob decides.
package sim
