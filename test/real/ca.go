package real

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// An authority is the private CA of this test process. What trusts its
// certificate trusts every part that this package starts.
type authority struct {
	certFile          string // the authority's own certificate
	leafFile, keyFile string // for localhost and 127.0.0.1; readable by all
	pool              *x509.CertPool
}

var ca struct {
	sync.Mutex
	*authority
}

// CAFile is the certificate of the authority behind every TLS door here.
func CAFile(t testing.TB) string {
	t.Helper()
	return certificates(t).certFile
}

// Certificate is a certificate for localhost and 127.0.0.1 under that authority.
func Certificate(t testing.TB) (certFile, keyFile string) {
	t.Helper()
	a := certificates(t)
	return a.leafFile, a.keyFile
}

// Client is an HTTP client that trusts the authority and follows no redirect.
func Client(t testing.TB) *http.Client {
	t.Helper()
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: certificates(t).pool}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: upWithin,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func certificates(t testing.TB) *authority {
	t.Helper()
	ca.Lock()
	defer ca.Unlock()
	if ca.authority != nil {
		return ca.authority
	}
	dir := folder(t, "ca")
	atExit(t, "rm -rf "+quote(dir))
	a, err := newAuthority(dir)
	if err != nil {
		t.Fatalf("certificates for the test: %v", err)
	}
	ca.authority = a
	return a
}

func newAuthority(dir string) (*authority, error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	root := &x509.Certificate{SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "authority of one test"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(30 * 24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, caKey.Public(), caKey)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(now.UnixNano() + 1), Subject: pkix.Name{CommonName: "localhost"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(30 * 24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, root, key.Public(), caKey)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	a := &authority{certFile: filepath.Join(dir, "ca.pem"), leafFile: filepath.Join(dir, "cert.pem"), keyFile: filepath.Join(dir, "key.pem"), pool: x509.NewCertPool()}
	parsed, err := x509.ParseCertificate(rootDER)
	if err != nil {
		return nil, err
	}
	a.pool.AddCert(parsed)
	return a, errors.Join(
		writePEM(a.certFile, "CERTIFICATE", rootDER),
		writePEM(a.leafFile, "CERTIFICATE", leafDER),
		writePEM(a.keyFile, "PRIVATE KEY", keyDER))
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o644)
}
