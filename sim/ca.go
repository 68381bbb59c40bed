package sim

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// servedHosts are the names in the server certificate: this machine's, and
// Microsoft's for clients that are pointed here by their resolver.
var servedHosts = []string{
	"localhost",
	"login.microsoftonline.com", "login.microsoftonline.us", "login.partner.microsoftonline.cn",
	"graph.microsoft.com", "graph.microsoft.us", "dod-graph.microsoft.us", "microsoftgraph.chinacloudapi.cn",
	"outlook.office.com", "outlook.office365.com", "outlook.office365.us", "outlook-dod.office365.us",
	"smtp.office365.com", "smtp.office365.us", "smtp-mail.outlook.com", "partner.outlook.cn",
}

// An authority is the CA of a sim. It lives in a folder, and is used again
// when the folder has one.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	file string
}

func openAuthority(dir string) (*authority, error) {
	a := &authority{file: filepath.Join(dir, "ca.pem")}
	if a.load(dir) == nil && time.Until(a.cert.NotAfter) > 30*24*time.Hour {
		return a, nil
	}
	return a, a.make(dir)
}

func (a *authority) load(dir string) error {
	pair, err := tls.LoadX509KeyPair(a.file, filepath.Join(dir, "ca-key.pem"))
	if err != nil {
		return err
	}
	a.key = pair.PrivateKey.(crypto.Signer)
	a.cert, err = x509.ParseCertificate(pair.Certificate[0])
	return err
}

func (a *authority) make(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               pkix.Name{CommonName: "Imitation of Microsoft 365, for tests"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().AddDate(2, 0, 0),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return err
	}
	a.key = key
	keyPEM, err := keyToPEM(key)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "ca-key.pem"), keyPEM, 0o600),
		os.WriteFile(a.file, certToPEM(der), 0o644),
	)
}

// serve makes the certificate of the listeners.
func (a *authority) serve() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: newSerial(),
		Subject:      pkix.Name{CommonName: "localhost"},
		DNSNames:     servedHosts,
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     a.cert.NotAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key}, nil
}

func newSerial() *big.Int { return new(big.Int).SetBytes(randomBytes(16)) }

func certToPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func keyToPEM(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func parseCertificate(text string) (*x509.Certificate, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, fmt.Errorf("no PEM block in the certificate")
	}
	return x509.ParseCertificate(block.Bytes)
}

// thumbprints are x5t and x5t#S256 of a certificate.
func thumbprints(c *x509.Certificate) (x5t, x5tS256 string) {
	one, two := sha1.Sum(c.Raw), sha256.Sum256(c.Raw)
	return base64.RawURLEncoding.EncodeToString(one[:]), base64.RawURLEncoding.EncodeToString(two[:])
}
