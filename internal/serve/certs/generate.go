package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mailgrant/mailgrant"
)

const (
	fileName   = "certificate.pem"
	life       = 397 * 24 * time.Hour // the longest that clients still take
	renewAhead = 30 * 24 * time.Hour
)

func (s *Certs) path() string { return filepath.Join(s.cfg.Dir, fileName) }

// ensure makes a certificate when there is none, when it ends soon, or when a
// name was asked for that it does not have. One that cannot be read is not
// replaced: it may be somebody's.
func (s *Certs) ensure() error {
	b, err := os.ReadFile(s.path())
	if err == nil {
		var cert tls.Certificate
		if cert, err = tls.X509KeyPair(b, b); err != nil {
			return mailgrant.Errorf(mailgrant.Misset, err, "%s is not the certificate that was made here", s.path()).
				Fix("move it away, and a new one is made")
		}
		if s.fits(cert.Leaf) {
			return nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return unreadable(err)
	}
	names, addrs := local(s.cfg.Names)
	out, err := makePEM(s.cfg.Now(), names, addrs)
	if err != nil {
		return fmt.Errorf("make a certificate: %w", err)
	}
	return s.keep(out)
}

// fits compares with what was asked for. Addresses of the machine come and go;
// they alone do not make a new one.
func (s *Certs) fits(leaf *x509.Certificate) bool {
	now := s.cfg.Now()
	if now.Before(leaf.NotBefore) || now.After(leaf.NotAfter.Add(-renewAhead)) {
		return false
	}
	for _, n := range s.cfg.Names {
		if n = strings.TrimSpace(n); n != "" && leaf.VerifyHostname(n) != nil {
			return false
		}
	}
	return true
}

// keep writes the file whole or not at all, for our eyes only.
func (s *Certs) keep(b []byte) error {
	if err := os.MkdirAll(s.cfg.Dir, 0o700); err != nil {
		return unwritable(err)
	}
	f, err := os.CreateTemp(s.cfg.Dir, fileName+".*") // 0600
	if err != nil {
		return unwritable(err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), s.path())
	}
	if err != nil {
		return unwritable(err)
	}
	return nil
}

func unwritable(err error) error {
	return mailgrant.Errorf(mailgrant.Misset, err, "the certificate cannot be kept: %v", err).
		Fix("let the user that runs mailgrant write there, or set certificate files")
}

// local is by what names and addresses clients nearby may call this machine.
func local(more []string) (names []string, addrs []net.IP) {
	names = []string{"localhost"}
	if h, err := os.Hostname(); err == nil {
		names = append(names, h)
	}
	addrs = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	if ifs, err := net.InterfaceAddrs(); err == nil {
		for _, a := range ifs {
			if n, ok := a.(*net.IPNet); ok && !n.IP.IsLinkLocalUnicast() {
				addrs = append(addrs, n.IP)
			}
		}
	}
	for _, m := range more {
		if m = strings.TrimSpace(m); m == "" {
			continue
		}
		if ip := net.ParseIP(m); ip != nil {
			addrs = append(addrs, ip)
		} else {
			names = append(names, strings.ToLower(m))
		}
	}
	slices.Sort(names)
	slices.SortFunc(addrs, func(a, b net.IP) int { return bytes.Compare(a.To16(), b.To16()) })
	return slices.Compact(names), slices.CompactFunc(addrs, net.IP.Equal)
}

// makePEM makes an ECDSA P-256 key and a certificate that signs itself.
func makePEM(now time.Time, names []string, addrs []net.IP) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{"mailgrant"}, CommonName: commonName(names)},
		NotBefore:             now.Add(-time.Hour), // clocks of old devices
		NotAfter:              now.Add(life - time.Hour),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		DNSNames:              names,
		IPAddresses:           addrs,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	out := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return append(out, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})...), nil
}

// commonName is the first name that says more than localhost, if it fits.
func commonName(names []string) string {
	for _, n := range names {
		if n != "localhost" && len(n) <= 64 {
			return n
		}
	}
	return "localhost"
}
