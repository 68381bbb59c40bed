// Package wiretest gives tests a mail server at the other end: its certificate,
// the way to it, and what it says, as a file.
package wiretest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/internal/provider"
)

// Pair is a certificate for imap.example and 127.0.0.1, good in a bubble's year
// 2000 too, and the roots that trust it.
var Pair = sync.OnceValues(func() (tls.Certificate, *x509.CertPool) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Unix(0, 0), NotAfter: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC),
		DNSNames: []string{"imap.example"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &k.PublicKey, k)
	if err != nil {
		panic(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k}, roots
})

// ServerTLS is what the server shows.
func ServerTLS() *tls.Config {
	cert, _ := Pair()
	return &tls.Config{Certificates: []tls.Certificate{cert}}
}

// ClientTLS trusts it, as egress.Guard.TLS does.
func ClientTLS(name, _ string) *tls.Config {
	_, roots := Pair()
	return &tls.Config{ServerName: name, RootCAs: roots, MinVersion: tls.VersionTLS12}
}

// Way is the way of alex@contoso.example. Its first token is "token", and any
// other "fresh".
func Way() provider.Way {
	return provider.Way{
		Mailbox:  mailgrant.Mailbox{Address: "alex@contoso.example", Kind: mailgrant.MailboxOwn},
		Grant:    mailgrant.Grant{Flow: mailgrant.FlowCode, Mailbox: "alex@contoso.example"},
		Settings: provider.Settings{Template: "generic", SASL: []string{"XOAUTH2", "OAUTHBEARER"}},
		Dial:     new(net.Dialer).DialContext,
		Token: func(_ context.Context, _ string, fresh bool) (mailgrant.Token, error) {
			if fresh {
				return mailgrant.Token{Value: mailgrant.NewSecret("fresh")}, nil
			}
			return mailgrant.Token{Value: mailgrant.NewSecret("token")}, nil
		},
	}
}

// HostPort takes an address apart.
func HostPort(addr string) (host string, port int) {
	host, digits, _ := net.SplitHostPort(addr)
	port, _ = strconv.Atoi(digits)
	return host, port
}
